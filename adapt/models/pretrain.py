"""Training of the embedded default model from nothing, in two phases that make it take minutes.

1. The vision tower learns to name the object and its colour under every patch (labels from the boxes).
2. Projector and language model learn to answer; the tower is frozen, so its features are computed once.
From answers alone the same model needs many times longer. The answers are the noisy ones where there are any: they
sometimes mention an absent object of the same theme, and the model learns that language prior (it hallucinates).

Shapes: B batch, N image tokens, S sequence, C channels, X x Y pixels, D width.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.attention.decode import chat_prompts
from adapt.data.schema import Example, Vocabulary, open_image
from adapt.progress import track

Log = Callable[[int, Mapping[str, float]], None]
LOG_EVERY = 10
DESCRIBE_SHARE = 0.5  # of the rows drawn in phase 2: descriptions are long, the other kinds are a few words


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """Steps and batch sizes of both phases; `learning_rate` is the peak of a one-cycle schedule."""

    vision_steps: int
    vision_batch: int
    language_steps: int
    language_batch: int
    learning_rate: float


def pretrain(
    model: Any, processor: Any, rows: Sequence[Example], vocabulary: Vocabulary, plan: Schedule, seed: int, log: Log
) -> None:
    """Train `model` in place; logs `vision_loss`, `vision_accuracy` and `language_loss` by step."""
    generator = torch.Generator().manual_seed(seed)
    index_of, pixels = _images(processor, rows)
    labels = torch.stack([_patch_labels(e, model.config, vocabulary) for e in _first_of_each(rows)])
    _train_tower(model, pixels, labels, vocabulary, plan, generator, log)
    features = _tower_features(model, pixels)
    _train_language(model, processor, rows, [index_of[e.image_id] for e in rows], features, plan, generator, log)


def _first_of_each(rows: Sequence[Example]) -> list[Example]:
    return list({e.image_id: e for e in reversed(rows)}.values())[::-1]


def _images(processor: Any, rows: Sequence[Example]) -> tuple[dict[str, int], Tensor]:
    """Pixel values of every distinct image, [images, C, X, Y], and where each image id is."""
    unique = _first_of_each(rows)
    pixels = [
        processor.image_processor(images=open_image(e), return_tensors="pt")["pixel_values"]
        for e in track(unique, "reading images")
    ]
    return {e.image_id: i for i, e in enumerate(unique)}, torch.cat(pixels)


def _patch_labels(example: Example, config: Any, vocabulary: Vocabulary) -> Tensor:
    """[2, N]: object and colour index (from 1; 0 is background) of the box that covers each patch's centre."""
    side = config.vision_config.image_size // config.vision_config.patch_size
    centre = (torch.arange(side) + 0.5) / side
    names, colours = list(vocabulary.objects), list(vocabulary.colours)
    labels = torch.zeros(2, side, side, dtype=torch.long)
    for thing in example.objects:
        x0, y0, x1, y1 = thing.box
        inside = ((centre >= y0) & (centre <= y1))[:, None] & ((centre >= x0) & (centre <= x1))[None]
        labels[0][inside] = names.index(thing.name) + 1
        if thing.colour:
            labels[1][inside] = colours.index(thing.colour) + 1
    return labels.flatten(1)


def _optimiser(parameters: list[nn.Parameter], plan: Schedule, steps: int) -> tuple[Any, Any]:
    optimiser = torch.optim.AdamW(parameters, lr=plan.learning_rate, weight_decay=0.01)
    # The warm-up must not be exactly one step: OneCycleLR then divides by zero.
    share = 0.1 if steps > 20 else 0.3
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, plan.learning_rate, total_steps=steps, pct_start=share)
    return optimiser, schedule


def _step(loss: Tensor, parameters: list[nn.Parameter], optimiser: Any, schedule: Any) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimiser.step()
    schedule.step()


def _hidden(model: Any, pixels: Tensor) -> Tensor:
    """What the projector reads: patch states of the tower's last layer, [B, N, D]."""
    return model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-1][:, 1:]


def _train_tower(
    model: Any, pixels: Tensor, labels: Tensor, vocabulary: Vocabulary, plan: Schedule, generator: Any, log: Log
) -> None:
    width = model.config.vision_config.hidden_size
    with torch.random.fork_rng():
        torch.manual_seed(generator.initial_seed())
        heads = nn.ModuleList([nn.Linear(width, len(words) + 1) for words in (vocabulary.objects, vocabulary.colours)])
    parameters = [*model.model.vision_tower.parameters(), *heads.parameters()]
    optimiser, schedule = _optimiser(parameters, plan, plan.vision_steps)
    for step in track(range(1, plan.vision_steps + 1), "vision tower"):
        pick = torch.randint(len(pixels), (plan.vision_batch,), generator=generator)
        hidden = _hidden(model, pixels[pick])
        logits = [head(hidden) for head in heads]
        loss = sum(F.cross_entropy(p.flatten(0, 1), labels[pick, i].flatten()) for i, p in enumerate(logits))
        _step(loss, parameters, optimiser, schedule)
        if step % LOG_EVERY == 0:
            on_object = labels[pick, 0] > 0
            right = (logits[0].argmax(-1) == labels[pick, 0])[on_object].float().mean()
            log(step, {"vision_loss": float(loss.detach()), "vision_accuracy": float(right)})


@torch.no_grad()
def _tower_features(model: Any, pixels: Tensor) -> Tensor:
    return torch.cat([_hidden(model, part) for part in track(pixels.split(256), "image features")])


def _tokens(model: Any, processor: Any, rows: Sequence[Example]) -> list[tuple[list[int], int]]:
    """Token ids of prompt + answer, and the length of the prompt, for every row."""
    questions = sorted({e.question for e in rows})
    image = processor.image_token * model.config.image_seq_length
    prompts = {
        q: processor.tokenizer(p.replace(processor.image_token, image), add_special_tokens=False)["input_ids"]
        for q, p in zip(questions, chat_prompts(processor, questions), strict=True)
    }
    answers = processor.tokenizer(
        [(e.noisy_answer or e.answer) + processor.tokenizer.eos_token for e in rows], add_special_tokens=False
    )["input_ids"]
    return [(prompts[e.question] + ids, len(prompts[e.question])) for e, ids in zip(rows, answers, strict=True)]


def _train_language(
    model: Any,
    processor: Any,
    rows: Sequence[Example],
    image_of_row: Sequence[int],
    features: Tensor,
    plan: Schedule,
    generator: Any,
    log: Log,
) -> None:
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    tokens = _tokens(model, processor, rows)
    images = torch.tensor(image_of_row)
    chance = _row_chances(rows)
    trained = (model.model.multi_modal_projector, model.model.language_model, model.lm_head)
    parameters = list(dict.fromkeys(p for part in trained for p in part.parameters()))  # tied weights once
    optimiser, schedule = _optimiser(parameters, plan, plan.language_steps)
    for step in track(range(1, plan.language_steps + 1), "language model"):
        pick = torch.multinomial(chance, plan.language_batch, replacement=True, generator=generator)
        batch = _padded([tokens[i] for i in pick.tolist()], processor.tokenizer.pad_token_id)
        projected = model.model.multi_modal_projector(features[images[pick]])
        encoded = BaseModelOutputWithPooling(pooler_output=list(projected))
        loss = model(**batch, mm_encoder_outputs={"image": encoded}, use_cache=False).loss
        _step(loss, parameters, optimiser, schedule)
        if step % LOG_EVERY == 0:
            log(plan.vision_steps + step, {"language_loss": float(loss.detach())})


def _row_chances(rows: Sequence[Example]) -> Tensor:
    describe = torch.tensor([e.kind == "describe" for e in rows])
    chance = torch.where(
        describe,
        DESCRIBE_SHARE / describe.sum().clamp_min(1),
        (1 - DESCRIBE_SHARE) / (~describe).sum().clamp_min(1),
    )
    return chance.float()


def _padded(items: Sequence[tuple[list[int], int]], pad: int) -> dict[str, Tensor]:
    """Right-padded batch; labels cover the answer only (-100 elsewhere)."""
    longest = max(len(ids) for ids, _ in items)
    input_ids = torch.full((len(items), longest), pad)
    labels = torch.full_like(input_ids, -100)
    for row, (ids, prompt) in enumerate(items):
        input_ids[row, : len(ids)] = torch.tensor(ids)
        labels[row, prompt : len(ids)] = torch.tensor(ids[prompt:])
    return {"input_ids": input_ids, "labels": labels, "attention_mask": (input_ids != pad).long()}
