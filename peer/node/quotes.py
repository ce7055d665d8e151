"""What things cost, as plain JSON values: articles, depth and prices of the books this node follows. Changes nothing."""

from collections.abc import Callable
from typing import Final

from orderbook.core.depth import Flank
from orderbook.core.tape import Series, Tape
from orderbook.core.timeslots import SLOTS_S, Quartiles, TimeSlot
from peer.api.service import Json
from peer.core.brain import Brain
from peer.core.shop import Shelf
from wire.errors import Refused
from wire.limits import DEPTH_LEVELS_MAX, TAPE_SLOTS_MAX
from wire.moments import SECOND, Instant

RECENT: Final = 32
_MOMENT_MAX_US: Final = 1 << 62


class Quotes:
    """Reads the brain's books and the tape. ``now`` is the node's clock, for what happened in the last 24 hours."""

    def __init__(self, brain: Brain, tape: Tape, now: Callable[[], Instant]) -> None:
        self._brain = brain
        self._tape = tape
        self._now = now

    def articles(self) -> list[Json]:
        """Every book we follow, with its terms, its latest auction, and what was traded in it."""
        return [self._article(line) for line in self._brain.shop.statement()]

    def _article(self, line: Json) -> Json:
        book = bytes.fromhex(line["book"])
        ladder = self._tape.of(book, Series.MATCHED)
        own = self._tape.of(book, Series.AGREED)
        now_s = self._now() // SECOND
        return {
            **line,
            "ready": self._brain.market.ready(book),
            "terms": self._terms(line["free"]),
            "last_us": ladder.newest_s * SECOND if ladder.newest_s >= 0 else None,
            "day": _whole(ladder.day(now_s)),
            "own_day": _whole(own.day(now_s)),
            "own_last_msat": own.last_msat(),
            "quartiles": _quartiles(ladder.quartiles()),
            "recent_msat": [price for _, price in ladder.recent(RECENT)],
        }

    def _terms(self, free: bool) -> Json:
        terms = self._brain.shop.terms(free)
        return {
            "kind": terms.kind,
            "arbiter": terms.arbiter.hex() if terms.arbiter else None,
            "refund_blocks": terms.refund_blocks,
            "claim_delay_blocks": terms.claim_delay_blocks,
            "confirmations": terms.confirmations,
            "fund_s": terms.fund_s,
            "fetch_s": terms.fetch_s,
            "work_s": terms.work_s,
            "reveal_s": terms.reveal_s,
            "silence_s": terms.silence_s,
            "work_max_bytes": terms.work_max_bytes,
            "tier": terms.tier,
        }

    def depth(self, book: str, *, levels: int) -> Json:
        """The orders of the latest auction by price, at most ``levels`` of each side, best first."""
        shelf = self._shelf(book)
        if not 1 <= levels <= DEPTH_LEVELS_MAX:
            raise Refused("bad-levels", f"levels takes 1 to {DEPTH_LEVELS_MAX}, the prices of one side to show")
        seen = self._brain.shop.seen(shelf.book)
        if seen is None:
            raise Refused("no-auction", "no auction of this book has taken place yet; the first comes within seconds")
        depth = seen.depth
        return {
            **_named(shelf),
            "epoch": seen.result.epoch,
            "refusal": seen.result.refusal,
            "ready": self._brain.market.ready(shelf.book),
            "best_bid_msat": depth.bids.best_msat,
            "best_ask_msat": depth.asks.best_msat,
            "spread_msat": depth.spread_msat,
            "imbalance_permille": depth.imbalance_permille,
            "bids": _flank(depth.bids, levels),
            "asks": _flank(depth.asks, levels),
        }

    def prices(self, book: str, *, slot: str, series: str, from_us: int | None, to_us: int | None, limit: int) -> Json:
        """Time slots of one length that begin from ``from_us`` on and before ``to_us``: the latest ``limit``, ascending."""
        shelf = self._shelf(book)
        length = SLOTS_S.get(slot)
        if length is None:
            raise Refused("bad-slot", f"there are no slots of {slot!r}; choose one of {', '.join(SLOTS_S)}")
        chosen = {one.name.lower(): one for one in Series}.get(series)
        if chosen is None:
            raise Refused("bad-series", f"there is no series {series!r}; choose matched or agreed")
        begin, end = 0 if from_us is None else from_us, _MOMENT_MAX_US if to_us is None else to_us
        if not 0 <= begin < end <= _MOMENT_MAX_US:
            raise Refused("bad-range", "a range begins at from_us, not before 1970, and ends later, at to_us; in microseconds")
        if not 1 <= limit <= TAPE_SLOTS_MAX:
            raise Refused("bad-limit", f"limit takes 1 to {TAPE_SLOTS_MAX}, the slots to answer with")
        ladder = self._tape.of(shelf.book, chosen)
        found = ladder.slots(length, -(-begin // SECOND), -(-end // SECOND))
        oldest = ladder.oldest_s(length)
        return {
            **_named(shelf),
            "series": series,
            "slot": slot,
            "slot_s": length,
            "oldest_us": None if oldest is None else oldest * SECOND,
            "left_off": max(0, len(found) - limit),
            "last_msat": ladder.last_msat(),
            "quartiles": _quartiles(ladder.quartiles()),
            "slots": [_slot(one, length) for one in found[-limit:]],
        }

    def _shelf(self, book: str) -> Shelf:
        name = bytes.fromhex(book) if len(book) == 64 and all(letter in "0123456789abcdef" for letter in book) else b""
        shelf = self._brain.shop.shelves.get(name)
        if shelf is None:
            raise Refused("unknown-book", "this node follows no such book; /v1/articles lists them, POST /v1/books follows one")
        return shelf


def _named(shelf: Shelf) -> Json:
    return {"book": shelf.book.hex(), "article": shelf.article, "free": shelf.free}


def _flank(flank: Flank, most: int) -> Json:
    return {
        "orders": flank.orders,
        "units": flank.units,
        "owners": flank.owners,
        "prices": flank.prices,
        "levels": [
            {"price_msat": one.price_msat, "orders": one.orders, "units": one.units, "matched_units": one.matched}
            for one in flank.levels[:most]
        ],
    }


def _slot(slot: TimeSlot, length: int) -> Json:
    return {"begin_us": slot.begin_s * SECOND, "end_us": (slot.begin_s + length) * SECOND, **_statistics(slot)}


def _statistics(slot: TimeSlot) -> Json:
    return {
        "matches": slot.matches,
        "units": slot.units,
        "sum_msat": slot.sum_msat,
        "mean_msat": slot.sum_msat // slot.units,
        "min_msat": slot.min_msat,
        "max_msat": slot.max_msat,
        "first_msat": slot.first_msat,
        "last_msat": slot.last_msat,
    }


def _whole(slot: TimeSlot | None) -> Json | None:
    return None if slot is None else _statistics(slot)


def _quartiles(found: Quartiles | None) -> Json | None:
    if found is None:
        return None
    return {
        "low_msat": found.low_msat,
        "middle_msat": found.middle_msat,
        "high_msat": found.high_msat,
        "units": found.units,
        "since_us": found.since_s * SECOND,
    }
