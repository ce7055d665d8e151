"""Range-based set reconciliation, wire compatible with Negentropy protocol version 1.

Two parties hold sets of (epoch, 32-byte id). A message is a list of adjacent ranges that cover everything: for each the sender
says nothing (skip), the fingerprint of what it has there, or all ids it has there. A range whose fingerprints differ is split
in sixteen, a small one is listed. The *initiator* learns what it lacks and what the other lacks; the responder keeps no state.

Source: "Negentropy Protocol V1", appendix of Nostr NIP-77; Aljoscha Meyer, "Range-Based Set Reconciliation" (2023).
Fingerprint: SHA-256 of (sum of the ids as little-endian numbers modulo 2^256, and their count), 16 bytes. Sums over prefixes
are kept, so a fingerprint of any range costs one subtraction and one hash.
"""

import hashlib
from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

from wire.errors import Misbehaved
from wire.limits import RECONCILE_FRAME_BYTES, RECONCILE_NEED_MAX, RECONCILE_ROUNDS_MAX

VERSION: Final = 0x61
INFINITY: Final = (1 << 64) - 1
_SKIP, _FINGERPRINT, _LIST = 0, 1, 2
_BUCKETS: Final = 16
_SLACK_BYTES: Final = 200  # room for the fingerprint of all that no longer fits
_MODULUS: Final = 1 << 256

Bound = tuple[int, bytes]
"""The exclusive end of a range: epoch (or infinity) and a prefix of an id. Compares like the items it separates."""

_START: Final[Bound] = (0, b"")
_END: Final[Bound] = (INFINITY, b"")


class BadReconciliation(Misbehaved):
    """The peer's reconciliation message breaks the protocol or its bounds."""

    def __init__(self, sentence: str) -> None:
        super().__init__("bad-reconciliation", sentence, penalty=20)


class Vector:
    """A sorted, unchanging set of (epoch, id)."""

    def __init__(self, items: Iterable[tuple[int, bytes]]) -> None:
        self.items = sorted(set(items))
        total = 0
        self._sums = [0]
        for _, name in self.items:
            total += int.from_bytes(name, "little")
            self._sums.append(total)

    def __len__(self) -> int:
        return len(self.items)

    def find(self, bound: Bound, least: int) -> int:
        """The index of the first item not before ``bound``, searching from ``least``."""
        return bisect_left(self.items, bound, least)

    def fingerprint(self, lower: int, upper: int) -> bytes:
        """16 bytes over the items from ``lower`` to before ``upper``."""
        total = (self._sums[upper] - self._sums[lower]) % _MODULUS
        return hashlib.sha256(total.to_bytes(32, "little") + varint(upper - lower)).digest()[:16]

    def between(self, index: int) -> Bound:
        """The shortest bound that separates the item at ``index`` from the one before it."""
        (before, low), (epoch, high) = self.items[index - 1], self.items[index]
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

    def fits(self, more_bytes: int = 0) -> bool:
        return len(self.data) + more_bytes <= self._limit


def _split(vector: Vector, lower: int, upper: int, end: Bound, out: _Writer) -> None:
    """Describe our items of one range more finely: sixteen fingerprints, or all ids when they are few."""
    count = upper - lower
    if count < 2 * _BUCKETS:
        out.listing(end, [name for _, name in vector.items[lower:upper]])
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
        ours = {name for _, name in self.vector.items[lower:upper]}
        self.have += sorted(ours.difference(theirs))
        self.need += sorted(set(theirs).difference(ours))

    def _list(self, lower: int, upper: int, end: Bound) -> int:
        room = lower
        names: list[bytes] = []
        while room < upper and self.out.fits(32 * (len(names) + 1)):
            names.append(self.vector.items[room][1])
            room += 1
        self.out.listing(end if room == upper else self.vector.items[room], names)
        return room


def respond(vector: Vector, message: bytes, limit_bytes: int = RECONCILE_FRAME_BYTES) -> bytes:
    """The responder's answer to ``message``. Raises ``BadReconciliation``."""
    return _Walk(vector, limit_bytes, initiator=False).run(message)


class Initiator:
    """The side that asks. ``have`` are ids the other lacks, ``need`` those we lack; complete once ``answer`` returns None."""

    def __init__(self, vector: Vector, limit_bytes: int = RECONCILE_FRAME_BYTES) -> None:
        self._vector, self._limit = vector, limit_bytes
        self.rounds = 0
        self.have: set[bytes] = set()
        self.need: set[bytes] = set()

    def open(self) -> bytes:
        """The first message."""
        out = _Writer(self._limit)
        _split(self._vector, 0, len(self._vector), _END, out)
        return bytes(out.data)

    def answer(self, message: bytes) -> bytes | None:
        """The next message after the responder's, or None when both sides are known. Raises ``BadReconciliation``, also when
        the responder leads us on beyond the bounds of rounds or of ids.
        """
        self.rounds += 1
        if self.rounds > RECONCILE_ROUNDS_MAX:
            raise BadReconciliation(f"no end after {RECONCILE_ROUNDS_MAX} rounds")
        walk = _Walk(self._vector, self._limit, initiator=True)
        following = walk.run(message)
        self.have.update(walk.have)
        self.need.update(walk.need)
        if len(self.need) > RECONCILE_NEED_MAX:
            raise BadReconciliation(f"more than {RECONCILE_NEED_MAX} ids are offered")
        return None if len(following) == 1 else following
