"""Trained weights move whatever the base is stored in, and what is stored keeps that."""

import csv
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from adapt.models.load import checkpoint_dtype, save
from adapt.pairs.table import write_pairs
from adapt.preference.fit import fit
from adapt.preference.movement import Movement, stored_dtype
from adapt.preference.precision import DTYPES, let_copies_go
from tests.support import tiny_world
from tests.support.preference_rows import lora, origin, pairs, settings


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """A base stored in each dtype, `fp32/` and so on, and `pairs.parquet`."""
    folder = tmp_path_factory.mktemp("inputs")
    for name, dtype in DTYPES.items():
        save(tiny_world.model(), tiny_world.processor(), folder / name, dtype)
    write_pairs(folder / "pairs.parquet", pairs(8), origin())
    return folder


def train(inputs: Path, base: str, to: Path, **changes) -> dict[str, float]:
    (to / "out").mkdir(parents=True)
    quick = {"steps": 4, "checkpoint_every": 9, "w_vag": 0.0, "w_attn": 0.0}
    config = settings(**{**quick, **changes})
    return fit(
        config, inputs / base, inputs / "pairs.parquet", to / "out", to / "state", lambda s, m: None
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: one.float() for name, one in load_file(folder / "model.safetensors").items()}


@pytest.mark.parametrize("base", DTYPES)
def test_weights_of_any_base_move_at_a_small_rate(inputs, tmp_path, base, capsys):
    """Four steps at 1e-6: in 16 bits under one weight in a hundred would move."""
    reported = train(inputs, base, tmp_path, learning_rate=1e-6)
    before, after = weights(inputs / base), weights(tmp_path / "out/model")
    trained = [name for name in after if "vision_tower" not in name]
    moved = sum(int((after[name] != before[name]).sum()) for name in trained)
    share = moved / sum(before[name].numel() for name in trained)
    assert share >= 0.95 and share == pytest.approx(reported["moved"], abs=1e-4)
    assert all(after[name].equal(before[name]) for name in after if "vision_tower" in name)
    # Rounding would undo it, so that the result stays in float32, with a line that says so.
    assert checkpoint_dtype(tmp_path / "out/model") == torch.float32
    assert ("saving fp32" in capsys.readouterr().err) == (base != "fp32")


def test_the_three_bases_train_alike_and_are_stored_as_they_were(inputs, tmp_path):
    """They differ by rounding alone, before the first step and after the last."""
    done = {base: train(inputs, base, tmp_path / base, learning_rate=1e-2) for base in DTYPES}
    for base, dtype in DTYPES.items():
        assert checkpoint_dtype(tmp_path / base / "out/model") == dtype
    for key in ("loss", "rewards/margins", "sft/loss"):
        assert done["bf16"][key] == pytest.approx(done["fp32"][key], rel=0.01, abs=0.01)
        assert done["fp16"][key] == pytest.approx(done["fp32"][key], rel=0.002, abs=0.002)


def test_what_is_stored_is_the_float32_result_rounded(inputs, tmp_path):
    for name in ("auto", "fp32"):
        train(inputs, "bf16", tmp_path / name, learning_rate=1e-2, save_dtype=name, steps=2)
    rounded, wide = (weights(tmp_path / name / "out/model") for name in ("auto", "fp32"))
    assert checkpoint_dtype(tmp_path / "fp32/out/model") == torch.float32
    assert all(rounded[name].equal(wide[name].bfloat16().float()) for name in wide)


@pytest.mark.parametrize("base", ["bf16", "fp16"])
def test_adapters_are_float32_over_16_bits(inputs, tmp_path, base):
    train(inputs, base, tmp_path, precision="bf16", lora=lora())
    with (tmp_path / "out/modules.csv").open() as file:
        dtypes = {(row["part"], row["state"]): row["dtype"] for row in csv.DictReader(file)}
    assert dtypes.pop(("decoder", "adapters")) == "float32"
    assert set(dtypes.values()) == {"bfloat16"} and set(dtypes) >= {("projector", "frozen")}
    assert checkpoint_dtype(tmp_path / "out/model") == DTYPES[base]
    before, after = weights(inputs / base), weights(tmp_path / "out/model")
    changed = {name for name in after if not after[name].equal(before[name])}
    # What has no adapter has the digits of the file, also where bfloat16 was computed in.
    assert changed and all(name.endswith("_proj.weight") for name in changed)


def test_passes_of_bf16_are_under_autocast(inputs, tmp_path, monkeypatch):
    """Adapters in float32 compute in bfloat16; outside of autocast they would keep fp32 inputs."""
    found: set[tuple[torch.dtype, torch.dtype]] = set()
    forward = nn.Linear.forward

    def watched(layer, given):
        out = forward(layer, given)
        if layer.weight.requires_grad and torch.is_grad_enabled():
            found.add((layer.weight.dtype, out.dtype))
        return out

    monkeypatch.setattr(nn.Linear, "forward", watched)
    train(inputs, "bf16", tmp_path, precision="bf16", lora=lora(2), steps=1, w_vag=1.0)
    assert found == {(torch.float32, torch.bfloat16)}


def test_a_rate_that_moves_nothing_is_named_early_and_at_the_end(inputs, tmp_path, capsys):
    reported = train(inputs, "fp32", tmp_path, learning_rate=1e-12)
    assert reported["moved"] < 0.05
    told = capsys.readouterr().err
    assert "train: after 2 steps" in told and "raise train.learning_rate" in told
    assert f"only {100 * reported['moved']:.1f} % of the trained weights moved" in told


def moved(kept: int, is_finite: bool = True) -> Movement:
    return Movement(weights=100, moved=80, kept=kept, is_finite=is_finite)


def test_what_a_result_is_stored_in(capsys):
    bf16 = torch.bfloat16
    assert stored_dtype(moved(40), bf16, is_free=True) == bf16
    assert stored_dtype(Movement(weights=100), bf16, is_free=True) == bf16
    assert capsys.readouterr().err == ""
    assert stored_dtype(moved(39), bf16, is_free=True) == torch.float32
    assert "would keep 48.8 % of the weights that moved; saving fp32" in capsys.readouterr().err
    # What the user has named stays, with a line.
    assert stored_dtype(moved(39), bf16, is_free=False) == bf16
    assert "save_dtype: fp32 keeps all" in capsys.readouterr().err
    assert stored_dtype(moved(80, False), torch.float16, is_free=False) == torch.float32
    assert "fp16 cannot hold these weights" in capsys.readouterr().err


class Casts(TorchDispatchMode):
    """How many 16-bit copies are made of matrices of a model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.places = {weight.data_ptr() for weight in model.parameters() if weight.dim() == 2}
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        of = args[0] if args and isinstance(args[0], torch.Tensor) else None
        if of is not None and of.dtype == torch.float32 and made.dtype == torch.bfloat16:
            self.count += of.data_ptr() in self.places
        return made


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad])
def test_copies_of_a_block_go_with_its_forward(mode):
    """What has been kept between two forwards is made once."""
    model, words = tiny_world.model(), {"input_ids": torch.ones(1, 5, dtype=torch.long)}
    found = []
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16), mode(), Casts(model) as casts:
            first, second = (model(**words).logits for _ in range(2))
        assert first.equal(second)
        found.append(casts.count)
        let_copies_go(model)
    # Seven matrices of each of three blocks, and that of the output layer.
    assert found == [22, 44]
