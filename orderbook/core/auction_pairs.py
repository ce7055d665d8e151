"""Step 7 of the auction over columns: winners of both sides in side order become pairs.

Both sides won the same number of units. Without refusals the units of both, counted through, lie side by side: every running
total of either side ends a pair. Around a pair that must not be, orders are walked one by one as the rules say, until no sell
that was passed over has anything left. By then both sides have used equally many units again, and the rest of the merge
holds as it was computed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from orderbook.core.auction_columns import Integers

_NEAR: Final = 16
"""A walk goes on while the next refusal is so few buys away: starting another costs more than walking there."""

_Rows: TypeAlias = tuple[Integers, Integers, Integers, Integers, Integers]


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """The winners of one side in side order: units won, number of the owner, row in the table of refusals."""

    units: Integers
    owner: Integers
    avoid: Integers


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """Pairs of places in the two parties, and who has units left, ascending by place. ``from`` counts within this call."""

    buy: Integers
    sell: Integers
    units: Integers
    buy_from: Integers
    sell_from: Integers
    rest_buys: list[tuple[int, int]]
    rest_sells: list[tuple[int, int]]


def pair(buys: Party, sells: Party, avoided: Integers) -> Paired:
    """Pair all winners. ``avoided`` is (rows, most) numbers of owners."""
    buy_ends, sell_ends = np.cumsum(buys.units), np.cumsum(sells.units)
    merged = np.concatenate((buy_ends << 1, (sell_ends << 1) | 1))
    merged.sort(kind="stable")  # two ascending runs: merging them is linear
    ends, selling = merged >> 1, merged & 1
    sell = np.cumsum(selling) - selling
    units = np.diff(ends, prepend=0)
    real = np.flatnonzero(units)  # a total that both sides share stands there twice
    sell, units, ends = sell[real], units[real], ends[real]
    buy = real - sell
    begins = ends - units
    buy_from = begins - (buy_ends - buys.units)[buy]
    sell_from = begins - (sell_ends - sells.units)[sell]
    refused = np.flatnonzero(_refused(buys, sells, avoided, buy, sell))
    if not len(refused):
        return Paired(buy=buy, sell=sell, units=units, buy_from=buy_from, sell_from=sell_from, rest_buys=[], rest_sells=[])
    return _around(buys, sells, avoided, (buy, sell, units, buy_from, sell_from), refused)


def _refused(buys: Party, sells: Party, avoided: Integers, buy: Integers, sell: Integers) -> NDArray[np.bool_]:
    """Which of the pairs must not be."""
    buyer, seller = buys.owner[buy], sells.owner[sell]
    refused: NDArray[np.bool_] = np.equal(buyer, seller)
    if len(avoided) > 1:
        for avoid, other in ((buys.avoid[buy], seller), (sells.avoid[sell], buyer)):
            asking = np.flatnonzero(avoid)
            refused[asking] |= (avoided[avoid[asking]] == other[asking, None]).any(axis=1)
    return refused


def _around(buys: Party, sells: Party, avoided: Integers, merged: _Rows, refused: Integers) -> Paired:
    """The pairs of the merge where it holds, and those of walks from each refused pair until it holds again."""
    buy, sell, units, buy_from, sell_from = merged
    walk = _Walk(buys, sells, avoided, buy[refused].tolist())
    pieces: list[_Rows] = []
    done = 0
    while True:
        ahead = int(np.searchsorted(refused, done))
        stop = int(refused[ahead]) if ahead < len(refused) else len(buy)
        pieces.append((buy[done:stop], sell[done:stop], units[done:stop], buy_from[done:stop], sell_from[done:stop]))
        if stop == len(buy):
            break
        at, on = int(buy[stop]), int(sell[stop])
        at = walk.run(at, int(buys.units[at] - buy_from[stop]), on, int(sells.units[on] - sell_from[stop]))
        pieces.append(walk.taken())
        done = int(np.searchsorted(buy, at))  # the walk ended with a whole buy, and so did a pair of the merge
    return Paired(
        buy=np.concatenate([one[0] for one in pieces]),
        sell=np.concatenate([one[1] for one in pieces]),
        units=np.concatenate([one[2] for one in pieces]),
        buy_from=np.concatenate([one[3] for one in pieces]),
        sell_from=np.concatenate([one[4] for one in pieces]),
        rest_buys=walk.rest_buys,
        rest_sells=sorted(walk.passed.items()),
    )


class _Walk:
    """Orders met one by one. ``passed`` are sells behind us that still have units, chained as in the plain version."""

    def __init__(self, buys: Party, sells: Party, avoided: Integers, trouble: list[int]) -> None:
        self._buy_count, self._sell_count = len(buys.units), len(sells.units)
        self._buy_units: Callable[[int], int] = buys.units.item
        self._sell_units: Callable[[int], int] = sells.units.item
        self._buyer: Callable[[int], int] = buys.owner.item
        self._seller: Callable[[int], int] = sells.owner.item
        self._buy_avoid: Callable[[int], int] = buys.avoid.item
        self._sell_avoid: Callable[[int], int] = sells.avoid.item
        self._avoided = avoided
        self._avoiding: dict[int, frozenset[int]] = {}
        self._trouble, self._next_trouble = trouble, 0
        self.rest_buys: list[tuple[int, int]] = []
        self.passed: dict[int, int] = {}
        self._following: dict[int, int] = {}
        self._head = self._tail = -1
        self._taken: list[tuple[int, int, int, int, int]] = []

    def run(self, at: int, rest: int, on: int, stock: int) -> int:
        """Walk from the buy ``at`` with ``rest`` units and the sell ``on`` with ``stock``; returns the buy before which the
        merge holds again. Only ever at the end of all buys does anything stay in ``rest_buys`` and ``passed``.
        """
        while at < self._buy_count:
            if self.passed:
                rest = self._return(at, rest)
            while rest and on < self._sell_count:
                if self._refuse(at, on):
                    self._pass(on, stock)
                    stock = 0
                else:
                    count = min(rest, stock)
                    self._take(at, on, count, rest, stock)
                    rest, stock = rest - count, stock - count
                if not stock:
                    on += 1
                    stock = self._sell_units(on) if on < self._sell_count else 0
            if rest:
                self.rest_buys.append((at, rest))
            at += 1
            if at < self._buy_count:
                rest = self._buy_units(at)
            if not self.passed and not self._near(at):
                break
        return at

    def taken(self) -> _Rows:
        """The pairs since the last call, as columns."""
        rows = np.array(self._taken, np.int64).reshape(-1, 5)
        self._taken.clear()
        return rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3], rows[:, 4]

    def _near(self, at: int) -> bool:
        trouble = self._trouble
        while self._next_trouble < len(trouble) and trouble[self._next_trouble] < at:
            self._next_trouble += 1
        return self._next_trouble < len(trouble) and trouble[self._next_trouble] - at < _NEAR

    def _return(self, at: int, rest: int) -> int:
        """Offer the buy what was passed over; returns what it still wants."""
        before, on = -1, self._head
        while rest and on >= 0:
            stock, following = self.passed[on], self._following[on]
            count = 0 if self._refuse(at, on) else min(rest, stock)
            if count:
                self._take(at, on, count, rest, stock)
                rest -= count
            if count < stock:
                self.passed[on] = stock - count
                before = on
            else:
                del self.passed[on], self._following[on]
                if before < 0:
                    self._head = following
                else:
                    self._following[before] = following
                if following < 0:
                    self._tail = before
            on = following
        return rest

    def _pass(self, on: int, stock: int) -> None:
        self.passed[on], self._following[on] = stock, -1
        if self._tail < 0:
            self._head = on
        else:
            self._following[self._tail] = on
        self._tail = on

    def _take(self, at: int, on: int, count: int, rest: int, stock: int) -> None:
        self._taken.append((at, on, count, self._buy_units(at) - rest, self._sell_units(on) - stock))

    def _refuse(self, at: int, on: int) -> bool:
        buyer, seller = self._buyer(at), self._seller(on)
        if buyer == seller:
            return True
        avoid = self._buy_avoid(at)
        if avoid and seller in self._avoids(avoid):
            return True
        avoid = self._sell_avoid(on)
        return bool(avoid) and buyer in self._avoids(avoid)

    def _avoids(self, row: int) -> frozenset[int]:
        known = self._avoiding.get(row)
        if known is None:
            known = self._avoiding[row] = frozenset(self._avoided[row].tolist())
        return known
