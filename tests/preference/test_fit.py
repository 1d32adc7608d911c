"""A training run in this process. `tests/faults/test_ray_training_ended.py` has one on Ray."""

import csv
import json
import re
import sqlite3
from pathlib import Path

import pytest

from adapt.models.load import load_model, save
from adapt.pairs.plain import write_plain
from adapt.pairs.table import PairPlace, write_pairs
from adapt.params import InputError
from adapt.preference.fit import fit
from adapt.preference.settings import Config
from adapt.tracking.runs import recorded, stage_run
from adapt.tracking.store import Store, TrackingConfig
from tests.support import tiny_world, tracked
from tests.support.preference_rows import (
    changed,
    lora,
    origin,
    pairs,
    plain_rows,
    settings,
    spanned,
)

PINNED = [6.710530, 6.701889, 6.624638, 6.089343, 6.045372]
PINNED += [5.942877, 5.582509, 5.940145, 6.004924, 5.529454]
"""Losses of ten steps of `settings(steps=10)`."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """`base/`, `pairs.parquet` and `plain.parquet`, the inputs of every run here."""
    folder = tmp_path_factory.mktemp("inputs")
    save(tiny_world.model(), tiny_world.processor(), folder / "base")
    write_pairs(folder / "pairs.parquet", spanned(pairs(18)), origin())
    write_plain(folder / "plain.parquet", plain_rows(10))
    return folder


def train(
    inputs: Path, to: Path, config: Config, log=lambda step, metrics: None
) -> dict[str, float]:
    (to / "out").mkdir(parents=True)
    base, table, plain = (inputs / name for name in ("base", "pairs.parquet", "plain.parquet"))
    return fit(config, base, table, to / "out", to / "state", log, plain=plain)


def cut_off(at: int, inputs: Path, to: Path, config: Config) -> None:
    """The same, stopped in a step."""

    def stop(step: int, metrics: dict[str, float]) -> None:
        if step == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(inputs, to, config, stop)
    (to / "out").rmdir()


def test_in_process_twice_gives_the_same_bytes_and_leaves_its_result_alone(inputs, tmp_path):
    steps: list[int] = []
    first = train(inputs, tmp_path / "a", settings(), lambda step, metrics: steps.append(step))
    second = train(inputs, tmp_path / "b", settings())
    assert first == second
    for name in ("model/model.safetensors", "history.csv"):
        assert (tmp_path / "a/out" / name).read_bytes() == (tmp_path / "b/out" / name).read_bytes()
    assert steps == [1, 2, 3, 4, 5, 6]
    (kept,) = (tmp_path / "a/state").glob("train-*")
    names = sorted(path.name for path in (tmp_path / "a/state").iterdir())
    assert names == ["checked", "locks", "reference", kept.name]
    assert sorted(path.name for path in kept.iterdir()) == ["final", "training.json"]
    result = kept / "final/model/model.safetensors"
    assert result.samefile(tmp_path / "a/out/model/model.safetensors"), "its space is taken once"


def losses(out: Path) -> list[float]:
    with (out / "history.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def test_ten_steps_come_out_as_they_did(inputs, tmp_path):
    """A pinned trajectory: whoever changes it on purpose writes down the new one, and why, in the
    commit.
    """
    train(inputs, tmp_path, settings(steps=10))
    assert losses(tmp_path / "out") == pytest.approx(PINNED, rel=1e-4)


FORMS = dict(vag_form="same_text", w_anchor=0.5, loss_type={"sigmoid": 0.8, "bco_pair": 0.2})
"""Other forms of the terms than the paper's."""
KEPT = dict(w_keep=200.0, keep_form="kl")
"""A pass over plain rows, which are ten: they begin anew in the third step."""


@pytest.mark.parametrize("changes", [FORMS, KEPT], ids=["forms", "kept"])
def test_other_terms_leave_the_trajectory_of_a_divided_step(inputs, tmp_path, changes):
    train(inputs, tmp_path / "whole", settings(steps=5, **changes))
    train(inputs, tmp_path / "divided", settings(steps=5, accumulation=4, **changes))
    whole, divided = losses(tmp_path / "whole/out"), losses(tmp_path / "divided/out")
    assert divided == pytest.approx(whole, rel=1e-5)
    assert whole != pytest.approx(PINNED[:5], rel=1e-2)


def test_where_there_is_nothing_to_keep_that_term_is_left_out(inputs, tmp_path, capsys):
    files = [inputs / "base", inputs / "pairs.parquet"]
    write_plain(tmp_path / "none.parquet", [])
    for name, plain, weight in (("none", "none.parquet", 1.0), ("off", "gone.parquet", 0.0)):
        (tmp_path / name).mkdir()
        config = settings(steps=2, w_keep=weight)
        to = (tmp_path / name, tmp_path / f"state-{name}", lambda step, metrics: None)
        fit(config, *files, *to, plain=tmp_path / plain)
    assert losses(tmp_path / "none") == losses(tmp_path / "off") == pytest.approx(PINNED[:2])
    assert "train.w_keep: " in (said := capsys.readouterr().err)
    assert said.count("none.parquet has no rows to keep (pairs.keep): that term is left out") == 1
    only = {name: 0.0 for name in ("w_vag", "w_dpo", "w_sft", "w_anchor", "w_attn")}
    with pytest.raises(InputError, match=r"^train\.w_keep: .*: nothing to train$"):
        fit(settings(w_keep=1.0, **only), *files, *to, plain=tmp_path / "none.parquet")
    with pytest.raises(InputError, match=r"gone.parquet: not found; run the pairs stage again"):
        fit(settings(steps=2, w_keep=1.0), *files, *to, plain=tmp_path / "gone.parquet")


@pytest.mark.parametrize("changes", [dict(accumulation=4), dict(gradient_checkpointing=True)])
def test_how_a_step_is_computed_leaves_the_trajectory(inputs, tmp_path, changes):
    """18 rows and 4 a step: an epoch ends within the run, with rows left over."""
    train(inputs, tmp_path, settings(steps=10, **changes))
    assert losses(tmp_path / "out") == pytest.approx(PINNED, rel=1e-5)


def test_a_step_may_be_divided_anew_at_a_checkpoint(inputs, tmp_path, capsys):
    """As after a card was full."""
    cut_off(5, inputs, tmp_path, settings(steps=10))
    capsys.readouterr()
    train(inputs, tmp_path, settings(steps=10, accumulation=2, gradient_checkpointing=True))
    said = capsys.readouterr().err
    assert "train: resuming from 3 of 10 steps" in said and "trainer_state.json" not in said
    assert "left aside" not in said
    assert losses(tmp_path / "out") == pytest.approx(PINNED, rel=1e-5)


def test_a_training_that_was_cut_off_with_other_settings_is_named(inputs, tmp_path, capsys):
    cut_off(5, inputs, tmp_path, settings())
    (folder,) = (tmp_path / "state").glob("train-*")
    capsys.readouterr()
    train(inputs, tmp_path, settings(steps=2, learning_rate=2e-3))
    said = capsys.readouterr().err
    assert f"train: {folder.resolve()} is of a training that was cut off, with other" in said
    assert "resuming" not in said


def test_bf16_stays_near(inputs, tmp_path):
    train(inputs, tmp_path, settings(steps=10, precision="bf16"))
    got = losses(tmp_path / "out")
    assert got == pytest.approx(PINNED, rel=0.02)
    assert got != pytest.approx(PINNED, rel=1e-4)


def test_lora_saves_a_plain_model(inputs, tmp_path):
    """Its reference is the model without the adapter: the plain images' file is that of full
    training.
    """
    train(inputs, tmp_path, settings(lora=lora(), steps=2, gradient_checkpointing=True))
    before = load_model(inputs / "base").state_dict()
    after = load_model(tmp_path / "out/model").state_dict()
    changed = {name.split(".")[-2] for name in after if not after[name].equal(before[name])}
    attention, rest = (
        {"q_proj", "k_proj", "v_proj", "o_proj"},
        {"gate_proj", "up_proj", "down_proj"},
    )
    assert changed == attention | rest
    kept = reference(tmp_path)
    train(inputs, tmp_path / "full", settings(steps=2))
    assert reference(tmp_path / "full") == kept


def reference(to: Path) -> dict[str, list]:
    return {
        path.name: json.loads(path.read_text())["log_probs"]
        for path in (to / "state/reference").iterdir()
    }


@pytest.mark.parametrize(
    "changes",
    [
        {},
        dict(lora=lora(2)),
        dict(span_weight=4.0),
        FORMS,
        KEPT,
        dict(lora=lora(2), **KEPT),
        dict(optimizer="adafactor", tower="full"),
        dict(optimizer="adafactor", lora=lora(2)),
    ],
    ids=["", "lora", "spans", "forms", "kept", "lora-kept", "adafactor", "lora-adafactor"],
)
def test_interrupted_in_process_run_resumes_to_the_same_model(
    inputs, tmp_path, changes, monkeypatch
):
    config = settings(**changes, accumulation=2)
    train(inputs, tmp_path / "whole", config)

    cut_off(5, inputs, tmp_path / "cut", config)
    steps: list[int] = []
    monkeypatch.setattr(
        "adapt.preference.reference.in_batches", lambda *_: pytest.fail("the reference is kept")
    )
    monkeypatch.setattr(
        "adapt.preference.teacher.in_batches", lambda *_: pytest.fail("the base is not asked again")
    )
    train(inputs, tmp_path / "cut", config, lambda step, metrics: steps.append(step))
    assert steps == [4, 5, 6], "resumed from the checkpoint of step 3"
    for name in ("out/model/model.safetensors", "out/history.csv"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()


@pytest.mark.parametrize("changes", [dict(tower="full"), dict(lora=lora(2))], ids=["full", "lora"])
def test_where_moments_live_may_change_with_a_checkpoint(inputs, tmp_path, changes):
    places = {name: settings(**changes, offload=name) for name in ("none", "optimizer")}
    train(inputs, tmp_path / "whole", places["none"])
    for first, then in (("none", "optimizer"), ("optimizer", "none")):
        to, steps = tmp_path / f"from-{first}", []
        cut_off(5, inputs, to, places[first])
        train(inputs, to, places[then], lambda step, metrics, to=steps: to.append(step))
        assert steps == [4, 5, 6], "resumed from the checkpoint of step 3"
        for name in ("out/model/model.safetensors", "out/history.csv"):
            assert (tmp_path / "whole" / name).read_bytes() == (to / name).read_bytes()


def test_supervision_by_boxes_hangs_on_the_rows_alone(inputs, tmp_path):
    """Cut off, or divided into passes, it goes the same way."""
    box = ((0.0, 0.0, 0.5, 0.5),)
    rows = [
        changed(row, places=(PairPlace(start=6, end=9, image=0, boxes=box),) if i % 3 else ())
        for i, row in enumerate(pairs(8))
    ]
    write_pairs(tmp_path / "pairs.parquet", rows, origin())
    (tmp_path / "base").symlink_to(inputs / "base")
    quick = {"steps": 2, "checkpoint_every": 1, "w_vag": 0.0, "w_attn": 1.0}
    boxes = settings(**quick, attn_target="boxes")
    points: list[dict[str, float]] = []
    train(tmp_path, tmp_path / "whole", boxes, lambda step, metrics: points.append(metrics))
    assert all(0 < point["attn/placed"] <= 1 and point["attn/kl"] > 0 for point in points)

    cut_off(2, tmp_path, tmp_path / "cut", boxes)
    train(tmp_path, tmp_path / "cut", boxes)
    for name in ("out/model/model.safetensors", "out/history.csv"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()
    found = losses(tmp_path / "whole/out")
    train(tmp_path, tmp_path / "parts", settings(**quick, attn_target="boxes", accumulation=4))
    assert losses(tmp_path / "parts/out") == pytest.approx(found, rel=1e-5)


def test_a_loss_that_is_not_finite_fails_the_run_and_keeps_the_checkpoint(
    inputs, tmp_path, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'runs.db'}")
    config = settings(learning_rate=1e30, checkpoint_every=1, accumulation=2)
    where = TrackingConfig(experiment="nan", model="nan")
    tracked.alone(tmp_path)
    store = Store(tmp_path, where)
    with (
        pytest.raises(FloatingPointError) as error,
        stage_run(store, "train", config) as run,
    ):
        train(inputs, tmp_path, config, run.log_step)
    (checkpoint,) = (tmp_path / "state").glob("train-*/checkpoint")
    message = re.match(
        r"the loss is nan at step (\d), in the rows (row-\d+, )+row-\d+; ", str(error.value)
    )
    assert message and str(checkpoint) in str(error.value)
    assert tracked.sent(store) == []
    failed = store.client.get_run(recorded(store, run.run_id))
    assert failed.info.status == "FAILED" and "the loss is nan" in failed.data.tags["adapt.error"]
    before = int(message[1]) - 1
    assert points(tmp_path / "runs.db", "train/loss") == list(range(1, before + 1))
    assert json.loads((checkpoint / "trainer_state.json").read_text())["global_step"] == before
    assert all(tensor.isfinite().all() for tensor in load_model(checkpoint).state_dict().values())
    assert not any((tmp_path / "out").iterdir())


def points(database: Path, key: str) -> list[int]:
    """Steps of a curve over all runs, as they are in the store."""
    if not database.exists():
        return []
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        try:
            query = "select step from metrics where key = ? order by step"
            return [step for (step,) in connection.execute(query, [key]).fetchall()]
        except sqlite3.OperationalError:  # the tables are just being made
            return []
