"""The writing hand of the desk: lines, sequences, orders and closes of our own, and the journal of what we signed.

Rows of the journal's table ``desk``:

    sequence              8 bytes, big-endian: the first owner sequence not yet reserved; reserved in blocks of 1,000
    signed/<match id>     a match that we signed, in which role, our signature, the other party; kept while the books remember
"""

from collections.abc import Iterable, Mapping
from typing import Final

from orderbook.core.agreement import LETTERS, Confirm
from orderbook.core.events import DeskEffect, Letter, PublishOrder, Want
from orderbook.core.line import Line, Standing, free_slot
from orderbook.core.messages import GOSSIP, ORDER, Close, Match, Order, Side, match_id, seal_close, seal_order
from wire.canon import EncodingError, Public33, Signature64, pack, record, unpack
from wire.effects import Save
from wire.envelope import id_of
from wire.errors import require
from wire.keys import SecretKey, peer_id_of
from wire.limits import (
    AVOID_MAX,
    ORDER_LIFE_DEFAULT_EPOCHS,
    ORDER_RETAIN_EPOCHS,
    OWNER_SLOTS,
    PRICE_MAX_MSAT,
    QUANTITY_MAX,
    SEQUENCE_BLOCK,
)
from wire.moments import MILLISECOND, Instant
from wire.network import Network

TABLE: Final = "desk"
_SEQUENCE: Final = b"sequence"
_SIGNED: Final = b"signed/"
_DISOWNED_MAX: Final = 1_024
_GATHER_MS: Final = 100
_EARLY_WRITES_MAX: Final = 2

LineKey = tuple[bytes, Side, int]


@record
class SignedRow:
    """A signature of ours, as the journal keeps it."""

    match: Match
    side: Side
    signature: Signature64
    other: Public33


class Pen:
    """What stands in our name, and how it is written."""

    def __init__(self, key: SecretKey, network: Network, rows: Mapping[bytes, bytes], run: bytes) -> None:
        self._key, self._network, self._clock, self._run = key, network, network.clock, run
        self.lines: dict[LineKey, Line] = {}
        self.orders: dict[bytes, Standing] = {}
        self._disowned: dict[bytes, bytes] = {}
        self._next, self._reserved = 0, int.from_bytes(rows.get(_SEQUENCE, b""), "big")
        self._next = self._reserved
        self._signed: dict[bytes, int] = {}
        self._confirmed: list[SignedRow] = []
        self._hushed: set[bytes] = set()
        for name, value in sorted(rows.items()):
            if name.startswith(_SIGNED):
                row = _signed_row(value)
                self._signed[name] = row.match.epoch if row is not None else -1
                if row is not None and row.side is Side.BUY:
                    self._confirmed.append(row)
        self._epoch = 0

    # --- lines ----------------------------------------------------------------------------------------------

    def want(self, want: Want, now: Instant) -> Line | None:
        """Change the line that ``want`` speaks of, made if there is none; None when the book has no slot left for us."""
        require(0 <= want.price_msat <= PRICE_MAX_MSAT, "price", "a price is 0 to 2^40 msat")
        require(want.quantity >= 0, "quantity", "a quantity is not negative")
        name = (want.book, want.side, want.price_msat)
        line = self.lines.get(name)
        if line is None:
            slot = free_slot([one for one in self.lines.values() if (one.book, one.side) == name[:2]], OWNER_SLOTS)
            if slot is None:
                return None
            line = self.lines[name] = Line(book=want.book, side=want.side, price_msat=want.price_msat, slot=slot)
        avoid = tuple(sorted(set(want.avoid[:AVOID_MAX])))
        if (line.wanted, line.avoid) != (want.quantity, avoid):
            line.wanted, line.avoid, line.changed_at = want.quantity, avoid, now
        return line

    def sorted_lines(self) -> list[Line]:
        """All lines, in an order that does not depend on the process."""
        return [self.lines[name] for name in sorted(self.lines, key=lambda one: (one[0], one[1].value, one[2]))]

    # --- when to write --------------------------------------------------------------------------------------

    def _writes_at(self, line: Line, epoch: int, *, busy: bool) -> Instant:
        """When in ``epoch`` a stale line is written: from the middle of the time for signing on, a moment after it changed, so
        that what comes together is written together; when it is busy with an agreement, or has been written several times,
        half way between ``accept_by`` and the epoch's end.
        """
        freeze, accept_by, end = self._clock.freeze(epoch), self._clock.accept_by(epoch), self._clock.start(epoch + 1)
        last = Instant((accept_by + end) // 2)
        writes = line.writes if line.written_epoch == epoch else 0
        if writes > _EARLY_WRITES_MAX:
            return self._writes_at(line, epoch + 1, busy=busy)
        if busy or writes == _EARLY_WRITES_MAX:
            return last
        return Instant(min(last, max((freeze + accept_by) // 2, line.changed_at + _GATHER_MS * MILLISECOND)))

    def next_writing(self, busy: frozenset[int]) -> Instant | None:
        """When an order is to be written next; ``busy`` holds the identities of lines with an open agreement."""
        moments = []
        for line in self.lines.values():
            standing = line.standing
            if line.book in self._hushed:
                continue
            if line.stale(self._epoch):
                moments.append(self._writes_at(line, self._epoch, busy=id(line) in busy))
            elif standing is not None and not standing.closed and line.free > 0:
                moments.append(self._writes_at(line, standing.order.last_epoch - 1, busy=False))
        return min(moments, default=None)

    def write_due(self, now: Instant, busy: frozenset[int]) -> list[DeskEffect]:
        """Write what is due."""
        self._epoch = self._clock.epoch(now)
        effects: list[DeskEffect] = []
        for line in self.sorted_lines():
            if line.stale(self._epoch) and self._writes_at(line, self._epoch, busy=id(line) in busy) <= now:
                effects += self.write(line, now)
        return effects

    def write(self, line: Line, now: Instant) -> list[DeskEffect]:
        """Make the standing order what it should be from the next epoch on."""
        epoch = self._clock.epoch(now)
        if line.book in self._hushed or not line.stale(epoch):
            return []
        line.writes = line.writes + 1 if line.written_epoch == epoch else 1
        line.written_epoch = epoch
        if line.free == 0:
            return self.close(line.standing, epoch)[1] if line.standing is not None else []
        sequence, effects = self._sequence(now)
        order = Order(
            network=self._network.name,
            book=line.book,
            side=line.side,
            price_msat=line.price_msat,
            quantity=min(line.free, QUANTITY_MAX),
            first_epoch=epoch + 1,
            last_epoch=epoch + ORDER_LIFE_DEFAULT_EPOCHS,
            owner=self._key.public,
            slot=line.slot,
            sequence=sequence,
            salt=self._key.derive("order-salt", self._run, sequence.to_bytes(8, "big"))[:16],
            avoid=line.avoid,
        )
        message = seal_order(self._key, self._network, order)
        order_id = id_of(self._network.name, ORDER, GOSSIP.unpack(message).body)
        line.standing = self.orders[order_id] = Standing(id=order_id, order=order, line=line)
        return [*effects, PublishOrder(message=message)]

    def _sequence(self, now: Instant) -> tuple[int, list[DeskEffect]]:
        """The next owner sequence: beyond those of earlier runs, mostly also when the journal was lost or an old one came back,
        for time passes meanwhile. Nothing depends on that but which order supersedes which; ``run`` keeps their ids apart.
        """
        effects: list[DeskEffect] = []
        if self._next >= self._reserved:
            self._next = max(self._next, now * SEQUENCE_BLOCK // (self._clock.length_ms * MILLISECOND))
            self._reserved = self._next + SEQUENCE_BLOCK
            effects.append(Save(table=TABLE, key=_SEQUENCE, value=self._reserved.to_bytes(8, "big")))
        self._next += 1
        return self._next - 1, effects

    def hush(self, book: bytes, epoch: int, *, hushed: bool) -> list[DeskEffect]:
        """While we cannot trade in ``book``, nothing of ours stands in it: it would win auctions and then do nothing."""
        if not hushed:
            self._hushed.discard(book)
            return []
        effects: list[DeskEffect] = []
        if book not in self._hushed:
            self._hushed.add(book)
            for line in self.sorted_lines():
                if line.book == book and line.standing is not None:
                    effects += self.close(line.standing, epoch)[1]
        return effects

    # --- closing --------------------------------------------------------------------------------------------

    def close(self, standing: Standing, epoch: int) -> tuple[bytes, list[DeskEffect]]:
        """The close of an order, from the next epoch on, and its publication; written once."""
        if standing.close:
            return standing.close, []
        standing.close = self._close(standing.order.book, standing.id, epoch)
        return standing.close, [PublishOrder(message=standing.close)]

    def disown(self, book: bytes, order_id: bytes, epoch: int) -> tuple[bytes, list[DeskEffect]]:
        """Close an order in our name that we did not publish in this run; published once."""
        known = self._disowned.get(order_id)
        if known is not None:
            return known, []
        if len(self._disowned) >= _DISOWNED_MAX:
            del self._disowned[next(iter(self._disowned))]
        message = self._disowned[order_id] = self._close(book, order_id, epoch)
        return message, [PublishOrder(message=message)]

    def _close(self, book: bytes, order_id: bytes, epoch: int) -> bytes:
        close = Close(network=self._network.name, book=book, order=order_id, epoch=epoch + 1, owner=self._key.public)
        return seal_close(self._key, self._network, close)

    # --- the journal ----------------------------------------------------------------------------------------

    def record(self, match: Match, side: Side, signature: bytes, other: bytes) -> Save:
        """The row that must be kept before ``signature`` leaves for ``other``."""
        name = _SIGNED + match_id(match)
        self._signed[name] = match.epoch
        return Save(table=TABLE, key=name, value=pack(SignedRow(match=match, side=side, signature=signature, other=other)))

    def owed(self, now: Instant) -> list[Letter]:
        """After a restart: the confirmations that may have been kept without having left, while sellers can still take them."""
        due = [one for one in self._confirmed if now <= self._clock.accept_by(one.match.epoch)]
        letters = [(one.other, Confirm(match=one.match, signature=one.signature)) for one in due]
        return [Letter(peer=peer_id_of(other), payload=LETTERS.pack(letter)) for other, letter in letters]

    def tidy(self, epoch: int) -> Iterable[DeskEffect]:
        """Forget lines, orders and rows whose time is over."""
        self.orders = {name: one for name, one in self.orders.items() if one.order.last_epoch >= epoch}
        for line_key, line in list(self.lines.items()):
            if line.standing is not None and line.standing.id not in self.orders:
                line.standing = None
            if line.wanted == 0 and line.promised == 0 and line.standing is None:
                del self.lines[line_key]
        old = sorted(name for name, signed in self._signed.items() if signed + ORDER_RETAIN_EPOCHS < epoch)
        for name in old:
            del self._signed[name]
        return [Save(table=TABLE, key=name, value=None) for name in old]


def _signed_row(value: bytes) -> SignedRow | None:
    try:
        return unpack(SignedRow, value)
    except EncodingError:
        return None
