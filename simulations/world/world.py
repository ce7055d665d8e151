"""One world: hosts with real cores, and around them everything a driver and the internet would do, in virtual time.

The rule of ``wire.effects`` holds here as in a node: all rows of one ``handle`` are kept before any other effect of it is
performed, and a host may die between the two. Whatever happens is an entry of the event log, and is shown to the checkers at
once.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

from orderbook.core import events as book
from orderbook.core.market import Market
from peer.core import events as node
from peer.core.brain import TABLES, Brain, saves_first
from simulations.world.dice import dice, secret
from simulations.world.directories import Directories
from simulations.world.eventlog import EventLog, Kind
from simulations.world.host import Core, Host
from simulations.world.latency import delay_model
from simulations.world.marketonly import MarketOnly
from simulations.world.plan import Plan
from simulations.world.roads import Roads
from simulations.world.sharing import Sharing
from simulations.world.timeline import Timeline
from wire.effects import Count, Save
from wire.errors import Refused
from wire.keys import PeerId, SecretKey
from wire.moments import MILLISECOND, SECOND, Instant
from wire.network import REGTEST, SIGNET, EpochClock, Network

START: Final = Instant(1_760_000_000 * SECOND)
INSTANCE: Final = b"simulated chain, 32 bytes long.."
_CLOCKS: Final = {"fast": REGTEST.clock, "public": SIGNET.clock}
_TURN_US: Final = 100

Watcher = Callable[[Host, Any], None]


def simulated_network(clock: EpochClock, stamp_bits: int) -> Network:
    """The network of a simulation: regtest's blocks, any epochs, stamps as cheap as wanted."""
    return Network(
        name="simulated",
        bitcoin="regtest",
        hrp="bcrt",
        real_money=False,
        clock=clock,
        refund_blocks=REGTEST.refund_blocks,
        margin_blocks=REGTEST.margin_blocks,
        claim_delay_blocks=REGTEST.claim_delay_blocks,
        confirmations=REGTEST.confirmations,
        feerate_min_sat_per_kvb=REGTEST.feerate_min_sat_per_kvb,
        feerate_max_sat_per_kvb=REGTEST.feerate_max_sat_per_kvb,
        stamp_bits=stamp_bits,
        memo_max_bytes=REGTEST.memo_max_bytes,
    )


class SeenMarket(Market):
    """The product's market; what it clears is shown to ``seen`` as well."""

    seen: Callable[[book.Cleared], None]

    def handle(self, event: book.MarketEvent, now: Instant) -> tuple[book.MarketEffect, ...]:
        """As the product."""
        effects = super().handle(event, now)
        for effect in effects:
            if type(effect) is book.Cleared:
                self.seen(effect)
        return effects


class World:
    """Hosts, roads and time. ``performers`` take effects by their class, ``watchers`` see rows and effects of every host."""

    def __init__(self, plan: Plan, seed: int) -> None:
        if plan.clock not in _CLOCKS:
            raise Refused("bad-clock", f"there is no clock {plan.clock!r}; use fast or public")
        self.plan, self.seed = plan, seed
        self.network = simulated_network(_CLOCKS[plan.clock], plan.stamp_bits)
        self.timeline = Timeline(START)
        self.log = EventLog()
        self.sharing = Sharing(self.network)
        self.hosts: dict[PeerId, Host] = {}
        self.everyone: list[Host] = []
        roads = plan.roads
        delay = delay_model(roads.model, roads.least_ms, roads.most_ms, dice(seed, "delay"))
        self.roads = Roads(self, roads, delay, dice(seed, "roads"))
        self.directories = Directories(self, dice(seed, "directories"))
        self.performers: dict[type, Callable[[Host, Any], None]] = {
            book.SendFrame: self.roads.frame,
            book.Check: self._check,
            book.Meet: lambda host, effect: self.roads.meet(host, effect.peer, ""),
            book.Shares: self.directories.shares,
            node.Post: lambda host, effect: self.roads.post(host, effect.peer, effect.letter),
            node.Seek: lambda host, effect: self.directories.follow(host, effect.article),
            node.Banish: self._banish,
            Count: self._count,
        }
        self.row_watchers: list[Callable[[Host, Save], None]] = []
        self.effect_watchers: dict[type, list[Watcher]] = {}
        self.on_start: list[Callable[[Host], None]] = []
        self.on_crash: list[Callable[[Host], None]] = []
        self.make_core: Callable[[Host], Core] = self.honest_core
        self.watch_market: Watcher = lambda host, effect: None
        self.totals: Counter[str] = Counter()

    # --- hosts ------------------------------------------------------------------------------------------------------

    def add(self, role: str, *, honest: bool = True) -> Host:
        """A new host, not yet started."""
        number = len(self.everyone)
        skew_ms = self.plan.skew_ms
        skew_us = round(dice(self.seed, "skew", number).uniform(-skew_ms, skew_ms) * MILLISECOND)
        host = Host(number, SecretKey(secret(self.seed, "key", number)), skew_us, honest=honest)
        host.role = role
        self.everyone.append(host)
        self.hosts[host.peer_id] = host
        return host

    def honest_core(self, host: Host) -> Core:
        """The product's core over what is on the host's disk."""
        rows = {table: dict(host.disk.get(table, {})) for table in TABLES}

        def seen(effect: book.Cleared) -> None:
            self.watch_market(host, effect)

        run = host.life.to_bytes(32, "big")
        if not self.plan.deals:
            plain = Market(self.network, host.peer_id, self.sharing.craft)
            return MarketOnly(host.key, self.network, plain, rows, seen, run)
        market = SeenMarket(self.network, host.peer_id, self.sharing.craft)
        market.seen = seen
        brain = Brain(key=host.key, network=self.network, instance=INSTANCE, run=run, rows=rows)
        brain.market = market
        return brain

    def start(self, host: Host) -> None:
        """Its process starts."""
        if host.alive:
            return
        host.life += 1
        host.tick_at = None
        host.dies_after_save = False
        self.log.add(self.timeline.now, host.number, Kind.START)
        self.directories.start(host)
        core = host.core = self.make_core(host)
        host.busy = True
        self._release(host, core.resume(self.local(host)))
        host.busy = False
        self._drain(host)
        for action in self.on_start:
            action(host)

    def crash(self, host: Host) -> None:
        """Its process is killed: its disk is all that is left of it."""
        if not host.alive:
            return
        self.log.add(self.timeline.now, host.number, Kind.CRASH)
        host.core = None
        host.directory = None
        host.inbox.clear()
        self.roads.sever(host)
        for action in self.on_crash:
            action(host)

    def local(self, host: Host) -> Instant:
        """What the host's clock says."""
        return Instant(self.timeline.now + host.skew_us)

    # --- the pump ---------------------------------------------------------------------------------------------------

    def give(self, host: Host, kind: int, payload: bytes, event: Any) -> None:
        """An event for a host, handled at once, after what it is handling now. One that is down misses it."""
        core = host.core
        if core is None:
            return
        if host.busy:
            host.inbox.append((kind, payload, event))
            return
        host.busy = True
        now = self.timeline.now
        self.log.add(now, host.number, kind, payload)
        self._release(host, core.handle(event, Instant(now + host.skew_us)))
        self._drain(host)

    def _drain(self, host: Host) -> None:
        inbox, now = host.inbox, self.timeline.now
        host.busy = True
        while inbox and host.core is not None:
            kind, payload, event = inbox.popleft()
            self.log.add(now, host.number, kind, payload)
            self._release(host, host.core.handle(event, Instant(now + host.skew_us)))
        host.busy = False
        core = host.core
        if core is None:
            return
        due = core.next_deadline()
        if due is not None:
            when = due - host.skew_us
            if when <= now:
                when = now + _TURN_US
            if host.tick_at is None or when < host.tick_at:
                host.tick_at = when
                self.timeline.at(when, self._tick, host, host.life)

    def _tick(self, host: Host, life: int) -> None:
        if host.life == life and host.tick_at == self.timeline.now:
            host.tick_at = None
            self.give(host, Kind.TICK, b"", node.Tick())

    def _release(self, host: Host, effects: tuple[Any, ...]) -> None:
        if Save not in map(type, effects):
            self._perform(host, effects)
            return
        rows, others = saves_first(effects)
        if self._keep(host, rows):
            self._perform(host, others)

    def _keep(self, host: Host, rows: list[Save]) -> bool:
        """Commit rows; False when the host dies right after it."""
        host.save(rows)
        for watch in self.row_watchers:
            for row in rows:
                watch(host, row)
        if host.dies_after_save:
            self.totals["torn"] += 1
            self.crash(host)
            return False
        return True

    def _perform(self, host: Host, effects: Sequence[Any]) -> None:
        performers, watching = self.performers, self.effect_watchers
        for effect in effects:
            kind = type(effect)
            action = performers.get(kind)
            if action is not None:
                action(host, effect)
            if kind in watching:
                for watch_effect in watching[kind]:
                    watch_effect(host, effect)

    def watch(self, kind: type, watcher: Watcher) -> None:
        """Show every effect of one class to ``watcher``."""
        self.effect_watchers.setdefault(kind, []).append(watcher)

    # --- effects that need nothing else -------------------------------------------------------------------------------

    def _check(self, host: Host, effect: book.Check) -> None:
        good: list[bytes] = []
        bad: list[bytes] = []
        for item in effect.items:
            (good if self.sharing.verify(item) else bad).append(item.id)
        event = book.Checked(good=tuple(good), bad=tuple(bad))
        self.give(host, Kind.CHECKED, b"", event)

    def _count(self, host: Host, effect: Count) -> None:
        host.counts[effect.code] += effect.amount

    def _banish(self, host: Host, effect: node.Banish) -> None:
        other = self.hosts.get(PeerId(effect.peer))
        if other is None or other.peer_id in host.banned:
            return
        host.banned.add(other.peer_id)
        self.totals["banished-honest" if other.honest else "banished"] += 1
        self.roads.forsake(host, other)
