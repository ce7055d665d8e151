"""What crosses between the relay and a topic of libp2p's GossipSub, on which other stacks listen and speak.

To the market the topic is one more neighbour, of a strange kind. What it brings goes through the same intake as a neighbour's
batch: deduplicated, verified once, admitted by the same rules, and pushed on to real neighbours. What is newly admitted goes to
it, but never what came from it, and in few large batches, since one message on the topic costs everybody there as much as a
thousand on the relay. It is never asked, compared with or waited for: whether a book is complete, and what time it is, the relay
alone says.

Two can be at fault for what comes over the topic. Whoever forwarded it answers for the envelope, which he had to check before he
passed it on; the author, who has signed the batch, answers for what is in it. Otherwise a stranger could have honest forwarders
banned.
"""

from orderbook.core.events import BridgeIn, BridgeOut
from orderbook.core.frames import FRAMES, Batch
from orderbook.core.messages import Heard
from orderbook.core.neighbour import Neighbour, batches, parcel
from wire.bucket import Bucket
from wire.effects import Count
from wire.errors import Misbehaved
from wire.keys import PeerId
from wire.limits import (
    BRIDGE_BATCH_MAX_BYTES,
    BRIDGE_INTERVAL_MS,
    BRIDGE_OUTBOX_MESSAGES,
    BRIDGE_TOKENS_MAX,
    BRIDGE_TOKENS_PER_S,
)
from wire.moments import MILLISECOND, Instant, after
from wire.network import Network


def topic_of(network: Network) -> str:
    """The name of the topic that carries the orders of all books of one network."""
    return f"/bitwrk/1/{network.name}/orders"


def open_batch(data: bytes) -> tuple[bytes, ...]:
    """The messages in what somebody published. Raises ``Misbehaved``, for which whoever forwarded it answers."""
    frame = FRAMES.unpack(data, BRIDGE_BATCH_MAX_BYTES)
    if not isinstance(frame, Batch) or not frame.messages or frame.moment_us or frame.ages_ms:
        raise Misbehaved("not-a-batch", "what was published on the orders' topic is not a plain batch of messages", penalty=20)
    return frame.messages


class Bridge(Neighbour):
    """The topic as the market sees it; closed, and then without effect, until ``open``.

    ``peer`` is whoever wrote the batch that is being read.
    """

    def __init__(self) -> None:
        super().__init__(PeerId(b""), Instant(0))
        self._tokens = Bucket(BRIDGE_TOKENS_PER_S, BRIDGE_TOKENS_MAX, Instant(0))
        self.is_open = False
        self._counts: list[Count] = []

    def open(self) -> None:
        """Let orders cross from now on."""
        self.is_open = True

    def bring(self, event: BridgeIn, now: Instant) -> tuple[bytes, ...]:
        """The messages of a batch that are to be taken in."""
        if not self.is_open or not self.spend(len(event.messages), now):
            self._counts.append(Count(code="bridge-too-fast" if self.is_open else "not-bridged"))
            return ()
        self.peer = event.author
        return event.messages

    def offer(self, heard: Heard) -> None:
        """Queue what is newly admitted, unless the topic has shown it."""
        if not self.is_open or self.knows(heard.id) or heard.id in self._box:
            return
        if len(self._box) >= BRIDGE_OUTBOX_MESSAGES:
            self._counts.append(Count(code="bridge-full"))
        else:
            self.put(heard.id, parcel(heard.raw))

    def flush_at(self) -> Instant | None:
        """When the next batch leaves: at once after a pause, else when the interval ends, however much waits."""
        if not self._box:
            return None
        if self._last_batch is None:
            return Instant(0)
        return after(self._last_batch, BRIDGE_INTERVAL_MS * MILLISECOND)

    @property
    def busy(self) -> bool:
        """Whether there is anything to send or to tell."""
        return bool(self._box or self._counts)

    def leaving(self, now: Instant) -> list[BridgeOut | Count]:
        """What was dropped since, and the batch that leaves now if one is due; what does not fit waits for the next."""
        left: list[BridgeOut | Count] = [*self._counts]
        self._counts.clear()
        at = self.flush_at()
        if at is not None and at <= now:
            self._last_batch = now
            first = batches([one.raw for one in self._box.values()])[0]
            for message_id in list(self._box)[: len(first)]:
                self.shows(message_id)
            left.append(BridgeOut(batch=FRAMES.pack(Batch(messages=first))))
        return left
