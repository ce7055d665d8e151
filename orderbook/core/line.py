"""Our own orders: a *line* is what we want at one price on one side of one book, and keeps one order standing for it.

Quantities are never promised twice. ``wanted`` falls when a match is agreed; what the seller has signed but the buyer not
confirmed is ``promised``; an order is only ever written for ``wanted - promised``. An order that we have signed for any
match is *spent*: its remainder is traded by a new order, in a later epoch.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from orderbook.core.messages import Order, Side
from wire.limits import QUANTITY_MAX
from wire.moments import Instant

_NEVER: Final = Instant(0)


@dataclass(slots=True, kw_only=True)
class Standing:
    """An order of ours that we published in this run of the node."""

    id: bytes
    order: Order
    line: "Line"
    close: bytes = b""
    signed_epoch: int | None = None
    signed_units: list[range] = field(default_factory=list)

    @property
    def closed(self) -> bool:
        """Whether we have withdrawn it; ``close`` is the gossiped message that says so."""
        return bool(self.close)

    def may_sign(self, epoch: int, units: range) -> bool:
        """One order, one epoch, each unit once."""
        if not self.order.first_epoch <= epoch <= self.order.last_epoch or units.stop > self.order.quantity:
            return False
        if self.signed_epoch is not None and self.signed_epoch != epoch:
            return False
        return all(units.stop <= one.start or one.stop <= units.start for one in self.signed_units)

    def sign(self, epoch: int, units: range) -> None:
        """The units are signed away in ``epoch``, whatever becomes of the match."""
        self.signed_epoch = epoch
        self.signed_units.append(units)


@dataclass(slots=True, kw_only=True)
class Line:
    """What we want at one price."""

    book: bytes
    side: Side
    price_msat: int
    slot: int
    wanted: int = 0
    promised: int = 0
    avoid: tuple[bytes, ...] = ()
    standing: Standing | None = None
    changed_at: Instant = _NEVER
    written_epoch: int = -1
    writes: int = 0

    @property
    def free(self) -> int:
        """Units that may still be promised."""
        return max(0, self.wanted - self.promised)

    def stale(self, epoch: int) -> bool:
        """Whether, seen in ``epoch``, the standing order is not what should stand in the next ones."""
        target, standing = min(self.free, QUANTITY_MAX), self.standing
        if standing is None or standing.closed:
            return target > 0
        order = standing.order
        if target == 0:
            return order.last_epoch > epoch
        return (
            standing.signed_epoch is not None
            or order.quantity != target
            or order.avoid != self.avoid
            or order.last_epoch < epoch + 2
        )


def free_slot(lines: Iterable[Line], slots: int) -> int | None:
    """The lowest owner slot that none of ``lines`` (of one book and side) has, or None."""
    taken = {one.slot for one in lines}
    return next((slot for slot in range(slots) if slot not in taken), None)
