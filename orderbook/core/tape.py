"""The tape: what units of each book have cost, see ``timeslots``.

Two series for every book, which are never mixed:

- ``MATCHED``: what this node's own auctions gave. A fill is a match *computed* from public orders; whether its two owners signed
  it, worked or paid, nobody else can see, and whoever holds two keys can match himself at any price for the cost of two stamps.
  It is an indication. Auctions on which this node would not trade are left out.
- ``AGREED``: matches of our own that both parties have signed. These are facts, though few.

A match counts for the second in which its epoch began, so nodes with the same auctions have the same tape, and no clock is read.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from orderbook.core.events import Cleared
from orderbook.core.timeslots import Ladder, Row
from wire.limits import TAPE_BOOKS_MAX
from wire.moments import SECOND, Instant
from wire.network import EpochClock


class Series(IntEnum):
    """Whose matches."""

    MATCHED = 0
    AGREED = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What has changed of one length of slot, or of ``EPOCHS``: the rows, and the first second that is still kept."""

    book: bytes
    series: Series
    length_s: int
    oldest_s: int
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """What has changed since the last time: books that gave way, and then what is new (a book may have come back meanwhile)."""

    gone: tuple[bytes, ...] = ()
    written: tuple[Written, ...] = ()


class Tape:
    """The tapes of all books. Bounded, whatever happens: see ``wire.limits``."""

    def __init__(self, clock: EpochClock) -> None:
        self._clock = clock
        self._books: dict[bytes, tuple[Ladder, Ladder]] = {}
        self._gone: list[bytes] = []
        self._late = self._evicted = self._damaged = 0

    def statistics(self) -> dict[str, int]:
        """Sizes, and what was left out: matches that came late, books that gave way, rows that could not be read."""
        return {
            "books": len(self._books),
            "slots": sum(len(ladder) for both in self._books.values() for ladder in both),
            "late": self._late,
            "evicted": self._evicted,
            "damaged": self._damaged,
        }

    def of(self, book: bytes, series: Series) -> Ladder:
        """One series of a book; an empty one when nothing was matched there yet."""
        both = self._books.get(book)
        return both[series] if both else Ladder()

    # --- what happens -------------------------------------------------------------------------------------------------
    def cleared(self, result: Cleared) -> None:
        """An auction of ours. The first computation of an epoch that matches anything counts, if we would trade on it."""
        if not result.refusal and result.fills:
            second = self._second(result.epoch)
            if second > self.of(result.book, Series.MATCHED).newest_s:
                fills = ((fill.price_msat, fill.quantity) for fill in result.fills)
                self._ladder(result.book, Series.MATCHED).add(second, fills)

    def agreed(self, book: bytes, epoch: int, price_msat: int, quantity: int) -> None:
        """A match of ours that both parties have signed."""
        second = self._second(epoch)
        if second < self.of(book, Series.AGREED).newest_s:
            self._late += 1  # the clock was set back over a restart
        else:
            self._ladder(book, Series.AGREED).add(second, [(price_msat, quantity)])

    def _second(self, epoch: int) -> int:
        return self._clock.start(epoch) // SECOND

    def _ladder(self, book: bytes, series: Series) -> Ladder:
        if book not in self._books:
            self._make_room(1)
            self._books[book] = (Ladder(), Ladder())
        return self._books[book][series]

    def _make_room(self, books: int) -> None:
        while len(self._books) + books > TAPE_BOOKS_MAX:
            stale = min(self._books, key=lambda name: (max(ladder.newest_s for ladder in self._books[name]), name))
            del self._books[stale]
            self._gone.append(stale)
            self._evicted += 1

    # --- how it is written down ---------------------------------------------------------------------------------------
    def drain(self) -> Drained:
        """What has changed since the last call."""
        gone, self._gone = tuple(self._gone), []
        written = tuple(
            Written(book=book, series=series, length_s=length, oldest_s=oldest, rows=rows)
            for book, both in sorted(self._books.items())
            for series, ladder in zip(Series, both, strict=True)
            for length, oldest, rows in ladder.drain()
        )
        return Drained(gone=gone, written=written)

    def load(self, rows: Iterable[tuple[bytes, int, int, Row]], now: Instant) -> None:
        """Take back what was written down: book, series, length, row; ascending. Rows after ``now`` are a wrong clock's."""
        for book, series, length, row in rows:
            if series not in (Series.MATCHED, Series.AGREED) or row[0] * SECOND > now:
                self._damaged += 1
            else:
                ladder = self._books.setdefault(book, (Ladder(), Ladder()))[series]
                self._damaged += ladder.load(length, [row])
        for both in self._books.values():
            for ladder in both:
                ladder.settle()
        self._make_room(0)
