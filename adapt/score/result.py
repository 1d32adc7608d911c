"""What the command prints: metrics with intervals, as one JSON object or as a table.

Every rate has a 95 % interval from a bootstrap over images, and length and recall stand beside
every rate of hallucination: a model that says less hallucinates less.
"""

import hashlib
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from adapt.metrics import bootstrap
from adapt.params import InputError
from adapt.score.content import named, read_bytes, shown
from adapt.score.forms import Answers
from adapt.score.scored import Mode, Scored, bounds, intervals, moved

RESAMPLES, SEED = 2000, 0


def evaluate(
    benchmark: str, mode: Mode, answers: Answers, against: Answers | None
) -> dict[str, Any]:
    """What `--json` prints, metrics at the top too, for `jq .chair`.

    In strict mode `official`, and with other answers `against`, hold the other metrics and the
    paired difference to them.
    """
    scored = answers.score(mode)
    columns = _columns(scored, answers)
    result = {"benchmark": benchmark, "mode": mode, "responses": len(answers.keys)}
    result |= columns["metrics"] | columns | {"variant": scored.variant}
    result |= {"versions": _versions(scored, answers.tables), "notes": list(answers.notes)}
    others = {"official": answers} if mode == "strict" else {}
    others |= {"against": against} if against else {}
    for name, source in others.items():
        other = source.score("official" if name == "official" else mode)
        theirs = _columns(other, source)
        differences = _difference(scored, other, answers.scale)
        if "length" in columns["metrics"].keys() & theirs["metrics"].keys():
            longer = columns["metrics"]["length"] - theirs["metrics"]["length"]
            differences["difference"]["length"] = round(longer, 6)
        result[name] = theirs | differences
    return result


def require_same(answers: Answers, against: Answers, paths: tuple[Path, Path]) -> None:
    """Both files answer the same questions, in the same order."""
    if list(answers.keys) != list(against.keys):
        odd = min(set(answers.keys) ^ set(against.keys))
        names = [named(path) for path in paths]
        raise InputError(f"{names[1]}: does not answer what {names[0]} answers: {shown(odd)}")


def table(result: Mapping[str, Any]) -> str:
    """The result for a reader: a line a metric, its interval, and the difference to others."""
    others = [name for name in ("official", "against") if name in result]
    heads = ["", "value", "95 % interval"]
    for name in others:
        heads += [name, "difference", "95 % interval"]
    lines = [heads]
    for name, value in result["metrics"].items():
        cells = [name, f"{value:.4g}", _range(result["intervals"].get(name))]
        for other in (result[other] for other in others):
            cells += [f"{other['metrics'][name]:.4g}", f"{other['difference'][name]:+.4g}"]
            cells += [_range(other["difference_intervals"].get(name))]
        lines.append(cells)
    about = {**result["variant"], **result["versions"]}
    counts = ", ".join(f"{name} {count}" for name, count in result["counts"].items() if count)
    title = f"{result['benchmark']}, {result['mode']} mode, {result['responses']} responses"
    texts = [title, *_aligned(lines), f"counts: {counts}"]
    texts += [f"{name}: {of}" for name, of in about.items() if name not in ("benchmark", "mode")]
    return "\n".join(texts + [f"note: {note}" for note in result["notes"]])


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Cells in columns, the first to the left and the others to the right.

    >>> _aligned([["", "value"], ["chair", "7"]])
    ['       value', 'chair      7']
    """
    columns = []
    for place, column in enumerate(zip(*lines, strict=True)):
        width = max(map(len, column))
        columns.append([cell.rjust(width) if place else cell.ljust(width) for cell in column])
    return ["  ".join(cells).rstrip() for cells in zip(*columns, strict=True)]


def _columns(scored: Scored, answers: Answers) -> dict[str, Any]:
    metrics = dict(scored.metrics)
    if answers.texts and not {"length", "avg_word_len"} & set(metrics):
        metrics["length"] = sum(len(text.split()) for text in answers.texts) / len(answers.texts)
    bounds_95 = intervals(scored, RESAMPLES, SEED, answers.scale)
    return {"metrics": metrics, "counts": scored.counts, "intervals": bounds_95}


def _difference(scored: Scored, other: Scored, scale: float) -> dict[str, Any]:
    """`scored` minus `other`; intervals are paired where both have the same images."""
    drawn = {
        name: bootstrap.difference(*columns, *other.ratios[name], RESAMPLES, SEED)
        for name, columns in scored.ratios.items()
        if len(columns[0]) == len(other.ratios[name][0])
    }
    return {"difference": moved(other, scored), "difference_intervals": bounds(drawn, scale)}


def _versions(scored: Scored, tables: Sequence[Path]) -> dict[str, str]:
    """The version of NLTK where it was needed, and the first digits of each table's SHA-256."""
    nltk = {"nltk": version("nltk")} if "tokenizer" in scored.variant else {}
    hashes = {path.name: hashlib.sha256(read_bytes(path)).hexdigest()[:12] for path in tables}
    return nltk | {name: f"sha256:{digits}" for name, digits in hashes.items()}


def _range(limits: Sequence[float] | None) -> str:
    return "" if limits is None else f"{limits[0]:.4g} to {limits[1]:.4g}"
