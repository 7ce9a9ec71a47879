"""Records in and out of the command line: text, hexadecimal digits and JSON; and what shells and manuals get."""

import json
import subprocess
import time

import pytest

from harness import cli, paths
from harness import librdkafka as lib

pytestmark = pytest.mark.heizer

NOT_TEXT = bytes(range(256))
ALL = ("--from-beginning", "--timeout-ms", 2000)


@pytest.fixture
def topic(bootstrap, fresh):
    return lib.create_topic(bootstrap, fresh("formats"), 3, retention_ms=-1)


def read(bootstrap, topic, count=3):
    """Every record: (partition, key, value, headers, timestamp)."""
    found = lib.read_topic(bootstrap, topic, count)
    return [
        (partition, m.key(), m.value(), m.headers(), m.timestamp()[1])
        for partition, messages in found.items()
        for m in messages
    ]


def test_what_is_consumed_as_json_goes_back_unchanged(heizer, bootstrap, topic, fresh):
    records = [
        {"partition": 0, "key": b"k", "value": b"v", "headers": [("h", b"1"), ("h", None)], "timestamp": 1_700_000_000_001},
        {"partition": 0, "key": None, "value": b'{"a": "\\u00fc"}\n', "timestamp": 1_700_000_000_002},
        {"partition": 1, "key": b"", "value": b"", "timestamp": 1_700_000_000_003},
        {"partition": 2, "key": b"gone", "value": None, "timestamp": 1_700_000_000_004},
        {"partition": 2, "key": NOT_TEXT, "value": NOT_TEXT, "headers": [("b", NOT_TEXT)], "timestamp": 1_700_000_000_005},
    ]
    lib.produce_all(bootstrap, topic, records)
    copy = lib.create_topic(bootstrap, fresh("copy"), 3, retention_ms=-1)
    lines = heizer("consume", topic, *ALL, "--output", "json")
    assert len(lines.splitlines()) == len(records)
    assert {tuple(json.loads(line)) for line in lines.splitlines()} == {
        ("topic", "partition", "offset", "timestamp", "timestamp_type", "key", "value", "headers")
    }
    heizer("produce", copy, "--format", "json", stdin=lines)
    assert read(bootstrap, copy) == read(bootstrap, topic)
    assert len(read(bootstrap, copy)) == len(records)


def test_flags_go_before_what_a_line_of_json_says(heizer, bootstrap, topic):
    line = json.dumps({"key": "k", "value": "v", "headers": [["own", "1"]], "partition": 0, "timestamp": 5})
    flags = ("--partition", 2, "--timestamp", "2023-11-14T22:13:20Z", "--header", "more=a=b", "--header", "void=NULL")
    heizer("produce", topic, "--format", "json", *flags, "--null-marker", "NULL", stdin=line)
    headers = [("own", b"1"), ("more", b"a=b"), ("void", None)]
    assert read(bootstrap, topic) == [(2, b"k", b"v", headers, 1_700_000_000_000)]


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_digits_carry_any_bytes_under_any_compression(heizer, bootstrap, topic, compression):
    lines = f"00ff {NOT_TEXT.hex()}\n- 0a0d\n6b -\n"
    produce = ("produce", topic, "--format", "hex", "--key-separator", " ", "--null-marker", "-", "--partition", 1)
    heizer(*produce, "--compression", compression, stdin=lines)
    found = [(key, value) for _, key, value, _, _ in read(bootstrap, topic)]
    assert found == [(b"\x00\xff", NOT_TEXT), (None, b"\n\r"), (b"k", None)]
    consume = ("consume", topic, *ALL, "--format", "hex", "--print-key", "--key-separator", " ", "--null-marker", "-")
    assert heizer(*consume) == lines


def test_a_line_shows_where_and_when_a_record_was(heizer, topic):
    heizer("produce", topic, "--partition", 1, "--timestamp", 1_700_000_000_000, "--header", "h=1", stdin="v\n")
    shown = ("--print-timestamp", "--print-partition", "--print-offset", "--print-headers", "--print-key")
    line = heizer("consume", topic, *ALL, *shown)
    assert line == "CreateTime:1700000000000\tPartition:1\tOffset:0\th:1\tnull\tv\n"
    assert heizer("consume", topic, *ALL, "--print-key", "--key-separator", "|", "--null-marker", "NIL") == "NIL|v\n"


def test_reading_starts_where_and_when_it_is_told(heizer, bootstrap, topic):
    records = [{"value": b"%d" % n, "partition": 0, "timestamp": 1_700_000_000_000 + 1000 * n} for n in range(10)]
    lib.produce_all(bootstrap, topic, records)
    for start in (
        ("--from-timestamp", 1_700_000_006_500),
        ("--from-timestamp", "2023-11-14T22:13:26.5Z"),
        ("--partition", 0, "--offset", 7),
        ("--partition", 0, "--from-timestamp", 1_700_000_006_500),
    ):
        assert heizer("consume", topic, *start, "--timeout-ms", 2000) == "7\n8\n9\n", start


def test_a_line_that_is_no_record_is_named_and_those_before_it_are_sent(heizer, failing, bootstrap, topic):
    for line, said in [("{}", "value"), ('{"value": "v", "vale": 1}', "vale"), ("v", "column")]:
        told = failing("produce", topic, "--format", "json", stdin=f'{{"value": "good"}}\n{line}\n', code=1)
        assert "line 2" in told and said in told
    assert [record[2] for record in read(bootstrap, topic)] == [b"good"] * 3
    assert "line 1" in failing("produce", topic, "--format", "hex", stdin="0g\n", code=1)
    assert "no partition 3" in failing("produce", topic, "--partition", 3, stdin="v\n", code=1)
    told = failing("produce", topic, "--format", "json", stdin='{"value": "v", "partition": 9}\n', code=1)
    assert "line 1" in told and "no partition 9" in told


def test_records_are_sent_no_faster_than_asked(heizer, bootstrap, topic):
    began = time.monotonic()
    heizer("produce", topic, "--rate", 20, stdin="v\n" * 21)
    assert time.monotonic() - began >= 1.0
    assert len(read(bootstrap, topic)) == 21


def test_a_reader_that_has_had_enough_ends_it_quietly(heizer, bootstrap, topic):
    heizer("produce", topic, stdin="a line\n" * 20_000)
    line = [str(paths.heizer()), "consume", topic, "--from-beginning", "--bootstrap-server", bootstrap]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "a line\n"
            process.stdout.close()
            assert process.wait(20) == 0
            assert process.stderr.read() == ""
        finally:
            process.kill()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "elvish", "powershell"])
def test_shells_complete_verbs_and_flags(shell):
    done = cli.run("completions", shell)
    assert done.returncode == 0
    assert all(word in done.stdout for word in ("delete-offsets", "trim", "bootstrap-server"))


def test_bash_takes_the_completions():
    script = cli.run("completions", "bash").stdout
    ask = 'COMP_WORDS=(heizer gro); COMP_CWORD=1; _heizer heizer gro heizer; echo "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", script + "\n" + ask], capture_output=True, text=True, timeout=20)
    assert done.stdout.split() == ["group"], done.stderr


def test_every_verb_has_a_manual_page(tmp_path):
    done = cli.run("man", "--dir", tmp_path)
    assert done.returncode == 0, done.stderr
    pages = {page.name for page in tmp_path.iterdir()}
    assert {"heizer.1", "heizer-topic.1", "heizer-topic-trim.1", "heizer-group-reset.1", "heizer-check.1"} <= pages
    assert cli.run("man").stdout == (tmp_path / "heizer.1").read_text()
    missing = cli.run("man", "--dir", tmp_path / "missing")
    assert missing.returncode == 1 and "missing" in missing.stderr
