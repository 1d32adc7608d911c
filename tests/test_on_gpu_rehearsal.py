"""The command for a GPU machine, rehearsed on a CPU: its parts at small sizes, pins and help."""

import argparse
import re
import subprocess

import pytest
import torch

from benchmarks import lora_step, on_gpu, shapes
from benchmarks.decode_step import SIDES
from tests.support.closure import ROOT
from tests.support.limits import COMMAND_S

SCRIPT = ROOT / "benchmarks" / "on_gpu.sh"


def rehearsed(tmp_path, monkeypatch, *words: str) -> list[list[str]]:
    """The cells of all rows that a part has written, without the heads."""
    monkeypatch.setattr(lora_step, "STEPS", 1)
    arguments = [*words, "--device", "cpu", "--tiny", "--seconds", "0", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["on_gpu", *arguments])
    assert on_gpu.main() == 0
    (file,) = tmp_path.glob("on_gpu_*.md")
    rows = [line.strip("| ").split(" | ") for line in file.read_text().splitlines() if "|" in line]
    assert all(len(row) >= 4 for row in rows)
    return [row for row in rows if row[0][0].isdigit() or row[0] in SIDES]


def test_a_step_of_each_side_at_qwens_shape(tmp_path, monkeypatch):
    rows = rehearsed(tmp_path, monkeypatch, "step", "--model", "qwen")
    assert [row[1] for row in rows] == list(lora_step.SIDES)
    trl, shared, both, _ = (float(row[5]) for row in rows)  # operations of a step
    assert shared == both < trl, "one prompt for both answers, and no reference forward"


def test_decoding_of_each_side_at_llavas_shape(tmp_path, monkeypatch):
    rows = rehearsed(tmp_path, monkeypatch, "decode", "--model", "llava")
    assert [row[1] for row in rows[:8]] == [*SIDES, *SIDES], "one answer, then several at once"
    turns = [["1", side] for side in SIDES]
    assert [[*row[:2]] for row in rows[8:]] == turns, "and no second turn when time is over"


def test_the_adapters_leave_no_trace_between_turns(tmp_path, monkeypatch):
    case, options = shapes.LLAVA, argparse.Namespace(device="cpu", tiny=True)
    model, processor = shapes.build(case, "cpu", torch.float32, tiny=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    sides = lora_step.Sides(case, model, processor, lora_step.Size(2, 8), tmp_path, options)
    monkeypatch.setattr(lora_step, "STEPS", 1)
    for side in ("trl", "ours, all"):
        sides.measure(side)
        now = sides.model.state_dict()
        assert now.keys() == before.keys()
        assert all(value.equal(before[name]) for name, value in now.items())
        assert "forward" not in vars(sides.model)


def test_its_parts_end_within_eight_minutes_whatever_becomes_of_them():
    limits = re.findall(r"^ *(?:part|measure) (\d+) ", SCRIPT.read_text(), re.MULTILINE)
    assert len(limits) == 6
    assert sum(map(int, limits)) < 480


def test_every_wheel_has_an_exact_pin():
    (names,) = re.findall(r'^PACKAGES="(.*?)"', SCRIPT.read_text(), re.DOTALL | re.MULTILINE)
    pinned = {line.partition("==")[0].lower() for line in (ROOT / "constraints.txt").open()}
    assert not set(names.split()) - pinned


@pytest.mark.parametrize("word", ["--help", "tiny"])
def test_what_it_does_not_know_prints_how_it_is_used(word):
    done = subprocess.run(
        [str(SCRIPT), word], capture_output=True, text=True, timeout=COMMAND_S, check=False
    )
    assert (done.returncode, done.stderr) == (2, "")
    assert all(option in done.stdout for option in ("--wheels", "--tiny", "OUT", "PYTHON"))
