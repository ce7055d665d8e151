"""Markets that gossip: equal views at five nodes however frames arrive, bounds and blame for what is bad, clocks, readiness."""

import random
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orderbook.core.auction import auction_seed, clear
from orderbook.core.book import Book
from orderbook.core.clockwatch import judge
from orderbook.core.events import (
    Admitted,
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
    SendFrame,
    Shares,
    Tick,
    Unfollow,
)
from orderbook.core.evidence import proof_of
from orderbook.core.frames import FRAMES, Answer, Ask, Batch, BookRoot, Hello, Pull, Pulled, Roots
from orderbook.core.market import Market
from orderbook.core.messages import GOSSIP, Close, SealedOrder, Side, read, seal_close, seal_order, seal_proof, sign_match
from orderbook.core.neighbour import Neighbour, batches, parcel
from tests.orderbook.test_messages import match, order
from tests.orderbook.world import BOOK, EPOCH, World, at, key
from wire.effects import Blame, Count
from wire.keys import verify
from wire.limits import BATCH_MAX_BYTES, BATCH_MAX_ORDERS, FRAME_MAX_BYTES, RELAY_KNOWN_IDS, RELAY_OUTBOX_MESSAGES
from wire.moments import Instant
from wire.network import REGTEST

ME, PEER, OTHER = key(100), key(101).peer_id, key(102).peer_id


class Alone:
    """One market whose driver is the test."""

    def __init__(self) -> None:
        self.market = Market(REGTEST, ME.peer_id)
        self.now = at(ms=100)
        self.effects: list[Any] = []

    def do(self, event: Any) -> list[Any]:
        effects = list(self.market.handle(event, self.now))
        self.effects += effects
        return effects

    def meet(self, peer: Any = PEER, books: tuple[bytes, ...] = (BOOK,)) -> list[Any]:
        self.do(NeighbourUp(peer=peer))
        return self.hear(Hello(network="regtest", moment_us=self.now, books=books), peer)

    def hear(self, frame: Any, peer: Any = PEER) -> list[Any]:
        return self.do(FrameIn(peer=peer, frame=FRAMES.pack(frame)))

    def verify(self, effects: list[Any]) -> list[Any]:
        items = [item for one in effects if isinstance(one, Check) for item in one.items]
        good = tuple(one.id for one in items if verify(one.public, one.digest, one.signature))
        return self.do(Checked(good=good, bad=tuple(one.id for one in items if one.id not in good)))

    def size(self) -> int:
        return self.market.statistics()["messages"]


def codes(effects: list[Any]) -> list[str]:
    return [one.code for one in effects if isinstance(one, Count)]


def sent(effects: list[Any], kind: type) -> list[tuple[Any, Any]]:
    frames = [(one.peer, FRAMES.unpack(one.frame)) for one in effects if isinstance(one, SendFrame)]
    return [(peer, frame) for peer, frame in frames if isinstance(frame, kind)]


def raw_order(owner: int = 1, **more: Any) -> bytes:
    return seal_order(key(owner), REGTEST, order(owner, **more))


@pytest.fixture
def alone() -> Alone:
    one = Alone()
    one.do(Follow(book=BOOK))
    one.meet()
    return one


# --- five nodes --------------------------------------------------------------------------------------------


def a_book_of_messages(dice: random.Random) -> list[bytes]:
    messages = []
    for owner in range(1, 9):
        for side, low in ((Side.BUY, 20), (Side.SELL, 18)):
            for slot in range(2):
                one = raw_order(
                    owner,
                    side=side,
                    slot=slot,
                    price_msat=(low + dice.randrange(5)) * 1_000,
                    quantity=dice.randint(1, 6),
                    sequence=dice.randint(1, 3),
                )
                messages.append(one)
                if dice.random() < 0.2:
                    close = Close(
                        network="regtest", book=BOOK, order=read(REGTEST, one).id, epoch=EPOCH + 1, owner=key(owner).public
                    )
                    messages.append(seal_close(key(owner), REGTEST, close))
    return messages


@pytest.mark.parametrize("seed", range(6))
def test_five_nodes_see_the_same_whatever_the_order_of_arrival(seed: int) -> None:
    """I1, I8, I11: frames reordered, doubled and delayed between five markets; roots and fills are one."""
    dice = random.Random(99)
    messages = a_book_of_messages(dice)
    world = World(5, seed=seed)
    world.repeat = 0.3
    world.delay_us = lambda: world.random.randrange(500, 60_000)
    world.mesh()
    world.run(at(ms=300))
    world.ordered = False
    world.random.shuffle(messages)
    for number, message in enumerate(messages):
        node = world.list[world.random.randrange(5)]
        world.later(at(ms=300 + 10 * (number % 40)), partial(world.market, node, Publish(message=message)))
    world.run(at(EPOCH + 1, ms=700))
    views = [node.cleared[-1] for node in world.list]
    assert {view.epoch for view in views} == {EPOCH + 1}
    assert len({view.root for view in views}) == 1
    assert len({view.fills for view in views}) == 1
    assert {view.refusal for view in views} == {""}
    assert len(views[0].fills) > 5
    assert views[0].fills == alone_with(messages)  # and what one node computes from the bare set
    assert all(sum(node.counts[code] for code in BAD) == 0 for node in world.list)


def alone_with(messages: list[bytes]) -> Any:
    """The fills of one book that was given the messages one after another, sorted."""
    book = Book(REGTEST.clock)
    for message in sorted(messages):
        book.admit(read(REGTEST, message), at(), asked=False)
    return clear(*book.eligible(EPOCH + 1), auction_seed("regtest", BOOK, EPOCH + 1))


BAD = ("malformed", "wrong-signature", "bad-stamp", "bad-reconciliation", "outbox-full", "epoch-missed")


def test_loss_is_healed_by_reconciliation() -> None:
    """Half of all pushed batches are lost, and books are equal at the freeze all the same."""
    world = World(4, seed=5)
    world.mesh()
    world.run(at(ms=300))
    world.lose_frame = lambda _, __, frame: isinstance(FRAMES.unpack(frame), Batch) and world.random.random() < 0.5
    for message in a_book_of_messages(random.Random(1)):
        world.market(world.list[world.random.randrange(4)], Publish(message=message))
    world.run(at(EPOCH + 1, ms=700))
    assert len({node.cleared[-1].root for node in world.list}) == 1
    assert len(world.list[0].cleared[-1].fills) > 0


def test_a_newcomer_learns_history_and_has_the_same_root() -> None:
    """An expired order still supersedes older ones, so who comes later must hear of it."""
    world = World(2)
    world.mesh()
    world.run(at(ms=100))
    live = raw_order(1, sequence=1, last_epoch=EPOCH + 50)
    dead = raw_order(1, sequence=2, first_epoch=EPOCH + 1, last_epoch=EPOCH + 2)
    for message in (live, dead):
        world.market(world.list[0], Publish(message=message))
    world.run(at(EPOCH + 10))
    newcomer = world.add(7)
    world.market(newcomer, Follow(book=BOOK))
    world.connect(newcomer, world.list[0])
    world.run(at(EPOCH + 11, ms=700))
    views = [node.cleared[-1] for node in world.list]
    assert len({view.root for view in views}) == 1
    assert [view.buys for view in views] == [(), (), ()]
    assert newcomer.cleared[-1].refusal == ""


def test_messages_reach_those_who_are_not_neighbours() -> None:
    world = World(5)
    for node in world.list:
        world.market(node, Follow(book=BOOK))
    for one, other in zip(world.list, world.list[1:], strict=False):
        world.connect(one, other)
    world.run(at(ms=300))
    world.market(world.list[0], Publish(message=raw_order()))
    world.run(at(EPOCH + 1, ms=700))
    assert [len(node.cleared[-1].buys) for node in world.list] == [1] * 5


# --- what is bad -------------------------------------------------------------------------------------------


def test_every_bad_message_is_dropped_counted_and_the_good_beside_it_kept(alone: Alone) -> None:
    good = raw_order(1)
    forged = GOSSIP.pack(SealedOrder(body=GOSSIP.unpack(raw_order(2)).body, signature=bytes(64)))
    other_book = raw_order(1, book=bytes(32))
    messages = (
        b"\xc1 not msgpack",
        bytes(1_050),
        b"\x92\x09\x91\x00",
        raw_order(1, network="signet"),
        raw_order(3, first_epoch=EPOCH - 9, last_epoch=EPOCH - 1),
        raw_order(3, first_epoch=EPOCH + 9, last_epoch=EPOCH + 9),
        GOSSIP.pack(SealedOrder(body=GOSSIP.unpack(good).body[:-8] + b"no work!", signature=bytes(64))),
        other_book,
        forged,
        good,
        good,
    )
    effects = alone.hear(Batch(messages=messages))
    assert sorted(codes(effects)) == sorted(
        ["malformed", "oversize", "unknown-kind", "wrong-network", "expired", "early", "bad-stamp", "unfollowed", "duplicate"]
    )
    assert sorted(codes(alone.verify(effects))) == ["wrong-signature"]
    assert alone.size() == 1
    blamed = {one.code for one in alone.effects if isinstance(one, Blame)}
    assert blamed == {"malformed", "oversize", "unknown-kind", "bad-stamp", "wrong-signature"}
    replayed = alone.hear(Batch(messages=(good,)))
    assert codes(replayed) == ["duplicate"]
    assert not [one for one in replayed if isinstance(one, Check)]


def test_a_false_signature_does_not_shut_out_the_true_one(alone: Alone) -> None:
    good = raw_order(1)
    forged = GOSSIP.pack(SealedOrder(body=GOSSIP.unpack(good).body, signature=bytes(64)))
    first = alone.hear(Batch(messages=(forged,)))
    second = alone.hear(Batch(messages=(good,)))
    assert alone.size() == 0
    alone.verify(first)
    assert alone.size() == 0
    alone.verify(second)
    assert alone.size() == 1
    assert codes(alone.hear(Batch(messages=(forged,)))) == ["duplicate"]


def test_verified_once_however_often_it_comes(alone: Alone) -> None:
    alone.meet(OTHER)
    good = raw_order(1)
    effects = [one for peer in (PEER, OTHER, PEER) for one in alone.hear(Batch(messages=(good, good)), peer)]
    checks = [item for one in effects if isinstance(one, Check) for item in one.items]
    assert len(checks) == 1


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"", "malformed"),
        (b"\xc1", "malformed"),
        (b"\x92\x09\x90", "unknown-kind"),
        (b"\x92\x02\x91\x05", "malformed"),
        (bytes(FRAME_MAX_BYTES + 1), "oversize"),
        (FRAMES.pack(Ask(book=BOOK, session=1, message=b"\x60")), "bad-reconciliation"),
        (FRAMES.pack(Ask(book=bytes(32), session=1, message=b"\x61")), "unfollowed"),
        (FRAMES.pack(Pull(book=bytes(32), session=1, ids=(bytes(32),))), "unfollowed"),
        (FRAMES.pack(Answer(book=BOOK, session=77, message=b"\x61")), "stale-answer"),
        (FRAMES.pack(Pulled(book=BOOK, session=77, messages=())), "stale-answer"),
    ],
)
def test_bad_frames(alone: Alone, frame: bytes, code: str) -> None:
    assert codes(alone.do(FrameIn(peer=PEER, frame=frame))) == [code]


@given(st.binary(max_size=120), st.integers(1, 7))
@settings(max_examples=400, deadline=None)
def test_no_frame_breaks_a_market(data: bytes, tag: int) -> None:
    one = Alone()
    one.do(Follow(book=BOOK))
    one.meet()
    one.do(FrameIn(peer=PEER, frame=data))
    one.do(FrameIn(peer=PEER, frame=b"\x92" + bytes([tag]) + data))
    one.hear(Batch(messages=(data or b"\x00",)))
    one.hear(Ask(book=BOOK, session=1, message=b"\x61" + data))
    one.hear(Answer(book=BOOK, session=1, message=b"\x61" + data))
    one.do(Checked(good=(data,), bad=(data,)))
    one.do(Publish(message=data))


def test_a_neighbour_of_another_network_is_not_heard() -> None:
    one = Alone()
    one.do(Follow(book=BOOK))
    one.do(NeighbourUp(peer=PEER))
    assert codes(one.hear(Hello(network="main", moment_us=one.now, books=(BOOK,)))) == ["wrong-network"]
    assert codes(one.hear(Batch(messages=(raw_order(),)))) == ["not-greeted"]
    assert codes(one.hear(Batch(messages=()), OTHER)) == ["not-a-neighbour"]


def test_who_sends_too_fast_is_cut_short(alone: Alone) -> None:
    full = Batch(messages=(b"\x90",) * BATCH_MAX_ORDERS)
    seen = [codes(alone.hear(full))[-1] for _ in range(120)]
    assert seen[0] == "malformed"
    assert seen[-1] == "too-fast"
    alone.now = Instant(alone.now + 1_000_000)
    alone.verify(alone.hear(Batch(messages=(raw_order(),))))
    assert alone.size() == 1


def test_answers_that_break_the_protocol_end_the_session(alone: Alone) -> None:
    ((_, ask),) = sent(alone.effects, Ask)
    effects = alone.hear(Answer(book=BOOK, session=ask.session, message=b"\x61\x00\x00\x07"))
    assert codes(effects) == ["bad-reconciliation"]
    assert not alone.market.ready(BOOK)
    assert codes(alone.hear(Answer(book=BOOK, session=ask.session, message=b"\x61"))) == ["stale-answer"]


def test_a_silent_responder_is_given_up(alone: Alone) -> None:
    alone.now = Instant(alone.now + 3_100_000)
    assert "reconcile-timeout" in codes(alone.do(Tick()))


def test_what_was_not_asked_for_is_not_history(alone: Alone) -> None:
    """A neighbour cannot smuggle expired orders in by putting them beside what was asked for."""
    expired = raw_order(3, first_epoch=EPOCH - 9, last_epoch=EPOCH - 1)
    wanted = raw_order(4, first_epoch=EPOCH - 9, last_epoch=EPOCH - 1)
    ((_, ask),) = sent(alone.effects, Ask)
    listing = b"\x61\x00\x00\x02\x01" + read(REGTEST, wanted).id
    ((_, pull),) = sent(alone.hear(Answer(book=BOOK, session=ask.session, message=listing)), Pull)
    effects = alone.hear(Pulled(book=BOOK, session=pull.session, messages=(expired, wanted)))
    assert codes(effects) == ["expired"]
    assert not alone.market.ready(BOOK)
    alone.verify(effects)
    assert alone.size() == 1
    assert alone.market.ready(BOOK)


def test_an_equivocator_is_blamed_and_the_proof_passed_on(alone: Alone) -> None:
    alone.meet(OTHER)
    alone.now = Instant(alone.now + 60_000)
    cheat = key(9)
    signed = [(one, sign_match(cheat, one, Side.SELL)) for one in (match(), match(buy=b"c" * 32, sell_from=1))]
    raw = seal_proof(REGTEST, proof_of(cheat.public, Side.SELL, *signed))
    effects = alone.verify(alone.hear(Batch(messages=(raw,))))
    (blame,) = [one for one in effects if isinstance(one, Blame)]
    assert (blame.peer, blame.code) == (cheat.peer_id, "equivocation")
    assert [(peer, frame.messages) for peer, frame in sent(effects, Batch)] == [(OTHER, (raw,))]
    false = seal_proof(REGTEST, proof_of(key(8).public, Side.SELL, *signed))
    assert codes(alone.verify(alone.hear(Batch(messages=(false,))))) == ["wrong-signature"]


# --- pushing -----------------------------------------------------------------------------------------------


def test_each_message_goes_once_to_each_who_has_not_shown_it(alone: Alone) -> None:
    alone.meet(OTHER)
    alone.meet(key(103).peer_id, books=())
    message = raw_order()
    effects = alone.verify(alone.hear(Batch(messages=(message,))))
    assert [peer for peer, _ in sent(effects, Batch)] == [OTHER]
    alone.now = Instant(alone.now + 200_000)
    assert sent(alone.do(Tick()), Batch) == []
    assert sent(alone.hear(Batch(messages=(message,)), OTHER), Batch) == []


def test_the_first_goes_at_once_and_the_next_wait_for_the_window(alone: Alone) -> None:
    assert len(sent(alone.do(Publish(message=raw_order(1))), Batch)) == 1
    assert sent(alone.do(Publish(message=raw_order(2))), Batch) == []
    assert sent(alone.do(Publish(message=raw_order(3))), Batch) == []
    due = alone.market.next_deadline()
    assert due == alone.now + 10_000
    alone.now = due
    ((_, batch),) = sent(alone.do(Tick()), Batch)
    assert batch.messages == (raw_order(2), raw_order(3))


@pytest.mark.parametrize(("messages", "window_ms"), [(1, 10), (2, 10), (3, 15), (9, 45), (10, 50), (400, 50)])
def test_the_window_grows_with_what_the_last_batch_held(messages: int, window_ms: int) -> None:
    neighbour = Neighbour(PEER, at())
    for number in range(messages):
        neighbour.put(number.to_bytes(32, "big"), parcel(b"x", whole=True))
    assert len(neighbour.flush(at())) == 1
    neighbour.put(b"next" * 8, parcel(b"x", whole=True))
    assert neighbour.flush_at() == at(ms=window_ms)
    assert neighbour.flush(Instant(at(ms=window_ms) - 1)) == ()
    assert len(neighbour.flush(at(ms=window_ms))) == 1


# --- how old what comes is ---------------------------------------------------------------------------------


def test_a_batch_tells_how_old_each_message_is() -> None:
    neighbour = Neighbour(PEER, at())
    neighbour.put(b"a" * 32, parcel(b"a", at(ms=-7), whole=True))
    neighbour.put(b"b" * 32, parcel(b"b", at(ms=-100_000), whole=True))
    neighbour.put(b"c" * 32, parcel(b"c", whole=True))
    neighbour.put(b"d" * 32, parcel(b"d", at(ms=3), whole=True))
    (frame,) = neighbour.flush(at())
    assert FRAMES.unpack(frame) == Batch(messages=(b"a", b"b", b"c", b"d"), moment_us=at(), ages_ms=(7, 65_535, 65_535, 0))


def test_ages_of_batches_that_are_cut_stay_with_their_messages() -> None:
    neighbour = Neighbour(PEER, at())
    for number in range(600):
        neighbour.put(number.to_bytes(32, "big"), parcel(number.to_bytes(2, "big"), at(ms=-number), whole=True))
    told = [pair for frame in neighbour.flush(at()) for pair in _pairs(FRAMES.unpack(frame))]
    assert told == [(number.to_bytes(2, "big"), number) for number in range(600)]


def _pairs(batch: Batch) -> list[tuple[bytes, int]]:
    return list(zip(batch.messages, batch.ages_ms, strict=True))


def test_the_way_counts_as_far_as_it_took_longer_than_the_quickest() -> None:
    neighbour = Neighbour(PEER, at())
    batch = Batch(messages=(b"a", b"b"), moment_us=at(ms=100), ages_ms=(5, 65_535))
    assert neighbour.births(batch, at(ms=130)) == [at(ms=125), None]  # no frame to compare with yet
    neighbour.tells_time(at(ms=0), at(ms=20))  # his clock less ours, less the way: -20 ms
    neighbour.tells_time(at(ms=50), at(ms=90))
    assert neighbour.births(batch, at(ms=130)) == [at(ms=115), None]  # 10 ms more than the quickest
    assert neighbour.births(batch, at(ms=110)) == [at(ms=105), None]  # quicker than the quickest
    assert neighbour.births(Batch(messages=(b"a",)), at()) == [None]
    lie = Batch(messages=(b"a",), ages_ms=(65_534,))
    assert neighbour.births(lie, at()) == [at(ms=-65_535 - 65_534)]


def test_admission_tells_age_and_slack_and_the_age_travels_on(alone: Alone) -> None:
    alone.meet(OTHER)
    left = alone.now
    alone.now = Instant(left + 30_000)
    heard = alone.hear(Batch(messages=(raw_order(1),), moment_us=left, ages_ms=(40,)))
    alone.now = Instant(left + 32_000)
    effects = alone.verify(heard)
    (admitted,) = [one for one in effects if isinstance(one, Admitted)]
    assert admitted.ages_us == (72_000,)  # HELLO took no time at all, so all of the way counts
    assert admitted.slack_us == (REGTEST.clock.freeze(EPOCH + 1) - alone.now,)
    ((peer, batch),) = sent(effects, Batch)
    assert (peer, batch.moment_us, batch.ages_ms) == (OTHER, alone.now, (72,))


def test_what_is_not_told_is_not_guessed_and_what_comes_late_says_so(alone: Alone) -> None:
    alone.now = at(ms=700)  # after the freeze
    effects = alone.verify(alone.hear(Batch(messages=(raw_order(1, first_epoch=EPOCH),))))
    assert [one for one in effects if isinstance(one, Admitted)] == [Admitted(ages_us=(), slack_us=(-100_000,))]


def test_a_batch_with_too_few_ages_is_a_fault(alone: Alone) -> None:
    effects = alone.hear(Batch(messages=(raw_order(1), raw_order(2)), moment_us=alone.now, ages_ms=(1,)))
    assert [one.code for one in effects if isinstance(one, Blame)] == ["malformed"]
    assert alone.market.statistics()["checking"] == 0


def test_our_own_orders_are_no_news(alone: Alone) -> None:
    assert not [one for one in alone.do(Publish(message=raw_order(1))) if isinstance(one, Admitted)]


def test_a_neighbour_is_bounded() -> None:
    neighbour = Neighbour(PEER, at())
    for number in range(RELAY_OUTBOX_MESSAGES):
        assert neighbour.put(number.to_bytes(32, "big"), parcel(b"x" * 300, whole=True))
    assert not neighbour.put(bytes(31) + b"\xff" + b"x", parcel(b"x", whole=True))
    frames = neighbour.flush(at())
    assert all(len(frame) <= BATCH_MAX_BYTES + 100 for frame in frames)
    assert sum(len(FRAMES.unpack(frame).messages) for frame in frames) == RELAY_OUTBOX_MESSAGES
    for number in range(RELAY_KNOWN_IDS + 10):
        neighbour.shows(number.to_bytes(33, "big"))
    assert not neighbour.knows((0).to_bytes(33, "big"))  # forgotten, so it may go again
    assert len(neighbour._shown) + len(neighbour._shown_before) <= RELAY_KNOWN_IDS


def test_batches_are_cut_by_bytes_and_by_number() -> None:
    assert [len(part) for part in batches([b"x" * 1_000] * 130)] == [64, 64, 2]
    assert [len(part) for part in batches([b"x"] * (BATCH_MAX_ORDERS + 1))] == [BATCH_MAX_ORDERS, 1]
    assert batches([]) == []


# --- clearing ----------------------------------------------------------------------------------------------


def test_cleared_once_per_book_and_epoch_right_after_the_freeze(alone: Alone) -> None:
    freeze = REGTEST.clock.freeze(EPOCH)
    alone.now = freeze
    assert not [one for one in alone.do(Tick()) if isinstance(one, Cleared)]
    alone.now = Instant(freeze + 1)
    (view,) = [one for one in alone.do(Tick()) if isinstance(one, Cleared)]
    assert (view.book, view.epoch, view.again) == (BOOK, EPOCH, False)
    assert not [one for one in alone.do(Tick()) if isinstance(one, Cleared)]


def test_what_comes_in_the_tick_of_the_freeze_is_too_late(alone: Alone) -> None:
    """The driver is late: the frame is handled after the freeze and does not slip into its auction."""
    alone.now = Instant(REGTEST.clock.freeze(EPOCH) + 30_000)
    effects = alone.hear(Batch(messages=(raw_order(1, first_epoch=EPOCH),)))
    (view,) = [one for one in effects if isinstance(one, Cleared)]
    assert view.buys == ()
    alone.verify(effects)
    alone.now = Instant(REGTEST.clock.freeze(EPOCH + 1) + 1)
    (following,) = [one for one in alone.do(Tick()) if isinstance(one, Cleared)]
    assert len(following.buys) == 1


def test_a_slept_epoch_is_counted_and_not_traded(alone: Alone) -> None:
    alone.now = at(EPOCH + 5, ms=1_950)
    effects = alone.do(Tick())
    assert "epochs-slept" in codes(effects)
    assert "epoch-missed" in codes(effects)
    assert not [one for one in effects if isinstance(one, Cleared)]


def test_ready_after_one_full_comparison_and_never_alone() -> None:
    """A node that comes back to an empty book before it has met anybody must not take that for the market."""
    one = Alone()
    one.do(Follow(book=BOOK))
    assert not one.market.ready(BOOK)
    one.now = Instant(REGTEST.clock.freeze(EPOCH) + 1)
    (view,) = [each for each in one.do(Tick()) if isinstance(each, Cleared)]
    assert view.refusal == "alone"
    effects = one.meet()
    assert not one.market.ready(BOOK)
    one.now = Instant(REGTEST.clock.freeze(EPOCH + 1) + 1)
    (view,) = [each for each in one.do(Tick()) if isinstance(each, Cleared)]
    assert view.refusal == "not-ready"
    ((_, ask),) = sent(effects, Ask)
    one.hear(Answer(book=BOOK, session=ask.session, message=b"\x61"))
    assert one.market.ready(BOOK)
    one.do(NeighbourDown(peer=PEER))
    assert not one.market.ready(BOOK)
    one.meet(OTHER)
    assert not one.market.ready(BOOK)  # what happened while we were alone is unknown
    one.hear(Hello(network="regtest", moment_us=one.now, books=()), OTHER)
    assert not one.market.ready(BOOK)
    one.now = Instant(REGTEST.clock.freeze(EPOCH + 2) + 1)
    (view,) = [each for each in one.do(Tick()) if isinstance(each, Cleared)]
    assert view.refusal == "alone"  # who does not follow the book does not count


def test_unfollowed_books_are_forgotten(alone: Alone) -> None:
    message = raw_order()
    alone.do(Publish(message=message))
    alone.do(Unfollow(book=BOOK))
    alone.now = Instant(alone.now + 50_000)
    effects = alone.do(Tick())
    assert [frame.books for _, frame in sent(effects, Hello)] == [()]
    assert alone.market.statistics()["messages"] == 0
    assert codes(alone.hear(Batch(messages=(message,)))) == ["unfollowed"]
    alone.do(Follow(book=BOOK))
    alone.verify(alone.hear(Batch(messages=(message,))))
    assert alone.size() == 1


def test_different_roots_hasten_the_next_comparison(alone: Alone) -> None:
    ((_, ask),) = sent(alone.effects, Ask)
    alone.hear(Answer(book=BOOK, session=ask.session, message=b"\x61"))
    alone.do(Publish(message=raw_order()))
    alone.now = Instant(REGTEST.clock.freeze(EPOCH) - 1_000)
    ((_, warm),) = sent(alone.do(Tick()), Ask)  # the one before the freeze
    alone.hear(Answer(book=BOOK, session=warm.session, message=b"\x61"))
    alone.now = Instant(REGTEST.clock.freeze(EPOCH) + 1)
    assert len(sent(alone.do(Tick()), Roots)) == 1
    theirs = Roots(moment_us=alone.now, epoch=EPOCH, roots=(BookRoot(book=BOOK, root=b"r" * 32),))
    assert codes(alone.hear(theirs)) == ["roots-differ"]
    alone.now = Instant(alone.now + 500_000)
    assert len(sent(alone.do(Tick()), Ask)) == 1


def test_comparing_with_a_stranger_asks_to_meet_him(alone: Alone) -> None:
    alone.now = Instant(REGTEST.clock.freeze(EPOCH) + 1)
    alone.do(Tick())
    assert [one for one in alone.do(Compare(book=BOOK, epoch=EPOCH, peer=OTHER)) if isinstance(one, Meet)] == [Meet(peer=OTHER)]
    effects = alone.meet(OTHER)
    ((_, ask),) = sent(effects, Ask)
    late = raw_order(5, first_epoch=EPOCH)
    listing = b"\x61\x00\x00\x02\x01" + read(REGTEST, late).id
    ((_, pull),) = sent(alone.hear(Answer(book=BOOK, session=ask.session, message=listing), OTHER), Pull)
    effects = alone.verify(alone.hear(Pulled(book=BOOK, session=pull.session, messages=(late,)), OTHER))
    (view,) = [one for one in effects if isinstance(one, Cleared)]
    assert (view.again, view.epoch, len(view.buys)) == (True, EPOCH, 1)


# --- clocks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offsets", "skewed"),
    [
        ([], False),
        ([None], False),
        ([250_000], False),
        ([250_001], True),
        ([-250_001], True),
        ([0, 900_000], False),
        ([900_000, 900_000, 0], True),
        ([900_000, -900_000], False),
        ([900_000, -900_000, 0], False),
    ],
)
def test_judging_a_clock(offsets: list[int | None], *, skewed: bool) -> None:
    assert judge(offsets, REGTEST.clock).skewed is skewed


def test_slow_frames_do_not_make_a_clock_late() -> None:
    neighbour = Neighbour(PEER, at())
    for delay_us in (400_000, 300_000):
        neighbour.tells_time(at() - delay_us, at())
    assert neighbour.offset_us() == 0
    neighbour.tells_time(at() - 30_000, at())
    assert neighbour.offset_us() == -30_000


@pytest.mark.parametrize("skew_us", [400_000, -400_000])
def test_a_node_with_a_wrong_clock_refuses_and_says_so(skew_us: int) -> None:
    world = World(4)
    wrong = world.list[3]
    wrong.skew_us = skew_us
    world.mesh()
    world.run(at(EPOCH + 4))
    assert wrong.judged
    assert wrong.judged[-1].skewed
    assert ("behind" if skew_us < 0 else "ahead of") in wrong.judged[-1].sentence
    assert wrong.cleared[-1].refusal == "clock-skewed"
    assert [node.cleared[-1].refusal for node in world.list[:3]] == [""] * 3
    wrong.skew_us = 0
    world.run(at(EPOCH + 24))
    assert not wrong.judged[-1].skewed
    assert wrong.cleared[-1].refusal == ""


def test_a_difference_seen_by_one_is_looked_into_by_both(alone: Alone) -> None:
    """A neighbour's comparison shows that he has what we lack: we do not wait for the next time, and not for ever either."""
    ((_, ask),) = sent(alone.effects, Ask)
    alone.hear(Answer(book=BOOK, session=ask.session, message=b"\x61"))
    alone.now = Instant(alone.now + 10_000)
    differing = b"\x61\x00\x00\x01" + bytes(16)
    ((_, answer),) = sent(alone.hear(Ask(book=BOOK, session=9, message=differing)), Answer)
    assert len(answer.message) > 1
    assert sent(alone.do(Tick()), Ask) == []
    alone.now = Instant(at(ms=100) + 499_999)
    assert sent(alone.do(Tick()), Ask) == []
    alone.now = Instant(at(ms=100) + 500_000)
    assert alone.market.next_deadline() == alone.now
    assert len(sent(alone.do(Tick()), Ask)) == 1


def test_who_follows_what_is_told_as_it_changes() -> None:
    second, third = b"2" * 32, b"3" * 32
    one = Alone()

    def told(effects: list[Any]) -> list[Shares]:
        return [effect for effect in effects if isinstance(effect, Shares)]

    assert told(one.meet(books=(second, third))) == [Shares(peer=PEER, books=())]
    assert told(one.do(Follow(book=BOOK))) == []
    for event, books in (
        (Follow(book=third), (third,)),
        (Follow(book=second), (second, third)),
        (Unfollow(book=third), (second,)),
    ):
        assert told(one.do(event)) == []
        one.now = Instant(one.now + 50_000)
        assert told(one.do(Tick())) == [Shares(peer=PEER, books=books)]
    hello = Hello(network="regtest", moment_us=one.now, books=(BOOK,))
    assert told(one.hear(hello)) == [Shares(peer=PEER, books=(BOOK,))]
    assert told(one.do(NeighbourDown(peer=PEER))) == [Shares(peer=PEER, books=())]
    assert told(one.do(NeighbourDown(peer=PEER))) == []
