"""A chain in one object: blocks at a fixed pace, a mempool, outputs and who spends them. No scripts are run; amounts are
conserved.

What a real chain would refuse for other reasons than scripts is refused here too: unknown and spent inputs, outputs worth more
than the inputs, lock times that have not come, relative locks that are not yet over, and a rival that pays no more.
"""

from dataclasses import dataclass, field
from typing import Final

from escrow.core.transaction import SEQUENCE_FINAL, BadTransaction, Tx, parse
from wire.digest import plain
from wire.errors import require
from wire.ports import OutInfo, OutPoint, Rejected, TxInfo, TxOut

_NO_RELATIVE_LOCK: Final = 1 << 31
_FIRST_HEIGHT: Final = 200


@dataclass(slots=True)
class Entry:
    """A transaction, with its fee and the height of its block (None: waiting)."""

    transaction: Tx
    raw: bytes
    fee_sat: int
    height: int | None = None


@dataclass(slots=True)
class Coin:
    """An output and where it stands; ``spender`` is the txid of what spends it, waiting or confirmed."""

    output: TxOut
    height: int | None
    spender: bytes | None = None


@dataclass(slots=True)
class SimulatedChain:
    """All coins ever made, by outpoint, and all transactions, by id."""

    height: int = _FIRST_HEIGHT
    coins: dict[OutPoint, Coin] = field(default_factory=dict)
    transactions: dict[bytes, Entry] = field(default_factory=dict)
    waiting: dict[bytes, None] = field(default_factory=dict)
    issued_sat: int = 0
    fees_sat: int = 0
    refused: int = 0

    def issue(self, number: int, output: TxOut) -> OutPoint:
        """Play money from nowhere, once, before the run."""
        outpoint = OutPoint(plain(b"issued" + number.to_bytes(8, "big")), 0)
        self.coins[outpoint] = Coin(output, self.height)
        self.issued_sat += output.value_sat
        return outpoint

    def submit(self, raw: bytes) -> bytes:
        """Let a transaction wait for a block; returns its id. Raises ``Rejected``."""
        try:
            transaction = parse(raw)
        except BadTransaction as error:
            raise Rejected(error.code, error.sentence) from None
        txid = transaction.txid
        if txid in self.transactions:
            return txid
        fee_sat, rivals = self._judge(transaction)
        for rival in rivals:
            self._drop(rival)
        self.transactions[txid] = Entry(transaction, raw, fee_sat)
        self.waiting[txid] = None
        for one in transaction.inputs:
            self.coins[one.outpoint].spender = txid
        for index, output in enumerate(transaction.outputs):
            self.coins[OutPoint(txid, index)] = Coin(output, None)
        return txid

    def _judge(self, transaction: Tx) -> tuple[int, list[bytes]]:
        if transaction.lock_time > self.height:
            raise Rejected("non-final", f"locked until block {transaction.lock_time}, the tip is {self.height}")
        total, rivals = 0, []
        for one in transaction.inputs:
            coin = self.coins.get(one.outpoint)
            if coin is None:
                raise Rejected("missing-inputs", "an input is not known")
            if coin.spender is not None:
                if self.transactions[coin.spender].height is not None:
                    raise Rejected("spent", "an input is spent in a block")
                rivals.append(coin.spender)
            if one.sequence < _NO_RELATIVE_LOCK and one.sequence != SEQUENCE_FINAL:
                blocks = one.sequence & 0xFFFF
                if coin.height is None or self.height + 1 - coin.height < blocks:
                    raise Rejected("non-bip68-final", f"an input is locked for {blocks} blocks")
            total += coin.output.value_sat
        fee_sat = total - sum(one.value_sat for one in transaction.outputs)
        if fee_sat < 0:
            raise Rejected("in-belowout", "the outputs are worth more than the inputs")
        if rivals and fee_sat <= sum(self.transactions[one].fee_sat for one in set(rivals)):
            raise Rejected("rival", "another transaction spends this already and pays as much")
        return fee_sat, list(dict.fromkeys(rivals))

    def _drop(self, txid: bytes) -> None:
        """A waiting transaction is replaced, and what spends its outputs goes with it."""
        entry = self.transactions.pop(txid, None)
        if entry is None:
            return
        self.waiting.pop(txid, None)
        for index in range(len(entry.transaction.outputs)):
            coin = self.coins.pop(OutPoint(txid, index), None)
            if coin is not None and coin.spender is not None:
                self._drop(coin.spender)
        for one in entry.transaction.inputs:
            coin = self.coins.get(one.outpoint)
            if coin is not None and coin.spender == txid:
                coin.spender = None

    def mine(self) -> None:
        """One block of all that waits."""
        self.height += 1
        for txid in self.waiting:
            entry = self.transactions[txid]
            entry.height = self.height
            self.fees_sat += entry.fee_sat
            for index in range(len(entry.transaction.outputs)):
                self.coins[OutPoint(txid, index)].height = self.height
        self.waiting.clear()
        self.check()

    def check(self) -> None:
        """What is unspent in blocks, and what miners took, is what was issued."""
        unspent = 0
        for coin in self.coins.values():
            if coin.height is not None and (coin.spender is None or self.transactions[coin.spender].height is None):
                unspent += coin.output.value_sat
        require(unspent + self.fees_sat == self.issued_sat, "money-lost", "the chain's money is not conserved")

    def transaction(self, txid: bytes) -> TxInfo | None:
        """A known transaction."""
        entry = self.transactions.get(txid)
        return None if entry is None else TxInfo(entry.raw, entry.height)

    def outpoint(self, outpoint: OutPoint) -> OutInfo | None:
        """An output as the escrow wants to see it."""
        coin = self.coins.get(outpoint)
        if coin is None:
            return None
        spender = None if coin.spender is None else self.transaction(coin.spender)
        return OutInfo(coin.output.value_sat, coin.output.script, coin.height, spender)

    def coins_of(self, script: bytes) -> list[tuple[OutPoint, Coin]]:
        """Unspent outputs with this script, waiting ones last."""
        found = [(name, coin) for name, coin in self.coins.items() if coin.spender is None and coin.output.script == script]
        return sorted(found, key=lambda one: (one[1].height is None, one[1].height or 0, one[0].txid, one[0].vout))
