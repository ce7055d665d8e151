"""Which workers there are: a name for people, the article it serves, the command that serves it, its limits."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wire.errors import Refused
from wire.limits import (
    ARTICLE_MAX_CHARS,
    RESULT_MAX_BYTES,
    SANDBOX_FILES_MAX,
    SANDBOX_MEMORY_MAX_BYTES,
    SANDBOX_TEMP_MAX_BYTES,
    WORK_MEMORY_MAX_BYTES,
    WORK_TIME_MAX_S,
    WORKER_LOG_MAX_BYTES,
    WORKER_MEMORY_DEFAULT_BYTES,
    WORKER_OPEN_FILES_MAX,
)

RAYS_ARTICLE: Final = "net.bitwrk/rays/1"
ECHO_ARTICLE: Final = "foobar"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpec:
    """One kind of worker. ``command`` starts with an absolute path and speaks ``peer.workers.serving`` on its pipes.

    A ``sandboxed`` one is the keeper of a sandbox (``peer.workers.sandbox``): what it starts inherits its limits and sets
    narrower ones, so its own are wide.
    """

    name: str
    article: str
    command: tuple[str, ...]
    time_max_s: float = WORK_TIME_MAX_S
    memory_max_bytes: int = WORKER_MEMORY_DEFAULT_BYTES
    result_max_bytes: int = RESULT_MAX_BYTES
    sandboxed: bool = False

    @property
    def file_max_bytes(self) -> int:
        """The largest file that the worker can write."""
        return SANDBOX_TEMP_MAX_BYTES if self.sandboxed else WORKER_LOG_MAX_BYTES

    @property
    def open_files_max(self) -> int:
        """How many files the worker can have open."""
        return SANDBOX_FILES_MAX if self.sandboxed else WORKER_OPEN_FILES_MAX

    def __post_init__(self) -> None:
        if not self.command or not Path(self.command[0]).is_absolute():
            raise Refused("bad-worker", "a worker's command starts with the absolute path of a program")
        if not 1 <= len(self.article.encode()) <= ARTICLE_MAX_CHARS:
            raise Refused("bad-article", f"an article's name has 1 to {ARTICLE_MAX_CHARS} bytes")
        memory_most = SANDBOX_MEMORY_MAX_BYTES if self.sandboxed else WORK_MEMORY_MAX_BYTES
        if not (0 < self.time_max_s <= WORK_TIME_MAX_S and 0 < self.memory_max_bytes <= memory_most):
            raise Refused("bad-worker", f"a worker has at most {WORK_TIME_MAX_S} s and {memory_most >> 20} MiB")
        if not 0 < self.result_max_bytes <= RESULT_MAX_BYTES:
            raise Refused("bad-worker", f"a result has at most {RESULT_MAX_BYTES >> 20} MiB")


def _module(name: str) -> tuple[str, ...]:
    """Python in isolated mode: neither the environment nor the current folder can put a module in front of ours."""
    return (sys.executable, "-I", "-B", "-m", name)


def built_in(name: str, article: str | None = None) -> WorkerSpec:
    """The built-in worker called ``name``, serving ``article`` or its usual one. Raises ``Refused`` with the names there are."""
    if name == "rays":
        return WorkerSpec(name=name, article=article or RAYS_ARTICLE, command=_module("peer.workers.rays"))
    if name == "echo":
        return WorkerSpec(name=name, article=article or ECHO_ARTICLE, command=_module("peer.workers.echo"))
    raise Refused("unknown-worker", f"there is no worker {name!r}; choose one of {', '.join(BUILT_IN)}")


BUILT_IN: Final = ("echo", "rays")
