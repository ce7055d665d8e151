"""One program in a sandbox, asked and answered through pipes, under guard from start to end.

The kernel limits each process inside by itself. The guard is a thread that adds up the memory of all of them, watches the
clock, and ends the sandbox when either runs over; whoever reads or writes at that moment gets the reason as an error.
It keeps the end of what is said on standard error, and reads the rest away, so that nothing inside can fill a log.
"""

import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

from wire.errors import Refused
from wire.limits import SANDBOX_PATROL_MS

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_WORDS_BYTES: Final = 4_096
_READ_BYTES: Final = 1 << 16
_DYING_S: Final = 2.0


class Ended(Refused):
    """The program inside gives no more answers. ``code`` is time-limit, memory-limit, idle or crashed."""


def _children(process: int) -> list[int]:
    """The processes that ``process`` started and that still run."""
    found: list[int] = []
    try:
        for task in Path(f"/proc/{process}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    except OSError:
        pass  # it has just ended
    return found


def memory_of(process: int) -> int:
    """Bytes of memory in use by a process and all it has started; memory that two of them share counts twice."""
    total, waiting = 0, [process]
    while waiting:
        one = waiting.pop()
        waiting += _children(one)
        try:
            total += int(Path(f"/proc/{one}/statm").read_text().split()[1]) * _PAGE_BYTES
        except (OSError, IndexError):
            continue
    return total


class Guarded:
    """A running sandbox. ``command`` comes from ``peer.workers.sandbox``; leave the ``with`` block to end everything inside."""

    def __init__(self, command: Sequence[str], *, memory_bytes: int, pass_fds: Sequence[int] = ()) -> None:
        self._memory_bytes = memory_bytes
        self._lock = threading.Lock()
        self._deadline: tuple[float, str, str] | None = None
        self._reason: Ended | None = None
        self._words = bytearray()
        self._over = threading.Event()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            close_fds=True,
            pass_fds=pass_fds,
            cwd="/",
            env={},
        )
        self._patrol = threading.Thread(target=self._watch, name="patrol", daemon=True)
        self._listener = threading.Thread(target=self._listen, name="words", daemon=True)
        self._patrol.start()
        self._listener.start()

    def __enter__(self) -> "Guarded":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # --- the guard ----------------------------------------------------------------------------------------------------
    def allow(self, seconds: float, code: str = "time-limit", sentence: str = "the work was not done in time") -> None:
        """From now on it may run ``seconds``; then it is ended for the reason given."""
        with self._lock:
            self._deadline = (time.monotonic() + seconds, code, sentence)

    def _watch(self) -> None:
        while not self._over.wait(SANDBOX_PATROL_MS / 1_000):
            if memory_of(self._process.pid) > self._memory_bytes:
                self._end("memory-limit", f"the work needs more than {self._memory_bytes >> 20} MiB of memory")
                return
            with self._lock:
                deadline = self._deadline
            if deadline is not None and time.monotonic() > deadline[0]:
                self._end(deadline[1], deadline[2])
                return

    def _listen(self) -> None:
        assert self._process.stderr is not None
        while some := self._process.stderr.read(_READ_BYTES):
            with self._lock:
                self._words += some
                del self._words[:-_WORDS_BYTES]

    def _end(self, code: str, sentence: str) -> None:
        with self._lock:
            self._reason = self._reason or Ended(code, sentence)
        self._process.kill()  # bubblewrap's parent process; everything inside dies with it

    def last_words(self) -> str:
        """The end of what was said on standard error, for the owner's eyes only."""
        with self._lock:
            return self._words.decode(errors="replace").strip()

    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """End everything inside and wait until it is gone."""
        self._over.set()
        self._process.kill()
        self._process.wait()
        self._patrol.join()
        self._listener.join(_DYING_S)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def _died(self) -> Ended:
        """Why it gives no more answers."""
        try:
            status = self._process.wait(_DYING_S)
        except subprocess.TimeoutExpired:
            return Ended("crashed", "the program closed its pipe instead of answering")
        self._listener.join(_DYING_S)
        with self._lock:
            if self._reason is not None:
                return self._reason
        if "MemoryError" in self.last_words() or "Cannot allocate memory" in self.last_words():
            return Ended("memory-limit", "the work needs more memory than a process may have")
        return Ended("crashed", f"the program ended with status {status} instead of an answer")

    # --- talk ---------------------------------------------------------------------------------------------------------
    def write(self, *parts: bytes) -> None:
        """Send all of ``parts``. Raises ``Ended``."""
        assert self._process.stdin is not None
        try:
            for part in parts:
                view = memoryview(part)
                while view:
                    view = view[self._process.stdin.write(view) :]
        except (BrokenPipeError, ConnectionResetError):
            raise self._died() from None

    def close_input(self) -> None:
        """Tell it that nothing more comes."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def read_some(self) -> bytes:
        """What it says next; empty when it has ended well. Raises ``Ended`` when it has ended otherwise."""
        assert self._process.stdout is not None
        some = self._process.stdout.read(_READ_BYTES)
        if some:
            return bytes(some)
        if self._process.wait(None) == 0 and self._reason is None:
            return b""
        raise self._died()

    def read_exactly(self, length: int) -> bytes:
        """The next ``length`` bytes. Raises ``Ended``."""
        assert self._process.stdout is not None
        found = bytearray()
        while len(found) < length:
            some = self._process.stdout.read(min(_READ_BYTES, length - len(found)))
            if not some:
                raise self._died()
            found += some
        return bytes(found)

    def read_line(self, most_bytes: int, wanted: Callable[[bytes], bool]) -> bytes:
        """The next line that is ``wanted``, without its end; others are passed over. Raises ``Ended``."""
        line = bytearray()
        while True:
            one = self.read_exactly(1)
            if one != b"\n":
                line += one
                if len(line) > most_bytes:
                    raise Ended("crashed", f"the program said a line of more than {most_bytes} bytes")
            elif wanted(bytes(line)):
                return bytes(line)
            else:
                line.clear()
