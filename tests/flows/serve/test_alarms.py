"""Alarms: what the shipped file means to Prefect, what is sent, and that no address is shown."""

import asyncio
import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.server.events.actions import CallWebhook
from prefect.server.events.jinja_filters import all_filters
from prefect.server.events.schemas.automations import AutomationCreate
from prefect.server.events.schemas.events import ReceivedEvent
from prefect.server.utilities.user_templates import (
    register_user_template_filters,
    render_user_template,
)
from prefect.settings import PREFECT_API_URL
from prefect.testing.utilities import prefect_test_harness

from adapt.params import InputError
from flows import causes, events
from flows.serve import alarms, posting
from tests.support import limits, workspace

WEBHOOK = "https://someone:hunter2@hooks.example.org/T/hunter2?token=hunter2"
MAIL = "mailtos://someone:hunter2@smtp.example.org?from=a@example.org&to=b@example.org"
BLOCK = UUID(int=1)


def shipped(address: str) -> list[AutomationCreate]:
    """The file as Prefect's server reads it, which checks the templates as well."""
    to = alarms.receiver(address)
    found = alarms.declared(workspace.ROOT / alarms.DECLARED, lambda text: to.action(BLOCK, text))
    return [AutomationCreate(**one.model_dump(mode="json")) for one in found]


@pytest.mark.parametrize("address", [WEBHOOK, MAIL])
def test_the_shipped_file_is_what_prefect_expects(address: str) -> None:
    found = shipped(address)
    assert len({one.name for one in found}) == len(found) == 9
    assert all(one.tags == ["adapt"] and one.actions for one in found)


def test_every_event_of_ours_is_expected_by_an_automation() -> None:
    expected = set.union(*(one.trigger.expect for one in shipped(WEBHOOK)))
    assert {*events.EVENTS.values(), causes.DRIFT, "adapt.alarm.tried"} <= expected


@pytest.mark.parametrize(
    ("flow", "told"),
    [
        ("retrain", "adapt: a run failed or was killed"),
        ("rollback", "adapt: a run failed or was killed"),
        ("watch", "adapt: the watch fails"),
    ],
)
def test_a_failure_is_told_once(flow: str, told: str) -> None:
    """The watch, which looks every 15 minutes, by an automation that is told of once a day."""
    event = ReceivedEvent(
        occurred=datetime.now(UTC),
        event="prefect.flow-run.InputError",
        resource={"prefect.resource.id": "prefect.flow-run.1", "prefect.state-type": "FAILED"},
        related=[
            {
                "prefect.resource.id": "prefect.flow.2",
                "prefect.resource.role": "flow",
                "prefect.resource.name": flow,
            },
            {"prefect.resource.id": "prefect.tag.adapt", "prefect.resource.role": "tag"},
        ],
        id=uuid4(),
    )
    found = shipped(WEBHOOK)
    reacting = [
        one.name for one in found if one.trigger.posture == "Reactive" and one.trigger.covers(event)
    ]
    assert reacting == [told]


def render(action: Any, event: dict[str, Any]) -> str:
    register_user_template_filters(all_filters)
    assert isinstance(action, CallWebhook)
    run = SimpleNamespace(name='2026-11-26 "nightly"')
    context = {"event": SimpleNamespace(**event), "flow": SimpleNamespace(name="retrain")}
    return asyncio.run(render_user_template(action.payload, context | {"flow_run": run}))


def test_any_message_is_valid_json() -> None:
    """Quotes, line ends and braces of a message cannot break out of it."""
    by_name = {one.name: one for one in shipped(WEBHOOK)}
    failed = by_name["adapt: a run failed or was killed"]
    ended = by_name["adapt: a retraining has ended"]
    hostile = 'a "quote", a\nline, {{ braces }}, {% endset %}, \\ and <b>'
    sent = json.loads(
        render(
            failed.actions[0],
            {
                "event": "prefect.flow-run.Failed",
                "resource": {"prefect.state-type": "FAILED", "prefect.state-message": hostile},
            },
        )
    )
    assert sent["text"].startswith(f'retrain "2026-11-26 "nightly"" failed: {hostile}')
    assert sent["event"] == "prefect.flow-run.Failed"
    payload = {"message": hostile, "link": "http://127.0.0.1/run"}
    sent = json.loads(render(ended.actions[0], {"event": "adapt.x", "payload": payload}))
    assert sent["text"] == f"{hostile}\nhttp://127.0.0.1/run"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (WEBHOOK, "https://hooks.example.org"),
        (MAIL, "mailtos://smtp.example.org"),
        ("tgram://123456789:hunter2_hunter2hunter2/12315544/", "tgram://***"),
    ],
)
def test_an_address_is_never_shown(address: str, shown: str) -> None:
    to = alarms.receiver(address)
    assert to.shown == shown
    assert "hunter2" not in repr(to.block) + str(to.block)


@pytest.mark.parametrize(
    "address", ["hunter2", "https:///hunter2", "http://[hunter2", "mailto:me@hunter2.org", "x://h2"]
)
def test_what_is_no_address_is_refused_without_being_repeated(
    address: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(alarms.ADDRESS, address)
    with pytest.raises(InputError, match=r"^ADAPT_ALERT_URL: ") as caught:
        alarms.check()
    assert "hunter2" not in "".join((str(caught.value), *capfd.readouterr()))


def test_a_mistake_in_the_file_names_the_automation(tmp_path: Path) -> None:
    path = tmp_path / "automations.yaml"
    one = {"name": "mine", "description": "", "trigger": {"posture": "Sideways"}, "text": "x"}
    path.write_text(yaml.safe_dump({"automations": [one]}))
    with pytest.raises(InputError, match=r"automations\.yaml: mine: trigger"):
        alarms.declared(path, lambda text: alarms.receiver(WEBHOOK).action(BLOCK, text))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("automations: [", "not valid YAML"),
        ("rules: []", "expected a list, automations"),
        ("automations: [x]", "automation 1 has no name and no description and no trigger"),
        ("automations: [{name: a, description: b, trigger: c}]", "expected keys below trigger"),
    ],
)
def test_a_file_that_lists_no_automations_is_named(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "automations.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=says):
        alarms.declared(path, lambda text: text)


@contextmanager
def mail_server() -> Iterator[tuple[str, list[str]]]:
    """A server that takes mail: its address, and the lines that it was given."""
    lines: list[str] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 here\r\n")
            in_data = False
            for raw in self.rfile:
                line = raw.decode().strip()
                lines.append(line)
                in_data = in_data and line != "."
                word = line[:4].upper()
                if word == "DATA" and not in_data:
                    in_data = True
                    self.wfile.write(b"354 go on\r\n")
                elif not in_data:
                    self.wfile.write(b"221 bye\r\n" if word == "QUIT" else b"250 fine\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}", lines
        finally:
            server.shutdown()
            thread.join()


def test_mail_needs_nothing_but_a_mail_server() -> None:
    with mail_server() as (server, lines):
        to = alarms.receiver(f"mailto://{server}?from=a@example.org&to=b@example.org")
        to.block.notify(body="version 7 awaits approval", subject="adapt")
    assert "rcpt to:<b@example.org>" in [line.lower() for line in lines]
    assert "version 7 awaits approval" in "\n".join(lines)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The API of a Prefect server."""
    with prefect_test_harness(server_startup_timeout=limits.SERVER_START_S):
        yield str(PREFECT_API_URL.value())


def test_deploying_again_changes_what_has_changed(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And keeps what somebody has paused; what is not declared any more goes."""
    path = tmp_path / alarms.DECLARED
    path.parent.mkdir()
    path.write_text((workspace.ROOT / alarms.DECLARED).read_text())
    monkeypatch.delenv(alarms.ADDRESS, raising=False)
    assert alarms.deploy(tmp_path, server) == alarms.NOBODY
    monkeypatch.setenv(alarms.ADDRESS, WEBHOOK)
    said = alarms.deploy(tmp_path, server)
    assert said == f"alarms: 9 automations of {alarms.DECLARED}, to https://hooks.example.org"
    with get_client(sync_client=True) as client:
        first = {one.name: one for one in client.read_automations()}
        paused = first["adapt: a retraining has ended"]
        client.pause_automation(paused.id)
        # 1. Another address, one automation less, and one that somebody has paused.
        content = yaml.safe_load(path.read_text())
        gone = content["automations"].pop()["name"]
        path.write_text(yaml.safe_dump(content))
        monkeypatch.setenv(alarms.ADDRESS, MAIL)
        assert alarms.deploy(tmp_path, server).startswith("alarms: 8 automations")
        second = {one.name: one for one in client.read_automations()}
        assert set(first) - set(second) == {gone}
        assert {second[name].id for name in second} <= {one.id for one in first.values()}
        assert not second[paused.name].enabled
        assert second[paused.name].actions[0].type == "send-notification"
        # 2. No old address stays behind.
        kept = [one for one in client.read_block_documents() if one.name == alarms.BLOCK]
        assert [one.block_type.name for one in kept] == ["Slack Webhook"]
        # 3. Without an address nothing is touched.
        monkeypatch.delenv(alarms.ADDRESS)
        assert alarms.deploy(tmp_path, server) == alarms.STILL
        assert len(client.read_automations()) == 8


def test_a_text_that_cannot_be_read_is_named(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = {"name": "mine", "description": "", "trigger": {"posture": "Reactive"}, "text": "{{ x"}
    (tmp_path / "infra").mkdir()
    (tmp_path / alarms.DECLARED).write_text(yaml.safe_dump({"automations": [one]}))
    monkeypatch.setenv(alarms.ADDRESS, WEBHOOK)
    with pytest.raises(InputError, match=r"automations\.yaml: mine: is not a valid template: "):
        alarms.deploy(tmp_path, server)


def test_an_event_is_posted_without_prefect(server: str, tmp_path: Path) -> None:
    posting.post(server, "adapt.alarm.tried", tmp_path, "words")
    with get_client(sync_client=True) as client:

        def taken() -> list[Any]:
            body = {"filter": {"event": {"name": ["adapt.alarm.tried"]}}}
            return list(client.request("POST", "/events/filter", json=body).json()["events"])

        (event,) = limits.until(taken, "event on the server")
    assert event["payload"]["message"] == "words"
    assert event["resource"]["prefect.resource.id"] == f"adapt.workspace.{tmp_path.name}"


def test_a_test_message_needs_a_server(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no Prefect server takes events at http:"):
        alarms.send_test(tmp_path, "http://127.0.0.1:9/api")
