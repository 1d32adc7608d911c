"""Every family: positions and grids by painting patches, capture and decoding against eager."""

import copy

import pytest
import torch
from PIL import ImageDraw

from adapt.attention.capture import RowCapture, decoder_of, observed
from adapt.attention.grids import FAMILIES
from adapt.attention.layout import layout_of
from adapt.generation.answer import Decoding, answer
from adapt.generation.settings import SteerConfig
from adapt.models.prompts import prompt_inputs
from tests.support import families
from tests.support.families import CASES, built, inputs, picture

# PaliGemma's processor warns.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
NAMES = list(CASES)
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


def embeddings(name, batch):
    """What the decoder reads, [B, S, D]."""
    seen = []
    model = built(name)[0]
    hook = decoder_of(model).register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    with torch.no_grad():
        model(**batch)
    hook.remove()
    return seen[0]


def middle(image, frame, grid, cell):
    """The middle of a cell of the grid over `frame`, where the picture is centred: its (x, y)."""
    x, y = (
        (at + 0.5) * side / count
        for at, side, count in zip(cell[::-1], frame, grid[::-1], strict=True)
    )
    return x - (frame[0] - image.width) / 2, y - (frame[1] - image.height) / 2


def painted(image, frame, grid, cell):
    """The picture with a white spot in the middle of one cell."""
    x, y = middle(image, frame, grid, cell)
    width, height = frame[0] / grid[1] / 4, frame[1] / grid[0] / 4
    copied = image.copy()
    spot = (int(x - width), int(y - height), int(x + width - 0.5), int(y + height - 0.5))
    ImageDraw.Draw(copied).rectangle(spot, fill=(255, 255, 255))
    return copied


def reached(name, pictures, sample, image, frame, grid, side, every):
    """Cells of a grid over one picture, and how much painting each changes positions, [cells, S].

    All cells or, not to take forever, the corners. Also asserts that no other sample and no
    position outside of the image tokens notices.
    """
    rows, columns = range(grid[0]), range(grid[1])
    wanted = [
        (r, c)
        for r in (rows if every else rows[:: len(rows) - 1])
        for c in (columns if every else columns[:: len(columns) - 1])
    ]
    one = pictures[sample][image]
    columns = layout_of(built(name)[0], inputs(name, pictures, side=side)).columns_BN
    before = embeddings(name, inputs(name, pictures, side=side))
    cells, changes = [], []
    for cell in wanted:
        x, y = middle(one, frame, grid, cell)
        if not (0 < x < one.width and 0 < y < one.height):
            continue  # in the padding
        changed = [list(row) for row in pictures]
        changed[sample][image] = painted(one, frame, grid, cell)
        change = (embeddings(name, inputs(name, changed, side=side)) - before).norm(dim=-1)
        elsewhere = change.clone()
        elsewhere[sample, columns[sample][columns[sample] >= 0]] = 0
        assert float(elsewhere.max()) == 0
        cells.append(cell)
        changes.append(change[sample])
    return cells, torch.stack(changes)


def prove(name, pictures, side, every):
    """Painting cell (r, c) of a picture changes token (r, c) of its view most, and no separator."""
    case, layout = CASES[name], layout_of(built(name)[0], inputs(name, pictures, side=side))
    for sample, row in enumerate(pictures):
        for image, content in enumerate(row):
            views = [v for v in layout.views if (v.sample, v.image) == (sample, image)]
            padded = len(row) > 1 and bool(case.shared)
            assert tuple((v.kind, v.grid) for v in views) == (
                case.shared if padded else case.views[content.size]
            )
            frame = (max(content.size),) * 2 if padded else content.size
            for board in families.boards(name, content.size, views):
                prove_board(name, pictures, sample, image, frame, board, side, every)


def prove_board(name, pictures, sample, image, frame, board, side, every):
    """`board`: views that lie beside each other, and together cover the frame."""
    rows, columns = board[0][0].grid
    grid = rows * len(board), columns * len(board[0])
    cells, change = reached(
        name,
        pictures,
        sample,
        image,
        frame,
        grid,
        side,
        every or frame != pictures[sample][image].size,
    )
    own = [
        board[r // rows][c // columns].columns[r % rows * columns + c % columns] for r, c in cells
    ]
    assert len(set(own)) == len(own) > 1
    candidates = [column for line in board for view in line for column in view.columns]
    assert [candidates[i] for i in change[:, candidates].argmax(1)] == own
    in_views = {
        c
        for v in layout_of(built(name)[0], inputs(name, pictures, side=side)).views
        for c in v.columns
    }
    others = [c for c in range(change.shape[1]) if c not in in_views]
    assert float(change[:, others].max()) == 0, "a separator has changed"


@pytest.mark.parametrize("name", NAMES)
def test_every_patch_is_where_the_layout_says(name):
    for size in CASES[name].views:
        prove(name, [[picture(size)]], "right", every=True)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", NAMES)
def test_several_images_and_grids_in_one_batch(name, side):
    small, large = CASES[name].views
    prove(name, [[picture(small, 1), picture(large, 2)], [picture(large, 3)]], side, every=False)


def eager_maps(name, batch):
    """Reference: eager attention of a copy, mean over heads, [B, L, S, S], and the copy."""
    twin = copy.deepcopy(built(name)[0])
    twin.set_attn_implementation("eager")
    return torch.stack(twin(**batch, output_attentions=True).attentions, 1).mean(2), twin


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", NAMES)
def test_capture_equals_eager_and_output_equals_sdpa(name, side):
    small, large = CASES[name].views
    words = families.ANSWER.split()
    answers = [" " + " ".join(words[:6]), " " + " ".join(words[:9])]
    batch = inputs(name, [[picture(small), picture(large, 1)], [picture(large, 2)]], answers, side)
    model = copy.deepcopy(built(name)[0])
    columns = layout_of(model, batch).columns_BN
    ends = batch["attention_mask"].cumsum(1).argmax(1)
    rows = ends[:, None] - torch.arange(5, -1, -1)
    capture = RowCapture(rows, columns)
    with torch.no_grad():
        plain = model(**batch).logits
    with observed(model, capture):
        assert torch.equal(model(**batch).logits, plain)
    reference, twin = eager_maps(name, batch)
    for b, row in enumerate(columns):
        real = row[row >= 0]
        wanted = reference[b][:, rows[b]][:, :, real]
        torch.testing.assert_close(capture.stacked()[b][:, :, row >= 0], wanted, **TOLERANCE)
        assert not capture.stacked()[b][:, :, row < 0].any()
    capture.stacked().square().sum().backward()
    sum(
        reference[b][:, rows[b]][:, :, row[row >= 0]].square().sum()
        for b, row in enumerate(columns)
    ).backward()
    compared = 0
    for (part, ours), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        if theirs.grad is not None and ours.grad is not None:
            largest = float(theirs.grad.abs().max())
            torch.testing.assert_close(
                ours.grad, theirs.grad, atol=1e-5 * max(1.0, largest), rtol=1e-5, msg=part
            )
            compared += largest > 0
    assert compared > 10


@pytest.mark.parametrize("name", NAMES)
def test_decoding_equals_teacher_forced_eager_with_one_step_a_token(name):
    model, processor = built(name)
    pictures = [[picture(size, seed)] for seed, size in enumerate(CASES[name].views)][:2]
    decoding = Decoding(anchor_tokens=5, max_new_tokens=5, similarity=True)
    answers = answer(model, processor, pictures, families.QUESTIONS, decoding)
    batch = prompt_inputs(model, processor, pictures, families.QUESTIONS)
    start = batch["input_ids"].shape[1]
    batch["input_ids"] = torch.cat([batch["input_ids"], answers.tokens_BT], 1)
    batch["attention_mask"] = torch.cat(
        [batch["attention_mask"], torch.ones_like(answers.tokens_BT)], 1
    )
    for key in ("token_type_ids", "mm_token_type_ids"):
        if key in batch:
            generated = torch.full_like(answers.tokens_BT, name == "paligemma")
            batch[key] = torch.cat([batch[key], generated], 1)
    whole = {k: v for k, v in batch.items() if k != "labels"}
    reference, twin = eager_maps(name, whole)
    assert answers.first_BKLN.shape[1] == answers.tokens_BT.shape[1]
    for b, row in enumerate(answers.layout.columns_BN):
        wanted = reference[b][:, start - 1 : -1][:, :, row[row >= 0]].transpose(0, 1)
        torch.testing.assert_close(answers.first_BKLN[b][:, :, row >= 0], wanted, **TOLERANCE)
    own = reference[:, :, start - 1 : -1, start:].sum(-1).transpose(1, 2)
    torch.testing.assert_close(answers.prelim_BTL, own, **TOLERANCE)
    assert not answers.prelim_BTL[:, 0].any() and answers.prelim_BTL[:, 1:].gt(0).all()
    with torch.no_grad():
        states = twin(**whole, output_hidden_states=True).hidden_states
    wanted = similarities(states, answers.layout, start)
    torch.testing.assert_close(answers.similarity_BTPM, wanted, **TOLERANCE)


def similarities(states, layout, start):
    """Of `output_hidden_states`, patch by patch: [B, T, places, measures]."""
    found = []
    for b in range(len(layout.columns_BN)):
        patches = [column for view in layout.of(b) for column in view.columns]
        for at in (len(states) // 2, -1):
            here = states[at][b]
            cosines = torch.stack(
                [torch.cosine_similarity(here[start - 1 : -1], here[i], dim=-1) for i in patches], 1
            )
            nearest = cosines.sort(1, descending=True).values[:, :5]
            found.append(torch.stack([nearest.mean(1), cosines.mean(1)], 1))
    T, P = found[0].shape[0], 2
    return torch.stack(found).view(-1, P, T, 2).transpose(1, 2)


@pytest.mark.parametrize("name", NAMES)
def test_steering_is_off_at_zero_and_moves_attention_when_on(name):
    model, processor = built(name)
    pictures = [[picture(size, seed)] for seed, size in enumerate(CASES[name].views)][:2]

    def run(steer=None):
        decoding = Decoding(anchor_tokens=2, max_new_tokens=5, steer=steer)
        return answer(model, processor, pictures, families.QUESTIONS, decoding)

    batch = prompt_inputs(model, processor, pictures, families.QUESTIONS)
    start = batch["input_ids"].shape[1]
    plain = model.generate(**batch, max_new_tokens=5, do_sample=False)[:, start:]
    off = SteerConfig(alpha=0.0, tau=1.0, trigger="amc", anchor_share=1.0, layers="all")
    always = SteerConfig(alpha=1.0, tau=100.0, trigger="amc", anchor_share=1.0, layers="all")
    assert torch.equal(run(off).tokens_BT, plain)
    watched, steered = run(), run(always)
    assert torch.equal(watched.tokens_BT, plain)
    assert not steered.fired_BTL[:, :2].any() and steered.fired_BTL[:, 2:].any()
    assert not torch.equal(steered.amc_BTL[:, 2, 0], watched.amc_BTL[:, 2, 0]), (
        "the first steered step"
    )


def test_every_supported_family_is_proven_here():
    assert list(FAMILIES) == list(dict.fromkeys(map(families.model_type, NAMES)))


def test_the_table_in_the_docs_is_current():
    assert families.DOCUMENT.read_text(encoding="utf-8") == families.document(), (
        "run python -m tests.support.families"
    )
