"""Spends of the escrow's three scripts, good ones and bent ones, each made again from a seed and a number alone."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from random import Random

from escrow.core.contract import Branch, Contract, contract_of
from escrow.core.script import p2wpkh, p2wsh, push, script_number
from escrow.core.spends import state
from escrow.core.transaction import Tx, TxIn
from tests.escrow.interpreter import ORDER, read_der, write_der
from tests.escrow.pair import BUYER, SELLER
from tests.escrow.scenarios import ARBITER, KEY, LOCK, STRANGER, terms_at
from wire.keys import SecretKey
from wire.ports import OutPoint, TxOut

KINDS = ("settled", "locked", "ruling", "refund", "claim", "lapse")
SEQUENCES = (0, 1, 5, 6, 7, 100, 0xFFFF, 1 << 22 | 6, 1 << 31 | 6, 0x10006, 0xFFFFFFFD, 0xFFFFFFFE, 0xFFFFFFFF)
VERSIONS = (1, 2, 2, 2, 3, 0, -1, (1 << 31) - 1)
SIGHASHES = (0x01, 0x01, 0x02, 0x03, 0x81, 0x82, 0x83, 0x00, 0x04, 0x41, 0xFF)
TRUTHS = (b"\x01", b"\x02", b"\x00\x01", b"\x01\x00", b"\x81", b"", b"\x00", b"\x80", b"\x00\x00\x80", bytes(4))


@lru_cache(maxsize=64)
def contract(arbiter: bool, height: int) -> Contract:
    """One of a few contracts, so that keys are not tweaked for every spend."""
    return contract_of("regtest", terms_at(height, arbiter))


@lru_cache(maxsize=1_024)
def secret(one: Contract, who: SecretKey, branch: Branch) -> SecretKey:
    """A party's key for a branch."""
    return one.secret(who, branch)


@dataclass
class Case:
    """One spend: what kind it is, how it was bent, and all that is needed to judge it."""

    kind: str
    bend: str
    contract: Contract
    transaction: Tx
    spent: list[TxOut]
    paid_msat: int
    lock: bytes | None


@dataclass
class Draft:
    """A spend while it is being made. ``signers`` sign in the places where the witness holds a number."""

    random: Random
    kind: str
    contract: Contract
    transaction: Tx
    value_sat: int
    script: bytes
    shape: list[bytes | int]
    signers: list[SecretKey]
    paid_msat: int = 0
    lock: bytes | None = None
    sighash: int = 0x01
    extra: list[TxOut] | None = None

    def signed(self) -> Tx:
        """The transaction with its witness."""
        digest = self.transaction.digest(0, self.script, self.value_sat, self.sighash)
        signatures = [key.sign_ecdsa(digest) + bytes([self.sighash]) for key in self.signers]
        stack = [one if isinstance(one, bytes) else signatures[one] for one in self.shape]
        return self.transaction.with_witness(0, (*stack, self.script))

    @property
    def output(self) -> TxOut:
        return TxOut(self.value_sat, p2wsh(self.script))


def draft(random: Random) -> Draft:
    """A good spend of a random kind."""
    kind = random.choice(KINDS)
    arbiter = kind == "ruling" or random.random() < 0.5
    one = contract(arbiter, random.choice((100, 120, 32_760, 8_388_600)))
    funding = OutPoint(random.randbytes(32), random.randrange(3))
    paid_msat = random.choice((0, 293_000, 294_000, 330_000, 20_000_000, one.usable_msat))
    terms, lock = one.terms, LOCK if kind == "locked" else None
    if kind in ("settled", "locked"):
        coop = [secret(one, BUYER, Branch.COOPERATE), secret(one, SELLER, Branch.COOPERATE)]
        if one.buyer_coop > one.seller_coop:
            coop.reverse()
        unsigned, signers = state(one, funding, paid_msat, lock), coop
        shape: list[bytes | int] = [b"", 0, 1, b"\x01"]
    else:
        height = terms.ruling_height if kind == "ruling" else terms.refund_height if kind == "refund" else 0
        sequence = terms.claim_delay_blocks if kind == "lapse" else 0xFFFFFFFD
        outputs = (TxOut(terms.capacity_sat // 2, one.to_seller_script), TxOut(terms.capacity_sat // 3, one.to_buyer_script))
        unsigned = Tx(inputs=(TxIn(outpoint=funding, sequence=sequence),), outputs=outputs, lock_time=height)
        party = random.choice((BUYER, SELLER))
        ways: dict[str, tuple[list[bytes | int], list[SecretKey]]] = {
            "ruling": ([b"", 1, 0, b"\x01", b""], [ARBITER, secret(one, party, Branch.RULE)]),
            "refund": ([0, b"", b""] if arbiter else [0, b""], [secret(one, BUYER, Branch.REFUND)]),
            "claim": ([0, KEY, b"\x01"], [secret(one, SELLER, Branch.CLAIM)]),
            "lapse": ([0, b""], [secret(one, BUYER, Branch.LAPSE)]),
        }
        shape, signers = ways[kind]
    script = one.conditional_script(LOCK) if kind in ("claim", "lapse") else one.witness_script
    return Draft(random, kind, one, unsigned, terms.capacity_sat, script, list(shape), list(signers), paid_msat, lock)


# --- bends before signing: what the signers themselves may try -------------------------------------------------------


def _sequence(one: Draft) -> None:
    spending = replace(one.transaction.inputs[0], sequence=one.random.choice(SEQUENCES))
    one.transaction = replace(one.transaction, inputs=(spending, *one.transaction.inputs[1:]))


def _lock_time(one: Draft) -> None:
    terms, random = one.contract.terms, one.random
    near = [height + random.randrange(-2, 3) for height in (terms.ruling_height, terms.refund_height) if height]
    moments = [499_999_999, 500_000_000, 500_000_000 + terms.refund_height, 0xFFFFFFFF]
    one.transaction = replace(one.transaction, lock_time=max(0, random.choice([0, *near, *near, *moments])))


def _version(one: Draft) -> None:
    one.transaction = replace(one.transaction, version=one.random.choice(VERSIONS))


def _sighash(one: Draft) -> None:
    one.sighash = one.random.choice(SIGHASHES)


def _signer(one: Draft) -> None:
    keys = [BUYER, SELLER, ARBITER, STRANGER]
    keys += [secret(one.contract, who, branch) for who in (BUYER, SELLER) for branch in Branch]
    one.signers[one.random.randrange(len(one.signers))] = one.random.choice(keys)


def _more_inputs(one: Draft) -> None:
    random = one.random
    extra = [TxOut(random.randrange(1, 1 << 40), p2wpkh(STRANGER.public)) for _ in range(random.randrange(1, 3))]
    inputs = tuple(TxIn(outpoint=OutPoint(random.randbytes(32), 1), sequence=random.choice(SEQUENCES)) for _ in extra)
    one.transaction, one.extra = replace(one.transaction, inputs=one.transaction.inputs + inputs), [*(one.extra or []), *extra]


def _outputs(one: Draft) -> None:
    random, outputs = one.random, list(one.transaction.outputs)
    random.choice((outputs.clear, outputs.reverse, lambda: outputs.append(TxOut(random.randrange(1 << 40), b"\x6a"))))()
    one.transaction = replace(one.transaction, outputs=tuple(outputs))


def _script(one: Draft) -> None:
    """Another script, paid to and signed for: heights, delays, counts and single bytes changed."""
    random, script, terms = one.random, one.script, one.contract.terms
    numbers = [terms.refund_height, terms.ruling_height, terms.claim_delay_blocks, 32, 2, 1]
    old = push(script_number(random.choice(numbers)))
    new = push(random.choice([script_number(random.choice([*numbers, -1, 0, 1 << 31, 1 << 22, 500_000_001])), b"\x00", bytes(6)]))
    at = script.find(old)
    if random.random() < 0.6 and at >= 0:
        one.script = script[:at] + new + script[at + len(old) :]
    else:
        at = random.randrange(len(script))
        one.script = script[:at] + bytes([script[at] ^ 1 << random.randrange(8)]) + script[at + 1 :]


def _preimage(one: Draft) -> None:
    random = one.random
    keys = (KEY[:31], KEY + b"\x00", bytes(32), LOCK, b"", KEY[::-1], KEY)
    one.shape = [random.choice(keys) if item == KEY else item for item in one.shape]


def _selector(one: Draft) -> None:
    places = [at for at, item in enumerate(one.shape) if isinstance(item, bytes)]
    one.shape[one.random.choice(places)] = one.random.choice(TRUTHS)


# --- bends after signing: what anyone may try -----------------------------------------------------------------------


def _signature_places(one: Draft, transaction: Tx) -> list[int]:
    return [at for at, item in enumerate(one.shape) if isinstance(item, int)]


def _put(transaction: Tx, at: int, item: bytes) -> Tx:
    witness = list(transaction.inputs[0].witness)
    witness[at] = item
    return transaction.with_witness(0, tuple(witness))


def _signature_byte(one: Draft, transaction: Tx) -> Tx:
    at = one.random.choice(_signature_places(one, transaction))
    item = bytearray(transaction.inputs[0].witness[at])
    item[one.random.randrange(len(item))] ^= 1 << one.random.randrange(8)
    return _put(transaction, at, bytes(item))


def _signature_form(one: Draft, transaction: Tx) -> Tx:
    """The same numbers in another encoding, or other numbers in the same."""
    random = one.random
    at = random.choice(_signature_places(one, transaction))
    item = transaction.inputs[0].witness[at]
    r, s = read_der(item[:-1])
    forms = [
        write_der(r, ORDER - s),
        write_der(r, s + ORDER if s + ORDER < 1 << 256 else 0),
        write_der(0, s),
        write_der(r, 0),
        write_der(ORDER, s),
        write_der(r, ORDER),
        write_der(s, r),
        bytes([0x30, item[1] + 1, 2, item[3] + 1, 0]) + item[4:-1],
        item[:-1] + b"\x00",
        item[:-2],
        b"\x30\x06\x02\x01\x01\x02\x01\x01",
        b"\x30\x81" + item[1:-1],
        b"",
    ]
    form = random.choice(forms)
    return _put(transaction, at, form + item[-1:] if form else b"")


def _witness_order(one: Draft, transaction: Tx) -> Tx:
    random, witness = one.random, list(transaction.inputs[0].witness)
    at = random.randrange(len(witness))
    move = random.randrange(6)
    if move == 0:
        random.shuffle(witness)
    elif move == 1:
        del witness[at]
    elif move == 2:
        witness.insert(at, random.choice((b"", b"\x01", witness[at], KEY, bytes(520), bytes(521))))
    elif move == 3:
        witness[at] = random.choice((*TRUTHS, *witness))
    elif move == 4:
        witness = witness[:at]
    else:
        other = random.randrange(len(witness))
        witness[at], witness[other] = witness[other], witness[at]
    return transaction.with_witness(0, tuple(witness))


def _after_signing(one: Draft, transaction: Tx) -> Tx:
    random = one.random
    spending = replace(transaction.inputs[0], sequence=random.choice(SEQUENCES))
    changes = (
        {"lock_time": random.choice((0, transaction.lock_time ^ 1, 0xFFFFFFFF))},
        {"version": random.choice(VERSIONS)},
        {"inputs": (spending, *transaction.inputs[1:])},
        {"inputs": (replace(spending, outpoint=OutPoint(random.randbytes(32), 0)), *transaction.inputs[1:])},
        {"outputs": (*transaction.outputs, TxOut(1, b""))},
        {"outputs": tuple(replace(output, value_sat=output.value_sat + 1) for output in transaction.outputs)},
        {"inputs": (replace(transaction.inputs[0], script=b"\x00"), *transaction.inputs[1:])},
    )
    return replace(transaction, **random.choice(changes))


def _none(one: Draft) -> None:
    pass


BEFORE: dict[str, Callable[[Draft], None]] = {
    "nothing": _none,
    "sequence": _sequence,
    "lock time": _lock_time,
    "version": _version,
    "sighash": _sighash,
    "signer": _signer,
    "more inputs": _more_inputs,
    "outputs": _outputs,
    "script": _script,
    "preimage": _preimage,
    "selector": _selector,
}
AFTER: dict[str, Callable[[Draft, Tx], Tx]] = {
    "signature byte": _signature_byte,
    "signature form": _signature_form,
    "witness order": _witness_order,
    "after signing": _after_signing,
}
OTHER_OUTPUT = "other output"
BENDS = (*BEFORE, *AFTER, OTHER_OUTPUT)


def make_case(seed: int, number: int) -> Case:
    """Spend ``number`` of the run with this seed."""
    random = Random(f"{seed}/{number}")
    one = draft(random)
    bend = random.choice(BENDS)
    if bend in BEFORE:
        BEFORE[bend](one)
    if random.random() < 0.15:  # a second one on top
        BEFORE[random.choice(tuple(BEFORE))](one)
    transaction, output = one.signed(), one.output
    if bend in AFTER:
        transaction = AFTER[bend](one, transaction)
    elif bend == OTHER_OUTPUT:
        other = contract(random.random() < 0.5, 140)
        output = random.choice(
            (replace(output, value_sat=output.value_sat + random.choice((-1, 1))), other.funding, TxOut(1, p2wsh(b"\x51")))
        )
    return Case(one.kind, bend, one.contract, transaction, [output, *(one.extra or [])], one.paid_msat, one.lock)
