"""An Esplora server and an Electrum server over the embedded chain, on loopback. They tell the truth until a test bends them."""

import hashlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import trio

from escrow.core.script import address_of, script_of
from escrow.core.transaction import Tx, parse, read_id, show_id
from escrow.shell.kernel import KernelChain
from escrow.shell.ledger import COINBASE_OUTPOINT
from escrow.shell.regtest import Regtest
from tests.bdk.ledgers import history, previous
from wire.errors import Refused
from wire.network import REGTEST
from wire.ports import OutPoint, Rejected

HOST: Final = "127.0.0.1"
PAGE: Final = 25
UNKNOWN: Final = "daemon error: DaemonError({'code': -5, 'message': 'No such mempool or blockchain transaction.'})"


class Raw(bytes):
    """Bytes sent instead of an answer."""


class Stall:
    """No answer for as long as the test lasts."""


class Status(Exception):
    """An answer with an error: HTTP's status, or JSON-RPC's code, and words."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status
        self.words = words


Bend = Callable[[str, Any, Any], Any]
"""``bend(question, arguments, truth)``: what is answered instead. It may raise ``Status`` or return ``Raw`` or ``Stall``."""


def honest(question: str, arguments: Any, truth: Any) -> Any:
    return truth


class Server:
    """What both have in common: a port that can be closed and opened again, and a way to lie."""

    scheme = ""

    def __init__(self, chain: KernelChain, port: int = 0) -> None:
        self.chain = chain
        self.bend: Bend = honest
        self.asked: list[str] = []
        self.port = port
        self._scope: trio.CancelScope | None = None

    @property
    def url(self) -> str:
        return f"{self.scheme}://{HOST}:{self.port}"

    async def answer(self, question: str, arguments: Any, work: Callable[[Regtest], Any]) -> Any:
        self.asked.append(question)

        def tell(regtest: Regtest) -> Any:
            try:
                return work(regtest)
            except Status as error:
                return error
            except Rejected as error:
                words = error.sentence if error.code in error.sentence else f"{error.code}, {error.sentence}"
                return Status(400, f'sendrawtransaction RPC error: {{"code":-26,"message":"{words}"}}')

        told = await self.chain.call(tell)
        told = self.bend(question, arguments, told)
        if told is Stall:
            await trio.sleep_forever()
        if isinstance(told, Status):
            raise told
        return told

    async def open(self, nursery: trio.Nursery) -> None:
        """Listen; at the same port as before, if there was one."""
        listeners = await trio.open_tcp_listeners(self.port, host=HOST)
        self.port = listeners[0].socket.getsockname()[1]
        self._scope = await nursery.start(self._serve, listeners)

    def vanish(self) -> None:
        """Close the port and every connection."""
        assert self._scope is not None
        self._scope.cancel()

    async def _serve(self, listeners: Any, *, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        with trio.CancelScope() as scope:
            task_status.started(scope)
            await trio.serve_listeners(self._guarded, listeners)

    async def _guarded(self, stream: trio.SocketStream) -> None:
        try:
            await self.talk(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async def talk(self, stream: trio.SocketStream) -> None:
        raise NotImplementedError


# --- Esplora -------------------------------------------------------------------------------------------------------


def _status(chain: Regtest, height: int | None) -> dict[str, Any]:
    if height is None:
        return {"confirmed": False}
    time_s = int.from_bytes(chain.block(height)[68:72], "little")
    return {"confirmed": True, "block_height": height, "block_hash": show_id(chain.block_hash(height)), "block_time": time_s}


def _shown(script: bytes, value_sat: int) -> dict[str, Any]:
    return {"scriptpubkey": script.hex(), "scriptpubkey_asm": "", "scriptpubkey_type": "v0", "value": value_sat}


def _transaction(chain: Regtest, transaction: Tx, height: int | None) -> dict[str, Any]:
    before = previous(chain, transaction)
    fee = sum(one.value_sat for one in before if one) - sum(one.value_sat for one in transaction.outputs)
    return {
        "txid": show_id(transaction.txid),
        "version": transaction.version,
        "locktime": transaction.lock_time,
        "vin": [
            {
                "txid": show_id(one.outpoint.txid),
                "vout": one.outpoint.vout,
                "prevout": None if spent is None else _shown(spent.script, spent.value_sat),
                "scriptsig": "",
                "scriptsig_asm": "",
                "witness": [item.hex() for item in one.witness],
                "is_coinbase": one.outpoint == COINBASE_OUTPOINT,
                "sequence": one.sequence,
            }
            for one, spent in zip(transaction.inputs, before, strict=True)
        ],
        "vout": [_shown(one.script, one.value_sat) for one in transaction.outputs],
        "size": len(transaction.serialise()),
        "weight": transaction.weight,
        "fee": max(fee, 0),
        "status": _status(chain, height),
    }


class Esplora(Server):
    """The part of Esplora's HTTP API that a wallet library uses. One request a connection."""

    scheme = "http"

    async def talk(self, stream: trio.SocketStream) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            piece = await stream.receive_some()
            if not piece:
                return
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        first, *fields = head.decode().split("\r\n")
        method, path, _ = first.split(" ")
        length = next((int(one.split(":")[1]) for one in fields if one.lower().startswith("content-length:")), 0)
        while len(body) < length:
            body += await stream.receive_some()
        status = 200
        try:
            told = await self.answer(path, body, partial(self.look, method, path, body))
        except Status as error:
            status, told = error.status, error.words
        if isinstance(told, Raw):
            await stream.send_all(told)
            return
        sent = told if isinstance(told, bytes) else (told if isinstance(told, str) else json.dumps(told)).encode()
        head = b"HTTP/1.1 %d x\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (status, len(sent))
        await stream.send_all(head + sent)

    @staticmethod
    def look(method: str, path: str, body: bytes, chain: Regtest) -> Any:
        match [method, *path.strip("/").split("/")]:
            case ["GET", "blocks", "tip", "height"]:
                return str(chain.height)
            case ["GET", "blocks", "tip", "hash"]:
                return show_id(chain.block_hash(chain.height))
            case ["GET", "block-height", height]:
                try:
                    return show_id(chain.block_hash(int(height)))
                except Refused:
                    raise Status(404, "Block not found") from None
            case ["GET", "fee-estimates"]:
                return {"1": 3.0, "2": 2.5, "144": 1.0}
            case ["POST", "tx"]:
                return show_id(chain.submit(bytes.fromhex(body.decode())))
            case ["GET", "tx", txid, *rest]:
                found = chain.transaction(read_id(txid))
                if found is None:
                    raise Status(404, "Transaction not found")
                match rest:
                    case []:
                        return _transaction(chain, parse(found.raw), found.height)
                    case ["raw"]:
                        return found.raw
                    case ["outspend", vout]:
                        info = chain.outpoint(OutPoint(read_id(txid), int(vout)))
                        spender = None if info is None else info.spent_by
                        if spender is None:
                            return {"spent": False}
                        name = show_id(parse(spender.raw).txid)
                        return {"spent": True, "txid": name, "vin": 0, "status": _status(chain, spender.height)}
            case ["GET", "address", address, "txs", *rest]:
                lines = history(chain, script_of(address, REGTEST.hrp))
                waiting = [one for one in lines if one[1] is None]
                confirmed = [one for one in reversed(lines) if one[1] is not None]
                if rest:
                    names = [show_id(one.txid) for one, _ in confirmed]
                    waiting, confirmed = [], confirmed[names.index(rest[-1]) + 1 :] if rest[-1] in names else []
                return [_transaction(chain, one, height) for one, height in waiting + confirmed[:PAGE]]
        raise Status(404, f"no {method} {path}")


# --- Electrum ------------------------------------------------------------------------------------------------------


class Electrum(Server):
    """The part of Electrum's protocol that a wallet library uses, and the history of a script. JSON, one object a line."""

    scheme = "tcp"

    async def talk(self, stream: trio.SocketStream) -> None:
        data = b""
        while True:
            while b"\n" not in data:
                piece = await stream.receive_some()
                if not piece:
                    return
                data += piece
            line, _, data = data.partition(b"\n")
            asked = json.loads(line)
            told = [await self._one(one) for one in asked] if isinstance(asked, list) else await self._one(asked)
            await stream.send_all(told if isinstance(told, Raw) else json.dumps(told).encode() + b"\n")

    async def _one(self, asked: Any) -> Any:
        method, parameters, told = asked["method"], asked["params"], {"jsonrpc": "2.0", "id": asked["id"]}
        try:
            result = await self.answer(method, parameters, partial(self.look, method, parameters))
        except Status as error:
            return told | {"error": {"code": error.status, "message": error.words}}
        return result if isinstance(result, Raw) else told | {"result": result}

    @staticmethod
    def look(method: str, parameters: list[Any], chain: Regtest) -> Any:
        match method, parameters:
            case "server.version", _:
                return ["ours", "1.4"]
            case "server.ping", _:
                return None
            case "blockchain.headers.subscribe", []:
                return {"hex": chain.block(chain.height)[:80].hex(), "height": chain.height}
            case "blockchain.block.header", [height, *_]:
                try:
                    return chain.block(height)[:80].hex()
                except Refused:
                    raise Status(1, "height out of range") from None
            case "blockchain.estimatefee", [_]:
                return 0.000025
            case "blockchain.transaction.broadcast", [raw]:
                return show_id(chain.submit(bytes.fromhex(raw)))
            case "blockchain.transaction.get", [txid, *_]:
                found = chain.transaction(read_id(txid))
                if found is None:
                    raise Status(2, UNKNOWN)
                return found.raw.hex()
            case "blockchain.scripthash.get_history", [wanted]:
                scripts = {
                    hashlib.sha256(output.script).digest()[::-1].hex(): output.script
                    for txid in [*chain._ledger.transactions, *chain.mempool_ids()]
                    for output in parse(chain.transaction(txid).raw).outputs  # type: ignore[union-attr]
                }
                lines = history(chain, scripts[wanted]) if wanted in scripts else []
                return [{"tx_hash": show_id(one.txid), "height": 0 if height is None else height} for one, height in lines]
        raise Status(-32_601, f"unknown method {method}")


KINDS: Final[dict[str, type[Server]]] = {"esplora": Esplora, "electrum": Electrum}


@asynccontextmanager
async def serving(*servers: Server) -> AsyncIterator[None]:
    """The servers listen until the test ends."""
    async with trio.open_nursery() as nursery:
        for one in servers:
            await one.open(nursery)
        yield
        nursery.cancel_scope.cancel()


__all__ = ["KINDS", "Electrum", "Esplora", "Raw", "Server", "Stall", "Status", "address_of", "serving"]
