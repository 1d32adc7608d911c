"""Mistakes in arguments and files, each named; and what the command shows to people."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from adapt.score.__main__ import main
from tests.support import limits, oracle, scoring
from tests.support.scoring import pope_files, run, written


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of benchmark data."""
    return scoring.shared(monkeypatch)


POPE_TRUTH = b"""
{"question_id": 1, "image": "a", "label": "yes"}
{"question_id": 2, "image": "a", "label": "no"}
"""


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            b'{"question_id": 1, "answer": "yes"}\n{"answer": "no"}\n',
            "answers.jsonl row 2: has no 'question_id'",
        ),
        (
            b'{"question_id": 3, "answer": "yes"}\n',
            "answers.jsonl row 1: question_id '3' is unknown",
        ),
        (
            b'{"question_id": 1, "answer": "yes"}\n{"question_id": 1, "answer": "no"}\n',
            "answers.jsonl row 2: question_id '1' is there already",
        ),
        (
            b'{"question_id": 1, "answer": "yes"}\n{"question_id": 2, "answer": "\xff"}\n',
            "answers.jsonl line 2: is not UTF-8",
        ),
        (b"", "answers.jsonl: is empty"),
        (
            b'{"question_id": 1, "output": "yes"}\n',
            "answers.jsonl row 1: has no 'answer'; its columns are",
        ),
        (
            b'{"question_id": 1, "answer": null}\n',
            "answers.jsonl row 1: has no 'answer', which is null",
        ),
        (b'{"question_id": 1, "answer": 3}\n', "answers.jsonl row 1: 'answer' is 3, not a text"),
        (b'{"question_id": 1, "answer": "yes"\n', "answers.jsonl row 1: is no JSON"),
        (b"\x00\x01", "answers.jsonl: is no text, but a binary file"),
        (b"\x01", "answers.jsonl row 1: is no JSON"),
    ],
)
def test_bad_answers_are_named(
    content: bytes, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "truth.json").write_bytes(POPE_TRUTH)
    (tmp_path / "answers.jsonl").write_bytes(content)
    arguments = [
        "pope",
        "--responses",
        str(tmp_path / "answers.jsonl"),
        "--truth",
        str(tmp_path / "truth.json"),
    ]
    result = run(*arguments, code=2)
    assert list(result) == ["error"] and problem in result["error"]
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1 and problem in printed.err


def test_a_very_long_answer_is_an_answer(nltk_data: None, tmp_path: Path) -> None:
    long = "A dog and a cat sit on the grass. " * 30_000
    files = pope_files(tmp_path, [long], ["yes"])
    assert run("pope", *files)["accuracy"] == 1
    truth = written(tmp_path / "truth.json", {"1": ["dog"]})
    answers = written(tmp_path / "long.json", [{"image_id": 1, "caption": long}])
    result = run("chair", "--responses", answers, "--truth", truth, "--variant", "maxlinn")
    assert result["chair_i"] == 0.5


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["chair", "--truth", "t.json"], "the following arguments are required: --responses"),
        (["chair", "--responses", "none.json", "--truth", "t.json"], "none.json: No such file"),
        (["bleu"], "invalid choice: 'bleu'"),
        ([], "the following arguments are required: BENCHMARK"),
        (["pope", "--responses", "a", "--truth", "b", "--rename", "a"], "'a' is not THEIRS=OURS"),
        (["pope", "--responses", "a", "--truth", "b", "--parser", "gpt"], "invalid choice: 'gpt'"),
    ],
)
def test_bad_arguments(arguments: list[str], problem: str) -> None:
    assert problem in run(*arguments, code=2)["error"]


def test_bad_truth_is_named(tmp_path: Path) -> None:
    files = pope_files(tmp_path, ["yes"], ["maybe"])
    assert (
        "pope.json row 1: 'label' is 'maybe'; allowed: yes, no"
        in run("pope", *files, code=2)["error"]
    )
    records = [
        {
            "category": "VD",
            "subcategory": "s",
            "set_id": 0,
            "figure_id": 0,
            "question_id": 0,
            "visual_input": 1,
            "gt_answer": 1,
            "gpt4v_output_gpt_check": "3",
        }
    ]
    path = written(tmp_path / "h.json", records)
    assert (
        "row 1: 'gpt4v_output_gpt_check' is '3'; allowed: 0, 1, 2"
        in run("hallusion", "--responses", path, code=2)["error"]
    )
    path = written(tmp_path / "m.json", [{"choices": []}])
    assert "row 1: 'choices' has no text" in run("mmhal", "--responses", path, code=2)["error"]


def test_amber_ids(shared: Path, tmp_path: Path) -> None:
    for bad, problem in {"x1": "is unknown", "99999": "is unknown"}.items():
        path = written(tmp_path / "r.json", [{"id": bad, "response": "Yes"}])
        assert (
            problem
            in run("amber", "--responses", path, "--truth", shared / "amber", code=2)["error"]
        )
    assert str(tmp_path) in run("amber", "--responses", path, "--truth", tmp_path, code=2)["error"]


def test_the_table_shows_intervals_length_and_cover(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    responses = [
        {"id": case["id"], "response": case["response"]}
        for case in oracle.load("amber_generative.json")["cases"]
    ]
    path = written(tmp_path / "r.json", responses)
    arguments = [
        "amber",
        "--responses",
        str(path),
        "--truth",
        str(shared / "amber"),
        "--mode",
        "strict",
    ]
    assert main([*arguments, "--against", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "amber, strict mode, 48 responses"
    interval = "95 % interval"
    heads = f"value {interval} official difference {interval} against difference {interval}"
    assert lines[1].split() == heads.split()
    assert [line.split()[0] for line in lines[2:7]] == ["chair", "cover", "hal", "cog", "length"]
    assert lines[2].split()[-4:] == ["+0", "0", "to", "0"]
    assert any(line.startswith("counts: ") for line in lines)
    assert any(line.startswith("annotations.json: sha256:") for line in lines)


BENCHMARKS = ["chair", "amber", "pope", "objhal", "mmhal", "hallusion", "pope-questions"]


@pytest.mark.parametrize("benchmark", [[], *([name] for name in BENCHMARKS)])
def test_help(benchmark: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([*benchmark, "--help"])
    assert end.value.code == 0
    printed = capsys.readouterr().out
    assert "examples:" in printed and "python -m adapt.score" in printed and "--truth" in printed
    assert benchmark == ["pope-questions"] or "--responses" in printed


@pytest.mark.parametrize("arguments", [["--help"], ["pope-questions", "--truth", "truth.json"]])
def test_a_reader_may_leave_early(arguments: list[str], tmp_path: Path) -> None:
    objects = {str(i): [f"object {i}", "a", "b"] for i in range(3000)}  # more than a pipe holds
    written(tmp_path / "truth.json", objects)
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-m", "adapt.score", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read().decode()
    assert process.wait(timeout=120) == 0 and errors == ""


def test_as_a_command() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "adapt.score", "pope", "--json"],
        capture_output=True,
        text=True,
        timeout=limits.COMMAND_S,
    )
    assert (
        ended.returncode == 2
        and "--responses" in json.loads(ended.stdout)["error"]
        and ended.stderr == ""
    )
