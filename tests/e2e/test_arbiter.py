"""Buyer, seller and arbiter as three processes on one chain: the seller goes, the arbiter rules, and the money adds up."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from escrow.core.amounts import RULING_VBYTES, fee_sat
from peer.demo.cluster import Node
from peer.demo.receipts import Auditor, channels_of
from peer.home import Home
from tests.e2e.street import Street, open_street
from wire.keys import show_peer
from wire.network import REGTEST

pytestmark = pytest.mark.e2e

PRICE_SAT = 2_600


async def bitwrk(node: Node, *arguments: str, code: int = 0) -> Any:
    done = await trio.run_process(
        [sys.executable, "-m", "peer.cli", *arguments, "--home", str(node.home), "--json"],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    assert done.returncode == code, done.stderr.decode()
    return json.loads(done.stdout) if code == 0 else done.stderr.decode()


async def to_height(street: Street, height: int, address: str) -> None:
    now = await street.rpc("getblockcount")
    if height > now:
        await street.rpc("generatetoaddress", height - now, address)


async def test_a_seller_vanishes_and_the_arbiter_divides_the_money(tmp_path: Path) -> None:
    ruler = show_peer(Home.at(tmp_path / "arbiter").key().peer_id)
    for name in ("buyer", "seller"):
        (Home.at(tmp_path / name).folder / "config.toml").write_text(f'arbiters = ["{ruler}"]\n')
    async with open_street(tmp_path) as street:
        await street.chain()
        arbiter = await street.node("arbiter", "arbiter")
        seller = await street.node("seller", "sell", "--worker", "echo", "--ask", f"sat {PRICE_SAT}", bootstrap=arbiter)
        buyer = await street.node("buyer", "node", bootstrap=arbiter)
        address = (await buyer.get(street.client, "status"))["address"]
        await street.rpc("devfaucet", address, 5_000_000)
        await street.until(buyer, "account", lambda account: account["balance_sat"] == 5_000_000)
        answer = await street.buy(buyer, "foobar", b"some work", price=f"sat {PRICE_SAT}")
        assert answer.status_code == 200, answer.text
        seller.program.kill()
        (channel,) = await buyer.get(street.client, "channels")
        assert channel["arbiter"] == ruler
        await bitwrk(buyer, "appeal", channel["channel"][:12], "--statement", "the seller is gone")
        await street.until(arbiter, "cases", lambda cases: cases and cases[0]["phase"] == "open")
        (case,) = await bitwrk(arbiter, "arbiter", "cases")
        assert (case["case"], case["buyer_asks_sat"], case["seller_asks_sat"]) == (channel["channel"], PRICE_SAT, None)
        assert (case["buyer_says"], case["buyer_proves_sat"]) == ("the seller is gone", PRICE_SAT)
        early = await bitwrk(arbiter, "arbiter", "rule", case["case"], "--to-seller", "sat 2600", code=1)
        assert f"until block {channel['ruling_height']}" in early
        await to_height(street, channel["ruling_height"], address)
        await street.until(arbiter, "cases", lambda cases: cases[0]["ready"])
        words = ("--to-seller", f"sat {PRICE_SAT}", "--reason", "as shown")
        done = await bitwrk(arbiter, "arbiter", "rule", case["case"][:10], *words)
        fee = fee_sat(RULING_VBYTES, 1_000)
        assert (done["phase"], done["to_seller_sat"]) == ("ruled", PRICE_SAT)
        assert done["to_buyer_sat"] == channel["capacity_sat"] - PRICE_SAT - fee
        again = await bitwrk(arbiter, "arbiter", "rule", case["case"], "--split", "50", code=1)
        assert "never a second" in again
        await street.until(buyer, "channels", lambda channels: channels[0]["ending"] == "ruled")
        await street.until(arbiter, "cases", lambda cases: cases[0]["phase"] == "closed")
        await street.until(buyer, "appeals", lambda appeals: appeals[0]["phase"] == "ended")
        auditor = Auditor(street.cluster.chain, street.client)
        await auditor.read_chain()
        (row,) = channels_of(buyer.home / "journal.sqlite")
        escrow = auditor.escrow(REGTEST.name, row)
        assert escrow is not None
        assert (escrow.to_seller_sat, escrow.to_buyer_sat, escrow.fees_sat) == (PRICE_SAT, done["to_buyer_sat"], fee)
        assert escrow.adds_up
        assert escrow.close_height is not None
        assert escrow.close_height > channel["ruling_height"]
        account = await arbiter.get(street.client, "account")
        assert account["balance_sat"] == 0, "an arbiter never holds money"
