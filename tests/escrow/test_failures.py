"""The straight path and every row of the failure table in docs/spec/escrow.md, on the real chain."""

from collections.abc import Callable

import pytest

from escrow.core.events import How, Phase, Ready, Revealed
from tests.escrow.pair import Pair

Make = Callable[..., Pair]


@pytest.mark.parametrize("arbiter", [False, True])
def test_straight_path(pair: Make, arbiter: bool) -> None:
    extra = {"arbiter": b"\x02" + b"\x79" * 0 + bytes.fromhex("79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")}
    world = pair(**(extra if arbiter else {})).ready()
    assert world.buyer.of(Ready) and world.seller.of(Ready)
    for number in range(3):
        world.pay(number)
    assert [one.ref for one in world.buyer.of(Revealed)] == [b"unit 0", b"unit 1", b"unit 2"]
    world.close(world.buyer).mine()
    end = world.check_end()
    assert end.how is How.SETTLED
    assert end.to_seller_sat == 3 * 2_600_500 // 1_000
    assert world.buyer.machine.phase is world.seller.machine.phase is Phase.CLOSED
    world.mine(world.network.margin_blocks)
    assert world.buyer.machine.phase is world.seller.machine.phase is Phase.BURIED
    assert not world.buyer.watched and not world.seller.watched and not world.rejected
