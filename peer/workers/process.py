"""One warm worker process: started confined, asked one work at a time, killed without ceremony.

It is started on the event loop's own thread. Linux delivers the parent-death signal when the *thread* that started a child
ends; trio starts processes on helper threads that retire after ten idle seconds, which would take healthy workers with them.
A start costs the loop about a millisecond. All that is handed down is two pipes, an empty folder, a handful of environment
variables, and a log file without a name that may grow to ``WORKER_LOG_MAX_BYTES`` (the keeper of a sandbox writes little to it).
"""

import contextlib
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import trio

from peer.workers import confine
from peer.workers.serving import FAULT, LENGTH_BYTES, MEMORY, REFUSAL, RESULT, Refusal, frame
from peer.workers.spec import WorkerSpec
from wire.canon import EncodingError, unpack
from wire.errors import Refused
from wire.limits import STREAM_READ_BYTES, WORKER_NICENESS

_LOG_TAIL_BYTES: Final = 400
_DYING_S: Final = 1.0  # between the end of a worker's pipe and its own end
_ENVIRONMENT: Final = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # A worker's arrays come and go by the megabyte. glibc would give each back to the kernel, at a third of the processor time.
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TRIM_THRESHOLD_": "268435456",
    "MALLOC_TOP_PAD_": "16777216",
}


class WorkFailed(Refused):
    """There is no result.

    ``code`` is one of time-limit, memory-limit, crashed, bad-work, bad-answer, oversize-result, worker-fault. For bad-work
    ``detail`` is the worker's own word for what is wrong with the work.
    """

    def __init__(self, code: str, sentence: str, detail: str = "") -> None:
        super().__init__(code, sentence)
        self.detail = detail

    @property
    def worker_lives(self) -> bool:
        """Whether the worker itself said so and may be asked again."""
        return self.code in ("bad-work", FAULT)


class WorkerProcess:
    """A confined child that speaks ``peer.workers.serving``."""

    def __init__(self, spec: WorkerSpec, folder: Path, extra_environment: dict[str, str] | None = None) -> None:
        self._spec = spec
        self._written = False
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        limits = (os.getpid(), spec.memory_max_bytes, spec.file_max_bytes, spec.open_files_max, WORKER_NICENESS)
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", confine.__file__, *map(str, limits), *spec.command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            bufsize=0,
            close_fds=True,
            start_new_session=True,
            cwd=folder,
            env={**_ENVIRONMENT, "HOME": str(folder), "TMPDIR": str(folder), **(extra_environment or {})},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._works = trio.lowlevel.FdStream(os.dup(self._process.stdin.fileno()))
        self._answers = trio.lowlevel.FdStream(os.dup(self._process.stdout.fileno()))
        self._process.stdin.close()
        self._process.stdout.close()

    @property
    def pid(self) -> int:
        """The process id, which is also its session and process group."""
        return self._process.pid

    def ready(self) -> bool:
        """Whether the child runs and its pipe is silent; an ended or unasked-for talking child must not be asked."""
        poll = select.poll()
        poll.register(self._answers.fileno(), select.POLLIN)
        return not self._ended() and not poll.poll(0)

    def _ended(self) -> bool:
        """Whether the child has ended. It is not reaped by this, so its process group keeps its number."""
        if self._process.returncode is not None:
            return True
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    async def ask(self, work: bytes, time_s: float) -> bytes:
        """The result of ``work``. Raises ``WorkFailed``.

        Kill the child after a failure that it does not survive (``worker_lives``), and after cancellation.
        """
        self._allow_cpu(time_s)
        self._written = False
        said: bytes | WorkFailed | None = None
        with trio.move_on_after(time_s):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, frame(work))
                try:
                    said = await self._read_answer()
                except WorkFailed as failed:  # carried out by hand: a nursery would wrap it in a group
                    said = failed
                nursery.cancel_scope.cancel()
        if said is None:
            raise WorkFailed("time-limit", f"the work was not done within {time_s:g} s")
        if isinstance(said, WorkFailed):
            raise said
        if not self._written:
            raise WorkFailed("bad-answer", "the worker answered before it had read the work")
        return _judge(said)

    def _allow_cpu(self, time_s: float) -> None:
        """Grant CPU seconds for one more work, so that even a child whose parent is stopped ends some day."""
        if sys.platform != "linux":
            return
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
            used_s = (int(fields[11]) + int(fields[12])) // os.sysconf("SC_CLK_TCK")
            _, hard = resource.prlimit(self.pid, resource.RLIMIT_CPU)
            resource.prlimit(self.pid, resource.RLIMIT_CPU, (used_s + int(time_s) + 2, hard))
        except (OSError, ValueError):
            return  # the child is gone or not ours to limit; the next read or the clock will say so

    async def _write(self, data: bytes) -> None:
        try:
            await self._works.send_all(data)
            self._written = True
        except trio.BrokenResourceError:
            return  # the child is gone; the reader learns it from the other pipe and says why

    async def _read_exactly(self, length: int) -> bytes:
        parts = bytearray()
        while len(parts) < length:
            some = await self._answers.receive_some(min(STREAM_READ_BYTES, length - len(parts)))
            if not some:
                raise await self._obituary()
            parts += some
        return bytes(parts)

    async def _read_answer(self) -> bytes:
        length = int.from_bytes(await self._read_exactly(LENGTH_BYTES), "big")
        if length > 1 + self._spec.result_max_bytes:
            raise WorkFailed("oversize-result", f"the result is longer than {self._spec.result_max_bytes} bytes")
        return await self._read_exactly(length)

    def _wait_ended(self) -> None:
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)

    async def _obituary(self) -> WorkFailed:
        """What the child died of, learned from its exit status and its last words."""
        with trio.move_on_after(_DYING_S):
            await trio.to_thread.run_sync(self._wait_ended, abandon_on_cancel=True)
        if not self._ended():
            return WorkFailed("bad-answer", "the worker closed its pipe instead of answering")
        await self.kill()
        status = self._process.returncode
        if status == -signal.SIGXCPU:
            return WorkFailed("time-limit", "the work used up its processor time")
        if status < 0:
            try:
                name = signal.Signals(-status).name
            except ValueError:
                name = f"signal {-status}"
            return WorkFailed("crashed", f"the worker was ended by {name}")
        if self.last_words().endswith("MemoryError"):
            return WorkFailed("memory-limit", "the work needs more memory than this worker may use")
        return WorkFailed("crashed", f"the worker ended with status {status} instead of an answer")

    def last_words(self) -> str:
        """The end of what the child wrote to standard error, for the owner's eyes only."""
        if self._log.closed:
            return ""  # forgotten while somebody was still waiting for it to die
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - _LOG_TAIL_BYTES))
        return self._log.read().decode(errors="replace").strip()

    def strike(self) -> None:
        """Send SIGKILL to the child and everything it started. Never waits."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    async def kill(self) -> None:
        """Kill the child, wait until it is gone, let go of its pipes. Cannot be cancelled; takes milliseconds."""
        self.strike()
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._process.wait)
            await self._works.aclose()
            await self._answers.aclose()

    def forget(self) -> None:
        """Close the log, after the last words were read."""
        self._log.close()


def _judge(said: bytes) -> bytes:
    """The result inside an answer. Raises ``WorkFailed``."""
    if said[:1] == bytes([RESULT]):
        return said[1:]
    if said[:1] != bytes([REFUSAL]):
        raise WorkFailed("bad-answer", "the worker's answer is neither a result nor a refusal")
    try:
        refusal = unpack(Refusal, said[1:])
    except EncodingError:
        raise WorkFailed("bad-answer", "the worker's refusal cannot be read") from None
    if refusal.code in (MEMORY, FAULT):
        raise WorkFailed(refusal.code, refusal.sentence)
    raise WorkFailed("bad-work", refusal.sentence, detail=refusal.code)
