"""One book: the messages heard of one article, and what of it counts in an epoch.

Everything here is a function of the set of messages and of the epoch each *counts from*:

- a message counts from its key epoch (an order's first, a close's named epoch) or, if it came later, from the epoch in whose
  freeze it could still be known: what arrives after e's freeze counts from e + 1;
- within (owner, side, slot) only the order with the greatest (sequence, id) of those that count can be eligible, even when it
  has itself expired or been closed: an older one does not come back while the newer is retained;
- a message is retained until its key epoch + 60, and forgotten at the same epoch everywhere.

History matters to that, so what we *asked* a neighbour for is admitted while it is retained, expired or not; what is pushed at
us unasked must still be alive.
"""

from typing import Final

from orderbook.core.auction import Entry
from orderbook.core.messages import Close, Heard, Order, Side
from orderbook.core.negentropy import Vector
from wire.digest import plain
from wire.errors import Ignore
from wire.limits import BOOK_MESSAGES_MAX, ORDER_RETAIN_EPOCHS
from wire.moments import Instant
from wire.network import EpochClock
from wire.values import value

_AHEAD_EPOCHS: Final = 2

_Slot = tuple[bytes, Side, int]


@value
class Kept:
    """A message of the book, with the first epoch for which it could be known."""

    heard: Heard
    known_epoch: int
    entry: Entry | None


class Book:
    """The messages of one book. Not a machine: it only remembers and answers."""

    def __init__(self, clock: EpochClock, most: int = BOOK_MESSAGES_MAX) -> None:
        self._clock = clock
        self._most = most
        self._kept: dict[bytes, Kept] = {}
        self._slots: dict[_Slot, dict[bytes, Kept]] = {}
        self._closes: dict[bytes, dict[bytes, Kept]] = {}
        self._by_key: dict[int, set[bytes]] = {}
        self._vector: Vector | None = None

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, message_id: bytes) -> bool:
        return message_id in self._kept

    def raw(self, message_id: bytes) -> bytes | None:
        """The gossiped bytes of a message, if it is still retained."""
        kept = self._kept.get(message_id)
        return kept.heard.raw if kept else None

    def admissible(self, heard: Heard, now: Instant, *, asked: bool) -> None:
        """Raise ``Ignore`` when the message has no place here now: duplicate, early, expired, or the book is full."""
        epoch = self._clock.epoch(now)
        if heard.id in self._kept:
            raise Ignore("duplicate", "this message is known")
        if heard.key_epoch > epoch + _AHEAD_EPOCHS:
            raise Ignore("early", f"epoch {heard.key_epoch} is too far ahead of {epoch}")
        last = heard.body.last_epoch if isinstance(heard.body, Order) and not asked else heard.key_epoch + ORDER_RETAIN_EPOCHS
        if last < epoch:
            raise Ignore("expired", f"this message ended with epoch {last}, now is {epoch}")
        if len(self._kept) >= self._most:
            raise Ignore("book-full", f"the book holds its {self._most} messages already")

    def admit(self, heard: Heard, now: Instant, *, asked: bool) -> None:
        """Keep a message whose signatures have been verified. Raises like ``admissible``."""
        self.admissible(heard, now, asked=asked)
        epoch = self._clock.epoch(now)
        known = epoch if now <= self._clock.freeze(epoch) else epoch + 1
        body, kept = heard.body, self.keep(heard, known)
        self._kept[heard.id] = kept
        self._by_key.setdefault(heard.key_epoch, set()).add(heard.id)
        self._vector = None
        if isinstance(body, Order):
            self._slots.setdefault((body.owner, body.side, body.slot), {})[heard.id] = kept
        elif isinstance(body, Close):
            self._closes.setdefault(body.order, {})[heard.id] = kept

    def keep(self, heard: Heard, known_epoch: int) -> Kept:
        """What is remembered of a message. The same for every node that could know it from the same epoch on."""
        body, entry = heard.body, None
        if isinstance(body, Order):
            entry = Entry(
                id=heard.id,
                owner=body.owner,
                side=body.side,
                price_msat=body.price_msat,
                quantity=body.quantity,
                avoid=body.avoid,
            )
        return Kept(heard=heard, known_epoch=known_epoch, entry=entry)

    def forget(self, epoch: int) -> tuple[bytes, ...]:
        """Drop what is no longer retained in ``epoch``; returns the raw bytes of all that went."""
        gone: list[bytes] = []
        for key in sorted(one for one in self._by_key if one + ORDER_RETAIN_EPOCHS < epoch):
            for message_id in sorted(self._by_key.pop(key)):
                gone.append(self._drop(message_id))
        if gone:
            self._vector = None
        return tuple(gone)

    def _drop(self, message_id: bytes) -> bytes:
        heard = self._kept.pop(message_id).heard
        body = heard.body
        if isinstance(body, Order):
            slot = (body.owner, body.side, body.slot)
            del self._slots[slot][message_id]
            if not self._slots[slot]:
                del self._slots[slot]
        elif isinstance(body, Close):
            del self._closes[body.order][message_id]
            if not self._closes[body.order]:
                del self._closes[body.order]
        return heard.raw

    def eligible(self, epoch: int, *, late: bool = False) -> tuple[tuple[Entry, ...], tuple[Entry, ...]]:
        """The buys and the sells of ``epoch``, ascending by id. With ``late`` also what came after the freeze counts: that
        is the view of two parties who have compared their books because they disagreed.
        """
        buys: list[Entry] = []
        sells: list[Entry] = []
        for slot in self._slots.values():
            counting = [one for one in slot.values() if _counts(one, epoch, late=late)]
            if not counting:
                continue
            newest = max(counting, key=_rank)
            order, entry = newest.heard.body, newest.entry
            if not isinstance(order, Order) or entry is None or order.last_epoch < epoch:
                continue
            if self._closed(newest.heard.id, order.owner, epoch, late=late):
                continue
            (buys if order.side is Side.BUY else sells).append(entry)
        return tuple(sorted(buys, key=_entry_id)), tuple(sorted(sells, key=_entry_id))

    def _closed(self, order_id: bytes, owner: bytes, epoch: int, *, late: bool) -> bool:
        closes = self._closes.get(order_id)
        if not closes:
            return False
        return any(
            isinstance(one.heard.body, Close) and one.heard.body.owner == owner and _counts(one, epoch, late=late)
            for one in closes.values()
        )

    def root(self, epoch: int) -> bytes:
        """32 bytes: BLAKE3 over the sorted ids of all retained messages known at the freeze of ``epoch`` with a key epoch
        not after it. Equal roots mean equal books.
        """
        return plain(b"".join(sorted(name for name, kept in self._kept.items() if _counts(kept, epoch, late=False))))

    def vector(self) -> Vector:
        """All retained ids as a reconciliation set, kept until the book changes."""
        if self._vector is None:
            self._vector = Vector((kept.heard.key_epoch, name) for name, kept in self._kept.items())
        return self._vector


def _counts(kept: Kept, epoch: int, *, late: bool) -> bool:
    return kept.heard.key_epoch <= epoch and (late or kept.known_epoch <= epoch)


def _rank(kept: Kept) -> tuple[int, bytes]:
    body = kept.heard.body
    return (body.sequence if isinstance(body, Order) else -1, kept.heard.id)


def _entry_id(entry: Entry) -> bytes:
    return entry.id
