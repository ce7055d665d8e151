# SPDX-License-Identifier: GPL-3.0-or-later
"""The bytes of a work: one array of eleven fields in msgpack, the scene second, the tile last.

Only the few bytes behind the scene differ between the tiles of a picture; the node stores and sends everything before
them once.
"""

from dataclasses import dataclass

from . import openexr
from .tiling import TILE_MAX_PIXELS, Tile

FORMAT = 1
_FIELDS = 11
CHANNELS_MAX = 256
_HEADER = {
    "channels",
    "compression",
    "dataWindow",
    "displayWindow",
    "lineOrder",
    "pixelAspectRatio",
    "screenWindowCenter",
    "screenWindowWidth",
    "bitwrkBlender",
    "bitwrkBuild",
    "bitwrkKernel",
    "bitwrkFrame",
    "bitwrkPixels",
}


def _integer(value: int) -> bytes:
    """The shortest msgpack of an integer."""
    if 0 <= value < 128:
        return bytes([value])
    if -32 <= value < 0:
        return value.to_bytes(1, "big", signed=True)
    if value > 0:
        for code, size in ((0xCC, 1), (0xCD, 2), (0xCE, 4), (0xCF, 8)):
            if value < 1 << (8 * size):
                return bytes([code]) + value.to_bytes(size, "big")
    for code, size in ((0xD0, 1), (0xD1, 2), (0xD2, 4), (0xD3, 8)):
        if -(1 << (8 * size - 1)) <= value < 0:
            return bytes([code]) + value.to_bytes(size, "big", signed=True)
    raise ValueError(f"{value} has no msgpack")


def _text(value: str) -> bytes:
    data = value.encode()
    if len(data) < 32:
        return bytes([0xA0 | len(data)]) + data
    if len(data) < 256:
        return bytes([0xD9, len(data)]) + data
    raise ValueError("the name is too long")


def _bytes_head(length: int) -> bytes:
    for code, size in ((0xC4, 1), (0xC5, 2), (0xC6, 4)):
        if length < 1 << (8 * size):
            return bytes([code]) + length.to_bytes(size, "big")
    raise ValueError("the scene is too long")


@dataclass(frozen=True)
class Picture:
    """What all tiles of one frame and view layer share. ``scene_bytes`` is the length of the .blend file."""

    scene_bytes: int
    scene_name: str
    layer: str
    width: int
    height: int
    frame: int


def head(picture: Picture) -> bytes:
    """What stands before the scene."""
    return bytes([0x90 | _FIELDS]) + _integer(FORMAT) + _bytes_head(picture.scene_bytes)


def tail(picture: Picture, tile: Tile) -> bytes:
    """What stands behind the scene."""
    numbers = (picture.width, picture.height, picture.frame, tile.left, tile.top, tile.width, tile.height)
    return _text(picture.scene_name) + _text(picture.layer) + b"".join(map(_integer, numbers))


def check_result(picture: Picture, tile: Tile, data: bytes) -> dict:
    """What the image says of its maker, if it is the one asked for. Raises ``openexr.BadImage``.

    Blender's own reader sees only what has passed here: no unknown header, no size that does not add up.
    """
    image = openexr.read(data, most_pixels=TILE_MAX_PIXELS, most_channels=CHANNELS_MAX)
    if set(image.attributes) - _HEADER:
        raise openexr.BadImage("its header says more than a tile's may")
    if image.data != openexr.Window(tile.left, tile.top, tile.width, tile.height):
        raise openexr.BadImage("it is of another rectangle")
    if image.display != openexr.Window(0, 0, picture.width, picture.height):
        raise openexr.BadImage("it is of another picture")
    if not all(name.startswith(picture.layer + ".") for name in image.channels):
        raise openexr.BadImage("it is of another view layer")
    if not {f"{picture.layer}.Combined.{one}" for one in "RGB"} <= set(image.channels):
        raise openexr.BadImage("it has no colours")
    if image.text("bitwrkFrame") != str(picture.frame):
        raise openexr.BadImage("it is of another frame")
    return {name: image.text("bitwrk" + name.title()) for name in ("blender", "build", "kernel", "pixels")}
