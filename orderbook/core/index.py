"""A growing set of (key epoch, id) for reconciliation: adding, taking old epochs out and taking a picture are all cheap.

The items stand in blocks that never change, so a picture (``vector``) is a copy of the list of blocks: who has begun to compare
keeps the set as it was, whatever is added meanwhile. What is added waits until a picture is asked for, and then all of it that
belongs into one block replaces it by one copy: between two comparisons there are many additions.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

from orderbook.core.negentropy import BLOCK_ITEMS, Block, Item, Vector, blocks_of, number_of


class Index:
    """See the module. Every operation touches one block and the list of blocks."""

    def __init__(self, items: Iterable[Item] = ()) -> None:
        self._blocks = blocks_of(sorted(set(items)))
        self._firsts = [one.items[0] for one in self._blocks]
        self._waiting: list[Item] = []
        self._picture: Vector | None = None

    def __len__(self) -> int:
        self._settle()
        return sum(len(one.items) for one in self._blocks)

    def _block_of(self, item: Item) -> int:
        """In which block ``item`` stands or would stand."""
        return max(0, bisect_right(self._firsts, item) - 1)

    def add(self, item: Item) -> None:
        """Put ``item`` in, if it is not there."""
        self._waiting.append(item)

    def _settle(self) -> None:
        """Put what waits into its blocks, the last ones first, so that the numbers of the others stay."""
        if not self._waiting:
            return
        waiting, self._waiting = sorted(set(self._waiting)), []
        if not self._blocks:
            self._replace(0, 0, waiting)
            return
        end = len(waiting)
        while end:
            number = self._block_of(waiting[end - 1])
            begin = bisect_left(waiting, self._firsts[number], 0, end) if number else 0
            block = self._blocks[number]
            held = set(block.items)
            fresh = [one for one in waiting[begin:end] if one not in held]
            if fresh:
                self._replace(number, 1, sorted(block.items + fresh), block.total + sum(map(number_of, fresh)))
            end = begin

    def remove(self, item: Item) -> None:
        """Take ``item`` out, if it is there."""
        self._settle()
        number = self._block_of(item)
        items = self._blocks[number].items if self._blocks else []
        place = bisect_left(items, item)
        if place < len(items) and items[place] == item:
            self._replace(number, 1, items[:place] + items[place + 1 :], self._blocks[number].total - number_of(item))

    def forget_before(self, epoch: int) -> None:
        """Take out all items whose key epoch is less than ``epoch``: they are the first ones."""
        self._settle()
        number = max(0, bisect_left(self._firsts, (epoch, b"")) - 1)
        if self._blocks:
            items = self._blocks[number].items
            self._replace(0, number + 1, items[bisect_left(items, (epoch, b"")) :])

    def _replace(self, number: int, count: int, items: list[Item], total: int | None = None) -> None:
        """``items``, whose ids add up to ``total`` if that is known, instead of ``count`` blocks from ``number`` on."""
        blocks = [Block(items, total)] if 0 < len(items) < 2 * BLOCK_ITEMS else blocks_of(items)
        self._blocks[number : number + count] = blocks
        self._firsts[number : number + count] = [one.items[0] for one in blocks]
        self._picture = None

    def vector(self) -> Vector:
        """The set as it is now; it stays so."""
        self._settle()
        if self._picture is None:
            self._picture = Vector(blocks=list(self._blocks))
        return self._picture
