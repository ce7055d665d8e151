"""What goes out to neighbours unasked: new messages in batches, and which books we follow.

Both leave at once after a quiet window, and else when the window ends: a single message is fast, and many are one frame.
"""

from collections.abc import Container, Mapping
from typing import Final

from orderbook.core.events import MarketEffect, SendFrame, Shares
from orderbook.core.frames import FRAMES, Hello
from orderbook.core.messages import Heard
from orderbook.core.neighbour import Fresh, Neighbour, Packed, parcel
from wire.effects import Count
from wire.keys import PeerId
from wire.limits import BATCH_WINDOW_MAX_MS
from wire.moments import MILLISECOND, Instant, after

_WINDOW_US: Final = BATCH_WINDOW_MAX_MS * MILLISECOND


class Pusher:
    """Batches of messages for the neighbours that want them. What is ``known`` need not be asked for any more."""

    def __init__(self, neighbours: Mapping[PeerId, Neighbour], known: Container[bytes] = ()) -> None:
        self._neighbours, self._known = neighbours, known
        self._fresh: list[Fresh] = []
        self._waiting: set[PeerId] = set()
        self._at = Instant(0)

    @property
    def next_due(self) -> Instant | None:
        """When the next batch leaves."""
        return self._at if self._waiting else None

    def push(self, heard: Heard, born: Instant | None, *, own: bool = False) -> None:
        """Tell of a message that appeared at ``born``, if known. Nobody can have our ``own`` from others, so they are not named
        but sent.
        """
        self._fresh.append((heard.id, heard.book, parcel(heard.raw, born, whole=own)))

    def spread(self) -> list[MarketEffect]:
        """Queue what has been pushed for everybody who follows its book and has not shown it."""
        if not self._fresh:
            return []
        fresh, self._fresh = self._fresh, []
        overrun = 0
        for neighbour in self._neighbours.values():
            overrun += neighbour.queue(fresh)
            self.stir(neighbour)
        return [Count(code="outbox-full", amount=overrun)] if overrun else []

    def stir(self, neighbour: Neighbour) -> None:
        """Something may wait for him now, or leave sooner than it was to."""
        at = neighbour.flush_at()
        if at is not None:
            self._at = min(self._at, at) if self._waiting else at
            self._waiting.add(neighbour.peer)

    def waits(self, now: Instant) -> bool:
        """Whether a batch leaves now."""
        return bool(self._waiting) and now >= self._at

    def flush(self, now: Instant) -> list[MarketEffect]:
        """The batches that leave now."""
        if not self.waits(now):
            return []
        effects: list[MarketEffect] = []
        moments: list[Instant] = []
        packed: Packed = {}
        for peer in sorted(self._waiting):
            neighbour = self._neighbours.get(peer)
            if neighbour is not None:
                effects += [SendFrame(peer=peer, frame=frame) for frame in neighbour.flush(now, packed, self._known)]
            at = None if neighbour is None else neighbour.flush_at()
            if at is None:
                self._waiting.discard(peer)
            else:
                moments.append(at)
        self._at = min(moments, default=self._at)
        return effects


class Greeter:
    """``HELLO`` to each neighbour when he comes, and to all when our books have changed."""

    def __init__(self, network: str, books: Mapping[bytes, object], neighbours: Mapping[PeerId, Neighbour]) -> None:
        self._network, self._books, self._neighbours = network, books, neighbours
        self._last: Instant | None = None
        self.next_due: Instant | None = None

    def hello(self, peer: PeerId, now: Instant) -> SendFrame:
        """The frame for one neighbour."""
        hello = Hello(network=self._network, moment_us=now, books=tuple(sorted(self._books)))
        return SendFrame(peer=peer, frame=FRAMES.pack(hello))

    def changed(self, now: Instant) -> None:
        """We have begun or ceased to follow a book."""
        if self.next_due is None:
            self.next_due = now if self._last is None else max(now, after(self._last, _WINDOW_US))

    def share(self, neighbour: Neighbour) -> Shares:
        """Who follows what decides who belongs to which article's mesh."""
        neighbour.shared = tuple(sorted(neighbour.books & self._books.keys()))
        return Shares(peer=neighbour.peer, books=neighbour.shared)

    def greet(self, now: Instant) -> list[MarketEffect]:
        """What all neighbours are told now, and what is told of them."""
        if self.next_due is None or now < self.next_due:
            return []
        self.next_due, self._last = None, now
        effects: list[MarketEffect] = []
        for peer, neighbour in sorted(self._neighbours.items()):
            effects.append(self.hello(peer, now))
            if neighbour.books & self._books.keys() != set(neighbour.shared):
                effects.append(self.share(neighbour))
        return effects
