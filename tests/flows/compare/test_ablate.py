"""Comparisons: results by content, computed once; mistakes end in one line."""

import shutil

import pandas as pd
import pytest

from adapt import params
from adapt.params import InputError
from flows.compare import arms, cells, pool, scoring, table
from flows.compare.__main__ import main
from flows.compare.arms import Comparison
from flows.compare.cells import Cell
from tests.support import workspace


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The smallest settings beside the real graph and code, without git, Prefect or MLflow."""
    folder = tmp_path_factory.mktemp("arms")
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(workspace.ROOT / name, folder)
    shutil.copytree(
        workspace.ROOT / "adapt", folder / "adapt", ignore=shutil.ignore_patterns("__pycache__")
    )
    workspace.override(folder / "params.yaml", workspace.SMOKE)
    return folder


def test_a_cell_is_computed_once_and_named_by_what_it_depends_on(root, monkeypatch):
    monkeypatch.setenv("ADAPT_STATE", str(root / ".state"))
    content = params.read(root / "params.yaml")
    first = cells.stage(root, content, "data")
    first.compute()
    assert (
        (first.folder / "splits" / "train.parquet").exists() and first.seconds > 0 and first.metrics
    )
    assert cells.stage(root, content, "data").done
    assert not cells.stage(root, {**content, "seed": 8}, "data").done
    drawings = root / "adapt" / "data" / "drawings.py"
    before = drawings.read_text()
    drawings.write_text(before + "# changed\n")
    assert not cells.stage(root, content, "data").done
    drawings.write_text(before)


def test_ray_computes_what_arms_share_once_and_they_make_a_table(root, monkeypatch):
    monkeypatch.setenv("ADAPT_STATE", str(root / ".state"))
    content = params.read(root / "params.yaml")
    comparison = Comparison(root=root, content=content, arms=arms.read(), jobs=2)
    pair = [comparison.arm(name) for name in ("base", "steering")]
    wanted = [scoring.scoring(comparison, arm, 3, "test") for arm in pair]
    told: list[str] = []
    scoring.compute(comparison, [one.cell for one in wanted], told.append)
    listed, *lines = told
    assert listed == "to be computed, 2 at a time: data (1), base (1), answering (2), scoring (2)"
    made = [line.split(": ")[0] for line in lines]
    assert made[:2] == ["data, seed 3", "base, seed 3"]
    assert sorted(made[2:]) == [
        "answering as base on test, seed 3",
        "answering as steering on test, seed 3",
        "scoring base on test, seed 3",
        "scoring steering on test, seed 3",
    ]
    scoring.compute(comparison, [one.cell for one in wanted], told.append)
    assert told == [listed, *lines], "nothing is computed, nothing is told"
    scores = [one.scores for one in wanted]
    assert scores[0].metrics["length"] > 0 and "fire_rate" in scores[1].metrics
    assert (scores[1].metrics["alpha"], scores[1].metrics["tau"]) == (1.6, 0.9)
    assert "alpha" not in scores[0].metrics
    text = table.write(comparison, scores)
    assert "| steering |" in text and "Differences to base" in text
    made = root / "results" / "arms"
    assert (made / "table.md").read_text() == text and (made / "arms.png").exists()
    assert pd.read_csv(made / "table.csv").arm.tolist() == ["base", "steering"]
    plots = root / "adapt" / "evaluation" / "plots.py"
    before = plots.read_text()
    plots.write_text(before + "# changed\n")
    scores_cell = scoring.scoring(comparison, pair[0], 3, "test").cell
    plots.write_text(before)
    assert not scores_cell.done and all(cell.done for cell in scores_cell.after), "answers stay"


def test_arms_share_the_stages_before_their_first_change(root, monkeypatch):
    monkeypatch.setenv("ADAPT_STATE", str(root / ".state"))
    named = {
        "full": {"train": {}},
        "pairs": {"pairs": {"images": 20}, "train": {}},
        "world": {"scenes": {"caption_noise": 0.9}, "train": {}},
        "same": {"scenes": {}, "pairs": {}, "train": {}, "steer": {}},
    }
    file = arms.read()
    changes = {name: arms.Changes(**given) for name, given in named.items()}
    file = file.model_copy(update={"named": {**file.named, **changes}})
    content = params.read(root / "params.yaml")
    comparison = Comparison(root=root, content=content, arms=file, jobs=1)

    def folders(name):
        of = scoring.scoring(comparison, comparison.arm(name), 3, "validation")
        base, _, pairs = of.model.after
        return of.data.folder, base.folder, pairs.folder, of.model.folder, of.cell.folder

    full, world = folders("full"), folders("world")
    shared = [mine == theirs for mine, theirs in zip(folders("pairs"), full, strict=True)]
    assert shared == [True, True, False, False, False]
    assert not set(world) & set(full), "another world shares nothing"
    assert folders("same")[:4] == full[:4]
    base = comparison.base_of(comparison.arm("world"))
    of_world = scoring.scoring(comparison, base, 3, "validation")
    assert (of_world.data.folder, of_world.model.folder) == world[:2]


def test_what_is_to_come_counts_each_kind_as_long_as_it_takes(tmp_path):
    seconds = {"base, seed 7": 180, "answering as base": 6}
    for number, taken in enumerate(seconds.values()):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "seconds.json").write_text(str(taken))
    done = [Cell(title, tmp_path / str(n), dict) for n, title in enumerate(seconds)]
    bases = [Cell(f"base, seed {seed}", tmp_path, dict) for seed in (8, 9)]
    answers = [Cell(f"answering as arm {n}", tmp_path, dict) for n in range(10)]
    # Nothing is known of answers yet: two bases of three minutes are the least.
    assert scoring.rest_of(done[:1], [*bases, *answers], 180) == "12 to come, at least 6 min"
    assert scoring.rest_of(done[:1], answers, 180) == "10 to come", "not at least 0 min"
    assert scoring.rest_of(done, [*bases, *answers], 186) == "12 to come, about 7 min"
    # Two at a time take half.
    assert scoring.rest_of(done, [*bases, *answers], 93) == "12 to come, about 4 min"
    assert scoring.rest_of(done, [], 186) == "0 to come, about 0 min"


def test_answers_depend_on_the_grid_only_where_something_is_chosen_from_it(root, monkeypatch):
    monkeypatch.setenv("ADAPT_STATE", str(root / ".state"))
    content = params.read(root / "params.yaml")
    file = arms.read()

    def folder(**steer):
        named = {**file.named, "mine": arms.Changes(steer=steer)}
        changed = file.model_copy(update={"named": named})
        comparison = Comparison(root=root, content=content, arms=changed, jobs=1)
        return scoring.scoring(comparison, comparison.arm("mine"), 3, "test").answers.folder

    grid = {**content["steer"]["grid"], "tau": [0.5]}
    assert folder(alpha=1.2) == folder(alpha=1.2, grid=grid) != folder(alpha=1.3)
    assert folder(alpha="auto") != folder(alpha="auto", grid=grid) != folder(alpha=1.2)


def test_arms_of_another_world_stand_beside_the_others_without_a_difference(tmp_path):
    content = {"evaluate": {"bootstrap": 50}, "seed": 1}
    said = {"hallucinated": [["bus"]], "objects_mentioned": [["bus"]], "covered": [[]]}
    judged = pd.DataFrame(
        {"kind": ["describe"], "truth": [["car"]], "yes": [None], "right": [None], **said}
    )
    judged.assign(id="0-describe", image_id="0").to_parquet(tmp_path / "judged.parquet")
    path, worlds = tmp_path / "judged.parquet", {"base": "a", "sft": "a", "paper_rule": "b"}
    scores = [
        scoring.ArmScores(arm=arm, seed=1, world=world, metrics={"hal": 100.0}, judged=path)
        for arm, world in worlds.items()
    ]
    on = {"root": tmp_path, "content": content, "arms": arms.read(), "jobs": 1}
    text = table.write(Comparison(**on, split="validation"), scores)
    _, to_base = text.split("Differences to base")
    same, nothing = "+0.0 [+0.0, +0.0]", ""
    cells_ = [f"{same}, +0 %", f"{same}, +0 %", same, nothing, nothing]
    assert f"| sft | {' | '.join(cells_)} |" in to_base and "paper_rule" not in to_base
    assert (tmp_path / "results" / "arms-validation" / "table.md").read_text() == text
    assert not (tmp_path / "results" / "arms").exists(), "the test split's table stays as it was"


def refuse(out):
    raise InputError(f"params.yaml: not {out.parent.name}")


def test_the_first_error_is_raised_as_it_was_and_leaves_nothing_half_made(tmp_path):
    cells_ = [Cell("first", tmp_path / "here" / "first", refuse)]
    with pytest.raises(InputError, match=r"^params.yaml: not here$"):
        list(pool.run(cells_, 1, tmp_path))
    assert list((tmp_path / "here").iterdir()) == []


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--arms", "bse"], "unknown arm bse"),
        (["--seeds", "seven"], "--seeds: 'seven' is not a whole number"),
        (["--seeds", "7,4294967296"], "--seeds: must be less than 4294967296"),
        (["--jobs", "0"], "--jobs: must be at least 1"),
        (["--file", "nowhere.yaml"], "nowhere.yaml: not found"),
    ],
)
def test_a_mistake_is_one_line(root, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(root)
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
