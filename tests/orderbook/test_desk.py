"""The agreement between two and three nodes, and the desk's own orders: what is promised, signed, missed, and after a restart."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orderbook.core.agreement import DIFFERENT_VIEW, LETTERS, TABLE, Accept, Agreement, Confirm, Cue, Decline, Phase, Propose
from orderbook.core.auction import Entry, Fill
from orderbook.core.desk import Desk
from orderbook.core.events import (
    Agreed,
    Cleared,
    CompareBooks,
    Letter,
    LetterIn,
    Missed,
    NoShow,
    Publish,
    PublishOrder,
    Tick,
    Want,
)
from orderbook.core.frames import FRAMES, Batch
from orderbook.core.messages import (
    Close,
    EquivocationProof,
    Order,
    Side,
    account_hash_of,
    open_signed_match,
    read,
    seal_close,
    seal_order,
    sign_match,
)
from tests.orderbook.test_messages import match, order
from tests.orderbook.world import BOOK, EPOCH, Node, World, at, key
from wire.effects import Blame, Count, Save
from wire.errors import Ignore
from wire.keys import PeerId
from wire.limits import OWNER_SLOTS, SEQUENCE_BLOCK
from wire.moments import Instant
from wire.network import REGTEST

BUY, SELL = Side.BUY, Side.SELL


def trade(world: World, *, bid: int = 340_000, ask: int = 260_000, quantity: int = 3) -> tuple[Node, Node]:
    """The first node wants to buy, the second to sell."""
    world.mesh()
    world.run(at(ms=200))
    buyer, seller = world.list[:2]
    world.want(buyer, BUY, bid, quantity)
    world.want(seller, SELL, ask, quantity)
    return buyer, seller


def kind(payload: bytes) -> type:
    return type(LETTERS.unpack(payload))


# --- the straight path -------------------------------------------------------------------------------------


def test_two_agree_and_both_hold_the_same_signed_match() -> None:
    world = World(2)
    buyer, seller = trade(world)
    world.run(at(EPOCH + 1, ms=800))
    (bought,), (sold,) = buyer.agreed, seller.agreed
    assert bought.match == sold.match
    assert (bought.side, sold.side) == (BUY, SELL)
    assert (bought.price_msat, sold.price_msat) == (340_000, 260_000)
    match = open_signed_match(REGTEST, bought.match)
    assert (match.quantity, match.price_msat, match.epoch) == (3, 300_000, EPOCH + 1)
    assert match.accept_by_us == REGTEST.clock.accept_by(EPOCH + 1)
    assert match.buyer_root == match.seller_root == buyer.cleared[-1].root
    assert (bought.match.buyer, bought.match.seller) == (buyer.key.public, seller.key.public)
    assert buyer.desk.wanted(BOOK, BUY, 340_000) == seller.desk.wanted(BOOK, SELL, 260_000) == 0
    assert not buyer.missed
    assert not seller.missed


def test_submit_to_match_is_one_epoch() -> None:
    """Wanted at any moment of an epoch up to its last 50 ms, agreed right after the next freeze."""
    for ms in (0, 700, 1_300, 1_700, 1_930):
        world = World(2)
        world.mesh()
        world.run(at(ms=ms))
        buyer, seller = world.list
        world.want(buyer, BUY, 10, 1)
        world.want(seller, SELL, 10, 1)
        world.run(at(EPOCH + 1, ms=750))
        assert len(buyer.agreed) == len(seller.agreed) == 1, ms


def test_one_buyer_and_three_sellers_share_the_units() -> None:
    world = World(4)
    world.mesh()
    buyer, *sellers = world.list
    world.want(buyer, BUY, 340_000, 24)
    for number, seller in enumerate(sellers):
        world.want(seller, SELL, 250_000 + number, 4)
    world.run(at(EPOCH + 1, ms=1_990))
    assert sorted(one.match.match.buy_from for one in buyer.agreed) == [0, 4, 8]
    assert [len(one.agreed) for one in sellers] == [1, 1, 1]
    assert buyer.desk.wanted(BOOK, BUY, 340_000) == 12
    for seller in sellers:
        world.want(seller, SELL, 260_000, 4)
    world.run(at(EPOCH + 2, ms=1_990))
    assert buyer.desk.wanted(BOOK, BUY, 340_000) == 0
    assert len({one.match.match.buy for one in buyer.agreed}) == 2  # the remainder was a new order
    world.run(at(EPOCH + 3, ms=700))
    assert [node.cleared[-1].buys for node in world.list] == [()] * 4


def test_saved_before_it_leaves() -> None:
    """Every call whose letters carry a signature of ours also saves it; the driver commits first."""
    world = World(2)
    handled: list[tuple[Any, ...]] = []
    for node in world.list:
        original = node.desk.handle

        def recorded(event: Any, now: Instant, original: Any = original) -> Any:
            handled.append(original(event, now))
            return handled[-1]

        node.desk.handle = recorded  # type: ignore[method-assign]
    trade(world)
    world.run(at(EPOCH + 1, ms=1_000))
    signed_first = 0
    for effects in handled:
        if any(isinstance(one, Letter) and kind(one.payload) in (Accept, Confirm) for one in effects):
            signed_first += any(isinstance(one, Save) and one.key.startswith(b"signed/") for one in effects)
    assert signed_first == 2


# --- loss, repetition, silence -----------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [Propose, Accept, Confirm])
@pytest.mark.parametrize("times", [1, 2])
def test_lost_letters_are_said_again(lost: type, times: int) -> None:
    world = World(2)
    left = [times]

    def lose(_: PeerId, __: PeerId, payload: bytes) -> bool:
        if kind(payload) is lost and left[0]:
            left[0] -= 1
            return True
        return False

    world.lose_letter = lose
    buyer, seller = trade(world)
    world.run(at(EPOCH + 1, ms=1_990))
    assert left == [0]
    assert buyer.agreed[0].match == seller.agreed[0].match
    assert len(buyer.agreed) == len(seller.agreed) == 1


@pytest.mark.parametrize("seed", range(8))
def test_repeated_reordered_and_lost_letters_never_agree_twice(seed: int) -> None:
    world = World(4, seed=seed)
    world.mesh()
    world.run(at(ms=300))
    world.ordered, world.repeat = False, 0.5
    world.delay_us = lambda: world.random.randrange(500, 250_000)
    world.lose_letter = lambda *_: world.random.random() < 0.2
    for number, node in enumerate(world.list):
        world.want(node, BUY if number < 2 else SELL, 300_000, 5)
    world.run(at(EPOCH + 6))
    signed: set[bytes] = set()
    for node in world.list:
        side, other = (BUY, SELL) if node.name < 2 else (SELL, BUY)
        agreed = [one.match.match for one in node.agreed]
        assert sum(one.quantity for one in agreed) + node.desk.wanted(BOOK, side, 300_000) == 5
        assert len(agreed) == len({(one.buy, one.sell, one.buy_from, one.sell_from) for one in agreed})
        assert all(one.code != "equivocation" for one in node.blames)
        del other
        signed |= {bytes(str(one), "ascii") for one in agreed}
    assert signed


@pytest.mark.parametrize(
    ("silent", "buyer_code", "seller_code"),
    [(Propose, "no-answer", "no-proposal"), (Accept, "no-answer", "no-confirmation"), (Confirm, None, "no-confirmation")],
)
def test_a_silent_peer_is_missed_and_blamed_and_quantity_comes_back(
    silent: type, buyer_code: str | None, seller_code: str
) -> None:
    world = World(2)
    world.lose_letter = lambda _, __, payload: kind(payload) is silent
    buyer, seller = trade(world)
    world.run(at(EPOCH + 1, ms=1_990))
    assert [one.code for one in seller.missed] == [seller_code]
    assert not seller.blames
    assert [(one.peer, one.code) for one in seller.no_shows] == [(buyer.key.peer_id, seller_code)]
    assert [one.code for one in buyer.no_shows] == ([buyer_code] if buyer_code else [])
    assert seller.desk.wanted(BOOK, SELL, 260_000) == 3
    assert [one.code for one in buyer.missed] == ([buyer_code] if buyer_code else [])
    assert buyer.desk.wanted(BOOK, BUY, 340_000) == (3 if buyer_code else 0)
    before = seller.desk.standing(BOOK, SELL, 260_000)
    assert before is not None
    world.lose_letter = lambda *_: False
    if buyer_code is None:
        world.want(buyer, BUY, 340_000, 3)
    world.run(at(EPOCH + 3, ms=1_000))
    assert len(seller.agreed) == 1
    if silent is not Propose:  # the signature was out, so the order was spent
        assert {one.match.match.sell for one in seller.agreed} == {before.id}


def test_an_acceptance_too_late_to_be_confirmed_is_not_signed() -> None:
    world = World(2)
    world.delay_us = lambda: 2_000
    buyer, seller = trade(world)
    slow = [False]
    original = world.arrival

    def arrival(link: Any) -> Instant:
        return Instant(original(link) + (1_250_000 if slow[0] else 0))

    world.run(at(EPOCH + 1, ms=601))
    slow[0] = True
    world.arrival = arrival  # type: ignore[method-assign]
    world.run(at(EPOCH + 2, ms=100))
    assert not buyer.agreed
    assert not seller.agreed
    assert len(buyer.rows) == 1  # the sequence, and no signature


# --- different views ---------------------------------------------------------------------------------------


def test_different_views_are_compared_once_and_then_agree() -> None:
    """The seller alone knows a third order at the freeze; both compute, differ, compare books, and agree on the union's match."""
    world = World(2)
    buyer, seller = trade(world)
    world.run(at(EPOCH + 1, ms=590))
    world.lose_frame = lambda _, __, frame: isinstance(FRAMES.unpack(frame), Batch)
    extra = seal_order(key(9), REGTEST, order(9, side=SELL, price_msat=200_000, quantity=1))
    world.market(seller, Publish(message=extra))
    world.run(at(EPOCH + 1, ms=1_990))
    first = [next(view for view in node.cleared if view.epoch == EPOCH + 1) for node in (buyer, seller)]
    assert first[0].fills != first[1].fills
    again = [view for node in (buyer, seller) for view in node.cleared if view.again]
    assert {view.epoch for view in again} == {EPOCH + 1}
    assert len({view.fills for view in again}) == 1
    assert buyer.agreed[0].match == seller.agreed[0].match
    assert buyer.agreed[0].match.match.quantity == 2
    assert not [*buyer.blames, *seller.blames]
    assert [one.peer for node in (buyer, seller) for one in node.no_shows] == [key(9).peer_id]  # absent


def test_views_that_stay_different_end_without_a_signature() -> None:
    world = World(2)
    buyer, seller = trade(world)
    world.run(at(EPOCH + 1, ms=500))
    world.lose_frame = lambda *_: True

    extra = seal_order(key(9), REGTEST, order(9, side=SELL, price_msat=200_000, quantity=3))
    world.market(buyer, Publish(message=extra))
    world.run(at(EPOCH + 1, ms=1_990))
    assert not buyer.agreed
    assert not seller.agreed
    assert not [name for node in (buyer, seller) for name in node.rows if name.startswith(b"signed/")]
    assert "no-answer" in {one.code for one in buyer.missed}


# --- one desk against letters of our own making -------------------------------------------------------------


class Table:
    """One desk, its order in a book, and a counterparty whose key the test holds."""

    def __init__(self, side: Side, quantity: int = 4, price: int = 300) -> None:
        self.side, self.me, self.them = side, key(50), key(51)
        self.desk = Desk(self.me, REGTEST)
        self.price = price
        self.effects: list[Any] = []
        self.now = at()
        self.do(Want(book=BOOK, side=side, price_msat=price, quantity=quantity))
        self.now = at(ms=1_960)
        self.order = next(heard for heard in self.published(self.do(Tick())) if isinstance(heard.body, Order))
        self.now = at(EPOCH + 1, ms=610)

    def do(self, event: Any) -> list[Any]:
        effects = list(self.desk.handle(event, self.now))
        self.effects += effects
        return effects

    def published(self, effects: list[Any]) -> list[Any]:
        return [read(REGTEST, one.message) for one in effects if isinstance(one, PublishOrder)]

    def entries(self, quantity: int, other: int = 1) -> tuple[Entry, Entry]:
        body = self.order.body
        mine = Entry(id=self.order.id, owner=body.owner, side=self.side, price_msat=body.price_msat, quantity=body.quantity)
        theirs = Entry(id=bytes([other]) * 32, owner=self.them.public, side=self.side.other, price_msat=300, quantity=quantity)
        return (mine, theirs) if self.side is BUY else (theirs, mine)

    def fill(self, quantity: int = 4, *, start: int = 0, other: int = 1) -> Fill:
        buy, sell = self.entries(quantity, other)
        mine, theirs = (start, 0) if self.side is BUY else (0, start)
        return Fill(buy=buy, sell=sell, quantity=quantity, price_msat=300, buy_from=mine, sell_from=theirs)

    def view(self, *fills: Fill, epoch: int = EPOCH + 1, again: bool = False, refusal: str = "") -> Cleared:
        return Cleared(
            book=BOOK,
            epoch=epoch,
            root=b"r" * 32,
            fills=fills,
            buys=tuple({one.buy.id: one.buy for one in fills}.values()),
            sells=tuple({one.sell.id: one.sell for one in fills}.values()),
            refusal=refusal,
            again=again,
        )

    def match(self, fill: Fill, epoch: int = EPOCH + 1) -> Any:

        return match(
            epoch=epoch,
            buy=fill.buy.id,
            sell=fill.sell.id,
            quantity=fill.quantity,
            price_msat=fill.price_msat,
            buy_from=fill.buy_from,
            sell_from=fill.sell_from,
            accept_by_us=REGTEST.clock.accept_by(epoch),
        )

    def hear(self, letter: Any, peer: PeerId | None = None) -> list[Any]:
        return self.do(LetterIn(peer=peer or self.them.peer_id, payload=LETTERS.pack(letter)))

    def said(self, effects: list[Any]) -> list[Any]:
        return [LETTERS.unpack(one.payload) for one in effects if isinstance(one, Letter)]

    def accept(self, fill: Fill, epoch: int = EPOCH + 1) -> Accept:
        one = self.match(fill, epoch)
        return Accept(match=one, signature=sign_match(self.them, one, SELL))


def codes(effects: list[Any]) -> list[str]:
    return [one.code for one in effects if isinstance(one, Count)]


def test_a_proposal_before_our_own_auction_waits_for_it() -> None:
    table = Table(SELL)
    fill = table.fill()
    table.now = at(EPOCH + 1, ms=590)
    assert table.said(table.hear(Propose(match=table.match(fill)))) == []
    table.now = at(EPOCH + 1, ms=601)
    (accept,) = table.said(table.do(table.view(fill)))
    assert isinstance(accept, Accept)


def test_the_same_proposal_gets_the_same_answer() -> None:
    table = Table(SELL)
    fill = table.fill()
    table.do(table.view(fill))
    first = table.said(table.hear(Propose(match=table.match(fill))))
    effects = table.hear(Propose(match=table.match(fill)))
    assert table.said(effects) == first
    assert not [one for one in effects if isinstance(one, Save)]


def test_a_seller_who_wants_less_answers_with_a_close() -> None:
    table = Table(SELL)
    fill = table.fill()
    table.do(table.view(fill))
    table.do(Want(book=BOOK, side=SELL, price_msat=300, quantity=3))
    effects = table.hear(Propose(match=table.match(fill)))
    (decline,) = table.said(effects)
    assert decline.code == "withdrawn"
    closed = read(REGTEST, decline.close).body
    assert isinstance(closed, Close)
    assert closed.order == table.order.id
    assert [one.code for one in effects if isinstance(one, Missed)] == ["withdrawn"]
    assert not [one for one in table.effects if isinstance(one, Save) and one.key.startswith(b"signed/")]


def test_promised_quantity_is_not_promised_again() -> None:
    """Two fills of one order; after the first is signed the want is lowered, and the second finds nothing free."""
    table = Table(SELL)
    first, second = table.fill(2), table.fill(2, start=2, other=2)
    table.do(table.view(first, second))
    assert isinstance(table.said(table.hear(Propose(match=table.match(first))))[0], Accept)
    table.do(Want(book=BOOK, side=SELL, price_msat=300, quantity=3))
    (decline,) = table.said(table.hear(Propose(match=table.match(second))))
    assert decline.code == "withdrawn"


def test_a_proposal_that_is_not_ours_or_not_theirs() -> None:
    table = Table(SELL)
    fill = table.fill()
    table.do(table.view(fill))
    foreign = table.match(table.fill(other=1))
    assert codes(table.hear(Propose(match=foreign), key(60).peer_id)) == ["not-yours"]
    assert codes(table.hear(Propose(match=table.match(fill, EPOCH + 9)))) == ["early"]
    assert codes(table.hear(Propose(match=table.match(fill, EPOCH)))) == ["late"]

    assert codes(table.hear(Propose(match=replace(foreign, sell=b"?" * 32)))) == ["not-our-order"]
    assert codes(table.hear(Propose(match=replace(foreign, network="main")))) == ["wrong-network"]


@pytest.mark.parametrize(
    "change", [{"quantity": 3}, {"price_msat": 299}, {"sell_from": 1}, {"accept_by_us": 1}, {"book": bytes(32)}]
)
def test_no_field_of_a_proposal_may_differ(change: dict[str, Any]) -> None:

    table = Table(SELL)
    fill = table.fill()
    table.do(table.view(fill))
    effects = table.hear(Propose(match=replace(table.match(fill), **change)))
    assert not any(isinstance(one, Accept) for one in table.said(effects))
    assert not [one for one in effects if isinstance(one, Save)]


def test_a_mismatch_asks_for_one_comparison_and_is_tried_again_once() -> None:
    table = Table(SELL)
    fill, other = table.fill(3), table.fill(4)
    table.do(table.view(other))
    effects = table.hear(Propose(match=table.match(fill)))
    assert [one.code for one in table.said(effects)] == [DIFFERENT_VIEW]
    assert [one for one in effects if isinstance(one, CompareBooks)] == [
        CompareBooks(book=BOOK, epoch=EPOCH + 1, peer=table.them.peer_id)
    ]
    assert not [one for one in table.hear(Propose(match=table.match(fill))) if isinstance(one, CompareBooks)]
    (accept,) = table.said(table.do(table.view(fill, again=True)))
    assert isinstance(accept, Accept)
    table = Table(SELL)
    table.do(table.view(other))
    table.hear(Propose(match=table.match(fill)))
    (decline,) = table.said(table.do(table.view(other, again=True)))
    assert decline.code == DIFFERENT_VIEW
    assert table.said(table.hear(Propose(match=table.match(fill))))[0].code == DIFFERENT_VIEW


def test_a_buyer_whose_view_was_refused_compares_and_proposes_again() -> None:
    table = Table(BUY)
    fill = table.fill()
    assert isinstance(table.said(table.do(table.view(fill)))[0], Propose)
    refusal = Decline(
        book=BOOK,
        epoch=EPOCH + 1,
        buy=fill.buy.id,
        sell=fill.sell.id,
        buy_from=0,
        sell_from=0,
        code=DIFFERENT_VIEW,
        close=b"",
    )
    assert [type(one) for one in table.hear(refusal)] == [CompareBooks]
    assert isinstance(table.said(table.do(table.view(fill, again=True)))[0], Propose)
    assert [one.code for one in table.hear(refusal) if isinstance(one, Missed)] == [DIFFERENT_VIEW]


def test_acceptances_that_are_false() -> None:

    table = Table(BUY)
    fill = table.fill()
    table.do(table.view(fill))
    good = table.accept(fill)
    assert codes(table.hear(replace(good, signature=bytes(64)))) == ["wrong-signature"]
    assert codes(table.hear(good, key(60).peer_id)) == ["not-yours"]
    assert codes(table.hear(replace(good, match=replace(good.match, price_msat=299)))) == ["different-match"]
    assert codes(table.hear(replace(good, match=replace(good.match, epoch=EPOCH)))) == ["no-such-match"]
    assert not [one for one in table.effects if isinstance(one, Agreed)]
    effects = table.hear(good)
    assert [type(one) for one in effects] == [Save, Letter, Agreed]
    assert [type(one) for one in table.hear(good)] == [Letter]


def test_a_seller_who_accepts_in_two_wordings_is_proved_an_equivocator() -> None:

    table = Table(BUY)
    fill = table.fill()
    table.do(table.view(fill))
    table.hear(table.accept(fill))
    again = replace(table.match(fill), seller_root=b"x" * 32)
    effects = table.hear(Accept(match=again, signature=sign_match(table.them, again, SELL)))
    (proof,) = table.published(effects)
    assert isinstance(proof.body, EquivocationProof)
    assert proof.body.signer == table.them.public
    assert [one.code for one in effects if isinstance(one, Blame)] == ["equivocation"]
    assert not table.said(effects)


def test_a_confirmation_must_be_of_what_we_signed() -> None:

    table = Table(SELL)
    fill = table.fill()
    table.do(table.view(fill))
    (accept,) = table.said(table.hear(Propose(match=table.match(fill))))
    good = Confirm(match=accept.match, signature=sign_match(table.them, accept.match, BUY))
    other = replace(accept.match, buyer_root=b"z" * 32)
    assert codes(table.hear(Confirm(match=other, signature=bytes(64)))) == ["wrong-signature"]
    assert codes(table.hear(replace(good, signature=bytes(64)))) == ["wrong-signature"]
    table.now = at(EPOCH + 1, ms=1_899)
    assert [type(one) for one in table.hear(good) if not isinstance(one, Letter)] == [Agreed]
    assert not [one for one in table.hear(good) if isinstance(one, Agreed | Save | Letter)]


@pytest.mark.parametrize("good_first", [True, False])
def test_a_buyer_who_confirms_two_wordings_is_proved_an_equivocator(*, good_first: bool) -> None:
    table = Table(SELL)
    fill = table.fill()
    table.do(table.view(fill))
    (accept,) = table.said(table.hear(Propose(match=table.match(fill))))
    other = replace(accept.match, buyer_root=b"z" * 32)
    letters = [Confirm(match=one, signature=sign_match(table.them, one, BUY)) for one in (accept.match, other)]
    first, second = letters if good_first else reversed(letters)
    assert [*codes(table.hear(first))] == ([] if good_first else ["not-what-we-signed"])
    effects = table.hear(second)
    assert codes(effects) == ["equivocation"]
    (proof,) = table.published(effects)
    assert isinstance(proof.body, EquivocationProof)
    assert proof.body.signer == table.them.public
    assert [one.penalty for one in effects if isinstance(one, Blame)] == [100]
    assert sum(isinstance(one, Agreed) for one in table.effects) == good_first


def test_a_late_confirmation_is_no_deal() -> None:
    table = Table(SELL)
    fill = table.fill()
    table.do(table.view(fill))
    (accept,) = table.said(table.hear(Propose(match=table.match(fill))))
    table.now = at(EPOCH + 1, ms=1_901)
    effects = table.hear(Confirm(match=accept.match, signature=sign_match(table.them, accept.match, BUY)))
    assert not [one for one in effects if isinstance(one, Agreed)]
    assert table.desk.wanted(BOOK, SELL, 300) == 4


def test_a_forged_close_in_a_refusal_goes_nowhere() -> None:
    table = Table(BUY)
    fill = table.fill()
    table.do(table.view(fill))

    def refusal(signer: int, target: bytes) -> Decline:
        close = Close(network="regtest", book=BOOK, order=target, epoch=EPOCH + 2, owner=table.them.public)
        return Decline(
            book=BOOK,
            epoch=EPOCH + 1,
            buy=fill.buy.id,
            sell=fill.sell.id,
            buy_from=0,
            sell_from=0,
            code="withdrawn",
            close=seal_close(key(signer), REGTEST, close),
        )

    assert codes(table.hear(refusal(60, fill.sell.id))) == ["wrong-signature"]
    assert codes(table.hear(refusal(51, b"q" * 32))) == ["not-a-close"]
    assert not [
        one for one in table.effects if isinstance(one, PublishOrder) and isinstance(read(REGTEST, one.message).body, Close)
    ]
    effects = table.hear(refusal(51, fill.sell.id))
    assert len(table.published(effects)) == 1
    assert [one.code for one in effects if isinstance(one, Missed)] == ["refused"]


@given(st.binary(max_size=200), st.integers(1, 4))
@settings(max_examples=300, deadline=None)
def test_no_letter_breaks_a_desk(data: bytes, tag: int) -> None:
    table = Table(SELL)
    table.do(table.view(table.fill()))
    for payload in (data, b"\x92" + bytes([tag]) + data):
        assert not [one for one in table.do(LetterIn(peer=table.them.peer_id, payload=payload)) if isinstance(one, Letter)]


def test_a_refusing_view_proposes_nothing_and_says_why() -> None:
    table = Table(BUY)
    effects = table.do(table.view(table.fill(), refusal="clock-skewed"))
    assert [one.code for one in effects if isinstance(one, Missed)] == ["clock-skewed"]
    assert not table.said(effects)
    table = Table(SELL)
    fill = table.fill()
    effects = table.do(table.view(fill, refusal="not-ready"))
    assert [one.code for one in effects if isinstance(one, Missed)] == ["not-ready"]
    assert [one.code for one in table.said(table.hear(Propose(match=table.match(fill))))] == ["not-ready"]


# --- our own orders ----------------------------------------------------------------------------------------


def publications(effects: list[Any]) -> list[Any]:
    return [read(REGTEST, one.message).body for one in effects if isinstance(one, PublishOrder)]


def drive(desk: Desk, until: Instant) -> list[Any]:
    """Tick at every deadline up to ``until``."""
    effects: list[Any] = []
    for _ in range(10_000):
        due = desk.next_deadline()
        if due is None or due > until:
            return effects
        effects += desk.handle(Tick(), due)
    raise AssertionError("deadlines without end")


def test_an_order_is_renewed_while_wanted_and_then_withdrawn() -> None:
    desk = Desk(key(1), REGTEST)
    desk.handle(Want(book=BOOK, side=SELL, price_msat=5, quantity=2), at())
    orders = publications(drive(desk, at(EPOCH + 12)))
    assert all(isinstance(one, Order) for one in orders)
    lives = [(one.first_epoch - EPOCH, one.last_epoch - EPOCH) for one in orders]
    assert lives[0] == (1, 5)
    assert all(later[0] <= earlier[1] for earlier, later in pairwise(lives))  # no gap
    assert len(lives) <= 4
    (close,) = publications(list(desk.handle(Want(book=BOOK, side=SELL, price_msat=5, quantity=0), at(EPOCH + 12, ms=100))))
    assert isinstance(close, Close)
    assert close.epoch == EPOCH + 13
    assert drive(desk, at(EPOCH + 40)) == []


def test_what_changes_together_is_written_together() -> None:
    desk = Desk(key(1), REGTEST)
    effects: list[Any] = []
    for number in range(20):
        now = at(ms=1_300 + number * 5)
        effects += drive(desk, now)
        effects += desk.handle(Want(book=BOOK, side=BUY, price_msat=5, quantity=number + 1), now)
    effects += drive(desk, at(EPOCH + 1))
    written = publications(effects)
    assert [one.quantity for one in written] == [20]
    assert written[0].first_epoch == EPOCH + 1


def test_no_more_than_three_writings_of_a_line_in_an_epoch() -> None:
    desk = Desk(key(1), REGTEST)
    effects: list[Any] = []
    for ms in range(0, 2_000, 10):
        effects += drive(desk, at(ms=ms))
        effects += desk.handle(Want(book=BOOK, side=BUY, price_msat=5, quantity=ms + 1), at(ms=ms))
    effects += drive(desk, Instant(at(EPOCH + 1) - 1))
    assert 1 <= len(publications(effects)) <= 3


def test_one_owner_has_eight_prices_and_no_more() -> None:
    desk = Desk(key(1), REGTEST)
    for price in range(OWNER_SLOTS):
        assert not desk.handle(Want(book=BOOK, side=BUY, price_msat=price, quantity=1), at())
    (missed,) = desk.handle(Want(book=BOOK, side=BUY, price_msat=99, quantity=1), at())
    assert isinstance(missed, Missed)
    assert missed.code == "too-many-prices"
    assert not desk.handle(Want(book=BOOK, side=SELL, price_msat=99, quantity=1), at())
    assert {one.slot for one in publications(drive(desk, at(EPOCH + 1))) if one.side is BUY} == set(range(OWNER_SLOTS))
    desk.handle(Want(book=BOOK, side=BUY, price_msat=3, quantity=0), at(EPOCH + 1))
    drive(desk, at(EPOCH + 8))
    desk.handle(Tick(), at(EPOCH + 8))
    assert not [
        one for one in desk.handle(Want(book=BOOK, side=BUY, price_msat=99, quantity=1), at(EPOCH + 8)) if isinstance(one, Missed)
    ]


def test_sequences_grow_are_reserved_in_blocks_and_survive_restarts() -> None:
    rows: dict[bytes, bytes] = {}
    seen: list[int] = []
    for run in range(3):
        desk = Desk(key(1), REGTEST, rows)
        epoch = EPOCH + 10 * run
        desk.handle(Want(book=BOOK, side=BUY, price_msat=5, quantity=run + 1), at(epoch))
        effects = drive(desk, at(epoch + 3))
        saves = [one for one in effects if isinstance(one, Save)]
        assert len(saves) == 1
        rows = {one.key: one.value for one in saves if one.value is not None}
        seen += [one.sequence for one in publications(effects)]
        assert int.from_bytes(rows[b"sequence"], "big") > max(seen)
    assert seen == sorted(set(seen))
    lost = Desk(key(1), REGTEST, {})  # the journal is gone
    lost.handle(Want(book=BOOK, side=BUY, price_msat=5, quantity=9), at(EPOCH + 40))
    (fresh,) = [one for one in publications(drive(lost, at(EPOCH + 41))) if isinstance(one, Order)]
    assert fresh.sequence > max(seen)
    assert fresh.sequence >= (EPOCH + 40) * SEQUENCE_BLOCK


# --- restart -----------------------------------------------------------------------------------------------


def test_after_a_restart_nothing_old_is_signed() -> None:
    """The seller restarts between publishing and the auction: he closes the old order and trades by a new one, an epoch later."""
    world = World(3)
    buyer, seller = trade(world)
    world.run(at(EPOCH + 1, ms=100))
    world.restart(seller)
    world.mesh()
    world.want(seller, SELL, 260_000, 3)
    world.run(at(EPOCH + 1, ms=1_900))
    assert seller.cleared[-1].fills
    assert not seller.agreed
    assert not [name for name in seller.rows if name.startswith(b"signed/")]
    assert {one.code for one in buyer.missed} <= {"refused", "no-answer"}
    assert buyer.missed
    world.run(at(EPOCH + 3, ms=1_000))
    assert len(seller.agreed) == len(buyer.agreed) == 1


def test_a_restart_after_signing_never_signs_again() -> None:
    world = World(2)
    world.lose_letter = lambda _, __, payload: kind(payload) is Confirm
    buyer, seller = trade(world)
    world.run(at(EPOCH + 1, ms=700))
    rows = {name for name in seller.rows if name.startswith(b"signed/")}
    assert len(rows) == 1
    world.restart(seller)
    world.mesh()
    world.lose_letter = lambda *_: False
    world.run(at(EPOCH + 1, ms=1_990))
    assert {name for name in seller.rows if name.startswith(b"signed/")} == rows
    assert not seller.agreed
    assert all(one.code != "equivocation" for one in buyer.blames)


def test_signed_rows_are_kept_as_long_as_the_books_remember() -> None:
    world = World(2)
    buyer, _ = trade(world)
    world.run(at(EPOCH + 2))
    assert any(name.startswith(b"signed/") for name in buyer.rows)
    desk = Desk(buyer.key, REGTEST, buyer.rows)
    assert desk.resume(at(EPOCH + 61)) == ()
    (gone,) = desk.resume(at(EPOCH + 62))
    assert isinstance(gone, Save)
    assert gone.value is None


# --- the machine -------------------------------------------------------------------------------------------


def test_every_pair_of_phase_and_cue() -> None:
    table = Table(BUY)
    fill = table.fill()
    for phase in Phase:
        for cue in Cue:
            one = Agreement(
                book=BOOK,
                epoch=EPOCH,
                side=BUY,
                fill=fill,
                peer=table.them.peer_id,
                phase=phase,
                match=table.match(fill),
            )
            if (phase, cue) in TABLE:
                one.step(cue)
                assert one.phase is TABLE[phase, cue]
            else:
                with pytest.raises(Ignore):
                    one.step(cue)
                assert one.phase is phase
    ends = {Phase.SILENT, Phase.DROPPED}
    assert not [pair for pair in TABLE if pair[0] in ends]
    assert {following for (phase, _), following in TABLE.items() if phase is Phase.AGREED} == {Phase.AGREED}  # a deal stays one
    assert {phase for phase in Phase if phase not in ends} == {phase for phase, _ in TABLE}


def test_the_drawing_in_the_text_is_the_table() -> None:
    import orderbook.core.agreement as module

    drawn = {
        tuple(line.split()[:3])
        for line in (module.__doc__ or "").splitlines()
        if len(line.split()) >= 3 and line.split()[0] in Phase.__members__ and line.split()[1] in Cue.__members__
    }
    listed = {(phase.name, cue.name, following.name) for (phase, cue), following in TABLE.items() if cue is not Cue.DROP}
    assert drawn == listed
    assert {phase for phase, cue in TABLE if cue is Cue.DROP} == {Phase.EXPECTED, Phase.PROPOSED, Phase.REFUSED}


def test_why_there_was_no_match() -> None:
    table = Table(BUY, price=300)
    mine = table.entries(1)[0]

    def told(*sells: Entry, buys: tuple[Entry, ...] = (mine,)) -> str:
        view = Cleared(book=BOOK, epoch=EPOCH + 1, root=bytes(32), fills=(), buys=buys, sells=sells)
        (missed,) = [one for one in Table(BUY, price=300).desk.handle(view, at(EPOCH + 1, ms=610)) if isinstance(one, Missed)]
        assert missed.sentence
        return missed.code

    dear = Entry(id=bytes(32), owner=key(9).public, side=SELL, price_msat=301, quantity=1)
    cheap = Entry(id=bytes(32), owner=key(9).public, side=SELL, price_msat=300, quantity=1)
    own = Entry(id=bytes(32), owner=key(50).public, side=SELL, price_msat=1, quantity=1)
    assert told() == "no-seller"
    assert told(own) == "no-seller"
    assert told(dear) == "price"
    assert told(cheap) == "outbid"
    assert told(cheap, buys=()) == "not-in-book"


def test_an_avoid_list_between_us_and_all_others_is_named() -> None:
    """A buyer who avoids the only seller is not outbid, and is not told so; nor is anybody whom the only other avoids."""

    def told(side: Side, *theirs: Entry, avoid: tuple[bytes, ...] = ()) -> tuple[str, str]:
        table = Table(side, price=300)
        mine = table.entries(1)[0 if side is BUY else 1]._replace(avoid=avoid)
        buys, sells = ((mine,), theirs) if side is BUY else (theirs, (mine,))
        view = Cleared(book=BOOK, epoch=EPOCH + 1, root=bytes(32), fills=(), buys=buys, sells=sells)
        (missed,) = [one for one in table.do(view) if isinstance(one, Missed)]
        return missed.code, missed.sentence

    us, them, third = (account_hash_of(key(number).public) for number in (50, 9, 10))
    for side, word in ((BUY, "seller"), (SELL, "buyer")):
        other = Entry(id=bytes(32), owner=key(9).public, side=side.other, price_msat=300, quantity=1)
        avoiding = other._replace(id=b"a" * 32, owner=key(10).public, avoid=(us,))
        cheaper = 301 if side is BUY else 299
        too_dear = other._replace(id=b"d" * 32, owner=key(11).public, price_msat=cheaper)
        own = other._replace(id=b"o" * 32, owner=key(50).public)
        ours = f"every {word} at our price is on our avoid list for a while, because an earlier trade with him went wrong"
        assert told(side, other, avoid=(them,)) == ("avoided", ours)
        assert told(side, other, too_dear, own, avoid=(them,)) == ("avoided", ours)
        assert told(side, avoiding) == ("avoided", f"every {word} at our price has our account on his avoid list")
        both = f"every {word} at our price is on our avoid list for a while, or has our account on his"
        assert told(side, other, avoiding, avoid=(them,)) == ("avoided", both)
        assert told(side, other, avoid=(third,))[0] == "outbid"
        assert told(side, other, avoiding, avoid=(third,))[0] == "outbid"
        assert told(side, too_dear, avoid=(them,))[0] == "price"
        assert told(side, avoid=(them,))[0] == ("no-seller" if side is BUY else "no-buyer")


def test_while_the_clock_is_wrong_nothing_of_ours_stands() -> None:
    table = Table(BUY)
    effects = table.do(table.view(refusal="clock-skewed"))
    (close,) = publications(effects)
    assert isinstance(close, Close)
    assert (close.order, close.epoch) == (table.order.id, EPOCH + 2)
    assert not publications(table.do(table.view(refusal="clock-skewed", again=True)))
    assert not publications(drive(table.desk, at(EPOCH + 4)))
    table.now = at(EPOCH + 4, ms=610)
    table.do(Want(book=BOOK, side=BUY, price_msat=300, quantity=7))
    assert table.desk.next_deadline() is None
    table.do(table.view(epoch=EPOCH + 4, refusal="not-ready"))  # that is no reason to stay away
    (again,) = publications(drive(table.desk, at(EPOCH + 5)))
    assert (again.quantity, again.first_epoch) == (7, EPOCH + 5)


@pytest.mark.parametrize("code", ["withdrawn", "not-ready", "whatever"])
def test_a_refusal_that_nobody_can_check_is_a_no_show(code: str) -> None:
    table = Table(BUY)
    fill = table.fill()
    table.do(table.view(fill))
    refusal = declined(fill, code)
    effects = table.hear(refusal)
    assert [(one.peer, one.code) for one in effects if isinstance(one, NoShow)] == [(table.them.peer_id, "refused")]
    table = Table(BUY)
    table.do(table.view(fill := table.fill()))
    close = Close(network="regtest", book=BOOK, order=fill.sell.id, epoch=EPOCH + 2, owner=table.them.public)
    effects = table.hear(replace(declined(fill, code), close=seal_close(table.them, REGTEST, close)))
    assert not [one for one in effects if isinstance(one, NoShow)]
    assert [one.code for one in effects if isinstance(one, Missed)] == ["refused"]


def declined(fill: Fill, code: str) -> Decline:
    return Decline(
        book=BOOK,
        epoch=EPOCH + 1,
        buy=fill.buy.id,
        sell=fill.sell.id,
        buy_from=fill.buy_from,
        sell_from=fill.sell_from,
        code=code,
        close=b"",
    )


@pytest.mark.parametrize("code", [DIFFERENT_VIEW, "withdrawn"])
def test_a_buyer_who_declines_what_was_accepted_gives_the_units_back(code: str) -> None:
    """Whatever the reason he gives: the order is spent, and what it promised may be promised by another at once."""
    table = Table(SELL)
    fill = table.fill()
    table.do(table.view(fill))
    table.hear(Propose(match=table.match(fill)))
    effects = table.hear(declined(fill, code))
    assert not [one for one in effects if isinstance(one, CompareBooks)]
    assert [one.code for one in effects if isinstance(one, Missed)] == [code if code == DIFFERENT_VIEW else "refused"]
    (line,) = table.desk._pen.lines.values()
    assert (line.promised, line.free) == (0, 4)
    (following,) = publications(drive(table.desk, at(EPOCH + 2)))
    assert (following.quantity, following.first_epoch) == (4, EPOCH + 2)


def test_a_buyer_who_wants_less_answers_with_a_close_too() -> None:
    table = Table(BUY)
    fill = table.fill()
    table.do(table.view(fill))
    table.do(Want(book=BOOK, side=BUY, price_msat=300, quantity=3))
    effects = table.hear(table.accept(fill))
    (decline,) = table.said(effects)
    assert decline.code == "withdrawn"
    assert read(REGTEST, decline.close).body.order == table.order.id  # type: ignore[union-attr]
    assert [one.code for one in effects if isinstance(one, Missed)] == ["withdrawn"]
    assert not [one for one in table.effects if isinstance(one, Save) and one.key.startswith(b"signed/")]


def test_a_repeated_proposal_for_what_was_withdrawn_gets_the_same_close() -> None:
    table = Table(SELL)
    fill = table.fill()
    table.do(table.view(fill))
    table.do(Want(book=BOOK, side=SELL, price_msat=300, quantity=3))
    first = table.hear(Propose(match=table.match(fill)))
    again = table.hear(Propose(match=table.match(fill)))
    assert table.said(again) == table.said(first)
    assert [type(one) for one in again] == [Letter]
    other = table.hear(Propose(match=table.match(fill)), key(60).peer_id)
    assert [one.close for one in table.said(other)] == [b""]


def test_an_acceptance_of_what_we_computed_before_blames_nobody() -> None:
    """The price has changed with our view; the seller accepted the old one in good faith."""
    table = Table(BUY)
    fill = table.fill()
    table.do(table.view(fill))
    old = table.accept(fill)
    table.do(table.view(fill._replace(price_msat=290), again=True))
    effects = table.hear(old)
    assert codes(effects) == ["different-match"]
    assert len(effects) == 1
