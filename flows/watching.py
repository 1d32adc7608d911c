"""The answers of the champion as its server has logged them, compared with its profile.

A look takes what was answered since the last one, in windows that do not overlap; what is left over
waits for the next look. Nothing is lost by a look that fails, or by a registry that is away: the
same windows are compared later. What was compared last is kept in the state folder.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from adapt import environment
from adapt.files import whole_file
from adapt.names import one_line
from adapt.registry import registry
from adapt.registry.download import read_file
from adapt.registry.ledger import MOVES
from adapt.registry.standing import Standing
from adapt.tracking import watched
from adapt.tracking.store import Store
from adapt.watching import drift, profile
from adapt.watching.drift import Window
from adapt.watching.log import Log
from adapt.watching.profile import Profile
from adapt.watching.settings import WatchConfig
from flows import drift_page, links
from flows.away import asking

PROFILE = "serving/profile.json"
SETTLED_S = 60.0  # servers write what they have answered within seconds, not at once
GRACE_S = 300.0  # in which servers follow an alias that has moved
MOST = 200  # windows of one look, and of a figure
OWED = ("message", "reason", "link")


@dataclass(frozen=True)
class Kept:
    """What a look leaves for the next one.

    `until` is the time of the last answer that was compared, `drifts` whether that window alarmed,
    `windows` those of before, to be drawn. `owed` is an event that nobody has taken yet: its
    message, reason and link.
    """

    version: str = ""
    until: float = 0.0
    drifts: bool = False
    windows: tuple[Mapping[str, Any], ...] = ()
    owed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Looked:
    """One look: the windows that it has compared, and sentences about what it has not.

    `page` shows the last window, `kept` is for the next look.
    """

    version: str = ""
    windows: tuple[Window, ...] = ()
    notes: tuple[str, ...] = ()
    page: str = ""
    kept: Kept = field(default_factory=Kept)

    def sentences(self) -> list[str]:
        """What was seen, in words."""
        last = [drift_page.sentence(self.windows[-1], self.version)] if self.windows else []
        return [*last, *self.notes]


def look(store: Store, config: WatchConfig, *, record: bool, now: float | None = None) -> Looked:
    """Compare what has been answered since the last look.

    `record`: with the run in MLflow. `InputError` where the log, `RegistryAway` where the registry
    does not answer. What was compared counts as such when the caller has kept `Looked.kept`.
    """
    place, kept = config.place(store.root), read(store.root)
    now = time.time() if now is None else now
    if not place:
        return Looked(notes=("answers are not logged (watch.log)",), kept=kept)
    # 1. Without answers nobody has to be asked.
    found = Log(place).read("signals", kept.until)
    rows = found.rows[found.rows.time <= now - SETTLED_S]
    if rows.empty:
        return Looked(
            notes=("no answer was logged since the last look", *found.left_out), kept=kept
        )
    # 2. Who is champion, since when, and how it answered on its validation split.
    with asking(store):
        stands = registry.shown_state(store)
        version = stands.champion or ""
        if not version:
            return Looked(notes=("there is no champion to compare answers with",), kept=kept)
        reference = _profile(store, version)
    if kept.version != version:
        kept = Kept(version, max(kept.until, _since(stands) + GRACE_S), owed=kept.owed)
    if not reference.pictures:
        note = f"version {version} has no reference profile: {reference.note}"
        return Looked(version, notes=(note, *found.left_out), kept=kept)
    # 3. Window by window.
    rows = rows[rows.time > kept.until]
    plain = rows[rows.policy == drift.PLAIN]
    compared = [
        drift.compare(reference, part, false_alarms=config.false_alarms, version=version)
        for part, _ in zip(drift.windows(plain, config.window), range(MOST), strict=False)
    ]
    notes = [*_left(rows, plain, compared, config), *found.left_out]
    return _told(
        store, reference, Looked(version, tuple(compared), tuple(notes), kept=kept), record
    )


def _left(
    rows: pd.DataFrame, plain: pd.DataFrame, compared: Sequence[Window], config: WatchConfig
) -> list[str]:
    """What no window has."""
    left = len(plain) - sum(one.answers for one in compared)
    notes = [f"{left} answers wait for a window of {config.window} pictures"] if left else []
    if others := len(rows) - len(plain):
        of = f"{others} answers by other policies than {drift.PLAIN} are not compared"
        notes.append(f"{of}: the profile is of plain ones")
    return notes


def _told(store: Store, reference: Profile, looked: Looked, record: bool) -> Looked:
    """The look with its page, the run, and what people have to be told."""
    if not looked.windows:
        return looked
    kept, drifts, news = looked.kept, looked.kept.drifts, None
    for one in looked.windows:
        # A drift that goes on is told once; a window without an alarm ends it.
        news = one if one.alarms and not drifts else news
        drifts = one.alarms
    windows = (*kept.windows, *map(_plain, looked.windows))[-MOST:]
    last, version = looked.windows[-1], looked.version
    page, link = drift_page.page(last, version, len(windows), reference), ""
    if record:
        with asking(store, "to show the windows"):
            link = links.run_page(store, _recorded(store, reference, looked, windows, page))
    owed = kept.owed
    if news is not None:
        said = {"message": drift_page.sentence(news, version), "link": link}
        owed = said | {"reason": drift_page.reason(news)}
    return replace(looked, page=page, kept=Kept(version, last.last, drifts, windows, owed))


def _recorded(
    store: Store, reference: Profile, looked: Looked, windows: Sequence[Any], page: str
) -> str:
    """The run in MLflow that has the windows; returns its id."""
    with TemporaryDirectory() as folder:
        report, curves = Path(folder) / "report.md", Path(folder) / "curves.png"
        report.write_text(page, encoding="utf-8")
        every = [*map(_of_plain, windows[: -len(looked.windows)]), *looked.windows]
        drift_page.save(drift_page.figure(reference, every), curves)
        run_id = ""
        for one in looked.windows:
            files = [report, curves] if one is looked.windows[-1] else []
            about = drift_page.sentence(one, looked.version)
            run_id, _ = watched.record(store, looked.version, metrics(one), files, about)
    return run_id


def metrics(window: Window) -> dict[str, float]:
    """A window as points of curves."""
    values = {watched.COUNT: float(window.alarms), "watch/answers": float(window.answers)}
    for one in window.signals:
        known = {"distance": one.distance, "median": one.window}
        values |= {f"{key}/{one.name}": v for key, v in known.items() if v == v}
    return values


def _profile(store: Store, version: str) -> Profile:
    """The profile that the version was registered with; one with a note where it has none."""
    model = store.config.model
    content = read_file(store.client, model, version, PROFILE, profile.LARGEST)
    if content is None:
        return Profile(note="it was registered without one")
    return profile.parsed(content, one_line(f"models:/{model}/{version}/{PROFILE}"))


def _since(stands: Standing) -> float:
    """When the champion became that (s since 1970); 0 where nobody wrote it down."""
    for entry in stands.counted:
        if entry.what in MOVES and entry.to == stands.champion:
            try:
                moved = datetime.strptime(entry.when, "%Y-%m-%d %H:%M:%S UTC")
            except ValueError:
                return 0.0
            return moved.replace(tzinfo=UTC).timestamp()
    return 0.0


# ---- what is kept --------------------------------------------------------------------------------


def read(root: Path) -> Kept:
    """What the last look has left; nothing where it is damaged."""
    try:
        content = json.loads(_path(root).read_text(encoding="utf-8"))
        return Kept(
            version=str(content["version"]),
            until=float(content["until"]),
            drifts=bool(content["drifts"]),
            windows=tuple(map(dict, content["windows"])),
            owed={key: str(content["owed"][key]) for key in OWED if content["owed"]},
        )
    except (OSError, ValueError, LookupError, TypeError):
        return Kept()


def keep(root: Path, kept: Kept) -> None:
    """Let the next look begin where this one ended."""
    with whole_file(_path(root)) as partial:
        partial.write_text(json.dumps(asdict(kept)) + "\n", encoding="utf-8")


def _path(root: Path) -> Path:
    return environment.state_dir(root) / "watching.json"


def _plain(window: Window) -> dict[str, Any]:
    """What a figure needs of a window."""
    changed = {one.name for one in window.changed}
    drawn = {one.name: [one.window, one.name in changed] for one in window.signals}
    return {"first": window.first, "last": window.last, "signals": drawn}


def _of_plain(kept: Mapping[str, Any]) -> Window:
    signals = [
        drift.Signal(
            name=name,
            reference=float("nan"),
            window=float(value),
            distance=0.0,
            p=1.0,
            adjusted=0.0 if changed else 1.0,
            missing=0.0,
        )
        for name, (value, changed) in kept["signals"].items()
    ]
    about = {"first": kept["first"], "last": kept["last"], "answers": 0, "versions": {}}
    return Window(**about, signals=tuple(signals), limit=0.5, is_other=False)
