"""Content between peers: grants and serves, fetches and retries.

Serving needs a ticket: whoever knows the 16 bytes that stand for a content may fetch it, as often as he likes until the ticket is
revoked. Tickets are made by the caller, from secrets, and live in memory alone; after a restart they are granted again.

Fetching asks for what is missing only. When a stream dies under way another is opened and goes on where the first one ended,
``FETCH_ATTEMPTS_MAX`` times at most. Two fetches of the same content take turns, and the second finds it here.
"""

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import trio

from cafs.core.faults import BUSY, Damaged, PeerBusy, Stalled, TransferLost
from cafs.core.manifest import Content
from cafs.core.messages import MESSAGES, PROTOCOL, Refusal
from cafs.core.transfer import Progress
from cafs.shell.fetching import Fetching
from cafs.shell.line import Line
from cafs.shell.serving import Serving
from cafs.shell.store import Store
from wire.errors import BitwrkError, LocalFault, Misbehaved, Refused
from wire.keys import PeerId
from wire.limits import (
    FETCH_ATTEMPTS_MAX,
    FETCH_RETRY_FIRST_MS,
    FETCH_RETRY_MOST_MS,
    GRANTS_MAX,
    TRANSFERS_MAX,
    TRANSFERS_PER_PEER_MAX,
)
from wire.ports import PeerUnreachable, Stream, StreamClosed, Streams

_PASSING = (StreamClosed, Stalled, PeerBusy, Damaged)
"""Ends of an attempt after which another one may do better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What a service does and has done since it began. Bytes are those of frames."""

    grants: int
    serving: int
    fetching: int
    served: int
    fetched: int
    attempts_failed: int
    sent_bytes: int
    received_bytes: int
    chunks_sent: int


class ContentService:
    """Both ends of ``/bitwrk/content/1`` for one node."""

    def __init__(self, streams: Streams, store: Store) -> None:
        self._streams = streams
        self._store = store
        self._grants: dict[bytes, bytes] = {}
        self._serving_slots = trio.Semaphore(TRANSFERS_MAX)
        self._fetching_slots = trio.Semaphore(TRANSFERS_MAX)
        self._serving: Counter[PeerId] = Counter()
        self._turns: dict[object, tuple[trio.Semaphore, int]] = {}
        self._count: Counter[str] = Counter()
        streams.serve(PROTOCOL, self._serve)

    # --- serving ------------------------------------------------------------------------------------------

    def grant(self, content: bytes, ticket: bytes) -> None:
        """Let whoever shows ``ticket`` (16 unguessable bytes) fetch ``content``. Raises ``Refused`` past ``GRANTS_MAX``."""
        if len(ticket) != 16 or len(content) != 32:
            raise ValueError("a ticket has 16 bytes and a content id 32")
        if ticket not in self._grants and len(self._grants) >= GRANTS_MAX:
            raise Refused("too-many-grants", f"{GRANTS_MAX} tickets are out already")
        if self._grants.setdefault(ticket, content) != content:
            raise Refused("ticket-in-use", "this ticket stands for another content")

    def revoke(self, ticket: bytes) -> None:
        """The ticket is worth nothing from now on, also for a transfer under way. An unknown ticket is fine."""
        self._grants.pop(ticket, None)

    async def _serve(self, stream: Stream) -> None:
        peer = stream.remote
        line = Line(stream)
        if self._serving[peer] >= TRANSFERS_PER_PEER_MAX:
            self._count["refused-busy"] += 1
            with contextlib.suppress(StreamClosed), trio.move_on_after(1):
                await stream.send(MESSAGES.pack(Refusal(code=BUSY, sentence="too many transfers to one peer at a time")))
            await line.end(politely=True)
            return
        self._serving[peer] += 1
        serving = Serving(line, self._store, self._grants.get, self._serving_slots)
        politely = False
        try:
            await serving.run()
            politely = True
            self._count["served"] += 1
        except Misbehaved:
            raise  # whoever runs the handlers knows whom to blame
        except BitwrkError as error:
            politely = isinstance(error, Refused | LocalFault)
            self._count["serving-" + error.code] += 1
        finally:
            self._serving[peer] -= 1
            if not self._serving[peer]:
                del self._serving[peer]
            self._count["sent-bytes"] += line.sent_bytes
            self._count["chunks-sent"] += serving.chunks
            await line.end(politely=politely)

    # --- fetching -----------------------------------------------------------------------------------------

    async def fetch(
        self, peer: PeerId, content: bytes, ticket: bytes, progress: Callable[[Progress], None] | None = None
    ) -> Content:
        """Bring ``content`` into the store from ``peer`` and say what it is. ``progress`` is called now and then.

        Raises ``NotGranted``, ``NoSuchContent``, ``PeerUnreachable``, ``TransferLost``, ``PeerBusy``; ``Misbehaved`` (mostly
        ``Corrupt`` or ``Overrun``) when the peer is to blame; ``StoreFull`` or another ``LocalFault`` when we are. What had
        arrived stays.
        """
        async with self._turn(content, 1):
            here = await self._store.find(content)
            if here is None:
                async with self._turn(peer, TRANSFERS_PER_PEER_MAX), self._fetching_slots:
                    here = await self._attempts(peer, content, ticket, progress)
                self._count["fetched"] += 1
            elif progress is not None:
                progress(Progress(size=here.size, held=here.size, wire=0))
        return here

    @contextlib.asynccontextmanager
    async def _turn(self, key: object, most: int) -> AsyncIterator[None]:
        """At most ``most`` at a time for one key; nothing is remembered of keys that are not in use."""
        semaphore, users = self._turns.get(key, (trio.Semaphore(most), 0))
        self._turns[key] = semaphore, users + 1
        try:
            async with semaphore:
                yield
        finally:
            semaphore, users = self._turns.pop(key)
            if users > 1:
                self._turns[key] = semaphore, users - 1

    async def _attempts(
        self, peer: PeerId, content: bytes, ticket: bytes, progress: Callable[[Progress], None] | None
    ) -> Content:
        last: BitwrkError | None = None
        for attempt in range(FETCH_ATTEMPTS_MAX):
            if attempt > 1:
                await trio.sleep(min(FETCH_RETRY_FIRST_MS << (attempt - 2), FETCH_RETRY_MOST_MS) / 1_000)
            try:
                return await self._attempt(peer, content, ticket, progress)
            except PeerUnreachable as error:
                if last is None:
                    raise
                last = error
            except _PASSING as error:
                last = error
            self._count["attempts-failed"] += 1
        if isinstance(last, PeerBusy | PeerUnreachable):
            raise last
        raise TransferLost("transfer-lost", f"after {FETCH_ATTEMPTS_MAX} attempts: {last}")

    async def _attempt(self, peer: PeerId, content: bytes, ticket: bytes, progress: Callable[[Progress], None] | None) -> Content:
        line = Line(await self._streams.open(peer, PROTOCOL))
        politely = False
        try:
            fetched = await Fetching(line, self._store, content, ticket, progress).run()
            politely = True
        finally:
            self._count["received-bytes"] += line.received_bytes
            await line.end(politely=politely)
        return fetched

    def statistics(self) -> Statistics:
        """How it is."""
        return Statistics(
            grants=len(self._grants),
            serving=sum(self._serving.values()),
            fetching=TRANSFERS_MAX - self._fetching_slots.value,
            served=self._count["served"],
            fetched=self._count["fetched"],
            attempts_failed=self._count["attempts-failed"],
            sent_bytes=self._count["sent-bytes"],
            received_bytes=self._count["received-bytes"],
            chunks_sent=self._count["chunks-sent"],
        )
