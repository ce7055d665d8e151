"""The auction against its literal reference, against brute force, and against the invariants."""

import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orderbook.core.auction import Entry, Fill, auction_seed, clear, forbidden, ticket
from orderbook.core.messages import Side, account_hash_of
from tests.orderbook import reference
from wire.limits import AVOID_MAX, PRICE_MAX_MSAT, QUANTITY_MAX

VECTORS = Path(__file__).parents[1] / "vectors" / "orderbook" / "auction.json"
OWNERS = [b"\x02" + bytes([number]) * 32 for number in range(1, 7)]


@st.composite
def books(draw: st.DrawFn, *, exclusions: bool = True, most: int = 7) -> tuple[list[Entry], list[Entry], int]:
    serial = 0

    def side(of: Side) -> list[Entry]:
        nonlocal serial
        entries = []
        for _ in range(draw(st.integers(0, most))):
            serial += 1
            avoid = draw(st.sets(st.sampled_from(OWNERS), max_size=2)) if exclusions else set()
            entries.append(
                Entry(
                    id=serial.to_bytes(2, "big") * 16,
                    owner=draw(st.sampled_from(OWNERS)) if exclusions else b"\x03" + serial.to_bytes(32, "big"),
                    side=of,
                    price_msat=draw(st.integers(0, 6)),
                    quantity=draw(st.integers(1, 5)),
                    avoid=tuple(sorted(account_hash_of(one) for one in avoid)),
                )
            )
        return entries

    return side(Side.BUY), side(Side.SELL), draw(st.integers(0, 2**64 - 1))


@given(books())
@settings(max_examples=1_500, deadline=None)
def test_equals_the_literal_rules(book: tuple[list[Entry], list[Entry], int]) -> None:
    buys, sells, seed = book
    assert list(clear(buys, sells, seed)) == reference.clear(buys, sells, seed)


@given(books(), st.randoms())
@settings(max_examples=300, deadline=None)
def test_arrival_order_changes_nothing(book: tuple[list[Entry], list[Entry], int], dice: random.Random) -> None:
    buys, sells, seed = book
    first = clear(buys, sells, seed)
    dice.shuffle(buys)
    dice.shuffle(sells)
    assert clear(buys, sells, seed) == first


@given(books())
@settings(max_examples=500, deadline=None)
def test_nobody_is_cheated(book: tuple[list[Entry], list[Entry], int]) -> None:
    """I2, I3, I10, and unit ranges that never overlap."""
    buys, sells, seed = book
    taken: dict[bytes, list[range]] = {}
    for fill in clear(buys, sells, seed):
        assert fill.sell.price_msat <= fill.price_msat <= fill.buy.price_msat
        assert fill.quantity > 0
        assert not forbidden(fill.buy, fill.sell)
        for entry, start in ((fill.buy, fill.buy_from), (fill.sell, fill.sell_from)):
            units = range(start, start + fill.quantity)
            assert all(units.stop <= one.start or one.stop <= units.start for one in taken.get(entry.id, []))
            assert units.stop <= entry.quantity
            taken.setdefault(entry.id, []).append(units)
    for units_taken in taken.values():  # ranges start at 0 and leave no gap
        covered = sorted((one.start, one.stop) for one in units_taken)
        assert covered[0][0] == 0
        assert all(one[1] == following[0] for one, following in pairwise(covered))


@given(books(exclusions=False))
@settings(max_examples=500, deadline=None)
def test_brute_force_finds_nothing_better(book: tuple[list[Entry], list[Entry], int]) -> None:
    """I4, I5, I6 without exclusions: one price, at which as much trades as at any; nobody willing at it is left on both sides."""
    buys, sells, seed = book
    fills = clear(buys, sells, seed)
    volume = sum(one.quantity for one in fills)

    def at(price: int) -> int:
        return min(
            sum(one.quantity for one in buys if one.price_msat >= price),
            sum(one.quantity for one in sells if one.price_msat <= price),
        )

    assert volume == max(at(price) for price in range(8))
    if not fills:
        return
    (price,) = {one.price_msat for one in fills}
    assert at(price) == volume
    won: dict[bytes, int] = {}
    for fill in fills:
        for entry in (fill.buy, fill.sell):
            won[entry.id] = won.get(entry.id, 0) + fill.quantity
    left_buys = [one for one in buys if one.price_msat > price and won.get(one.id, 0) < one.quantity]
    left_sells = [one for one in sells if one.price_msat < price and won.get(one.id, 0) < one.quantity]
    best_left_buy = max((one.price_msat for one in buys if won.get(one.id, 0) < one.quantity), default=-1)
    best_left_sell = min((one.price_msat for one in sells if won.get(one.id, 0) < one.quantity), default=99)
    assert best_left_buy < best_left_sell
    assert not (left_buys and left_sells)


@given(books(exclusions=False), st.integers(1, 3))
@settings(max_examples=300, deadline=None)
def test_a_better_price_never_loses_a_fill(book: tuple[list[Entry], list[Entry], int], better: int) -> None:
    """I7: raising a bid never trades fewer units of it."""
    buys, sells, seed = book

    def got(order_id: bytes, fills: tuple[Fill, ...]) -> int:
        return sum(one.quantity for one in fills if one.buy.id == order_id)

    before = clear(buys, sells, seed)
    for index, entry in enumerate(buys):
        raised = Entry(
            id=entry.id, owner=entry.owner, side=entry.side, price_msat=entry.price_msat + better, quantity=entry.quantity
        )
        after = clear([*buys[:index], raised, *buys[index + 1 :]], sells, seed)
        assert got(entry.id, after) >= got(entry.id, before)


def entry(
    side: Side, price: int, quantity: int, number: int, *, owner: int | None = None, avoid: tuple[bytes, ...] = ()
) -> Entry:
    return Entry(
        id=bytes([number]) * 32,
        owner=b"\x02" + bytes([owner or number]) * 32,
        side=side,
        price_msat=price,
        quantity=quantity,
        avoid=avoid,
    )


def prices(buys: list[Entry], sells: list[Entry], seed: int = 0) -> list[tuple[int, int]]:
    fills = clear(buys, sells, seed)
    assert list(fills) == reference.clear(buys, sells, seed)
    return [(one.quantity, one.price_msat) for one in fills]


def test_price_stands_between_what_won_and_what_lost() -> None:
    buy, sell = Side.BUY, Side.SELL
    assert prices([entry(buy, 10, 1, 1)], [entry(sell, 4, 1, 2)]) == [(1, 7)]
    assert prices([entry(buy, 10, 1, 1)], [entry(sell, 5, 1, 2)]) == [(1, 7)]  # rounds down
    assert prices([entry(buy, 4, 1, 1)], [entry(sell, 5, 1, 2)]) == []
    assert prices([entry(buy, 10, 1, 1), entry(buy, 8, 1, 3)], [entry(sell, 4, 1, 2)]) == [(1, 9)]
    assert prices([entry(buy, 10, 1, 1)], [entry(sell, 4, 1, 2), entry(sell, 6, 1, 3)]) == [(1, 5)]
    # two at the margin of which one loses: the price is theirs
    assert prices([entry(buy, 10, 1, 1), entry(buy, 10, 1, 3)], [entry(sell, 4, 1, 2)]) == [(1, 10)]
    # one order alone at the margin does not set its own price by being too large
    assert prices([entry(buy, 10, 5, 1)], [entry(sell, 4, 1, 2)]) == [(1, 7)]
    assert prices([entry(buy, 0, 1, 1)], [entry(sell, 0, 1, 2)]) == [(1, 0)]
    assert prices([], [entry(sell, 0, 1, 2)]) == []


def test_refused_pairs_try_the_losers() -> None:
    """The winner is refused by the winning seller and finds the losing one; the second call has a price of its own."""
    buys = [entry(Side.BUY, 10, 1, 1)]
    sells = [entry(Side.SELL, 2, 1, 2, owner=1), entry(Side.SELL, 6, 1, 3)]
    assert prices(buys, sells) == [(1, 8)]


def test_depth_is_bounded() -> None:
    """Every further call meets one more seller of the buyer's own; after four the fifth is not reached."""
    buys = [entry(Side.BUY, 100, 1, 1)]
    own = [entry(Side.SELL, price, 1, 10 + price, owner=1) for price in range(1, 5)]
    assert prices(buys, [*own, entry(Side.SELL, 50, 1, 99)]) == [(1, 75)]
    own.append(entry(Side.SELL, 5, 1, 15, owner=1))
    assert prices(buys, [*own, entry(Side.SELL, 50, 1, 99)]) == []


def test_largest_numbers() -> None:
    buys = [entry(Side.BUY, PRICE_MAX_MSAT, QUANTITY_MAX, 1)]
    sells = [entry(Side.SELL, PRICE_MAX_MSAT, QUANTITY_MAX, 2)]
    (fill,) = clear(buys, sells, 2**64 - 1)
    assert (fill.quantity, fill.price_msat) == (QUANTITY_MAX, PRICE_MAX_MSAT)


def test_ticket_is_splitmix64() -> None:
    for owner in OWNERS:
        for seed in (0, 1, 2**64 - 1):
            assert ticket(owner, seed) == reference.ticket(owner, seed)
    # the finaliser's published first outputs for state 0: the increment is our input
    assert _finalise(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF


def _finalise(value: int) -> int:
    """``ticket`` on a chosen input: the seed cancels the owner's hash."""
    from wire.digest import plain

    owner = OWNERS[0]
    return ticket(owner, int.from_bytes(plain(owner)[:8], "little") ^ value)


def test_many_refusals_stay_cheap() -> None:
    """As many refused pairs as the bounds allow, counted in pairs looked at rather than in seconds."""
    looked = 0

    class Watched(tuple[bytes, ...]):
        def __contains__(self, item: object) -> bool:
            nonlocal looked
            looked += 1
            return tuple.__contains__(self, item)

    owners = [b"\x02" + number.to_bytes(32, "big") for number in range(600)]
    avoid = [Watched(sorted(account_hash_of(one) for one in owners[start : start + AVOID_MAX])) for start in range(0, 300, 8)]
    buys = [
        Entry(
            id=number.to_bytes(32, "big"),
            owner=owners[300 + number],
            side=Side.BUY,
            price_msat=9,
            quantity=1,
            avoid=avoid[number % 38],
        )
        for number in range(300)
    ]
    sells = [
        Entry(id=(1_000 + number).to_bytes(32, "big"), owner=owners[number], side=Side.SELL, price_msat=1, quantity=1)
        for number in range(300)
    ]
    assert len(clear(buys, sells, 3)) >= 290
    assert looked < 300 * (AVOID_MAX + 2) * 2


# --- golden vectors ----------------------------------------------------------------------------------------


def _load(rows: list[list[Any]], side: Side) -> list[Entry]:
    return [
        Entry(
            id=bytes.fromhex(row[0]),
            owner=bytes.fromhex(row[1]),
            side=side,
            price_msat=row[2],
            quantity=row[3],
            avoid=tuple(bytes.fromhex(one) for one in row[4]),
        )
        for row in rows
    ]


def _fills(fills: list[Fill]) -> list[list[Any]]:
    return [[f.buy.id.hex(), f.sell.id.hex(), f.quantity, f.price_msat, f.buy_from, f.sell_from] for f in fills]


@pytest.mark.parametrize("case", json.loads(VECTORS.read_text())["auctions"], ids=lambda case: case["name"])
def test_golden(case: dict[str, Any]) -> None:
    buys, sells = _load(case["buys"], Side.BUY), _load(case["sells"], Side.SELL)
    seed = auction_seed(case["network"], bytes.fromhex(case["book"]), case["epoch"])
    assert seed == int(case["seed"])
    assert _fills(list(clear(buys, sells, seed))) == case["fills"]
    assert _fills(reference.clear(buys, sells, seed)) == case["fills"]


def test_golden_are_those_of_the_reference() -> None:
    """The file is what ``tests.orderbook.vectors_made`` writes, to the byte."""
    from tests.orderbook.vectors_made import document

    assert VECTORS.read_text() == document()
