"""The small parts of the order book, each at its edges: lines, agreements, the memory of signatures, the judge of clocks."""

from typing import Any

import pytest

from orderbook.core import evidence as evidence_module
from orderbook.core.agreement import Agreement, Decline, Phase, key_in, key_of
from orderbook.core.auction import Entry, Fill
from orderbook.core.clockwatch import judge
from orderbook.core.evidence import Witness
from orderbook.core.line import Line, Standing, free_slot
from orderbook.core.messages import Side
from tests.orderbook.test_messages import match, order
from tests.orderbook.world import BOOK, EPOCH, key
from wire.limits import ORDER_RETAIN_EPOCHS, QUANTITY_MAX
from wire.network import REGTEST

PEER = key(101).peer_id


def line(**more: Any) -> Line:
    return Line(**{"book": BOOK, "side": Side.BUY, "price_msat": 7, "slot": 0, **more})


def standing(of: Line, **more: Any) -> Standing:
    fields = {"quantity": 10, "first_epoch": EPOCH, "last_epoch": EPOCH + 4, **more}
    return Standing(id=b"o" * 32, order=order(1, **fields), line=of)


# --- lines ----------------------------------------------------------------------------------------------------------------------


def test_units_are_signed_once_in_one_epoch() -> None:
    one = standing(line())
    assert not one.may_sign(EPOCH - 1, range(0, 1))
    assert one.may_sign(EPOCH, range(0, 10))
    assert one.may_sign(EPOCH + 4, range(9, 10))
    assert not one.may_sign(EPOCH + 5, range(0, 1))
    assert not one.may_sign(EPOCH, range(9, 11))
    one.sign(EPOCH + 1, range(3, 5))
    assert one.signed_epoch == EPOCH + 1
    assert not one.may_sign(EPOCH, range(0, 1))
    assert not one.may_sign(EPOCH + 2, range(0, 1))
    assert [one.may_sign(EPOCH + 1, units) for units in (range(0, 3), range(5, 10))] == [True, True]
    assert [one.may_sign(EPOCH + 1, units) for units in (range(0, 4), range(4, 5), range(2, 6))] == [False] * 3
    one.sign(EPOCH + 1, range(0, 3))
    assert one.signed_units == [range(3, 5), range(0, 3)]


def test_what_is_free_is_what_is_neither_agreed_nor_promised() -> None:
    assert line(wanted=5, promised=2).free == 3
    assert line(wanted=2, promised=5).free == 0
    fresh = line()
    assert (fresh.wanted, fresh.promised, fresh.free, fresh.writes, fresh.written_epoch) == (0, 0, 0, 0, -1)


def test_when_an_order_is_not_what_should_stand() -> None:
    one = line()
    assert not one.stale(EPOCH)
    one.wanted = 1
    assert one.stale(EPOCH)
    one.wanted, one.standing = 10, standing(one)
    assert not one.stale(EPOCH)
    assert not one.stale(EPOCH + 2)
    assert one.stale(EPOCH + 3)  # it would end too soon
    one.wanted = 11
    assert one.stale(EPOCH)
    one.wanted, one.avoid = 10, (b"a" * 20,)
    assert one.stale(EPOCH)
    one.avoid = ()
    one.standing.signed_epoch = EPOCH
    assert one.stale(EPOCH)


def test_what_is_not_wanted_any_more_stands_until_it_ends() -> None:
    one = line(wanted=3, promised=3)
    one.standing = standing(one)
    assert one.stale(EPOCH + 3)
    assert not one.stale(EPOCH + 4)


def test_more_than_one_order_can_hold_stands_as_the_most() -> None:
    one = line(wanted=QUANTITY_MAX + 5)
    one.standing = standing(one, quantity=QUANTITY_MAX)
    assert not one.stale(EPOCH)


def test_the_lowest_free_slot() -> None:
    assert free_slot([], 8) == 0
    assert free_slot([line(slot=0), line(slot=2)], 8) == 1
    assert free_slot([line(slot=number) for number in range(8)], 8) is None
    assert free_slot([line(slot=number) for number in range(7)], 8) == 7


# --- agreements -----------------------------------------------------------------------------------------------------------------


def test_either_side_of_an_agreement_names_its_own_order_and_units() -> None:
    buy = Entry(id=b"b" * 32, owner=key(1).public, side=Side.BUY, price_msat=9, quantity=9)
    sell = Entry(id=b"s" * 32, owner=key(2).public, side=Side.SELL, price_msat=1, quantity=9)
    fill = Fill(buy=buy, sell=sell, quantity=4, price_msat=5, buy_from=2, sell_from=3)
    for side, order_id, units in ((Side.BUY, buy.id, range(2, 6)), (Side.SELL, sell.id, range(3, 7))):
        one = Agreement(book=BOOK, epoch=EPOCH, side=side, fill=fill, peer=PEER, phase=Phase.EXPECTED, match=match())
        assert (one.order_id, one.units) == (order_id, units)
    assert key_of(fill) == (buy.id, sell.id, 2, 3)
    assert key_in(match(buy_from=2, sell_from=3)) == (buy.id, sell.id, 2, 3)
    decline = Decline(book=BOOK, epoch=EPOCH, buy=buy.id, sell=sell.id, buy_from=2, sell_from=3, code="x", close=b"")
    assert key_in(decline) == key_of(fill)


# --- the memory of signatures ---------------------------------------------------------------------------------------------------

SIGNER = key(9).public


def test_a_contradiction_is_found_whichever_came_first() -> None:
    one, other = match(), match(epoch=EPOCH + 1)
    for first, second in ((one, other), (other, one)):
        witness = Witness()
        assert witness.add(SIGNER, Side.SELL, first, b"1" * 64) is None
        assert witness.add(SIGNER, Side.SELL, first, b"1" * 64) is None  # the same again is nothing
        assert witness.add(key(8).public, Side.SELL, second, b"2" * 64) is None  # somebody else
        assert witness.add(SIGNER, Side.BUY, second, b"2" * 64) is None  # in another role
        proof = witness.add(SIGNER, Side.SELL, second, b"2" * 64)
        assert proof is not None
        assert {(proof.first, proof.first_signature), (proof.second, proof.second_signature)} == {
            (first, b"1" * 64),
            (second, b"2" * 64),
        }
        assert (proof.signer, proof.side, proof.first) == (SIGNER, Side.SELL, one)


def test_signatures_are_remembered_as_long_as_orders_and_no_longer() -> None:
    one, other = match(), match(epoch=EPOCH + 1)
    witness = Witness()
    witness.add(SIGNER, Side.SELL, one, b"1" * 64)
    witness.forget(EPOCH + ORDER_RETAIN_EPOCHS)
    assert witness.add(SIGNER, Side.SELL, other, b"2" * 64) is not None
    witness.forget(EPOCH + ORDER_RETAIN_EPOCHS + 1)
    assert witness.add(SIGNER, Side.SELL, other, b"2" * 64) is None


def test_the_memory_is_bounded_and_the_oldest_order_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence_module, "AGREEMENTS_PER_EPOCH_MAX", 2)
    witness = Witness()
    for number in range(3):
        witness.add(SIGNER, Side.SELL, match(sell=bytes([number]) * 32), b"1" * 64)
    found = [witness.add(SIGNER, Side.SELL, match(sell=bytes([number]) * 32, epoch=EPOCH + 1), b"2" * 64) for number in (1, 2)]
    assert all(one is not None for one in found)
    assert witness.add(SIGNER, Side.SELL, match(sell=bytes(32), epoch=EPOCH + 1), b"2" * 64) is None


def test_no_more_than_64_matches_of_one_order_are_kept() -> None:
    witness = Witness()
    for unit in range(65):
        assert witness.add(SIGNER, Side.SELL, match(quantity=1, sell_from=unit), b"1" * 64) is None
    assert witness.add(SIGNER, Side.SELL, match(quantity=1, sell_from=64, buy=b"c" * 32), b"2" * 64) is None  # was not kept
    assert witness.add(SIGNER, Side.SELL, match(quantity=1, sell_from=63, buy=b"c" * 32), b"2" * 64) is not None


# --- the judge of clocks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offsets", "offset_us", "said"),
    [
        ([], 0, "agrees"),
        ([None, 40, None], 40, "agrees"),
        ([30, 10, 20], 20, "agrees"),
        ([10, 20], 20, "agrees"),
        ([1_500_000, 1_700_000, 1_600_000], 1_600_000, "1.6 s behind its"),
        ([-700_000, None, -500_000, -600_000], -600_000, "0.6 s ahead of its"),
        ([0, -700_000, -600_000], -600_000, "0.6 s ahead of its"),
        ([0, 700_000, 600_000], 600_000, "0.6 s behind its"),
        ([700_000, 0], 700_000, "agrees"),
    ],
)
def test_the_offset_is_the_middle_one(offsets: list[int | None], offset_us: int, said: str) -> None:
    verdict = judge(offsets, REGTEST.clock)
    assert (verdict.offset_us, verdict.skewed) == (offset_us, said != "agrees")
    assert said in verdict.sentence
