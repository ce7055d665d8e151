"""A node that answers whatever a test wants, without a network: the worst cases that no real node shows."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx

from tui.app import Dashboard
from tui.feed import LISTINGS
from tui.link import Link

STATUS: dict[str, Any] = {
    "account": "12pjXQqabSv2zCWqx6gjmAqRWa7LyxdqRs",
    "network": "regtest",
    "money": "play",
    "peers": 1,
    "address": "bcrt1qz0ljc6cjs82l0226rwzz4mfsdqw9jslx76zxss",
    "balance_sat": 4_553_630,
    "exposure_sat": 446_174,
}


class FakeNode:
    """``lists`` are what it answers; ``refusals`` are sentences by path, ``asked`` what was asked of it; ``gone`` ends it."""

    def __init__(self) -> None:
        self.lists: dict[str, Any] = {name: [] for name in LISTINGS} | {"status": dict(STATUS)}
        self.refusals: dict[str, tuple[int, str, str]] = {}
        self.asked: list[tuple[str, str, Any]] = []
        self.reads: list[str] = []
        self.raw: dict[str, bytes] = {}
        self.files: dict[str, bytes] = {}
        self.fault: type[httpx.TransportError] | None = None
        self.found = 0
        self.missing: set[str] = set()
        self.slow = asyncio.Event()
        self.slow.set()
        self._turn = asyncio.Event()
        self._happened: asyncio.Queue[bytes | None] = asyncio.Queue()

    # --- as a test moves it -------------------------------------------------------------------------------------------
    def find(self) -> Link:
        """The way to it, as the dashboard looks for it."""
        self.found += 1
        return Link(1, "token", httpx.MockTransport(self._answer))

    def happen(self, **event: Any) -> None:
        """Tell an event to whoever listens."""
        self._happened.put_nowait(f"data: {json.dumps(event)}\n\n".encode())

    def say(self, raw: bytes) -> None:
        """Put bytes into the stream of events as they are."""
        self._happened.put_nowait(raw)

    async def until_read(self, name: str) -> None:
        """Wait until the dashboard reads the listing ``name`` once more."""
        self.reads.clear()
        async with asyncio.timeout(20):
            while name not in self.reads:
                self._turn.clear()
                await self._turn.wait()

    def die(self) -> None:
        """Stop answering."""
        self.fault = httpx.ConnectError
        self._happened.put_nowait(None)

    def live(self) -> None:
        """Answer again."""
        self.fault = None

    # --- as the dashboard sees it -------------------------------------------------------------------------------------
    async def _answer(self, request: httpx.Request) -> httpx.Response:
        if self.fault is not None:
            raise self.fault("no", request=request)
        assert request.headers["authorization"] == "Bearer token"
        path = request.url.path.removeprefix("/v1/")
        if request.method == "GET":
            return await self._read(path)
        raw = await request.aread()
        body = json.loads(raw) if request.headers.get("content-type") == "application/json" else raw or dict(request.url.params)
        self.asked.append((request.method, path, body))
        await self.slow.wait()
        if path in self.missing:
            return httpx.Response(404, json={"error": "unknown-order", "reason": "there is no such order"})
        for begin, (status, code, reason) in self.refusals.items():
            if path.startswith(begin):
                return httpx.Response(status, json={"error": code, "reason": reason})
        return httpx.Response(201, json={"id": "a1"} if path != "channels/close" else [{}, {}])

    async def _read(self, path: str) -> httpx.Response:
        if path == "events":
            return httpx.Response(200, stream=_Stream(self._events))
        if path.startswith("/file/"):
            found = self.files.get(path.removeprefix("/file/"))
            if found is None:
                return httpx.Response(404, json={"error": "unknown-file", "reason": "there is no such file here"})
            return httpx.Response(200, content=found)
        self.reads.append(path)
        self._turn.set()
        if path in self.raw:
            return httpx.Response(200, content=self.raw[path])
        if path in self.refusals:
            status, code, reason = self.refusals[path]
            return httpx.Response(status, json={"error": code, "reason": reason})
        return httpx.Response(200, json=self.lists[path])

    async def _events(self) -> AsyncIterator[bytes]:
        while (piece := await self._happened.get()) is not None:
            yield piece
        raise httpx.ReadError("reset")


class _Stream(httpx.AsyncByteStream):
    def __init__(self, pieces: Callable[[], AsyncIterator[bytes]]) -> None:
        self._pieces = pieces

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces()


def dashboard(node: FakeNode, first: str = "market") -> Dashboard:
    """The dashboard of a made-up node."""
    return Dashboard(node.find, first)


def work_file(folder: Path) -> str:
    """A file with some work in it."""
    path = folder / "work"
    path.write_bytes(b"work")
    return str(path)
