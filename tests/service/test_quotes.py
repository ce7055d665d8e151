"""Articles, depth and prices of a real brain, whose auctions the test tells."""

from typing import Any

import pytest

from orderbook.core.auction import Entry, clear
from orderbook.core.events import Cleared
from orderbook.core.messages import Side
from orderbook.core.tape import Series, Tape
from peer.core.brain import Brain
from peer.core.events import Notice, Watched
from peer.node.quotes import RECENT, Quotes
from wire.errors import Refused
from wire.keys import SecretKey
from wire.limits import DEPTH_LEVELS_MAX, TAPE_SLOTS_MAX
from wire.moments import SECOND, Instant
from wire.network import REGTEST

RAYS = "net.bitwrk/rays/1"
EPOCH = 900_000_000
NOW = REGTEST.clock.freeze(EPOCH)


class Stand:
    """A brain with a tape, and what is said of it."""

    def __init__(self, *, instance: bytes | None = bytes(31) + b"\x07") -> None:
        self.tape = Tape(REGTEST.clock)
        self.now = NOW
        self.brain = Brain(key=SecretKey(bytes(31) + b"\x05"), network=REGTEST, instance=instance, run=b"", tape=self.tape)
        self.quotes = Quotes(self.brain, self.tape, lambda: self.now)
        self.brain.handle(Watched(article=RAYS), NOW)

    def book(self, free: bool = False) -> str:
        return self.brain.shop.book(RAYS, free).hex()

    def clears(self, epoch: int, bids: list[tuple[int, int]], asks: list[tuple[int, int]], refusal: str = "") -> list[Any]:
        """An auction over (price, units) of as many owners; returns what the brain said."""
        buys = tuple(_entry(Side.BUY, number, *one) for number, one in enumerate(bids))
        sells = tuple(_entry(Side.SELL, number, *one) for number, one in enumerate(asks))
        book = bytes.fromhex(self.book())
        fills = tuple(clear(buys, sells, 0))
        told = Cleared(book=book, epoch=epoch, root=bytes(32), fills=fills, buys=buys, sells=sells, refusal=refusal)
        return list(self.brain.handle(told, NOW))

    def prices(self, **said: Any) -> Any:
        given: dict[str, Any] = {"slot": "1m", "series": "matched", "from_us": None, "to_us": None, "limit": TAPE_SLOTS_MAX}
        return self.quotes.prices(said.pop("book", self.book()), **{**given, **said})

    def line(self, free: bool = False) -> Any:
        return next(line for line in self.quotes.articles() if line["free"] is free)


def _entry(side: Side, number: int, price: int, units: int) -> Entry:
    name = bytes([side.value, number])
    return Entry(id=name * 16, owner=b"\x02" + name * 16, side=side, price_msat=price, quantity=units)


def test_articles_tell_prices_volume_depth_and_terms() -> None:
    stand = Stand()
    assert (stand.line()["last_msat"], stand.line()["day"], stand.line()["quartiles"]) == (None, None, None)
    stand.clears(EPOCH - 3_000, [(500, 4)], [(300, 4)])
    stand.clears(EPOCH, [(900, 2), (100, 8)], [(600, 3), (950, 1)])
    line = stand.line()
    assert line["article"] == RAYS
    assert (line["best_bid_msat"], line["best_ask_msat"], line["spread_msat"]) == (900, 600, -300)
    assert (line["buy_units"], line["sell_units"], line["buy_orders"], line["sell_orders"]) == (10, 4, 2, 2)
    assert (line["buyers"], line["sellers"], line["matched_units"]) == (2, 2, 2)
    assert (line["last_msat"], line["last_us"]) == (line["price_msat"], REGTEST.clock.start(EPOCH))
    assert (line["day"]["matches"], line["day"]["units"], line["day"]["first_msat"]) == (2, 6, 400)
    assert line["recent_msat"] == [400, line["price_msat"]]
    assert (line["quartiles"]["low_msat"], line["quartiles"]["units"]) == (400, 6)
    assert (line["terms"]["kind"], stand.line(free=True)["terms"]["kind"]) == ("escrow/1", "free/1")
    assert (line["own_day"], line["own_last_msat"]) == (None, None)
    stand.now = Instant(NOW + 2 * 86_400 * SECOND)
    assert (stand.line()["day"], stand.line()["last_msat"]) == (None, line["price_msat"])


def test_own_matches_are_told_apart() -> None:
    stand = Stand()
    stand.tape.agreed(bytes.fromhex(stand.book()), EPOCH, 700, 2)
    line = stand.line()
    assert (line["own_last_msat"], line["own_day"]["sum_msat"], line["last_msat"]) == (700, 1_400, None)
    assert stand.prices()["slots"] == []
    (slot,) = stand.prices(series="agreed")["slots"]
    assert (slot["units"], slot["mean_msat"]) == (2, 700)


def test_the_event_of_an_auction_tells_last_price_and_spread() -> None:
    stand = Stand()
    stand.clears(EPOCH - 1, [(500, 1)], [(300, 1)])
    (event,) = [one for one in stand.clears(EPOCH, [(500, 1)], [(800, 1)]) if isinstance(one, Notice) and one.kind == "book"]
    assert (event.facts["price_msat"], event.facts["last_msat"], event.facts["spread_msat"]) == (None, 400, 300)
    assert event.facts["day_units"] == 1


def test_depth_shows_the_best_prices_first_and_no_more_than_asked_for() -> None:
    stand = Stand()
    stand.clears(EPOCH, [(100, 1), (200, 2), (200, 3)], [(250, 4), (190, 1)])
    depth = stand.quotes.depth(stand.book(), levels=1)
    assert depth["bids"]["levels"] == [{"price_msat": 200, "orders": 2, "units": 5, "matched_units": 1}]
    assert depth["asks"]["levels"] == [{"price_msat": 190, "orders": 1, "units": 1, "matched_units": 1}]
    assert (depth["bids"]["prices"], depth["bids"]["units"], depth["bids"]["owners"]) == (2, 6, 3)
    assert (depth["spread_msat"], depth["imbalance_permille"]) == (-10, 90)
    assert len(stand.quotes.depth(stand.book(), levels=DEPTH_LEVELS_MAX)["asks"]["levels"]) == 2


def test_prices_are_slots_of_a_range_and_say_what_was_left_off() -> None:
    stand = Stand()
    for back in range(5):
        stand.clears(EPOCH - 120 + 30 * back, [(500 + back, 1)], [(300, 1)])
    told = stand.prices()
    assert (told["slot_s"], told["left_off"], len(told["slots"])) == (60, 0, 5)
    assert [slot["end_us"] - slot["begin_us"] for slot in told["slots"]] == [60 * SECOND] * 5
    assert told["oldest_us"] == told["slots"][0]["begin_us"]
    some = stand.prices(from_us=told["slots"][1]["begin_us"], to_us=told["slots"][4]["begin_us"])
    assert some["slots"] == told["slots"][1:4]
    later = stand.prices(from_us=told["slots"][1]["begin_us"] + 1, limit=2)
    assert (later["slots"], later["left_off"]) == (told["slots"][3:], 1)
    (year,) = stand.prices(slot="1y")["slots"]
    assert (year["units"], year["sum_msat"]) == (5, sum(slot["sum_msat"] for slot in told["slots"]))


def test_no_more_than_the_latest_prices_are_drawn() -> None:
    stand = Stand()
    for back in range(RECENT + 5):
        stand.clears(EPOCH - 100 + back, [(500, 1)], [(300, 1)])
    assert len(stand.line()["recent_msat"]) == RECENT


def test_an_auction_we_would_not_trade_on_is_shown_but_not_remembered() -> None:
    stand = Stand()
    stand.clears(EPOCH, [(500, 1)], [(300, 1)], refusal="clock-skewed")
    assert (stand.line()["price_msat"], stand.line()["last_msat"]) == (400, None)
    assert stand.tape.of(bytes.fromhex(stand.book()), Series.MATCHED).newest_s == -1


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"slot": "2m"}, "bad-slot"),
        ({"slot": ""}, "bad-slot"),
        ({"series": "both"}, "bad-series"),
        ({"from_us": -1}, "bad-range"),
        ({"from_us": 5, "to_us": 5}, "bad-range"),
        ({"from_us": 6, "to_us": 5}, "bad-range"),
        ({"to_us": 1 << 63}, "bad-range"),
        ({"limit": 0}, "bad-limit"),
        ({"limit": TAPE_SLOTS_MAX + 1}, "bad-limit"),
        ({"book": "00" * 32}, "unknown-book"),
        ({"book": "zz" * 32}, "unknown-book"),
        ({"book": RAYS}, "unknown-book"),
        ({"book": ""}, "unknown-book"),
    ],
)
def test_every_bad_question_is_refused_by_name(said: dict[str, Any], code: str) -> None:
    with pytest.raises(Refused) as caught:
        Stand().prices(**said)
    assert caught.value.code == code


def test_depth_is_refused_by_name_too() -> None:
    stand = Stand()
    for book, levels, code in (
        ("00" * 32, 1, "unknown-book"),
        (stand.book(), 0, "bad-levels"),
        (stand.book(), DEPTH_LEVELS_MAX + 1, "bad-levels"),
        (stand.book(), 1, "no-auction"),
    ):
        with pytest.raises(Refused) as caught:
            stand.quotes.depth(book, levels=levels)
        assert caught.value.code == code


def test_a_brain_without_a_tape_remembers_nothing() -> None:
    brain = Brain(key=SecretKey(bytes(31) + b"\x05"), network=REGTEST, instance=None, run=b"")
    brain.handle(Watched(article=RAYS), NOW)
    (line,) = brain.shop.statement()
    assert line["last_msat"] is None
