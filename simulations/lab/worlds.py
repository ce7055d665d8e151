"""Runs of the event-driven world: measures, tables and figures."""

import gc
from functools import partial
from pathlib import Path

import numpy as np

from simulations.lab import figures
from simulations.lab.outcome import Outcome, Table
from simulations.lab.running import Progress
from simulations.lab.scenario import Scenario
from simulations.world.report import Report, report
from simulations.world.run import Stage


def run_world(scenario: Scenario, seed: int, progress: Progress) -> Outcome:
    """One world from its first start to the end of its quiet time."""
    before = gc.get_threshold()
    # Millions of small lasting objects: looking through all of them again and again would take a tenth of the time.
    gc.set_threshold(200_000, 50, 1_000)
    try:
        stage = Stage(scenario.plan, seed)
        stage.run(progress)
    finally:
        gc.set_threshold(*before)
    found = report(stage)
    tables = {name: Table(columns, list(rows)) for name, (columns, rows) in found.tables.items()}
    log = stage.world.log.digest().hex()
    return Outcome(scenario, seed, log, found.measures, tables, draw=partial(_draw, scenario, found))


def _draw(scenario: Scenario, found: Report, folder: Path) -> None:
    if found.waits_s:
        figures.shares(
            {"units": np.array(found.waits_s)},
            folder / "waits.png",
            title=f"{scenario.name}: from wish to signed match"
            if not scenario.plan.deals
            else f"{scenario.name}: from request to result",
            across="seconds",
        )
    if found.market:
        seconds = [one[0] for one in found.market]
        lines = {
            "units bid": (seconds, [float(one[1]) for one in found.market]),
            "units asked": (seconds, [float(one[2]) for one in found.market]),
            "units matched": (seconds, [float(one[3]) for one in found.market]),
        }
        figures.series(lines, folder / "market.png", title=f"{scenario.name}: all books", across="virtual seconds", up="units")
