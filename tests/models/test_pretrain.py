"""Pretraining of the embedded model: curves, what is frozen, and the same weights twice."""

import re

import pytest
import torch

from adapt.data import scenes
from adapt.data.pen import COLOURS
from adapt.models import pretrain
from adapt.models.grounding import Place, deciding_loss
from adapt.models.settings import Config, PromptConfig, ScratchConfig
from adapt.models.tiny import Shape, build_model, build_processor, build_tokenizer
from adapt.params import InputError
from tests.support import tiny_world

ROWS = [e for i in range(8) for e in scenes.examples("train", i, size=24, caption_noise=1, seed=7)]
WORLD = tiny_world.scenes(train=8, size=24, noise=1.0)
STEPS = 20


SHAPE = Shape(width=16, vision_layers=1, text_layers=2, heads=2, patch_size=8, image_size=24)


def configured(patch_size=8, **scratch):
    sizes = {"width": 16, "vision_layers": 1, "text_layers": 2, "heads": 2}
    steps = {"vision_steps": STEPS, "language_steps": STEPS}
    batches = {"vision_batch": 4, "language_batch": 4}
    options = {**sizes, **steps, **batches, "learning_rate": 3e-3, "patch_size": patch_size}
    return Config(
        source="scratch",
        scratch=ScratchConfig(**options | scratch),
        scenes=WORLD,
        prompt=PromptConfig(template="", system=""),
        device="cpu",
        max_new_tokens=8,
        seed=7,
    )


def trained(**scratch):
    config, curves = configured(**scratch), []
    model, _ = pretrain.from_scratch(
        config, ROWS, scenes.vocabulary(), lambda step, metrics: curves.append((step, metrics))
    )
    return model, curves


def test_two_phases_log_their_curves_and_two_runs_give_the_same_weights():
    model, curves = trained()
    assert [step for step, _ in curves] == [10, 20, 30, 40]
    assert all(set(metrics) == {"vision_loss", "vision_accuracy"} for _, metrics in curves[:2])
    assert all(set(metrics) == {"language_loss", "grounding_loss"} for _, metrics in curves[2:])
    assert not model.training
    again, _ = trained()
    for one, two in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)


def test_the_second_phase_leaves_the_tower_alone():
    short, long = trained()[0], trained(language_steps=STEPS + 5)[0]
    towers = (model.model.vision_tower.parameters() for model in (short, long))
    assert all(torch.equal(one, two) for one, two in zip(*towers, strict=True))
    assert not torch.equal(short.lm_head.weight, long.lm_head.weight)


def test_patches_must_divide_the_images():
    with pytest.raises(InputError, match=r"base\.scratch\.patch_size: 7 does not divide"):
        trained(patch_size=7)


def test_the_token_before_a_yes_a_no_or_a_colour_is_the_one_that_is_shown_where_to_look():
    processor = build_processor(
        build_tokenizer(text for row in ROWS for text in (row.question, row.answer)), SHAPE
    )
    model = build_model(processor.tokenizer, SHAPE, 7)
    training = pretrain._Pretraining(model, processor, scenes.vocabulary(), configured(), print)
    index_of = {row.image_id: i for i, row in enumerate(ROWS[::4])}
    groups = training.token_rows(ROWS, index_of)
    assert [len(group) for group in groups] == [4] * 8
    for row, one in zip(ROWS, [one for group in groups for one in group], strict=True):
        words, place = processor.tokenizer.convert_ids_to_tokens(one.ids), one.place
        if row.kind == "describe":
            assert place.token == place.deciding == place.repeated == -1
            continue
        noun = re.findall(r"\w+", row.question)[-1]
        assert words[place.token] == noun
        before, decided = words[place.deciding : place.deciding + 2]
        if row.kind == "exists":
            assert before == "<assistant>" and decided in ("yes", "no") and place.repeated == -1
        else:
            assert before == "is" and decided in COLOURS and words[place.repeated] == noun
            assert place.token < one.answer <= place.repeated < place.deciding


def test_descriptions_keep_their_share_of_the_loss():
    weights = pretrain._row_weights(ROWS)
    described = [w for w, row in zip(weights, ROWS, strict=True) if row.kind == "describe"]
    assert sum(described) / sum(weights) == pytest.approx(pretrain.DESCRIBE_SHARE)
    assert len({*weights}) == 2


def test_deciding_tokens_look_at_their_noun_in_the_second_layer_and_at_the_thing_in_the_last():
    """By hand, three layers: a thing at patch 0, one that is absent, a description."""
    at = {"token": 3, "deciding": 7}
    nothing = torch.tensor([False, False])
    places = [
        Place(**at, repeated=6, patches_N=torch.tensor([True, False])),
        Place(**at, patches_N=nothing),
        Place(token=-1, patches_N=nothing),
    ]
    maps, nouns = torch.full((2, 3, 3, 2), 0.01)
    nouns[0, 1], nouns[1, 1] = torch.tensor([0.2, 0.3]), torch.tensor([0.8, 0.0])
    maps[0, 2, 0], maps[1, 2] = 0.25, torch.tensor([0.1, 0.1])
    maps, nouns = maps.clone().requires_grad_(), nouns.clone().requires_grad_()
    loss = deciding_loss(maps, nouns, places)
    behind, last = -torch.tensor([0.5, 0.8]).log().mean(), -torch.tensor([0.25, 0.8]).log().mean()
    torch.testing.assert_close(loss, (behind + last) / 2)
    loss.backward()
    assert not maps.grad[2].any() and not nouns.grad[2].any()
    assert (maps.grad.abs().sum((0, 2)) > 0).tolist() == [False, False, True]
    assert (nouns.grad.abs().sum((0, 2)) > 0).tolist() == [False, True, False]
