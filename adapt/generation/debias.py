"""Debias masks: where a model looks whatever the image. docs/method.md, section 2, M_debias.

A mask belongs to a grid of patches. Pictures of many sizes have many grids, so a mask is estimated
when a grid first appears, from noise of the sizes of the pictures that showed it, and kept on disk
under a name for all that it depends on.

Shapes: M patches of a grid, V views of it, L layers.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from adapt.attention.anchor import by_grid, debias_mask
from adapt.attention.layout import Grid, Layout
from adapt.attention.settings import AnchorConfig
from adapt.data.schema import IMAGE_TAG
from adapt.files import whole_file
from adapt.generation.answer import Decoding, first_maps
from adapt.generation.batches import Prompt, answered
from adapt.generation.settings import Batch
from adapt.models.identity import content_key
from adapt.models.prompts import Pictures, encode
from adapt.progress import track

Sizes = tuple[tuple[int, int], ...]  # (width, height) of the pictures of one prompt


@dataclass(frozen=True)
class Noise:
    """What masks are estimated from, besides a model and sizes of pictures.

    `questions` are asked of the noise, in turn; `batch` prompts at once.
    """

    questions: tuple[str, ...]
    config: AnchorConfig
    seed: int
    batch: Batch = "auto"

    @property
    def asked(self) -> tuple[Sequence[str], AnchorConfig, int]:
        """What decides the masks."""
        return self.questions, self.config, self.seed


class Debias:
    """The debias masks of one model, whose weights do not change meanwhile.

    Args:
        questions: asked of the noise, in turn.
        config, seed: of the anchor and of the noise.
        folder: where masks are kept; None keeps them in memory only.
        batch: prompts of noise that are answered at once; "auto": as many as the memory holds.
    """

    def __init__(
        self,
        model: nn.Module,
        processor: Any,
        questions: Sequence[str],
        config: AnchorConfig,
        seed: int,
        folder: Path | None = None,
        batch: Batch = "auto",
    ) -> None:
        self._model, self._processor, self._questions = model, processor, questions
        self._config, self._seed, self._folder, self._batch = config, seed, folder, batch
        self.masks: dict[Grid, Tensor] = {}  # those of the grids that have appeared
        self._identity = ""

    def covering(self, layout: Layout, images: Pictures) -> Mapping[Grid, Tensor]:
        """A mask [rows * columns] for every grid of the layout; `images` are its pictures.

        Rows are looked at in order, and a mask stays: the size of a batch changes nothing.
        """
        for view in layout.views:
            self.meet([view.grid], tuple(image.size for image in images[view.sample]))
        return self.masks

    def meet(self, grids: Sequence[Grid], sizes: Sizes) -> None:
        """A prompt with these grids and pictures of these sizes, as if it were asked now.

        What is asked after a kept answer then finds the masks that it would have found.
        """
        if any(grid not in self.masks for grid in grids):
            for grid, mask_M in self._of(sizes).items():
                self.masks.setdefault(grid, mask_M.to(self._device()))

    def save(self, path: Path) -> None:
        """Write the masks of the grids that have appeared; `load` takes them over elsewhere."""
        _write(path, self.masks)

    def load(self, path: Path) -> None:
        """Take over the masks of a file, before any grid has appeared; a damaged one: none."""
        device = self._device()
        self.masks |= {grid: mask.to(device) for grid, mask in (_read(path) or {}).items()}

    def estimated(self, sizes: Sizes) -> Mapping[Grid, Tensor]:
        """The masks of all grids that prompts with pictures of these sizes have, made anew."""
        return self._estimated(self._noise(sizes))

    def _device(self) -> torch.device:
        return next(self._model.parameters()).device

    def _of(self, sizes: Sizes) -> dict[Grid, Tensor]:
        """The masks of all grids that prompts with pictures of these sizes have."""
        prompts = self._noise(sizes)
        if self._folder is None:
            return self._estimated(prompts)
        path = self._folder / f"{self._key(prompts, sizes)}.safetensors"
        masks = _read(path)
        if masks is None:
            masks = self._estimated(prompts)
            _write(path, masks)
        return masks

    def _noise(self, sizes: Sizes) -> list[Prompt]:
        """Prompts with images of uniform noise: no image supports any answer."""
        generator, count = torch.Generator().manual_seed(self._seed), self._config.noise_images
        columns = []
        for width, height in sizes:
            shape = (count, height, width, 3)
            noise = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
            columns.append([Image.fromarray(pixels.numpy()) for pixels in noise])
        # A question that says where its pictures stand fits as many pictures only.
        fitting = [
            question if question.count(IMAGE_TAG) == len(sizes) else untagged(question)
            for question in self._questions
        ]
        rows = enumerate(zip(*columns, strict=True))
        return [Prompt(str(i), row, fitting[i % len(fitting)]) for i, row in rows]

    def _key(self, prompts: Sequence[Prompt], sizes: Sizes) -> str:
        """A name for all that the masks depend on; one step of training changes it."""
        # 1. The weights: read once, for they are many.
        self._identity = self._identity or content_key(self._model, {})
        # 2. The processor: by what it makes of the first prompt, a picture of noise and a question.
        first = encode(self._processor, [prompts[0].images], [prompts[0].question])
        digest = hashlib.blake2b(digest_size=16)
        for name, value in sorted(first.items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
            digest.update(value.cpu().numpy().tobytes())
        # 3. What is asked, how often, and of what.
        questions = tuple(prompt.question for prompt in prompts)
        settings = (self._identity, questions, self._config, self._seed, sizes)
        digest.update(repr(settings).encode())
        return digest.hexdigest()

    def _estimated(self, prompts: Sequence[Prompt]) -> dict[Grid, Tensor]:
        """From the maps of the first K tokens, averaged over answers and layers, grid by grid."""
        K, maps_VLM = self._config.anchor_tokens, defaultdict(list)
        decoding = Decoding(anchor_tokens=K, max_new_tokens=K)
        shown = " and ".join("{} x {}".format(*image.size) for image in prompts[0].images)
        parts = answered(
            *(self._model, self._processor, prompts, decoding, self._batch), prompt=lambda one: one
        )
        label, total = f"debias mask for {shown} pixels", len(prompts)
        for _, answers in track(parts, label, total, count=lambda part: len(part[0])):
            for patches in by_grid(answers.layout):
                maps_VLM[patches.grid].append(patches.of(first_maps(answers, K)))
        return {grid: debias_mask(torch.cat(found)) for grid, found in maps_VLM.items()}


class AskedDebias(Debias):
    """Debias masks that whoever has the model estimates; here they are kept, and on the CPU.

    Args:
        estimate: what `Debias.estimated` says there.
        weights: the name of the model's weights, that of `content_key`.
    """

    def __init__(
        self,
        estimate: Callable[[Sizes], dict[Grid, Tensor]],
        weights: str,
        processor: Any,
        noise: Noise,
        folder: Path | None = None,
    ) -> None:
        super().__init__(nn.Identity(), processor, *noise.asked, folder=folder, batch=noise.batch)
        self._estimate, self._identity, self.noise = estimate, weights, noise

    def _device(self) -> torch.device:
        return torch.device("cpu")

    def _estimated(self, prompts: Sequence[Prompt]) -> dict[Grid, Tensor]:
        return self._estimate(tuple(image.size for image in prompts[0].images))


def untagged(question: str) -> str:
    """A question without the signs that say where pictures stand.

    >>> untagged("Is <image> like this?")
    'Is like this?'
    """
    return " ".join(question.replace(IMAGE_TAG, " ").split())


def _write(path: Path, masks: Mapping[Grid, Tensor]) -> None:
    from safetensors.torch import save_file

    named = {f"{rows} x {columns}": mask.cpu() for (rows, columns), mask in masks.items()}
    with whole_file(path) as partial:
        save_file(named, partial)


def _read(path: Path) -> dict[Grid, Tensor] | None:
    """The masks of a file; None where there is none, or a damaged one, which is made again."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        named = load_file(path)
        masks = {tuple(map(int, name.split(" x "))): mask for name, mask in named.items()}
    except (OSError, SafetensorError, ValueError):
        return None
    is_whole = all(
        len(grid) == 2 and mask.shape == (grid[0] * grid[1],) and bool((mask > 0).all())
        for grid, mask in masks.items()
    )
    return masks if masks and is_whole else None  # type: ignore[return-value]
