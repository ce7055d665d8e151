"""The client of the local API, against a real server."""

import io
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.to_thread

from peer.client import LocalNode
from peer.home import Home
from tests.api.node import TOKEN, FakeNode, served
from wire.errors import LocalFault, Refused


async def test_buy_fetch_and_read() -> None:
    async with served() as one:

        def use() -> None:
            with LocalNode(one.port, TOKEN) as node:
                content = node.buy("net.bitwrk/rays/1", [b"wo", b"rk"], bid="uBTC 340", wait_s=3, size=4)
                sink = io.BytesIO()
                assert node.fetch(content, sink) == 4
                assert sink.getvalue() == b"work"
                assert node.read("status") == {"state": "well"}
                assert node.read("peers") == [{"peer": 1}]
                assert node.close_channels("why not")[0]["reason"] == "why not"
                chunked = node.buy("foobar", iter([b"a", b"", b"b"]))
                assert chunked != content
            assert [bought[0] for bought in one.node.bought] == ["net.bitwrk/rays/1", "foobar"]
            assert [bought[2:] for bought in one.node.bought] == [(34_000_000, 3), (None, 60)]

        await trio.to_thread.run_sync(use)


async def test_events() -> None:
    async with served() as one:

        def use() -> list[dict[str, object]]:
            with LocalNode(one.port, TOKEN) as node:
                return list(node.events())

        async with trio.open_nursery() as nursery:
            got: list[list[dict[str, object]]] = []

            async def listen() -> None:
                got.append(await trio.to_thread.run_sync(use))

            nursery.start_soon(listen)
            for number in range(3):
                await one.node.happenings_in.send({"number": number})
            while one.node.happenings.statistics().current_buffer_used:
                await trio.testing.wait_all_tasks_blocked(0.01)
            one.stop.set()
        assert got == [[{"number": 0}, {"number": 1}, {"number": 2}]]


async def test_refusals_keep_their_code_and_sentence() -> None:
    node = FakeNode()
    node.refusal = Refused("no-match", "nobody offered foobar")
    async with served(node) as one:

        def use() -> None:
            with LocalNode(one.port, TOKEN) as client:
                with pytest.raises(Refused, match="nobody offered foobar") as caught:
                    client.buy("foobar", [b"w"])
                assert caught.value.code == "no-match"
                with pytest.raises(Refused) as caught:
                    client.fetch("0" * 64, io.BytesIO())
                assert caught.value.code == "unknown-file"
                with pytest.raises(Refused) as caught:
                    client.fetch("../v1/status", io.BytesIO())
                assert caught.value.code in ("unknown-file", "not-found")
            with LocalNode(one.port, "wrong") as stranger, pytest.raises(Refused) as caught:
                stranger.read("status")
            assert caught.value.code == "token-wrong"

        await trio.to_thread.run_sync(use)


async def test_a_large_body_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peer.api.body.BODY_MAX_BYTES", 1 << 20)
    async with served() as one:

        def use() -> None:
            with LocalNode(one.port, TOKEN) as client, pytest.raises(Refused) as caught:
                client.buy("foobar", (bytes(65_536) for _ in range(40)), size=40 * 65_536)
            assert caught.value.code == "too-large"

        await trio.to_thread.run_sync(use)
        assert one.node.put_bytes == 0


def test_no_node_there() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with (
            LocalNode(closed.getsockname()[1], "t") as node,
            pytest.raises(LocalFault, match="no node answers on port") as caught,
        ):
            node.read("status")
        assert caught.value.code == "no-node"


def _answering(*answers: bytes) -> tuple[int, threading.Thread]:
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener:
            for answer in answers:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65_536)
                    connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    return listener.getsockname()[1], thread


@pytest.mark.parametrize(
    ("answer", "code", "code_of_buy"),
    [
        (b"", "node-gone", "node-gone"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "node-gone", "node-gone"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "strange-answer", "strange-answer"),
        (b"HTTP/1.1 500 No\r\nContent-Length: 5\r\n\r\nhello", "refused", "refused"),
        (b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\n[]", "refused", "refused"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello", "node-gone", "strange-answer"),
    ],
)
def test_strangers_on_the_port(answer: bytes, code: str, code_of_buy: str) -> None:
    def code_raised_by(call: Callable[[LocalNode], object]) -> str:
        port, thread = _answering(answer)
        with LocalNode(port, "t") as node, pytest.raises((LocalFault, Refused)) as caught:
            call(node)
        thread.join()
        assert "\n" not in str(caught.value)
        return str(caught.value.code)

    assert code_raised_by(lambda node: node.read("status")) == code
    assert code_raised_by(lambda node: node.buy("foobar", [b"w"])) == code_of_buy


def test_a_proxy_never_sees_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    port, thread = _answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    with LocalNode(port, "t") as node:
        assert node.read("status") == {}
    thread.join()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.at(tmp_path / "h")


async def test_a_node_is_found_by_its_home(home: Home) -> None:
    with pytest.raises(LocalFault, match="no node runs in"):
        LocalNode.at(home.folder)
    home._create_private(home.token_path, TOKEN + "\n")
    async with served() as one:
        with home.announce(one.port):

            def use() -> object:
                with LocalNode.at(home.folder) as node:
                    return node.read("status")

            assert await trio.to_thread.run_sync(use) == {"state": "well"}
    assert os.listdir(home.folder) == ["api-token"]  # noqa: PTH208
