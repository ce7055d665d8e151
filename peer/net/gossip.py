"""One topic of GossipSub, as long as the node lives: it survives the host under it, and its own library.

Only a node that joins a topic loads the guards, changes anything in the library's pubsub, or serves its protocol.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import trio
from libp2p.tools.anyio_service import background_trio_service

from peer.net.pubsub import SafePubsub
from wire.errors import Misbehaved
from wire.keys import PeerId
from wire.limits import GOSSIP_OUTBOX
from wire.ports import Heard

_PAUSE_S: Final = 1.0


class Gossip:
    """See the module. ``run`` runs once for every host; ``publish`` never waits."""

    def __init__(
        self,
        topic: str,
        heard: Heard,
        counters: Counter[str],
        blame: Callable[[PeerId, Misbehaved], None],
        unwanted: Callable[[PeerId], str | None],
    ) -> None:
        self.topic = topic
        self._parts = (topic, heard, counters, blame, unwanted)
        self._counters = counters
        self._send, self._receive = trio.open_memory_channel[bytes](GOSSIP_OUTBOX)
        self._pubsub: SafePubsub | None = None

    def publish(self, data: bytes) -> bool:
        """Publish ``data`` as soon as it goes. False when too much waits already; that is counted."""
        try:
            self._send.send_nowait(data)
        except trio.WouldBlock:
            self._counters["gossip/outbox-full"] += 1
            return False
        return True

    def peers(self) -> int:
        """How many connected peers listen on the topic."""
        return len(self._pubsub.peer_topics.get(self.topic, ())) if self._pubsub is not None else 0

    async def run(self, host: Any) -> None:
        """Keep the topic on one host. Never returns; what ends the library's service is counted, and it begins anew."""
        network = host.get_network()
        orphans: set[Any] = set()
        while True:
            before = list(network.notifees)
            pubsub = SafePubsub(host, *self._parts)
            try:
                async with background_trio_service(pubsub), background_trio_service(pubsub.router):
                    await self._serve(host, pubsub, orphans)
            except* Exception:
                self._counters["gossip/restarted"] += 1
                orphans = pubsub.speakers
            finally:
                self._pubsub = None
                for watcher in [one for one in network.notifees if one not in before]:
                    network.remove_notifee(watcher)
                pubsub.seen_messages.stop()
            await trio.sleep(_PAUSE_S)

    async def _part(self, network: Any, peers: set[Any]) -> None:
        """Disconnect those who talked to what has ended: only on a new connection do they tell their topics again."""
        for connection in [one for peer in peers for one in network.get_connections(peer)]:
            try:
                await connection.close()
            except Exception:
                self._counters["close-failed"] += 1

    async def _serve(self, host: Any, pubsub: SafePubsub, orphans: set[Any]) -> None:
        await pubsub.wait_until_ready()
        await pubsub.subscribe(self.topic)
        self._pubsub = pubsub
        await self._part(host.get_network(), orphans)
        for peer in list(host.get_connected_peers()):
            pubsub._schedule_peer_stream_retry(peer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._publish_all, pubsub)
            await pubsub.manager.wait_finished()
            nursery.cancel_scope.cancel()

    async def _publish_all(self, pubsub: SafePubsub) -> None:
        async for data in self._receive:
            await pubsub.publish(self.topic, data)
