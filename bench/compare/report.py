"""The report: report.json, the table on the terminal, and the runs before this one."""

import json
import re
from pathlib import Path

import rows as row_module

SHORT = {"CPU s/million": "CPU s/M", "% of a core": "% core"}


def write(report: dict, folder: Path) -> None:
    """report.json, and a smaller copy in the history."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    history = folder / "history"
    history.mkdir(exist_ok=True)
    name = f"{report['date'].replace(':', '')}-{re.sub(r'[^0-9a-z]+', '-', report['commit'])}.json"
    (history / name).write_text(json.dumps(without_timelines(report), indent=1) + "\n")


def without_timelines(report: dict) -> dict:
    def short(run: dict) -> dict:
        return {**run, "result": {key: value for key, value in run["result"].items() if key != "timeline"}}

    workloads = [{**load, "rounds": [short(run) for run in load["rounds"]]} for load in report["workloads"]]
    return {**report, "workloads": workloads}


def history(folder: Path) -> list:
    """Earlier runs, the oldest first; what cannot be read any more is left out."""
    found = []
    for path in sorted((folder / "history").glob("*.json")):
        try:
            found.append(json.loads(path.read_text()))
        except (OSError, ValueError):
            continue
    return found


def table(rows: list) -> list:
    """Lines for the terminal."""
    lines = [f"{'':<36}{'unit':<10}{'Heizer':>10}{'Kafka':>10}{'ratio':>10}  {'floor':<18}{'limit':>9}  {'':<8}spread"]
    for row in rows:
        unit = SHORT.get(row["unit"], row["unit"])
        mark = {True: "met", False: "NOT MET", None: ""}[row["met"]]
        cells = f"{number(row['heizer']):>10}{number(row['kafka']):>10}{number(row['ratio']):>10}"
        floor = f"{row['floor'] or '':<18}{number(row['limit']):>9}"
        lines.append(f"{row['name']:<36}{unit:<10}{cells}  {floor}  {mark:<8}{spread(row)}".rstrip())
    return lines


def spread(row: dict) -> str:
    """The least and the most of each broker's rounds."""
    said = []
    for rounds in (row["heizer_rounds"], row["kafka_rounds"]):
        if len(rounds) > 1:
            said.append(f"{number(min(rounds))}..{number(max(rounds))}")
    return " | ".join(said)


def number(value) -> str:
    if value is None:
        return "-"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def comparison(rows: list, values: dict) -> list:
    """Two revisions of Heizer: now, then, their ratio, and what changed beyond both spreads."""
    lines = [f"{'':<36}{'unit':<10}{'now':>10}{'then':>10}{'now/then':>10}  {'':<8}spread"]
    for row in rows:
        now, then = (values.get(row.name, {}).get(name, []) for name in ("heizer", "then"))
        a, b = row_module.median(now), row_module.median(then)
        ratio = a / b if a is not None and b else None
        mark = row_module.changed(now, then, row.better)
        both = spread({"heizer_rounds": now, "kafka_rounds": then})
        unit = SHORT.get(row.unit, row.unit)
        lines.append(
            f"{row.name:<36}{unit:<10}{number(a):>10}{number(b):>10}{number(ratio):>10}  {mark:<8}{both}".rstrip()
        )
    return lines


def remembered(runs: list, commit: str) -> list:
    """What earlier runs of this commit said of Heizer: a line for each row."""
    mine = [run for run in runs if commit.startswith(run["commit"].split(",")[0])]
    lines = []
    for run in mine:
        lines.append(f"{run['date']}, {run['mode']}, {run['rounds']} rounds, {run['machine']['cpu']}:")
        lines += [f"  {row['name']:<36}{number(row['heizer']):>10} {row['unit']}" for row in run["rows"]]
    return lines
