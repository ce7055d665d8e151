"""``bitwrk orders``, ``mandates``, ``workers``: shown by themselves, changed by their subcommands. All ask the running node."""

from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import IO, Annotated, Any, Final

import typer

from peer.cli.options import HomeOption, JsonOption, amount, show
from peer.cli.quoting import add_quotes
from peer.config import home_folder
from wire.errors import LocalFault
from wire.limits import MANDATE_MINUTES_MAX, MANDATE_TRADES_MAX, WORKERS_MAX

_PIECE_BYTES: Final = 1 << 16


class Side(StrEnum):
    """Which side of a trade."""

    BUY = "buy"
    SELL = "sell"


SideArgument = Annotated[Side, typer.Argument(metavar="SIDE", help="buy or sell.")]
ArticleArgument = Annotated[str, typer.Argument(metavar="ARTICLE", help="The kind of work, for example net.bitwrk/rays/1.")]


def _node(home: Path | None) -> Any:
    from peer.client import LocalNode

    return LocalNode.at(home_folder(home))


def _group(name: str, purpose: str, none: str) -> typer.Typer:
    """A command that shows ``GET /v1/<name>``, with room for subcommands."""
    group = typer.Typer(help=purpose, rich_markup_mode=None)

    @group.callback(invoke_without_command=True)
    def listing(context: typer.Context, home: HomeOption = None, as_json: JsonOption = False) -> None:
        if context.invoked_subcommand is None:
            with _node(home) as node:
                show(node.read(name), as_json, none)

    listing.__doc__ = purpose
    return group


def add_market(app: typer.Typer) -> None:
    """Add the three groups to the command line, and what shows prices."""
    orders = _group("orders", "Own orders in the books: show, place, cancel; depth shows everybody's.", "no orders")
    orders.command("place")(place)
    orders.command("cancel")(cancel)
    app.add_typer(orders, name="orders")
    add_quotes(app, orders)
    mandates = _group("mandates", "What may be traded without asking: show, grant, revoke.", "no mandates")
    mandates.command("grant")(grant)
    mandates.command("revoke")(revoke)
    app.add_typer(mandates, name="mandates")
    workers = _group("workers", "Workers of the node: show, register, unregister.", "no workers")
    workers.command("register")(register)
    workers.command("unregister")(unregister)
    app.add_typer(workers, name="workers")


def _pieces(source: IO[bytes]) -> Iterator[bytes]:
    while piece := source.read(_PIECE_BYTES):
        yield piece


def _stored(node: Any, file: str) -> str:
    try:
        with Path(file).open("rb") as source:
            return str(node.store(_pieces(source)))
    except OSError as error:
        raise LocalFault("bad-file", f"{file} cannot be read: {(error.strerror or type(error).__name__).lower()}") from None


def place(
    side: SideArgument,
    article: ArticleArgument,
    price: Annotated[
        str | None,
        typer.Option("--price", metavar="AMOUNT", help="Highest bid or lowest ask of a unit. Without it: for nothing."),
    ] = None,
    work: Annotated[str | None, typer.Option("--work", metavar="FILE", help="buy: the work.")] = None,
    wait: Annotated[
        float | None, typer.Option("--wait", metavar="SECONDS", min=0.1, help="buy: how long to look for a seller.")
    ] = None,
    worker: Annotated[str | None, typer.Option("--worker", metavar="NAME", help="sell: a worker of the node.")] = None,
    slots: Annotated[int, typer.Option("--slots", min=1, max=WORKERS_MAX, help="sell: how many units at once.")] = 1,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Place an order and do not wait for it; what becomes of it stands in orders and trades."""
    if price is not None:
        amount("--price", price)
    if side is Side.BUY and work is None:
        raise typer.BadParameter("an order to buy needs the work", param_hint="--work")
    if side is Side.SELL and worker is None:
        raise typer.BadParameter("an order to sell names a worker", param_hint="--worker")
    with _node(home) as node:
        if side is Side.BUY:
            content = _stored(node, work or "")
            order = node.place_buy(article, content, price=price, wait_s=wait)
        else:
            order = node.place_sell(article, worker or "", price=price, slots=slots)
    show({"id": order, "side": side.value, "article": article}, as_json)


def grant(
    side: SideArgument,
    article: ArticleArgument,
    price: Annotated[str, typer.Argument(metavar="PRICE", help="Highest bid or lowest ask of a unit, for example 'uBTC 340'.")],
    trades: Annotated[
        int | None, typer.Option("--trades", metavar="N", min=1, max=MANDATE_TRADES_MAX, help="For how many trades.")
    ] = None,
    minutes: Annotated[
        int | None, typer.Option("--minutes", metavar="N", min=1, max=MANDATE_MINUTES_MAX, help="For how long.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Allow trades without being asked. Both limits may apply; with neither it is good for one trade."""
    amount("PRICE", price)
    with _node(home) as node:
        show(node.grant(side.value, article, price, trades=trades, minutes=minutes), as_json)


def _ending(what: str, purpose: str, act: Callable[[Any, str], Any]) -> Callable[..., None]:
    def command(
        name: Annotated[str, typer.Argument(metavar="ID", help=f"The id of the {what}.")],
        home: HomeOption = None,
        as_json: JsonOption = False,
    ) -> None:
        with _node(home) as node:
            show(act(node, name), as_json)

    command.__doc__ = purpose
    return command


cancel = _ending(
    "order",
    "Cancel an order. What both sides have signed for is completed.",
    lambda node, name: node.cancel_order(name),
)
revoke = _ending("mandate", "Take a mandate back.", lambda node, name: node.revoke(name))
unregister = _ending("worker", "Forget a worker; what it computes is given up.", lambda node, name: node.unregister_worker(name))


def register(
    name: Annotated[str, typer.Argument(metavar="ID", help="The worker's name: letters, digits and . _ : -")],
    article: ArticleArgument,
    push_url: Annotated[str, typer.Argument(metavar="PUSHURL", help="Where it takes work, such as http://127.0.0.1:9000/work.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let the node give work to a worker over HTTP, or tell it that the worker is idle again."""
    with _node(home) as node:
        show(node.register_worker(name, article, push_url), as_json)
