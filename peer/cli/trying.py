"""Commands to try things with: a node's address, play money, a small piece of work and how its result looks."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from peer.cli.options import HomeOption
from peer.config import home_folder
from wire.errors import BitwrkError, LocalFault, Refused
from wire.money import MSAT_PER_SAT, parse_msat, show_msat

_DEVCHAIN_PORT = 18_443
_TRY_EVERY_S = 0.2
_SAMPLE_SIZE = (240, 160)


def _patiently(read: Any, wait_s: float, what: str) -> Any:
    """What ``read`` returns, tried until it works or ``wait_s`` are over."""
    until = time.monotonic() + wait_s
    while True:
        try:
            return read()
        except (BitwrkError, OSError) as error:
            if time.monotonic() >= until:
                reason = error.sentence if isinstance(error, BitwrkError) else str(error)
                raise LocalFault("not-there", f"{what}: {reason}") from None
            time.sleep(_TRY_EVERY_S)


def _status(home: Path | None) -> Any:
    from peer.client import LocalNode

    with LocalNode.at(home_folder(home)) as node:
        return node.read("status")


def address(
    home: HomeOption = None,
    wait: Annotated[float, typer.Option("--wait", metavar="SECONDS", help="How long to wait for the node to start.")] = 30.0,
) -> None:
    """Print the address at which other nodes reach the running node, for their --bootstrap."""
    status = _patiently(lambda: _status(home), wait, "the node does not run")
    typer.echo(status["addresses"][0])


def faucet(
    amount: Annotated[str, typer.Option("--amount", metavar="AMOUNT", help="How much play money.")] = "mBTC 10",
    port: Annotated[int, typer.Option("--port", help="Port of the development chain's RPC.")] = _DEVCHAIN_PORT,
    home: HomeOption = None,
    wait: Annotated[float, typer.Option("--wait", metavar="SECONDS", help="How long to wait for the node and the coins.")] = 30.0,
) -> None:
    """Let a development chain pay play money to the running node, and wait until it has arrived."""
    import httpx

    status = _patiently(lambda: _status(home), wait, "the node does not run")
    if "address" not in status:
        raise Refused("no-chain", "this node has no chain, so it has no wallet to pay to; start it with --chain")
    satoshi = parse_msat(amount) // MSAT_PER_SAT
    before = int(status["balance_sat"])
    body = {"jsonrpc": "1.0", "id": 1, "method": "devfaucet", "params": [status["address"], satoshi]}
    try:
        answer = httpx.post(f"http://127.0.0.1:{port}", json=body, timeout=30).json()
    except (httpx.HTTPError, ValueError):
        raise LocalFault("no-devchain", f"no development chain answers at port {port}; start one with: bitwrk devchain") from None
    if answer.get("error"):
        raise Refused("faucet", f"the development chain refuses: {answer['error']['message']}")

    def arrived() -> int:
        balance = int(_status(home)["balance_sat"])
        if balance <= before:
            raise LocalFault("not-yet", "it has not arrived")
        return balance

    balance = _patiently(arrived, wait, "the play money was sent")
    typer.echo(f"balance  {show_msat(balance * MSAT_PER_SAT)} of play money")


def sample_work(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where the work goes.")],
) -> None:
    """Write a small picture as one piece of work for net.bitwrk/rays/1."""
    from peer.workers.rays.demo import demo_scene
    from peer.workers.rays.tiles import cut

    width, height = _SAMPLE_SIZE
    (work,) = cut(demo_scene(width=width, height=height), 1, 1)
    file.write_bytes(work)
    typer.echo(f"work  {file}, {len(work)} bytes")


def sample_picture(
    result: Annotated[Path, typer.Argument(metavar="RESULT", help="A result of net.bitwrk/rays/1.")],
    file: Annotated[Path, typer.Argument(metavar="PNG", help="Where the picture goes.")],
) -> None:
    """Turn a result of net.bitwrk/rays/1 into a PNG picture."""
    from peer.workers.rays.tiles import join, write_png

    write_png(join([result.read_bytes()]), file)
    typer.echo(f"picture  {file}")
