"""Zstandard for single blobs on the wire, and its bounded reversal.

A frame tells the size it expands to. The library believes it and ignores the bound it is given, so a kilobyte could claim
gigabytes: the size is read and checked first, and frames that do not tell it are refused.
"""

import enum
from typing import Final

import zstandard

from cafs.core.faults import Corrupt

LEVEL: Final = 3


class Codec(enum.Enum):
    """How the body of a ``Chunk`` is written."""

    PLAIN = 0
    ZSTD = 1


class Squeezer:
    """Compresses blob after blob with one context. Not for two threads at once."""

    def __init__(self) -> None:
        self._compressor = zstandard.ZstdCompressor(level=LEVEL, write_content_size=True, write_checksum=False)

    def squeeze(self, data: bytes) -> tuple[Codec, bytes]:
        """``data`` as it should travel: compressed when that saves anything."""
        smaller = self._compressor.compress(data)
        return (Codec.ZSTD, smaller) if len(smaller) < len(data) else (Codec.PLAIN, data)


def expand(codec: Codec, body: bytes, most: int) -> bytes:
    """What was squeezed, never more than ``most`` bytes of it. Raises ``Corrupt``."""
    if codec is Codec.PLAIN:
        if len(body) > most:
            raise Corrupt("oversize-chunk", f"{len(body)} bytes where at most {most} belong", 50)
        return body
    try:
        claimed = zstandard.frame_content_size(body)
        if not 0 <= claimed <= most:
            raise Corrupt("oversize-chunk", f"a compressed chunk claims {claimed} bytes where at most {most} belong", 50)
        return zstandard.ZstdDecompressor().decompress(
            body, max_output_size=most, read_across_frames=False, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise Corrupt("bad-compression", f"a compressed chunk cannot be expanded: {error}", 50) from None
