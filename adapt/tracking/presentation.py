"""How runs and models read in MLflow's pages: notes in Markdown, links, columns of the table.

Pure functions from texts and numbers to texts and numbers. MLflow renders a run's, a model's and an
experiment's description as Markdown; a link that begins with `#/` stays on the server that shows
it, whatever its address, so that a note stays right when a workspace moves. Parents and children
are linked by MLflow itself. Texts from outside go through `code` or `plain`, where no Markdown and
no HTML takes effect.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from adapt.names import one_line, tag

NOTE = "mlflow.note.content"
RETRAININGS = "retrainings"
"""Name of the table of retrainings: the page of an experiment with `?viewStateShareKey=...`."""

TITLES = {
    "promoted": "Promoted to champion",
    "refused": "Not promoted",
    "waiting": "Passed the gate, awaits approval",
    "champion": "The champion already",
    "held": "Passed the gate, held back",
    "approved": "Approved, and champion since",
    "rejected": "Rejected",
    "rolled-back": "Rolled back",
    "adopted": "Made champion in the registry",
    "deleted": "Deleted",
}
"""The endings of a retraining, and what became of a version later, as headings."""

Figures = Mapping[str, tuple[float | None, float | None]]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a model comes from: "" for what is not known.

    `run` is MLflow's id of the retraining's run in experiment `experiment`, `data` DVC's hash of
    the data stage or of the splits, `flow` the address of the flow run in Prefect's UI.
    """

    experiment: str = ""
    run: str = ""
    run_name: str = ""
    data: str = ""
    revision: str = ""
    is_dirty: bool = False
    weights: str = ""
    flow: str = ""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What was decided: one of `TITLES`, with the figures before and after by title.

    `digits` says with how many decimals a figure is shown; else it follows from its unit.
    """

    ending: str
    against: str = ""
    reasons: tuple[str, ...] = ()
    figures: Figures = field(default_factory=dict)
    digits: Mapping[str, int] = field(default_factory=dict)
    when: str = ""
    who: str = ""


# ---- notes ---------------------------------------------------------------------------------------


def retraining_note(model: str, version: str, verdict: Verdict, origin: Origin) -> str:
    """The description of a retraining's run: decision, figures, reasons, where to go from here."""
    return paragraphs(
        _headline(verdict),
        table(verdict.figures, verdict.digits),
        _bullets(map(plain, verdict.reasons)),
        f"{link(f'{model} version {version}', version_page(model, version))}. {_origin(origin)}",
    )


def version_note(
    model: str,
    version: str,
    verdict: Verdict | None,
    origin: Origin,
    steering: str = "",
    card: str = "",
) -> str:
    """The description of a model's version: what it can do, since when it is what, how to get it.

    `verdict` is None for a version that nothing has been decided about yet; `steering` is the rule
    of its steered answers, "" where nobody knows. `card` is the version's model card, which has all
    but the decision; "" for a version that has none.
    """
    if card:
        return paragraphs(
            _headline(verdict) if verdict else "Nothing is decided yet.",
            _bullets(map(plain, verdict.reasons)) if verdict else "",
            table(verdict.figures, verdict.digits) if verdict else "",
            card,
        )
    steered = f"Stage answer steers it with {code(steering)}, keys of section steer of params.yaml."
    return paragraphs(
        _headline(verdict) if verdict else "Nothing is decided yet.",
        table(verdict.figures, verdict.digits) if verdict else "",
        _bullets(map(plain, verdict.reasons)) if verdict else "",
        f"**Where it comes from.** {_origin(origin)}",
        f"**How to use it.**\n\n{_usage(f'models:/{model}/{version}')}",
        f"**Steered decoding.** {steered}" if steering else "",
        f"**Limits.** {LIMITS}",
        "This is written anew with every decision about the version.",
    )


LIMITS = (
    "The figures are of the test split of the data it was trained on, and hold for pictures and "
    "questions like those. Less hallucination is not none. Attention figures are of the decoder "
    "layers that were watched. The files are plain weights and settings; loading them runs no code."
)


def model_note(model: str) -> str:
    """The description of the registered model: what its aliases mean, how to use and steer it."""
    words = {
        "champion": "what is in use: the last version that passed the gate, or that a person chose",
        "previous": "the champion before, where `rollback` leads",
        "challenger": "the version that was asked last, or that awaits approval",
    }
    ledger = f"[{plain(model)}.ledger]({model_page(f'{model}.ledger')})"
    commands = {
        "status": "who is champion, since when, and what waits",
        "history": "every decision, with figures and reasons",
        "approve N": "let a version that passed take the champion's place",
        "reject N --why TEXT": "keep it, and all of the same weights, out",
        "rollback --why TEXT": "the champion before becomes champion again",
    }
    shown = [(f"python -m flows.promote {words}", what) for words, what in commands.items()]
    return paragraphs(
        "A vision-language model, retrained so that its attention stays on the picture and it "
        "hallucinates less (ADAPT). Each version is one set of weights; its description has the "
        "figures before and after, the data and the code that it comes from.",
        _bullets([f"`{alias}`: {what}" for alias, what in words.items()]),
        f"**How to use it.**\n\n{_usage(f'models:/{model}@champion')}",
        f"**How to steer it.** Every decision is an entry of {ledger}.",
        "\n".join(f"    {words:<44} # {what}" for words, what in shown),
        f"**Limits.** {LIMITS}",
    )


def _headline(verdict: Verdict) -> str:
    """The ending in one line: lists of MLflow show so much of a description, and no Markdown."""
    facts = {"against": verdict.against, "by": verdict.who, "on": verdict.when}
    told = ", ".join(f"{word} {plain(text)}" for word, text in facts.items() if text)
    title = TITLES.get(verdict.ending) or plain(verdict.ending)
    return f"{title} ({told})." if told else f"{title}."


def table(figures: Figures, digits: Mapping[str, int]) -> str:
    """Figures before and after as a Markdown table; "" where there are none."""
    rows = [
        f"| {plain(title)} | {_shown(old, places)} | {_shown(new, places)} |"
        f" {_change(old, new, places)} |"
        for title, (old, new) in figures.items()
        for places in [digits.get(title, 1 if "%" in title else 3)]
        if not (old is None and new is None)
    ]
    head = ["| on the test split | before | after | change |", "|:---|---:|---:|---:|"]
    return "\n".join([*head, *rows]) if rows else ""


def _shown(value: float | None, places: int) -> str:
    return "" if value is None else f"{value:.{places}f}"


def _change(old: float | None, new: float | None, places: int) -> str:
    return "" if old is None or new is None else f"{new - old:+z.{places}f}"


def _origin(origin: Origin) -> str:
    """One sentence with links."""
    parts = []
    if origin.run:
        name = plain(origin.run_name) or "its retraining"
        parts.append(f"run [{name}]({run_page(origin.experiment, origin.run)})")
    if origin.data:
        parts.append(f"data {code(origin.data[:12])}")
    if origin.revision:
        changed = " with uncommitted changes" if origin.is_dirty else ""
        parts.append(f"code {code(origin.revision[:12])}{changed}")
    if origin.weights:
        parts.append(f"weights {code(origin.weights[:12])} in DVC")
    if origin.flow:
        parts.append(f"[flow run in Prefect]({_address(origin.flow)})")
    text = ", ".join(parts)
    return f"{text[:1].upper()}{text[1:]}." if parts else ""


def _usage(address: str) -> str:
    """Lines of Python that load a version, indented as Markdown wants code."""
    lines = (
        "from mlflow.artifacts import download_artifacts",
        "from transformers import AutoModelForImageTextToText, AutoProcessor",
        "",
        f"folder = download_artifacts({address!r})",
        "model = AutoModelForImageTextToText.from_pretrained(folder)",
        "processor = AutoProcessor.from_pretrained(folder)",
    )
    return "\n".join(f"    {line}" for line in lines)


# ---- pages of MLflow's UI ------------------------------------------------------------------------


def run_page(experiment: str, run: str) -> str:
    """Where a run is shown."""
    return f"#/experiments/{quote(experiment, safe='')}/runs/{quote(run, safe='')}"


def model_page(model: str) -> str:
    """Where a registered model is shown."""
    return f"#/models/{quote(model, safe='')}"


def version_page(model: str, version: str) -> str:
    """Where a version of a model is shown."""
    return f"{model_page(model)}/versions/{quote(version, safe='')}"


def retrainings_page(experiment: str) -> str:
    """Where all retrainings of an experiment are shown, a line each, the main figures first."""
    page = f"#/experiments/{quote(experiment, safe='')}/runs"
    return f"{page}?viewStateShareKey={RETRAININGS}&workflowType=machine_learning"


# ---- texts ---------------------------------------------------------------------------------------


def plain(text: str) -> str:
    r"""Any text as one line of Markdown that shows it as it stands.

    >>> plain("a|b <img src=x> [x](y)")
    'a\\|b &lt;img src=x&gt; \\[x\\](y)'
    """
    line = one_line(tag(text, 1000), 1000)
    escaped = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{char}" if char in "\\`*_[]|#~" else char for char in escaped)


def code(text: str) -> str:
    """Any text as code within a sentence."""
    return f"`{one_line(tag(text, 200), 200).replace('`', chr(39))}`"


def link(text: str, address: str) -> str:
    """A link, whatever its text."""
    return f"[{plain(text)}]({address})"


def _address(address: str) -> str:
    """An address of the web that closes no parenthesis; "#" for anything else."""
    is_web = address.startswith(("http://", "https://"))
    return quote(tag(address, 2000), safe="/:?&=#%+,;@") if is_web else "#"


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"* {line}" for line in lines)


def paragraphs(*blocks: str) -> str:
    """Those that are not empty, with a line between them."""
    return "\n\n".join(block for block in blocks if block)
