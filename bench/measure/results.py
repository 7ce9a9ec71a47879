"""What was measured, by what it says and its unit."""

import math
import statistics
import sys


class Results:
    """Every value of every round."""

    def __init__(self):
        self._values: dict = {}
        self._notes: list = []

    def add(self, what: str, unit: str, value: float) -> None:
        self._values.setdefault((what, unit), []).append(value)
        print(f"  {what}: {value:.2f} {unit}", file=sys.stderr, flush=True)

    def note(self, line: str) -> None:
        """Said once, below the table: what a figure leaves out, or why there is none."""
        if line not in self._notes:
            self._notes.append(line)
            print(f"  {line}", file=sys.stderr, flush=True)

    def rows(self) -> list:
        return [
            {"what": what, "unit": unit, "median": statistics.median(values), "rounds": values}
            for (what, unit), values in self._values.items()
        ]

    @property
    def notes(self) -> list:
        return list(self._notes)

    def print(self) -> None:
        print(f"{'':<84}{'':<10}{'median':>10}{'least':>10}{'most':>10}")
        for row in self.rows():
            median, least, most = row["median"], min(row["rounds"]), max(row["rounds"])
            print(f"{row['what']:<84}{row['unit']:<10}{median:>10.2f}{least:>10.2f}{most:>10.2f}")
        for line in self._notes:
            print(line)


def quantile(values: list, share: float) -> float:
    """The smallest value that `share` of them do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * share) - 1)]
