"""What signatures of states sign, without building the transaction: almost all of those bytes are the same for a whole channel.

BIP143 hashes the input, its script and value, and the outputs. Only two amounts and the lock differ between two states of one
escrow, so everything else is put together once. ``spends.state`` builds the same state as a transaction, and a test holds
the two to each other.
"""

from typing import Final

from escrow.core.amounts import DUST_P2WPKH_SAT, DUST_P2WSH_SAT
from escrow.core.contract import Contract
from escrow.core.spends import OverCapacity
from escrow.core.transaction import SEQUENCE_REPLACEABLE, SIGHASH_ALL, outpoint_bytes, prefixed, sha256
from wire.account import sha256d
from wire.keys import SecretKey, verify_ecdsa
from wire.money import MSAT_PER_SAT
from wire.ports import OutPoint

_VERSION: Final = (2).to_bytes(4, "little")
_SEQUENCE: Final = SEQUENCE_REPLACEABLE.to_bytes(4, "little")
_END: Final = (0).to_bytes(4, "little") + SIGHASH_ALL.to_bytes(4, "little")
_NO_LOCK: Final = bytes(32)
_P2WSH: Final = b"\x22\x00\x20"


class StateSigner:
    """Signs and checks the states of one funded channel."""

    def __init__(self, contract: Contract, funding: OutPoint) -> None:
        source = outpoint_bytes(funding)
        capacity = contract.terms.capacity_sat.to_bytes(8, "little")
        code = prefixed(contract.witness_script)
        self.funding = funding
        self._start = _VERSION + sha256d(source) + sha256d(_SEQUENCE) + source + code + capacity + _SEQUENCE
        self._usable_msat = contract.usable_msat
        self._split_sat = contract.terms.capacity_sat - contract.close_fee_sat
        self._buyer_coop = contract.buyer_coop
        self._to_seller, self._to_buyer = prefixed(contract.to_seller_script), prefixed(contract.to_buyer_script)
        conditional = contract.conditional_script(_NO_LOCK)
        at = conditional.index(_NO_LOCK)
        self._before_lock, self._after_lock = conditional[:at], conditional[at + len(_NO_LOCK) :]

    def digest(self, paid_msat: int, lock: bytes | None) -> bytes:
        """The 32 bytes that a signature of the state ``(paid_msat, lock)`` signs. Raises ``OverCapacity``."""
        if not 0 <= paid_msat <= self._usable_msat:
            raise OverCapacity("over-capacity", f"{paid_msat} msat are more than the {self._usable_msat} of this channel")
        paid_sat = paid_msat // MSAT_PER_SAT
        rest_sat = self._split_sat - paid_sat
        outputs = b""
        if lock is None:
            if paid_sat >= DUST_P2WPKH_SAT:
                outputs = paid_sat.to_bytes(8, "little") + self._to_seller
        elif paid_sat >= DUST_P2WSH_SAT:
            program = sha256(self._before_lock + lock + self._after_lock)
            outputs = paid_sat.to_bytes(8, "little") + _P2WSH + program
        if rest_sat >= DUST_P2WPKH_SAT:
            outputs += rest_sat.to_bytes(8, "little") + self._to_buyer
        return sha256d(self._start + sha256d(outputs) + _END)

    def sign(self, coop: SecretKey, paid_msat: int, lock: bytes | None) -> bytes:
        """The buyer's signature of a state, DER alone; ``coop`` is his tweaked key."""
        return coop.sign_ecdsa(self.digest(paid_msat, lock))

    def is_signed(self, paid_msat: int, lock: bytes | None, der: bytes) -> bool:
        """Whether ``der`` is the buyer's signature of exactly this state."""
        return verify_ecdsa(self._buyer_coop, self.digest(paid_msat, lock), der)
