"""What two parties agree on before money moves: the terms, and the scripts that follow from them alone.

    escrow        wsh(or_i( multi(2,B_coop,S_coop),                                    any time: states and the close
                      or_i( and_v(v:pk(A),and_v(v:after(t1),multi(1,B_rule,S_rule))),  from t1: the arbiter with one party
                            and_v(v:pk(B_refund),after(t2)) )))                        from t2: the buyer alone
    conditional   wsh(or_i( and_v(v:sha256(h),pk(S_claim)),                            the seller, who shows the key
                            and_v(v:pk(B_lapse),older(delay)) ))                       after the delay: the buyer

Without an arbiter the middle branch is left out. Both are sane miniscript, so any descriptor wallet can spend them; how they are
written for one is in ``descriptor``. One key per branch, a public tweak of the party's account key: a descriptor may not repeat a
key, and no account shows on chain.
"""

import dataclasses
import enum
from typing import Annotated

from escrow.core.amounts import close_fee_sat, usable_msat
from escrow.core.script import Op, assemble, p2wpkh, p2wsh
from wire.canon import Hash32, Public33, Range, pack, record
from wire.digest import context, digest
from wire.envelope import id_of
from wire.errors import Refused, require
from wire.keys import Public, SecretKey, is_public, tweak_public
from wire.limits import CREDIT_MAX_SAT, SUPPLY_MAX_SAT
from wire.network import Network
from wire.ports import TxOut

OPEN_PURPOSE = "escrow/open"
OPENED_PURPOSE = "escrow/opened"
HEIGHT_MAX = 499_999_999
"""Above it a lock time is a moment, not a height."""


class BadTerms(Refused):
    """The terms contradict themselves or each other."""


class Branch(enum.Enum):
    """Where a key stands in the scripts."""

    COOPERATE = b"coop"
    RULE = b"rule"
    REFUND = b"refund"
    CLAIM = b"claim"
    LAPSE = b"lapse"


@record
class Terms:
    """Everything a channel is. ``nonce`` makes two channels of one pair differ; ``instance`` names the chain they are on.

    The first ``credit_sat`` of a channel may be paid by states too small to be enforced; 0 forbids that.
    """

    version: Annotated[int, Range(1, 1)]
    instance: Hash32
    buyer: Public33
    seller: Public33
    nonce: Hash32
    capacity_sat: Annotated[int, Range(1, SUPPLY_MAX_SAT)]
    arbiter: Public33 | None
    ruling_height: Annotated[int, Range(0, HEIGHT_MAX)]
    refund_height: Annotated[int, Range(1, HEIGHT_MAX)]
    claim_delay_blocks: Annotated[int, Range(1, 0xFFFF)]
    feerate_sat_per_kvb: Annotated[int, Range(1_000, 10_000_000)]
    credit_sat: Annotated[int, Range(0, CREDIT_MAX_SAT)]


def check_terms(terms: Terms) -> None:
    """Raise ``BadTerms`` unless the terms make sense on their own."""
    keys = [terms.buyer, terms.seller] + ([] if terms.arbiter is None else [terms.arbiter])
    if not all(is_public(key) for key in keys):
        raise BadTerms("bad-key", "a key of the terms is not a point of the curve")
    if len(set(keys)) != len(keys):
        raise BadTerms("same-party", "buyer, seller and arbiter must be three different keys")
    if (terms.arbiter is None) != (terms.ruling_height == 0):
        raise BadTerms("bad-ruling", "a ruling height goes with an arbiter and only with one")
    if terms.ruling_height >= terms.refund_height:
        raise BadTerms("bad-ruling", "the ruling must come before the refund")


def channel_id(network: str, terms: Terms) -> bytes:
    """32 bytes that name the channel; they exist before any money does."""
    return id_of(network, OPEN_PURPOSE, pack(terms))


def chain_instance(network: Network, genesis: bytes, first: bytes) -> bytes:
    """32 bytes naming one chain: its genesis block; on regtest, where all share that one, together with block 1."""
    if network.bitcoin != "regtest":
        return genesis
    return digest(context(network.name, "chain-instance"), genesis, first)


def branch_tweak(network: str, branch: Branch, nonce: bytes) -> bytes:
    """The 32 bytes by which both parties' keys are moved for one branch of one channel."""
    return digest(context(network, "escrow/branch"), nonce, branch.value)


def in_order(one: bytes, other: bytes) -> list[bytes]:
    """Two keys as they stand in the scripts: sorted by their bytes."""
    return sorted([one, other])


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """The terms with everything that follows from them; build it with ``contract_of``."""

    network: str
    terms: Terms
    channel: bytes
    buyer_coop: Public
    seller_coop: Public
    buyer_rule: Public
    seller_rule: Public
    buyer_refund: Public
    seller_claim: Public
    buyer_lapse: Public
    witness_script: bytes
    funding: TxOut
    to_buyer_script: bytes
    to_seller_script: bytes
    close_fee_sat: int
    usable_msat: int

    def secret(self, key: SecretKey, branch: Branch) -> SecretKey:
        """A party's secret key for one branch."""
        return key.tweaked(branch_tweak(self.network, branch, self.terms.nonce))

    def conditional_script(self, lock: bytes) -> bytes:
        """The witness script that holds the seller's balance until he shows the key behind ``lock``."""
        claim: list[Op | int | bytes] = [
            Op.SIZE,
            32,
            Op.EQUALVERIFY,
            Op.SHA256,
            lock,
            Op.EQUALVERIFY,
            self.seller_claim,
            Op.CHECKSIG,
        ]
        lapse: list[Op | int | bytes] = [
            self.buyer_lapse,
            Op.CHECKSIGVERIFY,
            self.terms.claim_delay_blocks,
            Op.CHECKSEQUENCEVERIFY,
        ]
        return assemble(Op.IF, *claim, Op.ELSE, *lapse, Op.ENDIF)

    def cooperative_witness(self, buyer_signature: bytes, seller_signature: bytes) -> tuple[bytes, ...]:
        """The stack for the first branch; signatures with their sighash byte."""
        pairs = sorted([(self.buyer_coop, buyer_signature), (self.seller_coop, seller_signature)])
        return (b"", *(signature for _, signature in pairs), b"\x01", self.witness_script)

    def ruling_witness(self, arbiter_signature: bytes, party_signature: bytes) -> tuple[bytes, ...]:
        """The stack for the arbiter with one party."""
        require(self.terms.arbiter is not None, "no-arbiter", "this escrow has no arbiter")
        return (b"", party_signature, arbiter_signature, b"\x01", b"", self.witness_script)

    def refund_witness(self, buyer_signature: bytes) -> tuple[bytes, ...]:
        """The stack for the buyer alone."""
        branches = (b"",) if self.terms.arbiter is None else (b"", b"")
        return (buyer_signature, *branches, self.witness_script)

    def claim_witness(self, lock: bytes, key: bytes, seller_signature: bytes) -> tuple[bytes, ...]:
        """The stack for the seller at the conditional output; it shows the key to everybody."""
        return (seller_signature, key, b"\x01", self.conditional_script(lock))

    def lapse_witness(self, lock: bytes, buyer_signature: bytes) -> tuple[bytes, ...]:
        """The stack for the buyer at a conditional output that was not claimed in time."""
        return (buyer_signature, b"", self.conditional_script(lock))


def _witness_script(terms: Terms, coop: list[bytes], rule: list[bytes], refund: bytes) -> bytes:
    together: list[Op | int | bytes] = [2, *coop, 2, Op.CHECKMULTISIG]
    alone: list[Op | int | bytes] = [refund, Op.CHECKSIGVERIFY, terms.refund_height, Op.CHECKLOCKTIMEVERIFY]
    if terms.arbiter is None:
        return assemble(Op.IF, *together, Op.ELSE, *alone, Op.ENDIF)
    ruling: list[Op | int | bytes] = [terms.arbiter, Op.CHECKSIGVERIFY, terms.ruling_height, Op.CHECKLOCKTIMEVERIFY, Op.VERIFY]
    ruling += [1, *rule, 2, Op.CHECKMULTISIG]
    return assemble(Op.IF, *together, Op.ELSE, Op.IF, *ruling, Op.ELSE, *alone, Op.ENDIF, Op.ENDIF)


def contract_of(network: str, terms: Terms) -> Contract:
    """The contract of these terms. Raises ``BadTerms``."""
    check_terms(terms)

    def moved(public: bytes, branch: Branch) -> Public:
        return tweak_public(public, branch_tweak(network, branch, terms.nonce))

    buyer_coop, seller_coop = moved(terms.buyer, Branch.COOPERATE), moved(terms.seller, Branch.COOPERATE)
    buyer_rule, seller_rule = moved(terms.buyer, Branch.RULE), moved(terms.seller, Branch.RULE)
    refund = moved(terms.buyer, Branch.REFUND)
    script = _witness_script(terms, in_order(buyer_coop, seller_coop), in_order(buyer_rule, seller_rule), refund)
    arbiter = terms.arbiter is not None
    return Contract(
        network=network,
        terms=terms,
        channel=channel_id(network, terms),
        buyer_coop=buyer_coop,
        seller_coop=seller_coop,
        buyer_rule=buyer_rule,
        seller_rule=seller_rule,
        buyer_refund=refund,
        seller_claim=moved(terms.seller, Branch.CLAIM),
        buyer_lapse=moved(terms.buyer, Branch.LAPSE),
        witness_script=script,
        funding=TxOut(terms.capacity_sat, p2wsh(script)),
        to_buyer_script=p2wpkh(terms.buyer),
        to_seller_script=p2wpkh(terms.seller),
        close_fee_sat=close_fee_sat(terms.feerate_sat_per_kvb, arbiter=arbiter),
        usable_msat=usable_msat(terms.capacity_sat, terms.feerate_sat_per_kvb, arbiter=arbiter),
    )
