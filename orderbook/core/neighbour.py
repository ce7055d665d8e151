"""One relay neighbour as the market keeps it: what he follows and knows, what waits to go to him, how much he may send."""

from collections import deque
from collections.abc import Container, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple

from orderbook.core.frames import FRAMES, Batch, Names
from orderbook.core.session import Session
from wire.bucket import Bucket
from wire.errors import Misbehaved
from wire.keys import PeerId
from wire.limits import (
    BATCH_AGE_MAX_MS,
    BATCH_MAX_BYTES,
    BATCH_MAX_NAMES,
    BATCH_MAX_ORDERS,
    BATCH_WINDOW_MAX_MS,
    BATCH_WINDOW_MIN_MS,
    NAMES_FROM,
    NAMES_TOLD_MAX,
    RECONCILE_BUSY_PER_S,
    RECONCILE_BUSY_REST_MS,
    RECONCILE_BYTES_MAX,
    RECONCILE_BYTES_PER_S,
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
from wire.values import as_tuple

_WINDOW_PER_MESSAGE_MS: Final = 5
_SAMPLES: Final = 8
_SAMPLES_TO_ACCUSE: Final = 3
_FRAMING_BYTES: Final = 6  # of a message and of its age
_NAME_BYTES: Final = 34
_SHOWN_HALF: Final = RELAY_KNOWN_IDS // 2  # of what is remembered; when the younger half is full, the older is forgotten


@dataclass(frozen=True, slots=True)
class Compared:
    """When we last began to compare a book with him, and how much had ever come into it by then."""

    at: Instant
    changes: int


class Parcel(NamedTuple):
    """A message on its way to neighbours: when it appeared, if known; whether it must go whole; its share of a frame."""

    raw: bytes
    born: Instant | None
    whole: bool
    size: int


def parcel(raw: bytes, born: Instant | None = None, *, whole: bool = False) -> Parcel:
    """One for all neighbours. Where many wait, what need not go ``whole`` is only named."""
    return as_tuple(Parcel, (raw, born, whole, len(raw) + _FRAMING_BYTES if whole else _NAME_BYTES))


Fresh = tuple[bytes, bytes, Parcel]
"""A message that nobody has been told of yet: its id and its book."""

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
        self._shown: set[bytes] = set()
        self._shown_before: set[bytes] = set()
        self._box: dict[bytes, Parcel] = {}
        self._named: deque[dict[bytes, Parcel]] = deque(maxlen=NAMES_TOLD_MAX)
        self._asks: list[bytes] = []
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
        """Whether our ``book`` has grown so fast since we last compared it with him that what differs is mostly under way:
        comparing again would bring little and cost much. Once in a while it is done all the same.
        """
        last = self.compared.get(book)
        if last is None or book not in self.reconciled:
            return False
        elapsed_ms = max(RECONCILE_REST_MS, (now - last.at) // MILLISECOND)
        return elapsed_ms < RECONCILE_BUSY_REST_MS and 1_000 * (changes - last.changes) > RECONCILE_BUSY_PER_S * elapsed_ms

    def rested(self, book: bytes, now: Instant) -> Instant:
        """The first moment at which a difference from him is worth another comparison."""
        last = self.compared.get(book)
        return now if last is None else max(now, after(last.at, RECONCILE_REST_MS * MILLISECOND))

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
        self._shown.add(message_id)
        if message_id in self._box:
            self._unbox(message_id)
        if len(self._shown) >= _SHOWN_HALF:
            self._shown, self._shown_before = set(), self._shown

    def shows_all(self, message_ids: tuple[bytes, ...]) -> None:
        """He has all of these."""
        self._shown.update(message_ids)
        for one in self._box.keys() & message_ids:
            self._unbox(one)
        if len(self._shown) >= _SHOWN_HALF:
            self._shown, self._shown_before = set(), self._shown

    def knows(self, message_id: bytes) -> bool:
        """Whether he has shown this message."""
        return message_id in self._shown or message_id in self._shown_before

    def _unbox(self, message_id: bytes) -> None:
        if message_id in self._box:
            self._box_bytes -= self._box.pop(message_id).size

    def put(self, message_id: bytes, item: Parcel) -> bool:
        """Queue a message that he has not shown. False when his box is full."""
        if message_id not in self._box:
            if len(self._box) >= RELAY_OUTBOX_MESSAGES:
                return False
            self._box[message_id] = item
            self._box_bytes += item.size
        return True

    def queue(self, fresh: Iterable[Fresh]) -> int:
        """Queue what he follows and has not shown. Returns how many found his box full."""
        books, shown, before, box = self.books, self._shown, self._shown_before, self._box
        news = {
            name: item
            for name, book, item in fresh
            if name not in shown and name not in before and book in books and name not in box
        }
        room = RELAY_OUTBOX_MESSAGES - len(box)
        overrun = max(0, len(news) - room)
        if overrun:
            news = dict(islice(news.items(), room))
        box.update(news)
        self._box_bytes += sum([item.size for item in news.values()])
        return overrun

    def give(self, message_id: bytes, raw: bytes) -> bool:
        """Queue a message that he has asked for. False when his box is full."""
        born = next((box[message_id].born for box in reversed(self._named) if message_id in box), None)
        self._unbox(message_id)
        return self.put(message_id, parcel(raw, born, whole=True))

    def ask(self, message_ids: Iterable[bytes]) -> None:
        """Ask him with the next batch for messages that he has named."""
        self._asks += message_ids

    def flush_at(self) -> Instant | None:
        """When the next batch leaves: at once after a quiet window or when one is full, else when the window ends.

        The window grows with what the last batch held: few messages are hurried on, many share the cost of a frame.
        """
        if not self._box and not self._asks:
            return None
        full = self._box_bytes >= BATCH_MAX_BYTES or len(self._box) >= BATCH_MAX_ORDERS
        if full or self._last_batch is None:
            return Instant(0)
        return after(self._last_batch, self._window_ms * MILLISECOND)

    def flush(self, now: Instant, packed: Packed | None = None, known: Container[bytes] = ()) -> tuple[bytes, ...]:
        """The frames that leave now. ``packed`` has those of other neighbours to whom the same leaves at this moment; what is
        ``known`` need not be asked for any more.
        """
        at = self.flush_at()
        if at is None or at > now:
            return ()
        self._last_batch = now
        box, asks = self._box, [name for name in self._asks if name not in known]
        self._box, self._box_bytes, self._asks = {}, 0, []
        self._window_ms = min(max(BATCH_WINDOW_MIN_MS, _WINDOW_PER_MESSAGE_MS * len(box)), BATCH_WINDOW_MAX_MS)
        told = [name for name, one in box.items() if not one.whole] if len(box) >= NAMES_FROM else []
        if told:
            self._named.append(box)
        if told or asks:
            return _named_frames([one for one in box.values() if one.whole or not told], told, asks, now)
        names = tuple(box)
        frames = packed.get(names) if packed else None
        if frames is None:
            frames = tuple(FRAMES.pack(batch) for batch in _batches(box.values(), now))
            if packed is not None:
                packed[names] = frames
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


def _batches(waiting: Iterable[Parcel], now: Instant) -> list[Batch]:
    ages_ms = [_age_ms(one.born, now) for one in waiting]
    found: list[Batch] = []
    for part in batches([one.raw for one in waiting]):
        found.append(Batch(messages=part, moment_us=now, ages_ms=tuple(ages_ms[: len(part)])))
        del ages_ms[: len(part)]
    return found


def _named_frames(waiting: list[Parcel], told: list[bytes], asks: list[bytes], now: Instant) -> tuple[bytes, ...]:
    """What goes whole, and as many names beside it as there is room for; the rest of the names in frames of their own."""
    parts, batch, room = _batches(waiting, now), Batch(messages=()), BATCH_MAX_NAMES
    if parts:
        taken = sum(len(raw) + _FRAMING_BYTES for raw in parts[-1].messages)
        if taken + _NAME_BYTES <= BATCH_MAX_BYTES:
            batch, room = parts.pop(), min(BATCH_MAX_NAMES, (BATCH_MAX_BYTES - taken) // _NAME_BYTES)
    frames = [FRAMES.pack(one) for one in parts]
    while told or asks:
        has, told = told[:room], told[room:]
        wants, asks = asks[: room - len(has)], asks[room - len(has) :]
        frames.append(FRAMES.pack(Names(batch=batch, has=tuple(has), wants=tuple(wants))))
        batch, room = Batch(messages=()), BATCH_MAX_NAMES
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
