"""Messages to people: hands infra/automations.yaml to Prefect's server, with an address to send to.

ADAPT_ALERT_URL is the address. An http(s) address gets a POST of JSON, `{"text": ..., "event": ...,
"link": ...}`, which Slack, Mattermost and most chat services take as it stands. Any other is one of
Apprise's, which Prefect brings along: `mailtos://USER:PASSWORD@SMTP-SERVER?from=...&to=...` sends
mail. The address is kept in a block of the server, encrypted, and is never printed.
"""

import logging
import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from apprise import Apprise
from httpx import HTTPStatusError
from prefect.automations import AutomationCore
from prefect.blocks.core import Block
from prefect.blocks.notifications import SlackWebhook
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import get_client
from prefect.events.actions import CallWebhook, SendNotification
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import ValidationError

from adapt import addresses, params
from adapt.params import InputError
from flows.serve import posting

DECLARED = "infra/automations.yaml"
ADDRESS = "ADAPT_ALERT_URL"
BLOCK = "adapt-alarm"
TAG, TRIED = "adapt", "adapt.alarm.tried"
KINDS = (Webhook, SlackWebhook)
NOBODY = f"alarms: nobody is told; set {ADDRESS} to an address and start again"
STILL = f"alarms: as deployed before; {ADDRESS} is not set now"
# Behind a rendered text: JSON with that text as one string, and the page of the run.
JSON = (
    '{"text": {{ (text ~ "\\n" ~ (flow_run | ui_url or "")) | trim | tojson }}, '
    '"event": {{ event.event | tojson }}, "link": {{ flow_run | ui_url | tojson }}}'
)


@dataclass(frozen=True)
class Receiver:
    """Who is told: the block that holds the address, and the action that sends a text there."""

    shown: str
    block: Block
    action: Callable[[Any, str], Any]


def check() -> None:
    """`InputError` for an address that nothing could be sent to."""
    if address := _address():
        receiver(address)


def _address() -> str:
    return os.environ.get(ADDRESS, "").strip()


def receiver(address: str) -> Receiver:
    """What an address of ADAPT_ALERT_URL stands for; `InputError`, without it, where nothing."""
    scheme, _, rest = address.partition("://")
    if scheme in ("http", "https"):
        if not (host := _host(address)):
            raise InputError(f"{ADDRESS}: no server is named after {scheme}://")
        headers = {"Content-Type": "application/json"}
        return Receiver(f"{scheme}://{host}", Webhook(url=address, headers=headers), _post)
    if not rest or not _is_known(address):
        mail = "mailtos://USER:PASSWORD@SMTP-SERVER?from=ADDRESS&to=ADDRESS for mail"
        raise InputError(f"{ADDRESS}: expected https://..., or one of Apprise's, such as {mail}")
    # What stands where a server would is a secret in some of them.
    shown = f"{scheme}://{_host(address)}" if scheme.startswith("mailto") else f"{scheme}://***"
    # The one block of Prefect's that hands any address that it does not know on to Apprise.
    return Receiver(shown, SlackWebhook(url=address), _notify)


def _host(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _is_known(address: str) -> bool:
    # Apprise logs an address that it cannot read, with all that is in it.
    log = logging.getLogger("apprise")
    was, log.disabled = log.disabled, True
    try:
        return Apprise.instantiate(address, suppress_exceptions=True) is not None
    finally:
        log.disabled = was


def _post(block_id: Any, text: str) -> CallWebhook:
    payload = f"{{% set text %}}{text.strip()}{{% endset %}}{JSON}"
    return CallWebhook(block_document_id=block_id, payload=payload)


def _notify(block_id: Any, text: str) -> SendNotification:
    body = f"{text.strip()}\n{{{{ flow_run | ui_url or '' }}}}"
    subject = "{{ automation.name }}"
    return SendNotification(block_document_id=block_id, subject=subject, body=body)


def declared(path: Path, sent: Callable[[str], Any]) -> list[AutomationCore]:
    """The automations of a file, `sent` making an action of each text; `InputError` names one."""
    found = []
    for one in _listed(path):
        trigger = {"type": "event", "threshold": 1, "within": 0, **one["trigger"]}
        texts = [sent(one["text"])] if "text" in one else []
        content = {"name": one["name"], "description": one["description"], "tags": [TAG]}
        actions = [*texts, *one.get("actions", [])]
        try:
            found.append(AutomationCore(**content, trigger=trigger, actions=actions))
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"]))
            raise InputError(f"{path}: {one['name']}: {where}: {problem['msg']}") from None
    return found


def _listed(path: Path) -> list[dict[str, Any]]:
    """The entries of the file, which people edit; `InputError` for one that is no automation."""
    listed = params.read(path).get("automations")
    params.require(isinstance(listed, list), str(path), "expected a list, automations")
    for number, one in enumerate(listed or [], start=1):
        entry = one if isinstance(one, dict) else {}
        lacks = [key for key in ("name", "description", "trigger") if key not in entry]
        problem = f"automation {number} has no {' and no '.join(lacks)}"
        params.require(not lacks, str(path), problem)
        problem = f"automation {number}: expected keys below trigger"
        params.require(isinstance(entry["trigger"], dict), str(path), problem)
    return list(listed or [])


def deploy(root: Path, api: str) -> str:
    """Make the server at `api` have the automations of the file, and no other of ours.

    Returns what was done in one line. What somebody has paused in Prefect's UI stays paused.
    """
    address = _address()
    with temporary_settings({PREFECT_API_URL: api}), get_client(sync_client=True) as client:
        known = {one.name: one for one in client.read_automations() if TAG in one.tags}
        if not address:
            return STILL if known else NOBODY
        to = receiver(address)
        for kind in KINDS:
            if not isinstance(to.block, kind):
                with suppress(ValueError):  # there is none
                    kind.delete(BLOCK)
        block_id = to.block.save(BLOCK, overwrite=True)
        wanted = declared(root / DECLARED, lambda text: to.action(block_id, text))
        for one in wanted:
            _put(client, one, known.pop(one.name, None))
        for gone in known.values():
            client.delete_automation(gone.id)
    return f"alarms: {len(wanted)} automations of {DECLARED}, to {to.shown}"


def _put(client: Any, one: AutomationCore, before: Any) -> None:
    """Make or update an automation; `InputError` where the server cannot read its text."""
    try:
        if before is None:
            client.create_automation(one)
        else:
            kept = one.model_copy(update={"enabled": before.enabled})
            client.update_automation(before.id, kept)
    except HTTPStatusError as error:
        said = error.response.text
        found = re.search(r"is not a valid template: [^\"\\\\]*", said)
        raise InputError(f"{DECLARED}: {one.name}: {found[0] if found else said[:200]}") from None


def send_test(root: Path, api: str) -> str:
    """Send a message that says that it is a test; `InputError` where no server takes it."""
    try:
        posting.post(api, TRIED, root, f"This is a test: alarms of {root.name} arrive here.")
    except (OSError, ValueError) as error:
        where, reason = addresses.shown(api), getattr(error, "reason", None) or error
        problem = f"no Prefect server takes events at {where}: {reason}"
        raise InputError(f"{problem}; start it with `make serve`") from None
    return f"alarms: a test message is on its way, if {ADDRESS} was set at `make serve`"
