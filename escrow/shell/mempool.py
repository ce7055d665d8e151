"""The waiting room of the embedded chain: what a node checks before a transaction may wait for a block.

The script verdict is the kernel's. The checks around it are those of Bitcoin Core that matter to an escrow: finality (BIP113),
relative locks (BIP68), coinbase maturity, fees, dust, replacement by fee (BIP125) and ancestor limits. A refusal's code is the
word that Core uses.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from escrow.core.amounts import dust_sat, fee_sat
from escrow.core.transaction import SEQUENCE_FINAL, Tx
from escrow.shell.consensus import verify_input
from escrow.shell.ledger import COINBASE_MATURITY, Coin, Ledger
from wire.limits import MEMPOOL_ANCESTORS_MAX, MEMPOOL_MAX_TRANSACTIONS, SUPPLY_MAX_SAT, TX_MAX_BYTES
from wire.ports import OutPoint, Rejected, TxOut

_LOCK_DISABLED = 1 << 31
_LOCK_IN_TIME = 1 << 22
_LOCK_MASK = 0xFFFF
_LOCK_SECONDS = 512
_LOCK_TIME_IS_MOMENT = 500_000_000
_SMALLEST_BYTES = 65
_OP_RETURN = b"\x6a"
_DATA_MAX_BYTES = 100_000  # as Bitcoin Core from version 30 on


@dataclass(frozen=True, slots=True)
class Entry:
    """A waiting transaction."""

    transaction: Tx
    fee_sat: int
    vbytes: int


class Mempool:
    """Waiting transactions in the order they came, parents before children."""

    def __init__(self, ledger: Ledger, relay_sat_per_kvb: int) -> None:
        self.entries: dict[bytes, Entry] = {}
        self.spends: dict[OutPoint, bytes] = {}
        self._ledger = ledger
        self._relay = relay_sat_per_kvb

    def accept(self, transaction: Tx) -> bytes:
        """Let it wait and return its txid. Raises ``Rejected``; then nothing changed."""
        txid = transaction.txid
        if txid in self.entries or txid in self._ledger.transactions:
            return txid
        _check_shape(transaction)
        self._check_final(transaction)
        coins = [self._coin(one.outpoint) for one in transaction.inputs]
        for one, coin in zip(transaction.inputs, coins, strict=True):
            self._check_locks(transaction, one.sequence, coin)
        fee, vbytes = sum(coin.output.value_sat for coin in coins), transaction.vsize
        fee -= sum(one.value_sat for one in transaction.outputs)
        if fee < 0:
            raise Rejected("bad-txns-in-belowout", "it pays out more than it takes in")
        if fee < fee_sat(vbytes, self._relay):
            raise Rejected("min relay fee not met", f"min relay fee not met: {fee} sat for {vbytes} vbytes")
        evicted = self._check_conflicts(transaction, fee, vbytes)
        self._check_ancestors(transaction)
        if len(self.entries) - len(evicted) >= MEMPOOL_MAX_TRANSACTIONS:
            raise Rejected("mempool full", "too many transactions wait already")
        spent = [coin.output for coin in coins]
        for index in range(len(transaction.inputs)):
            if not verify_input(transaction, index, spent):
                sentence = f"mandatory-script-verify-flag-failed at input {index}"
                raise Rejected("mandatory-script-verify-flag-failed", sentence)
        for loser in evicted:
            self._remove(loser)
        self.entries[txid] = Entry(transaction, fee, vbytes)
        for one in transaction.inputs:
            self.spends[one.outpoint] = txid
        return txid

    def block_connected(self, transactions: Iterable[Tx]) -> None:
        """Forget what is in the block, and what can no longer be."""
        for transaction in transactions:
            self._remove(transaction.txid)
            for one in transaction.inputs:
                rival = self.spends.get(one.outpoint)
                if rival is not None:
                    for loser in self._with_descendants({rival}):
                        self._remove(loser)

    def rebuild(self, returned: Iterable[Tx]) -> None:
        """After a reorganisation: what left the chain waits again, and all that waits is judged afresh."""
        waiting = [*returned, *(entry.transaction for entry in self.entries.values())]
        self.entries.clear()
        self.spends.clear()
        for transaction in waiting:
            try:
                self.accept(transaction)
            except Rejected:
                continue  # it conflicts with the new chain, or its parents did

    def _coin(self, outpoint: OutPoint) -> Coin:
        coin = self._ledger.coins.get(outpoint)
        if coin is not None:
            return coin
        parent = self.entries.get(outpoint.txid)
        if parent is None or outpoint.vout >= len(parent.transaction.outputs):
            raise Rejected("bad-txns-inputs-missingorspent", "it spends an output that does not exist or is spent")
        return Coin(outpoint, parent.transaction.outputs[outpoint.vout], self._ledger.height + 1, coinbase=False)

    def _check_final(self, transaction: Tx) -> None:
        lock = transaction.lock_time
        if lock == 0 or all(one.sequence == SEQUENCE_FINAL for one in transaction.inputs):
            return
        height = self._ledger.height
        reached = height + 1 if lock < _LOCK_TIME_IS_MOMENT else self._ledger.median_time(height)
        if lock >= reached:
            raise Rejected("non-final", f"non-final: it is locked until {lock} and the chain is at {reached}")

    def _check_locks(self, transaction: Tx, sequence: int, coin: Coin) -> None:
        following = self._ledger.height + 1
        if coin.coinbase and following - coin.height < COINBASE_MATURITY:
            raise Rejected("bad-txns-premature-spend-of-coinbase", "it spends a block reward too early")
        if transaction.version < 2 or sequence & _LOCK_DISABLED:
            return
        units = sequence & _LOCK_MASK
        if sequence & _LOCK_IN_TIME:
            since = self._ledger.median_time(max(coin.height - 1, 0)) + units * _LOCK_SECONDS
            early = self._ledger.median_time(self._ledger.height) < since
        else:
            early = following < coin.height + units
        if early:
            raise Rejected("non-BIP68-final", f"non-BIP68-final: an input must be {units} units old")

    def _check_conflicts(self, transaction: Tx, fee: int, vbytes: int) -> list[bytes]:
        rivals = {self.spends[one.outpoint] for one in transaction.inputs if one.outpoint in self.spends}
        if not rivals:
            return []
        evicted = self._with_descendants(rivals)
        if any(one.outpoint.txid in evicted for one in transaction.inputs):
            raise Rejected("bad-txns-spends-conflicting-tx", "it spends what it would replace")
        lost = sum(self.entries[loser].fee_sat for loser in evicted)
        slower = any(fee * self.entries[rival].vbytes <= self.entries[rival].fee_sat * vbytes for rival in rivals)
        if slower or fee < lost + fee_sat(vbytes, self._relay):
            raise Rejected("insufficient fee", "insufficient fee: it does not pay enough to replace what waits")
        return evicted

    def _check_ancestors(self, transaction: Tx) -> None:
        found: set[bytes] = set()
        open_ = [one.outpoint.txid for one in transaction.inputs]
        while open_:
            txid = open_.pop()
            if txid in self.entries and txid not in found:
                found.add(txid)
                open_ += [one.outpoint.txid for one in self.entries[txid].transaction.inputs]
        if len(found) >= MEMPOOL_ANCESTORS_MAX:
            raise Rejected("too-long-mempool-chain", "too many unconfirmed transactions hang together")

    def _with_descendants(self, roots: set[bytes]) -> list[bytes]:
        found = set(roots)
        for txid, entry in self.entries.items():  # parents come before their children
            if any(one.outpoint.txid in found for one in entry.transaction.inputs):
                found.add(txid)
        return [txid for txid in self.entries if txid in found]

    def _remove(self, txid: bytes) -> None:
        entry = self.entries.pop(txid, None)
        if entry is not None:
            for one in entry.transaction.inputs:
                self.spends.pop(one.outpoint, None)


def _check_shape(transaction: Tx) -> None:
    outpoints = [one.outpoint for one in transaction.inputs]
    if not outpoints or not transaction.outputs:
        raise Rejected("bad-txns-empty", "it has no inputs or no outputs")
    if len(set(outpoints)) != len(outpoints):
        raise Rejected("bad-txns-inputs-duplicate", "it spends one output twice")
    if transaction.version not in (1, 2, 3):
        raise Rejected("version", "its version is not a usual one")
    if transaction.weight > TX_MAX_BYTES or len(transaction.serialise(witness=False)) < _SMALLEST_BYTES:
        raise Rejected("tx-size", "it is too large or too small")
    said = 0
    for output in transaction.outputs:
        if not 0 <= output.value_sat <= SUPPLY_MAX_SAT:
            raise Rejected("bad-txns-vout-range", "an output's value is impossible")
        if output.script.startswith(_OP_RETURN):
            said += len(output.script)
        elif _is_dust(output):
            raise Rejected("dust", f"dust: an output of {output.value_sat} sat is less than {dust_sat(output.script)}")
    if said > _DATA_MAX_BYTES:
        raise Rejected("datacarrier", f"its data outputs hold {said} bytes, more than {_DATA_MAX_BYTES}")


def _is_dust(output: TxOut) -> bool:
    return output.value_sat < dust_sat(output.script)
