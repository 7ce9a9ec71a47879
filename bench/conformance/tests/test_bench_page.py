"""The page of a measurement: it says what the report says, holds whatever is in it, and loads nothing."""

import copy
import html.parser
import itertools
import json
import re
import subprocess
import sys

import pytest
from harness import paths

COMPARE = paths.REPOSITORY / "bench" / "compare"
sys.path.append(str(COMPARE))

import page  # noqa: E402
from web import axis, chart, drawings, wording  # noqa: E402
from web.markup import tag  # noqa: E402

HOSTILE = "<script>alert(\"1\")</script> & 'x' http://example.org \x00\ud800"


def latency(p50):
    curve = [[50.0, p50], [90.0, 2 * p50], [99.0, 4 * p50], [99.9, 8 * p50]]
    return {
        "count": 10_000,
        "p50": p50,
        "p90": 2 * p50,
        "p99": 4 * p50,
        "p99_9": 8 * p50,
        "max": 9 * p50,
        "curve": curve,
    }


def result(p50):
    return {
        "workload": {"producers": [{"rate": 2000.0, "acks": "all"}]},
        "produced": {"records_per_s": 2000.0, "mb_per_s": 2.0},
        "consumed": {"mb_per_s": 2.0},
        "ack_latency_us": latency(p50),
        "end_to_end_us": latency(2 * p50),
        "verified": {"records": 20_000, "corrupt": 0, "out_of_order": 0, "duplicates": 0, "missing": 0, "unread": 0},
        "client_cpu": {"user_s": 0.5, "kernel_s": 1.0},
        "broker": {"user_s": 1.0, "kernel_s": 3.0, "resident_max_mib": 60.0, "write_bytes": 2_000_000},
        "timeline": [{"s": s, "produced_mb": 2.0, "p99_us": 900 + s, "resident_mib": 60.0} for s in range(1, 5)],
    }


def row(name, unit, heizer, kafka, **further):
    rounds = {"heizer_rounds": [heizer, heizer * 1.1], "kafka_rounds": [kafka, kafka * 1.1]}
    filled = {"name": name, "what": f"words of {name}", "unit": unit, "heizer": heizer, "kafka": kafka, **rounds}
    return {**filled, "ratio": heizer / kafka, "floor": None, "limit": None, "met": None, "design": True, **further}


def report():
    versions = {"heizer": "0.1.0", "kafka": "4.1.1"}
    limit = {"limit": 0.2, "limit_what": "one copy"}
    return {
        "machine": {"cpu": "A Processor", "cpus": 2, "memory_gib": 16, "versions": versions},
        "date": "2026-01-02T03:04:05Z",
        "mode": "quick",
        "command": "scripts/bench --quick",
        "rounds": 2,
        "commit": "0123456789abcdef",
        "rows": [
            row("steady-cpu", "CPU s/GB", 0.4, 1.6, floor="<= 0.5", met=True, better="lower", **limit),
            row("steady-rate", "MB/s", 300.0, 200.0, floor=">= 2", met=False, better="higher"),
            row("resident-idle", "MiB", 40.0, 400.0, floor="<= 0.125", met=True, better="lower"),
            row("start-1", "ms", 60.0, 3000.0, floor="<= 2000 ms", met=True, better="lower", design=False),
        ],
        "workloads": [
            {
                "name": "steady",
                "title": "A steady load",
                "rounds": [
                    {"broker": broker, "round": number, "result": result(p50 + number)}
                    for number in (1, 2)
                    for broker, p50 in (("heizer", 500), ("kafka", 900))
                ],
            }
        ],
        "limits": [{"name": "memcpy", "value": 9.5, "unit": "GB/s"}],
        "neutral": [{"client": "librdkafka", **row("steady-cpu", "CPU s/GB", 0.5, 1.5)}],
        "configurations": {"heizer": {"heizer.cores": 1}, "kafka": {}, "command_lines": {"heizer": "heizer serve"}},
        "notes": ["broker on CPU 1"],
    }


class Page(html.parser.HTMLParser):
    """Complains about tags that do not balance; keeps the elements, their attributes and their text."""

    def __init__(self, document):
        super().__init__()
        self.open, self.elements, self.text, self.attributes = [], [], [], []
        self.feed(document)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, name, attributes):
        self.elements.append(name)
        self.attributes += attributes
        if name != "meta":
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open and self.open.pop() == name, f"</{name}> closes something else"

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    @property
    def words(self):
        return re.sub(r"\s+", " ", " ".join(self.text))


def draw(of, history=()):
    return Page(page.document(of, list(history)))


def test_the_page_says_what_was_measured_and_whether_it_is_enough():
    words = draw(report()).words
    assert "Heizer 0.1.0 against Apache Kafka 4.1.1" in words
    assert "3 of 4 floors met." in words and "Missed Words of steady-rate (steady-rate)" in words
    assert "80,000 records were checked in content and order while measuring: none was lost" in words
    assert "4.0× less" in words and "1.5× more" in words and "Heizer at 2×" in words
    for said in ("A Processor, 2 CPUs", "16 GiB", "0123456789abcdef", "memcpy", "heizer serve", "broker on CPU 1"):
        assert said in words


def test_every_subject_has_its_chart():
    other = {**report(), "date": "2026-01-01T00:00:00Z", "commit": "fedcba"}
    document = page.document(report(), [other])
    titles = re.findall(r"<svg[^>]*><title>([^<]*)</title><desc>[^<]+</desc>", document)
    for title in (
        "How many times better than Apache Kafka",
        "Produced to consumed: A steady load",
        "Produced to acknowledged: A steady load",
        "Throughput, MB/s",
        "Broker CPU, CPU s/GB",
        "Resident memory, MiB",
        "Start and restart, ms",
        "p99 latency over time: A steady load",
        "How many times better, by other clients",
        "Words of steady-cpu (steady-cpu), CPU s/GB",
    ):
        assert title in titles
    assert "75 % of it in the kernel" in document


def test_the_history_is_of_this_processor_and_more_than_one_run():
    earlier = {**report(), "date": "2026-01-01T00:00:00Z", "commit": "fedcba"}
    elsewhere = {**earlier, "commit": "abcdef", "machine": {"cpu": "Another"}}
    assert "History" not in draw(report(), [report(), elsewhere]).words
    assert [run["commit"] for run in drawings.runs_of(report(), [elsewhere, report(), earlier])] == [
        "fedcba",
        "0123456789abcdef",
    ]
    assert "fedcba" in draw(report(), [earlier]).words


def test_nothing_from_the_report_becomes_markup_and_nothing_is_loaded():
    hostile = hostile_everywhere(report())
    hostile["rows"][0]["unit"], hostile["rows"][1]["unit"] = "CPU s/<b>", "MB/s"
    document = page.document(hostile, [{**hostile, "date": "earlier"}])
    document.encode()
    drawn = Page(document)
    plain = draw(report(), [{**report(), "date": "earlier"}])
    assert "script" not in drawn.elements and "b" in plain.elements
    assert set(drawn.elements) <= set(plain.elements)
    assert "<script>alert" in drawn.words
    loading = {"src", "href", "xlink:href", "srcset", "action", "data", "style", "background"}
    assert not [name for name, _ in drawn.attributes if name in loading or name.startswith("on")]
    (style,) = re.findall("<style>(.*)</style>", document, re.DOTALL)
    assert not re.search(r"url\(|@import|https?:", style)


def hostile_everywhere(value, key=""):
    """With every text replaced but those that decide what is drawn."""
    if isinstance(value, dict):
        return {key: hostile_everywhere(one, key) for key, one in value.items()}
    if isinstance(value, list):
        return [hostile_everywhere(one, key) for one in value]
    return HOSTILE if isinstance(value, str) and key not in ("broker", "better") else value


JUNK = [None, [], {}, "text", -1, 0, float("nan"), float("inf"), 10**400, 1e-300, True, [[1], {}, None, "x"]]


@pytest.mark.parametrize("first", [0, 5, 9])
def test_whatever_is_missing_or_strange_is_left_out(first):
    for place, junk in zip(places(report()), itertools.cycle(JUNK[first:] + JUNK[:first])):
        broken = copy.deepcopy(report())
        parent = broken
        for step in place[:-1]:
            parent = parent[step]
        parent[place[-1]] = junk
        document = page.document(broken, [])
        drawn = "".join(re.findall("<svg.*?</svg>", document))
        assert not re.search(r"[^a-z](nan|inf)[^a-z]", drawn), (place, junk)


def places(value, path=()):
    """The paths of everything in the report, of lists only to their first element."""
    inner = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, one in inner:
        yield (*path, key)
        yield from places(one, (*path, key))


@pytest.mark.parametrize("without", [{}, {"rows": []}, {"workloads": []}, {"machine": {"versions": None}}])
def test_a_page_of_almost_nothing_is_a_page(without):
    words = draw(without, [{}, None, []]).words
    assert "No floor was judged in this run." in words and "How it is measured" in words


def test_without_apache_kafka_heizer_stands_alone():
    alone = report()
    for one in alone["rows"]:
        one.update(kafka=None, ratio=None, kafka_rounds=[], met=None)
    alone["workloads"][0]["rounds"] = [one for one in alone["workloads"][0]["rounds"] if one["broker"] == "heizer"]
    alone["neutral"] = []
    words = draw(alone).words
    assert "against Apache Kafka" not in words and "How many times better" not in words
    assert "Produced to consumed" in words and "not judged" in words


def test_a_long_timeline_is_thinned_and_keeps_its_worst_second():
    long = report()
    for one in long["workloads"][0]["rounds"]:
        one["result"]["timeline"] = [{"s": s, "p99_us": 5_000_000 if s == 1777 else 1000} for s in range(1, 3601)]
    drawn = drawings.over_time(long["workloads"][0], "p99_us", "p99 latency", "ms", decades=True)
    assert ">minutes<" in drawn and ">1,000<" in drawn and len(drawn) < 60_000


@pytest.mark.parametrize(
    ("ratio", "better", "words", "verdict"),
    [
        (0.25, "lower", "4.0× less", "better"),
        (0.25, "higher", "4.0× less", "worse"),
        (44.2, "higher", "44× more", "better"),
        (1.3, "lower", "1.3× more", "worse"),
        (0.97, "lower", "3 % less", "better"),
        (1.001, "lower", "the same", "same"),
        (0, "lower", "–", ""),
        (None, "lower", "–", ""),
    ],
)
def test_a_ratio_in_words(ratio, better, words, verdict):
    assert wording.compared(ratio, better) == (words, verdict)


@pytest.mark.parametrize(
    ("written", "words", "ratio"),
    [
        ("<= 0.5", "≤ 1/2", 0.5),
        ("<= 0.3333", "≤ 1/3", 0.3333),
        ("<= 1/20", "≤ 1/20", 0.05),
        (">= 2", "≥ 2×", 2.0),
        (">= 10×", "≥ 10×", 10.0),
        ("<= 2000 ms", "≤ 2,000 ms", None),
        ("< 1 % of a core", "< 1 % of a core", None),
        ("works", "works", None),
        ("<= 1/0", "<= 1/0", None),
        ("<= ...", "<= ...", None),
        ("", "–", None),
    ],
)
def test_a_floor_in_words(written, words, ratio):
    assert wording.floor(written) == (words, ratio)


def test_figures_have_three_digits():
    shown = {0.04567: "0.0457", 9.996: "10", 1234.5: "1,234", 1234567: "1,234,567", 0.5: "0.5", 0: "0", -2.5: "-2.5"}
    assert {value: wording.figure(value) for value in shown} == shown
    assert [wording.duration(us) for us in (412, 3200, 1_500_000)] == ["412 µs", "3.2 ms", "1.5 s"]


def test_scales_hold_their_values_and_label_round_numbers():
    assert [label for _, label in axis.linear([3.0, 187.0]).ticks] == ["0", "50", "100", "150", "200"]
    assert axis.linear([3599.0], exact=True).at(3599.0) == 1
    assert [label for _, label in axis.logarithmic([0.4, 61.0]).ticks] == ["0.3", "1", "3", "10", "30", "100"]
    nines = axis.percentiles(99.99)
    assert [nines.at(value) for value in (50, 99.99, 99.9999)] == [0, 1, 1]
    assert nines.at(99.9) - nines.at(99) == pytest.approx(nines.at(99) - nines.at(90))


def test_the_median_line_keeps_to_where_all_rounds_are():
    line = chart.median_line([[(1, 10.0), (3, 30.0)], [(2, 40.0), (4, 60.0)], []])
    assert line == [(2, 30.0), (3, 40.0)]


def test_markup_escapes_text_and_attributes():
    assert tag("p", "<&>", class_='"x"') == '<p class="&quot;x&quot;">&lt;&amp;&gt;</p>'


def run(*arguments):
    line = [sys.executable, str(COMPARE / "page.py"), *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)


def test_the_program_writes_the_page_and_refuses_in_one_line(tmp_path):
    of, into = tmp_path / "report.json", tmp_path / "page.html"
    of.write_text(json.dumps(report()))
    (tmp_path / "history").mkdir()
    (tmp_path / "history" / "1.json").write_text(json.dumps({**report(), "date": "2026-01-01", "commit": "fedcba"}))
    done = run(of, into)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "fedcba" in Page(into.read_text()).words

    for name, content in (("broken.json", "{"), ("list.json", "[]"), ("deep.json", "[" * 100_000)):
        (tmp_path / name).write_text(content)
        done = run(tmp_path / name, into)
        assert done.returncode == 1 and done.stderr.count("\n") == 1 and name in done.stderr
    for arguments in ((tmp_path / "absent.json", into), (of, tmp_path / "absent" / "page.html")):
        done = run(*arguments)
        assert done.returncode == 1 and done.stderr.count("\n") == 1 and "absent" in done.stderr
    assert run(of).returncode == 2
