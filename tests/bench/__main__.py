"""``python -m tests.bench [MODULE ...]``: measure, write ``bench-out/results.json``, print a table, fail when a bound is broken.

A module of this folder that is named in ``MODULES`` has ``figures()``, which returns one dictionary per figure: ``name``,
``value``, ``unit``, ``baseline`` (what it was measured against in the same run), ``higher_is_better``, ``bound``, and perhaps
``remark``. One that fails is told and the others go on.
"""

import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
MODULES: Final = ("auction", "reconcile", "intake", "relay", "escrow", "parts")
KEYS: Final = {"name": str, "value": int | float, "unit": str, "baseline": str, "higher_is_better": bool, "bound": int | float}
LIBRARIES: Final = ("libp2p", "trio", "coincurve", "msgpack", "blake3", "numpy")


def holds(figure: dict[str, Any]) -> bool:
    """Whether a figure keeps its bound."""
    if figure["higher_is_better"]:
        return bool(figure["value"] >= figure["bound"])
    return bool(figure["value"] <= figure["bound"])


def checked(figure: dict[str, Any]) -> dict[str, Any]:
    """The figure as it is written. Raises ``TypeError`` for what is no figure."""
    for key, kind in KEYS.items():
        if not isinstance(figure.get(key), kind):
            raise TypeError(f"{figure.get('name', 'a figure')} has no {key}")
    return {**figure, "value": float(f"{figure['value']:.4g}"), "holds": holds(figure)}


def machine() -> dict[str, Any]:
    """What a reader needs to judge the figures by; nothing that names this machine."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "architecture": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "load_average": [round(one, 2) for one in os.getloadavg()],
    }


def measure(module: str) -> list[dict[str, Any]]:
    """The figures of one module."""
    return [checked(one) for one in importlib.import_module(f"tests.bench.{module}").figures()]


def line(figure: dict[str, Any]) -> str:
    """One figure for people."""
    sign = ">=" if figure["higher_is_better"] else "<="
    verdict = "" if figure["holds"] else "   DOES NOT HOLD"
    return f"{figure['name']:38} {figure['value']:>12g}  {sign} {figure['bound']:<10g} {figure['unit']}{verdict}"


def main(wanted: list[str]) -> int:
    """Measure what is wanted, or everything there is; returns the exit code."""
    there = [module for module in MODULES if importlib.util.find_spec(f"tests.bench.{module}")]
    unknown = [module for module in wanted if module not in there]
    if unknown:
        print(f"there is no module {', '.join(unknown)}; choose from {', '.join(there)}", file=sys.stderr)
        return 2
    before, began = machine(), time.monotonic()
    figures: list[dict[str, Any]] = []
    failures: list[dict[str, str]] = []
    for module in wanted or there:
        print(f"measuring {module} ...", flush=True)
        try:
            found = measure(module)
        except Exception as error:
            traceback.print_exc()
            failures.append({"module": module, "error": f"{type(error).__name__}: {error}".replace(str(ROOT), ".")})
            continue
        figures += found
        for figure in found:
            print(line(figure), flush=True)
    result = {"figures": figures, "failures": failures, "machine": before, "seconds": round(time.monotonic() - began, 1)}
    folder = ROOT / "bench-out"
    folder.mkdir(exist_ok=True)
    (folder / "results.json").write_text(json.dumps(result, indent=2) + "\n")
    print()
    for figure in figures:
        print(line(figure))
        print(f"    against {figure['baseline']}")
        if figure.get("remark"):
            print(f"    {figure['remark']}")
    for failure in failures:
        print(f"{failure['module']} could not be measured: {failure['error']}")
    return 0 if figures and not failures and all(figure["holds"] for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
