"""What the directory hears and what it asks for."""

from dataclasses import dataclass

from wire.effects import Count
from wire.keys import PeerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Announce:
    """Be found by those who look for ``article``, until ``Stop``."""

    article: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Seek:
    """Have neighbours for ``article``, until ``Stop``."""

    article: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Neither announce nor seek ``article`` any longer. What was announced fades by itself."""

    article: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Provided:
    """A ``Provide`` succeeded."""

    key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A ``Find`` succeeded, perhaps with nobody."""

    key: bytes
    peers: tuple[PeerId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A ``Provide`` (``announcing``) or a ``Find`` did not work."""

    key: bytes
    announcing: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerUp:
    """A connection with some peer stands: the network around us has grown."""

    peer: PeerId


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerDown:
    """The last connection with a peer is gone, and with it every neighbour stream."""

    peer: PeerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """A neighbour stream for ``article`` stands with ``peer``, whoever opened it."""

    peer: PeerId
    article: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A neighbour stream ended, or could not be opened."""

    peer: PeerId
    article: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provide:
    """Announce under ``key`` that we are worth asking; answer with ``Provided`` or ``Failed``."""

    key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Find:
    """Ask who announced ``key``; answer with ``Found`` or ``Failed``."""

    key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Meet:
    """We want a neighbour stream for ``article`` with this candidate; answer with ``Joined`` or ``Left``."""

    peer: PeerId
    article: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """This neighbour is let go, so that others find room; no article here needs him. Answer with ``Left``."""

    peer: PeerId


Event = Announce | Seek | Stop | Provided | Found | Failed | PeerUp | PeerDown | Joined | Left | Tick
Effect = Provide | Find | Meet | Part | Count
