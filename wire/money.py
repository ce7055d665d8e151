"""Amounts as people write them. Integers inside: millisatoshi in messages, satoshi on chain.

The syntax of 2013 is understood: unit first, then a decimal number, one optional space between (``uBTC 340``, ``mBTC0.1``,
``satoshi 20``), and ``sat`` and ``msat`` besides.
"""

import re
from typing import Final

from wire.errors import Refused

MSAT_PER_SAT: Final = 1_000
SAT_PER_BTC: Final = 100_000_000

_MSAT_PER_UNIT: Final = {
    "BTC": SAT_PER_BTC * MSAT_PER_SAT,
    "mBTC": 100_000 * MSAT_PER_SAT,
    "uBTC": 100 * MSAT_PER_SAT,
    "satoshi": MSAT_PER_SAT,
    "sat": MSAT_PER_SAT,
    "msat": 1,
}
_AMOUNT: Final = re.compile(r"(BTC|mBTC|uBTC|satoshi|sat|msat) ?(\d{1,17})(?:\.(\d{1,12}))?")


class BadAmount(Refused):
    """The text is not an amount of money."""


def parse_msat(text: str) -> int:
    """Millisatoshi written as ``text``. Raises ``BadAmount``; never rounds."""
    found = _AMOUNT.fullmatch(text.strip())
    if found is None:
        raise BadAmount("bad-amount", f"{text!r} is not an amount; write for example 'uBTC 340' or 'sat 20'")
    unit, whole, fraction = found.group(1), found.group(2), found.group(3) or ""
    msat, rest = divmod(int(whole + fraction) * _MSAT_PER_UNIT[unit], int(10 ** len(fraction)))
    if rest:
        raise BadAmount("bad-amount", f"{text!r} is finer than a millisatoshi")
    if msat > 21_000_000 * SAT_PER_BTC * MSAT_PER_SAT:
        raise BadAmount("bad-amount", f"{text!r} is more money than there is")
    return msat


def show_msat(msat: int) -> str:
    """``msat`` in the largest unit of BTC, mBTC, uBTC, sat, msat that needs no leading zero, without trailing zeros."""
    sign, size = ("-", -msat) if msat < 0 else ("", msat)
    if size == 0:
        return "sat 0"
    for unit in ("BTC", "mBTC", "uBTC", "sat", "msat"):
        per = _MSAT_PER_UNIT[unit]
        if size >= per:
            whole, rest = divmod(size, per)
            digits = str(rest).zfill(len(str(per)) - 1).rstrip("0") if rest else ""
            return f"{unit} {sign}{whole}{'.' + digits if digits else ''}"
    raise AssertionError("unreachable: one msat is one msat")


def ceil_sat(msat: int) -> int:
    """The least whole satoshi that cover ``msat``."""
    return -(-msat // MSAT_PER_SAT)
