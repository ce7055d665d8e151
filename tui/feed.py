"""The one place that knows the node's latest state: reads it, hears what changes, and finds the node again when it was gone.

Every listing is read when an event says that it has changed, and otherwise every ``POLL_S``. When the node does not answer, the
last state stays, marked as old, and the feed tries again with growing pauses; each try looks into the home anew, since a
restarted node may listen elsewhere.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NoReturn

from tui.link import Link
from wire.errors import BitwrkError, LocalFault, Refused

Json = Mapping[str, Any]

LISTINGS: Final = ("status", "books", "orders", "trades", "workers", "mandates", "channels", "peers")
# Which listings an event may have changed; an event of a kind not named here makes the feed read all of them.
CHANGED_BY: Final = {
    "trade": ("trades", "orders", "status", "workers", "channels"),
    "book": ("books",),
    "order": ("orders", "trades"),
    "channel": ("channels", "status"),
    "peer": ("peers", "status"),
    "mandate": ("mandates", "orders"),
    "worker": ("workers", "orders"),
    "banned": ("peers",),
    "clock": ("status",),
    "node": ("status",),
}
POLL_S: Final = 2.0
GAP_S: Final = 0.2
RETRY_FIRST_S: Final = 0.5
RETRY_MAX_S: Final = 5.0
HISTORY_EPOCHS: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What is known of the node. ``notice`` says in words what is wrong, empty when nothing is; when not ``connected`` the
    rest is the last that was heard. ``prices`` are the latest auctions of each book: price, or None when nothing matched.
    """

    connected: bool = False
    heard: bool = False
    notice: str = "looking for the node"
    retry_s: float = 0.0
    status: Json = field(default_factory=dict)
    books: tuple[Json, ...] = ()
    orders: tuple[Json, ...] = ()
    trades: tuple[Json, ...] = ()
    workers: tuple[Json, ...] = ()
    mandates: tuple[Json, ...] = ()
    channels: tuple[Json, ...] = ()
    peers: tuple[Json, ...] = ()
    prices: Mapping[str, tuple[int | None, ...]] = field(default_factory=dict)

    @property
    def real_money(self) -> bool:
        """Whether this is real money. Anything not said to be play is taken for real."""
        return self.heard and self.status.get("money") != "play"


class Feed:
    """Keeps ``latest``, and calls ``told`` with every new snapshot. ``find`` opens the way to the node."""

    def __init__(self, find: Callable[[], Link], told: Callable[[Snapshot], None]) -> None:
        self._find = find
        self._told = told
        self._link: Link | None = None
        self._stale: set[str] = set()
        self._news = asyncio.Event()
        self._prices: dict[str, deque[tuple[int, int | None]]] = {}
        self.latest = Snapshot()

    @property
    def link(self) -> Link:
        """The open way to the node. Raises ``LocalFault`` while there is none."""
        if self._link is None:
            raise LocalFault("no-node", self.latest.notice or "no node answers")
        return self._link

    def poke(self) -> None:
        """Read everything soon; while the node is gone, look for it at once."""
        self._stale.update(LISTINGS)
        self._news.set()

    async def run(self) -> NoReturn:
        """Follow the node, and every node that comes after it, until cancelled."""
        pause = RETRY_FIRST_S
        while True:
            try:
                async with self._find() as link:
                    await self._read(link, LISTINGS)
                    self._link = link
                    pause = RETRY_FIRST_S
                    await self._follow(link)
            except BitwrkError as error:
                self._lost(error, pause)
            finally:
                self._link = None
            self._news.clear()
            if not await self._news_within(pause):
                pause = min(2 * pause, RETRY_MAX_S)

    async def _news_within(self, seconds: float) -> bool:
        """Wait for news, at most so long; returns whether there was any. ``asyncio.wait_for`` could lose our cancellation."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return False
        return True

    def _tell(self, **changes: Any) -> None:
        fresh = replace(self.latest, **changes)
        if fresh != self.latest:
            self.latest = fresh
            self._told(fresh)

    def _lost(self, error: BitwrkError, pause: float) -> None:
        self._tell(connected=False, notice=error.sentence, retry_s=pause)

    async def _follow(self, link: Link) -> None:
        """Listen and poll until one of them fails. A task group would forget that we are cancelled when both happen at once."""
        tasks = (asyncio.create_task(self._listen(link)), asyncio.create_task(self._poll(link)))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            done.pop().result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self, link: Link) -> NoReturn:
        async for event in link.events():
            self._stale.update(CHANGED_BY.get(str(event.get("kind")), LISTINGS))
            self._news.set()
        raise LocalFault("node-gone", "the node has stopped")

    async def _poll(self, link: Link) -> NoReturn:
        """Read what has changed, all of it now and then, and never more often than every ``GAP_S``."""
        while True:
            if not await self._news_within(POLL_S):
                self._stale.update(LISTINGS)
            self._news.clear()
            due = tuple(name for name in LISTINGS if name in self._stale)
            self._stale.clear()
            try:
                await self._read(link, due)
            except Refused as refused:
                self._tell(notice=refused.sentence)
            await asyncio.sleep(GAP_S)

    async def _read(self, link: Link, names: tuple[str, ...]) -> None:
        """Read these listings and tell them as one new state. Raises ``LocalFault`` or ``Refused``."""
        fresh: dict[str, Any] = {}
        for name in names:
            fresh[name] = await self._listing(link, name)
        if "books" in fresh:
            fresh["prices"] = self._remember(fresh["books"])
        status = fresh.get("status", self.latest.status)
        self._tell(connected=True, heard=True, notice=_trouble(status), retry_s=0.0, **fresh)

    async def _listing(self, link: Link, name: str) -> Any:
        try:
            answer = await link.read(name)
        except Refused as refused:
            if refused.code == "not-found":  # a node of another version may lack a listing; the others are still worth seeing
                return {} if name == "status" else ()
            raise
        if name == "status":
            return answer if isinstance(answer, dict) else {}
        return tuple(line for line in answer if isinstance(line, dict)) if isinstance(answer, list) else ()

    def _remember(self, books: tuple[Json, ...]) -> Mapping[str, tuple[int | None, ...]]:
        """Add the latest auction of each book to what is known of the earlier ones."""
        for line in books:
            name, epoch, price = str(line.get("book")), line.get("epoch"), line.get("price_msat")
            if not isinstance(epoch, int):
                continue
            past = self._prices.setdefault(name, deque(maxlen=HISTORY_EPOCHS))
            if not past or past[-1][0] != epoch:
                past.append((epoch, price if isinstance(price, int) else None))
        here = {str(line.get("book")) for line in books}
        self._prices = {name: past for name, past in self._prices.items() if name in here}
        return {name: tuple(price for _, price in past) for name, past in self._prices.items()}


def _trouble(status: Json) -> str:
    """What the node itself says is wrong, in words."""
    if status.get("clock_skewed") is True:
        return "this machine's clock is off its neighbours' clocks: the node does not trade until it is set"
    if status.get("draining") is True:
        return "the node is about to stop: it finishes what it has begun and takes on nothing new"
    return str(status.get("notice") or "")
