"""The gate in front of every route: who may come in, how many at once, and that nobody's mistake ends the server.

A web page in the owner's browser can send requests to the loopback interface, and a name server can make a stranger's name point
there. So the ``Host`` has to be a loopback name with our own port, an ``Origin`` has to be ours, and everything below ``/v1``
needs the token from the home. Being on the same machine is not a permission. Bodies that are not work are small, and
their size is held here.
"""

import hmac
import logging
from typing import Final
from urllib.parse import parse_qsl

import trio
from starlette.types import ASGIApp, Receive, Scope, Send

from peer.api.answers import refusal
from peer.api.body import Message
from wire.errors import BitwrkError, InvariantBroken, LocalFault, Refused, named_in
from wire.limits import API_BODY_IDLE_S, API_FORM_MAX_BYTES, API_LINGER_BYTES, API_LINGER_S, API_REQUESTS_MAX

_LOG: Final = logging.getLogger("bitwrk.api")
_NAMES: Final = ("127.0.0.1", "localhost", "[::1]")
# Programs of 2013 register with a fixed form and can only be given another address; for them the token may stand in the query.
_QUERY_TOKEN: Final = ("/registerworker", "/unregisterworker")
_FIELDS_MAX: Final = 64
_WORK: Final = ("/buy/", "/v1/files")


class Gate:
    """An ASGI application that lets the good requests through to ``app``."""

    def __init__(self, app: ASGIApp, *, token: str, port: int, requests_max: int = API_REQUESTS_MAX) -> None:
        self._app = app
        self._token = token.encode()
        hosts = {f"{name}:{port}" for name in _NAMES} | (set(_NAMES) if port == 80 else set())
        self._hosts = frozenset(host.encode() for host in hosts)
        self._origins = frozenset(b"http://" + host for host in self._hosts)
        self._most = requests_max
        self.inside = 0
        self.refused: dict[str, int] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Judge one request, and pass it on or refuse it."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            return
        exchange = _Exchange(scope, receive, send, small=not scope["path"].startswith(_WORK))
        self.inside += 1
        try:
            try:
                self._judge(scope)
                await self._app(scope, exchange.receive, exchange.send)
            except Exception as error:
                named = named_in(error)
                logged = scope.get("state", {}).get("logged", False)
                if not logged and (named is None or isinstance(named, InvariantBroken)):
                    _LOG.exception("error while answering %s %s", scope["method"], scope["path"])
                if named is None:
                    named = LocalFault("internal-error", "the node made a mistake; its log says more")
                self.refused[named.code] = self.refused.get(named.code, 0) + 1
                await self._refuse(named, scope, exchange)
        finally:
            self.inside -= 1

    async def _refuse(self, error: BitwrkError, scope: Scope, exchange: "_Exchange") -> None:
        if not exchange.started:
            accept = b",".join(value for name, value in scope["headers"] if name == b"accept").decode("latin-1")
            await refusal(error, scope["path"], accept)(scope, exchange.receive, exchange.send)

    def _judge(self, scope: Scope) -> None:
        """Raise ``Refused`` for a request that may not come in; note in the scope whether it showed the token."""
        headers: list[tuple[bytes, bytes]] = list(scope["headers"])
        hosts = [value.lower() for name, value in headers if name == b"host"]
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            raise Refused("host-refused", "this port answers to localhost only, under its own name and port")
        for name, value in headers:
            foreign_page = name == b"sec-fetch-site" and value not in (b"same-origin", b"none")
            if foreign_page or (name == b"origin" and value not in self._origins):
                raise Refused("origin-refused", "web pages from elsewhere may not use this node")
        shown = [value for name, value in headers if name == b"authorization"]
        authorised = bool(shown)
        if shown and not (len(shown) == 1 and self._is_token(shown[0])):
            raise _token_wrong()
        path = scope["path"]
        if path in _QUERY_TOKEN and not authorised:
            authorised = self._in_query(scope["query_string"])
        if (path == "/v1" or path.startswith("/v1/") or path in _QUERY_TOKEN) and not authorised:
            raise token_missing()
        if not path.startswith(_WORK):
            _small([value for name, value in headers if name == b"content-length"])
        if self.inside > self._most:
            raise Refused("busy", f"{self._most} requests are being answered already; ask again soon")
        scope.setdefault("state", {})["authorised"] = authorised

    def _in_query(self, query: bytes) -> bool:
        """Whether the query holds the token; raises ``Refused`` when it holds a wrong one."""
        try:
            shown = [value for name, value in parse_qsl(query, max_num_fields=_FIELDS_MAX) if name == b"token"]
        except ValueError:
            raise Refused("bad-request", f"this address takes at most {_FIELDS_MAX} fields") from None
        if shown and not (len(shown) == 1 and hmac.compare_digest(shown[0], self._token)):
            raise _token_wrong()
        return bool(shown)

    def _is_token(self, value: bytes) -> bool:
        scheme, _, given = value.partition(b" ")
        return hmac.compare_digest(given.strip(), self._token) and scheme.lower() == b"bearer"


def token_missing() -> Refused:
    """The refusal of a request that needs the token and does not show it."""
    return Refused(
        "token-missing", "this needs the node's token: Authorization: Bearer and what the file api-token in its home holds"
    )


def _token_wrong() -> Refused:
    return Refused("token-wrong", "this is not the token of this node; it is in the file api-token in its home")


def _too_large() -> Refused:
    return Refused("too-large", f"this address takes bodies of at most {API_FORM_MAX_BYTES >> 10} KiB")


def _small(lengths: list[bytes]) -> None:
    """Refuse a body that announces more than a form or a JSON document has."""
    for length in lengths:
        if not (length.isascii() and length.isdigit()):
            raise Refused("bad-content-length", "the content length is not a number")
        if len(length) > 18 or int(length) > API_FORM_MAX_BYTES:
            raise _too_large()


class _Exchange:
    """One request and its answer, watched so that an answer given before the body has come still reaches the client.

    Closing a socket with unread bytes resets the connection, and the client may never see why it was refused. So an early answer
    is sent, then some more of the body is read and thrown away, and only then the answer is ended. While it is ended the line of
    incoming messages is kept empty, because Hypercorn's reader and our sender would wait for each other otherwise.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, small: bool) -> None:
        self._receive = receive
        self._left = API_FORM_MAX_BYTES if small else None
        self._send = send
        names = {name for name, _ in scope["headers"]}
        self._body_due = bool(names & {b"content-length", b"transfer-encoding"})
        self.started = False

    async def receive(self) -> Message:
        """The next message; bodies that are small by rule are given up when they stall or grow."""
        if self._left is None or not self._body_due:
            return await self._take()
        try:
            with trio.fail_after(API_BODY_IDLE_S):
                message = await self._take()
        except trio.TooSlowError:
            raise Refused("slow-body", f"nothing more of the body came for {API_BODY_IDLE_S:g} s") from None
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise _too_large()
        return message

    async def _take(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._body_due = False
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            if self._body_due:
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
        elif self._body_due and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._linger()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._discard)
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})
                nursery.cancel_scope.cancel()
            return
        await self._send(message)

    async def _linger(self) -> None:
        left = API_LINGER_BYTES
        with trio.move_on_after(API_LINGER_S):
            while self._body_due and left > 0:
                left -= len((await self._take()).get("body", b""))

    async def _discard(self) -> None:
        while True:
            await self._receive()
