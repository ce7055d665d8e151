"""Hosts find, reach and serve each other; and say clearly when they cannot."""

import contextlib
import socket
from pathlib import Path

import pytest
import trio

from peer.net.addresses import AddressBook, BadAddress, announced, listen_multiaddr, split_address
from peer.net.host import open_host
from peer.net.peersfile import load_peers, save_peers
from tests.net.rig import ECHO, counter, echo, hosts, join, key, port_of, still_serves, until
from wire.account import account_of
from wire.errors import InvariantBroken, LocalFault, Misbehaved
from wire.keys import PeerId, show_peer
from wire.limits import ADDRESSES_PER_PEER_MAX, FRAME_MAX_BYTES, KNOWN_PEERS_MAX
from wire.network import REGTEST
from wire.ports import PeerUnreachable, Stream, StreamClosed


async def test_three_hosts_echo() -> None:
    async with hosts(3) as (hub, one, two):
        hub.serve(ECHO, echo)
        await join(hub, one, two)
        for net in (one, two):
            stream = await net.open(hub.me, ECHO)
            assert stream.remote == hub.me
            for frame in (b"", b"x", bytes(range(256)) * 4096, b"y" * FRAME_MAX_BYTES):
                await stream.send(frame)
                assert await stream.receive() == frame
            await stream.close()
            with pytest.raises(StreamClosed):
                await stream.receive()
        assert counter(hub, "host-failed") == 0


async def test_both_directions_at_once_do_not_starve() -> None:
    async with hosts(2) as (left, right):
        left.serve(ECHO, echo)
        await join(left, right)
        stream = await right.open(left.me, ECHO)
        frame = b"z" * 300_000
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:

                async def send() -> None:
                    for _ in range(20):
                        await stream.send(frame)

                nursery.start_soon(send)
                for _ in range(20):
                    assert await stream.receive() == frame


async def test_peers_and_statistics_tell_what_is() -> None:
    ups: list[PeerId] = []
    downs: list[PeerId] = []
    async with hosts(1) as (hub,):
        hub.on_peer(ups.append, downs.append)
        hub.on_peer(lambda _: 1 / 0, lambda _: 1 / 0)  # type: ignore[arg-type]
        async with hosts(1, first=2) as (one,):
            await join(hub, one)
            await until(lambda: ups)
            (seen,) = hub.peers()
            assert (seen.peer, seen.account, seen.direction) == (one.me, account_of(key(2).public), "inbound")
            assert seen.standing is None
            assert one.peers()[0].direction == "outbound"
            assert one.peers()[0].addresses == (hub.addresses()[0].partition("/p2p/")[0],)
            # What an inbound peer listens on is learned from identify.
            await until(lambda: hub.peers()[0].addresses == (one.addresses()[0].partition("/p2p/")[0],))
            await until(lambda: hub.statistics().table == 1)
        await until(lambda: downs)
        assert ups == downs == [key(2).peer_id]
        assert hub.peers() == ()
        assert counter(hub, "watcher-failed") == 2


async def test_addresses_hold_the_peer_and_the_real_port() -> None:
    async with hosts(1) as (net,):
        (address,) = net.addresses()
        assert split_address(address) == (net.me, f"/ip4/127.0.0.1/tcp/{port_of(net)}")
        assert port_of(net) > 0


async def test_an_unknown_protocol_is_refused_in_words() -> None:
    async with hosts(2) as (hub, one):
        await join(hub, one)
        with pytest.raises(PeerUnreachable, match="does not take streams of /bitwrk/none/1"):
            await one.open(hub.me, "/bitwrk/none/1")


async def test_open_finds_addresses_of_a_stranger_by_itself() -> None:
    async with hosts(3) as (hub, one, two):
        two.serve(ECHO, echo)
        await join(hub, one, two)
        await until(lambda: hub.statistics().table == 2)
        stream = await one.open(two.me, ECHO)
        await stream.send(b"found")
        assert await stream.receive() == b"found"


async def test_many_openers_share_one_dial() -> None:
    async with hosts(2) as (hub, one):
        hub.serve(ECHO, echo)
        peer, address = split_address(hub.addresses()[0])
        one.remember(peer, [address])
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(one.open, hub.me, ECHO)
        assert counter(one, "dial-succeeded") == 1
        assert one.statistics().connections == 1


async def test_unreachable_peers_are_explained() -> None:
    async with hosts(2) as (hub, one):
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            closed = f"/ip4/127.0.0.1/tcp/{held.getsockname()[1]}"
            with pytest.raises(PeerUnreachable, match="nothing listens there"):
                await one.connect(f"{closed}/p2p/{show_peer(hub.me)}")
        stranger = show_peer(key(9).peer_id)
        with pytest.raises(PeerUnreachable, match="another peer answers"):
            await one.connect(f"/ip4/127.0.0.1/tcp/{port_of(hub)}/p2p/{stranger}")
        with pytest.raises(PeerUnreachable, match="no address of it is known"):
            await one.open(key(8).peer_id, ECHO)
        with pytest.raises(PeerUnreachable, match="the node itself"):
            await one.open(one.me, ECHO)
        with pytest.raises(BadAddress):
            await one.connect("127.0.0.1:80")
        # None of that keeps it from reaching the peer when the address is right.
        assert await one.connect(hub.addresses()[0]) == hub.me


async def test_bootstrap_says_which_failed_and_why(tmp_path: Path) -> None:
    async with hosts(1) as (hub,):
        dead = f"/ip4/127.0.0.1/tcp/1/p2p/{show_peer(key(9).peer_id)}"
        bootstrap = [hub.addresses()[0], dead, "nonsense"]
        async with open_host(key=key(2), network=REGTEST, bootstrap=bootstrap, home=tmp_path) as one:
            failed = await one.connect_bootstrap()
            assert list(failed) == [dead, "nonsense"]
            assert "nothing listens there" in failed[dead]
            assert "not an address" in failed["nonsense"]
            assert [view.peer for view in one.peers()] == [hub.me]
        # What was reached is kept, so the next start needs no bootstrap address.
        async with open_host(key=key(2), network=REGTEST, home=tmp_path) as again:
            assert await again.connect_bootstrap() == {}
            assert [view.peer for view in again.peers()] == [hub.me]


async def test_a_port_in_use_is_one_clear_sentence() -> None:
    async with hosts(1) as (net,):
        with pytest.raises(
            LocalFault, match=f"cannot listen on 127.0.0.1 port {port_of(net)}: another program already listens there"
        ):
            async with open_host(key=key(5), network=REGTEST, listen=[f"127.0.0.1:{port_of(net)}"]):
                raise AssertionError("it must not start")
        await still_serves(net)


async def test_an_address_that_is_not_ours_is_one_clear_sentence() -> None:
    with pytest.raises(LocalFault, match=r"cannot listen on 192\.0\.2\.1"):
        async with open_host(key=key(5), network=REGTEST, listen=["192.0.2.1:4001"]):
            raise AssertionError("it must not start")


async def test_nothing_is_left_open_after_closing() -> None:
    async with hosts(1) as (hub,):
        async with hosts(3, first=10) as others:
            await join(hub, *others)
            port = port_of(others[0])
        await until(lambda: hub.statistics().connections == 0)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))


async def test_cancelling_from_outside_closes_in_order() -> None:
    async with hosts(1) as (hub,):
        hub.serve(ECHO, echo)
        with trio.fail_after(10):
            with trio.CancelScope() as scope:
                async with open_host(key=key(7), network=REGTEST) as one:
                    await join(hub, one)
                    await one.open(hub.me, ECHO)
                    scope.cancel()
                    await trio.sleep_forever()
        await until(lambda: hub.statistics().connections == 0)


async def test_a_host_that_ends_by_itself_is_replaced_on_the_same_port() -> None:
    async with hosts(2) as (hub, one):
        hub.serve(ECHO, echo)
        await join(hub, one)
        before = hub.addresses()
        downs: list[PeerId] = []
        hub.on_peer(lambda _: None, downs.append)

        async def burst() -> None:
            raise ValueError("as a library does it")

        assert hub._engine is not None
        hub._engine.swarm.manager.run_task(burst)
        await until(lambda: counter(hub, "host-restarted") == 1)
        await until(lambda: hub.addresses() == before)
        assert downs == [one.me]
        assert counter(hub, "host-failed") == 1
        await until(lambda: one.statistics().connections == 0)
        stream = await one.open(hub.me, ECHO)
        await stream.send(b"again")
        assert await stream.receive() == b"again"


async def test_inbound_places_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peer.net.admission.PEERS_MAX", 2)
    async with hosts(2) as (hub, one):
        for _ in range(6):
            await one.connect(hub.addresses()[0])
            await one.disconnect(hub.me)
            await until(lambda: hub.statistics().connections == 0)
        async with hosts(2, first=20) as (two, three):
            await join(hub, one, two)
            assert counter(hub, "peers-over-bound") == 0
            with pytest.raises(PeerUnreachable):
                await three.connect(hub.addresses()[0])
        assert counter(hub, "peers-over-bound") >= 1  # a dial may try one address twice


async def test_a_banned_peer_is_kept_out_until_pardoned() -> None:
    async with hosts(2) as (hub, rude):
        hub.serve(ECHO, echo)
        await join(hub, rude)
        stream = await rude.open(hub.me, ECHO)
        await hub.ban(rude.me)
        with pytest.raises(StreamClosed):
            await stream.receive()
        with pytest.raises(PeerUnreachable, match="banned"):
            await hub.open(rude.me, ECHO)
        with pytest.raises(PeerUnreachable, match="banned"):
            await hub.connect(rude.addresses()[0])
        with contextlib.suppress(PeerUnreachable):
            await rude.connect(hub.addresses()[0])
        with pytest.raises((PeerUnreachable, StreamClosed)):
            await (await rude.open(hub.me, ECHO)).receive()
        await until(lambda: counter(hub, "peer-banned") >= 1)
        await until(lambda: hub.statistics().connections == 0)
        assert hub.peers() == ()
        hub.pardon(rude.me)
        await hub.connect(rude.addresses()[0])
        assert [view.peer for view in hub.peers()] == [rude.me]


async def test_idle_connections_are_pruned_when_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peer.net.engine._PRUNE_FROM", 2)
    monkeypatch.setattr("peer.net.engine._PRUNE_TO", 1)
    async with hosts(4) as (hub, busy, *idle):
        hub.serve(ECHO, echo)
        await join(hub, busy, *idle)
        stream = await busy.open(hub.me, ECHO)
        await until(lambda: hub.statistics().table == 3)
        assert hub._engine is not None
        engine = hub._engine
        await until(lambda: all(not one.muxed_conn.streams for one in engine.swarm.get_connections() if _of(one) != busy.me))
        await engine.prune()
        assert counter(hub, "idle-pruned") >= 1
        await stream.send(b"spared")
        assert await stream.receive() == b"spared"


def _of(connection: object) -> bytes:
    return bytes(connection.muxed_conn.peer_id.to_bytes())  # type: ignore[attr-defined]


async def test_a_frame_over_the_bound_is_our_own_mistake() -> None:
    async with hosts(2) as (hub, one):
        hub.serve(ECHO, echo)
        await join(hub, one)
        stream = await one.open(hub.me, ECHO)
        with pytest.raises(InvariantBroken):
            await stream.send(bytes(FRAME_MAX_BYTES + 1))


async def test_a_send_cancelled_half_way_takes_only_its_stream() -> None:
    async def never_reads(stream: Stream) -> None:
        await trio.sleep_forever()

    async with hosts(2) as (hub, one):
        hub.serve(ECHO, echo)
        await join(hub, one)
        stream = await one.open(hub.me, ECHO)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def cancel_soon() -> None:
                    await trio.lowlevel.checkpoint()
                    scope.cancel()

                nursery.start_soon(cancel_soon)
                for _ in range(50):
                    await stream.send(bytes(FRAME_MAX_BYTES))
        assert scope.cancelled_caught
        with pytest.raises(StreamClosed):
            await stream.send(b"more")
        other = await one.open(hub.me, ECHO)
        await other.send(b"fine")
        assert await other.receive() == b"fine"


async def test_a_served_handler_that_misbehaves_is_told_to_the_blamers() -> None:
    async def strict(stream: Stream) -> None:
        await stream.receive()
        raise Misbehaved("test-rule", "that is not said here", penalty=7)

    async with hosts(2) as (hub, one):
        blamed: list[tuple[PeerId, str, int]] = []
        hub.on_blame(lambda peer, error: blamed.append((peer, error.code, error.penalty)))
        hub.serve(ECHO, strict)
        await join(hub, one)
        stream = await one.open(hub.me, ECHO)
        await stream.send(b"rude")
        with pytest.raises(StreamClosed):
            await stream.receive()
        assert blamed == [(one.me, "test-rule", 7)]
        assert counter(hub, f"{ECHO}/test-rule") == 1


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("127.0.0.1:4820", "/ip4/127.0.0.1/tcp/4820"),
        ("[::1]:0", "/ip6/::1/tcp/0"),
        (":7", "/ip4/0.0.0.0/tcp/7"),
        ("/ip4/10.0.0.1/tcp/9", "/ip4/10.0.0.1/tcp/9"),
    ],
)
def test_listen_addresses_as_people_write_them(written: str, meant: str) -> None:
    assert listen_multiaddr(written) == meant


@pytest.mark.parametrize(
    "written", ["", "localhost", "127.0.0.1", "127.0.0.1:70000", "1.2.3:4", "/udp/4", "/ip4/1.2.3.4/udp/4/quic-v1"]
)
def test_other_listen_addresses_are_refused(written: str) -> None:
    with pytest.raises(LocalFault):
        listen_multiaddr(written)


def test_the_address_book_is_bounded_and_tries_loopback_last() -> None:
    book, peer = AddressBook(), key(1).peer_id
    book.remember(
        peer, ["/ip4/127.0.0.1/tcp/1", f"/ip4/10.0.0.1/tcp/2/p2p/{show_peer(peer)}", "/ip4/1.1.1.1/udp/4/quic-v1", "junk"]
    )
    assert book.of(peer) == ("/ip4/10.0.0.1/tcp/2", "/ip4/127.0.0.1/tcp/1")
    book.remember(peer, [f"/ip4/10.0.1.1/tcp/{port}" for port in range(1, 100)])
    assert len(book.of(peer)) == ADDRESSES_PER_PEER_MAX
    book.prove(peer, "/ip4/127.0.0.1/tcp/9")
    book.remember(peer, [f"/ip4/10.0.2.1/tcp/{port}" for port in range(1, 100)])
    assert book.of(peer)[0] == "/ip4/127.0.0.1/tcp/9"
    assert len(book.of(peer)) == ADDRESSES_PER_PEER_MAX
    for number in range(KNOWN_PEERS_MAX):
        book.remember(PeerId(number.to_bytes(39, "big")), ["/ip4/127.0.0.1/tcp/1"])
    assert len(book) == KNOWN_PEERS_MAX
    assert book.of(peer) == ()


def test_every_interface_is_announced_by_its_addresses() -> None:
    shown = announced(["/ip4/0.0.0.0/tcp/5", "/ip4/10.1.1.1/tcp/6"])
    assert "/ip4/127.0.0.1/tcp/5" in shown
    assert "/ip4/10.1.1.1/tcp/6" in shown
    assert not any("0.0.0.0" in one for one in shown)


def test_the_peers_file_survives_rubbish(tmp_path: Path) -> None:
    assert load_peers(tmp_path) == ()
    good = f"/ip4/127.0.0.1/tcp/1/p2p/{show_peer(key(1).peer_id)}"
    (tmp_path / "peers").write_text(f"rubbish\n{good}\n")
    assert load_peers(tmp_path) == (good,)
    (tmp_path / "peers").write_bytes(b"\xff\xfe\x00")
    assert load_peers(tmp_path) == ()
    assert not save_peers(tmp_path / "nowhere", [good])
