"""The relay's streams: one long-lived stream per neighbour, frames in, frames out. It decides nothing about orders.

Whoever opened it, one stream serves both directions. When both sides open at once, the one opened by the smaller peer id
stays; when a peer opens another although his first stands, he has lost it, and the new one stays.

No reader stalls: frames go into a bounded queue, and only from there to the inbox, at the inbox's pace. No writer holds up
others: each neighbour has a bounded outbox. Whoever overruns either bound loses his stream, which is counted; what he missed
he gets by reconciliation when he comes back. Whatever goes wrong with one stream, in either direction, costs only that
neighbour.
"""

from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import trio

from orderbook.core.events import FrameIn, NeighbourDown, NeighbourUp
from wire.errors import Ignore, Misbehaved
from wire.keys import PeerId
from wire.limits import PEERS_MAX, RELAY_QUEUE_BYTES, RELAY_QUEUE_FRAMES
from wire.ports import PeerUnreachable, Stream, Streams

RELAY: Final = "/bitwrk/relay/1"
_CLOSE_S: Final = 2.0
_TOGETHER_BYTES: Final = 1 << 18  # of what waits for a neighbour, handed over in one piece

RelayEvent = NeighbourUp | NeighbourDown | FrameIn
Inbox = Callable[[RelayEvent], Awaitable[None]]
BlameCallback = Callable[[PeerId, Misbehaved], None]


class _Queue:
    """Frames waiting, bounded by number and bytes."""

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._wake = trio.Event()

    def put(self, frame: bytes) -> bool:
        """False when there is no room."""
        if len(self._frames) >= RELAY_QUEUE_FRAMES or self._bytes + len(frame) > RELAY_QUEUE_BYTES:
            return False
        self._frames.append(frame)
        self._bytes += len(frame)
        self._wake.set()
        return True

    async def take(self) -> bytes:
        while not self._frames:
            self._wake = trio.Event()
            await self._wake.wait()
        frame = self._frames.popleft()
        self._bytes -= len(frame)
        return frame

    async def take_some(self) -> list[bytes]:
        """What waits, at most ``_TOGETHER_BYTES`` of it and at least one frame."""
        frames = [await self.take()]
        size = len(frames[0])
        while self._frames and size + len(self._frames[0]) <= _TOGETHER_BYTES:
            frames.append(await self.take())
            size += len(frames[-1])
        return frames


@dataclass(slots=True, eq=False)
class _Line:
    """One neighbour's stream."""

    stream: Stream
    ours: bool
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    inbox: _Queue = field(default_factory=_Queue)
    outbox: _Queue = field(default_factory=_Queue)


def _nobody(_: PeerId, __: Misbehaved) -> None:
    return


class RelayService:
    """See the module. ``inbox(event)`` is awaited event by event and may take its time; ``run`` has to run beside it."""

    def __init__(self, streams: Streams, inbox: Inbox, *, protocol: str = RELAY, on_blame: BlameCallback = _nobody) -> None:
        self._streams = streams
        self._inbox = inbox
        self._protocol = protocol
        self._on_blame = on_blame
        self._lines: dict[PeerId, _Line] = {}
        self._dialling: set[PeerId] = set()
        self._changing: dict[PeerId, trio.Lock] = {}
        self._nursery: trio.Nursery | None = None
        self._counters: Counter[str] = Counter()
        streams.serve(protocol, self._serve)

    # --- what the node calls --------------------------------------------------------------------------------

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Dial and keep the streams we open, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def connect(self, peer: PeerId) -> None:
        """Have a stream with ``peer`` if that can be; never waits. Whether it worked, the inbox hears."""
        if self._nursery is None or peer == self._streams.me or peer in self._lines or peer in self._dialling:
            return
        if len(self._lines) + len(self._dialling) >= PEERS_MAX:
            self._counters["neighbours-full"] += 1
            return
        self._dialling.add(peer)
        self._nursery.start_soon(self._dial, peer)

    def send(self, peer: PeerId, frame: bytes) -> None:
        """Send a frame to a neighbour; never waits. One who does not take what he is sent loses his stream."""
        line = self._lines.get(peer)
        if line is None:
            self._counters["not-a-neighbour"] += 1
        elif not line.outbox.put(frame):
            self._counters["outbox-overrun"] += 1
            line.scope.cancel()

    def neighbours(self) -> tuple[PeerId, ...]:
        """The peers with a stream now, ascending."""
        return tuple(sorted(self._lines))

    def drop(self, peer: PeerId) -> None:
        """End the stream with ``peer``."""
        line = self._lines.get(peer)
        if line is not None:
            line.scope.cancel()

    def statistics(self) -> dict[str, int]:
        """How the relay is: neighbours, and a line for everything that went wrong."""
        return {"neighbours": len(self._lines), "dialling": len(self._dialling), **dict(sorted(self._counters.items()))}

    # --- streams --------------------------------------------------------------------------------------------

    async def _dial(self, peer: PeerId) -> None:
        try:
            try:
                stream = await self._streams.open(peer, self._protocol)
            except (PeerUnreachable, Ignore):
                self._counters["unreachable"] += 1
                return
            except Exception:  # whatever one dial meets, the others go on
                self._counters["dial-failed"] += 1
                return
        finally:
            self._dialling.discard(peer)
        await self._keep(peer, stream, ours=True)

    async def _serve(self, stream: Stream) -> None:
        if len(self._lines) >= PEERS_MAX and stream.remote not in self._lines:
            self._counters["neighbours-full"] += 1
            await _reset(stream)
            return
        await self._keep(stream.remote, stream, ours=False)

    async def _keep(self, peer: PeerId, stream: Stream, *, ours: bool) -> None:
        """Serve one stream until it ends, if it is the one that stays."""
        line = _Line(stream=stream, ours=ours)
        try:
            if await self._attach(peer, line):
                await self._pump(peer, line)
        finally:
            await _reset(stream)
            with trio.move_on_after(_CLOSE_S, shield=True):
                await self._detach(peer, line)

    def _stays(self, peer: PeerId, standing: _Line, coming: _Line) -> bool:
        """Whether ``standing`` stays although ``coming`` has come."""
        if standing.ours == coming.ours:
            return False
        return standing.ours == (self._streams.me < peer)

    async def _attach(self, peer: PeerId, line: _Line) -> bool:
        """Make ``line`` the neighbour's stream, ending another; False when the other stays."""
        async with self._changing.setdefault(peer, trio.Lock()):
            standing = self._lines.get(peer)
            if standing is not None:
                if self._stays(peer, standing, line):
                    self._counters["second-stream"] += 1
                    return False
                self._counters["stream-replaced"] += 1
                standing.scope.cancel()
                del self._lines[peer]
                await self._inbox(NeighbourDown(peer=peer))
            self._lines[peer] = line
            await self._inbox(NeighbourUp(peer=peer))
            return True

    async def _detach(self, peer: PeerId, line: _Line) -> None:
        async with self._changing.setdefault(peer, trio.Lock()):
            if self._lines.get(peer) is line:
                del self._lines[peer]
                await self._inbox(NeighbourDown(peer=peer))
        if peer not in self._lines and not self._changing[peer].statistics().tasks_waiting:
            self._changing.pop(peer, None)

    async def _pump(self, peer: PeerId, line: _Line) -> None:
        """Read, hand on and write until any of them ends."""
        with line.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._hand_on, peer, line)
                nursery.start_soon(self._write, line, nursery.cancel_scope)
                await self._read(peer, line)
                nursery.cancel_scope.cancel()

    async def _read(self, peer: PeerId, line: _Line) -> None:
        try:
            while True:
                frame = await line.stream.receive()
                if not line.inbox.put(frame):
                    self._counters["inbox-overrun"] += 1
                    return
        except Misbehaved as error:
            self._counters[error.code] += 1
            self._on_blame(peer, error)
        except Ignore:
            self._counters["stream-closed"] += 1
        except Exception:  # a broken stream costs its neighbour, never the node
            self._counters["read-failed"] += 1

    async def _hand_on(self, peer: PeerId, line: _Line) -> None:
        while True:
            await self._inbox(FrameIn(peer=peer, frame=await line.inbox.take()))

    async def _write(self, line: _Line, scope: trio.CancelScope) -> None:
        try:
            while True:
                await line.stream.send(*await line.outbox.take_some())
        except Ignore:
            self._counters["stream-closed"] += 1
        except Exception:  # as above
            self._counters["write-failed"] += 1
        scope.cancel()


async def _reset(stream: Stream) -> None:
    with trio.move_on_after(_CLOSE_S, shield=True):
        await stream.reset()
