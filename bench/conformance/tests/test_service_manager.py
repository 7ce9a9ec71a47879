"""What systemd is told by way of NOTIFY_SOCKET: starting, ready, alive as long as every core is, stopping."""

import os
import queue
import socket
import threading
import time
import uuid

import pytest

from harness.threads import Stopped, thread_of

pytestmark = pytest.mark.heizer

WATCHDOG_S = 0.3


class Manager:
    """The other end of the socket. What comes is taken at once: the kernel may keep no more than ten words."""

    def __init__(self):
        self.name = f"heizer-{uuid.uuid4().hex}"
        self._heard: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{self.name}")
        self._listening = threading.Thread(target=self._listen, daemon=True)
        self._listening.start()

    def hear(self, wanted: str, within_s: float = 10.0) -> str:
        """The next word that has this line."""
        deadline = time.monotonic() + within_s
        while (left := deadline - time.monotonic()) > 0:
            try:
                said = self._heard.get(timeout=left)
            except queue.Empty:
                break
            if wanted in said.splitlines():
                return said
        raise AssertionError(f"{wanted} was not heard within {within_s} s")

    def forget(self) -> None:
        """What has come so far does not count."""
        while not self._heard.empty():
            self._heard.get()

    def close(self) -> None:
        # An empty word is the last one.
        self._socket.connect(f"\0{self.name}")
        self._socket.send(b"")
        self._listening.join()
        self._socket.close()

    def _listen(self) -> None:
        while said := self._socket.recv(4096):
            self._heard.put(said.decode())


@pytest.fixture
def manager(monkeypatch):
    found = Manager()
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{found.name}")
    monkeypatch.setenv("WATCHDOG_USEC", str(int(WATCHDOG_S * 1_000_000)))
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    yield found
    found.close()


def test_a_broker_tells_that_it_starts_is_ready_lives_and_stops(manager, start_broker):
    broker = start_broker()
    manager.hear("EXTEND_TIMEOUT_USEC=60000000")
    assert f"STATUS=ready on {broker.bootstrap}" in manager.hear("READY=1")
    for _ in range(5):
        manager.hear("WATCHDOG=1", 2)
    manager.forget()
    broker.stop()
    manager.hear("STOPPING=1", 1)
    broker.start()
    manager.hear("READY=1", 1)


def test_the_watchdog_is_fed_only_while_every_core_answers(manager, start_broker):
    broker = start_broker()
    manager.hear("READY=1")
    with Stopped(thread_of(broker.pid, f"heizer-{len(os.sched_getaffinity(0)) - 1}")):
        # One may have been on its way.
        time.sleep(WATCHDOG_S)
        manager.forget()
        with pytest.raises(AssertionError, match="was not heard"):
            manager.hear("WATCHDOG=1", 3 * WATCHDOG_S)
    manager.hear("WATCHDOG=1", 5)


def test_a_broker_without_a_manager_says_nothing_and_one_with_a_wrong_address_warns(monkeypatch, start_broker):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    start_broker().stop()
    monkeypatch.setenv("NOTIFY_SOCKET", "/" + "long" * 100)
    broker = start_broker()
    broker.expect_log("NOTIFY_SOCKET is wrong")
    assert "NOTIFY_SOCKET is wrong" in broker.log_tail()
