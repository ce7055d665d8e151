"""Activity: every trade with its phase, its partner, its price and the reason in words; the newest first, the finished greyed."""

from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType

from tui.feed import Json, Snapshot
from tui.screens.orders import waiting
from tui.widgets.fit import Column
from tui.widgets.listing import Cell, Listing, Row
from tui.widgets.pane import Pane
from tui.words import FADED, UNDER_WAY, phase_tone, phase_word, plural, price, short, since, text, whole

_TRADES = (
    Column(title="Phase", least=14, most=17, rank=100),
    Column(title="Age", least=4, most=4, rank=60, right=True),
    Column(title="Side", least=4, most=4, rank=80),
    Column(title="Article", least=12, most=44, rank=89, tail=True),
    Column(title="Price", least=10, most=16, rank=90, right=True),
    Column(title="Peer", least=9, most=9, rank=75),
    Column(title="Unit", least=4, most=5, rank=20, right=True),
    Column(title="Reason", least=13, most=90, rank=88, spare=True),
)


def trade_row(line: Json, now_us: int) -> Row:
    """One unit of a trade."""
    phase, free = text(line, "phase"), line.get("free") is True
    bought = line.get("role") == "buyer"
    msat, changed = whole(line, "price_msat"), whole(line, "changed_us")
    tone = phase_tone(phase)
    return Row(
        key=f"{text(line, 'deal')}:{text(line, 'unit')}",
        cells=(
            Cell(phase_word(phase), "" if tone == FADED else tone),
            since(changed, now_us),
            "buy" if bought else "sell",
            text(line, "article"),
            price(msat, free=free),
            short(text(line, "account")),
            text(line, "unit"),
            text(line, "reason"),
        ),
        tone=FADED if tone == FADED else "",
        article=text(line, "article"),
        facts=(
            ("Reason", text(line, "reason")),
            ("Trade", f"{'bought from' if bought else 'sold to'} {text(line, 'account')} for {price(msat, free=free)}"),
            ("Article", text(line, "article")),
            ("Phase", phase if changed is None else f"{phase}, {since(changed, now_us)} ago"),
            ("Peer", text(line, "peer")),
            ("Work", text(line, "work")),
            ("Result", text(line, "result")),
            ("Deal", f"{text(line, 'deal')} unit {text(line, 'unit')}"),
            ("Channel", text(line, "channel")),
        ),
    )


def placed_row(key: str, lines: Sequence[Json]) -> Row:
    """Purchases of one article at one price that have no partner yet."""
    line = lines[0]
    msat = whole(line, "price_msat")
    cost = price(msat, free=msat is None)
    reason = text(line, "reason") or "waits for a seller"
    many = f" ×{len(lines)}" if len(lines) > 1 else ""
    return Row(
        key=key,
        cells=(f"{phase_word('placed')}{many}", "", "buy", text(line, "article"), cost, "", "", reason),
        article=text(line, "article"),
        facts=(
            ("Reason", reason),
            ("Order", f"buy {plural(len(lines), 'unit')} of {text(line, 'article')} for at most {cost} each"),
        ),
    )


class Activity(Pane):
    """One table of everything that goes on."""

    NAME = "activity"
    TITLE = "Activity"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("b", "want('buy')", "Buy"),
        Binding("o", "want('save')", "Save result"),
        Binding("d,delete", "want('cancel')", "Cancel order", key_display="d"),
    ]

    def tables(self) -> Iterable[Listing]:
        """The table."""
        yield Listing("Trades", _TRADES, "no trades yet", id="trades")

    def show(self, snapshot: Snapshot, now_us: int) -> None:
        """Show orders that wait for a partner, then the trades."""
        trades = [trade_row(line, now_us) for line in snapshot.trades]
        self.listing("trades").show([*(placed_row(key, lines) for key, lines in waiting(snapshot.orders).items()), *trades])


def under_way(snapshot: Snapshot) -> int:
    """How many units are under way."""
    return sum(1 for line in snapshot.trades if line.get("phase") in UNDER_WAY)
