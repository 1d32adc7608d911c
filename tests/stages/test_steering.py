"""Steering that is chosen on validation: by hand counts, once, and read by whoever steers."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from adapt.data.schema import SceneObject
from adapt.data.tables import read_split, write_split
from adapt.generation import __main__ as generation
from adapt.generation import batches, choosing, chosen
from adapt.generation.bench import Bench
from adapt.generation.known import Known
from adapt.generation.settings import SteerConfig, SteerGrid, Steering
from adapt.models.load import save
from adapt.params import InputError, as_params
from adapt.stages import answer
from tests.stages.conftest import ANSWER, IMAGES, SAID, rows, written
from tests.support import tiny_world

GRID = SteerGrid(alpha=(0.0, 4.0), tau=(100.0,), layers=((0, 2), "all"), descriptions=0)
SAME = {"tau": 100.0, "trigger": "mass", "anchor_share": 0.0, "grid": GRID}
AUTO = ANSWER.model_copy(update={"steer": Steering(alpha="auto", layers="auto", **SAME)})
STAGES = {"base": "base", "tuned": "train"}


def silent(step: int, metrics: Any) -> None:
    """A stage's log that nobody reads."""


def wavering(seed: int) -> Any:
    """A model of which the things in `SAID` that it names hang on where it looks."""
    model, tokenizer = tiny_world.model(seed), tiny_world.processor().tokenizer
    for name, parameter in model.named_parameters():
        if "language" in name and ("o_proj" in name or "v_proj" in name):
            parameter.data.mul_(20.0)
    shape, generator = model.lm_head.weight.shape, torch.Generator().manual_seed(seed)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(torch.randn(shape, generator=generator))
    words = tokenizer.convert_tokens_to_ids(list(SAID))
    model.generation_config.suppress_tokens = [i for i in range(len(tokenizer)) if i not in words]
    return model


def described(root: Path, stage: str, rule: SteerConfig | None) -> pd.DataFrame:
    """What the model of a stage says of the validation pictures under a rule."""
    asked = [row for row in rows("validation") if row.kind == "describe"]
    return Bench(root / stage / "model", "validation", asked, ANSWER).ask(stage, rule).responses


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, and how they answered where alpha and layers are auto.

    What is there on the validation pictures is what the base says of them when it is steered by the
    last rule: that one hallucinates nothing.
    """
    root = written(tmp_path_factory.mktemp("auto"), True)
    for seed, stage in ((3, "base"), (4, "train")):
        save(wavering(seed), tiny_world.processor(), root / stage / "model")
    there = described(root, "base", AUTO.steer.rules[-1]).set_index("id").response
    things = {
        row.id: tuple(
            SceneObject(name=name, colour="red", box=None) for name in {*there[row.id].split()}
        )
        for row in rows("validation")
        if row.kind == "describe"
    }
    known = [
        dataclasses.replace(row, objects=things[row.id])
        for row in rows("validation")
        if row.kind == "describe"
    ]
    write_split(root / "data" / "splits" / "validation.parquet", known)
    (root / "answer").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAPT_STATE", str(root / "state"))
        answer.run(AUTO, root, root / "answer", silent)
    return root


def by_hand(root: Path, said: pd.DataFrame) -> tuple[float, float]:
    """Hal and Cover of descriptions of the validation split, from their words alone."""
    known = read_split(root / "data" / "splits" / "validation.parquet")
    truth = {row.id: {thing.name for thing in row.objects} for row in known}
    words = {row.id: set(row.response.split()) & set(SAID) for row in said.itertuples()}
    wrong = [bool(words[identity] - truth[identity]) for identity in words]
    named = sum(len(words[identity] & truth[identity]) for identity in words)
    return 100 * sum(wrong) / len(words), 100 * named / sum(len(truth[i]) for i in words)


@pytest.mark.parametrize("arm", STAGES)
def test_the_rule_is_the_one_that_a_count_by_hand_chooses(results: Path, arm: str) -> None:
    table = pd.read_csv(results / "answer" / "steering.csv")
    mine = table[table.arm == arm].reset_index(drop=True)
    said = [described(results, STAGES[arm], rule) for rule in (None, *AUTO.steer.rules[1:])]
    counted = [by_hand(results, one) for one in said]
    assert [tuple(row) for row in mine[["hal", "cover"]].to_numpy()] == [
        pytest.approx(one) for one in counted
    ]
    kept = [one for one in counted if one[1] >= counted[0][1] - choosing.KEPT["cover"]]
    lowest = counted.index(min(kept))
    assert mine.chosen.tolist() == [at == lowest for at in range(len(counted))]
    assert set(mine.descriptions) == {IMAGES}
    assert chosen.rules(results / "answer")[arm] == AUTO.steer.rules[lowest]
    if arm == "base":
        assert counted[0][0] > counted[lowest][0] == 0, "the plain answers were worse"


@pytest.mark.parametrize("arm", STAGES)
def test_answers_are_those_of_the_same_numbers_given_by_hand(results: Path, arm: str) -> None:
    rule = chosen.rules(results / "answer")[arm]
    given = Steering(**rule.model_dump(), grid=GRID)
    config = ANSWER.model_copy(update={"steer": given})
    model, splits = results / STAGES[arm] / "model", results / "data" / "splits"
    bench = answer.open_bench(config, model, splits, "test")
    one = chosen.choose(bench, arm, config, Known.of(splits))
    assert (one.rule, one.tried) == (rule, {})
    want = bench.ask(f"{arm}_steered", one.rule)
    for name in ("responses", "tokens"):
        table = pd.read_parquet(results / "answer" / f"{name}.parquet")
        got = table[(table.arm == f"{arm}_steered") & (table.split == "test")]
        columns = [column for column in table if column not in ("heats", "grids")]
        ours = getattr(want, name)[columns].reset_index(drop=True)
        pd.testing.assert_frame_equal(got[columns].reset_index(drop=True), ours, check_exact=True)


def test_what_was_tried_is_kept_and_a_further_rule_costs_its_own_answers(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAPT_STATE", str(results / "state"))
    whole, asked = batches.answer, list[str]()

    def counted(model: Any, processor: Any, images: Any, questions: Any, *more: Any) -> Any:
        asked.extend(questions)
        return whole(model, processor, images, questions, *more)

    monkeypatch.setattr(batches, "answer", counted)
    grid = GRID.model_copy(update={"alpha": (*GRID.alpha, 0.01)})
    more = AUTO.model_copy(update={"steer": AUTO.steer.model_copy(update={"grid": grid})})
    outs = {"again": AUTO, "more": more}
    for name, config in outs.items():
        (tmp_path / name).mkdir()
        asked.clear()
        answer.run(config, results, tmp_path / name, silent)
        tried = len(config.steer.rules) - len(AUTO.steer.rules)
        assert len(asked) == 2 * tried * IMAGES, "two models describe every picture"
    for file in (results / "answer").iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes(), file.name


@pytest.mark.parametrize("arm", STAGES)
def test_without_truth_the_first_rule_is_taken_and_a_line_says_so(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture, arm: str
) -> None:
    model, splits = results / STAGES[arm] / "model", results / "data" / "splits"
    bench = answer.open_bench(AUTO, model, splits, "test")
    known = Known.of(splits)
    unknown = dataclasses.replace(known, rows=[])
    one = chosen.choose(bench, arm, AUTO, unknown)
    assert (one.rule, one.tried) == (AUTO.steer.rules[0], {}) and not one.rule.acts
    said = capsys.readouterr().out
    assert "steer.alpha: auto, but the validation split has no descriptions" in said
    assert f"{arm} is steered with alpha 0," in said
    chosen.write(tmp_path, {arm: one})
    assert chosen.rules(tmp_path) == {arm: one.rule}


def test_the_command_steers_a_model_as_was_chosen_for_its_weights(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(as_params("answer", AUTO)))
    splits = results / "data" / "splits"
    words = ["--benchmark", f"own={splits}", "--out", "own.jsonl", "--steer"]
    assert generation.main([str(results / "base" / "model"), *words]) == 2
    assert "steer.alpha: auto is chosen by stage answer, which has left" in capsys.readouterr().err
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "answer").symlink_to(results / "answer")
    assert generation.main([str(results / "base" / "model"), *words]) == 0
    said = pd.read_json("own.jsonl", lines=True, dtype=False).set_index("id").response.to_dict()
    table = pd.read_parquet(results / "answer" / "responses.parquet")
    ours = table[table.arm == "base_steered"]
    assert said == dict(zip(ours.id, ours.response, strict=True))


def test_weights_that_nothing_was_chosen_for_are_refused(results: Path) -> None:
    known = json.loads((results / "answer" / "models.json").read_text())
    folder = results / "answer"
    rule = chosen.rules(folder)["base"]
    assert chosen.rule_of(known["base"], AUTO.steer, folder) == rule
    assert chosen.rule_of("others", ANSWER.steer, folder) == ANSWER.steer.rules[0]
    with pytest.raises(InputError, match="has no choice for this model"):
        chosen.rule_of("others", AUTO.steer, folder)


def test_rules_are_the_product_of_the_grid_with_one_that_does_nothing() -> None:
    assert [(rule.alpha, rule.layers) for rule in AUTO.steer.rules] == [
        (0.0, (0, 2)),
        *((alpha, layers) for alpha in (4.0,) for layers in ((0, 2), "all")),
    ]
    assert AUTO.steer.auto == ("alpha", "layers") and ANSWER.steer.auto == ()
    (only,) = ANSWER.steer.rules
    assert isinstance(only, SteerConfig) and only.alpha == 2.0
