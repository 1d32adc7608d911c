"""The rows of stage `pairs` dealt out to a crew, and what one of it works out.

Parts are those that this stage would make alone, with the same debias masks
(`adapt/generation/crew.py`), so that outcomes are the same whatever the number of processes.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from adapt.data.schema import Example, Preference, Vocabulary
from adapt.generation.answer import Decoding
from adapt.generation.batches import prompt_of, some
from adapt.generation.crew import Crew, Hand, Masks, Portions
from adapt.generation.debias import Noise
from adapt.pairs.annotate import Outcome
from adapt.pairs.given import Given
from adapt.pairs.likelihood import Likelihood, measured
from adapt.pairs.sample import Sampler
from adapt.pairs.settings import PairsConfig


class PairsHand(Hand):
    """One of a crew of stage `pairs`."""

    def sampled(
        self,
        rows: Sequence[Example],
        noise: Noise,
        masks: Masks,
        config: PairsConfig,
        vocabulary: Vocabulary | None,
    ) -> list[Outcome]:
        """Of one part: answers of the model's own, ranked, and their anchors."""
        whole = config.model_copy(update={"batch": len(rows)})
        debias = self.debias(noise, masks)
        maker = Sampler(whole, self.model, self.processor, vocabulary, debias)
        return [one for _, outcomes in maker.found(rows) for one in outcomes]

    def given(
        self, rows: Sequence[Preference], noise: Noise, masks: Masks, config: PairsConfig
    ) -> list[Outcome]:
        """Of one part: the anchors of answers that came with the rows."""
        whole = config.model_copy(update={"batch": len(rows)})
        maker = Given(whole, self.model, self.processor, self.debias(noise, masks))
        return [one for _, outcomes in maker.found(rows) for one in outcomes]

    def likelihood(self, rows: Sequence[Preference], config: PairsConfig) -> Likelihood:
        """How likely the model finds the answers of these rows."""
        return measured(config, self.model, self.processor, rows)


def dealt(
    crew: Crew,
    method: str,
    portions: Portions,
    rows: Sequence[Any],
    decoding: Decoding,
    config: PairsConfig,
    *more: Any,
) -> Iterator[tuple[int, Sequence[Outcome]]]:
    """Where each part begins among the rows, and its outcomes, as soon as they are there.

    By a method of `PairsHand`; `decoding` says how many rows fit where that is left to us.
    """
    batch = config.batch
    size = batch if isinstance(batch, int) else crew.ask("fitting", some(rows), decoding)
    parts = portions.of(rows, size, prompt_of)
    tasks = ((part, portions.noise, masks, config, *more) for part, masks in parts)
    for number, outcomes in crew.each(method, tasks):
        yield number * size, outcomes
