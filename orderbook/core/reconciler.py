"""When books are compared with which neighbour, and the frames of it; what one session does is in ``session``.

A comparison begins when neighbours meet, when one of the times in ``next_reconcile`` comes, and sooner when roots or the
neighbour's own comparison show a difference. Each side pulls for itself.
"""

from collections.abc import Mapping
from typing import Final

from orderbook.core.book import Book
from orderbook.core.craft import Craft
from orderbook.core.events import MarketEffect, Meet, SendFrame
from orderbook.core.frames import FRAMES, Answer, Ask
from orderbook.core.neighbour import Neighbour
from orderbook.core.session import Session, Stage
from wire.effects import Count
from wire.errors import Ignore, Misbehaved
from wire.keys import PeerId
from wire.limits import RECONCILE_INTERVAL_MS
from wire.moments import MILLISECOND, Instant, after

_HASTE_US: Final = 500 * MILLISECOND
_NEVER: Final = Instant((1 << 63) - 1)


class Reconciler:
    """The comparisons of one node; it sees the market's books and neighbours."""

    def __init__(self, books: Mapping[bytes, Book], neighbours: Mapping[PeerId, Neighbour], craft: Craft) -> None:
        self._books, self._neighbours, self._craft = books, neighbours, craft
        self._comparing: dict[tuple[PeerId, bytes], int] = {}
        self._number = 0
        self._next = Instant(0)

    @property
    def next_due(self) -> Instant | None:
        """Nothing is due before this moment; None while nothing is planned at all."""
        return None if self._next == _NEVER else self._next

    def sooner(self, at: Instant) -> None:
        """Somebody's next comparison was moved to ``at``."""
        self._next = min(self._next, at)

    def hasten(self, neighbour: Neighbour, book: bytes, now: Instant) -> None:
        """Compare soon, but not so soon after the last time that two books which cannot become equal keep us busy."""
        if book in neighbour.next_reconcile:
            last = neighbour.next_reconcile[book] - RECONCILE_INTERVAL_MS * MILLISECOND
            at = Instant(min(neighbour.next_reconcile[book], max(now, last + _HASTE_US)))
            neighbour.next_reconcile[book] = at
            self.sooner(at)

    def due(self, now: Instant) -> list[MarketEffect]:
        """Drop sessions that hang, begin those that are due."""
        if now < self._next:
            return []
        effects: list[MarketEffect] = []
        for _, neighbour in sorted(self._neighbours.items()):
            for book in sorted(neighbour.sessions):
                if neighbour.sessions[book].deadline <= now:
                    del neighbour.sessions[book]
                    effects.append(Count(code="reconcile-timeout"))
            for book, at in sorted(neighbour.next_reconcile.items()):
                if at <= now and book not in neighbour.sessions:
                    effects.append(self._begin(neighbour, book, now))
        self._next = min((neighbour.reconcile_due() for neighbour in self._neighbours.values()), default=_NEVER)
        return effects

    def _begin(self, neighbour: Neighbour, book: bytes, now: Instant) -> SendFrame:
        self._number = (self._number + 1) % (1 << 32)
        session = Session(book, self._number, self._craft.initiator(self._books[book].vector()), now)
        neighbour.sessions[book] = session
        neighbour.next_reconcile[book] = after(now, RECONCILE_INTERVAL_MS * MILLISECOND)
        epoch = self._comparing.pop((neighbour.peer, book), None)
        if epoch is not None:
            session.epochs.add(epoch)
        return SendFrame(peer=neighbour.peer, frame=session.open())

    def compare(self, peer: PeerId, book: bytes, epoch: int, now: Instant) -> list[MarketEffect]:
        """Compare ``book`` with ``peer`` as soon as can be, and have ``epoch`` cleared again after it."""
        if book not in self._books:
            return []
        neighbour = self._neighbours.get(peer)
        if neighbour is not None and book in neighbour.sessions:
            neighbour.sessions[book].epochs.add(epoch)
            return []
        for key in sorted(key for key, other in self._comparing.items() if other < epoch):
            del self._comparing[key]
        self._comparing[peer, book] = epoch
        if neighbour is None:
            return [Meet(peer=peer)]
        if book in neighbour.next_reconcile:
            neighbour.next_reconcile[book] = now
            self.sooner(now)
        return []

    # --- frames ---------------------------------------------------------------------------------------------

    def asked(self, neighbour: Neighbour, ask: Ask, now: Instant) -> list[MarketEffect]:
        """Answer the neighbour's comparison; what it shows that we lack, we shall ask for ourselves."""
        message = self._craft.respond(self._books[ask.book].vector(), ask.message)
        if len(message) > 1:
            self.hasten(neighbour, ask.book, now)
        answer = Answer(book=ask.book, session=ask.session, message=message)
        return [SendFrame(peer=neighbour.peer, frame=FRAMES.pack(answer))]

    def live(self, neighbour: Neighbour, book: bytes, number: int, stage: Stage) -> Session:
        """The session that a frame belongs to. Raises ``Ignore``."""
        session = neighbour.sessions.get(book)
        if session is None or session.number != number or session.stage is not stage:
            raise Ignore("stale-answer", "this belongs to no reconciliation of ours")
        return session

    def answered(self, neighbour: Neighbour, session: Session, message: bytes, now: Instant) -> list[MarketEffect]:
        """The neighbour has answered; a broken answer ends the session."""
        try:
            following = session.answered(message, now)
        except Misbehaved:
            self._drop(neighbour, session.book)
            raise
        return [] if following is None else [SendFrame(peer=neighbour.peer, frame=following)]

    def pulled(self, neighbour: Neighbour, session: Session, now: Instant) -> list[MarketEffect]:
        """One ``PULLED`` has been read."""
        following = session.pulled(now)
        return [] if following is None else [SendFrame(peer=neighbour.peer, frame=following)]

    def finished(self, neighbour: Neighbour, session: Session) -> list[int]:
        """If the session is complete, end it; returns the epochs to be cleared again."""
        if neighbour.sessions.get(session.book) is not session or not session.complete():
            return []
        self._drop(neighbour, session.book)
        neighbour.reconciled.add(session.book)
        return sorted(session.epochs)

    def _drop(self, neighbour: Neighbour, book: bytes) -> None:
        """A session is over; the next one with this neighbour may be due before anything else."""
        del neighbour.sessions[book]
        if book in neighbour.next_reconcile:
            self.sooner(neighbour.next_reconcile[book])
