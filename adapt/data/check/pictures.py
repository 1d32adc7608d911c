"""The pictures of a source: kinds, modes, sizes, what has to be changed, and which look alike."""

from collections import Counter
from typing import Any

from adapt.data.check.examined import Examined
from adapt.data.check.lengths import spread
from adapt.data.importing.gallery import size_of
from adapt.data.likeness import FALSE_ALARMS, KINDS


def pictures(examined: Examined) -> dict[str, Any]:
    """Figures of the distinct pictures of rows that passed their own checks."""
    found = examined.pictures()
    formats, modes, notes = Counter[str](), Counter[str](), Counter[str]()
    for one in found:
        kind, mode, *said = one.about.split("\n")
        formats[kind] += 1
        modes[mode] += 1
        notes.update(said)
    sizes = [size_of(one.fingerprint) for one in found]
    return {
        "distinct": len(found),
        "a_row": spread([row.images for _, row in examined.accepted()]),
        "with_rejected": sum(len(row.pictures) > row.images for _, row in examined.accepted()),
        "formats": dict(formats.most_common()),
        "modes": dict(modes.most_common()),
        "width": spread([width for width, _ in sizes]),
        "height": spread([height for _, height in sizes]),
        "notes": dict(notes.most_common()),
    }


def alike(examined: Examined, examples: int) -> dict[str, Any]:
    """Pictures that look like another one, by kind; identical ones under several image ids."""
    names: dict[bytes, set[str]] = {}
    rows = Counter[bytes]()
    for _, row in examined.accepted():
        rows.update(set(row.pictures))
        for digest in row.pictures[: row.images]:
            names.setdefault(digest, set()).add(row.image_id)
    repeated = sum(len(ids) > 1 for ids in names.values())
    first = examined.first_rows()
    pairs = [(a, b, kind) for a, b, kind in examined.pairs if a in first and b in first]
    kinds = Counter({"identical": repeated}) + Counter(kind for _, _, kind in pairs)
    return {
        "in_several_rows": sum(count > 1 for count in rows.values()),
        "kinds": {kind: kinds[kind] for kind in KINDS},
        "false_alarms": FALSE_ALARMS,
        "examples": [
            f"{examined.place(first[b])} is {examined.place(first[a])}, {kind}"
            for a, b, kind in pairs[:examples]
        ],
    }
