"""Targets of a batch: the step is the one that produces the mention, the target that of its boxes;
and the loss is that of eager attention at that step.
"""

import statistics
from functools import cache
from typing import Any

import pytest
import torch

from adapt.attention.layout import layout_of
from adapt.attention.places import places_of
from adapt.data.schema import SceneObject, Vocabulary
from adapt.models.continued import response_rows
from adapt.models.prompts import encode
from adapt.pairs.mentioned import mentioned
from adapt.pairs.record import PairPlace
from adapt.params import InputError
from adapt.preference.boxes import box_target
from adapt.preference.collate import IDS, OURS, part
from adapt.preference.targets import PRODUCERS, TARGETS
from adapt.preference.trainer import Weights
from tests.support import tiny_world
from tests.support.families import CASES, built, mixed
from tests.support.preference_rows import (
    NONE,
    adapt_trainer,
    batch_of,
    box_targets,
    changed,
    collator,
    data_of,
    loss_of,
    pairs,
    perturbed,
    png,
)
from tests.support.preferences import WORDS

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
LEFT, RIGHT = (0.0, 0.25, 0.5, 0.5), (0.75, 0.0, 1.0, 0.25)
CAR = SceneObject(name="car", colour="red", box=LEFT)
HOUSE = SceneObject(name="house", colour="", box=RIGHT)
TREE = SceneObject(name="tree", colour="green", box=None)


def placed(count: int) -> list[Any]:
    """Pairs whose first answers say where a car and a house are, and those between nothing."""
    return [
        changed(
            pair, places=mentioned(pair.chosen, (CAR, HOUSE, TREE), WORDS) if i % 2 == 0 else ()
        )
        for i, pair in enumerate(pairs(count))
    ]


# ---- mentions ------------------------------------------------------------------------------------


def test_a_mention_has_the_boxes_of_all_things_of_its_name():
    other = SceneObject(name="car", colour="blue", box=RIGHT)
    words = Vocabulary(objects={"car": ("cars",)}, colours=("red",))
    (place,) = mentioned("Two cars .", (CAR, other), words)
    assert place == PairPlace(start=4, end=8, image=0, boxes=(LEFT, RIGHT))


def test_a_colour_before_it_says_which():
    other = SceneObject(name="car", colour="blue", box=RIGHT)
    for said, boxes in (("red", (LEFT,)), ("Blue", (RIGHT,)), ("green", (LEFT, RIGHT))):
        (place,) = mentioned(f"a {said} car.", (CAR, other), WORDS)
        assert place.boxes == boxes


def test_nobody_knows_where_is_not_nowhere():
    assert mentioned("a tree.", (TREE,), WORDS) == ()
    (place,) = mentioned("a house.", (TREE,), WORDS)
    assert place.boxes == ()
    assert mentioned("a car.", None, WORDS) == mentioned("a car.", (CAR,), None) == ()
    assert mentioned("yes", (CAR,), WORDS) == ()


def normal(*ranges: tuple[float, float]) -> list[float]:
    """How much of a Gaussian lies in each range of deviations."""
    below = statistics.NormalDist().cdf
    return [below(high) - below(low) for low, high in ranges]


# ---- targets -------------------------------------------------------------------------------------


def test_targets_by_hand():
    batch = collator(aim=box_targets())([dict(row) for row in data_of(placed(2))])
    ids, producers, targets = batch["input_ids"], batch[PRODUCERS], batch[TARGETS]
    assert producers.shape == (2, 2) and targets.shape == (2, 2, 16)
    words = tiny_world.processor().tokenizer.convert_ids_to_tokens(ids[0, producers[0] + 1])
    assert words == ["car", "house"], "the answer's, which has no box of the tree"
    # Of the car's rows and columns one deviation is its own; places are measured to 1 / 255.
    grid, (own, above, below) = targets[0, 0].view(4, 4), normal((-1, 1), (-3, -1), (1, 3))
    seen = own + above + below
    rows = [above / seen, own / seen, below / seen]
    assert grid.sum(1)[:3].tolist() == pytest.approx(rows, abs=1e-2)
    assert grid.sum(0)[:2].sum() == pytest.approx(own / (own + below), abs=1e-2)
    assert targets[0, 1].argmax() == 3
    assert producers[1].tolist() == [-1, -1] and not targets[1].any()
    assert {PRODUCERS, TARGETS} <= {*OURS} and not {PRODUCERS, TARGETS} & {*part(batch, False)}


def test_without_boxes_a_batch_has_no_targets():
    rows = [dict(row) for row in data_of(placed(2))]
    plain, aimed = collator()(rows), collator(aim=box_targets())(rows)
    assert aimed.keys() - plain.keys() == {PRODUCERS, TARGETS}
    for key in plain.keys() - {IDS}:
        assert plain[key].equal(aimed[key])


def test_what_both_answers_begin_with_is_not_supervised():
    """The car stands in it; the house is behind it, at the place where it is without a prefix."""
    (row, *_), aim = data_of(placed(2)), box_targets()
    begun = {**row, "rejected": "a red car, a tree.", "prefix": "a red car,"}
    whole, partly = collator(aim=aim)([{**row}]), collator(aim=aim)([begun])
    assert whole[PRODUCERS].equal(partly[PRODUCERS]) and whole[TARGETS].equal(partly[TARGETS])
    for batch, trained in ((whole, [True, True]), (partly, [False, True])):
        rows = response_rows(batch["completion_mask"])[0].tolist()
        assert [int(one) in rows for one in batch[PRODUCERS][0]] == trained


@cache
def family_rows(name: str) -> list[dict[str, Any]]:
    """Pictures of three sizes, two in one prompt."""
    model, processor = built(name)
    pictures = mixed(name)
    layout = layout_of(model, encode(processor, pictures, ["is it?"] * len(pictures)))
    made = []
    for i, count in enumerate(layout.counts_B.tolist()):
        row = {"id": str(i), "images": [png(one) for one in pictures[i]], "question": "is it?"}
        row |= {"chosen": "a red house and a house.", "rejected": "a red tree."}
        places = mentioned(row["chosen"], (HOUSE,), WORDS)[: 2 - i % 2]
        row |= {"anchor": [1 / count] * count, "support": [b"\x01\x02"], "places": places}
        made.append(row)
    return made


@pytest.mark.parametrize("name", CASES)
def test_every_family_has_steps_and_targets(name):
    """The first token behind the producing one begins the word; targets are those of one row."""
    model, processor = built(name)
    rows = family_rows(name)
    batch = collator(processor, model, guide=False, aim=box_targets(processor, model))(rows)
    assert batch[TARGETS].shape == (len(rows), 2, batch["anchor"].shape[1])
    layout = layout_of(model, batch | {"input_ids": batch["input_ids"][: len(rows)]})
    for i, row in enumerate(rows):
        sizes = [picture.size for picture in mixed(name)[i]]
        where = (layout.of(i), places_of(model.config, processor, sizes), len(row["anchor"]))
        want = box_target([RIGHT], 0, *where)
        assert want is not None
        for m, place in enumerate(row["places"]):
            first = int(batch[PRODUCERS][i, m]) + 1
            assert batch["completion_mask"][i, first] == 1
            begun = row["chosen"][: place.start].rstrip()
            rest = processor.tokenizer.decode(batch["input_ids"][i, first:]).lstrip()
            whole = processor.tokenizer.decode(
                processor.tokenizer(row["chosen"], add_special_tokens=False)["input_ids"]
            )
            assert rest.startswith("house") and whole.startswith(begun)
            torch.testing.assert_close(batch[TARGETS][i, m, : len(want)], want)
            assert not batch[TARGETS][i, m, len(want) :].any()
        assert (batch[PRODUCERS][i, len(row["places"]) :] == -1).all()


def test_a_tokenizer_that_knows_no_characters(monkeypatch):
    rows, aim = [dict(row) for row in data_of(placed(2))], box_targets()
    monkeypatch.setattr(type(tiny_world.processor().tokenizer), "is_fast", False)
    with pytest.raises(InputError, match="does not say which characters its tokens stand for"):
        collator(aim=aim)(rows)


# ---- the loss ------------------------------------------------------------------------------------


def eager_maps(base: str, batch: dict[str, Any]) -> torch.Tensor:
    """[L, B, S, S] of the chosen answers, mean over heads."""
    model = perturbed(base)
    model.set_attn_implementation("eager")
    half = {k: batch[k][: len(batch[IDS])] for k in ("input_ids", "attention_mask", "pixel_values")}
    with torch.no_grad():
        return torch.stack(model(**half, output_attentions=True).attentions).mean(2)


@pytest.mark.parametrize("target", ["boxes", "anchor"])
def test_the_loss_is_that_of_eager_attention(base, tmp_path, target):
    weights = Weights(**{**NONE, "dpo": 1e-9, "attn": 1.0})
    trainer = adapt_trainer(base, tmp_path, weights, data=data_of(placed(4)), attn_target=target)
    batch = batch_of(trainer)
    maps, image = eager_maps(base, batch), tiny_world.model().config.image_token_id
    losses = []
    for i in range(4):
        columns = batch["input_ids"][i] == image
        if target == "boxes":
            asked = [(int(row), batch[TARGETS][i, m]) for m, row in enumerate(batch[PRODUCERS][i])]
            asked = [(row, aim) for row, aim in asked if row >= 0]
        else:
            producing = batch["completion_mask"][i, 1:].nonzero()[:, 0].tolist()
            asked = [(row, batch["anchor"][i] / batch["anchor"][i].sum()) for row in producing]
        kls = []
        for row, aim in asked:
            for layer in maps[:, i]:
                a_hat = layer[row][columns] / layer[row][columns].sum()
                kls.append(sum(p * (p / q).log() for p, q in zip(aim, a_hat, strict=True) if p > 0))
        losses.append(sum(kls) / len(kls) if kls else 0.0)
    loss_of(trainer)
    metrics = trainer._metrics["train"]
    assert metrics["attn/kl"][-1] == pytest.approx(float(sum(losses) / 4), rel=1e-4)
    kl, mass = metrics["attn/kl"][-1], metrics["attn/mass"][-1]
    assert metrics["attn/loss"][-1] == pytest.approx(kl + mass, rel=1e-5)
    assert metrics["attn/placed"][-1] == 1


def test_early_is_what_it_was_and_boxes_change_nothing_with_weight_0(base, tmp_path):
    early = Weights(vag=1.0, dpo=0.5, sft=1.0, attn=0.1)
    plain = loss_of(adapt_trainer(base, tmp_path, early, data=data_of(pairs(4))))
    same = adapt_trainer(base, tmp_path, early, data=data_of(placed(4)), attn_target="early")
    assert loss_of(same).equal(plain)
    without = Weights(vag=1.0, dpo=0.5, sft=1.0)
    plain = loss_of(adapt_trainer(base, tmp_path, without))
    same = adapt_trainer(base, tmp_path, without, data=data_of(placed(4)), attn_target="boxes")
    assert loss_of(same).equal(plain)


def test_supervision_by_boxes_pulls_attention_onto_the_things(base, tmp_path):
    weights = Weights(**{**NONE, "attn": 1.0})
    trainer = adapt_trainer(base, tmp_path, weights, data=data_of(placed(4)), attn_target="boxes")
    optimizer = torch.optim.SGD(trainer.model.parameters(), lr=0.05)
    for _ in range(8):
        loss_of(trainer).backward()
        optimizer.step()
        optimizer.zero_grad()
    found = trainer._metrics["train"]["attn/kl"]
    assert found[-1] < 0.9 * found[0]
