"""I11, I12 and I18 over every order of events in small worlds, and that the checker would notice if they did not hold."""

from collections.abc import Callable
from typing import Any

import pytest

import orderbook.core.talks
from orderbook.core.agreement import TABLE, Agreement, Cue, Phase, Propose
from orderbook.core.line import Standing
from orderbook.core.messages import Side
from orderbook.core.pen import Pen
from orderbook.core.talks import Talks
from tests.orderbook.model import Broken, Setting, remember
from tests.orderbook.settings import BUYER, FALSE_BUYER, MOVES_THE_PRICE, SELLER, SMALL, TAKES_A_UNIT, checked
from tests.orderbook.snapshot import FIELDS, fingerprint, twin
from tests.orderbook.test_desk import Table
from wire.effects import Count
from wire.errors import Misbehaved


@pytest.fixture(autouse=True)
def _remembering(monkeypatch: pytest.MonkeyPatch) -> None:
    remember(monkeypatch.setattr)


def test_i11_i12_i18_hold_in_every_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """And every row of the agreement's table is walked on the way, but the one that nobody needs."""
    taken: set[tuple[Phase, Cue]] = set()
    original = Agreement.next_phase

    def noted(self: Agreement, cue: Cue) -> Phase:
        taken.add((self.phase, cue))
        return original(self, cue)

    monkeypatch.setattr(Agreement, "next_phase", noted)
    for setting in SMALL:
        model, states = checked(setting, most=200_000, calm_every=97)
        print(f"{setting.name}: {states:,} states")
        assert states > 100
        assert all(any(peer.agreed for peer in model.peers if peer.number == number) for number in _desks(setting))
    assert set(TABLE) - taken == {(Phase.AGREED, Cue.SILENCE)}


def _desks(setting: Setting) -> list[int]:
    return [number for number, person in enumerate(setting.people) if not person.adversary]


# --- the checker has teeth ---------------------------------------------------------------------------------------


def _unit_twice(patch: Any) -> None:
    patch(Standing, "may_sign", lambda *_: True)


def _unsaved(patch: Any) -> None:
    patch(Pen, "record", lambda *_: Count(code="not-saved"))


def _other_view(patch: Any) -> None:
    original = Talks.cleared

    def cleared(self: Talks, view: Any, now: Any) -> bool:
        kept = dict(self._agreements)
        done = original(self, view, now)
        for place, one in kept.items():
            if one.phase is Phase.DROPPED:
                one.phase = Phase.EXPECTED if one.side is Side.SELL else Phase.PROPOSED
            self._agreements[place] = one
        return done

    patch(Talks, "cleared", cleared)
    patch(Talks, "_same", lambda *_: True)


def _promise_kept_for_ever(patch: Any) -> None:
    original = Talks._end

    def end(self: Talks, agreement: Any, cue: Cue, code: str) -> None:
        promised = self._line(agreement).promised
        original(self, agreement, cue, code)
        self._line(agreement).promised = promised

    patch(Talks, "_end", end)


def _never_gives_up(patch: Any) -> None:
    patch(Talks, "_fall_silent", lambda *_: None)


def _blames_repetition(patch: Any) -> None:
    patch(orderbook.core.talks, "Ignore", Misbehaved)


def _signs_what_was_before(patch: Any) -> None:
    """A desk that after a restart goes on with the orders of its last run."""
    orders: dict[bytes, Any] = {}
    original = Pen.__init__

    def init(self: Pen, key: Any, network: Any, rows: Any, run: bytes) -> None:
        original(self, key, network, rows, run)
        if run != b"\x00":
            self.orders = {name: Standing(id=name, order=one.order, line=one.line) for name, one in orders.items()}
            for one in self.orders.values():
                one.line.promised, one.line.standing = 0, one
            self.lines = {(one.line.book, one.line.side, one.line.price_msat): one.line for one in self.orders.values()}

    write = Pen.write

    def noted(self: Pen, line: Any, now: Any) -> Any:
        effects = write(self, line, now)
        if line.side is Side.SELL and self._run == b"\x00" and line.standing is not None:
            orders.setdefault(line.standing.id, line.standing)
        return effects

    patch(Pen, "write", noted)
    patch(Pen, "__init__", init)


PAIR = Setting(name="a pair", people=(BUYER, SELLER), epochs=1, stranger=TAKES_A_UNIT)
DEAR = Setting(name="a pair", people=(BUYER, SELLER), epochs=1, stranger=MOVES_THE_PRICE)
FALSE = Setting(name="a false buyer", people=(SELLER, FALSE_BUYER), epochs=1)


@pytest.mark.parametrize(
    ("fault", "setting", "found"),
    [
        (_unit_twice, FALSE, "I12"),
        (_unsaved, PAIR, "not saved"),
        (_other_view, DEAR, "I11|I12"),
        (_promise_kept_for_ever, PAIR, "I18"),
        (_never_gives_up, PAIR, "deadline"),
        (_blames_repetition, PAIR, "is blamed"),
        (_signs_what_was_before, FALSE, "I12"),
    ],
)
def test_the_checker_finds_a_fault(
    fault: Callable[[Any], None], setting: Setting, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch.setattr)
    with pytest.raises(Broken, match=found):
        checked(setting, most=200_000, calm_every=1)


# --- twins -------------------------------------------------------------------------------------------------------


def test_a_twin_copies_all_that_changes() -> None:
    table = Table(Side.SELL)
    fill = table.fill()
    desk = table.desk
    for one in (desk, desk._pen, desk._talks, desk._talks._witness):
        assert set(vars(one)) == FIELDS[type(one)]
    table.do(table.view(fill))
    copied = twin(desk)
    assert fingerprint(copied) == fingerprint(desk)
    before = fingerprint(copied)
    table.hear(Propose(match=table.match(fill)))
    assert fingerprint(desk) != before == fingerprint(copied)
