"""A whole run: the cast is made, people act, adversaries do harm, hosts come and go, quiet follows, and the end is checked."""

from collections.abc import Callable
from random import Random

from orderbook.core.events import Cleared, Follow
from orderbook.core.market import Market
from peer.core.events import Watched
from peer.core.shop import Shop
from simulations.world.checkers import Signatures, Views
from simulations.world.churn import Fates
from simulations.world.deals import Office
from simulations.world.dice import dice
from simulations.world.eventlog import Kind
from simulations.world.host import Core, Host
from simulations.world.ledgers import Ledgers
from simulations.world.mischief import GAGS, Equivocator, Flooder, Gagged
from simulations.world.money import Money
from simulations.world.people import Crowd
from simulations.world.plan import Plan
from simulations.world.work import Works
from simulations.world.world import INSTANCE, START, World
from wire.errors import Refused
from wire.keys import peer_id_of
from wire.moments import SECOND, Instant

Progress = Callable[[float], None]
"""Called with the share of virtual time that has passed."""

_BLOCKS_TO_END = 700
_SECONDS_PER_LAST_BLOCK = 3


class Stage:
    """One run of one plan with one seed."""

    def __init__(self, plan: Plan, seed: int) -> None:
        self.plan = plan
        self.world = World(plan, seed)
        self.instance = INSTANCE
        self.over = False
        self.signatures = Signatures(self.world.sharing.orders)
        self.views = Views()
        self.ledgers = Ledgers(self._is_honest)
        self.works = Works(self.world, dice(seed, "works"))
        self._dice: Random = dice(seed, "stage")
        self._shop = Shop(self.world.network, INSTANCE)
        self._cast()
        self.money = Money(self.world) if plan.deals else None
        self.crowd: Crowd | Office = Office(self) if plan.deals else Crowd(self)
        self.fates = Fates(self)
        world = self.world
        articles = [self.article(number) for number in range(plan.articles)]
        world.directories.names = {self._shop.book(one, free): one for one in articles for free in (True, False)}
        world.make_core = self._make_core
        world.watch_market = self._cleared
        world.on_start += [self.crowd.begin, self.fates.begin, self._take_part]
        world.row_watchers += [self.signatures.row, self.ledgers.row]
        for host in world.everyone:
            self.works.add(host)
            if self.money is not None:
                self.money.issue(host)
        if self.money is not None:
            world.on_crash.append(self.money.forget)

    # --- the cast ---------------------------------------------------------------------------------------------------

    def article(self, number: int) -> str:
        """The name of an article."""
        return f"net.bitwrk/simulated/{number}"

    def book_of(self, host: Host) -> bytes:
        """The paid book of the article that a host trades."""
        return self._shop.book(self.article(host.number % self.plan.articles), free=False)

    def follow(self, book: bytes) -> Follow:
        """Take part in a book."""
        return Follow(book=book)

    def _is_honest(self, account: bytes) -> bool:
        host = self.world.hosts.get(peer_id_of(account))
        return host is not None and host.honest

    def _cast(self) -> None:
        bad = self.plan.mischief
        villains = (
            ["silent-seller"] * bad.silent_sellers
            + ["silent-buyer"] * bad.silent_buyers
            + ["keyless-seller"] * bad.keyless_sellers
            + ["equivocator"] * bad.equivocators
            + ["flooder"] * bad.flooders
        )
        honest = self.plan.nodes - len(villains)
        if honest < 2 or self.plan.articles < 1:
            raise Refused("bad-scenario", "a world needs an article and at least two honest nodes")
        if bad.keyless_sellers and not self.plan.deals:
            raise Refused("bad-scenario", "sellers can only keep keys back in a world with deals")
        buyers = round(honest * self.plan.trade.buyers)
        roles = ["buyer"] * buyers + ["seller"] * (honest - buyers) + villains
        self._dice.shuffle(roles)
        for role in roles:
            self.world.add(role, honest=role in ("buyer", "seller"))

    def _make_core(self, host: Host) -> Core:
        world, bad = self.world, self.plan.mischief
        if host.role == "equivocator":
            market = Market(world.network, host.peer_id, world.sharing.craft)
            return Equivocator(host, world.network, market, self.book_of(host), self.plan.trade.ask_least_msat)
        core = world.honest_core(host)
        if host.role == "flooder":
            draw = dice(world.seed, "flood", host.number, host.life)
            return Flooder(core, host, world.network, self.book_of(host), bad.flood_per_s, bad.flood_false, draw)
        gag = GAGS.get(host.role)
        return core if gag is None else Gagged(core, gag)

    def _take_part(self, host: Host) -> None:
        """Adversaries of their own making are found and find others like everybody."""
        article = self.article(host.number % self.plan.articles)
        if host.role == "flooder" and self.plan.deals:
            self.world.give(host, Kind.PEOPLE, article.encode(), Watched(article=article))
        elif host.role in ("flooder", "equivocator"):
            self.world.give(host, Kind.PEOPLE, article.encode(), Follow(book=self.book_of(host)))
            self.world.directories.follow(host, article)

    def _cleared(self, host: Host, effect: Cleared) -> None:
        if effect.refusal or effect.again or not host.honest:
            return
        facts = (
            sum(one.quantity for one in effect.fills),
            effect.fills[0].price_msat if effect.fills else 0,
            sum(one.quantity for one in effect.buys),
            sum(one.quantity for one in effect.sells),
        )
        self.views.cleared(host, effect.book, effect.epoch, effect.root, facts)

    # --- the run ----------------------------------------------------------------------------------------------------

    def run(self, progress: Progress = lambda _: None) -> None:
        """From the first start to the end of the quiet time. Raises ``InvariantBroken`` when a rule does not hold."""
        arrive_us = round(self.plan.arrive_s * SECOND)
        for host in self.world.everyone:
            self.world.timeline.after(self._dice.randint(0, arrive_us), lambda one, _: self.world.start(one), host)
        self.fates.divide()
        if self.money is not None:
            self.money.begin()
        busy = START + round(self.plan.seconds * SECOND)
        end = busy + round(self.plan.quiet_s * SECOND)
        self._until(busy, end, progress)
        self.over = True
        self.crowd.end()
        self._until(busy + (end - busy) // 2, end, progress)
        for host in self.world.everyone:
            self.world.start(host)
        self._until(end, end, progress)
        self._settle()
        alive = self.alive
        self.views.check_end(alive, self.islands())
        self.ledgers.check_end(alive)

    def islands(self) -> dict[int, int]:
        """For every host the lowest number it is joined with by relay streams, by way of others or not."""
        island: dict[int, int] = {}
        for host in self.world.everyone:
            todo = [host]
            while todo:
                one = todo.pop()
                if one.number not in island:
                    island[one.number] = host.number
                    todo += [wire.target for wire in one.neighbours.values()]
        return island

    @property
    def alive(self) -> frozenset[int]:
        """Numbers of the honest hosts that are up."""
        return frozenset(host.number for host in self.world.everyone if host.alive and host.honest)

    def _settle(self) -> None:
        """Channels are closed, and blocks made as fast as the slowest way out of an escrow needs."""
        if self.money is None or not isinstance(self.crowd, Office):
            return
        self.crowd.close()
        for _ in range(_BLOCKS_TO_END):
            self.world.timeline.run(Instant(self.world.timeline.now + _SECONDS_PER_LAST_BLOCK * SECOND))
            if not self.ledgers.open_channels(self.alive):
                break
            self.money.mine()
        self.world.timeline.run(Instant(self.world.timeline.now + 5 * SECOND))
        self.money.chain.check()

    def _until(self, moment: int, end: int, progress: Progress) -> None:
        time = self.world.timeline
        while time.now < moment:
            time.run(Instant(min(moment, time.now + SECOND)))
            progress((time.now - START) / (end - START))

    def extra_measures(self) -> dict[str, float]:
        """What only some runs have to tell."""
        island = self.islands()
        traded = {(host.number % self.plan.articles, island[host.number]) for host in self.world.everyone if host.alive}
        found: dict[str, float] = {"crashes": self.fates.crashes, "islands_per_article": len(traded) / self.plan.articles}
        if self.money is not None:
            found |= self.ledgers.measures()
            found |= {"blocks": self.money.chain.height, "chain_fees_sat": self.money.chain.fees_sat}
            found |= {"transactions": len(self.money.chain.transactions), "content_bytes": self.works.fetched_bytes}
        if isinstance(self.crowd, Office):
            found |= {f"answers_{code.replace('-', '_')}": count for code, count in sorted(self.crowd.answers.items())}
            found["requests_waiting"] = self.crowd.waiting
        return found
