"""What is in the images, for CHAIR, Object HalBench and POPE's questions.

FILE.json    {"IMAGE": ["dog", ...], ...}: objects by the first word of their line in the list of
             synonyms
FOLDER       COCO's instances_*.json and captions_*.json (https://cocodataset.org/#format-data), as
             the official codes read them: what is segmented, and what the reference captions
             mention
FILE.json    one such COCO file

An image goes by its id, or by the name of its file where COCO's list of images has it (`ids`).
"""

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapt.params import InputError
from adapt.score.content import list_of_texts, named, read_json, shown
from adapt.score.ids import Ids, id_of

Truth = dict[str, list[str]]  # the objects of each image, each once, in the order of the file


@dataclass(frozen=True)
class Reading:
    """What is taken from COCO's files."""

    wanted: Collection[str] | None  # the images, as the answers spell them (None: all)
    canonical: Callable[[str], str]  # a category's object (`KeyError`: none)
    mentioned: Callable[[str], Iterable[str]]  # the objects in a reference caption


@dataclass(frozen=True)
class Images:
    """The objects of the images that are wanted; a table of ours lists more than those."""

    objects: Truth = field(default_factory=dict)
    ids: Ids = field(default_factory=lambda: Ids(()))
    listed: list[str] = field(default_factory=list)  # by tables, in their order


def read(path: Path, reading: Reading) -> Images:
    """The objects of each image."""
    images = Images()
    for file in files(path):
        content, where = read_json(file), named(file)
        if not isinstance(content, dict) or not content:
            raise InputError(f"{where}: is no object of image ids, nor a COCO annotation file")
        if "annotations" in content:
            _add_coco(images, content, where, reading)
            continue
        for image, names in content.items():
            objects = list_of_texts(names, f"{where}: {shown(image)}")
            images.objects[image] = list(dict.fromkeys(objects))
        images.ids.add_known(content)
        images.listed.extend(content)
    return images


def files(path: Path) -> list[Path]:
    """The files that `path` stands for: itself, or a folder's instances and captions."""
    if not os.path.isdir(path):
        return [path]
    kinds = [sorted(path.glob(f"{kind}_*.json")) for kind in ("instances", "captions")]
    if not all(kinds):
        raise InputError(f"{path}: has no instances_*.json or no captions_*.json; CHAIR needs both")
    return [file for kind in kinds for file in kind]


def _add_coco(images: Images, content: Mapping[str, Any], where: str, reading: Reading) -> None:
    try:
        category = {one["id"]: one["name"] for one in content.get("categories", [])}
        listed = [(_id(one["id"]), one.get("file_name")) for one in content.get("images", [])]
        notes = [(_id(note["image_id"]), note) for note in content["annotations"]]
        # 1. Which images the answers mean, by this file's own list.
        images.ids.add_known(image for image, _ in (*listed, *notes))
        images.ids.add((name, image) for image, name in listed if isinstance(name, str))
        wanted = images.ids.meant(reading.wanted)
        # 2. An image without annotations is empty, not unknown.
        for image, _ in listed:
            if image in wanted:
                images.objects.setdefault(image, [])
        # 3. What is segmented, and what a person has said about it.
        for image, note in notes:
            if image in wanted:
                if "caption" in note:
                    objects = reading.mentioned(note["caption"])
                else:
                    objects = [reading.canonical(category[note["category_id"]])]
                before = images.objects.get(image, [])
                images.objects[image] = list(dict.fromkeys([*before, *objects]))
    except KeyError as error:
        problem = f"{shown(error.args[0])} is missing in a COCO file, or in the synonyms"
        raise InputError(f"{where}: {problem}") from None
    except (TypeError, AttributeError):
        raise InputError(f"{where}: is not in the format of COCO's annotations") from None


def _id(value: Any) -> str:
    key = id_of(value)
    if key is None:
        raise TypeError(value)
    return key
