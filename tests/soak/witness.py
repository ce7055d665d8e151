"""What is collected while the nodes trade: views from their events, signatures from their journals, orders from their books."""

import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import trio

from orderbook.core.messages import Match, Side, verify_match
from orderbook.core.pen import TABLE, SignedRow
from peer.home import Home
from tests.soak.town import NO_ANSWER, House, Run, Town
from tests.soak.verdict import Roots, View
from wire.canon import unpack
from wire.moments import MILLISECOND
from wire.network import REGTEST

_SIGNED = b"signed/"


def now_us() -> int:
    return time.time_ns() // 1_000


class Witness:
    """Everything seen. ``signed`` holds every match that a node has journalled, with the side it signed for."""

    def __init__(self, town: Town) -> None:
        self._town = town
        self.roots = Roots(REGTEST.clock)
        self.signed: dict[tuple[Match, Side], str] = {}
        self.false: list[str] = []
        self.quantities: dict[str, int] = {}
        self.articles: dict[str, str] = {}

    # --- views --------------------------------------------------------------------------------------------------------
    async def listen(self, house: House) -> None:
        """Follow the events of one life of a node; back at once when the stream breaks, until that life has ended."""
        run, latest = house.run, ""
        while run.killed_us is None:
            try:
                base, headers = house.node.reach()
                request = self._town.client.stream(
                    "GET", f"{base}/v1/events", headers={**headers, "Last-Event-ID": latest or "0"}, timeout=60
                )
                async with request as answer:
                    async for line in answer.aiter_lines():
                        name, _, value = line.partition(": ")
                        if name == "id":
                            latest = value
                        elif name == "data":
                            self._event(run, json.loads(value))
            except NO_ANSWER:
                await trio.sleep(0.1)

    def _event(self, run: Run, event: dict[str, Any]) -> None:
        if event["kind"] == "book" and event["epoch"] is not None:
            self.articles[event["book"]] = f"{event['article']}{' (free)' if event['free'] else ''}"
            if not event["again"]:
                late = (event["cleared_us"] - REGTEST.clock.freeze(event["epoch"])) / MILLISECOND
                self.roots.note(
                    View(
                        node=run.name,
                        run=run.number,
                        epoch=event["epoch"],
                        book=event["book"],
                        root=event["root"],
                        refusal=event["refusal"],
                        late_ms=late,
                    )
                )

    async def book(self, house: House, book: str) -> list[dict[str, Any]]:
        """What a node's copy of a book is made of; the orders among it are remembered."""
        messages: list[dict[str, Any]] = (await self._town.ask(house, "GET", f"/v1/books/{book}/messages"))["messages"]
        self.quantities.update({one["id"]: one["quantity"] for one in messages if one["kind"] == "order"})
        return messages

    # --- signatures ---------------------------------------------------------------------------------------------------
    async def collect(self) -> None:
        """Read what is new in all journals, also of nodes that are dead at the moment, and all orders in their books."""
        for house in self._town.houses:
            if house.runs:
                for row in await trio.to_thread.run_sync(signed_rows, house.journal):
                    self._signature(house, row)
        for house in self._town.living():
            for book in sorted(self.articles):
                try:
                    await self.book(house, book)
                except NO_ANSWER:
                    break

    def _signature(self, house: House, row: SignedRow) -> None:
        name = (row.match, row.side)
        if name not in self.signed:
            self.signed[name] = house.name
            if not verify_match(Home(house.node.home).key().public, row.match, row.side, row.signature):
                self.false.append(f"{house.name} journalled a signature that is not its own")


def signed_rows(journal: Path) -> list[SignedRow]:
    """Every signature that a journal holds at the moment."""
    connection = sqlite3.connect(f"file:{journal}?mode=ro", uri=True, timeout=10)
    try:
        found = connection.execute("SELECT key, value FROM kept WHERE place = ?", (TABLE,)).fetchall()
    finally:
        connection.close()
    return [unpack(SignedRow, value) for key, value in found if key.startswith(_SIGNED)]
