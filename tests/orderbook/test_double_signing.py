"""Exhaustive: one desk, an adversary who says anything in any order, views that change, time, restarts. Never two signatures
for one unit, never one order in two epochs, never more units promised than wanted.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from orderbook.core.agreement import LETTERS, Accept, Confirm, Decline, Propose
from orderbook.core.auction import Fill
from orderbook.core.desk import Desk
from orderbook.core.events import Agreed, Letter, LetterIn, Want
from orderbook.core.messages import Match, Side, conflict, sign_match
from orderbook.core.pen import SignedRow
from tests.orderbook.snapshot import twin
from tests.orderbook.test_desk import Table
from tests.orderbook.world import BOOK, EPOCH, at
from wire.canon import unpack
from wire.effects import Save
from wire.network import REGTEST


@dataclass
class State:
    """A desk, the moment, its journal, and all that ever left it."""

    desk: Desk
    step: int = 0
    wanted: int = 2
    rows: dict[bytes, bytes] = field(default_factory=dict)
    signed: tuple[Match, ...] = ()
    accepted: tuple[Accept, ...] = ()
    agreed: int = 0

    def twin(self) -> "State":
        return replace(self, desk=twin(self.desk), rows=dict(self.rows))

    def mark(self) -> str:
        talks, pen = self.desk._talks, self.desk._pen
        return repr(
            (
                self.step,
                self.wanted,
                sorted(self.rows),
                sorted(map(repr, self.signed)),
                self.agreed,
                sorted((place, one.phase, one.match, one.repeat_at) for place, one in talks._agreements.items()),
                sorted(talks._held),
                sorted(talks._compared),
                [(view.epoch, view.fills, view.again) for view in talks._views.values()],
                [(one.wanted, one.promised, one.writes, one.written_epoch) for one in pen.sorted_lines()],
                sorted((one.id, one.closed, one.signed_epoch, one.signed_units) for one in pen.orders.values()),
            ).__repr__()
        )


class Explorer:
    """Breadth first over all actions, every state once."""

    moments = (at(EPOCH + 1, ms=610), at(EPOCH + 2, ms=610))

    def __init__(self, side: Side) -> None:
        self.table = Table(side, quantity=2)
        self.side = side
        whole = self.table.fill(2)
        first, second = self.table.fill(1), self.table.fill(1, start=1, other=2)
        clash = self.table.fill(1, other=3)  # the unit of the first half again, for somebody else
        self.plans: dict[str, tuple[Fill, ...]] = {"whole": (whole,), "split": (first, second), "clash": (clash,)}
        self.fills = (whole, first, second, clash)

    def act(self, state: State, event: Any) -> None:
        effects = state.desk.handle(event, self.moments[state.step])
        for effect in effects:
            match effect:
                case Save(key=name, value=value) if name.startswith(b"signed/") and value is not None:
                    row = unpack(SignedRow, value)
                    state.rows[name] = value
                    state.signed += (row.match,)
                case Save(key=name, value=value) if value is not None:
                    state.rows[name] = value
                case Agreed():
                    state.agreed += effect.match.match.quantity
                    state.wanted = max(0, state.wanted - effect.match.match.quantity)
                case _:
                    pass
        for effect in effects:
            if isinstance(effect, Letter):
                letter = LETTERS.unpack(effect.payload)
                if isinstance(letter, Accept | Confirm):
                    assert letter.match in state.signed  # nothing leaves that was not saved
                if isinstance(letter, Accept) and letter not in state.accepted:
                    state.accepted += (letter,)

    def actions(self, state: State) -> list[tuple[str, Any]]:
        epoch = EPOCH + 1 + state.step
        found: list[tuple[str, Any]] = []
        for name, fills in self.plans.items():
            for again in (False, True):
                found.append((f"view {name} {again}", self.table.view(*fills, epoch=epoch, again=again)))
        for fill in self.fills:
            match = self.table.match(fill, epoch)
            if self.side is Side.SELL:
                found.append(("propose", self.letter(Propose(match=match))))
            else:
                found.append(("accept", self.letter(self.table.accept(fill, epoch))))
            found.append(("decline", self.letter(self.decline(match))))
        for accept in state.accepted:
            signature = sign_match(self.table.them, accept.match, Side.BUY)
            found.append(("confirm", self.letter(Confirm(match=accept.match, signature=signature))))
        found.append(("want 1", Want(book=BOOK, side=self.side, price_msat=300, quantity=1)))
        return found

    def letter(self, letter: Any) -> LetterIn:
        return LetterIn(peer=self.table.them.peer_id, payload=LETTERS.pack(letter))

    def decline(self, match: Match) -> Decline:
        return Decline(
            book=match.book,
            epoch=match.epoch,
            buy=match.buy,
            sell=match.sell,
            buy_from=match.buy_from,
            sell_from=match.sell_from,
            code="different-view",
            close=b"",
        )

    def check(self, state: State, path: tuple[str, ...]) -> None:
        mine = [one for one in state.signed if self.table.order.id in (one.buy, one.sell)]
        for index, one in enumerate(mine):
            for other in mine[index + 1 :]:
                assert not conflict(one, other, self.side), path
        assert sum(one.quantity for one in mine) <= 2, path
        assert state.agreed <= 2, path

    def explore(self, depth: int) -> tuple[int, set[int]]:
        frontier: list[tuple[State, tuple[str, ...]]] = [(State(desk=self.table.desk), ())]
        seen = {frontier[0][0].mark()}
        signatures: set[int] = set()
        for _ in range(depth):
            following: list[tuple[State, tuple[str, ...]]] = []
            for state, path in frontier:
                for name, event in self.actions(state):
                    other = state.twin()
                    self.act(other, event)
                    self.keep(other, (*path, name), seen, following, signatures)
                if state.step + 1 < len(self.moments):
                    other = state.twin()
                    other.step += 1
                    self.keep(other, (*path, "time"), seen, following, signatures)
                other = state.twin()
                other.desk = Desk(self.table.me, REGTEST, other.rows)
                self.act(other, Want(book=BOOK, side=self.side, price_msat=300, quantity=other.wanted))
                self.keep(other, (*path, "restart"), seen, following, signatures)
            frontier = following
        return len(seen), signatures

    def keep(
        self,
        state: State,
        path: tuple[str, ...],
        seen: set[str],
        following: list[tuple[State, tuple[str, ...]]],
        signatures: set[int],
    ) -> None:
        self.check(state, path)
        signatures.add(len(state.signed))
        mark = state.mark()
        if mark not in seen:
            seen.add(mark)
            following.append((state, path))


@pytest.mark.parametrize("side", [Side.SELL, Side.BUY])
def test_no_path_signs_a_unit_twice(side: Side) -> None:
    states, signatures = Explorer(side).explore(5)
    assert states > 300
    assert signatures == {0, 1, 2}  # the paths that sign were walked, both fills of a split order too
