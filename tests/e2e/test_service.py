"""A seller that runs by itself: readiness, watchdog, draining under load, and a kill in the middle of a job."""

import signal
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from peer.demo.cluster import Node
from peer.demo.receipts import Auditor, channels_of, ledger_of, money_conserved
from peer.workers.rays.demo import demo_scene
from peer.workers.rays.tiles import cut
from tests.e2e.street import Street, open_street
from wire.network import REGTEST

pytestmark = pytest.mark.e2e

RAYS = "net.bitwrk/rays/1"
BID = "uBTC 340"
BUSY = ("accepted", "funded", "transmitting", "working", "offered", "committed", "revealed")


class Manager:
    """The socket of a service manager, and what it was told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[str] = []
        self._socket = trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    async def __aenter__(self) -> "Manager":
        await self._socket.bind(str(self.path))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._socket.close()

    async def until(self, wanted: str, count: int = 1) -> None:
        """Listen until a line has been said ``count`` times."""
        with trio.fail_after(60):
            while self.lines.count(wanted) < count:
                self.lines += (await self._socket.recv(4_096)).decode().splitlines()

    async def listen(self) -> None:
        while True:
            self.lines += (await self._socket.recv(4_096)).decode().splitlines()


async def paid_street(street: Street, *sellers: Node, buyer: Node) -> None:
    """Give the buyer money, and let him see the sellers in the market."""
    status = await buyer.get(street.client, "status")
    await street.rpc("devfaucet", status["address"], 20_000_000)
    await street.until(buyer, "account", lambda account: account["balance_sat"] == 20_000_000)
    base, headers = buyer.reach()
    await street.client.post(f"{base}/v1/books", headers=headers, params={"article": RAYS})
    await street.until(
        buyer,
        "books",
        lambda books: [one for one in books if one["article"] == RAYS and one.get("sellers", 0) >= len(sellers)],
    )


async def buy_all(street: Street, buyer: Node, works: tuple[bytes, ...]) -> list[httpx.Response]:
    """Buy all works at once and wait for all of them."""
    answers: dict[int, httpx.Response] = {}

    async def one(index: int) -> None:
        answers[index] = await street.buy(buyer, RAYS, works[index], price=BID, wait="60")

    async with trio.open_nursery() as nursery:
        for index in range(len(works)):
            nursery.start_soon(one, index)
    return [answers[index] for index in sorted(answers)]


async def close_all(street: Street, *nodes: Node) -> None:
    """Have every channel closed and wait until the chain has them."""
    await nodes[0].close_channels(street.client, "the job is done")
    for node in nodes:
        await street.until(
            node,
            "channels",
            lambda lines: all(one["phase"] in ("closed", "buried") for one in lines if one["funding_txid"]) or None,
        )


async def audit(street: Street, buyer: Node, *sellers: Node) -> tuple[dict[str, tuple[int, int]], list[str]]:
    """Units and earnings by seller's journal, and what does not add up on the chain."""
    auditor = Auditor(street.cluster.chain, street.client)
    await auditor.read_chain()
    book = buyer.home / "journal.sqlite"
    journals = {seller.account: seller.home / "journal.sqlite" for seller in sellers}
    escrows = [one for one in (auditor.escrow(REGTEST.name, row) for row in channels_of(book)) if one is not None]
    assert escrows
    return ledger_of(journals), money_conserved(REGTEST.name, escrows, book, journals)


def working_with(seller: Node, trades: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in trades if one["account"] == seller.account and one["phase"] in BUSY]


def half_way(trades: list[dict[str, Any]]) -> bool:
    """Whether a seller has one unit at a worker and another behind it."""
    codes = [one["code"] for one in trades if one["phase"] in ("accepted", "funded", "transmitting", "working")]
    return "working" in codes and len(codes) >= 2


async def test_a_seller_says_how_it_is_and_drains_under_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    works = cut(demo_scene(width=240, height=160, samples=64, bounces=4), 4, 3)  # about a second each
    async with open_street(tmp_path) as street, Manager(tmp_path / "notify") as manager:
        await street.chain()
        monkeypatch.setenv("NOTIFY_SOCKET", str(manager.path))
        monkeypatch.setenv("WATCHDOG_USEC", "900000")
        leaving = await street.node("leaving", "sell", "--worker", "rays", "--ask", "uBTC 26")
        monkeypatch.delenv("NOTIFY_SOCKET")
        monkeypatch.delenv("WATCHDOG_USEC")
        await manager.until("READY=1")
        await manager.until("WATCHDOG=1", 3)
        staying = await street.node("staying", "sell", "--worker", "rays", "--ask", "uBTC 31", bootstrap=leaving)
        buyer = await street.node("buyer", "node", bootstrap=leaving)
        await paid_street(street, leaving, staying, buyer=buyer)
        answers: list[httpx.Response] = []

        async def buy() -> None:
            answers.extend(await buy_all(street, buyer, works))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(manager.listen)
            async with trio.open_nursery() as job:
                job.start_soon(buy)
                await street.until(leaving, "trades", half_way)
                process = leaving.program.process
                assert process is not None
                process.send_signal(signal.SIGTERM)
                assert await trio.to_thread.run_sync(process.wait) == 0
            nursery.cancel_scope.cancel()
        assert len(answers) == len(works)
        assert [answer.text[:200] for answer in answers if answer.status_code != 200] == []
        assert manager.lines.index("READY=1") < manager.lines.index("STOPPING=1")
        assert any(line.startswith("STATUS=") and "units in work" in line for line in manager.lines)
        assert any(line.startswith("STATUS=draining") for line in manager.lines)
        assert not (leaving.home / "api.json").exists()

        trades = [one for one in await buyer.get(street.client, "trades") if one["account"] == leaving.account]
        ended = Counter((one["phase"], one["code"]) for one in trades)
        assert set(ended) == {("finished", "finished"), ("work-rejected", "draining")}, ended
        counters = (await buyer.get(street.client, "status"))["counters"]
        assert [code for code in counters if code.startswith("strike")] == []

        leaving.program.arguments = (*leaving.program.arguments, "--bootstrap", buyer.address)
        leaving.program.start()
        await leaving.ready(street.client)
        again = await leaving.get(street.client, "trades")
        assert Counter(one["phase"] for one in again)["finished"] == ended["finished", "finished"]
        await close_all(street, buyer, leaving, staying)
        earned, wrong = await audit(street, buyer, leaving, staying)
        assert wrong == []
        assert sum(units for units, _ in earned.values()) == len(works)


async def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    async with open_street(tmp_path) as street:
        (endless,) = cut(demo_scene(width=1_200, height=800, samples=32, bounces=8), 1, 1)
        seller = await street.node("seller", "sell", "--worker", "rays", "--ask", "sat 0", chain=False)
        buyer = await street.node("buyer", "node", bootstrap=seller, chain=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(street.buy, buyer, "net.bitwrk/rays/1", endless)
            await street.until(seller, "workers", lambda workers: [one for one in workers if one["busy"]])
            process = seller.program.process
            assert process is not None
            process.send_signal(signal.SIGTERM)
            await street.until(seller, "status", lambda status: status["draining"])
            process.send_signal(signal.SIGTERM)
            assert await trio.to_thread.run_sync(process.wait) == 0
            nursery.cancel_scope.cancel()


async def test_a_seller_killed_in_the_middle_of_thirty_units_comes_back_and_all_of_them_end(tmp_path: Path) -> None:
    works = cut(demo_scene(width=240, height=150, samples=4, bounces=4), 6, 5)
    assert len(works) == 30
    async with open_street(tmp_path) as street:
        await street.chain()
        seller = await street.node("seller", "sell", "--worker", "rays", "--ask", "uBTC 26", "--slots", "2")
        buyer = await street.node("buyer", "node", bootstrap=seller)
        await paid_street(street, seller, buyer=buyer)
        answers: list[httpx.Response] = []

        async def buy() -> None:
            answers.extend(await buy_all(street, buyer, works))

        async with trio.open_nursery() as job:
            job.start_soon(buy)
            await street.until(
                buyer,
                "trades",
                lambda trades: sum(one["phase"] == "finished" for one in trades) >= 8 and working_with(seller, trades),
            )
            seller.program.kill()
            (seller.home / "api.json").unlink(missing_ok=True)
            seller.program.arguments = (*seller.program.arguments, "--bootstrap", buyer.address)
            seller.program.start()
            await seller.ready(street.client)
        assert len(answers) == len(works)
        assert [answer.text[:200] for answer in answers if answer.status_code != 200] == []
        await close_all(street, buyer, seller)
        earned, wrong = await audit(street, buyer, seller)
        assert wrong == []
        assert earned[seller.account][0] >= 30
        spent = sum(one["price_msat"] for one in await buyer.get(street.client, "trades") if one["phase"] == "finished")
        assert earned[seller.account][1] == spent
        live = [one for one in await seller.get(street.client, "trades") if one["phase"] in BUSY]
        assert live == []
        assert (seller.home / "journal.sqlite").stat().st_size > 0
