"""Producers that run in the background of a scenario and account for every record."""

import random
import threading
import time

from . import librdkafka as lib
from . import wait

_NOISE = random.Random(7).randbytes(1 << 16)


def value_of(partition: int, sequence: int) -> bytes:
    """Says where a record belongs, with a body of 0 to 2 KiB that depends on it."""
    noise = random.Random(partition << 40 | sequence)
    at = noise.randrange(1 << 15)
    return b"%d:%d:" % (partition, sequence) + _NOISE[at : at + noise.randrange(2048)]


class Writer:
    """Produces numbered records to every partition in turn until it is told to stop; survives restarts of the broker.

    `delivered` holds (partition, sequence, offset) for each record that the broker acknowledged.
    """

    def __init__(self, bootstrap: str, topic: str, partitions: int, idempotent: bool):
        self.topic = topic
        self.partitions = partitions
        self.produced = 0
        self.delivered: list[tuple[int, int, int]] = []
        self.errors: list = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"writer-{topic}")
        self._client = lib.producer(
            bootstrap,
            enable_idempotence=idempotent,
            acks="all",
            max_in_flight=5 if idempotent else 1,
            linger_ms=2,
            retry_backoff_ms=20,
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
        goal = len(self.delivered) + records
        wait.until(f"{records} more records to {self.topic}", lambda: len(self.delivered) >= goal, 60, 0.01)

    def _run(self) -> None:
        while not self._stop.is_set():
            for _ in range(20):
                partition, sequence = self.produced % self.partitions, self.produced // self.partitions
                note = lambda e, m, at=(partition, sequence): self._report(e, m, at)  # noqa: E731
                try:
                    self._client.produce(
                        self.topic, value_of(partition, sequence), partition=partition, on_delivery=note
                    )
                except BufferError:
                    break
                self.produced += 1
            self._client.poll(0.005)
            time.sleep(0.003)

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
