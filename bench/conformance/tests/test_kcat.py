"""Debian's kcat (librdkafka 2.0.2), as somebody uses it in a shell."""

import json
import subprocess

import pytest


def kcat(bootstrap: str, *arguments: str, stdin: str = "", timeout_s: float = 30) -> str:
    line = ["kcat", "-b", bootstrap, *arguments]
    done = subprocess.run(line, input=stdin.encode(), capture_output=True, timeout=timeout_s)
    assert done.returncode == 0, f"{line}: {done.stderr.decode(errors='replace')}"
    return done.stdout.decode()


def test_lines_come_back_in_order(bootstrap, fresh):
    topic = fresh("kcat")
    lines = "".join(f"line {n}\n" for n in range(1000))
    kcat(bootstrap, "-P", "-t", topic, stdin=lines)
    assert kcat(bootstrap, "-C", "-t", topic, "-e", "-q") == lines


def test_keys_and_headers_come_back(bootstrap, fresh):
    topic = fresh("kcat")
    kcat(bootstrap, "-P", "-t", topic, "-K", ":", "-H", "origin=north", "-H", "unit=C", stdin="a:1\nb:2\n")
    assert kcat(bootstrap, "-C", "-t", topic, "-e", "-q", "-f", "%k|%s|%h\n") == (
        "a|1|origin=north,unit=C\nb|2|origin=north,unit=C\n"
    )


def test_metadata_lists_broker_and_topic(bootstrap, fresh):
    topic = fresh("kcat")
    kcat(bootstrap, "-P", "-t", topic, stdin="x\n")
    seen = json.loads(kcat(bootstrap, "-L", "-J"))
    assert bootstrap in [broker["name"] for broker in seen["brokers"]]
    (found,) = [entry for entry in seen["topics"] if entry["topic"] == topic]
    assert [part["partition"] for part in found["partitions"]] == [0]
    assert found["partitions"][0]["leader"] == seen["brokers"][0]["id"]


def test_a_group_goes_on_where_it_stopped(bootstrap, fresh):
    topic, group = fresh("kcat"), fresh("group")
    kcat(bootstrap, "-P", "-t", topic, stdin="one\ntwo\n")
    first = kcat(bootstrap, "-G", group, "-X", "auto.offset.reset=earliest", "-e", "-q", topic)
    assert first == "one\ntwo\n"
    kcat(bootstrap, "-P", "-t", topic, stdin="three\n")
    assert kcat(bootstrap, "-G", group, "-X", "auto.offset.reset=earliest", "-e", "-q", topic) == "three\n"


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_compressed_batches_come_back(bootstrap, fresh, codec):
    topic = fresh("kcat")
    lines = "".join(f"a line that compresses well, number {n}\n" for n in range(5000))
    kcat(bootstrap, "-P", "-t", topic, "-z", codec, stdin=lines)
    assert kcat(bootstrap, "-C", "-t", topic, "-e", "-q") == lines


def test_an_offset_by_time_is_found(bootstrap, fresh):
    topic = fresh("kcat")
    kcat(bootstrap, "-P", "-t", topic, stdin="one\ntwo\n")
    assert kcat(bootstrap, "-Q", "-t", f"{topic}:0:1").strip() == f"{topic} [0] offset 0"
