"""How the values of the local API read on a screen: amounts, ages, accounts, phases. Pure."""

from collections.abc import Mapping
from typing import Any, Final

from wire.money import show_msat

Json = Mapping[str, Any]

NOTHING: Final = "–"
FADED, GOOD, BUSY, BAD = "faded", "good", "busy", "bad"

# What a phase looks like: tone. Words are the node's own, they are the same everywhere.
_PHASES: Final = {
    "placed": "",
    "matched": "",
    "accepted": BUSY,
    "funded": BUSY,
    "transmitting": BUSY,
    "working": BUSY,
    "offered": BUSY,
    "committed": BUSY,
    "revealed": BUSY,
    "finished": FADED,
    "withdrawn": FADED,
    "refunded": FADED,
}
_GLYPHS: Final = {"": "○", BUSY: "●", FADED: "✓", BAD: "✗", GOOD: "●"}
UNDER_WAY: Final = frozenset(phase for phase, tone in _PHASES.items() if tone == BUSY)


def phase_tone(phase: str) -> str:
    """The tone of a trade's phase; a phase that this version does not know is a bad end."""
    return _PHASES.get(phase, BAD)


def phase_word(phase: str) -> str:
    """The phase with a mark before it, so that its kind is seen without colours too."""
    mark = "–" if phase in ("withdrawn", "refunded") else _GLYPHS[phase_tone(phase)]
    return f"{mark} {phase}"


def whole(line: Json, name: str) -> int | None:
    """An integer of a line, or None when it has none of that name."""
    value = line.get(name)
    return value if type(value) is int else None


def text(line: Json, name: str) -> str:
    """A string of a line; empty when there is none of that name."""
    value = line.get(name)
    return "" if value is None else str(value)


def count(value: int | None) -> str:
    """A number with its thousands apart."""
    return NOTHING if value is None else f"{value:,}".replace(",", " ")


def money(msat: int | None) -> str:
    """An amount in the market's own syntax."""
    return NOTHING if msat is None else show_msat(msat)


def satoshi(sat: int | None) -> str:
    """A whole amount of satoshi."""
    return NOTHING if sat is None else f"{count(sat)} sat"


def price(msat: int | None, *, free: bool = False) -> str:
    """What a unit costs."""
    if free or msat == 0:
        return "free"
    return money(msat)


def age(seconds: float) -> str:
    """How long, in one unit: 12s, 5m, 3h, 2d."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return "0s"


def since(moment_us: int | None, now_us: int) -> str:
    """How long ago ``moment_us`` was."""
    return NOTHING if moment_us is None else age((now_us - moment_us) / 1_000_000)


def short(name: str, head: int = 4, tail: int = 4) -> str:
    """An account or an id without its middle, which nobody reads."""
    return name if len(name) <= head + tail + 1 else f"{name[:head]}…{name[-tail:]}"


def yes(value: object) -> str:
    """A tick, or nothing."""
    return "✓" if value else ""


def plural(number: int, one: str, many: str | None = None) -> str:
    """``1 trade``, ``2 trades``."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


_BARS: Final = "▁▂▃▄▅▆▇█"


def sparkline(values: list[int | None]) -> str:
    """Small bars, one for each value; a dot where there is none."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    least, most = min(known), max(known)
    span = most - least
    return "".join("·" if value is None else _BARS[(value - least) * 7 // span if span else 3] for value in values)
