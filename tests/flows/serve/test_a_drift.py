"""The watch as it is deployed, with the services of `make serve`: answers that have drifted, and
data that has changed, each start a dry run of `retrain/on-change`; people are told of a drift.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from adapt.data.sources import Source
from adapt.registry import settling
from adapt.registry.ledger import Entry
from adapt.tracking import watched
from adapt.tracking.store import Store
from tests.support import limits, logged, tracked, workspace
from tests.support.served import Inbox, Served, inbox, served

pytestmark = pytest.mark.slow

SETTINGS = {"data": {"source": "mine"}, "watch": {"window": 60}}


@dataclass(frozen=True)
class Watched:
    """The services, what people were sent, and the workspace's store."""

    served: Served
    box: Inbox
    store: Store

    def look(self) -> dict[str, Any]:
        """How a run of watch/watch has ended."""
        run = self.served.start("watch/watch", {})
        return self.served.state(run, "COMPLETED", "FAILED", "CRASHED")

    def started(self, words: str) -> dict[str, Any]:
        """The ended run of retrain/on-change whose name has these words."""
        found = self.served.prefect("deployments/name/retrain/on-change")["id"]
        query = {"flow_runs": {"deployment_id": {"any_": [found]}}}

        def ended() -> list[dict[str, Any]]:
            runs = self.served.prefect("flow_runs/filter", query)
            return [
                run
                for run in runs
                if words in run["name"] and run["state"]["type"] in ("COMPLETED", "FAILED")
            ]

        return dict(limits.until(ended, f"run {words!r} of on-change", limits.COMMAND_S)[0])


def change(root: Path, answer: str) -> None:
    (root / "mine").mkdir(exist_ok=True)
    row = {"question": "?", "chosen": answer, "rejected": "no"}
    (root / "mine" / "rows.jsonl").write_text(json.dumps(row) + "\n")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    root = tmp_path_factory.mktemp("drift")
    with inbox() as box, pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "ADAPT_STATE"):
            patch.delenv(name, raising=False)
        with served(root, {"ADAPT_ALERT_URL": box.address}, SETTINGS) as services:
            yield Watched(services, box, Store(root, tracked.CONFIG))
        workspace.all_end(root)


def champion(store: Store) -> None:
    folder = store.root / ".state" / "version"
    (folder / "serving").mkdir(parents=True)
    logged.profile().write(folder / "serving")
    store.client.create_registered_model("adapt")
    store.client.create_model_version("adapt", str(folder), await_creation_for=0)
    settling.settled(store, begin=True)
    entry = Entry(what="promoted", of="1", to="1", when="2020-01-01 00:00:00 UTC", who="a test")
    assert settling.decide(store, entry)[0]


def log(root: Path, seed: int, seconds_ago: float, shift: float = 0.0) -> None:
    began = time.time() - seconds_ago
    said = list(logged.answers(60, seed, shift=shift))
    place = logged.config(log=".state/served")
    parts = (
        type(one)(**{**vars(one), "id": f"{seed}-{one.id}", "time": began + number})
        for number, one in enumerate(said)
    )
    logged.write(place, root, parts)


@pytest.mark.timeout(limits.WHOLE_TEST_S)
def test_a_drift_and_new_data_each_start_a_dry_run(here: Watched) -> None:
    root = here.served.root
    change(root, "a")
    (root / "results" / "data").mkdir(parents=True)
    noted = {"source": "mine", "revision": Source.open("mine", root).fingerprint()}
    (root / "results" / "data" / "source.json").write_text(json.dumps(noted))
    champion(here.store)
    # 1. Traffic as on the validation split: nothing is told.
    log(root, 1, 3000)
    ended = here.look()
    assert ended["name"] == "Seen", here.served.log()
    assert "version 1 answers as on its validation split" in ended["message"]
    # 2. It drifts within one window: an event, a message to people, and a dry run.
    log(root, 2, 1000, shift=0.3)
    ended = here.look()
    assert ended["name"] == "Told", here.served.log()
    assert "answers have drifted" in ended["message"]
    run = here.started("drift: ")
    assert run["state"]["name"] == "DryRun", run["state"]
    assert here.box.wait("answers have drifted")["event"] == "adapt.drift"
    (shown,) = here.store.client.search_runs([here.store.experiment_id], "tags.`adapt.watch` != ''")
    history = here.store.client.get_metric_history(shown.info.run_id, watched.COUNT)
    assert [point.value for point in history] == [0.0, 1.0]
    (artifact,) = here.served.prefect("artifacts/latest/filter", {})
    assert artifact["data"].startswith("# Window 2 of version 1")
    # 3. Other data: the same, once.
    change(root, "b")
    assert here.look()["name"] == "Told"
    assert here.started("mine has changed")["state"]["name"] == "DryRun"
    assert here.look()["name"] == "Seen"
