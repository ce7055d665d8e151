"""The soak itself: start everybody, let them trade, kill two and bring them back, judge every auction as it happens."""

import os
import random
import statistics
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import trio

from orderbook.core.messages import Side
from peer.demo.cluster import open_cluster
from tests.soak.people import Owner, serve_workers
from tests.soak.town import NO_ANSWER, House, Town
from tests.soak.verdict import Miss, double_fills, explain
from tests.soak.witness import Witness, now_us
from wire.moments import SECOND
from wire.network import REGTEST

_COLLECT_S: Final = 15
_FAUCET_SAT: Final = 50_000_000
_CLIENT_TIMEOUT_S: Final = 30
_TOLD: Final = ("peers", "inbox", "events_dropped", "clock_skewed", "counters")
_JUDGED_LATER_S: Final = 1.0  # after the end of an epoch its views must be here


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long, how many, and by which seed. ``paid``: with a shared development chain and prices, beside the free books."""

    minutes: float = 5
    seed: int = 1
    nodes: int = 8
    articles: int = 3
    kills: int = 2
    paid: bool = True


class Soak:
    """One soak."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan, self._folder = plan, folder
        self._dice = random.Random(plan.seed)
        self.done: Counter[str] = Counter()
        self.misses: list[Miss] = []
        self.judged = 0
        self._town: Town
        self._witness: Witness

    async def run(self) -> dict[str, Any]:
        """Run it and return the report."""
        began = time.monotonic()
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=256)
        async with (
            open_cluster(self._folder) as cluster,
            httpx.AsyncClient(timeout=_CLIENT_TIMEOUT_S, limits=limits, trust_env=False) as client,
        ):
            self._town = Town(cluster, client, nodes=self.plan.nodes, paid=self.plan.paid)
            self._witness = Witness(self._town)
            if self.plan.paid:
                cluster.chain.program.start()
                await cluster.chain.ready(client)
            async with trio.open_nursery() as nursery:
                man = await nursery.start(serve_workers)
                owners = [await self._begin(house, man.url, nursery) for house in self._town.houses]
                if self.plan.paid:
                    await self._pay_out()
                await self._trade(owners, nursery)
                nursery.cancel_scope.cancel()
            await self._witness.collect()
            return self._report(time.monotonic() - began)

    async def _begin(self, house: House, url: str, nursery: trio.Nursery) -> Owner:
        articles = [f"org.example/soak/{number}" for number in range(self.plan.articles)]
        owner = Owner(self._town, house, articles, url, f"{self.plan.seed}/{house.name}", self.done)
        await self._start(house, owner, nursery)
        return owner

    async def _start(self, house: House, owner: Owner, nursery: trio.Nursery) -> None:
        await self._town.start(house, now_us())
        nursery.start_soon(self._witness.listen, house)
        await owner.settle()

    async def _pay_out(self) -> None:
        for house in self._town.houses:
            status = await self._town.ask(house, "GET", "/v1/status")
            await self._town.cluster.chain.call(self._town.client, "devfaucet", status["address"], _FAUCET_SAT)

    async def _trade(self, owners: list[Owner], nursery: trio.Nursery) -> None:
        seconds = self.plan.minutes * 60
        async with trio.open_nursery() as trading:
            for owner in owners:
                trading.start_soon(owner.live)
            nursery.start_soon(self._judge)
            nursery.start_soon(self._collect)
            victims = self._dice.sample(range(len(owners)), self.plan.kills)
            for place, victim in enumerate(victims):
                down, up = seconds * (0.3 + 0.1 * place), seconds * (0.5 + 0.1 * place)
                trading.start_soon(self._kill, self._town.houses[victim], owners[victim], down, up, nursery)
            await trio.sleep(seconds)
            trading.cancel_scope.cancel()

    async def _kill(self, house: House, owner: Owner, down_s: float, up_s: float, nursery: trio.Nursery) -> None:
        await trio.sleep(down_s)
        self._town.kill(house, now_us())
        await trio.sleep(up_s - down_s)
        await self._start(house, owner, nursery)

    # --- beside them --------------------------------------------------------------------------------------------------
    async def _collect(self) -> None:
        while True:
            await trio.sleep(_COLLECT_S)
            await self._witness.collect()

    async def _judge(self) -> None:
        """Judge every epoch a moment after it has ended, while the books still hold what explains a miss."""
        clock = REGTEST.clock
        epoch = now_us() // (clock.length_ms * 1_000) + 1
        while True:
            await trio.sleep(max(0, (clock.start(epoch + 1) - now_us()) / SECOND + _JUDGED_LATER_S))
            runs = [run for house in self._town.houses for run in house.runs]
            misses = []
            for book in sorted(self._witness.articles):
                count, miss = self._witness.roots.judge((epoch, book), runs)
                self.judged += count > 1
                if miss is not None:
                    misses.append(miss)
            if misses:
                await self._explain(misses)
            epoch += 1

    async def _explain(self, misses: list[Miss]) -> None:
        """Ask everybody about all misses of one epoch at once, for books forget."""
        self.misses += misses
        books: dict[str, dict[str, list[dict[str, Any]]]] = {miss.book: {} for miss in misses}
        nodes: dict[str, dict[str, Any]] = {}

        async def ask(house: House) -> None:
            try:
                for book, copies in books.items():
                    copies[house.name] = await self._witness.book(house, book)
                status = await self._town.ask(house, "GET", "/v1/status")
                nodes[house.name] = {name: status[name] for name in _TOLD} | {"neighbours": len(status["neighbours"])}
            except NO_ANSWER:
                self.done["could not be asked about a miss"] += 1

        async with trio.open_nursery() as asking:
            for house in self._town.living():
                asking.start_soon(ask, house)
        asked = now_us() // (REGTEST.clock.length_ms * 1_000)
        for miss in misses:
            miss.nodes = nodes
            explain(miss, books[miss.book], asked)

    # --- at the end ---------------------------------------------------------------------------------------------------
    def _report(self, seconds: float) -> dict[str, Any]:
        witness = self._witness
        faults = double_fills(witness.signed, witness.quantities) + witness.false
        orders = {match.buy if side is Side.BUY else match.sell for match, side in witness.signed}
        sides = Counter(match for match, _ in witness.signed)
        late = sorted(witness.roots.late_ms) or [0.0]
        return {
            "plan": asdict(self.plan),
            "auctions_judged": self.judged,
            "auctions_with_equal_roots": self.judged - len(self.misses),
            "share_equal": (self.judged - len(self.misses)) / self.judged if self.judged else 0.0,
            "views_refused": dict(witness.roots.refused),
            "cleared_after_freeze_ms": {
                "median": round(statistics.median(late), 1),
                "p99": round(late[len(late) * 99 // 100], 1),
                "most": round(late[-1], 1),
            },
            "matches_signed_by_both": sum(count == 2 for count in sides.values()),
            "matches_signed_by_one": sum(count == 1 for count in sides.values()),
            "orders_signed_away": len(orders),
            "orders_with_known_quantity": sum(order.hex() in witness.quantities for order in orders),
            "filled_twice": faults,
            "cpu_share": {house.name: round(house.cpu_s() / seconds, 3) for house in self._town.living()},
            "load": os.getloadavg()[0],
            "what_people_did": dict(sorted(self.done.items())),
            "misses": [{**asdict(miss), "article": witness.articles.get(miss.book, "")} for miss in self.misses],
        }
