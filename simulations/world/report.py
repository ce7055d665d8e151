"""What a run amounted to, in numbers: the same keys for every world, so that sweeps can be laid side by side."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from simulations.world.run import Stage
from simulations.world.world import START
from wire.moments import MILLISECOND, SECOND

Rows = tuple[Sequence[str], Sequence[Sequence[Any]]]


@dataclass(slots=True)
class Report:
    """Measures by name, tables as columns and rows, waits in seconds, and (second, bid, asked, matched) by epoch."""

    measures: dict[str, float]
    tables: dict[str, Rows]
    waits_s: list[float] = field(default_factory=list)
    market: list[tuple[float, int, int, int]] = field(default_factory=list)


def _middle(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def report(stage: Stage) -> Report:
    """The report of a finished run."""
    world = stage.world
    counts: Counter[str] = Counter()
    for host in world.everyone:
        counts.update(host.counts)
    differing, views = stage.views.divergence()
    seconds = (world.timeline.now - START) / SECOND
    waits_s = [one / SECOND for one in stage.crowd.waits_us]
    sent = sum(host.sent_bytes for host in world.everyone)
    measures: dict[str, float] = {
        "nodes": len(world.everyone),
        "virtual_s": seconds,
        "events": world.log.total,
        "frames": sum(host.sent_frames for host in world.everyone),
        "bytes_per_node_s": sent / len(world.everyone) / seconds,
        "lost": world.roads.lost,
        "line_breaks": world.roads.breaks,
        "messages": world.sharing.decoded,
        "signatures_verified": world.sharing.verified,
        "jobs": stage.crowd.jobs,
        "units_asked": stage.crowd.asked_units,
        "units_given_up": stage.crowd.given_up,
        "matches": stage.signatures.matches,
        "units_matched": stage.signatures.units,
        "mean_price_msat": stage.signatures.volume_msat / max(1, stage.signatures.units),
        "honest_signatures": stage.signatures.count,
        "wait_s_p50": _middle(waits_s, 0.5),
        "wait_s_p90": _middle(waits_s, 0.9),
        "views": views,
        "views_differing": differing / max(1, views),
        "duplicates_per_message": counts["duplicate"]
        / max(1, sum(1 for _ in world.everyone) * world.sharing.decoded)
        * stage.plan.articles,
        **{f"world_{name}": amount for name, amount in sorted(world.totals.items())},
        **stage.extra_measures(),
    }
    tables: dict[str, Rows] = {
        "counts": (("code", "amount"), sorted(counts.items())),
        "views": (
            ("book", "epoch", "views", "roots"),
            [(book.hex()[:16], epoch, seen, roots) for book, epoch, seen, roots in stage.views.by_epoch()],
        ),
        "waits": (("seconds",), [(one,) for one in waits_s]),
    }
    return Report(measures, tables, waits_s, _market(stage))


def _market(stage: Stage) -> list[tuple[float, int, int, int]]:
    """Bid, asked and matched units of all books by epoch."""
    clock = stage.world.network.clock
    sums: dict[int, list[int]] = {}
    for (_, epoch), (matched, _, bid, asked) in stage.views.fills.items():
        total = sums.setdefault(epoch, [0, 0, 0])
        total[0] += bid
        total[1] += asked
        total[2] += matched
    first = START // (clock.length_ms * MILLISECOND)
    return [((epoch - first) * clock.length_ms / 1_000, *total) for epoch, total in sorted(sums.items())]  # type: ignore[misc]
