"""Proofs of fraud: what a seller has signed and cannot have meant, in one message that anybody can check.

Three kinds, and no fourth. *Bad result*: the seller signed that a key opens a ciphertext to a certain result, and it does not;
the key is in the proof, the ciphertext too. *Two offers*: the seller signed two offers for one unit with different results. *Bad
batch*: the seller signed that one key gives the keys of several units, and it gives another than an offer of his is locked to.
Each unit is offered once, its offer is stored before it is said, and a batch is made of the keys that are stored with the
offers, so no accident of an honest node makes any of them.

Nothing about being late, silent or wrong in taste is here: that is nobody's proof.
"""

from typing import Annotated, Final

from peer.core.batches import BATCH_PURPOSE, sealed
from peer.core.bundle import Bundle, NotProven, opens, seal_lies
from peer.core.deal import unit_key
from peer.core.keys import lock_of
from peer.core.letters import OFFER_PURPOSE, BatchBody, OfferBody
from wire.account import account_of
from wire.canon import Choice, EncodingError, Hash32, Public33, Signature64, Size, pack, record
from wire.envelope import id_of
from wire.keys import is_public, verify
from wire.limits import EVIDENCE_CIPHER_MAX_BYTES, FRAUD_MAX_BYTES
from wire.network import Network

FRAUD_PURPOSE: Final = "fraud"


@record
class BadResult:
    """The key does not open the ciphertext to what the seller signed for."""

    seller: Public33
    offer: OfferBody
    signature: Signature64
    key: Hash32
    cipher: Annotated[bytes, Size(0, EVIDENCE_CIPHER_MAX_BYTES)]


@record
class TwoOffers:
    """Two offers for one unit with different results, in the order of their bytes."""

    seller: Public33
    first: OfferBody
    first_signature: Signature64
    second: OfferBody
    second_signature: Signature64


@record
class BadBatch:
    """The key of a batch does not give the key that an offer of one of its units is locked to."""

    seller: Public33
    offer: OfferBody
    signature: Signature64
    batch: BatchBody
    batch_signature: Signature64
    key: Hash32


FRAUD: Final = Choice("fraud", {1: BadResult, 2: TwoOffers, 3: BadBatch})

Fraud = BadResult | TwoOffers | BadBatch


def fraud_id(network: Network, raw: bytes) -> bytes:
    """32 bytes naming the proof with these bytes."""
    return id_of(network.name, FRAUD_PURPOSE, raw)


def _signed(network: Network, seller: bytes, offer: OfferBody, signature: bytes) -> None:
    if not verify(seller, id_of(network.name, OFFER_PURPOSE, pack(offer)), signature):
        raise NotProven("wrong-offer", "the accused did not sign this offer")


def check_fraud(network: Network, raw: bytes) -> Fraud:
    """The proof with these bytes, if it is one. Raises ``NotProven``."""
    try:
        proof: Fraud = FRAUD.unpack(raw, FRAUD_MAX_BYTES)
    except EncodingError as error:
        raise NotProven("not-a-proof", f"this is no proof of fraud: {error.sentence}") from None
    if not is_public(proof.seller):
        raise NotProven("bad-key", "the account of the accused is not a point of the curve")
    match proof:
        case BadResult():
            _signed(network, proof.seller, proof.offer, proof.signature)
            if opens(proof.offer, proof.key, proof.cipher):
                raise NotProven("good-result", "the key opens the ciphertext to what was signed for")
        case TwoOffers():
            one, other = proof.first, proof.second
            if pack(one) >= pack(other):
                raise NotProven("not-a-proof", "the two offers of a proof stand in the order of their bytes")
            if (one.deal, one.unit, one.work) != (other.deal, other.unit, other.work) or one.plain == other.plain:
                raise NotProven("no-conflict", "these offers are for two units, or promise the same result")
            _signed(network, proof.seller, one, proof.first_signature)
            _signed(network, proof.seller, other, proof.second_signature)
        case BadBatch():
            _signed(network, proof.seller, proof.offer, proof.signature)
            _check_seal(network, proof)
    return proof


def _check_seal(network: Network, proof: BadBatch) -> None:
    body, name = proof.batch, unit_key(proof.offer.deal, proof.offer.unit)
    if not verify(proof.seller, id_of(network.name, BATCH_PURPOSE, pack(body)), proof.batch_signature):
        raise NotProven("wrong-batch", "the accused did not sign this batch")
    seals = [one.seal for one in body.units if one.unit == name]
    if len(seals) != 1:
        raise NotProven("wrong-batch", "the batch does not name this unit, or names it twice")
    if lock_of(proof.key) != body.lock:
        raise NotProven("wrong-key", "the key does not open the lock of the batch")
    if lock_of(sealed(network, proof.key, name, seals[0])) == proof.offer.lock:
        raise NotProven("good-batch", "the batch gives the key that the offer is locked to")


def bad_result(bundle: Bundle) -> BadResult | None:
    """The proof in a bundle with a ciphertext; None when the key opens it as promised, or something else is wrong with it."""
    if bundle.cipher is None:
        return None
    try:
        if opens(bundle.offer, bundle.key, bundle.cipher):
            return None
    except NotProven:
        return None
    return BadResult(
        seller=bundle.match.seller,
        offer=bundle.offer,
        signature=bundle.offer_signature,
        key=bundle.key,
        cipher=bundle.cipher,
    )


def bad_batch(bundle: Bundle) -> BadBatch | None:
    """The proof in a bundle whose batch gives another key than was offered; None when it gives the right one, or is none."""
    if bundle.batch is None or not seal_lies(bundle):
        return None
    return BadBatch(
        seller=bundle.match.seller,
        offer=bundle.offer,
        signature=bundle.offer_signature,
        batch=bundle.batch.body,
        batch_signature=bundle.batch.signature,
        key=bundle.batch.key,
    )


def two_offers(seller: bytes, one: tuple[OfferBody, bytes], other: tuple[OfferBody, bytes]) -> TwoOffers | None:
    """The proof in two signed offers, the same whichever is named first; None when they do not contradict each other."""
    (first, first_signature), (second, second_signature) = sorted((one, other), key=lambda signed: pack(signed[0]))
    if (first.deal, first.unit, first.work) != (second.deal, second.unit, second.work) or first.plain == second.plain:
        return None
    return TwoOffers(
        seller=seller,
        first=first,
        first_signature=first_signature,
        second=second,
        second_signature=second_signature,
    )


def words(proof: Fraud) -> str:
    """What a proof says, in words."""
    match proof:
        case BadResult():
            return f"{account_of(proof.seller)} signed for a result that his key does not open"
        case TwoOffers():
            return f"{account_of(proof.seller)} signed two different results of one unit"
        case BadBatch():
            return f"{account_of(proof.seller)} signed for a batch whose key does not give what he offered"
