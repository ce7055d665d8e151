"""``python -m tests.bench``: measure everything three times, print JSON, fail when a ratio is over its bound."""

import json
import sys

from tests.bench.measures import MEASURES

ROUNDS = 3


def main() -> int:
    """Print one object per measure; returns the exit code."""
    results = {}
    for name, (measure, operations, ratio_max) in MEASURES.items():
        pairs = [measure() for _ in range(ROUNDS)]
        baseline, real = min(pair[0] for pair in pairs), min(pair[1] for pair in pairs)
        ratio = real / max(baseline, 1e-9)
        results[name] = {
            "operations": operations,
            "baseline_s": round(baseline, 6),
            "real_s": round(real, 6),
            "per_second": round(operations / real),
            "ratio": round(ratio, 3),
            "ratio_max": ratio_max,
            "holds": ratio <= ratio_max,
        }
    print(json.dumps(results, indent=2))
    return 0 if all(one["holds"] for one in results.values()) else 1


sys.exit(main())
