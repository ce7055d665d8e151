"""Commands that run something until it is stopped: a node, a seller, a development chain, the demonstration."""

from pathlib import Path
from typing import Annotated

import typer

from peer.cli.options import (
    ApiPortOption,
    BootstrapOption,
    ChainOption,
    GossipsubOption,
    HomeOption,
    ListenOption,
    LogFormatOption,
    LogLevelOption,
    NetworkOption,
    amount,
    settings_from,
)
from peer.cli.words import set_up_logging
from peer.config import DemoOptions, Settings, home_folder
from peer.offer import Offer, check_offer
from wire.errors import Refused
from wire.limits import WORKERS_MAX

_DEVCHAIN_PORT = 18_443


def _run(settings: Settings, offers: tuple[Offer, ...]) -> None:
    set_up_logging(settings.log_level, settings.log_format)
    from peer.node.run import run_node

    run_node(settings, offers)


def node(
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
    """Run a node until it is stopped. It buys for local programs and helps the network; it sells nothing."""
    _run(settings_from(home, api_port, listen, bootstrap, network, chain, log_level, log_format, gossipsub), ())


def sell(
    worker: Annotated[
        str | None, typer.Option("--worker", metavar="NAME", help="What does the work: rays, blender, or echo for tests.")
    ] = None,
    command: Annotated[
        str | None,
        typer.Option(
            "--command", metavar="TEMPLATE", help="A program that does the work in a sandbox, such as 'prog {in} {out}'."
        ),
    ] = None,
    article: Annotated[
        str | None, typer.Option("--article", metavar="ARTICLE", help="Article to serve, if not the worker's own.")
    ] = None,
    ask: Annotated[
        str | None,
        typer.Option(
            "--ask", metavar="AMOUNT", help="Price of one unit, such as 'uBTC 26'; 'sat 0' is free. Without it: mandates."
        ),
    ] = None,
    slots: Annotated[int, typer.Option("--slots", min=1, max=WORKERS_MAX, help="How many units to work on at once.")] = 1,
    blender: Annotated[
        Path | None, typer.Option("--blender", metavar="PATH", help="The Blender to use, or a Python with the module bpy.")
    ] = None,
    share: Annotated[
        list[Path] | None, typer.Option("--share", metavar="DIR", help="A folder that the command may read.")
    ] = None,
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
    """Run a node that sells the work of this machine until it is stopped. Without a worker it sells what config.toml says."""
    offer = None
    if worker is not None or command is not None:
        given = Offer(
            worker=worker,
            command=command,
            article=article,
            ask_msat=None if ask is None else amount("--ask", ask),
            slots=slots,
            blender=blender,
            share=tuple(share or ()),
        )
        try:
            offer = check_offer(given)
        except Refused as refused:
            raise typer.BadParameter(refused.sentence) from None
    settings = settings_from(home, api_port, listen, bootstrap, network, chain, log_level, log_format, gossipsub)
    offers = (offer,) if offer is not None else settings.sell
    if not offers:
        raise typer.BadParameter("name a --worker or a --command, or write offers into config.toml")
    _run(settings, offers)


def devchain(
    home: HomeOption = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="Port of its RPC on 127.0.0.1.")] = _DEVCHAIN_PORT,
    block_interval_ms: Annotated[
        int | None, typer.Option("--block-interval-ms", min=10, help="How soon waiting transactions are put into a block.")
    ] = None,
) -> None:
    """Run a development chain (regtest, play money) that several nodes on this machine can share."""
    import trio

    from escrow.shell.devchain import serve_devchain
    from peer.home import Home

    folder = Home.at(home_folder(home)).folder / "devchain"

    async def serve() -> None:
        if block_interval_ms is None:
            await serve_devchain(folder, port)
        else:
            await serve_devchain(folder, port, block_interval_ms=block_interval_ms)

    trio.run(serve)


def demo(
    sellers: Annotated[int, typer.Option("--sellers", min=1, max=16, help="How many sellers.")] = 3,
    tiles: Annotated[int, typer.Option("--tiles", min=1, max=1_024, help="Into how many tiles the picture is cut.")] = 24,
    kill_one: Annotated[bool, typer.Option("--kill-one", help="Kill a seller in the middle of the job.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Fail unless every promise of the demonstration was kept.")] = False,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the picture and the receipts go.")] = Path("demo-out"),
) -> None:
    """Have strangers render a picture: real nodes, a real market and a real chain, all on this machine with play money."""
    from peer.demo.run import run_demo

    run_demo(DemoOptions(sellers=sellers, tiles=tiles, kill_one=kill_one, check=check, out=out))
