"""One side of the comparison: asks a broker, and writes its answers down so that they can be compared."""

import re
import time
from uuid import UUID

from harness import wait, wire
from harness.typed import Talk

NIL = UUID(int=0)
TEXTS = {"error_message", "documentation", "batch_index_error_message"}
NOW_MS = int(time.time() * 1000)


class Side:
    """One of the two brokers: asks it and writes its answers down, made comparable."""

    def __init__(self, bootstrap: str, run: str):
        self.talk = Talk(bootstrap)
        self._bootstrap, self._run = bootstrap, run
        self._members: dict[str, str] = {}
        self._step = "?"
        self.steps: dict[str, object] = {}

    def name(self, stem: str) -> str:
        return f"{stem}-{self._run}"

    def note(self, step: str, answer) -> None:
        assert step not in self.steps, f"{step} twice"
        self.steps[step] = self._alike(answer)

    def ask(self, step: str, api: str, version: int, **fields) -> dict:
        """Asks, notes the answer under `step`, and returns it as it came."""
        try:
            answer = self.talk.ask(api, version, **fields)
        except (ConnectionError, OSError):
            self.talk = Talk(self._bootstrap)
            answer = {"connection": "closed"}
        self.note(step, answer)
        return answer

    def topic(self, stem: str, partitions: int = 1, **configs) -> str:
        """A topic whose leaders answer."""
        name = self.name(stem)
        entry = creatable(name, partitions, configs=configs)
        made = self.talk.ask("CreateTopics", 5, topics=[entry], timeout_ms=10_000)
        assert made["topics"][0]["error_code"] in (0, 36), made
        self.await_leaders(name, partitions)
        return name

    def await_leaders(self, name: str, partitions: int) -> None:
        """Waits until the leaders of so many partitions answer."""
        wait.until(f"{name} is led", lambda: self._leads(name, partitions), 20)

    def topic_id(self, name: str) -> UUID:
        return self.talk.ask("Metadata", 12, topics=[{"name": name}])["topics"][0]["topic_id"]

    def coordinator(self, group: str) -> None:
        def ready():
            self.talk.ask("FindCoordinator", 4, key_type=0, coordinator_keys=[group])
            beat = self.talk.ask("Heartbeat", 3, group_id=group, generation_id=0, member_id="x")
            return beat["error_code"] not in (14, 15, 16)

        wait.until("the coordinator is there", ready, 30)

    def _leads(self, name: str, partitions: int) -> bool:
        asked = [{"partition_index": n, "current_leader_epoch": -1, "timestamp": -1} for n in range(partitions)]
        found = self.talk.ask("ListOffsets", 4, replica_id=-1, topics=[{"name": name, "partitions": asked}])
        return all(p["error_code"] == 0 for p in found["topics"][0]["partitions"])

    def _alike(self, value, key: str = ""):
        if isinstance(value, dict):
            return {name: self._alike(field, name) for name, field in value.items() if name != "throttle_time_ms"}
        if isinstance(value, list):
            rows = [self._alike(item, key) for item in value]
            for name in ("name", "group_id", "partition_index", "index"):
                if rows and all(isinstance(row, dict) and name in row for row in rows):
                    known = name in ("name", "group_id")
                    by_name = {str(row[name]) if known else f"{name} {row[name]}": row for row in rows}
                    return by_name if len(by_name) == len(rows) else sorted(rows, key=str)
            return rows
        if key in TEXTS:
            return value if not value else "a text"
        if key in ("host", "port", "cluster_id") and value not in ("", -1):
            return "its own"
        if key == "topic_id":
            return None if value in (None, NIL) else "an id"
        if key == "producer_id" and value >= 0 or key == "session_id" and value > 0:
            return "an id"
        if key == "log_append_time_ms" and value >= 0:
            return "a time"
        if key in ("member_id", "leader") and isinstance(value, str) and re.search(r"-[0-9a-f-]{16,}$", value):
            return self._members.setdefault(value, f"member {len(self._members)}")
        return value


def creatable(name, partitions=1, replicas=1, assignments=(), configs=None) -> dict:
    return {
        "name": name,
        "num_partitions": partitions,
        "replication_factor": replicas,
        "assignments": [{"partition_index": n, "broker_ids": ids} for n, ids in assignments],
        "configs": [{"name": key, "value": value} for key, value in (configs or {}).items()],
    }


def batch(*values: bytes, **wrong) -> bytes:
    return wire.batch(list(values), timestamp_ms=wrong.pop("timestamp_ms", NOW_MS), **wrong)
