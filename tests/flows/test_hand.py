"""What a person says about a version, on the command line: the sentence, and what it leaves."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from adapt.registry import registry
from adapt.tracking.store import Store
from flows.promote import people
from flows.promote.__main__ import main
from tests.support import tracked, versions, workspace


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    store = tracked.workspace(tmp_path, monkeypatch)
    with (tmp_path / "params.yaml").open("a") as file:
        file.write("tracking: {experiment: adapt, model: adapt}\n")
    monkeypatch.chdir(tmp_path)
    return store


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What the command answers, which succeeds."""
    capsys.readouterr()
    assert main(words) == 0
    return capsys.readouterr().out.strip()


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line about a mistake."""
    capsys.readouterr()
    assert main(words) == 2
    shown = capsys.readouterr()
    assert not shown.out and shown.err.count("\n") == 1
    return shown.err.strip().removeprefix("promote: ")


def test_a_rollback_goes_back_and_stays(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    versions.reigning(store, "a", "b", "c")
    answer = said(capsys, "rollback", "--why", "loses its answers", "--who", "Kim")
    assert answer == (
        "adapt version 2 is the champion again; version 3 stays out until a person approves it"
    )
    assert versions.aliases(store) == {"champion": "2", "previous": "1", "challenger": "3"}
    assert not versions.decided(store, "promoted", "3")[0]
    tags = registry.tags(store, "3")
    assert (tags["adapt.decision"], tags["adapt.reasons"]) == ("rolled-back", "loses its answers")
    # Once more, and to where there is nothing more.
    assert said(capsys, "rollback", "--why", "that too").startswith("adapt version 1 is the champ")
    assert (
        refused(capsys, "rollback", "--why", "all") == "adapt has no earlier champion to go back to"
    )
    # And forth, by a person, who may name any that ever was champion.
    assert said(capsys, "rollback", "--to", "3", "--why", "it was not to blame") == (
        "adapt version 3 is the champion again; version 1 stays out until a person approves it"
    )
    assert registry.shown_state(store).said("b") == "rolled-back"


def test_a_rollback_past_a_champion_names_both(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    versions.reigning(store, "a", "b", "c")
    answer = said(capsys, "rollback", "--to", "1", "--why", "both")
    assert answer.endswith("; versions 2, 3 stay out until a person approves it")
    assert registry.shown_state(store).said("b") == "rolled-back"


def test_an_approval_moves_what_waits(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    versions.reigning(store, "a")
    versions.decided(store, "waiting", *versions.made(store, "b"))
    shown = said(capsys, "status")
    assert "version 2 passed the gate on 20" in shown and "promote approve 2`" in shown
    assert versions.aliases(store) == {"champion": "1", "challenger": "2"}
    answer = said(capsys, "approve", "2", "--who", "Kim", "--why", "looked at the panels")
    assert answer == "adapt version 2 was promoted to champion, approved by Kim"
    assert versions.aliases(store) == {"champion": "2", "previous": "1", "challenger": "2"}
    assert said(capsys, "approve", "2") == "adapt version 2 is the champion already"


def test_a_rejection_holds_until_it_is_approved(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    versions.reigning(store, "a")
    versions.decided(store, "waiting", *versions.made(store, "b"))
    answer = said(capsys, "reject", "2", "--why", "worse on charts", "--who", "Kim")
    assert answer == "adapt version 2 was rejected by Kim; it is not promoted by a retraining"
    again = said(capsys, "reject", "2", "--why", "again")
    assert again.startswith("adapt version 2 is out already: version 2 was rejected on 20")
    assert not versions.decided(store, "waiting", "2")[0]
    (twin,) = versions.made(store, "b")  # as only a hand can make it
    same = said(capsys, "reject", twin, "--why", "again")
    assert same.startswith(
        "adapt version 3 is out already: version 2, of the same weights, was rej"
    )
    assert said(capsys, "approve", "2", "--who", "Kim").endswith("approved by Kim")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("approve", "3"), "version 3: it did not pass the gate (refused in a test); an approval"),
        (("approve", "4"), "version 4: the gate has not been asked about it; retrain with these"),
        (("approve", "1"), "version 1 was compared with the base, and the champion is version 2"),
        (("approve", "9"), "adapt has no version 9; the last ones are: 1, 2, 3, 4"),
        (("reject", "2", "--why", "x"), "version 2 is the champion; `python -m flows.promote rol"),
        (
            ("reject", "x", "--why", "x"),
            "argument N: expected the number of a version, such as 7, got",
        ),
        (("reject", "3"), "the following arguments are required: --why; python -m flows.promote"),
        (("rollback", "--to", "3", "--why", "x"), "version 3 was never champion; `python -m flo"),
        (("rollback", "--to", "9", "--why", "x"), "adapt has no version 9"),
        (("rollback",), "the following arguments are required: --why"),
        (("crown", "3"), "argument COMMAND: invalid choice: 'crown'"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    store: Store, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], problem: str
) -> None:
    versions.reigning(store, "a", "b")
    versions.decided(store, "refused", *versions.made(store, "c"))
    versions.made(store, "d")
    assert refused(capsys, *words).startswith(problem)


def test_history_tells_all_and_the_gaps(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "history") == "adapt: nothing was decided yet"
    assert said(capsys, "status") == "adapt: there is no champion"
    versions.reigning(store, "a", "b")
    versions.decided(store, "refused", *versions.made(store, "c"))
    said(capsys, "rollback", "--why", "loses\x1b[2J answers", "--who", "Kim")
    store.client.delete_model_version("adapt.ledger", "3")
    gap, head, *rows = said(capsys, "history").splitlines()
    assert gap == "adapt.ledger: deleted by hand, and not counted: entry 3"
    assert head.split()[:6] == ["no", "when", "who", "what", "version", "champion"]
    assert [re.split("  +", row)[0] for row in rows] == ["1", "2", "4"]
    cells = re.split("  +", rows[-1])
    assert cells[2:] == ["Kim", "rolled-back", "2", "2 -> 1", "-", "-", "loses\\x1b[2J answers"]
    status = said(capsys, "status")
    assert status.startswith("adapt: version 1 is the champion since 20")
    assert " (2 -> 1: rolled-back by Kim)" in status


def test_a_rollback_loads_nothing_heavy(store: Store) -> None:
    versions.reigning(store, "a", "b")
    code = (
        "import sys; from flows.promote.__main__ import main; "
        "code = main(['rollback', '--why', 'x']); "
        "print([one for one in ('prefect', 'torch', 'dvc', 'ray') if one in sys.modules]); "
        "sys.exit(code)"
    )
    env = {**os.environ, "PYTHONPATH": str(workspace.ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=store.root, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert versions.aliases(store)["champion"] == "1"


def test_the_same_as_flows_with_a_form(store: Store) -> None:
    versions.reigning(store, "a", "b")
    versions.decided(store, "waiting", *versions.made(store, "c"))
    state = people.reject.fn(3, "worse on charts", "Kim")
    assert state.is_completed() and state.message.startswith("adapt version 3 was rejected by Kim")
    assert people.approve.fn(3, who="Kim").message.endswith("approved by Kim")
    state = people.rollback.fn("loses its answers", to=1)
    assert state.message.startswith("adapt version 1 is the champion again; versions ")
    assert registry.shown_state(store).log.entries[-1].who.startswith("somebody on Prefect's page")
    state = people.approve.fn(9)
    assert (state.name, state.is_failed()) == ("InputError", True)
    assert state.message.startswith("adapt has no version 9")
