"""The judges of the soak, on made-up evidence: they must find what is wrong."""

from typing import Any

import pytest

from orderbook.core.messages import Match, Side
from tests.orderbook.test_messages import match
from tests.orderbook.world import EPOCH, at
from tests.soak.town import Run
from tests.soak.verdict import Miss, Roots, View, double_fills, explain
from wire.network import REGTEST

BUY, SELL = b"b" * 32, b"s" * 32
ALIVE = [Run("a", 0, 0), Run("b", 0, 0)]


def view(node: str, root: str = "r1", *, epoch: int = EPOCH, run: int = 0, refusal: str = "") -> View:
    return View(node=node, run=run, epoch=epoch, book="book", root=root, refusal=refusal, late_ms=1.5)


def judged(views: list[View], runs: list[Run], epoch: int = EPOCH) -> tuple[int, Miss | None]:
    roots = Roots(REGTEST.clock)
    for one in views:
        roots.note(one)
    return roots.judge((epoch, "book"), runs)


def test_equal_roots_are_no_miss_and_others_are() -> None:
    assert judged([view("a"), view("b")], ALIVE) == (2, None)
    count, miss = judged([view("a"), view("b", "r2")], ALIVE)
    assert (count, miss is not None and [one.root for one in miss.views]) == (2, ["r1", "r2"])


def test_what_is_cleared_again_is_not_what_was_published() -> None:
    assert judged([view("a"), view("b"), view("b", "r2")], ALIVE) == (2, None)


def test_a_node_that_lives_and_is_silent_is_a_miss() -> None:
    earlier = [view("a", epoch=EPOCH - 1), view("b", epoch=EPOCH - 1), view("a")]
    count, miss = judged(earlier, ALIVE)
    assert (count, miss is not None and miss.absent) == (2, ["b"])


@pytest.mark.parametrize(("killed_us", "expected"), [(at(ms=1_600), 1), (at(ms=1_601), 2), (at(ms=100), 1)])
def test_one_killed_before_it_could_publish_is_excused(killed_us: int, expected: int) -> None:
    runs = [ALIVE[0], Run("b", 0, 0, killed_us)]
    views = [view("a", epoch=EPOCH - 1), view("b", epoch=EPOCH - 1), view("a")]
    count, miss = judged(views, runs)
    assert (count, miss is not None) == (expected, expected == 2)


def test_a_run_counts_from_its_first_view_that_it_would_trade_on() -> None:
    runs = [*ALIVE, Run("c", 1, 0)]
    early = [view("a"), view("b"), view("c", "empty", run=1, refusal="not-ready")]
    assert judged(early, runs) == (2, None)
    later = [*early, *(view(node, epoch=EPOCH + 1) for node in "ab"), view("c", run=1, epoch=EPOCH + 1)]
    assert judged(later, runs, EPOCH + 1) == (3, None)
    last = [*later, *(view(node, epoch=EPOCH + 2) for node in "ab"), view("c", "r2", run=1, epoch=EPOCH + 2, refusal="not-ready")]
    count, miss = judged(last, runs, EPOCH + 2)
    assert (count, miss is not None) == (3, True)  # once it counts, it counts


def test_nobody_to_compare_with_is_no_auction() -> None:
    assert judged([view("a")], ALIVE) == (1, None)
    assert judged([], ALIVE) == (0, None)


def test_a_miss_is_explained_by_what_was_late_where() -> None:
    def line(name: str, known: int, key: int = EPOCH) -> dict[str, Any]:
        return {"id": name, "kind": "order", "account": "1someone", "key_epoch": key, "known_epoch": known}

    miss = Miss(EPOCH, "book", [view("a"), view("b", "r2")], ["c"])
    books = {
        "a": [
            line("both", EPOCH),
            line("late", EPOCH),
            line("ahead", EPOCH, EPOCH + 1),
            line("old", 0, EPOCH - 60),
            line("one", 1),
        ],
        "b": [line("both", EPOCH), line("late", EPOCH + 1)],
    }
    explain(miss, books, EPOCH + 1)
    assert [one["id"] for one in miss.differing] == ["late", "one"]
    assert miss.differing[0]["known_epoch"] == {"a": EPOCH, "b": EPOCH + 1}
    assert miss.differing[1]["known_epoch"] == {"a": 1, "b": None}
    assert "no view of c" in miss.explanation
    assert any("late at b from never" in one for one in miss.explanation)


def signed(*matches: Match) -> list[tuple[Match, Side]]:
    return [(one, side) for one in matches for side in Side]


def test_units_sold_once_are_no_fault() -> None:
    parts = [match(quantity=2), match(quantity=3, sell=b"t" * 32, buy_from=2), match(quantity=1, buy=b"c" * 32, sell_from=2)]
    assert double_fills(signed(*parts, *parts), {BUY.hex(): 5, SELL.hex(): 3}) == []


@pytest.mark.parametrize(
    ("matches", "quantities", "said"),
    [
        ([match(quantity=1), match(quantity=1, epoch=EPOCH + 1, sell=b"t" * 32, buy_from=1)], {}, "was signed away in epochs"),
        ([match(quantity=3), match(quantity=3, sell=b"t" * 32, buy_from=2)], {}, "overlap"),
        ([match(quantity=3), match(quantity=3, sell=b"t" * 32)], {}, "2 counterparties"),
        ([match(quantity=3)], {SELL.hex(): 2}, "of 2 units was filled with 3"),
    ],
)
def test_every_kind_of_double_fill_is_found(matches: list[Match], quantities: dict[str, int], said: str) -> None:
    assert any(said in fault for fault in double_fills(signed(*matches), quantities))
