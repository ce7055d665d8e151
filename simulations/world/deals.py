"""Buyers and sellers in a world of whole brains: jobs come at random, units are computed, paid and delivered, or refused with a
reason.
"""

from collections import Counter
from random import Random
from typing import TYPE_CHECKING

from peer.core.events import BuyAsked, CloseAsked, Reply, SellAsked
from simulations.world.checkers import broken
from simulations.world.dice import dice, secret
from simulations.world.eventlog import Kind
from simulations.world.host import Host
from simulations.world.work import result_of
from wire.moments import SECOND

if TYPE_CHECKING:
    from simulations.world.run import Stage


class Office:
    """All requests of all programs, and what became of them."""

    def __init__(self, stage: "Stage") -> None:
        self._stage, self._world, self._plan = stage, stage.world, stage.plan.trade
        self.waits_us: list[int] = []
        self.answers: Counter[str] = Counter()
        self.jobs = self.asked_units = self.given_up = 0
        self._open: dict[int, tuple[int, bytes, int]] = {}
        self._limits: dict[int, int] = {}
        self._dice: dict[int, Random] = {}
        for host in stage.world.everyone:
            draw = self._dice[host.number] = dice(stage.world.seed, "trader", host.number)
            buying = host.role.endswith("buyer")
            least, most = (
                (self._plan.bid_least_msat, self._plan.bid_most_msat)
                if buying
                else (self._plan.ask_least_msat, self._plan.ask_most_msat)
            )
            self._limits[host.number] = draw.randrange(least, most + 1, self._plan.price_step_msat)
        self._world.performers[Reply] = self._reply
        self._world.on_crash.append(self._crashed)

    def begin(self, host: Host) -> None:
        """Its process has started."""
        article = self._stage.article(host.number % self._stage.plan.articles)
        if host.role.endswith("seller"):
            offer = SellAsked(
                order=1 << 40 | host.number,
                article=article,
                worker="simulated",
                ask_msat=self._limits[host.number],
                slots=self._plan.slots,
            )
            self._world.give(host, Kind.PEOPLE, b"sell" + article.encode(), offer)
        elif host.role.endswith("buyer") and host.life == 1:
            self._world.timeline.after(self._next_us(host), self._job, host, article)

    def _next_us(self, host: Host) -> int:
        return max(1, round(self._dice[host.number].expovariate(self._plan.jobs_per_minute) * 60 * SECOND))

    def _job(self, host: Host, article: str) -> None:
        if self._stage.over:
            return
        self._world.timeline.after(self._next_us(host), self._job, host, article)
        if not host.alive:
            return
        units = self._dice[host.number].randint(self._plan.units_least, self._plan.units_most)
        self.jobs += 1
        for _ in range(units):
            self.asked_units += 1
            work = secret(self._world.seed, "work", self.asked_units)
            self._stage.works.put(host, work, self._plan.work_bytes)
            self._open[self.asked_units] = (self._world.timeline.now, work, host.number)
            asked = BuyAsked(
                request=self.asked_units,
                article=article,
                work=work,
                work_bytes=self._plan.work_bytes,
                bid_msat=self._limits[host.number],
                wait_us=round(self._plan.patience_s * SECOND),
            )
            self._world.give(host, Kind.PEOPLE, work, asked)

    def _reply(self, host: Host, effect: Reply) -> None:
        asked = self._open.pop(effect.request, None)
        if asked is None:
            return
        moment, work, _ = asked
        if effect.result is None:
            self.answers[effect.code] += 1
            self.given_up += 1
            return
        if effect.result != result_of(work):
            raise broken("wrong-result", f"node {host.number} was given another result than its work has")
        self.answers["result"] += 1
        self.waits_us.append(self._world.timeline.now - moment)

    def _crashed(self, host: Host) -> None:
        """The programs that asked have lost their connection."""
        for number in [number for number, (_, _, owner) in self._open.items() if owner == host.number]:
            del self._open[number]
            self.answers["lost-in-crash"] += 1

    @property
    def waiting(self) -> int:
        """Requests without an answer."""
        return len(self._open)

    def end(self) -> None:
        """Nobody asks for anything new; what was asked is still answered."""

    def close(self) -> None:
        """Everybody closes his channels."""
        for host in self._world.everyone:
            if host.alive and host.role:
                self._world.give(host, Kind.PEOPLE, b"close", CloseAsked(reason="the simulation ends"))
