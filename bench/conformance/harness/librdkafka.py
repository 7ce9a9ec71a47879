"""confluent-kafka with bounds: every call here ends, and an error is an assertion."""

import time
from collections.abc import Iterable
from typing import Callable, Optional

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

TIMEOUT_S = 30.0


def admin(bootstrap: str) -> AdminClient:
    return AdminClient(_settings(bootstrap))


def create_topic(bootstrap: str, topic: str, partitions: int = 1, **configs) -> str:
    """Creates a topic and waits until metadata shows it. Write configs with `_` for `.`."""
    settings = {name.replace("_", "."): str(value) for name, value in configs.items()}
    new = NewTopic(topic, num_partitions=partitions, replication_factor=1, config=settings)
    client = admin(bootstrap)
    client.create_topics([new])[topic].result(TIMEOUT_S)
    await_topic(client, topic, partitions)
    return topic


def topic_resource(topic: str) -> ConfigResource:
    """What describe_configs asks for."""
    return ConfigResource(ResourceType.TOPIC, topic)


def broker_resource(node: str) -> ConfigResource:
    """The same for a broker, by its number."""
    return ConfigResource(ResourceType.BROKER, node)


def await_topic(client: AdminClient, topic: str, partitions: int) -> None:
    """Waits until every partition has a leader."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        seen = client.list_topics(topic, timeout=10).topics[topic].partitions
        if len(seen) == partitions and all(part.leader >= 0 for part in seen.values()):
            return
        time.sleep(0.05)
    raise AssertionError(f"{topic} has no leaders after {TIMEOUT_S} s")


def producer(bootstrap: str, **settings) -> Producer:
    return Producer(_settings(bootstrap, **settings))


def send(client: Producer, topic: str, **record) -> None:
    """Like Producer.produce, but waits for room in the client's queue."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            client.produce(topic, **record)
            return
        except BufferError:
            assert time.monotonic() < deadline, "the client's queue stays full"
            client.poll(0.05)


class Deliveries:
    """Collects delivery reports."""

    def __init__(self):
        self.errors: list = []
        self.messages: list[Message] = []

    def __call__(self, error, message: Message) -> None:
        self.errors.append(error) if error else self.messages.append(message)

    def assert_all(self, count: int) -> None:
        assert not self.errors, f"{len(self.errors)} not delivered, the first: {self.errors[0]}"
        assert len(self.messages) == count


def produce_all(bootstrap: str, topic: str, records: Iterable[dict], **settings) -> list[Message]:
    """Produces the records, waits for every delivery report and returns them."""
    client, reports, count = producer(bootstrap, **settings), Deliveries(), 0
    for record in records:
        send(client, topic, on_delivery=reports, **record)
        client.poll(0)
        count += 1
    assert client.flush(TIMEOUT_S) == 0, "not everything was delivered in time"
    reports.assert_all(count)
    return reports.messages


def consumer(bootstrap: str, group: str, **settings) -> Consumer:
    defaults = {"auto_offset_reset": "earliest", "enable_auto_commit": False}
    return Consumer(_settings(bootstrap, group_id=group, **{**defaults, **settings}))


def committed(client: Consumer, topic: str, partition: int) -> int:
    """The group's offset; asks again while the coordinator is not there yet, as after a restart."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            return client.committed([TopicPartition(topic, partition)], timeout=10)[0].offset
        except KafkaException as failure:
            if not failure.args[0].retriable() and failure.args[0].code() != KafkaError.NOT_COORDINATOR:
                raise
            assert time.monotonic() < deadline, f"no coordinator after {TIMEOUT_S} s: {failure}"
            time.sleep(0.1)


def drain(client: Consumer, count: int, timeout_s: float = TIMEOUT_S, extra_s: float = 0.0) -> list[Message]:
    """Takes `count` messages; with `extra_s`, also what else comes within that time."""
    taken: list[Message] = []
    take_until(client, lambda: len(taken) >= count, taken.append, timeout_s)
    end = time.monotonic() + extra_s
    while (left := end - time.monotonic()) > 0:
        taken += client.consume(1000, left)
    return taken


def take_until(client: Consumer, done: Callable[[], bool], take: Callable[[Message], None], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline, f"the consumer was not done after {timeout_s} s"
        for message in client.consume(10_000, 0.2):
            if message.error():
                raise KafkaException(message.error())
            take(message)


def read_topic(bootstrap: str, topic: str, partitions: int = 1, **settings) -> dict[int, list[Message]]:
    """Everything between the watermarks, by partition, in the order in which it came."""
    client = consumer(bootstrap, "reader-without-commits", fetch_message_max_bytes=16 << 20, **settings)
    try:
        ends = end_offsets(client, topic, partitions)
        found: dict[int, list[Message]] = {p: [] for p in range(partitions)}
        left = {p: end for p, (start, end) in ends.items() if end > start}
        client.assign([TopicPartition(topic, p, ends[p][0]) for p in left])

        def take(message: Message) -> None:
            found[message.partition()].append(message)
            if message.offset() + 1 >= left.get(message.partition(), 0):
                left.pop(message.partition(), None)

        take_until(client, lambda: not left, take, 120)
        return found
    finally:
        client.close()


def end_offsets(client: Consumer, topic: str, partitions: int) -> dict[int, tuple[int, int]]:
    """(low, high) watermark by partition, asked from the broker."""
    return {p: client.get_watermark_offsets(TopicPartition(topic, p), timeout=10) for p in range(partitions)}


def total_records(bootstrap: str, topic: str, partitions: int) -> int:
    client = consumer(bootstrap, "reader-without-commits")
    try:
        return sum(high - low for low, high in end_offsets(client, topic, partitions).values())
    finally:
        client.close()


def assignment_ids(client: Consumer) -> set[int]:
    return {part.partition for part in client.assignment()}


def poll_all(clients: Iterable[Consumer], take: Optional[Callable[[Message], None]] = None) -> None:
    """One turn for each member, so that all take part in a rebalance."""
    for client in clients:
        message = client.poll(0.05)
        if message is not None and not message.error() and take:
            take(message)


# librdkafka spells these with an underscore.
_LITERAL = {"error_cb", "log_level"}


def _settings(bootstrap: str, **settings) -> dict:
    """librdkafka's own names for our keyword arguments; what goes wrong is asserted, not printed."""
    dotted = {name if name in _LITERAL else name.replace("_", "."): value for name, value in settings.items()}
    return {"bootstrap.servers": bootstrap, "log_level": 0, **dotted}
