"""The node as its owner's programs see it: ``peer.api``'s port, answered from the brain and the shells."""

from collections.abc import AsyncIterator, Callable

import trio

from cafs.shell.store import Store
from peer.api.service import Json
from peer.core.brain import Brain
from peer.core.deal import Deal, Unit
from peer.core.events import Abandoned, BuyAsked, CloseAsked, Reply, Watched
from peer.node.driver import Driver
from peer.node.performer import Performer
from peer.node.tasks import UnitTasks
from wire.account import account_of
from wire.errors import Refused
from wire.keys import peer_id_of, public_of, show_peer
from wire.limits import CONTENT_MAX_BYTES
from wire.moments import SECOND

EVENTS_PAUSE_S = 0.25


class Service:
    """Implements ``NodeService``. ``facts`` are the values of the status that only the composition knows."""

    def __init__(
        self,
        *,
        brain: Brain,
        driver: Driver,
        performer: Performer,
        store: Store,
        tasks: UnitTasks,
        facts: Callable[[], Json],
        peers: Callable[[], list[Json]],
    ) -> None:
        self._brain = brain
        self._driver = driver
        self._performer = performer
        self._store = store
        self._tasks = tasks
        self._facts = facts
        self._peers = peers
        self._requests = 0

    async def put(self, body: AsyncIterator[bytes]) -> str:
        """Store a program's bytes."""
        return (await self._store.put(body)).id.hex()

    async def buy(self, article: str, work: str, *, bid_msat: int | None, wait_s: float) -> str:
        """Buy one unit: waits until its result is here, or it is refused."""
        content = await self._store.find(bytes.fromhex(work))
        if content is None:
            raise Refused("unknown-file", "the work is not in this node's store")
        self._requests += 1
        number = self._requests
        answered = trio.Event()
        answers: list[Reply] = []

        def answer(reply: Reply) -> None:
            answers.append(reply)
            answered.set()

        owner = f"request:{number}"
        await self._store.pin(content.id, owner)
        self._performer.replies[number] = answer
        try:
            event = BuyAsked(
                request=number,
                article=article,
                work=content.id,
                work_bytes=content.size,
                bid_msat=bid_msat,
                wait_us=int(wait_s * SECOND),
            )
            await self._driver.tell(event)
            await answered.wait()
        finally:
            with trio.CancelScope(shield=True):
                if not answers:
                    self._performer.replies.pop(number, None)
                    await self._driver.tell(Abandoned(request=number))
                await self._store.unpin(owner)
        reply = answers[0]
        if reply.result is None:
            raise Refused(reply.code, reply.sentence)
        return reply.result.hex()

    async def open_file(self, content: str) -> tuple[int, AsyncIterator[bytes]] | None:
        """Size and bytes of stored content."""
        name = bytes.fromhex(content)
        found = await self._store.find(name)
        if found is None or found.size > CONTENT_MAX_BYTES:
            return None
        return found.size, self._store.stream(name)

    async def watch(self, article: str) -> None:
        """Take part in the books of an article, so that ``books`` shows them."""
        await self._driver.tell(Watched(article=article))

    def status(self) -> Json:
        """The node at a glance."""
        clock = self._performer.clock
        return {
            **self._facts(),
            "requests_waiting": len(self._brain.buying.requests.all()),
            "tasks": self._tasks.running,
            "inbox": self._driver.waiting,
            "events_handled": self._driver.handled,
            "events_dropped": self._driver.dropped,
            "clock_skewed": bool(clock and clock.skewed),
            "exposure_sat": self._brain.purse.exposure_sat(),
            "counters": dict(sorted(self._performer.counters.items())),
        }

    def account(self) -> Json:
        """Who we are and what we own."""
        facts = self._facts()
        return {key: facts[key] for key in ("account", "peer_id", "network", "money", "address", "balance_sat") if key in facts}

    def orders(self) -> list[Json]:
        """Our wishes: waiting requests and stalls."""
        buys = [
            {
                "side": "buy",
                "request": one.number,
                "article": one.article,
                "bid_msat": one.bid_msat,
                "attempts": one.attempts,
                "waiting": one.unit is None,
                "reason": one.sentence,
            }
            for one in self._brain.buying.requests.all()
        ]
        sells = [
            {
                "side": "sell",
                "article": one.article,
                "worker": one.worker,
                "ask_msat": one.ask_msat,
                "slots": one.slots,
                "open": one.open,
                "quantity": self._brain.selling.wants().get((one.article, one.ask_msat), 0),
            }
            for one in sorted(self._brain.selling.stalls.values(), key=lambda stall: stall.article)
        ]
        return [*buys, *sells]

    def trades(self) -> list[Json]:
        """Every unit we know of, newest first."""
        lines = [
            self._trade(ledger.deal_of(key), unit)
            for ledger in (self._brain.buying.ledger, self._brain.selling.ledger)
            for key, unit in ledger.units.items()
        ]
        return sorted(lines, key=lambda line: (-int(line["changed_us"]), str(line["deal"]), int(line["unit"])))

    @staticmethod
    def _trade(deal: Deal, unit: Unit) -> Json:
        return {
            "deal": deal.deal.hex(),
            "unit": unit.unit,
            "role": deal.role.value,
            "account": account_of(deal.other),
            "peer": show_peer(peer_id_of(deal.other)),
            "article": deal.article,
            "free": deal.free,
            "price_msat": deal.price_msat,
            "epoch": deal.epoch,
            "phase": unit.phase.value,
            "code": unit.code,
            "reason": unit.sentence,
            "work": unit.work.hex() if unit.work else None,
            "result": unit.plain.hex() if unit.plain else None,
            "channel": deal.channel.hex() if deal.channel else None,
            "agreed_us": deal.agreed_us,
            "changed_us": unit.changed_us,
        }

    def channels(self) -> list[Json]:
        """Every channel, with the other party's account."""
        lines = self._brain.purse.statement()
        for line in lines:
            channel = self._brain.purse.channels[bytes.fromhex(line["channel"])]
            line["account"] = account_of(public_of(channel.peer))
            line["peer"] = show_peer(channel.peer)
        return lines

    def peers(self) -> list[Json]:
        """Connected peers."""
        return self._peers()

    def workers(self) -> list[Json]:
        """Our workers."""
        return [
            {
                "name": one.name,
                "article": one.article,
                "slots": one.slots,
                "busy": one.busy,
                "done": one.done,
                "failed": dict(one.failed),
                "last_words": one.last_words,
            }
            for one in (pool.statistics() for _, pool in sorted(self._tasks.pools.items()))
        ]

    def books(self) -> list[Json]:
        """The books we take part in, with their latest auction."""
        return [{**line, "ready": self._brain.market.ready(bytes.fromhex(line["book"]))} for line in self._brain.shop.statement()]

    async def close_channels(self, reason: str) -> list[Json]:
        """Ask every channel to close."""
        live = ("offered", "funding", "agreed", "funded", "open")
        asked = [line for line in self.channels() if line["phase"] in live]
        await self._driver.tell(CloseAsked(reason=reason))
        return asked

    async def events(self) -> AsyncIterator[Json]:
        """What happens from now on: changes of units and channels, by polling what is already in memory."""
        seen = {(line["deal"], line["unit"]): line["changed_us"] for line in self.trades()}
        told = len(self._performer.happenings)
        while True:
            await trio.sleep(EVENTS_PAUSE_S)
            for line in reversed(self.trades()):
                name = (line["deal"], line["unit"])
                if seen.get(name) != line["changed_us"]:
                    seen[name] = line["changed_us"]
                    yield {"kind": "trade", **line}
            happenings = list(self._performer.happenings)
            for happening in happenings[told:]:
                yield happening
            told = len(happenings)
