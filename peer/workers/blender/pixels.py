"""Pixels in and out of OpenEXR files, and the digest by which two renderings are compared.

A tile is passed on as a file made here, not as Blender made it: its header has no dates, hosts or render times, only what
``seal`` puts there, and its data window says which rectangle of which picture it is. Two sellers with the same build on the
same kind of processor therefore give the same bytes.
"""

import hashlib
import struct
import zlib
from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from peer.workers.blender.openexr import FLOAT, LINES_PER_BLOCK, LONG_NAMES, MAGIC, VERSION, ZIP, Image, Window

Pixels = npt.NDArray[np.float32]
"""Shape (channels, height, width), channels in the order of their names."""

DIGEST_ATTRIBUTE: Final = "bitwrkPixels"
_LEVEL: Final = 4  # higher ones hardly shrink noise and take much longer
_SHORT_NAME_BYTES: Final = 31
_BIAS: Final = 128


def pixels(image: Image) -> Pixels:
    """The decoded pixels."""
    lines: list[npt.NDArray[np.uint8]] = []
    for block, stored in zip(image.blocks, image.stored, strict=True):
        raw = np.frombuffer(block, dtype=np.uint8)
        if not stored:
            steps = raw.astype(np.uint8)
            steps[1:] -= np.uint8(_BIAS)
            halves = np.cumsum(steps, dtype=np.uint8)
            middle = (len(raw) + 1) // 2
            raw = np.empty_like(halves)
            raw[0::2], raw[1::2] = halves[:middle], halves[middle:]
        lines.append(raw)
    values = np.concatenate(lines).view("<f4").astype(np.float32, copy=False)
    shaped = values.reshape(image.data.height, len(image.channels), image.data.width)
    return np.ascontiguousarray(shaped.transpose(1, 0, 2))


def _block(raw: bytes) -> bytes:
    """One block as it stands in a file: compressed, or as it is when that is not shorter."""
    whole = np.frombuffer(raw, dtype=np.uint8)
    halves = np.concatenate((whole[0::2], whole[1::2]))
    steps = halves.copy()
    steps[1:] = halves[1:] - halves[:-1] + np.uint8(_BIAS)
    packed = zlib.compress(steps.tobytes(), _LEVEL)
    return packed if len(packed) < len(raw) else raw


def _attribute(name: str, kind: str, value: bytes) -> bytes:
    return name.encode() + b"\0" + kind.encode() + b"\0" + struct.pack("<i", len(value)) + value


def _box(window: Window) -> bytes:
    return struct.pack("<iiii", window.left, window.top, window.left + window.width - 1, window.top + window.height - 1)


def write(values: Pixels, channels: tuple[str, ...], data: Window, display: Window, texts: Mapping[str, str]) -> bytes:
    """The file of ``values``; the same input gives the same bytes. ``channels`` are sorted, as ``values`` are."""
    if values.shape != (len(channels), data.height, data.width) or list(channels) != sorted(set(channels)):
        raise ValueError("the pixels do not fit their channels and window")
    listed = b"".join(name.encode() + b"\0" + struct.pack("<iB3xii", FLOAT, 0, 1, 1) for name in channels) + b"\0"
    given: dict[str, tuple[str, bytes]] = {
        "channels": ("chlist", listed),
        "compression": ("compression", bytes([ZIP])),
        "dataWindow": ("box2i", _box(data)),
        "displayWindow": ("box2i", _box(display)),
        "lineOrder": ("lineOrder", b"\0"),
        "pixelAspectRatio": ("float", struct.pack("<f", 1)),
        "screenWindowCenter": ("v2f", struct.pack("<ff", 0, 0)),
        "screenWindowWidth": ("float", struct.pack("<f", 1)),
        **{name: ("string", text.encode()) for name, text in texts.items()},
    }
    long_names = LONG_NAMES if any(len(name.encode()) > _SHORT_NAME_BYTES for name in (*given, *channels)) else 0
    head = struct.pack("<ii", MAGIC, VERSION | long_names)
    head += b"".join(_attribute(name, *given[name]) for name in sorted(given)) + b"\0"
    rows = np.ascontiguousarray(values.transpose(1, 0, 2)).astype("<f4")
    blocks = [_block(rows[first : first + LINES_PER_BLOCK].tobytes()) for first in range(0, data.height, LINES_PER_BLOCK)]
    place = len(head) + 8 * len(blocks)
    table = b""
    parts: list[bytes] = []
    for index, block in enumerate(blocks):
        table += struct.pack("<Q", place)
        parts.append(struct.pack("<ii", data.top + index * LINES_PER_BLOCK, len(block)) + block)
        place += len(parts[-1])
    return head + table + b"".join(parts)


def digest(values: Pixels, channels: tuple[str, ...], data: Window) -> str:
    """SHA-256 over the rectangle, the names of the channels and the pixels, as hexadecimal digits."""
    hasher = hashlib.sha256(struct.pack("<iiiii", data.left, data.top, data.width, data.height, len(channels)))
    for name in channels:
        hasher.update(name.encode() + b"\0")
    hasher.update(np.ascontiguousarray(values).astype("<f4").tobytes())
    return hasher.hexdigest()


def seal(values: Pixels, channels: tuple[str, ...], data: Window, display: Window, facts: Mapping[str, str]) -> bytes:
    """The file of a finished tile, with its digest and ``facts`` (who made it, with what) in its header."""
    return write(values, channels, data, display, {**facts, DIGEST_ATTRIBUTE: digest(values, channels, data)})


def crop(values: Pixels, whole: Window, part: Window) -> Pixels:
    """The pixels of ``part`` out of those of ``whole``."""
    top, left = part.top - whole.top, part.left - whole.left
    if top < 0 or left < 0 or top + part.height > whole.height or left + part.width > whole.width:
        raise ValueError("the part is not inside the whole")
    return np.ascontiguousarray(values[:, top : top + part.height, left : left + part.width])
