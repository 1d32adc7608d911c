"""Rounds of retraining: a chain of models, where it ends, and what is said of it."""

import json
import re
import shutil

import pandas as pd
import pytest
import torch

from adapt import params
from adapt.data.tables import read_split
from adapt.models.load import load_model
from adapt.pairs.table import read_pairs
from adapt.params import InputError
from flows import chain, curve
from flows.chain import RoundsConfig, best_of, is_improved, round_of
from flows.compare import cells, pool
from flows.compare.arms import changed
from flows.rounds import main, points
from tests.support import preferences, workspace

SEED = 3
SETTINGS = {
    **workspace.SMOKE,
    "seed": SEED,
    "scenes": {"train_images": 60, "validation_images": 6, "test_images": 2},
    "pairs": {"images": 20, "samples": 3, "min_gap": 0.01, "chosen": "any", "skip": 4},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The smallest settings beside the real graph and code, without git, Prefect or MLflow."""
    folder = tmp_path_factory.mktemp("rounds")
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(workspace.ROOT / name, folder)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(workspace.ROOT / "adapt", folder / "adapt", ignore=ignored)
    workspace.override(folder / "params.yaml", SETTINGS)
    return folder


@pytest.fixture(autouse=True)
def state(root, monkeypatch):
    monkeypatch.setenv("ADAPT_STATE", str(root / ".state"))


def of(root, rounds=2, **pairs):
    content = changed(params.read(root / "params.yaml"), "pairs", pairs)
    return chain.comparison(root, content, RoundsConfig(rounds=rounds, seeds=(SEED,)), jobs=1)


def chain_of(root, rounds=2, **pairs):
    """The base and so many rounds; computes nothing."""
    comparison, made = of(root, rounds, **pairs), []
    for number in range(rounds + 1):
        made.append(round_of(comparison, SEED, number, made[-1] if made else None))
    return made


def computed(wanted):
    """What a pool does, in this process; returns what was missing."""
    missing = pool.missing_of(wanted)
    for cell in missing.values():
        cell.compute()
    return [cell.title for cell in missing.values()]


@pytest.fixture(scope="module")
def rounds(root):
    """The base and two rounds, computed: the tests below look at them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAPT_STATE", str(root / ".state"))
        made = chain_of(root)
        computed([cell for one in made for cell in one.cells])
    return made


def folders(cells_):
    return [cell.folder for cell in cells_]


def weights(cell):
    return load_model(cell.folder / "model").state_dict()


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def base_and_pairs(one):
    """The cells that a round's training reads."""
    base, _, pairs = one.training.after
    assert pairs.folder == one.pairs.folder
    return base, pairs


# ---- what a round is made of -------------------------------------------------------------------


def test_a_round_starts_from_the_model_of_the_one_before_and_refers_to_it(rounds):
    base, first, second = rounds
    # The base of a round is what it samples from, begins with and takes its reference from.
    assert base_and_pairs(first)[0].folder == base.plain.model.folder
    mine = base_and_pairs(second)[0]
    assert same(weights(mine), weights(first.training)), "to the last bit"
    assert mine.title == f"taking the model before as base, seed {SEED}"
    assert not same(weights(first.training), weights(base.plain.model))
    assert not same(weights(second.training), weights(first.training))


def test_rounds_have_pictures_of_their_own(rounds):
    data = rounds[0].plain.data.folder / "splits" / "train.parquet"
    images = {row.id: row.image_id for row in read_split(data)}

    def of_pairs(one):
        return {images[pair.id] for pair in read_pairs(one.pairs.folder / "pairs.parquet")}

    first, second = of_pairs(rounds[1]), of_pairs(rounds[2])
    assert first and second and not first & second


def test_rounds_are_the_same_however_many_there_are(root):
    two, four = chain_of(root, 2), chain_of(root, 4)
    assert [one.training.folder for one in two[1:]] == [one.training.folder for one in four[1:3]]
    assert len({one.training.folder for one in four[1:]}) == 4
    skips = [one.plain.arm.content["pairs"]["skip"] for one in four[1:]]
    assert skips == [4, 24, 44, 64]


def test_the_first_round_is_the_training_of_the_pipeline(root):
    content = of(root).content
    assert chain_of(root)[1].training.folder == cells.stage(root, content, "train").folder


# ---- names by content --------------------------------------------------------------------------


def test_names_do_not_change_with_the_place_of_the_state_folder(root, tmp_path, monkeypatch):
    here = [cell.folder.name for one in chain_of(root) for cell in one.cells]
    monkeypatch.setenv("ADAPT_STATE", str(tmp_path / "elsewhere"))
    assert here == [cell.folder.name for one in chain_of(root) for cell in one.cells]


def test_only_what_starts_from_a_training_has_another_name(root):
    content = params.read(root / "params.yaml")
    graph, data = cells.graph(root), cells.stage(root, content, "data")
    base = cells.stage(root, content, "base")
    key = cells.key(root, content, graph["base"], {"data": data})
    assert base.folder.name == f"base-{key}" and folders(base.after) == folders([data])
    start = cells.stage(root, content, "train")
    other = cells.stage(root, content, "base", start)
    assert other.folder != base.folder and folders(other.after) == folders([data, start])
    assert cells.stage(root, content, "data", start).folder == data.folder
    again = cells.stage(root, changed(content, "train", {"beta": 0.1}), "train")
    assert cells.stage(root, content, "base", again).folder != other.folder


# ---- where a chain ends ------------------------------------------------------------------------

BASE = {"hal": 30.0, "cover": 95.0, "pope_f1": 94.0}


def figures(hal, cover=95.0, pope_f1=94.0):
    return {"hal": hal, "cover": cover, "pope_f1": pope_f1}


@pytest.mark.parametrize(
    ("rounds", "top", "goes_on"),
    [
        ([], 0, True),
        ([figures(20.0)], 1, True),
        ([figures(20.0), figures(12.0)], 2, True),
        ([figures(20.0), figures(20.0)], 1, False),  # no better is not better
        ([figures(20.0), figures(12.0), figures(14.0)], 2, False),
        ([figures(30.0)], 0, False),
        ([figures(20.0), figures(5.0, cover=93.9)], 1, False),  # more than a point of Cover
        ([figures(20.0), figures(5.0, cover=94.0)], 2, True),
        ([figures(5.0, pope_f1=92.0)], 0, False),  # what else it knew
        ([figures(35.0, cover=97.0)], 0, False),
    ],
)
def test_the_best_is_the_lowest_hal_that_keeps_cover_and_f1(rounds, top, goes_on):
    of_chain = [BASE, *rounds]
    assert best_of(of_chain) == top and is_improved(of_chain) == goes_on


class MadeUp:
    """Computes the data, and gives the scores of rounds the figures that are made up for them."""

    def __init__(self, plain):
        self.plain, self.labels = plain, []

    def __call__(self, label, wanted):
        self.labels.append(label)
        for cell in wanted:
            if cell.title.startswith("data"):
                cell.compute()
                continue
            _, number, seed = re.fullmatch(
                r"scoring (round )?(\w+).* seed (\d)", cell.title
            ).groups()
            number = 0 if number == "base" else int(number)
            cell.folder.mkdir(parents=True)
            made = self.plain[int(seed)][number]
            (cell.folder / "metrics.json").write_text(json.dumps(made))


def test_every_seed_ends_by_its_own_figures(root, tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPT_STATE", str(tmp_path))
    content = params.read(root / "params.yaml")
    content = changed(content, "pairs", {"images": 10, "skip": 10})
    asked = RoundsConfig(rounds=6, seeds=(1, 2, 3))
    comparison = chain.comparison(root, content, asked, jobs=1)
    falling = [figures(30.0 - 2 * number) for number in range(7)]
    worse = [BASE, figures(20.0), figures(25.0)]
    compute, told = MadeUp({1: falling, 2: worse, 3: [BASE, figures(40.0)]}), []
    made = [
        [(one.number, one.seed) for one in now]
        for now in chain.play(comparison, asked.rounds, compute, told.append)
    ]
    assert made == [
        [(0, 1), (0, 2), (0, 3)],
        [(1, 1), (1, 2), (1, 3)],
        [(2, 1), (2, 2)],
        *([(number, 1)] for number in (3, 4, 5)),  # 60 pictures, of which 10 are left out
    ]
    assert compute.labels == ["data", "base", *(f"round {number}" for number in range(1, 6))]
    limits = [line for line in told if line.endswith("so that 5 of 6 rounds are possible")]
    assert len(limits) == 3 and told[3:] == [
        "seed 3: round 1 is no better than base on validation (Hal 30.0 -> 40.0, "
        "Cover 95.0 -> 95.0, POPE F1 94.0 -> 94.0); no further round",
        "seed 2: round 2 is no better than round 1 on validation (Hal 20.0 -> 25.0, "
        "Cover 95.0 -> 95.0, POPE F1 94.0 -> 94.0); no further round",
    ]


def test_what_cannot_be_judged_has_no_rounds(root, tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPT_STATE", str(tmp_path))
    asked = RoundsConfig(rounds=1, seeds=(1,))
    comparison = chain.comparison(root, params.read(root / "params.yaml"), asked, jobs=1)
    with pytest.raises(InputError, match="judged by Hal, and the validation split has no desc"):
        list(chain.play(comparison, 1, MadeUp({1: [{"length": 3.0}]}), print))


def test_preference_data_has_no_rounds_of_its_own(root, tmp_path):
    splits = preferences.workspace(tmp_path, [preferences.preference(0)]) / "data" / "splits"
    data = cells.Cell("data", splits.parent, dict)
    with pytest.raises(InputError, match=r"pairs.source: the training split holds preferences"):
        chain._limit(of(root), SEED, data, 1, print)


def played(root, rounds=2, **pairs):
    """What play yields, the lines that it tells, and what it had computed."""
    told, made = [], []
    comparison = of(root, rounds, **pairs)

    def compute(label, wanted):
        made.extend(computed(wanted))

    return [one for [one] in chain.play(comparison, rounds, compute, told.append)], told, made


def test_a_second_run_computes_nothing_and_ends_where_validation_says(root, rounds):
    chain_, told, made = played(root)
    assert made == []
    of_chain = [one.figures for one in rounds]
    ends = [n for n in (1, 2) if not is_improved(of_chain[: n + 1])]
    assert len(chain_) == 1 + (ends[0] if ends else 2)
    assert [one.figures for one in chain_] == of_chain[: len(chain_)]
    assert len(told) == len(ends[:1])
    for line in told:
        worse = r"seed 3: round \d is no better than (base|round 1) on validation \(Hal .*\)"
        assert re.fullmatch(f"{worse}; no further round", line)


def test_a_stopped_run_goes_on_where_it_was(root, rounds):
    second = rounds[2]
    shutil.rmtree(second.training.folder)
    shutil.rmtree(second.plain.answers.folder)
    shutil.rmtree(second.plain.cell.folder)
    assert computed(second.cells) == [
        "train, seed 3",
        "answering as round 2 on validation, seed 3",
        "scoring round 2 on validation, seed 3",
    ]


def test_pictures_run_out(root, rounds):
    told = []
    data = rounds[0].plain.data
    assert chain._limit(of(root, 9), SEED, data, 9, told.append) == 2
    assert told == [
        "seed 3: 60 pictures, 4 of them left out (pairs.skip): a round takes 20 (pairs.images), "
        "so that 2 of 9 rounds are possible"
    ]
    # The first takes what there is, as the pipeline does.
    assert chain._limit(of(root, images=100), SEED, data, 2, told.append) == 1
    assert chain._limit(of(root), SEED, data, 2, told.append) == 2 and len(told) == 2


# ---- the pipeline repeats a round --------------------------------------------------------------


def test_what_best_json_says_makes_the_pipeline_repeat_the_round(
    root, rounds, tmp_path, monkeypatch
):
    content, second = of(root).content, rounds[2]
    shipped = curve.shipping(root, content, second)
    assert shipped["round"] == 2 and (root / shipped["model"]).samefile(
        second.training.folder / "model"
    )
    keys = shipped["set"]
    assert keys["pairs.skip"] == 24 and keys["seed"] == SEED
    assert (root / keys["base.source"]).samefile(rounds[1].training.folder / "model")
    # Nothing is known in another state folder.
    content = changed(content, "base", {"source": str(root / keys["base.source"])})
    content = changed(content, "pairs", {"skip": keys["pairs.skip"]})
    monkeypatch.setenv("ADAPT_STATE", str(tmp_path / "fresh"))
    training = cells.stage(root, content, "train")
    assert "train, seed 3" in computed([training])
    pairs = training.after[2].folder / "pairs.parquet"
    assert pairs.read_bytes() == (second.pairs.folder / "pairs.parquet").read_bytes()
    assert same(weights(training), weights(second.training))


# ---- what is seen of it ------------------------------------------------------------------------


def test_the_folder_has_table_chart_and_the_best(root, rounds):
    content = of(root).content
    text = curve.write(root, content, {SEED: rounds})
    made = root / curve.FOLDER
    assert sorted(path.name for path in made.iterdir()) == [
        *("best.json", "rounds.png", "table.csv", "table.md")
    ]
    assert (made / "table.md").read_text() == text
    table = pd.read_csv(made / "table.csv")
    ways = ["plain", "steered"] * 3
    assert table["round"].tolist() == [0, 0, 1, 1, 2, 2] and table.answers.tolist() == ways
    assert table.pairs.isna().tolist() == [True, True, False, False, False, False]
    assert (table.seconds[2:] > 0).all() and table.hal.notna().all()
    (best,) = json.loads((made / "best.json").read_text())
    top = best_of([one.figures for one in rounds])
    assert best["round"] == top and table[table.best]["round"].unique().tolist() == [top]
    head = "| round | seed | answers | alpha | Hal % | CHAIR_i % | Cover % | POPE F1 % |"
    assert text.startswith(head) and text.count("\n") == 8
    assert table.alpha.isna().tolist() == [True, False] * 3, "the strength of steered answers"
    of_second = points(rounds[2])
    assert of_second["seed_3/hal"] == rounds[2].figures["hal"] and "seed_3/steered_hal" in of_second


def test_dots_at_one_place_have_one_label():
    columns = ["seed", "round", "answers", "hal", "cover"]
    made = [
        (7, 0, "plain", 30.0, 95.0),
        (7, 0, "steered", 30.0, 95.0),
        (7, 1, "plain", 9.0, 96.0),
        (7, 1, "steered", 8.0, 96.0),
        (8, 1, "plain", 9.0, 96.0),
    ]
    assert curve.labels(pd.DataFrame(made, columns=columns)) == [
        ((30.0, 95.0), "base", True),
        ((9.0, 96.0), "1", True),
        ((8.0, 96.0), "1", False),
        ((9.0, 96.0), "1", True),
    ]


def test_without_steering_answers_are_plain(root):
    content = changed(params.read(root / "params.yaml"), "steer", {"alpha": 0.0})
    asked = RoundsConfig(rounds=1, seeds=(SEED,))
    comparison = chain.comparison(root, content, asked, jobs=1)
    assert list(comparison.arms.named) == ["base", "round 1"]
    assert round_of(comparison, SEED, 0, None).steered is None


CONTENT = {"seed": 7, "base": {"source": "scratch"}, "pairs": {"skip": 0}}


@pytest.mark.parametrize(
    ("number", "keys", "lines"),
    [
        (0, {}, ["no round is better than the base on validation: nothing is to be shipped."]),
        (1, {}, ["To ship it, params.yaml stays as it is: make run."]),
        (
            2,
            {"base.source": ".state/cells/train-1/model", "pairs.skip": 1600},
            ["    base.source: .state/cells/train-1/model", "    pairs.skip: 1600"],
        ),
        (1, {"seed": 8}, ["    seed: 8", "and then make run."]),
    ],
)
def test_what_is_to_be_done_is_said(number, keys, lines):
    now = {"seed": 7, "base.source": "scratch", "pairs.skip": 0}
    shipped = {"round": number, "seed": 7, "model": "m", "set": {**now, **keys}}
    said = curve.advice(CONTENT, shipped)
    for line in lines:
        assert line in said
    assert ("seed:" in said) == ("seed" in keys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "--rounds: must be at least 1"),
        (["--seeds", "seven"], "--seeds: 'seven' is not a whole number"),
        (["--jobs", "0"], "--jobs: must be at least 1"),
    ],
)
def test_a_mistake_is_one_line(root, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(root)
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_given_answers_have_no_rounds(root):
    with pytest.raises(InputError, match=r"pairs.source: given answers are not a model's own"):
        of(root, source="given")
