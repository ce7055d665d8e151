"""Time slots: what was matched in each second, minute, hour, … year, in bounded memory.

Every length of slot is fed by itself and keeps ``TAPE_SLOTS_MAX`` slots back from the newest match; slots in which nothing was
matched do not exist. What comes is a whole auction at a time, or a match of one, never older than what came before. The price of
an auction is that of its first fill, the main clearing call; ``first_msat`` and ``last_msat`` of a slot are the prices of its
first and its last auction.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Final

from wire.limits import TAPE_EPOCHS_MAX, TAPE_SLOTS_MAX

SLOTS_S: Final = {
    "1s": 1,
    "6s": 6,
    "30s": 30,
    "1m": 60,
    "3m": 180,
    "12m": 720,
    "1h": 3_600,
    "6h": 21_600,
    "1d": 86_400,
    "1w": 604_800,
    "6w": 3_628_800,
    "1y": 31_536_000,
}
"""Every length of time slot by name, in seconds. All begin at multiples of their length since 1970; a year has 365 days."""
DAY_S: Final = 86_400
_DAY_SLOT_S: Final = SLOTS_S["3m"]  # the finest of which a whole day is kept
EPOCHS: Final = 0  # what stands for a length where the latest auctions are meant

Row = tuple[int, tuple[int, ...]]
"""As it is written down: the second it begins with, and its numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeSlot:
    """What was matched from ``begin_s`` on. ``sum_msat`` is price times units over all of it; that by ``units`` is the mean."""

    begin_s: int
    matches: int
    units: int
    sum_msat: int
    min_msat: int
    max_msat: int
    first_msat: int
    last_msat: int

    def row(self) -> Row:
        """As it is written down."""
        numbers = (self.matches, self.units, self.sum_msat, self.min_msat, self.max_msat, self.first_msat, self.last_msat)
        return self.begin_s, numbers

    def then(self, later: "TimeSlot") -> "TimeSlot":
        """Both as one slot that begins where this one does; ``later`` holds what was matched after it."""
        return TimeSlot(
            begin_s=self.begin_s,
            matches=self.matches + later.matches,
            units=self.units + later.units,
            sum_msat=self.sum_msat + later.sum_msat,
            min_msat=min(self.min_msat, later.min_msat),
            max_msat=max(self.max_msat, later.max_msat),
            first_msat=self.first_msat,
            last_msat=later.last_msat,
        )


def slot_from(row: Row) -> TimeSlot | None:
    """The slot that was written down as ``row``, or None when no slot can read like that."""
    begin, numbers = row
    if len(numbers) != 7 or min(begin, *numbers) < 0:
        return None
    matches, units, total, least, most, first, last = numbers
    if not (
        1 <= matches <= units and least <= first <= most and least <= last <= most and least * units <= total <= most * units
    ):
        return None
    return TimeSlot(
        begin_s=begin,
        matches=matches,
        units=units,
        sum_msat=total,
        min_msat=least,
        max_msat=most,
        first_msat=first,
        last_msat=last,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Quartiles:
    """A quarter, half and three quarters of the latest ``units`` cost at most so much; the oldest were matched at ``since_s``."""

    low_msat: int
    middle_msat: int
    high_msat: int
    units: int
    since_s: int


class Ladder:
    """One series of one book: time slots of every length, and the prices of the latest auctions."""

    def __init__(self) -> None:
        self._levels: dict[int, dict[int, TimeSlot]] = {length: {} for length in SLOTS_S.values()}
        self._epochs: dict[int, tuple[tuple[int, int], ...]] = {}
        self._changed: dict[int, set[int]] = {}
        self.newest_s = -1

    def __len__(self) -> int:
        return len(self._epochs) + sum(len(level) for level in self._levels.values())

    def add(self, second: int, fills: Iterable[tuple[int, int]]) -> None:
        """Take ``(price_msat, units)`` of an auction; never of one before ``newest_s``."""
        matches, units_at = 0, dict[int, int]()  # few prices, however many fills
        for price, units in fills:
            matches += 1
            units_at[price] = units_at.get(price, 0) + units
        if not matches:
            return
        first = next(iter(units_at))
        same = second == self.newest_s
        fresh = TimeSlot(
            begin_s=second,
            matches=matches,
            units=sum(units_at.values()),
            sum_msat=sum(price * units for price, units in units_at.items()),
            min_msat=min(units_at),
            max_msat=max(units_at),
            first_msat=first,
            last_msat=self._epochs[second][0][0] if same else first,
        )
        self.newest_s = second
        for length, level in self._levels.items():
            begin = second - second % length
            before = level.get(begin)
            level[begin] = before.then(fresh) if before else replace(fresh, begin_s=begin)
            self._changed.setdefault(length, set()).add(begin)
            self._prune(length)
        by_price = dict(self._epochs.get(second, ()))
        for price, units in units_at.items():
            by_price[price] = by_price.get(price, 0) + units
        self._epochs[second] = tuple(by_price.items())
        self._changed.setdefault(EPOCHS, set()).add(second)
        self._prune(EPOCHS)

    def _prune(self, length: int) -> None:
        """Forget what is too old. Both kinds of dictionary ascend, for nothing ever comes late."""
        changed = self._changed.get(length, set())
        if length == EPOCHS:
            while len(self._epochs) > TAPE_EPOCHS_MAX:
                oldest = next(iter(self._epochs))
                del self._epochs[oldest]
                changed.discard(oldest)
            return
        level = self._levels[length]
        first = self.newest_s - self.newest_s % length - (TAPE_SLOTS_MAX - 1) * length
        while (oldest := next(iter(level), first)) < first:
            del level[oldest]
            changed.discard(oldest)

    # --- what is asked of it ------------------------------------------------------------------------------------------
    def slots(self, length: int, begin_s: int, end_s: int) -> list[TimeSlot]:
        """Slots of one length that begin from ``begin_s`` on and before ``end_s``, ascending."""
        return [slot for begin, slot in self._levels[length].items() if begin_s <= begin < end_s]

    def oldest_s(self, length: int) -> int | None:
        """Where the first slot of this length begins that is kept, or None when there is none."""
        return next(iter(self._levels[length]), None)

    def day(self, now_s: int) -> TimeSlot | None:
        """All of the 24 hours before ``now_s``, to three minutes."""
        found = self.slots(_DAY_SLOT_S, now_s - DAY_S + 1, now_s + 1)
        if not found:
            return None
        return TimeSlot(
            begin_s=found[0].begin_s,
            matches=sum(one.matches for one in found),
            units=sum(one.units for one in found),
            sum_msat=sum(one.sum_msat for one in found),
            min_msat=min(one.min_msat for one in found),
            max_msat=max(one.max_msat for one in found),
            first_msat=found[0].first_msat,
            last_msat=found[-1].last_msat,
        )

    def last_msat(self) -> int | None:
        """The price of the latest auction in which something was matched."""
        return self._epochs[self.newest_s][0][0] if self._epochs else None

    def recent(self, most: int) -> list[tuple[int, int]]:
        """Second and price of the latest auctions, oldest first."""
        return [(second, prices[0][0]) for second, prices in self._epochs.items()][-most:]

    def quartiles(self) -> Quartiles | None:
        """Of the units of the latest ``TAPE_EPOCHS_MAX`` auctions in which something was matched."""
        if not self._epochs:
            return None
        units_at: dict[int, int] = {}
        for prices in self._epochs.values():
            for price, units in prices:
                units_at[price] = units_at.get(price, 0) + units
        total = sum(units_at.values())
        ascending = sorted(units_at)
        ranks = list(accumulate(units_at[price] for price in ascending))
        low, middle, high = (ascending[bisect_left(ranks, -(-total * quarter // 4))] for quarter in (1, 2, 3))
        return Quartiles(low_msat=low, middle_msat=middle, high_msat=high, units=total, since_s=next(iter(self._epochs)))

    # --- how it is written down ---------------------------------------------------------------------------------------
    def drain(self) -> Iterator[tuple[int, int, tuple[Row, ...]]]:
        """Length, first second kept, and rows of all that has changed."""
        for length, begins in sorted(self._changed.items()):
            if length == EPOCHS:
                rows = tuple((begin, tuple(n for pair in self._epochs[begin] for n in pair)) for begin in sorted(begins))
                yield length, next(iter(self._epochs)), rows
            else:
                level = self._levels[length]
                yield length, next(iter(level)), tuple(level[begin].row() for begin in sorted(begins))
        self._changed = {}

    def load(self, length: int, rows: Iterable[Row]) -> int:
        """Take rows back that were written down, ascending, before anything is added; returns how many could not be read."""
        bad = 0
        for begin, numbers in rows:
            if length == EPOCHS:
                pairs = tuple(zip(numbers[::2], numbers[1::2], strict=False))
                if len(numbers) % 2 or not pairs or begin < 0 or min(numbers) < 0 or min(numbers[1::2]) < 1:
                    bad += 1
                    continue
                self._epochs[begin] = pairs
                self.newest_s = max(self.newest_s, begin)
            else:
                slot = slot_from((begin, numbers))
                if slot is None or length not in self._levels or begin % length:
                    bad += 1
                    continue
                self._levels[length][begin] = slot
        return bad

    def settle(self) -> None:
        """After the last of ``load``: forget what is too old, and what is newer than the newest auction."""
        for length, level in self._levels.items():
            for begin in [one for one in level if one > self.newest_s]:
                del level[begin]
            if level:
                self._prune(length)
        self._prune(EPOCHS)
