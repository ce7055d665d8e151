"""The frames of ``/bitwrk/content/1``. One stream carries one transfer: the opener receives, the other end sends.

    receiver                              sender
    Want(content, ticket)      ->
                               <-         Root (or Refusal)
    Wish(blobs)                ->
                               <-         Chunk for each wished blob, in any order
    ...                                   ...
    Done                       ->         (ends the stream)

A wish is the credit for its answer: the sender never has more on the way than was wished, and wishes are bounded by the
receiver's window. ``Refusal`` may come in place of any answer and ends the transfer.
"""

from typing import Annotated, Final

from cafs.core.manifest import ROOT_MAX_BYTES
from cafs.core.squeeze import Codec
from wire.canon import Choice, Hash32, Size, record
from wire.limits import CHUNK_MAX_BYTES, REASON_MAX_CHARS, WISH_LIST_MAX

PROTOCOL: Final = "/bitwrk/content/1"
Ticket = Annotated[bytes, Size(16, 16)]


@record
class Want:
    """The content that is wanted, and the ticket that its holder gave for it."""

    content: Hash32
    ticket: Ticket


@record
class RootOf:
    """The canonical bytes of the content's root (``cafs.core.manifest.Root``)."""

    root: Annotated[bytes, Size(1, ROOT_MAX_BYTES)]


@record
class Wish:
    """Blobs of this content that are to be sent now: pages or chunks, each at most once in a transfer."""

    blobs: Annotated[tuple[Hash32, ...], Size(1, WISH_LIST_MAX)]


@record
class Chunk:
    """One wished blob. ``body`` is the blob itself, or a single zstd frame that tells its content size."""

    blob: Hash32
    codec: Codec
    body: Annotated[bytes, Size(1, CHUNK_MAX_BYTES)]


@record
class Done:
    """The receiver has everything. Nothing follows."""


@record
class Refusal:
    """The sender will not go on. ``code`` is for programs, ``sentence`` for people."""

    code: Annotated[str, Size(1, 32)]
    sentence: Annotated[str, Size(0, 4 * REASON_MAX_CHARS)]


Message = Want | RootOf | Wish | Chunk | Done | Refusal
MESSAGES: Final = Choice("content", {1: Want, 2: RootOf, 3: Wish, 4: Chunk, 5: Done, 6: Refusal})
