"""The auction against its literal reference, by golden vectors, and in the cases that matter; both ways through it alike."""

import dataclasses
import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from orderbook.core import auction, auction_pairs
from orderbook.core.auction import Entry, Fill, auction_seed, clear, clear_large, clear_plainly, draw, ticket
from orderbook.core.auction_arrays import clear_columns, tickets
from orderbook.core.auction_columns import columns_of
from orderbook.core.messages import Side, account_hash_of
from tests.orderbook import reference
from tests.orderbook.auctions import OWNERS, WAYS, Book, books, entry
from wire.errors import InvariantBroken
from wire.limits import AUCTION_COLUMNS_MIN, AVOID_MAX, PRICE_MAX_MSAT, QUANTITY_MAX

VECTORS = Path(__file__).parents[1] / "vectors" / "orderbook" / "auction.json"


@given(books())
@settings(max_examples=800, deadline=None)
def test_equals_the_literal_rules(book: Book) -> None:
    buys, sells, seed = book
    fills = reference.clear(buys, sells, seed)
    assert list(clear_plainly(buys, sells, seed)) == fills
    assert list(clear_large(buys, sells, seed)) == fills


@given(books(large=True, most=12))
@settings(max_examples=500, deadline=None)
def test_both_ways_are_equal_on_large_numbers(book: Book) -> None:
    assert clear_large(*book) == clear_plainly(*book)


@pytest.mark.parametrize("number", range(12))
def test_both_ways_are_equal_on_long_books(number: int) -> None:
    """Books with hundreds of orders, from nobody refusing anybody to almost everybody; and what ``clear`` chooses is the same."""
    dice = random.Random(number)
    refusing = (0, 0.05, 0.9)[number % 3]
    owners = [b"\x02" + dice.randbytes(32) for _ in range((3, 40, 400, 4_000)[number % 4])]
    count = 1_100 if number == 7 else 400
    accounts = [account_hash_of(one) for one in owners]
    prices = (1, 6, 300, PRICE_MAX_MSAT)[(number // 3) % 4]

    def side(of: Side) -> list[Entry]:
        return [
            Entry(
                id=dice.randbytes(32) if dice.random() < 0.5 else bytes([of.value]) * 8 + place.to_bytes(24, "big"),
                owner=dice.choice(owners),
                side=of,
                price_msat=dice.randrange(prices),
                quantity=dice.choice((1, 2, 50, QUANTITY_MAX)),
                avoid=tuple(sorted(set(dice.choices(accounts, k=AVOID_MAX)))) if dice.random() < refusing else (),
            )
            for place in range(count)
        ]

    buys, sells = side(Side.BUY), side(Side.SELL)
    fills = clear_plainly(buys, sells, number)
    assert len(fills) > 50
    assert clear_large(buys, sells, number) == fills
    assert clear(buys, sells, number) == fills


def test_the_way_is_chosen_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []
    monkeypatch.setattr(auction, "clear_large", lambda *book: taken.append("columns"))
    monkeypatch.setattr(auction, "clear_plainly", lambda *book: taken.append("plain"))
    one = entry(Side.BUY, 1, 1, 1)
    clear([one] * (AUCTION_COLUMNS_MIN - 1), [], 0)
    clear([one] * (AUCTION_COLUMNS_MIN - 1), [one], 0)
    assert taken == ["plain", "columns"]


def test_columns_of_uneven_length_are_refused() -> None:
    columns = columns_of([entry(Side.BUY, 1, 1, 1)], [entry(Side.SELL, 1, 1, 2)])
    uneven = dataclasses.replace(columns, buys=dataclasses.replace(columns.buys, owner=columns.buys.owner[:0]))
    with pytest.raises(InvariantBroken) as broken:
        clear_columns(uneven, 0)
    assert broken.value.code == "columns-uneven"
    with pytest.raises(InvariantBroken) as broken:
        columns_of([entry(Side.BUY, 1, 1, 1)._replace(id=b"short")], [])
    assert broken.value.code == "id-length"


def prices(buys: list[Entry], sells: list[Entry], seed: int = 0) -> list[tuple[int, int]]:
    fills = reference.clear(buys, sells, seed)
    for way in WAYS.values():
        assert list(way(buys, sells, seed)) == fills
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
    # whoever stands behind them
    assert prices([entry(buy, 10, 1, 1), entry(buy, 10, 1, 3), entry(buy, 8, 1, 4)], [entry(sell, 4, 1, 2)]) == [(1, 10)]
    assert prices([entry(buy, 10, 1, 1)], [entry(sell, 4, 1, 2), entry(sell, 4, 1, 3), entry(sell, 6, 1, 4)]) == [(1, 4)]
    # one order alone at the margin does not set its own price by being too large
    assert prices([entry(buy, 10, 5, 1)], [entry(sell, 4, 1, 2)]) == [(1, 7)]
    assert prices([entry(buy, 0, 1, 1)], [entry(sell, 0, 1, 2)]) == [(1, 0)]
    assert prices([], [entry(sell, 0, 1, 2)]) == []


def test_refused_pairs_try_the_losers() -> None:
    """The winner is refused by the winning seller and finds the losing one; the second call has a price of its own."""
    buys = [entry(Side.BUY, 10, 1, 1)]
    sells = [entry(Side.SELL, 2, 1, 2, owner=1), entry(Side.SELL, 6, 1, 3)]
    assert prices(buys, sells) == [(1, 8)]


def test_who_has_won_all_he_wants_is_no_loser_of_the_next_call() -> None:
    """Two sellers share the marginal price; the one who won it all is refused, and does not count beside the other any more."""
    buys = [entry(Side.BUY, 10, 1, 1)]
    sells = [entry(Side.SELL, 5, 1, 2, owner=1), entry(Side.SELL, 5, 2, 3)]
    first = next(seed for seed in range(99) if ticket(sells[0].owner, seed) < ticket(sells[1].owner, seed))
    assert prices(buys, sells, first) == [(1, 7)]


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
            assert tickets(np.array([draw(owner)], np.uint64), np.uint64(seed)).tolist() == [ticket(owner, seed)]
    # the finaliser's published first outputs for state 0: the increment is our input
    assert _finalise(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF


def _finalise(value: int) -> int:
    """``ticket`` on a chosen input: the seed cancels what the owner brings."""
    return ticket(OWNERS[0], draw(OWNERS[0]) ^ value)


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


def test_columns_are_walked_around_refused_pairs_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """One refused pair among five hundred, and lists of those whom one does not meet: a few pairs are looked at one by one."""
    looks, count = 0, 500
    walked = auction_pairs._Walk._refuse

    def walking(walk: auction_pairs._Walk, at: int, on: int) -> bool:
        nonlocal looks
        looks += 1
        return walked(walk, at, on)

    monkeypatch.setattr(auction_pairs._Walk, "_refuse", walking)
    owners = [b"\x02" + number.to_bytes(32, "big") for number in range(2 * count)]

    def side(of: Side, first: int, prices: range) -> list[Entry]:
        return [
            Entry(id=(first + number).to_bytes(32, "big"), owner=owners[first + number], side=of, price_msat=price, quantity=1)
            for number, price in enumerate(prices)
        ]

    buys, sells = side(Side.BUY, 0, range(3 * count, 2 * count, -1)), side(Side.SELL, count, range(count))
    for number in range(10, count - 10):
        shunned = tuple(sorted(account_hash_of(owners[count + number + step]) for step in (-5, 5)))
        buys[number] = buys[number]._replace(avoid=shunned)
    assert len(clear_large(buys, sells, 1)) == count
    assert looks == 0
    sells[100] = sells[100]._replace(owner=buys[100].owner)
    fills = clear_large(buys, sells, 1)
    assert len(fills) == count
    assert 3 <= looks <= 40
    assert fills == clear_plainly(buys, sells, 1)


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


def _fills(fills: Iterable[Fill]) -> list[list[Any]]:
    return [[f.buy.id.hex(), f.sell.id.hex(), f.quantity, f.price_msat, f.buy_from, f.sell_from] for f in fills]


@pytest.mark.parametrize("case", json.loads(VECTORS.read_text())["auctions"], ids=lambda case: case["name"])
def test_golden(case: dict[str, Any]) -> None:
    buys, sells = _load(case["buys"], Side.BUY), _load(case["sells"], Side.SELL)
    seed = auction_seed(case["network"], bytes.fromhex(case["book"]), case["epoch"])
    assert seed == int(case["seed"])
    for way in WAYS.values():
        assert _fills(way(buys, sells, seed)) == case["fills"]
    assert _fills(reference.clear(buys, sells, seed)) == case["fills"]


def test_golden_are_those_of_the_reference() -> None:
    """The file is what ``tests.orderbook.vectors_made`` writes, to the byte."""
    from tests.orderbook.vectors_made import document

    assert VECTORS.read_text() == document()
