"""Load a processor for pictures: on PIL, without a part for video, complete, and with a pad token.

Families that also read video (Qwen-VL, LLaVA-OneVision, SmolVLM, InternVL) have a processor class
with a part for it that needs torchvision, which a picture never touches.
"""

import inspect
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from PIL import Image

from adapt.models.checkpoint.folder import foreign, read_if_there, read_object
from adapt.models.checkpoint.limits import within
from adapt.models.checkpoint.pil import is_hidden, on_pil
from adapt.models.checkpoint.render import check_template
from adapt.params import InputError

PROCESSOR, IMAGES = "processor_config.json", "preprocessor_config.json"
VIDEO, TOKENIZER = "video_preprocessor_config.json", "tokenizer_config.json"
# Further files that are read where they are there.
FURTHER = ("tokenizer.json", "special_tokens_map.json", "added_tokens.json", "chat_template.json")
SECONDS = 10.0
LARGEST_EDGE, LARGEST_AREA = 2**13, 2**26  # pixels
# What stands in for the part for video where its settings are asked for.
NO_VIDEO = SimpleNamespace(num_frames=None, fps=None)


def processor_in(folder: Path) -> Any:
    """The processor of a folder; InputError names the file that is missing or cannot be read."""
    # 1. The files, as plain data.
    files = _files(folder)
    # 2. The class without its part for video, and what its constructor takes.
    kind = pictures_only(_class(folder, files))
    with foreign(f"{folder}: its processor cannot be loaded"):
        settings, _ = kind.get_processor_dict(str(folder))
        options = {"trust_remote_code": False, "backend": "pil"}
        parts = kind._get_arguments_from_pretrained(str(folder), settings, **options)
        settings = {**settings, **_left_out(kind, folder, settings)}
        processor = kind.from_args_and_dict(parts, settings)
    _forget(processor.tokenizer, options, files[TOKENIZER])
    if "video_settings" in vars(kind):
        processor.video_settings = _video_settings(files)
    # 3. What it does with a picture, with a batch, and with a question.
    _check_pictures(processor, folder)
    give_pad_token(processor.tokenizer, folder)
    check_template(processor.chat_template, folder)
    return processor


def _files(folder: Path) -> dict[str, dict[str, Any]]:
    """The JSON files of the processor's parts; those that are not there are empty."""
    if not (folder / TOKENIZER).exists():
        raise InputError(f"{folder}: no processor ({TOKENIZER}) beside the model")
    files = {name: dict(read_if_there(folder / name)) for name in (PROCESSOR, IMAGES, VIDEO)}
    if not files[IMAGES] and "image_processor" not in files[PROCESSOR]:
        problem = f"no image processor ({IMAGES}, or its part of {PROCESSOR})"
        raise InputError(f"{folder}: {problem} beside the model")
    for name, settings in (
        (PROCESSOR, files[PROCESSOR].get("image_processor")),
        (IMAGES, files[IMAGES]),
    ):
        _check_sides(folder / name, settings)
    for name in FURTHER:
        read_if_there(folder / name)
    return {**files, TOKENIZER: read_object(folder / TOKENIZER)}


def _class(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> Any:
    """The processor's class: as a file names it, in the order of transformers, or the model's."""
    from transformers import ProcessorMixin
    from transformers.models.auto.processing_auto import (
        PROCESSOR_MAPPING,
        processor_class_from_name,
    )

    named = [files[name].get("processor_class") for name in (PROCESSOR, IMAGES, VIDEO, TOKENIZER)]
    name = next((name for name in named if name), None)
    with foreign(f"{folder}: no class of its processor"):
        kind = (
            PROCESSOR_MAPPING[type(_config(folder))]
            if name is None
            else processor_class_from_name(str(name))
        )
        kind = on_pil(kind.__name__) if is_hidden(kind) else kind
    if not (isinstance(kind, type) and issubclass(kind, ProcessorMixin)):
        raise InputError(f"{folder}: its processor_class {name} is none of transformers'")
    return kind


def _config(folder: Path) -> Any:
    from transformers import AutoConfig

    read_object(folder / "config.json")
    return AutoConfig.from_pretrained(str(folder), trust_remote_code=False)


def _check_sides(path: Path, settings: Any) -> None:
    """Raises InputError for a size of pictures that cannot be meant: making one takes for ever.

    Where patches are merged, a size named "edge" is an area, in pixels.
    """
    if not isinstance(settings, dict):
        return
    most = LARGEST_AREA if "merge_size" in settings else LARGEST_EDGE
    sides = settings.get("size")
    named = sides.items() if isinstance(sides, dict) else [("size", sides)]
    for key, value in named:
        if isinstance(value, int | float) and not 0 < value <= most:
            problem = f"size of pictures: {key} is {value}; expected 1 to {most}"
            raise InputError(f"{path}: {problem}")


def _check_pictures(processor: Any, folder: Path) -> None:
    """Raises InputError where a small picture cannot be prepared, or becomes a huge one."""
    where = f"{folder}: its image processor fails on a picture of 32 x 32 pixels"
    with foreign(where):
        within(SECONDS, where, lambda: processor.image_processor([Image.new("RGB", (32, 32))]))


def _forget(tokenizer: Any, options: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
    """Undo that a tokenizer keeps what it was loaded with, and would save it."""
    for name in options:
        tokenizer.init_kwargs.pop(name, None)
        if name in stored:
            tokenizer.init_kwargs[name] = stored[name]


# ---- without video -----------------------------------------------------------------------------


@cache
def pictures_only(kind: Any) -> Any:
    """The processor class without its part for video; the class itself where it has none.

    What it saves, plain transformers loads with the part for video: `video_settings`, as they
    stood in the folder that it came from, are written where transformers would write them.
    """
    if not any("video" in name for name in kind.get_attributes()):
        return kind
    names = vars(sys.modules[kind.__module__])
    if names.get("num2words", True) is None:  # not installed: it is for the length of videos
        names["num2words"] = _no_words

    class PicturesOnly(kind):
        video_processor = NO_VIDEO
        video_settings: Mapping[str, Any] = {}

        @classmethod
        def get_attributes(cls) -> list[str]:
            return [name for name in super().get_attributes() if "video" not in name]

        @classmethod
        def from_args_and_dict(cls, args: Any, processor_dict: Any, **kwargs: Any) -> Any:
            # Some constructors ask for the part; theirs is the only place that would see it.
            return super().from_args_and_dict(
                args, {**processor_dict, "video_processor": None}, **kwargs
            )

        def to_dict(self) -> dict[str, Any]:
            stored = super().to_dict()
            stored.pop("video_processor", None)
            settings = dict(self.video_settings)
            return {**stored, "video_processor": settings} if settings else stored

    # The name is written into the saved files.
    PicturesOnly.__name__, PicturesOnly.__qualname__ = kind.__name__, kind.__qualname__
    PicturesOnly.__module__ = kind.__module__
    return PicturesOnly


def _no_words(*_: Any, **__: Any) -> str:
    raise InputError("videos need the package num2words")


def _video_settings(files: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """What transformers would make a video processor from: its own part, file, or the pictures'."""
    nested = files[PROCESSOR].get("video_processor")
    return nested if isinstance(nested, dict) else files[VIDEO] or files[IMAGES]


# ---- what a folder leaves out ------------------------------------------------------------------


def _left_out(kind: Any, folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the constructor takes, the folder's files leave out, and the model's config knows.

    Older folders were saved before the processor counted a picture's tokens itself.
    """
    derived = {
        "patch_size": lambda config: config.vision_config.patch_size,
        "spatial_merge_size": lambda config: getattr(config, "spatial_merge_size", 1),
        "vision_feature_select_strategy": lambda config: config.vision_feature_select_strategy,
        "num_additional_image_tokens": _class_tokens,
        "num_image_tokens": _patches,
        "image_seq_len": lambda config: _patches(config) // config.scale_factor**2,
        "image_seq_length": _tokens_of_a_picture,
    }
    taken = inspect.signature(kind.__init__).parameters
    missing = [name for name in derived if name in taken and settings.get(name) is None]
    if not missing:
        return {}
    config = _config(folder)
    found = {}
    for name in missing:
        try:
            found[name] = derived[name](config)
        except AttributeError:  # the model's configuration does not know it either
            problem = f"{name} is missing in {PROCESSOR}, and config.json does not say it"
            raise InputError(f"{folder}: {problem}") from None
    return found


def _patches(config: Any) -> int:
    """Patches of a square picture of the tower's size."""
    vision = config.vision_config
    size, patch = (
        side if isinstance(side, int) else side[0]
        for side in (vision.image_size, vision.patch_size)
    )
    return int(size // patch) ** 2


def _class_tokens(config: Any) -> int:
    """Tokens that the tower adds to its patches: CLIP's has one; "default" means to drop it."""
    is_clip = "clip" in config.vision_config.model_type
    return int(is_clip or config.vision_feature_select_strategy == "default")


def _tokens_of_a_picture(config: Any) -> int:
    known = getattr(config, "mm_tokens_per_image", None)
    return int(config.image_seq_length if known is None else known)


def give_pad_token(tokenizer: Any, folder: str | Path) -> None:
    """Where a tokenizer has no pad token, its unknown token or else its end token becomes one.

    Padding is masked wherever a batch goes, so any token does; the unknown one is no answer's.
    """
    if tokenizer.pad_token_id is not None:
        return
    token = tokenizer.unk_token or tokenizer.eos_token
    if token is None:
        raise InputError(f"{folder}: its tokenizer has no pad token, and no unknown or end token")
    tokenizer.pad_token = token
