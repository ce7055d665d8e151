"""What the order book's two cores are told, and what they ask for, besides the effects common to all rooms.

``Market`` takes ``MarketEvent`` and ``Desk`` takes ``DeskEvent``. ``Cleared`` is an effect of the market and an event of the
desk.
"""

from dataclasses import dataclass

from orderbook.core.auction import Entry, Fill
from orderbook.core.messages import CheckItem, Side, SignedMatch
from wire.effects import Blame, Count, Save
from wire.keys import PeerId
from wire.moments import Instant
from wire.values import value


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time has passed; at the latest at ``next_deadline``."""


# --- market: events ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class NeighbourUp:
    """A relay stream with ``peer`` is open."""

    peer: PeerId


@dataclass(frozen=True, slots=True, kw_only=True)
class NeighbourDown:
    """The relay stream with ``peer`` is gone."""

    peer: PeerId


@value
class FrameIn:
    """A frame came over the relay stream."""

    peer: PeerId
    frame: bytes


@value
class Checked:
    """The answer to ``Check``: ids of items whose signatures are good, and of those whose are bad."""

    good: tuple[bytes, ...] = ()
    bad: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Follow:
    """Take part in ``book``."""

    book: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfollow:
    """Leave ``book`` and forget it."""

    book: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish:
    """Put a gossiped message of our own into its book and pass it on."""

    message: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Compare:
    """Reconcile ``book`` with ``peer`` once, then clear ``epoch`` again over the union."""

    book: bytes
    epoch: int
    peer: PeerId


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeIn:
    """A batch came over the topic for other stacks. ``author`` has signed it; who forwarded it answers for its envelope only."""

    author: PeerId
    messages: tuple[bytes, ...]


MarketEvent = Tick | NeighbourUp | NeighbourDown | FrameIn | Checked | Follow | Unfollow | Publish | Compare | BridgeIn


# --- market: effects ---------------------------------------------------------------------------------------


@value
class SendFrame:
    """Send a frame over the relay stream with ``peer``."""

    peer: PeerId
    frame: bytes


@value
class Check:
    """Verify these signatures and answer with ``Checked``. ``since`` says of each when its message appeared, as far as anybody
    knows: what has been under way longest goes first where not all can be verified at once.
    """

    items: tuple[CheckItem, ...]
    since: tuple[Instant, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Meet:
    """Open a relay stream with ``peer``: we need to compare books."""

    peer: PeerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleared:
    """The auction of one book and epoch, as this node sees it.

    ``buys`` and ``sells`` are all eligible orders, ascending by id. ``refusal`` says why we must not trade on this view ("": we
    may). ``again`` marks a second computation, after comparing books with a peer.
    """

    book: bytes
    epoch: int
    root: bytes
    fills: tuple[Fill, ...]
    buys: tuple[Entry, ...]
    sells: tuple[Entry, ...]
    refusal: str = ""
    again: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockJudged:
    """Our clock has become, or is no longer, too far from the neighbours' to trade. ``offset_us`` is theirs less ours."""

    skewed: bool
    offset_us: int
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """These are now the books that we and the neighbour both follow, ascending; none when he has gone."""

    peer: PeerId
    books: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """Messages of others have been admitted. ``ages_us``: how long after they appeared, as far as is known. ``slack_us``: how
    long before the freeze of the epoch they name; negative when after it. Figures, nothing else.
    """

    ages_us: tuple[int, ...]
    slack_us: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeOut:
    """Publish this batch on the topic for other stacks."""

    batch: bytes


MarketEffect = SendFrame | Check | Meet | Shares | Cleared | ClockJudged | Admitted | BridgeOut | Count | Blame


# --- desk: events ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """Keep an order for ``quantity`` units standing at this price; 0 withdraws. ``quantity`` is what still remains to be agreed,
    an absolute number. ``avoid`` holds 20-byte account hashes; the first eight are heeded.
    """

    book: bytes
    side: Side
    price_msat: int
    quantity: int
    avoid: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterIn:
    """A letter came from ``peer``, whose identity the connection has proved."""

    peer: PeerId
    payload: bytes


DeskEvent = Tick | Want | Cleared | LetterIn


# --- desk: effects -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishOrder:
    """Hand ``message`` to the market as ``Publish``."""

    message: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """Send ``payload`` to ``peer``."""

    peer: PeerId
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareBooks:
    """Hand this to the market as ``Compare``: our views of ``epoch`` differ from those of ``peer``."""

    book: bytes
    epoch: int
    peer: PeerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """Both have signed. ``side`` is ours. The quantity has already been taken off what we want at ``price_msat``, the limit of
    our line; the price to be paid is in the match.
    """

    match: SignedMatch
    side: Side
    price_msat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Missed:
    """A line of ours found no match, or no agreement, in ``epoch``; ``sentence`` says why, for people."""

    book: bytes
    side: Side
    price_msat: int
    epoch: int
    code: str
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NoShow:
    """A party that we were matched with let the time for signing pass, or refused for no reason that anybody can check. It cannot
    be proved, and may be an accident: to be remembered here, for the ``avoid`` list of our own orders.
    """

    peer: PeerId
    code: str
    sentence: str


DeskEffect = PublishOrder | Letter | CompareBooks | Agreed | Missed | NoShow | Save | Count | Blame
