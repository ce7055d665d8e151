"""Drives ``dht.core.directory`` over a DHT: a clock, a nursery, and no decisions."""

import time
from collections import Counter
from collections.abc import Callable
from typing import assert_never

import trio

from dht.core.directory import Directory
from dht.core.events import (
    Effect,
    Event,
    Failed,
    Find,
    Found,
    Meet,
    Part,
    Provide,
    Provided,
    Tick,
)
from wire.effects import Count
from wire.errors import BitwrkError
from wire.keys import PeerId
from wire.limits import PROVIDERS_MAX
from wire.moments import SECOND, Instant
from wire.ports import Providers

_SLEEP_LEAST_S = 0.01
_LOOK_UP_S = 5.0
"""A sleep is never longer, so that a corrected clock is noticed."""


def wall_clock() -> Instant:
    """Now, from the machine's clock."""
    return Instant(time.time_ns() // 1_000)


class DirectoryService:
    """Runs a ``Directory``. ``meet(peer, article)`` is called when a neighbour is wanted, ``part(peer)`` when one is let go; tell
    the outcome with ``tell``.
    """

    def __init__(
        self,
        directory: Directory,
        providers: Providers,
        meet: Callable[[PeerId, str], None],
        part: Callable[[PeerId], None] = lambda _: None,
        clock: Callable[[], Instant] = wall_clock,
    ) -> None:
        self._directory = directory
        self._providers = providers
        self._meet = meet
        self._part = part
        self._clock = clock
        self._counters: Counter[str] = Counter()
        self._news = trio.Event()
        self._early: list[Event] = []
        self._nursery: trio.Nursery | None = None

    def statistics(self) -> dict[str, int]:
        """What was announced, looked for, met and what failed."""
        return dict(sorted(self._counters.items()))

    def tell(self, event: Event) -> None:
        """Hand an event to the directory; before ``run`` has started it is kept until then."""
        if self._nursery is None:
            self._early.append(event)
            return
        self._perform(self._directory.handle(event, self._clock()), self._nursery)
        self._news.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            early, self._early = self._early, []
            for event in early:
                self.tell(event)
            task_status.started()
            try:
                while True:
                    self._news = trio.Event()
                    with trio.move_on_after(self._sleep_s()):
                        await self._news.wait()
                    self.tell(Tick())
                    await trio.lowlevel.checkpoint()
            finally:
                self._nursery = None

    def _sleep_s(self) -> float:
        deadline = self._directory.next_deadline()
        if deadline is None:
            return _LOOK_UP_S
        return min(max(_SLEEP_LEAST_S, (deadline - self._clock()) / SECOND), _LOOK_UP_S)

    def _perform(self, effects: tuple[Effect, ...], nursery: trio.Nursery) -> None:
        for effect in effects:
            match effect:
                case Provide(key=key):
                    nursery.start_soon(self._provide, key)
                case Find(key=key):
                    nursery.start_soon(self._find, key)
                case Meet(peer=peer, article=article):
                    self._counters["meet"] += 1
                    self._meet(peer, article)
                case Part(peer=peer):
                    self._counters["part"] += 1
                    self._part(peer)
                case Count(code=code, amount=amount):
                    self._counters[code] += amount
                case _:
                    assert_never(effect)

    async def _provide(self, key: bytes) -> None:
        try:
            await self._providers.provide(key)
        except BitwrkError:
            self.tell(Failed(key=key, announcing=True))
        else:
            self._counters["announced"] += 1
            self.tell(Provided(key=key))

    async def _find(self, key: bytes) -> None:
        try:
            peers = await self._providers.find(key, PROVIDERS_MAX)
        except BitwrkError:
            self.tell(Failed(key=key, announcing=False))
        else:
            self._counters["looked"] += 1
            self.tell(Found(key=key, peers=tuple(peers)))
