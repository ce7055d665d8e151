"""The sending machine: check the ticket, show the manifest, send what is wished and nothing else.

Theory of operation. ``NEW -> LISTENING -> OPENING -> SERVING <-> READING -> ENDED``. A ``Want`` is put before the shell
(``Admit``), which knows tickets and store; from then on every ``Wish`` is read from the store in batches of
``TRANSFER_READ_CHUNKS`` blobs and answered at once. Wishes that come while a batch is being read wait in a queue no longer
than the receiver's window may be; past it the receiver has broken its own window. The machine keeps no list of what the
content is made of: the shell reads only blobs that belong to it, and a wish for another is the receiver's fault.
"""

import enum
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from cafs.core.faults import Overrun, Stalled
from cafs.core.manifest import ROOT_ENTRIES_MAX
from cafs.core.messages import Chunk, Done, Refusal, RootOf, Want, Wish
from cafs.core.transfer import Closed, Ended, Heard, Send, Tick
from wire.errors import BitwrkError, InvariantBroken, Misbehaved, Refused
from wire.limits import MANIFEST_MAX_CHUNKS, TRANSFER_READ_CHUNKS, TRANSFER_STALL_S, TRANSFER_WINDOW_CHUNKS
from wire.moments import SECOND, Instant, after


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """A peer has opened a stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """The ticket is good and the content is here; its root has these bytes."""

    root: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """The transfer does not take place, or not any longer; the receiver is told ``error``'s code and sentence."""

    error: BitwrkError


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """The blobs of the last ``Fetch`` that belong to the content, ready to be sent."""

    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Admit:
    """Is ``ticket`` good for ``content``, and is it here? Answer ``Admitted`` or ``Denied``."""

    content: bytes
    ticket: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """Read these blobs of the admitted content, as far as they belong to it. Answer ``Read``, or ``Denied``."""

    blobs: tuple[bytes, ...]


Event = Listen | Heard | Admitted | Denied | Read | Closed | Tick
Effect = Send | Admit | Fetch | Ended


class State(enum.Enum):
    """Where a sender is; see the theory of operation."""

    NEW = "new"
    LISTENING = "listening"
    OPENING = "opening"
    SERVING = "serving"
    READING = "reading"
    ENDED = "ended"


S = State
# (state, event or heard message) -> the method that answers. What is not here is out of turn.
TABLE: Final[dict[tuple[State, type], str]] = {
    (S.NEW, Listen): "_listen",
    (S.LISTENING, Want): "_want",
    (S.OPENING, Admitted): "_admitted",
    (S.OPENING, Denied): "_denied",
    (S.SERVING, Wish): "_wish",
    (S.SERVING, Done): "_done",
    (S.READING, Wish): "_wish",
    (S.READING, Read): "_read",
    (S.READING, Denied): "_denied",
    **{(state, Tick): "_tick" for state in S if state is not S.ENDED},
    **{(state, Closed): "_closed" for state in S if state is not S.ENDED},
}


class Sender:
    """The serving end of one stream."""

    def __init__(self) -> None:
        self.state = State.NEW
        self._heard_at: Instant | None = None
        self._queue: deque[bytes] = deque()
        self._reading: tuple[bytes, ...] = ()
        self._wishes = 0

    def next_deadline(self) -> Instant | None:
        """When the receiver has been silent too long; None while the next step is ours."""
        if self._heard_at is None or self.state not in (State.LISTENING, State.SERVING):
            return None
        return after(self._heard_at, TRANSFER_STALL_S * SECOND)

    def handle(self, event: Event, now: Instant) -> tuple[Effect, ...]:
        """What to do about ``event``. Raises ``InvariantBroken`` for a defect of the driver, nothing for what a peer does."""
        kind: type = type(event.message) if isinstance(event, Heard) else type(event)
        answer = TABLE.get((self.state, kind))
        try:
            if answer is None:
                return self._out_of_turn(event)
            if not isinstance(event, Tick):
                self._heard_at = now
            act: Callable[[Any, Instant], tuple[Effect, ...]] = getattr(self, answer)
            return act(event.message if isinstance(event, Heard) else event, now)
        except Misbehaved as error:
            return self._end(error)

    def _out_of_turn(self, event: Event) -> tuple[Effect, ...]:
        if self.state is State.ENDED:
            return ()
        if isinstance(event, Heard):
            name = type(event.message).__name__
            raise Overrun("out-of-turn", f"{name} has no place while this end is {self.state.value}", 20)
        raise InvariantBroken("driver-order", f"{type(event).__name__} cannot happen while {self.state.value}")

    def _end(self, error: BitwrkError | None) -> tuple[Effect, ...]:
        self.state = State.ENDED
        self._queue.clear()
        return (Ended(error=error),)

    def _listen(self, _event: Listen, _now: Instant) -> tuple[Effect, ...]:
        self.state = State.LISTENING
        return ()

    def _want(self, message: Want, _now: Instant) -> tuple[Effect, ...]:
        self.state = State.OPENING
        return (Admit(content=message.content, ticket=message.ticket),)

    def _admitted(self, event: Admitted, _now: Instant) -> tuple[Effect, ...]:
        self.state = State.SERVING
        return (Send(message=RootOf(root=event.root)),)

    def _denied(self, event: Denied, _now: Instant) -> tuple[Effect, ...]:
        # What is wrong with our disk is not the receiver's business.
        told = event.error if isinstance(event.error, Refused) else Refused("failed", "the sender cannot go on")
        return (Send(message=Refusal(code=told.code, sentence=told.sentence)), *self._end(event.error))

    def _wish(self, message: Wish, _now: Instant) -> tuple[Effect, ...]:
        self._wishes += len(message.blobs)
        if self._wishes > MANIFEST_MAX_CHUNKS + ROOT_ENTRIES_MAX:
            raise Overrun("too-many-wishes", "more blobs wished for than any content has")
        if len(self._queue) + len(self._reading) + len(message.blobs) > TRANSFER_WINDOW_CHUNKS:
            raise Overrun("window-overrun", f"more than {TRANSFER_WINDOW_CHUNKS} blobs wished for at a time", 20)
        self._queue.extend(message.blobs)
        return () if self.state is State.READING else self._fetch()

    def _fetch(self) -> tuple[Effect, ...]:
        if not self._queue:
            self.state = State.SERVING
            return ()
        self.state = State.READING
        count = min(len(self._queue), TRANSFER_READ_CHUNKS)
        self._reading = tuple(self._queue.popleft() for _ in range(count))
        return (Fetch(blobs=self._reading),)

    def _read(self, event: Read, _now: Instant) -> tuple[Effect, ...]:
        found = {chunk.blob: chunk for chunk in event.chunks}
        if any(blob not in found for blob in self._reading):
            raise Overrun("foreign-blob", "a blob was wished for that is no part of the content", 50)
        sends = tuple(Send(message=found[blob]) for blob in self._reading)
        self._reading = ()
        return (*sends, *self._fetch())

    def _done(self, _message: Done, _now: Instant) -> tuple[Effect, ...]:
        return self._end(None)

    def _closed(self, event: Closed, _now: Instant) -> tuple[Effect, ...]:
        return self._end(event.error)

    def _tick(self, _event: Tick, now: Instant) -> tuple[Effect, ...]:
        deadline = self.next_deadline()
        if deadline is None or now < deadline:
            return ()
        return self._end(Stalled("stalled", f"the receiver asked for nothing for {TRANSFER_STALL_S} seconds"))
