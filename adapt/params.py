"""Configuration: `params.yaml` to frozen, typed settings, or one line that names the file and key.

Defaults live in `params.yaml` only. A section is declared as a `Settings` class without defaults,
its bounds at its fields, in the room that it configures. A field marked `Shared` is read from the
top level of the file instead, so that two stages can read one value (`seed`) or one section
(`anchor`).
"""

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

LARGEST = 2**20  # bytes of a file of parameters
DEEPEST = 16  # levels of nesting
MOST = 10_000  # values, an alias counted as often as it is used
LONGEST = 60  # characters of a value from outside in a message

T = TypeVar("T")
S = TypeVar("S", bound="Settings")
Content = Mapping[str, Any]  # of params.yaml, as `read` returns it


class InputError(ValueError):
    """A mistake of the user's: printed as one line that names the culprit, without a traceback."""


class Settings(BaseModel):
    """A section of parameters: frozen, strictly typed, no key unknown, no number infinite."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class _FromTopLevel:
    """Marks a field of a section that is read from the top level of the file."""


Shared = Annotated[T, _FromTopLevel()]
Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1, lt=2**31)]
Natural = Annotated[int, Field(ge=0, lt=2**31)]
MAX_SEED = 2**32  # exclusive: what numpy takes
Seed = Annotated[int, Field(ge=0, lt=MAX_SEED)]
Share = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]


def either(expected: str) -> WrapValidator:
    """Of a type with alternatives: one line that says what is `expected`, not one for each."""

    def validated(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        try:
            return validate(value)
        except ValidationError:
            raise ValueError(f"expected {expected}, got {_shown(value)}") from None

    return WrapValidator(validated)


def require(condition: bool, key: str, problem: str) -> None:
    """Raise `InputError` naming `key` unless `condition` holds, as for a rule of two keys."""
    if not condition:
        raise InputError(f"{key}: {problem}")


# ---- the file ----------------------------------------------------------------------------------


def read(path: Path) -> dict[str, Any]:
    """A file of parameters as a dict; `InputError` names the file, and the line if there is one."""
    try:
        content = path.read_bytes()[: LARGEST + 1]
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: not found; run from the project's root") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{path}: line {line} is not UTF-8; save the file as UTF-8") from None
    if len(content) > LARGEST:
        limit = f"{LARGEST >> 10} KiB"
        raise InputError(f"{path}: larger than {limit}, too large for a file of parameters")
    if isinstance(values := _parsed(path, text), dict):
        return values
    raise InputError(f"{path}: expected sections with keys")


def _parsed(path: Path, text: str) -> Any:
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_nodes(path, node)
        return loader.construct_document(node)
    except InputError:
        raise
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise InputError(f"{path}: not valid YAML (line {line}): {error.problem}") from None
    except RecursionError:  # of the parser itself
        raise InputError(f"{path}: nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:  # a control character; a date without its month
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path}: not valid YAML: {reason}") from None


def _check_nodes(path: Path, root: yaml.Node) -> None:
    """Refuse what YAML allows and nobody means, before anything is built from it.

    The walk follows aliases, so that one which contains itself is too deep, and ten levels of ten
    aliases each are too many values. Of two equal keys YAML would silently take the second.
    """
    waiting, count = [(root, 1)], 0
    while waiting:
        node, depth = waiting.pop()
        count += 1
        line = f"{path}: line {node.start_mark.line + 1}"
        require(depth <= DEEPEST, line, "nested too deeply")
        require(count <= MOST, line, f"more than {MOST} values; write them out without aliases")
        children = []
        if isinstance(node, yaml.MappingNode):
            names = Counter(str(name.value) for name, _ in node.value)
            name, times = max(names.items(), key=lambda item: item[1], default=("", 0))
            require(times < 2, line, f"the key {name} is there twice")
            children = [child for pair in node.value for child in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        waiting += [(child, depth + 1) for child in children]


# ---- a section ---------------------------------------------------------------------------------


def load(params: Content, section: str, settings: type[S], file: str = "params.yaml") -> S:
    """Build `settings` from `params[section]`, and its shared fields from the top level.

    >>> class Train(Settings):
    ...     steps: Count
    ...     seed: Shared[Seed]
    >>> load({"seed": 1, "train": {"steps": 5}}, "train", Train)
    Train(steps=5, seed=1)
    >>> load({"seed": 1, "train": {"step": 5}}, "train", Train)
    Traceback (most recent call last):
    adapt.params.InputError: params.yaml: unknown key train.step; did you mean train.steps?
    >>> load({"seed": 1, "train": {"steps": 0}}, "train", Train)
    Traceback (most recent call last):
    adapt.params.InputError: params.yaml: train.steps: must be at least 1, got 0
    """
    own = params.get(section)
    require(own is not None, file, f"missing section {section}")
    if not isinstance(own, Mapping):
        raise InputError(f"{file}: {section}: expected keys and values, got {_shown(own)}")
    top = shared_fields(settings)
    try:
        for name in own:
            if name in top:
                raise InputError(f"unknown key {section}.{name}; {name} stands at the top level")
        values = {**own, **{name: params[name] for name in top if name in params}}
        return settings.model_validate(_frozen(values))
    except ValidationError as error:
        raise InputError(f"{file}: {_message(error, section, settings)}") from None
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def shared_fields(settings: type[Settings]) -> list[str]:
    """The fields of a section that are read from the top level."""
    metadata = {name: map(type, field.metadata) for name, field in settings.model_fields.items()}
    return [name for name, kinds in metadata.items() if _FromTopLevel in kinds]


def as_params(section: str, settings: Settings) -> dict[str, Any]:
    """The part of params.yaml that `load` would make `settings` from."""
    values = settings.model_dump(mode="json", exclude_none=True, exclude_unset=True)
    top = {name: values.pop(name) for name in shared_fields(type(settings))}
    return {section: values, **top}


def flat(values: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Every value under its whole name, as text.

    >>> flat({"seed": 1, "train": {"beta": 0.5, "attn_layers": [0, 1]}})
    {'seed': '1', 'train.beta': '0.5', 'train.attn_layers': '[0, 1]'}
    """
    named: dict[str, str] = {}
    for key, value in values.items():
        name = above + key
        named |= flat(value, f"{name}.") if isinstance(value, Mapping) else {name: str(value)}
    return named


def _frozen(value: Any) -> Any:
    """YAML's lists as tuples, which frozen settings hold."""
    if isinstance(value, Mapping):
        return {str(key): _frozen(item) for key, item in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


_PROBLEMS = {  # pydantic's kind of error: what is said of the value, with pydantic's own numbers
    "greater_than_equal": "must be at least {ge:.12g}",
    "greater_than": "must be greater than {gt:.12g}",
    "less_than_equal": "must be at most {le:.12g}",
    "less_than": "must be less than {lt:.12g}",
    "finite_number": "must be finite",
    "literal_error": "must be {expected}",
    "string_too_short": "must not be empty",
    "string_pattern_mismatch": "must be {description}",
    "too_short": "must name at least one",
    "int_type": "expected a whole number",
    "float_type": "expected a number",
    "bool_type": "expected true or false",
    "string_type": "expected a text",
    "tuple_type": "expected a list",
    "dict_type": "expected keys and values",
    "model_type": "expected keys and values",
}


def _message(error: ValidationError, section: str, settings: type[Settings]) -> str:
    """The first error in words: a typing error explains the key that is missing for it."""
    errors = error.errors(include_url=False)
    first = min(errors, key=lambda one: one["type"] != "extra_forbidden")
    path, kind, context = first["loc"], first["type"], first.get("ctx", {})
    above = "" if path and path[0] in shared_fields(settings) else section
    key = above + "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path)
    key = key.removeprefix(".")
    if kind == "extra_forbidden":
        above, _, name = key.rpartition(".")
        known = set(_fields(path[:-1], settings)) - set(shared_fields(settings))
        return f"unknown key {key}; {hint(name, known, above)}"
    if kind == "missing":
        return f"missing key {key}"
    if kind == "value_error":
        # A rule of two keys names the one to change itself (`require`); a field's own does not.
        is_named = isinstance(context["error"], InputError)
        return f"{key}{'.' if is_named else ': '}{context['error']}"
    if kind == "string_pattern_mismatch":
        context = {"description": _fields(path[:-1], settings)[str(path[-1])].description}
    problem = _PROBLEMS[kind].format(**context) if kind in _PROBLEMS else first["msg"]
    return f"{key}: {problem}, got {_shown(first['input'])}"


def shown(value: Any) -> str:
    """A value from outside in a message: never longer than a line, never unprintable.

    >>> shown("a" * 1000)
    "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa..."
    >>> shown("a\\x1b[31m\\n")
    "'a\\\\x1b[31m\\\\n'"
    """
    try:
        text = repr(value[: LONGEST + 1] if isinstance(value, str | bytes) else value)
    except (RecursionError, ValueError):  # nested without end; an integer of 4,300 digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def plain(text: str) -> str:
    """A text from outside as part of a message, at full length: a path, what a library says.

    >>> plain("data/a\\x1b[31m.json")
    'data/a\\\\x1b[31m.json'
    """
    return text if text.isprintable() else repr(text)[1:-1]


def _shown(value: Any) -> str:
    """A value as a reader of the file knows it."""
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "true", False: "false"}[value]
    shown = repr(list(value) if isinstance(value, tuple) else value)
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+e[-+]?\d+", value, re.IGNORECASE):
        digits, _, exponent = value.lower().partition("e")
        return f"the text {shown}; YAML takes it for a number as {digits}.0e{exponent}"
    return shown if len(shown) < 80 else f"{shown[:80]}..."


def _fields(path: Iterable[int | str], settings: type[Settings]) -> dict[str, Any]:
    """The fields of the section that lies at `path` below `settings`."""
    section: Any = settings
    for name in path:
        inner = _section(section)
        if name in inner.model_fields:
            section = inner.model_fields[name].annotation
        elif inner.model_config.get("extra") == "allow":  # free keys, as the metrics of `gate`
            section = get_type_hints(inner)["__pydantic_extra__"]
        # Of a dict or a list any key leads to a section like all others of it.
    return _section(section).model_fields


def _section(annotation: Any) -> Any:
    """The section that a field holds: itself, one or None, or a list or dict of such."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return annotation
    return next(filter(None, map(_section, get_args(annotation))), None)


def hint(name: str, known: Iterable[str], above: str = "") -> str:
    """The known name that is spelled nearly as an unknown one, or all of them.

    >>> hint("step", ["seed", "steps"], "train"), hint("x", ["seed", "steps"])
    ('did you mean train.steps?', 'known: seed, steps')
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    prefix = f"{above}." if above else ""
    return f"did you mean {prefix}{close[0]}?" if close else f"known: {', '.join(names)}"
