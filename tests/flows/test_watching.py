"""What the watch makes of a log: windows against the champion's profile, in MLflow and in words."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapt.registry import settling
from adapt.registry.away import RegistryAway
from adapt.registry.ledger import Entry
from adapt.tracking import watched
from adapt.tracking.store import Store
from adapt.watching import recorder
from adapt.watching.profile import Profile
from adapt.watching.recorder import Served
from flows import drift_page, watching
from flows.watching import Looked
from tests.support import logged, tracked

NOW = logged.START + 100_000


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(recorder, "FLUSH_S", 0.05)
    return tracked.workspace(tmp_path, monkeypatch)


def champion(store: Store, profile: Profile | None, when: str = "2020-01-01 00:00:00 UTC") -> str:
    """A version with this profile that has been promoted."""
    folder = store.root / "version"
    (folder / "serving").mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_text("weights")
    if profile is not None:
        profile.write(folder / "serving")
    client, name = store.client, store.config.model
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    made = client.create_model_version(name, str(folder), await_creation_for=0)
    version = str(made.version)
    stands = settling.settled(store, begin=True)
    against = stands.state.champion
    entry = Entry(what="promoted", of=version, to=version, against=against, when=when, who="test")
    assert settling.decide(store, entry)[0]
    return version


def look(store: Store, **options: Any) -> Looked:
    config = logged.config(**options.pop("config", {}))
    looked = watching.look(store, config, record=options.pop("record", False), now=NOW)
    watching.keep(store.root, looked.kept)
    return looked


def log(store: Store, count: int, seed: int = 0, **about: Any) -> None:
    logged.write(logged.CONFIG, store.root, logged.answers(count, seed, **about))


def later(count: int, seconds: int, shift: float = 0.0) -> Iterator[Served]:
    """Answers that were given so much later."""
    rng = np.random.default_rng(seconds)
    for number in range(count):
        about = {"id": f"later-{seconds}-{number}", "time": logged.START + seconds + number}
        yield logged.served(number, rng, shift, **about)


def test_what_there_is_nothing_to_compare_with(store: Store) -> None:
    assert look(store, config={"log": ""}).sentences() == ["answers are not logged (watch.log)"]
    assert look(store).sentences() == ["no answer was logged since the last look"]
    log(store, 5)
    assert look(store).sentences() == ["there is no champion to compare answers with"]
    champion(store, None)
    says = "version 1 has no reference profile: it was registered without one"
    assert look(store).sentences() == [says]


def test_answers_as_on_the_validation_split(store: Store) -> None:
    champion(store, logged.profile())
    log(store, 150)
    looked = look(store)
    assert len(looked.windows) == 2 and not looked.kept.owed
    first, second = looked.sentences()
    assert first.startswith("version 1 answers as on its validation split (60 answers, 2026-")
    assert second == "30 answers wait for a window of 60 pictures"
    # Those that were compared are not compared again.
    assert look(store).sentences() == [second]


def test_a_drift_is_owed_once_and_again_after_a_quiet_window(store: Store) -> None:
    champion(store, logged.profile())
    shifted = [one for one in logged.answers(120, shift=0.3)]
    logged.write(logged.CONFIG, store.root, iter(shifted[:60]))
    looked = look(store)
    owed = looked.kept.owed
    assert owed["message"].startswith("answers have drifted: ") and "mass_" in owed["message"]
    assert owed["reason"].startswith("drift: ") and looked.page.startswith(
        "# Window 1 of version 1"
    )
    # It is owed until somebody has taken it, and goes on without being owed again.
    assert look(store).kept.owed == owed
    watching.keep(store.root, watching.replace(looked.kept, owed={}))
    logged.write(logged.CONFIG, store.root, iter(shifted[60:]))
    again = look(store)
    assert again.windows[0].alarms and not again.kept.owed
    # A window without an alarm ends it; the next drift is told anew.
    logged.write(logged.CONFIG, store.root, later(60, 1000))
    assert not look(store).windows[0].alarms
    logged.write(logged.CONFIG, store.root, later(60, 2000, shift=0.3))
    assert look(store).kept.owed


def test_windows_are_shown_in_mlflow(store: Store) -> None:
    champion(store, logged.profile())
    log(store, 180, shift=0.3)
    look(store, record=True)
    (run,) = store.client.search_runs([store.experiment_id], f"tags.`{watched.TAG}` = 'adapt/1'")
    points = store.client.get_metric_history(run.info.run_id, watched.COUNT)
    assert [(point.step, point.value) for point in points] == [(1, 1.0), (2, 1.0), (3, 1.0)]
    assert run.data.metrics["distance/mass_late"] > 0.5
    names = {one.path for one in store.client.list_artifacts(run.info.run_id)}
    assert names == {"report.md", "curves.png"}
    assert "answers have drifted" in run.data.tags["mlflow.note.content"]
    # The next look goes on with the same run.
    late = (one for one in logged.answers(240, 3) if one.time >= logged.START + 180)
    logged.write(logged.CONFIG, store.root, late)
    look(store, record=True)
    assert len(store.client.get_metric_history(run.info.run_id, watched.COUNT)) == 4


def test_a_new_champion_is_compared_from_when_it_serves(store: Store) -> None:
    champion(store, logged.profile())
    log(store, 60)
    assert look(store).windows
    # 100 s after the first answer another version becomes champion; servers have minutes to follow.
    champion(store, logged.profile(), when="2026-11-18 11:08:20 UTC")
    before = (one for one in logged.answers(400) if one.time > logged.START + 60)
    logged.write(logged.CONFIG, store.root, before)
    looked = look(store)
    assert looked.version == "2" and not looked.windows
    after = [one for one in logged.answers(700) if one.time > logged.START + 400]
    logged.write(logged.CONFIG, store.root, iter(after))
    looked = look(store)
    # They are answers of version 1 still: that needs no test.
    assert looked.windows and all(one.is_other for one in looked.windows)
    assert "60 of version 1, and the champion is version 2" in looked.kept.owed["message"]


def test_answers_that_are_steered_are_not_compared(store: Store) -> None:
    champion(store, logged.profile())
    log(store, 100, policy="steer")
    looked = look(store)
    assert not looked.windows
    says = "100 answers by other policies than flag are not compared: the profile is of plain ones"
    assert looked.sentences() == [says]


def test_a_registry_that_is_away_costs_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    champion(store, logged.profile())
    log(store, 60)
    with monkeypatch.context() as away:
        away.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store.root}/params.yaml")
        with pytest.raises(RegistryAway):
            watching.look(Store(store.root, store.config), logged.CONFIG, record=False, now=NOW)
    assert len(look(store).windows) == 1


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"version": 1}', "\x00"])
def test_a_damaged_note_is_none(store: Store, content: str) -> None:
    path = store.root / ".state" / "watching.json"
    path.write_text(content)
    assert watching.read(store.root) == watching.Kept()
    kept = watching.Kept(
        "3", 7.0, True, ({"first": 1.0},), {"message": "m", "reason": "r", "link": ""}
    )
    watching.keep(store.root, kept)
    assert watching.read(store.root) == kept and json.loads(path.read_text())


def test_a_page_names_every_signal(store: Store) -> None:
    champion(store, logged.profile())
    log(store, 60, shift=0.3)
    page = look(store).page
    assert page.count("\n| ") == len(logged.profile().values) + 2 and "**changed**" in page
    assert drift_page.at(0) in "1970-01-01 00:00 UTC"
