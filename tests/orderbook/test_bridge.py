"""The topic as a neighbour of the market: what crosses, in which batches, who answers for it, and what never comes back."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderbook.core.bridge import Bridge, open_batch, topic_of
from orderbook.core.events import BridgeIn, BridgeOut, Follow, Publish, Tick
from orderbook.core.frames import FRAMES, Batch, Hello
from orderbook.core.messages import GOSSIP, SealedOrder, read
from tests.orderbook.test_market import OTHER, PEER, Alone, codes, raw_order, sent
from tests.orderbook.world import BOOK, at, key
from wire.bucket import Bucket
from wire.effects import Blame, Count
from wire.errors import Misbehaved
from wire.limits import (
    BATCH_MAX_ORDERS,
    BRIDGE_BATCH_MAX_BYTES,
    BRIDGE_INTERVAL_MS,
    BRIDGE_OUTBOX_MESSAGES,
    BRIDGE_TOKENS_MAX,
    BRIDGE_TOKENS_PER_S,
)
from wire.moments import SECOND, Instant
from wire.network import MAIN, REGTEST

AUTHOR = key(110).peer_id


def out(effects: list[Any]) -> list[tuple[bytes, ...]]:
    return [open_batch(one.batch) for one in effects if isinstance(one, BridgeOut)]


def later(one: Alone, ms: int) -> list[Any]:
    one.now = Instant(one.now + ms * 1_000)
    return one.do(Tick())


@pytest.fixture
def bridged() -> Alone:
    one = Alone()
    one.do(Follow(book=BOOK))
    one.market.bridge.open()
    one.meet()
    return one


# --- out ---------------------------------------------------------------------------------------------------


def test_what_is_newly_admitted_is_published_once(bridged: Alone) -> None:
    ours, theirs = raw_order(1), raw_order(2)
    assert out(bridged.do(Publish(message=ours))) == [(ours,)]
    bridged.verify(bridged.hear(Batch(messages=(theirs,))))
    assert out(later(bridged, BRIDGE_INTERVAL_MS)) == [(theirs,)]
    assert out(bridged.hear(Batch(messages=(ours, theirs)))) == []
    assert out(later(bridged, 10 * BRIDGE_INTERVAL_MS)) == []


def test_without_a_bridge_nothing_is_published() -> None:
    one = Alone()
    one.do(Follow(book=BOOK))
    one.do(Publish(message=raw_order()))
    assert codes(one.do(BridgeIn(author=AUTHOR, messages=(raw_order(2),)))) == ["not-bridged"]
    assert one.size() == 1
    assert out(one.effects) == []


def test_at_most_one_batch_an_interval_and_none_over_the_bound(bridged: Alone) -> None:
    avoid = tuple(sorted(bytes([number]) * 20 for number in range(8)))  # makes them large
    messages = [raw_order(owner, avoid=avoid) for owner in range(1, 251)]
    for message in messages:
        bridged.do(Publish(message=message))
    assert out(bridged.effects) == [(messages[0],)]
    rest: list[bytes] = []
    sizes = []
    while len(rest) < len(messages) - 1:
        due = bridged.market.next_deadline()
        assert due is not None
        assert due <= bridged.now + BRIDGE_INTERVAL_MS * 1_000
        assert out(later(bridged, BRIDGE_INTERVAL_MS - 1)) == []
        (one,) = [effect for effect in later(bridged, 1) if isinstance(effect, BridgeOut)]
        sizes.append(len(one.batch))
        rest += open_batch(one.batch)
    assert rest == messages[1:]
    assert len(sizes) == 2
    assert BRIDGE_BATCH_MAX_BYTES - 2_000 < sizes[0] <= BRIDGE_BATCH_MAX_BYTES


def test_a_full_box_drops_what_comes_and_says_so() -> None:
    bridge, heard = Bridge(), read(REGTEST, raw_order())
    bridge.open()
    for number in range(BRIDGE_OUTBOX_MESSAGES):
        bridge.offer(heard._replace(id=number.to_bytes(32, "big"), raw=b"x"))
    bridge.offer(heard._replace(id=(0).to_bytes(32, "big"), raw=b"x"))  # it waits already
    bridge.offer(heard)
    full, one = bridge.leaving(at())
    assert full == Count(code="bridge-full")
    assert isinstance(one, BridgeOut)
    assert len(open_batch(one.batch)) == BATCH_MAX_ORDERS
    assert bridge.leaving(at()) == []


def test_the_market_counts_what_the_bridge_drops(bridged: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orderbook.core.bridge.BRIDGE_OUTBOX_MESSAGES", 1)
    bridged.do(Publish(message=raw_order(1)))  # leaves at once
    assert codes(bridged.do(Publish(message=raw_order(2)))) == []
    assert codes(bridged.do(Publish(message=raw_order(3)))) == ["bridge-full"]
    assert bridged.size() == 3


# --- in ----------------------------------------------------------------------------------------------------


def test_what_comes_from_the_topic_is_admitted_pushed_on_and_never_published_again(bridged: Alone) -> None:
    message = raw_order(5)
    effects = bridged.verify(bridged.do(BridgeIn(author=AUTHOR, messages=(message,))))
    assert bridged.size() == 1
    assert [(peer, batch.messages) for peer, batch in sent(effects, Batch)] == [(PEER, (message,))]
    later(bridged, 5 * BRIDGE_INTERVAL_MS)
    assert out(bridged.effects) == []


def test_what_came_over_the_relay_first_is_not_published_after_the_topic_has_shown_it(bridged: Alone) -> None:
    bridged.do(Publish(message=raw_order(1)))
    bridged.verify(bridged.hear(Batch(messages=(raw_order(2), raw_order(3)))))
    assert codes(bridged.do(BridgeIn(author=AUTHOR, messages=(raw_order(2),)))) == ["duplicate"]
    assert out(later(bridged, BRIDGE_INTERVAL_MS)) == [(raw_order(3),)]


def test_two_bridges_that_hear_each_other_fall_silent() -> None:
    """A storm: everything each publishes is handed to the other, for ever."""
    ends = [Alone(), Alone()]
    for one in ends:
        one.do(Follow(book=BOOK))
        one.market.bridge.open()
        one.do(Publish(message=raw_order(1)))
    ends[0].do(Publish(message=raw_order(2)))
    published = 0
    for _ in range(20):
        for one, other in (ends, ends[::-1]):
            batches, one.effects = out(one.effects), []
            published += len(batches)
            for batch in batches:
                other.verify(other.do(BridgeIn(author=AUTHOR, messages=batch)))
            later(one, BRIDGE_INTERVAL_MS)
    assert published == 3
    assert [one.size() for one in ends] == [2, 2]


def test_the_topic_decides_nothing_about_readiness_clocks_or_meshes(bridged: Alone) -> None:
    before = (bridged.market.statistics()["neighbours"], bridged.market.ready(BOOK), bridged.market.skewed)
    bridged.verify(bridged.do(BridgeIn(author=AUTHOR, messages=(raw_order(1),))))
    after = (bridged.market.statistics()["neighbours"], bridged.market.ready(BOOK), bridged.market.skewed)
    assert before == after == (1, False, False)
    assert {one.peer for one in bridged.effects if hasattr(one, "peer") and not isinstance(one, Blame)} == {PEER}


def false_signature(owner: int) -> bytes:
    sealed = GOSSIP.unpack(raw_order(owner))
    return GOSSIP.pack(SealedOrder(body=sealed.body, signature=bytes(63) + b"\x01"))


def test_the_author_answers_for_the_contents_and_ends_banned(bridged: Alone) -> None:
    effects = bridged.do(BridgeIn(author=AUTHOR, messages=(b"\x90", false_signature(1), raw_order(2))))
    effects += bridged.verify(effects)
    blames = [(one.peer, one.code) for one in effects if isinstance(one, Blame)]
    assert blames == [(AUTHOR, "malformed"), (AUTHOR, "wrong-signature")]
    assert bridged.size() == 1  # one that is bad does not stop those beside it
    bridged.verify(bridged.do(BridgeIn(author=OTHER, messages=(false_signature(3),))))
    assert [one.peer for one in bridged.effects if isinstance(one, Blame)][-1] == OTHER
    assert sum(one.penalty for one in bridged.effects if isinstance(one, Blame) and one.peer == AUTHOR) == 60


def test_a_flood_is_counted_and_dropped_and_nothing_else_changes(bridged: Alone) -> None:
    flood = BridgeIn(author=AUTHOR, messages=(raw_order(1),) * BATCH_MAX_ORDERS)
    bridged.verify(bridged.do(flood))
    for _ in range(BRIDGE_TOKENS_MAX // BATCH_MAX_ORDERS - 1):
        assert set(codes(bridged.do(flood))) == {"duplicate"}
    before = bridged.size()
    assert bridged.do(BridgeIn(author=OTHER, messages=flood.messages))[0].code == "bridge-too-fast"
    assert not [one for one in bridged.effects if isinstance(one, Blame)]
    assert bridged.size() == before
    bridged.verify(bridged.hear(Batch(messages=(raw_order(7),))))  # neighbours are heard as before
    assert bridged.size() == before + 1
    bridged.now = Instant(bridged.now + SECOND)
    bridged.verify(bridged.do(BridgeIn(author=OTHER, messages=(raw_order(8),))))
    assert bridged.size() == before + 2


def test_books_we_do_not_follow_are_no_fault(bridged: Alone) -> None:
    assert codes(bridged.do(BridgeIn(author=AUTHOR, messages=(raw_order(1, book=bytes(32)),)))) == ["unfollowed"]
    assert not [one for one in bridged.effects if isinstance(one, Blame)]


# --- the envelope ------------------------------------------------------------------------------------------


def test_what_is_published_is_a_relay_s_batch() -> None:
    message = raw_order()
    assert open_batch(FRAMES.pack(Batch(messages=(message,)))) == (message,)
    assert FRAMES.pack(Batch(messages=(message,)))[:3] == b"\x92\x02\x93"
    assert read(REGTEST, message).book == BOOK


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x90",
        FRAMES.pack(Batch(messages=())),
        FRAMES.pack(Hello(network="regtest", moment_us=0, books=())),
        FRAMES.pack(Batch(messages=(b"x",))) + b"\x00",
        FRAMES.pack(Batch(messages=(b"x",), moment_us=1)),
        FRAMES.pack(Batch(messages=(b"x",), ages_ms=(0,))),
        FRAMES.pack(Batch(messages=(b"x" * 1_000,) * 66)),
        b"\x92\x02\x93\xdd\x00\x00\x00\x01\xc4\x01x\x00\x90",
    ],
    ids=["nothing", "empty", "no-messages", "another-frame", "longer", "with-a-moment", "with-ages", "oversize", "not-canonical"],
)
def test_another_envelope_is_blamed(data: bytes) -> None:
    with pytest.raises(Misbehaved):
        open_batch(data)


@given(st.binary(max_size=200))
def test_an_envelope_of_any_bytes_is_a_batch_or_blamed(data: bytes) -> None:
    try:
        messages = open_batch(data)
    except Misbehaved:
        return
    assert FRAMES.pack(Batch(messages=messages)) == data


def test_each_network_has_its_topic() -> None:
    assert topic_of(REGTEST) == "/bitwrk/1/regtest/orders"
    assert topic_of(MAIN) == "/bitwrk/1/main/orders"


# --- buckets -----------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 5 * SECOND), st.integers(0, 3_000))))
def test_a_bucket_never_gives_more_than_it_held_and_gained(spends: list[tuple[int, int]]) -> None:
    now = start = at()
    bucket, given_out = Bucket(BRIDGE_TOKENS_PER_S, BRIDGE_TOKENS_MAX, now), 0
    for passed, tokens in spends:
        now = Instant(now + passed)
        if bucket.spend(tokens, now):
            given_out += tokens
        assert given_out * SECOND <= BRIDGE_TOKENS_MAX * SECOND + (now - start) * BRIDGE_TOKENS_PER_S


def test_a_bucket_fills_up_to_its_bound_and_no_further() -> None:
    bucket = Bucket(10, 20, at())
    assert bucket.spend(20, at())
    assert not bucket.spend(1, at())
    assert bucket.spend(10, Instant(at() + SECOND))
    assert not bucket.spend(21, Instant(at() + 100 * SECOND))
    assert bucket.spend(20, Instant(at() + 100 * SECOND))
    assert not bucket.spend(1, Instant(at() + 50 * SECOND))  # a clock set back gives nothing
