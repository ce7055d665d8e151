"""What we sell: one stall for each kind of worker we have, at the owner's price or under his mandates.

Pure bookkeeping; ``peer.core.selling`` decides. Stalls of one article share its units: whichever has a free worker computes the
next one, so an owner may sell one article through several workers at several prices.
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

from peer.core.events import SellAsked
from wire.errors import Refused
from wire.limits import QUANTITY_MAX, STALLS_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """``slots`` workers of the kind ``worker`` for ``article`` at ``ask_msat`` a unit (None: under mandates).

    ``ahead`` sells up to twice the free slots, so that data of the next unit moves while one computes.
    """

    order: int
    article: str
    worker: str
    ask_msat: int | None
    slots: int
    ahead: bool
    open: bool

    @property
    def room(self) -> int:
        """How many units it takes on at a time, in work or waiting."""
        return (2 if self.ahead else 1) * self.slots if self.open else 0


class Stalls:
    """Our stalls by worker. ``version`` changes with them."""

    def __init__(self) -> None:
        self._all: dict[str, Stall] = {}
        self.version = 0

    def put(self, event: SellAsked) -> None:
        """Open a stall, or change the one of this worker. Raises ``Refused``."""
        known = self._all.get(event.worker)
        if known is None and len(self._all) >= STALLS_MAX:
            raise Refused("stalls-full", f"there are {STALLS_MAX} workers on offer already")
        self._all[event.worker] = Stall(
            order=known.order if known and known.open else event.order,
            article=event.article,
            worker=event.worker,
            ask_msat=event.ask_msat,
            slots=event.slots,
            ahead=event.ahead,
            open=True,
        )
        self.version += 1

    def resize(self, worker: str, slots: int) -> None:
        """A worker can do more or fewer units at a time."""
        stall = self._all.get(worker)
        if stall is not None and stall.slots != slots:
            self._all[worker] = dataclasses.replace(stall, slots=slots)
            self.version += 1

    def close(self, worker: str, *, gone: bool) -> str | None:
        """Sell nothing more through ``worker``; forget it when it is gone. Its article, or None when there is no such stall."""
        stall = self._all.get(worker)
        if stall is None:
            return None
        if gone:
            del self._all[worker]
        else:
            self._all[worker] = dataclasses.replace(stall, open=False)
        self.version += 1
        return stall.article

    def all(self) -> list[Stall]:
        """Every stall, in a fixed order."""
        return [self._all[worker] for worker in sorted(self._all)]

    def of(self, article: str) -> list[Stall]:
        """The stalls of an article, those with the lowest price first, in a fixed order."""
        return sorted(
            (one for one in self._all.values() if one.article == article), key=lambda one: (one.ask_msat or 0, one.worker)
        )

    def rooms(self, article: str, busy: int) -> list[tuple[Stall, int]]:
        """What each open stall of ``article`` can still take on while ``busy`` units are in work, the cheapest filled first."""
        found: list[tuple[Stall, int]] = []
        for stall in self.of(article):
            taken = min(stall.room, busy)
            busy -= taken
            if stall.open:
                found.append((stall, min(QUANTITY_MAX, stall.room - taken)))
        return found

    def free(self, article: str, computing: Iterable[str]) -> Stall | None:
        """A stall of ``article`` with a worker that computes nothing; ``computing`` names the worker of every unit in work."""
        busy = list(computing)
        return next((one for one in self.of(article) if busy.count(one.worker) < one.slots), None)
