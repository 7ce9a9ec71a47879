"""How a broker comes back after kill -9, and what many partitions cost it at rest."""

import time

import raw
from broker import Heizer, own_broker
from harness import librdkafka as lib
from harness import many, wire
from results import Results

UNSEALED_GB = 1.0
PARTITIONS_A_TOPIC = 1000
SMALL_BATCH_BYTES = 4 << 10
# Idle logs are swept every ten seconds.
SETTLES_WITHIN_S = 25


def unsealed(options, results: Results) -> None:
    """1 GB in one segment that nobody has sealed."""
    batch = many.batch_of(1_000_000)
    with own_broker(options) as broker:
        broker.start()
        topic = lib.create_topic(broker.bootstrap, "unsealed-0", 1, segment_bytes=2_000_000_000)

        def write(batches: int) -> None:
            with raw.Load(broker.bootstrap, topic, [0], batch, 1) as load:
                load.run(requests=batches)

        write(int(UNSEALED_GB * 1e9) // len(batch))
        for _ in range(options.rounds):
            write(1)
            add_restarts(broker, "1 GB unsealed", topic, 1, results)


def thousand(options, results: Results) -> None:
    """1,000 partitions, all with data."""
    with own_broker(options) as broker:
        broker.start()
        topics = many.create(broker.bootstrap, 1, PARTITIONS_A_TOPIC)
        for _ in range(options.rounds):
            fill(broker, topics)
            add_restarts(broker, "1,000 partitions", topics[0], len(topics) * PARTITIONS_A_TOPIC, results)


def ten_thousand(options, results: Results) -> None:
    """10,000 partitions: at rest without data and with it, and back after kill -9."""
    state = "10,000 partitions"
    with own_broker(options) as broker:
        broker.start()
        began = time.monotonic()
        topics = many.create(broker.bootstrap, 10, PARTITIONS_A_TOPIC)
        results.add(f"create {state}", "ms", (time.monotonic() - began) * 1000)
        measure_idle(broker, f"{state} without data", options, results)
        for number in range(options.rounds):
            began = time.monotonic()
            fill(broker, topics)
            if number == 0:
                results.add(f"first batch of 4 KiB to each of {state}", "ms", (time.monotonic() - began) * 1000)
                add_resident_as_it_settles(broker, f"{state} with data", results)
                measure_idle(broker, f"{state} with data", options, results)
            add_restarts(broker, state, topics[0], len(topics) * PARTITIONS_A_TOPIC, results)
        measure_idle(broker, f"{state} with data, after a restart", options, results)
    results.note("many partitions: set up once, written to, killed and started each round; the disk's caches are warm")


def add_resident_as_it_settles(broker: Heizer, state: str, results: Results) -> None:
    """Chunks of logs that nobody appends to are let go after a while."""
    add_resident(broker, f"{state}, at once", results)
    time.sleep(SETTLES_WITHIN_S)


def fill(broker: Heizer, topics: list) -> None:
    batch = many.batch_of(SMALL_BATCH_BYTES)
    for topic in topics:
        many.fill(broker.bootstrap, topic, PARTITIONS_A_TOPIC, batch)


def measure_idle(broker: Heizer, state: str, options, results: Results) -> None:
    time.sleep(1)
    before = broker.cpu()
    time.sleep(options.idle_seconds)
    used = broker.cpu() - before
    results.add(f"idle CPU, {state}", "% a core", used.both / options.idle_seconds * 100)
    add_resident(broker, f"idle, {state}", results)


def add_resident(broker: Heizer, state: str, results: Results) -> None:
    results.add(f"resident {state}", "MiB", broker.resident_mib())


def add_restarts(broker: Heizer, state: str, topic: str, partitions: int, results: Results) -> None:
    """Killed after every partition was written to; then killed at rest, when there is nothing new to put in order."""
    add_restart(broker, f"kill -9, {state}, all written to", topic, partitions, results)
    add_restart(broker, f"kill -9, {state}, at rest", topic, partitions, results)


def add_restart(broker: Heizer, state: str, topic: str, partitions: int, results: Results) -> None:
    """Kills the broker and starts it: until it is ready, knows all leaders, has taken a record."""
    broker.kill()
    began = time.monotonic()
    ready_ms, metadata_ms = broker.start(partitions)
    with wire.Connection(broker.bootstrap, raw.TIMEOUT_S) as connection:
        error, _ = wire.produce(connection, topic, 0, wire.batch([b"back"]))
    if error:
        raise SystemExit(f"measure: the first Produce after the start was answered with error {error}")
    results.add(f"start after {state}: ready line", "ms", ready_ms)
    results.add(f"start after {state}: Metadata with all leaders", "ms", metadata_ms)
    results.add(f"start after {state}: first Produce", "ms", (time.monotonic() - began) * 1000)
    results.add(f"start after {state}: scanned", "MB", broker.scanned_bytes() / 1e6)
