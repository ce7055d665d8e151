"""Help: every key, and what the words on the screens mean."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

KEYS = (
    ("Anywhere", (("1 2 3 4 5", "market, activity, work, money, peers"), ("← →", "the screen before, the screen after"))),
    ("", (("Tab", "the next table of a screen"), ("↑ ↓ PgUp PgDn", "move the cursor; the closer look follows it"))),
    ("", (("r", "read everything again now"), ("?", "this help"), ("q", "leave; the node goes on"))),
    ("Market", (("b", "buy: have the work in a file done"), ("s", "sell the time of a worker"))),
    ("", (("f", "follow the books of an article"), ("d", "cancel the chosen order"))),
    ("Activity", (("o", "save the result of the chosen trade"), ("d", "cancel the purchases that still wait"))),
    ("Work", (("w", "register a worker that listens on this machine"), ("s", "sell"))),
    ("", (("m", "grant a mandate: trades that need no asking"), ("d", "unregister, close or revoke what is chosen"))),
    ("Money", (("x", "close all channels on chain"),)),
    ("In a form", (("Tab", "next field"), ("Enter", "send"), ("Esc", "leave without sending"))),
)
WORDS = (
    ("play money", "worth nothing; real money is shown in red capitals"),
    ("epoch", "one auction, in which all known orders meet"),
    ("units", "wanted / offered in the latest auction"),
    ("traders", "buyers / sellers in the latest auction"),
    ("exposure", "satoshi of this node that stand in escrow"),
    ("mandate", "trades allowed beforehand, at a price, up to a limit"),
    ("neighbour", "a peer with whom orders are exchanged directly"),
    ("standing", "points lost by misbehaving; too many end in a ban"),
)


class Help(ModalScreen[None]):
    """One page, over the screen it was asked for on."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,question_mark,q", "leave", "Close", key_display="Esc")]

    def compose(self) -> ComposeResult:
        """The page."""
        with VerticalScroll(id="help") as box:
            box.border_title = "Help"
            box.border_subtitle = "Esc closes"
            yield Static(self._page(), markup=False)

    @staticmethod
    def _page() -> Content:
        lines: list[Content] = []
        for title, keys in KEYS:
            if title:
                lines.append(
                    Content.assemble(
                        ("" if not lines else "\n") + title,
                    ).stylize("bold $primary")
                )
            lines += [Content.assemble((f"  {key:<15}", "$foreground"), (purpose, "$label")) for key, purpose in keys]
        lines.append(Content("\nWords").stylize("bold $primary"))
        lines += [Content.assemble((f"  {word:<15}", "$foreground"), (meaning, "$label")) for word, meaning in WORDS]
        return Content("\n").join(lines)

    def action_leave(self) -> None:
        """Close it."""
        self.dismiss(None)
