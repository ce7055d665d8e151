"""The rest of /v1, event streams, and coming to an end."""

import json
import socket

import pytest
import trio

import peer.api.answers
import peer.api.server
from peer.api.server import bind_loopback
from tests.api.node import TOKEN, FakeNode, Served, read_all, served
from wire.errors import LocalFault


async def test_the_listings() -> None:
    async with served() as one, one.client() as client:
        assert (await client.get("/v1/status")).json() == {"state": "well"}
        assert (await client.get("/v1/account")).json() == {"account": "1…"}
        for name in ("orders", "trades", "channels", "peers", "workers"):
            answer = await client.get(f"/v1/{name}")
            assert answer.headers["content-type"] == "application/json"
            assert len(answer.json()) == 1
        assert (await client.get("/v1/status/")).status_code == 404


async def test_following_the_books_of_an_article() -> None:
    async with served() as one, one.client() as client:
        assert (await client.get("/v1/books")).json() == []
        assert (await client.post("/v1/books", params={"article": "net.bitwrk/rays/1"})).json() == [
            {"article": "net.bitwrk/rays/1"}
        ]
        for bad in ({}, {"article": ""}, {"article": "a b"}, {"article": "a" * 129}):
            assert (await client.post("/v1/books", params=bad)).status_code == 400
        assert one.node.watched == ["net.bitwrk/rays/1"]


async def test_what_a_book_is_made_of() -> None:
    async with served() as one, one.client() as client:
        assert (await client.get("/v1/books/b0/messages")).json() == {"book": "b0", "messages": [], "more": 0}
        answer = await client.get("/v1/books/b1/messages")
        assert (answer.status_code, answer.json()["error"]) == (404, "unknown-book")


async def test_close_channels() -> None:
    async with served() as one, one.client() as client:
        answer = await client.post("/v1/channels/close", params={"reason": "moving house"})
        assert answer.json() == [{"channel": 1, "reason": "moving house"}]
        assert (await client.post("/v1/channels/close")).status_code == 200
        assert one.node.closed_for == ["moving house", "asked by the owner"]
        assert (await client.post("/v1/channels/close", params={"reason": "x" * 1_000})).status_code == 400


async def test_the_openapi_document_names_the_routes() -> None:
    async with served() as one, one.client() as client:
        told = (await client.get("/v1/openapi.json")).json()
        assert "/buy/{article}" in told["paths"]
        assert "/v1/status" in told["paths"]
        parameters = told["paths"]["/buy/{article}"]["post"]["parameters"]
    assert {field["name"] for field in parameters} == {"article", "price", "wait", "once"}


async def _until(stream: trio.SocketStream, wanted: bytes) -> bytes:
    got = b""
    while wanted not in got:
        piece = await stream.receive_some(65_536)
        assert piece, f"{wanted!r} never came, only {got!r}"
        got += piece
    return got


async def _listen(one: Served) -> trio.SocketStream:
    stream = await one.raw()
    await stream.send_all(one.head("GET /v1/events", f"Authorization: Bearer {TOKEN}"))
    head = await _until(stream, b": here\n\n")
    assert b"text/event-stream" in head
    assert b"content-length" not in head
    return stream


async def test_events_arrive_as_they_happen_and_end_with_the_listener() -> None:
    async with served() as one:
        stream = await _listen(one)
        for number in range(3):
            await one.node.happenings_in.send({"number": number, "text": "a\nb"})
            line = await _until(stream, b"}\n\n")
            assert json.loads(line.partition(b"data: ")[2].partition(b"\n\n")[0]) == {"number": number, "text": "a\nb"}
        assert not one.node.events_closed.is_set()
        await stream.aclose()
        await one.node.events_closed.wait()


async def test_a_quiet_stream_is_kept_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer.api.answers, "API_HEARTBEAT_S", 0.02)
    async with served() as one:
        stream = await _listen(one)
        for _ in range(3):
            await _until(stream, b": here\n\n")
        await stream.aclose()


async def test_the_end_of_the_server_ends_event_streams_properly() -> None:
    async with served() as one:
        stream = await _listen(one)
        one.stop.set()
        assert (await read_all(stream)).endswith(b"0\r\n\r\n")
        await one.ended.wait()
        assert one.node.events_closed.is_set()
        await stream.aclose()


async def test_the_end_of_the_server_refuses_those_who_wait() -> None:
    node = FakeNode()
    node.hold = True
    async with served(node) as one, one.client() as client, trio.open_nursery() as nursery:

        async def trade() -> None:
            answer = await client.post("/buy/foobar", content=b"w")
            assert answer.status_code == 503
            assert answer.headers["x-bitwrk-error"] == "shutting-down"

        nursery.start_soon(trade)
        await node.waiting.wait()
        one.stop.set()
        await node.cancelled.wait()


async def test_a_client_that_does_not_read_cannot_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer.api.server, "API_STOP_GRACE_S", 0.05)
    node = FakeNode()
    node.endless_file = "a" * 64
    async with served(node) as one:
        stalled = await one.raw()
        await stalled.send_all(one.head("GET /file/" + "a" * 64))
        await stalled.receive_some(100)
        idle = await one.raw()
        half = await one.raw()
        await half.send_all(b"GET /id HTT")
        await trio.testing.wait_all_tasks_blocked(0.05)
        one.stop.set()
        with trio.fail_after(10):
            await one.ended.wait()
        assert node.file_closed.is_set()
        for stream in (stalled, idle, half):
            await stream.aclose()


async def test_being_cancelled_is_not_held_up_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer.api.server, "API_STOP_GRACE_S", 0.05)
    node = FakeNode()
    node.endless_file = "a" * 64
    async with served(node) as one:
        stalled = await one.raw()
        await stalled.send_all(one.head("GET /file/" + "a" * 64))
        await stalled.receive_some(100)
        await trio.testing.wait_all_tasks_blocked(0.05)
        one.scope.cancel()
    # The server is at its end here, while the client still holds its connection and does not read.
    assert node.file_closed.is_set()
    await stalled.aclose()


async def test_an_answer_under_way_is_finished() -> None:
    node = FakeNode()
    async with served(node) as one, one.client() as client:
        name = (await client.post("/buy/foobar", content=bytes(8 << 20))).headers["location"]
        stream = await one.raw()
        await stream.send_all(one.head(f"GET {name}", "Connection: close"))
        got = await stream.receive_some(1_000)
        one.stop.set()
        got += await read_all(stream)
        assert len(got.partition(b"\r\n\r\n")[2]) == 8 << 20
        await stream.aclose()


async def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer.api.server, "API_CONNECTIONS_MAX", 2)
    async with served() as one:
        first, second = await one.raw(), await one.raw()
        for stream in (first, second):
            await stream.send_all(one.head("GET /id"))
            assert (await stream.receive_some(1_000)).startswith(b"HTTP/1.1 200")
        third = await one.raw()
        assert await read_all(third) == b""
        for stream in (first, second, third):
            await stream.aclose()


def test_port_in_use_is_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(LocalFault, match=f"port {port} of this machine is in use; choose another with --api-port") as caught:
            bind_loopback(port)
        assert caught.value.code == "port-in-use"


@pytest.mark.parametrize("port", [-1, 65_536])
def test_ports_that_are_none(port: int) -> None:
    with pytest.raises(LocalFault, match="is not a port"):
        bind_loopback(port)


def test_only_the_loopback_interface_and_no_heirs() -> None:
    with bind_loopback(0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
        assert not listener.get_inheritable()


async def test_a_closed_port_can_be_had_again_at_once() -> None:
    async with served() as one, one.client() as client:
        assert (await client.get("/id")).status_code == 200
        port = one.port
    bind_loopback(port).close()
