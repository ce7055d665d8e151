"""One end of ``reconcile.restart_10k_s``: a process with a libp2p host, the relay, the pump and a market, and nothing else.

``python -m tests.bench.bookside hold <count>`` keeps a book of ``count`` orders and prints its address and root as JSON.
``python -m tests.bench.bookside fill <address> <root>`` begins with an empty book, and prints the seconds until it has that root.
"""

import json
import sys
import time
from collections import Counter
from typing import Any, Final

import trio

from orderbook.core.book import Book
from orderbook.core.craft import Craft
from orderbook.core.events import Check, Follow, Publish, SendFrame, Tick
from orderbook.core.market import Market
from orderbook.shell.relay import RelayService
from peer.core.events import Tick as NodeTick
from peer.net.addresses import split_address
from peer.net.host import open_host
from peer.node.checking import Checking
from peer.node.driver import Driver, wall_clock
from tests.bench.orders import BOOK, key, orders
from wire.effects import Count
from wire.moments import Instant
from wire.network import REGTEST

FAR_EPOCHS: Final = 10
KEYS: Final = {"hold": key(9_001), "fill": key(9_002)}


class MarketAlone:
    """A market as the pump's brain."""

    def __init__(self, market: Market) -> None:
        self._market = market
        self.resume, self.next_deadline = market.resume, market.next_deadline

    def handle(self, event: Any, now: Instant) -> tuple[Any, ...]:
        """One event; the pump's tick is the market's."""
        return self._market.handle(Tick() if isinstance(event, NodeTick) else event, now)


class Side:
    """The process. ``run`` ends when ``complete`` says so of the book."""

    def __init__(self, role: str) -> None:
        self.secret = KEYS[role]
        self.counters: Counter[str] = Counter()
        self.book = Book(REGTEST.clock)
        self.market = Market(REGTEST, self.secret.peer_id, Craft(book=lambda _: self.book))
        self.market.handle(Follow(book=BOOK), wall_clock())
        self.root: bytes | None = None
        self.wanted = -1
        self.reached = trio.Event()

    def far(self) -> int:
        """An epoch by which everything in the book counts."""
        return REGTEST.clock.epoch(wall_clock()) + FAR_EPOCHS

    async def run(self, address: str | None) -> None:
        """Listen, or dial ``address``; serve until cancelled or complete."""
        async with open_host(key=self.secret, network=REGTEST) as net, trio.open_nursery() as nursery:
            alone: Any = MarketAlone(self.market)
            journal: Any = None  # a market saves nothing
            driver = Driver(alone, journal, self._perform, lambda _: None)
            relay = RelayService(net, driver.tell)
            self.relay, self.check = relay, Checking(nursery, driver.tell, driver.tell_nowait)
            await nursery.start(relay.run)
            nursery.start_soon(driver.run)
            if address is None:
                facts = {"address": net.addresses()[0], "root": self.book.root(self.far()).hex()}
                print(json.dumps(facts), flush=True)
                await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
            else:
                began, busy = time.monotonic(), time.process_time()
                await net.connect(address)
                relay.connect(split_address(address)[0])
                await self.reached.wait()
                took: dict[str, Any] = {"seconds": time.monotonic() - began, "cpu_seconds": time.process_time() - busy}
                print(json.dumps({**took, "counters": self.counters}), flush=True)
            nursery.cancel_scope.cancel()

    def _perform(self, effect: Any) -> None:
        match effect:
            case SendFrame(peer=peer, frame=frame):
                self.relay.send(peer, frame)
            case Check():
                self.check(effect)
            case Count(code=code, amount=amount):
                self.counters[code] += amount
            case _:
                pass
        if self.root is not None and len(self.book) == self.wanted and self.book.root(self.far()) == self.root:
            self.reached.set()


def main(arguments: list[str]) -> None:
    """See the module."""
    side = Side(arguments[0])
    if arguments[0] == "hold":
        now = wall_clock()
        for raw in orders(int(arguments[1]), REGTEST.clock.epoch(now) + 1):
            side.market.handle(Publish(message=raw), now)
        trio.run(side.run, None)
    else:
        side.root, side.wanted = bytes.fromhex(arguments[2]), int(arguments[3])
        trio.run(side.run, arguments[1])


if __name__ == "__main__":
    main(sys.argv[1:])
