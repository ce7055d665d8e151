"""Commands that run something until it is stopped: a node, a seller, a development chain, the demonstration."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from peer.cli.options import (
    ApiPortOption,
    BootstrapOption,
    ChainOption,
    HomeOption,
    ListenOption,
    LogFormatOption,
    LogLevelOption,
    NetworkOption,
    amount,
    settings_from,
)
from peer.config import DemoOptions, Offer, Settings, home_folder
from wire.limits import ARTICLE_MAX_CHARS, WORKERS_MAX

_DEVCHAIN_PORT = 18_443


def _run(settings: Settings, offers: tuple[Offer, ...]) -> None:
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%Y-%m-%dT%H:%M:%S%z"
    )
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
) -> None:
    """Run a node until it is stopped. It buys for local programs and helps the network; it sells nothing."""
    _run(settings_from(home, api_port, listen, bootstrap, network, chain, log_level, log_format), ())


def sell(
    worker: Annotated[str, typer.Option("--worker", metavar="NAME", help="What does the work: rays or echo.")],
    ask: Annotated[
        str, typer.Option("--ask", metavar="AMOUNT", help="Price of one unit, for example 'uBTC 26'; 'sat 0' is free.")
    ],
    slots: Annotated[int, typer.Option("--slots", min=1, max=WORKERS_MAX, help="How many units to work on at once.")] = 1,
    article: Annotated[
        str | None, typer.Option("--article", metavar="ARTICLE", help="Article to serve, if not the worker's own.")
    ] = None,
    home: HomeOption = None,
    api_port: ApiPortOption = None,
    listen: ListenOption = None,
    bootstrap: BootstrapOption = None,
    network: NetworkOption = None,
    chain: ChainOption = None,
    log_level: LogLevelOption = None,
    log_format: LogFormatOption = None,
) -> None:
    """Run a node that sells the work of this machine until it is stopped."""
    if article is not None and not 0 < len(article) <= ARTICLE_MAX_CHARS:
        raise typer.BadParameter(f"an article has 1 to {ARTICLE_MAX_CHARS} characters", param_hint="--article")
    offer = Offer(worker=worker, article=article, ask_msat=amount("--ask", ask), slots=slots)
    _run(settings_from(home, api_port, listen, bootstrap, network, chain, log_level, log_format), (offer,))


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
