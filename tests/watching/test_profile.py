"""The reference profile: made of a stage's tables as the server makes its numbers; read back."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from adapt.data import scenes
from adapt.data.schema import Example
from adapt.data.tables import write_split
from adapt.metrics.detection import Detector
from adapt.params import InputError
from adapt.watching import profile, signals
from adapt.watching.profile import FEWEST, Profile
from tests.support import logged

DETECTOR = Detector(
    features=("mass",), means=(0.5,), scales=(0.1,), weights=(-1.0,), intercept=0.0, strength=1.0
)


def tables(rows: list[Example]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What stage answer leaves of a model that says the same of every picture."""
    ends = [1, 5, 9, 13]  # a red car now
    columns = {name: [0.5, 0.4, 0.3, 0.2] for name in (*signals.SIGNALS, "logprob", "fired")}
    responses = pd.DataFrame(
        {
            "arm": "tuned",
            "split": "validation",
            "id": [row.id for row in rows],
            "image_id": [row.image_id for row in rows],
            "kind": [row.kind for row in rows],
            "response": "a red car now",
        }
    )
    about = {"arm": "tuned", "split": "validation", "end": ends}
    tokens = [pd.DataFrame({"id": row.id, **about, **columns}) for row in rows]
    return responses, pd.concat(tokens, ignore_index=True)


@pytest.fixture(scope="module")
def rows() -> list[Example]:
    about = {"size": 48, "caption_noise": 0.0, "seed": 1}
    found = [row for n in range(FEWEST) for row in scenes.examples("validation", n, **about)]
    return [row for row in found if row.kind in ("describe", "exists")]


def test_of_a_stages_tables(rows: list[Example]) -> None:
    words = scenes.vocabulary()
    about = {"threshold": 0.9, "seed": 7}
    made = profile.of(*tables(rows), rows, DETECTOR, words, **about)
    assert made.pictures == FEWEST and made.modes == {"RGB": 1.0} and not made.note
    # "car" begins at 6: its first token is the third, of mass 0.3, two scales below the mean.
    assert set(made.values["risk"]) == {0.880797}
    assert set(made.values["warned"]) == {0.0} and set(made.values["length"]) == {4.0}
    assert set(made.values["mass_late_early"]) == {0.4}
    assert len(set(made.values["brightness"])) > FEWEST / 2
    assert set(made.values) == set(signals.NAMES)
    # The same tables give the same bytes; without a detector there is no risk.
    assert profile.of(*tables(rows), rows, DETECTOR, words, **about).text() == made.text()
    blind = profile.of(*tables(rows), rows, None, words, **about)
    assert all(map(math.isnan, blind.values["risk"]))


def test_read_back(rows: list[Example], tmp_path: Path) -> None:
    made = profile.of(*tables(rows), rows, None, None, threshold=0.5, seed=7)
    text = made.write(tmp_path).read_text()
    again = profile.parsed(text, "profile.json")
    assert again.text() == text and again.values["noise"] == made.values["noise"]
    assert len(text) < 100_000 and "picture" not in text.replace('"pictures"', "")


def test_too_few_pictures_say_so(rows: list[Example]) -> None:
    made = profile.of(*tables(rows[:20]), rows, None, None, threshold=0.5, seed=7)
    assert made.pictures == 0
    assert made.note.startswith("7 pictures of the validation split have free answers")


def test_from_the_results_of_a_workspace(rows: list[Example], tmp_path: Path) -> None:
    about = {"threshold": 0.5, "seed": 1}
    assert (
        "responses.parquet: not found" in profile.made(tmp_path, "tuned", None, None, **about).note
    )
    (tmp_path / "answer").mkdir()
    for name, table in zip(("responses", "tokens"), tables(rows), strict=True):
        other = table.assign(arm="base")
        pd.concat([table, other]).to_parquet(tmp_path / "answer" / f"{name}.parquet")
    (tmp_path / "data" / "splits").mkdir(parents=True)
    write_split(tmp_path / "data" / "splits" / "validation.parquet", rows)
    made = profile.made(tmp_path, "tuned", DETECTOR, None, **about)
    assert made.pictures == FEWEST
    assert set(map(math.isnan, made.values["risk"])) == {True}  # nobody knows the names of things


@pytest.mark.parametrize(
    "change",
    [
        {"format": 9},
        {"values": 7},
        {"pictures": 3},
        {"modes": [1]},
        {"threshold": "x"},
        {"values": {"mass_early": ["a"]}},
        {"pictures": None},
    ],
)
def test_what_is_no_profile_is_one_line(change: dict[str, object]) -> None:
    content = json.loads(logged.profile(60).text()) | change
    with pytest.raises(InputError) as caught:
        profile.parsed(json.dumps(content), "models:/adapt/3/profile.json")
    line = str(caught.value)
    assert line.startswith("models:/adapt/3/profile.json: ") and line.isprintable()


@pytest.mark.parametrize("text", ["", "[]", "7", "{", "[" * 100_000, b"\xff\xfe"])
def test_garbage_is_one_line(text: str | bytes) -> None:
    with pytest.raises(InputError, match="is no profile that can be read"):
        profile.parsed(text, "profile.json")
    assert Profile().pictures == 0
