"""What a run leaves behind: measures by name, tables, and the manifest that says how to have it again."""

import csv
import json
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from simulations.lab.scenario import Scenario
from wire.digest import context, digest

_ROOMS: Final = ("wire", "orderbook/core", "escrow/core", "dht/core", "peer/core", "simulations")
_LIBRARIES: Final = ("numpy", "matplotlib", "blake3", "coincurve", "msgpack")


@dataclass(slots=True)
class Table:
    """Rows under named columns, all plain numbers and words."""

    columns: Sequence[str]
    rows: list[Sequence[Any]] = field(default_factory=list)


@dataclass(slots=True)
class Outcome:
    """One run. ``draw`` makes its figures in a folder; it is None when there are none."""

    scenario: Scenario
    seed: int
    event_log_hash: str
    measures: dict[str, float]
    tables: dict[str, Table] = field(default_factory=dict)
    cpu_s: float = 0.0
    draw: Callable[[Path], None] | None = None

    def judged(self) -> dict[str, dict[str, Any]]:
        """Every expectation of the scenario beside what was measured."""
        lines: dict[str, dict[str, Any]] = {}
        for name, expectation in self.scenario.expect.items():
            measured = self.measures.get(name)
            lines[name] = {
                "measured": measured,
                "expected": expectation.show(),
                "holds": measured is not None and expectation.holds(measured),
                "source": expectation.source,
            }
        return lines

    def as_json(self) -> dict[str, Any]:
        """The whole, for programs."""
        return {
            "scenario": self.scenario.name,
            "kind": self.scenario.kind,
            "seed": self.seed,
            "event_log_hash": self.event_log_hash,
            "code_hash": code_hash(),
            "cpu_s": round(self.cpu_s, 3),
            "measures": dict(sorted(self.measures.items())),
            "expectations": self.judged(),
        }

    def write(self, folder: Path) -> list[Path]:
        """Manifest, tables, the scenario as it was, and figures. Returns the files."""
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / "manifest.json", folder / "scenario.toml"]
        files[0].write_text(json.dumps({**self.as_json(), **versions()}, indent=2, sort_keys=True) + "\n")
        files[1].write_text(self.scenario.text)
        for name, table in sorted(self.tables.items()):
            path = folder / f"{name}.csv"
            with path.open("w", newline="") as out:
                writer = csv.writer(out)
                writer.writerow(table.columns)
                writer.writerows(table.rows)
            files.append(path)
        if self.draw is not None:
            before = set(folder.glob("*.png"))
            self.draw(folder)
            files += sorted(set(folder.glob("*.png")) - before) or sorted(folder.glob("*.png"))
        return files


def code_hash() -> str:
    """One hash over every source file that a run depends on, names included."""
    root = Path(__file__).parents[2]
    parts = []
    for room in _ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            name = path.relative_to(root).as_posix().encode()
            data = path.read_bytes()
            parts.append(len(name).to_bytes(4, "big") + name + len(data).to_bytes(8, "big") + data)
    return digest(context("simulated", "code"), *parts).hex()


def versions() -> dict[str, Any]:
    """Of Python and of the libraries that compute."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {"python": sys.version.split()[0], "machine": platform.machine(), "libraries": found}
