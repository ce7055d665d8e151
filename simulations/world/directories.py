"""The directory of every host, driven as the node drives it, over a provider table that stands for the DHT.

What a walk through a real Kademlia costs is the array model's business; here it is a delay, and an answer that may name peers who
have gone.
"""

from random import Random
from typing import TYPE_CHECKING, Any, Final

from dht.core import events as dht
from dht.core.directory import Directory
from orderbook.core.events import Shares
from simulations.world.host import Host
from wire.effects import Count
from wire.keys import PeerId
from wire.limits import PROVIDER_LIFE_S, PROVIDERS_MAX
from wire.moments import MILLISECOND, SECOND, Instant

if TYPE_CHECKING:
    from simulations.world.world import World

_WALK_LEAST_US: Final = 200 * MILLISECOND
_WALK_MOST_US: Final = 1_500 * MILLISECOND


class Directories:
    """Who announced what, and the policy of each host. ``names`` has the article of every book."""

    def __init__(self, world: "World", dice: Random) -> None:
        self._world, self._dice = world, dice
        self._records: dict[bytes, dict[PeerId, int]] = {}
        self._articles: dict[int, list[str]] = {}
        self._meshes: dict[int, dict[PeerId, frozenset[str]]] = {}
        self.names: dict[bytes, str] = {}

    def start(self, host: Host) -> None:
        """A new process has a new directory."""
        host.directory = Directory(host.peer_id, self._world.network.name)
        host.directory_at = None
        self._articles[host.number] = []
        self._meshes[host.number] = {}

    def follow(self, host: Host, article: str) -> None:
        """Announce and seek an article."""
        if article not in self._articles[host.number]:
            self._articles[host.number].append(article)
            self._tell(host, dht.Announce(article=article))
            self._tell(host, dht.Seek(article=article))

    def shares(self, host: Host, effect: Shares) -> None:
        """Host and neighbour both follow these books: he is in the meshes of their articles, and in no other."""
        articles = frozenset(self.names[book] for book in effect.books)
        before = self._meshes[host.number].pop(effect.peer, frozenset())
        if articles:
            self._meshes[host.number][effect.peer] = articles
        for article in sorted(articles - before):
            self._tell(host, dht.Joined(peer=effect.peer, article=article))
        for article in sorted(before - articles):
            self._tell(host, dht.Left(peer=effect.peer, article=article))

    def failed(self, host: Host, peer: PeerId, article: str) -> None:
        """A relay stream could not be opened."""
        self._tell(host, dht.Left(peer=peer, article=article))

    def _tell(self, host: Host, event: Any) -> None:
        directory = host.directory
        if directory is None:
            return
        for effect in directory.handle(event, self._world.local(host)):
            self._perform(host, effect)
        due = directory.next_deadline()
        if due is not None:
            due = Instant(max(due - host.skew_us, self._world.timeline.now + MILLISECOND))
            if host.directory_at is None or due < host.directory_at:
                host.directory_at = due
                self._world.timeline.at(due, self._tick, host, (host.life, due))

    def _tick(self, host: Host, due: tuple[int, int]) -> None:
        if host.alive and (host.life, host.directory_at) == due:
            host.directory_at = None
            self._tell(host, dht.Tick())

    def _perform(self, host: Host, effect: dht.Effect) -> None:
        match effect:
            case dht.Provide(key=key):
                self._world.timeline.after(self._walk_us(), self._provided, (host, host.life), key)
            case dht.Find(key=key):
                self._world.timeline.after(self._walk_us(), self._found, (host, host.life), key)
            case dht.Meet(peer=peer, article=article):
                self._world.roads.meet(host, peer, article)
            case dht.Part(peer=peer):
                other = self._world.hosts.get(peer)
                if other is not None:
                    self._world.roads.part(host, other)
            case Count(code=code, amount=amount):
                host.counts[code] += amount

    def _walk_us(self) -> int:
        return self._dice.randint(_WALK_LEAST_US, _WALK_MOST_US)

    def _provided(self, of: tuple[Host, int], key: bytes) -> None:
        host, life = of
        if host.alive and host.life == life:
            self._records.setdefault(key, {})[host.peer_id] = self._world.timeline.now + PROVIDER_LIFE_S * SECOND
            self._tell(host, dht.Provided(key=key))

    def _found(self, of: tuple[Host, int], key: bytes) -> None:
        host, life = of
        if host.alive and host.life == life:
            known = [peer for peer, until in self._records.get(key, {}).items() if until > self._world.timeline.now]
            chosen = self._dice.sample(known, min(PROVIDERS_MAX, len(known)))
            self._tell(host, dht.Found(key=key, peers=tuple(chosen)))
