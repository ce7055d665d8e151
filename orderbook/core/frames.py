"""The frames of the relay stream between two neighbours.

``HELLO`` opens in both directions and comes again when the sender's books change. ``BATCH`` pushes what is new; where that is
much, ``NAMES`` pushes some of it and names the rest. ``ASK`` and ``ANSWER`` carry reconciliation, ``PULL`` and ``PULLED`` what it
showed to be missing. ``ROOTS`` goes out right after every freeze: how the sender's books looked, and what its clock says.
"""

from typing import Annotated, Final

from orderbook.core.messages import Epoch, NetworkName
from wire.canon import U32, Choice, Hash32, Range, Size, record
from wire.limits import BATCH_AGE_MAX_MS, BATCH_MAX_NAMES, BATCH_MAX_ORDERS, BOOKS_MAX, ORDER_MAX_BYTES, RECONCILE_FRAME_BYTES

MomentUs = Annotated[int, Range(0, 1 << 62)]
GossipBytes = Annotated[bytes, Size(1, ORDER_MAX_BYTES + 64)]  # a little more, so that an oversize message is counted as one
AgeMs = Annotated[int, Range(0, BATCH_AGE_MAX_MS)]
Messages = Annotated[tuple[GossipBytes, ...], Size(0, BATCH_MAX_ORDERS)]
Reconciliation = Annotated[bytes, Size(1, RECONCILE_FRAME_BYTES + 4_096)]


@record
class Hello:
    """Which network the sender is on, which books it follows, what time it has."""

    network: NetworkName
    moment_us: MomentUs
    books: Annotated[tuple[Hash32, ...], Size(0, BOOKS_MAX)]


@record
class Batch:
    """Messages that the sender believes to be new to us.

    The rest is information for figures: his time when the batch left, and how old each message was then (none: not told).
    """

    messages: Messages
    moment_us: MomentUs = 0
    ages_ms: Annotated[tuple[AgeMs, ...], Size(0, BATCH_MAX_ORDERS)] = ()


@record
class Names:
    """A batch, and besides messages that the sender has, and such as were named to him and that he would like to have."""

    batch: Batch
    has: Annotated[tuple[Hash32, ...], Size(0, BATCH_MAX_NAMES)]
    wants: Annotated[tuple[Hash32, ...], Size(0, BATCH_MAX_NAMES)]


@record
class Ask:
    """A reconciliation message by the initiator; ``session`` is his number for it."""

    book: Hash32
    session: U32
    message: Reconciliation


@record
class Answer:
    """The responder's message to an ``Ask``."""

    book: Hash32
    session: U32
    message: Reconciliation


@record
class Pull:
    """The initiator wants these messages."""

    book: Hash32
    session: U32
    ids: Annotated[tuple[Hash32, ...], Size(1, BATCH_MAX_ORDERS)]


@record
class Pulled:
    """Those of the asked messages that the sender still has."""

    book: Hash32
    session: U32
    messages: Messages


@record
class BookRoot:
    """The sender's root of one book."""

    book: Hash32
    root: Hash32


@record
class Roots:
    """The sender's roots at the freeze of ``epoch``, for books that both follow, and its time."""

    moment_us: MomentUs
    epoch: Epoch
    roots: Annotated[tuple[BookRoot, ...], Size(0, BOOKS_MAX)]


FRAMES: Final = Choice("relay", {1: Hello, 2: Batch, 3: Ask, 4: Answer, 5: Pull, 6: Pulled, 7: Roots, 8: Names})

Frame = Hello | Batch | Ask | Answer | Pull | Pulled | Roots | Names
