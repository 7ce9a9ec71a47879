"""What disk and kernel can do at most, measured in the same run and folder as the broker that is set against it."""

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple, Optional

CONNECT_TIMEOUT_S = 60.0


def fio(folder: Path, job: list) -> Optional[dict]:
    """Runs one fio job with direct I/O through io_uring, on a file that is gone afterwards; its figures.

    None without fio.
    """
    if shutil.which("fio") is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="fio-") as home:
        line = ["fio", "--name=job", f"--directory={home}", "--direct=1", "--ioengine=io_uring", "--thread"]
        done = subprocess.run([*line, "--output-format=json", *job], capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        raise SystemExit(f"fio exited {done.returncode}:\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]


def cpu_s(job: dict) -> float:
    """CPU seconds of a job of fio's."""
    return (job["usr_cpu"] + job["sys_cpu"]) / 100 * job["job_runtime"] / 1000


class Sent(NamedTuple):
    """Seconds of a transfer, and the CPU seconds of both its ends."""

    took: float
    sender_cpu: float
    sink_cpu: float


def send_files(files: list, sender_cpus: Optional[set] = None) -> Sent:
    """What the kernel can do at most: these files by sendfile(2) over loopback to a sink.

    `sender_cpus`: where the sender runs, if not where we do.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(CONNECT_TIMEOUT_S)
        child = os.fork()
        if child == 0:
            _send_files_and_exit(listener, files, sender_cpus)
        with listener.accept()[0] as sink:
            sink.settimeout(CONNECT_TIMEOUT_S)
            buffer, began, cpu = bytearray(1 << 20), time.monotonic(), time.process_time()
            while sink.recv_into(buffer):
                pass
            took, sink_cpu = time.monotonic() - began, time.process_time() - cpu
    _, status, used = os.wait4(child, 0)
    if status:
        raise SystemExit("the sendfile process failed")
    return Sent(took, used.ru_utime + used.ru_stime, sink_cpu)


def _send_files_and_exit(listener: socket.socket, files: list, cpus: Optional[set]) -> None:
    code = 1
    try:
        if cpus:
            os.sched_setaffinity(0, cpus)
        with socket.create_connection(listener.getsockname()) as out:
            for path in files:
                with open(path, "rb") as file:
                    size, at = os.fstat(file.fileno()).st_size, 0
                    while at < size:
                        at += os.sendfile(out.fileno(), file.fileno(), at, min(size - at, 1 << 20))
        code = 0
    finally:
        os._exit(code)


def forget(files: list) -> None:
    """Drops the files' pages from the page cache; what is dirty is written first."""
    for path in files:
        file = os.open(path, os.O_RDONLY)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)
