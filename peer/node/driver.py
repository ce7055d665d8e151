"""The pump: one bounded inbox, the brain, the journal, the performer. The rule of ``wire.effects`` is kept here alone."""

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import trio

from peer.core.brain import Brain, saves_first
from peer.core.events import Tick
from wire.effects import Save
from wire.limits import INBOX_EVENTS
from wire.moments import SECOND, Instant
from wire.ports import Journal

EVENTS_PER_TURN = 256


def wall_clock() -> Instant:
    """Now, in microseconds since the Unix epoch."""
    return Instant(time.time_ns() // 1_000)


def relax_collector() -> None:
    """Have the garbage collector look less often: once per process, when everything is imported.

    Orders are kept by the ten thousand and hold no cycles, so what the collector looks through again and again it never finds
    anything in; at Python's thresholds that was a sixteenth of a busy node's time. Cycles are still found, a little later.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 1_000)


@dataclass(frozen=True, slots=True, eq=False)
class _Awaited:
    """An event whose teller waits until all of it is done."""

    event: Any
    done: trio.Event


class Driver:
    """Feeds the brain and performs what it asks. ``perform`` must return at once: what takes time starts a task. ``kept`` hears
    of rows once they are durable.
    """

    def __init__(
        self, brain: Brain, journal: Journal, perform: Callable[[Any], None], kept: Callable[[Sequence[Save]], None]
    ) -> None:
        self._brain = brain
        self._journal = journal
        self._perform = perform
        self._kept = kept
        self._send, self._receive = trio.open_memory_channel[Any](INBOX_EVENTS)
        self._last = Instant(0)
        self.handled = 0
        self.dropped = 0

    def now(self) -> Instant:
        """Now, never earlier than before: a clock set back must not wake the past."""
        self._last = max(self._last, wall_clock())
        return self._last

    async def tell(self, event: Any) -> None:
        """Put an event in the inbox; waits while it is full, and only then. For whoever can wait."""
        try:
            self._send.send_nowait(event)
        except trio.WouldBlock:
            await self._send.send(event)

    def tell_nowait(self, event: Any) -> bool:
        """Put an event in the inbox, or drop it and say so. For readers, who must never wait."""
        try:
            self._send.send_nowait(event)
        except trio.WouldBlock:
            self.dropped += 1
            return False
        return True

    async def ask(self, event: Any) -> None:
        """Tell an event, and wait until it is handled, its rows are durable and its effects have been released."""
        awaited = _Awaited(event, trio.Event())
        await self._send.send(awaited)
        await awaited.done.wait()

    @property
    def waiting(self) -> int:
        """Events in the inbox."""
        return self._send.statistics().current_buffer_used

    async def run(self, first: Sequence[Any] = ()) -> None:
        """Handle events until cancelled; ``first`` are those that our earlier life is resumed upon.

        Raises ``LocalFault`` when the journal fails: then nothing more may be promised.
        """
        for event in first:
            await self._release(self._brain.handle(event, self.now()))
        await self._release(self._brain.resume(self.now()))
        deadline = self._brain.next_deadline()
        while True:
            deadline = await self._turn(await self._wait(deadline))

    async def _wait(self, deadline: Instant | None) -> list[Any]:
        wait_s = (deadline - self.now()) / SECOND if deadline is not None else float("inf")
        with trio.move_on_after(max(0.0, wait_s)):
            events = [await self._receive.receive()]
            while len(events) < EVENTS_PER_TURN:
                try:
                    events.append(self._receive.receive_nowait())
                except trio.WouldBlock:
                    break
            return events
        return [Tick()]

    async def _turn(self, events: list[Any]) -> Instant | None:
        """Handle events; returns when the next is due at the latest."""
        effects: list[Any] = []
        awaited: list[_Awaited] = []
        now = self.now()  # all of them had come by then
        for event in events:
            if isinstance(event, _Awaited):
                awaited.append(event)
                event = event.event  # noqa: PLW2901 - what is inside
            effects.extend(self._brain.handle(event, now))
        self.handled += len(events)
        deadline = self._brain.next_deadline()
        if deadline is not None and deadline <= self.now():
            effects.extend(self._brain.handle(Tick(), self.now()))
            deadline = self._brain.next_deadline()
        await self._release(tuple(effects))
        for one in awaited:
            one.done.set()
        return deadline

    async def _release(self, effects: tuple[Any, ...]) -> None:
        rows, others = saves_first(effects)
        if rows:
            await self._journal.commit(rows)
            self._kept(rows)
        for effect in others:
            self._perform(effect)
