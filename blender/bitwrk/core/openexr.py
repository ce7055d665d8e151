# SPDX-License-Identifier: MIT
"""A strict reader of the one kind of OpenEXR file that tiles travel in. Standard library only.

Accepted are single-part scan-line files, lines in increasing order, ZIP compression in blocks of 16 lines, 32-bit float
channels without subsampling, blocks one after the other in the order of their table, and nothing behind them. Every size is
checked before anything of that size is made, so that whatever passes can be given to a reader that checks less. Layout: the
OpenEXR documentation, "OpenEXR File Layout".

The add-on for Blender carries a copy of this file, so it uses nothing newer than Python 3.10.
"""

import struct
import zlib
from dataclasses import dataclass

MAGIC = 20000630
VERSION = 2
LONG_NAMES = 0x400
ZIP = 3
FLOAT = 2
LINES_PER_BLOCK = 16
NAME_MAX_BYTES = 255
ATTRIBUTE_MAX_BYTES = 65_536
ATTRIBUTES_MAX = 256

Attributes = dict[str, tuple[str, bytes]]


class BadImage(ValueError):
    """The bytes are not such a file; the text says what is wrong."""


@dataclass(frozen=True)
class Window:
    """A rectangle of pixels, y pointing down."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class Image:
    """A read file. ``blocks`` are decompressed, but still in the order of bytes that compression likes; see ``pixels``.

    A block that did not shrink was stored as it is: ``stored`` tells which.
    """

    data: Window
    display: Window
    channels: tuple[str, ...]
    attributes: Attributes
    blocks: tuple[bytes, ...]
    stored: tuple[bool, ...]

    def text(self, name: str) -> str:
        """The text attribute ``name``, or an empty text."""
        kind, value = self.attributes.get(name, ("", b""))
        return value.decode("utf-8", "replace") if kind == "string" else ""


class _Reader:
    """Takes bytes from the front and never more than there are."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.place = 0

    def take(self, length: int) -> bytes:
        found = self.data[self.place : self.place + length]
        if length < 0 or len(found) != length:
            raise BadImage("the file ends too early")
        self.place += length
        return found

    def number(self) -> int:
        return int.from_bytes(self.take(4), "little", signed=True)

    def name(self) -> str:
        end = self.data.find(b"\0", self.place, self.place + NAME_MAX_BYTES + 1)
        if end < 0:
            raise BadImage("a name is too long")
        found = self.take(end - self.place)
        self.place += 1
        try:
            return found.decode("utf-8")
        except UnicodeDecodeError:
            raise BadImage("a name is not text") from None


def _window(attributes: Attributes, name: str) -> Window:
    kind, value = attributes.get(name, ("", b""))
    if kind != "box2i" or len(value) != 16:
        raise BadImage(f"there is no {name}")
    left, top, right, bottom = struct.unpack("<iiii", value)
    if right < left or bottom < top:
        raise BadImage(f"the {name} is empty")
    return Window(left, top, right - left + 1, bottom - top + 1)


def _channels(attributes: Attributes, most: int) -> tuple[str, ...]:
    kind, value = attributes.get("channels", ("", b""))
    if kind != "chlist":
        raise BadImage("there are no channels")
    reader, names = _Reader(value), []
    while name := reader.name():
        pixel_type, _, step_x, step_y = struct.unpack("<iB3xii", reader.take(16))
        if pixel_type != FLOAT or (step_x, step_y) != (1, 1):
            raise BadImage(f"the channel {name!r} is not of full-size 32-bit floats")
        names.append(name)
        if len(names) > most:
            raise BadImage(f"there are more than {most} channels")
    if reader.place != len(value) or not names or sorted(set(names)) != names:
        raise BadImage("the list of channels is not in order")
    return tuple(names)


def _header(reader: _Reader) -> Attributes:
    magic, version = struct.unpack("<ii", reader.take(8))
    if magic != MAGIC or version & ~LONG_NAMES != VERSION:
        raise BadImage("it is not a plain OpenEXR file of one part with scan lines")
    attributes: Attributes = {}
    while name := reader.name():
        kind = reader.name()
        size = reader.number()
        if not 0 <= size <= ATTRIBUTE_MAX_BYTES or name in attributes or len(attributes) >= ATTRIBUTES_MAX:
            raise BadImage(f"the attribute {name!r} is too long, is there twice, or is one too many")
        attributes[name] = (kind, reader.take(size))
    return attributes


def _inflate(packed: bytes, size: int) -> bytes:
    """Exactly ``size`` bytes out of ``packed``; a bomb is refused before it has gone off."""
    worker = zlib.decompressobj()
    try:
        found = worker.decompress(packed, size + 1)
    except zlib.error:
        raise BadImage("a block cannot be decompressed") from None
    if len(found) != size or not worker.eof or worker.unused_data:
        raise BadImage("a block does not hold as many pixels as it should")
    return found


def read(data: bytes, *, most_pixels: int, most_channels: int) -> Image:
    """The file in ``data``, all of it checked. Raises ``BadImage``."""
    reader = _Reader(data)
    attributes = _header(reader)
    if attributes.get("compression") != ("compression", bytes([ZIP])) or attributes.get("lineOrder") != ("lineOrder", b"\0"):
        raise BadImage("the lines are not in increasing order or not compressed by ZIP")
    window, display = _window(attributes, "dataWindow"), _window(attributes, "displayWindow")
    if window.width * window.height > most_pixels:
        raise BadImage(f"there are more than {most_pixels} pixels")
    channels = _channels(attributes, most_channels)
    line_bytes = 4 * window.width * len(channels)
    count = -(-window.height // LINES_PER_BLOCK)
    table = struct.unpack(f"<{count}Q", reader.take(8 * count))
    blocks, stored = [], []
    for index, offset in enumerate(table):
        if offset != reader.place or reader.number() != window.top + index * LINES_PER_BLOCK:
            raise BadImage("the blocks are not in the order of their table")
        size = line_bytes * min(LINES_PER_BLOCK, window.height - index * LINES_PER_BLOCK)
        length = reader.number()
        if not 0 < length <= size:
            raise BadImage("a block is longer than its pixels")
        packed = reader.take(length)
        stored.append(length == size)
        blocks.append(packed if length == size else _inflate(packed, size))
    if reader.place != len(data):
        raise BadImage("there is something behind the last block")
    return Image(window, display, channels, attributes, tuple(blocks), tuple(stored))
