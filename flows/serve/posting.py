"""An event for Prefect's server from a command that has no time to load Prefect.

Who moves the champion in a terminal knows it; others are told as of a retraining that moves it.
"""

import base64
import json
import os
import urllib.request
import uuid
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path

from flows.serve import keeper

TIMEOUT_S = 3.0


def api(root: Path) -> str:
    """The API of the server that there is: the configured one, or that of `make serve`, or ""."""
    if given := os.environ.get("PREFECT_API_URL"):
        return given
    address = keeper.processes(root).get("prefect-server", {}).get("address", "")
    return f"{address}/api" if address else ""


def post(api: str, event: str, root: Path, message: str, **more: str) -> None:
    """Hand an event over, with `more` in its payload besides the message.

    OSError, or ValueError for no address, where nobody takes it.
    """
    body = {
        "id": str(uuid.uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": event,
        "resource": {"prefect.resource.id": f"adapt.workspace.{root.name}"},
        "payload": {"message": message, "link": "", "workspace": root.name, **more},
    }
    headers = {"Content-Type": "application/json", **_credentials()}
    data = json.dumps([body]).encode()
    request = urllib.request.Request(f"{api.rstrip('/')}/events", data, headers)
    try:
        urllib.request.urlopen(request, timeout=TIMEOUT_S).close()
    except HTTPException as error:  # its text may repeat half of an address with a password
        raise ValueError(f"no address or no answer of a server ({type(error).__name__})") from None


def _credentials() -> dict[str, str]:
    """As Prefect's own client sends them."""
    if pair := os.environ.get("PREFECT_API_AUTH_STRING"):
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    if key := os.environ.get("PREFECT_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    return {}
