"""What MLflow knows a version by: `MLmodel`, its environment, its signature and an example.

Written beside the weights by MLflow's own classes, at registration. The model itself is no Python
object that would have to be stored: `MLmodel` names `loader_module.py`, which lies in this project.
So a version holds no code and no pickle; `adapt/registry/mlmodel.py` checks that it stays so.
"""

import base64
import io
import json
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from adapt.registry.mlmodel import ENV, FLAVOR, LOADER, NAME
from adapt.serving.door_config import DoorConfig

# What answering and MLflow's server import; the versions are those that are installed where the
# version is registered, which `make` takes from constraints.txt.
REQUIRED = (
    *("mlflow", "fastapi", "uvicorn", "torch", "transformers", "tokenizers", "safetensors"),
    *("numpy", "pandas", "pillow", "pydantic", "PyYAML", "Jinja2", "psutil", "pyarrow"),
)
EXAMPLE, REQUEST = "input_example.json", "serving_input_example.json"
PROJECT = "adapt-vlm"
SIDE = 48  # pixels of the drawn example


def write(folder: Path, config: DoorConfig) -> None:
    """Add to the folder of a version what MLflow loads it by."""
    from mlflow import pyfunc
    from mlflow.models import Model

    example = {"columns": ["image", "question"], "data": [[_drawn(), "Describe the image."]]}
    info = {"artifact_path": EXAMPLE, "serving_input_path": REQUEST}
    model = Model(
        signature=_signature(),
        saved_input_example_info={**info, "type": "dataframe", "pandas_orient": "split"},
    )
    files = {"conda_env": ENV["conda"], "python_env": ENV["virtualenv"]}
    settings = config.model_dump(mode="json")
    pyfunc.add_to_model(model, loader_module=LOADER, model_config=settings, **files)
    assert set(model.flavors) == {FLAVOR}
    for name, content in ((EXAMPLE, example), (REQUEST, {"dataframe_split": example})):
        (folder / name).write_text(json.dumps(content) + "\n", encoding="utf-8")
    _write_environment(folder)
    model.save(str(folder / NAME))


def _drawn() -> str:
    """A small picture as base64: a red house in a meadow, in the drawn world's own pen."""
    from PIL import Image

    from adapt.data import drawings
    from adapt.data.pen import COLOURS, Pen

    picture = Image.new("RGB", (SIDE, SIDE), (214, 232, 205))
    drawings.house(Pen(picture, COLOURS["red"], SIDE / 4, SIDE / 4, SIDE / 2))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _signature() -> Any:
    """Columns of questions and of answers."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import AnyType, Array, DataType, Object, Property

    text, whole, number = DataType.string, DataType.long, DataType.double
    # A picture, or a list of pictures, as text; a risk, or None without a detector.
    asked = [ColSpec(AnyType(), "image"), ColSpec(text, "question")]
    asked += [ColSpec(text, "policy", False), ColSpec(whole, "max_new_tokens", False)]
    said = [("end", whole), ("logprob", number), ("mass", number), ("focus", number)]
    token = [("text", text), ("risk", AnyType()), *said, ("steered", number)]
    named = [("name", text), ("start", whole), ("end", whole), ("risk", AnyType())]
    objects = {
        name: Array(Object([Property(key, kind) for key, kind in of]))
        for name, of in (("named", named), ("tokens", token))
    }
    answered = [ColSpec(text, "answer"), ColSpec(AnyType(), "risk")]
    answered += [ColSpec(kind, name) for name, kind in objects.items()]
    answered += [ColSpec(text, "finish"), ColSpec(text, "version")]
    answered += [ColSpec(number, "steered"), ColSpec(number, "mass")]
    return ModelSignature(inputs=Schema(asked), outputs=Schema(answered))


def _write_environment(folder: Path) -> None:
    """The Python and the packages that a version answers with, in the three forms of MLflow."""
    from mlflow.utils import PYTHON_VERSION

    pinned = [f"{name}=={installed(name)}" for name in REQUIRED]
    note = f"# and this project itself, {PROJECT} {installed(PROJECT)}, from its checkout"
    (folder / "requirements.txt").write_text("\n".join([*pinned, note, ""]), encoding="utf-8")
    tools = [f"{name}=={installed(name)}" for name in ("pip", "setuptools")]
    dependencies = {"build_dependencies": tools, "dependencies": ["-r requirements.txt"]}
    python_env = {"python": PYTHON_VERSION, **dependencies}
    packages = [f"python={PYTHON_VERSION}", "pip", {"pip": pinned}]
    conda = {"name": "mlflow-env", "channels": ["conda-forge"], "dependencies": packages}
    for name, content in ((ENV["virtualenv"], python_env), (ENV["conda"], conda)):
        text = yaml.safe_dump(content, sort_keys=False)
        (folder / name).write_text(text, encoding="utf-8")


def installed(name: str) -> str:
    """The version of a package as its index has it, without the mark of a build."""
    return metadata.version(name).partition("+")[0]
