"""``bitwrk wallet``: the coins of this account, and how to get at them when nothing is left but the key.

Every amount is shown with its network, so that play money is never taken for money.
"""

import secrets
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from peer.cli.options import ChainOption, HomeOption, JsonOption, NetworkOption, amount, show
from peer.config import home_folder, load_settings
from wire.errors import LocalFault, Refused

_LOOK_S: Final = 0.5
_REQUEST_BYTES: Final = 12

AddressArgument = Annotated[str, typer.Argument(metavar="ADDRESS", help="Where to pay; a bech32 address of the node's network.")]
RateOption = Annotated[
    float | None, typer.Option("--feerate", metavar="RATE", min=0.1, help="Satoshi per virtual byte. Default: the going rate.")
]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
RequestOption = Annotated[
    str | None,
    typer.Option("--request", metavar="NAME", help="The payment's name: the same again is the same payment, made once."),
]


def money(sat: int | None, of: dict[str, Any]) -> str:
    """An amount with the network it is on."""
    if sat is None:
        return "-"
    return f"{sat} sat ({of['network']}{', play money' if of['money'] == 'play' else ''})"


def _node(home: Path | None) -> Any:
    from peer.client import LocalNode

    return LocalNode.at(home_folder(home))


def _lines(told: dict[str, Any], rows: list[tuple[str, Any]]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        typer.echo(f"{name:<{width}}  {money(value, told) if isinstance(value, int) else value}")


# --- looking -----------------------------------------------------------------------------------------------------
def address(
    plain: Annotated[bool, typer.Option("--plain", help="The address alone, without the code for a camera.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Where this account can be paid. One address for everything: whoever was paid from it can find the others."""
    with _node(home) as node:
        told = node.wallet()
    if as_json:
        show({name: told[name] for name in ("address", "network", "money")}, as_json)
        return
    typer.echo(f"{told['address']}  ({told['network']}{', play money' if told['money'] == 'play' else ''})")
    if not plain and (sys.stdout.encoding or "").lower().startswith("utf"):
        import segno

        segno.make(told["address"].upper(), micro=False).terminal(out=sys.stdout, compact=True)


def balance(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """What the account has, by state."""
    with _node(home) as node:
        told = node.wallet()
    if as_json:
        show(told, as_json)
        return
    rows = [
        ("to spend", told["spendable_sat"]),
        ("  confirmed", told["confirmed_sat"]),
        ("  own change that waits", told["waiting_sat"]),
        ("locked by transactions under way", told["locked_sat"]),
        ("block rewards that are too young", told["young_sat"]),
        ("in channels as buyer", told["in_channels_sat"]),
        ("  of it paid already", told["paid_in_channels_sat"]),
        ("earned in channels as seller, not closed yet", told["earned_in_channels_sat"]),
    ]
    _lines(told, rows)


def history(
    since: Annotated[
        int | None,
        typer.Option("--from-height", metavar="H", min=0, help="The first block to read. Default: all of regtest, else a day."),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """What happened to the account's coins, the latest first."""
    with _node(home) as node:
        told = node.wallet("history", **({} if since is None else {"from_height": str(since)}))
    if as_json:
        show(told, as_json)
        return
    for one in told["entries"]:
        height = "waits" if one["height"] is None else one["height"]
        fee = "" if one["fee_sat"] is None else f", fee {one['fee_sat']} sat"
        change = "? sat" if one["change_sat"] is None else money(one["change_sat"], told)
        typer.echo(f"{height!s:>8}  {one['kind']:<14}  {change}{fee}  {one['txid']}")
    if not told["entries"]:
        typer.echo(f"nothing since block {told['from_height']}")


def fee(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """The going fee rate, and what the usual transactions cost at it."""
    with _node(home) as node:
        told = node.wallet("fees")
    if as_json:
        show(told, as_json)
        return
    typer.echo(f"rate  {told['feerate_sat_per_kvb'] / 1_000:g} sat per virtual byte")
    _lines(told, [(name.removesuffix("_sat"), value) for name, value in told.items() if name.endswith("_sat")])


# --- paying out --------------------------------------------------------------------------------------------------
def _pay(node: Any, where: str, what: str | None, rate: float | None, request: str | None, yes: bool, as_json: bool) -> None:
    body = {"address": where, "amount": what, "feerate": None if rate is None else round(rate * 1_000)}
    name = request or secrets.token_hex(_REQUEST_BYTES)
    quote = node.wallet_asks("quote", body) if not yes else None
    if quote is not None:
        typer.echo(f"pays     {money(quote['value_sat'], quote)} to {where}", err=True)
        typer.echo(f"fee      {money(quote['fee_sat'], quote)}, {quote['vbytes']} virtual bytes", err=True)
        if not typer.confirm("Pay?", err=True):
            raise Refused("not-confirmed", "nothing was paid")
    try:
        sent = node.wallet_asks("send", {"request": name, **body})
    except LocalFault as fault:
        sentence = f"{fault.sentence}; it is not known whether it was paid: ask again with --request {name}, which pays once"
        raise LocalFault(fault.code, sentence) from None
    if as_json:
        show(sent, as_json)
        return
    _lines(sent, [("paid", sent["value_sat"]), ("fee", sent["fee_sat"]), ("txid", sent["txid"])])
    if not sent["seen"]:
        typer.echo("the chain has not shown it yet; the node broadcasts it again until it does", err=True)


def send(
    where: AddressArgument,
    what: Annotated[str, typer.Argument(metavar="AMOUNT", help="How much, such as 'sat 25000' or 'mBTC 0.25'.")],
    feerate: RateOption = None,
    request: RequestOption = None,
    yes: YesOption = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Pay AMOUNT to ADDRESS. Shows the fee first and asks."""
    amount("AMOUNT", what)
    with _node(home) as node:
        _pay(node, where, what, feerate, request, yes, as_json)


def withdraw(
    where: AddressArgument,
    close: Annotated[bool, typer.Option("--close", help="Close all channels first and wait for what comes back.")] = False,
    wait: Annotated[float, typer.Option("--wait", metavar="SECONDS", min=1, help="How long to wait for the closes.")] = 600.0,
    feerate: RateOption = None,
    request: RequestOption = None,
    yes: YesOption = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Pay everything to ADDRESS. Shows the fee first and asks."""
    with _node(home) as node:
        if close:
            _close_all(node, wait)
        _pay(node, where, None, feerate, request, yes, as_json)


def _close_all(node: Any, wait_s: float) -> None:
    asked = {one["channel"] for one in node.close_channels("withdrawal")}
    until = time.monotonic() + wait_s
    while True:
        phases = {one["channel"]: one["phase"] for one in node.read("channels")}
        left = [name for name in asked if phases.get(name) not in (None, "closed", "buried")]
        if not left:
            return
        if time.monotonic() > until:
            raise Refused("still-open", f"{len(left)} channels are still closing; what they hold is not withdrawn yet: ask again")
        typer.echo(f"waiting for {len(left)} channels to close", err=True)
        time.sleep(_LOOK_S)


# --- when something was lost -------------------------------------------------------------------------------------
def export_escrow(
    channel: Annotated[str, typer.Argument(metavar="[CHANNEL]", help="The channel, or its first digits. Default: all.")] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print all that another wallet needs to get the money out of a channel. What it prints is worth the whole account."""
    from escrow.core.export import WARNING, export
    from escrow.core.state import ChannelRow, PastLock
    from peer.home import Home
    from wire.canon import unpack
    from wire.network import network_named

    folder = home_folder(home)
    with _node(home) as node:
        open_ = [one for one in node.read("channels") if one["funding_txid"] is not None]
        names = [one["channel"] for one in open_ if one["channel"].startswith(channel)]
        kept = [node.wallet(f"escrows/{name}") for name in names]
    if channel and not names:
        raise Refused("unknown-channel", "there is no such channel with money on the chain; see bitwrk channels")
    key = Home.at(folder).load_key()
    told = []
    for one in kept:
        row = unpack(ChannelRow, bytes.fromhex(one["row"]))
        locks = [unpack(PastLock, bytes.fromhex(lock)) for lock in one["locks"]]
        told.append(export(key, network_named(one["network"]), row, locks))
    typer.echo(f"warning: {WARNING}", err=True)
    if as_json:
        show(told, as_json)
        return
    for one in told:
        show({name: value for name, value in one.items() if name != "warning"}, as_json)
        typer.echo("")


def recall(
    peers: Annotated[list[str] | None, typer.Argument(metavar="[PEER]", help="Sellers to ask. Default: all connected.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """After a lost disk: ask sellers for the channels they have with this account. What they hold is closed at once."""
    with _node(home) as node:
        told = node.wallet_asks("recall", {"peers": peers or []})
    show(told if as_json else [{"asked": one} for one in told["asked"]], as_json, "no peer is connected; nobody was asked")


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
    settings = load_settings(home_folder(home), {"network": network, "chain": chain})
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
        typer.echo(f"         seller {one['seller']}")
        if one["spent_by"] is not None:
            typer.echo(f"         by transaction {one['spent_by']}")
    for sentence in report["refused"]:
        typer.echo(f"refused  the chain does not take a refund: {sentence}")
    if not report["escrows"]:
        typer.echo("escrow   none of this key in these blocks")


def add_wallet(app: typer.Typer) -> None:
    """Put the commands of the wallet into ``app``."""
    group = typer.Typer(help="The coins of this account, and recovering them.", no_args_is_help=True, rich_markup_mode=None)
    for one in (address, balance, history, fee, send, withdraw, recall, recover):
        group.command(one.__name__)(one)
    group.command("export-escrow")(export_escrow)
    app.add_typer(group, name="wallet")
