"""`heizer topic`: altering, describing, offsets, trimming; and `heizer cluster`."""

import json

import pytest

from harness import librdkafka as lib

pytestmark = pytest.mark.heizer

# Records a second apart, from this time on.
FIRST_MS = 1_700_000_000_000


def filled(bootstrap, topic, counts):
    """A topic with so many records in each partition; returns its name."""
    lib.create_topic(bootstrap, topic, len(counts), retention_ms=-1)
    records = [
        {"value": b"%d" % n, "partition": partition, "timestamp": FIRST_MS + 1000 * n}
        for partition, count in enumerate(counts)
        for n in range(count)
    ]
    lib.produce_all(bootstrap, topic, records)
    return topic


def partitions(bootstrap, topic):
    return len(lib.admin(bootstrap).list_topics(topic, timeout=10).topics[topic].partitions)


def starts(bootstrap, topic, count):
    client = lib.consumer(bootstrap, "reader-without-commits")
    try:
        return [start for start, _ in lib.end_offsets(client, topic, count).values()]
    finally:
        client.close()


def test_a_topic_grows_and_its_settings_change(heizer, bootstrap, fresh):
    topic = lib.create_topic(bootstrap, fresh("grow"), 2, segment_ms=60_000)
    change = ("topic", "alter", topic, "--partitions", 5, "--config", "retention.ms=3600000", "--delete-config", "segment.ms")
    told = heizer(*change, "--dry-run")
    assert told.count("would") == 3 and "5 partitions in place of 2" in told
    assert partitions(bootstrap, topic) == 2, "a dry run changes nothing"
    assert heizer.json("topic", "describe", topic)[0]["configs"] == {"segment.ms": "60000"}
    told = heizer(*change)
    assert "gave" in told and "would" not in told
    lib.await_topic(lib.admin(bootstrap), topic, 5)
    assert heizer.json("topic", "describe", topic)[0]["configs"] == {"retention.ms": "3600000"}


def test_a_change_that_cannot_be_leaves_everything_as_it_was(heizer, failing, bootstrap, fresh):
    topic = lib.create_topic(bootstrap, fresh("grow"), 3)
    for wrong in (
        ("--partitions", 2, "--config", "retention.ms=1000"),
        ("--partitions", 3, "--config", "retention.ms=1000"),
        ("--partitions", 5, "--config", "retention.ms=soon"),
        ("--partitions", 5, "--config", "no.such=1"),
    ):
        assert topic in failing("topic", "alter", topic, *wrong, code=1)
        assert partitions(bootstrap, topic) == 3
        assert heizer.json("topic", "describe", topic)[0]["configs"] == {}
    failing("topic", "alter", topic, "--config", "a=1", "--delete-config", "a", code=2)
    missing = fresh("missing")
    assert missing in failing("topic", "alter", missing, "--partitions", 2, code=1)


def test_topics_are_listed_and_described_as_documents(heizer, bootstrap, fresh):
    one, two = lib.create_topic(bootstrap, fresh("one"), 1), lib.create_topic(bootstrap, fresh("two"), 3)
    listed = {row["name"]: row for row in heizer.json("topic", "list")}
    assert listed[one] == {"name": one, "internal": False, "partitions": 1, "replicas": 1}
    assert listed[two]["partitions"] == 3
    described = heizer.json("topic", "describe", two, one)
    assert [topic["name"] for topic in described] == [two, one], "in the order asked for"
    assert len(described[0]["id"]) == 22
    partition = described[0]["partitions"][2]
    assert partition["partition"] == 2 and partition["replicas"] == partition["in_sync"] == [partition["leader"]]
    assert {one, two} <= {topic["name"] for topic in heizer.json("topic", "describe")}
    text = heizer("topic", "describe", one, two)
    assert f"topic {one}: 1 partitions" in text and f"\n\ntopic {two}: 3 partitions" in text


def test_offsets_are_found_by_place_and_by_time(heizer, failing, bootstrap, fresh):
    topic = filled(bootstrap, fresh("offsets"), [5, 0, 3])
    assert heizer.rows("topic", "offsets", topic) == [["0", "0", "5"], ["1", "0", "0"], ["2", "0", "3"]]
    assert [row["latest"] for row in heizer.json("topic", "offsets", topic, "--partition", "2,0")] == [5, 3]
    ask = ("topic", "offsets", topic, "--time")
    assert [row["offset"] for row in heizer.json(*ask, "earliest")] == [0, 0, 0]
    assert [row["offset"] for row in heizer.json(*ask, "latest")] == [5, 0, 3]
    newest = [(row["offset"], row["timestamp"]) for row in heizer.json(*ask, "max-timestamp")]
    assert newest == [(4, FIRST_MS + 4000), (None, None), (2, FIRST_MS + 2000)]
    for time in (FIRST_MS + 2500, "2023-11-14T22:13:22.5Z", "2023-11-14T23:13:22.500+01:00", "2023-11-14T22:13:22.500"):
        assert [row["offset"] for row in heizer.json(*ask, time)] == [3, None, None], time
    assert "2023-11-14T22:13:23Z" in heizer(*ask, FIRST_MS + 2500)
    assert f"{topic} has no partition 3" in failing("topic", "offsets", topic, "--partition", 3, code=1)
    failing(*ask, "soon", code=2)


def test_records_are_trimmed_as_far_as_asked(heizer, failing, bootstrap, fresh):
    topic = filled(bootstrap, fresh("trim"), [10, 10])
    trim = ("topic", "trim", topic)
    assert heizer.rows(*trim, "--to-offset", "0:4", "--dry-run")[0] == ["0", "0", "4", "4"]
    assert starts(bootstrap, topic, 2) == [0, 0], "a dry run deletes nothing"
    heizer(*trim, "--to-offset", "0:4", "--to-offset", "1:1")
    assert starts(bootstrap, topic, 2) == [4, 1]
    heizer(*trim, "--to-offset", "0:2")
    assert starts(bootstrap, topic, 2) == [4, 1], "what is gone does not come back"
    heizer(*trim, "--to-datetime", FIRST_MS + 6500, "--partition", 1)
    assert starts(bootstrap, topic, 2) == [4, 7]
    for more in ((), ("--dry-run",)):
        assert topic in failing(*trim, "--to-offset", "0:11", *more, code=1)
    assert "no partition 2" in failing(*trim, "--to-offset", "2:0", code=1)
    failing(*trim, "--to-offset", "0:5", "--to-offset", "0:6", code=2)
    done = heizer.json(*trim, "--to-latest")
    assert done[1] == {"topic": topic, "partition": 1, "start": 7, "new_start": 10, "error": None}
    assert starts(bootstrap, topic, 2) == [10, 10]
    heizer(*trim, "--to-datetime", "2100-01-01")
    assert starts(bootstrap, topic, 2) == [10, 10]


def test_the_cluster_is_shown_with_its_directories(heizer, target, bootstrap, fresh):
    topic = filled(bootstrap, fresh("info"), [3, 3])
    info = heizer.json("cluster", "info")
    assert len(info["cluster_id"]) == 22 and info["topics"] >= 1
    (broker,) = info["brokers"]
    assert broker["controller"] and broker["broker"] == info["controller"] and broker["address"] == bootstrap
    assert broker["leads"] == broker["replicas"] == info["partitions"] >= 2
    (directory,) = broker["log_dirs"]
    assert directory["path"] == str(target.server.data) and directory["replicas"] >= 2
    assert 0 < directory["usable_bytes"] <= directory["total_bytes"] and directory["bytes"] > 0
    text = heizer("cluster", "info")
    assert bootstrap in text and str(target.server.data) in text and info["cluster_id"] in text
    assert topic in json.dumps(heizer.json("topic", "list"))
