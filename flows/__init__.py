"""Prefect flows: when, where and how often; what happens is in `adapt`, the graph is in `dvc.yaml`.

Prefect reads its switches when it is imported and makes its home then (but no folder above it), so
both are prepared before any module here imports it. Only what the user has not set is set.
"""

import os
from pathlib import Path

from adapt import environment

environment.prepare(Path.cwd())
Path(os.environ["PREFECT_HOME"]).parent.mkdir(parents=True, exist_ok=True)
