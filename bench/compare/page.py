#!/usr/bin/env python3
"""Makes one HTML page of a report, with its charts, for somebody who has to decide whether to trust it.

The page stands by itself: no script, no font, nothing from the network. `bench/compare/page.py REPORT PAGE` makes it
of a report.json; earlier runs come from the folder `history` beside that file.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Iterable, Optional

sys.path.insert(0, str(Path(__file__).resolve().parent))

from web import drawings, tables, wording  # noqa: E402
from web.lookup import at, entries, number, objects, text  # noqa: E402
from web.markup import Markup, joined, tag  # noqa: E402

_STYLE = Path(__file__).resolve().parent / "web" / "page.css"
# The browser itself holds the page to loading nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def main() -> None:
    options = parse()
    report = read(options.report)
    folder = options.history or options.report.parent / "history"
    history = [read(path) for path in sorted(folder.glob("*.json"))]
    try:
        write(report, history, options.page)
    except OSError as failure:
        raise SystemExit(f"page: {options.page}: cannot be written: {failure.strerror}") from None


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, metavar="REPORT", help="the report.json of a run")
    parser.add_argument("page", type=Path, metavar="PAGE", help="the HTML file to write")
    parser.add_argument("--history", type=Path, metavar="DIR", help="earlier reports [default: history beside REPORT]")
    return parser.parse_args()


def read(path: Path) -> dict:
    """A report out of a file; ends the program with one line where there is none."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except OSError as failure:
        raise SystemExit(f"page: {path}: cannot be read: {failure.strerror}") from None
    except (ValueError, RecursionError) as failure:
        raise SystemExit(f"page: {path}: is not JSON: {failure}") from None
    if not isinstance(report, dict):
        raise SystemExit(f"page: {path}: is not a report: an object is expected")
    return report


def write(report: dict, history: list[dict], path: Path) -> None:
    """Writes the page of `report`; of `history`, the earlier runs, those on the same processor are drawn as trends."""
    path.write_text(document(report, history), encoding="utf-8")


def document(report: dict, history: list[dict]) -> str:
    """The page. What the report lacks is left out."""
    title = _title(report)
    sections = [
        _figures(report),
        _latency(report),
        _section(
            "Throughput, processor time, memory",
            "resources",
            _grid(_named(drawings.bar_charts(report))),
            note=_BARS_NOTE,
        ),
        _over_time(report),
        _neutral(report),
        _history(report, history),
        _workloads(report),
        _section("How it is measured", "method", _list(_METHOD)),
        _section("Notes of this run", "notes", _list(_notes(report))),
        _section("Limits of this machine", "limits", tables.limits_table(report)),
        _configurations(report),
    ]
    shown = [section for section in sections if section is not None]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Markup(_STYLE.read_text(encoding="utf-8"))),
    )
    body = tag("body", _header(report, title), tag("main", *shown))
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _title(report: dict) -> str:
    """What was measured, against what, where there was something."""
    versions = entries(report, "machine", "versions")
    heizer, kafka = (f"{wording.broker(kind)} {text(versions, kind)}".strip() for kind in drawings.BROKERS)
    compared = any(number(row, "kafka") is not None for row in objects(report, "rows"))
    return f"{heizer} against {kafka}" if compared else heizer


def _header(report: dict, title: str) -> Markup:
    verdict, missed = judged(report)
    return tag(
        "header",
        tag("h1", title),
        tag("p", verdict, class_="verdict"),
        tag("details", tag("summary", "Missed"), _list(missed), open="") if missed else None,
        tag("p", checked(report)) if checked(report) else None,
        tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in _facts(report) if value)),
    )


def judged(report: dict) -> tuple[str, list[str]]:
    """The verdict in a sentence, and the rows that miss their floor."""
    rows = [row for row in objects(report, "rows") if text(row, "floor")]
    met = [row for row in rows if at(row, "met") is True]
    missed = [f"{drawings.words_of(row)} ({text(row, 'name')})" for row in rows if at(row, "met") is False]
    if not met and not missed:
        return "No floor was judged in this run.", []
    unjudged = len(rows) - len(met) - len(missed)
    rest = f" {unjudged} more could not be judged in this run." if unjudged else ""
    return f"{len(met)} of {len(met) + len(missed)} floors met.{rest}", missed


def checked(report: dict) -> str:
    """How many records the consumers have compared, and what they found."""
    found = [
        entries(one, "verified")
        for workload in objects(report, "workloads")
        for kind in drawings.kinds(workload)
        for one in drawings.results(workload, kind)
    ]
    records = sum(number(one, "records") or 0 for one in found)
    wrong = sum(number(one, key) or 0 for one in found for key in tables.FAULTS)
    if not records:
        return ""
    outcome = f"{wrong:,.0f} of them were wrong" if wrong else "none was lost, doubled, out of order or altered"
    return f"{records:,.0f} records were checked in content and order while measuring: {outcome}."


def _facts(report: dict) -> Iterable[tuple[str, str]]:
    machine = entries(report, "machine")
    memory = number(machine, "memory_gib")
    cpus = text(machine, "cpus")
    yield "Date", text(report, "date").replace("T", " ").replace("Z", " UTC")
    yield "Command", text(report, "command")
    yield "Mode", text(report, "mode")
    yield "Rounds", text(report, "rounds")
    yield "Commit", text(report, "commit")
    yield "Processor", text(machine, "cpu") + (f", {cpus} CPUs" if cpus else "")
    yield "Memory", f"{wording.figure(memory)} GiB" if memory is not None else ""
    yield "Disk", text(machine, "disk")
    yield "Kernel", text(machine, "kernel")
    yield "Java", text(machine, "versions", "java")


def _section(title: str, name: str, *content: Optional[Markup], note: str = "") -> Optional[Markup]:
    """None when nothing has come to stand in it."""
    if all(part is None for part in content):
        return None
    return tag("section", tag("h2", title), tag("p", note, class_="note") if note else None, *content, id=name)


def _grid(figures: Iterable[Optional[Markup]], class_: str = "grid") -> Optional[Markup]:
    there = [figure for figure in figures if figure is not None]
    return tag("div", *there, class_=class_) if there else None


def _named(charts: list[tuple[str, Markup]]) -> list[Markup]:
    return [tag("figure", tag("figcaption", name), chart) for name, chart in charts]


def _list(lines: Iterable[str]) -> Optional[Markup]:
    there = [tag("li", line) for line in lines if line]
    return tag("ul", *there) if there else None


_FIGURES_NOTE = (
    "Medians of the rounds, with the least and the most below. A floor is what Heizer has to reach; the limit is what "
    "the same work costs without any broker, or what the hardware gives at most."
)
_BARS_NOTE = "Bars are medians, the thin line on each spans its rounds, the dashed line is the limit of that row."


def _figures(report: dict) -> Optional[Markup]:
    rows = objects(report, "rows")
    asked = [row for row in rows if at(row, "design") is True]
    others = [row for row in rows if at(row, "design") is not True]
    overview = drawings.overview(report)
    return _section(
        "The figures",
        "figures",
        tables.rows_table(asked, "What Heizer has to reach"),
        _figure("How many times better in each of them; the upright mark is the floor.", overview)
        if overview
        else None,
        tables.rows_table(others, "Further measurements"),
        note=_FIGURES_NOTE,
    )


def _figure(caption: str, chart: Markup) -> Markup:
    return tag("figure", tag("figcaption", caption), chart, class_="single")


def _latency(report: dict) -> Optional[Markup]:
    """Of the workloads at a given rate."""
    steady = [one for one in objects(report, "workloads") if drawings.open_loop(one)]
    figures = [_latency_figure(one, *which) for which in _LATENCIES for one in steady]
    note = (
        "At a given rate, counted from the moment each record was due. Thin lines are rounds, bold ones their medians; "
        "both scales are logarithmic, so that the slowest records have as much room as the others."
    )
    return _section("Latency", "latency", _grid(figures), note=note)


_LATENCIES = (("end_to_end_us", "Produced to consumed"), ("ack_latency_us", "Produced to acknowledged"))


def _latency_figure(workload: dict, key: str, what: str) -> Optional[Markup]:
    chart = drawings.latency(workload, key, what)
    if chart is None:
        return None
    caption = tag("figcaption", tag("b", what), ": ", drawings.title_of(workload))
    return tag("figure", caption, chart, tables.latency_table(workload, key))


_TIMELINE = (
    ("p99_us", "p99 latency", "ms", True),
    ("max_us", "Longest latency", "ms", True),
    ("produced_mb", "Produced", "MB/s", False),
    ("consumed_mb", "Consumed", "MB/s", False),
    ("broker_cpu_s", "Broker CPU", "CPU s/s", False),
    ("resident_mib", "Resident memory", "MiB", False),
)


def _timelines(workload: dict) -> list[Markup]:
    """A chart of each figure that was kept; its name stands in it."""
    charts = [drawings.over_time(workload, key, what, unit, decades=decades) for key, what, unit, decades in _TIMELINE]
    return [tag("figure", chart) for chart in charts if chart is not None]


def _over_time(report: dict) -> Optional[Markup]:
    """Of the workload that ran longest; a steady one before one at full speed."""
    found = [(drawings.longest(one), drawings.open_loop(one), one) for one in objects(report, "workloads")]
    found = [one for one in found if one[0] > 1]
    if not found:
        return None
    _, _, workload = max(found, key=lambda one: one[:2])
    note = f"{drawings.title_of(workload)}. Second by second; in a long run each point stands for several seconds."
    return _section("Over time", "time", _grid(_timelines(workload)), note=note)


def _neutral(report: dict) -> Optional[Markup]:
    chart = drawings.neutral(report)
    names = drawings.neutral_clients(report)
    samples = [joined(tag("span", "◆", class_=f"client client-{n % 3}"), f" {name}") for n, name in enumerate(names)]
    caption = tag("figcaption", "● our own load generator", *(joined("   ", one) for one in samples))
    return _section(
        "By other clients",
        "clients",
        tag("figure", caption, chart, class_="single") if chart is not None else None,
        tables.neutral_table(report),
        note="A subset is repeated through clients that we have not written.",
    )


def _history(report: dict, history: list[dict]) -> Optional[Markup]:
    note = "Heizer's figures by commit, on this processor alone. Hollow dots are quick runs, with shorter windows."
    return _section("History", "history", _grid(_named(drawings.trends(report, history)), "grid narrow"), note=note)


def _workloads(report: dict) -> Optional[Markup]:
    found = [_workload(one) for one in objects(report, "workloads")]
    note = (
        "As they were run, with all defaults filled in, and everything that the load generator said about each round."
    )
    return _section("The workloads", "workloads", *found, note=note)


def _workload(workload: dict) -> Markup:
    results = [one for kind in drawings.kinds(workload) for one in drawings.results(workload, kind)]
    settings = next((entries(one, "workload") for one in results if entries(one, "workload")), {})
    # Those of the others stand under Latency.
    latencies = [] if drawings.open_loop(workload) else [_latency_figure(workload, *which) for which in _LATENCIES]
    return _folded(
        joined(drawings.title_of(workload), " ", tag("code", text(workload, "name"))),
        tables.rounds_table(workload),
        _grid([*latencies, *_timelines(workload)]),
        tag("pre", json.dumps(settings, indent=1, ensure_ascii=False)) if settings else None,
    )


def _folded(summary: object, *content: Optional[Markup]) -> Markup:
    return tag("details", tag("summary", summary), *content)


def _configurations(report: dict) -> Optional[Markup]:
    found = [tables.configuration(report, kind) for kind in drawings.BROKERS]
    if all(one is None for one in found):
        return None
    folded = _folded("Every setting in force, and how both were started", *found)
    return _section("Configurations", "configurations", folded)


def _notes(report: dict) -> list[str]:
    notes = at(report, "notes")
    return [text(one) for one in notes] if isinstance(notes, list) else []


_METHOD = (
    "Both brokers run on the same machine, with the same CPU and disk, and take turns round by round under the same "
    "load. A figure is the median of its rounds; all of them are shown.",
    "CPU time is what the kernel counted for the broker's process, user and kernel together, over exactly the measured "
    "window. What the load generator took itself is given with each workload.",
    "At a given rate, records are due on a fixed schedule that does not wait for the broker. Latency counts from when "
    "a record was due, so that a stall is seen by every record it held up. At full speed it counts from when the "
    "request was handed to the connection.",
    "Every record carries its producer, its number and a pattern. Where records are read back, lost, doubled, "
    "reordered or altered ones fail the run.",
    "Bytes are those of record values; a MB is 10^6 bytes, a MiB 2^20.",
)


if __name__ == "__main__":
    main()
