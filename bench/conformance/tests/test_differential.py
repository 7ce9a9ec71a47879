"""The same requests to Heizer and to Apache Kafka, and their answers compared field by field.

What has to differ (ids, ports, clocks) is made alike before the comparison. What differs on purpose stands in `ACCEPTED`
with its reason; an entry that explains nothing any more fails the test.
"""

import re
import time
from uuid import UUID

import pytest

from harness import wait, wire
from harness.server import ApacheKafka, Heizer
from harness.typed import Talk

pytestmark = [pytest.mark.jvm, pytest.mark.slow, pytest.mark.heizer]

NIL = UUID(int=0)
TEXTS = {"error_message", "documentation", "batch_index_error_message"}
NOW_MS = int(time.time() * 1000)

# (scenario and step, field, why Heizer answers otherwise); regular expressions that match from the start.
ACCEPTED: list[tuple[str, str, str]] = [
    # Settings.
    (r".*", r".*\bheizer\.durability$", "a setting of Heizer's own"),
    (
        r".*",
        r".*configs\.((leader|follower)\.replication\.throttled\.replicas"
        r"|local\.retention\.(ms|bytes)|remote\.(storage\.enable|log\.(copy\.disable|delete\.on\.disable)))$",
        "settings of what Heizer does not do (replication throttles, a second tier) are not listed",
    ),
    (
        r".*",
        r".*\bmin\.insync\.replicas\.config_source$",
        "Kafka stores the default of min.insync.replicas as a dynamic one (KIP-966)",
    ),
    (r"create_topics: config retention_spaces", r".*retention\.ms\.value$", "Kafka keeps the text, Heizer the number"),
    (
        r"create_topics: collides in one request",
        r"topics\.col_x.*",
        "Kafka overlooks a collision within one request, and then one of the two metrics hides the other",
    ),
    (
        r"create_topics: 2147483647 partitions",
        r".*error_code$",
        "Kafka refuses more than 10,000 partitions in one request as a matter of policy, Heizer more than 100,000",
    ),
    (r"create_topics: (validate only|name 6|config )", r".*topic_id$", "nothing is created: there is no id to tell"),
    (r"create_topics: config policy_spaces", r".*cleanup\.policy\.value$", "Kafka keeps the text, Heizer the list"),
    (
        r"create_topics: config preallocate_upper",
        r".*preallocate\.value$",
        "Kafka keeps the text, Heizer the truth value",
    ),
    (
        r"create_topics: config compression_(zstd|uncompressed)$",
        r".*",
        "a topic whose records are to be re-encoded is refused rather than served otherwise",
    ),
    (
        r"create_topics: config (remote_|local_retention|leader_throttle$|follower_throttle$)",
        r".*",
        "settings of what is not served are refused: whoever sets them relies on them",
    ),
    (
        r"delete_topics: (the same (name|id) twice|name and id of one)",
        r".*",
        "said once per topic, in the words of the request",
    ),
    (r"metadata: nil id", r".*", "Kafka fails the request as a whole, with UNKNOWN_SERVER_ERROR"),
    # Produce and Fetch.
    (r"produce: ", r".*\berror_message$", "Heizer says why, also where Kafka does not"),
    (r"produce: ", r".*\bindex (0|1)\.log_start_offset$", "told with success only"),
    (
        r"produce: (wrong: future|keyless)",
        r".*record_errors",
        "the whole batch is refused, which record it was is not told",
    ),
    (r"produce: wrong( at v3)?: epoch negative", r".*", "a producer id without an epoch is no producer: contract L3"),
    (r"produce: wrong( at v3)?: trailing byte", r".*", "Kafka drops what follows the batch, Heizer refuses it"),
    (r"produce: wrong( at v3)?: compression", r".*error_code$", "Kafka: UNKNOWN_SERVER_ERROR"),
    (r"produce: wrong( at v3)?: gzip of garbage", r".*", "compressed records are not looked into: DESIGN, section 3"),
    (r"produce: no partitions", r"responses", "a topic without partitions is answered as such"),
    (r"produce: sequence repeats", r".*log_append_time_ms$", "a topic of create time has no append time to tell"),
    (r"list_offsets: isolation 9", r".*", "Kafka: UNKNOWN_SERVER_ERROR"),
    (r"list_offsets: one partition twice", r"topics\..*\.partitions$", "refused each time it is named"),
    (r"epochs: epoch -2", r".*", "Kafka answers an epoch that cannot be with itself"),
    (
        r"fetch: (partition|unknown|invalid|nil|session)",
        r".*aborted_transactions$",
        "Kafka: an empty list beside an error, where nobody looks",
    ),
    (r"fetch: less than none", r".*", "Kafka: UNKNOWN_SERVER_ERROR; here a negative limit is none at all"),
    (r"fetch: one partition twice", r".*", "each time it is named it is answered"),
    # Groups.
    (r"coordinators: (v[123]|empty)$", r"error_message$", "Kafka: the text NONE"),
    (r"coordinators: share", r".*error_message$", "Heizer says why"),
    # DescribeConfigs.
    (r"configs: ", r".*\.error_message$", "Kafka: the empty text where there is no error"),
    (
        r"configs: topic with settings",
        r".*\.(flush\.ms|retention\.ms|segment\.ms|segment\.jitter\.ms)\.synonyms",
        "Heizer names every setting that the default comes from, Kafka only those in the same unit",
    ),
    (r"configs: .*", r".*\bmin\.insync\.replicas\.synonyms", "Kafka stores its default as a dynamic one (KIP-966)"),
    (r"configs: broker default", r".*", "Kafka stores min.insync.replicas there (KIP-966); nothing is dynamic here"),
    (r"configs: broker, some keys", r".*\.read_only$", "no setting of the broker changes while it runs"),
]


class Side:
    """One of the two brokers: asks it and writes its answers down, made comparable."""

    def __init__(self, bootstrap: str, run: str):
        self.talk = Talk(bootstrap)
        self._bootstrap, self._run = bootstrap, run
        self._members: dict[str, str] = {}
        self._step = "?"
        self.steps: dict[str, object] = {}

    def name(self, stem: str) -> str:
        return f"{stem}-{self._run}"

    def note(self, step: str, answer) -> None:
        assert step not in self.steps, f"{step} twice"
        self.steps[step] = self._alike(answer)

    def ask(self, step: str, api: str, version: int, **fields) -> dict:
        """Asks, notes the answer under `step`, and returns it as it came."""
        try:
            answer = self.talk.ask(api, version, **fields)
        except (ConnectionError, OSError):
            self.talk = Talk(self._bootstrap)
            answer = {"connection": "closed"}
        self.note(step, answer)
        return answer

    def topic(self, stem: str, partitions: int = 1, **configs) -> str:
        """A topic whose leaders answer."""
        name = self.name(stem)
        entry = creatable(name, partitions, configs=configs)
        made = self.talk.ask("CreateTopics", 5, topics=[entry], timeout_ms=10_000)
        assert made["topics"][0]["error_code"] in (0, 36), made
        wait.until(f"{name} is led", lambda: self._leads(name, partitions), 20)
        return name

    def topic_id(self, name: str) -> UUID:
        return self.talk.ask("Metadata", 12, topics=[{"name": name}])["topics"][0]["topic_id"]

    def coordinator(self, group: str) -> None:
        def ready():
            self.talk.ask("FindCoordinator", 4, key_type=0, coordinator_keys=[group])
            beat = self.talk.ask("Heartbeat", 3, group_id=group, generation_id=0, member_id="x")
            return beat["error_code"] not in (14, 15, 16)

        wait.until("the coordinator is there", ready, 30)

    def _leads(self, name: str, partitions: int) -> bool:
        asked = [{"partition_index": n, "current_leader_epoch": -1, "timestamp": -1} for n in range(partitions)]
        found = self.talk.ask("ListOffsets", 4, replica_id=-1, topics=[{"name": name, "partitions": asked}])
        return all(p["error_code"] == 0 for p in found["topics"][0]["partitions"])

    def _alike(self, value, key: str = ""):
        if isinstance(value, dict):
            return {name: self._alike(field, name) for name, field in value.items() if name != "throttle_time_ms"}
        if isinstance(value, list):
            rows = [self._alike(item, key) for item in value]
            for name in ("name", "group_id", "partition_index", "index"):
                if rows and all(isinstance(row, dict) and name in row for row in rows):
                    known = name in ("name", "group_id")
                    by_name = {str(row[name]) if known else f"{name} {row[name]}": row for row in rows}
                    return by_name if len(by_name) == len(rows) else sorted(rows, key=str)
            return rows
        if key in TEXTS:
            return value if not value else "a text"
        if key in ("host", "port", "cluster_id") and value not in ("", -1):
            return "its own"
        if key == "topic_id":
            return None if value in (None, NIL) else "an id"
        if key == "producer_id" and value >= 0 or key == "session_id" and value > 0:
            return "an id"
        if key == "log_append_time_ms" and value >= 0:
            return "a time"
        if key in ("member_id", "leader") and isinstance(value, str) and re.search(r"-[0-9a-f-]{16,}$", value):
            return self._members.setdefault(value, f"member {len(self._members)}")
        return value


def creatable(name, partitions=1, replicas=1, assignments=(), configs=None) -> dict:
    return {
        "name": name,
        "num_partitions": partitions,
        "replication_factor": replicas,
        "assignments": [{"partition_index": n, "broker_ids": ids} for n, ids in assignments],
        "configs": [{"name": key, "value": value} for key, value in (configs or {}).items()],
    }


def batch(*values: bytes, **wrong) -> bytes:
    return wire.batch(list(values), timestamp_ms=wrong.pop("timestamp_ms", NOW_MS), **wrong)


# Settings that both know, with values that both, or neither, should take.
CONFIGS = {
    "retention_minus_2": {"retention.ms": "-2"},
    "retention_words": {"retention.ms": "soon"},
    "retention_spaces": {"retention.ms": " 5 "},
    "retention_empty": {"retention.ms": ""},
    "null_value": {"retention.ms": None},
    "unknown_key": {"no.such.setting": "1"},
    "empty_key": {"": "1"},
    "small_segments": {"segment.bytes": "1"},
    "policy_unknown": {"cleanup.policy": "shrink"},
    "policy_both": {"cleanup.policy": "compact,delete"},
    "policy_spaces": {"cleanup.policy": "compact, delete"},
    "policy_empty": {"cleanup.policy": ""},
    "compression_rar": {"compression.type": "rar"},
    "compression_zstd": {"compression.type": "zstd"},
    "compression_uncompressed": {"compression.type": "uncompressed"},
    "timestamps_of_arrival": {"message.timestamp.type": "LogAppendTime"},
    "timestamps_misspelt": {"message.timestamp.type": "logappendtime"},
    "min_isr_0": {"min.insync.replicas": "0"},
    "min_isr_9": {"min.insync.replicas": "9"},
    "lags_crossed": {"min.compaction.lag.ms": "9", "max.compaction.lag.ms": "8"},
    "ratio_2": {"min.cleanable.dirty.ratio": "2"},
    "preallocate_maybe": {"preallocate": "maybe"},
    "preallocate_upper": {"preallocate": "TRUE"},
    "message_bytes_0": {"max.message.bytes": "0"},
    "message_bytes_negative": {"max.message.bytes": "-1"},
    "flush_0": {"flush.messages": "0"},
    "index_small": {"segment.index.bytes": "3"},
    "gzip_level": {"compression.gzip.level": "5"},
    "gzip_level_wrong": {"compression.gzip.level": "77"},
    "lz4_level": {"compression.lz4.level": "9"},
    "zstd_level": {"compression.zstd.level": "3"},
    "leader_throttle": {"leader.replication.throttled.replicas": "*"},
    "leader_throttle_wrong": {"leader.replication.throttled.replicas": "x"},
    "follower_throttle": {"follower.replication.throttled.replicas": "0:1,1:1"},
    "remote_storage_off": {"remote.storage.enable": "false"},
    "remote_storage_on": {"remote.storage.enable": "true"},
    "remote_copy_disable": {"remote.log.copy.disable": "false"},
    "remote_delete_on_disable": {"remote.log.delete.on.disable": "false"},
    "local_retention": {"local.retention.ms": "-2", "local.retention.bytes": "-2"},
    "format_version": {"message.format.version": "3.0"},
    "downconversion": {"message.downconversion.enable": "false"},
    "difference_max": {"message.timestamp.difference.max.ms": "1000"},
    "unclean": {"unclean.leader.election.enable": "true"},
}


def scenario_create_topics(side: Side) -> None:
    def create(step, *topics, version=7, **fields):
        side.ask(step, "CreateTopics", version, topics=list(topics), timeout_ms=10_000, **fields)

    for version in (2, 4, 5, 6, 7):
        create(f"plain v{version}", creatable(side.name(f"plain{version}"), 2), version=version)
    create("validate only", creatable(side.name("valid"), 2), validate_only=True)
    side.ask(
        "validate only leaves nothing",
        "Metadata",
        12,
        topics=[{"name": side.name("valid")}],
        allow_auto_topic_creation=False,
    )
    create("exists", creatable(side.name("plain2")))
    create("exists, validate only", creatable(side.name("plain2")), validate_only=True)
    create("defaults", creatable(side.name("defaults"), -1, -1))
    create("no topics")
    for partitions in (0, -2, -(1 << 31), (1 << 31) - 1):
        create(f"{partitions} partitions", creatable(side.name("p"), partitions))
    for replicas in (0, -2, 2, 3, 32767):
        create(f"{replicas} replicas", creatable(side.name("r"), 1, replicas))
    for number, name in enumerate(["", ".", "..", "a/b", "naïve", "x" * 250, "x" * 249, "a\0b"]):
        create(f"name {number}", creatable(name), validate_only=True)
    create("internal name", creatable("__cluster_metadata"), validate_only=True)
    create("collides in one request", creatable(side.name("col.x")), creatable(side.name("col_x")))
    create("may collide", creatable(side.name("a.b_c")))
    create("collides with an existing one", creatable(side.name("a_b_c")), creatable(side.name("a.b.c")))
    create("twice", creatable(side.name("two")), creatable(side.name("two")), creatable(side.name("other")))
    for step, assignments, partitions, replicas in [
        ("assigned", [(0, [1]), (1, [1])], -1, -1),
        ("assigned and counted", [(0, [1])], 1, -1),
        ("assigned and replicated", [(0, [1])], -1, 1),
        ("assigned with a gap", [(0, [1]), (2, [1])], -1, -1),
        ("assigned from 1", [(1, [1])], -1, -1),
        ("assigned twice", [(0, [1]), (0, [1])], -1, -1),
        ("assigned to nobody", [(0, [])], -1, -1),
        ("assigned to an unknown broker", [(0, [7])], -1, -1),
        ("assigned to a negative broker", [(0, [-1])], -1, -1),
        ("assigned to one broker twice", [(0, [1, 1])], -1, -1),
        ("assigned unevenly", [(0, [1]), (1, [1, 2])], -1, -1),
    ]:
        create(step, creatable(side.name("a-" + step.replace(" ", "-")), partitions, replicas, assignments))
    for step, configs in CONFIGS.items():
        create(f"config {step}", creatable(side.name("c-" + step), configs=configs), validate_only=True)
    create("config returned", creatable(side.name("cr"), configs={"retention.ms": "7", "cleanup.policy": "compact"}))
    entry = creatable(side.name("c2"))
    entry["configs"] = [{"name": "retention.ms", "value": "1"}, {"name": "retention.ms", "value": "2"}]
    create("config twice", entry)


def scenario_delete_topics(side: Side) -> None:
    one, two = side.topic("del1"), side.topic("del2")
    three, four = side.topic("del3"), side.topic("del4")
    by = lambda *topics: {"timeout_ms": 10_000, "topics": list(topics)}  # noqa: E731
    missing = side.name("missing")
    side.ask("v1", "DeleteTopics", 1, topic_names=[one, missing], timeout_ms=10_000)
    side.ask("v5", "DeleteTopics", 5, topic_names=[two, missing, ""], timeout_ms=10_000)
    unknown = UUID(int=77)
    side.ask("unknown id", "DeleteTopics", 6, **by({"name": None, "topic_id": unknown}))
    side.ask("nil id", "DeleteTopics", 6, **by({"name": None, "topic_id": NIL}))
    side.ask("both", "DeleteTopics", 6, **by({"name": three, "topic_id": unknown}))
    side.ask("the same name twice", "DeleteTopics", 6, **by({"name": three}, {"name": three}))
    its_id = side.topic_id(four)
    side.ask(
        "the same id twice",
        "DeleteTopics",
        6,
        **by({"name": None, "topic_id": its_id}, {"name": None, "topic_id": its_id}),
    )
    side.ask("name and id of one", "DeleteTopics", 6, **by({"name": four}, {"name": None, "topic_id": its_id}))
    side.ask("by id", "DeleteTopics", 6, **by({"name": None, "topic_id": its_id}))
    side.ask("by name", "DeleteTopics", 6, **by({"name": three}))
    side.ask("none", "DeleteTopics", 6, **by())


def scenario_long_names(side: Side) -> None:
    name = (side.name("long") + "-") * 30
    name = name[:249]
    for step in ("", " again"):
        side.ask("created" + step, "CreateTopics", 4, topics=[creatable(name)], timeout_ms=10_000)
        side.ask("deleted" + step, "DeleteTopics", 5, topic_names=[name], timeout_ms=10_000)


def scenario_metadata(side: Side) -> None:
    one = side.topic("meta", 3)
    known = {"name": one}
    missing = {"name": side.name("missing")}
    for version in range(13 + 1):
        more = {"allow_auto_topic_creation": False} if version >= 4 else {}
        side.ask(f"known v{version}", "Metadata", version, topics=[known], **more)
    side.ask("no topics v1", "Metadata", 1, topics=[])
    side.ask("no topics v12", "Metadata", 12, topics=[])
    side.ask("unknown", "Metadata", 12, topics=[missing], allow_auto_topic_creation=False)
    side.ask("unknown v4", "Metadata", 4, topics=[missing, known], allow_auto_topic_creation=False)
    side.ask("twice", "Metadata", 12, topics=[known, known], allow_auto_topic_creation=False)
    for number, name in enumerate(["", ".", "a/b", "x" * 250, "naïve"]):
        for auto in (False, True):
            side.ask(
                f"invalid name {number} {auto}", "Metadata", 12, topics=[{"name": name}], allow_auto_topic_creation=auto
            )
    side.ask("by id", "Metadata", 12, topics=[{"name": None, "topic_id": side.topic_id(one)}])
    side.ask("unknown id", "Metadata", 12, topics=[{"name": None, "topic_id": UUID(int=77)}])
    side.ask("nil id", "Metadata", 12, topics=[{"name": None, "topic_id": NIL}])
    side.ask("id and name", "Metadata", 12, topics=[{"name": one, "topic_id": side.topic_id(one)}])
    side.ask(
        "operations v8",
        "Metadata",
        8,
        topics=[known],
        include_topic_authorized_operations=True,
        include_cluster_authorized_operations=True,
    )
    side.ask("operations v12", "Metadata", 12, topics=[known], include_topic_authorized_operations=True)
    for version in (0, 1):
        side.ask(f"cluster v{version}", "DescribeCluster", version, include_cluster_authorized_operations=True)
    side.ask("controllers", "DescribeCluster", 1, endpoint_type=2)


WRONG_BATCHES = {
    "crc": batch(b"x", crc_flip=1),
    "count high": batch(b"x", count=2),
    "count zero": batch(b"x", count=0),
    "count negative": batch(b"x", count=-1),
    "count low": batch(b"x", b"y", count=1, last_delta=0),
    "last delta": batch(b"x", last_delta=5),
    "control": batch(b"x", attributes=0x20),
    "transactional without an id": batch(b"x", attributes=0x10),
    "transactional": batch(b"x", attributes=0x10, producer=(5, 0, 0)),
    "two batches": batch(b"x") + batch(b"y"),
    "nothing": b"",  # instead of null, to which Kafka never answers
    "sequence negative": batch(b"x", producer=(5, 0, -1)),
    "epoch negative": batch(b"x", producer=(5, -1, 0)),
    "length beyond": batch(b"x", length_add=9),
    "trailing byte": batch(b"x") + b"\0",
    "magic 0": batch(b"x", magic=0),
    "magic 1": batch(b"x", magic=1),
    "magic 3": batch(b"x", magic=3),
    "magic 127": batch(b"x", magic=127),
    "compression 5": batch(b"x", attributes=5),
    "compression 7": batch(b"x", attributes=7),
    "unused attribute": batch(b"x", attributes=0x80),
    "log append time from a client": batch(b"x", attributes=0x08),
    "delete horizon from a client": batch(b"x", attributes=0x40),
    "gzip of garbage": batch(b"x", attributes=1),
    "large": batch(b"x" * 1_048_600),
    "future": batch(b"x", timestamp_ms=NOW_MS + 7_200_000),
    "no timestamp": batch(b"x", timestamp_ms=-1),
    "short": batch(b"x")[:40],
    "base offset": wire.int64(7) + batch(b"x")[8:],
    "partition leader epoch": batch(b"x")[:12] + wire.int32(5) + batch(b"x")[16:],
}


def scenario_produce(side: Side) -> None:
    one = side.topic("prod", 3)
    its_id = side.topic_id(one)
    compacted = side.topic("prodc", **{"cleanup.policy": "compact"})

    def topics(records, name=one, index=0, version=9):
        where = {"topic_id": name if isinstance(name, UUID) else its_id} if version >= 13 else {"name": name}
        return [{**where, "partition_data": [{"index": index, "records": records}]}]

    def produce(step, records, *, version=9, acks=-1, **where):
        data = topics(records, version=version, **where)
        return side.ask(step, "Produce", version, acks=acks, timeout_ms=10_000, topic_data=data)

    for version in range(3, 13 + 1):
        produce(f"v{version}", batch(b"v"), version=version)
    for acks in (1, -1, 2, -2, 127):
        produce(f"acks {acks}", batch(b"a"), acks=acks)
    for step, records in WRONG_BATCHES.items():
        # What only one of the two takes goes where it moves no other offset.
        index = 2 if step in ("epoch negative", "trailing byte", "gzip of garbage") else 1
        produce(f"wrong: {step}", records, index=index)
        produce(f"wrong at v3: {step}", records, index=index, version=3)
    produce("keyless", batch(b"x"), name=compacted)
    produce("unknown topic", batch(b"x"), name=side.name("missing"))
    produce("empty topic name", batch(b"x"), name="")
    produce("invalid topic name", batch(b"x"), name="a/b")
    produce("unknown id", batch(b"x"), name=UUID(int=77), version=13)
    produce("nil id", batch(b"x"), name=NIL, version=13)
    for index in (3, -1, 2147483647, -2147483648):
        produce(f"partition {index}", batch(b"x"), index=index)
        produce(f"partition {index} v13", batch(b"x"), index=index, version=13)
    several = [
        {"name": one, "partition_data": [{"index": 0, "records": batch(b"ok")}, {"index": 5, "records": batch(b"no")}]},
        {"name": side.name("missing"), "partition_data": [{"index": 0, "records": batch(b"no")}]},
    ]
    side.ask("several", "Produce", 9, acks=-1, timeout_ms=10_000, topic_data=several)
    side.ask("nothing at all", "Produce", 9, acks=-1, timeout_ms=10_000, topic_data=[])
    side.ask(
        "no partitions", "Produce", 9, acks=-1, timeout_ms=10_000, topic_data=[{"name": one, "partition_data": []}]
    )
    side.ask("timeout negative", "Produce", 9, acks=1, timeout_ms=-5, topic_data=topics(batch(b"t")))
    side.ask(
        "transactional id",
        "Produce",
        9,
        transactional_id="t",
        acks=-1,
        timeout_ms=10_000,
        topic_data=topics(batch(b"t")),
    )
    sequence = lambda first, epoch=0: batch(b"s", b"t", producer=(4242, epoch, first))  # noqa: E731
    for step, first, epoch in [
        ("starts at 5", 5, 0),
        ("goes on", 7, 0),
        ("repeats", 7, 0),
        ("repeats an older one", 5, 0),
        ("gap", 20, 0),
        ("overlaps", 8, 0),
        ("newer epoch, not at 0", 3, 1),
        ("newer epoch", 0, 1),
        ("older epoch", 9, 0),
    ]:
        produce(f"sequence {step}", sequence(first, epoch))
    side.ask("end offsets", "ListOffsets", 7, **offsets(one, *((n, -1) for n in (0, 1))))
    for acks in (2, 0):
        side.ask(f"after acks {acks}", "ListOffsets", 7, **offsets(one, (0, -1)))


def offsets(topic: str, *asked, epoch: int = -1) -> dict:
    partitions = [{"partition_index": n, "current_leader_epoch": epoch, "timestamp": t} for n, t in asked]
    return {"replica_id": -1, "isolation_level": 0, "topics": [{"name": topic, "partitions": partitions}]}


def scenario_list_offsets(side: Side) -> None:
    one = side.topic("list", 2)
    for moment, value in ((1000, b"a"), (3000, b"b"), (2000, b"c"), (3000, b"d")):
        data = [{"name": one, "partition_data": [{"index": 0, "records": batch(value, timestamp_ms=moment)}]}]
        side.ask(f"produce {moment} {value}", "Produce", 9, acks=-1, timeout_ms=10_000, topic_data=data)
    for version in range(1, 10 + 1):
        side.ask(f"latest v{version}", "ListOffsets", version, **offsets(one, (0, -1)))
    for moment in (-1, -2, -3, -4, -5, -6, -7, -100, 0, 999, 1000, 1001, 2000, 2500, 3000, 3001, 1 << 62):
        side.ask(f"at {moment}", "ListOffsets", 10, **offsets(one, (0, moment)))
        side.ask(f"at {moment}, empty", "ListOffsets", 10, **offsets(one, (1, moment)))
    for moment, version in ((-3, 6), (-4, 7), (-5, 8), (-3, 1), (-4, 2)):
        side.ask(f"at {moment} before its version {version}", "ListOffsets", version, **offsets(one, (0, moment)))
    for index in (2, -1, 2147483647, -2147483648):
        side.ask(f"partition {index}", "ListOffsets", 7, **offsets(one, (index, -1)))
    side.ask("unknown topic", "ListOffsets", 7, **offsets(side.name("missing"), (0, -1)))
    side.ask("invalid topic", "ListOffsets", 7, **offsets("a/b", (0, -1)))
    for epoch in (0, 1, 99, -2, -100):
        side.ask(f"epoch {epoch}", "ListOffsets", 7, **offsets(one, (0, -1), epoch=epoch))
    side.ask("one partition twice", "ListOffsets", 7, **offsets(one, (0, -1), (0, -2), (1, -1)))
    side.ask("read committed", "ListOffsets", 7, **{**offsets(one, (0, -1)), "isolation_level": 1})
    side.ask("isolation 9", "ListOffsets", 7, **{**offsets(one, (0, -1)), "isolation_level": 9})
    side.ask("as a follower", "ListOffsets", 7, **{**offsets(one, (0, -1)), "replica_id": 5})


def scenario_epochs(side: Side) -> None:
    one = side.topic("epochs", 2)
    data = [{"name": one, "partition_data": [{"index": 0, "records": batch(b"e")}]}]
    side.ask("produce", "Produce", 9, acks=-1, timeout_ms=10_000, topic_data=data)

    def ends(step, topic=one, index=0, current=-1, epoch=0, version=4):
        asked = [{"partition": index, "current_leader_epoch": current, "leader_epoch": epoch}]
        fields = {"replica_id": -1} if version >= 3 else {}
        side.ask(step, "OffsetForLeaderEpoch", version, topics=[{"topic": topic, "partitions": asked}], **fields)

    for version in (2, 3, 4):
        ends(f"v{version}", version=version)
    for epoch in (-1, 1, 99, -2, 2147483647):
        ends(f"epoch {epoch}", epoch=epoch)
        ends(f"epoch {epoch}, empty", index=1, epoch=epoch)
    ends("epoch 0, empty", index=1)
    for current in (0, 1, -2):
        ends(f"current {current}", current=current)
    for index in (2, -1, 2147483647):
        ends(f"partition {index}", index=index)
    ends("unknown topic", topic=side.name("missing"))


def scenario_fetch(side: Side) -> None:
    one = side.topic("fetch", 2)
    its_id = side.topic_id(one)
    for value in (b"first", b"second"):
        data = [{"name": one, "partition_data": [{"index": 0, "records": batch(value, value)}]}]
        side.ask(f"produce {value}", "Produce", 9, acks=-1, timeout_ms=10_000, topic_data=data)

    def fields(version, *partitions, topic=one, wait_ms=50, most=1 << 20, least=1, session=(0, -1), forgotten=()):
        where = {"topic_id": topic if isinstance(topic, UUID) else its_id} if version >= 13 else {"topic": topic}
        rows = [{"partition": 0, "fetch_offset": 0, "partition_max_bytes": 1 << 20, **p} for p in partitions]
        for row in rows:
            row.update({} if version < 9 else {"current_leader_epoch": row.get("current_leader_epoch", -1)})
        out = {"max_wait_ms": wait_ms, "min_bytes": least, "max_bytes": most, "isolation_level": 0}
        out["topics"] = [{**where, "partitions": rows}] if rows else []
        if version <= 14:
            out["replica_id"] = -1
        if version >= 7:
            out.update(session_id=session[0], session_epoch=session[1], forgotten_topics_data=list(forgotten))
        return out

    def fetch(step, version, *partitions, **more):
        return side.ask(step, "Fetch", version, **fields(version, *partitions, **more))

    for version in range(4, 18 + 1):
        fetch(f"v{version}", version, {})
    for offset in (1, 3, 4, 5, -1, -2, 1 << 62, -(1 << 63)):
        fetch(f"offset {offset}", 12, {"fetch_offset": offset})
    for offset in (0, 1, -1):
        fetch(f"empty at {offset}", 12, {"partition": 1, "fetch_offset": offset})
    for index in (2, -1, 2147483647, -2147483648):
        fetch(f"partition {index}", 12, {"partition": index})
        fetch(f"partition {index} v13", 13, {"partition": index})
    fetch("unknown topic", 12, {}, topic=side.name("missing"))
    fetch("invalid topic", 12, {}, topic="a/b")
    fetch("unknown id", 13, {}, topic=UUID(int=77))
    fetch("nil id", 13, {}, topic=NIL)
    for epoch in (0, 1, 99, -2, -100):
        fetch(f"epoch {epoch}", 12, {"current_leader_epoch": epoch})
        fetch(f"last epoch {epoch}", 12, {"last_fetched_epoch": epoch, "fetch_offset": 2})
    for step, most, each in [
        ("one byte", 1 << 20, 1),
        ("one byte in all", 1, 1 << 20),
        ("no bytes", 0, 0),
        ("less than none", -1, -1),
    ]:
        fetch(step, 12, {"partition_max_bytes": each}, most=most)
    fetch("one byte of several", 12, {"partition": 1}, {"partition_max_bytes": 1})
    fetch("one partition twice", 12, {}, {"fetch_offset": 2})
    fetch("nothing", 12)
    fetch("negative wait", 12, {"fetch_offset": 4}, wait_ms=-1)
    fetch("negative least", 12, {"fetch_offset": 4}, least=-1, wait_ms=5000)
    fetch("isolation", 12, {})
    followed = fetch("session opens", 12, {}, {"partition": 1}, session=(0, 0))
    session = followed["session_id"]
    fetch("session goes on", 12, session=(session, 1))
    fetch("session, nothing new", 12, {"fetch_offset": 4}, session=(session, 2))
    fetch("session, still nothing", 12, session=(session, 3))
    fetch("session, wrong epoch", 12, session=(session, 3))
    fetch("session at another version", 13, session=(session, 4))
    gone = [{"topic": one, "partitions": [0]}]
    fetch("session, forgotten", 12, session=(session, 4), forgotten=gone)
    fetch("session, adds an unknown partition", 12, {"partition": 9}, session=(session, 5))
    fetch("session, unknown again", 12, session=(session, 6))
    fetch("session, ends", 12, {}, session=(session, -1))
    fetch("session, ended", 12, session=(session, 7))
    fetch("session, unknown", 12, session=(12345, 1))
    fetch("session, epoch without id", 12, session=(0, 1))


def scenario_producer_ids(side: Side) -> None:
    def ready():
        return side.talk.ask("InitProducerId", 4, transactional_id=None, transaction_timeout_ms=1000)["error_code"] == 0

    wait.until("producer ids are given", ready, 30)
    for version in range(5 + 1):
        side.ask(f"v{version}", "InitProducerId", version, transactional_id=None, transaction_timeout_ms=1000)
    for timeout in (0, -1, 2147483647):
        side.ask(f"timeout {timeout}", "InitProducerId", 4, transactional_id=None, transaction_timeout_ms=timeout)
    side.ask("empty transactional id", "InitProducerId", 4, transactional_id="", transaction_timeout_ms=1000)
    old = {"transactional_id": None, "transaction_timeout_ms": 1000}
    side.ask("with an old id", "InitProducerId", 4, producer_id=77, producer_epoch=3, **old)
    side.ask("with an id without epoch", "InitProducerId", 4, producer_id=77, producer_epoch=-1, **old)
    side.ask("with an epoch without id", "InitProducerId", 4, producer_id=-1, producer_epoch=3, **old)


def scenario_coordinators(side: Side) -> None:
    group = side.name("finds")
    side.coordinator(group)
    for version in range(6 + 1):
        keys = {"key": group} if version < 4 else {"coordinator_keys": [group]}
        kind = {"key_type": 0} if version >= 1 else {}
        side.ask(f"v{version}", "FindCoordinator", version, **keys, **kind)
    side.ask("several", "FindCoordinator", 4, key_type=0, coordinator_keys=[group, "", group])
    side.ask("none", "FindCoordinator", 4, key_type=0, coordinator_keys=[])
    for kind in (3, -1, 127):
        side.ask(f"type {kind}", "FindCoordinator", 4, key_type=kind, coordinator_keys=[group])
        side.ask(f"type {kind} v3", "FindCoordinator", 3, key_type=kind, key=group)
    side.ask("share before its version", "FindCoordinator", 5, key_type=2, coordinator_keys=[group])
    side.ask("share with a wrong key", "FindCoordinator", 6, key_type=2, coordinator_keys=["x"])
    side.ask("empty", "FindCoordinator", 3, key_type=0, key="")


def joining(
    group, member="", *, session=10_000, kind="consumer", protocols=(("range", b"m"),), instance=None, version=5
):
    fields = {"group_id": group, "session_timeout_ms": session, "member_id": member, "protocol_type": kind}
    fields["protocols"] = [{"name": name, "metadata": raw} for name, raw in protocols]
    if version >= 1:
        fields["rebalance_timeout_ms"] = 3000
    if version >= 5:
        fields["group_instance_id"] = instance
    return fields


def scenario_group_errors(side: Side) -> None:
    side.coordinator(side.name("e"))
    group = side.name("e")
    for version in range(9 + 1):
        own = side.name(f"ej{version}")
        side.coordinator(own)
        side.ask(f"join unknown member v{version}", "JoinGroup", version, **joining(own, "nobody", version=version))
    for step, fields in {
        "empty group": joining(""),
        "session short": joining(group, session=5),
        "session long": joining(group, session=1 << 30),
        "session negative": joining(group, session=-1),
        "no type": joining(group, kind=""),
        "no protocols": joining(group, protocols=()),
        "empty instance": joining(group, instance=""),
        "instance of an unknown member": joining(group, "nobody", instance="i"),
        "long metadata": joining(group, protocols=(("range", b"m" * 100_000),)),
    }.items():
        side.ask(f"join {step}", "JoinGroup", 5, **fields)
    for version in range(4 + 1):
        side.ask(f"heartbeat v{version}", "Heartbeat", version, group_id=group, generation_id=1, member_id="nobody")
        side.ask(
            f"heartbeat empty group v{version}", "Heartbeat", version, group_id="", generation_id=1, member_id="nobody"
        )
    for version in range(5 + 1):
        more = {"protocol_type": "consumer", "protocol_name": "range"} if version >= 5 else {}
        fields = {"generation_id": 1, "member_id": "nobody", "assignments": [], **more}
        side.ask(f"sync v{version}", "SyncGroup", version, group_id=group, **fields)
        side.ask(f"sync empty group v{version}", "SyncGroup", version, group_id="", **fields)
    for version in range(5 + 1):
        who = (
            {"member_id": "nobody"}
            if version < 3
            else {
                "members": [
                    {"member_id": "nobody", "group_instance_id": None},
                    {"member_id": "", "group_instance_id": "i"},
                ]
            }
        )
        side.ask(f"leave v{version}", "LeaveGroup", version, group_id=group, **who)
        side.ask(f"leave empty group v{version}", "LeaveGroup", version, group_id="", **who)
    side.ask("leave nobody", "LeaveGroup", 4, group_id=group, members=[])
    one = side.topic("committed", 2)
    missing = side.name("missing")

    def commit(step, version=7, generation=-1, member="", group=group, topics=((one, 0),), metadata="note", offset=5):
        indexes: dict[str, list[int]] = {}
        for name, index in topics:
            indexes.setdefault(name, []).append(index)
        row = lambda n: {"partition_index": n, "committed_offset": offset, "committed_metadata": metadata}  # noqa: E731
        rows = [{"name": name, "partitions": [row(n) for n in found]} for name, found in indexes.items()]
        side.ask(
            step,
            "OffsetCommit",
            version,
            group_id=group,
            generation_id_or_member_epoch=generation,
            member_id=member,
            topics=rows,
        )

    for version in range(2, 9 + 1):
        commit(f"commit v{version}", version=version, group=side.name(f"commit{version}"))
    commit("commit unknown member", generation=1, member="nobody")
    commit("commit member without generation", member="nobody")
    commit("commit generation without member", generation=1)
    commit("commit unknown group, generation", generation=1, member="nobody", group=side.name("nogroup"))
    commit("commit empty group", group="")
    commit("commit unknown", topics=((one, 0), (one, 7), (missing, 0), (one, -1), ("", 0)))
    commit("commit long note", metadata="n" * 4097)
    commit("commit null note", metadata=None)
    commit("commit negative offset", offset=-5)
    commit("commit nothing", topics=())
    commit(
        "commit only unknown, wrong group",
        topics=((missing, 0),),
        generation=3,
        member="nobody",
        group=side.name("nogroup"),
    )
    fetched = side.name("commit7")
    asked = [{"name": one, "partition_indexes": [0, 1, 9]}, {"name": missing, "partition_indexes": [0]}]
    for version in range(1, 7 + 1):
        side.ask(f"offsets v{version}", "OffsetFetch", version, group_id=fetched, topics=asked)
    for version in range(2, 7 + 1):
        side.ask(f"all offsets v{version}", "OffsetFetch", version, group_id=fetched, topics=None)
    for version in (8, 9):
        groups = [
            {"group_id": fetched, "topics": asked},
            {"group_id": side.name("nogroup"), "topics": None},
            {"group_id": "", "topics": asked},
        ]
        side.ask(f"offsets v{version}", "OffsetFetch", version, groups=groups)
    side.ask(
        "offsets v9 of a member",
        "OffsetFetch",
        9,
        groups=[{"group_id": fetched, "member_id": "nobody", "member_epoch": 3, "topics": asked}],
    )
    side.ask("offsets of no group", "OffsetFetch", 8, groups=[])
    side.ask("offsets of an unknown group", "OffsetFetch", 5, group_id=side.name("nogroup"), topics=asked)
    side.ask("offsets of the empty group", "OffsetFetch", 5, group_id="", topics=asked)
    for version in range(6 + 1):
        side.ask(f"describe v{version}", "DescribeGroups", version, groups=[side.name("nogroup"), fetched, ""])
    side.ask("describe nobody", "DescribeGroups", 5, groups=[])
    side.ask("describe operations", "DescribeGroups", 5, groups=[fetched], include_authorized_operations=True)


def scenario_groups(side: Side) -> None:
    group, one = side.name("happy"), side.topic("happy")
    side.coordinator(group)
    told = side.ask("join, id required", "JoinGroup", 7, **joining(group, version=7))
    member = told["member_id"]
    joined = side.ask("join", "JoinGroup", 7, **joining(group, member, version=7))
    side.ask("join again", "JoinGroup", 7, **joining(group, member, version=7))
    side.ask(
        "heartbeat completing", "Heartbeat", 4, group_id=group, generation_id=joined["generation_id"], member_id=member
    )

    def sync(
        step,
        version=5,
        generation=joined["generation_id"],
        member_id=member,
        kind="consumer",
        name="range",
        given=b"plan",
    ):
        more = {"protocol_type": kind, "protocol_name": name} if version >= 5 else {}
        plan = [{"member_id": member, "assignment": given}] if given else []
        side.ask(
            step,
            "SyncGroup",
            version,
            group_id=group,
            generation_id=generation,
            member_id=member_id,
            assignments=plan,
            **more,
        )

    sync("sync wrong generation", generation=99)
    sync("sync wrong type", kind="connect")
    sync("sync wrong name", name="sticky")
    sync("sync null type", kind=None, name=None)
    sync("sync unknown member", member_id="nobody")
    sync("sync")
    sync("sync again", given=b"")
    beat = lambda step, **more: side.ask(
        step, "Heartbeat", 4, **{"group_id": group, "generation_id": 1, "member_id": member, **more}
    )  # noqa: E731
    beat("heartbeat")
    beat("heartbeat wrong generation", generation_id=5)
    beat("heartbeat unknown instance", group_instance_id="i")
    row = [{"name": one, "partitions": [{"partition_index": 0, "committed_offset": 3, "committed_metadata": "n"}]}]
    for step, generation, who in [
        ("", 1, member),
        (" wrong generation", 7, member),
        (" older generation", 0, member),
        (" unknown member", 1, "nobody"),
        (" simple", -1, ""),
    ]:
        side.ask(
            "commit" + step,
            "OffsetCommit",
            8,
            group_id=group,
            generation_id_or_member_epoch=generation,
            member_id=who,
            topics=row,
        )
    for version in range(6 + 1):
        side.ask(f"describe v{version}", "DescribeGroups", version, groups=[group])
    side.ask("offsets", "OffsetFetch", 8, groups=[{"group_id": group, "topics": None}])
    for version in range(5 + 1):
        listed = side.talk.ask("ListGroups", version)
        listed["groups"] = [g for g in listed["groups"] if g["group_id"] == group]
        side.note(f"list v{version}", listed)
    for step, filters in {
        "stable": {"states_filter": ["Stable"]},
        "stable in capitals": {"states_filter": ["STABLE"]},
        "empty": {"states_filter": ["Empty"]},
        "no such state": {"states_filter": ["Sleeping"]},
        "classic": {"types_filter": ["classic"]},
        "consumer": {"types_filter": ["consumer"]},
        "no such type": {"types_filter": ["quaint"]},
    }.items():
        listed = side.talk.ask("ListGroups", 5, **filters)
        listed["groups"] = [g for g in listed["groups"] if g["group_id"] == group]
        side.note(f"list {step}", listed)
    side.ask("join wrong type", "JoinGroup", 7, **joining(group, kind="connect", version=7))
    side.ask("join wrong protocols", "JoinGroup", 7, **joining(group, protocols=(("sticky", b""),), version=7))
    side.ask("rejoin of the leader", "JoinGroup", 7, **joining(group, member, version=7))
    beat("heartbeat of an old generation")
    leave = {
        "members": [
            {"member_id": member, "group_instance_id": None},
            {"member_id": "nobody", "group_instance_id": None},
        ]
    }
    side.ask("leave", "LeaveGroup", 4, group_id=group, **leave)
    side.ask("describe left", "DescribeGroups", 5, groups=[group])
    side.ask("leave again", "LeaveGroup", 4, group_id=group, **leave)
    side.ask(
        "commit simple when empty",
        "OffsetCommit",
        8,
        group_id=group,
        generation_id_or_member_epoch=-1,
        member_id="",
        topics=row,
    )
    static = side.name("static")
    side.coordinator(static)
    first = side.ask("static join", "JoinGroup", 7, **joining(static, instance="i1", version=7))
    plan = [{"member_id": first["member_id"], "assignment": b"p"}]
    side.ask(
        "static sync",
        "SyncGroup",
        5,
        group_id=static,
        generation_id=1,
        member_id=first["member_id"],
        group_instance_id="i1",
        protocol_type="consumer",
        protocol_name="range",
        assignments=plan,
    )
    for version in (7, 9):
        again = side.ask(
            f"static return v{version}", "JoinGroup", version, **joining(static, instance="i1", version=version)
        )
    fenced = {"group_id": static, "generation_id": 1, "member_id": first["member_id"], "group_instance_id": "i1"}
    side.ask("static fenced heartbeat", "Heartbeat", 4, **fenced)
    side.ask(
        "static fenced sync", "SyncGroup", 5, protocol_type="consumer", protocol_name="range", assignments=[], **fenced
    )
    side.ask("static fenced join", "JoinGroup", 7, **joining(static, first["member_id"], instance="i1", version=7))
    side.ask(
        "static sync again",
        "SyncGroup",
        5,
        group_id=static,
        generation_id=1,
        member_id=again["member_id"],
        group_instance_id="i1",
        protocol_type="consumer",
        protocol_name="range",
        assignments=[],
    )
    side.ask("static describe", "DescribeGroups", 5, groups=[static])
    side.ask(
        "static leave fenced",
        "LeaveGroup",
        4,
        group_id=static,
        members=[{"member_id": first["member_id"], "group_instance_id": "i1"}],
    )
    side.ask("static leave", "LeaveGroup", 4, group_id=static, members=[{"member_id": "", "group_instance_id": "i1"}])


def scenario_configs(side: Side) -> None:
    plain = side.topic("cfg")
    set_ = side.topic("cfgset", **{"retention.ms": "77", "cleanup.policy": "compact", "max.message.bytes": "5000"})

    def describe(step, kind, name, version=4, keys=None, **more):
        resource = {"resource_type": kind, "resource_name": name, "configuration_keys": keys}
        side.ask(step, "DescribeConfigs", version, resources=[resource], **more)

    for version in (1, 2, 3, 4):
        describe(f"topic v{version}", 2, plain, version)
    describe("topic with settings", 2, set_, include_synonyms=True)
    describe("documentation", 2, plain, keys=["retention.ms"], include_documentation=True)
    describe("two keys", 2, plain, keys=["retention.ms", "no.such.setting"])
    describe("no keys", 2, plain, keys=[])
    describe("unknown topic", 2, side.name("missing"))
    describe("invalid topic", 2, "a/b")
    describe("empty topic", 2, "")
    describe(
        "broker, some keys",
        4,
        "1",
        keys=["num.partitions", "log.retention.hours", "message.max.bytes", "auto.create.topics.enable"],
    )
    describe("broker default", 4, "")
    describe("other broker", 4, "7")
    describe("broker by a word", 4, "x")
    describe("type 0", 0, "x")
    describe("type 3", 3, "x")
    describe("type 99", 99, "x")
    side.ask("nothing", "DescribeConfigs", 4, resources=[])


SCENARIOS = {
    name.removeprefix("scenario_"): function
    for name, function in list(globals().items())
    if name.startswith("scenario_")
}


def differences(ours, theirs, at: str = "") -> list[tuple[str, object, object]]:
    """(field, Heizer's value, Kafka's value) wherever they differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        found = []
        for key in sorted({*ours, *theirs}):
            found += differences(ours.get(key, "absent"), theirs.get(key, "absent"), f"{at}.{key}" if at else str(key))
        return found
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = enumerate(zip(ours, theirs))
        return [found for n, pair in pairs for found in differences(*pair, f"{at}[{n}]")]
    return [] if ours == theirs else [(at, ours, theirs)]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Heizer and Apache Kafka, set up alike."""
    settings = {"group.initial.rebalance.delay.ms": 0, "offsets.topic.num.partitions": 3}
    servers = [kind(tmp_path_factory.mktemp(kind.__name__), settings) for kind in (Heizer, ApacheKafka)]
    try:
        yield [server.start() for server in servers]
        for server in servers:
            server.close()
    finally:
        for server in servers:
            server.abandon()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_heizer_answers_as_kafka_does(pair, scenario):
    sides = [Side(server.bootstrap, scenario) for server in pair]
    for side in sides:
        SCENARIOS[scenario](side)
    ours, theirs = (side.steps for side in sides)
    unexplained, used = judge(scenario, ours, theirs)
    assert not unexplained, "\n".join(unexplained)
    idle = [entry for entry in ACCEPTED if entry[0].startswith(scenario + ": ") and entry not in used]
    assert not idle, f"these differences are gone: {idle}"


def judge(scenario: str, ours: dict, theirs: dict) -> tuple[list[str], list]:
    """What differs without a reason, as lines to read, and the reasons that were needed."""
    assert list(ours) == list(theirs), "the same steps on both sides"
    unexplained, used = [], []
    for step in ours:
        for field, here, there in differences(ours[step], theirs[step]):
            label = f"{scenario}: {step}"
            why = [entry for entry in ACCEPTED if re.match(entry[0], label) and re.match(entry[1], field)]
            used += why
            if not why:
                unexplained.append(f"{label} | {field}: Heizer {_short(here)}, Kafka {_short(there)}")
    return unexplained, used


def _short(value) -> str:
    text = repr(value)
    return text if len(text) < 200 else text[:200] + "…"
