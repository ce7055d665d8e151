"""One broadcast over a mesh: when every node has the message, and what it costs. Whole microseconds.

The model. A node that has a message whole spends ``processing_us`` on it and then sends it to all its neighbours but the one it
came from. Its copies leave as parallel streams that share the uplink, so the last bit of each leaves after ``copies x size /
uplink``. Every copy arrives after the link's delay. A node's downlink takes one copy's time. A node keeps the first copy that
is complete. Lost copies do not arrive; nodes that are away neither receive nor send.

Arrival times are the least fixed point of "mine is the least of my neighbours' plus what the link costs", reached by relaxing
only the nodes whose time has changed. ``exact`` does the same with a heap, for small meshes, to check the array form.
"""

import heapq
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simulations.models.meshes import NOBODY, Links
from simulations.world.latency import CLASSES, class_delays_ms

Times = NDArray[np.int64]
NEVER: Final = np.int64(1 << 60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """What travels and over what. ``uplink_*`` in Mbit/s bound a uniform draw per node; 0 means without bound."""

    size_bytes: int = 1_000
    least_ms: float = 40.0
    most_ms: float = 130.0
    uplink_least_mbps: float = 0.0
    uplink_most_mbps: float = 0.0
    processing_ms: float = 0.0
    loss: float = 0.0
    away: float = 0.0


@dataclass(frozen=True, slots=True)
class Broadcast:
    """The outcome: arrival by node (``NEVER`` where none), transmissions, rounds of relaxation."""

    arrival_us: Times
    transmissions: int
    rounds: int


def _finalise(mixed: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's finaliser."""
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def pair_numbers(one: NDArray[np.int64], other: NDArray[np.int64], salt: int) -> NDArray[np.uint64]:
    """64 bits for each pair of nodes, the same in both directions."""
    low, high = np.minimum(one, other).astype(np.uint64), np.maximum(one, other).astype(np.uint64)
    with np.errstate(over="ignore"):
        mixed = low * np.uint64(0x9E3779B97F4A7C15) + high * np.uint64(0xC2B2AE3D27D4EB4F) + np.uint64(salt)
        return _finalise(mixed)


class Roads:
    """What a copy costs on its way, as a function of the two ends; nothing is stored per link."""

    def __init__(self, spread: Spread, nodes: int, rng: np.random.Generator) -> None:
        self._salt = int(rng.integers(1 << 62))
        self._delays = np.array([round(one * 1_000) for one in class_delays_ms(spread.least_ms, spread.most_ms)], dtype=np.int64)
        bits = spread.size_bytes * 8
        if spread.uplink_most_mbps:
            uplink = rng.uniform(spread.uplink_least_mbps, spread.uplink_most_mbps, nodes)
            self._copy_us = np.rint(bits / uplink).astype(np.int64)
        else:
            self._copy_us = np.zeros(nodes, dtype=np.int64)
        self._processing_us = round(spread.processing_ms * 1_000)
        self._loss = np.uint64(min((1 << 64) - 1, int(spread.loss * (1 << 64))))

    def cost(self, one: NDArray[np.int64], other: NDArray[np.int64], copies: NDArray[np.int64]) -> Times:
        """Microseconds from "one has it whole" to "the other has it whole"; ``NEVER`` for a lost copy."""
        numbers = pair_numbers(one, other, self._salt)
        cost = self._delays[(numbers % np.uint64(CLASSES)).astype(np.intp)] + self._processing_us
        cost = cost + self._copy_us[one] * copies + self._copy_us[other]
        if self._loss:
            with np.errstate(over="ignore"):
                way = numbers + one.astype(np.uint64) * np.uint64(0xD6E8FEB86659FD93)
                cost[_finalise(way) < self._loss] = NEVER
        return cost


def broadcast(links: Links, roads: Roads, source: int, away: NDArray[np.bool_] | None = None) -> Broadcast:
    """One message from ``source`` to everybody."""
    nodes, degree = links.shape
    present = np.ones(nodes, dtype=bool) if away is None else ~away
    copies = np.maximum((links != NOBODY).sum(axis=1) - 1, 1).astype(np.int64)
    arrival = np.full(nodes, NEVER, dtype=np.int64)
    arrival[source] = 0
    front = np.array([source], dtype=np.int64)
    rounds = 0
    while front.size:
        rounds += 1
        improved: list[NDArray[np.int64]] = []
        for column in range(degree):
            there = links[front, column].astype(np.int64)
            usable = there != NOBODY
            usable[usable] = present[there[usable]]
            here, there = front[usable], there[usable]
            when = arrival[here] + roads.cost(here, there, copies[here])
            better = when < arrival[there]
            if better.any():
                there, when = there[better], when[better]
                np.minimum.at(arrival, there, when)
                improved.append(there)
        front = np.unique(np.concatenate(improved)) if improved else np.empty(0, dtype=np.int64)
    reached = arrival < NEVER
    sent = int(copies[reached].sum()) + (1 if reached.any() else 0)
    return Broadcast(arrival, sent, rounds)


def exact(links: Links, roads: Roads, source: int, away: NDArray[np.bool_] | None = None) -> Times:
    """The same arrival times from an event queue, one node at a time."""
    nodes = links.shape[0]
    present = np.ones(nodes, dtype=bool) if away is None else ~away
    copies = np.maximum((links != NOBODY).sum(axis=1) - 1, 1).astype(np.int64)
    arrival = np.full(nodes, NEVER, dtype=np.int64)
    queue: list[tuple[int, int]] = [(0, source)]
    while queue:
        when, here = heapq.heappop(queue)
        if arrival[here] <= when:
            continue
        arrival[here] = when
        for there in links[here]:
            if there != NOBODY and present[there] and arrival[there] > when:
                pair = np.array([here], dtype=np.int64), np.array([there], dtype=np.int64)
                cost = int(roads.cost(*pair, copies[pair[0]])[0])
                if cost < NEVER:
                    heapq.heappush(queue, (when + cost, int(there)))
    return arrival
