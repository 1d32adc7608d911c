"""The model card: what a version is, what was measured of it, and what nobody knows.

It is the version's README.md, and, behind what was decided, its description in MLflow, which has
room for `ROOM` characters. Pure: facts in, Markdown out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from adapt.tracking import presentation
from adapt.tracking.presentation import code, paragraphs, plain

NAME = "README.md"
HEADING = "## Model card"
ROOM = 5000
"""Characters of a description: MLflow's column of it in a database server."""
_CUT = "The rest is in README.md of the version."


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One figure of base and tuned model, None where it was not measured.

    `change` is (points, low, high): the paired difference with its 95 % interval over pictures.
    """

    title: str
    base: float | None
    tuned: float | None
    steered: float | None = None
    change: tuple[float, float, float] | None = None
    digits: int = 1


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the card tells. "" or empty: not known, and then not told.

    `started` is `base.source` with the registered version behind it; `family` the model's type in
    transformers. `alarm` are sentences about the detector, `judged` about what the figures are of.
    """

    model: str
    started: str
    family: str
    measured: Sequence[Measured]
    judged: str
    pictures: int
    alarm: Sequence[str] = ()
    steering: str = ""
    data: str = ""
    splits: Mapping[str, int] = field(default_factory=dict)
    revision: str = ""
    is_dirty: bool = False
    weights: str = ""
    limits: Sequence[str] = ()


def text(facts: Facts) -> str:
    """The card as Markdown, from its heading on."""
    return paragraphs(
        HEADING,
        f"A vision-language model ({plain(facts.family)}), tuned by {code('adapt')} from "
        f"{code(facts.started)} so that it names fewer things that are not in the picture.",
        _table(facts.measured),
        _about(facts),
        "\n".join(["**The alarm.** " + " ".join(facts.alarm)]) if facts.alarm else "",
        f"**Steering.** {code(facts.steering)}, chosen on validation." if facts.steering else "",
        f"**Where it comes from.** {_origin(facts)}",
        f"**How to use it.**\n\n{_usage(facts.model)}",
        "**Limits.** " + " ".join(_limits(facts)),
    )


def _about(facts: Facts) -> str:
    """What the figures are of."""
    pictures = f", {facts.pictures:,} pictures" if facts.pictures else ""
    shown = any(one.change for one in facts.measured)
    interval = " Changes are in points, with a paired 95 % interval over pictures." if shown else ""
    return f"Measured on {plain(facts.judged)}{pictures}; plain answers, greedy.{interval}"


def _table(measured: Sequence[Measured]) -> str:
    """Figures of base and tuned; a column of steered answers where there are some."""
    rows = [one for one in measured if one.base is not None or one.tuned is not None]
    if not rows:
        return ""
    steered = any(one.steered is not None for one in rows)
    head = ["", "base", "tuned", "change", *(["tuned, steered"] if steered else [])]
    lines = [f"| {' | '.join(head)} |", "|:---|" + "---:|" * (len(head) - 1)]
    for one in rows:
        cells = [plain(one.title), _number(one.base, one), _number(one.tuned, one), _change(one)]
        cells += [_number(one.steered, one)] if steered else []
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _number(value: float | None, one: Measured) -> str:
    return "" if value is None else f"{value:.{one.digits}f}"


def _change(one: Measured) -> str:
    """
    >>> _change(Measured(title="Hal %", base=34.0, tuned=7.0, change=(-27.0, -31.0, -23.0)))
    '-27.0 [-31.0, -23.0]'
    >>> _change(Measured(title="late/early", base=0.8, tuned=0.9, digits=3))
    '+0.100'
    """
    if one.change is not None:
        point, low, high = (f"{value:+z.{one.digits}f}" for value in one.change)
        return f"{point} [{low}, {high}]"
    if one.base is None or one.tuned is None:
        return ""
    return f"{one.tuned - one.base:+z.{one.digits}f}"


def _origin(facts: Facts) -> str:
    """Data, code and weights in one sentence."""
    rows = ", ".join(f"{plain(name)} {count:,}" for name, count in facts.splits.items())
    changed = " with uncommitted changes" if facts.is_dirty else ""
    parts = [
        f"data {code(facts.data[:12])}" + (f" ({rows} rows)" if rows else "") if facts.data else "",
        f"code {code(facts.revision[:12])}{changed}" if facts.revision else "",
        f"weights {code(facts.weights[:12])} in DVC" if facts.weights else "",
    ]
    told = ", ".join(part for part in parts if part)
    return f"{told[:1].upper()}{told[1:]}." if told else "Not recorded."


def _usage(model: str) -> str:
    """The three ways to load a version, as commands."""
    address = f"models:/{model}@champion"
    lines = (
        f"mlflow models serve -m {address} --env-manager local   # with MLFLOW_TRACKING_URI set",
        f"mlflow.pyfunc.load_model({address!r}).predict(table)   # columns image, question",
        "AutoModelForImageTextToText.from_pretrained(folder)   # the weights alone, plain answers",
    )
    return "\n".join(f"    {line}" for line in lines)


def _limits(facts: Facts) -> list[str]:
    """What it was judged on, and what nobody knows."""
    return [
        *facts.limits,
        "The figures hold for pictures and questions like those they were measured on; of others, "
        "other languages and several pictures nobody has measured anything.",
        "Fewer hallucinations are not none, and a low risk is no proof: the alarm tells what "
        "attention shows, and is silent about a wrong colour, number or relation.",
        "The files are weights and plain data; loading them runs no code of theirs.",
    ]


def kept(description: str) -> str:
    """The card in a version's description, from its heading on; "" where it has none.

    >>> kept("Promoted to champion.\\n\\n## Model card\\n\\nA model.")
    '## Model card\\n\\nA model.'
    """
    _, heading, rest = description.partition(HEADING)
    return f"{heading}{rest}"


def fitting(description: str) -> str:
    """A description that MLflow's database takes: whole paragraphs, and where the rest is."""
    if len(description) <= ROOM:
        return description
    left, blocks = ROOM - len(_CUT) - 2, []
    for block in description.split("\n\n"):
        if left - len(block) < 0:
            break
        blocks.append(block)
        left -= len(block) + 2
    return presentation.paragraphs(*blocks, _CUT)
