"""The best weights so far: what is trained of the best checkpoint, beside the training.

A folder of files (`BEST`), 4 bytes a weight in float32, which the first process keeps and puts into
every checkpoint: the checkpoint is all that outlives a machine. On a file system they are there
twice and take their space once.
"""

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from adapt.files import linked

BEST = "best"
PIECE = 2**31  # bytes of a file: so much of a large model is in main memory at once


@dataclass(frozen=True)
class Best:
    """The best weights of a training that writes into `folder`."""

    folder: Path

    @property
    def path(self) -> Path:
        """Where they are, at the first process."""
        return self.folder / BEST

    def keep(self, tensors: Iterable[tuple[str, Tensor]], is_first: bool) -> None:
        """Make these the best weights; all processes go through them, the first one writes.

        As new files: those before may be part of a checkpoint already.
        """
        if not is_first:
            for _ in tensors:
                pass
            return
        fresh = self.folder / f"{BEST}.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        for number, piece in enumerate(_pieces(tensors)):
            save_file(piece, fresh / f"{number:05}.safetensors")
        shutil.rmtree(self.path, ignore_errors=True)
        fresh.rename(self.path)

    def accompany(self, checkpoint: Path) -> None:
        """Put them into a checkpoint."""
        shutil.copytree(self.path, checkpoint / BEST, copy_function=linked)

    def go_on(self, checkpoint: Path) -> None:
        """Take those of a checkpoint, which stays as it is."""
        shutil.rmtree(self.path, ignore_errors=True)
        if (checkpoint / BEST).is_dir():
            shutil.copytree(checkpoint / BEST, self.path, copy_function=linked)

    def fill(self, model: torch.nn.Module) -> None:
        """Give them to a model."""
        assert self.path.is_dir(), "every checkpoint has them"
        parameters = dict(model.named_parameters())
        for name, tensor in self._read():
            parameters[name].data.copy_(tensor)

    def _read(self) -> Iterator[tuple[str, Tensor]]:
        for path in sorted(self.path.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                yield from ((name, file.get_tensor(name)) for name in file.keys())  # noqa: SIM118


def _pieces(tensors: Iterable[tuple[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
    """The tensors in main memory, as many at a time as a file takes."""
    held: dict[str, Tensor] = {}
    for name, tensor in tensors:
        if held and sum(each.nbytes for each in held.values()) + tensor.nbytes > PIECE:
            yield held
            held = {}
        held[name] = tensor.detach().cpu().contiguous()
    yield held
