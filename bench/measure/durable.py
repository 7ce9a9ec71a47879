"""How long a durable write takes, with one partition busy and with many at once."""

import raw
from broker import own_broker
from disk import fio
from harness import librdkafka as lib
from harness import many
from results import Results, quantile

BATCH_BYTES = 16 << 10
BUSY = (1, 64, 1000)
# Beyond these, partitions share connections, and an answer waits for the one before it.
CONNECTIONS_MAX = 64
SECONDS = 4.0


def durable(options, results: Results) -> None:
    """Batches of 16 KiB, acks=all, always one under way to each of so many partitions."""
    batch = many.batch_of(BATCH_BYTES)
    for _ in range(options.rounds):
        for busy in BUSY:
            add_disk(options, busy, results)
            with own_broker(options) as broker:
                broker.start()
                topic = lib.create_topic(broker.bootstrap, "durable", busy)
                connections = min(busy, CONNECTIONS_MAX)
                with raw.Load(broker.bootstrap, topic, list(range(busy)), batch, connections) as load:
                    # Files are made, and zeros written ahead.
                    load.run(seconds=1.0)
                    before = broker.cpu()
                    outcome = load.run(seconds=SECONDS)
                    used = broker.cpu() - before
            add_outcome(busy, outcome, used.both, results)
    results.note(
        "durable: closed loop, one Produce under way per partition, so with many partitions the latency is their "
        "number over the rate; a client near 100 % busy bounds it, and with all CPUs busy they share them"
    )


def add_outcome(busy: int, outcome: raw.Outcome, broker_cpu: float, results: Results) -> None:
    what = f"durable produce of 16 KiB, {busy} partition{'s' if busy > 1 else ''} busy"
    results.add(f"{what}: p50", "ms", quantile(outcome.latencies, 0.5) * 1000)
    results.add(f"{what}: p99", "ms", quantile(outcome.latencies, 0.99) * 1000)
    results.add(what, "1/s", len(outcome.latencies) / outcome.took)
    results.add(f"{what}: broker busy", "% a core", broker_cpu / outcome.took * 100)
    results.add(f"{what}: client busy", "% a core", outcome.client_cpu / outcome.took * 100)


def add_disk(options, depth: int, results: Results) -> None:
    """The same by fio: durable direct writes of 16 KiB onto blocks that were written before."""
    same = ["--rw=randwrite", "--bs=16k", "--sync=dsync", f"--iodepth={depth}", "--overwrite=1"]
    found = fio(options.data, [*same, "--size=256m", "--time_based", f"--runtime={SECONDS:.0f}"], results)
    if found is not None:
        what = f"fio, durable writes of 16 KiB, depth {depth}"
        for name in ("50", "99"):
            nanoseconds = found["write"]["clat_ns"]["percentile"][f"{name}.000000"]
            results.add(f"{what}: p{name}", "ms", nanoseconds / 1e6)
        results.add(what, "1/s", found["write"]["iops"])
