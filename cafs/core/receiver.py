"""The receiving machine: want a content, learn its manifest, wish for what is missing, verify, keep.

Theory of operation. The machine goes once through

    NEW -> ASKED -> (SORTING_PAGES -> PAGES) -> SORTING_CHUNKS -> CHUNKS -> VERIFYING -> ENDED

and the pages step is left out when the root lists the chunks itself. *Sorting* is asking our own store which of the listed
blobs it holds already, from this content or any other; only the others are wished for. So a transfer that was cut off is
resumed by starting it anew: what arrived before is found by sorting.

A blob goes from *wanted* to *asked* (credit given), *arrived* (verified against its id and, for a chunk, its size) and *keeping*
(the store writes it), and only then is its credit given again. One ``Keep`` is under way at a time; what arrives meanwhile
goes with the next. Answers may come in any order. A blob that was not asked, or was already answered, ends the transfer.

When all is kept, ``Verify`` makes the store cut the content anew: manifests that are well formed but not the one
manifest of their content end here.
"""

import enum
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cafs.core.faults import Corrupt, Overrun, Stalled, refusal
from cafs.core.manifest import Content, Entry, Root, open_root, whole
from cafs.core.messages import Chunk, Done, Refusal, RootOf, Want, Wish
from cafs.core.squeeze import expand
from cafs.core.transfer import Closed, Ended, Heard, Progress, Send, Tick
from wire.digest import content_id
from wire.errors import BitwrkError, InvariantBroken, Misbehaved
from wire.limits import (
    MANIFEST_PAGE_MAX_BYTES,
    TRANSFER_STALL_S,
    TRANSFER_WINDOW_BYTES,
    TRANSFER_WINDOW_CHUNKS,
    WISH_LIST_MAX,
)
from wire.moments import SECOND, Instant, after


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """The stream is open: say what is wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sorted:
    """The store holds these of the blobs of ``Sort``; ``bodies`` gives their bytes where they were asked for."""

    held: frozenset[bytes]
    bodies: Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The blobs of the last ``Keep`` are safe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """The store has the content whole and found it to be the one its id names."""

    content: Content


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFailure:
    """The store cannot go on, or found the whole content not to be what its id names."""

    error: BitwrkError


@dataclass(frozen=True, slots=True, kw_only=True)
class Sort:
    """Ask the store which of ``blobs`` it holds, claim them for the content with this ``root``, answer ``Sorted``."""

    root: bytes
    blobs: tuple[bytes, ...]
    bodies: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """Store these verified blobs for the content, answer ``Kept``. Do not wait for it."""

    blobs: tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verify:
    """Check the whole content in the store, answer ``Verified`` or ``LocalFailure``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progressed:
    """More of the content is here."""

    progress: Progress


Event = Begin | Heard | Sorted | Kept | Verified | LocalFailure | Closed | Tick
Effect = Send | Sort | Keep | Verify | Progressed | Ended


class State(enum.Enum):
    """Where a receiver is; see the theory of operation."""

    NEW = "new"
    ASKED = "asked"
    SORTING_PAGES = "sorting pages"
    PAGES = "pages"
    SORTING_CHUNKS = "sorting chunks"
    CHUNKS = "chunks"
    VERIFYING = "verifying"
    ENDED = "ended"


S = State
# (state, event or heard message) -> the method that answers. What is not here is out of turn.
TABLE: Final[dict[tuple[State, type], str]] = {
    (S.NEW, Begin): "_begin",
    (S.ASKED, RootOf): "_opened",
    (S.SORTING_PAGES, Sorted): "_pages_sorted",
    (S.PAGES, Chunk): "_page",
    (S.PAGES, Kept): "_kept",
    (S.SORTING_CHUNKS, Sorted): "_chunks_sorted",
    (S.SORTING_CHUNKS, Kept): "_kept",
    (S.CHUNKS, Chunk): "_chunk",
    (S.CHUNKS, Kept): "_kept",
    (S.VERIFYING, Verified): "_verified",
    **{(state, Refusal): "_refused" for state in (S.ASKED, S.SORTING_PAGES, S.PAGES, S.SORTING_CHUNKS, S.CHUNKS)},
    **{(state, Tick): "_tick" for state in S if state is not S.ENDED},
    **{(state, LocalFailure): "_failed" for state in S if state is not S.ENDED},
    **{(state, Closed): "_failed" for state in S if state not in (S.VERIFYING, S.ENDED)},
    # All that was needed has been heard: the sender may well be gone while we verify.
    (S.VERIFYING, Closed): "_nothing",
}


class Receiver:
    """One attempt to fetch one content over one stream."""

    def __init__(self, content: bytes, ticket: bytes) -> None:
        self.content = content
        self.state = State.NEW
        self._ticket = ticket
        self._heard_at: Instant | None = None
        self._raw_root = b""
        self._root = Root(size=0, paged=False, entries=())
        self._chunks: tuple[Entry, ...] = ()
        self._pages: dict[bytes, bytes] = {}
        self._bytes_of: dict[bytes, int] = {}  # bytes of the content that a chunk accounts for, repeats included
        self._wanted: deque[tuple[bytes, int]] = deque()
        self._asked: dict[bytes, int] = {}
        self._arrived: list[tuple[bytes, bytes]] = []
        self._keeping: tuple[tuple[bytes, bytes], ...] = ()
        self._cost: dict[bytes, int] = {}  # credit that is out, in bytes, by blob: asked, arrived or being kept
        self._cost_bytes = 0
        self._held_bytes = 0
        self._wire_bytes = 0

    @property
    def credit(self) -> tuple[int, int]:
        """Credit that is out: how many blobs, and the most bytes they can have."""
        return len(self._cost), self._cost_bytes

    def next_deadline(self) -> Instant | None:
        """When the peer has been silent too long; None while nothing is expected from it."""
        if self._heard_at is None or not (self.state is State.ASKED or self._asked):
            return None
        return after(self._heard_at, TRANSFER_STALL_S * SECOND)

    def handle(self, event: Event, now: Instant) -> tuple[Effect, ...]:
        """What to do about ``event``. Raises ``InvariantBroken`` for a defect of the driver, nothing for what a peer does."""
        kind: type = type(event.message) if isinstance(event, Heard) else type(event)
        answer = TABLE.get((self.state, kind))
        try:
            if answer is None:
                return self._out_of_turn(event)
            if isinstance(event, Begin | Heard):
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

    def _end(self, error: BitwrkError) -> tuple[Effect, ...]:
        self.state = State.ENDED
        self._asked.clear()
        return (Ended(error=error),)

    # --- answers of the table -----------------------------------------------------------------------------

    def _nothing(self, _event: object, _now: Instant) -> tuple[Effect, ...]:
        return ()

    def _begin(self, _event: Begin, _now: Instant) -> tuple[Effect, ...]:
        self.state = State.ASKED
        return (Send(message=Want(content=self.content, ticket=self._ticket)),)

    def _refused(self, message: Refusal, _now: Instant) -> tuple[Effect, ...]:
        return self._end(refusal(message.code, message.sentence))

    def _failed(self, event: Closed | LocalFailure, _now: Instant) -> tuple[Effect, ...]:
        return self._end(event.error)

    def _tick(self, _event: Tick, now: Instant) -> tuple[Effect, ...]:
        deadline = self.next_deadline()
        if deadline is None or now < deadline:
            return ()
        return self._end(Stalled("stalled", f"the peer sent nothing for {TRANSFER_STALL_S} seconds"))

    def _opened(self, message: RootOf, _now: Instant) -> tuple[Effect, ...]:
        self._root = open_root(self.content, message.root)
        self._raw_root = message.root
        if not self._root.paged:
            return self._sort_chunks()
        self.state = State.SORTING_PAGES
        return (Sort(root=self._raw_root, blobs=_in_order(entry.id for entry in self._root.entries), bodies=True),)

    def _pages_sorted(self, event: Sorted, _now: Instant) -> tuple[Effect, ...]:
        self.state = State.PAGES
        self._pages.update(event.bodies)
        needed = dict.fromkeys(entry.id for entry in self._root.entries)
        self._wanted.extend((blob, MANIFEST_PAGE_MAX_BYTES) for blob in needed if blob not in self._pages)
        return self._go_on()

    def _page(self, message: Chunk, _now: Instant) -> tuple[Effect, ...]:
        blob, data = self._accept(message)
        self._pages[blob] = data
        return self._go_on()

    def _chunks_sorted(self, event: Sorted, _now: Instant) -> tuple[Effect, ...]:
        self.state = State.CHUNKS
        self._held_bytes = sum(count for blob, count in self._bytes_of.items() if blob in event.held)
        sizes = {chunk.id: chunk.size for chunk in self._chunks}
        self._wanted.extend((blob, size) for blob, size in sizes.items() if blob not in event.held)
        return (self._progress(), *self._go_on())

    def _chunk(self, message: Chunk, _now: Instant) -> tuple[Effect, ...]:
        size = self._asked.get(message.blob)
        _, data = self._accept(message)
        if len(data) != size:
            raise Corrupt("wrong-size", "a chunk is not as long as the manifest says", 50)
        return self._go_on()

    def _kept(self, _event: Kept, _now: Instant) -> tuple[Effect, ...]:
        if not self._keeping:
            raise InvariantBroken("driver-order", "nothing was being kept")
        for blob, _data in self._keeping:
            self._cost_bytes -= self._cost.pop(blob)
            self._held_bytes += self._bytes_of.get(blob, 0)
        self._keeping = ()
        return (self._progress(), *self._go_on())

    def _verified(self, event: Verified, _now: Instant) -> tuple[Effect, ...]:
        self.state = State.ENDED
        return (Ended(error=None, content=event.content),)

    # --- the work in between ------------------------------------------------------------------------------

    def _accept(self, message: Chunk) -> tuple[bytes, bytes]:
        """The blob in ``message``, which was asked and is what its id says."""
        most = self._asked.get(message.blob)
        if most is None:
            raise Overrun("unsolicited-chunk", "a chunk that was not asked for, or was sent twice", 50)
        data = expand(message.codec, message.body, most)
        if content_id(data) != message.blob:
            raise Corrupt("corrupt-chunk", "a chunk is not the one that its id names", 50)
        del self._asked[message.blob]
        self._arrived.append((message.blob, data))
        self._wire_bytes += len(message.body)
        return message.blob, data

    def _sort_chunks(self) -> tuple[Effect, ...]:
        self.state = State.SORTING_CHUNKS
        self._chunks = whole(self._root, (self._pages[entry.id] for entry in self._root.entries if self._root.paged))
        self._pages.clear()
        for chunk in self._chunks:
            self._bytes_of[chunk.id] = self._bytes_of.get(chunk.id, 0) + chunk.size
        return (Sort(root=self._raw_root, blobs=_in_order(self._bytes_of), bodies=False),)

    def _go_on(self) -> tuple[Effect, ...]:
        """Keep what arrived, wish for more, or take the next step."""
        effects: list[Effect] = []
        if self._arrived and not self._keeping:
            self._keeping, self._arrived = tuple(self._arrived), []
            effects.append(Keep(blobs=self._keeping))
        effects += self._wishes()
        if not self._wanted and not self._asked:
            if self.state is State.PAGES:
                effects += self._sort_chunks()
            elif self.state is State.CHUNKS and not self._cost:
                self.state = State.VERIFYING
                effects += (Send(message=Done()), Verify())
        return tuple(effects)

    def _wishes(self) -> list[Effect]:
        """Wishes up to the window, but not one by one: a quarter of the window is worth a message."""
        if self._asked and (
            len(self._cost) > TRANSFER_WINDOW_CHUNKS * 3 // 4 or self._cost_bytes > TRANSFER_WINDOW_BYTES * 3 // 4
        ):
            return []
        blobs: list[bytes] = []
        while self._wanted and len(self._cost) < TRANSFER_WINDOW_CHUNKS:
            blob, most = self._wanted[0]
            if self._cost_bytes + most > TRANSFER_WINDOW_BYTES:
                break
            self._wanted.popleft()
            if blob in self._cost:  # the same bytes are a page and a chunk, and are being kept just now
                continue
            self._asked[blob] = self._cost[blob] = most
            self._cost_bytes += most
            blobs.append(blob)
        return [
            Send(message=Wish(blobs=tuple(blobs[start : start + WISH_LIST_MAX]))) for start in range(0, len(blobs), WISH_LIST_MAX)
        ]

    def _progress(self) -> Progressed:
        return Progressed(progress=Progress(size=self._root.size, held=self._held_bytes, wire=self._wire_bytes))


def _in_order(blobs: Iterable[bytes]) -> tuple[bytes, ...]:
    return tuple(sorted(set(blobs)))
