"""libp2p's pubsub with its guards on: nothing that comes over a topic can end more than the stream it came on.

Stock pubsub ends the whole host at a protobuf that cannot be decoded, at a message with a broken key or a nonsensical author, and
at a validator that raises. Here reading, checking and passing on are ours, and the library keeps what it is good at: the mesh,
its upkeep every second, and who is sent what. What is different:

- every RPC costs its sender tokens before it is decoded, and again for all that is in it, instead of the library's ten messages
  a second, which it silently counts our own among;
- a message's author has to be a secp256k1 peer id, its key (if any) that very key, its signature good;
- a message is named by the hash of its data, so that nothing is passed on twice, whatever seqno and author it comes under;
- control entries for other topics, and the addresses in a PRUNE, are thrown away: the library would keep the first for ever and
  dial the second;
- signed peer records are not read: that is what identify is for. Our own is made anew every half minute, not for every RPC;
- one writer at a time writes to a stream, where the library has three that interleave;
- a peer that does not speak the protocol is asked a few times, not for ever, and one that has disconnected is not dialled.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakKeyDictionary

import libp2p.pubsub.gossipsub as _gossipsub
import libp2p.pubsub.pubsub as _pubsub
import trio
from google.protobuf.message import DecodeError
from libp2p.network.exceptions import SwarmException
from libp2p.network.stream.exceptions import StreamEOF, StreamError
from libp2p.peer.peerstore import env_to_send_in_RPC
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.mcache import CacheEntry, MessageCache
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.pubsub.validators import signature_validator

from wire.bucket import Bucket
from wire.errors import Ignore, Misbehaved
from wire.keys import BadKey, PeerId, public_of
from wire.limits import (
    GOSSIP_BYTES_MAX,
    GOSSIP_BYTES_PER_S,
    GOSSIP_ITEMS_MAX,
    GOSSIP_ITEMS_PER_S,
    GOSSIP_QUEUE_RPCS,
    GOSSIP_RPC_MAX_BYTES,
    PEERS_MAX,
    STREAM_READ_BYTES,
)
from wire.moments import SECOND, Instant
from wire.ports import Heard

PROTOCOL: Final = "/meshsub/1.1.0"
_DEGREE: Final = 6
_DEGREE_LOW: Final = 4
_DEGREE_HIGH: Final = 12
_HEARTBEAT_S: Final = 1
_RECORD_LIFE_S: Final = 30.0
_REGISTER_S: Final = 4.0
_KEY_PREFIX: Final = b"\x08\x02\x12\x21"  # the protobuf around a compressed secp256k1 key
_LENGTH_BYTES_MAX: Final = 4  # 2^28 is more than any RPC may have

_records: WeakKeyDictionary[Any, tuple[bytes, float]] = WeakKeyDictionary()


def _own_record(host: Any) -> tuple[bytes, bool]:
    """The host's signed peer record, which the library would build for every RPC."""
    kept = _records.get(host)
    now = trio.current_time()
    if kept is None or kept[1] < now:
        kept = _records[host] = (env_to_send_in_RPC(host)[0], now + _RECORD_LIFE_S)
    return kept[0], False


_gossipsub.env_to_send_in_RPC = _pubsub.env_to_send_in_RPC = _own_record


def name_of(message: Any) -> bytes:
    """What a message is called on the wire and in our caches: the SHA-256 of its data."""
    return hashlib.sha256(message.data).digest()


class _Cache(MessageCache):  # type: ignore[misc]  # libp2p is untyped
    """Messages under the names that IHAVE and IWANT use here."""

    def put(self, message: Any) -> None:
        name = name_of(message)
        if name not in self.msgs:
            self.msgs[name] = message
            self.history[0].append(CacheEntry(name, message.topicIDs))


class GuardedRouter(GossipSub):  # type: ignore[misc]  # as above
    """GossipSub 1.1 whose upkeep survives its mistakes, and whose losses are counted."""

    def __init__(self, counters: Counter[str]) -> None:
        super().__init__(
            protocols=[PROTOCOL],
            degree=_DEGREE,
            degree_low=_DEGREE_LOW,
            degree_high=_DEGREE_HIGH,
            heartbeat_interval=_HEARTBEAT_S,
            spam_protection_enabled=False,
            adaptive_gossip_enabled=False,
            eclipse_protection_enabled=False,
            max_pending_messages_per_peer=GOSSIP_QUEUE_RPCS,
        )
        self._counters = counters
        self.mcache = _Cache(3, 5)

    async def heartbeat(self) -> None:
        while True:
            try:
                await super().heartbeat()
            except Exception:
                self._counters["gossip/upkeep-failed"] += 1
            await trio.sleep(_HEARTBEAT_S)

    async def on_peer_subscribed(self, peer: Any, topic: str) -> None:
        try:
            await super().on_peer_subscribed(peer, topic)
        except Exception:
            self._counters["gossip/upkeep-failed"] += 1

    async def flush_pending_messages(self, peer: Any) -> None:
        try:
            await super().flush_pending_messages(peer)
        except Exception:
            self._counters["gossip/upkeep-failed"] += 1

    def _handle_dropped_rpc(self, peer: Any, rpc: Any, reason: str) -> None:
        self._counters["gossip/peer-queue-full"] += 1
        super()._handle_dropped_rpc(peer, rpc, reason)


class _Allowance:
    """What one forwarder may still send."""

    def __init__(self, now: Instant) -> None:
        self.items = Bucket(GOSSIP_ITEMS_PER_S, GOSSIP_ITEMS_MAX, now)
        self.bytes = Bucket(GOSSIP_BYTES_PER_S, GOSSIP_BYTES_MAX, now)


class SafePubsub(Pubsub):  # type: ignore[misc]  # as above
    """See the module. ``unwanted(peer)`` says why we have nothing to do with a peer, if so; ``blame`` lowers its standing."""

    def __init__(
        self,
        host: Any,
        topic: str,
        heard: Heard,
        counters: Counter[str],
        blame: Callable[[PeerId, Misbehaved], None],
        unwanted: Callable[[PeerId], str | None],
    ) -> None:
        super().__init__(
            host,
            GuardedRouter(counters),
            strict_signing=True,
            msg_id_constructor=name_of,
            max_inbound_rpc_size=GOSSIP_RPC_MAX_BYTES,
            allowed_topics={topic},
        )
        self.counter = time.time_ns()  # a seqno is never used again, not after a restart either
        self._topic = topic
        self._heard = heard
        self._counters = counters
        self._blame = blame
        self._unwanted = unwanted
        self._allowances: dict[Any, _Allowance] = {}
        self._registering: set[Any] = set()
        self._streams_of: Counter[Any] = Counter()
        self.speakers: set[Any] = set()  # who has had a stream to us, bounded by being connected
        self._writing: WeakKeyDictionary[Any, trio.Lock] = WeakKeyDictionary()

    # --- peers ---------------------------------------------------------------------------------------------

    async def _handle_new_peer_with_retry(self, peer: Any, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the library's
        await super()._handle_new_peer_with_retry(peer, _REGISTER_S if timeout is None else min(timeout, _REGISTER_S))

    async def _handle_new_peer(self, peer: Any) -> None:
        # The library would open a second stream, or dial; and it gives up for good when a stream ends in an unusual way.
        if peer in self._registering or not self._peer_is_connected(peer):
            raise SwarmException("not now")
        self._registering.add(peer)
        try:
            await super()._handle_new_peer(peer)
        except Exception as error:
            raise SwarmException("the stream could not be opened") from error
        finally:
            self._registering.discard(peer)
        queue = self.peer_queues.get(peer)
        if queue is not None:
            queue._queue.max_size = GOSSIP_QUEUE_RPCS

    def _peer_is_connected(self, peer: Any) -> bool:
        return any(_alive(one.muxed_conn) for one in self.host.get_network().get_connections(peer))

    async def handle_dead_peer_queue(self) -> None:
        """Let go of the streams of connections that have ended, also when the peer has another connection by now."""
        async with self.dead_peer_receive_channel:
            self.event_handle_dead_peer_queue_started.set()
            async for peer in self.dead_peer_receive_channel:
                stream = self.peers.get(peer)
                if stream is None or not _alive(stream.muxed_conn):
                    self._handle_dead_peer(peer)

    def _handle_dead_peer(self, peer: Any) -> None:
        try:
            super()._handle_dead_peer(peer)
        except Exception:
            self._counters["gossip/upkeep-failed"] += 1

    async def write_msg(self, stream: Any, rpc: Any) -> bool:
        """Write one RPC, after those that others have begun to write on this stream."""
        async with self._writing.setdefault(stream, trio.Lock()):
            return bool(await super().write_msg(stream, rpc))

    # --- in ------------------------------------------------------------------------------------------------

    async def stream_handler(self, stream: Any) -> None:
        """Read RPCs until the peer ends the stream. Raises ``Misbehaved`` for what cannot be read on after."""
        peer = stream.muxed_conn.peer_id
        if peer not in self.peers:
            self._schedule_peer_stream_retry(peer)  # it speaks the protocol after all
        self._streams_of[peer] += 1
        self.speakers.add(peer)
        try:
            await self._read(peer, stream)
        finally:
            self._streams_of[peer] -= 1
            if not self._streams_of[peer]:
                del self._streams_of[peer]
                if self.manager.is_running:
                    self._forget_all_subscriptions(peer)

    def _forget_all_subscriptions(self, peer: Any) -> None:
        # What a peer listens to came on a stream it opened and is true as long as that lives. The library forgets it also when
        # a stream of ours has failed, such as after a quick reconnection, and then never learns it again.
        if peer not in self._streams_of:
            self.speakers.discard(peer)
            super()._forget_all_subscriptions(peer)

    async def _read(self, peer: Any, stream: Any) -> None:
        buffer = bytearray()
        while self.manager.is_running:
            try:
                buffer += await stream.read(STREAM_READ_BYTES)
            except (StreamEOF, StreamError):
                return
            for raw in _rpcs(buffer):
                await self._take(peer, raw)

    def _allowance(self, peer: Any, now: Instant) -> _Allowance:
        kept = self._allowances.pop(peer, None) or _Allowance(now)
        while len(self._allowances) >= 2 * PEERS_MAX:
            del self._allowances[next(iter(self._allowances))]
        self._allowances[peer] = kept
        return kept

    async def _take(self, peer: Any, raw: bytes) -> None:
        now = Instant(int(trio.current_time() * SECOND))
        allowance = self._allowance(peer, now)
        if not allowance.bytes.spend(len(raw), now) or not allowance.items.spend(1, now):
            self._counters["gossip/too-fast"] += 1
            return
        rpc = rpc_pb2.RPC()
        try:
            rpc.ParseFromString(raw)
        except DecodeError:
            raise Misbehaved("undecodable", "what came on the topic's stream is not pubsub's protobuf", penalty=20) from None
        if not allowance.items.spend(_items(rpc), now):
            self._counters["gossip/too-fast"] += 1
            return
        for message in rpc.publish:
            await self.push_msg(peer, message)
        for change in rpc.subscriptions:
            self.handle_subscription(peer, change)
        if rpc.HasField("control"):
            rpc.ClearField("senderRecord")
            _only(self._topic, rpc.control)
            await self.router.handle_rpc(rpc, peer)

    # --- messages ------------------------------------------------------------------------------------------

    async def push_msg(self, forwarder: Any, message: Any) -> None:
        """Take a message, our own or another's, and pass it on if it is new and good. Never raises."""
        try:
            if self._is_msg_seen(message):
                return
            if forwarder != self.my_id:
                self._judge(PeerId(forwarder.to_bytes()), message)
            self._mark_msg_seen(message)
            await self.router.publish(forwarder, message)
        except Misbehaved as error:
            self._counters[f"gossip/{error.code}"] += 1
            self._blame(PeerId(forwarder.to_bytes()), error)
        except Ignore as error:
            self._counters[f"gossip/{error.code}"] += 1
        except Exception:
            self._counters["gossip/validator-failed"] += 1

    def _judge(self, forwarder: PeerId, message: Any) -> None:
        """Raises unless everything that a forwarder answers for is as it should be, and the message is wanted."""
        if list(message.topicIDs) != [self._topic]:
            raise Ignore("other-topic", "this message is for another topic")
        author = _author(message)
        if author == PeerId(self.my_id.to_bytes()):
            raise Ignore("from-us", "a message of ours has come back under another name")
        if self._unwanted(author) is not None:
            raise Ignore("author-banned", "the author of this message is banned")
        if not _signed(message):
            raise Misbehaved("wrong-signature", "a message on the topic is not signed by its author", penalty=20)
        self._heard(forwarder, author, message.data)


def _alive(connection: Any) -> bool:
    return connection is not None and not connection.event_shutting_down.is_set()


def _author(message: Any) -> PeerId:
    author = PeerId(message.from_id)
    try:
        public = public_of(author)
    except BadKey:
        raise Misbehaved("wrong-author", "the author of a message is no secp256k1 peer id", penalty=20) from None
    if message.key and message.key != _KEY_PREFIX + public:
        raise Misbehaved("wrong-key", "the key in a message is not its author's", penalty=20)
    return author


def _signed(message: Any) -> bool:
    try:
        return bool(signature_validator(message))
    except Exception:  # whatever the library finds wrong in it
        return False


def _items(rpc: Any) -> int:
    """How much work an RPC asks for."""
    control = rpc.control
    named = sum(len(one.messageIDs) for one in (*control.ihave, *control.iwant, *control.idontwant))
    return len(rpc.publish) + len(rpc.subscriptions) + len(control.graft) + len(control.prune) + named


def _only(topic: str, control: Any) -> None:
    """Take out of a control message what is for other topics, and whom it would have us dial."""
    for entries in (control.ihave, control.graft, control.prune):
        kept = [one for one in entries if one.topicID == topic]
        del entries[:]
        entries.extend(kept)
    for prune in control.prune:
        prune.ClearField("peers")


def _rpcs(buffer: bytearray) -> list[bytes]:
    """Cut whole RPCs, each after its length as a varint, off the front of ``buffer``."""
    found: list[bytes] = []
    while True:
        length, used = 0, 0
        for used, byte in enumerate(buffer[: _LENGTH_BYTES_MAX + 1], 1):
            length |= (byte & 0x7F) << 7 * (used - 1)
            if byte < 0x80:
                break
        else:
            if used <= _LENGTH_BYTES_MAX:
                return found
        if length > GOSSIP_RPC_MAX_BYTES:
            raise Misbehaved("rpc-oversize", "the peer announced an RPC over the bound", penalty=20)
        if len(buffer) < used + length:
            return found
        found.append(bytes(buffer[used : used + length]))
        del buffer[: used + length]
