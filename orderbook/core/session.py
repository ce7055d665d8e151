"""One reconciliation that we began: compare one book with one neighbour, pull what we lack, wait until it is verified.

    COMPARING --answer--> COMPARING | PULLING | CHECKING
    PULLING   --pulled--> PULLING | CHECKING
    CHECKING  --last signature judged--> DONE

We only ever pull. What the neighbour lacks he finds out by a session of his own: he sees by our first message that the books
differ. A session that makes no progress in time is dropped; the next one begins from what was learnt.
"""

import enum
from typing import Final

from orderbook.core.frames import FRAMES, Ask, Pull
from orderbook.core.negentropy import Initiator
from wire.limits import BATCH_MAX_ORDERS, RECONCILE_TIMEOUT_MS
from wire.moments import MILLISECOND, Instant, after


class Stage(enum.Enum):
    """Where a session stands."""

    COMPARING = "comparing"
    PULLING = "pulling"
    CHECKING = "checking"
    DONE = "done"


class Session:
    """Our side of one reconciliation. ``epochs`` are to be cleared again when it is done."""

    def __init__(self, book: bytes, number: int, initiator: Initiator, now: Instant) -> None:
        self.book, self.number = book, number
        self.stage: Stage = Stage.COMPARING
        self.epochs: set[int] = set()
        self.unchecked: set[bytes] = set()
        self.asked: frozenset[bytes] = frozenset()
        self._initiator = initiator
        self._wanted: list[bytes] = []
        self.deadline = after(now, RECONCILE_TIMEOUT_MS * MILLISECOND)

    def open(self) -> bytes:
        """The first frame."""
        return FRAMES.pack(Ask(book=self.book, session=self.number, message=self._initiator.open()))

    def answered(self, message: bytes, now: Instant) -> bytes | None:
        """The next frame after the neighbour's answer, if there is one. Raises ``BadReconciliation``."""
        following = self._initiator.answer(message)
        self._progress(now)
        if following is not None:
            return FRAMES.pack(Ask(book=self.book, session=self.number, message=following))
        self._wanted = sorted(self._initiator.need, reverse=True)
        return self._pull()

    def _pull(self) -> bytes | None:
        if not self._wanted:
            self.stage = Stage.CHECKING
            self.asked = frozenset()
            return None
        self.stage = Stage.PULLING
        names = tuple(self._wanted[-BATCH_MAX_ORDERS:])
        del self._wanted[-BATCH_MAX_ORDERS:]
        self.asked = frozenset(names)
        return FRAMES.pack(Pull(book=self.book, session=self.number, ids=names))

    def pulled(self, now: Instant) -> bytes | None:
        """The next frame once an answer to ``PULL`` has been read, if there is one."""
        self._progress(now)
        return self._pull()

    def judged(self, message_id: bytes) -> None:
        """The signatures of a message of this session have been verified, or it was dropped."""
        self.unchecked.discard(message_id)

    def complete(self) -> bool:
        """Whether everything the neighbour had has arrived and been judged. Says so once."""
        if self.stage is Stage.CHECKING and not self.unchecked:
            self.stage = Stage.DONE
            return True
        return False

    def _progress(self, now: Instant) -> None:
        self.deadline = after(now, RECONCILE_TIMEOUT_MS * MILLISECOND)


LIVE: Final = frozenset({Stage.COMPARING, Stage.PULLING, Stage.CHECKING})
