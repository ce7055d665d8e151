"""When books are compared with which neighbour, and the frames of it; what one session does is in ``session``.

A comparison begins when two neighbours first share a book; before every freeze with all of them, if our book has grown since we
last compared it; every few seconds with one neighbour chosen by lot, a lot drawn from our account, so that cores roll no dice;
and soon when roots or the neighbour's own comparison show a difference. Each side pulls for itself.

Everything with one neighbour is bounded: sessions open at once, bytes and rounds in time. Whoever asks beyond that has his
question dropped and is blamed; we ourselves stop asking before he would have to blame us.
"""

import heapq
from collections.abc import Callable, Mapping
from typing import Final

from orderbook.core.book import Book
from orderbook.core.craft import Craft
from orderbook.core.events import MarketEffect, Meet, SendFrame
from orderbook.core.frames import FRAMES, Answer, Ask
from orderbook.core.neighbour import Neighbour
from orderbook.core.session import Session
from wire.digest import context, digest
from wire.effects import Blame, Count
from wire.errors import Ignore, Misbehaved
from wire.keys import PeerId
from wire.limits import RECONCILE_INTERVAL_MS, RECONCILE_SESSIONS_MAX, RECONCILE_WARM_NEIGHBOURS, RELAY_CHECKS_MAX
from wire.moments import MILLISECOND, SECOND, Instant, after
from wire.network import Network

_INTERVAL_US: Final = RECONCILE_INTERVAL_MS * MILLISECOND
_PAUSE_US: Final = 1 * SECOND
_PROBE_LEAST: Final = 8
_NOBODY: Final = PeerId(b"")
_TURN, _PLAN, _LATE = 0, 1, 2


class Reconciler:
    """The comparisons of one node; it sees the market's books and neighbours. ``checking`` says how many messages wait for
    verification.
    """

    def __init__(
        self,
        network: Network,
        me: PeerId,
        books: Mapping[bytes, Book],
        neighbours: Mapping[PeerId, Neighbour],
        craft: Craft,
        checking: Callable[[], int],
    ) -> None:
        self._books, self._neighbours, self._craft, self._checking = books, neighbours, craft, checking
        self._lot = context(network.name, "turn"), me
        self._open: dict[bytes, dict[PeerId, Session]] = {}
        self._comparing: dict[tuple[PeerId, bytes], int] = {}
        self._turns: dict[bytes, tuple[Instant, int]] = {}
        self._agenda: list[tuple[Instant, int, PeerId, bytes]] = []
        self.next_due: Instant | None = None
        """Nothing is due before this moment; None while nothing is planned at all."""
        self._number = 0

    def _plan_at(self, at: Instant, kind: int, peer: PeerId, book: bytes) -> None:
        heapq.heappush(self._agenda, (at, kind, peer, book))
        self.next_due = self._agenda[0][0]

    def comparing(self) -> list[bytes]:
        """The books over which we have sessions, ascending."""
        return sorted(self._open)

    def sessions(self, book: bytes) -> list[tuple[Neighbour, Session]]:
        """Our open sessions over ``book``."""
        return [(self._neighbours[peer], one) for peer, one in sorted(self._open.get(book, {}).items())]

    # --- plans ----------------------------------------------------------------------------------------------

    def follow(self, book: bytes, now: Instant) -> None:
        """We follow ``book`` from now on; its first turn comes within one interval, spread so that books take turns."""
        spread = self._draw(book, 0) % _INTERVAL_US
        self._turn(book, after(now, spread), 1)
        for neighbour in self._neighbours.values():
            if book in neighbour.books:
                self.plan(neighbour, book, now)

    def leave(self, book: bytes) -> None:
        """We follow ``book`` no more."""
        self._turns.pop(book, None)
        for neighbour in self._neighbours.values():
            self.part(neighbour, book)

    def part(self, neighbour: Neighbour, book: bytes) -> None:
        """He or we have left ``book``."""
        self._end(neighbour, book)
        neighbour.part(book)

    def gone(self, neighbour: Neighbour) -> None:
        """He is no neighbour any more."""
        for book in list(neighbour.sessions):
            self._end(neighbour, book)

    def plan(self, neighbour: Neighbour, book: bytes, at: Instant) -> None:
        """Have ``book`` compared with him at ``at``, or earlier if that is planned already."""
        planned = neighbour.planned.get(book)
        if planned is None or at < planned:
            neighbour.planned[book] = at
            self._plan_at(at, _PLAN, neighbour.peer, book)

    def hasten(self, neighbour: Neighbour, book: bytes, now: Instant) -> None:
        """Compare soon, but not so soon after the last time that two books which cannot become equal keep us busy."""
        if book in neighbour.books:
            self.plan(neighbour, book, neighbour.rested(book, now))

    def warm(self, now: Instant) -> None:
        """The freeze is near: compare every book with some neighbours by lot, if it has grown since we last did with them."""
        for book in sorted(self._books):
            changes = self._books[book].changes
            others = [one for _, one in sorted(self._neighbours.items()) if book in one.books]
            grown = [one for one in others if one.grown(book, changes) and not one.grows_fast(book, changes, now)]
            grown.sort(key=lambda one: digest(self._lot[0], one.peer, self._lot[1], book, now.to_bytes(8, "little")))
            for neighbour in grown[:RECONCILE_WARM_NEIGHBOURS]:
                self.plan(neighbour, book, now)

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
        if book in neighbour.books:
            self.plan(neighbour, book, now)
        return []

    def _draw(self, book: bytes, number: int) -> int:
        of, me = self._lot
        return int.from_bytes(digest(of, me, book, number.to_bytes(8, "little"))[:8], "little")

    def _turn(self, book: bytes, at: Instant, number: int) -> None:
        self._turns[book] = (at, number)
        self._plan_at(at, _TURN, _NOBODY, book)

    # --- what is due ----------------------------------------------------------------------------------------

    def due(self, now: Instant) -> list[MarketEffect]:
        """Give up sessions that hang, begin those that are due."""
        effects: list[MarketEffect] = []
        while self._agenda and self._agenda[0][0] <= now:
            at, kind, peer, book = heapq.heappop(self._agenda)
            neighbour = self._neighbours.get(peer)
            if kind == _TURN:
                self._take_turn(book, at, now)
            elif neighbour is not None and kind == _PLAN:
                if neighbour.planned.get(book) == at:
                    del neighbour.planned[book]
                    effects += self._begin(neighbour, book, now)
            elif neighbour is not None and book in neighbour.sessions:
                effects += self._judge_patience(neighbour, neighbour.sessions[book], now)
        self.next_due = self._agenda[0][0] if self._agenda else None
        return effects

    def _take_turn(self, book: bytes, at: Instant, now: Instant) -> None:
        due, number = self._turns.get(book, (None, 0))
        if due != at:
            return
        self._turn(book, after(now, _INTERVAL_US), number + 1)
        others = sorted(peer for peer, one in self._neighbours.items() if book in one.books and book not in one.sessions)
        if others:
            self.plan(self._neighbours[others[self._draw(book, number) % len(others)]], book, now)

    def _begin(self, neighbour: Neighbour, book: bytes, now: Instant) -> list[MarketEffect]:
        if book not in self._books or book not in neighbour.books:
            return []
        epoch = self._comparing.get((neighbour.peer, book))
        if epoch is None and neighbour.grows_fast(book, self._books[book].changes, now):
            return []
        if book in neighbour.sessions or len(neighbour.sessions) >= _most(neighbour):
            neighbour.waiting[book] = None
            return []
        if not neighbour.may_compare(now):
            self.plan(neighbour, book, after(now, _PAUSE_US))
            return [Count(code="reconcile-paused")]
        self._number = (self._number + 1) % (1 << 32)
        kept = self._books[book]
        vector = kept.vector()
        spin = int.from_bytes(neighbour.peer[-4:], "big")
        session = Session(book, self._number, self._craft.initiator(vector), now, spin)
        neighbour.begins(session, kept.changes, now)
        self._open.setdefault(book, {})[neighbour.peer] = session
        self._plan_at(session.deadline, _LATE, neighbour.peer, book)
        if epoch is not None:
            session.epochs.add(self._comparing.pop((neighbour.peer, book)))
        probe = book in neighbour.reconciled and len(vector) >= _PROBE_LEAST
        return [SendFrame(peer=neighbour.peer, frame=session.open(probe=probe))]

    def _judge_patience(self, neighbour: Neighbour, session: Session, now: Instant) -> list[MarketEffect]:
        if not session.late(now):
            self._plan_at(session.deadline, _LATE, neighbour.peer, session.book)
            return self.go_on(neighbour, session)
        self._failed(neighbour, session.book, now)
        effects: list[MarketEffect] = [Count(code="reconcile-timeout")]
        if neighbour.keeps_silent(now):
            sentence = "this neighbour does not answer when books are compared"
            effects.append(Blame(peer=neighbour.peer, code="reconcile-timeout", sentence=sentence, penalty=1))
        return effects

    # --- frames ---------------------------------------------------------------------------------------------

    def asked(self, neighbour: Neighbour, ask: Ask, now: Instant) -> list[MarketEffect]:
        """Answer the neighbour's comparison; what it shows that we lack, we shall ask for ourselves. Raises ``Misbehaved``."""
        if not neighbour.compares(len(ask.message), now):
            raise Misbehaved("reconcile-budget", "this neighbour compares more than anyone needs to", penalty=5)
        message = self._craft.respond(self._books[ask.book].vector(), ask.message)
        neighbour.is_told(len(message), now)
        if len(message) > 1:
            self.hasten(neighbour, ask.book, now)
        answer = Answer(book=ask.book, session=ask.session, message=message)
        return [SendFrame(peer=neighbour.peer, frame=FRAMES.pack(answer))]

    def live(self, neighbour: Neighbour, book: bytes, number: int) -> Session:
        """The session that a frame belongs to. Raises ``Ignore``."""
        session = neighbour.sessions.get(book)
        if session is None or session.number != number:
            raise Ignore("stale-answer", "this belongs to no reconciliation of ours")
        return session

    def answered(self, neighbour: Neighbour, answer: Answer, now: Instant) -> tuple[Session, list[MarketEffect]]:
        """The neighbour has answered. Raises ``Ignore`` when he was not asked; a broken answer ends the session and raises
        ``Misbehaved``.
        """
        session = self.live(neighbour, answer.book, answer.session)
        if not session.awaits_answer:
            raise Ignore("stale-answer", "this has been answered already")
        neighbour.is_told(len(answer.message), now)
        try:
            following = session.answered(answer.message, now)
        except Misbehaved:
            self._failed(neighbour, session.book, now)
            raise
        neighbour.speaks()
        effects: list[MarketEffect] = []
        if following and not (neighbour.may_compare(now) and neighbour.compares(following, now)):
            session.cut_short()
            effects.append(Count(code="reconcile-budget"))
        return session, effects + self.go_on(neighbour, session)

    def pulled(self, neighbour: Neighbour, session: Session, now: Instant) -> list[MarketEffect]:
        """One ``PULLED`` has been read. Raises ``Misbehaved`` when too much of it is not there, which ends the session."""
        try:
            missing = session.pulled(now)
        except Misbehaved:
            self._failed(neighbour, session.book, now)
            raise
        neighbour.speaks()
        return [Count(code="undelivered", amount=missing)] if missing else []

    def go_on(self, neighbour: Neighbour, session: Session) -> list[MarketEffect]:
        """What the session has to say next."""
        asked = sum(one.asked for sessions in self._open.values() for one in sessions.values())
        room = RELAY_CHECKS_MAX - self._checking() - asked
        frames = session.frames(room, self._books[session.book].__contains__)
        return [SendFrame(peer=neighbour.peer, frame=one) for one in frames]

    def finished(self, neighbour: Neighbour, session: Session, now: Instant) -> list[int]:
        """If the session is complete, end it; returns the epochs to be cleared again."""
        if neighbour.sessions.get(session.book) is not session or not session.complete():
            return []
        self._over(neighbour, session.book, now)
        if session.whole:
            neighbour.reconciled.add(session.book)
            return sorted(session.epochs)
        if session.delivered:  # it was cut short, but it brought us on
            self.plan(neighbour, session.book, now)
            if session.epochs:
                self._comparing[neighbour.peer, session.book] = max(session.epochs)
        return []

    def _over(self, neighbour: Neighbour, book: bytes, now: Instant) -> None:
        """A session is over; books that wait for this neighbour have their turn."""
        self._end(neighbour, book)
        for following in list(neighbour.waiting)[: _most(neighbour) - len(neighbour.sessions)]:
            del neighbour.waiting[following]
            self.plan(neighbour, following, now)

    def _failed(self, neighbour: Neighbour, book: bytes, now: Instant) -> None:
        """A session came to nothing; a first comparison is tried again, for others it is soon enough by lot."""
        self._over(neighbour, book, now)
        if book not in neighbour.reconciled:
            self.plan(neighbour, book, after(now, _INTERVAL_US))

    def _end(self, neighbour: Neighbour, book: bytes) -> None:
        neighbour.sessions.pop(book, None)
        sessions = self._open.get(book)
        if sessions is not None:
            sessions.pop(neighbour.peer, None)
            if not sessions:
                del self._open[book]


def _most(neighbour: Neighbour) -> int:
    """How many sessions we keep open with him: one while he does not answer."""
    return 1 if neighbour.mute else RECONCILE_SESSIONS_MAX
