"""The body of one request: counted while it streams, given up when it stalls, and a watch for the client hanging up.

A handler is not cancelled by Hypercorn when its client goes away; a message says so, to whoever listens. Messages come in one
line with the body, so the watch begins where the body ends.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import trio
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from wire.errors import BitwrkError, Refused
from wire.limits import API_BODY_IDLE_S, BODY_MAX_BYTES

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_LINE: Final = 16_384  # boundaries and part headers, beside the data itself


class HungUp(Exception):
    """The client closed the connection before its body was complete."""


def too_large() -> Refused:
    """The refusal of a body over the limit."""
    return Refused("too-large", f"the work is larger than the {BODY_MAX_BYTES >> 20} MiB that are taken")


class Body:
    """An iterator over the raw bytes of a request.

    ``fault`` remembers what ended it early, so that the answer does not depend on how a consumer wraps the exception.
    """

    def __init__(self, receive: Receive, *, most: int, idle_s: float) -> None:
        self._receive = receive
        self._left = most
        self._idle_s = idle_s
        self._complete = trio.Event()
        self.fault: BitwrkError | HungUp | None = None

    def __aiter__(self) -> "Body":
        return self

    async def __anext__(self) -> bytes:
        if self.fault is not None:
            raise self.fault
        while not self._complete.is_set():
            try:
                with trio.fail_after(self._idle_s):
                    message = await self._receive()
            except trio.TooSlowError:
                raise self.fail(Refused("slow-body", f"nothing more of the body came for {self._idle_s:g} s")) from None
            if message["type"] == "http.disconnect":
                raise self.fail(HungUp())
            if not message.get("more_body", False):
                self._complete.set()
            piece: bytes = message.get("body", b"")
            self._left -= len(piece)
            if self._left < 0:
                raise self.fail(too_large())
            if piece:
                return piece
        raise StopAsyncIteration

    def fail(self, fault: BitwrkError | HungUp) -> BitwrkError | HungUp:
        """Remember ``fault`` and hand it back to be raised."""
        self.fault = fault
        return fault

    async def hung_up(self) -> None:
        """Return when the client has gone, which is noticed only once the body is complete."""
        await self._complete.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass


class DataPart:
    """An iterator over the bytes of the first part named ``data`` in a multipart body; other parts are read and skipped."""

    def __init__(self, body: Body, boundary: bytes) -> None:
        self._body = body
        self._pieces: list[bytes] = []
        self._name = self._value = b""
        self._disposition = b""
        self._inside = self._found = self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._part_begin,
                    "on_header_field": self._header_field,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_finished,
                    "on_part_data": self._part_data,
                    "on_part_end": self._part_end,
                    "on_end": self._end,
                },
            )
        except FormParserError:
            raise Refused("bad-multipart", "the boundary of the multipart body is too long") from None

    def __aiter__(self) -> "DataPart":
        return self

    async def __anext__(self) -> bytes:
        while True:
            if self._pieces:
                joined = b"".join(self._pieces)
                self._pieces.clear()
                return joined
            try:
                piece = await anext(self._body)
            except StopAsyncIteration:
                if not (self._found and self._ended):
                    wrong = "ends too early" if self._found else "has no part named 'data'"
                    raise self._body.fail(Refused("bad-multipart", f"the multipart body {wrong}")) from None
                raise
            try:
                self._parser.write(piece)
            except FormParserError:
                raise self._body.fail(Refused("bad-multipart", "the multipart body is malformed")) from None

    # Callbacks of the parser, in the order it calls them.

    def _part_begin(self) -> None:
        self._name = self._value = self._disposition = b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name = self._value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._inside = not self._found and options.get(b"name") == b"data"
        self._found = self._found or self._inside

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._inside:
            self._pieces.append(data[start:end])

    def _part_end(self) -> None:
        self._inside = False

    def _end(self) -> None:
        self._ended = True


def work_in(receive: Receive, content_type: str, content_length: str | None) -> tuple[Body, Body | DataPart]:
    """The body of a request, and the iterator over the work in it: the whole of it, or its part ``data``.

    Raises ``Refused`` before anything is read when the client announces too much.
    """
    kind, options = parse_options_header(content_type)
    multipart = kind == b"multipart/form-data"
    most = BODY_MAX_BYTES + (_LINE if multipart else 0)
    if content_length is not None:
        if not (content_length.isascii() and content_length.isdigit()):
            raise Refused("bad-content-length", "the content length is not a number")
        if len(content_length) > 18 or int(content_length) > most:
            raise too_large()
    body = Body(receive, most=most, idle_s=API_BODY_IDLE_S)
    if not multipart:
        return body, body
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise Refused("bad-multipart", "the multipart body names no boundary")
    return body, DataPart(body, boundary)


async def exhaust(work: Body | DataPart) -> None:
    """Read what a store left unread, so that the end of the body is known."""
    async for _ in work:
        pass
