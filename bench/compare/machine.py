"""The machine: its CPUs and who runs where, its disk, and the versions of what is compared."""

import os
import platform
import re
import resource
import subprocess
from pathlib import Path
from typing import NamedTuple

from harness import paths


class Cpus(NamedTuple):
    """Where the broker runs, and where everybody else does."""

    broker: int
    clients: frozenset
    shared: bool


def divide_cpus() -> Cpus:
    """The last CPU for the broker, the others for the clients; with only one, they share it."""
    mine = sorted(os.sched_getaffinity(0))
    return Cpus(mine[-1], frozenset(mine[:-1] or mine), len(mine) == 1)


def settle_here(cpus: Cpus) -> None:
    """This process and what it starts keep away from the broker's CPU, and may open many files."""
    os.sched_setaffinity(0, cpus.clients)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, max(FILES, most)))
    except (ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


# What Apache Kafka's documentation asks for.
FILES = 100_000


def describe(data: Path, kafka: bool) -> dict:
    """What the report says about it."""
    memory_kib = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text()).group(1))
    return {
        "cpu": cpu_model(),
        "cpus": os.cpu_count(),
        "memory_gib": round(memory_kib / 2**20, 1),
        "kernel": platform.release(),
        "disk": disk(data),
        "versions": versions(kafka),
    }


def cpu_model() -> str:
    found = re.search(r"model name\s+: (.*)", Path("/proc/cpuinfo").read_text())
    return found.group(1) if found else platform.machine()


def disk(folder: Path) -> str:
    """File system, device and, where the kernel knows them, the device's kind and cache."""
    said = output("df", "--output=fstype,source", str(folder)).splitlines()
    if len(said) < 2:
        return "unknown"
    kind, device = said[1].split(None, 1)
    name = os.path.basename(os.path.realpath(device))
    block = Path("/sys/class/block") / name
    queue = block / "queue" if (block / "queue").is_dir() else block / ".." / "queue"
    facts = [label for file, label in _DISK_FACTS if (queue / file[0]).is_file() and read(queue / file[0]) == file[1]]
    return ", ".join([f"{kind} on {device}", *facts])


_DISK_FACTS = (
    (("rotational", "0"), "not rotational"),
    (("write_cache", "write back"), "write-back cache"),
    (("write_cache", "write through"), "write-through cache"),
)


def versions(kafka: bool) -> dict:
    found = {"heizer": f"{output(str(paths.heizer()), '--version').split()[-1]} (commit {commit()})"}
    if kafka:
        jar = next(iter(paths.kafka_libs().glob("kafka-clients-*.jar")))
        found["kafka"] = jar.stem.removeprefix("kafka-clients-")
        said = subprocess.run(["java", "-version"], capture_output=True, text=True).stderr
        found["java"] = re.search(r'version "([^"]+)"', said).group(1)
    return found


def commit() -> str:
    """The work tree's commit, and whether something was changed since."""
    short = output("git", "-C", str(paths.REPOSITORY), "rev-parse", "--short", "HEAD") or "unknown"
    changed = output("git", "-C", str(paths.REPOSITORY), "status", "--porcelain", "--untracked-files=no")
    return f"{short}, changed" if changed else short


def output(*command: str) -> str:
    """What it says; nothing when it fails or is not there."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.strip()
    except OSError:
        return ""


def read(path: Path) -> str:
    return path.read_text().strip()
