"""Answers of the local API: refusals in words, streams of bytes, and no answer at all for a client that has gone."""

import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final

import trio
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from peer.api.service import Json, status_of
from wire.errors import BitwrkError
from wire.limits import API_HEARTBEAT_S

_LOG: Final = logging.getLogger("bitwrk.api")

CODE_HEADER: Final = "x-bitwrk-error"
# What a stranger computed is never to be run or guessed at by a browser that was pointed here.
INERT: Final = {"x-content-type-options": "nosniff", "content-security-policy": "sandbox; default-src 'none'"}


def refusal(error: BitwrkError, path: str, accept: str = "") -> Response:
    """``error`` as JSON below ``/v1`` or when it is asked for, else as one line of text."""
    status = status_of(error)
    headers = {CODE_HEADER: error.code}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    if status == 503:
        headers["retry-after"] = "1"
    if path == "/v1" or path.startswith("/v1/") or "application/json" in accept:
        return JSONResponse({"error": error.code, "reason": error.sentence}, status_code=status, headers=headers)
    return PlainTextResponse(error.sentence + "\n", status_code=status, headers=headers)


class NoAnswer(Response):
    """For a client that has hung up."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send nothing; the connection is closed already."""


class Streamed(Response):
    """Bytes as they come. The source is closed when they end, when the client hangs up, or when ``until`` returns."""

    def __init__(
        self,
        pieces: AsyncIterator[bytes],
        *,
        media_type: str,
        headers: Mapping[str, str],
        until: trio.Event | None = None,
        heartbeat: bytes = b"",
    ) -> None:
        super().__init__(media_type=media_type, headers=headers)
        if "content-length" not in headers:
            del self.headers["content-length"]  # the base class counted an empty body
        self._pieces = pieces
        self._until = until
        self._heartbeat = heartbeat

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the head, then the pieces, then the end."""

        async def watch(scope_to_end: trio.CancelScope) -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            scope_to_end.cancel()

        async def stop(event: trio.Event, scope_to_end: trio.CancelScope) -> None:
            await event.wait()
            scope_to_end.cancel()

        async def beat() -> None:
            while True:
                await trio.sleep(API_HEARTBEAT_S)
                await send({"type": "http.response.body", "body": self._heartbeat, "more_body": True})

        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        whole = False
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch, nursery.cancel_scope)
                if self._until is not None:
                    nursery.start_soon(stop, self._until, nursery.cancel_scope)
                if self._heartbeat:
                    await send({"type": "http.response.body", "body": self._heartbeat, "more_body": True})
                    nursery.start_soon(beat)
                async for piece in self._pieces:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                whole = True
                nursery.cancel_scope.cancel()
        finally:
            close: Callable[[], object] | None = getattr(self._pieces, "aclose", None)
            if close is not None:
                with trio.CancelScope(shield=True):
                    await self._pieces.aclose()  # type: ignore[attr-defined]
        if whole or (self._until is not None and self._until.is_set()):
            await send({"type": "http.response.body", "body": b"", "more_body": False})


class EventLines:
    """The node's events as server-sent events."""

    def __init__(self, events: AsyncIterator[Json]) -> None:
        self._events = events

    def __aiter__(self) -> "EventLines":
        return self

    async def __anext__(self) -> bytes:
        event = await anext(self._events)
        text = json.dumps(event, separators=(",", ":"))  # never holds a line break, so one data line is enough
        name = f"id: {event['id']}\n" if "id" in event else ""
        return f"{name}data: {text}\n\n".encode()

    async def aclose(self) -> None:
        """Close the source, if it is one that can be closed."""
        close = getattr(self._events, "aclose", None)
        if close is not None:
            await close()
