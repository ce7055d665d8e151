"""The door for gossiped messages: decode once, deduplicate before verification, admit what is good.

A message is deduplicated twice: by all its bytes before it is even decoded, and by its id after. Between the two
stands its signature check, named by signature and digest together, so that a body sent ahead with a false signature does
not shut out the true one.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from orderbook.core.book import Book
from orderbook.core.messages import CheckItem, Heard, read
from wire.errors import Ignore
from wire.keys import PeerId
from wire.limits import MARKET_MESSAGES_MAX, NAMED_PATIENCE_MS, RELAY_CHECKS_MAX
from wire.moments import MILLISECOND, Instant
from wire.network import Network
from wire.values import as_tuple

NO_ROOM: Final = frozenset({"book-full", "market-full", "checks-full"})
"""Refusals that say something about us, not about the message."""
_ASKED_US: Final = NAMED_PATIENCE_MS * MILLISECOND
_AHEAD_US: Final = 2 * _ASKED_US


def since(born: Instant | None, now: Instant) -> Instant:
    """From when a message that was pushed counts as under way, where the oldest is verified first. Where no age is
    told, it counts as long under way: most of that was asked for. And nobody gets far ahead by saying that his is old.
    """
    return Instant(max(now - _AHEAD_US, now - _ASKED_US if born is None else born))


class Pending(NamedTuple):
    """A message waiting for its signatures, and who brought it; ``born`` is when it appeared, if we know. Where it has several
    signatures, ``left`` are those not yet verified.
    """

    heard: Heard
    source: PeerId
    asked: bool
    born: Instant | None
    left: set[bytes] | None


class Intake:
    """Messages on their way into the books."""

    def __init__(self, network: Network, books: Mapping[bytes, Book], read: Callable[[Network, bytes], Heard] = read) -> None:
        self._network, self._books, self._read = network, books, read
        self._seen: dict[bytes, bytes] = {}
        self.named: dict[bytes, bytes] = {}
        """The book of every message that is in one or on its way into one, by its id."""
        self._waiting: dict[bytes, list[Pending]] = {}
        self._pending = 0

    def __len__(self) -> int:
        return self._pending

    def known(self, raw: bytes) -> bytes | None:
        """The id of exactly these bytes, if they are in a book or on their way into one."""
        return self._seen.get(raw)

    def read(self, raw: bytes) -> Heard:
        """Decode. Raises ``Misbehaved`` or ``Ignore``, each named by its code."""
        heard = self._read(self._network, raw)
        if heard.book not in self._books:
            raise Ignore("unfollowed", "we do not follow this book")
        return heard

    def _room(self) -> None:
        """Raise ``Ignore`` when all books together, with what waits for them, hold what this node has room for."""
        if len(self._seen) >= MARKET_MESSAGES_MAX:
            raise Ignore("market-full", f"all books together hold their {MARKET_MESSAGES_MAX} messages already")

    def own(self, heard: Heard, now: Instant) -> None:
        """Admit a message that we have signed ourselves. Raises ``Ignore``."""
        self._room()
        self._admit(heard, now, asked=False)
        self._seen[heard.raw] = heard.id

    def _admit(self, heard: Heard, now: Instant, *, asked: bool) -> None:
        book = self._books.get(heard.book)
        if book is None:
            raise Ignore("unfollowed", "we do not follow this book any more")
        gone = book.admit(heard, now, asked=asked)
        if heard.id not in self.named:  # another body of the same id has been found false meanwhile, or it is our own
            self.named[heard.id] = heard.book
        if gone is not None:
            self.drop(gone)

    def submit(self, heard: Heard, source: PeerId, now: Instant, *, asked: bool, born: Instant | None = None) -> list[CheckItem]:
        """Let ``heard`` wait for its signatures; returns those to be verified now. Raises ``Ignore``."""
        raw, message_id, book, _, _, _, checks = heard
        self._books[book].admissible(heard, now, asked=asked)
        self._room()
        if self._pending >= RELAY_CHECKS_MAX:
            raise Ignore("checks-full", f"{RELAY_CHECKS_MAX} messages wait for verification already")
        self.named[message_id] = book
        left = {one.id for one in checks} if len(checks) > 1 else None
        pending = as_tuple(Pending, (heard, source, asked, born, left))
        self._seen[raw] = message_id
        self._pending += 1
        fresh: list[CheckItem] = []
        for one in checks:
            waiting = self._waiting.get(one.id)
            if waiting is None:
                self._waiting[one.id] = [pending]
                fresh.append(one)
            else:
                waiting.append(pending)
        return fresh

    def good(self, check_ids: Iterable[bytes]) -> list[Pending]:
        """Signatures are good: the messages that waited for nothing else."""
        complete: list[Pending] = []
        for check_id in check_ids:
            for pending in self._waiting.pop(check_id, ()):
                if pending.left is not None:
                    pending.left.discard(check_id)
                if not pending.left:
                    complete.append(pending)
        self._pending -= len(complete)
        return complete

    def bad(self, check_id: bytes) -> tuple[Pending, ...]:
        """A signature is false: the messages that fall with it."""
        fallen = tuple(self._waiting.pop(check_id, ()))
        for pending in fallen:
            self._pending -= 1
            self.drop(pending.heard.raw)
            for other in pending.heard.checks:
                waiting = self._waiting.get(other.id, [])
                if pending in waiting:
                    waiting.remove(pending)
                    if not waiting:
                        del self._waiting[other.id]
        return fallen

    def admit(self, pending: Pending, now: Instant) -> None:
        """Put a verified message into its book. Raises ``Ignore``, for its time may have passed or its book been left."""
        try:
            self._admit(pending.heard, now, asked=pending.asked)
        except Ignore:
            self.drop(pending.heard.raw)
            raise

    def drop(self, raw: bytes) -> None:
        """These bytes are in no book any more; a message of the same id with another signature may be."""
        name = self._seen.pop(raw, None)
        book = self._books.get(self.named.get(name, b"")) if name is not None else None
        if name is not None and (book is None or name not in book):
            self.named.pop(name, None)
