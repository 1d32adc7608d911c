"""Prefect flows: when, where and how often; what happens is in `adapt`, the graph is in `dvc.yaml`.

Prefect reads its switches when it is imported and makes its home then (but no folder above it), so
both are prepared before any module here imports it. Only what the user has not set is set. Where
the home cannot be written to, Prefect gets one that is thrown away: the command that is imported
says in a line what it needs, and a dry run needs nothing.
"""

import atexit
import os
import shutil
import tempfile
import warnings
from pathlib import Path

from adapt import environment


def _is_writable(home: Path) -> bool:
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        home.mkdir(mode=0o700, exist_ok=True)
    except OSError:
        return False
    return os.access(home, os.W_OK)


environment.prepare(Path.cwd())
# Prefect warns of this when it is imported, three lines long.
warnings.filterwarnings("ignore", message="Failed to create the Prefect home directory")
if not _is_writable(Path(os.environ["PREFECT_HOME"])):
    os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="adapt-prefect-")
    atexit.register(shutil.rmtree, os.environ["PREFECT_HOME"], ignore_errors=True)
