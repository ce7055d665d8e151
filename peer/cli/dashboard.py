"""The command that opens the dashboard."""

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from peer.cli.options import HomeOption
from peer.config import home_folder
from wire.errors import LocalFault

_SCREENS = ("market", "activity", "work", "money", "peers")
_SIZE = re.compile(r"([1-9][0-9]{1,2})x([1-9][0-9]{1,2})")


def tui(
    home: HomeOption = None,
    screen: Annotated[str, typer.Option("--screen", metavar="NAME", help=f"Where to begin: {', '.join(_SCREENS)}.")] = "market",
    picture: Annotated[
        Path | None,
        typer.Option(
            "--picture", metavar="SVG", help="Draw that screen into a file, as it is now, and leave; needs no terminal."
        ),
    ] = None,
    size: Annotated[str, typer.Option("--size", metavar="WxH", help="Columns and rows of the picture.")] = "160x48",
) -> None:
    """Watch and run the node from the terminal: market, trades, work, money, peers. Press ? for help."""
    if screen not in _SCREENS:
        raise typer.BadParameter(f"choose one of {', '.join(_SCREENS)}", param_hint="--screen")
    shape = _SIZE.fullmatch(size)
    if shape is None:
        raise typer.BadParameter("write columns and rows, for example 160x48", param_hint="--size")
    folder = home_folder(home)
    if picture is None:
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise LocalFault("no-terminal", "the dashboard needs a terminal; to draw a screen into a file use --picture")
        from tui.app import Dashboard

        dashboard = Dashboard.at(folder, screen)
        dashboard.run()
        raise typer.Exit(dashboard.return_code or 0)
    from tui.picture import draw

    drawn = draw(folder, screen, int(shape[1]), int(shape[2]))
    try:
        picture.write_text(drawn, encoding="utf-8")
    except OSError as error:
        raise LocalFault("bad-file", f"{picture} cannot be written: {(error.strerror or 'unknown').lower()}") from None
    typer.echo(f"picture  {picture}")
