"""Workers that come and go over the local API: who they are, and what the market is told of them."""

from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, Protocol

import httpx
import trio

from peer.core.events import SellAsked, SellStopped, SlotsChanged
from peer.core.terms import check_article
from peer.node.feed import Feed
from peer.workers.http import HttpWorker, check_push_url, check_worker_name
from peer.workers.pool import PoolStatistics
from wire.errors import Refused
from wire.limits import HTTP_WORKERS_MAX

SILENT: Final = "unregistered"


class Worker(Protocol):
    """What computes: a pool of our own processes, or somebody's HTTP worker."""

    async def run(self, work: bytes, *, time_s: float | None = None) -> bytes:
        """The result of ``work``. Raises ``WorkFailed``; cancelling it ends the computation."""
        ...

    def statistics(self) -> PoolStatistics: ...


class Registry:
    """HTTP workers by name, beside the ``workers`` that the node itself runs, which keep their names."""

    def __init__(
        self,
        *,
        workers: dict[str, Worker],
        nursery: trio.Nursery,
        client: httpx.AsyncClient,
        numbers: Iterator[int],
        tell: Callable[[Any], Awaitable[None]],
        tell_nowait: Callable[[Any], bool],
        feed: Feed,
    ) -> None:
        self._workers = workers
        self._nursery = nursery
        self._client = client
        self._numbers = numbers
        self._tell = tell
        self._tell_nowait = tell_nowait
        self._feed = feed
        self._http: dict[str, HttpWorker] = {}
        self._told: dict[str, tuple[int, str]] = {}

    def get(self, name: str) -> HttpWorker | None:
        """The HTTP worker of this name."""
        return self._http.get(name)

    async def register(self, name: str, article: str, url: str) -> HttpWorker:
        """A new worker, sold under the owner's mandates, or news of one that is known: it is idle. Raises ``Refused``."""
        check_worker_name(name)
        check_article(article)
        check_push_url(url)
        known = self._http.get(name)
        if known is not None and known.article == article:
            known.register(url)
            return known
        if known is not None:
            await self.unregister(name)
        if name in self._workers:
            raise Refused("name-taken", f"this node runs a worker called {name} itself; choose another id")
        if len(self._http) >= HTTP_WORKERS_MAX:
            raise Refused("workers-full", f"there are {HTTP_WORKERS_MAX} registered workers already")
        worker = HttpWorker(name, article, url, client=self._client, nursery=self._nursery, changed=lambda: self._changed(worker))
        self._http[name] = self._workers[name] = worker
        self._told[name] = (1, "")  # before anything is awaited: the same worker may register twice at once
        order = next(self._numbers)
        await self._tell(SellAsked(order=order, article=article, worker=name, ask_msat=None, slots=1, ahead=False))
        self._changed(worker)
        return worker

    async def unregister(self, name: str) -> None:
        """Forget a worker; what it computes is given up by whoever waits for it. Raises ``Refused``."""
        worker = self._http.pop(name, None)
        if worker is None:
            raise Refused("unknown-worker", f"no worker called {name} has registered here")
        del self._workers[name]
        del self._told[name]
        worker.hang_up()
        self._feed.publish("worker", worker=name, article=worker.article, state=SILENT)
        await self._tell(SellStopped(worker=name, gone=True))

    def _changed(self, worker: HttpWorker) -> None:
        if self._http.get(worker.name) is not worker:
            return
        slots, state = self._told[worker.name]
        self._told[worker.name] = (worker.slots, worker.state)
        if worker.state != state:
            self._feed.publish("worker", worker=worker.name, article=worker.article, state=worker.state)
        if worker.slots != slots:
            event = SlotsChanged(worker=worker.name, slots=worker.slots)
            if not self._tell_nowait(event):
                self._nursery.start_soon(self._tell, event)
