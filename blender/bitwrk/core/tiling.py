# SPDX-License-Identifier: GPL-3.0-or-later
"""How a picture is cut: as few tiles as their cost allows, close to squares, the middle of the picture first."""

from dataclasses import dataclass
from math import isqrt

CLASSES = {"512M": 1 << 29, "2G": 1 << 31, "8G": 1 << 33, "32G": 1 << 35}
"""Cost classes by name: the most rays (pixels x samples x bounces) of one tile."""

ARTICLE_ROOT = "net.bitwrk/blender/1"
TILE_MAX_PIXELS = 1 << 24


class TooCostly(ValueError):
    """Not even one pixel fits into the cost class."""


@dataclass(frozen=True)
class Tile:
    """A rectangle of the picture, y pointing down."""

    left: int
    top: int
    width: int
    height: int


def article(version: tuple, cost_class: str) -> str:
    """The article of tiles for a Blender (major, minor, …) in a cost class."""
    return f"{ARTICLE_ROOT}/{version[0]}.{version[1]}/{cost_class}"


def rays_per_pixel(samples: int, bounces: int) -> int:
    """The cost of one pixel, as the sellers compute it."""
    return max(1, samples) * max(1, bounces)


def pixels_per_tile(cost_class: str, rays: int, picture_pixels: int = 0, tiles_wanted: int = 1) -> int:
    """The most pixels of a tile. Raises ``TooCostly``."""
    most = min(CLASSES[cost_class] // rays, TILE_MAX_PIXELS)
    if most < 1:
        raise TooCostly(f"one pixel costs {rays} rays, more than a whole tile of class {cost_class}; choose a larger class")
    if picture_pixels and tiles_wanted > 1:
        most = min(most, max(1, -(-picture_pixels // tiles_wanted)))
    return most


def grid(width: int, height: int, most_pixels: int) -> tuple:
    """Columns and rows so that no tile has more than ``most_pixels``.

    Starts from squares that are surely small enough and takes away columns and rows while it may, first across the shorter side.
    """
    edge = max(1, isqrt(most_pixels))
    counts = [-(-width // edge), -(-height // edge)]

    def fits(columns: int, rows: int) -> bool:
        return (-(-width // columns)) * (-(-height // rows)) <= most_pixels

    for side in (1, 0) if width >= height else (0, 1):
        while counts[side] > 1:
            fewer = list(counts)
            fewer[side] -= 1
            if not fits(*fewer):
                break
            counts = fewer
    return counts[0], counts[1]


def cut(left: int, top: int, width: int, height: int, columns: int, rows: int) -> tuple:
    """The tiles of the rectangle, the nearest to its middle first."""
    tiles = []
    for row in range(rows):
        low, high = height * row // rows, height * (row + 1) // rows
        for column in range(columns):
            start, end = width * column // columns, width * (column + 1) // columns
            tiles.append(Tile(left + start, top + low, end - start, high - low))

    def distance(tile: Tile) -> tuple:
        across = 2 * (tile.left - left) + tile.width - width
        down = 2 * (tile.top - top) + tile.height - height
        return across * across + down * down, tile.top, tile.left

    return tuple(sorted(tiles, key=distance))
