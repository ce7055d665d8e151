"""Makes the pictures of the dashboard anew, from real nodes: ``python -m tests.tui.pictures [FOLDER]``, by default docs/figures.

Needs ``rsvg-convert`` (Debian: librsvg2-bin) and, for the look of the originals, the font Fira Code (fonts-firacode).
"""

import asyncio
import io
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from PIL import Image
from textual.pilot import Pilot

from peer.demo.cluster import Node
from peer.workers.rays.demo import demo_scene
from peer.workers.rays.tiles import cut
from tests.tui.driving import reached, table, until
from tests.tui.stage import Stage, open_stage
from tui.app import Dashboard
from tui.picture import exact

RAYS: Final = "net.bitwrk/rays/1"
BLENDER: Final = "net.bitwrk/blender/1/4.5/2G"
SIZES: Final = ((80, 24), (160, 48))
MOST_BYTES: Final = 200_000
AUCTIONS: Final = 4
COLOURS: Final = 112


def works(columns: int, rows: int, samples: int) -> Sequence[bytes]:
    """Tiles of a small picture."""
    return cut(demo_scene(width=240, height=160, samples=samples, bounces=4), columns, rows)


def order(stage: Stage, node: Node, work: bytes, *, article: str = RAYS, price: str | None = "uBTC 340") -> str:
    """Place one order to buy, and return its id."""
    stored = stage.ask(node, "POST", "/v1/files", content=work).raise_for_status().json()["id"]
    body = {"side": "buy", "article": article, "price": price, "work": stored, "wait": 600}
    return str(stage.ask(node, "POST", "/v1/orders", json=body).raise_for_status().json()["id"])


def lively(stage: Stage) -> Node:
    """A node with something on every screen."""
    stage.chain()
    anna = stage.node("anna", "sell", "--worker", "rays", "--ask", "uBTC 26", "--slots", "2")
    bert = stage.node("bert", "sell", "--worker", "rays", "--ask", "uBTC 31", bootstrap=anna)
    stage.node("carol", "sell", "--worker", "echo", "--ask", "sat 0", bootstrap=bert)
    node = stage.node("own", "sell", "--worker", "rays", "--ask", "uBTC 45", bootstrap=anna)
    stage.rich(node, 20_000_000)
    for worker, article in (("blender-1", BLENDER), ("blender-2", BLENDER)):
        body = {"id": worker, "article": article, "pushurl": "http://127.0.0.1:8100/" + worker}
        stage.ask(node, "POST", "/v1/workers", json=body).raise_for_status()
    for mandate in (
        {"side": "sell", "article": BLENDER, "price": "uBTC 120", "trades": 99, "minutes": 60},
        {"side": "buy", "article": RAYS, "price": "uBTC 340", "trades": None, "minutes": 1_440},
    ):
        stage.ask(node, "POST", "/v1/mandates", json=mandate).raise_for_status()
    stage.ask(node, "POST", "/v1/books", params={"article": "foobar"}).raise_for_status()
    order(stage, node, b"nobody does this", article="net.example/proteins/3", price="uBTC 900")
    for work in works(4, 3, 1):
        order(stage, node, work)
    stage.until(node, "trades", lambda trades: sum(one["phase"] == "finished" for one in trades) >= 12)
    return node


def save(app: Dashboard, target: Path) -> None:
    """What is seen, as a PNG of few colours."""
    drawn = exact(app.export_screenshot(title="bitwrk tui"))
    zoom = "1" if app.size.width < 120 else "0.8"
    png = subprocess.run(
        ["rsvg-convert", "--format=png", f"--zoom={zoom}"], input=drawn.encode(), capture_output=True, check=True
    ).stdout
    image = Image.open(io.BytesIO(png)).convert("RGB").quantize(COLOURS, kmeans=3, dither=Image.Dither.NONE)
    image.save(target, optimize=True)
    size = target.stat().st_size
    if size >= MOST_BYTES:
        raise ValueError(f"{target} has {size} bytes, which is too much for the documentation")
    print(f"{target}  {size:,} bytes")


async def screens(node: Node, folder: Path, columns: int, rows: int) -> None:
    """Every screen at one size, then a refused form, help, and the node gone."""
    app = Dashboard.at(node.home)
    async with app.run_test(size=(columns, rows)) as pilot:
        name = f"{columns}x{rows}"
        await reached(pilot)
        await until(pilot, lambda: any(prices_known(past) for past in app.feed.latest.prices.values()))
        for key, screen in (("1", "market"), ("2", "activity"), ("3", "work"), ("4", "money"), ("5", "peers")):
            await pilot.press(key)
            if screen == "activity":
                trades = table(pilot, "trades").rows
                first = next(place for place, row in enumerate(trades) if not row.key.startswith("placed:"))
                await pilot.press(*["down"] * first)
                await busy(pilot)
            if screen == "market":
                while (row := table(pilot, "books").current) is None or (row.article, row.tone) != (RAYS, ""):
                    await pilot.press("down")
            await pilot.pause()
            save(app, folder / f"tui-{screen}-{name}.png")
        await pilot.press("3", "m", "tab", *"uBTC 0,5", "enter")
        await until(pilot, lambda: "not an amount" in getattr(app.screen, "refusal", ""))
        save(app, folder / f"tui-mandate-{name}.png")
        await pilot.press("escape", "question_mark")
        await pilot.pause()
        save(app, folder / f"tui-help-{name}.png")


def prices_known(past: Sequence[int | None]) -> bool:
    """Whether a book was seen trading for some auctions, the latest of them too."""
    return len(past) >= AUCTIONS and past[-1] is not None


async def busy(pilot: Pilot[None]) -> None:
    """Wait until units of both kinds are seen, under way and finished."""
    app = pilot.app
    assert isinstance(app, Dashboard)
    await until(pilot, lambda: {"working", "finished"} <= {str(one.get("phase")) for one in app.feed.latest.trades[:8]})


async def gone(stage: Stage, node: Node, folder: Path) -> None:
    """The node is killed before our eyes."""
    app = Dashboard.at(node.home)
    async with app.run_test(size=SIZES[0]) as pilot:
        await reached(pilot)
        await pilot.press("2")
        node.program.kill()
        await until(pilot, lambda: not app.feed.latest.connected)
        await pilot.pause()
        save(app, folder / f"tui-gone-{SIZES[0][0]}x{SIZES[0][1]}.png")
    del stage


def main(folder: Path) -> None:
    """Make them all."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, open_stage(Path(scratch)) as stage:
        node = lively(stage)
        for columns, rows in SIZES:
            for work in works(8, 6, 72):
                order(stage, node, work)
            asyncio.run(screens(node, folder, columns, rows))
        asyncio.run(gone(stage, node, folder))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[2] / "docs" / "figures")
