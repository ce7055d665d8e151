"""A screen of the dashboard as a drawing, without a terminal: for documents, and for machines that nobody sits at."""

import asyncio
from pathlib import Path
from typing import Final

from tui.app import Dashboard
from tui.link import Link
from wire.errors import LocalFault

_PATIENCE_S: Final = 20.0


def draw(home: Path, screen: str, columns: int, rows: int) -> str:
    """The screen called ``screen`` as SVG, once the node has been heard. Raises ``LocalFault`` or ``Refused``."""

    async def whole() -> str:
        async with Link.at(home) as link:  # what is wrong with the node is said at once, in its own words
            await link.read("status")
        return await asyncio.wait_for(_drawn(Dashboard.at(home, screen), columns, rows), _PATIENCE_S)

    try:
        return asyncio.run(whole())
    except TimeoutError:
        raise LocalFault("no-answer", f"the node was not heard within {_PATIENCE_S:g} s") from None


async def _drawn(app: Dashboard, columns: int, rows: int) -> str:
    async with app.run_test(size=(columns, rows)) as pilot:
        while not app.feed.latest.connected:
            await pilot.pause(0.02)
        await pilot.pause()
        return exact(app.export_screenshot())


def exact(svg: str) -> str:
    """Textual relies on a style for its blanks, and on stretched text for its columns; not every renderer obeys. An attribute
    keeps the blanks everywhere, and at this size the letters of its font are exactly as wide as a column.
    """
    return svg.replace("<text ", '<text xml:space="preserve" ').replace("font-size: 20px", "font-size: 19.84px")
