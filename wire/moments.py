"""Moments are integer microseconds since the Unix epoch. Nothing here reads a clock."""

from typing import Final, NewType

Instant = NewType("Instant", int)
"""Microseconds since 1970-01-01T00:00:00Z, leap seconds ignored."""

SECOND: Final = 1_000_000
MILLISECOND: Final = 1_000


def after(now: Instant, microseconds: int) -> Instant:
    """The moment ``microseconds`` later than ``now``."""
    return Instant(now + microseconds)
