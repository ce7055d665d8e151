"""The demonstration from beginning to end, as a script that reads like what it does."""

import json
import shutil
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import trio
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from peer.config import DemoOptions
from peer.demo.cluster import Cluster, Node, open_cluster
from peer.demo.receipts import Auditor, Escrow, channels_of, escrow_lines, ledger_of, money_conserved
from peer.workers.rays.demo import demo_scene
from peer.workers.rays.local import render_locally
from peer.workers.rays.tiles import Plan, cut, grid, join, write_png
from peer.workers.spec import RAYS_ARTICLE
from wire.errors import LocalFault, Refused
from wire.money import show_msat
from wire.network import REGTEST

BID: Final = "uBTC 340"
ASKS_UBTC: Final = (26, 31, 37, 44, 52, 61, 72, 85)
SLOTS: Final = 2
POCKET_SAT: Final = 50_000_000
NAMES: Final = ("ada", "bert", "cleo", "dora", "emil", "fay", "gus", "hedy")
MARKET_TIMEOUT_S: Final = 60
TILE_TIMEOUT_S: Final = 180
CLOSE_TIMEOUT_S: Final = 60

FIRST_RESULT_MAX_S: Final = 6.0
WALL_MAX_S: Final = 60.0
TILES_MIN: Final = 24


@dataclass(slots=True)
class Job:
    """The picture while it is being made."""

    works: tuple[bytes, ...]
    results: dict[int, bytes] = field(default_factory=dict)
    first_result_s: float | None = None
    wall_s: float = 0.0
    failures: list[str] = field(default_factory=list)


def run_demo(options: DemoOptions) -> None:
    """Run it; raises ``Refused("demo-check", …)`` when ``--check`` finds a promise broken."""
    trio.run(make_demo, options)


async def make_demo(options: DemoOptions) -> None:
    """The whole of it, for a loop that runs already."""
    console = Console()
    began = time.monotonic()
    if options.sellers > len(NAMES):
        raise Refused("demo-sellers", f"at most {len(NAMES)} sellers take part")
    shutil.rmtree(options.out, ignore_errors=True)
    options.out.mkdir(parents=True)
    plan = demo_scene()
    columns, rows = grid(plan, options.tiles)
    job = Job(works=cut(plan, columns, rows))
    console.print("[bold]BitWrk[/]: a picture rendered by strangers and paid for, on this machine, with [bold]play money[/]")
    console.print(f"The picture: {plan.width} x {plan.height} pixels in {len(job.works)} tiles, {plan.samples} rays each pixel")
    async with (
        open_cluster(options.out / "nodes") as cluster,
        httpx.AsyncClient(timeout=TILE_TIMEOUT_S, limits=_LIMITS) as client,
    ):
        sellers, buyer = await _start(cluster, client, options, console)
        await _see_market(client, buyer, len(sellers))
        await _buy(client, buyer, sellers, job, options, console)
        if options.kill_one:
            await _bring_back(client, sellers[-1], console)
        await _close(client, [buyer, *sellers], console)
        picture = join(job.results[index] for index in sorted(job.results))
        write_png(picture, options.out / "picture.png")
        escrows, epochs, facts = await _read_back(cluster, client, buyer, sellers)
    local_began = time.monotonic()
    console.print("Rendering the same picture here, to compare every pixel …")
    local = join(await render_locally(job.works, 2))
    receipts = {
        "tiles": len(job.results),
        "picture_matches_local_render": bool((picture == local).all()),
        "sellers": facts["sellers"],
        "escrows": escrow_lines(escrows),
        "money_conserved": not facts["wrong"],
        "submit_to_first_result_s": round(job.first_result_s or 0.0, 3),
        "wall_s": round(job.wall_s, 3),
        "local_wall_s": round(time.monotonic() - local_began, 3),
        "epochs": epochs,
        "demo_s": round(time.monotonic() - began, 3),
    }
    (options.out / "receipts.json").write_text(json.dumps(receipts, indent=2) + "\n")
    _show(console, receipts, plan, options.out)
    broken = [*facts["wrong"], *_broken_promises(receipts, options)]
    for promise in broken:
        console.print(f"[red]broken:[/] {promise}")
    if options.check and broken:
        raise Refused("demo-check", f"{len(broken)} promises of the demonstration were not kept: {broken[0]}")


_LIMITS: Final = httpx.Limits(max_connections=2_048, max_keepalive_connections=64)


async def _start(cluster: Cluster, client: httpx.AsyncClient, options: DemoOptions, console: Console) -> tuple[list[Node], Node]:
    """Start the chain, then all nodes; each later one knows the address of an earlier one, any of them would do."""
    cluster.chain.program.start()
    await cluster.chain.ready(client)
    sellers: list[Node] = []
    bootstrap: str | None = None
    for name, ask in zip(NAMES[: options.sellers], ASKS_UBTC, strict=False):
        command = ("sell", "--worker", "rays", "--ask", f"uBTC {ask}", "--slots", str(SLOTS))
        seller = cluster.node(name, command, bootstrap)
        seller.program.start()
        if bootstrap is None:
            await seller.ready(client)
            bootstrap = seller.address
        sellers.append(seller)
    buyer = cluster.node("buyer", ("node",), bootstrap)
    buyer.program.start()
    for node in [*sellers, buyer]:
        await node.ready(client)
    status = await buyer.get(client, "status")
    await cluster.chain.call(client, "devfaucet", status["address"], POCKET_SAT)
    console.print(f"Running: a development chain, {len(sellers)} sellers, one buyer with {show_msat(POCKET_SAT * 1_000)}")
    return sellers, buyer


async def _see_market(client: httpx.AsyncClient, buyer: Node, sellers: int) -> None:
    """Look at the market before buying, as a careful buyer does: wait until all sellers' orders are in the book."""
    base, headers = buyer.reach()
    with trio.move_on_after(MARKET_TIMEOUT_S):
        while True:
            answer = await client.post(f"{base}/v1/books", headers=headers, params={"article": RAYS_ARTICLE})
            answer.raise_for_status()
            account = (await client.get(f"{base}/v1/account", headers=headers)).json()
            books = [one for one in answer.json() if one["article"] == RAYS_ARTICLE and not one["free"]]
            if books and books[0].get("sellers", 0) >= sellers and account["balance_sat"] >= POCKET_SAT:
                return
            buyer.program.check()
            await trio.sleep(0.2)
    raise LocalFault("demo-market", f"the buyer did not see {sellers} sellers within {MARKET_TIMEOUT_S} s")


async def _buy(
    client: httpx.AsyncClient, buyer: Node, sellers: list[Node], job: Job, options: DemoOptions, console: Console
) -> None:
    """Submit every tile through the local API, the way any program would, and wait for all of them."""
    base, headers = buyer.reach()
    began = time.monotonic()
    half_way = trio.Event()

    async def one(index: int) -> None:
        answer = await client.post(
            f"{base}/buy/{RAYS_ARTICLE}",
            headers=headers,
            params={"price": BID, "wait": str(TILE_TIMEOUT_S)},
            content=job.works[index],
        )
        if answer.status_code != httpx.codes.SEE_OTHER:
            job.failures.append(f"tile {index}: {answer.status_code} {answer.text[:200]}")
            return
        got = await client.get(f"{base}{answer.headers['location']}", headers=headers)
        got.raise_for_status()
        job.results[index] = got.content
        if job.first_result_s is None:
            job.first_result_s = time.monotonic() - began
        if 4 * len(job.results) >= len(job.works):
            half_way.set()

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[who]}"),
        TimeElapsedColumn(),
        console=console,
    ) as progress:
        task = progress.add_task("tiles", total=len(job.works), who="")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch, client, buyer, sellers, job, progress, task)
            if options.kill_one:
                nursery.start_soon(_kill_when, half_way, client, buyer, sellers[-1], progress.console)
            async with trio.open_nursery() as tiles:
                for index in range(len(job.works)):
                    tiles.start_soon(one, index)
            job.wall_s = time.monotonic() - began
            half_way.set()
            nursery.cancel_scope.cancel()
        await _look(client, buyer, sellers, job, progress, task)
    if job.failures:
        raise LocalFault("demo-tiles", f"{len(job.failures)} tiles failed; {job.failures[0]}")


async def _watch(client: httpx.AsyncClient, buyer: Node, sellers: list[Node], job: Job, progress: Progress, task: Any) -> None:
    """Keep the progress bar true: who delivered how much, and what it has cost so far."""
    while True:
        await _look(client, buyer, sellers, job, progress, task)
        await trio.sleep(0.3)


async def _look(client: httpx.AsyncClient, buyer: Node, sellers: list[Node], job: Job, progress: Progress, task: Any) -> None:
    names = {seller.account: seller.name for seller in sellers}
    done = [line for line in await buyer.get(client, "trades") if line["phase"] == "finished"]
    count = Counter(names.get(line["account"], "?") for line in done)
    spent = sum(line["price_msat"] for line in done)
    who = "  ".join(f"{name} {count[name]}" for name in sorted(count)) + f"  {spent // 1_000:,} sat"
    progress.update(task, completed=len(job.results), who=who)


async def _kill_when(event: trio.Event, client: httpx.AsyncClient, buyer: Node, victim: Node, console: Console) -> None:
    """Kill a seller while he has work of ours."""
    await event.wait()
    while True:
        trades = await buyer.get(client, "trades")
        busy = [
            one for one in trades if one["account"] == victim.account and one["phase"] in ("transmitting", "working", "funded")
        ]
        if busy:
            break
        await trio.sleep(0.05)
    victim.program.kill()
    console.print(f"[yellow]killed[/] {victim.name} with {len(busy)} tiles in work; others will render them")


async def _bring_back(client: httpx.AsyncClient, victim: Node, console: Console) -> None:
    """Start the killed seller again on the same home: it finds its channels in the journal."""
    if victim.program.process is not None and victim.program.process.poll() is not None:
        (victim.home / "api.json").unlink(missing_ok=True)
        victim.program.start()
        await victim.ready(client)
        console.print(f"{victim.name} is back and closes from its journal")


async def _close(client: httpx.AsyncClient, nodes: list[Node], console: Console) -> None:
    """Ask for every channel to be closed, and wait until the chain has them all."""
    await nodes[0].close_channels(client, "the picture is finished")
    with trio.move_on_after(CLOSE_TIMEOUT_S):
        while True:
            open_now = [
                f"{node.name}: {line['phase']}"
                for node in nodes
                for line in await node.get(client, "channels")
                if line["funding_txid"] and line["phase"] not in ("closed", "buried")
            ]
            if not open_now:
                console.print("All escrows are closed on the chain")
                return
            await trio.sleep(0.2)
    raise LocalFault("demo-close", f"channels did not close within {CLOSE_TIMEOUT_S} s: {'; '.join(open_now)}")


async def _read_back(
    cluster: Cluster, client: httpx.AsyncClient, buyer: Node, sellers: list[Node]
) -> tuple[list[Escrow], int, dict[str, Any]]:
    """Read receipts from the chain and the journals."""
    auditor = Auditor(cluster.chain, client)
    await auditor.read_chain()
    trades = await buyer.get(client, "trades")
    journals = {seller.account: seller.home / "journal.sqlite" for seller in sellers}
    book = buyer.home / "journal.sqlite"
    escrows = [one for one in (auditor.escrow(REGTEST.name, row) for row in channels_of(book)) if one is not None]
    earned = ledger_of(journals)
    facts = {
        "sellers": [{"account": account, "tiles": tiles, "paid_msat": paid} for account, (tiles, paid) in sorted(earned.items())],
        "wrong": money_conserved(REGTEST.name, escrows, book, journals),
    }
    return escrows, len({line["epoch"] for line in trades}), facts


def _broken_promises(receipts: dict[str, Any], options: DemoOptions) -> list[str]:
    """Every bound that did not hold, in words."""
    broken: list[str] = []
    if receipts["tiles"] < min(TILES_MIN, options.tiles):
        broken.append(f"only {receipts['tiles']} tiles were rendered")
    if not receipts["picture_matches_local_render"]:
        broken.append("the picture differs from the one rendered here")
    if receipts["submit_to_first_result_s"] > FIRST_RESULT_MAX_S:
        broken.append(f"the first result took {receipts['submit_to_first_result_s']} s and not {FIRST_RESULT_MAX_S}")
    if receipts["demo_s"] > WALL_MAX_S and not options.kill_one:
        broken.append(f"the whole took {receipts['demo_s']} s and not {WALL_MAX_S}")
    if not receipts["escrows"]:
        broken.append("no escrow was funded")
    return broken


def _show(console: Console, receipts: dict[str, Any], plan: Plan, out: Path) -> None:
    """The table at the end: who rendered what for how much."""
    table = Table(title="Who rendered what for how much (play money)")
    for head, justify in (
        ("seller", "left"),
        ("tiles", "right"),
        ("earned", "right"),
        ("on chain", "right"),
        ("close transaction", "left"),
    ):
        table.add_column(head, justify=justify)  # type: ignore[arg-type]
    for seller in receipts["sellers"]:
        escrows = [one for one in receipts["escrows"] if one["seller"] == seller["account"]]
        table.add_row(
            seller["account"],
            str(seller["tiles"]),
            show_msat(seller["paid_msat"]),
            f"sat {sum(one['to_seller_sat'] for one in escrows):,}",
            "\n".join(str(one["close_txid"])[:16] + "…" for one in escrows),
        )
    console.print(table)
    console.print(
        f"{receipts['tiles']} tiles in {receipts['wall_s']} s over {receipts['epochs']} epochs; first result after "
        f"{receipts['submit_to_first_result_s']} s; here alone {receipts['local_wall_s']} s; "
        f"identical: {receipts['picture_matches_local_render']}; money conserved: {receipts['money_conserved']}"
    )
    console.print(
        f"The picture ({plan.width} x {plan.height}) is {out / 'picture.png'}, the receipts are {out / 'receipts.json'}"
    )
