"""Random lives in which one side cheats with everything it has, and the road repeats what it likes.

Inflated and shortened balances, wrong and early keys, old states on the chain, refunds and lapses before their time, silence,
kills, lost letters, reorganisations, rising fees. At the end no satoshi has appeared or gone, and the honest side has lost
no more than the fee of one claim.
"""

import dataclasses
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from escrow.core.events import How, LetterIn, Phase, Revealed
from escrow.core.messages import Commit, Done, Key, Letters, read_letter
from escrow.core.spends import complete, lapse, refund, sign_state, state
from escrow.core.transaction import Tx, parse
from escrow.shell.regtest import Regtest
from tests.escrow.pair import SELLER, Pair, Party
from tests.escrow.test_machines import Lives
from tests.matrix.scripts import ARBITER, payouts
from wire.ports import Rejected

CLAIM_FEE_MOST_SAT = 8_000


class Cheats(Lives):
    """``Lives`` with a liar in it. ``cheat`` is the one whose losses are his own."""

    counter = 200_000

    @initialize(arbiter=st.booleans(), cheat=st.sampled_from(["buyer", "seller"]))
    def begin_with(self, arbiter: bool, cheat: str) -> None:
        self.cheat = cheat
        Cheats.counter += 1
        self.world = Pair(self.chain, Cheats.counter, arbiter=ARBITER.public if arbiter else None).open().run()
        self.units = 0
        self.amounts = {}
        self.absent = False
        self.world.mine().wait(6)

    def begin(self) -> None:
        """Not this one."""

    @property
    def cheats(self) -> Party:
        party: Party = getattr(self.world, self.cheat)
        return party

    def _submit(self, transaction: Tx | None) -> bool:
        if transaction is None:
            return False
        try:
            self.world.chain.submit(transaction.serialise())
        except Rejected:
            return False
        self.world.run()
        return True

    def _commits(self) -> list[Commit]:
        letters = [read_letter(payload) for to, payload in self.world.sent if to is self.world.seller]
        return [one for one in letters if isinstance(one, Commit)]

    # --- the road ----------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.world.sent)
    @rule(which=st.integers(0, 1_000))
    def repeat(self, which: int) -> None:
        """Any letter ever sent arrives once more."""
        to, payload = self.world.sent[which % len(self.world.sent)]
        self.world.letters.append((to, payload))
        self.world.run()

    # --- letters that lie --------------------------------------------------------------------------------------------

    @precondition(lambda self: self.cheat == "buyer" and self._commits())
    @rule(
        which=st.integers(0, 1_000),
        more=st.integers(-3_000_000, 90_000_000),
        ahead=st.integers(-1, 2),
        signs=st.booleans(),
        final=st.booleans(),
    )
    def lie_about_the_balance(self, which: int, more: int, ahead: int, signs: bool, final: bool) -> None:
        """A commitment or final balance of the buyer's own making, signed or with a signature of something else."""
        machine, commits = self.world.buyer.machine, self._commits()
        base = commits[which % len(commits)]
        paid = max(1, base.paid_msat + more)
        lock = None if final else base.lock
        signature = base.signature
        if signs and paid <= machine.contract.usable_msat and machine.funding is not None:
            signature = sign_state(machine.contract, machine._coop, machine.funding, paid, lock)
        letter: Any = Done(channel=machine.channel, paid_msat=paid, signature=signature)
        if not final:
            letter = dataclasses.replace(base, paid_msat=paid, signature=signature, sequence=max(1, base.sequence + ahead))
        self.world.letters.append((self.world.seller, Letters.pack(letter)))
        self.world.run()

    @precondition(lambda self: self.cheat == "seller" and self.world.seller.channel is not None)
    @rule(sequence=st.integers(1, 8), number=st.integers(0, 8), garbage=st.booleans())
    def lie_about_a_key(self, sequence: int, number: int, garbage: bool) -> None:
        """A key of another unit, of a payment not made, or of nothing at all."""
        key = bytes(32) if garbage else self.world.key(number)
        before = {one.key for one in self.world.buyer.of(Revealed)}
        letter = Key(channel=self.world.buyer.machine.channel, sequence=sequence, key=key)
        event = LetterIn(peer=SELLER.peer_id, payload=Letters.pack(letter))
        self.world.give(self.world.buyer, event)
        assert {one.key for one in self.world.buyer.of(Revealed)} - before <= {self.world.key(number)}
        self.world.run()

    # --- transactions before their time, or after it -----------------------------------------------------------------

    @precondition(lambda self: self.cheat == "seller" and self._commits() and self.world.seller.machine.funding is not None)
    @rule(which=st.integers(0, 1_000), settled=st.booleans())
    def publish_an_old_state(self, which: int, settled: bool) -> None:
        """Whatever the buyer ever signed."""
        machine, commits = self.world.seller.machine, self._commits()
        base = commits[which % len(commits)]
        unsigned, der = state(machine.contract, machine.funding, base.paid_msat, base.lock), base.signature
        if settled and base.settled is not None:
            before = max((one.paid_msat for one in commits if one.sequence == base.sequence - 1), default=0)
            unsigned, der = state(machine.contract, machine.funding, before, None), base.settled
        self._submit(complete(machine.contract, unsigned, der, machine._coop))

    @precondition(lambda self: self.cheat == "buyer" and self.world.buyer.machine.funding is not None)
    @rule()
    def refund_early(self) -> None:
        """Before the refund height nobody takes it."""
        machine = self.world.buyer.machine
        taken = self._submit(refund(machine.contract, machine.funding, self.world.buyer.key, 2_000))
        assert not taken or self.world.chain.height >= self.world.terms.refund_height

    @precondition(lambda self: self.cheat == "buyer" and self.world.buyer.machine.phase is Phase.CLAIMING)
    @rule()
    def lapse_early(self) -> None:
        """Before the delay is over nobody takes it."""
        machine = self.world.buyer.machine
        info = self.world.chain.outpoint(machine.funding)
        if info is None or info.spent_by is None or machine.row.last is None:
            return
        spending = parse(info.spent_by.raw)
        for one in list(machine._past.values()):
            taken = self._submit(lapse(machine.contract, spending, one.lock, self.world.buyer.key, 1_000))
            height = info.spent_by.height
            assert not taken or (
                height is not None and self.world.chain.height + 1 >= height + self.world.terms.claim_delay_blocks
            )

    # --- the verdict -------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        world = getattr(self, "world", None)
        if world is None:
            return
        world.lose = lambda receiver, payload: False
        world.buyer.alive = world.seller.alive = True
        world.run().wait(60).mine_to(world.terms.refund_height + world.network.claim_delay_blocks + 1).wait(60).mine(8)
        buyer, seller = world.buyer.machine, world.seller.machine
        assert (buyer.phase, seller.phase) == (Phase.BURIED, Phase.BURIED)
        shown = payouts(world.chain, buyer.funding)
        end = world.check_end()
        assert sum(shown) == world.terms.capacity_sat
        assert shown == (end.to_seller_sat, end.to_buyer_sat, end.fees_sat)
        if self.cheat == "seller":
            bought = sum(self.amounts[ref] for ref in {one.ref for one in world.buyer.of(Revealed)})
            assert 1_000 * end.to_seller_sat <= bought, "money went for a key that the buyer does not have"
        elif not self.absent:
            lost_msat = seller.row.revealed_msat - 1_000 * end.to_seller_sat
            assert lost_msat <= 1_000 * CLAIM_FEE_MOST_SAT, f"the seller lost {lost_msat} msat, {end.how}"
            assert end.how is not How.LAPSED


def live(chain: Regtest, examples: int) -> None:
    """So many random lives, the same ones every time."""
    Cheats.chain = chain
    case = Cheats.TestCase
    case.settings = settings(
        max_examples=examples, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
    )
    case("runTest").runTest()


def test_random_lives_with_a_liar(chain: Regtest) -> None:
    live(chain, 12)
