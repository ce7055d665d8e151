"""What counts in an epoch: the freeze, supersession, closes, retention, roots, and bounds."""

import random
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orderbook.core.auction import clear
from orderbook.core.book import Book
from orderbook.core.evidence import proof_of
from orderbook.core.messages import (
    Close,
    Heard,
    Side,
    account_hash_of,
    read,
    seal_close,
    seal_order,
    seal_proof,
    sign_match,
)
from tests.orderbook.test_messages import match, order
from tests.orderbook.world import BOOK, EPOCH, at, key
from wire.digest import plain
from wire.errors import Ignore
from wire.limits import OWNER_CLOSES_MAX, OWNER_ORDERS_MAX, OWNER_PROOFS_MAX
from wire.network import REGTEST

CLOCK = REGTEST.clock


def heard(owner: int = 1, **more: Any) -> Heard:
    return read(REGTEST, seal_order(key(owner), REGTEST, order(owner, **more)))


def closing(target: Heard, epoch: int, owner: int = 1) -> Heard:
    close = Close(network="regtest", book=BOOK, order=target.id, epoch=epoch, owner=key(owner).public)
    return read(REGTEST, seal_close(key(owner), REGTEST, close))


def ids(book: Book, epoch: int, *, late: bool = False) -> set[bytes]:
    buys, sells = book.eligible(epoch, late=late)
    return {one.id for one in (*buys, *sells)}


def why(book: Book, message: Heard, now: int, *, asked: bool = False) -> str:
    with pytest.raises(Ignore) as caught:
        book.admit(message, now, asked=asked)  # type: ignore[arg-type]
    return caught.value.code


def test_eligible_from_first_to_last() -> None:
    book, one = Book(CLOCK), heard()
    book.admit(one, at(), asked=False)
    assert [epoch for epoch in range(EPOCH - 1, EPOCH + 9) if ids(book, epoch)] == list(range(EPOCH + 1, EPOCH + 6))


def test_what_comes_after_the_freeze_counts_from_the_next_epoch() -> None:
    in_time, late = heard(1), heard(2)
    book = Book(CLOCK)
    freeze = CLOCK.freeze(EPOCH + 1)
    book.admit(in_time, freeze, asked=False)
    book.admit(late, freeze + 1, asked=False)  # type: ignore[arg-type]
    assert ids(book, EPOCH + 1) == {in_time.id}
    assert ids(book, EPOCH + 1, late=True) == {in_time.id, late.id}
    assert ids(book, EPOCH + 2) == {in_time.id, late.id}
    assert book.root(EPOCH + 1) == plain(in_time.id)
    assert book.root(EPOCH + 2) == plain(b"".join(sorted([in_time.id, late.id])))


def test_admission_window() -> None:
    book = Book(CLOCK)
    assert why(book, heard(first_epoch=EPOCH + 3, last_epoch=EPOCH + 4), at()) == "early"
    book.admit(heard(first_epoch=EPOCH + 2), at(), asked=False)
    assert why(book, heard(first_epoch=EPOCH - 5, last_epoch=EPOCH - 1), at()) == "expired"
    book.admit(heard(first_epoch=EPOCH - 5, last_epoch=EPOCH), at(), asked=False)
    old = heard(first_epoch=EPOCH - 60, last_epoch=EPOCH - 50)
    assert why(book, old, at()) == "expired"
    book.admit(old, at(), asked=True)  # history that we asked for
    assert why(book, heard(first_epoch=EPOCH - 61, last_epoch=EPOCH - 50), at(), asked=True) == "expired"
    assert why(book, old, at(), asked=True) == "duplicate"
    assert why(book, closing(old, EPOCH + 3), at()) == "early"


def test_the_greatest_sequence_supersedes_within_its_slot() -> None:
    book = Book(CLOCK)
    older, newer = heard(sequence=4, quantity=1), heard(sequence=5, quantity=2, first_epoch=EPOCH + 2, last_epoch=EPOCH + 3)
    elsewhere = [heard(slot=1), heard(side=Side.SELL), heard(2)]
    for one in (newer, older, *elsewhere):
        book.admit(one, at(), asked=False)
    others = {one.id for one in elsewhere}
    assert ids(book, EPOCH + 1) == {older.id} | others  # the newer does not count yet
    assert ids(book, EPOCH + 2) == {newer.id} | others
    assert ids(book, EPOCH + 4) == others  # expired, and the older does not come back
    equal = heard(sequence=5, quantity=3, first_epoch=EPOCH + 2, last_epoch=EPOCH + 3)
    book.admit(equal, at(), asked=False)
    assert ids(book, EPOCH + 2) == {max(newer.id, equal.id)} | others


def test_a_close_takes_its_owners_order_only() -> None:
    book, one, two = Book(CLOCK), heard(1), heard(2)
    for message in (closing(one, EPOCH + 2), one, two, closing(two, EPOCH + 2, owner=3)):
        book.admit(message, at(), asked=False)
    assert ids(book, EPOCH + 1) == {one.id, two.id}
    assert ids(book, EPOCH + 2) == {two.id}


def test_a_closed_order_keeps_its_slot() -> None:
    book, older, newer = Book(CLOCK), heard(sequence=1), heard(sequence=2)
    for message in (older, newer, closing(newer, EPOCH + 1)):
        book.admit(message, at(), asked=False)
    assert not ids(book, EPOCH + 1)


def test_forgotten_at_key_epoch_plus_sixty() -> None:
    book, one = Book(CLOCK), heard(last_epoch=EPOCH + 60)
    close = closing(one, EPOCH + 1)
    book.admit(one, at(), asked=False)
    book.admit(close, at(), asked=False)
    assert book.forget(EPOCH + 61) == ()
    assert book.root(EPOCH + 61) == plain(b"".join(sorted((one.id, close.id))))
    assert set(book.forget(EPOCH + 62)) == {one.raw, close.raw}
    assert len(book) == 0
    assert book.root(EPOCH + 62) == plain(b"")
    assert book.vector().items == []
    book.admit(one, at(EPOCH + 60), asked=False)
    assert len(book) == 1
    assert [book.root(EPOCH + 62) for _ in range(2)] == [plain(one.id)] * 2


def test_a_full_book_says_so() -> None:
    book = Book(CLOCK, most=2)
    for owner in (1, 2):
        book.admit(heard(owner), at(), asked=False)
    assert why(book, heard(3), at()) == "book-full"


@given(
    st.lists(
        st.tuples(st.integers(1, 2), st.integers(0, 1), st.integers(0, 4), st.integers(-3, 2), st.integers(0, 6)), max_size=12
    ),
    st.randoms(),
)
@settings(max_examples=60, deadline=None)
def test_arrival_order_changes_nothing(shapes: list[tuple[int, int, int, int, int]], dice: random.Random) -> None:
    """I1, I13: eligible orders and roots are functions of the set, however it came and however often."""
    messages = []
    for owner, slot, sequence, first, life in shapes:
        one = heard(owner, slot=slot, sequence=sequence, first_epoch=EPOCH + first, last_epoch=EPOCH + first + life)
        messages.append(one)
        if sequence == 3:
            messages.append(closing(one, EPOCH + 1, owner))

    def after(arrivals: list[Heard]) -> list[tuple[set[bytes], bytes]]:
        book = Book(CLOCK)
        for one in arrivals:
            try:
                book.admit(one, at(), asked=True)
            except Ignore as error:
                if error.code != "duplicate":
                    raise
        return [(ids(book, epoch), book.root(epoch)) for epoch in range(EPOCH, EPOCH + 9)]

    first_view = after(messages)
    again = [*messages, *messages]
    dice.shuffle(again)
    assert after(again) == first_view


# --- bounds ------------------------------------------------------------------------------------------------


def kept(book: Book) -> set[bytes]:
    return {name for _, name in book.vector().items}


def test_an_owner_keeps_so_many_orders_of_a_slot_and_epoch_the_greatest_ones() -> None:
    assert OWNER_ORDERS_MAX == 8
    book = Book(CLOCK)
    many = [heard(1, sequence=sequence) for sequence in range(OWNER_ORDERS_MAX + 3)]
    elsewhere = [
        heard(1, slot=1),
        heard(1, side=Side.SELL),
        heard(2),
        heard(1, first_epoch=EPOCH + 2),
        closing(many[0], EPOCH + 1),
    ]
    for one in elsewhere:
        assert book.admit(one, at(), asked=False) is None
    for one in many[1:-2]:
        assert book.admit(one, at(), asked=False) is None
    assert len(book) == OWNER_ORDERS_MAX + 5
    assert why(book, many[0], at()) == "outranked"
    assert why(book, many[0], at(), asked=True) == "outranked"
    assert book.admit(many[-1], at(), asked=False) == many[1].raw
    assert book.admit(many[-2], at(), asked=False) == many[2].raw
    assert kept(book) == {one.id for one in (*many[3:], *elsewhere)}
    assert ids(book, EPOCH + 1) == {many[-1].id, elsewhere[0].id, elsewhere[1].id, elsewhere[2].id}
    book.forget(EPOCH + 62)
    assert kept(book) == {elsewhere[3].id}


def test_closes_and_proofs_have_bounds_of_their_own() -> None:
    assert (OWNER_CLOSES_MAX, OWNER_PROOFS_MAX) == (128, 8)
    book = Book(CLOCK)
    closes = sorted(
        (read(REGTEST, seal_close(key(1), REGTEST, replace(CLOSE, order=bytes([number]) * 32))) for number in range(130)),
        key=lambda one: one.id,
    )
    for one in closes[2:]:
        book.admit(one, at(), asked=False)
    book.admit(closing(heard(2), EPOCH + 1, owner=2), at(), asked=False)
    assert why(book, closes[0], at()) == "outranked"
    assert len(book) == OWNER_CLOSES_MAX + 1
    proofs = sorted((a_proof(number) for number in range(10)), key=lambda one: one.id)
    for one in proofs[:8]:
        book.admit(one, at(), asked=False)
    assert book.admit(proofs[9], at(), asked=False) == proofs[0].raw
    assert why(book, proofs[0], at()) == "outranked"


CLOSE = Close(network="regtest", book=BOOK, order=bytes(32), epoch=EPOCH + 1, owner=key(1).public)


def a_proof(number: int) -> Heard:
    cheat = key(9)
    signed = [(one, sign_match(cheat, one, Side.SELL)) for one in (match(), match(buy=bytes([number]) * 32, sell_from=1))]
    return read(REGTEST, seal_proof(REGTEST, proof_of(cheat.public, Side.SELL, *signed)))


def test_what_an_owner_keeps_is_a_function_of_the_set() -> None:
    """However his flood arrives, all books keep the same of it: bounds by rank do not make roots differ."""
    dice = random.Random(4)
    many = [heard(1, sequence=dice.randrange(12), quantity=1 + number) for number in range(30)]
    ends = set()
    for _ in range(5):
        dice.shuffle(many)
        book = Book(CLOCK)
        for one in (*many, *many[::-1]):
            with suppress(Ignore):
                book.admit(one, at(), asked=True)
        ends.add((book.root(EPOCH + 1), frozenset(kept(book)), frozenset(ids(book, EPOCH + 1))))
    assert len(ends) == 1


def test_a_full_book_still_takes_what_replaces() -> None:
    book = Book(CLOCK, most=OWNER_ORDERS_MAX)
    for sequence in range(OWNER_ORDERS_MAX):
        book.admit(heard(1, sequence=sequence), at(), asked=False)
    assert why(book, heard(2), at()) == "book-full"
    book.admit(heard(1, sequence=99), at(), asked=False)
    assert len(book) == OWNER_ORDERS_MAX


def test_changes_count_what_came() -> None:
    book = Book(CLOCK)
    one = heard()
    book.admit(one, at(), asked=False)
    assert book.changes == 1
    assert why(book, one, at()) == "duplicate"
    assert book.changes == 1
    book.forget(EPOCH + 99)
    assert book.changes == 1
    assert list(book.raws()) == []
    assert book.raw(one.id) is None


def test_free_books_trade_at_nothing_and_only_there() -> None:
    """A free book is a book of its own: all its prices are 0, and the auction gives that price."""
    book = Book(CLOCK)
    buy, sell = heard(1, price_msat=0), heard(2, price_msat=0, side=Side.SELL)
    for one in (buy, sell):
        book.admit(one, at(), asked=False)
    (fill,) = clear(*book.eligible(EPOCH + 1), 7)
    assert (fill.buy.id, fill.sell.id, fill.price_msat, fill.quantity) == (buy.id, sell.id, 0, 24)


def test_avoid_lists_reach_the_auction_from_either_side() -> None:
    shunned = (account_hash_of(key(2).public),)
    for avoiding in (1, 2):
        book = Book(CLOCK)
        mine = (account_hash_of(key(1).public),)
        book.admit(heard(1, avoid=shunned if avoiding == 1 else ()), at(), asked=False)
        book.admit(heard(2, side=Side.SELL, avoid=mine if avoiding == 2 else ()), at(), asked=False)
        assert clear(*book.eligible(EPOCH + 1), 7) == ()


# --- a view that is carried along ---------------------------------------------------------------------------


def test_an_epoch_that_lies_behind_is_answered_as_before() -> None:
    """Whatever has been asked of later epochs meanwhile, by eligible orders or by root."""
    one, two = heard(1), heard(2, first_epoch=EPOCH + 2, last_epoch=EPOCH + 4)
    for later in ("eligible", "root"):
        book = Book(CLOCK)
        book.admit(one, at(), asked=False)
        book.admit(two, at(), asked=False)
        for epoch, standing in ((EPOCH + 1, {one.id}), (EPOCH + 3, {one.id, two.id}), (EPOCH + 1, {one.id}), (EPOCH + 9, set())):
            if later == "eligible":
                assert ids(book, epoch) == standing
            else:
                assert book.root(epoch) == plain(b"".join(sorted({one.id, two.id} if epoch > EPOCH + 1 else {one.id})))
