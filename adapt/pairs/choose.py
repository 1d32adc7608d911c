"""Which two of a model's own answers make a pair, or why none do.

Whole answers are ranked against each other, the best and the worst are taken. Or they are cut where
they go wrong and gone on from there (`adapt/pairs/continuation.py`).
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from adapt.data.schema import Example, Vocabulary
from adapt.generation.answer import Decoding
from adapt.generation.batches import Prompt, answered, prompt_of
from adapt.pairs.annotate import Answers, LeftOut, Reason
from adapt.pairs.beginning import common_beginning
from adapt.pairs.continuation import better, cuts
from adapt.pairs.errors import is_truthful
from adapt.pairs.filters import Filters
from adapt.pairs.rank import best_and_worst, score
from adapt.pairs.settings import PairsConfig


@dataclasses.dataclass(frozen=True)
class Chooser:
    """Makes pairs of the answers to questions; `decoding` is how these were made."""

    config: PairsConfig
    model: Any
    processor: Any
    vocabulary: Vocabulary | None
    decoding: Decoding

    @property
    def filters(self) -> Filters:
        """Those of the configuration."""
        return Filters(self.config, self.model, self.processor)

    def pairs(self, rows: Sequence[Example], texts: Sequence[str]) -> list[Answers | LeftOut]:
        """Of each row, from its `samples` answers, which stand side by side."""
        samples, filters = self.config.samples, self.filters
        every = [texts[i * samples : (i + 1) * samples] for i in range(len(rows))]
        # 1. What says something twice is no answer that a pair is made of.
        used = [filters.unrepeated(one) for one in every]
        # 2. A pair of whole answers, or one that parts where an answer goes wrong.
        parted = self._parted(rows, used) if self.config.unit == "continuation" else {}
        pairs: list[Answers | LeftOut] = []
        for i, row in enumerate(rows):
            pair = parted[i] if i in parted else self._whole(row, used[i])
            if isinstance(pair, LeftOut) and len(used[i]) < len(every[i]):
                pair = LeftOut("repeats")
            # 3. What is not worth training on goes.
            left = None if isinstance(pair, LeftOut) else filters.left_out(row, pair)
            pairs.append(left or pair)
        return pairs

    def _whole(self, row: Example, texts: Sequence[str]) -> Answers | LeftOut:
        """The best and the worst of some answers."""
        scores = [score(text, row, self.vocabulary) for text in texts]
        may = self._may_be_better(row, texts)
        if texts and not any(may):
            return LeftOut("chosen")
        best = best_and_worst(scores, texts, self.config.min_gap, may) if texts else None
        # An empty answer trains nothing.
        if best is None or not all(texts[i] for i in best):
            return LeftOut("min_gap")
        (good, high), (bad, low) = ((texts[i], scores[i]) for i in best)
        is_parted = self.config.unit == "continuation"
        return Answers(
            chosen=good,
            rejected=bad,
            chosen_score=high,
            rejected_score=low,
            prefix=common_beginning(good, bad) if is_parted else "",
        )

    def _may_be_better(self, row: Example, texts: Sequence[str]) -> list[bool]:
        """Which answers may be the better one."""
        is_any = self.config.chosen == "any"
        return [is_any or is_truthful(text, row, self.vocabulary) for text in texts]

    def _parted(
        self, rows: Sequence[Example], every: Sequence[Sequence[str]]
    ) -> dict[int, Answers | LeftOut]:
        """Of each description, by its number: what goes on wrongly, and rightly, from one prefix.

        Short answers have one deciding word, so that whole ones part there as well.
        """
        config, vocabulary, found = self.config, self.vocabulary, dict[int, Answers | LeftOut]()
        described = [i for i, row in enumerate(rows) if row.kind == "describe"]
        if not described:
            return found
        assert vocabulary is not None, "a description is ranked by its words for objects"
        # 1. Where the worst goes wrong, and what the model says from there. Behind nothing it has
        #    said that already.
        wrong = {i: cuts(every[i], rows[i], vocabulary) for i in described}
        begun = {i: (rows[i], own[0].prefix) for i, own in wrong.items() if own and own[0].prefix}
        more = self._continued(begun)
        # 2. The best of what does not go wrong there, also of the first answers. Where there is
        #    nothing better, the next worst has its turn, among what has been said.
        for i, own in wrong.items():
            answers = [*every[i], *more.get(i, ())]
            good = list(itertools.compress(answers, self._may_be_better(rows[i], answers)))
            tried = (better(bad, good, rows[i], vocabulary, config.min_gap) for bad in own)
            pair = next(filter(None, tried), None)
            reason: Reason = "min_gap" if good else "chosen"
            found[i] = pair or LeftOut(reason if own else "unit")
        return found

    def _continued(self, begun: Mapping[int, tuple[Example, str]]) -> dict[int, Sequence[str]]:
        """Whole answers that go on from these prefixes, by the numbers of their rows.

        What a row draws here is no repetition of what it drew before: its streams have other names.
        """

        def prompt(number: int) -> Prompt:
            row, prefix = begun[number]
            asked = prompt_of(row)
            return asked._replace(id=f"{row.id} goes on", beginning=prefix)

        samples, said = self.config.samples, dict[int, Sequence[str]]()
        # Nobody looks at the attention of these.
        decoding = dataclasses.replace(self.decoding, anchor_tokens=1, debias=None)
        asked = (decoding, self.config.batch, prompt, "pairs.batch")
        for part, answers in answered(self.model, self.processor, [*begun], *asked):
            for place, number in enumerate(part):
                own = answers.texts[place * samples : (place + 1) * samples]
                said[number] = self.filters.unrepeated(own)
        return said
