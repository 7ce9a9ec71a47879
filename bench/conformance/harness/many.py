"""Topics of many partitions, made and written to at once."""

import random

from confluent_kafka.admin import NewTopic

from . import librdkafka as lib
from . import wire

TIMEOUT_S = 300.0
# Between a batch's first byte and its records, and around each record of up to 8 KiB.
BATCH_OVERHEAD, _RECORD_OVERHEAD = 61, 9
_RECORD_BYTES = 1024


def batch_of(size: int) -> bytes:
    """A batch of about `size` bytes, all told, with records of 1 KiB that do not compress."""
    noise, left, values = random.Random(size), size - BATCH_OVERHEAD, []
    while left > _RECORD_OVERHEAD:
        values.append(noise.randbytes(min(_RECORD_BYTES, left) - _RECORD_OVERHEAD))
        left -= _RECORD_BYTES
    return wire.batch(values)


def create(bootstrap: str, topics: int, partitions: int, stem: str = "many") -> list:
    """So many topics of so many partitions each; their names.

    A request for each topic: Apache Kafka refuses 10,000 partitions at once.
    """
    client = lib.admin(bootstrap)
    names = [f"{stem}-{number}" for number in range(topics)]
    for name in names:
        new = NewTopic(name, num_partitions=partitions, replication_factor=1)
        client.create_topics([new], request_timeout=TIMEOUT_S, operation_timeout=TIMEOUT_S)[name].result(TIMEOUT_S)
    return names


def fill(bootstrap: str, topic: str, partitions: int, batch: bytes) -> None:
    """One batch to each partition, a hundred partitions in a request."""
    with wire.Connection(bootstrap, TIMEOUT_S) as connection:
        for first in range(0, partitions, 100):
            data = [wire.int32(p) + wire.bytes_(batch) for p in range(first, min(first + 100, partitions))]
            body = wire.string(None) + wire.int16(-1) + wire.int32(60_000)
            answer = connection.ask(wire.PRODUCE, 3, body + wire.array(wire.string(topic) + wire.array(*data)))
            one = lambda r: (r.int32(), r.int16(), r.int64(), r.int64())  # noqa: E731
            ((_, rows),) = answer.array(lambda r: (r.string(), r.array(one)))
            failed = [(partition, error) for partition, error, _, _ in rows if error]
            assert not failed, f"{topic}-{failed[0][0]} answered Produce with error {failed[0][1]}"
