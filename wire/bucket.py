"""A bucket of tokens that fills with time: how much of something a neighbour may do."""

from typing import Final

from wire.moments import SECOND, Instant

_SHARE: Final = 4


class Bucket:
    """Holds at most ``most`` and gains ``per_s`` a second; full at first. Times that go back add nothing."""

    def __init__(self, per_s: int, most: int, now: Instant) -> None:
        self._per_s = per_s
        self._held = self._full = most * SECOND
        self._at = now

    def _fill(self, now: Instant) -> None:
        passed = now - self._at
        if passed > 0:
            self._at = now
            held = self._held + passed * self._per_s
            self._held = held if held < self._full else self._full

    def spend(self, amount: int, now: Instant) -> bool:
        """Take ``amount``, or nothing and say False when there is not so much."""
        self._fill(now)
        if self._held < amount * SECOND:
            return False
        self._held -= amount * SECOND
        return True

    def charge(self, amount: int, now: Instant) -> None:
        """Take ``amount`` of what is there: it has been used already."""
        self._fill(now)
        self._held = max(0, self._held - amount * SECOND)

    def well_filled(self, now: Instant) -> bool:
        """Whether a quarter is left: who keeps to this never empties the same bucket at the other end."""
        self._fill(now)
        return self._held * _SHARE >= self._full
