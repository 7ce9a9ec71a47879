"""Runs the parts: rounds A B A B, one broker awake at a time, and keeps what every turn says."""

import contextlib
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Optional

import brokers
import generator
import life
from confluent_kafka import KafkaException
from parts import Life, Load

# The first turn of a JVM is longer in front of the window, and so is Heizer's: the same for both.
FIRST_WARMUP_S = {"quick": 8.0, "full": 20.0}
# The first of a part, too, for it uses other paths.
PART_WARMUP_S = {"quick": 3.0, "full": 10.0}
# Topics made and deleted, settling, draining.
AROUND_S = 3.5
DROP_CACHES = Path("/proc/sys/vm/drop_caches")


# A broker that dies or does not answer, a record that is not as it was sent.
FAILURES = (generator.Failed, AssertionError, KafkaException, OSError, subprocess.SubprocessError)


class Suite:
    """`values[row][broker]` is a list with one figure a round; `loads[part]` the load generator's results."""

    def __init__(self, makers: brokers.Makers, mode: str, rounds: int, home: Path):
        self._makers, self._mode, self._rounds, self._home = makers, mode, rounds, home
        self.values: dict = {}
        self.loads: dict = {}
        self.configurations: dict = {}
        self.command_lines: dict = {}
        self.notes: list = []
        self.failure: Optional[str] = None
        self._left_s = 0.0

    def run(self, parts: list) -> None:
        """All parts; what goes wrong ends it, and what was measured until then stays."""
        self._left_s = sum(self._turn_s(part) * self._rounds_of(part) * len(self._of(part)) for part in parts)
        say(f"{len(parts)} parts, about {self._left_s / 60 + 0.5:.0f} minutes")
        try:
            with contextlib.ExitStack() as stages:
                main = None
                for number, part in enumerate(parts, 1):
                    say(f"[{number}/{len(parts)}] {part.title} (about {self._left_s / 60 + 0.5:.0f} minutes left)")
                    if part.name in life.ALONE:
                        self._run_alone(part)
                    elif getattr(part, "broker_settings", {}):
                        with self._stage(part.name, part.broker_settings) as stage:
                            self._run_part(part, stage)
                    else:
                        main = main or stages.enter_context(self._stage("main", {}))
                        self._run_part(part, main)
        except FAILURES as failure:
            self.fail(f"{part.name}: {failure}")

    def fail(self, what: str) -> None:
        """Ends the run; what was measured until now stays."""
        self.failure = what
        self.notes.append(f"ended early: {what.splitlines()[0]}")

    def run_once(self, part: Load) -> None:
        """One round, however many there are of the rest."""
        rounds, self._rounds = self._rounds, 1
        self.run([part])
        self._rounds = rounds

    def _stage(self, name: str, settings: dict) -> brokers.Stage:
        say(f"      starting {' and '.join(self._makers)}")
        return brokers.Stage(self._makers, self._home / name, settings)

    def _run_part(self, part, stage: brokers.Stage) -> None:
        for number in range(1, self._rounds_of(part) + 1):
            for name in self._of(part):
                began = time.monotonic()
                with stage.turn(name) as broker:
                    if not self.configurations.get(name):
                        self.configurations[name] = brokers.configuration(broker)
                        self.command_lines[name] = brokers.command_line(broker)
                    if isinstance(part, Life):
                        figures = life.rest(broker, self._mode)
                    else:
                        first = name in stage.fresh
                        figures = self._run_load(part, broker, name, number, first)
                self._keep(part, name, number, figures, began)

    def _run_load(self, part: Load, broker, name: str, number: int, first: bool) -> dict:
        settings = self._settings(part, number, first)
        into = self._home / "result.json"
        result = generator.run(part.workload, broker, settings, into, forget_pages if part.cold else None)
        self.loads.setdefault(part.name, []).append({"broker": name, "round": number, "result": result})
        return {row.name: row.value(result) for row in part.rows}

    def _settings(self, part: Load, number: int, first: bool) -> dict:
        settings = {**part.settings, **((part.quick or {}) if self._mode == "quick" else part.full)}
        file = generator.read(part.workload)
        settings["topic.name"] = f"{settings.get('topic.name', file['topic']['name'])}-{number}-{os.getpid()}"
        warmup_s = settings.get("warmup_s", file["warmup_s"])
        if warmup_s:
            least = FIRST_WARMUP_S if first else PART_WARMUP_S
            settings["warmup_s"] = max(warmup_s, least[self._mode]) if first or number == 1 else warmup_s
        return settings

    def _run_alone(self, part: Life) -> None:
        """Brokers of its own, started and stopped in their turns."""
        with contextlib.ExitStack() as open_:
            mine = {}
            for name in self._of(part):
                broker = self._makers[name](self._home / part.name / name, {})
                mine[name] = open_.enter_context(life.ALONE[part.name](broker))
            for number in range(1, self._rounds_of(part) + 1):
                for name, subject in mine.items():
                    os.sync()
                    began = time.monotonic()
                    self._keep(part, name, number, subject.turn(self._mode), began)

    def _rounds_of(self, part) -> int:
        """Quick runs start brokers once only: that takes long, and the figures are far from their floors."""
        return 1 if part.name in life.ALONE and self._mode == "quick" else self._rounds

    def _of(self, part) -> list:
        """Who takes part in it."""
        if isinstance(part, Life) and self._leaves_kafka_out(part):
            return [name for name in self._makers if name != "kafka"]
        return list(self._makers)

    def _leaves_kafka_out(self, part: Life) -> bool:
        if self._mode == "quick" and not part.kafka_when_quick:
            return True
        may_open, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        short = "kafka" in self._makers and may_open < part.kafka_files
        needs = f"needs {part.kafka_files:,} files; raise ulimit -n ({may_open:,})"
        note = f"{part.title}: without Apache Kafka, which {needs}"
        if short and note not in self.notes:
            self.notes.append(note)
        return short

    def _keep(self, part, name: str, number: int, figures: dict, began: float) -> None:
        for row in part.rows:
            value = figures.get(row.name)
            if value is not None:
                self.values.setdefault(row.name, {}).setdefault(name, []).append(value)
        told = ", ".join(
            f"{row.name} {figures[row.name]:.4g} {row.unit}" for row in part.rows if figures.get(row.name) is not None
        )
        self._left_s = max(0.0, self._left_s - self._turn_s(part))
        say(f"      round {number}, {name}, {time.monotonic() - began:.0f} s: {told}")

    def _turn_s(self, part) -> float:
        if isinstance(part, Life):
            return part.turn_s
        settings = self._settings(part, 2, False)
        file = generator.read(part.workload)
        window_s = settings.get("measure_s", file["measure_s"]) + settings.get("warmup_s", file["warmup_s"])
        return window_s + part.reading_s + AROUND_S


def forget_pages() -> None:
    """Empties the page cache, for all; needs root."""
    os.sync()
    DROP_CACHES.write_text("1")


def may_forget_pages() -> bool:
    return os.access(DROP_CACHES, os.W_OK)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
