"""The straight path and every row of the failure table in docs/spec/escrow.md, on the real chain."""

import dataclasses
import hashlib
from collections.abc import Callable

import pytest

from escrow.core.amounts import REFUND_VBYTES, fee_sat
from escrow.core.contract import Branch, channel_id
from escrow.core.events import (
    CloseAsked,
    Closed,
    FundingBuilt,
    FundingFailed,
    How,
    Letter,
    LetterIn,
    Locked,
    PayFailed,
    Phase,
    PhaseChanged,
    Ready,
    Reveal,
    Revealed,
    TipSeen,
)
from escrow.core.messages import Funded, Letters, Open, read_letter
from escrow.core.opening import SellerPolicy, answer_open
from escrow.core.script import p2wpkh
from escrow.core.spends import complete, escrow_digest, key_shown, ruling, sign_spend, sign_state, state
from escrow.core.state import LOCK_TABLE
from escrow.core.transaction import Tx, TxIn, parse
from escrow.shell.regtest import ANYONE, FAUCET_SCRIPT
from tests.escrow.pair import BUYER, SELLER, SHORT, Pair, build_funding, lock_of
from wire.keys import SecretKey
from wire.limits import CHANNEL_ANSWER_WAIT_S, CHANNEL_CLOSE_WAIT_S, CHANNEL_FUND_WAIT_S
from wire.ports import OutPoint, TxOut

Make = Callable[..., Pair]

ARBITER = SecretKey(b"\x33" * 32)
UNIT_SAT = 2_600


def phases(world: Pair) -> tuple[Phase, Phase]:
    return world.buyer.machine.phase, world.seller.machine.phase


def refs(world: Pair) -> list[bytes]:
    return [one.ref for one in world.buyer.of(Revealed)]


@pytest.mark.parametrize("arbiter", [None, ARBITER.public])
def test_straight_path(pair: Make, arbiter: bytes | None) -> None:
    world = pair(arbiter=arbiter).ready()
    assert len(world.buyer.of(Ready)) == len(world.seller.of(Ready)) == 1
    for number in range(3):
        world.pay(number)
    assert refs(world) == [b"unit 0", b"unit 1", b"unit 2"]
    world.close(world.buyer).mine()
    end = world.check_end()
    assert end.how is How.SETTLED
    assert end.to_seller_sat == 3 * 2_600_500 // 1_000
    assert phases(world) == (Phase.CLOSED, Phase.CLOSED)
    world.mine(world.network.margin_blocks)
    assert phases(world) == (Phase.BURIED, Phase.BURIED)
    assert (world.buyer.watched, world.seller.watched, world.rejected) == ({}, {}, [])
    assert world.buyer.rows[LOCK_TABLE] == {}


def test_the_seller_asks_to_close_and_waiting_payments_are_made_first(pair: Make) -> None:
    world = pair().ready()
    world.seller.reveals = False
    for number in range(3):
        world.pay(number)
    assert len(world.seller.of(Locked)) == 1
    world.seller.reveals = True
    world.close(world.seller)
    assert refs(world) == [b"unit 0", b"unit 1", b"unit 2"]
    world.pay(3)
    assert [one.code for one in world.buyer.of(PayFailed)] == ["closed"]
    end = world.mine().check_end()
    assert (end.how, end.to_seller_sat) == (How.SETTLED, 3 * 2_600_500 // 1_000)


def test_an_unused_channel_closes_with_everything_for_the_buyer(pair: Make) -> None:
    world = pair().ready()
    world.close(world.buyer).mine()
    end = world.check_end()
    assert (end.how, end.to_seller_sat) == (How.SETTLED, 0)
    assert end.fees_sat == world.buyer.machine.contract.close_fee_sat


def test_buyer_vanishes_before_the_next_commitment(pair: Make) -> None:
    world = pair().ready().pay(0).pay(1).pay(2)
    world.buyer.alive = False
    world.close(world.seller).wait(CHANNEL_CLOSE_WAIT_S).mine()
    end = world.seller.end
    # the newest balance is locked, but its key was given: it is claimed, and only the claim's fee is lost
    assert end.how is How.CLAIMED
    assert 3 * UNIT_SAT > end.to_seller_sat > 3 * UNIT_SAT - 200
    world.buyer.alive = True
    assert world.run().check_end() == end


def test_buyer_vanishes_after_key_and_the_claim_is_worth_less_than_the_settled_state(pair: Make) -> None:
    world = pair().ready().pay(0).pay(1, 100_000)
    world.buyer.alive = False
    world.close(world.seller).wait(CHANNEL_CLOSE_WAIT_S).mine()
    assert (world.seller.end.how, world.seller.end.to_seller_sat) == (How.SETTLED, UNIT_SAT)
    world.buyer.alive = True
    assert world.run().check_end().to_seller_sat == UNIT_SAT
    assert world.buyer.of(PayFailed) == []


def test_seller_vanishes_and_the_buyer_is_refunded(pair: Make) -> None:
    world = pair().ready().pay(0)
    world.seller.alive = False
    world.pay(1)
    world.mine_to(world.terms.refund_height - 1)
    assert world.buyer.machine.phase is Phase.OPEN
    world.mine(2)
    end = world.check_end()
    assert end.how is How.REFUNDED
    assert end.to_buyer_sat == world.terms.capacity_sat - fee_sat(REFUND_VBYTES, 1_000)
    assert [(one.ref, one.code) for one in world.buyer.of(PayFailed)] == [(b"unit 1", "not-revealed")]


def test_seller_takes_the_commitment_and_closes_without_giving_the_key(pair: Make) -> None:
    world = pair().ready().pay(0)
    world.seller.reveals = False
    world.pay(1)
    world.close(world.seller).wait(CHANNEL_CLOSE_WAIT_S).mine()
    end = world.check_end()
    assert (end.how, end.to_seller_sat) == (How.SETTLED, UNIT_SAT)
    assert [(one.ref, one.code) for one in world.buyer.of(PayFailed)] == [(b"unit 1", "not-revealed")]


def test_a_key_that_never_arrives_is_read_from_the_claim(pair: Make) -> None:
    world = pair().ready().pay(0)
    world.lose = lambda to, payload: to is world.buyer
    world.pay(1)
    assert refs(world) == [b"unit 0"]
    world.close(world.seller).wait(CHANNEL_CLOSE_WAIT_S)
    assert refs(world) == [b"unit 0", b"unit 1"]  # seen waiting already, no block needed
    assert world.buyer.of(Revealed)[-1].key == world.key(1)
    end = world.mine().check_end()
    assert end.how is How.CLAIMED


def test_seller_publishes_a_locked_state_and_never_claims(pair: Make) -> None:
    world = pair().ready().pay(0)
    world.seller.reveals = False
    world.pay(1)
    machine = world.seller.machine
    last = machine.row.last
    unsigned = state(machine.contract, machine.funding, last.paid_msat, last.lock)
    world.chain.submit(complete(machine.contract, unsigned, last.signature, machine._coop).serialise())
    world.run().mine()
    assert phases(world) == (Phase.CLAIMING, Phase.CLAIMING)
    world.mine(SHORT.claim_delay_blocks - 2)
    assert world.chain.mempool_ids() == []
    world.mine()
    assert len(world.chain.mempool_ids()) == 1
    end = world.mine().check_end()
    assert (end.how, end.to_seller_sat) == (How.LAPSED, 0)
    assert [one.ref for one in world.buyer.of(PayFailed)] == [b"unit 1"]
    assert world.rejected == []


def test_a_stale_locked_state_hurts_only_the_seller(pair: Make) -> None:
    world = pair().ready().pay(0)
    machine = world.seller.machine
    old = machine.row.last
    world.pay(1).pay(2)
    unsigned = state(machine.contract, machine.funding, old.paid_msat, old.lock)
    world.chain.submit(complete(machine.contract, unsigned, old.signature, machine._coop).serialise())
    world.seller.alive = False
    world.restart(world.buyer)
    world.run().mine(SHORT.claim_delay_blocks + 1)
    assert (world.check_end().how, world.check_end().to_seller_sat) == (How.LAPSED, 0)


def test_no_key_for_an_unconfirmed_escrow(pair: Make) -> None:
    world = pair().open().run()
    assert world.seller.of(Ready)
    world.pay(0)
    assert world.seller.of(Locked) == []
    world.give(world.seller, Reveal(ref=b"unit 0", key=world.key(0)))
    assert world.seller.counts["reveal-early"] == 1
    assert refs(world.run()) == []
    world.mine()
    assert refs(world) == [b"unit 0"]


def double_spend(world: Pair) -> Tx:
    funding = parse(world.buyer.machine.row.funding_raw)
    spending = TxIn(outpoint=funding.inputs[0].outpoint, witness=(ANYONE,))
    value = sum(one.value_sat for one in funding.outputs)
    return Tx(inputs=(spending,), outputs=(TxOut(value - 10_000, FAUCET_SCRIPT),))


def test_buyer_double_spends_the_funding(pair: Make) -> None:
    world = pair().open().run().pay(0)
    assert phases(world) == (Phase.OPEN, Phase.OPEN)
    world.chain.submit(double_spend(world).serialise())
    world.run()
    assert phases(world) == (Phase.FUNDED, Phase.FUNDED)
    world.mine(3)
    assert world.seller.of(Locked) == []
    assert ("funding", "bad-txns-inputs-missingorspent") in world.rejected
    world.wait(CHANNEL_FUND_WAIT_S)
    assert world.seller.end.how is How.UNFUNDED
    world.give(world.buyer, FundingFailed(code="rejected", sentence="its coins were spent"))
    assert world.buyer.end.how is How.UNFUNDED
    assert [one.ref for one in world.buyer.of(PayFailed)] == [b"unit 0"]


def test_reorganisation_of_the_funding(pair: Make) -> None:
    world = pair().ready().pay(0)
    world.reorganise(1)
    assert phases(world) == (Phase.OPEN, Phase.OPEN)  # it waits again
    world.pay(1)
    assert refs(world) == [b"unit 0"]  # and until it is confirmed no key is given
    world.mine()
    assert refs(world) == [b"unit 0", b"unit 1"]
    world.reorganise(1, (double_spend(world),))
    assert phases(world) == (Phase.FUNDED, Phase.FUNDED)
    world.reorganise(2, (parse(world.buyer.machine.row.funding_raw),))
    assert phases(world) == (Phase.OPEN, Phase.OPEN)
    world.close(world.seller).mine()
    assert world.check_end().how is How.SETTLED


def test_reorganisation_of_the_close(pair: Make) -> None:
    world = pair().ready().pay(0)
    world.close(world.buyer).mine()
    first = world.check_end()
    assert phases(world) == (Phase.CLOSED, Phase.CLOSED)
    world.reorganise(1)
    assert phases(world) == (Phase.CLOSING, Phase.CLOSING)
    world.mine()
    assert phases(world) == (Phase.CLOSED, Phase.CLOSED)
    again = world.check_end()
    assert (again.txid, again.to_seller_sat) == (first.txid, first.to_seller_sat)
    world.mine(SHORT.margin_blocks)
    assert phases(world) == (Phase.BURIED, Phase.BURIED)


def test_everything_is_broadcast_again_when_the_chain_forgets_it(pair: Make) -> None:
    world = pair().open().run()
    assert phases(world) == (Phase.OPEN, Phase.OPEN)
    world.lose_mempool()
    assert phases(world) == (Phase.FUNDED, Phase.FUNDED)
    world.wait(20)
    assert phases(world) == (Phase.OPEN, Phase.OPEN)
    world.mine().pay(0)
    world.close(world.buyer).lose_mempool()
    assert phases(world) == (Phase.CLOSING, Phase.CLOSING)
    world.wait(20).mine()
    assert phases(world) == (Phase.CLOSED, Phase.CLOSED)
    world.reorganise(1)
    world.lose_mempool()
    assert phases(world) == (Phase.CLOSING, Phase.CLOSING)
    assert world.seller.machine.row.ending is None
    world.wait(20).mine()
    assert world.check_end().how is How.SETTLED


def test_a_forgotten_claim_and_a_forgotten_lapse(pair: Make) -> None:
    world = pair().ready().pay(0)
    world.buyer.alive = False
    world.close(world.seller).wait(CHANNEL_CLOSE_WAIT_S).lose_mempool()
    assert world.seller.machine.phase is Phase.CLOSING
    world.wait(70).mine()
    assert world.seller.end.how is How.CLAIMED
    world.reorganise(1)
    world.lose_mempool()
    world.wait(70).mine()
    assert world.seller.end.how is How.CLAIMED

    world = pair().ready().pay(0)
    machine = world.seller.machine
    last = machine.row.last
    unsigned = state(machine.contract, machine.funding, last.paid_msat, last.lock)
    world.seller.alive = False
    world.chain.submit(complete(machine.contract, unsigned, last.signature, machine._coop).serialise())
    world.run().mine(SHORT.claim_delay_blocks).lose_mempool().wait(70)
    assert len(world.chain.mempool_ids()) == 1
    assert world.mine().check_end().how is How.LAPSED


def test_reorganisation_of_a_claim(pair: Make) -> None:
    world = pair().ready().pay(0)
    world.buyer.alive = False
    world.close(world.seller).wait(CHANNEL_CLOSE_WAIT_S).mine()
    assert phases(world)[1] is Phase.CLOSED
    world.reorganise(1)
    assert phases(world)[1] is Phase.CLAIMING
    world.reorganise(2)
    world.mine()
    assert phases(world)[1] is Phase.CLOSED
    assert world.seller.end.how is How.CLAIMED


def test_the_seller_serves_no_more_two_margins_before_and_closes_one_margin_before(pair: Make) -> None:
    world = pair().ready().pay(0)
    world.buyer.alive = False
    early, late = world.terms.refund_height - 2 * SHORT.margin_blocks, world.terms.refund_height - SHORT.margin_blocks
    world.mine_to(early - 1)
    assert not world.seller.machine.row.closing
    world.mine_to(early)
    assert world.seller.machine.row.closing
    world.mine_to(late - 1)
    assert world.seller.machine.phase is Phase.OPEN
    world.mine_to(late + 1)
    assert world.seller.end.how is How.CLAIMED


def test_with_an_arbiter_the_margins_count_to_the_ruling(pair: Make) -> None:
    world = pair(arbiter=ARBITER.public).ready().pay(0)
    world.buyer.alive = False
    world.mine_to(world.terms.ruling_height - SHORT.margin_blocks - 1)
    assert world.seller.machine.phase is Phase.OPEN
    world.mine(2)
    assert world.seller.end.how is How.CLAIMED


def test_the_buyer_stops_paying_in_time_and_closes(pair: Make) -> None:
    world = pair().ready().pay(0)
    world.mine_to(world.terms.refund_height - 2 * SHORT.margin_blocks)
    world.pay(1)
    assert [one.code for one in world.buyer.of(PayFailed)] == ["closed"]
    assert world.mine().check_end().to_seller_sat == UNIT_SAT


def test_fees_rise_and_the_claim_pays_for_its_parent(pair: Make) -> None:
    world = pair().ready().pay(0, 20_000_000)
    world.buyer.alive = False
    world.close(world.seller)
    world.give(world.seller, TipSeen(height=world.chain.height, feerate_sat_per_kvb=8_000))
    world.wait(CHANNEL_CLOSE_WAIT_S)
    waiting = [world.chain.transaction(txid) for txid in world.chain.mempool_ids()]
    close, claim = [parse(one.raw) for one in waiting if one is not None]
    fees = world.terms.capacity_sat - sum(one.value_sat for one in (*close.outputs[1:], *claim.outputs))
    assert fees / (close.vsize + claim.vsize) >= 7.9
    world.give(world.seller, TipSeen(height=world.chain.height, feerate_sat_per_kvb=12_000))
    assert len(world.chain.mempool_ids()) == 2
    dearer = world.chain.transaction(world.chain.mempool_ids()[1])
    assert dearer is not None
    assert parse(dearer.raw).outputs[0].value_sat < claim.outputs[0].value_sat
    world.run().mine()
    assert world.seller.end.how is How.CLAIMED


def test_a_refund_that_waits_is_made_dearer(pair: Make) -> None:
    world = pair().ready()
    world.seller.alive = False
    world.mine_to(world.terms.refund_height)
    (first,) = world.chain.mempool_ids()
    world.give(world.buyer, TipSeen(height=world.chain.height, feerate_sat_per_kvb=1_100))
    assert world.chain.mempool_ids() == [first]
    world.give(world.buyer, TipSeen(height=world.chain.height, feerate_sat_per_kvb=5_000))
    assert len(world.chain.mempool_ids()) == 1
    assert world.chain.mempool_ids() != [first]
    end = world.run().mine().check_end()
    assert (end.how, end.fees_sat) == (How.REFUNDED, fee_sat(REFUND_VBYTES, 5_000))


def test_an_arbiter_rules(pair: Make) -> None:
    world = pair(arbiter=ARBITER.public).ready().pay(0)
    world.seller.alive = False
    world.mine_to(world.terms.ruling_height)
    contract = world.buyer.machine.contract
    unsigned = ruling(contract, world.buyer.machine.funding, 1_000, 98_000)
    digest = escrow_digest(contract, unsigned)
    party = sign_spend(contract.secret(BUYER, Branch.RULE), digest)
    signed = unsigned.with_witness(0, contract.ruling_witness(sign_spend(ARBITER, digest), party))
    world.chain.submit(signed.serialise())
    world.run().mine()
    end = world.check_end()
    assert (end.how, end.to_seller_sat, end.to_buyer_sat, end.fees_sat) == (How.RULED, 1_000, 98_000, 1_000)


# --- before there is money ---------------------------------------------------------------------------------------


def test_a_seller_who_does_not_answer(pair: Make) -> None:
    world = pair()
    world.lose = lambda to, payload: to is world.seller
    world.open().pay(0)
    world.wait(CHANNEL_ANSWER_WAIT_S - 1)
    assert world.buyer.machine.phase is Phase.OFFERED
    world.wait(1)
    assert world.buyer.end.how is How.DECLINED
    assert [one.code for one in world.buyer.of(PayFailed)] == ["closed"]
    assert world.buyer.machine.next_deadline() is None


def test_lost_letters_are_sent_again(pair: Make) -> None:
    world = pair()
    seen: set[tuple[str, bytes]] = set()

    def lose_the_first(to: object, payload: bytes) -> bool:
        kind = (type(read_letter(payload)).__name__, payload)
        first = kind not in seen
        seen.add(kind)
        return first

    world.lose = lose_the_first
    world.open().wait(20)
    world.mine().pay(0)
    world.wait(60)
    assert refs(world) == [b"unit 0"]
    world.close(world.buyer).wait(60)
    assert world.mine().check_end().how is How.SETTLED


def test_a_channel_not_funded_in_time_is_released_and_served_when_the_money_comes_after_all(pair: Make) -> None:
    world = pair()
    world.fund = False
    world.open().run()
    assert phases(world) == (Phase.FUNDING, Phase.AGREED)
    world.wait(CHANNEL_FUND_WAIT_S)
    assert world.seller.end.how is How.UNFUNDED
    world.fund = True
    world.restart(world.buyer)
    world.run().mine()
    assert phases(world) == (Phase.OPEN, Phase.OPEN)
    world.pay(0)
    assert refs(world) == [b"unit 0"]


def test_the_wallet_cannot_fund(pair: Make) -> None:
    world = pair()
    world.fund = False
    world.open().run().pay(0)
    world.give(world.buyer, FundingFailed(code="no-funds", sentence="the wallet is empty"))
    world.run()
    assert (world.buyer.end.how, world.seller.end.how) == (How.UNFUNDED, How.UNFUNDED)
    assert [one.ref for one in world.buyer.of(PayFailed)] == [b"unit 0"]


def test_funding_that_comes_after_giving_up_is_brought_home(pair: Make) -> None:
    world = pair()
    world.fund = False
    world.open().run()
    world.give(world.buyer, FundingFailed(code="no-funds", sentence="so it seemed"))
    world.run()
    raw = build_funding(world.chain, [world.buyer.machine.contract.funding])
    world.give(world.buyer, FundingBuilt(raw=raw, vout=0))
    world.run().mine(2)
    assert world.check_end().how is How.SETTLED
    assert world.check_end().to_seller_sat == 0


@pytest.mark.parametrize("lie", ["value", "script", "nothing"])
def test_the_seller_believes_the_chain_and_not_the_letter(pair: Make, lie: str) -> None:
    world = pair()
    world.fund = False
    world.open().run()
    right = world.buyer.machine.contract.funding
    wrong = {
        "value": TxOut(right.value_sat - 1, right.script),
        "script": TxOut(right.value_sat, p2wpkh(BUYER.public)),
        "nothing": TxOut(right.value_sat, right.script),
    }[lie]
    raw = build_funding(world.chain, [wrong])
    if lie != "nothing":
        world.chain.submit(raw)
    letter = Funded(channel=world.seller.machine.channel, txid=parse(raw).txid, vout=0)
    world.letters.append((world.seller, Letters.pack(letter)))
    world.run().mine()
    assert world.seller.of(Ready) == []
    if lie == "nothing":
        world.wait(CHANNEL_FUND_WAIT_S)
    else:
        assert world.seller.counts["wrong-funding"] == 1
    assert world.seller.end.how is How.UNFUNDED


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("other-chain", {"instance": b"\x08" * 32}),
        ("capacity-high", {"capacity_sat": 3_000_000}),
        ("feerate", {"feerate_sat_per_kvb": 60_000, "capacity_sat": 1_900_000}),
        ("capacity-low", {"capacity_sat": 9_000}),
        ("credit", {"credit_sat": 600}),
        ("claim-delay", {"claim_delay_blocks": 5}),
        ("too-short", {"refund_height": 140}),
        ("arbiter", {"arbiter": SecretKey(b"\x44" * 32).public, "ruling_height": 170}),
    ],
)
def test_terms_that_a_seller_declines(pair: Make, code: str, change: dict[str, object]) -> None:
    world = pair()
    policy = SellerPolicy(instance=world.terms.instance, credit_max_sat=500)
    terms = dataclasses.replace(world.terms, **{"refund_height": 190, **change})  # type: ignore[arg-type]
    channel = channel_id(SHORT.name, terms)
    letter = Open(channel=channel, terms=terms, signature=BUYER.sign(channel))
    event = LetterIn(peer=BUYER.peer_id, payload=Letters.pack(letter))
    machine, effects = answer_open(SELLER, SHORT, policy, event, height=130, now=world.now)
    assert machine is None
    (answer,) = [read_letter(one.payload) for one in effects if isinstance(one, Letter)]
    assert getattr(answer, "code", None) == code


def test_a_declined_offer_ends_with_its_reason(pair: Make) -> None:
    world = pair()
    world.policy = dataclasses.replace(world.policy, capacity_max_sat=50_000)
    world.open().pay(0)
    assert world.buyer.end.how is How.DECLINED
    assert "50000" in world.buyer.of(PhaseChanged)[-1].sentence
    assert [one.code for one in world.buyer.of(PayFailed)] == ["closed"]


# --- what a key is worth -----------------------------------------------------------------------------------------


def test_the_claim_shows_the_key_to_everybody(pair: Make) -> None:
    world = pair().ready().pay(0)
    world.buyer.alive = False
    world.close(world.seller).wait(CHANNEL_CLOSE_WAIT_S).mine()
    closed: Closed = world.seller.end
    assert closed.txid is not None
    source = OutPoint(closed.txid, 0)
    info = world.chain.outpoint(source)
    assert info is not None
    assert info.spent_by is not None
    key = key_shown(parse(info.spent_by.raw), source, lock_of(world.key(0)))
    assert key == world.key(0)
    assert hashlib.sha256(key).digest() == world.seller.machine.row.last.lock


def test_states_signed_by_the_seller_alone_are_worth_nothing(pair: Make) -> None:
    world = pair().ready()
    machine = world.seller.machine
    forged = sign_state(machine.contract, machine._coop, machine.funding, 5_000_000, None)
    unsigned = state(machine.contract, machine.funding, 5_000_000, None)
    raw = complete(machine.contract, unsigned, forged, machine._coop).serialise()
    with pytest.raises(Exception, match="mandatory-script-verify"):
        world.chain.submit(raw)


def test_nothing_moves_after_the_burial(pair: Make) -> None:
    world = pair().ready().pay(0)
    world.close(world.buyer).mine(SHORT.margin_blocks + 1)
    before = (dict(world.buyer.rows["channel"]), dict(world.seller.rows["channel"]))
    for party in (world.buyer, world.seller):
        world.give(party, CloseAsked(reason="again"))
        told = party.machine.resume(world.now)
        assert party.end in told
        assert {type(one) for one in told} <= {Closed, Revealed}
    world.pay(9)
    assert world.buyer.of(PayFailed)[-1].ref == b"unit 9"
    assert (world.buyer.rows["channel"], world.seller.rows["channel"]) == before
