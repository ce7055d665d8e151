"""``python -m tests.bench.neighbour``: a neighbour that sends full batches over the node's own host and relay, and wants nothing.

It answers every comparison with "nothing differs", so that the node it sends to is measured at nothing but taking orders.
"""

from typing import Any

import trio

from orderbook.core.events import FrameIn, NeighbourUp
from orderbook.core.frames import FRAMES, Answer, Ask, Batch, Hello
from orderbook.core.neighbour import batches
from orderbook.shell.relay import RelayService
from peer.net.host import open_host
from tests.bench import signed
from tests.bench.child import ask, say
from wire.keys import PeerId
from wire.limits import FRAME_MAX_BYTES

NOTHING_DIFFERS = b"\x61"


class BenchNeighbour:
    """One end of a relay stream."""

    def __init__(self) -> None:
        self.relay: RelayService
        self.peer: PeerId | None = None
        self.greeted = trio.Event()

    async def hear(self, event: Any) -> None:
        match event:
            case NeighbourUp(peer=peer):
                self.peer = peer
                self.send(Hello(network=signed.NETWORK.name, moment_us=signed.now(), books=(signed.BOOK,)))
            case FrameIn(frame=raw):
                frame = FRAMES.unpack(raw, FRAME_MAX_BYTES)
                if isinstance(frame, Hello) and signed.BOOK in frame.books:
                    self.greeted.set()
                elif isinstance(frame, Ask):
                    self.send(Answer(book=frame.book, session=frame.session, message=NOTHING_DIFFERS))

    def send(self, frame: Any) -> None:
        assert self.peer is not None
        self.relay.send(self.peer, FRAMES.pack(frame))

    def push(self, some: list[bytes]) -> None:
        for part in batches(some):
            self.send(Batch(messages=part, moment_us=signed.now(), ages_ms=(0,) * len(part)))


async def main() -> None:
    """Answer what is asked until the pipe closes."""
    told = await ask()
    here = BenchNeighbour()
    async with open_host(key=signed.key(told["number"]), network=signed.NETWORK) as net, trio.open_nursery() as nursery:
        here.relay = RelayService(net, here.hear)
        await nursery.start(here.relay.run)
        pool = signed.load(told["orders"], 0, told["total"])
        here.relay.connect(await net.connect(told["address"]))
        await here.greeted.wait()
        say(ready=True)
        while True:
            asked = await ask()
            here.push(pool[asked["first"] : asked["first"] + asked["count"]])
            say(sent=asked["count"])


if __name__ == "__main__":
    trio.run(main)
