"""The edges of the desk: the very moment, the last that fits, the counter that is told, what belongs to another book or line."""

from dataclasses import replace
from typing import Any

import pytest

import orderbook.core.evidence
import orderbook.core.pen
import orderbook.core.talks
from orderbook.core.agreement import DIFFERENT_VIEW, LETTERS, Accept, Confirm, Propose
from orderbook.core.auction import Fill
from orderbook.core.desk import Desk
from orderbook.core.events import Agreed, Cleared, CompareBooks, Letter, LetterIn, Missed, NoShow, PublishOrder, Tick, Want
from orderbook.core.evidence import Witness
from orderbook.core.line import Line, Standing, free_slot
from orderbook.core.messages import Close, Order, Side, conflict, seal_close, sign_match
from orderbook.core.pen import SignedRow
from tests.orderbook.test_desk import Table, codes, declined, drive, publications
from tests.orderbook.test_messages import match, order
from tests.orderbook.world import BOOK, EPOCH, at, key
from wire.canon import pack
from wire.effects import Blame, Count, Save
from wire.errors import InvariantBroken
from wire.keys import PeerId
from wire.limits import ORDER_LIFE_DEFAULT_EPOCHS, ORDER_RETAIN_EPOCHS, OWNER_SLOTS, PRICE_MAX_MSAT, QUANTITY_MAX, SEQUENCE_BLOCK
from wire.moments import MILLISECOND, Instant
from wire.network import REGTEST

BUY, SELL = Side.BUY, Side.SELL
OTHER_BOOK = b"B" * 32
BY = REGTEST.clock.accept_by(EPOCH + 1)


def missed_codes(effects: list[Any]) -> list[str]:
    return [one.code for one in effects if isinstance(one, Missed)]


def penalties(effects: list[Any]) -> list[tuple[str, int]]:
    return [(one.code, one.penalty) for one in effects if isinstance(one, Blame)]


def accepted(table: Table, fill: Fill) -> Accept:
    """Show the seller his fill, propose it, and return what he says."""
    table.do(table.view(fill))
    (accept,) = table.said(table.hear(Propose(match=table.match(fill))))
    assert isinstance(accept, Accept)
    return accept


def confirm(table: Table, accept: Accept) -> Confirm:
    return Confirm(match=accept.match, signature=sign_match(table.them, accept.match, BUY))


def the_line(table: Table) -> Line:
    (line,) = table.desk._pen.lines.values()
    return line


# --- line --------------------------------------------------------------------------------------------------------


def a_line(**more: Any) -> Line:
    return Line(book=BOOK, side=BUY, price_msat=5, slot=0, **more)


def standing(line: Line, **more: Any) -> Standing:
    body = order(quantity=4, first_epoch=10, last_epoch=14, **more)
    line.standing = Standing(id=b"i" * 32, order=body, line=line)
    return line.standing


def test_an_order_is_signed_in_its_life_within_its_quantity_in_one_epoch_and_each_unit_once() -> None:
    one = standing(a_line(wanted=4))
    assert [one.may_sign(epoch, range(4)) for epoch in (9, 10, 14, 15)] == [False, True, True, False]
    assert not one.may_sign(10, range(1, 5))
    one.sign(12, range(1, 3))
    assert [one.may_sign(epoch, range(1)) for epoch in (11, 12, 13)] == [False, True, False]
    taken = [(start, stop) for start in range(4) for stop in range(start + 1, 5) if not one.may_sign(12, range(start, stop))]
    assert taken == [(a, b) for a in range(4) for b in range(a + 1, 5) if set(range(a, b)) & {1, 2}]


def test_when_a_line_is_stale() -> None:
    assert a_line(wanted=1).stale(12)
    assert not a_line().stale(12)
    assert not a_line(wanted=3, promised=3).stale(12)
    line = a_line(wanted=4)
    one = standing(line)
    assert [line.stale(epoch) for epoch in (11, 12, 13)] == [False, False, True]  # renewed while two epochs are left
    line.wanted = 5
    assert line.stale(12)
    line.wanted, line.promised = 6, 2
    assert not line.stale(12)
    line.promised, line.wanted, line.avoid = 0, 4, (b"a" * 20,)
    assert line.stale(12)
    line.avoid = ()
    one.sign(12, range(1))
    assert line.stale(12)
    line.wanted = 0
    assert [line.stale(epoch) for epoch in (13, 14)] == [True, False]  # an order in its last epoch needs no close
    one.close = b"closed"
    assert not line.stale(12)
    line.wanted = 1
    assert line.stale(12)
    huge = a_line(wanted=QUANTITY_MAX + 7)
    huge.standing = Standing(id=b"i", order=order(quantity=QUANTITY_MAX, first_epoch=10, last_epoch=14), line=huge)
    assert not huge.stale(12)


def test_what_is_free_and_which_slot() -> None:
    assert a_line(wanted=3, promised=1).free == 2
    assert a_line(wanted=1, promised=3).free == 0
    lines = [replace(a_line(), slot=slot) for slot in (0, 1, 3)]
    assert free_slot(lines, OWNER_SLOTS) == 2
    assert free_slot([], 1) == 0
    assert free_slot(lines[:1], 1) is None


# --- evidence ----------------------------------------------------------------------------------------------------


def witnessed(witness: Witness, *matches: Any, signer: bytes = b"s") -> list[bool]:
    return [witness.add(signer, SELL, one, bytes(64)) is not None for one in matches]


def test_a_witness_keeps_so_many_matches_of_an_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orderbook.core.evidence, "_PER_ORDER_MAX", 2)
    witness = Witness()
    parts = [match(sell_from=4 * number, buy=bytes([number]) * 32) for number in range(4)]
    again = [replace(one, buy=b"x" * 32) for one in parts]
    assert witnessed(witness, parts[0], parts[0], *parts[1:]) == [False] * 5
    assert witnessed(witness, *again) == [True, True, False, False]  # the first two were kept, and each once


def test_a_witness_keeps_so_many_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orderbook.core.evidence, "AGREEMENTS_PER_EPOCH_MAX", 2)
    witness = Witness()
    one, two, three = (match(sell=bytes([number]) * 32) for number in (1, 2, 3))
    clashes = [replace(each, epoch=EPOCH + 1) for each in (one, two, three)]
    assert witnessed(witness, one, two) == [False, False]
    assert witnessed(witness, clashes[0]) == [True]
    assert witnessed(witness, three) == [False]  # the oldest makes room
    assert witnessed(witness, clashes[1], clashes[2]) == [True, True]


def test_a_witness_forgets_when_the_books_do() -> None:
    witness = Witness()
    witnessed(witness, match())
    witness.forget(EPOCH + ORDER_RETAIN_EPOCHS)
    assert witnessed(witness, match(epoch=EPOCH + 1)) == [True]
    witness.forget(EPOCH + ORDER_RETAIN_EPOCHS + 1)
    assert witnessed(witness, match(epoch=EPOCH + 1)) == [False]


def test_signers_and_roles_are_apart() -> None:
    witness = Witness()
    witnessed(witness, match())
    assert witnessed(witness, match(epoch=EPOCH + 1), signer=b"t") == [False]
    assert witness.add(b"s", BUY, match(epoch=EPOCH + 1), bytes(64)) is None
    assert conflict(match(), match(epoch=EPOCH + 1), BUY)


# --- time: the very moment ---------------------------------------------------------------------------------------


def test_a_seller_signs_until_accept_by_and_not_after() -> None:
    for late, said in ((0, [Accept]), (1, [])):
        table = Table(SELL)
        fill = table.fill()
        table.do(table.view(fill))
        table.now = Instant(BY + late)
        effects = table.hear(Propose(match=table.match(fill)))
        assert [type(one) for one in table.said(effects)] == said
        assert ("late" in codes(effects)) == (late == 1)


def test_a_confirmation_counts_until_accept_by_and_not_after() -> None:
    for late, deals in ((0, 1), (1, 0)):
        table = Table(SELL)
        accept = accepted(table, table.fill())
        table.now = Instant(BY + late)
        effects = table.hear(confirm(table, accept))
        assert sum(isinstance(one, Agreed) for one in effects) == deals


def test_a_buyer_signs_a_twentieth_of_an_epoch_earlier() -> None:
    margin = REGTEST.clock.length_ms * MILLISECOND // 20
    assert margin == 100 * MILLISECOND
    for late, kinds in ((0, [Save, Letter, Agreed]), (1, [Count])):
        table = Table(BUY)
        fill = table.fill()
        table.do(table.view(fill))
        table.now = Instant(BY - margin)
        table.do(Tick())
        table.now = Instant(BY - margin + late)
        effects = table.hear(table.accept(fill))
        assert [type(one) for one in effects] == kinds
        assert codes(effects) == ["late"] * late


def test_a_view_counts_until_accept_by_and_not_after() -> None:
    for late, told in ((0, []), (1, ["late"])):
        table = Table(BUY)
        table.now = Instant(BY + late)
        effects = table.do(table.view(table.fill()))
        assert missed_codes(effects) == told
        assert len(table.said(effects)) == 1 - late


def test_silence_begins_right_after_accept_by() -> None:
    table = Table(BUY)
    table.do(table.view(table.fill()))
    table.now = BY
    assert not [one for one in table.do(Tick()) if isinstance(one, NoShow)]
    assert table.desk.next_deadline() == BY + 1
    table.now = Instant(BY + 1)
    effects = table.do(Tick())
    assert [(one.peer, one.code) for one in effects if isinstance(one, NoShow)] == [(table.them.peer_id, "no-answer")]
    assert missed_codes(effects) == ["no-answer"]
    assert table.desk.statistics()["agreements"] == 1
    table.now = at(EPOCH + 2)
    table.do(Tick())
    assert table.desk.statistics()["agreements"] == 0


@pytest.mark.parametrize("side", [BUY, SELL])
def test_letters_are_said_again_eight_times_an_epoch(side: Side) -> None:
    table = Table(side)
    fill = table.fill()
    first = table.said(
        table.do(table.view(fill)) if side is BUY else [*table.do(table.view(fill)), *table.hear(proposal(table, fill))]
    )
    start, moments = table.now, []
    while (due := table.desk.next_deadline()) is not None and due <= BY:
        table.now = due
        said = table.said(table.do(Tick()))
        if said:
            assert said == first
            moments.append(due - start)
    assert moments == [250_000 * count for count in range(1, 6)]


def proposal(table: Table, fill: Fill, epoch: int = EPOCH + 1) -> Propose:
    return Propose(match=table.match(fill, epoch))


def test_how_far_ahead_a_proposal_may_be() -> None:
    table = Table(SELL)
    fill = table.fill()
    table.do(table.view(fill))
    assert codes(table.hear(proposal(table, fill, EPOCH + 3))) == ["early"]
    assert codes(table.hear(proposal(table, fill, EPOCH + 2))) == []  # waits for our auction
    table.now = at(EPOCH + 2, ms=610)
    (accept,) = table.said(table.do(table.view(fill, epoch=EPOCH + 2)))
    assert accept.match.epoch == EPOCH + 2


def test_what_is_held_ends_with_its_epoch() -> None:
    table = Table(SELL)
    fill = table.fill()
    table.now = at(EPOCH + 1, ms=590)
    table.hear(proposal(table, fill))
    table.now = at(EPOCH + 2, ms=610)
    table.do(Tick())
    assert not table.desk._talks._held
    assert not table.said(table.do(table.view(fill, epoch=EPOCH + 2)))


def test_views_that_come_too_late_or_out_of_order_are_counted() -> None:
    table = Table(BUY)
    fill = table.fill()
    table.now = at(EPOCH + 2, ms=610)
    effects = table.do(table.view(fill))
    assert codes(effects) == ["old-view"]
    assert not table.said(effects)
    table = Table(BUY)
    table.do(table.view(fill, epoch=EPOCH + 2))
    assert codes(table.do(table.view(fill))) == ["old-view"]


# --- what belongs to another -------------------------------------------------------------------------------------


def test_a_view_of_another_book_changes_nothing_here() -> None:
    table = Table(BUY)
    fill = table.fill()
    table.do(table.view(fill))
    other = replace(table.view(), book=OTHER_BOOK)
    assert not [one for one in table.do(other) if isinstance(one, Missed)]
    assert not table.do(replace(other, refusal="clock-skewed"))
    assert the_line(table).standing is not None
    assert isinstance(table.said(table.hear(table.accept(fill)))[0], Confirm)  # the agreement here was not dropped


def test_only_lines_whose_order_was_to_be_matched_are_missed() -> None:
    table = Table(BUY)
    assert missed_codes(table.do(table.view())) == ["not-in-book"]
    table = Table(BUY)
    table.now = at(EPOCH, ms=1_970)
    assert missed_codes(table.do(table.view(epoch=EPOCH))) == []  # the order begins with the next
    table = Table(BUY)
    fill = table.fill(2)
    table.do(table.view(fill))
    table.hear(table.accept(fill))
    table.now = at(EPOCH + 1, ms=1_000)
    assert missed_codes(table.do(table.view(epoch=EPOCH + 1))) == []  # it has been signed
    assert missed_codes(table.do(table.view(again=True))) == []
    table = Table(BUY)
    assert missed_codes(table.do(table.view(again=True))) == []  # a second computation is not a second miss


def test_each_line_has_its_own_proposals() -> None:
    """Two lines of one book; both fills of the first are proposed although the second has proposals out."""
    desk = Desk(key(50), REGTEST)
    for price in (300, 310):
        desk.handle(Want(book=BOOK, side=BUY, price_msat=price, quantity=2), at())
    bodies = [one for one in drive(desk, at(EPOCH + 1)) if isinstance(one, PublishOrder)]
    assert len(bodies) == 2
    table = Table(BUY)
    lines = desk._pen.sorted_lines()
    fills = []
    for number, line in enumerate(lines):
        assert line.standing is not None
        fill = table.fill(2, other=number + 1)
        fills.append(fill._replace(buy=fill.buy._replace(id=line.standing.id)))
    letters = [one for one in desk.handle(table.view(*fills), at(EPOCH + 1, ms=610)) if isinstance(one, Letter)]
    assert len(letters) == 2


def test_a_line_never_proposes_more_than_it_wants() -> None:
    table = Table(BUY)
    table.do(Want(book=BOOK, side=BUY, price_msat=300, quantity=3))
    fills = [table.fill(2), table.fill(1, start=2, other=2), table.fill(1, start=3, other=3)]
    effects = table.do(table.view(*fills))
    assert len(table.said(effects)) == 2
    assert missed_codes(effects) == ["withdrawn"]


def test_what_is_unknown_of_a_line() -> None:
    table = Table(SELL)
    assert table.desk.wanted(BOOK, SELL, 301) == 0
    assert table.desk.standing(BOOK, SELL, 301) is None
    assert table.desk.wanted(BOOK, SELL, 300) == 4
    assert table.desk.statistics() == {"lines": 1, "orders": 1, "agreements": 0}


# --- orders from before a restart --------------------------------------------------------------------------------


def test_an_order_of_an_earlier_run_is_closed_once_and_told_to_whoever_proposes() -> None:
    before = Table(SELL)
    fill = before.fill()
    now = at(EPOCH + 1, ms=610)
    desk = Desk(before.me, REGTEST, {}, b"second")
    (close,) = publications(list(desk.handle(before.view(fill), now)))
    assert isinstance(close, Close)
    assert (close.order, close.epoch, close.owner) == (before.order.id, EPOCH + 2, before.me.public)
    before.desk = desk
    effects = before.hear(proposal(before, fill))
    (decline,) = before.said(effects)
    assert decline.code == "withdrawn"
    assert not publications(effects)  # it has been published
    fresh = Table(SELL)
    fresh.order, fresh.desk = before.order, Desk(before.me, REGTEST, {}, b"third")
    unmatched = replace(fresh.view(), sells=(fill.sell,))
    assert not publications(fresh.do(unmatched))
    effects = fresh.hear(proposal(fresh, fill))
    assert len(publications(effects)) == 1  # asked for it, we publish its close
    assert [one.code for one in fresh.said(effects)] == ["withdrawn"]


def test_so_many_disowned_orders_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orderbook.core.pen, "_DISOWNED_MAX", 2)
    pen = Desk(key(1), REGTEST)._pen
    names = [bytes([number]) * 32 for number in range(3)]
    published = [len(pen.disown(BOOK, name, EPOCH)[1]) for name in (*names, names[2], names[1], names[0])]
    assert published == [1, 1, 1, 0, 0, 1]


# --- bounds ------------------------------------------------------------------------------------------------------


def test_so_many_proposals_of_one_peer_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orderbook.core.talks, "_HELD_PER_PEER_MAX", 2)
    table = Table(SELL)
    table.now = at(EPOCH + 1, ms=590)
    told = [codes(table.hear(proposal(table, table.fill(other=number)))) for number in (1, 2, 3)]
    assert told == [[], [], ["proposals-full"]]
    assert codes(table.hear(proposal(table, table.fill(other=3)), key(60).peer_id)) == []  # of another peer


def test_so_many_comparisons_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orderbook.core.talks, "AGREEMENTS_PER_EPOCH_MAX", 2)
    table = Table(SELL)
    table.do(table.view(table.fill()))

    def compared(peer: PeerId) -> int:
        return sum(isinstance(one, CompareBooks) for one in table.hear(proposal(table, table.fill(3)), peer))

    assert [compared(key(number).peer_id) for number in (60, 61, 62, 60)] == [1, 1, 0, 0]
    table.now = at(EPOCH + 2, ms=610)
    table.do(table.view(table.fill(), epoch=EPOCH + 2))
    effects = table.hear(proposal(table, table.fill(3), EPOCH + 2), key(60).peer_id)
    assert [one for one in effects if isinstance(one, CompareBooks)]


def test_one_comparison_a_peer_lasts_the_epoch() -> None:
    table = Table(SELL)
    table.do(table.view(table.fill()))
    table.hear(proposal(table, table.fill(3)))
    table.now = at(EPOCH + 1, ms=1_500)
    table.do(table.view(table.fill(), again=True))
    effects = table.hear(proposal(table, table.fill(3)))
    assert not [one for one in effects if isinstance(one, CompareBooks)]
    assert [one.code for one in table.said(effects)] == [DIFFERENT_VIEW]
    assert not table.desk._talks._held


def test_what_must_not_be_asked_of_us_is_a_broken_invariant() -> None:
    desk = Desk(key(1), REGTEST)
    for price, quantity in ((-1, 1), (PRICE_MAX_MSAT + 1, 1), (5, -1)):
        with pytest.raises(InvariantBroken):
            desk.handle(Want(book=BOOK, side=BUY, price_msat=price, quantity=quantity), at())
    desk.handle(Want(book=BOOK, side=BUY, price_msat=PRICE_MAX_MSAT, quantity=1), at())
    desk.handle(Want(book=BOOK, side=BUY, price_msat=0, quantity=0), at())
    table = Table(SELL)
    fill = table.fill()
    accepted(table, fill)
    (agreement,) = table.desk._talks._agreements.values()
    with pytest.raises(InvariantBroken, match="signed away once"):
        table.desk._talks._sign(agreement, agreement.match)


# --- what a letter costs its sender ------------------------------------------------------------------------------


def test_penalties() -> None:
    table = Table(SELL)
    fill = table.fill()
    stranger = key(60).peer_id
    accept = accepted(table, fill)
    good = confirm(table, accept)
    assert penalties(table.hear(replace(good, signature=bytes(64)))) == [("wrong-signature", 50)]
    assert penalties(table.hear(good, stranger)) == [("not-yours", 20)]
    assert penalties(table.hear(proposal(table, fill), stranger)) == [("not-yours", 20)]
    assert penalties(table.do(LetterIn(peer=stranger, payload=b"?"))) == [("wrong-shape", 10)]
    other = replace(accept.match, buyer_root=b"z" * 32)
    foul = Confirm(match=other, signature=sign_match(table.them, other, BUY))
    assert penalties(table.hear(foul)) == [("not-what-we-signed", 20)]
    table = Table(BUY)
    table.do(table.view(fill := table.fill()))
    assert penalties(table.hear(replace(table.accept(fill), signature=bytes(64)))) == [("wrong-signature", 50)]
    foreign = replace(declined(fill, "withdrawn"), close=table.desk._pen.disown(BOOK, fill.sell.id, EPOCH)[0])
    assert penalties(table.hear(foreign)) == [("not-a-close", 20)]


def test_refusals_of_nothing_are_counted_and_change_nothing() -> None:
    table = Table(BUY)
    fill = table.fill()
    assert codes(table.hear(declined(fill, "withdrawn"))) == ["no-such-match"]
    table.do(table.view(fill))
    assert codes(table.hear(declined(fill, "withdrawn"), key(60).peer_id)) == ["no-such-match"]
    assert codes(table.hear(replace(declined(fill, "withdrawn"), epoch=EPOCH))) == ["no-such-match"]
    table.hear(table.accept(fill))
    effects = table.hear(declined(fill, "withdrawn"))  # after the deal
    assert codes(effects) == ["out-of-turn"]
    assert len(effects) == 1
    table = Table(SELL)
    table.do(table.view(fill := table.fill()))
    effects = table.hear(declined(fill, "withdrawn"))  # before he has proposed
    assert codes(effects) == ["out-of-turn"]
    assert len(effects) == 1


# --- quantities --------------------------------------------------------------------------------------------------


def test_a_confirmed_promise_is_promised_no_more_and_wanted_no_more() -> None:
    table = Table(SELL)
    accept = accepted(table, table.fill(3))
    line = the_line(table)
    assert (line.wanted, line.promised, line.free) == (4, 3, 1)
    table.hear(confirm(table, accept))
    assert (line.wanted, line.promised, line.free) == (1, 0, 1)


def test_a_promise_confirmed_after_the_want_fell_leaves_nothing_below_zero() -> None:
    table = Table(SELL)
    accept = accepted(table, table.fill(3))
    table.do(Want(book=BOOK, side=SELL, price_msat=300, quantity=1))
    assert [one for one in table.hear(confirm(table, accept)) if isinstance(one, Agreed)]
    line = the_line(table)
    assert (line.wanted, line.promised) == (0, 0)


def test_a_closed_order_is_not_signed() -> None:
    """Two fills of one order; the first finds too little wanted and closes it, so the second is not signed either."""
    table = Table(SELL)
    first, second = table.fill(3), table.fill(1, start=3, other=2)
    table.do(table.view(first, second))
    table.do(Want(book=BOOK, side=SELL, price_msat=300, quantity=2))
    assert [one.code for one in table.said(table.hear(proposal(table, first)))] == ["withdrawn"]
    effects = table.hear(proposal(table, second))
    assert [one.code for one in table.said(effects)] == ["withdrawn"]
    assert not publications(effects)  # one close says it


# --- writing -----------------------------------------------------------------------------------------------------


def test_orders_are_numbered_one_by_one_from_blocks_of_a_thousand() -> None:
    desk = Desk(key(1), REGTEST)
    effects: list[Any] = []
    for number in range(4):
        desk.handle(Want(book=BOOK, side=BUY, price_msat=5, quantity=number + 1), at(EPOCH + number, ms=1))
        effects += drive(desk, at(EPOCH + number, ms=1_999))
    sequences = [one.sequence for one in publications(effects) if isinstance(one, Order)]
    assert sequences == list(range(sequences[0], sequences[0] + 4))
    (row,) = [one for one in effects if isinstance(one, Save)]
    assert (row.table, row.key) == ("desk", b"sequence")
    assert row.value == (sequences[0] + SEQUENCE_BLOCK).to_bytes(8, "big")
    assert sequences[0] == EPOCH * SEQUENCE_BLOCK + 625  # written 1,250 ms into an epoch of 2,000


def test_a_new_block_begins_where_the_last_one_ended() -> None:
    row = {b"sequence": ((EPOCH + 9) * SEQUENCE_BLOCK).to_bytes(8, "big")}
    desk = Desk(key(1), REGTEST, row)
    desk.handle(Want(book=BOOK, side=BUY, price_msat=5, quantity=1), at())
    (written,) = publications(drive(desk, at(EPOCH + 1)))
    assert written.sequence == (EPOCH + 9) * SEQUENCE_BLOCK


def test_two_early_writings_and_a_last_one() -> None:
    """A line that changes all the time is written in the middle, again 100 ms after, and half way from accept_by to the end."""
    desk = Desk(key(1), REGTEST)
    written = []
    for ms in range(0, 2_000, 5):
        while (due := desk.next_deadline()) is not None and due <= at(ms=ms):
            written += [(due - at()) // MILLISECOND for _ in publications(list(desk.handle(Tick(), due)))]
        if ms in (0, 1_260, 1_400, 1_500) or ms > 1_950:
            desk.handle(Want(book=BOOK, side=BUY, price_msat=5, quantity=ms + 1), at(ms=ms))
    assert written == [1_250, 1_360, 1_950]
    (following,) = publications(drive(desk, at(EPOCH + 1, ms=1_300)))
    assert (following.quantity, following.first_epoch) == (1_996, EPOCH + 2)


def test_a_busy_line_is_written_when_it_is_busy_no_more() -> None:
    table = Table(SELL)
    accepted(table, table.fill(1))
    assert len(table.desk._talks.busy()) == 1
    table.do(Want(book=BOOK, side=SELL, price_msat=300, quantity=9))
    assert not publications(drive(table.desk, BY))
    (written,) = publications(drive(table.desk, Instant(BY + 1)))
    assert written.quantity == 9
    table = Table(SELL)
    accepted(table, table.fill(1))
    moments = [table.desk._pen.next_writing(busy) for busy in (table.desk._talks.busy(), frozenset[int]())]
    assert moments == [at(EPOCH + 1, ms=1_950), at(EPOCH + 1, ms=1_250)]


def test_an_order_may_be_signed_up_to_its_last_epoch_and_is_forgotten_after() -> None:
    table = Table(SELL)
    pen, last = table.desk._pen, table.order.body.last_epoch
    assert last == EPOCH + ORDER_LIFE_DEFAULT_EPOCHS
    pen.tidy(last)
    assert table.order.id in pen.orders
    pen.tidy(last + 1)
    assert table.order.id not in pen.orders
    assert the_line(table).standing is None


def test_lines_are_forgotten_when_nothing_hangs_on_them() -> None:
    table = Table(SELL)
    line = the_line(table)
    line.wanted = 0
    table.desk._pen.tidy(EPOCH + 1)
    assert the_line(table) is line  # its order stands
    line.promised = 1
    table.desk._pen.tidy(EPOCH + 9)
    assert the_line(table) is line  # something is promised
    line.promised = 0
    table.desk._pen.tidy(EPOCH + 9)
    assert not table.desk._pen.lines


def test_rows_that_cannot_be_read_are_removed_and_others_kept_their_time() -> None:
    signed = SignedRow(match=match(), side=SELL, signature=bytes(64), other=key(2).public)
    rows = {b"signed/old": b"?", b"signed/good": pack(signed), b"sequence": bytes(8)}
    desk = Desk(key(1), REGTEST, rows)
    assert desk.resume(at()) == (Save(table="desk", key=b"signed/old", value=None),)
    desk = Desk(key(1), REGTEST, {b"signed/good": pack(signed)})
    assert desk.resume(at(EPOCH + ORDER_RETAIN_EPOCHS)) == ()
    assert desk.resume(at(EPOCH + ORDER_RETAIN_EPOCHS + 1)) == (Save(table="desk", key=b"signed/good", value=None),)
    assert desk.resume(at(EPOCH + ORDER_RETAIN_EPOCHS + 1)) == ()


def test_a_view_is_of_its_own_epoch_only() -> None:
    """An agreement of an epoch is not dropped by the next one's view."""
    table = Table(BUY)
    fill = table.fill()
    table.do(table.view(fill))
    table.do(table.view(epoch=EPOCH + 2))
    assert isinstance(table.said(table.hear(table.accept(fill)))[0], Confirm)
    assert isinstance(table.view(), Cleared)


# --- what waits, and what ends it --------------------------------------------------------------------------------


def test_a_proposal_ahead_of_our_auction_gets_no_answer_and_asks_for_no_comparison() -> None:
    table = Table(SELL)
    fill = table.fill()
    table.do(table.view(fill))
    assert table.hear(proposal(table, fill, EPOCH + 2)) == []  # there is a view, but of this epoch


def test_a_held_proposal_that_differs_is_compared_once_and_kept_no_longer() -> None:
    table = Table(SELL)
    table.now = at(EPOCH + 1, ms=590)
    table.hear(proposal(table, table.fill(3)))
    table.now = at(EPOCH + 1, ms=610)
    effects = table.do(table.view(table.fill()))
    assert len([one for one in effects if isinstance(one, CompareBooks)]) == 1
    assert [one.code for one in table.said(effects)] == [DIFFERENT_VIEW]
    assert len(table.desk._talks._held) == 1  # until the second computation has a say
    effects = table.do(table.view(table.fill(), again=True))
    assert [one.code for one in table.said(effects)] == [DIFFERENT_VIEW]
    assert not table.desk._talks._held


def test_a_proposal_repeated_during_the_comparison_waits_for_it_too() -> None:
    table = Table(SELL)
    table.do(table.view(table.fill()))
    table.hear(proposal(table, table.fill(3)))
    table.desk._talks._held.clear()
    table.hear(proposal(table, table.fill(3)))  # compared already, and no second view yet
    assert len(table.desk._talks._held) == 1


def test_a_withdrawal_is_published_and_told() -> None:
    table = Table(SELL)
    fill = table.fill()
    table.do(table.view(fill))
    table.do(Want(book=BOOK, side=SELL, price_msat=300, quantity=3))
    effects = table.hear(proposal(table, fill))
    (decline,) = table.said(effects)
    assert [one.message for one in effects if isinstance(one, PublishOrder)] == [decline.close]


def test_an_old_view_tells_nobody_that_he_missed_anything() -> None:
    table = Table(BUY)
    table.now = at(EPOCH + 2, ms=100)
    assert missed_codes(table.do(table.view())) == []


def test_a_refused_proposal_ends_with_the_view_that_held_it() -> None:
    table = Table(BUY)
    fill = table.fill()
    table.do(table.view(fill))
    table.hear(declined(fill, DIFFERENT_VIEW))
    effects = table.do(table.view(again=True))
    assert missed_codes(effects) == []  # it was told as soon as it was refused, or will be by the final refusal
    assert codes(table.hear(table.accept(fill))) == ["out-of-turn"]


def test_each_side_fills_in_its_own_root() -> None:
    table = Table(BUY)
    (propose,) = table.said(table.do(table.view(table.fill())))
    assert (propose.match.buyer_root, propose.match.seller_root) == (b"r" * 32, bytes(32))
    table = Table(SELL)
    accept = accepted(table, table.fill())
    assert (accept.match.buyer_root, accept.match.seller_root) == (bytes(32), b"r" * 32)


def test_witnesses_forget_at_the_turn_of_an_epoch() -> None:
    table = Table(SELL)
    accept = accepted(table, table.fill())
    table.hear(confirm(table, accept))
    witness = table.desk._talks._witness
    for epoch, kept in ((EPOCH + 1 + ORDER_RETAIN_EPOCHS, 1), (EPOCH + 2 + ORDER_RETAIN_EPOCHS, 0)):
        table.desk.handle(Tick(), at(epoch))
        assert len(witness._signed) == kept


def test_what_is_counted_of_a_bad_letter_is_its_code() -> None:
    table = Table(SELL)
    assert [type(one) for one in table.do(LetterIn(peer=table.them.peer_id, payload=b"?"))] == [Count, Blame]


def test_a_close_that_came_with_a_refusal_must_be_signed() -> None:
    table = Table(BUY)
    table.do(table.view(fill := table.fill()))
    close = Close(network="regtest", book=BOOK, order=fill.sell.id, epoch=EPOCH + 2, owner=table.them.public)
    forged = replace(declined(fill, "withdrawn"), close=seal_close(key(60), REGTEST, close))
    assert penalties(table.hear(forged)) == [("wrong-signature", 50)]


def test_while_hushed_nothing_stale_is_written_either() -> None:
    table = Table(BUY)
    table.do(table.view(refusal="clock-skewed"))
    line = the_line(table)
    assert line.stale(EPOCH + 1)
    assert table.desk._pen.write(line, table.now) == []


def test_only_what_the_buyer_confirmed_is_owed_after_a_restart() -> None:
    bought = SignedRow(match=match(accept_by_us=1), side=BUY, signature=b"b" * 64, other=key(2).public)
    sold = SignedRow(match=match(price_msat=7), side=SELL, signature=b"s" * 64, other=key(3).public)
    rows = {b"signed/a": pack(bought), b"signed/b": pack(sold)}
    last = REGTEST.clock.accept_by(EPOCH)
    (letter,) = Desk(key(1), REGTEST, rows).resume(last)
    assert isinstance(letter, Letter)
    assert letter.peer == key(2).peer_id
    assert LETTERS.unpack(letter.payload) == Confirm(match=bought.match, signature=bought.signature)
    assert Desk(key(1), REGTEST, rows).resume(Instant(last + 1)) == ()
