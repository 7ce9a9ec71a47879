"""confluent-kafka as a consumer without and within groups, on the classic group protocol."""

import itertools

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, OFFSET_INVALID, TopicPartition

from harness import librdkafka as lib
from harness import wait


def filled(bootstrap, topic, partitions, per_partition):
    """A topic with `per_partition` numbered records in each partition."""
    lib.create_topic(bootstrap, topic, partitions)
    pairs = itertools.product(range(per_partition), range(partitions))
    records = ({"value": f"{p}:{n}".encode(), "partition": p, "timestamp": 1_700_000_000_000 + n} for n, p in pairs)
    lib.produce_all(bootstrap, topic, records)
    return topic


def share_of(members, partitions):
    """True once the members hold every partition, each exactly once, and none is without."""
    lib.poll_all(members)
    held = [lib.assignment_ids(m) for m in members]
    return all(held) and sorted(itertools.chain(*held)) == list(range(partitions))


def test_a_committed_group_goes_on_where_it_stopped(bootstrap, fresh):
    topic, group = filled(bootstrap, fresh("group"), 1, 100), fresh("g")
    first = lib.consumer(bootstrap, group)
    first.subscribe([topic])
    taken = lib.drain(first, 100)[:40]
    first.commit(offsets=[TopicPartition(topic, 0, taken[-1].offset() + 1)], asynchronous=False)
    first.close()
    second = lib.consumer(bootstrap, group)
    second.subscribe([topic])
    assert [m.offset() for m in lib.drain(second, 60)] == list(range(40, 100))
    second.close()


def test_committed_tells_offset_and_metadata_and_nothing_for_the_rest(bootstrap, fresh):  # contract G3
    topic = filled(bootstrap, fresh("group"), 2, 5)
    client = lib.consumer(bootstrap, fresh("g"))
    client.commit(offsets=[TopicPartition(topic, 1, 3, metadata="noted by hand")], asynchronous=False)
    none, some = client.committed([TopicPartition(topic, 0), TopicPartition(topic, 1)], timeout=10)
    assert (none.offset, some.offset, some.metadata) == (OFFSET_INVALID, 3, "noted by hand")
    client.close()


def test_auto_commit_commits_at_close(bootstrap, fresh):
    topic, group = filled(bootstrap, fresh("group"), 1, 10), fresh("g")
    client = lib.consumer(bootstrap, group, enable_auto_commit=True)
    client.subscribe([topic])
    lib.drain(client, 10)
    client.close()
    reader = lib.consumer(bootstrap, group)
    assert reader.committed([TopicPartition(topic, 0)], timeout=10)[0].offset == 10
    reader.close()


def test_members_share_the_partitions_and_take_over_from_one_that_leaves(bootstrap, fresh):
    topic, group = filled(bootstrap, fresh("group"), 6, 1), fresh("g")
    members = [lib.consumer(bootstrap, group) for _ in range(3)]
    for member in members:
        member.subscribe([topic])
    wait.until("three members share six partitions", lambda: share_of(members, 6))
    members.pop().close()
    wait.until("two members share six partitions", lambda: share_of(members, 6))
    for member in members:
        member.close()


def test_a_cooperative_group_moves_only_what_it_must(bootstrap, fresh):  # contract G1
    topic, group = filled(bootstrap, fresh("group"), 4, 1), fresh("g")
    revoked = []
    settings = {"partition_assignment_strategy": "cooperative-sticky"}
    first = lib.consumer(bootstrap, group, **settings)
    first.subscribe([topic], on_revoke=lambda _, parts: revoked.append({p.partition for p in parts}))
    wait.until("one member holds all four", lambda: share_of([first], 4))
    second = lib.consumer(bootstrap, group, **settings)
    second.subscribe([topic])
    wait.until("two members share four partitions", lambda: share_of([first, second], 4))
    assert revoked == [lib.assignment_ids(second)]
    assert len(lib.assignment_ids(first)) == 2
    first.close()
    second.close()


def test_a_static_member_that_comes_back_keeps_its_partitions(bootstrap, fresh):  # KIP-345
    topic, group = filled(bootstrap, fresh("group"), 4, 1), fresh("g")
    changes = []

    def join(name):
        member = lib.consumer(bootstrap, group, group_instance_id=name, session_timeout_ms=30_000)
        member.subscribe([topic], on_assign=lambda *_: changes.append(name), on_revoke=lambda *_: changes.append(name))
        return member

    north, south = join("north"), join("south")
    wait.until("two members share four partitions", lambda: share_of([north, south], 4))
    held = lib.assignment_ids(south)
    changes.clear()
    south.close()
    south = join("south")
    wait.until("the same share again", lambda: share_of([north, south], 4))
    assert lib.assignment_ids(south) == held
    assert "north" not in changes, "the one that stayed must not see a rebalance"
    north.close()
    south.close()


def test_seek_goes_back_and_forward(bootstrap, fresh):
    topic = filled(bootstrap, fresh("seek"), 1, 100)
    client = lib.consumer(bootstrap, fresh("g"))
    client.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    assert lib.drain(client, 100)[0].offset() == 0
    for target in (90, 10, 99, 0):
        client.seek(TopicPartition(topic, 0, target))
        assert lib.drain(client, 1)[0].offset() == target
    client.close()


def test_reading_from_the_end_sees_only_what_comes_later(bootstrap, fresh):
    topic = filled(bootstrap, fresh("tail"), 1, 20)
    client = lib.consumer(bootstrap, fresh("g"))
    client.assign([TopicPartition(topic, 0, OFFSET_END)])
    assert client.consume(1, 1.0) == []
    lib.produce_all(bootstrap, topic, [{"value": b"late"}])
    (message,) = lib.drain(client, 1)
    assert (message.offset(), message.value()) == (20, b"late")
    client.close()


def test_offsets_for_times_finds_the_first_at_or_after(bootstrap, fresh):  # contract L7
    topic = filled(bootstrap, fresh("times"), 1, 50)
    client = lib.consumer(bootstrap, fresh("g"))

    def at(time_ms):
        return client.offsets_for_times([TopicPartition(topic, 0, time_ms)], timeout=10)[0].offset

    assert at(0) == 0
    assert at(1_700_000_000_000 + 17) == 17
    assert at(1_700_000_000_000 + 50) == OFFSET_END
    client.close()


def test_an_offset_out_of_range_follows_the_reset_policy(bootstrap, fresh):  # contract F1
    topic = filled(bootstrap, fresh("reset"), 1, 10)
    client = lib.consumer(bootstrap, fresh("g"), auto_offset_reset="earliest")
    client.assign([TopicPartition(topic, 0, 5000)])
    assert lib.drain(client, 1)[0].offset() == 0
    client.close()


def test_a_pattern_subscription_finds_its_topics(bootstrap, fresh):
    stem = fresh("pattern")
    for name in ("a", "b"):
        filled(bootstrap, f"{stem}.{name}", 1, 3)
    client = lib.consumer(bootstrap, fresh("g"))
    client.subscribe([f"^{stem}\\..*"])
    assert {m.topic() for m in lib.drain(client, 6)} == {f"{stem}.a", f"{stem}.b"}
    client.close()
