"""Signatures are verified on the event loop, a few at a time, so that a node answers while it verifies.

A handful is verified at once. Otherwise what waits is verified in slices of a few milliseconds, for signatures that are verified
together cost less (``wire.batch``); a slice that is not full is waited for, but not for long. Before each, everything else that
is ready goes first: a frame passes through half a dozen tasks from the socket to the market, and would have to wait for a slice
before each. When much waits, what has been under way longest goes first: it may have waited at other nodes already, and there
may be more before it. A thread beside the loop would use another core where one is free, but it has to take the interpreter's
lock back from the loop for every call, and starves just when most is to be verified.
"""

import secrets
from collections.abc import Awaitable, Callable, Sequence
from operator import itemgetter
from typing import Any, Final

import trio
from trio.testing import wait_all_tasks_blocked

from orderbook.core.events import Check, Checked
from orderbook.core.messages import CheckItem
from wire.batch import DICE_BYTES, verify_all
from wire.limits import VERIFY_AT_ONCE_MAX, VERIFY_LINGER_S, VERIFY_PATIENCE_S, VERIFY_SLICE
from wire.moments import Instant

_since: Final = itemgetter(0)


class Checking:
    """Performs ``Check``. ``tell`` waits while the inbox is full, ``tell_nowait`` answers whether there was room."""

    def __init__(self, nursery: trio.Nursery, tell: Callable[[Any], Awaitable[None]], tell_nowait: Callable[[Any], bool]) -> None:
        self._nursery = nursery
        self._tell = tell
        self._tell_nowait = tell_nowait
        self._waiting: list[tuple[Instant, CheckItem]] = []
        self._enough = trio.Event()
        self._busy = False

    def __call__(self, effect: Check) -> None:
        """Verify, and tell ``Checked``; never waits."""
        if (
            not self._busy
            and len(effect.items) <= VERIFY_AT_ONCE_MAX
            and self._tell_nowait(_checked(effect.items, verified(effect.items)))
        ):
            return
        self._waiting += zip(effect.since, effect.items, strict=True)
        if len(self._waiting) >= VERIFY_SLICE:
            self._enough.set()
        if not self._busy:
            self._busy = True
            self._nursery.start_soon(self._verify_all)

    async def _verify_all(self) -> None:
        while self._waiting:
            await self._slice_full()
            await _others_first()
            self._waiting.sort(key=_since)  # stable, so that nothing overtakes what is as old
            items = [one for _, one in self._waiting[:VERIFY_SLICE]]
            del self._waiting[:VERIFY_SLICE]
            await self._tell(_checked(items, verified(items)))
        self._busy = False

    async def _slice_full(self) -> None:
        """Let a slice fill up, but not for long."""
        if len(self._waiting) < VERIFY_SLICE:
            self._enough = trio.Event()
            with trio.move_on_after(VERIFY_LINGER_S):
                await self._enough.wait()


async def _others_first() -> None:
    """Let all others run until none of them is ready and nothing more has arrived; but not for long."""
    with trio.move_on_after(VERIFY_PATIENCE_S):
        await wait_all_tasks_blocked()


def verified(items: Sequence[CheckItem]) -> list[bool]:
    """Which signatures are good."""
    return verify_all([one[1:] for one in items], secrets.token_bytes(DICE_BYTES * len(items)))


def _checked(items: Sequence[CheckItem], found: Sequence[bool]) -> Checked:
    pairs = list(zip(items, found, strict=True))
    return Checked(good=tuple([one.id for one, good in pairs if good]), bad=tuple([one.id for one, good in pairs if not good]))
