"""``python -m tests.thousand [--units N]``: two ordinary nodes, a development chain, and N units of tiny work through one escrow.

The buyer asks for everything before there is a seller, so that one channel is made for all of it. Afterwards the chain, both
wallets and both journals are read back: two transactions, every satoshi in its place, and evidence of every unit on both
sides. Prints what was found; fails when something is not as it must be.
"""

import argparse
import resource
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx
import trio

from escrow.core.transaction import parse
from peer.core.batches import BATCH_TABLE, HeldBatch
from peer.core.bundle import Bundle, NotProven, check, check_log, proves_bad_result
from peer.core.logbook import RECEIPT_TABLE
from peer.demo.cluster import Node
from peer.demo.receipts import Auditor, channels_of, money_conserved
from peer.journal import read_rows
from tests.e2e.street import Street, open_street
from wire.canon import unpack
from wire.network import REGTEST

ARTICLE: Final = "foobar"
PRICE_SAT: Final = 450
POCKET_SAT: Final = 5_000_000
SLOTS: Final = 64
GROUP: Final = 50  # connections opened at once
OPEN_FILES: Final = 8_192
WAIT_S: Final = 900


async def buy(street: Street, buyer: Node, units: int) -> tuple[Node, float, list[str]]:
    """Ask for everything, then let the seller come: he, the seconds from then to the last result, and what went wrong."""
    base, headers = buyer.reach()
    parameters = {"price": f"sat {PRICE_SAT}", "wait": str(WAIT_S)}
    wrong: list[str] = []
    limits = httpx.Limits(max_connections=2 * units + 16, max_keepalive_connections=16)

    async def one(client: httpx.AsyncClient, number: int) -> None:
        work = b"work %d" % number
        answer = await client.post(
            f"{base}/buy/{ARTICLE}", content=work, params=parameters, headers=headers, follow_redirects=True
        )
        if answer.status_code != httpx.codes.OK or work not in answer.content:
            wrong.append(f"unit {number}: {answer.status_code} {answer.text[:200]}")

    async with httpx.AsyncClient(timeout=WAIT_S, limits=limits) as client:
        async with trio.open_nursery() as nursery:
            for number in range(units):
                nursery.start_soon(one, client, number)
                if number % GROUP == GROUP - 1 or number == units - 1:
                    await street.until(buyer, "status", partial(waits_for, number + 1))
            selling = ("sell", "--worker", "echo", "--article", ARTICLE, "--ask", f"sat {PRICE_SAT}", "--slots", str(SLOTS))
            seller = await street.node("seller", *selling, bootstrap=buyer)
            began = time.monotonic()
    return seller, time.monotonic() - began, wrong


def waits_for(requests: int, status: Any) -> bool:
    """Whether so many requests wait at a node."""
    return int(status["requests_waiting"]) >= requests


async def settle(street: Street, buyer: Node, seller: Node, units: int) -> list[str]:
    """Close the channel and read everything back: prints it, and returns what is not as it must be."""
    await buyer.close_channels(street.client, "everything is bought")
    done = ("closed", "buried")
    for node in (buyer, seller):
        await street.until(node, "channels", lambda lines: lines and all(line["phase"] in done for line in lines))
    cost_sat = units * PRICE_SAT
    auditor = Auditor(street.cluster.chain, street.client)
    await auditor.read_chain()
    journals = [node.home / "journal.sqlite" for node in (buyer, seller)]
    escrows = [one for row in channels_of(journals[0]) if (one := auditor.escrow(REGTEST.name, row)) is not None]
    wrong = money_conserved(REGTEST.name, escrows, journals[0], {seller.account: journals[1]})
    if len(escrows) != 1:
        return [*wrong, f"{len(escrows)} escrows were made, not one"]
    (escrow,) = escrows
    (row,) = channels_of(journals[0])
    funding = parse(row.funding_raw)
    _, funding_fee_sat = await _fee(street, escrow.funding_txid)
    earned = await street.until(seller, "account", lambda account: account["balance_sat"] == escrow.to_seller_sat and account)
    left_sat = POCKET_SAT - cost_sat - funding_fee_sat - escrow.fees_sat
    kept = await street.until(buyer, "account", lambda account: account["balance_sat"] == left_sat and account)
    for what, found, right in (
        ("the escrow paid the seller", escrow.to_seller_sat, cost_sat),
        ("the buyer's journal says he paid", row.paid_msat, 1_000 * cost_sat),
        ("the seller has", earned["balance_sat"], cost_sat),
        ("the buyer has", kept["balance_sat"], left_sat),
        ("outputs of the funding that are the escrow", funding.outputs.count(funding.outputs[0]), 1),
    ):
        if found != right:
            wrong.append(f"{what} {found}, not {right}")
    fees_sat = funding_fee_sat + escrow.fees_sat
    batches = [unpack(HeldBatch, raw) for raw in read_rows(journals[0], BATCH_TABLE).values()]
    payments = row.last.sequence if row.last else 0
    print(f"two transactions: {escrow.funding_txid} in block {escrow.funding_height}")
    print(f"                  {escrow.close_txid} in block {escrow.close_height}")
    print(f"{escrow.to_seller_sat} sat to the seller, {kept['balance_sat']} of {POCKET_SAT} left to the buyer")
    print(f"fees {funding_fee_sat} + {escrow.fees_sat} sat, {100 * fees_sat / cost_sat:.3f} % of what was bought")
    print(f"{payments} payments, {len(batches)} of them for several units under one key, at most", end=" ")
    print(max((len(one.body.units) for one in batches), default=1))
    return [
        *wrong,
        *(said for journal in journals for said in proven(journal, sum(len(one.body.units) for one in batches), units)),
    ]


def proven(journal: Path, batched: int, units: int) -> list[str]:
    """Check the evidence in a journal; returns what is not as it must be."""
    bundles = [Bundle.read(raw) for raw in read_rows(journal, RECEIPT_TABLE).values()]
    try:
        bad = sum(check(one) != () and proves_bad_result(one) for one in bundles)
        for deal in {one.offer.deal for one in bundles}:
            check_log([one for one in bundles if one.offer.deal == deal])
    except NotProven as error:
        return [f"evidence of {journal.parent.name} does not hold: {error.code}, {error.sentence}"]
    together = sum(one.batch is not None for one in bundles)
    print(f"{len(bundles)} units proven by {journal.parent.name}, {together} of them paid with others")
    if (len(bundles), together, bad) != (units, batched, 0):
        return [f"{journal.parent.name} has evidence of {len(bundles)} units, {together} in batches, {bad} of them bad"]
    return []


async def _fee(street: Street, txid: str) -> tuple[int, int]:
    """What a transaction pays out, and its fee, in satoshi."""
    spending = parse(bytes.fromhex(await street.rpc("getrawtransaction", txid)))
    value_in = 0
    for one in spending.inputs:
        source = parse(bytes.fromhex(await street.rpc("getrawtransaction", one.outpoint.txid[::-1].hex())))
        value_in += source.outputs[one.outpoint.vout].value_sat
    value_out = sum(one.value_sat for one in spending.outputs)
    return value_out, value_in - value_out


async def main(units: int) -> int:
    """Run it; returns the exit code."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, OPEN_FILES)), hard))
    with tempfile.TemporaryDirectory() as folder:
        async with open_street(Path(folder)) as street:
            await street.chain()
            buyer = await street.node("buyer", "node")
            status = await buyer.get(street.client, "status")
            await street.rpc("devfaucet", status["address"], POCKET_SAT)
            await street.until(buyer, "account", lambda account: account["balance_sat"] == POCKET_SAT)
            seller, took_s, wrong = await buy(street, buyer, units)
            wrong += await settle(street, buyer, seller, units)
    print(f"{units} units in {took_s:.1f} s, {units / took_s:.0f} a second")
    for one in wrong:
        print(f"wrong: {one}")
    return 1 if wrong else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Units between two processes through one escrow.")
    parser.add_argument("--units", type=int, default=1_000)
    sys.exit(trio.run(main, parser.parse_args().units))
