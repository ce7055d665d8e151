"""Looks at the chain again and again, and tells only what changed: the tip, and the outputs somebody watches.

A look always tells the tip before the outputs, because a channel judges depths by it. An output that disappears, or whose
block does, is a change like any other.
"""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import trio

from escrow.core.events import OutpointSeen, TipSeen
from wire.errors import LocalFault
from wire.limits import WATCH_INTERVAL_MS, WATCHED_MAX
from wire.ports import Chain, ChainFault, OutInfo, OutPoint, Tip

Deliver: TypeAlias = Callable[[TipSeen | OutpointSeen], Awaitable[None]]


class _Untold:
    """Stands where nothing was told yet."""


_UNTOLD: Final = _Untold()


@dataclass(frozen=True, slots=True)
class WatcherStatistics:
    """How the watcher stands; ``fault`` is the sentence of the last failed look, empty when the last one succeeded."""

    watched: int
    looks: int
    faults: int
    fault: str


class Watcher:
    """Watches one chain. ``watch`` and ``unwatch`` return at once and may be called before ``run``."""

    def __init__(
        self,
        chain: Chain,
        interval_ms: int = WATCH_INTERVAL_MS,
        *,
        still_s: float = math.inf,
    ) -> None:
        self._chain = chain
        self._still_s = still_s
        self.on_fault: Callable[[str, str], None] = lambda code, sentence: None
        """Told code and sentence when a fault begins or becomes another, and two empty texts when it is over."""
        self._code = ""
        self._moved_at = -math.inf
        self._interval_s = interval_ms / 1_000
        self._told: dict[OutPoint, OutInfo | _Untold | None] = {}
        self._tip: Tip | None = None
        self._hurry = trio.Event()
        self._looks = self._faults = 0
        self._fault = ""

    def watch(self, outpoint: OutPoint) -> None:
        """Tell how this output stands, now and at every change. Raises ``LocalFault`` over ``WATCHED_MAX``."""
        if outpoint not in self._told and len(self._told) >= WATCHED_MAX:
            raise LocalFault("watch-full", f"{WATCHED_MAX} outputs are watched already")
        self._told[outpoint] = _UNTOLD
        self._hurry.set()

    def unwatch(self, outpoint: OutPoint) -> None:
        """Nothing more about this output."""
        self._told.pop(outpoint, None)

    def statistics(self) -> WatcherStatistics:
        """Counts since the start."""
        return WatcherStatistics(len(self._told), self._looks, self._faults, self._fault)

    async def run(self, deliver: Deliver, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look until cancelled. A chain that does not answer is counted and asked again."""
        task_status.started()
        while True:
            self._hurry = trio.Event()
            try:
                await self.look(deliver)
                self._say(*self._stillness())
            except ChainFault as fault:
                self._faults += 1
                self._say(fault.code, fault.sentence)
                await trio.sleep(self._interval_s)
            with trio.move_on_after(self._interval_s):
                await self._hurry.wait()

    def _stillness(self) -> tuple[str, str]:
        """A chain without a new block for hours may be cut off, or kept from us; nothing is decided by it, but it is said."""
        still_s = trio.current_time() - self._moved_at
        if self._still_s < still_s < math.inf:
            return "chain-still", f"the chain has shown no new block for {still_s / 3_600:.0f} hours; is its server cut off?"
        return "", ""

    def _say(self, code: str, sentence: str) -> None:
        """Tell when it starts, changes its name and ends; not every time."""
        self._fault = sentence
        if code != self._code:
            self._code = code
            self.on_fault(code, sentence)

    async def look(self, deliver: Deliver) -> None:
        """One look. Raises ``ChainFault``; what was told before it stays told."""
        self._looks += 1
        tip = await self._chain.tip()
        if tip != self._tip:
            feerate = await self._chain.feerate()
            self._tip, self._moved_at = tip, trio.current_time()
            await deliver(TipSeen(height=tip.height, feerate_sat_per_kvb=feerate))
        for outpoint in list(self._told):
            info = await self._chain.outpoint(outpoint)
            if outpoint in self._told and self._told[outpoint] != info:
                self._told[outpoint] = info
                await deliver(OutpointSeen(outpoint=outpoint, info=info))
