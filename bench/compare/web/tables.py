"""The page's tables: rows, workloads round by round, limits, other clients, configurations."""

from typing import Iterable, Optional

from web import bars, drawings, wording
from web.lookup import at, entries, median, number, numbers, objects, text
from web.markup import Markup, joined, tag
from web.wording import figure

_MARKS = {True: ("met", "✓ met"), False: ("missed", "✗ missed")}


def rows_table(rows: list[dict], caption: str) -> Optional[Markup]:
    """The figures of both brokers with what was asked for. On a narrow page each row becomes a card."""
    heads = ("Measured", "Heizer", "Apache Kafka", "Heizer has", "Floor", "Limit", "Rounds", "")
    return table(caption, heads, [_row(row) for row in rows], "rows") if rows else None


def _row(row: dict) -> list[Markup]:
    unit, better = text(row, "unit"), drawings.better_of(row)
    ratio = drawings.ratio_of(row)
    comparison = wording.compared(ratio, better)
    floor = wording.floor(text(row, "floor"))
    asked = [floor.words, small("of Kafka's" if floor.ratio is not None else "", "near")]
    strip = bars.strip({kind: numbers(row, f"{kind}_rounds") for kind in drawings.BROKERS})
    return [
        joined(drawings.words_of(row), small(text(row, "name"), "code")),
        *(_value(row, kind, unit) for kind in drawings.BROKERS),
        joined(
            tag("span", comparison.words, class_=comparison.verdict or None),
            small(f"ratio {figure(ratio)}{_judgement(comparison)}" if ratio is not None else "", "near"),
        ),
        joined(*asked),
        _limit(row, better),
        strip or joined(wording.NONE),
        _mark(row),
    ]


def _judgement(comparison: wording.Comparison) -> str:
    """Which side is the good one must not be told by colour alone."""
    return f", {comparison.verdict}" if comparison.verdict in ("better", "worse") else ""


def _value(row: dict, kind: str, unit: str) -> Markup:
    value = number(row, kind)
    if value is None:
        return joined(wording.NONE)
    spread = wording.spread(numbers(row, f"{kind}_rounds"))
    return joined(tag("b", figure(value)), " ", tag("span", unit, class_="unit"), small(spread))


def _limit(row: dict, better: str) -> Markup:
    """The physical limit, and how near Heizer has come to it."""
    limit, heizer = number(row, "limit"), number(row, "heizer")
    if limit is None:
        return joined(wording.NONE)
    near = ""
    if limit > 0 and heizer:
        near = (
            f"Heizer at {heizer / limit * 100:.0f} %" if better == "higher" else f"Heizer at {figure(heizer / limit)}×"
        )
    return joined(figure(limit), small(near), small(text(row, "limit_what")))


def _mark(row: dict) -> Markup:
    class_, said = _MARKS.get(at(row, "met")) if isinstance(at(row, "met"), bool) else ("", "")
    if not said and text(row, "floor"):
        said = "not judged"
    return tag("span", said, class_=f"mark {class_}".strip())


def small(content: str, class_: str = "") -> Optional[Markup]:
    """A line below a figure; none without content."""
    return tag("small", content, class_=class_ or None) if content else None


def table(caption: str, heads: Iterable[str], rows: Iterable[list], class_: str = "") -> Markup:
    """The first cell of a row names it. Roles are given because the narrow page lays rows out as blocks."""
    heads = list(heads)
    head = tag("tr", *(tag("th", name, scope="col", role="columnheader") for name in heads), role="row")
    body = []
    for cells in rows:
        first = tag("th", cells[0], scope="row", role="rowheader")
        rest = (tag("td", cell, role="cell", data_label=name) for name, cell in zip(heads[1:], cells[1:]))
        body.append(tag("tr", first, *rest, role="row"))
    parts = (tag("thead", head, role="rowgroup"), tag("tbody", *body, role="rowgroup"))
    drawn = tag("table", tag("caption", caption) if caption else None, *parts, class_=class_ or None, role="table")
    return tag("div", drawn, class_="scroll", tabindex=0, role="region", aria_label=caption or "table")


# As columns, and as the report calls them.
_LATENCIES = (("p50", "p50"), ("p90", "p90"), ("p99", "p99"), ("p99.9", "p99_9"), ("p99.99", "p99_99"), ("max", "max"))


def latency_table(workload: dict, key: str) -> Optional[Markup]:
    """The medians of the rounds, for those who cannot or will not read them off the chart."""
    rows = []
    for kind in drawings.kinds(workload):
        found = [entries(one, key) for one in drawings.results(workload, kind) if number(one, key, "count")]
        if found:
            rows.append([wording.broker(kind), *(_milliseconds(found, name) for _, name in _LATENCIES)])
    return table("", ["ms", *(name for name, _ in _LATENCIES)], rows, "figures") if rows else None


def _milliseconds(rounds: list[dict], name: str) -> str:
    middle = median(number(one, name) for one in rounds)
    return figure(None if middle is None else middle / 1000)


_ROUND_HEADS = (
    "Broker", "Round", "Produced", "records/s", "Consumed", "Acks p50", "p99", "p99.9", "max", "End to end p50", "p99",
    "p99.9", "max", "Broker CPU", "of it kernel", "Resident", "Written", "Client CPU", "Checked",
)  # fmt: skip


def rounds_table(workload: dict) -> Markup:
    """Everything the load generator said, a line a round."""
    rows = []
    for one in objects(workload, "rounds"):
        rows.append([wording.broker(text(one, "broker")), text(one, "round"), *_round(entries(one, "result"))])
    return table("Round by round", _ROUND_HEADS, rows, "figures")


def _round(result: dict) -> list[str]:
    broker, client = entries(result, "broker"), entries(result, "client_cpu")
    rate = lambda *path: _with_unit(number(result, *path) or None, "MB/s")  # noqa: E731
    latencies = []
    for key in ("ack_latency_us", "end_to_end_us"):
        there = number(result, key, "count")
        for name in ("p50", "p99", "p99_9", "max"):
            latencies.append(wording.duration(number(result, key, name)) if there else wording.NONE)
    return [
        rate("produced", "mb_per_s"),
        figure(number(result, "produced", "records_per_s")),
        rate("consumed", "mb_per_s"),
        *latencies,
        _seconds(broker, "user_s", "kernel_s"),
        _seconds(broker, "kernel_s"),
        _with_unit(number(broker, "resident_max_mib"), "MiB"),
        wording.size(number(broker, "write_bytes")),
        _seconds(client, "user_s", "kernel_s"),
        _checked(entries(result, "verified")),
    ]


def _seconds(used: dict, *keys: str) -> str:
    found = [number(used, key) for key in keys]
    return wording.NONE if None in found else f"{figure(sum(found))} s"


def _with_unit(value: Optional[float], unit: str) -> str:
    return wording.NONE if value is None else f"{figure(value)} {unit}"


FAULTS = ("corrupt", "out_of_order", "duplicates", "missing", "unread")


def _checked(verified: dict) -> str:
    wrong = [f"{figure(number(verified, key))} {key.replace('_', ' ')}" for key in FAULTS if number(verified, key)]
    return ", ".join(wrong) or figure(number(verified, "records"))


def limits_table(report: dict) -> Optional[Markup]:
    rows = [[text(one, "name"), figure(number(one, "value")), text(one, "unit")] for one in objects(report, "limits")]
    caption = "What the machine itself can do, measured in the same run"
    return table(caption, ("Limit", "Value", "Unit"), rows, "figures") if rows else None


def neutral_table(report: dict) -> Optional[Markup]:
    """Each client's figures, and last what the own load generator found for the same row."""
    rows, found = objects(report, "rows"), []
    for one in objects(report, "neutral"):
        same = next((row for row in rows if text(row, "name") == text(one, "name")), {})
        better = drawings.better_of(one, rows)
        found.append([
            joined(drawings.words_of(same) or text(one, "name"), small(text(one, "client"))),
            *(_with_unit(number(one, kind), text(one, "unit")) for kind in drawings.BROKERS),
            _comparison(drawings.ratio_of(one), better),
            _comparison(drawings.ratio_of(same), better),
        ])  # fmt: skip
    heads = ("Measured by", "Heizer", "Apache Kafka", "Heizer has", "Our own client")
    return table("The same brokers through other clients", heads, found, "rows") if found else None


def _comparison(ratio: Optional[float], better: str) -> Markup:
    said = wording.compared(ratio, better)
    return tag("span", f"{said.words}{_judgement(said)}", class_=said.verdict or None)


def configuration(report: dict, kind: str) -> Optional[Markup]:
    """Every setting in force of one broker, and how it was started."""
    settings = entries(report, "configurations", kind)
    line = text(report, "configurations", "command_lines", kind)
    if not settings and not line:
        return None
    rows = [[name, str(value)] for name, value in sorted(settings.items())]
    return joined(
        tag("h3", wording.broker(kind)),
        tag("pre", line) if line else None,
        table(f"{len(rows)} settings", ("Setting", "Value"), rows, "settings") if rows else None,
    )
