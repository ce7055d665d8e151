"""Signatures are verified on the event loop, a few at a time, so that a node answers while it verifies.

A handful is verified at once. Otherwise what waits is verified in slices of a few milliseconds, and between them everything else
that is ready goes first: a frame passes through half a dozen tasks from the socket to the market, and would have to wait for a
slice before each. When much waits, what has been under way longest goes first: it may have waited at other nodes already, and
there may be more before it. A thread beside the loop would use another core where one is free, but it has to take the
interpreter's lock back from the loop for every signature, and starves just when most is to be verified.
"""

from collections.abc import Awaitable, Callable, Sequence
from operator import itemgetter
from typing import Any, Final

import trio
from trio.testing import wait_all_tasks_blocked

from orderbook.core.events import Check, Checked
from orderbook.core.messages import CheckItem
from wire.keys import verify
from wire.limits import VERIFY_BATCH_MAX, VERIFY_PATIENCE_S, VERIFY_SLICE
from wire.moments import Instant

_since: Final = itemgetter(0)


class Checking:
    """Performs ``Check``. ``tell`` waits while the inbox is full, ``tell_nowait`` answers whether there was room."""

    def __init__(self, nursery: trio.Nursery, tell: Callable[[Any], Awaitable[None]], tell_nowait: Callable[[Any], bool]) -> None:
        self._nursery = nursery
        self._tell = tell
        self._tell_nowait = tell_nowait
        self._waiting: list[tuple[Instant, CheckItem]] = []
        self._busy = False

    def __call__(self, effect: Check) -> None:
        """Verify, and tell ``Checked``; never waits."""
        if (
            not self._busy
            and len(effect.items) <= VERIFY_SLICE
            and self._tell_nowait(_checked(effect.items, verified(effect.items)))
        ):
            return
        self._waiting += zip(effect.since, effect.items, strict=True)
        if not self._busy:
            self._busy = True
            self._nursery.start_soon(self._verify_all)

    async def _verify_all(self) -> None:
        while self._waiting:
            self._waiting.sort(key=_since)  # stable, so that nothing overtakes what is as old
            items = [one for _, one in self._waiting[:VERIFY_BATCH_MAX]]
            del self._waiting[:VERIFY_BATCH_MAX]
            found: list[bool] = []
            while len(found) < len(items):
                await _others_first()
                found += verified(items[len(found) : len(found) + VERIFY_SLICE])
            await self._tell(_checked(items, found))
        self._busy = False


async def _others_first() -> None:
    """Let all others run until none of them is ready and nothing more has arrived; but not for long."""
    with trio.move_on_after(VERIFY_PATIENCE_S):
        await wait_all_tasks_blocked()


def verified(items: Sequence[CheckItem]) -> list[bool]:
    """Which signatures are good."""
    return [verify(public, digest, signature) for _, public, digest, signature in items]


def _checked(items: Sequence[CheckItem], found: Sequence[bool]) -> Checked:
    pairs = list(zip(items, found, strict=True))
    return Checked(good=tuple([one.id for one, good in pairs if good]), bad=tuple([one.id for one, good in pairs if not good]))
