"""Depth: the eligible orders of one auction, added up by price.

Buys and sells of a call auction may cross: those are the ones it matches. ``matched`` says how many units of a price found
somebody, as this node computed it; the rest stands in the book for the next epoch, if its owner renews it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import nlargest, nsmallest

from orderbook.core.auction import Entry
from orderbook.core.events import Cleared
from wire.limits import DEPTH_LEVELS_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """All orders of one side at one price."""

    price_msat: int
    orders: int
    units: int
    matched: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Flank:
    """One side of a book: its best ``DEPTH_LEVELS_MAX`` levels, best first, and how many ``prices`` there are in all."""

    levels: tuple[Level, ...]
    prices: int
    orders: int
    units: int
    owners: int

    @property
    def best_msat(self) -> int | None:
        """The dearest buy, or the cheapest sell."""
        return self.levels[0].price_msat if self.levels else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """Both sides."""

    bids: Flank
    asks: Flank

    @property
    def spread_msat(self) -> int | None:
        """Best ask less best bid; not more than zero when they cross, None when a side is empty."""
        bid, ask = self.bids.best_msat, self.asks.best_msat
        return None if bid is None or ask is None else ask - bid

    @property
    def imbalance_permille(self) -> int | None:
        """From -1,000 (only sells) to 1,000 (only buys), by units, rounded toward minus infinity; None when nothing is there."""
        both = self.bids.units + self.asks.units
        return (self.bids.units - self.asks.units) * 1_000 // both if both else None


def depth_of(result: Cleared) -> Depth:
    """The depth of an auction. Linear in its orders."""
    bought = _added((fill.buy.price_msat, fill.quantity) for fill in result.fills)
    sold = _added((fill.sell.price_msat, fill.quantity) for fill in result.fills)
    return Depth(bids=_flank(result.buys, bought, dearest_first=True), asks=_flank(result.sells, sold, dearest_first=False))


def _added(units: Iterable[tuple[int, int]]) -> dict[int, int]:
    at: dict[int, int] = {}
    for price, count in units:
        at[price] = at.get(price, 0) + count
    return at


def _flank(orders: Sequence[Entry], matched: dict[int, int], *, dearest_first: bool) -> Flank:
    units = _added((one.price_msat, one.quantity) for one in orders)
    counts = Counter(one.price_msat for one in orders)
    best = (nlargest if dearest_first else nsmallest)(DEPTH_LEVELS_MAX, units)
    return Flank(
        levels=tuple(
            Level(price_msat=price, orders=counts[price], units=units[price], matched=matched.get(price, 0)) for price in best
        ),
        prices=len(units),
        orders=len(orders),
        units=sum(units.values()),
        owners=len({one.owner for one in orders}),
    )
