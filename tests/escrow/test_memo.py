"""The memo of a funding transaction: its maker finds his escrows again by his key, and to everybody else it is noise."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escrow.core.contract import Terms, contract_of
from escrow.core.memo import NOTE_BYTES, RULED_NOTE_BYTES, counter_of, data_in, data_output, found_in, note_of, sealed
from escrow.core.opening import propose_terms
from escrow.core.transaction import Tx, TxIn
from tests.escrow.pair import BUYER, INSTANCE, SELLER
from wire.keys import SecretKey
from wire.network import REGTEST
from wire.ports import OutPoint, TxOut

FIRST = OutPoint(b"\x05" * 32, 1)
CHANGE = TxOut(5_000, b"\x00\x14" + b"\x09" * 20)
ARBITER = SecretKey(b"\x33" * 32)


def terms_for(number: int, arbiter: bytes | None = None, height: int = 100, buyer: SecretKey = BUYER) -> Terms:
    seller = SecretKey((number + 1).to_bytes(32, "big")).public
    return propose_terms(
        buyer,
        seller,
        REGTEST,
        INSTANCE,
        height=height,
        feerate_sat_per_kvb=REGTEST.feerate_min_sat_per_kvb,
        capacity_sat=50_000 + number,
        counter=1_760_000_000 + number,
        arbiter=arbiter,
    )


def funding_of(all_terms: list[Terms], key: SecretKey = BUYER) -> Tx:
    outputs = [contract_of("regtest", one).funding for one in all_terms]
    notes = [note_of(key, REGTEST, one) for one in all_terms]
    memo = sealed(key, FIRST, (*outputs, CHANGE), notes)
    return Tx(inputs=(TxIn(outpoint=FIRST),), outputs=(*outputs, memo, CHANGE))


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.booleans(), st.integers(0, 16_000_000)), min_size=1, max_size=8, unique=True))
def test_the_key_alone_finds_every_escrow_of_a_transaction(sellers: list[tuple[int, bool, int]]) -> None:
    all_terms = [terms_for(number, ARBITER.public if ruled else None, height) for number, ruled, height in sellers]
    transaction = funding_of(all_terms)
    found = found_in(BUYER, REGTEST, INSTANCE, transaction)
    assert [one.outpoint for one in found] == [OutPoint(transaction.txid, vout) for vout in range(len(all_terms))]
    # Everything but what the chain does not show is as it was agreed.
    assert [one.contract.terms for one in found] == all_terms
    assert found_in(SELLER, REGTEST, INSTANCE, transaction) == ()
    assert found_in(BUYER, REGTEST, bytes(32), transaction) == ()


def test_sizes_and_what_two_escrows_cost() -> None:
    plain, ruled = terms_for(1), terms_for(2, ARBITER.public)
    assert [len(note_of(BUYER, REGTEST, one)) for one in (plain, ruled)] == [NOTE_BYTES, RULED_NOTE_BYTES] == [40, 75]
    with_memo = funding_of([plain, terms_for(3)])
    without = dataclasses.replace(with_memo, outputs=(*with_memo.outputs[:2], CHANGE))
    assert with_memo.vsize - without.vsize == 92


def test_what_cannot_be_found_again_has_no_note() -> None:
    good = terms_for(1)
    assert counter_of(good.nonce) == 1_760_000_001
    for other in (
        dataclasses.replace(good, nonce=bytes(32)),
        dataclasses.replace(good, nonce=good.nonce[:-1] + bytes([good.nonce[-1] ^ 1])),
        dataclasses.replace(good, refund_height=1 << 24),
    ):
        assert note_of(BUYER, REGTEST, other) == b""
    assert note_of(SELLER, REGTEST, good) == b""


def test_no_two_memos_share_a_keystream() -> None:
    """The same input again, after a funding that was never sent: what is said must not show by comparing the two."""
    one, other = funding_of([terms_for(1)]), funding_of([terms_for(2)])
    first, second = data_in(one.outputs[1]), data_in(other.outputs[1])
    assert first is not None
    assert second is not None
    mixed = bytes(a ^ b for a, b in zip(first, second, strict=True))
    notes = [note_of(BUYER, REGTEST, terms_for(number)) for number in (1, 2)]
    assert mixed != bytes(a ^ b for a, b in zip(*notes, strict=True))


def test_a_memo_moved_to_another_transaction_says_nothing() -> None:
    whole = funding_of([terms_for(1), terms_for(2)])
    for broken in (
        dataclasses.replace(whole, inputs=(TxIn(outpoint=OutPoint(FIRST.txid, 0)),)),
        dataclasses.replace(whole, outputs=(*whole.outputs[:3], dataclasses.replace(CHANGE, value_sat=4_999))),
        dataclasses.replace(whole, outputs=(*whole.outputs[:2], data_output(bytes(80)), CHANGE)),
    ):
        assert found_in(BUYER, REGTEST, INSTANCE, broken) == ()


@settings(max_examples=60)
@given(st.binary(max_size=400))
def test_foreign_data_outputs_are_read_without_harm(data: bytes) -> None:
    output = data_output(data)
    assert data_in(output) == (data if len(data) >= NOTE_BYTES else None)
    for script in (output.script + b"\x00", output.script[:-1], data):
        transaction = Tx(inputs=(TxIn(outpoint=FIRST),), outputs=(TxOut(0, script), CHANGE))
        assert found_in(BUYER, REGTEST, INSTANCE, transaction) == ()


@pytest.mark.parametrize("size", [40, 75, 76, 80, 255, 256, 10_000, 65_535])
def test_data_of_every_size_comes_back(size: int) -> None:
    assert data_in(data_output(b"\x07" * size)) == b"\x07" * size
