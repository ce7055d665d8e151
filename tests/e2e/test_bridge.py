"""A node started with --gossipsub: a stranger on another stack hears what it buys."""

from pathlib import Path

import pytest
import trio

from orderbook.core.bridge import open_batch, topic_of
from orderbook.core.messages import Order, Side, read
from tests.e2e.street import open_street
from tests.net.rig import key
from tests.net.stranger import stranger
from wire.account import account_of
from wire.network import REGTEST

pytestmark = pytest.mark.e2e


async def test_a_stranger_hears_the_order_of_a_node_with_a_bridge(tmp_path: Path) -> None:
    async with open_street(tmp_path) as street, stranger(key(90), topic_of(REGTEST)) as one:
        buyer = await street.node("buyer", "node", "--gossipsub", chain=False)
        await one.dial(buyer.address)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(street.buy, buyer, "nobody-sells-this", b"work")
            await one.until_heard(1)
            (message,) = open_batch(one.heard[0].data)
            order = read(REGTEST, message).body
            assert isinstance(order, Order)
            assert (order.side, order.price_msat, order.quantity) == (Side.BUY, 0, 1)
            assert account_of(order.owner) == buyer.account
            nursery.cancel_scope.cancel()
