"""Mandates: what the owner has allowed to be traded without being asked, as in the original, and kept over restarts.

A mandate names a side, an article and a price, and at most two limits, a number of trades and a time; both may apply, and with
neither it is good for exactly one trade. Theory of operation:

- **Buying.** One request of a local program takes one trade, when it is placed: the row with one trade less is committed before
  the order leaves. A request that ends without any payment of ours having been signed gives its trade back. One that has paid a
  seller who then failed needs another trade to go on. What was under way at a restart stays taken.
- **Selling.** Never more units stand in the book than the mandate has trades left, and each match takes its units off, in the
  transaction that makes it a deal. The desk signs for no order published before a restart, so the count is never exceeded.
- **Ending.** At zero, at its time, or revoked, a mandate is gone. Its orders are withdrawn, and requests that wait under
  it are refused; what both sides have signed is completed.

**Which one, if several fit:** the one that trades soonest. For buying the highest price, for selling the lowest; among equals
the one that ends first by time, then the older one.
"""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Final

from orderbook.core.messages import Side
from peer.core.events import Facts, Interest, MandateGranted, MandateRevoked, Notice, Reply
from wire.canon import U63, Range, Size, pack, record, unpack
from wire.effects import Save
from wire.limits import ARTICLE_MAX_CHARS, MANDATE_TRADES_MAX, MANDATES_MAX, PRICE_MAX_MSAT
from wire.moments import Instant

MANDATE_TABLE: Final = "mandate"
_NEVER: Final = (1 << 63) - 1


@record
class Mandate:
    """One mandate (journal table ``mandate``, key its number in 8 bytes). ``trades`` and ``until_us`` None: no such limit."""

    mandate: U63
    side: Side
    article: Annotated[str, Size(1, ARTICLE_MAX_CHARS)]
    price_msat: Annotated[int, Range(0, PRICE_MAX_MSAT)]
    trades: Annotated[int, Range(0, MANDATE_TRADES_MAX)] | None
    until_us: U63 | None
    granted_us: U63


@dataclass(slots=True)
class _Use:
    """A request that trades under a mandate; ``paid`` once a payment for it is signed."""

    mandate: int
    paid: bool = False


class Mandates:
    """All mandates by number. ``version`` changes with them; ``drain`` gives the rows to save."""

    def __init__(self) -> None:
        self._all: dict[int, Mandate] = {}
        self._uses: dict[int, _Use] = {}
        self._dirty: dict[int, Mandate | None] = {}
        self._notices: list[Notice] = []
        self.version = 0

    def load(self, rows: dict[bytes, bytes]) -> None:
        """Take over the rows that the journal kept. One with no trades left was used up by what the restart ended."""
        for key in sorted(rows):
            one = unpack(Mandate, rows[key])
            self._all[one.mandate] = one
            if one.trades == 0:
                self._end(one.mandate, "used up")
        self._notices.clear()

    # --- the owner ----------------------------------------------------------------------------------------------------
    def grant(self, event: MandateGranted, now: Instant) -> list[Reply | Interest]:
        """Keep a new mandate."""
        if len(self._all) >= MANDATES_MAX:
            sentence = f"there are {MANDATES_MAX} mandates already; revoke some first"
            return [Reply(request=event.request, result=None, code="mandates-full", sentence=sentence)]
        trades = 1 if event.trades is None and event.until_us is None else event.trades
        one = Mandate(
            mandate=event.mandate,
            side=event.side,
            article=event.article,
            price_msat=event.price_msat,
            trades=trades,
            until_us=event.until_us,
            granted_us=now,
        )
        self._put(one)
        self._tell(one, "granted")
        return [Reply(request=event.request, result=None, code="", sentence=""), Interest(article=event.article)]

    def revoke(self, event: MandateRevoked) -> tuple[Reply, list[int]]:
        """Take a mandate back; returns the answer, and the requests that trade under it."""
        if event.mandate not in self._all:
            sentence = "there is no such mandate; it may be used up, expired or revoked"
            return Reply(request=event.request, result=None, code="unknown-mandate", sentence=sentence), []
        requests = self._end(event.mandate, "revoked")
        return Reply(request=event.request, result=None, code="", sentence=""), requests

    # --- buying -------------------------------------------------------------------------------------------------------
    def take(self, article: str, request: int, now: Instant) -> Mandate | None:
        """Take one trade for ``request`` from the best mandate to buy ``article``, or None when there is none."""
        one = self.best(Side.BUY, article, now)
        if one is None:
            return None
        self._uses[request] = _Use(one.mandate)
        self._count(one, 1)
        return one

    def paid(self, request: int) -> None:
        """A payment for ``request`` is about to be signed."""
        use = self._uses.get(request)
        if use is not None:
            use.paid = True

    def renew(self, request: int, now: Instant) -> bool:
        """Whether ``request``, whose seller failed, may be placed again; if it has paid, that takes another trade."""
        use = self._uses.get(request)
        if use is None:
            return True
        one = self._all.get(use.mandate)
        if one is None or _over(one, now):
            return False
        if not use.paid:
            return True
        if one.trades == 0:
            return False
        use.paid = False
        self._count(one, 1)
        return True

    def ended(self, request: int) -> None:
        """``request`` is over; unless it has paid, its trade goes back."""
        use = self._uses.pop(request, None)
        one = self._all.get(use.mandate) if use else None
        if use is None or one is None:
            return
        if not use.paid and one.trades is not None:
            one = dataclasses.replace(one, trades=one.trades + 1)
            self._put(one)
            self._tell(one, "given back")
        elif one.trades == 0 and not self._used_by(one.mandate):
            self._end(one.mandate, "used up")

    # --- selling ------------------------------------------------------------------------------------------------------
    def sold(self, article: str, price_msat: int, units: int, now: Instant) -> None:
        """A match has sold ``units`` at our price ``price_msat``: take them off the mandates that allowed it."""
        for one in self._fitting(Side.SELL, article, now):
            if one.price_msat == price_msat and units > 0:
                part = units if one.trades is None else min(units, one.trades)
                self._count(one, part)
                units -= part

    # --- both ---------------------------------------------------------------------------------------------------------
    def best(self, side: Side, article: str, now: Instant) -> Mandate | None:
        """The mandate to trade under, by the rule at the head of this file."""
        return next(iter(self._fitting(side, article, now)), None)

    def _fitting(self, side: Side, article: str, now: Instant) -> list[Mandate]:
        sign = -1 if side is Side.BUY else 1
        fits = [
            one
            for one in self._all.values()
            if (one.side, one.article) == (side, article) and one.trades != 0 and not _over(one, now)
        ]
        return sorted(fits, key=lambda one: (sign * one.price_msat, one.until_us or _NEVER, one.mandate))

    def expire(self, now: Instant) -> list[int]:
        """End the mandates whose time is over; returns the requests that trade under them."""
        over = sorted(number for number, one in self._all.items() if _over(one, now))
        return [request for number in over for request in self._end(number, "expired")]

    def next_deadline(self) -> Instant | None:
        """When the next mandate ends by time."""
        return min((Instant(one.until_us) for one in self._all.values() if one.until_us is not None), default=None)

    def all(self) -> list[Mandate]:
        """Every mandate, oldest first."""
        return [self._all[number] for number in sorted(self._all)]

    def used_by(self, mandate: int) -> int:
        """How many requests are trading under a mandate at the moment."""
        return len(self._used_by(mandate))

    def mandate_of(self, request: int) -> int | None:
        """The mandate that ``request`` trades under."""
        use = self._uses.get(request)
        return None if use is None else use.mandate

    def drain(self) -> tuple[Save | Notice, ...]:
        """The rows that changed since the last call, and what the owner may want to see of it."""
        rows = [
            Save(table=MANDATE_TABLE, key=number.to_bytes(8, "big"), value=None if one is None else pack(one))
            for number, one in sorted(self._dirty.items())
        ]
        told = tuple(self._notices)
        self._dirty.clear()
        self._notices.clear()
        return (*rows, *told)

    # --- keeping ------------------------------------------------------------------------------------------------------
    def _count(self, one: Mandate, units: int) -> None:
        """Take ``units`` trades off. At zero it stays while requests trade under it, for they may give theirs back."""
        if one.trades is not None:
            one = dataclasses.replace(one, trades=one.trades - units)
        self._put(one)
        self._tell(one, "used")
        if one.trades == 0 and not self._used_by(one.mandate):
            self._end(one.mandate, "used up")

    def _put(self, one: Mandate) -> None:
        self._all[one.mandate] = self._dirty[one.mandate] = one
        self.version += 1

    def _end(self, mandate: int, why: str) -> list[int]:
        one = self._all.pop(mandate)
        self._dirty[mandate] = None
        self.version += 1
        self._tell(one, why)
        return self._used_by(mandate)

    def _used_by(self, mandate: int) -> list[int]:
        return sorted(request for request, use in self._uses.items() if use.mandate == mandate)

    def _tell(self, one: Mandate, what: str) -> None:
        facts: Facts = {
            "what": what,
            "mandate": f"{one.mandate:x}",
            "side": one.side.name.lower(),
            "article": one.article,
            "price_msat": one.price_msat,
            "trades_left": one.trades,
        }
        self._notices.append(Notice(kind="mandate", facts=facts))


def _over(one: Mandate, now: Instant) -> bool:
    return one.until_us is not None and one.until_us <= now
