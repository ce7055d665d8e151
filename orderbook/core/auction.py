"""The call auction: who trades how much with whom at what price, as a pure function of a set of orders.

The rules stand in the market specification; this is the same law on cumulative quantities, so that an order of 65,536 units
costs no more than one of a single unit. In one *clearing call*:

- buys from the dearest and sells from the cheapest are laid side by side; Q units cross;
- one price for all, half way between the best price that lost and the worst price that won;
- at the marginal price the ticket decides, a number from the owner's key and the epoch's seed that nobody chooses;
- winners are paired in order, except pairs that refuse each other; who is left over by that may try the losers of the other
  side in up to four further calls.

Integers only. The result depends on neither the order of arrival nor the process. Large books take the way over columns
(``auction_arrays``), which gives the same fills.
"""

import importlib
from collections.abc import Sequence
from typing import Final, NamedTuple

from orderbook.core.messages import Side, account_hash_of
from wire.digest import context, digest, plain
from wire.errors import require
from wire.limits import AUCTION_COLUMNS_MIN, AUCTION_DEPTH, PRICE_MAX_MSAT, QUANTITY_MAX

_MASK: Final = (1 << 64) - 1


class Entry(NamedTuple):
    """An eligible order, as the auction sees it. ``avoid`` holds 20-byte account hashes."""

    id: bytes
    owner: bytes
    side: Side
    price_msat: int
    quantity: int
    avoid: tuple[bytes, ...] = ()


class Fill(NamedTuple):
    """``quantity`` units of one buy and one sell, at one price; the units are ``from`` onwards in either order.

    A tuple, because the auction of a large book makes many, and those are made three times as fast.
    """

    buy: Entry
    sell: Entry
    quantity: int
    price_msat: int
    buy_from: int
    sell_from: int


# One order's part in one clearing call: its place in the sorted list, and the units it may still trade.
_Capped = tuple[int, int]


def auction_seed(network: str, book: bytes, epoch: int) -> int:
    """The epoch's seed, 64 bits."""
    return int.from_bytes(digest(context(network, "auction"), book, epoch.to_bytes(8, "little"))[:8], "little")


def draw(owner: bytes) -> int:
    """What the owner brings to every draw, 64 bits."""
    return int.from_bytes(plain(owner)[:8], "little")


def ticket(owner: bytes, seed: int) -> int:
    """The owner's 64-bit number in the draw at a marginal price; the least goes first. Finaliser: splitmix64."""
    drawn = draw(owner) ^ seed
    drawn = ((drawn ^ (drawn >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    drawn = ((drawn ^ (drawn >> 27)) * 0x94D049BB133111EB) & _MASK
    return drawn ^ (drawn >> 31)


def forbidden(buy: Entry, sell: Entry) -> bool:
    """Whether the two must not be paired: one owner, or one avoids the other."""
    if buy.owner == sell.owner:
        return True
    if buy.avoid and account_hash_of(sell.owner) in buy.avoid:
        return True
    return bool(sell.avoid) and account_hash_of(buy.owner) in sell.avoid


def clear(buys: Sequence[Entry], sells: Sequence[Entry], seed: int) -> tuple[Fill, ...]:
    """All fills of one epoch, in the order in which the rules emit them.

    Raises ``InvariantBroken`` when a price or a quantity is out of its bounds, which no message of ours can say.
    """
    if len(buys) + len(sells) >= AUCTION_COLUMNS_MIN:
        return clear_large(buys, sells, seed)
    return clear_plainly(buys, sells, seed)


def load_arrays() -> None:
    """Import now what large books need: a process that trades should not do that in a freeze."""
    importlib.import_module("orderbook.core.auction_arrays")


def clear_large(buys: Sequence[Entry], sells: Sequence[Entry], seed: int) -> tuple[Fill, ...]:
    """``clear`` over columns: by far the faster for many thousand orders."""
    from orderbook.core.auction_arrays import clear_columns
    from orderbook.core.auction_columns import columns_of, fills_of

    return fills_of(clear_columns(columns_of(buys, sells), seed), buys, sells)


def clear_plainly(buys: Sequence[Entry], sells: Sequence[Entry], seed: int) -> tuple[Fill, ...]:
    """``clear`` without arrays."""
    for side in (buys, sells):
        _check([one.price_msat for one in side], [one.quantity for one in side])
    call = _Auction(
        sorted(buys, key=lambda one: (-one.price_msat, one.id)),
        sorted(sells, key=lambda one: (one.price_msat, one.id)),
        seed,
    )
    call.clear(
        [(place, one.quantity) for place, one in enumerate(call.buys)],
        [(place, one.quantity) for place, one in enumerate(call.sells)],
        AUCTION_DEPTH,
    )
    return tuple(call.fills)


def _check(prices: list[int], quantities: list[int]) -> None:
    if prices:
        require(min(prices) >= 0 and max(prices) <= PRICE_MAX_MSAT, "price-out-of-bounds", "prices are 0 to 2^40 millisatoshi")
        require(min(quantities) >= 1 and max(quantities) <= QUANTITY_MAX, "quantity-out-of-bounds", "quantities are 1 to 65,536")


class _Auction:
    """The sorted orders, what is used of each, and the fills so far. Lists of ``_Capped`` always ascend by place."""

    def __init__(self, buys: list[Entry], sells: list[Entry], seed: int) -> None:
        self.buys, self.sells, self.seed = buys, sells, seed
        self.buy_used, self.sell_used = [0] * len(buys), [0] * len(sells)
        self.fills: list[Fill] = []

    def clear(self, buys: list[_Capped], sells: list[_Capped], depth: int) -> None:
        """One clearing call, and those that follow from refused pairs."""
        crossed = self._cross(buys, sells)
        if crossed is None:
            return
        units, worst_buy, worst_sell = crossed
        least, most = worst_sell, worst_buy
        lost_buy = _losing(buys, self.buys, worst_buy, units)
        lost_sell = _losing(sells, self.sells, worst_sell, units)
        if lost_buy is not None:
            least = max(least, lost_buy)
        if lost_sell is not None:
            most = min(most, lost_sell)
        won_buys, left_buys = self._winners(buys, self.buys, worst_buy, units)
        won_sells, left_sells = self._winners(sells, self.sells, worst_sell, units)
        rest_buys, rest_sells = self._pair(won_buys, won_sells, (least + most) // 2)
        if depth > 0 and rest_buys:
            self.clear(rest_buys, left_sells, depth - 1)
            self.clear(left_buys, rest_sells, depth - 1)

    def _cross(self, buys: list[_Capped], sells: list[_Capped]) -> tuple[int, int, int] | None:
        """Q and the two marginal prices, or None when the best buy is below the best sell."""
        units, at, on = 0, 0, 0
        buy_left = buys[0][1] if buys else 0
        sell_left = sells[0][1] if sells else 0
        worst: tuple[int, int] | None = None
        while at < len(buys) and on < len(sells):
            bid, ask = self.buys[buys[at][0]].price_msat, self.sells[sells[on][0]].price_msat
            if bid < ask:
                break
            count = min(buy_left, sell_left)
            units, worst = units + count, (bid, ask)
            buy_left, sell_left = buy_left - count, sell_left - count
            if buy_left == 0:
                at += 1
                buy_left = buys[at][1] if at < len(buys) else 0
            if sell_left == 0:
                on += 1
                sell_left = sells[on][1] if on < len(sells) else 0
        return None if worst is None else (units, *worst)

    def _winners(
        self, capped: list[_Capped], orders: list[Entry], marginal: int, units: int
    ) -> tuple[list[_Capped], list[_Capped]]:
        """Winners with what they won, in side order, and losers with what they lost, ascending by place."""
        first = next(index for index, (place, _) in enumerate(capped) if orders[place].price_msat == marginal)
        last = first
        while last < len(capped) and orders[capped[last][0]].price_msat == marginal:
            last += 1
        drawn = sorted(capped[first:last], key=lambda one: (ticket(orders[one[0]].owner, self.seed), orders[one[0]].id))
        won, lost = capped[:first], []
        units -= sum(cap for _, cap in won)
        won = list(won)
        for place, cap in drawn:
            count = min(cap, units)
            units -= count
            if count:
                won.append((place, count))
            if cap > count:
                lost.append((place, cap - count))
        return won, sorted(lost) + capped[last:]

    def _pair(self, buys: list[_Capped], sells: list[_Capped], price: int) -> tuple[list[_Capped], list[_Capped]]:
        """Pair the winners in side order and return those with units left, ascending by place.

        Sells that are used up leave a chain, so that each buy meets only sells that still have something: the work is
        linear but for refused pairs, and an order refuses few.
        """
        following = list(range(1, len(sells) + 1))
        rests = [cap for _, cap in sells]
        head, rest_buys = 0, []
        for place, cap in buys:
            rest, before, on = cap, -1, head
            buy = self.buys[place]
            while rest and on < len(sells):
                sell_place = sells[on][0]
                sell = self.sells[sell_place]
                if not forbidden(buy, sell):
                    count = min(rest, rests[on])
                    self._emit(place, sell_place, count, price)
                    rest -= count
                    rests[on] -= count
                if rests[on]:
                    before = on
                elif before < 0:
                    head = following[on]
                else:
                    following[before] = following[on]
                on = following[on]
            if rest:
                rest_buys.append((place, rest))
        rest_sells = [(place, rests[on]) for on, (place, _) in enumerate(sells) if rests[on]]
        return sorted(rest_buys), sorted(rest_sells)

    def _emit(self, buy: int, sell: int, count: int, price: int) -> None:
        self.fills.append(
            Fill(
                buy=self.buys[buy],
                sell=self.sells[sell],
                quantity=count,
                price_msat=price,
                buy_from=self.buy_used[buy],
                sell_from=self.sell_used[sell],
            )
        )
        self.buy_used[buy] += count
        self.sell_used[sell] += count


def _losing(capped: list[_Capped], orders: list[Entry], marginal: int, units: int) -> int | None:
    """The best price on this side that lost: the marginal one if several share it and not all fit, else the next worse."""
    at_margin, total = 0, 0
    for place, cap in capped:
        price = orders[place].price_msat
        if price == marginal:
            at_margin += 1
        elif at_margin:
            return marginal if at_margin >= 2 and total > units else price
        total += cap
    return marginal if at_margin >= 2 and total > units else None
