"""Which charts a report can fill, and with what. A chart whose figures are missing is None."""

import re
from typing import Iterable, Optional

from web import axis, bars, wording
from web.chart import Lines, Points, Series, lines
from web.lookup import entries, median, number, numbers, objects, text
from web.markup import Markup

BROKERS = ("heizer", "kafka")
_PERCENTILES = (50, 75, 90, 95, 99, 99.5, 99.9, 99.95, 99.99, 99.995, 99.999)
# A timeline has at most so many points and columns to read off; a second of an hour is not to be seen.
_POINTS_MAX, _COLUMNS_MAX = 240, 60
_STARTING = re.compile(r"(^|-)(start|restart|create)(-|$)")


def results(workload: dict, kind: str) -> list[dict]:
    """What the load generator said about one broker, round by round."""
    return [entries(one, "result") for one in objects(workload, "rounds") if text(one, "broker") == kind]


def kinds(workload: dict) -> list[str]:
    """The brokers it ran against: Heizer and Kafka first."""
    named = dict.fromkeys(text(one, "broker") for one in objects(workload, "rounds"))
    return [kind for kind in BROKERS if kind in named] + [kind for kind in named if kind and kind not in BROKERS]


def open_loop(workload: dict) -> bool:
    """Whether the rate was given; latency at full speed says more about the queue than about the broker."""
    settings = [entries(one, "workload") for kind in kinds(workload) for one in results(workload, kind)]
    return any((number(group, "rate") or 0) > 0 for one in settings for group in objects(one, "producers"))


def curve(latency: dict) -> Points:
    """(percentile, milliseconds), ascending; from the five figures where no curve was kept."""
    pairs = latency.get("curve")
    found = [numbers(pair) for pair in pairs if isinstance(pair, list)] if isinstance(pairs, list) else []
    if not found:
        named = {50.0: "p50", 90.0: "p90", 99.0: "p99", 99.9: "p99_9", 99.99: "p99_99"}
        found = [[at, number(latency, key)] for at, key in named.items()] if number(latency, "count") else []
    points = {pair[0]: pair[1] / 1000 for pair in found if len(pair) == 2 and pair[1] is not None and pair[1] > 0}
    return sorted((at, value) for at, value in points.items() if axis.LOWEST_PERCENTILE <= at < 100)


def latency(workload: dict, key: str, what: str) -> Optional[Markup]:
    """Latency by percentile: `key` is ack_latency_us or end_to_end_us."""
    series = [
        Series(kind, tuple(filter(None, (curve(entries(one, key)) for one in results(workload, kind)))))
        for kind in kinds(workload)
    ]
    return _lines_of(
        f"{what}: {title_of(workload)}",
        series,
        lambda every: axis.percentiles(max(x for x, _ in every)),
        x_label="percentile",
        y_label="ms",
        columns=_PERCENTILES,
        say_x=wording.percentile,
        say_y=lambda value: wording.duration(value * 1000),
    )


def over_time(workload: dict, key: str, what: str, unit: str, *, decades: bool = False) -> Optional[Markup]:
    """A figure of the timeline, second by second; `decades` puts it on a logarithmic scale."""
    series = []
    for kind in kinds(workload):
        rounds = (_timeline(one, key, decades, _in_minutes(workload)) for one in results(workload, kind))
        series.append(Series(kind, tuple(points for points in rounds if any(value for _, value in points))))
    places = sorted({x for one in series for points in one.rounds for x, _ in points})
    unit_of_time = "minute" if _in_minutes(workload) else "second"
    return _lines_of(
        f"{what} over time: {title_of(workload)}",
        series,
        lambda every: axis.linear([x for x, _ in every], exact=True),
        x_label=f"{unit_of_time}s",
        y_label=f"{what}, {unit}",
        columns=places[:: -(-len(places) // _COLUMNS_MAX) or 1],
        say_x=lambda value: f"{unit_of_time} {wording.figure(value)}",
        say_y=lambda value: f"{wording.figure(value)} {unit}",
        decades=decades,
        dense=True,
    )


def longest(workload: dict) -> int:
    """How many seconds the longest timeline of a workload has."""
    every = [one for kind in kinds(workload) for one in results(workload, kind)]
    return max((len(objects(one, "timeline")) for one in every), default=0)


def _lines_of(title: str, series: list[Series], x_axis, decades: bool = True, **of_chart) -> Optional[Markup]:
    """The chart, unless there is nothing to draw."""
    filled = tuple(one for one in series if one.rounds)
    every = [point for one in filled for points in one.rounds for point in points]
    if not every:
        return None
    y_axis = (axis.logarithmic if decades else axis.linear)([y for _, y in every])
    return lines(Lines(title=title, series=filled, x=x_axis(every), y=y_axis, **of_chart))


def _in_minutes(workload: dict) -> bool:
    return longest(workload) >= 600


def _timeline(result: dict, key: str, highest: bool, minutes: bool) -> Points:
    """One figure by the second; of each stretch of a long one the mean, or the highest where that is what matters."""
    scale, pace = 0.001 if key.endswith("_us") else 1.0, 60 if minutes else 1
    found = [(number(one, "s"), number(one, key)) for one in objects(result, "timeline")]
    points = sorted(
        (second / pace, value * scale) for second, value in found if second is not None and value is not None
    )
    if highest:
        # A second in which nothing was answered has no latency.
        points = [point for point in points if point[1] > 0]
    width = -(-len(points) // _POINTS_MAX)
    stretches = [points[first : first + width] for first in range(0, len(points), width)] if points else []
    pick = max if highest else (lambda values: sum(values) / len(values))
    return [(stretch[-1][0], pick([value for _, value in stretch])) for stretch in stretches]


def title_of(workload: dict) -> str:
    return text(workload, "title") or text(workload, "name")


def words_of(row: dict) -> str:
    said = text(row, "what") or text(row, "name")
    return said[:1].upper() + said[1:]


def bar_charts(report: dict) -> list[tuple[str, Markup]]:
    """The rows that are best seen side by side: one chart for each subject and unit, with its name."""
    rows = [row for row in objects(report, "rows") if number(row, "heizer") is not None]
    units = [text(row, "unit") for row in rows]
    subjects = {}
    for row, unit in zip(rows, units):
        if subject := _subject(row, unit):
            subjects.setdefault((subject, unit), []).append(_group(row, report))
    found = []
    for (subject, unit), groups in sorted(subjects.items(), key=_order):
        name = f"{subject}, {unit}"
        found.append((name, bars.bars(name, unit, groups)))
    return found


_SUBJECTS = ("Throughput", "Broker CPU", "Resident memory", "Start and restart")


def _order(item) -> int:
    (subject, _), _ = item
    return _SUBJECTS.index(subject)


def _subject(row: dict, unit: str) -> Optional[str]:
    if unit.startswith("CPU s"):
        return "Broker CPU"
    if unit in ("MB/s", "GB/s"):
        return "Throughput"
    if unit in ("MiB", "GiB", "MB"):
        return "Resident memory"
    if unit in ("s", "ms") and _STARTING.search(text(row, "name")):
        return "Start and restart"
    return None


def _group(row: dict, report: dict) -> bars.Group:
    drawn = []
    for kind in BROKERS:
        value = number(row, kind)
        if value is not None and value >= 0:
            rounds = tuple(one for one in numbers(row, f"{kind}_rounds") if one >= 0)
            drawn.append(bars.Bar(kind, value, rounds, kernel_share(row, report, kind)))
    limit = number(row, "limit")
    return bars.Group(words_of(row), tuple(drawn), limit if limit and limit > 0 else None, text(row, "limit_what"))


def kernel_share(row: dict, report: dict, kind: str) -> Optional[float]:
    """Of the CPU time behind a row: as counted in its workload, which it names or whose name its own begins with."""
    if not text(row, "unit").startswith("CPU s"):
        return None
    name = text(row, "workload") or text(row, "name")
    named = [one for one in objects(report, "workloads") if _begins(name, text(one, "name"))]
    if not named:
        return None
    workload = max(named, key=lambda one: len(text(one, "name")))
    return median(_kernel_share(entries(one, "broker")) for one in results(workload, kind))


def _begins(name: str, workload: str) -> bool:
    return bool(workload) and (name == workload or name.startswith(f"{workload}-"))


def _kernel_share(used: dict) -> Optional[float]:
    user, kernel = number(used, "user_s"), number(used, "kernel_s")
    if user is None or kernel is None or min(user, kernel) < 0 or user + kernel == 0:
        return None
    return kernel / (user + kernel)


def better_of(row: dict, rows: Iterable[dict] = ()) -> str:
    """Which side is the good one: as the row says, or the row of the same name, or else its unit."""
    same = [one for one in rows if text(one, "name") == text(row, "name")]
    said = [text(one, "better") for one in (row, *same) if text(one, "better") in ("lower", "higher")]
    return said[0] if said else ("higher" if re.search(r"(B|records|requests)/s$", text(row, "unit")) else "lower")


def ratio_of(row: dict) -> Optional[float]:
    """As reported, or of the two figures where the report left it out."""
    heizer, kafka = number(row, "heizer"), number(row, "kafka")
    said = number(row, "ratio")
    return said if said is not None else (heizer / kafka if heizer is not None and kafka else None)


def _times_better(ratio: Optional[float], better: str) -> Optional[float]:
    if ratio is None or ratio <= 0:
        return None
    return ratio if better == "higher" else 1 / ratio


def overview(report: dict) -> Optional[Markup]:
    """How many times better Heizer is in each row that has to reach something, and how much was asked for."""
    found = []
    for row in objects(report, "rows"):
        ours = _times_better(ratio_of(row), better_of(row))
        if ours is not None and row.get("design") is True:
            needed = _times_better(wording.floor(text(row, "floor")).ratio, better_of(row))
            found.append(bars.Advantage(words_of(row), ours, needed))
    return bars.advantages("How many times better than Apache Kafka", found) if found else None


def neutral(report: dict) -> Optional[Markup]:
    """What other clients find beside what ours does, as ratios."""
    rows = objects(report, "rows")
    clients = neutral_clients(report)
    by_name = {}
    for one in objects(report, "neutral"):
        times = _times_better(ratio_of(one), better_of(one, rows))
        if times is not None:
            mark = f"client-{clients.index(text(one, 'client')) % 3}"
            by_name.setdefault(text(one, "name"), []).append((mark, text(one, "client"), times))
    found = []
    for name, others in by_name.items():
        same = next((row for row in rows if text(row, "name") == name), {"name": name})
        found.append(
            bars.Advantage(words_of(same), _times_better(ratio_of(same), better_of(same)), None, tuple(others))
        )
    return bars.advantages("How many times better, by other clients", found) if found else None


def neutral_clients(report: dict) -> list[str]:
    return list(dict.fromkeys(text(one, "client") for one in objects(report, "neutral")))


def trends(report: dict, history: list[dict]) -> list[tuple[str, Markup]]:
    """Heizer's value of each row over the runs on this machine, with its name; none as long as there is one run."""
    runs = runs_of(report, history)
    found = []
    for row in objects(report, "rows"):
        values = []
        for run in runs:
            same = next((one for one in objects(run, "rows") if text(one, "name") == text(row, "name")), {})
            value = number(same, "heizer")
            if value is not None and text(same, "unit") == text(row, "unit"):
                name = f"{_short_commit(run)} {text(run, 'date')} {text(run, 'mode')}"
                values.append(bars.Run(name, value, text(run, "mode") == "quick"))
        if len(values) > 1:
            name = f"{words_of(row)} ({text(row, 'name')}), {text(row, 'unit')}"
            found.append((name, bars.trend(name, text(row, "unit"), values)))
    return found


def _short_commit(run: dict) -> str:
    """Without what may follow it: that the work tree was dirty."""
    return re.split(r"\W", text(run, "commit"))[0][:9] or "unknown"


def runs_of(report: dict, history: list[dict]) -> list[dict]:
    """This run and the earlier ones on the same processor, oldest first; a run counts once."""
    machine = lambda run: (text(run, "machine", "cpu"), text(run, "machine", "cpus"))  # noqa: E731
    by_run = {(text(run, "date"), text(run, "commit")): run for run in [*history, report] if isinstance(run, dict)}
    return sorted(
        (run for run in by_run.values() if machine(run) == machine(report)), key=lambda run: text(run, "date")
    )
