"""``bitwrk articles``, ``prices`` and ``orders depth``: what is traded, at what prices, and what stands in the books."""

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from peer.cli.options import HomeOption, JsonOption, show
from peer.config import home_folder
from wire.errors import Refused
from wire.limits import DEPTH_LEVELS_MAX, TAPE_SLOTS_MAX
from wire.money import show_msat

_LIMIT: Final = 24
_NONE: Final = "no articles; follow one with: bitwrk articles follow ARTICLE"


class Length(StrEnum):
    """The lengths of time slots."""

    SECOND = "1s"
    SECONDS_6 = "6s"
    SECONDS_30 = "30s"
    MINUTE = "1m"
    MINUTES_3 = "3m"
    MINUTES_12 = "12m"
    HOUR = "1h"
    HOURS_6 = "6h"
    DAY = "1d"
    WEEK = "1w"
    WEEKS_6 = "6w"
    YEAR = "1y"


ArticleArgument = Annotated[str, typer.Argument(metavar="ARTICLE", help="The kind of work, for example net.bitwrk/rays/1.")]
FreeOption = Annotated[bool, typer.Option("--free", help="The free book, even when there is one for money.")]


def _node(home: Path | None) -> Any:
    from peer.client import LocalNode

    return LocalNode.at(home_folder(home))


def add_quotes(app: typer.Typer, orders: typer.Typer) -> None:
    """Add the commands to the command line, and ``depth`` to the group of orders."""
    group = typer.Typer(help="What is traded in the books this node follows: show, follow.", rich_markup_mode=None)
    group.callback(invoke_without_command=True)(articles)
    group.command("follow")(follow)
    app.add_typer(group, name="articles")
    app.command()(prices)
    orders.command("depth")(depth)


def _msat(value: Any) -> str | None:
    return show_msat(value) if type(value) is int else None


def _pair(line: dict[str, Any], one: str, other: str) -> str | None:
    return f"{line[one]}/{line[other]}" if one in line and other in line else None


def _article_row(line: dict[str, Any]) -> dict[str, Any]:
    """A line of the listing for people: free books have no prices."""
    free = line.get("free") is True
    quartiles = line.get("quartiles") or {}
    advice = [_msat(quartiles.get(name)) for name in ("low_msat", "middle_msat", "high_msat")]
    return {
        "article": line.get("article"),
        "book": "free" if free else "paid",
        "last": None if free else _msat(line.get("last_msat")),
        "units in 24 h": (line.get("day") or {}).get("units", 0),
        "bid": None if free else _msat(line.get("best_bid_msat")),
        "ask": None if free else _msat(line.get("best_ask_msat")),
        "spread": None if free else _msat(line.get("spread_msat")),
        "bid/ask units": _pair(line, "buy_units", "sell_units"),
        "orders": _pair(line, "buy_orders", "sell_orders"),
        "owners": _pair(line, "buyers", "sellers"),
        "quartiles": None if free or None in advice else " · ".join(str(one) for one in advice),
        "state": "ready" if line.get("ready") is True and not line.get("refusal") else line.get("refusal") or "not yet ready",
    }


def articles(context: typer.Context, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """What is traded in the books this node follows: last price, volume, spread, depth."""
    if context.invoked_subcommand is None:
        with _node(home) as node:
            lines = node.read("articles")
        show(lines if as_json else [_article_row(line) for line in lines], as_json, _NONE)


def follow(article: ArticleArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Take part in the books of an article from now on, to see its market before trading."""
    with _node(home) as node:
        books = [line for line in node.follow(article) if line.get("article") == article]
    show(books if as_json else [{"article": one["article"], "free": one["free"], "book": one["book"]} for one in books], as_json)


def _book(node: Any, article: str, free: bool) -> str:
    """The id of the book of an article: the one for money, unless there is none or the free one is meant."""
    found = {line["free"]: str(line["book"]) for line in node.read("articles") if line.get("article") == article}
    if free in found:
        return found[free]
    if found and not free:
        return found[True]
    what = f"no free book of {article}" if free else f"no book of {article}"
    raise Refused("unknown-book", f"this node follows {what}; follow it with: bitwrk articles follow {article}")


def depth(
    article: ArticleArgument,
    free: FreeOption = False,
    levels: Annotated[
        int | None, typer.Option("--levels", metavar="N", min=1, max=DEPTH_LEVELS_MAX, help="How many prices of each side.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """The public orders of the latest auction by price, dearest first; its own clearing matched some of them."""
    with _node(home) as node:
        told = node.depth(_book(node, article, free), levels=levels)
    if as_json:
        show(told, as_json)
        return
    rows = [_level_row("sell", one) for one in reversed(told["asks"]["levels"])]
    rows += [_level_row("buy", one) for one in told["bids"]["levels"]]
    show(rows, as_json, "no orders")


def _level_row(side: str, level: dict[str, Any]) -> dict[str, Any]:
    return {
        "side": side,
        "price": _msat(level.get("price_msat")),
        "units": level.get("units"),
        "orders": level.get("orders"),
        "matched": level.get("matched_units"),
    }


def _moment(option: str, text: str | None) -> int | None:
    """Microseconds since 1970 of a moment in ISO 8601; without a zone it is UTC."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        example = "2026-01-31 or 2026-01-31T12:00:00"
        raise typer.BadParameter(f"{text!r} is not a moment; write for example {example}", param_hint=option) from None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(aware.timestamp()) * 1_000_000 + aware.microsecond


def prices(
    article: ArticleArgument,
    slot: Annotated[Length, typer.Option("--slot", metavar="LENGTH", help=f"One of {', '.join(Length)}.")] = Length.HOUR,
    free: FreeOption = False,
    own: Annotated[bool, typer.Option("--own", help="Own signed matches, not those computed for everybody.")] = False,
    begin: Annotated[str | None, typer.Option("--from", metavar="MOMENT", help="From this moment on: 2026-01-31T12:00.")] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="MOMENT", help="Before this moment.")] = None,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=1, max=TAPE_SLOTS_MAX, help="The latest so many slots.")
    ] = _LIMIT,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """What units have cost in time slots: sum, least, most, count. Slots without matches are left out; moments are UTC."""
    from_us, to_us = _moment("--from", begin), _moment("--to", end)
    with _node(home) as node:
        told = node.prices(
            _book(node, article, free),
            slot.value,
            series="agreed" if own else "matched",
            from_us=from_us,
            to_us=to_us,
            limit=limit,
        )
    show(told if as_json else [_slot_row(one) for one in told["slots"]], as_json, "nothing was matched in that time")


def _slot_row(slot: dict[str, Any]) -> dict[str, Any]:
    return {
        "from": datetime.fromtimestamp(slot["begin_us"] // 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S"),
        "matches": slot.get("matches"),
        "units": slot.get("units"),
        "sum": _msat(slot.get("sum_msat")),
        "mean": _msat(slot.get("mean_msat")),
        "least": _msat(slot.get("min_msat")),
        "most": _msat(slot.get("max_msat")),
        "first": _msat(slot.get("first_msat")),
        "last": _msat(slot.get("last_msat")),
    }
