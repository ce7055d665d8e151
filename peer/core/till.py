"""The buyer's till: results that are here and wait for their payment, channel by channel.

A channel pays strictly one lock after the other. What comes in while a payment is under way waits here, and the seller is
asked meanwhile to put it under one key, so that it is all paid with the next commitment. He who does not answer in time is paid
singly from then on. Nothing here is journalled: what waits has cost nothing, and a restart withdraws it.
"""

from dataclasses import dataclass, field

from peer.core.batches import HeldBatch
from wire.moments import Instant


@dataclass(slots=True)
class Drawer:
    """One channel. ``asked`` are the units that the seller was asked to put under one key; at ``until`` we wait no longer for
    that, or look again at what waits because the batch was given up.
    """

    waiting: list[bytes] = field(default_factory=list)
    paying: set[bytes] = field(default_factory=set)
    asked: tuple[bytes, ...] = ()
    until: Instant | None = None
    offered: HeldBatch | None = None
    singly: bool = False

    def forget_batch(self, until: Instant | None = None) -> None:
        """The batch that was asked for, or offered, is not wanted any more; ``until``: look again then at what waits."""
        self.asked, self.until, self.offered = (), until, None


class Till:
    """All drawers by channel."""

    def __init__(self) -> None:
        self._drawers: dict[bytes, Drawer] = {}

    def drawer(self, channel: bytes) -> Drawer:
        """The drawer of a channel."""
        return self._drawers.setdefault(channel, Drawer())

    def wait(self, channel: bytes, unit: bytes) -> None:
        """A result is here."""
        drawer = self.drawer(channel)
        if unit not in drawer.waiting:
            drawer.waiting.append(unit)

    def pay(self, channel: bytes, units: tuple[bytes, ...]) -> None:
        """These units are being paid for."""
        drawer = self.drawer(channel)
        drawer.waiting = [one for one in drawer.waiting if one not in units]
        drawer.paying.update(units)

    def drop(self, unit: bytes, now: Instant) -> None:
        """The unit waits no more, and its payment is decided. A batch with it is given up, and the others are looked at anew."""
        for drawer in self._drawers.values():
            drawer.paying.discard(unit)
            if unit in drawer.waiting:
                drawer.waiting.remove(unit)
                if unit in drawer.asked or (drawer.offered and unit in [one.unit for one in drawer.offered.body.units]):
                    drawer.forget_batch(now)

    def close(self, channel: bytes) -> None:
        """The channel is over."""
        self._drawers.pop(channel, None)

    def late(self, now: Instant) -> list[bytes]:
        """Channels that are due, in a fixed order: the seller has not answered in time, or a batch was given up."""
        return sorted(name for name, one in self._drawers.items() if one.until is not None and one.until <= now)

    def next_deadline(self) -> Instant | None:
        """When ``late`` has something to say."""
        return min((one.until for one in self._drawers.values() if one.until is not None), default=None)
