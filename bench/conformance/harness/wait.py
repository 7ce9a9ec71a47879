"""Every wait has an end."""

import time
from typing import Callable, TypeVar

T = TypeVar("T")


def until(what: str, probe: Callable[[], T], timeout_s: float = 30.0, pause_s: float = 0.05) -> T:
    """Asks `probe` until its answer is true and returns that; fails with `what` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s} s in vain for: {what} (last answer: {answer!r})")
        time.sleep(pause_s)
