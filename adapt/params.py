"""Strict configuration: `params.yaml` to frozen dataclasses, and an error that names the key.

Defaults live in `params.yaml` only. A stage declares a frozen dataclass without defaults; its
fields are the keys of the section of the same name. A field made with `shared()` is read from the
top level of the file instead, so that two stages can read one value (`seed`, or a whole section
such as `anchor`).
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

C = typing.TypeVar("C")


class InputError(ValueError):
    """A mistake in what the user gave us: printed as one line that names the culprit, without a
    traceback.
    """


def shared() -> Any:
    """Mark a dataclass field as read from the top level of `params.yaml` rather than from the
    stage's section.
    """
    return dataclasses.field(metadata={"shared": True})


def require(condition: bool, key: str, problem: str) -> None:
    """Raise `InputError` naming `key` unless `condition` holds; for the range checks in
    `__post_init__`.
    """
    if not condition:
        raise InputError(f"{key}: {problem}")


def read(path: Path) -> dict[str, Any]:
    """The whole of `params.yaml` as a dict; `InputError` when it is missing, is no YAML or has no
    keys.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: not found; run from the project's root") from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        raise InputError(
            f"{path}: not valid YAML{f' (line {where.line + 1})' if where else ''}"
        ) from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected sections with keys")
    return content


def load(params: Mapping[str, Any], section: str, config_type: type[C]) -> C:
    """Build `config_type` from `params[section]`, and its shared fields from the top level.

    >>> @dataclasses.dataclass(frozen=True, kw_only=True)
    ... class Config:
    ...     steps: int
    ...     seed: int = shared()
    >>> load({"seed": 1, "train": {"steps": 5}}, "train", Config)
    Config(steps=5, seed=1)
    >>> load({"seed": 1, "train": {"step": 5}}, "train", Config)
    Traceback (most recent call last):
    adapt.params.InputError: params.yaml: unknown key train.step; did you mean train.steps?
    """
    fields = dataclasses.fields(config_type)  # type: ignore[arg-type]
    own = {f.name for f in fields if not f.metadata.get("shared")}
    if not isinstance(params.get(section), Mapping):
        raise InputError(f"params.yaml: missing section {section}")
    _refuse_unknown(params[section], own, section)
    types_ = typing.get_type_hints(config_type)
    values = {}
    for field in fields:
        is_shared = field.metadata.get("shared")
        source, key = (
            (params, field.name) if is_shared else (params[section], f"{section}.{field.name}")
        )
        if field.name not in source:
            raise InputError(f"params.yaml: missing key {key}")
        wanted, value = types_[field.name], source[field.name]
        values[field.name] = (
            load(params, field.name, wanted) if _is_section(wanted) else _typed(value, wanted, key)
        )
    try:
        return config_type(**values)
    except InputError as error:
        raise InputError(f"params.yaml: {section}.{error}") from None


def _is_section(wanted: Any) -> bool:
    return dataclasses.is_dataclass(wanted)


def _refuse_unknown(given: Mapping[str, Any], known: set[str], section: str) -> None:
    for key in given:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = (
                f"did you mean {section}.{close[0]}?"
                if close
                else f"known keys: {', '.join(sorted(known))}"
            )
            raise InputError(f"params.yaml: unknown key {section}.{key}; {hint}")


def _typed(value: Any, wanted: Any, key: str) -> Any:
    """`value` as the plain type `wanted` (int is accepted for float, bool never for a number)."""
    origin = typing.get_origin(wanted)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in typing.get_args(wanted):
            return None
        wanted = next(a for a in typing.get_args(wanted) if a is not type(None))
        origin = typing.get_origin(wanted)
    if origin is tuple:
        if not isinstance(value, list):
            raise InputError(f"params.yaml: {key}: expected a list, got {value!r}")
        item = typing.get_args(wanted)[0]
        return tuple(_typed(v, item, f"{key}[{i}]") for i, v in enumerate(value))
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not wanted:
        raise InputError(f"params.yaml: {key}: expected {wanted.__name__}, got {value!r}")
    return value
