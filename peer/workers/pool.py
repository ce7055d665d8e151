"""A pool of warm workers: at most ``slots`` works at a time, each in a process of its own.

    async with open_pool(built_in("rays"), slots=2) as pool:
        result = await pool.run(work, time_s=30)

A worker that failed, was cancelled or ended while idle is killed and replaced; the replacement warms up while nobody waits
for it. Limits: wall clock here, processor time and memory by the kernel (``peer.workers.confine``). A cancelled ``run`` kills
the process that was computing before it returns, and nothing outlives ``open_pool``; nor the node, even when that is killed.
"""

import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from peer.workers.process import WorkerProcess, WorkFailed
from peer.workers.spec import WorkerSpec
from wire.errors import LocalFault, Refused
from wire.limits import WORKERS_MAX

__all__ = ["PoolStatistics", "WorkFailed", "WorkerPool", "open_pool"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatistics:
    """How a pool is. ``failed`` counts by code; ``last_words`` is what the last worker that died had said on standard error."""

    name: str
    article: str
    slots: int
    busy: int
    waiting: int
    done: int
    cancelled: int
    started: int
    failed: tuple[tuple[str, int], ...]
    last_words: str
    pids: tuple[int, ...]


class WorkerPool:
    """Warm workers of one kind. Made by ``open_pool``."""

    def __init__(self, spec: WorkerSpec, slots: int, folder: Path) -> None:
        self.spec = spec
        self._slots = slots
        self._folder = folder
        self._turn = trio.Semaphore(slots, max_value=slots)
        self._idle: list[WorkerProcess] = []
        self._busy: set[WorkerProcess] = set()
        self._open = True
        self._done = 0
        self._cancelled = 0
        self._started = 0
        self._failed: dict[str, int] = {}
        self._last_words = ""

    @property
    def slots(self) -> int:
        """How many works run at a time."""
        return self._slots

    @property
    def free(self) -> int:
        """How many works would start at once."""
        return self._turn.value

    def statistics(self) -> PoolStatistics:
        """How the pool is."""
        return PoolStatistics(
            name=self.spec.name,
            article=self.spec.article,
            slots=self._slots,
            busy=len(self._busy),
            waiting=self._turn.statistics().tasks_waiting,
            done=self._done,
            cancelled=self._cancelled,
            started=self._started,
            failed=tuple(sorted(self._failed.items())),
            last_words=self._last_words,
            pids=tuple(sorted(one.pid for one in [*self._idle, *self._busy])),
        )

    async def run(self, work: bytes, *, time_s: float | None = None) -> bytes:
        """The result of ``work``, computed within ``time_s`` seconds (the spec's maximum by default) once a slot is free.

        Raises ``WorkFailed``. Cancel it to stop the computation; the worker is dead when the cancellation comes out.
        """
        limit_s = self.spec.time_max_s if time_s is None else min(time_s, self.spec.time_max_s)
        async with self._turn:
            worker = await self._take()
            try:
                result = await worker.ask(work, limit_s)
            except WorkFailed as failed:
                self._failed[failed.code] = self._failed.get(failed.code, 0) + 1
                if failed.worker_lives:
                    self._give_back(worker)
                else:
                    await self._bury(worker)
                raise
            except BaseException:  # cancelled: nothing else comes out of asking
                self._cancelled += 1
                await self._bury(worker)
                raise
            self._done += 1
            self._give_back(worker)
            return result

    def _start(self) -> WorkerProcess:
        try:
            worker = WorkerProcess(self.spec, self._folder)
        except OSError as error:
            raise LocalFault("worker-start", f"the worker {self.spec.name} cannot be started: {error.strerror}") from None
        self._started += 1
        return worker

    async def _take(self) -> WorkerProcess:
        """An idle worker that is ready, or a new one when the idle one ended meanwhile."""
        if not self._open:
            raise Refused("pool-closed", "this node is shutting down its workers")
        worker = self._idle.pop() if self._idle else self._start()
        self._busy.add(worker)
        if worker.ready():
            return worker
        await self._bury(worker)
        return await self._take()

    def _give_back(self, worker: WorkerProcess) -> None:
        self._busy.discard(worker)
        self._idle.append(worker)

    async def _bury(self, worker: WorkerProcess) -> None:
        """Kill a busy worker and let another warm up in its place."""
        await worker.kill()
        self._last_words = worker.last_words() or self._last_words
        worker.forget()
        self._busy.discard(worker)
        if self._open:
            self._idle.append(self._start())

    def _warm_up(self) -> None:
        while len(self._idle) < self._slots:
            self._idle.append(self._start())

    async def _close(self) -> None:
        """Kill every worker, the idle and, should a task still hold one, the busy."""
        self._open = False
        everyone = [*self._idle, *sorted(self._busy, key=lambda one: one.pid)]
        self._idle.clear()
        for worker in everyone:
            worker.strike()
        for worker in everyone:
            await worker.kill()
            worker.forget()


def _empty_folder() -> Path:
    """Where workers stand: nothing in it, and they cannot put anything there."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="bitwrk-worker-"))
        folder.chmod(0o500)
    except OSError as error:
        raise LocalFault("worker-folder", f"no temporary folder can be made for workers: {error.strerror}") from None
    return folder


@asynccontextmanager
async def open_pool(spec: WorkerSpec, slots: int) -> AsyncIterator[WorkerPool]:
    """``slots`` workers of ``spec``, warm, until the block ends.

    Raises ``Refused`` for a count out of bounds and ``LocalFault`` when the workers cannot be started.
    """
    if not 1 <= slots <= WORKERS_MAX:
        raise Refused("bad-slots", f"a pool has 1 to {WORKERS_MAX} slots")
    folder = _empty_folder()
    pool = WorkerPool(spec, slots, folder)
    try:
        pool._warm_up()
        yield pool
    finally:
        await pool._close()
        shutil.rmtree(folder, ignore_errors=True)
