"""Writes the golden vectors of the book's messages: ``python -m tests.orderbook.messages_made``.

The keys are fixed, stamps count from zero and signatures use no randomness, so the file is the same every time.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgpack

from orderbook.core.agreement import LETTERS, Accept, Confirm, Decline, Propose
from orderbook.core.evidence import proof_of
from orderbook.core.frames import FRAMES, Answer, Ask, Batch, BookRoot, Hello, Names, Pull, Pulled, Roots
from orderbook.core.messages import (
    CLOSE,
    GOSSIP,
    ORDER,
    PROOF,
    Close,
    EquivocationProof,
    Match,
    Order,
    Side,
    account_hash_of,
    book_id,
    life_of,
    match_digest,
    match_id,
    read,
    seal_close,
    seal_order,
    seal_proof,
    sign_match,
)
from orderbook.core.stamp import bits_needed, mint, zero_bits
from wire.canon import pack, unpack
from wire.digest import plain
from wire.envelope import id_of
from wire.errors import BitwrkError
from wire.keys import SecretKey, verify
from wire.network import REGTEST, SIGNET

PATH: Final = Path(__file__).parents[1] / "vectors" / "orderbook" / "messages.json"
EPOCH: Final = 880_000_000
ALICE, BOB, CAROL = (SecretKey(number.to_bytes(32, "big")) for number in (1, 2, 3))
ARTICLE: Final = "net.bitwrk/rays/1"
INSTANCE, TERMS = bytes(range(32)), bytes(range(32, 64))
BOOK: Final = book_id(REGTEST.name, INSTANCE, ARTICLE, TERMS)

Changed = Callable[[list[Any]], list[Any]]


def an_order(key: SecretKey = ALICE, **more: Any) -> Order:
    """An order with every field given."""
    fields: dict[str, Any] = {
        "network": REGTEST.name,
        "book": BOOK,
        "side": Side.BUY,
        "price_msat": 340_000,
        "quantity": 24,
        "first_epoch": EPOCH + 1,
        "last_epoch": EPOCH + 5,
        "owner": key.public,
        "slot": 0,
        "sequence": 1_000,
        "salt": bytes(range(16)),
    }
    return Order(**{**fields, **more})


def a_match(**more: Any) -> Match:
    """A match with every field given."""
    fields: dict[str, Any] = {
        "network": REGTEST.name,
        "book": BOOK,
        "epoch": EPOCH + 1,
        "buy": plain(b"buy"),
        "sell": plain(b"sell"),
        "quantity": 4,
        "price_msat": 330_000,
        "buy_from": 0,
        "sell_from": 8,
        "accept_by_us": REGTEST.clock.accept_by(EPOCH + 1),
        "buyer_root": plain(b"buyer"),
        "seller_root": plain(b"seller"),
    }
    return Match(**{**fields, **more})


def shown(value: Any) -> Any:
    """Bytes as ``0x…``, everything else as it is."""
    if isinstance(value, bytes):
        return "0x" + value.hex()
    return [shown(one) for one in value] if isinstance(value, list | tuple) else value


def _plain(raw: bytes) -> Any:
    return shown(msgpack.unpackb(raw, raw=False))


def _gossip(name: str, raw: bytes) -> dict[str, Any]:
    heard = read(REGTEST, raw)
    sealed = GOSSIP.unpack(raw)
    if not all(verify(one.public, one.digest, one.signature) for one in heard.checks):
        raise AssertionError(name)
    return {
        "name": name,
        "fields": _plain(sealed.body),
        "body": sealed.body.hex(),
        "id": heard.id.hex(),
        "key_epoch": heard.key_epoch,
        "stamp_needed": bits_needed(REGTEST.stamp_bits, len(sealed.body), life_of(heard.body)),
        "stamp_found": zero_bits(REGTEST.name, sealed.body),
        "checks": [[one.public.hex(), one.digest.hex(), one.signature.hex()] for one in heard.checks],
        "gossip": raw.hex(),
    }


def messages() -> list[dict[str, Any]]:
    """Good messages of every kind, at the ends of their ranges."""
    avoid = tuple(sorted(account_hash_of(SecretKey(number.to_bytes(32, "big")).public) for number in range(10, 18)))
    most = an_order(
        BOB,
        side=Side.SELL,
        price_msat=1 << 40,
        quantity=1 << 16,
        first_epoch=(1 << 48) - 59,
        last_epoch=1 << 48,
        slot=7,
        sequence=1 << 62,
        salt=b"\xff" * 16,
        avoid=avoid,
    )
    least = an_order(price_msat=0, quantity=1, first_epoch=0, last_epoch=0, sequence=0, salt=bytes(16), avoid=avoid[:1])
    order = seal_order(ALICE, REGTEST, an_order())
    close = Close(network=REGTEST.name, book=BOOK, order=read(REGTEST, order).id, epoch=EPOCH + 2, owner=ALICE.public)
    first, epoch, overlap = a_match(), a_match(epoch=EPOCH + 2), a_match(buy=plain(b"another"), sell_from=11)
    proofs = [
        proof_of(CAROL.public, side, *((one, sign_match(CAROL, one, side)) for one in (first, other)))
        for side, other in ((Side.SELL, epoch), (Side.SELL, overlap), (Side.BUY, epoch))
    ]
    names = ("two epochs, seller", "one unit twice, seller", "two epochs, buyer")
    return [
        _gossip("order", order),
        _gossip("largest order", seal_order(BOB, REGTEST, most)),
        _gossip("smallest order", seal_order(ALICE, REGTEST, least)),
        _gossip("close", seal_close(ALICE, REGTEST, close)),
        *(_gossip(f"proof: {name}", seal_proof(REGTEST, one)) for name, one in zip(names, proofs, strict=True)),
    ]


def _matches() -> list[dict[str, Any]]:
    rows = []
    for one in (a_match(), a_match(quantity=1 << 16, price_msat=0, buy_from=1 << 16, sell_from=0, accept_by_us=0)):
        row: dict[str, Any] = {"fields": _plain(pack(one)), "bytes": pack(one).hex(), "id": match_id(one).hex()}
        for role, side, key in (("buyer", Side.BUY, ALICE), ("seller", Side.SELL, BOB)):
            row |= {
                f"{role}_key": key.public.hex(),
                f"{role}_digest": match_digest(one, side).hex(),
                f"{role}_signature": sign_match(key, one, side).hex(),
            }
        rows.append(row)
    return rows


# --- refusals ----------------------------------------------------------------------------------------------


def _sealed(body: Any, *, tag: int = 1, key: SecretKey = ALICE, life: int = 5, purpose: str = ORDER, short: int = 0) -> bytes:
    """A gossiped message around any fields, stamped and signed as if they were good; ``short`` bits too little work."""
    raw = msgpack.packb(body)
    if short:
        needed = bits_needed(REGTEST.stamp_bits, len(raw), life)
        while not needed - short <= zero_bits(REGTEST.name, raw) < needed:
            raw = raw[:-8] + (int.from_bytes(raw[-8:], "big") + 1).to_bytes(8, "big")
    elif len(raw) > 8:
        raw = mint(REGTEST.name, raw, bits_needed(REGTEST.stamp_bits, len(raw), life))
    signature = [] if tag == 3 else [key.sign(id_of(REGTEST.name, purpose, raw))]
    return bytes(msgpack.packb([tag, [raw, *signature]]))


def _set(place: int, value: Any) -> Changed:
    return lambda fields: [*fields[:place], value, *fields[place + 1 :]]


_ORDER_CHANGES: Final[list[tuple[str, Changed]]] = [
    ("version 0", _set(0, 0)),
    ("version 2", _set(0, 2)),
    ("version true", _set(0, True)),
    ("network empty", _set(1, "")),
    ("network of 33 letters", _set(1, "n" * 33)),
    ("network as bytes", _set(1, b"regtest")),
    ("another network", _set(1, "signet")),
    ("book of 31 bytes", _set(2, bytes(31))),
    ("book as text", _set(2, "b" * 32)),
    ("side 2", _set(3, 2)),
    ("side true", _set(3, True)),
    ("price below 0", _set(4, -1)),
    ("price above 2^40", _set(4, (1 << 40) + 1)),
    ("price a float", _set(4, 340_000.0)),
    ("quantity 0", _set(5, 0)),
    ("quantity above 2^16", _set(5, (1 << 16) + 1)),
    ("first epoch above 2^48", lambda fields: _set(7, (1 << 48) + 5)(_set(6, (1 << 48) + 1)(fields))),
    ("last before first", _set(7, EPOCH)),
    ("sixty-one epochs of life", _set(7, EPOCH + 61)),
    ("owner of 32 bytes", _set(8, ALICE.public[1:])),
    ("slot 8", _set(9, 8)),
    ("sequence above 2^62", _set(10, (1 << 62) + 1)),
    ("salt of 15 bytes", _set(11, bytes(15))),
    ("nine avoided", _set(12, [bytes([number]) * 20 for number in range(9)])),
    ("avoided account of 19 bytes", _set(12, [bytes(19)])),
    ("avoided accounts descending", _set(12, [b"\x02" * 20, b"\x01" * 20])),
    ("an avoided account twice", _set(12, [b"\x01" * 20, b"\x01" * 20])),
    ("avoided accounts nil", _set(12, None)),
    ("one field more", lambda fields: [*fields[:-1], 0, fields[-1]]),
    ("one field less", lambda fields: [*fields[:11], *fields[12:]]),
]


def _refusals(good: list[dict[str, Any]]) -> list[dict[str, Any]]:
    raw = bytes.fromhex(good[0]["gossip"])
    body, signature = bytes.fromhex(good[0]["body"]), raw[-64:]
    fields = msgpack.unpackb(body, raw=False)
    close = msgpack.unpackb(bytes.fromhex(good[3]["body"]), raw=False)
    proof = msgpack.unpackb(bytes.fromhex(good[4]["body"]), raw=False)
    honest = msgpack.unpackb(pack(a_match(sell_from=12, buy=plain(b"another"))), raw=False)
    cases = [(f"order: {name}", _sealed(change(fields))) for name, change in _ORDER_CHANGES]
    cases += [
        ("order: one bit of work too little", _sealed(fields, short=1)),
        ("order: long life, work for a short one", _sealed(_set(7, EPOCH + 6)(fields), short=1, life=6)),
        ("close: network", _sealed(_set(1, "main")(close), tag=2, purpose=CLOSE, life=1)),
        ("close: order id of 33 bytes", _sealed(_set(3, bytes(33))(close), tag=2, purpose=CLOSE, life=1)),
        ("close: one bit of work too little", _sealed(close, tag=2, purpose=CLOSE, life=1, short=1)),
        ("proof: matches descending", _sealed([*proof[:2], *proof[4:6], *proof[2:4], proof[6]], tag=3, purpose=PROOF, life=1)),
        ("proof: one match twice", _sealed([*proof[:4], *proof[2:4], proof[6]], tag=3, purpose=PROOF, life=1)),
        ("proof: no contradiction", _sealed([*proof[:4], honest, proof[5], proof[6]], tag=3, purpose=PROOF, life=1)),
        ("proof: other role", _sealed([proof[0], 1 - proof[1], *proof[2:4], honest, *proof[5:]], tag=3, purpose=PROOF, life=1)),
        ("proof: one bit of work too little", _sealed(proof, tag=3, purpose=PROOF, life=1, short=1)),
        ("nothing", b""),
        ("a byte that msgpack never uses", b"\xc1"),
        ("cut short", raw[:-1]),
        ("one byte more", raw + b"\x00"),
        ("1,025 bytes", bytes(1_025)),
        ("kind 4", msgpack.packb([4, [body, signature]])),
        ("kind true", msgpack.packb([True, [body, signature]])),
        ("a map", msgpack.packb({1: [body, signature]})),
        ("an array of three", msgpack.packb([1, [body, signature], 0])),
        ("signature of 63 bytes", msgpack.packb([1, [body, signature[1:]]])),
        ("body empty", msgpack.packb([1, [b"", signature]])),
        ("body in a longer form", b"\x92\x01\x92\xc5" + len(body).to_bytes(2, "big") + body + b"\xc4\x40" + signature),
        ("kind in a longer form", b"\x92\xcc\x01" + raw[2:]),
        ("nested without end", b"\x91" * 1_000),
    ]
    rows = []
    for name, data in cases:
        try:
            read(REGTEST, data)
        except BitwrkError as error:
            rows.append({"name": name, "code": error.code, "gossip": data.hex()})
        else:
            raise AssertionError(f"{name} is not refused")
    return rows


# --- frames and letters ------------------------------------------------------------------------------------


def _frames(good: list[dict[str, Any]]) -> list[dict[str, Any]]:
    raws = tuple(bytes.fromhex(one["gossip"]) for one in good[:4])
    names = tuple(bytes.fromhex(one["id"]) for one in good[:4])
    moment = REGTEST.clock.freeze(EPOCH)
    frames = [
        Hello(network=REGTEST.name, moment_us=moment, books=(BOOK, plain(b"another book"))),
        Hello(network=SIGNET.name, moment_us=0, books=()),
        Batch(messages=raws, moment_us=moment, ages_ms=(0, 65_534, 65_535, 7)),
        Batch(messages=raws[:1], moment_us=moment),
        Batch(messages=()),
        Names(batch=Batch(messages=raws[:1], moment_us=moment, ages_ms=(3,)), has=names[1:3], wants=names[3:]),
        Names(batch=Batch(messages=()), has=(), wants=names),
        Ask(book=BOOK, session=1, message=bytes.fromhex("6100000200")),
        Answer(book=BOOK, session=(1 << 32) - 1, message=b"\x61"),
        Pull(book=BOOK, session=1, ids=names),
        Pulled(book=BOOK, session=1, messages=raws[:2]),
        Roots(moment_us=moment + 1, epoch=EPOCH, roots=(BookRoot(book=BOOK, root=plain(b"")),)),
        Roots(moment_us=moment + 1, epoch=EPOCH, roots=()),
    ]
    tags = {kind: tag for tag, kind in FRAMES.members.items()}
    return [
        {
            "name": type(one).__name__,
            "tag": tags[type(one)],
            "fields": _plain(FRAMES.pack(one))[1],
            "bytes": FRAMES.pack(one).hex(),
        }
        for one in frames
    ]


def _letters(good: list[dict[str, Any]]) -> list[dict[str, Any]]:
    match, proposed = a_match(), a_match(seller_root=bytes(32))
    seller, buyer = sign_match(BOB, match, Side.SELL), sign_match(ALICE, match, Side.BUY)
    place: dict[str, Any] = {
        "book": BOOK,
        "epoch": EPOCH + 1,
        "buy": match.buy,
        "sell": match.sell,
        "buy_from": 0,
        "sell_from": 8,
    }
    letters = [
        Propose(match=proposed),
        Accept(match=match, signature=seller),
        Confirm(match=match, signature=buyer),
        Decline(**place, code="different-view", close=b""),
        Decline(**place, code="order-spent", close=bytes.fromhex(good[3]["gossip"])),
    ]
    tags = {kind: tag for tag, kind in LETTERS.members.items()}
    return [
        {
            "name": type(one).__name__,
            "tag": tags[type(one)],
            "fields": _plain(LETTERS.pack(one))[1],
            "bytes": LETTERS.pack(one).hex(),
        }
        for one in letters
    ]


def document() -> str:
    """The whole file."""
    good = messages()
    names = [bytes.fromhex(one["id"]) for one in good[:4]]
    about = (
        "Bytes are hexadecimal, in fields after 0x. Networks: regtest, unless a name says otherwise. "
        "Messages: the fields of the body, its bytes, id and work, [key, digest, signature] of each check, the gossiped whole. "
        "Refusals are gossiped messages whose code is the reason of refusal. Roots: of the ids that stand there."
    )
    whole = {
        "about": about,
        "keys": [
            {"secret": one.secret.hex(), "public": one.public.hex(), "account_hash": account_hash_of(one.public).hex()}
            for one in (ALICE, BOB, CAROL)
        ],
        "book": {
            "network": REGTEST.name,
            "instance": INSTANCE.hex(),
            "article": ARTICLE,
            "terms_hash": TERMS.hex(),
            "id": BOOK.hex(),
        },
        "messages": good,
        "matches": _matches(),
        "refusals": _refusals(good),
        "frames": _frames(good),
        "letters": _letters(good),
        "roots": [
            {"ids": [one.hex() for one in some], "root": plain(b"".join(sorted(some))).hex()} for some in (names, names[:1], [])
        ],
    }
    return json.dumps(whole, indent=1) + "\n"


def opened(kind: type[Order | Close | EquivocationProof], body: str) -> Any:
    """A body of the file as the record it stands for."""
    return unpack(kind, bytes.fromhex(body))


if __name__ == "__main__":
    PATH.write_text(document())
