"""One run: the limits, the suite, the neutral clients, and what is made of them."""

import sys
from pathlib import Path

import brokers
import limits
import machine
import neutral
import page
import parts
import report as reports
import revision
from rows import filled
from suite import FAILURES, Suite, may_forget_pages, say

FIO_S = {"quick": 3, "full": 10}


def report(options, cpus: machine.Cpus, home: Path, date: str) -> int:
    """Measures, prints the table, writes report.json, history and page; the exit code."""
    makers = brokers.makers(cpus.broker, options.kafka)
    chosen, notes = choose(options, cpus)
    say("limits of this machine")
    found = limits.measure(home / "limits", cpus, FIO_S[options.mode])
    suite = Suite(makers, options.mode, options.rounds, home)
    suite.run(chosen)
    if options.long and not suite.failure:
        chosen.append(parts.long_run(options.long))
        suite.run_once(chosen[-1])
    others = measure_neutral(options, makers, home, suite)
    made = {
        "machine": machine.describe(options.data, options.kafka),
        "date": date,
        "mode": options.mode,
        "command": " ".join(["scripts/bench", *sys.argv[1:]]),
        "rounds": options.rounds,
        "commit": machine.commit(),
        "rows": rows_of(chosen, suite, found),
        "workloads": workloads_of(chosen, suite),
        "limits": found.rows(),
        "neutral": others,
        "configurations": {**suite.configurations, "command_lines": suite.command_lines},
        "notes": notes + suite.notes,
    }
    earlier = reports.history(options.out)
    reports.write(made, options.out)
    page.write(made, earlier, options.out / "report.html")
    print("\n".join(reports.table(made["rows"])))
    for line in made["notes"]:
        print(line)
    print(f"{options.out / 'report.json'}, {options.out / 'report.html'}")
    return finish(suite)


def compare(options, cpus: machine.Cpus, home: Path) -> int:
    """This Heizer and another revision's, interleaved."""
    commit = revision.resolve(options.compare)
    program = revision.binary(commit, options.out / "revisions")
    chosen, notes = choose(options, cpus)
    suite = Suite(brokers.makers(cpus.broker, False, program), options.mode, options.rounds, home)
    suite.run(chosen)
    if earlier := reports.remembered(reports.history(options.out), commit):
        print(f"earlier runs of {commit[:12]}")
        print("\n".join(earlier))
    print(f"now: {machine.commit()}; then: {commit[:12]}; a row is marked where the rounds of both do not overlap")
    print("\n".join(reports.comparison(measured_rows(chosen, suite), suite.values)))
    for line in notes + suite.notes:
        print(line)
    return finish(suite)


def choose(options, cpus: machine.Cpus) -> tuple:
    """The parts that can be measured here, and what must be said about it."""
    chosen, notes = parts.chosen(options.quick, options.row), []
    if cpus.shared:
        notes.append("one CPU only: the broker and its clients share it, so nothing here is the broker's alone")
    if not may_forget_pages():
        chosen = [part for part in chosen if not getattr(part, "cold", False)]
        notes.append("not root: the page cache cannot be emptied, so what is read from disk was left out")
    return chosen, notes


def measure_neutral(options, makers: brokers.Makers, home: Path, suite: Suite) -> list:
    """What other clients find; nothing when they are not asked for or the suite has failed."""
    if suite.failure or not parts.wants_neutral(options.quick, options.row) or not options.kafka:
        return []
    rounds = min(2, options.rounds)
    minutes = parts.NEUTRAL.turn_s * len(makers) * (2 * rounds + 1) / 60
    say(f"{parts.NEUTRAL.title} (about {minutes:.0f} minutes)")
    try:
        return neutral.measure(makers, home, rounds, say)
    except FAILURES as failure:
        suite.fail(f"{parts.NEUTRAL.name}: {failure}")
        return []


def measured_rows(chosen: list, suite: Suite) -> list:
    return [row for part in chosen for row in part.rows if row.name in suite.values]


def rows_of(chosen: list, suite: Suite, found: limits.Limits) -> list:
    made = []
    for row in measured_rows(chosen, suite):
        rounds = suite.values[row.name]
        made.append(filled(row, rounds.get("heizer", []), rounds.get("kafka", []), found))
    return made


def workloads_of(chosen: list, suite: Suite) -> list:
    loads = [part for part in chosen if part.name in suite.loads]
    return [{"name": part.name, "title": part.title, "rounds": suite.loads[part.name]} for part in loads]


def finish(suite: Suite) -> int:
    if suite.failure:
        print(f"scripts/bench: {suite.failure}", file=sys.stderr)
        return 1
    return 0
