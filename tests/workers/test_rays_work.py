"""What a work may say, how its bytes lie, and which refusal each broken rule gets."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from peer.workers.pool import WorkFailed, open_pool
from peer.workers.rays.demo import demo_scene
from peer.workers.rays.local import render_locally
from peer.workers.rays.request import BadWork, Kind, Material, Result, Scene, Work, check_result, read_result, read_work
from peer.workers.rays.tiles import Plan, cut, grid, join, write_png
from peer.workers.rays.tracer import compute
from peer.workers.spec import built_in
from tests.workers.scenes import ball, small_plan, small_scene, texture
from wire.canon import pack, unpack

PLAN = small_plan(width=8, height=6, samples=2)
(ONE,) = cut(PLAN, 1, 1)


def refusal(work: bytes) -> str:
    with pytest.raises(BadWork) as caught:
        compute(work)
    assert caught.value.sentence
    return caught.value.code


def changed(**fields: object) -> bytes:
    return pack(dataclasses.replace(unpack(Work, ONE), **fields))  # type: ignore[arg-type]


def with_scene(**fields: object) -> bytes:
    return changed(scene=dataclasses.replace(small_scene(), **fields))  # type: ignore[arg-type]


def camera(**fields: object) -> bytes:
    return with_scene(camera=dataclasses.replace(small_scene().camera, **fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("work", "code"),
    [
        (b"", "not-a-work"),
        (b"\xc1", "not-a-work"),
        (ONE[:-1], "not-a-work"),
        (ONE + b"\0", "not-a-work"),
        (changed(left=1), "bad-rectangle"),
        (changed(top=6, height=1), "bad-rectangle"),
        (changed(image_width=7), "bad-rectangle"),
        (changed(image_width=16_384, image_height=16_384, width=16_384, height=16_384), "too-costly"),
        (changed(image_width=16_384, image_height=16_384, width=16_384, height=6_000, samples=1, bounces=1), "too-costly"),
        (changed(image_width=4_096, width=4_096, samples=4_096, bounces=3), "too-costly"),
        (
            with_scene(sky=dataclasses.replace(small_scene().sky, texture=dataclasses.replace(texture(8, 7), side=7))),
            "bad-texture",
        ),
        (
            with_scene(floor=dataclasses.replace(small_scene().floor, texture=dataclasses.replace(texture(6, 7), side=9))),
            "bad-texture",
        ),
        (with_scene(materials=small_scene().materials[:3]), "bad-material"),
        (with_scene(spheres=tuple(ball(place, 500, 0, 10, 3) for place in range(5))), "too-many-lights"),
        (camera(eye=dataclasses.replace(small_scene().camera.eye, y=0)), "bad-camera"),
        (camera(target=dataclasses.replace(small_scene().camera.eye, y=0)), "bad-camera"),
        (camera(target=small_scene().camera.eye), "bad-camera"),
    ],
)
def test_each_broken_rule_has_its_refusal(work: bytes, code: str) -> None:
    assert refusal(work) == code


@pytest.mark.parametrize("field", ["format", "image_width", "image_height", "samples", "bounces", "width", "height"])
def test_zero_is_refused_where_it_means_nothing(field: str) -> None:
    values = [getattr(unpack(Work, ONE), one.name) for one in dataclasses.fields(Work)]
    names = [one.name for one in dataclasses.fields(Work)]
    import msgpack

    plain = msgpack.unpackb(ONE, raw=False)
    assert plain[names.index(field)] == values[names.index(field)]
    plain[names.index(field)] = 0
    assert refusal(msgpack.packb(plain, use_bin_type=True)) == "not-a-work"


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_spoilt_bytes_are_refused_or_rendered(data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(ONE) - 1))
    spoilt = bytearray(ONE)
    spoilt[place] = data.draw(st.integers(0, 255))
    try:
        work = read_work(bytes(spoilt))
    except BadWork:
        return
    if work.width * work.height * work.samples * work.bounces <= 50_000:
        result = read_result(compute(bytes(spoilt)))
        assert len(result.pixels) == 3 * work.width * work.height


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_scene_makes_the_arithmetic_stumble(data: st.DataObject) -> None:
    place = st.integers(-1_000_000, 1_000_000)
    kinds = [kind for kind in Kind if kind is not Kind.LIGHT]
    colour = st.integers(0, 65_535)
    materials = tuple(
        Material(
            kind=data.draw(st.sampled_from(kinds)),
            red=data.draw(colour),
            green=data.draw(colour),
            blue=data.draw(colour),
            finish=data.draw(st.integers(0, 1_000)),
        )
        for _ in range(3)
    )
    spheres = tuple(
        ball(data.draw(place), data.draw(place), data.draw(place), data.draw(st.integers(1, 1_000_000)), number)
        for number in range(3)
    )
    scene = dataclasses.replace(small_scene(), materials=materials, spheres=spheres)
    plan = Plan(scene=scene, width=5, height=4, samples=2, bounces=5)
    (work,) = cut(plan, 1, 1)
    assert len(read_result(compute(work)).pixels) == 60


def test_an_empty_scene_is_sky_and_floor() -> None:
    scene: Scene = dataclasses.replace(small_scene(), materials=(), spheres=())
    picture = join([compute(cut(Plan(scene=scene, width=6, height=4, samples=1, bounces=2), 1, 1)[0])])
    assert picture.shape == (4, 6, 3)
    assert picture.any()


def test_what_varies_comes_last() -> None:
    works = cut(demo_scene(), 6, 4)
    assert len(works) == 24
    first = works[0]
    assert 100_000 <= len(first) <= 450_000
    for work in works:
        assert work[: len(first) - 24] == first[: len(first) - 24]
        assert abs(len(work) - len(first)) <= 8
    assert len(set(works)) == 24


def test_the_demonstration_weighs_what_it_should_when_packed() -> None:
    import zstandard

    assert len(zstandard.compress(cut(demo_scene(), 1, 1)[0])) > 100_000


def test_cut_covers_every_pixel_once() -> None:
    for columns, rows in [(1, 1), (8, 6), (3, 4), (5, 5)]:
        seen = np.zeros((6, 8), int)
        for data in cut(PLAN, columns, rows):
            work = read_work(data)
            seen[work.top : work.top + work.height, work.left : work.left + work.width] += 1
        assert (seen == 1).all()


@pytest.mark.parametrize(("columns", "rows"), [(0, 1), (1, 0), (9, 1), (1, 7)])
def test_cut_has_bounds(columns: int, rows: int) -> None:
    with pytest.raises(BadWork) as caught:
        cut(PLAN, columns, rows)
    assert caught.value.code == "bad-grid"


def test_cut_has_a_bound_of_tiles() -> None:
    with pytest.raises(BadWork):
        cut(small_plan(width=100, height=100), 100, 100)


@pytest.mark.parametrize(
    ("tiles", "expected"), [(1, (1, 1)), (2, (2, 1)), (6, (3, 2)), (24, (6, 4)), (23, (6, 4)), (54, (9, 6)), (96, (12, 8))]
)
def test_grid_is_nearly_square(tiles: int, expected: tuple[int, int]) -> None:
    assert grid(small_plan(600, 400), tiles) == expected


@pytest.mark.parametrize("tiles", [0, -1, 49, 5_000])
def test_grid_has_bounds(tiles: int) -> None:
    with pytest.raises(BadWork):
        grid(PLAN, tiles)


def test_grid_always_yields_a_cut() -> None:
    for tiles in range(1, 49):
        columns, rows = grid(PLAN, tiles)
        assert columns * rows >= tiles
        assert len(cut(PLAN, columns, rows)) == columns * rows


def result(**fields: object) -> bytes:
    values: dict[str, object] = {
        "format": 1, "image_width": 2, "image_height": 1, "left": 0, "top": 0, "width": 1, "height": 1, "pixels": b"abc",
    }  # fmt: skip
    return pack(Result(**{**values, **fields}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("results", "code"),
    [
        ([], "gap"),
        ([result()], "gap"),
        ([result(), result()], "overlap"),
        ([result(image_width=16_384, image_height=16_384)], "gap"),
        ([result(image_width=2), result(left=1), result()], "overlap"),
        ([result(), result(image_width=3, left=1)], "other-picture"),
        ([result(left=2, image_width=2)], "not-a-result"),
        ([result(pixels=b"abcdef")], "not-a-result"),
        ([b"junk"], "not-a-result"),
    ],
)
def test_results_that_make_no_picture(results: list[bytes], code: str) -> None:
    with pytest.raises(BadWork) as caught:
        join(results)
    assert caught.value.code == code


def test_a_result_answers_one_work_only() -> None:
    works = cut(PLAN, 2, 2)
    answer = compute(works[1])
    check_result(works[1], answer)
    for other in (works[0], works[2], works[3], ONE):
        with pytest.raises(BadWork) as caught:
            check_result(other, answer)
        assert caught.value.code == "other-rectangle"


def test_png_keeps_every_pixel(tmp_path: Path) -> None:
    picture = join([result(), result(left=1, pixels=b"def")])
    write_png(picture, tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as image:
        assert image.mode == "RGB"
        assert image.tobytes() == b"abcdef"


async def test_a_refused_work_reaches_the_asker_by_name() -> None:
    async with open_pool(built_in("rays"), 1) as pool:
        with pytest.raises(WorkFailed) as caught:
            await pool.run(b"junk", time_s=30)
        assert (caught.value.code, caught.value.detail) == ("bad-work", "not-a-work")
        assert await pool.run(ONE, time_s=30) == compute(ONE)
        assert pool.statistics().started == 1


async def test_rendering_locally_reports_the_failure() -> None:
    with pytest.raises(WorkFailed) as caught:
        await render_locally([ONE, b"junk"], 1)
    assert caught.value.detail == "not-a-work"


def test_the_specification_names_every_field_and_refusal() -> None:
    from peer.workers.rays import request, tiles

    page = (Path(__file__).parents[2] / "docs/spec/rays.md").read_text()
    for kind in (Work, Result, Scene, request.Sky, request.Floor, request.Texture, Material, request.Sphere, request.Camera):
        for field in dataclasses.fields(kind):
            assert f"`{field.name}`" in page, f"{kind.__name__}.{field.name}"
    sources = "".join(Path(str(one.__file__)).read_text() for one in (request, tiles))
    codes = set(re.findall(r'"([a-z]+(?:-[a-z]+)+)"', sources))
    assert len(codes) >= 11
    for code in codes:
        assert f"`{code}`" in page, code
    for one in Kind:
        assert f"| {one.value} | {one.name}" in page
