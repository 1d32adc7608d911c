"""What is worked out, against what tensors really take, and against hand counts."""

import dataclasses
from typing import get_args

import pytest
import torch

from adapt.attention.capture import RowCapture, observed
from adapt.attention.layout import layout_of
from adapt.generation.answer import Decoding, answer
from adapt.inspect import memory, training
from adapt.inspect.estimate import Subject
from adapt.inspect.machine import GIB, Machine, imagined, machine
from adapt.inspect.passes import Pass
from adapt.inspect.plan import disk, estimates
from adapt.inspect.sizes import Stack, sizes_of
from adapt.inspect.train_plan import _changes, pass_of, states
from adapt.preference.settings import Optimizer
from tests.support.families import CASES, built, inputs, picture
from tests.support.inspected import plans

PLAN = Pass(
    pairs=2,
    answer=8,
    trained=1000,
    optimizer="adamw",
    factored=0,
    visits=0,
    away=False,
    adapters=0,
    ranks=0,
    adapted=0.0,
    layers=2,
    stored=4,
    each=4,
    passes=2,
    processes=1,
    divided=False,
    checkpointing=False,
    shares=True,
    guided=True,
    kept=0,
    distilled=False,
    fused=False,
    trains_head=True,
    trains_tower=False,
)


def subject(name="llava", **changes):
    """A tiny model; `changes` of its sizes, as if it were larger."""
    model, _ = built(name)
    batch = inputs(name, [[picture(next(iter(CASES[name].views)))]])
    sizes = sizes_of(model, batch, layout_of(model, batch).columns_BN.shape[1])
    large = dataclasses.replace(sizes, **changes)
    return Subject(model=model, sizes=large, stored=torch.bfloat16, shares=lambda length: True)


def seven_billion():
    """The sizes of LLaVA-1.5-7B, whose modules have the names of the tiny one."""
    tiny = subject().sizes
    inputs, outputs = 32 * (6 * 4096 + 11008), 32 * (5 * 4096 + 2 * 11008)
    stack = Stack(
        blocks=32,
        width=4096,
        inner=11008,
        inputs=inputs,
        outputs=outputs,
        norms=65 * 4096,
        repeated=0,
    )
    return subject(
        parameters={"tower": 303_507_456, "projector": 20_979_712, "decoder": 6_738_939_904},
        decoder=stack,
        tower=dataclasses.replace(tiny.tower, blocks=24, width=1024, inner=4096),
        heads=32,
        key_value_heads=32,
        head_size=128,
        windows=[None] * 32,
        vocabulary=32064,
        largest={"tower": 4 * 1024**2, "projector": 4096**2, "decoder": 32064 * 4096},
        head=32064 * 4096,
        block=202_383_360,
        outside=304_000_000,
        linears={name: (4096, 4096) for name in tiny.linears},
        prompt=600,
        image_tokens=576,
        patches=576,
        pixels=3 * 336**2,
    )


# ---- parts, measured ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_weights_are_those_of_the_model(name):
    model, sizes = built(name)[0], subject(name).sizes
    assert memory.weights(sizes, 4) == sum(w.nbytes for w in model.parameters())
    assert all(count > 0 for count in sizes.parameters.values())


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3"])  # gemma3: a window of 12
def test_the_cache_is_as_large_as_that_of_generation(name):
    model, batch = built(name)[0], inputs(name, [[picture(next(iter(CASES[name].views)))]])
    with torch.no_grad():
        kept = model(**batch, use_cache=True).past_key_values
    real = sum(layer.keys.nbytes + layer.values.nbytes for layer in kept.layers)
    assert memory.cache(subject(name).sizes, 1, batch["input_ids"].shape[1], 4) == real


def test_capture_keeps_what_decoding_keeps():
    model, processor = built("llava")
    decoding = Decoding(anchor_tokens=2, max_new_tokens=5, similarity=True)
    answers = answer(model, processor, [[picture((32, 32))]], ["is there a red car?"], decoding)
    fields = ("first_BKLN", "heat_BTN", "mass_BTL", "entropy_BTL", "amc_BTL", "prelim_BTL")
    kept = sum(getattr(answers, name).nbytes for name in (*fields, "fired_BTL"))
    kept += 4 * 2 * 16 * 32  # hidden states of 16 image tokens, of width 32, at two places
    plan = memory.Decoding(rows=1, answer=5, anchor_tokens=2, each=4, is_sampled=False)
    # Maps of five steps and what they are reduced with; logits of two heads, twice, and a softmax.
    step = 4 * 5 * (4 * 2 * 16 + 3 * 2 * (subject().sizes.prompt + 5))
    assert kept + step <= memory.capture(subject().sizes, plan) < 1.5 * (kept + step)


def test_capture_keeps_what_training_keeps():
    model, _ = built("llava")
    batch, rows = inputs("llava", [[picture((32, 32))]]), torch.arange(17, 22)[None]
    capture = RowCapture(rows, layout_of(model, batch).columns_BN)
    with observed(model, capture):
        model(**batch)
    kept = 0
    for layer in capture.maps.values():
        query, _, _, _, _, norm = layer.grad_fn.saved_tensors
        kept += query.nbytes + norm.nbytes + layer.nbytes
    plan = dataclasses.replace(PLAN, pairs=1, answer=rows.shape[1])
    chunk = 4 * 4 * 5 * 4 * (subject().sizes.prompt + 2 * 5 + 1)
    assert training.capture(subject().sizes, plan) == kept + chunk
    assert training.capture(subject().sizes, dataclasses.replace(PLAN, layers=0)) == 0


def test_gradients_and_moments_are_those_of_adamw():
    weight = torch.nn.Parameter(torch.ones(PLAN.trained))
    optimizer = torch.optim.AdamW([weight], fused=True)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    moments = optimizer.state[weight]
    assert training.gradients(PLAN) == weight.grad.nbytes
    kept = training.optimizer(subject().sizes, PLAN)
    assert kept == moments["exp_avg"].nbytes + moments["exp_avg_sq"].nbytes
    assert training.gradients(dataclasses.replace(PLAN, processes=2)) == 2 * weight.grad.nbytes


def test_gradients_take_the_place_of_activations_in_a_single_pass():
    sizes = subject().sizes
    both = training.step(sizes, PLAN)
    one = training.step(sizes, dataclasses.replace(PLAN, passes=1))
    assert both["gradients"] == 4000 and both["activations"] > 4000
    assert one == both | {"gradients": 0}


def test_checkpointing_keeps_a_state_a_block():
    sizes = seven_billion().sizes
    plan = dataclasses.replace(PLAN, guided=False, answer=64)
    tokens = 2 * (600 + 2 * 64 + 1)
    apart = training.activations(sizes, plan)
    kept = training.activations(sizes, dataclasses.replace(plan, checkpointing=True))
    state = 32 * 4096 * 4 * tokens
    one = training.kept_by_block(sizes.decoder, plan, tokens // 2) * tokens
    rest = apart - 32 * one
    assert kept == pytest.approx(state + one + rest, rel=1e-6)


# ---- whether it fits, and what would ------------------------------------------------------------


def test_a_model_of_seven_billion_by_hand():
    seven = seven_billion()
    found = estimates(seven, plans(batch=16), imagined(80))
    # 16 answers of 64 tokens: 2 (keys, values) x 32 layers x 32 heads x 128 x 2 bytes a token.
    assert found["answer"].parts["cache"] == 16 * 664 * 2 * 32 * 4096 * 2
    assert found["answer"].parts["weights"] == 2 * 7_063_427_072
    assert found["answer"].fits
    # Full training: 4 bytes of weights, 2 of their copies, 4 of gradients and 8 of moments.
    train = found["train"]
    trained = 6_738_939_904 + 20_979_712
    assert train.parts["optimizer"] == 8 * trained and train.parts["gradients"] >= 4 * trained
    assert train.parts["autocast"] == 2 * 7_063_427_072
    # Computed again, of copies those of one block are there, and of what lies outside.
    again = estimates(seven, plans(batch=16, gradient_checkpointing=True), imagined(80))["train"]
    block, outside = seven.sizes.block, seven.sizes.outside
    assert again.parts["autocast"] == 2 * (block + outside) < 2**30
    # Two workers, which share it; with their moments in main memory; adapters.
    assert not train.fits and train.advice["train.shard"] == "fsdp"
    assert "train.offload" not in train.advice
    advised = {n: estimates(seven, plans(batch=16), imagined(n))["train"].advice for n in (60, 40)}
    assert advised[60]["train.offload"] == "optimizer" and advised[40]["train.lora.rank"] == 16


def test_the_advised_batch_is_the_largest_that_fits():
    seven, size = seven_billion(), 24
    advice = estimates(seven, plans(batch=64), imagined(size))["answer"].advice
    largest = advice["answer.batch"]
    assert 1 < largest < 64
    for batch, fits in ((largest, True), (largest + 1, False)):
        assert estimates(seven, plans(batch=batch), imagined(size))["answer"].fits == fits


def test_the_batch_that_is_found_fits():
    found = estimates(seven_billion(), plans(batch="auto"), imagined(24))
    assert found["answer"].fits and found["pairs"].fits
    assert "answers of 64 tokens at once" in found["answer"].what


def test_the_mildest_change_that_fits_is_advised():
    seven = seven_billion()
    lora = plans(lora=True, batch_pairs=16, workers=0)
    for size, keys in (
        (400, set()),
        (60, {"train.accumulation"}),
        (21, {"train.gradient_checkpointing", "train.accumulation"}),
        (10, None),
    ):
        train = estimates(seven, lora, imagined(size))["train"]
        assert train.fits == (keys == set())
        assert set(train.advice) == (keys or set()), size


@pytest.mark.parametrize(
    ("optimizer", "offload"), [*((n, "none") for n in get_args(Optimizer)), ("adamw", "optimizer")]
)
@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("is_gpu", [True, False])
def test_what_may_be_advised_is_accepted(optimizer, offload, lora, is_gpu):
    config = plans(lora=lora, workers=2, optimizer=optimizer, offload=offload).train
    tried = [*_changes(config, dataclasses.replace(imagined(24), is_gpu=is_gpu))]
    assert any("shard" in changes for changes in tried)
    may_move = is_gpu and not lora and offload == "none"
    assert any(changes.get("offload") == "optimizer" for changes in tried) == may_move
    for changes in tried:
        type(config).model_validate(config.model_dump() | changes)


def test_workers_share_a_machine_but_not_a_gpu():
    here = Machine(name="here", is_gpu=False, memory=64 * GIB, generation=torch.float32)
    assert here.limit(2) < here.limit(1) / 1.9
    assert imagined(64).limit(2) == imagined(64).limit(1)
    mine = machine(torch.device("cpu"))
    assert mine.memory > 2**28 and mine.generation == torch.float32


def test_adapters_are_counted():
    seven, few = subject(), plans(lora=True)
    plan = pass_of(seven, few.train, 64, imagined(80))
    q = [pair for name, pair in seven.sizes.linears.items() if "language_model" in name]
    assert plan.adapters == plan.trained == 4 * sum(sum(pair) for pair in q)
    assert plan.stored == 2 and plan.each == 2  # a 16-bit base, under autocast
    assert training.casts(seven.sizes, plan, kept=True) == 2 * plan.adapters
    assert states(seven, few.train)["projector"] == "frozen"
    assert states(seven, few.train)["decoder"] == f"adapters of rank 4: {plan.adapters:,} weights"
    asked = dataclasses.replace(few, train=few.train.model_copy(update={"validation": 9}))
    assert disk(seven, asked, imagined(80))["checkpoint"] == 16 * plan.adapters, "and the best ones"
    kept = disk(seven, few, imagined(80))
    assert kept["checkpoint"] == 12 * plan.adapters and kept["result"] == 2 * sum(
        seven.sizes.parameters.values()
    )


def test_full_training_leaves_the_tower():
    one = plans()
    assert states(subject(), one.train) == {
        "tower": "frozen",
        "projector": "trained",
        "decoder": "trained",
    }
    plan = pass_of(subject(), one.train, 64, machine(torch.device("cpu")))
    parameters = subject().sizes.parameters
    assert plan.trained == parameters["projector"] + parameters["decoder"]
    assert (plan.stored, plan.each, plan.passes, plan.layers) == (4, 4, 2, 2)
