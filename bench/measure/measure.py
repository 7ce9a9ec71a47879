#!/usr/bin/env python3
"""Measures a broker from outside: start, memory, idle CPU, and what producing and fetching cost it.

`bench/measure/measure.py` starts `heizer serve` anew for each round; `--against HOST:PORT,PID` measures one that runs
already. Needs the Python environment of scripts/test. Prints a table of medians; `--json FILE` keeps every round.
"""

import argparse
import json
import os
import platform
import signal
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "conformance"))

from harness import paths  # noqa: E402

try:
    import confluent_kafka  # noqa: F401
except ImportError:
    python = paths.virtual_environment() / "bin" / "python"
    if Path(sys.executable) == python or not python.exists():
        raise SystemExit("measure: confluent-kafka is missing: run scripts/test once, it makes the environment")
    os.execv(python, [str(python), *sys.argv])

import clients  # noqa: E402
from broker import Heizer, Running  # noqa: E402
from confluent_kafka.admin import NewTopic  # noqa: E402
from harness import librdkafka as lib  # noqa: E402

MANY_TOPICS, MANY_PARTITIONS = 200, 5
TAIL_MB = 8


class Results:
    """Every value of every round, by what it says and its unit."""

    def __init__(self):
        self._values: dict = {}

    def add(self, what: str, unit: str, value: float) -> None:
        self._values.setdefault((what, unit), []).append(value)
        print(f"  {what}: {value:.2f} {unit}", file=sys.stderr, flush=True)

    def rows(self) -> list:
        return [
            {"what": what, "unit": unit, "median": statistics.median(values), "rounds": values}
            for (what, unit), values in self._values.items()
        ]

    def print(self) -> None:
        print(f"{'':<62}{'':<10}{'median':>10}{'least':>10}{'most':>10}")
        for row in self.rows():
            median, least, most = row["median"], min(row["rounds"]), max(row["rounds"])
            print(f"{row['what']:<62}{row['unit']:<10}{median:>10.2f}{least:>10.2f}{most:>10.2f}")


def main() -> None:
    options = parse()
    # Leaves through the finally blocks, which end the broker.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("measure: terminated"))
    results = Results()
    machine = {
        "kernel": platform.release(),
        "cpus": len(os.sched_getaffinity(0)),
        "load_average_before": Path("/proc/loadavg").read_text().split()[:3],
    }
    print(" ".join(f"{name} {value}" for name, value in machine.items()), file=sys.stderr)
    for number in range(options.rounds):
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
        if options.against:
            measure_running(options, results)
        else:
            measure_heizer(options, results)
    results.print()
    if options.json:
        settings = {name: str(value) for name, value in vars(options).items()}
        report = {"machine": machine, "options": settings, "results": results.rows()}
        options.json.write_text(json.dumps(report, indent=2) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    binary = paths.heizer()
    data = paths.target() / "bench-data"
    parser.add_argument("--binary", type=Path, default=binary, help=f"the program [default: {binary}]")
    parser.add_argument("--data", type=Path, default=data, help=f"its data go below this folder [default: {data}]")
    parser.add_argument("--serve", default="", metavar="FLAGS", help="further flags for heizer serve, in one argument")
    parser.add_argument("--against", type=running, metavar="HOST:PORT,PID", help="a broker that runs already")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gb", type=float, default=2.0, help="10^9 bytes of values per load [default: 2]")
    parser.add_argument("--partitions", type=int, nargs="+", default=[1, 5], help="[default: 1 5]")
    parser.add_argument("--client", choices=clients.ALL, nargs="+", default=["confluent"], help="[default: confluent]")
    parser.add_argument("--idle-seconds", type=float, default=10.0)
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args()


def running(text: str) -> Running:
    bootstrap, _, pid = text.partition(",")
    return Running(bootstrap, int(pid))


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


def measure_heizer(options, results: Results) -> None:
    with_own_broker(options, lambda broker: measure_starts(broker, options, results))
    for client, partitions in loads(options):
        with_own_broker(options, lambda broker: measure_load(broker, client, partitions, options, results))


def with_own_broker(options, work) -> None:
    """A broker on an empty folder, gone afterwards."""
    home = options.data.absolute() / f"measure-{os.getpid()}"
    broker = Heizer(options.binary.absolute(), home, options.serve.split())
    try:
        work(broker)
    finally:
        broker.remove()


def measure_starts(broker: Heizer, options, results: Results) -> None:
    """Empty, then on many partitions."""
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


if __name__ == "__main__":
    main()
