"""`heizer log`: agreement with Apache Kafka's own dump tool, Apache Kafka's own directories, and damage."""

import json
import os
import random
import shutil
import subprocess

import pytest

from harness import dumplog, paths, wait
from harness import librdkafka as lib
from harness.server import ApacheKafka

pytestmark = pytest.mark.heizer

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
ROUNDS = 12
RECORDS = 40
# Small segments and many index entries: several of each.
SMALL = {"segment_bytes": 1 << 20, "index_interval_bytes": 1024}
# Compacted at once.
DIRTY = {"min_cleanable_dirty_ratio": "0.01", "max_compaction_lag_ms": 100}


def log(*arguments, code=0):
    """Runs `heizer log`, which must end with this exit code, and returns its lines."""
    done = subprocess.run([str(paths.heizer()), "log", *map(str, arguments)], capture_output=True, text=True, timeout=60)
    assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr}"
    return done.stdout.splitlines() if code < 2 else done.stderr.splitlines()


def dumped(path, *arguments):
    return [json.loads(line) for line in log("dump", path, "--format", "json", *arguments)]


def noise(seed):
    """Text that compresses to half."""
    return random.Random(seed).randbytes(6000).hex()


def size_of(partition):
    return sum(path.stat().st_size for path in partition.glob("*.log"))


def fill(bootstrap, topic, keyed=False):
    """Several segments of batches of every codec, some idempotent, with keys, headers and nulls."""
    for number in range(ROUNDS):
        codec = CODECS[number % len(CODECS)]
        records = [
            {
                "key": None if n % 5 == 0 and not keyed else f"k{n}",
                "value": None if n % 7 == 0 else f"{codec}-{number}-{n}-" + noise(number * RECORDS + n),
                "headers": [("h", b"1"), ("h", None)] if n % 3 == 0 else [],
                "timestamp": 1_700_000_000_000 + number * 1000 - n,
            }
            for n in range(RECORDS)
        ]
        settings = {"compression_type": codec, "linger_ms": 50, "batch_num_messages": 10}
        lib.produce_all(bootstrap, topic, records, enable_idempotence=number % 2 == 0, **settings)


@pytest.fixture
def stopped(start_broker, fresh):
    """A broker that was stopped in good order, and the directory of a partition that it has written."""
    broker = start_broker()
    topic = lib.create_topic(broker.bootstrap, fresh("log"), 1, **SMALL)
    fill(broker.bootstrap, topic)
    broker.stop()
    return broker.data, broker.data / f"{topic}-0"


# Kafka's names in ours.
ALIKE = {
    "baseOffset": "base_offset",
    "lastOffset": "last_offset",
    "count": "record_count",
    "baseSequence": "base_sequence",
    "lastSequence": "last_sequence",
    "producerId": "producer_id",
    "producerEpoch": "producer_epoch",
    "partitionLeaderEpoch": "leader_epoch",
    "isTransactional": "transactional",
    "isControl": "control",
    "position": "position",
    "size": "size",
    "magic": "magic",
    "compresscodec": "compression",
    "crc": "crc",
    "isvalid": "crc_valid",
}


def assert_agree(segment):
    """Batch by batch the same as kafka-dump-log says; returns how many."""
    ours = [line for line in dumped(segment) if line["type"] == "batch"]
    theirs = dumplog.batches(segment)
    assert len(ours) == len(theirs)
    for our, their in zip(ours, theirs):
        said = {ours: str(our[ours]).lower() for ours in ALIKE.values()}
        assert said == {ours: their[name].lower() for name, ours in ALIKE.items()}
        assert str(our["max_timestamp"]) == their[our["timestamp_type"]]
        horizon = our["delete_horizon"]
        assert their["deleteHorizonMs"] == ("OptionalLong.empty" if horizon is None else f"OptionalLong[{horizon}]")
    return len(ours)


@pytest.mark.jvm
def test_batches_and_records_agree_with_kafka_dump_log(stopped):
    data, partition = stopped
    segments = sorted(partition.glob("*.log"))
    assert len(segments) > 2
    assert sum(assert_agree(segment) for segment in segments) >= ROUNDS
    shown = [line for line in dumped(segments[0], "--records", "--values") if line["type"] == "record"]
    theirs = dumplog.records(segments[0])
    assert [str(line["offset"]) for line in shown] == [their["offset"] for their in theirs]
    for our, their in zip(shown, theirs):
        assert str(our["timestamp"]) == their["CreateTime"]
        assert str(our["value_size"]) == their["valueSize"]
        assert our["key"] == their.get("key")
        assert our["value"] == their.get("payload")
    assert shown[0]["headers"] == [["h", "1"], ["h", None]]


def test_a_directory_that_was_closed_is_clean_also_while_the_broker_runs(start_broker, fresh):
    broker = start_broker()
    topic = lib.create_topic(broker.bootstrap, fresh("log"), 1, **SMALL)
    fill(broker.bootstrap, topic)
    before = {path: path.stat().st_mtime_ns for path in broker.data.rglob("*") if path.suffix == ".log"}
    running = log("verify", broker.data)
    assert any(f"process {broker.pid} is at work" in line for line in running)
    assert running[-1].startswith("clean: ")
    log("recover-dry-run", broker.data)
    assert {path: path.stat().st_mtime_ns for path in before} == before, "nothing was written"
    broker.stop()
    found = log("verify", broker.data)
    assert len(found) == 1 and found[0].startswith("clean: ") and f"{ROUNDS * RECORDS} records" in found[0], found


def test_a_part_of_a_log_can_be_asked_for(stopped):
    data, partition = stopped
    records = [line for line in dumped(partition, "--records", "--from", "45", "--to", "47") if line["type"] == "record"]
    assert [line["offset"] for line in records] == [45, 46]
    topic, number = partition.name.rsplit("-", 1)
    asked = dumped(data, "--topic", topic, "--partition", number)
    assert {"batch", "offset_entry", "time_entry", "producer", "line"} <= {line["type"] for line in asked}
    hexed = dumped(partition, "--values", "--from", "1", "--to", "2", "--value-format", "hex")
    (record,) = [line for line in hexed if line["type"] == "record"]
    assert bytes.fromhex(record["value"]).startswith(b"none-0-1-")
    stream = next(data.glob("raft/*/core-0/*.stream"))
    assert all(line["type"] in ("file", "stream_entry", "end") for line in dumped(stream))


@pytest.mark.jvm
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_directory_that_apache_kafka_wrote_is_clean(tmp_path, fresh):
    kafka = ApacheKafka(tmp_path / "kafka", {"log.cleaner.backoff.ms": 200})
    kafka.start()
    try:
        plain = lib.create_topic(kafka.bootstrap, fresh("plain"), 1, **SMALL)
        fill(kafka.bootstrap, plain)
        transactional = lib.create_topic(kafka.bootstrap, fresh("txn"), 1, **SMALL)
        client = lib.producer(kafka.bootstrap, transactional_id=fresh("id"))
        client.init_transactions(30)
        for outcome in (client.commit_transaction, client.abort_transaction) * 3:
            client.begin_transaction()
            for n in range(20):
                client.produce(transactional, b"v" * 100, key=b"%d" % n)
            assert client.flush(30) == 0
            outcome(30)
        compacted = lib.create_topic(kafka.bootstrap, fresh("compact"), 1, cleanup_policy="compact", **DIRTY, **SMALL)
        fill(kafka.bootstrap, compacted, keyed=True)
        bytes_before = size_of(kafka.data / f"{compacted}-0")
        fill(kafka.bootstrap, compacted, keyed=True)
        # The cleaner leaves the active segment alone, and of the others little.
        wait.until("Kafka has compacted", lambda: size_of(kafka.data / f"{compacted}-0") < bytes_before, 60, 0.5)
        kafka.stop()
        found = log("verify", kafka.data)
        assert found[-1].startswith("clean: "), found
        flags = [line for line in dumped(kafka.data, "--topic", transactional) if line["type"] == "batch"]
        assert sum(line["transactional"] for line in flags) == 12 and sum(line["control"] for line in flags) == 6
        aborted = [line for line in dumped(kafka.data, "--topic", transactional) if line["type"] == "aborted"]
        assert len(aborted) == 3
        seen = [line for line in dumped(kafka.data, "--topic", compacted) if line["type"] == "batch"]
        assert any(line["record_count"] < line["last_offset"] - line["base_offset"] + 1 for line in seen)
        assert any(line["delete_horizon"] for line in seen), "tombstones have their horizon"
        for topic in (plain, transactional, compacted):
            for segment in sorted((kafka.data / f"{topic}-0").glob("*.log")):
                assert_agree(segment)
    finally:
        kafka.abandon()


def test_damage_is_found_where_it_is(stopped, tmp_path):
    data, partition = stopped
    segment = sorted(partition.glob("*.log"))[1]
    index, time_index = segment.with_suffix(".index"), segment.with_suffix(".timeindex")
    whole, entries, times = segment.read_bytes(), index.read_bytes(), time_index.read_bytes()
    batch = [line for line in dumped(segment) if line["type"] == "batch"][1]

    def errors():
        return [line for line in log("verify", data, code=1) if line.startswith("error: ")]

    flipped = bytearray(whole)
    flipped[batch["position"] + 100] ^= 1
    segment.write_bytes(flipped)
    (line,) = errors()
    assert f"{segment}: position {batch['position']}: offset {batch['base_offset']}: CRC" in line
    assert [line["crc_valid"] for line in dumped(segment) if line["type"] == "batch"].count(False) == 1

    segment.write_bytes(whole[: batch["position"] + 70])
    assert any(f"{segment}: position {batch['position']}: " in line for line in errors())
    (end,) = [line for line in dumped(segment) if line["type"] == "end"]
    assert end["position"] == batch["position"]

    segment.write_bytes(whole)
    index.write_bytes(entries[8:16] + entries[:8] + entries[16:])
    assert any(f"{index}: position 8: " in line and "does not rise" in line for line in errors())

    index.write_bytes(entries[:-3])
    assert any(str(index) in line and "no whole entry" in line for line in errors())

    index.write_bytes(entries)
    time_index.write_bytes(times[12:24] + times[:12] + times[24:])
    assert any(f"{time_index}: position 12: " in line for line in errors())

    time_index.write_bytes(times)
    assert log("verify", data)[-1].startswith("clean: ")


def test_a_dry_run_says_what_the_next_start_then_cuts(start_broker, fresh):
    broker = start_broker()
    topic = lib.create_topic(broker.bootstrap, fresh("log"), 1)
    fill(broker.bootstrap, topic)
    broker.kill()
    partition = broker.data / f"{topic}-0"
    segment = partition / f"{0:020}.log"
    # Without what was noted, all of it counts as never looked at.
    shutil.rmtree(broker.data / "checkpoints", ignore_errors=True)
    last = [line for line in dumped(segment) if line["type"] == "batch"][-1]
    with open(segment, "r+b") as file:
        file.seek(last["position"] + 80)
        byte = file.read(1)
        file.seek(last["position"] + 80)
        file.write(bytes([byte[0] ^ 1]))
        file.flush()
        os.fsync(file.fileno())
    lines = log("recover-dry-run", partition, code=1)
    planned = f"{segment}: position {last['position']}: would cut at offset {last['base_offset']}"
    (cut,) = [line for line in lines if line.startswith(planned)]
    assert "CRC does not match" in cut
    broker.expect_log("cut the end off a log")
    broker.start()
    client = lib.consumer(broker.bootstrap, "reader-without-commits")
    try:
        assert lib.end_offsets(client, topic, 1)[0] == (0, last["base_offset"])
    finally:
        client.close()


def test_errors_are_one_line_with_exit_code_2(stopped, tmp_path):
    data, partition = stopped
    segment, empty = next(partition.glob("*.log")), tmp_path / "empty"
    empty.mkdir()
    for arguments in (
        ("verify", tmp_path / "missing"),
        ("verify", segment),
        ("verify", empty),
        ("dump", tmp_path / "missing"),
        ("dump", data / "meta.properties"),
        ("recover-dry-run", segment),
        ("verify", data, "--topic", "no-such-topic"),
        ("dump", segment, "--format", "yaml"),
    ):
        said = log(*arguments, code=2)
        assert len(said) == 1 and said[0].startswith("heizer: "), said
