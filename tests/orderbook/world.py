"""Several nodes' markets and desks on one seeded heap of events: latency, loss, duplication and restarts, no clock."""

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from orderbook.core.desk import Desk
from orderbook.core.events import (
    Admitted,
    Agreed,
    Check,
    Checked,
    Cleared,
    ClockJudged,
    Compare,
    CompareBooks,
    Follow,
    FrameIn,
    Letter,
    LetterIn,
    Meet,
    Missed,
    NeighbourDown,
    NeighbourUp,
    NoShow,
    Publish,
    PublishOrder,
    SendFrame,
    Shares,
    Tick,
    Want,
)
from orderbook.core.market import Market
from orderbook.core.messages import Side, book_id
from wire.effects import Blame, Count, Save
from wire.keys import PeerId, SecretKey, verify
from wire.moments import MILLISECOND, Instant
from wire.network import REGTEST, Network

EPOCH = 880_000_000
BOOK = book_id(REGTEST.name, bytes(32), "net.bitwrk/rays/1", bytes(32))


def key(number: int) -> SecretKey:
    return SecretKey(number.to_bytes(32, "big"))


def at(epoch: int = EPOCH, ms: int = 0) -> Instant:
    """``ms`` into ``epoch`` on the fast clock."""
    return Instant(REGTEST.clock.start(epoch) + ms * MILLISECOND)


@dataclass
class Node:
    """One node: its cores, what it did, and its journal."""

    name: int
    key: SecretKey
    market: Market
    desk: Desk
    skew_us: int = 0
    rows: dict[bytes, bytes] = field(default_factory=dict)
    cleared: list[Cleared] = field(default_factory=list)
    agreed: list[Agreed] = field(default_factory=list)
    missed: list[Missed] = field(default_factory=list)
    judged: list[ClockJudged] = field(default_factory=list)
    shares: dict[PeerId, tuple[bytes, ...]] = field(default_factory=dict)
    admitted: list[Admitted] = field(default_factory=list)
    blames: list[Blame] = field(default_factory=list)
    no_shows: list[NoShow] = field(default_factory=list)
    runs: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    neighbours: set[PeerId] = field(default_factory=set)
    on_agreed: Callable[[Agreed], None] | None = None


class World:
    """The heap. ``lose`` decides per transfer; ``delay_us`` is drawn per transfer."""

    def __init__(self, nodes: int, *, seed: int = 0, network: Network = REGTEST, start: Instant | None = None) -> None:
        self.random = random.Random(seed)
        self.network = network
        self.now = start if start is not None else at()
        self.nodes: dict[PeerId, Node] = {}
        self.list: list[Node] = []
        self.heap: list[tuple[Instant, int, Callable[[], None]]] = []
        self.serial = 0
        self.lose_letter: Callable[[PeerId, PeerId, bytes], bool] = lambda *_: False
        self.lose_frame: Callable[[PeerId, PeerId, bytes], bool] = lambda *_: False
        self.repeat = 0.0
        self.ordered = True
        self.last: dict[tuple[str, int, PeerId], Instant] = {}
        self.delay_us: Callable[[], int] = lambda: self.random.randrange(1_000, 20_000)
        self.meetable = True
        for number in range(nodes):
            self.add(number)

    def add(self, number: int) -> Node:
        secret = key(number + 1)
        node = Node(
            name=number,
            key=secret,
            market=Market(self.network, secret.peer_id),
            desk=Desk(secret, self.network),
        )
        self.nodes[secret.peer_id] = node
        self.list.append(node)
        return node

    # --- running --------------------------------------------------------------------------------------------

    def later(self, when: Instant, what: Callable[[], None]) -> None:
        self.serial += 1
        heapq.heappush(self.heap, (when, self.serial, what))

    def run(self, until: Instant) -> None:
        """Everything that is due up to ``until``."""
        while True:
            due = [(moment, node) for node in self.list for moment in self.deadlines(node)]
            tick = min((moment for moment, _ in due), default=None)
            head = self.heap[0][0] if self.heap else None
            if (head is None or head > until) and (tick is None or tick > until):
                break
            if head is not None and (tick is None or head <= tick):
                moment, _, what = heapq.heappop(self.heap)
                self.now = max(self.now, moment)
                what()
            else:
                assert tick is not None
                self.now = max(self.now, tick)
                for moment, node in due:
                    if moment <= self.now:
                        self.market(node, Tick())
                        self.desk(node, Tick())
        self.now = until

    def deadlines(self, node: Node) -> list[Instant]:
        moments = (node.market.next_deadline(), node.desk.next_deadline())
        return [Instant(one - node.skew_us) for one in moments if one is not None]

    def local(self, node: Node) -> Instant:
        return Instant(self.now + node.skew_us)

    # --- doing ----------------------------------------------------------------------------------------------

    def market(self, node: Node, event: Any) -> None:
        for effect in node.market.handle(event, self.local(node)):
            self.perform(node, effect)

    def desk(self, node: Node, event: Any) -> None:
        effects = node.desk.handle(event, self.local(node))
        for effect in effects:
            if isinstance(effect, Save):
                assert effect.table == "desk"
                if effect.value is None:
                    node.rows.pop(effect.key, None)
                else:
                    node.rows[effect.key] = effect.value
        for effect in effects:
            self.perform(node, effect)

    def perform(self, node: Node, effect: Any) -> None:
        match effect:
            case SendFrame(peer=peer, frame=frame):
                self.frame(node, peer, frame)
            case Check(items=items):
                good = tuple(one.id for one in items if verify(one.public, one.digest, one.signature))
                bad = tuple(one.id for one in items if one.id not in good)
                self.later(Instant(self.now + 500), lambda: self.market(node, Checked(good=good, bad=bad)))
            case Meet(peer=peer):
                if self.meetable and peer in self.nodes:
                    other = self.nodes[peer]
                    self.later(Instant(self.now + 20_000), lambda: self.connect(node, other))
            case Cleared():
                node.cleared.append(effect)
                self.desk(node, effect)
            case Shares(peer=peer, books=books):
                node.shares[peer] = books
            case ClockJudged():
                node.judged.append(effect)
            case Admitted():
                node.admitted.append(effect)
            case PublishOrder(message=message):
                self.market(node, Publish(message=message))
            case Letter(peer=peer, payload=payload):
                self.letter(node, peer, payload)
            case CompareBooks(book=book, epoch=epoch, peer=peer):
                self.market(node, Compare(book=book, epoch=epoch, peer=peer))
            case Agreed():
                node.agreed.append(effect)
                if node.on_agreed is not None:
                    node.on_agreed(effect)
            case Missed():
                node.missed.append(effect)
            case NoShow():
                node.no_shows.append(effect)
            case Blame():
                node.blames.append(effect)
            case Count(code=code, amount=amount):
                node.counts[code] += amount
            case Save():
                pass
            case _:
                raise AssertionError(effect)

    def frame(self, node: Node, peer: PeerId, frame: bytes) -> None:
        if self.lose_frame(node.key.peer_id, peer, frame):
            return
        for _ in range(2 if self.random.random() < self.repeat else 1):
            event = FrameIn(peer=node.key.peer_id, frame=frame)
            self.later(self.arrival(("frame", node.name, peer)), partial(self.deliver_frame, peer, event))

    def deliver_frame(self, peer: PeerId, event: FrameIn) -> None:
        node = self.nodes.get(peer)
        if node is not None and event.peer in node.neighbours:
            self.market(node, event)

    def letter(self, node: Node, peer: PeerId, payload: bytes) -> None:
        if self.lose_letter(node.key.peer_id, peer, payload):
            return
        for _ in range(2 if self.random.random() < self.repeat else 1):
            event = LetterIn(peer=node.key.peer_id, payload=payload)
            self.later(self.arrival(("letter", node.name, peer)), partial(self.deliver_letter, peer, event))

    def arrival(self, link: tuple[str, int, PeerId]) -> Instant:
        """When what leaves now arrives: streams keep their order, unless ``ordered`` is off."""
        when = Instant(self.now + self.delay_us())
        if self.ordered:
            when = self.last[link] = max(when, self.last.get(link, when))
        return when

    def deliver_letter(self, peer: PeerId, event: LetterIn) -> None:
        if peer in self.nodes:
            self.desk(self.nodes[peer], event)

    def connect(self, one: Node, other: Node) -> None:
        if other.key.peer_id in one.neighbours:
            return
        for here, there in ((one, other), (other, one)):
            here.neighbours.add(there.key.peer_id)
        for here, there in ((one, other), (other, one)):
            self.market(here, NeighbourUp(peer=there.key.peer_id))

    def disconnect(self, one: Node, other: Node) -> None:
        for here, there in ((one, other), (other, one)):
            here.neighbours.discard(there.key.peer_id)
            self.market(here, NeighbourDown(peer=there.key.peer_id))

    def mesh(self, book: bytes = BOOK) -> None:
        """Everybody follows ``book`` and is everybody's neighbour."""
        for node in self.list:
            self.market(node, Follow(book=book))
        for index, one in enumerate(self.list):
            for other in self.list[index + 1 :]:
                self.connect(one, other)

    def want(self, node: Node, side: Side, price_msat: int, quantity: int, **more: Any) -> None:
        self.desk(node, Want(book=BOOK, side=side, price_msat=price_msat, quantity=quantity, **more))

    def restart(self, node: Node) -> None:
        """The process is killed and started again with its journal."""
        for peer in sorted(node.neighbours):
            self.disconnect(node, self.nodes[peer])
        node.market = Market(self.network, node.key.peer_id)
        node.runs += 1
        node.desk = Desk(node.key, self.network, node.rows, bytes([node.runs]))
        for effect in node.desk.resume(self.local(node)):
            self.perform(node, effect)
