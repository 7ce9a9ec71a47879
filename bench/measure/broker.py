"""The broker that is measured: its process."""

import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Optional

from harness import process, wait, wire
from harness.server import can_bind, free_port

TIMEOUT_S = 180.0
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


class Heizer:
    """`heizer serve` on a folder and ports of its own."""

    def __init__(self, binary: Path, home: Path, flags: list):
        self.bootstrap = f"127.0.0.1:{free_port()}"
        self.pid = 0
        self.home = home
        self._command = [str(binary), "serve", "--listen", self.bootstrap, "--data-dir", str(home / "data")]
        self._command += ["--admin-listen", f"127.0.0.1:{free_port()}", *flags]
        self._process: Optional[subprocess.Popen] = None
        home.mkdir(parents=True)

    def start(self, partitions: int = 0) -> tuple:
        """Milliseconds from the start to the ready line, and to a Metadata answer with so many leaders."""
        began = time.monotonic()
        with open(self.home / "broker.log", "ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, cwd=self.home
            )
        self.pid = self._process.pid
        readable, _, _ = select.select([self._process.stdout], [], [], TIMEOUT_S)
        line = self._process.stdout.readline().decode() if readable else ""
        ready = time.monotonic()
        if not line.startswith("heizer ready on "):
            raise SystemExit(f"measure: the broker did not get ready: {line!r}\n{self._log_tail()}")
        with wire.Connection(self.bootstrap) as connection:
            while wire.leaders(connection) < partitions:
                if time.monotonic() > began + TIMEOUT_S:
                    raise SystemExit(f"measure: {partitions} partitions have no leaders after {TIMEOUT_S} s")
        answered = time.monotonic()
        return (ready - began) * 1000, (answered - began) * 1000

    def cpu(self) -> process.Cpu:
        return process.cpu(self.pid)

    def resident_mib(self) -> float:
        return process.resident_mib(self.pid)

    def stop(self) -> None:
        """SIGTERM, which it must obey with success."""
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(TIMEOUT_S)
        self._process.stdout.close()
        self._process = None
        if code != 0:
            raise SystemExit(f"measure: the broker exited {code}\n{self._log_tail()}")

    def kill(self) -> None:
        """kill -9; returns when a new process can listen where it did, which the kernel takes some time for."""
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        self._process = None
        wait.until("the port is free", lambda: can_bind(int(self.bootstrap.rsplit(":", 1)[1])), 10, 0.001)

    def scanned_bytes(self) -> int:
        """What the last start has read of unsealed segments, as its log says."""
        log = (self.home / "broker.log").read_text(errors="replace")
        return int(re.findall(r"scanned_bytes=(\d+)", _ANSI.sub("", log))[-1])

    def remove(self) -> None:
        """Whatever state it is in: nothing stays behind."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        shutil.rmtree(self.home)

    def _log_tail(self) -> str:
        return "\n".join((self.home / "broker.log").read_text(errors="replace").splitlines()[-20:])


@contextlib.contextmanager
def own_broker(options):
    """A broker on an empty folder, not started yet, and gone afterwards."""
    home = options.data.absolute() / f"measure-{os.getpid()}"
    broker = Heizer(options.binary.absolute(), home, options.serve.split())
    try:
        yield broker
    finally:
        broker.remove()
