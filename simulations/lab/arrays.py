"""Runs of the array models: broadcasts and look-ups, their measures, tables and figures."""

from functools import partial
from pathlib import Path

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from simulations.lab import figures
from simulations.lab.outcome import Outcome, Table
from simulations.lab.plans import BroadcastPlan, LookupPlan
from simulations.lab.running import Progress
from simulations.lab.scenario import Scenario
from simulations.models.gossip import NEVER, Roads, Spread, broadcast
from simulations.models.kademlia import Network, Rules, Walks, look_up
from simulations.models.meshes import made

_QUANTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9, 100)


def _quantile(values: NDArray[np.int64] | NDArray[np.int32], percent: float) -> float:
    """A value that occurs: no interpolation, so that counts stay counts."""
    return float(np.percentile(values, percent, method="inverted_cdf"))


def run_broadcast(scenario: Scenario, seed: int, progress: Progress) -> Outcome:
    """All sizes of the plan over one mesh."""
    plan: BroadcastPlan = scenario.plan
    rng = np.random.default_rng(seed)
    links = made(plan.mesh, plan.nodes, plan.degree, rng)
    away = rng.random(plan.nodes) < plan.away if plan.away else None
    present = np.flatnonzero(~away) if away is not None else np.arange(plan.nodes)
    salt = int(rng.integers(1 << 62))
    log = blake3()
    measures: dict[str, float] = {"nodes": plan.nodes, "mean_degree": float((links >= 0).sum() / plan.nodes)}
    table = Table(("size_bytes", "percent", "arrival_ms"))
    curves: dict[str, NDArray[np.int64]] = {}
    steps = len(plan.sizes) * plan.messages
    for place, size in enumerate(plan.sizes):
        spread = Spread(
            size_bytes=size,
            least_ms=plan.least_ms,
            most_ms=plan.most_ms,
            uplink_least_mbps=plan.uplink_least_mbps,
            uplink_most_mbps=plan.uplink_most_mbps,
            processing_ms=plan.processing_ms,
            loss=plan.loss,
        )
        roads = Roads(spread, plan.nodes, np.random.default_rng(salt))
        everything, whole, sent = [], [], 0
        for message in range(plan.messages):
            source = int(present[rng.integers(present.size)])
            outcome = broadcast(links, roads, source, away)
            log.update(outcome.arrival_us.tobytes())
            arrived = outcome.arrival_us[present]
            everything.append(arrived)
            whole.append(int(arrived[arrived < NEVER].max()))
            sent += outcome.transmissions
            progress((place * plan.messages + message + 1) / steps)
        arrivals = np.concatenate(everything)
        reached = arrivals[arrivals < NEVER]
        curves[f"{size:,} bytes"] = reached
        measures[f"delivered_{size}"] = reached.size / arrivals.size
        measures[f"median_ms_{size}"] = _quantile(reached, 50) / 1_000
        measures[f"p99_ms_{size}"] = _quantile(reached, 99) / 1_000
        measures[f"network_ms_{size}"] = float(np.mean(whole)) / 1_000
        measures[f"copies_per_node_{size}"] = sent / reached.size
        table.rows += [(size, percent, _quantile(reached, percent) / 1_000) for percent in _QUANTILES]
    draw = partial(_draw_broadcast, scenario, curves)
    return Outcome(scenario, seed, log.hexdigest(), measures, {"arrivals": table}, draw=draw)


def _draw_broadcast(scenario: Scenario, curves: dict[str, NDArray[np.int64]], folder: Path) -> None:
    published = {
        f"{name.rsplit('_', 1)[1]} bytes": one.value
        for name, one in scenario.expect.items()
        if name.startswith("network_ms_") and one.value is not None
    }
    figures.shares(
        {name: values / 1_000 for name, values in curves.items()},
        folder / "arrivals.png",
        title=f"{scenario.name}: one broadcast, {scenario.plan.nodes:,} nodes",
        across="ms after publication",
        marks={f"published, {name}": value for name, value in published.items()},
    )


def run_lookup(scenario: Scenario, seed: int, progress: Progress) -> Outcome:
    """All staleness values of the plan, each over a network of its own."""
    plan: LookupPlan = scenario.plan
    log = blake3()
    measures: dict[str, float] = {"nodes": plan.nodes, "lookups": plan.lookups}
    table = Table(("stale", "hops", "share_discovered", "share_total"))
    curves: dict[float, Walks] = {}
    for place, stale in enumerate(plan.stale):
        rng = np.random.default_rng([seed, place])
        rules = Rules(
            k=plan.k,
            alpha=plan.alpha,
            beta=plan.beta,
            stale=stale,
            missing=plan.missing,
            least_ms=plan.least_ms,
            most_ms=plan.most_ms,
            timeout_ms=plan.timeout_ms,
        )
        walks = curves[stale] = look_up(Network(plan.nodes, rules, rng), plan.lookups, rng)
        for values in (walks.discovered_hops, walks.total_hops, walks.queries, walks.timeouts, walks.time_us, walks.nearest):
            log.update(values.tobytes())
        suffix = "" if place == 0 else f"_stale_{round(100 * stale)}"
        measures |= {name + suffix: value for name, value in _walk_measures(walks, plan.k).items()}
        for hops in range(int(walks.total_hops.max()) + 1):
            shares = (float((values <= hops).mean()) for values in (walks.discovered_hops, walks.total_hops))
            table.rows.append((stale, hops, *shares))
        progress((place + 1) / len(plan.stale))
    draw = partial(_draw_lookup, scenario, curves)
    return Outcome(scenario, seed, log.hexdigest(), measures, {"hops": table}, draw=draw)


def _walk_measures(walks: Walks, k: int) -> dict[str, float]:
    return {
        "total_hops_p50": _quantile(walks.total_hops, 50),
        "total_hops_p90": _quantile(walks.total_hops, 90),
        "total_hops_mean": float(walks.total_hops.mean()),
        "discovered_hops_mean": float(walks.discovered_hops.mean()),
        "discovered_within_4": float((walks.discovered_hops <= 4).mean()),
        "queries_mean": float(walks.queries.mean()),
        "timeouts_mean": float(walks.timeouts.mean()),
        "time_ms_p50": _quantile(walks.time_us, 50) / 1_000,
        "time_ms_p90": _quantile(walks.time_us, 90) / 1_000,
        "nearest_found": float(walks.nearest.mean()) / k,
    }


def _draw_lookup(scenario: Scenario, curves: dict[float, Walks], folder: Path) -> None:
    lines: dict[str, NDArray[np.int32]] = {}
    for stale, walks in curves.items():
        lines[f"whole walk, {stale:.0%} stale"] = walks.total_hops
        lines[f"k nearest named, {stale:.0%} stale"] = walks.discovered_hops
    figures.counts(
        lines,
        folder / "hops.png",
        title=f"{scenario.name}: look-ups over {scenario.plan.nodes:,} nodes, k = {scenario.plan.k}",
        across="hops",
    )
