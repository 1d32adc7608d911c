"""The reference profile of a champion: what its answers look like on the validation split.

The numbers of `signals`, one answer for each picture, as they stand: with a sample itself the tests
of `drift` need no assumption about its form, and some hundred answers make a file of 100 KB. It is
JSON, holds no text and no picture, and goes with the version that it is of.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from adapt.data.pictures import normalised, open_picture
from adapt.data.schema import Example, Vocabulary
from adapt.data.tables import read_split
from adapt.metrics.detection import Detector
from adapt.metrics.mentions import find, first_token
from adapt.metrics.split import FREE
from adapt.params import InputError, shown
from adapt.watching import signals
from adapt.watching.signals import NAMES

FORMAT = 1
FILE = "profile.json"
FEWEST, MOST = 50, 1000  # pictures
DIGITS = 6
LARGEST = 4 << 20  # bytes of a profile
SPLIT = "validation"


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The numbers of one answer for each picture.

    `values` has, by name of a signal, as many values as there are `pictures`, NaN where one is
    missing; `modes` the share of the pictures of each mode. `note` says why there is none.
    """

    pictures: int = 0
    values: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    modes: Mapping[str, float] = field(default_factory=dict)
    threshold: float = 0.5
    note: str = ""

    def write(self, folder: Path) -> Path:
        """Write `profile.json`; returns its path."""
        path = folder / FILE
        path.write_text(self.text(), encoding="utf-8")
        return path

    def text(self) -> str:
        """The profile as JSON, in which a missing value is null."""
        values = {
            name: [None if math.isnan(value) else value for value in column]
            for name, column in self.values.items()
        }
        about = {"format": FORMAT, "note": self.note, "pictures": self.pictures}
        rest = {"threshold": self.threshold, "modes": dict(self.modes), "values": values}
        return json.dumps(about | rest, allow_nan=False) + "\n"


def made(
    results: Path,
    arm: str,
    detector: Detector | None,
    words: Vocabulary | None,
    *,
    threshold: float,
    seed: int,
) -> Profile:
    """The profile of an arm, from what stage `answer` has left in `results`.

    Its plain answers on the validation split. `detector` and `words` are those that it is served
    with, `threshold` the risk that warns. A profile that could not be made says why in its note.
    """
    tables = dict[str, pd.DataFrame]()
    for name in ("responses", "tokens"):
        path = results / "answer" / f"{name}.parquet"
        try:
            table = pd.read_parquet(path)
        except FileNotFoundError:
            return Profile(note=f"{path}: not found")
        tables[name] = table[(table.arm == arm) & (table.split == SPLIT)]
    examples = read_split(results / "data" / "splits" / f"{SPLIT}.parquet")
    answers = tables["responses"], tables["tokens"]
    return of(*answers, examples, detector, words, threshold=threshold, seed=seed)


def of(
    responses: pd.DataFrame,
    tokens: pd.DataFrame,
    examples: Sequence[Example],
    detector: Detector | None,
    words: Vocabulary | None,
    *,
    threshold: float,
    seed: int,
) -> Profile:
    """The profile of the answers of one arm on one split; `examples` are that split's questions.

    Tables as in `adapt/generation/bench.py`. Of several free answers about a picture one is taken
    at random, by `seed`: they are alike, and the tests want what is independent.
    """
    free = responses[responses.kind.isin(FREE)].sort_values("id", ignore_index=True)
    drawn = free.sample(frac=1, random_state=seed).drop_duplicates("image_id").head(MOST)
    if len(drawn) < FEWEST:
        problem = f"{len(drawn)} pictures of the {SPLIT} split have free answers of the model"
        return Profile(note=f"{problem}; {FEWEST} are the fewest", threshold=threshold)
    asked = {one.id: one for one in examples if one.id in set(drawn.id)}
    of_answer = dict(list(tokens[tokens.id.isin(drawn.id)].groupby("id", sort=False)))
    rows, modes = [], list[str]()
    for identity, text in zip(drawn.id.astype(str), drawn.response.astype(str), strict=True):
        example, columns = asked[identity], of_answer.get(identity, tokens.iloc[:0])
        named = risks(text, columns, detector, words) if detector and words else None
        rows.append(
            signals.of_answer(as_served(columns), named, threshold)
            | {"question": float(len(example.question))}
            | signals.of_pictures([open_picture(content) for content in example.images])
        )
        modes += [normalised(content).mode for content in example.images]
    values = {name: tuple(rounded(row[name] for row in rows)) for name in NAMES}
    shares = pd.Series(modes, dtype="str").value_counts(normalize=True)
    of_mode = {str(mode): round(float(share), DIGITS) for mode, share in shares.items()}
    return Profile(pictures=len(rows), values=values, modes=of_mode, threshold=threshold)


def risks(text: str, tokens: pd.DataFrame, detector: Detector, words: Vocabulary) -> list[float]:
    """The risk of each object that an answer names, at its first token."""
    found = find(text, words.objects)
    if not found or not len(tokens):
        return []
    risk = detector.risk({name: tokens[name] for name in detector.features})
    ends = tokens["end"].tolist()
    places = [first_token(ends, one) for one in found]
    return [float(risk[place]) for place in places if place < len(risk)]


def as_served(tokens: pd.DataFrame) -> dict[str, Any]:
    """The columns of a stage's tokens by the names that the server gives them."""
    theirs = {name: "fired" if name == "steered" else name for name in signals.TOKENS}
    return {name: tokens[column].to_numpy(dtype=float) for name, column in theirs.items()}


def rounded(values: Iterable[float]) -> list[float]:
    """Values with the digits of a profile: what is equal must stay so, for tests count ties."""
    return [float(f"{value:.{DIGITS}g}") for value in values]


def parsed(text: bytes | str, where: str) -> Profile:
    """A profile from its JSON; `InputError` names `where` it is from and what is wrong."""
    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise InputError(
                f"{where}: format {content['format']!r} of a profile; {FORMAT} is read"
            )
        count = int(content["pictures"])
        values = {
            name: tuple(math.nan if v is None else float(v) for v in content["values"][name])
            for name in NAMES
            if name in content["values"]
        }
        modes = {str(mode): float(share) for mode, share in content["modes"].items()}
        threshold, note = float(content["threshold"]), str(content["note"])
    except InputError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        reason = shown(f"{type(error).__name__}: {error}")
        raise InputError(f"{where}: is no profile that can be read ({reason})") from None
    if any(len(column) != count for column in values.values()):
        raise InputError(f"{where}: is no profile: not all columns have {count} values")
    return Profile(pictures=count, values=values, modes=modes, threshold=threshold, note=note)
