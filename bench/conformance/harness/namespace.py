"""Namespaces of a scenario's own, kept by a process that sleeps; other processes are started inside with `prefix`.

No rights are needed where the kernel lets users have namespaces; else root.
"""

import subprocess
import sys

_READY = "ready"


class Namespace:
    """One namespace of a kind, by the letter that unshare(1) has for it: m for mounts, n for the network. A context.

    `setup` is a command that makes the inside ready for use.
    """

    def __init__(self, kind: str, setup: list[str]):
        self._kind, self._setup = kind, setup
        self._holder = None
        self._user_namespace = True

    def __enter__(self) -> "Namespace":
        script = f'"$@" && echo {_READY} && exec sleep infinity'
        private = ["--propagation", "private"] if self._kind == "m" else []
        for flags in (f"-Ur{self._kind}", f"-{self._kind}"):
            line = ["unshare", flags, *private, "sh", "-c", script, "sh", *self._setup]
            holder = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
            if holder.stdout.readline().strip() == _READY:
                self._holder, self._user_namespace = holder, "U" in flags
                return self
            holder.wait()
        raise AssertionError(f"no namespace of the kind {self._kind} can be had here: neither a user's own nor root's")

    def __exit__(self, *_) -> None:
        self._holder.kill()
        self._holder.wait()

    @property
    def pid(self) -> int:
        """The process that keeps it."""
        return self._holder.pid

    @property
    def prefix(self) -> tuple:
        """What a command line starts with to run inside; the process keeps its id."""
        user = ("-U", "--preserve-credentials") if self._user_namespace else ()
        return ("nsenter", "-t", str(self.pid), *user, f"-{self._kind}", "--")


# SIOCSIFFLAGS with IFF_UP; the kernel gives the interface its address. Not every host has ip(8).
_LOOPBACK_UP = """
import fcntl, socket, struct
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH22x", b"lo", 1))
"""


def private_network() -> Namespace:
    """A network with nothing but loopback, on which every port is free."""
    return Namespace("n", [sys.executable, "-c", _LOOPBACK_UP])
