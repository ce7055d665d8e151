"""The evidence of our units, and the log that both parties of a deal sign line by line.

Theory of operation. When a Match is signed it is kept with the terms of its book. When a unit's key is paid for, buyer and seller
each keep a bundle (``peer.core.bundle``): all that proves this unit to others. When the buyer has the result and it is what was
promised, he writes the next line of the deal's log, signs it and sends it; the seller, who finds in it what he has delivered,
signs it too and sends his signature back. Each line names the one before, so no line can be left out, changed or put in between.

    buyer    result here, as promised   ->  line written, signed, kept, sent; sent again after a reconnect until it is signed
    seller   Receipt                    ->  compared, signed, kept, answered; a repeated one is answered again
    buyer    Countersigned              ->  kept

A missing signature costs nobody money: it is a receipt and not a payment.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Final

from escrow.core.contract import Terms as ChannelTerms
from escrow.core.state import ChannelRow
from orderbook.core.messages import SignedMatch
from peer.core.batches import sealed
from peer.core.bundle import BatchPart, Bundle, ChannelPart, PaymentPart, ReceiptPart, receipt_digest, receipt_id
from peer.core.deal import Deal, Phase, Unit, unit_key
from peer.core.events import Recall
from peer.core.fraud import Fraud, bad_batch, bad_result, two_offers
from peer.core.ledger import Ledger, say
from peer.core.letters import OFFER_PURPOSE, Countersigned, Offer, OfferBody, Receipt, ReceiptBody
from peer.core.terms import Terms
from wire.canon import Size, pack, record, unpack
from wire.effects import Save
from wire.envelope import id_of
from wire.errors import Ignore, Misbehaved
from wire.keys import PeerId, SecretKey, public_of, verify
from wire.limits import ARTICLE_MAX_CHARS, EVIDENCE_CIPHER_MAX_BYTES, RECEIPTS_MAX, RECEIPTS_WITH_CIPHERTEXT_MAX
from wire.moments import Instant
from wire.network import Network

MATCH_TABLE: Final = "match"
RECEIPT_TABLE: Final = "receipt"


@record
class Agreement:
    """A Match that both signed, with what its book's name is made of (table ``match``, key deal)."""

    article: Annotated[str, Size(1, ARTICLE_MAX_CHARS)]
    terms: Terms
    signed: SignedMatch


class Logbook:
    """Bundles by unit, bounded: the oldest makes room. ``buying`` and ``selling`` are the two ledgers."""

    TABLES: Final = (MATCH_TABLE, RECEIPT_TABLE)

    def __init__(self, key: SecretKey, network: Network, buying: Ledger, selling: Ledger) -> None:
        self._key = key
        self._network = network
        self._buying = buying
        self._selling = selling
        self.bundles: dict[bytes, Bundle] = {}
        self._agreements: dict[bytes, Agreement] = {}
        self._heads: dict[bytes, tuple[int, bytes]] = {}
        self._dirty: dict[tuple[str, bytes], bytes | None] = {}

    def load(self, rows: Mapping[str, Mapping[bytes, bytes]]) -> None:
        """Take over the rows that the journal kept."""
        self._agreements = {key: unpack(Agreement, raw) for key, raw in rows[MATCH_TABLE].items()}
        found = {key: unpack(Bundle, raw) for key, raw in rows[RECEIPT_TABLE].items()}
        self.bundles = dict(sorted(found.items(), key=lambda item: (item[1].match.match.epoch, item[0])))
        for bundle in self.bundles.values():
            if bundle.receipt is not None:
                self._advance(bundle.receipt.body)

    # --- what happens in our trades -----------------------------------------------------------------------------------
    def agreed(self, deal: bytes, article: str, terms: Terms, signed: SignedMatch) -> None:
        """Both signed."""
        agreement = Agreement(article=article, terms=terms, signed=signed)
        self._agreements[deal] = agreement
        self._dirty[MATCH_TABLE, deal] = pack(agreement)

    def paid(self, ref: bytes, key: bytes, channel: ChannelRow, payment: PaymentPart) -> list[Fraud]:
        """``key``, of the unit or the batch named ``ref``, was paid for: keep what proves it. Returns proofs that it is none."""
        if channel.opened_signature is None or channel.funding is None:
            return []
        part = ChannelPart(
            terms=channel.terms,
            open_signature=channel.open_signature,
            opened_signature=channel.opened_signature,
            funding=channel.funding,
        )
        held = self._buying.batches.get(ref) or self._selling.batches.get(ref)
        if held is None:
            self._begin(ref, part, payment)
            return []
        batch = BatchPart(body=held.body, signature=held.signature, key=key)
        found = [self._begin(one.unit, part, payment, batch) for one in held.body.units]
        proofs = [bad_batch(one) for one in found if one is not None]
        return [one for one in proofs if one is not None]

    def taken(self, key: bytes, now: Instant) -> list[Any]:
        """Buyer: the result is here and as promised. Write the next line and send it."""
        unit = self._buying.units.get(key)
        if unit is None or unit.phase is not Phase.FINISHED:
            return []
        bundle = self.bundles.get(key) or self._begin(key, None, None)
        if bundle is None or bundle.receipt is not None:
            return []
        offer = bundle.offer
        number, previous = self._heads.get(offer.deal, (0, offer.deal))
        body = ReceiptBody(
            deal=offer.deal,
            number=number,
            previous=previous,
            unit=offer.unit,
            work=offer.work,
            plain=offer.plain,
            lock=offer.lock,
            price_msat=offer.price_msat,
            at_us=now,
        )
        signature = self._key.sign(receipt_digest(self._network.name, body, by_buyer=True))
        line = ReceiptPart(body=body, buyer_signature=signature, seller_signature=None)
        self._keep(key, dataclasses.replace(bundle, receipt=line))
        self._advance(body)
        return [say(self._buying.deals[offer.deal], Receipt(body=body, signature=signature))]

    def peer_up(self, peer: PeerId) -> list[Any]:
        """Send again the lines that this seller has not signed, oldest first."""
        seller = public_of(peer)
        waiting = [
            one.receipt
            for one in self.bundles.values()
            if one.match.seller == seller and one.receipt is not None and one.receipt.seller_signature is None
        ]
        waiting.sort(key=lambda one: (one.body.deal, one.body.number))
        return [
            say(self._buying.deals[one.body.deal], Receipt(body=one.body, signature=one.buyer_signature))
            for one in waiting
            if one.body.deal in self._buying.deals
        ]

    # --- letters ------------------------------------------------------------------------------------------------------
    def hear(self, peer: PeerId, letter: Receipt | Countersigned) -> list[Any]:
        """One letter about a line. Raises ``Ignore`` or ``Misbehaved``."""
        match letter:
            case Receipt():
                return self._receipt(peer, letter)
            case Countersigned():
                self._countersigned(peer, letter)
                return []

    def _receipt(self, peer: PeerId, letter: Receipt) -> list[Any]:
        body = letter.body
        key = self._selling.held_with(peer, body.deal, body.unit)
        deal, unit = self._selling.deal_of(key), self._selling.units[key]
        if unit.phase not in (Phase.REVEALED, Phase.FINISHED):
            raise Ignore("early-receipt", "a receipt for a unit whose key was not given")
        said = (body.work, body.plain, body.lock, body.price_msat)
        if said != (unit.work, unit.plain, unit.lock, deal.price_msat):
            raise Misbehaved("wrong-receipt", "a receipt for something else than was delivered", penalty=20)
        bundle = self.bundles.get(key) or (self._begin(key, None, None) if deal.free else None)
        if bundle is None:
            raise Ignore("no-evidence", "a receipt for a unit whose evidence is no longer kept")
        if not verify(deal.other, receipt_digest(self._network.name, body, by_buyer=True), letter.signature):
            raise Misbehaved("wrong-signature", "a receipt that its buyer did not sign", penalty=50)
        if bundle.receipt is None:
            self._sign(key, bundle, letter)
        elif bundle.receipt.body != body:
            raise Misbehaved("conflicting-receipt", "two receipts for one unit", penalty=20)
        line = self.bundles[key].receipt
        if line is None or line.seller_signature is None:
            raise Ignore("no-evidence", "a receipt that is not ours to sign")
        return [say(deal, Countersigned(deal=deal.deal, number=body.number, signature=line.seller_signature))]

    def _sign(self, key: bytes, bundle: Bundle, letter: Receipt) -> None:
        body = letter.body
        number, previous = self._heads.get(body.deal, (0, body.deal))
        if body.number > number:
            raise Ignore("receipt-gap", "a receipt whose predecessor has not arrived")
        if (body.number, body.previous) != (number, previous):
            raise Misbehaved("conflicting-receipt", "a receipt that does not follow the last line of the log", penalty=20)
        signature = self._key.sign(receipt_digest(self._network.name, body, by_buyer=False))
        line = ReceiptPart(body=body, buyer_signature=letter.signature, seller_signature=signature)
        self._keep(key, dataclasses.replace(bundle, receipt=line))
        self._advance(body)

    def _countersigned(self, peer: PeerId, letter: Countersigned) -> None:
        deal = self._buying.deals.get(letter.deal)
        if deal is None or deal.other != public_of(peer):
            raise Ignore("unknown-deal", "a letter about a deal that is not ours")
        for number in range(deal.quantity):
            key = unit_key(letter.deal, number)
            bundle = self.bundles.get(key)
            line = None if bundle is None else bundle.receipt
            if bundle is None or line is None or line.body.number != letter.number:
                continue
            if not verify(deal.other, receipt_digest(self._network.name, line.body, by_buyer=False), letter.signature):
                raise Misbehaved("wrong-signature", "a receipt that its seller did not sign", penalty=50)
            if line.seller_signature is None:
                self._keep(key, dataclasses.replace(bundle, receipt=dataclasses.replace(line, seller_signature=letter.signature)))
            return
        raise Ignore("unknown-receipt", "a signature under a line that we do not have")

    # --- rows ---------------------------------------------------------------------------------------------------------
    def _begin(
        self, key: bytes, channel: ChannelPart | None, payment: PaymentPart | None, batch: BatchPart | None = None
    ) -> Bundle | None:
        """The first bundle of a unit; None when something that it needs is not here."""
        ledger = self._buying if key in self._buying.units else self._selling
        unit, agreement = ledger.units.get(key), self._agreements.get(key[:32])
        if unit is None or agreement is None or key in self.bundles:
            return self.bundles.get(key)
        deal = ledger.deal_of(key)
        offer = offer_of(deal, unit)
        secret = self._key_of(key, unit, batch)
        if offer is None or secret is None or deal.free != (channel is None):
            return None
        # The seller does not keep his signature: it is the same every time.
        digest = id_of(self._network.name, OFFER_PURPOSE, pack(offer))
        signature = unit.offer_signature if ledger is self._buying else self._key.sign(digest)
        if signature is None:
            return None
        bundle = Bundle(
            article=agreement.article,
            terms=agreement.terms,
            match=agreement.signed,
            offer=offer,
            offer_signature=signature,
            key=secret,
            channel=channel,
            payment=payment,
            batch=batch,
            receipt=None,
            cipher=None,
        )
        self._keep(key, bundle)
        return bundle

    def _key_of(self, key: bytes, unit: Unit, batch: BatchPart | None) -> bytes | None:
        """The key of a unit; of one that a batch was to open and does not, what the batch gives instead."""
        if unit.key is not None or batch is None or unit.phase is not Phase.RESULT_DISPUTED:
            return unit.key
        return next(sealed(self._network, batch.key, key, one.seal) for one in batch.body.units if one.unit == key)

    def _keep(self, key: bytes, bundle: Bundle) -> None:
        self.bundles[key] = bundle
        self._dirty[RECEIPT_TABLE, key] = pack(bundle)
        while len(self.bundles) > RECEIPTS_MAX:
            oldest = next(iter(self.bundles))
            del self.bundles[oldest]
            self._dirty[RECEIPT_TABLE, oldest] = None

    def _advance(self, body: ReceiptBody) -> None:
        if body.number >= self._heads.get(body.deal, (0, b""))[0]:
            self._heads[body.deal] = (body.number + 1, receipt_id(self._network.name, body))

    def recall(self, key: bytes) -> list[Any]:
        """Buyer: the key does not open what was signed for. Ask for the ciphertext, if a proof can hold it."""
        unit = self._buying.units.get(key)
        if unit is None or unit.phase is not Phase.RESULT_DISPUTED or unit.cipher is None:
            return []
        if unit.cipher_bytes > EVIDENCE_CIPHER_MAX_BYTES or not (self.bundles.get(key) or self._begin(key, None, None)):
            return []
        return [Recall(unit=key, cipher=unit.cipher)]

    def recalled(self, key: bytes, cipher: bytes) -> Fraud | None:
        """The ciphertext is here: keep it with its unit's evidence, and make the proof if it is one.

        It is none when the key opens the ciphertext after all: then the fault was this machine's, and nobody hears of it.
        """
        bundle = self.bundles.get(key)
        proof = None if bundle is None else bad_result(dataclasses.replace(bundle, cipher=cipher))
        if bundle is not None and proof is not None:
            self._keep(key, dataclasses.replace(bundle, cipher=cipher))
            self._drop_ciphertexts()
        return proof

    def _drop_ciphertexts(self) -> None:
        """Ciphertexts are large, so only some are kept; what else proves a unit stays."""
        heavy = [one for one, bundle in self.bundles.items() if bundle.cipher is not None]
        for key in heavy[:-RECEIPTS_WITH_CIPHERTEXT_MAX]:
            self._keep(key, dataclasses.replace(self.bundles[key], cipher=None))

    def contradiction(self, peer: PeerId, letter: Offer) -> Fraud | None:
        """The proof in an offer that contradicts the one that we have of this unit."""
        body = letter.body
        unit = self._buying.units.get(unit_key(body.deal, body.unit))
        deal = self._buying.deals.get(body.deal)
        if unit is None or deal is None or unit.offer_signature is None or deal.other != public_of(peer):
            return None
        known = offer_of(deal, unit)
        if known is None or known.plain == body.plain:
            return None
        return two_offers(deal.other, (known, unit.offer_signature), (body, letter.signature))

    def paid_through(self, channel: ChannelTerms) -> list[Bundle]:
        """The evidence of all units that were paid through a channel with these terms."""
        return [one for one in self.bundles.values() if one.channel is not None and one.channel.terms == channel]

    def forget_old(self) -> None:
        """Let go of the matches of deals that the ledgers have forgotten."""
        if len(self._agreements) <= len(self._buying.deals) + len(self._selling.deals):
            return
        for deal in [one for one in self._agreements if one not in self._buying.deals and one not in self._selling.deals]:
            del self._agreements[deal]
            self._heads.pop(deal, None)
            self._dirty[MATCH_TABLE, deal] = None

    def drain(self) -> tuple[Save, ...]:
        """The rows that changed since the last call."""
        rows = tuple(Save(table=table, key=key, value=value) for (table, key), value in sorted(self._dirty.items()))
        self._dirty.clear()
        return rows


def offer_of(deal: Deal, unit: Unit) -> OfferBody | None:
    """What the seller signed for this unit; None while something of it is not known."""
    if not (unit.work and unit.cipher and unit.plain and unit.lock):
        return None
    return OfferBody(
        deal=deal.deal,
        unit=unit.unit,
        work=unit.work,
        cipher=unit.cipher,
        plain=unit.plain,
        lock=unit.lock,
        price_msat=deal.price_msat,
    )
