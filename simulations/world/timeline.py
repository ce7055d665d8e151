"""The heap of what is to happen. Equal moments happen in the order in which they were planned, so a run can be repeated."""

import heapq
from collections.abc import Callable
from typing import Any

from wire.moments import Instant

Action = Callable[[Any, Any], None]


class Timeline:
    """Virtual time; ``now`` moves only in ``run``."""

    def __init__(self, start: Instant) -> None:
        self.now = start
        self.start = start
        self._heap: list[tuple[int, int, Action, Any, Any]] = []
        self._serial = 0

    def __len__(self) -> int:
        return len(self._heap)

    def at(self, when: int, action: Action, one: Any = None, other: Any = None) -> None:
        """Call ``action(one, other)`` at ``when``, or now if that has passed."""
        self._serial += 1
        heapq.heappush(self._heap, (when if when > self.now else self.now, self._serial, action, one, other))

    def after(self, delay_us: int, action: Action, one: Any = None, other: Any = None) -> None:
        """Call ``action(one, other)`` after a while."""
        self.at(self.now + delay_us, action, one, other)

    def run(self, until: Instant) -> None:
        """Let everything happen that is planned up to ``until``."""
        heap, pop = self._heap, heapq.heappop
        while heap and heap[0][0] <= until:
            when, _, action, one, other = pop(heap)
            self.now = Instant(when)
            action(one, other)
        self.now = until
