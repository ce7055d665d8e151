"""What the kernel does not tell: which outputs are unspent, who spent the others, and where every transaction stands.

A mirror of the best chain that follows blocks in both directions, so after a reorganisation it is what a fresh start would
have read. Everything is in memory; a development chain is small.
"""

from dataclasses import dataclass

from escrow.core.transaction import Tx, parse_block
from wire.errors import require
from wire.ports import OutPoint, TxOut

COINBASE_OUTPOINT = OutPoint(bytes(32), 0xFFFFFFFF)
COINBASE_MATURITY = 100
_MEDIAN_BLOCKS = 11


@dataclass(frozen=True, slots=True)
class Coin:
    """An unspent output and where it was made."""

    outpoint: OutPoint
    output: TxOut
    height: int
    coinbase: bool


class Ledger:
    """The best chain's outputs and transactions."""

    def __init__(self) -> None:
        self.coins: dict[OutPoint, Coin] = {}
        self.spent: dict[OutPoint, tuple[Coin, bytes]] = {}
        self.transactions: dict[bytes, tuple[Tx, int]] = {}
        self._times: list[int] = []

    @property
    def height(self) -> int:
        """Height of the last block followed; -1 before the genesis block."""
        return len(self._times) - 1

    def median_time(self, height: int) -> int:
        """Median time past of the block at ``height``, in seconds (BIP113)."""
        window = sorted(self._times[max(0, height - _MEDIAN_BLOCKS + 1) : height + 1])
        return window[len(window) // 2]

    def connect(self, raw: bytes, height: int) -> None:
        """Follow one block forward."""
        require(height == self.height + 1, "mirror-gap", f"block {height} came after {self.height}")
        header, body = parse_block(raw)
        self._times.append(int.from_bytes(header[68:72], "little"))
        if height == 0:
            return  # the genesis block's output can never be spent
        for place, transaction in enumerate(body):
            txid = transaction.txid
            self.transactions[txid] = (transaction, height)
            if place > 0:
                for one in transaction.inputs:
                    self.spent[one.outpoint] = (self.coins.pop(one.outpoint), txid)
            for vout, output in enumerate(transaction.outputs):
                outpoint = OutPoint(txid, vout)
                self.coins[outpoint] = Coin(outpoint, output, height, place == 0)

    def disconnect(self, raw: bytes, height: int) -> list[Tx]:
        """Follow one block back; returns its transactions without the coinbase, in their order."""
        require(height == self.height, "mirror-gap", f"block {height} left while {self.height} was the last")
        _, body = parse_block(raw)
        self._times.pop()
        for place, transaction in reversed(list(enumerate(body))):
            txid = transaction.txid
            self.transactions.pop(txid)
            for vout in range(len(transaction.outputs)):
                self.coins.pop(OutPoint(txid, vout))
            if place > 0:
                for one in transaction.inputs:
                    self.coins[one.outpoint] = self.spent.pop(one.outpoint)[0]
        return list(body[1:])
