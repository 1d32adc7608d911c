"""How often the watch alarms although nothing has changed, and how soon when something has.

    python -m benchmarks.false_alarms [--workspace .] [--windows 200] [--drifted 20]

In a workspace that `make run` has left: the tuned model's profile is made of its validation split.
Then it describes new scenes of the same world, each once, in windows that do not overlap; what
alarms is a false alarm. The same answers serve again against profiles of other pictures, since one
profile may be lucky. Then four drifts are planted: scenes of one theme, darker and noisier
pictures, the base model in place of the tuned one, and longer questions.
"""

import argparse
import dataclasses
import hashlib
import io
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from adapt import launch, params
from adapt.data import scenes
from adapt.data.pictures import normalised, open_picture
from adapt.data.schema import Example
from adapt.data.tables import read_split
from adapt.data.worlds import THEMES
from adapt.generation.bench import Bench
from adapt.metrics import detection
from adapt.metrics.detection import Detector
from adapt.serving import bundle
from adapt.watching import drift, profile, signals
from adapt.watching.profile import Profile
from benchmarks.sides import FOLDER, progress, write

AT_ONCE = 2000  # questions before a model
THRESHOLD = 0.5
OTHERS, PICTURES = 30, 300  # profiles of other pictures
Planted = Callable[[Example, np.random.Generator], Example | None]


def main() -> None:
    """Profile, windows without a change, windows with one."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--workspace", type=Path, default=Path(), help="where `make run` has ended")
    add("--windows", type=int, default=200, help="without a change")
    add("--drifted", type=int, default=20, help="windows of each planted drift")
    add("--out", type=Path, default=FOLDER, help="folder of the dated file")
    add("--kept", type=Path, help="folder in which answers are kept for the next run")
    options = parser.parse_args()
    options.device = "cpu"
    world = World.of(options.workspace, options.kept)
    size, rate = world.config["watch"].window, world.config["watch"].false_alarms
    quiet = world.answers("tuned", "quiet", options.windows * size)
    profiles = [world.profile()]
    rows = [alarms("no change", profiles[0], quiet, size, rate)]
    rows.append(others(world, quiet, size, rate))
    for name, (arm, plant) in DRIFTS.items():
        answers = world.answers(arm, name, options.drifted * size, plant)
        rows.append(alarms(name, profiles[0], answers, size, rate))
    notes = [
        f"Windows of {size} pictures, a profile of {profiles[0].pictures}; stated: at most",
        f"{100 * rate:g} % of the windows alarm although nothing has changed.",
    ]
    write("false_alarms", "How often the watch alarms", notes, rows, options)


@dataclasses.dataclass(frozen=True)
class World:
    """A workspace with its models; answers are made once where they are `kept`."""

    root: Path
    config: Mapping[str, Any]
    detector: Detector
    kept: Path | None

    @classmethod
    def of(cls, root: Path, kept: Path | None) -> "World":
        """The workspace in the folder `root`."""
        config = launch.configs(params.read(root / "params.yaml"))
        evaluated = root / "results" / "evaluate"
        by = bundle.warned_by(evaluated, "tuned")
        assert by != "none", "no detector of the tuned model: too few words"
        detectors = detection.read(evaluated / bundle.DETECTORS[by])
        return cls(root, config, detectors[bundle.SERVED], kept)

    def profile(self) -> Profile:
        """Of the tuned model's plain answers on the validation split."""
        rows = read_split(self.root / "results" / "data" / "splits" / "validation.parquet")
        described = [row for row in rows if row.kind == "describe"]
        tables = self._bench("tuned", described).ask("tuned", None)
        about = {"threshold": THRESHOLD, "seed": self.config["answer"].seed}
        answers = tables.responses, tables.tokens, described
        return profile.of(*answers, self.detector, scenes.vocabulary(), **about)

    def answers(
        self, arm: str, name: str, count: int, plant: Planted = lambda row, _: row
    ) -> pd.DataFrame:
        """Rows of a log: so many descriptions of scenes that nobody has seen before."""
        path = self.kept / f"{name}.parquet" if self.kept else None
        if path and path.exists():
            return pd.read_parquet(path)
        new, parts = self._new(count, name, plant), []
        for start in range(0, count, AT_ONCE):
            asked = [row for row, _ in zip(new, range(min(AT_ONCE, count - start)), strict=False)]
            parts.append(self._rows(asked, self._bench(arm, asked)))
            progress(f"{name}: {start + len(asked)} of {count}")
        rows = pd.concat(parts, ignore_index=True).assign(time=np.arange(count, dtype=float))
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            rows.to_parquet(path)
        return rows

    def _new(self, count: int, name: str, plant: Planted) -> Iterator[Example]:
        about: Any = {"size": self.config["scenes"].image_size, "caption_noise": 0.0}
        about["difficulty"] = self.config["scenes"].difficulty
        rng = np.random.default_rng(self.config["answer"].seed)
        # A seed of its own: other scenes than in any split, and others for each drift.
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
        for index in itertools.count():
            row = next(
                row
                for row in scenes.examples("test", index, **about, seed=seed)
                if row.kind == "describe"
            )
            if planted := plant(row, rng):
                yield planted

    def _bench(self, arm: str, rows: Sequence[Example]) -> Bench:
        stage = "base" if arm == "base" else "train"
        return Bench(self.root / "results" / stage / "model", "new", rows, self.config["answer"])

    def _rows(self, asked: Sequence[Example], bench: Bench) -> pd.DataFrame:
        tables = bench.ask("served", None)
        of_answer, said = dict(list(tables.tokens.groupby("id"))), tables.responses.set_index("id")
        rows = []
        for one in asked:
            text, columns = str(said.response[one.id]), of_answer.get(one.id, tables.tokens[:0])
            named = profile.risks(text, columns, self.detector, scenes.vocabulary())
            pictures = [open_picture(content) for content in one.images]
            values = signals.of_answer(profile.as_served(columns), named, THRESHOLD)
            values |= signals.of_pictures(pictures) | {"question": float(len(one.question))}
            about = {"id": one.id, "picture": signals.name_of(pictures, b"benchmark")}
            modes = [normalised(content).mode for content in one.images]
            rows.append(about | {"modes": modes, "version": "1", "policy": "flag"} | values)
        return pd.DataFrame(rows)


def alarms(
    name: str, profile: Profile, rows: pd.DataFrame, size: int, rate: float
) -> dict[str, str]:
    """How many windows alarm, and which signals change most often."""
    found = [drift.compare(profile, part, false_alarms=rate) for part in drift.windows(rows, size)]
    told = Counter(one.name for window in found for one in window.changed)
    return {
        "traffic": name,
        "windows": str(len(found)),
        "alarms": str(sum(window.alarms for window in found)),
        "most often changed": ", ".join(
            f"{signal} {count}" for signal, count in told.most_common(6)
        )
        or "-",
    }


def others(world: World, rows: pd.DataFrame, size: int, rate: float) -> dict[str, str]:
    """The same answers against profiles of other pictures: each of as many as the first has."""
    pool = world.answers("tuned", "others", OTHERS * PICTURES)
    counts = []
    for number in range(OTHERS):
        part = pool.iloc[number * PICTURES : (number + 1) * PICTURES]
        values = {name: tuple(profile.rounded(part[name])) for name in signals.NAMES}
        other = Profile(pictures=len(part), values=values, modes={"RGB": 1.0}, threshold=THRESHOLD)
        found = [drift.compare(other, w, false_alarms=rate) for w in drift.windows(rows, size)]
        counts.append(sum(window.alarms for window in found))
    beyond = sum(count > rate * len(found) for count in counts)
    told = f"more than stated with {beyond} of them, at most {max(counts)} of {len(found)}"
    return {
        "traffic": f"no change, {OTHERS} other profiles",
        "windows": str(len(found) * OTHERS),
        "alarms": str(sum(counts)),
        "most often changed": told,
    }


# ---- drifts ------------------------------------------------------------------------------------


def of(theme: str) -> Planted:
    """Scenes of one theme alone; a fifth of all are."""
    words = set(THEMES[theme])
    return lambda row, _: row if {thing.name for thing in row.objects or ()} <= words else None


def darker_and_noisier(row: Example, rng: np.random.Generator) -> Example:
    """At 70 % of the light, with noise of a tenth of the range."""
    (content,) = row.images
    light = np.asarray(open_picture(content), dtype=np.float64)
    light = 0.7 * light + rng.normal(0, 25, light.shape)
    file = io.BytesIO()
    Image.fromarray(light.clip(0, 255).astype(np.uint8)).save(file, "PNG")
    return dataclasses.replace(row, images=(file.getvalue(),))


def longer(row: Example, rng: np.random.Generator) -> Example:
    """A third of the questions is asked twice in one."""
    question = f"{row.question} {row.question}"
    return dataclasses.replace(row, question=question) if rng.random() < 1 / 3 else row


DRIFTS: Mapping[str, tuple[str, Planted]] = {
    **{f"all {theme}": ("tuned", of(theme)) for theme in THEMES},
    "darker and noisier pictures": ("tuned", darker_and_noisier),
    "an older model": ("base", lambda row, _: row),
    "longer questions": ("tuned", longer),
}

if __name__ == "__main__":
    main()
