"""I20: the golden vectors of the book's messages, by the product and by a second implementation that shares no line with it."""

import json
from typing import Any

import pytest
from blake3 import blake3

from orderbook.core.agreement import LETTERS
from orderbook.core.frames import FRAMES
from orderbook.core.messages import account_hash_of, book_id, match_id, read
from tests.orderbook import second
from tests.orderbook.messages_made import PATH, a_match, document, shown
from wire.errors import BitwrkError
from wire.keys import SecretKey
from wire.network import REGTEST

VECTORS = json.loads(PATH.read_text())


def hidden(value: Any) -> Any:
    """The inverse of ``shown``."""
    if isinstance(value, str) and value.startswith("0x"):
        return bytes.fromhex(value[2:])
    return [hidden(one) for one in value] if isinstance(value, list) else value


def test_the_file_is_what_the_generator_writes() -> None:
    assert PATH.read_text() == document()


def test_names() -> None:
    book = VECTORS["book"]
    instance, terms = bytes.fromhex(book["instance"]), bytes.fromhex(book["terms_hash"])
    assert book_id(book["network"], instance, book["article"], terms).hex() == book["id"]
    assert second.h(book["network"], "book", instance, terms, book["article"].encode()).hex() == book["id"]
    for row in VECTORS["keys"]:
        public = SecretKey(bytes.fromhex(row["secret"])).public
        assert (public.hex(), account_hash_of(public).hex()) == (row["public"], row["account_hash"])
    for row in VECTORS["roots"]:
        assert second.root([bytes.fromhex(one) for one in row["ids"]]).hex() == row["root"]


@pytest.mark.parametrize("row", VECTORS["messages"], ids=lambda row: row["name"])
def test_messages(row: dict[str, Any]) -> None:
    raw = bytes.fromhex(row["gossip"])
    ours, theirs = read(REGTEST, raw), second.read("regtest", raw)
    assert ours.id.hex() == theirs["id"].hex() == row["id"]
    assert ours.key_epoch == theirs["key_epoch"] == row["key_epoch"]
    assert (theirs["found"], theirs["needed"]) == (row["stamp_found"], row["stamp_needed"])
    checks = [[one.hex() for one in check] for check in theirs["checks"]]
    assert checks == row["checks"] == [[one.public.hex(), one.digest.hex(), one.signature.hex()] for one in ours.checks]
    assert all(second.signed(*check) for check in theirs["checks"])
    assert shown(theirs["body"]) == row["fields"]
    assert second.encode(hidden(row["fields"])).hex() == row["body"]


@pytest.mark.parametrize("row", VECTORS["refusals"], ids=lambda row: row["name"])
def test_refusals(row: dict[str, Any]) -> None:
    raw = bytes.fromhex(row["gossip"])
    with pytest.raises(BitwrkError) as ours:
        read(REGTEST, raw)
    with pytest.raises(second.Bad) as theirs:
        second.read("regtest", raw)
    assert (ours.value.code, str(theirs.value)) == (row["code"], row["code"])


def test_matches() -> None:
    assert match_id(a_match()).hex() == VECTORS["matches"][0]["id"]
    for row in VECTORS["matches"]:
        fields = hidden(row["fields"])
        assert second.encode(fields).hex() == row["bytes"]
        assert second.h("regtest", "match", bytes.fromhex(row["bytes"])).hex() == row["id"]
        for side, role in enumerate(("buyer", "seller")):
            digest = second.match_digest(fields, side)
            assert digest.hex() == row[f"{role}_digest"]
            key, signature = (bytes.fromhex(row[f"{role}_{what}"]) for what in ("key", "signature"))
            assert second.signed(key, digest, signature)
            assert not second.signed(key, second.match_digest(fields, 1 - side), signature)


@pytest.mark.parametrize(("part", "choice", "members"), [("frames", FRAMES, second.FRAMES), ("letters", LETTERS, second.LETTERS)])
def test_frames_and_letters(part: str, choice: Any, members: dict[int, Any]) -> None:
    assert {row["tag"] for row in VECTORS[part]} == set(choice.members) == set(members)
    for row in VECTORS[part]:
        raw = bytes.fromhex(row["bytes"])
        assert type(choice.unpack(raw)).__name__ == row["name"]
        assert choice.pack(choice.unpack(raw)) == raw
        tag, fields = second.union(raw, members)
        assert (tag, shown(fields)) == (row["tag"], row["fields"])
        assert second.encode([row["tag"], hidden(row["fields"])]) == raw
        for broken in (raw[:-1], raw + b"\x00", b"\x91" + raw[1:], raw[:1] + b"\x09" + raw[2:]):
            with pytest.raises(BitwrkError):
                choice.unpack(broken)
            with pytest.raises(second.Bad):
                second.union(broken, members)


def test_the_second_implementation_can_refuse() -> None:
    """It is no rubber stamp: one flipped bit anywhere changes what it says."""
    raw = bytes.fromhex(VECTORS["messages"][0]["gossip"])
    good = second.read("regtest", raw)
    for place in range(0, len(raw), 3):
        bent = raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]
        try:
            heard = second.read("regtest", bent)
        except second.Bad:
            continue
        assert heard["id"] != good["id"] or not all(second.signed(*check) for check in heard["checks"])
    assert second.root([]) == blake3(b"").digest()
