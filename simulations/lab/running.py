"""Runs a scenario with a seed. Which code does it depends on the scenario's kind; heavy libraries are imported only here and
below.
"""

import time
from collections.abc import Callable

from simulations.lab.outcome import Outcome
from simulations.lab.scenario import Scenario

Progress = Callable[[float], None]


def run(scenario: Scenario, seed: int, progress: Progress = lambda _: None) -> Outcome:
    """The outcome of one run. Raises ``InvariantBroken`` when a checker finds a broken rule."""
    begun = time.process_time()
    if scenario.kind == "world":
        from simulations.lab.worlds import run_world

        outcome = run_world(scenario, seed, progress)
    else:
        from simulations.lab.arrays import run_broadcast, run_lookup

        outcome = (run_broadcast if scenario.kind == "broadcast" else run_lookup)(scenario, seed, progress)
    outcome.cpu_s = time.process_time() - begun
    return outcome
