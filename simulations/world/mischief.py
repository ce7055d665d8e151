"""Adversaries. Each wraps or replaces the product's core at its own host; honest hosts run the product alone.

``Gagged`` runs the product and keeps some letters back: the acceptance (a seller who matches and never answers), the
confirmation (a buyer who takes the seller's signature and is silent), or the key (a seller who takes the payment and gives
nothing). ``Equivocator`` signs one order away in every epoch. ``Flooder`` pours orders, good and false, over its neighbours.
"""

from collections.abc import Callable
from random import Random
from typing import Any, Final

from escrow.core.messages import Key, read_letter
from orderbook.core import events as book
from orderbook.core.agreement import LETTERS, Accept, Confirm, Propose
from orderbook.core.frames import FRAMES, Batch
from orderbook.core.market import Market
from orderbook.core.messages import GOSSIP, Order, SealedOrder, Side, seal_order, sign_match
from peer.core import events as node
from peer.core.letters import Lane, address, sort
from simulations.world.host import Core, Host
from wire.errors import Misbehaved
from wire.limits import BATCH_MAX_ORDERS, ORDER_LIFE_DEFAULT_EPOCHS
from wire.moments import SECOND, Instant
from wire.network import Network

_EQUIVOCATED_UNITS: Final = 16
_KINDS_OF_FALSE: Final = 4


def keeps_back(letter: bytes, lane: Lane, kinds: tuple[type, ...]) -> bool:
    """Whether a letter is one of those that a gagged host does not send."""
    try:
        here, payload = sort(letter)
        if here is not lane:
            return False
        return isinstance(LETTERS.unpack(payload) if lane is Lane.DESK else read_letter(payload), kinds)
    except Misbehaved:
        return False


GAGS: Final[dict[str, Callable[[bytes], bool]]] = {
    "silent-seller": lambda letter: keeps_back(letter, Lane.DESK, (Accept,)),
    "silent-buyer": lambda letter: keeps_back(letter, Lane.DESK, (Confirm,)),
    "keyless-seller": lambda letter: keeps_back(letter, Lane.CHANNEL, (Key,)),
}


class Gagged:
    """The product's core, some of whose letters never leave."""

    def __init__(self, core: Core, gag: Callable[[bytes], bool]) -> None:
        self._core, self._gag = core, gag

    def handle(self, event: Any, now: Instant) -> tuple[Any, ...]:
        """As the product, but for the letters kept back."""
        return self._left(self._core.handle(event, now))

    def resume(self, now: Instant) -> tuple[Any, ...]:
        """Likewise."""
        return self._left(self._core.resume(now))

    def next_deadline(self) -> Instant | None:
        """As the product."""
        return self._core.next_deadline()

    def _left(self, effects: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(one for one in effects if not (isinstance(one, node.Post) and self._gag(one.letter)))


class Equivocator:
    """A real market, and a seller's hand that signs its one order away whenever anybody proposes."""

    def __init__(self, host: Host, network: Network, market: Market, article_book: bytes, price_msat: int) -> None:
        self._key, self._network, self._market = host.key, network, market
        self._book, self._price_msat = article_book, price_msat
        self._sequence = 0
        self._last_epoch = -1
        self._root = bytes(32)
        self._write_at: Instant | None = None

    def handle(self, event: Any, now: Instant) -> tuple[Any, ...]:
        """Take one event."""
        effects: list[Any] = []
        match event:
            case node.LetterArrived(peer=peer, letter=letter):
                effects += self._answer(peer, letter)
            case node.Tick():
                effects += self._market.handle(book.Tick(), now)
            case book.Follow() | book.FrameIn() | book.NeighbourUp() | book.NeighbourDown() | book.Checked():
                effects += self._market.handle(event, now)
            case _:
                pass
        if self._network.clock.epoch(now) + 1 > self._last_epoch:
            effects += self._market.handle(book.Publish(message=self._order(now)), now)
        self._write_at = self._network.clock.start(self._last_epoch)
        for effect in effects:
            if isinstance(effect, book.Cleared):
                self._root = effect.root
        return tuple(effects)

    def resume(self, now: Instant) -> tuple[Any, ...]:
        """Begin by following the book."""
        return (*self._market.resume(now), *self._market.handle(book.Follow(book=self._book), now))

    def next_deadline(self) -> Instant | None:
        """When the market or the next order is due."""
        return min((one for one in (self._market.next_deadline(), self._write_at) if one is not None), default=None)

    def _order(self, now: Instant) -> bytes:
        epoch = self._network.clock.epoch(now)
        self._sequence = max(self._sequence + 1, epoch)
        self._last_epoch = epoch + ORDER_LIFE_DEFAULT_EPOCHS
        order = Order(
            network=self._network.name,
            book=self._book,
            side=Side.SELL,
            price_msat=self._price_msat,
            quantity=_EQUIVOCATED_UNITS,
            first_epoch=epoch + 1,
            last_epoch=self._last_epoch,
            owner=self._key.public,
            slot=0,
            sequence=self._sequence,
            salt=self._key.derive("salt", self._sequence.to_bytes(8, "big"))[:16],
        )
        return seal_order(self._key, self._network, order)

    def _answer(self, peer: Any, letter: bytes) -> list[Any]:
        try:
            lane, payload = sort(letter)
            said = LETTERS.unpack(payload) if lane is Lane.DESK else None
        except Misbehaved:
            return []
        if not isinstance(said, Propose):
            return []
        signature = sign_match(self._key, said.match, Side.SELL)
        return [node.Post(peer=peer, letter=address(Lane.DESK, LETTERS.pack(Accept(match=said.match, signature=signature))))]


class Flooder:
    """The product's core, and a hose. Good orders are well formed, cheap and never match; false ones are of four kinds."""

    def __init__(
        self, core: Core, host: Host, network: Network, article_book: bytes, per_s: float, false: float, dice: Random
    ) -> None:
        self._core, self._host, self._network, self._book = core, host, network, article_book
        self._per_s, self._false, self._dice = per_s, false, dice
        self._next: Instant | None = None
        self._sequence = 0

    def handle(self, event: Any, now: Instant) -> tuple[Any, ...]:
        """As the product, and pour when it is time."""
        effects = list(self._core.handle(event, now))
        if self._next is None:
            self._next = Instant(now + SECOND)
        if now >= self._next:
            self._next = Instant(now + SECOND)
            effects += self._pour(now)
        return tuple(effects)

    def resume(self, now: Instant) -> tuple[Any, ...]:
        """As the product."""
        return self._core.resume(now)

    def next_deadline(self) -> Instant | None:
        """When the product or the next pouring is due."""
        return min((one for one in (self._core.next_deadline(), self._next) if one is not None), default=None)

    def _pour(self, now: Instant) -> list[Any]:
        count = min(BATCH_MAX_ORDERS, round(self._per_s))
        frame = FRAMES.pack(Batch(messages=tuple(self._message(now) for _ in range(count))))
        return [book.SendFrame(peer=peer, frame=frame) for peer in sorted(self._host.neighbours)]

    def _message(self, now: Instant) -> bytes:
        epoch = self._network.clock.epoch(now)
        self._sequence += 1
        kind = self._dice.randrange(_KINDS_OF_FALSE) if self._dice.random() < self._false else -1
        if kind == 0:
            return self._dice.randbytes(100)
        if kind == 1:
            return self._dice.randbytes(1_050)
        first = epoch - 50 if kind == 2 else epoch + 1
        order = Order(
            network=self._network.name,
            book=self._book,
            side=Side.BUY,
            price_msat=1,
            quantity=1,
            first_epoch=first,
            last_epoch=first + ORDER_LIFE_DEFAULT_EPOCHS - 1,
            owner=self._host.key.public,
            slot=self._sequence % 8,
            sequence=self._sequence,
            salt=self._dice.randbytes(16),
        )
        message = seal_order(self._host.key, self._network, order)
        if kind == 3:
            sealed = GOSSIP.unpack(message)
            return GOSSIP.pack(SealedOrder(body=sealed.body, signature=bytes(64)))
        return message
