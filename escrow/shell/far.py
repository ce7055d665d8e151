"""What drivers of far servers share: names of networks, kept transactions, fee rates, coins out of histories, broadcasts.

A far server is one of someone else, reached over the internet. It is asked as little as possible: a transaction is its own hash's
preimage, so it is fetched once and kept; how deep it is has to be asked every time.
"""

import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from escrow.core.contract import chain_instance
from escrow.core.recovery import touches
from escrow.core.transaction import BadTransaction, Tx, parse, read_id, show_id
from escrow.shell.bdk import Refusal
from escrow.shell.ledger import COINBASE_OUTPOINT, Coin
from wire.limits import FAR_HISTORY_MAX, FAR_KEPT_MAX_BYTES
from wire.network import Network
from wire.ports import NOT_SEEN, ChainFault, OutPoint, Rejected, TxInfo

GENESIS: Final = {
    "main": "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f",
    "signet": "00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6",
    "regtest": "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206",
}
"""Printed hash of the first block by Bitcoin network: far servers do not say which network they are on."""

_SEEN_TRIES: Final = 10
_SEEN_PAUSE_S: Final = 0.2
_MISSING: Final = ("missingorspent", "missing-inputs", "missing inputs")


def instance_of(network: Network, genesis: bytes, first: bytes) -> bytes:
    """The chain's name. Raises ``ChainFault`` when it is on another network."""
    if show_id(genesis) != GENESIS[network.bitcoin]:
        place = next((name for name, known in GENESIS.items() if known == show_id(genesis)), "a network nobody here knows")
        raise ChainFault("wrong-network", f"the server is on {place}, the settings say {network.bitcoin}")
    return chain_instance(network, genesis, first)


def feerate_of(network: Network, told: float) -> int:
    """A rate in satoshi per 1,000 virtual bytes within the network's clamp; the least of the network for none at all."""
    least, most = network.feerate_min_sat_per_kvb, network.feerate_max_sat_per_kvb
    if not math.isfinite(told):
        raise ChainFault("chain-garbled", "the chain estimates a fee that is no number")
    return max(least, min(math.ceil(told), most))


class Kept:
    """Transactions by id, checked against it; the oldest go when they take more than ``FAR_KEPT_MAX_BYTES``."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, tuple[Tx, int]] = OrderedDict()
        self._bytes = 0

    def get(self, txid: bytes) -> Tx | None:
        """The transaction, if it is here."""
        found = self._kept.get(txid)
        if found is None:
            return None
        self._kept.move_to_end(txid)
        return found[0]

    def keep(self, txid: bytes, raw: bytes) -> Tx:
        """Parse and keep it. Raises ``ChainFault`` when it is no transaction or another one."""
        try:
            transaction = parse(raw, len(raw))
        except BadTransaction as error:
            raise ChainFault("chain-garbled", f"the chain gave something that is no transaction: {error.sentence}") from None
        if transaction.txid != txid:
            raise ChainFault("chain-lies", f"asked for the transaction {show_id(txid)} the chain gave another")
        if txid not in self._kept:
            self._kept[txid] = transaction, len(raw)
            self._bytes += len(raw)
            while self._bytes > FAR_KEPT_MAX_BYTES:
                self._bytes -= self._kept.popitem(last=False)[1][1]
        return transaction


@dataclass(frozen=True, slots=True)
class Line:
    """One transaction of a script's history: its id, and the height of its block or None."""

    txid: bytes
    height: int | None


def too_long() -> ChainFault:
    """A history that nobody here reads."""
    return ChainFault("chain-history", f"the chain lists more than {FAR_HISTORY_MAX:,} transactions for one address")


def printed(text: object) -> bytes:
    """The internal bytes of a printed id in an answer. Raises ``ChainFault``."""
    try:
        return read_id(str(text))
    except BadTransaction as error:
        raise ChainFault("chain-garbled", f"the chain gave something else than an id: {error.sentence}") from None


def spender_of(outpoint: OutPoint, lines: Sequence[tuple[Tx, int | None]]) -> TxInfo | None:
    """The transaction among ``lines`` that spends the output, the confirmed one if there are several."""
    found = [(tx, height) for tx, height in lines if any(one.outpoint == outpoint for one in tx.inputs)]
    if not found:
        return None
    transaction, height = min(found, key=lambda one: one[1] is None)
    return TxInfo(transaction.serialise(), height)


def coins_in(script: bytes, lines: Sequence[tuple[Tx, int | None]]) -> list[Coin]:
    """Confirmed outputs with this script that no confirmed transaction of its history spends, oldest first."""
    confirmed = [(tx, height) for tx, height in lines if height is not None]
    spent = {one.outpoint for tx, _ in confirmed for one in tx.inputs}
    coins = [
        Coin(OutPoint(tx.txid, vout), output, height, coinbase=tx.inputs[0].outpoint == COINBASE_OUTPOINT)
        for tx, height in confirmed
        for vout, output in enumerate(tx.outputs)
        if output.script == script
    ]
    unspent = [one for one in coins if one.outpoint not in spent]
    return sorted(unspent, key=lambda one: (one.height, one.outpoint.txid, one.outpoint.vout))


def history_in(script: bytes, since: int, lines: Sequence[tuple[Tx, int | None]]) -> list[TxInfo]:
    """The confirmed part of a history from height ``since`` on, of what really concerns this witness script, oldest first."""
    found = [(tx, height) for tx, height in lines if height is not None and height >= since and touches(tx, script)]
    return [TxInfo(tx.serialise(), height) for tx, height in sorted(found, key=lambda one: one[1])]


async def broadcast(raw: bytes, send: Callable[[], Awaitable[object]], known: Callable[[bytes], Awaitable[bool]]) -> bytes:
    """Send it and look whether it is there: neither an answer nor a refusal says so. Raises ``Rejected`` and ``ChainFault``."""
    try:
        transaction = parse(raw)
    except BadTransaction as error:
        raise Rejected(error.code, error.sentence) from None
    refusal: Refusal | None = None
    try:
        await send()
    except Refusal as error:
        refusal = error
    for _ in range(1 if refusal else _SEEN_TRIES):
        if await known(transaction.txid):
            return transaction.txid
        await trio.sleep(0 if refusal else _SEEN_PAUSE_S)
    if refusal is None:
        raise Rejected(NOT_SEEN, "the server took the transaction and then did not know it")
    missing = any(word in refusal.message.lower() for word in _MISSING)
    raise Rejected("missing-inputs" if missing else "rejected", refusal.message[:500])
