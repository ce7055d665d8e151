"""A whole run: the cast is made, people act, adversaries do harm, hosts come and go, quiet follows, and the end is checked."""

from collections.abc import Callable
from random import Random

from orderbook.core.events import Follow
from simulations.world.checkers import Signatures, Views
from simulations.world.dice import dice
from simulations.world.people import Crowd
from simulations.world.plan import Plan
from simulations.world.world import INSTANCE, START, World
from wire.moments import SECOND, Instant

Progress = Callable[[float], None]
"""Called with the share of virtual time that has passed."""

_STEPS_PER_SECOND = 1


class Stage:
    """One run of one plan with one seed."""

    def __init__(self, plan: Plan, seed: int) -> None:
        self.plan = plan
        self.world = World(plan, seed)
        self.instance = INSTANCE
        self.over = False
        self.signatures = Signatures(self.world.sharing.orders)
        self.views = Views()
        self._dice: Random = dice(seed, "stage")
        self._cast()
        self.crowd = Crowd(self)
        self.world.on_start.append(self.crowd.begin)
        self.world.row_watchers.append(self.signatures.row)

    def article(self, number: int) -> str:
        """The name of an article."""
        return f"net.bitwrk/simulated/{number}"

    def follow(self, book: bytes) -> Follow:
        """Take part in a book."""
        return Follow(book=book)

    def _cast(self) -> None:
        buyers = round(self.plan.nodes * self.plan.trade.buyers)
        roles = ["buyer"] * buyers + ["seller"] * (self.plan.nodes - buyers)
        self._dice.shuffle(roles)
        for role in roles:
            self.world.add(role)

    def run(self, progress: Progress = lambda _: None) -> None:
        """From the first start to the end of the quiet time."""
        arrive_us = round(self.plan.arrive_s * SECOND)
        for host in self.world.everyone:
            self.world.timeline.after(self._dice.randint(0, arrive_us), lambda one, _: self.world.start(one), host)
        busy = START + round(self.plan.seconds * SECOND)
        end = busy + round(self.plan.quiet_s * SECOND)
        self._until(busy, end, progress)
        self.over = True
        self.crowd.end()
        self._until(end, end, progress)
        self.views.check_end(frozenset(host.number for host in self.world.everyone if host.alive and host.honest))

    def _until(self, moment: int, end: int, progress: Progress) -> None:
        time = self.world.timeline
        while time.now < moment:
            time.run(Instant(min(moment, time.now + SECOND // _STEPS_PER_SECOND)))
            progress((time.now - START) / (end - START))
