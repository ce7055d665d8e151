"""Funding and broadcasting: the channels that are opened at about the same time are funded by one transaction.

A channel whose funding is under way is not funded twice, however often the brain asks. Broadcasts are repeated until the
chain has seen them or refuses them for good.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

from escrow.core.events import FundingWanted, Submit
from peer.core.events import FundingBuilt, FundingFailed
from wire.errors import BitwrkError, LocalFault, Refused
from wire.ports import Chain, Rejected, TxOut, Wallet

_LOG: Final = logging.getLogger("bitwrk.money")
GATHER_S: Final = 0.05
RETRY_S: Final = 1.0
SUBMIT_ATTEMPTS: Final = 5


class Funding:
    """Turns ``FundingWanted`` and ``Submit`` into calls of the wallet and the chain."""

    def __init__(self, nursery: trio.Nursery, chain: Chain, wallet: Wallet, tell: Callable[[Any], Awaitable[None]]) -> None:
        self._nursery = nursery
        self._chain = chain
        self._wallet = wallet
        self._tell = tell
        self._wanted: dict[bytes, TxOut] = {}
        self._under_way: set[bytes] = set()
        self._submitting: set[bytes] = set()

    def want(self, effect: FundingWanted) -> None:
        """Fund a channel, together with others that are wanted within a moment."""
        if effect.channel in self._under_way:
            return
        self._under_way.add(effect.channel)
        if not self._wanted:
            self._nursery.start_soon(self._gather)
        self._wanted[effect.channel] = effect.output

    async def _gather(self) -> None:
        await trio.sleep(GATHER_S)
        wanted, self._wanted = self._wanted, {}
        channels = sorted(wanted)
        try:
            raw = await self._wallet.fund([wanted[channel] for channel in channels])
        except (Refused, LocalFault) as error:
            _LOG.warning("funding of %d channels failed: %s", len(channels), error.sentence)
            for channel in channels:
                self._under_way.discard(channel)
                await self._tell(FundingFailed(channel=channel, code=error.code, sentence=error.sentence))
            return
        for index, channel in enumerate(channels):
            await self._tell(FundingBuilt(channel=channel, raw=raw, vout=index))

    def submit(self, effect: Submit) -> None:
        """Broadcast a transaction."""
        if effect.raw not in self._submitting:
            self._submitting.add(effect.raw)
            self._nursery.start_soon(self._submit, effect)

    async def _submit(self, effect: Submit) -> None:
        try:
            for _ in range(SUBMIT_ATTEMPTS):
                try:
                    txid = await self._chain.submit(effect.raw)
                except Rejected as refusal:
                    _LOG.warning("the chain refused a %s transaction: %s", effect.purpose, refusal.sentence)
                except BitwrkError as error:
                    _LOG.warning("a %s transaction could not be sent: %s", effect.purpose, error.sentence)
                else:
                    _LOG.info("%s transaction %s sent", effect.purpose, txid[::-1].hex())
                    return
                await trio.sleep(RETRY_S)
        finally:
            self._submitting.discard(effect.raw)
