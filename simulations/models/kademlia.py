"""Iterative Kademlia look-ups over up to a million nodes, all look-ups of a batch at once.

The model. Node ids are random 64-bit numbers, kept sorted; a k-bucket is then a range of that array, and the k members that a
node keeps of it are spread over the range by a hash of (node, bucket, slot), so that no table is ever stored. A share ``stale``
of all nodes is gone but still stands in tables: a query to one times out. A share ``missing`` of the places in a bucket is
empty.

A look-up keeps the ``width`` nearest candidates it has heard of, and up to ``alpha`` queries under way, always to the nearest
that were not asked, among its k nearest. Answers come after a trip there and back, each with the k nearest to the target that
the answering node's tables hold; a time-out frees the place of its query. So it is the quick that lead the way, not those with
the fewest hops. It ends when the ``beta`` nearest candidates that are not silent have answered. The hop of a candidate is one
more than that of the node that first named it; those in the searcher's own table are at hop 1. All look-ups of a batch take
their next answer together.

Measured per look-up: the hop at which the last of the k nearest was named (0: the searcher knew them all), the deepest hop
asked, queries, time-outs, time, and how many of the k nearest were found.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.uint64]
_BITS: Final = 64
_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_FAR: Final = np.uint64((1 << 64) - 1)
_LATE: Final = np.int64(1 << 60)
_NEW, _PENDING, _ANSWERED, _SILENT = 0, 1, 2, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The protocol and its surroundings. ``stale`` and ``missing`` are shares, times in milliseconds."""

    k: int = 20
    alpha: int = 3
    beta: int = 3
    stale: float = 0.0
    missing: float = 0.0
    least_ms: float = 40.0
    most_ms: float = 130.0
    timeout_ms: float = 5_000.0


@dataclass(frozen=True, slots=True)
class Walks:
    """One value per look-up. ``nearest`` is how many of the k nearest live nodes were found."""

    discovered_hops: NDArray[np.int32]
    total_hops: NDArray[np.int32]
    queries: NDArray[np.int32]
    timeouts: NDArray[np.int32]
    time_us: NDArray[np.int64]
    nearest: NDArray[np.int32]


def _mix(values: Ids) -> Ids:
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _shared_bits(one: Ids, other: Ids) -> NDArray[np.int64]:
    """Length of the common prefix; 64 for equal ids. Exact: by halving, not by floating point."""
    rest = one ^ other
    bits = np.zeros(rest.shape, dtype=np.int64)
    for step in (32, 16, 8, 4, 2, 1):
        clear = (rest >> np.uint64(_BITS - step)) == 0
        bits += np.where(clear, step, 0)
        rest = np.where(clear, rest << np.uint64(step), rest)
    bits += rest == 0
    return bits


def _random_ids(count: int, rng: np.random.Generator) -> Ids:
    return rng.integers(0, _FAR, size=count, dtype=np.uint64, endpoint=True)


class Network:
    """The nodes of one network, live and gone."""

    def __init__(self, live: int, rules: Rules, rng: np.random.Generator) -> None:
        self.rules = rules
        total = round(live / (1 - rules.stale))
        ids = np.unique(_random_ids(total, rng))
        self.ids: Ids = ids
        self.gone = rng.random(ids.size) < rules.stale
        self.live = np.flatnonzero(~self.gone)
        self._salt = np.uint64(rng.integers(1 << 62))
        self._delay_us = (round(rules.least_ms * 1_000), round(rules.most_ms * 1_000))

    def prefix_range(self, targets: Ids, bits: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positions [low, high) of the nodes that share the first ``bits`` bits (at most 63) with each target."""
        rest = _FAR >> np.minimum(bits, _BITS - 1).astype(np.uint64)
        return np.searchsorted(self.ids, targets & ~rest, "left"), np.searchsorted(self.ids, targets | rest, "right")

    def answers(self, nodes: NDArray[np.int64], targets: Ids) -> NDArray[np.int64]:
        """For each node the positions of the k nodes nearest to its target among those it keeps: [n, k], or -1.

        First the bucket in which the target falls, then what shares as many bits with the target as the node itself does, then
        one bit less, and so on, until there are k or no bits left.
        """
        k = self.rules.k
        level = _shared_bits(self.ids[nodes], targets)
        low, high = self.prefix_range(targets, level + 1)
        parts = [self._pick(nodes, level, low, high)]
        count = (parts[0] >= 0).sum(axis=1)
        rows = np.flatnonzero((count < k) & (level >= 0))
        while rows.size:
            outer_low, outer_high = self.prefix_range(targets[rows], level[rows])
            # A range without its half around the target is the other half.
            below = low[rows] > outer_low
            first, last = np.where(below, outer_low, high[rows]), np.where(below, low[rows], outer_high)
            part = np.full((nodes.size, k), -1, dtype=np.int64)
            part[rows] = self._pick(nodes[rows], level[rows] + _BITS, first, last)
            parts.append(part)
            count += (part >= 0).sum(axis=1)
            low[rows], high[rows] = outer_low, outer_high
            level[rows] -= 1
            rows = rows[(count[rows] < k) & (level[rows] >= 0)]
        named = np.concatenate(parts, axis=1)
        if len(parts) == 1:
            return named
        far = np.where(named < 0, _FAR, self.ids[named] ^ targets[:, None])
        nearest: NDArray[np.int64] = np.take_along_axis(named, np.argsort(far, axis=1, kind="stable")[:, :k], axis=1)
        return nearest

    def _pick(
        self, nodes: NDArray[np.int64], bucket: NDArray[np.int64], low: NDArray[np.int64], high: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """The k members that ``nodes`` keep of ranges: all of a small range, one of each k-th part of a large one."""
        k = self.rules.k
        size = (high - low)[:, None]
        slot = np.arange(k, dtype=np.int64)[None, :]
        with np.errstate(over="ignore"):
            drawn = _mix(
                nodes.astype(np.uint64)[:, None] * _GOLDEN
                + (bucket * k).astype(np.uint64)[:, None]
                + slot.astype(np.uint64)
                + self._salt
            )
        begin, end = slot * size // k, (slot + 1) * size // k
        span = np.maximum(end - begin, 1).astype(np.uint64)
        place = np.where(size > k, begin + (drawn % span).astype(np.int64), slot)
        picked = low[:, None] + place
        picked[(slot >= size) & (size <= k)] = -1
        if self.rules.missing:
            bar = np.uint64(min((1 << 64) - 1, int(self.rules.missing * (1 << 64))))
            picked[_mix(drawn ^ _GOLDEN) < bar] = -1
        return picked

    def trip_us(self, one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
        """There and back."""
        least, most = self._delay_us
        with np.errstate(over="ignore"):
            drawn = _mix(
                np.minimum(one, other).astype(np.uint64) * _GOLDEN + np.maximum(one, other).astype(np.uint64) + self._salt
            )
        there: NDArray[np.int64] = least + (drawn % np.uint64(most - least + 1)).astype(np.int64)
        return there * 2

    def nearest(self, targets: Ids) -> NDArray[np.int64]:
        """Positions of the k nearest live nodes of each target: [n, k]. The smallest subtree around it that holds k has them
        all.
        """
        k = self.rules.k
        live_ids = self.ids[self.live]
        best = np.empty((targets.size, k), dtype=np.int64)
        for row, target in enumerate(targets):
            for bits in range(max(0, (live_ids.size // k).bit_length()), -1, -1):
                rest = _FAR >> np.uint64(bits) if bits < _BITS else np.uint64(0)
                low = int(np.searchsorted(live_ids, target & ~rest))
                high = int(np.searchsorted(live_ids, target | rest, "right"))
                if high - low >= k:
                    break
            best[row] = self.live[np.argpartition(live_ids[low:high] ^ target, k - 1)[:k] + low]
        return best


def look_up(network: Network, count: int, rng: np.random.Generator, width: int = 64) -> Walks:
    """``count`` look-ups of random targets from random live nodes."""
    searchers = network.live[rng.integers(0, network.live.size, size=count)]
    return _Batch(network, searchers, _random_ids(count, rng), width).run()


class _Batch:
    """The state of all look-ups: candidates in ascending distance, with whether and how they were asked."""

    def __init__(self, network: Network, searchers: NDArray[np.int64], targets: Ids, width: int) -> None:
        self.network, self.searchers, self.targets, self.width = network, searchers, targets, width
        count = targets.size
        self.place = np.full((count, width), -1, dtype=np.int64)
        self.far = np.full((count, width), _FAR, dtype=np.uint64)
        self.asked = np.full((count, width), _NEW, dtype=np.int8)
        self.due_us = np.zeros((count, width), dtype=np.int64)
        self.hop = np.zeros((count, width), dtype=np.int32)
        self.queries, self.timeouts = np.zeros(count, dtype=np.int32), np.zeros(count, dtype=np.int32)
        self.total = np.zeros(count, dtype=np.int32)
        self.now_us = np.zeros(count, dtype=np.int64)
        self.goal = network.nearest(targets)
        self.found_hop = np.full((count, network.rules.k), -1, dtype=np.int32)

    def run(self) -> Walks:
        """Until every look-up has ended."""
        self._hear(np.arange(self.targets.size), self.network.answers(self.searchers, self.targets), np.zeros_like(self.total))
        active = np.arange(self.targets.size)
        while active.size:
            active = self._send(active)
            if active.size:
                self._receive(active)
        found = self.found_hop >= 0
        return Walks(
            self.found_hop.max(axis=1).astype(np.int32),
            self.total,
            self.queries,
            self.timeouts,
            self.now_us,
            found.sum(axis=1).astype(np.int32),
        )

    def _send(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Fill the free places for queries; returns the look-ups that go on."""
        rules, network = self.network.rules, self.network
        asked = self.asked[rows]
        usable = (self.place[rows] >= 0) & (asked != _SILENT)
        rank = np.cumsum(usable, axis=1)
        open_near = usable & (rank <= rules.beta) & (asked != _ANSWERED)
        going = open_near.any(axis=1)
        waiting = usable & (asked == _NEW) & (rank <= rules.k) & going[:, None]
        room = rules.alpha - (asked == _PENDING).sum(axis=1)
        where, column = np.nonzero(waiting & (np.cumsum(waiting, axis=1) <= room[:, None]))
        row = rows[where]
        nodes = self.place[row, column]
        gone = network.gone[nodes]
        trip = np.where(gone, round(rules.timeout_ms * 1_000), network.trip_us(self.searchers[row], nodes))
        self.asked[row, column] = _PENDING
        self.due_us[row, column] = self.now_us[row] + trip
        np.add.at(self.queries, row, 1)
        left: NDArray[np.int64] = rows[going]
        return left

    def _receive(self, rows: NDArray[np.int64]) -> None:
        """The next answer or time-out of every look-up."""
        due = np.where(self.asked[rows] == _PENDING, self.due_us[rows], _LATE)
        column = due.argmin(axis=1)
        self.now_us[rows] = np.maximum(self.now_us[rows], due[np.arange(rows.size), column])
        nodes, hops = self.place[rows, column], self.hop[rows, column]
        gone = self.network.gone[nodes]
        self.asked[rows, column] = np.where(gone, _SILENT, _ANSWERED)
        self.timeouts[rows] += gone
        live = rows[~gone]
        self.total[live] = np.maximum(self.total[live], hops[~gone])
        if live.size:
            self._hear(live, self.network.answers(nodes[~gone], self.targets[live]), hops[~gone])

    def _hear(self, rows: NDArray[np.int64], heard: NDArray[np.int64], hops: NDArray[np.int32]) -> None:
        """Merge what one node of hop ``hops`` named into the candidates; each row comes once."""
        known = (heard[:, :, None] == self.goal[rows][:, None, :]).any(axis=1)
        fresh = known & (self.found_hop[rows] < 0)
        self.found_hop[rows] = np.where(fresh, hops[:, None], self.found_hop[rows])
        nobody = heard < 0
        far = self.network.ids[heard] ^ self.targets[rows][:, None]
        far[nobody] = _FAR
        place = np.concatenate([self.place[rows], np.where(nobody, -1, heard)], axis=1)
        far = np.concatenate([self.far[rows], far], axis=1)
        due = np.concatenate([self.due_us[rows], np.zeros(heard.shape, dtype=np.int64)], axis=1)
        asked = np.concatenate([self.asked[rows], np.zeros(heard.shape, dtype=np.int8)], axis=1)
        hop = np.concatenate([self.hop[rows], np.broadcast_to(hops[:, None] + 1, heard.shape).astype(np.int32)], axis=1)
        order = np.argsort(far, axis=1, kind="stable")
        far = np.take_along_axis(far, order, axis=1)
        again = np.zeros(far.shape, dtype=bool)
        again[:, 1:] = far[:, 1:] == far[:, :-1]
        far[again] = _FAR
        second = np.argsort(far, axis=1, kind="stable")[:, : self.width]
        order = np.take_along_axis(order, second, axis=1)
        self.far[rows] = np.take_along_axis(far, second, axis=1)
        self.place[rows] = np.where(self.far[rows] == _FAR, -1, np.take_along_axis(place, order, axis=1))
        self.asked[rows] = np.take_along_axis(asked, order, axis=1)
        self.hop[rows] = np.take_along_axis(hop, order, axis=1)
        self.due_us[rows] = np.take_along_axis(due, order, axis=1)
