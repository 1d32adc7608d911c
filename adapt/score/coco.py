"""What is in the images, for CHAIR and Object HalBench: a plain table, or COCO's annotation files.

FILE.json    {"IMAGE": ["dog", ...], ...}: objects by the first word of their line in the list of synonyms
FOLDER       COCO's instances_*.json and captions_*.json (https://cocodataset.org/#format-data), as the official
             codes read them: what is segmented, and what the reference captions mention
FILE.json    one such COCO file
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from adapt.params import InputError
from adapt.score.rows import list_of_texts, read_json, shown

Truth = dict[str, set[str]]


def read(
    path: Path,
    wanted: Collection[str],
    canonical: Mapping[str, str],
    mentioned: Callable[[str], Iterable[str]],
) -> Truth:
    """The objects of each image; of COCO's files, of the `wanted` images alone.

    `canonical` maps a category to its object, `mentioned` gives the objects in a reference caption.
    """
    truth: Truth = {}
    for file in files(path):
        content = read_json(file)
        if not isinstance(content, dict) or not content:
            raise InputError(f"{file}: is no object of image ids, nor a COCO annotation file")
        if "annotations" in content:
            _add_coco(truth, content, str(file), set(wanted), canonical, mentioned)
        else:
            truth |= {
                image: set(list_of_texts(names, f"{file}: {image!r}"))
                for image, names in content.items()
            }
    return truth


def files(path: Path) -> list[Path]:
    """The files that `path` stands for: itself, or a folder's instances and captions."""
    if not path.is_dir():
        return [path]
    found = [sorted(path.glob(f"{kind}_*.json")) for kind in ("instances", "captions")]
    if not all(found):
        raise InputError(f"{path}: has no instances_*.json or no captions_*.json; CHAIR needs both")
    return [file for kind in found for file in kind]


def _add_coco(
    truth: Truth,
    content: Mapping[str, Any],
    where: str,
    wanted: Collection[str],
    canonical: Mapping[str, str],
    mentioned: Callable[[str], Iterable[str]],
) -> None:
    try:
        names = {category["id"]: category["name"] for category in content.get("categories", [])}
        for image in content.get("images", []):
            if str(image["id"]) in wanted:
                truth.setdefault(str(image["id"]), set())
        for note in content["annotations"]:
            image = str(note["image_id"])
            if image in wanted:
                found = (
                    mentioned(note["caption"])
                    if "caption" in note
                    else [canonical[names[note["category_id"]]]]
                )
                truth.setdefault(image, set()).update(found)
    except KeyError as error:
        raise InputError(
            f"{where}: {shown(error.args[0])} is missing in a COCO file, or in the synonyms"
        ) from None
    except (TypeError, AttributeError):
        raise InputError(f"{where}: is not in the format of COCO's annotations") from None
