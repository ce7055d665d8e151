"""A Bitcoin chain behind an Electrum server: headers, transactions, broadcasts and fees by bdkpython, histories of scripts by us.

How an output stands is read from the history of its script, one answer that holds its making and its spending at one moment. The
server tells nothing about a transaction alone, so one is judged by the history of an output of its own.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import trio

from escrow.core.transaction import Tx
from escrow.shell.bdk import Library, Refusal
from escrow.shell.far import Kept, Line, broadcast, coins_in, feerate_of, history_in, instance_of, printed, spender_of
from escrow.shell.ledger import Coin
from escrow.shell.lines import Histories
from wire.account import sha256d
from wire.limits import FAR_READ_TIMEOUT_S
from wire.money import SAT_PER_BTC
from wire.network import Network
from wire.ports import ChainFault, OutInfo, OutPoint, Tip, TxInfo

_FEE_TARGET_BLOCKS: Final = 2
_RETRIES: Final = 1
_OP_RETURN: Final = 0x6A
_UNKNOWN: Final = ("no such mempool", "not found", "missing transaction", "missingtransaction", "'code': -5", '"code":-5')
"""How servers say that there is no such transaction. Any other refusal is a fault: it must not pass for an absence."""
_BUSY: Final = ("excessive resource", "busy", "rate limit", "timed out", "overloaded", "try again")
"""How servers say that it is not the transaction that they refuse."""


def header_bytes(header: Any) -> bytes:
    """The 80 bytes of a block's header that the library took apart."""
    numbers = (int(header.time), int(header.bits), int(header.nonce))
    ids = printed(header.prev_blockhash) + printed(header.merkle_root)
    return int(header.version).to_bytes(4, "little", signed=True) + ids + b"".join(one.to_bytes(4, "little") for one in numbers)


class ElectrumChain:
    """``wire.ports.Chain`` over an Electrum server; open it with ``ElectrumChain.open``."""

    def __init__(self, library: Library, url: str, network: Network) -> None:
        self._library = library
        self._url = url
        self._network = network
        self._kept = Kept()
        self._histories = Histories(url)
        self._client: Any = None
        self._connecting = trio.Lock()
        self._instance: bytes | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, network: Network) -> "AsyncIterator[ElectrumChain]":
        """The chain at ``url``, for example ``ssl://electrum.example:50002``. Asks nothing yet. Raises ``LocalFault``."""
        chain = cls(await Library.load(urlsplit(url).netloc), url, network)
        try:
            yield chain
        finally:
            with trio.CancelScope(shield=True):
                await chain._histories.close()

    # --- asking ------------------------------------------------------------------------------------------------

    async def _ask(self, what: str, *arguments: Any) -> Any:
        """One call of the library's client, which is made anew after a fault. Raises ``ChainFault`` and ``Refusal``."""
        async with self._connecting:
            if self._client is None:
                make = self._library.module.ElectrumClient
                self._client = await self._library.ask(
                    lambda: make(self._url, timeout=FAR_READ_TIMEOUT_S, retry=_RETRIES, validate_domain=True)
                )
        client = self._client
        try:
            return await self._library.ask(getattr(client, what), *arguments)
        except ChainFault:
            if self._client is client:
                self._client = None
            raise

    async def _sure(self, what: str, *arguments: Any) -> Any:
        """One call that a working server does not refuse. Raises ``ChainFault``."""
        try:
            return await self._ask(what, *arguments)
        except Refusal as refusal:
            raise self._library.refused(what, refusal) from None

    async def _fetch(self, txid: bytes) -> Tx | None:
        """A transaction that the server has now. Raises ``ChainFault``."""
        try:
            raw = bytes(await self._ask("transaction_get_raw", self._library.txid(txid)))
        except Refusal as refusal:
            if any(word in refusal.message.lower() for word in _UNKNOWN):
                return None
            raise self._library.refused("transaction.get", refusal) from None
        return self._kept.keep(txid, raw)

    async def _transaction(self, txid: bytes) -> Tx | None:
        """A transaction by id, whether it is still in the chain or not."""
        return self._kept.get(txid) or await self._fetch(txid)

    async def _lines(self, script: bytes) -> list[Line]:
        try:
            return await self._histories.history(script)
        except Refusal as refusal:
            raise self._library.refused("scripthash.get_history", refusal) from None

    async def _read(self, lines: Sequence[Line]) -> list[tuple[Tx, int | None]]:
        """The transactions of a history."""
        found = []
        for one in lines:
            transaction = await self._transaction(one.txid)
            if transaction is None:
                raise ChainFault("chain-moves", "the chain lists a transaction that it does not have, or not any more")
            found.append((transaction, one.height))
        return found

    # --- the port ----------------------------------------------------------------------------------------------

    async def instance(self) -> bytes:
        """See ``wire.ports.Chain``. Raises ``ChainFault`` when the server is on another network."""
        if self._instance is None:
            genesis = sha256d(header_bytes(await self._sure("block_header", 0)))
            regtest = self._network.bitcoin == "regtest"
            first = sha256d(header_bytes(await self._sure("block_header", 1))) if regtest else genesis
            self._instance = instance_of(self._network, genesis, first)
        return self._instance

    async def tip(self) -> Tip:
        """See ``wire.ports.Chain``."""
        told = await self._sure("block_headers_subscribe")
        while await self._sure("block_headers_pop") is not None:
            pass  # it asks for news; the answer above is all the news there is
        return Tip(int(told.height), sha256d(header_bytes(told.header)))

    async def feerate(self) -> int:
        """See ``wire.ports.Chain``; the network's least while the server has no estimate, which it tells as -1."""
        return feerate_of(self._network, float(await self._sure("estimate_fee", _FEE_TARGET_BLOCKS)) * SAT_PER_BTC)

    async def submit(self, raw: bytes) -> bytes:
        """See ``wire.ports.Chain``."""

        async def send() -> None:
            transaction = await self._library.ask(self._library.module.Transaction, raw)
            try:
                await self._ask("transaction_broadcast", transaction)
            except Refusal as refusal:
                if any(word in refusal.message.lower() for word in _BUSY):
                    raise self._library.refused("transaction.broadcast", refusal) from None
                raise

        async def known(txid: bytes) -> bool:
            return await self._fetch(txid) is not None

        return await broadcast(raw, send, known)

    async def tx(self, txid: bytes) -> TxInfo | None:
        """See ``wire.ports.Chain``."""
        transaction = await self._transaction(txid)
        if transaction is None:
            return None
        script = next((one.script for one in transaction.outputs if one.script[:1] != bytes([_OP_RETURN])), None)
        if script is None:
            raise ChainFault("chain-refused", "an Electrum server does not tell how a transaction stands that only holds data")
        line = next((one for one in await self._lines(script) if one.txid == txid), None)
        return None if line is None else TxInfo(transaction.serialise(), line.height)

    async def outpoint(self, outpoint: OutPoint) -> OutInfo | None:
        """See ``wire.ports.Chain``."""
        transaction = await self._transaction(outpoint.txid)
        if transaction is None or outpoint.vout >= len(transaction.outputs):
            return None
        output = transaction.outputs[outpoint.vout]
        lines = await self._lines(output.script)
        made = next((one for one in lines if one.txid == outpoint.txid), None)
        if made is None:
            return None
        others = await self._read([one for one in lines if one.txid != outpoint.txid])
        return OutInfo(output.value_sat, output.script, made.height, spender_of(outpoint, others))

    # --- for wallets -------------------------------------------------------------------------------------------

    async def coins_of(self, script: bytes) -> Sequence[Coin]:
        """See ``HistoryChain``; an address with a long history takes many requests the first time."""
        return coins_in(script, await self._read(await self._lines(script)))

    async def history_of(self, script: bytes, since: int) -> Sequence[TxInfo]:
        """See ``HistoryChain``."""
        return history_in(script, since, await self._read(await self._lines(script)))
