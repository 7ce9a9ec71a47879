"""What is measured without a load: brokers at rest, as they start, and with many partitions."""

import time
from typing import Optional

import brokers
from harness import many, server

REST_S = {"quick": 3.0, "full": 15.0}
# A JVM goes on compiling after its start; logs let go of memory when nobody has written for ten seconds.
SETTLES_S = {"quick": 2.0, "full": 20.0}
MANY_SETTLES_S = 25.0
BATCH_BYTES = 4 << 10


def rest(broker: server.Server, mode: str) -> dict:
    """A broker that has been started and has no topics."""
    time.sleep(SETTLES_S[mode])
    busy = _busy_percent(broker, REST_S[mode])
    return {"resident-idle": broker.resident_mib(), "idle-cpu": busy}


class Start:
    """A broker with one partition, stopped and started; then with a thousand more."""

    def __init__(self, broker: server.Server):
        self._broker = broker

    def __enter__(self) -> "Start":
        return self

    def __exit__(self, *_) -> None:
        brokers.discard(self._broker)

    def turn(self, mode: str) -> dict:
        """Each turn on an empty folder."""
        broker, found = self._broker, {}
        brokers.launch(broker)
        there = 0
        for name, topics, each in (("start-1", 1, 1), ("start-1000", 10, 100)):
            many.create(broker.bootstrap, topics, each, stem=name)
            there += topics * each
            brokers.await_leaders(broker, there)
            broker.stop()
            found[name] = brokers.launch(broker, there)
        broker.stop()
        brokers.empty(broker)
        return found


class TenThousand:
    """10,000 partitions, created once; each turn writes to all of them, kills the broker and starts it again."""

    TOPICS, EACH = 10, 1000

    def __init__(self, broker: server.Server):
        self._broker = broker
        self._topics: Optional[list] = None

    def __enter__(self) -> "TenThousand":
        return self

    def __exit__(self, *_) -> None:
        brokers.discard(self._broker)

    def turn(self, mode: str) -> dict:
        broker, found = self._broker, {}
        there = self.TOPICS * self.EACH
        if self._topics is None:
            brokers.launch(broker)
            began = time.monotonic()
            self._topics = many.create(broker.bootstrap, self.TOPICS, self.EACH)
            brokers.await_leaders(broker, there)
            found["ten-thousand-create"] = (time.monotonic() - began) * 1000
        else:
            brokers.launch(broker, there)
        batch = many.batch_of(BATCH_BYTES)
        for topic in self._topics:
            many.fill(broker.bootstrap, topic, self.EACH, batch)
        broker.kill()
        brokers.await_port(broker)
        found["ten-thousand-restart"] = brokers.launch(broker, there)
        time.sleep(MANY_SETTLES_S)
        found["ten-thousand-idle-cpu"] = _busy_percent(broker, 2 * REST_S[mode])
        found["ten-thousand-resident"] = broker.resident_mib()
        broker.stop()
        return found


ALONE = {"start": Start, "ten-thousand": TenThousand}


def _busy_percent(broker: server.Server, seconds: float) -> float:
    """CPU of so many seconds at rest, of one core."""
    before, began = brokers.cpu(broker), time.monotonic()
    time.sleep(seconds)
    used = brokers.cpu(broker) - before
    return used.both / (time.monotonic() - began) * 100
