"""The relay's streams over an in-memory network: one per neighbour, bounded, and no failure reaches another neighbour."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from orderbook.core.events import FrameIn, NeighbourDown, NeighbourUp
from orderbook.shell import relay as module
from orderbook.shell.relay import RELAY, RelayService
from tests.orderbook.streams import FakeStreams, Hub
from tests.orderbook.world import key
from wire.errors import Misbehaved
from wire.keys import PeerId

SMALL, MIDDLE, LARGE = sorted(key(number).peer_id for number in (1, 2, 3))


class End:
    """One peer's service with an inbox that keeps everything."""

    def __init__(self, streams: FakeStreams) -> None:
        self.streams = streams
        self.events: list[Any] = []
        self.arrived = trio.Event()
        self.blames: list[tuple[PeerId, str]] = []
        self.gate: trio.Event | None = None
        self.service = RelayService(streams, self.inbox, on_blame=self.blame)

    async def inbox(self, event: Any) -> None:
        if self.gate is not None and isinstance(event, FrameIn):
            await self.gate.wait()
        self.events.append(event)
        self.arrived.set()
        self.arrived = trio.Event()

    def blame(self, peer: PeerId, error: Misbehaved) -> None:
        self.blames.append((peer, error.code))

    async def until(self, *wanted: Any) -> None:
        with trio.fail_after(10):
            while any(self.events.count(one) < wanted.count(one) for one in wanted):
                await self.arrived.wait()

    def of(self, peer: PeerId) -> list[Any]:
        return [one for one in self.events if one.peer == peer]


@asynccontextmanager
async def network(*peers: PeerId) -> AsyncIterator[list[End]]:
    async with trio.open_nursery() as nursery:
        hub = Hub(nursery)
        ends = [End(hub.join(peer)) for peer in peers]
        for end in ends:
            await nursery.start(end.service.run)
        yield ends
        assert hub.escaped == []
        nursery.cancel_scope.cancel()


def frame(peer: PeerId, data: bytes) -> FrameIn:
    return FrameIn(peer=peer, frame=data)


async def test_frames_go_both_ways_in_order() -> None:
    async with network(SMALL, LARGE) as (one, other):
        one.service.connect(LARGE)
        await one.until(NeighbourUp(peer=LARGE))
        await other.until(NeighbourUp(peer=SMALL))
        for number in range(50):
            one.service.send(LARGE, b"%d" % number)
            other.service.send(SMALL, b"%d" % number)
        await other.until(frame(SMALL, b"49"))
        await one.until(frame(LARGE, b"49"))
        assert other.events == [NeighbourUp(peer=SMALL), *(frame(SMALL, b"%d" % number) for number in range(50))]
        assert one.service.neighbours() == (LARGE,)
        one.service.connect(LARGE)
        one.service.connect(SMALL)
        await trio.testing.wait_all_tasks_blocked()
        assert one.streams.opened == 1


async def test_both_open_at_once_and_one_stream_stays() -> None:
    async with network(SMALL, LARGE) as (one, other):
        one.streams.open_gate = other.streams.open_gate = trio.Event()
        one.service.connect(LARGE)
        other.service.connect(SMALL)
        await trio.testing.wait_all_tasks_blocked()
        one.streams.open_gate.set()
        await trio.testing.wait_all_tasks_blocked()
        assert one.service.neighbours() == (LARGE,)
        assert other.service.neighbours() == (SMALL,)
        one.service.send(LARGE, b"to large")
        other.service.send(SMALL, b"to small")
        await other.until(frame(SMALL, b"to large"))
        await one.until(frame(LARGE, b"to small"))
        opened_by_small = one.streams.pipes[0]
        assert not opened_by_small.was_reset or not one.streams.pipes[1].was_reset
        for end in (one, other):  # ups and downs alternate, whatever happened
            kinds = [type(event) for event in end.events if not isinstance(event, FrameIn)]
            assert kinds == [NeighbourUp, NeighbourDown] * (len(kinds) // 2) + [NeighbourUp] * (len(kinds) % 2)
            assert kinds[-1] is NeighbourUp


async def test_a_peer_that_comes_again_has_lost_his_stream() -> None:
    async with network(SMALL, LARGE) as (one, other):
        one.service.connect(LARGE)
        await other.until(NeighbourUp(peer=SMALL))
        again = await one.streams.open(LARGE, RELAY)
        await other.until(NeighbourUp(peer=SMALL), NeighbourUp(peer=SMALL))
        assert other.events == [NeighbourUp(peer=SMALL), NeighbourDown(peer=SMALL), NeighbourUp(peer=SMALL)]
        await again.send(b"new")
        await other.until(frame(SMALL, b"new"))
        assert other.service.statistics()["stream-replaced"] == 1
        await one.until(NeighbourDown(peer=LARGE))


async def test_an_unreachable_peer_is_counted_and_may_be_tried_again() -> None:
    async with network(SMALL) as (one,):
        for _ in range(2):
            one.service.connect(LARGE)
            await trio.testing.wait_all_tasks_blocked()
        assert one.service.statistics() == {"neighbours": 0, "dialling": 0, "unreachable": 2}
        one.service.send(LARGE, b"x")
        assert one.service.statistics()["not-a-neighbour"] == 1
        assert one.events == []


@pytest.mark.parametrize("how", ["end", "oversize", "explode", "write"])
async def test_what_goes_wrong_with_one_costs_only_that_one(how: str) -> None:
    async with network(SMALL, MIDDLE, LARGE) as (one, two, three):
        one.service.connect(MIDDLE)
        one.service.connect(LARGE)
        await one.until(NeighbourUp(peer=MIDDLE), NeighbourUp(peer=LARGE))
        await two.until(NeighbourUp(peer=SMALL))
        await three.until(NeighbourUp(peer=SMALL))
        (theirs,) = two.streams.pipes
        match how:
            case "end":
                await theirs.reset()
            case "write":
                assert theirs.other is not None
                theirs.other.fails = OSError("no window for five seconds")
                one.service.send(MIDDLE, b"x")
            case _:
                await theirs.send(how.encode())
        await one.until(NeighbourDown(peer=MIDDLE))
        assert one.service.neighbours() == (LARGE,)
        assert one.blames == ([(MIDDLE, "oversize")] if how == "oversize" else [])
        one.service.send(LARGE, b"still here")
        await three.until(frame(SMALL, b"still here"))
        one.service.connect(MIDDLE)
        await one.until(NeighbourUp(peer=MIDDLE), NeighbourUp(peer=MIDDLE))


async def test_a_neighbour_who_takes_nothing_loses_his_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RELAY_QUEUE_FRAMES", 8)
    async with network(SMALL, LARGE) as (one, _):
        one.service.connect(LARGE)
        await one.until(NeighbourUp(peer=LARGE))
        one.streams.pipes[0].stuck = True
        one.service.send(LARGE, b"held up")
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(8):
            one.service.send(LARGE, b"waits")
        assert one.service.neighbours() == (LARGE,)
        one.service.send(LARGE, b"too much")
        await one.until(NeighbourDown(peer=LARGE))
        assert one.service.statistics()["outbox-overrun"] == 1


async def test_a_reader_never_waits_for_the_inbox(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow inbox fills the queue, not the stream; who overruns it is cut off, counted, and may come back."""
    monkeypatch.setattr(module, "RELAY_QUEUE_FRAMES", 8)
    async with network(SMALL, LARGE) as (one, other):
        one.service.connect(LARGE)
        await other.until(NeighbourUp(peer=SMALL))
        other.gate = trio.Event()
        for number in range(9):
            one.service.send(LARGE, b"%d" % number)
            await trio.testing.wait_all_tasks_blocked()
        assert other.service.neighbours() == (SMALL,)
        one.service.send(LARGE, b"too much")
        await other.until(NeighbourDown(peer=SMALL))
        assert other.service.statistics()["inbox-overrun"] == 1
        other.gate.set()
        await one.until(NeighbourDown(peer=LARGE))
        one.service.connect(LARGE)
        await other.until(NeighbourUp(peer=SMALL), NeighbourUp(peer=SMALL))


async def test_bytes_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RELAY_QUEUE_BYTES", 100)
    async with network(SMALL, LARGE) as (one, _):
        one.service.connect(LARGE)
        await one.until(NeighbourUp(peer=LARGE))
        one.service.send(LARGE, bytes(101))
        await one.until(NeighbourDown(peer=LARGE))
        assert one.service.statistics()["outbox-overrun"] == 1


async def test_no_more_neighbours_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PEERS_MAX", 1)
    async with network(SMALL, MIDDLE, LARGE) as (one, two, three):
        two.service.connect(SMALL)
        await one.until(NeighbourUp(peer=MIDDLE))
        three.service.connect(SMALL)
        one.service.connect(LARGE)
        await trio.testing.wait_all_tasks_blocked()
        assert one.service.neighbours() == (MIDDLE,)
        assert one.service.statistics()["neighbours-full"] == 2


async def test_dropping_a_neighbour() -> None:
    async with network(SMALL, LARGE) as (one, other):
        one.service.connect(LARGE)
        await other.until(NeighbourUp(peer=SMALL))
        one.service.drop(LARGE)
        one.service.drop(MIDDLE)
        await one.until(NeighbourDown(peer=LARGE))
        await other.until(NeighbourDown(peer=SMALL))
        assert one.of(LARGE) == [NeighbourUp(peer=LARGE), NeighbourDown(peer=LARGE)]


async def test_before_and_after_its_run_it_dials_nobody() -> None:
    async with trio.open_nursery() as nursery:
        hub = Hub(nursery)
        end = End(hub.join(SMALL))
        end.service.connect(LARGE)
        assert end.streams.opened == 0
        async with trio.open_nursery() as inner:
            await inner.start(end.service.run)
            inner.cancel_scope.cancel()
        end.service.connect(LARGE)
        assert end.streams.opened == 0
