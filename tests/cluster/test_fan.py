"""Actors give what one process gives, to the byte, and get their model however it reaches them."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from adapt.cluster import weights
from adapt.cluster.fan import actor_device, crew
from adapt.cluster.weights import Actor, Folder
from adapt.data.schema import Example
from adapt.generation.bench import Bench
from adapt.generation.crew import Crew, Hand
from adapt.generation.settings import SteerConfig
from adapt.models.load import save
from adapt.pairs.make import make_pairs
from adapt.params import InputError
from adapt.progress import unlogged
from tests.generation.test_bench import CONFIG
from tests.support import preferences
from tests.support.families import QUESTIONS, built, mixed
from tests.support.preference_rows import png

STEER = SteerConfig(alpha=0.5, tau=50.0, trigger="mass", anchor_share=0.1, layers="all")
FAMILIES = ("llava", "qwen2_5_vl")  # one grid for all pictures, and one for each size


@pytest.fixture(autouse=True)
def no_other_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """And one thread, as the actors have: sums of two differ in their last bits."""
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rows(name: str) -> list[Example]:
    """Pictures of several sizes, in two kinds of questions."""
    return [
        Example(
            id=f"{kind}-{i}",
            image_id=f"{i}",
            images=tuple(map(png, pictures)),
            kind=kind,
            history=(),
            question=QUESTIONS[0],
            answer="a red house.",
            objects=None,
            absent=None,
        )
        for i, pictures in enumerate(mixed(name) * 2)
        for kind in ("describe", "exists")
    ]


def written(bench: Bench, folder: Path) -> dict[str, bytes]:
    """The tables of two arms, and the masks, as files."""
    folder.mkdir()
    for arm, steer in (("base", None), ("base_steered", STEER)):
        (folder / arm).mkdir()
        bench.ask(arm, steer, traces=3).write(folder / arm)
    bench.debias.save(folder / "masks.safetensors")
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    for name in FAMILIES:
        save(*built(name), root / name)
    return {name: root / name for name in FAMILIES}


def test_tables_are_those_of_one_process(folders: dict[str, Path], tmp_path: Path) -> None:
    """One Ray for each number of actors; they open one model after the other."""

    def tables(name: str, who: str, crew: Crew | None) -> dict[str, bytes]:
        state = tmp_path / f"{who}-{name}"
        bench = Bench(folders[name], "test", rows(name), CONFIG, state, crew=crew)
        return written(bench, tmp_path / f"{who}-{name}-tables")

    want = {name: tables(name, "alone", None) for name in FAMILIES}
    for actors in (1, 2):
        with crew(actors, 1, "cpu", "answer") as fan:
            assert fan is not None
            for name in FAMILIES:
                assert tables(name, f"{actors}", fan) == want[name], (name, actors)


def test_pairs_are_those_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = {}
    known = [preferences.known(i) for i in range(8)]
    for actors in (0, 2):
        results = preferences.workspace(tmp_path / f"{actors}", known)
        monkeypatch.setenv("ADAPT_STATE", str(tmp_path / f"state-{actors}"))
        out = tmp_path / f"out-{actors}"
        out.mkdir()
        config = preferences.config(actors=actors, source="both")
        points: list[float] = []
        log = lambda step, metrics: points.append(metrics["pairs"])  # noqa: E731, B023
        splits, base = results / "data" / "splits", results / "base" / "model"
        metrics = make_pairs(config, splits, base, out, log)
        files = {path.name: path.read_bytes() for path in out.iterdir()}
        made[actors] = files, metrics, points[-1]
        # What is known is found by whoever comes next, alone or not.
        again = config.model_copy(update={"actors": 0})
        assert make_pairs(again, splits, base, out, unlogged) == metrics
        assert {path.name: path.read_bytes() for path in out.iterdir()} == files
    assert made[2] == made[0]


class Elsewhere(Folder):
    """A folder that no actor has under its path."""

    source: Path

    @property
    def content(self) -> str:  # type: ignore[override]
        return weights.digest(weights.files_of(self.source))

    def pieces(self) -> Any:
        return Folder(self.source, self.node).pieces()


def test_a_model_reaches_a_node_by_its_path_or_in_pieces(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "PIECE", 10_000)
    source, opener = folders["llava"], partial(Hand.open, "cpu", 1)
    with crew(1, 1, "cpu", "answer") as fan:
        assert fan is not None
        fan.open(source, opener)
        facts = fan.ask("facts")
        # 1. Of another node: read where it lies if it is the same, and if not, not.
        mine, actor = Folder.of(source), Actor(1)
        assert actor.open((source, "another", mine.content), None, lambda folder: folder)
        assert not actor.open((source, "another", None), None, lambda folder: folder)
        assert not actor.open((source, "another", "0" * 64), None, lambda folder: folder)
        # 2. Through the object store, once per node.
        elsewhere = Elsewhere(tmp_path / "nowhere", "another")
        object.__setattr__(elsewhere, "source", source)
        monkeypatch.setattr(Folder, "of", lambda path: elsewhere)
        fan.open(source, opener)
        assert fan.ask("facts") == facts
        brought = weights._brought(elsewhere.content)
        assert weights.digest(weights.files_of(brought)) == elsewhere.content
        inode = brought.stat().st_ino
        assert weights.filled(elsewhere.content, {}) == brought
        assert brought.stat().st_ino == inode
        assert {path.name for path in brought.parent.iterdir()} == {
            brought.name,
            f"{brought.name}.lock",
        }


def test_mistakes_are_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"answer\.actors: 3 actors need a GPU each.*set it to 2"):
        actor_device("cuda", 3, 2, "answer")
    with pytest.raises(InputError, match=r"mps answers in one process; set pairs\.actors to 0"):
        actor_device("mps", 1, 0, "pairs")
    with crew(1, 1, "cpu", "answer") as fan:
        assert fan is not None
        with pytest.raises(InputError, match="none: not found"):
            fan.open(tmp_path / "none", Hand)
        # What an actor finds wrong is told as a process alone would tell it.
        (tmp_path / "empty").mkdir()
        fan.open(tmp_path / "empty", partial(Hand.open, "cpu", 1))
        with pytest.raises(InputError, match="empty") as told:
            fan.ask("facts")
        assert "\n" not in str(told.value)


def test_nobody_is_started_for_none() -> None:
    with crew(0, 1, "cpu", "answer") as fan:
        assert fan is None


def test_a_job_on_a_cluster_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts on the head, which may have neither a GPU nor a CPU to lend."""
    monkeypatch.setenv("ADAPT_RAY_JOB", "s3://bucket/jobs/one")
    with crew(0, 1, "cpu", "answer") as fan:
        assert fan is not None and fan.actors == 1


class Dies(Hand):
    """Ends its process at every part with a row of this name."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name, self._folder = name, folder

    def told(self, name: str) -> str:
        if name == self._name:
            os._exit(1)
        return name


@pytest.mark.slow
def test_a_part_that_ends_every_actor_ends_the_pass(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with crew(2, 1, "cpu", "answer") as fan:
        assert fan is not None
        fan.open(tmp_path, partial(Dies, "c"))
        done = set[Any]()
        with pytest.raises(InputError, match=r"answer\.actors: .* lost 3 times .*answer\.batch"):
            done |= {name for _, name in fan.each("told", [(name,) for name in "abcde"])}
        assert [name for _, name in fan.each("told", [("x",), ("y",)])] in (["x", "y"], ["y", "x"])
    said = capfd.readouterr().err
    assert said.count("answer: an actor was lost") == 3
