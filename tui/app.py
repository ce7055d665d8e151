"""The dashboard as a whole: one feed, five screens, and the forms that ask the node for something.

Theory of operation. The feed knows the node's latest state and calls ``_told`` with each new one. Only the screen that is seen is
brought up to date; another one is when it is switched to. Nothing that the owner does changes a screen directly: it becomes
one request to the node, and what came of it arrives through the feed like everything else.
"""

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.theme import Theme
from textual.widgets import ContentSwitcher, Footer

from tui.asking import Asking
from tui.feed import Feed, Snapshot
from tui.link import Link
from tui.screens.activity import Activity, under_way
from tui.screens.help import Help
from tui.screens.market import Market
from tui.screens.money import Money
from tui.screens.peers import Peers
from tui.screens.work import Work
from tui.widgets.chrome import Banner, Masthead, Tab, Tabs
from tui.widgets.form import Form
from tui.widgets.pane import Pane, now_us

SCREENS = (Market, Activity, Work, Money, Peers)
_THEME = Theme(
    name="bitwrk",
    primary="#e8a33d",
    secondary="#7aa2c7",
    accent="#e8a33d",
    foreground="#d6d3cd",
    background="#14161a",
    surface="#1b1e24",
    panel="#262a32",
    success="#7fb77e",
    warning="#e0c062",
    error="#e06c60",
    dark=True,
    variables={"label": "#8f8c85", "footer-key-foreground": "#e8a33d", "footer-background": "#1b1e24"},
)


class Dashboard(App[None]):
    """The application. ``find`` opens the way to the node; it is called again whenever the node was gone."""

    TITLE = "BitWrk"
    CSS_PATH = "tui.tcss"
    ENABLE_COMMAND_PALETTE = False
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (120, "-wide")]  # noqa: RUF012 - the type that Textual declares is not a class variable to mypy
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(number), f"switch('{one.NAME}')", one.TITLE, show=False) for number, one in enumerate(SCREENS, 1)),
        Binding("right", "beside(1)", "Next screen", show=False),
        Binding("left", "beside(-1)", "Previous screen", show=False),
        Binding("r", "again", "Read again", show=False),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("q", "quit", "Quit"),
    ]

    def __init__(self, find: Callable[[], Link], first: str = Market.NAME) -> None:
        super().__init__()
        self.register_theme(_THEME)  # before the style sheet is read, which uses its colours
        self.theme = _THEME.name
        self.feed = Feed(find, self._told)
        self._first = first
        self._asking = Asking(self)

    @classmethod
    def at(cls, home: Path, first: str = Market.NAME) -> "Dashboard":
        """The dashboard of the node that runs, or will run, in the folder ``home``."""
        return cls(lambda: Link.at(home), first)

    def compose(self) -> ComposeResult:
        """Masthead, tabs, banner, the screens, the keys."""
        yield Masthead()
        yield Tabs([(one.NAME, one.TITLE) for one in SCREENS])
        yield Banner()
        with ContentSwitcher(initial=self._first, id="screens"):
            for one in SCREENS:
                yield one()
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Begin to follow the node."""
        self.action_switch(self._first)
        self.set_interval(1, self._refresh)
        self.run_worker(self.feed.run(), name="feed")

    # --- what is seen -------------------------------------------------------------------------------------------------
    @property
    def pane(self) -> Pane:
        """The screen that is seen."""
        return self.query_one(f"#{self.query_one(ContentSwitcher).current}", Pane)

    def _told(self, snapshot: Snapshot) -> None:
        if not self.is_running:  # the last words of the feed may come when the screens are gone already
            return
        base = self.screen_stack[0]
        base.query_one(Masthead).show(snapshot)
        base.query_one(Banner).show(snapshot)
        base.set_class(snapshot.heard and not snapshot.connected, "-stale")
        running = under_way(snapshot)
        base.query_one(Tabs).badge(Activity.NAME, str(running) if running else "")
        self._refresh()

    def _refresh(self) -> None:
        """Bring the screen that is seen up to date; ages change even when nothing else does."""
        if not self.is_running:
            return
        base = self.screen_stack[0]
        name = base.query_one(ContentSwitcher).current
        base.query_one(f"#{name}", Pane).show(self.feed.latest, now_us())

    def action_switch(self, name: str) -> None:
        """Show another screen."""
        self.query_one(ContentSwitcher).current = name
        self.query_one(Tabs).choose(name)
        self._refresh()
        self.pane.enter()

    def action_beside(self, by: int) -> None:
        """Show the screen before or after this one."""
        names = [one.NAME for one in SCREENS]
        self.action_switch(names[(names.index(self.pane.NAME) + by) % len(names)])

    @on(Tab.Pressed)
    def _tab(self, event: Tab.Pressed) -> None:
        self.action_switch(event.name)

    # --- what is done -------------------------------------------------------------------------------------------------
    def action_again(self) -> None:
        """Read everything again, or look for the node at once."""
        self.feed.poke()

    def action_help(self) -> None:
        """Show the help page."""
        self.push_screen(Help())

    @on(Pane.Wanted)
    def _wanted(self, event: Pane.Wanted) -> None:
        """Open the form for what was asked, or say why there is none."""
        form = self._asking.form(event.what, event.row)
        if isinstance(form, Form):
            self.push_screen(form, self._done)
        else:
            self.notify(form, markup=False)

    def _done(self, said: str | None) -> None:
        """A form was sent, or left."""
        if said:
            self.notify(said, markup=False)
            self.feed.poke()
