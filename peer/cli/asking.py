"""Commands that talk to the running node over its local API."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Annotated, Any, Final

import typer

from peer.cli.options import HomeOption, JsonOption, amount, show
from peer.config import home_folder
from wire.errors import LocalFault

_PIECE_BYTES: Final = 1 << 16

# Each of these is a command that shows one list or object of the node: its name, its help, and what an empty list means.
LISTINGS: Final = (
    ("status", "How the node is.", ""),
    ("trades", "Trades, open and finished.", "no trades"),
    ("channels", "Escrow channels.", "no channels"),
    ("peers", "Connected nodes.", "no peers"),
    ("frauds", "Accounts that signed what they cannot have meant; the proofs are kept.", "no frauds"),
)


def listing(name: str, purpose: str, none: str) -> Callable[..., None]:
    """The command that shows what ``GET /v1/<name>`` says."""

    def command(home: HomeOption = None, as_json: JsonOption = False) -> None:
        from peer.client import LocalNode

        with LocalNode.at(home_folder(home)) as node:
            show(node.read(name), as_json, none)

    command.__name__ = name
    command.__doc__ = purpose
    return command


def _pieces(source: IO[bytes]) -> Iterator[bytes]:
    while piece := source.read(_PIECE_BYTES):
        yield piece


def _why(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()


def buy(
    article: Annotated[str, typer.Argument(metavar="ARTICLE", help="The kind of work, for example net.bitwrk/rays/1.")],
    file: Annotated[str, typer.Argument(metavar="FILE", help="The work; - reads standard input.")],
    out: Annotated[str, typer.Option("-o", "--out", metavar="OUT", help="Where the result goes; - writes standard output.")],
    bid: Annotated[
        str | None,
        typer.Option("--bid", metavar="AMOUNT", help="The highest price, for example 'uBTC 340'. Without it, only free work."),
    ] = None,
    wait: Annotated[
        float | None, typer.Option("--wait", metavar="SECONDS", min=0.1, help="How long to look for a seller.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have the work in FILE done and write the result to OUT."""
    if bid is not None:
        amount("--bid", bid)  # named here, before anything is sent
    from peer.client import LocalNode

    with LocalNode.at(home_folder(home)) as node:
        content = _send(node, article, file, bid, wait)
        size = _receive(node, content, out)
    if out != "-":
        show({"article": article, "result": content, "bytes": size, "out": out}, as_json)


def _send(node: Any, article: str, file: str, bid: str | None, wait_s: float | None) -> str:
    if file == "-":
        return str(node.buy(article, _pieces(sys.stdin.buffer), bid=bid, wait_s=wait_s))
    try:
        with Path(file).open("rb") as source:
            size = source.seek(0, 2)
            source.seek(0)
            return str(node.buy(article, _pieces(source), bid=bid, wait_s=wait_s, size=size))
    except OSError as error:
        raise LocalFault("bad-file", f"{file} cannot be read: {_why(error)}") from None


def _receive(node: Any, content: str, out: str) -> int:
    """The result appears under its name only when it is whole."""
    if out == "-":
        size = int(node.fetch(content, sys.stdout.buffer))
        sys.stdout.buffer.flush()
        return size
    target = Path(out)
    part = target.with_name(target.name + ".part")
    try:
        try:
            with part.open("wb") as sink:
                size = int(node.fetch(content, sink))
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise LocalFault("bad-file", f"{out} cannot be written: {_why(error)}; the result is still at /file/{content}") from None
    return size


def close(
    reason: Annotated[str, typer.Option("--reason", help="Kept with the channels.")] = "asked by the owner",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Close all escrow channels on chain; what is owed to this node becomes its own coins."""
    from peer.client import LocalNode

    with LocalNode.at(home_folder(home)) as node:
        show(node.close_channels(reason), as_json, "no channels to close")
