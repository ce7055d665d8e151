"""Columns that share a width."""

from hypothesis import given
from hypothesis import strategies as st

from tui.screens import activity, market, money, peers, work
from tui.widgets.fit import GAP_CELLS, Column, fit

COLUMNS = st.lists(
    st.builds(
        Column,
        title=st.text("abc", max_size=6),
        least=st.integers(1, 12),
        most=st.integers(1, 40),
        rank=st.integers(0, 5),
        spare=st.booleans(),
    ),
    min_size=1,
    max_size=8,
)


@given(COLUMNS, st.lists(st.integers(0, 60), min_size=8, max_size=8), st.integers(0, 200))
def test_columns_never_leave_the_window_nor_overlap(columns: list[Column], wanted: list[int], width: int) -> None:
    places = fit(columns, wanted, width)
    assert places
    assert [place.index for place in places] == sorted(place.index for place in places)
    end = -GAP_CELLS
    for place in places:
        assert place.start == end + GAP_CELLS
        end = place.start + place.width
    assert end <= max(width, 0) or len(places) == 1
    kept = {place.index for place in places}
    lost = set(range(len(columns))) - kept
    if lost:
        assert max(columns[index].rank for index in lost) <= min(columns[index].rank for index in kept)
        for place in places[:1] if len(places) > 1 else ():
            assert place.width >= columns[place.index].least


@given(COLUMNS, st.lists(st.integers(0, 60), min_size=8, max_size=8))
def test_in_a_wide_window_all_have_what_they_want(columns: list[Column], wanted: list[int]) -> None:
    places = fit(columns, wanted, 1_000)
    assert len(places) == len(columns)
    for place in places:
        column = columns[place.index]
        assert place.width >= min(wanted[place.index], column.most)
    if any(column.spare for column in columns):
        assert places[-1].start + places[-1].width == 1_000


def test_what_must_be_seen_at_eighty_columns() -> None:
    inside = 80 - 2  # one cell of air on either side

    def titles(columns: tuple[Column, ...]) -> set[str]:
        return {columns[place.index].title for place in fit(columns, [0] * len(columns), inside)}

    assert titles(market._BOOKS) >= {"Article", "Book", "Bid", "Ask", "Units", "Last price", "State"}
    assert titles(market._ORDERS) >= {"Side", "Article", "Price", "State"}
    assert titles(activity._TRADES) >= {"Phase", "Age", "Side", "Article", "Price", "Peer", "Reason"}
    assert titles(work._WORKERS) >= {"Worker", "Article", "State", "Busy", "Done", "Failed"}
    assert titles(work._STALLS) >= {"Stall", "Article", "Price", "State"}
    assert titles(work._MANDATES) >= {"Side", "Article", "Price", "Trades left", "Ends in"}
    assert titles(money._CHANNELS) >= {"Phase", "Side", "Peer", "Capacity", "Paid"}
    assert titles(peers._PEERS) >= {"Account", "Direction", "Neighbour", "Standing"}


def test_at_a_hundred_and_sixty_nothing_is_left_out_of_books_and_trades() -> None:
    inside = 160 - 2 - 41 - 4  # margins, the closer look, the frame
    for columns in (
        market._BOOKS,
        market._ORDERS,
        activity._TRADES,
        work._STALLS,
        work._MANDATES,
        work._WORKERS,
        money._CHANNELS,
    ):
        assert len(fit(columns, [0] * len(columns), inside)) == len(columns)
