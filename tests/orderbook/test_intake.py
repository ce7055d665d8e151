"""The door for messages by itself: what it counts as waiting, what it forgets, and how many it lets wait."""

from typing import Any

import pytest

from orderbook.core.book import Book
from orderbook.core.evidence import proof_of
from orderbook.core.intake import NO_ROOM, Intake, since
from orderbook.core.messages import Heard, Side, read, seal_order, seal_proof, sign_match
from tests.orderbook.test_messages import match, order
from tests.orderbook.world import BOOK, EPOCH, at, key
from wire.errors import Ignore
from wire.network import REGTEST

PEER, OTHER = key(101).peer_id, key(102).peer_id


def door() -> tuple[Intake, Book]:
    book = Book(REGTEST.clock)
    return Intake(REGTEST, {BOOK: book}), book


def heard(owner: int = 1, **more: Any) -> Heard:
    return read(REGTEST, seal_order(key(owner), REGTEST, order(owner, **more)))


def a_proof(buy: bytes = b"c" * 32) -> Heard:
    signed = [(one, sign_match(key(9), one, Side.SELL)) for one in (match(), match(buy=buy, sell_from=1))]
    return read(REGTEST, seal_proof(REGTEST, proof_of(key(9).public, Side.SELL, *signed)))


def why(call: Any, *arguments: Any, **more: Any) -> str:
    with pytest.raises(Ignore) as caught:
        call(*arguments, **more)
    return caught.value.code


def test_what_waits_is_counted_until_it_is_judged() -> None:
    intake, book = door()
    first, second = heard(1), heard(2)
    checks = [one for each in (first, second) for one in intake.submit(each, PEER, at(), asked=False)]
    assert len(intake) == 2
    (pending,) = intake.good([checks[0].id])
    assert len(intake) == 1
    assert (pending.heard, pending.source, pending.asked, pending.born) == (first, PEER, False, None)
    assert intake.bad(checks[1].id)[0].heard is second
    assert len(intake) == 0
    assert intake.good([checks[0].id]) == []
    assert intake.bad(checks[1].id) == ()
    assert intake.known(first.raw) == first.id
    assert intake.known(second.raw) is None
    intake.admit(pending, at())
    assert first.id in book


def test_a_message_with_two_signatures_waits_for_both_and_falls_with_either() -> None:
    intake, _ = door()
    proof, other = a_proof(), a_proof(b"d" * 32)
    one, two = intake.submit(proof, PEER, at(), asked=False)
    shared = {each.id for each in proof.checks} & {each.id for each in other.checks}
    fresh = intake.submit(other, OTHER, at(), asked=True)
    assert len(shared) == 1  # both proofs hold the same first match
    assert [each.id in shared for each in fresh] == [False]
    assert len(intake) == 2
    (common,) = shared
    assert intake.good([common]) == []
    assert len(intake) == 2
    (fell,) = intake.bad(fresh[0].id)
    assert (fell.heard, fell.asked) == (other, True)
    left = one if two.id == common else two
    (whole,) = intake.good([left.id])
    assert whole.heard is proof
    assert len(intake) == 0
    assert intake._waiting == {}


def test_who_shares_a_signature_with_one_that_fell_is_waited_for_still() -> None:
    intake, _ = door()
    proof, other = a_proof(), a_proof(b"d" * 32)
    intake.submit(proof, PEER, at(), asked=False)
    (own,) = intake.submit(other, OTHER, at(), asked=False)
    (common,) = {each.id for each in proof.checks} & {each.id for each in other.checks}
    (false,) = {each.id for each in proof.checks} - {common}
    assert [one.heard for one in intake.bad(false)] == [proof]
    assert intake.good([own.id]) == []
    assert [one.heard for one in intake.good([common])] == [other]
    assert len(intake) == 0


def test_two_that_share_a_signature_are_both_complete_with_it() -> None:
    intake, _ = door()
    proof, other = a_proof(), a_proof(b"d" * 32)
    checks = {each.id for one in (proof, other) for each in intake.submit(one, PEER, at(), asked=False)}
    (common,) = {each.id for each in proof.checks} & {each.id for each in other.checks}
    assert [one for each in sorted(checks - {common}) for one in intake.good([each])] == []
    assert [one.heard for one in intake.good([common])] == [proof, other]
    assert len(intake) == 0


def test_a_false_signature_frees_the_others_of_its_message() -> None:
    intake, _ = door()
    proof = a_proof()
    one, two = intake.submit(proof, PEER, at(), asked=False)
    intake.bad(one.id)
    assert intake._waiting == {}
    assert intake.good([two.id]) == []
    assert len(intake) == 0


def test_so_many_may_wait_and_not_one_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orderbook.core.intake.RELAY_CHECKS_MAX", 2)
    intake, _ = door()
    for owner in (1, 2):
        (check,) = intake.submit(heard(owner), PEER, at(), asked=False)
    assert why(intake.submit, heard(3), PEER, at(), asked=False) == "checks-full"
    intake.good([check.id])
    intake.submit(heard(3), PEER, at(), asked=False)
    assert {"book-full", "market-full", "checks-full"} == NO_ROOM


def test_our_own_messages_are_not_history() -> None:
    intake, book = door()
    assert why(intake.own, heard(first_epoch=EPOCH - 9, last_epoch=EPOCH - 1), at()) == "expired"
    mine = heard(2)
    intake.own(mine, at())
    assert (len(book), intake.known(mine.raw)) == (1, mine.id)
    assert why(intake.own, mine, at()) == "duplicate"


def test_what_is_not_admitted_after_all_may_come_again() -> None:
    intake, book = door()
    one = heard(last_epoch=EPOCH + 1)
    for asked, now, code in ((False, at(EPOCH + 2), "expired"), (True, at(EPOCH + 62), "expired")):
        (check,) = intake.submit(one, PEER, at(), asked=asked)
        (pending,) = intake.good([check.id])
        assert why(intake.admit, pending, now) == code
        assert intake.known(one.raw) is None
    intake.submit(one, PEER, at(EPOCH + 2), asked=True)
    (pending,) = intake.good([one.checks[0].id])
    intake.admit(pending, at(EPOCH + 2))
    assert one.id in book


def test_a_book_that_was_left_takes_nothing() -> None:
    book = Book(REGTEST.clock)
    books = {BOOK: book}
    intake, one = Intake(REGTEST, books), heard()
    (check,) = intake.submit(one, PEER, at(), asked=False)
    (pending,) = intake.good([check.id])
    del books[BOOK]
    assert why(intake.admit, pending, at()) == "unfollowed"
    assert intake.known(one.raw) is None
    assert why(intake.read, one.raw) == "unfollowed"


def test_what_is_pushed_out_of_its_lane_is_known_no_more() -> None:
    intake, book = door()
    flood = [heard(1, sequence=sequence) for sequence in range(9)]
    for one in flood:
        (check,) = intake.submit(one, PEER, at(), asked=False)
        intake.admit(intake.good([check.id])[0], at())
    assert len(book) == 8
    assert intake.known(flood[0].raw) is None
    assert intake.known(flood[1].raw) == flood[1].id


def test_what_was_asked_for_counts_as_long_under_way_and_no_claim_counts_for_more_than_two_seconds() -> None:
    now = at(ms=5_000)
    assert since(at(ms=4_990), now) == at(ms=4_990)
    assert since(None, now) == at(ms=4_000)
    assert since(at(ms=10), now) == at(ms=3_000)
    assert since(at(ms=5_010), now) == at(ms=5_010)  # a clock that is ahead gains nothing
