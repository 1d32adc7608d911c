"""Section `watch` of params.yaml: what is logged of a served model, and how windows are tested."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from adapt.environment import state_dir
from adapt.params import Count, Natural, Settings

AUTO = "auto"


class WatchConfig(Settings):
    """Section `watch`."""

    log: str  # auto: a folder of the state; a folder, or s3://bucket/prefix; "": none
    texts: bool  # questions and answers are kept, too
    pictures: bool
    keep_days: Count  # after which texts and pictures are deleted
    signals_days: Natural  # after which the signals are; 0: never
    window: Annotated[int, Field(ge=50, le=100_000)]  # pictures
    false_alarms: Annotated[float, Field(gt=0, le=0.5)]  # share of windows

    def place(self, root: Path) -> str:
        """Where the log of the workspace `root` lies, as fsspec takes it; "" for nowhere."""
        if self.log == AUTO:
            return str(state_dir(root) / "served")
        return self.log if "://" in self.log or not self.log else str(root.resolve() / self.log)
