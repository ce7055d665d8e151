"""The books we take part in: which article under which terms is which book, and what we want in each.

Keeps the desk informed of what buying and selling want, and says only what has changed.
"""

from dataclasses import dataclass
from typing import Any

from orderbook.core.depth import Depth, depth_of
from orderbook.core.events import Cleared, Follow, Missed, Want
from orderbook.core.messages import Side, SignedMatch, book_id
from orderbook.core.tape import Series, Tape
from peer.core.events import Facts, Notice
from peer.core.terms import NO_CHAIN, Terms, escrow_terms, free_terms, terms_hash
from wire.moments import SECOND, Instant
from wire.network import Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """One book we take part in."""

    book: bytes
    article: str
    free: bool


class Seen:
    """The latest auction of a book. Its depth is added up when it is asked for, once."""

    def __init__(self, result: Cleared, cleared_us: Instant) -> None:
        self.result, self.cleared_us = result, cleared_us
        self._depth: Depth | None = None

    @property
    def depth(self) -> Depth:
        """Orders by price."""
        if self._depth is None:
            self._depth = depth_of(self.result)
        return self._depth


class Shop:
    """Our books by id. ``instance`` names the chain we settle on, or is None while we share none with anybody; ``arbiter`` is
    the one that paid books name. What is matched goes on ``tape``, if there is one.
    """

    def __init__(self, network: Network, instance: bytes | None, tape: Tape | None = None, arbiter: bytes | None = None) -> None:
        self._network = network
        self._instance = instance
        self.tape = tape
        self._paid = escrow_terms(network, arbiter)
        self._free = free_terms()
        self.shelves: dict[bytes, Shelf] = {}
        self._told: dict[tuple[bytes, Side, int], tuple[int, tuple[bytes, ...]]] = {}
        self._last: dict[bytes, Seen] = {}

    def terms(self, free: bool) -> Terms:
        """The terms we trade under."""
        return self._free if free else self._paid

    @property
    def paid(self) -> bool:
        """Whether we can trade for money at all."""
        return self._instance is not None

    def book(self, article: str, free: bool) -> bytes:
        """The id of the book of an article."""
        instance = NO_CHAIN if free or self._instance is None else self._instance
        return book_id(self._network.name, instance, article, terms_hash(self._network, self.terms(free)))

    def open(self, article: str, free: bool) -> list[Follow]:
        """Take part in a book; nothing when we do already, or cannot."""
        if not free and not self.paid:
            return []
        book = self.book(article, free)
        if book in self.shelves:
            return []
        self.shelves[book] = Shelf(book=book, article=article, free=free)
        return [Follow(book=book)]

    def wants(
        self,
        buys: dict[tuple[str, int | None], int],
        sells: dict[tuple[str, int], int],
        avoid: tuple[bytes, ...],
    ) -> list[Want]:
        """What changed in our wishes since the last call. An ask of 0 and a bid of None stand in the free book."""
        wanted: dict[tuple[bytes, Side, int], tuple[int, tuple[bytes, ...]]] = {}
        for (article, bid), quantity in buys.items():
            wanted[self.book(article, bid is None), Side.BUY, bid or 0] = (quantity, avoid)
        for (article, ask), quantity in sells.items():
            wanted[self.book(article, ask == 0), Side.SELL, ask] = (quantity, avoid)
        changed: list[Want] = []
        for line in sorted(self._told.keys() | wanted.keys(), key=lambda one: (one[0], one[1].value, one[2])):
            quantity, avoided = wanted.get(line, (0, ()))
            if self._told.get(line, (0, ())) != (quantity, avoided):
                book, side, price = line
                changed.append(Want(book=book, side=side, price_msat=price, quantity=quantity, avoid=avoided))
        self._told = wanted
        return changed

    def agreed(self, signed: SignedMatch, side: Side, price_msat: int) -> None:
        """The desk has taken the units of a match off the line at ``price_msat`` by itself: remember it as said."""
        match = signed.match
        line = (match.book, side, price_msat)
        if line in self._told:
            told, avoided = self._told[line]
            self._told[line] = (max(0, told - match.quantity), avoided)
        if self.tape is not None:
            self.tape.agreed(match.book, match.epoch, match.price_msat, match.quantity)

    def cleared(self, result: Cleared, now: Instant) -> list[Notice]:
        """Remember the latest auction of a book, for people to see."""
        shelf = self.shelves.get(result.book)
        if shelf is None:
            return []
        self._last[result.book] = Seen(result, now)
        if self.tape is not None:
            self.tape.cleared(result)
        return [Notice(kind="book", facts={"what": "cleared", **self._line(shelf)})]

    def seen(self, book: bytes) -> Seen | None:
        """The latest auction of a book, once there was one."""
        return self._last.get(book)

    # --- for people ---------------------------------------------------------------------------------------------------
    def notice(self, want: Want) -> Notice:
        """That an order is placed, changed or withdrawn."""
        shelf = self.shelves[want.book]
        facts: Facts = {"what": "placed" if want.quantity else "withdrawn", "quantity": want.quantity}
        return Notice(kind="order", facts={**facts, **_order(shelf, want.side, want.price_msat)})

    @staticmethod
    def missed(shelf: Shelf, effect: Missed) -> Notice:
        """That an order found no match in an epoch, and why."""
        facts: Facts = {"what": "missed", "epoch": effect.epoch, "code": effect.code, "reason": effect.sentence}
        return Notice(kind="order", facts={**facts, **_order(shelf, effect.side, effect.price_msat)})

    def statement(self) -> list[dict[str, Any]]:
        """Our books with their latest auction, for people."""
        return [self._line(one) for one in sorted(self.shelves.values(), key=lambda shelf: (shelf.article, shelf.free))]

    def _line(self, shelf: Shelf) -> dict[str, Any]:
        seen = self._last.get(shelf.book)
        line: dict[str, Any] = {"book": shelf.book.hex(), "article": shelf.article, "free": shelf.free}
        ladder = None if self.tape is None else self.tape.of(shelf.book, Series.MATCHED)
        last = ladder.last_msat() if ladder else None
        if seen is None:
            return {**line, "epoch": None, "refusal": "no auction has taken place yet", "last_msat": last}
        result = seen.result
        day = ladder.day(self._network.clock.start(result.epoch) // SECOND) if ladder else None
        bid = max((one.price_msat for one in result.buys), default=None)
        ask = min((one.price_msat for one in result.sells), default=None)
        return {
            **line,
            "epoch": result.epoch,
            "root": result.root.hex(),
            "again": result.again,
            "cleared_us": seen.cleared_us,
            "refusal": result.refusal,
            "buy_units": sum(one.quantity for one in result.buys),
            "sell_units": sum(one.quantity for one in result.sells),
            "buy_orders": len(result.buys),
            "sell_orders": len(result.sells),
            "buyers": len({one.owner for one in result.buys}),
            "sellers": len({one.owner for one in result.sells}),
            "best_bid_msat": bid,
            "best_ask_msat": ask,
            "spread_msat": None if bid is None or ask is None else ask - bid,
            "matched_units": sum(one.quantity for one in result.fills),
            "price_msat": result.fills[0].price_msat if result.fills else None,
            "last_msat": last,
            "day_units": day.units if day else 0,
        }


def _order(shelf: Shelf, side: Side, price_msat: int) -> Facts:
    return {"side": side.name.lower(), "article": shelf.article, "free": shelf.free, "price_msat": price_msat}
