"""A table whose rows are brought up to date in place.

Rows have keys. When new rows come, the cursor stays on the key it was on, the window stays where it was scrolled to, and
only lines that read differently are drawn again. Columns adapt to the width (``tui.widgets.fit``) and never grow narrower while
the window keeps its size, so nothing jumps. The contents are plain text; nothing in them is read as markup.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tui.widgets.fit import GAP_CELLS, Column, Place, fit

_GAP: Final = " " * GAP_CELLS
_HEAD_LINES: Final = 1


@dataclass(frozen=True, slots=True)
class Cell:
    """Text with a tone of its own: faded, good, busy, bad, or the row's when empty."""

    text: str
    tone: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line. ``facts`` are what a closer look shows: label and text; ``article`` is what a form about it begins with."""

    key: str
    cells: tuple[str | Cell, ...]
    tone: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    article: str = ""


def _text(cell: str | Cell) -> str:
    return cell.text if isinstance(cell, Cell) else cell


def _cut(text: str, width: int, right: bool = False, tail: bool = False) -> str:
    """``text`` in exactly ``width`` cells; what is lost is marked."""
    length = cell_len(text)
    if length > width:
        if width <= 0:
            return ""
        if tail:
            return "…" + set_cell_size(text[::-1], width - 1)[::-1]
        return set_cell_size(text, width - 1) + "…"
    return " " * (width - length) + text if right else text + " " * (width - length)


class Listing(ScrollView, can_focus=True):
    """See the module. ``none`` is what an empty table says."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "listing--head",
        "listing--cursor",
        "listing--faded",
        "listing--good",
        "listing--busy",
        "listing--bad",
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home,g", "edge(-1)", "First", show=False),
        Binding("end,G", "edge(1)", "Last", show=False),
    ]

    class Moved(Message):
        """The cursor stands on another row, or its row reads differently."""

        def __init__(self, listing: "Listing") -> None:
            super().__init__()
            self.listing = listing

        @property
        def control(self) -> "Listing":
            """The table it happened in."""
            return self.listing

    def __init__(self, title: str, columns: Sequence[Column], none: str, *, id: str) -> None:
        super().__init__(id=id)
        self._title = title
        self._columns = tuple(columns)
        self._none = none
        self._rows: tuple[Row, ...] = ()
        self._index = 0
        self._wanted = [0] * len(self._columns)
        self._places: tuple[Place, ...] = ()

    # --- what it holds ------------------------------------------------------------------------------------------------
    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows as they were shown last."""
        return self._rows

    @property
    def current(self) -> Row | None:
        """The row under the cursor."""
        return self._rows[self._index] if self._rows else None

    @property
    def titles(self) -> tuple[str, ...]:
        """The titles of the columns that fit."""
        return tuple(self._columns[place.index].title for place in self._places)

    def show(self, rows: Sequence[Row]) -> None:
        """Show ``rows`` in this order."""
        before, here = self._rows, self.current
        fresh = tuple(rows)
        if fresh == before:
            return
        self._rows = fresh
        self._index = self._follow(here)
        self._measure(fresh)
        self._retitle()
        if len(fresh) != len(before):
            self.virtual_size = Size(self.size.width, len(fresh) + _HEAD_LINES)
        if self._lay_out() or not before or not fresh:
            self.refresh()
        else:
            for index in range(max(len(before), len(fresh))):
                if before[index : index + 1] != fresh[index : index + 1]:
                    self._redraw(index)
        if self.current != here:
            self.post_message(self.Moved(self))

    def _follow(self, here: Row | None) -> int:
        """The index at which the row ``here`` stands now, or the nearest that is left."""
        if here is not None:
            for index, row in enumerate(self._rows):
                if row.key == here.key:
                    if index != self._index:
                        self._redraw(self._index)
                        self._redraw(index)
                    return index
        return max(0, min(self._index, len(self._rows) - 1))

    def _measure(self, rows: Sequence[Row]) -> None:
        for row in rows:
            for column, cell in enumerate(row.cells):
                self._wanted[column] = max(self._wanted[column], cell_len(_text(cell)))

    def _lay_out(self) -> bool:
        """Place the columns anew; returns whether that changed anything."""
        places = fit(self._columns, self._wanted, self.size.width)
        changed = places != self._places
        self._places = places
        return changed

    def _retitle(self) -> None:
        place = f" {self._index + 1}/{len(self._rows)}" if self._rows else ""
        title = f"{self._title}{place}"
        if title != self.border_title:  # setting it draws the whole table
            self.border_title = title

    # --- drawing ------------------------------------------------------------------------------------------------------
    def on_mount(self) -> None:
        """Name the table."""
        self._retitle()

    def on_resize(self, event: events.Resize) -> None:
        """Place the columns for the new width."""
        self._wanted = [0] * len(self._columns)
        self._measure(self._rows)
        self._lay_out()
        self.virtual_size = Size(event.size.width, len(self._rows) + _HEAD_LINES)
        self._reveal()
        self.refresh()

    def _redraw(self, index: int) -> None:
        line = index - self.scroll_offset.y + _HEAD_LINES
        if _HEAD_LINES <= line < self.size.height:
            self.refresh(Region(0, line, self.size.width, 1))

    def render_line(self, y: int) -> Strip:
        """One line of the window: the head stays, the rows scroll."""
        width = self.size.width
        if y < _HEAD_LINES:
            style = self.get_component_rich_style("listing--head")
            titles = [self._columns[place.index].title for place in self._places]
            return self._line([(title, style) for title in titles], style, width)
        index = y - _HEAD_LINES + self.scroll_offset.y
        if not self._rows and index == 0:
            style = self.get_component_rich_style("listing--faded")
            return Strip([Segment(_cut(self._none, width), style)])
        if index >= len(self._rows):
            return Strip.blank(width, self.rich_style)
        return self._row(self._rows[index], index == self._index and self.has_focus, width)

    def _row(self, row: Row, chosen: bool, width: int) -> Strip:
        style = self._style(row.tone)
        under = self.get_component_rich_style("listing--cursor", partial=True) if chosen else Style.null()
        cells: list[tuple[str, Style]] = []
        for place in self._places:
            cell = row.cells[place.index]
            own = self._style(cell.tone) if isinstance(cell, Cell) and cell.tone else style
            cells.append((_text(cell), own + under))
        return self._line(cells, style + under, width)

    def _style(self, tone: str) -> Style:
        return self.get_component_rich_style(f"listing--{tone}") if tone else self.rich_style

    def _line(self, cells: Sequence[tuple[str, Style]], style: Style, width: int) -> Strip:
        segments: list[Segment] = []
        for place, (text, own) in zip(self._places, cells, strict=True):
            if segments:
                segments.append(Segment(_GAP, style))
            column = self._columns[place.index]
            segments.append(Segment(_cut(text, place.width, column.right, column.tail), own))
        return Strip(segments).adjust_cell_length(width, style)

    # --- moving -------------------------------------------------------------------------------------------------------
    def _go(self, index: int) -> None:
        index = max(0, min(index, len(self._rows) - 1))
        if index != self._index:
            before, self._index = self._index, index
            self._redraw(before)
            self._redraw(index)
            self._retitle()
            self._reveal()
            self.post_message(self.Moved(self))

    def _reveal(self) -> None:
        """Scroll so far that the cursor is seen."""
        window = max(1, self.size.height - _HEAD_LINES)
        top = self.scroll_offset.y
        if self._index < top:
            self.scroll_to(y=self._index, animate=False)
        elif self._index >= top + window:
            self.scroll_to(y=self._index - window + 1, animate=False)

    def action_move(self, by: int) -> None:
        """One row up or down."""
        self._go(self._index + by)

    def action_page(self, by: int) -> None:
        """One window up or down."""
        self._go(self._index + by * max(1, self.size.height - _HEAD_LINES - 1))

    def action_edge(self, end: int) -> None:
        """To the first or the last row."""
        self._go(0 if end < 0 else len(self._rows) - 1)

    def on_click(self, event: events.Click) -> None:
        """The row that was clicked."""
        at = event.get_content_offset(self)
        if at is not None and at.y >= _HEAD_LINES and (index := at.y - _HEAD_LINES + self.scroll_offset.y) < len(self._rows):
            self._go(index)

    def on_focus(self) -> None:
        """The cursor appears."""
        self._redraw(self._index)
        self.post_message(self.Moved(self))

    def on_blur(self) -> None:
        """The cursor disappears."""
        self._redraw(self._index)
