"""Orders that a node accepts from a neighbour, against the least anybody must do with them."""

import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.bench import signed
from tests.bench.children import children

PER_PAIR = 2_000
PAIRS = 12
WARM_UP = 2


def figures() -> list[dict[str, Any]]:
    """The one figure of this module."""
    return [intake_vs_ceiling()]


def intake_vs_ceiling() -> dict[str, Any]:
    """Pairs of 2,000 orders through the node and the same 2,000 in the bare loop, in one process, by turns."""
    total = PER_PAIR * (PAIRS + WARM_UP)
    pool = signed.sealed_orders(total)
    signed.agree(pool[0])
    ratios: list[float] = []
    node_us: list[float] = []
    with ExitStack() as stack:
        path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "orders"
        signed.save(path, pool)
        (node,) = stack.enter_context(children("tests.bench.node", 1, watched=False))
        told = {"address": node.hear()["address"], "orders": str(path), "total": total}
        (sender,) = stack.enter_context(children("tests.bench.neighbour", 1, first=1, **told))
        sender.hear()
        node.ask(do="load", orders=str(path), first=0, count=total)
        for pair in range(PAIRS + WARM_UP):
            before = node.ask(do="cpu")
            sender.ask(first=pair * PER_PAIR, count=PER_PAIR)
            after = node.ask(do="until", count=(pair + 1) * PER_PAIR)
            bare = node.ask(do="bare", first=pair * PER_PAIR, count=PER_PAIR)
            if pair >= WARM_UP:
                real_s = after["cpu_s"] - before["cpu_s"]
                ratios.append(bare["cpu_s"] / real_s)
                node_us.append(1e6 * real_s / PER_PAIR)
    return {
        "name": "orders.intake_vs_ceiling",
        "value": statistics.median(ratios),
        "unit": "ratio of orders per CPU-second",
        "baseline": "a bare loop over the same bytes (unpack, canonical re-encode and compare, BLAKE3 id, stamp, key parse, "
        f"BIP340 verify) in the same process, by turns with the node every {PER_PAIR:,} orders",
        "higher_is_better": True,
        "bound": 0.75,
        "remark": f"median of {PAIRS} pairs, {min(ratios):.2f} to {max(ratios):.2f}; {statistics.median(node_us):.0f} us of CPU "
        "per order in the node: host, noise, yamux, relay, pump, brain, market, checks, and the reconciliations meanwhile",
    }
