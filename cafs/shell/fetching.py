"""The receiving machine on one stream, with the store behind it."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import cast

import trio

from cafs.core.manifest import Content
from cafs.core.receiver import (
    Begin,
    Effect,
    Event,
    Keep,
    Kept,
    LocalFailure,
    Progressed,
    Receiver,
    Sort,
    Sorted,
    Verified,
    Verify,
)
from cafs.core.transfer import Ended, Progress, Send
from cafs.shell.line import Line, now
from cafs.shell.store import Inlet, Store
from wire.errors import BitwrkError, InvariantBroken


class Fetching:
    """One attempt to fetch one content. ``run`` returns it or raises what ended the attempt."""

    def __init__(
        self, line: Line, store: Store, content: bytes, ticket: bytes, progress: Callable[[Progress], None] | None
    ) -> None:
        self._line = line
        self._store = store
        self._progress = progress
        self._machine = Receiver(content, ticket)
        self._ended: Ended | None = None
        self._inlet: Inlet | None = None

    async def run(self) -> Content:
        """Drive the machine to its end. Raises the named errors of ``cafs.core.faults`` and ``StreamClosed``."""
        async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
            nursery.start_soon(self._line.read)
            event: Event = Begin()
            while True:
                for effect in self._machine.handle(event, now()):
                    await self._perform(effect, nursery, stack)
                if self._ended is not None:
                    break
                event = cast(Event, await self._line.next_event(self._machine.next_deadline()))
            nursery.cancel_scope.cancel()
        if self._ended.error is not None or self._ended.content is None:
            raise self._ended.error or InvariantBroken("no-end", "a transfer ended without content and without a reason")
        return self._ended.content

    async def _perform(self, effect: Effect, nursery: trio.Nursery, stack: AsyncExitStack) -> None:
        match effect:
            case Send():
                await self._line.send(effect.message)
            case Keep():
                nursery.start_soon(self._keep, effect)
            case Progressed():
                if self._progress is not None:
                    self._progress(effect.progress)
            case Ended():
                self._ended = effect
            case Sort():
                await self._answer(lambda: self._sort(effect, stack))
            case Verify():
                await self._answer(self._verify)

    async def _answer(self, work: Callable[[], Awaitable[Event]]) -> None:
        try:
            answer = await work()
        except BitwrkError as error:
            answer = LocalFailure(error=error)
        self._line.put(answer)

    async def _sort(self, effect: Sort, stack: AsyncExitStack) -> Event:
        if self._inlet is None:
            self._inlet = await stack.enter_async_context(self._store.receiving(self._machine.content, effect.root))
        held, bodies = await self._inlet.claim(effect.blobs, bodies=effect.bodies)
        return Sorted(held=held, bodies=bodies)

    async def _keep(self, effect: Keep) -> None:
        inlet = self._inlet
        if inlet is None:
            raise InvariantBroken("driver-order", "nothing is kept before it was sorted")

        async def work() -> Event:
            await inlet.keep(effect.blobs)
            return Kept()

        await self._answer(work)

    async def _verify(self) -> Event:
        if self._inlet is None:
            raise InvariantBroken("driver-order", "nothing is verified before it was sorted")
        return Verified(content=await self._inlet.verify())
