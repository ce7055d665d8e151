"""Buyers and sellers in a world of markets: zero-intelligence traders with fixed limits and jobs that come at random.

A buyer gets jobs as a Poisson process, each of some units, and wants them at his one limit until his patience ends. A seller
offers at most twice his free workers; an agreed unit keeps a worker busy for a while, and then he offers it again.
"""

from random import Random
from typing import TYPE_CHECKING

from orderbook.core.events import Agreed, Want
from orderbook.core.messages import Side
from peer.core.events import Seek
from simulations.world.dice import dice
from simulations.world.eventlog import Kind
from simulations.world.host import Host
from simulations.world.plan import Trade
from wire.moments import SECOND

if TYPE_CHECKING:
    from simulations.world.run import Stage


class Trader:
    """One person at one host, trading one article. Times to match are in ``waits_us``."""

    def __init__(self, host: Host, side: Side, article: str, book: bytes, plan: Trade, seed: int) -> None:
        self.host, self.side, self.article, self.book, self.plan = host, side, article, book, plan
        self.dice: Random = dice(seed, "trader", host.number)
        least, most = (plan.bid_least_msat, plan.bid_most_msat) if side is Side.BUY else (plan.ask_least_msat, plan.ask_most_msat)
        self.price_msat = self.dice.randrange(least, most + 1, plan.price_step_msat)
        self.wanted = 0
        self.busy = 0
        self.agreed_units = 0

    def next_job_us(self) -> int:
        """Microseconds to the next job."""
        return max(1, round(self.dice.expovariate(self.plan.jobs_per_minute) * 60 * SECOND))

    def want(self) -> Want:
        """What stands now."""
        quantity = self.wanted if self.side is Side.BUY else max(0, 2 * self.plan.slots - self.busy)
        return Want(book=self.book, side=self.side, price_msat=self.price_msat, quantity=quantity)


class Crowd:
    """All traders of a world without deals."""

    def __init__(self, stage: "Stage") -> None:
        self._stage = stage
        self._world = stage.world
        plan = stage.world.plan
        self.traders: dict[int, Trader] = {}
        self.waits_us: list[int] = []
        self._jobs: dict[int, list[list[int]]] = {}
        self.jobs = self.asked_units = self.given_up = 0
        draw = dice(stage.world.seed, "crowd")
        for host in stage.world.everyone:
            if host.role.endswith(("buyer", "seller")):
                side = Side.BUY if host.role.endswith("buyer") else Side.SELL
                article = stage.article(host.number % plan.articles)
                self.traders[host.number] = Trader(host, side, article, stage.book_of(host), plan.trade, draw.getrandbits(32))
        self._world.watch(Agreed, self._agreed)

    def begin(self, host: Host) -> None:
        """Its process has started: follow the book, want what is wanted."""
        trader = self.traders.get(host.number)
        if trader is None:
            return
        self._world.give(host, Kind.PEOPLE, b"follow" + trader.book, self._stage.follow(trader.book))
        self._world.performers[Seek](host, Seek(article=trader.article))
        self._tell(trader)
        if trader.side is Side.BUY and host.life == 1:
            self._world.timeline.after(trader.next_job_us(), self._job, trader)

    def _tell(self, trader: Trader) -> None:
        want = trader.want()
        self._world.give(trader.host, Kind.PEOPLE, b"want" + want.quantity.to_bytes(4, "big"), want)

    def _job(self, trader: Trader, _: None) -> None:
        if self._stage.over:
            return
        plan = trader.plan
        units = trader.dice.randint(plan.units_least, plan.units_most)
        if trader.host.alive:
            self.jobs += 1
            self.asked_units += units
            trader.wanted += units
            now = self._world.timeline.now
            self._jobs.setdefault(trader.host.number, []).append([now, units])
            self._tell(trader)
            self._world.timeline.after(round(plan.patience_s * SECOND), self._lapse, trader, now)
        self._world.timeline.after(trader.next_job_us(), self._job, trader)

    def _lapse(self, trader: Trader, asked_at: int) -> None:
        """Patience has ended for a job: what is left of it is not wanted any more."""
        waiting = self._jobs.get(trader.host.number, [])
        late = [one for one in waiting if one[0] <= asked_at]
        units = sum(one[1] for one in late)
        if units:
            self._jobs[trader.host.number] = [one for one in waiting if one[0] > asked_at]
            self.given_up += units
            trader.wanted = max(0, trader.wanted - units)
            self._tell(trader)

    def _agreed(self, host: Host, effect: Agreed) -> None:
        trader = self.traders.get(host.number)
        if trader is None:
            return
        units = effect.match.match.quantity
        trader.agreed_units += units
        if effect.side is Side.BUY:
            trader.wanted = max(0, trader.wanted - units)
            self._serve(trader, units)
            return
        trader.busy += units
        work_us = round(trader.dice.uniform(trader.plan.work_least_s, trader.plan.work_most_s) * SECOND)
        self._world.timeline.after(work_us, self._free, trader, units)

    def _serve(self, trader: Trader, units: int) -> None:
        """The oldest jobs are served first."""
        waiting = self._jobs.get(trader.host.number, [])
        while units and waiting:
            taken = min(units, waiting[0][1])
            self.waits_us += [self._world.timeline.now - waiting[0][0]] * taken
            waiting[0][1] -= taken
            units -= taken
            if not waiting[0][1]:
                waiting.pop(0)

    def _free(self, trader: Trader, units: int) -> None:
        trader.busy -= units
        if trader.host.alive and not self._stage.over:
            self._tell(trader)

    def end(self) -> None:
        """Nobody wants anything any more."""
        for trader in self.traders.values():
            if trader.host.alive:
                want = Want(book=trader.book, side=trader.side, price_msat=trader.price_msat, quantity=0)
                self._world.give(trader.host, Kind.PEOPLE, b"enough", want)
