"""The reconciler by itself: with whom a book is compared and when, among books and neighbours that are the test's own."""

import pytest

from orderbook.core.book import Book
from orderbook.core.craft import Craft
from orderbook.core.events import MarketEffect, Meet, SendFrame
from orderbook.core.frames import FRAMES, Answer, Ask, Pull
from orderbook.core.negentropy import Initiator, Vector
from orderbook.core.neighbour import Compared, Neighbour
from orderbook.core.reconciler import Reconciler
from tests.orderbook.test_book import heard
from tests.orderbook.test_invariants_reconcile import listing
from tests.orderbook.test_market import ME, codes
from tests.orderbook.test_negentropy import name
from tests.orderbook.world import BOOK, EPOCH, at, key
from wire.digest import context, digest
from wire.errors import Ignore, Misbehaved
from wire.keys import PeerId
from wire.limits import RECONCILE_SESSIONS_MAX, RECONCILE_WARM_NEIGHBOURS, RELAY_CHECKS_MAX
from wire.moments import Instant
from wire.network import REGTEST

LOT = context("regtest", "turn")
INTERVAL_US = 4_000_000
OTHER_BOOK = b"O" * 32
STRANGER = key(299).peer_id
EQUAL = b"\x61"


def drawn(book: bytes, count: int) -> int:
    """The lot of one turn, as the specification says it."""
    return int.from_bytes(digest(LOT, ME.peer_id, book, count.to_bytes(8, "little"))[:8], "little")


class Room:
    """A reconciler, ``peers`` neighbours who follow ``BOOK``, and a copy of ``BOOK`` in which there is nothing."""

    def __init__(self, peers: int = 1, *, follow: bool = True) -> None:
        self.now, self.checking = at(), 0
        self.books = {BOOK: Book(REGTEST.clock)}
        self.neighbours: dict[PeerId, Neighbour] = {}
        self.reconciler = Reconciler(REGTEST, ME.peer_id, self.books, self.neighbours, Craft(), lambda: self.checking)
        for number in range(peers):
            self.add(key(200 + number).peer_id, *((BOOK,) if follow else ()))

    def add(self, peer: PeerId, *books: bytes) -> Neighbour:
        one = self.neighbours[peer] = Neighbour(peer, self.now)
        one.books = frozenset(books)
        return one

    @property
    def first(self) -> Neighbour:
        return next(iter(self.neighbours.values()))

    def due(self, after_us: int = 0) -> list[MarketEffect]:
        self.now = Instant(self.now + after_us)
        return self.reconciler.due(self.now)

    def asks(self, after_us: int = 0) -> list[tuple[PeerId, Ask]]:
        return asks_in(self.due(after_us))

    def begun(self, neighbour: Neighbour, book: bytes = BOOK) -> Ask:
        self.reconciler.plan(neighbour, book, self.now)
        ((_, ask),) = self.asks()
        return ask

    def say(self, neighbour: Neighbour, ask: Ask, message: bytes = EQUAL) -> list[MarketEffect]:
        answer = Answer(book=ask.book, session=ask.session, message=message)
        return self.reconciler.answered(neighbour, answer, self.now)[1]

    def over(self, neighbour: Neighbour, book: bytes = BOOK) -> list[int]:
        return self.reconciler.finished(neighbour, neighbour.sessions[book], self.now)

    def grow(self, number: int = 1) -> None:
        self.books[BOOK].admit(heard(number), at(), asked=False)


def asks_in(effects: list[MarketEffect]) -> list[tuple[PeerId, Ask]]:
    frames = [(one.peer, FRAMES.unpack(one.frame)) for one in effects if isinstance(one, SendFrame)]
    return [(peer, frame) for peer, frame in frames if isinstance(frame, Ask)]


# --- by lot ---------------------------------------------------------------------------------------------------------------------


def test_the_turns_of_a_book_are_drawn_as_the_specification_says() -> None:
    """The first within one interval, then one an interval; the count begins at 1, the lot of count 0 says when."""
    room = Room(5)
    for neighbour in room.neighbours.values():
        room.say(neighbour, room.begun(neighbour))
        room.over(neighbour)
    room.reconciler.follow(BOOK, room.now)
    for neighbour in room.neighbours.values():
        neighbour.planned.clear()  # the comparisons of those who meet are not what this is about
    begun, peers = room.now, sorted(room.neighbours)
    for count in range(1, 9):
        due = room.reconciler.next_due
        assert due is not None
        room.now = max(due, Instant(begun + 1))
        while not (asks := room.asks()):
            assert room.reconciler.next_due is not None
            room.now = room.reconciler.next_due
        assert room.now == begun + drawn(BOOK, 0) % INTERVAL_US + INTERVAL_US * (count - 1)
        ((peer, ask),) = asks
        assert peer == peers[drawn(BOOK, count) % 5]
        room.say(room.neighbours[peer], ask)
        room.over(room.neighbours[peer])


def test_a_turn_is_for_who_follows_the_book_and_is_not_being_compared_with() -> None:
    room = Room(2)
    busy, free = room.neighbours.values()
    room.begun(busy)
    busy.sessions[BOOK].deadline = Instant(at() + 99 * INTERVAL_US)
    room.add(STRANGER, OTHER_BOOK)
    room.reconciler.follow(BOOK, room.now)
    busy.planned.clear()
    ((_, ask),) = room.asks()
    for _ in range(6):
        room.say(free, ask)
        room.over(free)
        ((peer, ask),) = room.asks(INTERVAL_US)
        assert peer == free.peer
    assert busy.waiting == {}


def test_before_the_freeze_three_are_drawn_anew_each_time() -> None:
    assert RECONCILE_WARM_NEIGHBOURS == 3
    room = Room(6)
    room.grow()
    seen = set()
    for second in range(12):
        room.now = Instant(at() + 1_000_000 * second)
        room.reconciler.warm(room.now)
        lots = {peer: digest(LOT, peer, ME.peer_id, BOOK, room.now.to_bytes(8, "little")) for peer in room.neighbours}
        chosen = {peer for peer, one in room.neighbours.items() if one.planned.pop(BOOK, None) is not None}
        assert chosen == set(sorted(lots, key=lots.__getitem__)[:3])
        seen |= chosen
    assert seen == set(room.neighbours)


# --- plans ----------------------------------------------------------------------------------------------------------------------


def test_a_plan_is_kept_or_becomes_earlier() -> None:
    room = Room()
    for us, planned in ((50, 50), (70, 50), (30, 30), (30, 30), (40, 30)):
        room.reconciler.plan(room.first, BOOK, Instant(at() + us))
        assert room.first.planned == {BOOK: at() + planned}
        assert room.reconciler.next_due == at() + planned
    assert room.asks(29) == []
    assert len(room.asks(1)) == 1
    assert room.asks(100) == []  # the later plans for the same are void


def test_what_is_due_first_is_what_is_waited_for() -> None:
    room = Room(2)
    assert room.reconciler.next_due is None
    one, two = room.neighbours.values()
    room.reconciler.plan(one, BOOK, Instant(at() + 9))
    room.reconciler.plan(two, BOOK, Instant(at() + 5))
    assert room.reconciler.next_due == at() + 5
    assert [peer for peer, _ in room.asks(5)] == [two.peer]
    assert room.reconciler.next_due == at() + 9
    two.sessions.clear()
    room.asks(4)
    assert room.reconciler.next_due == at() + 5 + 3_000_000  # his patience


def test_only_who_follows_a_book_is_compared_with() -> None:
    room = Room(1)
    other = room.add(STRANGER, OTHER_BOOK)
    room.reconciler.follow(BOOK, room.now)
    assert room.first.planned == {BOOK: room.now}
    room.reconciler.hasten(other, BOOK, room.now)
    assert room.reconciler.compare(other.peer, BOOK, EPOCH, room.now) == []
    assert other.planned == {}
    other.planned[BOOK] = room.now
    room.reconciler._plan_at(room.now, 1, other.peer, BOOK)
    assert [peer for peer, _ in room.asks()] == [room.first.peer]
    assert (other.sessions, other.waiting) == ({}, {})


def test_haste_is_no_haste_right_after_the_last_time() -> None:
    room = Room()
    for last_us, planned in ((None, 0), (-600_000, 0), (-500_000, 0), (-499_999, 1), (0, 500_000)):
        room.first.planned.clear()
        if last_us is not None:
            room.first.compared[BOOK] = Compared(Instant(at() + last_us), 0)
        room.reconciler.hasten(room.first, BOOK, at())
        assert room.first.planned == {BOOK: at() + planned}


def test_a_book_that_is_left_takes_no_more_turns() -> None:
    room = Room(1)
    room.reconciler.follow(BOOK, room.now)
    room.reconciler.leave(BOOK)
    del room.books[BOOK]
    room.due(INTERVAL_US)
    assert room.reconciler.next_due is None
    assert (room.first.planned, room.first.sessions) == ({}, {})


# --- to be cleared again --------------------------------------------------------------------------------------------------------


def test_an_epoch_is_cleared_again_after_the_comparison_that_is_on() -> None:
    room = Room()
    ask = room.begun(room.first)
    assert room.reconciler.compare(room.first.peer, BOOK, EPOCH + 1, room.now) == []
    assert room.reconciler.compare(room.first.peer, BOOK, EPOCH, room.now) == []
    assert room.first.planned == {}
    room.say(room.first, ask)
    assert room.over(room.first) == [EPOCH, EPOCH + 1]
    ask = room.begun(room.first)
    room.say(room.first, ask)
    assert room.over(room.first) == []


def test_an_epoch_is_cleared_again_after_the_comparison_that_it_begins() -> None:
    room = Room()
    assert room.reconciler.compare(room.first.peer, BOOK, EPOCH, room.now) == []
    ((_, ask),) = room.asks()
    room.say(room.first, ask)
    assert room.over(room.first) == [EPOCH]


def test_who_is_no_neighbour_is_met_first_and_what_is_past_is_forgotten() -> None:
    room = Room(0)
    peers = [key(200 + number).peer_id for number in range(3)]
    for peer, epoch in zip(peers, (EPOCH, EPOCH + 1, EPOCH + 1), strict=True):
        assert room.reconciler.compare(peer, BOOK, epoch, room.now) == [Meet(peer=peer)]
    assert room.reconciler.compare(peers[0], OTHER_BOOK, EPOCH, room.now) == []
    for peer, epochs in zip(peers, ([], [EPOCH + 1], [EPOCH + 1]), strict=True):
        ask = room.begun(room.add(peer, BOOK))
        room.say(room.neighbours[peer], ask)
        assert room.over(room.neighbours[peer]) == epochs


def test_what_was_cut_short_and_goes_on_still_clears_the_latest_epoch_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orderbook.core.negentropy.RECONCILE_ROUNDS_MAX", 1)
    room, new = Room(), heard(1)
    ask = room.begun(room.first)
    for epoch in (EPOCH + 1, EPOCH):
        room.reconciler.compare(room.first.peer, BOOK, epoch, room.now)
    room.say(room.first, ask, listing([new.id], b"\x02\x00") + b"\x00\x00\x01" + bytes(16))
    session = room.first.sessions[BOOK]
    session.came(new.id)
    assert room.reconciler.pulled(room.first, session, room.now) == []
    assert room.over(room.first) == []
    assert BOOK not in room.first.reconciled
    ((_, ask),) = room.asks()
    room.say(room.first, ask)
    assert room.over(room.first) == [EPOCH + 1]
    assert BOOK in room.first.reconciled


# --- sessions -------------------------------------------------------------------------------------------------------------------


def test_sessions_are_numbered_from_one_and_ever_on() -> None:
    room = Room()
    for number in range(1, 4):
        ask = room.begun(room.first)
        assert ask.session == number
        room.say(room.first, ask)
        room.over(room.first)
    room.reconciler._number = (1 << 32) - 1  # a number has 32 bits in a frame
    assert room.begun(room.first).session == 0


def test_a_frame_of_another_session_is_ignored() -> None:
    room = Room()
    ask = room.begun(room.first)
    for book, number in ((BOOK, ask.session + 1), (OTHER_BOOK, ask.session)):
        with pytest.raises(Ignore) as caught:
            room.reconciler.live(room.first, book, number)
        assert caught.value.code == "stale-answer"
    assert room.reconciler.live(room.first, BOOK, ask.session) is room.first.sessions[BOOK]
    raw = heard(1)
    room.say(room.first, ask, listing([raw.id]))
    with pytest.raises(Ignore) as caught:
        room.say(room.first, ask, EQUAL)  # answered, and now only the messages are awaited
    assert caught.value.code == "stale-answer"


def test_what_is_pulled_has_room_among_all_that_is_asked_and_checked() -> None:
    room = Room(2)
    one, two = room.neighbours.values()
    first, second = room.begun(one), room.begun(two)
    room.checking = RELAY_CHECKS_MAX - 5
    assert pulled(room.say(one, first, listing([name(number) for number in range(3)]))) == [3]
    assert pulled(room.say(two, second, listing([name(number) for number in range(10, 20)]))) == [2]
    room.checking -= 4
    assert pulled(room.reconciler.go_on(two, two.sessions[BOOK])) == [4]
    assert pulled(room.reconciler.go_on(two, two.sessions[BOOK])) == []


def pulled(effects: list[MarketEffect]) -> list[int]:
    frames = [FRAMES.unpack(one.frame) for one in effects if isinstance(one, SendFrame)]
    return [len(one.ids) for one in frames if isinstance(one, Pull)]


def test_who_shows_a_difference_is_compared_with_soon_and_who_shows_none_is_not() -> None:
    room = Room()
    equal = Ask(book=BOOK, session=9, message=Initiator(Vector([])).probe())
    (answer,) = room.reconciler.asked(room.first, equal, room.now)
    assert isinstance(answer, SendFrame)
    assert FRAMES.unpack(answer.frame) == Answer(book=BOOK, session=9, message=EQUAL)
    assert room.first.planned == {}
    other = Ask(book=BOOK, session=9, message=Initiator(Vector([(EPOCH, name(1))])).probe())
    room.reconciler.asked(room.first, other, room.now)
    assert room.first.planned == {BOOK: room.now}


def test_who_answers_is_mute_no_more() -> None:
    room, new = Room(), heard(1)
    ask = room.begun(room.first)
    room.first.mute = True
    room.say(room.first, ask, listing([new.id]))
    assert not room.first.mute
    room.first.mute = True
    session = room.first.sessions[BOOK]
    session.came(new.id)
    room.reconciler.pulled(room.first, session, room.now)
    assert not room.first.mute


def test_books_that_wait_are_planned_as_far_as_there_is_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orderbook.core.reconciler.RECONCILE_SESSIONS_MAX", 3)
    room, books = Room(0), [bytes([number]) * 32 for number in range(7)]
    room.books |= {book: Book(REGTEST.clock) for book in books}
    one = room.add(STRANGER, *books)
    for book in books:
        room.reconciler.plan(one, book, room.now)
    asks = room.asks()
    assert [ask.book for _, ask in asks] == books[:3]
    for number, (_, ask) in enumerate(asks):
        room.say(one, ask)
        room.over(one, ask.book)
        assert (list(one.planned), list(one.waiting)) == (books[3 + number : 4 + number], books[4 + number :])
        room.due()
        assert len(one.sessions) == 3


def test_where_pulling_begins_is_told_by_the_end_of_his_name() -> None:
    """So that what several neighbours have is seldom fetched from two of them."""
    room, names = Room(0), sorted(name(number) for number in range(10))
    for number in (0, 3, 9, 14, (1 << 32) - 1):
        one = room.add(PeerId(b"\x07" * 30 + number.to_bytes(4, "big")), BOOK)
        effects = room.say(one, room.begun(one), listing(names))
        (pull,) = [FRAMES.unpack(each.frame) for each in effects if isinstance(each, SendFrame)]
        turned = -number % 10
        assert pull.ids == (*names[turned:], *names[:turned])


def test_who_has_said_something_has_three_seconds_more() -> None:
    room = Room()
    ask = room.begun(room.first)
    room.now = Instant(room.now + 2_000_000)
    assert len(asks_in(room.say(room.first, ask, b"\x61\x00\x00\x01" + bytes(16)))) == 1
    assert codes(room.due(1_000_000)) == []
    assert room.reconciler.next_due == room.now + 2_000_000
    assert codes(room.due(1_999_999)) == []
    assert codes(room.due(1)) == ["reconcile-timeout"]
    assert room.first.sessions == {}


def test_who_does_not_answer_is_compared_with_in_one_book_at_a_time() -> None:
    room = Room(0)
    books = [bytes([number]) * 32 for number in range(RECONCILE_SESSIONS_MAX + 2)]
    room.books |= {book: Book(REGTEST.clock) for book in books}
    one = room.add(STRANGER, *books)
    for book in books:
        room.reconciler.plan(one, book, room.now)
    assert len(room.asks()) == len(one.sessions) == RECONCILE_SESSIONS_MAX
    assert list(one.waiting) == books[-2:]
    effects = room.due(3_000_000)
    assert codes(effects) == ["reconcile-timeout"] * RECONCILE_SESSIONS_MAX
    assert len(one.sessions) <= 1
    room.due()
    assert len(one.sessions) == 1
    (session,) = one.sessions.values()
    answer = Answer(book=session.book, session=session.number, message=EQUAL)
    room.reconciler.answered(one, answer, room.now)
    assert not one.mute
    room.reconciler.finished(one, session, room.now)
    room.due()
    assert one.waiting == {}
    assert len(one.sessions) == 1


def test_a_broken_answer_ends_the_session_and_frees_its_place() -> None:
    room = Room()
    ask = room.begun(room.first)
    with pytest.raises(Misbehaved):
        room.say(room.first, ask, b"\x60")
    assert room.first.sessions == {}
    assert room.reconciler.sessions(BOOK) == []
    assert room.first.planned == {BOOK: room.now + INTERVAL_US}  # a first comparison is tried again
