"""The sending machine on one stream, with tickets and the store behind it."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import cast

import trio

from cafs.core.faults import BUSY, NOT_GRANTED, NotGranted, PeerBusy
from cafs.core.sender import Admit, Admitted, Denied, Effect, Event, Fetch, Listen, Read, Sender
from cafs.core.transfer import Ended, Send
from cafs.shell.line import Line, now
from cafs.shell.store import Outlet, Store
from wire.errors import BitwrkError, InvariantBroken
from wire.limits import TRANSFER_STALL_S


class Serving:
    """One transfer to one peer. ``run`` raises what ended it, and returns when it ended well."""

    def __init__(self, line: Line, store: Store, granted: Callable[[bytes], bytes | None], slots: trio.Semaphore) -> None:
        self._line = line
        self._store = store
        self._granted = granted
        self._slots = slots
        self._machine = Sender()
        self._ended: Ended | None = None
        self._outlet: Outlet | None = None
        self._ticket = b""
        self.chunks = 0

    async def run(self) -> None:
        """Drive the machine to its end."""
        async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
            nursery.start_soon(self._line.read)
            event: Event = Listen()
            while True:
                for effect in self._machine.handle(event, now()):
                    await self._perform(effect, stack)
                if self._ended is not None:
                    break
                event = cast(Event, await self._line.next_event(self._machine.next_deadline()))
            nursery.cancel_scope.cancel()
        if self._ended.error is not None:
            raise self._ended.error

    async def _perform(self, effect: Effect, stack: AsyncExitStack) -> None:
        match effect:
            case Send():
                await self._line.send(effect.message)
            case Ended():
                self._ended = effect
            case Admit():
                self._line.put(await self._admit(effect, stack))
            case Fetch():
                self._line.put(await self._fetch(effect))

    async def _admit(self, effect: Admit, stack: AsyncExitStack) -> Event:
        if self._granted(effect.ticket) != effect.content:
            return Denied(error=_not_granted())
        self._ticket = effect.ticket
        try:
            await stack.enter_async_context(_slot(self._slots))
            self._outlet = await stack.enter_async_context(self._store.using(effect.content))
        except BitwrkError as error:
            return Denied(error=error)
        return Admitted(root=self._outlet.root)

    async def _fetch(self, effect: Fetch) -> Event:
        outlet = self._outlet
        if outlet is None:
            raise InvariantBroken("driver-order", "nothing is read before it was admitted")
        if self._granted(self._ticket) != outlet.content:
            return Denied(error=_not_granted())
        try:
            chunks = await outlet.chunks(effect.blobs)
        except BitwrkError as error:
            return Denied(error=error)
        self.chunks += len(chunks)
        return Read(chunks=chunks)


def _not_granted() -> NotGranted:
    return NotGranted(NOT_GRANTED, "this ticket does not open this content here")


@asynccontextmanager
async def _slot(slots: trio.Semaphore) -> AsyncIterator[None]:
    with trio.move_on_after(TRANSFER_STALL_S / 2) as waiting:
        await slots.acquire()
    if waiting.cancelled_caught:
        raise PeerBusy(BUSY, "too many transfers are under way here; try again later")
    try:
        yield
    finally:
        slots.release()
