"""What only the market hears asks no other part of the node anything, and what another part says is always asked for."""

from collections.abc import Callable
from typing import Any

import pytest

from orderbook.core.events import Cleared, FrameIn, NeighbourUp
from orderbook.core.frames import FRAMES, Hello
from peer.core.brain import Brain
from peer.core.events import Tick, Watched
from peer.core.standing import STRIKE_FIRST_US
from tests.core.test_standing import PEER
from tests.orderbook.world import EPOCH, at, key
from wire.moments import Instant
from wire.network import REGTEST


@pytest.fixture
def brain() -> Brain:
    return Brain(key=key(1), network=REGTEST, instance=None, run=b"run")


def counted(brain: Brain, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How often the seller's part has been asked for its deadline."""
    asked: list[None] = []
    plain = brain.selling.next_deadline

    def next_deadline() -> Instant | None:
        asked.append(None)
        return plain()

    monkeypatch.setattr(brain.selling, "next_deadline", next_deadline)
    return lambda: len(asked)


def hello() -> bytes:
    return FRAMES.pack(Hello(network="regtest", moment_us=at(), books=()))


def test_gossip_asks_nobody_when_something_is_due(brain: Brain, monkeypatch: pytest.MonkeyPatch) -> None:
    brain.handle(NeighbourUp(peer=PEER), at())
    asked = counted(brain, monkeypatch)
    brain.next_deadline()
    assert asked() == 1
    for _ in range(3):
        brain.handle(FrameIn(peer=PEER, frame=hello()), at())
        brain.handle(Tick(), at())
        brain.next_deadline()
    assert asked() == 1
    brain.handle(Watched(article="net.bitwrk/rays/1"), at())
    brain.next_deadline()
    assert asked() == 2


def test_a_tick_goes_to_all_when_one_of_the_others_waits_for_it(brain: Brain) -> None:
    second = at(ms=1)
    brain.standing.strike(PEER, "struck", at())
    brain.handle(Watched(article="net.bitwrk/rays/1"), second)
    until = Instant(at() + STRIKE_FIRST_US)
    assert brain.next_deadline() is not None
    heard: list[Instant] = []
    plain = brain.selling.tick

    def tick(now: Instant) -> list[Any]:
        heard.append(now)
        return plain(now)

    brain.selling.tick = tick  # type: ignore[method-assign]
    brain.handle(Tick(), Instant(until - 1))
    assert heard == []
    brain.handle(Tick(), until)
    assert heard == [until]


def test_what_the_market_says_to_another_part_reaches_it(brain: Brain) -> None:
    brain.handle(Watched(article="net.bitwrk/rays/1"), at())
    effects = brain.handle(Tick(), Instant(REGTEST.clock.freeze(EPOCH) + 1))
    assert not [one for one in effects if isinstance(one, Cleared)]
    assert brain.shop.statement()[0]["epoch"] == EPOCH
