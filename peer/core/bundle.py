"""Evidence of one unit, in one canonical file that anybody verifies without a node: who agreed, who signed, what was delivered.

A *bundle* holds the Match that both signed, the channel that both signed (none in a free book), the seller's offer, the buyer's
payment, the key, and, when there are, the batch that the unit was paid in, the line of the log that both signed and the
ciphertext. Everything in it is signed by
somebody or is a digest of something signed, so a bundle needs no signature of its own, and nobody can make one alone.

``check`` walks it in a fixed order and returns what it has found, one sentence a step; what is wrong first ends the walk
with a named refusal. It reads no clock and asks no chain. What only a chain can tell, that the escrow exists, is left to
whoever has one.
"""

from typing import Annotated, Final, Self

from cafs.core.chunker import chunks_of
from cafs.core.manifest import build, entry_of
from escrow.core.contract import BadTerms, Contract, channel_id, contract_of
from escrow.core.contract import Terms as ChannelTerms
from escrow.core.messages import Der, opened_digest
from escrow.core.spends import OverCapacity, is_signed
from escrow.core.transaction import read_outpoint
from orderbook.core.messages import SignedMatch, book_id, open_signed_match
from peer.core.batches import BATCH_PURPOSE, sealed
from peer.core.deal import unit_key
from peer.core.keys import lock_of
from peer.core.letters import (
    OFFER_PURPOSE,
    RECEIPT_BUYER,
    RECEIPT_PURPOSE,
    RECEIPT_SELLER,
    BatchBody,
    OfferBody,
    ReceiptBody,
)
from peer.core.match import match_id
from peer.core.terms import FREE, NO_CHAIN, Terms, terms_hash
from wire.account import account_of
from wire.canon import U63, EncodingError, Hash32, Range, Signature64, Size, pack, record, unpack
from wire.cipher import DoesNotOpen, decrypt
from wire.envelope import WrongSignature, id_of
from wire.errors import Ignore, Refused
from wire.keys import is_public, verify
from wire.limits import ARTICLE_MAX_CHARS, EVIDENCE_CIPHER_MAX_BYTES, EVIDENCE_MAX_BYTES
from wire.money import MSAT_PER_SAT
from wire.network import NETWORKS, Network

SUFFIX: Final = ".receipt"


class NotProven(Refused):
    """The bundle does not show what it claims; the code names the step."""


@record
class ChannelPart:
    """The channel that both parties signed; ``funding`` is txid and little-endian index of the escrow's output."""

    terms: ChannelTerms
    open_signature: Signature64
    opened_signature: Signature64
    funding: Annotated[bytes, Size(36, 36)]


@record
class PaymentPart:
    """The buyer's signature of a balance of ``paid_sat``, locked to the key of this unit, or of the batch that it was paid in.

    Parts of a satoshi are never signed.
    """

    paid_sat: U63
    signature: Der


@record
class BatchPart:
    """The batch that the unit was paid in, as its seller signed it, and the one key that gives the keys of all its units."""

    body: BatchBody
    signature: Signature64
    key: Hash32


@record
class ReceiptPart:
    """A line of the log; the seller's signature is missing until he has given it."""

    body: ReceiptBody
    buyer_signature: Signature64
    seller_signature: Signature64 | None


@record
class Bundle:
    """The evidence of one unit; see the head of this file."""

    version: Annotated[int, Range(1, 1)] = 1
    article: Annotated[str, Size(1, ARTICLE_MAX_CHARS)]
    terms: Terms
    match: SignedMatch
    offer: OfferBody
    offer_signature: Signature64
    key: Hash32
    channel: ChannelPart | None
    payment: PaymentPart | None
    batch: BatchPart | None
    receipt: ReceiptPart | None
    cipher: Annotated[bytes, Size(0, EVIDENCE_CIPHER_MAX_BYTES)] | None

    @classmethod
    def read(cls, raw: bytes) -> Self:
        """The bundle in a file. Raises ``NotProven``."""
        try:
            return unpack(cls, raw, EVIDENCE_MAX_BYTES)
        except EncodingError as error:
            raise NotProven("not-a-bundle", f"this is not a bundle of evidence: {error.sentence}") from None


@record
class Finding:
    """One step of the walk that held: its name, and what it shows."""

    step: Annotated[str, Size(1, 40)]
    sentence: Annotated[str, Size(1, 480)]


def network_of(bundle: Bundle) -> Network:
    """The network that the bundle was signed on. Raises ``NotProven``."""
    network = NETWORKS.get(bundle.match.match.network)
    if network is None:
        raise NotProven("unknown-network", f"nobody here knows a network {bundle.match.match.network!r}")
    return network


def content_of(data: bytes) -> bytes:
    """The content id of ``data``."""
    return build([entry_of(chunk) for chunk in chunks_of(data)]).id


def opens(offer: OfferBody, key: bytes, cipher: bytes) -> bool:
    """Whether ``key`` opens ``cipher`` to what was offered. Raises ``NotProven`` for another ciphertext or key."""
    if lock_of(key) != offer.lock:
        raise NotProven("wrong-key", "the key does not open the lock of the offer")
    if content_of(cipher) != offer.cipher:
        raise NotProven("other-ciphertext", "these bytes are not the ciphertext that was offered")
    try:
        return content_of(decrypt(key, cipher)) == offer.plain
    except DoesNotOpen:
        return False


def contract_in(bundle: Bundle) -> Contract | None:
    """The contract of the bundle's channel; None in a free book. Raises ``NotProven``."""
    return None if bundle.channel is None else contract_of_part(network_of(bundle), bundle.channel)


def contract_of_part(network: Network, part: ChannelPart) -> Contract:
    """The contract of a channel as evidence shows it. Raises ``NotProven``."""
    try:
        return contract_of(network.name, part.terms)
    except BadTerms as error:
        raise NotProven(error.code, error.sentence) from None


def check(bundle: Bundle) -> tuple[Finding, ...]:
    """What the bundle shows, step by step. Raises ``NotProven`` at the first step that does not hold."""
    network = network_of(bundle)
    findings = [_check_match(bundle, network), _check_book(bundle, network), _check_offer(bundle, network)]
    if bundle.batch is not None:
        findings.append(_check_batch(bundle, bundle.batch, network))
    findings += [_check_key(bundle), *_check_money(bundle, network)]
    if bundle.receipt is not None:
        findings.append(_check_receipt(bundle, bundle.receipt, network))
    if bundle.cipher is not None:
        findings.append(_check_content(bundle, bundle.cipher))
    return tuple(findings)


def seal_lies(bundle: Bundle) -> bool:
    """Whether the batch of a checked bundle gives another key than the one that the offer was locked to."""
    return bundle.batch is not None and lock_of(bundle.key) != bundle.offer.lock


def proves_bad_result(bundle: Bundle) -> bool:
    """Whether a checked bundle shows that the key which was paid for is none, or does not open the ciphertext as promised."""
    return seal_lies(bundle) or (bundle.cipher is not None and not opens(bundle.offer, bundle.key, bundle.cipher))


def _check_match(bundle: Bundle, network: Network) -> Finding:
    signed = bundle.match
    if not (is_public(signed.buyer) and is_public(signed.seller)):
        raise NotProven("bad-key", "the account of a party is not a point of the curve")
    try:
        open_signed_match(network, signed)
    except (WrongSignature, Ignore) as error:
        raise NotProven("wrong-match", error.sentence) from None
    if signed.buyer == signed.seller:
        raise NotProven("same-party", "buyer and seller are one account")
    buyer, seller, match = account_of(signed.buyer), account_of(signed.seller), signed.match
    return Finding(
        step="match",
        sentence=f"buyer {buyer} and seller {seller} signed for {match.quantity} units at {match.price_msat} msat each",
    )


def _check_book(bundle: Bundle, network: Network) -> Finding:
    free = bundle.terms.kind == FREE
    if free != (bundle.channel is None) or free != (bundle.payment is None):
        raise NotProven("no-payment", "free work has no channel and no payment, other work has both")
    instance = NO_CHAIN if bundle.channel is None else bundle.channel.terms.instance
    book = book_id(network.name, instance, bundle.article, terms_hash(network, bundle.terms))
    if book != bundle.match.match.book:
        raise NotProven("other-book", "the match was made in a book of another article, other terms or another chain")
    if bundle.channel is not None and bundle.channel.terms.arbiter != bundle.terms.arbiter:
        raise NotProven("other-arbiter", "the channel has another arbiter than the orders named")
    return Finding(step="book", sentence=f"the match is one for {bundle.article} on {network.name}, under these terms")


def _check_offer(bundle: Bundle, network: Network) -> Finding:
    offer, signed = bundle.offer, bundle.match
    if offer.deal != match_id(network, signed):
        raise NotProven("other-deal", "the offer belongs to another match")
    if offer.unit >= signed.match.quantity:
        raise NotProven("no-such-unit", "the match has no unit of this number")
    if offer.price_msat != signed.match.price_msat:
        raise NotProven("other-price", "the offer asks another price than was agreed")
    if not verify(signed.seller, id_of(network.name, OFFER_PURPOSE, pack(offer)), bundle.offer_signature):
        raise NotProven("wrong-offer", "the seller did not sign this offer")
    sentence = f"the seller signed: unit {offer.unit}, the work {offer.work.hex()}, has the result {offer.plain.hex()}"
    return Finding(step="offer", sentence=sentence)


def _check_batch(bundle: Bundle, batch: BatchPart, network: Network) -> Finding:
    body = batch.body
    if bundle.channel is None or body.channel != channel_id(network.name, bundle.channel.terms):
        raise NotProven("wrong-batch", "the batch was not to be paid through the channel that is shown")
    if not verify(bundle.match.seller, id_of(network.name, BATCH_PURPOSE, pack(body)), batch.signature):
        raise NotProven("wrong-batch", "the seller did not sign this batch")
    seals = {one.unit: one.seal for one in body.units}
    name = unit_key(bundle.offer.deal, bundle.offer.unit)
    if name not in seals or len(seals) != len(body.units):
        raise NotProven("wrong-batch", "the batch does not name this unit, or names one twice")
    if lock_of(batch.key) != body.lock:
        raise NotProven("wrong-key", "the key of the batch does not open its lock")
    if sealed(network, batch.key, name, seals[name]) != bundle.key:
        raise NotProven("wrong-key", "the batch gives another key for this unit than the one that is shown")
    sentence = (
        f"the seller signed one key for {len(seals)} results that cost {body.amount_msat} msat together; it gives this one's"
    )
    return Finding(step="batch", sentence=sentence)


def _check_key(bundle: Bundle) -> Finding:
    if seal_lies(bundle):
        sentence = "the key that the batch gives for this unit does NOT open the lock of the offer"
        return Finding(step="bad-batch", sentence=sentence)
    if lock_of(bundle.key) != bundle.offer.lock:
        raise NotProven("wrong-key", "the key does not open the lock of the offer")
    return Finding(step="key", sentence="the key opens the lock of the offer")


def _check_content(bundle: Bundle, cipher: bytes) -> Finding:
    if seal_lies(bundle):
        if content_of(cipher) != bundle.offer.cipher:
            raise NotProven("other-ciphertext", "these bytes are not the ciphertext that was offered")
        return Finding(step="content", sentence="the ciphertext is the one that was offered; nothing that is shown opens it")
    if opens(bundle.offer, bundle.key, cipher):
        return Finding(step="content", sentence="the key opens the ciphertext to the result that was offered")
    return Finding(step="bad-result", sentence="the key does NOT open the ciphertext to what the seller signed for")


def _check_money(bundle: Bundle, network: Network) -> list[Finding]:
    contract, channel, payment, batch = contract_in(bundle), bundle.channel, bundle.payment, bundle.batch
    if contract is None or channel is None or payment is None:
        if bundle.offer.price_msat:
            raise NotProven("not-paid", "a price was agreed, but no payment is shown")
        return []
    terms, signed = channel.terms, bundle.match
    if (terms.buyer, terms.seller) != (signed.buyer, signed.seller):
        raise NotProven("other-parties", "the channel is between others than those who signed the match")
    name = channel_id(network.name, terms)
    if not verify(terms.buyer, name, channel.open_signature):
        raise NotProven("wrong-open", "the buyer did not sign the terms of this channel")
    if not verify(terms.seller, opened_digest(network.name, name), channel.opened_signature):
        raise NotProven("wrong-opened", "the seller did not sign the terms of this channel")
    lock, price_msat = bundle.offer.lock, bundle.offer.price_msat
    if batch is not None:
        lock, price_msat = batch.body.lock, max(price_msat, batch.body.amount_msat)
    try:
        paid = is_signed(contract, read_outpoint(channel.funding), payment.paid_sat * MSAT_PER_SAT, lock, payment.signature)
    except OverCapacity as error:
        raise NotProven("not-paid", error.sentence) from None
    if not paid:
        raise NotProven("not-paid", "the buyer did not sign this balance, locked to this key")
    what = "unit" if batch is None else "batch"
    if payment.paid_sat < price_msat // MSAT_PER_SAT:
        raise NotProven("underpaid", f"the balance that the buyer signed is less than the price of this {what}")
    return [
        Finding(step="channel", sentence=f"both signed the channel {name.hex()} of {terms.capacity_sat} sat"),
        Finding(
            step="payment",
            sentence=f"the buyer signed a balance of {payment.paid_sat} sat, locked to the key of this {what}",
        ),
    ]


def receipt_id(network: str, body: ReceiptBody) -> bytes:
    """32 bytes naming a line of the log; the next line names it as its ``previous``."""
    return id_of(network, RECEIPT_PURPOSE, pack(body))


def receipt_digest(network: str, body: ReceiptBody, *, by_buyer: bool) -> bytes:
    """What the buyer, or the seller, signs under a line."""
    return id_of(network, RECEIPT_BUYER if by_buyer else RECEIPT_SELLER, pack(body))


def _check_receipt(bundle: Bundle, receipt: ReceiptPart, network: Network) -> Finding:
    body, offer = receipt.body, bundle.offer
    said = (body.deal, body.unit, body.work, body.plain, body.lock, body.price_msat)
    if said != (offer.deal, offer.unit, offer.work, offer.plain, offer.lock, offer.price_msat):
        raise NotProven("other-receipt", "the line of the log is about something else than the offer")
    if body.number == 0 and body.previous != body.deal:
        raise NotProven("other-receipt", "the first line of a log follows the match alone")
    if not verify(bundle.match.buyer, receipt_digest(network.name, body, by_buyer=True), receipt.buyer_signature):
        raise NotProven("wrong-receipt", "the buyer did not sign this line of the log")
    by_seller = receipt.seller_signature
    if by_seller is None:
        return Finding(
            step="receipt", sentence=f"the buyer alone signed line {body.number} of the log: the result is what it should be"
        )
    if not verify(bundle.match.seller, receipt_digest(network.name, body, by_buyer=False), by_seller):
        raise NotProven("wrong-receipt", "the seller did not sign this line of the log")
    return Finding(step="receipt", sentence=f"both signed line {body.number} of the log: delivered, paid, and as it should be")


def check_log(bundles: list[Bundle]) -> tuple[Finding, ...]:
    """What the bundles of one deal show together: an unbroken log that both signed. Raises ``NotProven``."""
    lines = sorted((one.receipt for one in bundles if one.receipt is not None), key=lambda one: one.body.number)
    deals = {one.offer.deal for one in bundles}
    if len(deals) != 1:
        raise NotProven("other-deal", "these bundles are not of one deal")
    if len(lines) != len(bundles):
        raise NotProven("no-receipt", "a unit is here without its line of the log")
    previous = bundles[0].offer.deal
    for number, line in enumerate(lines):
        if line.body.number != number or line.body.previous != previous:
            raise NotProven("broken-log", f"line {number} of the log is missing or follows another line")
        previous = receipt_id(bundles[0].match.match.network, line.body)
    if len({line.body.unit for line in lines}) != len(lines):
        raise NotProven("broken-log", "a unit stands in the log twice")
    both = sum(line.seller_signature is not None for line in lines)
    sentence = f"{len(lines)} lines from the first on, none missing between; both signed {both} of them"
    return (Finding(step="log", sentence=sentence),)
