"""Paid work between processes, and what becomes of the money when a seller dies for good."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from peer.config import DemoOptions
from peer.core.bundle import Bundle
from peer.core.logbook import RECEIPT_TABLE
from peer.demo.cluster import Node
from peer.demo.receipts import Auditor, channels_of, money_conserved
from peer.demo.run import make_demo
from peer.workers.rays.demo import demo_scene
from peer.workers.rays.tiles import cut
from tests.e2e.street import Street, open_street
from wire.canon import unpack
from wire.network import REGTEST

pytestmark = pytest.mark.e2e

RAYS = "net.bitwrk/rays/1"


async def test_the_demonstration_with_a_seller_killed_in_the_middle(tmp_path: Path) -> None:
    out = tmp_path / "out"
    await make_demo(DemoOptions(sellers=2, tiles=24, kill_one=True, check=False, out=out))
    receipts = json.loads((out / "receipts.json").read_text())
    assert receipts["tiles"] == 24
    assert receipts["picture_matches_local_render"]
    assert receipts["money_conserved"]
    assert (out / "picture.png").stat().st_size > 10_000
    for escrow in receipts["escrows"]:
        assert escrow["close_height"] > escrow["funding_height"]
        assert escrow["to_seller_sat"] + escrow["to_buyer_sat"] + escrow["fees_sat"] == escrow["capacity_sat"]
    assert sum(one["tiles"] for one in receipts["sellers"]) >= 24


async def test_a_seller_who_never_comes_back_leaves_the_buyer_his_refund(tmp_path: Path) -> None:
    works = cut(demo_scene(width=60, height=40, samples=1, bounces=2), 2, 1)
    async with open_street(tmp_path) as street:
        await street.chain()
        seller = await street.node("seller", "sell", "--worker", "rays", "--ask", "uBTC 26")
        buyer = await street.node("buyer", "node", bootstrap=seller)
        status = await buyer.get(street.client, "status")
        await street.rpc("devfaucet", status["address"], 5_000_000)
        await street.until(buyer, "account", lambda account: account["balance_sat"] == 5_000_000)
        answer = await street.buy(buyer, RAYS, works[0], price="uBTC 340")
        assert answer.status_code == 200
        await the_evidence_holds(street, buyer, seller, tmp_path)
        seller.program.kill()
        (channel,) = await buyer.get(street.client, "channels")
        height = await street.rpc("getblockcount")
        await street.rpc("generatetoaddress", channel["refund_height"] - height, status["address"])
        await street.until(
            buyer,
            "channels",
            lambda channels: channels[0]["ending"] == "refunded" and channels[0]["phase"] in ("closed", "buried"),
        )
        auditor = Auditor(street.cluster.chain, street.client)
        await auditor.read_chain()
        (row,) = channels_of(buyer.home / "journal.sqlite")
        escrow = auditor.escrow(REGTEST.name, row)
        assert escrow is not None
        assert escrow.to_seller_sat == 0
        assert escrow.to_buyer_sat + escrow.fees_sat == escrow.capacity_sat
        assert escrow.close_height is not None
        assert escrow.close_height > channel["refund_height"] - 1
        assert money_conserved(REGTEST.name, [escrow], buyer.home / "journal.sqlite", {}) == []


async def the_evidence_holds(street: Street, buyer: Node, seller: Node, folder: Path) -> None:
    """Both sides have the receipt that both signed, and a stranger verifies it from the file alone."""

    async def bitwrk(*arguments: str) -> Any:
        done = await trio.run_process([sys.executable, "-m", "peer.cli", *arguments, "--json"], capture_stdout=True)
        return json.loads(done.stdout)

    def signed(rows: dict[bytes, bytes]) -> bool:
        lines = [unpack(Bundle, raw).receipt for raw in rows.values()]
        return bool(lines) and all(one is not None and one.seller_signature is not None for one in lines)

    await street.kept(buyer, RECEIPT_TABLE, signed)
    ours = await bitwrk("receipts", "list", "--home", str(buyer.home))
    assert ours == await bitwrk("receipts", "list", "--home", str(seller.home))
    assert [one["state"] for one in ours] == ["signed by both"]
    (written,) = await bitwrk(
        "receipts", "export", ours[0]["id"], "--ciphertext", "--out", str(folder), "--home", str(buyer.home)
    )
    shown = await bitwrk("receipts", "verify", written["file"], "--at-chain", street.cluster.chain.url)
    assert [one["step"] for one in shown] == [
        "match",
        "book",
        "offer",
        "key",
        "channel",
        "payment",
        "receipt",
        "content",
        "chain",
    ]


async def test_no_money_is_a_402(tmp_path: Path) -> None:
    async with open_street(tmp_path) as street:
        await street.chain()
        seller = await street.node("seller", "sell", "--worker", "echo", "--ask", "uBTC 26")
        buyer = await street.node("buyer", "node", bootstrap=seller)
        answer = await street.buy(buyer, "foobar", b"work", price="uBTC 340")
        assert (answer.status_code, answer.headers["x-bitwrk-error"]) == (402, "no-funds")
        assert await street.rpc("getblockcount") > 0
        await trio.lowlevel.checkpoint()
