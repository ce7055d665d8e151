"""The wallet's commands before a running node; and a buyer who lost his disk, helped by the seller."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from escrow.core.script import address_of, p2wpkh
from peer.home import Home
from peer.workers.rays.demo import demo_scene
from peer.workers.rays.tiles import cut
from tests.e2e.street import Street, open_street
from wire.keys import SecretKey

pytestmark = pytest.mark.e2e

RAYS = "net.bitwrk/rays/1"
OUTSIDE = address_of(p2wpkh(SecretKey(b"\x77" * 32).public), "bcrt")
GIVEN_SAT = 5_000_000


async def command(*words: str) -> tuple[int, str, str]:
    done = await trio.run_process(
        [sys.executable, "-m", "peer.cli", *words], capture_stdout=True, capture_stderr=True, check=False
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


async def told(*words: str) -> Any:
    code, out, err = await command(*words, "--json")
    assert code == 0, err
    return json.loads(out)


async def bought(street: Street) -> tuple[Any, Any]:
    """A seller and a buyer with a channel through which one unit was paid."""
    (work,) = cut(demo_scene(width=60, height=40, samples=1, bounces=2), 1, 1)
    await street.chain()
    seller = await street.node("seller", "sell", "--worker", "rays", "--ask", "uBTC 26")
    buyer = await street.node("buyer", "node", bootstrap=seller)
    status = await buyer.get(street.client, "status")
    await street.rpc("devfaucet", status["address"], GIVEN_SAT)
    await street.until(buyer, "account", lambda account: account["balance_sat"] == GIVEN_SAT)
    assert (await street.buy(buyer, RAYS, work, price="uBTC 340")).status_code == 200
    return seller, buyer


async def outside(street: Street) -> int:
    found = await street.rpc("scantxoutset", "start", [f"addr({OUTSIDE})"])
    return int(found["total_amount"] * 100_000_000 + 0.5)


async def test_an_owner_pays_looks_and_withdraws_everything(tmp_path: Path) -> None:
    async with open_street(tmp_path) as street:
        seller, buyer = await bought(street)
        home = ("--home", str(buyer.home))
        (channel,) = await buyer.get(street.client, "channels")
        paid = channel["paid_msat"] // 1_000
        held = await told("wallet", "balance", *home)
        assert (held["network"], held["money"]) == ("regtest", "play")
        assert (held["in_channels_sat"], held["paid_in_channels_sat"]) == (channel["capacity_sat"], paid)
        earned = await told("wallet", "balance", "--home", str(seller.home))
        assert (earned["earned_in_channels_sat"], earned["in_channels_sat"]) == (paid, 0)

        code, out, _ = await command("wallet", "address", *home)
        assert code == 0
        assert held["address"] in out
        assert "play money" in out
        code, plain, _ = await command("wallet", "address", "--plain", *home)
        assert len(plain.splitlines()) == 1

        # Twice the same request is one payment; nothing is paid without a yes.
        pay = ("wallet", "send", OUTSIDE, "sat 25000", "--request", "rent", *home)
        code, _, err = await command(*pay)
        assert (code, "nothing was paid" in err or "Aborted" in err) == (1, True)
        first, again = await told(*pay, "--yes"), await told(*pay, "--yes")
        assert first["txid"] == again["txid"]
        assert first["seen"]
        code, _, err = await command("wallet", "send", OUTSIDE, "sat 25001", "--request", "rent", "--yes", *home)
        assert code == 1
        assert "another payment" in err
        foreign = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"
        for bad, why in (((foreign, "sat 9000"), "this network"), ((OUTSIDE, "sat 100"), "relay")):
            code, _, err = await command("wallet", "send", *bad, "--yes", *home)
            assert code == 1
            assert why in err

        (export,) = await told("wallet", "export-escrow", channel["channel"][:8], *home)
        assert export["txid"] == channel["funding_txid"]
        assert f"after({channel['refund_height']})" in export["refund"]["descriptor"]
        assert export["refund"]["wif"] in export["refund"]["descriptor"]
        assert len(export["lapses"]) == 1
        (other,) = await told("wallet", "export-escrow", "--home", str(seller.home))
        assert other["descriptor"] == export["descriptor"]
        assert [sorted(one) for one in other["closes"]] == [["descriptor", "how", "preimage", "raw"]]

        sent = await told("wallet", "withdraw", OUTSIDE, "--close", "--yes", *home)
        await street.rpc("generatetoaddress", 1, "")
        assert await outside(street) == 25_000 + sent["value_sat"]
        assert (await told("wallet", "balance", *home))["spendable_sat"] == 0
        story = (await told("wallet", "history", *home))["entries"]
        kinds = [one["kind"] for one in story]
        assert sorted(kinds) == ["channel closed", "channel funded", "received", "sent", "sent"]
        fees = sum(one["fee_sat"] for one in story if one["fee_sat"] is not None)
        assert sum(one["change_sat"] for one in story) == 0
        assert await outside(street) + paid + 192 + fees == GIVEN_SAT
        code, out, _ = await command("wallet", "history", *home)
        assert code == 0
        assert out.count("play money") == 5
        code, out, _ = await command("wallet", "fee", *home)
        assert code == 0
        assert "1 sat per virtual byte" in out


async def test_a_seller_helps_a_buyer_who_lost_his_disk(tmp_path: Path) -> None:
    async with open_street(tmp_path) as street:
        seller, buyer = await bought(street)
        (channel,) = await buyer.get(street.client, "channels")
        paid = channel["paid_msat"] // 1_000
        key = Home(buyer.home).export()
        buyer.program.kill()
        shutil.rmtree(buyer.home)
        again = street.cluster.node("again", ("node",), seller.address)
        shutil.rmtree(again.home)
        Home.at(again.home).import_key(key)
        again.program.start()
        await again.ready(street.client)
        await street.until(again, "peers", lambda peers: peers)
        assert await again.get(street.client, "channels") == []
        asked = await told("wallet", "recall", "--home", str(again.home))
        assert len(asked["asked"]) == 1
        (end,) = await street.until(
            again, "channels", lambda found: [one for one in found if one["phase"] in ("closed", "buried")]
        )
        assert (end["ending"], end["to_seller_sat"]) == ("settled", paid)
        held = await street.until(again, "wallet", lambda found: found if found["in_channels_sat"] == 0 else None)
        assert 204 - 4 <= GIVEN_SAT - paid - 192 - held["spendable_sat"] <= 204
