"""The desk of one node: what we want to buy and sell, and how it is kept standing and agreed.

``Pen`` writes our orders, ``Talks`` agrees with the other parties; the desk tells both what happens, in the right order.
"""

from collections.abc import Mapping
from typing import assert_never

from orderbook.core.events import Cleared, DeskEffect, DeskEvent, LetterIn, Missed, Tick, Want
from orderbook.core.line import Standing
from orderbook.core.messages import Side
from orderbook.core.pen import Pen
from orderbook.core.reasons import CLOCK_SKEWED, SENTENCES, missed, unmatched
from orderbook.core.talks import Talks
from wire.keys import SecretKey
from wire.moments import Instant
from wire.network import Network


class Desk:
    """Our orders and agreements. ``rows`` are those of the journal's table ``desk``.

    ``run`` is drawn at random by whoever starts the node, at every start: no order of one run is ever written again by another,
    though the journal is lost, or an old one comes back, or one key runs on two machines. An order written twice could be
    signed twice.
    """

    def __init__(self, key: SecretKey, network: Network, rows: Mapping[bytes, bytes] | None = None, run: bytes = b"") -> None:
        self._clock = network.clock
        self._pen = Pen(key, network, rows or {}, run)
        self._talks = Talks(key, network, self._pen)
        self._epoch = -1
        self._out: list[DeskEffect] = []

    # --- what others ask ------------------------------------------------------------------------------------

    def standing(self, book: bytes, side: Side, price_msat: int) -> Standing | None:
        """The order that stands for one line, for people to look at."""
        line = self._pen.lines.get((book, side, price_msat))
        return line.standing if line else None

    def wanted(self, book: bytes, side: Side, price_msat: int) -> int:
        """The units that one line still wants."""
        line = self._pen.lines.get((book, side, price_msat))
        return line.wanted if line else 0

    @property
    def proposing(self) -> bool:
        """Whether a seller has still to answer a proposal of ours."""
        return self._talks.proposing

    def statistics(self) -> dict[str, int]:
        """Sizes, for people and metrics."""
        return {"lines": len(self._pen.lines), "orders": len(self._pen.orders), "agreements": len(self._talks)}

    # --- the driver's three doors ---------------------------------------------------------------------------

    def handle(self, event: DeskEvent, now: Instant) -> tuple[DeskEffect, ...]:
        """Take one event; returns what is to be done. Never raises for anything a peer sent."""
        self._advance(now)
        match event:
            case Tick():
                pass
            case Want():
                self._want(event, now)
            case Cleared():
                self._cleared(event, now)
            case LetterIn(peer=peer, payload=payload):
                self._talks.letter_in(peer, payload, now)
            case _:
                assert_never(event)
        self._out += self._talks.out
        self._talks.out = []
        out, self._out = tuple(self._out), []
        return out

    def resume(self, now: Instant) -> tuple[DeskEffect, ...]:
        """After a restart: say once more what we have confirmed. Orders published before it are never signed for again."""
        return (*self._pen.tidy(self._clock.epoch(now)), *self._pen.owed(now))

    def next_deadline(self) -> Instant | None:
        """When ``Tick`` is due at the latest."""
        moments = (self._talks.next_deadline(), self._pen.next_writing(self._talks.busy()))
        return min((one for one in moments if one is not None), default=None)

    # --- what happens ---------------------------------------------------------------------------------------

    def _advance(self, now: Instant) -> None:
        epoch = self._clock.epoch(now)
        self._talks.due(now)
        if epoch > self._epoch:
            self._epoch = epoch
            self._talks.turn(epoch)
            self._out += self._pen.tidy(epoch)
        self._out += self._talks.out
        self._talks.out = []
        self._out += self._pen.write_due(now, self._talks.busy())

    def _want(self, want: Want, now: Instant) -> None:
        line = self._pen.want(want, now)
        if line is None:
            code = "too-many-prices"
            self._out.append(
                Missed(
                    book=want.book,
                    side=want.side,
                    price_msat=want.price_msat,
                    epoch=self._clock.epoch(now),
                    code=code,
                    sentence=SENTENCES[code],
                )
            )
        elif line.free == 0:
            self._out += self._pen.write(line, now)

    def _cleared(self, view: Cleared, now: Instant) -> None:
        self._out += self._pen.hush(view.book, self._clock.epoch(now), hushed=view.refusal == CLOCK_SKEWED)
        if not self._talks.cleared(view, now) or view.again:
            return
        lines = self._pen.sorted_lines()
        filled = {one for fill in view.fills for one in (fill.buy.id, fill.sell.id)} if lines and not view.refusal else set()
        for line in lines:
            standing = line.standing
            if line.book == view.book and line.wanted and view.refusal == CLOCK_SKEWED:
                self._out.append(missed(line, view.epoch, CLOCK_SKEWED, SENTENCES[CLOCK_SKEWED]))
                continue
            if line.book != view.book or line.wanted == 0 or standing is None or standing.id in filled:
                continue
            if standing.order.first_epoch <= view.epoch and standing.signed_epoch is None:
                self._out.append(missed(line, view.epoch, *unmatched(view, line)))
