"""What /metrics tells, and how soon: it is asked while things happen, as Prometheus would."""

import re
import time

import pytest
from confluent_kafka import TopicPartition

from harness import librdkafka as lib
from harness import many, paths, wait
from harness.metrics import SUFFIXES, scrape
from harness.small_disk import SmallDisk
from harness.threads import Stopped, thread_of

pytestmark = pytest.mark.heizer

SOON_S = 1.0
SETTINGS = {"group.initial.rebalance.delay.ms": 0, "offsets.topic.num.partitions": 3}


def soon(what: str, probe) -> None:
    """Within a second of what has been done just before."""
    wait.until(what, probe, SOON_S, 0.02)


def send(broker, topic: str, count: int, **settings) -> None:
    lib.produce_all(broker.bootstrap, topic, ({"value": b"%06d" % n, "partition": 0} for n in range(count)), **settings)


def test_the_text_can_be_read_and_every_metric_is_documented(target):
    found = scrape(target.server)
    table = (paths.REPOSITORY / "deploy" / "METRICS.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \| (.*) \|$", table, re.MULTILINE)
    documented = {name: (kind, help_) for name, kind, _, help_ in rows}
    named = {name + (SUFFIXES[kind][0] if kind in ("counter", "info") else ""): (kind, help_) for name, (kind, help_) in found.families.items()}
    assert named == documented


def test_counters_by_topic_agree_with_what_was_produced_and_consumed(broker):
    bootstrap = broker.bootstrap
    topic = lib.create_topic(bootstrap, "counted", 3)
    before = scrape(broker)
    assert before.value("heizer_topic_appended_records_total", topic=topic) == 0
    sent = lib.produce_all(bootstrap, topic, ({"value": b"x" * (n % 300)} for n in range(2_000)), acks="all")
    found = scrape(broker)
    assert found.value("heizer_topic_appended_records_total", topic=topic) == len(sent) == 2_000
    appended = found.value("heizer_topic_appended_bytes_total", topic=topic)
    assert appended > sum(len(message.value()) for message in sent)
    assert found.value("heizer_topic_log_bytes", topic=topic) == appended
    assert found.value("heizer_topic_partitions", topic=topic) == 3
    assert found.value("heizer_topic_fetched_bytes_total", topic=topic) == 0
    for partition in range(3):
        end = 1 + max((message.offset() for message in sent if message.partition() == partition), default=-1)
        where = {"topic": topic, "partition": str(partition)}
        assert found.value("heizer_partition_log_start_offset", **where) == 0
        assert found.value("heizer_partition_log_end_offset", **where) == end
        assert found.value("heizer_partition_high_watermark", **where) == end
    read = lib.read_topic(bootstrap, topic, 3)
    assert sum(map(len, read.values())) == 2_000
    # A client may ask for a batch again that it has had in part.
    assert appended <= scrape(broker).value("heizer_topic_fetched_bytes_total", topic=topic) < 2 * appended
    admin = lib.admin(bootstrap)
    admin.delete_topics([topic])[topic].result(lib.TIMEOUT_S)
    soon("a deleted topic is gone", lambda: not scrape(broker).find("heizer_topic_partitions", topic=topic))


def test_failures_count_by_topic_and_by_error(target, bootstrap, fresh):
    topic = lib.create_topic(bootstrap, fresh("narrow"), max_message_bytes=1_000)
    before = scrape(target.server)
    reports = lib.Deliveries()
    client = lib.producer(bootstrap)
    lib.send(client, topic, value=b"x" * 5_000, on_delivery=reports)
    assert client.flush(lib.TIMEOUT_S) == 0 and len(reports.errors) == 1
    found = scrape(target.server)
    assert found.value("heizer_topic_produce_failures_total", topic=topic) >= 1
    errors = {"api": "Produce", "error": "MESSAGE_TOO_LARGE"}
    assert found.sum("heizer_request_errors_total", **errors) > before.sum("heizer_request_errors_total", **errors)
    name = "heizer_request_failures_total"
    assert found.sum(name, api="Produce") > before.sum(name, api="Produce")
    assert found.value("heizer_topic_appended_records_total", topic=topic) == 0


def test_every_api_has_its_count_and_its_latencies(broker):
    topic = lib.create_topic(broker.bootstrap, "asked")
    send(broker, topic, 100)
    client = lib.consumer(broker.bootstrap, "readers")
    client.subscribe([topic])
    assert len(lib.drain(client, 100)) == 100
    client.commit(asynchronous=False)
    client.close()

    def settled():
        found = scrape(broker)
        return found if found.sum("heizer_requests_in_flight") == 0 else None

    found = wait.until("all requests are answered", settled)
    asked = {"Produce", "Fetch", "Metadata", "ApiVersions", "FindCoordinator", "JoinGroup", "SyncGroup", "OffsetCommit"}
    for api in asked | {"OffsetFetch", "LeaveGroup", "CreateTopics"}:
        taken = found.value("heizer_requests_total", api=api)
        answered = found.value("heizer_request_duration_seconds_count", api=api)
        # A fetch that waits for data ends with its connection.
        assert 0 < answered <= taken and (api == "Fetch" or answered == taken), api
        assert found.value("heizer_request_duration_seconds_bucket", api=api, le="+Inf") == answered, api
        assert found.value("heizer_request_duration_seconds_sum", api=api) > 0, api


def test_more_topics_than_are_shown_by_name_are_added_up(start_broker):
    broker = start_broker({**SETTINGS, "heizer.metrics.topics.max": 2, "heizer.metrics.partitions.max": 3})
    for name in ("a", "b", "c", "d"):
        lib.create_topic(broker.bootstrap, name, 2)
    assert {dict(labels)["topic"] for labels in scrape(broker).find("heizer_topic_partitions")} == {"a", "b", "(others)"}
    for name in ("a", "c", "d"):
        send(broker, name, 10)
    found = scrape(broker)
    appended = "heizer_topic_appended_records_total"
    assert (found.value(appended, topic="a"), found.value(appended, topic="(others)")) == (10, 20)
    assert found.value("heizer_topics") == 4 and found.value("heizer_partitions") == 8
    assert found.value("heizer_metrics_left_out", of="topics") == 2
    assert len(found.find("heizer_partition_high_watermark")) == 2, "all partitions of a topic or none"
    assert found.value("heizer_metrics_left_out", of="partitions") == 6
    # What the others have counted stays when one of them goes.
    admin = lib.admin(broker.bootstrap)
    admin.delete_topics(["c"])["c"].result(lib.TIMEOUT_S)
    found = scrape(broker)
    assert (found.value(appended, topic="(others)"), found.value("heizer_topic_partitions", topic="(others)")) == (20, 2)


def test_the_lag_of_a_group_shows_within_a_second(start_broker):
    broker = start_broker(SETTINGS)
    topic = lib.create_topic(broker.bootstrap, "read", 2)
    send(broker, topic, 30)
    lag = "heizer_group_lag_records"
    assert not scrape(broker).find(lag)

    client = lib.consumer(broker.bootstrap, "readers")
    client.subscribe([topic])
    taken = lib.drain(client, 30)
    client.commit(message=taken[9], asynchronous=False)
    soon("20 records are left", lambda: scrape(broker).value(lag, group="readers") == 20)
    found = scrape(broker)
    row = {"group": "readers", "topic": topic}
    assert found.value("heizer_group_partition_lag_records", **row, partition="0") == 20
    assert not found.find("heizer_group_partition_lag_records", **row, partition="1"), "nothing is committed there"
    assert found.value("heizer_group_members", group="readers") == 1
    assert found.value("heizer_group_state", group="readers", state="Stable") == 1
    assert found.value("heizer_groups", state="Stable") == 1 and found.value("heizer_groups", state="Empty") == 0

    send(broker, topic, 5)
    soon("25 records are left", lambda: scrape(broker).value(lag, group="readers") == 25)
    client.commit(offsets=[TopicPartition(topic, 0, 35), TopicPartition(topic, 1, 0)], asynchronous=False)
    soon("nothing is left", lambda: scrape(broker).value(lag, group="readers") == 0)
    assert scrape(broker).value("heizer_group_partition_lag_records", **row, partition="1") == 0
    client.close()
    soon("it is empty", lambda: scrape(broker).find("heizer_group_state", group="readers", state="Empty"))
    assert scrape(broker).value("heizer_group_members", group="readers") == 0

    # Whatever a group is called, its name can be read back.
    odd = 'a "b"\\c'
    client = lib.consumer(broker.bootstrap, odd)
    client.commit(offsets=[TopicPartition(topic, 0, 30)], asynchronous=False)
    client.close()
    soon("the odd one shows", lambda: scrape(broker).value(lag, group=odd) == 5)

    admin = lib.admin(broker.bootstrap)
    admin.delete_topics([topic])[topic].result(lib.TIMEOUT_S)
    name = "heizer_group_partition_lag_records"
    soon("lags go with their topic", lambda: not scrape(broker).find(name, topic=topic))


@pytest.fixture
def disk(tmp_path):
    # Where the first broker of `start_broker` has its data.
    with SmallDisk(tmp_path / "broker-0" / "data", 96) as disk:
        yield disk


def test_a_full_disk_shows_within_a_second_while_nobody_writes(disk, start_broker):
    broker = start_broker(SETTINGS, prefix=disk.prefix)
    broker.expect_log(r"the disk is full: appends are refused", r"no direct I/O here")
    found = scrape(broker)
    assert found.value("heizer_log_dir_refusing") == 0
    assert found.value("heizer_log_dir_size_bytes") == 96 << 20
    assert found.value("heizer_log_dir_reserve_bytes") == 24 << 20, "a quarter of a small one"
    disk.fill()
    soon("it is full", lambda: scrape(broker).value("heizer_log_dir_refusing") == 1)
    assert scrape(broker).value("heizer_log_dir_free_bytes") == 0
    disk.relieve()
    soon("there is space", lambda: scrape(broker).value("heizer_log_dir_refusing") == 0)
    assert scrape(broker).value("heizer_log_dir_free_bytes") > 64 << 20


def test_a_core_that_stands_still_shows_within_a_second(start_broker):
    broker = start_broker({**SETTINGS, "heizer.cores": 2})
    topic = lib.create_topic(broker.bootstrap, "spread", 8)
    lib.produce_all(broker.bootstrap, topic, ({"value": b"x", "partition": n % 8} for n in range(80)))
    stalled = "heizer_core_stalled"
    before = scrape(broker)
    assert before.find(stalled) and before.sum(stalled) == 0
    with Stopped(thread_of(broker.pid, "heizer-1")):
        for round_ in range(4):
            began = time.monotonic()
            found = scrape(broker)
            took = time.monotonic() - began
            assert took < SOON_S, f"a scrape took {took:.2f} s"
            assert (found.value(stalled, core="0"), found.value(stalled, core="1")) == (0, 1)
            silent = found.value("heizer_core_silent_seconds", core="1")
            assert silent > 0.2 * (round_ + 1) and found.value("heizer_core_silent_seconds", core="0") == 0
            assert found.value("heizer_core_mailbox_messages", core="1") < 20, "questions do not pile up"
            # Its counters are those that it told last: what is added up does not fall.
            appended = found.value("heizer_topic_appended_records_total", topic=topic)
            assert appended == 80 and found.value("heizer_topic_partitions", topic=topic) == 8
    soon("it goes on", lambda: scrape(broker).sum(stalled) == 0)
    assert scrape(broker).value("heizer_core_silent_seconds", core="1") == 0


def test_cores_memory_and_raft_have_their_figures(broker):
    topic = lib.create_topic(broker.bootstrap, "t")
    send(broker, topic, 1_000)
    before = scrape(broker)
    time.sleep(1)
    found = scrape(broker)
    cores = int(found.value("heizer_cores"))
    for core in map(str, range(cores)):
        busy = found.value("heizer_core_busy_seconds_total", core=core)
        passed = busy - before.value("heizer_core_busy_seconds_total", core=core)
        assert busy > 0 and passed < 0.5, "a broker at rest rests"
        assert found.value("heizer_core_cpu_seconds_total", core=core) > 0
        for pool in ("requests", "fetches", "tails", "indexes", "kept"):
            used = found.value("heizer_memory_used_bytes", core=core, pool=pool)
            assert 0 <= used <= found.value("heizer_memory_limit_bytes", core=core, pool=pool)
        assert found.value("heizer_memory_waiting", core=core, pool="requests") == 0
        assert found.value("heizer_raft_log_bytes", core=core) > 0
        assert found.value("heizer_raft_failed", core=core) == 0
    assert found.value("heizer_raft_groups", role="leader") == 65, "64 shard groups and the cluster's"
    assert found.sum("heizer_raft_proposals_total") > 0 and found.sum("heizer_raft_proposal_failures_total") == 0
    applied, committed = (found.find(f"heizer_raft_{which}_index") for which in ("applied", "commit"))
    assert applied.keys() == committed.keys() and all(applied[group] <= committed[group] for group in applied)
    assert found.value("heizer_ready") == 1 and 0 < found.value("heizer_uptime_seconds") < 100
    assert found.value("process_resident_memory_bytes") > 1 << 20 and found.value("process_open_fds") > 10
    assert found.sum("heizer_log_dir_durable_writes_total") > 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ten_thousand_partitions_are_cheap_to_look_at(start_broker, measured):
    broker = start_broker()
    many.create(broker.bootstrap, 10, 1_000)
    topic = lib.create_topic(broker.bootstrap, "beside")
    assert scrape(broker).value("heizer_partitions") == 10_001
    client, reports = lib.producer(broker.bootstrap, linger_ms=0, acks="all"), lib.Deliveries()
    stalls = "heizer_core_stalls_total"
    before, slowest_s, sent = scrape(broker).sum(stalls), 0.0, 0
    for _ in range(25):
        for _ in range(100):
            lib.send(client, topic, value=b"x", on_delivery=reports)
            client.poll(0.001)
            sent += 1
        asked = time.monotonic()
        found = scrape(broker)
        slowest_s = max(slowest_s, time.monotonic() - asked)
    assert client.flush(lib.TIMEOUT_S) == 0
    reports.assert_all(sent)
    measured(f"10,001 partitions: the slowest scrape took {slowest_s * 1000:.0f} ms")
    assert slowest_s < SOON_S
    # Other processes may hold a core up; scrapes, one after the other, must not.
    assert found.sum(stalls) - before < 5
