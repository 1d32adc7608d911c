"""infra/prefect.yaml and the flows that it names: nothing there may meet a server for the first
time.
"""

from importlib import import_module
from typing import Any

import pytest
import yaml
from prefect import Flow
from prefect.client.schemas.schedules import CronSchedule

from flows import causes
from flows.options import Retraining
from flows.serve import services
from flows.serve.__main__ import DEPLOYMENTS
from tests.support import workspace

TEXT = (workspace.ROOT / DEPLOYMENTS).read_text(encoding="utf-8")
SHIPPED: dict[str, dict[str, Any]] = {
    one["name"]: one for one in yaml.safe_load(TEXT)["deployments"]
}


def test_what_is_deployed() -> None:
    assert list(SHIPPED) == ["nightly", "on-change", "watch", "approve", "reject", "rollback"]
    assert str(workspace.ROOT) not in TEXT


@pytest.mark.parametrize("name", SHIPPED)
def test_a_deployment_fits_its_flow(name: str) -> None:
    one = SHIPPED[name]
    path, _, function = one["entrypoint"].partition(":")
    module = import_module(path.removesuffix(".py").replace("/", "."))
    flow = getattr(module, function)
    assert isinstance(flow, Flow)
    parameters = flow.parameters.model_dump()["properties"]
    assert set(one.get("parameters", {})) <= set(parameters)
    assert one["work_pool"] == {"name": services.POOL, "work_queue_name": "default"}
    assert one["tags"] == ["adapt"]  # what alarms listen to
    for schedule in one.get("schedules", []):
        CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"])
        assert schedule["slug"] == name


def test_a_run_may_wait_for_a_person_for_longer_than_a_lease_lasts() -> None:
    """Prefect takes a paused run's place in a concurrency limit away, and then ends the run."""
    assert "concurrency_limit" not in SHIPPED["nightly"]
    options = Retraining(**SHIPPED["nightly"]["parameters"]["options"])
    assert options.wait_minutes > 0  # and not: fail at once, which alarms people


def test_the_parameters_are_those_of_the_flows() -> None:
    assert Retraining(**SHIPPED["nightly"]["parameters"]["options"]).reason == "nightly"
    of = SHIPPED["on-change"]
    assert f"retrain/{of['name']}" == causes.DEPLOYMENT
    (trigger,) = of["triggers"]
    # What starts it has all of its options, in the same values: nothing is added to them.
    given = {**trigger["parameters"]["options"], "reason": "on change"}
    assert given == of["parameters"]["options"] and Retraining(**given).dry_run
    assert set(trigger["expect"]) == {causes.DATA, causes.DRIFT}
