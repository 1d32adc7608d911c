"""MLflow's door: what MLflow imports to load a registered version, and asks for answers.

    mlflow models serve -m models:/adapt@champion --env-manager local
    mlflow.pyfunc.load_model("models:/adapt@champion").predict(table)

A row is a question: `image` (a picture as base64 or a data URL, or a list of such), `question`,
and, where they are given, `policy` and `max_new_tokens`. A row of the answer has its text, risks
and version; `COLUMNS` names all. Rows are answered in batches, by one thread at a time: a model
answers one batch at once.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from adapt import params
from adapt.params import InputError, require
from adapt.registry import contents
from adapt.serving.api_errors import ApiError
from adapt.serving.asked import POLICIES, Answer, Asked
from adapt.serving.door_config import DoorConfig
from adapt.serving.pictures import File, content_of, decoded, looked_at
from adapt.serving.settings import Limits

if TYPE_CHECKING:
    import pandas as pd

    from adapt.serving.answerer import Answerer

COLUMNS = ("answer", "risk", "named", "tokens", "finish", "version", "steered", "mass")
TOKEN = ("text", "risk", "end", "logprob", "mass", "focus", "steered")
META = "registered_model_meta"
"""What MLflow leaves in the folder of a version that it has loaded by its name: which one it is."""


class Door:
    """A version with its limits; MLflow calls `predict`."""

    def __init__(self, answerer: "Answerer", config: DoorConfig) -> None:
        self._answerer, self._config, self._turn = answerer, config, threading.Lock()

    def predict(self, table: "pd.DataFrame", params: Any = None) -> "pd.DataFrame":
        """The answers to the rows of a table, in order; a mistake in one refuses all."""
        import pandas as pd
        from mlflow.exceptions import MlflowException

        answers: list[Answer] = []
        try:
            asked = [self._asked(number, row) for number, row in _rows(table)]
            size = self._config.batch
            for first in range(0, len(asked), size):
                with self._turn:
                    answers += self._answerer.answer(asked[first : first + size])
        except (InputError, ApiError) as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None
        version = self._answerer.version
        # Objects, so that a risk that nobody knows stays None, which JSON has and NaN is not.
        rows = [told(answer, version) for answer in answers]
        return pd.DataFrame(rows, columns=list(COLUMNS), dtype=object)

    def _asked(self, number: int, row: Mapping[str, Any]) -> Asked:
        """One row, checked."""
        where, config = f"row {number}", self._config
        limits = config.limits
        given = row.get("image")
        listed = [given] if isinstance(given, str) else given
        images = [one for one in listed or () if isinstance(one, str)]
        is_list = isinstance(listed, Sequence) and len(images) == len(listed)
        require(is_list, f"{where}: image", "expected a picture as text, or a list of such")
        problem = f"{len(images)} pictures; 1 to {limits.pictures} are answered about"
        require(1 <= len(images) <= limits.pictures, f"{where}: image", problem)
        question = row.get("question")
        if not isinstance(question, str) or not question.strip():
            raise InputError(f"{where}: question: expected a text")
        problem = f"longer than {limits.question_chars:,} characters"
        require(len(question) <= limits.question_chars, f"{where}: question", problem)
        policy = row.get("policy", config.policy)
        problem = f"expected one of {', '.join(POLICIES)}, got {params.shown(policy)}"
        require(policy in POLICIES, f"{where}: policy", problem)
        longest = row.get("max_new_tokens")
        problem = f"expected 1 to {limits.max_new_tokens}"
        is_allowed = longest is None or 1 <= longest <= limits.max_new_tokens
        require(is_allowed, f"{where}: max_new_tokens", problem)
        files = [_file(text, f"{where}: image", limits) for text in images]
        looked_at(files, limits)
        return Asked(
            id=str(number),
            images=decoded(files),
            question=question,
            policy=policy,
            threshold=config.threshold,
            max_new_tokens=int(longest or limits.max_new_tokens),
        )


def _file(text: str, where: str, limits: Limits) -> File:
    """A picture as text: a data URL, or the base64 that would stand in one."""
    url = text.strip()
    is_url = url[:5].lower() == "data:"
    content = content_of(url if is_url else f"data:;base64,{url}", where, limits)
    return File(content=content, param=where)


def _rows(table: "pd.DataFrame") -> Iterator[tuple[int, dict[str, Any]]]:
    """Every row by its number, from 1, without what is not given; arrays as lists."""
    for number, row in enumerate(table.to_dict("records"), start=1):
        values = {key: value for key, value in row.items() if not _is_missing(value)}
        yield number, {str(k): v.tolist() if hasattr(v, "tolist") else v for k, v in values.items()}


def _is_missing(value: Any) -> bool:
    """None, or a table's NaN, which differs from itself."""
    return value is None or (isinstance(value, float) and value != value)


def told(answer: Answer, version: str) -> dict[str, Any]:
    """An answer as a row of plain values."""
    tokens = [{name: getattr(token, name) for name in TOKEN} for token in answer.tokens]
    named = [{k: getattr(one, k) for k in ("name", "start", "end", "risk")} for one in answer.named]
    values = (answer.text, answer.risk, named, tokens, answer.finish, version)
    return dict(zip(COLUMNS, (*values, answer.steered, answer.mass), strict=True))


def _load_pyfunc(path: str, model_config: Mapping[str, Any] | None = None) -> Door:
    """What MLflow calls with the folder of a version, and the settings of its `MLmodel`."""
    from adapt.serving.answerer import Answerer

    folder = Path(path)
    contents.check_weights(folder)
    config = params.load({"config": model_config or {}}, "config", DoorConfig, "MLmodel")
    answerer = Answerer.open(folder, config.device, version_of(folder))
    return Door(answerer, config)


def version_of(folder: Path) -> str:
    """The version's number as MLflow left it in the folder; "" for a folder of one's own."""
    path = folder / META
    if not path.is_file() or path.stat().st_size > 4096:
        return ""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError):
        return ""
    number = str(found.get("model_version", "")) if isinstance(found, dict) else ""
    return number if number.isdecimal() and len(number) < 19 else ""
