"""A worker over HTTP that a test controls, on a real socket."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

Answer = Callable[[bytes], bytes]


def answer_of(status: int, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


class Handyman:
    """Takes one request a connection, and answers with what the test says, when it says so."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/work"
        self.works: list[bytes] = []
        self.heads: list[bytes] = []
        self.answer: Answer = lambda work: answer_of(200, b"done: " + work)
        self.go = trio.Event()
        self.go.set()
        self.asked = trio.Event()
        self.hung_up = trio.Event()

    def hold(self) -> None:
        """From now on, answer only when the test says so."""
        self.go = trio.Event()
        self.asked = trio.Event()

    async def serve(self, stream: trio.SocketStream) -> None:
        got = b""
        while b"\r\n\r\n" not in got:
            got += await stream.receive_some(65_536)
        head, _, body = got.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        while len(body) < int(fields[b"content-length"]):
            body += await stream.receive_some(65_536)
        self.heads.append(head)
        self.works.append(body)
        self.asked.set()

        async def watch() -> None:
            try:
                if not await stream.receive_some(1):
                    self.hung_up.set()
            except trio.BrokenResourceError:
                self.hung_up.set()
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await self.go.wait()
            try:
                await stream.send_all(self.answer(body))
            except trio.BrokenResourceError:
                self.hung_up.set()
            nursery.cancel_scope.cancel()
        await stream.aclose()


@asynccontextmanager
async def handyman() -> AsyncIterator[Handyman]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    worker = Handyman(listener.socket.getsockname()[1])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, worker.serve, [listener])
        yield worker
        nursery.cancel_scope.cancel()
