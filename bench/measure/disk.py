"""The broker's large writes and reads against what disk and kernel can do at most, in the same run and folder."""

import time
from pathlib import Path
from typing import Optional

import raw
from broker import own_broker
from harness import librdkafka as lib
from harness import many, physical
from results import Results

BATCH_BYTES = 1_000_000
UNDER_WAY = 8
FETCH_BYTES = 8 << 20
BACKLOG_PARTITIONS = 2
SEGMENT_BYTES = 64 << 20


def sequential(options, results: Results) -> None:
    """One partition, batches of 1 MB, eight under way, acks=all; and fio's direct writes of 1 MiB at the same depth."""
    batch = many.batch_of(BATCH_BYTES)
    requests = max(1, int(options.gb * 1e9) // len(batch))
    for _ in range(options.rounds):
        add_fio(options, results)
        with own_broker(options) as broker:
            broker.start()
            topic = lib.create_topic(broker.bootstrap, "sequential", 1)
            with raw.Load(broker.bootstrap, topic, [0] * UNDER_WAY, batch, 1) as load:
                load.run(requests=UNDER_WAY)
                before = broker.cpu()
                outcome = load.run(requests=requests)
                used = broker.cpu() - before
        gb = requests * len(batch) / 1e9
        what = "sequential produce, 1 partition, 8 batches of 1 MB under way"
        results.add(what, "MB/s", gb * 1000 / outcome.took)
        results.add(what, "s/GB", used.both / gb)
        results.add(f"{what}: client", "s/GB", outcome.client_cpu / gb)


def add_fio(options, results: Results) -> None:
    same = ["--rw=write", "--bs=1m", f"--iodepth={UNDER_WAY}", "--end_fsync=1"]
    size = max(1, int(options.gb * 1000))
    found = fio(options.data, [*same, f"--size={size}m", "--fallocate=posix"], results)
    if found is not None:
        gb, seconds = found["write"]["io_bytes"] / 1e9, found["job_runtime"] / 1000
        what = "fio, direct writes of 1 MiB into preallocated space, depth 8"
        results.add(what, "MB/s", gb * 1000 / seconds)
        results.add(what, "s/GB", physical.cpu_s(found) / gb)


def fio(folder: Path, job: list, results: Results) -> Optional[dict]:
    found = physical.fio(folder, job)
    if found is None:
        results.note("fio is not installed: its rows are left out")
    return found


def backlog(options, results: Results) -> None:
    """A cold backlog in sealed segments, read from the beginning; and the same files by sendfile(2) from nobody."""
    batch = many.batch_of(BATCH_BYTES)
    each = max(1, int(options.gb * 1e9) // len(batch) // BACKLOG_PARTITIONS)
    with own_broker(options) as broker:
        broker.start()
        topic = lib.create_topic(broker.bootstrap, "backlog", BACKLOG_PARTITIONS, segment_bytes=SEGMENT_BYTES)
        slots = [n % BACKLOG_PARTITIONS for n in range(2 * BACKLOG_PARTITIONS)]
        with raw.Load(broker.bootstrap, topic, slots, batch, BACKLOG_PARTITIONS) as load:
            load.run(requests=each * BACKLOG_PARTITIONS)
        client = lib.consumer(broker.bootstrap, "measure")
        ends = [end for _, end in lib.end_offsets(client, topic, BACKLOG_PARTITIONS).values()]
        client.close()
        broker.stop()
        files = sorted((broker.home / "data").glob(f"{topic}-*/*.log"))
        for _ in range(options.rounds):
            physical.forget(files)
            broker.start()
            add_fetch(broker, topic, ends, results)
            broker.stop()
            physical.forget(files)
            for state in ("cold", "out of the page cache"):
                add_sendfile(files, state, results)


def add_fetch(broker, topic: str, ends: list, results: Results) -> None:
    before, cpu, began = broker.cpu(), time.process_time(), time.monotonic()
    size = raw.fetch_all(broker.bootstrap, topic, ends, FETCH_BYTES)
    took = time.monotonic() - began
    used, client = broker.cpu() - before, time.process_time() - cpu
    what = f"fetch of a cold backlog, {BACKLOG_PARTITIONS} partitions, 8 MiB at once each"
    results.add(what, "MB/s", size / 1e6 / took)
    results.add(what, "s/GiB", used.both / (size / 2**30))
    results.add(f"{what}: client", "s/GiB", client / (size / 2**30))


def add_sendfile(files: list, state: str, results: Results) -> None:
    sent = physical.send_files(files)
    size = sum(path.stat().st_size for path in files)
    results.add(f"sendfile of the same files, {state}", "MB/s", size / 1e6 / sent.took)
    results.add(f"sendfile of the same files, {state}", "s/GiB", sent.sender_cpu / (size / 2**30))
