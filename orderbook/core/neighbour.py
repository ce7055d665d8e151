"""One relay neighbour as the market keeps it: what he follows and knows, what waits to go to him, how much he may send."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from orderbook.core.frames import FRAMES, Batch
from orderbook.core.session import Session
from wire.bucket import Bucket
from wire.errors import Misbehaved
from wire.keys import PeerId
from wire.limits import (
    BATCH_AGE_MAX_MS,
    BATCH_MAX_BYTES,
    BATCH_MAX_ORDERS,
    BATCH_WINDOW_MAX_MS,
    BATCH_WINDOW_MIN_MS,
    RECONCILE_BUSY_PER_S,
    RECONCILE_BYTES_MAX,
    RECONCILE_BYTES_PER_S,
    RECONCILE_INTERVAL_MS,
    RECONCILE_REST_MS,
    RECONCILE_ROUNDS_BURST,
    RECONCILE_ROUNDS_PER_S,
    RECONCILE_TIMEOUT_MS,
    RELAY_KNOWN_IDS,
    RELAY_OUTBOX_MESSAGES,
    RELAY_TOKENS_MAX,
    RELAY_TOKENS_PER_S,
)
from wire.moments import MILLISECOND, Instant, after

_WINDOW_PER_MESSAGE_MS: Final = 5
_SAMPLES: Final = 8
_SAMPLES_TO_ACCUSE: Final = 3
_FRAMING_BYTES: Final = 6  # of a message and of its age


@dataclass(frozen=True, slots=True)
class Compared:
    """When we last began to compare a book with him, and how much had ever come into it by then."""

    at: Instant
    changes: int


Packed = dict[tuple[bytes, ...], tuple[bytes, ...]]
"""Frames by the ids of the messages in them."""


class Neighbour:
    """Bounded state about one neighbour."""

    def __init__(self, peer: PeerId, now: Instant) -> None:
        self.peer = peer
        self.books: frozenset[bytes] = frozenset()
        self.greeted = False
        self.shared: tuple[bytes, ...] = ()
        self.sessions: dict[bytes, Session] = {}
        self.reconciled: set[bytes] = set()
        self.planned: dict[bytes, Instant] = {}
        self.waiting: dict[bytes, None] = {}
        self.compared: dict[bytes, Compared] = {}
        self.roots: dict[bytes, bytes] = {}
        self.roots_epoch = -1
        self.told: dict[bytes, bytes] = {}
        self.mute = False
        self._blamed_at: Instant | None = None
        self._known: dict[bytes, None] = {}
        self._box: dict[bytes, tuple[bytes, Instant | None]] = {}
        self._box_bytes = 0
        self._window_ms = BATCH_WINDOW_MIN_MS
        self._last_batch: Instant | None = None
        self._tokens = Bucket(RELAY_TOKENS_PER_S, RELAY_TOKENS_MAX, now)
        self._bytes = Bucket(RECONCILE_BYTES_PER_S, RECONCILE_BYTES_MAX, now)
        self._rounds = Bucket(RECONCILE_ROUNDS_PER_S, RECONCILE_ROUNDS_BURST, now)
        self._offsets: deque[int] = deque(maxlen=_SAMPLES)
        self._best_offset = 0

    def part(self, book: bytes) -> None:
        """One of us has left ``book``."""
        self.reconciled.discard(book)
        for table in (self.planned, self.waiting, self.compared, self.told):
            table.pop(book, None)

    # --- comparing ------------------------------------------------------------------------------------------

    def begins(self, session: Session, changes: int, now: Instant) -> None:
        """We begin to compare a book with him."""
        self.sessions[session.book] = session
        self.compared[session.book] = Compared(now, changes)

    def grown(self, book: bytes, changes: int) -> bool:
        """Whether anything has come into our ``book`` since we last began to compare it with him."""
        last = self.compared.get(book)
        return last is None or last.changes != changes

    def grows_fast(self, book: bytes, changes: int, now: Instant) -> bool:
        """Whether our ``book`` has grown so fast since we last compared it with him that what differs is mostly under way."""
        last = self.compared.get(book)
        if last is None:
            return False
        elapsed_ms = max(RECONCILE_REST_MS, (now - last.at) // MILLISECOND)
        return 1_000 * (changes - last.changes) > RECONCILE_BUSY_PER_S * elapsed_ms

    def rested(self, book: bytes, changes: int, now: Instant) -> Instant:
        """The first moment at which a difference from him is worth another comparison."""
        last = self.compared.get(book)
        if last is None:
            return now
        rest_ms = RECONCILE_INTERVAL_MS if self.grows_fast(book, changes, now) else RECONCILE_REST_MS
        return max(now, after(last.at, rest_ms * MILLISECOND))

    def compares(self, size_bytes: int, now: Instant) -> bool:
        """Charge one message of a comparison, whoever began it. False, and nothing charged, when that is beyond all need."""
        return self._rounds.spend(1, now) and self._bytes.spend(size_bytes, now)

    def is_told(self, size_bytes: int, now: Instant) -> None:
        """Charge the answer to such a message."""
        self._bytes.charge(size_bytes, now)

    def may_compare(self, now: Instant) -> bool:
        """Whether so much of both budgets is left that we may go on without emptying his."""
        return self._rounds.well_filled(now) and self._bytes.well_filled(now)

    def speaks(self) -> None:
        """He has answered."""
        self.mute = False

    def keeps_silent(self, now: Instant) -> bool:
        """He has let a comparison of ours hang. Whether that is to be held against him: once for all that hang together."""
        self.mute = True
        if self._blamed_at is not None and now < after(self._blamed_at, RECONCILE_TIMEOUT_MS * MILLISECOND):
            return False
        self._blamed_at = now
        return True

    # --- what he knows, and what goes to him ----------------------------------------------------------------

    def shows(self, message_id: bytes) -> None:
        """He has this message: it need not be sent to him, now or later."""
        self._learn(message_id)
        waiting = self._box.pop(message_id, None)
        if waiting is not None:
            self._box_bytes -= len(waiting[0]) + _FRAMING_BYTES

    def _learn(self, message_id: bytes) -> None:
        known = self._known
        known.pop(message_id, None)
        known[message_id] = None
        if len(known) > RELAY_KNOWN_IDS:
            del known[next(iter(known))]

    def put(self, message_id: bytes, raw: bytes, born: Instant | None = None) -> bool:
        """Queue a message for him unless he has shown it; ``born`` is when it appeared, if known. False when his box is full."""
        if message_id in self._known:
            return True
        if len(self._box) >= RELAY_OUTBOX_MESSAGES:
            return False
        self._learn(message_id)
        self._box[message_id] = (raw, born)
        self._box_bytes += len(raw) + _FRAMING_BYTES
        return True

    def flush_at(self) -> Instant | None:
        """When the next batch leaves: at once after a quiet window or when one is full, else when the window ends.

        The window grows with what the last batch held: few messages are hurried on, many share the cost of a frame.
        """
        if not self._box:
            return None
        if self._last_batch is None or self._full():
            return Instant(0)
        return after(self._last_batch, self._window_ms * MILLISECOND)

    def _full(self) -> bool:
        return self._box_bytes >= BATCH_MAX_BYTES or len(self._box) >= BATCH_MAX_ORDERS

    def flush(self, now: Instant, packed: Packed | None = None) -> tuple[bytes, ...]:
        """The frames that leave now. ``packed`` has those of other neighbours to whom the same messages leave at this moment."""
        at = self.flush_at()
        if at is None or at > now:
            return ()
        self._last_batch = now
        self._window_ms = min(max(BATCH_WINDOW_MIN_MS, _WINDOW_PER_MESSAGE_MS * len(self._box)), BATCH_WINDOW_MAX_MS)
        names, waiting = tuple(self._box), self._box.values()
        frames = packed.get(names) if packed else None
        if frames is None:
            frames = _frames(waiting, now)
            if packed is not None:
                packed[names] = frames
        self._box, self._box_bytes = {}, 0
        return frames

    # --- what he may send -----------------------------------------------------------------------------------

    def spend(self, tokens: int, now: Instant) -> bool:
        """Take ``tokens`` from his bucket; False when he sends faster than anyone needs to."""
        return self._tokens.spend(tokens, now)

    # --- what time he has -----------------------------------------------------------------------------------

    def tells_time(self, moment_us: int, now: Instant) -> None:
        """A frame with his clock's reading has arrived."""
        self._offsets.append(moment_us - now)
        self._best_offset = max(self._offsets)

    def births(self, batch: Batch, now: Instant) -> list[Instant | None]:
        """When each message of his batch appeared, by our clock, or None where nobody knows.

        That is how old he says it was when the batch left, and how much longer the batch took than the quickest of his last
        frames; the quickest way itself cannot be known from one clock. Raises ``Misbehaved``.
        """
        if not batch.ages_ms:
            return [None] * len(batch.messages)
        if len(batch.ages_ms) != len(batch.messages):
            raise Misbehaved("malformed", "a batch tells the age of every message or of none")
        way_us = max(0, now - batch.moment_us + self._best_offset) if self._offsets else 0
        left = now - min(way_us, BATCH_AGE_MAX_MS * MILLISECOND)
        return [None if age == BATCH_AGE_MAX_MS else Instant(left - age * MILLISECOND) for age in batch.ages_ms]

    def offset_us(self) -> int | None:
        """His clock less ours, or None before he has told it.

        A frame's way makes him look late and never early, so the largest of the last samples is the nearest; and to
        find him late takes several. Until then he counts as one who agrees, or a single fast neighbour would outvote all others.
        """
        if not self._offsets:
            return None
        best = self._best_offset
        return best if best >= 0 or len(self._offsets) >= _SAMPLES_TO_ACCUSE else 0


def _frames(waiting: Iterable[tuple[bytes, Instant | None]], now: Instant) -> tuple[bytes, ...]:
    ages_ms = [_age_ms(born, now) for _, born in waiting]
    frames: list[bytes] = []
    for part in batches([raw for raw, _ in waiting]):
        frames.append(FRAMES.pack(Batch(messages=part, moment_us=now, ages_ms=tuple(ages_ms[: len(part)]))))
        del ages_ms[: len(part)]
    return tuple(frames)


def _age_ms(born: Instant | None, now: Instant) -> int:
    return BATCH_AGE_MAX_MS if born is None else min(max(0, now - born) // MILLISECOND, BATCH_AGE_MAX_MS)


def batches(messages: list[bytes]) -> list[tuple[bytes, ...]]:
    """``messages`` in order, cut into parts that fit a batch."""
    parts: list[tuple[bytes, ...]] = []
    part: list[bytes] = []
    size = 0
    for raw in messages:
        if part and (size + len(raw) + _FRAMING_BYTES > BATCH_MAX_BYTES or len(part) >= BATCH_MAX_ORDERS):
            parts.append(tuple(part))
            part, size = [], 0
        part.append(raw)
        size += len(raw) + _FRAMING_BYTES
    if part:
        parts.append(tuple(part))
    return parts
