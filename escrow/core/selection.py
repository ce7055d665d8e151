"""Which coins pay: an exact match if there is one, else the fewest.

An exact match needs no change, which saves its bytes now and later and tells nobody what is left. It is looked for by branch and
bound over effective values (what a coin is worth after paying for its own input), for a bounded number of steps, and may
overshoot by what making and spending change would cost. Else the smallest coin that is enough alone; else the largest first.
Source: Murch, "An evaluation of coin selection strategies" (2016), section 5, with fewest inputs instead of knapsack.
"""

from collections.abc import Sequence
from typing import Final, TypeAlias

from escrow.core.amounts import DUST_P2WPKH_SAT, fee_sat
from wire.limits import SELECTION_STEPS_MAX, WALLET_INPUTS_MAX
from wire.ports import OutPoint

Coins: TypeAlias = Sequence[tuple[OutPoint, int]]
INPUT_VBYTES: Final = 68
CHANGE_VBYTES: Final = 31


def choose(coins: Coins, target_sat: int, feerate_sat_per_kvb: int) -> list[tuple[OutPoint, int]] | None:
    """Coins worth ``target_sat`` (outputs and the fee for everything but inputs and change); None when all are not enough."""
    cost = fee_sat(INPUT_VBYTES, feerate_sat_per_kvb)
    worth = sorted((one for one in coins if one[1] > cost), key=lambda one: (-one[1], one[0].txid, one[0].vout))
    values = [value - cost for _, value in worth]
    change = fee_sat(CHANGE_VBYTES, feerate_sat_per_kvb)
    exact = _exact(values, target_sat, change + cost)
    if exact is not None:
        return [worth[place] for place in exact]
    with_change = target_sat + change + DUST_P2WPKH_SAT
    alone = [place for place, value in enumerate(values) if value >= with_change]
    if alone:
        return [worth[alone[-1]]]
    total = 0
    for count, value in enumerate(values[:WALLET_INPUTS_MAX], start=1):
        total += value
        if total >= with_change:
            return worth[:count]
    return worth[:WALLET_INPUTS_MAX] if total >= target_sat else None


def _exact(values: Sequence[int], target: int, over: int) -> list[int] | None:
    """Places of values, largest first, that add up to ``target`` and at most ``over`` more: the closest that is found in time."""
    left = [0] * (len(values) + 1)
    for place in range(len(values) - 1, -1, -1):
        left[place] = left[place + 1] + values[place]
    best: list[int] | None = None
    best_total = target + over + 1
    chosen: list[int] = []
    total, place = 0, 0
    for _ in range(SELECTION_STEPS_MAX):
        if target <= total < best_total and len(chosen) <= WALLET_INPUTS_MAX:
            best, best_total = list(chosen), total
        hopeless = total >= target or total >= best_total or place >= len(values) or total + left[place] < target
        if not hopeless:
            chosen.append(place)
            total += values[place]
            place += 1
            continue
        if not chosen or best_total == target:
            break
        last = chosen.pop()
        total -= values[last]
        place = last + 1
    return best
