"""What an index server knows of the development chain: the transactions that concern a script."""

from escrow.core.transaction import Tx, parse
from escrow.shell.ledger import COINBASE_OUTPOINT
from escrow.shell.regtest import Regtest
from wire.ports import TxOut


def previous(chain: Regtest, transaction: Tx) -> list[TxOut | None]:
    """The outputs that a transaction spends; None for a coinbase's."""
    found: list[TxOut | None] = []
    for one in transaction.inputs:
        if one.outpoint == COINBASE_OUTPOINT:
            found.append(None)
        else:
            spent = chain.outpoint(one.outpoint)
            assert spent is not None
            found.append(TxOut(spent.value_sat, spent.script))
    return found


def history(chain: Regtest, wanted: bytes) -> list[tuple[Tx, int | None]]:
    """Confirmed transactions in the blocks' order, then waiting ones, that pay to a script or spend from it."""
    lines: list[tuple[Tx, int | None]] = list(chain._ledger.transactions.values())
    for txid in chain.mempool_ids():
        waiting = chain.transaction(txid)
        assert waiting is not None
        lines.append((parse(waiting.raw), None))

    def concerns(transaction: Tx) -> bool:
        scripts = [one.script for one in transaction.outputs]
        scripts += [one.script for one in previous(chain, transaction) if one is not None]
        return wanted in scripts

    return [(transaction, height) for transaction, height in lines if concerns(transaction)]
