"""A small file system of a scenario's own: a tmpfs in a mount namespace that a sleeping process keeps.

The broker is run inside with `prefix`, can be killed and started again there, and finds its files as they were.
"""

import os
import subprocess
from pathlib import Path

from . import wait
from .namespace import Namespace


class SmallDisk:
    """`mib` MiB at `path`, for the processes that are started with `prefix`. A context."""

    def __init__(self, path: Path, mib: int):
        self.path = path
        self.mib = mib
        self._mounts = Namespace("m", ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(path)])

    def __enter__(self) -> "SmallDisk":
        self.path.mkdir(parents=True)
        self._mounts.__enter__()
        return self

    def __exit__(self, *reason) -> None:
        self._mounts.__exit__(*reason)

    @property
    def prefix(self) -> tuple:
        """What a command line starts with to run on this disk; the process keeps its id."""
        return self._mounts.prefix

    @property
    def inside(self) -> Path:
        """The disk as seen from out here."""
        return Path(f"/proc/{self._mounts.pid}/root{self.path}")

    @property
    def free_bytes(self) -> int:
        found = os.statvfs(self.inside)
        return found.f_bavail * found.f_frsize

    def fill(self) -> None:
        """Somebody else takes every free byte."""
        ballast = str(self.path / "ballast")
        line = [*self.prefix, "dd", "if=/dev/zero", f"of={ballast}", "bs=64K", "oflag=append", "conv=notrunc"]

        def full() -> bool:
            subprocess.run(line, capture_output=True)
            return self.free_bytes == 0

        wait.until("the disk is full", full, 10)

    def relieve(self) -> None:
        """What `fill` has taken is free again."""
        subprocess.run([*self.prefix, "rm", str(self.path / "ballast")], check=True)
