"""What is said in a book: orders, closes, matches, and the proof that somebody signed one order away twice.

Orders, closes and proofs are gossiped (``GOSSIP``); a ``Match`` travels between its two parties only. All are records in the
one canonical encoding. The id of a gossiped message is the digest of its *body*, so it names what was said and by whom; the
signature is beside it. Validity, decided by ``read`` and a signature check, depends on bytes alone; whether a valid message
is *admitted* now is the book's rule.

A buyer and a seller sign the same ``Match`` for two different purposes, so that a signature can never be shown around as one
of the other role.
"""

import enum
import functools
from typing import Annotated, Final, NamedTuple

from orderbook.core.stamp import STAMP_BYTES, bits_needed, check_stamp, mint
from wire.account import hash160
from wire.canon import Choice, EncodingError, Hash32, Oversize, Public33, Range, Signature64, Size, pack, record, unpack
from wire.digest import context, digest, digest_for
from wire.envelope import WrongSignature, id_of
from wire.errors import Ignore, Misbehaved
from wire.keys import SecretKey, verify
from wire.limits import AVOID_MAX, ORDER_LIFE_MAX_EPOCHS, ORDER_MAX_BYTES, OWNER_SLOTS, PRICE_MAX_MSAT, QUANTITY_MAX
from wire.network import Network
from wire.values import as_tuple

AccountHash = Annotated[bytes, Size(20, 20)]
Stamp = Annotated[bytes, Size(STAMP_BYTES, STAMP_BYTES)]
Epoch = Annotated[int, Range(0, 1 << 48)]
PriceMsat = Annotated[int, Range(0, PRICE_MAX_MSAT)]
Quantity = Annotated[int, Range(1, QUANTITY_MAX)]
Offset = Annotated[int, Range(0, QUANTITY_MAX)]
NetworkName = Annotated[str, Size(1, 32)]
Body = Annotated[bytes, Size(1, ORDER_MAX_BYTES)]

ORDER: Final = "order"
CLOSE: Final = "close"
PROOF: Final = "proof"
ZERO_STAMP: Final = bytes(STAMP_BYTES)
ZERO_ROOT: Final = bytes(32)


class Side(enum.Enum):
    """Which side of the book; also which party of a match."""

    BUY = 0
    SELL = 1

    @property
    def other(self) -> "Side":
        """The counterparty's side."""
        return Side.SELL if self is Side.BUY else Side.BUY


@record
class Order:
    """A standing wish to trade up to ``quantity`` units at ``price_msat`` or better, in any epoch from first to last."""

    version: Annotated[int, Range(1, 1)] = 1
    network: NetworkName
    book: Hash32
    side: Side
    price_msat: PriceMsat
    quantity: Quantity
    first_epoch: Epoch
    last_epoch: Epoch
    owner: Public33
    slot: Annotated[int, Range(0, OWNER_SLOTS - 1)]
    sequence: Annotated[int, Range(0, (1 << 62))]
    salt: Annotated[bytes, Size(16, 16)]
    avoid: Annotated[tuple[AccountHash, ...], Size(0, AVOID_MAX)] = ()
    stamp: Stamp = ZERO_STAMP


@record
class Close:
    """The owner withdraws an order from ``epoch`` on, or tells that it is spent."""

    version: Annotated[int, Range(1, 1)] = 1
    network: NetworkName
    book: Hash32
    order: Hash32
    epoch: Epoch
    owner: Public33
    stamp: Stamp = ZERO_STAMP


@record
class Match:
    """One fill, as both parties computed it. The roots are information: no signature depends on their being equal."""

    network: NetworkName
    book: Hash32
    epoch: Epoch
    buy: Hash32
    sell: Hash32
    quantity: Quantity
    price_msat: PriceMsat
    buy_from: Offset
    sell_from: Offset
    accept_by_us: Annotated[int, Range(0, 1 << 62)]
    buyer_root: Hash32
    seller_root: Hash32


@record
class SignedMatch:
    """A match that both parties have signed: the start of a deal."""

    match: Match
    buyer: Public33
    seller: Public33
    buyer_signature: Signature64
    seller_signature: Signature64


@record
class EquivocationProof:
    """Two matches by one signer in one role, for one order, with different epochs or overlapping units."""

    signer: Public33
    side: Side
    first: Match
    first_signature: Signature64
    second: Match
    second_signature: Signature64
    stamp: Stamp = ZERO_STAMP


@record
class SealedOrder:
    """An order's body and its owner's signature."""

    body: Body
    signature: Signature64


@record
class SealedClose:
    """A close's body and the owner's signature."""

    body: Body
    signature: Signature64


@record
class SealedProof:
    """A proof's body. It needs no signature of its own: it carries two."""

    body: Body


GOSSIP: Final = Choice("gossip", {1: SealedOrder, 2: SealedClose, 3: SealedProof})


def _heads() -> dict[int, bytes]:
    """What stands before the body of a sealed order, by the length of the whole. There is one encoding, so there is one head."""
    found: dict[int, bytes] = {}
    for size in range(1, ORDER_MAX_BYTES + 1):
        raw = GOSSIP.pack(SealedOrder(body=bytes(size), signature=bytes(64)))
        found[len(raw)] = raw[: -size - 64 - len(_SIGNATURE_HEAD)]
    return found


_SIGNATURE_HEAD: Final = b"\xc4\x40"  # 64 bytes follow
_HEADS: Final = _heads()


Lane = bytes
"""An owner's 33 bytes and one that says what of his is bounded together: orders of one side and slot, his closes, his proofs."""

CLOSES: Final = 2 * OWNER_SLOTS
PROOFS: Final = CLOSES + 1
_KINDS: Final = tuple(bytes([kind]) for kind in range(PROOFS + 1))


class CheckItem(NamedTuple):
    """A signature to be verified: ``id`` names this very signature over this very digest, so a false one spoils nothing else.
    Where a message has but one signature, its bytes do.
    """

    id: bytes
    public: bytes
    digest: bytes
    signature: bytes


class Heard(NamedTuple):
    """A gossiped message, decoded and valid but for the signatures in ``checks``. A tuple, because it is made for every one."""

    raw: bytes
    id: bytes
    book: bytes
    key_epoch: int
    lane: Lane
    body: Order | Close | EquivocationProof
    checks: tuple[CheckItem, ...]


def lane_of(body: Order | Close | EquivocationProof) -> Lane:
    """The lane of a message."""
    if isinstance(body, Order):
        return body.owner + _KINDS[body.slot if body.side is Side.BUY else body.slot + OWNER_SLOTS]
    return body.owner + _KINDS[CLOSES] if isinstance(body, Close) else body.signer + _KINDS[PROOFS]


def book_id(network: str, instance: bytes, article: str, terms_hash: bytes) -> bytes:
    """32 bytes naming a book: one network, one chain instance (32 bytes), one article, one set of terms (32 bytes)."""
    return digest(context(network, "book"), instance, terms_hash, article.encode())


@functools.lru_cache(maxsize=65_536)
def account_hash_of(owner: bytes) -> bytes:
    """The 20 bytes by which ``avoid`` names an owner."""
    return hash160(owner)


# --- gossip: writing ---------------------------------------------------------------------------------------


def life_of(body: Order | Close | EquivocationProof) -> int:
    """Epochs of life that the stamp pays for."""
    return body.last_epoch - body.first_epoch + 1 if isinstance(body, Order) else 1


def _stamped(network: Network, body: Order | Close | EquivocationProof) -> bytes:
    raw = pack(body)
    return mint(network.name, raw, bits_needed(network.stamp_bits, len(raw), life_of(body)))


def seal_order(key: SecretKey, network: Network, order: Order) -> bytes:
    """The gossiped bytes of ``order``, stamped and signed. Its own ``stamp`` field is replaced."""
    body = _stamped(network, order)
    return GOSSIP.pack(SealedOrder(body=body, signature=key.sign(id_of(network.name, ORDER, body))))


def seal_close(key: SecretKey, network: Network, close: Close) -> bytes:
    """The gossiped bytes of ``close``, stamped and signed."""
    body = _stamped(network, close)
    return GOSSIP.pack(SealedClose(body=body, signature=key.sign(id_of(network.name, CLOSE, body))))


def seal_proof(network: Network, proof: EquivocationProof) -> bytes:
    """The gossiped bytes of ``proof``, stamped. Anybody may send it on."""
    return GOSSIP.pack(SealedProof(body=_stamped(network, proof)))


# --- gossip: reading ---------------------------------------------------------------------------------------


def read(network: Network, raw: bytes) -> Heard:
    """Decode a gossiped message and check all of it but its signatures.

    Raises ``Misbehaved`` with the code malformed, oversize, unknown-kind or bad-stamp, and ``Ignore`` with wrong-network.
    """
    if len(raw) > ORDER_MAX_BYTES:
        raise Oversize("oversize", f"{len(raw)} bytes are more than the {ORDER_MAX_BYTES} a message may have")
    try:
        head = _HEADS.get(len(raw))
        if head is not None and raw.startswith(head) and raw[-66:-64] == _SIGNATURE_HEAD:  # most are, and need no decoding
            return _read_order(network, raw, raw[len(head) : -66], raw[-64:])
        sealed = GOSSIP.unpack(raw)
        match sealed:
            case SealedOrder():
                return _read_order(network, raw, sealed.body, sealed.signature)
            case SealedClose():
                return _read_close(network, raw, sealed)
            case _:
                return _read_proof(network, raw, sealed)
    except EncodingError as error:
        if error.code in ("oversize", "unknown-kind"):
            raise
        raise Misbehaved("malformed", error.sentence, error.penalty) from None


def _right_network(network: Network, name: str) -> None:
    if name != network.name:
        raise Ignore("wrong-network", f"this is a message for the network {name!r}, here is {network.name!r}")


def _read_order(network: Network, raw: bytes, body: bytes, signature: bytes) -> Heard:
    order, name = unpack(Order, body), network.name
    _right_network(network, order.network)
    if not order.first_epoch <= order.last_epoch < order.first_epoch + ORDER_LIFE_MAX_EPOCHS:
        raise Misbehaved("malformed", f"an order lives 1 to {ORDER_LIFE_MAX_EPOCHS} epochs")
    if order.avoid and any(one >= following for one, following in zip(order.avoid, order.avoid[1:], strict=False)):
        raise Misbehaved("malformed", "the avoided accounts of an order stand in ascending order, each once")
    check_stamp(name, network.stamp_bits, body, order.last_epoch - order.first_epoch + 1)
    message_id = digest_for(name, ORDER, body)
    check = as_tuple(CheckItem, (raw, order.owner, message_id, signature))
    return as_tuple(Heard, (raw, message_id, order.book, order.first_epoch, lane_of(order), order, (check,)))


def _read_close(network: Network, raw: bytes, sealed: SealedClose) -> Heard:
    close = unpack(Close, sealed.body)
    _right_network(network, close.network)
    check_stamp(network.name, network.stamp_bits, sealed.body, life_of(close))
    message_id = id_of(network.name, CLOSE, sealed.body)
    check = CheckItem(id=raw, public=close.owner, digest=message_id, signature=sealed.signature)
    return Heard(raw=raw, id=message_id, book=close.book, key_epoch=close.epoch, lane=lane_of(close), body=close, checks=(check,))


def _read_proof(network: Network, raw: bytes, sealed: SealedProof) -> Heard:
    proof = unpack(EquivocationProof, sealed.body)
    _right_network(network, proof.first.network)
    if pack(proof.first) >= pack(proof.second):
        raise Misbehaved("malformed", "the two matches of a proof stand in the order of their bytes")
    if not conflict(proof.first, proof.second, proof.side):
        raise Misbehaved("malformed", "the two matches of this proof do not contradict each other", penalty=30)
    check_stamp(network.name, network.stamp_bits, sealed.body, life_of(proof))
    checks = tuple(
        CheckItem(id=signed + signature, public=proof.signer, digest=signed, signature=signature)
        for signed, signature in (
            (match_digest(proof.first, proof.side), proof.first_signature),
            (match_digest(proof.second, proof.side), proof.second_signature),
        )
    )
    key_epoch = max(proof.first.epoch, proof.second.epoch)
    message_id = id_of(network.name, PROOF, sealed.body)
    return Heard(
        raw=raw, id=message_id, book=proof.first.book, key_epoch=key_epoch, lane=lane_of(proof), body=proof, checks=checks
    )


# --- matches -----------------------------------------------------------------------------------------------


def match_digest(match: Match, side: Side) -> bytes:
    """The 32 bytes that the party on ``side`` signs."""
    return id_of(match.network, "match-buyer" if side is Side.BUY else "match-seller", pack(match))


def match_id(match: Match) -> bytes:
    """32 bytes naming a match, the same for both parties."""
    return id_of(match.network, "match", pack(match))


def sign_match(key: SecretKey, match: Match, side: Side) -> bytes:
    """Our signature as the party on ``side``."""
    return key.sign(match_digest(match, side))


def verify_match(public: bytes, match: Match, side: Side, signature: bytes) -> bool:
    """Whether the party on ``side`` with key ``public`` signed ``match``."""
    return verify(public, match_digest(match, side), signature)


def open_signed_match(network: Network, signed: SignedMatch) -> Match:
    """The match inside, after both signatures and the network are checked. Raises ``Ignore`` or ``WrongSignature``."""
    _right_network(network, signed.match.network)
    for public, side, signature in (
        (signed.buyer, Side.BUY, signed.buyer_signature),
        (signed.seller, Side.SELL, signed.seller_signature),
    ):
        if not verify_match(public, signed.match, side, signature):
            raise WrongSignature("wrong-signature", f"this match is not signed by its {side.name.lower()} party", penalty=50)
    return signed.match


def order_of(match: Match, side: Side) -> bytes:
    """The order id of the party on ``side``."""
    return match.buy if side is Side.BUY else match.sell


def units_of(match: Match, side: Side) -> range:
    """The units of that order which the match takes."""
    start = match.buy_from if side is Side.BUY else match.sell_from
    return range(start, start + match.quantity)


def conflict(first: Match, second: Match, side: Side) -> bool:
    """Whether nobody honest signs both on ``side``: one order, but two epochs or a unit twice."""
    if first == second or (first.network, first.book) != (second.network, second.book):
        return False
    if order_of(first, side) != order_of(second, side):
        return False
    one, two = units_of(first, side), units_of(second, side)
    return first.epoch != second.epoch or (one.start < two.stop and two.start < one.stop)
