"""Results of the official evaluators, where the folder that holds them is beside the repository."""

import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[3] / "shared" / "oracle"


def load(name: str) -> Any:
    """A file of the oracle folder; skips the test where it is missing."""
    if not (FOLDER / name).is_file():
        pytest.skip(f"official results {FOLDER / name} are not on this machine")
    return json.loads((FOLDER / name).read_text())
