"""Messages that are named instead of sent, and who is asked for them."""

from typing import Any

import pytest

from orderbook.core.events import Check, Checked, Follow, NeighbourDown, NeighbourUp, Publish, SendFrame, Tick
from orderbook.core.frames import FRAMES, Batch, Hello, Names
from orderbook.core.messages import GOSSIP, SealedOrder, read
from orderbook.core.neighbour import Neighbour, parcel
from tests.orderbook.test_market import OTHER, PEER, Alone, codes, raw_order, sent
from tests.orderbook.world import BOOK, EPOCH, at, key
from wire.effects import Blame
from wire.envelope import id_of
from wire.keys import PeerId
from wire.limits import (
    BATCH_AGE_MAX_MS,
    BATCH_MAX_BYTES,
    BATCH_MAX_NAMES,
    BATCH_WINDOW_MAX_MS,
    NAMED_PATIENCE_MS,
    NAMES_FROM,
    NAMES_TOLD_MAX,
    RELAY_OUTBOX_MESSAGES,
    RELAY_TOKENS_MAX,
)
from wire.moments import MILLISECOND, Instant
from wire.network import REGTEST

THIRD = key(103).peer_id
EMPTY = Batch(messages=())


def name_of(raw: bytes) -> bytes:
    return read(REGTEST, raw).id


def named(number: int) -> bytes:
    return number.to_bytes(32, "big")


def asked(effects: list[Any]) -> list[tuple[PeerId, tuple[bytes, ...]]]:
    return [(peer, frame.wants) for peer, frame in sent(effects, Names)]


def later(alone: Alone, ms: int) -> list[Any]:
    alone.now = Instant(alone.now + ms * MILLISECOND)
    return alone.do(Tick())


@pytest.fixture
def alone() -> Alone:
    """A node that follows a book with three neighbours, none of whom has anything yet."""
    one = Alone()
    one.do(Follow(book=BOOK))
    for peer in (PEER, OTHER, THIRD):
        one.meet(peer)
    return one


# --- what is named ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [NAMES_FROM - 1, NAMES_FROM, NAMES_FROM + 1])
def test_from_so_many_on_they_are_named(count: int) -> None:
    neighbour = Neighbour(PEER, at())
    for number in range(count):
        neighbour.put(named(number), parcel(b"x", at()))
    (frame,) = neighbour.flush(at())
    names = tuple(map(named, range(count)))
    if count < NAMES_FROM:
        assert FRAMES.unpack(frame) == Batch(messages=(b"x",) * count, moment_us=at(), ages_ms=(0,) * count)
    else:
        assert FRAMES.unpack(frame) == Names(batch=EMPTY, has=names, wants=())
    assert neighbour.flush(at()) == ()


def test_what_must_go_whole_goes_beside_the_names() -> None:
    neighbour = Neighbour(PEER, at())
    for number in range(NAMES_FROM):
        neighbour.put(named(number), parcel(bytes([number]), at(), whole=number in (3, 5)))
    neighbour.ask([b"w" * 32, b"v" * 32, b"known" + bytes(27)])
    (frame,) = neighbour.flush(at(), known={b"known" + bytes(27)})
    batch = Batch(messages=(b"\x03", b"\x05"), moment_us=at(), ages_ms=(0, 0))
    has = tuple(named(number) for number in range(NAMES_FROM) if number not in (3, 5))
    assert FRAMES.unpack(frame) == Names(batch=batch, has=has, wants=(b"w" * 32, b"v" * 32))


def test_a_name_weighs_little_in_what_waits() -> None:
    neighbour = Neighbour(PEER, at())
    neighbour.put(named(1), parcel(b"x" * 1_000))
    assert neighbour._box_bytes == 34
    neighbour.put(named(2), parcel(b"x" * 1_000, whole=True))
    assert neighbour._box_bytes == 34 + 1_006


def test_questions_leave_when_a_batch_would_and_only_what_is_still_unknown() -> None:
    neighbour = Neighbour(PEER, at())
    neighbour.ask([named(1)])
    assert neighbour.flush_at() == 0
    (frame,) = neighbour.flush(at())
    assert FRAMES.unpack(frame) == Names(batch=EMPTY, has=(), wants=(named(1),))
    neighbour.ask([named(2)])
    assert neighbour.flush_at() == at() + 10 * MILLISECOND
    assert neighbour.flush(at(ms=10), known={named(2)}) == ()
    assert neighbour.flush_at() is None
    neighbour.put(named(3), parcel(b"few", at(ms=30)))
    neighbour.ask([named(4)])
    (frame,) = neighbour.flush(at(ms=30))
    batch = Batch(messages=(b"few",), moment_us=at(ms=30), ages_ms=(0,))
    assert FRAMES.unpack(frame) == Names(batch=batch, has=(), wants=(named(4),))


def test_what_was_named_and_is_asked_for_leaves_with_its_age_while_that_is_remembered() -> None:
    neighbour = Neighbour(PEER, at())

    def told(first: int, moment: Instant) -> None:
        for number in range(first, first + NAMES_FROM):
            neighbour.put(named(number), parcel(b"x", at(ms=number)))
        (frame,) = neighbour.flush(moment)
        assert FRAMES.unpack(frame).has == tuple(map(named, range(first, first + NAMES_FROM)))

    told(1, at(ms=1_000))
    told(101, at(ms=1_100))
    for number in (7, 102, 99):
        assert neighbour.give(named(number), bytes([number]))
    (frame,) = neighbour.flush(at(ms=1_200))
    assert FRAMES.unpack(frame).ages_ms == (1_200 - 7, 1_200 - 102, BATCH_AGE_MAX_MS)  # the last was never named
    for turn in range(1, NAMES_TOLD_MAX):
        told(100 * turn + 101, at(ms=1_200 + 100 * turn))
    assert neighbour.give(named(102), b"x")
    assert neighbour.give(named(7), b"x")
    (frame,) = neighbour.flush(at(ms=9_000))
    assert FRAMES.unpack(frame).ages_ms == (9_000 - 102, BATCH_AGE_MAX_MS)


@pytest.mark.parametrize(("whole", "names", "wants"), [(0, BATCH_MAX_NAMES, 0), (0, BATCH_MAX_NAMES, 1), (130, 1_000, 1_500)])
def test_frames_are_cut_where_a_batch_would_be(whole: int, names: int, wants: int) -> None:
    neighbour = Neighbour(PEER, at())
    for number in range(whole + names):
        neighbour.put(named(number), parcel(bytes(994), whole=number < whole))
    neighbour.ask(named(1 << 20 | number) for number in range(wants))
    frames = neighbour.flush(at())
    assert all(len(frame) <= BATCH_MAX_BYTES + 100 for frame in frames)
    opened = [FRAMES.unpack(frame) for frame in frames]
    batches = [one if isinstance(one, Batch) else one.batch for one in opened]
    assert sum(len(one.messages) for one in batches) == whole
    said = [one for one in opened if isinstance(one, Names)]
    assert sum((one.has for one in said), ()) == tuple(named(whole + number) for number in range(names))
    assert sum((one.wants for one in said), ()) == tuple(named(1 << 20 | number) for number in range(wants))
    expected = {(0, 0): 1, (0, 1): 2, (130, 1_500): 4}[whole, wants]
    assert len(frames) == expected


def test_our_own_is_never_named_and_what_others_wrote_is(alone: Alone) -> None:
    def leaving(effects: list[Any]) -> list[tuple[int, int]]:
        news = sent(effects, Names)
        return [(len(frame.batch.messages), len(frame.has)) for peer, frame in news if peer != PEER]

    alone.verify(alone.hear(Batch(messages=(raw_order(99),))))  # opens the window
    alone.verify(alone.hear(Batch(messages=tuple(raw_order(number) for number in range(1, NAMES_FROM + 1)))))
    alone.do(Publish(message=raw_order(50)))
    assert leaving(later(alone, BATCH_WINDOW_MAX_MS)) == [(1, NAMES_FROM)] * 2


# --- who is asked ----------------------------------------------------------------------------------------


def test_who_named_it_first_is_asked_for_what_is_lacking(alone: Alone) -> None:
    here, coming, lacking = (raw_order(number) for number in (1, 2, 3))
    alone.do(Publish(message=here))
    checks = alone.hear(Batch(messages=(coming,)), OTHER)
    effects = alone.hear(Names(batch=EMPTY, has=tuple(map(name_of, (here, coming, lacking))), wants=()))
    effects += later(alone, 50)
    assert asked(effects) == [(PEER, (name_of(lacking),))]
    assert asked(alone.hear(Names(batch=EMPTY, has=(name_of(lacking),), wants=()), OTHER) + later(alone, 50)) == []
    effects = alone.verify(alone.hear(Batch(messages=(lacking,)))) + alone.verify(checks)
    assert alone.size() == 3
    assert all(peer == THIRD for peer, _ in sent(effects + later(alone, 50), Batch))  # the others have shown them
    assert "named-late" not in codes(later(alone, NAMED_PATIENCE_MS))


def test_what_comes_before_the_question_leaves_is_not_asked_for(alone: Alone) -> None:
    alone.hear(Names(batch=EMPTY, has=(named(1),), wants=()))  # a question left, so the next waits for its window
    one = raw_order(1)
    assert asked(alone.hear(Names(batch=EMPTY, has=(name_of(one),), wants=()))) == []
    alone.verify(alone.hear(Batch(messages=(one,)), OTHER))
    assert asked(later(alone, 50)) == []


def test_when_he_does_not_deliver_others_who_named_it_are_asked_and_three_at_most(alone: Alone) -> None:
    fourth, fifth = key(104).peer_id, key(105).peer_id
    for peer in (fourth, fifth):
        alone.meet(peer)
    first, one = alone.now, named(7)
    everybody = (PEER, OTHER, fourth, fifth)  # not THIRD
    effects = [more for peer in everybody for more in alone.hear(Names(batch=EMPTY, has=(one,), wants=()), peer)]
    assert asked(effects) == [(PEER, (one,))]
    order = [peer for peer in sorted((*everybody, THIRD)) if peer in everybody]
    expected, before = [], PEER
    for _ in range(2):
        before = next(peer for peer in order if peer != before)
        expected.append(before)
    assert alone.market._names.next_due == first + NAMED_PATIENCE_MS * MILLISECOND
    assert asked(later(alone, NAMED_PATIENCE_MS - 1)) == []
    for peer in expected:
        effects = later(alone, NAMED_PATIENCE_MS)
        assert codes(effects).count("named-late") == 1
        assert asked(effects) == [(peer, (one,))]
    assert codes(later(alone, NAMED_PATIENCE_MS)).count("named-late") == 1
    assert alone.market._names.next_due is None
    again = alone.hear(Names(batch=EMPTY, has=(one,), wants=()), fifth) + later(alone, 50)
    assert asked(again) == [(fifth, (one,))]  # named anew, it is asked for anew


def test_who_does_not_deliver_is_blamed_once_for_all_that_hangs(alone: Alone) -> None:
    alone.hear(Names(batch=EMPTY, has=(named(1), named(2)), wants=()))
    later(alone, 50)
    alone.hear(Names(batch=EMPTY, has=(named(3),), wants=()))
    effects = later(alone, NAMED_PATIENCE_MS) + later(alone, 100)
    sentence = "what this neighbour says to have does not come when it is asked for"
    assert [one for one in effects if isinstance(one, Blame)] == [
        Blame(peer=PEER, code="named-late", sentence=sentence, penalty=1)
    ]
    assert [one.amount for one in effects if getattr(one, "code", "") == "named-late" and not isinstance(one, Blame)] == [2, 1]


def test_nobody_is_blamed_who_has_gone_and_another_is_asked(alone: Alone) -> None:
    one = named(7)
    alone.hear(Names(batch=EMPTY, has=(one,), wants=()))
    alone.hear(Names(batch=EMPTY, has=(one,), wants=()), OTHER)
    alone.do(NeighbourDown(peer=PEER))
    effects = later(alone, NAMED_PATIENCE_MS)
    assert asked(effects) == [(OTHER, (one,))]
    assert not [effect for effect in effects if isinstance(effect, Blame)]


def test_so_many_questions_are_open_at_once(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orderbook.core.names.NAMED_WANTED_MAX", 3)
    effects = alone.hear(Names(batch=EMPTY, has=(named(0),), wants=()))
    effects += alone.hear(Names(batch=EMPTY, has=(named(1),), wants=()), THIRD)
    assert "names-full" not in codes(effects)
    effects += alone.hear(Names(batch=EMPTY, has=tuple(map(named, range(1, 6))), wants=()), OTHER)
    assert [(one.code, one.amount) for one in effects if getattr(one, "code", "") == "names-full"] == [("names-full", 3)]
    assert sum(len(wants) for _, wants in asked(effects)) == 3
    assert codes(alone.hear(Names(batch=EMPTY, has=(named(9),), wants=()), THIRD)) == ["names-full"]


def test_as_many_as_there_is_room_for_are_no_reason_to_complain(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orderbook.core.names.NAMED_WANTED_MAX", 3)
    assert codes(alone.hear(Names(batch=EMPTY, has=tuple(map(named, range(3))), wants=()))) == []


def test_others_are_asked_for_what_they_have_shown_and_nothing_else(alone: Alone) -> None:
    alone.hear(Names(batch=EMPTY, has=tuple(map(named, range(3))), wants=()))
    alone.hear(Names(batch=EMPTY, has=(named(1),), wants=()), OTHER)
    alone.hear(Names(batch=EMPTY, has=(named(2),), wants=()), THIRD)
    effects = later(alone, NAMED_PATIENCE_MS)
    assert asked(effects) == sorted([(OTHER, (named(1),)), (THIRD, (named(2),))])


# --- who asks us ----------------------------------------------------------------------------------------


def test_he_is_given_what_has_been_verified_and_nothing_else(alone: Alone) -> None:
    here, unverified = raw_order(1), raw_order(2)
    alone.do(Publish(message=here))
    alone.hear(Batch(messages=(unverified,)))
    wants = (named(1), name_of(unverified), name_of(here))
    effects = alone.hear(Names(batch=EMPTY, has=(), wants=wants), OTHER) + later(alone, 50)
    assert [(peer, frame.messages) for peer, frame in sent(effects, Batch) if peer == OTHER] == [(OTHER, (here,))]
    assert codes(effects) == []


def test_a_stranger_to_the_book_or_to_us_is_given_nothing(alone: Alone) -> None:
    alone.do(NeighbourUp(peer=key(104).peer_id))
    assert codes(alone.hear(Names(batch=EMPTY, has=(), wants=()), key(104).peer_id)) == ["not-greeted"]
    assert codes(alone.hear(Names(batch=EMPTY, has=(), wants=()), key(105).peer_id)) == ["not-a-neighbour"]


def test_a_full_box_is_counted(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    raws = [raw_order(number) for number in range(1, 5)]
    for raw in raws:
        alone.do(Publish(message=raw))
    later(alone, 50)
    assert RELAY_OUTBOX_MESSAGES == 20_000
    monkeypatch.setattr("orderbook.core.neighbour.RELAY_OUTBOX_MESSAGES", 1)
    effects = alone.hear(Names(batch=EMPTY, has=(), wants=tuple(map(name_of, raws))))
    assert [(one.code, one.amount) for one in effects if not isinstance(one, SendFrame)] == [("outbox-full", 3)]


def test_names_cost_a_sixteenth_of_what_messages_cost(alone: Alone) -> None:
    full = Names(batch=EMPTY, has=(named(1),) * BATCH_MAX_NAMES, wants=(named(2),) * BATCH_MAX_NAMES)
    heard = 0
    while "too-fast" not in codes(alone.hear(full)):
        heard += 1
    frame = FRAMES.pack(full)
    assert len(frame) < 1 << 20
    assert heard == (RELAY_TOKENS_MAX - 2) // (1 + 2 * BATCH_MAX_NAMES // 16)


def test_the_batch_beside_the_names_is_heard_like_any_other(alone: Alone) -> None:
    raw = raw_order(1)
    beside = Batch(messages=(raw,), moment_us=alone.now, ages_ms=(5,))
    effects = alone.hear(Names(batch=beside, has=(name_of(raw),), wants=()))
    assert asked(effects + later(alone, 50)) == []
    alone.verify(effects)
    assert alone.size() == 1
    lie = Names(batch=Batch(messages=(raw_order(2),), ages_ms=(1, 2)), has=(named(9),), wants=())
    assert codes(alone.hear(lie)) == ["malformed"]
    assert alone.market._names.next_due is None  # nothing of a frame that is wrong


# --- what is known ----------------------------------------------------------------------------------------


def test_what_has_left_the_book_is_known_no_more() -> None:
    alone = Alone()
    alone.do(Follow(book=BOOK))
    alone.meet()
    raw = raw_order(1, first_epoch=EPOCH, last_epoch=EPOCH)
    alone.verify(alone.hear(Batch(messages=(raw,))))
    assert alone.market._intake.named == {name_of(raw): BOOK}
    alone.now = at(EPOCH + 62, 100)
    alone.do(Tick())
    assert alone.size() == 0
    assert alone.market._intake.named == {}


@pytest.mark.parametrize("first", ["false", "true"])
def test_a_false_twin_takes_no_name_away(alone: Alone, first: str) -> None:
    true = raw_order(1)
    sealed = GOSSIP.unpack(true)
    false = GOSSIP.pack(SealedOrder(body=sealed.body, signature=bytes(64)))
    assert id_of(REGTEST.name, "order", sealed.body) == name_of(true) == name_of(false)
    forged, honest = alone.hear(Batch(messages=(false,)), OTHER), alone.hear(Batch(messages=(true,)))
    bad = tuple(item.id for one in forged if isinstance(one, Check) for item in one.items)
    if first == "true":
        alone.verify(honest)
    alone.do(Checked(good=(), bad=bad))
    alone.verify(honest)
    assert alone.market._intake.named == {name_of(true): BOOK}
    effects = alone.hear(Names(batch=EMPTY, has=(), wants=(name_of(true),)), THIRD) + later(alone, 50)
    assert true in {raw for peer, frame in sent(effects, Batch) if peer == THIRD for raw in frame.messages}


def test_a_hello_is_still_the_first_frame(alone: Alone) -> None:
    alone.do(NeighbourDown(peer=THIRD))
    alone.do(NeighbourUp(peer=THIRD))
    assert codes(alone.hear(Names(batch=EMPTY, has=(named(1),), wants=()), THIRD)) == ["not-greeted"]
    alone.hear(Hello(network="regtest", moment_us=alone.now, books=(BOOK,)), THIRD)
    assert asked(alone.hear(Names(batch=EMPTY, has=(named(1),), wants=()), THIRD)) == [(THIRD, (named(1),))]
