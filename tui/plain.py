"""Text of strangers made harmless, before anything is done with it.

What peers say of themselves reaches the dashboard: articles, reasons, remarks, last words of workers. A terminal obeys control
characters, letters that run from right to left pull the neighbouring columns of a row with them, and marks can be stacked until
they cover the lines above. So every string that the node answers passes through here once, on arrival (``tui.feed``), and
nothing behind it reads markup.
"""

import unicodedata
from typing import Any, Final

TEXT_MAX_CHARS: Final = 2_000
LIST_MAX_ITEMS: Final = 5_000
DEPTH_MAX: Final = 8
SUBSTITUTE: Final = "\N{REPLACEMENT CHARACTER}"
CUT: Final = "…"
# Letters that run from right to left, and digits of such scripts: in a table of money their order must not be a riddle.
_BACKWARDS: Final = frozenset({"R", "AL", "AN"})
_MARKS_IN_A_ROW: Final = 2
_VARIATION: Final = range(0xFE00, 0xFE10)


def clean(text: str, most: int = TEXT_MAX_CHARS) -> str:
    """One line of at most ``most`` characters that run from left to right; what cannot be shown becomes U+FFFD."""
    kept: list[str] = []
    marks = 0
    for char in text[: most + 1]:
        if unicodedata.category(char).startswith("M"):
            marks += 1
            if not kept or marks > _MARKS_IN_A_ROW or ord(char) in _VARIATION:
                continue
        else:
            marks = 0
        kept.append(_shown(char))
    if len(text) > most:
        kept[most - 1 :] = CUT
    return "".join(kept)


def _shown(char: str) -> str:
    if char.isascii() and char.isprintable():
        return char
    if char.isspace():
        return " "
    if not char.isprintable() or unicodedata.bidirectional(char) in _BACKWARDS:
        return SUBSTITUTE
    return char


def clean_json(value: Any, depth: int = 0) -> Any:
    """``value`` with every string clean, every list at most ``LIST_MAX_ITEMS`` long, and nothing nested without end."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict | list) and depth >= DEPTH_MAX:
        return None
    if isinstance(value, list):
        return [clean_json(one, depth + 1) for one in value[:LIST_MAX_ITEMS]]
    if isinstance(value, dict):
        return {clean(str(name)): clean_json(one, depth + 1) for name, one in value.items()}
    return value
