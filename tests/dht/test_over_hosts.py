"""The directory over real hosts: buyers and sellers that know only one way in meet each other soon."""

import trio

from dht.core.directory import Directory
from dht.core.events import Announce, PeerUp, Seek
from dht.shell.directory import DirectoryService
from peer.net.host import Net
from tests.net.rig import hosts, join, until
from wire.keys import PeerId

ARTICLE = "net.bitwrk/rays/1"


class Node:
    def __init__(self, net: Net) -> None:
        self.net = net
        self.met: set[PeerId] = set()
        self.service = DirectoryService(Directory(net.me, "regtest"), net, lambda peer, _: self.met.add(peer))
        net.on_peer(lambda peer: self.service.tell(PeerUp(peer=peer)), lambda _: None)


async def test_sellers_are_met_soon_after_they_announce() -> None:
    async with hosts(5) as nets, trio.open_nursery() as nursery:
        hub, buyer, *sellers = [Node(net) for net in nets]
        for node in (hub, buyer, *sellers):
            await nursery.start(node.service.run)
        buyer.service.tell(Seek(article=ARTICLE))
        await join(hub.net, buyer.net)
        await until(lambda: buyer.service.statistics().get("looked", 0) >= 1)
        for seller in sellers:
            await join(hub.net, seller.net)
            seller.service.tell(Announce(article=ARTICLE))
            seller.service.tell(Seek(article=ARTICLE))
        await until(lambda: buyer.met == {seller.net.me for seller in sellers})
        await until(lambda: all(seller.met for seller in sellers))
        nursery.cancel_scope.cancel()
