"""I17: reconciliation ends, with the union for every honest pair, and within its bounds whatever a neighbour says."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orderbook.core.events import Check, Checked, Follow, FrameIn, NeighbourUp, Publish, SendFrame, Tick
from orderbook.core.frames import FRAMES, Answer, Ask, Hello, Pull, Pulled
from orderbook.core.index import Index
from orderbook.core.market import Market
from orderbook.core.messages import read
from orderbook.core.negentropy import INFINITY, BadReconciliation, Initiator, Vector, respond, varint
from tests.orderbook.test_market import OTHER, PEER, Alone, codes, raw_order, sent
from tests.orderbook.test_negentropy import name
from tests.orderbook.world import BOOK, EPOCH, World, at, key
from wire.effects import Blame, Count
from wire.keys import verify
from wire.limits import (
    BATCH_MAX_ORDERS,
    RECONCILE_BARREN_ROUNDS_MAX,
    RECONCILE_BYTES_MAX,
    RECONCILE_FRAME_BYTES,
    RECONCILE_ROUNDS_BURST,
    RECONCILE_ROUNDS_MAX,
    RECONCILE_SESSIONS_MAX,
    RECONCILE_WINDOW_IDS,
)
from wire.moments import Instant
from wire.network import REGTEST


def listing(names: list[bytes], end: bytes = b"\x00\x00") -> bytes:
    return b"\x61" + end + b"\x02" + varint(len(names)) + b"".join(names)


def blames(effects: list[Any]) -> list[tuple[str, int]]:
    return [(one.code, one.penalty) for one in effects if isinstance(one, Blame)]


@pytest.fixture
def alone() -> Alone:
    one = Alone()
    one.do(Follow(book=BOOK))
    one.meet()
    return one


def ask_of(effects: list[Any]) -> Ask:
    ((_, ask),) = sent(effects, Ask)
    assert isinstance(ask, Ask)
    return ask


# --- honest ------------------------------------------------------------------------------------------------


def union_of(ours: set[int], theirs: set[int], epochs: int, limit: int, *, probe: bool) -> int:
    """Reconcile by repeated sessions as a node does, until one was whole; returns the rounds of all."""
    here, there = (Index((one % epochs, name(one)) for one in numbers) for numbers in (ours, theirs))
    known, rounds = set(ours), 0
    by_name = {name(one): one for one in theirs}
    while True:
        initiator = Initiator(here.vector(), limit)
        message: bytes | None = initiator.probe() if probe else initiator.open()
        fresh: list[bytes] = []
        while message is not None:
            answer = respond(there.vector(), message, limit)
            assert len(message) <= limit + 1_100
            assert len(answer) <= limit + 1_100
            message = initiator.answer(answer)
            fresh += initiator.fresh()
        assert len(fresh) == len(set(fresh))
        assert set(fresh) == initiator.need
        assert initiator.need <= set(by_name)
        rounds += initiator.rounds
        for one in fresh:
            known.add(by_name[one])
            here.add((by_name[one] % epochs, one))
        if not initiator.cut_short:
            assert known == ours | theirs
            assert initiator.have == {name(one) for one in ours - theirs}
            return rounds
        assert fresh


sets = st.sets(st.integers(0, 2_000), max_size=300)


@given(sets, sets, st.integers(1, 40), st.sampled_from([1_500, 4_096, RECONCILE_FRAME_BYTES]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_i17_union_of_any_honest_pair(ours: set[int], theirs: set[int], epochs: int, limit: int, probe: bool) -> None:
    union_of(ours, theirs, epochs, limit, probe=probe)


@given(
    st.integers(0, 1 << 32), st.sampled_from([0, 1, 60, 3_000]), st.sampled_from([0, 1, 60, 3_000]), st.sampled_from([0, 6_000])
)
@settings(max_examples=12, deadline=None)
def test_i17_union_of_large_random_sets(seed: int, mine: int, yours: int, common: int) -> None:
    dice = random.Random(seed)
    numbers = dice.sample(range(1 << 40), mine + yours + common)
    ours, theirs = set(numbers[: mine + common]), set(numbers[mine:])
    rounds = union_of(ours, theirs, dice.choice([1, 5, 60]), RECONCILE_FRAME_BYTES, probe=dice.random() < 0.5)
    assert rounds <= 8 + (mine + yours + common) * 64 // RECONCILE_FRAME_BYTES


def test_i17_an_honest_pair_that_needs_more_rounds_than_one_session_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orderbook.core.negentropy.RECONCILE_ROUNDS_MAX", 5)
    rounds = union_of(set(), set(range(2_000)), 3, 4_096, probe=False)
    assert rounds > 10


# --- a market's sessions with an honest other, frame by frame ----------------------------------------------


class Pair:
    """Two markets, every frame counted."""

    def __init__(self) -> None:
        self.now = at(ms=700)
        self.names = {"a": key(100).peer_id, "b": key(101).peer_id}
        self.markets = {side: Market(REGTEST, peer) for side, peer in self.names.items()}
        self.said: list[Any] = []
        self.queue: list[tuple[str, Any]] = []
        self.codes: list[str] = []
        for side in self.markets:
            self.do(side, Follow(book=BOOK))

    def do(self, side: str, event: Any) -> None:
        effects = self.markets[side].handle(event, self.now)
        other = "b" if side == "a" else "a"
        self.codes += codes(list(effects))
        for effect in effects:
            if isinstance(effect, SendFrame):
                self.said.append(FRAMES.unpack(effect.frame))
                self.queue.append((other, FrameIn(peer=self.names[side], frame=effect.frame)))
            elif isinstance(effect, Check):
                good = tuple(one.id for one in effect.items if verify(one.public, one.digest, one.signature))
                self.queue.append((side, Checked(good=good)))

    def meet(self) -> None:
        for side, other in (("a", "b"), ("b", "a")):
            self.do(side, NeighbourUp(peer=self.names[other]))
        self.settle()

    def settle(self) -> None:
        while self.queue:
            self.do(*self.queue.pop(0))

    def sizes(self) -> list[int]:
        return [market.statistics()["messages"] for market in self.markets.values()]


def test_a_newcomer_pulls_while_it_compares_and_never_more_than_its_window() -> None:
    pair = Pair()
    for number in range(2_400):
        raw = raw_order(1 + number // 8 % 300, slot=number % 8, sequence=number, price_msat=number)
        pair.do("a", Publish(message=raw))
    pair.meet()
    assert pair.sizes() == [2_400, 2_400]
    assert pair.markets["b"].ready(BOOK)
    kinds = [type(one) for one in pair.said]
    assert kinds.index(Pull) < len(kinds) - 1 - kinds[::-1].index(Answer)  # the first pull comes before the last answer
    pulls = [one for one in pair.said if isinstance(one, Pull)]
    assert sum(len(one.ids) for one in pulls) == 2_400
    assert max(len(one.ids) for one in pulls) == BATCH_MAX_ORDERS
    outstanding = most = 0
    for one in pair.said:
        outstanding += len(one.ids) if isinstance(one, Pull) else -len(one.messages) if isinstance(one, Pulled) else 0
        most = max(most, outstanding)
    assert BATCH_MAX_ORDERS < most <= RECONCILE_WINDOW_IDS
    assert not {"undelivered", "too-fast", "reconcile-budget", "stale-answer"} & set(pair.codes)


def test_an_equal_book_costs_one_fingerprint() -> None:
    pair = Pair()
    for number in range(1, 41):
        pair.do("a", Publish(message=raw_order(number)))
    pair.meet()
    pair.said.clear()
    for _ in range(3):
        pair.now = Instant(pair.now + 4_000_000)
        for side in ("a", "b"):
            pair.do(side, Tick())
        pair.settle()
    asks = [one for one in pair.said if isinstance(one, Ask)]
    assert len(asks) == 6  # every four seconds, either side
    assert {len(one.message) for one in asks} == {1 + 2 + 1 + 16}
    assert {one.message for one in pair.said if isinstance(one, Answer)} == {b"\x61"}


# --- neighbours that lie -----------------------------------------------------------------------------------


def test_i17_fingerprints_that_always_differ_end_with_a_reason(alone: Alone) -> None:
    alone.do(Publish(message=raw_order()))
    ask = ask_of(alone.effects)
    lie = b"\x61\x00\x00\x01" + bytes(16)
    for _ in range(RECONCILE_BARREN_ROUNDS_MAX - 1):
        effects = alone.hear(Answer(book=BOOK, session=ask.session, message=lie))
        assert ask_of(effects).session == ask.session
    effects = alone.hear(Answer(book=BOOK, session=ask.session, message=lie))
    assert codes(effects) == ["bad-reconciliation"]
    assert blames(effects) == [("bad-reconciliation", 20)]
    assert codes(alone.hear(Answer(book=BOOK, session=ask.session, message=lie))) == ["stale-answer"]
    assert not alone.market.ready(BOOK)
    assert alone.size() == 1


def test_i17_one_new_id_a_round_is_bounded_too() -> None:
    """A peer that feeds one invented id per round goes on for the rounds of one session, and no longer."""
    initiator = Initiator(Vector((0, name(number)) for number in range(100)))
    initiator.open()
    for number in range(RECONCILE_ROUNDS_MAX - 1):
        fed = listing([name(10_000 + number)], b"\x02\x00") + b"\x00\x00\x01" + bytes(16)
        assert initiator.answer(fed) is not None
        assert not initiator.cut_short
    assert initiator.answer(listing([name(1)], b"\x02\x00") + b"\x00\x00\x01" + bytes(16)) is None
    assert initiator.cut_short
    assert len(initiator.fresh()) == RECONCILE_ROUNDS_MAX - 1
    assert initiator.fresh() == []


def test_i17_invented_ids_are_not_asked_for_twice(alone: Alone) -> None:
    ask = ask_of(alone.effects)
    names = [name(number) for number in range(1_800)]
    effects = alone.hear(Answer(book=BOOK, session=ask.session, message=listing(names)))
    pulls = [frame for _, frame in sent(effects, Pull)]
    assert [len(one.ids) for one in pulls] == [512, 512, 512, 264]
    effects = alone.hear(Pulled(book=BOOK, session=ask.session, messages=()))
    assert codes(effects) == ["undelivered"]
    assert blames(effects) == [("undelivered", 5)]
    assert sent(effects, Pull) == []
    assert codes(alone.hear(Pulled(book=BOOK, session=ask.session, messages=()))) == ["stale-answer"]
    assert not alone.market.ready(BOOK)
    assert alone.size() == 0


def test_what_was_forgotten_meanwhile_is_counted_and_forgiven(alone: Alone) -> None:
    ask = ask_of(alone.effects)
    raws = [raw_order(number) for number in (1, 2)]
    names = [*(read(REGTEST, one).id for one in raws), name(1)]
    alone.hear(Answer(book=BOOK, session=ask.session, message=listing(names)))
    effects = alone.hear(Pulled(book=BOOK, session=ask.session, messages=tuple(raws)))
    assert codes(effects) == ["undelivered"]
    assert blames(effects) == []
    alone.verify(effects)
    assert alone.market.ready(BOOK)
    assert alone.size() == 2


def test_the_comparison_rests_while_much_is_wanted(alone: Alone) -> None:
    """A liar cannot fill memory with invented ids: beyond two windows nothing more is asked."""
    ask = ask_of(alone.effects)
    asks = 1
    for number in range(10):
        names = [name(1_800 * number + one) for one in range(1_800)]
        effects = alone.hear(
            Answer(book=BOOK, session=ask.session, message=listing(names, b"\x02\x00") + b"\x00\x00\x01" + bytes(16))
        )
        asks += len(sent(effects, Ask))
    assert asks == 3
    pulls = [frame for _, frame in sent(alone.effects, Pull)]
    assert sum(len(one.ids) for one in pulls) == RECONCILE_WINDOW_IDS


@pytest.mark.parametrize(
    "message",
    [
        b"\x61\x05\x01\x09\x00\x01\x01\x08\x00",  # bounds that go back
        b"\x61\x00\x00\x02\x7f" + bytes(32),
        b"\x62",
        b"\x61\x00\x21" + bytes(34),
    ],
)
def test_i17_broken_messages_end_either_side(alone: Alone, message: bytes) -> None:
    ask = ask_of(alone.effects)
    effects = alone.hear(Ask(book=BOOK, session=9, message=message))
    assert blames(effects) == [("bad-reconciliation", 20)]
    effects = alone.hear(Answer(book=BOOK, session=ask.session, message=message))
    assert blames(effects) == [("bad-reconciliation", 20)]
    assert alone.size() == 0


def test_old_answers_replayed_belong_to_nothing(alone: Alone) -> None:
    ask = ask_of(alone.effects)
    good = Answer(book=BOOK, session=ask.session, message=b"\x61")
    assert codes(alone.hear(good)) == []
    assert alone.market.ready(BOOK)
    for _ in range(3):
        effects = alone.hear(good)
        assert codes(effects) == ["stale-answer"]
        assert blames(effects) == []
    alone.now = Instant(alone.now + 9_000_000)
    following = ask_of(alone.do(Tick()))
    assert following.session == ask.session + 1
    assert codes(alone.hear(good)) == ["stale-answer"]


# --- budgets -----------------------------------------------------------------------------------------------


def flood(alone: Alone, message: bytes, most: int) -> tuple[int, list[Any]]:
    """Ask until it is refused; returns how often it was answered, and the refusal."""
    for number in range(most):
        effects = alone.hear(Ask(book=BOOK, session=number, message=message))
        if not sent(effects, Answer):
            return number, effects
    raise AssertionError("never refused")


def test_i17_who_compares_beyond_all_need_is_refused_by_bytes(alone: Alone) -> None:
    bulky = listing([name(number) for number in range(1_800)])
    answered, effects = flood(alone, bulky, 400)
    assert RECONCILE_BYTES_MAX // (len(bulky) + 100) <= answered <= RECONCILE_BYTES_MAX // len(bulky)
    assert codes(effects) == ["reconcile-budget"]
    assert blames(effects) == [("reconcile-budget", 5)]
    assert codes(alone.hear(Ask(book=BOOK, session=1, message=b"\x61"))) == []  # a small one still fits
    alone.meet(OTHER)
    assert sent(alone.hear(Ask(book=BOOK, session=1, message=bulky), OTHER), Answer)  # others have budgets of their own
    alone.now = Instant(alone.now + 1_000_000)
    assert flood(alone, bulky, 400)[0] == 4  # 256 KiB a second


def test_i17_who_compares_beyond_all_need_is_refused_by_rounds(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    assert RECONCILE_ROUNDS_BURST == 16_384
    monkeypatch.setattr("orderbook.core.neighbour.RECONCILE_ROUNDS_BURST", 50)
    alone.meet(OTHER)
    for number in range(50):
        assert sent(alone.hear(Ask(book=BOOK, session=number, message=b"\x61"), OTHER), Answer)
    effects = alone.hear(Ask(book=BOOK, session=51, message=b"\x61"), OTHER)
    assert codes(effects) == ["reconcile-budget"]
    assert sent(alone.hear(Ask(book=BOOK, session=1, message=b"\x61")), Answer)


def test_we_stop_asking_before_his_budget_ends(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orderbook.core.neighbour.RECONCILE_BYTES_MAX", 200_000)
    monkeypatch.setattr("orderbook.core.neighbour.RECONCILE_BYTES_PER_S", 10_000)
    effects = alone.meet(OTHER)
    ask, raw = ask_of(effects), raw_order()
    filler = [name(number) for number in range(1_600)]
    for number in range(2):
        parts = listing([read(REGTEST, raw).id] if number == 0 else filler, b"\x02\x00")
        effects = alone.hear(Answer(book=BOOK, session=ask.session, message=parts + b"\x00\x00\x01" + bytes(16)), OTHER)
    assert "reconcile-budget" not in codes(effects)
    alone.hear(Pulled(book=BOOK, session=ask.session, messages=(raw,)), OTHER)
    bulky = listing([name(5_000 + number) for number in range(1_800)])
    for number in range(2):
        alone.hear(Ask(book=BOOK, session=number, message=bulky), OTHER)
    effects = alone.hear(Answer(book=BOOK, session=ask.session, message=b"\x61\x00\x00\x01" + bytes(16)), OTHER)
    assert codes(effects) == ["reconcile-budget"]
    assert blames(effects) == []
    assert sent(effects, Ask) == []
    alone.hear(Ask(book=BOOK, session=3, message=bulky), OTHER)
    alone.do(Publish(message=raw_order(3)))


# --- neighbours that say nothing, or too much at once ------------------------------------------------------


def test_a_neighbour_who_never_answers_is_blamed_once_for_all_and_asked_one_thing_at_a_time() -> None:
    one = Alone()
    books = tuple(bytes([number]) * 32 for number in range(RECONCILE_SESSIONS_MAX + 8))
    for book in books:
        one.do(Follow(book=book))
    effects = one.meet(books=books)
    assert len(sent(effects, Ask)) == RECONCILE_SESSIONS_MAX
    one.now = Instant(one.now + 2_999_999)
    assert "reconcile-timeout" not in codes(one.do(Tick()))
    one.now = Instant(one.now + 1)
    effects = one.do(Tick())
    assert codes(effects).count("reconcile-timeout") == RECONCILE_SESSIONS_MAX
    assert blames(effects) == [("reconcile-timeout", 1)]
    begun = sent(effects, Ask)
    assert len(begun) == 1
    one.now = Instant(one.now + 3_000_000)
    effects = one.do(Tick())
    assert blames(effects) == [("reconcile-timeout", 1)]
    assert len(sent(effects, Ask)) == 1
    ((_, ask),) = sent(effects, Ask)
    effects = one.hear(Answer(book=ask.book, session=ask.session, message=b"\x61"))
    assert len(sent(effects, Ask)) == 12  # he speaks again, and all that wait have their turn
    one.now = Instant(one.now + 1_000_000)
    assert len(sent(one.do(Tick()), Ask)) == RECONCILE_SESSIONS_MAX - 12  # and those that hung before are tried again


def test_our_own_slowness_is_nobodys_fault(alone: Alone) -> None:
    ask, raw = ask_of(alone.effects), raw_order()
    alone.hear(Answer(book=BOOK, session=ask.session, message=listing([read(REGTEST, raw).id])))
    effects = alone.hear(Pulled(book=BOOK, session=ask.session, messages=(raw,)))
    alone.now = Instant(alone.now + 10_000_000)
    late = alone.do(Tick())
    assert "reconcile-timeout" not in codes(late)
    assert not alone.market.ready(BOOK)
    alone.verify(effects)
    assert alone.market.ready(BOOK)


def test_many_books_wait_their_turn() -> None:
    one = Alone()
    books = tuple(bytes([number]) * 32 for number in range(RECONCILE_SESSIONS_MAX + 2))
    for book in books:
        one.do(Follow(book=book))
    begun = [frame for _, frame in sent(one.meet(books=books), Ask)]
    while begun:
        ask = begun.pop(0)
        begun += [frame for _, frame in sent(one.hear(Answer(book=ask.book, session=ask.session, message=b"\x61")), Ask)]
    assert all(one.market.ready(book) for book in books)


# --- whom, and when ----------------------------------------------------------------------------------------


def test_every_few_seconds_one_neighbour_by_lot() -> None:
    one = Alone()
    one.do(Follow(book=BOOK))
    peers = [key(200 + number).peer_id for number in range(5)]
    chosen: list[Any] = []

    def answer(effects: list[Any]) -> None:
        for peer, ask in sent(effects, Ask):
            one.hear(Answer(book=BOOK, session=ask.session, message=b"\x61"), peer)

    for peer in peers:
        answer(one.meet(peer))
    for _ in range(60):
        one.now = Instant(one.now + 4_000_000)
        effects = one.do(Tick())
        chosen += [peer for peer, _ in sent(effects, Ask)]
        answer(effects)
    assert len(chosen) == 60
    assert set(chosen) == set(peers)
    assert all(4 <= chosen.count(peer) <= 22 for peer in peers)
    assert any(chosen[place] == chosen[place + 1] for place in range(59))  # by lot, not in turn


def test_before_the_freeze_only_what_has_grown(alone: Alone) -> None:
    ask = ask_of(alone.effects)
    alone.hear(Answer(book=BOOK, session=ask.session, message=b"\x61"))
    alone.now = Instant(REGTEST.clock.freeze(EPOCH) - 200_000)
    assert sent(alone.do(Tick()), Ask) == []
    alone.now = at(EPOCH + 1)
    alone.do(Publish(message=raw_order()))
    warm = Instant(REGTEST.clock.freeze(EPOCH + 1) - 200_000)
    alone.now = Instant(warm - 1)
    before = sent(alone.do(Tick()), Ask)
    alone.now = warm
    asks = sent(alone.do(Tick()), Ask)
    assert len(before) + len(asks) == 1


def test_before_the_freeze_a_book_is_compared_once(alone: Alone) -> None:
    """From two thirds of the way to the freeze until the freeze, and what comes meanwhile is no reason to begin again."""

    def compared(effects: list[Any]) -> int:
        asks = sent(effects, Ask)
        for _, ask in asks:
            alone.hear(Answer(book=BOOK, session=ask.session, message=b"\x61"))
        return len(asks)

    def grown(slot: int) -> int:
        return compared(alone.do(Publish(message=raw_order(1, slot=slot, first_epoch=epoch))))

    assert compared(alone.effects) == 1
    for epoch, before_us in ((EPOCH + 1, 200_000), (EPOCH + 2, 1), (EPOCH + 3, 0)):
        freeze = REGTEST.clock.freeze(epoch)
        alone.now = Instant(freeze - 200_001)
        compared(alone.do(Tick()))  # by lot
        grown(0)
        alone.now = Instant(freeze - before_us)
        assert compared(alone.do(Tick())) == 1
        assert grown(1) == 0
        assert compared(alone.do(Tick())) == 0
    alone.now = Instant(REGTEST.clock.freeze(EPOCH + 3) + 1)
    assert compared(alone.do(Tick())) == 0


def test_a_late_joiner_has_the_book_from_one_honest_neighbour_among_liars() -> None:
    world = World(2)
    honest, late = world.list
    for number in range(300):
        world.now = at(ms=100)
        if number == 0:
            world.market(honest, Follow(book=BOOK))
        world.market(honest, Publish(message=raw_order(1 + number // 4, slot=number % 4, sequence=number)))
    liars = [key(300 + number).peer_id for number in range(6)]
    world.market(late, Follow(book=BOOK))
    answers: list[Callable[[Ask], list[Any]]] = [
        lambda ask: [Answer(book=BOOK, session=ask.session, message=b"\x61")],  # says they are equal
        lambda ask: [Answer(book=BOOK, session=ask.session, message=b"\x61\x00\x00\x01" + bytes(16))],
        lambda ask: [Answer(book=BOOK, session=ask.session, message=listing([name(one) for one in range(900)]))],
        lambda ask: [],
        lambda ask: [Answer(book=BOOK, session=ask.session, message=b"\x61\x07")],
        lambda ask: [Answer(book=BOOK, session=ask.session + 1, message=b"\x61")],
    ]

    def lie(peer: Any, effects: Any) -> None:
        """What a liar makes of the frames that came to him."""
        place = liars.index(peer)
        queue = [FRAMES.unpack(one.frame) for one in effects if isinstance(one, SendFrame) and one.peer == peer]
        while queue:
            frame = queue.pop(0)
            said = answers[place](frame) if isinstance(frame, Ask) else []
            if isinstance(frame, Pull):
                said = [Pulled(book=BOOK, session=frame.session, messages=())]
            for one in said:
                out = late.market.handle(FrameIn(peer=peer, frame=FRAMES.pack(one)), world.now)
                late.blames += [each for each in out if isinstance(each, Blame)]
                queue += [FRAMES.unpack(each.frame) for each in out if isinstance(each, SendFrame) and each.peer == peer]

    for peer in liars:
        late.market.handle(NeighbourUp(peer=peer), world.now)
        hello = FRAMES.pack(Hello(network="regtest", moment_us=world.now, books=(BOOK,)))
        lie(peer, late.market.handle(FrameIn(peer=peer, frame=hello), world.now))
    world.connect(late, honest)
    world.run(at(EPOCH + 1, ms=700))
    assert late.market.statistics()["messages"] == 300
    assert late.cleared[-1].root == honest.cleared[-1].root
    assert late.market.ready(BOOK)
    assert {one.code for one in late.blames} >= {"bad-reconciliation", "undelivered"}
    assert honest.key.peer_id not in {one.peer for one in late.blames}


@given(st.lists(st.tuples(st.integers(0, 5), st.binary(max_size=80)), max_size=25))
@settings(max_examples=80, deadline=None)
def test_i17_no_neighbour_makes_a_comparison_unbounded(moves: list[tuple[int, bytes]]) -> None:
    """Whatever he answers: nothing raises, what is open and asked for stays bounded, and the book is untouched."""
    one = Alone()
    one.do(Follow(book=BOOK))
    for number in range(1, 4):
        one.do(Publish(message=raw_order(number)))
    effects = one.meet()
    for kind, data in moves:
        asks = sent(one.effects, Ask)
        session = asks[-1][1].session if asks else 0
        message = [b"\x61", b"\x61" + data, listing([data.ljust(32, b"x")[:32]]), b"\x61\x00\x00\x01" + bytes(16), data, b""][
            kind
        ]
        effects = one.hear(Answer(book=BOOK, session=session, message=message or b"\x61"))
        if sent(effects, Pull):
            one.hear(Pulled(book=BOOK, session=session, messages=()))
        one.hear(Ask(book=BOOK, session=session, message=message or b"\x61"))
        one.now = Instant(one.now + 100_000)
        one.do(Tick())
    neighbour = one.market._neighbours[PEER]
    assert len(neighbour.sessions) <= 1
    assert len(neighbour.planned) <= 1
    assert one.size() == 3
    one.now = Instant(one.now + 60_000_000)
    one.do(Tick())
    assert len(one.market._reconciler._agenda) < 100


def test_i17_a_number_beyond_all_is_infinity() -> None:
    vector = Vector((number, name(number)) for number in range(40))
    assert INFINITY == 2**64 - 1
    message = b"\x61" + varint(2**64 - 1) + b"\x00\x01" + bytes(16)
    assert respond(vector, message)[:1] == b"\x61"
    with pytest.raises(BadReconciliation):
        respond(vector, b"\x61" + b"\xff" * 10 + b"\x7f\x00\x00")


# --- one step before and after each bound ------------------------------------------------------------------


def test_half_may_be_missing_and_not_one_more(alone: Alone) -> None:
    ask = ask_of(alone.effects)
    raws = [raw_order(number) for number in (1, 2)]
    names = [*(read(REGTEST, one).id for one in raws), name(1), name(2)]
    alone.hear(Answer(book=BOOK, session=ask.session, message=listing(names)))
    effects = alone.hear(Pulled(book=BOOK, session=ask.session, messages=tuple(raws)))
    assert [(one.code, one.amount) for one in effects if isinstance(one, Count)] == [("undelivered", 2)]
    alone.verify(effects)
    assert alone.market.ready(BOOK)


def test_every_sign_of_life_gives_more_time(alone: Alone) -> None:
    alone.do(Publish(message=raw_order(9)))
    ask = ask_of(alone.effects)
    go_on = b"\x61\x00\x00\x01" + bytes(16)
    for _ in range(4):
        alone.now = Instant(alone.now + 2_900_000)
        assert "reconcile-timeout" not in codes(alone.do(Tick()))
        assert len(sent(alone.hear(Answer(book=BOOK, session=ask.session, message=go_on)), Ask)) == 1
    raw = raw_order(1, first_epoch=EPOCH + 2, last_epoch=EPOCH + 20)
    alone.hear(Answer(book=BOOK, session=ask.session, message=listing([read(REGTEST, raw).id])))
    alone.now = Instant(alone.now + 2_900_000)
    effects = alone.hear(Pulled(book=BOOK, session=ask.session, messages=(raw,)))
    assert "reconcile-timeout" not in codes(effects)
    alone.verify(effects)
    assert alone.market.ready(BOOK)


def test_a_first_comparison_that_hung_is_tried_again_after_the_interval(alone: Alone) -> None:
    first = ask_of(alone.effects)
    alone.now = Instant(alone.now + 3_000_000)
    assert codes(alone.do(Tick())).count("reconcile-timeout") == 1
    begun = Instant(alone.now)
    again: list[Any] = []
    while not again:
        due = alone.market.next_deadline()
        assert due is not None
        alone.now = due
        again = sent(alone.do(Tick()), Ask)
    assert begun < alone.now <= begun + 4_000_000
    assert again[0][1].session > first.session


def test_what_was_cut_short_goes_on_at_once_if_it_brought_anything(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orderbook.core.negentropy.RECONCILE_ROUNDS_MAX", 1)
    ask, raw = ask_of(alone.effects), raw_order()
    cut = listing([read(REGTEST, raw).id], b"\x02\x00") + b"\x00\x00\x01" + bytes(16)
    alone.hear(Answer(book=BOOK, session=ask.session, message=cut))
    effects = alone.hear(Pulled(book=BOOK, session=ask.session, messages=(raw,)))
    assert sent(effects, Ask) == []
    following = ask_of(alone.verify(effects))
    assert following.session == ask.session + 1
    assert not alone.market.ready(BOOK)
    barren = b"\x61\x00\x00\x01" + bytes(16)
    assert sent(alone.hear(Answer(book=BOOK, session=following.session, message=barren)), Ask) == []
    assert not alone.market.ready(BOOK)  # cut short again, and it brought nothing: by lot, later


def test_barren_rounds_are_counted_one_after_another() -> None:
    """A round that brings an id to light, ours or his, begins the count anew."""
    assert RECONCILE_BARREN_ROUNDS_MAX == 32
    barren = b"\x61\x00\x00\x01" + bytes(16)
    initiator = Initiator(Vector((0, name(number)) for number in range(100)))
    for number in range(3):
        for _ in range(31):
            assert initiator.answer(barren) is not None
        assert initiator.answer(listing([name(900 + number)], b"\x02\x00") + barren[1:]) is not None
    for _ in range(31):
        assert initiator.answer(barren) is not None
    with pytest.raises(BadReconciliation):
        initiator.answer(barren)


def test_a_message_is_filled_to_the_last_id_that_fits() -> None:
    """A frame limit less the room for the closing fingerprint: ids go in while they fit, and the rest is one fingerprint."""
    vector = Vector((0, name(number)) for number in range(100))
    for more, count in ((-1, 9), (0, 10), (31, 10), (32, 11)):
        answer = respond(vector, listing([]), 200 + 1 + 32 * 10 + more)
        end = varint(1) + varint(32) + vector[count][1]  # the first that does not fit is the bound
        assert answer.startswith(listing(vector.names(0, count), end))
        assert answer.endswith(b"\x00\x00\x01" + vector.fingerprint(count, 100))
    assert respond(vector, listing([]), 200 + 32 * 100 + 1) == listing(vector.names(0, 100))


def test_waiting_books_get_as_many_places_as_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orderbook.core.reconciler.RECONCILE_SESSIONS_MAX", 3)
    one = Alone()
    books = tuple(bytes([number]) * 32 for number in range(7))
    for book in books:
        one.do(Follow(book=book))
    begun = [frame for _, frame in sent(one.meet(books=books), Ask)]
    assert len(begun) == 3
    for ask in begun:
        following = sent(one.hear(Answer(book=ask.book, session=ask.session, message=b"\x61")), Ask)
        assert len(following) == 1
        assert len(one.market._neighbours[PEER].sessions) == 3
