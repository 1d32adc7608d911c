"""Ray Train with as many workers as there is room for, of the numbers that a training admits.

Ray counts what the nodes of a cluster have, starts the workers again from the last checkpoint when
that number has changed, and goes on. It would take every number of a range; here it rounds down to
one that is admitted. To be imported where Ray trains, because it imports Ray.
"""

import time
from collections.abc import Callable
from typing import Any

import ray
from ray.data._internal.cluster_autoscaler.base_autoscaling_coordinator import ReservedResources
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.constants import WORKER_GROUP_START_TIMEOUT_S_ENV_VAR as PLACE
from ray.train.v2._internal.execution.scaling_policy import (
    ElasticScalingPolicy,
    NoopDecision,
    ScalingDecision,
)

from adapt.cluster.local import environment_with, private_folder

LOOK_S = 60.0  # how often Ray looks for more room while all goes well; each change starts anew
# How long workers may wait to be placed, before they are counted again: a node that has just died
# still counts for some seconds.
PLACE_S = 30.0
PAUSE_S = 1.0


def trainer(work: Callable[[], Any], workers: int | tuple[int, ...], gpu: bool, **more: Any) -> Any:
    """Ray's trainer of `work` on a number of workers, or on one of those that are admitted.

    These are in ascending order. `gpu`: each has one. `more` is for `TorchTrainer`.
    """
    if isinstance(workers, int):
        scaling = ScalingConfig(num_workers=workers, use_gpu=gpu)
        return Own(work, scaling_config=scaling, **more)
    scaling = ScalingConfig(
        num_workers=(workers[0], workers[-1]),
        use_gpu=gpu,
        elastic_resize_monitor_interval_s=LOOK_S,
    )
    return Trainer(work, worlds=workers, scaling_config=scaling, **more)


class Policy(ElasticScalingPolicy):
    """Ray's policy, but for numbers of workers that are not admitted and nodes that are gone."""

    def __init__(self, scaling_config: ScalingConfig, worlds: tuple[int, ...]) -> None:
        super().__init__(scaling_config)
        self._worlds = worlds

    def make_decision_for_non_running_worker_group(self) -> ScalingDecision:
        """Ray's; while there is no room it would be asked again without a pause."""
        decision = super().make_decision_for_non_running_worker_group()
        if isinstance(decision, NoopDecision):
            time.sleep(PAUSE_S)
        return decision

    def _count_possible_workers(self, reserved_resources: ReservedResources) -> int:
        """The largest admitted number that there is room for, 0 for none."""
        # What is reserved may be as old as 20 s.
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        there = {node: each for node, each in reserved_resources.items() if node in alive}
        most = super()._count_possible_workers(there)
        return max((number for number in self._worlds if number <= most), default=0)


class Own(TorchTrainer):
    """Ray's trainer, without what it needs on a cluster alone."""

    def _create_default_callbacks(self) -> list[Any]:
        """All of Ray's, but where it is a local Ray, which ends with its process.

        There, nothing is left to be removed behind a controller that has died; and what watches for
        that asks whichever Ray of this machine was started last whether the controller lives.
        """
        callbacks: list[Any] = super()._create_default_callbacks()
        if private_folder() is None:
            return callbacks
        return [one for one in callbacks if not isinstance(one, PlacementGroupCleanerCallback)]


class Trainer(Own):
    """Ray's trainer under `Policy`.

    Args:
        worlds: the numbers of workers that are admitted, in ascending order.
    """

    def __init__(self, *args: Any, worlds: tuple[int, ...], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._worlds = worlds

    def _initialize_and_run_controller(self, **options: Any) -> Any:
        policy = Policy(self.scaling_config, self._worlds)
        with environment_with({PLACE: str(PLACE_S)}):
            return super()._initialize_and_run_controller(**options | {"scaling_policy": policy})
