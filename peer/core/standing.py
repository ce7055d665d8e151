"""What we think of other accounts, from what they did to us: pure, local, and forgotten in time.

Two kinds of blame. A *penalty* is for breaking the protocol; it decays, and above ``BAN_AT`` the peer is refused. A *strike*
is for a trade gone wrong (silence, refusal, a bad result); it cannot be proved to others, so all it does is to put the
account on the ``avoid`` list of our own orders for a while. What goes wrong together, such as all units of a lost connection, is
one strike. Silence between the auction and the signatures costs nothing but an epoch and can be an accident, so the first is only
remembered, and from the second on each is a strike.
"""

from dataclasses import dataclass, replace
from typing import Final

from wire.account import hash160
from wire.keys import PeerId, public_of
from wire.limits import AVOID_MAX, PEERS_MAX
from wire.moments import SECOND, Instant

BAN_AT: Final = 100
HALF_LIFE_US: Final = 600 * SECOND
STRIKE_FIRST_US: Final = 10 * SECOND
STRIKE_MOST_US: Final = 640 * SECOND
STRIKE_TOGETHER_US: Final = 5 * SECOND
SILENCE_TOGETHER_US: Final = SECOND


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Penalty points as of ``at``; strikes, the moment of the last, until when it is avoided for them; the reason last given; the
    moment of the last silence.
    """

    points: int
    at: Instant
    strikes: int
    struck_at: Instant
    avoid_until: Instant
    sentence: str
    silent_at: Instant


_CLEAN: Final = Record(
    points=0,
    at=Instant(0),
    strikes=0,
    struck_at=Instant(-STRIKE_TOGETHER_US),
    avoid_until=Instant(-STRIKE_MOST_US),
    sentence="",
    silent_at=Instant(-STRIKE_MOST_US),
)


class Standing:
    """Penalties and strikes by peer, bounded: the oldest entry makes room."""

    def __init__(self) -> None:
        self._records: dict[PeerId, Record] = {}

    def blame(self, peer: PeerId, penalty: int, sentence: str, now: Instant) -> bool:
        """Add ``penalty`` points. Whether the peer is banned from now on."""
        known = self._records.pop(peer, _CLEAN)
        points = self._points_of(known, now) + penalty
        self._keep(peer, replace(known, points=points, at=now, sentence=sentence))
        return points >= BAN_AT

    def strike(self, peer: PeerId, sentence: str, now: Instant) -> None:
        """Avoid the account for a while: twice as long for each strike before the last ones are forgotten."""
        known = self._records.pop(peer, _CLEAN)
        if now < known.struck_at + STRIKE_TOGETHER_US:
            self._keep(peer, replace(known, sentence=sentence))
            return
        strikes = known.strikes + 1 if now < known.avoid_until + STRIKE_MOST_US else 1
        until = Instant(now + min(STRIKE_MOST_US, STRIKE_FIRST_US << min(strikes - 1, 10)))
        points = self._points_of(known, now)
        self._keep(
            peer,
            replace(known, points=points, at=now, strikes=strikes, struck_at=now, avoid_until=until, sentence=sentence),
        )

    def silent(self, peer: PeerId, sentence: str, now: Instant) -> bool:
        """A party let the time for signing pass. Whether that was a strike: not the first one in a long while."""
        known = self._records.pop(peer, _CLEAN)
        together = now < known.silent_at + SILENCE_TOGETHER_US
        self._keep(peer, replace(known, sentence=sentence, silent_at=known.silent_at if together else now))
        if together or now >= max(known.silent_at, known.avoid_until) + STRIKE_MOST_US:
            return False
        self.strike(peer, sentence, now)
        return True

    def banned(self, peer: PeerId, now: Instant) -> bool:
        """Whether we refuse to deal with the peer at all."""
        return self._points_of(self._records.get(peer, _CLEAN), now) >= BAN_AT

    def avoided(self, now: Instant) -> tuple[bytes, ...]:
        """Account hashes (20 bytes, sorted) to put on the ``avoid`` list of our orders; the latest strikes first served."""
        late = sorted(
            ((known.avoid_until, peer) for peer, known in self._records.items() if known.avoid_until > now),
            reverse=True,
        )
        return tuple(sorted(hash160(public_of(peer)) for _, peer in late[:AVOID_MAX]))

    def next_change(self, now: Instant) -> Instant | None:
        """When an account leaves the avoid list."""
        return min((known.avoid_until for known in self._records.values() if known.avoid_until > now), default=None)

    def of(self, peer: PeerId) -> Record | None:
        """What is on record, for people to see."""
        return self._records.get(peer)

    @staticmethod
    def _points_of(known: Record, now: Instant) -> int:
        return known.points >> min(30, max(0, now - known.at) // HALF_LIFE_US)

    def _keep(self, peer: PeerId, known: Record) -> None:
        while len(self._records) >= 4 * PEERS_MAX:
            del self._records[next(iter(self._records))]
        self._records[peer] = known
