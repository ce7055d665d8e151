"""The call auction over columns: the same law as ``auction``, for books of many thousand orders.

Nothing is sorted that need not be. In one clearing call:

- the marginal prices come from histograms of units over prices, at most four of them, each finer and over fewer orders;
- only what wins is sorted, by one 64-bit key of price and as much of the id as fits; equal keys are settled by the whole id;
- units of both sides are counted through from the best: merging the two rows of running totals gives all pairs at once;
- pairs that refuse each other are found in that merge and walked around one by one (``auction_pairs``).

The result is that of the plain version to the last number. Sums are exact: see ``auction_columns``.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from orderbook.core.auction_columns import Columns, Integers, Pairs, Side, Words, check
from orderbook.core.auction_pairs import Paired, Party, pair
from wire.limits import AUCTION_DEPTH

_BIN_BITS: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One side of one clearing call: rows of the columns, and the units each may still trade."""

    rows: Integers
    caps: Integers


@dataclass(frozen=True, slots=True, kw_only=True)
class _Won:
    """A side's winners in side order with what they won, and the best price that lost."""

    rows: Integers
    units: Integers
    lost: int | None


def clear_columns(book: Columns, seed: int) -> Pairs:
    """All pairs of one epoch, in the order in which the rules emit them. Raises ``InvariantBroken`` on numbers out of bounds."""
    check(book.buys)
    check(book.sells)
    call = _Auction(book, seed)
    call.clear(_whole(book.buys), _whole(book.sells), AUCTION_DEPTH)
    return call.pairs()


def _whole(side: Side) -> _Part:
    return _Part(rows=np.arange(len(side.quantity), dtype=np.int64), caps=side.quantity)


class _Auction:
    """The book, what is used of each order, and the pairs so far."""

    def __init__(self, book: Columns, seed: int) -> None:
        self.book, self.seed = book, np.uint64(seed)
        self.buy_used = np.zeros(len(book.buys.quantity), np.int64)
        self.sell_used = np.zeros(len(book.sells.quantity), np.int64)
        self.found: list[Pairs] = []

    def clear(self, buys: _Part, sells: _Part, depth: int) -> None:
        """One clearing call, and those that follow from refused pairs."""
        book = self.book
        bids, asks = book.buys.price_msat[buys.rows], book.sells.price_msat[sells.rows]
        crossed = _cross(bids, buys.caps, asks, sells.caps)
        if crossed is None:
            return
        units, worst_buy, worst_sell = crossed
        # From here on both sides are priced so that less is better.
        won_buys = self._winners(book.buys, buys, -bids, -worst_buy, units)
        won_sells = self._winners(book.sells, sells, asks, worst_sell, units)
        least = worst_sell if won_buys.lost is None else max(worst_sell, -won_buys.lost)
        most = worst_buy if won_sells.lost is None else min(worst_buy, won_sells.lost)
        buying, selling = _party(book.buys, won_buys), _party(book.sells, won_sells)
        done = pair(buying, selling, book.avoided)
        self._keep(done, won_buys, won_sells, (least + most) // 2)
        if not done.rest_buys and depth == AUCTION_DEPTH:
            return
        rest_buys = _use(self.buy_used, won_buys, done.rest_buys)
        rest_sells = _use(self.sell_used, won_sells, done.rest_sells)
        if depth > 0 and done.rest_buys:
            left_buys, left_sells = _left(buys, won_buys, self.buy_used), _left(sells, won_sells, self.sell_used)
            self.clear(rest_buys, left_sells, depth - 1)
            self.clear(left_buys, rest_sells, depth - 1)

    def _winners(self, side: Side, part: _Part, cost: Integers, marginal: int, units: int) -> _Won:
        """Who wins ``units`` units, given what is ``marginal``; ``cost`` is less for the better."""
        better, level = np.flatnonzero(cost < marginal), np.flatnonzero(cost == marginal)
        units -= int(part.caps[better].sum())
        if len(level) >= 2 and int(part.caps[level].sum()) > units:
            lost: int | None = marginal
        else:
            worse = cost[cost > marginal]
            lost = int(worse.min()) if len(worse) else None
        if len(better):
            prices = cost[better]
            better = better[_ranked(prices - prices.min(), side.ids, part.rows[better])]
        if len(level) >= 2:
            owners, which = np.unique(side.owner[part.rows[level]], return_inverse=True)
            drawn = np.unique(tickets(self.book.draws(owners), self.seed), return_inverse=True)[1]
            level = level[_ranked(drawn[which].astype(np.int64), side.ids, part.rows[level])]
        caps = part.caps[level]
        count = np.clip(units - (np.cumsum(caps) - caps), 0, caps)
        won = level[count > 0]
        return _Won(
            rows=part.rows[np.concatenate((better, won))],
            units=np.concatenate((part.caps[better], count[: len(won)])),
            lost=lost,
        )

    def _keep(self, done: Paired, buys: _Won, sells: _Won, price: int) -> None:
        buy, sell = buys.rows[done.buy], sells.rows[done.sell]
        first = not self.found
        self.found.append(
            Pairs(
                buy=buy,
                sell=sell,
                quantity=done.units,
                price_msat=np.full(len(buy), price, np.int64),
                buy_from=done.buy_from if first else done.buy_from + self.buy_used[buy],
                sell_from=done.sell_from if first else done.sell_from + self.sell_used[sell],
            )
        )

    def pairs(self) -> Pairs:
        """All that was found."""
        if len(self.found) == 1:
            return self.found[0]
        none = np.empty(0, np.int64)
        return Pairs(
            buy=np.concatenate([none, *(one.buy for one in self.found)]),
            sell=np.concatenate([none, *(one.sell for one in self.found)]),
            quantity=np.concatenate([none, *(one.quantity for one in self.found)]),
            price_msat=np.concatenate([none, *(one.price_msat for one in self.found)]),
            buy_from=np.concatenate([none, *(one.buy_from for one in self.found)]),
            sell_from=np.concatenate([none, *(one.sell_from for one in self.found)]),
        )


def tickets(draws: Words, seed: np.uint64) -> Words:
    """``auction.ticket`` of many owners; arithmetic on these wraps at 64 bits."""
    drawn = draws ^ seed
    drawn = (drawn ^ (drawn >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    drawn = (drawn ^ (drawn >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return drawn ^ (drawn >> np.uint64(31))


def _party(side: Side, won: _Won) -> Party:
    return Party(units=won.units, owner=side.owner[won.rows], avoid=side.avoid[won.rows])


def _cross(bids: Integers, buy_caps: Integers, asks: Integers, sell_caps: Integers) -> tuple[int, int, int] | None:
    """Q and the two marginal prices, or None when the best buy is below the best sell.

    D(p) are the units bid at p or more, S(p) those asked at p or less. The greatest price x with D(x) > S(x - 1) has
    Q = min(D(x), S(x)): above it no more is bid, below it no more is asked. Histograms narrow x down.
    """
    if not len(bids) or not len(asks):
        return None
    low, high = int(asks.min()), int(bids.max())
    if low > high:
        return None
    demand, supply = 0, 0  # bid above the range, asked below it
    all_bids, all_asks = bids, asks
    while True:
        buying, selling = (bids >= low) & (bids <= high), (asks >= low) & (asks <= high)
        bids, buy_caps, asks, sell_caps = bids[buying], buy_caps[buying], asks[selling], sell_caps[selling]
        shift = max(0, (high - low).bit_length() - _BIN_BITS)
        bins = ((high - low) >> shift) + 1
        bid = np.bincount((bids - low) >> shift, buy_caps, bins)
        asked = np.bincount((asks - low) >> shift, sell_caps, bins)
        wanted = demand + np.cumsum(bid[::-1])[::-1]
        offered = supply + np.cumsum(asked)
        at = int(np.count_nonzero(wanted > offered - asked)) - 1
        demand, supply = int(wanted[at] - bid[at]), int(offered[at] - asked[at])
        low += at << shift
        if shift == 0:
            break
        high = min(high, low + (1 << shift) - 1)
    units = min(int(wanted[at]), int(offered[at]))
    worst_buy = low if demand < units else int(all_bids[all_bids > low].min())
    worst_sell = low if supply < units else int(all_asks[all_asks < low].max())
    return units, worst_buy, worst_sell


def _ranked(level: Integers, ids: Words, rows: Integers) -> Integers:
    """The places of ``level`` (0 or more) sorted by it and then by the id of the row."""
    bits = int(level.max()).bit_length()
    key = ids[rows, 0]
    if bits:
        key = (level.astype(np.uint64) << np.uint64(64 - bits)) | (key >> np.uint64(bits))
    order = np.argsort(key)
    key = key[order]
    same = key[1:] == key[:-1]
    if not same.any():
        return order
    tied = np.zeros(len(key), np.bool_)
    tied[1:] |= same
    tied[:-1] |= same
    those = order[tied]
    words = ids[rows[those]]
    order[tied] = those[np.lexsort((words[:, 3], words[:, 2], words[:, 1], words[:, 0], key[tied]))]
    return order


def _use(used: Integers, won: _Won, rests: list[tuple[int, int]]) -> _Part:
    """Count what was paired as used; returns those winners who still have units."""
    places = np.array([place for place, _ in rests], np.int64)
    rest = np.array([count for _, count in rests], np.int64)
    used[won.rows] += won.units
    used[won.rows[places]] -= rest
    return _Part(rows=won.rows[places], caps=rest)


def _left(part: _Part, won: _Won, room: Integers) -> _Part:
    """What of a part did not win. ``room`` is any column of the side, as long as its rows."""
    lost = np.zeros(len(room), np.int64)
    lost[part.rows] = part.caps
    lost[won.rows] -= won.units
    rows = np.flatnonzero(lost)
    return _Part(rows=rows, caps=lost[rows])
