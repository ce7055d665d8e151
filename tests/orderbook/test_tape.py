"""The tape: whatever is matched, every length of slot says what the raw matches say, in bounded memory."""

from collections.abc import Iterable
from itertools import groupby, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderbook.core.auction import Entry, Fill, clear
from orderbook.core.depth import depth_of
from orderbook.core.events import Cleared
from orderbook.core.messages import Side
from orderbook.core.tape import Drained, Series, Tape
from orderbook.core.timeslots import EPOCHS, SLOTS_S, Ladder, Row, TimeSlot, slot_from
from wire.limits import DEPTH_LEVELS_MAX, PRICE_MAX_MSAT, QUANTITY_MAX, TAPE_BOOKS_MAX, TAPE_EPOCHS_MAX, TAPE_SLOTS_MAX
from wire.moments import SECOND, Instant
from wire.network import MAIN, REGTEST

BOOK = bytes(31) + b"\x01"
FOREVER = 1 << 50
FOREVER_US = Instant(FOREVER * SECOND)
YEAR_S = SLOTS_S["1y"]

# Auctions: seconds after the one before, and fills of price and units.
fills = st.lists(st.tuples(st.integers(0, PRICE_MAX_MSAT), st.integers(1, QUANTITY_MAX)), min_size=1, max_size=4)
gaps = st.one_of(st.integers(1, 10), st.integers(1, 5_000), st.integers(1, 3 * YEAR_S))
auctions = st.lists(st.tuples(gaps, fills), min_size=1, max_size=24)
Told = list[tuple[int, list[tuple[int, int]]]]


def told(raw: Iterable[tuple[int, list[tuple[int, int]]]], start: int = 1_700_000_000) -> Told:
    found: Told = []
    for gap, one in raw:
        start += gap
        found.append((start, one))
    return found


def brute(raw: Told, length: int, begin: int) -> TimeSlot:
    """One slot, straight from the raw matches."""
    inside = [(second, one) for second, one in raw if begin <= second < begin + length]
    flat = [pair for _, one in inside for pair in one]
    return TimeSlot(
        begin_s=begin,
        matches=len(flat),
        units=sum(units for _, units in flat),
        sum_msat=sum(price * units for price, units in flat),
        min_msat=min(price for price, _ in flat),
        max_msat=max(price for price, _ in flat),
        first_msat=inside[0][1][0][0],
        last_msat=inside[-1][1][0][0],
    )


def laddered(raw: Told) -> Ladder:
    ladder = Ladder()
    for second, one in raw:
        ladder.add(second, one)
    return ladder


@given(auctions)
def test_every_slot_of_every_length_is_what_the_raw_matches_say(raw: list[tuple[int, list[tuple[int, int]]]]) -> None:
    matches = told(raw)
    ladder = laddered(matches)
    newest = matches[-1][0]
    for length in SLOTS_S.values():
        oldest = newest - newest % length - (TAPE_SLOTS_MAX - 1) * length
        begins = sorted({second - second % length for second, _ in matches})
        expected = [brute(matches, length, begin) for begin in begins if begin >= oldest]
        assert ladder.slots(length, 0, FOREVER) == expected


@given(auctions, st.data())
def test_an_auction_told_in_parts_is_the_same_auction(raw: list[tuple[int, list[tuple[int, int]]]], data: st.DataObject) -> None:
    matches = told(raw)
    parts = Ladder()
    for second, one in matches:
        at = data.draw(st.integers(0, len(one)))
        parts.add(second, one[:at])
        parts.add(second, one[at:])
    whole = laddered(matches)
    for length in SLOTS_S.values():
        assert parts.slots(length, 0, FOREVER) == whole.slots(length, 0, FOREVER)
    assert (parts.quartiles(), parts.last_msat()) == (whole.quartiles(), whole.last_msat())


@given(auctions)
def test_the_lengths_agree_with_each_other(raw: list[tuple[int, list[tuple[int, int]]]]) -> None:
    ladder = laddered(told(raw))
    lengths = list(SLOTS_S.values())
    for fine, coarse in ((a, b) for a in lengths for b in lengths if a < b and b % a == 0):
        oldest = ladder.oldest_s(fine)
        assert oldest is not None
        reached = -(-oldest // coarse) * coarse
        for slot in ladder.slots(coarse, reached, FOREVER):
            inside = ladder.slots(fine, slot.begin_s, slot.begin_s + coarse)
            joined = inside[0]
            for one in inside[1:]:
                joined = joined.then(one)
            assert TimeSlot(**{name: getattr(joined, name) for name in TimeSlot.__slots__} | {"begin_s": slot.begin_s}) == slot


def test_the_ladder_goes_from_a_second_to_a_year() -> None:
    lengths = list(SLOTS_S.values())
    assert lengths == sorted(lengths)
    assert (lengths[0], lengths[-1]) == (1, 365 * 86_400)
    units = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400, "y": 365 * 86_400}
    assert {name: int(name[:-1]) * units[name[-1]] for name in SLOTS_S} == SLOTS_S
    assert [Ladder().oldest_s(length) for length in lengths] == [None] * 12
    assert all(later % earlier == 0 for earlier, later in pairwise(lengths[:-1]))


@given(st.integers(1, 3 * YEAR_S), st.integers(1, 200), st.integers(1, 10))
def test_memory_is_bounded_over_centuries(step: int, times: int, price: int) -> None:
    ladder = Ladder()
    for count in range(times):
        ladder.add(1 + count * step, [(price, 1)])
    assert len(ladder) <= len(SLOTS_S) * TAPE_SLOTS_MAX + TAPE_EPOCHS_MAX


def test_a_busy_year_stays_within_its_bound_and_forgets_the_fine_first() -> None:
    ladder = Ladder()
    for second in [*range(0, 2 * YEAR_S, 7_200), *range(2 * YEAR_S, 2 * YEAR_S + 3_000, 2)]:
        ladder.add(second, [(second, 1)])
    sizes = {length: len(ladder.slots(length, 0, FOREVER)) for length in SLOTS_S.values()}
    assert max(sizes.values()) == TAPE_SLOTS_MAX
    assert sizes[1] == TAPE_SLOTS_MAX // 2
    assert len(ladder) == sum(sizes.values()) + TAPE_EPOCHS_MAX
    assert ladder.oldest_s(1) == 2 * YEAR_S + 2_998 - (TAPE_SLOTS_MAX - 2)
    assert ladder.oldest_s(YEAR_S) == 0
    assert sum(slot.matches for slot in ladder.slots(YEAR_S, 0, FOREVER)) == YEAR_S // 3_600 + 1_500


@given(auctions, st.integers(0, 3 * YEAR_S), st.integers(0, 3 * YEAR_S))
def test_a_range_takes_the_slots_that_begin_in_it(raw: list[tuple[int, list[tuple[int, int]]]], begin: int, width: int) -> None:
    ladder = laddered(told(raw))
    begin += 1_700_000_000
    for length in SLOTS_S.values():
        every = ladder.slots(length, 0, FOREVER)
        assert ladder.slots(length, begin, begin + width) == [one for one in every if begin <= one.begin_s < begin + width]


@given(auctions)
def test_quartiles_are_the_prices_of_units_in_order(raw: list[tuple[int, list[tuple[int, int]]]]) -> None:
    small = [(gap, [(price, 1 + units % 20) for price, units in one]) for gap, one in raw]
    found = laddered(told(small)).quartiles()
    units = sorted(price for _, one in small for price, count in one for _ in range(count))
    assert found is not None
    assert found.units == len(units)
    ranks = [-(-len(units) * quarter // 4) for quarter in (1, 2, 3)]
    assert [found.low_msat, found.middle_msat, found.high_msat] == [units[rank - 1] for rank in ranks]


def test_price_advice_looks_at_the_latest_auctions_only() -> None:
    ladder = Ladder()
    for count in range(TAPE_EPOCHS_MAX):
        ladder.add(count, [(1_000, 1)])
    for count in range(TAPE_EPOCHS_MAX, 2 * TAPE_EPOCHS_MAX):
        ladder.add(count, [(5, 1)])
    found = ladder.quartiles()
    assert found is not None
    assert (found.high_msat, found.units, found.since_s) == (5, TAPE_EPOCHS_MAX, TAPE_EPOCHS_MAX)
    assert ladder.recent(2) == [(2 * TAPE_EPOCHS_MAX - 2, 5), (2 * TAPE_EPOCHS_MAX - 1, 5)]


def test_a_day_is_the_latest_24_hours() -> None:
    ladder = Ladder()
    now = 1_700_006_400
    for ago in (90_000, 86_399, 3_600, 0):
        ladder.add(now - ago, [(ago, 1)])
    day = ladder.day(now)
    assert day is not None
    assert (day.units, day.matches, day.sum_msat, day.min_msat, day.first_msat, day.last_msat) == (2, 2, 3_600, 0, 3_600, 0)
    assert (day.units, day.max_msat) == (2, 3_600)  # 86,399 s ago stands in a slot that began earlier
    assert ladder.day(now + 2 * 86_400) is None


def test_a_day_begins_and_ends_to_the_second() -> None:
    ladder = Ladder()
    for begin in (1_800, 1_980, 2_160, 2_340):
        ladder.add(begin, [(begin, 1)])
    for now, first, last in ((1_980 + 86_399, 1_980, 2_340), (1_980 + 86_400, 2_160, 2_340), (2_160, 1_800, 2_160)):
        day = ladder.day(now)
        assert day is not None
        assert (day.begin_s, day.first_msat, day.min_msat, day.last_msat, day.max_msat) == (first, first, first, last, last)
    before = ladder.day(1_979)
    assert before is not None
    assert before.units == 1


def test_what_no_slot_can_read_like_is_refused() -> None:
    good = (2, 4, 40, 5, 15, 10, 10)
    assert slot_from((0, good)) is not None
    for place, values in ((0, (0, 5)), (1, (1,)), (2, (19, 61)), (3, (11,)), (4, (9,)), (5, (4, 16)), (6, (4, 16))):
        for one in values:
            assert slot_from((0, (*good[:place], one, *good[place + 1 :]))) is None


@pytest.mark.parametrize(
    ("length", "row"),
    [
        (EPOCHS, (7, ())),
        (EPOCHS, (7, (5,))),
        (EPOCHS, (7, (5, 1, 6))),
        (EPOCHS, (-1, (5, 1))),
        (EPOCHS, (7, (-1, 1))),
        (EPOCHS, (7, (5, 0))),
        (EPOCHS, (7, (5, 1, 6, 0))),
        (EPOCHS, (7, (5, 1, -6, 1))),
        (60, (61, (1, 1, 5, 5, 5, 5, 5))),
        (60, (60, (1, 1, 5, 5, 5, 5, 6))),
        (17, (17, (1, 1, 5, 5, 5, 5, 5))),
    ],
)
def test_a_row_that_cannot_be_read_is_counted_and_left_out(length: int, row: Row) -> None:
    ladder = Ladder()
    assert ladder.load(length, [row]) == 1
    assert (len(ladder), ladder.newest_s) == (0, -1)
    assert ladder.load(EPOCHS, [row, (0, (0, 1))] if length == EPOCHS else [(0, (0, 1))]) == (length == EPOCHS)
    assert (len(ladder), ladder.last_msat(), ladder.newest_s) == (1, 0, 0)


def test_what_is_too_old_or_newer_than_the_newest_does_not_come_back() -> None:
    ladder, row = Ladder(), (1, 1, 5, 5, 5, 5, 5)
    newest = 10 * TAPE_SLOTS_MAX
    assert ladder.load(EPOCHS, [(newest - number, (5, 1)) for number in range(TAPE_EPOCHS_MAX, -1, -1)]) == 0
    begins = (newest - TAPE_SLOTS_MAX, newest - TAPE_SLOTS_MAX + 1, newest, newest + 1)
    assert ladder.load(1, [(begin, row) for begin in begins]) == 0
    assert len(ladder) == TAPE_EPOCHS_MAX + 5
    ladder.settle()
    assert [slot.begin_s for slot in ladder.slots(1, 0, FOREVER)] == [*begins[1:3]]
    assert len(ladder) == TAPE_EPOCHS_MAX + 2


# --- books ----------------------------------------------------------------------------------------------------------------
def entry(side: Side, price: int, quantity: int, name: int) -> Entry:
    return Entry(
        id=bytes([side.value, name]) * 16,
        owner=b"\x02" + bytes([side.value, name]) * 16,
        side=side,
        price_msat=price,
        quantity=quantity,
    )


def result(epoch: int, price: int | None, book: bytes = BOOK, refusal: str = "", again: bool = False, units: int = 1) -> Cleared:
    buys = (entry(Side.BUY, 0 if price is None else price, units, 1),)
    sells = (entry(Side.SELL, 1 if price is None else price, units, 1),)
    done = tuple(clear(buys, sells, 0))
    return Cleared(book=book, epoch=epoch, root=bytes(32), fills=done, buys=buys, sells=sells, refusal=refusal, again=again)


def test_what_the_auctions_gave_and_what_was_signed_are_apart() -> None:
    tape = Tape(REGTEST.clock)
    tape.cleared(result(100, 40, units=3))
    tape.agreed(BOOK, 100, 41, 2)
    (matched,) = tape.of(BOOK, Series.MATCHED).slots(1, 0, FOREVER)
    (agreed,) = tape.of(BOOK, Series.AGREED).slots(1, 0, FOREVER)
    assert (matched.begin_s, matched.matches, matched.units, matched.sum_msat) == (200, 1, 3, 120)
    assert (agreed.begin_s, agreed.matches, agreed.units, agreed.sum_msat) == (200, 1, 2, 82)
    assert tape.of(bytes(32), Series.MATCHED).last_msat() is None


def test_an_epoch_counts_once_and_only_when_we_would_trade_on_it() -> None:
    tape = Tape(MAIN.clock)
    tape.cleared(result(7, 40, refusal="not-ready"))
    tape.cleared(result(7, None))
    assert tape.of(BOOK, Series.MATCHED).newest_s == -1
    tape.cleared(result(7, 50, again=True))
    tape.cleared(result(7, 60, again=True))
    tape.cleared(result(6, 70))
    (slot,) = tape.of(BOOK, Series.MATCHED).slots(SLOTS_S["1m"], 0, FOREVER)
    assert (slot.begin_s, slot.matches, slot.sum_msat) == (60, 1, 50)


def test_several_signed_matches_of_one_epoch_add_up_and_late_ones_are_counted() -> None:
    tape = Tape(REGTEST.clock)
    tape.agreed(BOOK, 9, 10, 1)
    tape.agreed(BOOK, 9, 20, 2)
    tape.agreed(BOOK, 8, 30, 3)
    (slot,) = tape.of(BOOK, Series.AGREED).slots(YEAR_S, 0, FOREVER)
    assert (slot.matches, slot.units, slot.first_msat, slot.last_msat, slot.max_msat) == (2, 3, 10, 10, 20)
    assert tape.statistics()["late"] == 1


def test_the_book_that_has_not_traded_for_longest_gives_way() -> None:
    tape = Tape(REGTEST.clock)
    names = [bytes([number]) * 32 for number in range(TAPE_BOOKS_MAX + 1)]
    for epoch, name in enumerate(names[:-1]):
        tape.cleared(result(epoch, 1, book=name))
    tape.agreed(names[0], 1_000, 1, 1)
    tape.cleared(result(2_000, 1, book=names[-1]))
    assert tape.statistics()["books"] == TAPE_BOOKS_MAX
    assert tape.statistics()["evicted"] == 1
    assert tape.drain().gone == (names[1],)
    assert tape.of(names[0], Series.AGREED).last_msat() == 1


# --- as it is written down ------------------------------------------------------------------------------------------------
class Paper:
    """What a file does with what is drained."""

    def __init__(self) -> None:
        self.rows: dict[tuple[bytes, int, int, int], tuple[int, ...]] = {}

    def keep(self, drained: Drained) -> None:
        self.rows = {key: numbers for key, numbers in self.rows.items() if key[0] not in drained.gone}
        for one in drained.written:
            place = (one.book, int(one.series), one.length_s)
            self.rows |= {(*place, begin): numbers for begin, numbers in one.rows}
            self.rows = {key: numbers for key, numbers in self.rows.items() if key[:3] != place or key[3] >= one.oldest_s}

    def read(self) -> list[tuple[bytes, int, int, Row]]:
        return [(*key[:3], (key[3], numbers)) for key, numbers in sorted(self.rows.items())]


def picture(tape: Tape, book: bytes) -> list[object]:
    return [
        [ladder.slots(length, 0, FOREVER) for length in SLOTS_S.values()] + [ladder.quartiles(), ladder.recent(TAPE_EPOCHS_MAX)]
        for ladder in (tape.of(book, series) for series in Series)
    ]


@given(auctions, st.data())
def test_a_tape_comes_back_as_it_was_written_down(raw: list[tuple[int, list[tuple[int, int]]]], data: st.DataObject) -> None:
    tape, paper = Tape(REGTEST.clock), Paper()
    for second, one in told(raw):
        for price, units in one:
            tape.agreed(BOOK, second // 2, price, units)
        if data.draw(st.booleans()):
            paper.keep(tape.drain())
    paper.keep(tape.drain())
    assert tape.drain() == Drained()
    again = Tape(REGTEST.clock)
    again.load(paper.read(), FOREVER_US)
    assert again.statistics()["damaged"] == 0
    assert picture(again, BOOK) == picture(tape, BOOK)
    assert again.drain() == Drained()
    for grown in (again, tape):
        grown.agreed(BOOK, 1 << 40, 77, 2)
    assert picture(again, BOOK) == picture(tape, BOOK)


numbers = st.lists(st.integers(-2, 1 << 70), max_size=9).map(tuple)
lengths = st.sampled_from([*SLOTS_S.values(), EPOCHS, 17, -1])
strange = st.tuples(st.just(BOOK), st.integers(-1, 3), lengths, st.tuples(st.integers(-1, 1 << 40), numbers))


@given(st.lists(strange, max_size=30), auctions)
def test_whatever_stands_in_the_file_the_tape_goes_on(
    rows: list[tuple[bytes, int, int, Row]], raw: list[tuple[int, list[tuple[int, int]]]]
) -> None:
    tape = Tape(REGTEST.clock)
    tape.load(sorted(rows), Instant((1 << 38) * SECOND))
    for second, one in told(raw, 1 << 39):
        tape.agreed(BOOK, second, *one[0])
    newest = tape.of(BOOK, Series.AGREED).newest_s
    for length in SLOTS_S.values():
        begins = [slot.begin_s for slot in tape.of(BOOK, Series.AGREED).slots(length, 0, FOREVER)]
        assert begins == sorted(set(begins))
        assert begins[-1] == newest - newest % length
        assert len(begins) <= TAPE_SLOTS_MAX
    assert tape.of(BOOK, Series.AGREED).last_msat() == raw[-1][1][0][0]
    tape.drain()


def test_what_a_wrong_clock_wrote_is_left_out() -> None:
    tape, paper = Tape(REGTEST.clock), Paper()
    tape.agreed(BOOK, 100, 5, 1)
    tape.agreed(BOOK, 1 << 40, 6, 1)
    paper.keep(tape.drain())
    again = Tape(REGTEST.clock)
    again.load(paper.read(), Instant(1_000 * SECOND))
    assert again.of(BOOK, Series.AGREED).last_msat() == 5
    again.agreed(BOOK, 101, 7, 1)
    assert again.of(BOOK, Series.AGREED).last_msat() == 7


@given(auctions)
def test_a_slot_reads_as_it_was_written_and_nothing_else_does(raw: list[tuple[int, list[tuple[int, int]]]]) -> None:
    for slot in laddered(told(raw)).slots(1, 0, FOREVER):
        begin, row = slot.row()
        assert slot_from((begin, row)) == slot
        assert slot_from((begin, row[:-1])) is None
        assert slot_from((-1, row)) is None
        assert slot_from((begin, (0, *row[1:]))) is None
        assert slot_from((begin, (*row[:6], slot.max_msat + 1))) is None
        assert slot_from((begin, (*row[:2], slot.max_msat * slot.units + 1, *row[3:]))) is None


# --- depth ----------------------------------------------------------------------------------------------------------------
orders = st.lists(st.tuples(st.sampled_from(Side), st.integers(0, 6), st.integers(1, 9), st.integers(0, 3)), max_size=12)


@given(orders)
def test_depth_adds_up_to_the_orders_and_the_fills(raw: list[tuple[Side, int, int, int]]) -> None:
    made = [
        Entry(id=bytes([place]) * 32, owner=b"\x02" + bytes([owner]) * 32, side=side, price_msat=price, quantity=quantity)
        for place, (side, price, quantity, owner) in enumerate(raw)
    ]
    buys = tuple(one for one in made if one.side is Side.BUY)
    sells = tuple(one for one in made if one.side is Side.SELL)
    done: tuple[Fill, ...] = tuple(clear(buys, sells, 3))
    depth = depth_of(Cleared(book=BOOK, epoch=1, root=bytes(32), fills=done, buys=buys, sells=sells))
    for flank, side, pick in ((depth.bids, buys, "buy"), (depth.asks, sells, "sell")):
        assert [level.price_msat for level in flank.levels] == sorted({one.price_msat for one in side}, reverse=pick == "buy")
        for price, group in groupby(sorted(side, key=lambda one: one.price_msat), key=lambda one: one.price_msat):
            level = next(one for one in flank.levels if one.price_msat == price)
            same = list(group)
            assert (level.orders, level.units) == (len(same), sum(one.quantity for one in same))
            assert level.matched == sum(fill.quantity for fill in done if getattr(fill, pick).price_msat == price)
        assert (flank.orders, flank.units) == (len(side), sum(one.quantity for one in side))
        assert flank.prices == len(flank.levels)
        assert flank.owners == len({one.owner for one in side})
    if buys and sells:
        assert depth.spread_msat == min(one.price_msat for one in sells) - max(one.price_msat for one in buys)
    else:
        assert depth.spread_msat is None


def test_depth_keeps_the_best_prices_of_a_book_with_very_many() -> None:
    orders = tuple(entry(Side.SELL, 1_000 - price, 2, price % 200) for price in range(2 * DEPTH_LEVELS_MAX))
    asks = depth_of(Cleared(book=BOOK, epoch=1, root=bytes(32), fills=(), buys=(), sells=orders)).asks
    assert len(asks.levels) == DEPTH_LEVELS_MAX
    assert (asks.prices, asks.units, asks.best_msat) == (2 * DEPTH_LEVELS_MAX, 4 * DEPTH_LEVELS_MAX, 1_001 - 2 * DEPTH_LEVELS_MAX)


@pytest.mark.parametrize(("bought", "sold", "expected"), [(3, 1, 500), (1, 3, -500), (2, 1, 333), (5, 0, 1_000), (0, 0, None)])
def test_imbalance_says_which_side_is_larger(bought: int, sold: int, expected: int | None) -> None:
    buys = (entry(Side.BUY, 1, bought, 1),) if bought else ()
    sells = (entry(Side.SELL, 2, sold, 1),) if sold else ()
    depth = depth_of(Cleared(book=BOOK, epoch=1, root=bytes(32), fills=(), buys=buys, sells=sells))
    assert depth.imbalance_permille == expected
