"""What both ends of a channel share: the law of steps, the look at the chain, and what is owed to the peer.

Theory of operation. A channel stands in one ``Phase``. Its table says for every phase which events it takes, by which
method, and where that may lead; everything else is counted by name and changes nothing. Letters move a channel forward, but
only the chain decides what is true of money: whenever the funding output, the conditional output or the tip is seen to
change, ``escrow.core.sight`` compares the phase with the whole of what the chain shows now and corrects it, in either
direction. So a reorganisation needs no events of its own: what was confirmed and is no longer simply looks different.

    no funding on the chain       FUNDED     the buyer broadcasts it again
    funding there and unspent     OPEN       or CLOSING, REFUNDING, while a close or refund is on its way
    spent by a conditional state  CLAIMING   until its output is claimed or lapses
    spent by anything else        CLOSING    until confirmed; then CLOSED, and BURIED when no reorganisation is feared

A handler that raises leaves no trace: the row is put back and the peer is blamed or the event counted.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, TypeAlias

from escrow.core.contract import Branch, contract_of
from escrow.core.events import (
    Effect,
    Event,
    Letter,
    LetterIn,
    Pay,
    PayFailed,
    Phase,
    PhaseChanged,
    Submit,
    Watch,
)
from escrow.core.messages import AnyLetter, Letters, read_letter
from escrow.core.signer import StateSigner
from escrow.core.state import CHANNEL_TABLE, ChannelRow
from escrow.core.transaction import read_outpoint
from wire.canon import pack
from wire.effects import Blame, Count, Save
from wire.errors import Ignore, InvariantBroken, Misbehaved, require
from wire.keys import PeerId, SecretKey, peer_id_of
from wire.limits import LETTER_RESEND_MAX_S, LETTER_RESEND_S
from wire.moments import SECOND, Instant, after
from wire.network import Network
from wire.ports import OutInfo, OutPoint


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One entry of a table: the method that takes the event, and the phases it may lead to besides the present one."""

    method: str
    to: tuple[Phase, ...] = ()


Table: TypeAlias = Mapping[Phase, Mapping[type, Step]]


class Channel:
    """One end of a channel; see ``BuyerChannel`` and ``SellerChannel``."""

    table: ClassVar[Table] = {}

    def __init__(self, key: SecretKey, network: Network, row: ChannelRow) -> None:
        self.network = network
        self.row = row
        self.contract = contract_of(network.name, row.terms)
        self.peer: PeerId = peer_id_of(row.terms.seller if key.public == row.terms.buyer else row.terms.buyer)
        self._key = key
        self._coop = self.contract.secret(key, Branch.COOPERATE)
        self._states: StateSigner | None = None
        self._funding_raw: bytes | None = None
        self._funding: OutPoint | None = None
        self._now = Instant(0)
        self._effects: list[Effect] = []
        self._height: int | None = None
        self._feerate = 0
        self._seen: dict[OutPoint, OutInfo | None] = {}
        self._watching: set[OutPoint] = set()
        self._told_ready = False
        self._resend_at: Instant | None = None
        self._resend_s = LETTER_RESEND_S
        self._wait_until: Instant | None = None

    # --- what others may ask -----------------------------------------------------------------------------------

    @property
    def channel(self) -> bytes:
        """The 32-byte id."""
        return self.contract.channel

    @property
    def phase(self) -> Phase:
        """Where it stands."""
        return self.row.phase

    @property
    def funding(self) -> OutPoint | None:
        """The escrow's output, once known."""
        raw = self.row.funding
        if raw is not self._funding_raw:
            self._funding_raw, self._funding = raw, None if raw is None else read_outpoint(raw)
        return self._funding

    @property
    def watched(self) -> frozenset[OutPoint]:
        """The outputs whose ``OutpointSeen`` belong to this channel."""
        return frozenset(self._watching)

    @property
    def free_msat(self) -> int:
        """What can still be paid through it, waiting payments taken off."""
        waiting = sum(one.amount_msat for one in self.row.queue)
        return max(0, self.contract.usable_msat - self.row.paid_msat - waiting)

    @property
    def serves_until(self) -> int:
        """The height from which no new payment is made: two margins before someone else may spend the escrow."""
        return self._deadline - 2 * self.network.margin_blocks

    @property
    def usable(self) -> bool:
        """Whether new payments are still taken."""
        early = self._height is None or self._height < self.serves_until
        return early and not self.row.closing and self.phase in (Phase.OFFERED, Phase.FUNDING, Phase.FUNDED, Phase.OPEN)

    def next_deadline(self) -> Instant | None:
        """When ``Tick`` is due."""
        return min((one for one in (self._resend_at, self._wait_until) if one is not None), default=None)

    # --- events ------------------------------------------------------------------------------------------------

    def handle(self, event: Event, now: Instant) -> tuple[Effect, ...]:
        """Take one event. Nothing a peer sends raises."""
        before = self.row
        self._effects, self._now = [], now
        try:
            self._step(event)
        except Misbehaved as error:
            if not isinstance(event, LetterIn):
                raise InvariantBroken("bad-local-event", f"{type(event).__name__}: {error.sentence}") from error
            self.row = before
            blame = Blame(peer=event.peer, code=error.code, sentence=error.sentence, penalty=error.penalty)
            self._effects = [Count(code=error.code), blame]
        except Ignore as error:
            self.row = before
            self._effects = [Count(code=error.code)]
        return self._finish(before)

    def begin(self, now: Instant, sentence: str) -> tuple[Effect, ...]:
        """The first effects of a new channel."""
        self._effects, self._now = [], now
        self._effects.append(Save(table=CHANNEL_TABLE, key=self.channel, value=pack(self.row)))
        self._effects.append(PhaseChanged(channel=self.channel, phase=self.phase, sentence=sentence))
        self._tell_again()
        for letter in self._owed():
            self._send(letter)
        return self._finish(self.row)

    def resume(self, now: Instant) -> tuple[Effect, ...]:
        """After a restart or a reconnect: everything that our state still owes to the peer, the chain and the deals."""
        before = self.row
        self._effects, self._now = [], now
        self._resend_s = LETTER_RESEND_S
        if self.phase is Phase.BURIED:
            self._tell_again()  # the end and the burial may be seen in one look, and a kill then swallows the news of both
        else:
            if self.funding is not None:
                self._watch(self.funding, again=True)
            for outpoint in sorted(self._watching - {self.funding}, key=lambda one: (one.txid, one.vout)):
                self._watch(outpoint, again=True)
            self._tell_again()
            self._resend()
        return self._finish(before)

    def _step(self, event: Event) -> None:
        subject: Event | AnyLetter = event
        if isinstance(event, LetterIn):
            subject = self._read(event)
        step = self.table[self.phase].get(type(subject))
        if step is None:
            self._unexpected(subject)
            return
        start = self.phase
        getattr(self, step.method)(subject)
        if self.phase is not start:
            lawful = self.phase in step.to
            require(lawful, "unlawful-step", f"{start.value} went to {self.phase.value} by {type(subject).__name__}")

    def _read(self, event: LetterIn) -> AnyLetter:
        if event.peer != self.peer:
            raise Misbehaved("not-a-party", "a letter about a channel came from someone who has no part in it", penalty=20)
        letter = read_letter(event.payload)
        if letter.channel != self.channel:
            raise Ignore("other-channel", "the letter is about another channel")
        return letter

    def _unexpected(self, subject: Any) -> None:
        if isinstance(subject, Pay):
            self._refuse_pay(subject.ref, "closed", "the channel takes no more payments")
        else:
            self._effects.append(Count(code=f"unexpected-{type(subject).__name__.lower()}"))

    def _finish(self, before: ChannelRow) -> tuple[Effect, ...]:
        if self._owed() or self._missing():
            if self._resend_at is None:
                self._resend_at = after(self._now, self._resend_s * SECOND)
        else:
            self._resend_at, self._resend_s = None, LETTER_RESEND_S
        saves: list[Effect] = []
        if self.row is not before:
            saves.append(Save(table=CHANNEL_TABLE, key=self.channel, value=pack(self.row)))
        effects, self._effects = (*saves, *self._effects), []
        return effects

    # --- small tools of the handlers ---------------------------------------------------------------------------

    def _change(self, **fields: Any) -> None:
        row = self.row
        for name, value in fields.items():
            if getattr(row, name) != value:
                self.row = dataclasses.replace(row, **fields)
                return

    def _enter(self, phase: Phase, sentence: str) -> None:
        if phase is not self.phase:
            self._change(phase=phase)
            self._effects.append(PhaseChanged(channel=self.channel, phase=phase, sentence=sentence))

    def _send(self, letter: AnyLetter) -> None:
        self._effects.append(Letter(peer=self.peer, payload=Letters.pack(letter)))

    def _submit(self, raw: bytes, purpose: str) -> None:
        if raw:
            self._effects.append(Submit(raw=raw, purpose=purpose))

    def _watch(self, outpoint: OutPoint, *, again: bool = False) -> None:
        if again or outpoint not in self._watching:
            self._watching.add(outpoint)
            self._effects.append(Watch(outpoint=outpoint))

    def _refuse_pay(self, ref: bytes, code: str, sentence: str) -> None:
        self._effects.append(PayFailed(channel=self.channel, ref=ref, code=code, sentence=sentence))

    def _wait(self, seconds: int) -> None:
        self._wait_until = after(self._now, seconds * SECOND)

    def _waited(self) -> bool:
        """Whether the running wait is over; it is asked for once."""
        if self._wait_until is None or self._now < self._wait_until:
            return False
        self._wait_until = None
        return True

    def _resend(self) -> None:
        """Send again what is owed, each time after a longer pause."""
        for letter in self._owed():
            self._send(letter)
        self._resubmit()
        self._resend_at = after(self._now, self._resend_s * SECOND)
        self._resend_s = min(2 * self._resend_s, LETTER_RESEND_MAX_S)

    def _resubmit(self) -> None:
        for raw, purpose in self._missing():
            self._submit(raw, purpose)

    def _tick_resend(self) -> None:
        if self._resend_at is not None and self._now >= self._resend_at:
            self._resend()

    @property
    def _deadline(self) -> int:
        return self.row.terms.ruling_height or self.row.terms.refund_height

    def _rate(self) -> int:
        """The fee rate for transactions of our own: the going one, never under the agreed one, never over the clamp."""
        agreed = self.row.terms.feerate_sat_per_kvb
        return max(agreed, min(self._feerate, self.network.feerate_max_sat_per_kvb))

    def _deep(self, height: int | None) -> bool:
        """Whether a block at ``height`` has the confirmations the network asks for."""
        return height is not None and max(self._height or 0, height) - height + 1 >= self.network.confirmations

    def _confirmed(self) -> bool:
        info = None if self.funding is None else self._seen.get(self.funding)
        return info is not None and self._deep(info.height)

    def _signer(self) -> StateSigner:
        """What signs and checks the states of this escrow; made again only when its funding is another."""
        funding = self.funding
        require(funding is not None, "no-funding", "a state without an escrow")
        assert funding is not None
        if self._states is None or self._states.funding != funding:
            self._states = StateSigner(self.contract, funding)
        return self._states

    # --- for the two roles -------------------------------------------------------------------------------------

    def _owed(self) -> list[AnyLetter]:
        """Letters that the peer has, by our state, not yet acted on."""
        raise NotImplementedError

    def _missing(self) -> list[tuple[bytes, str]]:
        """Transactions that should be on the chain and are not, with their purpose, parents first."""
        raise NotImplementedError

    def _tell_again(self) -> None:
        """Effects for our own deals that a crash may have lost; sets the waits again."""
