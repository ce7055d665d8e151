"""One reconciliation that we began: compare one book with one neighbour, pull what we lack, wait until it is verified.

    COMPARING --answer--> COMPARING | PULLING | CHECKING
    PULLING   --pulled--> COMPARING | PULLING | CHECKING
    CHECKING  --last signature judged--> DONE

What an answer shows to be missing is pulled at once, while the comparison goes on; the stage names the first of these that is
not done. No more than ``RECONCILE_WINDOW_IDS`` are asked for or wait for verification, and the comparison rests while as many
more are known, so a neighbour who invents ids is found out before they fill anything.

We only ever pull. What the neighbour lacks he finds out by a session of his own: he sees by our first message that the books
differ. A session that makes no progress in time is dropped; the next one begins from what was learnt.
"""

import enum
from collections import deque
from collections.abc import Callable, Iterable

from orderbook.core.frames import FRAMES, Ask, Pull
from orderbook.core.negentropy import Initiator
from wire.errors import Misbehaved
from wire.limits import BATCH_MAX_ORDERS, RECONCILE_TIMEOUT_MS, RECONCILE_WINDOW_IDS
from wire.moments import MILLISECOND, Instant, after


class Stage(enum.Enum):
    """Where a session stands."""

    COMPARING = "comparing"
    PULLING = "pulling"
    CHECKING = "checking"
    DONE = "done"


class Session:
    """Our side of one reconciliation. ``epochs`` are to be cleared again when it is done; ``whole`` tells whether all that the
    neighbour has of the book is then known; ``delivered`` and ``missing`` count what came of what was asked for. ``spin`` has
    sessions with different neighbours ask in different orders, so that they seldom fetch the same twice.
    """

    def __init__(self, book: bytes, number: int, initiator: Initiator, now: Instant, spin: int = 0) -> None:
        self.book, self.number, self._spin = book, number, spin
        self.epochs: set[int] = set()
        self.whole = True
        self.delivered = 0
        self.missing = 0
        self.deadline = after(now, RECONCILE_TIMEOUT_MS * MILLISECOND)
        self._initiator = initiator
        self._unchecked: set[bytes] = set()
        self._comparing = True
        self._held: bytes | None = None
        self._wanted: deque[bytes] = deque()
        self._pulls: deque[frozenset[bytes]] = deque()
        self._asked: set[bytes] = set()
        self._done = False

    @property
    def stage(self) -> Stage:
        """See the module."""
        if self._comparing or self._held is not None:
            return Stage.COMPARING
        if self._pulls or self._wanted:
            return Stage.PULLING
        return Stage.DONE if self._done else Stage.CHECKING

    @property
    def awaits_answer(self) -> bool:
        """Whether the neighbour owes us an ``Answer``."""
        return self._comparing

    @property
    def awaits_messages(self) -> bool:
        """Whether the neighbour owes us a ``Pulled``."""
        return bool(self._pulls)

    @property
    def asked(self) -> int:
        """How many ids have been asked for and not come."""
        return len(self._asked)

    def asks(self, message_id: bytes) -> bool:
        """Whether we have asked for this message."""
        return message_id in self._asked

    def open(self, *, probe: bool) -> bytes:
        """The first frame: with ``probe`` one fingerprint of everything, else as much as divides it at once."""
        return self._ask(self._initiator.probe() if probe else self._initiator.open())

    def _ask(self, message: bytes) -> bytes:
        return FRAMES.pack(Ask(book=self.book, session=self.number, message=message))

    # --- what the neighbour says ----------------------------------------------------------------------------

    def answered(self, message: bytes, now: Instant) -> int:
        """Take the neighbour's answer; returns the bytes of our next message. Raises ``BadReconciliation``."""
        following = self._initiator.answer(message)
        self._comparing = False
        self._held = following
        if self._initiator.cut_short:
            self.whole = False
        fresh = deque(self._initiator.fresh())
        fresh.rotate(self._spin % max(1, len(fresh)))
        self._wanted.extend(fresh)
        self._progress(now)
        return len(following or b"")

    def cut_short(self) -> None:
        """Compare no further; what is known to be missing is still pulled."""
        self._held = None
        self.whole = False

    def came(self, message_id: bytes) -> None:
        """A message has arrived, good or bad, that we may have asked for."""
        if message_id in self._asked:
            self._asked.discard(message_id)
            self.delivered += 1

    def pulled(self, now: Instant) -> int:
        """An answer to ``Pull`` has been read; returns how many of its ids did not come. Raises ``Misbehaved`` when most of what
        this neighbour said to have never comes.
        """
        left = self._pulls.popleft() & self._asked
        self._asked -= left
        self.missing += len(left)
        self._progress(now)
        if self.missing > self.delivered:
            raise Misbehaved("undelivered", "most of what this neighbour said to have does not come", penalty=5)
        return len(left)

    # --- what we verify -------------------------------------------------------------------------------------

    def waits_for(self, message_id: bytes) -> None:
        """The signatures of this message are being verified, and the session is not over before."""
        self._unchecked.add(message_id)

    def judged(self, message_ids: Iterable[bytes], now: Instant) -> None:
        """The signatures of these messages have been verified, or they were dropped."""
        waiting = len(self._unchecked)
        self._unchecked.difference_update(message_ids)
        if len(self._unchecked) < waiting:
            self._progress(now)

    # --- what we say ----------------------------------------------------------------------------------------

    def frames(self, room: int, known: Callable[[bytes], bool]) -> list[bytes]:
        """What is to be sent now: the node has room for ``room`` more messages, and what is ``known`` need not be asked for."""
        out: list[bytes] = []
        room = min(room, RECONCILE_WINDOW_IDS - len(self._asked) - len(self._unchecked))
        while names := self._next(min(room, BATCH_MAX_ORDERS), known):
            room -= len(names)
            self._pulls.append(frozenset(names))
            self._asked.update(names)
            out.append(FRAMES.pack(Pull(book=self.book, session=self.number, ids=names)))
        if self._held is not None and len(self._wanted) < RECONCILE_WINDOW_IDS:
            out.append(self._ask(self._held))
            self._held, self._comparing = None, True
        return out

    def _next(self, most: int, known: Callable[[bytes], bool]) -> tuple[bytes, ...]:
        names: list[bytes] = []
        while self._wanted and len(names) < most:
            name = self._wanted.popleft()
            if not known(name):
                names.append(name)
        return tuple(names)

    def complete(self) -> bool:
        """Whether everything the neighbour had has arrived and been judged. Says so once."""
        if self.stage is Stage.CHECKING and not self._unchecked:
            self._done = True
            return True
        return False

    def late(self, now: Instant) -> bool:
        """Whether the neighbour keeps us waiting too long. Our own slowness is no lateness of his."""
        if self.deadline > now:
            return False
        if self._comparing or self._pulls:
            return True
        self._progress(now)
        return False

    def _progress(self, now: Instant) -> None:
        self.deadline = after(now, RECONCILE_TIMEOUT_MS * MILLISECOND)
