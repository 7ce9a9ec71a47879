"""Answers to single requests that only raw frames can ask: Kafka's error codes, to the letter."""

import pytest

from harness import librdkafka as lib
from harness import wait, wire
from harness.wire import array, bytes_, int8, int16, int32, int64, string


@pytest.fixture
def link(bootstrap):
    with wire.Connection(bootstrap) as connection:
        yield connection


@pytest.fixture
def topic(bootstrap, link, fresh):
    """A topic whose leader answers already; raw requests do not retry."""
    name = lib.create_topic(bootstrap, fresh("raw"))
    wait.until("the leader answers", lambda: wire.fetch_error(link, name, 0, 0) == wire.NONE)
    return name


def test_api_versions_at_an_unknown_version_is_answered_in_v0_and_the_connection_stays(link):  # contract P1
    answer = link.ask(wire.API_VERSIONS, 99, b"\x01\x01\x00")
    assert answer.int16() == wire.UNSUPPORTED_VERSION
    ranges = answer.array(lambda r: (r.int16(), r.int16(), r.int16()))
    assert [low for key, low, _ in ranges if key == wire.API_VERSIONS] == [0]
    assert answer.at == len(answer.raw), "a v0 body has nothing after the list"
    assert wire.api_versions(link)


def test_produce_and_join_group_are_advertised_from_version_0(link):  # contract P2
    ranges = wire.api_versions(link)
    assert ranges[wire.PRODUCE][0] == 0
    assert ranges[wire.JOIN_GROUP][0] == 0


def test_pipelined_requests_are_answered_in_order(link, topic):  # contract P4
    frames = []
    for number in range(200):
        api, version, body = (
            (wire.PRODUCE, 3, wire.produce_body(topic, 0, wire.batch([b"x"]))),
            (wire.METADATA, 1, array(string(topic))),
            (wire.API_VERSIONS, 0, b""),
        )[number % 3]
        frames.append(wire.request(api, version, body, correlation=number))
    link.send(b"".join(frames))
    for number in range(200):
        link.answer(number)


def test_a_produce_with_acks_0_gets_no_bytes_at_all(link, topic):  # contract P4
    link.send(wire.request(wire.PRODUCE, 3, wire.produce_body(topic, 0, wire.batch([b"x"]), acks=0), 7))
    link.send(wire.request(wire.API_VERSIONS, 0, b"", 8))
    link.answer(8)


@pytest.mark.parametrize("acks", [2, -2])
def test_impossible_acks_are_refused(link, topic, acks):
    answer = link.ask(wire.PRODUCE, 3, wire.produce_body(topic, 0, wire.batch([b"x"]), acks=acks))
    assert _produce_error(answer) == 21


WRONG_BATCHES = {
    "a wrong CRC": (wire.batch([b"x"], crc_flip=1), wire.CORRUPT_MESSAGE),
    "a count that is too high": (wire.batch([b"x"], count=2), wire.INVALID_RECORD),
    "a last offset delta that disagrees": (wire.batch([b"x"], last_delta=5), wire.INVALID_RECORD),
    "a control batch": (wire.batch([b"x"], attributes=0x20), wire.INVALID_RECORD),
    "two batches": (wire.batch([b"x"]) + wire.batch([b"y"]), wire.INVALID_RECORD),
    "no batch": (b"", wire.INVALID_RECORD),
    "a negative sequence of a producer id": (wire.batch([b"x"], producer=(5, 0, -1)), wire.INVALID_RECORD),
    "a length beyond the end": (wire.batch([b"x"], length_add=9), wire.INVALID_RECORD),
}


@pytest.mark.parametrize("what", WRONG_BATCHES)
def test_a_wrong_batch_is_refused_and_nothing_is_appended(bootstrap, link, topic, what):  # contract L3
    records, expected = WRONG_BATCHES[what]
    assert wire.produce(link, topic, 0, records)[0] == expected
    assert lib.total_records(bootstrap, topic, 1) == 0
    assert wire.produce(link, topic, 0, wire.batch([b"good"])) == (wire.NONE, 0)


def test_a_repeated_sequence_gets_its_first_offset_and_a_gap_is_refused(link, topic):  # contract T1
    producer_id, epoch = wait.until("a producer id is given", lambda: _new_producer(link))
    one = wire.batch([b"a", b"b"], producer=(producer_id, epoch, 0))
    two = wire.batch([b"c"], producer=(producer_id, epoch, 2))
    assert wire.produce(link, topic, 0, one) == (wire.NONE, 0)
    assert wire.produce(link, topic, 0, two) == (wire.NONE, 2)
    assert wire.produce(link, topic, 0, one) == (wire.NONE, 0)
    gap = wire.batch([b"e"], producer=(producer_id, epoch, 9))
    assert wire.produce(link, topic, 0, gap)[0] == wire.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert wire.produce(link, topic, 0, wire.batch([b"d"], producer=(producer_id, epoch, 3))) == (wire.NONE, 3)


def test_unknown_topics_and_partitions_are_named_so(link, topic, fresh):
    missing = fresh("missing")
    for where in ((missing, 0), (topic, 1), (topic, -1)):
        assert wire.fetch_error(link, *where, 0) == wire.UNKNOWN_TOPIC_OR_PARTITION
    for where in ((missing, 0), (topic, 1)):
        assert wire.produce(link, *where, wire.batch([b"x"]))[0] == wire.UNKNOWN_TOPIC_OR_PARTITION
        assert _list_offsets_error(link, *where) == wire.UNKNOWN_TOPIC_OR_PARTITION


def test_metadata_without_auto_creation_does_not_create(link, fresh):  # contract P7
    missing = fresh("missing")
    for _ in range(2):
        answer = link.ask(wire.METADATA, 4, array(string(missing)) + int8(0))
        answer.int32()
        answer.array(lambda r: (r.int32(), r.string(), r.int32(), r.string()))
        answer.string(), answer.int32()
        assert answer.int32() == 1 and answer.int16() == wire.UNKNOWN_TOPIC_OR_PARTITION


@pytest.mark.parametrize("offset", [1, 1000, 1 << 62, -5])
def test_offsets_out_of_range_are_refused(link, topic, offset):  # contract F1
    assert wire.fetch_error(link, topic, 0, offset) == wire.OFFSET_OUT_OF_RANGE


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "naïve", "x" * 250, "a\x00b", "a:b"])
def test_an_invalid_topic_name_is_refused(link, name):
    assert wire.create_topic_error(link, name)[0] == wire.INVALID_TOPIC_EXCEPTION


def test_invalid_settings_are_refused_with_a_message(link, fresh):
    for configs in ({"retention.ms": "-9"}, {"segment.bytes": "1"}, {"compression.type": "rar"}, {"": "x"}):
        error, message = wire.create_topic_error(link, fresh("refused"), configs=configs)
        assert (error, bool(message)) == (wire.INVALID_CONFIG, True), configs


def test_the_same_topic_twice_in_one_request_is_refused(link, fresh):
    entry = string(fresh("twice")) + int32(1) + int16(1) + array() + array()
    answer = link.ask(wire.CREATE_TOPICS, 2, array(entry, entry) + int32(10_000) + int8(0))
    answer.int32()
    assert {e for _, e, _ in answer.array(lambda r: (r.string(), r.int16(), r.string()))} == {42}


def test_an_unknown_member_is_told_so(bootstrap, link, fresh):
    group = fresh("g")
    find_coordinator(link, group)
    heartbeat = string(group) + int32(0) + string("nobody")
    assert link.ask(wire.HEARTBEAT, 0, heartbeat).int16() == wire.UNKNOWN_MEMBER_ID
    assert link.ask(wire.SYNC_GROUP, 0, heartbeat + array()).int16() == wire.UNKNOWN_MEMBER_ID
    assert link.ask(wire.LEAVE_GROUP, 0, string(group) + string("nobody")).int16() == wire.UNKNOWN_MEMBER_ID


def test_a_commit_with_a_generation_the_group_does_not_have_is_refused(link, topic, fresh):
    group = fresh("g")
    find_coordinator(link, group)
    parts = array(string(topic) + array(int32(0) + int64(5) + string(None)))
    answer = link.ask(wire.OFFSET_COMMIT, 2, string(group) + int32(3) + string("nobody") + int64(-1) + parts)
    ((_, ((_, error),)),) = answer.array(lambda r: (r.string(), r.array(lambda q: (q.int32(), q.int16()))))
    assert error in (wire.ILLEGAL_GENERATION, wire.UNKNOWN_MEMBER_ID)


def test_an_unknown_group_is_described_as_dead_and_has_no_offsets(link, topic, fresh):  # contract G4
    group = fresh("g")
    find_coordinator(link, group)
    answer = link.ask(wire.DESCRIBE_GROUPS, 0, array(string(group)))
    assert (answer.int32(), answer.int16(), answer.string(), answer.string()) == (1, wire.NONE, group, "Dead")
    answer = link.ask(wire.OFFSET_FETCH, 1, string(group) + array(string(topic) + array(int32(0))))
    part = lambda r: (r.int32(), r.int64(), r.string(), r.int16())  # noqa: E731
    ((_, found),) = answer.array(lambda r: (r.string(), r.array(part)))
    assert found == [(0, -1, "", wire.NONE)]


@pytest.mark.parametrize(
    ("group", "session_ms", "kind", "error"),
    [("", 10_000, "consumer", 24), ("g", 1, "consumer", 26), ("g", 1 << 30, "consumer", 26), ("g", 10_000, "", 23)],
)
def test_an_impossible_join_is_refused(link, fresh, group, session_ms, kind, error):
    name = group and fresh(group)
    find_coordinator(link, name or "any")
    body = string(name) + int32(session_ms) + string("") + string(kind) + array(string("range") + bytes_(b""))
    assert link.ask(wire.JOIN_GROUP, 0, body).int16() == error


def find_coordinator(link, group):
    """Asks until the coordinator is there, as clients do while it loads."""

    def asked():
        answer = link.ask(wire.FIND_COORDINATOR, 0, string(group))
        return answer.int16() == wire.NONE

    wait.until("the coordinator is known", asked, 20)
    heartbeat = string(group) + int32(0) + string("nobody")
    loading = (14, 15, 16)
    wait.until("the coordinator has loaded", lambda: link.ask(wire.HEARTBEAT, 0, heartbeat).int16() not in loading, 20)


def _new_producer(link):
    """(id, epoch), or None while the coordinator loads."""
    answer = link.ask(wire.INIT_PRODUCER_ID, 0, string(None) + int32(60_000))
    answer.int32()
    return (answer.int64(), answer.int16()) if answer.int16() == wire.NONE else None


def _produce_error(answer):
    one = lambda r: (r.int32(), r.int16(), r.int64(), r.int64())  # noqa: E731
    ((_, parts),) = answer.array(lambda r: (r.string(), r.array(one)))
    return parts[0][1]


def _list_offsets_error(link, topic, partition):
    body = int32(-1) + array(string(topic) + array(int32(partition) + int64(-1)))
    one = lambda r: (r.int32(), r.int16(), r.int64(), r.int64())  # noqa: E731
    ((_, parts),) = link.ask(wire.LIST_OFFSETS, 1, body).array(lambda r: (r.string(), r.array(one)))
    return parts[0][1]
