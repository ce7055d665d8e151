"""The last section of MARKET, rule by rule, on the purse and the two halves of a trade alone."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escrow.core.amounts import (
    CLAIM_VBYTES,
    DUST_P2WPKH_SAT,
    FUND_VBYTES,
    capacity_sat,
    close_fee_sat,
    enforced_from_sat,
    fee_sat,
    usable_msat,
)
from escrow.core.buyer import BuyerChannel
from escrow.core.events import FundingBuilt, FundingWanted, Letter, LetterIn, OutpointSeen, TipSeen
from escrow.core.messages import Open, read_letter
from escrow.core.opening import SellerPolicy, answer_open
from escrow.core.script import p2wpkh
from escrow.core.transaction import Tx, TxIn
from peer.core.deal import Deal, Phase, Role, unit_key
from peer.core.events import ChannelBound, ChannelFailed, ChannelWanted, Post
from peer.core.exposure import Exposure
from peer.core.letters import DEAL, WorkRefused, sort
from peer.core.purse import HEADROOM, HEADROOM_MOST, Purse
from peer.core.selling import Selling
from peer.core.terms import escrow_terms, free_terms
from wire.keys import SecretKey
from wire.limits import CHANNEL_CAPACITY_MAX_SAT, EXPOSURE_STEP_SAT, FIRST_EXPOSURE_MAX_SAT
from wire.moments import SECOND, Instant
from wire.money import ceil_sat
from wire.network import REGTEST
from wire.ports import OutInfo, OutPoint

BUYER = SecretKey(b"\x01" * 32)
SELLERS = [SecretKey(bytes([number]) * 32) for number in (2, 3, 4)]
INSTANCE, HEIGHT, FEERATE = b"\x07" * 32, 100, 1_000
START = Instant(REGTEST.clock.start(1_000_000) + SECOND)
PRICE = 2_600_000


class Till:
    """A purse, and sellers who answer its letters when told to."""

    def __init__(
        self, exposure: Exposure | None = None, limit_sat: Callable[[bytes], int] = lambda _: CHANNEL_CAPACITY_MAX_SAT
    ) -> None:
        self.exposure = exposure or Exposure()
        self.limit_sat = limit_sat
        self.purse = Purse(BUYER, REGTEST, INSTANCE, self.exposure, limit_sat=limit_sat)
        self.purse.tip_seen(TipSeen(height=HEIGHT, feerate_sat_per_kvb=FEERATE), START)
        self.offers: dict[bytes, bytes] = {}
        self.reserved: dict[bytes, int] = {}
        self.deals = 0

    def want(self, seller: SecretKey, units: int, price_msat: int = PRICE, now: Instant = START) -> Any:
        """A deal of so many units; the answer of the purse."""
        self.deals += 1
        event = ChannelWanted(
            deal=self.deals.to_bytes(32, "big"), peer=seller.peer_id, amount_msat=units * price_msat, unit_msat=price_msat
        )
        effects = self.purse.want(event, lambda channel: self.reserved.get(channel, 0), now)
        for one in effects:
            if isinstance(one, Letter) and isinstance(letter := read_letter(one.payload), Open):
                self.offers[seller.public] = one.payload
                assert letter.terms.capacity_sat <= self.exposure.capacity_sat(seller.public, self.limit_sat(seller.public))
        answer = effects[-1]
        if isinstance(answer, ChannelBound):
            taken = units if answer.units is None else answer.units
            self.reserved[answer.channel] = self.reserved.get(answer.channel, 0) + taken * price_msat
        return answer

    def agrees(self, seller: SecretKey, now: Instant = START) -> None:
        """The seller's answer arrives; what it wants funded is gathered, as the brain does it."""
        event = LetterIn(peer=BUYER.peer_id, payload=self.offers[seller.public])
        machine, effects = answer_open(seller, REGTEST, SellerPolicy(instance=INSTANCE), event, height=HEIGHT, now=now)
        assert machine is not None
        opened = next(one for one in effects if isinstance(one, Letter))
        for one in self.purse.letter(seller.peer_id, opened.payload, now):
            if isinstance(one, FundingWanted):
                assert self.purse.gather(one, now) == []

    def open(self, bound: ChannelBound) -> BuyerChannel:
        """The channel is funded and seen."""
        channel = self.purse.channels[bound.channel]
        assert isinstance(channel, BuyerChannel)
        outputs = (channel.contract.funding,)
        raw = Tx(inputs=(TxIn(outpoint=OutPoint(bound.channel, 0), script=b"\x51"),), outputs=outputs).serialise()
        channel.handle(FundingBuilt(raw=raw, vout=0), START)
        assert channel.funding is not None
        info = OutInfo(outputs[0].value_sat, outputs[0].script, HEIGHT, None)
        channel.handle(OutpointSeen(outpoint=channel.funding, info=info), START)
        return channel


# --- all new sellers of one epoch are funded in one transaction --------------------------------------------------


def test_all_new_sellers_of_one_epoch_are_funded_together() -> None:
    till = Till()
    later = START
    for seller in SELLERS:
        later = Instant(later + SECOND // 5)
        till.want(seller, 3, now=later)
        till.agrees(seller, later)
        assert till.purse.fundings(later, talking=True) == []  # others have still to answer our proposals
    wanted = till.purse.fundings(later, talking=False)
    assert len(wanted) == len(SELLERS)
    assert {one.channel for one in wanted} == set(till.purse.channels)
    assert till.purse.fundings(later, talking=False) == []


def test_a_seller_who_does_not_answer_holds_the_others_up_to_the_end_of_the_epoch_at_most() -> None:
    till = Till()
    for seller in SELLERS:
        till.want(seller, 3)
    for seller in SELLERS[:2]:
        till.agrees(seller)
    assert till.purse.fundings(START, talking=False) == []
    end = till.purse.next_deadline()
    assert end == REGTEST.clock.start(REGTEST.clock.epoch(START) + 1)
    assert till.purse.fundings(Instant(end - 1), talking=True) == []
    assert len(till.purse.fundings(end, talking=True)) == 2
    till.agrees(SELLERS[2], end)
    assert len(till.purse.fundings(end, talking=False)) == 1


# --- a channel with free capacity and margin is reused -----------------------------------------------------------


def test_a_channel_with_free_capacity_is_reused() -> None:
    till = Till()
    first = till.want(SELLERS[0], 3)
    assert first.units is None
    till.agrees(SELLERS[0])
    channel = till.open(first)
    assert channel.row.terms.capacity_sat == capacity_sat(HEADROOM * 3 * PRICE, FEERATE)
    for _ in range(HEADROOM - 1):
        again = till.want(SELLERS[0], 3)
        assert (again.channel, again.ready, again.units) == (first.channel, True, None)
    other = till.want(SELLERS[0], 3)
    assert other.channel != first.channel
    assert till.want(SELLERS[1], 1).channel not in (first.channel, other.channel)


def test_a_channel_without_margin_to_its_refund_is_not_reused() -> None:
    till = Till()
    first = till.want(SELLERS[0], 1)
    till.agrees(SELLERS[0])
    channel = till.open(first)
    last = channel.row.terms.refund_height - 2 * REGTEST.margin_blocks - 1
    till.purse.tip_seen(TipSeen(height=last, feerate_sat_per_kvb=FEERATE), START)
    assert till.want(SELLERS[0], 1).channel == first.channel
    till.purse.tip_seen(TipSeen(height=last + 1, feerate_sat_per_kvb=FEERATE), START)
    assert till.want(SELLERS[0], 1).channel != first.channel


# --- capacity ----------------------------------------------------------------------------------------------------


@given(
    total_msat=st.integers(0, 2_000_000_000_000),
    feerate=st.integers(1_000, 200_000),
    arbiter=st.booleans(),
)
def test_capacity_is_the_sum_rounded_up_with_close_fee_and_dust_and_at_least_20_times_the_fees(
    total_msat: int, feerate: int, arbiter: bool
) -> None:
    found = capacity_sat(total_msat, feerate, arbiter=arbiter)
    close = close_fee_sat(feerate, arbiter=arbiter)
    fees = fee_sat(FUND_VBYTES, feerate) + close + fee_sat(CLAIM_VBYTES, feerate)
    assert found == max(ceil_sat(total_msat) + close + DUST_P2WPKH_SAT, 20 * fees)
    assert usable_msat(found, feerate, arbiter=arbiter) >= total_msat


# --- first exposure is capped ------------------------------------------------------------------------------------


def test_first_exposure_is_capped_and_what_exceeds_it_is_left_out_of_the_deal() -> None:
    assert FIRST_EXPOSURE_MAX_SAT < CHANNEL_CAPACITY_MAX_SAT
    till = Till()
    bound = till.want(SELLERS[0], 1_000)
    capacity = till.purse.channels[bound.channel].row.terms.capacity_sat
    assert capacity <= FIRST_EXPOSURE_MAX_SAT
    assert 0 < bound.units < 1_000
    assert FIRST_EXPOSURE_MAX_SAT - PRICE // 1_000 < capacity_sat(bound.units * PRICE, FEERATE) <= capacity
    refused = till.want(SELLERS[0], 1)
    assert isinstance(refused, ChannelFailed)
    assert refused.code == "exposure"
    assert str(FIRST_EXPOSURE_MAX_SAT) in refused.sentence
    assert isinstance(till.want(SELLERS[1], 1), ChannelBound)


def test_exposure_grows_with_what_went_well_up_to_the_most_and_is_halved_by_a_fault() -> None:
    exposure = Exposure()
    account = SELLERS[0].public
    assert exposure.capacity_sat(account) == FIRST_EXPOSURE_MAX_SAT
    for units in range(1, 8):
        exposure.finished(account)
        assert exposure.capacity_sat(account) == FIRST_EXPOSURE_MAX_SAT + units * EXPOSURE_STEP_SAT
    exposure.finished(account, 1_000)
    assert exposure.capacity_sat(account) == CHANNEL_CAPACITY_MAX_SAT
    level = exposure.level(account)
    exposure.fault(account, START)
    exposure.fault(account, Instant(START + SECOND))  # the same accident
    assert exposure.level(account) == level // 2
    exposure.fault(account, Instant(START + 10 * SECOND))
    assert exposure.level(account) == level // 4
    assert exposure.capacity_sat(SELLERS[1].public) == FIRST_EXPOSURE_MAX_SAT


@given(units=st.integers(0, 100), extra_sat=st.integers(0, 18_000_000))
def test_a_bond_raises_the_most_and_experience_says_how_much_of_it(units: int, extra_sat: int) -> None:
    """What is put into channels grows with either, is a quarter of the most for a stranger, and never more than the most."""
    exposure, account = Exposure(), SELLERS[0].public
    exposure.finished(account, units)
    most_sat = CHANNEL_CAPACITY_MAX_SAT + extra_sat
    found = exposure.capacity_sat(account, most_sat)
    assert exposure.capacity_sat(account) <= found <= most_sat
    assert (found == most_sat) == (units >= 15)
    assert exposure.capacity_sat(SELLERS[1].public, most_sat) == most_sat // 4 <= found
    exposure.fault(account, START)
    assert exposure.capacity_sat(account, most_sat) <= found


def test_a_stranger_with_a_bond_gets_a_larger_channel_and_a_lost_bond_leaves_no_room() -> None:
    bonds: dict[bytes, int] = {SELLERS[0].public: 10 * CHANNEL_CAPACITY_MAX_SAT}
    till = Till(limit_sat=lambda account: bonds.get(account, CHANNEL_CAPACITY_MAX_SAT))
    bound = till.want(SELLERS[0], 500)
    assert bound.units is None
    capacity = till.purse.channels[bound.channel].row.terms.capacity_sat
    assert FIRST_EXPOSURE_MAX_SAT < capacity <= 10 * FIRST_EXPOSURE_MAX_SAT
    assert till.want(SELLERS[1], 500).units < 500
    bonds.clear()
    assert till.want(SELLERS[0], 5_000).channel == bound.channel, "what is there already may still be used"
    refused = till.want(SELLERS[0], 1)
    assert isinstance(refused, ChannelFailed)
    assert refused.code == "exposure"


def test_a_known_seller_gets_a_larger_channel() -> None:
    exposure = Exposure()
    exposure.finished(SELLERS[0].public, 10)
    bound = Till(exposure).want(SELLERS[0], 500)
    assert bound.units is None


# --- credit below what the chain enforces is explicit ------------------------------------------------------------


@pytest.mark.parametrize("unit_sat", [1, 329, 330, 433, 434, 2_600])
def test_credit_is_in_the_terms_exactly_when_a_unit_is_too_small_for_the_chain(unit_sat: int) -> None:
    till = Till()
    bound = till.want(SELLERS[0], 5, unit_sat * 1_000)
    terms = till.purse.channels[bound.channel].row.terms
    least = enforced_from_sat(FEERATE)
    assert terms.credit_sat == (least if unit_sat < least else 0)


def test_a_small_trade_uses_a_channel_without_credit_only_when_its_balance_is_large_enough() -> None:
    till = Till()
    first = till.want(SELLERS[0], 1)
    till.agrees(SELLERS[0])
    channel = till.open(first)
    assert channel.row.terms.credit_sat == 0
    assert till.want(SELLERS[0], 1, 50_000).channel != first.channel
    channel._change(paid_msat=PRICE, revealed_msat=PRICE)
    assert till.want(SELLERS[0], 1, 50_000).channel in till.purse.channels
    assert till.purse._pays(channel, 50_000)


# --- a seller not funded in time releases ------------------------------------------------------------------------


def test_a_seller_not_funded_in_time_releases() -> None:
    selling = Selling(SELLERS[0], REGTEST, lambda free: free_terms() if free else escrow_terms(REGTEST), lambda article: None)
    deal = Deal(
        deal=b"d" * 32,
        role=Role.SELLER,
        other=BUYER.public,
        article="foobar",
        free=False,
        price_msat=PRICE,
        quantity=2,
        epoch=7,
        channel=None,
        agreed_us=START,
    )
    selling.agreed(deal, START)
    due = Instant(START + escrow_terms(REGTEST).fund_s * SECOND)
    assert selling.next_deadline() == due
    assert selling.tick(Instant(due - 1)) == []
    told = [DEAL.unpack(sort(one.letter)[1]) for one in selling.tick(due) if isinstance(one, Post)]
    assert [(one.unit, one.code) for one in told if isinstance(one, WorkRefused)] == [(0, "not-funded"), (1, "not-funded")]
    assert {selling.ledger.units[unit_key(deal.deal, number)].phase for number in range(2)} == {Phase.NO_SHOW}


def test_the_purse_pays_to_keys_of_segwit_alone() -> None:
    till = Till()
    bound = till.want(SELLERS[0], 1)
    contract = till.purse.channels[bound.channel].contract
    assert contract.funding.script[:2] == b"\x00\x20"
    assert contract.to_buyer_script == p2wpkh(BUYER.public)


@pytest.mark.parametrize(("waiting", "holds"), [(0, HEADROOM), (5, 6), (100, HEADROOM_MOST)])
def test_a_new_channel_holds_more_while_more_waits_to_be_bought(waiting: int, holds: int) -> None:
    till = Till()
    event = ChannelWanted(deal=b"d" * 32, peer=SELLERS[0].peer_id, amount_msat=PRICE, unit_msat=PRICE, more_msat=waiting * PRICE)
    till.purse.want(event, lambda channel: 0, START)
    (channel,) = till.purse.channels.values()
    assert channel.row.terms.capacity_sat == capacity_sat(holds * PRICE, FEERATE)
