"""AMBER by hand and equal to the official evaluator: every response, batch and question."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from adapt.params import InputError
from adapt.score import amber_discriminative as discriminative
from adapt.score.amber import Amber, score
from adapt.score.amber_generative import Counted
from adapt.score.scored import Scored, intervals, moved
from tests.support import oracle

DIMENSIONS = oracle.AMBER_DIMENSIONS


def official(backend: str, lemmas: str) -> Amber:
    folder = oracle.FOLDER.parent / "amber"
    if not folder.is_dir():
        pytest.skip(f"AMBER's annotations {folder} are not on this machine")
    pairs = oracle.FOLDER / "amber_similarity_pairs.json" if backend == "md371" else None
    return Amber.read(
        folder, pairs, oracle.FOLDER / "amber_lemma_table.json" if lemmas == "table" else None
    )


def assert_equal(scored: Scored, counters: Mapping[str, int], printed: Mapping[str, float]) -> None:
    assert {name: scored.counts[name] for name in counters} == counters
    assert {name: scored.metrics[name] for name in printed} == printed


# The third backend of the file, md38, is another model whose pairs are nowhere listed.
@pytest.mark.parametrize(
    ("backend", "lemmas"), [("exact", "wordnet"), ("md371", "table"), ("md371", "wordnet")]
)
def test_every_official_description(nltk_data: None, backend: str, lemmas: str) -> None:
    file, amber = oracle.load("amber_generative.json"), official(backend, lemmas)
    for case in file["cases"]:
        alone = score({case["id"]: case["response"]}, amber, "official")
        printed = {name.lower(): value for name, value in case["printed_alone"][backend].items()}
        assert_equal(alone, case["official_counters"][backend], printed)
        [mentioned] = amber.mentioned({case["id"]: case["response"]}, "official")
        assert mentioned == case["official_vocab_nouns"]
    batch = score({case["id"]: case["response"] for case in file["cases"]}, amber, "official")
    printed = {name.lower(): value for name, value in file["official"][backend]["printed"].items()}
    assert_equal(batch, file["official"][backend]["counters"], printed)


def answers_by_formula(amber: Amber) -> dict[int, str]:
    """The full run of the oracle, which gives its answers by this formula."""
    found = {}
    for number, note in amber.annotations.items():
        if note.type != "generative":
            draw = int(hashlib.sha1(f"alpha:{number}".encode()).hexdigest(), 16) % 100
            found[number] = "Yes" if draw < (70 if note.truth == ("yes",) else 35) else "No"
    return found


def test_every_official_answer() -> None:
    amber = official("exact", "table")
    for run in oracle.load("amber_discriminative.json")["runs"]:
        responses = {
            row["id"]: row["response"] for row in run["responses"] or ()
        } or answers_by_formula(amber)
        tables = [
            table
            for part in ("d", "de", "da", "dr")
            for table in run["official"][part]["printed"].items()
        ]
        printed = {
            f"{DIMENSIONS[of]}{name.lower()}": value
            for of, table in tables
            for name, value in table.items()
        }
        assert_equal(score(responses, amber, "official"), run["official"]["counters"], printed)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A benchmark of one description and two questions in AMBER's files."""
    notes = [
        {
            "id": 1,
            "type": "generative",
            "truth": ["person", "tree", "tree"],
            "hallu": ["dog", "sun"],
        },
        {"id": 2, "type": "discriminative-hallucination", "truth": "no"},
        {"id": 3, "type": "relation", "truth": "yes"},
    ]
    write(tmp_path / "annotations.json", notes)
    write(
        tmp_path / "relation.json",
        {"person": ["man"], "tree": [], "dog": ["pet"], "sun": [], "kennel": []},
    )
    (tmp_path / "safe_words.txt").write_text("light\nline")
    names = sorted({*Counted._fields, *discriminative.COUNTERS})
    (tmp_path / "metrics.txt").write_text(
        "\n".join(f"{name}={0.001 * name.endswith('num')}" for name in names)
    )
    write(tmp_path / "pairs.json", {"pairs": [{"a": "kennel", "b": "dog", "similarity": 0.81}]})
    write(
        tmp_path / "lemmas.json",
        {"table": {word: word for word in ("man", "tree", "dog", "sun", "kennel", "pet")}},
    )
    return tmp_path


def write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))


def read(folder: Path) -> Amber:
    return Amber.read(folder, folder / "pairs.json", folder / "lemmas.json")


def test_by_hand(nltk_data: None, folder: Path) -> None:
    # A man is a person: covered. The kennel is no target, but like one: named, and hallucinated.
    scored = score({1: "A man near a kennel.", 2: "No", 3: "No"}, read(folder), "official")
    assert scored.metrics == {
        **{"chair": 50.0, "cover": 33.3, "hal": 100.0, "cog": 50.0, "length": 5.0},
        **{"accuracy": 50.0, "precision": 50.0, "recall": 99.9, "f1": 66.6},
        **{
            "existence_accuracy": 99.9,
            "existence_precision": 99.9,
            "existence_recall": 99.9,
            "existence_f1": 99.9,
        },
        **{
            "relation_accuracy": 0.0,
            "relation_precision": 0.0,
            "relation_recall": 0.0,
            "relation_f1": 0.0,
        },
        "amber_score": 58.3,  # (100 - 50 + 66.6) / 2
    }
    assert (
        scored.variant["similarity"] == "pairs.json, 1 pairs"
        and scored.variant["lemmas"] == "lemmas.json, 6 forms"
    )


def test_strict_mends_negation_capitals_and_the_added_thousandths(
    nltk_data: None, folder: Path
) -> None:
    responses, amber = (
        {1: "Man near a tree. There is no dog.", 2: "no.", 3: "Yes, there is"},
        read(folder),
    )
    quirky, mended = score(responses, amber, "official"), score(responses, amber, "strict")
    assert (quirky.metrics["chair"], quirky.metrics["cover"], quirky.metrics["accuracy"]) == (
        50.0,
        33.3,
        0.0,
    )
    assert (mended.metrics["chair"], mended.metrics["cover"], mended.metrics["accuracy"]) == (
        0.0,
        66.7,
        100.0,
    )
    assert moved(quirky, mended)["chair"] == -50.0


def test_intervals_are_over_images(nltk_data: None) -> None:
    amber = official("md371", "table")
    scored = score(
        {case["id"]: case["response"] for case in oracle.load("amber_generative.json")["cases"]},
        amber,
        "official",
    )
    bounds = intervals(scored, resamples=200, seed=0, scale=100)
    assert set(bounds) == {"chair", "cover", "hal", "cog"}
    assert all(low < scored.metrics[name] < high for name, (low, high) in bounds.items())
    everything = score(answers_by_formula(amber), amber, "official")
    assert len(everything.ratios["f1"][0]) == 1004  # 14,216 questions about 1,004 images
    assert set(everything.ratios) == set(everything.metrics)
    for name, (above, below) in everything.ratios.items():
        assert 100 * above.sum() / below.sum() == pytest.approx(
            everything.metrics[name], abs=0.1
        ), name


def test_nothing_to_score(folder: Path) -> None:
    scored = score({}, read(folder), "official")
    assert scored.metrics == {} and scored.ratios == {}


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        (
            "annotations.json",
            '[{"id": 1, "type": "generative", "truth": ["cow"], "hallu": []}]',
            "row 1: 'cow' is no key",
        ),
        (
            "annotations.json",
            '[{"id": 1, "type": "generativ", "truth": "yes"}]',
            "row 1: type 'generativ'",
        ),
        (
            "annotations.json",
            '[{"id": 1, "type": "relation", "truth": "maybe"}]',
            "row 1: 'truth' is 'maybe'",
        ),
        (
            "annotations.json",
            '[{"id": "one", "type": "relation", "truth": "yes"}]',
            "row 1: 'id' is 'one'",
        ),
        ("annotations.json", "[", "is no JSON"),
        ("relation.json", '{"dog": "pet"}', "'dog' is 'pet', not a list of texts"),
        ("relation.json", "[]", "is no JSON object"),
        ("metrics.txt", "chair_num=0.001", "has no aa_qa_ans_no_num="),
        ("metrics.txt", "chair_num=much", "row 1: 'much' is no number"),
        ("pairs.json", '{"pairs": [["a", "b"]]}', "expected"),
        ("pairs.json", "{}", "expected"),
        ("lemmas.json", '{"table": ["dogs"]}', "expected"),
    ],
)
def test_a_broken_table_is_named(folder: Path, name: str, content: str, problem: str) -> None:
    (folder / name).write_text(content)
    with pytest.raises(InputError, match=name) as error:
        read(folder)
    assert problem in str(error.value)


@pytest.mark.parametrize(
    "name", ["annotations.json", "relation.json", "safe_words.txt", "metrics.txt"]
)
def test_a_missing_table_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(InputError, match=name):
        read(folder)


def test_an_unknown_id_is_named(folder: Path) -> None:
    with pytest.raises(InputError, match="id 9"):
        score({9: "Yes"}, read(folder), "official")
