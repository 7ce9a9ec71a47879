"""What clients make of a broker: start, memory and CPU at rest, producing and fetching by real clients."""

import time

import clients
from broker import Heizer, Running, own_broker
from confluent_kafka.admin import NewTopic
from harness import librdkafka as lib
from results import Results

MANY_TOPICS, MANY_PARTITIONS = 200, 5
TAIL_MB = 8


def measure_running(options, results: Results) -> None:
    """What can be measured without starting and stopping the broker."""
    broker = options.against
    measure_idle(broker, "as found", options, results)
    for client, partitions in loads(options):
        topic = new_topic(broker, client.name, partitions)
        measure_produce(broker, client, topic, partitions, options, results)
        if client is clients.ALL["confluent"]:
            measure_tail(broker, topic, partitions, options, results)
        measure_fetch(broker, client, topic, partitions, "from the beginning", options, results)
        add_resident(broker, f"after load, {named(partitions)}, {client.name}", results)
        admin = lib.admin(broker.bootstrap)
        admin.delete_topics([topic])[topic].result(lib.TIMEOUT_S)


def start(options, results: Results) -> None:
    """Empty, then on many partitions."""
    for _ in range(options.rounds):
        with own_broker(options) as broker:
            measure_starts(broker, options, results)


def load(options, results: Results) -> None:
    """Each client on each number of partitions, on a broker of its own."""
    for _ in range(options.rounds):
        for client, partitions in loads(options):
            with own_broker(options) as broker:
                measure_load(broker, client, partitions, options, results)


def measure_starts(broker: Heizer, options, results: Results) -> None:
    add_start(broker, 0, "empty", results)
    measure_idle(broker, "empty", options, results)
    client = lib.admin(broker.bootstrap)
    names = [f"many-{number:03}" for number in range(MANY_TOPICS)]
    new = [NewTopic(name, num_partitions=MANY_PARTITIONS, replication_factor=1) for name in names]
    began = time.monotonic()
    for done in client.create_topics(new, request_timeout=60).values():
        done.result(60)
    many = f"{MANY_TOPICS} x {MANY_PARTITIONS} partitions"
    results.add(f"create {many}", "ms", (time.monotonic() - began) * 1000)
    del client
    broker.stop()
    add_start(broker, MANY_TOPICS * MANY_PARTITIONS, many, results)
    measure_idle(broker, many, options, results)
    broker.stop()


def add_start(broker: Heizer, partitions: int, state: str, results: Results) -> None:
    ready_ms, answered_ms = broker.start(partitions)
    results.add(f"start to ready line, {state}", "ms", ready_ms)
    results.add(f"start to Metadata answer, {state}", "ms", answered_ms)


def measure_idle(broker: Running, state: str, options, results: Results) -> None:
    time.sleep(1)
    before = broker.cpu()
    time.sleep(options.idle_seconds)
    used = broker.cpu() - before
    results.add(f"idle CPU, {state}", "% a core", used.both / options.idle_seconds * 100)
    add_resident(broker, f"idle, {state}", results)


def add_resident(broker: Running, state: str, results: Results) -> None:
    results.add(f"resident {state}", "MiB", broker.resident_mib())


def measure_load(broker: Heizer, client, partitions: int, options, results: Results) -> None:
    broker.start()
    topic = new_topic(broker, client.name, partitions)
    measure_produce(broker, client, topic, partitions, options, results)
    add_resident(broker, f"after producing, {named(partitions)}, {client.name}", results)
    if client is clients.ALL["confluent"]:
        measure_tail(broker, topic, partitions, options, results)
    broker.stop()
    broker.start()
    measure_fetch(broker, client, topic, partitions, "from disk after restart", options, results)
    add_resident(broker, f"after fetching from disk, {named(partitions)}, {client.name}", results)
    broker.stop()


def measure_produce(broker, client, topic: str, partitions: int, options, results: Results) -> None:
    what = f"produce, {named(partitions)}, {client.name}"
    records = record_count(options.gb)
    work = lambda: client.produce(broker.bootstrap, topic, partitions, records)  # noqa: E731
    add_load(broker, what, records, work, results)
    there = lib.total_records(broker.bootstrap, topic, partitions)
    if there != records:
        raise SystemExit(f"measure: {records} records were produced and {there} are there")


def measure_fetch(broker, client, topic: str, partitions: int, whence: str, options, results: Results) -> None:
    what = f"fetch {whence}, {named(partitions)}, {client.name}"
    records = record_count(options.gb)
    work = lambda: client.fetch(broker.bootstrap, topic, partitions, records)  # noqa: E731
    add_load(broker, what, records, work, results)


def measure_tail(broker, topic: str, partitions: int, options, results: Results) -> None:
    """The newest few MB, again and again: what the broker still has in memory."""
    records = record_count(min(TAIL_MB / 1000, options.gb))
    passes = max(1, record_count(options.gb) // records // 4)
    what = f"fetch hot tail, {named(partitions)}, confluent"
    work = lambda: clients.fetch_tail(broker.bootstrap, topic, partitions, records, passes)  # noqa: E731
    add_load(broker, what, records * passes, work, results)


def add_load(broker: Running, what: str, records: int, work, results: Results) -> None:
    """Runs `work`, which says how long it took, and sets the broker's CPU against the bytes moved."""
    before = broker.cpu()
    seconds = work()
    used = broker.cpu() - before
    gb = records * clients.RECORD_BYTES / 1e9
    results.add(what, "MB/s", gb * 1000 / seconds)
    for part, value in (("", used.both), (" user", used.user), (" kernel", used.kernel)):
        results.add(what, f"s/GB{part}", value / gb)


def new_topic(broker: Running, stem: str, partitions: int) -> str:
    return lib.create_topic(broker.bootstrap, f"measure-{stem}-{partitions}-{time.time_ns()}", partitions)


def loads(options) -> list:
    return [(clients.ALL[name], partitions) for name in options.client for partitions in options.partitions]


def record_count(gb: float) -> int:
    return int(gb * 1e9) // clients.RECORD_BYTES


def named(partitions: int) -> str:
    return f"{partitions} partition{'s' if partitions > 1 else ''}"
