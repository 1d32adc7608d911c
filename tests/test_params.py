"""params.yaml and what can be wrong with it: each is one line that names the file and the key or
the line; and its schema.
"""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from adapt import params
from adapt.launch import configs, schema
from adapt.params import InputError
from tests.support.closure import ROOT

TEXT = (ROOT / "params.yaml").read_text()


def mistake(path: Path, content: str | bytes) -> str:
    """The one line that is said of a params.yaml with this content, without its folder."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(InputError) as caught:
        configs(params.read(path))
    line = str(caught.value).replace(f"{path.parent}/", "")
    assert line.startswith("params.yaml: ") and "\n" not in line
    return line.removeprefix("params.yaml: ")


def with_value(key: str, value: str) -> str:
    """params.yaml with one line's value replaced; the comment behind it goes with it."""
    lines = TEXT.splitlines()
    (at,) = [n for n, line in enumerate(lines) if line.strip().startswith(f"{key}:")]
    lines[at] = f"{lines[at].partition(':')[0]}: {value}"
    return "\n".join(lines)


def line_of(key: str) -> int:
    return next(n for n, line in enumerate(TEXT.splitlines(), 1) if f"  {key}:" in line)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("seed", "-1", "seed: must be at least 0, got -1"),
        (
            "system",
            "Be brief.",
            "base.source: scratch learns its own template; with it, leave section prompt empty",
        ),
        ("seed", "4294967296", "seed: must be less than 4294967296, got 4294967296"),
        ("seed", "true", "seed: expected a whole number, got true"),
        ("beta", ".inf", "train.beta: must be finite, got inf"),
        ("beta", ".nan", "train.beta: must be finite, got nan"),
        ("beta", "0", "train.beta: must be greater than 0, got 0"),
        ("beta", "", "train.beta: expected a number, got nothing"),
        (
            "beta",
            "1e-6",
            "train.beta: expected a number, got the text '1e-6'; YAML takes it for a number as"
            " 1.0e-6",
        ),
        ("noise", "1.5", "train.noise: must be at most 1, got 1.5"),
        (
            "attn_layers",
            "[]",
            "train.attn_layers: expected all, or layers counted from 0 such as [0, 1], got []",
        ),
        (
            "attn_layers",
            "[0, -1]",
            "train.attn_layers: expected all, or layers counted from 0 such as [0, 1], got [0, -1]",
        ),
        ("kinds", "[]", "pairs.kinds: must name at least one, got []"),
        (
            "kinds",
            "[describe, exist]",
            "pairs.kinds[1]: must be 'describe', 'exists' or 'colour', got 'exist'",
        ),
        ("kinds", "describe", "pairs.kinds: expected a list, got 'describe'"),
        (
            "gradient_checkpointing",
            "0",
            "train.gradient_checkpointing: expected auto, true or false",
        ),
        ("width", "97", "base.scratch.width: must be divisible by heads (4), got 97"),
        ("model", "a/b", "tracking.model: must be letters, digits, spaces and . _ - only"),
        ("experiment", "' '", "tracking.experiment: must be a name that is not empty, got ' '"),
    ],
)
def test_a_value_out_of_bounds(tmp_path, key, value, message):
    assert mistake(tmp_path / "params.yaml", with_value(key, value)).startswith(message)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            "vision_steps:",
            "vision_stps:",
            "unknown key base.scratch.vision_stps; did you mean base.scratch.vision_steps?",
        ),
        (
            "anchor_tokens:",
            "anchr_tokens:",
            "unknown key anchor.anchr_tokens; did you mean anchor.anchor_tokens?",
        ),
        ("bootstrap:", "xyz:", "unknown key evaluate.xyz; known: bootstrap, panels"),
        ("train:\n", "trian:\n", "unknown section trian; did you mean train?"),
        ("  panels: 8", "  seed: 8", "unknown key evaluate.seed; seed stands at the top level"),
        ("  panels: 8", "", "missing key evaluate.panels"),
        ("seed: 7", "", "missing key seed"),
        ("\ngate:", "\ngate: 3\nanswer_:", "unknown section answer_; did you mean answer?"),
    ],
)
def test_a_key_that_is_not_known_or_missing(tmp_path, before, after, message):
    assert before in TEXT
    assert mistake(tmp_path / "params.yaml", TEXT.replace(before, after, 1)) == message


def test_a_section_that_is_none(tmp_path):
    text = TEXT.partition("\ngate:")[0]
    rest = "\ntracking: {experiment: adapt, model: adapt}\n"
    assert mistake(tmp_path / "params.yaml", text + rest) == "missing section gate"
    expected = "gate: expected keys and values, got [1]"
    assert mistake(tmp_path / "params.yaml", f"{text}{rest}gate: [1]\n") == expected


def test_a_key_twice(tmp_path):
    path = tmp_path / "params.yaml"
    message = f"line {line_of('panels') - 1}: the key panels is there twice"
    assert mistake(path, TEXT.replace("  panels: 8", "  panels: 8\n  panels: 9")) == message
    assert mistake(path, TEXT + "\nseed: 8\n").endswith("the key seed is there twice")
    # Finding it takes no longer for a file at the limit, in which every key is another.
    keys = "\n".join(f"k{n}: 1" for n in range(90_000))
    assert "more than 10000 values" in mistake(path, keys)


def test_aliases_that_explode(tmp_path):
    path = tmp_path / "params.yaml"
    names = "abcdefghij"
    bomb = [f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]" for a, b in pairwise(names)]
    text = "a: &a [x, x]\n" + "\n".join(bomb)
    assert mistake(path, text).endswith("more than 10000 values; write them out without aliases")
    assert mistake(path, "a: &a [*a]").endswith("nested too deeply")


@pytest.mark.parametrize("depth", [50, 100_000])
def test_deep_nesting(tmp_path, depth):
    text = f"a: {'[' * depth}{']' * depth}"
    assert mistake(tmp_path / "params.yaml", text).endswith("nested too deeply")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1"])
def test_another_encoding(tmp_path, encoding):
    message = mistake(tmp_path / "params.yaml", ("# für alle\n" + TEXT).encode(encoding))
    assert message == "line 1 is not UTF-8; save the file as UTF-8"


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    assert configs(params.read(path)) == configs(params.read(ROOT / "params.yaml"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a:\n  b: [0.5\nc: 1\n", "not valid YAML (line 3): expected ',' or ']', but got ':'"),
        ("a:\n\tb: 1\n", "not valid YAML (line 2): found character '\\t' that cannot start"),
        ("a: 1\n---\nb: 2\n", "not valid YAML (line 2): but found another document"),
        ("a: !!python/object/apply:os.system [ls]", "not valid YAML (line 1): could not determine"),
        ("? [a, b]\n: 1\n", "not valid YAML (line 1): found unhashable key"),
        ("a: \0", "not valid YAML: unacceptable character #x0000"),
        ("a: 2026-13-45", "not valid YAML: month must be in 1..12"),
        (f"a: {'9' * 5000}", "not valid YAML: Exceeds the limit"),
        ("", "expected sections with keys"),
        ("- 1", "expected sections with keys"),
        ("#" * 2**21, "larger than 1024 KiB, too large for a file of parameters"),
    ],
)
def test_what_is_no_file_of_parameters(tmp_path, content, message):
    assert mistake(tmp_path / "params.yaml", content).startswith(message)


def test_no_file(tmp_path):
    with pytest.raises(InputError, match=r"params\.yaml: not found; run from the project's root"):
        params.read(tmp_path / "params.yaml")
    with pytest.raises(InputError, match="Is a directory"):
        params.read(tmp_path)


# ---- the schema, from which an editor completes and checks the file ----------------------------


def test_the_schema_is_what_the_command_prints():
    command = [sys.executable, "-m", "adapt.launch"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert (ROOT / "params.schema.json").read_text() == printed, (
        "python -m adapt.launch > params.schema.json"
    )


def test_the_schema_accepts_the_file_and_refuses_what_we_refuse():
    reason = "jsonschema is not installed; DVC and Ray bring it along"
    jsonschema = pytest.importorskip("jsonschema", reason=reason)
    validator = jsonschema.Draft202012Validator(schema())
    validator.check_schema(schema())
    content = json.loads(json.dumps(params.read(ROOT / "params.yaml")))
    assert [error.message for error in validator.iter_errors(content)] == []
    for section, key, value in (
        ("train", "bata", 1.0),
        ("train", "beta", 0),
        ("train", "attn_layers", []),
        ("base", "source", ""),
        ("tracking", "model", "a/b"),
        ("train", "seed", 3),
    ):
        changed = {**content, section: {**content[section], key: value}}
        assert not validator.is_valid(changed), (section, key)
