"""Reads a report in which anything may be missing or of another kind: what is not there is None or empty."""

import statistics
from typing import Iterable, Optional

# Beyond these nothing is measured; within them no scale overflows.
_LEAST, _MOST = 1e-15, 1e18


def at(value: object, *path: str) -> object:
    """What stands at the end of `path`, through objects; None when it does not go that far."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def number(value: object, *path: str) -> Optional[float]:
    """A number that can have been measured, or None."""
    found = at(value, *path)
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        return None
    if not -_MOST <= found <= _MOST:
        return None
    return float(found) if abs(found) > _LEAST else 0.0


def numbers(value: object, *path: str) -> list[float]:
    """The finite numbers of a list, in order."""
    found = at(value, *path)
    return [number(one) for one in found if number(one) is not None] if isinstance(found, list) else []


def objects(value: object, *path: str) -> list[dict]:
    """The objects of a list, in order."""
    found = at(value, *path)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def entries(value: object, *path: str) -> dict:
    """An object, or an empty one."""
    found = at(value, *path)
    return found if isinstance(found, dict) else {}


def text(value: object, *path: str) -> str:
    """A text or number as text; empty when there is none."""
    found = at(value, *path)
    return found if isinstance(found, str) else "" if number(found) is None else str(found)


def median(values: Iterable[Optional[float]]) -> Optional[float]:
    """Of those that are there."""
    there = [value for value in values if value is not None]
    return statistics.median(there) if there else None
