"""What else decides an answer beside the weights: kept with a model that is served elsewhere.

Stage `answer` writes `asked.json`; whoever answers with the same model in the same way reads it
(`adapt/serving/bundle.py`).
"""

import json
from pathlib import Path

from pydantic import Field

from adapt import params
from adapt.attention.settings import AnchorConfig
from adapt.names import file_name, one_line
from adapt.params import Count, InputError, Seed, Settings

FILE = "asked.json"


def debias_file(model: str) -> str:
    """The name of the file with a model's debias masks, beside `asked.json`."""
    return file_name(f"debias_{model}.safetensors")


class AnsweredAs(Settings):
    """How a model answered: of debias masks, of what noise was asked, and how long it may speak."""

    seed: Seed
    max_new_tokens: Count
    anchor: AnchorConfig
    questions: tuple[str, ...] = Field(min_length=1)


def write(folder: Path, asked: AnsweredAs) -> None:
    """`asked.json` in the folder."""
    content = json.dumps(asked.model_dump(mode="json"), indent=2, ensure_ascii=False)
    (folder / FILE).write_text(f"{content}\n", encoding="utf-8")


def read(folder: Path) -> AnsweredAs:
    """That of the folder; InputError for another content."""
    file = folder / FILE
    try:
        content = {"asked": json.loads(file.read_text(encoding="utf-8"))}
    except (OSError, ValueError) as error:
        raise InputError(f"{one_line(str(file))}: {one_line(str(error), 100)}") from None
    return params.load(content, "asked", AnsweredAs, str(file))
