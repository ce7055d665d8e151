"""Which form asks for what: fields with sensible beginnings, and the request that the form becomes."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from tui import actions
from tui.feed import Feed
from tui.screens.orders import waiting
from tui.widgets.form import Field, Form, Values
from tui.widgets.listing import Row
from tui.words import plural, short, text

_PRICE = "for example: uBTC 26"


class Asker(Protocol):
    """What a form needs of the application."""

    feed: Feed


class Asking:
    """Makes forms, and remembers what was last sent from each."""

    def __init__(self, app: Asker) -> None:
        self._app = app
        self._last: dict[str, Values] = {}
        self._forms: dict[str, Callable[[Row | None], Form | str]] = {
            "buy": self._buy,
            "sell": self._sell,
            "follow": self._follow,
            "cancel": self._cancel,
            "mandate": self._mandate,
            "worker": self._worker,
            "remove": self._remove,
            "close": self._close,
            "save": self._save,
        }

    def form(self, what: str, row: Row | None) -> Form | str:
        """The form for ``what`` about ``row``, or a sentence that says why there is none."""
        return self._forms[what](row)

    def _made(
        self,
        name: str,
        title: str,
        explanation: str,
        fields: tuple[Field, ...],
        verb: str,
        send: Callable[[Values], Awaitable[str]],
    ) -> Form:
        last = self._last.get(name, {})
        filled = tuple(_with(field, last.get(field.name, "")) for field in fields)

        async def deliver(values: Values) -> str:
            said = await send(values)
            self._last[name] = values
            return said

        return Form(title, explanation, filled, verb, deliver)

    def _article(self, row: Row | None) -> str:
        """The article that the chosen row is about, else the first that the node knows."""
        if row is not None and row.article:
            return row.article
        books = self._app.feed.latest.books
        return text(books[0], "article") if books else ""

    # --- forms --------------------------------------------------------------------------------------------------------
    def _buy(self, row: Row | None) -> Form:
        fields = (
            Field(name="article", label="Article", value=self._article(row), hint="net.bitwrk/rays/1"),
            Field(name="file", label="File", hint="the work"),
            Field(name="price", label="Highest price", hint=f"{_PRICE}; empty: free"),
            Field(name="wait", label="Wait, seconds", value="60"),
        )
        return self._made(
            "buy",
            "Buy",
            "Has the work in a file done by somebody who sells this article.",
            fields,
            "Buy",
            lambda said: actions.buy(self._app.feed.link, said["article"], said["file"], said["price"], said["wait"]),
        )

    def _sell(self, row: Row | None) -> Form:
        workers = self._app.feed.latest.workers
        chosen = "" if row is None else row.key.removeprefix("worker:")
        worker = next((one for one in workers if text(one, "name") == chosen), workers[0] if workers else {})
        fields = (
            Field(name="worker", label="Worker", value=text(worker, "name"), hint="a name from the screen Work"),
            Field(name="article", label="Article", value=text(worker, "article"), hint="net.bitwrk/rays/1"),
            Field(name="price", label="Price", hint=f"{_PRICE}; sat 0: free"),
            Field(name="slots", label="At once", value="1", hint="how many units"),
        )
        return self._made(
            "sell",
            "Sell",
            "Offers the time of a worker, unit by unit, until it is withdrawn.",
            fields,
            "Sell",
            lambda said: actions.sell(self._app.feed.link, said["worker"], said["article"], said["price"], said["slots"]),
        )

    def _follow(self, row: Row | None) -> Form:
        del row
        return self._made(
            "follow",
            "Follow an article",
            "Takes part in the books of an article, to see its market. Nothing is bought or sold.",
            (Field(name="article", label="Article", hint="net.bitwrk/rays/1"),),
            "Follow",
            lambda said: actions.follow(self._app.feed.link, said["article"]),
        )

    def _mandate(self, row: Row | None) -> Form:
        fields = (
            Field(name="side", label="Side", choices=("buy", "sell")),
            Field(name="article", label="Article", value=self._article(row), hint="net.bitwrk/rays/1"),
            Field(name="price", label="Price", hint=_PRICE),
            Field(name="trades", label="Trades", value="100", hint="empty: no such limit"),
            Field(name="minutes", label="Minutes", value="20", hint="empty: no such limit"),
        )
        return self._made(
            "mandate",
            "Grant a mandate",
            "Lets programs on this machine trade without asking, within these limits. With neither limit it is one trade.",
            fields,
            "Grant",
            lambda said: actions.grant(
                self._app.feed.link, said["side"], said["article"], said["price"], said["trades"], said["minutes"]
            ),
        )

    def _worker(self, row: Row | None) -> Form:
        fields = (
            Field(name="id", label="Name", hint="blender-1"),
            Field(name="article", label="Article", value=self._article(row), hint="net.bitwrk/rays/1"),
            Field(name="pushurl", label="Push address", hint="http://127.0.0.1:8100/work"),
        )
        return self._made(
            "worker",
            "Register a worker",
            "The node sends work to a program of yours that listens at this address, and takes its answer for the result.",
            fields,
            "Register",
            lambda said: actions.register(self._app.feed.link, said["id"], said["article"], said["pushurl"]),
        )

    def _cancel(self, row: Row | None) -> Form | str:
        orders = self._app.feed.latest.orders
        key = "" if row is None else row.key
        lines = waiting(orders).get(key) or [one for one in orders if text(one, "id") == key.removeprefix("order:")]
        if not lines or lines[0].get("state") not in ("waiting", "working", "open"):
            return "choose an open order of your own first"
        names = tuple(text(one, "id") for one in lines)
        several = len(names) > 1
        return self._made(
            f"cancel {names[0]}",
            f"Cancel these {len(names)} orders?" if several else "Cancel this order?",
            f"{text(lines[0], 'side')} {text(lines[0], 'article')}. What both sides have signed is completed all the same.",
            (),
            "Cancel the orders" if several else "Cancel the order",
            lambda said: actions.cancel(self._app.feed.link, names),
        )

    def _remove(self, row: Row | None) -> Form | str:
        if row is None:
            return "there is nothing to remove"
        kind, _, name = row.key.partition(":")
        if kind == "order":
            return self._cancel(row)
        if kind == "mandate":
            return self._made(
                f"revoke {name}",
                "Revoke this mandate?",
                ", ".join(f"{label.lower()} {value}" for label, value in row.facts[:4]),
                (),
                "Revoke",
                lambda said: actions.revoke(self._app.feed.link, name),
            )
        return self._made(
            f"unregister {name}",
            "Unregister this worker?",
            f"{name} gets no further work. What it computes at the moment is given up.",
            (),
            "Unregister",
            lambda said: actions.unregister(self._app.feed.link, name),
        )

    def _close(self, row: Row | None) -> Form | str:
        del row
        number = len(self._app.feed.latest.channels)
        if not number:
            return "there are no channels"
        return self._made(
            "close",
            "Close all channels?",
            f"Every open channel of {plural(number, 'channel')} is settled on chain; what is owed becomes coins of its owner.",
            (),
            "Close them",
            lambda said: actions.close_channels(self._app.feed.link),
        )

    def _save(self, row: Row | None) -> Form | str:
        trades = self._app.feed.latest.trades
        line = next((one for one in trades if row and row.key == f"{text(one, 'deal')}:{text(one, 'unit')}"), None)
        if line is None or text(line, "phase") != "finished" or line.get("role") != "buyer" or not text(line, "result"):
            return "choose a finished purchase first"
        content = text(line, "result")
        return self._made(
            f"save {content}",
            "Save the result",
            f"Result {short(content)} of {text(line, 'article')}. An existing file is never overwritten.",
            (Field(name="file", label="File", hint="a new file"),),
            "Save",
            lambda said: actions.save(self._app.feed.link, content, said["file"]),
        )


def _with(field: Field, value: str) -> Field:
    if not value:
        return field
    return Field(name=field.name, label=field.label, value=value, hint=field.hint, choices=field.choices)
