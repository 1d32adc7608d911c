"""Training of the embedded default model from nothing, in two phases that make it take minutes.

1. Vision tower and projector learn to name the object and its colour under every patch, in the word
   embeddings of the language model (labels from the boxes). From then on a patch and the word for
   it point the same way.
2. Projector and language model learn to answer; the tower is frozen, so its features are computed
   once. Where a question names a thing, the model is also shown where to look
   (`adapt/models/grounding.py`).

From answers alone the same model needs many times longer, and does not learn yes/no and colour
questions at all. The answers are the noisy ones where there are any: they follow habit, and the
model learns to hallucinate from it.

Shapes: B batch, N image tokens, S sequence, C channels, X x Y pixels, D width.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.attention.capture import RowCapture, observed
from adapt.attention.layout import image_columns
from adapt.data.schema import Example, Vocabulary, open_image
from adapt.generation.answer import chat_prompts
from adapt.models.grounding import Place, grounding_loss, patches_of, place_of
from adapt.models.settings import Config, ScratchConfig
from adapt.models.tiny import Shape, build_model, build_processor, build_tokenizer
from adapt.params import require
from adapt.progress import Log, track

LOG_EVERY = 10
DESCRIBE_SHARE = 0.4  # of the rows drawn in phase 2; the rest are questions
GROUNDED_LAYERS = (
    0,
)  # where a question's noun meets the patches; later layers carry on what it found


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Row:
    """A training row in tokens: prompt and answer, where the answer starts, which image, where to
    look.
    """

    ids: list[int]
    answer: int
    image: int
    place: Place


def from_scratch(
    config: Config, rows: Sequence[Example], vocabulary: Vocabulary, log: Log
) -> tuple[Any, Any]:
    """The embedded default model, trained on `rows`, in eval mode, and its processor.

    Raises InputError where the patches do not divide the images.
    """
    scratch = config.scratch
    width, height = open_image(rows[0]).size
    require(
        width == height and width % scratch.patch_size == 0,
        "base.scratch.patch_size",
        f"{scratch.patch_size} does not divide square images of {width} x {height} pixels",
    )
    shape = Shape(
        width=scratch.width,
        vision_layers=scratch.vision_layers,
        text_layers=scratch.text_layers,
        heads=scratch.heads,
        patch_size=scratch.patch_size,
        image_size=width,
    )
    tokenizer = build_tokenizer(
        text for row in rows for text in (row.question, row.answer, row.noisy_answer)
    )
    processor = build_processor(tokenizer, shape)
    model = build_model(tokenizer, shape, config.seed)
    pretrain(model, processor, rows, vocabulary, scratch, config.seed, log)
    return model.eval(), processor


def pretrain(
    model: Any,
    processor: Any,
    rows: Sequence[Example],
    vocabulary: Vocabulary,
    plan: ScratchConfig,
    seed: int,
    log: Log,
) -> None:
    """Train `model` in place; logs `vision_loss`, `vision_accuracy`, `language_loss` and
    `grounding_loss` by step.
    """
    generator = torch.Generator().manual_seed(seed)
    index_of, pixels = _images(processor, rows)
    labels = torch.stack([_patch_labels(e, model.config, vocabulary) for e in _first_of_each(rows)])
    _train_tower(model, processor, pixels, labels, vocabulary, plan, generator, log)
    features = _tower_features(model, pixels)
    _train_language(
        model,
        processor,
        rows,
        _rows(model, processor, rows, vocabulary, index_of),
        features,
        plan,
        generator,
        log,
    )


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


def _side(config: Any) -> int:
    return int(config.vision_config.image_size // config.vision_config.patch_size)


def _patch_labels(example: Example, config: Any, vocabulary: Vocabulary) -> Tensor:
    """[2, N]: object and colour index (from 1; 0 is background) of the box that covers each patch's
    centre.
    """
    side, names, colours = _side(config), list(vocabulary.objects), list(vocabulary.colours)
    labels = torch.zeros(2, side * side, dtype=torch.long)
    for thing in example.objects:
        inside = patches_of(thing.box, side)
        labels[0][inside] = names.index(thing.name) + 1
        if thing.colour:
            labels[1][inside] = colours.index(thing.colour) + 1
    return labels


class _PatchWords(nn.Module):
    """Scores of the vocabulary's words for projected patches, by their own embeddings; score 0 is
    "nothing here".
    """

    def __init__(self, model: Any, tokenizer: Any, words: Sequence[str]) -> None:
        super().__init__()
        self.embedding = model.get_input_embeddings()
        pieces = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in words]
        self.pieces = [torch.tensor(ids) for ids in pieces]
        self.nothing = nn.Parameter(torch.zeros(1, self.embedding.weight.shape[1]))
        self.offset = nn.Parameter(torch.zeros(len(words) + 1))
        self.log_scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, projected_BND: Tensor) -> Tensor:
        """[B, N, words + 1]."""
        words = torch.stack([self.embedding(ids).mean(0) for ids in self.pieces])
        return (
            projected_BND @ torch.cat([self.nothing, words]).T * self.log_scale.exp() + self.offset
        )


def _optimiser(parameters: list[nn.Parameter], plan: ScratchConfig, steps: int) -> tuple[Any, Any]:
    optimiser = torch.optim.AdamW(parameters, lr=plan.learning_rate, weight_decay=0.01)
    # The warm-up must not be exactly one step: OneCycleLR then divides by zero.
    share = 0.1 if steps > 20 else 0.3
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, plan.learning_rate, total_steps=steps, pct_start=share
    )
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
    model: Any,
    processor: Any,
    pixels: Tensor,
    labels: Tensor,
    vocabulary: Vocabulary,
    plan: ScratchConfig,
    generator: Any,
    log: Log,
) -> None:
    heads = nn.ModuleList(
        [
            _PatchWords(model, processor.tokenizer, list(w))
            for w in (vocabulary.objects, vocabulary.colours)
        ]
    )
    parts = (model.model.vision_tower, model.model.multi_modal_projector, heads)
    parameters = list(dict.fromkeys(p for part in parts for p in part.parameters()))
    optimiser, schedule = _optimiser(parameters, plan, plan.vision_steps)
    for step in track(range(1, plan.vision_steps + 1), "vision tower"):
        pick = torch.randint(len(pixels), (plan.vision_batch,), generator=generator)
        projected = model.model.multi_modal_projector(_hidden(model, pixels[pick]))
        logits = [head(projected) for head in heads]
        loss = sum(
            F.cross_entropy(p.flatten(0, 1), labels[pick, i].flatten())
            for i, p in enumerate(logits)
        )
        _step(loss, parameters, optimiser, schedule)
        if step % LOG_EVERY == 0:
            on_object = labels[pick, 0] > 0
            right = (logits[0].argmax(-1) == labels[pick, 0])[on_object].float().mean()
            log(step, {"vision_loss": float(loss.detach()), "vision_accuracy": float(right)})


@torch.no_grad()
def _tower_features(model: Any, pixels: Tensor) -> Tensor:
    return torch.cat([_hidden(model, part) for part in track(pixels.split(256), "image features")])


def _rows(
    model: Any,
    processor: Any,
    rows: Sequence[Example],
    vocabulary: Vocabulary,
    index_of: Mapping[str, int],
) -> list[_Row]:
    """Every row in tokens; a question's prompt is made once."""
    questions = sorted({e.question for e in rows})
    image = processor.image_token * model.config.image_seq_length
    texts = [p.replace(processor.image_token, image) for p in chat_prompts(processor, questions)]
    encoded = [processor.tokenizer(text, add_special_tokens=False) for text in texts]
    prompts = dict(zip(questions, zip(texts, encoded, strict=True), strict=True))
    answers = processor.tokenizer(
        [(e.noisy_answer or e.answer) + processor.tokenizer.eos_token for e in rows],
        add_special_tokens=False,
    )["input_ids"]
    made = []
    for e, answer in zip(rows, answers, strict=True):
        text, prompt = prompts[e.question]
        place = place_of(e, vocabulary, text, prompt, _side(model.config))
        ids = prompt["input_ids"]
        made.append(
            _Row(ids=ids + answer, answer=len(ids), image=index_of[e.image_id], place=place)
        )
    return made


def _train_language(
    model: Any,
    processor: Any,
    examples: Sequence[Example],
    rows: Sequence[_Row],
    features: Tensor,
    plan: ScratchConfig,
    generator: Any,
    log: Log,
) -> None:
    chance = _row_chances(examples)
    trained = (model.model.multi_modal_projector, model.model.language_model, model.lm_head)
    parameters = list(
        dict.fromkeys(p for part in trained for p in part.parameters())
    )  # tied weights once
    optimiser, schedule = _optimiser(parameters, plan, plan.language_steps)
    for step in track(range(1, plan.language_steps + 1), "language model"):
        pick = torch.multinomial(chance, plan.language_batch, replacement=True, generator=generator)
        batch = [rows[i] for i in pick.tolist()]
        answering, looking = _language_losses(
            model, batch, features, processor.tokenizer.pad_token_id
        )
        _step(answering + looking, parameters, optimiser, schedule)
        if step % LOG_EVERY == 0:
            seen = {
                "language_loss": float(answering.detach()),
                "grounding_loss": float(looking.detach()),
            }
            log(plan.vision_steps + step, seen)


def _language_losses(
    model: Any, batch: Sequence[_Row], features: Tensor, pad: int
) -> tuple[Tensor, Tensor]:
    """Of answering, the mean over answers (a yes or no weighs as much as a description), and of
    looking.
    """
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    inputs, labels = _padded(batch, pad)
    projected = model.model.multi_modal_projector(
        features[torch.tensor([row.image for row in batch])]
    )
    encoded = BaseModelOutputWithPooling(pooler_output=list(projected))
    rows_B1 = torch.tensor([[row.place.token] for row in batch])
    columns_BN = image_columns(inputs["input_ids"], model.config.image_token_id)
    capture = RowCapture(rows_B1, columns_BN, GROUNDED_LAYERS)
    with observed(model, capture):
        logits = model(**inputs, mm_encoder_outputs={"image": encoded}, use_cache=False).logits
    losses = F.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none")
    answering = (losses.sum(1) / (labels[:, 1:] != -100).sum(1)).mean()
    return answering, grounding_loss(capture.stacked()[:, :, 0], [row.place for row in batch])


def _row_chances(rows: Sequence[Example]) -> Tensor:
    describe = torch.tensor([e.kind == "describe" for e in rows])
    chance = torch.where(
        describe,
        DESCRIBE_SHARE / describe.sum().clamp_min(1),
        (1 - DESCRIBE_SHARE) / (~describe).sum().clamp_min(1),
    )
    return chance.float()


def _padded(items: Sequence[_Row], pad: int) -> tuple[dict[str, Tensor], Tensor]:
    """Right-padded inputs, and labels that cover the answer only (-100 elsewhere)."""
    longest = max(len(row.ids) for row in items)
    input_ids = torch.full((len(items), longest), pad)
    labels = torch.full_like(input_ids, -100)
    for i, row in enumerate(items):
        input_ids[i, : len(row.ids)] = torch.tensor(row.ids)
        labels[i, row.answer : len(row.ids)] = torch.tensor(row.ids[row.answer :])
    return {"input_ids": input_ids, "attention_mask": (input_ids != pad).long()}, labels
