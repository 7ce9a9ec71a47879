"""Records: producing, fetching, looking offsets up, producer ids, and finding coordinators."""

from uuid import UUID

from harness import wait, wire

from .side import NIL, NOW_MS, Side, batch

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
