"""The transactions that spend an escrow: states, refund, ruling, claim, lapse; and how to tell them apart on the chain.

A state is ``(paid, lock)``: one transaction that pays the seller's whole balance to him, or locks it to the hash of a key,
and the rest to the buyer. Outputs below the dust limit are left to the fee, so for every state
``to_seller + to_buyer + fee == capacity``.
"""

import dataclasses
import enum
from collections.abc import Iterable

from escrow.core.amounts import CLAIM_VBYTES, DUST_P2WPKH_SAT, LAPSE_VBYTES, REFUND_VBYTES, dust_sat, fee_sat
from escrow.core.contract import Branch, Contract
from escrow.core.script import p2wsh
from escrow.core.transaction import SEQUENCE_REPLACEABLE, SIGHASH_ALL, Tx, TxIn, sha256
from wire.errors import Refused
from wire.keys import SecretKey, verify_ecdsa
from wire.money import MSAT_PER_SAT
from wire.ports import OutPoint, TxOut


class OverCapacity(Refused):
    """The state pays more than the channel holds."""


def state(contract: Contract, funding: OutPoint, paid_msat: int, lock: bytes | None) -> Tx:
    """The unsigned state. Raises ``OverCapacity``."""
    if not 0 <= paid_msat <= contract.usable_msat:
        raise OverCapacity("over-capacity", f"{paid_msat} msat are more than the {contract.usable_msat} of this channel")
    paid_sat = paid_msat // MSAT_PER_SAT
    rest_sat = contract.terms.capacity_sat - paid_sat - contract.close_fee_sat
    script = contract.to_seller_script if lock is None else p2wsh(contract.conditional_script(lock))
    outputs = [TxOut(paid_sat, script), TxOut(rest_sat, contract.to_buyer_script)]
    return Tx(
        inputs=(TxIn(outpoint=funding),),
        outputs=tuple(one for one in outputs if one.value_sat >= dust_sat(one.script)),
    )


def escrow_digest(contract: Contract, spending: Tx) -> bytes:
    """What a signature over a spend of the escrow signs."""
    return spending.digest(0, contract.witness_script, contract.terms.capacity_sat)


def sign_spend(key: SecretKey, digest: bytes) -> bytes:
    """A signature as a witness carries it: DER and the sighash byte."""
    return key.sign_ecdsa(digest) + bytes([SIGHASH_ALL])


def sign_state(contract: Contract, coop: SecretKey, funding: OutPoint, paid_msat: int, lock: bytes | None) -> bytes:
    """The buyer's signature of a state, DER alone; ``coop`` is his tweaked key."""
    return coop.sign_ecdsa(escrow_digest(contract, state(contract, funding, paid_msat, lock)))


def is_signed(contract: Contract, funding: OutPoint, paid_msat: int, lock: bytes | None, der: bytes) -> bool:
    """Whether ``der`` is the buyer's signature of exactly this state."""
    digest = escrow_digest(contract, state(contract, funding, paid_msat, lock))
    return verify_ecdsa(contract.buyer_coop, digest, der)


def complete(contract: Contract, unsigned: Tx, buyer_der: bytes, coop: SecretKey) -> Tx:
    """A state with both signatures; ``coop`` is the seller's tweaked key."""
    seller = sign_spend(coop, escrow_digest(contract, unsigned))
    return unsigned.with_witness(0, contract.cooperative_witness(buyer_der + bytes([SIGHASH_ALL]), seller))


def refund(contract: Contract, funding: OutPoint, key: SecretKey, feerate_sat_per_kvb: int) -> Tx:
    """The buyer takes everything back; valid in blocks above the refund height. ``key`` is his account key."""
    value_sat = contract.terms.capacity_sat - fee_sat(REFUND_VBYTES, feerate_sat_per_kvb)
    unsigned = Tx(
        inputs=(TxIn(outpoint=funding),),
        outputs=(TxOut(value_sat, contract.to_buyer_script),),
        lock_time=contract.terms.refund_height,
    )
    signature = sign_spend(contract.secret(key, Branch.REFUND), escrow_digest(contract, unsigned))
    return unsigned.with_witness(0, contract.refund_witness(signature))


def ruling(contract: Contract, funding: OutPoint, to_seller_sat: int, to_buyer_sat: int) -> Tx:
    """The unsigned split by the arbiter with one party; valid in blocks above the ruling height."""
    outputs = (TxOut(to_seller_sat, contract.to_seller_script), TxOut(to_buyer_sat, contract.to_buyer_script))
    return Tx(
        inputs=(TxIn(outpoint=funding),),
        outputs=tuple(one for one in outputs if one.value_sat >= dust_sat(one.script)),
        lock_time=contract.terms.ruling_height,
    )


def _one_output(source: OutPoint, value_sat: int, fee: int, script: bytes, sequence: int) -> Tx | None:
    rest_sat = value_sat - fee
    if rest_sat < DUST_P2WPKH_SAT:
        return None
    return Tx(inputs=(TxIn(outpoint=source, sequence=sequence),), outputs=(TxOut(rest_sat, script),))


def claim_fee_sat(contract: Contract, feerate_sat_per_kvb: int, *, with_parent: bool) -> int:
    """The fee of the claim at a rate; ``with_parent`` makes up for a close that pays less than this rate."""
    fee = fee_sat(CLAIM_VBYTES, feerate_sat_per_kvb)
    owed = contract.close_fee_sat * (feerate_sat_per_kvb - contract.terms.feerate_sat_per_kvb)
    return fee + (max(0, owed // contract.terms.feerate_sat_per_kvb) if with_parent else 0)


def claim(contract: Contract, close: Tx, lock: bytes, preimage: bytes, key: SecretKey, fee: int) -> Tx | None:
    """The seller takes the conditional output 0 of ``close``, showing the key; None when the fee leaves only dust.

    ``key`` is his account key.
    """
    value_sat, source = close.outputs[0].value_sat, OutPoint(close.txid, 0)
    unsigned = _one_output(source, value_sat, fee, contract.to_seller_script, SEQUENCE_REPLACEABLE)
    if unsigned is None:
        return None
    digest = unsigned.digest(0, contract.conditional_script(lock), value_sat)
    signature = sign_spend(contract.secret(key, Branch.CLAIM), digest)
    return unsigned.with_witness(0, contract.claim_witness(lock, preimage, signature))


def lapse(contract: Contract, close: Tx, lock: bytes, key: SecretKey, feerate_sat_per_kvb: int) -> Tx | None:
    """The buyer takes the conditional output 0 of ``close`` that nobody claimed; None when only dust would be left.

    ``key`` is his account key.
    """
    value_sat, source = close.outputs[0].value_sat, OutPoint(close.txid, 0)
    fee = fee_sat(LAPSE_VBYTES, feerate_sat_per_kvb)
    unsigned = _one_output(source, value_sat, fee, contract.to_buyer_script, contract.terms.claim_delay_blocks)
    if unsigned is None:
        return None
    digest = unsigned.digest(0, contract.conditional_script(lock), value_sat)
    signature = sign_spend(contract.secret(key, Branch.LAPSE), digest)
    return unsigned.with_witness(0, contract.lapse_witness(lock, signature))


class SpendKind(enum.Enum):
    """What a transaction that spends the escrow is."""

    SETTLED = "settled"
    CONDITIONAL = "conditional"
    REFUNDED = "refunded"
    RULED = "ruled"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Spend:
    """A spend of the escrow as found on the chain; ``lock`` is set when it is conditional on a lock we know."""

    kind: SpendKind
    transaction: Tx
    lock: bytes | None
    to_seller_sat: int
    to_buyer_sat: int


def paid_to(transaction: Tx, script: bytes) -> int:
    """Satoshi that the transaction pays to ``script``."""
    return sum(one.value_sat for one in transaction.outputs if one.script == script)


def classify(contract: Contract, spending: Tx, funding: OutPoint, locks: Iterable[bytes]) -> Spend:
    """Tell a spend by its witness branch and first output. ``locks`` are those that states were signed with.

    The number of items tells the branch. The item that answers the script's IF does not: no signature covers it, and consensus
    takes any bytes that are not zero for yes, so whoever mines a state may write there what he likes.
    """
    witness = next((one.witness for one in spending.inputs if one.outpoint == funding), ())
    to_seller = paid_to(spending, contract.to_seller_script)
    to_buyer = paid_to(spending, contract.to_buyer_script)
    kind, lock = SpendKind.RULED, None
    if len(witness) == 5:
        kind = SpendKind.SETTLED
        first = spending.outputs[0].script if spending.outputs else b""
        if first not in (contract.to_seller_script, contract.to_buyer_script):
            kind = SpendKind.CONDITIONAL
            lock = next((one for one in locks if p2wsh(contract.conditional_script(one)) == first), None)
    elif len(witness) in (3, 4):
        kind = SpendKind.REFUNDED
    return Spend(kind=kind, transaction=spending, lock=lock, to_seller_sat=to_seller, to_buyer_sat=to_buyer)


def key_shown(spending: Tx, source: OutPoint, lock: bytes) -> bytes | None:
    """The key that a claim of the conditional output ``source`` shows, or None when this is not such a claim."""
    for one in spending.inputs:
        if one.outpoint == source and len(one.witness) == 4 and sha256(one.witness[1]) == lock:
            return one.witness[1]
    return None
