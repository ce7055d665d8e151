"""A peer of another make: a bare py-libp2p host with stock GossipSub 1.1, which knows of this project a topic's name."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from coincurve import PrivateKey
from libp2p import new_host
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.secp256k1 import Secp256k1PrivateKey
from libp2p.crypto.x25519 import create_new_key_pair
from libp2p.network.config import ConnectionConfig
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import PUBSUB_SIGNING_PREFIX, Pubsub
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as Noise
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import Yamux
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

from orderbook.core.bridge import open_batch
from wire.keys import PeerId, SecretKey

MESHSUB = "/meshsub/1.1.0"
WAIT_S = 10.0


def _host(key: SecretKey) -> Any:
    secret = Secp256k1PrivateKey(PrivateKey(key.secret))
    pair = KeyPair(secret, secret.get_public_key())
    return new_host(
        key_pair=pair,
        sec_opt={NOISE: Noise(pair, noise_privkey=create_new_key_pair().private_key)},
        muxer_opt={YAMUX: Yamux},
        connection_config=ConnectionConfig(max_connections_per_peer=1, low_watermark=0, min_connections=0),
    )


class Stranger:
    """``heard`` is what its subscription was given."""

    def __init__(self, key: SecretKey, host: Any, pubsub: Pubsub, topic: str) -> None:
        self.key = key
        self.me: PeerId = key.peer_id
        self.host = host
        self.pubsub = pubsub
        self.topic = topic
        self.heard: list[Any] = []
        self.news = trio.Event()

    async def dial(self, address: str) -> None:
        """Connect, and wait until both ends have subscribed and the stranger's mesh holds the other."""
        info = info_from_p2p_addr(Multiaddr(address))
        with trio.fail_after(WAIT_S):
            await self.host.connect(info)
            await self.pubsub.wait_for_subscription(info.peer_id, self.topic, WAIT_S)
            await self.pubsub.wait_for_mesh(info.peer_id, self.topic, WAIT_S)

    async def listen(self, subscription: Any) -> None:
        async for message in subscription:
            self.heard.append(message)
            self.news.set()
            self.news = trio.Event()

    async def until_heard(self, count: int) -> None:
        with trio.fail_after(WAIT_S):
            while len(self.heard) < count:
                await self.news.wait()

    def orders(self) -> list[bytes]:
        """The messages in all batches heard, in order."""
        return [raw for message in self.heard for raw in open_batch(message.data)]

    async def raw(self, peer: PeerId) -> Any:
        """A stream of pubsub's protocol on which anything can be written."""
        from libp2p.peer.id import ID

        return await self.host.new_stream(ID(peer), [MESHSUB])

    def message(self, data: bytes, /, *, seqno: int = 1, **change: Any) -> Any:
        """A signed message; what is in ``change`` is put in its place after signing."""
        message = rpc_pb2.Message(data=data, topicIDs=[self.topic], from_id=self.me, seqno=seqno.to_bytes(8, "big"))
        message.signature = self.host.get_private_key().sign(PUBSUB_SIGNING_PREFIX.encode() + message.SerializeToString())
        message.key = self.host.get_public_key().serialize()
        for field, value in change.items():
            if field == "topicIDs":
                del message.topicIDs[:]
                message.topicIDs.extend(value)
            else:
                setattr(message, field, value)
        return message


def rpc(*messages: Any, **more: Any) -> bytes:
    """An RPC as it stands on the wire."""
    return prefixed(rpc_pb2.RPC(publish=list(messages), **more).SerializeToString())


def prefixed(data: bytes) -> bytes:
    length, out = len(data), bytearray()
    while length >= 0x80:
        out.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([*out, length]) + data


@asynccontextmanager
async def stranger(key: SecretKey, topic: str) -> AsyncIterator[Stranger]:
    """A stranger that has subscribed, and is gone afterwards."""
    host = _host(key)
    router = GossipSub([MESHSUB], 6, 4, 12, heartbeat_interval=1, spam_protection_enabled=False)
    pubsub = Pubsub(host, router, strict_signing=True)
    failed: Exception | None = None
    async with host.run(listen_addrs=[Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        try:
            async with background_trio_service(pubsub), background_trio_service(router), trio.open_nursery() as nursery:
                await pubsub.wait_until_ready()
                one = Stranger(key, host, pubsub, topic)
                nursery.start_soon(one.listen, await pubsub.subscribe(topic))
                try:
                    yield one
                except Exception as error:
                    failed = error  # raised again below, or it would come in many wrappings
                nursery.cancel_scope.cancel()
        finally:
            pubsub.seen_messages.stop()
            with trio.move_on_after(3, shield=True):
                await host.close()
    if failed is not None:
        raise failed
