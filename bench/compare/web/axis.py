"""Scales: from a value to its place between 0 and 1, with the ticks to label."""

import math
from dataclasses import dataclass
from typing import Callable, Iterable

from web.wording import figure

_STEPS = (1, 2, 5, 10)
# What a latency chart shows at its left end.
LOWEST_PERCENTILE = 50.0
_NINES = (50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 99.9999)


@dataclass(frozen=True)
class Axis:
    """`low` to `high`, spaced evenly after `transform`. Ticks are values with their labels."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    transform: Callable[[float], float] = float

    def at(self, value: float) -> float:
        """Where `value` lies; what is beyond an end lies at that end."""
        kept = min(max(value, self.low), self.high)
        low, high = self.transform(self.low), self.transform(self.high)
        return (self.transform(kept) - low) / (high - low)


def linear(values: Iterable[float], *, exact: bool = False) -> Axis:
    """From nothing to a round number that is not below any value, or to the highest itself; about four steps."""
    most = max([value for value in values if value > 0], default=1.0)
    rough = most / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step * power for step in _STEPS if step * power >= rough * 0.999)
    count = math.floor(most / step + 1e-9) if exact else math.ceil(most / step - 1e-9)
    ticks = [n * step for n in range(count + 1)]
    return Axis(0.0, most if exact else ticks[-1], tuple((tick, figure(tick)) for tick in ticks))


def logarithmic(values: Iterable[float], label: Callable[[float], str] = figure) -> Axis:
    """From and to round numbers around the positive values; a tick at each power of ten, more of them on short ones."""
    positive = [value for value in values if value > 0] or [1.0]
    low, high = _round_below(min(positive)), _round_above(max(positive))
    if low == high:
        low, high = low / 2, high * 2
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1,) if last - first > 3 else (1, 2, 5) if last - first < 3 else (1, 3)
    ticks = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
    shown = tuple((tick, label(tick)) for tick in ticks if low * 0.999 <= tick <= high * 1.001)
    return Axis(low, high, shown, math.log10)


def factors(values: Iterable[float]) -> Axis:
    """How many times better: a logarithmic axis that always has 1 on it."""
    positive = [value for value in values if value > 0]
    return logarithmic([0.8, 2.0, *positive], lambda value: f"{figure(value)}×")


def percentiles(highest: float) -> Axis:
    """Each further nine takes as much room as the one before."""
    end = next((nine for nine in _NINES[1:] if nine >= highest - 1e-9), _NINES[-1])
    ticks = tuple((nine, f"{nine:.10g}") for nine in _NINES if nine <= end)
    return Axis(LOWEST_PERCENTILE, end, ticks, lambda value: -math.log10(1 - value / 100))


def _round_below(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return max(step * power for step in _STEPS if step * power <= value * 1.0001)


def _round_above(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return min(step * power for step in _STEPS if step * power >= value * 0.9999)
