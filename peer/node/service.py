"""What a node does for its owner's programs: ``peer.api``'s port, answered from the brain and the shells."""

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any, Final

import trio

from cafs.shell.store import Store
from orderbook.core.messages import Side
from peer.api.service import Json
from peer.core.brain import Brain
from peer.core.events import (
    Abandoned,
    AppealAsked,
    BondAsked,
    BondReleaseAsked,
    BuyAsked,
    CloseAsked,
    MandateGranted,
    MandateRevoked,
    Reply,
    RuleAsked,
    SellAsked,
    SellStopped,
    Unpin,
    Watched,
)
from peer.node.driver import Driver
from peer.node.feed import Feed, Listener
from peer.node.performer import Performer
from peer.node.quotes import Quotes
from peer.node.registry import Registry, Worker
from peer.node.views import Views
from peer.node.wallet import WalletDesk
from wire.errors import Refused
from wire.limits import CONTENT_MAX_BYTES
from wire.moments import SECOND, Instant

_ENDED_KEPT: Final = 200
_NUMBER_MAX_CHARS: Final = 16
_NAME_BYTES: Final = 32
_MINUTE_S: Final = 60
_TOLD: Final = ("side", "article", "price_msat", "free", "result", "code", "reason")


class Service:
    """Implements ``NodeService``. ``numbers`` yields names for orders and mandates that no earlier run has used; ``status``,
    ``account``, ``peers`` and ``metrics`` are what only the composition knows.
    """

    def __init__(
        self,
        *,
        brain: Brain,
        driver: Driver,
        performer: Performer,
        store: Store,
        workers: dict[str, Worker],
        registry: Registry,
        views: Views,
        quotes: Quotes,
        feed: Feed,
        numbers: Iterator[int],
        status: Callable[[], Json],
        account: Callable[[], Json],
        peers: Callable[[], list[Json]],
        metrics: Callable[[], bytes],
        wallet: WalletDesk,
    ) -> None:
        self._brain = brain
        self._driver = driver
        self._performer = performer
        self._store = store
        self._workers = workers
        self._registry = registry
        self._views = views
        self._feed = feed
        self._numbers = numbers
        self._ended: deque[Json] = deque(maxlen=_ENDED_KEPT)
        self.status = status
        self.account = account
        self.peers = peers
        self.metrics = metrics
        self.wallet = wallet
        self.trades = views.trades
        self.channels = views.channels
        self.workers = views.workers
        self.books = views.books
        self.articles = quotes.articles
        self.depth = quotes.depth
        self.prices = quotes.prices
        self.book_messages = views.book_messages
        self.mandates = views.mandates
        self.stopping = False

    # --- content ------------------------------------------------------------------------------------------------------
    async def put(self, body: AsyncIterator[bytes]) -> str:
        """Store a program's bytes."""
        return (await self._store.put(body)).id.hex()

    async def open_file(self, content: str) -> tuple[int, AsyncIterator[bytes]] | None:
        """Size and bytes of stored content."""
        name = bytes.fromhex(content)
        found = await self._store.find(name)
        if found is None or found.size > CONTENT_MAX_BYTES:
            return None
        return found.size, self._store.stream(name)

    # --- buying -------------------------------------------------------------------------------------------------------
    async def _asked(
        self, article: str, work: str, *, bid_msat: int | None, wait_s: float, mandated: bool, once: bool
    ) -> tuple[BuyAsked, str]:
        """The request, its work pinned under the owner that is returned. Raises ``Refused``."""
        if self.stopping:
            raise Refused("shutting-down", "the node is shutting down")
        content = await self._store.find(bytes.fromhex(work))
        if content is None:
            raise Refused("unknown-file", "the work is not in this node's store")
        number = next(self._numbers)
        owner = f"request:{number}"
        await self._store.pin(content.id, owner)
        event = BuyAsked(
            request=number,
            article=article,
            work=content.id,
            work_bytes=content.size,
            bid_msat=bid_msat,
            wait_us=int(wait_s * SECOND),
            mandated=mandated,
            once=once,
        )
        return event, owner

    async def buy(
        self, article: str, work: str, *, bid_msat: int | None, wait_s: float, mandated: bool, once: bool = False
    ) -> str:
        """Buy one unit: waits until its result is here, or it is refused."""
        event, owner = await self._asked(article, work, bid_msat=bid_msat, wait_s=wait_s, mandated=mandated, once=once)
        answered = trio.Event()
        answers: list[Reply] = []

        def answer(reply: Reply) -> None:
            answers.append(reply)
            answered.set()

        self._performer.replies[event.request] = answer
        try:
            await self._driver.tell(event)
            await answered.wait()
        finally:
            with trio.CancelScope(shield=True):
                if not answers:
                    self._performer.replies.pop(event.request, None)
                    await self._driver.tell(Abandoned(request=event.request))
                await self._store.unpin(owner)
        reply = answers[0]
        if reply.result is None:
            raise Refused(reply.code, reply.sentence)
        return reply.result.hex()

    async def place_buy(self, article: str, work: str, *, bid_msat: int | None, wait_s: float) -> str:
        """Begin to buy one unit; what becomes of it stands in ``orders``."""
        event, owner = await self._asked(article, work, bid_msat=bid_msat, wait_s=wait_s, mandated=False, once=False)
        self._performer.replies[event.request] = partial(self._order_ended, event, owner)
        await self._driver.ask(event)
        return f"{event.request:x}"

    def _order_ended(self, event: BuyAsked, owner: str, reply: Reply) -> None:
        state = "done" if reply.result is not None else "cancelled" if reply.code == "cancelled" else "failed"
        line: Json = {
            "id": f"{event.request:x}",
            "side": "buy",
            "article": event.article,
            "price_msat": event.bid_msat,
            "free": event.bid_msat is None,
            "work": event.work.hex(),
            "state": state,
            "waiting": False,
            "result": reply.result.hex() if reply.result is not None else None,
            "code": reply.code,
            "reason": reply.sentence or "the result is here",
        }
        self._ended.append(line)
        self._feed.publish("order", what=state, order=line["id"], **{name: line[name] for name in _TOLD})
        self._performer(Unpin(owner=owner))

    # --- selling ------------------------------------------------------------------------------------------------------
    async def _answer(self, request: int, event: Any) -> str:
        """Tell an event that is answered at once; returns the name in the answer. Raises what it is refused for."""
        answers: list[Reply] = []
        self._performer.replies[request] = answers.append
        try:
            await self._driver.ask(event)
        finally:
            self._performer.replies.pop(request, None)
        for reply in answers:
            if reply.code:
                raise Refused(reply.code, reply.sentence)
        return "" if not answers or answers[0].result is None else answers[0].result.hex()

    async def place_sell(self, article: str, worker: str, *, ask_msat: int, slots: int) -> str:
        """Sell what a worker of this node does."""
        found = self._workers.get(worker)
        if found is None:
            raise Refused("unknown-worker", f"no worker called {worker!r} is here; see /v1/workers")
        told = found.statistics()
        if told.article != article:
            raise Refused("bad-worker", f"the worker {worker} serves {told.article}")
        if slots > told.slots:
            raise Refused("bad-slots", f"the worker {worker} does {told.slots} units at once")
        if ask_msat and not self._brain.shop.paid:
            raise Refused("no-chain", "selling for money needs a chain that is shared with others")
        number = next(self._numbers)
        registered = self._registry.get(worker)
        event = SellAsked(
            order=number,
            article=article,
            worker=worker,
            ask_msat=ask_msat,
            slots=slots if registered is None else registered.slots,
            ahead=registered is None,
        )
        await self._answer(number, event)
        order = next(one.order for one in self._brain.selling.stalls.all() if one.worker == worker)
        return f"{order:x}"

    async def cancel_order(self, order: str) -> None:
        """Withdraw a request, and tell whoever waits for it, or close a stall."""
        number = _number(order)
        if number is not None and self._brain.buying.requests.get(number) is not None:
            await self._driver.ask(Abandoned(request=number))
            sentence = "the order was cancelled by its owner"
            self._performer(Reply(request=number, result=None, code="cancelled", sentence=sentence))
            return
        for stall in self._brain.selling.stalls.all():
            if stall.order == number and stall.open:
                await self._driver.ask(SellStopped(worker=stall.worker))
                return
        raise Refused("unknown-order", "there is no such order; it may be done, cancelled or expired")

    # --- mandates and workers -----------------------------------------------------------------------------------------
    async def grant(self, side: str, article: str, *, price_msat: int, trades: int | None, minutes: int | None) -> Json:
        """Keep a mandate; returns it as it stands then."""
        number = next(self._numbers)
        until = None if minutes is None else Instant(self._driver.now() + minutes * _MINUTE_S * SECOND)
        event = MandateGranted(
            request=number,
            mandate=number,
            side=Side[side.upper()],
            article=article,
            price_msat=price_msat,
            trades=trades,
            until_us=until,
        )
        await self._answer(number, event)
        return next((line for line in self.mandates() if line["id"] == f"{number:x}"), {"id": f"{number:x}"})

    async def revoke(self, mandate: str) -> None:
        """End a mandate."""
        number = _number(mandate)
        if number is None:
            raise Refused("unknown-mandate", "there is no such mandate")
        request = next(self._numbers)
        await self._answer(request, MandateRevoked(request=request, mandate=number))

    async def register_worker(self, name: str, article: str, push_url: str) -> Json:
        """A new HTTP worker, or one that is idle again."""
        if self.stopping:
            raise Refused("shutting-down", "the node is shutting down")
        worker = await self._registry.register(name, article, push_url)
        return self._views.worker(name, worker)

    async def unregister_worker(self, name: str) -> None:
        """Forget an HTTP worker."""
        await self._registry.unregister(name)

    # --- the rest -----------------------------------------------------------------------------------------------------
    def orders(self) -> list[Json]:
        """Our wishes, and what became of the latest orders that nobody waited for."""
        return [*self._views.orders(), *reversed(self._ended)]

    async def watch(self, article: str) -> None:
        """Take part in the books of an article, so that ``books`` shows them."""
        await self._driver.ask(Watched(article=article))

    async def close_channels(self, reason: str) -> list[Json]:
        """Ask every channel to close."""
        live = ("offered", "funding", "agreed", "funded", "open")
        asked = [line for line in self.channels() if line["phase"] in live]
        await self._driver.tell(CloseAsked(reason=reason))
        return asked

    # --- disputes -----------------------------------------------------------------------------------------------------
    def bonds(self) -> list[Json]:
        """Our bonds, and those that others have announced."""
        return self._brain.justice.bonds.statement()

    async def lock_bond(self, value_sat: int, *, blocks: int) -> Json:
        """Lock coins."""
        number = next(self._numbers)
        name = await self._answer(number, BondAsked(request=number, value_sat=value_sat, blocks=blocks))
        return next(line for line in self.bonds() if line["bond"] == name)

    async def release_bond(self, bond: str) -> Json:
        """Take a bond back."""
        name, number = _name(bond), next(self._numbers)
        if name is None:
            raise Refused("unknown-bond", "there is no such bond")
        await self._answer(number, BondReleaseAsked(request=number, bond=name))
        return next(line for line in self.bonds() if line["bond"] == bond)

    def frauds(self) -> list[Json]:
        """Whom a proof is known against."""
        return self._brain.justice.proofs.statement()

    def cases(self) -> list[Json]:
        """What we may rule on as an arbiter."""
        return self._brain.justice.court.statement()

    def appeals(self) -> list[Json]:
        """What we ask of arbiters."""
        return self._brain.justice.appeals.statement()

    async def appeal(self, channel: str, *, to_seller_sat: int | None, statement: str) -> Json:
        """Ask the arbiter of a channel for a ruling."""
        name, number = _name(channel), next(self._numbers)
        if name is None:
            raise Refused("unknown-channel", "this node has no such channel")
        await self._answer(number, AppealAsked(request=number, channel=name, to_seller_sat=to_seller_sat, statement=statement))
        return next(line for line in self.appeals() if line["channel"] == channel)

    async def rule(self, case: str, *, to_seller_sat: int, reason: str) -> Json:
        """Rule on a case."""
        name, number = _name(case), next(self._numbers)
        if name is None:
            raise Refused("unknown-case", "there is no such case")
        await self._answer(number, RuleAsked(request=number, case=name, to_seller_sat=to_seller_sat, reason=reason))
        return next(line for line in self.cases() if line["case"] == case)

    def events(self, after: int | None = None) -> Listener:
        """What happens from now on."""
        return self._feed.listen(after)


def _name(text: str) -> bytes | None:
    """The 32 bytes that name a channel or a case."""
    if len(text) != 2 * _NAME_BYTES or not all(letter in "0123456789abcdef" for letter in text):
        return None
    return bytes.fromhex(text)


def _number(text: str) -> int | None:
    """The number of an order or a mandate, as listings write it."""
    if not 0 < len(text) <= _NUMBER_MAX_CHARS or not all(letter in "0123456789abcdef" for letter in text):
        return None
    return int(text, 16)
