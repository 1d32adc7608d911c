"""Line charts and intervals as SVG: no script, colours from the page's style, text that is text."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 420.0, 230.0
LEFT, RIGHT, TOP, BOTTOM = 48.0, 10.0, 10.0, 34.0
POINTS = 400  # of a line; more cannot be seen at this width
LARGEST = 1e100  # a value beyond it is no measurement, and its scale no number
SMOOTHED = 60  # points from which on a line has its running mean drawn over it

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Line:
    """A curve: `look` is a class of the page's style, `dashed` tells the second run of two."""

    name: str
    points: Points
    look: str
    dashed: bool = False


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart with a title and the names of its axes; `smooth` draws running means over noise."""

    title: str
    x: str
    y: str
    lines: Sequence[Line]
    smooth: bool = False

    def describe(self) -> str:
        """The chart in words, for those who do not see it."""
        ends = [
            f"{line.name} from {one(line.points[0][1])} to {one(line.points[-1][1])}"
            for line in self.lines
        ]
        return f"{self.title}, {self.y} by {self.x}: {'; '.join(ends)}."


def svg(chart: Chart) -> str:
    """The chart as an `svg` element; all of its texts are escaped."""
    lines = [line for line in map(_finite, chart.lines) if line.points]
    if not lines:
        return ""
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    across = Scale.over(xs, LEFT, WIDTH - RIGHT, snug=True)
    up = Scale.over(ys, HEIGHT - BOTTOM, TOP)
    told = Chart(title=chart.title, x=chart.x, y=chart.y, lines=lines)
    inner = [
        *_axes(across, up, chart.x),
        *(part for line in lines for part in _drawn(line, across, up, chart.smooth)),
    ]
    label = escape(told.describe(), quote=True)
    box = f'viewBox="0 0 {WIDTH:g} {HEIGHT:g}"'
    return f'<svg {box} role="img" aria-label="{label}">{"".join(inner)}</svg>'


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` onto lengths from `start` to `end`, with round `ticks`."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    @staticmethod
    def over(values: Sequence[float], start: float, end: float, *, snug: bool = False) -> "Scale":
        """A scale that holds `values`; `snug` ends with them instead of at the next tick."""
        low, high = min(values), max(values)
        if high - low <= 1e-9 * max(1.0, abs(low), abs(high)):
            room = max(0.5, 1e-3 * abs(high))
            low, high = low - room, high + room
        step = _step(low, high)
        first, last = math.floor(low / step), math.ceil(high / step)
        ticks = tuple(round(step * n, 12) for n in range(first, last + 1))
        if snug:
            inside = tuple(tick for tick in ticks if low <= tick <= high)
            return Scale(low, high, start, end, inside)
        return Scale(ticks[0], ticks[-1], start, end, ticks)

    def at(self, value: float) -> float:
        """The length of a value."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def _step(low: float, high: float) -> float:
    """The distance of about five ticks, 1, 2 or 5 times a power of ten."""
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * (1 - 1e-9))


def _axes(across: Scale, up: Scale, name: str) -> Iterator[str]:
    bottom = HEIGHT - BOTTOM
    for tick in up.ticks:
        y = up.at(tick)
        yield f'<line class="grid" x1="{LEFT:g}" x2="{WIDTH - RIGHT:g}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{LEFT - 6:g}" y="{y + 3.5:.1f}" text-anchor="end">{one(tick)}</text>'
    for tick in across.ticks:
        x = across.at(tick)
        yield f'<text x="{x:.1f}" y="{bottom + 14:g}" text-anchor="middle">{one(tick)}</text>'
    middle = (LEFT + WIDTH - RIGHT) / 2
    yield f'<text x="{middle:g}" y="{HEIGHT - 4:g}" text-anchor="middle">{escape(name)}</text>'


def _drawn(line: Line, across: Scale, up: Scale, smooth: bool) -> Iterator[str]:
    dashed = " dashed" if line.dashed else ""
    noisy = smooth and len(line.points) >= SMOOTHED
    look = f"{escape(line.look, quote=True)}{dashed}{' noise' if noisy else ''}"
    yield f'<path class="line {look}" d="{_path(thinned(line.points), across, up)}"/>'
    if noisy:
        look = f"{escape(line.look, quote=True)}{dashed}"
        yield f'<path class="line {look}" d="{_path(thinned(running(line.points)), across, up)}"/>'


def _path(points: Points, across: Scale, up: Scale) -> str:
    return "M" + "L".join(f"{across.at(x):.1f} {up.at(y):.1f}" for x, y in points)


def thinned(points: Points) -> Points:
    """At most about `POINTS` of them: of each stretch the lowest and the highest, so no peak is
    lost.

    >>> thinned([(0, 1.0), (1, 5.0)])
    [(0, 1.0), (1, 5.0)]
    """
    if len(points) <= POINTS:
        return points
    size = math.ceil(2 * len(points) / POINTS)
    kept = []
    for start in range(0, len(points), size):
        part = points[start : start + size]
        ends = {min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])}
        kept.extend(sorted(ends))
    return kept


def running(points: Points) -> Points:
    """The mean of each point's neighbours, a thirtieth of the curve to either side."""
    reach, sums = max(1, len(points) // 30), [0.0]
    for _, y in points:
        sums.append(sums[-1] + y)
    smooth = []
    for place, (x, _) in enumerate(points):
        low, high = max(0, place - reach), min(len(points), place + reach + 1)
        smooth.append((x, (sums[high] - sums[low]) / (high - low)))
    return smooth


def _finite(line: Line) -> Line:
    points = [(float(x), float(y)) for x, y in line.points if abs(y) < LARGEST]  # and no nan
    return Line(name=line.name, points=points, look=line.look, dashed=line.dashed)


def one(value: float) -> str:
    """A number as short as its meaning.

    >>> one(0.30000000000000004), one(1200.0), one(0.0)
    ('0.3', '1200', '0')
    """
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


# ---- an interval in a table ----------------------------------------------------------------------

BAR_WIDTH, BAR_HEIGHT = 150.0, 18.0


def interval(low: float, high: float, point: float, reach: float, tone: str) -> str:
    """A change with its interval, on a scale from minus to plus `reach`; zero is in the middle."""
    scale = Scale(-reach, reach, 4.0, BAR_WIDTH - 4.0, ())
    ends, middle = [scale.at(end) for end in (low, high)], BAR_HEIGHT / 2
    zero = f'<line class="zero" x1="{scale.at(0):.1f}" x2="{scale.at(0):.1f}" y1="1" y2="17"/>'
    bar = f'<line class="bar" x1="{ends[0]:.1f}" x2="{ends[1]:.1f}" y1="{middle}" y2="{middle}"/>'
    dot = f'<circle cx="{scale.at(point):.1f}" cy="{middle}" r="4"/>'
    look = f'class="interval {escape(tone, quote=True)}" aria-hidden="true"'
    return f'<svg {look} viewBox="0 0 {BAR_WIDTH:g} {BAR_HEIGHT:g}">{zero}{bar}{dot}</svg>'
