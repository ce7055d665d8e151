"""The table of a unit's life: every pair of phase and step is walked, through the table and through the ledger."""

import itertools

import pytest

from peer.core.deal import BEFORE_MONEY, FINAL, TRANSITIONS, Deal, Phase, Role, Step, new_unit, step, unit_key
from peer.core.ledger import NEVER, Ledger
from wire.moments import Instant

DEAL = bytes(range(32))
EVERY_PAIR = list(itertools.product(Phase, Step))


def held(phase: Phase) -> tuple[Ledger, bytes]:
    import dataclasses

    ledger = Ledger()
    ledger.put_deal(
        Deal(
            deal=DEAL,
            role=Role.BUYER,
            other=b"\x02" * 33,
            article="foobar",
            free=False,
            price_msat=1_000,
            quantity=1,
            epoch=7,
            channel=None,
            agreed_us=1,
        )
    )
    unit = new_unit(DEAL, 0, request=1, now=1, deadline_us=5)
    ledger.put_unit(dataclasses.replace(unit, phase=phase))
    ledger.drain()
    return ledger, unit_key(DEAL, 0)


@pytest.mark.parametrize(("phase", "event"), EVERY_PAIR)
def test_every_pair_moves_by_the_table_or_not_at_all(phase: Phase, event: Step) -> None:
    ledger, key = held(phase)
    expected = TRANSITIONS[phase].get(event)
    moved = ledger.move(key, event, Instant(9), "why", "for a reason")
    saved = ledger.drain()
    if expected is None:
        assert moved is None
        assert ledger.units[key].phase is phase
        assert saved == ()
    else:
        assert moved is not None
        assert moved.phase is expected
        assert (moved.code, moved.sentence, moved.changed_us) == ("why", "for a reason", 9)
        assert len(saved) == 1
        assert (moved.deadline_us == NEVER) == (expected in FINAL)


def test_every_phase_has_a_row_and_can_be_reached() -> None:
    assert set(TRANSITIONS) == set(Phase)
    reached = {Phase.PLACED} | {to for row in TRANSITIONS.values() for to in row.values()}
    assert reached == set(Phase)


def test_every_phase_can_end() -> None:
    ends = set(FINAL)
    for _ in Phase:
        ends |= {phase for phase, row in TRANSITIONS.items() if any(to in ends for to in row.values())}
    assert ends == set(Phase)


def test_money_is_left_only_through_the_key_a_proof_or_the_escrow() -> None:
    assert set(TRANSITIONS[Phase.COMMITTED].values()) == {Phase.REVEALED, Phase.REFUNDED}
    assert set(TRANSITIONS[Phase.REVEALED].values()) == {Phase.FINISHED, Phase.RESULT_DISPUTED}
    for phase in BEFORE_MONEY:
        assert step(phase, Step.WITHDRAW) is Phase.WITHDRAWN
        assert step(phase, Step.REVEAL) is None
        assert step(phase, Step.FINISH) is None


def test_rows_survive_a_restart() -> None:
    ledger, key = held(Phase.WORKING)
    ledger.change(key, Instant(3), lock=b"l" * 32)
    ledger.put_deal(ledger.deals[DEAL])
    rows = ledger.drain()
    again = Ledger()
    again.load(
        {row.key: row.value for row in rows if row.table == "deal" and row.value},
        {row.key: row.value for row in rows if row.table == "unit" and row.value},
    )
    assert again.deals == ledger.deals
    assert again.units == ledger.units
