"""Topics: making, deleting and describing them and their settings."""

from uuid import UUID

from .side import NIL, Side, creatable

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
