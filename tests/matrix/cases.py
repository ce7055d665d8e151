"""The cases: every script is played once to learn its boundaries, then once for each of them."""

import dataclasses
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from escrow.shell.regtest import Regtest
from tests.escrow.pair import SHORT
from tests.matrix.scripts import ARBITER, SCRIPTS, Reorg, World, play
from wire.network import REGTEST

DEPTHS: Final = (1, 2, 3)
BLOCKS: Final = 130
CASES_PER_CHAIN: Final = 150
BRIEF: Final = dataclasses.replace(SHORT, refund_blocks=26)
"""A channel that may be refunded soon, so that a session takes few blocks."""
SIDES: Final = ("buyer", "seller")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One run. ``cut`` is where the victim dies in what its ``step``-th event asked for: None before the rows are saved, 0 after
    that, k after the k-th effect."""

    script: str
    victim: str | None = None
    step: int = 0
    cut: int | None = None
    reorg: Reorg | None = None

    def __str__(self) -> str:
        place = "no kill" if self.victim is None else f"{self.victim} dies at event {self.step}, cut {self.cut}"
        return f"{self.script}: {place}" + (f", {self.reorg}" if self.reorg else "")


def worlds(chain: Regtest, case: Case, counter: int) -> World:
    """A fresh channel for a case."""
    script = SCRIPTS[case.script]
    network, arbiter = (SHORT, ARBITER.public) if script.arbiter else (BRIEF, None)
    world = World(chain, counter, network, arbiter=arbiter)
    world.reorg = case.reorg
    if case.victim is not None:
        party = getattr(world, case.victim)
        party.crash_at, party.crash_before_commit = case.step, case.cut is None
        party.crash_after_effects = case.cut or 0
    return world


def run(chain: Regtest, case: Case, counter: int) -> World:
    """Play a case; raises ``AssertionError`` when it does not hold, or when nobody died or nothing was reorganised."""
    world = worlds(chain, case, counter)
    play(world, SCRIPTS[case.script])
    if case.victim is not None:
        planned = 1 + (case.script.startswith("claim") and case.victim == "buyer")
        assert getattr(world, case.victim).lives == 1 + planned, "the kill did not happen"
    assert case.reorg is None or world.struck, "the reorganisation did not happen"
    return world


def kills_of(name: str, chain: Regtest, counter: int, reorg: Reorg | None = None) -> list[Case]:
    """Every boundary of one script, on both sides, learnt from a run in which nobody dies."""
    world = run(chain, Case(script=name, reorg=reorg), counter)
    found = []
    for side in SIDES:
        for step, effects in enumerate(getattr(world, side).performed, start=1):
            found += [Case(script=name, victim=side, step=step, cut=cut, reorg=reorg) for cut in (None, *range(effects + 1))]
    return found


def reorgs_of(name: str) -> list[Case]:
    """Every depth under every step that a script takes on the chain: what waited comes back, is forgotten, or only in part."""
    found = []
    for step in SCRIPTS[name].steps:
        for depth in DEPTHS:
            found += [
                Case(script=name, reorg=Reorg(step=step, depth=depth)),
                Case(script=name, reorg=Reorg(step=step, depth=depth, forgotten=True)),
                Case(script=name, reorg=Reorg(step=step, depth=depth, parent=True)),
            ]
    return found


@contextmanager
def fresh_chain() -> Iterator[Regtest]:
    """A chain with coins to spend, gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        chain = Regtest(Path(folder) / "chain", REGTEST)
        chain.mine(BLOCKS)
        try:
            yield chain
        finally:
            chain.close()


def run_all(cases: list[Case]) -> list[tuple[Case, str]]:
    """The cases that do not hold, each with what was raised."""
    failed = []
    for begin in range(0, len(cases), CASES_PER_CHAIN):
        with fresh_chain() as chain:
            for counter, case in enumerate(cases[begin : begin + CASES_PER_CHAIN]):
                try:
                    run(chain, case, counter)
                except Exception:
                    # Whatever it is, the reader needs the case and the trace.
                    failed.append((case, traceback.format_exc(limit=-4)))
    return failed
