"""A party's half of a dispute: what we ask of arbiters, and what we make of their rulings.

    asked     our appeal is on its way; said again at every block and reconnect until the arbiter answers
    heard     the arbiter has it
    refused   he will not rule, and why; asking again is possible
    ruled     a ruling is here and we complete it; broadcast again at every block until the escrow is spent
    declined  a ruling is here that is worse than what our own papers give; we do not complete it
    ended     the escrow is spent

When the other party has appealed we are told, and answer with what our own books say. We complete a ruling that gives us no
less than those books do, or that we asked for ourselves; the seller of a channel whose signed states are worth more closes with
them, as always.
"""

import dataclasses
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, ClassVar, Final

from escrow.core.channel import Channel
from escrow.core.events import Submit, TipSeen
from escrow.core.opening import AnyChannel
from escrow.core.ruling import complete_ruling, is_ruling
from escrow.core.seller import SellerChannel
from escrow.core.state import Raw
from peer.core.bundle import Bundle, ChannelPart, seal_lies
from peer.core.court import COURT, Appeal, Code, Heard, Ruling, Statement, Summons, clip
from peer.core.events import AppealAsked, Notice, Post, Reply
from peer.core.letters import Lane, address
from wire.canon import U63, pack, record, unpack
from wire.effects import Save
from wire.errors import Ignore, Misbehaved, Refused
from wire.keys import PeerId, SecretKey, peer_id_of
from wire.limits import APPEAL_BUNDLES_MAX, APPEALS_MAX, EVIDENCE_MAX_BYTES
from wire.money import MSAT_PER_SAT

APPEAL_TABLE: Final = "appeal"


class AppealPhase(StrEnum):
    """Where an appeal of ours stands."""

    ASKED = "asked"
    HEARD = "heard"
    REFUSED = "refused"
    RULED = "ruled"
    DECLINED = "declined"
    ENDED = "ended"


class AppealStep(StrEnum):
    """What can happen to it."""

    ASK = "ask"
    HEAR = "hear"
    REFUSE = "refuse"
    RULE = "rule"
    DECLINE = "decline"
    END = "end"


_WAITING: Final = {
    AppealStep.ASK: AppealPhase.ASKED,
    AppealStep.HEAR: AppealPhase.HEARD,
    AppealStep.REFUSE: AppealPhase.REFUSED,
    AppealStep.RULE: AppealPhase.RULED,
    AppealStep.DECLINE: AppealPhase.DECLINED,
    AppealStep.END: AppealPhase.ENDED,
}
APPEAL_STEPS: Final[dict[AppealPhase, dict[AppealStep, AppealPhase]]] = {
    AppealPhase.ASKED: _WAITING,
    AppealPhase.HEARD: _WAITING,
    AppealPhase.REFUSED: {one: to for one, to in _WAITING.items() if one is not AppealStep.HEAR},
    AppealPhase.RULED: {AppealStep.END: AppealPhase.ENDED},
    AppealPhase.DECLINED: {AppealStep.RULE: AppealPhase.RULED, AppealStep.END: AppealPhase.ENDED},
    AppealPhase.ENDED: {},
}


@record
class OwnAppeal:
    """One channel that we have an appeal for (table ``appeal``, key channel). ``ours``: we asked first, of our own will."""

    phase: AppealPhase
    ours: bool
    to_seller_sat: U63
    statement: Statement
    code: Code
    sentence: Statement
    ruling: Ruling | None
    raw: Raw


Evidence = Callable[[bytes], list[Bundle]]


class Appeals:
    """Our appeals by channel. ``channels`` are the purse's; ``evidence`` finds the bundles that were paid through a channel."""

    TABLES: ClassVar[tuple[str, ...]] = (APPEAL_TABLE,)

    def __init__(self, key: SecretKey, channels: Callable[[], Mapping[bytes, AnyChannel]], evidence: Evidence) -> None:
        self._key = key
        self._channels = channels
        self._evidence = evidence
        self._height = 0
        self.rows: dict[bytes, OwnAppeal] = {}
        self._dirty: dict[bytes, bytes | None] = {}

    def load(self, rows: Mapping[bytes, bytes]) -> None:
        """Take over the rows that the journal kept."""
        self.rows = {key: unpack(OwnAppeal, raw) for key, raw in sorted(rows.items())}

    # --- asking -------------------------------------------------------------------------------------------------------
    def ask(self, event: AppealAsked) -> list[Any]:
        """The owner appeals."""
        try:
            channel = self._party(event.channel)
            if event.channel not in self.rows and len(self.rows) >= APPEALS_MAX:
                self._make_room()
            to_seller = _own_books_sat(channel) if event.to_seller_sat is None else event.to_seller_sat
            if to_seller > channel.row.terms.capacity_sat:
                raise Refused("bad-amount", f"this channel holds {channel.row.terms.capacity_sat} sat")
            known = self.rows.get(event.channel)
            if known is not None and AppealStep.ASK not in APPEAL_STEPS[known.phase]:
                raise Refused("already-ruled", f"this channel has its ruling: {known.sentence}")
        except Refused as refusal:
            return [Reply(request=event.request, result=None, code=refusal.code, sentence=refusal.sentence)]
        self._begin(event.channel, to_seller, clip(event.statement), ours=True)
        return [*self._say(event.channel), Reply(request=event.request, result=None, code="", sentence="")]

    def _party(self, name: bytes) -> AnyChannel:
        channel = self._channels().get(name)
        if channel is None:
            raise Refused("unknown-channel", "this node has no such channel")
        if channel.row.terms.arbiter is None:
            raise Refused(
                "no-arbiter", "the parties agreed on no arbiter for this channel; the buyer can take his refund in time"
            )
        if channel.funding is None or channel.row.opened_signature is None or channel.row.ending is not None:
            raise Refused("not-open", "there is no money in this channel to rule on")
        return channel

    def _begin(self, name: bytes, to_seller_sat: int, statement: str, *, ours: bool) -> None:
        appeal = OwnAppeal(
            phase=AppealPhase.ASKED,
            ours=ours,
            to_seller_sat=to_seller_sat,
            statement=statement,
            code="asked",
            sentence="the appeal is on its way to the arbiter",
            ruling=None,
            raw=b"",
        )
        self._keep(name, appeal)

    def _make_room(self) -> None:
        for name, row in self.rows.items():
            if row.phase is AppealPhase.ENDED:
                del self.rows[name]
                self._dirty[name] = None
                return
        raise Refused("appeals-full", f"{APPEALS_MAX} appeals wait already")

    def _say(self, name: bytes) -> list[Any]:
        """The appeal as a letter, while it still makes sense."""
        channel, row = self._channels().get(name), self.rows[name]
        if channel is None or channel.funding is None or channel.row.opened_signature is None:
            return []
        terms = channel.row.terms
        part = ChannelPart(
            terms=terms,
            open_signature=channel.row.open_signature,
            opened_signature=channel.row.opened_signature,
            funding=channel.row.funding or b"",
        )
        bundles = best(self._evidence(name))
        letter = Appeal(channel=part, to_seller_sat=row.to_seller_sat, statement=row.statement, bundles=bundles)
        return [Post(peer=peer_id_of(terms.arbiter or b""), letter=address(Lane.COURT, COURT.pack(letter)))]

    # --- letters ------------------------------------------------------------------------------------------------------
    def hear(self, peer: PeerId, letter: Heard | Summons | Ruling) -> list[Any]:
        """What an arbiter says about a channel of ours. Raises ``Ignore`` or ``Misbehaved``."""
        channel = self._channels().get(letter.channel)
        if channel is None or channel.row.terms.arbiter is None:
            raise Ignore("unknown-channel", "an arbiter speaks of a channel that is not ours")
        if peer != peer_id_of(channel.row.terms.arbiter):
            raise Misbehaved("not-the-arbiter", "a ruling or a summons by somebody who is not the arbiter", penalty=50)
        match letter:
            case Heard():
                step = AppealStep.REFUSE if letter.refused else AppealStep.HEAR
                return self._move(letter.channel, step, letter.code, letter.sentence)
            case Summons():
                return self._summoned(letter, channel)
            case Ruling():
                return self._ruled(letter, channel)

    def _summoned(self, letter: Summons, channel: AnyChannel) -> list[Any]:
        if channel.funding is None or channel.row.ending is not None:
            raise Ignore("nothing-to-rule", "a summons about a channel that is over")
        if letter.channel not in self.rows:
            if len(self.rows) >= APPEALS_MAX:
                raise Ignore("appeals-full", "there are as many appeals as we keep")
            self._begin(letter.channel, _own_books_sat(channel), "what our own books say", ours=False)
        return self._say(letter.channel)

    def _ruled(self, letter: Ruling, channel: AnyChannel) -> list[Any]:
        funding = channel.funding
        if funding is None or channel.row.ending is not None:
            raise Ignore("nothing-to-rule", "a ruling about a channel that is over")
        if not is_ruling(channel.contract, funding, letter.to_seller_sat, letter.to_buyer_sat, letter.signature):
            raise Misbehaved("wrong-signature", "a ruling that its arbiter did not sign", penalty=50)
        row = self.rows.get(letter.channel)
        if row is not None and row.ruling is not None:
            if row.ruling != letter:
                raise Misbehaved("second-ruling", "an arbiter ruled twice on one channel", penalty=50)
            return self._submit(row)
        if row is None:
            self._begin(letter.channel, _own_books_sat(channel), "", ours=False)
        row = self.rows[letter.channel]
        if not self._acceptable(row, letter, channel):
            self._keep(letter.channel, dataclasses.replace(row, ruling=letter))
            sentence = f"a ruling gives the seller {letter.to_seller_sat} sat; our own papers are worth more to us"
            return self._move(letter.channel, AppealStep.DECLINE, "declined", sentence)
        whole = complete_ruling(channel.contract, funding, letter.to_seller_sat, letter.to_buyer_sat, letter.signature, self._key)
        self._keep(letter.channel, dataclasses.replace(row, ruling=letter, raw=whole.serialise()))
        sentence = f"{letter.to_seller_sat} sat to the seller, {letter.to_buyer_sat} sat to the buyer: {letter.reason}"
        told = self._move(letter.channel, AppealStep.RULE, "ruled", clip(sentence))
        return [*told, *self._submit(self.rows[letter.channel])]

    @staticmethod
    def _acceptable(row: OwnAppeal, letter: Ruling, channel: AnyChannel) -> bool:
        books = _own_books_sat(channel)
        if isinstance(channel, SellerChannel):
            return letter.to_seller_sat >= books or (row.ours and channel.row.revealed_msat == 0)
        return row.ours or letter.to_seller_sat <= books

    def _submit(self, row: OwnAppeal) -> list[Any]:
        return [Submit(raw=row.raw, purpose="ruling")] if row.raw and row.phase is AppealPhase.RULED else []

    # --- time ---------------------------------------------------------------------------------------------------------
    def tip_seen(self, event: TipSeen) -> list[Any]:
        """A new best block: end what is over, say again what is owed."""
        news = event.height != self._height
        self._height = event.height
        effects: list[Any] = []
        for name in list(self.rows):
            channel = self._channels().get(name)
            if self.rows[name].phase is AppealPhase.ENDED:
                continue
            if channel is None or channel.row.ending is not None:
                effects += self._move(name, AppealStep.END, "ended", "the escrow is spent")
            elif news:
                effects += self._again(name)
        return effects

    def closed(self, name: bytes) -> list[Any]:
        """A channel has ended."""
        return self._move(name, AppealStep.END, "ended", "the escrow is spent")

    def _again(self, name: bytes) -> list[Any]:
        row = self.rows[name]
        if row.phase is AppealPhase.RULED:
            return self._submit(row)
        return self._say(name) if row.phase is AppealPhase.ASKED else []

    def peer_up(self, peer: PeerId) -> list[Any]:
        """An arbiter can be reached: say what he may not have, and ask how it stands."""
        effects: list[Any] = []
        for name, row in self.rows.items():
            channel = self._channels().get(name)
            arbiter = None if channel is None else channel.row.terms.arbiter
            if arbiter is not None and peer_id_of(arbiter) == peer and row.phase in (AppealPhase.ASKED, AppealPhase.HEARD):
                effects += self._say(name)
        return effects

    # --- rows ---------------------------------------------------------------------------------------------------------
    def _move(self, name: bytes, step: AppealStep, code: str, sentence: str) -> list[Any]:
        row = self.rows.get(name)
        phase = None if row is None else APPEAL_STEPS[row.phase].get(step)
        if row is None or phase is None:
            return []
        self._keep(name, dataclasses.replace(row, phase=phase, code=code, sentence=sentence))
        return [Notice(kind="appeal", facts={"channel": name.hex(), "phase": phase.value, "reason": sentence})]

    def _keep(self, name: bytes, row: OwnAppeal) -> None:
        self.rows[name] = row
        self._dirty[name] = pack(row)

    def drain(self) -> tuple[Save, ...]:
        """The rows that changed since the last call."""
        rows = tuple(Save(table=APPEAL_TABLE, key=key, value=value) for key, value in sorted(self._dirty.items()))
        self._dirty.clear()
        return rows

    def statement(self) -> list[dict[str, Any]]:
        """Every appeal as plain values."""
        return [
            {
                "channel": name.hex(),
                "phase": row.phase.value,
                "reason": row.sentence,
                "asks_sat": row.to_seller_sat,
                "to_seller_sat": None if row.ruling is None else row.ruling.to_seller_sat,
                "to_buyer_sat": None if row.ruling is None else row.ruling.to_buyer_sat,
            }
            for name, row in self.rows.items()
        ]


def _own_books_sat(channel: Channel) -> int:
    """What the seller has earned by our own books: the balance of which the key was given."""
    return channel.row.revealed_msat // MSAT_PER_SAT


def best(bundles: list[Bundle]) -> tuple[Bundle, ...]:
    """The evidence that goes with an appeal: the highest balances, of one batch what was bad first, as many as a letter holds."""
    ranked = sorted(bundles, key=lambda one: (-(one.payment.paid_sat if one.payment else 0), not _is_bad(one)))
    chosen: list[Bundle] = []
    room = EVIDENCE_MAX_BYTES
    for one in ranked:
        room -= len(pack(one))
        if room < 0 or len(chosen) == APPEAL_BUNDLES_MAX:
            break
        chosen.append(one)
    return tuple(chosen)


def _is_bad(bundle: Bundle) -> bool:
    """Whether evidence of ours speaks against the seller: we keep the ciphertexts of bad results only."""
    return bundle.cipher is not None or seal_lies(bundle)
