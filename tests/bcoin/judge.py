"""bcoin as a judge: an implementation of Bitcoin's rules that shares no code with Bitcoin Core."""

import itertools
import secrets
from collections.abc import Sequence
from typing import Any

import httpx

from escrow.core.amounts import fee_sat
from escrow.core.script import address_of
from escrow.core.transaction import Tx, TxIn, parse, parse_block, read_id, show_id
from escrow.shell.mining import build_block
from escrow.shell.regtest import ANYONE, FAUCET_SCRIPT
from tests.escrow.judges import Refusal
from wire.ports import OutPoint, TxOut

HRP = "rb"
"""What bcoin's regtest addresses start with; Core's start with bcrt."""

FIRST_BLOCKS = 1_360
"""Relative locks and witnesses are in force from block 432 on, lock times (BIP65) in blocks only from 1,351."""

RICH_BLOCKS = 140
"""The rewards of so many blocks are given away: all of 50 coins, all old enough."""

ROOM = {
    Refusal.SCRIPT: ("mandatory-script-verify-flag-failed", "non-mandatory-script-verify-flag", "bad-witness-nonstandard"),
    Refusal.NOT_FINAL: ("non-final",),
    Refusal.TOO_YOUNG: ("non-BIP68-final",),
    Refusal.SPENT: ("missing-inputs", "bad-txns-inputs-spent"),
    Refusal.PAYS_TOO_MUCH: ("bad-txns-in-belowout", "insufficient priority"),
    Refusal.DUST: ("dust",),
}
BLOCK = {
    Refusal.SCRIPT: ("mandatory-script-verify-flag-failed",),
    Refusal.NOT_FINAL: ("bad-txns-nonfinal",),
    Refusal.TOO_YOUNG: ("bad-txns-nonfinal",),
    Refusal.SPENT: ("bad-txns-inputs-missingorspent",),
    Refusal.PAYS_TOO_MUCH: ("bad-txns-in-belowout",),
}
_HERE = ("", "txn-already-in-mempool", "txn-already-known")


class BcoinJudge:
    """A running bcoin node; see ``tests.escrow.judges.Judge``."""

    replaces = False

    def __init__(self, url: str, key: str) -> None:
        self.url, self.key = url, key
        self._client = httpx.Client(auth=("x", key), timeout=60, trust_env=False)
        self._numbers = itertools.count(1)
        self._address = address_of(FAUCET_SCRIPT, HRP)
        self._coins: list[tuple[OutPoint, int]] = []

    def call(self, method: str, *parameters: Any) -> Any:
        """One call of its JSON-RPC; a refusal is a failure of the test."""
        asked = {"id": next(self._numbers), "method": method, "params": list(parameters)}
        answer = self._client.post(self.url, json=asked).json()
        assert answer["error"] is None, answer["error"]
        return answer["result"]

    def begin(self) -> None:
        """Make the first blocks and learn of their rewards."""
        self.mine(FIRST_BLOCKS)
        for height in range(RICH_BLOCKS, 0, -1):
            raw = bytes.fromhex(self.call("getblock", self.call("getblockhash", height), False))
            reward = parse_block(raw)[1][0]
            self._coins.append((OutPoint(reward.txid, 0), reward.outputs[0].value_sat))

    @property
    def height(self) -> int:
        return int(self.call("getblockcount"))

    def mine(self, count: int = 1) -> None:
        if count > 0:
            self.call("generatetoaddress", count, self._address)

    def pay(self, outputs: Sequence[TxOut]) -> Tx:
        source, value = self._coins.pop()
        change = value - sum(one.value_sat for one in outputs) - fee_sat(400, 1_000)
        spending = TxIn(outpoint=source, witness=(ANYONE,))
        return Tx(inputs=(spending,), outputs=(*outputs, TxOut(change, FAUCET_SCRIPT)))

    def offer(self, transaction: Tx) -> str:
        word = str(self.call("offer", transaction.serialise().hex()))
        return "" if word in _HERE else word

    def offer_block(self, transaction: Tx) -> str:
        info = self.call("getblockchaininfo")
        raw = build_block(
            height=info["blocks"] + 1,
            previous=read_id(info["bestblockhash"]),
            time_s=info["mediantime"] + 1,
            script=FAUCET_SCRIPT,
            body=[transaction],
            fees_sat=0,
            tag=secrets.token_bytes(8),
        )
        answer = self.call("submitblock", raw.hex())
        assert (answer is None) == (self.height == info["blocks"] + 1)
        return "" if answer is None else str(answer).removeprefix("rejected: ")

    def means(self, word: str, refusal: Refusal, *, block: bool) -> bool:
        return word in (BLOCK if block else ROOM).get(refusal, ())

    def waits(self, txid: bytes) -> bool:
        return show_id(txid) in self.call("getrawmempool")

    def confirmed(self, txid: bytes) -> Tx | None:
        asked = {"id": next(self._numbers), "method": "getrawtransaction", "params": [show_id(txid), True]}
        answer = self._client.post(self.url, json=asked).json()
        if answer["error"] is not None or not answer["result"].get("confirmations"):
            return None
        return parse(bytes.fromhex(answer["result"]["hex"]))

    def close(self) -> None:
        """End the conversation."""
        self._client.close()
