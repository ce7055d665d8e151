"""What the scripts are made of: amounts, sizes, branch keys, opcodes, addresses. What they let through is in ``test_paths``."""

import pytest

from escrow.core import amounts
from escrow.core.amounts import capacity_least_sat, capacity_sat, dust_sat, enforced_from_sat, fee_sat, usable_msat
from escrow.core.contract import HEIGHT_MAX, Branch, branch_tweak, contract_of
from escrow.core.script import BadAddress, address_of, p2wpkh, push, script_number, script_of
from escrow.core.spends import OverCapacity, claim, lapse, refund, ruling, state
from escrow.core.transaction import Tx, TxIn
from escrow.shell.regtest import Regtest
from tests.escrow.pair import BUYER, SELLER, build_funding
from tests.escrow.scenarios import KEY, LOCK, terms_at
from wire.keys import tweak_public
from wire.ports import OutPoint, Rejected, TxOut


@pytest.fixture(params=[True, False], ids=["arbiter", "plain"])
def arbiter(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


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


def test_not_a_satoshi_more_than_the_capacity(arbiter: bool) -> None:
    contract, funding = contract_of("regtest", terms_at(500, arbiter)), OutPoint(bytes(32), 0)
    assert state(contract, funding, contract.usable_msat, None).outputs[1].value_sat == 294
    with pytest.raises(OverCapacity):
        state(contract, funding, contract.usable_msat + 1, None)
    with pytest.raises(OverCapacity):
        state(contract, funding, -1, None)


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
    contract = contract_of("regtest", terms_at(500, True))
    for paid_sat, worth in ((433, False), (434, True)):
        close = state(contract, OutPoint(bytes(32), 0), paid_sat * 1_000, LOCK)
        assert (claim(contract, close, LOCK, KEY, SELLER, 140) is not None) == worth
    close = state(contract, OutPoint(bytes(32), 0), 400_000, LOCK)
    assert lapse(contract, close, LOCK, BUYER, 1_000) is None


# --- bytes -------------------------------------------------------------------------------------------------------


def test_public_and_secret_tweaks_agree() -> None:
    contract = contract_of("regtest", terms_at(500, True))
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
    other = contract_of("signet", terms_at(500, True))
    assert {other.buyer_coop, other.channel}.isdisjoint({contract.buyer_coop, contract.channel})


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
