"""The same picture to the bit: however cut, in whatever process, with whatever vector instructions."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peer.workers.pool import open_pool
from peer.workers.rays import tracer
from peer.workers.rays.demo import demo_scene
from peer.workers.rays.local import render_locally
from peer.workers.rays.request import read_result
from peer.workers.rays.tiles import Picture, cut, join
from peer.workers.rays.tracer import compute
from peer.workers.spec import built_in
from tests.workers.scenes import small_plan

PLAN = small_plan()
# What this picture is on every machine. A change of the format's rules changes it, and then FORMAT too.
GOLDEN = "e3d44cc7341b620ab85bca651b6975191f5d4e94edf4709afef418e8bdd5f9c2"


def whole() -> Picture:
    return join([compute(cut(PLAN, 1, 1)[0])])


WHOLE = whole()


def test_the_picture_is_what_it_is_everywhere() -> None:
    assert hashlib.sha256(WHOLE.tobytes()).hexdigest() == GOLDEN


def test_the_picture_is_not_trivially_the_same() -> None:
    assert len(np.unique(WHOLE.reshape(-1, 3), axis=0)) > 500
    other = small_plan(samples=6)
    assert (join([compute(cut(other, 1, 1)[0])]) != WHOLE).any()


@pytest.mark.parametrize(("columns", "rows"), [(2, 1), (1, 2), (5, 4), (37, 1), (1, 23), (7, 11)])
def test_every_way_of_cutting(columns: int, rows: int) -> None:
    results = [compute(work) for work in cut(PLAN, columns, rows)]
    assert len(results) == columns * rows
    assert (join(reversed(results)) == WHOLE).all()


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_every_rectangle(data: st.DataObject) -> None:
    left = data.draw(st.integers(0, PLAN.width - 1))
    top = data.draw(st.integers(0, PLAN.height - 1))
    right = data.draw(st.integers(left + 1, PLAN.width))
    bottom = data.draw(st.integers(top + 1, PLAN.height))
    result = read_result(compute(PLAN.work(left, top, right, bottom)))
    assert result.pixels == WHOLE[top:bottom, left:right].tobytes()


@pytest.mark.parametrize("rays", [1, 7, 64, 1_000])
def test_every_size_of_batch(monkeypatch: pytest.MonkeyPatch, rays: int) -> None:
    monkeypatch.setattr(tracer, "_BATCH_RAYS", rays)
    (top, *_) = cut(PLAN, 1, 6)
    assert read_result(compute(top)).pixels == WHOLE[:3].tobytes()


@pytest.mark.parametrize("most", [1, 2, 100])
def test_the_tree_of_neighbours_only_saves_time(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr("peer.workers.rays.geometry._CLUSTER_MOST", most)
    assert (whole() == WHOLE).all()


_SIMD = """
import hashlib, json, sys
import numpy as np
from peer.workers.rays.tracer import compute
from tests.workers.scenes import small_plan
from peer.workers.rays.demo import demo_scene
from peer.workers.rays.tiles import cut, join
umath = np._core._multiarray_umath
on = sorted(name for name in umath.__cpu_dispatch__ if umath.__cpu_features__.get(name))
small = join([compute(cut(small_plan(), 1, 1)[0])])
demo = compute(cut(demo_scene(60, 40, 4), 2, 2)[2])
print(json.dumps([on, hashlib.sha256(small.tobytes()).hexdigest(), hashlib.sha256(demo).hexdigest()]))
"""


def _rendered_without(features: list[str]) -> list[object]:
    import json

    environment = {**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(features), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", _SIMD], capture_output=True, check=True, env=environment)
    answer: list[object] = json.loads(done.stdout)
    return answer


def test_every_vector_instruction_set() -> None:
    on, *best = _rendered_without([])
    assert isinstance(on, list)
    if not on:
        pytest.skip("numpy has no choice of instructions on this processor")
    assert best[0] == GOLDEN
    for number in range(len(on)):
        dropped = on[number:]
        left, *same = _rendered_without(dropped)
        assert isinstance(left, list)
        assert not set(left) & set(dropped), "the instructions were not switched off, so this shows nothing"
        assert same == best


async def test_other_processes() -> None:
    works = cut(PLAN, 3, 2)
    assert (join(await render_locally(works, 2)) == WHOLE).all()
    async with open_pool(built_in("rays"), 1) as pool:
        assert await pool.run(works[4], time_s=30) == compute(works[4])


def test_a_tile_of_the_demonstration() -> None:
    plan = demo_scene(90, 60, 4)
    whole_picture = join([compute(cut(plan, 1, 1)[0])])
    assert (join([compute(work) for work in cut(plan, 4, 3)]) == whole_picture).all()
