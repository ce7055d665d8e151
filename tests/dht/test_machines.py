"""The two tables of the directory: every pair of state and input is there and does what it says."""

import itertools

import pytest

from dht.core import candidates, errand
from dht.core.candidates import Candidates
from dht.core.errand import Act, Errand
from wire.keys import PeerId
from wire.limits import CANDIDATE_LIFE_S, CANDIDATES_PER_ARTICLE_MAX, NEIGHBOURS_MAX, NEIGHBOURS_MIN
from wire.moments import SECOND, Instant, after

NOW = Instant(1_000 * SECOND)
LATER = after(NOW, 5 * SECOND)


def peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(39, "big"))


def make(state: errand.State) -> Errand:
    return Errand(due=LATER, soon_us=SECOND, pause_first_us=SECOND, pause_max_us=30 * SECOND, answer_us=60 * SECOND, state=state)


def test_the_errand_table_is_total() -> None:
    assert set(errand.TABLE) == set(itertools.product(errand.State, errand.Input))


@pytest.mark.parametrize(("state", "happened"), list(itertools.product(errand.State, errand.Input)))
def test_every_step_of_an_errand(state: errand.State, happened: errand.Input) -> None:
    one = make(state)
    expected, act = errand.TABLE[state, happened]
    started = one.step(happened, NOW, 600 * SECOND)
    assert one.state is expected
    assert started is (act is Act.START)
    due = {
        Act.START: after(NOW, 60 * SECOND),
        Act.REST: after(NOW, 600 * SECOND),
        Act.BACK_OFF: after(NOW, SECOND),
        Act.SOON: after(NOW, SECOND),
        Act.SOON_AFTER: LATER,
        Act.NOTHING: LATER,
    }[act]
    assert one.due == due
    assert one.hurried is (act is Act.SOON_AFTER)


def test_a_failing_errand_backs_off_to_its_bound_and_recovers() -> None:
    one = make(errand.State.WAITING)
    pauses = []
    for _ in range(7):
        one.step(errand.Input.DUE, NOW)
        one.step(errand.Input.FAILED, NOW)
        pauses.append((one.due - NOW) // SECOND)
    assert pauses == [1, 2, 4, 8, 16, 30, 30]
    one.step(errand.Input.DUE, NOW)
    one.step(errand.Input.DONE, NOW, 9 * SECOND)
    assert one.due == after(NOW, 9 * SECOND)
    one.step(errand.Input.DUE, NOW)
    one.step(errand.Input.FAILED, NOW)
    assert one.due == after(NOW, SECOND)


def test_a_hurried_run_is_followed_soon_once() -> None:
    one = make(errand.State.RUNNING)
    one.step(errand.Input.HURRY, NOW)
    one.step(errand.Input.DONE, NOW, 600 * SECOND)
    assert one.due == after(NOW, SECOND)
    one.step(errand.Input.DUE, NOW)
    one.step(errand.Input.DONE, NOW, 600 * SECOND)
    assert one.due == after(NOW, 600 * SECOND)


def test_the_candidate_table_is_total() -> None:
    assert set(candidates.TABLE) == set(itertools.product(candidates.State, candidates.Input))


PATHS: dict[candidates.State, list[candidates.Input]] = {
    candidates.State.ABSENT: [],
    candidates.State.KNOWN: [candidates.Input.FOUND],
    candidates.State.ASKED: [candidates.Input.FOUND, candidates.Input.CHOSEN],
    candidates.State.JOINED: [candidates.Input.JOIN],
}


@pytest.mark.parametrize(("state", "happened"), list(itertools.product(candidates.State, candidates.Input)))
def test_every_step_of_a_candidate(state: candidates.State, happened: candidates.Input) -> None:
    all_of = Candidates("test", bytes(32))
    for step in PATHS[state]:
        all_of.step(peer(1), step, NOW)
    assert all_of.state(peer(1)) is state
    all_of.step(peer(1), happened, NOW)
    assert all_of.state(peer(1)) is candidates.TABLE[state, happened]


def test_candidates_are_bounded_but_neighbours_are_always_let_in() -> None:
    all_of = Candidates("test", bytes(32))
    for number in range(2 * CANDIDATES_PER_ARTICLE_MAX):
        all_of.step(peer(number), candidates.Input.FOUND, NOW)
    assert len(all_of.in_state(*candidates.State)) == CANDIDATES_PER_ARTICLE_MAX
    all_of.step(peer(9_999), candidates.Input.JOIN, NOW)
    assert all_of.state(peer(9_999)) is candidates.State.JOINED


def test_as_many_are_asked_as_are_missing() -> None:
    all_of = Candidates("test", bytes(32))
    for number in range(20):
        all_of.step(peer(number), candidates.Input.FOUND, NOW)
    all_of.step(peer(100), candidates.Input.JOIN, NOW)
    chosen = all_of.choose(NOW)
    assert len(chosen) == NEIGHBOURS_MIN - 1
    assert all_of.choose(NOW) == ()
    all_of.step(chosen[0], candidates.Input.LEAVE, NOW)
    (instead,) = all_of.choose(NOW)
    assert instead != chosen[0]
    assert not all_of.full()
    for number in range(NEIGHBOURS_MAX):
        all_of.step(peer(200 + number), candidates.Input.JOIN, NOW)
    assert all_of.full()


def test_nodes_prefer_different_candidates() -> None:
    firsts = set()
    for me in range(20):
        all_of = Candidates("test", me.to_bytes(32, "big"))
        for number in range(30):
            all_of.step(peer(number), candidates.Input.FOUND, NOW)
        firsts.add(all_of.choose(NOW)[0])
    assert len(firsts) > 8


def test_one_that_cannot_be_met_waits_longer_each_time_and_is_forgotten() -> None:
    all_of = Candidates("test", bytes(32))
    all_of.step(peer(1), candidates.Input.FOUND, NOW)
    now, pauses = NOW, []
    while all_of.state(peer(1)) is not candidates.State.ABSENT:
        assert all_of.choose(now) == (peer(1),)
        all_of.step(peer(1), candidates.Input.LEAVE, now)
        if all_of.state(peer(1)) is candidates.State.KNOWN:
            assert all_of.choose(now) == ()
            due = all_of.deadline()
            assert due is not None
            pauses.append((due - now) // SECOND)
            now = due
    assert pauses == [2, 4, 8, 16, 32]


def test_a_meeting_without_answer_lapses_and_an_old_rumour_goes() -> None:
    all_of = Candidates("test", bytes(32))
    all_of.step(peer(1), candidates.Input.FOUND, NOW)
    all_of.choose(NOW)
    due = all_of.deadline()
    assert due is not None
    all_of.expire(due)
    assert all_of.state(peer(1)) is candidates.State.KNOWN
    all_of.expire(after(NOW, CANDIDATE_LIFE_S * SECOND))
    assert all_of.state(peer(1)) is candidates.State.ABSENT
    assert all_of.deadline() is None
