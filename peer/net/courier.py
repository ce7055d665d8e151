"""The courier carries letters: one long-lived stream per pair of peers, opened when somebody has something to say.

What its users may rely on:

- letters of one peer arrive in the order they were posted, or not at all, as long as the line is up;
- ``on_up(peer)`` comes before the first letter of a line in either direction, ``on_down(peer)`` when any of it was lost. What
  had been handed to the line before that may or may not have arrived, so after the next ``on_up`` both sides say again
  whatever their state says is owed;
- a posted letter waits for a line at most ``LETTER_LIFE_S``; then it is dropped and counted, and whoever owes it says so
  again in his own time;
- ``post`` never waits. A peer that does not take what it is sent runs into ``PEER_OUTBOX_FRAMES``: then the line and all
  that waits for it are dropped, counted, and told by ``on_down``.

Both sides may open at once; then there are two streams. Both are read. Each side goes on writing on the one it chose, its own
if it already wrote there, else the one opened by the smaller peer id; never changing within the life of a line is what keeps the
order. Losing either stream ends the line: half a line cannot promise anything. A second stream opened by a peer whose first
still stands means that it lost its end, so the line starts again with the new one.
"""

from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import trio

from wire.errors import Ignore, Misbehaved, require
from wire.keys import PeerId
from wire.limits import COURIER_PEERS_MAX, FRAME_MAX_BYTES, LETTER_LIFE_S, PEER_OUTBOX_FRAMES
from wire.ports import PeerUnreachable, Stream, StreamClosed, Streams

TRADE: Final = "/bitwrk/trade/1"

_RETRY_FIRST_S: Final = 0.25
_RETRY_MAX_S: Final = 8.0

Inbox = Callable[[PeerId, bytes], Awaitable[None]]
PeerCallback = Callable[[PeerId], None]


@dataclass(slots=True)
class _Line:
    """What is between us and one peer: streams by who opened them, and letters with the moment they lapse."""

    peer: PeerId
    outbox: deque[tuple[float, bytes]] = field(default_factory=deque)
    ours: Stream | None = None
    theirs: Stream | None = None
    writer: Stream | None = None
    working: bool = False
    wake: trio.Event = field(default_factory=trio.Event)
    came: trio.Event = field(default_factory=trio.Event)

    @property
    def up(self) -> bool:
        return self.ours is not None or self.theirs is not None

    def streams(self) -> list[Stream]:
        return [one for one in (self.ours, self.theirs) if one is not None]


def _nobody(_: PeerId) -> None:
    return


class Courier:
    """See the module. ``inbox(peer, payload)`` is awaited letter by letter; it should only put the letter somewhere."""

    def __init__(
        self,
        streams: Streams,
        inbox: Inbox,
        *,
        protocol: str = TRADE,
        on_up: PeerCallback = _nobody,
        on_down: PeerCallback = _nobody,
    ) -> None:
        self._streams = streams
        self._inbox = inbox
        self._protocol = protocol
        self._on_up = on_up
        self._on_down = on_down
        self._lines: dict[PeerId, _Line] = {}
        self._nursery: trio.Nursery | None = None
        self._counters: Counter[str] = Counter()
        streams.serve(protocol, self._serve)

    def statistics(self) -> dict[str, int]:
        """How the courier is: lines, those that are up, letters waiting, and a line for everything dropped."""
        return {
            "lines": len(self._lines),
            "lines-up": sum(line.up for line in self._lines.values()),
            "letters-waiting": sum(len(line.outbox) for line in self._lines.values()),
            **dict(sorted(self._counters.items())),
        }

    def is_up(self, peer: PeerId) -> bool:
        """Whether a line with ``peer`` stands now."""
        line = self._lines.get(peer)
        return line is not None and line.up

    def post(self, peer: PeerId, payload: bytes) -> None:
        """Send a letter as soon as may be; never waits. A letter to ourselves or over the bound is a mistake of the caller's."""
        require(len(payload) <= FRAME_MAX_BYTES, "letter-oversize", f"a letter of {len(payload)} bytes was posted")
        require(peer != self._streams.me, "letter-to-self", "a letter was posted to ourselves")
        line = self._line(peer)
        if line is None:
            self._counters["letters-over-peers"] += 1
            return
        if len(line.outbox) >= PEER_OUTBOX_FRAMES:
            self._counters["outbox-overflow"] += 1
            self._counters["letters-dropped"] += len(line.outbox)
            line.outbox.clear()
            self._drop(line, tell_anyway=True)
        line.outbox.append((trio.current_time() + LETTER_LIFE_S, payload))
        self._wake(line)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry letters until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for line in self._lines.values():
                self._wake(line)
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    # --- lines ---------------------------------------------------------------------------------------------

    def _line(self, peer: PeerId) -> _Line | None:
        line = self._lines.get(peer)
        if line is None:
            if len(self._lines) >= COURIER_PEERS_MAX:
                return None
            line = self._lines[peer] = _Line(peer)
        return line

    def _wake(self, line: _Line) -> None:
        line.wake.set()
        if not line.working and self._nursery is not None:
            line.working = True
            self._nursery.start_soon(self._work, line)

    def _adopt(self, line: _Line, stream: Stream, *, ours: bool) -> None:
        """Add a stream to the line, telling that it is up if it was not."""
        standing = line.ours if ours else line.theirs
        if standing is not None:
            self._counters["line-replaced"] += 1
            self._drop(line)
        was_up = line.up
        if ours:
            line.ours = stream
        else:
            line.theirs = stream
        line.came.set()
        if not was_up:
            self._counters["line-up"] += 1
            self._on_up(line.peer)

    def _drop(self, line: _Line, *, tell_anyway: bool = False) -> None:
        """End the line: whatever was on its way may be lost."""
        lost, was_up = line.streams(), line.up
        line.ours = line.theirs = line.writer = None
        for stream in lost:
            if self._nursery is not None:
                self._nursery.start_soon(stream.reset)
        if was_up:
            self._counters["line-down"] += 1
        if was_up or tell_anyway:
            self._on_down(line.peer)
        line.wake.set()

    def _lost(self, line: _Line, stream: Stream) -> None:
        """``stream`` has ended; the line goes with it, unless it has gone on without it already."""
        if any(stream is one for one in line.streams()):
            self._drop(line)
        self._forget_if_idle(line)

    def _forget_if_idle(self, line: _Line) -> None:
        if not line.up and not line.outbox and not line.working and self._lines.get(line.peer) is line:
            del self._lines[line.peer]

    # --- in ------------------------------------------------------------------------------------------------

    async def _serve(self, stream: Stream) -> None:
        line = self._line(stream.remote)
        if line is None or self._nursery is None:
            self._counters["lines-over-bound"] += 1
            await stream.reset()
            return
        self._adopt(line, stream, ours=False)
        self._wake(line)
        await self._read(line, stream)

    async def _read(self, line: _Line, stream: Stream) -> None:
        """Hand over letters until the stream ends. ``Misbehaved`` leaves to where the stream came from."""
        try:
            while True:
                payload = await stream.receive()
                self._counters["letters-in"] += 1
                await self._inbox(line.peer, payload)
        except Ignore:
            return
        finally:
            self._lost(line, stream)

    async def _read_ours(self, line: _Line, stream: Stream) -> None:
        try:
            await self._read(line, stream)
        except Misbehaved as error:
            self._counters[error.code] += 1
        await stream.reset()

    # --- out -----------------------------------------------------------------------------------------------

    async def _work(self, line: _Line) -> None:
        """Write what is in the outbox, opening a stream when there is none, until nothing is left to do."""
        pause_s = 0.0
        try:
            while line.up or line.outbox:
                line.wake = trio.Event()
                self._drop_lapsed(line)
                if not line.outbox:
                    if line.up:
                        await line.wake.wait()
                    continue
                line.writer = line.writer or self._choose(line)
                if line.writer is not None:
                    if await self._write(line, line.writer):
                        pause_s = 0.0
                    continue
                # Pauses grow until a letter has gone: a peer that takes every stream and drops it deserves no more haste
                # than one that is away.
                if pause_s and await self._came_within(line, pause_s):
                    continue
                pause_s = min(2 * pause_s, _RETRY_MAX_S) or _RETRY_FIRST_S
                await self._open(line)
        finally:
            line.working = False
            self._forget_if_idle(line)

    def _choose(self, line: _Line) -> Stream | None:
        if line.ours is not None and line.theirs is not None:
            return line.ours if self._streams.me < line.peer else line.theirs
        return line.ours or line.theirs

    async def _open(self, line: _Line) -> None:
        try:
            stream = await self._streams.open(line.peer, self._protocol)
        except PeerUnreachable:
            self._counters["open-failed"] += 1
            return
        if self._nursery is not None:
            self._adopt(line, stream, ours=True)
            self._nursery.start_soon(self._read_ours, line, stream)

    async def _came_within(self, line: _Line, pause_s: float) -> bool:
        """Wait before the next attempt. Whether the peer opened a stream meanwhile."""
        line.came = trio.Event()
        with trio.move_on_after(pause_s):
            await line.came.wait()
        return line.up

    async def _write(self, line: _Line, stream: Stream) -> bool:
        lapses, payload = line.outbox.popleft()
        try:
            await stream.send(payload)
        except StreamClosed:
            line.outbox.appendleft((lapses, payload))
            self._lost(line, stream)
            return False
        self._counters["letters-out"] += 1
        return True

    def _drop_lapsed(self, line: _Line) -> None:
        now = trio.current_time()
        while line.outbox and line.outbox[0][0] <= now:
            line.outbox.popleft()
            self._counters["letters-lapsed"] += 1
