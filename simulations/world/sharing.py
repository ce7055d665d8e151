"""Work done once for all nodes: the market's craft, with memory.

Every function here gives exactly what the product's gives; a result is looked up by everything it depends on. A message is named
by its bytes, a signature check by the digest that names it, an auction by the sets it is over, and the contents of a book by a
sum over its messages, so that it is kept up to date by one addition.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final, TypeVar

from orderbook.core.auction import Entry, Fill, clear
from orderbook.core.book import Book, Kept
from orderbook.core.craft import Craft
from orderbook.core.frames import FRAMES
from orderbook.core.messages import CheckItem, Heard, Order, read
from orderbook.core.negentropy import Initiator, Vector, respond
from orderbook.core.view import eligible_of, root_of
from wire.errors import BitwrkError
from wire.keys import verify
from wire.moments import Instant
from wire.network import EpochClock, Network

T = TypeVar("T")
_MASK: Final = (1 << 128) - 1


class Memory:
    """A bounded memory; when it is full the older half goes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.kept: dict[Hashable, Any] = {}
        self.made = 0

    def get(self, name: Hashable, make: Callable[[], T]) -> T:
        """What stands under ``name``, made if need be."""
        found = self.kept.get(name)
        if found is None:
            if len(self.kept) >= self._most:
                for old in list(self.kept)[: self._most // 2]:
                    del self.kept[old]
            found = self.kept[name] = make()
            self.made += 1
        return found


class Sharing:
    """The memories of one run."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._heard: dict[bytes, Heard | BitwrkError] = {}
        self.orders: dict[bytes, Order] = {}
        self._frames = Memory(20_000)
        self._auctions = Memory(2_000)
        self._good: dict[bytes, bool] = {}
        self.rows = Memory(400_000)
        self.views = Memory(4_000)
        self.vectors = Memory(1_000)
        self.walks = Memory(40_000)
        self.craft = Craft(
            book=self._book,
            read=self.read,
            unpack=self._unpack,
            clear=self._clear,
            initiator=self._initiator,
            respond=self._respond,
        )

    @property
    def decoded(self) -> int:
        """Messages decoded."""
        return len(self._heard)

    @property
    def verified(self) -> int:
        """Signatures really verified."""
        return len(self._good)

    def read(self, network: Network, raw: bytes) -> Heard:
        """A decoded message, one object for all nodes. Refusals are remembered too."""
        found = self._heard.get(raw)
        if found is None:
            try:
                found = read(network, raw)
                if isinstance(found.body, Order):
                    self.orders[found.id] = found.body
            except BitwrkError as refusal:
                found = refusal
            self._heard[raw] = found
        if isinstance(found, BitwrkError):
            raise found.with_traceback(None)
        return found

    def verify(self, item: CheckItem) -> bool:
        """Whether a signature is good: verified in earnest the first time that anybody asks."""
        known = self._good.get(item.id)
        if known is None:
            known = self._good[item.id] = verify(item.public, item.digest, item.signature)
        return known

    def _unpack(self, raw: bytes, most: int) -> Any:
        found = self._frames.kept.get(raw)
        return self._frames.get(raw, lambda: FRAMES.unpack(raw, most)) if found is None else found

    def _clear(self, buys: Sequence[Entry], sells: Sequence[Entry], seed: int) -> tuple[Fill, ...]:
        name = (tuple(one.id for one in buys), tuple(one.id for one in sells), seed)
        return self._auctions.get(name, lambda: (clear(buys, sells, seed),))[0]

    def _book(self, clock: EpochClock) -> Book:
        return SharedBook(clock, self)

    def _initiator(self, vector: Vector) -> Initiator:
        return SharedInitiator(vector, self.walks)

    def _respond(self, vector: Vector, message: bytes) -> bytes:
        return self.walks.get((id(vector), message), lambda: (vector, respond(vector, message)))[1]


class SharedBook(Book):
    """A book that asks first whether another node's book with the same contents has answered already."""

    def __init__(self, clock: EpochClock, sharing: Sharing) -> None:
        super().__init__(clock)
        self._sharing = sharing
        self._sum = 0
        self._history = 0

    def keep(self, heard: Heard, known_epoch: int) -> Kept:
        """One row for all nodes that can know the message from the same epoch on."""
        return self._sharing.rows.get((heard.id, known_epoch), lambda: super(SharedBook, self).keep(heard, known_epoch))

    def admit(self, heard: Heard, now: Instant, *, asked: bool) -> bytes | None:
        """As the product does, and add to the sums that name our contents."""
        gone = super().admit(heard, now, asked=asked)
        self._count(heard.id, self._kept[heard.id].known_epoch, 1)
        return gone

    def _drop(self, message_id: bytes) -> bytes:
        self._count(message_id, self._kept[message_id].known_epoch, -1)
        return super()._drop(message_id)

    def _count(self, message_id: bytes, known_epoch: int, sign: int) -> None:
        number = int.from_bytes(message_id[:16], "big") | 1
        self._sum = (self._sum + sign * number) & _MASK
        self._history = (self._history + sign * number * (2 * known_epoch + 1)) & _MASK

    def eligible(self, epoch: int, *, late: bool = False) -> tuple[tuple[Entry, ...], tuple[Entry, ...]]:
        """The buys and sells of ``epoch``. Added up once for all, so nothing is carried along from epoch to epoch here."""
        name = ("eligible", self._history, len(self), epoch, late)
        return self._sharing.views.get(name, lambda: eligible_of(self._slots, self._closes, epoch, late=late))

    def root(self, epoch: int) -> bytes:
        """The root of ``epoch``."""
        return self._sharing.views.get(("root", self._history, len(self), epoch), lambda: root_of(self._kept.values(), epoch))

    def vector(self) -> Vector:
        """All retained ids."""
        return self._sharing.vectors.get((self._sum, len(self)), lambda: Vector(kept.item for kept in self._kept.values()))


class SharedInitiator(Initiator):
    """An initiator whose first message and whose walks over a set are remembered."""

    def __init__(self, vector: Vector, walks: Memory) -> None:
        super().__init__(vector)
        self._walks = walks

    def open(self) -> bytes:
        """The first message."""
        return self._walks.get((id(self._vector), None), lambda: (self._vector, super(SharedInitiator, self).open()))[1]

    def answer(self, message: bytes) -> bytes | None:
        """As the product does; "nothing differs", the commonest answer by far, needs no walk."""
        if len(message) == 1 and self.rounds == 0 and message[0] == 0x61:
            self.rounds = 1
            return None
        return super().answer(message)
