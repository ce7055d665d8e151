"""What all five screens have in common: tables, a closer look at the chosen row, and a way to ask for something to be done."""

import time
from collections.abc import Iterable
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.message import Message

from tui.feed import Snapshot
from tui.widgets.facts import Facts
from tui.widgets.listing import Listing, Row


def now_us() -> int:
    """Microseconds since the Unix epoch."""
    return time.time_ns() // 1_000


class Pane(Container):
    """A screen. Subclasses name themselves, list their tables and turn snapshots into rows."""

    NAME: ClassVar[str]
    TITLE: ClassVar[str]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "turn(1)", "Next table", show=False),
        Binding("shift+tab", "turn(-1)", "Previous table", show=False),
    ]

    class Wanted(Message):
        """The owner asks for something: the name of what is to be done, and the row it is about."""

        def __init__(self, what: str, row: Row | None) -> None:
            super().__init__()
            self.what = what
            self.row = row

    def __init__(self) -> None:
        super().__init__(id=self.NAME)

    def tables(self) -> Iterable[Listing]:
        """The tables from top to bottom; called once."""
        raise NotImplementedError

    def show(self, snapshot: Snapshot, now_us: int) -> None:
        """Show this state."""
        raise NotImplementedError

    def closer(self, listing: Listing, row: Row | None) -> tuple[tuple[str, str], ...]:
        """What a closer look at a row shows."""
        del listing
        return row.facts if row is not None else ()

    def head(self) -> ComposeResult:
        """What stands above the tables; nothing by default."""
        yield from ()

    def compose(self) -> ComposeResult:
        """The head, the tables, and the closer look."""
        yield from self.head()
        with Container(classes="body"):
            with Vertical(classes="tables"):
                yield from self.tables()
            yield Facts(id=f"{self.NAME}-facts")

    @property
    def listings(self) -> list[Listing]:
        """The tables from top to bottom."""
        return list(self.query(Listing))

    @property
    def chosen(self) -> Listing:
        """The table that has the focus, else the first."""
        return next((one for one in self.listings if one.has_focus), self.listings[0])

    def listing(self, name: str) -> Listing:
        """The table called ``name``."""
        return self.query_one(f"#{name}", Listing)

    def enter(self) -> None:
        """The screen was switched to."""
        self.chosen.focus()

    def action_turn(self, by: int) -> None:
        """To the next table, round and round."""
        tables = self.listings
        tables[(tables.index(self.chosen) + by) % len(tables)].focus()

    def action_want(self, what: str) -> None:
        """Ask for something to be done with the chosen row."""
        self.post_message(self.Wanted(what, self.chosen.current))

    @on(Listing.Moved)
    def _look(self, event: Listing.Moved) -> None:
        event.stop()
        if event.listing is self.chosen:
            self.query_one(Facts).show(self.closer(event.listing, event.listing.current))
