"""The dashboard against real node processes, driven by its keys."""

import asyncio
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from peer.demo.cluster import Node
from peer.workers.rays.demo import demo_scene
from peer.workers.rays.tiles import cut
from tests.tui.driving import board, reached, seen, table, texts, until
from tests.tui.stage import Stage, open_stage
from tui.app import Dashboard
from tui.widgets.chrome import Banner
from tui.widgets.form import Form

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
RAYS = "net.bitwrk/rays/1"
SMALL, LARGE = (80, 24), (160, 48)


@dataclass(frozen=True)
class Street:
    """A seller, and the node whose dashboard it is."""

    stage: Stage
    seller: Node
    own: Node


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Street]:
    """Two nodes with a chain between them; the own one has coins, and sells too, dearly."""
    with open_stage(tmp_path_factory.mktemp("street")) as stage:
        stage.chain()
        seller = stage.node("seller", "sell", "--worker", "rays", "--ask", "uBTC 26")
        own = stage.node("own", "sell", "--worker", "echo", "--ask", "uBTC 45", bootstrap=seller)
        stage.rich(own, 5_000_000)
        yield Street(stage, seller, own)


def drive(node: Node, test: Callable[[Pilot[None]], Awaitable[None]], size: tuple[int, int] = SMALL) -> None:
    """Run ``test`` with the dashboard of ``node``."""

    async def run() -> None:
        async with Dashboard.at(node.home).run_test(size=size, notifications=True) as pilot:
            await reached(pilot)
            await test(pilot)

    asyncio.run(run())


async def fill(pilot: Pilot[None], **values: str) -> None:
    """Put texts into the fields of the form that is opening."""
    await until(pilot, lambda: isinstance(pilot.app.screen, Form))
    for name, value in values.items():
        pilot.app.screen.query_one(f"#field-{name}", Input).value = value


async def send(pilot: Pilot[None]) -> None:
    """Send the form, and wait until the node has taken it."""
    await until(pilot, lambda: isinstance(pilot.app.screen, Form))
    form = pilot.app.screen
    assert isinstance(form, Form)
    await pilot.press("ctrl+s")
    await until(pilot, lambda: not isinstance(pilot.app.screen, Form) or form.refusal not in ("", "…"))
    assert not isinstance(pilot.app.screen, Form), form.refusal


def row(pilot: Pilot[None], name: str, *words: str) -> tuple[str, ...] | None:
    """The first row of a table that holds all these words."""
    return next((cells for cells in texts(pilot, name) if all(word in " ".join(cells) for word in words)), None)


async def choose(pilot: Pilot[None], name: str, word: str) -> None:
    """Move the cursor of a table onto the row whose key or first cells hold ``word``."""
    listing = table(pilot, name)
    listing.focus()
    await pilot.press("home")
    for _ in listing.rows:
        current = listing.current
        assert current is not None
        if word in current.key or word in " ".join(str(cell) for cell in current.cells):
            return
        await pilot.press("down")
    raise AssertionError(f"{word} is not in {name}")


def test_the_market_a_purchase_from_a_file_and_its_result(street: Street, tmp_path: Path) -> None:
    (work,) = cut(demo_scene(width=60, height=40, samples=1, bounces=2), 1, 1)
    (tmp_path / "work").write_bytes(work)

    async def test(pilot: Pilot[None]) -> None:
        await pilot.press("f")
        await fill(pilot, article=RAYS)
        await send(pilot)
        await until(pilot, lambda: row(pilot, "books", RAYS, "paid", "uBTC 26", "ready"))
        await choose(pilot, "books", RAYS)
        await pilot.press("b")
        await fill(pilot, file=str(tmp_path / "work"), price="uBTC 340", wait="60")
        await send(pilot)
        await pilot.press("2")
        await until(pilot, lambda: row(pilot, "trades", "finished", "buy", RAYS, "the result is here"))
        bought = row(pilot, "trades", "finished")
        assert bought is not None
        assert street.seller.account[:4] in bought[5]
        await choose(pilot, "trades", "finished")
        await pilot.pause()
        assert street.seller.account in seen(pilot), "the closer look has the account whole"
        await pilot.press("o")
        await fill(pilot, file=str(tmp_path / "result"))
        await send(pilot)
        await pilot.press("4")
        await until(pilot, lambda: row(pilot, "channels", "open", "buy"))
        await pilot.pause()
        found = seen(pilot)
        assert "play money on regtest" in found
        assert "sat in escrow" in found
        await pilot.press("1")
        await until(pilot, lambda: row(pilot, "orders", "done", "the result is here"))

    drive(street.own, test)
    result = street.stage.read(street.own, "trades")[0]["result"]
    assert street.stage.ask(street.own, "GET", f"/file/{result}").content == (tmp_path / "result").read_bytes()


def test_an_order_that_nobody_fills_is_cancelled(street: Street, tmp_path: Path) -> None:
    (tmp_path / "work").write_bytes(b"nobody does this")

    async def test(pilot: Pilot[None]) -> None:
        await pilot.press("b")
        await fill(pilot, article="net.example/nobody", file=str(tmp_path / "work"), price="uBTC 7")
        await send(pilot)
        await until(pilot, lambda: row(pilot, "orders", "net.example/nobody", "waiting"))
        await pilot.press("2")
        await until(pilot, lambda: row(pilot, "trades", "placed", "net.example/nobody", "uBTC 7"))
        await choose(pilot, "trades", "net.example/nobody")
        await pilot.press("d")
        await send(pilot)
        await until(pilot, lambda: not row(pilot, "trades", "net.example/nobody"))

    drive(street.own, test)
    orders = street.stage.read(street.own, "orders")
    assert [one["state"] for one in orders if one["article"] == "net.example/nobody"] == ["cancelled"]


def test_a_worker_is_registered_sold_withdrawn_and_unregistered(street: Street) -> None:
    async def test(pilot: Pilot[None]) -> None:
        await pilot.press("3")
        assert row(pilot, "workers", "echo", "idle")
        assert row(pilot, "stalls", "uBTC 45")
        await pilot.press("w")
        await fill(pilot, id="mine", article="net.example/mine", pushurl="http://example.com/")
        await pilot.press("ctrl+s")
        form = pilot.app.screen
        assert isinstance(form, Form)
        await until(pilot, lambda: "address" in form.refusal)
        await fill(pilot, pushurl="http://127.0.0.1:9/work")
        await send(pilot)
        await until(pilot, lambda: row(pilot, "workers", "mine", "net.example/mine", "idle"))
        await until(pilot, lambda: row(pilot, "stalls", "mine", "no mandate"))
        await choose(pilot, "workers", "mine")
        await pilot.press("s")
        await fill(pilot, price="uBTC 12")
        await send(pilot)
        await until(pilot, lambda: row(pilot, "stalls", "mine", "uBTC 12", "on offer"))
        await choose(pilot, "stalls", "mine")
        await pilot.press("d")
        await send(pilot)
        await until(pilot, lambda: not row(pilot, "stalls", "mine", "on offer"))
        await choose(pilot, "workers", "mine")
        await pilot.press("d")
        await send(pilot)
        await until(pilot, lambda: not row(pilot, "workers", "mine"))

    drive(street.own, test, LARGE)
    assert [one["name"] for one in street.stage.read(street.own, "workers") if one["name"] == "mine"] == []


def test_a_mandate_is_granted_and_revoked(street: Street) -> None:
    async def test(pilot: Pilot[None]) -> None:
        await pilot.press("3", "m")
        await fill(pilot, article="net.example/allowed", price="34 euro", trades="5", minutes="10")
        await pilot.press("ctrl+s")
        form = pilot.app.screen
        assert isinstance(form, Form)
        await until(pilot, lambda: "is not an amount" in form.refusal)
        await fill(pilot, price="uBTC 34")
        await send(pilot)
        await until(pilot, lambda: row(pilot, "mandates", "buy", "net.example/allowed", "uBTC 34", "5", "9m"))
        await choose(pilot, "mandates", "net.example/allowed")
        await pilot.press("d")
        await send(pilot)
        await until(pilot, lambda: not row(pilot, "mandates", "net.example/allowed"))

    drive(street.own, test)
    assert street.stage.read(street.own, "mandates") == []


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_every_screen_shows_the_node_at_both_sizes(street: Street, size: tuple[int, int]) -> None:
    async def test(pilot: Pilot[None]) -> None:
        for key, words in (
            ("1", ("Books", "Own orders", "foobar", "Last price")),
            ("2", ("Trades", "Phase", "Reason")),
            ("3", ("Workers", "Stalls", "Mandates", "echo", "uBTC 45")),
            ("4", ("Balance", "play money on regtest", "Exposure", street.own.account)),
            ("5", (street.seller.account, "outbound", "✓", "good")),
        ):
            await pilot.press(key)
            await until(pilot, lambda words=words: all(word in seen(pilot) for word in words))  # type: ignore[misc]
            assert "play money regtest" in seen(pilot)
        await pilot.press("question_mark")
        await pilot.pause()
        assert "the screen before, the screen after" in seen(pilot)

    drive(street.own, test, size)


def test_channels_are_closed_from_the_keyboard(street: Street) -> None:
    street.stage.until(street.own, "channels", lambda channels: any(one["phase"] == "open" for one in channels))

    async def test(pilot: Pilot[None]) -> None:
        await pilot.press("4", "x")
        await send(pilot)
        await until(pilot, lambda: row(pilot, "channels", "settled", "to seller"))
        assert not row(pilot, "channels", "open")

    drive(street.own, test, LARGE)


def test_a_screen_is_drawn_into_a_file(street: Street, tmp_path: Path) -> None:
    target = tmp_path / "screen.svg"
    line = ["tui", "--home", str(street.own.home), "--screen", "activity", "--picture", str(target), "--size", "100x30"]
    done = subprocess.run([sys.executable, "-m", "peer.cli", *line], capture_output=True, check=False, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr
    drawn = target.read_text()
    assert drawn.startswith("<svg")
    assert "finished" in drawn
    assert "rays/1" in drawn


def test_on_a_real_terminal(street: Street) -> None:
    master, slave = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "peer.cli", "tui", "--home", str(street.own.home)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=ROOT,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"},
        )
        written = bytearray()
        deadline = time.monotonic() + 40
        try:
            while process.poll() is None:
                assert time.monotonic() < deadline, re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b" ", bytes(written))[-2_000:]
                if select.select([master], [], [], 0.2)[0]:
                    written += os.read(master, 65_536)
                if b"play money" in written:
                    os.write(master, b"q")
            assert process.returncode == 0
        finally:
            process.kill()
            process.wait()
        assert b"\x1b[?1049h" in written, "the alternate screen is entered"
        assert b"\x1b[?1049l" in written or select.select([master], [], [], 1)[0], "and left"
    finally:
        os.close(master)
        os.close(slave)


def test_a_killed_node_is_told_and_found_again_when_it_is_back(street: Street) -> None:
    async def test(pilot: Pilot[None]) -> None:
        banner = board(pilot).query_one(Banner)
        await pilot.press("4")
        await pilot.pause()
        assert not banner.display
        before = street.own.reach()[0]
        street.own.program.kill()
        await until(pilot, lambda: banner.display)
        await until(pilot, lambda: "no node" in banner.sentence)
        await pilot.pause()
        found = seen(pilot)
        assert "trying again" in found
        assert street.own.account in found, "the last state stays"
        await asyncio.to_thread(street.stage.start, street.own)
        await until(pilot, lambda: board(pilot).feed.latest.connected)
        await until(pilot, lambda: not banner.display)
        assert street.own.reach()[0] != before, "the node came back on another port"
        await pilot.press("5")
        await until(pilot, lambda: row(pilot, "peer-list", street.seller.account))

    drive(street.own, test)
