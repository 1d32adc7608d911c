"""A run in words: how it ended, its reasons, its stages, where it comes from."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from adapt.addresses import shown
from adapt.metrics.headline import ARMS
from adapt.names import one_line
from adapt.report.reading import Record, Stage
from adapt.tracking import presentation

CHAIN = ("data", "base", "pairs", "train", "answer", "evaluate")
"""The stages in the order in which they run; an unchanged one may have been recorded last."""
LETTERS = "AB"  # of two runs that are compared
LINE = 2000  # characters of a text that are shown
HEX = 12  # digits of a hash that are shown
STEERED = ("alpha", "tau")  # what is told of a rule of steering
TONES = {
    "promoted": "good",
    "champion": "good",
    "approved": "good",
    "waiting": "wait",
    "held": "wait",
    "refused": "bad",
    "FAILED": "bad",
    "KILLED": "bad",
}
STATUS = {
    "RUNNING": "Still running, or its end is not recorded yet",
    "SCHEDULED": "Not begun yet",
    "FINISHED": "Finished",
    "FAILED": "Failed",
    "KILLED": "Killed",
}


@dataclass(frozen=True, kw_only=True)
class Told:
    """What the page says of one run; `letter` tells two apart."""

    letter: str
    name: str
    tone: str
    decision: str
    sentence: str
    against: str
    reasons: list[tuple[str, str]]
    stages: list["ToldStage"]
    version: str
    version_address: str
    aliases: str
    facts: list[tuple[str, str, str]]
    params: list[tuple[str, str]]


@dataclass(frozen=True)
class ToldStage:
    """A link of the chain of stages."""

    name: str
    told: str
    address: str


def tell(record: Record, letter: str) -> Told:
    """Everything of `record` that is said in words."""
    ending, version = ending_of(record), record.version
    words = presentation.TITLES.get(ending) or STATUS.get(record.status, record.status)
    return Told(
        letter=letter,
        name=line(record.name or record.id),
        tone=TONES.get(ending, TONES.get(record.status, "")),
        decision=words,
        sentence=_sentence(record),
        against=line(against) if (against := _against(record)).startswith("champion") else "",
        reasons=_reasons(record),
        stages=[_stage(record, stage) for stage in sorted(record.stages, key=_place)],
        version=line(f"{version.model} version {version.number}") if version else "",
        version_address=_page(record, _version_page(record)),
        aliases=", ".join(map(line, version.aliases)) if version else "",
        facts=_facts(record),
        params=[(line(key), line(shown(text))) for key, text in sorted(record.params.items())],
    )


def ending_of(record: Record) -> str:
    """How a retraining ended, as one of `presentation.TITLES`; "" for what is none."""
    if record.status != "FINISHED":
        return ""
    if known := record.tags.get("adapt.ending"):
        return known
    moved = {"true": "promoted", "false": "refused"}.get(record.tags.get("adapt.promoted", ""), "")
    is_retraining = record.tags.get("adapt.kind") == "retraining"
    return moved or ("champion" if is_retraining and record.version else "")


def line(text: str) -> str:
    """A text from a run, on one line without anything that does not print or a password."""
    return one_line(shown(text[: 4 * LINE]), LINE)


def _sentence(record: Record) -> str:
    parts = []
    if record.version:
        parts.append(f"{record.version.model} version {record.version.number}")
    if against := _against(record):
        parts.append(f"compared with {against}")
    if record.started:
        parts.append(f"{moment(record.started)}{_took(record)}")
    return line(", ".join(parts))


def _against(record: Record) -> str:
    """What the gate compared it with."""
    return record.tags.get("adapt.against", "")


def _took(record: Record) -> str:
    if record.started is None or record.ended is None:
        return ""
    return f", {duration((record.ended - record.started).total_seconds())}"


def moment(when: datetime) -> str:
    """A time of day, always in UTC."""
    return f"{when:%Y-%m-%d %H:%M} UTC"


def duration(seconds: float) -> str:
    """
    >>> duration(7.4), duration(635), duration(7320)
    ('7 s', '10 min 35 s', '2 h 2 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {left} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _reasons(record: Record) -> list[tuple[str, str]]:
    """Sentences of the gate as (passed, failed or said, text), and why a run has failed."""
    # An arrow of two characters is parted at the end of a line.
    texts = record.tags.get("adapt.reasons", "").replace(" -> ", " \u2192 ").splitlines()
    reasons = []
    for text in filter(None, texts):
        word, _, rest = text.partition(": ")
        known = word in ("passed", "failed")
        reasons.append((word if known else "said", line(rest if known else text)))
    if error := record.tags.get("adapt.error"):
        reasons.append(("failed", line(error)))
    return reasons


def _place(stage: Stage) -> int:
    return CHAIN.index(stage.name) if stage.name in CHAIN else len(CHAIN)


def _stage(record: Record, stage: Stage) -> ToldStage:
    how = {"cached": "unchanged", "ran": ""}.get(stage.how, stage.how)
    took = duration(stage.seconds) if stage.seconds is not None and not how else how
    told = took if stage.status == "FINISHED" else stage.status.lower()
    address = _page(record, presentation.run_page(record.experiment, stage.id))
    return ToldStage(line(stage.name), line(told or "done"), address)


def _version_page(record: Record) -> str:
    version = record.version
    return presentation.version_page(version.model, version.number) if version else ""


def _page(record: Record, page: str) -> str:
    """The whole address of a page of MLflow's UI; "" where there is no server."""
    is_known = record.address and page
    return f"{shown(record.address).rstrip('/')}/{page}" if is_known else ""


def _steering(record: Record) -> Iterator[tuple[str, str]]:
    """By which numbers each model was steered, as far as it was measured."""
    for arm in ("base", "tuned"):
        values = {name: record.metrics.get(f"test/{arm}_steered/{name}") for name in STEERED}
        text = ", ".join(f"{name} {value:g}" for name, value in values.items() if value is not None)
        if text:
            yield ARMS[arm], text


def _facts(record: Record) -> list[tuple[str, str, str]]:
    """What the run is and comes from: name, text, address."""
    tags, here = record.tags, presentation.run_page(record.experiment, record.id)
    facts = [("MLflow run", record.id, _page(record, here))]
    if record.parent:
        above = presentation.run_page(record.experiment, record.parent)
        facts.append(("part of run", record.parent, _page(record, above)))
    if flow := tags.get("adapt.flow_run"):
        page = tags.get("adapt.flow_url", "")
        address = page if page.startswith(("http://", "https://")) else ""
        facts.append(("Prefect flow run", flow, shown(address)))
    if commit := tags.get("mlflow.source.git.commit"):
        changed = ", with uncommitted changes" if tags.get("adapt.git_dirty") == "true" else ""
        facts.append(("code", f"{commit[:HEX]}{changed}", ""))
    for split in record.splits:
        rows = f"{split.rows:,} rows, " if isinstance(split.rows, int) else ""
        facts.append((f"{split.name} data", f"{rows}{split.digest[:HEX]}", ""))
    facts += [
        (f"DVC, stage {stage.name}", stage.hash[:HEX], "")
        for stage in sorted(record.stages, key=_place)
        if stage.hash
    ]
    facts += [(f"steering {arm}", text, "") for arm, text in _steering(record)]
    if record.version and (weights := record.version.tags.get("dvc.model")):
        facts.append(("weights in DVC", weights[:HEX], ""))
    if record.version:
        name = f"models:/{record.version.model}/{record.version.number}"
        facts.append(("to download", f"mlflow.artifacts.download_artifacts({name!r})", ""))
    return [(line(name), line(text), address) for name, text, address in facts]
