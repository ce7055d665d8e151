"""What happened to an account's coins, told from its transactions: received, sent, mined, channels funded and closed."""

import dataclasses
import enum
from collections.abc import Iterable, Mapping

from escrow.core.script import witness_program
from escrow.core.transaction import Tx, TxIn
from wire.account import hash160
from wire.ports import OutPoint

_COINBASE = bytes(32)


class Kind(enum.Enum):
    """What a transaction was for the account."""

    RECEIVED = "received"
    SENT = "sent"
    MINED = "mined"
    FUNDED = "channel funded"
    CLOSED = "channel closed"
    MOVED = "moved"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One transaction. ``change_sat`` is by how much the account's coins grew; it and ``fee_sat`` (what the account paid to the
    miners) are None where an input's value is not in what was read. ``height`` is None while it waits.
    """

    txid: bytes
    height: int | None
    kind: Kind
    change_sat: int | None
    fee_sat: int | None
    channels: tuple[str, ...]


def entries(script: bytes, transactions: Iterable[tuple[Tx, int | None]], escrows: Mapping[OutPoint, str]) -> list[Entry]:
    """The account's story in the order of ``transactions``. ``escrows`` names the outputs that hold channels."""
    program = witness_program(script)
    mine = b"" if program is None else program[1]
    values: dict[OutPoint, int] = {}
    told = []
    for transaction, height in transactions:
        txid = transaction.txid
        spent = [one for one in transaction.inputs if one.outpoint in values or _shows(one, mine)]
        known = all(one.outpoint in values for one in spent)
        out = sum(values[one.outpoint] for one in spent) if known else None
        back = sum(one.value_sat for one in transaction.outputs if one.script == script)
        ours = bool(spent) and len(spent) == len(transaction.inputs)
        opened = [escrows[place] for vout in range(len(transaction.outputs)) if (place := OutPoint(txid, vout)) in escrows]
        closed = [escrows[one.outpoint] for one in transaction.inputs if one.outpoint in escrows]
        told.append(
            Entry(
                txid=txid,
                height=height,
                kind=_kind(transaction, script, bool(spent), bool(opened), bool(closed)),
                change_sat=None if out is None else back - out,
                fee_sat=out - sum(one.value_sat for one in transaction.outputs) if ours and out is not None else None,
                channels=tuple(opened or closed),
            )
        )
        values |= {OutPoint(txid, vout): one.value_sat for vout, one in enumerate(transaction.outputs) if one.script == script}
    return told


def _shows(one: TxIn, mine: bytes) -> bool:
    return len(one.witness) == 2 and hash160(one.witness[1]) == mine


def _kind(transaction: Tx, script: bytes, spends: bool, opens: bool, closes: bool) -> Kind:
    if opens:
        return Kind.FUNDED
    if closes:
        return Kind.CLOSED
    if spends:
        return Kind.MOVED if all(one.script == script for one in transaction.outputs) else Kind.SENT
    return Kind.MINED if transaction.inputs[0].outpoint.txid == _COINBASE else Kind.RECEIVED
