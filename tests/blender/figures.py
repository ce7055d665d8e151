"""Makes the pictures of the tutorial: a frame bought tile by tile from two sellers, half done and finished.

python -m tests.blender.figures BLENDER [folder, docs/figures by default]
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import trio
from PIL import Image

from blender.bitwrk.core import run, tiling, work
from blender.bitwrk.core.budget import Budget
from blender.bitwrk.core.frame import Frame
from blender.bitwrk.core.node import NodeClient
from peer.workers.blender.pixels import pixels
from peer.workers.blender.work import read_result
from tests.blender.real import BID_MSAT, ROOT, Blender, open_market

SIZE = (480, 270)
SAMPLES = 160
TILES = 24
FRAME = 3


def canvas() -> npt.NDArray[np.float32]:
    """What Blender shows where nothing is yet: a chequered ground."""
    across, down = np.meshgrid(np.arange(SIZE[0]) // 12, np.arange(SIZE[1]) // 12)
    grey = np.where((across + down) % 2, 0.05, 0.035).astype(np.float32)
    return np.repeat(grey[:, :, None], 3, axis=2)


def put(ground: npt.NDArray[np.float32], data: bytes) -> None:
    """Lay one tile on the ground."""
    image = read_result(data)
    place, values = image.data, pixels(image)
    names = [name.rsplit(".", 1)[-1] if ".Combined." in name else "" for name in image.channels]
    colour = np.stack([values[names.index(one)] for one in "RGB"], axis=-1)
    ground[place.top : place.top + place.height, place.left : place.left + place.width] = colour


def save(ground: npt.NDArray[np.float32], path: Path) -> None:
    """As a screen shows it."""
    light = np.clip(ground, 0, 1)
    shown = np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.power(light, 1 / 2.4) - 0.055)
    Image.fromarray((shown * 255 + 0.5).astype(np.uint8)).save(path, optimize=True)


def buy(home: Path, scene: Path, article: str, folder: Path) -> None:
    """Buy the frame; write the picture when half of its tiles are there, and when all are."""
    tiles = tiling.cut(0, 0, *SIZE, *tiling.grid(*SIZE, SIZE[0] * SIZE[1] // TILES))
    shown = work.Picture(scene.stat().st_size, "Scene", "ViewLayer", *SIZE, FRAME)
    order = run.Order(article, shown, str(scene), BID_MSAT, 60.0, 8)
    course = run.Run(NodeClient(str(home)), order, Frame(tiles), Budget(2 * BID_MSAT * len(tiles), article))
    ground, done, began = canvas(), 0, time.monotonic()
    course.start()
    while not course.frame.over:
        for delivery in course.step(0.1):
            put(ground, delivery.data)
            done += 1
            if done == (len(tiles) + 1) // 2:
                save(ground, folder / "artist-half.png")
                print(course.words())
    course.close()
    save(ground, folder / "artist-finished.png")
    print(course.words(), course.frame.failure, f"{time.monotonic() - began:.1f} s")


async def main(program: str, folder: Path) -> None:
    """All of it, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as place:
        blender = Blender(program, Path(place))
        scene = blender.scene(Path(place) / "scene", *SIZE, SAMPLES)
        packed = scene.with_name("packed.blend")
        line = [program] if blender.is_module else [program, "--background", "--factory-startup", "-noaudio", "--python"]
        script = str(ROOT / "blender/bitwrk/packer.py")
        subprocess.run(  # noqa: ASYNC221 - nothing else is going on
            [*line, script, "--", str(scene), str(packed)], check=True, capture_output=True
        )
        async with open_market(Path(place) / "nodes", blender) as market:
            article = (await market.sellers[0].get(market.client, "orders"))[0]["article"]
            await trio.to_thread.run_sync(buy, market.buyer.home, packed, article, folder)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT / "docs" / "figures")
