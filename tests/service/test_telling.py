"""How a node tells how it is: events, figures, the service manager, the log."""

import json
import logging
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from prometheus_client.parser import text_string_to_metric_families

from orderbook.core.events import Admitted, Publish
from orderbook.core.messages import Close, Order, Side, read, seal_close, seal_order
from peer.cli import words
from peer.core.brain import TABLES, Brain
from peer.core.deal import Deal, Phase, Role, Unit, new_unit, unit_key
from peer.core.events import Notice, Tick, Watched
from peer.core.ledger import UNIT_TABLE
from peer.node.feed import Feed
from peer.node.metrics import Metrics
from peer.node.notify import Notifier
from peer.node.propagation import Propagation
from peer.node.views import Views
from tests.service.test_mandates import ARTICLE, KEY, START, brain_with, granted, sold_under_mandates
from wire.account import account_of
from wire.canon import pack
from wire.effects import Save
from wire.errors import Refused
from wire.keys import SecretKey
from wire.limits import API_EVENTS_BEHIND_MAX, API_EVENTS_KEPT
from wire.moments import Instant
from wire.network import REGTEST

OTHER = SecretKey(bytes(range(2, 34))).public


# --- events ---------------------------------------------------------------------------------------------------------------
async def test_listeners_hear_what_happens_from_then_on_in_order() -> None:
    feed = Feed(70)
    feed.publish("peer", what="up")
    first, second = feed.listen(None), feed.listen(None)
    feed.publish("peer", what="down")
    feed.publish("book", epoch=3)
    for listener in (first, second):
        assert await anext(listener) == {"id": 71, "kind": "peer", "what": "down"}
        assert await anext(listener) == {"id": 72, "kind": "book", "epoch": 3}
    await first.aclose()
    assert feed.listeners == 1
    feed.publish("book", epoch=4)
    assert (await anext(second))["epoch"] == 4


async def test_who_comes_back_hears_what_he_missed() -> None:
    feed = Feed(1)
    for number in range(5):
        feed.publish("book", epoch=number)
    late = feed.listen(3)
    feed.publish("book", epoch=5)
    assert [(await anext(late))["epoch"] for _ in range(3)] == [3, 4, 5]
    everything = feed.listen(0)
    assert (await anext(everything))["id"] == 1


async def test_only_the_latest_are_kept() -> None:
    feed = Feed(1)
    for number in range(API_EVENTS_KEPT + 10):
        feed.publish("book", epoch=number)
    assert next(feed.kept())["epoch"] == 10


async def test_who_does_not_keep_up_is_let_go_and_the_others_do_not_notice() -> None:
    feed = Feed(1)
    slow, quick = feed.listen(None), feed.listen(None)
    for number in range(API_EVENTS_BEHIND_MAX + 1):
        feed.publish("book", epoch=number)
        assert (await anext(quick))["epoch"] == number
    assert feed.listeners == 1
    heard = [event["epoch"] async for event in slow]
    assert heard == list(range(API_EVENTS_BEHIND_MAX))
    feed.publish("book", epoch=-1)
    assert (await anext(quick))["epoch"] == -1


async def test_a_listener_waits_for_events() -> None:
    feed = Feed(1)
    listener = feed.listen(None)
    heard: list[Any] = []

    async def listen() -> None:
        heard.append(await anext(listener))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await trio.testing.wait_all_tasks_blocked()
        assert heard == []
        feed.publish("clock", skewed=True)
    assert heard == [{"id": 1, "kind": "clock", "skewed": True}]


# --- units as they are kept -----------------------------------------------------------------------------------------------
def held(brain: Brain, role: Role, number: int, phase: Phase, code: str = "why") -> Save:
    """A unit in the brain's ledger, and the row the journal would keep."""
    import dataclasses

    name = bytes([number]) * 32
    deal = Deal(
        deal=name,
        role=role,
        other=OTHER,
        article=ARTICLE,
        free=False,
        price_msat=1_000 + number,
        quantity=1,
        epoch=1,
        channel=None,
        agreed_us=1,
    )
    unit: Unit = dataclasses.replace(new_unit(name, 0, request=9, now=2, deadline_us=3), phase=phase, code=code)
    ledger = brain.buying.ledger if role is Role.BUYER else brain.selling.ledger
    ledger.put_deal(deal)
    ledger.put_unit(unit)
    return Save(table=UNIT_TABLE, key=unit_key(name, 0), value=pack(unit))


def test_every_change_of_a_unit_is_told_once_it_is_durable() -> None:
    brain, feed = brain_with(), Feed(1)
    views = Views(brain, {}, feed)
    rows = [
        held(brain, Role.BUYER, 1, Phase.WORKING, "working"),
        held(brain, Role.SELLER, 2, Phase.WORK_REJECTED, "draining"),
        Save(table=UNIT_TABLE, key=bytes(34), value=None),
        Save(table="deal", key=bytes(32), value=b"x"),
        Save(table=UNIT_TABLE, key=b"\x07" * 34, value=b"forgotten meanwhile"),
    ]
    assert list(feed.kept()) == []
    views.kept(rows)
    told = [(event["kind"], event["role"], event["phase"], event["code"], event["order"]) for event in feed.kept()]
    assert told == [("trade", "buyer", "working", "working", "9"), ("trade", "seller", "work-rejected", "draining", "9")]
    assert views.ended == {("seller", "work-rejected", "draining"): 1}


# --- figures --------------------------------------------------------------------------------------------------------------
def figures(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    found = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        assert family.documentation, family.name
        for sample in family.samples:
            found[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return found


def test_the_figures_can_be_read_and_are_right() -> None:
    brain, feed = brain_with(), Feed(1)
    views = Views(brain, {}, feed)
    brain.handle(granted(1, price=5, trades=2), START)
    brain.handle(sold_under_mandates(), START)
    views.kept([held(brain, Role.BUYER, 1, Phase.FINISHED), held(brain, Role.BUYER, 2, Phase.RESULT_DISPUTED, "bad-result")])
    views.kept([held(brain, Role.SELLER, 3, Phase.FINISHED), held(brain, Role.SELLER, 4, Phase.TIMED_OUT, "not-paid")])
    views.kept([held(brain, Role.SELLER, 5, Phase.WORKING)])
    propagation = Propagation()
    propagation(Admitted(ages_us=(5_000, 5_001, 99_000_000), slack_us=(0, 900_000, -1, -700_000)))
    propagation(Admitted(ages_us=(), slack_us=(99_000_000,)))
    metrics = Metrics(
        brain,
        views,
        gauges=lambda: {"balance_sat": 7, "draining": False},
        totals=lambda: {"journal_commits": 12},
        counters=lambda: {"late": 3, 'odd "code"\\': 1, "roots-equal": 8, "roots-differ": 1},
        propagation=propagation,
    )
    found = figures(metrics)
    assert found["bitwrk_balance_sat", ()] == 7
    assert found["bitwrk_draining", ()] == 0
    assert found["bitwrk_journal_commits_total", ()] == 12
    assert found["bitwrk_noticed_total", (("code", "late"),)] == 3
    assert found["bitwrk_noticed_total", (("code", 'odd "code"\\'),)] == 1
    assert found["bitwrk_spent_msat_total", ()] == 1_001 + 1_002
    assert found["bitwrk_earned_msat_total", ()] == 1_003
    assert found["bitwrk_mandates", (("side", "buy"),)] == 1
    assert found["bitwrk_mandates", (("side", "sell"),)] == 0
    assert found["bitwrk_orders", (("side", "sell"), ("state", "open"))] == 1
    assert found["bitwrk_trades", (("phase", "working"), ("role", "seller"))] == 1
    assert found["bitwrk_trades", (("phase", "finished"), ("role", "buyer"))] == 1
    assert found["bitwrk_units_total", (("code", "not-paid"), ("phase", "timed-out"), ("role", "seller"))] == 1
    assert found["bitwrk_exposure_sat", ()] == 0
    assert found["bitwrk_roots_compared_total", (("result", "equal"),)] == 8
    assert found["bitwrk_roots_compared_total", (("result", "differ"),)] == 1
    assert found["bitwrk_propagation_seconds_bucket", (("le", "0.005"),)] == 1
    assert found["bitwrk_propagation_seconds_bucket", (("le", "0.01"),)] == 2
    assert found["bitwrk_propagation_seconds_bucket", (("le", "10.0"),)] == 2
    assert found["bitwrk_propagation_seconds_count", ()] == 3
    assert found["bitwrk_propagation_seconds_sum", ()] == pytest.approx(99.010_001)
    assert found["bitwrk_before_freeze_seconds_bucket", (("le", "0.1"),)] == 1
    assert found["bitwrk_before_freeze_seconds_bucket", (("le", "1.0"),)] == 2
    assert found["bitwrk_before_freeze_seconds_count", ()] == 3
    assert found["bitwrk_after_freeze_total", ()] == 2


def test_a_fresh_node_has_figures_too() -> None:
    brain = Brain(key=KEY, network=brain_with().network, instance=None, run=b"", rows={table: {} for table in TABLES})
    metrics = Metrics(brain, Views(brain, {}, Feed(1)), gauges=dict, totals=dict, counters=dict, propagation=Propagation())
    assert figures(metrics)["bitwrk_earned_msat_total", ()] == 0


# --- the service manager --------------------------------------------------------------------------------------------------
@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    name = str(tmp_path / "notify") if request.param == "path" else f"@bitwrk-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name[1:] if name.startswith("@") else name)
        listener.settimeout(10)
        yield name, listener


def test_it_speaks_to_the_managers_socket(manager: tuple[str, socket.socket]) -> None:
    name, listener = manager
    notifier = Notifier({"NOTIFY_SOCKET": name})
    notifier.say("READY=1")
    notifier.status("two\nlines   and\tmore")
    assert listener.recv(100) == b"READY=1"
    assert listener.recv(100) == b"STATUS=two lines and more"


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/nonexistent/notify"}])
def test_without_a_manager_nothing_happens(environment: dict[str, str]) -> None:
    Notifier(environment).say("READY=1")


@pytest.mark.parametrize(
    ("environment", "watchdog_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, None),
        ({"NOTIFY_SOCKET": "/x"}, None),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "30000000"}, 30),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "0"}, None),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "often"}, None),
    ],
)
def test_the_managers_patience(environment: dict[str, str], watchdog_s: float | None) -> None:
    assert Notifier(environment).watchdog_s == watchdog_s


async def test_the_watchdog_is_petted_only_while_the_pump_turns(mock_clock: trio.testing.MockClock) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": "/nonexistent", "WATCHDOG_USEC": "9000000"})
    said: list[str] = []
    notifier.say = lambda *lines: said.extend(lines)  # type: ignore[method-assign]
    turning = trio.Event()
    turning.set()

    async def pulse() -> None:
        await turning.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(notifier.keep_alive, pulse)
        for count in range(1, 4):
            await trio.testing.wait_all_tasks_blocked()
            assert said == ["WATCHDOG=1"] * count
            mock_clock.jump(3)
        await trio.testing.wait_all_tasks_blocked()
        turning = trio.Event()
        for _ in range(5):
            mock_clock.jump(3)
            await trio.testing.wait_all_tasks_blocked()
        assert said == ["WATCHDOG=1"] * 4
        turning.set()
        await trio.testing.wait_all_tasks_blocked()
        assert said == ["WATCHDOG=1"] * 5
        nursery.cancel_scope.cancel()


# --- the log --------------------------------------------------------------------------------------------------------------
def record(level: int = logging.WARNING, message: str = "it is %s", *given: object, error: bool = False) -> logging.LogRecord:
    try:
        raise ValueError("a\nb")
    except ValueError:
        info = sys.exc_info() if error else None
    return logging.LogRecord("bitwrk.node", level, __file__, 1, message, given or ("so",), info)


def test_json_lines_are_one_object_each() -> None:
    text = words.JsonLines().format(record())
    told = json.loads(text)
    assert (told["level"], told["logger"], told["message"]) == ("warning", "bitwrk.node", "it is so")
    assert told["time"].endswith("Z")
    assert "exception" not in told
    text = words.JsonLines().format(record(logging.ERROR, "two\nlines %s", "x", error=True))
    assert "\n" not in text
    assert "ValueError" in json.loads(text)["exception"]


@pytest.mark.parametrize(
    ("level", "number"),
    [(logging.DEBUG, 7), (logging.INFO, 6), (logging.WARNING, 4), (logging.ERROR, 3), (logging.CRITICAL, 2), (60, 2)],
)
def test_lines_for_the_journal_begin_with_their_priority(level: int, number: int) -> None:
    assert words.JournalLines().format(record(level)) == f"<{number}>bitwrk.node: it is so"
    lines = words.JournalLines().format(record(level, error=True)).splitlines()
    assert len(lines) > 2
    assert all(line.startswith(f"<{number}>") for line in lines)


# --- books ----------------------------------------------------------------------------------------------------------------
def test_a_book_is_told_message_by_message_with_the_epoch_it_counts_from() -> None:
    brain = brain_with()
    brain.handle(Watched(article=ARTICLE), START)
    views = Views(brain, {}, Feed(1))
    book = brain.shop.book(ARTICLE, True)
    epoch = REGTEST.clock.epoch(START)
    late = Instant(REGTEST.clock.freeze(epoch) + 1)
    order = Order(
        network="regtest",
        book=book,
        side=Side.SELL,
        price_msat=7,
        quantity=3,
        first_epoch=epoch + 1,
        last_epoch=epoch + 4,
        owner=KEY.public,
        slot=2,
        sequence=9,
        salt=bytes(16),
    )
    raw = seal_order(KEY, REGTEST, order)
    order_id = read(REGTEST, raw).id
    close = seal_close(KEY, REGTEST, Close(network="regtest", book=book, order=order_id, epoch=epoch + 2, owner=KEY.public))
    brain.market.handle(Publish(message=raw), START)
    brain.market.handle(Publish(message=close), late)
    told = views.book_messages(book.hex())
    account = account_of(KEY.public)
    assert told == {
        "book": book.hex(),
        "more": 0,
        "messages": [
            {
                "id": read(REGTEST, close).id.hex(),
                "key_epoch": epoch + 2,
                "known_epoch": epoch + 1,
                "kind": "close",
                "account": account,
                "order": order_id.hex(),
            },
            {
                "id": order_id.hex(),
                "key_epoch": epoch + 1,
                "known_epoch": epoch if REGTEST.clock.freeze(epoch) >= START else epoch + 1,
                "kind": "order",
                "account": account,
                "side": "sell",
                "slot": 2,
                "sequence": 9,
                "price_msat": 7,
                "quantity": 3,
                "last_epoch": epoch + 4,
            },
        ],
    }
    for unknown in ("00" * 32, "", "no hex"):
        with pytest.raises(Refused) as caught:
            views.book_messages(unknown)
        assert caught.value.code == "unknown-book"


def test_a_long_book_is_told_as_far_as_one_answer_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peer.node.views.API_BOOK_MESSAGES_MAX", 1)
    brain = brain_with()
    brain.handle(Watched(article=ARTICLE), START)
    book, epoch = brain.shop.book(ARTICLE, True), REGTEST.clock.epoch(START)
    for number in range(3):
        close = Close(network="regtest", book=book, order=bytes([number]) * 32, epoch=epoch + number % 2, owner=KEY.public)
        brain.market.handle(Publish(message=seal_close(KEY, REGTEST, close)), START)
    told = Views(brain, {}, Feed(1)).book_messages(book.hex())
    assert (len(told["messages"]), told["more"]) == (1, 2)
    assert told["messages"][0]["key_epoch"] == epoch + 1


def test_a_cleared_auction_is_told_with_its_moment() -> None:
    brain = brain_with()
    brain.handle(Watched(article=ARTICLE), START)
    epoch = REGTEST.clock.epoch(START) + 1
    now = Instant(REGTEST.clock.freeze(epoch) + 5)
    brain.handle(Tick(), Instant(REGTEST.clock.start(epoch)))
    notices = [one for one in brain.handle(Tick(), now) if isinstance(one, Notice) and one.kind == "book"]
    assert {(one.facts["epoch"], one.facts["cleared_us"], one.facts["again"], one.facts["refusal"]) for one in notices} == {
        (epoch, now, False, "alone")
    }
    assert len(notices) == 2
