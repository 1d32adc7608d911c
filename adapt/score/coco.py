"""What is in the images, for CHAIR, Object HalBench and POPE's questions.

FILE.json    {"IMAGE": ["dog", ...], ...}: objects by the first word of their line in the list of
             synonyms
FOLDER       COCO's instances_*.json and captions_*.json (https://cocodataset.org/#format-data), as
             the official codes read them: what is segmented, and what the reference captions
             mention
FILE.json    one such COCO file
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapt.params import InputError
from adapt.score.rows import list_of_texts, read_json, shown

Truth = dict[str, list[str]]  # the objects of each image, each once, in the order of the file


@dataclass(frozen=True)
class Reading:
    """What is taken from COCO's files."""

    wanted: Collection[str] | None  # the images (None: all)
    canonical: Callable[[str], str]  # a category's object (`KeyError`: none)
    mentioned: Callable[[str], Iterable[str]]  # the objects in a reference caption


def read(path: Path, reading: Reading) -> Truth:
    """The objects of each image."""
    truth: Truth = {}
    for file in files(path):
        content = read_json(file)
        if not isinstance(content, dict) or not content:
            raise InputError(f"{file}: is no object of image ids, nor a COCO annotation file")
        if "annotations" in content:
            _add_coco(truth, content, str(file), reading)
            continue
        for image, names in content.items():
            truth[image] = list(dict.fromkeys(list_of_texts(names, f"{file}: {image!r}")))
    return truth


def files(path: Path) -> list[Path]:
    """The files that `path` stands for: itself, or a folder's instances and captions."""
    if not path.is_dir():
        return [path]
    kinds = [sorted(path.glob(f"{kind}_*.json")) for kind in ("instances", "captions")]
    if not all(kinds):
        raise InputError(f"{path}: has no instances_*.json or no captions_*.json; CHAIR needs both")
    return [file for kind in kinds for file in kind]


def _add_coco(truth: Truth, content: Mapping[str, Any], where: str, reading: Reading) -> None:
    try:
        category = {one["id"]: one["name"] for one in content.get("categories", [])}
        images = [str(one["id"]) for one in content.get("images", [])]
        notes = [(str(note["image_id"]), note) for note in content["annotations"]]
        named = {*images, *(image for image, _ in notes)}
        wanted = named if reading.wanted is None else named.intersection(reading.wanted)
        for image in filter(wanted.__contains__, images):
            truth.setdefault(image, [])
        for image, note in notes:
            if image in wanted:
                if "caption" in note:
                    objects = reading.mentioned(note["caption"])
                else:
                    objects = [reading.canonical(category[note["category_id"]])]
                truth[image] = list(dict.fromkeys([*truth.get(image, []), *objects]))
    except KeyError as error:
        problem = f"{shown(error.args[0])} is missing in a COCO file, or in the synonyms"
        raise InputError(f"{where}: {problem}") from None
    except (TypeError, AttributeError):
        raise InputError(f"{where}: is not in the format of COCO's annotations") from None
