"""A node for the API to talk to, with a store in memory and a market that a test controls."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx
import trio

from peer.api.server import bind_loopback, serve_api
from peer.api.service import Json
from wire.digest import content_id
from wire.errors import Refused

TOKEN = "the-token-of-this-test"
DAY: Json = {"matches": 2, "units": 3, "sum_msat": 8_550_000, "mean_msat": 2_850_000, "min_msat": 2_850_000}
DAY |= {"max_msat": 2_850_000, "first_msat": 2_850_000, "last_msat": 2_850_000}
SLOT: Json = {"begin_us": 1_795_227_420_000_000, "end_us": 1_795_227_480_000_000, **DAY}
QUOTED: Json = {"last_msat": 2_850_000, "spread_msat": None, "best_ask_msat": 2_600_000, "sell_units": 5, "buy_units": 0}
QUOTED |= {"buy_orders": 0, "sell_orders": 2, "buyers": 0, "sellers": 1, "day": DAY}


class FakeWallet:
    """A wallet that says what it was asked."""

    def __init__(self, node: "FakeNode") -> None:
        self._node = node

    def _told(self, *asked: object) -> Json:
        self._node.asked.append(asked)
        if self._node.refusal is not None:
            raise self._node.refusal
        return {"network": "regtest", "money": "play", "asked": [str(one) for one in asked]}

    async def holdings(self) -> Json:
        return self._told("holdings")

    async def history(self, from_height: int | None) -> Json:
        return self._told("history", from_height)

    async def fees(self) -> Json:
        return self._told("fees")

    async def quote(self, address: str, value_sat: int | None, feerate: int | None) -> Json:
        return self._told("quote", address, value_sat, feerate)

    async def send(self, request: str, address: str, value_sat: int | None, feerate: int | None) -> Json:
        return self._told("send", request, address, value_sat, feerate)

    async def recall(self, peers: Sequence[str]) -> list[str]:
        self._told("recall", *peers)
        return list(peers)

    def escrow(self, channel: str) -> Json:
        return self._told("escrow", channel)


class FakeNode:
    """Returns the work as the result, unless told to wait, to refuse or to break."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.bought: list[tuple[str, str, int | None, float]] = []
        self.refusal: Exception | None = None
        self.hold = False
        self.broken = False
        self.watched: list[str] = []
        self.mandated: list[bool] = []
        self.asked: list[tuple[object, ...]] = []
        self.gate = trio.Event()
        self.waiting = trio.Event()
        self.cancelled = trio.Event()
        self.put_bytes = 0
        self.put_started = trio.Event()
        self.put_failed: BaseException | None = None
        self.put_ended = trio.Event()
        self.closed_for: list[str] = []
        self.events_closed = trio.Event()
        self.file_closed = trio.Event()
        self.endless_file: str | None = None
        self.happenings_in, self.happenings = trio.open_memory_channel[Json](100)

    @property
    def wallet(self) -> "FakeWallet":
        return FakeWallet(self)

    async def put(self, body: AsyncIterator[bytes]) -> str:
        whole = bytearray()
        self.put_started.set()
        try:
            async for piece in body:
                self.put_bytes += len(piece)
                whole += piece
        except BaseException as error:
            self.put_failed = error
            raise
        finally:
            self.put_ended.set()
        name = content_id(bytes(whole)).hex()
        self.files[name] = bytes(whole)
        return name

    async def buy(
        self, article: str, work: str, *, bid_msat: int | None, wait_s: float, mandated: bool, once: bool = False
    ) -> str:
        self.bought.append((article, work, bid_msat, wait_s))
        self.mandated.append(mandated)
        self.waiting.set()
        if self.refusal is not None:
            raise self.refusal
        if self.hold:
            try:
                await self.gate.wait()
            except trio.Cancelled:
                self.cancelled.set()
                raise
        return work

    async def open_file(self, content: str) -> tuple[int, AsyncIterator[bytes]] | None:
        if content == self.endless_file:
            return 1 << 40, self._endless()
        found = self.files.get(content)
        return None if found is None else (len(found), self._pieces(found))

    async def _pieces(self, data: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(data), 65_536):
            yield data[start : start + 65_536]

    async def _endless(self) -> AsyncIterator[bytes]:
        try:
            while True:
                await trio.lowlevel.checkpoint()
                yield bytes(65_536)
        finally:
            self.file_closed.set()

    def status(self) -> Json:
        return {"state": "well"}

    def account(self) -> Json:
        return {"account": "1…"}

    def orders(self) -> list[Json]:
        return [{"side": "buy"}]

    def trades(self) -> list[Json]:
        return [{"trade": 1}]

    def channels(self) -> list[Json]:
        return [{"channel": 1}]

    def peers(self) -> list[Json]:
        return [{"peer": 1}]

    def workers(self) -> list[Json]:
        return [{"worker": 1}]

    def books(self) -> list[Json]:
        if self.broken:
            raise RuntimeError("a mistake in the node")
        return [{"article": article} for article in self.watched]

    def articles(self) -> list[Json]:
        return [
            {"book": "b1" * 32, "article": "foobar", "free": False, **QUOTED},
            {"book": "b0" * 32, "article": "foobar", "free": True},
        ]

    def depth(self, book: str, *, levels: int) -> Json:
        if self.refusal is not None:
            raise self.refusal
        self.asked.append(("depth", book, levels))
        level = {"price_msat": 2_600_000, "orders": 2, "units": 5, "matched_units": 1}
        return {"book": book, "article": "foobar", "bids": {"levels": []}, "asks": {"levels": [level]}}

    def prices(self, book: str, *, slot: str, series: str, from_us: int | None, to_us: int | None, limit: int) -> Json:
        if self.refusal is not None:
            raise self.refusal
        self.asked.append(("prices", book, slot, series, from_us, to_us, limit))
        return {
            "book": book,
            "article": "foobar",
            "slot": slot,
            "series": series,
            "left_off": 0,
            "slots": [SLOT],
            "quartiles": None,
        }

    def book_messages(self, book: str) -> Json:
        if book != "b0":
            raise Refused("unknown-book", "no such book")
        return {"book": book, "messages": [], "more": 0}

    async def watch(self, article: str) -> None:
        self.watched.append(article)

    async def close_channels(self, reason: str) -> list[Json]:
        self.closed_for.append(reason)
        return [{"channel": 1, "reason": reason}]

    async def _ask(self, *what: object) -> None:
        await trio.lowlevel.checkpoint()
        if self.refusal is not None:
            raise self.refusal
        self.asked.append(what)

    async def place_buy(self, article: str, work: str, *, bid_msat: int | None, wait_s: float) -> str:
        await self._ask("buy", article, work, bid_msat, wait_s)
        return "a1"

    async def place_sell(self, article: str, worker: str, *, ask_msat: int, slots: int) -> str:
        await self._ask("sell", article, worker, ask_msat, slots)
        return "a2"

    async def cancel_order(self, order: str) -> None:
        await self._ask("cancel", order)

    async def grant(self, side: str, article: str, *, price_msat: int, trades: int | None, minutes: int | None) -> Json:
        await self._ask("grant", side, article, price_msat, trades, minutes)
        return {"id": "b1"}

    async def revoke(self, mandate: str) -> None:
        await self._ask("revoke", mandate)

    async def register_worker(self, name: str, article: str, push_url: str) -> Json:
        await self._ask("register", name, article, push_url)
        return {"name": name}

    async def unregister_worker(self, name: str) -> None:
        await self._ask("unregister", name)

    async def appeal(self, channel: str, *, to_seller_sat: int | None, statement: str) -> Json:
        await self._ask("appeal", channel, to_seller_sat, statement)
        return {"channel": channel, "phase": "asked"}

    async def rule(self, case: str, *, to_seller_sat: int, reason: str) -> Json:
        await self._ask("rule", case, to_seller_sat, reason)
        return {"case": case, "phase": "ruled"}

    def bonds(self) -> list[Json]:
        return [{"bond": "b1" * 32, "phase": "locked"}, {"bond": None, "phase": "seen"}]

    async def lock_bond(self, value_sat: int, *, blocks: int) -> Json:
        await self._ask("lock", value_sat, blocks)
        return {"bond": "b1" * 32}

    async def release_bond(self, bond: str) -> Json:
        await self._ask("release", bond)
        return {"bond": bond}

    def frauds(self) -> list[Json]:
        return [{"account": "1…"}]

    def cases(self) -> list[Json]:
        return [{"case": "c1" * 32, "phase": "open", "most_sat": 1_000}]

    def appeals(self) -> list[Json]:
        return [{"channel": "c1" * 32}]

    def mandates(self) -> list[Json]:
        return [{"mandate": 1}]

    def metrics(self) -> bytes:
        return b"# HELP bitwrk_peers Connected nodes.\n# TYPE bitwrk_peers gauge\nbitwrk_peers 1.0\n"

    async def events(self, after: int | None = None) -> AsyncIterator[Json]:
        self.asked.append(("events", after))
        try:
            async for event in self.happenings:
                yield event
        finally:
            self.events_closed.set()


class Served:
    """A served node: how to reach it, and how to stop it."""

    def __init__(self, node: FakeNode, port: int, stop: trio.Event, scope: trio.CancelScope) -> None:
        self.node = node
        self.port = port
        self.stop = stop
        self.scope = scope
        self.ended = trio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, token: str | None = TOKEN) -> httpx.AsyncClient:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, trust_env=False, timeout=20)

    async def raw(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    def head(self, line: str, *headers: str, host: str | None = None) -> bytes:
        lines = [f"{line} HTTP/1.1", f"Host: {host or f'127.0.0.1:{self.port}'}", *headers, "", ""]
        return "\r\n".join(lines).encode()


@asynccontextmanager
async def served(node: FakeNode | None = None) -> AsyncIterator[Served]:
    """Serve ``node`` for real; at the end the server has to come to its end by itself."""
    node = node or FakeNode()
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        one = Served(node, 0, stop, nursery.cancel_scope)

        async def run(*, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
            await serve_api(node, bind_loopback(0), TOKEN, stop, task_status=task_status)
            one.ended.set()

        one.port = await nursery.start(run)
        try:
            yield one
        finally:
            stop.set()


async def read_all(stream: trio.SocketStream) -> bytes:
    """Everything until the server closes."""
    got = bytearray()
    while True:
        try:
            piece = await stream.receive_some(65_536)
        except trio.BrokenResourceError:
            return bytes(got)
        if not piece:
            return bytes(got)
        got += piece


async def send_without_end(one: Served, head: bytes, piece: bytes) -> bytes:
    """Send ``head`` and then ``piece`` again and again, reading at the same time, and return what the server answers."""
    stream = await one.raw()
    await stream.send_all(head)
    answer = b""
    async with trio.open_nursery() as nursery:

        async def flood() -> None:
            try:
                while True:
                    await stream.send_all(piece)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass

        nursery.start_soon(flood)
        answer = await read_all(stream)
        nursery.cancel_scope.cancel()
    await stream.aclose()
    return answer
