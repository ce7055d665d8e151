"""How long a message is on its way between two nodes, in microseconds. Models, drawn from the run's dice.

``constant``, ``uniform`` and ``lognormal`` draw for every message; ``classes`` gives each pair of nodes one of five delays
evenly spread over the range, for good, as in the published GossipSub measurements that this simulator is compared with.
"""

import math
from collections.abc import Callable
from random import Random
from typing import Final

from wire.errors import Refused

Delay = Callable[[int, int], int]
"""From node, to node: microseconds."""

CLASSES: Final = 5
FIXED: Final = frozenset({"constant", "classes"})
"""Models in which a pair always has the same delay."""


def class_delays_ms(least_ms: float, most_ms: float) -> tuple[float, ...]:
    """The five delays of the ``classes`` model."""
    return tuple(least_ms + (most_ms - least_ms) * place / (CLASSES - 1) for place in range(CLASSES))


def pair_class(one: int, other: int, salt: int) -> int:
    """The class of a pair, the same in both directions. A 64-bit finaliser (splitmix64) of both numbers."""
    low, high = (one, other) if one < other else (other, one)
    mixed = (low * 0x9E3779B97F4A7C15 + high * 0xC2B2AE3D27D4EB4F + salt) & 0xFFFFFFFFFFFFFFFF
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return (mixed ^ (mixed >> 31)) % CLASSES


def delay_model(kind: str, least_ms: float, most_ms: float, dice: Random) -> Delay:
    """The model called ``kind`` over the range. ``lognormal`` has its median at the geometric mean and 95 % inside."""
    low, high = round(least_ms * 1_000), round(most_ms * 1_000)
    if not 0 < low <= high:
        raise Refused("bad-latency", "a latency needs a least and a most in milliseconds, above zero and in this order")
    if kind == "constant":
        return lambda _one, _other: low
    if kind == "uniform":
        return lambda _one, _other: dice.randint(low, high)
    if kind == "lognormal":
        middle, sigma = (math.log(low) + math.log(high)) / 2, (math.log(high) - math.log(low)) / 4
        return lambda _one, _other: max(1, round(dice.lognormvariate(middle, sigma)))
    if kind == "classes":
        salt = dice.getrandbits(63)
        delays = [round(one * 1_000) for one in class_delays_ms(least_ms, most_ms)]
        return lambda one, other: delays[pair_class(one, other, salt)]
    raise Refused("bad-latency", f"there is no latency model {kind!r}; use constant, uniform, lognormal or classes")
