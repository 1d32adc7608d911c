"""What a pair file takes of memory does not grow with its pictures, whoever reads or writes it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.sides import IN_USE

ROOT = Path(__file__).parents[2]
FEW, MANY, PICTURE = 300, 1500, 60_000
ALLOWED = 6000  # bytes a row: its text for a moment, its id, its part of the file's footer
# Each part is gone through for a small file, and again for a large one, in one process; all memory
# that is freed goes back at once.
MEASURE = """
import json, os, sys
from pathlib import Path
from adapt.pairs import groups
from adapt.pairs.table import read_pairs, write_pairs
from adapt.preference import survey
from benchmarks import stream_pairs as bench

groups.KEPT_BYTES = 2 << 20
peaks = {}

def note(part):
    peaks[part] = max(peaks.get(part, 0), bench.anonymous_of(os.getpid()))

def noting(items, part):
    for number, item in enumerate(items):
        if number % 20 == 0:
            note(part)
        yield item

true, made = survey.check_rows, bench.pairs
survey.PIECE = 100
survey.check_rows = lambda *parts: (true(*parts), note(f"check {rows}"))[0]
bench.pairs = lambda *parts: noting(made(*parts), f"write {rows}")
for rows in map(int, sys.argv[2:4]):
    folder = Path(sys.argv[1]) / str(rows)
    folder.mkdir()
    bench.make(folder, rows, int(sys.argv[4]))
    bench.checked(folder)
    for _ in noting(bench.steps(folder), f"read {rows}"):
        pass
print(json.dumps(peaks))
"""


@pytest.fixture(scope="module")
def peaks(tmp_path_factory) -> dict[str, int]:
    """The most memory that each part took, in bytes, by part and number of rows."""
    command = [sys.executable, "-c", MEASURE, str(tmp_path_factory.mktemp("pairs"))]
    command += map(str, (FEW, MANY, PICTURE))
    pool = {"ARROW_DEFAULT_MEMORY_POOL": "system", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | IN_USE | pool
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("part", ["write", "check", "read"])
def test_memory_a_row(peaks, part):
    grown = peaks[f"{part} {MANY}"] - peaks[f"{part} {FEW}"]
    assert grown < ALLOWED * (MANY - FEW), f"{grown / (MANY - FEW):.0f} bytes a row"
