"""The maximum is never crossed, whatever the market, the node and the clock do."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blender.bitwrk.core.budget import Budget
from blender.bitwrk.core.frame import HOPELESS, TRANSITIONS, Frame, State, Step

ARTICLE = "net.bitwrk/blender/1/4.5/2G"
OTHER = {"deal": "00", "unit": 0, "role": "buyer", "article": ARTICLE, "price_msat": 999, "phase": "finished", "result": "old"}


@dataclass
class Market:
    """A node as far as money goes: open orders may be matched below their bid, paid, and delivered or not."""

    lines: list[dict[str, object]] = field(default_factory=lambda: [dict(OTHER)])
    open: dict[int, int] = field(default_factory=dict)
    units: dict[int, dict[str, object]] = field(default_factory=dict)
    paid: int = 0

    def match(self, order: int, price: int) -> None:
        if order in self.open and order not in self.units:
            line: dict[str, object] = {
                "deal": f"{len(self.lines):02x}",
                "unit": 0,
                "role": "buyer",
                "article": ARTICLE,
                "price_msat": min(price, self.open[order]),
                "phase": "working",
                "result": None,
            }
            self.lines.append(line)
            self.units[order] = line

    def lock(self, order: int) -> None:
        if order in self.units and self.units[order]["phase"] == "working":
            self.units[order]["phase"] = "committed"
            self.paid += int(str(self.units[order]["price_msat"]))

    def finish(self, order: int) -> str:
        self.match(order, self.open[order])
        self.lock(order)
        line = self.units.pop(order)
        line["phase"], line["result"] = "finished", f"r{order % 3}"
        del self.open[order]
        return str(line["result"])

    def hang_up(self, order: int) -> None:
        """An order that is withdrawn before it is locked costs nothing; after that the money is gone."""
        line = self.units.pop(order, None)
        if line is not None:
            line["phase"] = "revealed" if line["phase"] == "committed" else "withdrawn"
            if line["phase"] == "revealed":
                line["phase"] = "finished"
        del self.open[order]


steps = st.lists(
    st.tuples(st.sampled_from(["open", "match", "lock", "finish", "fail", "look"]), st.integers(0, 7), st.integers(1, 40))
)


@settings(max_examples=300)
@given(st.integers(0, 200), st.integers(1, 40), steps)
def test_the_maximum_is_never_crossed(maximum: int, bid: int, played: list[tuple[str, int, int]]) -> None:
    budget, market = Budget(maximum, ARTICLE), Market()
    budget.observe(market.lines)
    for step, order, price in played:
        match step:
            case "open" if order not in market.open:
                if budget.open(order, bid):
                    market.open[order] = bid
            case "match":
                market.match(order, price)
            case "lock":
                market.lock(order)
            case "finish" if order in market.open:
                budget.close(order, market.finish(order))
            case "fail" if order in market.open:
                locked = market.units.get(order, {}).get("phase") == "committed"
                market.hang_up(order)
                if locked:
                    budget.observe(market.lines)  # the node's list is read before anything new is ordered
                budget.close(order)
                budget.observe(market.lines)
            case "look":
                budget.observe(market.lines)
        # What is paid, and what everything in flight could still cost, stay within the line.
        exposed = market.paid + sum(
            bid for order, bid in market.open.items() if market.units.get(order, {}).get("phase") != "committed"
        )
        assert exposed <= maximum
        assert exposed <= budget.committed


def test_bids_count_until_the_trade_is_seen() -> None:
    budget = Budget(100, ARTICLE)
    budget.observe([OTHER])
    assert budget.spent == 0
    assert budget.open(1, 60)
    assert not budget.open(2, 60)
    assert (budget.reserved, budget.spent, budget.committed) == (60, 0, 60)
    budget.close(1, "r")
    assert (budget.reserved, budget.spent) == (0, 60)
    line = {**OTHER, "deal": "01", "price_msat": 25, "result": "r"}
    budget.observe([OTHER, line])
    assert budget.spent == 25
    assert budget.open(2, 60)
    budget.close(2)
    assert budget.committed == 25


def test_money_for_nothing_counts() -> None:
    budget = Budget(100, ARTICLE)
    budget.observe([])
    for number, (phase, reason) in enumerate(
        [("result-disputed", ""), ("committed", "paid; the key is still owed"), ("refunded", "")]
    ):
        budget.observe([{**OTHER, "deal": str(number), "price_msat": 30, "phase": phase, "reason": reason}])
        assert budget.spent == (30 if phase != "refunded" else 0)


def test_what_is_locked_beyond_the_orders_counts() -> None:
    budget = Budget(100, ARTICLE)
    budget.observe([])
    assert budget.open(1, 50)
    lines = [{**OTHER, "deal": str(number), "price_msat": 40, "phase": "committed"} for number in range(2)]
    budget.observe(lines[:1])
    assert budget.committed == 50
    assert budget.overdrawn() == []
    budget.observe([*lines, {**lines[0], "deal": "9"}])
    assert budget.committed == 130
    assert budget.overdrawn() == [1]
    budget.observe([lines[0], {**lines[0], "deal": "8", "price_msat": 10}])
    assert budget.committed == 50 + 40  # which of the two is covered by the order is not known


def test_only_our_own_trades_count() -> None:
    budget = Budget(100, ARTICLE)
    budget.observe([])
    budget.observe([{**OTHER, "role": "seller"}, {**OTHER, "article": "foobar"}])
    assert budget.spent == 0


def test_free_work_costs_nothing() -> None:
    budget = Budget(0, ARTICLE)
    budget.observe([])
    assert budget.open(1, 0)
    budget.close(1, "r")
    assert budget.committed == 0
    assert budget.open(2, 0)
    with pytest.raises(ValueError, match="in flight"):
        budget.open(2, 0)


# --- the course of a frame ------------------------------------------------------------------------------------------------
def in_state(state: State) -> Frame:
    frame = Frame(("tile", "another"))
    if state is not State.WAITING:
        frame.order(0)
    match state:
        case State.DONE:
            frame.deliver(0)
        case State.LOST:
            frame.give_up("enough")
        case State.CANCELLED:
            frame.cancel()
    assert frame.entries[0].state is state
    return frame


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("step", list(Step))
def test_every_step_in_every_state(state: State, step: Step) -> None:
    frame = in_state(state)
    failure = frame.failure
    match step:
        case Step.ORDER:
            moved = frame.order(0)
        case Step.DELIVER:
            moved = frame.deliver(0)
        case Step.FAIL:
            moved = frame.fail(0, "no-match", "nobody", 0.0)
        case Step.TAKE_BACK:
            moved = frame.take_back(0)
        case Step.GIVE_UP:
            frame.give_up("no more")
            moved = step in TRANSITIONS[state]
            assert frame.failure == (failure or "no more")
        case Step.CANCEL:
            frame.cancel()
            moved = step in TRANSITIONS[state]
    assert moved == (step in TRANSITIONS[state])
    assert frame.entries[0].state is TRANSITIONS[state].get(step, state)
    assert frame.over == (not any(TRANSITIONS[entry.state] for entry in frame.entries))


def test_a_tile_has_three_tries_and_waits_longer_each_time() -> None:
    frame = Frame(("tile",))
    times = []
    now = 0.0
    while not frame.over:
        index = frame.next_waiting(now)
        if index is None:
            now += 0.5
            continue
        times.append(now)
        frame.order(index)
        frame.fail(index, "work-failed", "the seller's disk burned", now)
    assert times == [0.0, 1.0, 3.0]
    assert frame.failure == "a tile failed 3 times: the seller's disk burned"
    assert frame.count(State.LOST) == 1


def test_an_order_taken_back_is_no_try() -> None:
    frame = Frame(("tile",))
    for _ in range(10):
        frame.order(0)
        frame.take_back(0)
    assert frame.entries[0].tries == 0
    assert frame.next_waiting(0.0) == 0


@pytest.mark.parametrize("code", sorted(HOPELESS))
def test_what_cannot_get_better_ends_the_frame(code: str) -> None:
    frame = Frame(("tile", "another"))
    frame.order(0)
    frame.fail(0, code, "no", 0.0)
    assert frame.over
    assert frame.failure == "no"
    assert frame.count(State.LOST) == 2
