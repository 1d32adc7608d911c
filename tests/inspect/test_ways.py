"""What each way to train takes, by hand counts and real tensors; and what `--plan` tells of it."""

import dataclasses
import json

import pytest
import torch
import yaml

from adapt.inspect import __main__ as inspect
from adapt.inspect import memory, probes, training, ways
from adapt.inspect.machine import imagined
from adapt.inspect.plan_lines import plan_lines
from adapt.inspect.train_plan import pass_of, smaller_passes, train_estimate
from adapt.models.load import save
from adapt.models.roles import blocks
from tests.inspect.test_memory import PLAN, seven_billion, subject
from tests.support.families import CASES, built
from tests.support.inspected import content, plans

# ---- parts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_every_weight_is_in_a_block_or_outside(name):
    model, sizes = built(name)[0], subject(name).sizes
    inside = [model.get_submodule(one) for one in blocks(model)]
    counts = [sum(weight.numel() for weight in one.parameters()) for one in inside]
    assert len(inside) >= sizes.decoder.blocks + sizes.tower.blocks
    assert max(counts) == sizes.block
    assert sum(counts) + sizes.outside == sum(sizes.parameters.values())


def test_workers_that_share_a_model_hold_a_part_of_it():
    """Of 1,000 trained weights among four: gradients 1,000 bytes, moments 2,000."""
    sizes = dataclasses.replace(subject().sizes, block=300, outside=5000)
    shared = dataclasses.replace(PLAN, processes=4, divided=True)
    alone = training.step(sizes, PLAN)
    parts = training.step(sizes, shared)
    assert parts["weights"] == alone["weights"] // 4
    assert (parts["gradients"], parts["optimizer"]) == (1000, 2000)
    for name in ("autocast", "activations", "capture", "logits"):
        assert parts[name] == alone[name], "of a worker's own rows"
    # What lies outside of blocks, two blocks, and a block's gradients in two places.
    assert parts["gathered"] == 4 * 5000 + 2 * 4 * 300 + 2 * 4 * 300
    assert training.gathered(sizes, dataclasses.replace(shared, divided=False)) == 0
    # All files together: weights and both moments of what is trained.
    assert training.checkpoint(sizes, shared) == 12 * PLAN.trained
    assert training.checkpoint(sizes, PLAN) == alone["weights"] + 8 * PLAN.trained


def test_the_end_of_a_backward_counts_where_little_is_kept():
    """Of what lies outside of blocks: weights, gradients, and what these are exchanged in."""
    sizes = dataclasses.replace(subject().sizes, block=10, outside=10_000_000)
    shared = dataclasses.replace(PLAN, processes=2, divided=True)
    parts = training.step(sizes, shared)
    passing = parts["activations"] + parts["capture"] + parts["logits"]
    assert parts["gathered"] + passing == 3 * 4 * 10_000_000


def test_the_pass_over_plain_rows_counts_where_it_is_the_largest():
    sizes = subject().sizes
    few = training.activations(sizes, dataclasses.replace(PLAN, kept=1))
    many = training.activations(sizes, dataclasses.replace(PLAN, kept=12))
    assert few == training.activations(sizes, PLAN)
    assert many == pytest.approx(3 * few, rel=0.01), "12 rows beside 4 of the guided pass"
    kept = pass_of(subject(), plans(w_keep=0.3, keep_rows=24, workers=2).train, 64, imagined(80))
    assert (kept.kept, kept.passes, kept.distilled) == (12, 3, False)
    told = plans(w_keep=0.3, keep_form="kl", accumulation=2).train
    plan = pass_of(subject(), told, 64, imagined(80))
    assert (plan.kept, plan.distilled) == (6, True)
    words = subject().sizes.vocabulary
    assert training.distilled_logits(sizes, plan, kept=6) == 6 * 64 * words * (2 * 2 + 4 * 6)
    assert training.distilled_logits(sizes, kept, kept=6) == 0


# ---- what fits ---------------------------------------------------------------------------------


def table(asked=None, **train):
    return ways.table(seven_billion(), plans(**train), asked or ways.Asked())


def row(found, way, shard, workers):
    key = (way, shard, workers)
    return next(r for r in found["rows"] if (r["way"], r["shard"], r["workers"]) == key)


def test_all_ways_stand_side_by_side():
    found = table(batch_pairs=24)
    kinds = [(r["way"], r["shard"], r["workers"]) for r in found["rows"]]
    assert len(kinds) == len(set(kinds)) == 5 * (4 + 3) + 4 + 4
    assert ("LoRA, 4 bits", "fsdp", 2) not in kinds and ("LoRA", "fsdp", 1) not in kinds
    for one in found["rows"]:
        assert one["peak"] == max(memory.total(one["parts"]), one["reference"])
        assert one["pairs"] == 24 // one["workers"]
    fp32, bf16 = (row(found, f"full, {name}", "none", 1)["parts"] for name in ("fp32", "bf16"))
    assert fp32["autocast"] == 0 and bf16["autocast"] == 2 * found["weights"]
    whole, shared = (row(found, "full, fp32", shard, 8) for shard in ("none", "fsdp"))
    assert whole["parts"]["optimizer"] == pytest.approx(8 * shared["parts"]["optimizer"], abs=8)
    factored = row(found, "full, fp32, adafactor", "none", 8)["parts"]
    assert factored | {"optimizer": 0} == whole["parts"] | {"optimizer": 0}
    assert factored["optimizer"] < whole["parts"]["optimizer"] / 100
    assert ("full, fp32, adafactor", "fsdp", 2) not in kinds
    # Moments in main memory: the same but for these, and these there, of each worker.
    for shard, share in (("none", 1), ("fsdp", 8)):
        one, moved = (row(found, f"full, fp32{more}", shard, 8) for more in ("", ", offload"))
        assert moved["parts"] == one["parts"] | {"optimizer": 0}
        assert moved["checkpoint"] == one["checkpoint"]
        kept = one["parts"]["optimizer"]
        assert kept == pytest.approx(8 * found["weights"] / share, rel=0.1)
        assert moved["main_memory"] == max(kept, one["main_memory"])
    # While it is read, and while one process puts it together: the tower is not trained.
    trained = found["weights"] - seven_billion().sizes.parameters["tower"]
    assert whole["main_memory"] == (4 + 2) * found["weights"]
    assert shared["main_memory"] == 4 * (found["weights"] + trained)


def test_a_card_is_told_the_smallest_change_that_fits():
    found = table(batch_pairs=24)
    for one in found["rows"]:
        fits = [one["fits"][card] for card in found["cards"]]
        assert [change is not None for change in fits] == sorted(
            change is not None for change in fits
        )
        assert all(
            set(change or ()) <= {"train.accumulation", "train.gradient_checkpointing"}
            for change in fits
        )
    assert row(found, "full, fp32", "none", 1)["fits"]["80"] is None
    assert row(found, "LoRA", "fsdp", 8)["fits"]["80"] == {}
    change = row(found, "LoRA", "none", 1)["fits"]["48"]
    config = plans(batch_pairs=24, lora=True, workers=1, precision="bf16").train
    limit, several = imagined(48).limit(1), [*smaller_passes(config)]
    tried = {json.dumps(one): one for one in several}
    peaks = [
        memory.total(
            training.step(
                seven_billion().sizes,
                pass_of(seven_billion(), config.model_copy(update=one), 64, imagined(48)),
            )
        )
        for one in tried.values()
    ]
    first = next(one for one, peak in zip(several, peaks, strict=True) if peak <= limit)
    assert {f"train.{key}": value for key, value in first.items()} == change


@pytest.mark.parametrize(
    ("card", "lora", "keys", "words"),
    [
        (48, True, {}, "fits as it is; train.accumulation: auto becomes 4"),
        (48, True, {"accumulation": 1}, "fits with train.accumulation: 4"),
        (40, False, {}, "fits with train.lora.rank: 16, and train.accumulation: auto becomes 6"),
    ],
)
def test_what_becomes_so_by_itself_is_told_apart(card, lora, keys, words):
    plan = ways.table(seven_billion(), plans(lora=lora, **keys), ways.Asked(cards=[card]))
    assert f"{card} GiB   section train {words}" in [*plan_lines({"model": "m", "plan": plan})]


def test_passes_divide_pairs_and_plain_rows():
    config = plans(batch_pairs=24, w_keep=0.3, keep_rows=36, workers=2).train
    counts = {one.get("accumulation", 1) for one in smaller_passes(config)}
    assert counts == {1, 2, 3, 6}, "of 12 pairs and 18 rows of a worker"
    found = table(ways.Asked(workers=(1, 5, 8)), batch_pairs=24, workers=1)
    assert found["left_out"] == [5]
    assert {one["workers"] for one in found["rows"]} == {1, 8}


def test_a_divided_model_is_computed_again_before_it_is_sent_more_often():
    config = plans(workers=2, shard="fsdp", batch_pairs=8).train
    again = {"gradient_checkpointing": True}
    expected = [{}, again, again | {"accumulation": 2}, again | {"accumulation": 4}]
    assert [*smaller_passes(config)] == expected
    more = [{}, {"accumulation": 2}, {"accumulation": 4}]
    assert [*smaller_passes(config, ["accumulation"])] == more


def test_an_optimizer_that_keeps_less_comes_before_adapters():
    """In GiB, of 7 B in fp32: 26 of weights, 25 of gradients, 50 of moments."""
    one = {"workers": 1, "precision": "fp32", "batch_pairs": 4}

    def advised(size, **changes):
        found = ways.table(seven_billion(), plans(**one, **changes), ways.Asked(cards=(size,)))
        return found["as_set"][f"{size}"]

    assert "train.offload" not in advised(140)
    assert advised(80)["train.offload"] == "optimizer" and "train.optimizer" not in advised(80)
    assert advised(80, offload="optimizer") == {"train.gradient_checkpointing": True}
    assert advised(40)["train.lora.rank"] == 16
    # Where main memory is all that there is, by the settings and by what is there already.
    here = dataclasses.replace(imagined(80), is_gpu=False, generation=torch.float32)
    for offload, keys in (("none", set()), ("optimizer", {"train.offload"})):
        config = plans(**one, offload=offload).train
        advice = train_estimate(seven_billion(), config, 64, here).advice
        assert advice["train.optimizer"] == "adafactor"
        assert advice.keys() & {"train.offload"} == keys
    divided = {**one, "workers": 2, "shard": "fsdp", "optimizer": "adamw"}
    found = ways.table(seven_billion(), plans(**divided), ways.Asked(cards=(24,)))
    assert "train.optimizer" not in (found["as_set"]["24"] or {})


def test_settings_of_adapters_are_left_as_they_are():
    found = table(ways.Asked(cards=(40,), workers=(2,)), lora=True)
    assert found["rank"] == 4 and found["full_tower"] == "frozen"
    assert [*row(found, "LoRA", "none", 2)["fits"]] == ["40"]
    assert found["as_set"].keys() == {"40"}


# ---- the command -------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """Configuration and processor; a params.yaml of its own."""
    model, processor = built("llava")
    model.config.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content(batch="auto", w_keep=0.3)))
    return tmp_path


def plan(folder, *more):
    source, file = str(folder / "model"), str(folder / "mine.yaml")
    return inspect.main([source, "--plan", "--params", file, *more])


def test_the_plan_is_a_table(folder, capsys):
    assert plan(folder, "--gpu", "1,80", "--workers", "1,2", "--pairs", "8", "--tokens", "20") == 0
    printed = capsys.readouterr().out
    for line in (
        "8 pairs and 24 plain rows a step, prompts of 23 tokens, answers 20",
        "80 GiB   section train fits as it is",
        "full, fp32             fsdp         2      4",
        "answer  80 GiB",
    ):
        assert line in printed
    heads = next(line for line in printed.splitlines() if line.startswith("way"))
    assert heads.split()[:4] == ["way", "shard", "workers", "pairs"] and "gathered" in heads


def test_the_plan_for_programs(folder, capsys):
    assert plan(folder, "--json", "--shard", "fsdp", "--workers", "2,4") == 0
    facts = json.loads(capsys.readouterr().out)
    assert {(one["shard"], one["workers"]) for one in facts["plan"]["rows"]} == {
        ("fsdp", 2),
        ("fsdp", 4),
    }
    assert facts["plan"]["cards"] == ["24", "48", "80"] and facts["weights"] is False


def test_weights_are_left_alone(folder, capsys, monkeypatch):
    model, processor = built("llava")
    save(model, processor, folder / "model")
    monkeypatch.setattr(probes, "load_model", lambda *_: pytest.fail("the weights are read"))
    assert plan(folder, "--gpu", "24") == 0
    assert "LoRA" in capsys.readouterr().out


def test_what_cannot_be_aligned_has_no_plan(folder, capsys):
    (folder / "model" / "chat_template.jinja").unlink()
    assert plan(folder) == 1
    assert "no chat template" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--plan", "--gpu", "many"], "expected 1 to 10000 GiB, not many"),
        (["--plan", "--workers", "2,0"], "expected a whole number from 1 to 1000000, not 0"),
        (["--plan", "--shard", "ddp"], "invalid choice: 'ddp'"),
        (["--pairs", "3"], "--pairs goes with --plan"),
        (["--gpu", "24,48"], "several cards go with --plan"),
        (["--plan", "--overlay", "out.png"], "--overlay needs weights, which --plan leaves alone"),
    ],
)
def test_wrong_arguments_end_with_a_line(folder, capsys, given, words):
    with pytest.raises(SystemExit) as ended:
        inspect.main([str(folder / "model"), *given])
    printed = capsys.readouterr()
    assert ended.value.code == 2 and words in printed.err.splitlines()[-1] and not printed.out


def test_wrong_settings_name_the_key(folder, capsys):
    assert plan(folder, "--pairs", "7") == 2
    printed = capsys.readouterr().err
    assert "train.batch_pairs: 7 pairs do not divide into" in printed and printed.count("\n") == 1
    assert inspect.main([str(folder / "model"), "--plan", "--params", "none.yaml"]) == 2
    assert "none.yaml: not found" in capsys.readouterr().err
