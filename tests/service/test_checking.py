"""Signatures beside the event loop: a few at once on the spot, many in one call of a thread, none lost when the inbox is full."""

import threading
from typing import Any

import pytest
import trio
import trio.testing

from orderbook.core.events import Check, Checked
from orderbook.core.messages import CheckItem
from peer.node import checking
from peer.node.checking import Checking
from wire.keys import SecretKey
from wire.limits import VERIFY_BATCH_MAX, VERIFY_BATCH_MIN
from wire.moments import Instant

KEY = SecretKey(b"\x07" * 32)


def item(number: int, *, good: bool = True) -> CheckItem:
    digest = number.to_bytes(32, "big")
    signature = KEY.sign(digest if good else bytes(32))
    return CheckItem(id=digest, public=KEY.public, digest=digest, signature=signature)


def items(count: int, first: int = 1) -> tuple[CheckItem, ...]:
    """The same signature often, under different names: only the first of a test is computed."""
    one = item(1)
    return tuple(
        CheckItem(id=number.to_bytes(32, "big"), public=one.public, digest=one.digest, signature=one.signature)
        for number in range(first, first + count)
    )


class Inbox:
    """Takes what is told; ``full`` is how often there is no room for whoever does not wait."""

    def __init__(self, full: int = 0) -> None:
        self.full = full
        self.told: list[Checked] = []
        self.came = trio.Event()

    def tell_nowait(self, event: Any) -> bool:
        if self.full:
            self.full -= 1
            return False
        self._take(event)
        return True

    async def tell(self, event: Any) -> None:
        await trio.lowlevel.checkpoint()
        self._take(event)

    def _take(self, event: Any) -> None:
        self.told.append(event)
        self.came.set()

    async def until(self, count: int) -> None:
        while sum(len(one.good) + len(one.bad) for one in self.told) < count:
            self.came = trio.Event()
            await self.came.wait()


def since(count: int, moment: int = 7) -> tuple[Instant, ...]:
    return (Instant(moment),) * count


async def test_a_few_are_judged_on_the_spot(nursery: trio.Nursery) -> None:
    inbox = Inbox()
    check = Checking(nursery, inbox.tell, inbox.tell_nowait)
    good, bad = item(1), item(2, good=False)
    check(Check(items=(good, bad), since=since(2)))
    assert inbox.told == [Checked(good=(good.id,), bad=(bad.id,))]


async def test_with_a_full_inbox_nothing_is_lost(nursery: trio.Nursery) -> None:
    inbox = Inbox(full=1)
    check = Checking(nursery, inbox.tell, inbox.tell_nowait)
    check(Check(items=(item(1),), since=since(1)))
    assert inbox.told == []
    await inbox.until(1)
    assert inbox.told == [Checked(good=(item(1).id,))]


async def test_many_go_to_one_thread_and_the_loop_goes_on(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []
    may_go_on, plain = threading.Event(), checking.verified

    def slow(some: Any) -> Checked:
        calls.append((threading.get_ident(), len(some)))
        may_go_on.wait()
        return plain(some)

    monkeypatch.setattr(checking, "verified", slow)
    inbox = Inbox()
    check = Checking(nursery, inbox.tell, inbox.tell_nowait)
    check(Check(items=items(VERIFY_BATCH_MIN), since=since(VERIFY_BATCH_MIN)))
    while not calls:
        await trio.testing.wait_all_tasks_blocked()
    check(Check(items=items(1, first=1_000), since=since(1)))  # while the thread works even a few wait, or they would overtake
    check(Check(items=items(VERIFY_BATCH_MAX, first=2_000), since=since(VERIFY_BATCH_MAX)))
    await trio.testing.wait_all_tasks_blocked()  # the thread still works, and here we are
    assert inbox.told == []
    may_go_on.set()
    await inbox.until(VERIFY_BATCH_MIN + 1 + VERIFY_BATCH_MAX)
    assert [count for _, count in calls] == [VERIFY_BATCH_MIN, VERIFY_BATCH_MAX, 1]
    assert threading.get_ident() not in {thread for thread, _ in calls}
    names = [name for one in inbox.told for name in one.good]
    assert names == [one.id for one in (*items(VERIFY_BATCH_MIN), *items(1, first=1_000), *items(VERIFY_BATCH_MAX, first=2_000))]


async def test_what_has_been_under_way_longest_goes_first(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "VERIFY_BATCH_MAX", 2)
    inbox = Inbox()
    check = Checking(nursery, inbox.tell, inbox.tell_nowait)
    young, old = items(VERIFY_BATCH_MIN - 2), items(4, first=1_000)
    check(Check(items=(*young, *old), since=(*since(len(young), 9), *since(2, 8), *since(2, 7))))
    await inbox.until(VERIFY_BATCH_MIN + 2)
    assert [name for one in inbox.told for name in one.good] == [one.id for one in (*old[2:], *old[:2], *young)]
