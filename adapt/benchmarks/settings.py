"""One benchmark of `answer.benchmarks`: which, where it lies, and what it needs besides.

Every other section writes all of its keys out. Here most keys belong to one benchmark alone, and a
list of mappings in which each of them said `synonyms: null` and `parser: null` would hide the two
that count; so a key that is absent is None here, and each benchmark's module says what it then
does. A key that the named benchmark does not know is refused, as everywhere.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, model_validator

from adapt.params import Count, InputError, Natural, Settings, Text, hint, load, require

Name = Literal["amber", "pope", "chair", "objhal", "mmhal", "hallusion", "own"]
NAMES: tuple[Name, ...] = get_args(Name)
Label = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_-]*$", description="letters, digits, - and _ only")
]
_OF_ALL: tuple[str, ...] = ("name", "path", "label", "images", "limit", "seed", "partial")
_OF_ALL += ("suffix", "max_new_tokens")
_OF_EACH: Mapping[str, tuple[str, ...]] = {
    "amber": ("part", "similarity", "lemmas"),
    "pope": ("parser",),
    "chair": ("variant", "synonyms"),
    "objhal": ("truth", "synonyms"),
    "mmhal": ("verdicts", "judge"),
    "hallusion": ("verdicts",),
    "own": (),
}


class Judge(Settings):
    """An OpenAI-compatible endpoint that judges answers.

    `url` is its base (".../v1"); `key` names the *environment variable* that holds the key, ""
    sends none. `prompt`: a file with {image_content}, {question}, {standard_answer} and
    {model_answer}, or with four {} in this order.
    """

    url: Annotated[str, Field(pattern=r"^https?://", description="an http:// or https:// address")]
    model: Text
    key: str = ""
    prompt: str | None = None


class Benchmark(Settings):
    """One benchmark; `adapt/benchmarks/<name>.py` says how each key is read.

    label           what its metrics are called, so that one can be there twice (the name)
    path            its folder or its file of questions
    images          the folder of its pictures (where they usually lie beside `path`)
    limit, seed     ask so many of its questions, drawn by the seed (0: all of them; seed 0)
    partial         true: leave out questions whose picture is missing, and say so
    suffix          what is put after a question that wants a short answer ("" for nothing)
    max_new_tokens  longest answer
    """

    name: Name
    path: Text
    label: Label = ""
    images: str | None = None
    limit: Natural = 0
    seed: Natural = 0
    partial: bool = False
    suffix: str | None = None
    max_new_tokens: Count | None = None
    part: Literal["all", "generative", "discriminative"] | None = None
    similarity: str | None = None
    lemmas: str | None = None
    parser: Literal["official", "vcd", "lmms-eval", "vlmevalkit"] | None = None
    variant: Literal["opera", "maxlinn"] | None = None
    synonyms: str | None = None
    truth: str | None = None
    verdicts: str | None = None
    judge: Judge | None = None

    @model_validator(mode="after")
    def _knows_its_keys(self) -> "Benchmark":
        known = (*_OF_ALL, *_OF_EACH[self.name])
        for key in sorted(self.model_fields_set):
            require(key in known, key, f"is no key of {self.name}; known: {', '.join(known)}")
        return self

    @property
    def called(self) -> str:
        """The label, or else the name."""
        return self.label or self.name


def require_distinct(benchmarks: tuple[Benchmark, ...]) -> None:
    """Two benchmarks of one label would share their metrics' names; raises ValueError."""
    seen: set[str] = set()
    for one in benchmarks:
        if one.called in seen:
            raise ValueError(f"two are called {one.called}; give one of them another label")
        seen.add(one.called)


def parsed(text: str) -> Benchmark:
    """A benchmark as the command takes it: `[LABEL:]NAME=PATH[,KEY=VALUE...]`.

    >>> one = parsed("popular:pope=coco_pope_popular.json,images=val2014,limit=500")
    >>> one.called, one.path, one.images, one.limit
    ('popular', 'coco_pope_popular.json', 'val2014', 500)
    """
    called, equals, value = text.partition("=")
    label, _, name = called.rpartition(":")
    require(bool(equals and value), f"--benchmark {text}", "expected [LABEL:]NAME=PATH")
    if name not in NAMES:
        raise InputError(
            f"--benchmark {text}: no benchmark is called {name!r}; {hint(name, NAMES)}"
        )
    path, *options = value.split(",")
    values: dict[str, Any] = {"name": name, "path": path} | ({"label": label} if label else {})
    for option in options:
        key, equals, given = option.partition("=")
        problem = f"{option!r} is not KEY=VALUE; a path may have no comma here"
        require(bool(equals), f"--benchmark {text}", problem)
        values[key] = _typed(key, given)
    return load({"benchmark": values}, "benchmark", Benchmark, "--benchmark")


def _typed(key: str, given: str) -> Any:
    """A value of the command line as YAML would have read it."""
    if key == "partial":
        return {"true": True, "false": False}.get(given, given)
    is_number = key in ("limit", "seed", "max_new_tokens") and given.isdecimal()
    return int(given) if is_number else given
