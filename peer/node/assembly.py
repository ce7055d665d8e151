"""The parts of one running node and the wires between them."""

import itertools
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any, Final

import httpx
import trio

from cafs.shell.service import ContentService
from cafs.shell.store import Store
from dht.core import events as dht
from dht.core.directory import Directory
from dht.shell.directory import DirectoryService
from orderbook.core.bridge import open_batch, topic_of
from orderbook.core.events import BridgeIn, Shares
from orderbook.shell.relay import RelayService
from peer.api.service import Json
from peer.config import Settings
from peer.core.brain import Brain
from peer.core.events import LetterArrived, PeerDown, PeerUp, SellAsked, Tick
from peer.journal import Journal
from peer.net.courier import Courier
from peer.net.host import Net
from peer.node.driver import Driver, wall_clock
from peer.node.feed import Feed
from peer.node.funding import Funding
from peer.node.metrics import Figures, Metrics
from peer.node.money import Money
from peer.node.offers import spec_of
from peer.node.performer import Performer
from peer.node.quotes import Quotes
from peer.node.registry import Registry, Worker
from peer.node.service import Service
from peer.node.taping import Recorder
from peer.node.tasks import UnitTasks
from peer.node.views import Views, peer_facts
from peer.node.wallet import WalletDesk
from peer.offer import Offer
from peer.workers.pool import open_pool
from wire.account import account_of
from wire.effects import Blame
from wire.errors import BitwrkError, Ignore, LocalFault, Misbehaved, Refused
from wire.keys import PeerId, SecretKey, show_peer
from wire.moments import SECOND

_LOG: Final = logging.getLogger("bitwrk.node")
BALANCE_EVERY_S: Final = 2.0
# Told as other figures, if at all.
_SIZES: Final = frozenset({"lines", "lines-up", "letters-waiting", "neighbours", "dialling", "books", "slots"})
_NUMBERS_PER_SECOND: Final = 1 << 20  # so that no run of the node names anything as an earlier one did


class Assembly:
    """One node. Made, given its offers, started, and then driven by the tasks of ``nursery``."""

    def __init__(
        self,
        settings: Settings,
        key: SecretKey,
        brain: Brain,
        journal: Journal,
        store: Store,
        net: Net,
        money: Money | None,
        client: httpx.AsyncClient,
        recorder: Recorder,
        nursery: trio.Nursery,
    ) -> None:
        self._settings = settings
        self._key = key
        self.brain = brain
        self._journal = journal
        self.net = net
        self._money = money
        self._recorder = recorder
        self._nursery = nursery
        self._balance_sat = 0
        self._mesh: dict[PeerId, frozenset[str]] = {}
        self._first: list[SellAsked] = []
        self._numbers = itertools.count(wall_clock() // SECOND * _NUMBERS_PER_SECOND)
        self.workers: dict[str, Worker] = {}
        self.feed = Feed(next(self._numbers))
        self.views = Views(brain, self.workers, self.feed)
        self.driver = Driver(brain, journal, self._perform, self.views.kept)
        self.courier = Courier(net, self._letter, on_up=self._peer_up, on_down=self._peer_down)
        self._relay = RelayService(net, self.driver.tell, on_blame=self._blame)
        self._directory = DirectoryService(Directory(key.peer_id, settings.network.name), net, self._meet, self._part)
        content = ContentService(net, store)
        self._tasks = UnitTasks(nursery, store, content, self.workers, self.driver.tell)
        self.performer = Performer(
            nursery=nursery,
            tell=self.driver.tell,
            tell_nowait=self.driver.tell_nowait,
            net=net,
            courier=self.courier,
            relay=self._relay,
            follow=self._follow,
            shares=self._shares,
            content=content,
            store=store,
            tasks=self._tasks,
            funding=self._make_funding(money) if money else None,
            watcher=money.watcher if money else None,
            feed=self.feed,
        )
        self.service = self._make_service(store, client)

    def _make_funding(self, money: Money) -> Funding:
        room = self._settings.network.memo_max_bytes if self._settings.memo else 0
        return Funding(
            self._nursery,
            money.chain,
            money.wallet,
            self.driver.tell,
            room,
            cap_sat=self._settings.mainnet_cap_sat if self._settings.network.real_money else None,
            exposure_sat=self.brain.purse.exposure_sat,
            notice=self.feed.publish,
        )

    def _chain_fault(self, code: str, sentence: str) -> None:
        """The chain began to be away, contradictory or still, or is itself again."""
        if code:
            _LOG.warning("%s", sentence)
        else:
            _LOG.info("the chain answers again")
        self.feed.publish("chain", what="away" if code else "back", code=code, reason=sentence)

    def _make_wallet(self) -> WalletDesk:
        return WalletDesk(
            key=self._key,
            network=self._settings.network,
            cap_sat=self._settings.mainnet_cap_sat,
            money=self._money,
            purse=self.brain.purse,
            ask=self.driver.ask,
            here=lambda: [view.peer for view in self.net.peers()],
        )

    def _make_service(self, store: Store, client: httpx.AsyncClient) -> Service:
        registry = Registry(
            workers=self.workers,
            nursery=self._nursery,
            client=client,
            numbers=self._numbers,
            tell=self.driver.ask,
            tell_nowait=self.driver.tell_nowait,
            feed=self.feed,
        )
        metrics = Metrics(self.brain, self.views, self._gauges, self._totals, self._noticed, self.performer.propagation)
        return Service(
            brain=self.brain,
            driver=self.driver,
            performer=self.performer,
            store=store,
            workers=self.workers,
            registry=registry,
            views=self.views,
            quotes=Quotes(self.brain, self._recorder.tape, self.driver.now),
            feed=self.feed,
            numbers=self._numbers,
            status=self.status,
            account=self._account,
            peers=self._peers,
            metrics=metrics.text,
            wallet=self._make_wallet(),
        )

    # --- wires --------------------------------------------------------------------------------------------------------
    def _perform(self, effect: Any) -> None:
        self.performer(effect)

    async def _letter(self, peer: PeerId, letter: bytes) -> None:
        await self.driver.tell(LetterArrived(peer=peer, letter=letter))

    def _peer_up(self, peer: PeerId) -> None:
        self.driver.tell_nowait(PeerUp(peer=peer))

    def _peer_down(self, peer: PeerId) -> None:
        self.driver.tell_nowait(PeerDown(peer=peer))

    def _blame(self, peer: PeerId, error: Misbehaved) -> None:
        blame = Blame(peer=peer, code=error.code, sentence=error.sentence, penalty=error.penalty)
        self.driver.tell_nowait(blame)

    def _bridged(self, _: PeerId, author: PeerId, data: bytes) -> None:
        """Somebody has published orders on the topic that other stacks share."""
        messages = open_batch(data)
        if not self.driver.tell_nowait(BridgeIn(author=author, messages=messages)):
            raise Ignore("inbox-full", "this node has too much to do to hear the topic")

    def _follow(self, article: str) -> None:
        self._directory.tell(dht.Announce(article=article))
        self._directory.tell(dht.Seek(article=article))

    def _meet(self, peer: PeerId, article: str) -> None:
        del article
        self._relay.connect(peer)

    def _part(self, peer: PeerId) -> None:
        self._relay.drop(peer)

    def _shares(self, effect: Shares) -> None:
        """The directory hears for which articles a neighbour has joined us or left."""
        shelves = self.brain.shop.shelves
        articles = frozenset(shelves[book].article for book in effect.books if book in shelves)
        before = self._mesh.pop(effect.peer, frozenset())
        if articles:
            self._mesh[effect.peer] = articles
        for article in sorted(articles - before):
            self._directory.tell(dht.Joined(peer=effect.peer, article=article))
        for article in sorted(before - articles):
            self._directory.tell(dht.Left(peer=effect.peer, article=article))

    def _connection(self, happened: str, event: Callable[..., Any]) -> Callable[[PeerId], None]:
        def told(peer: PeerId) -> None:
            self._directory.tell(event(peer=peer))
            self.feed.publish("peer", what=happened, **peer_facts(peer))

        return told

    # --- start --------------------------------------------------------------------------------------------------------
    async def offer(self, offer: Offer, stack: AsyncExitStack) -> None:
        """Start the workers of an offer, to be put on the market when the node starts."""
        spec = await spec_of(offer)
        if offer.ask_msat and self._money is None:
            raise Refused("no-chain", "selling for money needs a chain; use --chain, or --ask 'sat 0' for the free book")
        name = f"{spec.name}:{spec.article}"
        if name in self.workers:
            raise Refused("bad-offer", f"two offers are for the worker {spec.name} and the article {spec.article}; join them")
        self.workers[name] = await stack.enter_async_context(open_pool(spec, offer.slots))
        if offer.ask_msat is None:
            _LOG.info("%s is sold under mandates only; grant one with: bitwrk mandates grant sell %s PRICE", name, spec.article)
        self._first.append(
            SellAsked(order=next(self._numbers), article=spec.article, worker=name, ask_msat=offer.ask_msat, slots=offer.slots)
        )

    async def start(self) -> None:
        """Start every shell, then the pump."""
        await self._nursery.start(self.courier.run)
        await self._nursery.start(self._relay.run)
        await self._nursery.start(self._directory.run)
        self.net.on_peer(self._connection("up", dht.PeerUp), self._connection("down", dht.PeerDown))
        self.net.on_blame(self._blame)
        if self._settings.gossipsub:
            self.net.join_topic(topic_of(self._settings.network), self._bridged)
            self.brain.market.bridge.open()
        if self._money:
            self._money.watcher.on_fault = self._chain_fault
            self._nursery.start_soon(self._money.watcher.run, self.driver.tell)
            self._nursery.start_soon(self._watch_balance, self._money)
        self._nursery.start_soon(self._recorder.run)
        self._nursery.start_soon(self.driver.run, self._first)

    async def join(self) -> None:
        """Connect to the peers we were told of. Raises ``LocalFault`` when not one of them answers."""
        if not self._settings.bootstrap:
            return
        failed = await self.net.connect_bootstrap()
        if self.net.peers():
            return
        sentence = "; ".join(f"{address}: {why}" for address, why in sorted(failed.items()))
        raise LocalFault("no-bootstrap", f"no peer to begin with answers ({sentence}); check --bootstrap, or leave it out")

    async def pulse(self) -> None:
        """Come back when the pump has turned and the journal has taken what it had to."""
        await self.driver.ask(Tick())

    async def _watch_balance(self, money: Money) -> None:
        while True:
            try:
                self._balance_sat = await money.wallet.balance_sat()
                await money.wallet.tend()
            except BitwrkError as error:
                _LOG.warning("the balance could not be read: %s", error.sentence)
            await trio.sleep(BALANCE_EVERY_S)

    # --- for people ---------------------------------------------------------------------------------------------------
    def _facts(self) -> Json:
        network = self._settings.network
        facts: Json = {
            "account": account_of(self._key.public),
            "peer_id": show_peer(self._key.peer_id),
            "network": network.name,
            "money": "real" if network.real_money else "play",
            "chain": self._settings.chain.kind,
            "addresses": list(self.net.addresses()),
            "peers": len(self.net.peers()),
            "neighbours": [show_peer(peer) for peer in self._relay.neighbours()],
        }
        if self._money:
            facts["address"] = self._money.wallet.address
            facts["balance_sat"] = self._balance_sat
            facts["chain_instance"] = self._money.instance.hex()
            if not self._money.shared:
                facts["notice"] = "this node has a private development chain: paid trades need a chain shared with others"
        return facts

    def status(self) -> Json:
        """The node at a glance."""
        clock = self.performer.clock
        return {
            **self._facts(),
            "requests_waiting": len(self.brain.buying.requests.all()),
            "tasks": self._tasks.running,
            "inbox": self.driver.waiting,
            "events_handled": self.driver.handled,
            "events_dropped": self.driver.dropped,
            "clock_skewed": bool(clock and clock.skewed),
            "clock_offset_us": clock.offset_us if clock else None,
            "draining": self.brain.selling.draining,
            "history_fault": self._recorder.fault or None,
            "exposure_sat": self.brain.purse.exposure_sat(),
            "chain_fault": (self._money.watcher.statistics().fault or None) if self._money else None,
            "counters": dict(sorted(self.performer.counters.items())),
        }

    def _account(self) -> Json:
        facts = self._facts()
        return {key: facts[key] for key in ("account", "peer_id", "network", "money", "address", "balance_sat") if key in facts}

    def _peers(self) -> list[Json]:
        lines = []
        for view in self.net.peers():
            record = self.brain.standing.of(view.peer)
            lines.append(
                {
                    "peer": show_peer(view.peer),
                    "account": view.account,
                    "addresses": list(view.addresses),
                    "direction": view.direction,
                    "connected_since_us": view.connected_since,
                    "penalty": record.points if record else 0,
                    "remark": record.sentence if record else "",
                    "neighbour": view.peer in self._relay.neighbours(),
                }
            )
        return lines

    # --- figures ------------------------------------------------------------------------------------------------------
    def _gauges(self) -> Figures:
        clock = self.performer.clock
        return {
            "balance_sat": self._balance_sat,
            "peers": len(self.net.peers()),
            "neighbours": len(self._relay.neighbours()),
            "inbox_events": self.driver.waiting,
            "requests_waiting": len(self.brain.buying.requests.all()),
            "tasks": self._tasks.running,
            "listeners": self.feed.listeners,
            "draining": self.brain.selling.draining,
            "clock_skewed": bool(clock and clock.skewed),
        }

    def _totals(self) -> Figures:
        journal = self._journal.statistics()
        return {
            "events_handled": self.driver.handled,
            "events_dropped": self.driver.dropped,
            "journal_commits": journal.commits,
            "journal_rows": journal.rows,
            "journal_groups": journal.groups,
        }

    def _noticed(self) -> Figures:
        """What was dropped or noticed: by the brain under its own codes, by the roads to others under theirs."""
        found: dict[str, float] = dict(self.performer.counters)
        for road, counted in (
            ("net", self.net.statistics().counters),
            ("courier", self.courier.statistics()),
            ("relay", self._relay.statistics()),
            ("tape", self._recorder.tape.statistics()),
        ):
            found |= {f"{road}-{code}": count for code, count in counted.items() if code not in _SIZES}
        return found
