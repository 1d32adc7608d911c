"""Score answers that already exist, as the benchmarks' own programs do: CHAIR, AMBER, POPE, Object
HalBench, MMHal and HallusionBench.

    python -m adapt.score chair --responses captions.jsonl --truth annotations/
    python -m adapt.score amber --responses answers.json --truth AMBER/data --json
    python -m adapt.score --help

Files are JSON lists, JSON Lines, CSV or parquet (`adapt/metrics/rows.py`), in the columns that the
benchmarks use (`adapt/score/forms.py`). Every rate has a 95 % interval from a bootstrap over
images, and length and recall stand beside every rate of hallucination: a model that says less
hallucinates less. A mistake in a file ends with exit code 2 and one line on stderr, or with --json
one object on stdout.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from adapt.metrics import bootstrap, pope
from adapt.metrics.scored import Scored, intervals, moved
from adapt.params import InputError
from adapt.score import forms, rows

RESAMPLES, SEED = 2000, 0

_EXAMPLES = {
    "chair": """
  captions {"image_id": 42, "caption": "..."} against COCO's annotation files, with CHAIR's own list of synonyms:
    python -m adapt.score chair --responses captions.jsonl --truth coco/annotations --synonyms synonyms.txt
  as the other common program counts, and compared with the captions of another model, image by image:
    python -m adapt.score chair --variant maxlinn --responses after.jsonl --against before.jsonl --truth truth.json""",
    "amber": """
  AMBER's answers [{"id": 1, "response": "..."}, ...] against AMBER's folder as it comes:
    python -m adapt.score amber --responses answers.json --truth AMBER/data --similarity pairs.json --json""",
    "pope": """
  answers {"question_id": 1, "answer": "Yes"}, read as the official program does, and without its quirks:
    python -m adapt.score pope --responses answers.jsonl --truth coco_pope_popular.json
    python -m adapt.score pope --responses answers.jsonl --truth coco_pope_popular.json --mode strict
  a file whose columns have other names:
    python -m adapt.score pope --responses mine.csv --truth pope.json --rename qid=question_id --rename out=answer""",
    "objhal": """
  descriptions with the objects that a language model has listed, {"image_id": 42, "caption": "...",
  "extract_objs": ["dog", ...]}, or without extract_objs, by the words of the caption:
    python -m adapt.score objhal --responses answers.jsonl --truth coco/annotations --synonyms synonyms_refine.txt""",
    "mmhal": """
  the judge's 96 replies in their order, and the answers, for their length:
    python -m adapt.score mmhal --responses review.json --truth answers.json""",
    "hallusion": """
  HallusionBench's records with the judge's verdicts:
    python -m adapt.score hallusion --responses HallusionBench_result.json""",
}


class _Parser(argparse.ArgumentParser):
    """Raises its errors, so that they are printed as all others are."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; {self.prog} --help shows examples")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code: 0, or 2 for a mistake in arguments or files."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        options = _parser().parse_args(arguments)
        result = evaluate(options)
    except InputError as error:
        message = " ".join(str(error).split())
        if "--json" in arguments:
            print(json.dumps({"error": message}))
        else:
            print(f"adapt.score: {message}", file=sys.stderr)
        return 2
    print(json.dumps(result, indent=2) if options.json else table(result))
    return 0


def evaluate(options: argparse.Namespace) -> dict[str, Any]:
    """What `--json` prints: metrics (at the top too, for `jq .chair`), counts, intervals, variant,
    versions, notes.

    In strict mode `official`, and with --against `against`, hold the other figures and the paired
    difference to them.
    """
    answers = _read(options, options.responses)
    scored = answers.score(options.mode)
    figures = _figures(scored, answers)
    result = {
        "benchmark": options.benchmark,
        "mode": options.mode,
        "responses": len(answers.keys),
        **figures["metrics"],
        **figures,
        "variant": scored.variant,
        "versions": _versions(scored, answers.tables),
        "notes": list(answers.notes),
    }
    if options.mode == "strict":
        official = answers.score("official")
        result["official"] = _figures(official, answers) | _difference(
            scored, official, answers.scale
        )
    if options.against is not None:
        other = _read(options, options.against)
        if list(other.keys) != list(answers.keys):
            odd = min(set(other.keys) ^ set(answers.keys))
            raise InputError(
                f"{options.against}: does not answer what {options.responses} answers: {odd!r}"
            )
        before = other.score(options.mode)
        result["against"] = _figures(before, other) | _difference(scored, before, answers.scale)
    return result


def table(result: Mapping[str, Any]) -> str:
    """The result for a reader: one line a metric, with its interval, and the difference to other
    figures.
    """
    others = [name for name in ("official", "against") if name in result]
    heads = [
        "",
        "value",
        "95 % interval",
        *(head for name in others for head in (name, "difference", "95 % interval")),
    ]
    rows = [heads]
    for name, value in result["metrics"].items():
        cells = [name, f"{value:.4g}", _range(result["intervals"].get(name))]
        for other in (result[other] for other in others):
            cells += [f"{other['metrics'][name]:.4g}", f"{other['difference'][name]:+.4g}"]
            cells += [_range(other["difference_intervals"].get(name))]
        rows.append(cells)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            c.rjust(w) if i else c.ljust(w)
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    said = {**result["variant"], **result["versions"]}
    return "\n".join(
        [
            f"{result['benchmark']}, {result['mode']} mode, {result['responses']} responses",
            *(line.rstrip() for line in lines),
            "counts: "
            + ", ".join(f"{name} {count}" for name, count in result["counts"].items() if count),
            *(
                f"{name}: {value}"
                for name, value in said.items()
                if name not in ("benchmark", "mode")
            ),
            *(f"note: {note}" for note in result["notes"]),
        ]
    )


def _figures(scored: Scored, answers: forms.Answers) -> dict[str, Any]:
    metrics = dict(scored.metrics)
    if answers.texts and not {"length", "avg_word_len"} & set(metrics):
        metrics["length"] = sum(len(text.split()) for text in answers.texts) / len(answers.texts)
    return {
        "metrics": metrics,
        "counts": scored.counts,
        "intervals": intervals(scored, RESAMPLES, SEED, answers.scale),
    }


def _difference(scored: Scored, other: Scored, scale: float) -> dict[str, Any]:
    """`scored` minus `other`; intervals are paired where both have the same images."""
    shared = [
        name
        for name, (above, _) in scored.ratios.items()
        if len(above) == len(other.ratios[name][0])
    ]
    found = {
        name: bootstrap.difference(*scored.ratios[name], *other.ratios[name], RESAMPLES, SEED)
        for name in shared
    }
    return {
        "difference": moved(other, scored),
        "difference_intervals": {
            name: [scale * of.low / 100, scale * of.high / 100] for name, of in found.items()
        },
    }


def _versions(scored: Scored, tables: Sequence[Path]) -> dict[str, str]:
    """The version of NLTK where it was needed, and the first digits of each table's SHA-256."""
    found = {"nltk": version("nltk")} if "tokenizer" in scored.variant else {}
    hashes = {path.name: hashlib.sha256(rows.read_bytes(path)).hexdigest()[:12] for path in tables}
    return found | {name: f"sha256:{digits}" for name, digits in hashes.items()}


def _range(bounds: Sequence[float] | None) -> str:
    return "" if bounds is None else f"{bounds[0]:.4g} to {bounds[1]:.4g}"


def _read(options: argparse.Namespace, path: Path) -> forms.Answers:
    rename = dict(options.rename)
    match options.benchmark:
        case "chair":
            return forms.read_chair(path, rename, options.truth, options.synonyms, options.variant)
        case "amber":
            return forms.read_amber(path, rename, options.truth, options.similarity, options.lemmas)
        case "pope":
            return forms.read_pope(path, rename, options.truth, options.parser)
        case "objhal":
            return forms.read_objhal(path, rename, options.truth, options.synonyms)
        case "mmhal":
            return forms.read_mmhal(path, rename, options.truth)
        case _:
            return forms.read_hallusion(path, rename, options.truth)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m adapt.score",
        description="Score answers that already exist, as the benchmarks' own programs do.",
        epilog="examples:" + "\n".join(_EXAMPLES.values()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="benchmark", required=True, metavar="BENCHMARK")
    pictures = "{image: [objects]}, or COCO's annotation files or their folder"
    chair = _command(commands, "chair", "objects in captions", "image_id, caption", pictures)
    chair.add_argument(
        "--variant", choices=("opera", "maxlinn"), default="opera", help="whose program (opera)"
    )
    amber = _command(
        commands, "amber", "descriptions, yes/no answers, or both", "id, response", "AMBER's folder"
    )
    amber.add_argument(
        "--similarity", type=Path, help="JSON: pairs of similar words (without: equal words only)"
    )
    amber.add_argument(
        "--lemmas", type=Path, help="JSON: form to lemma (without: WordNet from NLTK_DATA)"
    )
    asked = _command(
        commands,
        "pope",
        "yes/no questions about objects",
        "question_id, answer",
        "POPE's questions",
    )
    asked.add_argument(
        "--parser",
        choices=pope.PARSERS,
        default="official",
        help="who reads the answers (official)",
    )
    objhal = _command(
        commands, "objhal", "Object HalBench", "image_id, caption, extract_objs", pictures
    )
    for command in (chair, objhal):
        command.add_argument(
            "--synonyms", type=Path, help="an object a line: name, synonym, ... (without: our own)"
        )
    _command(
        commands,
        "mmhal",
        "MMHal-Bench's judge",
        "choices, or texts",
        "the answers, model_answer",
        needed=False,
    )
    _command(
        commands,
        "hallusion",
        "HallusionBench's judge",
        "as HallusionBench.json has, and verdicts",
        "HallusionBench.json, if the responses lack its columns",
        needed=False,
    )
    return parser


def _command(
    commands: Any, name: str, about: str, columns: str, truth: str, needed: bool = True
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=about,
        description=f"Score {name}: {about}.",
        epilog=f"examples:{_EXAMPLES[name]}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    about_responses = f"JSON list, JSON Lines, CSV or parquet with columns {columns}"
    command.add_argument(
        "--responses", type=Path, required=True, metavar="FILE", help=about_responses
    )
    command.add_argument("--truth", type=Path, required=needed, metavar="PATH", help=truth)
    command.add_argument(
        "--against", type=Path, metavar="FILE", help="other responses: adds the paired difference"
    )
    mends = (
        "strict mends the official code's quirks, and says by how much the figures move (official)"
    )
    command.add_argument("--mode", choices=("official", "strict"), default="official", help=mends)
    renames = "take a column of the responses by another name; may be repeated"
    command.add_argument(
        "--rename", type=_renaming, action="append", default=[], metavar="THEIRS=OURS", help=renames
    )
    command.add_argument("--json", action="store_true", help="print one JSON object, errors too")
    return command


def _renaming(text: str) -> tuple[str, str]:
    theirs, equals, ours = text.partition("=")
    if not (theirs and equals and ours):
        raise argparse.ArgumentTypeError(f"{text!r} is not THEIRS=OURS")
    return theirs, ours


if __name__ == "__main__":
    sys.exit(main())
