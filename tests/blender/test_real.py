"""The whole way with real Blenders and real nodes. BITWRK_BLENDERS names them, separated by colons; see make test-blender."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio

from peer.workers.blender import keeper as keeping
from peer.workers.blender.keeper import Keeper
from peer.workers.blender.openexr import Image
from peer.workers.blender.pixels import pixels
from peer.workers.blender.spec import blender_setup, blender_worker, probe
from peer.workers.blender.work import CLASSES, BadTile, Work, check_result, read_result
from peer.workers.pool import open_pool
from peer.workers.sandbox import check_sandbox
from tests.blender.real import ASK, BID_MSAT, Blender, open_market
from wire.canon import pack
from wire.errors import Refused
from wire.limits import BLENDER_MEMORY_DEFAULT_BYTES
from wire.money import parse_msat

BLENDERS = [one for one in os.environ.get("BITWRK_BLENDERS", "").split(":") if one]
pytestmark = [
    pytest.mark.blender,
    pytest.mark.skipif(not BLENDERS, reason="BITWRK_BLENDERS names no Blender; make test-blender does"),
]
MAXIMUM_MSAT = 12 * BID_MSAT


@pytest.fixture(scope="module", params=BLENDERS or ["none"], ids=lambda path: Path(path).name)
def blender(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Blender:
    check_sandbox()
    home = tmp_path_factory.mktemp("home")
    return Blender(program=request.param, home=home)


@pytest.fixture(scope="module")
def scene(blender: Blender, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return blender.scene(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="module")
def direct(blender: Blender, scene: Path) -> Image:
    out = scene.with_name("direct.exr")
    blender.render(scene, out)
    return read_result(out.read_bytes())


def same(one: Image, two: Image) -> bool:
    """Equal to the bit, in every channel."""
    return one.channels == two.channels and pixels(one).tobytes() == pixels(two).tobytes()


async def test_the_market_renders_what_cycles_renders(blender: Blender, scene: Path, direct: Image, tmp_path: Path) -> None:
    """Then with too little money; then with a seller killed in the middle of a tile."""
    assert np.ptp(pixels(direct)[1]) > 0.1
    # A picture missing beside the scene would be pink; so it is seen that textures travel with the scene.
    async with open_market(tmp_path / "nodes", blender) as market:
        out = tmp_path / "market.exr"
        buy = blender.buy
        done = await trio.to_thread.run_sync(lambda: buy(scene, out, market.buyer.home, maximum=f"msat {MAXIMUM_MSAT}"))
        assert done.returncode == 0, done.stdout[-2_000:] + done.stderr[-2_000:]
        assert same(read_result(out.read_bytes()), direct)
        trades = [one for one in await market.trades() if one["phase"] == "finished"]
        assert len(trades) == 12
        assert {one["account"] for one in trades} == {seller.account for seller in market.sellers}
        assert all(parse_msat(ASK) <= one["price_msat"] <= BID_MSAT for one in trades)

        before = sum(one["price_msat"] for one in trades)
        done = await trio.to_thread.run_sync(
            lambda: buy(scene, tmp_path / "poor.exr", market.buyer.home, maximum=f"msat {2 * BID_MSAT}")
        )
        assert done.returncode != 0
        assert "the maximum of uBTC 80 is reached" in done.stdout + done.stderr
        spent = sum(one["price_msat"] for one in await market.trades() if one["phase"] == "finished") - before
        assert 0 < spent <= 2 * BID_MSAT

        slow = await trio.to_thread.run_sync(lambda: blender.scene(tmp_path / "slow", samples=400))
        await trio.to_thread.run_sync(lambda: blender.render(slow, tmp_path / "slow.exr"))
        killed: list[str] = []

        async def kill_one() -> None:
            victim = market.sellers[1]
            while not killed:
                for one in await market.trades():
                    if one["account"] == victim.account and one["phase"] in ("transmitting", "working"):
                        victim.program.kill()
                        killed.append(one["phase"])
                        break
                await trio.sleep(0.02)

        out = tmp_path / "killed.exr"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill_one)
            done = await trio.to_thread.run_sync(lambda: buy(slow, out, market.buyer.home, maximum=f"msat {2 * MAXIMUM_MSAT}"))
            nursery.cancel_scope.cancel()
        assert killed
        assert done.returncode == 0, done.stdout[-2_000:] + done.stderr[-2_000:]
        assert same(read_result(out.read_bytes()), read_result((tmp_path / "slow.exr").read_bytes()))


# --- the worker -----------------------------------------------------------------------------------------------------------
def work(path: Path, **change: Any) -> bytes:
    values: dict[str, Any] = {
        "format": 1,
        "scene": path.read_bytes(),
        "scene_name": "Scene",
        "layer": "ViewLayer",
        "image_width": 64,
        "image_height": 48,
        "frame": 3,
        "left": 0,
        "top": 0,
        "width": 64,
        "height": 48,
        **change,
    }
    return pack(Work(**values))


async def test_tiles_and_repetitions_are_the_same_to_the_bit(blender: Blender, scene: Path) -> None:
    one, two = (blender_worker(blender.program, threads=threads) for threads in (1, 2))
    assert one.article.startswith("net.bitwrk/blender/1/")
    larger = one.article.replace("/2G", "/8G")
    assert blender_worker(blender.program, article=larger).article == larger
    with pytest.raises(Refused) as caught:
        blender_worker(blender.program, article="net.bitwrk/blender/1/2.83/2G")
    assert caught.value.code == "wrong-version"
    async with open_pool(one, 1) as pool, open_pool(two, 1) as other:
        asked = work(scene, left=13, top=7, width=29, height=31)
        first = await pool.run(asked, time_s=120)
        await pool.run(work(scene, frame=9), time_s=120)
        assert await pool.run(asked, time_s=120) == first
        assert await other.run(asked, time_s=120) == first
        whole = pixels(check_result(work(scene), await other.run(work(scene), time_s=120)))
        image = check_result(asked, first)
        assert np.array_equal(pixels(image), whole[:, 7:38, 13:42])
        assert pool.statistics().started == 1


def test_more_passes_come_along(blender: Blender, scene: Path) -> None:
    """The scene of the tests as its artist might send it, with the depth pass on."""
    deep = scene.with_name("deep.blend")
    done = blender.run("passes.py", str(scene), str(deep))
    assert done.returncode == 0, done.stderr
    keeper = Keeper(blender_setup(blender.program, memory_bytes=BLENDER_MEMORY_DEFAULT_BYTES, threads=1, time_max_s=60))
    try:
        image = check_result(work(deep), keeper.compute(work(deep)))
    finally:
        keeper.close()
    assert any(".Depth." in name for name in image.channels)
    assert any(".Denoising Albedo." in name for name in image.channels)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"scene_name": "Other"}, "bad-scene"),
        ({"layer": "Other"}, "bad-scene"),
        ({"scene": b"BLENDER-v404" + bytes(500)}, "bad-scene"),
        ({"image_width": 65}, "wrong-size"),
    ],
)
def test_refusals(blender: Blender, scene: Path, change: dict[str, Any], code: str) -> None:
    setup = blender_setup(blender.program, memory_bytes=BLENDER_MEMORY_DEFAULT_BYTES, threads=1, time_max_s=60)
    keeper = Keeper(setup)
    try:
        with pytest.raises(BadTile) as caught:
            keeper.compute(work(scene, **change))
        assert caught.value.code == code
        assert check_result(work(scene), keeper.compute(work(scene)))
    finally:
        keeper.close()


def test_the_seller_counts_for_himself(blender: Blender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CLASSES, "512M", 64 * 48 * 4 * 12 - 1)
    setup = blender_setup(blender.program, cost_class="512M", memory_bytes=BLENDER_MEMORY_DEFAULT_BYTES, threads=1, time_max_s=60)
    keeper, scene = Keeper(setup), blender.scene(tmp_path)
    try:
        with pytest.raises(BadTile) as caught:
            keeper.compute(work(scene))
        assert caught.value.code == "too-costly"
        assert keeper.compute(work(scene, width=63))
    finally:
        keeper.close()


@pytest.fixture
def target() -> Iterator[Path]:
    """A folder that anybody may write into, so that only walls stop a scene."""
    folder = Path(tempfile.mkdtemp(prefix="bitwrk-target-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("walls", ["sandbox", "settings alone"])
def test_a_hostile_scene_does_nothing_outside(
    blender: Blender, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, walls: str
) -> None:
    """With the sandbox, and without it by the settings that the worker forces. First it is shown that the scene means it."""
    made = blender.run("hostile.py", str(tmp_path), str(target))
    assert made.returncode == 0, made.stderr
    hostile = tmp_path / "hostile.blend"
    blender.run("careless.py", str(hostile), auto_run=True)
    done = {path.name for path in target.iterdir()}
    assert any(name.startswith("file-output") for name in done)
    assert done & {"driver", "text-block", "freestyle"}
    for path in target.iterdir():
        path.unlink()

    setup = blender_setup(blender.program, memory_bytes=BLENDER_MEMORY_DEFAULT_BYTES, threads=1, time_max_s=100)
    if walls != "sandbox":
        monkeypatch.setattr(keeping, "sandboxed", lambda command, limits, visible: tuple(command))
        monkeypatch.chdir(tmp_path)
    keeper = Keeper(setup)
    asked = work(hostile, image_width=32, image_height=24, width=32, height=24)
    try:
        assert check_result(asked, keeper.compute(asked))
    finally:
        keeper.close()
    assert list(target.iterdir()) == []


def test_what_a_blender_is(blender: Blender) -> None:
    facts = probe(blender_setup(blender.program, memory_bytes=BLENDER_MEMORY_DEFAULT_BYTES, threads=1, time_max_s=60))
    assert facts.version.count(".") == 2
    assert facts.build
    assert facts.kernel
