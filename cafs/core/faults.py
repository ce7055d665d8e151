"""The named ends of a transfer that did not succeed. Codes are stable; some travel inside ``Refusal`` messages."""

from typing import Final

from wire.errors import Ignore, LocalFault, Misbehaved, Refused

NOT_GRANTED: Final = "not-granted"
NO_SUCH_CONTENT: Final = "no-such-content"
BUSY: Final = "busy"


class NotGranted(Refused):
    """The peer does not accept the ticket for this content."""


class NoSuchContent(Refused):
    """The content is not here, or not where it was promised to be."""


class PeerBusy(Refused):
    """The peer serves as many transfers as it can at the moment."""


class TooLarge(Refused):
    """The content has more bytes or more chunks than content may have."""


class TransferLost(Refused):
    """Stream after stream died before the content was whole. What has arrived is kept for the next attempt."""


class Stalled(Ignore):
    """The peer owes an answer and has been silent too long."""


class Corrupt(Misbehaved):
    """What the peer sent is not what the content's id promises."""


class Overrun(Misbehaved):
    """The peer sent more than it was given credit for."""


class StoreFull(LocalFault):
    """The quota, or the disk, has no room left that may be freed."""


class Damaged(LocalFault):
    """Bytes on this disk are no longer what was written. The damaged part has been forgotten."""


def refusal(code: str, sentence: str) -> Refused:
    """The error that a peer's refusal stands for. Codes we do not know are refusals all the same."""
    kinds: dict[str, type[Refused]] = {NOT_GRANTED: NotGranted, NO_SUCH_CONTENT: NoSuchContent, BUSY: PeerBusy}
    return kinds.get(code, Refused)(code, sentence)
