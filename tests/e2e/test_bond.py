"""A bond between real processes: locked, told to whom its account trades with, and taken back to the satoshi."""

from pathlib import Path

import pytest

from escrow.core.amounts import fee_sat
from escrow.core.bond import RELEASE_VBYTES
from escrow.core.transaction import parse
from tests.e2e.street import open_street
from tests.e2e.test_arbiter import bitwrk, to_height

pytestmark = pytest.mark.e2e

VALUE, BLOCKS = 1_000_000, 20


async def test_a_bond_is_locked_seen_by_a_buyer_and_released(tmp_path: Path) -> None:
    async with open_street(tmp_path) as street:
        await street.chain()
        seller = await street.node("seller", "sell", "--worker", "echo", "--ask", "sat 0")
        address = (await seller.get(street.client, "status"))["address"]
        await street.rpc("devfaucet", address, 5_000_000)
        await street.until(seller, "account", lambda account: account["balance_sat"] == 5_000_000)
        made = await bitwrk(seller, "bond", "lock", f"sat {VALUE}", "--blocks", str(BLOCKS))
        (bond,) = await street.until(seller, "bonds", lambda bonds: bonds if bonds[0]["extra_sat"] else None)
        assert (bond["bond"], bond["phase"], bond["value_sat"]) == (made["bond"], "locked", VALUE)
        early = await bitwrk(seller, "bond", "release", made["bond"][:8], code=1)
        assert f"locked until block {made['until_height']}" in early

        buyer = await street.node("buyer", "node", bootstrap=seller)
        answer = await street.buy(buyer, "foobar", b"some work")
        assert answer.status_code == 200, answer.text
        (seen,) = await street.until(buyer, "bonds", lambda bonds: bonds if bonds and bonds[0]["phase"] == "seen" else None)
        assert (seen["account"], seen["txid"], seen["value_sat"]) == (seller.account, bond["txid"], VALUE)
        assert seen["extra_sat"] > 0

        # Blocks pay somebody else, so that the balance tells what became of the bond.
        elsewhere = (await buyer.get(street.client, "status"))["address"]
        before = (await seller.get(street.client, "account"))["balance_sat"]
        await to_height(street, made["until_height"], elsewhere)
        await street.until(buyer, "bonds", lambda bonds: bonds == [])
        await street.until(seller, "bonds", lambda bonds: bonds[0]["extra_sat"] == 0)
        await bitwrk(seller, "bond", "release", made["bond"])
        await street.until(seller, "bonds", lambda bonds: bonds[0]["phase"] == "released")
        fee = fee_sat(RELEASE_VBYTES, 1_000)
        await street.until(seller, "account", lambda account: account["balance_sat"] == before + VALUE - fee)
        funding = parse(bytes.fromhex(await street.rpc("getrawtransaction", bond["txid"])))
        assert funding.outputs[bond["vout"]].value_sat == VALUE
