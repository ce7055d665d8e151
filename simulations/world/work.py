"""Content and workers without bytes: what is where, who may fetch it, and how long moving and computing take.

Contents are names with sizes. A result is named by a digest of its work, a ciphertext by a digest of key and plaintext, so that
decryption with the right key, and with it alone, gives the plaintext's name again. Each host has one task per unit at a time,
as a node has.
"""

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any, Final

from peer.core import events as node
from simulations.world.eventlog import Kind
from simulations.world.host import Host
from wire.cipher import OVERHEAD_BYTES
from wire.digest import context, digest
from wire.keys import PeerId
from wire.moments import MILLISECOND, SECOND

if TYPE_CHECKING:
    from simulations.world.world import World

_CONTENT: Final = context("simulated", "content")
_CRYPT_US: Final = 2 * MILLISECOND
_RETRY_US: Final = SECOND
_GIVE_UP_US: Final = 20 * SECOND
_FETCH_MBPS: Final = 50.0


def result_of(work: bytes) -> bytes:
    """The name of what any honest worker makes of ``work``."""
    return digest(_CONTENT, b"result", work)


class Works:
    """Every host's store, grants and tasks. ``spoil`` makes a host's results unreadable: the key will not open them."""

    def __init__(self, world: "World", dice: Random) -> None:
        self._world, self._dice = world, dice
        self._plan = world.plan.trade
        self._stores: dict[int, dict[bytes, int]] = {}
        self._grants: dict[int, dict[bytes, bytes]] = {}
        self._tasks: dict[tuple[int, bytes], int] = {}
        self._ciphers: dict[bytes, tuple[bytes, bytes]] = {}
        self._serial = 0
        self.fetched_bytes = 0
        world.performers[node.Grant] = lambda host, effect: self._grants[host.number].__setitem__(effect.ticket, effect.content)
        world.performers[node.Revoke] = self._revoke
        world.performers[node.Fetch] = self._fetch
        world.performers[node.Compute] = self._compute
        world.performers[node.Encrypt] = self._encrypt
        world.performers[node.Decrypt] = self._decrypt
        world.performers[node.Stop] = self._stop
        world.on_crash.append(self._crashed)

    def add(self, host: Host) -> None:
        """A host's empty store."""
        self._stores[host.number] = {}
        self._grants[host.number] = {}

    def put(self, host: Host, name: bytes, size_bytes: int) -> None:
        """Store a content."""
        self._stores[host.number][name] = size_bytes

    def _crashed(self, host: Host) -> None:
        """Grants and tasks are the process's, the store is the disk's."""
        self._grants[host.number].clear()
        for name in [name for name in self._tasks if name[0] == host.number]:
            del self._tasks[name]

    def _revoke(self, host: Host, effect: node.Revoke) -> None:
        self._grants[host.number].pop(effect.ticket, None)

    def _stop(self, host: Host, effect: node.Stop) -> None:
        self._tasks.pop((host.number, effect.unit), None)

    # --- tasks ------------------------------------------------------------------------------------------------------

    def _begin(self, host: Host, unit: bytes, delay_us: int, finish: Callable[[Host, Any], Any], effect: Any) -> None:
        """Start a task; one that runs for the same unit is ended."""
        self._serial += 1
        self._tasks[host.number, unit] = self._serial
        self._world.timeline.after(delay_us, self._end, (host, unit, self._serial), (finish, effect))

    def _end(self, task: tuple[Host, bytes, int], what: tuple[Callable[[Host, Any], Any], Any]) -> None:
        host, unit, serial = task
        if self._tasks.get((host.number, unit)) != serial:
            return
        finish, effect = what
        answer = finish(host, effect)
        if answer is not None:
            self._tasks.pop((host.number, unit), None)
            self._world.give(host, Kind.DONE, unit, answer)

    # --- moving -----------------------------------------------------------------------------------------------------

    def _fetch(self, host: Host, effect: node.Fetch) -> None:
        until = self._world.timeline.now + _GIVE_UP_US
        self._begin(host, effect.unit, self._moving_us(effect.size), self._fetched, (effect, until))

    def _moving_us(self, size_bytes: int) -> int:
        return self._dice.randint(100, 400) * MILLISECOND + round(size_bytes * 8 / _FETCH_MBPS)

    def _fetched(self, host: Host, of: tuple[node.Fetch, int]) -> Any:
        effect, until = of
        if effect.content in self._stores[host.number]:
            return node.Fetched(unit=effect.unit, content=effect.content)
        other = self._world.hosts[PeerId(effect.peer)]
        if self._world.roads.reachable(host, other) and self._grants[other.number].get(effect.ticket) == effect.content:
            size = self._stores[other.number][effect.content]
            if size != effect.size:
                return node.FetchFailed(unit=effect.unit, code="wrong-size", sentence="the content has another size")
            self.put(host, effect.content, size)
            self.fetched_bytes += size
            return node.Fetched(unit=effect.unit, content=effect.content)
        if self._world.timeline.now >= until:
            return node.FetchFailed(unit=effect.unit, code="unreachable", sentence="the peer does not serve it")
        self._begin(host, effect.unit, _RETRY_US, self._fetched, of)
        return None

    # --- computing --------------------------------------------------------------------------------------------------

    def _compute(self, host: Host, effect: node.Compute) -> None:
        lasts = round(self._dice.uniform(self._plan.work_least_s, self._plan.work_most_s) * SECOND)
        self._begin(host, effect.unit, lasts, self._computed, effect)

    def _computed(self, host: Host, effect: node.Compute) -> Any:
        plain = result_of(effect.work)
        self.put(host, plain, self._plan.result_bytes)
        return node.Computed(unit=effect.unit, plain=plain)

    def _encrypt(self, host: Host, effect: node.Encrypt) -> None:
        self._begin(host, effect.unit, _CRYPT_US, self._encrypted, effect)

    def _encrypted(self, host: Host, effect: node.Encrypt) -> Any:
        cipher = digest(_CONTENT, b"cipher", effect.key, effect.plain)
        size = self._stores[host.number][effect.plain] + OVERHEAD_BYTES
        self.put(host, cipher, size)
        self._ciphers[cipher] = (effect.key, effect.plain)
        return node.Encrypted(unit=effect.unit, cipher=cipher, size=size)

    def _decrypt(self, host: Host, effect: node.Decrypt) -> None:
        self._begin(host, effect.unit, _CRYPT_US, self._decrypted, effect)

    def _decrypted(self, host: Host, effect: node.Decrypt) -> Any:
        key, plain = self._ciphers.get(effect.cipher, (b"", b""))
        right = key == effect.key and effect.cipher in self._stores[host.number]
        if right:
            self.put(host, plain, self._plan.result_bytes)
        return node.Decrypted(unit=effect.unit, plain=plain if right else None)
