"""Range-based set reconciliation, wire compatible with Negentropy protocol version 1.

Two parties hold sets of (epoch, 32-byte id). A message is a list of adjacent ranges that cover everything: for each the sender
says nothing (skip), the fingerprint of what it has there, or all ids it has there. A range whose fingerprints differ is split
in sixteen, a small one is listed. The *initiator* learns what it lacks and what the other lacks; the responder keeps no state.

Source: "Negentropy Protocol V1", appendix of Nostr NIP-77; Aljoscha Meyer, "Range-Based Set Reconciliation" (2023).
Fingerprint: SHA-256 of (sum of the ids as little-endian numbers modulo 2^256, and their count), 16 bytes. Sums over prefixes
are kept by block, so a fingerprint of any range costs a few additions and one hash. A set that grows is an ``Index``.
"""

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Final

from wire.errors import Misbehaved
from wire.limits import RECONCILE_BARREN_ROUNDS_MAX, RECONCILE_FRAME_BYTES, RECONCILE_NEED_MAX, RECONCILE_ROUNDS_MAX

VERSION: Final = 0x61
INFINITY: Final = (1 << 64) - 1
_SKIP, _FINGERPRINT, _LIST = 0, 1, 2
_BUCKETS: Final = 16
_SLACK_BYTES: Final = 200  # room for the fingerprint of all that no longer fits
_MODULUS: Final = 1 << 256
BLOCK_ITEMS: Final = 128

Item = tuple[int, bytes]
"""A key epoch and a 32-byte id."""

Bound = tuple[int, bytes]
"""The exclusive end of a range: epoch (or infinity) and a prefix of an id. Compares like the items it separates."""

_START: Final[Bound] = (0, b"")
_END: Final[Bound] = (INFINITY, b"")


class BadReconciliation(Misbehaved):
    """The peer's reconciliation message breaks the protocol or its bounds."""

    def __init__(self, sentence: str) -> None:
        super().__init__("bad-reconciliation", sentence, penalty=20)


class Block:
    """A sorted run of items that never changes; its prefix sums are added up when somebody first asks."""

    __slots__ = ("_sums", "items", "total")

    def __init__(self, items: list[Item], total: int | None = None) -> None:
        self.items = items
        self.total = sum(map(number_of, items)) if total is None else total
        self._sums: list[int] | None = None

    def sum_before(self, place: int) -> int:
        """The sum of the ids before ``place``."""
        if self._sums is None:
            self._sums = list(accumulate(map(number_of, self.items), initial=0))
        return self._sums[place]


def number_of(item: Item) -> int:
    """What an item adds to a sum."""
    return int.from_bytes(item[1], "little")


def blocks_of(items: list[Item]) -> list[Block]:
    """Sorted, distinct ``items`` cut into blocks."""
    return [Block(items[at : at + BLOCK_ITEMS]) for at in range(0, len(items), BLOCK_ITEMS)]


class Vector:
    """A sorted, unchanging set of (epoch, id): a list of blocks with what stands before each."""

    def __init__(self, items: Iterable[Item] = (), blocks: list[Block] | None = None) -> None:
        self._blocks = blocks_of(sorted(set(items))) if blocks is None else blocks
        self._firsts = [one.items[0] for one in self._blocks]
        self._starts = list(accumulate((len(one.items) for one in self._blocks), initial=0))
        self._sums = list(accumulate((one.total for one in self._blocks), initial=0))

    def __len__(self) -> int:
        return self._starts[-1]

    def __iter__(self) -> Iterator[Item]:
        for block in self._blocks:
            yield from block.items

    def __getitem__(self, index: int) -> Item:
        number = bisect_right(self._starts, index) - 1
        return self._blocks[number].items[index - self._starts[number]]

    @property
    def items(self) -> list[Item]:
        """All of it, ascending."""
        return list(self)

    def find(self, bound: Bound, least: int) -> int:
        """The index of the first item not before ``bound``, at least ``least``."""
        number = max(0, bisect_left(self._firsts, bound) - 1)
        if number == len(self._blocks):
            return least
        return max(least, self._starts[number] + bisect_left(self._blocks[number].items, bound))

    def names(self, lower: int, upper: int) -> list[bytes]:
        """The ids from ``lower`` to before ``upper``."""
        found: list[bytes] = []
        number = bisect_right(self._starts, lower) - 1
        while lower + len(found) < upper:
            first = lower + len(found) - self._starts[number]
            found += [name for _, name in self._blocks[number].items[first : upper - self._starts[number]]]
            number += 1
        return found

    def _sum_before(self, index: int) -> int:
        number = bisect_right(self._starts, index) - 1
        within = index - self._starts[number]
        return self._sums[number] + (self._blocks[number].sum_before(within) if within else 0)

    def fingerprint(self, lower: int, upper: int) -> bytes:
        """16 bytes over the items from ``lower`` to before ``upper``."""
        total = (self._sum_before(upper) - self._sum_before(lower)) % _MODULUS
        return hashlib.sha256(total.to_bytes(32, "little") + varint(upper - lower)).digest()[:16]

    def between(self, index: int) -> Bound:
        """The shortest bound that separates the item at ``index`` from the one before it."""
        (before, low), (epoch, high) = self[index - 1], self[index]
        if before != epoch:
            return (epoch, b"")
        shared = next(place for place in range(32) if low[place] != high[place])
        return (epoch, high[: shared + 1])


def varint(value: int) -> bytes:
    """Base 128, most significant digit first, the high bit on all bytes but the last."""
    digits = [value & 127]
    while value := value >> 7:
        digits.append(value & 127 | 128)
    return bytes(reversed(digits))


class _Reader:
    """Takes a message apart; every length is checked before it is believed."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at, self._epoch = data, 0, 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, count: int) -> bytes:
        if count > len(self._data) - self._at:
            raise BadReconciliation("a reconciliation message ends too early")
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self) -> int:
        value = 0
        for _ in range(10):
            digit = self.take(1)[0]
            value = value << 7 | digit & 127
            if not digit & 128:
                return min(value, INFINITY)
        raise BadReconciliation("a number in a reconciliation message is longer than 64 bits")

    def bound(self) -> Bound:
        offset = self.number()
        epoch = INFINITY if offset == 0 else min(self._epoch + offset - 1, INFINITY)
        self._epoch = epoch
        length = self.number()
        if length > 32:
            raise BadReconciliation("a bound in a reconciliation message is longer than an id")
        return (epoch, self.take(length))

    def ids(self) -> list[bytes]:
        count = self.number()
        block = self.take(32 * count)
        return [block[at : at + 32] for at in range(0, len(block), 32)]


class _Writer:
    """Puts a message together; runs of skipped ranges become one, and the last run is left out."""

    def __init__(self, limit_bytes: int) -> None:
        self.data = bytearray([VERSION])
        self._limit = limit_bytes - _SLACK_BYTES
        self._epoch = 0
        self._skip_to: Bound | None = None

    def _bound(self, bound: Bound) -> bytes:
        epoch, prefix = bound
        offset = 0 if epoch == INFINITY else epoch - self._epoch + 1
        self._epoch = epoch
        return varint(offset) + varint(len(prefix)) + prefix

    def skip(self, end: Bound) -> None:
        self._skip_to = end

    def _range(self, end: Bound, mode: int, payload: bytes) -> None:
        if self._skip_to is not None:
            self.data += self._bound(self._skip_to) + varint(_SKIP)
            self._skip_to = None
        self.data += self._bound(end) + varint(mode) + payload

    def fingerprint(self, end: Bound, value: bytes) -> None:
        self._range(end, _FINGERPRINT, value)

    def listing(self, end: Bound, names: list[bytes]) -> None:
        self._range(end, _LIST, varint(len(names)) + b"".join(names))

    def room_bytes(self) -> int:
        return max(0, self._limit - len(self.data))

    def fits(self) -> bool:
        return len(self.data) <= self._limit


def _split(vector: Vector, lower: int, upper: int, end: Bound, out: _Writer) -> None:
    """Describe our items of one range more finely: sixteen fingerprints, or all ids when they are few."""
    count = upper - lower
    if count < 2 * _BUCKETS:
        out.listing(end, vector.names(lower, upper))
        return
    size, larger = divmod(count, _BUCKETS)
    at = lower
    for bucket in range(_BUCKETS):
        following = at + size + (1 if bucket < larger else 0)
        out.fingerprint(end if following == upper else vector.between(following), vector.fingerprint(at, following))
        at = following


class _Walk:
    """One pass over a peer's message: what it shows that the peer has and lacks, and our next message."""

    def __init__(self, vector: Vector, limit_bytes: int, *, initiator: bool) -> None:
        self.vector, self.initiator = vector, initiator
        self.out = _Writer(limit_bytes)
        self.have: list[bytes] = []
        self.need: list[bytes] = []

    def run(self, message: bytes) -> bytes:
        reader = _Reader(message)
        if reader.take(1)[0] != VERSION:
            raise BadReconciliation("this reconciliation protocol is not version 1")
        previous, lower = _START, 0
        while reader:
            end, mode = reader.bound(), reader.number()
            if end < previous:
                raise BadReconciliation("the ranges of a reconciliation message are out of order")
            upper = self.vector.find(end, lower)
            done = self._range(reader, mode, lower, upper, end)
            if done < upper or (end != _END and not self.out.fits()):
                # No room for more: the rest, from what is done, is one fingerprint, and comes up again next round.
                self.out.fingerprint(_END, self.vector.fingerprint(done, len(self.vector)))
                break
            previous, lower = end, upper
        return bytes(self.out.data)

    def _range(self, reader: _Reader, mode: int, lower: int, upper: int, end: Bound) -> int:
        """Deal with one range; returns the index up to which our answer describes it."""
        if mode == _SKIP:
            self.out.skip(end)
        elif mode == _FINGERPRINT:
            if reader.take(16) == self.vector.fingerprint(lower, upper):
                self.out.skip(end)
            else:
                _split(self.vector, lower, upper, end, self.out)
        elif mode == _LIST:
            theirs = reader.ids()
            if self.initiator:
                self._compare(theirs, lower, upper)
                self.out.skip(end)
            else:
                return self._list(lower, upper, end)
        else:
            raise BadReconciliation(f"a reconciliation range of mode {mode} is unknown")
        return upper

    def _compare(self, theirs: list[bytes], lower: int, upper: int) -> None:
        ours = set(self.vector.names(lower, upper))
        self.have += sorted(ours.difference(theirs))
        self.need += sorted(set(theirs).difference(ours))

    def _list(self, lower: int, upper: int, end: Bound) -> int:
        room = min(upper, lower + self.out.room_bytes() // 32)
        self.out.listing(end if room == upper else self.vector[room], self.vector.names(lower, room))
        return room


def respond(vector: Vector, message: bytes, limit_bytes: int = RECONCILE_FRAME_BYTES) -> bytes:
    """The responder's answer to ``message``. Raises ``BadReconciliation``."""
    return _Walk(vector, limit_bytes, initiator=False).run(message)


class Initiator:
    """The side that asks. ``have`` are ids the other lacks, ``need`` those we lack; complete once ``answer`` returns None, unless
    it was ``cut_short`` by the bound of rounds.
    """

    def __init__(self, vector: Vector, limit_bytes: int = RECONCILE_FRAME_BYTES) -> None:
        self._vector, self._limit = vector, limit_bytes
        self.rounds = 0
        self.have: set[bytes] = set()
        self.need: set[bytes] = set()
        self.cut_short = False
        self._barren = 0
        self._fresh: list[bytes] = []

    def open(self) -> bytes:
        """The first message, which divides our set at once."""
        out = _Writer(self._limit)
        _split(self._vector, 0, len(self._vector), _END, out)
        return bytes(out.data)

    def probe(self) -> bytes:
        """Another first message, one fingerprint of everything: the shortest where the sets are probably equal."""
        out = _Writer(self._limit)
        out.fingerprint(_END, self._vector.fingerprint(0, len(self._vector)))
        return bytes(out.data)

    def fresh(self) -> list[bytes]:
        """The ids we lack that have come to light since this was last asked."""
        found, self._fresh = self._fresh, []
        return found

    def answer(self, message: bytes) -> bytes | None:
        """The next message after the responder's, or None when both sides are known or the rounds are used up. Raises
        ``BadReconciliation``, also when the responder leads us on: round after round without an id, or with ids without bound.
        """
        self.rounds += 1
        known = len(self.have) + len(self.need)
        walk = _Walk(self._vector, self._limit, initiator=True)
        following = walk.run(message)
        self.have.update(walk.have)
        for name in walk.need:
            if name not in self.need:
                self.need.add(name)
                self._fresh.append(name)
        if len(self.need) > RECONCILE_NEED_MAX:
            raise BadReconciliation(f"more than {RECONCILE_NEED_MAX} ids are offered")
        if len(following) == 1:
            return None
        self._barren = self._barren + 1 if len(self.have) + len(self.need) == known else 0
        if self._barren >= RECONCILE_BARREN_ROUNDS_MAX:
            raise BadReconciliation(f"{RECONCILE_BARREN_ROUNDS_MAX} rounds one after another have brought no id to light")
        self.cut_short = self.rounds >= RECONCILE_ROUNDS_MAX
        return None if self.cut_short else following
