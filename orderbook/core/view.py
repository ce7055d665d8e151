"""What of one book counts in an epoch: the eligible orders and the root, as functions of the messages and of the epoch.

``eligible_of`` and ``root_of`` say it plainly, over everything. A ``View`` carries the answer along from one epoch to the next:
it looks again only at the slots that something has happened to, so a book in which nothing happens costs nothing.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Final, NamedTuple

from orderbook.core.auction import Entry
from orderbook.core.messages import Close, Heard, Lane, Order, Side
from orderbook.core.negentropy import Item
from wire.digest import plain


class Kept(NamedTuple):
    """A message of the book, with the first epoch for which it could be known."""

    heard: Heard
    known_epoch: int
    counts_from: int
    """The first epoch in which it counts."""
    entry: Entry | None
    item: Item


Slots = Mapping[Lane, tuple[Kept, ...]]
"""The orders of each lane."""
Closes = Mapping[bytes, Mapping[bytes, Kept]]
"""The closes of each order by id."""
Eligible = tuple[tuple[Entry, ...], tuple[Entry, ...]]


def rank_of(heard: Heard) -> tuple[int, bytes]:
    """Within one lane the greater supersedes."""
    return (heard.body.sequence if isinstance(heard.body, Order) else 0, heard.id)


def standing_of(orders: Iterable[Kept], closes: Closes, epoch: int, *, late: bool) -> Kept | None:
    """The order of one slot that is eligible in ``epoch``, if there is one."""
    newest: Kept | None = None
    for one in orders:
        counts = (one.item[0] if late else one.counts_from) <= epoch
        if counts and (newest is None or rank_of(one.heard) > rank_of(newest.heard)):
            newest = one
    if newest is None:
        return None
    order = newest.heard.body
    if not isinstance(order, Order) or order.last_epoch < epoch:
        return None
    for close in closes[newest.heard.id].values() if newest.heard.id in closes else ():
        counts = (close.item[0] if late else close.counts_from) <= epoch
        if counts and close.heard.lane[:-1] == order.owner:
            return None
    return newest


def eligible_of(slots: Slots, closes: Closes, epoch: int, *, late: bool) -> Eligible:
    """The buys and the sells of ``epoch``, ascending by id."""
    found = [standing_of(orders, closes, epoch, late=late) for orders in slots.values()]
    entries = sorted((one.entry for one in found if one is not None and one.entry is not None), key=_entry_id)
    return tuple(one for one in entries if one.side is Side.BUY), tuple(one for one in entries if one.side is Side.SELL)


def root_of(kept: Iterable[Kept], epoch: int) -> bytes:
    """32 bytes: BLAKE3 over the sorted ids of all messages that count in ``epoch``."""
    return plain(b"".join(sorted(one.heard.id for one in kept if one.counts_from <= epoch)))


_entry_id: Final = attrgetter("id")


class View:
    """The answers of one book, carried along. It reads the book's own ``kept``, ``slots`` and ``closes``, and is told of every
    message that comes or goes.
    """

    def __init__(self, kept: Mapping[bytes, Kept], slots: Slots, closes: Closes, epoch: int) -> None:
        self._kept, self._slots, self._closes = kept, slots, closes
        self.epoch = epoch
        self._coming: dict[int, list[Kept]] = defaultdict(list)
        self._ending: dict[int, set[Lane]] = defaultdict(set)
        self._touched: set[Lane] = set()
        self._standing: dict[Lane, Kept] = {}
        self._eligible: Eligible = ((), ())
        self._names: list[bytes] = []
        self._gone: set[bytes] = set()
        self._root: bytes | None = None
        for one in kept.values():
            self.added(one)

    def added(self, kept: Kept) -> None:
        """A message has come into the book. It is looked at in the epoch from which it counts."""
        self._coming[kept.counts_from].append(kept)

    def dropped(self, kept: Kept) -> None:
        """A message has left the book."""
        self._gone.add(kept.heard.id)
        self._touch(kept)

    def _advance(self, epoch: int) -> None:
        """Look at what has gone, what counts by now, and which standing orders have ended."""
        self.epoch = epoch
        if self._gone:
            self._names = [one for one in self._names if one not in self._gone]
            self._gone.clear()
            self._root = None
        for due in [one for one in self._coming if one <= epoch]:
            come = [one for one in self._coming.pop(due) if self._kept.get(one.heard.id) is one]
            self._names += [one.heard.id for one in come]
            self._touched.update([one.heard.lane for one in come if one.entry is not None])
            for one in come:
                if one.entry is None:
                    self._touch(one)
            self._root = None
        for due in [one for one in self._ending if one <= epoch]:
            self._touched |= self._ending.pop(due)

    def _touch(self, kept: Kept) -> None:
        """The lane whose standing order the message may change has to be looked at."""
        if kept.entry is not None:
            self._touched.add(kept.heard.lane)
        elif isinstance(body := kept.heard.body, Close) and body.order in self._kept:
            self._touched.add(self._kept[body.order].heard.lane)

    def eligible(self, epoch: int) -> Eligible:
        """The buys and sells of ``epoch``, which is not before ``self.epoch``."""
        self._advance(epoch)
        slots, standing = self._slots, self._standing
        left, come = set[bytes](), list[Entry]()
        for lane in self._touched:
            before, orders = standing.get(lane), slots.get(lane)
            now = standing_of(orders, self._closes, epoch, late=False) if orders is not None else None
            if now is before:
                continue
            if before is not None:
                left.add(before.heard.id)
                del standing[lane]
            if now is not None and now.entry is not None and isinstance(now.heard.body, Order):
                standing[lane] = now
                self._ending[now.heard.body.last_epoch + 1].add(lane)
                come.append(now.entry)
        self._touched.clear()
        if left or come:
            buys, sells = self._eligible
            self._eligible = _changed(buys, Side.BUY, left, come), _changed(sells, Side.SELL, left, come)
        return self._eligible

    def root(self, epoch: int) -> bytes:
        """The root of ``epoch``, which is not before ``self.epoch``."""
        self._advance(epoch)
        if self._root is None:
            self._names.sort()  # nearly sorted: one merge of what was there and what has come
            self._root = plain(b"".join(self._names))
        return self._root


def _changed(before: tuple[Entry, ...], side: Side, left: set[bytes], come: list[Entry]) -> tuple[Entry, ...]:
    """``before`` without ``left`` and with ``come``, in order: two sorted runs, so sorting is one merge."""
    entries = [one for one in before if one.id not in left]
    entries += sorted((one for one in come if one.side is side), key=_entry_id)
    entries.sort(key=_entry_id)
    return tuple(entries)
