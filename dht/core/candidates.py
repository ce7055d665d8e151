"""Candidates for the neighbours of one article: whom we have heard of, asked, and joined.

A provider record says only that somebody once announced himself, so a candidate is a rumour until a stream stands with him.
One that cannot be met is left alone for a growing while and forgotten after some failures; whoever is found again later
starts afresh. The order in which candidates are asked comes from a digest with our own id in it, so every node prefers others
and the neighbourhoods of all form a random mesh.

The mesh moves: every round one more candidate is asked, drawn from all we know by the round's number, and when neighbours
are many one of them is let go. So two halves that lost each other while each had neighbours enough find each other again.
"""

import enum
from dataclasses import dataclass
from typing import Final

from wire.digest import digest
from wire.keys import PeerId
from wire.limits import (
    CANDIDATE_LIFE_S,
    CANDIDATES_PER_ARTICLE_MAX,
    DIAL_TIMEOUT_S,
    NEIGHBOURS_EASY,
    NEIGHBOURS_MAX,
    NEIGHBOURS_MIN,
)
from wire.moments import SECOND, Instant, after

_MEET_US: Final = 4 * DIAL_TIMEOUT_S * SECOND
_PAUSE_FIRST_US: Final = 2 * SECOND
_FAILURES_MAX: Final = 6


class State(enum.Enum):
    """What a candidate is to us. ``ABSENT`` is everybody we have not heard of."""

    ABSENT = "absent"
    KNOWN = "known"
    ASKED = "asked"
    JOINED = "joined"


class Input(enum.Enum):
    """What can happen to a candidate."""

    FOUND = "found"
    CHOSEN = "chosen"
    JOIN = "join"
    LEAVE = "leave"
    LAPSE = "lapse"


TABLE: Final[dict[tuple[State, Input], State]] = {
    (State.ABSENT, Input.FOUND): State.KNOWN,
    (State.ABSENT, Input.CHOSEN): State.ABSENT,
    (State.ABSENT, Input.JOIN): State.JOINED,
    (State.ABSENT, Input.LEAVE): State.ABSENT,
    (State.ABSENT, Input.LAPSE): State.ABSENT,
    (State.KNOWN, Input.FOUND): State.KNOWN,
    (State.KNOWN, Input.CHOSEN): State.ASKED,
    (State.KNOWN, Input.JOIN): State.JOINED,
    (State.KNOWN, Input.LEAVE): State.KNOWN,
    (State.KNOWN, Input.LAPSE): State.ABSENT,
    (State.ASKED, Input.FOUND): State.ASKED,
    (State.ASKED, Input.CHOSEN): State.ASKED,
    (State.ASKED, Input.JOIN): State.JOINED,
    (State.ASKED, Input.LEAVE): State.KNOWN,
    (State.ASKED, Input.LAPSE): State.KNOWN,
    (State.JOINED, Input.FOUND): State.JOINED,
    (State.JOINED, Input.CHOSEN): State.JOINED,
    (State.JOINED, Input.JOIN): State.JOINED,
    (State.JOINED, Input.LEAVE): State.KNOWN,
    (State.JOINED, Input.LAPSE): State.JOINED,
}


@dataclass(slots=True)
class _Candidate:
    state: State
    ready: Instant
    """When it may be asked (known), or must have answered (asked)."""
    until: Instant
    failures: int = 0
    ours: bool = False
    """Whether we asked for the meeting."""


class Candidates:
    """The candidates of one article; ``rank`` is any 32 bytes of our own."""

    def __init__(self, context: str, rank: bytes) -> None:
        self._context = context
        self._rank = rank
        self._all: dict[PeerId, _Candidate] = {}

    def state(self, peer: PeerId) -> State:
        """What ``peer`` is to us."""
        one = self._all.get(peer)
        return one.state if one is not None else State.ABSENT

    def in_state(self, *states: State) -> tuple[PeerId, ...]:
        """The candidates in any of ``states``, in the order of their ids."""
        return tuple(sorted(peer for peer, one in self._all.items() if one.state in states))

    def step(self, peer: PeerId, happened: Input, now: Instant) -> None:
        """Take one transition; at the bound, a stranger that is only rumoured is not taken in."""
        before = self.state(peer)
        state = TABLE[before, happened]
        if state is State.ABSENT:
            self._all.pop(peer, None)
            return
        one = self._all.get(peer)
        if one is None:
            if state is State.KNOWN and len(self._all) >= CANDIDATES_PER_ARTICLE_MAX:
                return
            one = self._all[peer] = _Candidate(state, now, now)
        one.state = state
        self._settle(peer, one, before, happened, now)

    def _settle(self, peer: PeerId, one: _Candidate, before: State, happened: Input, now: Instant) -> None:
        if happened in (Input.FOUND, Input.JOIN):
            one.until = after(now, CANDIDATE_LIFE_S * SECOND)
        if happened is Input.JOIN:
            one.failures = 0
            one.ours = before is State.ASKED or (before is State.JOINED and one.ours)
        elif one.state is State.ASKED and before is State.KNOWN:
            one.ready = after(now, _MEET_US)
        elif one.state is State.KNOWN and before in (State.ASKED, State.JOINED):
            one.failures += 1
            if one.failures >= _FAILURES_MAX:
                del self._all[peer]
            else:
                one.ready = after(now, _PAUSE_FIRST_US << (one.failures - 1))

    def expire(self, now: Instant) -> None:
        """Let meetings that were never answered lapse, and old rumours go."""
        for peer in sorted(self._all):
            one = self._all[peer]
            if (one.state is State.ASKED and one.ready <= now) or (one.state is State.KNOWN and one.until <= now):
                self.step(peer, Input.LAPSE, now)

    def choose(self, now: Instant) -> tuple[PeerId, ...]:
        """Whom to ask now; they count as asked from here on. Empty while there are neighbours enough."""
        wanted = self.wanted()
        if wanted == 0:
            return ()
        ready = [peer for peer, one in self._all.items() if one.state is State.KNOWN and one.ready <= now]
        chosen = sorted(ready, key=lambda peer: (self._all[peer].failures, self._order(peer)))[:wanted]
        for peer in chosen:
            self.step(peer, Input.CHOSEN, now)
        return tuple(chosen)

    def stroll(self, number: int, now: Instant) -> PeerId | None:
        """Whom to ask in round ``number`` although there are neighbours enough; he counts as asked. None when we are full, know
        nobody else, or have too few neighbours, who are ``choose``'s business.
        """
        if self.wanted() or self.full():
            return None
        ready = [peer for peer, one in self._all.items() if one.state is State.KNOWN and one.ready <= now]
        chosen = min(ready, key=lambda peer: self._draw(number, peer), default=None)
        if chosen is not None:
            self.step(chosen, Input.CHOSEN, now)
        return chosen

    def spare(self, number: int) -> tuple[PeerId, ...]:
        """Neighbours who may be let go in round ``number``, in the order of that round's draw; empty unless they are many."""
        joined = self.in_state(State.JOINED)
        return tuple(sorted(joined, key=lambda peer: self._draw(number, peer))) if len(joined) > NEIGHBOURS_EASY else ()

    def too_many(self, newest: PeerId, number: int) -> tuple[PeerId, ...]:
        """Whom the newest neighbour replaces when there are more than NEIGHBOURS_MAX, in the order of the draw. Never one whom we
        chose ourselves: strangers who come in numbers cannot drive those out.
        """
        if len(self.in_state(State.JOINED)) <= NEIGHBOURS_MAX:
            return ()
        theirs = [one for one in self.in_state(State.JOINED) if one != newest and not self._all[one].ours]
        return tuple(sorted(theirs, key=lambda peer: self._draw(number, peer)))

    def wanted(self) -> int:
        """How many more are to be asked: none while ``NEIGHBOURS_MIN`` are joined or asked."""
        return max(0, NEIGHBOURS_MIN - len(self.in_state(State.JOINED, State.ASKED)))

    def full(self) -> bool:
        """Whether no further neighbour should be let in."""
        return len(self.in_state(State.JOINED)) >= NEIGHBOURS_MAX

    def _order(self, peer: PeerId) -> bytes:
        return digest(self._context, self._rank, peer)

    def _draw(self, number: int, peer: PeerId) -> bytes:
        return digest(self._context, self._rank, peer, number.to_bytes(8, "big"))

    def deadline(self) -> Instant | None:
        """When ``expire`` or ``choose`` next has something to do."""
        may_ask = self.wanted() > 0
        moments = [one.ready for one in self._all.values() if one.state is State.ASKED or (one.state is State.KNOWN and may_ask)]
        moments += [one.until for one in self._all.values() if one.state is State.KNOWN]
        return min(moments, default=None)
