"""One replica on Ray Serve: the door of `adapt/serving/door.py`, its batches collected by Ray.

Its classes are Ray's; imported where Ray serves.
"""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from ray import serve

from adapt.cluster.local import private_folder
from adapt.serving.app import build
from adapt.serving.asked import Asked
from adapt.serving.batches import Done, Job
from adapt.serving.door import Door
from adapt.serving.loaded import Loaded
from adapt.serving.settings import ServeConfig
from adapt.serving.source import source_of
from adapt.watching.recorder import Recorder, Served
from adapt.watching.settings import WatchConfig

if TYPE_CHECKING:
    from adapt.serving.answerer import Answerer

SHUTDOWN_S = 5.0  # for answers that are being made when the server ends


def _app() -> FastAPI:
    """Called by Ray in each replica."""
    return build(lambda: serve.get_replica_context().servable_object.door)


@serve.deployment(name="adapt")
@serve.ingress(_app)
class Replica:
    """Answers questions.

    Args:
        settings: section `serve`.
        name: of the model, as clients say it.
        source: where the model comes from, in the words of `source_of`.
        root: the workspace whose registry is meant.
        watch: section `watch`: whether, and where, signals of the answers are logged.
    """

    def __init__(
        self, settings: ServeConfig, name: str, source: str, root: Path, watch: WatchConfig
    ) -> None:
        self.recorder = Recorder(watch, root)
        if private_folder() is not None:
            _stay_private()
        opened = partial(_opened, settings)
        loaded = Loaded(source_of(source, root), opened, settings.follow_s)
        self.door = Door(settings, name, loaded, self._watch)
        self.door.add = self._collect
        self._collect.set_max_batch_size(settings.batch)
        self._collect.set_batch_wait_timeout_s(settings.wait_ms / 1000)

    @serve.batch
    async def _collect(self, jobs: Sequence[Job]) -> list[None]:
        """What comes within `wait_ms` of a first question goes to the model together."""
        self.door.pool.add(jobs)
        return [None] * len(jobs)

    def _watch(self, asked: Asked, done: Done) -> None:
        """Log the signals of an answer; it waits for nothing."""
        pictures = [(*image.size, image.mode) for image in asked.images]
        served = Served.of(
            done.answer,
            threshold=asked.threshold,
            time=time.time(),
            version=done.version,
            question=asked.question,
            pictures=pictures,
            images=asked.images,
        )
        self.recorder.record(served)

    def standing(self) -> dict[str, Any]:
        """What this replica serves, for the command that has started it."""
        loaded = self.door.loaded
        version, trouble = self.door.version(), loaded.trouble
        return {"serves": loaded.answerer is not None, "version": version, "trouble": trouble}

    def __del__(self) -> None:
        if hasattr(self, "door"):
            self.door.close()
        if hasattr(self, "recorder"):
            self.recorder.close()


def _stay_private() -> None:
    """Let a replica of a local Ray listen on loopback alone.

    Ray opens a port for calls between deployments on all interfaces of the machine, whatever the
    address of its node is, and what it takes there is pickled. It does so after the replica's own
    constructor; tests/serving/test_on_ray.py sees what listens.
    """
    from ray._common.tls_utils import add_port_to_grpc_server
    from ray.serve._private import replica

    def on_loopback(server: Any, address: str) -> Any:
        assert address == "[::]:0", "another Ray: look where it listens"
        return add_port_to_grpc_server(server, "127.0.0.1:0")

    replica.add_port_to_grpc_server = on_loopback


def _opened(settings: ServeConfig, folder: Path, version: str) -> "Answerer":
    from adapt.serving.answerer import Answerer  # here, since the command has no need of torch

    return Answerer.open(folder, settings.device, version, settings.pace_ms / 1000)


def application(
    settings: ServeConfig, name: str, source: str, root: Path, watch: WatchConfig
) -> Any:
    """What Ray Serve runs: as many replicas as the settings say."""
    most = settings.limits.waiting * 2  # the guard lets fewer in; Ray itself refuses nobody
    options = {"num_cpus": settings.cpus, "num_gpus": settings.gpus}
    deployment = Replica.options(  # type: ignore[attr-defined]
        num_replicas=settings.replicas,
        max_ongoing_requests=most,
        ray_actor_options=options,
        graceful_shutdown_timeout_s=SHUTDOWN_S,
        graceful_shutdown_wait_loop_s=0.2,
    )
    return deployment.bind(settings, name, source, root, watch)
