"""``python -m tests.bench.node``: a node of the product as far as orders go, driven by JSON lines.

It runs the node's own host (libp2p: TCP, noise, yamux), relay, pump, brain with its market, and signature checks, composed as
``peer.node.assembly`` does. Not there are the local API, content, the directory (neighbours are given, so that both systems have
the same edges), and the journal has nothing to keep.
"""

import time
from collections.abc import Sequence
from typing import Any

import trio

from orderbook.core.auction import load_arrays
from orderbook.core.events import Admitted, Check, Publish, SendFrame
from orderbook.core.market import Market
from orderbook.shell.relay import RelayService
from peer.core.brain import Brain
from peer.core.events import Watched
from peer.net.host import Net, open_host
from peer.node.checking import Checking
from peer.node.driver import Driver, relax_collector
from peer.node.propagation import Propagation
from tests.bench import signed
from tests.bench.child import ask, measured, say
from wire.effects import Save
from wire.moments import Instant

CAME: dict[bytes, float] = {}


class WatchedMarket(Market):
    """A market that notes when orders of others have been admitted, by a clock that all processes of a machine share.

    An order has one signature, whose name is its bytes.
    """

    def _checked(self, good: tuple[bytes, ...], bad: tuple[bytes, ...], now: Instant) -> None:
        before = self.statistics()["messages"]
        Market._checked(self, good, bad, now)
        assert self.statistics()["messages"] == before + len(good), "an order with a good signature was not admitted"
        CAME.update(dict.fromkeys(good, time.monotonic()))


class NoJournal:
    """Gossip keeps nothing; anything that should be kept here is a mistake."""

    async def commit(self, rows: Sequence[Save]) -> None:
        raise AssertionError(f"{len(rows)} rows were to be kept")

    async def load(self, table: str) -> dict[bytes, bytes]:
        return {}


class BenchNode:
    """The parts and the wires between them."""

    def __init__(self, net: Net, number: int, nursery: trio.Nursery, *, watched: bool) -> None:
        self.net = net
        self.brain = Brain(key=signed.key(number), network=signed.NETWORK, instance=None, run=number.to_bytes(4))
        if watched:
            self.brain.market = WatchedMarket(signed.NETWORK, net.me)
        self.admitted = 0
        self._awaited: tuple[int, trio.Event] | None = None
        self.driver = Driver(self.brain, NoJournal(), self._perform, lambda rows: None)
        self.relay = RelayService(net, self.driver.tell)
        self.propagation = Propagation()
        self._check = Checking(nursery, self.driver.tell, self.driver.tell_nowait)

    def _perform(self, effect: Any) -> None:
        match effect:
            case SendFrame(peer=peer, frame=frame):
                self.relay.send(peer, frame)
            case Check():
                self._check(effect)
            case Admitted():
                self.propagation(effect)
                self.admitted += len(effect.slack_us)
                if self._awaited is not None and self.admitted >= self._awaited[0]:
                    self._awaited[1].set()
            case _:
                pass

    async def until(self, count: int) -> None:
        """Wait until so many orders of others have been admitted."""
        if self.admitted < count:
            self._awaited = (count, trio.Event())
            await self._awaited[1].wait()

    async def publish(self, mine: list[bytes]) -> None:
        for raw in mine:
            order = Publish(message=raw)
            if not self.driver.tell_nowait(order):
                await self.driver.tell(order)

    async def meet(self, addresses: list[str], neighbours: int) -> None:
        """Dial some, and wait until everybody expected is a neighbour."""
        for address in addresses:
            self.relay.connect(await self.net.connect(address))
        while self.brain.market.statistics()["neighbours"] < neighbours:  # noqa: ASYNC110 - nobody tells
            await trio.sleep(0.02)


async def main() -> None:
    """Answer what is asked until the pipe closes."""
    told = await ask()
    load_arrays()
    relax_collector()
    mine: list[bytes] = []
    async with open_host(key=signed.key(told["number"]), network=signed.NETWORK) as net, trio.open_nursery() as nursery:
        node = BenchNode(net, told["number"], nursery, watched=told["watched"])
        await nursery.start(node.relay.run)
        nursery.start_soon(node.driver.run)
        await node.driver.ask(Watched(article=signed.ARTICLE))
        say(address=net.addresses()[0])
        while True:
            asked = await ask()
            match asked["do"]:
                case "meet":
                    await node.meet(asked["addresses"], asked["neighbours"])
                    say(neighbours=node.brain.market.statistics()["neighbours"])
                case "load":
                    mine = signed.load(asked["orders"], asked["first"], asked["count"])
                    say(loaded=len(mine))
                case "run":
                    await measured(asked, mine, node.publish, CAME)
                case "bare":
                    some = mine[asked["first"] : asked["first"] + asked["count"]]
                    began = time.process_time()
                    signed.bare(some)
                    say(cpu_s=time.process_time() - began)
                case "cpu":
                    say(cpu_s=time.process_time())
                case "until":
                    await node.until(asked["count"])
                    say(cpu_s=time.process_time())


if __name__ == "__main__":
    trio.run(main)
