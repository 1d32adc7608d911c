"""What stage `answer` leaves, made by hand: any rows, any texts, no model."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from adapt.attention.settings import PRELIM, SIMILARITY
from adapt.benchmarks.settings import Benchmark
from adapt.data.schema import Example, Preference
from adapt.data.tables import write_split
from adapt.evaluation.degradation import DRAWN
from adapt.metrics.headline import ARMS
from adapt.metrics.split import FREE

Texts = Mapping[str, Mapping[str, str]]  # arm -> id -> answer


def write(
    results: Path, rows: Sequence[Example] | Sequence[Preference], texts: Texts, **more: Any
) -> Path:
    """`results/answer` and `results/data/splits`, the test split also for validation.

    `texts` are the answers of some arms; the others say what `base` says. `benchmarks`, among
    `more`: a `Benchmark`, its questions and its `Texts` by label.
    """
    splits, answers = results / "data" / "splits", results / "answer"
    for folder in (splits, answers):
        folder.mkdir(parents=True)
    for split in ("validation", "test"):
        write_split(splits / f"{split}.parquet", rows)
    asked = [row.asked() if isinstance(row, Preference) else row for row in rows]
    parts = [_responses(asked, arm, texts) for arm in ARMS]
    pd.concat(parts).to_parquet(answers / "responses.parquet")
    _tokens(asked, texts).to_parquet(answers / "tokens.parquet")
    empty = pd.DataFrame({"id": [], "position": [], "heats": []}).astype({"id": str})
    empty.to_parquet(answers / "traces.parquet")
    (answers / "models.json").write_text(json.dumps({"base": "b", "tuned": "t"}))
    rules = {"base": {"alpha": 1.5, "tau": 0.5}, "tuned": {"alpha": 0.5, "tau": 0.75}}
    (answers / "steering.json").write_text(json.dumps(rules))
    _benchmarks(answers, more.get("benchmarks", {}))
    return results


def _responses(rows: Sequence[Example], arm: str, texts: Texts) -> pd.DataFrame:
    said = texts.get(arm, texts["base"])
    table = [
        {
            **{name: getattr(row, name) for name in ("id", "image_id", "kind", "question")},
            **{"reference": row.answer, "response": said[row.id]},
            **{"tokens": len(said[row.id].split()), "heats": [np.ones(4)], "grids": [[2, 2]]},
        }
        for row in rows
    ]
    labels = {"arm": arm, "split": "test", "steered": arm.endswith("steered")}
    return pd.DataFrame(table).assign(**labels)


def _tokens(rows: Sequence[Example], texts: Texts) -> pd.DataFrame:
    """A token for each word of a free answer; signals fall from 1 to 1/2 along it."""
    parts = [pd.DataFrame(columns=["arm", "split", "id", "image_id", *_COLUMNS])]
    for arm in ARMS:
        for row in (row for row in rows if row.kind in FREE):
            words = texts.get(arm, texts["base"])[row.id].split(" ")
            t = np.arange(len(words))
            ends = np.cumsum([len(word) for word in words]) + t
            relative = t / max(len(t) - 1, 1)
            signals = {name: 1 - relative / 2 for name in _SIGNALS}
            places = {"position": t, "relative": relative, "length": len(t), "end": ends}
            labels = {"arm": arm, "split": "test", "id": row.id, "image_id": row.image_id}
            parts.append(pd.DataFrame({**labels, **places, **signals}))
    return pd.concat(parts[1:] or parts, ignore_index=True)


_SIGNALS = (*DRAWN, "svar", "logprob", *PRELIM, *SIMILARITY)
_COLUMNS = ("position", "relative", "length", "end", *_SIGNALS)


def _benchmarks(answers: Path, asked: Mapping[str, "Asked"]) -> None:
    parts, signals = [pd.DataFrame(columns=_ANSWERED)], [pd.DataFrame(columns=_HEARD)]
    for label, (_, rows, texts) in asked.items():
        both = pd.concat([_responses(rows, arm, texts) for arm in ARMS]), _tokens(rows, texts)
        for table, of in zip(both, (parts, signals), strict=True):
            of.append(table.rename(columns={"split": "benchmark"}).assign(benchmark=label))
    said = pd.concat(parts[1:] or parts).assign(verdict=None)
    said.to_parquet(answers / "benchmarks.parquet")
    pd.concat(signals[1:] or signals).to_parquet(answers / "benchmark_tokens.parquet")
    read = {
        label: {"settings": one.model_dump(mode="json", exclude_unset=True), "files": {}}
        for label, (one, _, _) in asked.items()
    }
    (answers / "benchmarks.json").write_text(json.dumps(read))


Asked = tuple[Benchmark, Sequence[Example], Texts]
_ANSWERED = ("arm", "benchmark", "id", "response", "verdict")
_HEARD = ("arm", "benchmark", "id", *_COLUMNS)
