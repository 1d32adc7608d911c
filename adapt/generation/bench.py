"""Measuring a model on a split: answers to every question, hallucination counts, and attention
while answering.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from adapt.attention.anchor import AnchorConfig
from adapt.data.schema import KINDS, Example, Vocabulary, open_image
from adapt.evaluation.degradation import late_early, token_table
from adapt.generation.answer import Answers, answer, estimate_debias, token_ends
from adapt.generation.steer import SteerConfig
from adapt.metrics import chair, pope
from adapt.metrics.mentions import marked, named
from adapt.models.load import load_model, load_processor
from adapt.params import InputError
from adapt.progress import track


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """One arm: a row per answer, a row per generated token of the descriptions, and the metrics.

    Percentages are 0..100; `length` is the mean number of tokens of a description; `fire_rate` the
    share of decoder layers and tokens after the anchor at which steering stepped in.
    """

    responses: pd.DataFrame
    tokens: pd.DataFrame
    metrics: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Trace:
    """One description token by token: pieces of its text, rows of the token table, attention [T,
    rows, columns].
    """

    pieces: list[str]
    tokens: pd.DataFrame
    heat: np.ndarray


class Bench:
    """A loaded model and the split it is measured on; the debias mask is estimated once for all
    arms.
    """

    def __init__(
        self,
        model_dir: Path,
        rows: Sequence[Example],
        vocabulary: Vocabulary,
        *,
        anchor: AnchorConfig,
        batch: int,
        max_new_tokens: int,
        seed: int,
    ) -> None:
        self.model, self.processor = load_model(model_dir), load_processor(model_dir)
        self.vocabulary, self.anchor, self.max_new_tokens = vocabulary, anchor, max_new_tokens
        kinds = [sorted((e for e in rows if e.kind == kind), key=lambda e: e.id) for kind in KINDS]
        if not kinds[0]:
            raise InputError(
                "the split has no describe questions; hallucination is counted in descriptions"
            )
        self.batches = [part[i : i + batch] for part in kinds for i in range(0, len(part), batch)]
        questions = sorted({e.question for e in kinds[0]})
        self.debias_N = estimate_debias(
            self.model,
            self.processor,
            questions,
            open_image(kinds[0][0]).size,
            count=anchor.noise_images,
            anchor_tokens=anchor.anchor_tokens,
            seed=seed,
        )

    def measure(self, arm: str, steer: SteerConfig | None) -> Measured:
        """Answer every question of the split, as arm `arm`; `steer` None is plain decoding."""
        records: list[dict[str, Any]] = []
        tokens: list[pd.DataFrame] = []
        described: list[chair.Counts] = []
        for batch in track(self.batches, f"evaluating {arm}"):
            answers = self._answer(batch, steer)
            counts = [
                chair.count(text, e, self.vocabulary)
                for text, e in zip(answers.texts, batch, strict=True)
            ]
            records += [self._record(arm, e, answers, i, counts[i]) for i, e in enumerate(batch)]
            if batch[0].kind == "describe":
                described += counts
                tokens.append(self._tokens(batch, answers, counts))
        responses, token_rows = pd.DataFrame(records), pd.concat(tokens, ignore_index=True)
        metrics = self._metrics(responses, described)
        metrics |= {
            f"{signal}_late_early": ratio for signal, ratio in late_early(token_rows).items()
        }
        if steer is not None:
            metrics["fire_rate"] = 100 * float(
                token_rows[token_rows.position >= self.anchor.anchor_tokens].fired.mean()
            )
        return Measured(responses=responses, tokens=token_rows, metrics=metrics)

    def trace(self, example: Example) -> Trace:
        """Describe one picture, plainly, and keep where each token looked (mean over layers)."""
        answers = self._answer([example], None)
        tokens = self._tokens(
            [example], answers, [chair.count(answers.texts[0], example, self.vocabulary)]
        )
        T, text = len(tokens), answers.texts[0]
        ends = token_ends(self.processor.tokenizer, answers.tokens_BT[0, :T].tolist())
        pieces = [text[start:end] for start, end in itertools.pairwise([0, *ends])]
        heat_TN = answers.maps_BTLN[0, :T].mean(1).cpu().numpy()
        return Trace(pieces, tokens, heat_TN.reshape(T, *answers.grid))

    def _answer(self, batch: Sequence[Example], steer: SteerConfig | None) -> Answers:
        return answer(
            self.model,
            self.processor,
            [open_image(e) for e in batch],
            [e.question for e in batch],
            anchor_tokens=self.anchor.anchor_tokens,
            max_new_tokens=self.max_new_tokens,
            debias_N=self.debias_N,
            steer=steer,
        )

    def _record(
        self, arm: str, example: Example, answers: Answers, i: int, counts: chair.Counts
    ) -> dict[str, Any]:
        text, mask_T = answers.texts[i], answers.mask_BT[i]
        heat_N = (
            answers.maps_BTLN[i][mask_T].mean((0, 1))
            if mask_T.any()
            else answers.maps_BTLN[i, 0].mean(0)
        )
        exists = example.kind == "exists"
        return {
            **{key: getattr(example, key) for key in ("id", "image_id", "kind", "question")},
            "arm": arm,
            "reference": example.answer,
            "response": text,
            "objects_mentioned": counts.mentioned,
            "hallucinated": counts.hallucinated
            if not exists
            else [],  # "there is no tree" mentions a tree
            "covered": counts.covered,
            "truth": list(counts.truth),
            "targets": list(counts.targets),
            "cog": counts.cog,
            "marked": marked(text, counts.hallucinated_spans) if not exists else text,
            "yes": pope.parse_yes_no(text) if exists else None,
            "tokens": int(mask_T.sum()),
            "heat": heat_N.cpu().numpy(),
            "grid": list(answers.grid),
        }

    def _tokens(
        self, batch: Sequence[Example], answers: Answers, counts: Sequence[chair.Counts]
    ) -> pd.DataFrame:
        hallucinated = [c.hallucinated_spans for c in counts]
        grounded = [[m.span for m in c.mentions if m.name in c.truth] for c in counts]
        table = token_table(
            answers,
            self.debias_N,
            self.anchor.anchor_tokens,
            [e.id for e in batch],
            grounded,
            hallucinated,
            self.processor.tokenizer,
        )
        return table.assign(image_id=table["id"].map({e.id: e.image_id for e in batch}))

    def _metrics(
        self, responses: pd.DataFrame, described: Sequence[chair.Counts]
    ) -> dict[str, float]:
        describe, exists, colour = (responses[responses.kind == kind] for kind in KINDS)
        metrics = {**chair.aggregate(described), "length": float(describe.tokens.mean())}
        if len(exists):
            labels = [pope.parse_yes_no(text) for text in exists.reference]
            yes_no = pope.aggregate(labels, [bool(yes) for yes in exists.yes])
            metrics |= {f"pope_{key}": value for key, value in yes_no.items()}
        if len(colour):
            said, true = (
                [named(text, self.vocabulary.colours) for text in c]
                for c in (colour.response, colour.reference)
            )
            metrics["colour_accuracy"] = (
                100 * sum(a == b for a, b in zip(said, true, strict=True)) / len(said)
            )
        return metrics
