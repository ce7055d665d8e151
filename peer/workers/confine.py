"""What a worker process does to itself before it becomes the worker: give up everything it will not need.

This file is started as a program of its own, sets limits, then *becomes* the worker's command, which inherits them:

    python -I -S confine.py <parent pid> <memory bytes> <file bytes> <open files> <niceness> <command> ...

It is a program and not a function between fork and exec, because the node has threads, and Python code between the
two can deadlock on a lock that some other thread held. It imports nothing of the project, so it starts in a few milliseconds.
"""

import os
import resource
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_SIGKILL = 9


def _lower(limit: int, value: int) -> None:
    """Set both the soft and the hard limit, never above the hard limit that is already there."""
    _, hard = resource.getrlimit(limit)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(limit, (value, value))


def _die_with(parent: int) -> None:
    """Ask the kernel to kill us when the starting thread ends; then look whether it already did."""
    if sys.platform != "linux":
        return  # elsewhere the end of the pipe is the only sign, and an idle worker sees it
    import ctypes

    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the parent is gone")


def main(arguments: list[str]) -> None:
    """Confine this process and become the command."""
    parent, memory, file_bytes, open_files, niceness = map(int, arguments[:5])
    command = arguments[5:]
    _die_with(parent)
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_FSIZE, file_bytes)
    _lower(resource.RLIMIT_NOFILE, open_files)
    if sys.platform == "linux":
        _lower(resource.RLIMIT_AS, memory)
    os.nice(niceness)
    try:
        os.execv(command[0], command)  # noqa: S606 - an argument list of our own, and no shell is wanted
    except OSError as error:
        sys.exit(f"{command[0]} cannot be started: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
