"""A row of the report: what it means, and what is made of the rounds of both brokers."""

import re
import statistics
from dataclasses import dataclass
from typing import Callable, NamedTuple, Optional

import limits


class Floor(NamedTuple):
    """`<= 0.5` bounds the ratio to Apache Kafka; `<= 2000 ms`, with a unit, Heizer's own figure."""

    most: bool
    bound: float
    unit: str

    @staticmethod
    def parse(text: str) -> "Floor":
        found = re.fullmatch(r"(<=|>=) (\d+(?:\.\d+)?)(?: (\S.*))?", text)
        if found is None:
            raise ValueError(f"{text!r} is no floor: write '<= 0.5' for a ratio, '<= 2000 ms' for a figure")
        return Floor(found.group(1) == "<=", float(found.group(2)), found.group(3) or "")

    def met_by(self, heizer: Optional[float], ratio: Optional[float]) -> Optional[bool]:
        """None when the figure it bounds is not there."""
        value = heizer if self.unit else ratio
        if value is None:
            return None
        return value <= self.bound if self.most else value >= self.bound


@dataclass(frozen=True)
class Row:
    """`value` takes the load generator's result and finds this row's figure in it, or None."""

    name: str
    what: str
    unit: str
    value: Callable[[dict], Optional[float]] = lambda _: None
    floor: Optional[str] = None
    better: str = "lower"
    design: bool = False
    limit: Callable[[limits.Limits], Optional[float]] = lambda _: None
    limit_what: str = ""


def filled(row: Row, heizer: list, kafka: list, found: limits.Limits) -> dict:
    """The row as the report has it: medians of the rounds, their ratio, and whether the floor is met."""
    ours, theirs = median(heizer), median(kafka)
    ratio = ours / theirs if ours is not None and theirs else None
    limit = row.limit(found)
    return {
        "name": row.name,
        "what": row.what,
        "unit": row.unit,
        "heizer": ours,
        "kafka": theirs,
        "ratio": ratio,
        "floor": row.floor,
        "limit": limit,
        "limit_what": row.limit_what if limit is not None else "",
        "met": Floor.parse(row.floor).met_by(ours, ratio) if row.floor else None,
        "heizer_rounds": heizer,
        "kafka_rounds": kafka,
        "design": row.design,
        "better": row.better,
    }


def median(rounds: list) -> Optional[float]:
    values = [value for value in rounds if value is not None]
    return statistics.median(values) if values else None


def changed(now: list, then: list, better: str) -> str:
    """`slower`, `faster` or nothing: only when no round of one lies within the other's spread."""
    if not now or not then:
        return ""
    if max(now) < min(then):
        return "faster" if better == "lower" else "slower"
    if min(now) > max(then):
        return "slower" if better == "lower" else "faster"
    return ""
