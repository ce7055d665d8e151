"""Settlement terms: what both sides of a book agree on by trading in it. Their hash is part of the book's name.

``free/1`` has no escrow and all prices 0; its books are the same on every chain. ``escrow/1`` settles on one chain. Times are
for one unit: ``fetch_s`` to move its data one way, ``work_s`` to compute it; ``fund_s`` for the funding to be seen; ``silence_s``
is how long a peer may be gone before its unfinished units are taken elsewhere; ``reveal_s`` how long a key may be owed.
"""

from typing import Annotated, Final

from wire.canon import Public33, Range, Size, pack, record
from wire.digest import context, digest
from wire.errors import Refused
from wire.limits import ARTICLE_MAX_CHARS, CONTENT_MAX_BYTES, WORK_TIME_MAX_S
from wire.network import Network

FREE: Final = "free/1"
ESCROW: Final = "escrow/1"
NO_CHAIN: Final = bytes(32)

_Seconds = Annotated[int, Range(1, 86_400)]
_Blocks = Annotated[int, Range(0, 65_535)]


@record
class Terms:
    """One set of terms; see the head of this file. Blocks and confirmations count blocks of the settling chain."""

    kind: Annotated[str, Size(1, 16)]
    arbiter: Public33 | None
    refund_blocks: _Blocks
    claim_delay_blocks: _Blocks
    confirmations: Annotated[int, Range(0, 100)]
    fund_s: _Seconds
    fetch_s: _Seconds
    work_s: Annotated[int, Range(1, WORK_TIME_MAX_S)]
    reveal_s: _Seconds
    silence_s: _Seconds
    work_max_bytes: Annotated[int, Range(1, CONTENT_MAX_BYTES)]
    tier: Annotated[int, Range(0, 255)]


def free_terms() -> Terms:
    """Terms of a free book: everything as usual, but no money and so no chain."""
    return Terms(
        kind=FREE,
        arbiter=None,
        refund_blocks=0,
        claim_delay_blocks=0,
        confirmations=0,
        fund_s=10,
        fetch_s=60,
        work_s=WORK_TIME_MAX_S,
        reveal_s=60,
        silence_s=3,
        work_max_bytes=CONTENT_MAX_BYTES,
        tier=0,
    )


def escrow_terms(network: Network, arbiter: bytes | None = None) -> Terms:
    """The standard paid terms of a network: refund by time, one-unit exposure, and an arbiter if one is named."""
    fast = network.clock.length_ms < 5_000
    return Terms(
        kind=ESCROW,
        arbiter=arbiter,
        refund_blocks=network.refund_blocks,
        claim_delay_blocks=network.claim_delay_blocks,
        confirmations=network.confirmations,
        fund_s=15 if fast else 120,
        fetch_s=60,
        work_s=WORK_TIME_MAX_S,
        reveal_s=60 if fast else 7_200,
        silence_s=3 if fast else 30,
        work_max_bytes=CONTENT_MAX_BYTES,
        tier=0,
    )


def terms_hash(network: Network, terms: Terms) -> bytes:
    """32 bytes that stand for ``terms`` in a book's name."""
    return digest(context(network.name, "terms"), pack(terms))


def check_article(article: str) -> str:
    """``article`` if it is a well-formed name: printable ASCII without spaces, not too long. Raises ``Refused``."""
    if not 1 <= len(article) <= ARTICLE_MAX_CHARS:
        raise Refused("bad-article", f"an article's name has 1 to {ARTICLE_MAX_CHARS} characters")
    if not all("!" <= letter <= "~" for letter in article):
        raise Refused("bad-article", f"{article!r} is not an article: use printable ASCII without spaces")
    return article
