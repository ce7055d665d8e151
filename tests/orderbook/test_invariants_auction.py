"""The invariants that concern the auction, by their numbers: I1 to I8, I10, I14, I15.

I4 and I5 are about books without refusals, I6 about one clearing call. Both ways through the auction are held to all of them.
"""

import ast
import os
import random
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import orderbook.core
from orderbook.core import auction
from orderbook.core.auction import Entry, Fill, clear, clear_large, clear_plainly, forbidden
from orderbook.core.auction_pairs import _Walk
from orderbook.core.book import Book as Kept
from orderbook.core.messages import Side, account_hash_of, read, seal_order
from tests.brute.books import check, plain_books, refusing_books
from tests.orderbook.auctions import WAYS, Book, Way, books, check_one_price, entry, fair_prices, volume_at, won_by
from tests.orderbook.test_messages import order
from tests.orderbook.world import EPOCH, at, key
from wire.errors import Ignore, InvariantBroken
from wire.limits import AVOID_MAX, OWNER_SLOTS, PRICE_MAX_MSAT, QUANTITY_MAX
from wire.network import REGTEST

ROOT = Path(__file__).parents[2]


def both(book: Book) -> tuple[Fill, ...]:
    """What both ways come to."""
    fills = clear_plainly(*book)
    assert clear_large(*book) == fills
    return fills


both_ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@given(book=books(), mixer=st.integers(0, 2**32))
@settings(max_examples=200, deadline=None)
def test_i01_arrival_changes_nothing(book: Book, mixer: int) -> None:
    buys, sells, seed = book
    dice = random.Random(mixer)
    mixed_buys, mixed_sells = dice.sample(buys, len(buys)), dice.sample(sells, len(sells))
    for way in WAYS.values():
        assert way(mixed_buys, mixed_sells, seed) == way(buys, sells, seed)


def test_i01_a_second_copy_changes_nothing() -> None:
    """A book is a set: what it knows it does not take again, whatever way it comes."""
    orders = [
        read(REGTEST, seal_order(key(owner), REGTEST, order(owner, side=side, price_msat=1_000)))
        for owner, side in ((1, Side.BUY), (2, Side.SELL), (3, Side.SELL))
    ]
    once, twice = Kept(REGTEST.clock), Kept(REGTEST.clock)
    for one in orders:
        once.admit(one, at(), asked=False)
    for one in [*orders, *reversed(orders)]:
        try:
            twice.admit(one, at(), asked=bool(len(twice) % 2))
        except Ignore as ignored:
            assert ignored.code == "duplicate"  # noqa: PT017 - the first copies are taken, the second are not
    fills = clear(*once.eligible(EPOCH + 1), 7)
    assert len(fills) == 1
    assert clear(*twice.eligible(EPOCH + 1), 7) == fills


@given(book=books(large=True))
@settings(max_examples=200, deadline=None)
def test_i02_nobody_pays_above_or_earns_below_his_limit(book: Book) -> None:
    for fill in both(book):
        assert fill.sell.price_msat <= fill.price_msat <= fill.buy.price_msat


@given(book=books(large=True))
@settings(max_examples=200, deadline=None)
def test_i03_bought_is_sold_and_nothing_is_overfilled(book: Book) -> None:
    """Every unit of a fill is one of either order, ranges of one order never overlap, begin at 0 and leave no gap."""
    taken: dict[bytes, list[tuple[int, int]]] = {}
    wanted = {one.id: one.quantity for one in (*book[0], *book[1])}
    for fill in both(book):
        assert fill.quantity > 0
        assert (fill.buy.side, fill.sell.side) == (Side.BUY, Side.SELL)
        for one, start in ((fill.buy, fill.buy_from), (fill.sell, fill.sell_from)):
            taken.setdefault(one.id, []).append((start, start + fill.quantity))
    for name, ranges in taken.items():
        assert ranges[0][0] == 0
        assert all(one[1] == following[0] for one, following in pairwise(ranges))
        assert ranges[-1][1] <= wanted[name]


@given(book=books(exclusions=False, large=True))
@settings(max_examples=200, deadline=None)
def test_i04_nothing_that_crosses_is_left(book: Book) -> None:
    buys, sells, _ = book
    won = won_by(both(book))
    bids = [one.price_msat for one in buys if won.get(one.id, 0) < one.quantity]
    asks = [one.price_msat for one in sells if won.get(one.id, 0) < one.quantity]
    assert max(bids, default=-1) < min(asks, default=PRICE_MAX_MSAT + 1)


@given(book=books(exclusions=False))
@settings(max_examples=200, deadline=None)
def test_i05_quantity_is_maximal_and_the_price_is_fair(book: Book) -> None:
    check_one_price(book[0], book[1], both(book))


def test_i05_brute_force_over_every_small_book() -> None:
    """Up to four orders here; ``make brute`` walks all books of up to eight."""
    assert sum(check(kinds) for kinds in plain_books(4)) == 4_845


def test_i05_every_small_book_with_refusals_is_that_of_the_rules() -> None:
    """With refusals the literal rules are the judge. Up to three orders here; ``make brute`` walks all of up to five."""
    assert sum(check(kinds) for kinds in refusing_books(3)) == 2_925


@given(book=books())
@settings(max_examples=200, deadline=None)
def test_i06_one_price_per_clearing_call(book: Book) -> None:
    """The calls are watched: whatever one of them adds has one price, and there are at most 31, of which the first is all of
    a book without refusals.
    """
    slices: list[set[int]] = []
    plainly = auction._Auction._pair

    def watched(call: Any, buys: Any, sells: Any, price: int) -> Any:
        before = len(call.fills)
        rests = plainly(call, buys, sells, price)
        slices.append({one.price_msat for one in call.fills[before:]})
        assert slices[-1] <= {price}
        return rests

    with mock.patch.object(auction._Auction, "_pair", watched):
        fills = clear_plainly(*book)
    assert len(slices) <= 31
    assert {one.price_msat for one in fills} == set().union(*slices)
    assert fills == clear_large(*book)
    if not any(forbidden(buy, sell) for buy in book[0] for sell in book[1]):
        assert len(slices) <= 1


@both_ways
@given(book=books(exclusions=False), better=st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_i07_a_better_price_never_loses_a_fill(way: Way, book: Book, better: int) -> None:
    buys, sells, seed = book
    before = won_by(way(buys, sells, seed))
    for place, one in enumerate(buys):
        raised = one._replace(price_msat=one.price_msat + better)
        after = won_by(way([*buys[:place], raised, *buys[place + 1 :]], sells, seed))
        assert after.get(one.id, 0) >= before.get(one.id, 0)
    for place, one in enumerate(sells):
        lowered = one._replace(price_msat=max(0, one.price_msat - better))
        after = won_by(way(buys, [*sells[:place], lowered, *sells[place + 1 :]], seed))
        assert after.get(one.id, 0) >= before.get(one.id, 0)


@given(book=books(exclusions=False))
@settings(max_examples=150, deadline=None)
def test_i07_orders_outside_the_cross_change_nothing(book: Book) -> None:
    """Who has no fill and stands outside the fair prices could as well not be there."""
    buys, sells, seed = book
    fills = both(book)
    if not fills:
        return
    won = won_by(fills)
    least, most = fair_prices(buys, sells, won)

    def inside(one: Entry) -> bool:
        return one.id in won or least <= one.price_msat <= most

    assert both(([one for one in buys if inside(one)], [one for one in sells if inside(one)], seed)) == fills


def _disabled() -> str:
    """What numpy has for processors like this one beyond what it needs, so that it can be told to do without."""
    features = np._core._multiarray_umath  # type: ignore[attr-defined]
    return " ".join(one for one in features.__cpu_dispatch__ if features.__cpu_features__.get(one))


@pytest.mark.parametrize(
    "surroundings",
    [
        {"PYTHONHASHSEED": "0", "LC_ALL": "C", "TZ": "UTC"},
        {"PYTHONHASHSEED": "4242", "LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8", "TZ": "Asia/Kathmandu"},
        {"PYTHONHASHSEED": "random", "LC_ALL": "de_DE.UTF-8", "NPY_DISABLE_CPU_FEATURES": _disabled()},
    ],
    ids=["plain C", "Turkish", "a poorer processor"],
)
def test_i08_other_processes_come_to_the_same(surroundings: dict[str, str]) -> None:
    """Other hash seeds, locales, time zones, processors."""
    from tests.orderbook.outcome import outcome

    command = [sys.executable, "-m", "tests.orderbook.outcome"]
    there = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **surroundings}, capture_output=True, text=True, check=True, timeout=120
    )
    assert there.stdout.split() == outcome()


@given(book=books())
@settings(max_examples=200, deadline=None)
def test_i10_nobody_trades_with_himself_or_whom_he_avoids(book: Book) -> None:
    for fill in both(book):
        assert fill.buy.owner != fill.sell.owner
        assert account_hash_of(fill.sell.owner) not in fill.buy.avoid
        assert account_hash_of(fill.buy.owner) not in fill.sell.avoid


def test_i14_no_float_in_the_auction() -> None:
    """Neither a literal, nor a division that makes one, nor the type's name; and what comes out are Python's integers."""
    (folder,) = orderbook.core.__path__
    modules = sorted(Path(folder).glob("auction*.py"))
    assert len(modules) == 4
    for module in modules:
        for node in ast.walk(ast.parse(module.read_text())):
            assert not (isinstance(node, ast.Constant) and isinstance(node.value, float)), module
            assert not (isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div)), module
            assert not (isinstance(node, ast.Name) and node.id == "float"), module
    for way in WAYS.values():
        (fill,) = way([entry(Side.BUY, 3, 2, 1)], [entry(Side.SELL, 0, 5, 2)], 1)
        assert [type(one) for one in fill[2:]] == [int] * 4


@both_ways
def test_i14_the_greatest_numbers_are_exact(way: Way) -> None:
    """Sums beyond 2^32 and prices of 2^40, with a single unit and a single millisatoshi that must not get lost."""
    buys = [
        Entry(
            id=number.to_bytes(32, "big"),
            owner=b"\x02" + number.to_bytes(32, "big"),
            side=Side.BUY,
            price_msat=PRICE_MAX_MSAT,
            quantity=QUANTITY_MAX,
        )
        for number in range(1 << 10)
    ]
    sells = [
        one._replace(id=bytes([255]) + one.id[1:], owner=b"\x03" + one.owner[1:], side=Side.SELL, price_msat=PRICE_MAX_MSAT - 1)
        for one in buys
    ]
    sells[0] = sells[0]._replace(quantity=QUANTITY_MAX - 1)
    fills = way(buys, sells, 2**64 - 1)
    assert sum(one.quantity for one in fills) == (QUANTITY_MAX << 10) - 1
    assert {one.price_msat for one in fills} == {PRICE_MAX_MSAT}  # two bids of which not all fit are the price
    assert fills == clear_plainly(buys, sells, 2**64 - 1)


@both_ways
@pytest.mark.parametrize(
    ("price", "quantity", "code"),
    [
        (-1, 1, "price-out-of-bounds"),
        (PRICE_MAX_MSAT + 1, 1, "price-out-of-bounds"),
        (1, 0, "quantity-out-of-bounds"),
        (1, QUANTITY_MAX + 1, "quantity-out-of-bounds"),
        (2**63, 1, "price-out-of-bounds"),
    ],
)
def test_i14_bounds_are_checked(way: Way, price: int, quantity: int, code: str) -> None:
    good = entry(Side.BUY, 5, 1, 1)
    for buys, sells in (
        ([good, entry(Side.BUY, price, quantity, 2)], [entry(Side.SELL, 1, 1, 3)]),
        ([good], [entry(Side.SELL, price, quantity, 2)]),
    ):
        with pytest.raises((InvariantBroken, OverflowError)) as broken:
            way(buys, sells, 0)
        if isinstance(broken.value, InvariantBroken):
            assert broken.value.code == code
        assert isinstance(broken.value, OverflowError) == (way is clear_large and price == 2**63)


def _hostile(count: int) -> tuple[list[Entry], list[Entry]]:
    """Owners with all their slots on both sides, all the lists that the bounds allow, one great buy that every second seller
    avoids, and equal prices, so that whoever refuses each other meets.
    """
    owners = [b"\x02" + number.to_bytes(32, "big") for number in range(count // OWNER_SLOTS + 1)]
    accounts = [account_hash_of(one) for one in owners]
    buys, sells = [], []
    for number in range(count):
        name, owner = number.to_bytes(31, "big"), number // OWNER_SLOTS
        near = {accounts[(owner + step) % len(accounts)] for step in range(1, AVOID_MAX)}
        buys.append(
            Entry(
                id=b"\x00" + name,
                owner=owners[owner],
                side=Side.BUY,
                price_msat=8 if number else 9,
                quantity=1 if number else count // 4,
                avoid=tuple(sorted(near)),
            )
        )
        sells.append(
            Entry(
                id=b"\x01" + name,
                owner=owners[owner],
                side=Side.SELL,
                price_msat=1 + number % 3,
                quantity=1,
                avoid=(accounts[0],) if number % 2 else (),
            )
        )
    return buys, sells


def test_i15_work_grows_with_the_book_and_not_with_its_square(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs looked at are counted, not seconds. Each order refuses a bounded number of others, but for one whom all avoid;
    an order is passed over once by each, so twice the book is twice the pairs.
    """
    looks = 0
    plainly, walked = forbidden, _Walk._refuse

    def counted(buy: Entry, sell: Entry) -> bool:
        nonlocal looks
        looks += 1
        return plainly(buy, sell)

    def walking(walk: _Walk, at: int, on: int) -> bool:
        nonlocal looks
        looks += 1
        return walked(walk, at, on)

    monkeypatch.setattr(auction, "forbidden", counted)
    monkeypatch.setattr(_Walk, "_refuse", walking)
    for way in (clear_plainly, clear_large):
        seen = []
        for count in (500, 1_000, 2_000):
            looks = 0
            fills = way(*_hostile(count), 5)
            assert count / 2 < len(fills) <= 31 * 2 * count  # a fill uses up one of its orders, in each of 31 calls
            seen.append(looks)
        assert seen[0] > 500, "the book is hostile"
        assert seen[1] < 2.5 * seen[0]
        assert seen[2] < 2.5 * seen[1], seen


def test_i15_a_book_has_its_quota() -> None:
    """However many owners there are, a book takes so many messages and no more, and says so."""
    kept = Kept(REGTEST.clock, most=5)
    told = 0
    for owner in range(1, 9):
        try:
            kept.admit(read(REGTEST, seal_order(key(owner), REGTEST, order(owner))), at(), asked=False)
        except Ignore as ignored:
            assert ignored.code == "book-full"  # noqa: PT017 - counted below
            told += 1
    assert (len(kept), told) == (5, 3)


def test_i05_fails_on_a_wrong_result() -> None:
    """The brute force has teeth: one unit less, or one millisatoshi off, and it speaks."""
    buys, sells = [entry(Side.BUY, 6, 2, 1), entry(Side.BUY, 4, 1, 2)], [entry(Side.SELL, 1, 2, 3)]
    fills = clear(buys, sells, 0)
    check_one_price(buys, sells, fills)
    assert volume_at(5, buys, sells) == 2
    with pytest.raises(AssertionError):
        check_one_price(buys, sells, [fills[0]._replace(quantity=1)])
    with pytest.raises(AssertionError):
        check_one_price(buys, sells, [fills[0]._replace(price_msat=fills[0].price_msat + 1)])
