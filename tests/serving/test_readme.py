"""The commands of the README that ask the server run as they stand, but for the port."""

import json
import subprocess

import pytest

from tests.serving.test_on_ray import started
from tests.support import doors
from tests.support.closure import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
SECTION = README.split("## Ask the champion")[1].split("\n## ")[0]
SCRIPT = SECTION.split("```bash\n")[1].split("```")[0]
COMMANDS = [f"curl{part}" for part in SCRIPT.split("curl") if part.strip()]
pytestmark = pytest.mark.slow


def test_every_command_is_answered(tmp_path):
    version = doors.version(tmp_path / "version")
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    with started(tmp_path, "--model", str(version)) as server:
        said = []
        for command in COMMANDS:
            here = command.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
            done = subprocess.run(
                ["bash", "-c", here], cwd=ROOT, capture_output=True, text=True, timeout=120
            )
            assert done.returncode == 0, done.stderr
            said.append(done.stdout)
    models, whole, streamed, meters = said
    assert json.loads(models)["data"][0]["id"] == "adapt"
    reply = json.loads(whole)
    assert reply["choices"][0]["message"]["content"] and reply["risk"]["tokens"]
    last = doors.events(streamed)[-1]
    assert last["risk"]["policy"] == "stop" and last["risk"]["threshold"] == 0.7
    assert "adapt_answer_tokens_total" in meters
