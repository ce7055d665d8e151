"""``bitwrk bond``: lock coins where others see them, show bonds, take them back."""

from typing import Annotated

import typer

from peer.cli.options import HomeOption, JsonOption, amount, show
from peer.config import home_folder
from wire.errors import Refused
from wire.limits import BOND_BLOCKS_MAX
from wire.money import MSAT_PER_SAT


def bond_lock(
    value: Annotated[str, typer.Argument(metavar="AMOUNT", help="How much, for example 'mBTC 1'.")],
    blocks: Annotated[int, typer.Option("--blocks", metavar="N", min=1, max=BOND_BLOCKS_MAX, help="For how many blocks.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Lock coins until a height. Nobody can shorten that, you included."""
    value_sat = amount("AMOUNT", value) // MSAT_PER_SAT
    from peer.client import LocalNode

    with LocalNode.at(home_folder(home)) as node:
        show(node.lock_bond(value_sat, blocks=blocks), as_json)


def bond_list(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Own bonds, and those that others have announced."""
    from peer.client import LocalNode

    with LocalNode.at(home_folder(home)) as node:
        show(node.read("bonds"), as_json, "no bonds")


def bond_release(
    bond: Annotated[str, typer.Argument(metavar="BOND", help="The bond's id, or its beginning.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a bond back whose height has come."""
    from peer.client import LocalNode

    with LocalNode.at(home_folder(home)) as node:
        found = [one["bond"] for one in node.read("bonds") if one["bond"] and one["bond"].startswith(bond)]
        if len(found) != 1:
            raise Refused("unknown-bond", f"{len(found)} bonds of this node begin with {bond}")
        show(node.release_bond(found[0]), as_json)


def add_bonds(app: typer.Typer) -> None:
    """Add the group to the command line."""
    group = typer.Typer(
        help="Coins locked where others see them: lock, list, release.", no_args_is_help=True, rich_markup_mode=None
    )
    group.command("lock")(bond_lock)
    group.command("list")(bond_list)
    group.command("release")(bond_release)
    app.add_typer(group, name="bond")
