"""The methods that the development chain answers, with Bitcoin Core's names, parameters, results and error codes.

``devfaucet(address, sat)`` is ours alone. Amounts are numbers of bitcoin with eight decimals, ids are printed ids, as in Core.
"""

import inspect
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

from escrow.core.script import BadAddress, address_of, script_of, witness_program
from escrow.core.transaction import BadTransaction, parse, parse_block, read_id, show_id
from escrow.shell.regtest import FAUCET_SCRIPT, Regtest
from wire.account import sha256d
from wire.errors import Refused
from wire.limits import RPC_BLOCKS_MAX
from wire.money import SAT_PER_BTC
from wire.network import REGTEST
from wire.ports import OutPoint, Rejected, TxOut

_MISC_ERROR: Final = -1
_TYPE_ERROR: Final = -3
_BAD_ADDRESS: Final = -5
_OUT_OF_RANGE: Final = -8
_DESERIALISE: Final = -22
_REJECTED: Final = -26
_IN_CHAIN: Final = -27
_NO_METHOD: Final = -32_601
_BAD_PARAMETERS: Final = -32_602


class RpcError(Exception):
    """An error as JSON-RPC tells it."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def _btc(value_sat: int) -> float:
    return float(Decimal(value_sat) / SAT_PER_BTC)


def _id(value: Any) -> bytes:
    if not isinstance(value, str):
        raise RpcError(_TYPE_ERROR, "JSON value is not a string as expected")
    try:
        return read_id(value)
    except BadTransaction as error:
        raise RpcError(_OUT_OF_RANGE, error.sentence) from None


def _number(value: Any, most: int = 1 << 62) -> int:
    if type(value) is not int:
        raise RpcError(_TYPE_ERROR, "JSON value is not an integer as expected")
    if not 0 <= value <= most:
        raise RpcError(_OUT_OF_RANGE, f"{value} is out of range")
    return value


def _hex(value: Any) -> bytes:
    try:
        return bytes.fromhex(value)
    except (TypeError, ValueError):
        raise RpcError(_DESERIALISE, "TX decode failed") from None


def _address(value: Any) -> bytes:
    try:
        return script_of(str(value), REGTEST.hrp)
    except BadAddress as error:
        raise RpcError(_BAD_ADDRESS, f"Invalid address: {error.sentence}") from None


def _output(output: TxOut) -> dict[str, Any]:
    told: dict[str, Any] = {"hex": output.script.hex()}
    if witness_program(output.script) is not None:
        told["address"] = address_of(output.script, REGTEST.hrp)
    return told


# --- blocks ------------------------------------------------------------------------------------------------------


def getblockcount(chain: Regtest) -> int:
    """Height of the best block."""
    return chain.height


def getblockchaininfo(chain: Regtest) -> dict[str, Any]:
    """The chain in a few words."""
    best = chain.block_hash(chain.height)
    return {
        "chain": "regtest",
        "blocks": chain.height,
        "headers": chain.height,
        "bestblockhash": show_id(best),
        "mediantime": chain.median_time(chain.height),
        "initialblockdownload": False,
        "pruned": False,
        "warnings": "development chain: play money",
    }


def getblockhash(chain: Regtest, height: Any) -> str:
    """Hash of the block at a height."""
    try:
        return show_id(chain.block_hash(_number(height)))
    except Refused:
        raise RpcError(_OUT_OF_RANGE, "Block height out of range") from None


def _height(chain: Regtest, block: Any) -> int:
    try:
        return chain.height_of(_id(block))
    except Refused:
        raise RpcError(_BAD_ADDRESS, "Block not found") from None


def _header(chain: Regtest, height: int, raw: bytes) -> dict[str, Any]:
    told = {
        "hash": show_id(sha256d(raw[:80])),
        "confirmations": chain.height - height + 1,
        "height": height,
        "version": int.from_bytes(raw[:4], "little"),
        "merkleroot": show_id(raw[36:68]),
        "time": int.from_bytes(raw[68:72], "little"),
        "mediantime": chain.median_time(height),
        "nonce": int.from_bytes(raw[76:80], "little"),
        "bits": raw[72:76][::-1].hex(),
    }
    if height:
        told["previousblockhash"] = show_id(raw[4:36])
    if height < chain.height:
        told["nextblockhash"] = show_id(chain.block_hash(height + 1))
    return told


def getblockheader(chain: Regtest, block: Any, verbose: Any = True) -> Any:
    """Header of a block of the best chain, as fields or as hex."""
    height = _height(chain, block)
    raw = chain.block(height)
    return _header(chain, height, raw) if verbose else raw[:80].hex()


def getblock(chain: Regtest, block: Any, verbosity: Any = 1) -> Any:
    """A block as hex (0), with txids (1), or with transactions (2)."""
    height, level = _height(chain, block), _number(int(verbosity) if isinstance(verbosity, bool) else verbosity, 3)
    raw = chain.block(height)
    if level == 0:
        return raw.hex()
    _, body = parse_block(raw)
    told = _header(chain, height, raw) | {"nTx": len(body), "size": len(raw)}
    told["tx"] = [show_id(one.txid) if level == 1 else _transaction(one.serialise()) for one in body]
    return told


# --- transactions ------------------------------------------------------------------------------------------------


def _transaction(raw: bytes) -> dict[str, Any]:
    parsed = parse(raw)
    return {
        "txid": show_id(parsed.txid),
        "hash": show_id(parsed.wtxid),
        "version": parsed.version,
        "size": len(raw),
        "vsize": parsed.vsize,
        "weight": parsed.weight,
        "locktime": parsed.lock_time,
        "vin": [
            {
                "txid": show_id(one.outpoint.txid),
                "vout": one.outpoint.vout,
                "txinwitness": [item.hex() for item in one.witness],
                "sequence": one.sequence,
            }
            for one in parsed.inputs
        ],
        "vout": [
            {"value": _btc(one.value_sat), "n": index, "scriptPubKey": _output(one)} for index, one in enumerate(parsed.outputs)
        ],
        "hex": raw.hex(),
    }


def sendrawtransaction(chain: Regtest, raw: Any, _maxfeerate: Any = None) -> str:
    """Let a transaction wait for its block."""
    try:
        transaction = parse(_hex(raw))
    except BadTransaction:
        raise RpcError(_DESERIALISE, "TX decode failed") from None
    known = chain.transaction(transaction.txid)
    if known is not None and known.height is not None:
        raise RpcError(_IN_CHAIN, "Transaction outputs already in utxo set")
    try:
        return show_id(chain.submit(transaction.serialise()))
    except Rejected as error:
        raise RpcError(_REJECTED, error.sentence if error.code in error.sentence else f"{error.code}: {error.sentence}") from None


def getrawmempool(chain: Regtest) -> list[str]:
    """Txids that wait."""
    return [show_id(txid) for txid in chain.mempool_ids()]


def getrawtransaction(chain: Regtest, txid: Any, verbose: Any = 0) -> Any:
    """Any transaction of the chain or the mempool."""
    found = chain.transaction(_id(txid))
    if found is None:
        raise RpcError(_BAD_ADDRESS, "No such mempool or blockchain transaction. Use gettransaction for wallet transactions.")
    if not verbose:
        return found.raw.hex()
    told = _transaction(found.raw)
    if found.height is not None:
        told["blockhash"] = show_id(chain.block_hash(found.height))
        told["confirmations"] = chain.height - found.height + 1
    return told


def gettxout(chain: Regtest, txid: Any, vout: Any, include_mempool: Any = True) -> dict[str, Any] | None:
    """An unspent output, or null."""
    found = chain.outpoint(OutPoint(_id(txid), _number(vout, 0xFFFFFFFF)))
    if found is None:
        return None
    spent = found.spent_by is not None and (found.spent_by.height is not None or include_mempool)
    if spent or (found.height is None and not include_mempool):
        return None
    return {
        "bestblock": show_id(chain.block_hash(chain.height)),
        "confirmations": 0 if found.height is None else chain.height - found.height + 1,
        "value": _btc(found.value_sat),
        "scriptPubKey": _output(TxOut(found.value_sat, found.script)),
        "coinbase": chain.is_coinbase(OutPoint(_id(txid), vout)),
    }


def gettxspendingprevout(chain: Regtest, outputs: Any) -> list[dict[str, Any]]:
    """For each output, the waiting transaction that spends it."""
    if not isinstance(outputs, list) or not all(isinstance(one, dict) for one in outputs):
        raise RpcError(_TYPE_ERROR, "JSON value is not an array of objects as expected")
    told = []
    for one in outputs:
        txid, vout = _id(one.get("txid")), _number(one.get("vout"), 0xFFFFFFFF)
        found = chain.outpoint(OutPoint(txid, vout))
        answer: dict[str, Any] = {"txid": show_id(txid), "vout": vout}
        if found is not None and found.spent_by is not None and found.spent_by.height is None:
            answer["spendingtxid"] = show_id(parse(found.spent_by.raw).txid)
        told.append(answer)
    return told


def scantxoutset(chain: Regtest, action: Any, objects: Any = None) -> dict[str, Any]:
    """Confirmed unspent outputs of ``addr(…)`` and ``raw(…)`` descriptors."""
    if action != "start" or not isinstance(objects, list):
        raise RpcError(_OUT_OF_RANGE, "only the action start with a list of descriptors is understood")
    unspents, total = [], 0
    for one in objects:
        text = one.get("desc") if isinstance(one, dict) else one
        for coin in chain.coins_of(_descriptor(text)):
            total += coin.output.value_sat
            unspents.append(
                {
                    "txid": show_id(coin.outpoint.txid),
                    "vout": coin.outpoint.vout,
                    "scriptPubKey": coin.output.script.hex(),
                    "desc": text,
                    "amount": _btc(coin.output.value_sat),
                    "coinbase": coin.coinbase,
                    "height": coin.height,
                }
            )
    best = show_id(chain.block_hash(chain.height))
    return {"success": True, "height": chain.height, "bestblock": best, "unspents": unspents, "total_amount": _btc(total)}


def _descriptor(text: Any) -> bytes:
    inner = text.partition("#")[0] if isinstance(text, str) else ""
    if inner.startswith("addr(") and inner.endswith(")"):
        return _address(inner[5:-1])
    if inner.startswith("raw(") and inner.endswith(")"):
        return _hex(inner[4:-1])
    raise RpcError(_BAD_ADDRESS, "only addr() and raw() descriptors are understood")


def estimatesmartfee(chain: Regtest, target: Any, _mode: Any = None) -> dict[str, Any]:
    """Always the least rate: nobody competes."""
    return {"feerate": _btc(REGTEST.feerate_min_sat_per_kvb), "blocks": _number(target, 1_008)}


def generatetoaddress(chain: Regtest, count: Any, address: Any, _tries: Any = None) -> list[str]:
    """Make blocks at once, their reward to an address; the empty address is the faucet."""
    script = FAUCET_SCRIPT if address == "" else _address(address)
    return [show_id(one) for one in chain.mine(_number(count, RPC_BLOCKS_MAX), script)]


def devfaucet(chain: Regtest, address: Any, sat: Any) -> str:
    """Not in Core: send play money to an address; returns the txid."""
    try:
        return show_id(chain.faucet(_address(address), _number(sat, 10 * SAT_PER_BTC)))
    except Rejected as error:
        raise RpcError(_REJECTED, error.sentence) from None
    except Refused as error:
        raise RpcError(_MISC_ERROR, error.sentence) from None


METHODS: Final[Mapping[str, Callable[..., Any]]] = {
    one.__name__: one
    for one in (
        getblockcount,
        getblockchaininfo,
        getblockhash,
        getblockheader,
        getblock,
        sendrawtransaction,
        getrawmempool,
        getrawtransaction,
        gettxout,
        gettxspendingprevout,
        scantxoutset,
        estimatesmartfee,
        generatetoaddress,
        devfaucet,
    )
}


def call_method(chain: Regtest, name: str, parameters: Any) -> Any:
    """Run one method with positional parameters. Raises ``RpcError``."""
    method = METHODS.get(name)
    if method is None:
        raise RpcError(_NO_METHOD, "Method not found")
    if not isinstance(parameters, list):
        raise RpcError(_BAD_PARAMETERS, "parameters are an array here")
    least = sum(1 for one in _positional(method) if one)
    if not least <= len(parameters) <= len(_positional(method)):
        raise RpcError(_MISC_ERROR, f"{name} takes {least} to {len(_positional(method))} parameters")
    return method(chain, *parameters)


def _positional(method: Callable[..., Any]) -> list[bool]:
    """For each parameter after the chain, whether it must be given."""
    parameters = list(inspect.signature(method).parameters.values())[1:]
    return [one.default is inspect.Parameter.empty for one in parameters]
