"""One session by itself, and what a node keeps of sessions when neighbours and books come and go."""

from typing import Any

import pytest

from orderbook.core.book import Book
from orderbook.core.events import Compare, Follow, NeighbourDown, Publish, Tick, Unfollow
from orderbook.core.frames import FRAMES, Answer, Ask, Batch, Hello, Pull, Pulled
from orderbook.core.messages import read
from orderbook.core.negentropy import Initiator, Vector
from orderbook.core.neighbour import Neighbour, batches, parcel
from orderbook.core.session import Session, Stage
from tests.orderbook.test_book import heard
from tests.orderbook.test_invariants_reconcile import ask_of, listing
from tests.orderbook.test_market import OTHER, PEER, Alone, codes, raw_order, sent
from tests.orderbook.test_negentropy import name
from tests.orderbook.world import BOOK, EPOCH, at
from wire.errors import Misbehaved
from wire.limits import BATCH_MAX_BYTES, BATCH_MAX_ORDERS, RECONCILE_WINDOW_IDS
from wire.moments import Instant
from wire.network import REGTEST

GO_ON = b"\x61\x00\x00\x01" + bytes(16)
LATER = Instant(at() + 1_000_000)


def session_of(names: list[bytes], *, more: bool = False, spin: int = 0) -> Session:
    """A session that has just been told of ``names``."""
    one = Session(BOOK, 7, Initiator(Vector([])), at(), spin)
    one.open(probe=False)
    end = b"\x02\x00" if more else b"\x00\x00"
    one.answered(listing(names, end) + (GO_ON[1:] if more else b""), LATER)
    return one


def kinds(frames: list[bytes]) -> list[Any]:
    return [FRAMES.unpack(one) for one in frames]


def nothing(_: bytes) -> bool:
    return False


def test_the_stages_of_a_session() -> None:
    one = Session(BOOK, 7, Initiator(Vector([])), at())
    assert (one.stage, one.awaits_answer, one.awaits_messages, one.asked) == (Stage.COMPARING, True, False, 0)
    (ask,) = kinds([one.open(probe=True)])
    assert (ask.book, ask.session, ask.message[:4]) == (BOOK, 7, b"\x61\x00\x00\x01")
    assert one.answered(listing([name(1), name(2)]), LATER) == 0
    assert (one.stage, one.awaits_answer) == (Stage.PULLING, False)
    (pull,) = kinds(one.frames(100, nothing))
    assert pull.ids == tuple(sorted((name(1), name(2))))
    assert (one.stage, one.awaits_messages, one.asked) == (Stage.PULLING, True, 2)
    assert one.asks(name(1))
    one.came(name(1))
    one.came(name(1))
    one.came(name(9))
    assert (one.delivered, one.asked, one.asks(name(1))) == (1, 1, False)
    one.waits_for(name(1))
    assert one.pulled(LATER) == 1
    assert (one.stage, one.missing, one.asked, one.asks(name(2))) == (Stage.CHECKING, 1, 0, False)
    assert not one.complete()
    one.judged([name(5)], LATER)
    assert not one.complete()
    one.judged([name(1)], LATER)
    assert one.complete()
    assert one.stage is Stage.DONE
    assert not one.complete()
    assert one.whole


def test_a_session_that_is_cut_short_still_pulls() -> None:
    one = session_of([name(1)], more=True)
    assert one.stage is Stage.COMPARING
    one.cut_short()
    assert (one.stage, one.whole) == (Stage.PULLING, False)
    assert [type(frame) for frame in kinds(one.frames(9, nothing))] == [Pull]
    assert not one.awaits_answer


def test_what_is_asked_at_once() -> None:
    names = [name(number) for number in range(RECONCILE_WINDOW_IDS + 700)]
    one = session_of(names, more=True)
    frames = kinds(one.frames(1 << 20, nothing))
    assert [type(frame) for frame in frames] == [Pull] * 4 + [Ask]
    assert [len(frame.ids) for frame in frames[:4]] == [BATCH_MAX_ORDERS] * 4
    assert one.asked == RECONCILE_WINDOW_IDS
    assert one.frames(1 << 20, nothing) == []
    two = session_of([name(number) for number in range(2 * RECONCILE_WINDOW_IDS)], more=True)
    assert [type(frame) for frame in kinds(two.frames(1 << 20, nothing))] == [Pull] * 4  # a whole window is still wanted
    for one_name in frames[0].ids:
        one.came(one_name)
        one.waits_for(one_name)
    one.pulled(LATER)
    assert one.frames(1 << 20, nothing) == []  # what waits for verification has its place in the window
    one.judged(frames[0].ids[:10], LATER)
    (more,) = kinds(one.frames(1 << 20, nothing))
    assert len(more.ids) == 10


def test_room_and_what_is_known_bound_it_further() -> None:
    one = session_of([name(number) for number in range(20)])
    assert one.frames(0, nothing) == []
    assert one.frames(-5, nothing) == []
    known = {name(number) for number in range(15)}
    (pull,) = kinds(one.frames(3, known.__contains__))
    assert len(pull.ids) == 3
    assert not known & set(pull.ids)
    (pull,) = kinds(one.frames(100, nothing))
    assert len(pull.ids) <= 17
    all_known = session_of([name(1)])
    assert all_known.frames(9, lambda _: True) == []
    assert all_known.complete()


def test_sessions_with_different_neighbours_ask_in_different_orders() -> None:
    names = sorted(name(number) for number in range(10))
    firsts = [kinds(session_of(names, spin=spin).frames(1, nothing))[0].ids[0] for spin in range(11)]
    assert set(firsts) == set(names)
    assert firsts[0] == firsts[10] == names[0]


def test_half_missing_is_forgiven_more_is_not() -> None:
    one = session_of([name(1), name(2), name(3)])
    (first,), (second,) = kinds(one.frames(2, nothing)), kinds(one.frames(1, nothing))
    assert (len(first.ids), len(second.ids)) == (2, 1)
    one.came(first.ids[0])
    assert one.pulled(LATER) == 1
    assert (one.delivered, one.missing, one.asked) == (1, 1, 1)
    with pytest.raises(Misbehaved) as caught:
        one.pulled(LATER)
    assert (caught.value.code, caught.value.penalty) == ("undelivered", 5)


def test_patience_ends_when_nothing_comes_and_begins_anew_when_something_does() -> None:
    one = Session(BOOK, 7, Initiator(Vector([])), at())
    assert one.deadline == at() + 3_000_000
    assert not one.late(Instant(at() + 2_999_999))
    assert one.late(Instant(at() + 3_000_000))
    two = session_of([name(1)])
    assert two.deadline == LATER + 3_000_000
    two.frames(9, nothing)
    two.came(name(1))
    two.waits_for(name(1))
    two.pulled(Instant(LATER + 5))
    assert two.deadline == LATER + 3_000_005
    assert not two.late(Instant(LATER + 9_000_000))  # only our own verification is awaited
    assert two.deadline == LATER + 12_000_000
    two.judged([name(9)], Instant(LATER + 10_000_000))
    assert two.deadline == LATER + 12_000_000
    two.judged([name(1)], Instant(LATER + 10_000_000))
    assert two.deadline == LATER + 13_000_000


# --- what a node keeps of them -----------------------------------------------------------------------------


@pytest.fixture
def alone() -> Alone:
    one = Alone()
    one.do(Follow(book=BOOK))
    one.meet()
    return one


def opened(alone: Alone) -> dict[bytes, Any]:
    return alone.market._reconciler._open


def test_a_neighbour_who_goes_takes_his_sessions_with_him(alone: Alone) -> None:
    alone.meet(OTHER)
    assert set(opened(alone)[BOOK]) == {PEER, OTHER}
    alone.do(NeighbourDown(peer=PEER))
    assert set(opened(alone)[BOOK]) == {OTHER}
    alone.verify(alone.hear(Batch(messages=(raw_order(),)), OTHER))
    assert alone.size() == 1
    alone.do(NeighbourDown(peer=OTHER))
    assert opened(alone) == {}
    alone.now = Instant(alone.now + 3_000_000)
    assert "reconcile-timeout" not in codes(alone.do(Tick()))


def test_a_neighbour_who_comes_again_begins_anew(alone: Alone) -> None:
    first = ask_of(alone.effects)
    again = ask_of(alone.meet())
    assert again.session == first.session + 1
    assert codes(alone.hear(Answer(book=BOOK, session=first.session, message=b"\x61"))) == ["stale-answer"]
    alone.hear(Answer(book=BOOK, session=again.session, message=b"\x61"))
    assert alone.market.ready(BOOK)
    assert opened(alone) == {}


@pytest.mark.parametrize("who", ["we", "he"])
def test_a_book_that_is_left_has_no_session_and_begins_anew(alone: Alone, who: str) -> None:
    first = ask_of(alone.effects)
    if who == "we":
        alone.do(Unfollow(book=BOOK))
    else:
        alone.hear(Hello(network="regtest", moment_us=alone.now, books=()))
    assert opened(alone) == {}
    assert codes(alone.hear(Answer(book=BOOK, session=first.session, message=b"\x61"))) == ["stale-answer"]
    if who == "we":
        effects = alone.do(Follow(book=BOOK))
    else:
        effects = alone.hear(Hello(network="regtest", moment_us=alone.now, books=(BOOK,)))
    again = ask_of(effects)
    alone.hear(Answer(book=BOOK, session=again.session, message=b"\x61"))
    assert alone.market.ready(BOOK)
    alone.hear(Hello(network="regtest", moment_us=alone.now, books=()))
    alone.hear(Hello(network="regtest", moment_us=alone.now, books=(BOOK,)))
    assert not alone.market.ready(BOOK)  # what he heard meanwhile is unknown


def test_an_answer_is_charged_as_well_as_a_question(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orderbook.core.neighbour.RECONCILE_BYTES_MAX", 10_000)
    monkeypatch.setattr("orderbook.core.neighbour.RECONCILE_BYTES_PER_S", 1)
    for number in range(1, 101):
        alone.do(Publish(message=raw_order(number)))
    alone.meet(OTHER)
    short = listing([])
    seen = [codes(alone.hear(Ask(book=BOOK, session=1, message=short), OTHER)) for _ in range(6)]
    assert seen == [[]] * 4 + [["reconcile-budget"]] * 2  # 5 bytes are answered by 3,200


def test_comparing_again_is_only_with_who_follows_the_book(alone: Alone) -> None:
    alone.hear(Answer(book=BOOK, session=ask_of(alone.effects).session, message=b"\x61"))
    ask = ask_of(alone.do(Compare(book=BOOK, epoch=EPOCH, peer=PEER)))
    assert alone.do(Compare(book=BOOK, epoch=EPOCH, peer=PEER)) == []
    alone.hear(Answer(book=BOOK, session=ask.session, message=b"\x61"))
    alone.hear(Hello(network="regtest", moment_us=alone.now, books=()))
    assert alone.do(Compare(book=BOOK, epoch=EPOCH, peer=PEER)) == []
    assert alone.do(Compare(book=bytes(32), epoch=EPOCH, peer=PEER)) == []


def test_who_has_spent_most_of_his_budget_is_asked_later(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orderbook.core.neighbour.RECONCILE_BYTES_MAX", 4_000)
    monkeypatch.setattr("orderbook.core.neighbour.RECONCILE_BYTES_PER_S", 1_000)
    ask = ask_of(alone.meet(OTHER))
    alone.hear(Answer(book=BOOK, session=ask.session, message=b"\x61"), OTHER)
    for _ in range(3):
        alone.hear(Ask(book=BOOK, session=1, message=listing([name(number) for number in range(32)])), OTHER)
    effects = alone.do(Compare(book=BOOK, epoch=EPOCH, peer=OTHER))
    assert codes(effects) == ["reconcile-paused"]
    assert sent(effects, Ask) == []
    alone.now = Instant(alone.now + 999_999)
    assert OTHER not in [peer for peer, _ in sent(alone.do(Tick()), Ask)]
    alone.now = Instant(alone.now + 1)
    assert OTHER in [peer for peer, _ in sent(alone.do(Tick()), Ask)]


# --- the book and the neighbour, at their edges ------------------------------------------------------------


def test_a_set_that_was_asked_for_grows_with_the_book() -> None:
    book = Book(REGTEST.clock)
    assert book.vector().items == []
    one, two = heard(1), heard(2)
    for count, message in enumerate((one, two), start=1):
        assert message.id not in book
        book.admit(message, at(), asked=False)
        assert message.id in book
        assert len(book.vector()) == count
    assert book.vector().items == sorted([(EPOCH + 1, one.id), (EPOCH + 1, two.id)])


def test_what_is_seen_again_is_remembered_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orderbook.core.neighbour._SHOWN_HALF", 2)
    neighbour = Neighbour(PEER, at())
    for one in (b"a", b"b", b"a", b"c"):
        neighbour.shows(one)
    assert [neighbour.knows(one) for one in (b"a", b"b", b"c")] == [True, False, True]
    neighbour.shows(b"d")
    assert [neighbour.knows(one) for one in (b"a", b"c", b"d")] == [True, True, True]
    neighbour.shows(b"e")
    assert [neighbour.knows(one) for one in (b"a", b"c", b"d", b"e")] == [False, False, True, True]


def test_what_he_shows_leaves_the_box_to_the_byte() -> None:
    neighbour = Neighbour(PEER, at())
    neighbour.put(b"a", parcel(b"x" * 30, whole=True))
    neighbour.put(b"b", parcel(b"x" * 10, whole=True))
    neighbour.shows(b"a")
    assert neighbour._box_bytes == 16
    neighbour.shows(b"b")
    assert neighbour._box_bytes == 0


def test_every_batch_is_cut_alike() -> None:
    most = BATCH_MAX_BYTES // 1_000
    assert [len(part) for part in batches([bytes(994)] * (3 * most))] == [most] * 3


def test_a_delivered_message_of_a_liar_is_still_kept(alone: Alone) -> None:
    """The session ends with a reason; what he did deliver is in the book all the same."""
    ask, raw = ask_of(alone.effects), raw_order()
    names = [read(REGTEST, raw).id, name(1), name(2)]
    alone.hear(Answer(book=BOOK, session=ask.session, message=listing(names)))
    effects = alone.hear(Pulled(book=BOOK, session=ask.session, messages=(raw,)))
    assert codes(effects) == ["undelivered"]
    assert opened(alone) == {}
    alone.verify(effects)
    assert alone.size() == 1
    assert not alone.market.ready(BOOK)


def test_a_first_comparison_that_failed_is_planned_again_a_later_one_is_not(alone: Alone) -> None:
    neighbour = alone.market._neighbours[PEER]
    alone.hear(Answer(book=BOOK, session=ask_of(alone.effects).session, message=b"\x60"))
    assert neighbour.planned == {BOOK: alone.now + 4_000_000}
    again = ask_of(alone.do(Compare(book=BOOK, epoch=EPOCH, peer=PEER)))
    alone.hear(Answer(book=BOOK, session=again.session, message=b"\x61"))
    third = ask_of(alone.do(Compare(book=BOOK, epoch=EPOCH, peer=PEER)))
    alone.hear(Answer(book=BOOK, session=third.session, message=b"\x60"))
    assert neighbour.planned == {}


def test_the_short_question_is_for_larger_books_that_were_equal_before(alone: Alone) -> None:
    for number in range(1, 8):
        alone.do(Publish(message=raw_order(number)))
    divided = ask_of(alone.meet(OTHER))
    alone.hear(Answer(book=BOOK, session=divided.session, message=b"\x61"), OTHER)
    seven = ask_of(alone.do(Compare(book=BOOK, epoch=EPOCH, peer=OTHER)))
    assert seven.message == divided.message
    alone.hear(Answer(book=BOOK, session=seven.session, message=b"\x61"), OTHER)
    alone.do(Publish(message=raw_order(8)))
    eight = ask_of(alone.do(Compare(book=BOOK, epoch=EPOCH, peer=OTHER)))
    assert eight.message[:4] == b"\x61\x00\x00\x01"
    alone.do(NeighbourDown(peer=OTHER))
    assert ask_of(alone.meet(OTHER)).message[:4] == b"\x61\x00\x00\x02"  # a stranger again


def test_what_is_pushed_out_leaves_the_set_too() -> None:
    book = Book(REGTEST.clock)
    assert book.vector().items == []
    many = [heard(1, sequence=sequence) for sequence in range(9)]
    for one in many:
        book.admit(one, at(), asked=False)
    assert book.vector().items == sorted((EPOCH + 1, one.id) for one in many[1:])
