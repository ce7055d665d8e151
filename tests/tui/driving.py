"""Driving the dashboard: waiting for what must come, and reading what is seen."""

import time
from collections.abc import Callable
from typing import Final

from textual.pilot import Pilot

from tui.app import Dashboard
from tui.widgets.listing import Cell, Listing

PATIENCE_S: Final = 40.0
TURN_S: Final = 0.02


async def until(pilot: Pilot[None], holds: Callable[[], object]) -> None:
    """Let the application go on until ``holds`` is true."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"it never came to that; the screen shows:\n{seen(pilot)}")
        await pilot.pause(TURN_S)


def board(pilot: Pilot[None]) -> Dashboard:
    """The application that is driven."""
    assert isinstance(pilot.app, Dashboard)
    return pilot.app


async def reached(pilot: Pilot[None]) -> None:
    """Wait until the node has been heard and the screen shows it."""
    await until(pilot, lambda: board(pilot).feed.latest.connected)
    await pilot.pause()


def seen(pilot: Pilot[None]) -> str:
    """All characters on the terminal, line by line."""
    lines = [
        "".join(segment.text for segment in pilot.app.screen._compositor.render_strips()[y]) for y in range(pilot.app.size.height)
    ]
    return "\n".join(line.rstrip() for line in lines)


def table(pilot: Pilot[None], name: str) -> Listing:
    """The table called ``name``."""
    return board(pilot).screen_stack[0].query_one(f"#{name}", Listing)


def texts(pilot: Pilot[None], name: str) -> list[tuple[str, ...]]:
    """The cells of a table, row by row, also those of columns that do not fit."""
    return [tuple(cell.text if isinstance(cell, Cell) else cell for cell in row.cells) for row in table(pilot, name).rows]
