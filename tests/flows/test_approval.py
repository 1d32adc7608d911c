"""The form that a person decides in: what it shows, what it brings back, and its time limit."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.states import Completed, State
from prefect.testing.utilities import prefect_test_harness

from adapt.params import InputError
from adapt.registry.away import RegistryAway
from adapt.tracking.store import Store, TrackingConfig
from flows import approval
from flows.endings import Ended
from flows.promote import hand
from flows.promote.ending import Promotion
from tests.support import limits

PROMOTION = Promotion(
    version="7",
    ending="waiting",
    reasons=("passed: Hal 40.0 % -> 10.0 %",),
    against="champion, version 3",
    before={"Hal %": 40.0, "Cover %": 90.0},
    after={"Hal %": 10.0},
    digits={"Hal %": 1, "Cover %": 1, "Late/early": 3},
)


@pytest.fixture(scope="module")
def prefect() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=limits.SERVER_START_S):
        yield


@flow
def asking(seconds: int) -> State[Any]:
    """A retraining that has come to the question."""
    answer = approval.ask("**adapt version 7**", seconds)
    said = f"{answer.decision} by {answer.who}" if answer else "nobody"
    return Completed(name="AwaitingApproval", message=said)


def test_a_time_limit_decides_nothing(prefect: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is it a failure, which Prefect makes of a pause that runs out."""
    state = asking(2, return_state=True)
    assert (state.name, state.message) == ("AwaitingApproval", "nobody")
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(state.state_details.flow_run_id)
    assert run.state is not None and run.state.is_completed()


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({"decision": "approve", "who": "me", "why": "fine"}, "approve by me"),
        (None, "decide later by "),
    ],
)
def test_what_the_form_says_comes_back(
    prefect: None, monkeypatch: pytest.MonkeyPatch, sent: dict[str, str] | None, said: str
) -> None:
    monkeypatch.setattr(approval, "POLL_S", 1)
    shown: list[Any] = []

    def answer() -> None:
        """What the page of a paused run does."""
        with get_client(sync_client=True) as client:
            paused = lambda: [r for r in client.read_flow_runs() if r.state.is_paused()]  # noqa: E731
            (run,) = limits.until(paused, "paused run")
            path, keys = f"/flow_runs/{run.id}", run.state.state_details.run_input_keyset
            for kept in ("schema", "description"):
                shown.append(client.request("GET", f"{path}/input/{keys[kept]}").json())
            wrong = {"run_input": {"decision": "maybe"}}
            shown.append(client.request("POST", f"{path}/resume", json=wrong).json()["status"])
            client.request("POST", f"{path}/resume", json={"run_input": sent})

    thread = threading.Thread(target=answer)
    thread.start()
    state = asking(100, return_state=True)
    thread.join()
    assert (state.name, state.message) == ("AwaitingApproval", said)
    texts = [str(one) for one in shown]
    assert any("**adapt version 7**" in one for one in texts)
    assert any("your name, for the record" in one for one in texts)
    assert "REJECT" in texts


def test_what_is_shown_is_figures_reasons_and_the_way_to_pictures() -> None:
    shown = approval.text("adapt", PROMOTION, "http://127.0.0.1:5000/#/experiments/1/runs/2")
    assert shown.splitlines()[0].startswith("**adapt version 7 passed the gate")
    assert "| Hal % | 40.0 | 10.0 |" in shown
    assert "| Cover % | 90.0 |  |" in shown
    assert "Late/early" not in shown  # measured of neither
    assert "* passed: Hal 40.0 % -> 10.0 %" in shown
    assert "http://127.0.0.1:5000/#/experiments/1/runs/2/artifacts" in shown
    assert "](" not in approval.text("adapt", PROMOTION, "")


def test_a_run_without_a_worker_is_not_kept_waiting() -> None:
    assert not approval.can_be_asked()


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (RegistryAway("the registry is away"), "RegistryAway", "say it again by `python -m flows."),
        (
            InputError("the champion is version 4 now"),
            "InputError",
            "the champion is version 4 now",
        ),
    ],
)
def test_an_answer_that_cannot_be_carried_out_says_so(
    monkeypatch: pytest.MonkeyPatch, error: InputError, kind: str, words: str
) -> None:
    def fails(*_: Any) -> str:
        raise error

    monkeypatch.setattr(hand, "approve", fails)
    waiting = Ended(kind="AwaitingApproval", message="", promotion=PROMOTION)
    store = Store(Path(), TrackingConfig(experiment="adapt", model="adapt"))
    ending = approval.decided(store, waiting, approval.Decision(decision="approve", who="me"))
    assert ending.kind == kind and ending.failed
    assert words in ending.message
