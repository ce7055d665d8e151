"""The auction against bare sorting in numpy, and against two matching engines that others published.

All sides of a comparison take turns in one run, and the best turn of each counts: the machine's clock drifts. Times are
those of the processor.
"""

import random
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import compress
from typing import Any, Final

import numpy as np

from orderbook.core.auction import Entry, clear
from orderbook.core.auction_arrays import clear_columns
from orderbook.core.auction_columns import NOBODY, Columns, Integers, Side
from orderbook.core.messages import Side as Of

LARGE: Final = 1_000_000
SAME_STREAM: Final = 10_000
SLOW_STREAM: Final = 4_000
TURNS: Final = 5
SEED: Final = 42

# What a stream holds: id, whether a buy, price, quantity, number of the owner.
Stream = list[tuple[bytes, bool, int, int, int]]


def best_of(turns: int, *works: Callable[[], object]) -> list[float]:
    """The least seconds of each work; they take turns."""
    least = [float("inf")] * len(works)
    for _ in range(turns):
        for place, work in enumerate(works):
            began = time.process_time()
            work()
            least[place] = min(least[place], time.process_time() - began)
    return least


# --- a million orders ---------------------------------------------------------------------------------------------------


def million(count: int = LARGE) -> Columns:
    """Prices around one middle, eight orders of an owner on either side, every fiftieth avoids eight accounts."""
    dice = np.random.default_rng(7)
    half, owners = count // 2, count // 16
    avoided = np.full((10_001, 8), NOBODY, np.int64)
    avoided[1:] = dice.integers(0, owners, (10_000, 8))

    def side() -> Side:
        return Side(
            price_msat=dice.normal(1_000_000, 20_000, half).astype(np.int64),
            quantity=dice.integers(1, 101, half),
            owner=dice.permutation(np.arange(half) % owners),
            ids=dice.integers(0, 2**64, (half, 4), np.uint64),
            avoid=np.where(dice.random(half) < 0.02, dice.integers(1, 10_001, half), 0),
        )

    draws = dice.integers(0, 2**64, owners, np.uint64)
    return Columns(buys=side(), sells=side(), draws=draws.__getitem__, avoided=avoided)


def sort_and_sum(book: Columns) -> tuple[int, int]:
    """The bare baseline: both sides by price, then by the first word of the id; running totals; where they cross. No pairs,
    no tickets, no refusals. Returns the units and the price of the last sell.
    """
    buys, sells = book.buys, book.sells
    buying = np.lexsort((buys.ids[:, 0], -buys.price_msat))
    selling = np.lexsort((sells.ids[:, 0], sells.price_msat))
    demand, supply = np.cumsum(buys.quantity[buying]), np.cumsum(sells.quantity[selling])
    asks = sells.price_msat[selling]
    willing: Integers = np.searchsorted(-buys.price_msat[buying], -asks, "right")  # buys at each ask or more
    wanted = np.where(willing > 0, demand[willing - 1], 0)
    crossed = int(np.count_nonzero(wanted > supply - sells.quantity[selling]))
    if not crossed:
        return 0, 0
    return int(np.minimum(wanted, supply)[:crossed].max()), int(asks[crossed - 1])


def against_numpy(count: int = LARGE, turns: int = TURNS) -> dict[str, Any]:
    """Clearing, pairs and all, against the bare baseline on the same columns."""
    book = million(count)
    pairs = clear_columns(book, SEED)
    units, _ = sort_and_sum(book)
    if abs(int(pairs.quantity.sum()) - units) > units // 1_000:  # refused pairs may leave a few units
        raise AssertionError("the baseline and the auction cross different quantities")
    bare, real = best_of(turns, lambda: sort_and_sum(book), lambda: clear_columns(book, SEED))
    return {
        "name": "auction.1e6_vs_numpy",
        "value": round(real / bare, 3),
        "unit": "times the baseline's processor time",
        "baseline": f"numpy lexsort of both sides by price and id, running totals, crossing point; {count:,} orders, no pairs",
        "higher_is_better": False,
        "bound": 1.5,
        "remark": f"{len(pairs.buy):,} pairs in {real * 1e3:.0f} ms, baseline {bare * 1e3:.0f} ms, both from columns, "
        f"the better of {turns} turns each",
    }


# --- engines of others ----------------------------------------------------------------------------------------------------


def stream(count: int) -> Stream:
    """Random limit orders around 1,000 with a deviation of 20."""
    dice = random.Random(1)
    return [
        (dice.randbytes(32), dice.random() < 0.5, max(0, int(dice.gauss(1_000, 20))), dice.randint(1, 100), number // 16)
        for number in range(count)
    ]


def ours(orders: Stream) -> list[tuple[int, ...]]:
    """The stream to columns, cleared, and the pairs as plain numbers again."""
    ids, buys, prices, quantities, owners = zip(*orders, strict=True)
    sides = []
    words = np.frombuffer(b"".join(ids), ">u8").astype(np.uint64).reshape(-1, 4)
    price, quantity, owner = (np.array(one, np.int64) for one in (prices, quantities, owners))
    buying = np.array(buys, np.bool_)
    for chosen in (buying, ~buying):
        rows = np.flatnonzero(chosen)
        none = np.zeros(len(rows), np.int64)
        sides.append(Side(price_msat=price[rows], quantity=quantity[rows], owner=owner[rows], ids=words[rows], avoid=none))
    draws = np.random.default_rng(3).integers(0, 2**64, len(orders), np.uint64)
    avoided = np.full((1, 8), NOBODY, np.int64)
    pairs = clear_columns(Columns(buys=sides[0], sells=sides[1], draws=draws.__getitem__, avoided=avoided), SEED)
    columns = (pairs.buy, pairs.sell, pairs.quantity, pairs.price_msat, pairs.buy_from, pairs.sell_from)
    return list(zip(*(one.tolist() for one in columns), strict=True))


def entries_of(orders: Stream) -> tuple[list[Entry], list[Entry]]:
    """The stream as the objects that a book hands out."""
    entries = [
        Entry(
            id=name,
            owner=b"\x02" + owner.to_bytes(32, "big"),
            side=Of.BUY if buy else Of.SELL,
            price_msat=price,
            quantity=quantity,
        )
        for name, buy, price, quantity, owner in orders
    ]
    buying = [one[1] for one in orders]
    return list(compress(entries, buying)), list(compress(entries, (not one for one in buying)))


def lightmatchingengine(orders: Stream) -> int:
    """All orders into the engine one by one; returns the number of trades it told."""
    from lightmatchingengine.lightmatchingengine import LightMatchingEngine
    from lightmatchingengine.lightmatchingengine import Side as Their

    engine, trades = LightMatchingEngine(), 0
    for _, buy, price, quantity, _ in orders:
        trades += len(engine.add_order("x", price, quantity, Their.BUY if buy else Their.SELL)[1])
    return trades


def order_matching(orders: Stream) -> Callable[[], int]:
    """A run of the engine over all orders as one batch; making its order objects is not part of it. Its log is off."""
    from loguru import logger
    from order_matching.enums import Side as Their
    from order_matching.matching_engine import MatchingEngine
    from order_matching.order import LimitOrder
    from order_matching.orders import Orders

    logger.disable("order_matching")
    began = datetime(2026, 1, 1)
    theirs = [
        LimitOrder(
            side=Their.BUY if buy else Their.SELL,
            price=float(price),
            size=float(quantity),
            timestamp=began + timedelta(seconds=number),
            order_id=str(number),
            trader_id=str(owner),
        )
        for number, (_, buy, price, quantity, owner) in enumerate(orders)
    ]

    def run() -> int:
        engine = MatchingEngine(seed=1)
        engine.place(Orders(list(theirs)))
        return len(engine.match(began + timedelta(days=99)).trades)

    return run


def against_light(count: int = SAME_STREAM, turns: int = TURNS) -> dict[str, Any]:
    """Orders per second on one stream of plain values, ours over theirs."""
    orders = stream(count)
    buys, sells = entries_of(orders)
    if not lightmatchingengine(orders):
        raise AssertionError("lightmatchingengine matched nothing")
    theirs, real, whole = best_of(
        turns, lambda: lightmatchingengine(orders), lambda: ours(orders), lambda: clear(buys, sells, SEED)
    )
    return {
        "name": "auction.vs_lightmatchingengine",
        "value": round(theirs / real, 1),
        "unit": "times its orders per second",
        "baseline": f"lightmatchingengine 2019.1.4, {count:,} orders one by one: {count / theirs:,.0f} orders/s",
        "higher_is_better": True,
        "bound": 5,
        "remark": f"from tuples to columns to pairs and back to tuples: {count / real:,.0f} orders/s; "
        f"from a book's order objects to fill objects {count / whole:,.0f} orders/s, {theirs / whole:.1f} times",
    }


def against_order_matching(count: int = SLOW_STREAM, turns: int = 3) -> dict[str, Any]:
    """The same against an engine that slows down with its book: few orders."""
    orders = stream(count)
    run = order_matching(orders)
    if not run():
        raise AssertionError("order-matching matched nothing")
    buys, sells = entries_of(orders)
    theirs, real = best_of(turns, run, lambda: clear(buys, sells, SEED))
    return {
        "name": "auction.vs_order_matching",
        "value": round(theirs / real, 1),
        "unit": "times its orders per second",
        "baseline": f"order-matching 0.12.0, log off, {count:,} orders in one batch: {count / theirs:,.0f} orders/s",
        "higher_is_better": True,
        "bound": 100,
        "remark": f"from a book's order objects to fill objects: {count / real:,.0f} orders/s",
    }


def figures() -> list[dict[str, Any]]:
    """All figures of the auction."""
    return [against_numpy(), against_light(), against_order_matching()]
