"""One stream of one transfer, as the machines' driver needs it: it reads always, and hands over events one by one.

A reader that stalls makes the sender of a libp2p stream fail, so frames are taken off the stream as they come, into an inbox.
What can honestly be under way is bounded by credit; a peer that fills the inbox beyond that has overrun its window.
"""

from collections import deque
from typing import Final

import trio

from cafs.core.faults import Overrun, Stalled
from cafs.core.messages import MESSAGES, Message
from cafs.core.transfer import Closed, Heard, Tick
from wire.errors import BitwrkError, Ignore, Misbehaved
from wire.limits import CHUNK_MAX_BYTES, TRANSFER_STALL_S, TRANSFER_WINDOW_BYTES, TRANSFER_WINDOW_CHUNKS
from wire.moments import SECOND, Instant
from wire.ports import Stream

FRAME_MOST_BYTES: Final = CHUNK_MAX_BYTES + 64
# A refusal may follow what was wished for, and every frame has its header.
_INBOX_FRAMES: Final = TRANSFER_WINDOW_CHUNKS + 4
_INBOX_BYTES: Final = TRANSFER_WINDOW_BYTES + FRAME_MOST_BYTES + 64 * _INBOX_FRAMES


def now() -> Instant:
    """The moment by trio's clock; only differences of it mean anything."""
    return Instant(int(trio.current_time() * SECOND))


class Line:
    """A stream with an inbox. Events of the driver's own tasks go through the same inbox."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.sent_bytes = 0
        self.received_bytes = 0
        self._inbox: deque[bytes | object] = deque()
        self._frames = 0
        self._frame_bytes = 0
        self._mute = False
        self._some = trio.Event()

    async def read(self) -> None:
        """Read until the stream ends, which is the last event. To be run as a task."""
        try:
            while True:
                frame = await self.stream.receive()
                self._frames += 1
                self._frame_bytes += len(frame)
                self.received_bytes += len(frame)
                if self._frames > _INBOX_FRAMES or self._frame_bytes > _INBOX_BYTES:
                    raise Overrun("window-overrun", "more was sent than there was credit for", 50)
                self.put(frame)
        except (Ignore, Misbehaved) as error:
            self.put(Closed(error=error))

    def put(self, event: object) -> None:
        """Append an event of our own."""
        self._inbox.append(event)
        self._some.set()

    async def next_event(self, deadline: Instant | None) -> object:
        """The next event; ``Tick`` when ``deadline`` comes first. A frame that is no message is a ``Closed`` that says why."""
        with trio.move_on_at(float("inf") if deadline is None else deadline / SECOND):
            while not self._inbox:
                self._some = trio.Event()
                await self._some.wait()
        if not self._inbox:
            return Tick()
        event = self._inbox.popleft()
        if not isinstance(event, bytes):
            return event
        self._frames -= 1
        self._frame_bytes -= len(event)
        try:
            return Heard(message=MESSAGES.unpack(event, FRAME_MOST_BYTES))
        except Misbehaved as error:
            return Closed(error=error)

    async def send(self, message: Message) -> None:
        """Send one message. That it cannot be sent is an event like others; what would follow it is then not tried."""
        if self._mute:
            return
        frame = MESSAGES.pack(message)
        error: BitwrkError = Stalled("stalled", f"the peer took nothing for {TRANSFER_STALL_S} seconds")
        with trio.move_on_after(TRANSFER_STALL_S):
            try:
                await self.stream.send(frame)
            except (Ignore, Misbehaved) as closed:
                error = closed
            else:
                self.sent_bytes += len(frame)
                return
        self._mute = True
        self.put(Closed(error=error))

    async def end(self, *, politely: bool) -> None:
        """Let go of the stream, also when cancelled."""
        with trio.move_on_after(1, shield=True):
            await (self.stream.close() if politely else self.stream.reset())
