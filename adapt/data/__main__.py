"""Look at data before it is used, and take it from and to other tools' formats.

    python -m adapt.data check data/rlhf-v
    python -m adapt.data check hf:owner/name --benchmark amber=AMBER/image --html page.html
    python -m adapt.data convert data/rlhf-v data/ours
    python -m adapt.data export results/pairs/pairs.parquet --format trl pairs-for-trl
    python -m adapt.data retry
    python -m adapt.data --help

What is not said on the command line is in params.yaml: shares of splits, the seed, and the model
whose tokens texts are counted in. A mistake ends with exit code 2 and one line on stderr, or with
--json one object on stdout.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adapt import command, environment, params
from adapt.data import exchange
from adapt.data.check import benchmarks, sections
from adapt.data.check.drawn import drawn
from adapt.data.check.examined import examined
from adapt.data.check.figures import figures
from adapt.data.check.lengths import measure
from adapt.data.check.page import html
from adapt.data.export import EXPORTED
from adapt.data.formats.detection import AUTO, NAMES
from adapt.data.importing import build
from adapt.data.settings import Config
from adapt.environment import Parser, number_of
from adapt.params import plain, require

PARAMS = Path("params.yaml")

_EXAMPLES = {
    "check": """
  a folder as it was downloaded; nothing is written:
    python -m adapt.data check data/rlhf-v
  pictures lie elsewhere, and the format is known:
    python -m adapt.data check rows.jsonl --format llama-factory --pictures coco/train2014
  whether benchmarks' pictures are among them, and a page to look at, five rows drawn:
    python -m adapt.data check data/mine --benchmark amber=AMBER/image \\
        --benchmark pope=coco/val2014 --html page.html
  the first rows of something large, as values:
    python -m adapt.data check hf:owner/name --limit 1000 --json""",
    "convert": """
  train, validation and test.parquet in a new folder, which data.source reads, and `datasets` too:
    python -m adapt.data convert data/rlhf-v data/ours""",
    "export": """
  all splits that hold preferences, a parquet file for each, and the pairs of a run:
    python -m adapt.data export results/data/splits --format trl for-trl
    python -m adapt.data export results/pairs/pairs.parquet --format llama-factory for-factory
  one file:
    python -m adapt.data export data/ours/train.parquet --format rlhf-v train.parquet""",
    "retry": """
  what became of the rows in quarantine/data.jsonl, after the source was mended:
    python -m adapt.data retry""",
}
_ABOUT = {
    "check": "what a source is, what would be rejected and why, and what leaks; writes nothing",
    "convert": "a source as our parquet files, as stage data writes them",
    "export": "our preferences and pairs in the columns of other tools",
    "retry": "which rows in quarantine pass now",
}
_LONG = {
    "check": """
Exit code 0: every row would be taken in; 1: some would be rejected, or no splits can be made;
2: a mistake in the arguments or files. Nothing is written but --html; a data set of the hub goes
into the hub's own cache. docs/formats.md lists the formats, adapt/data/validation.py the reasons
against a row.""",
    "convert": """
What the checks find is kept in the state folder (.state), as stage data keeps it. Rejected rows go
to OUT-rejected.jsonl; more of them than data.max_rejected allows, and nothing else is written.""",
    "export": """
PATH is a split file, a folder of them, or the pair file of stage pairs. OUT is a new folder, or a
parquet file where the format is trl or rlhf-v and PATH one file.""",
    "retry": """
Reads params.yaml and quarantine/data.jsonl of the present folder, and changes neither. Rows that
pass are taken in when stage data runs again.""",
}


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code: 0, 1 where a check finds rows to reject, 2 a mistake."""
    arguments = list(sys.argv[1:] if argv is None else argv)

    def work() -> int:
        options = _parser().parse_args(arguments)
        return int(_COMMANDS[options.command](options))

    return command.ended("adapt.data", work, in_json="--json" in arguments, stopped="")


# ---- commands ------------------------------------------------------------------------------------


def _check(options: argparse.Namespace) -> int:
    workspace = Path.cwd()
    content = params.read(options.params)
    config = _config(content, options)
    counted = measure(content, workspace)
    known = dict(options.benchmark)
    require(len(known) == len(options.benchmark), "--benchmark", "two have the same name")
    if options.html:
        require(not options.html.is_dir(), plain(str(options.html)), "is a folder; name a file")
    prints = {name: benchmarks.prints_of(name, path, workspace) for name, path in known.items()}
    with examined(config, workspace, options.limit) as found:
        leaks = [benchmarks.leaks(found, name, known[name], one) for name, one in prints.items()]
        page = figures(found, counted, leaks)
        if options.html:
            command.write(options.html, html(page, drawn(found)))
    if options.json:
        print(json.dumps(page, indent=2))
    else:
        print(sections.terminal(page))
    return int(bool(page["rows"]["rejected"] or page["stops"]))


def _convert(options: argparse.Namespace) -> int:
    found = exchange.convert(_config(params.read(options.params), options), Path.cwd(), options.out)
    counts = ", ".join(
        f"{found[f'{split}/rows']:,.0f} rows in {split}.parquet" for split in exchange.SPLITS
    )
    print(f"adapt.data: {plain(str(options.out))}: {counts}; {found['rejected']:,.0f} rejected")
    return 0


def _export(options: argparse.Namespace) -> int:
    for place, count in exchange.export(options.format, options.path, options.out).items():
        print(f"adapt.data: {plain(place)}: {count:,} pairs")
    return 0


def _retry(options: argparse.Namespace) -> int:
    config = params.load(params.read(PARAMS), "data", Config)
    for line in build.retry(config, Path.cwd()):
        print(plain(line))
    return 0


_COMMANDS = {"check": _check, "convert": _convert, "export": _export, "retry": _retry}


def _config(content: Mapping[str, Any], options: argparse.Namespace) -> Config:
    """Section `data` of the file with what the command line says in its place."""
    own = content.get("data")
    said = {"source": options.source, "format": options.format, "pictures": options.pictures}
    data = {**own, **said} if isinstance(own, Mapping) else own
    return params.load({**content, "data": data}, "data", Config, str(options.params))


# ---- arguments -----------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    about = "Look at data before it is used, and take it from and to other tools' formats."
    epilog = "examples:" + "\n".join(_EXAMPLES.values())
    parser = Parser(prog="python -m adapt.data", description=about, epilog=epilog)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    check = _command(commands, "check")
    _add_source(check)
    named = "a benchmark whose pictures must not be among the source's; may be repeated"
    options: dict[str, Any] = {"type": _benchmark, "action": "append", "default": []}
    check.add_argument("--benchmark", metavar="NAME=FOLDER", help=named, **options)
    first = "look at the first N records only"
    check.add_argument("--limit", type=number_of("records"), default=0, metavar="N", help=first)
    check.add_argument("--json", action="store_true", help="print one JSON object, errors too")
    page = "write the page as one self-contained file, five rows drawn"
    check.add_argument("--html", type=Path, metavar="FILE", help=page)
    convert = _command(commands, "convert")
    _add_source(convert)
    convert.add_argument("out", type=Path, metavar="OUT", help="a new folder")
    export = _command(commands, "export")
    where = "a split file, a folder of them, or pairs.parquet"
    export.add_argument("path", type=Path, metavar="PATH", help=where)
    export.add_argument("out", type=Path, metavar="OUT", help="a new folder, or a parquet file")
    export.add_argument("--format", required=True, choices=EXPORTED, help="whose columns")
    _command(commands, "retry")
    return parser


def _add_source(command: argparse.ArgumentParser) -> None:
    place = "a folder, a file, hf:owner/name[@revision] or s3://bucket/prefix"
    command.add_argument("source", metavar="SOURCE", help=place)
    formats = f"{AUTO} (what fits best), {', '.join(NAMES)}"
    command.add_argument("--format", default=AUTO, metavar="F", help=formats)
    where = "a folder in which pictures that rows name are looked for first"
    command.add_argument("--pictures", default="", metavar="DIR", help=where)
    rest = f"everything that is not said here ({PARAMS})"
    command.add_argument("--params", type=Path, default=PARAMS, metavar="FILE", help=rest)


def _command(commands: Any, name: str) -> argparse.ArgumentParser:
    about = _ABOUT[name]
    description = f"{about[0].upper()}{about[1:]}.\n{_LONG[name]}"
    epilog = f"examples:{_EXAMPLES[name]}"
    return commands.add_parser(name, help=about, description=description, epilog=epilog)


def _benchmark(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FOLDER")
    return name, path


def _run() -> int:
    """`main`, for a shell, which may end it by SIGTERM or by closing the terminal."""
    with environment.terminable():
        return main()


if __name__ == "__main__":
    sys.exit(_run())
