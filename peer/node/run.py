"""Opens everything a node needs, runs it until it is stopped, and closes it in the right order.

One nursery holds everything. Whatever ends it by its own fault (a journal that cannot write, a port in use) ends the node with
one sentence; SIGTERM and SIGINT end it politely, see ``peer.node.stopping``.
"""

import logging
import secrets
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Final

import trio

from cafs.shell.store import Store
from orderbook.core.auction import load_arrays
from peer.api.server import bind_loopback, serve_api
from peer.config import Settings
from peer.core.brain import TABLES, Brain
from peer.home import Home
from peer.journal import open_journal
from peer.net.host import open_host
from peer.node.assembly import Assembly
from peer.node.driver import relax_collector, wall_clock
from peer.node.money import open_money
from peer.node.notify import Notifier
from peer.node.stopping import drain, tell_status
from peer.node.taping import open_recorder
from peer.node.tidying import tidy
from peer.offer import Offer
from peer.workers.http import worker_client
from wire.account import account_of
from wire.errors import LocalFault
from wire.keys import show_peer
from wire.limits import DRAIN_MAX_S

_LOG: Final = logging.getLogger("bitwrk.node")
STOP_S: Final = 10.0
RUN_BYTES: Final = 32


@dataclass(slots=True)
class _Stop:
    """How far stopping has got: ``asked`` by the first signal, ``now`` when nothing more has to be waited for."""

    asked: trio.Event = field(default_factory=trio.Event)
    now: trio.Event = field(default_factory=trio.Event)
    started: bool = False


def run_node(settings: Settings, offers: Sequence[Offer]) -> None:
    """Run until SIGTERM or SIGINT. Raises ``LocalFault`` or ``Refused`` with one sentence for the owner."""
    load_arrays()
    relax_collector()
    trio.run(_main, settings, tuple(offers))


async def _main(settings: Settings, offers: tuple[Offer, ...]) -> None:
    home = Home.at(settings.home)
    with home.lock():
        stop = _Stop()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_until_signal, stop, nursery.cancel_scope)
            await _run(settings, offers, home, stop)
            nursery.cancel_scope.cancel()


async def _until_signal(stop: _Stop, scope: trio.CancelScope) -> None:
    """The first signal ends the node politely; when that takes too long, or at the second signal, it ends at once."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        await anext(signals)
        _LOG.info("stopping")
        stop.asked.set()
        if stop.started:
            with trio.move_on_after(DRAIN_MAX_S + STOP_S):
                await anext(signals)
            _LOG.warning("ending at once")
        scope.cancel()


async def _run(settings: Settings, offers: tuple[Offer, ...], home: Home, stop: _Stop) -> None:
    key = home.key()
    notifier = Notifier()
    listener = bind_loopback(settings.api_port)
    async with AsyncExitStack() as stack:
        stack.callback(listener.close)
        journal = await stack.enter_async_context(open_journal(home.journal_path))
        store = await stack.enter_async_context(Store(home.folder / "content"))
        money = await stack.enter_async_context(open_money(settings, home, key, journal))
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
        recorder = await stack.enter_async_context(open_recorder(home.tape_path, settings.network.clock, wall_clock()))
        instance, run = money.instance if money else None, secrets.token_bytes(RUN_BYTES)
        if key.public in settings.arbiters:
            raise LocalFault("own-arbiter", "this node's own key stands among its arbiters; nobody rules in his own trades")
        if settings.court and instance is None:
            raise LocalFault("no-chain", "an arbiter needs a chain on which to see escrows; give --chain")
        brain = Brain(
            key=key,
            network=settings.network,
            instance=instance,
            run=run,
            rows=rows,
            tape=recorder.tape,
            arbiters=settings.arbiters,
            court=settings.court,
            automatic=settings.automatic,
        )
        await tidy(brain, store, money)
        client = await stack.enter_async_context(worker_client())
        nursery = await stack.enter_async_context(trio.open_nursery())
        node = Assembly(settings, key, brain, journal, store, net, money, client, recorder, nursery)
        for offer in offers:
            await node.offer(offer, stack)
        await node.start()
        port = listener.getsockname()[1]
        stack.callback(nursery.cancel_scope.cancel)
        with home.announce(port):
            nursery.start_soon(_join, node, notifier)
            nursery.start_soon(notifier.keep_alive, node.pulse)
            nursery.start_soon(_drained, node, notifier, stop)
            _LOG.info("account %s, peer %s", account_of(key.public), show_peer(key.peer_id))
            _LOG.info("listening at %s; local API at http://127.0.0.1:%d", ", ".join(net.addresses()), port)
            await serve_api(node.service, listener, home.token(), stop.now)


async def _join(node: Assembly, notifier: Notifier) -> None:
    await node.join()
    notifier.say("READY=1")
    await tell_status(node, notifier)


async def _drained(node: Assembly, notifier: Notifier, stop: _Stop) -> None:
    stop.started = True
    await stop.asked.wait()
    await drain(node, notifier)
    stop.now.set()


def _host_port(listen: tuple[str, int]) -> str:
    host, port = listen
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
