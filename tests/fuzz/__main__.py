"""``python -m tests.fuzz``: spends without number, our opinion against the kernel's, and every disagreement with its seed.

Three parts. Single spends of the three scripts, bent in every way we could think of, before the script machine, the recognisers
and the kernel. Transactions as bytes, bent, before our reader and the kernel's. And a whole chain under random spends, before the
waiting room and the kernel.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from tests.fuzz.chain import World
from tests.fuzz.opinions import Disagreement, check, check_signature
from tests.fuzz.raws import check_raw, make_raw
from tests.fuzz.spends import make_case

SHOW_EVERY_S = 2
DISAGREEMENTS_MAX = 20


class Progress:
    """How far it is, now and then, on standard error."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total = what, total
        self._begun = self._shown = time.monotonic()

    def at(self, done: int) -> None:
        now = time.monotonic()
        if done and now - self._shown >= SHOW_EVERY_S:
            self._shown = now
            left = (now - self._begun) / done * (self._total - done)
            print(f"{self._what}: {done:,} of {self._total:,}, about {left:.0f} s left", file=sys.stderr, flush=True)


def single_spends(seed: int, numbers: range, told: list[str]) -> dict[str, Counter[tuple[str, str]]]:
    """Judge single spends; counts of verdicts by kind of spend and by bend."""
    kinds, bends, progress = Counter[tuple[str, str]](), Counter[tuple[str, str]](), Progress("spends", len(numbers))
    for done, number in enumerate(numbers):
        progress.at(done)
        case = make_case(seed, number)
        try:
            kernel, known = check(case)
            verdict = "accepted" if kernel else "refused"
            kinds[case.kind, verdict] += 1
            bends[case.bend, verdict] += 1
            kinds[case.kind, "no opinion"] += not known
            if case.kind in ("settled", "locked"):
                kinds["buyer's signature", "accepted" if check_signature(case) else "refused"] += 1
        except Disagreement as error:
            told.append(
                f"spend {number} of seed {seed} ({case.kind}, {case.bend}): {error}\n  {case.transaction.serialise().hex()}"
            )
            if len(told) >= DISAGREEMENTS_MAX:
                break
    return {"kind of spend": kinds, "bent by": bends}


def raw_bytes(seed: int, numbers: range, told: list[str]) -> Counter[tuple[str, str]]:
    """Read bent bytes; counts by what we say."""
    counts, progress = Counter[tuple[str, str]](), Progress("bytes", len(numbers))
    for done, number in enumerate(numbers):
        progress.at(done)
        raw = make_raw(seed, number)
        try:
            word = check_raw(raw)
            counts[("a transaction" if word == "accepted" else word), ("accepted" if word == "accepted" else "refused")] += 1
        except Disagreement as error:
            told.append(f"bytes {number} of seed {seed}: {error}\n  {raw.hex()}")
            if len(told) >= DISAGREEMENTS_MAX:
                break
    return counts


def whole_chain(seed: int, steps: int, told: list[str]) -> Counter[tuple[str, str]]:
    """Judge spends on a chain that grows; counts of verdicts by kind."""
    progress = Progress("chain", steps)
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), seed)
        try:
            for step in range(steps):
                progress.at(step)
                world.step()
        except Disagreement as error:
            told.append(f"chain step {step} of seed {seed}: {error}")
        finally:
            world.close()
    return world.counts


def show(title: str, counts: Mapping[tuple[str, str], int]) -> None:
    """A small table."""
    columns = [one for one in ("accepted", "refused", "no opinion") if any(verdict == one for _, verdict in counts)]
    print(f"{title:<22}" + "".join(f"{one:>12}" for one in columns))
    for name in sorted({name for name, _ in counts}):
        print(f"{name:<22}" + "".join(f"{counts[name, one]:>12,}" for one in columns))
    print()


def main(arguments: list[str] | None = None) -> int:
    """Run both parts; 0 when nobody disagrees."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="another seed is another run (default: %(default)s)")
    parser.add_argument("--spends", type=int, default=30_000, help="single spends (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=3_000, help="steps of the chain (default: %(default)s)")
    parser.add_argument("--only", type=int, help="this one spend alone, to look at a disagreement again")
    options = parser.parse_args(arguments)
    told: list[str] = []
    numbers = range(options.spends) if options.only is None else range(options.only, options.only + 1)
    for title, counts in single_spends(options.seed, numbers, told).items():
        show(title, counts)
    if options.only is None:
        show("bytes", raw_bytes(options.seed, numbers, told))
        show("on a chain", whole_chain(options.seed, options.steps, told))
    for one in told:
        print("DISAGREEMENT:", one)
    steps = options.steps if options.only is None else 0
    print(
        f"seed {options.seed}: {len(numbers):,} spends and as many bytes, {steps:,} steps of a chain, {len(told)} disagreements"
    )
    return 1 if told else 0


if __name__ == "__main__":
    raise SystemExit(main())
