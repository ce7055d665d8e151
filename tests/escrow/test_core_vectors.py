"""Public vectors: every row that applies agrees, and as many apply as ever did."""

import pytest

from escrow.core.transaction import BadTransaction, compact, parse
from escrow.shell.consensus import verify_input
from tests.escrow import core_vectors
from tests.escrow.core_vectors import Count
from wire.errors import InvariantBroken


@pytest.mark.parametrize(
    ("count", "rows", "applicable", "checked"),
    [
        (core_vectors.old_digests, 500, 500, 0),
        (core_vectors.bip143, 13, 13, 12),
        (core_vectors.valid_transactions, 121, 27, 42),
        (core_vectors.invalid_transactions, 93, 11, 11),
        (core_vectors.witness_scripts, 113, 50, 12),
        (core_vectors.signatures, 11, 11, 0),
    ],
    ids=lambda one: getattr(one, "__name__", None),
)
def test_every_row_that_applies_agrees(count: object, rows: int, applicable: int, checked: int) -> None:
    found = count()  # type: ignore[operator]
    assert isinstance(found, Count)
    assert found.wrong == []
    assert found.agreed == found.applicable
    assert (found.rows, found.applicable, found.checked) == (rows, applicable, checked)
    assert found.rows == found.applicable + sum(found.left_out.values())


def test_a_wrong_row_is_noticed() -> None:
    count = Count("none", "all")
    count.say(False, "a row")
    assert (count.applicable, count.agreed, count.wrong) == (1, 0, ["a row"])


def test_the_kernel_is_never_asked_with_outputs_missing() -> None:
    """It would end the process."""
    with pytest.raises(InvariantBroken, match="one spent output"):
        verify_input(parse(SPEND), 0, [])


SPEND = bytes.fromhex("02000000000101" + "aa" * 32 + "0000000000fdffffff01e803000000000000160014" + "bb" * 20 + "0101ff00000000")


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (SPEND + b"\x00", "trailing-bytes"),
        (SPEND[:-1], "short-transaction"),
        (SPEND.replace(b"\x01\x01\xff", b"\x00"), "empty-witness"),
        (SPEND.replace(b"\x01\x01\xff", b"\x01\xfd\x01\x00\xff"), "bad-compact"),
        (SPEND.replace(b"\x01\x01\xff", b"\xfd\x01\x00\x01\xff"), "bad-compact"),
        (SPEND.replace(b"\x01\x01\xff", b"\x01\xff" + b"\xff" * 8), "short-transaction"),
        (SPEND.replace(b"\x00\x01\x01" + b"\xaa", b"\x00\x01\xfe\x01\x00\x00\x00" + b"\xaa"), "bad-compact"),
        (SPEND[:4] + b"\x00\x02" + SPEND[6:], "short-transaction"),
        (SPEND.replace(b"\x01\x01\xff", b"\x01" + compact(400_000) + bytes(400_000)), "oversize"),
    ],
)
def test_only_one_way_to_write_a_transaction(raw: bytes, code: str) -> None:
    assert parse(SPEND).serialise() == SPEND
    with pytest.raises(BadTransaction) as refused:
        parse(raw)
    assert refused.value.code == code
