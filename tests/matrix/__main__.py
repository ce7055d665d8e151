"""``python -m tests.matrix``: every case and many random lives with a liar; prints how many, fails when one does not hold."""

import sys
import time

from tests.escrow.test_dishonest import live
from tests.matrix.cases import Case, fresh_chain, kills_of, reorgs_of, run_all
from tests.matrix.scripts import SCRIPTS, Reorg

SHOWN = 5
LIVES = 200
ROUGH_DEPTH = 2
"""The kills are played once more with so many blocks replaced under each step on the chain."""


def main() -> int:
    """Print one line per kind; returns the exit code."""
    began = time.monotonic()
    total, failed = 0, []
    for name, script in SCRIPTS.items():
        with fresh_chain() as chain:
            kills = kills_of(name, chain, 0)
            rough: list[Case] = []
            for counter, step in enumerate(script.steps, start=1):
                rough += kills_of(name, chain, counter, Reorg(step=step, depth=ROUGH_DEPTH))
        reorgs = reorgs_of(name)
        failed += run_all([*kills, *reorgs, *rough])
        total += len(kills) + len(reorgs) + len(rough)
        steps = ", ".join(script.steps)
        print(f"{name}: {len(kills)} kills, {len(reorgs)} reorganisations ({steps}), {len(rough)} kills with one", flush=True)
    print(f"{total} cases, {len(failed)} do not hold, {time.monotonic() - began:.0f} s")
    for case, trace in failed[:SHOWN]:
        print(f"\n{case}\n{trace}")
    with fresh_chain() as chain:
        live(chain, LIVES)
    print(f"{LIVES} random lives with a liar, {time.monotonic() - began:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
