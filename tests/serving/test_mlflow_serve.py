"""`mlflow models serve` of a registered champion, as it is started by hand."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from adapt import launch, params
from adapt.serving import mlmodel
from adapt.serving.answerer import Answerer
from adapt.serving.asked import Asked
from adapt.serving.door_config import DoorConfig
from tests.support import doors, limits, ports, tiny_world, tracked
from tests.support.closure import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def registered(tmp_path_factory) -> Any:
    """A workspace whose champion MLflow can load."""
    root = tmp_path_factory.mktemp("workspace")
    with pytest.MonkeyPatch.context() as patch:
        store = tracked.workspace(root, patch)
    folder = doors.version(root / "version")
    content = launch.configs(params.read(ROOT / "params.yaml"))
    mlmodel.write(folder, DoorConfig.of(content["serve"]))
    store.client.create_registered_model("adapt")
    store.client.create_model_version("adapt", str(folder))
    store.client.set_registered_model_alias("adapt", "champion", "1")
    return store


@pytest.fixture
def url(registered, tmp_path):
    """The address of a server that was started as the README says."""
    port, log = ports.free()[0], tmp_path / "server.log"
    programs = Path(sys.executable).parent
    env = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    env |= {
        "MLFLOW_TRACKING_URI": registered.client.tracking_uri,
        "PATH": f"{programs}:{env['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    words = ["models", "serve", "-m", "models:/adapt@champion", "--env-manager", "local"]
    command = [str(programs / "mlflow"), *words, "--port", str(port)]
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=out, stderr=out)
    try:
        limits.until(lambda: answers(port, process, log), "answer", limits.SERVER_START_S)
        yield f"http://127.0.0.1:{port}"
    finally:
        below = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        for one in [psutil.Process(process.pid), *below]:
            one.terminate()
        process.wait(limits.ORPHANS_S)
        assert not psutil.wait_procs(below, timeout=limits.ORPHANS_S)[1]


def answers(port: int, process: "subprocess.Popen[bytes]", log: Path) -> bool:
    """Whether it is there; fails with what it said if it has ended."""
    assert process.poll() is None, log.read_text()
    try:
        return httpx.get(f"http://127.0.0.1:{port}/ping", timeout=10).status_code == 200
    except httpx.HTTPError:
        return False


def test_it_answers_as_the_core_does(url, registered):
    pictures = [doors.url(doors.encoded(tiny_world.picture(n))) for n in range(2)]
    columns = ["image", "question"]
    rows = [
        [image, question] for image, question in zip(pictures, tiny_world.QUESTIONS, strict=True)
    ]
    body = {"dataframe_split": {"columns": columns, "data": rows}}
    reply = httpx.post(f"{url}/invocations", json=body, timeout=limits.STEP_S)
    assert reply.status_code == 200, reply.text
    asked = [
        Asked(id=str(n), images=[tiny_world.picture(n)], question=tiny_world.QUESTIONS[n])
        for n in range(2)
    ]
    core = Answerer.open(registered.root / "version", "cpu").answer(asked)
    for row, one in zip(reply.json()["predictions"], core, strict=True):
        assert row["answer"] == one.text and row["finish"] == one.finish
        assert row["risk"] == pytest.approx(one.risk, abs=1e-6)
        assert [token["risk"] for token in row["tokens"]] == pytest.approx(
            [token.risk for token in one.tokens], abs=1e-6
        )
    # The example that is stored with it is a request, too.
    example = json.loads((registered.root / "version" / "serving_input_example.json").read_text())
    assert httpx.post(f"{url}/invocations", json=example, timeout=limits.STEP_S).status_code == 200
    # And a wrong one is told in words.
    wrong = {"dataframe_split": {"columns": columns, "data": [["/etc/passwd", "what?"]]}}
    reply = httpx.post(f"{url}/invocations", json=wrong, timeout=limits.STEP_S)
    assert reply.status_code == 400 and "row 1: image" in reply.text
