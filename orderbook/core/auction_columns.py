"""A book as columns of numbers, and back: what the auction's fast path works on.

A row is an order. Owners are numbered over both sides, so that "one owner" is an equality of two numbers; avoided accounts
are those numbers too, and only those of owners who are in the book. Ids are four 64-bit words, the first the most significant,
so that comparing words is comparing bytes.

With the bounds that ``check`` keeps, every sum of quantities is at most 2^48: exact in int64, and in the float64 that histograms
are added up in.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from orderbook.core.auction import Entry, Fill, draw
from orderbook.core.messages import account_hash_of
from wire.errors import require
from wire.limits import AUCTION_ORDERS_MAX, AVOID_MAX, PRICE_MAX_MSAT, QUANTITY_MAX

Integers: TypeAlias = NDArray[np.int64]
Words: TypeAlias = NDArray[np.uint64]

NOBODY: Final = -1
_ID_BYTES: Final = 32
_ID, _OWNER, _AVOID = attrgetter("id"), attrgetter("owner"), attrgetter("avoid")
_PRICE, _QUANTITY = attrgetter("price_msat"), attrgetter("quantity")


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One side of a book. ``ids`` is (n, 4); ``avoid`` is each order's row in the table of refusals, 0 for none."""

    price_msat: Integers
    quantity: Integers
    owner: Integers
    ids: Words
    avoid: Integers


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Both sides; ``draws`` tells what numbered owners bring to the draw; ``avoided`` is the table of refusals, (rows, 8)
    numbers of owners, the first row nobody.
    """

    buys: Side
    sells: Side
    draws: Callable[[Integers], Words]
    avoided: Integers


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """The fills in the order of the rules; ``buy`` and ``sell`` are rows of the columns."""

    buy: Integers
    sell: Integers
    quantity: Integers
    price_msat: Integers
    buy_from: Integers
    sell_from: Integers


def check(side: Side) -> None:
    """Raise ``InvariantBroken`` when a number is out of its bounds: sums would not be exact any more."""
    size = len(side.price_msat)
    shapes = {len(side.quantity), len(side.owner), len(side.ids), len(side.avoid)}
    require(
        size <= AUCTION_ORDERS_MAX and shapes == {size}, "columns-uneven", "the columns of a book are of one length, at most 2^32"
    )
    if size:
        least, most = int(side.price_msat.min()), int(side.price_msat.max())
        require(least >= 0 and most <= PRICE_MAX_MSAT, "price-out-of-bounds", "prices are 0 to 2^40 millisatoshi")
        least, most = int(side.quantity.min()), int(side.quantity.max())
        require(least >= 1 and most <= QUANTITY_MAX, "quantity-out-of-bounds", "quantities are 1 to 65,536")


def columns_of(buys: Sequence[Entry], sells: Sequence[Entry]) -> Columns:
    """The columns of two lists of orders; row n is the n-th order."""
    numbers = {owner: number for number, owner in enumerate(dict.fromkeys(map(_OWNER, chain(buys, sells))))}
    rows = {avoid: row for row, avoid in enumerate(dict.fromkeys(chain([()], map(_AVOID, chain(buys, sells)))))}
    accounts = {account_hash_of(owner): number for owner, number in numbers.items()} if len(rows) > 1 else {}
    avoided = np.full((len(rows), max(AVOID_MAX, *map(len, rows))), NOBODY, np.int64)
    for avoid, row in rows.items():
        for place, account in enumerate(avoid):
            avoided[row, place] = accounts.get(account, NOBODY)
    names = list(numbers)

    def draws(those: Integers) -> Words:
        """Only those at a marginal price take part in the draw, so only theirs are computed."""
        return np.fromiter((draw(names[number]) for number in those.tolist()), np.uint64, len(those))

    return Columns(
        buys=_side(buys, numbers, rows),
        sells=_side(sells, numbers, rows),
        draws=draws,
        avoided=avoided,
    )


def _side(entries: Sequence[Entry], numbers: dict[bytes, int], rows: dict[tuple[bytes, ...], int]) -> Side:
    count = len(entries)
    ids = list(map(_ID, entries))
    require(set(map(len, ids)) <= {_ID_BYTES}, "id-length", "order ids have 32 bytes")
    avoid = np.zeros(count, np.int64)
    if len(rows) > 1:
        avoid = np.fromiter(map(rows.__getitem__, map(_AVOID, entries)), np.int64, count)
    return Side(
        price_msat=np.fromiter(map(_PRICE, entries), np.int64, count),
        quantity=np.fromiter(map(_QUANTITY, entries), np.int64, count),
        owner=np.fromiter(map(numbers.__getitem__, map(_OWNER, entries)), np.int64, count),
        ids=np.frombuffer(b"".join(ids), ">u8").astype(np.uint64).reshape(count, _ID_BYTES // 8),
        avoid=avoid,
    )


def fills_of(pairs: Pairs, buys: Sequence[Entry], sells: Sequence[Entry]) -> tuple[Fill, ...]:
    """The pairs as fills of the orders that the columns were made of."""
    columns = (pairs.quantity, pairs.price_msat, pairs.buy_from, pairs.sell_from)
    buying, selling = map(buys.__getitem__, pairs.buy.tolist()), map(sells.__getitem__, pairs.sell.tolist())
    return tuple(map(Fill._make, zip(buying, selling, *(one.tolist() for one in columns), strict=True)))
