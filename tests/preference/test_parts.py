"""What is trained, adapted and frozen, in every family that can be read."""

import copy
import csv
from pathlib import Path

import pytest
import torch

from adapt.models.roles import role_of_parameters
from adapt.pairs.table import write_pairs
from adapt.params import InputError
from adapt.preference import parts
from adapt.preference.build import arguments
from adapt.preference.fit import fit
from adapt.preference.workers import worker_device
from tests.support import families
from tests.support.preference_rows import origin, pairs, settings


def tuned_step(name: str, tower: str) -> tuple[dict[str, torch.Tensor], torch.nn.Module, set[str]]:
    """The weights before a step of AdamW, the model after it, and what no answer depends on."""
    model, _ = families.built(name)
    model = copy.deepcopy(model)
    parts.free(model, settings(tower=tower))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    picture = families.picture(next(iter(families.CASES[name].views)))
    batch = dict(families.inputs(name, [[picture]], ["a red car."]))
    batch["labels"] = batch["input_ids"]
    model(**batch).loss.backward()
    unused = parts.freeze_unreached(model)
    model(**batch).loss.backward()
    torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2).step()
    return before, model, unused


@pytest.mark.parametrize("name", families.CASES)
@pytest.mark.parametrize("tower", ["frozen", "full"])
def test_gradients_reach_what_is_trained_and_nothing_else(name, tower):
    before, model, unused = tuned_step(name, tower)
    roles = role_of_parameters(model)
    changed = {key for key, value in model.state_dict().items() if not value.equal(before[key])}
    frozen = {key for key in roles if roles[key] == "tower"} if tower == "frozen" else set()
    assert not changed & frozen
    for role in {"projector", "decoder"} | ({"tower"} if tower == "full" else set()):
        assert {key for key in changed if roles[key] == role}, role
    assert not any(roles[key] == "decoder" for key in unused)
    assert not changed & unused


@pytest.fixture
def inputs(base, tmp_path):
    write_pairs(tmp_path / "pairs.parquet", pairs(8), origin())
    return Path(base), tmp_path / "pairs.parquet"


def test_the_table_names_every_tensor_with_its_rate(inputs, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    config = settings(steps=1, tower="full", tower_learning_rate=2e-4)
    metrics = fit(config, *inputs, tmp_path / "out", tmp_path / "state", lambda s, m: 0)
    with (tmp_path / "out/modules.csv").open() as file:
        rows = [(r["part"], r["state"], r["parameters"], r["rate"]) for r in csv.DictReader(file)]
    # The last norm of CLIP's tower feeds its pooled output, which no answer depends on.
    assert rows == [
        ("tower", "trained", "15328", "0.0002"),
        ("tower", "unused", "64", ""),
        ("projector", "trained", "2112", "0.001"),
        ("decoder", "trained", "31712", "0.001"),
    ]
    assert (metrics["parameters/trained"], metrics["parameters/frozen"]) == (49152, 64)
    assert (
        "train: tower      unused          2             64  float32\n" in capsys.readouterr().err
    )


# ---- devices -------------------------------------------------------------------------------------


def test_one_process_uses_one_of_several_gpus(tmp_path, monkeypatch):
    """transformers counts the machine's GPUs and would divide the batch among them."""
    monkeypatch.setattr(
        "transformers.TrainingArguments._setup_devices",
        property(lambda self: self.__dict__.setdefault("_n_gpu", 4) and torch.device("cpu")),
    )
    made = arguments(settings(), torch.device("cpu"), tmp_path)
    assert made.n_gpu == 1 and made.train_batch_size == 4


@pytest.mark.parametrize(
    ("device", "gpus", "message"),
    [
        ("auto", 1, "train.workers: 2 workers need a GPU each, and Ray has 1; set it to 1"),
        ("cuda", 0, "train.workers: 2 workers need a GPU each, and Ray has 0"),
        ("mps", 0, "device: mps trains in one process"),
    ],
)
def test_workers_without_a_gpu_each_are_refused(device, gpus, message):
    with pytest.raises(InputError, match=f"^{message}"):
        worker_device(device, 2, gpus)
    assert worker_device("auto", 2, 4) == "cuda"
