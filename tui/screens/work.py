"""Work: the workers of this node, the stalls that sell their time, and the mandates that were granted beforehand."""

from collections.abc import Iterable
from typing import ClassVar

from textual.binding import Binding, BindingType

from tui.feed import Json, Snapshot
from tui.screens.orders import order_row
from tui.widgets.fit import Column
from tui.widgets.listing import Cell, Listing, Row
from tui.widgets.pane import Pane
from tui.words import BAD, BUSY, FADED, GOOD, age, count, plural, price, text, whole

_WORKERS = (
    Column(title="Worker", least=12, most=30, rank=100),
    Column(title="Article", least=17, most=44, rank=90, spare=True, tail=True),
    Column(title="State", least=8, most=20, rank=95),
    Column(title="Busy", least=5, most=7, rank=80, right=True),
    Column(title="Done", least=4, most=9, rank=70, right=True),
    Column(title="Failed", least=6, most=9, rank=75, right=True),
    Column(title="Last words", least=24, most=70, rank=40),
)
_STALLS = (
    Column(title="Stall", least=12, most=30, rank=100),
    Column(title="Article", least=17, most=44, rank=90, spare=True, tail=True),
    Column(title="Price", least=9, most=16, rank=95, right=True),
    Column(title="Slots", least=5, most=7, rank=70, right=True),
    Column(title="State", least=17, most=40, rank=80),
)
_MANDATES = (
    Column(title="Side", least=4, most=4, rank=100),
    Column(title="Article", least=17, most=44, rank=90, spare=True, tail=True),
    Column(title="Price", least=9, most=16, rank=95, right=True),
    Column(title="Trades left", least=11, most=11, rank=80, right=True),
    Column(title="Ends in", least=7, most=9, rank=75, right=True),
    Column(title="In use", least=6, most=6, rank=20, right=True),
)

_STATES = {"idle": GOOD, "working": BUSY, "silent": FADED}
_STATE_WORDS = {
    "silent": "silent: it gets no work until it registers again",
    "blocked": "blocked for a while, because it failed",
}


def worker_row(line: Json) -> Row:
    """One worker."""
    registered = line.get("kind") == "registered"
    failed = line.get("failed")
    failures = {str(code): number for code, number in failed.items()} if isinstance(failed, dict) else {}
    lost = sum(number for number in failures.values() if isinstance(number, int))
    busy, slots = whole(line, "busy") or 0, whole(line, "slots")
    state = text(line, "state") or ("working" if busy else "idle")
    tone = _STATES.get(state, BAD)
    name = text(line, "name")
    return Row(
        key=f"worker:{name}",
        cells=(
            name,
            text(line, "article"),
            Cell(state, tone),
            f"{busy}/{count(slots)}" if slots is not None else str(busy),
            count(whole(line, "done")),
            Cell(str(lost), BAD if lost else FADED),
            Cell(text(line, "last_words"), FADED),
        ),
        article=text(line, "article"),
        facts=(
            ("Worker", f"{name} for {text(line, 'article')}"),
            ("Address", text(line, "pushurl")),
            ("Kind", "registered by a program" if registered else "run by this node"),
            ("State", _STATE_WORDS.get(state, state)),
            ("Failures", ", ".join(f"{code} {number}" for code, number in sorted(failures.items()))),
            ("Last words", text(line, "last_words")),
        ),
    )


def stall_row(line: Json) -> Row:
    """One stall."""
    order = order_row(line, f"order:{text(line, 'id')}")
    return Row(
        key=order.key,
        cells=(text(line, "worker"), text(line, "article"), order.cells[2], order.cells[3], order.cells[5]),
        article=order.article,
        facts=order.facts,
    )


def mandate_row(line: Json, now_us: int) -> Row:
    """One mandate."""
    side = text(line, "side")
    msat = whole(line, "price_msat")
    left = whole(line, "trades_left")
    ends = whole(line, "until_us")
    rest = "no limit" if ends is None else age((ends - now_us) / 1_000_000) if ends > now_us else "ended"
    return Row(
        key=f"mandate:{text(line, 'id')}",
        cells=(
            side,
            text(line, "article"),
            price(msat),
            "no limit" if left is None else count(left),
            rest,
            count(whole(line, "in_use")),
        ),
        tone=FADED if left == 0 or (ends is not None and ends <= now_us) else "",
        article=text(line, "article"),
        facts=(
            ("Mandate", f"to {side} {text(line, 'article')}"),
            ("Price", f"{'at most' if side == 'buy' else 'at least'} {price(msat)} a unit"),
            ("Trades left", "no limit" if left is None else count(left)),
            ("Ends in", rest),
            ("In use", plural(whole(line, "in_use") or 0, "purchase") if line.get("in_use") else ""),
            ("Id", text(line, "id")),
        ),
    )


class Work(Pane):
    """Workers, stalls, mandates."""

    NAME = "work"
    TITLE = "Work"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("w", "want('worker')", "Register worker"),
        Binding("s", "want('sell')", "Sell"),
        Binding("m", "want('mandate')", "Grant mandate"),
        Binding("d,delete", "want('remove')", "Remove", key_display="d"),
    ]

    def tables(self) -> Iterable[Listing]:
        """The three tables."""
        yield Listing("Workers", _WORKERS, "no workers: press w to register one", id="workers")
        yield Listing("Stalls", _STALLS, "nothing is for sale: press s to sell a worker's time", id="stalls")
        yield Listing("Mandates", _MANDATES, "no mandates: press m to grant one", id="mandates")

    def show(self, snapshot: Snapshot, now_us: int) -> None:
        """Show all three."""
        self.listing("workers").show([worker_row(line) for line in snapshot.workers])
        self.listing("stalls").show([stall_row(line) for line in snapshot.orders if line.get("side") == "sell"])
        self.listing("mandates").show([mandate_row(line, now_us) for line in snapshot.mandates])
