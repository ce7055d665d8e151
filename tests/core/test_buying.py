"""The buyer's half alone, against letters and events made by hand: what costs money, and what never does."""

import dataclasses
from typing import Any

import pytest

from peer.core.buying import Buying
from peer.core.deal import Deal, Phase, Role, unit_key
from peer.core.events import BuyAsked, ChannelBound, Decrypted, Fetched, PayWanted, PeerDown, Post, Reply, Strike
from peer.core.keys import lock_of
from peer.core.letters import DEAL, OFFER_PURPOSE, Offer, OfferBody, Withdraw, WorkRefused, sort
from peer.core.terms import escrow_terms, free_terms
from wire.canon import pack
from wire.envelope import id_of
from wire.errors import Misbehaved
from wire.keys import SecretKey
from wire.moments import SECOND, Instant
from wire.network import REGTEST

BUYER, SELLER = SecretKey(b"\x01" * 32), SecretKey(b"\x02" * 32)
WORK, CIPHER, PLAIN, RESULT_KEY = b"w" * 32, b"c" * 32, b"p" * 32, b"k" * 32
DEAL_ID, CHANNEL = b"d" * 32, b"h" * 32
UNIT = unit_key(DEAL_ID, 0)
PRICE = 2_600_000
START = Instant(1_000 * SECOND)


def the_deal() -> Deal:
    return Deal(
        deal=DEAL_ID,
        role=Role.BUYER,
        other=SELLER.public,
        article="foobar",
        free=False,
        price_msat=PRICE,
        quantity=1,
        epoch=7,
        channel=None,
        agreed_us=START,
    )


def the_offer(*, price: int = PRICE, work: bytes = WORK, signer: SecretKey = SELLER) -> Offer:
    body = OfferBody(deal=DEAL_ID, unit=0, work=work, cipher=CIPHER, plain=PLAIN, lock=lock_of(RESULT_KEY), price_msat=price)
    return Offer(body=body, signature=signer.sign(id_of(REGTEST.name, OFFER_PURPOSE, pack(body))), size=100, ticket=b"t" * 16)


def asked(*, once: bool = False) -> Buying:
    """A purchase whose match is signed and whose channel is bound."""
    buying = Buying(BUYER, REGTEST, lambda free: free_terms() if free else escrow_terms(REGTEST), lambda number, now: True)
    buying.ask(
        BuyAsked(request=1, article="foobar", work=WORK, work_bytes=9, bid_msat=9_000_000, wait_us=60 * SECOND, once=once),
        START,
    )
    buying.agreed(the_deal(), START)
    buying.channel_bound(ChannelBound(deal=DEAL_ID, channel=CHANNEL, ready=True), START)
    return buying


def committed(*, once: bool = False) -> Buying:
    """The same, with the payment locked."""
    buying = asked(once=once)
    buying.hear(SELLER.peer_id, the_offer(), START)
    effects = buying.fetched(Fetched(unit=UNIT, content=CIPHER), START)
    assert effects == [PayWanted(channel=CHANNEL, unit=UNIT, lock=lock_of(RESULT_KEY), amount_msat=PRICE)]
    return buying


def replies(effects: list[Any]) -> list[Reply]:
    return [one for one in effects if isinstance(one, Reply)]


def test_the_straight_way_ends_with_the_result() -> None:
    buying = committed()
    buying.revealed(UNIT, RESULT_KEY, START)
    (reply,) = replies(buying.decrypted(Decrypted(unit=UNIT, plain=PLAIN), START))
    assert (reply.request, reply.result) == (1, PLAIN)
    assert buying.ledger.units[UNIT].phase is Phase.FINISHED
    assert buying.requests.all() == []


@pytest.mark.parametrize(
    "offer",
    [the_offer(price=PRICE + 1), the_offer(work=b"x" * 32), the_offer(signer=BUYER)],
    ids=["another price", "other work", "another signer"],
)
def test_a_wrong_offer_is_never_paid(offer: Offer) -> None:
    buying = asked()
    with pytest.raises(Misbehaved):
        buying.hear(SELLER.peer_id, offer, START)
    assert buying.ledger.units[UNIT].phase is Phase.FUNDED
    assert buying.fetched(Fetched(unit=UNIT, content=CIPHER), START) == []


def test_a_seller_who_goes_away_before_the_money_loses_the_unit() -> None:
    buying = asked()
    buying.peer_down(PeerDown(peer=SELLER.peer_id), START)
    effects = buying.tick(Instant(START + 4 * SECOND))
    assert buying.ledger.units[UNIT].phase is Phase.TIMED_OUT
    assert any(isinstance(one, Strike) for one in effects)
    assert any(isinstance(one, Post) and isinstance(DEAL.unpack(sort(one.letter)[1]), Withdraw) for one in effects)
    assert buying.requests.wants() == {("foobar", 9_000_000): 1}


def test_locked_money_stays_locked_and_the_request_goes_elsewhere() -> None:
    buying = committed()
    effects = buying.tick(Instant(START + 61 * SECOND))
    assert replies(effects) == []
    assert buying.ledger.units[UNIT].phase is Phase.COMMITTED
    assert buying.requests.wants() == {("foobar", 9_000_000): 1}


def test_bought_once_it_costs_one_price_whatever_the_seller_does() -> None:
    buying = committed(once=True)
    (reply,) = replies(buying.tick(Instant(START + 61 * SECOND)))
    assert (reply.result, reply.code) == (None, "spent")
    assert buying.requests.wants() == {}


def test_bought_once_a_bad_result_is_not_bought_again() -> None:
    buying = committed(once=True)
    buying.revealed(UNIT, RESULT_KEY, START)
    (reply,) = replies(buying.decrypted(Decrypted(unit=UNIT, plain=None), START))
    assert reply.code == "spent"
    assert buying.ledger.units[UNIT].phase is Phase.RESULT_DISPUTED


def test_a_key_that_comes_late_ends_the_search_for_another_seller() -> None:
    buying = committed()
    buying.tick(Instant(START + 61 * SECOND))
    buying.revealed(UNIT, RESULT_KEY, START)
    (reply,) = replies(buying.decrypted(Decrypted(unit=UNIT, plain=PLAIN), START))
    assert reply.result == PLAIN
    assert buying.requests.wants() == {}


def test_work_that_two_sellers_find_bad_is_given_up() -> None:
    buying = asked()
    refused = WorkRefused(deal=DEAL_ID, unit=0, code="bad-work", sentence="not a scene")
    assert replies(buying.hear(SELLER.peer_id, refused, START)) == []
    again = b"e" * 32
    buying.agreed(dataclasses.replace(the_deal(), deal=again), START)
    (reply,) = replies(buying.hear(SELLER.peer_id, dataclasses.replace(refused, deal=again), START))
    assert (reply.code, "not a scene" in reply.sentence) == ("bad-work", True)
