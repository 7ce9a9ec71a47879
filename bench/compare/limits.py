"""What this machine can do at most, measured in the same run: disk, loopback, memory, checksums.

Each figure has a name, a value and a unit; what cannot be measured here is left out.
"""

import contextlib
import multiprocessing
import os
import re
import select
import socket
import subprocess
import time
from pathlib import Path

from harness import physical
from machine import Cpus

WRITE_BYTES, WRITES_UNDER_WAY = 128 << 10, 8
DURABLE_BYTES = 16 << 10
ECHO_BYTES, ECHOES, ECHO_LINES = 2048, 20_000, 64
TIMER_S, TIMERS = 0.0005, 10_000
# Sent several times over: CPU is accounted in ticks of 10 ms.
FILE_BYTES, TIMES_OVER, SENDINGS = 512 << 20, 4, 4
COPY_BYTES, COPIES = 64 << 20, 20
TIMEOUT_S = 60.0

# Names of figures that rows refer to.
WRITE, WRITE_CPU = "fio, direct writes of 128 KiB, 8 under way", "fio, direct writes of 128 KiB: CPU"
DURABLE_P50, DURABLE_P99, DURABLE_P999 = (f"fio, durable writes of 16 KiB: p{p}" for p in ("50", "99", "99.9"))
SEND, RECEIVE = "loopback: sendfile", "loopback: receive"
ECHO_P50, ECHO_P99, ECHO_P999 = (f"loopback: there and back, 2 KiB: p{p}" for p in ("50", "99", "99.9"))
LATE_P50, LATE_P99, LATE_P999 = (f"a timer of 0.5 ms on an idle CPU is late: p{p}" for p in ("50", "99", "99.9"))
ECHO_CPU = "loopback: one receive and one send of 2 KiB, 64 connections, kernel time"
COPY, CRC = "memcpy, 64 MiB", "CRC32C (fio's, with the processor's instruction)"


class Limits:
    """The figures, by name."""

    def __init__(self):
        self._figures: dict = {}

    def add(self, name: str, value: float, unit: str) -> None:
        self._figures[name] = (value, unit)

    def get(self, name: str):
        """Its value, or None where it was not measured."""
        return self._figures[name][0] if name in self._figures else None

    def sum(self, *names: str):
        """None when one of them is missing."""
        values = [self.get(name) for name in names]
        return None if None in values else sum(values)

    def rows(self) -> list:
        return [{"name": name, "value": value, "unit": unit} for name, (value, unit) in self._figures.items()]


def measure(folder: Path, cpus: Cpus, seconds: float) -> Limits:
    """All of it; `seconds` for each of fio's jobs. What a broker would do runs where the broker does."""
    found = Limits()
    folder.mkdir(parents=True, exist_ok=True)
    for part in (add_disk, add_durable):
        _on_broker_cpu(cpus, part, folder, seconds, found)
    add_sendfile(folder, cpus, found)
    add_echo(cpus, found)
    add_timer(found)
    _on_broker_cpu(cpus, add_copy, found)
    _on_broker_cpu(cpus, add_crc, found)
    return found


def _on_broker_cpu(cpus: Cpus, work, *arguments) -> None:
    here = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpus.broker})
    try:
        work(*arguments)
    finally:
        os.sched_setaffinity(0, here)


def add_disk(folder: Path, seconds: float, found: Limits) -> None:
    job = ["--rw=write", f"--bs={WRITE_BYTES}", f"--iodepth={WRITES_UNDER_WAY}", "--size=1g", "--fallocate=posix"]
    done = physical.fio(folder, [*job, "--time_based", f"--runtime={seconds:.0f}"])
    if done is not None:
        gb = done["write"]["io_bytes"] / 1e9
        found.add(WRITE, gb * 1000 / (done["job_runtime"] / 1000), "MB/s")
        found.add(WRITE_CPU, physical.cpu_s(done) / gb, "CPU s/GB")


def add_durable(folder: Path, seconds: float, found: Limits) -> None:
    """Onto blocks that were written before, one write under way."""
    job = ["--rw=randwrite", f"--bs={DURABLE_BYTES}", "--sync=dsync", "--iodepth=1", "--overwrite=1", "--size=256m"]
    done = physical.fio(folder, [*job, "--time_based", f"--runtime={seconds:.0f}"])
    if done is not None:
        shares = done["write"]["clat_ns"]["percentile"]
        for name, share in ((DURABLE_P50, "50"), (DURABLE_P99, "99"), (DURABLE_P999, "99.9")):
            found.add(name, shares[f"{float(share):.6f}"] / 1000, "µs")


def add_sendfile(folder: Path, cpus: Cpus, found: Limits) -> None:
    """A file in the page cache to a sink that only receives."""
    path = folder / "sendfile"
    try:
        with open(path, "wb") as file:
            for _ in range(FILE_BYTES >> 20):
                file.write(os.urandom(1 << 20))
            os.fsync(file.fileno())
        rounds = [physical.send_files([path] * TIMES_OVER, {cpus.broker}) for _ in range(SENDINGS)]
    finally:
        path.unlink(missing_ok=True)
    gb = FILE_BYTES * TIMES_OVER / 1e9
    # The best of them: what it costs when nobody disturbs it.
    found.add(SEND, min(r.sender_cpu for r in rounds) / gb, "CPU s/GB")
    found.add(RECEIVE, min(r.sink_cpu for r in rounds) / gb, "CPU s/GB")
    found.add("loopback: sendfile, rate", max(gb * 1000 / r.took for r in rounds), "MB/s")


def add_echo(cpus: Cpus, found: Limits) -> None:
    """Messages to the broker's CPU and back: one at a time for the time they take; from many at once what they cost.

    Of the cost the kernel's time only, for the rest is Python's.
    """
    took, _ = _echoes(cpus, 1, ECHOES)
    took.sort()
    for name, share in ((ECHO_P50, 0.5), (ECHO_P99, 0.99), (ECHO_P999, 0.999)):
        found.add(name, took[int(share * len(took))], "µs")
    _, kernel_s = _echoes(cpus, ECHO_LINES, ECHO_LINES * (ECHOES * 3 // ECHO_LINES))
    found.add(ECHO_CPU, kernel_s * 1e6 / (ECHO_LINES * (ECHOES * 3 // ECHO_LINES)), "CPU s/million")


def _echoes(cpus: Cpus, lines: int, messages: int) -> tuple:
    """Microseconds of each round of one message on every line, and the other side's kernel seconds."""
    ours, theirs = multiprocessing.Pipe()
    message, took = bytes(ECHO_BYTES), []
    with contextlib.ExitStack() as open_:
        listener = open_.enter_context(socket.create_server(("127.0.0.1", 0), backlog=lines))
        listener.settimeout(TIMEOUT_S)
        fork = multiprocessing.get_context("fork")
        process = fork.Process(target=_echo, args=(listener, lines, theirs, cpus), daemon=True)
        process.start()
        connected = [socket.create_connection(listener.getsockname(), TIMEOUT_S) for _ in range(lines)]
        with contextlib.ExitStack() as lines_:
            for line in connected:
                lines_.enter_context(line).setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(messages // lines):
                began = time.perf_counter_ns()
                for line in connected:
                    line.sendall(message)
                for line in connected:
                    left = ECHO_BYTES
                    while left:
                        left -= len(line.recv(left))
                took.append((time.perf_counter_ns() - began) / 1000)
        if not ours.poll(TIMEOUT_S):
            raise SystemExit("scripts/bench: the loopback echo did not end")
        kernel_s = ours.recv()
        process.join(TIMEOUT_S)
    return took, kernel_s


def _echo(listener: socket.socket, lines: int, result, cpus: Cpus) -> None:
    """Sends back what comes, until every line is closed."""
    os.sched_setaffinity(0, {cpus.broker})
    poll, by_file = select.epoll(), {}
    for _ in range(lines):
        line = listener.accept()[0]
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        by_file[line.fileno()] = line
        poll.register(line.fileno(), select.EPOLLIN)
    before = os.times().system
    while by_file:
        for file, _ in poll.poll():
            if message := by_file[file].recv(ECHO_BYTES):
                by_file[file].sendall(message)
            else:
                poll.unregister(file)
                by_file.pop(file).close()
    result.send(os.times().system - before)


def add_timer(found: Limits) -> None:
    """How late this machine lets something be that is due at a time, where nothing else runs."""
    late, due = [], time.monotonic()
    for _ in range(TIMERS):
        due += TIMER_S
        time.sleep(max(0.0, due - time.monotonic()))
        late.append((time.monotonic() - due) * 1e6)
    late.sort()
    for name, share in ((LATE_P50, 0.5), (LATE_P99, 0.99), (LATE_P999, 0.999)):
        found.add(name, late[int(share * len(late))], "µs")


def add_copy(found: Limits) -> None:
    source, target = memoryview(bytearray(os.urandom(COPY_BYTES))), memoryview(bytearray(COPY_BYTES))
    target[:] = source
    began = time.monotonic()
    for _ in range(COPIES):
        target[:] = source
    seconds = time.monotonic() - began
    found.add(COPY, COPY_BYTES * COPIES / 1e9 / seconds, "GB/s")
    found.add(f"{COPY}: CPU", seconds / (COPY_BYTES * COPIES / 1e9), "CPU s/GB")


def add_crc(found: Limits) -> None:
    try:
        done = subprocess.run(["fio", "--crctest=crc32c"], capture_output=True, text=True, timeout=TIMEOUT_S)
    except OSError:
        return
    if said := re.search(r"^crc32c:\s+([\d.]+) MiB/sec", done.stdout, re.MULTILINE):
        gb_per_s = float(said.group(1)) * 2**20 / 1e9
        found.add(CRC, gb_per_s, "GB/s")
        found.add(f"{CRC}: CPU", 1 / gb_per_s, "CPU s/GB")
