"""Rulings: the arbiter's half with a party's, before the kernel; what cannot be divided; what is nobody's ruling."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escrow.core.amounts import RULING_VBYTES, fee_sat
from escrow.core.contract import Branch, contract_of
from escrow.core.events import Letter, LetterIn
from escrow.core.messages import Declined, read_letter
from escrow.core.opening import SellerPolicy, answer_open, open_channel, propose_terms
from escrow.core.ruling import BadRuling, complete_ruling, divide, is_ruling, ruling_fee_sat, sign_ruling
from escrow.core.spends import SpendKind, classify
from escrow.shell.regtest import Regtest
from tests.escrow.judges import KernelJudge, Stage
from tests.escrow.pair import BUYER, SELLER
from tests.escrow.scenarios import ARBITER, CAPACITY, EARLY, RATE, SCRIPT, STRANGER, Escrow, funded, terms_at
from wire.keys import SecretKey
from wire.moments import Instant
from wire.network import REGTEST
from wire.ports import OutPoint

FUNDING = OutPoint(b"\xfe" * 32, 0)
CONTRACT = contract_of("regtest", terms_at(100, True))
FEE = fee_sat(RULING_VBYTES, RATE)


@pytest.fixture
def escrow(chain: Regtest) -> Escrow:
    return funded(Stage(KernelJudge(chain)), True)


def ruled(escrow: Escrow, party: SecretKey, to_seller_sat: int) -> Any:
    to_seller, to_buyer = divide(escrow.contract, to_seller_sat, RATE)
    half = sign_ruling(escrow.contract, escrow.funding, to_seller, to_buyer, ARBITER)
    return complete_ruling(escrow.contract, escrow.funding, to_seller, to_buyer, half, party)


@pytest.mark.parametrize("party", [BUYER, SELLER], ids=["buyer", "seller"])
@pytest.mark.parametrize("to_seller_sat", [0, 293, 294, 100_000, CAPACITY - FEE], ids=str)
def test_either_party_completes_a_ruling(escrow: Escrow, party: SecretKey, to_seller_sat: int) -> None:
    whole = ruled(escrow, party, to_seller_sat)
    escrow.stage.refuses("a ruling before its height", whole, EARLY)
    escrow.until(escrow.contract.terms.ruling_height)
    escrow.stage.accepts("a ruling from its height on", whole)
    spend = classify(escrow.contract, whole, escrow.funding, ())
    assert spend.kind is SpendKind.RULED
    assert spend.to_seller_sat == (to_seller_sat if to_seller_sat >= 294 else 0)
    paid = spend.to_seller_sat + spend.to_buyer_sat
    assert paid + sum(sat for sat in (to_seller_sat, CAPACITY - FEE - to_seller_sat) if sat < 294) == CAPACITY - FEE


def test_half_a_ruling_is_none(escrow: Escrow) -> None:
    escrow.until(escrow.contract.terms.ruling_height)
    to_seller, to_buyer = divide(escrow.contract, 100_000, RATE)
    half = sign_ruling(escrow.contract, escrow.funding, to_seller, to_buyer, ARBITER)
    for who in (STRANGER, ARBITER):
        alone = complete_ruling(escrow.contract, escrow.funding, to_seller, to_buyer, half, who)
        escrow.stage.refuses("the arbiter's half with a signature of no party", alone, SCRIPT)
    other = complete_ruling(escrow.contract, escrow.funding, to_seller + 1, to_buyer - 1, half, SELLER)
    escrow.stage.refuses("another division than was ruled", other, SCRIPT)
    escrow.stage.accepts("the division that was ruled", ruled(escrow, SELLER, 100_000))


@given(st.integers(0, CAPACITY - FEE), st.integers(0, CAPACITY - FEE), st.sampled_from([ARBITER, STRANGER, BUYER]))
def test_a_ruling_is_one_division_by_one_arbiter(ours: int, shown: int, signer: SecretKey) -> None:
    to_seller, to_buyer = divide(CONTRACT, ours, RATE)
    assert to_seller + to_buyer + FEE == CAPACITY
    if signer is not ARBITER:
        with pytest.raises(BadRuling):
            sign_ruling(CONTRACT, FUNDING, to_seller, to_buyer, signer)
        half = signer.sign_ecdsa(b"\x01" * 32)
    else:
        half = sign_ruling(CONTRACT, FUNDING, to_seller, to_buyer, signer)
    holds = is_ruling(CONTRACT, FUNDING, *divide(CONTRACT, shown, RATE), half)
    assert holds == (signer is ARBITER and _outputs(ours) == _outputs(shown))


def _outputs(to_seller: int) -> tuple[int, int]:
    to_buyer = CAPACITY - FEE - to_seller
    return (to_seller if to_seller >= 294 else 0, to_buyer if to_buyer >= 294 else 0)


def test_what_cannot_be_divided_is_named() -> None:
    for wrong in (-1, CAPACITY - FEE + 1):
        with pytest.raises(BadRuling) as caught:
            divide(CONTRACT, wrong, RATE)
        assert str(CAPACITY - FEE) in caught.value.sentence
    for pays in ((0, 0), (CAPACITY, 1)):
        with pytest.raises(BadRuling):
            sign_ruling(CONTRACT, FUNDING, *pays, ARBITER)
        assert not is_ruling(CONTRACT, FUNDING, *pays, ARBITER.sign_ecdsa(b"\x01" * 32))
    assert ruling_fee_sat(CONTRACT, 0) == FEE
    assert ruling_fee_sat(CONTRACT, 10 * RATE) == fee_sat(RULING_VBYTES, 10 * RATE)


def test_there_is_no_ruling_without_an_arbiter() -> None:
    plain = contract_of("regtest", dataclasses.replace(CONTRACT.terms, arbiter=None, ruling_height=0))
    assert not is_ruling(plain, FUNDING, 1_000, 1_000, ARBITER.sign_ecdsa(b"\x01" * 32))
    with pytest.raises(BadRuling):
        sign_ruling(plain, FUNDING, 1_000, 1_000, ARBITER)
    assert CONTRACT.secret(BUYER, Branch.RULE).public == CONTRACT.buyer_rule


@pytest.mark.parametrize(
    ("proposed", "listed", "required", "code"),
    [
        (ARBITER, [ARBITER], True, ""),
        (ARBITER, [ARBITER], False, ""),
        (ARBITER, [STRANGER], True, "arbiter"),
        (ARBITER, [], False, "arbiter"),
        (None, [ARBITER], True, "no-arbiter"),
        (None, [ARBITER], False, ""),
    ],
)
def test_a_channel_has_an_arbiter_that_both_accept_and_one_where_one_is_wanted(
    proposed: SecretKey | None, listed: list[SecretKey], required: bool, code: str
) -> None:
    terms = propose_terms(
        BUYER,
        SELLER.public,
        REGTEST,
        b"\x07" * 32,
        height=100,
        feerate_sat_per_kvb=RATE,
        capacity_sat=CAPACITY,
        counter=0,
        arbiter=None if proposed is None else proposed.public,
    )
    _, effects = open_channel(BUYER, REGTEST, terms, Instant(0))
    (letter,) = [one.payload for one in effects if isinstance(one, Letter)]
    policy = SellerPolicy(instance=b"\x07" * 32, arbiters=frozenset(one.public for one in listed), arbiter_required=required)
    channel, answers = answer_open(
        SELLER, REGTEST, policy, LetterIn(peer=BUYER.peer_id, payload=letter), height=100, now=Instant(0)
    )
    assert (channel is not None) == (code == "")
    declined = [
        said.code for one in answers if isinstance(one, Letter) and isinstance(said := read_letter(one.payload), Declined)
    ]
    assert declined == ([code] if code else [])
