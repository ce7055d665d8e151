"""The way to one running node: its local API over one kept connection, on asyncio.

``peer.client`` is the same for plain programs; a terminal application has to be able to let go of a waiting request, so it needs
its own. Every method raises ``Refused`` with the node's own code and sentence, or ``LocalFault`` when no node answers.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final
from urllib.parse import quote

import httpx

from peer.home import Home
from tui.plain import clean, clean_json
from wire.errors import LocalFault, Refused
from wire.limits import API_HEARTBEAT_S

_CONNECT_S: Final = 5
_ANSWER_S: Final = 10
_UPLOAD_S: Final = 60
_SILENCE_S: Final = 3 * API_HEARTBEAT_S
_PIECE_BYTES: Final = 1 << 16
_EVENT_MAX_CHARS: Final = 1 << 16


class Link:
    """A connection to the node on ``port``. ``transport`` replaces the network in tests."""

    def __init__(self, port: int, token: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.port = port
        self._http = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}",
            headers={"authorization": f"Bearer {token}", "accept": "application/json"},
            timeout=httpx.Timeout(_ANSWER_S, connect=_CONNECT_S),
            trust_env=False,  # a proxy has no business with the token
            transport=transport,
        )

    @classmethod
    def at(cls, home: Path) -> "Link":
        """The node that runs in the folder ``home``, found by the port and the token it left there."""
        found = Home(home)
        return cls(found.api_port(), found.read_token())

    async def __aenter__(self) -> "Link":
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()

    async def read(self, what: str) -> Any:
        """What ``GET /v1/<what>`` says, clean."""
        return await self.ask("GET", what)

    async def ask(self, method: str, what: str, *, body: Any = None, params: dict[str, str] | None = None) -> Any:
        """The answer to one request below ``/v1``; ``body`` is sent as JSON."""
        request = self._http.build_request(method, f"/v1/{what}", json=body, params=params)
        async with self._answer(request) as answer:
            return self._parsed(await answer.aread())

    async def store(self, path: Path) -> Any:
        """Have the node keep the bytes of a file; returns what it says of them."""
        try:
            size = path.stat().st_size
            with path.open("rb") as source:

                async def pieces() -> AsyncIterator[bytes]:
                    while piece := await asyncio.to_thread(source.read, _PIECE_BYTES):
                        yield piece

                request = self._http.build_request(
                    "POST",
                    "/v1/files",
                    content=pieces(),
                    headers={"content-type": "application/octet-stream", "content-length": str(size)},
                    timeout=httpx.Timeout(_UPLOAD_S, connect=_CONNECT_S),
                )
                async with self._answer(request) as answer:
                    return self._parsed(await answer.aread())
        except OSError as error:
            why = (error.strerror or type(error).__name__).lower()
            raise LocalFault("bad-file", f"{clean(str(path), 120)} cannot be read: {why}") from None

    async def content(self, name: str) -> AsyncIterator[bytes]:
        """The bytes of a stored content."""
        request = self._http.build_request("GET", f"/file/{quote(name, safe='')}")
        async with self._answer(request) as answer:
            async for piece in answer.aiter_bytes(_PIECE_BYTES):
                yield piece

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """What happens from now on. Ends with the node; raises ``LocalFault`` when even its heartbeat stops."""
        request = self._http.build_request("GET", "/v1/events", timeout=httpx.Timeout(_SILENCE_S, connect=_CONNECT_S))
        async with self._answer(request) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data:") and len(line) <= _EVENT_MAX_CHARS:
                    event = self._parsed(line.removeprefix("data:").encode())
                    if isinstance(event, dict):
                        yield event

    def _parsed(self, raw: bytes) -> Any:
        try:
            return clean_json(json.loads(raw or b"null"))
        except (ValueError, RecursionError):
            raise LocalFault("strange-answer", f"what listens on port {self.port} is no BitWrk node") from None

    @asynccontextmanager
    async def _answer(self, request: httpx.Request) -> AsyncIterator[httpx.Response]:
        """The answer to ``request``, open for reading. Raises what the node refused."""
        try:
            answer = await self._http.send(request, stream=True)
            try:
                if answer.status_code >= 400:
                    raise _refusal(answer.status_code, await answer.aread())
                yield answer
            finally:
                await answer.aclose()
        except httpx.ConnectError:
            raise LocalFault("no-node", f"no node answers on port {self.port}; start one with: bitwrk node") from None
        except httpx.TimeoutException:
            raise LocalFault("no-answer", f"the node on port {self.port} does not answer in time") from None
        except httpx.TransportError:
            raise LocalFault("node-gone", f"the node on port {self.port} ended the connection") from None


def _refusal(status: int, raw: bytes) -> Refused:
    try:
        told = json.loads(raw)
        return Refused(clean(str(told["error"]), 80), clean(str(told["reason"]), 400))
    except (ValueError, KeyError, TypeError):
        return Refused("refused", f"the node answered {status} without a reason")
