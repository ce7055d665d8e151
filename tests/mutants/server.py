"""One process that has collected the tests, and forks: once to see which test reaches which line, then for every mutant."""

import gc
import itertools
import json
import mmap
import os
import resource
import select
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from tests.mutants.operators import Mutant
from tests.mutants.patch import CannotPatch, apply

ROOT: Final = Path(__file__).parents[2]
EXAMPLES_MAX: Final = 100
TESTS_MOST_S: Final = 15  # of all tests that reach a mutant the quickest, so many CPU seconds of them, as timed with tracing
CPU_LEAST_S: Final = 10  # what a mutant may take beyond that: tracing made the tests several times slower than they are
WALL_S: Final = 300
MEMORY_BYTES: Final = 6 << 30

KILLED, SURVIVED, IMPOSSIBLE = 1, 0, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Per test: the lines it executes of each module, and its time in CPU seconds."""

    lines: dict[str, dict[str, set[int]]]
    seconds: dict[str, float]

    def of(self, mutant: Mutant) -> list[str]:
        """The tests that reach a mutant, the quickest first. A constant of a module may matter to whatever reaches the module."""
        wanted = range(mutant.first, mutant.last + 1)
        found = [
            test
            for test, modules in self.lines.items()
            if mutant.module in modules and (not mutant.path or not modules[mutant.module].isdisjoint(wanted))
        ]
        found.sort(key=lambda test: self.seconds[test])
        spent = itertools.accumulate(self.seconds[test] for test in found)
        return [test for test, until in zip(found, spent, strict=True) if until <= TESTS_MOST_S] or found[:1]


class Server:
    """A pytest plugin that takes the place of its loop over tests. ``work`` is called with it once all is collected."""

    def __init__(self, files: dict[str, Path], work: Callable[["Server"], None]) -> None:
        self.files, self._work = files, work
        self._sources = {module: path.read_text() for module, path in files.items()}
        self.items: dict[str, pytest.Item] = {}
        self._failed = False
        self._killers: dict[tuple[str, tuple[str, ...]], Counter[str]] = defaultdict(Counter)

    # --- pytest ---------------------------------------------------------------------------------------------------------
    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.items = {item.nodeid: item for item in session.items}
        for item in session.items:
            _tame(item)
        gc.collect()
        gc.freeze()
        self._work(self)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._failed = self._failed or report.failed

    # --- running --------------------------------------------------------------------------------------------------------
    def _run(self, tests: Sequence[str]) -> str | None:
        """Run tests until one fails; which one did."""
        self._failed = False
        for place, test in enumerate(tests):
            following = self.items[tests[place + 1]] if place + 1 < len(tests) else None
            item = self.items[test]
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if self._failed:
                return test
        return None

    def reach(self, jobs: int) -> Reach:
        """Run every test alone in a child that notes the lines it executes. Raises when a test fails without any mutant."""
        paths = {str(path): module for module, path in self.files.items()}
        tests = list(self.items)
        lines: dict[str, dict[str, set[int]]] = {}
        seconds: dict[str, float] = {}
        children = [_begin(partial(self._traced, tests[part::jobs], paths)) for part in range(jobs)]
        for child in children:
            for test, (modules, took) in json.loads(_answer(*child)).items():
                lines[test] = {module: set(numbers) for module, numbers in modules.items()}
                seconds[test] = took
        return Reach(lines=lines, seconds=seconds)

    def _traced(self, tests: list[str], paths: dict[str, str]) -> str:
        out: dict[str, Any] = {}
        for test in tests:
            seen: dict[str, set[int]] = defaultdict(set)
            began = time.process_time()
            sys.settrace(_tracer(paths, seen))
            failed = self._run([test])
            sys.settrace(None)
            if failed is not None:
                raise SystemExit(f"{test} fails without any mutant")
            out[test] = ({module: sorted(numbers) for module, numbers in seen.items()}, time.process_time() - began)
        return json.dumps(out)

    def judge(self, mutants: Sequence[Mutant], reach: Reach, jobs: int, told: Callable[[Mutant, int], None]) -> None:
        """Judge every mutant in a child of its own, ``jobs`` at a time; ``told`` hears each verdict. Tests that have killed
        mutants of the same function come first.
        """
        waiting = iter(mutants)
        running: dict[int, _Child] = {}
        more = True
        while more or running:
            while more and len(running) < jobs:
                mutant = next(waiting, None)
                if mutant is None:
                    more = False
                    break
                tests = reach.of(mutant)
                if not tests:
                    told(mutant, SURVIVED)
                    continue
                likely = self._killers[mutant.module, mutant.path]
                tests.sort(key=lambda test: -likely[test])  # stable: of others the quickest first
                child = _Child(mutant=mutant, tests=tests, until=time.monotonic() + WALL_S, killer=mmap.mmap(-1, 4))
                running[self._fork(child, reach)] = child
            for number, status in _ended(running):
                child = running.pop(number)
                place = int.from_bytes(child.killer[:4], "little")
                if place:
                    self._killers[child.mutant.module, child.mutant.path][child.tests[place - 1]] += 1
                told(child.mutant, os.waitstatus_to_exitcode(status))

    def _fork(self, child: "_Child", reach: Reach) -> int:
        number = os.fork()
        if number:
            return number
        code = KILLED
        try:
            _limit(CPU_LEAST_S + sum(reach.seconds[test] for test in child.tests))
            apply(child.mutant, self._sources[child.mutant.module])
            failed = self._run(child.tests)
            code = SURVIVED if failed is None else KILLED
            child.killer[:4] = (0 if failed is None else child.tests.index(failed) + 1).to_bytes(4, "little")
        except CannotPatch:
            code = IMPOSSIBLE
        except BaseException:  # whatever else a mutant causes, it was noticed
            code = KILLED
        finally:
            os._exit(code)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Child:
    """A process that judges one mutant; it writes into ``killer`` which of ``tests`` failed, counted from 1."""

    mutant: Mutant
    tests: list[str]
    until: float
    killer: mmap.mmap


def _ended(running: dict[int, _Child]) -> Iterator[tuple[int, int]]:
    """Wait for children; those that take too long are killed, which counts as noticed."""
    for number, child in list(running.items()):
        found, status = os.waitpid(number, os.WNOHANG)
        if found:
            yield number, status
        elif time.monotonic() > child.until:
            os.kill(number, signal.SIGKILL)
    if running:
        select.select([], [], [], 0.005)


def _limit(cpu_s: float) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_s) + 1, int(cpu_s) + 2))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def _begin(what: Callable[[], str]) -> tuple[int, int]:
    """Run ``what`` in a child; returns the child and the pipe its answer comes through."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, reader
    code = 1
    try:
        os.close(reader)
        with os.fdopen(writer, "w") as out:
            out.write(what())
        code = 0
    except BaseException as error:
        print(error, file=sys.__stderr__, flush=True)
    finally:
        os._exit(code)


def _answer(child: int, reader: int) -> bytes:
    with os.fdopen(reader, "rb") as answers:
        answer = answers.read()
    _, status = os.waitpid(child, 0)
    if status:
        raise SystemExit("the tests do not pass without any mutant")
    return answer


def _tracer(paths: dict[str, str], seen: dict[str, set[int]]) -> Callable[..., Any]:
    def line(frame: Any, event: str, _: Any) -> Any:
        if event == "line":
            seen[paths[frame.f_code.co_filename]].add(frame.f_lineno)
        return line

    def call(frame: Any, event: str, _: Any) -> Any:
        del event
        if frame.f_code.co_filename in paths:
            seen[paths[frame.f_code.co_filename]].add(frame.f_lineno)
            return line
        return None

    return call


def _tame(item: pytest.Item) -> None:
    """Property tests: fewer examples, always the same ones, none remembered, and no search for the smallest failure."""
    import hypothesis  # not earlier: pytest wants to see it first

    function: Any = getattr(item, "obj", None)
    inner: Any = getattr(function, "__func__", function)
    if not hasattr(inner, "_hypothesis_internal_use_settings"):
        return
    before = inner._hypothesis_internal_use_settings
    inner._hypothesis_internal_use_settings = hypothesis.settings(
        before,
        max_examples=min(before.max_examples, EXAMPLES_MAX),
        derandomize=True,
        database=None,
        phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
        suppress_health_check=list(hypothesis.HealthCheck),
        deadline=None,
    )
