"""The service over streams in memory: F2, F3, F4, F5 of the acceptance list, and what happens when things die."""

import random
import tracemalloc
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from cafs.core.faults import Corrupt, NoSuchContent, NotGranted, Overrun, PeerBusy, StoreFull, TransferLost
from cafs.core.manifest import Entry, Root, entry_of, open_root, root_id
from cafs.core.messages import MESSAGES, PROTOCOL, Chunk, Message, Refusal, RootOf, Want, Wish
from cafs.core.squeeze import Codec
from cafs.core.transfer import Closed, Progress
from cafs.shell.line import Line
from cafs.shell.service import ContentService
from cafs.shell.store import Store
from tests.cafs.fakes import WINDOW_BYTES, FakeStream, Net, key
from wire.canon import pack
from wire.errors import Misbehaved, Refused
from wire.keys import PeerId
from wire.limits import CHUNK_MAX_BYTES, FETCH_ATTEMPTS_MAX, TRANSFER_WINDOW_BYTES, TRANSFERS_PER_PEER_MAX
from wire.ports import PeerUnreachable, Stream, StreamClosed

BUYER, SELLER = key(1).peer_id, key(2).peer_id
TICKET = bytes(range(16))


@dataclass
class Pair:
    net: Net
    source: Store
    target: Store
    serving: ContentService
    fetching: ContentService

    async def fetch(self, content: bytes, ticket: bytes = TICKET, peer: PeerId = BUYER) -> bytes:
        fetched = await self.fetching.fetch(peer, content, ticket)
        assert fetched.id == content
        return await self.target.read(content)

    async def offer(self, data: bytes, ticket: bytes = TICKET) -> bytes:
        content = (await self.source.put(data)).id
        self.serving.grant(content, ticket)
        return content


@asynccontextmanager
async def pair(folder: Path, quota_bytes: int = 256 << 20) -> AsyncIterator[Pair]:
    async with (
        Store(folder / "source") as source,
        Store(folder / "target", quota_bytes) as target,
        trio.open_nursery() as nursery,
    ):
        net = Net(nursery)
        serving, fetching = ContentService(net.node(BUYER), source), ContentService(net.node(SELLER), target)
        yield Pair(net, source, target, serving, fetching)
        nursery.cancel_scope.cancel()


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.mark.parametrize("size", [0, 1, 4_096, 131_072, 131_073, 3_000_000, 14_000_000])
async def test_contents_of_all_sizes_arrive(tmp_path: Path, size: int) -> None:
    async with pair(tmp_path) as two:
        data = noise(size, size)
        content = await two.offer(data)
        assert await two.fetch(content) == data
        assert await two.target.find(content) == await two.source.find(content)
        assert two.net.raised == []
        await _quiet(two)
        assert two.serving.statistics().served == 1
        assert (await two.target.usage()).locked_bytes == 0
        assert (await two.source.usage()).locked_bytes == 0


async def _quiet(two: Pair) -> None:
    """Wait until no transfer is under way; each ends by events alone."""
    with trio.fail_after(20):
        while two.serving.statistics().serving or two.fetching.statistics().fetching:
            await trio.lowlevel.checkpoint()


async def test_a_content_that_is_here_is_not_asked_for(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        content = await two.offer(noise(1, 1_000_000))
        await two.fetch(content)
        chunks, opened = two.serving.statistics().chunks_sent, two.net.opened
        seen: list[Progress] = []
        await two.fetching.fetch(BUYER, content, TICKET, seen.append)
        assert two.net.opened == opened
        assert two.serving.statistics().chunks_sent == chunks
        assert seen == [Progress(size=1_000_000, held=1_000_000, wire=0)]


async def test_the_same_bytes_under_way_a_second_time_send_no_chunk(tmp_path: Path) -> None:
    """F3. The receiver lost the content's completeness but not its blobs, so it has to ask, and then needs none."""
    async with pair(tmp_path) as two:
        data = noise(2, 12_000_000)
        content = await two.offer(data)
        await two.fetch(content)
        await _quiet(two)
        before = two.serving.statistics()
        two.target._shelf._db.execute("UPDATE contents SET complete = 0")
        assert await two.fetch(content) == data
        await _quiet(two)
        after = two.serving.statistics()
        assert after.chunks_sent == before.chunks_sent
        assert after.sent_bytes - before.sent_bytes < 2_000


async def test_one_inserted_byte_sends_little(tmp_path: Path) -> None:
    """F2: under 2 % of 2 MiB, wherever the byte goes."""
    async with pair(tmp_path) as two:
        data = noise(3, 2 << 20)
        await two.fetch(await two.offer(data))
        await _quiet(two)
        rolled = random.Random(4)
        for turn in range(12):
            place = rolled.randrange(len(data))
            before = two.serving.statistics().sent_bytes
            ticket = turn.to_bytes(16, "big")
            edited = data[:place] + b"!" + data[place:]
            assert await two.fetch(await two.offer(edited, ticket), ticket) == edited
            await _quiet(two)
            assert two.serving.statistics().sent_bytes - before < 0.02 * len(data)


async def test_compressible_bytes_travel_compressed(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        data = b"".join(b"%d: the quick brown fox\n" % line for line in range(100_000))
        content = await two.offer(data)
        assert await two.fetch(content) == data
        await _quiet(two)
        assert two.serving.statistics().sent_bytes < len(data) / 4


async def test_tickets(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        content = await two.offer(b"secret")
        other = await two.offer(b"another", bytes(16))
        for ticket in (bytes(16), b"x" * 16):
            with pytest.raises(NotGranted):
                await two.fetch(content, ticket)
        # Without a ticket nobody learns whether a content is here.
        with pytest.raises(NotGranted):
            await two.fetch(b"n" * 32, b"x" * 16)
        two.serving.grant(b"n" * 32, b"y" * 16)
        with pytest.raises(NoSuchContent):
            await two.fetch(b"n" * 32, b"y" * 16)
        with pytest.raises(Refused):
            two.serving.grant(other, TICKET)
        two.serving.revoke(TICKET)
        two.serving.revoke(TICKET)
        with pytest.raises(NotGranted):
            await two.fetch(content)
        two.serving.grant(content, TICKET)
        assert await two.fetch(content) == b"secret"
        assert two.net.raised == []


async def test_a_revoked_ticket_stops_a_transfer_under_way(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        content = await two.offer(noise(5, 8_000_000))

        def revoke(progress: Progress) -> None:
            if progress.held:
                two.serving.revoke(TICKET)

        with pytest.raises(NotGranted):
            await two.fetching.fetch(BUYER, content, TICKET, revoke)
        assert (await two.target.usage()).locked_bytes == 0


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cafs.shell.service.FETCH_RETRY_MOST_MS", 0)


@pytest.mark.usefixtures("quick_retries")
async def test_streams_that_die_are_replaced_and_nothing_is_sent_twice(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        data = noise(6, 6_000_000)
        content = await two.offer(data)
        two.net.cuts.extend([0, 1, 60, 130, None])
        assert await two.fetch(content) == data
        await _quiet(two)
        assert two.net.opened == 5
        # What was under way when a stream died is at most a window; everything else is sent once.
        assert two.serving.statistics().sent_bytes < len(data) + 2 * TRANSFER_WINDOW_BYTES


@pytest.mark.usefixtures("quick_retries")
async def test_a_peer_that_always_dies_is_given_up(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        content = await two.offer(noise(7, 100_000))
        two.net.cuts.extend([1] * 20)
        with pytest.raises(TransferLost):
            await two.fetch(content)
        assert two.net.opened == FETCH_ATTEMPTS_MAX
        assert (await two.target.usage()).locked_bytes == 0


@pytest.mark.usefixtures("quick_retries")
async def test_unreachable_is_said_at_once_but_not_after_a_lost_stream(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        data = noise(8, 2_000_000)
        content = await two.offer(data)
        two.net.down[BUYER] = 1
        with pytest.raises(PeerUnreachable):
            await two.fetch(content)
        assert two.net.opened == 0
        two.net.cuts.append(20)

        def vanish(progress: Progress) -> None:
            if two.net.opened == 1:
                two.net.down[BUYER] = 3

        fetched = await two.fetching.fetch(BUYER, content, TICKET, vanish)
        assert await two.target.read(fetched.id) == data
        assert two.net.opened == 2
        two.net.cuts.append(0)
        two.net.down[BUYER] = 0
        other = await two.offer(b"gone for good", bytes(16))
        two.net.tap = lambda _stream, frame: two.net.down.update({BUYER: 99}) or frame
        with pytest.raises(PeerUnreachable):
            await two.fetch(other, bytes(16))


async def test_a_silent_peer_is_given_up(tmp_path: Path, mock_clock: MockClock) -> None:
    async with pair(tmp_path) as two:

        async def nothing(stream: Stream) -> None:
            await stream.receive()
            mock_clock.jump(31)
            await trio.sleep_forever()

        two.net.nodes[BUYER].serve(PROTOCOL, nothing)
        mock_clock.rate = 100
        with pytest.raises(TransferLost, match="sent nothing"):
            await two.fetch(b"c" * 32)
        assert two.net.opened == FETCH_ATTEMPTS_MAX


async def test_a_receiver_that_asks_nothing_is_let_go(tmp_path: Path, mock_clock: MockClock) -> None:
    async with pair(tmp_path) as two:
        stream = await two.net.nodes[SELLER].open(BUYER, PROTOCOL)
        while not two.serving.statistics().serving:
            await trio.lowlevel.checkpoint()
        mock_clock.jump(31)
        with pytest.raises(StreamClosed):
            await stream.receive()
        while two.serving.statistics().serving:
            await trio.lowlevel.checkpoint()


async def test_a_receiver_that_reads_nothing_is_let_go(tmp_path: Path, mock_clock: MockClock) -> None:
    async with pair(tmp_path) as two:
        content = await two.offer(noise(9, 4_000_000))
        manifest = await two.source.manifest(content)
        blobs = tuple(sorted({entry.id for entry in open_root(content, manifest.root).entries}))
        stream = await two.net.nodes[SELLER].open(BUYER, PROTOCOL)
        await stream.send(MESSAGES.pack(Want(content=content, ticket=TICKET)))
        assert MESSAGES.unpack(await stream.receive()) == RootOf(root=manifest.root)
        await stream.send(MESSAGES.pack(Wish(blobs=blobs[:64])))
        while two.net.most_unread_bytes < WINDOW_BYTES:
            await trio.lowlevel.checkpoint()
        assert (await two.source.usage()).locked_bytes > 4_000_000
        mock_clock.jump(31)
        while two.serving.statistics().serving:
            await trio.lowlevel.checkpoint()
        assert (await two.source.usage()).locked_bytes == 0


def _corrupt_chunk(message: Chunk) -> Chunk:
    changed = bytes([message.body[0] ^ 1]) + message.body[1:]
    return Chunk(blob=message.blob, codec=message.codec, body=changed)


CHANGES: dict[str, Callable[[Chunk], Message]] = {
    "corrupt": _corrupt_chunk,
    "short": lambda message: Chunk(blob=message.blob, codec=message.codec, body=message.body[:-1]),
    "long": lambda message: Chunk(blob=message.blob, codec=message.codec, body=message.body + b"x"),
    "another": lambda message: Chunk(blob=bytes(32), codec=message.codec, body=message.body),
    "not zstd": lambda message: Chunk(blob=message.blob, codec=Codec.ZSTD, body=message.body),
    "out of turn": lambda message: Want(content=bytes(32), ticket=bytes(16)),
}


@pytest.mark.parametrize("change", sorted(CHANGES))
async def test_a_changed_chunk_ends_the_transfer_and_is_the_peers_fault(tmp_path: Path, change: str) -> None:
    """F4."""
    async with pair(tmp_path) as two:
        data = noise(10, 2_000_000)
        content = await two.offer(data)
        seen = 0

        def tap(stream: FakeStream, frame: bytes) -> bytes:
            nonlocal seen
            message = MESSAGES.unpack(frame)
            if isinstance(message, Chunk):
                seen += 1
                if seen == 30:
                    return MESSAGES.pack(CHANGES[change](message))
            return frame

        two.net.tap = tap
        with pytest.raises((Corrupt, Overrun)):
            await two.fetch(content)
        assert not await two.target.has(content)
        assert (await two.target.usage()).locked_bytes == 0
        assert two.net.opened == 1
        # The good part was kept, so the honest retry is shorter.
        two.net.tap = lambda _stream, frame: frame
        assert await two.fetch(content) == data


@pytest.mark.parametrize("frame", [b"", b"\x93", noise(11, 500), MESSAGES.pack(Refusal(code="x", sentence="y")) + b"\0"])
async def test_garbage_frames_blame_the_sender_at_both_ends(tmp_path: Path, frame: bytes) -> None:
    async with pair(tmp_path) as two:
        content = await two.offer(noise(12, 100_000))
        two.net.tap = lambda stream, good: frame if two.net.owner(stream) == BUYER else good
        with pytest.raises(Misbehaved):
            await two.fetch(content)
        two.net.tap = lambda _stream, good: good
        stream = await two.net.nodes[SELLER].open(BUYER, PROTOCOL)
        two.net.raised.clear()
        await stream.send(frame)
        with pytest.raises(StreamClosed):
            await stream.receive()
        assert len(two.net.raised) == 1
        assert isinstance(two.net.raised[0], Misbehaved)
        assert await two.fetch(content)


def hostile(two: Pair, root: bytes, blobs: dict[bytes, bytes], extra: Sequence[bytes] = ()) -> bytes:
    """The buyer's node answers with this root and these blobs, and sends ``extra`` frames. Returns the content id."""

    async def handler(stream: Stream) -> None:
        await stream.receive()
        await stream.send(MESSAGES.pack(RootOf(root=root)))
        for frame in extra:
            await stream.send(frame)
        while True:
            message = MESSAGES.unpack(await stream.receive())
            if isinstance(message, Wish):
                for blob in message.blobs:
                    await stream.send(MESSAGES.pack(Chunk(blob=blob, codec=Codec.PLAIN, body=blobs[blob])))

    two.net.nodes[BUYER].serve(PROTOCOL, handler)
    return root_id(root)


async def test_a_manifest_that_is_not_the_canonical_one_is_corrupt(tmp_path: Path) -> None:
    """Every blob is what its id says, but the content was not cut where it should be."""
    async with pair(tmp_path) as two:
        data = noise(13, 60_000)
        halves = [data[:30_000], data[30_000:]]
        root = pack(Root(size=60_000, paged=False, entries=tuple(entry_of(half) for half in halves)))
        content = hostile(two, root, {entry_of(half).id: half for half in halves})
        with pytest.raises(Corrupt) as caught:
            await two.fetch(content)
        assert caught.value.code == "not-canonical"
        usage = await two.target.usage()
        assert (usage.used_bytes, usage.locked_bytes) == (0, 0)


async def test_a_manifest_that_lies_about_a_held_chunk_is_corrupt(tmp_path: Path) -> None:
    """The receiver holds the chunk and does not ask for it, so its size is seen to be wrong only at the end."""
    async with pair(tmp_path) as two:
        data = noise(14, 3_000)
        await two.target.put(data)
        root = pack(Root(size=4_000, paged=False, entries=(Entry(id=entry_of(data).id, size=4_000),)))
        with pytest.raises(Corrupt):
            await two.fetch(hostile(two, root, {}))


async def test_more_than_the_window_is_an_overrun(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        data = noise(15, 3_000)
        root = pack(Root(size=3_000, paged=False, entries=(entry_of(data),)))
        flood = MESSAGES.pack(Chunk(blob=bytes(32), codec=Codec.PLAIN, body=bytes(CHUNK_MAX_BYTES)))
        with pytest.raises(Overrun):
            await two.fetch(hostile(two, root, {}, [flood] * 500))
        assert two.net.opened == 1


async def test_an_inbox_that_nobody_empties_is_bounded_in_bytes(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        two.net.nodes[SELLER].serve(PROTOCOL, _flood)
        flooded = Line(await two.net.nodes[BUYER].open(SELLER, PROTOCOL))
        await flooded.read()
        assert flooded.received_bytes <= TRANSFER_WINDOW_BYTES + 3 * CHUNK_MAX_BYTES
        events = [await flooded.next_event(None)]
        while not isinstance(events[-1], Closed) or not isinstance(events[-1].error, Overrun):
            events.append(await flooded.next_event(None))


async def _flood(stream: Stream) -> None:
    while True:
        await stream.send(bytes(CHUNK_MAX_BYTES))


async def test_a_ticket_opens_one_content_and_nothing_else_in_the_store(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        content = await two.offer(b"for everybody")
        secret = b"for nobody"
        await two.source.put(secret)
        stream = await two.net.nodes[SELLER].open(BUYER, PROTOCOL)
        await stream.send(MESSAGES.pack(Want(content=content, ticket=TICKET)))
        assert isinstance(MESSAGES.unpack(await stream.receive()), RootOf)
        await stream.send(MESSAGES.pack(Wish(blobs=(entry_of(secret).id,))))
        with pytest.raises(StreamClosed):
            await stream.receive()
        assert [getattr(error, "code", "") for error in two.net.raised] == ["foreign-blob"]


async def test_many_fetches_at_a_time(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        tickets = [number.to_bytes(16, "big") for number in range(40)]
        contents = [await two.offer(noise(100 + number, 50_000), ticket) for number, ticket in enumerate(tickets)]
        async with trio.open_nursery() as nursery:
            for content, ticket in zip(contents, tickets, strict=True):
                nursery.start_soon(two.fetching.fetch, BUYER, content, ticket)
                nursery.start_soon(two.fetching.fetch, BUYER, content, ticket)
        assert two.net.opened == 40
        assert two.net.raised == []
        assert two.fetching._turns == {}


@pytest.mark.usefixtures("quick_retries")
async def test_one_peer_cannot_take_all_places(tmp_path: Path, mock_clock: MockClock) -> None:
    async with pair(tmp_path) as two:
        for _ in range(TRANSFERS_PER_PEER_MAX):
            await two.net.nodes[SELLER].open(BUYER, PROTOCOL)
        while two.serving.statistics().serving < TRANSFERS_PER_PEER_MAX:
            await trio.lowlevel.checkpoint()
        content = await two.offer(b"later")
        with pytest.raises(PeerBusy):
            await two.fetch(content)
        mock_clock.jump(31)
        while two.serving.statistics().serving:
            await trio.lowlevel.checkpoint()
        assert await two.fetch(content) == b"later"


async def test_a_full_store_is_our_fault_and_holds_nothing_back(tmp_path: Path) -> None:
    """F5."""
    async with pair(tmp_path, quota_bytes=1 << 20) as two:
        content = await two.offer(noise(14, 3_000_000))
        with pytest.raises(StoreFull):
            await two.fetch(content)
        usage = await two.target.usage()
        assert (usage.locked_bytes, usage.used_bytes) == (0, 0)
        assert await two.fetch(await two.offer(b"small", bytes(16)), bytes(16)) == b"small"


async def test_a_cancelled_fetch_leaves_nothing_held(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        content = await two.offer(noise(15, 8_000_000))
        with trio.CancelScope() as scope:
            await two.fetching.fetch(BUYER, content, TICKET, lambda progress: scope.cancel() if progress.held else None)
        assert scope.cancelled_caught
        assert (await two.target.usage()).locked_bytes == 0
        assert two.fetching._turns == {}
        await _quiet(two)
        assert (await two.source.usage()).locked_bytes == 0
        assert len(await two.fetch(content)) == 8_000_000


async def test_a_large_content_flows_in_bounded_memory(tmp_path: Path) -> None:
    async def much() -> AsyncIterator[bytes]:
        for seed in range(40):
            yield noise(seed, 1 << 20)

    async with pair(tmp_path) as two:
        content = await two.source.put(much())
        two.serving.grant(content.id, TICKET)
        tracemalloc.start()
        try:
            fetched = await two.fetching.fetch(BUYER, content.id, TICKET)
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert fetched == content
        # A window at the receiver, a batch and a pipe at the sender, and the list of 2,400 chunks at both.
        assert peak_bytes < 20_000_000
        assert two.net.most_unread_bytes < WINDOW_BYTES + CHUNK_MAX_BYTES


async def test_sellers_pass_a_content_on(tmp_path: Path) -> None:
    """F8: with a ticket a node fetches from one that has fetched, and the buyer uploads about once."""
    data = noise(1, 2_000_000)
    async with pair(tmp_path) as two:
        content = await two.offer(data)
        await two.fetch(content)
        two.fetching.grant(content, b"t" * 16)
        for number in (3, 4, 5):
            async with Store(tmp_path / str(number)) as store:
                service = ContentService(two.net.node(key(number).peer_id), store)
                await service.fetch(SELLER, content, b"t" * 16)
                assert await store.read(content) == data
        assert two.net.sent[BUYER] < 1.05 * len(data)
        assert two.net.sent[SELLER] > 3 * len(data)


async def test_a_partial_fetch_is_resumed_after_a_restart(tmp_path: Path) -> None:
    data = noise(2, 6_000_000)
    async with pair(tmp_path) as two:
        content = await two.offer(data)
        with trio.CancelScope() as scope:

            def stop(progress: Progress) -> None:
                if progress.held > 3_000_000:
                    scope.cancel()

            await two.fetching.fetch(BUYER, content, TICKET, stop)
        assert scope.cancelled_caught
    async with pair(tmp_path) as two:
        two.serving.grant(content, TICKET)
        assert await two.fetch(content) == data
        await _quiet(two)
        assert two.serving.statistics().sent_bytes < 3_200_000


async def test_damage_at_the_receiver_is_mended_by_the_next_attempt(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        data = noise(3, 1_000_000)
        content = await two.offer(data)
        await two.fetch(content)
        two.target._shelf._db.execute("UPDATE bodies SET data = zeroblob(length(data)) WHERE number = 5")
        two.target._shelf._db.execute("UPDATE contents SET complete = 0")
        assert await two.fetch(content) == data
        await _quiet(two)
        assert (
            two.serving.statistics().chunks_sent == two.target._shelf._db.execute("SELECT count(*) FROM blobs").fetchone()[0] + 1
        )
