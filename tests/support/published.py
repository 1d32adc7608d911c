"""Small data sets in the columns of published ones: every picture drawn here, every text ours.

    python -m tests.support.published     # writes docs/formats.md

`FORMATS` has a writer for each form that a format comes in. It fills a folder as the data set is
published, and returns the pairs that are in it, in the order of its rows.
"""

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from adapt.data.export import EXPORTED
from adapt.data.formats import detection
from adapt.data.formats.detection import HEAD, Recognised, detect
from adapt.data.schema import Example, Preference, SceneObject, Turn
from adapt.data.sources import Source
from adapt.data.tables import write_split
from adapt.data.validation import RowError, checked
from adapt.params import InputError

Row = Example | Preference
DOCUMENT = Path(__file__).parents[2] / "docs" / "formats.md"
SIZE = (40, 30)  # width, height of a picture


def picture(number: int, kind: str = "PNG", size: tuple[int, int] = SIZE, **options: Any) -> bytes:
    """A picture of blocks, another for each number."""
    blocks = np.random.default_rng(number).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST).save(buffer, kind, **options)
    return buffer.getvalue()


@dataclass(frozen=True)
class Pair:
    """What a row is expected to become."""

    question: str
    chosen: str
    rejected: str
    images: tuple[bytes, ...]
    history: tuple[Turn, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)  # other columns of the record


PAIRS = [
    Pair("What is on the table?", "A red cup.", "A red cup and a spoon.", (picture(0, "JPEG"),)),
    Pair("Is there a dog?", "No, there is no dog.", "Yes, a dog sleeps there.", (picture(1),)),
    Pair("Describe the picture.", "Two boats — one of them “old”.", "Three boats.", (picture(2),)),
]


def imported(place: Path, name: str = "auto") -> tuple[Recognised, list[Row], list[RowError]]:
    """A source as the import reads it: what was recognised, the rows, and what was refused."""
    source = Source.open(str(place), place.parent)
    heads = {
        file.name: [r.values for r in file.head(HEAD) if r.values is not None]
        for file in source.files()
    }
    recognised = detect(heads, name, source.described)
    outcomes = list(_outcomes(source, recognised))
    rows = [one for one in outcomes if not isinstance(one, RowError)]
    return recognised, rows, [one for one in outcomes if isinstance(one, RowError)]


def _outcomes(source: Source, recognised: Recognised) -> Iterator[Row | RowError]:
    for file in source.files():
        if (kind := recognised.kinds.get(file.name)) is None:
            continue
        read = partial(source.picture, relative_to=file.name)
        for record in file.records():
            if record.values is None:
                yield RowError(file.name, record.row, "", record.problem)
                continue
            try:
                for raw in recognised.mapped(file.name, record.values):
                    yield checked(raw, file=file.name, row=record.row, kind=kind, picture=read)
            except InputError as error:
                yield RowError(file.name, record.row, "", str(error))


# ---- how files are written -----------------------------------------------------------------------


def as_lines(path: Path, rows: Sequence[Any]) -> None:
    """JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def as_json(path: Path, content: Any) -> None:
    """One JSON document."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1))


def as_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A parquet file with the types that Arrow finds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path)


def in_row(content: bytes, name: str = "a.jpg") -> dict[str, Any]:
    """A picture as `datasets` stores it."""
    return {"bytes": content, "path": name}


def beside(folder: Path, pair: Pair, media: str = "images") -> list[str]:
    """The pair's pictures as files, and their names."""
    (folder / media).mkdir(parents=True, exist_ok=True)
    names = []
    for number, content in enumerate(pair.images):
        name = f"{media}/{PAIRS.index(pair) if pair in PAIRS else 'x'}-{number}.png"
        (folder / name).write_bytes(content)
        names.append(name)
    return names


def turn(speaker: str, text: str) -> dict[str, str]:
    """LLaVA's form of a message."""
    return {"from": speaker, "value": text}


def said(role: str, text: str) -> dict[str, str]:
    """OpenAI's form of a message."""
    return {"role": role, "content": text}


# ---- the formats ---------------------------------------------------------------------------------


def rlhf_v(folder: Path) -> list[Pair]:
    rows = []
    for number, pair in enumerate(PAIRS):
        text = {"question": pair.question, "chosen": pair.chosen, "rejected": pair.rejected}
        rows.append(
            {
                "ds_name": "drawn",
                "image": in_row(pair.images[0]),
                "text": json.dumps(text),
                "origin_dataset": "ours",
                "origin_split": json.dumps({"model": "a", "type": "b"}),
                "idx": 100 + number,
                "image_path": "a.jpg",
            }
        )
    as_parquet(folder / "rlhf-v.parquet", rows)
    return [_with_id(pair, str(100 + number)) for number, pair in enumerate(PAIRS)]


def rlaif_v(folder: Path) -> list[Pair]:
    rows = [
        {
            "ds_name": "drawn",
            "image": in_row(pair.images[0]),
            "question": pair.question,
            "chosen": pair.chosen,
            "rejected": pair.rejected,
            "origin_dataset": "ours",
            "origin_split": json.dumps({"model": "a"}),
            "idx": f"r{number}",
            "image_path": "a.jpg",
        }
        for number, pair in enumerate(PAIRS)
    ]
    as_parquet(folder / "data" / "part-0.parquet", rows[:2])
    as_parquet(folder / "data" / "part-1.parquet", rows[2:])
    return [_with_id(pair, f"r{number}") for number, pair in enumerate(PAIRS)]


def trl_texts(folder: Path) -> list[Pair]:
    rows = [
        {
            "images": [in_row(content) for content in pair.images],
            "prompt": pair.question,
            "chosen": pair.chosen,
            "rejected": pair.rejected,
        }
        for pair in PAIRS
    ]
    as_parquet(folder / "train.parquet", rows)
    return PAIRS


def trl_messages(folder: Path) -> list[Pair]:
    """Parts with and without a picture among them, a system turn, and an earlier turn."""
    earlier = Turn(question="Hello.", answer="Hello!")
    pairs = [*PAIRS, Pair("And now?", "A tree.", "A bush.", (picture(3), picture(4)), (earlier,))]

    def asked(pair: Pair) -> list[dict[str, Any]]:
        places = [{"type": "image", "text": None}] * len(pair.images)
        text = (pair.history[0] if pair.history else pair).question
        turns = [{"role": "user", "content": [*places, {"type": "text", "text": text}]}]
        if pair.history:
            turns += [_parts("assistant", pair.history[0].answer), _parts("user", pair.question)]
        return [_parts("system", "Be brief."), *turns]

    rows = [
        {
            "images": [in_row(content) for content in pair.images],
            "prompt": asked(pair),
            "chosen": [_parts("assistant", pair.chosen)],
            "rejected": [_parts("assistant", pair.rejected)],
        }
        for pair in pairs
    ]
    as_parquet(folder / "train.parquet", rows)
    return pairs


def _parts(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def trl_misspelled(folder: Path) -> list[Pair]:
    """`pompt`, one picture in `image`, and answers that repeat the question."""
    rows = []
    for pair in PAIRS:
        asked = said("user", pair.question)
        rows.append(
            {
                "image": beside(folder, pair)[0],
                "pompt": [asked],
                "chosen": [asked, said("assistant", pair.chosen)],
                "rejected": [asked, said("assistant", pair.rejected)],
            }
        )
    as_lines(folder / "train.jsonl", rows)
    return PAIRS


def trl_implicit(folder: Path) -> list[Pair]:
    """No prompt: both answers begin with the same conversation."""
    rows = []
    for pair in PAIRS:
        asked = said("user", pair.question)
        rows.append(
            {
                "images": beside(folder, pair),
                "chosen": [asked, said("assistant", pair.chosen)],
                "rejected": [asked, said("assistant", pair.rejected)],
            }
        )
    as_lines(folder / "train.jsonl", rows)
    return PAIRS


def sharegpt(folder: Path) -> list[Pair]:
    """Columns, tags and roles of the file's own, which dataset_info.json explains."""
    rows = [
        {
            "talk": [{"who": "me", "says": f"<image>\n{pair.question}"}],
            "good": {"who": "it", "says": pair.chosen},
            "bad": {"who": "it", "says": pair.rejected},
            "pics": beside(folder, pair),
        }
        for pair in PAIRS
    ]
    as_json(folder / "pairs.json", rows)
    as_json(folder / "other.json", [{"talk": [{"who": "me", "says": "Hi."}]}])
    columns = {"messages": "talk", "chosen": "good", "rejected": "bad", "images": "pics"}
    tags = {"role_tag": "who", "content_tag": "says", "user_tag": "me", "assistant_tag": "it"}
    entry = {"file_name": "pairs.json", "formatting": "sharegpt", "ranking": True}
    info = {
        "pairs": {**entry, "columns": columns, "tags": tags},
        "other": {"file_name": "other.json", "columns": {"messages": "talk"}},
        "remote": {"hf_hub_url": "somebody/something"},
    }
    as_json(folder / "dataset_info.json", info)
    return PAIRS


def alpaca(folder: Path) -> list[Pair]:
    earlier = Turn(question="<image>Hello.", answer="Hello!")
    rows = [
        {
            "instruction": pair.question,
            "input": "Answer in one sentence.",
            "chosen": pair.chosen,
            "rejected": pair.rejected,
            "history": [[earlier.question, earlier.answer]],
            "images": beside(folder, pair),
        }
        for pair in PAIRS
    ]
    as_json(folder / "pairs.json", rows)
    heard = (Turn(question="Hello.", answer="Hello!"),)
    return [
        Pair(f"{p.question}\nAnswer in one sentence.", p.chosen, p.rejected, p.images, heard)
        for p in PAIRS
    ]


def ms_swift(folder: Path) -> list[Pair]:
    """Objects with boxes in pixels and in shares, and a rejected picture."""
    rows = []
    for pair in PAIRS:
        spoken = [said("user", f"<image>{pair.question}"), said("assistant", pair.chosen)]
        images = beside(folder, pair)
        rows.append({"messages": spoken, "rejected_response": pair.rejected, "images": images})
    rows[0]["objects"] = {"ref": ["Cup"], "bbox": [[10, 15, 20, 30]]}
    rows[1]["objects"] = {"ref": ["cat"], "bbox": [[0.0, 0.5, 0.5, 1.0]], "bbox_type": "norm1"}
    rows[2]["rejected_images"] = rows[0]["images"]
    as_lines(folder / "pairs.jsonl", rows)
    cup = SceneObject(name="cup", colour="", box=(0.25, 0.5, 0.5, 1.0))
    cat = SceneObject(name="cat", colour="", box=(0.0, 0.5, 0.5, 1.0))
    return [
        _with(PAIRS[0], objects=(cup,)),
        _with(PAIRS[1], objects=(cat,)),
        _with(PAIRS[2], rejected_images=PAIRS[0].images),
    ]


def ms_swift_aliases(folder: Path) -> list[Pair]:
    """query and response, several rejected responses; rejected_messages beside messages."""
    rows: list[dict[str, Any]] = [
        {
            "query": pair.question,
            "response": pair.chosen,
            "rejected_response": [pair.rejected, "Something else."],
            "image": beside(folder, pair)[0],
        }
        for pair in PAIRS[:2]
    ]
    asked = said("user", PAIRS[2].question)
    rows.append(
        {
            "messages": [asked, said("assistant", PAIRS[2].chosen)],
            "rejected_messages": [asked, said("assistant", PAIRS[2].rejected)],
            "images": beside(folder, PAIRS[2]),
        }
    )
    as_lines(folder / "pairs.jsonl", rows)
    other = [Pair(p.question, p.chosen, "Something else.", p.images) for p in PAIRS[:2]]
    return [PAIRS[0], other[0], PAIRS[1], other[1], PAIRS[2]]


def povid(folder: Path) -> list[Pair]:
    rows = []
    for pair in PAIRS:
        asked = turn("human", f"<image>\n{pair.question}")
        rows.append(
            {
                "id": "000000033471",
                "image": beside(folder, pair, "coco")[0],
                "conversations": [asked, turn("gpt", pair.chosen)],
                "rejected_conversations": [asked, turn("gpt", pair.rejected)],
            }
        )
    as_json(folder / "povid.json", rows)
    return PAIRS


def ha_dpo(folder: Path) -> list[Pair]:
    """Two answers of each kind for the first picture; a question that was answered rightly."""
    for number in (0, 1):
        path = folder / ("VG_100K", "VG_100K_2")[number] / f"{number + 1}.jpg"
        path.parent.mkdir(parents=True)
        path.write_bytes(picture(number, "JPEG"))
    lists = {"chosen": ["A cup.", "One cup."], "rejected": ["Two cups.", "A cup, a spoon."]}
    as_json(folder / "desc_data.json", {"1": lists})
    question = {"image_id": 2, "question": "Is there a dog?", "answer": "no"}
    wrong = {**question, "chosen": "No.", "reject": "Yes, a dog.", "correct": False}
    as_json(folder / "pope_data.json", [wrong, {**wrong, "reject": "No.", "correct": True}])
    first = (picture(0, "JPEG"),)
    pairs = [
        Pair("Describe this image in detail.", chosen, rejected, first, more={"image_id": "1"})
        for chosen in lists["chosen"]
        for rejected in lists["rejected"]
    ]
    second = (picture(1, "JPEG"),)
    return [*pairs, Pair("Is there a dog?", "No.", "Yes, a dog.", second, more={"image_id": "2"})]


def bpo(folder: Path) -> list[Pair]:
    rows = [
        {
            "image": beside(folder, pair)[0],
            "prompt": pair.question,
            "completions": [
                {"score": 1.0, "response": pair.chosen, "type": "gt"},
                {"score": 0.5, "response": pair.rejected, "type": "weakened"},
                {"score": 0.25, "response": "Nothing.", "type": "injected"},
            ],
        }
        for pair in PAIRS
    ]
    as_json(folder / "bpo.json", rows)
    pairs = []
    for pair in PAIRS:
        pairs.append(_with(pair, chosen_score=1.0, rejected_score=0.5))
        other = Pair(pair.question, pair.chosen, "Nothing.", pair.images)
        pairs.append(_with(other, chosen_score=1.0, rejected_score=0.25))
    return pairs


def _rated(pair: Pair, ratings: Sequence[str]) -> list[dict[str, Any]]:
    answers = ["Middling.", pair.chosen, pair.rejected, "Not rated."]
    return [
        {
            "annotations": {
                "Helpfulness": {"Rating": "3", "Rationale": "So so."},
                "Visual Faithfulness": {"Rating": rating, "Rationale": "Looked at it."},
            },
            "model": f"model-{number}",
            "response": answer,
        }
        for number, (answer, rating) in enumerate(zip(answers, ratings, strict=True))
    ]


def vlfeedback(folder: Path, columns_of_lists: bool = False) -> list[Pair]:
    """The second row's answers are all rated alike."""
    rows = []
    for number, pair in enumerate(PAIRS):
        completions: Any = _rated(pair, ("3", "3", "3", "N/A") if number == 1 else "351N")
        if columns_of_lists:
            completions = {name: [c[name] for c in completions] for name in completions[0]}
        rows.append(
            {
                "id": f"v{number}",
                "prompt": pair.question,
                "models": ["a", "b", "c", "d"],
                "completions": completions,
                "img_path": beside(folder, pair)[0],
            }
        )
    as_parquet(folder / "train.parquet", rows)
    rated = {"chosen_score": 5.0, "rejected_score": 1.0}
    return [_with(PAIRS[n], id=f"v{n}", **rated) for n in (0, 2)]


def mmpr(folder: Path) -> list[Pair]:
    """Several pictures in one row; paths relative to the root that meta.json names."""
    rows: list[dict[str, Any]] = []
    for pair in PAIRS:
        name = beside(folder, pair, "images/set-a")[0].rpartition("/")[2]
        answers = {"chosen": pair.chosen, "rejected": pair.rejected}
        rows.append({"image": name, "question": f"<image>\n{pair.question}", **answers})
    two = [Path(str(row["image"])).name for row in rows[:2]]
    rows.append({"image": two, "question": "Alike?", "chosen": "No.", "rejected": "Yes."})
    as_lines(folder / "annotations" / "a.jsonl", rows)
    entry = {"root": "MMPR/images/set-a", "annotation": "MMPR/annotations/a.jsonl"}
    as_json(folder / "meta.json", {"a": {**entry, "repeat_time": 1, "length": 4}})
    both = (*PAIRS[0].images, *PAIRS[1].images)
    return [*PAIRS, Pair("Alike?", "No.", "Yes.", both)]


def opa_dpo(folder: Path) -> list[Pair]:
    """A folder of `Dataset.save_to_disk`."""
    from datasets import Dataset

    rows = [
        {
            "queries": pair.question,
            "image_bytes": pair.images[0],
            "standard_response": "Not read.",
            "original_generate_response": f"{pair.rejected} It is late. It is late.",
            "AI_pseudo_response": pair.chosen,
            "AI_json_report": json.dumps({"1": {"score": 4}}),
        }
        for pair in PAIRS
    ]
    Dataset.from_list(rows).save_to_disk(str(folder))
    return [
        Pair(pair.question, pair.chosen, f"{pair.rejected} It is late.", pair.images)
        for pair in PAIRS
    ]


def mdpo(folder: Path) -> list[Pair]:
    rows = [
        {
            "image": beside(folder, pair)[0],
            "prompt": f"A chat. USER: <image>\n{pair.question} ASSISTANT:",
            "chosen": pair.chosen,
            "rejected": pair.rejected,
        }
        for pair in PAIRS
    ]
    as_json(folder / "mdpo.json", rows)
    return PAIRS


def ours(folder: Path) -> list[Pair]:
    """Our own file, with everything that a row may have."""
    cup = SceneObject(name="cup", colour="red", box=(0.0, 0.25, 0.5, 1.0))
    more: dict[str, Any] = {
        "kind": "describe",
        "history": (Turn(question="Like <image>?", answer="No."),),
        "chosen_score": 4.5,
        "rejected_score": -1.0,
        "rejected_images": (picture(9),),
        "objects": (cup, SceneObject(name="fork", colour="", box=None)),
        "absent": ("spoon",),
    }
    nothing: dict[str, Any] = {
        "kind": "other",
        "history": (),
        "chosen_score": None,
        "rejected_score": None,
        "rejected_images": (),
        "objects": (),
        "absent": None,
    }
    rows = [
        Preference(
            id=f"o{number}",
            image_id=f"i{number}",
            images=pair.images,
            question=pair.question,
            chosen=pair.chosen,
            rejected=pair.rejected,
            **(more if number == 0 else nothing),
        )
        for number, pair in enumerate(PAIRS)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    write_split(folder / "train.parquet", rows)
    names = ("id", "image_id", *(name for name in more if name != "history"))
    return [
        Pair(
            row.question,
            row.chosen,
            row.rejected,
            tuple(row.images),
            row.history,
            {name: getattr(row, name) for name in names},
        )
        for row in rows
    ]


def _with(pair: Pair, **more: Any) -> Pair:
    return Pair(pair.question, pair.chosen, pair.rejected, pair.images, pair.history, more)


def _with_id(pair: Pair, row_id: str) -> Pair:
    return _with(pair, id=row_id)


FORMATS: Mapping[str, tuple[str, Callable[[Path], list[Pair]]]] = {
    "rlhf-v": ("rlhf-v", rlhf_v),
    "rlaif-v": ("rlaif-v", rlaif_v),
    "trl, texts": ("trl", trl_texts),
    "trl, messages": ("trl", trl_messages),
    "trl, pompt": ("trl", trl_misspelled),
    "trl, implicit prompt": ("trl", trl_implicit),
    "llama-factory, sharegpt": ("llama-factory", sharegpt),
    "llama-factory, alpaca": ("llama-factory", alpaca),
    "ms-swift": ("ms-swift", ms_swift),
    "ms-swift, aliases": ("ms-swift", ms_swift_aliases),
    "povid": ("povid", povid),
    "ha-dpo": ("ha-dpo", ha_dpo),
    "bpo": ("bpo", bpo),
    "vlfeedback": ("vlfeedback", vlfeedback),
    "vlfeedback, lists": ("vlfeedback", partial(vlfeedback, columns_of_lists=True)),
    "mmpr": ("mmpr", mmpr),
    "opa-dpo": ("opa-dpo", opa_dpo),
    "mdpo": ("mdpo", mdpo),
    "parquet": ("parquet", ours),
}
"""By the form that is published: the name of its format, and what writes it."""

INTRODUCTION = """# Which data can be brought

Written by `python -m tests.support.published`; `tests/data/test_formats.py` proves every row with a
small data set in the published field names, imported, exported to TRL and read back equal, and
checks that this file is current. `data.format` is the name in the first column, or `auto`: then the
format is found from the first rows of the files, the most specific one if several fit, and the
stage says which and why.

| `data.format` | rows | recognised by | what is made of its peculiarities | forms tested |
|---|---|---|---|---|
"""
RULES = f"""
For all of them:

* Pictures are bytes in the row, names of files, or data URLs. Names are looked for in
  `data.pictures`, beside the file, in the source's folder, and in folders such as `images`; nothing
  is fetched, and nothing outside of these folders is read. Every picture is stored upright, RGB,
  8 bits; boxes are boxes of the upright picture.
* `<image>` may stand in a question once for each picture, or not at all. Where all of them lead the
  dialogue they are dropped.
* A conversation of several turns becomes `history` and the last question. A system turn has no
  place in a row of ours and is left out.
* A row is refused, with its file, row and reason, if it has no picture, is about a video, has an
  empty answer or two equal ones, or an id that could not name a file. The docstrings of
  `adapt/data/validation.py`, `texts.py`, `truth.py` and `pictures.py` have the whole list.
* A row without an id gets one that is made of its content, so that added rows change no other's.
* A column `split` (train, validation, test) is respected, and so are names of files and folders
  such as `train.jsonl` and `val/rows.json`.

`python -m adapt.data export PATH --format NAME OUT` writes {", ".join(EXPORTED)}. PATH is a split
file, a folder of splits, or the `pairs.parquet` of a run.
"""


def document() -> str:
    """The text of `docs/formats.md`."""
    rows = []
    for module in detection.FORMATS:
        first, _, rest = (module.__doc__ or "").partition("\n")
        told = " ".join([first.partition(": ")[2], *rest.split()])
        forms = [form for form, (name, _) in FORMATS.items() if name == module.NAME]
        listed = ", ".join(filter(None, (form.partition(", ")[2] for form in forms)))
        columns = module.ABOUT.partition(": ")[2]
        cells = (f"`{module.NAME}`", module.KIND, columns, told[0].upper() + told[1:], listed)
        rows.append(f"| {' | '.join(cells)} |\n")
    return f"{INTRODUCTION}{''.join(rows)}{RULES}"


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
