"""The table: rows brought up to date in place, a cursor that stays where it is, columns that adapt."""

import asyncio
from collections.abc import Awaitable, Callable

from textual.app import App, ComposeResult
from textual.geometry import Region
from textual.pilot import Pilot

from tui.widgets.fit import Column
from tui.widgets.listing import Cell, Listing, Row

COLUMNS = (
    Column(title="Name", least=6, most=20, rank=10, spare=True),
    Column(title="Value", least=5, most=8, rank=9, right=True),
    Column(title="Remark", least=10, most=10, rank=1, tail=True),
)


class Spied(Listing):
    """A table that notes which lines it asks to be drawn again."""

    def __init__(self) -> None:
        super().__init__("Things", COLUMNS, "no things", id="things")
        self.drawn: list[Region | None] = []

    def refresh(self, *regions: Region, **how: bool) -> "Spied":
        self.drawn += regions or [None]
        super().refresh(*regions, **how)
        return self


class Bench(App[None]):
    """Nothing but the table."""

    CSS = "Listing { height: 1fr; scrollbar-size: 0 0; }"

    def __init__(self) -> None:
        super().__init__()
        self.moves: list[str] = []

    def compose(self) -> ComposeResult:
        yield Spied()

    def on_listing_moved(self, event: Listing.Moved) -> None:
        current = event.listing.current
        self.moves.append(current.key if current else "")


def rows(*keys: str, **values: str) -> list[Row]:
    return [Row(key=key, cells=(key, values.get(key, "1"), Cell("a long remark", "good"))) for key in keys]


def bench(test: Callable[[Spied, Pilot[None]], Awaitable[None]], size: tuple[int, int] = (40, 6)) -> None:
    async def run() -> None:
        app = Bench()
        async with app.run_test(size=size) as pilot:
            table = app.query_one(Spied)
            table.focus()
            await pilot.pause()
            await test(table, pilot)

    asyncio.run(run())


async def resize(table: Listing, pilot: Pilot[None], width: int, height: int) -> None:
    """Resize the window, and wait until the table has heard of it."""
    await pilot.resize_terminal(width, height)
    async with asyncio.timeout(20):
        while table.size.width != width:
            await pilot.pause()


def shown(table: Listing) -> str:
    return " ".join(table.titles)


def line(table: Listing, y: int) -> str:
    return table.render_line(y).text.rstrip()


def test_an_empty_table_says_so() -> None:
    async def test(table: Spied, pilot: Pilot[None]) -> None:
        assert line(table, 1) == "no things"
        assert table.current is None
        assert table.border_title == "Things"
        await pilot.press("down", "end", "pageup")
        assert table.current is None
        table.show(rows("a"))
        assert line(table, 1).split() == ["a", "1", "…ng", "remark"]
        table.show([])
        assert line(table, 1) == "no things"

    bench(test)


def test_only_lines_that_read_differently_are_drawn_again() -> None:
    async def test(table: Spied, pilot: Pilot[None]) -> None:
        table.show(rows("a", "b", "c"))
        await pilot.pause()
        table.drawn.clear()
        table.show(rows("a", "b", "c"))
        assert table.drawn == []
        table.show(rows("a", "b", "c", b="2"))
        assert [region.y for region in table.drawn if region] == [2]
        assert None not in table.drawn
        assert line(table, 2).split()[:2] == ["b", "2"]

    bench(test)


def test_the_cursor_stays_on_its_row_wherever_that_goes() -> None:
    async def test(table: Spied, pilot: Pilot[None]) -> None:
        table.show(rows("a", "b", "c"))
        await pilot.press("down")
        assert table.current is not None
        assert table.current.key == "b"
        table.show(rows("new", "newer", "a", "b", "c"))
        assert table.current.key == "b"
        assert table.border_title == "Things 4/5"
        table.show(rows("c", "a"))
        assert table.current.key == "a", "the row is gone: the nearest that is left"
        table.show(rows("z"))
        assert table.current.key == "z"

    bench(test)


def test_moves_are_told_and_so_is_news_of_the_chosen_row() -> None:
    async def test(table: Spied, pilot: Pilot[None]) -> None:
        app = pilot.app
        assert isinstance(app, Bench)
        table.show(rows("a", "b"))
        await pilot.pause()
        app.moves.clear()
        await pilot.press("down", "down", "j")
        assert app.moves == ["b"]
        table.show(rows("a", "b", a="2"))
        await pilot.pause()
        assert app.moves == ["b"]
        table.show(rows("a", "b", b="2"))
        await pilot.pause()
        assert app.moves == ["b", "b"]

    bench(test)


def test_the_window_follows_the_cursor_and_the_head_stays() -> None:
    async def test(table: Spied, pilot: Pilot[None]) -> None:
        keys = [f"row{number}" for number in range(20)]
        table.show(rows(*keys))
        await pilot.pause()
        await pilot.press("end")
        assert line(table, 0).split() == ["Name", "Value", "Remark"]
        assert [line(table, y).split()[0] for y in range(1, 6)] == keys[15:]
        await pilot.press("pageup", "pageup")
        assert table.current is not None
        assert table.current.key == "row11"
        assert line(table, 1).split()[0] == "row11"
        await pilot.press("home", "pagedown")
        assert table.current.key == "row4"
        table.show(rows(*keys[:2]))
        await pilot.pause()
        assert [line(table, y).split()[:1] for y in range(1, 4)] == [["row0"], ["row1"], []]

    bench(test)


def test_a_click_chooses() -> None:
    async def test(table: Spied, pilot: Pilot[None]) -> None:
        table.show(rows("a", "b", "c"))
        await pilot.pause()
        await pilot.click(table, offset=(2, 3))
        assert table.current is not None
        assert table.current.key == "c"
        await pilot.click(table, offset=(2, 5))
        await pilot.click(table, offset=(2, 0))
        assert table.current.key == "c"

    bench(test)


def test_columns_go_and_come_with_the_width() -> None:
    async def test(table: Spied, pilot: Pilot[None]) -> None:
        table.show(rows("a"))
        await resize(table, pilot, 20, 6)
        assert shown(table) == "Name Value"
        assert line(table, 1).split() == ["a", "1"]
        await resize(table, pilot, 60, 6)
        assert shown(table) == "Name Value Remark"
        await resize(table, pilot, 3, 2)
        assert shown(table) == "Name"

    bench(test)


def test_every_line_is_exactly_as_wide_as_the_window_whatever_it_holds() -> None:
    async def test(table: Spied, pilot: Pilot[None]) -> None:
        table.show(
            [
                Row(key=str(number), cells=(text, text, text))
                for number, text in enumerate(("漢字" * 20, "e\u0301" * 30, "", "x" * 99))
            ]
        )
        for width in (3, 17, 40):
            await resize(table, pilot, width, 6)
            assert [table.render_line(y).cell_length for y in range(6)] == [width] * 6

    bench(test)


def test_nothing_in_a_cell_is_markup() -> None:
    async def test(table: Spied, pilot: Pilot[None]) -> None:
        del pilot
        table.show([Row(key="a", cells=("[b]x[/b]", "[/]", "[@click=app.quit]"))])
        assert "[b]x[/b]" in line(table, 1)

    bench(test)
