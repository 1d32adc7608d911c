"""A night as a person lives it, with the services of `make serve`: told that a version awaits
approval, deciding in the form, told of the new champion; and told of nights that go wrong.

One set of services for all of it: they take a minute to start on a busy machine.
"""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support import limits, quick, workspace
from tests.support.served import Inbox, Served, inbox, served

pytestmark = pytest.mark.slow

SETTINGS = {"gate": {"approval": "required"}}


@dataclass(frozen=True)
class Night:
    """The services, and what people were sent."""

    served: Served
    box: Inbox

    def run(self, **options: Any) -> str:
        """Start a run of retrain/nightly; returns its id."""
        return self.served.start("retrain/nightly", {"options": {"reason": "nightly", **options}})


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    root = tmp_path_factory.mktemp("night")
    with inbox() as box:
        with served(root, {"ADAPT_ALERT_URL": box.address}, SETTINGS) as here:
            yield Night(here, box)
        workspace.all_end(root)


@pytest.mark.timeout(limits.WHOLE_TEST_S)
def test_a_person_is_asked_and_the_champion_moves(night: Night) -> None:
    run = night.run()
    # 1. It has passed the gate, pauses, and says so to whom ADAPT_ALERT_URL names.
    state = night.served.state(run, "PAUSED", "COMPLETED", "FAILED", "CRASHED")
    assert state["type"] == "PAUSED", night.served.log()
    told = night.box.wait("awaits approval")
    assert told["event"] == "adapt.retraining.approval-needed"
    assert told["link"].endswith(f"/runs/flow-run/{run}") and told["link"] in told["text"]
    assert f":{night.served.env['ADAPT_MLFLOW_PORT']}/#/experiments/" in told["text"]
    assert "there is no champion" in night.served.command("flows.promote", "status")
    # 2. The form stands below the figures, and takes what somebody fills in.
    keys = state["state_details"]["run_input_keyset"]
    form = night.served.prefect(f"flow_runs/{run}/input/{keys['description']}")
    assert "| Hal % | 40.0 | 10.0 |" in form
    answer = {"decision": "approve", "who": "Grace", "why": "the panels look right"}
    night.served.prefect(f"flow_runs/{run}/resume", {"run_input": answer})
    # 3. The run goes on and ends, the champion has moved, and the ledger knows who and why.
    ended = night.served.state(run, "COMPLETED", "FAILED", "CRASHED")
    assert (ended["name"], ended["message"]) == (
        "Promoted",
        "adapt version 1 was promoted to champion, approved by Grace",
    )
    status = night.served.command("flows.promote", "status")
    assert "version 1 is the champion since" in status
    assert night.box.wait("approved by Grace")["event"] == "adapt.champion.moved"
    history = night.served.command("flows.promote", "history")
    assert "Grace" in history and "the panels look right" in history


@pytest.mark.timeout(limits.WHOLE_TEST_S)
def test_a_failing_night_is_told(night: Night) -> None:
    mistake = night.served.root / "train.mistake"
    mistake.touch()
    quick.tuned(night.served.root, 0.95)
    run = night.run()
    assert night.served.state(run, "COMPLETED", "FAILED", "CRASHED")["name"] == "InputError"
    told = night.box.wait("failed")
    assert "adapt train: params.yaml: unknown key train.step" in told["text"]
    assert "docs/runbook.md" in told["text"] and told["link"].endswith(run)
    mistake.unlink()


@pytest.mark.timeout(limits.WHOLE_TEST_S)
def test_a_killed_night_is_told_although_it_cannot_say_so(night: Night) -> None:
    (night.served.root / "sleep.txt").write_text("120")
    quick.tuned(night.served.root, 0.96)
    run = night.run()
    stage = limits.until(lambda: engine(run, night.served.root), "stage of the run")
    os.kill(stage, signal.SIGKILL)
    assert night.served.state(run, "COMPLETED", "FAILED", "CRASHED")["type"] == "CRASHED"
    told = night.box.wait("was killed")
    assert "SIGKILL" in told["text"] and told["link"].endswith(run)
    (night.served.root / "sleep.txt").unlink()


def engine(run: str, root: Path) -> int | None:
    """The process of a flow run, once it has come to a stage."""
    if not any("quick_stage.py" in line for line in workspace.processes(root)):
        return None
    for process in psutil.process_iter(["cmdline", "environ"]):
        words, env = process.info["cmdline"] or [], process.info["environ"] or {}
        if env.get("PREFECT__FLOW_RUN_ID") == run and words[-1:] == ["prefect.engine"]:
            return int(process.pid)
    return None


def test_no_address_is_in_a_log(night: Night) -> None:
    logs = list((night.served.root / ".state" / "services").glob("*.log"))
    assert len(logs) >= 4
    assert not [log for log in logs if "hunter2" in log.read_text()]
    assert "hunter2" not in night.served.log()
