"""The market: every book the node follows, as its latest auction left it, and the owner's own orders."""

from collections.abc import Iterable, Mapping
from typing import ClassVar

from textual.binding import Binding, BindingType

from tui.feed import Json, Snapshot
from tui.screens.orders import order_rows
from tui.widgets.fit import Column
from tui.widgets.listing import Cell, Listing, Row
from tui.widgets.pane import Pane
from tui.words import BAD, FADED, GOOD, NOTHING, count, money, plural, price, sparkline, text, whole

_BOOKS = (
    Column(title="Article", least=17, most=48, rank=100, spare=True, tail=True),
    Column(title="Book", least=4, most=4, rank=95),
    Column(title="Bid", least=8, most=16, rank=90, right=True),
    Column(title="Ask", least=8, most=16, rank=89, right=True),
    Column(title="Units", least=5, most=13, rank=70, right=True),
    Column(title="Traders", least=7, most=9, rank=40, right=True),
    Column(title="Matched", least=7, most=7, rank=30, right=True),
    Column(title="Last price", least=10, most=16, rank=80, right=True),
    Column(title="24 h", least=4, most=9, rank=50, right=True),
    Column(title="Epoch", least=9, most=10, rank=20, right=True),
    Column(title="State", least=9, most=44, rank=60),
)
_ORDERS = (
    Column(title="Side", least=4, most=4, rank=100),
    Column(title="Article", least=17, most=48, rank=95, spare=True, tail=True),
    Column(title="Price", least=9, most=16, rank=90, right=True),
    Column(title="Units", least=5, most=9, rank=70, right=True),
    Column(title="Tries", least=5, most=6, rank=20, right=True),
    Column(title="State", least=26, most=70, rank=80),
)


def book_row(line: Json, past: tuple[int | None, ...]) -> Row:
    """One book."""
    free = line.get("free") is True
    refusal = text(line, "refusal")
    ready = line.get("ready") is True and not refusal
    state = "ready" if ready else refusal or "not yet ready"
    bid, ask, last = whole(line, "best_bid_msat"), whole(line, "best_ask_msat"), whole(line, "price_msat")
    latest = next((one for one in (last, *reversed(past)) if one is not None), whole(line, "last_msat"))
    spread = whole(line, "spread_msat")
    buys, sells = whole(line, "buy_units"), whole(line, "sell_units")
    units = NOTHING if buys is None or sells is None else f"{buys}/{sells}"
    traders = NOTHING if buys is None else f"{whole(line, 'buyers') or 0}/{whole(line, 'sellers') or 0}"
    return Row(
        key=text(line, "book"),
        cells=(
            text(line, "article"),
            Cell("free" if free else "paid", FADED if free else ""),
            _price(bid, free),
            _price(ask, free),
            units,
            traders,
            count(whole(line, "matched_units")),
            Cell(_price(latest, free), "" if last is not None else FADED),
            count(whole(line, "day_units")),
            count(whole(line, "epoch")).replace(" ", ""),
            Cell(state, GOOD if ready else BAD),
        ),
        article=text(line, "article"),
        facts=(
            ("State", state),
            ("Article", text(line, "article")),
            ("Book", "free: nothing is paid, no escrow" if free else "paid, settled in escrow"),
            ("Wanted", plural(buys, "unit") + f" by {plural(whole(line, 'buyers') or 0, 'buyer')}" if buys else "nothing"),
            ("Offered", plural(sells, "unit") + f" by {plural(whole(line, 'sellers') or 0, 'seller')}" if sells else "nothing"),
            ("Best bid and ask", f"{_price(bid, free)} and {_price(ask, free)}" if buys or sells else ""),
            ("Spread", f"{money(spread)}: best ask less best bid" if spread is not None and not free else ""),
            ("Matched in 24 hours", plural(whole(line, "day_units") or 0, "unit")),
            ("Prices of the last auctions", _history(past) if not free else ""),
            ("Root", text(line, "root")[:16]),
        ),
    )


def _price(msat: int | None, free: bool) -> str:
    return NOTHING if msat is None else price(msat, free=free)


def _history(past: tuple[int | None, ...]) -> str:
    known = [one for one in past if one is not None]
    if not known:
        return ""
    least, most = money(min(known)), money(max(known))
    return f"{sparkline(list(past))}  {least if least == most else f'{least} to {most}'}"


class Market(Pane):
    """Books above, own orders below."""

    NAME = "market"
    TITLE = "Market"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("b", "want('buy')", "Buy"),
        Binding("s", "want('sell')", "Sell"),
        Binding("f", "want('follow')", "Follow"),
        Binding("d,delete", "want('cancel')", "Cancel order", key_display="d"),
    ]

    def tables(self) -> Iterable[Listing]:
        """The two tables."""
        yield Listing("Books", _BOOKS, "no books yet: press f to follow an article, b to buy, s to sell", id="books")
        yield Listing("Own orders", _ORDERS, "no orders: press b to buy, s to sell", id="orders")

    def show(self, snapshot: Snapshot, now_us: int) -> None:
        """Show the books and the orders."""
        del now_us
        prices: Mapping[str, tuple[int | None, ...]] = snapshot.prices
        self.listing("books").show([book_row(line, prices.get(text(line, "book"), ())) for line in snapshot.books])
        self.listing("orders").show(order_rows(snapshot.orders))
