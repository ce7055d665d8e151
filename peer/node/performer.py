"""One table from effect to action. Every action returns at once; what takes time is a task that answers with an event."""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

from cafs.shell.service import ContentService
from cafs.shell.store import Store
from escrow.core.events import FundingWanted, PhaseChanged, Submit, Unwatch, Watch
from escrow.shell.watcher import Watcher
from orderbook.core.events import Admitted, BridgeOut, Check, ClockJudged, Meet, SendFrame, Shares
from orderbook.shell.relay import RelayService
from peer.core import events as node
from peer.net.courier import Courier
from peer.net.host import Net
from peer.node.checking import Checking
from peer.node.feed import Feed
from peer.node.funding import Funding
from peer.node.propagation import Propagation
from peer.node.tasks import UnitTasks
from peer.node.views import peer_facts
from wire.effects import Count
from wire.errors import BitwrkError
from wire.keys import PeerId

_LOG: Final = logging.getLogger("bitwrk.node")


class Performer:
    """Performs effects with the shells it is given. ``replies`` holds who waits for which request."""

    def __init__(
        self,
        *,
        nursery: trio.Nursery,
        tell: Callable[[Any], Awaitable[None]],
        tell_nowait: Callable[[Any], bool],
        net: Net,
        courier: Courier,
        relay: RelayService,
        follow: Callable[[str], None],
        shares: Callable[[Shares], None],
        content: ContentService,
        store: Store,
        tasks: UnitTasks,
        funding: Funding | None,
        watcher: Watcher | None,
        feed: Feed,
    ) -> None:
        self._nursery = nursery
        self._net = net
        self._store = store
        self.counters: Counter[str] = Counter()
        self.propagation = Propagation()
        self._feed = feed
        self.clock: ClockJudged | None = None
        self.replies: dict[int, Callable[[node.Reply], None]] = {}
        self.banished: dict[PeerId, str] = {}
        self._table: dict[type, Callable[[Any], None]] = {
            node.Post: lambda effect: courier.post(effect.peer, effect.letter),
            node.Seek: lambda effect: follow(effect.article),
            node.Grant: lambda effect: content.grant(effect.content, effect.ticket),
            node.Revoke: lambda effect: content.revoke(effect.ticket),
            node.Fetch: tasks.start,
            node.Compute: tasks.start,
            node.Encrypt: tasks.start,
            node.Decrypt: tasks.start,
            node.Recall: tasks.start,
            node.Stop: lambda effect: tasks.stop(effect.unit),
            node.Unpin: lambda effect: nursery.start_soon(self._unpin, effect.owner),
            node.Reply: self._reply,
            node.Banish: self._banish,
            SendFrame: lambda effect: relay.send(effect.peer, effect.frame),
            Meet: lambda effect: relay.connect(effect.peer),
            Shares: shares,
            Check: Checking(nursery, tell, tell_nowait),
            Admitted: self.propagation,
            ClockJudged: self._clock,
            BridgeOut: self._publish,
            PhaseChanged: self._phase_changed,
            Count: self._count,
            node.Notice: lambda effect: feed.publish(effect.kind, **effect.facts),
        }
        if funding is not None and watcher is not None:
            self._table[FundingWanted] = funding.want
            self._table[Submit] = funding.submit
            self._table[Watch] = lambda effect: watcher.watch(effect.outpoint)
            self._table[Unwatch] = lambda effect: watcher.unwatch(effect.outpoint)

    def __call__(self, effect: Any) -> None:
        """Perform one effect."""
        action = self._table.get(type(effect))
        if action is None:
            self.counters[f"no-action-{type(effect).__name__}"] += 1
        else:
            action(effect)

    def _count(self, effect: Count) -> None:
        self.counters[effect.code] += effect.amount

    def _reply(self, effect: node.Reply) -> None:
        answer = self.replies.pop(effect.request, None)
        if answer is not None:
            answer(effect)

    async def _unpin(self, owner: str) -> None:
        try:
            await self._store.unpin(owner)
        except BitwrkError as error:
            _LOG.warning("content could not be unpinned: %s", error.sentence)

    def _banish(self, effect: node.Banish) -> None:
        _LOG.warning("peer banned: %s", effect.sentence)
        self.banished[PeerId(effect.peer)] = effect.sentence
        self._feed.publish("banned", **peer_facts(PeerId(effect.peer)), reason=effect.sentence)
        self._nursery.start_soon(self._net.ban, PeerId(effect.peer))

    def _publish(self, effect: BridgeOut) -> None:
        self._net.publish(effect.batch)  # when it is dropped, the network counts it

    def _clock(self, effect: ClockJudged) -> None:
        self.clock = effect
        self._feed.publish("clock", skewed=effect.skewed, offset_us=effect.offset_us, reason=effect.sentence)
        if effect.skewed:
            _LOG.warning("%s", effect.sentence)

    def _phase_changed(self, effect: PhaseChanged) -> None:
        self._feed.publish("channel", channel=effect.channel.hex(), phase=effect.phase.value, reason=effect.sentence)
        _LOG.info("channel %s is %s: %s", effect.channel.hex()[:12], effect.phase.value, effect.sentence)
