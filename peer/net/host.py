"""The network as the rest of the house sees it: ``open_host`` gives a ``Net``.

``Net`` is ``wire.ports.Streams`` and ``wire.ports.Providers``. It survives its libp2p host: when that ends by itself, a
new one with the same key, port and handlers takes its place after a pause, and ``host-restarted`` is counted.
"""

import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from peer.net.addresses import AddressBook, BadAddress, check_free, listen_multiaddr, split_address
from peer.net.dialler import unreachable
from peer.net.engine import Engine
from peer.net.guards import Guard, reset_quietly
from peer.net.kad import Kad
from peer.net.peersfile import load_peers, save_peers
from peer.net.stream import FramedStream
from peer.net.views import PeerView, Statistics
from wire.account import account_of
from wire.errors import LocalFault, Misbehaved
from wire.keys import BadKey, PeerId, SecretKey, public_of, show_peer
from wire.limits import KNOWN_PEERS_MAX
from wire.moments import Instant
from wire.network import Network
from wire.ports import Heard, PeerUnreachable, Stream

if TYPE_CHECKING:
    from peer.net.gossip import Gossip

_RESTART_FIRST_S: Final = 0.5
_RESTART_MAX_S: Final = 30.0
_DRAIN_S: Final = 5.0
_PRUNE_S: Final = 20.0
_CLOSE_S: Final = 5.0

PeerCallback = Callable[[PeerId], None]
BlameCallback = Callable[[PeerId, Misbehaved], None]


class Net:
    """See the module. Made by ``open_host``."""

    def __init__(self, key: SecretKey, network: Network, listen: Sequence[str], bootstrap: Sequence[str]) -> None:
        self._key = key
        self._network = network
        self._listen = tuple(listen)
        self._bootstrap = tuple(bootstrap)
        self._counters: Counter[str] = Counter()
        self._book = AddressBook()
        self._guard = Guard(self._counters, self._on_blame)
        self._handlers: dict[str, Callable[[Stream], Awaitable[None]]] = {}
        self._watchers: list[tuple[PeerCallback, PeerCallback]] = []
        self._blame_watchers: list[BlameCallback] = []
        self._last_blamed: Misbehaved | None = None
        self._banned: OrderedDict[PeerId, None] = OrderedDict()
        self._since: dict[PeerId, Instant] = {}
        self._engine: Engine | None = None
        self._kad: Kad | None = None
        self._gossip: Gossip | None = None
        self._nursery: trio.Nursery | None = None
        self._up = trio.Event()
        self._stopping = trio.Event()
        self._scope = trio.CancelScope(shield=True)

    # --- what others ask -----------------------------------------------------------------------------------

    @property
    def me(self) -> PeerId:
        """Our own peer id."""
        return self._key.peer_id

    def addresses(self) -> tuple[str, ...]:
        """Full addresses, with ``/p2p/``, that others can dial. Empty while the host restarts."""
        return self._engine.addresses() if self._engine is not None else ()

    def remember(self, peer: PeerId, addresses: Iterable[str]) -> None:
        """Keep transport addresses of a peer for later dials."""
        if peer != self.me:
            self._book.remember(peer, addresses)

    def on_peer(self, up: PeerCallback, down: PeerCallback) -> None:
        """Call ``up`` when the first connection with a peer stands and ``down`` when the last one is gone."""
        self._watchers.append((up, down))

    def on_blame(self, blame: BlameCallback) -> None:
        """Call ``blame`` when a peer breaks a rule of the network itself, or a served handler raises ``Misbehaved``."""
        self._blame_watchers.append(blame)

    def peers(self) -> tuple[PeerView, ...]:
        """The connected peers, in the order of their ids."""
        engine = self._engine
        if engine is None:
            return ()
        return tuple(self._view(engine, peer) for peer in sorted(self._since))

    def _view(self, engine: Engine, peer: PeerId) -> PeerView:
        directions = engine.directions(peer)
        return PeerView(
            peer=peer,
            account=account_of(public_of(peer)),
            addresses=engine.dialler.known(peer),
            direction=directions[0] if directions else "unknown",
            connected_since=self._since[peer],
        )

    def reachable(self) -> tuple[str, ...]:
        """One full address for each connected peer that has one."""
        return tuple(f"{view.addresses[0]}/p2p/{show_peer(view.peer)}" for view in self.peers() if view.addresses)

    def statistics(self) -> Statistics:
        """How the network is, at this moment."""
        engine, kad = self._engine, self._kad
        return Statistics(
            peers=len(self._since),
            connections=len(engine.swarm.get_connections()) if engine is not None else 0,
            half_open=engine.admission.half_open if engine is not None else 0,
            table=kad.table_size() if kad is not None else 0,
            records=kad.records() if kad is not None else 0,
            addresses_known=len(self._book),
            topic_peers=self._gossip.peers() if self._gossip is not None else 0,
            counters=dict(sorted(self._counters.items())),
        )

    # --- streams -------------------------------------------------------------------------------------------

    def serve(self, protocol: str, handler: Callable[[Stream], Awaitable[None]]) -> None:
        """Call ``handler`` for every stream a peer opens on ``protocol``; see ``wire.ports.Streams``."""
        self._handlers[protocol] = handler
        if self._engine is not None:
            self._engine.serve(protocol, self._framed(handler))

    def _framed(self, handler: Callable[[Stream], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
        async def handle(raw: Any) -> None:
            remote = PeerId(raw.muxed_conn.peer_id.to_bytes())
            if self._unwanted(remote) is not None:
                await reset_quietly(raw)
                return
            stream = FramedStream(raw, remote, self._counters, self._on_blame)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.pump)
                await handler(stream)
                await stream.close()
                with trio.move_on_after(_DRAIN_S):
                    await stream.ended.wait()
                await stream.reset()
                nursery.cancel_scope.cancel()

        return handle

    async def open(self, peer: PeerId, protocol: str) -> Stream:
        """Open a stream, dialling when not connected. Raises ``PeerUnreachable``."""
        engine = await self._running()
        if peer in self._banned:
            raise unreachable(peer, "it is banned")
        if peer != self.me and not engine.dialler.connected(peer) and not engine.dialler.known(peer) and self._kad is not None:
            await self._kad.find_peer(peer)
        await engine.dialler.dial(peer)
        stream = FramedStream(await engine.open_raw(peer, protocol), peer, self._counters, self._on_blame)
        if self._nursery is None:
            await stream.reset()
            raise unreachable(peer, "the node is restarting")
        self._nursery.start_soon(stream.pump)
        return stream

    async def _running(self) -> Engine:
        while self._engine is None:
            await self._up.wait()
        return self._engine

    # --- connecting ----------------------------------------------------------------------------------------

    async def connect(self, address: str) -> PeerId:
        """Be connected to the peer at a full address. Raises ``BadAddress`` and ``PeerUnreachable``."""
        peer, transport = split_address(address)
        if peer in self._banned:
            raise unreachable(peer, "it is banned")
        self._book.remember(peer, [transport])
        engine = await self._running()
        await engine.dialler.dial(peer)
        return peer

    async def disconnect(self, peer: PeerId) -> None:
        """Close every connection with ``peer``."""
        if self._engine is not None:
            await self._engine.disconnect(peer)

    async def ban(self, peer: PeerId) -> None:
        """Disconnect ``peer`` and have nothing to do with it until ``pardon``. At the bound the oldest ban is lifted."""
        self._banned[peer] = None
        while len(self._banned) > KNOWN_PEERS_MAX:
            self._banned.popitem(last=False)
        await self.disconnect(peer)

    def pardon(self, peer: PeerId) -> None:
        """Lift a ban."""
        self._banned.pop(peer, None)

    async def connect_bootstrap(self) -> dict[str, str]:
        """Connect to all bootstrap addresses at once. Returns those that failed, each with a sentence; empty when all is well."""
        failed: dict[str, str] = {}

        async def one(address: str) -> None:
            try:
                await self.connect(address)
            except (BadAddress, PeerUnreachable) as error:
                failed[address] = error.sentence

        async with trio.open_nursery() as nursery:
            for address in self._bootstrap:
                nursery.start_soon(one, address)
        return {address: failed[address] for address in self._bootstrap if address in failed}

    # --- providers -----------------------------------------------------------------------------------------

    async def provide(self, key: bytes) -> None:
        """Announce under ``key``; waits its turn. Raises ``PeerUnreachable`` when nobody took it."""
        await self._running()
        if self._kad is not None:
            await self._kad.provide(key)

    async def find(self, key: bytes, most: int) -> Sequence[PeerId]:
        """Peers that announced themselves under ``key``; their addresses are remembered."""
        await self._running()
        return await self._kad.find(key, most) if self._kad is not None else ()

    # --- a topic -------------------------------------------------------------------------------------------

    def join_topic(self, topic: str, heard: Heard) -> None:
        """Take part in ``topic``, for as long as we live; see ``wire.ports.Topic``. To be called once."""
        from peer.net.gossip import Gossip  # only here: without a topic nothing of it is loaded

        self._gossip = Gossip(topic, heard, self._counters, self._on_blame, self._unwanted)
        if self._engine is not None and self._nursery is not None:
            self._nursery.start_soon(self._gossip.run, self._engine.host)

    def publish(self, data: bytes) -> bool:
        """Publish on the topic; see ``wire.ports.Topic``."""
        return self._gossip is not None and self._gossip.publish(data)

    # --- life ----------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[LocalFault | None]) -> None:
        """Keep a host running until ``stop``. When the very first cannot listen, hand back why and end.

        Shielded, so that a cancelled program closes its connections in order instead of dropping everything at once.
        """
        pause_s, first = _RESTART_FIRST_S, True
        with self._scope:
            while not self._stopping.is_set():
                began = trio.current_time()
                fault = await self._run_once(task_status if first else None)
                if fault is not None and first:
                    task_status.started(fault)
                    return
                first = False
                if trio.current_time() - began > _RESTART_MAX_S:
                    pause_s = _RESTART_FIRST_S
                with trio.move_on_after(pause_s):
                    await self._stopping.wait()
                    return
                pause_s = min(2 * pause_s, _RESTART_MAX_S)
                self._counters["host-restarted"] += 1

    def stop(self) -> None:
        """Close everything in order; after a few seconds, close it anyhow."""
        self._stopping.set()
        self._scope.deadline = trio.current_time() + _CLOSE_S

    async def _run_once(self, task_status: trio.TaskStatus[LocalFault | None] | None) -> LocalFault | None:
        """One host from start to end. Returns a fault when it could not listen; whatever else ended it is counted."""
        fault: LocalFault | None = None
        try:
            for one in self._listen:
                check_free(one)
        except LocalFault as error:
            return error
        engine = Engine(self._key, self._book, self._counters, self._guard, self._on_connection, self._on_identified)
        try:
            async with trio.open_nursery() as nursery:

                def started() -> None:
                    nonlocal fault
                    if len(engine.listening()) < len(self._listen):
                        fault = LocalFault("cannot-listen", f"the node cannot listen on {', '.join(self._listen)}")
                        nursery.cancel_scope.cancel()
                        return
                    self._begin(engine, nursery)
                    if task_status is not None:
                        task_status.started(None)

                await engine.run(self._listen, started, self._stopping)
                nursery.cancel_scope.cancel()
        except* Exception:
            self._counters["host-failed"] += 1
        finally:
            self._end()
        return fault

    def _begin(self, engine: Engine, nursery: trio.Nursery) -> None:
        self._listen = engine.listening()  # a port chosen by the system is kept over restarts
        self._kad = Kad(engine.host, self._network.name, self._counters, self.remember)
        for protocol, handler in self._handlers.items():
            engine.serve(protocol, self._framed(handler))
        nursery.start_soon(self._kad.run)
        if self._gossip is not None:
            nursery.start_soon(self._gossip.run, engine.host)
        nursery.start_soon(self._prune, engine)
        self._engine, self._nursery = engine, nursery
        self._up.set()

    async def _prune(self, engine: Engine) -> None:
        while True:
            await trio.sleep(_PRUNE_S)
            await engine.prune()

    def _end(self) -> None:
        self._engine = self._kad = self._nursery = None
        self._up = trio.Event()
        for peer in sorted(self._since):
            self._gone(peer)

    # --- what the host tells -------------------------------------------------------------------------------

    def _on_identified(self, peer: PeerId) -> None:
        if self._kad is not None:
            self._kad.identified(peer)

    def _on_connection(self, connection: Any) -> None:
        engine, nursery = self._engine, self._nursery
        if engine is None or nursery is None:
            return
        peer = PeerId(connection.muxed_conn.peer_id.to_bytes())
        if engine.dialler.connected(peer):
            unwanted = self._unwanted(peer)
            if unwanted is not None:
                self._counters[unwanted] += 1
                nursery.start_soon(engine.disconnect, peer)
                return
            if peer not in self._since:
                self._since[peer] = Instant(time.time_ns() // 1_000)
                for up, _ in self._watchers:
                    self._tell(up, peer)
        elif peer in self._since:
            self._gone(peer)

    def _unwanted(self, peer: PeerId) -> str | None:
        try:
            public_of(peer)
        except BadKey:
            return "peer-of-another-kind"
        return "peer-banned" if peer in self._banned else None

    def _gone(self, peer: PeerId) -> None:
        del self._since[peer]
        for _, down in self._watchers:
            self._tell(down, peer)

    def _on_blame(self, peer: bytes, error: Misbehaved) -> None:
        if error is self._last_blamed:
            return  # the stream told it already, and its handler has run into it
        self._last_blamed = error
        for blame in self._blame_watchers:
            self._tell(blame, PeerId(peer), error)

    def _tell(self, callback: Callable[..., None], *arguments: Any) -> None:
        try:
            callback(*arguments)
        except Exception:
            self._counters["watcher-failed"] += 1


@asynccontextmanager
async def open_host(
    *,
    key: SecretKey,
    network: Network,
    listen: Sequence[str] = ("127.0.0.1:0",),
    bootstrap: Sequence[str] = (),
    home: Path | None = None,
) -> AsyncIterator[Net]:
    """A running ``Net``. Raises ``LocalFault`` when an address cannot be listened on; closes within a few seconds.

    With a ``home``, peers of the last run are tried along with ``bootstrap``, and this run's are kept for the next.
    """
    kept = load_peers(home) if home is not None else ()
    own = show_peer(key.peer_id)
    known = [one for one in dict.fromkeys((*bootstrap, *kept)) if not one.endswith("/" + own)]
    net = Net(key, network, [listen_multiaddr(one) for one in listen], known)
    failed: Exception | None = None
    async with trio.open_nursery() as nursery:
        failed = await nursery.start(net.run)
        if failed is None:
            try:
                yield net
            except Exception as error:
                failed = error  # raised again below, or the nursery would wrap it in a group
            finally:
                if home is not None:
                    save_peers(home, net.reachable())
                net.stop()
    if failed is not None:
        raise failed
