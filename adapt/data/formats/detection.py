"""Which format the files of a source have, and why: by name, or by their first rows.

To add a format, write a file like its neighbours and put it into FORMATS, before those that would
recognise its rows as well.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from types import ModuleType
from typing import Any

from adapt.data.formats import (
    bpo,
    ha_dpo,
    llama_factory,
    mdpo,
    mmpr,
    ms_swift,
    opa_dpo,
    parquet,
    pope_rows,
    povid,
    rlaif_v,
    rlhf_v,
    trl,
    vlfeedback,
)
from adapt.data.formats.raw import Layout, Raw, Record, RowProblem, columns_of, refuse_video
from adapt.params import InputError, hint, plain, require

AUTO = "auto"
FORMATS: Sequence[ModuleType] = (  # the most specific first
    *(rlhf_v, povid, opa_dpo, vlfeedback, bpo, ms_swift, llama_factory, pope_rows, mdpo),
    *(parquet, rlaif_v, trl, ha_dpo, mmpr),
)
NAMES = tuple(module.NAME for module in FORMATS)
INDEXED = (llama_factory, mmpr)  # a file beside the data says how it is laid out
HEAD = 20  # rows of a file that are enough to look at
SHOWN = 12  # columns that a message lists

Heads = Mapping[str, Sequence[Record]]  # of each file by its path from the source: its first rows
Described = Callable[[str], Any]  # the JSON of a file that describes others, None where none is


def nothing(_: str) -> None:
    """No file describes others."""


@dataclass(frozen=True)
class Recognised:
    """What was understood of a source; small and picklable, so that workers map rows with it."""

    format: str
    why: str
    kinds: Mapping[str, str]  # of each file that holds rows: "preference" or "evaluation"
    left_out: tuple[str, ...] = ()
    layouts: Mapping[str, Layout] = field(default_factory=dict)

    def mapped(self, file: str, record: Record) -> Iterator[Raw]:
        """The raw rows of a record of `file`; RowProblem says why it has none."""
        module = by_name(self.format)
        refuse_video(record)
        layout = self.layouts.get(file)
        if layout is not None and hasattr(module, "arranged"):
            record = module.arranged(record, layout)
        for raw in module.mapped(record):
            if layout is not None and layout.root:
                raw = _rooted(raw, layout.root)
            yield raw | {"split": record.get("split")}


def by_name(name: str) -> ModuleType:
    """The format of that name."""
    if name in NAMES:
        return FORMATS[NAMES.index(name)]
    raise InputError(f"data.format: unknown format {name}; {hint(name, [AUTO, *NAMES])}")


def detect(heads: Heads, name: str = AUTO, described: Described = nothing) -> Recognised:
    """The format of a source from the first rows of its files.

    `described` gives the JSON of a file that is not data (`Source.described`). Where several
    formats fit, it is the one that most files have, the most specific of these, and `why` names the
    others. InputError lists the columns that were found and the formats known.
    """
    require(bool(heads), "data.source", "holds no file of rows")
    fits = {module.NAME: _fitting(module, heads, described) for module in FORMATS}
    module = _most(fits, heads) if name == AUTO else by_name(name)
    if not (fitting := fits[module.NAME]):
        raise InputError(f"data.format: {name} does not fit {_seen(heads)}; it is {module.ABOUT}")
    # A file whose first rows cannot be read is kept, so that each of them is quarantined.
    read = [file for file in heads if file in fitting or not heads[file]]
    left_out = tuple(file for file in heads if file not in read)
    why = next(iter(fitting.values()))
    others = [other for other, found in fits.items() if other != module.NAME and found]
    if name != AUTO:
        why = f"named in data.format: {why}"
    elif others:
        why += f"; the most specific of those that fit ({', '.join(others)} too)"
    if left_out:
        why += f"; left out, because it does not fit: {', '.join(map(plain, left_out[:SHOWN]))}"
    return Recognised(
        format=module.NAME,
        why=why,
        kinds={file: _kind(module, heads[file]) for file in read},
        left_out=left_out,
        layouts=_layouts(module, heads, described),
    )


def _fitting(module: ModuleType, heads: Heads, described: Described) -> dict[str, str]:
    """Why a format fits, for each file that it fits."""
    layouts = _layouts(module, heads, described)
    found = {}
    for file, records in heads.items():
        layout = layouts.get(file, Layout())
        head = _arranged(module, records, layout)
        if head and not layout.skip and (why := module.recognised(head)):
            found[file] = why
    return found


def _most(fits: Mapping[str, Mapping[str, str]], heads: Heads) -> ModuleType:
    """The format that is the most specific one of the most files."""
    names = [next((n for n in NAMES if file in fits[n]), None) for file in heads]
    best = max(NAMES, key=names.count)  # the first of equals
    if best in names:
        return by_name(best)
    known = "; ".join(f"{module.NAME} ({module.ABOUT})" for module in FORMATS)
    raise InputError(f"data.source: no format fits {_seen(heads)}. Known: {known}")


def _seen(heads: Heads) -> str:
    """The first file with rows, and its columns."""
    file = next((file for file in heads if heads[file]), next(iter(heads)))
    columns = sorted(map(str, columns_of(heads[file])))
    more = f" and {len(columns) - SHOWN} more" if len(columns) > SHOWN else ""
    listed = ", ".join(plain(column) for column in columns[:SHOWN])
    return f"{plain(file)} (columns {listed}{more})" if columns else f"{plain(file)} (no rows)"


def _kind(module: ModuleType, head: Sequence[Record]) -> str:
    if module.KIND != "either":
        return module.KIND
    return "preference" if {"chosen", "rejected"} & columns_of(head) else "evaluation"


# ---- what a file beside the data says ------------------------------------------------------------


def _layouts(module: ModuleType, heads: Heads, described: Described) -> dict[str, Layout]:
    """The layouts that an index gives, by the paths of the files that there are."""
    layouts: dict[str, Layout] = {}
    if module not in INDEXED:
        return layouts
    for folder in dict.fromkeys(
        str(above) for file in heads for above in PurePosixPath(file).parents
    ):
        index = described(str(PurePosixPath(folder, module.INDEX)))
        for name, layout in module.layouts(index if isinstance(index, Mapping) else {}).items():
            if target := _target(name, folder, heads):
                layouts[target] = layout
    return layouts


def _target(name: str, folder: str, heads: Heads) -> str | None:
    """The file that an index means: beside it, or by a path that begins further up."""
    wanted = PurePosixPath(name).parts
    candidates = [PurePosixPath(folder, *wanted[skipped:]) for skipped in range(len(wanted))]
    return next((str(path) for path in candidates if str(path) in heads), None)


def _arranged(module: ModuleType, head: Sequence[Record], layout: Layout) -> list[Record]:
    if not hasattr(module, "arranged"):
        return list(head)
    arranged = []
    for record in head:
        with suppress(RowProblem):
            arranged.append(module.arranged(record, layout))
    return arranged


def _rooted(raw: Raw, root: str) -> Raw:
    """The row with `root` before its pictures' paths, the path alone and shorter roots behind."""
    parts = PurePosixPath(root).parts
    roots = [PurePosixPath(*parts[skipped:]) for skipped in range(len(parts))]

    def placed(picture: Mapping[str, Any]) -> dict[str, Any]:
        name = picture["path"]
        if picture["bytes"] is not None or not isinstance(name, str):
            return dict(picture)
        return {"bytes": None, "path": [*(str(above / name) for above in roots), name]}

    return raw | {"images": [placed(picture) for picture in raw["images"]]}
