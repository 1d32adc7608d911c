"""The process group of workers on one machine: they find each other through a file.

Ray Train lets them meet at a TCP port of the first worker. PyTorch opens that on all interfaces of
the machine, without a token; the file lies in the private folder of the local Ray. To be imported
where Ray trains, because it imports Ray.
"""

import dataclasses
import os
import uuid
from pathlib import Path
from typing import Any

import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import (
    _set_torch_distributed_env_vars,
    _setup_torch_process_group,
    _TorchBackend,
)

from adapt.cluster.local import MARK


@dataclasses.dataclass
class FileGroup(TorchConfig):
    """Ray Train's `TorchConfig` with a meeting place in `folder`, which all workers see."""

    folder: str = ""

    @property
    def backend_cls(self) -> type["_FileBackend"]:
        """What sets the group up."""
        return _FileBackend


class _FileBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: FileGroup) -> None:
        """As `_TorchBackend.on_start`, but for the meeting place."""
        has_gpus = worker_group.get_resources_per_worker().get("GPU", 0) > 0
        worker_group.execute(_set_torch_distributed_env_vars)
        # A new one for every start: what killed workers have left in the former is out of date.
        place = Path(backend_config.folder, f"group-{uuid.uuid4().hex[:8]}")
        starts = [
            worker_group.execute_single_async(
                rank,
                _setup_torch_process_group,
                backend="nccl" if has_gpus else "gloo",
                world_rank=rank,
                world_size=len(worker_group),
                init_method=f"file://{place}",
                timeout_s=backend_config.timeout_s,
            )
            for rank in range(len(worker_group))
        ]
        ray.get(starts)


def config() -> TorchConfig:
    """How workers meet: by a file with the local Ray of this process, else as Ray Train does."""
    folder = os.environ.get(MARK) if not os.environ.get("RAY_ADDRESS") else None
    return FileGroup(folder=folder) if folder else TorchConfig()
