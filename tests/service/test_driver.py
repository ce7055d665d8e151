"""The pump: who asks hears when all of it is done; the first events come before the earlier life is resumed."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import trio
import trio.testing

from orderbook.core.messages import Side
from peer.core.events import MandateGranted, Reply, SellAsked, Tick
from peer.core.mandates import MANDATE_TABLE
from peer.node.driver import Driver
from tests.service.test_mandates import ARTICLE, brain_with
from wire.effects import Save
from wire.errors import LocalFault

GRANT = MandateGranted(request=1, mandate=1, side=Side.BUY, article=ARTICLE, price_msat=5, trades=2, until_us=None)


class SlowJournal:
    """Keeps rows when it is allowed to."""

    def __init__(self) -> None:
        self.may = trio.Event()
        self.may.set()
        self.rows: list[Save] = []
        self.broken = False

    async def commit(self, rows: Sequence[Save]) -> None:
        await self.may.wait()
        if self.broken:
            raise LocalFault("disk-full", "the disk is full")
        self.rows += rows

    async def load(self, table: str) -> Mapping[bytes, bytes]:
        raise AssertionError("not here")


class Pump:
    def __init__(self) -> None:
        self.journal = SlowJournal()
        self.done: list[Any] = []
        self.kept: list[Save] = []
        self.brain = brain_with()
        self.driver = Driver(self.brain, self.journal, self.done.append, self.kept.extend)

    def replies(self) -> list[Any]:
        return [one for one in self.done if isinstance(one, Reply)]


async def test_asking_comes_back_when_it_is_durable_and_released() -> None:
    pump = Pump()
    asked = trio.Event()

    async def ask() -> None:
        await pump.driver.ask(GRANT)
        asked.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump.driver.run)
        pump.journal.may = trio.Event()
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        assert not asked.is_set()
        assert pump.replies() == []
        assert pump.kept == []
        pump.journal.may.set()
        await asked.wait()
        assert [one.request for one in pump.replies()] == [1]
        assert [row.table for row in pump.kept] == [MANDATE_TABLE] == [row.table for row in pump.journal.rows]
        nursery.cancel_scope.cancel()


async def test_a_pulse_shows_that_the_pump_turns_and_a_stuck_journal_that_it_does_not() -> None:
    pump = Pump()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump.driver.run)
        await pump.driver.ask(Tick())
        pump.journal.may = trio.Event()
        await pump.driver.tell(GRANT)
        await trio.testing.wait_all_tasks_blocked()
        alive = trio.Event()

        async def pulse() -> None:
            await pump.driver.ask(Tick())
            alive.set()

        nursery.start_soon(pulse)
        await trio.testing.wait_all_tasks_blocked()
        assert not alive.is_set()
        pump.journal.may.set()
        await alive.wait()
        nursery.cancel_scope.cancel()


async def test_a_journal_that_fails_ends_the_pump_and_nothing_is_released() -> None:
    pump = Pump()
    pump.journal.broken = True

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump.driver.run)
            await pump.driver.ask(GRANT)

    with pytest.raises(BaseExceptionGroup) as caught:
        await run()
    assert caught.group_contains(LocalFault)
    assert pump.replies() == []
    assert pump.kept == []


async def test_the_first_events_come_before_the_earlier_life_is_resumed() -> None:
    pump = Pump()
    order: list[str] = []
    handle, resume = pump.brain.handle, pump.brain.resume
    pump.brain.handle = lambda event, now: (order.append(type(event).__name__), handle(event, now))[1]  # type: ignore[method-assign, func-returns-value]
    pump.brain.resume = lambda now: (order.append("resume"), resume(now))[1]  # type: ignore[method-assign, func-returns-value]
    offer = SellAsked(order=3, article=ARTICLE, worker="w", ask_msat=5, slots=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump.driver.run, [offer])
        await pump.driver.ask(GRANT)
        nursery.cancel_scope.cancel()
    assert [one for one in order if one != "Tick"][:3] == [
        "SellAsked",
        "resume",
        "MandateGranted",
    ]  # time may pass before it is told
