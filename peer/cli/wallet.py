"""``bitwrk wallet``: the coins of this account, and how to get at them when nothing is left but the key."""

from typing import Annotated, Any

import typer

from peer.cli.options import ChainOption, HomeOption, JsonOption, NetworkOption, settings_from, show


def money(sat: int | None, of: dict[str, Any]) -> str:
    """An amount with the network it is on, so that play money is never taken for money."""
    if sat is None:
        return "-"
    return f"{sat} sat ({of['network']}{', play money' if of['money'] == 'play' else ''})"


def recover(
    since: Annotated[
        int | None,
        typer.Option("--from-height", metavar="H", min=0, help="The first block to read. Default: all of regtest, else 4032."),
    ] = None,
    dry: Annotated[bool, typer.Option("--dry-run", help="Only look; broadcast nothing.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Stay until everything has come back and is confirmed.")] = False,
    home: HomeOption = None,
    network: NetworkOption = None,
    chain: ChainOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find what belongs to the key of this home on the chain, and take back every escrow whose time is over."""
    settings = settings_from(home, None, None, None, network, chain, None, None)
    from peer.node.recovering import run_recovery

    def tell(report: dict[str, Any]) -> None:
        if not as_json:
            _print(report)

    report = run_recovery(settings, since, take=not dry, watch=watch, tell=tell)
    if as_json:
        show(report, as_json=True)


def _print(report: dict[str, Any]) -> None:
    typer.echo(f"height {report['height']}, read from {report['from_height']}")
    typer.echo(f"balance  {money(report['balance_sat'], report)} in {report['coins']} coins at {report['address']}")
    for one in report["escrows"]:
        typer.echo(f"escrow   {one['txid'][:16]}…:{one['vout']}  {money(one['capacity_sat'], report)} {one['in_words']}")
        if one["spent_by"] is not None:
            typer.echo(f"         by transaction {one['spent_by']}")
    for sentence in report["refused"]:
        typer.echo(f"refused  the chain does not take a refund: {sentence}")
    if not report["escrows"]:
        typer.echo("escrow   none of this key in these blocks")


def add_wallet(app: typer.Typer) -> None:
    """Put the commands of the wallet into ``app``."""
    group = typer.Typer(help="The coins of this account, and recovering them.", no_args_is_help=True, rich_markup_mode=None)
    group.command("recover")(recover)
    app.add_typer(group, name="wallet")
