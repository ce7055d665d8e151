"""A second implementation of the book's messages, written from docs/spec/orderbook.md alone: I20.

It shares no line with the product: its own reader and writer of the encoding, blake3, and coincurve for BIP340. It is literal
and slow on purpose.
"""

from typing import Any

import coincurve
from blake3 import blake3

BASE_BITS = {"regtest": 8, "signet": 12, "main": 16}
TEXT, BLOB, LIST = "text", "bytes", "list"


class Bad(Exception):
    """A refusal; its text is the code."""


# --- the encoding ------------------------------------------------------------------------------------------


def encode(value: Any) -> bytes:
    """Shortest forms only; there are numbers from zero, texts, byte strings and arrays."""
    if type(value) is int and value >= 0:
        if value < 0x80:
            return bytes([value])
        size = next(size for size in (1, 2, 4, 8) if value < 1 << 8 * size)
        return bytes([{1: 0xCC, 2: 0xCD, 4: 0xCE, 8: 0xCF}[size]]) + value.to_bytes(size, "big")
    if isinstance(value, str):
        raw = value.encode()
        return (bytes([0xA0 | len(raw)]) if len(raw) < 32 else _head(raw, 0xD9)) + raw
    if isinstance(value, bytes):
        return _head(value, 0xC4) + value
    if isinstance(value, list):
        count = len(value)
        head = bytes([0x90 | count]) if count < 16 else b"\xdc" + count.to_bytes(2, "big")
        return head + b"".join(map(encode, value))
    raise Bad("malformed")


def _head(raw: bytes, first: int) -> bytes:
    size = next(size for size in (1, 2, 4) if len(raw) < 1 << 8 * size)
    return bytes([first + size.bit_length() - 1]) + len(raw).to_bytes(size, "big")


def decode(data: bytes) -> Any:
    """The one value in ``data``; whatever its own encoding is not equal to is refused."""
    try:
        value, end = _decode(data, 0, 0)
    except (IndexError, UnicodeDecodeError):
        raise Bad("malformed") from None
    if end != len(data) or encode(value) != data:
        raise Bad("malformed")
    return value


def _decode(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    first = data[at]
    if depth > 8:
        raise Bad("malformed")
    if first < 0x80:
        return first, at + 1
    if 0xCC <= first <= 0xCF:
        size = 1 << first - 0xCC
        return int.from_bytes(_take(data, at + 1, size), "big"), at + 1 + size
    if 0xA0 <= first < 0xC0:
        return _take(data, at + 1, first - 0xA0).decode(), at + 1 + first - 0xA0
    if 0xD9 <= first <= 0xDB or 0xC4 <= first <= 0xC6:
        size = 1 << first - (0xD9 if first >= 0xD9 else 0xC4)
        count = int.from_bytes(_take(data, at + 1, size), "big")
        raw = _take(data, at + 1 + size, count)
        return raw.decode() if first >= 0xD9 else raw, at + 1 + size + count
    if 0x90 <= first < 0xA0 or first == 0xDC:
        count, at = (first - 0x90, at + 1) if first < 0xA0 else (int.from_bytes(_take(data, at + 1, 2), "big"), at + 3)
        items = []
        for _ in range(count):
            item, at = _decode(data, at, depth + 1)
            items.append(item)
        return items, at
    raise Bad("malformed")


def _take(data: bytes, at: int, count: int) -> bytes:
    if at + count > len(data):
        raise Bad("malformed")
    return data[at : at + count]


# --- shapes: (kind, least, most), a list of shapes for a record, or (list, least, most, shape) -------------

N, H, K, SIG, STAMP = (TEXT, 1, 32), (BLOB, 32, 32), (BLOB, 33, 33), (BLOB, 64, 64), (BLOB, 8, 8)
ONE, SIDE, EPOCH, UNITS = (int, 1, 1), (int, 0, 1), (int, 0, 1 << 48), (int, 0, 1 << 16)
PRICE, QUANTITY, MOMENT, NUMBER = (int, 0, 1 << 40), (int, 1, 1 << 16), (int, 0, 1 << 62), (int, 0, (1 << 32) - 1)
AVOID = (LIST, 0, 8, (BLOB, 20, 20))
ORDER = [ONE, N, H, SIDE, PRICE, QUANTITY, EPOCH, EPOCH, K, (int, 0, 7), (int, 0, 1 << 62), (BLOB, 16, 16), AVOID, STAMP]
CLOSE = [ONE, N, H, H, EPOCH, K, STAMP]
MATCH = [N, H, EPOCH, H, H, QUANTITY, PRICE, UNITS, UNITS, MOMENT, H, H]
PROOF = [K, SIDE, MATCH, SIG, MATCH, SIG, STAMP]
BODY = (BLOB, 1, 1_024)
GOSSIP = {1: [BODY, SIG], 2: [BODY, SIG], 3: [BODY]}
MESSAGES, TALK = (LIST, 0, 512, (BLOB, 1, 1_088)), [H, NUMBER, (BLOB, 1, 64_096)]
BOOKS, ROOTS = (LIST, 0, 4_096, H), (LIST, 0, 4_096, [H, H])
BATCH, NAMES = [MESSAGES, MOMENT, (LIST, 0, 512, (int, 0, 65_535))], (LIST, 0, 1_900, H)
FRAMES = {
    1: [N, MOMENT, BOOKS],
    2: BATCH,
    3: TALK,
    4: TALK,
    5: [H, NUMBER, (LIST, 1, 512, H)],
    6: [H, NUMBER, MESSAGES],
    7: [MOMENT, EPOCH, ROOTS],
    8: [BATCH, NAMES, NAMES],
}
SIGNED = [MATCH, SIG]
LETTERS = {1: [MATCH], 2: SIGNED, 3: SIGNED, 4: [H, EPOCH, H, H, UNITS, UNITS, (TEXT, 1, 32), (BLOB, 0, 1_024)]}


def fits(value: Any, shape: Any) -> bool:
    """Whether a decoded value has the shape."""
    if isinstance(shape, list):
        return type(value) is list and len(value) == len(shape) and all(map(fits, value, shape))
    kind, least, most, *item = shape
    if kind is int:
        return type(value) is int and bool(least <= value <= most)
    wanted = {TEXT: str, BLOB: bytes, LIST: list}[kind]
    if type(value) is not wanted:
        return False
    size = len(value.encode()) if kind == TEXT else len(value)
    return bool(least <= size <= most) and (not item or all(fits(one, item[0]) for one in value))


def union(data: bytes, members: dict[int, Any]) -> tuple[int, list[Any]]:
    """Tag and fields of a member of a union."""
    whole = decode(data)
    if type(whole) is not list or len(whole) != 2 or type(whole[0]) is not int:
        raise Bad("malformed")
    if whole[0] not in members:
        raise Bad("unknown-kind")
    if not fits(whole[1], members[whole[0]]):
        raise Bad("malformed")
    return whole[0], whole[1]


# --- digests, work, signatures -----------------------------------------------------------------------------


def h(network: str, purpose: str, *parts: bytes) -> bytes:
    """H(purpose, …) of the specification."""
    return blake3(b"".join(parts), derive_key_context=f"bitwrk/1/{network}/{purpose}").digest()


def root(ids: list[bytes]) -> bytes:
    """Of the messages with these ids."""
    return blake3(b"".join(sorted(ids))).digest()


def work(network: str, body: bytes) -> int:
    """Zero bits that the stamp digest begins with."""
    return 256 - int.from_bytes(h(network, "stamp", body), "big").bit_length()


def work_needed(network: str, body: bytes, life: int) -> int:
    """Zero bits that are asked for."""
    return BASE_BITS[network] + ((len(body) - 1) // 256).bit_length() + ((life - 1) // 5).bit_length()


def signed(public: bytes, digest: bytes, signature: bytes) -> bool:
    """BIP340."""
    return bool(coincurve.PublicKeyXOnly(public[1:]).verify(signature, digest))


def match_digest(match: list[Any], side: int) -> bytes:
    """What the buyer (0) or the seller (1) signs."""
    return h(match[0], ("match-buyer", "match-seller")[side], encode(match))


def contradict(one: list[Any], two: list[Any], side: int) -> bool:
    """Whether nobody honest signs both in this role."""
    if one == two or one[:2] != two[:2] or one[3 + side] != two[3 + side]:
        return False
    units = [set(range(match[7 + side], match[7 + side] + match[5])) for match in (one, two)]
    return one[2] != two[2] or bool(units[0] & units[1])


def read(network: str, raw: bytes) -> dict[str, Any]:
    """A gossiped message, with everything checked but its signatures, which are listed."""
    if len(raw) > 1_024:
        raise Bad("oversize")
    tag, sealed = union(raw, GOSSIP)
    body = decode(sealed[0])
    if not fits(body, {1: ORDER, 2: CLOSE, 3: PROOF}[tag]):
        raise Bad("malformed")
    if (body[2][0] if tag == 3 else body[1]) != network:
        raise Bad("wrong-network")
    life = 1
    if tag == 1:
        life = body[7] - body[6] + 1
        if not 1 <= life <= 60 or sorted(set(body[12])) != body[12]:
            raise Bad("malformed")
    elif tag == 3 and not (encode(body[2]) < encode(body[4]) and contradict(body[2], body[4], body[1])):
        raise Bad("malformed")
    found, needed = work(network, sealed[0]), work_needed(network, sealed[0], life)
    if found < needed:
        raise Bad("bad-stamp")
    name = h(network, {1: "order", 2: "close", 3: "proof"}[tag], sealed[0])
    checks = [(body[8 if tag == 1 else 5], name, sealed[1])] if tag < 3 else []
    if tag == 3:
        checks = [(body[0], match_digest(body[place], body[1]), body[place + 1]) for place in (2, 4)]
    key_epoch = {1: lambda: body[6], 2: lambda: body[4], 3: lambda: max(body[2][2], body[4][2])}[tag]()
    return {"body": body, "id": name, "key_epoch": key_epoch, "checks": checks, "found": found, "needed": needed}
