"""Evidence inside a whole brain: a bad result becomes a proof that neighbours hear of, an accident of our own does not."""

import dataclasses
from typing import Any

import pytest

from escrow.core.events import FundingWanted, TipSeen
from orderbook.core.events import NeighbourUp
from peer.core.brain import TABLES, Brain
from peer.core.deal import Deal, Phase, Role, new_unit, unit_key
from peer.core.events import BondAsked, Decrypted, LetterArrived, Notice, Post, ReadBack, Recall
from peer.core.ledger import DEAL_TABLE, NEVER, UNIT_TABLE
from peer.core.letters import DEAL, Lane, Offer, Receipt, address, sort
from peer.core.logbook import MATCH_TABLE, RECEIPT_TABLE, Agreement
from peer.core.proofs import FRAUD_TABLE, PROOFS, Have
from peer.core.terms import free_terms
from tests.core.evidence import ARTICLE, BUYER, INSTANCE, SELLER, a_bundle, sealed
from wire.account import hash160
from wire.canon import pack
from wire.effects import Save
from wire.keys import SecretKey
from wire.limits import BOND_LEAST_SAT, EVIDENCE_CIPHER_MAX_BYTES, RECEIPTS_WITH_CIPHERTEXT_MAX
from wire.moments import SECOND, Instant
from wire.network import REGTEST

NOW = Instant(1_000 * SECOND)
NEIGHBOUR = SecretKey(b"\x09" * 32)
BAD = a_bundle(free=True, promised=b"something else", ciphertext=True)
KEY = unit_key(BAD.offer.deal, 0)


def a_brain(bundle: Any = BAD, *, phase: Phase = Phase.REVEALED, cipher_bytes: int = 100) -> Brain:
    """A buyer who was given the key of one unit, and has a neighbour."""
    offer = bundle.offer
    deal = Deal(
        deal=offer.deal,
        role=Role.BUYER,
        other=SELLER.public,
        article=ARTICLE,
        free=True,
        price_msat=0,
        quantity=1,
        epoch=7,
        channel=None,
        agreed_us=NOW,
    )
    unit = dataclasses.replace(
        new_unit(offer.deal, 0, request=0, now=NOW, deadline_us=NEVER),
        phase=phase,
        work=offer.work,
        plain=offer.plain,
        cipher=offer.cipher,
        cipher_bytes=cipher_bytes,
        lock=offer.lock,
        key=bundle.key,
        offer_signature=bundle.offer_signature,
    )
    rows: dict[str, dict[bytes, bytes]] = {table: {} for table in TABLES}
    rows[DEAL_TABLE][offer.deal] = pack(deal)
    rows[UNIT_TABLE][unit_key(offer.deal, 0)] = pack(unit)
    rows[MATCH_TABLE][offer.deal] = pack(Agreement(article=ARTICLE, terms=free_terms(), signed=bundle.match))
    brain = Brain(key=BUYER, network=REGTEST, instance=None, run=bytes(16), rows=rows)
    brain.handle(NeighbourUp(peer=NEIGHBOUR.peer_id), NOW)
    return brain


def told(effects: Any) -> list[Any]:
    """What the neighbour is told about proofs."""
    posts = [one for one in effects if isinstance(one, Post) and one.peer == NEIGHBOUR.peer_id]
    return [PROOFS.unpack(payload) for lane, payload in map(sort, [one.letter for one in posts]) if lane is Lane.PROOF]


def kept(effects: Any, table: str) -> list[Save]:
    return [one for one in effects if isinstance(one, Save) and one.table == table]


@pytest.mark.parametrize("opened", [None, b"x" * 32], ids=["does not open", "opens to something else"])
def test_a_bad_result_becomes_a_proof(opened: bytes | None) -> None:
    brain = a_brain()
    effects = brain.handle(Decrypted(unit=KEY, plain=opened), NOW)
    assert Recall(unit=KEY, cipher=BAD.offer.cipher) in effects
    effects = brain.handle(ReadBack(unit=KEY, cipher=BAD.cipher), NOW)
    (letter,) = told(effects)
    assert isinstance(letter, Have)
    assert len(kept(effects, FRAUD_TABLE)) == len(kept(effects, RECEIPT_TABLE)) == 1
    assert [one.kind for one in effects if isinstance(one, Notice)] == ["fraud"]
    assert brain._avoided(NOW) == (hash160(SELLER.public),)


def test_so_many_ciphertexts_are_kept() -> None:
    logbook = a_brain().justice.logbook
    for number in range(RECEIPTS_WITH_CIPHERTEXT_MAX + 2):
        key = unit_key(number.to_bytes(32, "big"), 0)
        logbook.bundles[key] = dataclasses.replace(BAD, cipher=None)
        assert logbook.recalled(key, BAD.cipher or b"") is not None
    heavy = [one.cipher is not None for one in logbook.bundles.values()]
    assert heavy == [False, False] + [True] * RECEIPTS_WITH_CIPHERTEXT_MAX


def test_a_store_that_failed_accuses_nobody() -> None:
    good = a_bundle(free=True, ciphertext=True)
    key = unit_key(good.offer.deal, 0)
    for read in (good.cipher, None):
        brain = a_brain(good)
        assert brain.handle(Decrypted(unit=key, plain=None), NOW)
        effects = brain.handle(ReadBack(unit=key, cipher=read), NOW)
        assert told(effects) == []
        assert kept(effects, FRAUD_TABLE) == []


def test_a_ciphertext_that_no_proof_can_hold_is_not_asked_for() -> None:
    brain = a_brain(cipher_bytes=EVIDENCE_CIPHER_MAX_BYTES + 1)
    effects = brain.handle(Decrypted(unit=KEY, plain=None), NOW)
    assert not any(isinstance(one, Recall) for one in effects)


def test_a_good_result_becomes_a_line_of_the_log() -> None:
    good = a_bundle(free=True)
    key = unit_key(good.offer.deal, 0)
    effects = a_brain(good).handle(Decrypted(unit=key, plain=good.offer.plain), NOW)
    letters = [DEAL.unpack(sort(one.letter)[1]) for one in effects if isinstance(one, Post) and one.peer == SELLER.peer_id]
    assert [type(one) for one in letters if isinstance(one, Receipt)] == [Receipt]
    assert len(kept(effects, RECEIPT_TABLE)) == 1


@pytest.mark.parametrize(("signer", "proven"), [(SELLER, True), (NEIGHBOUR, False)], ids=["the seller", "somebody else"])
def test_a_second_offer_with_another_result_is_a_proof_when_its_seller_signed_it(signer: SecretKey, proven: bool) -> None:
    brain = a_brain(phase=Phase.OFFERED)
    body = dataclasses.replace(BAD.offer, plain=b"y" * 32)
    letter = Offer(body=body, signature=sealed(body, "offer", signer), size=100, ticket=bytes(16))
    arrived = LetterArrived(peer=SELLER.peer_id, letter=address(Lane.DEAL, DEAL.pack(letter)))
    assert bool(told(brain.handle(arrived, NOW))) == proven


def test_our_own_experience_comes_first_on_the_list_of_the_avoided() -> None:
    brain = a_brain()
    brain.handle(Decrypted(unit=KEY, plain=None), NOW)
    brain.handle(ReadBack(unit=KEY, cipher=BAD.cipher), NOW)
    others = [SecretKey(bytes([50 + number]) * 32) for number in range(8)]
    later = Instant(NOW + 60 * SECOND)
    assert brain._avoided(later) == (hash160(SELLER.public),), "the strike is forgotten, the proof is not"
    for one in others:
        brain.standing.strike(one.peer_id, "silence", later)
    assert brain._avoided(later) == tuple(sorted(hash160(one.public) for one in others))


def test_the_money_of_a_bond_waits_for_no_seller() -> None:
    """Fundings of channels are gathered for an epoch; a bond's leaves at once, and again after a restart."""
    brain = Brain(key=BUYER, network=REGTEST, instance=INSTANCE, run=bytes(16))
    brain.handle(TipSeen(height=100, feerate_sat_per_kvb=1_000), NOW)
    effects = brain.handle(BondAsked(request=1, value_sat=BOND_LEAST_SAT, blocks=10), NOW)
    (wanted,) = [one for one in effects if isinstance(one, FundingWanted)]
    assert wanted.output.value_sat == BOND_LEAST_SAT
    rows: dict[str, dict[bytes, bytes]] = {table: {} for table in TABLES}
    for one in effects:
        if isinstance(one, Save) and one.value is not None:
            rows[one.table][one.key] = one.value
    again = Brain(key=BUYER, network=REGTEST, instance=INSTANCE, run=bytes(16), rows=rows).resume(NOW)
    assert [one for one in again if isinstance(one, FundingWanted)] == [wanted]
