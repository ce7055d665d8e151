"""``bitwrk arbiter`` runs a node that rules on channels; ``appeal`` and ``appeals`` are a party's side."""

import dataclasses
from typing import Annotated, Final

import typer

from peer.cli.options import (
    ApiPortOption,
    BootstrapOption,
    ChainOption,
    GossipsubOption,
    HomeOption,
    JsonOption,
    ListenOption,
    LogFormatOption,
    LogLevelOption,
    NetworkOption,
    amount,
    settings_from,
    show,
)
from peer.cli.words import set_up_logging
from peer.config import home_folder
from wire.errors import Refused
from wire.money import MSAT_PER_SAT

_PERCENT: Final = 100


def arbiter(
    context: typer.Context,
    automatic: Annotated[
        bool, typer.Option("--automatic", help="Rule without the operator where signatures alone decide.")
    ] = False,
    home: HomeOption = None,
    api_port: ApiPortOption = None,
    listen: ListenOption = None,
    bootstrap: BootstrapOption = None,
    network: NetworkOption = None,
    chain: ChainOption = None,
    log_level: LogLevelOption = None,
    log_format: LogFormatOption = None,
    gossipsub: GossipsubOption = None,
) -> None:
    """Run a node that rules on channels whose parties chose it. It holds nobody's money."""
    if context.invoked_subcommand is not None:
        return
    settings = settings_from(home, api_port, listen, bootstrap, network, chain, log_level, log_format, gossipsub)
    set_up_logging(settings.log_level, settings.log_format)
    from peer.node.run import run_node

    run_node(dataclasses.replace(settings, court=True, automatic=automatic), ())


def cases(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Cases before the running arbiter, and how they stand."""
    from peer.client import LocalNode

    with LocalNode.at(home_folder(home)) as node:
        show(node.read("cases"), as_json, "no cases")


def rule(
    case: Annotated[str, typer.Argument(metavar="CASE", help="The case's id, or its beginning.")],
    to_seller: Annotated[str | None, typer.Option("--to-seller", metavar="AMOUNT", help="What the seller gets.")] = None,
    split: Annotated[
        int | None, typer.Option("--split", metavar="PERCENT", min=0, max=_PERCENT, help="The seller's share of everything.")
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="Told to both parties.")] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Rule on a case. The buyer gets the rest but for the fee. There is never a second ruling."""
    if (to_seller is None) == (split is None):
        raise typer.BadParameter("say either --to-seller or --split")
    from peer.client import LocalNode

    with LocalNode.at(home_folder(home)) as node:
        found = [one for one in node.read("cases") if one["case"].startswith(case)]
        if len(found) != 1:
            raise Refused("unknown-case", f"{len(found)} cases begin with {case}")
        if to_seller is not None:
            share_sat = amount("--to-seller", to_seller) // MSAT_PER_SAT
        else:
            share_sat = found[0]["most_sat"] * (split or 0) // _PERCENT
        show(node.rule(found[0]["case"], to_seller_sat=share_sat, reason=reason), as_json)


def appeal(
    channel: Annotated[str, typer.Argument(metavar="CHANNEL", help="The channel's id, or its beginning.")],
    to_seller: Annotated[
        str | None, typer.Option("--to-seller", metavar="AMOUNT", help="What the seller should get. Default: as own books say.")
    ] = None,
    statement: Annotated[str, typer.Option("--statement", help="For the arbiter and the other party to read.")] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask the arbiter of a channel for a ruling; the node's evidence goes with it."""
    share_sat = None if to_seller is None else amount("--to-seller", to_seller) // MSAT_PER_SAT
    from peer.client import LocalNode

    with LocalNode.at(home_folder(home)) as node:
        found = [one["channel"] for one in node.read("channels") if str(one["channel"]).startswith(channel)]
        if len(found) != 1:
            raise Refused("unknown-channel", f"{len(found)} channels begin with {channel}")
        show(node.appeal(found[0], to_seller_sat=share_sat, statement=statement), as_json)


def appeals(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Own appeals to arbiters, and what became of them."""
    from peer.client import LocalNode

    with LocalNode.at(home_folder(home)) as node:
        show(node.read("appeals"), as_json, "no appeals")


def add_disputes(app: typer.Typer) -> None:
    """Add the commands of both sides."""
    group = typer.Typer(help="Run an arbiter: rule on channels whose parties chose it.", rich_markup_mode=None)
    group.callback(invoke_without_command=True)(arbiter)
    group.command("cases")(cases)
    group.command("rule")(rule)
    app.add_typer(group, name="arbiter")
    app.command("appeal")(appeal)
    app.command("appeals")(appeals)
