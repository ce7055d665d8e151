"""What the owner has allowed: counts, minutes, both, neither, revoking, restarts, and which mandate is used."""

from typing import Any

import pytest

from orderbook.core.events import Want
from orderbook.core.messages import Side
from peer.core.brain import TABLES, Brain
from peer.core.events import (
    Abandoned,
    BuyAsked,
    MandateGranted,
    MandateRevoked,
    Notice,
    PayWanted,
    Reply,
    SellAsked,
    Tick,
    Watched,
)
from peer.core.mandates import MANDATE_TABLE, Mandate, Mandates
from wire.effects import Save
from wire.keys import SecretKey
from wire.limits import MANDATES_MAX
from wire.moments import SECOND, Instant
from wire.network import REGTEST

KEY = SecretKey(bytes(range(1, 33)))
ARTICLE = "foobar"
START = Instant(1_800_000_000 * SECOND)
MINUTE = 60 * SECOND


def later(minutes: float) -> Instant:
    return Instant(START + int(minutes * MINUTE))


def granted(
    number: int, *, side: Side = Side.BUY, price: int = 100, trades: int | None = None, minutes: int | None = None
) -> Any:
    until = None if minutes is None else later(minutes)
    return MandateGranted(
        request=number, mandate=number, side=side, article=ARTICLE, price_msat=price, trades=trades, until_us=until
    )


class Kept:
    """A journal of one table, as the driver would keep it."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}

    def take(self, effects: tuple[Any, ...]) -> list[Any]:
        for effect in effects:
            if isinstance(effect, Save) and effect.table == MANDATE_TABLE:
                if effect.value is None:
                    self.rows.pop(effect.key, None)
                else:
                    self.rows[effect.key] = effect.value
        return [one for one in effects if not isinstance(one, Save)]


def restarted(mandates: Mandates, kept: Kept | None = None) -> Mandates:
    """The same mandates after a restart; ``kept`` is the journal, if it has lived through one already."""
    kept = kept or Kept()
    kept.take(mandates.drain())
    again = Mandates()
    again.load(kept.rows)
    kept.take(again.drain())
    assert set(kept.rows) == {one.mandate.to_bytes(8, "big") for one in again.all()}
    return again


# limits given, how many trades it is good for within the hour and after 10 minutes
TABLE = [
    # E1 counts
    ({"trades": 1}, 1, 1),
    ({"trades": 3}, 3, 3),
    # E2 minutes
    ({"minutes": 5}, 50, 0),
    ({"minutes": 20}, 50, 50),
    # E3 both
    ({"trades": 3, "minutes": 5}, 3, 0),
    ({"trades": 3, "minutes": 20}, 3, 3),
    # E4 neither is one
    ({}, 1, 1),
]


@pytest.mark.parametrize("after_restart", [False, True])
@pytest.mark.parametrize(("limits", "at_once", "after_ten"), TABLE)
def test_the_limits(limits: dict[str, int], at_once: int, after_ten: int, after_restart: bool) -> None:
    for minutes, good_for in ((0, at_once), (10, after_ten)):
        mandates = Mandates()
        mandates.grant(granted(1, **limits), START)  # type: ignore[arg-type]
        if after_restart:
            mandates = restarted(mandates)  # E6
        now = later(minutes)
        taken = 0
        for request in range(1, 51):
            taken += mandates.take(ARTICLE, request, now) is not None
        assert taken == good_for
        for request in range(1, 51):
            mandates.paid(request)
            mandates.ended(request)
        mandates.expire(now)
        left = mandates.best(Side.BUY, ARTICLE, now)
        assert (left is not None) == (good_for == 50)


def test_revoking() -> None:  # E5
    mandates = Mandates()
    mandates.grant(granted(1, trades=5), START)
    assert mandates.take(ARTICLE, 7, START) is not None
    answer, requests = mandates.revoke(MandateRevoked(request=9, mandate=1))
    assert (answer.code, requests) == ("", [7])
    assert mandates.take(ARTICLE, 8, START) is None
    assert not mandates.renew(7, START)
    assert mandates.revoke(MandateRevoked(request=9, mandate=1))[0].code == "unknown-mandate"
    assert restarted(mandates).all() == []


def test_a_restart_keeps_what_is_left_and_forgets_what_was_under_way() -> None:
    mandates = Mandates()
    mandates.grant(granted(1, trades=2), START)
    mandates.grant(granted(2, trades=1, price=50), START)
    assert mandates.take(ARTICLE, 7, START) is not None
    kept = Kept()
    again = restarted(mandates, kept)
    assert [(one.mandate, one.trades) for one in again.all()] == [(1, 1), (2, 1)]
    assert again.take(ARTICLE, 8, START) is not None
    once_more = restarted(again, kept)
    assert [one.mandate for one in once_more.all()] == [2]


def test_a_request_that_never_paid_gives_its_trade_back() -> None:
    mandates = Mandates()
    mandates.grant(granted(1, trades=1), START)
    assert mandates.take(ARTICLE, 7, START) is not None
    assert mandates.take(ARTICLE, 8, START) is None
    assert mandates.renew(7, START)
    mandates.ended(7)
    assert mandates.take(ARTICLE, 8, START) is not None
    mandates.paid(8)
    mandates.ended(8)
    assert mandates.all() == []
    mandates.ended(8)  # said twice changes nothing


def test_a_request_that_paid_for_nothing_needs_another_trade() -> None:
    mandates = Mandates()
    mandates.grant(granted(1, trades=2), START)
    assert mandates.take(ARTICLE, 7, START) is not None
    mandates.paid(7)
    assert mandates.renew(7, START)
    assert [one.trades for one in mandates.all()] == [0]
    mandates.paid(7)
    assert not mandates.renew(7, START)
    mandates.ended(7)
    assert mandates.all() == []


def test_which_one_is_used() -> None:
    mandates = Mandates()
    for number, price, minutes in ((1, 100, None), (2, 300, 60), (3, 300, 30), (4, 300, None), (5, 300, 30), (6, 200, 5)):
        mandates.grant(granted(number, price=price, minutes=minutes, trades=1), START)
        mandates.grant(granted(number + 10, side=Side.SELL, price=price, minutes=minutes, trades=1), START)
    used = []
    for request in range(6):
        one = mandates.take(ARTICLE, request, START)
        assert one is not None
        used.append(one.mandate)
    assert used == [3, 5, 2, 4, 6, 1]
    sold = []
    while (best := mandates.best(Side.SELL, ARTICLE, START)) is not None:
        sold.append(best.mandate)
        mandates.sold(ARTICLE, best.price_msat, 1, START)
    assert sold == [11, 16, 13, 15, 12, 14]


def test_other_articles_and_sides_are_not_touched() -> None:
    mandates = Mandates()
    mandates.grant(granted(1, side=Side.SELL), START)
    assert mandates.take(ARTICLE, 1, START) is None
    assert mandates.best(Side.SELL, "snafu", START) is None
    mandates.sold("snafu", 100, 1, START)
    mandates.sold(ARTICLE, 99, 1, START)
    assert [one.trades for one in mandates.all()] == [1]


def test_a_match_takes_its_units_off_several_mandates_of_one_price() -> None:
    mandates = Mandates()
    mandates.grant(granted(1, side=Side.SELL, trades=2), START)
    mandates.grant(granted(2, side=Side.SELL, trades=5), START)
    mandates.sold(ARTICLE, 100, 3, START)
    assert [(one.mandate, one.trades) for one in mandates.all()] == [(2, 4)]


def test_there_is_a_bound() -> None:
    mandates = Mandates()
    for number in range(MANDATES_MAX):
        assert isinstance(mandates.grant(granted(number), START)[0], Reply)
    (refusal,) = mandates.grant(granted(MANDATES_MAX), START)
    assert isinstance(refusal, Reply)
    assert refusal.code == "mandates-full"
    assert len(mandates.all()) == MANDATES_MAX


def test_time_ends_it_and_says_which_requests_it_allowed() -> None:
    mandates = Mandates()
    mandates.grant(granted(1, minutes=5), START)
    assert mandates.next_deadline() == later(5)
    assert mandates.take(ARTICLE, 7, later(4.9)) is not None
    assert mandates.take(ARTICLE, 8, later(5)) is None
    assert mandates.expire(later(4.9)) == []
    assert mandates.expire(later(5)) == [7]
    assert mandates.next_deadline() is None


def test_everything_that_happens_is_told() -> None:
    mandates = Mandates()
    told = []
    mandates.grant(granted(1, trades=1), START)
    mandates.take(ARTICLE, 7, START)
    mandates.ended(7)
    mandates.take(ARTICLE, 8, START)
    mandates.paid(8)
    mandates.ended(8)
    for one in mandates.drain():
        if isinstance(one, Notice):
            told.append((one.kind, one.facts["what"], one.facts["trades_left"]))
    assert told == [
        ("mandate", "granted", 1),
        ("mandate", "used", 0),
        ("mandate", "given back", 1),
        ("mandate", "used", 0),
        ("mandate", "used up", 0),
    ]


# --- in the brain ---------------------------------------------------------------------------------------------------------


def brain_with(rows: dict[bytes, bytes] | None = None, *, instance: bytes | None = b"\x01" * 32) -> Brain:
    tables: dict[str, dict[bytes, bytes]] = {table: {} for table in TABLES}
    tables[MANDATE_TABLE] = rows or {}
    return Brain(key=KEY, network=REGTEST, instance=instance, run=b"", rows=tables)


def asked(number: int, *, bid: int | None = None, mandated: bool = True) -> BuyAsked:
    return BuyAsked(
        request=number, article=ARTICLE, work=bytes(32), work_bytes=4, bid_msat=bid, wait_us=90 * SECOND, mandated=mandated
    )


def bids(brain: Brain) -> list[int | None]:
    return [one.bid_msat for one in brain.buying.requests.all()]


def test_a_purchase_without_a_price_bids_the_mandates_and_then_nothing() -> None:
    brain = brain_with()
    brain.handle(granted(1, price=700, trades=1), START)
    effects = brain.handle(asked(2), START)
    assert bids(brain) == [700]
    assert any(isinstance(one, Save) and one.table == MANDATE_TABLE for one in effects), "taken before any order leaves"
    brain.handle(asked(3), START)
    assert bids(brain) == [700, None]
    brain.handle(Abandoned(request=2), START)
    brain.handle(asked(4), START)
    assert bids(brain) == [None, 700]


def test_orders_that_are_not_mandated_and_nodes_without_a_chain_use_none() -> None:
    brain = brain_with()
    brain.handle(granted(1, price=700, trades=1), START)
    brain.handle(asked(2, mandated=False), START)
    assert bids(brain) == [None]
    alone = brain_with(instance=None)
    alone.handle(granted(1, price=700, trades=1), START)
    alone.handle(asked(2), START)
    assert bids(alone) == [None]
    assert [one.trades for one in alone.mandates.all()] == [1]


@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_requests_that_wait_under_an_ended_mandate_are_refused(how: str) -> None:
    brain = brain_with()
    brain.handle(granted(1, price=700, trades=5, minutes=1), START)
    brain.handle(asked(2), START)
    if how == "revoked":
        effects = brain.handle(MandateRevoked(request=9, mandate=1), START)
    else:
        deadline = brain.next_deadline()
        assert deadline is not None
        assert deadline <= later(1)
        effects = brain.handle(Tick(), later(1))
    replies = {one.request: one for one in effects if isinstance(one, Reply)}
    assert replies[2].code == "mandate-ended"
    assert how in replies[2].sentence
    assert bids(brain) == []


def test_a_refusal_at_once_gives_the_trade_back() -> None:
    brain = brain_with()
    brain.handle(granted(1, price=700, trades=1), START)
    late = Instant(START + 91 * SECOND)
    brain.handle(asked(2), START)
    effects = brain.handle(Tick(), late)
    assert [one.code for one in effects if isinstance(one, Reply)] == ["no-match"]
    assert [one.trades for one in brain.mandates.all()] == [1]


def wanted(effects: tuple[Any, ...], brain: Brain) -> dict[tuple[str, int], int]:
    assert all(not isinstance(one, Want) for one in effects), "wants are for the desk"
    return brain.selling.wants()


def sold_under_mandates(worker: str = "w", slots: int = 3) -> SellAsked:
    return SellAsked(order=50, article=ARTICLE, worker=worker, ask_msat=None, slots=slots)


def test_workers_without_a_price_are_sold_at_the_mandates() -> None:
    brain = brain_with()
    assert wanted(brain.handle(sold_under_mandates(), START), brain) == {}
    brain.handle(granted(1, side=Side.SELL, price=900, trades=100), START)
    assert brain.selling.wants() == {(ARTICLE, 900): 6}
    brain.handle(granted(2, side=Side.SELL, price=800, trades=4), START)
    assert brain.selling.wants() == {(ARTICLE, 800): 4}
    brain.handle(MandateRevoked(request=9, mandate=2), START)
    assert brain.selling.wants() == {(ARTICLE, 900): 6}
    brain.handle(SellAsked(order=51, article=ARTICLE, worker="priced", ask_msat=30, slots=1), START)
    assert brain.selling.wants() == {(ARTICLE, 30): 2, (ARTICLE, 900): 6}


def test_several_workers_share_what_a_mandate_has_left() -> None:
    brain = brain_with()
    brain.handle(granted(1, side=Side.SELL, price=900, trades=7), START)
    brain.handle(sold_under_mandates("a"), START)
    brain.handle(sold_under_mandates("b"), START)
    assert brain.selling.wants() == {(ARTICLE, 900): 7}
    assert [units for _, _, units in brain.selling.offers()] == [6, 1]


def test_the_desk_never_stands_for_more_than_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    brain = brain_with()
    brain.handle(granted(1, side=Side.SELL, price=900, trades=2), START)
    brain.handle(sold_under_mandates(), START)
    book = brain.shop.book(ARTICLE, False)
    assert brain.desk.wanted(book, Side.SELL, 900) == 2
    brain.mandates.sold(ARTICLE, 900, 1, START)
    brain.handle(Watched(article=ARTICLE), Instant(START + 1))
    assert brain.desk.wanted(book, Side.SELL, 900) == 1


def test_paying_is_noted_before_the_payment_is_signed() -> None:
    brain = brain_with()
    noted: list[int] = []
    brain.mandates.paid = noted.append  # type: ignore[method-assign, assignment]
    from peer.core.deal import new_unit, unit_key

    unit = new_unit(bytes(32), 0, request=77, now=1, deadline_us=2)
    brain.buying.ledger.units[unit_key(bytes(32), 0)] = unit
    brain.handle(PayWanted(channel=bytes(32), unit=unit_key(bytes(32), 0), lock=bytes(32), amount_msat=1), START)
    assert noted == [77]


def test_mandates_are_in_the_journals_tables() -> None:
    assert MANDATE_TABLE in TABLES
    kept = Kept()
    brain = brain_with()
    kept.take(brain.handle(granted(1, price=700, trades=3), START))
    again = brain_with(kept.rows)
    assert again.mandates.all() == [
        Mandate(mandate=1, side=Side.BUY, article=ARTICLE, price_msat=700, trades=3, until_us=None, granted_us=START)
    ]
