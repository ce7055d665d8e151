"""What the network tells about itself."""

from dataclasses import dataclass

from wire.account import Account
from wire.keys import PeerId
from wire.moments import Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerView:
    """A connected peer. ``direction`` says who dialled: ``inbound`` they, ``outbound`` we. Others fill in ``standing``."""

    peer: PeerId
    account: Account
    addresses: tuple[str, ...]
    direction: str
    connected_since: Instant
    standing: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """How the network is. ``counters`` has a line for everything that was refused, dropped, reset or restarted."""

    peers: int
    connections: int
    half_open: int
    table: int
    records: int
    addresses_known: int
    topic_peers: int
    counters: dict[str, int]
