"""All small books, and what must hold of each.

The order in which orders are listed changes nothing, so a book is a multiset: every choice with repetition among all kinds of
order on both sides.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, combinations_with_replacement, product
from typing import Final, TypeAlias

from orderbook.core.auction import Entry, clear_large, clear_plainly
from orderbook.core.messages import Side
from tests.orderbook import reference
from tests.orderbook.auctions import check_one_price

Kind: TypeAlias = tuple[Side, int, int, int]
"""Side, price, quantity, owner; owner 0 is somebody new each time."""

PLAIN: Final = [(side, price, quantity, 0) for side, price, quantity in product(Side, range(4), (1, 2))]
REFUSING: Final = [(side, price, quantity, owner) for side, price, quantity, owner in product(Side, range(3), (1, 2), (1, 2))]
SEED: Final = 0x5EED


def plain_books(most: int) -> Iterator[Sequence[Kind]]:
    """Every book of up to ``most`` orders of different owners, prices 0 to 3, quantities 1 and 2."""
    return chain.from_iterable(combinations_with_replacement(PLAIN, size) for size in range(most + 1))


def refusing_books(most: int) -> Iterator[Sequence[Kind]]:
    """Every book of up to ``most`` orders of two owners, who do not trade with themselves, prices 0 to 2, quantities 1 and 2."""
    return chain.from_iterable(combinations_with_replacement(REFUSING, size) for size in range(most + 1))


def check(kinds: Sequence[Kind]) -> int:
    """Both ways through the auction give what the literal rules give; and without refusals, what brute force finds. Returns 1,
    to be counted.
    """
    entries = [
        Entry(
            id=bytes([number * 37 % 251]) * 32,  # not in the order of the list
            owner=b"\x02" + bytes([owner or 100 + number]) * 32,
            side=side,
            price_msat=price,
            quantity=quantity,
        )
        for number, (side, price, quantity, owner) in enumerate(kinds)
    ]
    buys = [one for one in entries if one.side is Side.BUY]
    sells = [one for one in entries if one.side is Side.SELL]
    fills = clear_plainly(buys, sells, SEED)
    assert list(fills) == reference.clear(buys, sells, SEED), kinds
    assert fills == clear_large(buys, sells, SEED), kinds
    if all(owner == 0 for _, _, _, owner in kinds):
        check_one_price(buys, sells, fills)
    return 1
