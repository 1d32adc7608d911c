"""Score answers that exist, as benchmarks' own programs do; make POPE's questions; judge an alarm.

    python -m adapt.score chair --responses captions.jsonl --truth annotations/
    python -m adapt.score amber --responses answers.json --truth AMBER/data --json
    python -m adapt.score pope-questions --truth objects.json --strategy popular
    python -m adapt.score risk --log .state/served --labels labels.jsonl
    python -m adapt.score --help

Files are JSON, JSON Lines, CSV, TSV or parquet (`adapt/score/rows.py`), `-` is standard input, in
the columns that the benchmarks use (`adapt/score/forms.py`); what is printed is
`adapt/score/result.py`. A mistake in a file ends with exit code 2 and one line on stderr, or with
--json one object on stdout.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adapt import command
from adapt.environment import Parser, number_of
from adapt.score import content, forms, pope, pope_builder, result, risk

_EXAMPLES = {
    "chair": """
  captions {"image_id": 42, "caption": "..."} against COCO's annotation files, with CHAIR's own list
  of synonyms:
    python -m adapt.score chair --responses captions.jsonl --truth coco/annotations \\
        --synonyms synonyms.txt
  as the other common program counts, and compared with the captions of another model, image by
  image:
    python -m adapt.score chair --variant maxlinn --responses after.jsonl --against before.jsonl \\
        --truth truth.json""",
    "amber": """
  AMBER's answers [{"id": 1, "response": "..."}, ...] against AMBER's folder as it comes:
    python -m adapt.score amber --responses answers.json --truth AMBER/data \\
        --similarity pairs.json --json""",
    "pope": """
  answers {"question_id": 1, "answer": "Yes"}, read as the official program does, and without its
  quirks:
    python -m adapt.score pope --responses answers.jsonl --truth coco_pope_popular.json
    python -m adapt.score pope --responses answers.jsonl --truth coco_pope_popular.json \\
        --mode strict
  a file whose columns have other names:
    python -m adapt.score pope --responses mine.csv --truth pope.json --rename qid=question_id \\
        --rename out=answer""",
    "objhal": """
  descriptions with the objects that a language model has listed, {"image_id": 42, "caption": "...",
  "extract_objs": ["dog", ...]}, or without extract_objs, by the words of the caption:
    python -m adapt.score objhal --responses answers.jsonl --truth coco/annotations \\
        --synonyms synonyms_refine.txt""",
    "mmhal": """
  the judge's 96 replies in their order, and the answers, for their length:
    python -m adapt.score mmhal --responses review.json --truth answers.json""",
    "hallusion": """
  HallusionBench's records with the judge's verdicts:
    python -m adapt.score hallusion --responses HallusionBench_result.json""",
    "own": """
  answers {"id": "...", "response": "..."} to the questions of a split of ours, described and asked:
    python -m adapt.score own --responses answers.jsonl --truth results/data/splits
    python -m adapt.score own --responses answers.csv --truth data/validation.parquet""",
    "risk": """
  labels {"id": "chatcmpl-7", "start": 17, "hallucinated": true} of words of logged answers, start
  as in the reply's risk.named, or without start of whole answers:
    python -m adapt.score risk --log .state/served --labels labels.jsonl
  and the detector fitted again to them, registered as a version of the detector alone:
    python -m adapt.score risk --log s3://bucket/served --labels labels.csv --refit detector.json \\
        --register""",
    "pope-questions": """
  the published kind of questions, three objects an image, from {"a.jpg": ["dog", "cup", ...], ...}:
    python -m adapt.score pope-questions --truth objects.json --strategy adversarial --out pope.json
  from COCO's annotations, whose image ids then stand for the images, in plain English:
    python -m adapt.score pope-questions --truth instances_val2014.json --mode strict""",
}

_LONGEST = 320  # characters of a message, whose middle may hold a path of any length


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code: 0, or 2 for a mistake in arguments or files."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    content.forget()
    options: dict[str, Any] = {"in_json": "--json" in arguments, "longest": _LONGEST}
    return command.ended("adapt.score", lambda: _score(arguments), **options)


def _score(arguments: Sequence[str]) -> None:
    options = _parser().parse_args(arguments)
    if options.benchmark == "pope-questions":
        pope_builder.write(options)
        return
    if options.benchmark == "risk":
        found = risk.score(options)
        print(json.dumps(found, indent=2) if options.json else risk.table(found))
        return
    scores = _evaluate(options)
    print(json.dumps(scores, indent=2) if options.json else result.table(scores))


def _evaluate(options: argparse.Namespace) -> dict[str, Any]:
    answers, against = _read(options, options.responses), None
    if options.against is not None:
        against = _read(options, options.against)
        result.require_same(answers, against, (options.responses, options.against))
    return result.evaluate(options.benchmark, options.mode, answers, against)


def _read(options: argparse.Namespace, path: Path) -> forms.Answers:
    file = forms.File(path, dict(options.rename))
    match options.benchmark:
        case "chair":
            return forms.read_chair(file, options.truth, options.synonyms, options.variant)
        case "amber":
            return forms.read_amber(file, options.truth, options.similarity, options.lemmas)
        case "pope":
            return forms.read_pope(file, options.truth, options.parser)
        case "objhal":
            return forms.read_objhal(file, options.truth, options.synonyms)
        case "mmhal":
            return forms.read_mmhal(file, options.truth)
        case "own":
            return forms.read_own(file, options.truth)
        case _:
            return forms.read_hallusion(file, options.truth)


def _parser() -> argparse.ArgumentParser:
    about = "Score answers that already exist, as the benchmarks' own programs do."
    epilog = "examples:" + "\n".join(_EXAMPLES.values())
    parser = Parser(prog="python -m adapt.score", description=about, epilog=epilog)
    commands = parser.add_subparsers(dest="benchmark", required=True, metavar="BENCHMARK")
    objects = "{image: [objects]}, or COCO's annotation files or their folder"

    chair = _scoring(commands, "chair", "objects in captions", "image_id, caption", objects)
    whose, variants = "whose program (opera)", ("opera", "maxlinn")
    chair.add_argument("--variant", choices=variants, default="opera", help=whose)
    about = "descriptions, yes/no answers, or both"
    amber = _scoring(commands, "amber", about, "id, response", "AMBER's folder")
    similar = "JSON: pairs of similar words (without: equal words only)"
    amber.add_argument("--similarity", type=Path, help=similar)
    lemmas = "JSON: form to lemma (without: WordNet from NLTK_DATA)"
    amber.add_argument("--lemmas", type=Path, help=lemmas)
    about = "yes/no questions about objects"
    asked = _scoring(commands, "pope", about, "question_id, answer", "POPE's questions")
    read_by = "who reads the answers (official)"
    asked.add_argument("--parser", choices=pope.PARSERS, default="official", help=read_by)
    columns = "image_id, caption, extract_objs"
    objhal = _scoring(commands, "objhal", "Object HalBench", columns, objects)
    for benchmark in (chair, objhal):
        listed = "an object a line: name, synonym, ... (without: our own)"
        benchmark.add_argument("--synonyms", type=Path, help=listed)
    answers = "the answers, model_answer"
    _scoring(commands, "mmhal", "MMHal-Bench's judge", "choices, or texts", answers, needed=False)
    columns = "as HallusionBench.json has, and verdicts"
    questions = "HallusionBench.json, if the responses lack its columns"
    about = "HallusionBench's judge"
    _scoring(commands, "hallusion", about, columns, questions, needed=False)
    split = "a split file of ours, or the folder of test.parquet"
    _scoring(commands, "own", "a split of ours, as the pipeline scores", "id, response", split)
    _add_questions(commands, objects)
    _add_risk(commands)
    return parser


def _scoring(
    commands: Any, name: str, about: str, columns: str, truth: str, needed: bool = True
) -> argparse.ArgumentParser:
    command = _command(commands, name, about, f"Score {name}: {about}.")
    add = command.add_argument
    responses = f"JSON, JSON Lines, CSV, TSV, parquet or - (standard input); columns {columns}"
    add("--responses", type=Path, required=True, metavar="FILE", help=responses)
    add("--truth", type=Path, required=needed, metavar="PATH", help=truth)
    against = "other responses: adds the paired difference"
    add("--against", type=Path, metavar="FILE", help=against)
    mends = "strict mends the official code's quirks, and says how far the metrics move (official)"
    add("--mode", choices=("official", "strict"), default="official", help=mends)
    renames = "take a column of the responses by another name; may be repeated"
    add("--rename", type=_rename, action="append", default=[], metavar="THEIRS=OURS", help=renames)
    add("--json", action="store_true", help="print one JSON object, errors too")
    return command


def _add_questions(commands: Any, objects: str) -> None:
    about = "make POPE's questions from what is in the images"
    add = _command(commands, "pope-questions", about, f"POPE: {about}.").add_argument
    add("--truth", type=Path, required=True, metavar="PATH", help=objects)
    absent = "which absent objects are asked for (popular)"
    add("--strategy", choices=pope_builder.STRATEGIES, default="popular", help=absent)
    several = number_of("objects")
    add("--per-image", type=several, default=3, metavar="N", help="objects of an image (3)")
    add("--seed", type=int, default=0, metavar="N", help="of the objects that are drawn (0)")
    mends = "strict mends the official code's English and its order of ties (official)"
    add("--mode", choices=("official", "strict"), default="official", help=mends)
    add("--out", type=Path, metavar="FILE", help="JSON Lines (without: standard output)")


def _add_risk(commands: Any) -> None:
    about = "the alarm of a served model, by labels of its answers"
    add = _command(commands, "risk", about, f"Judge {about}.").add_argument
    log = "the log, a folder or s3://bucket/prefix, or one of its files"
    add("--log", required=True, metavar="PLACE", help=log)
    labels = "JSON, JSON Lines, CSV, TSV, parquet or -; columns id, start, hallucinated"
    add("--labels", type=Path, required=True, metavar="FILE", help=labels)
    add("--version", default="", metavar="N", help="answers of this version of the model alone")
    again = "fit the detector again to the labelled words, into this file"
    add("--refit", type=Path, metavar="FILE", help=again)
    add("--register", action="store_true", help="and register it, in the workspace's registry")
    renames = "take a column of the labels by another name; may be repeated"
    add("--rename", type=_rename, action="append", default=[], metavar="THEIRS=OURS", help=renames)
    add("--json", action="store_true", help="print one JSON object, errors too")


def _command(commands: Any, name: str, about: str, description: str) -> argparse.ArgumentParser:
    epilog = f"examples:{_EXAMPLES[name]}"
    return commands.add_parser(name, help=about, description=description, epilog=epilog)


def _rename(text: str) -> tuple[str, str]:
    theirs, equals, ours = text.partition("=")
    if not (theirs and equals and ours):
        raise argparse.ArgumentTypeError(f"{text!r} is not THEIRS=OURS")
    return theirs, ours


if __name__ == "__main__":
    sys.exit(main())
