"""How bytes flow: read in large pieces, written together, held back by the peer's window, and no lookups where nothing is new."""

import itertools
import math
from collections import Counter
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing

from peer.net.engine import ReadAhead
from peer.net.kad import Kad
from tests.net.rig import ECHO, WAIT_S, echo, hosts, join, key, raw_stream, until
from wire.errors import InvariantBroken
from wire.limits import FRAME_MAX_BYTES, MUX_PACKET_BYTES, STREAM_READ_BYTES, STREAM_WINDOW_BYTES
from wire.ports import Stream, StreamClosed

RAW = "/bitwrk/test/raw/1"


class Socket:
    """Gives the pieces it was made of, and remembers how it was asked."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.asked: list[int | None] = []
        self.closed = False

    async def read(self, n: int | None = None) -> bytes:
        self.asked.append(n)
        return self.pieces.pop(0) if self.pieces else b""

    async def close(self) -> None:
        self.closed = True


async def test_what_came_together_is_read_once() -> None:
    socket = Socket(b"abcdef", b"gh")
    ahead = ReadAhead(socket)
    assert [await ahead.read(n) for n in (2, 3, 5, 1, None)] == [b"ab", b"cde", b"f", b"g", b"h"]
    assert socket.asked == [STREAM_READ_BYTES] * 2
    assert (await ahead.read(4), await ahead.read(None)) == (b"", b"")  # the end stays the end
    await ahead.close()  # everything else is the connection's own
    assert socket.closed


async def test_frames_that_leave_together_come_one_by_one() -> None:
    frames = [bytes([number]) * size for number, size in enumerate((0, 1, MUX_PACKET_BYTES, 3, FRAME_MAX_BYTES, 70_000, 5))]
    async with hosts(2) as (hub, one):
        hub.serve(ECHO, echo)
        await join(hub, one)
        stream = await one.open(hub.me, ECHO)
        with trio.fail_after(WAIT_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.send, *(frames * 2))
                assert [await stream.receive() for _ in range(2 * len(frames))] == frames * 2
        with pytest.raises(InvariantBroken, match="a frame of"):
            await stream.send(b"fits", bytes(FRAME_MAX_BYTES + 1))
        await stream.send(b"and nothing of that has left")
        assert await stream.receive() == b"and nothing of that has left"


async def test_a_writer_waits_for_the_window_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    may_read, reading = trio.Event(), trio.Event()
    got = bytearray()

    async def late(raw: Any) -> None:
        reading.set()
        await may_read.wait()
        while True:
            got.extend(await raw.read(STREAM_READ_BYTES))

    async with hosts(2) as (hub, one):
        assert hub._engine is not None
        hub._engine.serve(RAW, late)
        await join(hub, one)
        stream = (await raw_stream(one, hub, RAW)).muxed_stream
        await reading.wait()
        data = bytes(3 * stream.send_window) + b"end"
        with trio.fail_after(WAIT_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.write, data)
                while stream.send_window:
                    await trio.lowlevel.checkpoint()
                may_read.set()
            while len(got) < len(data):
                await trio.lowlevel.checkpoint()
        assert bytes(got) == data
        monkeypatch.setattr("peer.net.yamux._WINDOW_WAIT_S", 0)
        stream.send_window = 0
        with pytest.raises(Exception, match="granted no window"):
            await stream.write(b"x")


async def test_whoever_waits_on_a_stream_hears_of_its_end() -> None:
    async with hosts(2) as (hub, one):
        hub.serve(ECHO, echo)
        await join(hub, one)
        stream = await one.open(hub.me, ECHO)
        await stream.send(b"here")
        assert await stream.receive() == b"here"
        muxed: Any = stream._muxed  # type: ignore[attr-defined]
        muxed.send_window = 0
        ended: list[str] = []

        async def ends(name: str, call: Any, *arguments: Any) -> None:
            with pytest.raises(StreamClosed):
                await call(*arguments)
            ended.append(name)

        with trio.fail_after(WAIT_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ends, "reader", stream.receive)
                nursery.start_soon(ends, "writer", stream.send, b"there is no window for this")
                await trio.testing.wait_all_tasks_blocked(0.01)
                assert ended == []
                await one.disconnect(hub.me)
        assert sorted(ended) == ["reader", "writer"]


async def test_a_framed_stream_has_a_large_window_from_the_start() -> None:
    seen: list[Stream] = []

    async def idle(stream: Stream) -> None:
        seen.append(stream)
        await trio.sleep_forever()

    async with hosts(2) as (hub, one):
        hub.serve(ECHO, idle)
        await join(hub, one)
        stream: Any = await one.open(hub.me, ECHO)
        await until(lambda: seen and stream._muxed.send_window > STREAM_WINDOW_BYTES // 2)
        muxed: Any = seen[0]._muxed  # type: ignore[attr-defined]
        assert muxed.target_recv_window == STREAM_WINDOW_BYTES
        window = muxed.recv_window
        assert STREAM_WINDOW_BYTES - 1_000 < window <= STREAM_WINDOW_BYTES  # a few bytes have named the protocol
        muxed.widen(STREAM_WINDOW_BYTES)  # never twice
        assert muxed.recv_window == window


class Table:
    """A routing table and the lookups that were made for it."""

    def __init__(self, kad: Kad, size: int) -> None:
        self.kad, self._size = kad, size
        self.looked: list[float] = []
        self.routing_table = self.provider_store = self

    def size(self) -> int:
        return self._size

    async def add_peer(self, _: Any) -> None:
        self._size += 1

    async def refresh_routing_table(self) -> None:
        self.looked.append(trio.current_time())

    def cleanup_expired(self) -> None:
        return


@pytest.mark.parametrize(
    ("size", "pauses"),
    [(5, [10, 20, 40, 80, 120, 120]), (8, [120, 120, 120, 120, 120, 120]), (0, [120, 120, 120, 120, 120, 120])],
)
async def test_the_longer_nothing_new_comes_the_less_is_looked_for(
    size: int, pauses: list[float], autojump_clock: trio.testing.MockClock
) -> None:
    kad = object.__new__(Kad)
    kad._counters, kad._known, kad._news = Counter(), set(), trio.Event()
    table = kad._dht = Table(kad, size)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kad.run)
        await trio.sleep(sum(pauses) + 1)
        moments = [0.0, *table.looked]
        assert [round(after - before) for before, after in itertools.pairwise(moments)] == pauses
        before = len(table.looked)
        kad.identified(key(3).peer_id)
        await trio.sleep(1)  # who has just come is asked soon
        assert (len(table.looked), table.size()) == (before + 1, size + 1)
        await trio.sleep(11)
        assert len(table.looked) == before + (2 if 0 < size + 1 < 8 else 1)
        nursery.cancel_scope.cancel()
    assert not math.isinf(autojump_clock.autojump_threshold)
