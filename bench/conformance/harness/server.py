"""A broker as a process of its own: Heizer, or Apache Kafka where the suite itself is checked.

A `Server` owns its data folder, its port and its log. It can be stopped, killed, and started again on the same
folder and the same port, as an operator would.
"""

import json
import random
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Optional

from . import java, paths, process, wait

STOP_TIMEOUT_S = 30.0
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_BAD_LINE = re.compile(r"\b(WARN|ERROR|FATAL)\b|panicked at|stack backtrace|RUST_BACKTRACE")


def free_port() -> int:
    """A port nobody listens on just now.

    Below the range from which outgoing connections take theirs: while a broker is down, a client that reconnects must
    not sit on its port, nor meet itself there.
    """
    while True:
        port = random.randrange(10_000, 30_000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                continue
        if can_bind(port):
            return port


def can_bind(port: int) -> bool:
    """Whether nobody holds the port, not even a process that has ended."""
    with socket.socket() as probe:
        # What is left of closed connections does not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            return True
        except OSError:
            return False


class Server:
    """What both brokers have in common."""

    START_TIMEOUT_S = 20.0
    # How much resident memory may waver when it is said to stay where it was.
    MEMORY_MARGIN_MIB = 48

    def __init__(self, home: Path, settings: Optional[dict] = None):
        self.home = home
        self.data = home / "data"
        self.settings = dict(settings or {})
        self.port = free_port()
        self.start_ms = 0.0
        # When the process was started last, by the monotonic clock.
        self.launched_s = 0.0
        self.command_line: list[str] = []
        self._process: Optional[subprocess.Popen] = None
        self._stdout_start = 0
        self._checked = {self.log_path: 0, self.stdout_path: 0}
        self._expected: list[re.Pattern] = []
        home.mkdir(parents=True, exist_ok=True)

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the broker is not running"
        return self._process.pid

    def start(self) -> "Server":
        """Starts the broker and waits until it says that it is ready."""
        began = time.monotonic()
        self.launch()
        wait.until("the broker is ready", self._ready_or_dead, self.START_TIMEOUT_S, pause_s=0.005)
        self.start_ms = (time.monotonic() - began) * 1000
        return self

    def launch(self) -> None:
        """Starts the process without waiting for it."""
        assert self._process is None, "the broker runs already"
        self.command_line = self._command()
        with open(self.stdout_path, "ab") as out, open(self.log_path, "ab") as log:
            self._stdout_start = out.tell()
            self.launched_s = time.monotonic()
            self._process = subprocess.Popen(
                self.command_line, stdin=subprocess.DEVNULL, stdout=out, stderr=log, cwd=self.home
            )

    def stop(self) -> None:
        """SIGTERM; the broker must leave by itself, with success."""
        process, self._process = self._process, None
        assert process is not None, "the broker is not running"
        early = process.poll()
        assert early is None, f"the broker died by itself, exit code {early}:\n{self.log_tail()}"
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"still running {STOP_TIMEOUT_S} s after SIGTERM:\n{self.log_tail()}") from None
        assert code == self._code_after_sigterm(), f"exit code {code} after SIGTERM:\n{self.log_tail()}"

    def kill(self) -> None:
        """kill -9."""
        process, self._process = self._process, None
        assert process is not None, "the broker is not running"
        early = process.poll()
        assert early is None, f"the broker died before it was killed, exit code {early}:\n{self.log_tail()}"
        process.kill()
        process.wait()

    def restart(self) -> "Server":
        """A clean stop and a start on the same data and port."""
        self.stop()
        return self.start()

    def close(self) -> None:
        """The end of a test: stop cleanly, look at the log, remove the data."""
        if self._process is not None:
            self.stop()
        self.check_log()
        shutil.rmtree(self.data, ignore_errors=True)

    def abandon(self) -> None:
        """The end of a failed test: no broker stays behind; data and log stay to be looked at."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def assert_alive(self) -> None:
        assert self._process is not None and self._process.poll() is None, f"the broker died:\n{self.log_tail()}"

    def resident_mib(self) -> float:
        """Resident memory of the process."""
        return process.resident_mib(self.pid)

    def expect_log(self, *patterns: str) -> None:
        """Warnings that match one of these are part of the scenario."""
        self._expected += [re.compile(p, re.IGNORECASE) for p in patterns]

    def check_log(self) -> None:
        """No warning, error or panic since the last check, but for the expected ones."""
        bad = []
        for path, seen in self._checked.items():
            lines = _lines(path)
            self._checked[path] = len(lines)
            suspects = filter(_BAD_LINE.search, lines[seen:])
            bad += [line for line in suspects if not any(e.search(line) for e in self._expected)]
        assert not bad, "unexpected lines in the broker's log:\n" + "\n".join(bad[:20])

    def log_tail(self) -> str:
        return "\n".join(_lines(self.log_path)[-40:] + _lines(self.stdout_path)[-40:])

    @property
    def log_path(self) -> Path:
        return self.home / "broker.log"

    @property
    def stdout_path(self) -> Path:
        return self.home / "stdout.log"

    def _ready_or_dead(self) -> bool:
        if self._process.poll() is not None:
            raise AssertionError(f"the broker exited {self._process.returncode} at start:\n{self.log_tail()}")
        return self._is_ready()

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _is_ready(self) -> bool:
        raise NotImplementedError

    def _code_after_sigterm(self) -> int:
        raise NotImplementedError


class Heizer(Server):
    """`heizer serve` with a data folder and free ports of its own; `prefix` is a command that runs it somewhere else."""

    # Another program than the one under test.
    binary: Optional[Path] = None

    def __init__(self, home: Path, settings: Optional[dict] = None, flags: tuple = (), prefix: tuple = ()):
        super().__init__(home, settings)
        self.admin_port = free_port()
        self.flags = list(flags)
        self.prefix = list(prefix)

    def _command(self) -> list[str]:
        line = [*self.prefix, str(self.binary or paths.heizer()), "serve", "--listen", self.bootstrap, "--data-dir", str(self.data)]
        line += ["--admin-listen", f"127.0.0.1:{self.admin_port}", *self.flags]
        if self.settings:
            config = self.home / "heizer.toml"
            config.write_text("".join(f'"{key}" = {_toml(value)}\n' for key, value in self.settings.items()))
            line += ["--config", str(config)]
        return line

    def _is_ready(self) -> bool:
        said = self.stdout_path.read_text(errors="replace")[self._stdout_start :]
        return f"heizer ready on {self.bootstrap}\n" in said

    def _code_after_sigterm(self) -> int:
        return 0


class ApacheKafka(Server):
    """A single KRaft node out of the cached jars: the reference that says whether a scenario is right."""

    START_TIMEOUT_S = 90.0
    MEMORY_MARGIN_MIB = 256  # the heap grows to its limit when it pleases
    JVM_FLAGS: tuple = ("-Xmx512m", "-XX:+UseSerialGC")
    _DEFAULTS = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "offsets.topic.replication.factor": 1,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "group.initial.rebalance.delay.ms": 0,
        # A killed node is taken back once its old session has run out.
        "broker.session.timeout.ms": 1000,
        "broker.heartbeat.interval.ms": 200,
    }

    def __init__(self, home: Path, settings: Optional[dict] = None):
        super().__init__(home, settings)
        self._controller = free_port()
        self.expect_log(r"WARN|ERROR")

    def _command(self) -> list[str]:
        properties = self.home / "server.properties"
        settings = {
            **self._DEFAULTS,
            "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://127.0.0.1:{self._controller}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller}",
            "log.dirs": str(self.data),
            **self.settings,
        }
        properties.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        format_ = ("format", "-t", "AAAAAAAAAAAAAAAAAAAAAQ", "-c", str(properties), "--ignore-formatted")
        java.run(java.STORAGE, *format_)
        return java.command(java.SERVER, str(properties), flags=self.JVM_FLAGS)

    def _is_ready(self) -> bool:
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        time.sleep(0.3)
        try:
            client = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
            return bool(client.list_topics(timeout=2).brokers)
        except KafkaException:
            return False

    def _code_after_sigterm(self) -> int:
        return 128 + signal.SIGTERM


def _toml(value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, (int, float)) else json.dumps(value)


def _lines(path: Path) -> list[str]:
    return _ANSI.sub("", path.read_text(errors="replace")).splitlines() if path.exists() else []
