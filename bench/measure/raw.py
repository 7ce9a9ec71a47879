"""A client of our own, so that no other's limits are measured: one thread, requests prepared, answers hardly read.

Batches are not idempotent, so that the same bytes can be produced again and again.
"""

import gc
import select
import socket
import struct
import time
from typing import NamedTuple

from harness import many, wire

TIMEOUT_S = 120.0


class Outcome(NamedTuple):
    """Seconds from the first byte of each request to its answer; of all; and how much CPU we took ourselves."""

    latencies: list
    took: float
    client_cpu: float


class _Line:
    """A connection with requests under way, answered in order."""

    def __init__(self, bootstrap: str):
        host, port = bootstrap.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""

    def answers(self) -> list:
        """The whole answers that have come, each from its correlation id on."""
        fresh = self.socket.recv(1 << 20)
        if not fresh:
            raise SystemExit("measure: the broker has closed a connection")
        raw, at, found = self._rest + fresh, 0, []
        while len(raw) >= at + 4:
            (size,) = struct.unpack_from(">i", raw, at)
            if len(raw) < at + 4 + size:
                break
            found.append(raw[at + 4 : at + 4 + size])
            at += 4 + size
        self._rest = raw[at:]
        return found


class Load:
    """Slots, each with one Produce under way (acks=all) to its partition; they share the connections evenly."""

    def __init__(self, bootstrap: str, topic: str, partitions: list, batch: bytes, connections: int):
        self._lines = [_Line(bootstrap) for _ in range(connections)]
        self._slots = []
        for slot, partition in enumerate(partitions):
            frame = wire.request(wire.PRODUCE, 3, wire.produce_body(topic, partition, batch), slot)
            self._slots.append((self._lines[slot % connections].socket, frame))
        # Correlation id, topics, name, partitions, partition.
        self._error_at = 4 + 4 + 2 + len(topic) + 4 + 4

    def __enter__(self) -> "Load":
        return self

    def __exit__(self, *_) -> None:
        for line in self._lines:
            line.socket.close()

    def run(self, *, seconds: float = TIMEOUT_S, requests: int = 1 << 60) -> Outcome:
        """Keeps every slot busy until the time is over or so many requests have been sent."""
        poll, by_file = select.epoll(), {line.socket.fileno(): line for line in self._lines}
        for file in by_file:
            poll.register(file, select.EPOLLIN)
        latencies, sent_at, cpu = [], [0.0] * len(self._slots), time.process_time()
        gc.disable()
        began = time.monotonic()
        end, sent = began + seconds, 0
        for slot in range(min(len(self._slots), requests)):
            self._send(slot, sent_at)
            sent += 1
        while len(latencies) < sent:
            ready = poll.poll(TIMEOUT_S)
            if not ready:
                raise SystemExit(f"measure: {sent - len(latencies)} requests are unanswered after {TIMEOUT_S} s")
            for file, _ in ready:
                for answer in by_file[file].answers():
                    now, slot = time.monotonic(), self._slot_of(answer)
                    latencies.append(now - sent_at[slot])
                    if now < end and sent < requests:
                        self._send(slot, sent_at)
                        sent += 1
        took = time.monotonic() - began
        gc.enable()
        poll.close()
        return Outcome(latencies, took, time.process_time() - cpu)

    def _send(self, slot: int, sent_at: list) -> None:
        connection, frame = self._slots[slot]
        sent_at[slot] = time.monotonic()
        connection.sendall(frame)

    def _slot_of(self, answer: bytes) -> int:
        slot, error = struct.unpack_from(">i", answer)[0], struct.unpack_from(">h", answer, self._error_at)[0]
        if error:
            raise SystemExit(f"measure: Produce was answered with error {error}")
        return slot


def fetch_all(bootstrap: str, topic: str, ends: list, max_bytes: int) -> int:
    """Fetches each partition from 0 to its end on a connection of its own, one request after the other.

    Returns the bytes that came. Of the records only the batches' headers are looked at.
    """
    poll, readers = select.epoll(), {}
    for partition, end in enumerate(ends):
        reader = _Fetching(bootstrap, topic, partition, end, max_bytes)
        readers[reader.socket.fileno()] = reader
        poll.register(reader.socket.fileno(), select.EPOLLIN)
    total, open_ = 0, len(readers)
    while open_:
        ready = poll.poll(TIMEOUT_S)
        if not ready:
            raise SystemExit(f"measure: no answer to a Fetch after {TIMEOUT_S} s")
        for file, _ in ready:
            total += readers[file].take()
            if readers[file].done:
                poll.unregister(file)
                readers[file].socket.close()
                open_ -= 1
    poll.close()
    return total


class _Fetching:
    """One partition on one connection: Fetch v4 again and again."""

    def __init__(self, bootstrap: str, topic: str, partition: int, end: int, max_bytes: int):
        self.socket = _Line(bootstrap).socket
        self._topic, self._partition, self._end, self._max_bytes = topic, partition, end, max_bytes
        self._buffer = memoryview(bytearray(max_bytes + (2 << 20)))
        self._offset = self._filled = 0
        self.done = end == 0
        self._ask()

    def take(self) -> int:
        """Receives what is there; at the end of an answer asks for more."""
        got = self.socket.recv_into(self._buffer[self._filled :])
        if got == 0:
            raise SystemExit("measure: the broker has closed a connection")
        self._filled += got
        if self._filled >= 4 and self._filled == 4 + struct.unpack_from(">i", self._buffer)[0]:
            self._offset = self._next_offset()
            self._filled, self.done = 0, self._offset >= self._end
            if not self.done:
                self._ask()
        return got

    def _ask(self) -> None:
        size = wire.int32(self._max_bytes)
        body = wire.int32(-1) + wire.int32(500) + wire.int32(1) + size + wire.int8(0)
        body += wire.array(
            wire.string(self._topic) + wire.array(wire.int32(self._partition) + wire.int64(self._offset) + size)
        )
        self.socket.sendall(wire.request(wire.FETCH, 4, body))

    def _next_offset(self) -> int:
        # Frame size, correlation id, throttle time, topics, name, partitions, partition.
        at = 4 + 4 + 4 + 4 + 2 + len(self._topic) + 4 + 4
        error, _end, _stable, aborted = struct.unpack_from(">hqqi", self._buffer, at)
        at += 22 + max(aborted, 0) * 16
        (size,) = struct.unpack_from(">i", self._buffer, at)
        at, last, offset = at + 4, at + 4 + size, self._offset
        if error or size <= 0:
            raise SystemExit(f"measure: Fetch at {offset} was answered with error {error} and {size} bytes")
        while at + many.BATCH_OVERHEAD <= last:
            base, length = struct.unpack_from(">qi", self._buffer, at)
            if at + 12 + length > last:
                break
            offset = base + struct.unpack_from(">i", self._buffer, at + 23)[0] + 1
            at += 12 + length
        return offset
