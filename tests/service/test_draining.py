"""A seller that stops in good order, at the core: what is handed back, what is finished, and what its buyer makes of it."""

import dataclasses
from typing import Any

import pytest

from peer.core.buying import Buying
from peer.core.deal import Deal, Phase, Role, new_unit, unit_key
from peer.core.events import (
    BuyAsked,
    Compute,
    Computed,
    ComputeFailed,
    DrainAsked,
    Post,
    Reply,
    SellAsked,
    SellStopped,
    SlotsChanged,
    Stop,
    Strike,
)
from peer.core.ledger import NEVER
from peer.core.letters import DEAL, DRAINING, Offer, Task, WorkRefused, sort
from peer.core.selling import THANKS_S, Selling
from peer.core.shop import Shop
from wire.errors import Refused
from wire.keys import SecretKey
from wire.moments import SECOND, Instant
from wire.network import REGTEST

SELLER = SecretKey(bytes(range(1, 33)))
BUYER = SecretKey(bytes(range(2, 34)))
ARTICLE = "foobar"
NOW = Instant(1_800_000_000 * SECOND)
SHOP = Shop(REGTEST, bytes(32))
SOON = Instant(NOW + SECOND)


def selling(*stalls: SellAsked) -> Selling:
    one = Selling(SELLER, REGTEST, SHOP.terms, lambda article: None)
    for stall in stalls or (stall_of("w", slots=1),):
        one.offer(stall, NOW)
    return one


def stall_of(worker: str, *, slots: int, ask: int | None = 100, ahead: bool = True, article: str = ARTICLE) -> SellAsked:
    return SellAsked(order=5, article=article, worker=worker, ask_msat=ask, slots=slots, ahead=ahead)


def deal_of(number: int, quantity: int = 1) -> Deal:
    return Deal(
        deal=bytes([number]) * 32,
        role=Role.SELLER,
        other=BUYER.public,
        article=ARTICLE,
        free=True,
        price_msat=0,
        quantity=quantity,
        epoch=1,
        channel=None,
        agreed_us=NOW,
    )


def held(core: Selling, number: int, phase: Phase, **facts: Any) -> bytes:
    """One unit in a phase."""
    deal = deal_of(number)
    core.ledger.put_deal(deal)
    unit = new_unit(deal.deal, 0, request=0, now=NOW + number, deadline_us=NEVER)
    core.ledger.put_unit(dataclasses.replace(unit, phase=phase, work=bytes(32), **facts))
    return unit_key(deal.deal, 0)


def letters(effects: list[Any]) -> list[Any]:
    return [DEAL.unpack(sort(one.letter)[1]) for one in effects if isinstance(one, Post)]


def computing(core: Selling) -> bytes:
    """One unit at a worker."""
    key = held(core, 99, Phase.WORKING)
    (begun,) = [one for one in core._compute_next(NOW) if isinstance(one, Compute)]
    assert begun.unit == key
    return key


WHAT_BECOMES = [
    (Phase.ACCEPTED, {}, DRAINING),
    (Phase.FUNDED, {}, DRAINING),
    (Phase.TRANSMITTING, {}, DRAINING),
    (Phase.WORKING, {}, DRAINING),
    (Phase.WORKING, {"plain": bytes(32), "lock": bytes(32), "key": bytes(32)}, None),
    (Phase.OFFERED, {}, None),
    (Phase.COMMITTED, {}, None),
    (Phase.REVEALED, {}, None),
    (Phase.FINISHED, {}, None),
    (Phase.TIMED_OUT, {}, None),
]


@pytest.mark.parametrize("all_of_it", [False, True])
@pytest.mark.parametrize(("phase", "facts", "code"), WHAT_BECOMES)
def test_what_no_worker_has_begun_is_handed_back_and_the_rest_is_kept(
    phase: Phase, facts: dict[str, Any], code: str | None, all_of_it: bool
) -> None:
    core = selling()
    key = held(core, 1, phase, **facts)
    effects = core.drain(DrainAsked(all_of_it=all_of_it), SOON)
    if code is None:
        assert effects == []
        assert core.ledger.units[key].phase is phase
    else:
        (letter,) = letters(effects)
        assert isinstance(letter, WorkRefused)
        assert (letter.deal, letter.unit, letter.code) == (bytes([1]) * 32, 0, code)
        assert core.ledger.units[key].phase is Phase.WORK_REJECTED
        assert Stop(unit=key) in effects


def test_what_a_worker_computes_is_finished_unless_the_time_is_over() -> None:
    core = selling()
    key = computing(core)
    queued = held(core, 1, Phase.WORKING)
    assert len(letters(core.drain(DrainAsked(), SOON))) == 1
    assert core.ledger.units[queued].phase is Phase.WORK_REJECTED
    assert core.ledger.units[key].phase is Phase.WORKING
    effects = core.computed(Computed(unit=key, plain=bytes(32)), SOON)
    assert [type(one).__name__ for one in effects] == ["Encrypt"]
    late = selling()
    stuck = computing(late)
    late.drain(DrainAsked(), SOON)
    assert letters(late.drain(DrainAsked(all_of_it=True), SOON))[0].code == DRAINING
    assert late.ledger.units[stuck].phase is Phase.WORK_REJECTED


def test_nothing_more_is_sold_or_begun() -> None:
    core = selling(stall_of("w", slots=2))
    assert core.wants() == {(ARTICLE, 100): 4}
    core.drain(DrainAsked(), NOW)
    assert core.wants() == {}
    with pytest.raises(Refused) as caught:
        core.offer(stall_of("x", slots=1), NOW)
    assert caught.value.code == "shutting-down"
    held(core, 1, Phase.WORKING)
    assert core._compute_next(NOW) == []
    assert core.compute_failed(ComputeFailed(unit=bytes(34), code="x", sentence="x"), NOW) == []


def test_a_match_that_was_signed_meanwhile_is_handed_back_at_once_and_said_again_when_asked() -> None:
    core = selling()
    core.drain(DrainAsked(), NOW)
    effects = core.agreed(deal_of(1, quantity=3), NOW)
    assert [(letter.unit, letter.code) for letter in letters(effects)] == [(0, DRAINING), (1, DRAINING), (2, DRAINING)]
    task = Task(deal=bytes([1]) * 32, unit=2, work=bytes(32), size=4, ticket=bytes(16))
    assert letters(core.hear(BUYER.peer_id, task, SOON))[0].code == DRAINING


def test_what_is_waited_for() -> None:
    core = selling()
    here = {BUYER.peer_id}
    for number, phase in enumerate((Phase.OFFERED, Phase.COMMITTED, Phase.REVEALED, Phase.WORKING), 1):
        held(core, number, phase)
    held(core, 8, Phase.FINISHED)
    assert core.unfinished(here, SOON) == 4
    assert core.unfinished(set(), SOON) == 0
    later = Instant(NOW + (THANKS_S + 2) * SECOND)
    assert core.unfinished(here, later) == 3, "a buyer who has the key and says nothing is not waited for"


# --- stalls ---------------------------------------------------------------------------------------------------------------
def test_busy_units_fill_the_cheapest_stall_first() -> None:
    core = selling(
        stall_of("dear", slots=2, ask=300), stall_of("cheap", slots=1, ask=100), stall_of("single", slots=1, ask=200, ahead=False)
    )
    assert core.wants() == {(ARTICLE, 100): 2, (ARTICLE, 200): 1, (ARTICLE, 300): 4}
    for number in range(1, 5):
        held(core, number, Phase.ACCEPTED)
    assert core.wants() == {(ARTICLE, 100): 0, (ARTICLE, 200): 0, (ARTICLE, 300): 3}


def test_units_go_to_whichever_stall_has_a_free_worker() -> None:
    core = selling(stall_of("a", slots=1, ask=100), stall_of("b", slots=2, ask=200), stall_of("other", slots=9, article="snafu"))
    for number in range(1, 6):
        held(core, number, Phase.WORKING)
    begun = [one.worker for one in core._compute_next(NOW) if isinstance(one, Compute)]
    assert begun == ["a", "b", "b"]
    first = next(iter(core._computing))
    begun = [
        one.worker
        for one in core.compute_failed(ComputeFailed(unit=first, code="x", sentence="x"), NOW)
        if isinstance(one, Compute)
    ]
    assert begun == ["a"]


def test_a_worker_that_comes_back_takes_what_has_waited_for_it() -> None:
    core = selling(stall_of("a", slots=1, ahead=False))
    core.resize(SlotsChanged(worker="a", slots=0), NOW)
    assert core.wants() == {(ARTICLE, 100): 0}
    key = held(core, 1, Phase.WORKING)
    assert core._compute_next(NOW) == []
    effects = core.resize(SlotsChanged(worker="a", slots=1), NOW)
    assert [one.unit for one in effects if isinstance(one, Compute)] == [key]
    assert core.resize(SlotsChanged(worker="unknown", slots=1), NOW) == []


def test_a_closed_stall_finishes_what_was_agreed_and_one_that_is_gone_cannot() -> None:
    core = selling(stall_of("a", slots=1))
    core.stop(SellStopped(worker="a"), NOW)
    assert core.wants() == {}
    key = held(core, 1, Phase.WORKING)
    assert [one.unit for one in core._compute_next(NOW) if isinstance(one, Compute)] == [key]
    gone = selling(stall_of("a", slots=1))
    held(gone, 1, Phase.WORKING)
    (letter,) = letters(gone.stop(SellStopped(worker="a", gone=True), NOW))
    assert letter.code == "no-worker"


def test_work_that_no_worker_takes_in_time_is_refused() -> None:
    core = selling(stall_of("a", slots=0))
    key = held(core, 1, Phase.WORKING)
    core.ledger.change(key, NOW, deadline_us=SOON)
    assert letters(core.tick(NOW)) == []
    (letter,) = letters(core.tick(SOON))
    assert (letter.code, core.ledger.units[key].phase) == ("no-worker", Phase.TIMED_OUT)


def test_a_changed_stall_keeps_its_name_and_one_that_opens_again_gets_a_new_one() -> None:
    core = selling(stall_of("a", slots=1))
    core.offer(dataclasses.replace(stall_of("a", slots=2), order=6), NOW)
    assert [(one.order, one.slots) for one in core.stalls.all()] == [(5, 2)]
    core.stop(SellStopped(worker="a"), NOW)
    core.offer(dataclasses.replace(stall_of("a", slots=2), order=7), NOW)
    assert [(one.order, one.open) for one in core.stalls.all()] == [(7, True)]


# --- the buyer ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("code", "strikes"), [(DRAINING, 0), ("crashed", 1)])
def test_a_unit_handed_back_is_placed_again_without_a_strike(code: str, strikes: int) -> None:
    buying = Buying(BUYER, REGTEST, SHOP.terms, lambda request, now: True)
    asked = BuyAsked(request=7, article=ARTICLE, work=bytes(32), work_bytes=4, bid_msat=None, wait_us=60 * SECOND)
    buying.ask(asked, NOW)
    deal = dataclasses.replace(deal_of(1), role=Role.BUYER, other=SELLER.public)
    buying.agreed(deal, NOW)
    assert buying.requests.wants() == {}
    refusal = WorkRefused(deal=deal.deal, unit=0, code=code, sentence="for a reason")
    effects = buying.hear(SELLER.peer_id, refusal, NOW)
    assert sum(isinstance(one, Strike) for one in effects) == strikes
    assert buying.requests.wants() == {(ARTICLE, None): 1}
    assert buying.ledger.units[unit_key(deal.deal, 0)].code == code


def test_a_request_whose_mandate_has_ended_is_not_placed_again() -> None:
    buying = Buying(BUYER, REGTEST, SHOP.terms, lambda request, now: False)
    buying.ask(BuyAsked(request=7, article=ARTICLE, work=bytes(32), work_bytes=4, bid_msat=None, wait_us=60 * SECOND), NOW)
    deal = dataclasses.replace(deal_of(1), role=Role.BUYER, other=SELLER.public)
    buying.agreed(deal, NOW)
    effects = buying.hear(SELLER.peer_id, WorkRefused(deal=deal.deal, unit=0, code=DRAINING, sentence="bye"), NOW)
    assert [(one.request, one.code) for one in effects if isinstance(one, Reply)] == [(7, "mandate-ended")]
    assert not [one for one in letters(effects) if isinstance(one, Offer)]
    assert buying.requests.all() == []
