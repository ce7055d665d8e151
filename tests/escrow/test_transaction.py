"""Transactions as bytes, and the digest of BIP143 against real signatures; more vectors are in ``core_vectors``."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escrow.core.script import p2wpkh, p2wpkh_code, p2wsh, witness_program
from escrow.core.transaction import (
    BadTransaction,
    Tx,
    TxIn,
    compact,
    merkle_root,
    outpoint_bytes,
    parse,
    parse_block,
    read_id,
    read_outpoint,
    sha256,
    show_id,
)
from escrow.shell.consensus import verify_input
from tests.escrow.core_vectors import transactions_of
from wire.account import hash160, sha256d
from wire.keys import verify_ecdsa
from wire.ports import OutPoint, TxOut


def test_valid_transactions_come_back_byte_for_byte() -> None:
    seen = 0
    for _, text, _ in transactions_of("tx_valid.json"):
        raw = bytes.fromhex(text)
        transaction = parse(raw)
        assert transaction.serialise() == raw
        assert transaction.wtxid == sha256d(raw)
        assert 4 * transaction.vsize >= transaction.weight > 4 * (transaction.vsize - 1)
        seen += 1
    assert seen == 121


def test_invalid_transactions_are_parsed_or_named() -> None:
    unread = 0
    for _, text, _ in transactions_of("tx_invalid.json"):
        raw = bytes.fromhex(text)
        try:
            assert parse(raw).serialise() == raw
        except BadTransaction:
            unread += 1
    assert unread <= 3


def test_the_kernel_accepts_what_core_accepts() -> None:
    checked = 0
    for spent, text, flags in transactions_of("tx_valid.json"):
        transaction = parse(bytes.fromhex(text))
        outputs = [spent.get(one.outpoint) for one in transaction.inputs]
        known = [one for one in outputs if one is not None]
        if not flags and len(known) == len(outputs):
            for index in range(len(known)):
                assert verify_input(transaction, index, known)
            checked += 1
    assert checked >= 40


def test_the_digest_is_what_real_signatures_signed() -> None:
    """Every witness v0 input of the valid vectors whose script is one key: its signature verifies over our digest."""
    checked: set[int] = set()
    total = 0
    for spent, text, _ in transactions_of("tx_valid.json"):
        transaction = parse(bytes.fromhex(text))
        for index, one in enumerate(transaction.inputs):
            output = spent.get(one.outpoint)
            if output is None or not one.witness:
                continue
            found = _one_key(output, one)
            if found is None:
                continue
            key, signature, code = found
            digest = transaction.digest(index, code, output.value_sat, signature[-1])
            assert verify_ecdsa(key, digest, signature[:-1]), (text[:40], index)
            assert not verify_ecdsa(key, transaction.digest(index, code, output.value_sat + 1, signature[-1]), signature[:-1])
            checked.add(signature[-1])
            total += 1
    assert total >= 20
    assert checked >= {0x01, 0x02, 0x03, 0x81, 0x82, 0x83}


def _one_key(output: TxOut, spending: TxIn) -> tuple[bytes, bytes, bytes] | None:
    """Key, signature and script code of an input that spends to one key."""
    program = witness_program(output.script)
    if program is None or program[0] != 0:
        return None
    if len(program[1]) == 20 and len(spending.witness) == 2 and len(spending.witness[1]) == 33:
        assert p2wpkh(spending.witness[1]) == output.script
        return spending.witness[1], spending.witness[0], p2wpkh_code(spending.witness[1])
    script = spending.witness[-1]
    if len(spending.witness) == 2 and len(script) == 35 and script[0] == 33 and script[34] == 0xAC:
        assert p2wsh(script) == output.script
        return script[1:34], spending.witness[0], script
    return None


def test_ids_are_read_and_shown_backwards() -> None:
    raw = bytes(range(32))
    assert read_id(show_id(raw)) == raw
    assert show_id(raw).startswith("1f1e")
    for text in ("", "00", "zz" * 32, "00" * 33):
        with pytest.raises(BadTransaction):
            read_id(text)


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "short-transaction"),
        (bytes(9), "short-transaction"),
        (b"\x02\x00\x00\x00\xff" + b"\xff" * 8, "short-transaction"),
        (b"\x02\x00\x00\x00\xfd\x01\x00" + bytes(60), "bad-compact"),
        (b"\x02\x00\x00\x00\xfe\x01\x00\x00\x00" + bytes(60), "bad-compact"),
        (b"\x02\x00\x00\x00" + bytes(400_000), "oversize"),
    ],
)
def test_bad_bytes_are_named(raw: bytes, code: str) -> None:
    with pytest.raises(BadTransaction) as refused:
        parse(raw)
    assert refused.value.code == code


TRANSACTIONS = st.builds(
    Tx,
    inputs=st.lists(
        st.builds(
            TxIn,
            outpoint=st.builds(OutPoint, st.binary(min_size=32, max_size=32), st.integers(0, 0xFFFFFFFF)),
            sequence=st.integers(0, 0xFFFFFFFF),
            script=st.binary(max_size=300),
            witness=st.lists(st.binary(max_size=300), max_size=3).map(tuple),
        ),
        min_size=1,
        max_size=3,
    ).map(tuple),
    outputs=st.lists(
        st.builds(TxOut, st.integers(-(1 << 63), (1 << 63) - 1), st.binary(max_size=300)), min_size=0, max_size=3
    ).map(tuple),
    lock_time=st.integers(0, 0xFFFFFFFF),
    version=st.integers(-(1 << 31), (1 << 31) - 1),
)


@given(transaction=TRANSACTIONS)
def test_every_transaction_comes_back(transaction: Tx) -> None:
    raw = transaction.serialise()
    assert parse(raw) == transaction
    for cut in (1, len(raw) // 2):
        with pytest.raises(BadTransaction):
            parse(raw[:-cut])
    with pytest.raises(BadTransaction):
        parse(raw + b"\x00")


@given(raw=st.binary(max_size=200))
def test_any_bytes_are_parsed_or_named(raw: bytes) -> None:
    for read in (parse, parse_block):
        try:
            found: Any = read(raw)
        except BadTransaction:
            continue
        assert read is parse_block or found.serialise() == raw


@given(number=st.integers(0, (1 << 64) - 1))
def test_compact_is_shortest(number: int) -> None:
    assert len(compact(number)) == (1 if number < 253 else 3 if number < 1 << 16 else 5 if number < 1 << 32 else 9)


def test_small_things() -> None:
    outpoint = OutPoint(bytes(range(32)), 0x01020304)
    assert read_outpoint(outpoint_bytes(outpoint)) == outpoint
    one, two, three = (sha256(bytes([number])) for number in range(3))
    assert merkle_root([one]) == one
    assert merkle_root([one, two, three]) == sha256d(sha256d(one + two) + sha256d(three + three))
    assert len(hash160(b"")) == 20
