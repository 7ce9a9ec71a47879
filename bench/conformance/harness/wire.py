"""Kafka's protocol by hand, for what no well-behaved client would send.

Only versions before the flexible ones are spoken here; the frames that tests break on purpose start from these.
"""

import socket
import struct
import time
from typing import Optional

PRODUCE, FETCH, LIST_OFFSETS, METADATA = 0, 1, 2, 3
OFFSET_COMMIT, OFFSET_FETCH, FIND_COORDINATOR, JOIN_GROUP, HEARTBEAT = 8, 9, 10, 11, 12
LEAVE_GROUP, SYNC_GROUP, DESCRIBE_GROUPS, API_VERSIONS, CREATE_TOPICS, INIT_PRODUCER_ID = 13, 14, 15, 18, 19, 22

NONE = 0
OFFSET_OUT_OF_RANGE = 1
CORRUPT_MESSAGE = 2
UNKNOWN_TOPIC_OR_PARTITION = 3
INVALID_TOPIC_EXCEPTION = 17
ILLEGAL_GENERATION = 22
UNKNOWN_MEMBER_ID = 25
UNSUPPORTED_VERSION = 35
INVALID_CONFIG = 40
OUT_OF_ORDER_SEQUENCE_NUMBER = 45
INVALID_RECORD = 87


def int8(value: int) -> bytes:
    return struct.pack(">b", value)


def int16(value: int) -> bytes:
    return struct.pack(">h", value)


def int32(value: int) -> bytes:
    return struct.pack(">i", value)


def int64(value: int) -> bytes:
    return struct.pack(">q", value)


def string(value: Optional[str]) -> bytes:
    if value is None:
        return int16(-1)
    raw = value.encode()
    return struct.pack(">H", len(raw)) + raw


def bytes_(value: Optional[bytes]) -> bytes:
    return int32(-1) if value is None else int32(len(value)) + value


def array(*items: bytes) -> bytes:
    return int32(len(items)) + b"".join(items)


def varint(value: int) -> bytes:
    """Zigzag, as in records."""
    rest = (value << 1) ^ (value >> 63)
    out = bytearray()
    while rest > 0x7F:
        out.append((rest & 0x7F) | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


class Reader:
    """Takes an answer apart from the front."""

    def __init__(self, raw: bytes):
        self.raw, self.at = raw, 0

    def _take(self, form: str):
        (value,) = struct.unpack_from(form, self.raw, self.at)
        self.at += struct.calcsize(form)
        return value

    def int8(self) -> int:
        return self._take(">b")

    def int16(self) -> int:
        return self._take(">h")

    def int32(self) -> int:
        return self._take(">i")

    def int64(self) -> int:
        return self._take(">q")

    def bytes(self) -> Optional[bytes]:
        size = self.int32()
        if size < 0:
            return None
        self.at += size
        return self.raw[self.at - size : self.at]

    def string(self) -> Optional[str]:
        size = self.int16()
        if size < 0:
            return None
        self.at += size
        return self.raw[self.at - size : self.at].decode()

    def array(self, item) -> list:
        return [item(self) for _ in range(self.int32())]


def request(api: int, version: int, body: bytes, correlation: int = 1, client: Optional[str] = "raw") -> bytes:
    """A whole frame with request header v1."""
    message = int16(api) + int16(version) + int32(correlation) + string(client) + body
    return int32(len(message)) + message


class Connection:
    """One TCP connection whose every wait ends."""

    def __init__(self, bootstrap: str, timeout_s: float = 10.0):
        host, port = bootstrap.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._correlation = 0

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_) -> None:
        self.socket.close()

    def send(self, raw: bytes) -> None:
        self.socket.sendall(raw)

    def ask(self, api: int, version: int, body: bytes) -> Reader:
        """Sends a request and returns its answer behind the correlation id."""
        self._correlation += 1
        self.send(request(api, version, body, self._correlation))
        return self.answer(self._correlation)

    def answer(self, correlation: int) -> Reader:
        (size,) = struct.unpack(">i", self._exactly(4))
        reader = Reader(self._exactly(size))
        assert reader.int32() == correlation, "answers must come in the order of the requests"
        return reader

    def say_no_more(self) -> None:
        """Ends our half of the conversation, if there still is one."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def closed_within(self, seconds: float) -> bool:
        """True when the broker hangs up (whatever it says before) within this time."""
        deadline = time.monotonic() + seconds
        try:
            while (left := deadline - time.monotonic()) > 0:
                self.socket.settimeout(left)
                if not self.socket.recv(65536):
                    return True
        except TimeoutError:
            return False
        except OSError:
            return True
        return False

    def _exactly(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            part = self.socket.recv(min(size - len(parts), 1 << 20))
            if not part:
                raise ConnectionError(f"closed after {len(parts)} of {size} bytes")
            parts += part
        return bytes(parts)


_CRC_TABLE = []
for _n in range(256):
    for _ in range(8):
        _n = (_n >> 1) ^ 0x82F63B78 if _n & 1 else _n >> 1
    _CRC_TABLE.append(_n)


def crc32c(raw: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in raw:
        value = _CRC_TABLE[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


def record(delta: int, key: Optional[bytes], value: Optional[bytes]) -> bytes:
    def field(raw: Optional[bytes]) -> bytes:
        return varint(-1) if raw is None else varint(len(raw)) + raw

    body = int8(0) + varint(0) + varint(delta) + field(key) + field(value) + varint(0)
    return varint(len(body)) + body


def batch(
    values: list,
    *,
    attributes: int = 0,
    producer: tuple = (-1, -1, -1),
    count: Optional[int] = None,
    last_delta: Optional[int] = None,
    magic: int = 2,
    crc_flip: int = 0,
    length_add: int = 0,
    timestamp_ms: Optional[int] = None,
) -> bytes:
    """A record batch v2 with one unkeyed record per value; the named arguments make it wrong in one respect."""
    now_ms = int(time.time() * 1000) if timestamp_ms is None else timestamp_ms
    producer_id, epoch, sequence = producer
    covered = int16(attributes) + int32(len(values) - 1 if last_delta is None else last_delta)
    covered += int64(now_ms) + int64(now_ms) + int64(producer_id) + int16(epoch) + int32(sequence)
    covered += int32(len(values) if count is None else count)
    covered += b"".join(record(n, None, value) for n, value in enumerate(values))
    crc = struct.pack(">I", crc32c(covered) ^ crc_flip)
    tail = int32(-1) + int8(magic) + crc + covered
    return int64(0) + int32(len(tail) + length_add) + tail


def produce_body(topic: str, partition: int, records: Optional[bytes], acks: int = -1) -> bytes:
    """Produce v3 to v7."""
    return string(None) + int16(acks) + int32(10_000) + array(string(topic) + array(int32(partition) + bytes_(records)))


def produce(connection: Connection, topic: str, partition: int, records: Optional[bytes]) -> tuple:
    """Produces with acks=all at version 3; returns (error code, base offset)."""
    answer = connection.ask(PRODUCE, 3, produce_body(topic, partition, records))
    one = lambda r: (r.int32(), r.int16(), r.int64(), r.int64())  # noqa: E731
    ((_, parts),) = answer.array(lambda r: (r.string(), r.array(one)))
    return parts[0][1], parts[0][2]


def fetch_error(connection: Connection, topic: str, partition: int, offset: int) -> int:
    """Fetch v4 from one offset; returns the partition's error code."""
    body = int32(-1) + int32(100) + int32(1) + int32(1 << 20) + int8(0)
    body += array(string(topic) + array(int32(partition) + int64(offset) + int32(1 << 20)))
    answer = connection.ask(FETCH, 4, body)
    answer.int32()
    assert answer.int32() == 1
    answer.string()
    assert answer.int32() == 1
    answer.int32()
    return answer.int16()


def create_topic_error(connection: Connection, topic: str, configs: Optional[dict] = None) -> tuple:
    """CreateTopics v2; returns (error code, message)."""
    pairs = [string(key) + string(value) for key, value in (configs or {}).items()]
    entry = string(topic) + int32(1) + int16(1) + array() + array(*pairs)
    answer = connection.ask(CREATE_TOPICS, 2, array(entry) + int32(15_000) + int8(0))
    answer.int32()
    ((_, error, message),) = answer.array(lambda r: (r.string(), r.int16(), r.string()))
    return error, message


def api_versions(connection: Connection) -> dict:
    """ApiVersions v0: {api key: (lowest, highest version)}."""
    answer = connection.ask(API_VERSIONS, 0, b"")
    assert answer.int16() == NONE
    return {key: (low, high) for key, low, high in answer.array(lambda r: (r.int16(), r.int16(), r.int16()))}


def leaders(connection: Connection) -> int:
    """How many partitions have a leader, of all topics: Metadata v1."""

    def broker(r):
        return r.int32(), r.string(), r.int32(), r.string()

    def partition(r):
        _error, _index, leader = r.int16(), r.int32(), r.int32()
        r.array(Reader.int32), r.array(Reader.int32)
        return leader

    def topic(r):
        _error, _name, _internal = r.int16(), r.string(), r.int8()
        return sum(leader >= 0 for leader in r.array(partition))

    answer = connection.ask(METADATA, 1, int32(-1))
    answer.array(broker)
    answer.int32()
    return sum(answer.array(topic))
