"""What happens in the node, told to whoever listens: numbered, the latest kept, and nobody waited for.

A listener who does not keep up is let go; he can come back with the number of the last event he saw.
"""

from collections import deque
from collections.abc import Iterator
from typing import Final

import trio

from peer.api.service import Json
from wire.limits import API_EVENTS_BEHIND_MAX, API_EVENTS_KEPT

KINDS: Final = ("trade", "order", "channel", "peer", "mandate", "book", "worker", "banned", "clock", "node")


class Listener:
    """An async iterator over events; it ends when it is closed or has fallen too far behind."""

    def __init__(self, feed: "Feed", kept: list[Json]) -> None:
        self._feed = feed
        self._kept = deque(kept)
        self.send, self._receive = trio.open_memory_channel[Json](API_EVENTS_BEHIND_MAX)

    def __aiter__(self) -> "Listener":
        return self

    async def __anext__(self) -> Json:
        if self._kept:
            await trio.lowlevel.checkpoint()
            return self._kept.popleft()
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        """Hear nothing more."""
        self._feed.forget(self)
        self._receive.close()


class Feed:
    """The events of one run of the node. Numbers begin at ``first``, beyond those of any earlier run."""

    def __init__(self, first: int) -> None:
        self._next = first
        self._kept: deque[Json] = deque(maxlen=API_EVENTS_KEPT)
        self._listeners: set[Listener] = set()

    def publish(self, kind: str, **facts: object) -> None:
        """Tell an event; ``facts`` are plain JSON values."""
        event = {"id": self._next, "kind": kind, **facts}
        self._next += 1
        self._kept.append(event)
        for listener in list(self._listeners):
            try:
                listener.send.send_nowait(event)
            except (trio.WouldBlock, trio.BrokenResourceError):
                self.forget(listener)

    def listen(self, after: int | None) -> Listener:
        """Hear what happens from now on; with ``after``, beginning with what is kept of the time after that event."""
        kept = [event for event in self._kept if event["id"] > after] if after is not None else []
        listener = Listener(self, kept)
        self._listeners.add(listener)
        return listener

    def forget(self, listener: Listener) -> None:
        """Let a listener go: he hears what he has been told already, and then the end."""
        self._listeners.discard(listener)
        listener.send.close()

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._listeners)

    def kept(self) -> Iterator[Json]:
        """What is still known, oldest first."""
        return iter(tuple(self._kept))
