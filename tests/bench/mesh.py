"""Six processes that pass orders on over the same twelve edges, whatever they do it with, and when each order came to each."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgpack

from tests.bench.children import children

EDGES: Final = ((0, 1), (0, 2), (0, 5), (1, 2), (1, 3), (1, 5), (2, 3), (2, 4), (2, 5), (3, 4), (3, 5), (4, 5))
NODES: Final = 6
SETTLE_S: Final = 2.0  # after this, what nodes do when they meet is over
TAIL_S: Final = 2.0
SHARE: Final = 0.999


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """What passes the orders on: a module to run as a process, and what it is told."""

    name: str
    module: str
    per: int = 1
    window_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """One run: the share of deliveries within two seconds of when the order was due, and percentiles of all that came."""

    within: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    """Of all six, for one order."""

    @property
    def passed(self) -> bool:
        return self.within >= SHARE


def degree_of(number: int) -> int:
    """How many neighbours a node has."""
    return sum(number in edge for edge in EDGES)


def spread(system: System, rate: float, seconds: float, pool: Path, available: int) -> Spread:
    """Publish ``rate`` orders a second in all for ``seconds``, a sixth of them at each node, every one when it is due."""
    each = max(1, int(rate * seconds / NODES))
    if each * NODES > available:
        raise ValueError(f"{each * NODES} orders are needed, {available} are there")
    with (
        tempfile.TemporaryDirectory() as folder,
        children(system.module, NODES, watched=True, per=system.per, window_ms=system.window_ms) as family,
    ):
        addresses = [child.hear()["address"] for child in family]
        for number, child in enumerate(family):
            dialled = [addresses[one] for one, other in EDGES if other == number]
            child.tell(do="meet", addresses=dialled, neighbours=degree_of(number))
        for child in family:
            child.hear()
        for number, child in enumerate(family):
            child.ask(do="load", orders=str(pool), first=number * each, count=each)
        go = time.monotonic() + SETTLE_S
        reports = [Path(folder) / str(number) for number in range(NODES)]
        for number, child in enumerate(family):
            end = go + seconds + TAIL_S + 0.3
            child.tell(do="run", go=go + number / rate, rate=rate / NODES, end=end, report=str(reports[number]))
        cpu_s = sum(child.hear()["cpu_s"] for child in family)
        came = [msgpack.unpackb(report.read_bytes()) for report in reports]
    orders: list[bytes] = msgpack.unpackb(pool.read_bytes())[: each * NODES]
    delays: list[float] = []
    for at, raw in enumerate(orders):
        number, turn = divmod(at, each)
        due = go + number / rate + turn * NODES / rate
        delays += [one[raw] - due if raw in one else float("inf") for other, one in enumerate(came) if other != number]
    delays.sort()
    within = sum(delay <= TAIL_S for delay in delays) / len(delays)
    return Spread(
        within=within,
        p50_ms=1_000 * delays[len(delays) // 2],
        p99_ms=1_000 * delays[int(0.99 * len(delays))],
        cpu_us=1e6 * cpu_s / (each * NODES),
    )
