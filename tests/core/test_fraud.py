"""Proofs of fraud: every true one convinces everybody, none can be made of honest signatures, and they reach all neighbours."""

import dataclasses
import functools
from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.core.bundle import NotProven
from peer.core.deal import unit_key
from peer.core.events import Notice, Post
from peer.core.fraud import (
    FRAUD,
    BadBatch,
    BadResult,
    Fraud,
    TwoOffers,
    bad_batch,
    bad_result,
    check_fraud,
    fraud_id,
    two_offers,
    words,
)
from peer.core.letters import OFFER_PURPOSE, OfferBody, sort
from peer.core.proofs import FRAUD_TABLE, PROOFS, Ask, Have, Proof, Proofs
from tests.core.evidence import SELLER, STRANGER, a_bundle, batch_part, sealed
from wire.account import account_of, hash160
from wire.errors import BitwrkError, Ignore, Misbehaved
from wire.keys import SecretKey
from wire.limits import (
    EVIDENCE_CIPHER_MAX_BYTES,
    FRAUD_ANSWER_S,
    FRAUD_ASKED_MAX,
    FRAUD_ASKS_MAX,
    FRAUD_IDS_MAX,
    FRAUD_MAX_BYTES,
    FRAUD_PER_NEIGHBOUR_MAX,
    FRAUDS_MAX,
    NEIGHBOURS_MAX,
)
from wire.moments import SECOND, Instant
from wire.network import MAIN, REGTEST

NOW = Instant(1_000 * SECOND)


@functools.cache
def a_bad_result() -> BadResult:
    proof = bad_result(a_bundle(promised=b"something else", ciphertext=True))
    assert proof is not None
    return proof


def signed(offer: OfferBody, key: SecretKey = SELLER) -> tuple[OfferBody, bytes]:
    return offer, sealed(offer, OFFER_PURPOSE, key)


def two(key: SecretKey = SELLER, **changes: Any) -> TwoOffers | None:
    offer = a_bundle().offer
    return two_offers(key.public, signed(offer, key), signed(dataclasses.replace(offer, **changes), key))


def some_two(key: SecretKey = SELLER) -> TwoOffers:
    proof = two(key, plain=b"x" * 32)
    assert proof is not None
    return proof


@functools.cache
def a_bad_batch() -> BadBatch:
    proof = bad_batch(a_bundle(together=3, given=b"\x77" * 32))
    assert proof is not None
    return proof


def batched(keys: dict[bytes, bytes], *, key: SecretKey = SELLER) -> BadBatch:
    """An accusation with a batch of these keys."""
    part = batch_part(b"c" * 32, keys, signer=key)
    return dataclasses.replace(a_bad_batch(), batch=part.body, batch_signature=part.signature)


TRUE: dict[str, Fraud] = {"a bad result": a_bad_result(), "two offers": some_two(), "a bad batch": a_bad_batch()}
NAME, OTHER = (unit_key(a_bad_batch().offer.deal, number) for number in (0, 1))


@pytest.mark.parametrize("name", TRUE)
def test_every_true_proof_convinces(name: str) -> None:
    proof = TRUE[name]
    assert check_fraud(REGTEST, FRAUD.pack(proof)) == proof
    assert account_of(SELLER.public) in words(proof)
    with pytest.raises(NotProven):
        check_fraud(MAIN, FRAUD.pack(proof))


def test_a_proof_does_not_depend_on_who_was_named_first() -> None:
    offer = a_bundle().offer
    one, other = signed(offer), signed(dataclasses.replace(offer, plain=b"x" * 32))
    assert two_offers(SELLER.public, one, other) == two_offers(SELLER.public, other, one)


@given(st.sampled_from(sorted(TRUE)), st.data())
def test_no_bent_proof_convinces(name: str, data: st.DataObject) -> None:
    raw = FRAUD.pack(TRUE[name])
    at = data.draw(st.integers(0, len(raw) - 1))
    bent = raw[:at] + bytes([raw[at] ^ data.draw(st.integers(1, 255))]) + raw[at + 1 :]
    try:
        proof = check_fraud(REGTEST, bent)
    except NotProven:
        return
    # A key and its mirror image have one holder, and no signature tells them apart.
    assert dataclasses.replace(proof, seller=SELLER.public) == TRUE[name]
    assert proof.seller[1:] == SELLER.public[1:]


def honest() -> BadResult:
    bundle = a_bundle(ciphertext=True)
    return BadResult(
        seller=SELLER.public,
        offer=bundle.offer,
        signature=bundle.offer_signature,
        key=bundle.key,
        cipher=bundle.cipher or b"",
    )


LIES: dict[str, tuple[str, Fraud]] = {
    "a good result": ("good-result", honest()),
    "another seller": ("wrong-offer", dataclasses.replace(a_bad_result(), seller=STRANGER.public)),
    "another ciphertext": ("other-ciphertext", dataclasses.replace(a_bad_result(), cipher=b"rubbish")),
    "another key": ("wrong-key", dataclasses.replace(a_bad_result(), key=b"\x77" * 32)),
    "no key at all": ("bad-key", dataclasses.replace(a_bad_result(), seller=b"\x09" * 33)),
    "one offer twice": (
        "not-a-proof",
        dataclasses.replace(some_two(), second=some_two().first, second_signature=some_two().first_signature),
    ),
    "the other order": (
        "not-a-proof",
        TwoOffers(
            seller=SELLER.public,
            first=some_two().second,
            first_signature=some_two().second_signature,
            second=some_two().first,
            second_signature=some_two().first_signature,
        ),
    ),
    "one of them unsigned": ("wrong-offer", dataclasses.replace(some_two(), second_signature=bytes(64))),
    "a good batch": ("good-batch", batched({NAME: a_bundle().key, OTHER: b"\x02" * 32})),
    "an unsigned batch": ("wrong-batch", dataclasses.replace(a_bad_batch(), batch_signature=bytes(64))),
    "somebody else's batch": ("wrong-batch", batched({NAME: b"\x77" * 32, OTHER: b"\x02" * 32}, key=STRANGER)),
    "a batch without the unit": ("wrong-batch", batched({unit_key(NAME[:32], 2): b"\x77" * 32, OTHER: b"\x02" * 32})),
    "another key than the batch's": ("wrong-key", dataclasses.replace(a_bad_batch(), key=b"\x78" * 32)),
    "an offer of a bad batch by somebody else": ("wrong-offer", dataclasses.replace(a_bad_batch(), signature=bytes(64))),
}


@pytest.mark.parametrize("name", LIES)
def test_each_lie_has_its_name(name: str) -> None:
    code, proof = LIES[name]
    with pytest.raises(NotProven) as caught:
        check_fraud(REGTEST, FRAUD.pack(proof))
    assert caught.value.code == code


@pytest.mark.parametrize(
    "changes", [{"unit": 1}, {"deal": b"y" * 32}, {"work": b"y" * 32}, {"price_msat": 1}, {"cipher": b"y" * 32}]
)
def test_offers_that_do_not_contradict_each_other_prove_nothing(changes: dict[str, Any]) -> None:
    """Another unit, another deal, other work; or the same result, which nobody is the worse for."""
    assert two(**changes) is None
    if "price_msat" not in changes and "cipher" not in changes:
        assert two(plain=b"x" * 32, **changes) is None


def test_an_honest_bundle_makes_no_proof() -> None:
    assert bad_result(a_bundle(ciphertext=True)) is None
    assert bad_result(a_bundle()) is None
    assert bad_result(dataclasses.replace(a_bundle(ciphertext=True), cipher=b"rubbish")) is None
    assert bad_batch(a_bundle()) is None
    assert bad_batch(a_bundle(together=3, promised=b"something else")) is None


def test_the_largest_proof_fits_its_bound() -> None:
    largest = dataclasses.replace(a_bad_result(), cipher=bytes(EVIDENCE_CIPHER_MAX_BYTES))
    assert len(FRAUD.pack(largest)) <= FRAUD_MAX_BYTES
    for raw in (b"", b"\xc0", bytes(FRAUD_MAX_BYTES + 1)):
        with pytest.raises(NotProven) as caught:
            check_fraud(REGTEST, raw)
        assert caught.value.code == "not-a-proof"


# --- from neighbour to neighbour --------------------------------------------------------------------------------------


def a_key(number: int) -> SecretKey:
    return SecretKey(number.to_bytes(32, "big"))


class Street:
    """Nodes in a row, each a neighbour of the next; letters wait until ``run``."""

    def __init__(self, count: int) -> None:
        self.keys = [a_key(1_000 + number) for number in range(count)]
        self.nodes = [Proofs(REGTEST) for _ in self.keys]
        self.letters: deque[tuple[int, Post]] = deque()
        self.sent: list[Any] = []
        self.notices = 0
        for number in range(count - 1):
            self.join(number, number + 1)

    def join(self, one: int, other: int) -> None:
        for here, there in ((one, other), (other, one)):
            self.do(here, self.nodes[here].neighbour_up(self.keys[there].peer_id, NOW))

    def do(self, sender: int, effects: list[Any]) -> None:
        self.notices += sum(isinstance(one, Notice) for one in effects)
        self.letters.extend((sender, one) for one in effects if isinstance(one, Post))

    def run(self) -> None:
        peers = {key.peer_id: number for number, key in enumerate(self.keys)}
        while self.letters:
            sender, post = self.letters.popleft()
            letter = PROOFS.unpack(sort(post.letter)[1])
            self.sent.append(letter)
            here = peers[post.peer]
            self.do(here, self.nodes[here].hear(self.keys[sender].peer_id, letter, NOW))

    def knows(self) -> list[bool]:
        return [one.against(SELLER.public) is not None for one in self.nodes]


def test_a_proof_reaches_everybody_and_travels_each_way_once() -> None:
    street = Street(5)
    street.join(0, 4)
    street.do(2, street.nodes[2].publish(a_bad_result()))
    street.run()
    assert street.knows() == [True] * 5
    assert street.notices == 5
    assert sum(isinstance(one, Proof) for one in street.sent) <= 5
    assert street.nodes[4].avoided() == (hash160(SELLER.public),)
    (line,) = street.nodes[4].statement()
    assert line["account"] == account_of(SELLER.public)


def test_a_newcomer_hears_of_earlier_proofs() -> None:
    street = Street(1)
    street.do(0, street.nodes[0].publish(some_two()))
    street.keys.append(a_key(7))
    street.nodes.append(Proofs(REGTEST))
    street.join(0, 1)
    street.run()
    assert street.knows() == [True, True]


def test_one_proof_for_an_account_is_enough() -> None:
    street = Street(2)
    street.do(0, street.nodes[0].publish(a_bad_result()))
    street.run()
    before = len(street.sent)
    street.do(0, street.nodes[0].publish(some_two()))
    street.run()
    assert len(street.sent) == before
    assert len(street.nodes[1].statement()) == 1


def test_what_is_no_proof_is_not_published() -> None:
    assert not any(isinstance(one, Post | Notice) for one in Street(2).nodes[0].publish(honest()))


def refused(node: Proofs, peer: SecretKey, letter: Any, now: Instant = NOW) -> str:
    with pytest.raises((Misbehaved, Ignore)) as caught:
        node.hear(peer.peer_id, letter, now)
    error: BitwrkError = caught.value
    return error.code


def test_liars_among_neighbours_are_named() -> None:
    node, liar = Proofs(REGTEST), a_key(7)
    raw = FRAUD.pack(honest())
    assert refused(node, liar, Have(proofs=(b"x" * 32,))) == "no-neighbour"
    node.neighbour_up(liar.peer_id, NOW)
    assert refused(node, liar, Proof(raw=raw)) == "unasked-proof"
    assert node.hear(liar.peer_id, Have(proofs=(fraud_id(REGTEST, raw),)), NOW)
    assert refused(node, liar, Proof(raw=raw)) == "false-proof"
    assert refused(node, liar, Proof(raw=raw)) == "unasked-proof"
    assert node.hear(liar.peer_id, Ask(proof=b"x" * 32), NOW) == []
    assert node.statement() == []


def test_a_neighbour_who_promises_and_never_delivers_blocks_nobody() -> None:
    node, names = Proofs(REGTEST), [bytes([number]) * 32 for number in range(FRAUD_IDS_MAX)]
    silent, honest_one, third = a_key(7), a_key(8), a_key(9)
    for one in (silent, honest_one, third):
        node.neighbour_up(one.peer_id, NOW)
    assert len(node.hear(silent.peer_id, Have(proofs=tuple(names)), NOW)) == FRAUD_ASKS_MAX
    assert len(node.hear(silent.peer_id, Have(proofs=tuple(names)), NOW)) == 0
    assert len(node.hear(honest_one.peer_id, Have(proofs=(names[0],)), NOW)) == 1
    assert FRAUD_ASKED_MAX == 2
    assert len(node.hear(third.peer_id, Have(proofs=(names[0],)), NOW)) == 0
    later = Instant(NOW + FRAUD_ANSWER_S * SECOND)
    assert len(node.hear(third.peer_id, Have(proofs=(names[0],)), later)) == 1
    node.neighbour_down(third.peer_id)
    node.neighbour_up(third.peer_id, later)
    assert len(node.hear(third.peer_id, Have(proofs=(names[0],)), later)) == 1


def test_a_neighbour_is_listened_to_for_so_long() -> None:
    node, loud = Proofs(REGTEST), a_key(7)
    node.neighbour_up(loud.peer_id, NOW)
    for _ in range(FRAUD_PER_NEIGHBOUR_MAX):
        node.hear(loud.peer_id, Ask(proof=b"x" * 32), NOW)
    assert refused(node, loud, Ask(proof=b"x" * 32)) == "proof-budget"
    node.hear(loud.peer_id, Ask(proof=b"x" * 32), Instant(NOW + SECOND))


def test_so_many_are_kept_through_a_restart_and_no_more() -> None:
    node = Proofs(REGTEST)
    rows: dict[bytes, bytes] = {}
    for number in range(FRAUDS_MAX + 2):
        node.publish(some_two(a_key(100 + number)))
    for row in node.drain():
        assert row.table == FRAUD_TABLE
        if row.value is not None:
            rows[row.key] = row.value
    assert len(rows) == FRAUDS_MAX == len(node.statement())
    assert node.against(a_key(101).public) is None
    assert node.against(a_key(102).public) is not None
    again = Proofs(REGTEST)
    again.load(rows | {b"z" * 32: b"rubbish"})
    assert {line["proof"] for line in again.statement()} == {name.hex() for name in rows}
    assert [(one.key, one.value) for one in again.drain()] == [(b"z" * 32, None)]


def test_neighbours_are_bounded() -> None:
    node = Proofs(REGTEST)
    for number in range(3 * NEIGHBOURS_MAX):
        node.neighbour_up(a_key(100 + number).peer_id, NOW)
    assert refused(node, a_key(100), Ask(proof=b"x" * 32)) == "no-neighbour"
    assert node.hear(a_key(100 + 3 * NEIGHBOURS_MAX - 1).peer_id, Ask(proof=b"x" * 32), NOW) == []
