"""POPE's questions, equal to the official builder's and to the published ones."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapt.params import InputError
from adapt.score.__main__ import main
from adapt.score.pope_builder import (
    STRATEGIES,
    Segmented,
    Strategy,
    build,
    co_occurring,
    frequencies,
)
from tests.support import oracle
from tests.support.scoring import run, written

TOWN = [
    Segmented("a.jpg", ("house", "tree", "apple")),
    Segmented("b.jpg", ("tree", "bus")),
    Segmented("c.jpg", ("tree", "house", "dog")),
]


def asked(questions: Sequence[dict[str, int | str]], label: str) -> list[str]:
    return [
        str(q["text"]).removesuffix(" in the image?").split()[-1]
        for q in questions
        if q["label"] == label
    ]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_equals_the_official_builder(strategy: Strategy) -> None:
    case = oracle.load("pope_builder.json")["synthetic"]
    images = [Segmented(row["image"], tuple(row["objects"])) for row in case["segmentation"]]
    questions = build(
        images,
        strategy,
        per_image=case["sample_num"],
        seed=case["seed_before_each_strategy"],
        mode="official",
        template=case["template"],
    )
    assert questions == case["official"]["questions"][strategy]


def test_equals_the_official_tables() -> None:
    case = oracle.load("pope_builder.json")["synthetic"]
    images = [Segmented(row["image"], tuple(row["objects"])) for row in case["segmentation"]]
    assert dict(frequencies(images)) == case["official"]["ground_truth_objects"]
    assert co_occurring(images, "official") == case["official"]["co_occurrence"]


def test_the_published_popular_questions_follow_from_the_images() -> None:
    rows = oracle.load("pope_builder.json")["real_coco_popular"]
    images = [
        Segmented(
            row["image"],
            (*row["positives"], *(o for o in row["gt_objects"] if o not in row["positives"])),
        )
        for row in rows
    ]
    questions = build(images, "popular", per_image=3, seed=0, mode="strict")
    absent = [
        str(q["text"]).removesuffix(" in the image?").split(" ", 3)[3]
        for q in questions
        if q["label"] == "no"
    ]
    assert absent == [name for row in rows for name in row["negatives"]]


def test_by_hand() -> None:
    # Frequencies: tree 3, house 2, apple, bus and dog 1. With the house: tree 2, apple and dog 1.
    popular = build(TOWN, "popular", per_image=2, seed=0, mode="strict")
    assert asked(popular, "yes") == ["house", "tree", "tree", "bus", "tree", "house"]
    assert asked(popular, "no") == ["bus", "dog", "house", "apple", "apple", "bus"]
    adversarial = build(TOWN, "adversarial", per_image=1, seed=0, mode="strict")
    assert asked(adversarial, "no")[:2] == ["dog", "house"]


def test_strict_english_and_order() -> None:
    texts = {str(q["text"]) for q in build(TOWN, "popular", per_image=2, seed=0, mode="strict")}
    assert "Is there an apple in the image?" in texts and not any(
        "imange" in text for text in texts
    )
    there = sorted(TOWN, key=lambda image: image.image, reverse=True)
    by_image = [
        {
            (q["image"], q["text"])
            for q in build(images, "popular", per_image=2, seed=0, mode="strict")
        }
        for images in (TOWN, there)
    ]
    assert by_image[0] == by_image[1]


def test_an_image_that_cannot_be_asked_about_is_named() -> None:
    with pytest.raises(InputError, match=r"b.jpg: has 2 objects, and 3 are to be asked for"):
        build(TOWN[1:], "random", per_image=3, seed=0, mode="official")
    full = [Segmented("full.jpg", ("cat", "dog"))]
    with pytest.raises(
        InputError, match=r"full.jpg: every object of the data set is in this image"
    ):
        build(full, "popular", per_image=1, seed=0, mode="official")


@given(
    st.lists(
        st.lists(st.sampled_from("abcdefghij"), min_size=2, max_size=4, unique=True),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from(get_args(Strategy)),
    st.integers(0, 5),
)
def test_what_is_absent_is_absent_and_asked_once(
    rows: list[list[str]], strategy: Strategy, seed: int
) -> None:
    images = [
        Segmented(str(i), tuple(objects)) for i, objects in enumerate([*rows, list("klmnop")])
    ]
    before = random.getstate()
    questions = build(images, strategy, per_image=2, seed=seed, mode="strict")
    assert random.getstate() == before  # the caller's generator is left alone
    for image in images:
        of_image = [q for q in questions if q["image"] == image.image]
        assert asked(of_image, "yes") == list(image.objects[:2])
        absent = asked(of_image, "no")
        assert len(set(absent)) == 2 and not set(absent) & set(image.objects)
    assert questions == build(images, strategy, per_image=2, seed=seed, mode="strict")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_command_prints_popes_lines(
    strategy: Strategy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = written(tmp_path / "t.json", {image.image: image.objects for image in TOWN})
    arguments = ["pope-questions", "--truth", str(truth), "--strategy", strategy]
    options = ["--per-image", "2", "--seed", "3", "--mode", "strict"]
    assert main([*arguments, *options]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == build(TOWN, strategy, per_image=2, seed=3, mode="strict")
    out = tmp_path / "pope.json"
    assert main([*arguments, *options, "--out", str(out)]) == 0
    assert [json.loads(line) for line in out.read_text().splitlines()] == lines
    # What it writes is what `pope` reads.
    answers = [{"question_id": line["question_id"], "answer": line["label"]} for line in lines]
    responses = written(tmp_path / "a.jsonl", answers, lines=True)
    assert run("pope", "--responses", responses, "--truth", out)["accuracy"] == 1


def test_the_command_reads_coco_and_leaves_out_images_with_few_objects(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = [(1, 2), (1, 1), (1, 2), (2, 1), (3, 4), (3, 3)]
    content = {
        "images": [{"id": number} for number in (1, 2, 3, 4)],
        "categories": [{"id": number, "name": name} for number, name in enumerate("xyzuw")],
        "annotations": [{"image_id": image, "category_id": kind} for image, kind in pairs],
    }
    written(tmp_path / "instances_val2014.json", content)
    written(tmp_path / "captions_val2014.json", {"annotations": [{"image_id": 2, "caption": "z"}]})
    for truth in (tmp_path, tmp_path / "instances_val2014.json"):
        assert main(["pope-questions", "--truth", str(truth), "--per-image", "2"]) == 0
        printed = capsys.readouterr()
        assert "2 of 4 images have fewer than 2 objects" in printed.err
        lines = [json.loads(line) for line in printed.out.splitlines()]
        assert [line["image"] for line in lines] == ["1"] * 4 + ["3"] * 4
        assert asked(lines[:4], "yes") == ["z", "y"]
    assert main(["pope-questions", "--truth", str(tmp_path), "--per-image", "9"]) == 2
    assert "no image has 9 objects" in capsys.readouterr().err
    assert main(["pope-questions", "--truth", str(tmp_path), "--per-image", "0"]) == 2
    assert "'0' is no number of objects" in capsys.readouterr().err
