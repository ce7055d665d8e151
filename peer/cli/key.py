"""``bitwrk key``: the account, and bringing a key in or out. Never prints a secret unless it is asked to export one."""

import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from peer.cli.options import HomeOption, JsonOption, show
from peer.config import home_folder
from wire.errors import LocalFault
from wire.keys import SecretKey

_WIF_MAX_CHARS: Final = 200


def _describe(key: SecretKey, path: Path) -> dict[str, str]:
    from wire.account import account_of
    from wire.keys import show_peer

    return {"account": account_of(key.public), "peer": show_peer(key.peer_id), "public": key.public.hex(), "file": str(path)}


def key_show(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show who this node is; makes a key when there is none yet."""
    from peer.home import Home

    place = Home.at(home_folder(home))
    if not place.has_key():
        typer.echo(f"made a new key in {place.key_path}; back it up", err=True)
    show(_describe(place.key(), place.key_path), as_json)


def key_import(
    source: Annotated[str, typer.Argument(metavar="FILE", help="File that holds the key in WIF; - reads standard input.")] = "-",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep a key in wallet import format as the key of this home. A key that is there is never overwritten."""
    from peer.home import Home

    place = Home.at(home_folder(home))
    try:
        if source == "-":
            text = sys.stdin.read(_WIF_MAX_CHARS)
        else:
            with Path(source).open(encoding="ascii") as opened:
                text = opened.read(_WIF_MAX_CHARS)
    except OSError as error:
        raise LocalFault("bad-file", f"{source} cannot be read: {(error.strerror or 'unknown').lower()}") from None
    except UnicodeDecodeError:
        raise LocalFault("bad-file", f"{source} holds no key in wallet import format") from None
    show(_describe(place.import_key(text), place.key_path), as_json)


def key_export(home: HomeOption = None) -> None:
    """Print the secret key in wallet import format. Whoever reads it can spend the money of this account."""
    from peer.home import Home

    typer.echo(Home.at(home_folder(home)).export())
