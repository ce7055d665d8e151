"""The framing attack: sign, stay silent, sign again elsewhere, complete the old one. Nobody can make an honest owner an
equivocator with it; nor with restarts, lost and old journals, a clock set back, or one key on two machines.
"""

from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest

from orderbook.core.agreement import LETTERS, Accept, Confirm, Propose
from orderbook.core.auction import Fill
from orderbook.core.book import Book
from orderbook.core.desk import Desk
from orderbook.core.events import Agreed, Cleared, Letter, LetterIn, PublishOrder, Tick, Want
from orderbook.core.evidence import proof_of
from orderbook.core.messages import Close, Match, Order, Side, conflict, read, seal_order, seal_proof, sign_match
from orderbook.core.pen import SignedRow
from tests.orderbook.model import Setting, remember
from tests.orderbook.settings import BUYER, FALSE_BUYER, FALSE_SELLER, SELLER, TAKES_A_UNIT, checked
from tests.orderbook.test_desk import Table, codes, drive
from tests.orderbook.test_messages import order
from tests.orderbook.world import BOOK, EPOCH, at, key
from wire.canon import unpack
from wire.effects import Save
from wire.errors import BitwrkError
from wire.limits import SEQUENCE_BLOCK
from wire.moments import Instant
from wire.network import REGTEST

BUY, SELL = Side.BUY, Side.SELL


def signed_in(effects: list[Any]) -> list[tuple[Match, bytes]]:
    """Every signature that was kept, with its match."""
    rows = [unpack(SignedRow, one.value) for one in effects if isinstance(one, Save) and one.key[:7] == b"signed/" and one.value]
    return [(one.match, one.signature) for one in rows]


def framed(secret: Any, side: Side, signed: list[tuple[Match, bytes]]) -> list[str]:
    """What every node says to every proof that could be made of these signatures: never that it is one."""
    answers = []
    for one, other in combinations(signed, 2):
        try:
            read(REGTEST, seal_proof(REGTEST, proof_of(secret.public, side, one, other)))
        except BitwrkError as error:
            answers.append(error.code)
        else:
            answers.append("proved")
    return answers


def next_order(table: Table, epoch: int) -> None:
    """Let the desk write its next order, for ``epoch``, and go there."""
    effects = drive(table.desk, Instant(at(epoch) - 1))
    table.effects += effects
    table.order = next(one for one in table.published(effects) if isinstance(one.body, Order))
    table.now = at(epoch, ms=610)


def test_a_seller_whose_buyer_was_silent_signs_elsewhere_and_the_old_one_completes_nothing() -> None:
    table = Table(SELL)
    old = table.fill()
    table.do(table.view(old))
    proposal = Propose(match=table.match(old))
    (accepted,) = table.said(table.hear(proposal))
    late = Confirm(match=accepted.match, signature=sign_match(table.them, accepted.match, BUY))
    next_order(table, EPOCH + 2)  # the buyer keeps silent
    assert codes(table.hear(late)) == ["no-such-match"]
    assert codes(table.hear(proposal)) == ["late"]
    table.do(table.view(table.fill(other=2), epoch=EPOCH + 2))
    for repeated in (late, proposal):
        assert not table.said(table.hear(repeated))
    (again,) = table.said(table.hear(Propose(match=table.match(table.fill(other=2), EPOCH + 2))))
    assert isinstance(again, Accept)
    assert again.match.sell != accepted.match.sell  # what was signed once is spent
    for repeated in (late, proposal):
        assert not table.said(table.hear(repeated))
    assert not [one for one in table.effects if isinstance(one, Agreed)]
    signed = signed_in(table.effects)
    assert len(signed) == 2
    assert framed(table.me, SELL, signed) == ["malformed"]


def test_a_buyer_whose_seller_was_silent_signs_elsewhere_and_the_old_one_completes_nothing() -> None:
    table = Table(BUY)
    old = table.fill()
    table.do(table.view(old))
    kept_back = table.accept(old)  # made in time, but sent when the buyer has gone on
    drive(table.desk, at(EPOCH + 2, ms=600))
    table.now = at(EPOCH + 2, ms=610)
    elsewhere = table.fill(other=2)
    table.do(table.view(elsewhere, epoch=EPOCH + 2))  # the same order, which is not spent: nothing of it was signed
    assert codes(table.hear(kept_back)) == ["no-such-match"]
    effects = table.hear(table.accept(elsewhere, EPOCH + 2))
    assert [type(one) for one in effects] == [Save, Letter, Agreed]
    assert codes(table.hear(kept_back)) == ["no-such-match"]
    assert len(signed_in(table.effects)) == 1


def test_within_one_epoch_the_old_one_does_not_complete_after_a_changed_view() -> None:
    table = Table(BUY)
    old, elsewhere = table.fill(), table.fill(other=2)
    table.do(table.view(old))
    kept_back = table.accept(old)
    table.do(table.view(elsewhere, again=True))
    assert codes(table.hear(kept_back)) == ["out-of-turn"]
    table.hear(table.accept(elsewhere))
    table.do(table.view(old, again=True))
    assert codes(table.hear(kept_back)) == ["out-of-turn"]
    assert len(signed_in(table.effects)) == 1


class Machine:
    """A seller's desk from its start on, whose order is written and matched in the next epoch."""

    def __init__(self, rows: dict[bytes, bytes], run: bytes, epoch: int = EPOCH, ms: int = 1_960) -> None:
        self.me, self.them = key(50), key(51)
        self.desk = Desk(self.me, REGTEST, rows, run)
        self.rows, self.effects = dict(rows), list[Any]()
        self.do(Want(book=BOOK, side=SELL, price_msat=300, quantity=4), at(epoch))
        written = self.do(Tick(), at(epoch, ms=ms))
        (message,) = [one.message for one in written if isinstance(one, PublishOrder)]
        self.order = read(REGTEST, message)
        assert isinstance(self.order.body, Order)
        self.sequence = self.order.body.sequence

    def do(self, event: Any, now: Instant) -> list[Any]:
        effects = list(self.desk.handle(event, now))
        self.rows.update({one.key: one.value for one in effects if isinstance(one, Save) and one.value})
        self.effects += effects
        return effects

    def signs(self, order_id: bytes, buyer_root: bytes, epoch: int = EPOCH + 1) -> list[Any]:
        """Show it a view that matches ``order_id``, and propose that."""
        table = Table(SELL)
        fill = table.fill()
        fill = Fill(
            buy=fill.buy,
            sell=fill.sell._replace(id=order_id, owner=self.me.public),
            quantity=4,
            price_msat=300,
            buy_from=0,
            sell_from=0,
        )
        now = at(epoch, ms=610)
        view = Cleared(book=BOOK, epoch=epoch, root=bytes(32), fills=(fill,), buys=(fill.buy,), sells=(fill.sell,))
        match = replace(table.match(fill, epoch), buyer_root=buyer_root)
        effects = self.do(view, now)
        effects += self.do(LetterIn(peer=self.them.peer_id, payload=LETTERS.pack(Propose(match=match))), now)
        return effects


def test_one_key_on_two_machines() -> None:
    """Both write the same wish at the same moment: two orders, so two signatures contradict nothing."""
    one, other = Machine({}, b"first"), Machine({}, b"second")
    assert one.sequence == other.sequence
    assert one.order.id != other.order.id
    assert Machine({}, b"first").order.id == one.order.id  # it is the run that keeps them apart, and nothing else does
    one.signs(one.order.id, b"a" * 32)
    other.signs(other.order.id, b"b" * 32)
    signed = signed_in(one.effects) + signed_in(other.effects)
    assert framed(one.me, SELL, signed) == ["malformed"]


def test_either_machine_leaves_the_orders_of_the_other_alone() -> None:
    one, other = Machine({}, b"first"), Machine({}, b"second")
    effects = one.signs(other.order.id, b"a" * 32)
    assert not signed_in(effects)
    (close,) = [read(REGTEST, each.message).body for each in effects if isinstance(each, PublishOrder)]
    assert isinstance(close, Close)
    assert close.order == other.order.id


@pytest.mark.parametrize("restored", ["kept", "old", "none"])
def test_a_restart_with_any_journal_and_the_clock_set_back(restored: str) -> None:
    """The first run signs. The second lives through the very same epoch again, with the journal as it was before, or without."""
    first = Machine({}, b"first")
    old = {name: value for name, value in first.rows.items() if not name.startswith(b"signed/")}
    first.signs(first.order.id, b"a" * 32)
    assert len(signed_in(first.effects)) == 1
    rows = {"kept": first.rows, "old": old, "none": {}}[restored]
    second = Machine(rows, b"second")
    second.signs(first.order.id, b"b" * 32)
    assert not signed_in(second.effects)
    second.signs(second.order.id, b"b" * 32)
    signed = signed_in(first.effects) + signed_in(second.effects)
    assert framed(first.me, SELL, signed) in ([], ["malformed"])


def test_sequences_go_on_after_an_old_journal_is_restored() -> None:
    """The new orders supersede those of the run that was forgotten, because time has passed."""
    first = Machine({}, b"first")
    drive(first.desk, at(EPOCH + 20))
    forgotten = [read(REGTEST, one.message).body for one in first.effects if isinstance(one, PublishOrder)]
    second = Machine({}, b"second", EPOCH + 21)
    assert second.sequence > max(one.sequence for one in forgotten if isinstance(one, Order))
    assert second.sequence >= (EPOCH + 21) * SEQUENCE_BLOCK
    third = Machine({}, b"third", EPOCH + 21, ms=1_980)
    assert third.sequence > second.sequence  # also within an epoch


def test_a_repeated_sequence_is_never_evidence() -> None:
    """One key, one slot, one sequence, two orders: the book keeps the greater id, and no proof can be made of it."""
    orders = [read(REGTEST, seal_order(key(50), REGTEST, order(50, side=SELL, salt=bytes([n]) * 16))) for n in (1, 2)]
    assert orders[0].id != orders[1].id
    for arrival in (orders, orders[::-1]):
        book = Book(REGTEST.clock)
        for one in arrival:
            book.admit(one, at(), asked=False)
        assert [one.id for one in book.eligible(EPOCH + 1)[1]] == [max(orders[0].id, orders[1].id)]
    table = Table(SELL)
    matches = [replace(table.match(table.fill()), sell=one.id, epoch=EPOCH + n) for n, one in enumerate(orders)]
    assert not conflict(matches[0], matches[1], SELL)
    signed = [(one, sign_match(key(50), one, SELL)) for one in matches]
    assert framed(key(50), SELL, signed) == ["malformed"]


@pytest.mark.parametrize(
    "setting",
    [
        Setting(name="a false buyer, journals lost", people=(SELLER, FALSE_BUYER), epochs=1, relapses=1),
        Setting(name="a false seller, journals lost", people=(BUYER, FALSE_SELLER), epochs=1, relapses=1, stranger=TAKES_A_UNIT),
    ],
    ids=lambda one: one.name.replace(" ", "-"),
)
def test_no_order_of_events_frames_anybody(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every state: an adversary who says everything at any time, as often as he likes, to a desk that crashes and forgets."""
    remember(monkeypatch.setattr)
    model, states = checked(setting, most=200_000, calm_every=1)
    assert states > 500
    assert any(one.signed for one in model.peers)
