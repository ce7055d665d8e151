"""Signatures are verified beside the event loop, so that a node answers while it verifies.

A handful is verified on the spot, which costs less than handing it over. Otherwise everything that waits goes to a thread in one
call, and what comes meanwhile waits for the next. When more waits than goes in one call, what has been under way longest goes
first: it may have waited at other nodes already, and there may be more before it. One thread is enough: libsecp256k1 works
without the interpreter's lock, so the thread verifies about as fast as the event loop can decode; more threads would only
contend for that lock.
"""

from collections.abc import Awaitable, Callable
from operator import itemgetter
from typing import Any, Final

import trio

from orderbook.core.events import Check, Checked
from orderbook.core.messages import CheckItem
from wire.keys import verify
from wire.limits import VERIFY_BATCH_MAX, VERIFY_BATCH_MIN
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
        if not self._busy and len(effect.items) < VERIFY_BATCH_MIN and self._tell_nowait(verified(effect.items)):
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
            await self._tell(await trio.to_thread.run_sync(verified, items))
        self._busy = False


def verified(items: tuple[CheckItem, ...] | list[CheckItem]) -> Checked:
    """Which signatures are good, and which are not."""
    good: list[bytes] = []
    bad: list[bytes] = []
    for name, public, digest, signature in items:
        (good if verify(public, digest, signature) else bad).append(name)
    return Checked(good=tuple(good), bad=tuple(bad))
