"""Buyers and sellers, real processes, who know their chain only through an Esplora server and an Electrum server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from escrow.core.script import script_of
from escrow.shell.dev_methods import call_method
from escrow.shell.kernel import KernelChain
from peer.core.logbook import RECEIPT_TABLE
from peer.demo.cluster import DevChain, Node
from peer.demo.receipts import Auditor, Escrow, channels_of, money_conserved
from tests.bdk.servers import Electrum, Esplora, serving
from tests.e2e.street import Street, open_street
from wire.network import REGTEST

pytestmark = pytest.mark.e2e

UNITS = 3
ENDED = ("closed", "buried")


class Books(DevChain):
    """The chain itself, for the audit, without any server between."""

    def __init__(self, own: KernelChain) -> None:
        self._own = own

    async def call(self, client: httpx.AsyncClient, method: str, *parameters: Any) -> Any:
        return await self._own.call(lambda chain: call_method(chain, method, list(parameters)))


class Town:
    """One chain, both servers, and a street of nodes."""

    def __init__(self, street: Street, own: KernelChain) -> None:
        self.street, self.own = street, own
        self.esplora, self.electrum = Esplora(own), Electrum(own)

    async def node(self, name: str, chain: str, *command: str, bootstrap: Node | None = None, second: str = "") -> Node:
        node = self.street.cluster.node(name, command, bootstrap.address if bootstrap else None)
        at = node.program.arguments.index("--chain")
        node.program.arguments = (*node.program.arguments[: at + 1], chain, *node.program.arguments[at + 2 :])
        if second:
            (node.home / "config.toml").write_text(f'chain_second = "{second}"\n')
        node.program.start()
        await node.ready(self.street.client)
        return node

    async def pair(self, *, compared: bool = False) -> tuple[Node, Node]:
        """A seller over Electrum and a buyer over Esplora who has money; each may compare with the other's server."""
        one, other = f"electrum:{self.electrum.url}", f"esplora:{self.esplora.url}"
        command = ("sell", "--worker", "echo", "--ask", "uBTC 26")
        seller = await self.node("seller", one, *command, second=other if compared else "")
        buyer = await self.node("buyer", other, "node", bootstrap=seller, second=one if compared else "")
        status = await buyer.get(self.street.client, "status")
        await self.own.faucet(script_of(status["address"], REGTEST.hrp), 5_000_000)
        await self.street.until(buyer, "account", lambda account: account["balance_sat"] == 5_000_000)
        return buyer, seller

    async def buy(self, buyer: Node, count: int) -> None:
        for number in range(count):
            answer = await self.street.buy(buyer, "foobar", b"work %d" % number, price="uBTC 340")
            assert answer.status_code == 200
            assert answer.content == b"work %d" % number

    async def until_ended(self, *nodes: Node) -> None:
        for node in nodes:
            await self.street.until(node, "channels", lambda channels: all(one["phase"] in ENDED for one in channels))

    async def audit(self, buyer: Node, seller: Node) -> Escrow:
        """The one escrow as the chain shows it; no satoshi is missing and no journal disagrees."""
        auditor = Auditor(Books(self.own), self.street.client)
        await auditor.read_chain()
        (row,) = channels_of(buyer.home / "journal.sqlite")
        escrow = auditor.escrow(REGTEST.name, row)
        assert escrow is not None
        sellers = {seller.account: seller.home / "journal.sqlite"}
        assert money_conserved(REGTEST.name, [escrow], buyer.home / "journal.sqlite", sellers) == []
        return escrow


@asynccontextmanager
async def town(folder: Path) -> AsyncIterator[Town]:
    async with KernelChain.open(folder / "own", REGTEST) as own, open_street(folder) as street:
        here = Town(street, own)

        async def mine_steadily() -> None:
            while True:
                await trio.sleep(1)
                await own.mine_waiting()

        async with serving(here.esplora, here.electrum), trio.open_nursery() as nursery:
            nursery.start_soon(mine_steadily)
            yield here
            nursery.cancel_scope.cancel()


async def test_units_are_bought_over_esplora_and_sold_over_electrum(tmp_path: Path) -> None:
    async with town(tmp_path) as here:
        buyer, seller = await here.pair()
        await here.buy(buyer, UNITS)
        await here.street.kept(buyer, RECEIPT_TABLE, lambda rows: len(rows) == UNITS)
        await seller.close_channels(here.street.client, "finished")
        await here.until_ended(buyer, seller)
        escrow = await here.audit(buyer, seller)
        assert escrow.to_seller_sat > UNITS * 2_600 - escrow.fees_sat
        await here.street.until(seller, "account", lambda account: account["balance_sat"] == escrow.to_seller_sat)
        assert [one["ending"] for one in await buyer.get(here.street.client, "channels")] == ["settled"]


async def test_two_servers_are_compared_and_one_of_them_is_away_for_a_while(tmp_path: Path) -> None:
    async with town(tmp_path) as here, trio.open_nursery() as nursery:
        buyer, seller = await here.pair(compared=True)
        await here.buy(buyer, 1)
        here.esplora.vanish()
        await seller.close_channels(here.street.client, "finished")
        await here.street.until(buyer, "status", lambda status: status["chain_fault"])
        await here.esplora.open(nursery)
        await here.until_ended(buyer, seller)
        assert (await here.audit(buyer, seller)).to_seller_sat > 0
        nursery.cancel_scope.cancel()


async def test_a_seller_who_never_comes_back_leaves_the_buyer_his_refund(tmp_path: Path) -> None:
    async with town(tmp_path) as here:
        buyer, seller = await here.pair()
        await here.buy(buyer, 1)
        seller.program.kill()
        (channel,) = await buyer.get(here.street.client, "channels")
        await here.own.mine(channel["refund_height"] - (await here.own.tip()).height)
        await here.until_ended(buyer)
        (ended,) = await buyer.get(here.street.client, "channels")
        assert ended["ending"] == "refunded"
        auditor = Auditor(Books(here.own), here.street.client)
        await auditor.read_chain()
        (row,) = channels_of(buyer.home / "journal.sqlite")
        escrow = auditor.escrow(REGTEST.name, row)
        assert escrow is not None
        assert escrow.to_seller_sat == 0
        assert escrow.adds_up
