"""Money: what there is, on which network, what stands in escrow, and every channel with what it has paid."""

from collections.abc import Iterable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from tui.feed import Json, Snapshot
from tui.widgets.fit import Column
from tui.widgets.listing import Cell, Listing, Row
from tui.widgets.pane import Pane
from tui.words import BAD, BUSY, FADED, GOOD, NOTHING, money, satoshi, short, text, whole

_CHANNELS = (
    Column(title="Channel", least=9, most=13, rank=30),
    Column(title="Phase", least=10, most=12, rank=100),
    Column(title="Side", least=4, most=4, rank=80),
    Column(title="Peer", least=9, most=9, rank=75),
    Column(title="Capacity", least=11, most=16, rank=90, right=True),
    Column(title="Paid", least=10, most=16, rank=95, right=True),
    Column(title="Left", least=10, most=16, rank=60, right=True),
    Column(title="Refund at", least=9, most=9, rank=20, right=True),
    Column(title="End", least=11, most=60, rank=50, spare=True),
)
_PHASES = {"open": GOOD, "closed": FADED, "buried": FADED, "refused": FADED, "failed": BAD}


def channel_row(line: Json) -> Row:
    """One channel."""
    phase = text(line, "phase")
    paid, usable = whole(line, "paid_msat"), whole(line, "usable_msat")
    left = None if paid is None or usable is None else usable - paid
    tone = _PHASES.get(phase, BUSY)
    split = _split(line)
    end = " ".join(part for part in (text(line, "ending"), split) if part)
    return Row(
        key=text(line, "channel"),
        cells=(
            short(text(line, "channel")),
            Cell(phase, "" if tone == FADED else tone),
            {"buyer": "buy", "seller": "sell"}.get(text(line, "role"), ""),
            short(text(line, "account")),
            satoshi(whole(line, "capacity_sat")),
            money(paid),
            money(left) if tone != FADED else NOTHING,
            text(line, "refund_height"),
            end,
        ),
        tone=FADED if tone == FADED else "",
        facts=(
            ("Channel with", text(line, "account")),
            ("Phase", phase),
            ("Paid", f"{money(paid)} of {money(usable)}, keys given for {money(whole(line, 'revealed_msat'))}"),
            ("Refund to the buyer from block", text(line, "refund_height")),
            ("Ended", end),
            ("Funded by", text(line, "funding_txid")),
            ("Closed by", text(line, "close_txid")),
            ("Channel", text(line, "channel")),
        ),
    )


def _split(line: Json) -> str:
    seller, buyer, fees = (whole(line, name) for name in ("to_seller_sat", "to_buyer_sat", "fees_sat"))
    if seller is None or buyer is None:
        return ""
    return f"{satoshi(seller)} to seller, {satoshi(buyer)} to buyer, fees {satoshi(fees)}"


def _escrow(sat: int | None) -> str:
    return NOTHING if sat is None else f"{satoshi(sat)} in escrow" if sat else "nothing in escrow"


def turnover_msat(snapshot: Snapshot, role: str) -> int:
    """What all channels in which we have this role have paid."""
    return sum(whole(line, "paid_msat") or 0 for line in snapshot.channels if line.get("role") == role)


class Purse(Static):
    """The balance, the network in so many words, exposure, and turnover."""

    def show(self, snapshot: Snapshot) -> None:
        """Show what there is."""
        status = snapshot.status
        balance = whole(status, "balance_sat")
        real = snapshot.real_money
        kind = f"REAL MONEY on {text(status, 'network')}" if real else f"play money on {text(status, 'network')}"
        amount = "no chain: only free books" if balance is None else f"{money(balance * 1_000)}  ({satoshi(balance)})"
        facts = (
            ("Balance", amount, "bold $foreground"),
            ("Network", kind if snapshot.heard else NOTHING, "bold $error" if real else "bold $success"),
            ("Exposure", _escrow(whole(status, "exposure_sat")), "$foreground"),
            ("Spent", money(turnover_msat(snapshot, "buyer")), "$foreground"),
            ("Earned", money(turnover_msat(snapshot, "seller")), "$foreground"),
            ("Deposit", text(status, "address") or NOTHING, "$foreground"),
            ("Account", text(status, "account") or NOTHING, "$foreground"),
        )
        lines = [Content.assemble((f"{label:<10}", "$label"), (value, style)) for label, value, style in facts]
        self.update(Content("\n").join(lines))


class Money(Pane):
    """The purse above, the channels below."""

    NAME = "money"
    TITLE = "Money"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("x", "want('close')", "Close channels")]

    def head(self) -> ComposeResult:
        """The purse."""
        purse = Purse(id="purse", markup=False)
        purse.border_title = "Purse"
        yield purse

    def tables(self) -> Iterable[Listing]:
        """The channels."""
        yield Listing("Channels", _CHANNELS, "no channels: the first paid trade opens one", id="channels")

    def show(self, snapshot: Snapshot, now_us: int) -> None:
        """Show purse and channels; those that still hold money first."""
        del now_us
        self.query_one(Purse).show(snapshot)
        rows = [channel_row(line) for line in snapshot.channels]
        self.listing("channels").show(sorted(rows, key=lambda row: row.tone == FADED))
