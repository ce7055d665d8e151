"""``python -m tests.mutants``: put every mutant into the cores of the order book and say how many the tests notice.

Prints a table per module and every survivor; fails below the share that is asked for. ``--sample N`` judges N mutants drawn by
``--seed`` instead of all.
"""

import argparse
import json
import random
import sys
import time
import tomllib
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from tests.mutants.operators import Mutant, mutants_of
from tests.mutants.server import IMPOSSIBLE, ROOT, SURVIVED, Server

FORMS: Final = frozenset({"__init__", "messages", "events", "frames", "craft", "reasons", "stamp"})
"""Modules that hold formats, words and names; all others of ``orderbook.core`` are mutated."""

CORES: Final = sorted(path.stem for path in (ROOT / "orderbook/core").glob("*.py") if path.stem not in FORMS)
LEAST: Final = 0.90
EQUIVALENT: Final = Path(__file__).with_name("equivalent.toml")


def equivalents() -> dict[str, str]:
    """Mutants that change nothing anybody could see, by name, each with the reason."""
    return {one["mutant"]: one["reason"] for one in tomllib.loads(EQUIVALENT.read_text()).get("equivalent", [])}


class Count:
    """What became of the mutants."""

    def __init__(self, total: int) -> None:
        self.killed: Counter[str] = Counter()
        self.survived: list[Mutant] = []
        self.timed_out = self.impossible = 0
        self._total, self._done, self._began = total, 0, time.monotonic()

    def told(self, mutant: Mutant, code: int) -> None:
        """A verdict; children that did not end by themselves have noticed the mutant too."""
        self._done += 1
        if code == SURVIVED:
            self.survived.append(mutant)
            print(
                f"survives: {mutant.module}:{mutant.line}: {'.'.join(mutant.path)}: {mutant.change}", file=sys.stderr, flush=True
            )
        elif code == IMPOSSIBLE:
            self.impossible += 1
        else:
            self.killed[mutant.module] += 1
            self.timed_out += code < 0
        if self._done % 100 == 0:
            spent = time.monotonic() - self._began
            print(f"{self._done} of {self._total} after {spent:.0f} s, {len(self.survived)} survive", file=sys.stderr, flush=True)


def table(count: Count, modules: list[str]) -> tuple[str, float]:
    """The table, and the share of all that was noticed."""
    lost = Counter(one.module for one in count.survived)
    lines = [f"{'module':32}{'mutants':>9}{'killed':>9}{'share':>9}"]
    for module in [*modules, "total"]:
        killed = count.killed.total() if module == "total" else count.killed[module]
        left = lost.total() if module == "total" else lost[module]
        if killed + left:
            lines.append(f"{module:32}{killed + left:>9}{killed:>9}{killed / (killed + left):>9.1%}")
    every = count.killed.total() + lost.total()
    return "\n".join(lines), count.killed.total() / every if every else 0.0


def main() -> int:
    """Returns the exit code."""
    options = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    options.add_argument("modules", nargs="*", default=CORES, help="modules of orderbook.core; default: all cores")
    options.add_argument("--sample", type=int, default=0)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--jobs", type=int, default=2)
    options.add_argument("--least", type=float, default=LEAST)
    options.add_argument("--out", type=Path, default=Path("mutants-out"))
    told = options.parse_args()
    files = {f"orderbook.core.{name}": ROOT / f"orderbook/core/{name}.py" for name in told.modules}
    known = equivalents()
    every = [mutant for module, path in files.items() for mutant in mutants_of(module, path.read_text())]
    mutants = [mutant for mutant in every if mutant.name not in known]
    if told.sample:
        mutants = random.Random(told.seed).sample(mutants, min(told.sample, len(mutants)))
    count = Count(len(mutants))

    def work(server: Server) -> None:
        reach = server.reach(told.jobs)
        print(f"{len(server.items)} tests, {len(mutants)} mutants", file=sys.stderr, flush=True)
        server.judge(mutants, reach, told.jobs, count.told)

    arguments = ["tests/orderbook", "-p", "no:terminal", "-o", "timeout=0", "--rootdir", str(ROOT)]
    code = pytest.main(arguments, plugins=[Server(files, work)])
    if code not in (0, pytest.ExitCode.NO_TESTS_COLLECTED) or count.killed.total() + len(count.survived) == 0:
        print("the tests could not be collected or do not pass", file=sys.stderr)
        return 2
    text, share = table(count, list(files))
    survivors = sorted(count.survived, key=lambda one: (one.module, one.line, one.change))
    print(text)
    same = sum(mutant.name in known for mutant in every)
    print(f"{count.timed_out} ran out of time, {count.impossible} could not be made, {same} are equivalent (equivalent.toml)")
    print(f"{len(mutants)} of {len(every) - same} judged")
    gone = sorted(name for name in known.keys() - {mutant.name for mutant in every} if name.partition(":")[0] in files)
    print("".join(f"equivalent.toml names what is not there: {name}\n" for name in gone), end="")
    for one in survivors:
        print(f"{files[one.module].relative_to(ROOT)}:{one.line}: {'.'.join(one.path)}: {one.change}")
    told.out.mkdir(parents=True, exist_ok=True)
    (told.out / "results.json").write_text(
        json.dumps({"share": share, "killed": dict(count.killed), "survivors": [one.name for one in survivors]}, indent=2) + "\n"
    )
    return 0 if share >= told.least else 1


sys.exit(main())
