"""Every path of the failure table, accepted and refused, as a list that any judge can walk.

A scenario belongs to a row of the table in docs/spec/escrow.md, by the row's own words, and runs once for each form of the
escrow that it is about. What it lets pass and what it must not is said to the ``Stage``, which asks the judge. No scenario knows
which chain that is.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

from escrow.core.amounts import DUST_P2WPKH_SAT, DUST_P2WSH_SAT, REFUND_VBYTES, fee_sat
from escrow.core.contract import Branch, Contract, Terms, contract_of
from escrow.core.script import p2wpkh, p2wpkh_code, p2wsh
from escrow.core.spends import (
    SpendKind,
    claim,
    claim_fee_sat,
    classify,
    complete,
    escrow_digest,
    is_signed,
    key_shown,
    lapse,
    refund,
    ruling,
    sign_spend,
    sign_state,
    state,
)
from escrow.core.transaction import SEQUENCE_FINAL, Tx, TxIn
from tests.escrow.judges import Refusal, Stage, output, spend_of_anyone
from tests.escrow.pair import BUYER, SELLER
from wire.keys import SecretKey
from wire.ports import OutPoint, TxOut

ARBITER, STRANGER = SecretKey(b"\x33" * 32), SecretKey(b"\x44" * 32)
KEY = b"\x5a" * 32
LOCK = hashlib.sha256(KEY).digest()
RULING_IN, REFUND_IN, DELAY = 5, 9, 6
CAPACITY, PAID_MSAT = 300_000, 20_000_000
RATE = 1_000
TOMORROW = 1_900_000_000
"""A moment, where a height is asked for."""

SCRIPT, EARLY, YOUNG, SPENT = Refusal.SCRIPT, Refusal.NOT_FINAL, Refusal.TOO_YOUNG, Refusal.SPENT


def terms_at(height: int, arbiter: bool, **changes: Any) -> Terms:
    """Terms of a channel that starts at ``height``."""
    fields: dict[str, Any] = {
        "version": 1,
        "instance": b"\x07" * 32,
        "buyer": BUYER.public,
        "seller": SELLER.public,
        "nonce": height.to_bytes(32, "big"),
        "capacity_sat": CAPACITY,
        "arbiter": ARBITER.public if arbiter else None,
        "ruling_height": height + RULING_IN if arbiter else 0,
        "refund_height": height + REFUND_IN,
        "claim_delay_blocks": DELAY,
        "feerate_sat_per_kvb": RATE,
        "credit_sat": 0,
    }
    return Terms(**{**fields, **changes})


@dataclasses.dataclass
class Escrow:
    """A contract, the output that holds its money, and both parties' pens."""

    stage: Stage
    contract: Contract
    funding: OutPoint

    @property
    def height(self) -> int:
        return self.stage.judge.height

    def until(self, height: int) -> None:
        """Mine so that ``height`` is the best block's."""
        self.stage.judge.mine(height - self.height)

    def secret(self, key: SecretKey, branch: Branch) -> SecretKey:
        return self.contract.secret(key, branch)

    def unsigned(self, paid_msat: int = PAID_MSAT, lock: bytes | None = None) -> Tx:
        return state(self.contract, self.funding, paid_msat, lock)

    def buyers(self, paid_msat: int = PAID_MSAT, lock: bytes | None = None) -> bytes:
        """The buyer's signature of a state."""
        return sign_state(self.contract, self.secret(BUYER, Branch.COOPERATE), self.funding, paid_msat, lock)

    def finish(self, unsigned: Tx, buyers: bytes) -> Tx:
        """What the seller makes of it."""
        return complete(self.contract, unsigned, buyers, self.secret(SELLER, Branch.COOPERATE))

    def closed(self, paid_msat: int = PAID_MSAT, lock: bytes | None = None) -> Tx:
        return self.finish(self.unsigned(paid_msat, lock), self.buyers(paid_msat, lock))

    def both_sign(self, unsigned: Tx) -> Tx:
        """Any spend of the cooperative branch that both want."""
        digest = escrow_digest(self.contract, unsigned)
        return self.finish(unsigned, self.secret(BUYER, Branch.COOPERATE).sign_ecdsa(digest))

    def refund(self, rate: int = RATE, **changes: Any) -> Tx:
        """The buyer's refund, changed and signed again."""
        taking = refund(self.contract, self.funding, BUYER, rate)
        return self.refund_by(self.secret(BUYER, Branch.REFUND), dataclasses.replace(taking, **changes)) if changes else taking

    def refund_by(self, key: SecretKey, taking: Tx) -> Tx:
        signature = sign_spend(key, escrow_digest(self.contract, taking))
        return taking.with_witness(0, self.contract.refund_witness(signature))

    def ruled(self, first: SecretKey, second: SecretKey, **changes: Any) -> Tx:
        """A split signed by ``first`` in the arbiter's place and ``second`` in the party's."""
        unsigned = dataclasses.replace(ruling(self.contract, self.funding, 100_000, 199_000), **changes)
        digest = escrow_digest(self.contract, unsigned)
        return unsigned.with_witness(0, self.contract.ruling_witness(sign_spend(first, digest), sign_spend(second, digest)))

    def publish(self, paid_msat: int = PAID_MSAT, lock: bytes = LOCK) -> Tx:
        """The seller puts a locked state on the chain."""
        close = self.closed(paid_msat, lock)
        found = classify(self.contract, close, self.funding, [hashlib.sha256(b"x").digest(), lock])
        assert (found.kind, found.lock) == (SpendKind.CONDITIONAL, lock)
        self.stage.accepts("a locked state", close)
        return close

    def claim(self, close: Tx, *, key: bytes = KEY, lock: bytes = LOCK, by: SecretKey = SELLER, fee: int = 140) -> Tx:
        taking = claim(self.contract, close, lock, key, by, fee)
        assert taking is not None
        return taking

    def lapse(self, close: Tx, *, by: SecretKey = BUYER, rate: int = RATE, **changes: Any) -> Tx:
        """The buyer's way to the locked balance, changed and signed again; ``sequence`` changes the input's."""
        taking = lapse(self.contract, close, LOCK, by, rate)
        assert taking is not None
        if not changes:
            return taking
        sequence = changes.pop("sequence", taking.inputs[0].sequence)
        spending = dataclasses.replace(taking.inputs[0], sequence=sequence)
        taking = dataclasses.replace(taking, inputs=(spending,), **changes)
        code = self.contract.conditional_script(LOCK)
        signature = sign_spend(self.secret(by, Branch.LAPSE), taking.digest(0, code, close.outputs[0].value_sat))
        return taking.with_witness(0, self.contract.lapse_witness(LOCK, signature))


def contract_now(stage: Stage, arbiter: bool, **changes: Any) -> Contract:
    """A contract that starts at the chain's height."""
    return contract_of("regtest", terms_at(stage.judge.height, arbiter, **changes))


def funded(stage: Stage, arbiter: bool, **changes: Any) -> Escrow:
    """An escrow with its money confirmed."""
    contract = contract_now(stage, arbiter, **changes)
    paying = stage.judge.pay([contract.funding])
    stage.accepts("the funding", paying)
    return Escrow(stage, contract, output(paying))


Walk = Callable[[Stage, bool], None]


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A walk along one path: the table's row, its own name, and the forms of the escrow it is about."""

    row: str
    name: str
    forms: tuple[bool, ...]
    walk: Walk


SCENARIOS: list[Scenario] = []
BOTH, ARBITER_ONLY, PLAIN_ONLY = (True, False), (True,), (False,)


def scenario(row: str, forms: tuple[bool, ...] = BOTH) -> Callable[[Callable[[Escrow], None]], Callable[[Escrow], None]]:
    """Add a path that begins with a funded escrow."""

    def add(steps: Callable[[Escrow], None]) -> Callable[[Escrow], None]:
        SCENARIOS.append(Scenario(row, steps.__name__, forms, lambda stage, arbiter: steps(funded(stage, arbiter))))
        return steps

    return add


def scenario_from_nothing(row: str, forms: tuple[bool, ...] = BOTH) -> Callable[[Walk], Walk]:
    """Add a path that begins before the funding."""

    def add(steps: Walk) -> Walk:
        SCENARIOS.append(Scenario(row, steps.__name__, forms, steps))
        return steps

    return add


def walks() -> Iterator[tuple[str, Scenario, bool]]:
    """Every scenario in every form, with a name for it."""
    for one in SCENARIOS:
        for arbiter in one.forms:
            yield f"{one.row} | {one.name} | {'arbiter' if arbiter else 'plain'}", one, arbiter


# --- the money comes, or does not ----------------------------------------------------------------------------------

FUNDING_LIES = "funding lies (value, script)"


@scenario_from_nothing(FUNDING_LIES)
def another_value(stage: Stage, arbiter: bool) -> None:
    contract = contract_now(stage, arbiter)
    for wrong in (-1, 1):
        held = TxOut(contract.funding.value_sat + wrong, contract.funding.script)
        paying = stage.judge.pay([held])
        stage.accepts("an output of another value", paying)
        escrow = Escrow(stage, contract, output(paying))
        stage.refuses("a state of the agreed value", escrow.closed(), SCRIPT)
        escrow.until(contract.terms.refund_height)
        stage.refuses("a refund of the agreed value", escrow.refund(), SCRIPT)
        taking = refund(contract, escrow.funding, BUYER, RATE)
        digest = taking.digest(0, contract.witness_script, held.value_sat)
        home = contract.refund_witness(sign_spend(escrow.secret(BUYER, Branch.REFUND), digest))
        stage.accepts("a refund that signs what is really there", taking.with_witness(0, home))


@scenario_from_nothing(FUNDING_LIES)
def another_script(stage: Stage, arbiter: bool) -> None:
    contract = contract_now(stage, arbiter)
    other = contract_now(stage, arbiter, nonce=b"\x01" * 32)
    for script in (other.funding.script, p2wpkh(BUYER.public), p2wsh(b"\x51")):
        paying = stage.judge.pay([TxOut(CAPACITY, script)])
        stage.accepts("an output of another script", paying)
        escrow = Escrow(stage, contract, output(paying))
        stage.refuses("a state with the agreed script", escrow.closed(), SCRIPT)
        escrow.until(contract.terms.refund_height)
        stage.refuses("a refund with the agreed script", escrow.refund(), SCRIPT)


REORGANISED = "funding double-spent or reorganised away"


@scenario_from_nothing(REORGANISED)
def double_spent(stage: Stage, arbiter: bool) -> None:
    contract = contract_now(stage, arbiter)
    paying = stage.judge.pay([contract.funding])
    escrow = Escrow(stage, contract, output(paying))
    stage.refuses("a state before there is any funding", escrow.closed(), SPENT)
    assert stage.judge.offer(paying) == ""
    stage.accepts_in_a_block("what the buyer spent the coins on instead", spend_of_anyone(paying, RATE))
    assert not stage.judge.waits(paying.txid)
    stage.refuses("the funding afterwards", paying, SPENT)
    stage.refuses("a state afterwards", escrow.closed(), SPENT)


@scenario_from_nothing(REORGANISED)
def unconfirmed(stage: Stage, arbiter: bool) -> None:
    contract = contract_now(stage, arbiter)
    paying = stage.judge.pay([contract.funding])
    escrow = Escrow(stage, contract, output(paying))
    close = escrow.closed(PAID_MSAT, LOCK)
    stage.accepts("funding, locked state and claim, all unconfirmed", paying, close, escrow.claim(close))


# --- one of the two goes away ---------------------------------------------------------------------------------------

BEFORE_COMMITMENT = "buyer vanishes before a commitment"


@scenario(BEFORE_COMMITMENT)
def the_settled_state_at_any_time(escrow: Escrow) -> None:
    close = escrow.closed()
    assert classify(escrow.contract, close, escrow.funding, []).kind is SpendKind.SETTLED
    escrow.stage.accepts("a settled state", close)


@scenario(BEFORE_COMMITMENT)
def seller_alone(escrow: Escrow) -> None:
    unsigned = escrow.unsigned()
    sellers = escrow.secret(SELLER, Branch.COOPERATE)
    forged = sellers.sign_ecdsa(escrow_digest(escrow.contract, unsigned))
    escrow.stage.refuses("both signatures by the seller", escrow.finish(unsigned, forged), SCRIPT)
    stack = escrow.closed().inputs[0].witness
    for one in (1, 2):
        twice = (b"", stack[one], stack[one], b"\x01", stack[4])
        escrow.stage.refuses("one signature twice", unsigned.with_witness(0, twice), SCRIPT)
    swapped = (b"", stack[2], stack[1], b"\x01", stack[4])
    escrow.stage.refuses("signatures in the other order", unsigned.with_witness(0, swapped), SCRIPT)
    for missing in ((b"", stack[1], b"", b"\x01", stack[4]), (stack[1], b"\x01", stack[4])):
        escrow.stage.refuses("one signature", unsigned.with_witness(0, missing), SCRIPT)
    dummy = (b"\x01", *stack[1:])
    escrow.stage.refuses("a dummy that is not empty", unsigned.with_witness(0, dummy), SCRIPT)


@scenario(BEFORE_COMMITMENT)
def account_keys_do_not_sign_for_branches(escrow: Escrow) -> None:
    unsigned = escrow.unsigned()
    digest = escrow_digest(escrow.contract, unsigned)
    wrong = escrow.contract.cooperative_witness(sign_spend(BUYER, digest), sign_spend(SELLER, digest))
    escrow.stage.refuses("a state signed with account keys", unsigned.with_witness(0, wrong), SCRIPT)


AFTER_KEY = "buyer vanishes after a key"


@scenario(AFTER_KEY)
def a_miner_writes_another_yes(escrow: Escrow) -> None:
    """Nobody signs the answer to an IF: the spend is the same, and must be seen as the same."""
    close = escrow.closed(PAID_MSAT, LOCK)
    stack = close.inputs[0].witness
    close = close.with_witness(0, (*stack[:3], b"\x02\x00", stack[4]))
    escrow.stage.accepts_in_a_block("a locked state with another yes", close)
    found = classify(escrow.contract, close, escrow.funding, [LOCK])
    assert (found.kind, found.lock) == (SpendKind.CONDITIONAL, LOCK)
    taking = escrow.claim(close)
    stack = taking.inputs[0].witness
    taking = taking.with_witness(0, (*stack[:2], b"\x00\x01", stack[3]))
    escrow.stage.accepts_in_a_block("a claim with another yes", taking)
    assert key_shown(taking, output(close), LOCK) == KEY


@scenario(AFTER_KEY)
def locked_state_and_claim(escrow: Escrow) -> None:
    close = escrow.publish()
    taking = escrow.claim(close)
    assert key_shown(taking, output(close), LOCK) == KEY
    assert key_shown(taking, output(close, 1), LOCK) is None
    assert key_shown(taking, output(close), hashlib.sha256(b"other").digest()) is None
    escrow.stage.accepts("the claim", taking)
    assert escrow.stage.judge.confirmed(taking.txid) is not None


SELLER_VANISHES = "seller vanishes"


@scenario(SELLER_VANISHES)
def refund_at_its_height(escrow: Escrow) -> None:
    taking = escrow.refund()
    escrow.until(escrow.contract.terms.refund_height - 1)
    escrow.stage.refuses("the refund one block early", taking, EARLY)
    escrow.until(escrow.contract.terms.refund_height)
    assert classify(escrow.contract, taking, escrow.funding, []).kind is SpendKind.REFUNDED
    escrow.stage.accepts("the refund", taking)
    assert taking.outputs[0].value_sat == CAPACITY - fee_sat(REFUND_VBYTES, RATE)


NO_KEY = "seller takes a commitment and gives no key"


@scenario(NO_KEY)
def he_closes_without_it(escrow: Escrow) -> None:
    der = escrow.buyers(PAID_MSAT, LOCK)
    assert is_signed(escrow.contract, escrow.funding, PAID_MSAT, LOCK, der)
    assert not is_signed(escrow.contract, escrow.funding, PAID_MSAT, None, der)
    assert not is_signed(escrow.contract, escrow.funding, PAID_MSAT, hashlib.sha256(b"other").digest(), der)
    escrow.stage.refuses("the locked signature under the settled state", escrow.finish(escrow.unsigned(), der), SCRIPT)
    another = escrow.unsigned(PAID_MSAT, hashlib.sha256(b"other").digest())
    escrow.stage.refuses("the locked signature under another lock", escrow.finish(another, der), SCRIPT)
    escrow.stage.accepts("the settled state before it", escrow.closed(PAID_MSAT - 2_600_000))


@scenario(NO_KEY)
def he_claims_and_shows_it(escrow: Escrow) -> None:
    close = escrow.publish()
    escrow.stage.refuses("a claim without the key", escrow.claim(close, key=b""), SCRIPT)
    escrow.stage.accepts("the claim", escrow.claim(close))
    seen = escrow.stage.judge.confirmed(escrow.claim(close).txid)
    assert seen is not None
    assert key_shown(seen, output(close), LOCK) == KEY


NEVER_CLAIMS = "seller publishes a locked state and never claims"


@scenario(NEVER_CLAIMS)
def the_buyer_takes_it_after_the_delay(escrow: Escrow) -> None:
    close = escrow.publish()
    taking = escrow.lapse(close)
    escrow.stage.judge.mine(DELAY - 2)
    escrow.stage.refuses("the lapse one block early", taking, YOUNG)
    escrow.stage.judge.mine()
    escrow.stage.refuses("the lapse by the seller", escrow.lapse(close, by=SELLER), SCRIPT)
    escrow.stage.accepts("the lapse", taking)
    escrow.stage.refuses("the claim after it", escrow.claim(close), SPENT)


@scenario(NEVER_CLAIMS)
def the_seller_claims_late_but_first(escrow: Escrow) -> None:
    close = escrow.publish()
    escrow.stage.judge.mine(DELAY + 1)
    escrow.stage.accepts("a claim after the delay", escrow.claim(close))
    escrow.stage.refuses("the lapse after it", escrow.lapse(close), SPENT)


OLD_STATE = "seller publishes an old state"


@scenario(OLD_STATE)
def it_pays_him_less(escrow: Escrow) -> None:
    old, new = escrow.closed(PAID_MSAT), escrow.closed(2 * PAID_MSAT)
    assert old.outputs[0].value_sat < new.outputs[0].value_sat
    escrow.stage.accepts("the old state", old)
    escrow.stage.refuses("the new state after it", new, SPENT)


@scenario(OLD_STATE)
def an_old_lock_is_claimed_with_its_own_key(escrow: Escrow) -> None:
    older = hashlib.sha256(b"older" * 8).digest()
    close = escrow.publish(PAID_MSAT, hashlib.sha256(older).digest())
    escrow.stage.refuses("a claim with the newer key", escrow.claim(close, lock=hashlib.sha256(older).digest()), SCRIPT)
    taking = escrow.claim(close, lock=hashlib.sha256(older).digest(), key=older)
    escrow.stage.accepts("a claim with the older key", taking)


@scenario(OLD_STATE)
def a_newer_state_takes_its_place_while_it_waits(escrow: Escrow) -> None:
    """All states of a channel pay one fee, so the room wants more for a replacement; a block takes either."""
    old, new = escrow.closed(PAID_MSAT, LOCK), escrow.closed(2 * PAID_MSAT)
    if escrow.stage.judge.replaces:
        assert escrow.stage.judge.offer(old) == ""
        escrow.stage.refuses("a newer state of the same fee", new, Refusal.CHEAP)
    escrow.stage.accepts_in_a_block("the newer state in a block", new)
    assert not escrow.stage.judge.waits(old.txid)


@scenario(OLD_STATE)
def a_dearer_newer_state_takes_its_place(escrow: Escrow) -> None:
    old, newer = escrow.closed(PAID_MSAT), escrow.unsigned(2 * PAID_MSAT)
    rest = dataclasses.replace(newer.outputs[1], value_sat=newer.outputs[1].value_sat - 1_000)
    dearer = escrow.both_sign(dataclasses.replace(newer, outputs=(newer.outputs[0], rest)))
    escrow.stage.replaces("a newer state with a higher fee", old, dearer)


# --- somebody cheats ------------------------------------------------------------------------------------------------

INFLATES = "seller inflates a balance, or uses a wrong or short key"


@scenario(INFLATES)
def inflated_states(escrow: Escrow) -> None:
    close = escrow.closed()
    more = dataclasses.replace(close.outputs[0], value_sat=close.outputs[0].value_sat + 1)
    less = dataclasses.replace(close.outputs[1], value_sat=close.outputs[1].value_sat - 1)
    for outputs in ((more, close.outputs[1]), (more, less), close.outputs[:1], tuple(reversed(close.outputs))):
        changed = dataclasses.replace(close, outputs=outputs)
        escrow.stage.refuses("outputs changed after signing", changed, SCRIPT)
    der = escrow.buyers()
    assert not is_signed(escrow.contract, escrow.funding, 70_000_000, None, der)
    escrow.stage.refuses("a larger balance under the old signature", escrow.finish(escrow.unsigned(70_000_000), der), SCRIPT)


@scenario(INFLATES)
def more_than_there_is(escrow: Escrow) -> None:
    unsigned = escrow.unsigned()
    whole = dataclasses.replace(unsigned, outputs=(TxOut(CAPACITY + 1, escrow.contract.to_seller_script),))
    escrow.stage.refuses("a state of more than the escrow holds", escrow.both_sign(whole), Refusal.PAYS_TOO_MUCH)


@scenario(INFLATES)
def wrong_keys(escrow: Escrow) -> None:
    close = escrow.publish()
    for what, key in (("wrong", bytes(32)), ("short", KEY[:31]), ("long", KEY + b"\x00"), ("lock itself", LOCK)):
        escrow.stage.refuses(f"a claim with a {what} key", escrow.claim(close, key=key), SCRIPT)


@scenario(INFLATES)
def a_key_of_another_length(escrow: Escrow) -> None:
    """The script asks for exactly 32 bytes, so a lock over something else cannot be opened at all."""
    long = b"\x01" * 33
    close = escrow.publish(PAID_MSAT, hashlib.sha256(long).digest())
    escrow.stage.refuses("a claim with 33 bytes", escrow.claim(close, lock=hashlib.sha256(long).digest(), key=long), SCRIPT)


BUYER_TAKES = "buyer takes with the key, refunds or lapses early"


@scenario(BUYER_TAKES)
def with_the_key(escrow: Escrow) -> None:
    close = escrow.publish()
    escrow.stage.refuses("the buyer with the key", escrow.claim(close, by=BUYER), SCRIPT)
    taking = escrow.claim(close)
    digest = taking.digest(0, escrow.contract.conditional_script(LOCK), close.outputs[0].value_sat)
    for who in (BUYER, SELLER, STRANGER):
        witness = escrow.contract.claim_witness(LOCK, KEY, sign_spend(who, digest))
        escrow.stage.refuses("the key with an account's signature", taking.with_witness(0, witness), SCRIPT)
    stolen = dataclasses.replace(taking, outputs=(TxOut(taking.outputs[0].value_sat, p2wpkh(BUYER.public)),))
    escrow.stage.refuses("the seller's claim turned to the buyer", stolen, SCRIPT)


@scenario(BUYER_TAKES)
def early_refunds(escrow: Escrow) -> None:
    stage, final = escrow.stage, (TxIn(outpoint=escrow.funding, sequence=SEQUENCE_FINAL),)
    stage.refuses("the refund at once", escrow.refund(), EARLY)
    stage.refuses("a refund with an earlier lock time", escrow.refund(lock_time=escrow.height), SCRIPT)
    stage.refuses("a refund without a lock time", escrow.refund(lock_time=0), SCRIPT)
    stage.refuses("a refund whose sequence ends the lock time", escrow.refund(inputs=final), SCRIPT)
    stage.refuses("a refund with a moment that is past", escrow.refund(lock_time=500_000_000), SCRIPT)
    stage.refuses("a refund with a moment to come", escrow.refund(lock_time=TOMORROW), EARLY)
    der = sign_spend(escrow.secret(BUYER, Branch.COOPERATE), escrow_digest(escrow.contract, escrow.unsigned(PAID_MSAT, LOCK)))
    commitment = escrow.unsigned(PAID_MSAT, LOCK).with_witness(0, escrow.contract.refund_witness(der))
    stage.refuses("a commitment as a refund", commitment, SCRIPT)


@scenario(BUYER_TAKES)
def refunds_by_others(escrow: Escrow) -> None:
    escrow.until(escrow.contract.terms.refund_height)
    for who in (SELLER, ARBITER, STRANGER):
        taking = escrow.refund_by(escrow.secret(who, Branch.REFUND), escrow.refund())
        escrow.stage.refuses("somebody else's refund", taking, SCRIPT)
    escrow.stage.refuses("a refund with the account key", escrow.refund_by(BUYER, escrow.refund()), SCRIPT)
    other = escrow.refund_by(escrow.secret(BUYER, Branch.COOPERATE), escrow.refund())
    escrow.stage.refuses("a refund with another branch's key", other, SCRIPT)
    lying = (TxIn(outpoint=escrow.funding, sequence=SEQUENCE_FINAL),)
    escrow.stage.refuses("a late refund whose sequence ends the lock time", escrow.refund(inputs=lying), SCRIPT)


@scenario(BUYER_TAKES)
def early_lapses(escrow: Escrow) -> None:
    stage, close = escrow.stage, escrow.publish()
    stage.refuses("the lapse at once", escrow.lapse(close), YOUNG)
    lies: tuple[tuple[str, dict[str, Any]], ...] = (
        ("a smaller sequence", {"sequence": 1}),
        ("a sequence that is switched off", {"sequence": 1 << 31 | DELAY}),
        ("a sequence in units of time", {"sequence": 1 << 22}),
        ("a final sequence", {"sequence": SEQUENCE_FINAL}),
        ("the old version", {"version": 1}),
    )
    for what, changes in lies:
        stage.refuses(f"a lapse with {what}", escrow.lapse(close, **changes), SCRIPT)
    stage.judge.mine(DELAY - 1)
    stage.refuses("a late lapse with one block less", escrow.lapse(close, sequence=DELAY - 1), SCRIPT)


ARBITERS = "arbiter alone, early, or with a stranger"


@scenario(ARBITERS, ARBITER_ONLY)
def early(escrow: Escrow) -> None:
    for party in (BUYER, SELLER):
        partner = escrow.secret(party, Branch.RULE)
        escrow.stage.refuses("a ruling at once", escrow.ruled(ARBITER, partner), EARLY)
        escrow.stage.refuses("an early lock time", escrow.ruled(ARBITER, partner, lock_time=escrow.height), SCRIPT)
        lying = (TxIn(outpoint=escrow.funding, sequence=SEQUENCE_FINAL),)
        escrow.stage.refuses("a sequence that ends it", escrow.ruled(ARBITER, partner, inputs=lying), SCRIPT)
    escrow.until(escrow.contract.terms.ruling_height - 1)
    escrow.stage.refuses("a ruling one block early", escrow.ruled(ARBITER, partner), EARLY)


@scenario(ARBITERS, ARBITER_ONLY)
def alone_or_with_a_stranger(escrow: Escrow) -> None:
    escrow.until(escrow.contract.terms.ruling_height)
    buyer, seller = escrow.secret(BUYER, Branch.RULE), escrow.secret(SELLER, Branch.RULE)
    for what, first, second in (
        ("the arbiter twice", ARBITER, ARBITER),
        ("the arbiter with a stranger", ARBITER, STRANGER),
        ("the arbiter with an account key", ARBITER, SELLER),
        ("the arbiter with a key for closing", ARBITER, escrow.secret(SELLER, Branch.COOPERATE)),
        ("a stranger with the seller", STRANGER, seller),
        ("both parties without the arbiter", buyer, seller),
        ("a party twice", seller, seller),
    ):
        escrow.stage.refuses(what, escrow.ruled(first, second), SCRIPT)


def _ruled_with(escrow: Escrow, party: SecretKey) -> None:
    escrow.until(escrow.contract.terms.ruling_height)
    final = escrow.ruled(ARBITER, escrow.secret(party, Branch.RULE))
    assert classify(escrow.contract, final, escrow.funding, []).kind is SpendKind.RULED
    escrow.stage.accepts("a ruling at its height", final)
    escrow.stage.refuses("a state after the ruling", escrow.closed(), SPENT)


@scenario(ARBITERS, ARBITER_ONLY)
def with_the_buyer_at_his_height(escrow: Escrow) -> None:
    _ruled_with(escrow, BUYER)


@scenario(ARBITERS, ARBITER_ONLY)
def with_the_seller_at_his_height(escrow: Escrow) -> None:
    _ruled_with(escrow, SELLER)


@scenario(ARBITERS, ARBITER_ONLY)
def too_late_for_a_ruling(escrow: Escrow) -> None:
    escrow.until(escrow.contract.terms.ruling_height)
    escrow.stage.accepts("the parties agree in the arbiter's time", escrow.closed())
    late = escrow.ruled(ARBITER, escrow.secret(BUYER, Branch.RULE))
    escrow.stage.refuses("a ruling over a spent escrow", late, SPENT)


@scenario(ARBITERS, PLAIN_ONLY)
def where_none_was_agreed(escrow: Escrow) -> None:
    escrow.until(escrow.contract.terms.refund_height)
    unsigned = dataclasses.replace(ruling(escrow.contract, escrow.funding, 100_000, 199_000), lock_time=escrow.height)
    digest = escrow_digest(escrow.contract, unsigned)
    pair = [sign_spend(ARBITER, digest), sign_spend(escrow.secret(SELLER, Branch.RULE), digest)]
    for stack in ([b"", pair[1], pair[0], b"\x01", b""], [b"", pair[1], pair[0], b"\x01"], [pair[0], b""], [b"", *pair, b""]):
        witness = (*stack, escrow.contract.witness_script)
        escrow.stage.refuses("a ruling that the script has no branch for", unsigned.with_witness(0, witness), SCRIPT)


SLEEPS = "seller sleeps past the refund height"


@scenario(SLEEPS)
def the_buyer_is_first(escrow: Escrow) -> None:
    escrow.until(escrow.contract.terms.refund_height)
    escrow.stage.accepts("the refund", escrow.refund())
    escrow.stage.refuses("a state after it", escrow.closed(), SPENT)


@scenario(SLEEPS)
def the_seller_is_first_after_all(escrow: Escrow) -> None:
    escrow.until(escrow.contract.terms.refund_height + 3)
    escrow.stage.accepts("a state after the refund height", escrow.closed())
    escrow.stage.refuses("the refund after it", escrow.refund(), SPENT)


# --- fees, dust, and what is sent twice -----------------------------------------------------------------------------

FEES_RISE = "fees rise"


@scenario(FEES_RISE)
def the_claim_pays_for_its_parent(escrow: Escrow) -> None:
    close, rate = escrow.closed(PAID_MSAT, LOCK), 8_000
    taking = escrow.claim(close, fee=claim_fee_sat(escrow.contract, rate, with_parent=True))
    fees = CAPACITY - sum(one.value_sat for one in (*close.outputs[1:], *taking.outputs))
    assert fees * 1_000 >= (close.vsize + taking.vsize) * rate
    escrow.stage.accepts("a locked state with a claim that pays for both", close, taking)


@scenario(FEES_RISE)
def either_pays_for_a_settled_state(escrow: Escrow) -> None:
    for party, vout in ((SELLER, 0), (BUYER, 1)):
        close = escrow.closed()
        value, code = close.outputs[vout].value_sat, p2wpkh_code(party.public)
        child = Tx(inputs=(TxIn(outpoint=output(close, vout)),), outputs=(TxOut(value - 3_000, p2wpkh(party.public)),))
        child = child.with_witness(0, (sign_spend(party, child.digest(0, code, value)), party.public))
        assert 3_000 + escrow.contract.close_fee_sat > 8 * (close.vsize + child.vsize)
        escrow.stage.accepts("a settled state with a child that pays for it", close, child)
        escrow = funded(escrow.stage, escrow.contract.terms.arbiter is not None)


@scenario(FEES_RISE)
def claims_and_lapses_are_replaced(escrow: Escrow) -> None:
    close = escrow.publish()
    escrow.stage.replaces("a claim by a dearer one", escrow.claim(close), escrow.claim(close, fee=1_000))
    escrow = funded(escrow.stage, escrow.contract.terms.arbiter is not None)
    close = escrow.publish()
    escrow.stage.judge.mine(DELAY)
    escrow.stage.replaces("a lapse by a dearer one", escrow.lapse(close), escrow.lapse(close, rate=5_000))


@scenario(FEES_RISE)
def refunds_are_replaced(escrow: Escrow) -> None:
    escrow.until(escrow.contract.terms.refund_height)
    escrow.stage.replaces("a refund by a dearer one", escrow.refund(), escrow.refund(5_000))


SMALL = "a balance is too small for the chain"


@scenario_from_nothing(SMALL)
def dust_is_left_to_the_fee(stage: Stage, arbiter: bool) -> None:
    for paid_sat, lock, outputs in (
        (0, None, 1),
        (DUST_P2WPKH_SAT - 1, None, 1),
        (DUST_P2WPKH_SAT, None, 2),
        (DUST_P2WPKH_SAT, LOCK, 1),
        (DUST_P2WSH_SAT - 1, LOCK, 1),
        (DUST_P2WSH_SAT, LOCK, 2),
    ):
        escrow = funded(stage, arbiter)
        close = escrow.closed(paid_sat * 1_000 + 999, lock)
        assert len(close.outputs) == outputs
        fee = CAPACITY - sum(one.value_sat for one in close.outputs)
        assert fee == escrow.contract.close_fee_sat + (paid_sat if outputs == 1 else 0)
        stage.accepts(f"a state that pays {paid_sat} sat", close)


@scenario(SMALL)
def dust_that_is_not_left_out(escrow: Escrow) -> None:
    for paid_sat, script in ((293, escrow.contract.to_seller_script), (329, p2wsh(escrow.contract.conditional_script(LOCK)))):
        unsigned = escrow.unsigned()
        close = escrow.both_sign(dataclasses.replace(unsigned, outputs=(TxOut(paid_sat, script), unsigned.outputs[1])))
        escrow.stage.refuses(f"a state with an output of {paid_sat} sat", close, Refusal.DUST)


@scenario(SMALL)
def the_whole_capacity(escrow: Escrow) -> None:
    close = escrow.closed(escrow.contract.usable_msat)
    assert close.outputs[1].value_sat == DUST_P2WPKH_SAT
    escrow.stage.accepts("a state that leaves the buyer 294 sat", close)


FORGETS = "a node forgets what waits"


@scenario(FORGETS)
def the_same_bytes_again(escrow: Escrow) -> None:
    close = escrow.closed(PAID_MSAT, LOCK)
    for one in (close, close, escrow.claim(close), close):
        assert escrow.stage.judge.offer(one) == ""
    escrow.stage.accepts("a state and its claim, offered again", close, escrow.claim(close))
    escrow.stage.judge.offer(close)
    assert not escrow.stage.judge.waits(close.txid)
    assert escrow.stage.judge.confirmed(close.txid) == close


KILLED = "either side is killed at any step"


@scenario(KILLED)
def the_same_signatures_from_the_keys_alone(escrow: Escrow) -> None:
    again = Escrow(escrow.stage, contract_of("regtest", dataclasses.replace(escrow.contract.terms)), escrow.funding)
    assert again.contract == escrow.contract
    assert again.closed(PAID_MSAT, LOCK).serialise() == escrow.closed(PAID_MSAT, LOCK).serialise()
    assert again.refund().serialise() == escrow.refund().serialise()
    close = escrow.publish()
    assert again.claim(close).serialise() == escrow.claim(close).serialise()
    assert again.lapse(close).serialise() == escrow.lapse(close).serialise()
    escrow.stage.accepts("the claim of a seller who came back", again.claim(close))


@scenario(KILLED)
def the_refund_from_the_keys_alone(escrow: Escrow) -> None:
    again = Escrow(escrow.stage, contract_of("regtest", escrow.contract.terms), escrow.funding)
    again.until(escrow.contract.terms.refund_height)
    escrow.stage.accepts("the refund of a buyer who came back", again.refund())


ELSEWHERE = {
    "seller does not answer, or declines": (
        "escrow/test_failures.py::test_a_declined_offer_ends_with_its_reason",
        "escrow/test_failures.py::test_terms_that_a_seller_declines",
    ),
    "not funded in time (120 s)": (
        "escrow/test_failures.py::test_a_channel_not_funded_in_time_is_released_and_served_when_the_money_comes_after_all",
        "escrow/test_failures.py::test_funding_that_comes_after_giving_up_is_brought_home",
    ),
    "the result is rubbish although paid": ("core/test_buying.py::test_bought_once_a_bad_result_is_not_bought_again",),
}
"""Rows in which nothing reaches the chain, and the tests that walk them."""
