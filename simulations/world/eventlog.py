"""The canonical log of a run, kept as one running BLAKE3: equal hashes mean that every event of two runs was the same.

An entry is the moment (8 bytes), the node (4 bytes), the kind (1 byte) and the length of what came (4 bytes), all big-endian,
and then the bytes that came. Kinds are numbered below and never renumbered.
"""

import struct
from enum import IntEnum
from typing import Final

from blake3 import blake3

_HEAD: Final = struct.Struct(">QIBI")
_FLUSH_BYTES: Final = 1 << 18


class Kind(IntEnum):
    """What an entry tells."""

    TICK = 1
    FRAME = 2
    LETTER = 3
    NEIGHBOUR_UP = 4
    NEIGHBOUR_DOWN = 5
    PEER_UP = 6
    PEER_DOWN = 7
    CHECKED = 8
    DONE = 9
    PEOPLE = 10
    CHAIN = 11
    CRASH = 12
    START = 13
    BLOCK = 14
    CUT = 15


class EventLog:
    """Counts entries by kind and hashes them all."""

    def __init__(self) -> None:
        self._hasher = blake3()
        self._buffer = bytearray()
        self.counts = [0] * (max(Kind) + 1)

    def add(self, now: int, node: int, kind: int, payload: bytes = b"") -> None:
        """One entry."""
        self.counts[kind] += 1
        self._buffer += _HEAD.pack(now, node, kind, len(payload))
        self._buffer += payload
        if len(self._buffer) > _FLUSH_BYTES:
            self._hasher.update(self._buffer)
            self._buffer.clear()

    @property
    def total(self) -> int:
        """Entries so far."""
        return sum(self.counts)

    def digest(self) -> bytes:
        """32 bytes over everything so far."""
        self._hasher.update(self._buffer)
        self._buffer.clear()
        return self._hasher.digest()
