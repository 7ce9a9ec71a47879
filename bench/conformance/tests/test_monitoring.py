"""The dashboard and the rules in deploy/: Prometheus understands them, and they speak of metrics that there are."""

import json
import re
import subprocess

import pytest

from harness import paths
from harness.metrics import Metrics, scrape

pytestmark = pytest.mark.heizer

DEPLOY = paths.REPOSITORY / "deploy"
RULES = DEPLOY / "prometheus" / "heizer.rules.yml"
DASHBOARD = DEPLOY / "grafana" / "heizer.json"
# A metric of the broker in an expression; what the rules record has colons in its name.
_METRIC = re.compile(r"(?<![\w:])((?:heizer|process)_\w+)(?![\w:])")
# What Prometheus adds to every sample, and what histograms have.
_ALWAYS = {"job", "instance", "le"}


def promtool(*arguments) -> str:
    line = [str(paths.promtool()), *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{' '.join(line)}:\n{done.stdout}{done.stderr}"
    return done.stdout


def expressions() -> list[str]:
    """Everything that the dashboard asks Prometheus for, its variables replaced."""
    found = []

    def walk(part) -> None:
        if isinstance(part, dict):
            found.extend(value for key, value in part.items() if key == "expr")
            part = part.values()
        elif not isinstance(part, list):
            return
        for inner in part:
            walk(inner)

    walk(json.loads(DASHBOARD.read_text()))
    return [expression.replace("$__rate_interval", "1m") for expression in found]


def used(text: str, found: Metrics) -> set[str]:
    """The metrics named in a text; all of them exist."""
    names = set(_METRIC.findall(text))
    assert names <= found.names(), f"there are no {sorted(names - found.names())}"
    return names


def test_promtool_takes_the_example_and_the_rules():
    promtool("check", "config", DEPLOY / "prometheus" / "prometheus.yml")
    assert "SUCCESS" in promtool("check", "rules", RULES)


def test_the_alerts_fire_when_they_should_and_only_then():
    tests = DEPLOY / "prometheus" / "heizer.rules.test.yml"
    assert "SUCCESS" in promtool("test", "rules", tests)
    alerts = set(re.findall(r"- alert: (\w+)", RULES.read_text()))
    assert alerts == set(re.findall(r"\bHeizer\w+", tests.read_text())), "each alert has its test"


def test_every_alert_says_how_bad_it_is_and_what_to_do():
    for rule in RULES.read_text().split("- alert: ")[1:]:
        name = rule.split("\n", 1)[0]
        for part in (r"severity: (critical|warning|info)\n", r"summary: \S", r"description: \S"):
            assert len(re.findall(part, rule)) == 1, f"{name}: {part}"


def test_rules_and_dashboard_speak_of_metrics_that_there_are(target):
    found = scrape(target.server)
    assert used(RULES.read_text(), found)
    text = DASHBOARD.read_text()
    shown = used(" ".join(expressions()), found) | used(" ".join(re.findall(r"label_values\((.*?),", text)), found)
    # Too many for a picture, or told by another one beside it.
    left_out = r"heizer_partition_.*|.*_duration_seconds_(count|sum)|heizer_sendfile_(calls|stalls|waits)_total|" + "|".join(
        (
            "heizer_build_info",
            "heizer_cores",
            "heizer_metrics_left_out",
            "heizer_log_dirs_offline",
            "heizer_cleaner_removed_records_total",
            "heizer_cleaner_last_round_seconds",
            "process_cpu_seconds_total",
        )
    )
    unseen = {name for name in found.names() - shown if not re.fullmatch(left_out, name)}
    assert not unseen, f"the dashboard shows nothing of {sorted(unseen)}"


def test_the_dashboard_asks_what_prometheus_understands(tmp_path):
    rules = [{"record": f"dashboard:expression:{n}", "expr": text} for n, text in enumerate(expressions())]
    assert len(rules) > 50
    file = tmp_path / "dashboard.yml"
    # JSON is YAML.
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", file)


def test_the_dashboard_goes_by_labels_that_its_metrics_have(target):
    table = (DEPLOY / "METRICS.md").read_text()
    labels = {}
    for name, kind, cell in re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \| .* \|$", table, re.MULTILINE):
        for suffix in ("_bucket", "_count", "_sum") if kind == "histogram" else ("",):
            labels[name + suffix] = set(re.findall(r"`(\w+)`", cell))
    for expression in expressions():
        known = set.union(_ALWAYS, *(labels[name] for name in _METRIC.findall(expression) if name in labels))
        matched = set(re.findall(r"(\w+)=~?\"", expression))
        grouped = {label for group in re.findall(r"\bby \((.*?)\)", expression) for label in re.split(r",\s*", group)}
        assert matched | grouped <= known, f"{sorted((matched | grouped) - known)} in {expression}"


def test_panels_have_numbers_of_their_own_and_places_that_do_not_overlap():
    panels = json.loads(DASHBOARD.read_text())["panels"]
    numbers = [panel["id"] for panel in panels]
    assert len(numbers) == len(set(numbers))
    taken = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24 and not cells & taken, f"{panel['title']} overlaps another panel"
        taken |= cells
