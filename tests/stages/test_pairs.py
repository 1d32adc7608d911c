"""Stage `pairs` on given and on sampled answers: what it takes, keeps, and says of them."""

import json
from pathlib import Path

import pytest
import torch

from adapt.data.schema import Turn
from adapt.params import InputError
from adapt.preference import given, sample
from adapt.preference.pairs import Pair, read_pairs
from adapt.stages import pairs as stage
from tests.support import tiny_world
from tests.support.preference_rows import png
from tests.support.preferences import config, known, preference, workspace


def run(results: Path, name: str = "pairs", **changes) -> tuple[list[Pair], dict[str, float]]:
    out = results / name
    out.mkdir()
    metrics = stage.run(config(**changes), results, out, lambda step, points: None)
    assert {path.name for path in out.iterdir()} == {"pairs.parquet", "report.json"}
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
