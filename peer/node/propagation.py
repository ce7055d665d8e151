"""How fast orders of others reach this node, and whether in time: histograms of what the market says about each admission."""

from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

from orderbook.core.events import Admitted
from wire.moments import SECOND

AGES_S: Final = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
SLACKS_S: Final = (0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0)


class Histogram:
    """Counts by upper bounds. Hundreds of values come at once, and the library's own histogram takes a lock for each."""

    def __init__(self, bounds_s: tuple[float, ...]) -> None:
        self._bounds_us = tuple(round(bound * SECOND) for bound in bounds_s)
        self._names = (*(str(bound) for bound in bounds_s), "+Inf")
        self._counts = [0] * len(self._names)
        self._sum_us = 0

    def add(self, values_us: Iterable[int]) -> None:
        """Count values, in microseconds."""
        for value in values_us:
            self._counts[bisect_left(self._bounds_us, value)] += 1
            self._sum_us += value

    def buckets(self) -> list[tuple[str, float]]:
        """Bound and how many were at most that, ascending, as Prometheus has it."""
        total, found = 0, []
        for name, count in zip(self._names, self._counts, strict=True):
            total += count
            found.append((name, float(total)))
        return found

    @property
    def sum_s(self) -> float:
        """All values together, in seconds."""
        return self._sum_us / SECOND


class Propagation:
    """What the market has said about the messages of others that it admitted."""

    def __init__(self) -> None:
        self.age = Histogram(AGES_S)
        self.slack = Histogram(SLACKS_S)
        self.late = 0

    def __call__(self, effect: Admitted) -> None:
        """Count one admission, or many."""
        self.age.add(effect.ages_us)
        in_time = [value for value in effect.slack_us if value >= 0]
        self.slack.add(in_time)
        self.late += len(effect.slack_us) - len(in_time)
