"""Small forms in front of a screen: a few fields, and the node's own words when it refuses what was entered."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.reactive import reactive
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from wire.errors import BitwrkError

Values = dict[str, str]
Send = Callable[[Values], Awaitable[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field. With ``choices`` it takes one of them, else any text."""

    name: str
    label: str
    value: str = ""
    hint: str = ""
    choices: tuple[str, ...] = ()


class Choice(Static, can_focus=True):
    """One of a few words; the arrow keys turn to the next."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right,space", "turn(1)", "Next", show=False),
        Binding("left", "turn(-1)", "Previous", show=False),
    ]
    index = reactive(0)

    def __init__(self, choices: Sequence[str], value: str, *, id: str) -> None:
        super().__init__("", id=id, markup=False)
        self._choices = tuple(choices)
        self.set_reactive(Choice.index, self._choices.index(value) if value in self._choices else 0)

    @property
    def value(self) -> str:
        """The chosen word."""
        return self._choices[self.index]

    def render(self) -> Content:
        """The word between arrows."""
        return Content.assemble(("‹ ", "$label"), self.value, (" ›", "$label"))

    def action_turn(self, by: int) -> None:
        """Turn to another word."""
        self.index = (self.index + by) % len(self._choices)

    def on_click(self) -> None:
        """Turn to the next word."""
        self.action_turn(1)


class Form(ModalScreen[str | None]):
    """A form. ``send`` is awaited with the fields' texts; what it returns is said to the owner and ends the form, what it
    raises is shown in the form, which stays open with all that was entered.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Cancel"),
        Binding("ctrl+s", "send", "Send", show=False),
        Binding("down", "app.focus_next", "Next field", show=False),
        Binding("up", "app.focus_previous", "Previous field", show=False),
    ]

    def __init__(self, title: str, explanation: str, fields: Sequence[Field], verb: str, send: Send) -> None:
        super().__init__()
        self._title = title
        self._explanation = explanation
        self._fields = tuple(fields)
        self._verb = verb
        self._send = send
        self._sending = False

    def compose(self) -> ComposeResult:
        """Title, fields, what was refused, buttons."""
        with Vertical(id="form") as box:
            box.border_title = self._title
            if self._explanation:
                yield Static(self._explanation, classes="explanation", markup=False)
            for field in self._fields:
                with Horizontal(classes="field"):
                    yield Static(field.label, classes="label", markup=False)
                    if field.choices:
                        yield Choice(field.choices, field.value, id=f"field-{field.name}")
                    else:
                        yield Input(field.value, placeholder=field.hint, id=f"field-{field.name}", compact=True)
            yield Static("", id="refusal", markup=False)
            with Horizontal(classes="buttons"):
                yield Button(self._verb, variant="primary", id="send", compact=True)
                yield Button("Cancel", id="cancel", compact=True)

    def on_mount(self) -> None:
        """Begin at the first field; a question without fields begins at its answer."""
        first = self.query(Input).first() if self.query(Input) else None
        (first or self.query_one("#send", Button)).focus()

    @property
    def values(self) -> Values:
        """What was entered, without blanks around it."""
        found: Values = {}
        for field in self._fields:
            part = self.query_one(f"#field-{field.name}")
            if isinstance(part, Input | Choice):
                found[field.name] = part.value.strip()
        return found

    @property
    def refusal(self) -> str:
        """The sentence that is shown."""
        return str(self.query_one("#refusal", Static).content)

    def on_input_submitted(self) -> None:
        """Enter in a field sends."""
        self.action_send()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """The two buttons."""
        if event.button.id == "send":
            self.action_send()
        else:
            self.action_leave()

    def action_leave(self) -> None:
        """Close without sending."""
        self.dismiss(None)

    def action_send(self) -> None:
        """Send what was entered, once at a time."""
        if not self._sending:
            self._sending = True
            self._say("…")
            self.run_worker(self._deliver(self.values), exclusive=True)

    async def _deliver(self, values: Values) -> None:
        try:
            said = await self._send(values)
        except BitwrkError as error:
            self._say(error.sentence)
        else:
            self.dismiss(said)
        finally:
            self._sending = False

    def _say(self, sentence: str) -> None:
        self.query_one("#refusal", Static).update(Content(sentence))
