"""Funding and broadcasting: the channels that are opened at about the same time are funded by one transaction, as far as the
network relays a memo for all of them.

A channel whose funding is under way is not funded twice, however often the brain asks. Broadcasts are repeated until the
chain has seen them or refuses them for good.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import trio

from escrow.core.events import FundingWanted, Submit
from peer.core.events import FundingBuilt, FundingFailed
from wire.errors import BitwrkError, LocalFault, Refused
from wire.limits import SUBMIT_PAUSE_MAX_S
from wire.ports import NOT_SEEN, Chain, Rejected, Wallet

_LOG: Final = logging.getLogger("bitwrk.money")
GATHER_S: Final = 0.05
RETRY_S: Final = 1.0


def in_memos(wanted: Sequence[FundingWanted], most_bytes: int) -> list[list[FundingWanted]]:
    """Groups of as many as one memo of ``most_bytes`` has room for; all together when there are no memos."""
    groups: list[list[FundingWanted]] = []
    left = 0
    for one in wanted:
        if not groups or (most_bytes and len(one.note) > left):
            groups.append([])
            left = most_bytes
        groups[-1].append(one)
        left -= len(one.note)
    return groups


class Funding:
    """Turns ``FundingWanted`` and ``Submit`` into calls of the wallet and the chain. With ``memo_max_bytes`` 0 nothing is written
    into the transactions by which escrows could be found again. ``notice`` publishes what the owner should know.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        chain: Chain,
        wallet: Wallet,
        tell: Callable[[Any], Awaitable[None]],
        memo_max_bytes: int = 0,
        *,
        cap_sat: int | None = None,
        exposure_sat: Callable[[], int] = lambda: 0,
        notice: Callable[..., None] = lambda kind, **facts: None,
    ) -> None:
        self._nursery = nursery
        self._chain = chain
        self._wallet = wallet
        self._tell = tell
        self._memo_max_bytes = memo_max_bytes
        self._cap_sat = cap_sat
        self._exposure_sat = exposure_sat
        self._notice = notice
        self._wanted: dict[bytes, FundingWanted] = {}
        self._under_way: set[bytes] = set()
        self._submitting: set[bytes] = set()

    def want(self, effect: FundingWanted) -> None:
        """Fund a channel, together with others that are wanted within a moment."""
        if effect.channel in self._under_way:
            return
        self._under_way.add(effect.channel)
        if not self._wanted:
            self._nursery.start_soon(self._gather)
        self._wanted[effect.channel] = effect

    async def _gather(self) -> None:
        await trio.sleep(GATHER_S)
        wanted, self._wanted = self._wanted, {}
        for together in in_memos([wanted[channel] for channel in sorted(wanted)], self._memo_max_bytes):
            await self._fund(together)

    async def _fund(self, together: list[FundingWanted]) -> None:
        notes = [one.note for one in together] if self._memo_max_bytes else []
        try:
            self._check_cap()
            raw = await self._wallet.fund([one.output for one in together], notes)
        except (Refused, LocalFault) as error:
            _LOG.warning("funding of %d channels failed: %s", len(together), error.sentence)
            for one in together:
                self._under_way.discard(one.channel)
                await self._tell(FundingFailed(channel=one.channel, code=error.code, sentence=error.sentence))
            return
        for index, one in enumerate(together):
            await self._tell(FundingBuilt(channel=one.channel, raw=raw, vout=index))

    def _check_cap(self) -> None:
        """Channels that wait for their funding count as exposure already."""
        at_stake = self._exposure_sat()
        if self._cap_sat is not None and at_stake > self._cap_sat:
            sentence = f"{at_stake} sat would be at stake at once; the settings allow {self._cap_sat}"
            raise Refused("over-cap", sentence)

    def submit(self, effect: Submit) -> None:
        """Broadcast a transaction."""
        if effect.raw not in self._submitting:
            self._submitting.add(effect.raw)
            self._nursery.start_soon(self._submit, effect)

    async def _submit(self, effect: Submit) -> None:
        """Broadcast until the chain has seen it or refuses it; a channel that still needs what was refused asks again."""
        pause = RETRY_S
        try:
            while True:
                try:
                    txid = await self._chain.submit(effect.raw)
                except Rejected as refusal:
                    if refusal.code != NOT_SEEN:
                        self._tell_owner(effect.purpose, refusal.code, refusal.sentence)
                        return
                    _LOG.warning("a %s transaction was taken and is not seen: %s", effect.purpose, refusal.sentence)
                except BitwrkError as error:
                    _LOG.warning("a %s transaction could not be sent: %s", effect.purpose, error.sentence)
                else:
                    _LOG.info("%s transaction %s sent", effect.purpose, txid[::-1].hex())
                    return
                await trio.sleep(pause)
                pause = min(2 * pause, SUBMIT_PAUSE_MAX_S)
        finally:
            self._submitting.discard(effect.raw)

    def _tell_owner(self, purpose: str, code: str, sentence: str) -> None:
        _LOG.warning("the chain refused a %s transaction: %s", purpose, sentence)
        self._notice("chain", what="refused", purpose=purpose, code=code, reason=sentence)
