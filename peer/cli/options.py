"""Options that several commands share, and how they become settings."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from peer.config import Settings, home_folder, load_settings
from wire.money import BadAmount, parse_msat

_CELL_CHARS = 36  # an account fits

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", metavar="DIR", help="Folder of the node: key, settings, journal. Default: $BITWRK_HOME or ~/.bitwrk."),
]
ApiPortOption = Annotated[
    int | None, typer.Option("--api-port", metavar="PORT", help="Port of the local API on 127.0.0.1; 0 means any free one.")
]
ListenOption = Annotated[
    str | None, typer.Option("--listen", metavar="ADDRESS:PORT", help="Where other nodes may connect; port 0 means any free one.")
]
BootstrapOption = Annotated[
    list[str] | None, typer.Option("--bootstrap", metavar="MULTIADDR", help="A node to join through. May be given several times.")
]
NetworkOption = Annotated[
    str | None, typer.Option("--network", metavar="NAME", help="regtest (play money, the default), signet or main.")
]
ChainOption = Annotated[
    str | None,
    typer.Option("--chain", metavar="CHAIN", help="kernel (the default), core:http://user:password@host:port, or none."),
]
LogLevelOption = Annotated[
    str | None, typer.Option("--log-level", metavar="LEVEL", help="debug, info (the default), warning or error.")
]
LogFormatOption = Annotated[
    str | None, typer.Option("--log-format", metavar="FORMAT", help="text (the default), or json: one object a line.")
]
GossipsubOption = Annotated[
    bool | None,
    typer.Option("--gossipsub", help="Carry orders over a GossipSub topic too, for other stacks of libp2p."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]


def settings_from(
    home: Path | None,
    api_port: int | None,
    listen: str | None,
    bootstrap: list[str] | None,
    network: str | None,
    chain: str | None,
    log_level: str | None,
    log_format: str | None,
    gossipsub: bool | None,
) -> Settings:
    """The settings of the chosen home, overridden by what the command line says. Raises ``LocalFault``."""
    said = {
        "api_port": api_port,
        "listen": listen,
        "bootstrap": bootstrap,
        "network": network,
        "chain": chain,
        "log_level": log_level,
        "log_format": log_format,
        "bridge": {"gossipsub": True} if gossipsub else None,
    }
    return load_settings(home_folder(home), said)


def amount(option: str, text: str) -> int:
    """Millisatoshi of what ``option`` was given, such as ``uBTC 340``."""
    try:
        return parse_msat(text)
    except BadAmount as bad:
        raise typer.BadParameter(bad.sentence, param_hint=option) from None


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "-"
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        value = ", ".join(value) or "-"
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)
    # What peers called themselves may hold anything; a terminal must not obey it.
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _short(cell: str) -> str:
    """A cell of a table; ids and keys lose their middle, which nobody reads. ``--json`` has them whole."""
    if len(cell) <= _CELL_CHARS or " " in cell or "/" in cell:
        return cell
    return f"{cell[:10]}…{cell[-6:]}"


def show(answer: Any, as_json: bool, none: str = "") -> None:
    """Print a node's answer: JSON, or a table for a list and lines for an object. ``none`` stands for an empty list."""
    if as_json:
        typer.echo(json.dumps(answer, indent=2, ensure_ascii=not (sys.stdout.encoding or "").lower().startswith("utf")))
    elif isinstance(answer, Mapping):
        width = max((len(str(name)) for name in answer), default=0)
        for name, value in answer.items():
            typer.echo(f"{name!s:<{width}}  {_cell(value)}")
    elif not answer:
        typer.echo(none)
    else:
        _show_table(answer)


def _show_table(rows: Sequence[Mapping[str, Any]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = [names, *([_short(_cell(row.get(name))) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(names))]
    for line in table:
        typer.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())
