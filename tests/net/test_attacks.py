"""Whatever a peer does, the host goes on serving others, and says what it saw."""

import contextlib
import itertools
import random
import socket
from typing import Any

import pytest
import trio

from peer.net.host import Net
from peer.net.kad import protocol_of
from peer.net.yamux import DATA, FIN, GO_AWAY, PING, RST, SYN, WINDOW, frame
from tests.net.rig import ECHO, counter, echo, hosts, join, key, muxer, port_of, raw_stream, still_serves, until, until_reset
from wire.errors import Misbehaved
from wire.limits import FRAME_MAX_BYTES, INBOUND_STREAMS_PER_PEER_MAX, MUX_FRAME_MAX_BYTES
from wire.network import REGTEST
from wire.ports import PeerUnreachable, Stream, StreamClosed

GARBAGE = [
    b"",
    b"\x00",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x13/multistream/1.0.0\n" + b"\xff" * 64,
    b"\xff" * 10 + b"\x01",
    b"\x13/multistream/1.0.0\n\x07/noise\n\x00\x04junk",
    random.Random(1).randbytes(5_000),
]
SERVED = [ECHO, protocol_of(REGTEST.name), "/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0"]


@pytest.mark.parametrize("number", range(len(GARBAGE)))
async def test_garbage_on_the_port(number: int) -> None:
    async with hosts(1) as (hub,):
        stream = await trio.open_tcp_stream("127.0.0.1", port_of(hub))
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(GARBAGE[number])
            await stream.send_eof()
            with trio.move_on_after(2):
                await stream.receive_some()
        await stream.aclose()
        await still_serves(hub)
        assert counter(hub, "host-failed") == 0


@pytest.mark.parametrize("protocol", SERVED)
async def test_garbage_inside_every_served_protocol(protocol: str) -> None:
    async with hosts(2) as (hub, bad):
        hub.serve(ECHO, echo)
        await join(hub, bad)
        for number, garbage in enumerate((*GARBAGE, b"\x05\x08\x00\x12\xff\xff", b"\x7f" * 128)):
            stream = await raw_stream(bad, hub, protocol)
            with contextlib.suppress(Exception):
                await stream.write(garbage)
                if number % 2:
                    await stream.close_write()
                else:
                    await stream.reset()
        await still_serves(hub)
        assert counter(hub, "host-failed") == counter(hub, "host-restarted") == 0


@pytest.mark.parametrize("error", [ValueError("ours"), KeyError(1), ExceptionGroup("several", [OSError(), StopAsyncIteration()])])
async def test_an_exception_in_a_handler_costs_only_its_stream(error: Exception) -> None:
    async def fails(stream: Stream) -> None:
        await stream.receive()
        raise error

    async with hosts(2) as (hub, one):
        hub.serve("/bitwrk/test/fails/1", fails)
        hub.serve(ECHO, echo)
        await join(hub, one)
        healthy = await one.open(hub.me, ECHO)
        stream = await one.open(hub.me, "/bitwrk/test/fails/1")
        await stream.send(b"go")
        with pytest.raises(StreamClosed):
            await stream.receive()
        await healthy.send(b"unmoved")
        assert await healthy.receive() == b"unmoved"
        assert any(code.startswith("/bitwrk/test/fails/1/") for code in hub.statistics().counters)


async def test_a_peer_that_closes_in_the_middle_of_a_frame() -> None:
    async with hosts(2) as (hub, bad):
        hub.serve(ECHO, echo)
        await join(hub, bad)
        for ending in ("close_write", "reset"):
            stream = await raw_stream(bad, hub, ECHO)
            await stream.write((1000).to_bytes(4, "big") + b"only this")
            await getattr(stream, ending)()
        await until(lambda: counter(hub, "frame-cut-short") == 1)
        await bad.disconnect(hub.me)
        await still_serves(hub)


async def test_an_oversize_frame_is_blamed_and_costs_the_stream() -> None:
    async with hosts(2) as (hub, bad):
        blamed: list[Misbehaved] = []
        hub.on_blame(lambda _, error: blamed.append(error))
        hub.serve(ECHO, echo)
        await join(hub, bad)
        stream = await raw_stream(bad, hub, ECHO)
        await stream.write((3).to_bytes(4, "big") + b"yes" + (FRAME_MAX_BYTES + 1).to_bytes(4, "big"))
        await until(lambda: blamed)
        assert [error.code for error in blamed] == ["frame-oversize"]
        await until_reset(stream)
        await still_serves(hub)


async def test_a_frame_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peer.net.stream.FRAME_TIMEOUT_S", 0.2)
    async with hosts(2) as (hub, bad):
        hub.serve(ECHO, echo)
        await join(hub, bad)
        stream = await raw_stream(bad, hub, ECHO)
        await stream.write(b"\x00\x00")
        await until(lambda: counter(hub, "frame-too-slow") == 1)


async def test_a_frame_that_comes_byte_by_byte_is_given_up_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bytes never stop, but a frame has one deadline from its first byte on; whole frames before it do not count."""
    monkeypatch.setattr("peer.net.stream.FRAME_TIMEOUT_S", 0.3)
    async with hosts(2) as (hub, bad):
        hub.serve(ECHO, echo)
        await join(hub, bad)
        stream = await raw_stream(bad, hub, ECHO)
        await stream.write((3).to_bytes(4, "big") + b"yes" + (500).to_bytes(4, "big"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trickle, stream)
            await until(lambda: counter(hub, "frame-too-slow") == 1)
            nursery.cancel_scope.cancel()
        await still_serves(hub)


async def trickle(stream: Any) -> None:
    """A byte, and another, as long as anybody takes them."""
    with contextlib.suppress(Exception):
        while True:
            await stream.write(b"x")
            await trio.sleep(0.02)  # the pace of the attack


async def test_a_peer_that_sends_far_ahead_loses_the_stream_not_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peer.net.stream.STREAM_BUFFER_MAX_BYTES", 1 << 20)
    stuck = trio.Event()

    async def never_reads(stream: Stream) -> None:
        stuck.set()
        await trio.sleep_forever()

    async with hosts(2) as (hub, bad):
        hub.serve("/bitwrk/test/stuck/1", never_reads)
        hub.serve(ECHO, echo)
        await join(hub, bad)
        stream = await bad.open(hub.me, "/bitwrk/test/stuck/1")
        await stuck.wait()
        with pytest.raises(StreamClosed):
            await _send_many(stream)
        assert counter(hub, "stream-overflow") == 1
        other = await bad.open(hub.me, ECHO)
        await other.send(b"same connection")
        assert await other.receive() == b"same connection"


async def test_a_window_overrun_resets_the_stream_and_only_that() -> None:
    async with hosts(2) as (hub, bad):
        hub.serve(ECHO, echo)
        await join(hub, bad)
        healthy = await bad.open(hub.me, ECHO)

        async def never_reads(_: Any) -> None:
            await trio.sleep_forever()

        assert hub._engine is not None
        hub._engine.serve("/bitwrk/test/raw/1", never_reads)
        stream = await raw_stream(bad, hub, "/bitwrk/test/raw/1")
        connection, number = stream.muxed_conn, stream.muxed_stream.stream_id
        body = bytes(64 * 1024)
        await connection._write_frame(frame(DATA, 0, number, len(body), body) * 6)
        await until(lambda: counter(hub, "window-overrun") == 1)
        await until(lambda: stream.muxed_stream.reset_received)
        await healthy.send(b"unmoved")
        assert await healthy.receive() == b"unmoved"
        assert bad.me in [view.peer for view in hub.peers()]


async def _send_many(stream: Stream) -> None:
    for _ in range(100):
        await stream.send(bytes(100_000))


async def _sends(connection: Any, *frames: bytes) -> None:
    for one in frames:
        await connection._write_frame(one)


HOSTILE_FRAMES: dict[str, tuple[bytes, str]] = {
    "wrong version": (b"\x01" + frame(PING, SYN, 0, 1)[1:], "mux-garbage"),
    "unknown kind": (frame(9, 0, 0, 0), "mux-garbage"),
    "random": (random.Random(2).randbytes(40), "mux-garbage"),
    "huge frame": (frame(DATA, SYN, 1001, MUX_FRAME_MAX_BYTES + 1), "mux-frame-oversize"),
    "our parity": (frame(WINDOW, SYN, 1000, 0), "stream-id-wrong"),
    "stream zero": (frame(WINDOW, SYN, 0, 0), "stream-id-wrong"),
    "opened twice": (frame(WINDOW, SYN, 1001, 0) * 2, "stream-id-wrong"),
    "absurd window": (frame(WINDOW, SYN, 1001, (1 << 32) - 1) + frame(WINDOW, 0, 1001, (1 << 32) - 1), "window-absurd"),
}


@pytest.mark.parametrize("name", HOSTILE_FRAMES)
async def test_hostile_multiplexer_frames_end_at_most_their_connection(name: str) -> None:
    sent, code = HOSTILE_FRAMES[name]
    async with hosts(2) as (hub, bad):
        await join(hub, bad)
        await _sends(muxer(bad, hub), sent)
        await until(lambda: counter(hub, code) == 1)
        await still_serves(hub)


async def test_harmless_oddities_of_the_multiplexer_are_borne() -> None:
    async with hosts(2) as (hub, odd):
        hub.serve(ECHO, echo)
        await join(hub, odd)
        await _sends(
            muxer(odd, hub),
            frame(DATA, 0, 77, 3, b"???"),  # for a stream that is not there
            frame(WINDOW, RST, 79, 0),
            frame(WINDOW, FIN, 81, 5),
            frame(DATA, 0, 83, 0),
            frame(WINDOW, SYN | RST, 85, 0),
            frame(DATA, SYN | FIN, 87, 2, b"hi"),
            frame(PING, SYN, 0, 4),
            frame(PING, RST, 0, 4),
        )
        stream = await odd.open(hub.me, ECHO)
        await stream.send(b"still friends")
        assert await stream.receive() == b"still friends"
        await _sends(muxer(odd, hub), frame(GO_AWAY, 0, 0, 0))
        await until(lambda: hub.statistics().connections == 0)


async def test_a_flood_of_streams_is_bounded() -> None:
    async def holds(stream: Stream) -> None:
        await trio.sleep_forever()

    async with hosts(3) as (hub, bad, honest):
        hub.serve("/bitwrk/test/holds/1", holds)
        hub.serve(ECHO, echo)
        await join(hub, bad, honest)
        connection = muxer(bad, hub)
        await _sends(connection, *(frame(WINDOW, SYN, number, 0) for number in range(10_001, 10_001 + 1000, 2)))
        await until(lambda: counter(hub, "streams-over-bound") >= 500 - INBOUND_STREAMS_PER_PEER_MAX)
        stream = await honest.open(hub.me, ECHO)
        await stream.send(b"room for me")
        assert await stream.receive() == b"room for me"
        (inbound,) = (one for one in _connections(hub) if one.peer_id.to_bytes() == bad.me)
        assert sum(not one.is_initiator for one in inbound.streams.values()) <= INBOUND_STREAMS_PER_PEER_MAX


def _connections(net: Net) -> list[Any]:
    assert net._engine is not None
    return [one.muxed_conn for one in net._engine.swarm.get_connections()]


async def test_a_peer_that_asks_and_does_not_read_loses_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peer.net.yamux.MUX_CONTROL_FRAMES", 50)
    async with hosts(2) as (hub, bad):
        await join(hub, bad)
        await _sends(muxer(bad, hub), b"".join(frame(PING, SYN, 0, number) for number in range(1000)))
        await until(lambda: counter(hub, "control-flood") == 1)
        await still_serves(hub)


async def test_a_peer_gone_without_a_word_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peer.net.yamux.KEEPALIVE_S", 0.05)
    monkeypatch.setattr("peer.net.yamux.SILENCE_MAX_S", 0.2)
    async with hosts(2) as (hub, mute):
        await join(hub, mute)

        async def says_nothing(data: bytes) -> None:
            await trio.lowlevel.checkpoint()

        monkeypatch.setattr(muxer(mute, hub), "_write_one", says_nothing)
        await until(lambda: counter(hub, "peer-silent") == 1)
        await until(lambda: hub.statistics().connections == 0)


async def test_half_open_connections_are_bounded_and_do_not_lock_others_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peer.net.admission.HALF_OPEN_PER_ADDRESS_MAX", 20)
    async with hosts(1) as (hub,):
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(60):
                stack.push_async_callback((await trio.open_tcp_stream("127.0.0.1", port_of(hub))).aclose)
            await until(lambda: counter(hub, "half-open-per-address") == 40)
            assert hub.statistics().half_open == 20
            await still_serves(hub)  # from the very address that floods
        await until(lambda: hub.statistics().half_open == 0)


async def test_half_open_connections_are_bounded_over_all_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peer.net.admission.HALF_OPEN_MAX", 8)
    async with hosts(1) as (hub,):
        async with contextlib.AsyncExitStack() as stack:
            for number in range(12):
                stream = await trio.open_tcp_stream("127.0.0.1", port_of(hub), local_address=f"127.0.1.{number + 1}")
                stack.push_async_callback(stream.aclose)
            await until(lambda: counter(hub, "half-open") == 4)
            await still_serves(hub)


async def test_a_handshake_that_stalls_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peer.net.admission.HANDSHAKE_TIMEOUT_S", 0.1)
    async with hosts(1) as (hub,):
        stream = await trio.open_tcp_stream("127.0.0.1", port_of(hub))
        await until(lambda: counter(hub, "handshake-abandoned") == 1)
        with contextlib.suppress(trio.BrokenResourceError):
            while await stream.receive_some():
                pass
        await stream.aclose()


async def test_a_peer_offering_only_plaintext_is_refused() -> None:
    from coincurve import PrivateKey
    from libp2p import new_host
    from libp2p.crypto.keys import KeyPair
    from libp2p.crypto.secp256k1 import Secp256k1PrivateKey
    from libp2p.peer.peerinfo import info_from_p2p_addr
    from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
    from multiaddr import Multiaddr

    secret = Secp256k1PrivateKey(PrivateKey(key(50).secret))
    pair = KeyPair(secret, secret.get_public_key())
    plain = new_host(key_pair=pair, sec_opt={PLAINTEXT_PROTOCOL_ID: InsecureTransport(pair)})
    async with hosts(1) as (hub,):
        async with plain.run(listen_addrs=[]):
            with pytest.raises(Exception, match="unable to connect"):
                await plain.connect(info_from_p2p_addr(Multiaddr(hub.addresses()[0])))
            await plain.close()
        assert hub.peers() == ()
        assert hub.statistics().connections == 0


async def test_a_peer_with_another_kind_of_key_is_sent_away() -> None:
    from libp2p import new_host
    from libp2p.crypto.ed25519 import create_new_key_pair
    from libp2p.crypto.x25519 import create_new_key_pair as create_x25519
    from libp2p.peer.peerinfo import info_from_p2p_addr
    from libp2p.security.noise.transport import PROTOCOL_ID, Transport
    from multiaddr import Multiaddr

    pair = create_new_key_pair(bytes(32))
    other = new_host(key_pair=pair, sec_opt={PROTOCOL_ID: Transport(pair, noise_privkey=create_x25519().private_key)})
    async with hosts(1) as (hub,):
        async with other.run(listen_addrs=[]):
            with contextlib.suppress(Exception):
                await other.connect(info_from_p2p_addr(Multiaddr(hub.addresses()[0])))
            await until(lambda: counter(hub, "peer-of-another-kind") == 1)
            await until(lambda: hub.statistics().connections == 0)
            await other.close()
        assert hub.peers() == ()
        await still_serves(hub)


async def test_streams_held_open_on_the_dht_do_not_shut_others_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peer.net.engine.KAD_STREAM_TIMEOUT_S", 0.3)
    async with hosts(3) as (hub, bad, honest):
        await join(hub, bad)
        for _ in range(30):
            with contextlib.suppress(PeerUnreachable):  # a stream that is reset at once looks refused
                await raw_stream(bad, hub, protocol_of(REGTEST.name))
        await until(lambda: counter(hub, "kad/over-bound") >= 20)
        await join(hub, honest)
        await until(lambda: honest.statistics().table >= 1)
        with trio.fail_after(10):
            await honest.provide(bytes(32))
        await until(lambda: counter(hub, "kad/too-long") >= 1)


async def test_values_are_not_stored_for_anybody() -> None:
    import varint  # type: ignore[import-untyped]
    from libp2p.kad_dht.pb.kademlia_pb2 import Message

    async with hosts(2) as (hub, bad):
        await join(hub, bad)
        for name in (b"/pk/" + bytes(34), b"/any/thing", b"plain"):
            message = Message()
            message.type = Message.MessageType.PUT_VALUE
            message.key = message.record.key = name
            message.record.value = b"keep this for me"
            data = message.SerializeToString()
            stream = await raw_stream(bad, hub, protocol_of(REGTEST.name))
            await stream.write(varint.encode(len(data)) + data)
            await until_reset(stream)
        assert hub._kad is not None
        assert not hub._kad._dht.value_store.store


async def test_connections_that_vanish_at_any_moment_leave_nothing_behind() -> None:
    """Cut a real handshake after every number of bytes: nobody may be left half registered."""
    async with hosts(2) as (hub, one):
        hub.serve(ECHO, echo)
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        budget = itertools.count(0, 90)

        async def cut(stream: trio.SocketStream) -> None:
            onward = await trio.open_tcp_stream("127.0.0.1", port_of(hub))
            left = [next(budget)]
            async with stream, onward, trio.open_nursery() as nursery:

                async def copy(source: trio.SocketStream, sink: trio.SocketStream) -> None:
                    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                        while left[0] > 0 and (data := await source.receive_some(left[0])):
                            left[0] -= len(data)
                            await sink.send_all(data)
                    nursery.cancel_scope.cancel()

                nursery.start_soon(copy, stream, onward)
                nursery.start_soon(copy, onward, stream)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, cut, [listener])
            port = listener.socket.getsockname()[1]
            address = hub.addresses()[0].replace(f"/tcp/{port_of(hub)}/", f"/tcp/{port}/")
            for _ in range(12):
                with contextlib.suppress(Exception):
                    with trio.move_on_after(2):
                        await one.connect(address)
                        await one.open(hub.me, ECHO)
                await one.disconnect(hub.me)
            nursery.cancel_scope.cancel()
        await until(lambda: hub.statistics().connections == hub.statistics().half_open == 0)
        await still_serves(hub)


def test_the_probe_knows_a_busy_port() -> None:
    from peer.net.addresses import check_free
    from wire.errors import LocalFault

    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", 0))
        held.listen()
        with pytest.raises(LocalFault):
            check_free(f"/ip4/127.0.0.1/tcp/{held.getsockname()[1]}")
