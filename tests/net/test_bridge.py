"""Orders between the relay and a stranger's GossipSub: real hosts, real streams, the market's own core in between."""

import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from orderbook.core.bridge import open_batch, topic_of
from orderbook.core.events import BridgeIn, BridgeOut, Check, Checked, Follow, Publish, SendFrame, Tick
from orderbook.core.frames import FRAMES, Batch
from orderbook.core.market import Market
from orderbook.core.messages import GOSSIP, Order, SealedOrder, Side, seal_order
from orderbook.shell.relay import RelayService
from peer.core.standing import Standing
from peer.net.host import Net
from tests.net.rig import hosts, key, still_serves, until
from tests.net.stranger import Stranger, stranger
from tests.orderbook.world import BOOK
from wire.effects import Blame, Count
from wire.keys import PeerId, verify
from wire.moments import Instant
from wire.network import REGTEST


def now() -> Instant:
    return Instant(time.time_ns() // 1_000)


def an_order(owner: int) -> bytes:
    """A fresh order, good for long enough on any machine."""
    epoch = REGTEST.clock.epoch(now())
    order = Order(
        network="regtest",
        book=BOOK,
        side=Side.BUY,
        price_msat=1_000,
        quantity=1,
        first_epoch=epoch + 1,
        last_epoch=epoch + 50,
        owner=key(owner).public,
        slot=0,
        sequence=1,
        salt=bytes(16),
    )
    return seal_order(key(owner), REGTEST, order)


class Trader:
    """A market that follows one book over a real host."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.market = Market(REGTEST, net.me)
        self.relay = RelayService(net, self.inbox)
        self.counts: Counter[str] = Counter()
        self.standing = Standing()
        self.banned: dict[PeerId, str] = {}
        self.tell(Follow(book=BOOK))
        net.on_blame(lambda peer, error: self.blame(peer, error.penalty, error.sentence))

    def build_bridge(self) -> None:
        self.net.join_topic(topic_of(REGTEST), self.bridged)
        self.market.bridge.open()

    def bridged(self, _: PeerId, author: PeerId, data: bytes) -> None:
        self.tell(BridgeIn(author=author, messages=open_batch(data)))

    async def inbox(self, event: Any) -> None:
        self.tell(event)

    def tell(self, event: Any) -> None:
        for effect in self.market.handle(event, now()):
            match effect:
                case SendFrame(peer=peer, frame=frame):
                    self.relay.send(peer, frame)
                case Check(items=items):
                    good = tuple(one.id for one in items if verify(one.public, one.digest, one.signature))
                    self.tell(Checked(good=good, bad=tuple(one.id for one in items if one.id not in good)))
                case BridgeOut(batch=batch):
                    self.net.publish(batch)
                case Blame(peer=peer, penalty=penalty, sentence=sentence):
                    self.blame(PeerId(peer), penalty, sentence)
                case Count(code=code):
                    self.counts[code] += 1
                case _:
                    pass

    def blame(self, peer: PeerId, penalty: int, sentence: str) -> None:
        if self.standing.blame(peer, penalty, sentence, now()):
            self.banned[peer] = sentence

    async def tick(self) -> None:
        while True:
            due = self.market.next_deadline()
            await trio.sleep(max(0.0, (due - now()) / 1_000_000) if due is not None else 0.05)
            self.tell(Tick())

    def messages(self) -> int:
        return self.market.statistics()["messages"]


@asynccontextmanager
async def street() -> AsyncIterator[tuple[Stranger, Trader, Trader]]:
    """A stranger, a node with a bridge, and one without that is the other's neighbour."""
    async with hosts(2) as nets, trio.open_nursery() as nursery:
        bridge, plain = traders = [Trader(net) for net in nets]
        for trader in traders:
            await nursery.start(trader.relay.run)
            nursery.start_soon(trader.tick)
        bridge.build_bridge()
        await plain.net.connect(bridge.net.addresses()[0])
        plain.relay.connect(bridge.net.me)
        async with stranger(key(90), topic_of(REGTEST)) as one:
            await one.dial(bridge.net.addresses()[0])
            await until(lambda: bridge.net.statistics().topic_peers == 1)
            await until(lambda: plain.market.ready(BOOK) and bridge.market.ready(BOOK) and bridge.relay.neighbours())
            yield one, bridge, plain
        nursery.cancel_scope.cancel()


def batch(*messages: bytes) -> bytes:
    return FRAMES.pack(Batch(messages=messages))


async def test_orders_cross_the_bridge_both_ways_and_only_once() -> None:
    async with street() as (one, bridge, plain):
        ours, theirs = an_order(1), an_order(2)
        plain.tell(Publish(message=ours))  # on the main road of a node that knows nothing of the topic
        await one.until_heard(1)
        assert open_batch(one.heard[0].data) == (ours,)
        assert one.heard[0].from_id == bridge.net.me
        await one.pubsub.publish(one.topic, batch(theirs))
        await until(lambda: plain.messages() == 2)
        assert bridge.messages() == 2
        last = an_order(3)
        bridge.tell(Publish(message=last))
        with trio.fail_after(10):
            while last not in one.orders():
                await one.news.wait()
        assert one.orders() == [ours, theirs, last]  # his own he hears from himself; nothing came back to him
        assert bridge.banned == plain.banned == {}


async def test_the_author_of_bad_contents_is_banned_with_a_reason_and_the_books_stay_as_they_were() -> None:
    async with street() as (one, bridge, plain):
        for owner in (4, 5):
            sealed = GOSSIP.unpack(an_order(owner))
            false = GOSSIP.pack(SealedOrder(body=sealed.body, signature=bytes(63) + b"\x01"))
            await one.pubsub.publish(one.topic, batch(false))
        await until(lambda: bridge.banned)
        assert bridge.banned == {one.me: "a message's signature is not its author's"}
        assert bridge.counts["wrong-signature"] == 2
        assert (bridge.messages(), plain.messages()) == (0, 0)
        await bridge.net.ban(one.me)
        await until(lambda: bridge.net.statistics().topic_peers == 0)
        plain.tell(Publish(message=an_order(6)))
        await until(lambda: bridge.messages() == 1)
        await still_serves(bridge.net)


async def test_what_is_not_a_batch_lowers_its_forwarder_s_standing() -> None:
    async with street() as (one, bridge, plain):
        for number in range(5):
            await one.pubsub.publish(one.topic, b"not a batch %d" % number)
        await until(lambda: bridge.standing.of(one.me) is not None)
        record = bridge.standing.of(one.me)
        assert record is not None
        assert record.points >= 10
        assert (bridge.messages(), plain.messages(), plain.standing.of(one.me)) == (0, 0, None)
