"""A unit as two honest parties would have it on record, made by hand: free, or paid through a channel, with every signature."""

import dataclasses
from typing import Any

from escrow.core.contract import Branch, Contract, channel_id, contract_of
from escrow.core.contract import Terms as ChannelTerms
from escrow.core.messages import opened_digest
from escrow.core.spends import sign_state
from escrow.core.transaction import outpoint_bytes
from orderbook.core.messages import Match, Side, SignedMatch, book_id, sign_match
from peer.core.batches import BATCH_PURPOSE
from peer.core.batches import sealed as hidden
from peer.core.bundle import (
    BatchPart,
    Bundle,
    ChannelPart,
    PaymentPart,
    ReceiptPart,
    content_of,
    receipt_digest,
    receipt_id,
)
from peer.core.deal import unit_key
from peer.core.keys import lock_of
from peer.core.letters import OFFER_PURPOSE, BatchBody, OfferBody, ReceiptBody, SealedKey
from peer.core.match import match_id
from peer.core.terms import NO_CHAIN, Terms, escrow_terms, free_terms, terms_hash
from wire.canon import pack
from wire.cipher import encrypt
from wire.envelope import id_of
from wire.keys import SecretKey
from wire.network import REGTEST
from wire.ports import OutPoint

BUYER, SELLER, ARBITER, STRANGER = (SecretKey(bytes([number]) * 32) for number in (1, 2, 3, 4))
ARTICLE, PRICE_MSAT, INSTANCE = "net.bitwrk/rays/1", 2_600_000, b"\x07" * 32
RESULT = b"the picture of a sphere " * 40
KEY, BATCH_KEY = b"\x5a" * 32, b"\x4b" * 32
FUNDING = OutPoint(b"\xfe" * 32, 1)


def sealed(body: Any, purpose: str, key: SecretKey) -> bytes:
    return key.sign(id_of(REGTEST.name, purpose, pack(body)))


def a_match(*, free: bool = False, terms: Terms | None = None, quantity: int = 3) -> SignedMatch:
    instance = NO_CHAIN if free else INSTANCE
    terms = terms or (free_terms() if free else escrow_terms(REGTEST))
    match = Match(
        network=REGTEST.name,
        book=book_id(REGTEST.name, instance, ARTICLE, terms_hash(REGTEST, terms)),
        epoch=7,
        buy=b"b" * 32,
        sell=b"s" * 32,
        quantity=quantity,
        price_msat=0 if free else PRICE_MSAT,
        buy_from=0,
        sell_from=0,
        accept_by_us=1,
        buyer_root=bytes(32),
        seller_root=bytes(32),
    )
    return SignedMatch(
        match=match,
        buyer=BUYER.public,
        seller=SELLER.public,
        buyer_signature=sign_match(BUYER, match, Side.BUY),
        seller_signature=sign_match(SELLER, match, Side.SELL),
    )


def channel_terms(*, arbiter: bytes | None = None, **changes: Any) -> ChannelTerms:
    fields: dict[str, Any] = {
        "version": 1,
        "instance": INSTANCE,
        "buyer": BUYER.public,
        "seller": SELLER.public,
        "nonce": b"\x09" * 32,
        "capacity_sat": 300_000,
        "arbiter": arbiter,
        "ruling_height": 150 if arbiter else 0,
        "refund_height": 300,
        "claim_delay_blocks": 10,
        "feerate_sat_per_kvb": 1_000,
        "credit_sat": 0,
    }
    return ChannelTerms(**{**fields, **changes})


def channel_part(terms: ChannelTerms, funding: OutPoint = FUNDING) -> tuple[ChannelPart, Contract]:
    name = channel_id(REGTEST.name, terms)
    part = ChannelPart(
        terms=terms,
        open_signature=BUYER.sign(name),
        opened_signature=SELLER.sign(opened_digest(REGTEST.name, name)),
        funding=outpoint_bytes(funding),
    )
    return part, contract_of(REGTEST.name, terms)


def paid_part(contract: Contract, paid_msat: int, lock: bytes, funding: OutPoint = FUNDING) -> PaymentPart:
    coop = contract.secret(BUYER, Branch.COOPERATE)
    return PaymentPart(paid_sat=paid_msat // 1_000, signature=sign_state(contract, coop, funding, paid_msat, lock))


def batch_part(
    channel: bytes, keys: dict[bytes, bytes], *, amount_msat: int | None = None, signer: SecretKey = SELLER
) -> BatchPart:
    """The batch that gives these keys, by the names of their units."""
    seals = tuple(SealedKey(unit=unit, seal=hidden(REGTEST, BATCH_KEY, unit, key)) for unit, key in keys.items())
    total_msat = len(keys) * PRICE_MSAT if amount_msat is None else amount_msat
    body = BatchBody(channel=channel, lock=lock_of(BATCH_KEY), amount_msat=total_msat, units=seals)
    return BatchPart(body=body, signature=sealed(body, BATCH_PURPOSE, signer), key=BATCH_KEY)


def log_line(offer: OfferBody, number: int, previous: bytes, *, both: bool = True) -> ReceiptPart:
    body = ReceiptBody(
        deal=offer.deal,
        number=number,
        previous=previous,
        unit=offer.unit,
        work=offer.work,
        plain=offer.plain,
        lock=offer.lock,
        price_msat=offer.price_msat,
        at_us=1_700_000_000_000_000 + number,
    )
    return ReceiptPart(
        body=body,
        buyer_signature=BUYER.sign(receipt_digest(REGTEST.name, body, by_buyer=True)),
        seller_signature=SELLER.sign(receipt_digest(REGTEST.name, body, by_buyer=False)) if both else None,
    )


def a_bundle(
    unit: int = 0,
    *,
    free: bool = False,
    arbiter: bytes | None = None,
    result: bytes = RESULT,
    promised: bytes | None = None,
    ciphertext: bool = False,
    number: int | None = 0,
    previous: bytes | None = None,
    funding: OutPoint = FUNDING,
    channel: ChannelTerms | None = None,
    together: int = 0,
    given: bytes | None = None,
) -> Bundle:
    """The evidence of one unit. ``promised`` is what the seller signs for, when it is not what he encrypts.

    ``together``: paid in a batch with so many units in all, which gives ``given`` as this one's key when that is not its key.
    """
    terms = free_terms() if free else dataclasses.replace(escrow_terms(REGTEST), arbiter=arbiter)
    signed = a_match(free=free, terms=terms)
    key = bytes([unit + 1]) * 32
    cipher = encrypt(key, result)
    offer = OfferBody(
        deal=match_id(REGTEST, signed),
        unit=unit,
        work=content_of(b"work %d" % unit),
        cipher=content_of(cipher),
        plain=content_of(result if promised is None else promised),
        lock=lock_of(key),
        price_msat=signed.match.price_msat,
    )
    part, payment, batch = None, None, None
    if not free:
        part, contract = channel_part(channel or channel_terms(arbiter=arbiter), funding)
        payment = paid_part(contract, (unit + 1) * PRICE_MSAT, offer.lock, funding)
    if part is not None and together:
        named = {unit_key(offer.deal, one): bytes([one + 1]) * 32 for one in range(together)}
        key = given or key
        batch = batch_part(channel_id(REGTEST.name, part.terms), {**named, unit_key(offer.deal, unit): key})
        payment = paid_part(contract, together * PRICE_MSAT, batch.body.lock, funding)
    return Bundle(
        article=ARTICLE,
        terms=terms,
        match=signed,
        offer=offer,
        offer_signature=sealed(offer, OFFER_PURPOSE, SELLER),
        key=key,
        channel=part,
        payment=payment,
        batch=batch,
        receipt=None if number is None else log_line(offer, number, previous or offer.deal),
        cipher=cipher if ciphertext else None,
    )


def a_log(length: int = 3) -> list[Bundle]:
    """The bundles of one deal, their lines in order."""
    bundles: list[Bundle] = []
    previous: bytes | None = None
    for unit in range(length):
        bundle = a_bundle(unit, number=unit, previous=previous)
        assert bundle.receipt is not None
        previous = receipt_id(REGTEST.name, bundle.receipt.body)
        bundles.append(bundle)
    return bundles
