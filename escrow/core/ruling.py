"""The ruling: what an arbiter signs, what a party makes of it, and how a ruling divides a channel's money.

From the ruling height on, the arbiter with one party may spend the escrow. He holds nothing: his signature is under one
transaction that pays both parties' account keys, and means nothing until a party adds his own.
"""

from escrow.core.amounts import RULING_VBYTES, fee_sat
from escrow.core.contract import Branch, Contract
from escrow.core.spends import escrow_digest, ruling, sign_spend
from escrow.core.transaction import SIGHASH_ALL, Tx
from wire.errors import Refused
from wire.keys import SecretKey, verify_ecdsa
from wire.ports import OutPoint


class BadRuling(Refused):
    """The money of this channel cannot be divided like that."""


def ruling_fee_sat(contract: Contract, feerate_sat_per_kvb: int) -> int:
    """What a ruling pays to the miners: the going rate, never less than the terms'."""
    return fee_sat(RULING_VBYTES, max(feerate_sat_per_kvb, contract.terms.feerate_sat_per_kvb))


def divide(contract: Contract, to_seller_sat: int, feerate_sat_per_kvb: int) -> tuple[int, int]:
    """What seller and buyer get when the seller is to have ``to_seller_sat``; the fee is taken off the rest. Raises
    ``BadRuling``.
    """
    rest = contract.terms.capacity_sat - ruling_fee_sat(contract, feerate_sat_per_kvb) - to_seller_sat
    if to_seller_sat < 0 or rest < 0:
        most = contract.terms.capacity_sat - ruling_fee_sat(contract, feerate_sat_per_kvb)
        raise BadRuling("bad-ruling", f"this channel can give the seller 0 to {most} sat")
    return to_seller_sat, rest


def _signed(contract: Contract, funding: OutPoint, to_seller_sat: int, to_buyer_sat: int) -> tuple[Tx, bytes]:
    unsigned = ruling(contract, funding, to_seller_sat, to_buyer_sat)
    if to_seller_sat + to_buyer_sat > contract.terms.capacity_sat or not unsigned.outputs:
        raise BadRuling("bad-ruling", "a ruling pays something, and not more than the channel holds")
    return unsigned, escrow_digest(contract, unsigned)


def sign_ruling(contract: Contract, funding: OutPoint, to_seller_sat: int, to_buyer_sat: int, arbiter: SecretKey) -> bytes:
    """The arbiter's half: DER without the sighash byte. Raises ``BadRuling``."""
    if arbiter.public != contract.terms.arbiter:
        raise BadRuling("not-the-arbiter", "this channel has another arbiter")
    _, digest = _signed(contract, funding, to_seller_sat, to_buyer_sat)
    return arbiter.sign_ecdsa(digest)


def is_ruling(contract: Contract, funding: OutPoint, to_seller_sat: int, to_buyer_sat: int, der: bytes) -> bool:
    """Whether ``der`` is the arbiter's signature under exactly this division."""
    if contract.terms.arbiter is None:
        return False
    try:
        _, digest = _signed(contract, funding, to_seller_sat, to_buyer_sat)
    except BadRuling:
        return False
    return verify_ecdsa(contract.terms.arbiter, digest, der)


def complete_ruling(
    contract: Contract, funding: OutPoint, to_seller_sat: int, to_buyer_sat: int, der: bytes, party: SecretKey
) -> Tx:
    """The whole transaction; ``party`` is the account key of buyer or seller. Valid in blocks above the ruling height."""
    unsigned, digest = _signed(contract, funding, to_seller_sat, to_buyer_sat)
    half = sign_spend(contract.secret(party, Branch.RULE), digest)
    return unsigned.with_witness(0, contract.ruling_witness(der + bytes([SIGHASH_ALL]), half))
