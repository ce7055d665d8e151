"""What is judged, on plain data: whether all nodes published one root, and whether any order was signed away twice."""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from orderbook.core.messages import Match, Side
from tests.soak.town import Run
from wire.limits import ORDER_RETAIN_EPOCHS
from wire.moments import MILLISECOND
from wire.network import EpochClock

Place = tuple[int, str]
"""An epoch and a book."""

_SURE_US: Final = 1_000 * MILLISECOND  # a node killed so soon after a freeze need not have published


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What one run of one node published of one auction. ``late_ms``: how long after the freeze it came to it."""

    node: str
    run: int
    epoch: int
    book: str
    root: str
    refusal: str
    late_ms: float


@dataclass(slots=True)
class Miss:
    """An auction of which not all nodes published the same root, with everything that explains it."""

    epoch: int
    book: str
    views: list[View]
    absent: list[str]
    explanation: list[str] = field(default_factory=list)
    differing: list[dict[str, Any]] = field(default_factory=list)
    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)


class Roots:
    """All first views. A run counts for a book from its first view that it would trade on."""

    def __init__(self, clock: EpochClock) -> None:
        self._clock = clock
        self._views: dict[Place, dict[tuple[str, int], View]] = defaultdict(dict)
        self._counts_from: dict[tuple[str, int, str], int] = {}
        self.refused: dict[str, int] = defaultdict(int)
        self.late_ms: list[float] = []

    def note(self, view: View) -> None:
        """A view; a second one of the same auction, after comparing books, is not what was published at the freeze."""
        seen = self._views[view.epoch, view.book]
        if (view.node, view.run) in seen:
            return
        seen[view.node, view.run] = view
        self.late_ms.append(view.late_ms)
        if view.refusal:
            self.refused[view.refusal] += 1
        else:
            self._counts_from.setdefault((view.node, view.run, view.book), view.epoch)

    def judge(self, place: Place, runs: Iterable[Run]) -> tuple[int, Miss | None]:
        """How many runs had to publish one root for ``place``, and the miss if they did not."""
        epoch, book = place
        seen, expected, absent = self._views.get(place, {}), [], []
        for run in runs:
            first = self._counts_from.get((run.name, run.number, book))
            if first is None or first > epoch:
                continue
            view = seen.get((run.name, run.number))
            if view is not None:
                expected.append(view)
            elif run.killed_us is None or run.killed_us > self._clock.freeze(epoch) + _SURE_US:
                absent.append(run.name)
        count = len(expected) + len(absent)
        if count < 2 or (not absent and len({view.root for view in expected}) == 1):
            return count, None
        return count, Miss(epoch, book, expected, absent)


def explain(miss: Miss, books: Mapping[str, list[dict[str, Any]]], asked_epoch: int) -> None:
    """Say of a miss which messages make the difference, and from which epoch each node counts them. ``books`` holds, for
    every node that could be asked, the messages of the book. By ``asked_epoch`` some may have been forgotten, which explains
    nothing.
    """
    groups: dict[str, list[View]] = defaultdict(list)
    for view in miss.views:
        groups[view.root].append(view)
    for root, views in sorted(groups.items(), key=lambda one: -len(one[1])):
        who = ", ".join(f"{view.node} ({view.late_ms:.0f} ms after the freeze)" for view in views)
        who += "".join(
            f"; {view.node} has {miss.nodes[view.node]['neighbours']} neighbours"
            for view in views
            if len(views) < len(miss.views) / 2 and view.node in miss.nodes
        )
        miss.explanation.append(f"root {root[:12]}: {who}")
    miss.explanation += [f"no view of {name}" for name in miss.absent]
    asked = [view.node for view in miss.views if view.node in books]
    known = {node: {one["id"]: one for one in books[node] if one["key_epoch"] <= miss.epoch} for node in asked}
    for name in sorted({name for messages in known.values() for name in messages}):
        counting = [node for node in asked if name in known[node] and known[node][name]["known_epoch"] <= miss.epoch]
        kept_until = max(one["key_epoch"] for node in asked if (one := known[node].get(name))) + ORDER_RETAIN_EPOCHS
        if 0 < len(counting) < len(asked) and kept_until >= asked_epoch:
            one = next(known[node][name] for node in asked if name in known[node])
            since = {node: known[node][name]["known_epoch"] if name in known[node] else None for node in asked}
            miss.differing.append({**one, "known_epoch": since})
            late = [f"{node} from {epoch or 'never'}" for node, epoch in since.items() if node not in counting]
            miss.explanation.append(
                f"{one['kind']} {name[:12]} of {one['account'][:8]}, key epoch {one['key_epoch']}: late at {', '.join(late)}"
            )


def double_fills(signed: Iterable[tuple[Match, Side]], quantities: Mapping[str, int]) -> list[str]:
    """What is wrong with the signatures of owners for their own orders: one epoch each, disjoint units, within the quantity.

    ``signed`` are all matches with the side that signed; one match may come several times. Returns a sentence for each fault.
    """
    by_order: dict[bytes, set[tuple[int, int, int]]] = defaultdict(set)
    counterparts: dict[tuple[bytes, int, int], set[Match]] = defaultdict(set)
    for match, side in signed:
        order, start = (match.buy, match.buy_from) if side is Side.BUY else (match.sell, match.sell_from)
        by_order[order].add((match.epoch, start, start + match.quantity))
        counterparts[order, match.epoch, start].add(match)
    faults = []
    for order, taken in sorted(by_order.items()):
        name = order.hex()[:12]
        if len({epoch for epoch, _, _ in taken}) > 1:
            faults.append(f"order {name} was signed away in epochs {sorted({epoch for epoch, _, _ in taken})}")
        ranges = sorted((start, stop) for _, start, stop in taken)
        faults += [
            f"order {name}: units {one} and {other} overlap" for one, other in itertools.pairwise(ranges) if other[0] < one[1]
        ]
        quantity = quantities.get(order.hex())
        if quantity is not None and (total := sum(stop - start for start, stop in ranges)) > quantity:
            faults.append(f"order {name} of {quantity} units was filled with {total}")
    faults += [
        f"order {order.hex()[:12]}: unit {start} went to {len(matches)} counterparties in epoch {epoch}"
        for (order, epoch, start), matches in sorted(counterparts.items(), key=lambda one: one[0])
        if len(matches) > 1
    ]
    return faults
