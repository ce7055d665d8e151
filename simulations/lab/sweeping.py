"""Many seeds of one scenario, each in a process of its own, on all cores."""

import json
import math
import multiprocessing
import re
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from simulations.lab.outcome import Table, code_hash, versions
from simulations.lab.running import run
from simulations.lab.scenario import load
from wire.errors import BitwrkError, Refused

SEEDS_MAX: Final = 10_000
# Two-sided 95 % points of Student's t for 1 to 30 degrees of freedom, then the normal's.
_T95: Final = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


def read_seeds(text: str) -> range:
    """The seeds written as ``A..B``, both inside. Raises ``Refused``."""
    found = re.fullmatch(r"(\d{1,9})\.\.(\d{1,9})", text)
    if found is None or int(found[2]) < int(found[1]) or int(found[2]) - int(found[1]) >= SEEDS_MAX:
        raise Refused("bad-seeds", f"{text!r} are no seeds; write for example 1..10, at most {SEEDS_MAX}")
    return range(int(found[1]), int(found[2]) + 1)


def mean_and_half(values: Iterable[float]) -> tuple[float, float]:
    """The mean and half of its 95 % interval (Student); 0 for a single value."""
    listed = list(values)
    mean = math.fsum(listed) / len(listed)
    if len(listed) < 2:
        return mean, 0.0
    spread = math.sqrt(math.fsum((one - mean) ** 2 for one in listed) / (len(listed) - 1))
    free = len(listed) - 1
    return mean, (_T95[free - 1] if free <= len(_T95) else 1.96) * spread / math.sqrt(len(listed))


@dataclass(slots=True)
class Sweep:
    """Measures and log hashes by seed, and the sentence of every run that failed."""

    scenario: str
    measures: dict[int, dict[str, float]] = field(default_factory=dict)
    hashes: dict[int, str] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)

    def means(self) -> dict[str, tuple[float, float]]:
        """Mean and half interval of every measure that all runs have."""
        runs = list(self.measures.values())
        names = set.intersection(*(set(one) for one in runs)) if runs else set()
        return {name: mean_and_half(one[name] for one in runs) for name in sorted(names)}

    def as_json(self) -> dict[str, Any]:
        """The whole, for programs."""
        return {
            "scenario": self.scenario,
            "code_hash": code_hash(),
            "seeds": sorted(self.measures | self.failures),
            "event_log_hashes": {str(seed): one for seed, one in sorted(self.hashes.items())},
            "means": {name: {"mean": mean, "half_interval": half} for name, (mean, half) in self.means().items()},
            "failures": {str(seed): one for seed, one in sorted(self.failures.items())},
        }

    def write(self, folder: Path) -> None:
        """Manifest and one row per seed."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "sweep.json").write_text(json.dumps({**self.as_json(), **versions()}, indent=2, sort_keys=True) + "\n")
        names = sorted(self.means())
        table = Table(("seed", *names), [(seed, *(one[name] for name in names)) for seed, one in sorted(self.measures.items())])
        lines = [",".join(str(value) for value in row) for row in (table.columns, *table.rows)]
        (folder / "sweep.csv").write_text("\n".join(lines) + "\n")


def _one(job: tuple[str, int]) -> tuple[int, dict[str, float], str, str]:
    name, seed = job
    try:
        outcome = run(load(name), seed)
    except BitwrkError as error:
        return seed, {}, "", f"{error.code}: {error.sentence}"
    return seed, {**outcome.measures, "cpu_s": outcome.cpu_s}, outcome.event_log_hash, ""


def sweep_seeds(name: str, seeds: Iterable[int], processes: int, bar: AbstractContextManager[Callable[[float], None]]) -> Sweep:
    """Run them all. A broken invariant is a failure of its seed, and the others go on."""
    load(name)
    jobs = [(name, seed) for seed in seeds]
    found = Sweep(name)
    with bar as progress, multiprocessing.get_context("spawn").Pool(min(processes, len(jobs))) as pool:
        for done, (seed, measures, log, sentence) in enumerate(pool.imap_unordered(_one, jobs), 1):
            if sentence:
                found.failures[seed] = sentence
            else:
                found.measures[seed], found.hashes[seed] = measures, log
            progress(done / len(jobs))
    return found
