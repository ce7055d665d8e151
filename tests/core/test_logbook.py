"""The log of a deal: both sign every line, whatever is lost, repeated or lied on the way."""

import dataclasses
from typing import Any

import pytest

from peer.core.bundle import check, check_log, receipt_digest
from peer.core.deal import Deal, Phase, Role, Unit, new_unit, unit_key
from peer.core.events import Post
from peer.core.keys import lock_of
from peer.core.ledger import NEVER, Ledger
from peer.core.letters import DEAL, OFFER_PURPOSE, Countersigned, Receipt, sort
from peer.core.logbook import MATCH_TABLE, RECEIPT_TABLE, Logbook, offer_of
from peer.core.match import match_id
from peer.core.terms import free_terms
from tests.core.evidence import ARTICLE, BUYER, SELLER, a_match, sealed
from wire.canon import pack
from wire.errors import BitwrkError, Ignore, Misbehaved
from wire.keys import SecretKey
from wire.limits import RECEIPTS_MAX
from wire.moments import Instant
from wire.network import REGTEST

NOW = Instant(1_700_000_000_000_000)
SIGNED = a_match(free=True)
DEAL_ID = match_id(REGTEST, SIGNED)


def a_deal(role: Role, other: SecretKey) -> Deal:
    return Deal(
        deal=DEAL_ID,
        role=role,
        other=other.public,
        article=ARTICLE,
        free=True,
        price_msat=0,
        quantity=3,
        epoch=7,
        channel=None,
        agreed_us=NOW,
    )


class Side:
    """One party: its ledger, its log, and its rows."""

    def __init__(self, key: SecretKey, role: Role, other: SecretKey) -> None:
        self.key, self.role = key, role
        self.rows: dict[str, dict[bytes, bytes]] = {MATCH_TABLE: {}, RECEIPT_TABLE: {}}
        self.ledger = Ledger()
        self.ledger.put_deal(a_deal(role, other))
        self.book = self._book()
        self.book.agreed(DEAL_ID, ARTICLE, free_terms(), SIGNED)
        self.save()

    def _book(self) -> Logbook:
        buying, selling = (self.ledger, Ledger()) if self.role is Role.BUYER else (Ledger(), self.ledger)
        return Logbook(self.key, REGTEST, buying, selling)

    def save(self) -> None:
        for row in self.book.drain():
            if row.value is None:
                self.rows[row.table].pop(row.key, None)
            else:
                self.rows[row.table][row.key] = row.value

    def restart(self) -> None:
        self.book = self._book()
        self.book.load(self.rows)

    def hold(self, unit: Unit) -> None:
        self.ledger.put_unit(unit)


def a_unit(number: int, phase: Phase = Phase.FINISHED) -> Unit:
    key = bytes([number + 1]) * 32
    unit = dataclasses.replace(
        new_unit(DEAL_ID, number, request=1, now=NOW, deadline_us=NEVER),
        phase=phase,
        work=b"w" * 32,
        plain=b"p" * 32,
        cipher=b"c" * 32,
        lock=lock_of(key),
        key=key,
    )
    offer = offer_of(a_deal(Role.BUYER, SELLER), unit)
    return dataclasses.replace(unit, offer_signature=sealed(offer, OFFER_PURPOSE, SELLER))


@pytest.fixture
def pair() -> tuple[Side, Side]:
    buyer, seller = Side(BUYER, Role.BUYER, SELLER), Side(SELLER, Role.SELLER, BUYER)
    for side in (buyer, seller):
        for number in range(3):
            side.hold(a_unit(number))
    return buyer, seller


def letters(effects: list[Any]) -> list[Any]:
    return [DEAL.unpack(sort(one.letter)[1]) for one in effects if isinstance(one, Post)]


def carry(sender: Side, receiver: Side, effects: list[Any]) -> list[Any]:
    """Bring the letters over; what comes back comes back."""
    sender.save()
    answers: list[Any] = []
    for letter in letters(effects):
        answers += receiver.book.hear(sender.key.peer_id, letter)
    receiver.save()
    return answers


def both(side: Side) -> list[int]:
    lines = [one.receipt for one in side.book.bundles.values() if one.receipt is not None and one.receipt.seller_signature]
    return sorted(one.body.number for one in lines)


def test_every_unit_becomes_a_line_that_both_sign(pair: tuple[Side, Side]) -> None:
    buyer, seller = pair
    for number in (2, 0, 1):
        carry(seller, buyer, carry(buyer, seller, buyer.book.taken(unit_key(DEAL_ID, number), NOW)))
    for side in pair:
        assert both(side) == [0, 1, 2]
        bundles = list(side.book.bundles.values())
        assert all(check(one) for one in bundles)
        assert check_log(bundles)
        side.restart()
        assert sorted(map(pack, side.book.bundles.values())) == sorted(map(pack, bundles))
    assert buyer.rows == seller.rows


def test_a_unit_taken_twice_is_one_line(pair: tuple[Side, Side]) -> None:
    buyer, _ = pair
    assert len(letters(buyer.book.taken(unit_key(DEAL_ID, 0), NOW))) == 1
    assert buyer.book.taken(unit_key(DEAL_ID, 0), NOW) == []


def test_lost_letters_are_sent_again_after_a_reconnect_and_a_restart(pair: tuple[Side, Side]) -> None:
    buyer, seller = pair
    for number in range(3):
        buyer.book.taken(unit_key(DEAL_ID, number), NOW)
    buyer.save()
    buyer.restart()
    lost = carry(buyer, seller, buyer.book.peer_up(SELLER.peer_id))
    assert (len(lost), both(seller), both(buyer)) == (3, [0, 1, 2], [])
    seller.restart()
    again = carry(buyer, seller, buyer.book.peer_up(SELLER.peer_id))
    assert letters(again) == letters(lost)
    carry(seller, buyer, again)
    carry(seller, buyer, again)
    assert both(buyer) == [0, 1, 2]
    assert buyer.book.peer_up(SELLER.peer_id) == []
    assert buyer.book.peer_up(BUYER.peer_id) == []


def refused(side: Side, peer: SecretKey, letter: Any) -> BitwrkError:
    before = dict(side.book.bundles)
    with pytest.raises((Ignore, Misbehaved)) as caught:
        side.book.hear(peer.peer_id, letter)
    assert side.book.bundles == before or {key: one for key, one in side.book.bundles.items() if one.receipt} == {
        key: one for key, one in before.items() if one.receipt
    }
    return caught.value


def test_lies_and_gaps_are_named_and_change_nothing(pair: tuple[Side, Side]) -> None:
    buyer, seller = pair
    first, second, third = (letters(buyer.book.taken(unit_key(DEAL_ID, number), NOW))[0] for number in range(3))
    assert refused(seller, BUYER, second).code == "receipt-gap"
    assert refused(seller, BUYER, dataclasses.replace(first, signature=bytes(64))).code == "wrong-signature"
    assert (
        refused(seller, BUYER, dataclasses.replace(first, body=dataclasses.replace(first.body, plain=b"x" * 32))).code
        == "wrong-receipt"
    )
    assert refused(seller, SecretKey(b"\x09" * 32), first).code == "unknown-deal"
    (answer,) = letters(seller.book.hear(BUYER.peer_id, first))
    bent = dataclasses.replace(second.body, previous=b"x" * 32)
    lie = Receipt(body=bent, signature=BUYER.sign(receipt_digest(REGTEST.name, bent, by_buyer=True)))
    assert refused(seller, BUYER, lie).code == "conflicting-receipt"
    again = dataclasses.replace(first.body, at_us=1)
    lie = Receipt(body=again, signature=BUYER.sign(receipt_digest(REGTEST.name, again, by_buyer=True)))
    assert refused(seller, BUYER, lie).code == "conflicting-receipt"
    assert refused(buyer, SELLER, dataclasses.replace(answer, signature=bytes(64))).code == "wrong-signature"
    assert refused(buyer, SELLER, Countersigned(deal=DEAL_ID, number=9, signature=bytes(64))).code == "unknown-receipt"
    assert refused(buyer, SecretKey(b"\x09" * 32), answer).code == "unknown-deal"
    assert buyer.book.hear(SELLER.peer_id, answer) == []
    assert third.body.number == 2


def test_nothing_is_signed_before_the_key_was_given(pair: tuple[Side, Side]) -> None:
    buyer, seller = pair
    (letter,) = letters(buyer.book.taken(unit_key(DEAL_ID, 0), NOW))
    seller.hold(a_unit(0, Phase.WORKING))
    assert refused(seller, BUYER, letter).code == "early-receipt"
    buyer.hold(a_unit(1, Phase.REVEALED))
    assert buyer.book.taken(unit_key(DEAL_ID, 1), NOW) == []


def test_the_oldest_evidence_makes_room(pair: tuple[Side, Side]) -> None:
    buyer, _ = pair
    buyer.book.taken(unit_key(DEAL_ID, 0), NOW)
    (bundle,) = buyer.book.bundles.values()
    for number in range(RECEIPTS_MAX):
        buyer.book._keep(number.to_bytes(34, "big"), bundle)
    assert len(buyer.book.bundles) == RECEIPTS_MAX
    assert unit_key(DEAL_ID, 0) not in buyer.book.bundles
    buyer.save()
    assert len(buyer.rows[RECEIPT_TABLE]) == RECEIPTS_MAX


def test_matches_go_when_their_deals_go(pair: tuple[Side, Side]) -> None:
    buyer, _ = pair
    buyer.book.forget_old()
    assert list(buyer.rows[MATCH_TABLE]) == [DEAL_ID]
    buyer.ledger.deals.clear()
    buyer.book.forget_old()
    buyer.save()
    assert buyer.rows[MATCH_TABLE] == {}
