"""Depth: the eligible orders of one auction, added up by price.

Buys and sells of a call auction may cross: those are the ones it matches. ``matched`` says how many units of a price found
somebody, as this node computed it; the rest stands in the book for the next epoch, if its owner renews it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from orderbook.core.auction import Entry, Fill
from orderbook.core.events import Cleared


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """All orders of one side at one price."""

    price_msat: int
    orders: int
    units: int
    matched: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Flank:
    """One side of a book, best price first."""

    levels: tuple[Level, ...]
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
    bought: dict[bytes, int] = {}
    sold: dict[bytes, int] = {}
    for fill in result.fills:
        _count(bought, fill, fill.buy)
        _count(sold, fill, fill.sell)
    return Depth(bids=_flank(result.buys, bought, dearest_first=True), asks=_flank(result.sells, sold, dearest_first=False))


def _count(units: dict[bytes, int], fill: Fill, order: Entry) -> None:
    units[order.id] = units.get(order.id, 0) + fill.quantity


def _flank(orders: Iterable[Entry], matched: dict[bytes, int], *, dearest_first: bool) -> Flank:
    at: dict[int, tuple[int, int, int]] = {}
    owners: set[bytes] = set()
    for order in orders:
        count, units, found = at.get(order.price_msat, (0, 0, 0))
        at[order.price_msat] = (count + 1, units + order.quantity, found + matched.get(order.id, 0))
        owners.add(order.owner)
    levels = tuple(
        Level(price_msat=price, orders=count, units=units, matched=found)
        for price, (count, units, found) in sorted(at.items(), reverse=dearest_first)
    )
    return Flank(
        levels=levels,
        orders=sum(level.orders for level in levels),
        units=sum(level.units for level in levels),
        owners=len(owners),
    )
