"""A real chain, a server of one kind before it, and our driver for that server."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from escrow.shell.checked import CheckedChain
from escrow.shell.kernel import KernelChain
from escrow.shell.recovery import HistoryChain
from escrow.shell.regtest import Regtest
from peer.config import read_chain
from peer.node.money import open_far
from tests.bdk.servers import KINDS, Server, serving
from tests.escrow.pair import Pair
from wire.network import REGTEST, Network
from wire.ports import OutInfo, OutPoint


def driver(server: Server, network: Network = REGTEST) -> AbstractAsyncContextManager[HistoryChain]:
    """As a node opens it from its settings."""
    kind = next(name for name, one in KINDS.items() if isinstance(server, one))
    return open_far(read_chain(f"{kind}:{server.url}"), network)


class World:
    """One chain behind one server; ``far`` is the driver unchecked, ``chain`` as a node uses it."""

    def __init__(self, own: KernelChain, server: Server, far: HistoryChain) -> None:
        self.own, self.server, self.far = own, server, far
        self.chain = CheckedChain(far, REGTEST)


@asynccontextmanager
async def world(kind: str, folder: Path) -> AsyncIterator[World]:
    async with KernelChain.open(folder, REGTEST, 130) as own:
        server = KINDS[kind](own)
        async with serving(server), driver(server) as far:
            yield World(own, server, far)


class Through:
    """The chain as the two hand-driven parties know it: tip, outputs and broadcasts go through a driver, the rest does not.

    For a thread of its own; whatever it is asked is done by trio.
    """

    def __init__(self, own: KernelChain, far: Any) -> None:
        self._own, self._far = own, far

    def __getattr__(self, name: str) -> Any:
        member = trio.from_thread.run(self._own.call, lambda chain: getattr(chain, name))
        if not callable(member):
            return member

        def call(*arguments: Any) -> Any:
            return trio.from_thread.run(self._own.call, lambda chain: getattr(chain, name)(*arguments))

        return call

    @property
    def height(self) -> int:
        return int(trio.from_thread.run(self._far.tip).height)

    def outpoint(self, outpoint: OutPoint) -> OutInfo | None:
        info: OutInfo | None = trio.from_thread.run(self._far.outpoint, outpoint)
        return info

    def submit(self, raw: bytes) -> bytes:
        txid: bytes = trio.from_thread.run(self._far.submit, raw)
        return txid


async def play(own: KernelChain, far: Any, life: Callable[[Pair], object], counter: int = 0, **terms: Any) -> Pair:
    """Live a channel's life over a driver, in a thread; returns both parties as they stand then."""

    def live() -> Pair:
        pair = Pair(Through(own, far), counter, **terms)  # type: ignore[arg-type]
        life(pair)
        return pair

    return await trio.to_thread.run_sync(live)


async def on(own: KernelChain, work: Callable[[Regtest], Any]) -> Any:
    """Do something to the chain behind the server's back."""
    return await own.call(work)
