"""The short way to a state's digest and the transaction itself say the same for every amount and lock; the bench runs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escrow.core.contract import Branch, contract_of
from escrow.core.opening import propose_terms
from escrow.core.signer import StateSigner
from escrow.core.spends import OverCapacity, escrow_digest, is_signed, sign_state, state
from tests.bench.escrow import PRICE_MSAT, Session, figures, seconds_of
from tests.escrow.pair import BUYER, INSTANCE, SELLER, SHORT
from wire.keys import SecretKey
from wire.ports import OutPoint

ARBITER = SecretKey(b"\x33" * 32)
EDGES = st.sampled_from([0, 293_999, 294_000, 329_999, 330_000, 500_000])


@given(
    capacity_sat=st.integers(20_000, 2_000_000),
    arbiter=st.booleans(),
    paid=st.one_of(EDGES, st.integers(0, 2_000_000_000)),
    from_top=st.booleans(),
    lock=st.one_of(st.none(), st.binary(min_size=32, max_size=32)),
    funding=st.builds(OutPoint, st.binary(min_size=32, max_size=32), st.integers(0, 65_535)),
)
def test_digest_is_that_of_the_transaction(
    capacity_sat: int, arbiter: bool, paid: int, from_top: bool, lock: bytes | None, funding: OutPoint
) -> None:
    third = ARBITER.public if arbiter else None
    terms = propose_terms(
        BUYER,
        SELLER.public,
        SHORT,
        INSTANCE,
        height=100,
        feerate_sat_per_kvb=1_000,
        capacity_sat=capacity_sat,
        counter=0,
        arbiter=third,
    )
    contract = contract_of(SHORT.name, terms)
    paid_msat = contract.usable_msat - paid if from_top else paid
    signer = StateSigner(contract, funding)
    if not 0 <= paid_msat <= contract.usable_msat:
        with pytest.raises(OverCapacity):
            signer.digest(paid_msat, lock)
        return
    assert signer.digest(paid_msat, lock) == escrow_digest(contract, state(contract, funding, paid_msat, lock))
    coop = contract.secret(BUYER, Branch.COOPERATE)
    der = signer.sign(coop, paid_msat, lock)
    assert der == sign_state(contract, coop, funding, paid_msat, lock)
    assert is_signed(contract, funding, paid_msat, lock, der)
    assert signer.is_signed(paid_msat, lock, der)
    other = paid_msat + 1_000 if paid_msat + 1_000 <= contract.usable_msat else paid_msat - 1_000
    unlike = paid_msat // 1_000 >= 330 and other // 1_000 >= 330
    assert not (unlike and signer.is_signed(other, lock, der))


def test_the_measured_session_is_a_real_one() -> None:
    session = Session()
    for _ in range(3):
        session.unit()
    assert session.buyer.row.revealed_msat == session.seller.row.revealed_msat == 3 * PRICE_MSAT
    assert session.seller.row.settled_msat == 2 * PRICE_MSAT
    assert len(session.journal) == 3 * 6 + 7
    assert min(seconds_of(units=2, rounds=1)) > 0


def test_the_figure_has_what_the_runner_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.bench.escrow.seconds_of", lambda: (1.0, 2.0))
    (figure,) = figures()
    assert (figure["name"], figure["value"], figure["bound"]) == ("escrow.updates_vs_ceiling", 0.5, 0.6)
    assert set(figure) == {"name", "value", "unit", "baseline", "higher_is_better", "bound", "remark"}
