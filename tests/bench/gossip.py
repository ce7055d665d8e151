"""``python -m tests.bench.gossip``: the same orders over py-libp2p's GossipSub 1.1 as well as it can do it, driven by JSON lines.

Spam protection off, heartbeat every second, queues of 100,000, degrees that fit the edges, strict signing, the signed peer record
kept for 30 s instead of being made and checked for every message. The validator does the bare loop's work on what is new and
comes from others; an order of one's own is not verified again, which is how the relay has it too. ``per`` orders in a message,
waited for ``window_ms``.
"""

import time
from typing import Any

import msgpack
import trio
from coincurve import PrivateKey
from libp2p import new_host
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.secp256k1 import Secp256k1PrivateKey
from libp2p.crypto.x25519 import create_new_key_pair
from libp2p.network.config import ConnectionConfig
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.pubsub import gossipsub, pubsub, rpc_queue
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import Yamux
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

from peer.node.driver import relax_collector
from tests.bench import signed
from tests.bench.child import ask, measured, say

TOPIC = "orders"
QUEUE = 100_000
RECORD_KEPT_S = 30.0
CAME: dict[bytes, float] = {}


def lift_limits() -> None:
    """The library's bounds on what waits, and its habit of signing and checking its own addresses with every message."""
    rpc_queue.PriorityQueue.__init__.__defaults__ = (QUEUE,)
    rpc_queue.RpcQueue.__init__.__defaults__ = (QUEUE, rpc_queue.DefaultMaxMessageSize)
    make, check = gossipsub.env_to_send_in_RPC, gossipsub.maybe_consume_signed_record
    made: list[tuple[Any, float]] = []
    checked: dict[Any, Any] = {}

    def envelope(host: Any) -> Any:
        now = time.monotonic()
        if not made or made[0][1] < now:
            made[:] = [(make(host)[0], now + RECORD_KEPT_S)]
        return made[0][0], False

    def consume(message: Any, host: Any, peer: Any) -> Any:
        if not message.HasField("senderRecord") or checked.get(peer) == message.senderRecord:
            return True
        good = check(message, host, peer)
        if good:
            checked[peer] = message.senderRecord
        return good

    gossipsub.env_to_send_in_RPC = pubsub.env_to_send_in_RPC = envelope
    gossipsub.maybe_consume_signed_record = pubsub.maybe_consume_signed_record = consume


def host_of(number: int) -> tuple[Any, list[Multiaddr]]:
    """A host like the node's: TCP, noise, yamux."""
    secret = Secp256k1PrivateKey(PrivateKey(signed.key(number).secret))
    pair = KeyPair(secret, secret.get_public_key())
    host = new_host(
        key_pair=pair,
        sec_opt={NOISE: NoiseTransport(pair, noise_privkey=create_new_key_pair().private_key)},
        muxer_opt={YAMUX: Yamux},
        connection_config=ConnectionConfig(max_connections_per_peer=1, low_watermark=0, min_connections=0),
    )
    return host, [Multiaddr("/ip4/127.0.0.1/tcp/0")]


class Gossip:
    """One subscriber and publisher."""

    def __init__(self, host: Any, router: Any, topics: Any, per: int, window_ms: float) -> None:
        self.host, self.router, self.topics = host, router, topics
        self.per, self.window_s = per, window_ms / 1_000
        self.box: list[bytes] = []
        self.woken, self.full = trio.Event(), trio.Event()

    def valid(self, _: Any, message: Any) -> bool:
        """The validator: runs before a message is passed on."""
        if message.from_id == self.host.get_id().to_bytes():
            return True
        try:
            fresh = [raw for raw in self._orders(message.data) if raw not in CAME]
            if fresh:
                signed.bare(fresh)
        except Exception:
            return False
        now = time.monotonic()
        CAME.update(dict.fromkeys(fresh, now))
        return True

    def _orders(self, data: bytes) -> list[bytes]:
        found: list[bytes] = msgpack.unpackb(data) if self.per > 1 else [data]
        return found

    async def publish(self, mine: list[bytes]) -> None:
        if self.per == 1:
            for raw in mine:
                await self.topics.publish(TOPIC, raw)
            return
        self.box += mine
        self.woken.set()
        if len(self.box) >= self.per:
            self.full.set()

    async def send(self) -> None:
        """Send what is in the box when a message is full, or its window over."""
        while True:
            await self.woken.wait()
            if len(self.box) < self.per:
                with trio.move_on_after(self.window_s):
                    await self.full.wait()
            self.woken, self.full = trio.Event(), trio.Event()
            while self.box:
                out, self.box = self.box[: self.per], self.box[self.per :]
                await self.topics.publish(TOPIC, msgpack.packb(out))

    async def meet(self, addresses: list[str], neighbours: int) -> None:
        """Dial some, and wait until everybody expected is in the mesh."""
        for address in addresses:
            await self.host.connect(info_from_p2p_addr(Multiaddr(address)))
        with trio.move_on_after(15):
            while len(self.router.mesh.get(TOPIC, ())) < neighbours:  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.1)


async def drain(subscription: Any) -> None:
    """Take what the library hands out; it was noted when it was found good."""
    async for _ in subscription:
        pass


async def main() -> None:
    """Answer what is asked until the pipe closes."""
    told = await ask()
    lift_limits()
    relax_collector()
    host, listen = host_of(told["number"])
    router = gossipsub.GossipSub(
        protocols=["/meshsub/1.1.0"],
        degree=4,
        degree_low=3,
        degree_high=5,
        heartbeat_interval=1,
        spam_protection_enabled=False,
    )
    topics = pubsub.Pubsub(host, router, strict_signing=True)
    mine: list[bytes] = []
    async with (
        host.run(listen_addrs=listen),
        background_trio_service(topics),
        background_trio_service(router),
        trio.open_nursery() as nursery,
    ):
        await topics.wait_until_ready()
        gossip = Gossip(host, router, topics, told["per"], told["window_ms"])
        subscription = await topics.subscribe(TOPIC)
        topics.set_topic_validator(TOPIC, gossip.valid, is_async_validator=False)
        nursery.start_soon(drain, subscription)
        nursery.start_soon(gossip.send)
        say(address=str(host.get_addrs()[0]))
        while True:
            asked = await ask()
            match asked["do"]:
                case "meet":
                    await gossip.meet(asked["addresses"], asked["neighbours"])
                    say(neighbours=len(router.mesh.get(TOPIC, ())))
                case "load":
                    mine = signed.load(asked["orders"], asked["first"], asked["count"])
                    say(loaded=len(mine))
                case "run":
                    await measured(asked, mine, gossip.publish, CAME)


if __name__ == "__main__":
    trio.run(main)
