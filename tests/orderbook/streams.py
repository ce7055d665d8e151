"""Streams in memory: a hub of peers, each with a ``wire.ports.Streams``, for tests of drivers."""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from wire.errors import Misbehaved
from wire.keys import PeerId
from wire.ports import PeerUnreachable, Stream, StreamClosed


class Pipe:
    """One end of a stream. ``stuck`` holds its sender up for ever; ``fails`` is raised by the next receive or send."""

    def __init__(self, remote: PeerId) -> None:
        self.remote_id = remote
        self.into, self._from_other = trio.open_memory_channel[bytes](math.inf)
        self.other: Pipe | None = None
        self.stuck = False
        self.fails: Exception | None = None
        self.was_reset = False

    @property
    def remote(self) -> PeerId:
        return self.remote_id

    async def send(self, *frames: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if self.fails is not None:
            raise self.fails
        if self.stuck:
            await trio.sleep_forever()
        assert self.other is not None
        try:
            for frame in frames:
                self.other.into.send_nowait(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise StreamClosed("closed", "the stream is gone") from None

    async def receive(self) -> bytes:
        try:
            frame = await self._from_other.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise StreamClosed("closed", "the stream is gone") from None
        if frame == b"oversize":
            raise Misbehaved("oversize", "a frame is too long")
        if frame == b"explode":
            raise RuntimeError("a library's bug")
        return frame

    async def close(self) -> None:
        await self.reset()

    async def reset(self) -> None:
        self.was_reset = True
        for end in (self, self.other):
            assert end is not None
            end.into.close()
        await trio.lowlevel.checkpoint()


@dataclass
class FakeStreams:
    """One peer's view of the hub."""

    hub: "Hub"
    me_id: PeerId
    handlers: dict[str, Callable[[Stream], Awaitable[None]]] = field(default_factory=dict)
    pipes: list[Pipe] = field(default_factory=list)
    opened: int = 0
    open_gate: trio.Event | None = None

    @property
    def me(self) -> PeerId:
        return self.me_id

    def serve(self, protocol: str, handler: Callable[[Stream], Awaitable[None]]) -> None:
        self.handlers[protocol] = handler

    async def open(self, peer: PeerId, protocol: str) -> Stream:
        self.opened += 1
        await trio.lowlevel.checkpoint()
        there = self.hub.peers.get(peer)
        if there is None or protocol not in there.handlers:
            raise PeerUnreachable("unreachable", "nobody answers")
        if self.open_gate is not None:
            await self.open_gate.wait()
        ours, theirs = Pipe(peer), Pipe(self.me_id)
        ours.other, theirs.other = theirs, ours
        self.pipes.append(ours)
        there.pipes.append(theirs)
        self.hub.nursery.start_soon(self.hub.guarded, there.handlers[protocol], theirs)
        return ours


class Hub:
    """All peers of one test."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.peers: dict[PeerId, FakeStreams] = {}
        self.escaped: list[Exception] = []

    def join(self, peer: PeerId) -> FakeStreams:
        self.peers[peer] = FakeStreams(self, peer)
        return self.peers[peer]

    async def guarded(self, handler: Callable[[Stream], Awaitable[None]], stream: Pipe) -> None:
        try:
            await handler(stream)
        except Exception as error:
            self.escaped.append(error)
            await stream.reset()
