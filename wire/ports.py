"""The doors between rooms: what a shell may ask of the network, the journal, the chain and the store.

Shells take these as arguments, so none of them imports ``peer.net`` or another room. All are trio-cancellable coroutines.
Errors are those of ``wire.errors`` and the few named here.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from wire.effects import Save
from wire.errors import Ignore, LocalFault, Refused
from wire.keys import PeerId


class StreamClosed(Ignore):
    """The peer ended or reset the stream, or the connection is gone."""


class PeerUnreachable(Refused):
    """No address of the peer answered in time, or it does not speak the protocol."""


class Stream(Protocol):
    """One framed libp2p stream. Frames are 4 bytes of big-endian length and at most ``FRAME_MAX_BYTES`` of payload."""

    @property
    def remote(self) -> PeerId:
        """The authenticated peer at the other end."""
        ...

    async def send(self, *frames: bytes) -> None:
        """Write frames, one after the other. Raises ``StreamClosed``."""
        ...

    async def receive(self) -> bytes:
        """Read one frame. Raises ``StreamClosed`` at the end, ``Misbehaved`` for an oversize frame."""
        ...

    async def close(self) -> None:
        """End our half politely; never raises."""
        ...

    async def reset(self) -> None:
        """End both halves at once; never raises."""
        ...


class Streams(Protocol):
    """The network as a room sees it."""

    @property
    def me(self) -> PeerId:
        """Our own peer id."""
        ...

    def serve(self, protocol: str, handler: Callable[[Stream], Awaitable[None]]) -> None:
        """Call ``handler`` for every stream a peer opens on ``protocol``. Whatever it raises is caught, counted and resets
        that stream only.
        """
        ...

    async def open(self, peer: PeerId, protocol: str) -> Stream:
        """Open a stream, dialling the peer's known addresses when not connected. Raises ``PeerUnreachable``."""
        ...


class Providers(Protocol):
    """The DHT as ``dht`` sees it: who offers a key."""

    async def provide(self, key: bytes) -> None:
        """Announce under the 32-byte ``key`` that we are worth asking."""
        ...

    async def find(self, key: bytes, most: int) -> Sequence[PeerId]:
        """Peers that announced themselves under ``key``; their addresses are remembered for ``Streams.open``."""
        ...


Heard = Callable[[PeerId, PeerId, bytes], None]
"""``heard(forwarder, author, data)``: something new was published. It must not wait. When it raises, nothing is passed on to
others; ``Misbehaved`` lowers the forwarder's standing besides.
"""


class Topic(Protocol):
    """One topic that other stacks of libp2p publish and listen on. Nothing about it is reliable."""

    def join_topic(self, topic: str, heard: Heard) -> None:
        """Take part from now on, and call ``heard`` for what others publish."""
        ...

    def publish(self, data: bytes) -> bool:
        """Publish as soon as it goes; never waits. False when it was dropped, which is counted."""
        ...


class Journal(Protocol):
    """Tables of small rows that survive a kill at any moment."""

    async def commit(self, rows: Sequence[Save]) -> None:
        """Make all rows durable in one transaction, then return. Raises ``LocalFault``; then nothing of it was kept."""
        ...

    async def load(self, table: str) -> Mapping[bytes, bytes]:
        """All rows of a table."""
        ...


@dataclass(frozen=True, slots=True)
class OutPoint:
    """A transaction output: ``txid`` in internal (not displayed) byte order, 32 bytes."""

    txid: bytes
    vout: int


@dataclass(frozen=True, slots=True)
class Tip:
    """The best block: height, and hash in internal byte order."""

    height: int
    block: bytes


@dataclass(frozen=True, slots=True)
class TxInfo:
    """A transaction known to the chain: raw bytes, and the height of its block or None while unconfirmed."""

    raw: bytes
    height: int | None


@dataclass(frozen=True, slots=True)
class OutInfo:
    """An output: value in satoshi, script, height of its block (None: unconfirmed), and the raw transaction that spends it."""

    value_sat: int
    script: bytes
    height: int | None
    spent_by: TxInfo | None


@dataclass(frozen=True, slots=True)
class TxOut:
    """An output to be made: value in satoshi and scriptPubKey."""

    value_sat: int
    script: bytes


class Rejected(Refused):
    """The chain does not accept this transaction; the sentence is its reason."""


NOT_SEEN: Final = "not-seen"
"""Code of a ``Rejected`` for a broadcast that was taken without complaint and is unknown afterwards: it may yet appear."""


class ChainFault(LocalFault):
    """The chain backend does not answer or contradicts itself."""


class Chain(Protocol):
    """A Bitcoin chain. "Accepted" means seen in its mempool or in a block, never merely answered."""

    async def instance(self) -> bytes:
        """32 bytes naming this very chain: genesis hash, on regtest hashed together with block 1's hash."""
        ...

    async def tip(self) -> Tip: ...

    async def feerate(self) -> int:
        """Satoshi per 1,000 virtual bytes, within the network's clamp."""
        ...

    async def submit(self, raw: bytes) -> bytes:
        """Broadcast; idempotent. Returns the txid once seen. Raises ``Rejected``."""
        ...

    async def tx(self, txid: bytes) -> TxInfo | None: ...

    async def outpoint(self, outpoint: OutPoint) -> OutInfo | None: ...


class Wallet(Protocol):
    """The owner's own coins."""

    async def balance_sat(self) -> int:
        """Spendable satoshi, confirmed and own unconfirmed change."""
        ...

    async def fund(self, outputs: Sequence[TxOut], notes: Sequence[bytes] = ()) -> bytes:
        """A signed raw transaction paying the outputs in this order from index 0, change last, not broadcast; segwit inputs only.
        With ``notes`` it holds a memo that only the owner can read. Its coins stay locked until spent or released. Raises
        ``Refused("no-funds", …)``.
        """
        ...

    async def release(self, raw: bytes) -> None:
        """Unlock the coins of a transaction that will not be broadcast."""
        ...
