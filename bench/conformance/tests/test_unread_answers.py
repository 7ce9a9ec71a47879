"""Requests that cost far more to answer than to send must cost the broker neither its memory nor its time."""

import time

import pytest

from harness import librdkafka as lib
from harness import wait, wire
from harness.wire import array, int8, int32, int64, string

pytestmark = pytest.mark.heizer


def test_answers_that_nobody_reads_leave_memory_where_it_was(broker, fresh):
    name = lib.create_topic(broker.bootstrap, fresh("unread"))
    with wire.Connection(broker.bootstrap) as link:
        wait.until("the leader answers", lambda: wire.fetch_error(link, name, 0, 0) == wire.NONE)
        for _ in range(40):
            assert wire.produce(link, name, 0, wire.batch([b"x" * 1_000_000]))[0] == wire.NONE
    before = broker.resident_mib()
    body = int32(-1) + int32(100) + int32(1) + int32(100 << 20) + int8(0)
    body += array(string(name) + array(int32(0) + int64(0) + int32(100 << 20)))
    deaf = [wire.Connection(broker.bootstrap) for _ in range(4)]
    try:
        for link in deaf:
            link.send(b"".join(wire.request(wire.FETCH, 4, body, number) for number in range(64)))
        time.sleep(2)
        assert broker.resident_mib() < before + broker.MEMORY_MARGIN_MIB
        with wire.Connection(broker.bootstrap) as link:
            others = link.ask(wire.FETCH, 4, body)
            assert len(others.raw) > 1_000_000, "others read on meanwhile"
        answers = [deaf[0].answer(number) for number in range(64)]
        assert len(answers[0].raw) > 1_000_000, "whoever reads after all gets every answer, if few with records"
    finally:
        for link in deaf:
            link.socket.close()


def test_a_fetch_of_very_many_topics_does_not_stop_the_others(broker):
    topics = [string(f"missing-{n}") + array(int32(0) + int64(0) + int32(1)) for n in range(50_000)]
    body = int32(-1) + int32(100) + int32(1) + int32(1 << 20) + int8(0) + array(*topics)
    with wire.Connection(broker.bootstrap) as link:
        began = time.monotonic()
        link.ask(wire.FETCH, 4, body)
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("partitions", [100_001, (1 << 31) - 1])
def test_a_topic_of_absurdly_many_partitions_is_refused(broker, fresh, partitions):
    entry = string(fresh("huge")) + int32(partitions) + wire.int16(1) + array() + array()
    with wire.Connection(broker.bootstrap) as link:
        before = broker.resident_mib()
        answer = link.ask(wire.CREATE_TOPICS, 2, array(entry) + int32(10_000) + int8(0))
        answer.int32()
        assert answer.array(lambda r: (r.string(), r.int16(), r.string()))[0][1] == 37
        assert broker.resident_mib() < before + broker.MEMORY_MARGIN_MIB
