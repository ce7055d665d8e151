"""The agreement of two parties on one match: the letters, and the machine of either side.

Both have computed the same fill in their own auction. The buyer speaks first:

    buyer  --PROPOSE(match)-->            seller     not signed
    buyer  <--ACCEPT(match, signature)--  seller     signed by the seller, with his root filled in
    buyer  --CONFIRM(match, signature)--> seller     signed by the buyer: a deal

all before ``accept_by``. A party signs only what it computed itself, and only units of an order that it has signed for no
other epoch and no other match. Letters get lost, so PROPOSE is repeated until there is an answer and ACCEPT until there is a
CONFIRM; a repeated letter gets the same answer again, with the same signature. DECLINE says why not, and may bring a close.

    phase      cue            next        side
    EXPECTED   PROPOSAL       ACCEPTED    seller: signed, saved, sent
    EXPECTED   SILENCE        SILENT
    PROPOSED   ACCEPTANCE     AGREED      buyer: signed, saved, sent
    PROPOSED   REFUSAL        REFUSED
    PROPOSED   SILENCE        SILENT
    ACCEPTED   PROPOSAL       ACCEPTED    the same ACCEPT again
    ACCEPTED   CONFIRMATION   AGREED      seller: a deal
    ACCEPTED   REFUSAL        REFUSED     the signature is out all the same: the order stays spent
    ACCEPTED   SILENCE        SILENT      likewise
    AGREED     ACCEPTANCE     AGREED      the same CONFIRM again
    AGREED     CONFIRMATION   AGREED
    AGREED     SILENCE        AGREED
    REFUSED    ACCEPTANCE     AGREED      the seller came round to our view after comparing books

DROP (our own view has changed) ends EXPECTED, PROPOSED and REFUSED. Any other pair is out of turn and changes nothing.
"""

import enum
from dataclasses import dataclass
from typing import Annotated, Final

from orderbook.core.auction import Entry, Fill
from orderbook.core.messages import Epoch, Match, Offset, Side
from wire.canon import Choice, Hash32, Signature64, Size, record
from wire.errors import Ignore
from wire.keys import PeerId
from wire.limits import ORDER_MAX_BYTES
from wire.moments import Instant


@record
class Propose:
    """The buyer's computation; ``seller_root`` is zero."""

    match: Match


@record
class Accept:
    """The seller computed the same, and signs."""

    match: Match
    signature: Signature64


@record
class Confirm:
    """The buyer signs exactly what the seller signed."""

    match: Match
    signature: Signature64


@record
class Decline:
    """No agreement on this fill, and why; ``close`` is the gossiped close of the sender's order, or empty."""

    book: Hash32
    epoch: Epoch
    buy: Hash32
    sell: Hash32
    buy_from: Offset
    sell_from: Offset
    code: Annotated[str, Size(1, 32)]
    close: Annotated[bytes, Size(0, ORDER_MAX_BYTES)]


LETTERS: Final = Choice("agreement", {1: Propose, 2: Accept, 3: Confirm, 4: Decline})

AgreementLetter = Propose | Accept | Confirm | Decline

DIFFERENT_VIEW: Final = "different-view"


class Phase(enum.Enum):
    """Where the agreement on one fill stands, on one side."""

    EXPECTED = "expected"
    PROPOSED = "proposed"
    ACCEPTED = "accepted"
    AGREED = "agreed"
    REFUSED = "refused"
    SILENT = "silent"
    DROPPED = "dropped"


class Cue(enum.Enum):
    """What can happen to it."""

    PROPOSAL = "proposal"
    ACCEPTANCE = "acceptance"
    CONFIRMATION = "confirmation"
    REFUSAL = "refusal"
    SILENCE = "silence"
    DROP = "drop"


TABLE: Final[dict[tuple[Phase, Cue], Phase]] = {
    (Phase.EXPECTED, Cue.PROPOSAL): Phase.ACCEPTED,
    (Phase.EXPECTED, Cue.SILENCE): Phase.SILENT,
    (Phase.EXPECTED, Cue.DROP): Phase.DROPPED,
    (Phase.PROPOSED, Cue.ACCEPTANCE): Phase.AGREED,
    (Phase.PROPOSED, Cue.REFUSAL): Phase.REFUSED,
    (Phase.PROPOSED, Cue.SILENCE): Phase.SILENT,
    (Phase.PROPOSED, Cue.DROP): Phase.DROPPED,
    (Phase.ACCEPTED, Cue.PROPOSAL): Phase.ACCEPTED,
    (Phase.ACCEPTED, Cue.CONFIRMATION): Phase.AGREED,
    (Phase.ACCEPTED, Cue.REFUSAL): Phase.REFUSED,
    (Phase.ACCEPTED, Cue.SILENCE): Phase.SILENT,
    (Phase.AGREED, Cue.ACCEPTANCE): Phase.AGREED,
    (Phase.AGREED, Cue.CONFIRMATION): Phase.AGREED,
    (Phase.AGREED, Cue.SILENCE): Phase.AGREED,
    (Phase.REFUSED, Cue.ACCEPTANCE): Phase.AGREED,
    (Phase.REFUSED, Cue.DROP): Phase.DROPPED,
}

OPEN: Final = frozenset({Phase.EXPECTED, Phase.PROPOSED, Phase.ACCEPTED})

Key = tuple[bytes, bytes, int, int]
"""What names a fill within one epoch: buy id, sell id, first unit of either."""


def key_of(fill: Fill) -> Key:
    """The key of a computed fill."""
    return (fill.buy.id, fill.sell.id, fill.buy_from, fill.sell_from)


def key_in(letter: Match | Decline) -> Key:
    """The key of the fill that a letter is about."""
    return (letter.buy, letter.sell, letter.buy_from, letter.sell_from)


@dataclass(slots=True, kw_only=True)
class Agreement:
    """One side of one agreement. ``match`` is what we proposed or signed; ``signature`` is ours, once it exists."""

    book: bytes
    epoch: int
    side: Side
    fill: Fill
    peer: PeerId
    phase: Phase
    match: Match
    signature: bytes | None = None
    repeat_at: Instant | None = None

    @property
    def order_id(self) -> bytes:
        """Our own order."""
        return self.fill.buy.id if self.side is Side.BUY else self.fill.sell.id

    @property
    def theirs(self) -> Entry:
        """The other party's order."""
        return self.fill.sell if self.side is Side.BUY else self.fill.buy

    @property
    def units(self) -> range:
        """The units of our own order."""
        start = self.fill.buy_from if self.side is Side.BUY else self.fill.sell_from
        return range(start, start + self.fill.quantity)

    def next_phase(self, cue: Cue) -> Phase:
        """Where ``cue`` leads. Raises ``Ignore`` when it is out of turn."""
        following = TABLE.get((self.phase, cue))
        if following is None:
            raise Ignore("out-of-turn", f"a {cue.value} means nothing to an agreement that is {self.phase.value}")
        return following

    def step(self, cue: Cue) -> None:
        """Go there."""
        self.phase = self.next_phase(cue)
