"""Figures, ratios and floors in words."""

import math
import re
from fractions import Fraction
from typing import NamedTuple, Optional

NONE = "–"
NAMES = {"heizer": "Heizer", "kafka": "Apache Kafka"}
_FLOOR = re.compile(r"(<=|>=|<|>|≤|≥)\s*([0-9.]+)(?:/([0-9.]+))?\s*(.*)")
_SIGNS = {"<=": "≤", ">=": "≥"}


def broker(kind: str) -> str:
    return NAMES.get(kind, kind)


def figure(value: Optional[float]) -> str:
    """Three significant digits, and all digits before the point."""
    if value is None:
        return NONE
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if size < -5:
        return f"{value:.1e}"
    # Rounding may carry into a digit more.
    size = math.floor(math.log10(abs(round(value, 2 - size))))
    shown = f"{value:,.{max(0, 2 - size)}f}"
    return shown.rstrip("0").rstrip(".") if "." in shown else shown


def spread(values: list[float]) -> str:
    """The least and the most, when they differ to the eye."""
    if not values:
        return ""
    least, most = figure(min(values)), figure(max(values))
    return "" if least == most else f"{least} to {most}"


def duration(microseconds: Optional[float]) -> str:
    if microseconds is None:
        return NONE
    if microseconds < 1000:
        return f"{figure(microseconds)} µs"
    if microseconds < 1_000_000:
        return f"{figure(microseconds / 1000)} ms"
    return f"{figure(microseconds / 1_000_000)} s"


def size(count: Optional[float]) -> str:
    """Bytes, in powers of ten as disks are sold."""
    if count is None:
        return NONE
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{figure(count / factor)} {unit}"
    return f"{figure(count)} B"


def percentile(value: float) -> str:
    """50 as p50, 99.990 as p99.99."""
    return f"p{value:.4f}".rstrip("0").rstrip(".")


def times(factor: float) -> str:
    """2.34 as 2.3×; from ten on without a fraction."""
    return f"{factor:.1f}×" if factor < 9.95 else f"{factor:,.0f}×"


class Comparison(NamedTuple):
    words: str
    # "better", "worse", "same"; empty when there is nothing to compare.
    verdict: str


def compared(ratio: Optional[float], better: str) -> Comparison:
    """Heizer's figure over Kafka's, as "4.2× less", and whether that is the better side."""
    if ratio is None or ratio <= 0:
        return Comparison(NONE, "")
    if abs(ratio - 1) < 0.005:
        return Comparison("the same", "same")
    side = "more" if ratio > 1 else "less"
    verdict = "better" if (side == "more") == (better == "higher") else "worse"
    factor = max(ratio, 1 / ratio)
    much = times(factor) if factor >= 1.1 else f"{abs(ratio - 1) * 100:.0f} %"
    return Comparison(f"{much} {side}", verdict)


class Floor(NamedTuple):
    """What has to be reached: a bound on the ratio to Kafka, or on the figure itself."""

    words: str
    ratio: Optional[float]


def floor(written: str) -> Floor:
    """`<= 0.25` bounds the ratio; `<= 2 s` with its unit bounds Heizer's own figure; anything else stays as it is."""
    found = _FLOOR.fullmatch(written.strip())
    if not found:
        return Floor(written or NONE, None)
    sign, above, below, unit = found.groups()
    try:
        bound = float(above) / (float(below) if below else 1)
    except (ValueError, ZeroDivisionError):
        return Floor(written, None)
    sign = _SIGNS.get(sign, sign)
    if unit and unit not in ("x", "×"):
        return Floor(f"{sign} {figure(bound)} {unit}", None)
    return Floor(f"{sign} {_share(bound)}", bound)


def _share(bound: float) -> str:
    """0.25 as 1/4, 2 as 2×."""
    near = Fraction(bound).limit_denominator(20)
    if 0 < near < 1 and abs(float(near) - bound) < 0.005 * bound:
        return f"{near.numerator}/{near.denominator}"
    return f"{figure(bound)}×"
