"""What scripts/bench makes of its rounds, its workload files, and one short run of it."""

import json
import subprocess
import sys
import tomllib

import pytest

from harness import paths

sys.path.insert(0, str(paths.REPOSITORY / "bench" / "compare"))

import generator  # noqa: E402
import limits  # noqa: E402
import parts  # noqa: E402
import report  # noqa: E402
import rows  # noqa: E402

BENCH = paths.REPOSITORY / "scripts" / "bench"


def a_row(**fields) -> rows.Row:
    return rows.Row("produce-cpu", "broker CPU per GB", "CPU s/GB", **fields)


@pytest.mark.parametrize(
    "floor, heizer, ratio, met",
    [
        ("<= 0.5", 100, 0.5, True),
        ("<= 0.5", 0.1, 0.51, False),
        (">= 10", 1, 10.5, True),
        (">= 10", 100, 9.9, False),
        ("<= 2000 ms", 1999, None, True),
        ("<= 2000 ms", 2001, 0.1, False),
        ("<= 1 % of a core", 0.9, None, True),
        ("<= 0.5", 0.1, None, None),
        ("<= 2000 ms", None, None, None),
    ],
)
def test_a_floor_bounds_the_ratio_or_with_a_unit_the_figure(floor, heizer, ratio, met):
    assert rows.Floor.parse(floor).met_by(heizer, ratio) is met


@pytest.mark.parametrize("text", ["0.5", "< 0.5", "<= half", ">=10"])
def test_what_is_no_floor_is_refused(text):
    with pytest.raises(ValueError, match="is no floor"):
        rows.Floor.parse(text)


def test_a_row_takes_medians_and_their_ratio():
    made = rows.filled(a_row(floor="<= 0.5"), [3.0, 1.0, 2.0], [8.0, 4.0], limits.Limits())
    assert (made["heizer"], made["kafka"], made["ratio"], made["met"]) == (2.0, 6.0, 2.0 / 6.0, True)
    assert (made["heizer_rounds"], made["kafka_rounds"]) == ([3.0, 1.0, 2.0], [8.0, 4.0])


def test_a_row_without_kafka_has_no_ratio_and_meets_nothing():
    made = rows.filled(a_row(floor="<= 0.5"), [3.0], [], limits.Limits())
    assert (made["heizer"], made["kafka"], made["ratio"], made["met"]) == (3.0, None, None, None)


def test_a_limit_is_shown_only_where_it_was_measured():
    row = a_row(limit=lambda found: found.sum("disk", "copy"), limit_what="disk and copy")
    found = limits.Limits()
    found.add("disk", 1.5, "s")
    assert rows.filled(row, [3.0], [], found)["limit"] is None
    assert rows.filled(row, [3.0], [], found)["limit_what"] == ""
    found.add("copy", 0.25, "s")
    assert rows.filled(row, [3.0], [], found)["limit"] == 1.75


@pytest.mark.parametrize(
    "now, then, better, verdict",
    [
        ([1.0, 1.1], [1.2, 1.3], "lower", "faster"),
        ([1.4, 1.5], [1.2, 1.3], "lower", "slower"),
        ([1.4, 1.5], [1.2, 1.3], "higher", "faster"),
        ([1.0, 1.1], [1.2, 1.3], "higher", "slower"),
        ([1.0, 1.25], [1.2, 1.3], "lower", ""),
        ([1.0], [], "lower", ""),
    ],
)
def test_a_change_counts_only_beyond_both_spreads(now, then, better, verdict):
    assert rows.changed(now, then, better) == verdict


def test_the_table_says_what_is_met():
    floors = ("<= 0.5", "<= 0.25", None)
    made = [rows.filled(a_row(floor=floor), [1.0, 3.0], [4.0, 4.0], limits.Limits()) for floor in floors]
    head, met, missed, free = report.table(made)
    assert all(name in head for name in ("Heizer", "Kafka", "ratio", "floor", "limit"))
    assert "  met " in met and "1..3 | 4..4" in met
    assert "NOT MET" in missed
    assert "met" not in free.lower()


def test_a_comparison_marks_what_has_changed():
    values = {"produce-cpu": {"heizer": [1.0, 1.1], "then": [2.0, 2.1]}}
    _, line = report.comparison([a_row()], values)
    assert "faster" in line and "0.512" in line


def a_report(commit: str, date: str) -> dict:
    row = rows.filled(a_row(), [1.0], [2.0], limits.Limits())
    run = {"broker": "heizer", "round": 1, "result": {"seconds": 1.0, "timeline": [{"s": 1}]}}
    loads = [{"name": "produce", "title": "Produce", "rounds": [run]}]
    about = {"machine": {"cpu": "a CPU"}, "date": date, "mode": "quick", "rounds": 1, "commit": commit}
    return {**about, "rows": [row], "workloads": loads}


def test_the_history_keeps_every_run_without_timelines(tmp_path):
    report.write(a_report("abc1234", "2026-11-28T21:00:00Z"), tmp_path)
    report.write(a_report("def5678, changed", "2026-11-28T22:00:00Z"), tmp_path)
    (tmp_path / "history" / "broken.json").write_text("{")
    kept = report.history(tmp_path)
    assert [run["commit"] for run in kept] == ["abc1234", "def5678, changed"]
    assert all("timeline" not in run["workloads"][0]["rounds"][0]["result"] for run in kept)
    newest = json.loads((tmp_path / "report.json").read_text())
    assert newest["workloads"][0]["rounds"][0]["result"]["timeline"] == [{"s": 1}]
    assert report.remembered(kept, "abc1234" + "0" * 33)[0].startswith("2026-11-28T21:00:00Z")
    assert report.remembered(kept, "9" * 40) == []


def test_settings_are_written_as_toml():
    for value in (5, 2.5, True, 'a "b"', {"flush.messages": "1", "a": 2}):
        assert tomllib.loads(f"key = {generator.toml(value)}") == {"key": value}


def test_the_rows_of_the_design_are_in_the_quick_suite_and_no_name_comes_twice():
    assert len(set(parts.ROW_NAMES)) == len(parts.ROW_NAMES)
    quick = {row.name for part in parts.chosen(True, []) for row in part.rows}
    design = {row.name for part in parts.PARTS for row in part.rows if row.design}
    assert design <= quick
    assert {row.name for part in parts.chosen(True, ["e2e-p99"]) for row in part.rows} < quick
    for part in parts.PARTS:
        for row in part.rows:
            assert row.floor is None or rows.Floor.parse(row.floor)


@pytest.mark.heizer
def test_the_generator_takes_every_workload_file():
    files = sorted(generator.WORKLOADS.glob("*.toml"))
    assert {part.workload for part in parts.PARTS if isinstance(part, parts.Load)} == {file.stem for file in files}
    line = [str(paths.heizer_load()), "check", *map(str, files)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--row", "no-such-row"], "--row no-such-row: no such row or part"),
        (["--rounds", "0"], "--rounds"),
        (["--fast"], "--fast"),
    ],
)
def test_a_wrong_command_line_is_refused(arguments, said):
    done = subprocess.run([str(BENCH), *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.heizer
@pytest.mark.timeout(600)
def test_a_short_run_writes_the_report(tmp_path):
    line = [str(BENCH), "--quick", "--row", "small-requests-cpu", "--without-kafka", "--rounds", "1"]
    line += ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stderr
    made = json.loads((tmp_path / "out" / "report.json").read_text())
    assert {"cpu", "cpus", "memory_gib", "kernel", "disk", "versions"} <= set(made["machine"])
    assert (made["mode"], made["rounds"]) == ("quick", 1)
    (row,) = [row for row in made["rows"] if row["name"] == "small-requests-cpu"]
    assert row["heizer"] > 0 and row["kafka"] is None and row["met"] is None and row["limit"] > 0
    (load,) = made["workloads"]
    (run,) = load["rounds"]
    assert (load["name"], run["broker"], run["round"]) == ("small-requests", "heizer", 1)
    assert run["result"]["produced"]["records"] > 0
    assert made["configurations"]["heizer"] and "heizer serve" in made["configurations"]["command_lines"]["heizer"]
    assert (tmp_path / "out" / "report.html").stat().st_size > 0
    assert len(list((tmp_path / "out" / "history").glob("*.json"))) == 1
    assert "small-requests-cpu" in done.stdout
    assert list((tmp_path / "data").iterdir()) == []
