"""One node of the world: its key and its disk, which last, and its process, which comes and goes."""

from collections import Counter, deque
from typing import TYPE_CHECKING, Any, Protocol

from dht.core.directory import Directory
from wire.effects import Save
from wire.keys import PeerId, SecretKey
from wire.moments import Instant

if TYPE_CHECKING:
    from simulations.world.roads import Wire

Disk = dict[str, dict[bytes, bytes]]


class Core(Protocol):
    """What a driver drives: ``peer.core.brain.Brain``, ``MarketOnly``, or an adversary."""

    def handle(self, event: Any, now: Instant) -> tuple[Any, ...]:
        """Take one event."""
        ...

    def resume(self, now: Instant) -> tuple[Any, ...]:
        """After a start."""
        ...

    def next_deadline(self) -> Instant | None:
        """When ``Tick`` is due."""
        ...


class Host:
    """``life`` counts starts; what was planned for an earlier life does not happen to a later one."""

    def __init__(self, number: int, key: SecretKey, skew_us: int, *, honest: bool) -> None:
        self.number = number
        self.key = key
        self.peer_id: PeerId = key.peer_id
        self.skew_us = skew_us
        self.honest = honest
        self.role = ""
        self.disk: Disk = {}
        self.core: Core | None = None
        self.directory: Directory | None = None
        self.life = 0
        self.neighbours: dict[PeerId, Wire] = {}
        self.inbox: deque[tuple[int, bytes, Any]] = deque()
        self.busy = False
        self.tick_at: int | None = None
        self.directory_at: int | None = None
        self.banned: set[PeerId] = set()
        self.counts: Counter[str] = Counter()
        self.uplink_free = 0
        self.sent_bytes = 0
        self.sent_frames = 0
        self.dies_after_save = False

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self.core is not None

    def save(self, rows: list[Save]) -> None:
        """Commit rows to the disk, which survives crashes."""
        for row in rows:
            table = self.disk.setdefault(row.table, {})
            if row.value is None:
                table.pop(row.key, None)
            else:
                table[row.key] = row.value
