"""What surrounds a stage that runs as a command: configuration, tracking, all-or-nothing results.

`python -m adapt.stages.train` reaches `launch("train")`, which

1. reads `params.yaml` strictly, the other stages' sections included, so that a typo stops a run
   before it computes,
2. opens the stage's run, whose record goes to MLflow without anybody waiting for it, and hands the
   stage a function that logs one step,
3. lets the stage write into a fresh folder beside `results/`, and swaps it in only when the stage
   has succeeded, whatever becomes of the record,
4. turns a user's mistake, and what the machine refuses, into one line on stderr and exit code 2
   (`adapt.command`).

A stage itself is `Config` + `run(config, results, out, log) -> metrics` and knows nothing of this
file. One that may run on a Ray cluster has `inputs(config)`, too: what it reads below `results/`.
Where settings name other files, `outside(config)` says which of them it reads, and
`at_home(config)` why it cannot go there with these settings.
`python -m adapt.launch` prints the JSON schema of `params.yaml` for editors.
"""

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import TypeAdapter

from adapt import command, environment, params
from adapt.attention.settings import AnchorConfig
from adapt.cluster import submit
from adapt.data.settings import ScenesConfig
from adapt.evaluation.rules import Rules
from adapt.files import sweep, whole_folder
from adapt.generation.settings import Steering
from adapt.models.settings import Device, PromptConfig
from adapt.names import one_line
from adapt.params import Content, Count, InputError, Seed, Settings
from adapt.progress import Log
from adapt.serving.settings import ServeConfig
from adapt.tracking import runs
from adapt.tracking.store import Store, TrackingConfig
from adapt.watching.settings import WatchConfig

STAGES = ("data", "base", "pairs", "train", "answer", "evaluate")
SHARED = {
    "scenes": ScenesConfig,
    **{"prompt": PromptConfig, "anchor": AnchorConfig, "steer": Steering},
    **{"gate": Rules, "serve": ServeConfig, "watch": WatchConfig, "tracking": TrackingConfig},
}
VALUES: dict[str, Any] = {"seed": Seed, "max_new_tokens": Count, "device": Device}
RESULTS = Path("results")


def launch(stage: str) -> None:
    """The command line of a stage: no options, `--help` tells what it reads and writes."""
    root = Path.cwd()
    environment.prepare(root)
    module = stage_module(stage)
    where = f"Options are in params.yaml, section '{stage}'."
    needs = f"`dvc repro {stage}` runs it after what it needs."
    parser = environment.parser(f"adapt.stages.{stage}", module.__doc__, f"{where} {needs}")
    parser.parse_args()
    with command.edge(f"adapt {stage}"):
        loaded = configs(params.read(root / "params.yaml"))
        sweep(root / RESULTS)  # what stages that were killed have left
        store = Store(root, loaded["tracking"])
        with environment.bound_to_dvc(), runs.stage_run(store, stage, loaded[stage]) as run:
            # Inside the run, so that its tag says in words what the machine has refused.
            with command.plainly(), whole_folder(root / RESULTS / stage) as out:
                config, results = loaded[stage], root / RESULTS
                metrics = road(stage, config)(config, results, out, run.log_step)
                text = json.dumps(metrics, indent=2, sort_keys=True)
                (out / "metrics.json").write_text(text + "\n")
            run.log_results(root / RESULTS / stage)
        shown = sorted(metrics.items())[:12]
        print(f"adapt {stage}: " + ", ".join(f"{key} {value:.4g}" for key, value in shown))


def road(stage: str, config: Any) -> Callable[[Any, Path, Path, Log], dict[str, float]]:
    """What runs a stage: its `run`, here, or that on the cluster of RAY_API_SERVER_ADDRESS.

    There goes what names its `inputs`; its result comes back into the folder to write.
    """
    module = stage_module(stage)
    if submit.address() is None or not hasattr(module, "inputs"):
        return module.run
    if hasattr(module, "at_home") and (why := module.at_home(config)):
        print(one_line(f"adapt {stage}: {why}; it runs here"), file=sys.stderr, flush=True)
        return module.run
    outside = module.outside(config) if hasattr(module, "outside") else ()
    inputs = module.inputs(config)
    return lambda config, results, out, log: submit.submit(
        stage, config, inputs, results, out, log, outside
    )


def configs(content: Content) -> dict[str, Any]:
    """Every section's checked settings, by its name; InputError for an unknown section, too.

    What two sections must agree about is checked as well: a rule of the gate on a benchmark.
    """
    known = [*STAGES, *SHARED, *VALUES]
    for key in map(str, content):
        if key not in known:
            raise InputError(f"params.yaml: unknown section {key}; {params.hint(key, known)}")
    loaded: dict[str, Any] = {
        name: params.load(content, name, settings) for name, settings in sections().items()
    }
    try:
        loaded["gate"].require_known({one.called: one.name for one in loaded["answer"].benchmarks})
    except InputError as error:
        raise InputError(f"params.yaml: {error}") from None
    return loaded


def sections() -> dict[str, type[Settings]]:
    """The settings of every section of params.yaml."""
    return {stage: stage_module(stage).Config for stage in STAGES} | SHARED


def stage_module(stage: str) -> ModuleType:
    """`adapt.stages.<stage>`, by name: what is pickled for workers must not be of `__main__`."""
    return importlib.import_module(f"adapt.stages.{stage}")


def schema() -> dict[str, Any]:
    """The JSON schema of params.yaml: every section without the keys it shares with others."""
    definitions: dict[str, Any] = {}
    properties = {name: TypeAdapter(kind).json_schema() for name, kind in VALUES.items()}
    for name, settings in sections().items():
        section = settings.model_json_schema()
        definitions |= section.pop("$defs", {})
        for shared in params.shared_fields(settings):
            del section["properties"][shared]
            section["required"].remove(shared)
        properties[name] = section
    draft = "https://json-schema.org/draft/2020-12/schema"
    kind = {"$schema": draft, "title": "params.yaml of adapt", "type": "object"}
    keys = {"additionalProperties": False, "required": list(properties), "properties": properties}
    return kind | keys | {"$defs": definitions}


if __name__ == "__main__":
    print(json.dumps(schema(), indent=2))
