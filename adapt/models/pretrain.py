"""Training of the embedded default model from nothing, in two phases that make it take minutes.

1. Vision tower and projector learn to name the object and its colour under every patch, in the word
   embeddings of the language model (labels from the boxes). From then on a patch and the word for
   it point the same way.
2. Projector and language model learn to answer; the tower is frozen, so its features are computed
   once. Where a question names a thing, the model is also shown where to look, its noun to the end
   and the token that decides the answer for a while (`adapt/models/grounding.py`). The rows of a
   picture go through the model together (`adapt/models/packing.py`).

From answers alone the same model needs many times longer, and does not learn yes/no and colour
questions at all. The answers are the noisy ones where there are any: they follow habit, and the
model learns to hallucinate from it.

Shapes: B batch, N image tokens, R rows of a picture, L layers, S sequence, C channels, X x Y
pixels, D width.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.attention.capture import RowCapture, observed
from adapt.data.scenes import SceneExample
from adapt.data.schema import Example, Vocabulary, open_images
from adapt.models.grounding import (
    decided_at,
    deciding_loss,
    grounding_loss,
    patches_of,
    place_of,
)
from adapt.models.packing import Packed, Row, packed
from adapt.models.prompts import chat_prompts
from adapt.models.settings import Config, ScratchConfig
from adapt.models.tiny import Shape, build_model, build_processor, build_tokenizer
from adapt.params import require
from adapt.progress import Log, track

LOG_EVERY = 10
# Of the loss of answers in phase 2; the rest are questions, which need less of it once they are
# shown the way.
DESCRIBE_SHARE = 0.6
# Deciding tokens are shown where to look for this share of phase 2, less and less.
SCAFFOLDED = 0.3


def from_scratch(
    config: Config, rows: Sequence[SceneExample], vocabulary: Vocabulary, log: Log
) -> tuple[Any, Any]:
    """The embedded default model, trained on scenes, in eval mode, and its processor.

    Logs `vision_loss`, `vision_accuracy`, `language_loss` and `grounding_loss` by step. Raises
    InputError where the patches do not divide the images.
    """
    scratch = config.scratch
    width, height = open_images(rows[0])[0].size
    is_divided = width == height and width % scratch.patch_size == 0
    problem = f"{scratch.patch_size} does not divide square images of {width} x {height} pixels"
    require(is_divided, "base.scratch.patch_size", problem)
    shape = Shape(
        width=scratch.width,
        vision_layers=scratch.vision_layers,
        text_layers=scratch.text_layers,
        heads=scratch.heads,
        patch_size=scratch.patch_size,
        image_size=width,
    )
    texts = (text for row in rows for text in (row.question, row.answer, row.noisy_answer))
    tokenizer = build_tokenizer(texts)
    processor = build_processor(tokenizer, shape)
    model = build_model(tokenizer, shape, config.seed)
    training = _Pretraining(model, processor, vocabulary, config, log)
    images = list({row.image_id: row for row in reversed(rows)}.values())[::-1]  # one row of each
    pixels = training.pixels(images)
    training.tower(pixels, torch.stack([training.patch_labels(row) for row in images]))
    index_of = {row.image_id: i for i, row in enumerate(images)}
    training.language(training.token_rows(rows, index_of), pixels)
    return model.eval(), processor


class _Pretraining:
    """The two phases; one random stream runs through both."""

    def __init__(
        self, model: Any, processor: Any, vocabulary: Vocabulary, config: Config, log: Log
    ) -> None:
        self.model, self.processor, self.tokenizer = model, processor, processor.tokenizer
        self.vocabulary, self.plan, self.log = vocabulary, config.scratch, log
        self.generator = torch.Generator().manual_seed(config.seed)
        vision = model.config.vision_config
        self.side = int(vision.image_size // vision.patch_size)

    def pixels(self, images: Sequence[Example]) -> Tensor:
        """Pixel values, [images, C, X, Y]."""
        process, every = self.processor.image_processor, track(images, "reading images")
        batches = [process(images=open_images(row), return_tensors="pt") for row in every]
        return torch.cat([batch["pixel_values"] for batch in batches])

    # ---- phase 1: the vision tower -----------------------------------------------------------

    def patch_labels(self, row: Example) -> Tensor:
        """[2, N]: object and colour index of the box over each patch's centre; 0 is background."""
        names, colours = list(self.vocabulary.objects), list(self.vocabulary.colours)
        labels = torch.zeros(2, self.side * self.side, dtype=torch.long)
        for thing in row.objects or ():
            assert thing.box is not None, "a drawn thing has a place"
            inside = patches_of(thing.box, self.side)
            labels[0][inside] = names.index(thing.name) + 1
            if thing.colour:
                labels[1][inside] = colours.index(thing.colour) + 1
        return labels

    def tower(self, pixels: Tensor, labels: Tensor) -> None:
        """Train tower and projector to name what is under every patch."""
        # 1. Two heads, objects and colours, that score a patch by the words' own embeddings.
        lists = (self.vocabulary.objects, self.vocabulary.colours)
        heads = [_PatchWords(self.model, self.tokenizer, list(words)) for words in lists]
        inner, plan = self.model.model, self.plan
        parameters = _distinct((inner.vision_tower, inner.multi_modal_projector, *heads))
        optimiser, schedule = _optimiser(parameters, plan, plan.vision_steps)
        for step in track(range(1, plan.vision_steps + 1), "vision tower"):
            # 2. Cross-entropy of both heads over all patches of some images.
            pick = torch.randint(len(pixels), (plan.vision_batch,), generator=self.generator)
            projected = inner.multi_modal_projector(_hidden(self.model, pixels[pick]))
            logits = [head(projected) for head in heads]
            loss = sum(
                F.cross_entropy(scores.flatten(0, 1), labels[pick, i].flatten())
                for i, scores in enumerate(logits)
            )
            _step(loss, parameters, optimiser, schedule)
            # 3. Accuracy on the patches of objects: most patches are background.
            if step % LOG_EVERY == 0:
                on_object = labels[pick, 0] > 0
                is_right = (logits[0].argmax(-1) == labels[pick, 0])[on_object]
                metrics = {"vision_loss": float(loss.detach())}
                self.log(step, {**metrics, "vision_accuracy": float(is_right.float().mean())})

    # ---- phase 2: the language model ---------------------------------------------------------

    def token_rows(
        self, rows: Sequence[SceneExample], index_of: Mapping[str, int]
    ) -> list[list[Row]]:
        """Every row in tokens, in groups: those of a picture. A question's prompt is made once."""
        questions = sorted({row.question for row in rows})
        sign, ones = self.processor.image_token, [1] * len(questions)
        image = sign * self.model.config.image_seq_length
        texts = [p.replace(sign, image) for p in chat_prompts(self.processor, questions, ones)]
        encoded = [self.tokenizer(text, add_special_tokens=False) for text in texts]
        prompts = dict(zip(questions, zip(texts, encoded, strict=True), strict=True))
        answers = [row.noisy_answer or row.answer for row in rows]
        ended = [answer + self.tokenizer.eos_token for answer in answers]
        said = self.tokenizer(ended, add_special_tokens=False)
        groups: list[list[Row]] = [[] for _ in index_of]
        for i, (row, weight) in enumerate(zip(rows, _row_weights(rows), strict=True)):
            text, prompt = prompts[row.question]
            place = place_of(row, self.vocabulary, text, prompt, self.side)
            ids, tokens = prompt["input_ids"], said["input_ids"][i]
            if decision := decided_at(row, answers[i], self.vocabulary):
                word, noun = (said.char_to_token(i, at) if at >= 0 else -1 for at in decision)
                place = place.decided(len(ids), word, noun)
            at, start = index_of[row.image_id], len(ids)
            one = Row(ids=ids + tokens, answer=start, image=at, place=place, weight=weight)
            groups[at].append(one)
        return groups

    def language(self, groups: Sequence[Sequence[Row]], pixels: Tensor) -> None:
        """Train projector and language model to answer, on features of the frozen tower."""
        # 1. The tower no longer changes: every image goes through it once.
        with torch.no_grad():
            parts = track(pixels.split(256), "image features")
            features = torch.cat([_hidden(self.model, part) for part in parts])
        inner, plan, generator = self.model.model, self.plan, self.generator
        trained = (inner.multi_modal_projector, inner.language_model, self.model.lm_head)
        parameters, every = _distinct(trained), sum(map(len, groups))
        pictures = max(1, plan.language_batch * len(groups) // every)
        first, image = groups[0][0].ids, self.model.config.image_token_id
        shared = len(first) - first[::-1].index(image)  # up to the last image token
        optimiser, schedule = _optimiser(parameters, plan, plan.language_steps)
        for step in track(range(1, plan.language_steps + 1), "language model"):
            # 2. Some pictures with all of their rows.
            pick = torch.randint(len(groups), (pictures,), generator=generator).tolist()
            batch = packed([groups[i] for i in pick], shared, self.tokenizer.pad_token_id)
            # 3. What to answer, where nouns look, and for a while where deciding tokens do.
            answering, looking, deciding = self._losses(batch, features)
            scaffold = max(0.0, 1 - step / (SCAFFOLDED * plan.language_steps))
            _step(answering + looking + scaffold * deciding, parameters, optimiser, schedule)
            if step % LOG_EVERY == 0:
                losses = {"language_loss": answering, "grounding_loss": looking}
                values = {name: float(loss.detach()) for name, loss in losses.items()}
                self.log(plan.vision_steps + step, values)

    def _losses(self, batch: Packed, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of answering, the weighted mean over answers; of nouns and of deciding tokens, looking.

        An answer's loss is the mean over its tokens: a yes has as much as a description.
        """
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        images = features[torch.tensor([rows[0].image for rows in batch.rows])]
        projected = list(self.model.model.multi_modal_projector(images))
        encoded = {"image": BaseModelOutputWithPooling(pooler_output=projected)}
        # 1. One pass, which shows its attention at nouns and at deciding tokens.
        looks = batch.looks(self.model.config.image_token_id)
        capture = RowCapture(looks.rows_BQ, looks.columns_BM)
        with observed(self.model, capture):
            logits = self.model(**batch.inputs, mm_encoder_outputs=encoded, use_cache=False).logits
        # 2. What to answer.
        labels, weights_BR = batch.labels_BS[:, 1:], batch.weights()
        losses = F.cross_entropy(logits[:, :-1].transpose(1, 2), labels, reduction="none")
        means_BR = batch.means(F.pad(losses, (1, 0)))
        answering = (means_BR * weights_BR).sum() / weights_BR.sum()
        # 3. Where to look: nouns in the first layer, deciding tokens in those behind it.
        nouns, deciding, at_nouns = looks.maps(capture.stacked())
        named_B = torch.tensor([place.token >= 0 for place in looks.places])
        looking = grounding_loss(nouns[:, :1], looks.places, named_B)
        return answering, looking, deciding_loss(deciding, at_nouns, looks.places)


class _PatchWords(nn.Module):
    """Scores of words for projected patches, by the words' embeddings; score 0: nothing here."""

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
        scores = projected_BND @ torch.cat([self.nothing, words]).T
        return scores * self.log_scale.exp() + self.offset


def _hidden(model: Any, pixels: Tensor) -> Tensor:
    """What the projector reads: patch states of the tower's last layer, [B, N, D]."""
    return model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-1][:, 1:]


def _distinct(modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    """Parameters of the modules; tied weights once."""
    return list(dict.fromkeys(p for module in modules for p in module.parameters()))


def _optimiser(parameters: list[nn.Parameter], plan: ScratchConfig, steps: int) -> tuple[Any, Any]:
    """AdamW and its one-cycle schedule."""
    peak = plan.learning_rate
    optimiser = torch.optim.AdamW(parameters, lr=peak, weight_decay=0.01)
    # The warm-up must not be exactly one step: OneCycleLR then divides by zero.
    share, cycle = 0.1 if steps > 20 else 0.3, torch.optim.lr_scheduler.OneCycleLR
    return optimiser, cycle(optimiser, peak, total_steps=steps, pct_start=share)


def _step(loss: Tensor, parameters: list[nn.Parameter], optimiser: Any, schedule: Any) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimiser.step()
    schedule.step()


def _row_weights(rows: Sequence[Example]) -> list[float]:
    """Of each row in the loss: descriptions make up DESCRIBE_SHARE of it, questions the rest."""
    described = sum(row.kind == "describe" for row in rows)
    describe = DESCRIBE_SHARE / max(described, 1)
    question = (1 - DESCRIBE_SHARE) / max(len(rows) - described, 1)
    return [len(rows) * (describe if row.kind == "describe" else question) for row in rows]
