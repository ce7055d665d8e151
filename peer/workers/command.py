"""Any program as a worker, in a sandbox: ``prog {in} {out}``, a fresh process for every work.

``{in}`` stands for a file with the work, ``{out}`` for the file the result is read from. Without ``{in}`` the work is on
standard input, without ``{out}`` the result is what is said on standard output. The line is split into words as a shell would,
but no shell reads it. A program that ends with another status than 0 refuses the work.

    command_worker("/usr/bin/sort {in} -o {out}", "org.example/sort/1")

The program sees the system's ``/usr`` and the folders in ``shared``, all read-only; see ``peer.workers.sandbox``. This module is
both the description of the worker for the node and, run as a program, the keeper of its sandbox.
"""

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated, Final

from peer.workers.guarded import Ended, Guarded
from peer.workers.sandbox import Limits, check_sandbox, sandboxed
from peer.workers.serving import FAULT, MEMORY, main
from peer.workers.spec import WorkerSpec
from wire.canon import Range, Size, pack, record, unpack
from wire.errors import LocalFault, Refused
from wire.limits import (
    COMMAND_MEMORY_DEFAULT_BYTES,
    COMMAND_PROCESSES_MAX,
    RESULT_MAX_BYTES,
    SANDBOX_MEMORY_MAX_BYTES,
    SANDBOX_TEMP_MAX_BYTES,
    WORK_TIME_MAX_S,
)

_IN: Final = "/tmp/in"  # noqa: S108 - inside the sandbox, where /tmp is empty and its own
_OUT: Final = "/tmp/out"  # noqa: S108 - likewise
# The work comes on standard input and the result leaves on standard output, so nothing outside is ever touched.
_TO_STDOUT: Final = f'cat >{_IN} && "$@" <{_IN} >{_OUT} && exec cat {_OUT}'
_TO_FILE: Final = f'cat >{_IN} && "$@" <{_IN} >&2 && exec cat {_OUT}'
_WORDS_MAX: Final = 256
_Word = Annotated[str, Size(0, 4_096)]


@record
class Task:
    """What the keeper is told on its command line."""

    words: Annotated[tuple[_Word, ...], Size(1, _WORDS_MAX)]
    visible: Annotated[tuple[_Word, ...], Size(0, _WORDS_MAX)]
    memory_bytes: Annotated[int, Range(1, SANDBOX_MEMORY_MAX_BYTES)]
    processes: Annotated[int, Range(1, 1 << 16)]
    time_max_s: Annotated[int, Range(1, WORK_TIME_MAX_S)]


def _program(words: list[str], shared: tuple[Path, ...]) -> tuple[list[str], tuple[str, ...]]:
    """The words with the program's full path, and what has to be visible for it to run."""
    found = shutil.which(words[0])
    if found is None:
        raise LocalFault("no-program", f"there is no program {words[0]!r} to run")
    program = Path(found).resolve()
    visible = [str(one.resolve()) for one in shared]
    for one in visible:
        if not Path(one).exists():
            raise LocalFault("no-folder", f"there is no {one} to share with the command")
    if not program.is_relative_to("/usr") and not any(program.is_relative_to(one) for one in visible):
        visible.append(str(program))
    return [str(program), *words[1:]], tuple(visible)


def command_worker(
    template: str,
    article: str,
    *,
    shared: tuple[Path, ...] = (),
    memory_bytes: int = COMMAND_MEMORY_DEFAULT_BYTES,
    processes: int = COMMAND_PROCESSES_MAX,
    time_max_s: int = WORK_TIME_MAX_S,
) -> WorkerSpec:
    """The worker that runs ``template`` for every work of ``article``.

    Raises ``LocalFault`` when there is no sandbox or no such program, ``Refused`` when the template makes no sense.
    """
    try:
        words = shlex.split(template)
    except ValueError as error:
        raise Refused("bad-command", f"the command cannot be read: {error}") from None
    if not words or len(words) > _WORDS_MAX:
        raise Refused("bad-command", f"a command has 1 to {_WORDS_MAX} words")
    check_sandbox()
    full, visible = _program(words, shared)
    task = Task(words=tuple(full), visible=visible, memory_bytes=memory_bytes, processes=processes, time_max_s=time_max_s)
    return WorkerSpec(
        name=f"command-{Path(full[0]).name}",
        article=article,
        command=(sys.executable, "-I", "-B", "-m", "peer.workers.command", pack(task).hex()),
        time_max_s=time_max_s,
        memory_max_bytes=max(memory_bytes, COMMAND_MEMORY_DEFAULT_BYTES),
        sandboxed=True,
    )


class Keeper:
    """Runs one sandbox for every work."""

    def __init__(self, task: Task) -> None:
        words = [one.replace("{in}", _IN).replace("{out}", _OUT) for one in task.words]
        script = _TO_FILE if any("{out}" in one for one in task.words) else _TO_STDOUT
        cores = os.cpu_count() or 1
        limits = Limits(
            memory_bytes=task.memory_bytes,
            processes=task.processes,
            cpu_s=task.time_max_s * cores,
            temp_bytes=min(SANDBOX_TEMP_MAX_BYTES, task.memory_bytes),
        )
        self._task = task
        self._line = sandboxed(("/bin/sh", "-c", script, "sh", *words), limits, visible=tuple(Path(one) for one in task.visible))

    def compute(self, work: bytes) -> bytes:
        """The result of ``work``. Raises ``Refused``."""
        with Guarded(self._line, memory_bytes=self._task.memory_bytes) as inside:
            inside.allow(self._task.time_max_s)
            try:
                inside.write(work)
                inside.close_input()
                result = bytearray()
                while some := inside.read_some():
                    result += some
                    if len(result) > RESULT_MAX_BYTES:
                        raise Refused("oversize-result", f"the result is longer than {RESULT_MAX_BYTES} bytes")
            except Ended as ended:
                sys.stderr.write(inside.last_words() + "\n")
                raise Refused(_CODES.get(ended.code, "command-failed"), ended.sentence) from None
            return bytes(result)


_CODES: Final = {"memory-limit": MEMORY, "time-limit": FAULT}


if __name__ == "__main__":
    main(Keeper(unpack(Task, bytes.fromhex(sys.argv[1]))).compute)
