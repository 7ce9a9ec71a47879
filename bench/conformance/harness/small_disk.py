"""A small file system of a scenario's own: a tmpfs in a mount namespace that a sleeping process keeps.

No rights are needed where the kernel lets users have namespaces; else root. The broker is run inside with `prefix`,
can be killed and started again there, and finds its files as they were.
"""

import os
import subprocess
from pathlib import Path

from . import wait

_READY = "mounted"


class SmallDisk:
    """`mib` MiB at `path`, for the processes that are started with `prefix`. A context."""

    def __init__(self, path: Path, mib: int):
        self.path = path
        self.mib = mib
        self._holder = None
        self._user_namespace = True

    def __enter__(self) -> "SmallDisk":
        self.path.mkdir(parents=True)
        script = f'mount -t tmpfs -o size={self.mib}m tmpfs "$1" && echo {_READY} && exec sleep infinity'
        for flags in (["-Urm"], ["-m"]):
            line = ["unshare", *flags, "--propagation", "private", "sh", "-c", script, "sh", str(self.path)]
            holder = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
            if holder.stdout.readline().strip() == _READY:
                self._holder, self._user_namespace = holder, "U" in flags[0]
                return self
            holder.wait()
        raise AssertionError("no mount namespace can be had here: neither a user's own nor root's")

    def __exit__(self, *_) -> None:
        self._holder.kill()
        self._holder.wait()

    @property
    def prefix(self) -> tuple:
        """What a command line starts with to run on this disk; the process keeps its id."""
        user = ("-U", "--preserve-credentials") if self._user_namespace else ()
        return ("nsenter", "-t", str(self._holder.pid), *user, "-m", "--")

    @property
    def inside(self) -> Path:
        """The disk as seen from out here."""
        return Path(f"/proc/{self._holder.pid}/root{self.path}")

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
