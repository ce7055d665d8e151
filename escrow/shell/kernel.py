"""The embedded chain as the rest of the house sees it: ``wire.ports.Chain`` over an in-process regtest.

Play money, and shown as such everywhere. All calls go through one worker thread at a time, because neither the kernel's callbacks
nor the mirror are for several.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

from escrow.core.contract import chain_instance
from escrow.shell.ledger import Coin
from escrow.shell.regtest import FAUCET_SCRIPT, Regtest
from wire.errors import Refused
from wire.network import REGTEST, Network
from wire.ports import OutInfo, OutPoint, Tip, TxInfo

T = TypeVar("T")

FIRST_BLOCKS = 120
"""Mined at the first start, so that the faucet has coins that are old enough."""


class KernelChain:
    """A chain of our own; open it with ``KernelChain.open``."""

    def __init__(self, regtest: Regtest, network: Network) -> None:
        self._regtest = regtest
        self._network = network
        self._limiter = trio.CapacityLimiter(1)

    @classmethod
    @asynccontextmanager
    async def open(
        cls, folder: Path, network: Network = REGTEST, first_blocks: int = FIRST_BLOCKS
    ) -> "AsyncIterator[KernelChain]":
        """The chain kept in ``folder``, which is locked meanwhile. Raises ``LocalFault`` when it is in use."""
        regtest = await trio.to_thread.run_sync(partial(Regtest, folder, network))
        try:
            chain = cls(regtest, network)
            if regtest.height == 0 and first_blocks:
                await chain.mine(first_blocks)
            yield chain
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(regtest.close)

    async def call(self, work: Callable[[Regtest], T]) -> T:
        """Run ``work`` on the chain in its thread; it is not interrupted."""
        return await trio.to_thread.run_sync(work, self._regtest, limiter=self._limiter)

    async def instance(self) -> bytes:
        """See ``wire.ports.Chain``."""
        first = await self.call(lambda chain: chain.block_hash(1) if chain.height else None)
        if first is None:
            raise Refused("empty-chain", "the chain has no block of its own yet, so it has no name")
        return chain_instance(self._network, await self.call(lambda chain: chain.block_hash(0)), first)

    async def tip(self) -> Tip:
        """See ``wire.ports.Chain``."""
        return await self.call(lambda chain: Tip(chain.height, chain.block_hash(chain.height)))

    async def feerate(self) -> int:
        """Always the least of the network: nobody competes for these blocks."""
        return self._network.feerate_min_sat_per_kvb

    async def submit(self, raw: bytes) -> bytes:
        """See ``wire.ports.Chain``."""
        return await self.call(lambda chain: chain.submit(raw))

    async def tx(self, txid: bytes) -> TxInfo | None:
        """See ``wire.ports.Chain``."""
        return await self.call(lambda chain: chain.transaction(txid))

    async def outpoint(self, outpoint: OutPoint) -> OutInfo | None:
        """See ``wire.ports.Chain``."""
        return await self.call(lambda chain: chain.outpoint(outpoint))

    async def coins_of(self, script: bytes) -> list[Coin]:
        """Confirmed unspent outputs with this script, for a wallet."""
        return await self.call(lambda chain: chain.coins_of(script))

    async def history_of(self, script: bytes, since: int) -> list[TxInfo]:
        """Transactions of blocks from ``since`` on that pay to this witness script or spend from it, oldest first."""
        return await self.call(lambda chain: chain.history_of(script, since))

    async def mine(self, count: int = 1, script: bytes = FAUCET_SCRIPT) -> list[bytes]:
        """Make blocks; returns their hashes."""
        return await self.call(lambda chain: chain.mine(count, script))

    async def mine_waiting(self) -> bool:
        """Make one block if anything waits for one."""
        return await self.call(lambda chain: bool(chain.mempool_ids() and chain.mine()))

    async def faucet(self, script: bytes, value_sat: int) -> bytes:
        """Send play money; returns the txid, to be mined with the next block."""
        return await self.call(lambda chain: chain.faucet(script, value_sat))
