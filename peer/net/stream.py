"""Framed streams: 4 bytes of big-endian length, then at most ``FRAME_MAX_BYTES`` of payload.

No reader ever stalls. A stream's ``pump`` reads whatever arrives into a buffer of its own, so the sender's window is always
granted again (a sender that waits five seconds for it fails). The price is a bound: a peer that sends more than
``STREAM_BUFFER_MAX_BYTES`` ahead of what the room has taken loses the stream. Rooms that move much therefore carry
their own credits in their messages; the bound is far above what a well-behaved protocol has in flight.
"""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import trio
from libp2p.network.stream.exceptions import StreamEOF, StreamReset

from peer.net.guards import reset_quietly
from wire.errors import Misbehaved, require
from wire.keys import PeerId
from wire.limits import FRAME_MAX_BYTES, FRAME_TIMEOUT_S, STREAM_BUFFER_MAX_BYTES, STREAM_READ_BYTES, STREAM_WINDOW_BYTES
from wire.ports import StreamClosed

_LENGTH_BYTES: Final = 4
_CLOSE_S: Final = 2.0


class FramedStream:
    """One framed stream over a libp2p stream; see ``wire.ports.Stream``. ``pump`` has to run beside it."""

    def __init__(self, raw: Any, remote: PeerId, counters: Counter[str], blame: Callable[[PeerId, Misbehaved], None]) -> None:
        self._raw = raw
        self._muxed = raw.muxed_stream  # the library's own stream would lock a state that is kept here as well
        self._remote = remote
        self._counters = counters
        self._blame = blame
        self._frames_in, self._frames_out = trio.open_memory_channel[bytes](math.inf)
        self._buffered_bytes = 0
        self._failure: Misbehaved | StreamClosed | None = None
        self._sending = trio.Lock()
        self._unusable = False
        self.ended = trio.Event()

    @property
    def remote(self) -> PeerId:
        """The authenticated peer at the other end."""
        return self._remote

    # --- out -----------------------------------------------------------------------------------------------

    async def send(self, *frames: bytes) -> None:
        """Write frames. Raises ``StreamClosed``. A send that is cancelled half way takes the stream with it."""
        parts: list[bytes] = []
        for frame in frames:
            require(len(frame) <= FRAME_MAX_BYTES, "frame-oversize", f"a frame of {len(frame)} bytes was to be sent")
            parts += (len(frame).to_bytes(_LENGTH_BYTES, "big"), frame)
        try:
            self._sending.acquire_nowait()
        except trio.WouldBlock:
            await self._sending.acquire()
        try:
            if self._unusable:
                raise self._closed()
            whole = False
            try:
                with trio.fail_after(FRAME_TIMEOUT_S):
                    await self._muxed.write(b"".join(parts))
                whole = True
            except Exception:
                raise self._closed() from None
            finally:
                if not whole:
                    self._unusable = True
                    await reset_quietly(self._raw)
        finally:
            self._sending.release()

    async def close(self) -> None:
        """End our half politely; never raises."""
        if self._unusable:
            return
        self._unusable = True
        with trio.move_on_after(_CLOSE_S, shield=True):
            try:
                await self._raw.close_write()
            except Exception:
                self._counters["stream-close-failed"] += 1

    async def reset(self) -> None:
        """End both halves at once; never raises."""
        self._unusable = True
        await reset_quietly(self._raw)

    # --- in ------------------------------------------------------------------------------------------------

    async def receive(self) -> bytes:
        """Read one frame; waits only when there is none. Raises ``StreamClosed`` at the end and ``Misbehaved`` for what the peer
        did wrong.
        """
        try:
            try:
                frame = self._frames_out.receive_nowait()
            except trio.WouldBlock:
                frame = await self._frames_out.receive()
        except trio.EndOfChannel:
            raise self._failure or self._closed() from None
        self._buffered_bytes -= len(frame) + _LENGTH_BYTES
        return frame

    async def pump(self) -> None:
        """Read until the peer ends the stream or breaks a rule. Never raises."""
        try:
            self._muxed.widen(STREAM_WINDOW_BYTES)
            await self._pump()
        except Misbehaved as error:
            self._failure = error
            self._counters[error.code] += 1
            self._blame(self._remote, error)
            await self.reset()
        except StreamClosed as error:
            self._failure = error
        except Exception:
            self._failure = self._closed()
        finally:
            self._frames_in.close()
            self.ended.set()

    async def _pump(self) -> None:
        buffer = bytearray()
        deadline = math.inf
        while True:
            with trio.CancelScope(deadline=deadline) as scope:
                try:
                    buffer += await self._raw.read(STREAM_READ_BYTES)
                except StreamEOF:
                    if buffer:
                        self._counters["frame-cut-short"] += 1
                    raise self._closed() from None
                except StreamReset:
                    raise self._closed() from None
            if scope.cancelled_caught:
                raise Misbehaved("frame-too-slow", "the peer began a frame and did not end it")
            if self._take_frames(buffer) or deadline == math.inf:  # a byte now and then is no progress, a whole frame is
                deadline = trio.current_time() + FRAME_TIMEOUT_S
            if not buffer:
                deadline = math.inf

    def _take_frames(self, buffer: bytearray) -> int:
        """Hand on the whole frames in ``buffer`` and leave the rest; returns the bytes that went."""
        start = 0
        while len(buffer) - start >= _LENGTH_BYTES:
            length = int.from_bytes(buffer[start : start + _LENGTH_BYTES], "big")
            if length > FRAME_MAX_BYTES:
                raise Misbehaved("frame-oversize", f"the peer announced a frame of {length} bytes", penalty=20)
            end = start + _LENGTH_BYTES + length
            if len(buffer) < end:
                break
            self._buffered_bytes += end - start
            self._frames_in.send_nowait(bytes(buffer[start + _LENGTH_BYTES : end]))
            start = end
        del buffer[:start]
        if self._buffered_bytes > STREAM_BUFFER_MAX_BYTES:
            raise Misbehaved("stream-overflow", "the peer sent more than it was asked for", penalty=5)
        return start

    def _closed(self) -> StreamClosed:
        return StreamClosed("stream-closed", "the peer ended the stream or the connection is gone")
