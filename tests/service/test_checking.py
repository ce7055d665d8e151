"""Signatures on the event loop: a few at once, many in slices with turns for others between them, the oldest first, none lost."""

from collections.abc import Sequence
from typing import Any

import pytest
import trio

from orderbook.core.events import Check, Checked
from orderbook.core.messages import CheckItem
from peer.node import checking
from peer.node.checking import Checking
from wire.keys import SecretKey
from wire.limits import VERIFY_AT_ONCE_MAX, VERIFY_LINGER_S, VERIFY_PATIENCE_S, VERIFY_SLICE
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


async def test_many_are_verified_in_slices_and_the_loop_goes_on(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    between: list[int] = []
    plain = checking.verified

    def counted(some: Sequence[CheckItem]) -> list[bool]:
        sizes.append(len(some))
        return plain(some)

    async def another() -> None:
        while True:
            between.append(len(sizes))
            await trio.lowlevel.checkpoint()

    monkeypatch.setattr(checking, "verified", counted)
    inbox = Inbox()
    check = Checking(nursery, inbox.tell, inbox.tell_nowait)
    nursery.start_soon(another)
    check(Check(items=items(3 * VERIFY_SLICE - 1), since=since(3 * VERIFY_SLICE - 1)))
    check(Check(items=items(1, first=1_000), since=since(1)))  # while it works even a few wait, or they would overtake
    assert (inbox.told, sizes) == ([], [])
    await inbox.until(3 * VERIFY_SLICE)
    assert sizes == [VERIFY_SLICE] * 3
    assert {1, 2} & set(between)  # whichever of the two goes first in a turn
    names = [name for told in inbox.told for name in told.good]
    assert names == [one.id for one in (*items(3 * VERIFY_SLICE - 1), *items(1, first=1_000))]


async def test_a_slice_that_is_not_full_is_waited_for(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "VERIFY_LINGER_S", 60.0)
    inbox = Inbox()
    check = Checking(nursery, inbox.tell, inbox.tell_nowait)
    check(Check(items=items(VERIFY_SLICE - 2), since=since(VERIFY_SLICE - 2)))
    await trio.testing.wait_all_tasks_blocked()
    check(Check(items=(item(1, good=False),), since=since(1)))
    await trio.testing.wait_all_tasks_blocked()
    assert inbox.told == []
    check(Check(items=items(1, first=1_000), since=since(1)))
    await inbox.until(VERIFY_SLICE)
    (told,) = inbox.told
    assert (len(told.good), told.bad) == (VERIFY_SLICE - 1, (item(1).id,))


async def test_but_not_for_ever(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    inbox = Inbox()
    check = Checking(nursery, inbox.tell, inbox.tell_nowait)
    began = trio.current_time()
    check(Check(items=items(VERIFY_AT_ONCE_MAX + 1), since=since(VERIFY_AT_ONCE_MAX + 1)))
    assert inbox.told == []
    await inbox.until(VERIFY_AT_ONCE_MAX + 1)
    assert 0 < trio.current_time() - began <= VERIFY_LINGER_S + VERIFY_PATIENCE_S
    check(Check(items=items(VERIFY_AT_ONCE_MAX), since=since(VERIFY_AT_ONCE_MAX)))
    assert len(inbox.told) == 2, "these need not wait"


async def test_what_passes_from_task_to_task_is_through_before_the_next_slice(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    seen: list[int] = []
    plain = checking.verified
    doors = [trio.Event() for _ in range(6)]

    def counted(some: Sequence[CheckItem]) -> list[bool]:
        sizes.append(len(some))
        if len(sizes) == 1:
            doors[0].set()
        return plain(some)

    async def hand_on(number: int) -> None:
        await doors[number].wait()
        seen.append(len(sizes))
        if number + 1 < len(doors):
            doors[number + 1].set()

    monkeypatch.setattr(checking, "VERIFY_PATIENCE_S", 60.0)
    monkeypatch.setattr(checking, "verified", counted)
    for number in range(len(doors)):
        nursery.start_soon(hand_on, number)
    inbox = Inbox()
    check = Checking(nursery, inbox.tell, inbox.tell_nowait)
    check(Check(items=items(2 * VERIFY_SLICE), since=since(2 * VERIFY_SLICE)))
    await inbox.until(2 * VERIFY_SLICE)
    assert seen == [1] * len(doors)


async def test_what_was_told_is_in_the_book_before_more_is_verified(nursery: trio.Nursery) -> None:
    inbox = Inbox()
    check = Checking(nursery, inbox.tell, inbox.tell_nowait)
    check(Check(items=(*items(VERIFY_SLICE), item(1, good=False)), since=since(VERIFY_SLICE + 1)))
    await inbox.until(VERIFY_SLICE + 1)
    assert [(len(one.good), len(one.bad)) for one in inbox.told] == [(VERIFY_SLICE, 0), (0, 1)]


async def test_what_has_been_under_way_longest_goes_first(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "VERIFY_AT_ONCE_MAX", 0)
    monkeypatch.setattr(checking, "VERIFY_SLICE", 2)
    inbox = Inbox()
    check = Checking(nursery, inbox.tell, inbox.tell_nowait)
    young, old = items(64), items(4, first=1_000)
    check(Check(items=(*young, *old), since=(*since(len(young), 9), *since(2, 8), *since(2, 7))))
    await inbox.until(68)
    assert [name for one in inbox.told for name in one.good] == [one.id for one in (*old[2:], *old[:2], *young)]
