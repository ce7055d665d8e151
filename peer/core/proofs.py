"""Proofs of fraud as they travel: from neighbour to neighbour, each checked once by everybody and kept for a while.

    Have    ids of proofs that the sender has; said to all neighbours of a new one, and to a new neighbour of the latest ones
    Ask     send me this one
    Proof   the proof itself; never sent unasked

One proof for each account is kept, whoever made it: a second one says nothing new. A neighbour may offer so many in so much
time; what is over is dropped and can be asked for later from somebody else. Whoever sends what is no proof is to blame, for he
should have checked it himself. An account that is proven to be a fraud is avoided by our orders, as far as our own experience
leaves room on that list, and its bonds count for nothing. No book depends on any of this: its orders are valid like all others.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final

from peer.core.bundle import NotProven
from peer.core.events import Notice, Post
from peer.core.fraud import FRAUD, Fraud, check_fraud, fraud_id, words
from peer.core.letters import Lane, address
from wire.account import account_of, hash160
from wire.bucket import Bucket
from wire.canon import Choice, Hash32, Size, record
from wire.effects import Count, Save
from wire.errors import Ignore, Misbehaved
from wire.keys import PeerId
from wire.limits import (
    FRAUD_ANSWER_S,
    FRAUD_ASKED_MAX,
    FRAUD_ASKS_MAX,
    FRAUD_IDS_MAX,
    FRAUD_MAX_BYTES,
    FRAUD_PER_NEIGHBOUR_MAX,
    FRAUDS_MAX,
    NEIGHBOURS_MAX,
)
from wire.moments import SECOND, Instant
from wire.network import Network

FRAUD_TABLE: Final = "fraud"
PROOF_LETTER_MAX_BYTES: Final = FRAUD_MAX_BYTES + 16


@record
class Have:
    """I have these proofs; ask for those that you lack."""

    proofs: Annotated[tuple[Hash32, ...], Size(1, FRAUD_IDS_MAX)]


@record
class Ask:
    """Send me this proof."""

    proof: Hash32


@record
class Proof:
    """The bytes of a proof that was asked for."""

    raw: Annotated[bytes, Size(1, FRAUD_MAX_BYTES)]


PROOFS: Final = Choice("proofs", {1: Have, 2: Ask, 3: Proof})


class Proofs:
    """All proofs that we know, by accused account; bounded, the oldest makes room."""

    TABLES: ClassVar[tuple[str, ...]] = (FRAUD_TABLE,)

    def __init__(self, network: Network) -> None:
        self._network = network
        self._raw: dict[bytes, bytes] = {}  # by id
        self._by_account: dict[bytes, tuple[bytes, str]] = {}  # id and words
        self._neighbours: dict[PeerId, Bucket] = {}
        self._asked: dict[tuple[bytes, PeerId], Instant] = {}
        self._dirty: dict[bytes, bytes | None] = {}

    def load(self, rows: Mapping[bytes, bytes]) -> None:
        """Take over the rows that the journal kept; what cannot be read any more is left out."""
        for name, raw in sorted(rows.items()):
            try:
                self._keep(name, raw, check_fraud(self._network, raw))
            except NotProven:
                self._dirty[name] = None
        self._dirty = {name: None for name, value in self._dirty.items() if value is None}

    # --- what we think of whom ----------------------------------------------------------------------------------------
    def against(self, public: bytes) -> str | None:
        """What is proven against an account, in words."""
        found = self._by_account.get(public)
        return None if found is None else found[1]

    def avoided(self) -> tuple[bytes, ...]:
        """Hashes of all proven accounts, the latest first."""
        return tuple(hash160(public) for public in reversed(self._by_account))

    def statement(self) -> list[dict[str, Any]]:
        """Every proof as plain values."""
        return [
            {"account": account_of(public), "proof": name.hex(), "says": said, "bytes": len(self._raw[name])}
            for public, (name, said) in self._by_account.items()
        ]

    # --- our own ------------------------------------------------------------------------------------------------------
    def publish(self, proof: Fraud) -> list[Any]:
        """Tell everybody of a proof that we have made; nothing happens when it is none, or not news."""
        raw = FRAUD.pack(proof)
        try:
            check_fraud(self._network, raw)
        except NotProven as error:
            return [Count(code=f"no-proof-{error.code}")]
        return self._learn(raw, proof, None)

    # --- neighbours ---------------------------------------------------------------------------------------------------
    def neighbour_up(self, peer: PeerId, now: Instant) -> list[Any]:
        """A new neighbour: tell him of the latest proofs."""
        while len(self._neighbours) >= 2 * NEIGHBOURS_MAX:
            del self._neighbours[next(iter(self._neighbours))]
        self._neighbours.setdefault(peer, Bucket(1, FRAUD_PER_NEIGHBOUR_MAX, now))
        latest = tuple(list(self._raw)[-FRAUD_IDS_MAX:])
        return [self._say(peer, Have(proofs=latest))] if latest else []

    def neighbour_down(self, peer: PeerId) -> None:
        """A neighbour has gone; what he was asked for may be asked of others."""
        self._neighbours.pop(peer, None)
        self._asked = {key: at for key, at in self._asked.items() if key[1] != peer}

    def hear(self, peer: PeerId, letter: Have | Ask | Proof, now: Instant) -> list[Any]:
        """One letter about proofs. Raises ``Ignore`` or ``Misbehaved``."""
        budget = self._neighbours.get(peer)
        if budget is None:
            raise Ignore("no-neighbour", "a letter about proofs by somebody who is no neighbour")
        if not budget.spend(1, now):
            raise Ignore("proof-budget", "a neighbour speaks of more proofs than we listen to")
        match letter:
            case Have():
                return self._have(peer, letter, now)
            case Ask():
                raw = self._raw.get(letter.proof)
                return [] if raw is None else [self._say(peer, Proof(raw=raw))]
            case Proof():
                return self._proof(peer, letter)

    def _have(self, peer: PeerId, letter: Have, now: Instant) -> list[Any]:
        """Ask for what is not here: two neighbours at most for one proof, and one neighbour for a few at a time."""
        self._asked = {key: at for key, at in self._asked.items() if at + FRAUD_ANSWER_S * SECOND > now}
        effects = []
        for name in letter.proofs:
            same = sum(one == name for one, _ in self._asked)
            his = sum(one == peer for _, one in self._asked)
            if name not in self._raw and (name, peer) not in self._asked and same < FRAUD_ASKED_MAX and his < FRAUD_ASKS_MAX:
                self._asked[name, peer] = now
                effects.append(self._say(peer, Ask(proof=name)))
        return effects

    def _proof(self, peer: PeerId, letter: Proof) -> list[Any]:
        name = fraud_id(self._network, letter.raw)
        if self._asked.pop((name, peer), None) is None:
            raise Misbehaved("unasked-proof", "a proof that he was not asked for", penalty=20)
        try:
            proof = check_fraud(self._network, letter.raw)
        except NotProven as error:
            raise Misbehaved("false-proof", f"an accusation that proves nothing: {error.sentence}", penalty=50) from None
        return self._learn(letter.raw, proof, peer)

    def _learn(self, raw: bytes, proof: Fraud, teller: PeerId | None) -> list[Any]:
        if proof.seller in self._by_account:
            return [Count(code="proof-again")]
        name = fraud_id(self._network, raw)
        self._keep(name, raw, proof)
        facts = {"account": account_of(proof.seller), "proof": name.hex(), "reason": words(proof)}
        told = [self._say(peer, Have(proofs=(name,))) for peer in self._neighbours if peer != teller]
        return [Notice(kind="fraud", facts=facts), *told]

    @staticmethod
    def _say(peer: PeerId, letter: Have | Ask | Proof) -> Post:
        return Post(peer=peer, letter=address(Lane.PROOF, PROOFS.pack(letter)))

    # --- rows ---------------------------------------------------------------------------------------------------------
    def _keep(self, name: bytes, raw: bytes, proof: Fraud) -> None:
        self._raw[name] = raw
        self._by_account[proof.seller] = (name, words(proof))
        self._dirty[name] = raw
        while len(self._by_account) > FRAUDS_MAX:
            public = next(iter(self._by_account))
            oldest, _ = self._by_account.pop(public)
            del self._raw[oldest]
            self._dirty[oldest] = None

    def drain(self) -> tuple[Save, ...]:
        """The rows that changed since the last call."""
        rows = tuple(Save(table=FRAUD_TABLE, key=key, value=value) for key, value in sorted(self._dirty.items()))
        self._dirty.clear()
        return rows
