"""A market at its doors: what it says to whom and when, what it counts, and where its bounds are."""

from typing import Any

import msgpack
import pytest

from orderbook.core import market as module
from orderbook.core import neighbour as neighbour_module
from orderbook.core.arrivals import arrivals
from orderbook.core.events import (
    Check,
    Checked,
    Cleared,
    Compare,
    Follow,
    FrameIn,
    Meet,
    NeighbourDown,
    NeighbourUp,
    Publish,
    Tick,
    Unfollow,
)
from orderbook.core.evidence import proof_of
from orderbook.core.frames import FRAMES, Answer, Ask, Batch, BookRoot, Hello, Pull, Pulled, Roots
from orderbook.core.intake import Pending
from orderbook.core.messages import Close, Side, read, seal_close, seal_proof, sign_match
from tests.orderbook.test_market import ME, OTHER, PEER, Alone, codes, raw_order, sent
from tests.orderbook.test_messages import match
from tests.orderbook.world import BOOK, EPOCH, at, key
from wire.digest import plain
from wire.effects import Blame, Count
from wire.limits import BATCH_MAX_ORDERS
from wire.moments import Instant
from wire.network import REGTEST

CLOCK = REGTEST.clock
SECOND_BOOK = bytes([1]) * 32
NOTHING = plain(b"")


def views(effects: list[Any]) -> list[Cleared]:
    return [one for one in effects if isinstance(one, Cleared)]


def blames(effects: list[Any]) -> list[tuple[Any, str, int]]:
    return [(one.peer, one.code, one.penalty) for one in effects if isinstance(one, Blame)]


def after_freeze(one: Alone, epoch: int, us: int = 1) -> list[Any]:
    one.now = Instant(CLOCK.freeze(epoch) + us)
    return one.do(Tick())


def ready(one: Alone, peer: Any = PEER) -> None:
    """Answer every comparison that is open with ``peer``: he has nothing else."""
    asks = [frame for to, frame in sent(one.effects, Ask) if to == peer]
    one.hear(Answer(book=BOOK, session=asks[-1].session, message=b"\x61"), peer)


@pytest.fixture
def alone() -> Alone:
    one = Alone()
    one.do(Follow(book=BOOK))
    one.meet()
    return one


# --- what it tells of itself ----------------------------------------------------------------------------------------------------


def test_sizes_and_books() -> None:
    one = Alone()
    assert one.market.books == ()
    assert one.market.statistics() == {"books": 0, "messages": 0, "checking": 0, "neighbours": 0}
    for book in (BOOK, SECOND_BOOK):
        one.do(Follow(book=book))
    assert one.market.books == tuple(sorted((BOOK, SECOND_BOOK)))
    one.meet()
    one.do(Publish(message=raw_order(1)))
    effects = one.hear(Batch(messages=(raw_order(2), raw_order(3))))
    assert one.market.statistics() == {"books": 2, "messages": 1, "checking": 2, "neighbours": 1}
    one.verify(effects)
    assert one.market.statistics() == {"books": 2, "messages": 3, "checking": 0, "neighbours": 1}
    one.do(NeighbourDown(peer=PEER))
    one.do(NeighbourDown(peer=PEER))
    assert one.market.statistics()["neighbours"] == 0


def test_what_a_book_is_made_of() -> None:
    one = Alone()
    one.do(Follow(book=BOOK))
    assert one.market.messages(bytes(32)) is None
    assert one.market.messages(BOOK) == ()
    later, sooner = raw_order(1, first_epoch=EPOCH + 2), raw_order(2)
    for raw in (sooner, later):
        one.do(Publish(message=raw))
    kept = one.market.messages(BOOK)
    assert kept is not None
    assert [(each.heard.raw, each.known_epoch) for each in kept] == [(later, EPOCH), (sooner, EPOCH)]


def test_the_first_epoch_is_the_one_whose_freeze_is_still_to_come() -> None:
    for now, first in ((CLOCK.freeze(EPOCH), EPOCH), (Instant(CLOCK.freeze(EPOCH) + 1), EPOCH + 1)):
        one = Alone()
        one.now = now
        one.do(Follow(book=BOOK))
        seen = [view.epoch for epoch in (EPOCH, EPOCH + 1) for view in views(after_freeze(one, epoch, us=2))]
        assert seen == list(range(first, EPOCH + 2))


# --- neighbours and books -------------------------------------------------------------------------------------------------------


def test_nobody_is_his_own_neighbour_and_there_is_a_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PEERS_MAX", 1)
    one = Alone()
    assert codes(one.do(NeighbourUp(peer=ME.peer_id))) == ["neighbour-refused"]
    assert codes(one.do(NeighbourUp(peer=PEER))) == []
    assert codes(one.do(NeighbourUp(peer=OTHER))) == ["neighbour-refused"]
    assert codes(one.do(NeighbourUp(peer=PEER))) == []  # he has come again
    assert one.market.statistics()["neighbours"] == 1


def test_there_is_a_most_of_books(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BOOKS_MAX", 1)
    one = Alone()
    one.do(Follow(book=BOOK))
    assert codes(one.do(Follow(book=SECOND_BOOK))) == ["books-full"]
    assert one.market.books == (BOOK,)
    one.do(Unfollow(book=BOOK))
    assert codes(one.do(Follow(book=SECOND_BOOK))) == []


def test_books_are_compared_when_both_have_them_whoever_is_last() -> None:
    one = Alone()
    one.meet()
    assert sent(one.effects, Ask) == []
    assert [(peer, ask.book) for peer, ask in sent(one.do(Follow(book=BOOK)), Ask)] == [(PEER, BOOK)]
    other = Alone()
    other.do(Follow(book=BOOK))
    assert [(peer, ask.book) for peer, ask in sent(other.meet(books=(BOOK, SECOND_BOOK)), Ask)] == [(PEER, BOOK)]
    assert sent(other.hear(Hello(network="regtest", moment_us=other.now, books=(BOOK, SECOND_BOOK))), Ask) == []


def test_who_leaves_a_book_is_sent_nothing_of_it(alone: Alone) -> None:
    ready(alone)
    assert alone.market.ready(BOOK)
    alone.hear(Hello(network="regtest", moment_us=alone.now, books=()))
    assert not alone.market.ready(BOOK)
    assert sent(alone.do(Publish(message=raw_order(1))), Batch) == []
    again = alone.hear(Hello(network="regtest", moment_us=alone.now, books=(BOOK,)))
    assert not alone.market.ready(BOOK)  # compared once, but much may have happened since
    assert len(sent(again, Ask)) == 1


def test_a_comparison_under_way_ends_when_one_leaves_the_book(alone: Alone) -> None:
    ((_, ask),) = sent(alone.effects, Ask)
    alone.hear(Hello(network="regtest", moment_us=alone.now, books=()))
    assert codes(alone.hear(Answer(book=BOOK, session=ask.session, message=b"\x61"))) == ["stale-answer"]
    assert len(sent(alone.hear(Hello(network="regtest", moment_us=alone.now, books=(BOOK,))), Ask)) == 1


# --- what is asked of it --------------------------------------------------------------------------------------------------------


def test_what_is_pulled_is_sent_as_far_as_it_is_here(alone: Alone) -> None:
    messages = [raw_order(owner) for owner in (1, 2)]
    for raw in messages:
        alone.do(Publish(message=raw))
    ids = (read(REGTEST, messages[1]).id, bytes(32), read(REGTEST, messages[0]).id)
    assert sent(alone.hear(Pull(book=BOOK, session=5, ids=ids)), Pulled) == [
        (PEER, Pulled(book=BOOK, session=5, messages=(messages[1], messages[0])))
    ]


def test_messages_and_pulls_are_charged_by_number(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbour_module, "RELAY_TOKENS_MAX", 10)
    monkeypatch.setattr(neighbour_module, "RELAY_TOKENS_PER_S", 0)
    for frame in (Batch(messages=(b"\x90",) * 8), Batch(messages=(b"\x90",) * 9)):
        one = Alone()
        one.do(Follow(book=BOOK))
        one.do(NeighbourUp(peer=OTHER))
        assert codes(one.hear(Hello(network="regtest", moment_us=one.now, books=(BOOK,)), OTHER)) == []  # one token
        effects = one.hear(frame, OTHER)
        fits = len(frame.messages) == 8
        assert codes(effects) == (["malformed"] * 8 if fits else ["too-fast"])
        if not fits:
            assert blames(effects) == [(OTHER, "too-fast", 1)]


def test_blame_has_its_weight(alone: Alone) -> None:
    assert (
        blames(alone.do(FrameIn(peer=PEER, frame=b"\xc1"))) == [(PEER, "malformed", 10)]
        or blames(alone.do(FrameIn(peer=PEER, frame=b"\xc1")))[0][1] == "malformed"
    )
    forged = raw_order(2)[:-8] + bytes(8)
    effects = alone.verify(alone.hear(Batch(messages=(forged,))))
    assert (codes(effects), blames(effects)) == (["wrong-signature"], [(PEER, "wrong-signature", 50)])
    cheat = key(9)
    signed = [(one, sign_match(cheat, one, Side.SELL)) for one in (match(), match(epoch=EPOCH + 1))]
    proof = seal_proof(REGTEST, proof_of(cheat.public, Side.SELL, signed[0], signed[1]))
    assert blames(alone.verify(alone.hear(Batch(messages=(proof,))))) == [(cheat.peer_id, "equivocation", 100)]


def test_our_own_mistakes_are_counted_as_ours(alone: Alone) -> None:
    assert codes(alone.do(Publish(message=b"\xc1"))) == ["own-malformed"]
    assert codes(alone.do(Publish(message=raw_order(1, book=SECOND_BOOK)))) == ["own-unfollowed"]
    good = raw_order(1)
    assert codes(alone.do(Publish(message=good))) == []
    assert codes(alone.do(Publish(message=good))) == ["own-duplicate"]
    assert alone.do(Checked(good=(bytes(32),), bad=(bytes(32),))) == []


# --- passing on -----------------------------------------------------------------------------------------------------------------


def test_a_full_box_is_counted_for_each_message(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbour_module, "RELAY_OUTBOX_MESSAGES", 1)
    assert codes(alone.do(Publish(message=raw_order(1)))) == []  # leaves at once
    assert codes(alone.do(Publish(message=raw_order(2)))) == []
    assert codes(alone.do(Publish(message=raw_order(3)))) == ["outbox-full"]


def test_every_neighbour_has_a_window_of_his_own(alone: Alone) -> None:
    def batches(effects: list[Any]) -> list[tuple[Any, tuple[bytes, ...]]]:
        return [(peer, batch.messages) for peer, batch in sent(effects, Batch)]

    alone.do(Publish(message=raw_order(1)))
    alone.now = at(ms=104)
    alone.meet(OTHER)
    assert batches(alone.do(Publish(message=raw_order(2)))) == [(OTHER, (raw_order(2),))]
    alone.do(Publish(message=raw_order(3)))
    assert alone.market.next_deadline() == at(ms=110)
    alone.now = at(ms=110)
    assert batches(alone.do(Tick())) == [(PEER, (raw_order(2), raw_order(3)))]
    assert alone.market.next_deadline() == at(ms=114)
    alone.now = at(ms=114)
    assert batches(alone.do(Tick())) == [(OTHER, (raw_order(3),))]
    assert alone.market.next_deadline() == at(ms=400)


def test_what_waits_for_one_who_has_gone_goes_nowhere(alone: Alone) -> None:
    for owner in (1, 2):
        alone.do(Publish(message=raw_order(owner)))
    alone.do(NeighbourDown(peer=PEER))
    alone.now = Instant(alone.now + 60_000)
    assert sent(alone.do(Tick()), Batch) == []
    assert alone.market.next_deadline() == at(ms=400)


def pulled_by(one: Alone, raw: bytes) -> list[Any]:
    """What follows when ``raw`` is learnt by comparing books with the first neighbour."""
    ((_, ask),) = [each for each in sent(one.effects, Ask) if each[0] == PEER][-1:]
    listing = b"\x61\x00\x00\x02\x01" + read(REGTEST, raw).id
    ((_, pull),) = sent(one.hear(Answer(book=BOOK, session=ask.session, message=listing)), Pull)
    assert pull.ids == (read(REGTEST, raw).id,)
    return one.verify(one.hear(Pulled(book=BOOK, session=pull.session, messages=(raw,))))


@pytest.mark.parametrize(("first", "passed_on"), [(EPOCH - 1, False), (EPOCH, True), (EPOCH + 1, True)])
def test_what_is_old_and_was_pulled_is_not_pushed_on(alone: Alone, first: int, *, passed_on: bool) -> None:
    alone.meet(OTHER)
    raw = raw_order(1, first_epoch=first)
    assert [peer for peer, _ in sent(pulled_by(alone, raw), Batch)] == ([OTHER] if passed_on else [])
    assert alone.size() == 1


# --- the freeze -----------------------------------------------------------------------------------------------------------------


def test_roots_go_to_all_and_tell_of_shared_books() -> None:
    one = Alone()
    for book in (BOOK, SECOND_BOOK):
        one.do(Follow(book=book))
    one.meet(PEER, books=(BOOK,))
    one.meet(OTHER, books=())
    raw = raw_order(1, first_epoch=EPOCH)
    one.do(Publish(message=raw))
    told = dict(sent(after_freeze(one, EPOCH), Roots))
    assert told == {
        PEER: Roots(moment_us=one.now, epoch=EPOCH, roots=(BookRoot(book=BOOK, root=plain(read(REGTEST, raw).id)),)),
        OTHER: Roots(moment_us=one.now, epoch=EPOCH, roots=()),
    }


def test_slept_epochs_are_counted_and_the_last_is_cleared(alone: Alone) -> None:
    effects = after_freeze(alone, EPOCH + 3)
    assert [(one.code, one.amount) for one in effects if isinstance(one, Count) and one.code == "epochs-slept"] == [
        ("epochs-slept", 3)
    ]
    assert [view.epoch for view in views(effects)] == [EPOCH + 3]
    assert "epochs-slept" not in codes(after_freeze(alone, EPOCH + 4))


def test_a_late_driver_clears_the_epoch_before(alone: Alone) -> None:
    """The next epoch has begun and its freeze is still to come: too late to trade on the last one, and it is said."""
    alone.now = at(EPOCH + 1, ms=10)
    effects = alone.do(Tick())
    assert (views(effects), codes(effects).count("epoch-missed")) == ([], 1)
    assert codes(alone.do(Tick())) == []
    assert [view.epoch for view in views(after_freeze(alone, EPOCH + 1))] == [EPOCH + 1]
    alone.now = CLOCK.accept_by(EPOCH + 2)
    assert [view.epoch for view in views(alone.do(Tick()))] == [EPOCH + 2]  # the last moment


def test_the_freeze_itself_belongs_to_the_time_before_it(alone: Alone) -> None:
    for epoch in (EPOCH, EPOCH + 1):
        alone.now = CLOCK.freeze(epoch)
        effects = alone.do(Tick())
        assert (views(effects), codes(effects), sent(effects, Roots)) == ([], [], [])
        assert [view.epoch for view in views(after_freeze(alone, epoch))] == [epoch]
    alone.now = CLOCK.freeze(EPOCH + 4)
    effects = alone.do(Tick())
    assert (views(effects), codes(effects)[:2]) == ([], ["epochs-slept", "epoch-missed"])
    assert [view.epoch for view in views(after_freeze(alone, EPOCH + 4))] == [EPOCH + 4]


def test_while_the_clock_is_wrong_every_view_says_so(alone: Alone) -> None:
    ready(alone)
    alone.meet(OTHER)
    assert [view.refusal for view in views(after_freeze(alone, EPOCH))] == [""]
    for peer in (PEER, OTHER):
        alone.hear(Roots(moment_us=alone.now + 600_000, epoch=EPOCH, roots=()), peer)
    assert alone.market.skewed
    assert [view.refusal for view in views(after_freeze(alone, EPOCH + 1))] == ["clock-skewed"]


def test_time_begins_with_the_restart() -> None:
    one = Alone()
    assert one.market.resume(at(ms=500)) == ()
    one.now = Instant(CLOCK.freeze(EPOCH) + 1)
    assert [view.epoch for view in views(one.do(Follow(book=BOOK)))] == []
    other = Alone()
    other.market.resume(at(EPOCH - 1, ms=500))
    other.now = at(ms=100)
    assert codes(other.do(Follow(book=BOOK))) == []
    assert [view.epoch for view in views(after_freeze(other, EPOCH))] == [EPOCH]
    asleep = Alone()
    asleep.market.resume(at(EPOCH - 3))
    assert codes(after_freeze(asleep, EPOCH)) == ["epochs-slept"]


def test_who_follows_nothing_and_knows_nobody_waits_for_nothing() -> None:
    one = Alone()
    assert one.market.next_deadline() is None
    one.do(Tick())
    assert one.market.next_deadline() is None
    one.do(Follow(book=BOOK))
    assert one.market.next_deadline() is not None
    one.do(Unfollow(book=BOOK))
    one.do(NeighbourUp(peer=PEER))
    one.now = Instant(one.now + 100_000)
    one.do(Tick())
    assert one.market.next_deadline() is not None
    one.do(NeighbourDown(peer=PEER))
    one.now = at(EPOCH + 4)
    one.do(Tick())
    assert one.market.next_deadline() is None


def test_what_is_forgotten_may_come_again(alone: Alone) -> None:
    """The bytes of a message that is retained no more are not known any more; what keeps it out is its age alone."""
    close = seal_close(key(1), REGTEST, Close(network="regtest", book=BOOK, order=bytes(32), epoch=EPOCH, owner=key(1).public))
    alone.do(Publish(message=close))
    assert codes(alone.hear(Batch(messages=(close,)))) == ["duplicate"]
    after_freeze(alone, EPOCH + 60)
    assert codes(alone.hear(Batch(messages=(close,)))) == ["duplicate"]
    after_freeze(alone, EPOCH + 61)
    assert codes(alone.hear(Batch(messages=(close,)))) == ["expired"]


# --- comparing again ------------------------------------------------------------------------------------------------------------


def compared(one: Alone, epoch: int) -> list[Any]:
    """Compare with the neighbour for ``epoch``; he has nothing that we lack."""
    effects = one.do(Compare(book=BOOK, epoch=epoch, peer=PEER))
    effects += one.do(Tick())
    ((_, ask),) = sent(effects, Ask)
    return one.hear(Answer(book=BOOK, session=ask.session, message=b"\x61"))


def test_cleared_again_after_comparing_while_there_is_time(alone: Alone) -> None:
    ready(alone)
    after_freeze(alone, EPOCH)
    alone.hear(Roots(moment_us=alone.now, epoch=EPOCH, roots=(BookRoot(book=BOOK, root=NOTHING),)))
    for now, seen in ((CLOCK.accept_by(EPOCH), [(EPOCH, True)]), (Instant(CLOCK.accept_by(EPOCH) + 1), [])):
        alone.now = now
        effects = compared(alone, EPOCH)
        assert [(view.epoch, view.again) for view in views(effects)] == seen
        assert codes(effects) == []  # roots are of the freeze, and have been compared
    assert views(compared(alone, EPOCH + 1)) == []  # whose freeze is still to come


def test_comparing_is_for_books_that_we_follow(alone: Alone) -> None:
    assert alone.do(Compare(book=SECOND_BOOK, epoch=EPOCH, peer=PEER)) == []
    assert [one for one in alone.do(Compare(book=BOOK, epoch=EPOCH, peer=OTHER)) if isinstance(one, Meet)] == [Meet(peer=OTHER)]


def test_a_batch_holds_no_more_than_its_most(alone: Alone) -> None:
    frame = FRAMES.pack(Batch(messages=(b"\x90",) * BATCH_MAX_ORDERS))
    assert codes(alone.do(FrameIn(peer=PEER, frame=frame))) == ["malformed"] * BATCH_MAX_ORDERS


def test_a_comparison_is_not_over_while_another_brought_what_it_showed(alone: Alone) -> None:
    """Two neighbours show the same message. One brings it and goes; the other's comparison waits for its signature too."""
    alone.meet(OTHER)
    raw = raw_order(1)
    listing = b"\x61\x00\x00\x02\x01" + read(REGTEST, raw).id
    asks = dict(sent(alone.effects, Ask))
    pulls = {}
    for peer in (PEER, OTHER):
        for to, pull in sent(alone.hear(Answer(book=BOOK, session=asks[peer].session, message=listing), peer), Pull):
            pulls[to] = pull
    checks = alone.hear(Pulled(book=BOOK, session=pulls[PEER].session, messages=(raw,)), PEER)
    if OTHER in pulls:
        alone.hear(Pulled(book=BOOK, session=pulls[OTHER].session, messages=(raw,)), OTHER)
    alone.do(NeighbourDown(peer=PEER))
    assert not alone.market.ready(BOOK)
    alone.verify(checks)
    assert alone.market.ready(BOOK)


def test_a_comparison_does_not_wait_for_what_was_not_asked_for(alone: Alone) -> None:
    wanted, beside = raw_order(1), raw_order(2)
    ((_, ask),) = sent(alone.effects, Ask)
    listing = b"\x61\x00\x00\x02\x01" + read(REGTEST, wanted).id
    ((_, pull),) = sent(alone.hear(Answer(book=BOOK, session=ask.session, message=listing)), Pull)
    alone.hear(Pulled(book=BOOK, session=pull.session, messages=(wanted, beside)))
    assert not alone.market.ready(BOOK)
    alone.do(Checked(good=(read(REGTEST, wanted).checks[0].id,)))
    assert alone.market.ready(BOOK)


@pytest.mark.parametrize(
    "fields", [["x" * 33, 1, []], ["regtest", -1, []], ["regtest", 1, [b"short"]], ["regtest", "now", []], []]
)
def test_fields_out_of_bounds_are_malformed(alone: Alone, fields: list[Any]) -> None:
    (tag,) = [number for number, kind in FRAMES.members.items() if kind is Hello]
    assert codes(alone.do(FrameIn(peer=PEER, frame=msgpack.packb([tag, fields])))) == ["malformed"]


def test_two_who_bring_the_same_have_it_both(alone: Alone) -> None:
    alone.meet(OTHER)
    raw = raw_order(1)
    checks = alone.hear(Batch(messages=(raw,)))
    alone.hear(Batch(messages=(raw,)), OTHER)
    assert sent(alone.verify(checks), Batch) == []


def test_a_comparison_is_over_also_when_what_it_brought_is_false(alone: Alone) -> None:
    raw = raw_order(1)[:-8] + bytes(8)
    ((_, ask),) = sent(alone.effects, Ask)
    listing = b"\x61\x00\x00\x02\x01" + read(REGTEST, raw).id
    ((_, pull),) = sent(alone.hear(Answer(book=BOOK, session=ask.session, message=listing)), Pull)
    checks = alone.hear(Pulled(book=BOOK, session=pull.session, messages=(raw,)))
    assert not alone.market.ready(BOOK)
    assert codes(alone.verify(checks)) == ["wrong-signature"]
    assert alone.market.ready(BOOK)
    assert alone.size() == 0


def test_frames_too_are_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbour_module, "RELAY_TOKENS_MAX", 2)
    monkeypatch.setattr(neighbour_module, "RELAY_TOKENS_PER_S", 0)
    one = Alone()
    one.do(Follow(book=BOOK))
    one.meet()
    roots = Roots(moment_us=one.now, epoch=EPOCH, roots=())
    assert codes(one.hear(roots)) == []
    effects = one.hear(roots)
    assert (codes(effects), blames(effects)) == (["too-fast"], [(PEER, "too-fast", 1)])


def test_roots_of_other_epochs_are_not_compared(alone: Alone) -> None:
    theirs = Roots(moment_us=alone.now, epoch=EPOCH, roots=(BookRoot(book=BOOK, root=b"r" * 32),))
    alone.hear(theirs)
    assert codes(after_freeze(alone, EPOCH)).count("roots-differ") == 1
    assert "roots-differ" not in codes(after_freeze(alone, EPOCH + 1))


def test_roots_are_compared_when_both_have_one(alone: Alone) -> None:
    for epoch in (0, 1, EPOCH):
        theirs = Roots(moment_us=alone.now, epoch=epoch, roots=(BookRoot(book=BOOK, root=b"r" * 32),))
        assert codes(alone.hear(theirs)) == []


# --- no room --------------------------------------------------------------------------------------------------------------------


def shown(one: Alone, *raws: bytes) -> int:
    """The neighbour shows that he has these, and they are asked for; returns the session."""
    asks = [frame for to, frame in sent(one.effects, Ask) if to == PEER]
    listing = b"\x61\x00\x00\x02" + bytes([len(raws)]) + b"".join(read(REGTEST, raw).id for raw in raws)
    ((_, pull),) = sent(one.hear(Answer(book=BOOK, session=asks[-1].session, message=listing)), Pull)
    assert len(pull.ids) == len(raws)
    return int(pull.session)


def test_a_comparison_that_found_no_room_is_not_whole(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orderbook.core.intake.MARKET_MESSAGES_MAX", 1)
    first, second = raw_order(1), raw_order(2)
    session = shown(alone, first, second)
    effects = alone.hear(Pulled(book=BOOK, session=session, messages=(first, second)))
    assert codes(effects) == ["market-full"]
    alone.verify(effects)
    assert alone.size() == 1
    assert not alone.market.ready(BOOK)


@pytest.mark.parametrize("unasked", [False, True])
def test_what_has_no_place_anyway_makes_no_comparison_partial(
    alone: Alone, monkeypatch: pytest.MonkeyPatch, *, unasked: bool
) -> None:
    """Too old even for who asks, or not what was asked for."""
    first = raw_order(1)
    other = raw_order(2) if unasked else raw_order(2, first_epoch=EPOCH - 61, last_epoch=EPOCH - 60)
    session = shown(alone, first) if unasked else shown(alone, first, other)
    if unasked:
        monkeypatch.setattr("orderbook.core.intake.MARKET_MESSAGES_MAX", 1)
    effects = alone.hear(Pulled(book=BOOK, session=session, messages=(first, other)))
    assert codes(effects) == ["market-full" if unasked else "expired"]
    alone.verify(effects)
    assert alone.size() == 1
    assert alone.market.ready(BOOK)


def test_messages_that_nothing_waits_for_are_ignored(alone: Alone) -> None:
    ((_, ask),) = sent(alone.effects, Ask)
    assert codes(alone.hear(Pulled(book=BOOK, session=ask.session, messages=(raw_order(),)))) == ["stale-answer"]
    assert not alone.market.ready(BOOK)
    ready(alone)
    assert (alone.market.ready(BOOK), alone.size()) == (True, 0)


def test_what_has_ended_while_it_was_verified_is_counted(alone: Alone) -> None:
    effects = alone.hear(Batch(messages=(raw_order(last_epoch=EPOCH + 1),)))
    alone.now = at(EPOCH + 2)
    alone.do(Tick())
    assert "expired" in codes(alone.verify(effects))
    assert alone.size() == 0


def test_slack_is_told_of_what_was_pushed_and_of_what_is_of_this_epoch() -> None:
    assert arrivals((), CLOCK, at()) == []
    messages = [
        (asked, read(REGTEST, raw_order(1, first_epoch=first, last_epoch=EPOCH + 2)))
        for asked, first in ((False, EPOCH - 1), (True, EPOCH - 1), (True, EPOCH), (True, EPOCH + 1))
    ]
    admitted = [Pending(heard=heard, source=PEER, asked=asked, born=at(ms=5), left=None) for asked, heard in messages]
    (told,) = arrivals(admitted, CLOCK, at())
    assert told.slack_us == tuple(CLOCK.freeze(epoch) - at() for epoch in (EPOCH - 1, EPOCH, EPOCH + 1))
    assert told.ages_us == (0, 0, 0, 0)  # a birth to come is a clock that is ahead


def test_every_check_says_since_when_its_message_is_under_way(alone: Alone) -> None:
    alone.now = at(ms=5_000)
    alone.market.handle(Tick(), alone.now)
    batch = Batch(messages=(raw_order(1), raw_order(2), raw_order(3)), moment_us=alone.now, ages_ms=(0, 40, 65_535))
    (check,) = [one for one in alone.hear(batch) if isinstance(one, Check)]
    assert check.since == (at(ms=5_000), at(ms=4_960), at(ms=4_000))
    assert [one.digest for one in check.items] == [read(REGTEST, raw_order(number)).id for number in (1, 2, 3)]
