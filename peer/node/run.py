"""Composes a node from its rooms and runs it until it is stopped.

One nursery holds everything. Whatever ends it by its own fault (a journal that cannot write, a port in use) ends the node with
one sentence; SIGTERM and SIGINT end it politely.
"""

import logging
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import trio

from cafs.shell.service import ContentService
from cafs.shell.store import Store
from dht.core import events as dht
from dht.core.directory import Directory
from dht.shell.directory import DirectoryService
from escrow.shell.core_rpc import CoreChain
from escrow.shell.kernel import KernelChain
from escrow.shell.wallet import KeyWallet
from escrow.shell.watcher import Watcher
from orderbook.core.events import NeighbourDown, NeighbourUp
from orderbook.shell.relay import RelayService
from peer.api.server import bind_loopback, serve_api
from peer.api.service import Json
from peer.config import Offer, Settings
from peer.core.brain import TABLES, Brain
from peer.core.events import LetterArrived, PeerDown, PeerUp, SellAsked
from peer.home import Home
from peer.journal import open_journal
from peer.net.courier import Courier
from peer.net.host import Net, open_host
from peer.node.driver import Driver
from peer.node.funding import Funding
from peer.node.performer import Performer
from peer.node.service import Service
from peer.node.tasks import UnitTasks
from peer.workers.pool import open_pool
from peer.workers.spec import built_in
from wire.account import account_of
from wire.effects import Blame
from wire.errors import BitwrkError, LocalFault, Misbehaved, Refused
from wire.keys import PeerId, SecretKey, show_peer
from wire.ports import Chain, Journal

_LOG: Final = logging.getLogger("bitwrk.node")
BALANCE_EVERY_S: Final = 2.0
STOP_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Money:
    """The chain we settle on and our wallet there."""

    chain: Chain
    wallet: KeyWallet
    watcher: Watcher
    instance: bytes
    shared: bool


def run_node(settings: Settings, offers: Sequence[Offer]) -> None:
    """Run until SIGTERM or SIGINT. Raises ``LocalFault`` or ``Refused`` with one sentence for the owner."""
    trio.run(_main, settings, tuple(offers))


async def _main(settings: Settings, offers: tuple[Offer, ...]) -> None:
    home = Home.at(settings.home)
    with home.lock():
        stop = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_until_signal, stop, nursery.cancel_scope)
            await _run(settings, offers, home, stop)
            nursery.cancel_scope.cancel()


async def _until_signal(stop: trio.Event, scope: trio.CancelScope) -> None:
    """The first signal ends the node politely; when that takes too long, or at the second signal, it ends at once."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            _LOG.info("stopping")
            stop.set()
            with trio.move_on_after(STOP_S):
                await anext(signals)
            scope.cancel()
            return


async def _run(settings: Settings, offers: tuple[Offer, ...], home: Home, stop: trio.Event) -> None:
    key = home.key()
    listener = bind_loopback(settings.api_port)
    async with AsyncExitStack() as stack:
        stack.callback(listener.close)
        journal = await stack.enter_async_context(open_journal(home.journal_path))
        store = await stack.enter_async_context(Store(home.folder / "content"))
        money = await stack.enter_async_context(_open_money(settings, home, key, journal))
        net = await stack.enter_async_context(
            open_host(
                key=key,
                network=settings.network,
                listen=(_host_port(settings.listen),),
                bootstrap=settings.bootstrap,
                home=home.folder,
            )
        )
        rows = {table: await journal.load(table) for table in TABLES}
        brain = Brain(key=key, network=settings.network, instance=money.instance if money else None, rows=rows)
        if money:
            await money.wallet.release_unsent(brain.purse.unsent())
        nursery = await stack.enter_async_context(trio.open_nursery())
        node = _Node(settings, key, brain, journal, store, net, money, nursery)
        for offer in offers:
            await node.offer(offer, stack)
        await node.start()
        port = listener.getsockname()[1]
        stack.callback(nursery.cancel_scope.cancel)
        with home.announce(port):
            nursery.start_soon(node.join)
            _LOG.info("account %s, peer %s", account_of(key.public), show_peer(key.peer_id))
            _LOG.info("listening at %s; local API at http://127.0.0.1:%d", ", ".join(net.addresses()), port)
            await serve_api(node.service, listener, home.token(), stop)


def _host_port(listen: tuple[str, int]) -> str:
    host, port = listen
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@asynccontextmanager
async def _open_money(settings: Settings, home: Home, key: SecretKey, journal: Journal) -> AsyncIterator[Money | None]:
    """The chain that the settings name, or None."""
    choice = settings.chain
    if settings.network.real_money and not settings.allow_mainnet:
        raise LocalFault("mainnet", "real money needs allow_mainnet = true and a cap in the settings")
    if choice.kind == "none":
        yield None
        return
    async with AsyncExitStack() as stack:
        chain: KernelChain | CoreChain
        if choice.kind == "kernel":
            chain = await stack.enter_async_context(KernelChain.open(home.folder / "chain", settings.network))
        else:
            chain = await stack.enter_async_context(CoreChain.open(choice.url, settings.network))
        instance = await chain.instance()
        wallet = await KeyWallet.open(key, chain, journal, settings.network)
        yield Money(chain=chain, wallet=wallet, watcher=Watcher(chain), instance=instance, shared=choice.kind == "core")


class _Node:
    """The parts of one running node and the wires between them."""

    def __init__(
        self,
        settings: Settings,
        key: SecretKey,
        brain: Brain,
        journal: Journal,
        store: Store,
        net: Net,
        money: Money | None,
        nursery: trio.Nursery,
    ) -> None:
        self._settings = settings
        self._key = key
        self._brain = brain
        self._net = net
        self._money = money
        self._nursery = nursery
        self._balance_sat = 0
        self._articles: set[str] = set()
        self._driver = Driver(brain, journal, self._perform)
        tell = self._driver.tell
        self._courier = Courier(net, self._letter, on_up=self._peer_up, on_down=self._peer_down)
        self._relay = RelayService(net, self._relay_event, on_blame=self._blame)
        self._directory = DirectoryService(Directory(key.peer_id, settings.network.name), net, self._meet)
        content = ContentService(net, store)
        self.tasks = UnitTasks(nursery, store, content, tell)
        funding = Funding(nursery, money.chain, money.wallet, tell) if money else None
        self.performer = Performer(
            nursery=nursery,
            tell=self._driver.tell_nowait,
            net=net,
            courier=self._courier,
            relay=self._relay,
            follow=self._follow,
            content=content,
            store=store,
            tasks=self.tasks,
            funding=funding,
            watcher=money.watcher if money else None,
        )
        self.service = Service(
            brain=brain,
            driver=self._driver,
            performer=self.performer,
            store=store,
            tasks=self.tasks,
            facts=self._facts,
            peers=self._peers,
        )

    # --- wires --------------------------------------------------------------------------------------------------------
    def _perform(self, effect: Any) -> None:
        self.performer(effect)

    async def _letter(self, peer: PeerId, letter: bytes) -> None:
        await self._driver.tell(LetterArrived(peer=peer, letter=letter))

    def _peer_up(self, peer: PeerId) -> None:
        self._driver.tell_nowait(PeerUp(peer=peer))

    def _peer_down(self, peer: PeerId) -> None:
        self._driver.tell_nowait(PeerDown(peer=peer))

    def _blame(self, peer: PeerId, error: Misbehaved) -> None:
        blame = Blame(peer=peer, code=error.code, sentence=error.sentence, penalty=error.penalty)
        self._driver.tell_nowait(blame)

    def _follow(self, article: str) -> None:
        self._articles.add(article)
        self._directory.tell(dht.Announce(article=article))
        self._directory.tell(dht.Seek(article=article))

    def _meet(self, peer: PeerId, article: str) -> None:
        del article
        self._relay.connect(peer)

    async def _relay_event(self, event: Any) -> None:
        """The relay's events are the market's; the directory hears of neighbours too."""
        match event:
            case NeighbourUp(peer=peer):
                for article in sorted(self._articles):
                    self._directory.tell(dht.Joined(peer=peer, article=article))
            case NeighbourDown(peer=peer):
                for article in sorted(self._articles):
                    self._directory.tell(dht.Left(peer=peer, article=article))
            case _:
                pass
        await self._driver.tell(event)

    # --- start and stop -----------------------------------------------------------------------------------------------
    async def offer(self, offer: Offer, stack: AsyncExitStack) -> None:
        """Start the workers of an offer and put it on the market."""
        spec = built_in(offer.worker, offer.article)
        if offer.ask_msat and self._money is None:
            raise Refused("no-chain", "selling for money needs a chain; use --chain, or --ask 'sat 0' for the free book")
        name = f"{spec.name}:{spec.article}"
        self.tasks.pools[name] = await stack.enter_async_context(open_pool(spec, offer.slots))
        await self._driver.tell(SellAsked(article=spec.article, worker=name, ask_msat=offer.ask_msat, slots=offer.slots))

    async def start(self) -> None:
        """Start every shell, then the pump."""
        await self._nursery.start(self._courier.run)
        await self._nursery.start(self._relay.run)
        await self._nursery.start(self._directory.run)
        self._net.on_peer(
            lambda peer: self._directory.tell(dht.PeerUp(peer=peer)), lambda peer: self._directory.tell(dht.PeerDown(peer=peer))
        )
        self._net.on_blame(self._blame)
        if self._money:
            self._nursery.start_soon(self._money.watcher.run, self._driver.tell)
            self._nursery.start_soon(self._watch_balance, self._money)
        self._nursery.start_soon(self._driver.run)

    async def join(self) -> None:
        """Connect to the peers we were told of. Raises ``LocalFault`` when not one of them answers."""
        if not self._settings.bootstrap:
            return
        failed = await self._net.connect_bootstrap()
        if self._net.peers():
            return
        sentence = "; ".join(f"{address}: {why}" for address, why in sorted(failed.items()))
        raise LocalFault("no-bootstrap", f"no peer to begin with answers ({sentence}); check --bootstrap, or leave it out")

    async def _watch_balance(self, money: Money) -> None:
        while True:
            try:
                self._balance_sat = await money.wallet.balance_sat()
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
            "addresses": list(self._net.addresses()),
            "peers": len(self._net.peers()),
            "neighbours": [show_peer(peer) for peer in self._relay.neighbours()],
        }
        if self._money:
            facts["address"] = self._money.wallet.address
            facts["balance_sat"] = self._balance_sat
            facts["chain_instance"] = self._money.instance.hex()
            if not self._money.shared:
                facts["notice"] = "this node has a private development chain: paid trades need a chain shared with others"
        return facts

    def _peers(self) -> list[Json]:
        lines = []
        for view in self._net.peers():
            record = self._brain.standing.of(view.peer)
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
