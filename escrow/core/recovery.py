"""What the chain shows of somebody's money, judged from his key alone: his escrows, how they stand, and what he can take.

    waiting     the escrow is whole; the buyer alone may take it back from the refund height on
    due         the same, and the refund height has come
    refunding   a refund waits for its block
    settled, refunded, ruled    over; what came back is a coin of the account
    locked      the seller's part is on the chain, locked to a key: his if he shows the key
    claimed     that, and he has taken it; or the buyer has, which a look from outside need not tell apart
    gone        the funding is not on the chain (any more)

Nothing here asks whether the disk is lost: a look changes nothing, and a refund that somebody else has broadcast is the same one.
"""

import dataclasses
import enum
from collections.abc import Iterable

from escrow.core.memo import Found, found_in
from escrow.core.script import p2wpkh, witness_program
from escrow.core.spends import SpendKind, classify, refund
from escrow.core.transaction import Tx, parse
from wire.account import hash160
from wire.keys import SecretKey
from wire.network import Network
from wire.ports import OutInfo, OutPoint


class Standing(enum.Enum):
    """How an escrow stands; see above."""

    WAITING = "waiting"
    DUE = "due"
    REFUNDING = "refunding"
    SETTLED = "settled"
    REFUNDED = "refunded"
    RULED = "ruled"
    LOCKED = "locked"
    CLAIMED = "claimed"
    GONE = "gone"


OVER = frozenset([Standing.SETTLED, Standing.REFUNDED, Standing.RULED, Standing.CLAIMED])
_KINDS = {SpendKind.SETTLED: Standing.SETTLED, SpendKind.REFUNDED: Standing.REFUNDED, SpendKind.RULED: Standing.RULED}


@dataclasses.dataclass(frozen=True, slots=True)
class Judged:
    """An escrow with its standing, what its end pays the buyer's account (None while it is open), and the lock's output."""

    found: Found
    standing: Standing
    confirmed: bool
    spender: bytes | None = None
    to_buyer_sat: int | None = None
    to_seller_sat: int | None = None
    locked: OutPoint | None = None


def touches(transaction: Tx, script: bytes) -> bool:
    """Whether the transaction pays to the witness output ``script``, or spends from it by showing its key."""
    if any(one.script == script for one in transaction.outputs):
        return True
    program = witness_program(script)
    wanted = None if program is None else program[1]
    return any(len(one.witness) == 2 and hash160(one.witness[1]) == wanted for one in transaction.inputs)


def escrows_in(key: SecretKey, network: Network, instance: bytes, history: Iterable[Tx]) -> list[Found]:
    """The escrows that the account funded, found in the transactions that spend from it."""
    mine = p2wpkh(key.public)
    return [one for transaction in history if touches(transaction, mine) for one in found_in(key, network, instance, transaction)]


def judge(found: Found, info: OutInfo | None, height: int) -> Judged:
    """How the escrow stands, by what the chain says of its output."""
    if info is None:
        return Judged(found, Standing.GONE, confirmed=False)
    confirmed = info.height is not None
    if info.spent_by is None:
        due = height >= found.contract.terms.refund_height
        return Judged(found, Standing.DUE if due else Standing.WAITING, confirmed)
    spend = classify(found.contract, parse(info.spent_by.raw), found.outpoint, ())
    txid = spend.transaction.txid
    settled = info.spent_by.height is not None
    if spend.kind is SpendKind.CONDITIONAL:
        locked = OutPoint(txid, 0)
        return Judged(found, Standing.LOCKED, settled, txid, spend.to_buyer_sat, spend.transaction.outputs[0].value_sat, locked)
    standing = _KINDS[spend.kind]
    if standing is Standing.REFUNDED and not settled:
        standing = Standing.REFUNDING
    return Judged(found, standing, settled, txid, spend.to_buyer_sat, spend.to_seller_sat)


def judge_lock(judged: Judged, info: OutInfo | None) -> Judged:
    """A locked escrow again, by what the chain says of the output that is locked."""
    taken = info is not None and info.spent_by is not None
    return dataclasses.replace(judged, standing=Standing.CLAIMED) if taken else judged


def take_back(judged: Judged, key: SecretKey, feerate_sat_per_kvb: int) -> Tx:
    """The refund of an escrow that is due."""
    return refund(judged.found.contract, judged.found.outpoint, key, feerate_sat_per_kvb)
