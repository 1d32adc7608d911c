"""What stays of work on the storage, and for how long.

A result stays for a day after it was collected, so that others who ask for the same have it; what
nobody collects, such as the checkpoints of a training that was cut off, for a week.
"""

import re
import time
from contextlib import suppress

from adapt.cluster import storage
from adapt.cluster.followers import MOST
from adapt.files import storage_errors

COLLECTED = "collected.json"
WORK = re.compile(r"adapt-[a-z]+-[0-9a-f]{16}")
FILES = 100  # of a piece of work, beside its folders
RESULT_S = 86_400.0  # a result stays this long after it has been collected, for others
REMAINS_S = 7 * 86_400.0  # and what nobody collects, as a killed training's checkpoints


def tidy(folder: str) -> None:
    """Leave nothing of work that did not end, but the checkpoints that it goes on from."""
    with suppress(*storage_errors()):  # the next run of it, or `sweep`, does so
        has_some = "checkpoints" in storage.folders(folder)
        for part in ("/out", "/followers") if has_some else ("",):
            storage.remove(folder + part)


def sweep(exchange: str, but: str) -> None:
    """Delete work on the storage that is over: results collected a day ago, and remains of a week.

    `but`: the name of the work that is asked for now.
    """
    for name in storage.folders(f"{exchange}/jobs"):
        folder = f"{exchange}/jobs/{name}"
        if name == but or not WORK.fullmatch(name):
            continue
        with suppress(*storage_errors()):  # somebody else deletes it, or has planted a link
            if _is_over(folder):
                storage.remove(folder)


def _is_over(folder: str) -> bool:
    written = storage.modified(folder, FILES)
    times = list(written.values())
    if "followers" in storage.folders(folder):  # a training may take longer than a week
        times += storage.modified(f"{folder}/followers", MOST).values()
    last = max(times, default=0.0)
    return time.time() - last > (RESULT_S if COLLECTED in written else REMAINS_S)
