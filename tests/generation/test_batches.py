"""Batches as large as the memory: what an answer takes, and halving where that was too little."""

from types import SimpleNamespace

import pytest
import torch
from transformers import DynamicCache

from adapt.generation import batches
from adapt.generation.answer import Decoding, answer
from adapt.generation.batches import Prompt, answered, fitting, free_memory
from adapt.generation.settings import Config
from adapt.params import InputError, load, read
from tests.support import families, tiny_world
from tests.support.workspace import ROOT

DECODING = Decoding(anchor_tokens=2, max_new_tokens=6, samples=2, temperature=1.0)
ROWS = [Prompt(f"row {n}", [tiny_world.picture(n)], tiny_world.QUESTIONS[n % 2]) for n in range(11)]


def texts(batch, decoding=DECODING):
    parts = answered(
        tiny_world.model(), tiny_world.processor(), ROWS, decoding, batch, lambda row: row, "key"
    )
    sizes, said = [], []
    for part, answers in parts:
        sizes.append(len(part))
        said += answers.texts
        assert len(answers.texts) == len(part) * decoding.samples
    return sizes, said


def failing(monkeypatch, most):
    """A device that holds `most` rows."""

    def tried(model, processor, images, *others):
        if len(images) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return answer(model, processor, images, *others)

    monkeypatch.setattr(batches, "answer", tried)


def test_the_size_of_a_batch_changes_no_answer():
    (whole, said), (one, alone), (parts, found) = texts("auto"), texts(1), texts(4)
    assert whole == [11] and one == [1] * 11 and parts == [4, 4, 3]
    assert said == alone == found


def test_a_batch_that_does_not_fit_is_halved(monkeypatch, capsys):
    want = texts("auto")[1]
    failing(monkeypatch, most=3)
    for batch, sizes in (("auto", [2] * 5 + [1]), (6, [3, 3, 3, 2])):
        assert texts(batch) == (sizes, want)
        assert "do not fit into the memory" in capsys.readouterr().err


def test_a_row_that_does_not_fit_is_one_line(monkeypatch):
    failing(monkeypatch, most=0)
    with pytest.raises(InputError, match="key: one question does not fit into the memory; lower"):
        texts("auto")


def test_so_many_fit_as_the_memory_holds(monkeypatch):
    model, processor = tiny_world.model(), tiny_world.processor()

    def fit(memory, **options):
        monkeypatch.setattr(batches, "free_memory", lambda device: memory)
        decoding = Decoding(**{"anchor_tokens": 2, "max_new_tokens": 6, **options})
        return fitting(model, processor, ROWS[:2], decoding)

    assert fit(10**12) == batches.MOST and fit(10**12, samples=6) == batches.MOST // 6
    assert fit(0) == 1 and fit(0, samples=6) == 1
    some = fit(4 * 10**6)
    assert 1 < some < batches.MOST and some / 3 < fit(2 * 10**6) < some
    assert fit(4 * 10**6, max_new_tokens=100) < some


@pytest.mark.parametrize("name", ["llava", "gemma3", "qwen2_5_vl"])
def test_the_cache_is_counted_right(name, monkeypatch):
    """What is left of the bytes of an answer without everything else is that of a filled cache."""
    model, _ = families.built(name)
    config = model.config.get_text_config(decoder=True)
    S, tokens = 40, 9
    cache = DynamicCache(config=config)
    shape = (1, config.num_key_value_heads, S + tokens, getattr(config, "head_dim", None) or 8)
    for layer in range(config.num_hidden_layers):
        cache.update(torch.zeros(shape), torch.zeros(shape), layer)
        # Further steps, after which a window holds no more than itself.
        cache.update(torch.zeros(shape)[:, :, :1], torch.zeros(shape)[:, :, :1], layer)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    most = max(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    plain = {"vocab_size": 0, "hidden_size": 0, "intermediate_size": 0}
    for key, value in plain.items():
        monkeypatch.setattr(config, key, value)
    monkeypatch.setattr(config, "head_dim", shape[3], raising=False)
    decoding = Decoding(anchor_tokens=1, max_new_tokens=tokens + 1)
    sums = 4 * (tokens + 1) * 5 * config.num_hidden_layers
    mask = S**2 * (1 + 4)
    counted = batches.answer_bytes(model, S, 0, decoding) - sums - mask
    # A window keeps one position less than it sees.
    slack = 2 * config.num_hidden_layers * 2 * config.num_key_value_heads * shape[3] * 4
    assert 0 <= counted - held - most <= slack


def test_free_memory_is_that_of_the_container(tmp_path, monkeypatch):
    total = free_memory(torch.device("cpu"))
    assert total > 2**20
    limit, used = tmp_path / "max", tmp_path / "current"
    limit.write_text(f"{2**21}\n"), used.write_text(f"{2**20}\n")
    monkeypatch.setattr(batches, "CGROUPS", ((limit, used),))
    assert free_memory(torch.device("cpu")) == 2**20
    limit.write_text("max\n")
    assert free_memory(torch.device("cpu")) > 2**20


@pytest.mark.parametrize("wrong", ["all", 0, -3, 2.5, None])
def test_the_setting_is_a_number_or_auto(wrong):
    params = read(ROOT / "params.yaml")
    assert load(params, "answer", Config).batch == "auto"
    params["answer"]["batch"] = 7
    assert load(params, "answer", Config).batch == 7
    params["answer"]["batch"] = wrong
    with pytest.raises(InputError, match=r"answer\.batch: expected auto, or a number of at least"):
        load(params, "answer", Config)


def test_no_rows_are_no_batches():
    assert not list(answered(SimpleNamespace(), None, [], DECODING, "auto", lambda row: row))
