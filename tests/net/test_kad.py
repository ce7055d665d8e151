"""Provider records across real hosts."""

import pytest
import trio

from peer.net.host import Net
from peer.net.kad import protocol_of
from tests.net.rig import counter, hosts, join, key, muxer, raw_stream, until
from wire.limits import PROVIDERS_MAX
from wire.ports import PeerUnreachable

KEY = bytes(range(32))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peer.net.kad.PROVIDE_INTERVAL_S", 0.05)


async def ready(*nets: Net) -> None:
    await join(*nets)
    await until(lambda: all(net.statistics().table >= 1 for net in nets))


async def test_five_nodes_find_who_provides() -> None:
    async with hosts(5) as nets:
        await ready(*nets)
        assert await nets[4].find(KEY, PROVIDERS_MAX) == ()
        await nets[1].provide(KEY)
        await nets[2].provide(KEY)
        for net in nets:
            found = await net.find(KEY, PROVIDERS_MAX)
            assert set(found) == {nets[1].me, nets[2].me} - {net.me}
        assert len(await nets[4].find(KEY, 1)) == 1
        assert await nets[0].find(bytes(32), PROVIDERS_MAX) == ()
        # What was found can be reached without anybody saying where it is.
        stream = await raw_stream_after_open(nets[4], nets[1])
        assert stream is not None


async def raw_stream_after_open(net: Net, to: Net) -> object:
    await net.connect(net._book.of(to.me)[0] + to.addresses()[0][to.addresses()[0].index("/p2p/") :])
    return muxer(net, to)


async def test_a_provider_that_comes_later_is_found_although_one_is_known_already() -> None:
    async with hosts(3) as (hub, seller, buyer):
        await ready(hub, seller, buyer)
        await seller.provide(KEY)
        assert await buyer.find(KEY, PROVIDERS_MAX) == (seller.me,)
        async with hosts(1, first=30) as (late,):
            await ready(hub, late)
            await late.provide(KEY)
            assert set(await buyer.find(KEY, PROVIDERS_MAX)) == {seller.me, late.me}
            assert set(await hub.find(KEY, PROVIDERS_MAX)) == {seller.me, late.me}


async def test_records_survive_the_announcer_and_the_way_in() -> None:
    async with hosts(3) as (one, two, three):
        async with hosts(1, first=40) as (hub,):
            await ready(hub, one, two, three)
            await until(lambda: all(net.statistics().table == 3 for net in (one, two, three)))
            await one.provide(KEY)
        assert await three.find(KEY, PROVIDERS_MAX) == (one.me,)


async def test_announcing_to_nobody_is_said() -> None:
    async with hosts(1) as (alone,):
        with pytest.raises(PeerUnreachable, match="took our announcement"):
            await alone.provide(KEY)
        assert await alone.find(KEY, PROVIDERS_MAX) == ()


async def test_announcements_wait_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peer.net.kad.PROVIDE_INTERVAL_S", 0.2)
    async with hosts(2) as (hub, seller):
        await ready(hub, seller)
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(seller.provide, number.to_bytes(32, "big"))
        assert trio.current_time() - began >= 0.6  # three whole intervals lie between four announcements
        await until(lambda: hub.statistics().records == 4)


async def test_records_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peer.net.kad.PROVIDER_KEYS_MAX", 3)
    async with hosts(2) as (hub, seller):
        await ready(hub, seller)
        for number in range(5):
            await seller.provide(number.to_bytes(32, "big"))
        await until(lambda: counter(hub, "kad/records-over-bound") == 2)
        assert hub.statistics().records == 3


async def test_the_protocol_is_our_own() -> None:
    async with hosts(2) as (hub, other):
        await ready(hub, other)
        assert protocol_of("regtest") == "/bitwrk/regtest/kad/1.0.0"
        for protocol in ("/ipfs/kad/1.0.0", protocol_of("main")):
            with pytest.raises(PeerUnreachable):
                await raw_stream(other, hub, protocol)
        await raw_stream(other, hub, protocol_of("regtest"))


async def test_a_provider_must_be_who_announces() -> None:
    import varint  # type: ignore[import-untyped]
    from libp2p.kad_dht.pb.kademlia_pb2 import Message

    async with hosts(2) as (hub, liar):
        await ready(hub, liar)
        message = Message()
        message.type = Message.MessageType.ADD_PROVIDER
        message.key = b"\x1e\x20" + KEY
        entry = message.providerPeers.add()
        entry.id = bytes(key(99).peer_id)
        entry.addrs.append(bytes.fromhex("047f000001061111"))
        data = message.SerializeToString()
        stream = await raw_stream(liar, hub, protocol_of("regtest"))
        await stream.write(varint.encode(len(data)) + data)
        await stream.read(1000)
        assert hub.statistics().records == 0
