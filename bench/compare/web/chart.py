"""Line charts as SVG. Sizes are in pixels of a 400 pixel wide drawing, which keeps its text readable on a telephone.

Colours and line styles come from page.css by the class of a broker (`heizer`, `kafka`). A chart's read-outs need no
script: each is drawn beside its column and shown by the style sheet while the pointer is over that column.
"""

import bisect
from dataclasses import dataclass
from typing import Callable, Iterable, Optional

from web import wording
from web.axis import Axis
from web.lookup import median
from web.markup import Markup, tag

WIDTH = 400
LEGEND_HEIGHT = 22
_HEIGHT = 250
_LEFT, _RIGHT, _BOTTOM = 46, 14, 36
_LINE_HEIGHT = 15
# Of an average letter at the size of the text.
_LETTER = 6.6

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Series:
    """One broker's lines, one a round; points ascend in x."""

    kind: str
    rounds: tuple[Points, ...]


@dataclass(frozen=True)
class Lines:
    """What a line chart shows. `columns` are the x at which values can be read off, `say_x` and `say_y` how."""

    title: str
    series: tuple[Series, ...]
    x: Axis
    y: Axis
    x_label: str
    y_label: str
    columns: tuple[float, ...]
    say_x: Callable[[float], str]
    say_y: Callable[[float], str]
    # Many points close together: lines are thinner and none is dashed.
    dense: bool = False


def lines(chart: Lines) -> Markup:
    """Thin lines are rounds, the bold one their median."""
    medians = [(one.kind, median_line(one.rounds)) for one in chart.series]
    several = [one for one in chart.series if len(one.rounds) > 1]
    drawn = [_path(points, chart, f"line {one.kind} round") for one in several for points in one.rounds]
    drawn += [_path(points, chart, f"line {kind} median") for kind, points in medians]
    return svg(
        chart.title,
        _description(chart, medians),
        _HEIGHT,
        _grid(chart),
        tag("g", legend([one.kind for one in chart.series], "line"), *drawn, class_="dense" if chart.dense else None),
        *_readouts(chart, medians),
    )


def svg(title: str, description: str, height: float, *children: Optional[Markup], width: float = WIDTH) -> Markup:
    """A drawing that says what it is to those who cannot see it."""
    return tag(
        "svg",
        tag("title", title),
        tag("desc", description),
        *children,
        role="img",
        viewBox=f"0 0 {width:g} {height:g}",
    )


def words(x: float, y: float, content: object, class_: str = "", anchor: Optional[str] = None) -> Markup:
    return tag("text", content, x=float(x), y=float(y), class_=class_ or None, text_anchor=anchor)


def legend(kinds: Iterable[str], mark: str, further: Iterable[tuple[str, str]] = ()) -> Markup:
    """Names beside samples of their marks, `line` or `bar`; `further` are classes of swatches with their words."""
    parts, x = [], 4.0
    for kind in kinds:
        parts += [_sample(kind, mark, x), words(x + 27, 14, wording.broker(kind))]
        x += 27 + _LETTER * len(wording.broker(kind)) + 14
    for class_, name in further:
        parts += [tag("rect", x=x, y=5, width=12, height=10, class_=class_), words(x + 17, 14, name)]
        x += 17 + _LETTER * len(name) + 12
    return tag("g", *parts, class_="legend")


def _sample(kind: str, mark: str, x: float) -> Markup:
    if mark == "line":
        return tag("path", d=f"M{x:g} 10h22", class_=f"line {kind} median")
    return tag("rect", x=x, y=5, width=22, height=10, class_=f"bar {kind}")


def median_line(rounds: Iterable[Points]) -> Points:
    """The median over the rounds, where all of them have something to say."""
    full = [points for points in rounds if points]
    if not full:
        return []
    low, high = max(points[0][0] for points in full), min(points[-1][0] for points in full)
    places = sorted({x for points in full for x, _ in points if low <= x <= high})
    return [(x, median(value_at(points, x) for points in full)) for x in places]


def value_at(points: Points, x: float) -> Optional[float]:
    """On the line through `points`; None beside it."""
    if not points or not points[0][0] <= x <= points[-1][0]:
        return None
    after = bisect.bisect_left(points, x, key=lambda point: point[0])
    (right, above) = points[after]
    if right == x:
        return above
    (left, below) = points[after - 1]
    return below + (above - below) * (x - left) / (right - left)


def _path(points: Points, chart: Lines, class_: str) -> Optional[Markup]:
    """A line, or a dot where one point is all there is."""
    placed = [(_x(chart, x), _y(chart, y)) for x, y in points]
    if len(placed) == 1:
        return tag("circle", cx=placed[0][0], cy=placed[0][1], r=3, class_=class_.replace("line", "dot"))
    shape = "L".join(f"{x:.1f} {y:.1f}" for x, y in placed)
    return tag("path", d=f"M{shape}", class_=class_) if placed else None


def _x(chart: Lines, value: float) -> float:
    return _LEFT + chart.x.at(value) * (WIDTH - _LEFT - _RIGHT)


def _y(chart: Lines, value: float) -> float:
    top, bottom = LEGEND_HEIGHT + 16, _HEIGHT - _BOTTOM
    return bottom - chart.y.at(value) * (bottom - top)


def _grid(chart: Lines) -> Markup:
    right, top, bottom = WIDTH - _RIGHT, LEGEND_HEIGHT + 16, _HEIGHT - _BOTTOM
    parts = [words(4, LEGEND_HEIGHT + 8, chart.y_label, "axis")]
    for value, label in chart.y.ticks:
        y = _y(chart, value)
        parts += [
            tag("path", d=f"M{_LEFT} {y:.1f}H{right}", class_="grid"),
            words(_LEFT - 5, y + 4, label, "axis", "end"),
        ]
    for value, label in chart.x.ticks:
        x = _x(chart, value)
        # The outermost labels would stick out of the drawing.
        anchor = "end" if x > right - 12 else "middle"
        parts += [
            tag("path", d=f"M{x:.1f} {top}V{bottom}", class_="grid"),
            words(x, bottom + 15, label, "axis", anchor),
        ]
    return tag("g", *parts, words((_LEFT + right) / 2, _HEIGHT - 5, chart.x_label, "axis", "middle"))


def _readouts(chart: Lines, medians: list[tuple[str, Points]]) -> list[Markup]:
    """Columns side by side, each up to the middle between it and the next."""
    columns = sorted({x for x in chart.columns if chart.x.low <= x <= chart.x.high})
    places = [_x(chart, x) for x in columns]
    edges = [_LEFT, *((a + b) / 2 for a, b in zip(places, places[1:])), WIDTH - _RIGHT]
    top, bottom = LEGEND_HEIGHT + 16, _HEIGHT - _BOTTOM
    found = []
    for place, value, left, right in zip(places, columns, edges, edges[1:]):
        there = [(kind, value_at(points, value)) for kind, points in medians]
        said = [(kind, y) for kind, y in there if y is not None]
        if said:
            hit = tag("rect", x=left, y=top, width=right - left, height=bottom - top, class_="hit")
            found.append(tag("g", hit, _readout(chart, place, value, said), class_="column"))
    return found


def _readout(chart: Lines, place: float, value: float, said: list[tuple[str, float]]) -> Markup:
    rows = [chart.say_x(value), *(f"{wording.broker(kind)} {chart.say_y(y)}" for kind, y in said)]
    width, height = _LETTER * max(map(len, rows)) + 14, _LINE_HEIGHT * len(rows) + 8
    top, bottom = LEGEND_HEIGHT + 16, _HEIGHT - _BOTTOM
    x = place + 8 if place + 8 + width < WIDTH else place - 8 - width
    dots = [tag("circle", cx=place, cy=_y(chart, y), r=3.5, class_=f"dot {kind}") for kind, y in said]
    return tag(
        "g",
        tag("path", d=f"M{place:.1f} {top}V{bottom}", class_="cursor"),
        *dots,
        tag("rect", x=x, y=top + 4, width=width, height=height, rx=4, class_="box"),
        *(words(x + 7, top + 4 + _LINE_HEIGHT * (n + 1), row, "head" if n == 0 else "") for n, row in enumerate(rows)),
        class_="read",
    )


def _description(chart: Lines, medians: list[tuple[str, Points]]) -> str:
    """The medians at both ends, in words."""
    said = []
    for kind, points in medians:
        if points:
            (first, low), (last, high) = points[0], points[-1]
            ends = f"{chart.say_y(low)} at {chart.say_x(first)}, {chart.say_y(high)} at {chart.say_x(last)}"
            said.append(f"{wording.broker(kind)}: {ends}")
    return f"{'; '.join(said)}."
