"""The straight path and every row of the failure table in docs/spec/escrow.md, on the real chain."""

from collections.abc import Callable

import pytest

from escrow.core.events import How, Phase, Ready, Revealed
from escrow.core.state import LOCK_TABLE
from tests.escrow.pair import Pair
from wire.keys import SecretKey

Make = Callable[..., Pair]


ARBITER = SecretKey(b"\x33" * 32)


@pytest.mark.parametrize("arbiter", [None, ARBITER.public])
def test_straight_path(pair: Make, arbiter: bytes | None) -> None:
    world = pair(arbiter=arbiter).ready()
    assert len(world.buyer.of(Ready)) == len(world.seller.of(Ready)) == 1
    for number in range(3):
        world.pay(number)
    assert [one.ref for one in world.buyer.of(Revealed)] == [b"unit 0", b"unit 1", b"unit 2"]
    world.close(world.buyer).mine()
    end = world.check_end()
    assert end.how is How.SETTLED
    assert end.to_seller_sat == 3 * 2_600_500 // 1_000
    assert phases(world) == (Phase.CLOSED, Phase.CLOSED)
    world.mine(world.network.margin_blocks)
    assert phases(world) == (Phase.BURIED, Phase.BURIED)
    assert (world.buyer.watched, world.seller.watched, world.rejected) == ({}, {}, [])
    assert world.buyer.rows[LOCK_TABLE] == {}


def phases(world: Pair) -> tuple[Phase, Phase]:
    return world.buyer.machine.phase, world.seller.machine.phase
