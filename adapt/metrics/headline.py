"""The few numbers that a retraining is judged by, and the arms that it compares: named once."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Headline:
    """One number: its key in metrics (`<arm>/<key>`), and how it is shown."""

    key: str
    name: str
    unit: str
    axis: str
    better: str
    digits: int

    @property
    def title(self) -> str:
        """Name and unit, for a column or a row of a table."""
        return f"{self.name} {self.unit}".strip()


HEADLINES = (
    Headline("chair_i", "CHAIR_i", "%", "absent objects, % of those mentioned", "lower", 1),
    Headline("hal", "Hal", "%", "answers that hallucinate, %", "lower", 1),
    Headline("cover", "Cover", "%", "true objects mentioned, %", "higher", 1),
    Headline("mass_late_early", "attention late/early", "", "last third over first", "higher", 3),
)

ARMS = {
    "base": "before",
    "base_steered": "before, steered",
    "tuned": "after",
    "tuned_steered": "after, steered",
}
"""Arms of a retraining, plain and with attention-supervised inference, and their names."""
