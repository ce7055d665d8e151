"""``bitwrk doctor``: says what is missing on this machine and how to mend it."""

from dataclasses import asdict

import typer

from peer.cli.options import HomeOption, JsonOption, show
from peer.config import home_folder


def doctor(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Look whether everything that a node needs is here, and say how to mend what is not. Exit code 1 when something is wrong."""
    from peer.cli.checks import FAULT, examine

    found = examine(home_folder(home))
    well = all(one.state != FAULT for one in found)
    if as_json:
        show({"well": well, "checks": [asdict(one) for one in found]}, True)
    else:
        width = max(len(one.name) for one in found)
        for one in found:
            typer.echo(
                f"{one.state:<7}  {one.name:<{width}}  {one.said}" + (f"\n{'':<{width + 11}}{one.mend}" if one.mend else "")
            )
    if not well:
        raise typer.Exit(1)
