"""Which numbers of workers Ray may start, from what the nodes of a cluster have."""

import pytest
from ray.train import RunConfig, ScalingConfig
from ray.train.v2._internal.execution.scaling_policy import NoopDecision
from ray.train.v2._internal.util import time_monotonic

from adapt.cluster import elastic
from adapt.cluster.local import MARK


class Coordinator:
    """Of a cluster that is asked for nothing."""

    def maybe_send_resource_request(self, *_) -> None:
        pass


def decided(monkeypatch, cpus: dict[str, float], alive: set[str], **options):
    """What is done while no worker runs, on nodes of so many CPUs as Ray last counted them."""
    nodes = [{"NodeID": name, "Alive": name in alive} for name in cpus]
    monkeypatch.setattr("ray.nodes", lambda: nodes)
    monkeypatch.setattr(elastic, "PAUSE_S", 0.0)
    policy = elastic.Policy(ScalingConfig(num_workers=(2, 8), **options), (2, 4, 8))
    policy._coordinator_client = Coordinator()
    policy._latest_reserved_resources = {name: {"CPU": count} for name, count in cpus.items()}
    policy._latest_reserved_resources_query_time = time_monotonic()
    return policy.make_decision_for_non_running_worker_group()


@pytest.mark.parametrize(
    ("cpus", "workers"),
    [({"a": 2.0}, 2), ({"a": 3.0, "b": 2.0}, 4), ({"a": 7.5}, 4), ({"a": 6.0, "b": 6.0}, 8)],
)
def test_workers_are_as_many_as_there_is_room_for_and_as_are_admitted(monkeypatch, cpus, workers):
    assert decided(monkeypatch, cpus, set(cpus)).num_workers == workers


def test_nothing_starts_without_room_for_the_fewest(monkeypatch):
    assert isinstance(decided(monkeypatch, {"a": 1.0}, {"a"}), NoopDecision)


def test_a_node_that_is_gone_does_not_count(monkeypatch):
    """What Ray has reserved may be twenty seconds old."""
    assert decided(monkeypatch, {"a": 2.0, "b": 2.0}, {"a"}).num_workers == 2


@pytest.mark.parametrize("workers", [2, (1, 2)])
def test_a_local_ray_has_nothing_to_clean_up(workers, tmp_path, monkeypatch):
    """What does it asks any Ray of the machine."""
    run = RunConfig(name="a-run", storage_path=str(tmp_path))
    made = elastic.trainer(lambda: None, workers, False, run_config=run)

    def kinds() -> set[str]:
        return {type(one).__name__ for one in made._create_default_callbacks()}

    monkeypatch.delenv(MARK, raising=False)
    on_a_cluster = kinds()
    monkeypatch.setenv(MARK, str(tmp_path))
    assert on_a_cluster - kinds() == {"PlacementGroupCleanerCallback"}
    assert len(kinds()) > 2
