"""Keeps the tape on disk while it can, and says so when it cannot."""

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from orderbook.core.tape import Tape
from orderbook.shell.tapefile import TapeFile, open_tape_file
from wire.errors import LocalFault
from wire.limits import TAPE_WRITE_S
from wire.moments import Instant
from wire.network import EpochClock

_LOG: Final = logging.getLogger("bitwrk.node")
_LAST_WRITE_S: Final = 2.0


class Recorder:
    """A tape and its file. ``fault`` says why nothing is written any more, and is empty while all is well."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self.fault = ""
        self._file: TapeFile | None = None

    async def begin(self, file: TapeFile, now: Instant) -> None:
        """Take back what the file holds, and write there from now on. Raises ``LocalFault``."""
        self.tape.load(await file.load(now), now)
        self._file = file

    def gives_up(self, fault: LocalFault) -> None:
        """The history is in memory only from now on."""
        self.fault, self._file = fault.sentence, None
        _LOG.warning("%s; until then prices are remembered while the node runs", fault.sentence)

    async def write(self) -> None:
        """Write what has changed. What cannot be written is let go of: it stays in memory."""
        drained = self.tape.drain()
        if self._file is None:
            return
        try:
            await self._file.keep(drained)
        except LocalFault as fault:
            self.gives_up(fault)

    async def run(self) -> None:
        """Write every ``TAPE_WRITE_S`` until cancelled."""
        while True:
            await trio.sleep(TAPE_WRITE_S)
            await self.write()


@asynccontextmanager
async def open_recorder(path: Path, clock: EpochClock, now: Instant) -> AsyncIterator[Recorder]:
    """The tape that is kept in the file ``path``, or one in memory when that cannot be had. Written once more at the end."""
    recorder = Recorder(Tape(clock))
    async with AsyncExitStack() as stack:
        try:
            await recorder.begin(await stack.enter_async_context(open_tape_file(path)), now)
        except LocalFault as fault:
            recorder.gives_up(fault)
        try:
            yield recorder
        finally:
            with trio.move_on_after(_LAST_WRITE_S, shield=True):
                await recorder.write()
