"""Cutting a picture into works, joining the results, and writing it down."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from peer.workers.rays.request import FORMAT, BadWork, Scene, Work, check_scene, read_result
from wire.canon import pack
from wire.limits import RAYS_IMAGE_MAX_SIDE, RAYS_TILES_MAX

Picture = npt.NDArray[np.uint8]
"""Shape (height, width, 3): red, green, blue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A picture to be made: the scene, the size in pixels, and how much work each pixel gets."""

    scene: Scene
    width: int
    height: int
    samples: int
    bounces: int

    def work(self, left: int, top: int, right: int, bottom: int) -> bytes:
        """The work of one rectangle, its right and bottom edges outside."""
        work = Work(
            format=FORMAT,
            scene=self.scene,
            image_width=self.width,
            image_height=self.height,
            samples=self.samples,
            bounces=self.bounces,
            left=left,
            top=top,
            width=right - left,
            height=bottom - top,
        )
        return pack(work)


def grid(plan: Plan, tiles: int) -> tuple[int, int]:
    """Columns and rows of at least ``tiles`` tiles, as few as can be and as square as can be. Raises ``BadWork``."""
    if not 1 <= tiles <= min(RAYS_TILES_MAX, plan.width * plan.height):
        raise BadWork("bad-grid", f"a picture is cut into 1 to {RAYS_TILES_MAX} tiles of at least one pixel")
    fits = []
    for columns in range(1, min(tiles, plan.width) + 1):
        rows = -(-tiles // columns)
        if rows <= plan.height:
            skew = abs(plan.width * rows - plan.height * columns)
            fits.append((skew + (columns * rows - tiles) * max(plan.width, plan.height), columns, rows))
    _, columns, rows = min(fits)
    return columns, rows


def cut(plan: Plan, columns: int, rows: int) -> tuple[bytes, ...]:
    """The works of a picture, row by row from the top left. Raises ``BadWork``."""
    check_scene(plan.scene)
    if not (1 <= columns <= plan.width <= RAYS_IMAGE_MAX_SIDE and 1 <= rows <= plan.height <= RAYS_IMAGE_MAX_SIDE):
        raise BadWork("bad-grid", "a tile has at least one pixel, and a picture's side a bound")
    if columns * rows > RAYS_TILES_MAX:
        raise BadWork("bad-grid", f"a picture is cut into at most {RAYS_TILES_MAX} tiles")
    across = [plan.width * step // columns for step in range(columns + 1)]
    down = [plan.height * step // rows for step in range(rows + 1)]
    return tuple(
        plan.work(across[column], down[row], across[column + 1], down[row + 1])
        for row in range(rows)
        for column in range(columns)
    )


def join(results: Iterable[bytes]) -> Picture:
    """The picture of results in any order. Raises ``BadWork`` unless they cover one picture exactly once.

    Nothing is made room for before enough pixels are there to fill it: a result may claim to be of any size of picture.
    """
    parts = [read_result(data) for data in results]
    sizes = {(part.image_height, part.image_width) for part in parts}
    if len(sizes) > 1:
        raise BadWork("other-picture", "the results are of pictures of different sizes")
    pixels = sum(part.width * part.height for part in parts)
    height, width = sizes.pop() if sizes else (1, 1)
    if pixels < width * height:
        raise BadWork("gap", "a part of the picture is missing")
    picture = np.zeros((height, width, 3), np.uint8)
    covered = np.zeros((height, width), np.bool_)
    for part in parts:
        place = (slice(part.top, part.top + part.height), slice(part.left, part.left + part.width))
        if covered[place].any():
            raise BadWork("overlap", "two results cover the same pixel")
        covered[place] = True
        picture[place] = np.frombuffer(part.pixels, np.uint8).reshape(part.height, part.width, 3)
    return picture


def write_png(picture: Picture, path: Path) -> None:
    """Write the picture as a PNG file."""
    from PIL import Image

    Image.fromarray(picture).save(path, "PNG", optimize=True)
