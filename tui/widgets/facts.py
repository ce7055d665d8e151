"""A closer look at one row: labels and whole texts, wrapped."""

from textual.content import Content
from textual.widgets import Static

Shown = tuple[tuple[str, str], ...]


class Facts(Static):
    """Shows labels and texts: one below the other where there is room for it, else running on. Nothing is read as markup."""

    def __init__(self, *, id: str) -> None:
        super().__init__("", id=id, markup=False)
        self._shown: Shown = ()
        self._apart = False

    @property
    def shown(self) -> Shown:
        """What it shows."""
        return self._shown

    def show(self, facts: Shown) -> None:
        """Show these facts, those that have a text; draws nothing when they are shown already."""
        told = tuple((label, text) for label, text in facts if text)
        if told != self._shown:
            self._shown = told
            self._write()

    def on_resize(self) -> None:
        """Choose how to arrange them."""
        apart = self.screen.has_class("-wide")
        if apart != self._apart:
            self._apart = apart
            self._write()

    def _write(self) -> None:
        parts = [
            Content.assemble((label, "$label"), "\n" if self._apart else " ", (text, "$foreground"))
            for label, text in self._shown
        ]
        self.update(Content("\n\n" if self._apart else "   ").join(parts))
