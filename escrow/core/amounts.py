"""Satoshi on chain: dust, fees from sizes, and how much a channel must hold.

Sizes are the largest that a transaction of its kind can have, measured with two outputs and 72-byte signatures, so a fee
computed from them never falls short of its rate. Sources: Bitcoin Core's dust rule at 3 sat per virtual byte; ``MARKET``,
"From job to money", for the capacity.
"""

from typing import Final

from escrow.core.script import witness_program
from escrow.core.transaction import compact
from wire.limits import CHANNEL_CAPACITY_MIN_FEE_MULTIPLE
from wire.money import MSAT_PER_SAT, ceil_sat

DUST_RATE_SAT_PER_VBYTE: Final = 3
DUST_P2WPKH_SAT: Final = 294
DUST_P2WSH_SAT: Final = 330

FUND_VBYTES: Final = 153
CLOSE_PLAIN_VBYTES: Final = 192
CLOSE_ARBITER_VBYTES: Final = 221
CLAIM_VBYTES: Final = 140
LAPSE_VBYTES: Final = 131
REFUND_VBYTES: Final = 160
RULING_VBYTES: Final = 210


def dust_sat(script: bytes) -> int:
    """The least value of an output with this script that nodes relay."""
    spending = 67 if witness_program(script) is not None else 148
    return DUST_RATE_SAT_PER_VBYTE * (8 + len(compact(len(script))) + len(script) + spending)


def fee_sat(vbytes: int, feerate_sat_per_kvb: int) -> int:
    """The fee for a size at a rate, rounded up."""
    return -(-vbytes * feerate_sat_per_kvb // 1_000)


def close_fee_sat(feerate_sat_per_kvb: int, *, arbiter: bool) -> int:
    """What every closing state of a channel pays to the miners."""
    return fee_sat(CLOSE_ARBITER_VBYTES if arbiter else CLOSE_PLAIN_VBYTES, feerate_sat_per_kvb)


def enforced_from_sat(feerate_sat_per_kvb: int) -> int:
    """The least balance that a hash-locked state makes good on chain: below it there is nothing left after the claim's fee."""
    return max(DUST_P2WSH_SAT, fee_sat(CLAIM_VBYTES, feerate_sat_per_kvb) + DUST_P2WPKH_SAT)


def capacity_least_sat(feerate_sat_per_kvb: int, *, arbiter: bool) -> int:
    """The least sensible capacity: a multiple of everything that opening, closing and claiming can cost."""
    costs = fee_sat(FUND_VBYTES, feerate_sat_per_kvb) + fee_sat(CLAIM_VBYTES, feerate_sat_per_kvb)
    return CHANNEL_CAPACITY_MIN_FEE_MULTIPLE * (costs + close_fee_sat(feerate_sat_per_kvb, arbiter=arbiter))


def capacity_sat(total_msat: int, feerate_sat_per_kvb: int, *, arbiter: bool = False) -> int:
    """The capacity a channel needs to pay ``total_msat``."""
    needed = ceil_sat(total_msat) + close_fee_sat(feerate_sat_per_kvb, arbiter=arbiter) + DUST_P2WPKH_SAT
    return max(needed, capacity_least_sat(feerate_sat_per_kvb, arbiter=arbiter))


def usable_msat(capacity: int, feerate_sat_per_kvb: int, *, arbiter: bool) -> int:
    """The most that a channel of ``capacity`` satoshi can pay; the inverse of ``capacity_sat``."""
    return max(0, capacity - close_fee_sat(feerate_sat_per_kvb, arbiter=arbiter) - DUST_P2WPKH_SAT) * MSAT_PER_SAT
