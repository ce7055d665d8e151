"""What the scripts let through: every branch of the escrow and of the conditional output before the real consensus code."""

import dataclasses

import pytest

from escrow.core import amounts
from escrow.core.amounts import capacity_least_sat, capacity_sat, dust_sat, enforced_from_sat, fee_sat, usable_msat
from escrow.core.contract import HEIGHT_MAX, Branch, Contract, Terms, branch_tweak, contract_of
from escrow.core.script import BadAddress, Op, address_of, assemble, p2wpkh, p2wsh, push, script_number, script_of
from escrow.core.spends import (
    OverCapacity,
    SpendKind,
    claim,
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
from escrow.core.transaction import SEQUENCE_FINAL, Tx, TxIn, sha256
from escrow.shell.regtest import Regtest
from tests.escrow.pair import BUYER, SELLER, build_funding
from wire.keys import SecretKey, tweak_public
from wire.ports import OutPoint, Rejected, TxOut

ARBITER, STRANGER = SecretKey(b"\x33" * 32), SecretKey(b"\x44" * 32)
KEY = b"\x5a" * 32
LOCK = sha256(KEY)
DELAY = 6
SCRIPT_FAILS = "mandatory-script-verify-flag-failed"


@dataclasses.dataclass
class Escrow:
    """A funded and confirmed escrow."""

    chain: Regtest
    contract: Contract
    funding: OutPoint

    @property
    def buyer_coop(self) -> SecretKey:
        return self.contract.secret(BUYER, Branch.COOPERATE)

    @property
    def seller_coop(self) -> SecretKey:
        return self.contract.secret(SELLER, Branch.COOPERATE)

    def closed(self, paid_msat: int, lock: bytes | None) -> Tx:
        der = sign_state(self.contract, self.buyer_coop, self.funding, paid_msat, lock)
        return complete(self.contract, state(self.contract, self.funding, paid_msat, lock), der, self.seller_coop)

    def accepts(self, transaction: Tx) -> None:
        self.chain.submit(transaction.serialise())
        self.chain.mine()
        assert self.chain.transaction(transaction.txid) is not None

    def refuses(self, transaction: Tx, code: str) -> None:
        """The mempool names ``code``, and the kernel does not take a block with it either."""
        with pytest.raises(Rejected) as refused:
            self.chain.submit(transaction.serialise())
        assert refused.value.code == code
        height = self.chain.height
        with pytest.raises(Rejected, match="invalid"):
            self.chain.mine_exactly([transaction], 0)
        assert self.chain.height == height


def terms_at(height: int, arbiter: bool = True, **changes: object) -> Terms:
    fields: dict[str, object] = {
        "version": 1,
        "instance": b"\x07" * 32,
        "buyer": BUYER.public,
        "seller": SELLER.public,
        "nonce": height.to_bytes(32, "big"),
        "capacity_sat": 300_000,
        "arbiter": ARBITER.public if arbiter else None,
        "ruling_height": height + 5 if arbiter else 0,
        "refund_height": height + 9,
        "claim_delay_blocks": DELAY,
        "feerate_sat_per_kvb": 1_000,
        "credit_sat": 0,
    }
    return Terms(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.fixture(params=[True, False], ids=["arbiter", "plain"])
def arbiter(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def funded(chain: Regtest, arbiter: bool, **changes: object) -> Escrow:
    contract = contract_of("regtest", terms_at(chain.height, arbiter, **changes))
    raw = build_funding(chain, [contract.funding])
    txid = chain.submit(raw)
    chain.mine()
    return Escrow(chain, contract, OutPoint(txid, 0))


@pytest.fixture
def escrow(chain: Regtest, arbiter: bool) -> Escrow:
    return funded(chain, arbiter)


# --- the cooperative branch --------------------------------------------------------------------------------------


def test_both_together_at_any_time(escrow: Escrow) -> None:
    close = escrow.closed(20_000_000, None)
    assert classify(escrow.contract, close, escrow.funding, []).kind is SpendKind.SETTLED
    escrow.accepts(close)


def test_a_spent_escrow_is_not_spent_again(escrow: Escrow) -> None:
    escrow.accepts(escrow.closed(20_000_000, None))
    escrow.refuses(escrow.closed(30_000_000, None), "bad-txns-inputs-missingorspent")


def test_one_signature_is_not_enough(escrow: Escrow) -> None:
    close = escrow.closed(20_000_000, None)
    stack = close.inputs[0].witness
    for one, other in ((1, 1), (2, 2)):
        forged = (b"", stack[one], stack[other], b"\x01", stack[4])
        escrow.refuses(close.with_witness(0, forged), SCRIPT_FAILS)


def test_account_keys_do_not_sign_for_branch_keys(escrow: Escrow) -> None:
    unsigned = state(escrow.contract, escrow.funding, 20_000_000, None)
    digest = escrow_digest(escrow.contract, unsigned)
    wrong = escrow.contract.cooperative_witness(sign_spend(BUYER, digest), sign_spend(SELLER, digest))
    escrow.refuses(unsigned.with_witness(0, wrong), SCRIPT_FAILS)


def test_an_amount_changed_after_signing(escrow: Escrow) -> None:
    close = escrow.closed(20_000_000, None)
    more = dataclasses.replace(close.outputs[0], value_sat=close.outputs[0].value_sat + 1)
    escrow.refuses(dataclasses.replace(close, outputs=(more, close.outputs[1])), SCRIPT_FAILS)


def test_the_seller_inflates_the_state_and_signs_it_anew(escrow: Escrow) -> None:
    der = sign_state(escrow.contract, escrow.buyer_coop, escrow.funding, 20_000_000, None)
    bigger = state(escrow.contract, escrow.funding, 70_000_000, None)
    assert not is_signed(escrow.contract, escrow.funding, 70_000_000, None, der)
    escrow.refuses(complete(escrow.contract, bigger, der, escrow.seller_coop), SCRIPT_FAILS)


def test_a_locked_signature_is_no_settled_signature(escrow: Escrow) -> None:
    der = sign_state(escrow.contract, escrow.buyer_coop, escrow.funding, 20_000_000, LOCK)
    assert is_signed(escrow.contract, escrow.funding, 20_000_000, LOCK, der)
    assert not is_signed(escrow.contract, escrow.funding, 20_000_000, None, der)
    assert not is_signed(escrow.contract, escrow.funding, 20_000_000, sha256(b"other"), der)
    settled = state(escrow.contract, escrow.funding, 20_000_000, None)
    escrow.refuses(complete(escrow.contract, settled, der, escrow.seller_coop), SCRIPT_FAILS)


# --- the refund --------------------------------------------------------------------------------------------------


def test_refund_waits_for_its_height(escrow: Escrow) -> None:
    taking = refund(escrow.contract, escrow.funding, BUYER, 1_000)
    escrow.chain.mine(escrow.contract.terms.refund_height - escrow.chain.height - 1)
    escrow.refuses(taking, "non-final")
    escrow.chain.mine()
    assert classify(escrow.contract, taking, escrow.funding, []).kind is SpendKind.REFUNDED
    escrow.accepts(taking)


@pytest.mark.parametrize("trick", ["earlier lock time", "final sequence", "seller's key", "commitment as refund"])
def test_refund_tricks(escrow: Escrow, trick: str) -> None:
    taking = refund(escrow.contract, escrow.funding, BUYER, 1_000)
    key = escrow.contract.secret(BUYER, Branch.REFUND)
    if trick == "earlier lock time":
        taking = dataclasses.replace(taking, lock_time=escrow.chain.height)
    elif trick == "final sequence":
        taking = dataclasses.replace(taking, inputs=(TxIn(outpoint=escrow.funding, sequence=SEQUENCE_FINAL),))
    elif trick == "seller's key":
        escrow.chain.mine(escrow.contract.terms.refund_height - escrow.chain.height)
        key = escrow.contract.secret(SELLER, Branch.REFUND)
    signature = sign_spend(key, escrow_digest(escrow.contract, taking))
    if trick == "commitment as refund":
        taking = state(escrow.contract, escrow.funding, 20_000_000, LOCK)
        signature = sign_spend(escrow.buyer_coop, escrow_digest(escrow.contract, taking))
    escrow.refuses(taking.with_witness(0, escrow.contract.refund_witness(signature)), SCRIPT_FAILS)


# --- the ruling --------------------------------------------------------------------------------------------------


def rule(escrow: Escrow, first: SecretKey, second: SecretKey, **changes: object) -> Tx:
    unsigned = dataclasses.replace(ruling(escrow.contract, escrow.funding, 100_000, 199_000), **changes)  # type: ignore[arg-type]
    digest = escrow_digest(escrow.contract, unsigned)
    return unsigned.with_witness(0, escrow.contract.ruling_witness(sign_spend(first, digest), sign_spend(second, digest)))


@pytest.mark.parametrize("party", [BUYER, SELLER])
def test_arbiter_with_one_party_from_his_height_on(chain: Regtest, party: SecretKey) -> None:
    escrow = funded(chain, arbiter=True)
    partner = escrow.contract.secret(party, Branch.RULE)
    chain.mine(escrow.contract.terms.ruling_height - chain.height - 1)
    escrow.refuses(rule(escrow, ARBITER, partner), "non-final")
    escrow.refuses(rule(escrow, ARBITER, partner, lock_time=chain.height), SCRIPT_FAILS)
    chain.mine()
    escrow.refuses(rule(escrow, STRANGER, partner), SCRIPT_FAILS)
    escrow.refuses(rule(escrow, ARBITER, ARBITER), SCRIPT_FAILS)
    escrow.refuses(rule(escrow, ARBITER, party), SCRIPT_FAILS)
    escrow.refuses(rule(escrow, partner, partner), SCRIPT_FAILS)
    final = rule(escrow, ARBITER, partner)
    assert classify(escrow.contract, final, escrow.funding, []).kind is SpendKind.RULED
    escrow.accepts(final)


def test_no_arbiter_rules_where_none_was_agreed(chain: Regtest) -> None:
    escrow = funded(chain, arbiter=False)
    with pytest.raises(Exception, match="no arbiter"):
        rule(escrow, ARBITER, BUYER)


# --- the conditional output --------------------------------------------------------------------------------------


@pytest.fixture
def published(escrow: Escrow) -> Tx:
    close = escrow.closed(20_000_000, LOCK)
    found = classify(escrow.contract, close, escrow.funding, [sha256(b"x"), LOCK])
    assert (found.kind, found.lock) == (SpendKind.CONDITIONAL, LOCK)
    assert classify(escrow.contract, close, escrow.funding, []).lock is None
    escrow.accepts(close)
    return close


def test_the_claim_shows_the_key(escrow: Escrow, published: Tx) -> None:
    taking = claim(escrow.contract, published, LOCK, KEY, SELLER, 140)
    assert taking is not None
    assert key_shown(taking, OutPoint(published.txid, 0), LOCK) == KEY
    assert key_shown(taking, OutPoint(published.txid, 1), LOCK) is None
    assert key_shown(taking, OutPoint(published.txid, 0), sha256(b"other")) is None
    escrow.accepts(taking)


@pytest.mark.parametrize("trick", ["wrong key", "short key", "long key", "buyer with the key", "no key", "account key"])
def test_claim_tricks(escrow: Escrow, published: Tx, trick: str) -> None:
    preimage = {"wrong key": b"\x00" * 32, "short key": KEY[:31], "long key": KEY + b"\x00", "no key": b""}.get(trick, KEY)
    if trick == "buyer with the key":
        taking = claim(escrow.contract, published, LOCK, preimage, BUYER, 140)
    else:
        taking = claim(escrow.contract, published, LOCK, preimage, SELLER, 140)
    assert taking is not None
    if trick == "account key":
        digest = taking.digest(0, escrow.contract.conditional_script(LOCK), published.outputs[0].value_sat)
        taking = taking.with_witness(0, escrow.contract.claim_witness(LOCK, KEY, sign_spend(SELLER, digest)))
    escrow.refuses(taking, SCRIPT_FAILS)


def test_a_hash_of_another_length_is_no_key(escrow: Escrow) -> None:
    """The script asks for exactly 32 bytes, so a lock over something else cannot be opened at all."""
    long = b"\x01" * 33
    close = escrow.closed(20_000_000, sha256(long))
    escrow.accepts(close)
    taking = claim(escrow.contract, close, sha256(long), long, SELLER, 140)
    assert taking is not None
    escrow.refuses(taking, SCRIPT_FAILS)


def test_the_lapse_waits_for_its_delay(escrow: Escrow, published: Tx) -> None:
    taking = lapse(escrow.contract, published, LOCK, BUYER, 1_000)
    assert taking is not None
    escrow.refuses(taking, "non-BIP68-final")
    escrow.chain.mine(DELAY - 2)
    escrow.refuses(taking, "non-BIP68-final")
    sooner = dataclasses.replace(taking, inputs=(dataclasses.replace(taking.inputs[0], sequence=1),))
    code = escrow.contract.conditional_script(LOCK)
    signature = sign_spend(escrow.contract.secret(BUYER, Branch.LAPSE), sooner.digest(0, code, published.outputs[0].value_sat))
    escrow.refuses(sooner.with_witness(0, escrow.contract.lapse_witness(LOCK, signature)), SCRIPT_FAILS)
    old = dataclasses.replace(taking, version=1)
    signature = sign_spend(escrow.contract.secret(BUYER, Branch.LAPSE), old.digest(0, code, published.outputs[0].value_sat))
    escrow.refuses(old.with_witness(0, escrow.contract.lapse_witness(LOCK, signature)), SCRIPT_FAILS)
    escrow.chain.mine()
    by_seller = lapse(escrow.contract, published, LOCK, SELLER, 1_000)
    assert by_seller is not None
    escrow.refuses(by_seller, SCRIPT_FAILS)
    escrow.accepts(taking)


# --- amounts -----------------------------------------------------------------------------------------------------


def test_sizes_are_the_largest_possible(arbiter: bool) -> None:
    farthest = terms_at(HEIGHT_MAX - 9, arbiter, claim_delay_blocks=0xFFFF)
    contract = contract_of("regtest", farthest)
    longest, funding = bytes(72), OutPoint(b"\x01" * 32, 0)

    def size(transaction: Tx | None, witness: tuple[bytes, ...]) -> int:
        assert transaction is not None
        return transaction.with_witness(0, witness).vsize

    close = state(contract, funding, 20_000_000, LOCK)
    both = contract.cooperative_witness(longest, longest)
    limit = amounts.CLOSE_ARBITER_VBYTES if arbiter else amounts.CLOSE_PLAIN_VBYTES
    assert size(close, both) == limit
    assert size(state(contract, funding, 20_000_000, None), both) <= limit
    taking = claim(contract, close, LOCK, KEY, SELLER, 140)
    assert size(taking, contract.claim_witness(LOCK, KEY, longest)) == amounts.CLAIM_VBYTES
    lapsing = lapse(contract, close, LOCK, BUYER, 1_000)
    assert size(lapsing, contract.lapse_witness(LOCK, longest)) <= amounts.LAPSE_VBYTES
    refunding = refund(contract, funding, BUYER, 1_000)
    assert size(refunding, contract.refund_witness(longest)) <= amounts.REFUND_VBYTES
    if arbiter:
        assert size(refunding, contract.refund_witness(longest)) == amounts.REFUND_VBYTES
        ruled = ruling(contract, funding, 1_000, 1_000)
        assert size(ruled, contract.ruling_witness(longest, longest)) == amounts.RULING_VBYTES
    pay = TxIn(outpoint=funding, witness=(longest, BUYER.public))
    paying = Tx(inputs=(pay,), outputs=(TxOut(1, contract.funding.script), TxOut(1, p2wpkh(BUYER.public))))
    assert paying.vsize == amounts.FUND_VBYTES


@pytest.mark.parametrize(
    ("script", "dust"),
    [(b"\x76\xa9\x14" + bytes(20) + b"\x88\xac", 546), (b"\x00\x14" + bytes(20), 294), (b"\x00\x20" + bytes(32), 330)],
)
def test_dust(chain: Regtest, script: bytes, dust: int) -> None:
    assert dust_sat(script) == dust
    with pytest.raises(Rejected, match="dust"):
        chain.submit(build_funding(chain, [TxOut(dust - 1, script)]))
    chain.submit(build_funding(chain, [TxOut(dust, script)]))
    chain.mine()


@pytest.mark.parametrize(
    ("paid_sat", "lock", "outputs"),
    [(0, None, 1), (293, None, 1), (294, None, 2), (329, LOCK, 1), (330, LOCK, 2), (294, LOCK, 1)],
)
def test_dust_is_left_to_the_fee(escrow: Escrow, paid_sat: int, lock: bytes | None, outputs: int) -> None:
    close = escrow.closed(paid_sat * 1_000 + 999, lock)
    assert len(close.outputs) == outputs
    fee = escrow.contract.terms.capacity_sat - sum(one.value_sat for one in close.outputs)
    assert fee == escrow.contract.close_fee_sat + (paid_sat if outputs == 1 else 0)
    escrow.accepts(close)


def test_the_whole_capacity_and_not_a_satoshi_more(escrow: Escrow) -> None:
    most = escrow.contract.usable_msat
    close = escrow.closed(most, None)
    assert close.outputs[1].value_sat == 294
    with pytest.raises(OverCapacity):
        state(escrow.contract, escrow.funding, most + 1, None)
    with pytest.raises(OverCapacity):
        state(escrow.contract, escrow.funding, -1, None)
    escrow.accepts(close)


@pytest.mark.parametrize("feerate", [1_000, 3_333, 50_000])
@pytest.mark.parametrize("total_msat", [1, 999_999, 1_000_000, 77_000_001, 10**9])
def test_capacity_covers_what_it_was_made_for(total_msat: int, feerate: int, arbiter: bool) -> None:
    capacity = capacity_sat(total_msat, feerate, arbiter=arbiter)
    assert usable_msat(capacity, feerate, arbiter=arbiter) >= total_msat
    assert capacity >= capacity_least_sat(feerate, arbiter=arbiter)
    if capacity > capacity_least_sat(feerate, arbiter=arbiter):
        assert usable_msat(capacity - 1, feerate, arbiter=arbiter) < total_msat
    assert usable_msat(100, feerate, arbiter=arbiter) == 0


def test_fees_round_up_and_claims_must_be_worth_it() -> None:
    assert (fee_sat(192, 1_000), fee_sat(192, 1_001), fee_sat(1, 1)) == (192, 193, 1)
    assert enforced_from_sat(1_000) == 434
    contract = contract_of("regtest", terms_at(500))
    for paid_sat, worth in ((433, False), (434, True)):
        close = state(contract, OutPoint(bytes(32), 0), paid_sat * 1_000, LOCK)
        assert (claim(contract, close, LOCK, KEY, SELLER, 140) is not None) == worth
    close = state(contract, OutPoint(bytes(32), 0), 400_000, LOCK)
    assert lapse(contract, close, LOCK, BUYER, 1_000) is None


# --- bytes -------------------------------------------------------------------------------------------------------


def test_public_and_secret_tweaks_agree() -> None:
    contract = contract_of("regtest", terms_at(500))
    pairs = [
        (contract.buyer_coop, BUYER, Branch.COOPERATE),
        (contract.seller_coop, SELLER, Branch.COOPERATE),
        (contract.buyer_rule, BUYER, Branch.RULE),
        (contract.seller_rule, SELLER, Branch.RULE),
        (contract.buyer_refund, BUYER, Branch.REFUND),
        (contract.seller_claim, SELLER, Branch.CLAIM),
        (contract.buyer_lapse, BUYER, Branch.LAPSE),
    ]
    for public, key, branch in pairs:
        assert contract.secret(key, branch).public == public
        assert public == tweak_public(key.public, branch_tweak("regtest", branch, contract.terms.nonce))
    assert len({public for public, _, _ in pairs}) == 7
    other = contract_of("signet", terms_at(500))
    assert {other.buyer_coop, other.channel}.isdisjoint({contract.buyer_coop, contract.channel})


def test_the_script_is_the_miniscript_it_claims_to_be() -> None:
    """The bytes are spelled out from the descriptor's own keys, so descriptor and script cannot drift apart."""
    for with_arbiter in (True, False):
        contract = contract_of("regtest", terms_at(500, with_arbiter))
        text = contract.descriptor()
        keys = [bytes.fromhex(one) for one in _hex_words(text)]
        two = [2, keys[0], keys[1], 2, Op.CHECKMULTISIG]
        alone = [keys[-1], Op.CHECKSIGVERIFY, 509, Op.CHECKLOCKTIMEVERIFY]
        if with_arbiter:
            middle = [keys[2], Op.CHECKSIGVERIFY, 505, Op.CHECKLOCKTIMEVERIFY, Op.VERIFY]
            middle += [1, keys[3], keys[4], 2, Op.CHECKMULTISIG]
            script = assemble(Op.IF, *two, Op.ELSE, Op.IF, *middle, Op.ELSE, *alone, Op.ENDIF, Op.ENDIF)  # type: ignore[arg-type]
            assert text.count("or_i") == 2
        else:
            script = assemble(Op.IF, *two, Op.ELSE, *alone, Op.ENDIF)  # type: ignore[arg-type]
            assert text.count("or_i") == 1
        assert contract.witness_script == script
        assert contract.funding.script == p2wsh(script)
        assert len(set(keys)) == len(keys)
        lock, one, other = (bytes.fromhex(word) for word in _hex_words(contract.conditional_descriptor(LOCK)))
        assert lock == LOCK
        assert contract.conditional_script(LOCK) == assemble(
            Op.IF, Op.SIZE, 32, Op.EQUALVERIFY, Op.SHA256, lock, Op.EQUALVERIFY, one, Op.CHECKSIG,
            Op.ELSE, other, Op.CHECKSIGVERIFY, DELAY, Op.CHECKSEQUENCEVERIFY, Op.ENDIF,
        )  # fmt: skip


def _hex_words(text: str) -> list[str]:
    import re

    return re.findall(r"[0-9a-f]{64,66}", text)


@pytest.mark.parametrize(
    ("number", "raw"),
    [(0, ""), (1, "01"), (127, "7f"), (128, "8000"), (255, "ff00"), (256, "0001"), (-1, "81"), (-127, "ff"), (-128, "8080"),
     (499_999_999, "ff64cd1d")],
)  # fmt: skip
def test_script_numbers(number: int, raw: str) -> None:
    assert script_number(number).hex() == raw


@pytest.mark.parametrize(
    ("data", "start"),
    [(b"", b"\x00"), (b"\x01", b"\x51"), (b"\x10", b"\x60"), (b"\x81", b"\x4f"), (b"\x11", b"\x01\x11"), (b"a" * 75, b"\x4baa"),
     (b"a" * 76, b"\x4c\x4caa"), (b"a" * 256, b"\x4d\x00\x01aa")],
)  # fmt: skip
def test_pushes_are_minimal(data: bytes, start: bytes) -> None:
    assert push(data) == (start + data[2:] if data[:1] == b"a" else start)


ADDRESSES = [
    ("BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4", "bc", "0014751e76e8199196d454941c45d1b3a323f1433bd6"),
    (
        "tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3q0sl5k7",
        "tb",
        "00201863143c14c5166804bd19203356da136c985678cd4d27a1b8c6329604903262",
    ),
    (
        "bc1pw508d6qejxtdg4y5r3zarvary0c5xw7kw508d6qejxtdg4y5r3zarvary0c5xw7kt5nd6y",
        "bc",
        "5128751e76e8199196d454941c45d1b3a323f1433bd6751e76e8199196d454941c45d1b3a323f1433bd6",
    ),
    ("BC1SW50QGDZ25J", "bc", "6002751e"),
    ("bc1zw508d6qejxtdg4y5r3zarvaryvaxxpcs", "bc", "5210751e76e8199196d454941c45d1b3a323"),
    (
        "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0",
        "bc",
        "512079be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
    ),
    ("bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080", "bcrt", "0014751e76e8199196d454941c45d1b3a323f1433bd6"),
]

NO_ADDRESSES = [
    "tc1qw508d6qejxtdg4y5r3zarvary0c5xw7kg3g4ty",
    "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5",
    "BC13W508D6QEJXTDG4Y5R3ZARVARY0C5XW7KN40WF2",
    "bc1rw5uspcuh",
    "bc10w508d6qejxtdg4y5r3zarvary0c5xw7kw508d6qejxtdg4y5r3zarvary0c5xw7kw5rljs90",
    "BC1QR508D6QEJXTDG4Y5R3ZARVARYV98GJ9P",
    "bc1zw508d6qejxtdg4y5r3zarvaryvqyzf3du",
    "bc1gmk9yu",
    "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqh2y7hd",
    "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kemeawh",
    "bc1Qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
    "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kvüf3t4",
    "tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3q0sl5k7",
    "",
    "1",
    "bc1",
]


@pytest.mark.parametrize(("text", "hrp", "script"), ADDRESSES)
def test_addresses_of_bip173_and_bip350(text: str, hrp: str, script: str) -> None:
    assert script_of(text, hrp).hex() == script
    assert address_of(bytes.fromhex(script), hrp) == text.lower()


@pytest.mark.parametrize("text", NO_ADDRESSES)
def test_what_is_no_address_here(text: str) -> None:
    with pytest.raises(BadAddress):
        script_of(text, "bc")


def test_other_scripts_have_no_address() -> None:
    for script in (b"", b"\x6a\x02ab", b"\x76\xa9\x14" + bytes(20) + b"\x88\xac", b"\x00\x14" + bytes(19)):
        with pytest.raises(BadAddress):
            address_of(script, "bc")
