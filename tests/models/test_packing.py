"""Rows about one picture in one sequence: losses, looks and gradients of each row alone."""

import pytest
import torch
import torch.nn.functional as F

from adapt.attention.capture import RowCapture, observed
from adapt.models.grounding import Place
from adapt.models.packing import IGNORED, Row, packed
from tests.support import tiny_world

N = 16  # image tokens
BEGINNING = 2 + N


def row(picture: int, ids: list[int], answer: int, noun: int, repeated: int, deciding: int) -> Row:
    """A row after the common beginning; its positions count from there, -1 for none."""
    image = tiny_world.model().config.image_token_id
    at = [BEGINNING + i if i >= 0 else -1 for i in (noun, repeated, deciding)]
    names = ("token", "repeated", "deciding")
    place = Place(**dict(zip(names, at, strict=True)), patches_N=torch.zeros(N, dtype=torch.bool))
    tokens = [2, 5, *[image] * N, *ids]
    about = {"answer": BEGINNING + answer, "image": picture, "place": place}
    return Row(ids=tokens, **about, weight=1.0 + answer)


GROUPS = [
    [
        row(0, [7, 8, 9, 10, 6, 11, 12, 3], answer=5, noun=-1, repeated=-1, deciding=-1),
        row(0, [13, 9, 6, 8, 9, 14, 3], answer=3, noun=1, repeated=4, deciding=4),
    ],
    [row(1, [12, 10, 6, 8, 3], answer=3, noun=1, repeated=-1, deciding=2)],
]


@pytest.fixture(scope="module")
def model():
    return tiny_world.model()


def pass_of(model, inputs, pixels, rows_BR, columns_BN):
    capture = RowCapture(rows_BR, columns_BN)
    with observed(model, capture):
        logits = model(**inputs, pixel_values=pixels, use_cache=False).logits
    return logits, capture.stacked()


def alone(model, one: Row, pixels):
    """Loss of a row by itself, and its attention: [L, 2, N + 2], as far as it has these tokens."""
    ids, place = torch.tensor([one.ids]), one.place
    image = torch.arange(2, BEGINNING)
    rows = torch.tensor([[place.token, place.deciding]])
    columns = torch.cat([image, torch.tensor([place.token, place.repeated])])[None]
    logits, maps = pass_of(model, {"input_ids": ids}, pixels[[one.image]], rows, columns)
    answer = torch.tensor(one.ids[one.answer :])
    return F.cross_entropy(logits[0, one.answer - 1 : -1], answer), maps[0]


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def test_packed_rows_are_computed_as_each_would_be_alone(model):
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    batch = packed(GROUPS, shared=BEGINNING, pad=0)
    looks = batch.looks(model.config.image_token_id)
    logits, maps = pass_of(model, batch.inputs, pixels, looks.rows_BQ, looks.columns_BM)
    losses = F.cross_entropy(
        logits[:, :-1].transpose(1, 2), batch.labels_BS[:, 1:], reduction="none"
    )
    means_BR, weights_BR = batch.means(F.pad(losses, (1, 0))), batch.weights()
    nouns, deciding, at_nouns = looks.maps(maps)
    assert means_BR.shape == (2, 2) and weights_BR.tolist() == [[6.0, 4.0], [4.0, 0.0]]
    expected = {}
    for at, one in ((0, GROUPS[0][0]), (1, GROUPS[0][1]), (2, GROUPS[1][0])):
        expected[at], seen = alone(model, one, pixels)
        torch.testing.assert_close(means_BR.flatten()[at], expected[at], atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(nouns[at], seen[:, 0, :N], atol=1e-6, rtol=0)
        torch.testing.assert_close(deciding[at], seen[:, 1, :N], atol=1e-6, rtol=0)
        torch.testing.assert_close(at_nouns[at], seen[:, 1, N:], atol=1e-6, rtol=0)
        assert looks.places[at] is one.place
    # A row that is not there weighs nothing, looks nowhere and has no loss.
    assert means_BR[1, 1] == 0 and looks.places[3].token == looks.places[3].deciding == -1
    assert not nouns[3].any() and not at_nouns[3].any()
    ours = gradients(model, (means_BR * weights_BR).sum() / weights_BR.sum())
    mean = (6 * expected[0] + 4 * expected[1] + 4 * expected[2]) / 14
    for one, two in zip(ours, gradients(model, mean), strict=True):
        torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-4)


def test_only_answers_are_learnt_and_each_token_has_its_owner():
    batch = packed(GROUPS, shared=BEGINNING, pad=0)
    said = batch.labels_BS != IGNORED
    assert batch.labels_BS[said].tolist() == [11, 12, 3, 8, 9, 14, 3, 8, 3]
    assert batch.owner_BS[said].tolist() == [0, 0, 0, 1, 1, 1, 1, 0, 0]
    torch.testing.assert_close(batch.inputs["input_ids"][said], batch.labels_BS[said])
    assert batch.inputs["position_ids"][0, -1] == len(GROUPS[0][1].ids) - 1
