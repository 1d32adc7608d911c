"""Passwords of addresses, with any character in them: on no terminal, in no tag, in no report."""

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from adapt import addresses, params
from adapt.command import message
from adapt.names import tag
from adapt.registry import registry
from adapt.tracking import runs
from adapt.tracking.store import opened, uri
from tests.support import limits, tracked
from tests.support.closure import ROOT
from tests.support.faults import fault

SECRET = "hunter2"
RAW = [f"{SECRET}{char}x" for char in "/@#?:%"] + [f"1/{SECRET}", f"80{SECRET}", f"a b{SECRET}"]
WRITTEN = [quote(password, safe="") for password in RAW]
COMMANDS = {
    "adapt.stages.data": [],
    "adapt.tracking": ["status"],
    "flows.promote": ["status"],
}


@fault(
    "an address of the environment has a password with a character that no address can hold",
    keeps="the password: no library gets the address, and nothing repeats it",
    says="MLFLOW_TRACKING_URI: has a user or password with a character that an address cannot "
    "hold; write / as %2F, @ as %40, : as %3A, # as %23, ? as %3F and % as %25",
    then="runs when the character is written so",
)
@pytest.mark.parametrize("variable", ["MLFLOW_TRACKING_URI", "ADAPT_RAY_STORAGE"])
@pytest.mark.parametrize("module", COMMANDS)
def test_commands_never_show_a_password(module: str, variable: str, tmp_path: Path) -> None:
    env = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    env |= {"PYTHONPATH": str(ROOT), "ADAPT_STATE": str(tmp_path / "state")}
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    env[variable] = f"http://me:{SECRET}/x@host/path"
    words = [sys.executable, "-m", module, *COMMANDS[module]]
    options = {"cwd": tmp_path, "env": env, "timeout": limits.COMMAND_S}
    done = subprocess.run(words, capture_output=True, text=True, **options)
    assert done.returncode == 2 and SECRET not in done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert f": {variable}: has a user or password" in line and "%2F" in line
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(SECRET in path.read_text(errors="replace") for path in kept)


@pytest.mark.parametrize("variable", addresses.VARIABLES)
def test_a_password_that_is_written_well_is_taken_and_not_shown(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for password in WRITTEN:
        address = f"https://me:{password}@host:5000/x"
        monkeypatch.setenv(variable, address)
        assert addresses.given(variable) == address
        assert addresses.shown(address) == "https://host:5000/x"


@pytest.mark.parametrize("password", [*RAW, *WRITTEN])
def test_messages_and_tags_never_show_a_password(password: str) -> None:
    address = f"postgresql://me:{password}@host:5432/db"
    for text in (address, f"cannot connect to {address} (refused)", f'{{"uri": "{address}"}}'):
        for shown in (tag(text), message(params.InputError(text)), addresses.shown(text)):
            assert SECRET not in shown and "host:5432/db" in shown


def test_a_store_that_does_not_answer_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for password in WRITTEN[:3]:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{password}@127.0.0.1:9")
        with pytest.raises(params.InputError, match=r"http://127.0.0.1:9 cannot be used") as caught:
            opened(uri(tmp_path))
        assert SECRET not in str(caught.value)


def test_no_tag_or_parameter_of_a_run_holds_a_password(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = tracked.workspace(tmp_path, monkeypatch)
    text = f"s3://me:{SECRET}/x@bucket/data"
    (tmp_path / "params.yaml").write_text(f"{tracked.PARAMS}data: {{source: '{text}'}}\n")
    run_id = runs.start_retraining(store, "tonight", {"origin": text, "bad": "\x1b[2Jx"})
    runs.fail_retraining(store, run_id, f"{text}: away")
    tracked.sent(store)
    (run,) = store.client.search_runs([store.experiment_id])
    values = [*run.data.tags.values(), *run.data.params.values()]
    assert not any(SECRET in value or "\x1b" in value for value in values)
    assert run.data.tags["origin"] == "s3://bucket/data"
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_text("w")
    version = registry.register(store, folder, run.info.run_id, {"origin": text})
    assert registry.tags(store, version)["origin"] == "s3://bucket/data"
