"""Each limit is hit by a real process; what it leaves behind is looked at from outside."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from peer.workers.pool import WorkerPool, WorkFailed, open_pool
from peer.workers.spec import BUILT_IN, ECHO_ARTICLE, RAYS_ARTICLE, WorkerSpec, built_in
from wire.errors import LocalFault, Refused
from wire.limits import WORKER_LOG_MAX_BYTES, WORKER_NICENESS, WORKER_OPEN_FILES_MAX, WORKERS_MAX

MEMORY_BYTES = 256 << 20
RESULT_BYTES = 1 << 20
SPEC = WorkerSpec(
    name="trouble",
    article="trouble",
    command=(sys.executable, "-I", str(Path(__file__).with_name("troublemaker.py"))),
    memory_max_bytes=MEMORY_BYTES,
    result_max_bytes=RESULT_BYTES,
)
linux = pytest.mark.skipif(sys.platform != "linux", reason="limits and signals of Linux")


@pytest.fixture
async def pool() -> AsyncIterator[WorkerPool]:
    async with open_pool(SPEC, 1) as opened:
        yield opened


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def until_gone(pid: int) -> None:
    """Return when the process, which need not be a child of ours, has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        with trio.fail_after(20):
            await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)


async def failure(pool: WorkerPool, work: bytes, time_s: float = 30) -> WorkFailed:
    """How ``work`` fails; and proof that the pool works on."""
    with pytest.raises(WorkFailed) as caught:
        await pool.run(work, time_s=time_s)
    assert await pool.run(b"hello", time_s=30) == b"hello"
    return caught.value


async def test_echo_returns_the_work_whatever_its_size() -> None:
    async with open_pool(built_in("echo"), 2) as pool:
        for size in (0, 1, 4, 65_535, 65_536, 3_000_000):
            work = os.urandom(size)
            assert await pool.run(work, time_s=30) == work
        assert pool.statistics().done == 6
        assert pool.statistics().started == 2


async def test_a_worker_stays_warm(pool: WorkerPool) -> None:
    assert len({await pool.run(b"pid", time_s=30) for _ in range(3)}) == 1


async def test_slots_bound_what_runs_at_once() -> None:
    async with open_pool(SPEC, 2) as pool, trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(lambda: pool.run(b"sleep", time_s=60))
        await wait_all_tasks_blocked(0.05)
        seen = pool.statistics()
        assert (seen.busy, seen.waiting, seen.slots, pool.free) == (2, 3, 2, 0)
        nursery.cancel_scope.cancel()


async def test_time_limit_is_the_wall_clock(pool: WorkerPool) -> None:
    before = pool.statistics().pids
    assert (await failure(pool, b"sleep", 0.2)).code == "time-limit"
    assert gone(before[0])


async def test_spec_caps_the_time_a_caller_asks_for() -> None:
    short = WorkerSpec(name="t", article="t", command=SPEC.command, time_max_s=0.2)
    async with open_pool(short, 1) as pool:
        with pytest.raises(WorkFailed) as caught:
            await pool.run(b"sleep", time_s=3600)
    assert caught.value.code == "time-limit"


@linux
async def test_memory_limit_said_by_the_worker(pool: WorkerPool) -> None:
    before = pool.statistics().pids
    assert (await failure(pool, b"allocate %d" % (2 * MEMORY_BYTES))).code == "memory-limit"
    assert gone(before[0])


@linux
async def test_memory_limit_that_ends_the_worker(pool: WorkerPool) -> None:
    assert (await failure(pool, b"burst")).code == "memory-limit"


@linux
async def test_work_larger_than_the_memory(pool: WorkerPool) -> None:
    assert (await failure(pool, bytes(MEMORY_BYTES))).code in ("memory-limit", "bad-answer")


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT, signal.SIGTERM])
async def test_death_by_signal_is_named(pool: WorkerPool, number: signal.Signals) -> None:
    failed = await failure(pool, b"signal %d" % number)
    assert failed.code == "crashed"
    assert number.name in failed.sentence


@linux
async def test_processor_time_is_granted_per_work(pool: WorkerPool) -> None:
    assert (await failure(pool, b"signal %d" % signal.SIGXCPU)).code == "time-limit"
    granted_s = json.loads(await pool.run(b"facts", time_s=7))["cpu_s"]
    assert 7 <= granted_s <= 12


async def test_exit_instead_of_an_answer(pool: WorkerPool) -> None:
    failed = await failure(pool, b"exit 3")
    assert failed.code == "crashed"
    assert "status 3" in failed.sentence
    assert "last words" not in failed.sentence  # what a worker prints is its owner's business
    assert pool.statistics().last_words == "last words"


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"\x00\x00\x00\x00", "bad-answer"),
        (b"\x00\x00\x00\x01\x02", "bad-answer"),
        (b"\x00\x00\x00\x03\x01ab", "bad-answer"),
        (b"\xff\xff\xff\xff", "oversize-result"),
        (b"complete nonsense", "oversize-result"),
    ],
)
async def test_garbage_answers(pool: WorkerPool, raw: bytes, code: str) -> None:
    before = pool.statistics().pids
    assert (await failure(pool, b"raw " + raw)).code == code
    assert gone(before[0])


async def test_a_worker_that_falls_silent_mid_answer_runs_into_the_clock(pool: WorkerPool) -> None:
    assert (await failure(pool, b"raw \x00\x00\x00\x09\x00half", 0.5)).code == "time-limit"


async def test_words_past_an_answer_are_nobodys_result(pool: WorkerPool) -> None:
    before = pool.statistics().pids
    assert await pool.run(b"extra", time_s=30) == b"good"
    assert await pool.run(b"hello", time_s=30) == b"hello"
    assert gone(before[0])


async def test_a_closed_pipe_is_no_answer(pool: WorkerPool) -> None:
    assert (await failure(pool, b"close")).code == "bad-answer"


async def test_answering_before_the_work_is_read() -> None:
    hasty = "import os,time; os.write(1, b'\\0\\0\\0\\1\\0'); time.sleep(3600)"
    spec = WorkerSpec(name="hasty", article="hasty", command=(sys.executable, "-I", "-c", hasty))
    async with open_pool(spec, 1) as pool:
        with pytest.raises(WorkFailed) as caught:
            await pool.run(bytes(1 << 22), time_s=30)
    assert caught.value.code == "bad-answer"


async def test_oversize_result(pool: WorkerPool) -> None:
    assert len(await pool.run(b"result %d" % RESULT_BYTES, time_s=30)) == RESULT_BYTES
    assert (await failure(pool, b"result %d" % (RESULT_BYTES + 1))).code == "oversize-result"


async def test_a_refusal_keeps_the_worker(pool: WorkerPool) -> None:
    before = pool.statistics().pids
    failed = await failure(pool, b"refuse")
    assert (failed.code, failed.detail, failed.sentence) == ("bad-work", "too-dull", "this work is beneath me")
    failed = await failure(pool, b"stumble")
    assert failed.code == "worker-fault"
    assert "KeyError" in failed.sentence
    assert pool.statistics().pids == before
    assert pool.statistics().failed == (("bad-work", 1), ("worker-fault", 1))


async def test_a_worker_that_ended_while_idle_is_replaced_unnoticed(pool: WorkerPool) -> None:
    (pid,) = pool.statistics().pids
    os.kill(pid, signal.SIGKILL)
    await until_gone(pid)
    assert await pool.run(b"hello", time_s=30) == b"hello"
    assert pool.statistics().failed == ()
    assert pool.statistics().pids != (pid,)


async def test_cancellation_kills_the_worker_that_computes(pool: WorkerPool) -> None:
    (pid,) = pool.statistics().pids
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: pool.run(b"sleep", time_s=60))
        await wait_all_tasks_blocked(0.05)
        nursery.cancel_scope.cancel()
    assert gone(pid)
    assert pool.statistics().cancelled == 1
    assert pool.statistics().busy == 0
    assert await pool.run(b"hello", time_s=30) == b"hello"


@linux
async def test_what_a_worker_started_dies_with_it(pool: WorkerPool) -> None:
    grandchild = int(await pool.run(b"spawn", time_s=30))
    assert not gone(grandchild)
    await failure(pool, b"exit 1")
    await until_gone(grandchild)


@linux
async def test_nothing_is_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITWRK_TEST_SECRET", "x")
    pipe = os.pipe()
    for descriptor in pipe:
        os.set_inheritable(descriptor, True)
    async with open_pool(SPEC, 1) as pool:
        told = json.loads(await pool.run(b"facts", time_s=30))
    for descriptor in pipe:
        os.close(descriptor)
    assert "BITWRK_TEST_SECRET" not in told["environment"]
    allowed = {"PATH", "LANG", "HOME", "TMPDIR", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LC_CTYPE"}
    assert {one for one in told["environment"] if not one.startswith("MALLOC_")} <= allowed
    assert told["folder"] == []
    assert len(told["descriptors"]) <= 5  # three, the answers' own, and the one that lists them
    assert told["session"]
    assert told["isolated"] == 1
    assert told["nice"] >= WORKER_NICENESS
    assert told["limits"] == {
        "RLIMIT_AS": [MEMORY_BYTES] * 2,
        "RLIMIT_CORE": [0, 0],
        "RLIMIT_FSIZE": [WORKER_LOG_MAX_BYTES] * 2,
        "RLIMIT_NOFILE": [WORKER_OPEN_FILES_MAX] * 2,
    }


@linux
async def test_a_worker_cannot_fill_the_disk(pool: WorkerPool) -> None:
    assert await pool.run(b"write", time_s=30) == b"OSError %d" % errno.EFBIG


@linux
async def test_nothing_is_left_behind() -> None:
    before = sorted(Path("/proc/self/fd").iterdir())
    async with open_pool(SPEC, 2) as pool:
        await pool.run(b"hello", time_s=30)
        await failure(pool, b"exit 1")
        pids = pool.statistics().pids
        assert len(pids) == 2
    assert all(gone(pid) for pid in pids)
    assert len(sorted(Path("/proc/self/fd").iterdir())) == len(before)
    with pytest.raises(Refused) as caught:
        await pool.run(b"hello", time_s=30)
    assert caught.value.code == "pool-closed"


_PARENT = """
import sys, trio
from peer.workers.pool import open_pool
from peer.workers.spec import WorkerSpec

async def main():
    async with open_pool(WorkerSpec(name="t", article="t", command=tuple(sys.argv[1:])), 1) as pool:
        # The worker answers by itself and then sleeps: it is busy, and deaf to the end of its pipe.
        assert await pool.run(b"raw \\0\\0\\0\\3\\0ok", time_s=30) == b"ok"
        print(*pool.statistics().pids, flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


def start_parent() -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", _PARENT, *SPEC.command], stdout=subprocess.PIPE)


@linux
async def test_workers_die_with_a_killed_node() -> None:
    parent = start_parent()
    try:
        assert parent.stdout is not None
        line = await trio.to_thread.run_sync(parent.stdout.readline)
        pids = [int(one) for one in line.split()]
        assert len(pids) == 1
        assert not gone(pids[0])
    finally:
        parent.kill()
        parent.wait()
        if parent.stdout is not None:
            parent.stdout.close()
    for pid in pids:
        await until_gone(pid)


@linux
def test_confinement_refuses_to_start_for_a_parent_that_is_gone() -> None:
    from peer.workers import confine

    command = [sys.executable, "-I", "-S", confine.__file__, "1", str(1 << 30), "0", "16", "0", sys.executable, "-c", "print(1)"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stdout == b""
    assert b"parent is gone" in done.stderr


async def test_a_program_that_is_not_there() -> None:
    spec = WorkerSpec(name="none", article="none", command=("/nonexistent/worker",))
    async with open_pool(spec, 1) as pool:
        with pytest.raises(WorkFailed) as caught:
            await pool.run(b"", time_s=30)
        assert caught.value.code == "crashed"
        assert "nonexistent" in pool.statistics().last_words


@pytest.mark.parametrize("slots", [0, -1, WORKERS_MAX + 1])
async def test_slots_have_bounds(slots: int) -> None:
    with pytest.raises(Refused) as caught:
        async with open_pool(SPEC, slots):
            pass
    assert caught.value.code == "bad-slots"


async def test_no_folder_no_pool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
    with pytest.raises(LocalFault) as caught:
        async with open_pool(SPEC, 1):
            pass
    assert caught.value.code == "worker-folder"


def test_the_built_in_workers() -> None:
    assert [built_in(name).article for name in BUILT_IN] == [ECHO_ARTICLE, RAYS_ARTICLE]
    assert (ECHO_ARTICLE, RAYS_ARTICLE) == ("foobar", "net.bitwrk/rays/1")
    assert built_in("echo", "snafu").article == "snafu"
    with pytest.raises(Refused) as caught:
        built_in("blender")
    assert caught.value.code == "unknown-worker"


@pytest.mark.parametrize(
    "change",
    [
        {"command": ()},
        {"command": ("python",)},
        {"article": ""},
        {"article": "x" * 129},
        {"time_max_s": 0},
        {"time_max_s": 301},
        {"memory_max_bytes": 0},
        {"memory_max_bytes": (2 << 30) + 1},
        {"result_max_bytes": 0},
        {"result_max_bytes": (256 << 20) + 1},
    ],
)
def test_a_spec_has_bounds(change: dict[str, object]) -> None:
    values: dict[str, object] = {"name": "x", "article": "x", "command": ("/bin/true",), **change}
    with pytest.raises(Refused):
        WorkerSpec(**values)  # type: ignore[arg-type]
