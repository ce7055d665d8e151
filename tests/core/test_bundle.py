"""Evidence: every true bundle verifies, no changed one does, and each refusal has its name."""

import dataclasses
import functools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escrow.core.contract import channel_id
from peer.core.batches import BATCH_PURPOSE
from peer.core.bundle import Bundle, NotProven, check, check_log, proves_bad_result, seal_lies
from peer.core.deal import unit_key
from peer.core.letters import OFFER_PURPOSE
from tests.core.evidence import (
    ARBITER,
    BUYER,
    RESULT,
    SELLER,
    STRANGER,
    a_bundle,
    a_log,
    a_match,
    batch_part,
    channel_part,
    channel_terms,
    log_line,
    paid_part,
    sealed,
)
from wire.canon import pack

FORMS: dict[str, dict[str, Any]] = {
    "free": {"free": True},
    "paid": {},
    "paid, with an arbiter": {"arbiter": ARBITER.public},
    "no receipt": {"number": None},
    "with its ciphertext": {"ciphertext": True},
    "a bad result": {"ciphertext": True, "promised": b"something else"},
    "in a batch": {"together": 3},
    "in a batch, with its ciphertext": {"together": 16, "ciphertext": True},
    "in a batch, a bad result": {"together": 2, "ciphertext": True, "promised": b"something else"},
    "a bad batch": {"together": 3, "given": b"\x77" * 32, "number": None},
    "a bad batch, with its ciphertext": {"together": 3, "given": b"\x77" * 32, "ciphertext": True},
}
BAD_BATCHES = {"a bad batch", "a bad batch, with its ciphertext"}


@functools.cache
def form(name: str) -> Bundle:
    return a_bundle(**FORMS[name])


@pytest.mark.parametrize("name", FORMS)
def test_every_true_bundle_verifies_after_a_trip_through_a_file(name: str) -> None:
    bundle = Bundle.read(pack(form(name)))
    steps = [one.step for one in check(bundle)]
    assert steps[:3] == ["match", "book", "offer"]
    assert steps[3] == ("batch" if "batch" in name else "key")
    assert ("key" in steps, "bad-batch" in steps) == (name not in BAD_BATCHES, name in BAD_BATCHES)
    assert ("payment" in steps) == ("free" not in name)
    assert ("receipt" in steps) == (name not in ("no receipt", "a bad batch"))
    assert ("bad-result" in steps) == ("a bad result" in name)
    assert ("content" in steps) == ("its ciphertext" in name)
    assert seal_lies(bundle) == (name in BAD_BATCHES)
    assert proves_bad_result(bundle) == ("a bad" in name)


@given(st.sampled_from(sorted(FORMS)), st.data())
def test_no_bent_bundle_verifies(name: str, data: st.DataObject) -> None:
    """Whatever byte is changed, taken out or put in: what comes out is no bundle, or does not hold."""
    raw = pack(form(name))
    at = data.draw(st.integers(0, len(raw) - 1))
    how = data.draw(st.sampled_from(["change", "drop", "insert", "cut"]))
    if how == "change":
        bent = raw[:at] + bytes([raw[at] ^ data.draw(st.integers(1, 255))]) + raw[at + 1 :]
    elif how == "drop":
        bent = raw[:at] + raw[at + 1 :]
    elif how == "insert":
        bent = raw[:at] + bytes([data.draw(st.integers(0, 255))]) + raw[at:]
    else:
        bent = raw[:at]
    try:
        read = Bundle.read(bent)
        check(read)
    except NotProven:
        return
    # In a free book nothing that is signed tells a key from its mirror image, which has the same holder.
    assert name == "free"
    assert {read.match.buyer[1:], read.match.seller[1:]} == {BUYER.public[1:], SELLER.public[1:]}
    mended = dataclasses.replace(read.match, buyer=BUYER.public, seller=SELLER.public)
    assert dataclasses.replace(read, match=mended) == form(name)


def changed_channel(bundle: Bundle, **changes: Any) -> Bundle:
    assert bundle.channel is not None
    return dataclasses.replace(bundle, channel=dataclasses.replace(bundle.channel, **changes))


def changed_offer(bundle: Bundle, *, signer: Any = SELLER, **changes: Any) -> Bundle:
    offer = dataclasses.replace(bundle.offer, **changes)
    return dataclasses.replace(bundle, offer=offer, offer_signature=sealed(offer, OFFER_PURPOSE, signer))


def in_channel(bundle: Bundle, *, paid_msat: int = 2_600_000, lock: bytes | None = None, **terms: Any) -> Bundle:
    part, contract = channel_part(channel_terms(**terms))
    payment = paid_part(contract, paid_msat, lock or bundle.offer.lock)
    return dataclasses.replace(bundle, channel=part, payment=payment)


def in_batch(keys: dict[bytes, bytes], *, channel: bytes | None = None, paid_msat: int = 5_200_000, **changes: Any) -> Bundle:
    """A good unit, with a batch of these keys and a payment for it."""
    part, contract = channel_part(channel_terms())
    batch = batch_part(channel or channel_id("regtest", part.terms), keys, **changes)
    payment = paid_part(contract, paid_msat, batch.body.lock)
    return dataclasses.replace(PAID, channel=part, payment=payment, batch=batch)


PAID = form("paid")
BATCHED = form("in a batch")
BAD_BATCH = form("a bad batch, with its ciphertext")
NAME, OTHER = unit_key(PAID.offer.deal, 0), unit_key(PAID.offer.deal, 1)
GOOD = {NAME: PAID.key, OTHER: b"\x02" * 32}


def bent_batch(**changes: Any) -> Bundle:
    assert BATCHED.batch is not None
    return dataclasses.replace(BATCHED, batch=dataclasses.replace(BATCHED.batch, **changes))


def named_twice() -> Bundle:
    """A batch that its seller signed, with this unit in it twice."""
    good = in_batch(GOOD)
    assert good.batch is not None
    body = dataclasses.replace(good.batch.body, units=(*good.batch.body.units, good.batch.body.units[0]))
    batch = dataclasses.replace(good.batch, body=body, signature=sealed(body, BATCH_PURPOSE, SELLER))
    return dataclasses.replace(good, batch=batch)


LIES: dict[str, tuple[str, Bundle]] = {
    "a network nobody knows": (
        "unknown-network",
        dataclasses.replace(
            PAID,
            match=dataclasses.replace(PAID.match, match=dataclasses.replace(PAID.match.match, network="elsewhere")),
        ),
    ),
    "a match the buyer did not sign": (
        "wrong-match",
        dataclasses.replace(PAID, match=dataclasses.replace(PAID.match, buyer=STRANGER.public)),
    ),
    "roles exchanged": (
        "wrong-match",
        dataclasses.replace(
            PAID,
            match=dataclasses.replace(
                PAID.match,
                buyer=SELLER.public,
                seller=BUYER.public,
                buyer_signature=PAID.match.seller_signature,
                seller_signature=PAID.match.buyer_signature,
            ),
        ),
    ),
    "another article": ("other-book", dataclasses.replace(PAID, article="net.bitwrk/other/1")),
    "other terms": ("other-book", dataclasses.replace(PAID, terms=dataclasses.replace(PAID.terms, work_s=1))),
    "a channel with an arbiter nobody named": ("other-arbiter", in_channel(PAID, arbiter=ARBITER.public)),
    "another match": ("other-deal", dataclasses.replace(PAID, match=a_match(quantity=2))),
    "a key that is none": (
        "bad-key",
        dataclasses.replace(PAID, match=dataclasses.replace(PAID.match, buyer=b"\x09" * 33)),
    ),
    "a unit that was not sold": ("no-such-unit", changed_offer(PAID, unit=3)),
    "another price": ("other-price", changed_offer(PAID, price_msat=1)),
    "another signer": ("wrong-offer", changed_offer(PAID, signer=STRANGER)),
    "a key for something else": ("wrong-key", dataclasses.replace(PAID, key=b"\x77" * 32)),
    "no payment": ("no-payment", dataclasses.replace(PAID, payment=None)),
    "no channel": ("no-payment", dataclasses.replace(PAID, channel=None)),
    "a channel of others": ("other-parties", in_channel(PAID, seller=STRANGER.public)),
    "a channel the buyer did not open": ("wrong-open", changed_channel(PAID, open_signature=bytes(64))),
    "a channel the seller did not take": ("wrong-opened", changed_channel(PAID, opened_signature=bytes(64))),
    "another escrow": ("not-paid", changed_channel(PAID, funding=bytes(36))),
    "another lock": ("not-paid", in_channel(PAID, lock=b"\x11" * 32)),
    "another balance": (
        "not-paid",
        dataclasses.replace(PAID, payment=dataclasses.replace(PAID.payment, paid_sat=5_200)),  # type: ignore[type-var]
    ),
    "less than the price": ("underpaid", in_channel(PAID, paid_msat=2_599_000)),
    "a line about something else": (
        "other-receipt",
        dataclasses.replace(PAID, receipt=log_line(dataclasses.replace(PAID.offer, plain=b"x" * 32), 0, PAID.offer.deal)),
    ),
    "a first line that follows another": (
        "other-receipt",
        dataclasses.replace(PAID, receipt=log_line(PAID.offer, 0, b"x" * 32)),
    ),
    "a line that the seller did not sign": (
        "wrong-receipt",
        dataclasses.replace(PAID, receipt=dataclasses.replace(PAID.receipt, seller_signature=bytes(64))),  # type: ignore[type-var]
    ),
    "a line that the buyer did not sign": (
        "wrong-receipt",
        dataclasses.replace(PAID, receipt=dataclasses.replace(PAID.receipt, buyer_signature=bytes(64))),  # type: ignore[type-var]
    ),
    "another ciphertext": ("other-ciphertext", dataclasses.replace(PAID, cipher=b"rubbish")),
    "a batch where nothing was paid": ("wrong-batch", dataclasses.replace(form("free"), batch=BATCHED.batch)),
    "a batch through another channel": ("wrong-batch", in_batch(GOOD, channel=b"c" * 32)),
    "a batch that the seller did not sign": ("wrong-batch", in_batch(GOOD, signer=STRANGER)),
    "a batch of other units": ("wrong-batch", in_batch({OTHER: PAID.key, unit_key(PAID.offer.deal, 2): PAID.key})),
    "a batch that names a unit twice": ("wrong-batch", named_twice()),
    "a key that opens no batch": ("wrong-key", bent_batch(key=b"\x77" * 32)),
    "a key that the batch does not give": ("wrong-key", dataclasses.replace(BATCHED, key=b"\x77" * 32)),
    "a bad seal hidden behind the right key": ("wrong-key", dataclasses.replace(BAD_BATCH, key=PAID.key)),
    "a batch that was not paid": ("not-paid", dataclasses.replace(PAID, batch=BATCHED.batch)),
    "a batch left out": ("not-paid", dataclasses.replace(BATCHED, batch=None)),
    "less than the price of a batch": ("underpaid", in_batch(GOOD, paid_msat=5_199_000)),
    "a batch for less than a unit": ("underpaid", in_batch(GOOD, amount_msat=1_000, paid_msat=2_599_000)),
    "another ciphertext than the bad batch was for": ("other-ciphertext", dataclasses.replace(BAD_BATCH, cipher=b"rubbish")),
}


@pytest.mark.parametrize("name", LIES)
def test_each_lie_has_its_name(name: str) -> None:
    code, bundle = LIES[name]
    with pytest.raises(NotProven) as caught:
        check(bundle)
    assert caught.value.code == code


def test_a_log_is_whole_from_its_first_line_on() -> None:
    log = a_log()
    assert [one.step for one in check_log(log)] == ["log"]
    assert check_log(list(reversed(log))) == check_log(log)
    assert check_log(log[:2])
    for broken, code in (
        (log[1:], "broken-log"),
        ([log[0], log[2]], "broken-log"),
        ([log[0], log[0]], "broken-log"),
        ([log[0], a_bundle(1, number=None)], "no-receipt"),
        ([log[0], a_bundle(free=True)], "other-deal"),
    ):
        with pytest.raises(NotProven) as caught:
            check_log(broken)
        assert caught.value.code == code


def test_what_is_no_bundle_is_told_so() -> None:
    for raw in (b"", b"\xc0", RESULT, pack(PAID) + b"\x00"):
        with pytest.raises(NotProven) as caught:
            Bundle.read(raw)
        assert caught.value.code == "not-a-bundle"
