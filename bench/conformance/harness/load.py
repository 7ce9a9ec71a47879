"""Producers that run in the background of a scenario and account for every record."""

import random
import threading
import time
from typing import Callable

from confluent_kafka import Message

from . import librdkafka as lib
from . import wait

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
KEYS = 40
_RECORDS_AT_ONCE, _PAUSE_S = 10, 0.02
# Made of words that come again, so that every codec finds something to compress: else librdkafka sends it as it is.
_WORDS = [random.Random(word).randbytes(12) for word in range(64)]
_NOISE = b"".join(random.Random(7).choices(_WORDS, k=4096))


def value_of(partition: int, sequence: int) -> bytes:
    """Says where a record belongs, with a body of 0 to 2 KiB that depends on it."""
    noise = random.Random(partition << 40 | sequence)
    at = noise.randrange(1 << 15)
    return b"%d:%d:" % (partition, sequence) + _NOISE[at : at + noise.randrange(2048)]


def numbered(partition: int, sequence: int) -> dict:
    """A record without a key."""
    return {"value": value_of(partition, sequence)}


def keyed(partition: int, sequence: int) -> dict:
    """A record of one of a few keys; one of eight deletes its key. The header tells tombstones apart."""
    noise = random.Random(sequence << 10 | partition)
    key, deletes = b"key-%d" % noise.randrange(KEYS), noise.randrange(8) == 0
    headers = [("sequence", b"%d" % sequence)]
    return {"key": key, "value": None if deletes else value_of(partition, sequence), "headers": headers}


class Writer:
    """Produces records to every partition in turn until it is told to stop; survives restarts of the broker.

    `delivered` holds (partition, sequence, offset) for each record that the broker acknowledged.
    """

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        partitions: int,
        idempotent: bool,
        codec: str = "none",
        record: Callable[[int, int], dict] = numbered,
    ):
        self.topic = topic
        self.partitions = partitions
        self.idempotent = idempotent
        self.codec = codec
        self.record = record
        self.produced = 0
        self.delivered: list[tuple[int, int, int]] = []
        self.errors: list = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"writer-{topic}")
        self._client = lib.producer(
            bootstrap,
            # Else it forgets its brokers at a crash, and asks for them again once a second (KIP-899).
            metadata_recovery_strategy="none",
            enable_idempotence=idempotent,
            compression_type=codec,
            acks="all",
            max_in_flight=5 if idempotent else 1,
            linger_ms=2,
            retry_backoff_ms=20,
            retry_backoff_max_ms=50,
            topic_metadata_refresh_fast_interval_ms=50,
            reconnect_backoff_ms=10,
            reconnect_backoff_max_ms=100,
            message_timeout_ms=180_000,
            queue_buffering_max_messages=3000,
        )

    def start(self) -> "Writer":
        self._thread.start()
        return self

    def finish(self) -> None:
        """Stops, and waits until everything produced is delivered."""
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), "the writer hangs"
        assert self._client.flush(60) == 0, "records are still undelivered"
        assert not self.errors, f"{len(self.errors)} errors, the first: {self.errors[0]}"
        assert len(self.delivered) == self.produced

    def await_progress(self, records: int) -> None:
        """Waits until so many more records have been acknowledged."""
        self.await_delivered(len(self.delivered) + records)

    def await_delivered(self, goal: int) -> None:
        """Waits until so many records have been acknowledged in all."""
        wait.until(f"{goal} records in {self.topic}", lambda: len(self.delivered) >= goal, 60, 0.01)

    def check(self, found: dict[int, list[Message]]) -> None:
        """What the broker holds after `finish`: nothing acknowledged is lost, nothing there was not produced."""
        sequences = {p: [self._sequence(m) for m in found[p]] for p in found}
        by_offset = {(p, m.offset()): s for p in found for m, s in zip(found[p], sequences[p])}
        if self.record is keyed:
            self._check_last_of_each_key(sequences)
        else:
            self._check_every_record(sequences)
        for partition, sequence, offset in self.delivered:
            # A duplicate may be acknowledged without its offset; compaction may have removed what was there.
            there = by_offset.get((partition, offset), sequence if offset < 0 or self.record is keyed else None)
            assert there == sequence, f"{self.topic}-{partition}@{offset}: not the acknowledged record {sequence}"

    def _check_every_record(self, sequences: dict) -> None:
        for partition in range(self.partitions):
            expected = list(range(self._count(partition)))
            there = sequences[partition]
            if lost := sorted({*expected} - {*there}):
                raise AssertionError(f"{self.topic}-{partition}: {len(lost)} records lost, the first {lost[0]}")
            if self.idempotent:
                assert there == expected, f"{self.topic}-{partition}: not every record once and in order"

    def _check_last_of_each_key(self, sequences: dict) -> None:
        for partition in range(self.partitions):
            there, last = sequences[partition], {}
            for sequence in range(self._count(partition)):
                last[self.record(partition, sequence)["key"]] = sequence
            assert all(a < b for a, b in zip(there, there[1:])), f"{self.topic}-{partition}: twice or out of order"
            lost = {key: sequence for key, sequence in last.items() if sequence not in {*there}}
            assert not lost, f"{self.topic}-{partition}: the last record of these keys is lost: {lost}"

    def _sequence(self, message: Message) -> int:
        """Which record it is, having seen that it is that record entirely."""
        partition, headers = message.partition(), message.headers()
        sequence = int(dict(headers)["sequence"] if headers else message.value().split(b":", 2)[1])
        made = self.record(partition, sequence)
        seen = {"key": message.key(), "value": message.value(), "headers": headers}
        assert all(seen[field] == value for field, value in made.items()) and sequence < self._count(partition), (
            f"{self.topic}-{partition}@{message.offset()}: this was never produced"
        )
        return sequence

    def _count(self, partition: int) -> int:
        return len(range(partition, self.produced, self.partitions))

    def _run(self) -> None:
        while not self._stop.is_set():
            for _ in range(_RECORDS_AT_ONCE):
                partition, sequence = self.produced % self.partitions, self.produced // self.partitions
                note = lambda e, m, at=(partition, sequence): self._report(e, m, at)  # noqa: E731
                record = self.record(partition, sequence)
                try:
                    self._client.produce(self.topic, partition=partition, on_delivery=note, **record)
                except BufferError:
                    break
                self.produced += 1
            self._client.poll(0.005)
            time.sleep(_PAUSE_S)

    def _report(self, error, message, at) -> None:
        if error:
            self.errors.append(error)
        else:
            self.delivered.append((*at, message.offset()))


class Bystander:
    """An honest producer beside the hostile ones: as a context it asserts that it never noticed them."""

    def __init__(self, bootstrap: str, topic: str):
        self._complaints: list = []
        self._reports = lib.Deliveries()
        self._topic = topic
        self._stop = threading.Event()
        settings = {"acks": "all", "linger_ms": 0, "message_timeout_ms": 10_000, "retries": 0}
        self._client = lib.producer(bootstrap, error_cb=self._complaints.append, enable_idempotence=False, **settings)
        self._thread = threading.Thread(target=self._run, name="bystander")
        self._count = 0

    def __enter__(self) -> "Bystander":
        self._thread.start()
        wait.until("the bystander produces", lambda: self._reports.messages, 15)
        return self

    def __exit__(self, kind, *_) -> None:
        self._stop.set()
        self._thread.join(30)
        left = self._client.flush(30)
        if kind is None:
            assert left == 0, f"{left} records of the bystander were not answered"
            assert not self._complaints, f"the bystander's connection suffered: {self._complaints[:3]}"
            self._reports.assert_all(self._count)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._client.produce(self._topic, b"%d" % self._count, on_delivery=self._reports)
            self._count += 1
            self._client.poll(0.01)
