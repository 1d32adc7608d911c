"""A crew of Ray actors that have each opened one model, and what is dealt out to them.

Plain actors and not Ray Data's `map_batches`: a pool there belongs to one pass over one data set,
its actors are made when the pass starts and go with it (`ActorPoolMapOperator.start`, `shutdown`).
A stage makes a dozen passes over each of two models, each of which would load the model again. And
what is in a block, a batch and an output there is up to Ray; here a part is what a stage has
composed, its result comes back as soon as it is there, and one that is lost is dealt out again.

An actor has one part at a time, the next one is composed meanwhile. One that dies costs that part
and is replaced. All end with the block, or with this process (`local`).
"""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapt.cluster.local import is_sent, ray_here
from adapt.cluster.weights import Actor, Folder, Pieces
from adapt.models.settings import Device
from adapt.names import one_line
from adapt.params import InputError, require

TRIES = 3  # actors that one part may take with it
LOOK_S = 2.0
QUIET_S = 20.0  # that nobody is at work before a word is said of it
SAY_S = 60.0
BY_FOLDER, BY_CONTENT, BY_PIECES = range(3)  # how an actor finds its model, tried in this order


@contextmanager
def crew(actors: int, cpus: int, device: Device, key: str) -> Iterator["Fan | None"]:
    """So many actors of `cpus` CPUs each, or with a GPU each; None for 0 of them.

    `key` is the section that a message names. In the Ray of RAY_ADDRESS, or in a local one. A job
    on a cluster has one at least: it starts on the head, which may have no GPU and no CPU to lend.
    """
    actors = actors or int(is_sent())
    if not actors:
        yield None
        return
    message = f"{key}: starting {actors} Ray actors, which takes some seconds"
    print(one_line(message), file=sys.stderr)
    with ray_here(actors * cpus, include_dashboard=False):
        import ray

        gpus = int(ray.cluster_resources().get("GPU", 0))
        fan = Fan(actors, cpus, actor_device(device, actors, gpus, key), key)
        try:
            yield fan
        finally:
            fan.close()


def actor_device(device: Device, actors: int, gpus: int, key: str) -> Device:
    """Where actors answer: on a GPU each, or on CPUs.

    Raises InputError where Ray has GPUs, but not one for each, or none that was asked for.

    >>> actor_device("auto", 2, 2, "answer"), actor_device("auto", 2, 0, "answer")
    ('cuda', 'cpu')
    """
    require(device != "mps", "device", f"mps answers in one process; set {key}.actors to 0")
    if device == "cpu" or (device == "auto" and gpus == 0):
        return "cpu"
    problem = f"{actors} actors need a GPU each, and Ray has {gpus}"
    require(gpus >= actors, f"{key}.actors", f"{problem}; set it to {gpus}, or device to cpu")
    return "cuda"


@dataclass
class _Part:
    """Something to do, its number, and how many actors it was with that are gone."""

    number: int
    arguments: tuple[Any, ...]
    lost: int = 0


class Fan:
    """Actors that have each opened the same model; see the module docstring, and `crew`."""

    def __init__(self, actors: int, cpus: int, device: Device, key: str) -> None:
        import ray
        from ray import exceptions

        self.actors, self.device, self._key = actors, device, key
        self._cpus, gpus = cpus, int(device == "cuda")
        self._actor = ray.remote(Actor).options(num_cpus=cpus, num_gpus=gpus, max_restarts=0)
        kinds = ("RayActorError", "ObjectLostError", "NodeDiedError", "OutOfMemoryError")
        self._losses = tuple(getattr(exceptions, kind) for kind in kinds)
        self._folder: Folder | None = None
        self._pieces: Pieces | None = None
        self._opener: Callable[[Path], Any] | None = None
        self._opening: dict[Any, tuple[Any, int]] = {}  # the actor, and how it looks for its model
        self._free: list[Any] = []
        self._in_a_row = 0  # actors lost since the last part that was done
        self._waits = _Waits(key, f"{cpus} CPU" + f" and {gpus} GPU" * gpus)
        self._all = [self._actor.remote(cpus) for _ in range(actors)]

    def open(self, folder: Path, opener: Callable[[Path], Any]) -> None:
        """As `Crew.open`; returns at once."""
        self._folder, self._pieces, self._opener = Folder.of(folder), None, opener
        self._free, self._opening = [], {}
        for actor in self._all:
            self._open(actor, BY_FOLDER)

    def close(self) -> None:
        """End them all."""
        import ray

        for actor in self._all:
            ray.kill(actor)
        self._all, self._free, self._opening, self._pieces = [], [], {}, None

    def ask(self, method: str, *arguments: Any) -> Any:
        """As `Crew.ask`: of one with nothing to do, or behind what it does."""
        for _ in range(TRIES):
            while len(self._opening) == len(self._all):
                self._arrived([])
            looking = [actor for actor, _ in self._opening.values()]
            busy = (actor for actor in self._all if actor not in looking)
            actor = self._free[0] if self._free else next(busy)
            try:
                return self._got(actor.work.remote(method, arguments))
            except self._losses as error:
                self._replace(actor, error)
        raise InputError(self._hopeless())

    def each(self, method: str, parts: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
        """As `Crew.each`."""
        numbered = (_Part(number, arguments) for number, arguments in enumerate(parts))
        waiting = deque[_Part]()
        doing: dict[Any, tuple[Any, _Part]] = {}

        def deal() -> None:
            """A part that is ready for everybody who has none."""
            while waiting and self._free:
                actor, part = self._free.pop(), waiting.popleft()
                doing[actor.work.remote(method, part.arguments)] = actor, part

        try:
            while True:
                # One more than can be dealt out, so that nobody waits while it is composed.
                while not waiting and (part := next(numbered, None)):
                    waiting.append(part)
                    deal()
                if not doing and not waiting:
                    return
                for ref in self._arrived([*doing]):
                    actor, part = doing.pop(ref)
                    try:
                        result = self._got(ref)
                    except self._losses as error:
                        self._lose(actor, part, error)
                        waiting.appendleft(part)
                        continue
                    self._in_a_row = 0
                    self._free.append(actor)
                    deal()
                    yield part.number, result
                deal()
        finally:
            self._free += [actor for actor, _ in doing.values() if actor in self._all]

    def _arrived(self, doing: Sequence[Any]) -> list[Any]:
        """Those of the references that are done; actors that have opened their model are free."""
        import ray

        done, _ = ray.wait([*doing, *self._opening], num_returns=1, timeout=LOOK_S)
        for ref in done:
            if ref not in self._opening:
                continue
            actor, how = self._opening.pop(ref)
            try:
                is_open = self._got(ref)
            except self._losses as error:
                self._replace(actor, error)
                continue
            if is_open:
                self._free.append(actor)
            else:
                self._open(actor, how + 1)
        self._waits.look(bool(doing or self._free or done), len(self._opening))
        return [ref for ref in done if ref in {*doing}]

    def _got(self, ref: Any) -> Any:
        """The value; a mistake of the user's is raised as that alone."""
        import ray

        try:
            return ray.get(ref)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, InputError):
                raise error.cause from None
            raise

    def _open(self, actor: Any, how: int) -> None:
        """Let an actor look for its model in this way."""
        assert self._folder is not None and self._opener is not None, "open comes first"
        if how == BY_PIECES:
            self._pieces = self._pieces or self._folder.pieces()
        content = self._folder.content if how else None
        named = (self._folder.path, self._folder.node, content)
        pieces = self._pieces if how == BY_PIECES else None
        self._opening[actor.open.remote(named, pieces, self._opener)] = actor, how

    def _lose(self, actor: Any, part: _Part, error: Exception) -> None:
        """Take notice that an actor was lost with a part."""
        part.lost += 1
        self._replace(actor, error)
        if part.lost == TRIES:
            raise InputError(self._hopeless()) from None

    def _replace(self, actor: Any, error: Exception) -> None:
        """Another actor in the place of one that is lost."""
        import ray

        if actor not in self._all:  # somebody has noticed it already
            return
        ray.kill(actor)
        self._all.remove(actor)
        self._free = [one for one in self._free if one is not actor]
        self._opening = {ref: one for ref, one in self._opening.items() if one[0] is not actor}
        self._in_a_row += 1
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        problem = f"{self._key}: an actor was lost ({reason}); another one takes over its batch"
        print(one_line(problem), file=sys.stderr, flush=True)
        if self._in_a_row > TRIES + self.actors:
            raise InputError(self._hopeless())
        self._all.append(self._actor.remote(self._cpus))
        self._open(self._all[-1], BY_FOLDER)

    def _hopeless(self) -> str:
        problem = f"actors were lost {TRIES} times at the same work; memory may be short"
        return f"{self._key}.actors: {problem}: lower {self._key}.batch, or have fewer actors"


class _Waits:
    """Says now and then that nobody is at work, and what for: Ray waits without a word."""

    def __init__(self, key: str, wants: str) -> None:
        self._key, self._wants = key, wants
        self._since, self._said = time.monotonic(), 0.0

    def look(self, is_at_work: bool, opening: int) -> None:
        """Take notice of whether somebody is."""
        now = time.monotonic()
        if is_at_work:
            self._since = now
        elif now - self._since > QUIET_S and now - self._said > SAY_S:
            self._said = now
            what = f"waiting for actors to start ({opening}); each needs {self._wants}"
            print(one_line(f"{self._key}: {what}"), file=sys.stderr, flush=True)
