"""A topic of GossipSub on our host, with a stock peer at the other end that behaves, misbehaves, floods and vanishes."""

import contextlib
import itertools
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from libp2p.crypto.x25519 import create_new_key_pair
from libp2p.host.exceptions import StreamFailure

from peer.net.host import Net
from peer.net.pubsub import PROTOCOL
from tests.net.rig import WAIT_S, counter, hosts, join, key, still_serves, until
from tests.net.stranger import Stranger, prefixed, rpc, stranger
from wire.errors import Ignore, Misbehaved
from wire.keys import PeerId
from wire.limits import GOSSIP_ITEMS_MAX, GOSSIP_OUTBOX, GOSSIP_RPC_MAX_BYTES, GOSSIP_STREAMS_PER_PEER_MAX
from wire.ports import Topic

TOPIC = "/bitwrk/1/regtest/orders"


class Listener:
    """One of our hosts in the topic, with all it hears and whom it blames."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.heard: list[tuple[PeerId, PeerId, bytes]] = []
        self.blamed: list[tuple[PeerId, str]] = []
        self.raises: dict[bytes, Exception] = {}
        net.on_blame(lambda peer, error: self.blamed.append((peer, error.code)))
        topic: Topic = net
        topic.join_topic(TOPIC, self.hear)

    def hear(self, forwarder: PeerId, author: PeerId, data: bytes) -> None:
        if data in self.raises:
            raise self.raises[data]
        self.heard.append((forwarder, author, data))

    def data(self) -> list[bytes]:
        return [data for _, _, data in self.heard]

    def said(self) -> list[tuple[PeerId, bytes]]:
        return [(author, data) for _, author, data in self.heard]

    def count(self, code: str) -> int:
        return counter(self.net, code)


@asynccontextmanager
async def topic(count: int = 1) -> AsyncIterator[tuple[Stranger, list[Listener]]]:
    """Listeners connected to the first of them, and a stranger connected to the first, all in the topic."""
    async with hosts(count) as nets:
        listeners = [Listener(net) for net in nets]
        await join(*nets)
        async with stranger(key(90), TOPIC) as one:
            await one.dial(nets[0].addresses()[0])
            await until(lambda: nets[0].statistics().topic_peers == count)
            await until(lambda: reached(nets[0]) == count)
            yield one, listeners


def reached(net: Net) -> int:
    """To how many peers a message goes out: who has told that he listens may have no stream to be told on yet."""
    pubsub = net._gossip._pubsub  # type: ignore[union-attr]
    listening = pubsub.peer_topics.get(TOPIC, set())  # type: ignore[union-attr]
    return sum(peer in pubsub.peers and peer in pubsub.router.mesh.get(TOPIC, ()) for peer in listening)  # type: ignore[union-attr]


async def still_hears(one: Stranger, ours: Listener, data: bytes = b"are you there") -> None:
    """The proof that an attack did nothing: a good message is heard, the host is the same, a newcomer is served."""
    await one.pubsub.publish(TOPIC, data)
    await until(lambda: data in ours.data())
    await still_serves(ours.net)
    assert ours.count("host-failed") == ours.count("host-restarted") == ours.count("gossip/restarted") == 0


# --- both ways ---------------------------------------------------------------------------------------------


async def test_a_stranger_hears_us_and_we_hear_him() -> None:
    async with topic() as (one, (ours,)):
        assert ours.net.publish(b"from us")
        await one.until_heard(1)
        assert [(message.data, message.from_id) for message in one.heard] == [(b"from us", ours.net.me)]
        await one.pubsub.publish(TOPIC, b"from him")
        await until(lambda: ours.heard)
        assert ours.heard == [(one.me, one.me, b"from him")]
        assert ours.blamed == []


async def test_what_one_publishes_is_passed_on_once_under_its_author_s_name() -> None:
    async with topic(3) as (one, (hub, *others)):
        await one.pubsub.publish(TOPIC, b"news")
        await until(lambda: all(other.heard for other in others))
        await others[0].net._gossip._pubsub.publish(TOPIC, b"news")  # type: ignore[union-attr]  # the same under another name
        assert others[1].net.publish(b"last")
        await until(lambda: b"last" in hub.data() and b"last" in others[0].data())
        await one.until_heard(1)
        assert hub.said() == [(one.me, b"news"), (others[1].net.me, b"last")]
        assert others[0].said() == [(one.me, b"news"), (others[1].net.me, b"last")]
        assert others[1].said() == [(one.me, b"news")]


async def test_seqnos_are_never_used_again() -> None:
    async with topic() as (one, (ours,)):
        ours.net.publish(b"a")
        ours.net.publish(b"b")
        await one.until_heard(2)
        first, second = (int.from_bytes(message.seqno, "big") for message in one.heard)
        assert second == first + 1
        assert first > 1_600_000_000 * 10**9  # nanoseconds, which no run can use up


async def test_off_means_neither_imported_nor_served() -> None:
    script = (
        "import sys, trio\n"
        "import peer.node.assembly\n"
        "from peer.net.host import open_host\n"
        "from tests.net.rig import key\n"
        "from wire.network import REGTEST\n"
        "async def main():\n"
        "    async with open_host(key=key(1), network=REGTEST) as net:\n"
        "        served = [str(one) for one in net._engine.host.multiselect.handlers]\n"
        "        print('meshsub' in ' '.join(served), 'peer.net.pubsub' in sys.modules, net.publish(b'x'))\n"
        "trio.run(main)\n"
    )
    done = await trio.run_process([sys.executable, "-c", script], capture_stdout=True, stderr=subprocess.DEVNULL)
    assert done.stdout.decode().split() == ["False", "False", "False"]


# --- packets that end a stock host -------------------------------------------------------------------------


def attacks(one: Stranger, other: Any) -> dict[str, tuple[bytes, str]]:
    """What is written on a pubsub stream, and under which name it is counted."""
    good = one.message(b"x")
    return {
        "undecodable": (prefixed(b"\xff" * 20), "undecodable"),
        "broken-key": (rpc(one.message(b"x", key=b"\x08\x02\x12\xff")), "wrong-key"),
        "another-key": (rpc(one.message(b"x", key=other.public_key.serialize())), "wrong-key"),
        "nonsense-author": (rpc(one.message(b"x", from_id=b"\xff\xff nobody")), "wrong-author"),
        "no-author": (rpc(one.message(b"x", from_id=b"")), "wrong-author"),
        "author-of-another-kind": (rpc(one.message(b"x", from_id=b"\x12\x20" + bytes(32))), "wrong-author"),
        "another-author": (rpc(one.message(b"x", from_id=key(91).peer_id, key=b"")), "wrong-signature"),
        "no-signature": (rpc(one.message(b"x", signature=b"")), "wrong-signature"),
        "false-signature": (rpc(one.message(b"x", signature=good.signature[:-1] + b"\x00")), "wrong-signature"),
        "changed-data": (rpc(one.message(b"x", data=b"y")), "wrong-signature"),
        "oversize": (b"\xff\xff\x7f" + bytes(50), "rpc-oversize"),
        "endless-length": (b"\xff" * 10, "rpc-oversize"),
    }


async def test_packets_that_end_others_are_counted_by_name_and_their_forwarder_blamed() -> None:
    async with topic() as (one, (ours,)):
        packets = attacks(one, create_new_key_pair())
        expected: Counter[str] = Counter()
        for name, (data, code) in packets.items():
            stream = await one.raw(ours.net.me)
            await stream.write(data)
            expected[code] += 1
            await until(lambda: len(ours.blamed) >= expected.total())
            assert ours.blamed[-1] == (one.me, code), name
            assert ours.count(f"gossip/{code}") == expected[code], name
            await stream.reset()
        assert len(ours.blamed) == len(packets)
        assert ours.heard == []
        await still_hears(one, ours)


@pytest.mark.parametrize(
    ("error", "code", "blamed"),
    [
        (RuntimeError("ours"), "validator-failed", False),
        (Ignore("inbox-full", "no room"), "inbox-full", False),
        (Misbehaved("not-a-batch", "nonsense"), "not-a-batch", True),
    ],
    ids=["raises", "ignores", "blames"],
)
async def test_a_validator_may_raise_anything(error: Exception, code: str, blamed: bool) -> None:
    async with topic(2) as (one, (ours, other)):
        ours.raises = {b"bad": error}
        await one.pubsub.publish(TOPIC, b"bad")
        await until(lambda: ours.count(f"gossip/{code}"))
        assert bool(ours.blamed) == blamed
        assert set(ours.blamed) <= {(one.me, code), (other.net.me, code)}
        await still_hears(one, ours)
        await until(lambda: other.heard)
        assert (ours.net.me, one.me, b"bad") not in other.heard  # what was not taken is not passed on


async def test_control_that_a_stock_host_would_keep_or_obey_is_thrown_away() -> None:
    from libp2p.pubsub.pb import rpc_pb2

    async with topic() as (one, (ours,)), hosts(1, first=30) as (victim,):
        peers = [rpc_pb2.PeerInfo(peerID=victim.me, signedPeerRecord=b"")]
        others = [f"/other/{number}" for number in range(50)]
        control = rpc_pb2.ControlMessage(
            prune=[rpc_pb2.ControlPrune(topicID=name, backoff=1 << 40) for name in others]
            + [rpc_pb2.ControlPrune(topicID=TOPIC, peers=peers, backoff=1)],
            graft=[rpc_pb2.ControlGraft(topicID=name) for name in others],
            ihave=[rpc_pb2.ControlIHave(topicID="/other/1", messageIDs=[b"\xff" * 32])],
            iwant=[rpc_pb2.ControlIWant(messageIDs=[b"\x00", b"not hex", b"f"])],
        )
        subscriptions = [rpc_pb2.RPC.SubOpts(subscribe=True, topicid=name) for name in others]
        stream = await one.raw(ours.net.me)
        await stream.write(rpc(one.message(b"after"), control=control, subscriptions=subscriptions, senderRecord=b"junk"))
        await stream.write(rpc(one.message(b"then")))
        await until(lambda: len(ours.heard) == 2)
        pubsub: Any = ours.net._gossip._pubsub  # type: ignore[union-attr]
        assert set(pubsub.router.back_off) <= {TOPIC}
        assert set(pubsub.peer_topics) == {TOPIC}
        assert all(set(topics) <= {TOPIC} for topics in pubsub.router.graft_flood_tracking.values())
        assert ours.net.statistics().connections == 1
        assert ours.blamed == []
        await still_hears(one, ours)


async def test_messages_for_other_topics_or_from_the_banned_are_not_heard() -> None:
    async with topic() as (one, (ours,)):
        await ours.net.ban(key(91).peer_id)
        stream = await one.raw(ours.net.me)
        await stream.write(rpc(one.message(b"x", topicIDs=["/other"]), one.message(b"x", from_id=key(91).peer_id, key=b"")))
        await stream.write(rpc(one.message(b"x", from_id=ours.net.me, key=b"")))
        await until(lambda: ours.count("gossip/from-us"))
        assert ours.count("gossip/other-topic") == ours.count("gossip/author-banned") == 1
        assert (ours.heard, ours.blamed) == ([], [])


# --- bounds ------------------------------------------------------------------------------------------------


async def test_a_flood_beyond_the_bucket_is_counted_and_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peer.net.pubsub.GOSSIP_ITEMS_MAX", 40)
    monkeypatch.setattr("peer.net.pubsub.GOSSIP_ITEMS_PER_S", 0)
    async with topic(2) as (one, (ours, other)):
        await other.net.disconnect(ours.net.me)
        stream = await one.raw(ours.net.me)
        for number in range(60):
            await stream.write(rpc(one.message(b"%d" % number, seqno=number)))
        await until(lambda: ours.count("gossip/too-fast") >= 40)
        assert len(ours.heard) <= 20  # an RPC is one, the message in it another
        assert ours.blamed == []
        await other.net.connect(ours.net.addresses()[0])  # his bucket is another
        await until(lambda: ours.net.statistics().topic_peers == 2)
        other.net.publish(b"through the flood")
        await until(lambda: b"through the flood" in ours.data())
        await still_serves(ours.net)


async def test_bytes_and_many_items_in_one_rpc_cost_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    from libp2p.pubsub.pb import rpc_pb2

    async with topic() as (one, (ours,)):
        stream = await one.raw(ours.net.me)
        names = [number.to_bytes(32, "big") for number in range(GOSSIP_ITEMS_MAX + 1)]
        wants = rpc_pb2.ControlMessage(iwant=[rpc_pb2.ControlIWant(messageIDs=names)])
        await stream.write(rpc(control=wants))
        await until(lambda: ours.count("gossip/too-fast") == 1)
        monkeypatch.setattr("peer.net.pubsub.GOSSIP_BYTES_MAX", 1_000)
        monkeypatch.setattr("peer.net.pubsub.GOSSIP_BYTES_PER_S", 0)
        async with stranger(key(93), TOPIC) as fresh:
            await fresh.dial(ours.net.addresses()[0])
            await fresh.pubsub.publish(TOPIC, bytes(1_000))
            await until(lambda: ours.count("gossip/too-fast") >= 2)
            assert ours.heard == []
        await still_hears(one, ours)


async def test_more_streams_than_anyone_needs_are_reset() -> None:
    async with topic() as (one, (ours,)):
        streams = []
        for _ in range(GOSSIP_STREAMS_PER_PEER_MAX):  # and the one he has already
            with contextlib.suppress(StreamFailure):
                streams.append(await one.raw(ours.net.me))
        await until(lambda: ours.count("gossip/over-bound") == 1)
        assert len(streams) >= GOSSIP_STREAMS_PER_PEER_MAX - 1
        await still_hears(one, ours)


async def test_what_cannot_be_published_yet_is_bounded_and_counted() -> None:
    async with hosts(1) as (net,):
        ours = Listener(net)
        taken = [net.publish(b"%d" % number) for number in range(GOSSIP_OUTBOX + 3)]
        assert taken == [True] * GOSSIP_OUTBOX + [False] * 3
        assert ours.count("gossip/outbox-full") == 3


async def test_a_queue_that_a_peer_does_not_read_is_bounded_and_counted() -> None:
    async with topic() as (one, (ours,)):
        pubsub: Any = ours.net._gossip._pubsub  # type: ignore[union-attr]
        (queue,) = pubsub.peer_queues.values()
        queue._queue.max_size = 0
        assert ours.net.publish(b"lost")
        await until(lambda: ours.count("gossip/peer-queue-full"))
        queue._queue.max_size = 8
        assert ours.net.publish(b"found")
        await one.until_heard(1)
        assert b"found" in [message.data for message in one.heard]


async def test_a_large_rpc_is_read() -> None:
    async with topic() as (one, (ours,)):
        data = bytes(
            GOSSIP_RPC_MAX_BYTES // 2
        )  # on a stream of its own: the library writes RPCs into each other when a window is used up
        stream = await one.raw(ours.net.me)  # its own, for the library writes RPCs into each other when a window is used up
        await stream.write(rpc(one.message(data)))
        await until(lambda: ours.data() == [data])


# --- coming and going --------------------------------------------------------------------------------------


async def test_a_vanished_peer_is_forgotten_and_heard_again_when_he_returns() -> None:
    async with hosts(1) as (net,):
        ours = Listener(net)
        for round_number in range(2):
            async with stranger(key(90), TOPIC) as one:
                await one.dial(net.addresses()[0])
                await one.pubsub.publish(TOPIC, b"round %d" % round_number)
                await until(lambda: len(ours.heard) == round_number + 1)  # noqa: B023 - awaited here
            await until(lambda: net.statistics().topic_peers == 0)
        assert ours.blamed == []
        pubsub: Any = net._gossip._pubsub  # type: ignore[union-attr]
        assert (pubsub.peers, pubsub.peer_queues) == ({}, {})


async def test_a_peer_that_was_connected_before_the_topic_is_joined_takes_part() -> None:
    async with hosts(1) as (net,), stranger(key(90), TOPIC) as one:
        from libp2p.peer.peerinfo import info_from_p2p_addr
        from multiaddr import Multiaddr

        await one.host.connect(info_from_p2p_addr(Multiaddr(net.addresses()[0])))
        await until(net.peers)
        ours = Listener(net)
        await until(lambda: net.statistics().topic_peers == 1)
        ours.net.publish(b"late")
        await one.until_heard(1)


async def test_neighbours_without_a_topic_are_left_in_peace() -> None:
    async with hosts(2) as (net, plain):
        ours = Listener(net)
        await join(net, plain)
        ours.net.publish(b"to nobody")
        await still_serves(net)
        assert ours.net.statistics().topic_peers == 0
        assert not [code for code in plain.statistics().counters if code.startswith("gossip")]


async def test_the_topic_comes_back_with_its_host() -> None:
    async with hosts(1) as (net,):
        ours = Listener(net)
        assert net._engine is not None
        await net._engine.host.close()  # it ends by itself, as after a fault of the library
        await until(lambda: ours.count("host-restarted") == 1 and net.addresses())
        async with stranger(key(90), TOPIC) as one:
            await one.dial(net.addresses()[0])
            await one.pubsub.publish(TOPIC, b"still here")
            await until(lambda: ours.data() == [b"still here"])


async def test_the_topic_comes_back_when_the_library_s_service_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peer.net.gossip._PAUSE_S", 0)
    async with hosts(2) as nets:
        ours, other = (Listener(net) for net in nets)
        await join(*nets)
        await until(lambda: ours.net.statistics().topic_peers == other.net.statistics().topic_peers == 1)
        gossip: Any = ours.net._gossip

        async def fails() -> None:
            raise RuntimeError("a mistake of the library")

        gossip._pubsub.manager.run_task(fails)
        await until(lambda: ours.count("gossip/restarted") == 1)
        with trio.fail_after(WAIT_S):
            for turn in itertools.count():  # what is said while the other still believes in the old connection is lost
                await other.net.connect(ours.net.addresses()[0])  # as a neighbour would, whenever it is gone
                assert other.net.publish(b"again %d" % turn)
                await trio.sleep(0.01)
                if ours.data():
                    break
        served = [str(name) for name in ours.net._engine.host.multiselect.handlers]  # type: ignore[union-attr]
        assert served.count(PROTOCOL) == 1
