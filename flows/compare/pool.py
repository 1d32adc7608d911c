"""Several cells at a time: Ray runs each missing one once, on its share of the machine."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil

from adapt import environment
from adapt.cluster.local import local_ray
from flows.compare.cells import Cell

MEMORY = 3 * 2**30  # bytes of a job, generously: one with torch and a small model needs half


def default_jobs() -> int:
    """As many as there are GPUs; without one, as many as there are processors and memory for."""
    import torch

    gpus = torch.cuda.device_count()
    return gpus or max(1, min(environment.cpus(), psutil.virtual_memory().available // MEMORY))


def run(cells: Iterable[Cell], jobs: int, root: Path) -> Iterator[tuple[Cell, list[Cell]]]:
    """Compute `cells` and all that they need, `jobs` at a time.

    Yields every cell as it is finished, with those still to come. The first error ends the
    rest and is raised as it was in its process.
    """
    missing = missing_of(cells)
    if not missing:
        return
    import ray

    small: dict[str, Any] = {"include_dashboard": False, "object_store_memory": 128 * 2**20}
    with local_ray(jobs, num_cpus=jobs, log_to_driver=False, **small):
        state, cpus = str(environment.state_dir(root)), str(max(1, environment.cpus() // jobs))
        shared = {"ADAPT_STATE": state, "ADAPT_CPUS": cpus}
        gpu = ray.cluster_resources().get("GPU", 0) / jobs
        compute = ray.remote(num_cpus=1, num_gpus=min(gpu, 1), max_retries=0)(_compute)
        refs: dict[Path, ray.ObjectRef] = {}
        for folder, cell in missing.items():  # what a cell needs comes before it
            needed = [refs[before.folder] for before in cell.after if before.folder in refs]
            refs[folder] = compute.remote(cell, shared, *needed)
        waiting = {ref: missing[folder] for folder, ref in refs.items()}
        while waiting:
            [ref], _ = ray.wait(list(waiting), num_returns=1)
            cell = waiting.pop(ref)
            try:
                ray.get(ref)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            yield cell, list(waiting.values())


def missing_of(cells: Iterable[Cell]) -> dict[Path, Cell]:
    """What has to be computed, by folder, needed things first; a finished cell needs nothing.

    >>> data = Cell("data", Path("/nowhere/data"), dict)
    >>> arms = [Cell(name, Path("/nowhere") / name, dict, (data,)) for name in ("a", "b")]
    >>> [path.name for path in missing_of(arms)]
    ['data', 'a', 'b']
    """
    missing: dict[Path, Cell] = {}
    for cell in cells:
        if not cell.done:
            missing |= missing_of(cell.after)
            missing.setdefault(cell.folder, cell)
    return missing


def _compute(cell: Cell, shared: dict[str, str], *_before: None) -> None:
    """In a process of Ray's, which waits for the cells before because it takes their results."""
    import torch

    os.environ.update(shared)
    torch.set_num_threads(environment.cpus())
    cell.compute()
