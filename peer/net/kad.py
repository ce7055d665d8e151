"""Provider records in libp2p's Kademlia, and nothing else of it.

Keys are 32 bytes and travel as a BLAKE3 multihash. What is different from the library's defaults:

- the protocol is our own per network, so our nodes never mix with IPFS or with another of our networks;
- stored values are refused altogether, and provider records are bounded in number and forgotten after half an hour;
- a lookup always asks the network; the library answers from its own store as soon as it knows a single provider;
- announcing waits its turn, since a receiver silently drops more than ten announcements in ten seconds.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import trio
from libp2p.kad_dht import provider_store as _provider_store
from libp2p.kad_dht.common import PROTOCOL_ID as _LIBRARY_PROTOCOL
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.peer.id import ID
from libp2p.records.validator import NamespacedValidator

from wire.keys import BadKey, PeerId, public_of
from wire.limits import LOOKUP_TIMEOUT_S, PROVIDE_INTERVAL_S, PROVIDER_KEYS_MAX, PROVIDER_LIFE_S
from wire.ports import PeerUnreachable

_MULTIHASH_BLAKE3: Final = b"\x1e\x20"
_REFRESH_SMALL_S: Final = 10.0
_REFRESH_S: Final = 120.0
_SMALL_TABLE: Final = 8
_SETTLE_S: Final = 0.1
_ASK_AT_ONCE: Final = 10

_provider_store.PROVIDER_RECORD_EXPIRATION_INTERVAL = PROVIDER_LIFE_S


def protocol_of(network_name: str) -> str:
    """The protocol id of one network's DHT."""
    return f"/bitwrk/{network_name}/kad/1.0.0"


class _Renamed:
    """The host as the library's DHT sees it: its fixed protocol id becomes ours, everything else passes through."""

    def __init__(self, host: Any, protocol: str) -> None:
        self._host = host
        self._protocol = protocol

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)

    def set_stream_handler(self, protocol: Any, handler: Any) -> None:
        self._host.set_stream_handler(self._ours(protocol), handler)

    async def new_stream(self, peer: Any, protocols: Sequence[Any]) -> Any:
        return await self._host.new_stream(peer, [self._ours(one) for one in protocols])

    def _ours(self, protocol: Any) -> Any:
        return self._protocol if protocol == _LIBRARY_PROTOCOL else protocol


class Kad:
    """The DHT of one host. ``run`` keeps its table; ``provide`` and ``find`` are ``wire.ports.Providers``."""

    def __init__(
        self,
        host: Any,
        network_name: str,
        counters: Counter[str],
        remember: Callable[[PeerId, Iterable[str]], None],
    ) -> None:
        self._host = host
        self._counters = counters
        self._remember = remember
        self._protocol = protocol_of(network_name)
        self._dht: Any = KadDHT(
            _Renamed(host, self._protocol),
            DHTMode.SERVER,
            strict_validation=True,
            validator=NamespacedValidator({}, strict_validation=True),
            validator_changed=True,
        )
        self._plain_add_peer = self._dht.routing_table.add_peer
        self._dht.routing_table.add_peer = self._add_peer
        self._plain_add_provider = self._dht.provider_store.add_provider
        self._dht.provider_store.add_provider = self._add_provider
        self._turn = trio.Lock()
        self._next_turn = 0.0
        self._known: set[PeerId] = set()
        self._news = trio.Event()

    # --- the table -----------------------------------------------------------------------------------------

    async def _add_peer(self, peer: Any, *, skip_server_mode_check: bool = False) -> bool:
        # The library looks for its own protocol id among what the peer serves; ours is what counts.
        identity = getattr(peer, "peer_id", peer)
        if not skip_server_mode_check:
            try:
                served = self._host.get_peerstore().get_protocols(identity)
            except Exception:
                served = []
            if served and self._protocol not in served:
                return False
        return bool(await self._plain_add_peer(peer, skip_server_mode_check=True))

    def _add_provider(self, key: bytes, provider: Any) -> None:
        records = self._dht.provider_store.providers
        if key not in records and len(records) >= PROVIDER_KEYS_MAX:
            self._counters["kad/records-over-bound"] += 1
            return
        self._plain_add_provider(key, provider)

    def identified(self, peer: PeerId) -> None:
        """A connected peer has told what it serves: it may join the table."""
        self._known.add(peer)
        self._news.set()

    def table_size(self) -> int:
        """Peers in the routing table."""
        return int(self._dht.routing_table.size())

    def records(self) -> int:
        """Provider records held for others and ourselves."""
        return int(self._dht.provider_store.size())

    async def run(self) -> None:
        """Fill the table from connected peers, look around for more, forget old records. Never returns.

        A small table is looked after more often, and the longer nothing new comes of that, the less often.
        """
        rest_s, seen = _REFRESH_SMALL_S, 0
        while True:
            size = self.table_size()
            rest_s = _REFRESH_SMALL_S if size != seen else min(2 * rest_s, _REFRESH_S)
            seen = size
            with trio.move_on_after(rest_s if 0 < size < _SMALL_TABLE else _REFRESH_S):
                await self._news.wait()
                await trio.sleep(_SETTLE_S)
            self._news = trio.Event()
            fresh, self._known = self._known, set()
            for peer in sorted(fresh):
                await self._dht.routing_table.add_peer(ID(peer))
            with trio.move_on_after(LOOKUP_TIMEOUT_S):
                try:
                    await self._dht.refresh_routing_table()
                    self._dht.provider_store.cleanup_expired()
                except Exception:
                    self._counters["kad/refresh-failed"] += 1

    # --- records -------------------------------------------------------------------------------------------

    async def provide(self, key: bytes) -> None:
        """Announce ``key``, in turn. Raises ``PeerUnreachable`` when no peer took the announcement in time."""
        async with self._turn:
            await trio.sleep_until(self._next_turn)
            self._next_turn = trio.current_time() + PROVIDE_INTERVAL_S
        taken = False
        with trio.move_on_after(LOOKUP_TIMEOUT_S):
            taken = await self._dht.provider_store.provide(_MULTIHASH_BLAKE3 + key)
        if not taken:
            raise PeerUnreachable("no-provider-holder", "no peer of the directory took our announcement")

    async def find(self, key: bytes, most: int) -> tuple[PeerId, ...]:
        """Up to ``most`` peers that announced ``key``, other than ourselves; their addresses are remembered."""
        full_key = _MULTIHASH_BLAKE3 + key
        found: dict[PeerId, None] = {}
        with trio.move_on_after(LOOKUP_TIMEOUT_S):
            try:
                closest = await self._dht.peer_routing.find_closest_peers_network(full_key)
                await self._ask_all([peer for peer in closest if peer != self._host.get_id()], full_key, found, most)
            except* Exception:
                self._counters["kad/lookup-failed"] += 1
        self._take(found, self._dht.provider_store.get_providers(full_key))
        return tuple(found)[:most]

    async def _ask_all(self, closest: Sequence[Any], full_key: bytes, found: dict[PeerId, None], most: int) -> None:
        slots = trio.CapacityLimiter(_ASK_AT_ONCE)

        async def ask(peer: Any) -> None:
            async with slots:
                if len(found) >= most:
                    return
                providers, _ = await self._dht.provider_store._get_providers_from_peer_with_closers(peer, full_key)
                self._take(found, providers)

        async with trio.open_nursery() as nursery:
            for peer in closest:
                nursery.start_soon(ask, peer)

    def _take(self, found: dict[PeerId, None], providers: Iterable[Any]) -> None:
        for provider in providers:
            peer = PeerId(provider.peer_id.to_bytes())
            try:
                public_of(peer)
            except BadKey:
                continue
            if provider.peer_id != self._host.get_id():
                found[peer] = None
                self._remember(peer, [str(address) for address in provider.addrs])

    async def find_peer(self, peer: PeerId) -> bool:
        """Look up addresses of ``peer``; whether some are known now."""
        with trio.move_on_after(LOOKUP_TIMEOUT_S):
            try:
                info = await self._dht.find_peer(ID(peer))
            except Exception:
                self._counters["kad/lookup-failed"] += 1
                return False
            if info is not None and info.addrs:
                self._remember(peer, [str(address) for address in info.addrs])
                return True
        return False
