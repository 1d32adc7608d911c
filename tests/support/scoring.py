"""`python -m adapt.score` called in process, and files in the benchmarks' own forms for it."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest

from adapt.score.__main__ import main
from tests.support import oracle

SHARED = oracle.FOLDER.parent


def shared(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of benchmark data, in which NLTK looks for its own; skips the test where it is
    missing.
    """
    if not (SHARED / "nltk_data").is_dir():
        pytest.skip(f"benchmark data {SHARED} are not on this machine")
    oracle.use_nltk_data(monkeypatch)
    return SHARED


def run(*arguments: Any, code: int = 0) -> dict[str, Any]:
    """What the command prints with --json; it must end with `code` and keep stderr empty."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert main([*map(str, arguments), "--json"]) == code, out.getvalue()
    assert err.getvalue() == ""
    return json.loads(out.getvalue())


def written(path: Path, content: Any, lines: bool = False) -> Path:
    """A JSON file, or JSON Lines."""
    path.write_text("\n".join(map(json.dumps, content)) if lines else json.dumps(content))
    return path


def pope_files(folder: Path, answers: list[str], labels: list[str]) -> list[Any]:
    """The arguments for answers and labels, whose ids count from 1, six to an image."""
    questions = [
        {"question_id": i, "image": f"{i // 6}.jpg", "text": "Is there a dog?", "label": label}
        for i, label in enumerate(labels, 1)
    ]
    rows = [{"question_id": i, "answer": answer} for i, answer in enumerate(answers, 1)]
    truth = written(folder / "pope.json", questions, lines=True)
    return ["--responses", written(folder / "answers.jsonl", rows, lines=True), "--truth", truth]
