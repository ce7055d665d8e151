"""``python -m tests.soak``: run the soak, write its report, and fail when books differ or an order was filled twice."""

import argparse
import json
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import trio

from tests.soak.run import Plan, Soak

EQUAL_LEAST = 0.995
SENTENCES_MOST = 8


def text_of(report: dict[str, Any]) -> str:
    """The report in a few lines, and some for each miss."""
    plan, late = report["plan"], report["cleared_after_freeze_ms"]
    lines = [
        f"{plan['nodes']} nodes, {plan['articles']} articles, {plan['minutes']} minutes, {plan['kills']} killed and rejoined, "
        f"seed {plan['seed']}",
        f"equal roots in {report['auctions_with_equal_roots']} of {report['auctions_judged']} auctions: "
        f"{report['share_equal']:.3%}",
        f"cleared after the freeze: median {late['median']} ms, p99 {late['p99']} ms, most {late['most']} ms",
        f"matches signed by both {report['matches_signed_by_both']}, by one {report['matches_signed_by_one']}, "
        f"for {report['orders_signed_away']} orders ({report['orders_with_known_quantity']} with known quantity)",
        f"orders filled twice: {len(report['filled_twice'])}",
        f"CPU per node: {report['cpu_share']}; load of the machine at the end: {report['load']}",
    ]
    for miss in report["misses"]:
        lines.append(f"miss in epoch {miss['epoch']}, {miss['article']}:")
        lines += [f"    {sentence}" for sentence in miss["explanation"][:SENTENCES_MOST]]
        if len(miss["explanation"]) > SENTENCES_MOST:
            lines.append(f"    and {len(miss['explanation']) - SENTENCES_MOST} more messages; results.json has all")
    return "\n".join([*lines, *report["filled_twice"]])


def main() -> int:
    """Returns the exit code."""
    options = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    options.add_argument("--minutes", type=float, default=5)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--nodes", type=int, default=8)
    options.add_argument("--articles", type=int, default=3)
    options.add_argument("--kills", type=int, default=2)
    options.add_argument("--free", action="store_true", help="free books only, without a chain")
    options.add_argument("--out", type=Path, default=Path("soak-out"))
    told = options.parse_args()
    plan = Plan(
        minutes=told.minutes,
        seed=told.seed,
        nodes=told.nodes,
        articles=told.articles,
        kills=told.kills,
        paid=not told.free,
    )
    told.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as folder:
        try:
            report = trio.run(partial(Soak(plan, Path(folder)).run))
        finally:
            logs = told.out / "logs"
            logs.mkdir(exist_ok=True)
            for log in Path(folder).glob("*.log"):
                (logs / log.name).write_bytes(log.read_bytes())
    (told.out / "results.json").write_text(json.dumps(report, indent=2) + "\n")
    print(text_of(report))
    equal, traded = report["share_equal"] >= EQUAL_LEAST, report["matches_signed_by_both"] > 0
    return 0 if equal and traded and not report["filled_twice"] else 1


sys.exit(main())
