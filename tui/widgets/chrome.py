"""What frames every screen: one line about the node, one line of tabs, and a banner when something is wrong."""

from collections.abc import Sequence

from textual.containers import Horizontal
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from tui.feed import Snapshot
from tui.words import money, plural, satoshi, short, text, whole


class Masthead(Static):
    """Network, account, balance, peers."""

    def __init__(self) -> None:
        super().__init__("", id="masthead", markup=False)
        self._snapshot = Snapshot()

    def show(self, snapshot: Snapshot) -> None:
        """Show this node."""
        self._snapshot = snapshot
        self._write()

    def on_resize(self) -> None:
        """Choose what there is room for."""
        self._write()

    def _write(self) -> None:
        snapshot, wide = self._snapshot, self.size.width >= 120
        status = snapshot.status
        mark = ("● ", "$success") if snapshot.connected else ("○ ", "$error")
        left = [mark, ("BitWrk", "bold $primary")]
        if snapshot.heard:
            network = text(status, "network")
            badge = (f"REAL MONEY {network}", "bold $error") if snapshot.real_money else (f"play money {network}", "$success")
            account = text(status, "account")
            left += [("  ", ""), badge, ("  ", ""), (account if wide else short(account), "$label")]
        balance, exposure = whole(status, "balance_sat"), whole(status, "exposure_sat")
        right: list[tuple[str, str]] = []
        if balance is not None:
            if exposure:
                right.append((f"{satoshi(exposure)} in escrow   " if wide else "", "$label"))
            right.append((money(balance * 1_000), "bold $foreground"))
        if snapshot.heard:
            right.append((f"   {plural(whole(status, 'peers') or 0, 'peer')}", "$label"))
        start, end = Content.assemble(*left), Content.assemble(*right)
        gap = max(1, self.size.width - start.cell_length - end.cell_length)
        self.update(Content.assemble(start, " " * gap, end))


class Tab(Static):
    """One tab; a click switches."""

    class Pressed(Message):
        """The owner wants to see another screen."""

        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

    def __init__(self, number: int, name: str, title: str) -> None:
        super().__init__("", markup=False)
        self.screen_name = name
        self._number = number
        self._title = title
        self.badge("")

    def badge(self, note: str) -> None:
        """Show a short note behind the title."""
        parts = [(f" {self._number} ", "$label"), (self._title, "")]
        if note:
            parts.append((f" {note}", "$warning"))
        self.update(Content.assemble(*parts, " "))

    def on_click(self) -> None:
        """Ask for this screen."""
        self.post_message(self.Pressed(self.screen_name))


class Tabs(Horizontal):
    """The row of tabs."""

    def __init__(self, names: Sequence[tuple[str, str]]) -> None:
        self._tabs = {name: Tab(number, name, title) for number, (name, title) in enumerate(names, 1)}
        super().__init__(*self._tabs.values(), id="tabs")

    def choose(self, name: str) -> None:
        """Mark the tab of the screen that is shown."""
        for one, tab in self._tabs.items():
            tab.set_class(one == name, "-chosen")

    def badge(self, name: str, note: str) -> None:
        """Put a note behind one title."""
        self._tabs[name].badge(note)


class Banner(Static):
    """One sentence about what is wrong; not there when nothing is."""

    def __init__(self) -> None:
        super().__init__("", id="banner", markup=False)
        self.sentence = ""
        self.display = False

    def show(self, snapshot: Snapshot) -> None:
        """Show what is wrong with this state of things."""
        self.sentence = snapshot.notice
        if not snapshot.connected:
            gone = "node gone, trying again; old state below" if snapshot.heard else "no node yet, trying again"
            self.sentence = f"{gone} · {snapshot.notice}"
        self.display = bool(self.sentence)
        self.set_class(not snapshot.connected, "-gone")
        self.update(Content(self.sentence))
