"""Who may come in: bounds on connections that have not shown their key yet, and on those that have.

It replaces libp2p's own inbound handler, which gives a connection's place back only when the whole host stops: after as
many inbound connections as its limit, ever, it refuses everyone. Here the place is given back with the connection.
When one address holds too many half-open connections its oldest is closed, not the newest refused, so a flood of silent
sockets does not lock out an honest peer that comes from the same address and shakes hands at once.
"""

from collections import Counter, OrderedDict
from typing import Any

import trio
from libp2p.network.connection.raw_connection import RawConnection

from wire.limits import HALF_OPEN_MAX, HALF_OPEN_PER_ADDRESS_MAX, HANDSHAKE_TIMEOUT_S, PEERS_MAX


class Admission:
    """The inbound handler of one host."""

    def __init__(self, swarm: Any, counters: Counter[str]) -> None:
        self._swarm = swarm
        self._counters = counters
        self._half_open: OrderedDict[trio.CancelScope, str] = OrderedDict()
        swarm._handle_inbound_connection = self.handle

    @property
    def half_open(self) -> int:
        """Inbound connections that have not finished their handshake."""
        return len(self._half_open)

    async def handle(self, raw: Any, listening_on: Any) -> None:
        """Bring one inbound connection up and stay until it ends. Never raises."""
        connection: Any = None
        try:
            connection = await self._upgrade(raw, listening_on)
            if connection is not None:
                await connection.event_closed.wait()
        except Exception:
            self._counters["handshake-failed"] += 1
        finally:
            with trio.move_on_after(1, shield=True):
                await raw.close()

    async def _upgrade(self, raw: Any, listening_on: Any) -> Any:
        # A quarter of the places is for peers that we choose, or strangers could keep us from reaching anybody.
        if len(self._swarm.get_connections()) >= PEERS_MAX - PEERS_MAX // 4:
            self._counters["peers-over-bound"] += 1
            return None
        remote = raw.get_remote_address()
        self._make_room(host := remote[0] if remote else "")
        with trio.move_on_after(HANDSHAKE_TIMEOUT_S) as scope:
            self._half_open[scope] = host
            try:
                return await self._swarm.upgrade_inbound_raw_conn(RawConnection(raw, False), listening_on)
            finally:
                self._half_open.pop(scope, None)
        self._counters["handshake-abandoned"] += 1
        return None

    def _make_room(self, host: str) -> None:
        of_host = [scope for scope, address in self._half_open.items() if address == host]
        if len(of_host) >= HALF_OPEN_PER_ADDRESS_MAX:
            self._close(of_host[0], "half-open-per-address")
        elif len(self._half_open) >= HALF_OPEN_MAX:
            self._close(next(iter(self._half_open)), "half-open")

    def _close(self, scope: trio.CancelScope, reason: str) -> None:
        self._counters[reason] += 1
        self._half_open.pop(scope, None)
        scope.cancel()
