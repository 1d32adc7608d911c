"""How a promotion ended, in words and numbers; light enough for what only shows it."""

import json
from dataclasses import dataclass
from typing import Literal

from adapt.tracking.presentation import NOTE, Origin, Verdict, retraining_note

How = Literal["promoted", "refused", "waiting", "champion", "held"]
"""`champion`: it is that already. `held`: it passed, but this retraining may not move the champion.
`waiting`: it passed, and `gate.approval` wants a person to say so too."""

WORDS = {
    "promoted": "was promoted to champion",
    "refused": "was not promoted",
    "waiting": "passed the gate and awaits approval",
    "champion": "is the champion already",
    "held": "passed the gate and was held back",
}


@dataclass(frozen=True)
class Promotion:
    """How it ended, with the gate's or the memory's reasons.

    `before` and `after` have what was measured by title, `digits` with how many decimals it is
    shown.
    """

    version: str
    ending: How
    reasons: tuple[str, ...]
    against: str
    before: dict[str, float]
    after: dict[str, float]
    digits: dict[str, int]

    @property
    def promoted(self) -> bool | None:
        """Whether the champion moved; None where there was nothing to decide."""
        return None if self.ending == "champion" else self.ending == "promoted"

    @property
    def waiting(self) -> bool:
        """Whether a person has to approve it first."""
        return self.ending == "waiting"

    def figures(self) -> dict[str, tuple[float | None, float | None]]:
        """What was measured before and after, by title."""
        return {title: (self.before.get(title), self.after.get(title)) for title in self.digits}

    def sentence(self, model: str) -> str:
        """The ending in words."""
        return f"{model} version {self.version} {WORDS[self.ending]}"

    def run_tags(self, model: str, origin: Origin = Origin()) -> dict[str, str]:  # noqa: B008 (frozen)
        """Tags for the run of the retraining; the note is what MLflow's UI shows as description.

        `origin` is what the note tells about where the model comes from.
        """
        verdict = Verdict(
            ending=self.ending,
            against=self.against if self.reasons else "",
            reasons=self.reasons,
            figures=self.figures(),
            digits=self.digits,
        )
        tags = {
            "adapt.model": model,
            "adapt.model_version": self.version,
            "adapt.ending": self.ending,
            "adapt.figures": json.dumps(self.figures()),
            NOTE: retraining_note(model, self.version, verdict, origin),
        }
        if self.ending == "champion":
            return tags
        decided = {
            "adapt.promoted": str(bool(self.promoted)).lower(),
            "adapt.against": self.against,
        }
        return tags | decided | {"adapt.reasons": "\n".join(self.reasons)}
