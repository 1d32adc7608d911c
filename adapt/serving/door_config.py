"""What MLflow's door answers with: it lies in `MLmodel`, filled from params.yaml at registration.

    mlflow.pyfunc.load_model("models:/adapt@champion", model_config={"policy": "steer"})

A version may be loaded where there is no params.yaml, and MLflow lets a user change these keys.
"""

from typing import Annotated, Literal

from pydantic import Field

from adapt.params import Settings

Count = Annotated[int, Field(ge=1)]


class DoorConfig(Settings):
    """Keys of section `serve` and of its `limits`, flat, as MLflow overrides them."""

    policy: Literal["flag", "steer", "retry", "stop"]
    threshold: Annotated[float, Field(ge=0, le=1)]
    device: Literal["auto", "cuda", "cpu", "mps"]
    batch: Count
    picture_mib: Annotated[float, Field(gt=0)]
    pixels: Count
    pictures: Count
    question_chars: Count
    max_new_tokens: Count
