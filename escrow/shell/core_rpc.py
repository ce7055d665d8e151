"""A Bitcoin chain behind Core's JSON-RPC: a node of one's own, or the development chain.

Two things Core does not tell without an index are found here. A txid answered to a broadcast is not acceptance, so every
transaction is looked for afterwards. And nobody says which confirmed transaction spent an output: outputs that were asked
for are remembered, and every new block is read for their spenders. An output that is neither unspent nor waiting when it is first
asked for is searched once in the last ``CHAIN_LOOKBACK_BLOCKS`` blocks, which is longer than any escrow of ours lives.
"""

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import trio

from escrow.core.contract import chain_instance
from escrow.core.recovery import touches
from escrow.core.script import address_of
from escrow.core.transaction import BadTransaction, parse, read_id, show_id
from escrow.shell.follower import BLOCKS_AT_ONCE, Follower, read_blocks
from escrow.shell.ledger import Coin
from escrow.shell.waiting import WaitingRoom
from wire.limits import RPC_TIMEOUT_S
from wire.money import SAT_PER_BTC
from wire.network import Network
from wire.ports import NOT_SEEN, ChainFault, OutInfo, OutPoint, Rejected, Tip, TxInfo, TxOut

_NOT_FOUND = -5
_NO_METHOD = -32_601
_REFUSALS = (-22, -25, -26, -27)
_FEE_TARGET_BLOCKS = 2
_SEEN_TRIES = 5
_READ_AGAIN = 3
_SEEN_PAUSE_S = 0.05


class RpcRefused(Exception):
    """The node answered with an error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def _satoshi(value: Any) -> int:
    return int((Decimal(str(value)) * SAT_PER_BTC).to_integral_value())


def _without_login(url: str) -> tuple[str, tuple[str, str] | None]:
    parts = urlsplit(url)
    if parts.username is None:
        return url, None
    host = parts.hostname or ""
    place = f"{host}:{parts.port}" if parts.port else host
    return urlunsplit((parts.scheme, place, parts.path or "/", "", "")), (parts.username, parts.password or "")


class CoreChain:
    """``wire.ports.Chain`` over JSON-RPC; open it with ``CoreChain.open``."""

    def __init__(self, client: httpx.AsyncClient, url: str, network: Network) -> None:
        self._client = client
        self._url = url
        self._network = network
        self._numbers = itertools.count(1)
        self._follower = Follower(self)
        self._waiting_room = WaitingRoom(self)
        self._following = trio.Lock()
        self._instance: bytes | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, network: Network) -> "AsyncIterator[CoreChain]":
        """The chain at ``url``, for example ``http://user:password@127.0.0.1:8332``. Asks nothing yet."""
        plain, login = _without_login(url)
        limits = httpx.Limits(max_connections=4, max_keepalive_connections=4)
        async with httpx.AsyncClient(auth=login, timeout=RPC_TIMEOUT_S, limits=limits, trust_env=False) as client:
            yield cls(client, plain, network)

    # --- asking ------------------------------------------------------------------------------------------------

    async def _post(self, asked: Any) -> Any:
        try:
            try:
                response = await self._client.post(self._url, json=asked)
            except httpx.RemoteProtocolError:
                # The node closed a connection it kept for us just as we used it. Every call of ours may be made twice.
                response = await self._client.post(self._url, json=asked)
            return response.json(parse_float=Decimal)
        except httpx.HTTPError as error:
            raise ChainFault("chain-down", f"the chain at {self._url} does not answer: {type(error).__name__}") from None
        except ValueError:
            raise ChainFault("chain-garbled", f"the chain at {self._url} answers something that is not JSON-RPC") from None

    async def batch(self, *calls: tuple[Any, ...]) -> list[Any]:
        """The results of several calls ``(method, *parameters)`` in one request; a refusal is a value of class ``RpcRefused``.

        Raises ``ChainFault``.
        """
        asked = [
            {"jsonrpc": "1.0", "id": next(self._numbers), "method": method, "params": list(parameters)}
            for method, *parameters in calls
        ]
        told = await self._post(asked)
        answers = {one.get("id"): one for one in told if isinstance(one, dict)} if isinstance(told, list) else {}
        results: list[Any] = []
        for one in asked:
            answer = answers.get(one["id"])
            if answer is None:
                raise ChainFault("chain-garbled", f"the chain at {self._url} left a question unanswered (wrong password?)")
            error = answer.get("error")
            if isinstance(error, dict):
                results.append(RpcRefused(int(error.get("code", 0)), str(error.get("message", ""))))
            else:
                results.append(answer.get("result"))
        return results

    async def call(self, method: str, *parameters: Any) -> Any:
        """One call. Raises ``RpcRefused`` and ``ChainFault``."""
        (result,) = await self.batch((method, *parameters))
        if isinstance(result, RpcRefused):
            raise result
        return result

    async def sure(self, method: str, *parameters: Any) -> Any:
        """One call that a working node does not refuse. Raises ``ChainFault``."""
        try:
            return await self.call(method, *parameters)
        except RpcRefused as error:
            raise ChainFault("chain-refused", f"the chain refuses {method}: {error.message}") from None

    async def sure_all(self, *calls: tuple[Any, ...]) -> list[Any]:
        """Several calls that a working node does not refuse, in one request. Raises ``ChainFault``."""
        results = await self.batch(*calls)
        for (method, *_), result in zip(calls, results, strict=True):
            if isinstance(result, RpcRefused):
                raise ChainFault("chain-refused", f"the chain refuses {method}: {result.message}")
        return results

    # --- the port ----------------------------------------------------------------------------------------------

    async def instance(self) -> bytes:
        """See ``wire.ports.Chain``. Raises ``ChainFault`` when the node is on another network."""
        if self._instance is None:
            info = await self.sure("getblockchaininfo")
            if info["chain"] != self._network.bitcoin:
                raise ChainFault("wrong-network", f"the node is on {info['chain']}, the settings say {self._network.bitcoin}")
            genesis = read_id(await self.sure("getblockhash", 0))
            first = genesis
            if self._network.bitcoin == "regtest":
                first = read_id(await self.sure("getblockhash", 1))
            self._instance = chain_instance(self._network, genesis, first)
        return self._instance

    async def tip(self) -> Tip:
        """See ``wire.ports.Chain``."""
        info = await self.sure("getblockchaininfo")
        return Tip(int(info["blocks"]), read_id(info["bestblockhash"]))

    async def feerate(self) -> int:
        """See ``wire.ports.Chain``; the network's least while the node has no estimate."""
        least, most = self._network.feerate_min_sat_per_kvb, self._network.feerate_max_sat_per_kvb
        told = await self.sure("estimatesmartfee", _FEE_TARGET_BLOCKS)
        return max(least, min(_satoshi(told["feerate"]), most)) if "feerate" in told else least

    async def submit(self, raw: bytes) -> bytes:
        """See ``wire.ports.Chain``."""
        try:
            transaction = parse(raw)
        except BadTransaction as error:
            raise Rejected(error.code, error.sentence) from None
        refusal: RpcRefused | None = None
        try:
            await self.call("sendrawtransaction", raw.hex())
        except RpcRefused as error:
            if error.code not in _REFUSALS:
                raise ChainFault("chain-refused", f"the chain refuses to broadcast: {error.message}") from None
            refusal = error
        for _ in range(1 if refusal else _SEEN_TRIES):
            if await self._is_known(transaction.txid, len(transaction.outputs)):
                return transaction.txid
            await trio.sleep(0 if refusal else _SEEN_PAUSE_S)
        if refusal is not None:
            raise Rejected("rejected", refusal.message)
        raise Rejected(NOT_SEEN, "the node took the transaction and then did not know it")

    async def _is_known(self, txid: bytes, outputs: int) -> bool:
        """Whether the transaction waits or has an unspent output; a confirmed one that is wholly spent needs an index."""
        printed = show_id(txid)
        asked = [("gettxout", printed, vout, True) for vout in range(min(outputs, 8))]
        found = await self.batch(("getrawtransaction", printed), *asked)
        return any(one is not None and not isinstance(one, RpcRefused) for one in found)

    async def tx(self, txid: bytes) -> TxInfo | None:
        """See ``wire.ports.Chain``; without a transaction index a confirmed one is known only while we follow its outputs."""
        try:
            told = await self.call("getrawtransaction", show_id(txid), True)
        except RpcRefused as error:
            if error.code != _NOT_FOUND and "not found" not in error.message:
                raise ChainFault("chain-refused", f"the chain refuses getrawtransaction: {error.message}") from None
            return self._follower.transaction(txid)
        height: int | None = None
        if told.get("blockhash"):
            height = int((await self.sure("getblockheader", told["blockhash"]))["height"])
        return TxInfo(bytes.fromhex(told["hex"]), height)

    async def outpoint(self, outpoint: OutPoint) -> OutInfo | None:
        """See ``wire.ports.Chain``."""
        printed = show_id(outpoint.txid)
        confirmed, waiting, spenders, info = await self.batch(
            ("gettxout", printed, outpoint.vout, False),
            ("gettxout", printed, outpoint.vout, True),
            ("gettxspendingprevout", [{"txid": printed, "vout": outpoint.vout}]),
            ("getblockchaininfo",),
        )
        if isinstance(spenders, RpcRefused) and spenders.code == _NO_METHOD:
            spenders = [{"spendingtxid": await self._waiting_room.spender(outpoint)}]
        for one in (confirmed, waiting, spenders, info):
            if isinstance(one, RpcRefused):
                raise ChainFault("chain-refused", f"the chain refuses to look for an output: {one.message}")
        height, block = int(info["blocks"]), read_id(info["bestblockhash"])
        async with self._following:
            await self._follower.follow(Tip(height, block))
            self._follower.watch(outpoint)
            spender = await self._waiting(spenders[0].get("spendingtxid"))
            found = confirmed or waiting
            if found is not None:
                made = None if found["confirmations"] == 0 else height - int(found["confirmations"]) + 1
                script = bytes.fromhex(found["scriptPubKey"]["hex"])
                told = OutInfo(_satoshi(found["value"]), script, made, spender)
                self._follower.remember(outpoint, told)
                return told
            parent = await self._waiting(printed)
            if parent is not None:
                outputs = parse(parent.raw).outputs
                if outpoint.vout >= len(outputs):
                    return None
                return OutInfo(outputs[outpoint.vout].value_sat, outputs[outpoint.vout].script, None, spender)
            return await self._follower.spent(outpoint)

    async def _waiting(self, txid: str | None) -> TxInfo | None:
        """A transaction of the mempool, by printed id."""
        if txid is None:
            return None
        try:
            told = await self.call("getrawtransaction", txid, True)
        except RpcRefused:
            return None
        return None if told.get("blockhash") else TxInfo(bytes.fromhex(told["hex"]), None)

    async def coins_of(self, script: bytes) -> Sequence[Coin]:
        """Confirmed unspent outputs with this script, for a wallet; on a large chain this takes minutes."""
        told = await self.sure("scantxoutset", "start", [f"raw({script.hex()})"])
        return [
            Coin(
                OutPoint(read_id(one["txid"]), int(one["vout"])),
                TxOut(_satoshi(one["amount"]), script),
                int(one["height"]),
                coinbase=bool(one.get("coinbase", False)),
            )
            for one in told["unspents"]
        ]

    async def history_of(self, script: bytes, since: int) -> Sequence[TxInfo]:
        """Transactions of blocks from ``since`` on that pay to this witness script or spend from it; reads every block, which
        takes hours for all of a large chain. A reorganisation meanwhile is read again, up to three times. Raises ``ChainFault``.
        """
        for _ in range(_READ_AGAIN):
            found: list[TxInfo] = []
            height, before = max(since, 1), b""
            last = (await self.tip()).height
            while height <= last:
                for block, header, body in await read_blocks(self, height, min(height + BLOCKS_AT_ONCE, last + 1)):
                    if before and header[4:36] != before:
                        break
                    found += [TxInfo(one.serialise(), height) for one in body if touches(one, script)]
                    height, before = height + 1, block
                else:
                    continue
                break
            else:
                return found
        raise ChainFault("chain-moves", "the chain was reorganised while it was read; ask again")

    # --- only on regtest ---------------------------------------------------------------------------------------

    async def mine(self, count: int, script: bytes | None = None) -> None:
        """Make blocks on a regtest node; without a script the reward goes to the development chain's faucet."""
        address = "" if script is None else address_of(script, self._network.hrp)
        await self.sure("generatetoaddress", count, address)

    async def faucet(self, script: bytes, value_sat: int) -> bytes:
        """Ask the development chain for play money; returns the txid."""
        return read_id(await self.sure("devfaucet", address_of(script, self._network.hrp), value_sat))
