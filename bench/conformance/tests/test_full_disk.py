"""A full disk on a real file system of its own: producers are told, nobody crashes, nothing acknowledged is lost or
doubled, and it all goes on without a restart when there is space again."""

import time

import pytest

from harness import librdkafka as lib
from harness.load import Writer, value_of
from harness.metrics import scrape
from harness.small_disk import SmallDisk

pytestmark = pytest.mark.heizer

MIB = 1 << 20
DISK_MIB = 96
SETTINGS = {"group.initial.rebalance.delay.ms": 0, "offsets.topic.num.partitions": 1}
# What the broker says of a full disk, of buffered files (a tmpfs of an older kernel), and after a kill.
EXPECTED_LOG = (r"the disk is full: appends are refused", r"no direct I/O here", r"cut the end off")


@pytest.fixture
def disk(tmp_path):
    # Where the first broker of `start_broker` has its data.
    with SmallDisk(tmp_path / "broker-0" / "data", DISK_MIB) as disk:
        yield disk


@pytest.fixture
def broker(disk, start_broker):
    broker = start_broker(SETTINGS, prefix=disk.prefix)
    broker.expect_log(*EXPECTED_LOG)
    return broker


def said(broker, text: str) -> int:
    return broker.log_path.read_text().count(text)


class Filler:
    """An idempotent producer of numbered records, which stops at the first that is not delivered in time."""

    def __init__(self, bootstrap: str, topic: str, first: int, timeout_ms: int = 8_000):
        self.topic = topic
        self.next = first
        self.delivered: dict[int, int] = {}
        self.errors: list = []
        settings = {"enable_idempotence": True, "acks": "all", "message_timeout_ms": timeout_ms, "linger_ms": 2}
        self._client = lib.producer(bootstrap, queue_buffering_max_messages=200, **settings)

    def send(self, count: int) -> None:
        for _ in range(count):
            number = self.next
            note = lambda e, m, number=number: self._report(e, m, number)  # noqa: E731
            lib.send(self._client, self.topic, value=b"%08d" % number * 2_000, on_delivery=note)
            self.next += 1
            self._client.poll(0)

    def until_refused(self, bytes_max: int) -> None:
        while not self.errors:
            assert self.next * 16_000 < bytes_max, "more than the disk holds"
            self.send(10)
        self.flush()

    def flush(self) -> None:
        assert self._client.flush(60) == 0, "records are still undelivered"

    def _report(self, error, message, number: int) -> None:
        if error:
            self.errors.append(error)
        else:
            self.delivered[number] = message.offset()


def assert_kept(broker, topic: str, delivered: dict) -> None:
    """Every acknowledged record once and where it was acknowledged. Of the others any may be there, but once."""
    found = [(m.offset(), int(m.value()[:8])) for m in lib.read_topic(broker.bootstrap, topic, check_crcs=True)[0]]
    places = {number: offset for offset, number in found}
    assert len(places) == len(found), "a record is there twice"
    assert [offset for offset, _ in found] == list(range(len(found)))
    for number, offset in delivered.items():
        assert places.get(number) == offset, f"acknowledged record {number} is not at {offset}"


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_producer_fills_the_disk_and_goes_on_when_a_topic_is_deleted(disk, broker, measured):
    kept = lib.create_topic(broker.bootstrap, "kept", segment_bytes=4 * MIB)
    doomed = lib.create_topic(broker.bootstrap, "doomed", segment_bytes=4 * MIB)
    filler = Filler(broker.bootstrap, doomed, 0)
    filler.send(20 * MIB // 16_000)
    filler.flush()
    assert not filler.errors and scrape(broker).value("heizer_log_dir_refusing") == 0

    first = Filler(broker.bootstrap, kept, 0)
    first.until_refused(DISK_MIB * MIB)
    assert scrape(broker).value("heizer_log_dir_refusing") == 1
    assert said(broker, "the disk is full") == 1, "one line, not one for each request"
    free, reserve = disk.free_bytes, scrape(broker).value("heizer_log_dir_reserve_bytes")
    measured(f"{len(first.delivered)} records of 16 kB taken, {free >> 10} KiB of {DISK_MIB} MiB left free")
    assert reserve / 2 < free < reserve + 2 * MIB, "refused at the reserve, neither before nor after"
    assert_kept(broker, kept, first.delivered)

    # The broker's own records have their part of the reserve.
    client = lib.consumer(broker.bootstrap, "g")
    client.subscribe([kept])
    taken = lib.drain(client, 20)
    client.commit(message=taken[-1], asynchronous=False)
    client.close()

    broker.kill()
    broker.start()
    assert_kept(broker, kept, first.delivered)
    # A start gives back what was reserved ahead: a little is taken before it is full again.
    second = Filler(broker.bootstrap, kept, first.next, timeout_ms=3_000)
    second.until_refused(DISK_MIB * MIB)
    assert scrape(broker).value("heizer_log_dir_refusing") == 1 and len(second.delivered) * 16_000 < 4 * MIB

    admin = lib.admin(broker.bootstrap)
    admin.delete_topics([doomed])[doomed].result(lib.TIMEOUT_S)
    third = Filler(broker.bootstrap, kept, second.next, timeout_ms=30_000)
    third.send(200)
    third.flush()
    assert not third.errors and scrape(broker).value("heizer_log_dir_refusing") == 0
    assert said(broker, "there is space again") >= 1
    assert_kept(broker, kept, {**first.delivered, **second.delivered, **third.delivered})


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_somebody_else_fills_the_disk_to_the_brim(disk, broker, measured):
    topic, partitions = lib.create_topic(broker.bootstrap, "busy", 3, segment_bytes=1 * MIB), 3
    doomed = lib.create_topic(broker.bootstrap, "doomed")
    admin = lib.admin(broker.bootstrap)
    writer = Writer(broker.bootstrap, topic, partitions, idempotent=True).start()
    try:
        for number in range(3):
            writer.await_progress(300)
            disk.fill()
            time.sleep(3)
            broker.assert_alive()
            found = lib.read_topic(broker.bootstrap, topic, partitions)
            assert sum(map(len, found.values())) >= len(writer.delivered) - 3_000, "reading goes on"
            if number == 1:
                # Raft has kept room for this much.
                admin.delete_topics([doomed])[doomed].result(lib.TIMEOUT_S)
            if number == 2:
                broker.kill()
                broker.start()
                broker.assert_alive()
            disk.relieve()
            began = time.monotonic()
            writer.await_progress(300)
            measured(f"records are taken again {time.monotonic() - began:.1f} s after there is space")
    finally:
        writer.finish()
    found = lib.read_topic(broker.bootstrap, topic, partitions, check_crcs=True)
    for partition in range(partitions):
        count = len(range(partition, writer.produced, partitions))
        order = [int(m.value().split(b":", 2)[1]) for m in found[partition]]
        assert order == list(range(count)), f"partition {partition}: not every record once and in order"
        assert all(m.value() == value_of(partition, n) for n, m in enumerate(found[partition]))
