"""Content-defined chunks: FastCDC 2020 with normalisation level 3, cut by the compiled pyfastcdc.

Where a chunk ends depends on the bytes since it began and on nothing else, so an insertion changes the chunks around it and
the rest keeps its names. The parameters are part of the protocol: the manifest of a content, and with it the content's id,
follows from them. Source: Xia et al., "The Design of Fast Content-Defined Chunking for Data Deduplication Based Storage
Systems" (2020), with the gear table and masks of the Rust crate fastcdc 3, ``v2020``.
"""

from collections.abc import Callable, Iterator
from typing import Protocol, cast

import pyfastcdc

from wire.errors import LocalFault
from wire.limits import CHUNK_AVERAGE_BYTES, CHUNK_MAX_BYTES, CHUNK_MIN_BYTES, CHUNK_NORMALISATION


class _Cut(Protocol):
    length: int


def _cut_points() -> Callable[[bytes], Iterator[_Cut]]:
    kind = pyfastcdc.FastCDC
    if not kind.__module__.startswith("pyfastcdc.cy"):
        raise LocalFault(
            "no-compiled-chunker",
            "the compiled part of pyfastcdc is missing, which is 250 times faster than the rest of it; install it from a wheel",
        )
    cutter = kind(
        CHUNK_AVERAGE_BYTES,
        min_size=CHUNK_MIN_BYTES,
        max_size=CHUNK_MAX_BYTES,
        normalized_chunking=CHUNK_NORMALISATION,
        seed=0,
    )
    return cast(Callable[[bytes], Iterator[_Cut]], cutter.cut_buf)


class Cutter:
    """Cuts a content that arrives in blocks of any size; the blocks leave no trace in the chunks."""

    def __init__(self) -> None:
        self._cut = _cut_points()
        self._rest = b""

    def feed(self, block: bytes) -> list[bytes]:
        """The chunks that are certain now. At most ``CHUNK_MAX_BYTES`` stay behind."""
        return self._take(block, final=False)

    def finish(self) -> list[bytes]:
        """The remaining chunks. The cutter is then as new."""
        return self._take(b"", final=True)

    def _take(self, block: bytes, *, final: bool) -> list[bytes]:
        data = self._rest + block
        start, chunks = 0, []
        if data:
            for cut in self._cut(data):
                # A cut near the end of the buffer may be due to that end; it is certain when the longest chunk would fit.
                if not final and start + CHUNK_MAX_BYTES > len(data):
                    break
                end = start + cut.length
                chunks.append(data[start:end])
                start = end
        self._rest = data[start:]
        return chunks


def chunks_of(data: bytes) -> list[bytes]:
    """All chunks of a content that is in memory."""
    cutter = Cutter()
    return cutter.feed(data) + cutter.finish()
