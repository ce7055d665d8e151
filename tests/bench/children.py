"""Measured processes, from outside: started, asked, ended."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, cast

ROOT = Path(__file__).parents[2]


class ChildDied(Exception):
    """A measured process ended before its time; the text is the end of what it said."""


class Child:
    """One process that is driven by JSON lines."""

    def __init__(self, module: str, errors: IO[bytes], **told: Any) -> None:
        environment = os.environ | {"PY_YAMUX_RELEASE_ON_READ": "0"}
        self._errors = errors
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        self.tell(**told)

    def tell(self, **asked: Any) -> None:
        """Ask for something; ``hear`` has the answer."""
        pipe = cast("IO[bytes]", self._process.stdin)
        try:
            pipe.write(json.dumps(asked).encode() + b"\n")
            pipe.flush()
        except BrokenPipeError:
            raise self._died() from None

    def hear(self) -> dict[str, Any]:
        """The answer to what was asked first."""
        line = cast("IO[bytes]", self._process.stdout).readline()
        if not line:
            raise self._died()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, **asked: Any) -> dict[str, Any]:
        """Ask, and wait for the answer."""
        self.tell(**asked)
        return self.hear()

    def end(self) -> None:
        """End the process, in whatever state it is."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()

    def _died(self) -> ChildDied:
        self._errors.seek(0)
        return ChildDied(self._errors.read().decode(errors="replace")[-2_000:] or "it said nothing")


@contextmanager
def children(module: str, count: int, *, first: int = 0, **told: Any) -> Iterator[list[Child]]:
    """``count`` processes, each told its ``number`` besides, which names its key; gone at the end."""
    with ExitStack() as stack:
        family: list[Child] = []
        for number in range(count):
            errors = stack.enter_context(tempfile.TemporaryFile())
            child = Child(module, errors, number=1_000_000 + first + number, **told)
            stack.callback(child.end)
            family.append(child)
        yield family
