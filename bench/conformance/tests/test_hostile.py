"""Hostile and broken peers over raw sockets. The broker stays up, its memory stays where it was, and an honest
producer beside them never notices."""

import random
import socket
import struct
import threading
import time

import pytest

from harness import librdkafka as lib
from harness import wait, wire
from harness.load import Bystander

HUGE = b"\x7f\xff\xff\xff"
HUGE_VARINT = b"\xff\xff\xff\xff\x0f"

GARBAGE = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "TLS": bytes.fromhex("1603010200010001fc0303") + bytes(64),
    "a negative size": struct.pack(">i", -1),
    "the largest size": HUGE + bytes(1000),
    "a size beyond the limit": struct.pack(">i", 1 << 30) + bytes(1000),
    "a frame too small for a header": wire.int32(2) + b"\x00\x12",
    "random bytes in a frame": wire.int32(64) + random.Random(1).randbytes(64),
    "a client id beyond the frame": wire.int32(12) + struct.pack(">hhih", 18, 0, 1, 32767) + b"ab",
}


@pytest.fixture
def victim(broker):
    """A broker of one's own; it may warn about its peers, but neither err nor die."""
    broker.expect_log(r"\bWARN\b")
    lib.create_topic(broker.bootstrap, "honest")
    yield broker
    broker.assert_alive()


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_ends_its_own_connection_only(target, fresh, what):
    with Bystander(target.bootstrap, lib.create_topic(target.bootstrap, fresh("honest"))):
        with wire.Connection(target.bootstrap) as hostile:
            hostile.send(GARBAGE[what])
            assert hostile.closed_within(10), "the broker must hang up"
    _forgive(target)


@pytest.mark.parametrize(
    ("api", "version"), [(9999, 0), (-1, 0), (wire.METADATA, 99), (wire.FETCH, -1), (wire.PRODUCE, 2)]
)
def test_an_unknown_api_or_version_ends_its_own_connection_only(target, fresh, api, version):  # contract P2, P3
    with Bystander(target.bootstrap, lib.create_topic(target.bootstrap, fresh("honest"))):
        with wire.Connection(target.bootstrap) as hostile:
            hostile.send(wire.request(api, version, bytes(50)))
            assert hostile.closed_within(10), "the broker must hang up"
    _forgive(target)


def _forgive(target):
    """Warnings about a hostile peer are right on the shared broker, too."""
    if target.server is not None:
        target.server.expect_log(r"WARN.*(connection|request|frame|api|version|peer|client)")


def test_truncated_frames_leave_nothing_behind(victim):
    whole = wire.request(wire.PRODUCE, 3, wire.produce_body("honest", 0, wire.batch([b"never"] * 50)))
    with Bystander(victim.bootstrap, "honest"):
        for cut in range(0, len(whole), 7):
            with wire.Connection(victim.bootstrap) as hostile:
                hostile.send(whole[:cut])
    values = [m.value() for m in lib.read_topic(victim.bootstrap, "honest")[0]]
    assert b"never" not in values


@pytest.mark.heizer  # Apache Kafka allocates what a frame claims
def test_slow_frames_hold_no_more_memory_than_they_have_sent(victim):  # DESIGN §4
    claim = wire.int32(8 << 20) + wire.int16(wire.PRODUCE) + wire.int16(3) + wire.int32(1)
    before = victim.resident_mib()
    with Bystander(victim.bootstrap, "honest"):
        slow = [wire.Connection(victim.bootstrap) for _ in range(200)]
        for link in slow:
            link.send(claim)
        for _ in range(10):
            time.sleep(0.3)
            for link in slow:
                try:
                    link.send(b"\x00")
                except OSError:
                    pass  # hung up on for being slow, as it deserves
        grown = victim.resident_mib() - before
        for link in slow:
            link.socket.close()
    assert grown < victim.MEMORY_MARGIN_MIB, f"200 slow frames of 8 MiB cost {grown:.0f} MiB"


def test_a_reader_that_never_reads_does_not_hurt(victim):
    lib.produce_all(victim.bootstrap, "honest", [{"value": bytes(500_000)}] * 20)
    body = wire.int32(-1) + wire.int32(0) + wire.int32(1) + wire.int32(8 << 20) + wire.int8(0)
    body += wire.array(wire.string("honest") + wire.array(wire.int32(0) + wire.int64(0) + wire.int32(8 << 20)))
    before = victim.resident_mib()
    with Bystander(victim.bootstrap, "honest"):
        deaf = [wire.Connection(victim.bootstrap, timeout_s=0.5) for _ in range(20)]
        for link in deaf:
            try:
                link.send(b"".join(wire.request(wire.FETCH, 4, body, n) for n in range(50)))
            except OSError:
                pass  # the broker has stopped reading: back-pressure
        time.sleep(3)
        grown = victim.resident_mib() - before
        for link in deaf:
            link.socket.close()
    assert grown < 512, f"20 deaf readers with 50 fetches of 8 MiB each cost {grown:.0f} MiB"


def hostile_bodies(source):
    """Bodies whose every length lies, in both encodings, behind fields of several sizes."""
    yield b""
    yield HUGE * 32
    yield HUGE_VARINT * 32
    yield b"\xff" * 64
    for lead in (1, 2, 3, 4, 6, 8, 10, 16):
        yield bytes(lead) + HUGE * 8
        yield bytes(lead) + HUGE_VARINT * 8
    for _ in range(12):
        yield source.randbytes(source.randint(1, 200))


@pytest.mark.timeout(300)
def test_hostile_lengths_for_every_api_and_version_cost_no_memory(victim):  # contract P3
    with wire.Connection(victim.bootstrap) as link:
        ranges = wire.api_versions(link)
    before = victim.resident_mib()
    source = random.Random(2)
    with Bystander(victim.bootstrap, "honest"):
        for api, (low, high) in sorted(ranges.items()):
            for version in sorted({low, (low + high) // 2, high}):
                for body in hostile_bodies(source):
                    _say_and_expect_an_end(victim, api, version, body)
    grown = victim.resident_mib() - before
    assert grown < victim.MEMORY_MARGIN_MIB, f"grew by {grown:.0f} MiB"


def _say_and_expect_an_end(victim, api, version, body):
    """Sends one frame; an honest request behind it shows that the broker went on, unless it has hung up."""
    with wire.Connection(victim.bootstrap) as hostile:
        # Flexible versions read the zero byte as "no tagged fields"; the others as part of the body.
        hostile.send(wire.request(api, version, b"\x00" + body))
        hostile.send(wire.request(wire.API_VERSIONS, 0, b"", 2))
        hostile.say_no_more()
        assert hostile.closed_within(30), f"api {api} v{version} with {body.hex()}: neither answer nor end"


HOSTILE_ACTS = [
    GARBAGE["HTTP"],
    GARBAGE["the largest size"],
    GARBAGE["random bytes in a frame"],
    wire.request(wire.METADATA, 1, HUGE),
    wire.request(wire.METADATA, 99, b""),
    wire.request(wire.PRODUCE, 3, wire.produce_body("honest", 0, wire.batch([b"x"], crc_flip=1))),
    wire.request(wire.PRODUCE, 3, wire.produce_body("honest", 0, wire.batch([b"x"])))[:-10],
    wire.request(wire.API_VERSIONS, 99, b""),
    wire.int32(1 << 20) + bytes(70_000),
    b"",
]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ten_thousand_hostile_connections_leave_memory_where_it_was(victim, measured):
    _hostile_connections(victim, 2000)
    before = victim.resident_mib()
    with Bystander(victim.bootstrap, "honest"):
        _hostile_connections(victim, 10_000)
    limit = before + victim.MEMORY_MARGIN_MIB
    wait.until("memory is where it was", lambda: victim.resident_mib() < limit, 20, 0.5)
    measured(f"resident {before:.0f} MiB before, {victim.resident_mib():.0f} MiB after 10,000 hostile connections")


def _hostile_connections(victim, count):
    def worker(first):
        for number in range(first, count, 20):
            link = wire.Connection(victim.bootstrap)
            try:
                link.send(HOSTILE_ACTS[number % len(HOSTILE_ACTS)])
                if number % 3 == 0:
                    link.socket.settimeout(0.05)
                    link.socket.recv(100)
                elif number % 3 == 1:  # end with a reset instead of a goodbye
                    link.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            except OSError:
                pass
            finally:
                link.socket.close()
            done.append(number)

    done: list[int] = []
    threads = [threading.Thread(target=worker, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(done) == count, "not every hostile connection could be opened"
