"""Peers: the nodes this one is connected to, who connected to whom, and what they have to be blamed for."""

from collections.abc import Iterable

from tui.feed import Json, Snapshot
from tui.widgets.fit import Column
from tui.widgets.listing import Cell, Listing, Row
from tui.widgets.pane import Pane
from tui.words import BAD, FADED, GOOD, since, text, whole, yes

_PEERS = (
    Column(title="Account", least=34, most=34, rank=100),
    Column(title="Direction", least=9, most=9, rank=80),
    Column(title="Neighbour", least=9, most=9, rank=85),
    Column(title="Standing", least=8, most=12, rank=90),
    Column(title="Since", least=6, most=6, rank=60, right=True),
    Column(title="Address", least=21, most=48, rank=50),
    Column(title="Remark", least=6, most=80, rank=40, spare=True),
)


def peer_row(line: Json, now_us: int) -> Row:
    """One peer."""
    penalty = whole(line, "penalty") or 0
    listed = line.get("addresses")
    addresses = [str(one) for one in listed] if isinstance(listed, list) else []
    standing = "good" if penalty == 0 else f"−{penalty}"
    connected = whole(line, "connected_since_us")
    return Row(
        key=text(line, "peer"),
        cells=(
            text(line, "account"),
            text(line, "direction"),
            Cell(yes(line.get("neighbour")), GOOD),
            Cell(standing, BAD if penalty else FADED),
            since(connected, now_us),
            addresses[0] if addresses else "",
            Cell(text(line, "remark"), BAD),
        ),
        facts=(
            ("Standing", f"{standing}: {text(line, 'remark')}" if penalty else "nothing to blame"),
            ("Orders", "are exchanged with it" if line.get("neighbour") else "are not exchanged with it"),
            ("Addresses", ", ".join(addresses)),
            ("Account", text(line, "account")),
            ("Peer", text(line, "peer")),
        ),
    )


class Peers(Pane):
    """One table."""

    NAME = "peers"
    TITLE = "Peers"

    def tables(self) -> Iterable[Listing]:
        """The table."""
        yield Listing("Peers", _PEERS, "no peers: nobody is connected", id="peer-list")

    def show(self, snapshot: Snapshot, now_us: int) -> None:
        """Show the peers, neighbours in the order books first."""
        ordered = sorted(snapshot.peers, key=lambda line: (not line.get("neighbour"), text(line, "account")))
        self.listing("peer-list").show([peer_row(line, now_us) for line in ordered])
