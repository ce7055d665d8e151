"""Who may come in."""

import logging

import pytest
import trio
from fastapi.routing import APIRoute

import peer.api.gate
from peer.api.routes import make_app
from tests.api.node import TOKEN, FakeNode, read_all, send_without_end, served

OPEN_ROUTES = {"/buy/{article:path}", "/file/{content}", "/id", "/version"}


async def _ask(port_line: str, *headers: str, host: str | None = None) -> bytes:
    async with served() as one:
        stream = await one.raw()
        given = [header.replace("PORT", str(one.port)) for header in headers]
        named = None if host is None else host.replace("PORT", str(one.port))
        await stream.send_all(one.head(port_line, "Connection: close", *given, host=named))
        answer = await read_all(stream)
        await stream.aclose()
        return answer


@pytest.mark.parametrize("host", ["127.0.0.1:PORT", "localhost:PORT", "LocalHost:PORT", "[::1]:PORT"])
async def test_own_names(host: str) -> None:
    assert (await _ask("GET /id", host=host)).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:PORT",
        "127.0.0.1",
        "localhost",
        "localhost:1",
        "127.0.0.1.evil.example:PORT",
        "0.0.0.0:PORT",
        "127.0.0.2:PORT",
        " ",
    ],
)
async def test_foreign_names_are_refused(host: str) -> None:
    answer = await _ask("GET /id", host=host)
    assert answer.startswith(b"HTTP/1.1 403")
    assert b"host-refused" in answer


async def test_two_names_or_none_are_refused() -> None:
    assert not (await _ask("GET /id", "Host: 127.0.0.1:PORT")).startswith(b"HTTP/1.1 200")
    async with served() as one:
        stream = await one.raw()
        await stream.send_all(b"GET /id HTTP/1.0\r\n\r\n")
        assert (await read_all(stream))[9:12] == b"403"
        await stream.aclose()


@pytest.mark.parametrize(
    "header",
    [
        "Origin: http://evil.example",
        "Origin: null",
        "Origin: http://localhost:1",
        "Origin: https://localhost:PORT",
        "Origin: http://localhost:PORT.evil.example",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
    ],
)
async def test_foreign_pages_are_refused_with_and_without_the_token(header: str) -> None:
    for extra in ((), (f"Authorization: Bearer {TOKEN}",)):
        answer = await _ask("POST /buy/foobar", header, "Content-Length: 0", *extra)
        assert answer.startswith(b"HTTP/1.1 403")
        assert b"origin-refused" in answer


@pytest.mark.parametrize(
    "header", ["Origin: http://localhost:PORT", "Origin: http://127.0.0.1:PORT", "Sec-Fetch-Site: same-origin"]
)
async def test_own_pages_are_not(header: str) -> None:
    assert (await _ask("GET /id", header)).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ("Authorization: Bearer",),
        ("Authorization: Bearer x",),
        (f"Authorization: Bearer {TOKEN}x",),
        (f"Authorization: Bearer {TOKEN[:-1]}",),
        (f"Authorization: Basic {TOKEN}",),
        (f"Authorization: {TOKEN}",),
        (f"Authorization: Bearer {TOKEN}", "Authorization: Bearer x"),
        (f"Cookie: token={TOKEN}",),
    ],
)
async def test_v1_needs_the_token(headers: tuple[str, ...]) -> None:
    answer = await _ask("GET /v1/status", *headers)
    assert answer.startswith(b"HTTP/1.1 401")
    assert b'{"error":"token-' in answer


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_token_opens_v1(scheme: str) -> None:
    assert (await _ask("GET /v1/status", f"Authorization: {scheme} {TOKEN}")).startswith(b"HTTP/1.1 200")


async def test_every_route_but_four_needs_the_token() -> None:
    routes = [route for route in make_app(FakeNode(), trio.Event()).routes if getattr(route, "methods", None)]
    assert len(routes) >= 15
    async with served() as one, one.client(None) as client:
        for route in routes:
            path = route.path  # type: ignore[attr-defined]
            for method in sorted(route.methods - {"HEAD"}):  # type: ignore[attr-defined]
                answer = await client.request(method, path)
                assert (answer.status_code == 401) == (path not in OPEN_ROUTES), (method, path)
        for path in ("/v1", "/v1/", "/v1/nothing"):
            assert (await client.get(path)).status_code == 401
    assert {route.path for route in routes if isinstance(route, APIRoute)} >= OPEN_ROUTES


async def test_more_requests_than_the_bound_are_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer.api.gate.Gate.__init__, "__kwdefaults__", {"requests_max": 3})
    node = FakeNode()
    node.hold = True
    async with served(node) as one, one.client() as client, trio.open_nursery() as nursery:

        async def trade() -> None:
            assert (await client.post("/buy/foobar", content=b"w")).status_code == 303

        for _ in range(3):
            nursery.start_soon(trade)
        while len(node.bought) < 3:
            await trio.testing.wait_all_tasks_blocked(0.01)
        answer = await client.get("/v1/status")
        assert answer.status_code == 503
        assert answer.json()["error"] == "busy"
        assert answer.headers["retry-after"] == "1"
        node.gate.set()
    assert len(node.bought) == 3


async def test_a_mistake_in_the_node_is_a_500_in_json_and_the_node_lives(caplog: pytest.LogCaptureFixture) -> None:
    node = FakeNode()
    node.broken = True
    async with served(node) as one, one.client() as client:
        with caplog.at_level(logging.ERROR):
            answer = await client.get("/v1/books")
        assert answer.status_code == 500
        assert answer.json()["error"] == "internal-error"
        assert "a mistake in the node" not in answer.text
        assert "a mistake in the node" in caplog.text
        assert (await client.get("/v1/status")).json() == {"state": "well"}


async def test_a_mistake_while_buying_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    node = FakeNode()
    node.refusal = ZeroDivisionError("a mistake")
    async with served(node) as one, one.client() as client:
        with caplog.at_level(logging.ERROR):
            answer = await client.post("/buy/foobar", content=b"w")
        assert (answer.status_code, answer.headers["x-bitwrk-error"]) == (500, "internal-error")
        assert "ZeroDivisionError" in caplog.text
        assert (await client.get("/id")).status_code == 200


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"\r\n\r\n\r\n",
        b"GET /id\r\n\r\n",
        b"GET /id HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET /id HTTP/1.1\r\n" + b"X: " + b"y" * 40_000 + b"\r\n\r\n",
        b"POST /buy/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /buy/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET http://evil.example/id HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(100),
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
        b"Connection: Upgrade, HTTP2-Settings\r\n\r\n",
        b"GET /id HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        b"GET /%ff%fe HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
async def test_garbage_leaves_the_server_running(garbage: bytes) -> None:
    async with served() as one, one.client() as client:
        stream = await one.raw()
        await stream.send_all(garbage)
        await stream.send_eof()
        answer = await read_all(stream)
        assert b"200 OK" not in answer
        assert b"HTTP/1.1 200" not in answer
        await stream.aclose()
        assert (await client.get("/id")).status_code == 200


async def test_an_early_refusal_of_a_large_body_neither_blocks_nor_leaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer.api.gate, "API_LINGER_BYTES", 1 << 20)
    async with served() as one, one.client(None) as client:
        head = one.head("POST /v1/channels/close", "Transfer-Encoding: chunked")
        for _ in range(3):
            answer = await send_without_end(one, head, b"10000\r\n" + bytes(65_536) + b"\r\n")
            assert answer.startswith(b"HTTP/1.1 401")
            assert b'"token-missing"' in answer
        assert (await client.get("/id")).status_code == 200
