"""Scenario files: TOML whose tables are exactly the plans of the world or of a model, and the expectations a run is compared
with.

    name = "smoke"
    kind = "world"                 # or "broadcast", "lookup"
    about = "one sentence"
    [plan]                         # fields of the plan of that kind; tables inside it for the world's parts
    [expect.NAME]                  # a value that somebody published, with a tolerance written down before the run
    value = 370.0
    tolerance = 0.25               # relative; or `within = 1` absolute, `most`, `least`
    source = "where it stands"

A misspelt key is refused, so a scenario never silently runs with a default.
"""

import dataclasses
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from simulations.lab.plans import BroadcastPlan, LookupPlan
from simulations.world.plan import Plan
from wire.errors import Refused

T = TypeVar("T")
FOLDER: Final = Path(__file__).parents[1] / "scenarios"
KINDS: Final[dict[str, type]] = {"world": Plan, "broadcast": BroadcastPlan, "lookup": LookupPlan}


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What a measured value should be: ``value`` within a relative ``tolerance`` or an absolute ``within``, or bounds."""

    value: float | None = None
    tolerance: float | None = None
    within: float | None = None
    least: float | None = None
    most: float | None = None
    source: str = ""

    def holds(self, measured: float) -> bool:
        """Whether the measured value is as expected."""
        if self.value is not None:
            allowed = self.within if self.within is not None else abs(self.value) * (self.tolerance or 0.0)
            if abs(measured - self.value) > allowed:
                return False
        if self.least is not None and measured < self.least:
            return False
        return self.most is None or measured <= self.most

    def show(self) -> str:
        """In words."""
        parts = []
        if self.value is not None:
            around = f"± {self.within:g}" if self.within is not None else f"± {100 * (self.tolerance or 0.0):g} %"
            parts.append(f"{self.value:g} {around}")
        if self.least is not None:
            parts.append(f"at least {self.least:g}")
        if self.most is not None:
            parts.append(f"at most {self.most:g}")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One scenario file."""

    name: str
    kind: str
    about: str
    plan: Any
    expect: Mapping[str, Expectation] = field(default_factory=dict)
    text: str = ""


def from_table(kind: type[T], table: Mapping[str, Any], where: str) -> T:
    """A plan from a TOML table. Raises ``Refused`` for a key or a type that the plan does not have."""
    hints = typing.get_type_hints(kind)
    fields = {one.name for one in dataclasses.fields(kind)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in fields:
            raise Refused("bad-scenario", f"{where}: there is no setting {key!r}; there are {', '.join(sorted(fields))}")
        values[key] = _value(hints[key], value, f"{where}.{key}")
    return kind(**values)


def _value(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return from_table(hint, value, where)  # type: ignore[arg-type]
    if typing.get_origin(hint) is tuple and isinstance(value, list):
        return tuple(_value(typing.get_args(hint)[0], one, where) for one in value)
    wanted = [one for one in typing.get_args(hint) or (hint,) if one is not type(None)]
    if float in wanted and type(value) in (int, float):
        return float(value)
    if type(value) in wanted:
        return value
    raise Refused("bad-scenario", f"{where}: {value!r} is not a {' or '.join(one.__name__ for one in wanted)}")


def available() -> list[str]:
    """Names of the scenarios that come with the simulator."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(name: str) -> Scenario:
    """The scenario of this name, or in the file of this path. Raises ``Refused``."""
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    try:
        text = path.read_text()
        table = tomllib.loads(text)
    except FileNotFoundError:
        raise Refused("no-scenario", f"there is no scenario {name!r}; there are {', '.join(available())}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Refused("bad-scenario", f"{path}: {error}") from None
    return parse(table, text, path.stem)


def parse(table: Mapping[str, Any], text: str, where: str) -> Scenario:
    """A scenario from its table."""
    unknown = sorted(set(table) - {"name", "kind", "about", "plan", "expect"})
    if unknown:
        raise Refused("bad-scenario", f"{where}: there is no setting {unknown[0]!r}")
    kind = table.get("kind", "")
    if kind not in KINDS:
        raise Refused("bad-scenario", f"{where}: kind is one of {', '.join(KINDS)}, not {kind!r}")
    expect = {key: from_table(Expectation, one, f"{where}.expect.{key}") for key, one in table.get("expect", {}).items()}
    return Scenario(
        name=table.get("name", where),
        kind=kind,
        about=table.get("about", ""),
        plan=from_table(KINDS[kind], table.get("plan", {}), f"{where}.plan"),
        expect=expect,
        text=text,
    )
