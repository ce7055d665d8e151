"""The directory: who trades an article, found through a Kademlia that keeps nothing but "ask me" records.

An article's key is ``digest(context(network, "article"), article)``. For an article that is announced, the record is renewed
every ``REANNOUNCE_S``, sooner when the network around us grows while it is still small, and never faster than one record per
``PROVIDE_INTERVAL_S``, because receivers drop what comes faster without a word. For an article that is sought, the
directory looks again after one second, then two, up to half a minute, as long as it has too few neighbours; a new
connection starts that over. What it finds are candidates (``dht.core.candidates``); it asks to ``Meet`` as many as are
missing. Once a minute the mesh of an article takes a step. Prices, quantities and anything else of value are never in
the DHT.
"""

from dataclasses import dataclass
from typing import Final, assert_never

from dht.core.candidates import Candidates
from dht.core.candidates import Input as Happened
from dht.core.candidates import State as CandidateState
from dht.core.errand import Errand, Input
from dht.core.events import (
    Announce,
    Effect,
    Event,
    Failed,
    Find,
    Found,
    Joined,
    Left,
    Meet,
    Part,
    PeerDown,
    PeerUp,
    Provide,
    Provided,
    Seek,
    Stop,
    Tick,
)
from wire.digest import context, digest
from wire.effects import Count
from wire.keys import PeerId
from wire.limits import (
    ARTICLE_MAX_CHARS,
    BOOKS_MAX,
    LOOKUP_TIMEOUT_S,
    MESH_ROUND_S,
    MESH_STEP_S,
    NEIGHBOURS_MIN,
    PROVIDE_INTERVAL_S,
    REANNOUNCE_S,
    SEEK_FIRST_S,
    SEEK_MAX_S,
)
from wire.moments import SECOND, Instant, after

_RECORD_HOLDERS: Final = 20
"""A record goes to the 20 closest peers, so with fewer connections a new peer is worth a new record."""
_GROWTH_US: Final = 2 * SECOND
_CALM_US: Final = 5 * SECOND
_ANSWER_US: Final = 4 * LOOKUP_TIMEOUT_S * SECOND


def article_key(network_name: str, article: str) -> bytes:
    """The 32-byte key of an article on one network."""
    return digest(context(network_name, "article"), article.encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class ArticleView:
    """How the directory stands with one article."""

    article: str
    announced: bool
    sought: bool
    candidates: int
    neighbours: tuple[PeerId, ...]


@dataclass(slots=True)
class _Entry:
    article: str
    candidates: Candidates
    round_at: Instant
    announcing: Errand | None = None
    seeking: Errand | None = None
    look_again_us: int = SEEK_FIRST_S * SECOND
    round: int = 0


def _errand(now: Instant, soon_us: int) -> Errand:
    return Errand(
        due=now,
        soon_us=soon_us,
        pause_first_us=SEEK_FIRST_S * SECOND,
        pause_max_us=SEEK_MAX_S * SECOND,
        answer_us=_ANSWER_US,
    )


class Directory:
    """The policy for all articles of one node on one network. Pure; see ``handle``."""

    def __init__(self, me: PeerId, network_name: str) -> None:
        self._me = me
        self._network = network_name
        self._entries: dict[bytes, _Entry] = {}
        self._connected: set[PeerId] = set()
        self._next_record = Instant(0)
        self._next_step = Instant(0)
        self._hurried_at: Instant | None = None

    # --- what others may ask -------------------------------------------------------------------------------

    def articles(self) -> tuple[ArticleView, ...]:
        """Every article the directory is busy with, by name."""
        views = [
            ArticleView(
                article=entry.article,
                announced=entry.announcing is not None,
                sought=entry.seeking is not None,
                candidates=len(entry.candidates.in_state(CandidateState.KNOWN, CandidateState.ASKED)),
                neighbours=entry.candidates.in_state(CandidateState.JOINED),
            )
            for entry in self._entries.values()
        ]
        return tuple(sorted(views, key=lambda view: view.article))

    def next_deadline(self) -> Instant | None:
        """When a ``Tick`` is due."""
        moments: list[Instant] = []
        for entry in self._entries.values():
            if entry.announcing is not None:
                moments.append(Instant(max(entry.announcing.due, self._next_record)))
            if entry.seeking is not None:
                moments.append(entry.seeking.due)
                if not entry.candidates.wanted():
                    moments.append(Instant(max(entry.round_at, self._next_step)))
                waiting = entry.candidates.deadline()
                if waiting is not None:
                    moments.append(waiting)
        return min(moments, default=None)

    # --- events --------------------------------------------------------------------------------------------

    def handle(self, event: Event, now: Instant) -> tuple[Effect, ...]:
        """Take in one event. Never raises for anything a peer can cause."""
        first: list[Effect] = []
        match event:
            case Announce() | Seek():
                first += self._begin(event, now)
            case Stop(article=article):
                self._entries.pop(article_key(self._network, article), None)
            case Provided(key=key):
                self._answered(key, Input.DONE, now, announcing=True)
            case Found(key=key, peers=peers):
                self._found(key, peers, now)
            case Failed(key=key, announcing=announcing):
                self._answered(key, Input.FAILED, now, announcing=announcing)
                first.append(Count(code="announce-failed" if announcing else "look-failed"))
            case PeerUp(peer=peer):
                self._on_up(peer, now)
            case PeerDown(peer=peer):
                self._connected.discard(peer)
                for entry in self._entries.values():
                    if entry.candidates.state(peer) is CandidateState.JOINED:
                        self._left(entry, peer, now)
            case Joined(peer=peer, article=article):
                entry_or_none = self._entries.get(article_key(self._network, article))
                if entry_or_none is not None:
                    first += self._joined(entry_or_none, peer, now)
            case Left(peer=peer, article=article):
                entry_or_none = self._entries.get(article_key(self._network, article))
                if entry_or_none is not None:
                    self._left(entry_or_none, peer, now)
            case Tick():
                pass
            case _:
                assert_never(event)
        return (*first, *self._due(now))

    def _begin(self, event: Announce | Seek, now: Instant) -> tuple[Count, ...]:
        key = article_key(self._network, event.article)
        entry = self._entries.get(key)
        if entry is None:
            if len(self._entries) >= BOOKS_MAX or not 0 < len(event.article) <= ARTICLE_MAX_CHARS:
                return (Count(code="articles-over-bound"),)
            candidates = Candidates(context(self._network, "meet"), self._me + key)
            entry = self._entries[key] = _Entry(event.article, candidates, after(now, MESH_ROUND_S * SECOND))
        if isinstance(event, Announce) and entry.announcing is None:
            entry.announcing = _errand(now, _GROWTH_US)
        if isinstance(event, Seek) and entry.seeking is None:
            entry.seeking = _errand(now, SEEK_FIRST_S * SECOND)
        return ()

    def _answered(self, key: bytes, answer: Input, now: Instant, *, announcing: bool) -> None:
        entry = self._entries.get(key)
        errand = None if entry is None else entry.announcing if announcing else entry.seeking
        if entry is not None and errand is not None:
            errand.step(answer, now, REANNOUNCE_S * SECOND if announcing else entry.look_again_us)

    def _found(self, key: bytes, peers: tuple[PeerId, ...], now: Instant) -> None:
        entry = self._entries.get(key)
        if entry is None:
            return
        for peer in peers:
            if peer != self._me:
                entry.candidates.step(peer, Happened.FOUND, now)
        enough = len(entry.candidates.in_state(CandidateState.JOINED)) >= NEIGHBOURS_MIN
        rest_us = REANNOUNCE_S * SECOND if enough else entry.look_again_us
        entry.look_again_us = min(2 * entry.look_again_us, SEEK_MAX_S * SECOND)
        if entry.seeking is not None:
            entry.seeking.step(Input.DONE, now, rest_us)

    def _joined(self, entry: _Entry, peer: PeerId, now: Instant) -> list[Part]:
        """A neighbour more; where they are too many, another from outside makes room."""
        entry.candidates.step(peer, Happened.JOIN, now)
        crowd = entry.candidates.too_many(peer, entry.round)
        return [Part(peer=one) for one in crowd if self._spares(one)][:1]

    def _left(self, entry: _Entry, peer: PeerId, now: Instant) -> None:
        joined = entry.candidates.state(peer) is CandidateState.JOINED
        entry.candidates.step(peer, Happened.LEAVE, now)
        if joined and entry.candidates.wanted() and entry.seeking is not None:
            self._look_soon(entry, now)

    def _look_soon(self, entry: _Entry, now: Instant) -> None:
        if entry.seeking is not None:
            entry.look_again_us = SEEK_FIRST_S * SECOND
            entry.seeking.step(Input.HURRY, now)

    def _on_up(self, peer: PeerId, now: Instant) -> None:
        """The network grew. Hurry what is affected, but in a crowd of newcomers only every few seconds."""
        self._connected.add(peer)
        if self._hurried_at is not None and now < after(self._hurried_at, _CALM_US):
            return
        self._hurried_at = now
        for entry in self._entries.values():
            if entry.candidates.wanted():
                self._look_soon(entry, now)
            if entry.announcing is not None and len(self._connected) <= _RECORD_HOLDERS:
                entry.announcing.step(Input.HURRY, now)

    # --- what is due ---------------------------------------------------------------------------------------

    def _due(self, now: Instant) -> tuple[Effect, ...]:
        effects: list[Effect] = []
        # The longest overdue record goes first, or with many articles the greatest keys would never have a turn.
        announcing = [(entry.announcing.due, key, entry.announcing) for key, entry in self._entries.items() if entry.announcing]
        for due, key, errand in sorted(announcing, key=lambda one: one[:2]):
            if due <= now and self._next_record <= now and errand.step(Input.DUE, now):
                self._next_record = after(now, PROVIDE_INTERVAL_S * SECOND)
                effects.append(Provide(key=key))
        for key in sorted(self._entries):
            entry = self._entries[key]
            if entry.seeking is None:
                continue
            if entry.seeking.due <= now and entry.seeking.step(Input.DUE, now):
                effects.append(Find(key=key))
            entry.candidates.expire(now)
            effects += [Meet(peer=peer, article=entry.article) for peer in entry.candidates.choose(now)]
        return (*effects, *self._step_mesh(now))

    def _step_mesh(self, now: Instant) -> list[Effect]:
        """One article's round, the most overdue's; the others' wait, so that many articles cost no more than few."""
        if now < self._next_step:
            return []
        moving = [(one.round_at, key) for key, one in self._entries.items() if one.seeking and not one.candidates.wanted()]
        due = [one for one in moving if one[0] <= now]
        if not due:
            return []
        entry = self._entries[min(due)[1]]
        self._next_step = after(now, MESH_STEP_S * SECOND)
        entry.round, entry.round_at = entry.round + 1, after(now, MESH_ROUND_S * SECOND)
        effects: list[Effect] = []
        peer = entry.candidates.stroll(entry.round, now)
        if peer is not None:
            effects.append(Meet(peer=peer, article=entry.article))
        spare = next((one for one in entry.candidates.spare(entry.round) if self._spares(one)), None)
        return effects if spare is None else [*effects, Part(peer=spare)]

    def _spares(self, peer: PeerId) -> bool:
        """Whether every article that ``peer`` is a neighbour for has neighbours enough without him."""
        shared = [one for one in self._entries.values() if one.candidates.state(peer) is CandidateState.JOINED]
        return all(len(one.candidates.in_state(CandidateState.JOINED)) > NEIGHBOURS_MIN for one in shared)
