"""Stage `answer` on two small models: the tables that its module documents, and what they hold."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from adapt.attention.settings import PRELIM, SIGNALS, SIMILARITY, AnchorConfig
from adapt.benchmarks import registry
from adapt.evaluation.judge import judge_split
from adapt.evaluation.settings import Config as EvaluateConfig
from adapt.generation import __main__ as generation
from adapt.generation import batches
from adapt.models.identity import content_key
from adapt.models.load import load_model, load_processor
from adapt.models.prompts import prompt_version
from adapt.params import InputError, as_params
from adapt.stages import answer, evaluate
from tests.stages.conftest import ANSWER, IMAGES, SAID, K, rows
from tests.support import benchmark_folders as made
from tests.support import oracle
from tests.support.benchmark_folders import benchmark
from tests.support.workspace import ROOT

ARMS = ["base", "base_steered", "tuned", "tuned_steered"]
RESPONSES = {"arm", "steered", "split", "id", "image_id", "kind", "question", "reference"}
TOKENS = {"arm", "split", "id", "image_id", "position", "relative", "length", "end", "fired"}
QUESTIONS = IMAGES + 3  # a description of every image, and three questions about the first one


@pytest.fixture
def folder(answered: Callable[[bool], Path]) -> Path:
    return answered(True) / "answer"


def tables(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    names = ("responses", "tokens", "traces")
    responses, tokens, traces = (pd.read_parquet(folder / f"{name}.parquet") for name in names)
    return responses, tokens, traces


def test_every_file_with_the_documented_columns(folder: Path) -> None:
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["answer"]
    names = {Path(next(iter(out))).name for out in stage["outs"]}
    assert {path.name for path in folder.iterdir()} == names
    responses, tokens, traces = tables(folder)
    assert set(responses) == RESPONSES | {"response", "tokens", "heats", "grids"}
    assert set(tokens) == TOKENS | {*SIGNALS, "svar", "logprob", *PRELIM, *SIMILARITY}
    assert set(traces) == {"id", "position", "heats"}
    assert not tokens.isna().any().any()


def test_every_arm_answers_every_question(folder: Path) -> None:
    responses, tokens, _ = tables(folder)
    test, validation = (responses[responses.split == name] for name in ("test", "validation"))
    assert test.arm.unique().tolist() == ARMS and len(test) == len(ARMS) * QUESTIONS
    assert (test.groupby("arm").id.nunique() == QUESTIONS).all()
    assert len(validation) == 2 * IMAGES and set(validation.arm) == {"base", "tuned"}
    assert set(validation.kind) == {"describe"} and not validation.steered.any()
    assert (responses.steered == responses.arm.str.endswith("_steered")).all()
    describe = responses[responses.kind == "describe"].set_index(["split", "arm", "id"])
    lengths = tokens.groupby(["split", "arm", "id"]).size()
    assert lengths.sort_index().equals(describe.tokens.sort_index().rename(None))
    assert (
        tokens.length == tokens.groupby(["split", "arm", "id"]).position.transform("size")
    ).all()


def test_traces_are_those_of_the_longest_descriptions(folder: Path) -> None:
    responses, _, traces = tables(folder)
    plain = responses[(responses.arm == "base") & (responses.split == "test")]
    describe = plain[plain.kind == "describe"]
    longest = describe.sort_values(["tokens", "id"], ascending=[False, True]).head(3)
    assert traces.id.unique().tolist() == longest.id.tolist()
    assert traces.groupby("id").size()[longest.id].tolist() == longest.tokens.tolist()
    for row in longest.itertuples():
        heat = [picture for (picture,) in traces[traces.id == row.id].heats]
        assert sum(heat) / len(heat) == pytest.approx(row.heats[0], abs=1e-6)
        assert [rows * columns for rows, columns in row.grids] == [len(row.heats[0])]


def test_steered_arms_differ_only_after_the_anchor(folder: Path) -> None:
    _, tokens, _ = tables(folder)
    by_arm = {
        arm: part.reset_index() for arm, part in tokens[tokens.split == "test"].groupby("arm")
    }
    for plain, steered in (("base", "base_steered"), ("tuned", "tuned_steered")):
        before, after = by_arm[plain], by_arm[steered]
        assert before.fired.eq(0).all() and after.fired[after.position < K].eq(0).all()
        # A floor that nothing reaches: it fires in the two steered layers of three, and always.
        assert after.fired[after.position >= K].sub(2 / 3).abs().lt(1e-6).all()
        first = [part[part.position < K].set_index(["id", "position"]) for part in (before, after)]
        values = ["mass", "focus", "responsiveness", "svar", "logprob", "end", *PRELIM, *SIMILARITY]
        pd.testing.assert_frame_equal(first[0][values], first[1][values])
        later = [part[part.position == K].set_index("id").mass for part in (before, after)]
        assert not later[0].equals(later[1])


def test_models_are_named_by_their_weights(folder: Path) -> None:
    names = json.loads((folder / "models.json").read_text())
    for arm, stage in (("base", "base"), ("tuned", "train")):
        source = folder.parent / stage / "model"
        assert names[arm] == content_key(load_model(source), {})
        assert names[f"{arm}_prompt"] == prompt_version(load_processor(source))
    assert names["base"] != names["tuned"]


def test_evaluate_over_them_equals_a_hand_count(folder: Path, tmp_path: Path) -> None:
    anchor = AnchorConfig(anchor_tokens=K, noise_images=2)
    config = EvaluateConfig(bootstrap=20, panels=1, anchor=anchor, seed=7)
    metrics = evaluate.run(config, folder.parent, tmp_path, lambda step, values: None)
    responses, _, _ = tables(folder)
    truth = {row.id: {thing.name for thing in row.objects} for row in rows("test")}
    for arm in ARMS:
        chosen = responses[(responses.arm == arm) & (responses.split == "test")]
        describe = chosen[chosen.kind == "describe"]
        words = [[w for w in text.split() if w in SAID] for text in describe.response]
        absent = [
            [word for word in answer if word not in truth[identity]]
            for answer, identity in zip(words, describe.id, strict=True)
        ]
        share = 100 * sum(map(len, absent)) / sum(map(len, words))
        assert metrics[f"{arm}/chair_i"] == pytest.approx(share)
        assert metrics[f"{arm}/hal"] == pytest.approx(100 * sum(map(bool, absent)) / IMAGES)
        assert metrics[f"{arm}/length"] == pytest.approx(describe.tokens.mean())


def test_benchmarks_are_asked_of_every_arm_and_go_on(
    answered: Callable[[bool], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A description and questions of AMBER's form, a limit of the split's own; stopped once."""
    oracle.use_nltk_data(monkeypatch)
    root = answered(True)
    made.amber(tmp_path / "AMBER")
    settings = benchmark("amber", tmp_path / "AMBER", label="mine", max_new_tokens=4)
    config = ANSWER.model_copy(update={"questions": 3, "benchmarks": (settings,)})
    monkeypatch.setenv("ADAPT_STATE", str(tmp_path / "state"))
    whole, left = batches.answer, [5]

    def answer_or_stop(*asked: Any, **more: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return whole(*asked, **more)

    monkeypatch.setattr(batches, "answer", answer_or_stop)
    outs = [tmp_path / name for name in ("cut", "out", "again")]
    for out in outs:
        out.mkdir()
    with pytest.raises(KeyboardInterrupt):
        answer.run(config, root, outs[0], lambda step, values: None)
    for out in outs[1:]:
        answer.run(config, root, out, lambda step, values: None)
    answers = pd.read_parquet(outs[1] / "benchmarks.parquet")
    assert answers.arm.unique().tolist() == ARMS and set(answers.benchmark) == {"mine"}
    assert answers.groupby("arm").id.apply(list).tolist() == [list("12345")] * len(ARMS)
    assert (answers.heats.notna() == (answers.kind == "describe")).all()
    signals = pd.read_parquet(outs[1] / "benchmark_tokens.parquet")
    assert set(signals.benchmark) == {"mine"} and set(signals.id) == {"1", "2"}
    read = json.loads((outs[1] / "benchmarks.json").read_text())["mine"]
    assert (read["questions"], read["pictures"], read["settings"]["name"]) == (5, 2, "amber")
    asked = pd.read_parquet(outs[1] / "responses.parquet")
    assert set(asked.groupby(["split", "arm"]).size()) == {3}
    for file in outs[1].iterdir():
        assert file.read_bytes() == (outs[2] / file.name).read_bytes(), file.name


def test_a_benchmark_that_cannot_be_scored_stops_before_any_model(tmp_path: Path) -> None:
    settings = benchmark("mmhal", made.mmhal(tmp_path))
    config = ANSWER.model_copy(update={"benchmarks": (settings,)})
    with pytest.raises(InputError, match="mmhal: nobody judges the answers; add judge"):
        answer.run(config, tmp_path / "nothing", tmp_path, lambda step, values: None)


@pytest.mark.parametrize(("stage", "arm"), [("base", "base"), ("train", "tuned_steered")])
def test_the_command_answers_a_split_as_the_pipeline_does(
    answered: Callable[[bool], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    arm: str,
) -> None:
    """`own`: the same words, and from them the figures that the pipeline judges."""
    root, splits = answered(True), answered(True) / "data" / "splits"
    monkeypatch.chdir(tmp_path)
    params = as_params("answer", ANSWER)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    words = [str(root / stage / "model"), "--benchmark", f"own={splits}", "--out", "own.jsonl"]
    assert generation.main([*words, *(["--steer"] if "steered" in arm else [])]) == 0
    written = pd.read_json(tmp_path / "own.jsonl", lines=True, dtype=False).set_index("id")
    responses, tokens, _ = tables(root / "answer")
    ours = [t[(t.arm == arm) & (t.split == "test")] for t in (responses, tokens)]
    assert written.response.to_dict() == dict(zip(ours[0].id, ours[0].response, strict=True))
    judged = judge_split(*ours, splits, "test", K).metrics
    scored = registry.score(benchmark("own", splits), written.response.to_dict())
    shared = {name: judged[name] for name in scored.metrics if name in judged and name != "length"}
    assert {"chair_i", "hal", "cover", "pope_f1", "colour_accuracy"} <= set(shared)
    assert shared == {name: scored.metrics[name] for name in shared}
