"""The brokers that are compared: pinned alike, on the same disk, never at work at the same time."""

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable, Optional

from harness import librdkafka as lib
from harness import paths, process, server, wait, wire

ANSWER_TIMEOUT_S = 600.0
# After a turn what is dirty is written, and this long passes before the next one's load.
SETTLE_S = 1.0


class Heizer(server.Heizer):
    """`heizer serve` on one core; `binary` when another than the one built is meant."""

    def __init__(self, home: Path, settings: dict, cpu: int, binary: Optional[Path] = None):
        super().__init__(home, settings, flags=("--cores", "1"), prefix=("taskset", "-c", str(cpu)))
        self.binary = binary


class Kafka(server.ApacheKafka):
    """One KRaft node as Apache Kafka's own start script runs it, with a heap of 1 GiB, on one CPU."""

    JVM_FLAGS = (
        "-Xms1G",
        "-Xmx1G",
        "-server",
        "-XX:+UseG1GC",
        "-XX:MaxGCPauseMillis=20",
        "-XX:InitiatingHeapOccupancyPercent=35",
        "-XX:+ExplicitGCInvokesConcurrent",
        "-Djava.awt.headless=true",
    )
    _DEFAULTS = {
        **server.ApacheKafka._DEFAULTS,
        # It stands still while the other one is measured, and must not be taken for dead.
        "broker.session.timeout.ms": 24 * 3600 * 1000,
        "broker.heartbeat.interval.ms": 2000,
        # What was deleted goes before the next turn instead of a minute later, in the middle of one.
        "log.segment.delete.delay.ms": 500,
    }

    def __init__(self, home: Path, settings: dict, cpu: int):
        super().__init__(home, settings)
        self._cpu = cpu

    def _command(self) -> list[str]:
        return ["taskset", "-c", str(self._cpu), *super()._command()]


# name -> broker in this folder, with these settings beyond its own
Makers = dict[str, Callable[[Path, dict], server.Server]]


def makers(cpu: int, kafka: bool, revision: Optional[Path] = None) -> Makers:
    """Heizer, and whom it is compared with: Apache Kafka, or the Heizer of another revision, or nobody."""
    found: Makers = {"heizer": lambda home, settings: Heizer(home, settings, cpu)}
    if revision is not None:
        found["then"] = lambda home, settings: Heizer(home, settings, cpu, revision)
    elif kafka:
        found["kafka"] = lambda home, settings: Kafka(home, settings, cpu)
    return found


def launch(broker: server.Server, partitions: int = 0) -> float:
    """Starts it; milliseconds from the process to a Metadata answer in which so many partitions have leaders."""
    broker.launch()
    await_leaders(broker, partitions)
    return (time.monotonic() - broker.launched_s) * 1000


def await_leaders(broker: server.Server, partitions: int) -> None:
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    while True:
        try:
            with wire.Connection(broker.bootstrap, ANSWER_TIMEOUT_S) as connection:
                while wire.leaders(connection) < partitions:
                    _check_in_time(broker, partitions, deadline)
                    time.sleep(0.002)
                return
        except OSError:
            _check_in_time(broker, partitions, deadline)
            time.sleep(0.002)


def _check_in_time(broker: server.Server, partitions: int, deadline: float) -> None:
    broker.assert_alive()
    if time.monotonic() > deadline:
        raise AssertionError(f"{partitions} partitions have no leaders after {ANSWER_TIMEOUT_S} s")


def await_port(broker: server.Server) -> None:
    """After kill -9 the kernel takes a moment until another process may listen there."""
    wait.until("the port is free", lambda: server.can_bind(broker.port), 30, 0.001)


def empty(broker: server.Server) -> None:
    """A stopped broker forgets everything."""
    shutil.rmtree(broker.data)


def discard(broker: server.Server) -> None:
    """Ends it in whatever state it is; nothing stays behind."""
    broker.abandon()
    shutil.rmtree(broker.home, ignore_errors=True)


class Stage:
    """Both brokers, running; one is awake and the other stopped by SIGSTOP."""

    def __init__(self, makers_: Makers, home: Path, settings: Optional[dict] = None):
        self.brokers = {name: make(home / name, settings or {}) for name, make in makers_.items()}
        # Whether a broker's code has been at work yet: a JVM compiles as it goes.
        self.fresh = set(self.brokers)

    def __enter__(self) -> "Stage":
        try:
            for broker in self.brokers.values():
                launch(broker)
                _signal(broker, signal.SIGSTOP)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        for broker in self.brokers.values():
            discard(broker)

    @contextlib.contextmanager
    def turn(self, name: str) -> Iterator[server.Server]:
        """This broker's turn: awake, settled, nobody's dirty pages left; its topics are gone afterwards."""
        broker = self.brokers[name]
        os.sync()
        _signal(broker, signal.SIGCONT)
        await_leaders(broker, 0)
        time.sleep(SETTLE_S)
        yield broker
        broker.assert_alive()
        delete_topics(broker)
        self.fresh.discard(name)
        _signal(broker, signal.SIGSTOP)


def delete_topics(broker: server.Server) -> None:
    admin = lib.admin(broker.bootstrap)
    names = [name for name in admin.list_topics(timeout=lib.TIMEOUT_S).topics if not name.startswith("__")]
    if names:
        for done in admin.delete_topics(names, request_timeout=lib.TIMEOUT_S).values():
            done.result(lib.TIMEOUT_S)


def configuration(broker: server.Server) -> dict:
    """Every setting the broker runs with, as it tells itself."""
    admin = lib.admin(broker.bootstrap)
    node = str(next(iter(admin.list_topics(timeout=lib.TIMEOUT_S).brokers)))
    resource = lib.broker_resource(node)
    asked = admin.describe_configs([resource], request_timeout=lib.TIMEOUT_S)
    return {name: entry.value for name, entry in sorted(asked[resource].result(lib.TIMEOUT_S).items())}


def cpu(broker: server.Server) -> process.Cpu:
    return process.cpu(broker.pid)


def _signal(broker: server.Server, number: int) -> None:
    broker.assert_alive()
    os.kill(broker.pid, number)


def command_line(broker: server.Server) -> str:
    """As it was started, with the jars' folder left out, which says nothing to others."""
    return " ".join(broker.command_line).replace(str(paths.kafka_libs()), "libs")
