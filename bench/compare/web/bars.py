"""Bars, ratios on a line, strips of rounds and small trends as SVG; see chart.py."""

import math
import textwrap
from dataclasses import dataclass, field
from typing import Optional

from web import axis, wording
from web.chart import LEGEND_HEIGHT, WIDTH, legend, svg, words
from web.lookup import median
from web.markup import Markup, tag

_LETTERS = 60
_LINE_HEIGHT = 15
_BAR_HEIGHT = 14
# Right of the longest bar, for its figure; and what a short one takes.
_FIGURES, _FIGURE = 84, 46


@dataclass(frozen=True)
class Bar:
    """`kernel` is the share of the value that was spent in the kernel, where that is known."""

    kind: str
    value: float
    rounds: tuple[float, ...] = ()
    kernel: Optional[float] = None


@dataclass(frozen=True)
class Group:
    """One row of the report: its brokers' bars, and what the machine cannot be pushed beyond."""

    label: str
    bars: tuple[Bar, ...]
    limit: Optional[float] = None
    limit_label: str = ""


def bars(title: str, unit: str, groups: list[Group]) -> Markup:
    """All bars on one scale from nothing, with the reach of the rounds; the dashed line is a limit."""
    most = max([0.0, *(group.limit or 0 for group in groups)])
    most = max([most, *(value for group in groups for bar in group.bars for value in (bar.value, *bar.rounds))])
    scale = (WIDTH - _FIGURES) / (most or 1)
    y, drawn, kinds = LEGEND_HEIGHT + 4.0, [], {}
    for group in groups:
        parts, y = _group(group, unit, y, scale)
        drawn += parts
        kinds.update({bar.kind: None for bar in group.bars})
    split = any(bar.kernel is not None for group in groups for bar in group.bars)
    swatches = [("swatch", "user"), ("swatch kernel", "kernel")] if split else []
    return svg(title, _said(groups, unit), y, legend(kinds, "bar", swatches), *drawn)


def _group(group: Group, unit: str, y: float, scale: float) -> tuple[list[Markup], float]:
    """The drawing of one group from `y` on, and where it ends."""
    parts = []
    for line in textwrap.wrap(group.label, _LETTERS):
        y += _LINE_HEIGHT
        parts.append(words(0, y - 3, line, "label"))
    top = y + 1
    y = top
    for bar in group.bars:
        parts += _bar(bar, unit, y, scale)
        y += _BAR_HEIGHT + 3
    if group.limit is not None:
        x = group.limit * scale
        parts.append(tag("path", d=f"M{x:.1f} {top - 1:.1f}V{y:.1f}", class_="limit"))
        said = f"limit {wording.figure(group.limit)}" + (f": {group.limit_label}" if group.limit_label else "")
        for line in textwrap.wrap(said, _LETTERS + 4):
            y += _LINE_HEIGHT - 2
            parts.append(words(0, y - 2, line, "axis"))
    return parts, y + 10


def _bar(bar: Bar, unit: str, y: float, scale: float) -> list[Markup]:
    length = bar.value * scale
    said = f"{wording.broker(bar.kind)}: {wording.figure(bar.value)} {unit}"
    if bar.kernel is not None:
        said += f", {bar.kernel * 100:.0f} % of it in the kernel"
    user = length * (1 - (bar.kernel or 0))
    parts = [tag("rect", tag("title", said), x=0, y=y, width=user, height=_BAR_HEIGHT, class_=f"bar {bar.kind}")]
    if bar.kernel is not None:
        shape = {"x": user, "y": y, "width": length - user, "height": _BAR_HEIGHT}
        parts.append(tag("rect", tag("title", said), **shape, class_=f"bar {bar.kind} kernel"))
    if len(bar.rounds) > 1:
        middle, least, most = y + _BAR_HEIGHT / 2, min(bar.rounds) * scale, max(bar.rounds) * scale
        ends = "".join(f"M{x:.1f} {middle - 3:.1f}v6" for x in (least, most))
        parts.append(tag("path", d=f"M{least:.1f} {middle:.1f}H{most:.1f}{ends}", class_="rounds"))
    end = max([bar.value, *bar.rounds]) * scale
    return [*parts, words(end + 5, y + _BAR_HEIGHT - 3, wording.figure(bar.value), "value")]


def _said(groups: list[Group], unit: str) -> str:
    return "; ".join(
        f"{group.label}: "
        + ", ".join(f"{wording.broker(bar.kind)} {wording.figure(bar.value)} {unit}" for bar in group.bars)
        for group in groups
    )


@dataclass(frozen=True)
class Advantage:
    """How many times better Heizer is in one row; `others` are (class of the mark, who says so, how many times)."""

    label: str
    ours: Optional[float]
    needed: Optional[float] = None
    others: tuple[tuple[str, str, float], ...] = field(default=())


def advantages(title: str, rows: list[Advantage]) -> Markup:
    """A dot a row on a scale of ratios: right of 1 Heizer is better, the upright mark is what was asked for."""
    every = [row.ours for row in rows] + [row.needed for row in rows] + [n for row in rows for _, _, n in row.others]
    scale = axis.factors(value for value in every if value is not None)
    # Room for a figure at either end.
    place = lambda value: 34 + scale.at(value) * (WIDTH - 68)  # noqa: E731
    drawn = [words(place(1) + 6, 10, "Heizer better →", "axis"), words(place(1) - 6, 10, "← worse", "axis", "end")]
    top = y = 18.0
    for row in rows:
        for line in textwrap.wrap(row.label, _LETTERS):
            y += _LINE_HEIGHT
            drawn.append(words(0, y - 2, line, "label"))
        y += 12
        drawn += _advantage(row, place, y)
        y += 12
    grid = [tag("path", d=f"M{place(v):.1f} {top}V{y:.1f}", class_="one" if v == 1 else "grid") for v, _ in scale.ticks]
    labels = [words(place(value), y + 14, label, "axis", "middle") for value, label in scale.ticks]
    said = "; ".join(f"{row.label}: {wording.times(row.ours)}" for row in rows if row.ours)
    return svg(title, said, y + 20, *grid, *drawn, *labels)


def _advantage(row: Advantage, place, y: float) -> list[Markup]:
    parts = []
    if row.ours is not None:
        parts.append(tag("path", d=f"M{place(1):.1f} {y:.1f}H{place(row.ours):.1f}", class_="line heizer median"))
    if row.needed is not None:
        asked = tag("title", f"asked for: {wording.times(row.needed)}")
        parts.append(tag("path", asked, d=f"M{place(row.needed):.1f} {y - 8:.1f}v16", class_="needed"))
    for class_, who, value in row.others:
        x = place(value)
        diamond = f"M{x:.1f} {y - 5.5:.1f}l5.5 5.5l-5.5 5.5l-5.5 -5.5z"
        parts.append(tag("path", tag("title", f"{who}: {wording.times(value)}"), d=diamond, class_=f"diamond {class_}"))
    if row.ours is not None:
        dot = tag("title", f"{row.label}: {wording.times(row.ours)}")
        parts.append(tag("circle", dot, cx=place(row.ours), cy=y, r=5, class_="dot heizer"))
        parts.append(_beside(row, place, y))
    return parts


def _beside(row: Advantage, place, y: float) -> Markup:
    """The figure at the dot, away from 1, and beyond marks that it would cover."""
    side = 1 if row.ours >= 1 else -1
    marks = [] if row.needed is None else [place(row.needed)]
    marks += [place(value) for _, _, value in row.others]
    x = place(row.ours)
    for mark in sorted(marks, key=lambda mark: mark * side):
        if 0 < (mark - x) * side < _FIGURE:
            x = mark
    return words(x + 9 * side, y + 4, wording.times(row.ours), "value", "start" if side == 1 else "end")


def strip(rounds: dict[str, list[float]]) -> Optional[Markup]:
    """Every round of both brokers on one logarithmic line, without figures: they stand beside it."""
    shown = {kind: [value for value in values if value > 0] for kind, values in rounds.items()}
    every = [value for values in shown.values() for value in values]
    if not every:
        return None
    least, most = min(every), max(every)
    scale = axis.Axis(least / 1.2, most * 1.2, (), math.log10)
    parts = []
    for lane, (kind, values) in enumerate(shown.items()):
        y = 8 + 12 * lane
        parts.append(tag("path", d=f"M4 {y}H116", class_="grid"))
        for value in values:
            name = tag("title", f"{wording.broker(kind)}: {wording.figure(value)}")
            x = 4 + scale.at(value) * 112
            if kind == "heizer":
                parts.append(tag("circle", name, cx=x, cy=y, r=3.5, class_=f"dot {kind}"))
            else:
                parts.append(tag("rect", name, x=x - 3, y=y - 3, width=6, height=6, class_=f"dot {kind}"))
    kinds = ", ".join(f"{wording.broker(kind)} {len(values)}" for kind, values in shown.items())
    return svg("Rounds on a logarithmic line", f"Rounds: {kinds}", 28, *parts, width=120)


@dataclass(frozen=True)
class Run:
    """One value of a trend: of which run, and whether of a quick one."""

    name: str
    value: float
    quick: bool


def trend(title: str, unit: str, runs: list[Run]) -> Markup:
    """Heizer's value run by run, from nothing up."""
    width, height, left, right, top, bottom = 240, 96, 8, 52, 10, 80
    scale = axis.linear([run.value for run in runs])
    step = (width - left - right) / max(1, len(runs) - 1)
    place = lambda n, value: (left + n * step, bottom - scale.at(value) * (bottom - top))  # noqa: E731
    parts = [tag("path", d=f"M{left} {bottom}H{width - right}", class_="grid")]
    points = [place(n, run.value) for n, run in enumerate(runs)]
    parts.append(tag("path", d="M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points), class_="line heizer median"))
    for (x, y), run in zip(points, runs):
        name = tag("title", f"{run.name}: {wording.figure(run.value)} {unit}")
        parts.append(tag("circle", name, cx=x, cy=y, r=3.5, class_="dot heizer" + (" hollow" if run.quick else "")))
    x, y = points[-1]
    parts.append(words(x + 7, y + 4, wording.figure(runs[-1].value), "value"))
    parts += [words(left, height - 3, runs[0].name.split(" ")[0], "axis")]
    parts += [words(width - right, height - 3, runs[-1].name.split(" ")[0], "axis", "end")]
    middle = wording.figure(median(run.value for run in runs))
    said = f"{len(runs)} runs, median {middle} {unit}, last {wording.figure(runs[-1].value)} {unit}"
    return svg(title, said, height, *parts, width=width)
