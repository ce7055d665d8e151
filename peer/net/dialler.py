"""Reaching a peer: all its addresses, staggered, in bounded time, and one sentence when none answers.

It replaces libp2p's own dialling, which tries one address per transport, waits as long as the kernel does, and after one
failure refuses to try again for a minute, as if nobody ever restarted.
"""

import errno
import os
from collections import Counter
from typing import Any, Final

import trio
from libp2p.network.exceptions import SwarmException
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from peer.net.addresses import AddressBook
from wire.keys import PeerId, show_peer
from wire.limits import ADDRESSES_PER_PEER_MAX, DIAL_TIMEOUT_S, KNOWN_PEERS_MAX, PEERS_MAX
from wire.ports import PeerUnreachable

_STAGGER_S: Final = 0.25
_LIBRARY_PAUSE_S: Final = 10.0


def unreachable(peer: bytes, why: str) -> PeerUnreachable:
    """The error for a peer that could not be reached."""
    return PeerUnreachable("peer-unreachable", f"peer {show_peer(peer)} cannot be reached: {why}")


def reason(error: BaseException | None) -> str:
    """What went wrong, from the depth of a chain of causes, in a few words."""
    while error is not None:
        text = f"{type(error).__name__} {error}"
        if "mismatch" in text.lower():
            return "another peer answers at that address"
        if isinstance(error, OSError) and error.errno is not None:
            return "nothing listens there" if error.errno == errno.ECONNREFUSED else os.strerror(error.errno).lower()
        error = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__
    return "it does not complete the handshake"


class Dialler:
    """Dials for one host; connections in flight are shared by everybody who wants the same peer."""

    def __init__(self, swarm: Any, book: AddressBook, counters: Counter[str]) -> None:
        self._swarm = swarm
        self._book = book
        self._counters = counters
        self._in_flight: dict[PeerId, trio.Event] = {}
        self._pause_until: dict[PeerId, float] = {}
        swarm.dial_peer = self._dial_for_library

    def connected(self, peer: PeerId) -> bool:
        """Whether a live connection to ``peer`` exists."""
        return any(not connection.is_closed for connection in self._swarm.get_connections(ID(peer)))

    async def dial(self, peer: PeerId) -> None:
        """Be connected to ``peer``. Raises ``PeerUnreachable``."""
        while not self.connected(peer):
            waiting = self._in_flight.get(peer)
            if waiting is not None:
                await waiting.wait()
                if not self.connected(peer) and peer in self._pause_until:
                    raise unreachable(peer, "the attempt just made failed")
                continue
            done = self._in_flight[peer] = trio.Event()
            try:
                await self._dial(peer)
            finally:
                done.set()
                del self._in_flight[peer]

    async def _dial(self, peer: PeerId) -> None:
        if peer == PeerId(self._swarm.get_peer_id().to_bytes()):
            raise unreachable(peer, "this is the node itself")
        if len(self._swarm.get_connections()) >= PEERS_MAX:
            raise unreachable(peer, "the node has as many connections as it may")
        addresses = self.known(peer)
        if not addresses:
            raise unreachable(peer, "no address of it is known")
        failures = await self._race(ID(peer), addresses)
        if self.connected(peer):
            self._pause_until.pop(peer, None)
            self._counters["dial-succeeded"] += 1
            return
        self._counters["dial-failed"] += 1
        if len(self._pause_until) >= KNOWN_PEERS_MAX:
            self._pause_until.clear()
        self._pause_until[peer] = trio.current_time() + _LIBRARY_PAUSE_S
        raise unreachable(peer, "; ".join(dict.fromkeys(failures)) or f"no answer within {DIAL_TIMEOUT_S} seconds")

    def known(self, peer: PeerId) -> tuple[str, ...]:
        """Addresses worth dialling: our own book first, then what the peer said about itself."""
        try:
            said = [str(address) for address in self._swarm.peerstore.addrs(ID(peer))]
        except Exception:
            said = []
        self._book.remember(peer, said[:ADDRESSES_PER_PEER_MAX])
        return self._book.of(peer)

    async def _race(self, identity: Any, addresses: tuple[str, ...]) -> list[str]:
        failures: list[str] = []

        async def attempt(address: str, lost: trio.Event) -> None:
            try:
                await self._swarm._dial_addr_single_attempt(Multiaddr(address), identity)
            except Exception as error:
                failures.append(f"{address}: {reason(error)}")
                lost.set()
            else:
                self._book.prove(PeerId(identity.to_bytes()), address)
                nursery.cancel_scope.cancel()

        with trio.move_on_after(DIAL_TIMEOUT_S):
            async with trio.open_nursery() as nursery:
                for address in addresses:
                    failed = trio.Event()
                    nursery.start_soon(attempt, address, failed)
                    with trio.move_on_after(_STAGGER_S):
                        await failed.wait()
        return failures

    async def _dial_for_library(self, identity: Any) -> list[Any]:
        """libp2p's own dials, mostly the DHT's: the same, but a peer that just failed is left alone for a while."""
        peer = PeerId(identity.to_bytes())
        if not self.connected(peer):
            if self._pause_until.get(peer, 0.0) > trio.current_time():
                raise SwarmException("this peer did not answer a moment ago")
            try:
                await self.dial(peer)
            except PeerUnreachable as error:
                raise SwarmException(error.sentence) from None
        return [connection for connection in self._swarm.get_connections(identity) if not connection.is_closed]
