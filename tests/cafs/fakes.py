"""Streams in memory: frames with a byte window each way, streams that can be cut, and bytes that can be changed on the way."""

from collections import deque
from collections.abc import Awaitable, Callable

import trio

from wire.keys import PeerId, SecretKey
from wire.limits import FRAME_MAX_BYTES
from wire.ports import PeerUnreachable, Stream, StreamClosed

WINDOW_BYTES = 1 << 18


def key(number: int) -> SecretKey:
    return SecretKey(number.to_bytes(32, "big"))


class Pipe:
    """One direction. A writer waits while more than the window is unread, as on a yamux stream."""

    def __init__(self) -> None:
        self.frames: deque[bytes] = deque()
        self.unread_bytes = 0
        self.ended = False
        self.changed = trio.Event()

    def notify(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    def end(self) -> None:
        self.ended = True
        self.notify()


class FakeStream:
    def __init__(self, net: "Net", remote: PeerId, inward: Pipe, outward: Pipe) -> None:
        self._net = net
        self._remote = remote
        self._in = inward
        self._out = outward
        self.frames_left: int | None = None

    @property
    def remote(self) -> PeerId:
        return self._remote

    async def send(self, *frames: bytes) -> None:
        for frame in frames:
            await self._send(frame)

    async def _send(self, frame: bytes) -> None:
        await trio.lowlevel.checkpoint()
        assert len(frame) <= FRAME_MAX_BYTES
        if self.frames_left is not None:
            self.frames_left -= 1
            if self.frames_left < 0:
                await self.reset()
        frame = self._net.tap(self, frame)
        while not self._out.ended and self._out.unread_bytes >= WINDOW_BYTES:
            await self._out.changed.wait()
        if self._out.ended:
            raise StreamClosed("closed", "the stream is gone")
        self._out.frames.append(frame)
        self._out.unread_bytes += len(frame)
        self._net.most_unread_bytes = max(self._net.most_unread_bytes, self._out.unread_bytes)
        self._net.sent[self._net.owner(self)] = self._net.sent.get(self._net.owner(self), 0) + len(frame)
        self._out.notify()

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self._in.frames:
            if self._in.ended:
                raise StreamClosed("closed", "the stream is gone")
            await self._in.changed.wait()
        frame = self._in.frames.popleft()
        self._in.unread_bytes -= len(frame)
        self._in.notify()
        return frame

    async def close(self) -> None:
        self._out.end()

    async def reset(self) -> None:
        self._in.frames.clear()
        self._in.end()
        self._out.frames.clear()
        self._out.end()


class FakeStreams:
    def __init__(self, net: "Net", me: PeerId) -> None:
        self._net = net
        self._me = me
        self.handlers: dict[str, Callable[[Stream], Awaitable[None]]] = {}

    @property
    def me(self) -> PeerId:
        return self._me

    def serve(self, protocol: str, handler: Callable[[Stream], Awaitable[None]]) -> None:
        self.handlers[protocol] = handler

    async def open(self, peer: PeerId, protocol: str) -> Stream:
        await trio.lowlevel.checkpoint()
        handler = self._net.nodes[peer].handlers.get(protocol) if peer in self._net.nodes else None
        refusals = self._net.down.get(peer, 0)
        if handler is None or refusals:
            self._net.down[peer] = max(refusals - 1, 0)
            raise PeerUnreachable("unreachable", "no address of the peer answered")
        there, back = Pipe(), Pipe()
        mine, theirs = FakeStream(self._net, peer, back, there), FakeStream(self._net, self._me, there, back)
        self._net.owners[id(mine)], self._net.owners[id(theirs)] = self._me, peer
        self._net.alive += [mine, theirs]
        if self._net.cuts:
            theirs.frames_left = self._net.cuts.popleft()
        self._net.opened += 1
        self._net.nursery.start_soon(self._net.run_handler, handler, theirs)
        return mine


class Net:
    """Everybody in one process. ``cuts`` holds, for streams to come, after how many frames the serving end dies (None: never);
    ``down`` how often a peer will not be reached.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.nodes: dict[PeerId, FakeStreams] = {}
        self.owners: dict[int, PeerId] = {}
        self.alive: list[FakeStream] = []
        self.down: dict[PeerId, int] = {}
        self.cuts: deque[int | None] = deque()
        self.raised: list[Exception] = []
        self.sent: dict[PeerId, int] = {}
        self.opened = 0
        self.most_unread_bytes = 0
        self.tap: Callable[[FakeStream, bytes], bytes] = lambda _stream, frame: frame

    def node(self, peer: PeerId) -> FakeStreams:
        self.nodes[peer] = FakeStreams(self, peer)
        return self.nodes[peer]

    def owner(self, stream: FakeStream) -> PeerId:
        return self.owners[id(stream)]

    async def run_handler(self, handler: Callable[[Stream], Awaitable[None]], stream: FakeStream) -> None:
        try:
            await handler(stream)
        except Exception as error:
            self.raised.append(error)
            await stream.reset()
