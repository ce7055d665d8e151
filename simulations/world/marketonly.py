"""A lighter node: the real market and desk, and nothing of deals, channels or work. For thousands of nodes.

It has the three doors of the brain and speaks to its driver in the same events and effects, so the world need not know which of
the two a host runs. What the market and the desk tell their owner (``Cleared``, ``Agreed``, ``Missed``) goes out as effects.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from orderbook.core import events as book
from orderbook.core.desk import Desk
from orderbook.core.market import Market
from peer.core import events as node
from peer.core.brain import DESK_TABLE, Rows
from peer.core.letters import Lane, address, sort
from wire.effects import Blame, Count
from wire.errors import Misbehaved
from wire.keys import SecretKey
from wire.moments import Instant
from wire.network import Network

BAN_AT: Final = 100
_INWARD: Final = frozenset({book.Cleared, Blame})
"""What of a market's effects is not for the driver alone."""


class MarketOnly:
    """Market and desk of one node. ``rows`` are those of the journal's table ``desk``; ``seen`` is shown every auction."""

    def __init__(
        self, key: SecretKey, network: Network, market: Market, rows: Rows, seen: Callable[[book.Cleared], None], run: bytes = b""
    ) -> None:
        self.market = market
        self._seen = seen
        self.desk = Desk(key, network, rows.get(DESK_TABLE, {}), run)
        self._points: dict[bytes, int] = {}
        self._desk_due: Instant | None = None
        self._desk_moved = True

    def handle(self, event: Any, now: Instant) -> tuple[Any, ...]:
        """Take one event; returns the effects for the driver."""
        if type(event) is book.FrameIn:
            effects = self.market.handle(event, now)
            return effects if _INWARD.isdisjoint(map(type, effects)) else self._until_quiet(deque(effects), now)
        if type(event) is node.Tick and not self._desk_moved and (self._desk_due is None or now < self._desk_due):
            return self._until_quiet(deque(self.market.handle(book.Tick(), now)), now)
        return self._until_quiet(deque(self._enter(event, now)), now)

    def resume(self, now: Instant) -> tuple[Any, ...]:
        """After a restart."""
        return self._until_quiet(deque([*self.market.resume(now), *self.desk.resume(now)]), now)

    def _to_desk(self, event: Any, now: Instant) -> tuple[Any, ...]:
        """Only this moves the desk, so only after it is its deadline asked for anew."""
        self._desk_moved = True
        return self.desk.handle(event, now)

    def next_deadline(self) -> Instant | None:
        """When ``Tick`` is due."""
        if self._desk_moved:
            self._desk_moved, self._desk_due = False, self.desk.next_deadline()
        ours, theirs = self.market.next_deadline(), self._desk_due
        if ours is None or theirs is None:
            return ours or theirs
        return ours if ours < theirs else theirs

    def _enter(self, event: Any, now: Instant) -> list[Any]:
        match event:
            case node.Tick():
                return [*self.market.handle(book.Tick(), now), *self._to_desk(book.Tick(), now)]
            case book.Want():
                return list(self._to_desk(event, now))
            case node.LetterArrived(peer=peer, letter=letter):
                return self._letter(peer, letter, now)
            case node.PeerUp() | node.PeerDown():
                return []
            case _:
                return list(self.market.handle(event, now))

    def _letter(self, peer: Any, letter: bytes, now: Instant) -> list[Any]:
        try:
            lane, payload = sort(letter)
        except Misbehaved as error:
            return [Blame(peer=peer, code=error.code, sentence=error.sentence, penalty=error.penalty)]
        if lane is not Lane.DESK:
            return [Count(code="lane-not-served")]
        return list(self._to_desk(book.LetterIn(peer=peer, payload=payload), now))

    def _until_quiet(self, todo: deque[Any], now: Instant) -> tuple[Any, ...]:
        out: list[Any] = []
        while todo:
            effect = todo.popleft()
            match effect:
                case book.SendFrame():
                    out.append(effect)
                case book.Cleared():
                    self._seen(effect)
                    out.append(effect)
                    todo.extend(self._to_desk(effect, now))
                case book.PublishOrder(message=message):
                    todo.extend(self.market.handle(book.Publish(message=message), now))
                case book.CompareBooks():
                    compare = book.Compare(book=effect.book, epoch=effect.epoch, peer=effect.peer)
                    todo.extend(self.market.handle(compare, now))
                case book.Letter(peer=peer, payload=payload):
                    out.append(node.Post(peer=peer, letter=address(Lane.DESK, payload)))
                case Blame():
                    out.extend(self._blame(effect))
                case _:
                    out.append(effect)
        return tuple(out)

    def _blame(self, effect: Blame) -> list[Any]:
        """Points without decay: a run is short against their half-life."""
        points = self._points[effect.peer] = self._points.get(effect.peer, 0) + effect.penalty
        return [effect, node.Banish(peer=effect.peer, sentence=effect.sentence)] if points >= BAN_AT else [effect]
