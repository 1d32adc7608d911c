"""Every family trains: pictures of several sizes, two in a row, and both answers behind one prompt
what they are behind one each.
"""

import copy
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import Tensor
from trl.trainer.utils import add_fused_lm_head

from adapt.attention.layout import layout_of
from adapt.attention.support import SIDE
from adapt.data.schema import Example
from adapt.models.prompts import encode, end_tokens
from adapt.models.roles import role_of_parameters
from adapt.preference import prefix
from adapt.preference.collate import part
from adapt.preference.dataset import FEATURES
from adapt.preference.distillation import answer_logits
from adapt.preference.reference import ReferenceCache
from adapt.preference.rehearsal import PlainCollator
from adapt.preference.trainer import AdaptTrainer, Weights
from tests.support.families import ANSWER, CASES, QUESTIONS, built, mixed
from tests.support.preference_rows import collator, config, png

APART = {"gemma3", "paligemma"}  # the tokens of their pictures see each other

KEYS = ("id", "images", "question")
ASKED = ("is <image> there a red car? <image>", *QUESTIONS, QUESTIONS[0])


@cache
def rows(name: str) -> list[dict[str, Any]]:
    """Pictures of three sizes, two in one prompt, and answers of several lengths."""
    model, processor = built(name)
    pictures = mixed(name)
    layout = layout_of(model, encode(processor, pictures, ASKED))
    generator, words = np.random.default_rng(0), ANSWER.split()
    made = []
    for i, count in enumerate(layout.counts_B.tolist()):
        anchor = generator.random(count)
        maps = generator.integers(0, 256, (len(pictures[i]), SIDE, SIDE), dtype=np.uint8)
        row = {"id": f"row-{i}", "images": [png(one) for one in pictures[i]]}
        row |= {"question": ASKED[i], "chosen": " ".join(words[: 5 + 2 * i])}
        row |= {"rejected": " ".join(words[-9 + 3 * i :])}
        row |= {"anchor": (anchor / anchor.sum()).tolist(), "support": [m.tobytes() for m in maps]}
        made.append(row)
    return made


def fresh(name: str) -> Any:
    """The family's model, with TRL's head."""
    model = copy.deepcopy(built(name)[0])
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    return model


@pytest.mark.parametrize("name", CASES)
def test_a_step_of_the_whole_loss(name, tmp_path, capsys):
    model, processor = copy.deepcopy(built(name)[0]), built(name)[1]
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    options = {"per_device_train_batch_size": 4, "learning_rate": 1e-2, "save_strategy": "no"}
    ours = AdaptTrainer(
        model=model,
        args=config(tmp_path, **options),
        data_collator=collator(processor, model),
        weights=Weights(vag=1.0, dpo=0.5, sft=1.0, attn=0.1),
        anchor_tokens=2,
        train_dataset=Dataset.from_list(rows(name), features=FEATURES),
        processing_class=processor,
        attn_layers="all",
        cache=ReferenceCache(uri=str(tmp_path / "reference"), base=name),
    )
    assert 0 < ours.train().training_loss < 1e3
    roles, now = role_of_parameters(model), model.named_parameters()
    moved = {roles[key] for key, value in now if not value.equal(before[key])}
    assert {"decoder", "projector"} <= moved
    said = "the tokens of a picture see each other" in capsys.readouterr().err
    assert said == (name in APART)


def outputs(way: Any, model: Any, batch: dict[str, Any]) -> Any:
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    inputs = {key: value for key, value in batch.items() if key != "completion_mask"}
    return way(model, **inputs, labels=labels, use_cache=False, fused_lm_head=True)


def batch_of(name: str, model: Any, made: list[dict[str, Any]]) -> dict[str, Any]:
    return part(collator(built(name)[1], model, guide=False)(made), guided=False)


@pytest.mark.parametrize("name", CASES)
def test_the_loss_is_of_the_models_own_logits(name):
    model = fresh(name)
    batch = batch_of(name, model, rows(name))
    inputs = {key: value for key, value in batch.items() if key != "completion_mask"}
    with torch.no_grad():
        found = outputs(prefix.apart_forward, model, batch).log_probs
        logits = prefix.apart_forward(model, **inputs, use_cache=False).logits[:, :-1]
    own = logits.log_softmax(-1).gather(-1, batch["input_ids"][:, 1:, None])[:, :, 0]
    is_answer = batch["completion_mask"][:, 1:] > 0
    torch.testing.assert_close(found[is_answer], own[is_answer], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_plain_rows_together_are_what_each_is_alone(name):
    """The logits that produce answers, of prompts and answers of several lengths."""
    model, facts = fresh(name), {"kind": "other", "history": (), "objects": None, "absent": None}
    collate = PlainCollator(
        processor=built(name)[1], ends=end_tokens(built(name)[0], built(name)[1])
    )
    made = [
        Example(
            **facts, image_id=row["id"], answer=row["chosen"], **{key: row[key] for key in KEYS}
        )
        for row in rows(name)
    ]
    with torch.no_grad():
        together, alone = answer_logits(model, collate(made)), []
        for row in made:
            batch = collate([row])
            (answer,) = (batch.pop("completion_mask") > 0).roll(-1, 1)
            alone.append(model(**batch, use_cache=False).logits[0, answer])
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_without_noise_the_same_text_is_the_plain_one_twice(name):
    model = fresh(name)
    batch = collator(built(name)[1], model, form="same_text", noise=0.0)(rows(name))
    with torch.no_grad():
        plain = outputs(prefix.apart_forward, model, part(batch, guided=False)).log_probs
        guided = outputs(lambda called, **inputs: called(**inputs), model, part(batch, guided=True))
    chosen = plain.sum(1).chunk(2)[0]
    torch.testing.assert_close(
        guided.log_probs.sum(1), torch.cat([chosen, chosen]), atol=1e-4, rtol=1e-5
    )


@pytest.mark.parametrize("name", sorted(CASES.keys() - APART))
def test_shared_prompts_change_nothing(name):
    model = fresh(name)
    batch = batch_of(name, model, rows(name))
    assert prefix.cannot_share(model, batch) is None
    seen: list[tuple[Any, dict[str, Tensor]]] = []
    for way in (prefix.pair_forward, prefix.apart_forward):
        model.zero_grad()
        found = outputs(way, model, batch)
        found.log_probs.sum().backward()
        gradients = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
        seen.append((found, {key: value.clone() for key, value in gradients.items()}))
    (shared, got), (apart, expected) = seen
    for field in ("log_probs", "entropy"):
        torch.testing.assert_close(shared[field], apart[field], atol=1e-5, rtol=1e-6)
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        largest = max(1.0, value.abs().max().item())
        torch.testing.assert_close(got[key], value, atol=1e-5 * largest, rtol=1e-4, msg=key)


@pytest.mark.parametrize("name", CASES)
def test_what_both_answers_begin_with_is_the_prompts(name):
    """Behind a shared prefix the same likelihoods, in one sequence or in two; before it none."""
    model, made = fresh(name), []
    for row, begun in zip(rows(name), ["a red car,", "a red", "", "a red car,"], strict=True):
        sides = {side: f"{begun} {row[side]}".strip() for side in ("chosen", "rejected")}
        made.append({**row, **sides, "prefix": begun})
    batch = batch_of(name, model, made)
    whole = batch_of(name, model, [{**row, "prefix": ""} for row in made])
    gone = whole["completion_mask"] - batch["completion_mask"]
    assert (gone.sum(1) > 0).tolist() == [True, True, False, True] * 2
    ways = [prefix.apart_forward] + ([] if name in APART else [prefix.pair_forward])
    with torch.no_grad():
        every = outputs(prefix.apart_forward, model, whole).log_probs
        for way in ways:
            found = outputs(way, model, batch).log_probs
            expected = every.masked_fill(batch["completion_mask"][:, 1:] == 0, 0)
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v"])
def test_positions_do_not_stay_from_one_batch_to_the_next(name):
    model, other = fresh(name), fresh(name)
    first, second = (batch_of(name, model, part) for part in (rows(name)[:2], rows(name)[2:]))
    with torch.no_grad():
        for way in (prefix.apart_forward, prefix.pair_forward):
            outputs(way, model, first)
            again = outputs(way, model, second).log_probs
            assert again.equal(outputs(way, other, second).log_probs)


@pytest.mark.parametrize("name", CASES)
def test_an_answer_does_not_see_what_comes_after(name):
    """A prompt may see itself as a whole; an answer that did would read what it is to say."""
    model = fresh(name)
    batch = batch_of(name, model, rows(name)[1:2])
    longer = {**batch, "input_ids": batch["input_ids"].clone()}
    last = batch["completion_mask"].sum(1) + batch["completion_mask"].argmax(1) - 1
    for row, at in enumerate(last.tolist()):
        longer["input_ids"][row, at] = batch["input_ids"][row, at - 1]
    with torch.no_grad():
        one, two = (outputs(prefix.apart_forward, model, b).log_probs for b in (batch, longer))
    for row, at in enumerate(last.tolist()):
        assert one[row, : at - 1].equal(two[row, : at - 1])
        assert not one[row, at - 1].equal(two[row, at - 1])
