"""Two nodes trade; both know the price afterwards, tell it on every face, and still know it after a restart."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from peer.demo.cluster import Node
from tests.e2e.street import Street, open_street

pytestmark = pytest.mark.e2e

ASK, MIDDLE = 2_600_000, 18_300_000  # one buyer at uBTC 340, one seller: half way


async def bitwrk(node: Node, *arguments: str) -> str:
    line = [sys.executable, "-m", "peer.cli", *arguments, "--home", str(node.home)]
    return (await trio.run_process(line, capture_stdout=True)).stdout.decode()


async def paid(street: Street, node: Node) -> Any:
    return next(line for line in await node.get(street.client, "articles") if line["article"] == "foobar" and not line["free"])


async def test_the_price_of_a_trade_is_seen_on_both_sides_and_kept(tmp_path: Path) -> None:
    async with open_street(tmp_path) as street:
        await street.chain()
        seller = await street.node("seller", "sell", "--worker", "echo", "--article", "foobar", "--ask", "uBTC 26")
        buyer = await street.node("buyer", "node", bootstrap=seller)
        status = await buyer.get(street.client, "status")
        assert status["history_fault"] is None
        await street.rpc("devfaucet", status["address"], 5_000_000)
        await street.until(buyer, "account", lambda account: account["balance_sat"] == 5_000_000)
        assert (await street.buy(buyer, "foobar", b"work", price="uBTC 340")).content == b"work"
        for node in (buyer, seller):
            line = await paid(street, node)
            assert (line["own_last_msat"], line["own_day"]["mean_msat"]) == (MIDDLE, MIDDLE)
            assert (line["last_msat"], line["day"]["mean_msat"]) == (MIDDLE, MIDDLE)
            assert line["day"]["units"] >= line["own_day"]["units"] >= 1  # a match computed in vain is tried again
            assert (line["quartiles"]["middle_msat"], line["terms"]["kind"]) == (MIDDLE, "escrow/1")
            own = await node.get(street.client, f"books/{line['book']}/prices?slot=1s&series=agreed")
            public = await node.get(street.client, f"books/{line['book']}/prices?slot=1s")
            assert own["slots"][-1] in public["slots"]
            assert own["slots"][-1]["begin_us"] == (await node.get(street.client, "trades"))[0]["epoch"] * 2_000_000
        book = (await paid(street, buyer))["book"]
        asks = await street.until(buyer, f"books/{book}/depth", lambda depth: depth["asks"]["levels"])
        assert [level["price_msat"] for level in asks] == [ASK]
        assert "uBTC 183" in await bitwrk(buyer, "articles")
        assert "uBTC 183" in await bitwrk(seller, "prices", "foobar", "--slot", "1m")
        assert json.loads(await bitwrk(buyer, "prices", "foobar", "--own", "--json"))["slots"][0]["last_msat"] == MIDDLE
        assert "uBTC 26" in await bitwrk(buyer, "orders", "depth", "foobar")
        await restarted(street, buyer)
        assert "no articles" in await bitwrk(buyer, "articles")
        await bitwrk(buyer, "articles", "follow", "foobar")
        line = await paid(street, buyer)
        assert (line["last_msat"], line["own_last_msat"], line["day"]["mean_msat"]) == (MIDDLE, MIDDLE, MIDDLE)


async def restarted(street: Street, node: Node) -> None:
    process = node.program.process
    assert process is not None
    process.terminate()
    assert await trio.to_thread.run_sync(process.wait) == 0
    node.program.start()
    await node.ready(street.client)


async def test_a_node_runs_without_history_when_its_file_is_damaged(tmp_path: Path) -> None:
    async with open_street(tmp_path) as street:
        node = await street.node("node", "node", chain=False)
        process = node.program.process
        assert process is not None
        process.terminate()
        await trio.to_thread.run_sync(process.wait)
        (node.home / "tape.sqlite").write_bytes(b"damaged" * 1_000)
        node.program.start()
        await node.ready(street.client)
        status = await node.get(street.client, "status")
        assert "tape.sqlite is damaged" in status["history_fault"]
        assert await node.get(street.client, "articles") == []
