"""How much we risk with an account: little with a stranger, more with every unit that ends well, half of it after a fault.

One number an account, its *level*: it starts at 0, grows by one with each unit that was finished and paid, and is halved by a
fault (a strike, broken rules, work that was not paid). Everything that can be lost follows from it:

- a **seller** works for a buyer on so many unpaid units at a time, of so much value;
- a **buyer** locks so many results under one key, for until it is shown he has paid for all of them and holds none;
- a **buyer** puts so much into channels with one seller, for a seller who goes away ties it up until the refund.

One unit is always allowed, whatever it costs: without it nobody would ever get to know anybody. What goes wrong together is
one fault. After a restart the level is counted from the units that the journal kept.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from wire.limits import (
    BATCH_UNITS_MAX,
    CHANNEL_CAPACITY_MAX_SAT,
    EXPOSURE_LEVEL_MAX,
    EXPOSURE_STEP_SAT,
    FIRST_EXPOSURE_MAX_SAT,
    PEERS_MAX,
    UNITS_IN_FLIGHT_FIRST,
)
from wire.moments import SECOND, Instant
from wire.money import MSAT_PER_SAT

FAULT_TOGETHER_US: Final = 5 * SECOND


@dataclass(frozen=True, slots=True)
class Allowance:
    """So many units, and so much value among them; the first unit always fits."""

    units: int
    value_msat: int

    def fits(self, prices_msat: Iterable[int]) -> int:
        """How many of these units, in their order, may be risked together."""
        count = total = 0
        for price_msat in prices_msat:
            total += price_msat
            if count and (count >= self.units or total > self.value_msat):
                break
            count += 1
        return count


class Exposure:
    """Levels by account key, bounded: the account heard of longest ago makes room."""

    def __init__(self) -> None:
        self._levels: dict[bytes, int] = {}
        self._faults: dict[bytes, Instant] = {}

    def finished(self, account: bytes, units: int = 1) -> None:
        """So many units with this account ended as they should."""
        level = min(EXPOSURE_LEVEL_MAX, self._levels.pop(account, 0) + units)
        while len(self._levels) >= 4 * PEERS_MAX:
            del self._levels[next(iter(self._levels))]
        self._levels[account] = level

    def fault(self, account: bytes, now: Instant) -> None:
        """Something with this account went wrong: half as much is risked."""
        before = self._faults.get(account)
        if account not in self._levels or (before is not None and now < before + FAULT_TOGETHER_US):
            return
        self._faults = {one: at for one, at in self._faults.items() if now < at + FAULT_TOGETHER_US}
        self._faults[account] = now
        self._levels[account] //= 2

    def level(self, account: bytes) -> int:
        """Units that ended well, less what faults took away."""
        return self._levels.get(account, 0)

    def in_flight(self, account: bytes) -> Allowance:
        """Unpaid work that a seller does for this buyer at a time."""
        return Allowance(min(EXPOSURE_LEVEL_MAX, UNITS_IN_FLIGHT_FIRST + self.level(account)), self._value_msat(account))

    def batch(self, account: bytes) -> Allowance:
        """Results of this seller that a buyer pays for under one key."""
        return Allowance(min(BATCH_UNITS_MAX, 1 + self.level(account)), self._value_msat(account))

    def capacity_sat(self, account: bytes, most_sat: int = CHANNEL_CAPACITY_MAX_SAT) -> int:
        """What a buyer puts into channels with this seller, all of them together.

        The level says how far up to ``most_sat``, which a bond of the seller raises, and with it every step on the way.
        """
        step_sat = min(CHANNEL_CAPACITY_MAX_SAT, FIRST_EXPOSURE_MAX_SAT + EXPOSURE_STEP_SAT * self.level(account))
        return step_sat * most_sat // CHANNEL_CAPACITY_MAX_SAT

    def _value_msat(self, account: bytes) -> int:
        return MSAT_PER_SAT * min(CHANNEL_CAPACITY_MAX_SAT, EXPOSURE_STEP_SAT * (1 + self.level(account)))
