"""Stream multiplexing that holds its peer to the rules: yamux with every bound enforced.

This is libp2p's ``Yamux`` with its receive loop and its writer replaced, because of seven things the original does:

- it only logs when a peer sends more than the window it was given; here that stream is reset and counted;
- it accepts any number of inbound streams, and blocks the whole connection while ten of them wait to be accepted;
  here the stream over the bound is reset and the loop never waits for anything but bytes;
- it answers pings and opens from the loop that reads, so two ends that both write can stop reading each other for good;
  here answers go to a bounded queue, and a peer that lets it fill up loses the connection;
- it writes to the socket from whoever calls, so cancelling that caller in the middle of a frame leaves half of an
  encrypted message on the wire; here one task per connection writes, and callers wait only for a place in its queue;
- it sends a window update for nearly every small read; here when half of the window is used up;
- it takes five locks to send a frame and receive it, each of them a turn of the scheduler; here nothing waits between the look
  at a stream's state and what follows from it, so there is nothing to lock;
- it never notices that a peer has gone without a word; here silence for ``SILENCE_MAX_S`` ends the connection.

Wire format: https://github.com/hashicorp/yamux/blob/master/spec.md
"""

import struct
from collections import Counter, deque
from contextlib import suppress
from typing import Any, ClassVar, Final

import trio
from libp2p.network.connection.exceptions import RawConnError
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamError, MuxedStreamReset
from libp2p.stream_muxer.yamux.yamux import Yamux, YamuxStream

from wire.limits import (
    FRAME_TIMEOUT_S,
    INBOUND_STREAMS_PER_PEER_MAX,
    KEEPALIVE_S,
    MUX_CONTROL_FRAMES,
    MUX_FRAME_MAX_BYTES,
    MUX_PACKET_BYTES,
    MUX_QUEUE_FRAMES,
    SILENCE_MAX_S,
    STREAM_WINDOW_MAX_BYTES,
    STREAM_WRITE_BYTES,
)

DATA, WINDOW, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8

_HEADER: Final = struct.Struct("!BBHII")
_CLOSE_FLUSH_S: Final = 0.5
_FAST_ROUND_TRIPS: Final = 4
_FAST_S: Final = 0.5  # the round trips of a busy machine are longer than what its pings found when it was idle
_WINDOW_WAIT_S: Final = 5.0


def frame(kind: int, flags: int, stream_id: int, length: int, body: bytes = b"") -> bytes:
    """One yamux frame. ``length`` is the size of the body for data, and the argument otherwise."""
    return _HEADER.pack(0, kind, flags, stream_id, length) + body


class _Ended(Exception):
    """The connection is over; the text says why, for the counter."""


class BoundedStream(YamuxStream):  # type: ignore[misc]
    """A stream whose receive window is granted in large pieces and stops growing at ``STREAM_WINDOW_MAX_BYTES``.

    The original sends an update for nearly every small read, and doubles the window each time.
    """

    send_window: int
    recv_window: int
    target_recv_window: int
    epoch_start: float

    def widen(self, size_bytes: int) -> None:
        """Grant the peer a larger window from the start: to a reader who never stalls he need not wait."""
        grant = size_bytes - self.target_recv_window
        if grant > 0 and not self.recv_closed:
            self.target_recv_window = size_bytes
            self.recv_window += grant
            self.conn._answer(frame(WINDOW, 0, self.stream_id, grant))

    async def write(self, data: bytes) -> None:
        """Send ``data`` as the peer's window allows. Raises ``MuxedStreamError`` when it stays closed for five seconds."""
        sent = 0
        while sent < len(data):
            if self.send_closed or self.closed:
                raise MuxedStreamError("this half of the stream has ended")
            if self.send_window > 0:
                piece = data[sent : sent + min(self.send_window, STREAM_WRITE_BYTES)]
                self.send_window -= len(piece)
                sent += len(piece)
                await self.conn._write_frame(frame(DATA, 0, self.stream_id, len(piece), piece))
                continue
            with trio.move_on_after(_WINDOW_WAIT_S) as scope:
                while self.send_window <= 0 and not (self.send_closed or self.closed):
                    await self.conn.news_of(self)
            if scope.cancelled_caught:
                raise MuxedStreamError(f"the peer granted no window within {_WINDOW_WAIT_S:.0f} seconds")

    async def read(self, n: int | None = None) -> bytes:
        """Whatever has come, at most ``n`` bytes. Raises ``MuxedStreamEOF`` or ``MuxedStreamReset`` when no more can come."""
        while not (buffer := self.conn.stream_buffers.get(self.stream_id)):
            if self.reset_received:
                raise MuxedStreamReset("the peer reset the stream")
            if self.recv_closed or buffer is None or self.conn.event_shutting_down.is_set():
                raise MuxedStreamEOF("the peer has ended its half of the stream, or the connection is gone")
            await self.conn.news_of(self)
        data = bytes(buffer) if n is None or n < 0 else bytes(buffer[:n])
        del buffer[: len(data)]
        if self.closed and not buffer:
            self.conn._finalize_stream_locked(self, fully_closed=True)
        await self._auto_tune_and_send_window_update(bytes_read=len(data))
        return data

    async def _auto_tune_and_send_window_update(self, *, bytes_read: int = 0) -> None:
        open_bytes = self.recv_window + len(self.conn.stream_buffers.get(self.stream_id, b""))
        if self.recv_closed or self.target_recv_window - open_bytes < self.target_recv_window // 2:
            return
        now = trio.current_time()
        if now - self.epoch_start < max(_FAST_ROUND_TRIPS * self.conn.rtt(), _FAST_S):
            self.target_recv_window = min(2 * self.target_recv_window, STREAM_WINDOW_MAX_BYTES)
        self.epoch_start = now
        grant = self.target_recv_window - open_bytes
        self.recv_window += grant
        await self.send_window_update(grant)


class BoundedYamux(Yamux):  # type: ignore[misc]
    """One multiplexed connection. Subclasses made by ``bounded_yamux`` share the counters of their host."""

    counters: ClassVar[Counter[str]] = Counter()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.new_stream_send_channel, self.new_stream_receive_channel = trio.open_memory_channel(INBOUND_STREAMS_PER_PEER_MAX)
        self._outbound_send, self._outbound_receive = trio.open_memory_channel[bytes | trio.Event](MUX_QUEUE_FRAMES)
        self._control: deque[bytes] = deque()
        self._heard_at = 0.0
        self._ping_id: int = 0
        self._rtt: float = 0.0
        self._finishing = False

    # --- life ----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Run until the connection ends, whoever ends it. Never raises: the caller would take the host down with it."""
        if self.event_started.is_set():
            return
        self._heard_at = trio.current_time()
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._write_all)
                nursery.start_soon(self._keep_alive)
                nursery.start_soon(self._stale_stream_sweeper)
                self._established = True
                self.event_started.set()
                await self.handle_incoming()
                nursery.cancel_scope.cancel()
        except* Exception:
            self.counters["mux-failed"] += 1
        finally:
            with trio.move_on_after(2, shield=True):
                await self._finish()

    async def close(self, error_code: int = 0) -> None:
        """End the connection after giving what is queued half a second to leave. Idempotent, never raises."""
        if self.event_started.is_set() and not self.event_shutting_down.is_set():
            with trio.move_on_after(_CLOSE_FLUSH_S):
                written = trio.Event()
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await self._outbound_send.send(frame(GO_AWAY, 0, 0, error_code))
                    await self._outbound_send.send(written)
                    await written.wait()
        await self._finish()

    async def _finish(self) -> None:
        """Let go of everything, once: streams, queues, socket, and tell the host."""
        if self._finishing:
            return
        self._finishing = True
        self.event_shutting_down.set()
        self.new_stream_send_channel.close()
        self._outbound_receive.close()
        for stream in self.streams.values():
            stream.closed = stream.send_closed = stream.recv_closed = stream.reset_received = True
            self.stream_events[stream.stream_id].set()
        self.streams.clear()
        self.stream_buffers.clear()
        self.stream_events.clear()
        try:
            await self.secured_conn.close()
        except Exception:
            self.counters["close-failed"] += 1
        finally:
            self.event_closed.set()
        if self.on_close is not None:
            await self.on_close()

    async def _keep_alive(self) -> None:
        """Ping regularly: it measures the round trip for the window, and finds peers that left without a word."""
        await trio.sleep(0.5)
        while not self.event_shutting_down.is_set():
            if trio.current_time() - self._heard_at > SILENCE_MAX_S:
                self.counters["peer-silent"] += 1
                await self._abort()
                return
            self._ping_id = (self._ping_id + 1) & 0xFFFFFFFF
            self._ping_sent_time = trio.current_time()
            self._answer(frame(PING, SYN, 0, self._ping_id))
            await trio.sleep(KEEPALIVE_S)

    async def _abort(self) -> None:
        """Close the socket under everybody; the receive loop then ends and cleans up."""
        self.event_shutting_down.set()
        await self.secured_conn.close()

    # --- writing -------------------------------------------------------------------------------------------

    async def _write_frame(self, data: bytes) -> None:
        try:
            await self._outbound_send.send(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise RawConnError("connection closed") from None

    def _answer(self, data: bytes) -> None:
        """Queue a frame that the receive loop owes, without waiting."""
        if len(self._control) >= MUX_CONTROL_FRAMES:
            self.counters["control-flood"] += 1
            raise _Ended("the peer does not read what it asks for")
        self._control.append(data)
        # When the queue is full the writer is busy, and looks at the control frames before its next one; or it is gone.
        with suppress(trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            self._outbound_send.send_nowait(b"")

    async def _write_all(self) -> None:
        try:
            async for item in self._outbound_receive:
                waiting = [item]
                with suppress(trio.WouldBlock, trio.EndOfChannel):
                    while True:
                        waiting.append(self._outbound_receive.receive_nowait())
                await self._write_some(waiting)
        except Exception:
            self.counters["write-failed"] += 1
            self._outbound_receive.close()
            await self._abort()

    async def _write_some(self, waiting: list[bytes | trio.Event]) -> None:
        """Write what waits, as much of it in one encrypted packet as there is room for, and what the receive loop owes first."""
        packet = bytearray()
        for item in waiting:
            if isinstance(item, trio.Event) or len(packet) + len(item) > MUX_PACKET_BYTES:
                await self._write_packet(packet)
            if isinstance(item, trio.Event):
                item.set()
            else:
                packet += item
        await self._write_packet(packet)

    async def _write_packet(self, packet: bytearray) -> None:
        data = b"".join(self._control) + packet
        self._control.clear()
        packet.clear()
        if data:
            await self._write_one(data)

    async def _write_one(self, data: bytes) -> None:
        with trio.fail_after(FRAME_TIMEOUT_S):
            await self.secured_conn.write(data)

    async def open_stream(self) -> BoundedStream:
        """Open a stream; waits while 256 of our own are open."""
        await self.stream_backlog_semaphore.acquire()
        if self.event_shutting_down.is_set():
            self.stream_backlog_semaphore.release()
            raise MuxedStreamError("connection closed")
        stream = BoundedStream(self.next_stream_id, self, True)
        self.next_stream_id += 2
        stream._owns_backlog_slot = True
        self._register(stream)
        sent = False
        try:
            await self._write_frame(frame(WINDOW, SYN, stream.stream_id, 0))
            sent = True
        except RawConnError as error:
            raise MuxedStreamError("connection closed") from error
        finally:
            if not sent:
                stream.closed = True
                self._finalize_stream_locked(stream, fully_closed=True)
        return stream

    async def news_of(self, stream: BoundedStream) -> None:
        """Wait until something has come for ``stream`` or happened to it; to be called when nothing is there yet."""
        event = self.stream_events.get(stream.stream_id)
        if event is None:
            raise MuxedStreamEOF("the stream is gone")
        if event.is_set():
            event = self.stream_events[stream.stream_id] = trio.Event()
        await event.wait()

    def _finalize_stream_locked(self, stream: BoundedStream, *, fully_closed: bool) -> None:
        event = self.stream_events.get(stream.stream_id)
        super()._finalize_stream_locked(stream, fully_closed=fully_closed)
        if event is not None:
            event.set()

    def _register(self, stream: BoundedStream) -> None:
        self.streams[stream.stream_id] = stream
        self.stream_buffers[stream.stream_id] = bytearray()
        self.stream_events[stream.stream_id] = trio.Event()

    # --- reading -------------------------------------------------------------------------------------------

    async def handle_incoming(self) -> None:
        """Take in frames until the connection ends."""
        try:
            while not self.event_shutting_down.is_set():
                version, kind, flags, stream_id, length = _HEADER.unpack(await self._read(_HEADER.size))
                self._heard_at = trio.current_time()
                if version != 0 or kind > GO_AWAY:
                    self.counters["mux-garbage"] += 1
                    raise _Ended("not yamux")
                if kind == PING:
                    self._on_ping(flags, length)
                elif kind == GO_AWAY:
                    raise _Ended("the peer said goodbye")
                elif kind == DATA:
                    if length > MUX_FRAME_MAX_BYTES:
                        self.counters["mux-frame-oversize"] += 1
                        raise _Ended("a frame over the bound")
                    with trio.fail_after(FRAME_TIMEOUT_S):
                        body = await self._read(length)
                    self._on_stream_frame(flags, stream_id, 0, body)
                else:
                    self._on_stream_frame(flags, stream_id, length, b"")
        except _Ended:
            pass
        except Exception:
            self.counters["connection-lost"] += 1
        self.event_shutting_down.set()

    async def _read(self, count: int) -> bytes:
        data = bytes(await self.secured_conn.read(count))
        while len(data) < count:
            more = await self.secured_conn.read(count - len(data))
            if not more:
                raise _Ended("the connection ended within a frame")
            data += more
        return data

    def _on_ping(self, flags: int, value: int) -> None:
        if flags & SYN:
            self._answer(frame(PING, ACK, 0, value))
        elif flags & ACK and value == self._ping_id:
            sample = trio.current_time() - self._ping_sent_time
            self._rtt = (self._rtt + sample) / 2 if self._rtt else sample

    def _on_stream_frame(self, flags: int, stream_id: int, increment: int, body: bytes) -> None:
        if flags & SYN and not self._on_open(stream_id):
            return
        stream = self.streams.get(stream_id)
        if stream is None:
            return  # a frame that crossed our reset on the wire
        stream.send_window += increment
        if stream.send_window > 1 << 32:
            self._reset(stream, "window-absurd")
            return
        if body:
            if len(body) > stream.recv_window:
                self._reset(stream, "window-overrun")
                return
            stream.recv_window -= len(body)
            self.stream_buffers[stream_id].extend(body)
        if flags & FIN:
            stream.recv_closed = True
            stream.closed = stream.closed or stream.send_closed
        if flags & RST:
            stream.closed = stream.send_closed = stream.recv_closed = stream.reset_received = True
            self.stream_buffers[stream_id].clear()
        self.stream_events[stream_id].set()
        if stream.closed:
            self._finalize_stream_locked(stream, fully_closed=True)

    def _on_open(self, stream_id: int) -> bool:
        ours = 1 if self.is_initiator_value else 0
        if stream_id == 0 or stream_id % 2 == ours or stream_id in self.streams:
            self.counters["stream-id-wrong"] += 1
            raise _Ended("a stream id that is not the peer's to give")
        if sum(not stream.is_initiator for stream in self.streams.values()) >= INBOUND_STREAMS_PER_PEER_MAX:
            self.counters["streams-over-bound"] += 1
            self._answer(frame(WINDOW, RST, stream_id, 0))
            return False
        stream = BoundedStream(stream_id, self, False)
        self._register(stream)
        try:
            self.new_stream_send_channel.send_nowait(stream)
        except trio.WouldBlock:
            self._reset(stream, "streams-over-bound")
            return False
        self._answer(frame(WINDOW, ACK, stream_id, 0))
        return True

    def _reset(self, stream: BoundedStream, reason: str) -> None:
        self.counters[reason] += 1
        stream.closed = stream.send_closed = stream.recv_closed = stream.reset_received = True
        self.stream_buffers[stream.stream_id].clear()
        self.stream_events[stream.stream_id].set()
        self._finalize_stream_locked(stream, fully_closed=True)
        self._answer(frame(WINDOW, RST, stream.stream_id, 0))


def bounded_yamux(counters: Counter[str]) -> type[BoundedYamux]:
    """The multiplexer class for one host; what it refuses is added to ``counters``."""
    return type("HostYamux", (BoundedYamux,), {"counters": counters})
