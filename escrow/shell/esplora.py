"""A Bitcoin chain behind an Esplora server, over HTTP: what block explorers serve to everybody.

It answers every question of the port directly, and each from an index that may move between two requests. So whatever takes
several requests is asked again when the best block changed meanwhile.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from escrow.core.transaction import Tx
from escrow.shell.bdk import Library, Refusal
from escrow.shell.far import Kept, Line, broadcast, coins_in, feerate_of, history_in, instance_of, printed, too_long
from escrow.shell.ledger import Coin
from wire.limits import FAR_HISTORY_MAX
from wire.network import Network
from wire.ports import ChainFault, OutInfo, OutPoint, Tip, TxInfo

T = TypeVar("T")

_FEE_TARGET_BLOCKS: Final = 2
_TRIES: Final = 3
_BAD_REQUEST: Final = 400
_NOT_FOUND: Final = 404


class EsploraChain:
    """``wire.ports.Chain`` over Esplora; open it with ``EsploraChain.open``."""

    def __init__(self, library: Library, client: Any, network: Network) -> None:
        self._library = library
        self._client = client
        self._network = network
        self._kept = Kept()
        self._instance: bytes | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, network: Network) -> "AsyncIterator[EsploraChain]":
        """The chain at ``url``, for example ``https://explorer.example/api``. Asks nothing yet. Raises ``LocalFault``."""
        library = await Library.load(urlsplit(url).netloc)
        yield cls(library, library.module.EsploraClient(url.rstrip("/")), network)

    # --- asking ------------------------------------------------------------------------------------------------

    async def _sure(self, what: str, *arguments: Any) -> Any:
        """One call that a working server does not refuse. Raises ``ChainFault``."""
        try:
            return await self._library.ask(getattr(self._client, what), *arguments)
        except Refusal as refusal:
            raise self._library.refused(what, refusal) from None

    async def _maybe(self, what: str, *arguments: Any) -> Any:
        """One call about something that the server may not know: None then. Raises ``ChainFault``."""
        try:
            return await self._library.ask(getattr(self._client, what), *arguments)
        except Refusal as refusal:
            if refusal.status == _NOT_FOUND:
                return None
            raise self._library.refused(what, refusal) from None

    async def _steady(self, work: Callable[[], Awaitable[T]]) -> T:
        """What ``work`` found while no block came. Raises ``ChainFault``."""
        for _ in range(_TRIES):
            before = str(await self._sure("get_tip_hash"))
            found = await work()
            if str(await self._sure("get_tip_hash")) == before:
                return found
        raise ChainFault("chain-moves", "blocks came faster than the chain could be read; it is asked again")

    def _height(self, status: Any) -> int | None:
        if status is None or not status.confirmed:
            return None
        if status.block_height is None:
            raise self._library.garbled("a confirmation without a height")
        return int(status.block_height)

    async def _transaction(self, txid: bytes) -> Tx | None:
        """A transaction by id, whether it is still in the chain or not."""
        found = self._kept.get(txid)
        if found is None:
            told = await self._maybe("get_tx", self._library.txid(txid))
            found = None if told is None else self._kept.keep(txid, bytes(told.serialize()))
        return found

    async def _stands(self, txid: bytes) -> tuple[Tx, int | None] | None:
        """A transaction that the chain or the mempool has now, with its height."""
        told = await self._maybe("get_tx_info", self._library.txid(txid))
        if told is None:
            return None
        transaction = await self._transaction(txid)
        return None if transaction is None else (transaction, self._height(told.status))

    # --- the port ----------------------------------------------------------------------------------------------

    async def instance(self) -> bytes:
        """See ``wire.ports.Chain``. Raises ``ChainFault`` when the server is on another network."""
        if self._instance is None:
            genesis = printed(await self._sure("get_block_hash", 0))
            regtest = self._network.bitcoin == "regtest"
            first = printed(await self._sure("get_block_hash", 1)) if regtest else genesis
            self._instance = instance_of(self._network, genesis, first)
        return self._instance

    async def tip(self) -> Tip:
        """See ``wire.ports.Chain``."""
        height = int(await self._sure("get_height"))
        return Tip(height, printed(await self._sure("get_block_hash", height)))

    async def feerate(self) -> int:
        """See ``wire.ports.Chain``; the network's least while the server has no estimate."""
        told: dict[int, float] = await self._sure("get_fee_estimates")
        targets = sorted(told)
        target = next((one for one in targets if one >= _FEE_TARGET_BLOCKS), None)
        return feerate_of(self._network, 0 if target is None else told[target] * 1_000)

    async def submit(self, raw: bytes) -> bytes:
        """See ``wire.ports.Chain``."""

        async def send() -> None:
            transaction = await self._library.ask(self._library.module.Transaction, raw)
            try:
                await self._library.ask(self._client.broadcast, transaction)
            except Refusal as refusal:
                if refusal.status != _BAD_REQUEST:
                    raise self._library.refused("broadcast", refusal) from None
                raise

        async def known(txid: bytes) -> bool:
            return await self._maybe("get_tx_info", self._library.txid(txid)) is not None

        return await broadcast(raw, send, known)

    async def tx(self, txid: bytes) -> TxInfo | None:
        """See ``wire.ports.Chain``."""
        found = await self._stands(txid)
        return None if found is None else TxInfo(found[0].serialise(), found[1])

    async def outpoint(self, outpoint: OutPoint) -> OutInfo | None:
        """See ``wire.ports.Chain``."""
        return await self._steady(lambda: self._outpoint(outpoint))

    async def _outpoint(self, outpoint: OutPoint) -> OutInfo | None:
        found = await self._stands(outpoint.txid)
        if found is None or outpoint.vout >= len(found[0].outputs):
            return None
        output, height = found[0].outputs[outpoint.vout], found[1]
        told = await self._maybe("get_output_status", self._library.txid(outpoint.txid), outpoint.vout)
        if told is None or not told.spent:
            return OutInfo(output.value_sat, output.script, height, None)
        if told.txid is None:
            raise self._library.garbled("a spent output without its spender")
        spender = await self._transaction(printed(told.txid))
        if spender is None:
            raise ChainFault("chain-lies", "the chain names a spender and does not have it")
        return OutInfo(output.value_sat, output.script, height, TxInfo(spender.serialise(), self._height(told.status)))

    # --- for wallets -------------------------------------------------------------------------------------------

    async def _history(self, script: bytes) -> list[tuple[Tx, int | None]]:
        """What concerns a script, as pages of 25 confirmed transactions tell it, in blocks' order."""
        module = self._library.module
        networks = {"main": module.Network.BITCOIN, "signet": module.Network.SIGNET, "regtest": module.Network.REGTEST}
        address = await self._library.ask(module.Address.from_script, module.Script(script), networks[self._network.bitcoin])
        lines: dict[bytes, Line] = {}
        last = None
        while True:
            page = await self._sure("get_address_txs", address, last)
            told = [Line(printed(one.txid), self._height(one.status)) for one in page]
            confirmed = [one for one in told if one.height is not None]
            fresh = [one for one in told if one.txid not in lines]
            lines |= {one.txid: one for one in fresh}
            if len(lines) > FAR_HISTORY_MAX:
                raise too_long()
            if not confirmed or not fresh:
                break
            last = self._library.txid(confirmed[-1].txid)
        found = []
        for one in reversed(lines.values()):
            transaction = await self._transaction(one.txid)
            if transaction is None:
                raise ChainFault("chain-lies", "the chain lists a transaction and does not have it")
            found.append((transaction, one.height))
        return found

    async def coins_of(self, script: bytes) -> Sequence[Coin]:
        """See ``HistoryChain``; an address with a long history takes many requests the first time."""
        return coins_in(script, await self._steady(lambda: self._history(script)))

    async def history_of(self, script: bytes, since: int) -> Sequence[TxInfo]:
        """See ``HistoryChain``."""
        return history_in(script, since, await self._steady(lambda: self._history(script)))
