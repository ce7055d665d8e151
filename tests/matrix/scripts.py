"""Whole lives of a channel as scripts that go on whatever dies in between, and the judge at their end.

The scripts ask again for what is not there yet, as the deals of a node do. The judge believes the chain alone: he follows the
funding output to its end and adds up, and only then compares that with what the two sides say.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Final

from escrow.core.amounts import CLAIM_VBYTES, fee_sat
from escrow.core.events import Closed, How, Phase, Revealed
from escrow.core.script import p2wpkh
from escrow.core.spends import complete, state
from escrow.core.transaction import Tx, parse
from escrow.shell.regtest import Regtest
from tests.escrow.pair import BUYER, SELLER, Pair
from wire.keys import SecretKey
from wire.limits import CHANNEL_CLOSE_WAIT_S
from wire.ports import OutPoint

UNIT_MSAT: Final = 2_600_500
ARBITER: Final = SecretKey(b"\x33" * 32)
REPEAT_S: Final = 11
QUIET_S: Final = 61


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reorg:
    """After ``step`` is ``depth`` blocks deep those blocks are replaced. What they held waits again, unless it is ``forgotten``;
    with ``parent`` the new branch holds the first transaction of them."""

    step: str
    depth: int
    forgotten: bool = False
    parent: bool = False


class World(Pair):
    """A pair whose blocks come under a name, so that a reorganisation can strike exactly there."""

    reorg: Reorg | None = None
    struck = False

    def confirm(self, step: str) -> None:
        """The next block holds what waits; then perhaps it does not."""
        waiting = self.chain.mempool_ids()
        first = self.chain.transaction(waiting[0]) if waiting else None
        self.mine()
        reorg = self.reorg
        if reorg is None or reorg.step != step:
            return
        self.struck = True
        self.mine(reorg.depth - 1)
        body = (parse(first.raw),) if reorg.parent and first is not None else ()
        self.reorganise(reorg.depth, body)
        if reorg.forgotten:
            self.lose_mempool()
        self.wait(QUIET_S).mine(2)

    def pay_until_revealed(self, *numbers: int) -> None:
        """Ask for these payments, and again for those whose key is not there."""
        for _ in range(3):
            known = {one.ref for one in self.buyer.of(Revealed)}
            for number in numbers:
                if b"unit %d" % number not in known:
                    self.pay(number)
            if {b"unit %d" % number for number in numbers} <= {one.ref for one in self.buyer.of(Revealed)}:
                return
            self.wait(REPEAT_S)

    def close_until_closing(self, party: Any) -> None:
        """Ask for the close, and again if a kill swallowed it."""
        self.close(party).wait(REPEAT_S)
        if not party.machine.row.closing:
            self.close(party).wait(REPEAT_S)


def opened(world: World) -> None:
    """Offered, agreed, funded and confirmed."""
    world.open().run()
    if world.buyer.channel is None:
        world.open().run()
    world.wait(REPEAT_S)
    world.confirm("funding")
    world.wait(REPEAT_S)


def settle(world: World) -> None:
    """Three units, then the buyer closes."""
    opened(world)
    world.pay_until_revealed(0, 1, 2)
    world.close_until_closing(world.buyer)
    world.confirm("close")


def seller_closes(world: World) -> None:
    """Three units asked for at once, then the seller wants to go."""
    opened(world)
    for number in range(3):
        world.pay(number)
    world.pay_until_revealed(0, 1, 2)
    world.close_until_closing(world.seller)
    world.confirm("close")


def claim(world: World) -> None:
    """The buyer is gone after the last key: the seller closes with the locked state and claims it."""
    opened(world)
    world.pay_until_revealed(0, 1, 2)
    world.buyer.alive = False
    world.close(world.seller).wait(CHANNEL_CLOSE_WAIT_S + 1)
    if not world.seller.machine.row.closing:
        world.close(world.seller)
    world.wait(REPEAT_S)
    world.confirm("claim")
    world.buyer.alive = True
    world.restart(world.buyer)
    world.run()


def withheld(world: World) -> None:
    """The seller takes a payment and gives no key; he closes with what he has earned before."""
    opened(world)
    world.pay_until_revealed(0)
    world.seller.reveals = False
    world.pay(1).wait(REPEAT_S)
    world.close(world.seller).wait(CHANNEL_CLOSE_WAIT_S + 1)
    if not world.seller.machine.row.closing:
        world.close(world.seller)
    world.wait(REPEAT_S)
    world.confirm("close")


def lapse(world: World) -> None:
    """The seller publishes a locked state whose key he keeps; after the delay the buyer takes all of it."""
    opened(world)
    world.pay_until_revealed(0)
    world.seller.reveals = False
    for _ in range(3):
        last = world.seller.machine.row.last
        if last is not None and last.ref == b"unit 1":
            break
        world.pay(1).wait(REPEAT_S)
    world.seller.alive = False
    world.chain.submit(locked_state(world).serialise())
    world.run()
    world.confirm("close")
    spent = world.chain.outpoint(world.seller.machine.funding)
    if spent is not None and spent.spent_by is None:  # reorganised away and forgotten; he publishes it once more
        world.chain.submit(locked_state(world).serialise())
        world.run().mine()
    delay = world.network.claim_delay_blocks
    world.mine(delay)
    world.wait(REPEAT_S)
    world.confirm("lapse")


def locked_state(world: World) -> Tx:
    """The last locked state, completed by the seller, who should not."""
    machine = world.seller.machine
    last = machine.row.last
    unsigned = state(machine.contract, machine.funding, last.paid_msat, last.lock)
    return complete(machine.contract, unsigned, last.signature, machine._coop)


def refund(world: World) -> None:
    """The seller is gone for good: from the refund height on everything goes back."""
    opened(world)
    world.pay_until_revealed(0)
    world.seller.alive = False
    world.pay(1)
    world.mine_to(world.terms.refund_height)
    world.wait(REPEAT_S)
    world.confirm("refund")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """A script, the units whose keys the buyer must have at the end, the ways it may end, and the steps it takes on the chain.

    ``served``: whether the seller is there and honest all the time, so that his bound holds.
    """

    play: Callable[[World], None]
    keys: int
    ends: frozenset[How]
    steps: tuple[str, ...]
    served: bool = True
    arbiter: bool = False


SCRIPTS: Final = {
    "settle": Script(play=settle, keys=3, ends=frozenset({How.SETTLED}), steps=("funding", "close")),
    "settle, arbiter": Script(play=settle, keys=3, ends=frozenset({How.SETTLED}), steps=("funding", "close"), arbiter=True),
    "seller closes": Script(play=seller_closes, keys=3, ends=frozenset({How.SETTLED}), steps=("funding", "close")),
    "claim": Script(play=claim, keys=3, ends=frozenset({How.CLAIMED}), steps=("funding", "claim")),
    "claim, arbiter": Script(play=claim, keys=3, ends=frozenset({How.CLAIMED}), steps=("funding", "claim"), arbiter=True),
    "withheld": Script(play=withheld, keys=1, ends=frozenset({How.SETTLED}), steps=("funding", "close")),
    "lapse": Script(play=lapse, keys=1, ends=frozenset({How.LAPSED}), steps=("funding", "close", "lapse"), served=False),
    "refund": Script(play=refund, keys=1, ends=frozenset({How.REFUNDED}), steps=("funding", "refund"), served=False),
}


def payouts(chain: Regtest, funding: OutPoint) -> tuple[int, int, int]:
    """What the chain shows of an escrow, followed to its end: satoshi to the seller, to the buyer, and fees."""
    info = chain.outpoint(funding)
    assert info is not None
    assert info.spent_by is not None, "the escrow is not spent"
    assert info.spent_by.height is not None
    to_seller = to_buyer = 0
    spending = parse(info.spent_by.raw)
    for vout, output in enumerate(spending.outputs):
        if output.script == p2wpkh(SELLER.public):
            to_seller += output.value_sat
        elif output.script == p2wpkh(BUYER.public):
            to_buyer += output.value_sat
        else:
            seller_sat, buyer_sat, _ = payouts(chain, OutPoint(spending.txid, vout))
            to_seller, to_buyer = to_seller + seller_sat, to_buyer + buyer_sat
    return to_seller, to_buyer, info.value_sat - to_seller - to_buyer


def play(world: World, script: Script) -> None:
    """One session to its burial, and the verdict. Raises ``AssertionError``."""
    script.play(world)
    buyer = world.buyer.machine
    if buyer.phase is not Phase.BURIED:  # with it the list of payments goes
        assert len({one.ref for one in buyer._past.values()}) == buyer.row.last.sequence, "a unit was paid for twice"
    assert buyer.row.paid_msat == UNIT_MSAT * buyer.row.last.sequence, "more was committed than the units cost"
    assert buyer.row.last.sequence <= script.keys + 1, "more than one unit was locked and not opened"
    world.buyer.alive = world.seller.alive = True
    world.run().wait(QUIET_S).mine(world.network.margin_blocks + 1)
    assert (world.buyer.machine.phase, world.seller.machine.phase) == (Phase.BURIED, Phase.BURIED), "it did not end"
    judge(world, script)


def judge(world: World, script: Script) -> None:
    """Whether the money is where it belongs."""
    end: Closed = world.check_end()
    assert end.how in script.ends, f"it ended as {end.how.value}"
    assert end.txid is not None
    funding = world.buyer.machine.funding
    shown = payouts(world.chain, funding)
    assert sum(shown) == world.terms.capacity_sat
    assert shown == (end.to_seller_sat, end.to_buyer_sat, end.fees_sat), "a side believes something else than the chain shows"
    keys = {one.ref: one.key for one in world.buyer.of(Revealed)}
    assert keys == {b"unit %d" % number: world.key(number) for number in range(script.keys)}
    assert end.to_seller_sat * 1_000 <= UNIT_MSAT * len(keys), "money went for a key that the buyer does not have"
    if script.served:
        lost_msat = UNIT_MSAT * script.keys - 1_000 * end.to_seller_sat
        bound_sat = fee_sat(CLAIM_VBYTES, world.terms.feerate_sat_per_kvb) if end.how is How.CLAIMED else 0
        assert lost_msat <= 1_000 * (bound_sat + 1), f"the seller lost {lost_msat} msat"
