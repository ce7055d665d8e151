"""``bitwrk articles``, ``prices`` and ``orders depth``, run in this process against a made-up node."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from orderbook.core.timeslots import SLOTS_S
from peer.cli.app import run
from peer.cli.quoting import Length
from peer.home import Home
from tests.api.node import TOKEN, FakeNode, served
from wire.errors import Refused

PAID, FREE = "b1" * 32, "b0" * 32


@contextmanager
def node_in(folder: Path) -> Iterator[FakeNode]:
    """A node that serves the home ``folder`` from a thread of its own."""
    home = Home.at(folder)
    home._create_private(home.token_path, TOKEN)
    ready = threading.Event()
    made: list[FakeNode] = []
    ends: list[trio.Event] = []
    tokens: list[trio.lowlevel.TrioToken] = []

    async def serve() -> None:
        node = FakeNode()
        end = trio.Event()
        async with served(node) as one:
            with home.announce(one.port):
                made.append(node)
                ends.append(end)
                tokens.append(trio.lowlevel.current_trio_token())
                ready.set()
                await end.wait()

    thread = threading.Thread(target=trio.run, args=(serve,))
    thread.start()
    assert ready.wait(60)
    try:
        yield made[0]
    finally:
        trio.from_thread.run_sync(ends[0].set, trio_token=tokens[0])
        thread.join()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FakeNode, str]]:
    folder = tmp_path_factory.mktemp("quoting") / "home"
    with node_in(folder) as node:
        yield node, str(folder)


def told(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run([*arguments]) == 0
    return capfd.readouterr().out


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in table.splitlines()]


def test_articles_are_a_table_with_prices_or_json(home: tuple[FakeNode, str], capfd: pytest.CaptureFixture[str]) -> None:
    head, paid, free = cells(told(capfd, "articles", "--home", home[1]))
    line = dict(zip(head, paid, strict=True))
    assert (line["article"], line["book"], line["last"], line["units in 24 h"]) == ("foobar", "paid", "uBTC 28.5", "3")
    assert (line["ask"], line["bid"], line["spread"], line["bid/ask units"]) == ("uBTC 26", "-", "-", "0/5")
    assert dict(zip(head, free, strict=True))["book"] == "free"
    whole = json.loads(told(capfd, "articles", "--json", "--home", home[1]))
    assert (whole[0]["last_msat"], whole[0]["book"]) == (2_850_000, PAID)


def test_an_article_is_followed(home: tuple[FakeNode, str], capfd: pytest.CaptureFixture[str]) -> None:
    node, folder = home
    node.books = lambda: [{"article": "new", "free": True, "book": FREE}, {"article": "foobar"}]  # type: ignore[method-assign]
    assert json.loads(told(capfd, "articles", "follow", "new", "--json", "--home", folder)) == [
        {"article": "new", "free": True, "book": FREE}
    ]
    assert node.watched == ["new"]


def test_prices_of_an_article_are_slots_in_universal_time(home: tuple[FakeNode, str], capfd: pytest.CaptureFixture[str]) -> None:
    node, folder = home
    node.asked.clear()
    head, row = cells(told(capfd, "prices", "foobar", "--slot", "1m", "--home", folder))
    line = dict(zip(head, row, strict=True))
    assert (line["from"], line["units"], line["sum"], line["mean"]) == ("2026-11-21 02:17:00", "3", "uBTC 85.5", "uBTC 28.5")
    options = ["--own", "--free", "--from", "2026-01-31", "--to", "2026-01-31T13:00:00.5+01:00", "--limit", "3", "--json"]
    assert json.loads(told(capfd, "prices", "foobar", *options, "--home", folder))["slots"][0]["matches"] == 2
    assert node.asked == [
        ("prices", PAID, "1m", "matched", None, None, 24),
        ("prices", FREE, "1h", "agreed", 1_769_817_600_000_000, 1_769_860_800_500_000, 3),
    ]


def test_depth_shows_everybodys_orders(home: tuple[FakeNode, str], capfd: pytest.CaptureFixture[str]) -> None:
    node, folder = home
    node.asked.clear()
    assert cells(told(capfd, "orders", "depth", "foobar", "--levels", "2", "--home", folder)) == [
        ["side", "price", "units", "orders", "matched"],
        ["sell", "uBTC 26", "5", "2", "1"],
    ]
    assert json.loads(told(capfd, "orders", "depth", "foobar", "--free", "--json", "--home", folder))["book"] == FREE
    assert node.asked == [("depth", PAID, 2), ("depth", FREE, 20)]


def test_an_article_that_is_not_followed_is_one_sentence_with_the_way(
    home: tuple[FakeNode, str], capfd: pytest.CaptureFixture[str]
) -> None:
    for line in (["prices", "other"], ["orders", "depth", "other", "--free"]):
        assert run([*line, "--home", home[1]]) == 1
        said = capfd.readouterr().err
        assert said.count("\n") == 1
        assert "bitwrk articles follow other" in said


def test_a_refusal_of_the_node_is_its_sentence(home: tuple[FakeNode, str], capfd: pytest.CaptureFixture[str]) -> None:
    node, folder = home
    node.refusal = Refused("no-auction", "no auction of this book has taken place yet")
    try:
        assert run(["orders", "depth", "foobar", "--home", folder]) == 1
        assert capfd.readouterr().err == "bitwrk: no auction of this book has taken place yet\n"
    finally:
        node.refusal = None


@pytest.mark.parametrize(
    "arguments",
    [
        ["prices"],
        ["prices", "foobar", "--slot", "2m"],
        ["prices", "foobar", "--limit", "0"],
        ["prices", "foobar", "--from", "yesterday"],
        ["prices", "foobar", "--to", "2026-13-01"],
        ["orders", "depth"],
        ["orders", "depth", "foobar", "--levels", "0"],
        ["articles", "follow"],
    ],
)
def test_what_makes_no_sense_is_2(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    assert "Traceback" not in capfd.readouterr().err


def test_the_command_knows_the_lengths_there_are() -> None:
    assert [one.value for one in Length] == list(SLOTS_S)
