"""The tables of a bench against the answers that they are made from."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adapt.attention.settings import MEASURES, PLACES, PRELIM, SIMILARITY, AnchorConfig
from adapt.attention.signals import visual_mass
from adapt.data import scenes
from adapt.generation import batches as batching
from adapt.generation.answer import Decoding, answer
from adapt.generation.bench import Bench, Tables
from adapt.generation.said import Listener, svar
from adapt.generation.settings import Config, SteerConfig, SteerGrid, Steering
from adapt.generation.written import token_ends
from adapt.models.load import save
from adapt.params import InputError
from tests.support import tiny_world

STEER = SteerConfig(alpha=0.5, tau=0.9, trigger="amc", anchor_share=1.0, layers="all")
GRID = SteerGrid(alpha=(0.0,), tau=(0.9,), layers=("all",), descriptions=0)
CONFIG = Config(
    batch=2,
    actors=0,
    actor_cpus=1,
    traces=1,
    questions=0,
    benchmarks=(),
    anchor=AnchorConfig(anchor_tokens=3, noise_images=2),
    steer=Steering(**STEER.model_dump(), grid=GRID),
    device="cpu",
    max_new_tokens=9,
    seed=0,
)
IMAGES = [[tiny_world.picture(0)], [tiny_world.picture(1)]]
WORDS = ("a red car, a blue house", "no, there is no car.")
ROWS = [e for i in range(2) for e in scenes.examples("test", i, size=32, caption_noise=0, seed=7)]
DESCRIBE = [row for row in ROWS if row.kind == "describe"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    save(tiny_world.model(), tiny_world.processor(), path)
    return path


def answers():
    """As generated, but with words that one can read: an untrained model says nothing."""
    model, processor = tiny_world.model(), tiny_world.processor()
    decoding = Decoding(anchor_tokens=3, max_new_tokens=9, similarity=True)
    generated = answer(model, processor, IMAGES, tiny_world.QUESTIONS, decoding)
    tokenizer = processor.tokenizer
    padded = tokenizer(
        [text + tokenizer.eos_token for text in WORDS],
        add_special_tokens=False,
        return_tensors="pt",
        padding="max_length",
        max_length=9,
        padding_side="right",
    )["input_ids"]
    is_ended = (padded == tokenizer.eos_token_id).cumsum(1) > 0
    return dataclasses.replace(generated, texts=list(WORDS), tokens_BT=padded, mask_BT=~is_ended)


def test_a_row_per_token_with_what_was_recorded():
    generated = answers()
    listener = Listener(tiny_world.model(), tiny_world.processor(), anchor_tokens=3)
    columns = listener.columns(generated)
    rows = pd.concat([pd.DataFrame({"id": i, **of}) for i, of in enumerate(columns)])
    lengths = generated.mask_BT.sum(1).tolist()
    assert lengths == [7, 7] and not rows.isna().any().any()
    assert rows.groupby("id").size().tolist() == lengths
    recorded = {"logprob": generated.logprob_BT, "svar": svar(generated.mass_BTL)}
    recorded |= {"pas": generated.prelim_BTL[:, :, 0], "prelim": generated.prelim_BTL.mean(2)}
    for p, place in enumerate(PLACES):
        for m, measure in enumerate(MEASURES):
            recorded[f"{measure}_{place}"] = generated.similarity_BTPM[:, :, p, m]
    assert set(recorded) == {"logprob", "svar", *PRELIM, *SIMILARITY}
    for column, values in recorded.items():
        want = np.concatenate([values[b, :n].numpy() for b, n in enumerate(lengths)])
        np.testing.assert_allclose(rows[column], want)
    assert rows.logprob.le(0).all() and rows.fired.eq(0).all()
    for (_, part), text in zip(rows.groupby("id", sort=False), WORDS, strict=True):
        assert part.relative.iloc[0] == 0 and part.relative.iloc[-1] == 1
        assert part.position.tolist() == list(range(len(part)))
        assert part.length.eq(len(part)).all() and part.end.iloc[-1] == len(text)


def test_where_tokens_end():
    tokenizer = tiny_world.processor().tokenizer
    tokens = tokenizer("a red car, a", add_special_tokens=False)["input_ids"]
    assert token_ends(tokenizer, tokens) == [1, 5, 9, 10, 12]


def test_answers_and_their_order(folder):
    tables = Bench(folder, "test", ROWS[::-1], CONFIG).ask("base", None, traces=1)
    assert tables.responses.id.tolist() == sorted(
        row.id for row in ROWS if row.kind == "describe"
    ) + [
        row.id
        for kind in ("exists", "colour")
        for row in sorted(ROWS, key=lambda row: row.id)
        if row.kind == kind
    ]
    assert [[len(one) for one in heats] for heats in tables.responses.heats] == [[16]] * len(ROWS)
    assert all(np.array_equal(np.stack(grids), [[4, 4]]) for grids in tables.responses.grids)
    assert all(len(heat) == 16 for (heat,) in tables.traces.heats)
    assert set(tables.tokens.id) <= {row.id for row in DESCRIBE}


def test_a_split_without_questions_is_refused(folder):
    with pytest.raises(InputError, match="test: there is no question to ask"):
        Bench(folder, "test", [], CONFIG)


def test_a_split_without_descriptions_has_empty_tables_of_the_same_types(folder):
    asked = [row for row in ROWS if row.kind != "describe"]
    tables = Bench(folder, "test", asked, CONFIG).ask("base", None, traces=1)
    whole = Bench(folder, "test", ROWS, CONFIG).ask("base", None)
    assert len(tables.responses) == len(asked) and not len(tables.traces)
    assert not len(tables.tokens) and list(tables.tokens) == list(whole.tokens)
    assert tables.tokens.dtypes.to_dict() == whole.tokens.dtypes.to_dict()


def test_other_questions_have_tokens_and_no_traces(folder):
    asked = [dataclasses.replace(row, kind="other") for row in ROWS if row.kind != "exists"]
    tables = Bench(folder, "test", asked, CONFIG).ask("base", None, traces=1)
    assert set(tables.tokens.id) == {row.id for row in asked} and not len(tables.traces)


def test_each_kind_has_its_longest_answer(folder):
    longest = {"describe": 3, "exists": 1}
    tables = Bench(folder, "test", ROWS, CONFIG, longest=longest).ask("base", None)
    tokens = tables.responses.groupby("kind").tokens.max().to_dict()
    assert tokens == {"describe": 3, "exists": 1, "colour": 9}


class Stopped(Exception):
    pass


def stopping(monkeypatch, batches: int) -> list[str]:
    """Let generation stop behind so many batches; what is asked goes into the list."""
    asked, left = list[str](), [batches]
    whole = batching.answer

    def answer_or_stop(model, processor, images, questions, decoding, ids=None, *more, **most):
        if decoding.debias is not None:  # not the noise that masks are estimated from
            if not left[0]:
                raise Stopped
            left[0] -= 1
            asked.extend(ids)
        return whole(model, processor, images, questions, decoding, ids, *more, **most)

    monkeypatch.setattr(batching, "answer", answer_or_stop)
    return asked


@pytest.mark.parametrize(("steer", "batches"), [(None, 1), (STEER, 3)])
def test_an_interrupted_run_goes_on_and_gives_the_same(folder, tmp_path, steer, batches):
    rows = [
        e for i in range(4) for e in scenes.examples("test", i, size=32, caption_noise=0, seed=7)
    ]
    want = Bench(folder, "test", rows, CONFIG).ask("base", steer, traces=2)
    with pytest.MonkeyPatch.context() as patch:
        first = stopping(patch, batches)
        with pytest.raises(Stopped):
            Bench(folder, "test", rows, CONFIG, tmp_path).ask("base", steer, traces=2)
    with pytest.MonkeyPatch.context() as patch:
        second = stopping(patch, 1000)
        got = Bench(folder, "test", rows, CONFIG, tmp_path).ask("base", steer, traces=2)
    assert len(first) == 2 * batches and sorted(first + second) == sorted(row.id for row in rows)
    written(want, tmp_path / "want")
    written(got, tmp_path / "got")
    for file in (tmp_path / "want").iterdir():
        assert file.read_bytes() == (tmp_path / "got" / file.name).read_bytes(), file.name


def written(tables: Tables, folder: Path) -> None:
    folder.mkdir()
    tables.write(folder)


def test_what_an_answer_depends_on_is_asked_again(folder, tmp_path, monkeypatch):
    def asked(config: Config = CONFIG, steer: SteerConfig | None = None, **more) -> int:
        with pytest.MonkeyPatch.context() as patch:
            questions = stopping(patch, 1000)
            Bench(folder, "test", ROWS, config, tmp_path, **more).ask("base", steer)
        return len(questions)

    every = len(ROWS)
    assert [asked(), asked()] == [every, 0]
    assert asked(CONFIG.model_copy(update={"batch": 3, "traces": 0})) == 0, "changes no answer"
    assert asked(steer=STEER) == every
    assert asked(CONFIG.model_copy(update={"max_new_tokens": 5})) == every
    assert asked(longest={"describe": 5}) == 0, "those that are kept are as long"
    assert asked(CONFIG.model_copy(update={"seed": 1})) == every, "other noise, other masks"


def test_longer_descriptions_than_those_kept_are_traced(folder, tmp_path):
    """A run that traces none keeps no maps: the next one makes those that it needs."""
    Bench(folder, "test", ROWS, CONFIG, tmp_path).ask("base", None, traces=0)
    got = Bench(folder, "test", ROWS, CONFIG, tmp_path).ask("base", None, traces=2).traces
    want = Bench(folder, "test", ROWS, CONFIG).ask("base", None, traces=2).traces
    assert got[["id", "position"]].equals(want[["id", "position"]])
    for ours, theirs in zip(got.heats, want.heats, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


@given(st.integers(1, 40))
def test_the_middle_third_has_at_least_one_layer_and_is_in_the_middle(L):
    """The mass of layer l is l: SVAR is the mean of the layers taken, or the middle one."""
    mass = torch.arange(L, dtype=torch.float)[None, None]
    assert svar(mass).item() == pytest.approx((L - 1) / 2, abs=1e-4)
    assert visual_mass(mass).item() == pytest.approx((L - 1) / 2, abs=1e-4)


def test_few_layers_by_hand():
    masses = torch.tensor([0.1, 0.2, 0.3, 0.6, 0.7, 0.8])[None, None]
    assert svar(masses).item() == pytest.approx(0.45)  # layers 2 and 3 of 6
    assert svar(masses[:, :, :1]).item() == pytest.approx(0.1)
