"""The forms: what each asks the node for, and what happens when the node refuses, is slow, or is gone."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from textual.pilot import Pilot
from textual.widgets import Input

from tests.tui.driving import board, reached, seen, table, until
from tests.tui.fake import FakeNode, dashboard, work_file
from tests.tui.test_screens import RAYS, TRADE, full
from tui.widgets.form import Form


def form(pilot: Pilot[None]) -> Form:
    screen = pilot.app.screen
    assert isinstance(screen, Form)
    return screen


async def opened(pilot: Pilot[None]) -> None:
    """Wait until a form is there."""
    await until(pilot, lambda: isinstance(pilot.app.screen, Form))


async def fill(pilot: Pilot[None], **values: str) -> None:
    """Put texts into fields, as pasting would."""
    await opened(pilot)
    for name, value in values.items():
        form(pilot).query_one(f"#field-{name}", Input).value = value
    await pilot.pause()


def run(test: Callable[[FakeNode, Pilot[None]], Awaitable[None]], first: str = "market") -> None:
    async def inside() -> None:
        node = full()
        node.lists["trades"].append(TRADE | {"unit": 4, "phase": "working", "result": None})
        async with dashboard(node, first).run_test(size=(80, 24), notifications=True) as pilot:
            await reached(pilot)
            await test(node, pilot)

    asyncio.run(inside())


async def sent(pilot: Pilot[None]) -> None:
    """Wait until the form has gone."""
    await until(pilot, lambda: not isinstance(pilot.app.screen, Form))


Step = Callable[[Pilot[None], Path], Awaitable[None]]


async def _buy(pilot: Pilot[None], folder: Path) -> None:
    await pilot.press("1", "b")
    await fill(pilot, file=work_file(folder), price="uBTC 340", wait="30")


async def _buy_free(pilot: Pilot[None], folder: Path) -> None:
    await pilot.press("2", "b")
    await fill(pilot, article="foobar", file=work_file(folder), price="", wait="")


async def _sell(pilot: Pilot[None], folder: Path) -> None:
    del folder
    await pilot.press("3", "s")
    await fill(pilot, price="uBTC 26", slots="2")


async def _mandate(pilot: Pilot[None], folder: Path) -> None:
    del folder
    await pilot.press("3", "m", "shift+tab", "right")
    await fill(pilot, price="uBTC 26", trades="7", minutes="")


async def _worker(pilot: Pilot[None], folder: Path) -> None:
    del folder
    await pilot.press("3", "w")
    await fill(pilot, id="mine", article=RAYS, pushurl="http://127.0.0.1:9/")


async def _follow(pilot: Pilot[None], folder: Path) -> None:
    del folder
    await pilot.press("1", "f")
    await fill(pilot, article="foobar")


async def _cancel_here(pilot: Pilot[None], folder: Path) -> None:
    del folder
    await pilot.press("1")
    table(pilot, "orders").focus()
    await pilot.press("d")


async def _cancel_there(pilot: Pilot[None], folder: Path) -> None:
    del folder
    await pilot.press("2", "delete")


async def _close_stall(pilot: Pilot[None], folder: Path) -> None:
    del folder
    await pilot.press("3")
    table(pilot, "stalls").focus()
    await pilot.press("d")


async def _revoke(pilot: Pilot[None], folder: Path) -> None:
    del folder
    await pilot.press("3")
    table(pilot, "mandates").focus()
    await pilot.press("d")


async def _unregister(pilot: Pilot[None], folder: Path) -> None:
    del folder
    await pilot.press("3")
    table(pilot, "workers").focus()
    await pilot.press("d")


async def _close(pilot: Pilot[None], folder: Path) -> None:
    del folder
    await pilot.press("4", "x")


ASKED: list[tuple[Step, list[tuple[str, str, Any]]]] = [
    (
        _buy,
        [
            ("POST", "files", b"work"),
            ("POST", "orders", {"side": "buy", "article": RAYS, "price": "uBTC 340", "work": "a1", "wait": 30.0}),
        ],
    ),
    (_buy_free, [("POST", "files", b"work"), ("POST", "orders", {"side": "buy", "article": "foobar", "work": "a1"})]),
    (_sell, [("POST", "orders", {"side": "sell", "article": RAYS, "worker": "blender-1", "price": "uBTC 26", "slots": 2})]),
    (_mandate, [("POST", "mandates", {"side": "sell", "article": RAYS, "price": "uBTC 26", "trades": 7, "minutes": None})]),
    (_worker, [("POST", "workers", {"id": "mine", "article": RAYS, "pushurl": "http://127.0.0.1:9/"})]),
    (_follow, [("POST", "books", {"article": "foobar"})]),
    (_cancel_here, [("DELETE", "orders/6", {})]),
    (_cancel_there, [("DELETE", "orders/6", {})]),
    (_close_stall, [("DELETE", "orders/5", {})]),
    (_revoke, [("DELETE", "mandates/9", {})]),
    (_unregister, [("DELETE", "workers/blender-1", {})]),
    (_close, [("POST", "channels/close", {"reason": "asked by the owner"})]),
]


def test_each_form_asks_the_node_shows_its_refusal_and_loses_nothing_entered(tmp_path: Path) -> None:
    async def test(node: FakeNode, pilot: Pilot[None]) -> None:
        for step, asked in ASKED:
            await step(pilot, tmp_path)
            await opened(pilot)
            assert node.asked == [], step.__name__
            entered = form(pilot).values
            path = asked[-1][1].partition("/")[0]
            node.refusals[path] = (409, "no-good", "not [b]today[/b]\x1b[2J, please")
            form(pilot).action_send()
            await until(pilot, lambda: form(pilot).refusal not in ("", "…"))
            assert form(pilot).refusal == "not [b]today[/b]\N{REPLACEMENT CHARACTER}[2J, please", step.__name__
            assert "not [b]today[/b]" in seen(pilot)
            assert form(pilot).values == entered
            assert node.asked == asked, step.__name__
            node.refusals.clear()
            node.asked.clear()
            node.reads.clear()
            form(pilot).action_send()
            await sent(pilot)
            assert node.asked == asked, step.__name__
            await until(pilot, lambda: "orders" in node.reads)  # what came of it is read at once
            node.asked.clear()

    run(test)


def test_escape_asks_for_nothing(tmp_path: Path) -> None:
    async def test(node: FakeNode, pilot: Pilot[None]) -> None:
        for step in (_buy, _close):
            await step(pilot, tmp_path)
            await opened(pilot)
            await pilot.press("escape")
            await sent(pilot)
        assert node.asked == []

    run(test)


def test_what_cannot_even_be_sent_is_said() -> None:
    cases: list[tuple[tuple[str, ...], list[tuple[dict[str, str], str]]]] = [
        (
            ("1", "b"),
            [
                ({"file": "/nowhere/at/all"}, "cannot be read: no such file"),
                ({"file": "/"}, "cannot be read: is a directory"),
                ({"file": ""}, "name the file"),
                ({"file": "x", "wait": "soon"}, "Wait: 'soon' is not a number"),
            ],
        ),
        (("3", "s"), [({"slots": "many"}, "Slots: 'many' is not a whole number")]),
        (
            ("3", "m"),
            [
                ({"trades": "-1"}, "Trades: '-1' is not a whole number"),
                ({"trades": "", "minutes": "1.5"}, "Minutes: '1.5' is not a whole number"),
                ({"minutes": "9" * 30}, "is not a whole number"),
            ],
        ),
        (
            ("2", "down", "o"),
            [({"file": ""}, "name the file"), ({"file": "/nowhere/at/all"}, "cannot be written: no such file")],
        ),
    ]

    async def test(node: FakeNode, pilot: Pilot[None]) -> None:
        for keys, wrongs in cases:
            await pilot.press(*keys)
            for values, words in wrongs:
                await fill(pilot, **values)
                form(pilot).action_send()
                await until(pilot, lambda words=words: words in form(pilot).refusal)  # type: ignore[misc]
            await pilot.press("escape")
        assert node.asked == []

    run(test)


def test_what_makes_no_sense_for_the_chosen_row_is_said() -> None:
    cases = (
        (("1", "d"), "choose an open order"),
        (("2", "o"), "choose a finished purchase"),
        (("down", "d"), "choose an open order"),
        (("down", "o"), "choose a finished purchase"),
    )

    async def test(node: FakeNode, pilot: Pilot[None]) -> None:
        for keys, words in cases:
            await pilot.press(*keys)
            await until(pilot, lambda words=words: words in seen(pilot))  # type: ignore[misc]
            assert not isinstance(pilot.app.screen, Form)
            pilot.app.clear_notifications()
        assert node.asked == []

    run(test)


def test_a_result_is_saved_and_nothing_is_overwritten(tmp_path: Path) -> None:
    async def test(node: FakeNode, pilot: Pilot[None]) -> None:
        await pilot.press("2", "down", "o")
        await fill(pilot, file=str(tmp_path / "result"))
        await pilot.press("enter")
        await until(pilot, lambda: "no such file here" in form(pilot).refusal)
        assert not (tmp_path / "result").exists(), "half a result is not left behind"
        node.files["be"] = b"the result" * 100_000
        await pilot.press("enter")
        await sent(pilot)
        assert (tmp_path / "result").read_bytes() == node.files["be"]
        node.files["be"] = b"another"
        await pilot.press("o", "enter")
        await until(pilot, lambda: "file exists" in form(pilot).refusal)
        assert len((tmp_path / "result").read_bytes()) == 1_000_000

    run(test)


def test_a_slow_node_is_asked_once() -> None:
    async def test(node: FakeNode, pilot: Pilot[None]) -> None:
        await pilot.press("1", "f")
        await fill(pilot, article="foobar")
        node.slow.clear()
        await pilot.press("enter", "enter", "ctrl+s")
        await until(pilot, lambda: node.asked)
        assert form(pilot).refusal == "…"
        node.slow.set()
        await sent(pilot)
        assert len(node.asked) == 1

    run(test)


def test_a_form_left_while_it_waits_changes_nothing_on_the_screen() -> None:
    async def test(node: FakeNode, pilot: Pilot[None]) -> None:
        await pilot.press("1", "f")
        await fill(pilot, article="foobar")
        node.slow.clear()
        await pilot.press("enter")
        await until(pilot, lambda: node.asked)
        await pilot.press("escape")
        await sent(pilot)
        node.slow.set()
        await until(pilot, lambda: not pilot.app.workers._workers - {one for one in pilot.app.workers if one.name == "feed"})
        assert board(pilot).pane.NAME == "market"

    run(test)


def test_a_form_without_a_node_says_so() -> None:
    async def test(node: FakeNode, pilot: Pilot[None]) -> None:
        node.die()
        await until(pilot, lambda: not board(pilot).feed.latest.connected)
        await pilot.press("1", "f")
        await fill(pilot, article="foobar")
        await pilot.press("enter")
        await until(pilot, lambda: form(pilot).refusal not in ("", "…"))
        assert "the node" in form(pilot).refusal or "no node" in form(pilot).refusal

    run(test)


def test_what_was_sent_last_is_offered_again() -> None:
    async def test(node: FakeNode, pilot: Pilot[None]) -> None:
        del node
        await pilot.press("3", "m")
        await fill(pilot, price="uBTC 77", trades="5", minutes="9")
        await pilot.press("enter")
        await sent(pilot)
        await pilot.press("m")
        await pilot.pause()
        assert form(pilot).values == {"side": "buy", "article": RAYS, "price": "uBTC 77", "trades": "5", "minutes": "9"}

    run(test)


def test_forms_are_filled_by_keys_alone_and_by_the_mouse() -> None:
    async def test(node: FakeNode, pilot: Pilot[None]) -> None:
        await pilot.press("1", "f", *"foobar", "tab", "enter")
        await sent(pilot)
        await pilot.press("f", *"other")
        await pilot.click("#send")
        await sent(pilot)
        await pilot.press("f", *"third")
        await pilot.click("#cancel")
        await sent(pilot)
        await pilot.press("3", "m")
        await pilot.click("#field-side")
        assert form(pilot).values["side"] == "sell"
        await pilot.press("down", *"x")
        assert form(pilot).values["article"] == "x"
        await pilot.press("up", "left")
        assert form(pilot).values["side"] == "buy"
        assert [body["article"] for _, _, body in node.asked] == ["foobar", "other"]

    run(test)


def test_a_screen_behind_a_form_goes_on() -> None:
    async def test(node: FakeNode, pilot: Pilot[None]) -> None:
        await pilot.press("3", "m")
        node.lists["status"] |= {"balance_sat": 1_000}
        node.happen(kind="channel")
        await until(pilot, lambda: "uBTC 10 " in seen(pilot).splitlines()[0])
        assert isinstance(pilot.app.screen, Form)

    run(test)
