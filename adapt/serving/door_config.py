"""What MLflow's door answers with: it lies in `MLmodel`, filled from params.yaml at registration.

    mlflow.pyfunc.load_model("models:/adapt@champion", model_config={"policy": "steer"})

A version may be loaded where there is no params.yaml, and MLflow lets a user change these keys.
"""

from adapt.models.settings import Device
from adapt.params import Count, Settings, Share
from adapt.serving.asked import Policy
from adapt.serving.settings import Limits, ServeConfig


class DoorConfig(Settings):
    """What of section `serve` is MLflow's door's, too, and where the model goes."""

    policy: Policy
    threshold: Share
    device: Device
    batch: Count
    limits: Limits

    @classmethod
    def of(cls, serve: ServeConfig) -> "DoorConfig":
        """That of params.yaml."""
        return cls(**{name: getattr(serve, name) for name in cls.model_fields})
