"""Reconciliation: byte for byte as the reference implementation, always the union, and bounded against any peer."""

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orderbook.core.negentropy import BadReconciliation, Initiator, Vector, respond, varint
from wire.limits import RECONCILE_BARREN_ROUNDS_MAX

VECTORS = Path(__file__).parents[1] / "vectors" / "orderbook" / "negentropy.json"
REFERENCE = json.loads(VECTORS.read_text())
EMPTY = bytes.fromhex("6100000200")


def name(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def reconcile(ours: Vector, theirs: Vector, limit: int = 10**9) -> tuple[Initiator, list[bytes]]:
    initiator = Initiator(ours, limit)
    message: bytes | None = initiator.open()
    said = []
    while message is not None:
        said += [message, respond(theirs, message, limit)]
        message = initiator.answer(said[-1])
    return initiator, said


def sets_of(case: dict[str, Any]) -> tuple[Vector, Vector]:
    """The initiator's and the responder's set of a case."""

    def item(number: int) -> tuple[int, bytes]:
        drawn = int.from_bytes(hashlib.sha256(b"epoch%d" % number).digest()[:4], "big")
        return (880_000_000 + drawn % case["epochs"], name(number))

    first, second, both = case["only_initiator"], case["only_responder"], case["common"]
    ours = [*range(first), *range(first + second, first + second + both)]
    return Vector(map(item, ours)), Vector(map(item, range(first, first + second + both)))


@pytest.mark.parametrize("case", REFERENCE["transcripts"], ids=lambda case: str(case["common"]))
def test_transcripts_of_the_reference(case: dict[str, Any]) -> None:
    first, second = case["only_initiator"], case["only_responder"]
    initiator, said = reconcile(*sets_of(case))
    assert [_shown(one) for one in said] == case["messages"]
    assert initiator.have == {name(number) for number in range(first)}
    assert initiator.need == {name(number) for number in range(first, first + second)}


@pytest.mark.parametrize("case", REFERENCE["limited"], ids=lambda case: f"{case['common']}-{case['limit']}")
def test_conversations_with_the_reference_under_a_frame_limit(case: dict[str, Any]) -> None:
    """Every message of ours is the one that the reference understood; with its answers we find both differences."""
    first, second = case["only_initiator"], case["only_responder"]
    ours, theirs = sets_of(case)
    initiator = Initiator(ours, case["limit"])
    message: bytes | None = initiator.open()
    for asked, answered in zip(case["ours_asks"][::2], case["ours_asks"][1::2], strict=True):
        assert message is not None
        assert message.hex() == asked
        message = initiator.answer(bytes.fromhex(answered))
    assert message is None
    assert initiator.have == {name(number) for number in range(first)}
    assert initiator.need == {name(number) for number in range(first, first + second)}
    for asked, answered in zip(case["reference_asks"][::2], case["reference_asks"][1::2], strict=True):
        assert respond(theirs, bytes.fromhex(asked), case["limit"]).hex() == answered


def _shown(message: bytes) -> str:
    return message.hex() if len(message) <= 450 else "sha256:" + hashlib.sha256(message).hexdigest()


sets = st.sets(st.integers(0, 3_000), max_size=400)


@given(sets, sets, st.integers(1, 50), st.sampled_from([1_500, 4_096, 10**9]))
@settings(max_examples=150, deadline=None)
def test_union(ours: set[int], theirs: set[int], epochs: int, limit: int) -> None:
    """I17: whatever the sets and however small the frames, both differences are found, in bounded frames."""

    def vector(numbers: set[int]) -> Vector:
        return Vector((number % epochs, name(number)) for number in numbers)

    initiator, said = reconcile(vector(ours), vector(theirs), limit)
    assert initiator.have == {name(one) for one in ours - theirs}
    assert initiator.need == {name(one) for one in theirs - ours}
    assert all(len(one) <= limit + 2_048 for one in said)


def test_equal_sets_take_one_round() -> None:
    vector = Vector((number // 7, name(number)) for number in range(2_000))
    initiator, said = reconcile(vector, vector)
    assert len(said) == 2
    assert len(said[1]) == 1
    assert not initiator.have
    assert not initiator.need


def test_ids_that_share_long_prefixes() -> None:
    shared = [(5, bytes(31) + bytes([number])) for number in range(200)]
    initiator, _ = reconcile(Vector(shared[::2]), Vector(shared[::3]))
    assert initiator.need == {one for _, one in shared[::3]} - {one for _, one in shared[::2]}


def test_varint() -> None:
    assert [varint(one).hex() for one in (0, 127, 128, 300, 2**64 - 1)] == ["00", "7f", "8100", "822c", "81ffffffffffffffff7f"]


@given(st.binary(max_size=300))
@settings(max_examples=500, deadline=None)
def test_any_bytes_are_answered_or_refused(data: bytes) -> None:
    vector = Vector((number, name(number)) for number in range(50))
    for message in (data, b"\x61" + data):
        with suppress(BadReconciliation):
            assert respond(vector, message)[0] == 0x61
        with suppress(BadReconciliation):
            Initiator(vector).answer(message)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x60\x00\x00\x00",  # another version
        b"\x61\x05",  # ends inside a bound
        b"\x61\x00\x21" + bytes(33) + b"\x00",  # a prefix of 33 bytes
        b"\x61\x00\x00\x07",  # an unknown mode
        b"\x61\x00\x00\x01" + bytes(15),  # a fingerprint of 15 bytes
        b"\x61\x00\x00\x02\x7f" + bytes(32),  # fewer ids than said
        b"\x61\x00\x00\x02" + b"\xff" * 9 + b"\x7f",  # more ids than memory
        b"\x61" + b"\xff" * 11 + b"\x00",  # a number without end
        b"\x61\x02\x01\x09\x00\x01\x01\x08\x00",  # ranges that go back
    ],
)
def test_broken_messages_are_refused(message: bytes) -> None:
    with pytest.raises(BadReconciliation):
        respond(Vector([(1, name(1))]), message)


def test_a_responder_cannot_lead_on_for_ever() -> None:
    """A peer that answers every fingerprint with another one, never listing, is given up after bounded rounds."""
    vector = Vector((number, name(number)) for number in range(1_000))
    initiator = Initiator(vector)
    initiator.open()
    lie = b"\x61\x00\x00\x01" + bytes(16)
    for _ in range(RECONCILE_BARREN_ROUNDS_MAX - 1):
        assert initiator.answer(lie) is not None
    with pytest.raises(BadReconciliation):
        initiator.answer(lie)


def test_a_responder_cannot_offer_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orderbook.core.negentropy.RECONCILE_NEED_MAX", 100)
    initiator = Initiator(Vector([]))
    assert initiator.open() == EMPTY
    ids = b"".join(name(number) for number in range(101))
    with pytest.raises(BadReconciliation):
        initiator.answer(b"\x61\x00\x00\x02" + varint(101) + ids)


def test_small_differences_are_cheap() -> None:
    """10,000 messages and 10 differences: the bytes stay near the 9 kB that range-based reconciliation is known for."""
    ours = Vector((number % 5, name(number)) for number in range(10, 10_000))
    theirs = Vector((number % 5, name(number)) for number in range(10_000))
    _, said = reconcile(ours, theirs)
    assert sum(map(len, said)) < 16_000
    assert len(said) <= 8
