"""Books for tests of the auction, and what can be said of a result without knowing how it came about."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias

from hypothesis import strategies as st

from orderbook.core.auction import Entry, Fill, clear_large, clear_plainly
from orderbook.core.messages import Side, account_hash_of
from wire.limits import PRICE_MAX_MSAT, QUANTITY_MAX

Book: TypeAlias = tuple[list[Entry], list[Entry], int]
Way: TypeAlias = Callable[[Sequence[Entry], Sequence[Entry], int], tuple[Fill, ...]]

OWNERS: Final = [b"\x02" + bytes([number]) * 32 for number in range(1, 7)]
WAYS: Final[dict[str, Way]] = {"plain": clear_plainly, "columns": clear_large}


def _ids(serial: int) -> list[bytes]:
    """Ids that differ from those of other serials in the last byte only, in the first only, or in all."""
    low, high = serial.to_bytes(1, "big"), (255 - serial).to_bytes(1, "big")
    return [bytes(31) + low, high + bytes(31), low * 16 + high * 16]


def books(*, exclusions: bool = True, most: int = 7, large: bool = False) -> st.SearchStrategy[Book]:
    """Small prices and quantities, so that ties are many; ``large`` mixes in the greatest of both."""
    prices, quantities = st.integers(0, 6), st.integers(1, 5)
    if large:
        prices |= st.integers(PRICE_MAX_MSAT - 6, PRICE_MAX_MSAT) | st.integers(0, PRICE_MAX_MSAT)
        quantities |= st.integers(QUANTITY_MAX - 2, QUANTITY_MAX)
    avoid = st.sets(st.sampled_from(OWNERS), max_size=2) if exclusions else st.just(set[bytes]())
    row = st.tuples(prices, quantities, st.integers(0, 3 * len(OWNERS) - 1), avoid)

    def made(rows: list[tuple[int, int, int, set[bytes]]], of: Side) -> list[Entry]:
        first = 1 if of is Side.BUY else 101
        return [
            Entry(
                id=_ids(serial)[choice % 3],
                owner=OWNERS[choice // 3] if exclusions else b"\x03" + serial.to_bytes(32, "big"),
                side=of,
                price_msat=price,
                quantity=quantity,
                avoid=tuple(sorted(account_hash_of(one) for one in avoided)),
            )
            for serial, (price, quantity, choice, avoided) in enumerate(rows, first)
        ]

    rows = st.lists(row, max_size=most)
    return st.tuples(rows, rows, st.integers(0, 2**64 - 1)).map(
        lambda drawn: (made(drawn[0], Side.BUY), made(drawn[1], Side.SELL), drawn[2])
    )


def entry(
    side: Side, price: int, quantity: int, number: int, *, owner: int | None = None, avoid: tuple[bytes, ...] = ()
) -> Entry:
    """An order with ``number`` in its id, and in its owner unless told otherwise."""
    return Entry(
        id=bytes([number]) * 32,
        owner=b"\x02" + bytes([owner or number]) * 32,
        side=side,
        price_msat=price,
        quantity=quantity,
        avoid=avoid,
    )


def won_by(fills: Iterable[Fill]) -> dict[bytes, int]:
    """Units traded, by order id."""
    won: dict[bytes, int] = {}
    for fill in fills:
        for one in (fill.buy.id, fill.sell.id):
            won[one] = won.get(one, 0) + fill.quantity
    return won


def volume_at(price: int, buys: Sequence[Entry], sells: Sequence[Entry]) -> int:
    """The most that can trade at one price: whoever is willing at it, and the shorter side decides."""
    return min(
        sum(one.quantity for one in buys if one.price_msat >= price),
        sum(one.quantity for one in sells if one.price_msat <= price),
    )


def best_volume(buys: Sequence[Entry], sells: Sequence[Entry]) -> int:
    """The most that can trade at any price, by trying all that matter."""
    prices = {one.price_msat for one in (*buys, *sells)}
    return max((volume_at(price, buys, sells) for price in prices), default=0)


def fair_prices(buys: Sequence[Entry], sells: Sequence[Entry], won: dict[bytes, int]) -> tuple[int, int]:
    """The least and the greatest price, by trying all from 0 up, at which every winner is content and nobody who lost units
    would rather have traded. An order that stands alone at the price where its side was cut does not count as a loser: being
    too large it would set its own price.
    """
    lost_buys, lost_sells = _losers(buys, won), _losers(sells, won)
    fair = []
    for price in range(max(one.price_msat for one in (*buys, *sells)) + 1):
        content = all(one.price_msat >= price for one in buys if one.id in won) and all(
            one.price_msat <= price for one in sells if one.id in won
        )
        sorry = any(one.price_msat > price for one in lost_buys) or any(one.price_msat < price for one in lost_sells)
        if content and not sorry:
            fair.append(price)
    if fair != list(range(fair[0], fair[-1] + 1)):
        raise AssertionError("fair prices are an interval")
    return fair[0], fair[-1]


def _losers(side: Sequence[Entry], won: dict[bytes, int]) -> list[Entry]:
    alone = {
        one.id
        for one in side
        if 0 < won.get(one.id, 0) < one.quantity and sum(other.price_msat == one.price_msat for other in side) == 1
    }
    return [one for one in side if won.get(one.id, 0) < one.quantity and one.id not in alone]


def check_one_price(buys: Sequence[Entry], sells: Sequence[Entry], fills: Sequence[Fill]) -> None:
    """I5 for a book without refusals: no price would trade more, and the price is the middle of the fair ones."""
    volume = sum(one.quantity for one in fills)
    assert volume == best_volume(buys, sells)
    if not fills:
        return
    (price,) = {one.price_msat for one in fills}
    assert volume_at(price, buys, sells) == volume
    least, most = fair_prices(buys, sells, won_by(fills))
    assert price == (least + most) // 2
