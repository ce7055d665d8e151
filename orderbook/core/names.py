"""Messages that neighbours named instead of sending: who is asked for which, and what he is given who asks us.

Where much is said, most of it would come to a node several times. So of many messages that wait for one neighbour, those that we
only pass on are named to him, and he asks for what he lacks: whoever named it first, and when that one does not deliver in time,
another who did. What is lost all the same is found when books are compared.
"""

from collections import deque
from collections.abc import Mapping
from typing import Final, NamedTuple

from orderbook.core.book import Book
from orderbook.core.events import MarketEffect
from orderbook.core.frames import Names
from orderbook.core.neighbour import Neighbour
from orderbook.core.pusher import Pusher
from wire.effects import Blame, Count
from wire.keys import PeerId
from wire.limits import NAMED_ASKS_MAX, NAMED_PATIENCE_MS, NAMED_WANTED_MAX
from wire.moments import MILLISECOND, Instant, after

_PATIENCE_US: Final = NAMED_PATIENCE_MS * MILLISECOND


class _Asked(NamedTuple):
    """What somebody has been asked for at once, until when he has time, and how many have been asked before him."""

    until: Instant
    peer: PeerId
    before: int
    names: list[bytes]


class NameDesk:
    """``known`` tells of every message that is in a book or on its way into one which book that is."""

    def __init__(
        self, known: Mapping[bytes, bytes], books: Mapping[bytes, Book], neighbours: Mapping[PeerId, Neighbour], pusher: Pusher
    ) -> None:
        self._known, self._books, self._neighbours, self._pusher = known, books, neighbours, pusher
        self._asked: set[bytes] = set()
        self._turns: deque[_Asked] = deque()  # in the order of their time, because with all we have the same patience

    @property
    def next_due(self) -> Instant | None:
        """When somebody's time is over."""
        return self._turns[0].until if self._turns else None

    def heard(self, neighbour: Neighbour, frame: Names, now: Instant) -> list[MarketEffect]:
        """He names what he has, and what he would like to have."""
        neighbour.shows_all(frame.has)
        fresh = [name for name in dict.fromkeys(frame.has) if name not in self._known and name not in self._asked]
        room = max(0, NAMED_WANTED_MAX - len(self._asked))
        self._ask(neighbour, fresh[:room], 0, now)
        effects: list[MarketEffect] = [Count(code="names-full", amount=len(fresh) - room)] if len(fresh) > room else []
        overrun = sum(not self._give(neighbour, name) for name in frame.wants)
        if overrun:
            effects.append(Count(code="outbox-full", amount=overrun))
        self._pusher.stir(neighbour)
        return effects

    def _ask(self, neighbour: Neighbour, names: list[bytes], before: int, now: Instant) -> None:
        if names:
            self._asked.update(names)
            self._turns.append(_Asked(after(now, _PATIENCE_US), neighbour.peer, before, names))
            neighbour.ask(names)

    def _give(self, neighbour: Neighbour, name: bytes) -> bool:
        """Have a message sent to him, if it has been verified and is still there. False when his box is full."""
        book = self._books.get(self._known.get(name, b""))
        raw = None if book is None else book.raw(name)
        return raw is None or neighbour.give(name, raw)

    def due(self, now: Instant) -> list[MarketEffect]:
        """Ask others for what has not come in time."""
        effects: list[MarketEffect] = []
        while self._turns and self._turns[0].until <= now:
            asked = self._turns.popleft()
            self._asked.difference_update(asked.names)
            late = [name for name in asked.names if name not in self._known]
            if late:
                effects.append(Count(code="named-late", amount=len(late)))
                self._ask_others(late, asked, now)
                neighbour = self._neighbours.get(asked.peer)
                if neighbour is not None and neighbour.keeps_silent(now):
                    sentence = "what this neighbour says to have does not come when it is asked for"
                    effects.append(Blame(peer=asked.peer, code="named-late", sentence=sentence, penalty=1))
        return effects

    def _ask_others(self, late: list[bytes], asked: _Asked, now: Instant) -> None:
        """The first of the other neighbours who has shown it, for each; nobody when enough have been asked."""
        if asked.before + 1 >= NAMED_ASKS_MAX:
            return
        for peer, other in self._neighbours.items():
            if peer != asked.peer:
                has = [name for name in late if other.knows(name)]
                late = [name for name in late if not other.knows(name)]
                self._ask(other, has, asked.before + 1, now)
                self._pusher.stir(other)
