"""All rows of a pair file seen by a model, in one streaming pass, and what was found of them kept.

A file of many rows is first looked at here and there, so that one that does not fit at all is
refused at once; then all of it passes by, a part at a time, through as many processes as there are
cores. It happens before training and not beside it: a bad row shall not end a night's training in
the morning. What the pass has found is kept under a digest of the pairs, the base and the code, a
few bytes, so that a file that was looked at once is not looked at again.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_origin

from transformers import AutoConfig

from adapt import environment
from adapt.cluster import storage, submit
from adapt.data.workers import parts
from adapt.models.load import load_processor
from adapt.pairs.table import Pair, read_pairs
from adapt.params import InputError
from adapt.preference.taken import Lengths, Seen, at, check_pictures, lengths_of
from adapt.progress import track

AT_ONCE = 256  # rows whose texts are made tokens together
SAMPLED = 64  # rows that are looked at first
PIECE = 1024  # rows that a process takes at a time
ALONE = 8192  # rows up to which this process does it: another one takes seconds to start


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of rows together.

    Args:
        longest: tokens of the longest chosen answer behind what both answers begin with.
        spanned: whether an answer has words that decide.
        placed: whether a chosen answer names a thing whose box is known, behind its prefix.
        apart: whether the answers of a row have pictures of their own, and so no common prompt.
        prompt, answer: tokens of the longest prompt, its pictures with it, and of the longest
            answer of either side.
        tokens, sizes: of the pictures of a prompt that become most tokens how many, and their
            (width, height).
    """

    longest: int = 0
    spanned: bool = False
    placed: bool = False
    apart: bool = False
    prompt: int = 0
    answer: int = 0
    tokens: int = 0
    sizes: tuple[tuple[int, int], ...] = ()

    def __or__(self, other: "Facts") -> "Facts":
        """Of both together."""
        tokens, sizes = max((self.tokens, self.sizes), (other.tokens, other.sizes))
        return Facts(
            longest=max(self.longest, other.longest),
            spanned=self.spanned or other.spanned,
            placed=self.placed or other.placed,
            apart=self.apart or other.apart,
            prompt=max(self.prompt, other.prompt),
            answer=max(self.answer, other.answer),
            tokens=tokens,
            sizes=sizes,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FactsCache:
    """Where facts are kept: a folder or a URI of shared storage; `digest` is that of a path."""

    uri: str
    digest: Callable[[Path], str]

    def place(self, base: Path, pairs: Path) -> str:
        """The file of these pairs under this base."""
        versions = [version(name) for name in ("transformers", "tokenizers", "pillow")]
        named = [self.digest(base), self.digest(pairs), submit.code_digest(), *versions]
        return f"{self.uri}/{hashlib.sha256(json.dumps(named).encode()).hexdigest()}.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seer:
    """What looks at rows: a model's configuration and processor, both of the folder `base`."""

    base: Path
    config: Any
    processor: Any


def survey(seer: Seer, pairs: Path, rows: Sequence[Pair], cache: FactsCache | None) -> Facts:
    """What is found of all rows, `rows`, of the file `pairs`; InputError names one that is wrong.

    `cache`: where that is kept; None to look in any case.
    """

    def look(places: range) -> Facts:
        return check_rows(seer.config, seer.processor, pairs, rows, places)

    # 1. Here and there: a file that does not fit at all is not read to its end.
    if len(rows) > ALONE:
        for place in range(0, len(rows), len(rows) // SAMPLED):
            look(range(place, place + 1))
    # 2. What is known of exactly this file.
    where = cache and cache.place(seer.base, pairs)
    if where and (known := _read(where)) is not None:
        return known
    # 3. All of it.
    pieces = [range(at, min(at + PIECE, len(rows))) for at in range(0, len(rows), PIECE)]
    found = Facts()
    if len(rows) <= ALONE:
        for places in pieces:
            found |= look(places)
    else:
        with closing(_apart(seer.base, pairs, pieces)) as coming:
            for facts in coming:
                found |= facts
    if where:
        storage.write_json(where, dataclasses.asdict(found))
    return found


def check_rows(
    model_config: Any, processor: Any, pairs: Path, rows: Sequence[Pair], places: range
) -> Facts:
    """That prompts and answers of some rows become tokens, and pictures the tokens of anchors.

    Raises InputError with file and row.
    """
    found, known = Facts(), dict[object, Seen]()
    for start in range(places.start, places.stop, AT_ONCE):
        stop = min(start + AT_ONCE, places.stop)
        part = [*enumerate(rows[start:stop], start + 1)]
        lengths = lengths_of(processor, pairs, part)
        for (number, row), length in zip(part, lengths, strict=True):
            with at(f"{pairs}: row {number} ({row.id})"):
                seen = check_pictures(model_config, processor, row, length, known)
            found |= _of(row, length, seen)
    return found


def _of(row: Pair, length: Lengths, seen: Seen) -> Facts:
    """Facts of one row, by its tokens and those of its pictures."""
    return Facts(
        longest=length.chosen - length.begun,
        spanned=bool(row.chosen_spans or row.rejected_spans),
        placed=any(place.boxes and place.start >= len(row.prefix) for place in row.places),
        apart=bool(row.rejected_images),
        prompt=length.prompt + seen.more,
        answer=max(length.chosen, length.rejected),
        tokens=seen.tokens,
        sizes=seen.sizes,
    )


def _read(uri: str) -> Facts | None:
    """What a file has; None where there is none, or something else."""
    try:
        content = storage.read_json(uri)
        sizes = tuple((int(width), int(height)) for width, height in content["sizes"])
    except (FileNotFoundError, InputError, KeyError, TypeError, ValueError):
        return None
    content["sizes"] = sizes
    kinds = {one.name: get_origin(one.type) or one.type for one in dataclasses.fields(Facts)}
    is_whole = {name: type(value) for name, value in content.items()} == kinds
    return Facts(**content) if is_whole else None


# ---- in processes of their own -------------------------------------------------------------------


def _apart(base: Path, pairs: Path, pieces: Sequence[range]) -> Generator[Facts]:
    """The facts of each piece as they come, from a process for each core."""
    work = _Elsewhere(base, pairs)
    rows = pieces[-1].stop
    with closing(parts(work, pieces, environment.cpus())) as coming:
        for _, (facts, _) in track(coming, "checking pairs", rows, lambda part: part[1][1]):
            yield facts


@dataclasses.dataclass(frozen=True)
class _Elsewhere:
    """Looks at the pieces that a process is given, and says how many rows each had."""

    base: Path
    pairs: Path

    def __call__(self, places: range) -> Iterator[tuple[Facts, int]]:
        config, processor, rows = _opened(self.base, self.pairs)
        yield check_rows(config, processor, self.pairs, rows, places), len(places)


@lru_cache(maxsize=1)  # a process looks at one file of pairs in its life
def _opened(base: Path, pairs: Path) -> tuple[Any, Any, Sequence[Pair]]:
    config = AutoConfig.from_pretrained(str(base), trust_remote_code=False)
    return config, load_processor(base), read_pairs(pairs)
