"""Values as they are read on the screens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.core.deal import FINAL, Phase
from tui import words


def test_every_phase_of_a_trade_has_its_look() -> None:
    tones = {phase: words.phase_tone(phase.value) for phase in Phase}
    assert {phase for phase, tone in tones.items() if tone == words.BUSY} == set(Phase) - FINAL - {Phase.PLACED, Phase.MATCHED}
    assert {phase for phase, tone in tones.items() if tone == words.FADED} == {Phase.FINISHED, Phase.WITHDRAWN, Phase.REFUNDED}
    assert all(tone == words.BAD for phase, tone in tones.items() if phase in FINAL and tone != words.FADED)
    assert len({words.phase_word(phase.value) for phase in Phase}) == len(Phase)
    assert words.phase_tone("a phase of the future") == words.BAD


def test_kinds_of_phases_differ_without_colour() -> None:
    marks = {words.phase_word(phase)[0] for phase in ("placed", "working", "finished", "timed-out", "withdrawn")}
    assert len(marks) == 5


@pytest.mark.parametrize(
    ("seconds", "shown"), [(-5, "0s"), (0, "0s"), (59.9, "59s"), (60, "1m"), (3_600, "1h"), (86_399, "23h"), (200_000, "2d")]
)
def test_ages(seconds: float, shown: str) -> None:
    assert words.age(seconds) == shown


@pytest.mark.parametrize(
    ("msat", "free", "shown"),
    [(None, False, words.NOTHING), (0, False, "free"), (2_600_000, False, "uBTC 26"), (5, True, "free"), (None, True, "free")],
)
def test_prices(msat: int | None, free: bool, shown: str) -> None:
    assert words.price(msat, free=free) == shown


def test_counts_accounts_and_plurals() -> None:
    assert words.satoshi(4_553_632) == "4 553 632 sat"
    assert words.satoshi(None) == words.count(None) == words.money(None) == words.since(None, 0) == words.NOTHING
    assert words.short("12pjXQqabSv2zCWqx6gjmAqRWa7LyxdqRs") == "12pj…dqRs"
    assert words.short("123456789") == "123456789"
    assert (words.plural(1, "peer"), words.plural(1_000, "peer")) == ("1 peer", "1 000 peers")
    assert words.whole({"a": True}, "a") is None
    assert words.whole({"a": "1"}, "a") is None
    assert words.text({"a": None}, "a") == words.text({}, "a") == ""


@given(st.lists(st.none() | st.integers(0, 1 << 40), max_size=80))
def test_sparklines_have_one_bar_for_each_auction(values: list[int | None]) -> None:
    drawn = words.sparkline(values)
    known = [value for value in values if value is not None]
    assert len(drawn) == (len(values) if known else 0)
    if len(set(known)) > 1:
        assert drawn[values.index(max(known))] == "█"
        assert drawn[values.index(min(known))] == "▁"
