"""One book: the messages heard of one article, and what of it counts in an epoch.

Everything here is a function of the set of messages and of the epoch each *counts from*:

- a message counts from its key epoch (an order's first, a close's named epoch) or, if it came later, from the epoch in whose
  freeze it could still be known: what arrives after e's freeze counts from e + 1;
- within (owner, side, slot) only the order with the greatest (sequence, id) of those that count can be eligible, even when it
  has itself expired or been closed: an older one does not come back while the newer is retained;
- a message is retained until its key epoch + 60, and forgotten at the same epoch everywhere;
- of one owner's messages of one kind (of one slot, if they are orders) and one key epoch only so many of the greatest
  (sequence, id) are kept. That is again a function of the set, so honest books agree on it, and an owner who floods pushes out
  nobody's messages but his own.

History matters to that, so what we *asked* a neighbour for is admitted while it is retained, expired or not; what is pushed at
us unasked must still be alive.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from orderbook.core.auction import Entry
from orderbook.core.index import Index
from orderbook.core.messages import CLOSES, PROOFS, Close, Heard, Lane, Order
from orderbook.core.negentropy import Vector
from orderbook.core.view import Eligible, Kept, View, eligible_of, rank_of, root_of
from wire.errors import Ignore
from wire.limits import BOOK_MESSAGES_MAX, ORDER_RETAIN_EPOCHS, OWNER_CLOSES_MAX, OWNER_ORDERS_MAX, OWNER_PROOFS_MAX
from wire.moments import Instant
from wire.network import EpochClock
from wire.values import as_tuple

__all__ = ["Book", "Kept"]  # who keeps books keeps these

_AHEAD_EPOCHS: Final = 2
_IDLE_EPOCHS: Final = 2
_LANE_MOST: Final = {CLOSES: OWNER_CLOSES_MAX, PROOFS: OWNER_PROOFS_MAX}


class _Moment(NamedTuple):
    """A moment, the epoch it falls in, and the first epoch that what comes now can be known for."""

    now: Instant
    epoch: int
    known_epoch: int


class Book:
    """The messages of one book. Not a machine: it only remembers and answers. ``changes`` counts what has ever been admitted."""

    def __init__(self, clock: EpochClock, most: int = BOOK_MESSAGES_MAX) -> None:
        self._clock = clock
        self._most = most
        self._kept: dict[bytes, Kept] = {}
        self._slots: dict[Lane, tuple[Kept, ...]] = {}
        self._closes: dict[bytes, dict[bytes, Kept]] = {}
        self._by_key: dict[int, dict[Lane, tuple[bytes, ...]]] = {}
        self._index: Index | None = None
        self._view: View | None = None
        self._moment = _Moment(Instant(-1), -1, -1)
        self.changes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, message_id: bytes) -> bool:
        return message_id in self._kept

    def raws(self) -> Iterator[bytes]:
        """The gossiped bytes of everything."""
        return (kept.heard.raw for kept in self._kept.values())

    def raw(self, message_id: bytes) -> bytes | None:
        """The gossiped bytes of a message, if it is still retained."""
        kept = self._kept.get(message_id)
        return kept.heard.raw if kept else None

    def messages(self) -> tuple[Kept, ...]:
        """All that is retained, the latest key epoch first, then ascending by id."""
        return tuple(sorted(self._kept.values(), key=lambda kept: (-kept.heard.key_epoch, kept.heard.id)))

    # --- in -------------------------------------------------------------------------------------------------

    def _at(self, now: Instant) -> _Moment:
        """The epochs of ``now``. Messages come in batches, so they are mostly those of the last one."""
        if now != self._moment.now:
            epoch = self._clock.epoch(now)
            self._moment = _Moment(now, epoch, epoch if now <= self._clock.freeze(epoch) else epoch + 1)
        return self._moment

    def admissible(self, heard: Heard, now: Instant, *, asked: bool) -> Heard | None:
        """Raise ``Ignore`` when the message has no place here now: duplicate, early, expired, outranked by enough others of its
        owner, or the book is full. Returns what has to go if it comes, because its owner's lane is full.
        """
        _, message_id, _, key_epoch, lane, body, _ = heard
        epoch = (self._moment if now == self._moment.now else self._at(now)).epoch
        if message_id in self._kept:
            raise Ignore("duplicate", "this message is known")
        if key_epoch > epoch + _AHEAD_EPOCHS:
            raise Ignore("early", f"epoch {key_epoch} is too far ahead of {epoch}")
        last = body.last_epoch if isinstance(body, Order) and not asked else key_epoch + ORDER_RETAIN_EPOCHS
        if last < epoch:
            raise Ignore("expired", f"this message ended with epoch {last}, now is {epoch}")
        lanes = self._by_key.get(key_epoch)
        names = lanes.get(lane, ()) if lanes is not None else ()
        if not names or len(names) < _LANE_MOST.get(lane[-1], OWNER_ORDERS_MAX):
            if len(self._kept) >= self._most:
                raise Ignore("book-full", f"the book holds its {self._most} messages already")
            return None
        least = min((self._kept[one].heard for one in names), key=rank_of)
        if rank_of(heard) < rank_of(least):
            raise Ignore("outranked", "its owner has said enough of this kind for one epoch, all of it with greater sequences")
        return least

    def admit(self, heard: Heard, now: Instant, *, asked: bool) -> bytes | None:
        """Keep a message whose signatures have been verified. Returns the bytes of what it pushes out, another of its owner's.
        Raises like ``admissible``.
        """
        least = self.admissible(heard, now, asked=asked)
        gone = None if least is None else self._let_go(least.id)
        _, message_id, _, key_epoch, lane, body, _ = heard
        kept = self.keep(heard, self._moment.known_epoch)
        self._kept[message_id] = kept
        lanes = self._by_key.setdefault(key_epoch, {})
        lanes[lane] = (*lanes.get(lane, ()), message_id)
        if isinstance(body, Order):
            others = self._slots.get(lane)
            self._slots[lane] = (kept,) if others is None else (*others, kept)
        elif isinstance(body, Close):
            self._closes.setdefault(body.order, {})[message_id] = kept
        self.changes += 1
        if self._index is not None:
            self._index.add(kept.item)
        if self._view is not None:
            self._view.added(kept)
        return gone

    def keep(self, heard: Heard, known_epoch: int) -> Kept:
        """What is remembered of a message. The same for every node that could know it from the same epoch on."""
        body, entry = heard.body, None
        if isinstance(body, Order):
            entry = as_tuple(Entry, (heard.id, body.owner, body.side, body.price_msat, body.quantity, body.avoid))
        key_epoch = heard.key_epoch
        return as_tuple(Kept, (heard, known_epoch, max(key_epoch, known_epoch), entry, (key_epoch, heard.id)))

    # --- out ------------------------------------------------------------------------------------------------

    def _let_go(self, message_id: bytes) -> bytes:
        """Drop one message that is still retained elsewhere in its epoch."""
        kept = self._kept[message_id]
        lanes = self._by_key[kept.item[0]]
        lanes[kept.heard.lane] = tuple(one for one in lanes[kept.heard.lane] if one != message_id)
        if self._index is not None:
            self._index.remove(kept.item)
        return self._drop(message_id)

    def forget(self, epoch: int) -> tuple[bytes, ...]:
        """Drop what is no longer retained in ``epoch``; returns the raw bytes of all that went."""
        oldest = epoch - ORDER_RETAIN_EPOCHS
        gone: list[bytes] = []
        for key in sorted(one for one in self._by_key if one < oldest):
            for names in self._by_key.pop(key).values():
                gone += [self._drop(name) for name in names]
        if gone and self._index is not None:
            self._index.forget_before(oldest)
        if self._view is not None and self._view.epoch < epoch - _IDLE_EPOCHS:
            self._view = None  # nobody asks; it is made anew when somebody does
        return tuple(gone)

    def _drop(self, message_id: bytes) -> bytes:
        kept = self._kept.pop(message_id)
        body = kept.heard.body
        if isinstance(body, Order):
            lane = kept.heard.lane
            self._slots[lane] = tuple(one for one in self._slots[lane] if one is not kept)
            if not self._slots[lane]:
                del self._slots[lane]
        elif isinstance(body, Close):
            del self._closes[body.order][message_id]
            if not self._closes[body.order]:
                del self._closes[body.order]
        if self._view is not None:
            self._view.dropped(kept)
        return kept.heard.raw

    # --- answers --------------------------------------------------------------------------------------------

    def eligible(self, epoch: int, *, late: bool = False) -> Eligible:
        """The buys and the sells of ``epoch``, ascending by id. With ``late`` also what came after the freeze counts: that
        is the view of two parties who have compared their books because they disagreed.
        """
        view = None if late else self._viewing(epoch)
        return eligible_of(self._slots, self._closes, epoch, late=late) if view is None else view.eligible(epoch)

    def root(self, epoch: int) -> bytes:
        """32 bytes: BLAKE3 over the sorted ids of all retained messages known at the freeze of ``epoch`` with a key epoch
        not after it. Equal roots mean equal books.
        """
        view = self._viewing(epoch)
        return root_of(self._kept.values(), epoch) if view is None else view.root(epoch)

    def _viewing(self, epoch: int) -> View | None:
        """The view that is carried along, or None when ``epoch`` lies behind it."""
        if self._view is None:
            self._view = View(self._kept, self._slots, self._closes, epoch)
        return self._view if self._view.epoch <= epoch else None

    def vector(self) -> Vector:
        """All retained ids as a reconciliation set, which stays as it is whatever comes later."""
        if self._index is None:
            self._index = Index(kept.item for kept in self._kept.values())
        return self._index.vector()
