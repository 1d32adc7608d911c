"""A checkpoint's generation defaults change nothing, and come back as they were."""

import pytest
import torch

from adapt.generation import own_config as configs
from adapt.generation.answer import Decoding, answer
from adapt.params import InputError
from tests.support import tiny_world

IMAGES = [[tiny_world.picture(0)], [tiny_world.picture(1)]]
DEFAULTS = {
    "as Qwen2-VL ships it": {"do_sample": True, "top_p": 0.001, "top_k": 1, "temperature": 0.01},
    "penalties": {"repetition_penalty": 1.8, "no_repeat_ngram_size": 1, "min_length": 60},
    "beams": {"num_beams": 3, "num_return_sequences": 3, "length_penalty": 2.0},
    "outputs": {"return_dict_in_generate": True, "output_scores": True, "output_attentions": True},
    "guidance": {"guidance_scale": 3.0},
    "contrastive": {"penalty_alpha": 0.6, "top_k": 4},
    "forced": {"forced_bos_token_id": 9, "forced_eos_token_id": 9},
    "others": {"bad_words_ids": [[9], [10]], "sequence_bias": [[[9], 9.0]], "max_time": 1e-9},
    "no cache": {"use_cache": False},
    "static cache": {"cache_implementation": "static"},
    "lookup": {"prompt_lookup_num_tokens": 3},
    "stop strings": {"stop_strings": ["a"]},
    "lengths": {"max_length": 3, "max_new_tokens": 2},
}


def answers(model, **options):
    decoding = Decoding(**{"anchor_tokens": 2, "max_new_tokens": 8, **options})
    return answer(model, tiny_world.processor(), IMAGES, tiny_world.QUESTIONS, decoding)


@pytest.mark.parametrize("name", DEFAULTS)
@pytest.mark.parametrize("sampling", [{}, {"samples": 2, "temperature": 1.0}], ids=["", "sampled"])
def test_defaults_of_a_checkpoint_change_nothing(name, sampling):
    plain, model = answers(tiny_world.model(), **sampling), tiny_world.model()
    model.generation_config.update(**DEFAULTS[name])
    before = model.generation_config.to_dict()
    found = answers(model, **sampling)
    assert found.texts == plain.texts and torch.equal(found.tokens_BT, plain.tokens_BT)
    torch.testing.assert_close(found.logprob_BT, plain.logprob_BT, atol=1e-6, rtol=1e-5)
    assert model.generation_config.to_dict() == before


def test_samples_of_a_row_differ_also_where_the_checkpoint_wants_one_word():
    model = tiny_world.model()
    model.generation_config.update(top_p=0.001, do_sample=True)
    texts = answers(model, samples=6, temperature=1.0).texts
    assert len({*texts[:6]}) > 1 and len({*texts[6:]}) > 1


def test_what_is_dropped_is_said_once_in_one_line(capsys):
    model = tiny_world.model()
    model.generation_config.update(**DEFAULTS["as Qwen2-VL ships it"])
    answers(model), answers(model)
    said = capsys.readouterr().err
    assert said.count("generation_config has no effect here") == 1
    assert "do_sample True, temperature 0.01, top_k 1, top_p 0.001" in said
    answers(tiny_world.model())
    assert "no effect" not in capsys.readouterr().err, "nothing to say of a plain model"


def test_the_models_config_comes_back_after_an_error():
    model = tiny_world.model()
    before = model.generation_config
    with pytest.raises(RuntimeError), configs.own_config(model, tiny_world.processor(), 4) as own:
        assert model.generation_config is own
        raise RuntimeError
    assert model.generation_config is before


def test_suppressed_tokens_stay_suppressed():
    free = answers(tiny_world.model())
    model, never = tiny_world.model(), int(free.tokens_BT[0, 0])
    model.generation_config.suppress_tokens = [never]
    assert not (answers(model).tokens_BT == never).any()
    model = tiny_world.model()
    model.generation_config.begin_suppress_tokens = [never]
    assert int(answers(model).tokens_BT[0, 0]) != never


def test_any_of_the_end_tokens_ends_an_answer_and_stays_out_of_its_text():
    free = answers(tiny_world.model(), max_new_tokens=24)
    words, processor = free.tokens_BT[0].tolist(), tiny_world.processor()
    model, end = tiny_world.model(), words[3]
    model.generation_config.eos_token_id = [processor.tokenizer.eos_token_id, end]
    found = answers(model, max_new_tokens=24)
    at = words.index(end)
    assert int(found.mask_BT[0].sum()) == at
    assert found.texts[0] == processor.decode(words[:at], skip_special_tokens=True)
    assert found.mask_BT.sum(1).max() <= found.tokens_BT.shape[1]


def test_a_pad_token_exists_in_any_case():
    model, processor = tiny_world.model(), tiny_world.processor()
    assert configs.pad_token(model, processor, (3, 8)) == processor.tokenizer.pad_token_id
    model.generation_config.pad_token_id = -1  # as early LLaMA checkpoints have it
    assert configs.pad_token(model, processor, (3, 8)) == processor.tokenizer.pad_token_id
    model.generation_config.pad_token_id = 10**9
    assert configs.pad_token(model, processor, (3, 8)) == processor.tokenizer.pad_token_id
    model.generation_config.pad_token_id = 5
    assert configs.pad_token(model, processor, (3, 8)) == 5


def test_no_end_token_is_one_line():
    model = tiny_world.model()
    model.generation_config.eos_token_id = [10**9]
    with pytest.raises(InputError, match="eos_token_id: 1000000000 is no token"):
        answers(model)
