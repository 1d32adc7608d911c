"""Pictures of a night: Prefect's deployments, a run that awaits approval with its form, its alarms,
and MLflow's page of a version.

    pip install -e '.[docs]' && apt-get install chromium
    python docs/screens.py --prefect http://127.0.0.1:4200 --mlflow http://127.0.0.1:5000 \
        --out docs/night

writes `docs/night-deployments.png`, `-paused.png`, `-form.png`, `-automations.png` and, with
--model, `-model.png` and `-version.png`. The servers are those of `make serve`; what is shown is
what there is. A picture without a paused run is left out.
"""

import argparse
import json
import urllib.request
from pathlib import Path
from typing import Any

from playwright.sync_api import Page
from screenshot import browser, open_page, save

SIZE = (1400, 900)


def paused(prefect: str) -> str | None:
    """The id of the run that has been waiting for the shortest time; None when none waits."""
    body = {"flow_runs": {"state": {"type": {"any_": ["PAUSED"]}}}, "sort": "START_TIME_DESC"}
    found = _ask(f"{prefect}/api/flow_runs/filter", body)
    return str(found[0]["id"]) if found else None


def _ask(address: str, body: object) -> Any:
    kind = {"Content-Type": "application/json"}
    request = urllib.request.Request(address, json.dumps(body).encode(), kind)
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.loads(response.read())


def of_prefect(page: Page, prefect: str, out: Path) -> None:
    """Deployments, automations, a paused run and the form behind its button."""
    open_page(page, f"{prefect}/deployments", "nightly", SIZE)
    save(page, out.with_name(f"{out.name}-deployments.png"))
    if _ask(f"{prefect}/api/automations/filter", {}):
        open_page(page, f"{prefect}/automations", "adapt", SIZE)
        save(page, out.with_name(f"{out.name}-automations.png"))
    else:
        print("no automation is there: nobody is to be told (ADAPT_ALERT_URL)")
    run = paused(prefect)
    if run is None:
        print("no run awaits approval")
        return
    open_page(page, f"{prefect}/runs/flow-run/{run}", "Paused", SIZE)
    save(page, out.with_name(f"{out.name}-paused.png"))
    page.set_viewport_size({"width": SIZE[0], "height": 1300})
    page.get_by_role("button", name="Resume").first.click()
    page.get_by_text("your name, for the record").first.wait_for()
    page.wait_for_timeout(2000)
    save(page.get_by_role("dialog").first, out.with_name(f"{out.name}-form.png"))


def of_mlflow(page: Page, mlflow: str, model: str, version: str, out: Path) -> None:
    """The registered model and one version of it."""
    for name, place in {"model": "", "version": f"/versions/{version}"}.items():
        open_page(page, f"{mlflow}/#/models/{model}{place}", model, SIZE)
        open_page(page, f"{mlflow}/#/models/{model}{place}", model, SIZE)
        save(page, out.with_name(f"{out.name}-{name}.png"))


def main() -> None:
    """The command line; see the module docstring."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--prefect", help="address of a Prefect server")
    parser.add_argument("--mlflow", help="address of an MLflow server")
    parser.add_argument("--model", default="adapt", help="registered model (default: %(default)s)")
    parser.add_argument("--version", default="1", help="its version (default: %(default)s)")
    parser.add_argument("--out", required=True, type=Path, help="beginning of the files' names")
    given = parser.parse_args()
    with browser() as page:
        if given.prefect:
            of_prefect(page, given.prefect.rstrip("/"), given.out)
        if given.mlflow:
            of_mlflow(page, given.mlflow.rstrip("/"), given.model, given.version, given.out)


if __name__ == "__main__":
    main()
