"""Prefect makes its home when it is imported: somewhere else than in this checkout, and only while
the tests run.
"""

import atexit
import os
import shutil
import tempfile

home = tempfile.mkdtemp(prefix="adapt-prefect-")
os.environ["PREFECT_HOME"] = home
atexit.register(shutil.rmtree, home, ignore_errors=True)
