"""Stage `pairs` on given and on sampled answers: what it takes, keeps, and says of them."""

import contextlib
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from adapt.data.schema import SceneObject, Turn
from adapt.data.tables import read_split
from adapt.metrics.mentions import find
from adapt.pairs import given, sample
from adapt.pairs.deciding import by_truth, by_words
from adapt.pairs.table import Pair, read_pairs
from adapt.params import InputError
from adapt.stages import pairs as stage
from tests.support import tiny_world
from tests.support.preference_rows import png
from tests.support.preferences import WORDS, config, known, preference, workspace


def run(results: Path, name: str = "pairs", **changes) -> tuple[list[Pair], dict[str, float]]:
    out = results / name
    out.mkdir()
    metrics = stage.run(config(**changes), results, out, lambda step, points: None)
    names = {"pairs.parquet", "plain.parquet", "report.json"}
    assert {path.name for path in out.iterdir()} == names
    return [*read_pairs(out / "pairs.parquet")], metrics


@pytest.fixture
def worked(monkeypatch) -> list[str]:
    """The ids of the rows that are worked out, in order."""
    ids: list[str] = []
    for maker, method in ((given.Given, "_annotated"), (sample.Sampler, "_found")):
        true = getattr(maker, method)

        def spied(self, rows, *others, true=true):
            ids.extend(row.id for row in rows)
            return true(self, rows, *others)

        monkeypatch.setattr(maker, method, spied)
    return ids


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("ADAPT_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


def test_given_pairs_keep_what_they_came_with(tmp_path):
    other = png(tiny_world.picture(50))
    turns = (Turn(question="is there a red car?", answer="no"),)
    rows = [
        preference(0, chosen_score=2.0, rejected_score=1.0),
        preference(1, rejected_images=(other,)),
        preference(2, history=turns),
    ]
    made, metrics = run(workspace(tmp_path, rows))
    for row, pair in zip(rows, made, strict=True):
        for name in ("id", "kind", "question", "history", "chosen", "rejected", "rejected_images"):
            assert getattr(pair, name) == getattr(row, name), name
        assert pair.images == row.images and pair.source == "given"
        assert (pair.chosen_score, pair.rejected_score) == (row.chosen_score, row.rejected_score)
        assert sum(pair.anchor) == pytest.approx(1, abs=1e-5)
    assert metrics["pairs"] == metrics["pairs_other"] == 3 and metrics["mean_gap"] == 1.0
    # The answers share a car: 9 tokens of 12 decide in the one, and 5 of 7 in the other.
    sides = [
        [row.chosen[a:b] for a, b in pair.chosen_spans]
        for row, pair in zip(rows, made, strict=True)
    ]
    one, other = ["a red", "a blue house and a green tree"], ["no, there is no"]
    assert sides == [one, other, one]
    assert metrics["chosen_inside"] == pytest.approx((9 + 5 + 9) / (12 + 7 + 12))
    assert metrics["rejected_inside"] == pytest.approx((5 + 9 + 5) / (7 + 12 + 7))


def test_a_few_of_the_given_pairs(tmp_path, capsys):
    results = workspace(tmp_path, [preference(i) for i in range(9)])
    made, _ = run(results, limit=4)
    assert len(made) == 4 and [p.id for p in made] == sorted(p.id for p in made)
    assert "4 of 9 given pairs, drawn at random (pairs.limit)" in capsys.readouterr().err
    # Which ones does not hang on how many there are.
    workspace(tmp_path, [preference(i) for i in range(10)])
    again, _ = run(results, "more", limit=4)
    assert len({p.id for p in made} & {p.id for p in again}) >= 3


def test_both_kinds_of_pairs_of_the_same_questions(tmp_path):
    rows = [known(0), known(1), preference(2)]
    made, _ = run(workspace(tmp_path, rows), source="both")
    ids = [(pair.id, pair.source) for pair in made]
    assert ids[:3] == [(row.id, "given") for row in rows]
    assert {*ids[3:]} <= {(f"row-{i} (sampled)", "sampled") for i in (0, 1)} and ids[3:]
    for pair in made:
        scene = rows[0].asked()
        given = pair.source == "given"
        spans = by_words if given else partial(by_truth, example=scene, vocabulary=WORDS)
        assert (pair.chosen_spans, pair.rejected_spans) == spans(pair.chosen, pair.rejected)
        assert pair.chosen_spans or pair.rejected_spans


def test_rows_with_one_answer_are_kept_beside_the_pairs(tmp_path):
    asked = [known(i, id=f"{i}", chosen="a house.").asked() for i in range(4)]
    others = [
        replace(row, id=f"{row.id} {kind}", kind=kind, image_id=image)
        for row, image in zip(asked, ("0", "1", "new", "newer"), strict=True)
        for kind in ("exists", "other")
    ]
    results, keep = workspace(tmp_path, [*asked, *others]), {"kinds": ["exists"], "path": ""}
    _, without = run(results, "without", source="sample")
    assert not read_split(results / "without" / "plain.parquet") and "keep_rows" not in without
    _, metrics = run(results, source="sample", keep={**keep, "images": 3})
    rows = [*read_split(results / "pairs" / "plain.parquet")]
    # Two pictures have no pairs; one that has comes along.
    assert {row.image_id for row in rows} > {"new", "newer"}
    assert rows == [one for one in others if one.image_id in {row.image_id for row in rows}][::2]
    said = json.loads((results / "pairs" / "report.json").read_text())["keep"]
    assert said == {"rows": 3, "pictures": 3, "kinds": {"exists": 3}} and metrics["keep_rows"] == 3
    # The pairs are what they were, to the byte.
    one, two = (results / name / "pairs.parquet" for name in ("without", "pairs"))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("source", ["given", "sample"])
def test_places_are_where_the_data_says_that_things_are(tmp_path, worked, source):
    """They hang on no model: what was worked out stays when a box is put right."""

    def results(box: tuple[float, ...] | None, name: str) -> tuple[list[Pair], dict[str, float]]:
        there = tuple(SceneObject(name=word, colour="", box=box) for word in WORDS.objects)
        rows = [replace(known(i), objects=there) for i in range(3)]
        return run(workspace(tmp_path, rows), name, source=source)

    first, metrics = results(left := (0.0, 0.0, 0.5, 1.0), "first")
    for pair in first:
        said = [(pair.chosen[place.start : place.end], place.boxes) for place in pair.places]
        assert said == [(mention.name, (left,)) for mention in find(pair.chosen, WORDS.objects)]
        assert {place.image for place in pair.places} <= {0}
    placed = sum(bool(pair.places) for pair in first) / len(first)
    assert metrics["placed"] == placed > 0
    content = json.loads((tmp_path / "results" / "first" / "report.json").read_text())["places"]
    count = sum(len(pair.places) for pair in first)
    assert content == {"mentions": count, "with_boxes": count, "pairs_with_boxes": placed}
    worked.clear()
    second, _ = results(right := (0.5, 0.0, 1.0, 1.0), "second")
    assert {box for pair in second for place in pair.places for box in place.boxes} == {right}
    # An anchor does not hang on it; a ranking may on anything that is there.
    assert len(worked) == (0 if source == "given" else 3)
    assert results(None, "third")[1]["placed"] == 0


def test_what_cannot_be_ranked_is_not_sampled(tmp_path, capsys):
    unknown = [preference(i, kind="describe") for i in range(3)]
    with pytest.raises(InputError, match=r"is not known; set pairs\.source to given"):
        run(workspace(tmp_path, unknown), source="sample")
    results = workspace(tmp_path, [*unknown, *(known(i) for i in range(3, 8))])
    made, _ = run(results, "some", source="sample")
    assert {pair.id for pair in made} <= {f"row-{i}" for i in range(3, 8)} and made
    assert "3 of 8 questions left out: what is in the picture" in capsys.readouterr().err
    with pytest.raises(
        InputError, match=r"pairs\.source: given needs preference data, and .*train"
    ):
        run(workspace(tmp_path, [known(0).asked()]), "none", source="given")


@pytest.mark.parametrize("source", ["given", "sample"])
def test_new_rows_cost_new_rows_alone(tmp_path, worked, capsys, source):
    results = workspace(tmp_path, [known(i) for i in range(5)])
    first, _ = run(results, "first", source=source)
    assert worked == [f"row-{i}" for i in range(5)]
    worked.clear()
    again, _ = run(results, "again", source=source)
    assert again == first and not worked
    name = "pairs.parquet"
    assert (results / "again" / name).read_bytes() == (results / "first" / name).read_bytes()
    workspace(tmp_path, [known(7), *(known(i) for i in range(5))])
    more, _ = run(results, "more", source=source)
    assert worked == ["row-7"] and [pair for pair in more if pair.id != "row-7"] == first
    assert "5 of 6 rows are known" in capsys.readouterr().err
    # Another setting, another anchor or answer: everything anew.
    worked.clear()
    other = {"given": {"kinds": ["exists"]}, "sample": {"temperature": 2.0}}[source]
    run(results, "other", source=source, **other)
    assert len(worked) == (0 if source == "given" else 6)


def test_a_row_that_was_changed_is_worked_out_again(tmp_path, worked):
    results = workspace(tmp_path, [preference(i) for i in range(4)])
    run(results, "first")
    worked.clear()
    rows = [
        preference(0, rejected="a house."),  # the anchor is that of the chosen answer
        preference(1, chosen="a red car."),
        preference(2, images=(png(tiny_world.picture(9)),)),
        preference(3, question="is there a tree?"),
    ]
    made, _ = run(workspace(tmp_path, rows), "second")
    assert worked == ["row-1", "row-2", "row-3"] and made[0].rejected == "a house."
    # Other weights know nothing.
    worked.clear()
    from adapt.models.load import save

    save(tiny_world.model(3), tiny_world.processor(), results / "base" / "model")
    run(results, "third")
    assert len(worked) == 4


def test_an_interrupted_stage_goes_on_where_it_stopped(tmp_path, worked, monkeypatch):
    results = workspace(tmp_path, [preference(i) for i in range(8)])
    true = given.forced_anchors

    def breaking(*args):
        if len(worked) > 3:
            raise KeyboardInterrupt
        return true(*args)

    monkeypatch.setattr(given, "forced_anchors", breaking)
    with pytest.raises(KeyboardInterrupt):
        run(results, "cut")
    monkeypatch.setattr(given, "forced_anchors", true)
    worked.clear()
    made, _ = run(results, "whole")
    assert worked == [f"row-{i}" for i in range(3, 8)] and len(made) == 8


def test_a_batch_that_is_too_large_is_halved(tmp_path, monkeypatch, capsys):
    results = workspace(tmp_path, [preference(i) for i in range(5)])
    true, sizes = given.forced_anchors, []

    def small(model, processor, prompts, *others):
        sizes.append(len(prompts))
        if len(prompts) > 2:
            raise torch.OutOfMemoryError
        return true(model, processor, prompts, *others)

    monkeypatch.setattr(given, "forced_anchors", small)
    made, _ = run(results, batch=4)
    assert sizes == [4, 2, 2, 1] and len(made) == 5
    assert "pairs.batch: 4 questions do not fit" in capsys.readouterr().err


def test_the_report_finds_what_is_wrong_with_pairs(tmp_path, capsys):
    first = preference(0, chosen_score=1.0, rejected_score=2.0)
    turned = {"chosen": first.rejected, "rejected": first.chosen}
    rows = [
        first,
        preference(0, id="again"),
        preference(0, id="turned", **turned),
        preference(1, rejected=preference(1).chosen + " "),
        preference(2, chosen="no", rejected="a red car, a blue house and a green tree."),
    ]
    results = workspace(tmp_path, rows)
    _, metrics = run(results)
    report = json.loads((results / "pairs" / "report.json").read_text())
    counts = [report[name] for name in ("duplicates", "contradictory", "equal_answers")]
    assert (
        counts
        == [1, 1, 1]
        == [metrics[n] for n in ("duplicates", "contradictory", "equal_answers")]
    )
    assert report["scores"] == {"pairs": 1, "not_higher": 1, "mean_gap": -1.0}
    assert report["pictures"] == {"different": 3, "pairs_each": 5 / 3, "most_pairs": 3}
    tokens = [
        len(tiny_world.processor().tokenizer(one, add_special_tokens=False).input_ids)
        for one in tiny_world.ANSWERS
    ]
    long, short = tokens[0], tokens[1]
    differences = [long - short, long - short, short - long, 0, 1 - long]
    assert report["length"]["chosen_minus_rejected_tokens"] == pytest.approx(sum(differences) / 5)
    assert report["length"]["rejected_longer"] == 2 / 5
    said = capsys.readouterr().err
    assert (
        "contradict another one about the same pictures and question: 1" in said
        and "log-probability per token" in said
    )


def report_of(results: Path, name: str = "pairs") -> dict:
    return json.loads((results / name / "report.json").read_text())


def test_given_pairs_share_what_they_begin_with(tmp_path, worked, capsys):
    both = {"chosen": "a red car, a blue house.", "rejected": "a red car, a green tree."}
    other = (png(tiny_world.picture(50)),)
    rows = [
        preference(0, **both),
        preference(1, **both, rejected_images=other),
        preference(2, chosen="no.", rejected="a red car."),
    ]
    results = workspace(tmp_path, rows)
    whole, plain = run(results)
    assert [pair.prefix for pair in whole] == ["", "", ""] and "begun" not in plain
    assert report_of(results)["prefix"] == {"pairs": 0, "tokens": 0}
    worked.clear()
    made, metrics = run(results, "parted", unit="continuation")
    assert not worked, "an anchor does not hang on it"
    assert [pair.prefix for pair in made] == ["a red car, a", "", ""]
    tokens = len(tiny_world.processor().tokenizer("a red car, a").input_ids)
    assert report_of(results, "parted")["prefix"] == {"pairs": 1 / 3, "tokens": tokens / 3}
    assert metrics["begun"] == 1 / 3 and metrics["begun_tokens"] == tokens / 3
    said = capsys.readouterr().err
    assert f"33% begin alike; what is shared, {tokens / 3:.1f} tokens of a pair, is not" in said


def test_what_each_filter_takes_is_counted_and_known(tmp_path, worked, capsys):
    twice = "a red car, a blue house, a red car."
    rows = [
        preference(0, chosen_score=0.9),
        preference(1, chosen_score=0.2),
        preference(2, chosen=twice, chosen_score=0.9),
        preference(3, rejected=twice, chosen_score=0.9),
        preference(4),
    ]
    results = workspace(tmp_path, rows)
    every, _ = run(results, "every")
    filters = {"min_best": 0.5, "repeats": "drop"}
    made, metrics = run(results, **filters)
    assert [pair.id for pair in made] == ["row-0", "row-4"]
    for pair, before in zip(made, (every[0], every[4]), strict=True):
        assert pair.anchor == pytest.approx(before.anchor, abs=1e-5)
    report = report_of(results)
    assert report["left_out"] == {"min_best": 1, "repeats": 2} and report["yield"] == 2 / 5
    assert metrics["left_min_best"] == 1 and metrics["left_repeats"] == 2
    assert metrics["yield"] == 2 / 5
    said = "rows without a pair: 1 by pairs.min_best, 2 by pairs.repeats"
    assert said in capsys.readouterr().err
    # Why there is none is known as well, and another limit is another question.
    worked.clear()
    again, _ = run(results, "again", **filters)
    assert again == made and not worked and report_of(results, "again") == report
    run(results, "lower", **filters | {"min_best": 0.1})
    assert len(worked) == 5 and report_of(results, "lower")["left_out"] == {"repeats": 2}


def test_another_rule_for_the_better_answer_is_another_question(tmp_path, worked):
    """Outcomes of own answers depend on every setting that does not merely say which rows."""
    results = workspace(tmp_path, [known(i).asked() for i in range(4)])
    own = {"source": "sample", "temperature": 3.0, "samples": 4, "min_gap": 0.01}
    for count, changes in (
        (4, {}),
        (4, {"chosen": "truthful"}),
        (0, {"images": 4, "batch": 2, "skip": 0}),
    ):
        worked.clear()
        with contextlib.suppress(InputError):  # where there is no pair
            run(results, f"{changes}", **own | changes)
        assert len(worked) == count, changes


def test_a_window_of_likelihood(tmp_path):
    results = workspace(tmp_path, [preference(i) for i in range(4)])
    made, _ = run(results, likelihood=[-1e3, 0.0])
    assert len(made) == 4 and report_of(results)["left_out"] == {}
    with pytest.raises(InputError, match=r"pairs\.likelihood: no two answers are both inside; "):
        run(results, "none", likelihood=[-1e-3, 0.0])
    with pytest.raises(InputError, match=r"pairs\.likelihood: nothing lies between 0\.0 and -1\.0"):
        config(likelihood=[0.0, -1.0])
    with pytest.raises(
        InputError, match=r"pairs\.likelihood: expected any, or \[lowest, highest\]"
    ):
        config(likelihood=-1.0)
    with pytest.raises(InputError, match=r"pairs\.min_best: expected any, or a number, got 'all'"):
        config(min_best="all")


def test_the_key_that_left_nothing_is_named(tmp_path):
    results = workspace(tmp_path, [preference(i, chosen_score=0.1) for i in range(3)])
    message = r"^pairs\.min_best: no better answer reaches a score of 9\.0; lower it; no pairs$"
    with pytest.raises(InputError, match=message):
        run(results, min_best=9.0)


def test_sampled_pairs_that_part(tmp_path, worked):
    results = workspace(tmp_path, [known(i).asked() for i in range(24)])
    settings = {"source": "sample", "unit": "continuation", "temperature": 3.0, "samples": 8}
    made, metrics = run(results, **settings)
    assert made and metrics["yield"] == len(made) / 24
    left = report_of(results)["left_out"]
    assert sum(left.values()) == 24 - len(made) and {*left} <= {"unit", "min_gap"}
    for pair in made:
        assert pair.chosen.startswith(pair.prefix) and pair.rejected.startswith(pair.prefix)
        assert pair.chosen_score > pair.rejected_score
    worked.clear()
    again, _ = run(results, "again", **settings)
    assert again == made and not worked
