"""The keeper against a stand-in for Blender: what comes out is checked, and what goes wrong has a name."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peer.workers.blender import keeper as keeping
from peer.workers.blender.keeper import Facts, Keeper, Setup, start
from peer.workers.blender.openexr import Window
from peer.workers.blender.pixels import crop, digest, pixels
from peer.workers.blender.spec import blender_setup, blender_worker
from peer.workers.blender.work import BadTile, Work, article_of, check_result, read_work
from peer.workers.sandbox import Limits
from tests.blender.picture import picture
from wire.canon import pack
from wire.errors import LocalFault, Refused

FAKE = Path(__file__).with_name("fake_blender.py")
MEMORY_BYTES = 2 << 30


def work(mood: str = "well", **change: Any) -> bytes:
    values: dict[str, Any] = {
        "format": 1,
        "scene": b"BLENDER-v404" + mood.encode() + b" " + bytes(2_000),
        "scene_name": "Scene",
        "layer": "View Layer",
        "image_width": 64,
        "image_height": 48,
        "frame": 3,
        "left": 10,
        "top": 20,
        "width": 33,
        "height": 21,
        **change,
    }
    return pack(Work(**values))


@pytest.fixture
def setup(monkeypatch: pytest.MonkeyPatch) -> Setup:
    """The stand-in, started without a sandbox, so that these tests run anywhere."""

    def bare(command: Sequence[str], limits: Limits, **_: Any) -> tuple[str, ...]:
        assert limits.memory_bytes == MEMORY_BYTES
        return tuple(command)

    monkeypatch.setattr(keeping, "sandboxed", bare)
    root = str(Path(__file__).resolve().parents[2])
    words = (sys.executable, "-c", f"import sys; sys.path.insert(0, {root!r}); exec(open({str(FAKE)!r}).read())")
    return Setup(words=words, visible=(), cost_class="2G", memory_bytes=MEMORY_BYTES, threads=1, time_max_s=20)


@pytest.fixture
def keeper(setup: Setup) -> Iterator[Keeper]:
    made = Keeper(setup)
    yield made
    made.close()


def test_a_tile_is_cropped_checked_and_written_anew(keeper: Keeper) -> None:
    result = keeper.compute(work())
    image = check_result(work(), result)
    assert image.data == Window(10, 20, 33, 21)
    assert image.display == Window(0, 0, 64, 48)
    values, channels = picture("View Layer", 64, 48, 3)
    assert image.channels == channels
    expected = crop(values, Window(0, 0, 64, 48), image.data)
    assert np.array_equal(pixels(image), expected)
    assert image.text("bitwrkPixels") == digest(expected, channels, image.data)
    assert (image.text("bitwrkBlender"), image.text("bitwrkBuild"), image.text("bitwrkKernel")) == ("9.9.1", "fake", "none")
    assert image.text("bitwrkFrame") == "3"
    assert "Date" not in image.attributes
    assert keeper.compute(work()) == result


def test_one_process_for_one_scene(keeper: Keeper) -> None:
    def process() -> int:
        assert keeper._inside is not None
        return keeper._inside._process.pid

    keeper.compute(work())
    first = process()
    keeper.compute(work(left=0, frame=-4))
    assert process() == first
    keeper.compute(work("pid"))
    second = process()
    assert second != first
    keeper.compute(work())
    assert process() not in (first, second)


@pytest.mark.parametrize(
    ("mood", "code"),
    [
        ("crash", "worker-fault"),
        ("garbage", "worker-fault"),
        ("small", "worker-fault"),
        ("number", "worker-fault"),
        ("number-text", "worker-fault"),
        ("no-json", "worker-fault"),
        ("list", "worker-fault"),
        ("long-line", "worker-fault"),
        ("other-layer", "worker-fault"),
        ("costly", "too-costly"),
        ("refuse-scene", "bad-scene"),
    ],
)
def test_what_goes_wrong_has_a_name_and_the_next_tile_works(keeper: Keeper, mood: str, code: str) -> None:
    with pytest.raises(Refused) as caught:
        keeper.compute(work(mood))
    assert caught.value.code == code
    assert keeper.compute(work())


def test_time_is_up(setup: Setup) -> None:
    import dataclasses

    keeper = Keeper(dataclasses.replace(setup, time_max_s=1))
    with pytest.raises(Refused) as caught:
        keeper.compute(work("sleep"))
    assert caught.value.code == "worker-fault"
    assert "in time" in caught.value.sentence
    assert keeper._inside is None


def test_a_scene_nobody_asks_for_is_let_go(keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "SANDBOX_IDLE_S", 0.05)
    keeper.compute(work())
    assert keeper._inside is not None
    keeper._inside._process.wait(20)
    monkeypatch.setattr(keeping, "SANDBOX_IDLE_S", 60)
    assert keeper.compute(work())


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"left": 40, "width": 30}, "bad-rectangle"),
        ({"top": 40, "height": 30}, "bad-rectangle"),
        (
            {"image_width": 65_536, "image_height": 65_536, "left": 0, "top": 0, "width": 4_097, "height": 4_096},
            "too-costly",
        ),
    ],
)
def test_tiles_that_cannot_be(change: dict[str, Any], code: str) -> None:
    with pytest.raises(BadTile) as caught:
        read_work(work(**change))
    assert caught.value.code == code


def test_bytes_that_are_no_work(keeper: Keeper) -> None:
    for data in (b"", b"\x00", work()[:-1], work() + b"\x00", pack(Facts(version="1.2", build="x", kernel="y"))):
        with pytest.raises(BadTile) as caught:
            keeper.compute(data)
        assert caught.value.code == "not-a-work"


def test_results_of_other_tiles_are_told(keeper: Keeper) -> None:
    result = keeper.compute(work())
    for change in ({"left": 11}, {"image_width": 65}, {"layer": "Other"}):
        with pytest.raises(BadTile):
            check_result(work(**change), result)
    with pytest.raises(BadTile):
        check_result(work(), result[:-1])


def test_a_blender_that_does_not_start(setup: Setup) -> None:
    import dataclasses

    for program, words in (
        ("import sys; sys.exit('no display')", "no display"),
        ("print('BITWRK/1 nonsense')", "something else"),
    ):
        with pytest.raises(LocalFault) as caught:
            start(dataclasses.replace(setup, words=(sys.executable, "-c", program)))
        assert caught.value.code == "blender-start"
        assert words in caught.value.sentence
    broken = Keeper(dataclasses.replace(setup, words=(sys.executable, "-c", "1 / 0")))
    with pytest.raises(Refused) as refused:
        broken.compute(work())
    assert refused.value.code == "worker-fault"


def test_how_blender_is_started(tmp_path: Path) -> None:
    program = tmp_path / "blender-4.5" / "blender"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    setup = blender_setup(program, memory_bytes=1, threads=3, time_max_s=10)
    assert setup.words[0] == str(program)
    assert {"--background", "--factory-startup", "--disable-autoexec"} <= set(setup.words)
    assert str(program.parent) in setup.visible
    setup = blender_setup(sys.executable, memory_bytes=1, threads=3, time_max_s=10)
    assert setup.words[:2] == (sys.executable, "-I")
    assert str(Path(sys.prefix)) in setup.visible or sys.prefix.startswith("/usr")
    with pytest.raises(LocalFault) as caught:
        blender_setup("/no/such/blender", memory_bytes=1, threads=1, time_max_s=10)
    assert caught.value.code == "no-blender"
    with pytest.raises(LocalFault) as caught:
        blender_setup(program, script=tmp_path / "none.py", memory_bytes=1, threads=1, time_max_s=10)
    assert caught.value.code == "no-script"


def test_articles() -> None:
    assert article_of("4.5.15", "512M") == "net.bitwrk/blender/1/4.5/512M"
    with pytest.raises(BadTile):
        article_of("4.5.15", "3G")
    with pytest.raises(Refused):
        blender_worker("blender", cost_class="3G")
