"""Workers of a training that wait for a node: a sentence now and then, and an end."""

import pytest

from adapt.cluster import waiting
from adapt.params import InputError
from tests.support.faults import fault


def group(state: str, bundles: list[dict[str, float]], placed: int = 0) -> dict[str, object]:
    """A placement group as Ray shows it, whose first `placed` bundles have a node."""
    nodes = {number: "node" if number < placed else "" for number in range(len(bundles))}
    return {"state": state, "bundles": dict(enumerate(bundles)), "bundles_to_node_id": nodes}


@fault(
    "A node of the cluster is lost while workers train on it, and no other one comes",
    keeps="the last checkpoint",
    says="train: waiting for 1 CPU since 3 min; train.wait_minutes: no node has had 1 CPU for the "
    "workers in 10 min; the last checkpoint is kept; run again when there is room on the cluster",
    then="goes on from the checkpoint",
)
def test_a_wait_is_told_and_has_an_end(capsys):
    queue = waiting.Queue(10)
    for second in range(0, 185, 5):
        queue.look({"CPU": 1}, second)
    said = capsys.readouterr().err.splitlines()
    assert said == [f"train: waiting for 1 CPU since {span}" for span in ("15 s", "1 min", "2 min")]
    queue.look({}, 190.0)  # a node came, and is lost later
    queue.look({"CPU": 1}, 500.0)
    queue.look({"CPU": 1}, 1099.0)
    with pytest.raises(InputError, match=r"train.wait_minutes: no node has had 1 CPU for the wor"):
        queue.look({"CPU": 1}, 1101.0)


def test_workers_that_ray_queues_once_more_wait_on():
    """Those of a range are taken out of the queue after a while, and counted again."""
    queue = waiting.Queue(1)
    queue.look({"CPU": 2}, 0.0)
    queue.look({}, 30.0)
    queue.look({"CPU": 1}, 32.0)
    with pytest.raises(InputError, match=r"no node has had 1 CPU for the workers in 1 min"):
        queue.look({"CPU": 1}, 61.0)


def test_what_a_cluster_lacks_is_told_before_ray_queues_anything(monkeypatch):
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 3.0})
    assert waiting.lacking({"CPU": 4}) == {"CPU": 1} and waiting.lacking({"GPU": 2}) == {"GPU": 2}
    assert waiting.lacking({"CPU": 3}) == waiting.lacking({}) == {}


def test_a_wait_without_a_limit_goes_on(capsys):
    queue = waiting.Queue(0)
    queue.look({"GPU": 1}, 0.0)
    queue.look({"GPU": 1}, 1e9)
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("train: waiting for 1 GPU since ")


def test_what_is_missing_is_what_has_no_node():
    lost = group("RESCHEDULING", [{"CPU": 1.0}, {"CPU": 1.0, "GPU": 1.0}], placed=1)
    assert dict(waiting._missing(lost)) == {"CPU": 1, "GPU": 1}


def test_an_error_of_the_work_is_raised_where_it_is_waited_for():
    with pytest.raises(FloatingPointError, match="nan"):
        waiting.followed(_fails, 1.0)


def _fails() -> None:
    raise FloatingPointError("nan")
