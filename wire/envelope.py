"""Sealed messages: the canonical bytes of a body, and its author's signature over their digest.

The id of a sealed message is the digest of its body bytes under a context that names the network and the purpose, and the
signature signs exactly that id. So an id names what was said and by whom (the author's key is a field of the body), never how
it was signed; nothing sealed for one network or purpose opens in another.
"""

from collections.abc import Callable
from typing import Annotated, TypeVar

from wire.canon import Signature64, Size, pack, record, unpack
from wire.digest import digest_for
from wire.errors import Misbehaved
from wire.keys import SecretKey, verify
from wire.limits import FRAME_MAX_BYTES, ORDER_MAX_BYTES

T = TypeVar("T")


class WrongSignature(Misbehaved):
    """The signature is not by the author over these bytes for this purpose and network."""


@record
class Sealed:
    """``body`` is the canonical encoding of a record, ``signature`` its author's BIP340 signature over ``id_of``."""

    body: Annotated[bytes, Size(1, FRAME_MAX_BYTES)]
    signature: Signature64


def id_of(network: str, purpose: str, body: bytes) -> bytes:
    """32 bytes: the id of a body said for ``purpose`` on ``network``."""
    return digest_for(network, purpose, body)


def seal(key: SecretKey, network: str, purpose: str, body: object) -> Sealed:
    """``body`` (a record) encoded and signed."""
    raw = pack(body)
    return Sealed(body=raw, signature=key.sign(id_of(network, purpose, raw)))


def open_sealed(
    sealed: Sealed,
    network: str,
    purpose: str,
    kind: type[T],
    author: Callable[[T], bytes],
    most: int = ORDER_MAX_BYTES,
) -> T:
    """The body inside ``sealed``, decoded and its signature checked against ``author(body)``.

    Raises ``EncodingError`` for the bytes and ``WrongSignature`` for the signature.
    """
    body = unpack(kind, sealed.body, most)
    if not verify(author(body), id_of(network, purpose, sealed.body), sealed.signature):
        raise WrongSignature("wrong-signature", f"the signature of this {kind.__name__} is not its author's", penalty=50)
    return body
