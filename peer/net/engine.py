"""One running libp2p host, built the only safe way we know.

Noise only (the library's default also accepts plaintext), our multiplexer, our admission, our dialling, no automatic
connections, and every handler guarded, the library's own and the negotiation included. ``Net`` builds a new one
whenever this one ends by itself.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

import libp2p.network.connection.swarm_connection as _swarm_connection
import trio
from coincurve import PrivateKey
from libp2p import new_host
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.secp256k1 import Secp256k1PrivateKey
from libp2p.crypto.x25519 import create_new_key_pair
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.peer.id import ID
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from multiaddr import Multiaddr

from peer.net.addresses import AddressBook, announced
from peer.net.admission import Admission
from peer.net.dialler import Dialler, unreachable
from peer.net.guards import Guard, RawHandler
from peer.net.yamux import bounded_yamux
from wire.keys import PeerId, SecretKey
from wire.limits import (
    DIAL_TIMEOUT_S,
    GOSSIP_STREAMS_PER_PEER_MAX,
    HANDSHAKE_TIMEOUT_S,
    KAD_STREAM_TIMEOUT_S,
    KAD_STREAMS_PER_PEER_MAX,
    PEERS_MAX,
    STREAM_READ_BYTES,
)

_CLOSE_S: Final = 3.0
_PRUNE_FROM: Final = 3 * PEERS_MAX // 4
_PRUNE_TO: Final = PEERS_MAX // 2


def _silence() -> None:
    """libp2p logs and drops; what matters is counted by us. One of its modules even logs through the root logger."""
    quiet = logging.getLogger("libp2p")
    quiet.handlers = [logging.NullHandler()]
    quiet.propagate = False
    quiet.setLevel(logging.CRITICAL + 1)
    _swarm_connection.logging = quiet


class _Watcher:
    """libp2p's notifee: says when a connection comes or goes."""

    def __init__(self, changed: Callable[[Any], None]) -> None:
        self._changed = changed

    async def connected(self, network: Any, connection: Any) -> None:
        self._changed(connection)

    async def disconnected(self, network: Any, connection: Any) -> None:
        self._changed(connection)

    async def opened_stream(self, network: Any, stream: Any) -> None: ...

    async def closed_stream(self, network: Any, stream: Any) -> None: ...

    async def listen(self, network: Any, address: Any) -> None: ...

    async def listen_close(self, network: Any, address: Any) -> None: ...


class Engine:
    """A libp2p host with its guards on. ``changed(connection)`` and ``identified(peer)`` are called as things happen."""

    def __init__(
        self,
        key: SecretKey,
        book: AddressBook,
        counters: Counter[str],
        guard: Guard,
        changed: Callable[[Any], None],
        identified: Callable[[PeerId], None],
    ) -> None:
        _silence()
        self.counters = counters
        self._guard = guard
        self._identified = identified
        self.host: Any = self._build(key)
        self.swarm: Any = self.host.get_network()
        self.dialler = Dialler(self.swarm, book, counters)
        self.admission = Admission(self.swarm, counters)
        self.swarm.register_notifee(_Watcher(changed))
        self._put_guards_on()

    def _build(self, key: SecretKey) -> Any:
        secret = Secp256k1PrivateKey(PrivateKey(key.secret))
        pair = KeyPair(secret, secret.get_public_key())
        host = new_host(
            key_pair=pair,
            sec_opt={NOISE: NoiseTransport(pair, noise_privkey=create_new_key_pair().private_key)},
            muxer_opt={YAMUX: bounded_yamux(self.counters)},
            addrs_factory=_announce,
            disable_identify_address_discovery=True,
            negotiate_timeout=HANDSHAKE_TIMEOUT_S,
            connection_config=ConnectionConfig(
                max_connections=2 * PEERS_MAX,
                high_watermark=2 * PEERS_MAX,
                low_watermark=0,
                min_connections=0,
                max_connections_per_peer=1,
                inbound_upgrade_timeout=HANDSHAKE_TIMEOUT_S,
                outbound_upgrade_timeout=HANDSHAKE_TIMEOUT_S,
            ),
        )
        swarm = host.get_network()
        swarm.retry_config = RetryConfig(max_retries=0)
        _use_our_multiplexer(swarm.upgrader.muxer_multistream)
        swarm.set_resource_manager(None)  # its per-peer rates refuse honest reconnects; our own bounds stand instead
        return host

    def _put_guards_on(self) -> None:
        host, plain_set = self.host, self.host.set_stream_handler

        def set_guarded(protocol: Any, handler: RawHandler) -> None:
            if "/kad/" in str(protocol):
                guarded = self._guard.wrap("kad", handler, limit_s=KAD_STREAM_TIMEOUT_S, per_peer=KAD_STREAMS_PER_PEER_MAX)
            elif str(protocol).startswith("/meshsub/"):
                guarded = self._guard.wrap("gossip", handler, per_peer=GOSSIP_STREAMS_PER_PEER_MAX)
            else:
                guarded = self._guard.wrap(str(protocol), handler)
            plain_set(protocol, guarded)

        host.set_stream_handler = set_guarded
        for protocol, handler in list(host.multiselect.handlers.items()):
            if handler is not None:
                set_guarded(protocol, handler)
        self.swarm.set_stream_handler(self._guard.wrap("negotiation", host._swarm_stream_handler))
        plain_identify = host._identify_task_entry

        async def identify(peer: Any, why: str) -> None:
            # It runs as a trio system task, where an exception would end the program.
            try:
                await plain_identify(peer, why)
            except Exception:
                self.counters["identify-failed"] += 1
            if peer in host._identified_peers:
                self._identified(PeerId(peer.to_bytes()))

        host._identify_task_entry = identify

    def serve(self, protocol: str, handler: RawHandler) -> None:
        """Register a handler; it runs behind the guard."""
        self.host.set_stream_handler(protocol, handler)

    def addresses(self) -> tuple[str, ...]:
        """Full addresses, with ``/p2p/``, that others can use."""
        return tuple(str(address) for address in self.host.get_addrs())

    def listening(self) -> tuple[str, ...]:
        """The transport addresses the sockets are really bound to."""
        return tuple(str(address) for address in self.host.get_transport_addrs())

    def directions(self, peer: PeerId) -> tuple[str, ...]:
        """``inbound`` or ``outbound`` for each connection with ``peer``, the oldest first."""
        return tuple(str(one.direction.name).lower() for one in self.swarm.get_connections(ID(peer)))

    async def disconnect(self, peer: PeerId) -> None:
        """Close every connection with ``peer``."""
        for connection in list(self.swarm.get_connections(ID(peer))):
            await self._close_one(connection)

    async def prune(self) -> None:
        """Close idle connections, the oldest first, when there are many: lookups in the DHT leave one with everybody they ask."""
        live = [one for one in self.swarm.get_connections() if not one.is_closed]
        if len(live) > _PRUNE_FROM:
            idle = [one for one in live if not one.muxed_conn.streams]
            for connection in sorted(idle, key=lambda one: one._created_at)[: len(live) - _PRUNE_TO]:
                self.counters["idle-pruned"] += 1
                await self._close_one(connection)

    async def open_raw(self, peer: PeerId, protocol: str) -> Any:
        """A libp2p stream to a peer that is connected. Raises ``PeerUnreachable``."""
        with trio.move_on_after(DIAL_TIMEOUT_S):
            try:
                return await self.host.new_stream(ID(peer), [protocol])
            except Exception:
                raise unreachable(peer, f"it does not take streams of {protocol}") from None
        raise unreachable(peer, f"it did not answer within {DIAL_TIMEOUT_S} seconds")

    async def run(self, listen: Sequence[str], started: Callable[[], None], stopping: trio.Event) -> None:
        """Run until ``stopping`` is set, then close in order; or until the host ends by itself, usually with an exception."""
        try:
            async with self.host.run(listen_addrs=[Multiaddr(one) for one in listen]):
                started()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._until_it_ends, nursery.cancel_scope)
                    await stopping.wait()
                    nursery.cancel_scope.cancel()
                await self._close()
        finally:
            with trio.move_on_after(_CLOSE_S, shield=True):
                await self._close()

    async def _until_it_ends(self, scope: trio.CancelScope) -> None:
        await self.swarm.manager.wait_finished()
        scope.cancel()

    async def _close(self) -> None:
        # Leaving run() alone would leave the connections open; and one after another they take a fifth of a second each.
        async with trio.open_nursery() as nursery:
            for connection in self.swarm.get_connections():
                nursery.start_soon(self._close_one, connection)
        await self.host.close()

    async def _close_one(self, connection: Any) -> None:
        try:
            await connection.close()
        except Exception:
            self.counters["close-failed"] += 1


def _use_our_multiplexer(muxers: Any) -> None:
    """Make ``muxer_opt`` count: for yamux the library builds its own class whatever was given."""

    async def new_connection(secured: Any, peer: Any) -> Any:
        packets = secured.conn.read_writer
        packets.read_write_closer = ReadAhead(packets.read_write_closer)
        protocol, kind = await muxers._selector.select(secured, secured.is_initiator, muxers.negotiate_timeout)
        return muxers._annotate_connection(kind(secured, peer, is_initiator=secured.is_initiator), secured, protocol)

    muxers.new_conn = new_connection


class ReadAhead:
    """A connection that is read in large pieces. The library asks the socket for the two bytes of a packet's length, then for
    the packet; here both, and whatever came with them, come at once.
    """

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._ahead = memoryview(b"")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    async def read(self, n: int | None = None) -> bytes:
        """At most ``n`` bytes, nothing at the end; waits only when nothing is there."""
        if not self._ahead:
            self._ahead = memoryview(await self._raw.read(STREAM_READ_BYTES))
        found, self._ahead = self._ahead[:n], self._ahead[len(self._ahead) if n is None else n :]
        return bytes(found)


def _announce(listening: Sequence[Any]) -> list[Any]:
    return [Multiaddr(one) for one in announced([str(one) for one in listening])]
