"""`MLmodel`, the file by which MLflow loads a version: what it may say.

It names a Python module, and MLflow imports what it names. So a version that comes in or goes out
has one that names ours, which lies in no version, and nothing else that MLflow would run or
unpickle. `adapt/serving/mlmodel.py` writes it.
"""

from pathlib import Path
from typing import Any

import yaml

from adapt.names import one_line
from adapt.params import InputError, require

NAME = "MLmodel"
FLAVOR = "python_function"
LOADER = "adapt.serving.loader_module"
"""The module that MLflow imports, by name: no room may be imported from above."""

# Of the flavour. Not among them: code, data, model_code_path, python_model, artifacts.
KEYS = {"loader_module", "python_version", "env", "config"}
LARGEST = 1 << 14  # bytes; ours has some 3,000, and PyYAML takes long for what nests deeply
# Files of the environment, which nothing here installs.
ENV = {"conda": "conda.yaml", "virtualenv": "python_env.yaml"}


def check(path: Path) -> None:
    """`InputError` unless the file is one that lets MLflow import `LOADER` and nothing else."""
    where = one_line(str(path))
    flavors = _read(path, where).get("flavors")
    problem = f"expected one flavour, {FLAVOR}, as a version of this project has"
    if not isinstance(flavors, dict) or set(flavors) != {FLAVOR}:
        raise InputError(f"{where}: {problem}")
    ours = flavors[FLAVOR]
    named = ours.get("loader_module") if isinstance(ours, dict) else None
    problem = f"names {one_line(str(named), 80)} as what is imported, not {LOADER}"
    require(named == LOADER, where, problem)
    foreign = sorted(one_line(str(key), 40) for key in ours if key not in KEYS)
    require(not foreign, where, f"has {', '.join(foreign[:3])}, which a version does not have")
    require(ours.get("env", ENV) == ENV, where, "names files of an environment that are not here")


def _read(path: Path, where: str) -> dict[str, Any]:
    """The mapping in the file. Aliases are refused: a few of them unfold to gigabytes."""
    with path.open("rb") as file:
        content = file.read(LARGEST + 1)
    require(len(content) <= LARGEST, where, f"larger than {LARGEST >> 10} KiB")
    try:
        text = content.decode("utf-8")
        is_plain = not any(isinstance(one, yaml.AliasEvent) for one in yaml.parse(text))
        require(is_plain, where, "has aliases, which MLflow writes none of")
        values = yaml.safe_load(text)
    except InputError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError):
        raise InputError(f"{where}: not YAML that can be read") from None
    require(isinstance(values, dict), where, "expected a mapping")
    return dict(values)
