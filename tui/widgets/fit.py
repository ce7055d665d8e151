"""How the columns of a table share the width of a window. Pure.

Every column has a least width, at which it still says something, and a rank. When not even the least widths fit, the columns of
the lowest rank are left out, one by one; what is over goes to the columns whose contents want more, highest rank first. So the
same table reads at 80 columns and at 160.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

GAP_CELLS: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column. ``rank``: the lower, the earlier it is left out. ``spare``: takes what all others leave. ``tail``: of a text
    that is too long the end is kept, not the beginning.
    """

    title: str
    least: int
    most: int = 40
    rank: int = 50
    right: bool = False
    spare: bool = False
    tail: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where a column stands: its index, its first cell and its width."""

    index: int
    start: int
    width: int


def fit(columns: Sequence[Column], wanted: Sequence[int], width: int) -> tuple[Place, ...]:
    """Places for the columns that fit into ``width`` cells; ``wanted`` is what the contents of each would need."""
    kept = list(range(len(columns)))

    def least(index: int) -> int:
        return max(columns[index].least, len(columns[index].title))

    def used() -> int:
        return sum(least(index) for index in kept) + GAP_CELLS * max(0, len(kept) - 1)

    while len(kept) > 1 and used() > width:
        kept.remove(min(reversed(kept), key=lambda index: columns[index].rank))
    rest = max(0, width - used())
    widths = {index: least(index) for index in kept}
    for index in sorted(kept, key=lambda one: (-columns[one].rank, one)):
        more = min(rest, max(0, min(wanted[index], columns[index].most) - widths[index]))
        widths[index] += more
        rest -= more
    for index in kept:
        if columns[index].spare:
            widths[index] += rest
            break
    places: list[Place] = []
    start = 0
    for index in kept:
        room = min(widths[index], max(0, width - start))
        places.append(Place(index, start, room))
        start += room + GAP_CELLS
    return tuple(places)
