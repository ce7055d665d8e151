"""The life of one unit of work, as one table that buyer and seller both obey.

Theory of operation. A deal is one Match: ``quantity`` units at one price between two accounts. Each unit has a phase of its
own. Before the match there is only the buyer's request (PLACED). The auction finds a counterpart (MATCHED), both sign
(ACCEPTED), the money is seen on the chain (FUNDED; in a free book at once). Then the seller fetches the work (TRANSMITTING),
computes it (WORKING), and offers the encrypted result (OFFERED). The buyer fetches the ciphertext and signs a payment locked to
the key (COMMITTED), the seller reveals the key (REVEALED), the buyer opens the result and it is what was promised (FINISHED).

A step that does not stand in a phase's row changes nothing: it came late, twice or from a liar. The side exits are final
and each carries a reason in words. Only COMMITTED units can cost money, and they have no exit but the key, the proof of a bad
result, or the channel's own end: what was locked is then decided by the escrow and never by goodwill.
"""

from enum import StrEnum
from typing import Annotated, Final

from peer.core.letters import Code, Sentence, Ticket
from wire.canon import U16, U63, Hash32, Public33, Range, Signature64, Size, record
from wire.limits import ARTICLE_MAX_CHARS, CONTENT_MAX_BYTES, PRICE_MAX_MSAT, QUANTITY_MAX


class Phase(StrEnum):
    """Where a unit stands."""

    PLACED = "placed"
    MATCHED = "matched"
    ACCEPTED = "accepted"
    FUNDED = "funded"
    TRANSMITTING = "transmitting"
    WORKING = "working"
    OFFERED = "offered"
    COMMITTED = "committed"
    REVEALED = "revealed"
    FINISHED = "finished"
    EXPIRED = "expired"
    DECLINED = "declined"
    NO_SHOW = "no-show"
    WORK_REJECTED = "work-rejected"
    TIMED_OUT = "timed-out"
    RESULT_DISPUTED = "result-disputed"
    REFUNDED = "refunded"
    WITHDRAWN = "withdrawn"


class Step(StrEnum):
    """What can happen to a unit."""

    MATCH = "match"
    ACCEPT = "accept"
    FUND = "fund"
    TRANSMIT = "transmit"
    WORK = "work"
    OFFER = "offer"
    COMMIT = "commit"
    REVEAL = "reveal"
    FINISH = "finish"
    EXPIRE = "expire"
    DECLINE = "decline"
    MISS = "miss"
    REJECT = "reject"
    TIME_OUT = "time-out"
    DISPUTE = "dispute"
    REFUND = "refund"
    WITHDRAW = "withdraw"


_BEFORE_OFFER: Final = {
    Step.REJECT: Phase.WORK_REJECTED,
    Step.TIME_OUT: Phase.TIMED_OUT,
    Step.WITHDRAW: Phase.WITHDRAWN,
}

TRANSITIONS: Final[dict[Phase, dict[Step, Phase]]] = {
    Phase.PLACED: {Step.MATCH: Phase.MATCHED, Step.EXPIRE: Phase.EXPIRED, Step.WITHDRAW: Phase.WITHDRAWN},
    Phase.MATCHED: {
        Step.ACCEPT: Phase.ACCEPTED,
        Step.DECLINE: Phase.DECLINED,
        Step.MISS: Phase.NO_SHOW,
        Step.WITHDRAW: Phase.WITHDRAWN,
    },
    Phase.ACCEPTED: {Step.FUND: Phase.FUNDED, Step.MISS: Phase.NO_SHOW, **_BEFORE_OFFER},
    Phase.FUNDED: {
        Step.TRANSMIT: Phase.TRANSMITTING,
        Step.WORK: Phase.WORKING,
        Step.OFFER: Phase.OFFERED,
        **_BEFORE_OFFER,
    },
    Phase.TRANSMITTING: {Step.WORK: Phase.WORKING, Step.OFFER: Phase.OFFERED, **_BEFORE_OFFER},
    Phase.WORKING: {Step.OFFER: Phase.OFFERED, **_BEFORE_OFFER},
    Phase.OFFERED: {Step.COMMIT: Phase.COMMITTED, **_BEFORE_OFFER},
    Phase.COMMITTED: {Step.REVEAL: Phase.REVEALED, Step.REFUND: Phase.REFUNDED},
    Phase.REVEALED: {Step.FINISH: Phase.FINISHED, Step.DISPUTE: Phase.RESULT_DISPUTED},
    Phase.FINISHED: {},
    Phase.EXPIRED: {},
    Phase.DECLINED: {},
    Phase.NO_SHOW: {},
    Phase.WORK_REJECTED: {},
    Phase.TIMED_OUT: {},
    Phase.RESULT_DISPUTED: {},
    Phase.REFUNDED: {},
    Phase.WITHDRAWN: {},
}

FINAL: Final = frozenset(phase for phase, row in TRANSITIONS.items() if not row)
BEFORE_MONEY: Final = frozenset(
    {Phase.ACCEPTED, Phase.FUNDED, Phase.TRANSMITTING, Phase.WORKING, Phase.OFFERED},
)


def step(phase: Phase, event: Step) -> Phase | None:
    """The phase after ``event``, or None when the table has no such step."""
    return TRANSITIONS[phase].get(event)


class Role(StrEnum):
    """Which side of a deal we are."""

    BUYER = "buyer"
    SELLER = "seller"


@record
class Deal:
    """One Match as one party keeps it (journal table ``deal``, key ``deal``). Money in millisatoshi per unit."""

    deal: Hash32
    role: Role
    other: Public33
    article: Annotated[str, Size(1, ARTICLE_MAX_CHARS)]
    free: bool
    price_msat: Annotated[int, Range(0, PRICE_MAX_MSAT)]
    quantity: Annotated[int, Range(1, QUANTITY_MAX)]
    epoch: U63
    channel: Hash32 | None
    agreed_us: U63


@record
class Unit:
    """One unit of a deal (journal table ``unit``, key deal + unit).

    ``request`` is the buyer's local request number, 0 for sellers; ``deadline_us`` is when this phase has lasted too long;
    ``key`` is only ever our own (seller) or already paid (buyer).
    """

    deal: Hash32
    unit: U16
    phase: Phase
    code: Code
    sentence: Sentence
    request: U63
    work: Hash32 | None
    work_bytes: Annotated[int, Range(0, CONTENT_MAX_BYTES)]
    work_ticket: Ticket | None
    plain: Hash32 | None
    cipher: Hash32 | None
    cipher_bytes: Annotated[int, Range(0, CONTENT_MAX_BYTES + 4_096)]
    cipher_ticket: Ticket | None
    lock: Hash32 | None
    key: Hash32 | None
    offer_signature: Signature64 | None
    changed_us: U63
    deadline_us: U63


def new_unit(deal: bytes, unit: int, *, request: int, now: int, deadline_us: int) -> Unit:
    """A unit that both have just signed for."""
    return Unit(
        deal=deal,
        unit=unit,
        phase=Phase.ACCEPTED,
        code="accepted",
        sentence="both sides signed the match",
        request=request,
        work=None,
        work_bytes=0,
        work_ticket=None,
        plain=None,
        cipher=None,
        cipher_bytes=0,
        cipher_ticket=None,
        lock=None,
        key=None,
        offer_signature=None,
        changed_us=now,
        deadline_us=deadline_us,
    )


def unit_key(deal: bytes, unit: int) -> bytes:
    """34 bytes naming one unit: its journal key, and the reference of its payment in a channel."""
    return deal + unit.to_bytes(2, "big")


def split_unit_key(key: bytes) -> tuple[bytes, int]:
    """The deal and the unit number inside ``unit_key``."""
    return key[:32], int.from_bytes(key[32:], "big")
