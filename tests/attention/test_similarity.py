"""Similarity of hidden states with the picture's: values, precision, cost, and who is seen."""

import threading

import pytest
import torch

from adapt.attention.capture import decoder_of
from adapt.attention.layout import Layout, View, layout_of
from adapt.attention.similarity import PatchSimilarity, measures
from adapt.generation.answer import Decoding, answer
from adapt.models.prompts import prompt_inputs
from tests.support import tiny_world

IMAGES = [[tiny_world.picture(0)], [tiny_world.picture(1)]]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def answers(model, **options):
    decoding = Decoding(**{"anchor_tokens": 3, "max_new_tokens": 8, **options})
    processor = tiny_world.processor()
    return answer(model, processor, IMAGES, tiny_world.QUESTIONS, decoding)


def inputs(model):
    return prompt_inputs(model, tiny_world.processor(), IMAGES, tiny_world.QUESTIONS)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_precision_equals_its_own_hidden_states(dtype):
    """The states that `generate` itself hands back, compared in float64: no rounding is added."""
    model = tiny_world.model().to(dtype)
    found = answers(model, similarity=True)
    assert found.similarity_BTPM.dtype == found.prelim_BTL.dtype == torch.float32
    asked = inputs(model)
    options = {"return_dict_in_generate": True, "output_hidden_states": True}
    out = model.generate(**asked, max_new_tokens=8, do_sample=False, **options)
    assert torch.equal(out.sequences[:, -found.tokens_BT.shape[1] :], found.tokens_BT)
    columns = found.layout.columns_BN
    for place, layer in enumerate((2, 3)):  # of hidden_states[0..3]
        patches = torch.stack([out.hidden_states[0][layer][b, columns[b]] for b in range(2)])
        steps = torch.stack([step[layer][:, -1] for step in out.hidden_states], 1)
        cosines = torch.nn.functional.cosine_similarity(
            steps.double()[:, :, None], patches.double()[:, None], dim=-1
        )
        wanted = torch.stack([cosines.topk(5).values.mean(-1), cosines.mean(-1)], -1).float()
        torch.testing.assert_close(found.similarity_BTPM[:, :, place], wanted, atol=1e-6, rtol=1e-5)


def test_looking_at_hidden_states_changes_nothing_else():
    model = tiny_world.model()
    blind, before = answers(model), hooks(model)
    seeing = answers(model, similarity=True)
    assert torch.equal(blind.tokens_BT, seeing.tokens_BT)
    assert torch.equal(blind.heat_BTN, seeing.heat_BTN)
    assert torch.equal(blind.prelim_BTL, seeing.prelim_BTL)
    assert blind.similarity_BTPM.shape == (2, 8, 0, 2) and seeing.similarity_BTPM.shape[2] == 2
    assert hooks(model) == before, "ours are gone, transformers' own are left"


def hooks(model) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def test_samples_of_one_prompt_stand_side_by_side():
    model = tiny_world.model()
    drawn = answers(model, similarity=True, samples=2, temperature=0.01, seed=1)
    greedy = answers(model, similarity=True)
    assert torch.equal(drawn.tokens_BT[::2], greedy.tokens_BT)
    torch.testing.assert_close(drawn.similarity_BTPM[::2], greedy.similarity_BTPM)
    torch.testing.assert_close(drawn.similarity_BTPM[1::2], greedy.similarity_BTPM)


def test_no_pass_is_added_and_a_step_is_one_product_a_place(monkeypatch):
    """As many calls of the decoder as without, and per step and place one product of N x D."""
    model, passes, products = tiny_world.model(), [], []
    from adapt.attention import similarity

    counted = similarity.products
    monkeypatch.setattr(
        similarity, "products", lambda a, b: products.append(a.shape) or counted(a, b)
    )
    hook = decoder_of(model).register_forward_pre_hook(lambda *_: passes.append(1))
    answers(model)
    plain, _ = len(passes), passes.clear()
    assert not products, "nothing is compared unless it was asked for"
    answers(model, similarity=True)
    hook.remove()
    assert plain == len(passes) == 8
    assert products == [(2, 16, 32)] * 2 * 8, "[B, N, D], whatever the length of the answer so far"


def test_separators_and_padding_are_no_patches_and_few_patches_are_averaged():
    views = (
        View(0, 0, "whole", (2, 3), (1, 2, 3, 5, 6, 7), (0, 1, 2, 4, 5, 6)),
        View(1, 0, "whole", (1, 3), (1, 2, 3), (0, 1, 2)),
    )
    columns = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, -1, -1, -1, -1, -1]])
    seen = PatchSimilarity(Layout(columns, views))._is_patch_BN
    assert seen.tolist() == [[True] * 3 + [False] + [True] * 3 + [False], [True] * 3 + [False] * 5]
    cosines = torch.tensor([[0.1, 0.2, 0.3, 9.0, 0.4, 0.5, 0.6, 9.0], [0.3, 0.3, 0.9] + [9.0] * 5])
    found = measures(cosines[:, None], seen)[:, 0]
    torch.testing.assert_close(found, torch.tensor([[0.4, 0.35], [0.5, 0.5]]))


def test_another_thread_of_the_same_model_is_not_looked_at():
    model = tiny_world.model()
    asked = inputs(model)
    seen = PatchSimilarity(layout_of(model, asked))
    with torch.no_grad(), seen.watching(model):
        thread = threading.Thread(target=lambda: model(**asked))
        thread.start()
        thread.join()
        assert seen._step == 0 and not seen._cosines
        model(**asked)
    assert seen._step == 1 and seen.of(1).shape == (2, 1, 2, 2)
