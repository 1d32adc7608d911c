"""Equal to the official programs on inputs of our own, whose recorded outputs are always at hand.

`tests/data/oracle` holds texts and tables made up for this purpose, and what the official programs
gave for them; each file's `source` says which commit, and what stood in for what.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from adapt.metrics.pope import aggregate, parse_yes_no
from adapt.score import amber_discriminative as discriminative
from adapt.score import judged, object_halbench, pope, pope_builder
from adapt.score.amber import Amber, score
from adapt.score.amber_generative import Counted
from adapt.score.chair import Synonyms, Variant, mentions
from adapt.score.chair import score as chair_score
from tests.support import oracle

HEADINGS = {"Generative Task": "", **oracle.AMBER_DIMENSIONS}


def synonyms(lines: list[list[str]]) -> Synonyms:
    return Synonyms("our own", {word: line[0] for line in lines for word in line})


@pytest.fixture
def amber(tmp_path: Path, nltk_data: None) -> tuple[Amber, Any]:
    file = oracle.own("amber.json")
    counters = {*Counted._fields, *discriminative.COUNTERS}
    start = [f"{name}={0.001 if name.endswith('_num') else 0}" for name in counters]
    pairs = [{"a": a, "b": b} for a, b in file["similar"]]
    contents = {
        "annotations.json": json.dumps(file["annotations"]),
        "relation.json": json.dumps(file["relation"]),
        "safe_words.txt": "\n".join(file["safe_words"]),
        "metrics.txt": "\n".join(start),
        "pairs.json": json.dumps(pairs),
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    return Amber.read(tmp_path, tmp_path / "pairs.json", lemmas=None), file


def test_amber_descriptions_alone(amber: tuple[Amber, Any]) -> None:
    tables, file = amber
    for number, printed in enumerate(file["official"]["alone"], 1):
        metrics = score({number: file["responses"][number - 1]}, tables, "official").metrics
        assert {name: metrics[name] for name in printed} == printed, number


def test_amber_descriptions_and_answers(amber: tuple[Amber, Any]) -> None:
    tables, file = amber
    metrics = score(dict(enumerate(file["responses"], 1)), tables, "official").metrics
    printed = {
        f"{HEADINGS[heading]}{name}": value
        for heading, table in file["official"]["all"].items()
        for name, value in table.items()
    }
    assert len(printed) == 32 and {name: metrics[name] for name in printed} == printed


@pytest.mark.usefixtures("nltk_data")
@pytest.mark.parametrize("variant", ["opera", "maxlinn"])
def test_chair(variant: Variant) -> None:
    file = oracle.own("chair.json")
    listed, official = synonyms(file["synonyms"]), file["official"][variant]
    for caption, true, expected in zip(
        file["captions"], file["truth"], official["captions"], strict=True
    ):
        named = mentions(caption, listed, variant, "official")
        assert named == (expected["words"], expected["objects"], expected["length"]), caption
        assert sum(name not in true for name in named.objects) == expected["hallucinated"]
    captions = [(str(number), text) for number, text in enumerate(file["captions"])]
    truth = {str(number): names for number, names in enumerate(file["truth"])}
    metrics = chair_score(captions, truth, listed, variant, "official").metrics
    for name in ("chair_s", "chair_i", "recall"):
        assert metrics[name] == official[name]


@pytest.mark.usefixtures("nltk_data")
@pytest.mark.parametrize("kind", ["extracted", "plain"])
def test_object_halbench(kind: str) -> None:
    file = oracle.own("object_halbench.json")
    listed, official = synonyms(file["synonyms"]), file["official"][kind]
    phrases = [tuple(names) if kind == "extracted" else None for names in file["extracted"]]
    captions = [
        object_halbench.Caption(str(number), text, extracted)
        for number, (text, extracted) in enumerate(zip(file["captions"], phrases, strict=True))
    ]
    for caption, expected in zip(captions, official.pop("captions"), strict=True):
        assert object_halbench.mentioned(caption, listed, "official") == expected, caption
    truth = {str(number): names for number, names in enumerate(file["truth"])}
    scored = object_halbench.score(captions, truth, listed, "official")
    ours = {**scored.metrics, **scored.counts}
    assert {name: ours[name] for name in official} == official


def test_pope() -> None:
    file = oracle.own("pope.json")
    official, labels = file["official"], [label == "yes" for label in file["labels"]]
    read = [parse_yes_no(answer) for answer in file["answers"]]
    assert ["yes" if yes else "no" for yes in read] == official.pop("answers")
    questions = {str(i): pope.Question("a.jpg", label) for i, label in enumerate(labels)}
    answers = {str(i): answer for i, answer in enumerate(file["answers"])}
    scored = pope.score(answers, questions, "official", "official")
    ours = {**scored.metrics, **scored.counts}
    assert {name: ours[name] for name in official} == official
    percent = {name: 100 * official[name] for name in aggregate([], [])}
    assert aggregate(labels, read) == pytest.approx(percent)


@pytest.mark.parametrize("strategy", pope_builder.STRATEGIES)
def test_pope_questions(strategy: pope_builder.Strategy) -> None:
    file = oracle.own("pope_questions.json")
    images = [pope_builder.Segmented(row["image"], tuple(row["objects"])) for row in file["images"]]
    questions = pope_builder.build(
        images, strategy, per_image=file["per_image"], seed=file["seed"], mode="official"
    )
    asked = [[line["image"], line["text"], line["label"]] for line in questions]
    assert asked == file["official"][strategy]


def test_mmhal() -> None:
    file = oracle.own("mmhal.json")
    metrics = judged.mmhal([file["texts"][place] for place in file["order"]], "official").metrics
    printed = {
        "Informativeness": f"{metrics['informativeness']:.2f}",
        "Average score": f"{metrics['average_score']:.2f}",
        "Hallucination rate": f"{metrics['hallucination_rate']:.2f}",
        "Average score for each question type": ",".join(
            str(metrics[f"score_{name}"]) for name in judged.TYPES
        ),
    }
    assert printed == file["official"]


def test_hallusion() -> None:
    file = oracle.own("hallusionbench.json")
    records = [dict(zip(file["fields"], record, strict=True)) for record in file["records"]]
    verdicts = [
        judged.Verdict(
            truth=record.pop("gt_answer") == "1",
            check=record.pop("gpt4v_output_gpt_check"),
            same=record.pop("same") == "1",
            **record,
        )
        for record in records
    ]
    official = file["official"]
    assert [verdict.correct for verdict in verdicts] == [bool(c) for c in official["correct"]]
    scored = judged.hallusion(verdicts, "official")
    assert {name: scored.metrics[name] for name in official["metrics"]} == official["metrics"]
    for unit in ("question", "pair", "figure"):
        for name, count in official[unit].items():
            assert scored.counts[f"{unit}_{name}"] == count, (unit, name)
