"""The add-on's core without Blender: tiles, money, bytes, archives."""

import ast
import os
import subprocess
import sys
import tomllib
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import peer.workers.blender.openexr as original
from blender import build
from blender.bitwrk.core import assets, money, openexr, tiling, work
from peer.workers.blender.pixels import digest, pixels, seal, write
from peer.workers.blender.work import CLASSES, Work, article_of, read_work
from tests.blender.picture import picture
from wire.canon import pack
from wire.money import parse_msat, show_msat

ROOT = Path(__file__).resolve().parents[2]


# --- tiles ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("size", "most", "expected"),
    [
        ((1920, 1080), 349_525, (3, 2)),
        ((1920, 1080), 65_536, (8, 4)),
        ((1080, 1920), 65_536, (4, 8)),
        ((3840, 2160), 349_525, (6, 4)),
        ((1920, 1080), 10_000, (20, 11)),
        ((100, 100), 1, (100, 100)),
        ((7, 5), 4, (4, 3)),
        ((2048, 858), 20_000, (15, 6)),
    ],
)
def test_tilings_of_the_original(size: tuple[int, int], most: int, expected: tuple[int, int]) -> None:
    assert tiling.grid(*size, most) == expected


sides = st.integers(1, 4_000)


@given(sides, sides, st.integers(1, 1 << 24))
def test_no_tile_is_too_large(width: int, height: int, most: int) -> None:
    columns, rows = tiling.grid(width, height, most)
    assert 1 <= columns <= width
    assert 1 <= rows <= height
    assert -(-width // columns) * -(-height // rows) <= most
    # Nothing could be left out: one column or one row fewer would be too large, whichever was tried last.
    fewer = [(columns - 1, rows)] if columns > 1 else []
    fewer += [(columns, rows - 1)] if rows > 1 else []
    assert not fewer or any(-(-width // c) * -(-height // r) > most for c, r in fewer)


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 60), st.integers(1, 60), st.integers(1, 300))
def test_tiles_cover_everything_once(left: int, top: int, width: int, height: int, most: int) -> None:
    tiles = tiling.cut(left, top, width, height, *tiling.grid(width, height, most))
    seen = np.zeros((top + height + 1, left + width + 1), dtype=int)
    for tile in tiles:
        assert 0 < tile.width * tile.height <= most
        seen[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width] += 1
    assert seen.sum() == width * height
    assert (seen[top : top + height, left : left + width] == 1).all()


def test_the_middle_comes_first() -> None:
    tiles = tiling.cut(0, 0, 90, 90, 3, 3)
    assert tiles[0] == tiling.Tile(30, 30, 30, 30)
    assert set(tiles[-4:]) == {tiling.Tile(x, y, 30, 30) for x in (0, 60) for y in (0, 60)}


def test_cost_classes_are_those_of_the_sellers() -> None:
    assert tiling.CLASSES == CLASSES
    for name in CLASSES:
        assert tiling.article((4, 5, 15), name) == article_of("4.5.15", name)
    assert tiling.pixels_per_tile("2G", tiling.rays_per_pixel(128, 12)) == (1 << 31) // 1536
    assert tiling.pixels_per_tile("2G", 1) == tiling.TILE_MAX_PIXELS
    assert tiling.pixels_per_tile("512M", 4, 64 * 48, 12) == 256
    with pytest.raises(tiling.TooCostly):
        tiling.pixels_per_tile("512M", (1 << 29) + 1)


# --- money ----------------------------------------------------------------------------------------------------------------
@given(st.integers(0, 21_000_000 * 10**11))
def test_money_reads_as_the_node_writes_it(msat: int) -> None:
    assert money.parse_msat(show_msat(msat)) == msat
    assert money.show_msat(msat) == show_msat(msat)


@pytest.mark.parametrize("text", ["uBTC 340", "mBTC0.1", "satoshi 20", "sat 0.001", "msat 5", " BTC 1 "])
def test_amounts(text: str) -> None:
    assert money.parse_msat(text) == parse_msat(text)


@pytest.mark.parametrize("text", ["340", "uBTC", "uBTC -1", "EUR 1", "msat 0.5", "uBTC 1e9", "uBTC 1,5"])
def test_what_is_no_amount(text: str) -> None:
    with pytest.raises(money.BadAmount):
        money.parse_msat(text)


def test_no_amount_is_nothing() -> None:
    assert money.parse_msat("") == money.parse_msat("  ") == 0


# --- bytes of a work --------------------------------------------------------------------------------------------------------
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)


@given(
    st.integers(12, 70_000),
    names,
    names,
    st.integers(1, 65_536),
    st.integers(1, 65_536),
    st.integers(-1_048_574, 1_048_574),
    st.tuples(*[st.integers(0, 65_535)] * 2, *[st.integers(1, 65_536)] * 2),
)
def test_works_are_what_sellers_read(
    length: int, scene_name: str, layer: str, width: int, height: int, frame: int, tile: tuple[int, int, int, int]
) -> None:
    scene = b"B" * length
    shown = work.Picture(length, scene_name, layer, width, height, frame)
    data = work.head(shown) + scene + work.tail(shown, tiling.Tile(*tile))
    left, top, across, down = tile
    expected = Work(
        format=1,
        scene=scene,
        scene_name=scene_name,
        layer=layer,
        image_width=width,
        image_height=height,
        frame=frame,
        left=left,
        top=top,
        width=across,
        height=down,
    )
    assert data == pack(expected)


def test_only_the_end_differs_between_tiles() -> None:
    shown = work.Picture(1_000, "Scene", "ViewLayer", 64, 48, 1)
    one, two = (work.tail(shown, tiling.Tile(x, 0, 8, 8)) for x in (0, 8))
    assert one != two
    assert len(one) < 64
    assert read_work(work.head(shown) + bytes(1_000) + one).scene == bytes(1_000)


def test_the_vector_of_the_specification() -> None:
    shown = work.Picture(12, "S", "L", 64, 48, -1)
    data = work.head(shown) + b"BLENDER-v405" + work.tail(shown, tiling.Tile(8, 0, 16, 300))
    assert data.hex() in (ROOT / "docs/spec/blender.md").read_text().replace(" ", "")


# --- images ---------------------------------------------------------------------------------------------------------------
SHOWN = work.Picture(1_000, "Scene", "View Layer", 64, 48, 3)
TILE = tiling.Tile(10, 20, 33, 21)
MAKER = {"bitwrkBlender": "4.5.15", "bitwrkBuild": "abc", "bitwrkKernel": "avx2", "bitwrkFrame": "3"}


def tile_file(
    layer: str = "View Layer", noise: bool = False, window: tuple[int, int, int, int] = (10, 20, 33, 21), **more: str
) -> bytes:
    values, channels = picture(layer, 64, 48, 3)
    left, top, width, height = window
    part = np.ascontiguousarray(values[:, top : top + height, left : left + width])
    if noise:
        part = np.frombuffer(os.urandom(part.nbytes), dtype=np.float32).reshape(part.shape)
    return seal(part, channels, original.Window(*window), original.Window(0, 0, 64, 48), {**MAKER, **more})


def test_the_readers_are_one() -> None:
    """The add-on cannot import the node's reader and the node must not import the add-on's; so there are two equal files."""
    assert (ROOT / "peer/workers/blender/openexr.py").read_text() == (ROOT / "blender/bitwrk/core/openexr.py").read_text()


@pytest.mark.parametrize("noise", [False, True])
def test_pixels_survive(noise: bool) -> None:
    """Noise does not shrink, so its blocks are stored as they are."""
    data = tile_file(noise=noise)
    image = original.read(data, most_pixels=10_000, most_channels=8)
    assert image.stored == (noise, noise)
    again = write(
        pixels(image), image.channels, image.data, image.display, {name: image.text(name) for name in (*MAKER, "bitwrkPixels")}
    )
    assert again == data
    assert image.text("bitwrkPixels") == digest(pixels(image), image.channels, image.data)


def test_a_good_tile_says_who_made_it() -> None:
    maker = work.check_result(SHOWN, TILE, tile_file())
    assert (maker["build"], maker["kernel"], maker["blender"]) == ("abc", "avx2", "4.5.15")


@pytest.mark.parametrize(
    "change",
    [
        {"window": (11, 20, 33, 21)},
        {"layer": "Other"},
        {"bitwrkFrame": "4"},
        {"preview": "something"},
    ],
)
def test_tiles_of_something_else(change: dict[str, Any]) -> None:
    with pytest.raises(openexr.BadImage):
        work.check_result(SHOWN, TILE, tile_file(**change))


def bomb() -> bytes:
    """A block that announces less than it becomes."""
    data = tile_file()
    packed = zlib.compress(bytes(50 << 20))
    block = data.index((20).to_bytes(4, "little") + b"", data.index(b"screenWindowWidth") + 30)
    return data[: block + 4] + len(packed).to_bytes(4, "little") + packed


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: data[:4] + b"\x02\x02\0\0" + data[8:],
        lambda data: data.replace(b"compression\0compression\0\x01\0\0\0\x03", b"compression\0compression\0\x01\0\0\0\x04"),
        lambda data: data.replace(b"lineOrder\0lineOrder\0\x01\0\0\0\0", b"lineOrder\0lineOrder\0\x01\0\0\0\x01"),
        lambda data: data.replace(b"View Layer.Combined.A\0\x02", b"View Layer.Combined.A\0\x01"),
        lambda data: data.replace(b"Combined.A", b"Combined.G"),
        lambda data: data.replace(b"dataWindow\0box2i", b"dataWandow\0box2i"),
        lambda data: bomb(),
    ],
)
def test_files_that_are_not_such_images(spoil: Any) -> None:
    spoiled = spoil(tile_file())
    assert spoiled != tile_file()
    with pytest.raises(openexr.BadImage):
        work.check_result(SHOWN, TILE, spoiled)


@given(st.data())
def test_no_bytes_make_the_reader_stumble(data: st.DataObject) -> None:
    good = bytearray(tile_file())
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(good)))
    for spoiled in (bytes(good), bytes(good[:cut])):
        try:
            openexr.read(spoiled, most_pixels=10_000, most_channels=8)
        except openexr.BadImage:
            continue


def test_sizes_are_checked_before_anything_is_made() -> None:
    huge = tile_file().replace(
        b"dataWindow\0box2i\0\x10\0\0\0" + (10).to_bytes(4, "little"), b"dataWindow\0box2i\0\x10\0\0\0" + bytes(4)
    )
    right = huge.index(b"dataWindow\0box2i") + 21 + 8
    huge = huge[:right] + (2**31 - 2).to_bytes(4, "little") + huge[right + 4 :]
    with pytest.raises(openexr.BadImage, match="more than 10000 pixels"):
        openexr.read(huge, most_pixels=10_000, most_channels=8)
    with pytest.raises(openexr.BadImage, match="more than 3 channels"):
        openexr.read(tile_file(), most_pixels=10_000, most_channels=3)


# --- files of the scene ---------------------------------------------------------------------------------------------------
def test_what_sellers_would_not_have() -> None:
    found = [
        assets.Asset("image", "wood", "/x/wood.png", False, False),
        assets.Asset("image", "wood", "/x/wood.png", False, False),
        assets.Asset("image", "packed", "/x/gone.png", True, False),
        assets.Asset("image", "there", "/x/there.png", False, True),
        assets.Asset("movie", "clip", "/x/clip.mp4", False, True),
        assets.Asset("font", "lost", "", False, False),
    ]
    told = assets.missing(found)
    assert len(told) == 3
    assert told == sorted(told)
    assert "image 'wood': there is no file /x/wood.png" in told
    assert any("movie 'clip'" in one for one in told)
    assert any("(no path)" in one for one in told)


# --- archives -------------------------------------------------------------------------------------------------------------
def test_archives_are_the_same_bytes_every_time(tmp_path: Path) -> None:
    first, second = build.build(tmp_path / "a"), build.build(tmp_path / "b")
    assert [one.read_bytes() for one in first] == [one.read_bytes() for one in second]
    legacy, extension = (zipfile.ZipFile(one).namelist() for one in first)
    assert {"bitwrk/" + name for name in extension} == set(legacy)
    assert {"__init__.py", "blender_manifest.toml", "LICENSE", "core/openexr.py", "packer.py"} <= set(extension)
    assert not [name for name in extension if "__pycache__" in name]
    for archive in first:
        assert {one.date_time for one in zipfile.ZipFile(archive).infolist()} == {build.LONG_AGO}


def test_the_manifest_agrees_with_bl_info() -> None:
    manifest = tomllib.loads((ROOT / "blender/bitwrk/blender_manifest.toml").read_text())
    assert manifest["version"] == build.version()
    assert manifest["license"] == ["SPDX:GPL-3.0-or-later"]
    assert all(len(why) <= 64 and not why.endswith(".") for why in manifest["permissions"].values())


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {one.name.split(".")[0] for one in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(str(node.module).split(".")[0])
    return found


def test_standard_library_and_blender_only() -> None:
    blender_own = {"bpy", "cycles", "addon_utils", "_cycles"}
    files = [*(ROOT / "blender/bitwrk").rglob("*.py"), *(ROOT / "blender/worker").rglob("*.py")]
    assert len(files) > 12
    for path in files:
        assert imports_of(path) - blender_own <= sys.stdlib_module_names, path
        own = (ROOT / "blender/bitwrk/core") in path.parents
        assert not own or not imports_of(path) & blender_own, path
        licence = "MIT" if path.name == "openexr.py" else "GPL-3.0-or-later"
        assert path.read_text().startswith(f"# SPDX-License-Identifier: {licence}\n"), path
        compile(path.read_text(), str(path), "exec", dont_inherit=True)
        ast.parse(path.read_text(), feature_version=(3, 10))


def test_the_core_needs_neither_blender_nor_anything_installed() -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from bitwrk.core import assets, budget, frame, money, node, openexr, run, tiling, work\n"
        "print('bpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-S", "-I", "-c", program, str(ROOT / "blender")], capture_output=True, check=True)
    assert done.stdout.strip() == b"False"
