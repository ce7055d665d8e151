"""What a node spends on books in which nothing happens: bytes sent to and heard from its neighbours, by kind of frame."""

import heapq
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from orderbook.core.events import Check, Checked, Follow, FrameIn, NeighbourUp, Publish, SendFrame, Tick
from orderbook.core.frames import FRAMES
from orderbook.core.market import Market
from tests.bench.orders import key, orders
from wire.keys import PeerId, verify
from wire.moments import SECOND, Instant
from wire.network import REGTEST

DELAY_US: Final = 5_000
START: Final = Instant(880_000_000 * 2 * SECOND)


@dataclass
class Town:
    """Markets in virtual time, the first with all others as neighbours; ``heard`` counts bytes at the first, both ways."""

    books: int
    neighbours: int
    messages: int
    now: Instant = START
    heard: Counter[str] = field(default_factory=Counter)
    busy_s: float = 0.0

    def __post_init__(self) -> None:
        names = [key(number).peer_id for number in range(self.neighbours + 1)]
        self.markets = {name: Market(REGTEST, name) for name in names}
        self.me = names[0]
        self.heap: list[tuple[Instant, int, PeerId, Any]] = []
        self.serial = 0
        books = [number.to_bytes(32, "big") for number in range(self.books)]
        epoch = REGTEST.clock.epoch(self.now)
        raws = [raw for book in books for raw in orders(self.messages, epoch, book=book, epochs=1, owners=self.messages)]
        for name in names:
            for book in books:
                self.do(name, Follow(book=book))
            for raw in raws:
                self.do(name, Publish(message=raw))
        for name in names[1:]:
            self.do(self.me, NeighbourUp(peer=name))
            self.do(name, NeighbourUp(peer=self.me))

    def do(self, name: PeerId, event: Any) -> None:
        """One event at one market."""
        began = time.process_time()
        effects = self.markets[name].handle(event, self.now)
        self.busy_s += time.process_time() - began if name == self.me else 0.0
        for effect in effects:
            if isinstance(effect, SendFrame):
                if self.me in (name, effect.peer):
                    self.heard[type(FRAMES.unpack(effect.frame)).__name__] += len(effect.frame) + 4
                self.later(effect.peer, FrameIn(peer=name, frame=effect.frame))
            elif isinstance(effect, Check):
                good = tuple(one.id for one in effect.items if verify(one.public, one.digest, one.signature))
                self.later(name, Checked(good=good))

    def later(self, name: PeerId, event: Any) -> None:
        """An event at ``name`` after the delay of the network."""
        self.serial += 1
        heapq.heappush(self.heap, (Instant(self.now + DELAY_US), self.serial, name, event))

    def run(self, until: Instant) -> None:
        """Everything that is due up to ``until``."""
        while True:
            due = [(moment, name) for name, one in self.markets.items() if (moment := one.next_deadline()) is not None]
            tick = min(due)
            if self.heap and self.heap[0][0] <= min(tick[0], until):
                moment, _, name, event = heapq.heappop(self.heap)
                self.now = max(self.now, moment)
                self.do(name, event)
            elif tick[0] <= until:
                self.now = max(self.now, tick[0])
                self.do(tick[1], Tick())
            else:
                break
        self.now = until


def idle(books: int, neighbours: int, messages: int, seconds: int) -> tuple[Counter[str], float]:
    """Bytes at one node by kind of frame, and its busy seconds, in ``seconds`` after everything has settled."""
    town = Town(books, neighbours, messages)
    town.run(Instant(town.now + 30 * SECOND))
    town.heard.clear()
    town.busy_s = 0.0
    town.run(Instant(town.now + seconds * SECOND))
    return town.heard, town.busy_s


if __name__ == "__main__":
    found, busy_s = idle(1_000, 8, 8, 20)
    per_book = sum(found.values()) / 1_000 / 20
    print(json.dumps({"bytes_per_book_and_s": per_book, "busy_share": busy_s / 20, "by_frame": found}, indent=1))
