"""Messages: one encoding, every refusal named, stamps, roles, and proofs that anybody can check."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orderbook.core.evidence import Witness, proof_of
from orderbook.core.messages import (
    GOSSIP,
    Close,
    EquivocationProof,
    Match,
    Order,
    SealedOrder,
    SealedProof,
    Side,
    SignedMatch,
    account_hash_of,
    book_id,
    conflict,
    open_signed_match,
    read,
    seal_close,
    seal_order,
    seal_proof,
    sign_match,
    verify_match,
)
from orderbook.core.stamp import BadStamp, bits_needed, check_stamp, mint, zero_bits
from tests.orderbook.world import BOOK, EPOCH, key
from wire.account import account_hash, account_of
from wire.canon import pack
from wire.errors import BitwrkError, Ignore, Misbehaved
from wire.keys import verify
from wire.limits import ORDER_MAX_BYTES
from wire.network import MAIN, REGTEST, SIGNET


def order(owner: int = 1, **more: Any) -> Order:
    fields: dict[str, Any] = {
        "network": "regtest",
        "book": BOOK,
        "side": Side.BUY,
        "price_msat": 340_000,
        "quantity": 24,
        "first_epoch": EPOCH + 1,
        "last_epoch": EPOCH + 5,
        "owner": key(owner).public,
        "slot": 0,
        "sequence": 1,
        "salt": bytes(16),
    }
    return Order(**{**fields, **more})


def match(**more: Any) -> Match:
    fields: dict[str, Any] = {
        "network": "regtest",
        "book": BOOK,
        "epoch": EPOCH,
        "buy": b"b" * 32,
        "sell": b"s" * 32,
        "quantity": 4,
        "price_msat": 300_000,
        "buy_from": 0,
        "sell_from": 0,
        "accept_by_us": 1,
        "buyer_root": bytes(32),
        "seller_root": bytes(32),
    }
    return Match(**{**fields, **more})


def refused(raw: bytes) -> str:
    with pytest.raises(BitwrkError) as caught:
        read(REGTEST, raw)
    return caught.value.code


def test_an_order_comes_back_as_it_was() -> None:
    raw = seal_order(key(1), REGTEST, order())
    heard = read(REGTEST, raw)
    assert isinstance(heard.body, Order)
    assert replace(heard.body, stamp=bytes(8)) == order()
    assert (heard.book, heard.key_epoch) == (BOOK, EPOCH + 1)
    (check,) = heard.checks
    assert verify(check.public, check.digest, check.signature)
    assert check.digest == heard.id
    assert seal_order(key(1), REGTEST, order()) == raw  # deterministic: stamp and signature too


def test_the_largest_order_fits() -> None:
    full = order(avoid=tuple(sorted(account_hash_of(key(number).public) for number in range(1, 9))), last_epoch=EPOCH + 60)
    raw = seal_order(key(1), REGTEST, full)
    assert len(raw) <= ORDER_MAX_BYTES
    assert read(REGTEST, raw).body == GOSSIP_body(raw)


def GOSSIP_body(raw: bytes) -> Any:  # noqa: N802 - reads as the constant it unpacks
    from wire.canon import unpack

    return unpack(Order, GOSSIP.unpack(raw).body)


def test_avoid_names_accounts() -> None:
    assert account_hash_of(key(1).public) == account_hash(account_of(key(1).public))


def test_every_refusal_is_named() -> None:
    good = seal_order(key(1), REGTEST, order())
    assert refused(b"") == "malformed"
    assert refused(good[:-1]) == "malformed"
    assert refused(good + b"\x00") == "malformed"
    assert refused(bytes(ORDER_MAX_BYTES + 1)) == "oversize"
    assert refused(b"\x92\x09\x91\x00") == "unknown-kind"
    assert refused(GOSSIP.pack(SealedOrder(body=b"\x90", signature=bytes(64)))) == "malformed"
    assert refused(seal_order(key(1), REGTEST, order(network="signet"))) == "wrong-network"
    assert refused(seal_order(key(1), REGTEST, order(last_epoch=EPOCH))) == "malformed"
    assert refused(seal_order(key(1), REGTEST, order(last_epoch=EPOCH + 61))) == "malformed"
    two = (account_hash_of(key(1).public), account_hash_of(key(2).public))
    unsorted = tuple(sorted(two, reverse=True))
    assert refused(seal_order(key(1), REGTEST, order(avoid=unsorted))) == "malformed"
    assert refused(seal_order(key(1), REGTEST, order(avoid=(two[0], two[0])))) == "malformed"
    unstamped = pack(order(salt=b"no work in here."))
    assert zero_bits("regtest", unstamped) < REGTEST.stamp_bits
    assert refused(GOSSIP.pack(SealedOrder(body=unstamped, signature=bytes(64)))) == "bad-stamp"


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_one_encoding_only(data: st.DataObject) -> None:
    """I16: no other bytes are accepted in place of a message; a change is refused or is another message."""
    raw = seal_order(key(1), REGTEST, order())
    place = data.draw(st.integers(0, len(raw) - 1))
    byte = data.draw(st.integers(0, 255))
    changed = raw[:place] + bytes([byte]) + raw[place + 1 :]
    if changed == raw:
        return
    try:
        heard = read(REGTEST, changed)
    except BitwrkError:
        return
    same_body = heard.id == read(REGTEST, raw).id
    (check,) = heard.checks
    assert not verify(check.public, check.digest, check.signature)
    assert same_body == (place >= len(raw) - 64)  # only the signature may differ without changing the id


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_garbage_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(BitwrkError):
        read(REGTEST, data)


def test_a_signature_serves_one_network_and_purpose() -> None:
    signed = sign_match(key(1), match(), Side.BUY)
    assert verify_match(key(1).public, match(), Side.BUY, signed)
    assert not verify_match(key(1).public, match(), Side.SELL, signed)
    assert not verify_match(key(1).public, match(network="signet"), Side.BUY, signed)
    assert not verify_match(key(2).public, match(), Side.BUY, signed)


def test_books_are_apart() -> None:
    books = {
        book_id(network, instance, article, terms)
        for network in ("regtest", "main")
        for instance in (bytes(32), b"\x01" * 32)
        for article in ("foobar", "foobar2")
        for terms in (bytes(32), b"\x02" * 32)
    }
    assert len(books) == 16


def test_signed_match_opens_only_with_both_signatures() -> None:
    one = match()
    signed = SignedMatch(
        match=one,
        buyer=key(1).public,
        seller=key(2).public,
        buyer_signature=sign_match(key(1), one, Side.BUY),
        seller_signature=sign_match(key(2), one, Side.SELL),
    )
    assert open_signed_match(REGTEST, signed) == one
    with pytest.raises(Misbehaved):
        open_signed_match(REGTEST, replace(signed, seller_signature=signed.buyer_signature))
    with pytest.raises(Misbehaved):
        open_signed_match(REGTEST, replace(signed, buyer=key(3).public))
    with pytest.raises(Ignore):
        open_signed_match(SIGNET, signed)


# --- proofs ------------------------------------------------------------------------------------------------


def test_what_contradicts_what() -> None:
    one = match()
    assert not conflict(one, one, Side.SELL)
    assert conflict(one, match(epoch=EPOCH + 1, sell_from=4), Side.SELL)
    assert conflict(one, match(sell_from=3, buy=b"c" * 32), Side.SELL)
    assert not conflict(one, match(sell_from=4, buy=b"c" * 32), Side.SELL)
    assert not conflict(one, match(sell=b"t" * 32), Side.SELL)
    assert conflict(one, match(sell=b"t" * 32), Side.BUY)
    assert not conflict(one, match(book=bytes(32), epoch=EPOCH + 1), Side.SELL)


def test_two_signatures_make_a_proof_that_travels() -> None:
    seller, witness = key(7), Witness()
    first, second = match(), match(buy=b"c" * 32, sell_from=2)
    assert witness.add(seller.public, Side.SELL, first, sign_match(seller, first, Side.SELL)) is None
    assert witness.add(seller.public, Side.SELL, first, sign_match(seller, first, Side.SELL)) is None
    proof = witness.add(seller.public, Side.SELL, second, sign_match(seller, second, Side.SELL))
    assert proof is not None
    raw = seal_proof(REGTEST, proof)
    assert len(raw) <= ORDER_MAX_BYTES
    heard = read(REGTEST, raw)
    assert isinstance(heard.body, EquivocationProof)
    assert len(heard.checks) == 2
    assert all(verify(one.public, one.digest, one.signature) for one in heard.checks)
    swapped = proof_of(
        seller.public,
        Side.SELL,
        (second, sign_match(seller, second, Side.SELL)),
        (first, sign_match(seller, first, Side.SELL)),
    )
    assert seal_proof(REGTEST, swapped) == raw


def test_no_proof_is_made_of_honest_matches() -> None:
    seller = key(7)
    honest = proof_of(
        seller.public,
        Side.SELL,
        *[(one, sign_match(seller, one, Side.SELL)) for one in (match(), match(sell_from=4, buy=b"c" * 32))],
    )
    assert refused(seal_proof(REGTEST, honest)) == "malformed"
    first, second = match(), match(epoch=EPOCH + 1)
    backwards = EquivocationProof(
        signer=seller.public, side=Side.SELL, first=second, first_signature=bytes(64), second=first, second_signature=bytes(64)
    )
    assert refused(seal_proof(REGTEST, backwards)) == "malformed"
    assert refused(
        GOSSIP.pack(SealedProof(body=pack(proof_of(seller.public, Side.SELL, (first, bytes(64)), (second, bytes(64))))))
    ) in ("bad-stamp",)


# --- stamps ------------------------------------------------------------------------------------------------


def test_work_grows_with_size_and_life_alone() -> None:
    assert bits_needed(8, 256, 5) == 8
    assert bits_needed(8, 257, 5) == 9
    assert bits_needed(8, 1_024, 5) == 10
    assert bits_needed(8, 256, 6) == 9
    assert bits_needed(8, 256, 60) == 12


def test_mint_pays_exactly_what_is_asked() -> None:
    body = pack(order())
    for bits in (0, 1, 8, 11):
        stamped = mint("regtest", body, bits)
        assert stamped[:-8] == body[:-8]
        assert zero_bits("regtest", stamped) >= bits
    check_stamp("regtest", 8, mint("regtest", body, bits_needed(8, len(body), 5)), 5)
    with pytest.raises(BadStamp):
        check_stamp("regtest", 30, mint("regtest", body, 9), 5)


def test_a_stamp_serves_one_network() -> None:
    stamped = mint("regtest", pack(order()), 12)
    assert zero_bits("main", stamped) < 12


def test_real_money_asks_for_more_work() -> None:
    assert REGTEST.stamp_bits < SIGNET.stamp_bits < MAIN.stamp_bits


def test_close_comes_back() -> None:
    close = Close(network="regtest", book=BOOK, order=bytes(32), epoch=EPOCH + 1, owner=key(1).public)
    heard = read(REGTEST, seal_close(key(1), REGTEST, close))
    assert isinstance(heard.body, Close)
    assert heard.key_epoch == EPOCH + 1
