"""What must hold at every moment, checked on every row that a host keeps. A broken rule ends the run with the seed to repeat it.

Signatures: an honest host signs an order away in one epoch only and each unit of it once (I12), at a price that both orders
allow, and never more units than an order has. Every signature is a row of the journal before it leaves, so the rows are all
there is to see.
"""

from collections.abc import Mapping
from typing import Final

from orderbook.core.messages import Match, Order, Side, conflict, order_of
from orderbook.core.pen import TABLE, SignedRow
from simulations.world.host import Host
from wire.canon import unpack
from wire.effects import Save
from wire.errors import InvariantBroken

_SIGNED: Final = b"signed/"


def broken(code: str, sentence: str) -> InvariantBroken:
    """The error of a checker."""
    return InvariantBroken(code, sentence)


class Signatures:
    """Every signature of every host. ``orders`` are all that were ever decoded, by id."""

    def __init__(self, orders: Mapping[bytes, Order]) -> None:
        self._signed: dict[tuple[bytes, Side, bytes], list[Match]] = {}
        self._orders = orders
        self._both: dict[tuple[bytes, ...], set[Side]] = {}
        self.count = 0
        self.matches = 0
        self.units = 0
        self.volume_msat = 0

    def row(self, host: Host, row: Save) -> None:
        """A row was kept."""
        if row.table != TABLE or row.value is None or not row.key.startswith(_SIGNED):
            return
        kept = unpack(SignedRow, row.value)
        if host.honest:
            self._check(host, kept.match, kept.side)
        self._pair(kept)

    def _check(self, host: Host, match: Match, side: Side) -> None:
        name = (host.key.public, side, order_of(match, side))
        earlier = self._signed.setdefault(name, [])
        for one in earlier:
            if conflict(one, match, side):
                raise broken("double-signed", f"node {host.number} signed order {name[2].hex()[:12]} away twice")
        if match in earlier:
            return
        earlier.append(match)
        self.count += 1
        own = self._orders.get(name[2])
        if own is None or own.owner != host.key.public:
            raise broken("signed-unknown", f"node {host.number} signed for an order that it never published")
        if not own.first_epoch <= match.epoch <= own.last_epoch:
            raise broken("signed-expired", f"node {host.number} signed for an order outside its life")
        within = match.price_msat <= own.price_msat if side is Side.BUY else match.price_msat >= own.price_msat
        if not within:
            raise broken("price", f"node {host.number} signed at {match.price_msat}, its limit is {own.price_msat}")
        if sum(one.quantity for one in earlier) > own.quantity:
            raise broken("overfilled", f"node {host.number} signed away more units than its order has")

    def _pair(self, kept: SignedRow) -> None:
        match = kept.match
        name = (match.buy, match.sell, match.epoch.to_bytes(8, "big"), match.buy_from.to_bytes(4, "big"))
        sides = self._both.setdefault(name, set())
        if kept.side in sides:
            return
        sides.add(kept.side)
        if len(sides) == 2:
            self.matches += 1
            self.units += match.quantity
            self.volume_msat += match.quantity * match.price_msat


class Views:
    """The roots that ready honest hosts computed at each freeze: how equal the books were, without any host knowing."""

    def __init__(self) -> None:
        self._roots: dict[tuple[bytes, int], dict[bytes, int]] = {}
        self.last: dict[tuple[bytes, int], tuple[int, bytes]] = {}
        self.fills: dict[tuple[bytes, int], tuple[int, int, int, int]] = {}

    def cleared(self, host: Host, book: bytes, epoch: int, root: bytes, facts: tuple[int, int, int, int]) -> None:
        """A host cleared a book: ``facts`` are matched units, price, units bid and units asked."""
        seen = self._roots.setdefault((book, epoch), {})
        seen[root] = seen.get(root, 0) + 1
        self.last[book, host.number] = (epoch, root)
        self.fills.setdefault((book, epoch), facts)

    def divergence(self) -> tuple[int, int]:
        """(views that differ from the commonest of their book and epoch, all views)."""
        total = sum(sum(seen.values()) for seen in self._roots.values())
        common = sum(max(seen.values()) for seen in self._roots.values())
        return total - common, total

    def by_epoch(self) -> list[tuple[bytes, int, int, int]]:
        """(book, epoch, views, different roots), ascending."""
        return [(name, epoch, sum(seen.values()), len(seen)) for (name, epoch), seen in sorted(self._roots.items())]

    def check_end(self, alive: frozenset[int], island: Mapping[int, int]) -> None:
        """After the quiet time all who are up, joined with each other, and cleared the last epoch of a book have one root."""
        latest: dict[bytes, int] = {}
        for (book, number), (epoch, _) in self.last.items():
            if number in alive:
                latest[book] = max(latest.get(book, 0), epoch)
        roots: dict[tuple[bytes, int], set[bytes]] = {}
        for (book, number), (epoch, root) in self.last.items():
            if number in alive and epoch == latest[book]:
                roots.setdefault((book, island[number]), set()).add(root)
        for (book, _), seen in sorted(roots.items()):
            if len(seen) > 1:
                raise broken("books-differ", f"book {book.hex()[:12]} has {len(seen)} roots after the quiet time")
