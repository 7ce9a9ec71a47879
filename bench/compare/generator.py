"""heizer-load as a process: one workload against one broker, and what it says about it."""

import json
import signal
import subprocess
import threading
import time
import tomllib
from pathlib import Path
from typing import Callable, Optional

from harness import paths, server

WORKLOADS = Path(__file__).resolve().parent / "workloads"
# For connecting, making topics and draining, beyond what the workload says itself.
GRACE_S = 120.0
# It tells a phase when a second of it is over; half a second for good measure.
FIRST_LINE_AFTER_S = 1.5


class Failed(Exception):
    """The load could not be put on the broker, or not everything came back as it was sent."""


def workload(name: str) -> Path:
    return WORKLOADS / f"{name}.toml"


def read(name: str) -> dict:
    return tomllib.loads(workload(name).read_text())


def run(
    name: str, broker: server.Server, settings: dict, into: Path, at_warm_up: Optional[Callable[[], None]] = None
) -> dict:
    """Runs a workload with these settings over its own, watches the broker's process, and returns the figures.

    `at_warm_up` is called when the backlog has been written, and has to be done before the window.
    """
    line = [str(paths.heizer_load()), "run", str(workload(name)), "--bootstrap-server", broker.bootstrap]
    line += ["--watch-pid", str(broker.pid), "--json", str(into)]
    for key, value in settings.items():
        line += ["--set", f"{key}={toml(value)}"]
    limit_s = timeout_s(read(name), settings)
    process = subprocess.Popen(
        line, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    ends = threading.Timer(limit_s, process.kill)
    ends.start()
    try:
        warmup_s = settings.get("warmup_s", 0) - FIRST_LINE_AFTER_S
        said = _listen(process, name, at_warm_up, warmup_s)
        code = process.wait()
    finally:
        ends.cancel()
        process.kill()
        process.wait()
        process.stderr.close()
    if code == -signal.SIGKILL:
        raise Failed(f"{name}: heizer-load was not done after {limit_s:.0f} s")
    if code != 0:
        raise Failed(f"{name}: {said or f'heizer-load exited {code}'}")
    return json.loads(into.read_text())


def _listen(
    process: subprocess.Popen, name: str, at_warm_up: Optional[Callable[[], None]], warmup_s: float
) -> str:
    """Its last line. Once a second it says which phase it is in."""
    last = ""
    for line in process.stderr:
        last = line.strip() or last
        if at_warm_up and last.startswith("warm-up"):
            began = time.monotonic()
            at_warm_up()
            took_s, at_warm_up = time.monotonic() - began, None
            if took_s > warmup_s:
                raise Failed(f"{name}: what was to be done before the window took {took_s:.1f} s; make warmup_s longer")
    if at_warm_up:
        raise Failed(f"{name}: {last or 'heizer-load said nothing'}")
    return last


def timeout_s(file: dict, settings: dict) -> float:
    def of(key: str) -> float:
        return float(settings.get(key, file.get(key, 0)))

    # The limit holds for the backlog, for a window without length, and for the reading after it.
    return of("warmup_s") + of("measure_s") + 3 * of("limit_s") + GRACE_S


def toml(value) -> str:
    """A setting as TOML writes it in line."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {toml(of)}" for key, of in value.items()) + " }"
    return json.dumps(value)
