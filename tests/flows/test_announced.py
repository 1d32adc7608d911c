"""Word of a champion that a person has moved in a terminal; a small server stands for Prefect."""

from pathlib import Path

import pytest

from adapt.tracking.store import Store
from flows.promote.__main__ import main
from tests.support import ports, tracked, versions
from tests.support.served import inbox


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    store = tracked.workspace(tmp_path, monkeypatch)
    with (tmp_path / "params.yaml").open("a") as file:
        file.write("tracking: {experiment: adapt, model: adapt}\n")
    monkeypatch.chdir(tmp_path)
    versions.reigning(store, "a", "b")
    return store


def test_others_are_told_of_a_rollback_and_of_nothing_else(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "me:secret")
    with inbox() as box:
        monkeypatch.setenv("PREFECT_API_URL", f"{box.address.partition('/hook')[0]}/api")
        assert main(["status"]) == 0
        assert main(["rollback", "--why", "loses its answers"]) == 0
        assert main(["reject", "2", "--why", "again"]) == 0
    ((event,),) = box.messages
    assert event["event"] == "adapt.champion.moved"
    assert event["payload"]["message"].startswith("adapt version 1 is the champion again")
    assert event["resource"] == {"prefect.resource.id": f"adapt.workspace.{store.root.name}"}
    assert box.authorized == ["Basic bWU6c2VjcmV0"]


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:{port}/api", "nowhere", "http://me:pw@a b/api"]
)
def test_a_decision_does_not_depend_on_a_server(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    address: str,
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", address.format(port=ports.free()[0]))
    assert main(["rollback", "--why", "loses its answers"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("adapt version 1 is the champion again")
    assert shown.err.startswith("promote: done, but Prefect's server was not told: ")
    assert shown.err.count("\n") == 1 and "pw" not in shown.err
