"""Administration: more partitions, changed settings, deleted records, groups and offsets, and what is listed."""

from harness import wait, wire

from .data import offsets
from .groups import joining
from .side import Side, batch

TOPIC, BROKER = 2, 4
SET, DELETE, APPEND, SUBTRACT = range(4)
# Where a setting was set: for the topic, for the broker, for all brokers.
DYNAMIC_SOURCES = (1, 2, 3)


def scenario_create_partitions(side: Side) -> None:
    one, two = side.topic("grows", 2), side.topic("assigned")

    def grow(step, *wanted, version=3, validate_only=False):
        rows = [
            {"name": name, "count": count, "assignments": ids and [{"broker_ids": some} for some in ids]}
            for name, count, ids in wanted
        ]
        side.ask(step, "CreatePartitions", version, topics=rows, timeout_ms=10_000, validate_only=validate_only)

    for version in range(3 + 1):
        grow(f"v{version}", (one, 3 + version, None), version=version)
        side.await_leaders(one, 3 + version)
    grow("validate only", (one, 9, None), validate_only=True)
    for count in (6, 5, 0, -1, -(1 << 31)):
        grow(f"to {count}", (one, count, None))
        grow(f"to {count}, validate only", (one, count, None), validate_only=True)
    for number, name in enumerate([side.name("missing"), "", ".", "a/b", "x" * 250]):
        grow(f"name {number}", (name, 3, None))
    grow("twice", (one, 7, None), (one, 8, None))
    grow("twice, and another", (one, 7, None), (one, 7, None), (side.name("missing"), 2, None))
    grow("none")
    for step, count, ids in [
        ("assigned", 2, [[1]]),
        ("too few", 5, [[1]]),
        ("too many", 3, [[1], [1]]),
        ("to an unknown broker", 3, [[7]]),
        ("to a negative broker", 3, [[-1]]),
        ("to one broker twice", 3, [[1, 1]]),
        ("to two", 3, [[1, 7]]),
        ("assigned, but fewer", 1, [[1]]),
    ]:
        grow(step, (two, count, ids))
    side.await_leaders(two, 2)
    grow("one of two", (two, 3, None), (side.name("missing"), 3, None))
    side.await_leaders(two, 3)
    for topic in (one, two):
        side.ask(f"described {topic}", "Metadata", 12, topics=[{"name": topic}], allow_auto_topic_creation=False)


def scenario_describe_topic_partitions(side: Side) -> None:
    one, two, three = (side.topic(name, count) for name, count in (("pages1", 3), ("pages2", 1), ("pages3", 2)))
    missing = side.name("missing")

    def describe(step, *topics, limit=2000, cursor=None):
        where = cursor and {"topic_name": cursor[0], "partition_index": cursor[1]}
        fields = {"topics": [{"name": name} for name in topics], "response_partition_limit": limit, "cursor": where}
        return side.ask(step, "DescribeTopicPartitions", 0, **fields)

    describe("all three", one, two, three)
    describe("out of order", three, one, two)
    describe("unknown", missing)
    describe("unknown among others", one, missing, three)
    describe("twice", two, two)
    for number, name in enumerate(["", ".", "a/b", "x" * 250]):
        describe(f"name {number}", name)
    for limit in (1, 2, 3, 4, 5, 6, 0, -1, 2001, 1 << 30):
        describe(f"limit {limit}", one, two, three, limit=limit)
    for index in (0, 2, 3, 99, -1):
        describe(f"from {index} of the first", one, two, three, cursor=(one, index))
        describe(f"from {index} of the last", one, two, three, cursor=(three, index), limit=1)
    describe("from between", one, three, cursor=(two, 0))
    describe("from an unknown one", one, three, cursor=(missing, 0))
    describe("from behind all", one, two, cursor=("zzz", 0))
    every = side.talk.ask("DescribeTopicPartitions", 0, topics=[], response_partition_limit=2000, cursor=None)
    side.note("all there are", [topic["name"] for topic in every["topics"] if topic["name"] in (one, two, three)])


def scenario_alter_configs(side: Side) -> None:
    """The older call: what is not named returns to its default."""
    one = side.topic("alter", **{"retention.ms": "77", "max.message.bytes": "5000"})
    two = side.topic("other")

    def alter(step, *wanted, version=2, validate_only=False):
        rows = [
            {
                "resource_type": kind,
                "resource_name": name,
                "configs": [{"name": key, "value": value} for key, value in configs],
            }
            for kind, name, configs in wanted
        ]
        side.ask(step, "AlterConfigs", version, resources=rows, validate_only=validate_only)

    for version in range(2 + 1):
        alter(f"v{version}", (TOPIC, one, [("retention.ms", f"{version}"), ("segment.ms", "9")]), version=version)
        settings(side, TOPIC, one, {"retention.ms": f"{version}", "segment.ms": "9"})
    alter("validate only", (TOPIC, one, [("retention.ms", "5")]), validate_only=True)
    for step, configs in {
        "unknown": [("no.such.setting", "1")],
        "good and unknown": [("retention.ms", "5"), ("no.such.setting", "1")],
        "words": [("retention.ms", "soon")],
        "too small": [("segment.bytes", "1")],
        "empty name": [("", "1")],
        "null": [("retention.ms", None)],
        "twice": [("retention.ms", "5"), ("retention.ms", "6")],
        "of a broker": [("log.retention.ms", "5")],
        "lags crossed": [("min.compaction.lag.ms", "9"), ("max.compaction.lag.ms", "8")],
    }.items():
        alter(step, (TOPIC, one, configs))
        alter(f"{step}, validate only", (TOPIC, one, configs), validate_only=True)
    alter("one good, one bad", (TOPIC, two, [("retention.ms", "5")]), (TOPIC, one, [("retention.ms", "soon")]))
    settings(side, TOPIC, two, {"retention.ms": "5"})
    alter("the same twice", (TOPIC, two, [("retention.ms", "6")]), (TOPIC, two, [("retention.ms", "7")]))
    for number, name in enumerate([side.name("missing"), "", ".", "a/b", "x" * 250]):
        alter(f"name {number}", (TOPIC, name, [("retention.ms", "5")]))
    for kind in (0, 1, 3, 8, 99, -1):
        alter(f"type {kind}", (kind, "1", [("retention.ms", "5")]))
    for name in ("7", "x", "-1"):
        alter(f"broker {name}", (BROKER, name, [("message.max.bytes", "5000")]))
    alter("nothing")
    settings(side, TOPIC, one, {"retention.ms": "2", "segment.ms": "9"})
    alter("to the defaults", (TOPIC, one, []), (TOPIC, two, []))
    settings(side, TOPIC, one, {})
    settings(side, TOPIC, two, {})


def scenario_incremental_alter_configs(side: Side) -> None:
    one = side.topic("incremental", **{"retention.ms": "77"})
    two, three = side.topic("bystander"), side.topic("subtracted")

    def alter(step, *wanted, version=1, validate_only=False):
        rows = [
            {
                "resource_type": kind,
                "resource_name": name,
                "configs": [
                    {"name": key, "config_operation": operation, "value": value} for operation, key, value in configs
                ],
            }
            for kind, name, configs in wanted
        ]
        side.ask(step, "IncrementalAlterConfigs", version, resources=rows, validate_only=validate_only)

    for version in range(1 + 1):
        alter(f"v{version}", (TOPIC, one, [(SET, "segment.ms", f"{1 + version}")]), version=version)
        settings(side, TOPIC, one, {"retention.ms": "77", "segment.ms": f"{1 + version}"})
    alter("validate only", (TOPIC, one, [(SET, "segment.ms", "5")]), validate_only=True)
    alter("appended", (TOPIC, one, [(APPEND, "cleanup.policy", "compact")]))
    settings(side, TOPIC, one, {"retention.ms": "77", "segment.ms": "2", "cleanup.policy": "delete,compact"})
    alter("appended again", (TOPIC, one, [(APPEND, "cleanup.policy", "compact,delete")]))
    alter("subtracted, not in it", (TOPIC, three, [(SUBTRACT, "cleanup.policy", "compact")]))
    alter("subtracted", (TOPIC, one, [(SUBTRACT, "cleanup.policy", "delete"), (DELETE, "segment.ms", None)]))
    settings(side, TOPIC, one, {"retention.ms": "77", "cleanup.policy": "compact"})
    for step, configs in {
        "set: unknown": [(SET, "no.such.setting", "1")],
        "set: good and unknown": [(SET, "retention.ms", "5"), (SET, "no.such.setting", "1")],
        "set: words": [(SET, "retention.ms", "soon")],
        "set: null": [(SET, "retention.ms", None)],
        "set: twice": [(SET, "retention.ms", "5"), (SET, "retention.ms", "6")],
        "set and deleted": [(SET, "retention.ms", "5"), (DELETE, "retention.ms", None)],
        "appended: words": [(APPEND, "cleanup.policy", "burn")],
        "appended: null": [(APPEND, "cleanup.policy", None)],
        "appended: not a list": [(APPEND, "retention.ms", "5")],
        "subtracted: not a list": [(SUBTRACT, "retention.ms", "77")],
        "operation 4": [(4, "retention.ms", "5")],
        "operation -1": [(-1, "retention.ms", "5")],
    }.items():
        alter(step, (TOPIC, one, configs))
        alter(f"{step}, validate only", (TOPIC, one, configs), validate_only=True)
    alter("deleted: not set", (TOPIC, one, [(DELETE, "segment.ms", None)]))
    alter("deleted: with a value", (TOPIC, one, [(DELETE, "segment.ms", "5")]))
    alter("no operations", (TOPIC, one, []))
    alter("one good, one bad", (TOPIC, two, [(SET, "retention.ms", "5")]), (TOPIC, one, [(SET, "retention.ms", "x")]))
    settings(side, TOPIC, two, {"retention.ms": "5"})
    alter("the same twice", (TOPIC, two, [(SET, "retention.ms", "6")]), (TOPIC, two, [(SET, "segment.ms", "7")]))
    for number, name in enumerate([side.name("missing"), "", ".", "a/b", "x" * 250]):
        alter(f"name {number}", (TOPIC, name, [(SET, "retention.ms", "5")]))
    for kind in (0, 1, 3, 99, -1):
        alter(f"type {kind}", (kind, "1", [(SET, "retention.ms", "5")]))
    alter("nothing")
    settings(side, TOPIC, one, {"retention.ms": "77", "cleanup.policy": "compact"})
    settings(side, TOPIC, two, {"retention.ms": "5"})

    # The broker, and all brokers.
    alter("broker", (BROKER, "1", [(SET, "message.max.bytes", "900000"), (SET, "log.retention.ms", "99999999")]))
    settings(side, BROKER, "1", {"message.max.bytes": "900000", "log.retention.ms": "99999999"})
    alter("all brokers", (BROKER, "", [(SET, "log.segment.bytes", "2000000")]))
    settings(side, BROKER, "", {"log.segment.bytes": "2000000"})
    for step, name, configs in [
        ("other broker", "7", [(SET, "message.max.bytes", "5000")]),
        ("broker by a word", "x", [(SET, "message.max.bytes", "5000")]),
        ("broker: at a start only", "1", [(SET, "num.partitions", "3")]),
        ("all brokers: at a start only", "", [(SET, "num.partitions", "3")]),
        ("broker: good and at a start only", "1", [(SET, "log.retention.ms", "5"), (SET, "log.dirs", "/elsewhere")]),
        ("broker: words", "1", [(SET, "message.max.bytes", "many")]),
        ("broker: negative", "1", [(SET, "message.max.bytes", "-1")]),
        ("broker: null", "1", [(SET, "message.max.bytes", None)]),
        ("broker: appended to a number", "1", [(APPEND, "message.max.bytes", "5")]),
        ("broker: deleted, not set", "1", [(DELETE, "log.segment.bytes", None)]),
    ]:
        alter(step, (BROKER, name, configs))
    keys = ["message.max.bytes", "log.segment.bytes", "num.partitions"]
    asked = {"resource_type": BROKER, "resource_name": "1", "configuration_keys": keys}
    side.ask("broker described", "DescribeConfigs", 4, resources=[asked], include_synonyms=True)
    asked = {"resource_type": TOPIC, "resource_name": two, "configuration_keys": ["max.message.bytes", "segment.bytes"]}
    side.ask("topic described", "DescribeConfigs", 4, resources=[asked], include_synonyms=True)
    alter("broker again", (BROKER, "1", [(DELETE, "message.max.bytes", None), (DELETE, "log.retention.ms", None)]))
    alter("all brokers again", (BROKER, "", [(DELETE, "log.segment.bytes", None)]))
    settings(side, BROKER, "1", {})
    settings(side, BROKER, "", {})


def settings(side: Side, kind: int, name: str, expected: dict) -> None:
    """Waits until exactly these are set for the resource: a broker of Kafka's learns them a little later."""

    def own():
        resource = {"resource_type": kind, "resource_name": name, "configuration_keys": None}
        (found,) = side.talk.ask("DescribeConfigs", 4, resources=[resource])["results"]
        rows = [row for row in found["configs"] if row["config_source"] in DYNAMIC_SOURCES]
        # Kafka stores the default of this one as a dynamic one (KIP-966).
        return {row["name"]: row["value"] for row in rows if row["name"] != "min.insync.replicas"} == expected

    wait.until(f"{name or 'the default'} has {expected}", own, 10)


def scenario_config_resources(side: Side) -> None:
    mine = side.topic("listed")

    def listed(step, version, **fields):
        answer = side.talk.ask("ListConfigResources", version, **fields)
        rows = [(row.get("resource_type"), row["resource_name"]) for row in answer["config_resources"]]
        shown = sorted(row for row in rows if row[0] != TOPIC or row[1] == mine)
        side.note(step, {"error_code": answer["error_code"], "rows": [f"{kind} {name}" for kind, name in shown]})

    listed("v0", 0)
    listed("v1", 1, resource_types=[])
    for kind in (0, 1, 2, 4, 8, 16, 32, 99, -1):
        listed(f"type {kind}", 1, resource_types=[kind])
    listed("two", 1, resource_types=[2, 4])
    listed("one twice", 1, resource_types=[4, 4])
    listed("one unknown", 1, resource_types=[2, 99])


def scenario_delete_records(side: Side) -> None:
    one, compacted = side.topic("shrinks", 2), side.topic("shrinksc", **{"cleanup.policy": "compact"})
    both = side.topic("shrinksb", **{"cleanup.policy": "compact,delete"})
    side.coordinator(side.name("g"))  # so that __consumer_offsets is there

    def produce(topic, index, count):
        for _ in range(count):
            data = [{"name": topic, "partition_data": [{"index": index, "records": batch(b"r")}]}]
            answer = side.talk.ask("Produce", 9, acks=-1, timeout_ms=10_000, topic_data=data)
            assert answer["responses"][0]["partition_responses"][0]["error_code"] == 0, answer

    def delete(step, *wanted, version=2, timeout_ms=10_000):
        rows: dict[str, list] = {}
        for topic, index, offset in wanted:
            rows.setdefault(topic, []).append({"partition_index": index, "offset": offset})
        topics = [{"name": name, "partitions": partitions} for name, partitions in rows.items()]
        side.ask(step, "DeleteRecords", version, topics=topics, timeout_ms=timeout_ms)

    produce(one, 0, 9)
    for version in range(2 + 1):
        delete(f"v{version}", (one, 0, 1 + version), version=version)
    for offset in (3, 2, 0, 10, 1 << 62, -2, -(1 << 63)):
        delete(f"to {offset}", (one, 0, offset))
    side.ask("where it starts", "ListOffsets", 7, **offsets(one, (0, -2), (0, -1)))
    side.ask("by time", "ListOffsets", 7, **offsets(one, (0, 0)))
    for index in (2, -1, 2147483647):
        delete(f"partition {index}", (one, index, 0))
    for number, name in enumerate([side.name("missing"), "", ".", "a/b", "x" * 250]):
        delete(f"name {number}", (name, 0, 0))
    delete("internal", ("__consumer_offsets", 0, 0))
    delete("compacted", (compacted, 0, 0))
    delete("compacted and deleted", (both, 0, 0))
    delete("empty", (one, 1, 0), (side.name("missing"), 0, 0))
    delete("empty, to its end", (one, 1, -1))
    delete("no time", (one, 0, 4), timeout_ms=0)
    delete("none")
    side.ask("no partitions", "DeleteRecords", 2, topics=[{"name": one, "partitions": []}], timeout_ms=10_000)
    delete("everything", (one, 0, -1))
    side.ask("where it starts now", "ListOffsets", 7, **offsets(one, (0, -2), (0, -1)))
    produce(one, 0, 1)
    asked = [{"partition": 0, "fetch_offset": 4, "partition_max_bytes": 1 << 20, "current_leader_epoch": -1}]
    limits = {"replica_id": -1, "max_wait_ms": 50, "min_bytes": 1, "max_bytes": 1 << 20, "isolation_level": 0}
    session = {"session_id": 0, "session_epoch": -1, "forgotten_topics_data": []}
    for step, offset in (("what is gone", 4), ("what came since", 9)):
        asked[0]["fetch_offset"] = offset
        side.ask(step, "Fetch", 12, topics=[{"topic": one, "partitions": asked}], **limits, **session)


def scenario_delete_groups(side: Side) -> None:
    topic, other = side.topic("forgotten", 3), side.topic("kept")
    idle, busy, connect = side.name("idle"), side.name("busy"), side.name("connect")
    for group in (idle, busy, connect):
        side.coordinator(group)

    def commit(group, name, *indexes):
        rows = [{"partition_index": n, "committed_offset": 5, "committed_metadata": ""} for n in indexes]
        simple = {"generation_id_or_member_epoch": -1, "member_id": ""}
        answer = side.talk.ask("OffsetCommit", 8, group_id=group, topics=[{"name": name, "partitions": rows}], **simple)
        assert {part["error_code"] for part in answer["topics"][0]["partitions"]} == {0}, answer

    def join(group, kind):
        """One member that reads `topic` and stays."""
        reads = wire.int16(0) + wire.array(wire.string(topic)) + wire.bytes_(None)
        wanted = {"kind": kind, "protocols": (("range", reads),), "session": 60_000}
        told = side.talk.ask("JoinGroup", 5, **joining(group, **wanted))
        member = told["member_id"]
        joined = side.talk.ask("JoinGroup", 5, **joining(group, member, **wanted))
        fields = {"group_id": group, "generation_id": joined["generation_id"], "member_id": member}
        plan = [{"member_id": member, "assignment": b""}]
        synced = side.talk.ask("SyncGroup", 3, assignments=plan, **fields)
        assert synced["error_code"] == 0, synced
        return fields

    def forget(step, group, *wanted):
        rows: dict[str, list] = {}
        for name, index in wanted:
            rows.setdefault(name, []).append({"partition_index": index})
        topics = [{"name": name, "partitions": partitions} for name, partitions in rows.items()]
        side.ask(step, "OffsetDelete", 0, group_id=group, topics=topics)

    def left(step, group):
        side.ask(step, "OffsetFetch", 8, groups=[{"group_id": group, "topics": None}])

    for group in (idle, busy):
        commit(group, topic, 0, 1, 2)
        commit(group, other, 0)
    forget("offset", idle, (topic, 0))
    forget("offset again", idle, (topic, 0))
    forget("several", idle, (topic, 1), (topic, 9), (topic, -1), (side.name("missing"), 0), ("", 0), ("a/b", 0))
    forget("no topics", idle)
    forget("unknown group", side.name("nogroup"), (topic, 0))
    forget("unknown group, unknown topic", side.name("nogroup"), (side.name("missing"), 0))
    forget("empty group id", "", (topic, 0))
    left("what is left", idle)
    joined = join(busy, "consumer")
    forget("subscribed", busy, (topic, 0), (other, 0))
    left("of the subscribed", busy)
    join(connect, "connect")
    forget("of another kind", connect, (topic, 0))

    for version in range(2 + 1):
        side.ask(f"unknown v{version}", "DeleteGroups", version, groups_names=[side.name("nogroup")])
    side.ask("several groups", "DeleteGroups", 2, groups_names=[idle, busy, connect, side.name("nogroup"), ""])
    side.ask("a deleted group", "DeleteGroups", 2, groups_names=[idle])
    side.ask("one group twice", "DeleteGroups", 2, groups_names=[busy, busy])
    side.ask("no groups", "DeleteGroups", 2, groups_names=[])
    left("of the deleted", idle)
    side.ask("the deleted described", "DescribeGroups", 6, groups=[idle])
    gone = [{"member_id": joined["member_id"], "group_instance_id": None}]
    side.talk.ask("LeaveGroup", 4, group_id=busy, members=gone)
    side.ask("when all have left", "DeleteGroups", 2, groups_names=[busy])
    left("of the left", busy)
