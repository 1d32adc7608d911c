"""Serve the champion over HTTP, as OpenAI's clients speak it, with the risk of every word.

    python -m adapt.serving start                       # `make serve-model`: models:/adapt@champion
    python -m adapt.serving start --model models:/adapt/3
    python -m adapt.serving start --model results/train/model --port 8001
    python -m adapt.serving status                      # of the server that section serve names

Runs in the foreground until Ctrl-C, and leaves nothing behind. A browser shows the page at its
address; section `serve` of params.yaml has the policy, the batches and all limits. When promotion
moves the alias, the next version is loaded beside the one that answers, and takes its place.

It listens on loopback. Another host needs a key in ADAPT_API_KEY, which clients send along:

    curl http://127.0.0.1:8000/v1/models -H "Authorization: Bearer $ADAPT_API_KEY"

Pictures come as data URLs; where `serve.urls` lists origins, also from these. Nothing of a request
is written to disk.
"""

import json
import os
import urllib.error
import urllib.request
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from adapt import command, environment, params
from adapt.names import one_line
from adapt.serving import running
from adapt.serving.settings import ServeConfig
from adapt.tracking.store import TrackingConfig
from adapt.watching.settings import WatchConfig

TOLD = """\
{address} answers with {model}
  page      {address}/
  clients   OpenAI(base_url="{address}/v1", api_key={key})
  meters    {address}/metrics
Ctrl-C ends it."""


def start(options: Namespace, config: ServeConfig, name: str, watch: WatchConfig) -> None:
    """Serve until Ctrl-C."""
    root, source = Path.cwd(), options.model or f"models:/{name}@champion"
    key = running.taken_key(config)
    tell = partial(print, flush=True)
    tell(one_line(f"loading {source} (some 20 s)"))
    served = running.served(config, name, source, root, key, watch)
    with environment.terminable(), served as handle:
        version = handle.standing.remote().result()["version"]
        model = f"{source}, version {version}" if version else source
        secret = 'os.environ["ADAPT_API_KEY"]' if key else '"none"'
        address = running.shown(config)
        tell(TOLD.format(address=address, model=one_line(model), key=secret))
        running.follow(handle, lambda line: tell(one_line(line)))


def status(config: ServeConfig) -> int:
    """Print what the server says of itself; exit code 1 where none answers."""
    address = running.shown(config)
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=10) as answer:
            found = json.loads(answer.read(1 << 16))
    except (OSError, ValueError, urllib.error.HTTPError):
        print(f"{address} does not answer")
        return 1
    told = f"{found.get('model')}, version {found.get('version') or 'none'}"
    trouble = f"; {found['trouble']}" if found.get("trouble") else ""
    print(one_line(f"{address} answers with {told}{trouble}"))
    return 0


def _parser() -> ArgumentParser:
    parser = environment.parser("adapt.serving", __doc__)
    parser.add_argument("action", choices=["start", "status"])
    model = "models:/NAME@ALIAS, models:/NAME/VERSION or a folder (default: the champion)"
    parser.add_argument("--model", help=model)
    parser.add_argument("--host", help="instead of serve.host")
    parser.add_argument(
        "--port", type=environment.number_of("a port"), help="instead of serve.port"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit code 2 for a user's mistake such as a port that is taken."""
    options = _parser().parse_args(arguments)
    environment.prepare(Path.cwd())

    def work() -> int | None:
        content = params.read(Path.cwd() / "params.yaml")
        given = {"host": options.host, "port": options.port}
        changed = {name: value for name, value in given.items() if value is not None}
        config = ServeConfig.of(content, changed)
        name = params.load(content, "tracking", TrackingConfig).model
        if options.action == "status":
            return status(config)
        start(options, config, name, params.load(content, "watch", WatchConfig))
        return None

    stopped = "stopped" if os.isatty(2) else ""
    return command.ended("adapt.serving", work, stopped=stopped)


if __name__ == "__main__":
    raise SystemExit(main())
