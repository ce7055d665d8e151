# SPDX-License-Identifier: GPL-3.0-or-later
"""Amounts as people write them: unit first, then a number. Integers of millisatoshi inside."""

import re

_MSAT = {
    "BTC": 100_000_000_000,
    "mBTC": 100_000_000,
    "uBTC": 100_000,
    "satoshi": 1_000,
    "sat": 1_000,
    "msat": 1,
}
_AMOUNT = re.compile(r"(BTC|mBTC|uBTC|satoshi|sat|msat) ?(\d{1,17})(?:\.(\d{1,12}))?")


class BadAmount(ValueError):
    """The text is not an amount of money."""


def parse_msat(text: str) -> int:
    """Millisatoshi written as ``text``; an empty text is nothing. Raises ``BadAmount``; never rounds."""
    if not text.strip():
        return 0
    found = _AMOUNT.fullmatch(text.strip())
    if found is None:
        raise BadAmount(f"'{text}' is not an amount; write for example 'uBTC 340' or 'sat 20'")
    fraction = found.group(3) or ""
    msat, rest = divmod(int(found.group(2) + fraction) * _MSAT[found.group(1)], 10 ** len(fraction))
    if rest:
        raise BadAmount(f"'{text}' is finer than a millisatoshi")
    return msat


def show_msat(msat: int) -> str:
    """``msat`` in the largest unit that needs no leading zero."""
    for unit in ("BTC", "mBTC", "uBTC", "sat", "msat"):
        per = _MSAT[unit]
        if msat >= per:
            whole, rest = divmod(msat, per)
            digits = str(rest).zfill(len(str(per)) - 1).rstrip("0") if rest else ""
            return f"{unit} {whole}{'.' + digits if digits else ''}"
    return "sat 0"
