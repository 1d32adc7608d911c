"""One training run: the loop that every worker executes, and the two ways to run it.

`workers: 0` runs the loop in this process; otherwise Ray Train runs it on that many workers, of a
local Ray or of the cluster this process belongs to (RAY_ADDRESS); of a range on as many as there is
room for, which changes during the run (`adapt.cluster.elastic`). Both ways save checkpoints under a
name that depends on the inputs and the configuration alone, so that a run that was cut off goes on
from its last checkpoint, one that has ended is handed over again until DVC knows its result, and of
two at the same time one trains and both have the result (`claim`). A run whose loss or gradients
stop being finite ends with FloatingPointError, which names the step, the rows and where its last
checkpoint is; Ray does not try again what would come out the same.
"""

import dataclasses
import functools
import hashlib
import json
import os
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
import torch.distributed as dist

from adapt.cluster import storage, submit
from adapt.cluster.local import is_sent
from adapt.data.tables import read_split
from adapt.models.device import resolve
from adapt.names import one_line
from adapt.pairs.table import REMAKE
from adapt.params import InputError, require
from adapt.preference import adapters, optimizers, parts, validation
from adapt.preference.build import build_trainer
from adapt.preference.callback import ReportCallback, divided_anew
from adapt.preference.checkpoints import SUMMARY, Checkpoints, LocalCheckpoints, room, whole
from adapt.preference.checks import check
from adapt.preference.claim import claimed, sweep, tell_others, when
from adapt.preference.movement import StillWeights
from adapt.preference.reference import ReferenceCache
from adapt.preference.result import deliver, write_result
from adapt.preference.settings import Config
from adapt.preference.survey import FactsCache
from adapt.preference.validation import Validation
from adapt.preference.workers import Settle, WorkerSetup, on_ray, require_finite
from adapt.progress import Log


def fit(
    config: Config,
    base: Path,
    pairs: Path,
    out: Path,
    state: Path,
    log: Log,
    workspace: Path | None = None,
    plain: Path | None = None,
    splits: Path | None = None,
    settle: Settle | None = None,
) -> dict[str, float]:
    """Train; writes `out/model`, `out/history.csv` and `out/modules.csv`.

    `state` keeps reference log-probabilities for the next run, checkpoints until the run has ended,
    and its result until DVC, in `workspace`, knows it or a later one. `plain` is the file of plain
    rows, which is looked at where `w_keep` is above 0; without a row that term is left out.
    `splits`: the folder of splits, for `validation`. `settle` finds what keys are that are left
    open (`Config.left_open`); without it they are what they are on CPUs.
    """
    if plain is not None and (config.w_keep == 0 or not _has_rows(plain)):
        config = config.model_copy(update={"w_keep": 0.0})
        problem = f"{plain} has no rows to keep, and no other term has a weight: nothing to train"
        require(config.total > 0, "train.w_keep", problem)
        plain = None
    digest = functools.cache(lambda path: storage.digest(storage.files_of(path)))
    # Beside the checkpoints, or on a cluster on its storage; see `submit.checkpoints`.
    home = (os.environ.get(submit.STORAGE) if submit.inside() else None) or str(state.resolve())
    facts = check(config, base, pairs, plain, FactsCache(uri=f"{home}/checked", digest=digest))
    adapters.check(config, base)
    if not is_sent():
        optimizers.check(config)
    setup = _setup(config, base, pairs, plain, splits, home, digest, log)
    setup = dataclasses.replace(setup, facts=facts, settle=settle)
    root = (workspace or state).resolve()
    sweep(state, root)
    tell_others(state, setup.name, root)
    with claimed(state, setup.name, root, code_key()) as training:
        if whole(training.final):
            until = "DVC does not know it yet"
            print(
                one_line(f"train: the result of {when(training)} is there; {until}"),
                file=sys.stderr,
            )
        elif config.workers == 0:
            local = LocalCheckpoints(training.folder)
            require_finite(loop(setup, local), local.kept)
        else:
            on_ray(loop, setup, training)
        return deliver(training.final, out)


def _has_rows(plain: Path) -> bool:
    """Whether there is anything to keep; says so where there is not."""
    require(plain.exists(), str(plain), f"not found; {REMAKE}")
    rows = len(read_split(plain))
    if not rows:
        said = f"{plain} has no rows to keep (pairs.keep): that term is left out"
        print(one_line(f"train.w_keep: {said}"), file=sys.stderr)
    return rows > 0


def loop(setup: WorkerSetup, checkpoints: Checkpoints) -> str | None:
    """What each worker does: load, train on from the last checkpoint, save the result once.

    Returns why a loss was not finite, or None. It is no exception, because Ray starts a worker that
    raises again, and this would come out the same; all workers stop at the same step.
    """
    config = setup.config
    try:
        workspace, quiet = checkpoints.workspace(), warnings.catch_warnings()
        with workspace as scratch, room(scratch), quiet, checkpoints.latest() as latest:
            # 1. A worker that was started again after the result had been saved has nothing to do.
            if latest is not None and (latest / SUMMARY).exists():
                return None
            # 2. A resumed run builds what a fresh one does; the reference is in the cache.
            # Deprecations among TRL, accelerate and transformers.
            warnings.simplefilter("ignore", FutureWarning)
            base, pairs = submit.fetch(setup.base), submit.fetch(setup.pairs)
            plain = None if setup.plain is None else submit.fetch(setup.plain)
            output, final = scratch / "trainer", scratch / "final"
            device = resolve(config.device)
            optimizers.check(config)  # a job's driver may have no GPU, and does not look
            config = _settings(setup, base, device)
            files = (base, pairs, setup.reference, output, plain)
            asked = _validation(setup, scratch, latest)
            trainer, what = build_trainer(config, device, *files, asked)
            for callback in _callbacks(setup, checkpoints):
                trainer.add_callback(callback)
            is_first = trainer.is_world_process_zero()
            if is_first:
                _print_start(setup, config, what, latest)
            # 3. Weights, optimiser, random states, the place in the data and the history go on
            #    from the checkpoint.
            with divided_anew():
                trainer.train(resume_from_checkpoint=None if latest is None else str(latest))
            # 4. All ranks save, because Ray waits for all; rank 0 has the files. A divided model is
            #    put together by all of them.
            final.mkdir()
            model = trainer.whole_model(base, trainer.best())
            if is_first:
                write_result(trainer, model, what, config, base, final)
            checkpoints.save(final)
    except FloatingPointError as error:
        return str(error)
    except torch.OutOfMemoryError as error:
        raise InputError(_full(config)) from error
    return None


def _settings(setup: WorkerSetup, base: Path, device: torch.device) -> Config:
    """The settings of this worker: for as many as there are, with what the card decides."""
    config = setup.config.at(dist.get_world_size() if dist.is_initialized() else 1)
    if setup.settle is None:
        return config
    return setup.settle(config, base, setup.facts, device)


def _full(config: Config) -> str:
    problem = f"the memory of the {config.device} device is full ({config.pass_pairs} pairs a pass)"
    less = "more passes (train.accumulation) take less, and so does train.gradient_checkpointing"
    return f"train: {problem}; {less}; python -m adapt.inspect MODEL --plan has all ways"


def _setup(
    config: Config,
    base: Path,
    pairs: Path,
    plain: Path | None,
    splits: Path | None,
    home: str,
    digest: Callable[[Path], str],
    log: Log,
) -> WorkerSetup:
    known = validation.known(config, splits)
    split = None if known is None else known.file
    digests = [digest(path) for path in (base, pairs, plain, split) if path is not None]
    # How many workers share the rows, in how many passes, where moments live, how long one waits,
    # and how often one tries again is no part of what is trained.
    how = {"workers", "accumulation", "gradient_checkpointing", "offload"}
    how |= {"max_failures", "wait_minutes"}
    how |= set() if known else {"validation", "max_new_tokens"}
    trained = config.model_dump(mode="json", exclude=how)
    named = [trained, *digests] + ([dict(known.words.objects)] if known else [])
    inputs = json.dumps(named, sort_keys=True)
    name = f"train-{hashlib.sha256(inputs.encode()).hexdigest()[:16]}"
    reference = ReferenceCache(uri=f"{home}/reference", base=digests[0])
    return WorkerSetup(
        config=config,
        base=submit.share(base),
        pairs=submit.share(pairs),
        plain=None if plain is None else submit.share(plain),
        split=None if split is None else submit.share(split),
        words=None if known is None else known.words,
        reference=reference,
        log=log,
        name=name,
    )


def _validation(setup: WorkerSetup, scratch: Path, latest: Path | None) -> Validation | None:
    """What is asked at every checkpoint, with the best weights that the last one has."""
    if setup.split is None or setup.words is None:
        return None
    asked = Validation.of(setup.config, submit.fetch(setup.split), setup.words, scratch)
    if latest is not None:
        asked.best.go_on(latest)
    return asked


def code_key() -> str:
    """A digest of what a result depends on besides its configuration and inputs: our code, and the
    versions of what it calls.
    """
    versions = [version(name) for name in ("torch", "transformers", "trl", "peft", "accelerate")]
    return hashlib.sha256(json.dumps([submit.code_digest(), *versions]).encode()).hexdigest()


def _callbacks(setup: WorkerSetup, checkpoints: Checkpoints) -> tuple[ReportCallback, StillWeights]:
    steps, pairs = setup.config.steps, setup.config.batch_pairs
    return ReportCallback(setup.log, checkpoints, steps, pairs), StillWeights()


def _print_start(
    setup: WorkerSetup, config: Config, what: parts.Parts, checkpoint: Path | None
) -> None:
    """How a step is divided, where that was not said before; what is trained; from which step."""
    asked = setup.config
    if (config.workers, config.passes) != (asked.workers, asked.passes):
        share = f"pairs a pass: {config.pass_pairs}, passes: {config.passes}"
        print(one_line(f"train: workers: {config.workers}, {share}"), file=sys.stderr)
    if config.checkpointing and not asked.checkpointing:
        why = "(gradient_checkpointing: auto), a quarter more time"
        print(one_line(f"train: activations are computed again {why}"), file=sys.stderr)
    for line in parts.lines(what.table):
        print(one_line(f"train: {line}"), file=sys.stderr)
    if checkpoint is None:
        return
    step = json.loads((checkpoint / "trainer_state.json").read_text())["global_step"]
    print(one_line(f"train: resuming from {step} of {config.steps} steps"), file=sys.stderr)
