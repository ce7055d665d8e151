"""The courier: order, reconnection, both sides opening at once, bounds. Over streams in memory, and over real ones."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from peer.net.courier import TRADE, Courier
from tests.net.rig import hosts, join, key, until
from wire.errors import InvariantBroken, Misbehaved
from wire.keys import PeerId
from wire.limits import FRAME_MAX_BYTES
from wire.ports import PeerUnreachable, Stream, StreamClosed

Handler = Callable[[Stream], Awaitable[None]]


class Pipe:
    """One end of a stream in memory."""

    def __init__(self, remote: PeerId) -> None:
        self._remote = remote
        self.out: trio.MemorySendChannel[bytes]
        self.into: trio.MemoryReceiveChannel[bytes]
        self.other: Pipe
        self.opened_by_us = False

    @property
    def remote(self) -> PeerId:
        return self._remote

    async def send(self, *frames: bytes) -> None:
        try:
            for frame in frames:
                await self.out.send(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise StreamClosed("stream-closed", "gone") from None

    async def receive(self) -> bytes:
        try:
            return await self.into.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise StreamClosed("stream-closed", "gone") from None

    async def close(self) -> None:
        self.out.close()

    async def reset(self) -> None:
        self.cut()

    def cut(self) -> None:
        for end in (self, self.other):
            end.out.close()
            end.into.close()


class World:
    """Peers joined by pipes that a test can cut, or keep from being opened."""

    def __init__(self, nursery: trio.Nursery, capacity: int = 0) -> None:
        self.nursery = nursery
        self.capacity = capacity
        self.nodes: dict[PeerId, Node] = {}
        self.pipes: list[tuple[PeerId, Pipe]] = []
        self.reachable = True
        self.opens = 0
        self.gate: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint

    def cut_all(self) -> None:
        for _, pipe in self.pipes:
            pipe.cut()
        self.pipes.clear()


class Node:
    """A ``Streams`` of the world."""

    def __init__(self, world: World, me: PeerId) -> None:
        self.world, self._me = world, me
        self.handlers: dict[str, Handler] = {}
        world.nodes[me] = self

    @property
    def me(self) -> PeerId:
        return self._me

    def serve(self, protocol: str, handler: Handler) -> None:
        self.handlers[protocol] = handler

    async def open(self, peer: PeerId, protocol: str) -> Stream:
        self.world.opens += 1
        await self.world.gate()
        target = self.world.nodes.get(peer)
        if target is None or not self.world.reachable:
            raise PeerUnreachable("peer-unreachable", "not there")
        near, far = Pipe(peer), Pipe(self._me)
        near.other, far.other = far, near
        near.out, far.into = trio.open_memory_channel[bytes](self.world.capacity)
        far.out, near.into = trio.open_memory_channel[bytes](self.world.capacity)
        self.world.pipes.append((self._me, near))
        self.world.nursery.start_soon(self._serve, target.handlers[protocol], far)
        return near

    async def _serve(self, handler: Handler, stream: Pipe) -> None:
        try:
            await handler(stream)
        except StreamClosed:
            pass
        finally:
            stream.cut()


class Desk:
    """A courier with what it was told."""

    def __init__(self, streams: Node) -> None:
        self.log: list[str] = []
        self.letters: list[bytes] = []
        self.me = streams.me
        self.on_up: Callable[[PeerId], None] = lambda _: None
        self.courier = Courier(streams, self._in, on_up=self._up, on_down=lambda _: self.log.append("down"))

    def _up(self, peer: PeerId) -> None:
        self.log.append("up")
        self.on_up(peer)

    async def _in(self, peer: PeerId, payload: bytes) -> None:
        self.letters.append(payload)


@asynccontextmanager
async def two(capacity: int = 0) -> AsyncIterator[tuple[World, Desk, Desk]]:
    async with trio.open_nursery() as nursery:
        world = World(nursery, capacity)
        left, right = Desk(Node(world, key(1).peer_id)), Desk(Node(world, key(2).peer_id))
        await nursery.start(left.courier.run)
        await nursery.start(right.courier.run)
        yield world, left, right
        nursery.cancel_scope.cancel()


def numbers(count: int, start: int = 0) -> list[bytes]:
    return [number.to_bytes(4, "big") for number in range(start, start + count)]


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def test_letters_arrive_in_order_over_one_stream(autojump_clock: trio.testing.MockClock) -> None:
    async with two() as (world, left, right):
        for letter in numbers(500):
            left.courier.post(right.me, letter)
        await settle()
        for letter in numbers(500):
            right.courier.post(left.me, letter)
        await settle()
        assert right.letters == left.letters == numbers(500)
        assert left.log == right.log == ["up"]
        assert world.opens == 1
        assert left.courier.is_up(right.me)
        assert right.courier.is_up(left.me)


async def test_both_sides_opening_at_once_keep_order(autojump_clock: trio.testing.MockClock) -> None:
    async with two() as (world, left, right):
        arrived = trio.Event()
        waiting = 0

        async def together() -> None:
            nonlocal waiting
            waiting += 1
            if waiting == 2:
                arrived.set()
            await arrived.wait()

        world.gate = together
        for letter in numbers(200):
            left.courier.post(right.me, letter)
            right.courier.post(left.me, letter)
        await settle()
        assert len(world.pipes) == 2
        assert right.letters == left.letters == numbers(200)
        assert left.log == right.log == ["up"]
        for letter in numbers(200, 200):
            left.courier.post(right.me, letter)
            right.courier.post(left.me, letter)
        await settle()
        assert right.letters == left.letters == numbers(400)
        # Losing one of the two streams is losing the line, on both sides, and it comes back when somebody has something to say.
        world.pipes[0][1].cut()
        await settle()
        assert left.log == right.log == ["up", "down"]
        left.courier.post(right.me, b"again")
        await settle()
        assert right.letters[-1] == b"again"
        assert left.log == right.log == ["up", "down", "up"]


async def test_after_a_cut_the_machines_say_again_what_is_owed(autojump_clock: trio.testing.MockClock) -> None:
    async with two() as (world, left, right):
        owed = numbers(50)

        def say_again(peer: PeerId) -> None:
            for letter in owed:
                left.courier.post(peer, letter)

        left.on_up = say_again
        left.courier.post(right.me, b"hello")
        await settle()
        world.cut_all()
        await settle()
        right.letters.clear()
        right.courier.post(left.me, b"are you back")
        await settle()
        assert right.letters == owed
        assert left.log == ["up", "down", "up"]


@pytest.mark.parametrize("seed", range(5))
async def test_letters_of_one_line_are_never_reordered_or_doubled_by_cuts(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    dice = random.Random(seed)
    async with two(capacity=3) as (world, left, right):
        posted = 0
        for _ in range(60):
            for _ in range(dice.randrange(6)):
                left.courier.post(right.me, posted.to_bytes(4, "big"))
                posted += 1
            if dice.random() < 0.3:
                right.courier.post(left.me, b"noise")
            match dice.randrange(4):
                case 0:
                    world.cut_all()
                case 1:
                    world.reachable = not world.reachable
                case _:
                    await trio.sleep(dice.random())
        world.reachable = True
        await trio.sleep(30)
        got = [int.from_bytes(one, "big") for one in right.letters]
        # A letter may be lost in a cut, or sent again when it is not known whether it went; never overtaken.
        assert got == sorted(got)
        left.courier.post(right.me, posted.to_bytes(4, "big"))
        await settle()
        assert int.from_bytes(right.letters[-1], "big") == posted


async def test_it_tries_again_with_growing_pauses_and_gives_the_letter_up(autojump_clock: trio.testing.MockClock) -> None:
    async with two() as (world, left, right):
        world.reachable = False
        left.courier.post(right.me, b"early")
        await trio.sleep(20)
        tried = world.opens
        assert 5 <= tried <= 10
        world.reachable = True
        await trio.sleep(9)
        assert right.letters == [b"early"]
        world.reachable = False
        world.cut_all()
        await settle()
        left.courier.post(right.me, b"never")
        await trio.sleep(70)
        before = world.opens
        await trio.sleep(100)
        assert world.opens == before
        statistics = left.courier.statistics()
        assert statistics["letters-lapsed"] == 1
        assert statistics["lines"] == 0
        assert left.log == ["up", "down"]


async def test_a_peer_that_comes_by_itself_gets_what_waits(autojump_clock: trio.testing.MockClock) -> None:
    async with two() as (world, left, right):
        world.reachable = False
        left.courier.post(right.me, b"waiting")
        await trio.sleep(16)
        world.reachable = True
        right.courier.post(left.me, b"here I am")
        await settle()
        assert right.letters == [b"waiting"]


async def test_a_peer_that_restarts_replaces_its_line(autojump_clock: trio.testing.MockClock) -> None:
    async with two() as (world, left, right):
        right.courier.post(left.me, b"first life")
        await settle()
        # Its end is gone without our end having noticed: the same peer simply opens again.
        stream = await world.nodes[right.me].open(left.me, TRADE)
        await stream.send(b"second life")
        await settle()
        assert left.letters == [b"first life", b"second life"]
        assert left.log == ["up", "down", "up"]
        assert left.courier.statistics()["line-replaced"] == 1


async def test_a_full_outbox_drops_the_line_and_says_so(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr("peer.net.courier.PEER_OUTBOX_FRAMES", 10)
    async with two() as (world, left, right):
        world.reachable = False
        for letter in numbers(11):
            left.courier.post(right.me, letter)
        statistics = left.courier.statistics()
        assert (statistics["outbox-overflow"], statistics["letters-dropped"], statistics["letters-waiting"]) == (1, 10, 1)
        assert left.log == ["down"]
        world.reachable = True
        await trio.sleep(9)
        assert right.letters == numbers(1, 10)


async def test_lines_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock) -> None:
    monkeypatch.setattr("peer.net.courier.COURIER_PEERS_MAX", 1)
    async with two() as (_, left, right):
        left.courier.post(key(7).peer_id, b"to nobody")
        left.courier.post(right.me, b"over the bound")
        right.courier.post(left.me, b"over the bound")
        await settle()
        assert left.letters == right.letters == []
        assert left.courier.statistics()["letters-over-peers"] == 1
        assert left.courier.statistics()["lines-over-bound"] >= 1


async def test_mistakes_of_the_caller_are_not_swallowed(autojump_clock: trio.testing.MockClock) -> None:
    async with two() as (_, left, right):
        with pytest.raises(InvariantBroken):
            left.courier.post(left.me, b"to myself")
        with pytest.raises(InvariantBroken):
            left.courier.post(right.me, bytes(FRAME_MAX_BYTES + 1))


async def test_what_a_stream_blames_reaches_whoever_serves_it(autojump_clock: trio.testing.MockClock) -> None:
    class Rude(Pipe):
        async def receive(self) -> bytes:
            raise Misbehaved("frame-oversize", "too much")

    async with two() as (world, left, right):
        stream = Rude(right.me)
        stream.other = Pipe(left.me)
        for end in (stream, stream.other):
            end.out, end.into = trio.open_memory_channel[bytes](0)
        with pytest.raises(Misbehaved):
            await world.nodes[left.me].handlers[TRADE](stream)
        assert left.log == ["up", "down"]


async def test_over_real_streams_with_a_reconnection() -> None:
    async with hosts(2) as (one, other), trio.open_nursery() as nursery:
        got: list[bytes] = []
        log: list[str] = []

        async def inbox(peer: PeerId, payload: bytes) -> None:
            got.append(payload)

        async def ignore(peer: PeerId, payload: bytes) -> None:
            return

        sender = Courier(one, ignore, on_up=lambda _: log.append("up"), on_down=lambda _: log.append("down"))
        receiver = Courier(other, inbox)
        await nursery.start(sender.run)
        await nursery.start(receiver.run)
        await join(one, other)
        for letter in numbers(1000):
            sender.post(other.me, letter)
        await until(lambda: len(got) == 1000)
        assert got == numbers(1000)
        await one.disconnect(other.me)
        await until(lambda: "down" in log)
        sender.post(other.me, b"x" * FRAME_MAX_BYTES)
        await until(lambda: len(got) == 1001)
        assert log == ["up", "down", "up"]
        nursery.cancel_scope.cancel()


async def test_over_real_streams_both_at_once() -> None:
    async with hosts(2) as (one, other), trio.open_nursery() as nursery:
        got: dict[str, list[bytes]] = {"one": [], "other": []}

        def inbox(name: str) -> Callable[[PeerId, bytes], Awaitable[None]]:
            async def put(peer: PeerId, payload: bytes) -> None:
                got[name].append(payload)

            return put

        couriers = Courier(one, inbox("one")), Courier(other, inbox("other"))
        for courier in couriers:
            await nursery.start(courier.run)
        await join(one, other)
        for letter in numbers(300):
            couriers[0].post(other.me, letter)
            couriers[1].post(one.me, letter)
        await until(lambda: len(got["one"]) >= 300 and len(got["other"]) >= 300)
        assert got["one"] == got["other"] == numbers(300)
        nursery.cancel_scope.cancel()
