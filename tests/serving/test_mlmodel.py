"""MLflow's door: a version that MLflow loads by a module of ours, with the core's answers."""

import base64
import io
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from adapt import launch, params
from adapt.registry import contents
from adapt.serving import mlmodel
from adapt.serving.answerer import Answerer
from adapt.serving.asked import Asked
from adapt.serving.door_config import DoorConfig
from tests.support import doors, tiny_world
from tests.support.closure import ROOT


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = doors.version(tmp_path_factory.mktemp("registered") / "version")
    content = launch.configs(params.read(ROOT / "params.yaml"))
    mlmodel.write(made, DoorConfig.of(content["serve"]))
    return made


def text_of(number: int, head: str = "") -> str:
    buffer = io.BytesIO()
    tiny_world.picture(number).save(buffer, "PNG")
    return head + base64.b64encode(buffer.getvalue()).decode()


def table(**changes) -> pd.DataFrame:
    rows = {
        "image": [text_of(0), text_of(1, "data:image/png;base64,")],
        "question": list(tiny_world.QUESTIONS),
    }
    return pd.DataFrame({**rows, **changes})


def test_a_version_holds_nothing_that_runs(folder):
    contents.check_weights(folder)
    suffixes = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert suffixes <= {"", ".json", ".jinja", ".safetensors", ".txt", ".yaml"}


def test_pins_are_those_of_the_constraints(folder):
    known = (ROOT / "constraints.txt").read_text().lower().splitlines()
    pins = [line.lower() for line in (folder / "requirements.txt").read_text().splitlines()]
    assert pins and all(line in known for line in pins if not line.startswith("#"))


def test_mlflow_answers_as_the_core_does(folder):
    said = mlflow.pyfunc.load_model(str(folder)).predict(table())
    asked = [
        Asked(id=str(n), images=[tiny_world.picture(n)], question=tiny_world.QUESTIONS[n])
        for n in range(2)
    ]
    for row, one in zip(
        said.to_dict("records"), Answerer.open(folder, "cpu").answer(asked), strict=True
    ):
        assert (row["answer"], row["finish"], row["risk"]) == (one.text, one.finish, one.risk)
        assert [token["risk"] for token in row["tokens"]] == [token.risk for token in one.tokens]
        assert [thing["name"] for thing in row["named"]] == [thing.name for thing in one.named]


def test_settings_can_be_changed_where_it_is_loaded(folder):
    changed = {"policy": "stop", "threshold": 0.0}
    model = mlflow.pyfunc.load_model(str(folder), model_config=changed)
    assert set(model.predict(table()).finish) == {"risk"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"question": ["what?", " "]}, "row 2: question"),
        ({"image": [text_of(0), "/etc/passwd"]}, "row 2: image"),
        ({"image": [text_of(0), "http://127.0.0.1/a.png"]}, "row 2: image"),
        ({"policy": ["flag", "lie"]}, "row 2: policy: expected one of flag, steer, retry, stop"),
        ({"max_new_tokens": [1, 10_000_000]}, "row 2: max_new_tokens"),
    ],
)
def test_a_wrong_row_is_named(folder, changes, words):
    with pytest.raises(MlflowException, match=words):
        mlflow.pyfunc.load_model(str(folder)).predict(table(**changes))
