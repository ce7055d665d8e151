"""Every screen, filled by a made-up node: what must be seen at both sizes, and the worst that strangers can say."""

import asyncio
import copy
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.pilot import Pilot

from peer.core.deal import Phase
from tests.tui.driving import board, reached, seen, table, texts, until
from tests.tui.fake import FakeNode, dashboard
from tui.plain import SUBSTITUTE
from tui.screens.activity import placed_row, trade_row
from tui.screens.market import book_row
from tui.screens.money import channel_row
from tui.screens.orders import order_row, order_rows, placed_key
from tui.screens.peers import peer_row
from tui.screens.work import mandate_row, stall_row, worker_row
from tui.widgets.chrome import Banner
from tui.widgets.facts import Facts
from tui.widgets.listing import Row

SIZES = [(80, 24), (160, 48)]
NOW_US = 1_795_227_450_674_833
RAYS = "net.bitwrk/rays/1"
ACCOUNT = "1AtuTQuJc5E8BB11oSPPn8cxveYbN1Y18L"

BOOK = {
    "book": "3c1e",
    "article": RAYS,
    "free": False,
    "epoch": 897_613_725,
    "root": "33608dcbfb8d4585",
    "refusal": "",
    "buy_units": 2,
    "sell_units": 6,
    "buyers": 1,
    "sellers": 3,
    "best_bid_msat": 34_000_000,
    "best_ask_msat": 2_600_000,
    "matched_units": 2,
    "price_msat": 2_850_000,
    "last_msat": 2_850_000,
    "spread_msat": -31_400_000,
    "day_units": 1_234,
    "ready": True,
}
TRADE = {
    "deal": "73fc",
    "unit": 3,
    "role": "buyer",
    "account": ACCOUNT,
    "peer": "16Uiu2HAmPmDLN8eobCv2Tx3wUfSFY7NUEeGrwnkGoitQV5WaVwmi",
    "article": RAYS,
    "free": False,
    "price_msat": 2_850_000,
    "phase": "finished",
    "reason": "the result is here",
    "work": "25",
    "result": "be",
    "channel": "2c",
    "changed_us": NOW_US - 5_000_000,
}
CHANNEL = {
    "channel": "1ef73203c8e37f6f",
    "role": "buyer",
    "phase": "open",
    "account": ACCOUNT,
    "capacity_sat": 148_887,
    "usable_msat": 148_400_000,
    "paid_msat": 37_100_000,
    "revealed_msat": 37_100_000,
    "refund_height": 553,
}
WORKER = {
    "name": "blender-1",
    "kind": "registered",
    "article": RAYS,
    "state": "idle",
    "slots": 1,
    "busy": 0,
    "done": 7,
    "failed": {"timed-out": 2},
}
STALL = {
    "id": "5",
    "side": "sell",
    "article": RAYS,
    "worker": "blender-1",
    "price_msat": 2_600_000,
    "slots": 2,
    "quantity": 4,
    "state": "open",
}
PURCHASE = {
    "id": "6",
    "side": "buy",
    "article": RAYS,
    "price_msat": 34_000_000,
    "quantity": 1,
    "attempts": 3,
    "state": "waiting",
    "reason": "nobody sells",
}
MANDATE = {
    "id": "9",
    "side": "buy",
    "article": RAYS,
    "price_msat": 34_000_000,
    "trades_left": 99,
    "until_us": NOW_US + 600_000_000,
    "in_use": 1,
}
PEER = {
    "peer": "16Uiu2",
    "account": ACCOUNT,
    "addresses": ["/ip4/127.0.0.1/tcp/36821"],
    "direction": "outbound",
    "penalty": 30,
    "remark": "bad order",
    "neighbour": True,
}


def full() -> FakeNode:
    """A node with one line of everything."""
    node = FakeNode()
    lists = {
        "books": [BOOK],
        "trades": [TRADE],
        "channels": [CHANNEL],
        "workers": [WORKER],
        "orders": [PURCHASE, STALL],
        "mandates": [MANDATE],
        "peers": [PEER],
    }
    node.lists |= copy.deepcopy(lists)
    return node


def showing(
    size: tuple[int, int], make: Callable[[], FakeNode], test: Callable[[FakeNode, Pilot[None]], Awaitable[None]]
) -> None:
    """Run ``test`` against a dashboard of a made-up node."""

    async def run() -> None:
        node = make()
        async with dashboard(node).run_test(size=size, notifications=True) as pilot:
            await reached(pilot)
            await test(node, pilot)

    asyncio.run(run())


@pytest.mark.parametrize("size", SIZES)
def test_what_each_screen_shows(size: tuple[int, int]) -> None:
    async def test(node: FakeNode, pilot: Pilot[None]) -> None:
        del node
        wide = ("1 234", "uBTC -314") if size[0] > 80 else ("Last price",)
        everywhere = ("BitWrk", "play money regtest", "mBTC 45.5363")
        for key, words in (
            ("1", (RAYS, "uBTC 340", "uBTC 26", "2/6", "uBTC 28.5", "ready", "buy", "sell", "nobody sells", "on offer", *wide)),
            ("2", ("placed", "finished", "buy", "rays/1", "uBTC 28.5", "1Atu…Y18L", "the result", "bought from")),
            ("3", ("blender-1", "idle", "0/1", "7", "uBTC 26", "4 units on", "uBTC 340", "99", "Trades left")),
            (
                "4",
                ("4 553 630 sat", "play money on regtest", "446 174 sat in escrow", "148 887 sat", "uBTC 371", "open", "bcrt1q"),
            ),
            ("5", (ACCOUNT, "outbound", "✓", "−30", "bad order")),
        ):
            await pilot.press(key, "down")
            await until(pilot, lambda: all(word in seen(pilot) for word in (*everywhere, *words)))  # noqa: B023 - awaited here

    showing(size, full, test)


@pytest.mark.parametrize("size", [(40, 10), (20, 5), (200, 60)])
def test_no_size_breaks_a_screen(size: tuple[int, int]) -> None:
    async def test(node: FakeNode, pilot: Pilot[None]) -> None:
        del node
        for key in "12345":
            await pilot.press(key)
            assert max(len(line) for line in seen(pilot).splitlines()) <= size[0]
        await pilot.press("question_mark")
        await pilot.pause()
        await pilot.press("escape", "3", "m")
        await pilot.pause()

    showing(size, full, test)


def test_real_money_is_never_taken_for_play() -> None:
    def real() -> FakeNode:
        node = full()
        node.lists["status"] |= {"money": "real", "network": "main"}
        return node

    async def test(node: FakeNode, pilot: Pilot[None]) -> None:
        del node
        assert "REAL MONEY main" in seen(pilot)
        await pilot.press("4")
        await pilot.pause()
        assert "REAL MONEY on main" in seen(pilot)
        assert "play money" not in seen(pilot)

    showing(SIZES[0], real, test)


def test_every_phase_is_shown_with_its_reason_and_the_finished_are_greyed() -> None:
    def phases() -> FakeNode:
        node = FakeNode()
        node.lists["trades"] = [
            TRADE | {"phase": phase.value, "unit": number, "reason": f"because {phase.value}"}
            for number, phase in enumerate(Phase)
        ]
        return node

    async def test(node: FakeNode, pilot: Pilot[None]) -> None:
        del node
        await pilot.press("2")
        await pilot.pause()
        found = seen(pilot)
        for phase in Phase:
            assert f" {phase.value} " in found
            assert f"because {phase.value}" in found
        tones = {row.facts[0][1]: row.tone for row in table(pilot, "trades").rows}
        assert tones["because finished"] == "faded"
        assert tones["because working"] == ""
        assert "Activity 7" in found, "how many are under way stands on the tab"

    showing(SIZES[1], phases, test)


def test_purchases_that_wait_alike_stand_in_one_row() -> None:
    def many() -> FakeNode:
        node = full()
        alike = [PURCHASE | {"id": f"{number:x}"} for number in range(16, 45)]
        node.lists["orders"] = [*alike, PURCHASE | {"price_msat": None, "id": "f0"}, PURCHASE | {"state": "working", "id": "f1"}]
        return node

    async def test(node: FakeNode, pilot: Pilot[None]) -> None:
        assert [(cells[0], cells[3]) for cells in texts(pilot, "orders")] == [("buy", "29"), ("buy", "1"), ("buy", "1")]
        await pilot.press("2")
        assert [cells[0] for cells in texts(pilot, "trades")] == ["○ placed ×29", "○ placed", "✓ finished"]
        assert [cells[4] for cells in texts(pilot, "trades")][:2] == ["uBTC 340", "free"]
        await pilot.press("d")
        await until(pilot, lambda: "Cancel these 29 orders?" in seen(pilot))
        node.missing.add("orders/12")
        await pilot.press("enter")
        await until(pilot, lambda: "28 orders cancelled" in seen(pilot))
        assert [path for _, path, _ in node.asked] == [f"orders/{number:x}" for number in range(16, 45)]

    showing(SIZES[0], many, test)


def test_why_a_book_is_not_ready_is_said() -> None:
    def waiting() -> FakeNode:
        node = FakeNode()
        node.lists["books"] = [
            BOOK | {"ready": False, "epoch": None, "refusal": "no auction has taken place yet"},
            BOOK | {"book": "2", "ready": False},
        ]
        return node

    async def test(node: FakeNode, pilot: Pilot[None]) -> None:
        del node
        assert "no auction has taken place yet" in seen(pilot)
        await pilot.press("down")
        await pilot.pause()
        assert ("State", "not yet ready") in board(pilot).pane.query_one(Facts).shown

    showing(SIZES[0], waiting, test)


HOSTILE = (
    "\x1b[2J\x1b]0;owned\x07[red on blink]x[/] [@click=app.quit]y[/] \u202etxt.exe\u2066 \u05d0\u05d1\u05d2 "
    + "z\u0301\u0301\u0301\u0301" * 9
    + "\r\n"
    + "w" * 9_999
)


def test_what_strangers_say_is_only_ever_text() -> None:
    def hostile() -> FakeNode:
        node = full()
        for name, lines in node.lists.items():
            for line in lines if isinstance(lines, list) else [lines]:
                for key, value in line.items():
                    if isinstance(value, str) and key not in ("side", "state", "role", "phase", "money", "kind"):
                        line[key] = HOSTILE
                    elif isinstance(value, list):
                        line[key] = [HOSTILE]
            assert name
        return node

    async def test(node: FakeNode, pilot: Pilot[None]) -> None:
        del node
        for key in "12345":
            await pilot.press(key)
            for listing in board(pilot).pane.listings:
                listing.focus()
                await pilot.pause()
                found = seen(pilot)
                assert len(found.split("\n")) == 24
                assert all(char.isprintable() or char == "\n" for char in found)
                assert not set(found) & {"\u202e", "\u2066", "\u05d0", "\x1b", "\x07"}
                assert SUBSTITUTE in found
        await pilot.press("1", "b")
        await pilot.pause()
        assert not set(seen(pilot)) & {"\u202e", "\u2066", "\u05d0", "\x1b", "\x07"}

    showing(SIZES[0], hostile, test)


LINES = st.dictionaries(
    st.sampled_from(sorted({*BOOK, *TRADE, *CHANNEL, *WORKER, *STALL, *PURCHASE, *MANDATE, *PEER})),
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats()
    | st.text(max_size=5)
    | st.lists(st.integers(), max_size=2)
    | st.dictionaries(st.text(max_size=2), st.text(max_size=2), max_size=2),
    max_size=30,
)


@given(LINES, st.lists(st.none() | st.integers(0, 1 << 50), max_size=5))
def test_no_answer_of_a_node_breaks_a_row(line: dict[str, Any], past: list[int | None]) -> None:
    rows: list[Row] = [
        book_row(line, tuple(past)),
        order_row(line, "key", 3),
        *order_rows([line, line]),
        trade_row(line, NOW_US),
        placed_row(placed_key(line), [line, line]),
        worker_row(line),
        stall_row(line),
        mandate_row(line, NOW_US),
        channel_row(line),
        peer_row(line, NOW_US),
    ]
    for row in rows:
        assert all(isinstance(label, str) and isinstance(text, str) for label, text in row.facts)


def test_changes_appear_and_the_cursor_stays() -> None:
    async def test(node: FakeNode, pilot: Pilot[None]) -> None:
        await pilot.press("2", "down")
        before = table(pilot, "trades").current
        assert before is not None
        node.lists["trades"] = [TRADE | {"deal": "new", "phase": "working"}, *node.lists["trades"]]
        node.happen(kind="trade")
        await until(pilot, lambda: len(table(pilot, "trades").rows) == 3)
        after = table(pilot, "trades").current
        assert after is not None
        assert after.key == before.key
        assert [cells[0] for cells in texts(pilot, "trades")] == ["○ placed", "● working", "✓ finished"]

    showing(SIZES[0], full, test)


def test_a_screen_that_is_not_seen_costs_nothing_and_is_right_when_it_is_seen() -> None:
    async def test(node: FakeNode, pilot: Pilot[None]) -> None:
        node.lists["peers"] = []
        node.happen(kind="peer")
        await until(pilot, lambda: not board(pilot).feed.latest.peers)
        assert table(pilot, "peer-list").rows == ()
        node.lists["peers"] = [PEER, PEER | {"peer": "2", "neighbour": False}]
        node.happen(kind="peer")
        await until(pilot, lambda: len(board(pilot).feed.latest.peers) == 2)
        assert table(pilot, "peer-list").rows == ()
        await pilot.press("5")
        assert len(table(pilot, "peer-list").rows) == 2

    showing(SIZES[0], full, test)


def test_keys_and_clicks_switch_screens_and_tables() -> None:
    async def test(node: FakeNode, pilot: Pilot[None]) -> None:
        del node
        app = board(pilot)
        order = ["market", "activity", "work", "money", "peers"]
        for number, name in enumerate(order, 1):
            await pilot.press(str(number))
            assert name == app.pane.NAME
        await pilot.press("right")
        assert app.pane.NAME == "market"
        await pilot.press("left")
        assert app.pane.NAME == "peers"
        await pilot.press("3")
        met = []
        for _ in range(4):
            met.append(app.pane.chosen.id)
            await pilot.press("tab")
        assert met == ["workers", "stalls", "mandates", "workers"]
        await pilot.press("shift+tab", "shift+tab")
        assert app.pane.chosen.id == "mandates"
        await pilot.click("Tab", offset=(3, 0))
        assert app.pane.NAME == "market"

    showing(SIZES[0], full, test)


def test_help_names_every_key() -> None:
    async def test(node: FakeNode, pilot: Pilot[None]) -> None:
        del node
        keys = set()
        for number in "12345":
            await pilot.press(number)
            keys |= {
                binding.binding.key_display or binding.binding.key
                for binding in pilot.app.screen.active_bindings.values()
                if binding.binding.show
            }
        await pilot.press("question_mark")
        await pilot.pause()
        found = seen(pilot)
        for key in keys:
            assert f" {key} " in found, key
        await pilot.press("q")
        await pilot.pause()
        assert "Anywhere" not in seen(pilot)
        assert pilot.app.is_running

    showing(SIZES[1], full, test)


def test_the_banner_says_what_the_node_says() -> None:
    async def test(node: FakeNode, pilot: Pilot[None]) -> None:
        banner = board(pilot).query_one(Banner)
        assert not banner.display
        node.lists["status"] |= {"notice": "this node has a private development chain"}
        node.happen(kind="node")
        await until(pilot, lambda: banner.display)
        await pilot.pause()
        assert "private development chain" in seen(pilot)
        node.die()
        await until(pilot, lambda: "no node answers" in banner.sentence)
        await pilot.pause()
        found = seen(pilot)
        assert "trying again" in found
        assert RAYS in found, "the last state stays"
        assert board(pilot).screen.has_class("-stale")
        node.live()
        await pilot.press("r")
        await until(pilot, lambda: "private" in banner.sentence)
        assert not board(pilot).screen.has_class("-stale")

    showing(SIZES[0], full, test)


def test_q_leaves() -> None:
    async def test(node: FakeNode, pilot: Pilot[None]) -> None:
        del node
        await pilot.press("q")
        await until(pilot, lambda: not pilot.app.is_running)
        assert pilot.app.return_code == 0

    showing(SIZES[0], full, test)
