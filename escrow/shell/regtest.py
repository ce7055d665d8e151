"""A whole regtest chain in one object: the kernel judges, the ledger mirrors, the mempool waits, and blocks are made on demand.

Plain blocking calls, one at a time; ``KernelChain`` puts them behind trio. The faucet's coins pay to a script that anyone can
spend: play money needs no key.
"""

import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from escrow.core.amounts import fee_sat
from escrow.core.recovery import touches
from escrow.core.script import p2wsh
from escrow.core.transaction import BadTransaction, Tx, TxIn, parse, parse_block
from escrow.shell.consensus import Consensus
from escrow.shell.ledger import COINBASE_MATURITY, Coin, Ledger
from escrow.shell.mempool import Mempool
from escrow.shell.mining import BLOCK_WEIGHT_MAX, build_block
from wire.account import sha256d
from wire.errors import Refused
from wire.network import Network
from wire.ports import OutInfo, OutPoint, Rejected, TxInfo, TxOut

ANYONE: bytes = b"\x51"
FAUCET_SCRIPT: bytes = p2wsh(ANYONE)
_FAUCET_VBYTES = 140


class Regtest:
    """The chain in ``folder``; ``clock`` gives seconds since 1970 for block times."""

    def __init__(self, folder: Path, network: Network, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        # Without it two chains begun in the same second would share their first blocks, and so their name.
        self._tag = secrets.token_bytes(8)
        self._consensus = Consensus(folder)
        self._ledger = Ledger()
        for height in range(self._consensus.height + 1):
            self._ledger.connect(self._consensus.block(height), height)
        self._mempool = Mempool(self._ledger, network.feerate_min_sat_per_kvb)

    def close(self) -> None:
        """Give the folder back."""
        self._consensus.close()

    # --- reading -----------------------------------------------------------------------------------------------

    @property
    def height(self) -> int:
        """Height of the best block."""
        return self._ledger.height

    def block_hash(self, height: int) -> bytes:
        """Hash of the best chain's block at ``height``. Raises ``Refused``."""
        if not 0 <= height <= self.height:
            raise Refused("no-block", f"there is no block at height {height}")
        return self._consensus.block_hash(height)

    def height_of(self, block: bytes) -> int:
        """Height of a block of the best chain. Raises ``Refused``."""
        for height in range(self.height, -1, -1):
            if self._consensus.block_hash(height) == block:
                return height
        raise Refused("no-block", "this block is not in the best chain")

    def block(self, height: int) -> bytes:
        """The serialised block at ``height``. Raises ``Refused``."""
        self.block_hash(height)
        return self._consensus.block(height)

    def median_time(self, height: int) -> int:
        """Median time past at ``height``, seconds."""
        return self._ledger.median_time(height)

    def mempool_ids(self) -> list[bytes]:
        """Txids that wait, oldest first."""
        return list(self._mempool.entries)

    def transaction(self, txid: bytes) -> TxInfo | None:
        """A confirmed or waiting transaction."""
        confirmed = self._ledger.transactions.get(txid)
        if confirmed is not None:
            return TxInfo(confirmed[0].serialise(), confirmed[1])
        waiting = self._mempool.entries.get(txid)
        return None if waiting is None else TxInfo(waiting.transaction.serialise(), None)

    def outpoint(self, outpoint: OutPoint) -> OutInfo | None:
        """An output with its spender, whatever state either is in."""
        coin = self._ledger.coins.get(outpoint)
        if coin is None and outpoint in self._ledger.spent:
            coin, spender = self._ledger.spent[outpoint]
            return OutInfo(coin.output.value_sat, coin.output.script, coin.height, self.transaction(spender))
        waiting = self._mempool.entries.get(outpoint.txid)
        height: int | None = None
        if coin is not None:
            output, height = coin.output, coin.height
        elif waiting is not None and outpoint.vout < len(waiting.transaction.outputs):
            output = waiting.transaction.outputs[outpoint.vout]
        else:
            return None
        rival = self._mempool.spends.get(outpoint)
        return OutInfo(output.value_sat, output.script, height, None if rival is None else self.transaction(rival))

    def is_coinbase(self, outpoint: OutPoint) -> bool:
        """Whether the unspent output is a block's reward."""
        coin = self._ledger.coins.get(outpoint)
        return coin is not None and coin.coinbase

    def coins_of(self, script: bytes) -> list[Coin]:
        """Confirmed unspent outputs with this script, oldest first; those spent by waiting transactions included."""
        found = [one for one in self._ledger.coins.values() if one.output.script == script]
        return sorted(found, key=lambda one: (one.height, one.outpoint.txid, one.outpoint.vout))

    def history_of(self, script: bytes, since: int) -> list[TxInfo]:
        """Confirmed transactions from height ``since`` on that pay to this witness script or spend from it, oldest first."""
        return [
            TxInfo(transaction.serialise(), height)
            for transaction, height in self._ledger.transactions.values()
            if height >= since and touches(transaction, script)
        ]

    # --- writing -----------------------------------------------------------------------------------------------

    def submit(self, raw: bytes) -> bytes:
        """Let a transaction wait for a block; returns its txid. Raises ``Rejected``."""
        try:
            transaction = parse(raw)
        except BadTransaction as error:
            raise Rejected(error.code, error.sentence) from None
        return self._mempool.accept(transaction)

    def mine(self, count: int = 1, script: bytes = FAUCET_SCRIPT) -> list[bytes]:
        """Make ``count`` blocks from what waits; returns their hashes. Raises ``Rejected`` if the kernel refuses one."""
        hashes = []
        for _ in range(count):
            chosen, weight, fees_sat = [], 0, 0
            for entry in self._mempool.entries.values():
                weight += 4 * entry.vbytes
                if weight > BLOCK_WEIGHT_MAX:
                    break
                chosen.append(entry.transaction)
                fees_sat += entry.fee_sat
            hashes.append(self.mine_exactly(chosen, fees_sat, script))
        return hashes

    def mine_exactly(self, body: Sequence[Tx], fees_sat: int, script: bytes = FAUCET_SCRIPT) -> bytes:
        """Make one block of exactly these transactions on the best block. Raises ``Rejected``."""
        height = self.height + 1
        raw = build_block(
            height=height,
            previous=self.block_hash(self.height),
            time_s=max(int(self._clock()), self.median_time(self.height) + 1),
            script=script,
            body=body,
            fees_sat=fees_sat,
            tag=self._tag,
        )
        self.add_block(raw)
        if self.height != height:
            raise Rejected("bad-block", "the kernel did not make the new block its best one")
        return sha256d(raw[:80])

    def add_block(self, raw: bytes) -> None:
        """Offer a block, on whichever branch, and follow what the kernel does with it. Raises ``Rejected``."""
        returned: list[Tx] = []
        events = self._consensus.process(raw)
        for event in events:
            if event.connected:
                self._ledger.connect(event.raw, event.height)
                self._mempool.block_connected(parse_block(event.raw)[1])
            else:
                returned = self._ledger.disconnect(event.raw, event.height) + returned
        if any(not event.connected for event in events):
            self._mempool.rebuild(returned)

    def faucet(self, script: bytes, value_sat: int) -> bytes:
        """Send play money; returns the txid, still to be mined. Raises ``Refused`` and ``Rejected``."""
        fee = fee_sat(_FAUCET_VBYTES, 2_000)
        for coin in self.coins_of(FAUCET_SCRIPT):
            young = coin.coinbase and self.height + 1 - coin.height < COINBASE_MATURITY
            change_sat = coin.output.value_sat - value_sat - fee
            if young or change_sat < 1_000 or coin.outpoint in self._mempool.spends:
                continue
            spending = TxIn(outpoint=coin.outpoint, witness=(ANYONE,))
            outputs = (TxOut(value_sat, script), TxOut(change_sat, FAUCET_SCRIPT))
            return self._mempool.accept(Tx(inputs=(spending,), outputs=outputs))
        raise Refused("faucet-dry", "the faucet has no free coin of this size now; mine a block and ask again")
