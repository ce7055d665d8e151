"""The people of the soak: each node has an owner who places and cancels orders at random, and workers that do nothing well."""

import contextlib
import random
from collections import Counter
from typing import Any, Final

import httpx
import trio

from tests.service.handyman import Handyman
from tests.soak.town import NO_ANSWER, House, Town

WORK: Final = b"some work"
_PAUSE_S: Final = 0.6
_WAIT_S: Final = 20
_PRICES: Final = range(20, 30)
_FREE_SHARE: Final = 0.4
_MOST_BUYS: Final = 8


class Owner:
    """Whoever sits at one node. What he does depends on the seed alone; what comes of it does not."""

    def __init__(self, town: Town, house: House, articles: list[str], worker_url: str, seed: str, done: Counter[str]) -> None:
        self._town, self._house, self._articles, self._url = town, house, articles, worker_url
        self._dice = random.Random(seed)
        self._done = done
        self._work = ""

    async def settle(self) -> None:
        """After every start of the node: follow all books, keep the work, register the workers."""
        for article in self._articles:
            await self._ask("POST", "/v1/books", params={"article": article})
        self._work = (await self._ask("POST", "/v1/files", content=WORK))["id"]
        for article in self._articles:
            for number in range(2):
                await self._register(_worker(number, article), article)

    async def live(self) -> None:
        """Place and cancel until cancelled. A node that does not answer is tried again, for it may be dead at the moment."""
        while True:
            await trio.sleep(self._dice.expovariate(1 / _PAUSE_S))
            try:
                await self._act(self._dice.random(), self._dice.choice(self._articles))
            except httpx.HTTPStatusError as error:
                self._done[f"refused: {error.response.headers.get('x-bitwrk-error', error.response.status_code)}"] += 1
            except NO_ANSWER:
                self._done["no answer"] += 1

    async def _act(self, drawn: float, article: str) -> None:
        if drawn < 0.45:
            orders = await self._ask("GET", "/v1/orders")
            if sum(one["side"] == "buy" and one["state"] == "waiting" for one in orders) < _MOST_BUYS:
                order = {"side": "buy", "article": article, "work": self._work, "wait": _WAIT_S, "price": self._price()}
                await self._ask("POST", "/v1/orders", json=order)
                self._done["buys placed"] += 1
        elif drawn < 0.75:
            worker = _worker(self._dice.randrange(2), article)
            await self._register(worker, article)
            order = {"side": "sell", "article": article, "worker": worker, "price": self._price()}
            await self._ask("POST", "/v1/orders", json=order)
            self._done["sells placed"] += 1
        else:
            orders = await self._ask("GET", "/v1/orders")
            standing = [one for one in orders if one["state"] in ("waiting", "open")]
            if standing:
                await self._ask("DELETE", f"/v1/orders/{self._dice.choice(standing)['id']}")
                self._done["cancelled"] += 1

    def _price(self) -> str | None:
        if not self._town.paid or self._dice.random() < _FREE_SHARE:
            return None
        return f"sat {self._dice.choice(_PRICES)}"

    async def _register(self, worker: str, article: str) -> None:
        await self._ask("POST", "/v1/workers", json={"id": worker, "article": article, "pushurl": self._url})

    async def _ask(self, method: str, path: str, **more: Any) -> Any:
        return await self._town.ask(self._house, method, path, **more)


def _worker(number: int, article: str) -> str:
    return f"{article.rpartition('/')[2]}-{number}"


async def serve_workers(*, task_status: trio.TaskStatus[Handyman] = trio.TASK_STATUS_IGNORED) -> None:
    """One worker over HTTP that all workers of all nodes are; it is idle again when its owner sells it again."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    man = Handyman(listener.socket.getsockname()[1])
    task_status.started(man)

    async def serve(stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # its node was killed
            await man.serve(stream)

    await trio.serve_listeners(serve, [listener])
