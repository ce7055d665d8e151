"""The bounds that a market keeps about each neighbour and over all its books."""

import pytest

from orderbook.core.events import Follow, MarketEffect, NeighbourDown, Publish, SendFrame, Tick, Unfollow
from orderbook.core.frames import FRAMES, Answer, Ask, Batch, BookRoot, Hello, Pull, Pulled, Roots
from orderbook.core.messages import read
from orderbook.core.neighbour import Neighbour, Packed, batches, parcel
from orderbook.core.pusher import Pusher
from tests.bench.idle import idle
from tests.orderbook.test_book import heard
from tests.orderbook.test_market import OTHER, PEER, Alone, codes, raw_order, sent
from tests.orderbook.world import BOOK, EPOCH, at, key
from wire.bucket import Bucket
from wire.effects import Count
from wire.keys import PeerId
from wire.limits import BATCH_MAX_BYTES, BATCH_MAX_ORDERS, BOOKS_MAX, FRAME_MAX_BYTES, RELAY_TOKENS_MAX, RELAY_TOKENS_PER_S
from wire.moments import Instant
from wire.network import REGTEST

SECOND_BOOK = b"2" * 32


def test_a_bucket_fills_with_time_up_to_its_brim() -> None:
    bucket = Bucket(10, 40, Instant(0))
    assert bucket.spend(40, Instant(0))
    assert not bucket.spend(1, Instant(99_999))
    assert bucket.spend(1, Instant(100_000))
    assert not bucket.spend(1, Instant(100_000))
    assert not bucket.spend(41, Instant(100_000_000))
    assert bucket.spend(40, Instant(100_000_000))
    assert not bucket.spend(1, Instant(50_000_000))  # time that goes back adds nothing
    assert not bucket.spend(1, Instant(100_050_000))
    assert bucket.spend(1, Instant(100_100_000))


def test_what_has_been_used_is_charged_without_asking() -> None:
    bucket = Bucket(10, 40, Instant(0))
    bucket.charge(30, Instant(0))
    assert bucket.well_filled(Instant(0))
    bucket.charge(1, Instant(0))
    assert not bucket.well_filled(Instant(0))
    assert bucket.well_filled(Instant(100_000))
    bucket.charge(1_000, Instant(100_000))
    assert not bucket.spend(1, Instant(199_999))
    assert bucket.spend(1, Instant(200_000))


def test_tokens_are_for_frames_and_messages() -> None:
    neighbour = Neighbour(PEER, at())
    assert (RELAY_TOKENS_PER_S, RELAY_TOKENS_MAX) == (4_000, 40_000)
    assert neighbour.spend(40_000, at())
    assert not neighbour.spend(1, at())
    assert neighbour.spend(4_000, Instant(at() + 1_000_000))


def test_a_pull_costs_less_than_a_message() -> None:
    alone = Alone()
    alone.do(Follow(book=BOOK))
    alone.meet()
    pull = Pull(book=BOOK, session=1, ids=tuple(number.to_bytes(32, "big") for number in range(512)))
    refused = 0
    for _ in range(1_300):
        effects = alone.hear(pull)
        refused += codes(effects) == ["too-fast"]
        assert len(sent(effects, Pulled)) == (codes(effects) == [])
    assert 1_300 - refused == 40_000 // (1 + 512 // 16)


def test_only_what_he_has_not_shown_goes_to_him_and_once() -> None:
    neighbour = Neighbour(PEER, at())
    assert neighbour.flush_at() is None
    assert neighbour.put(b"a", parcel(b"xx", whole=True))
    assert neighbour.put(b"b", parcel(b"yy", whole=True))
    assert neighbour.put(b"b", parcel(b"zz", whole=True))  # it waits already
    neighbour.shows(b"a")
    neighbour.shows(b"c")
    assert [neighbour.knows(one) for one in (b"a", b"b", b"c")] == [True, False, True]
    assert neighbour.flush_at() == 0
    (frame,) = neighbour.flush(at())
    assert FRAMES.unpack(frame).messages == (b"yy",)
    assert neighbour.flush(at()) == ()
    assert neighbour.put(b"d", parcel(b"ww", whole=True))
    assert neighbour.flush_at() == at() + 10_000
    assert neighbour.flush(Instant(at() + 9_999)) == ()
    assert len(neighbour.flush(Instant(at() + 10_000))) == 1


def test_a_full_batch_does_not_wait() -> None:
    for count, size in ((BATCH_MAX_ORDERS, 1), (65, 994)):
        neighbour = Neighbour(PEER, at())
        neighbour.put(b"first", parcel(b"x", whole=True))
        neighbour.flush(at())
        for number in range(count - 1):
            neighbour.put(number.to_bytes(4, "big"), parcel(bytes(size), whole=True))
            assert neighbour.flush_at() == at() + 10_000
        neighbour.put(b"last", parcel(bytes(size), whole=True))
        assert neighbour.flush_at() == 0


def test_what_leaves_the_box_leaves_its_bytes() -> None:
    neighbour = Neighbour(PEER, at())
    neighbour.put(b"first", parcel(b"x", whole=True))
    neighbour.flush(at())
    for number in range(64):
        neighbour.put(number.to_bytes(4, "big"), parcel(bytes(994), whole=True))
    neighbour.shows((3).to_bytes(4, "big"))
    neighbour.put(b"more", parcel(bytes(994), whole=True))
    assert neighbour.flush_at() == at() + 10_000
    neighbour.put(b"last", parcel(bytes(994), whole=True))
    assert neighbour.flush_at() == 0


def test_batches_end_at_the_last_byte() -> None:
    fits = [bytes(BATCH_MAX_BYTES // 2 - 6)] * 2
    assert [len(part) for part in batches(fits)] == [2]
    assert [len(part) for part in batches([*fits[:1], bytes(BATCH_MAX_BYTES // 2 - 5)])] == [1, 1]


# --- over all books ----------------------------------------------------------------------------------------


def test_all_books_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orderbook.core.intake.MARKET_MESSAGES_MAX", 4)
    alone = Alone()
    for book in (BOOK, SECOND_BOOK):
        alone.do(Follow(book=book))
    alone.meet(books=(BOOK, SECOND_BOOK))
    for number, book in enumerate((BOOK, SECOND_BOOK, BOOK), start=1):
        alone.do(Publish(message=raw_order(number, book=book)))
    effects = alone.hear(Batch(messages=(raw_order(4), raw_order(5))))
    assert codes(effects) == ["market-full"]  # what waits for its signatures has its place already
    alone.verify(effects)
    assert alone.size() == 4
    assert codes(alone.do(Publish(message=raw_order(6)))) == ["own-market-full"]
    alone.do(Unfollow(book=SECOND_BOOK))
    alone.do(Publish(message=raw_order(6)))
    assert alone.size() == 4


def test_a_replaced_message_makes_room_and_may_come_again_to_be_refused() -> None:
    alone = Alone()
    alone.do(Follow(book=BOOK))
    alone.meet()
    flood = [raw_order(1, sequence=sequence) for sequence in range(9)]
    alone.verify(alone.hear(Batch(messages=tuple(flood))))
    assert alone.size() == 8
    assert codes(alone.hear(Batch(messages=(flood[0], flood[8])))) == ["outranked", "duplicate"]


def test_thousands_of_books_fit_into_one_hello_and_one_frame_of_roots() -> None:
    assert BOOKS_MAX == 4_096
    books = tuple(number.to_bytes(32, "big") for number in range(BOOKS_MAX))
    hello = FRAMES.pack(Hello(network="regtest", moment_us=1, books=books))
    roots = FRAMES.pack(Roots(moment_us=1, epoch=1, roots=tuple(BookRoot(book=one, root=one) for one in books)))
    assert len(hello) < len(roots) < FRAME_MAX_BYTES
    alone = Alone()
    for book in books:
        alone.do(Follow(book=book))
    assert codes(alone.do(Follow(book=BOOK))) == ["books-full"]
    assert alone.market.statistics()["books"] == BOOKS_MAX


def test_many_changes_of_books_are_one_hello() -> None:
    alone = Alone()
    alone.meet(books=())
    assert alone.do(Follow(book=BOOK)) != []
    effects = [one for number in range(30) for one in alone.do(Follow(book=bytes([number]) * 32))]
    assert sent(effects, Hello) == []
    alone.now = Instant(alone.now + 49_999)
    assert sent(alone.do(Tick()), Hello) == []
    alone.now = Instant(alone.now + 1)
    assert alone.market.next_deadline() == alone.now
    ((_, hello),) = sent(alone.do(Tick()), Hello)
    assert len(hello.books) == 31
    assert sent(alone.do(Tick()), Hello) == []


# --- roots -------------------------------------------------------------------------------------------------


def roots_at(alone: Alone, epoch: int) -> tuple[BookRoot, ...]:
    alone.now = Instant(REGTEST.clock.freeze(epoch) + 1)
    told = [frame for peer, frame in sent(alone.do(Tick()), Roots) if peer == PEER]
    assert [one.epoch for one in told] == [epoch]
    roots: tuple[BookRoot, ...] = told[0].roots
    return roots


def test_a_root_is_told_when_it_is_news() -> None:
    alone = Alone()
    alone.do(Follow(book=BOOK))
    alone.meet(books=(BOOK, SECOND_BOOK))
    assert [one.book for one in roots_at(alone, EPOCH)] == [BOOK]
    assert roots_at(alone, EPOCH + 1) == ()
    alone.do(Publish(message=raw_order(1, first_epoch=EPOCH + 2)))
    assert [one.book for one in roots_at(alone, EPOCH + 2)] == [BOOK]
    assert roots_at(alone, EPOCH + 3) == ()
    alone.do(NeighbourDown(peer=PEER))
    alone.meet()
    assert [one.book for one in roots_at(alone, EPOCH + 4)] == [BOOK]  # a new stream begins anew
    alone.do(Unfollow(book=BOOK))
    alone.do(Follow(book=BOOK))
    assert [one.book for one in roots_at(alone, EPOCH + 5)] == [BOOK]
    alone.hear(Hello(network="regtest", moment_us=alone.now, books=()))
    assert roots_at(alone, EPOCH + 6) == ()
    alone.hear(Hello(network="regtest", moment_us=alone.now, books=(BOOK,)))
    assert [one.book for one in roots_at(alone, EPOCH + 7)] == [BOOK]


def test_a_root_that_is_not_named_again_still_stands() -> None:
    alone = Alone()
    alone.do(Follow(book=BOOK))
    alone.meet()
    alone.meet(OTHER)
    (ours,) = roots_at(alone, EPOCH)
    other = BookRoot(book=BOOK, root=b"r" * 32)
    assert codes(alone.hear(Roots(moment_us=alone.now, epoch=EPOCH, roots=(ours,)))) == ["roots-equal"]
    assert codes(alone.hear(Roots(moment_us=alone.now, epoch=EPOCH, roots=(other,)), OTHER)) == ["roots-differ"]
    roots_at(alone, EPOCH + 1)
    assert codes(alone.hear(Roots(moment_us=alone.now, epoch=EPOCH + 1, roots=()))) == ["roots-equal"]
    assert codes(alone.hear(Roots(moment_us=alone.now, epoch=EPOCH + 1, roots=()), OTHER)) == ["roots-differ"]
    early = Roots(moment_us=alone.now, epoch=EPOCH + 2, roots=())
    assert codes(alone.hear(early, OTHER)) == []  # he is ahead of us: not compared before we have ours
    alone.now = Instant(REGTEST.clock.freeze(EPOCH + 2) + 1)
    assert codes(alone.do(Tick())).count("roots-differ") == 1
    unknown = BookRoot(book=SECOND_BOOK, root=b"r" * 32)
    alone.hear(Roots(moment_us=alone.now, epoch=EPOCH + 2, roots=(unknown,)))
    assert SECOND_BOOK not in alone.market._neighbours[PEER].roots


def test_the_root_of_a_book_that_was_left_is_compared_with_nothing() -> None:
    alone = Alone()
    alone.do(Follow(book=BOOK))
    alone.meet()
    (ours,) = roots_at(alone, EPOCH)
    alone.do(Unfollow(book=BOOK))
    alone.do(Follow(book=BOOK))
    for root in (ours.root, b"r" * 32):
        said = Roots(moment_us=alone.now, epoch=EPOCH, roots=(BookRoot(book=BOOK, root=root),))
        assert codes(alone.hear(said)) == []


def test_what_is_old_and_was_pulled_is_not_passed_on() -> None:
    """Others pull history too if they lack it; what is new goes on at once, and never back to who brought it."""
    alone = Alone()
    alone.do(Follow(book=BOOK))
    alone.meet(PEER)
    ((_, ask),) = sent(alone.meet(OTHER), Ask)
    old, new = raw_order(1, first_epoch=EPOCH - 1), raw_order(2, first_epoch=EPOCH)
    listing = b"\x61\x00\x00\x02\x02" + b"".join(read(REGTEST, one).id for one in (old, new))
    alone.hear(Answer(book=BOOK, session=ask.session, message=listing), OTHER)
    effects = alone.verify(alone.hear(Pulled(book=BOOK, session=ask.session, messages=(old, new)), OTHER))
    assert alone.size() == 2
    assert [(peer, batch.messages) for peer, batch in sent(effects, Batch)] == [(PEER, (new,))]


def test_books_in_which_nothing_happens_cost_little() -> None:
    """Thirty followed books and four neighbours: one short comparison per book every few seconds, both ways, and the clock."""
    found, _ = idle(books=30, neighbours=4, messages=9, seconds=40)
    assert set(found) == {"Ask", "Answer", "Roots"}
    per_book_and_s = sum(found.values()) / 30 / 40
    assert 20 < per_book_and_s < 300


# --- one more of everything --------------------------------------------------------------------------------


def test_a_charge_comes_after_the_filling() -> None:
    bucket = Bucket(10, 40, Instant(0))
    assert bucket.spend(40, Instant(0))
    bucket.charge(5, Instant(1_000_000))
    assert bucket.spend(5, Instant(1_000_000))
    assert not bucket.spend(1, Instant(1_099_999))
    tiny = Bucket(1_000_000, 1, Instant(0))
    assert tiny.spend(1, Instant(0))
    assert not tiny.spend(1, Instant(0))  # no time, no token
    slow = Bucket(1, 1, Instant(0))
    slow.charge(9, Instant(0))
    assert not slow.spend(1, Instant(999_999))
    assert slow.spend(1, Instant(1_000_000))


def test_what_he_asks_for_goes_whole_whether_he_has_shown_it_or_it_waits() -> None:
    neighbour = Neighbour(PEER, at())
    neighbour.shows(b"a")
    neighbour.put(b"b", parcel(b"x" * 100))
    assert neighbour.give(b"a", b"y" * 10)
    assert neighbour.give(b"b", b"x" * 100)
    assert neighbour._box_bytes == 16 + 106
    (frame,) = neighbour.flush(at())
    assert FRAMES.unpack(frame) == Batch(messages=(b"y" * 10, b"x" * 100), moment_us=at(), ages_ms=(65_535, 65_535))


def test_a_flushed_box_is_empty_to_the_byte() -> None:
    neighbour = Neighbour(PEER, at())
    for number in range(3):
        neighbour.flush(Instant(at() + 100_000 * number))
        assert neighbour._box_bytes == 0
        for _ in range(2):
            neighbour.put(bytes([number]), parcel(b"x" * 30, whole=True))
            assert neighbour._box_bytes == 36


def test_one_early_clock_is_believed_at_once_a_late_one_after_three() -> None:
    for first, verdict in ((0, 0), (7, 7), (-1, 0)):
        neighbour = Neighbour(PEER, at())
        assert neighbour.offset_us() is None
        neighbour.tells_time(at() + first, at())
        assert neighbour.offset_us() == verdict
    for _ in range(7):
        neighbour.tells_time(at() - 9, at())
        assert neighbour.offset_us() == (0 if len(neighbour._offsets) < 3 else -1)
    neighbour.tells_time(at() - 9, at())
    assert neighbour.offset_us() == -9  # the eighth after it: nobody remembers more


def test_a_full_box_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orderbook.core.neighbour.RELAY_OUTBOX_MESSAGES", 2)
    alone = Alone()
    alone.do(Follow(book=BOOK))
    alone.meet()
    seen = [codes(alone.do(Publish(message=raw_order(number)))) for number in range(1, 5)]
    assert seen == [[], [], [], ["outbox-full"]]  # the first left at once


def test_nothing_is_known_of_a_stranger() -> None:
    neighbour = Neighbour(PEER, at())
    assert (neighbour.roots_epoch, neighbour.roots, neighbour.told, neighbour.mute) == (-1, {}, {}, False)
    assert (neighbour.greeted, neighbour.books, neighbour.shared) == (False, frozenset(), ())
    assert neighbour.grown(BOOK, 0)
    assert neighbour.may_compare(at())
    assert neighbour.keeps_silent(at())
    assert neighbour.mute
    assert not neighbour.keeps_silent(Instant(at() + 2_999_999))
    assert neighbour.keeps_silent(Instant(at() + 3_000_000))
    neighbour.speaks()
    assert not neighbour.mute


# --- the pusher by itself ----------------------------------------------------------------------------------


THIRD = key(103).peer_id


def following(*peers: PeerId) -> tuple[Pusher, dict[PeerId, Neighbour]]:
    neighbours = {peer: Neighbour(peer, at()) for peer in sorted(peers)}
    for one in neighbours.values():
        one.books = frozenset({BOOK})
    return Pusher(neighbours), neighbours


def told(effects: list[MarketEffect]) -> set[PeerId]:
    return {one.peer for one in effects if isinstance(one, SendFrame)}


def test_a_pusher_waits_for_the_first_batch_that_leaves() -> None:
    pusher, neighbours = following(PEER, OTHER, THIRD)
    assert pusher.next_due is None
    assert not pusher.waits(at())
    assert pusher.flush(at()) == []
    pusher.push(heard(1), at())
    assert pusher.spread() == []
    assert pusher.next_due == 0  # nothing has left yet, so this leaves at once
    assert told(pusher.flush(at())) == {PEER, OTHER, THIRD}
    assert pusher.next_due is None
    for ms, peer in ((12, OTHER), (11, THIRD)):
        neighbours[peer].put(bytes([ms]) * 32, parcel(b"x", whole=True))
        neighbours[peer].flush(at(ms=ms))
    pusher.push(heard(2), at())
    pusher.spread()
    assert pusher.next_due == at(ms=10)  # the first of all; the windows of the others began later
    assert not pusher.waits(Instant(at(ms=10) - 1))
    assert pusher.flush(Instant(at(ms=10) - 1)) == []
    for ms, peer in ((10, PEER), (21, THIRD), (22, OTHER)):
        assert pusher.next_due == at(ms=ms)
        assert told(pusher.flush(at(ms=ms))) == {peer}
    assert pusher.next_due is None


def test_a_pusher_tells_nobody_what_he_knows() -> None:
    pusher, neighbours = following(PEER, OTHER)
    neighbours[PEER].shows(heard(1).id)
    pusher.push(heard(1), at())
    assert pusher.spread() == []
    assert told(pusher.flush(at())) == {OTHER}
    neighbours[OTHER].books = frozenset()
    neighbours[PEER].shows(heard(2).id)
    pusher.push(heard(2), at())
    assert pusher.spread() == []
    assert pusher.next_due is None


def test_what_finds_a_full_box_is_counted_once_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orderbook.core.neighbour.RELAY_OUTBOX_MESSAGES", 1)
    pusher, neighbours = following(PEER, OTHER)
    neighbours[PEER].shows(heard(2).id)
    for number in (1, 2, 3, 1):
        pusher.push(heard(number), at())
    assert pusher.spread() == [Count(code="outbox-full", amount=3)]  # 3 for one, 2 and 3 for the other
    assert pusher.spread() == []


def test_the_same_messages_at_the_same_moment_are_packed_once() -> None:
    packed: Packed = {}
    frames = []
    for names in ((b"a", b"b"), (b"a", b"b"), (b"b",)):
        neighbour = Neighbour(PEER, at())
        for name in names:
            neighbour.put(name, parcel(name * 9, at(), whole=True))
        frames.append(neighbour.flush(at(), packed))
    assert frames[1] is frames[0]
    assert [FRAMES.unpack(frame).messages for (frame,) in frames] == [(b"a" * 9, b"b" * 9)] * 2 + [(b"b" * 9,)]
