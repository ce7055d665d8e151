"""What the two machines of a transfer share: the events that come from outside and the effects they ask for.

``Receiver`` (``cafs.core.receiver``) and ``Sender`` (``cafs.core.sender``) are pure: a driver tells them what was heard and what
the store answered, and does what they return, in order. Both follow one law: *nothing is sent without credit*. The receiver's
wish for a blob is the credit for that blob; its window bounds the blobs wished and not yet safely stored, in number and in
bytes, so the memory a transfer takes at either end does not depend on how ill the peer behaves, nor, but for the list
of its chunks, on how large the content is.

Every event of a transfer is either *heard* (from the peer, who may be lying: an event out of turn ends the transfer and
names him) or *local* (from our driver: one out of turn is a defect of ours, except after the end, when answers may still arrive).
"""

from dataclasses import dataclass

from cafs.core.manifest import Content
from cafs.core.messages import Message
from wire.errors import BitwrkError


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """The peer sent ``message``."""

    message: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """The stream is gone; ``error`` says how."""

    error: BitwrkError


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """The moment of ``next_deadline`` may have come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Send ``message`` to the peer."""

    message: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The transfer is over: well, when ``error`` is None. At the receiving end ``content`` is then what was fetched."""

    error: BitwrkError | None
    content: Content | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a fetch is. All in bytes: of the whole content, of it already safe here, and of chunks received on the wire."""

    size: int
    held: int
    wire: int
