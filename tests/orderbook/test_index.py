"""The growing set, its pictures, and the view that is carried along: each against the plain computation over everything."""

import random
from contextlib import suppress
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from orderbook.core.book import Book
from orderbook.core.index import Index
from orderbook.core.messages import CLOSES, PROOFS, Heard, Side, lane_of
from orderbook.core.negentropy import BLOCK_ITEMS, Block, Item, Vector
from orderbook.core.view import eligible_of, root_of
from tests.orderbook.test_book import closing, heard
from tests.orderbook.test_negentropy import name
from tests.orderbook.world import EPOCH, at
from wire.digest import plain
from wire.errors import Ignore
from wire.moments import Instant
from wire.network import REGTEST


def item(number: int, epochs: int = 7) -> Item:
    return (number % epochs, name(number))


def same(index: Index, items: set[Item]) -> None:
    """The index says of ``items`` what a set made at once from them says."""
    picture, whole = index.vector(), Vector(items)
    assert len(index) == len(picture) == len(items)
    assert picture.items == sorted(items) == list(picture)
    dice = random.Random(len(items))
    for _ in range(12):
        lower, upper = sorted((dice.randint(0, len(items)), dice.randint(0, len(items))))
        assert picture.fingerprint(lower, upper) == whole.fingerprint(lower, upper)
        assert picture.names(lower, upper) == [one for _, one in sorted(items)[lower:upper]]
    for bound in ((0, b""), (3, b""), (3, b"\x80"), (3, name(3)), (1 << 64, b"")):
        expected = sum(one < bound for one in items)
        assert picture.find(bound, 0) == expected
        assert picture.find(bound, len(items)) == len(items)


@given(st.lists(st.tuples(st.sampled_from("aaaaarf"), st.integers(0, 400)), max_size=300))
@settings(max_examples=40, deadline=None)
def test_an_index_is_the_set_of_what_was_put_in(steps: list[tuple[str, int]]) -> None:
    index, items = Index(), set[Item]()
    for step, number in steps:
        if step == "a":
            index.add(item(number))
            items.add(item(number))
        elif step == "r":
            index.remove(item(number))
            items.discard(item(number))
        else:
            index.forget_before(number % 4)
            items = {one for one in items if one[0] >= number % 4}
    same(index, items)


def test_a_large_index_splits_its_blocks_and_stays_itself() -> None:
    index, items = Index(item(number) for number in range(1_000)), {item(number) for number in range(1_000)}
    for number in range(1_000, 3_000):
        index.add(item(number))
        items.add(item(number))
    same(index, items)
    assert all(0 < len(one.items) < 2 * BLOCK_ITEMS for one in index._blocks)
    assert len(index._blocks) < 3_000 // (BLOCK_ITEMS // 2)
    for number in range(0, 3_000, 3):
        index.remove(item(number))
        items.discard(item(number))
    index.remove(item(0))
    same(index, items)
    for epoch in (0, 2, 3, 9):
        index.forget_before(epoch)
        items = {one for one in items if one[0] >= epoch}
        same(index, items)
    assert len(index) == 0
    index.remove(item(1))
    index.forget_before(5)
    same(index, set())


def test_a_picture_stays_as_it_was() -> None:
    index = Index(item(number) for number in range(500))
    before = index.vector()
    assert index.vector() is before
    print_before = before.fingerprint(0, 500)
    for number in range(500, 900):
        index.add(item(number))
    index.forget_before(3)
    assert len(before) == 500
    assert before.items == sorted(item(number) for number in range(500))
    assert before.fingerprint(0, 500) == print_before
    assert index.vector() is not before


def test_a_block_sums_what_stands_before() -> None:
    block = Block([(0, (1).to_bytes(32, "little")), (0, (5).to_bytes(32, "little"))])
    assert (block.total, [block.sum_before(place) for place in range(3)]) == (6, [0, 1, 6])
    assert Block([], total=7).total == 7


def test_between_is_the_shortest_bound() -> None:
    low, high = bytes([7, 1]) + bytes(30), bytes([7, 2]) + bytes(30)
    vector = Vector([(1, high), (2, low), (2, high)])
    assert vector.between(1) == (2, b"")
    assert vector.between(2) == (2, b"\x07\x02")
    assert [vector[place] for place in range(3)] == vector.items


# --- views -------------------------------------------------------------------------------------------------

shapes = st.lists(
    st.tuples(
        st.integers(1, 2),  # owner
        st.integers(0, 1),  # slot
        st.integers(0, 4),  # sequence
        st.integers(-4, 3),  # first epoch
        st.integers(0, 6),  # life
        st.integers(-1, 4),  # closed in this epoch, if at least 0
        st.integers(0, 9),  # arrives in this half epoch
    ),
    max_size=10,
)


def messages_of(shape: tuple[int, ...]) -> list[Heard]:
    owner, slot, sequence, first, life, closed, _ = shape
    one = heard(owner, slot=slot, sequence=sequence, first_epoch=EPOCH + first, last_epoch=EPOCH + first + life)
    return [one] if closed < 0 else [closing(one, EPOCH + closed, owner), one]


@given(shapes, st.lists(st.integers(0, 3), min_size=10, max_size=10))
@settings(max_examples=60, deadline=None)
def test_a_view_carried_along_says_what_everything_says(shape: list[tuple[int, ...]], asks: list[int]) -> None:
    """Messages arrive before and after freezes while the book is asked now and then; each answer is the plain one."""
    book = Book(REGTEST.clock)
    arrivals = sorted(((one[-1], number) for number, one in enumerate(shape)))
    for half in range(10):
        moment = Instant(REGTEST.clock.start(EPOCH + half // 2) + (half % 2) * 1_000_000)
        for due, number in arrivals:
            if due == half:
                for message in messages_of(shape[number]):
                    with suppress(Ignore):  # doubled, or too early
                        book.admit(message, moment, asked=True)
        if asks[half]:
            epoch = EPOCH + half // 2 + asks[half] - 2
            assert book.root(epoch) == root_of(book._kept.values(), epoch)
            assert book.eligible(epoch) == eligible_of(book._slots, book._closes, epoch, late=False)
            assert book.eligible(epoch, late=True) == eligible_of(book._slots, book._closes, epoch, late=True)


def test_a_view_follows_what_is_forgotten_and_what_comes_back() -> None:
    book = Book(REGTEST.clock)
    old = heard(1, first_epoch=EPOCH - 58, last_epoch=EPOCH - 58, sequence=9)
    live = heard(1, first_epoch=EPOCH - 2, last_epoch=EPOCH + 40, sequence=3)
    early_close = closing(live, EPOCH - 57)
    for one in (old, live, early_close):
        book.admit(one, at(EPOCH), asked=True)

    def plainly(epoch: int) -> Any:
        return root_of(book._kept.values(), epoch), eligible_of(book._slots, book._closes, epoch, late=False)

    for epoch in range(EPOCH, EPOCH + 8):
        book.forget(epoch)
        assert (book.root(epoch), book.eligible(epoch)) == plainly(epoch)
    assert len(book) == 1
    assert [one.id for one in book.eligible(EPOCH + 8)[0]] == [live.id]  # the close named too early an epoch, and went first
    assert book.vector().items == [(EPOCH - 2, live.id)]
    book.forget(EPOCH + 59)
    assert len(book) == 0
    book.admit(live, at(EPOCH + 20), asked=True)
    assert (book.root(EPOCH + 60), book.eligible(EPOCH + 60)) == plainly(EPOCH + 60)
    assert book.eligible(EPOCH + 30) == plainly(EPOCH + 30)[1]  # behind the view: computed plainly


def test_nothing_is_computed_again_while_nothing_changes() -> None:
    book = Book(REGTEST.clock)
    book.admit(heard(1, last_epoch=EPOCH + 30), at(), asked=False)
    first = book.eligible(EPOCH + 1)
    assert book.eligible(EPOCH + 2) is first
    assert book.root(EPOCH + 2) is book.root(EPOCH + 9)
    view = book._view
    book.forget(EPOCH + 11)
    assert book._view is view
    book.forget(EPOCH + 12)
    assert book._view is None  # nobody has asked for three epochs
    assert book.eligible(EPOCH + 12) == first
    again = book.eligible(EPOCH + 12)
    book.admit(heard(1, sequence=1, last_epoch=EPOCH + 12), at(EPOCH + 12), asked=True)  # superseded before it came
    assert book.eligible(EPOCH + 13) is again
    assert book.vector() is book.vector()


def test_a_view_forgets_who_was_pushed_out_before_he_counted() -> None:
    book = Book(REGTEST.clock)
    assert book.root(EPOCH) == root_of((), EPOCH)
    many = [heard(1, sequence=sequence, first_epoch=EPOCH + 2) for sequence in range(12)]
    for one in many:
        book.admit(one, at(), asked=False)
    assert book.root(EPOCH + 2) == plain(b"".join(sorted(one.id for one in many[4:])))
    assert [one.id for one in book.eligible(EPOCH + 2)[0]] == [many[-1].id]


def test_a_view_forgets_who_was_pushed_out_by_what_came_too_late() -> None:
    book = Book(REGTEST.clock)
    many = [heard(1, sequence=sequence) for sequence in range(16)]
    for one in many[:8]:
        book.admit(one, at(EPOCH + 1), asked=False)
    assert [one.id for one in book.eligible(EPOCH + 1)[0]] == [many[7].id]
    late = Instant(REGTEST.clock.freeze(EPOCH + 1) + 1)
    book.admit(many[8], late, asked=False)
    assert [one.id for one in book.eligible(EPOCH + 1)[0]] == [many[7].id]
    for one in many[9:]:
        book.admit(one, late, asked=False)
    assert book.eligible(EPOCH + 1) == ((), ())
    assert [one.id for one in book.eligible(EPOCH + 2)[0]] == [many[15].id]


def test_a_view_sees_in_time_what_counts_in_one_slot() -> None:
    """The newer came after the freeze: in this epoch the older stands, also when the slot is looked at for its sake."""
    book, older, newer = Book(REGTEST.clock), heard(1, sequence=1), heard(1, sequence=2)
    assert book.eligible(EPOCH) == ((), ())
    book.admit(older, at(), asked=False)
    book.admit(newer, Instant(REGTEST.clock.freeze(EPOCH + 1) + 1), asked=False)
    for epoch, standing in ((EPOCH + 1, older), (EPOCH + 2, newer)):
        assert [one.id for one in book.eligible(epoch)[0]] == [standing.id]


def test_both_sides_are_told_apart_however_it_is_computed() -> None:
    book, buy, sell = Book(REGTEST.clock), heard(1), heard(2, side=Side.SELL)
    for one in (buy, sell):
        book.admit(one, at(), asked=False)
    for late in (True, False):
        buys, sells = book.eligible(EPOCH + 1, late=late)
        assert ([one.id for one in buys], [one.id for one in sells]) == ([buy.id], [sell.id])


def test_lanes_are_apart() -> None:
    assert (CLOSES, PROOFS) == (16, 17)
    orders = {lane_of(heard(1, slot=slot, side=side).body) for slot in range(8) for side in (Side.BUY, Side.SELL)}
    assert {(lane[:-1], lane[-1]) for lane in orders} == {(heard(1).lane[:-1], number) for number in range(16)}


def test_nothing_is_left_of_what_is_forgotten() -> None:
    book = Book(REGTEST.clock)
    one = heard(1)
    for message in (one, closing(one, EPOCH + 1), closing(one, EPOCH + 2)):
        book.admit(message, at(), asked=False)
    book.forget(EPOCH + 62)
    assert len(book) == 1
    assert list(book._closes) == [one.id]
    book.forget(EPOCH + 63)
    assert (book._kept, book._slots, book._closes, book._by_key) == ({}, {}, {}, {})


def test_nothing_is_left_in_a_view_of_what_is_forgotten() -> None:
    book = Book(REGTEST.clock)
    one = heard(1, last_epoch=EPOCH + 3)
    for message in (one, closing(one, EPOCH + 2)):
        book.admit(message, at(), asked=False)
    for epoch in range(EPOCH, EPOCH + 64):
        book.forget(epoch)
        assert bool(book.eligible(epoch)[0]) == (epoch == EPOCH + 1)
        book.root(epoch)
    view = book._view
    assert view is not None
    assert (view._standing, view._touched, view._ending, view._coming, view._gone) == ({}, set(), {}, {}, set())
    assert (view._names, view.root(EPOCH + 64)) == ([], plain(b""))


def test_a_standing_order_is_looked_at_again_when_it_ends() -> None:
    book = Book(REGTEST.clock)
    one = heard(1, last_epoch=EPOCH + 3)
    book.admit(one, at(), asked=False)
    for epoch in range(EPOCH + 1, EPOCH + 4):
        assert [entry.id for entry in book.eligible(epoch)[0]] == [one.id]
        assert _ending(book) == {EPOCH + 4: {one.lane}}
    assert book.eligible(EPOCH + 4) == ((), ())
    assert _ending(book) == {}


def _ending(book: Book) -> object:
    assert book._view is not None
    return book._view._ending


def test_blocks_split_when_they_have_twice_their_size() -> None:
    assert BLOCK_ITEMS == 128
    index = Index((0, number.to_bytes(32, "big")) for number in range(128))
    for number in range(128, 255):
        index.add((0, number.to_bytes(32, "big")))
    assert len(index) == 255
    assert [len(one.items) for one in index._blocks] == [255]
    index.add((0, (255).to_bytes(32, "big")))
    assert len(index) == 256
    assert [len(one.items) for one in index._blocks] == [128, 128]
