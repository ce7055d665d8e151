"""The seller's half of every trade: from a signed match to the key that earns the money.

A unit's worker slot is taken while it is ACCEPTED to WORKING; from OFFERED on it costs only disk. What we offer to the market is
at most twice the free slots, so that data of the next unit moves while one computes.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from peer.core.deal import BEFORE_MONEY, Deal, Phase, Role, Step, Unit, new_unit, split_unit_key
from peer.core.events import (
    Compute,
    Computed,
    ComputeFailed,
    Encrypt,
    Encrypted,
    Fetch,
    Fetched,
    FetchFailed,
    Grant,
    Interest,
    PeerDown,
    PeerUp,
    RevealWanted,
    Revoke,
    SellAsked,
    SellStopped,
    Stop,
    Unpin,
)
from peer.core.keys import lock_of, result_key, ticket_for
from peer.core.ledger import NEVER, Ledger, say
from peer.core.letters import (
    OFFER_PURPOSE,
    Bind,
    DealLetter,
    FreeKey,
    Offer,
    OfferBody,
    Taken,
    Task,
    Withdraw,
    Working,
    WorkRefused,
)
from peer.core.terms import Terms, check_article
from wire.canon import pack
from wire.envelope import id_of
from wire.errors import Misbehaved
from wire.keys import PeerId, SecretKey, peer_id_of
from wire.limits import REASON_MAX_CHARS, UNITS_PER_DEAL_MAX
from wire.moments import SECOND, Instant
from wire.network import Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """What we sell: ``slots`` workers called ``worker`` for ``article`` at ``ask_msat`` a unit."""

    article: str
    worker: str
    ask_msat: int
    slots: int
    open: bool


class Selling:
    """All our sales. Methods return effects; ``ledger`` and ``stalls`` are for the brain to read."""

    def __init__(self, key: SecretKey, network: Network, terms: Callable[[bool], Terms]) -> None:
        self._key = key
        self._network = network
        self._terms = terms
        self.ledger = Ledger()
        self.stalls: dict[str, Stall] = {}
        self.version = 0
        self._ready: set[bytes] = set()
        self._computing: set[bytes] = set()

    # --- what is on offer ---------------------------------------------------------------------------------------------
    def offer(self, event: SellAsked) -> list[Any]:
        """Open or change a stall."""
        check_article(event.article)
        self.version += 1
        self.stalls[event.article] = Stall(
            article=event.article, worker=event.worker, ask_msat=event.ask_msat, slots=event.slots, open=True
        )
        return [Interest(article=event.article)]

    def stop(self, event: SellStopped) -> list[Any]:
        """Close a stall; what was agreed is finished."""
        stall = self.stalls.get(event.article)
        if stall:
            self.version += 1
            self.stalls[event.article] = dataclasses.replace(stall, open=False)
        return []

    def wants(self) -> dict[tuple[str, int], int]:
        """Units we can take on by (article, ask): at most twice the free slots."""
        busy: dict[str, int] = {}
        for key in self.ledger.in_phase(Phase.ACCEPTED, Phase.FUNDED, Phase.TRANSMITTING, Phase.WORKING):
            article = self.ledger.deal_of(key).article
            busy[article] = busy.get(article, 0) + 1
        return {
            (stall.article, stall.ask_msat): min(UNITS_PER_DEAL_MAX, max(0, 2 * stall.slots - busy.get(stall.article, 0)))
            for stall in self.stalls.values()
            if stall.open
        }

    # --- a match ------------------------------------------------------------------------------------------------------
    def agreed(self, deal: Deal, now: Instant) -> list[Any]:
        """Both sides signed: wait for the tasks and the money."""
        if deal.deal in self.ledger.deals:
            return []
        self.ledger.put_deal(deal)
        deadline = Instant(now + self._terms(deal.free).fund_s * SECOND)
        for number in range(deal.quantity):
            self.ledger.put_unit(new_unit(deal.deal, number, request=0, now=now, deadline_us=deadline))
        return []

    def channel_ready(self, channel: bytes, now: Instant) -> list[Any]:
        """The funding of a channel is seen, with the right amount and script."""
        self._ready.add(channel)
        effects: list[Any] = []
        for deal in [one.deal for one in self.ledger.deals.values() if one.channel == channel]:
            effects += self._begin(deal, now)
        return effects

    def channel_closed(self, channel: bytes, now: Instant) -> list[Any]:
        """The channel is spent: nothing unpaid can be paid through it any more."""
        self._ready.discard(channel)
        effects: list[Any] = []
        for deal in [one.deal for one in self.ledger.deals.values() if one.channel == channel]:
            for key, unit in list(self.ledger.units_of(deal)):
                if unit.phase in BEFORE_MONEY:
                    effects += self._refuse(key, Step.TIME_OUT, now, "channel-closed", "the payment channel was closed")
                elif unit.phase is Phase.REVEALED:
                    effects += self._finish(key, now, "paid on the chain")
        return effects

    # --- letters from the buyer ---------------------------------------------------------------------------------------
    def hear(self, peer: PeerId, letter: DealLetter, now: Instant) -> list[Any]:
        """One letter of a deal we are the seller of. Raises ``Ignore`` or ``Misbehaved``."""
        match letter:
            case Bind():
                return self._bound(peer, letter, now)
            case Task():
                return self._task(peer, letter, now)
            case Taken():
                key = self.ledger.held_with(peer, letter.deal, letter.unit)
                if self.ledger.deal_of(key).free:
                    self.ledger.move(key, Step.COMMIT, now, "committed", "the buyer has the encrypted result")
                    self.ledger.move(key, Step.REVEAL, now, "revealed", "the key was given")
                return self._finish(key, now, "the buyer has the result")
            case Withdraw():
                key = self.ledger.held_with(peer, letter.deal, letter.unit)
                return self._leave(key, Step.WITHDRAW, now, letter.code, "the buyer no longer wants it")
            case _:
                raise Misbehaved("wrong-role", "a buyer sent what only sellers send", penalty=20)

    def _bound(self, peer: PeerId, letter: Bind, now: Instant) -> list[Any]:
        self.ledger.held_with(peer, letter.deal, 0)
        deal = self.ledger.deals[letter.deal]
        if deal.free != (letter.channel is None):
            raise Misbehaved("wrong-bind", "a deal bound to the wrong kind of payment", penalty=20)
        if deal.channel is None and letter.channel is not None:
            self.ledger.put_deal(dataclasses.replace(deal, channel=letter.channel))
        return self._begin(letter.deal, now)

    def _task(self, peer: PeerId, letter: Task, now: Instant) -> list[Any]:
        key = self.ledger.held_with(peer, letter.deal, letter.unit)
        deal, unit = self.ledger.deal_of(key), self.ledger.units[key]
        if unit.phase is Phase.OFFERED:
            return self._say_offer(key)
        if unit.work is not None or unit.phase is not Phase.ACCEPTED:
            if unit.phase in (Phase.TRANSMITTING, Phase.WORKING):
                return [say(deal, Working(deal=deal.deal, unit=unit.unit, begun=key in self._computing))]
            if unit.phase in (Phase.WORK_REJECTED, Phase.TIMED_OUT, Phase.NO_SHOW):
                return [say(deal, _refusal(unit))]
            return []
        if letter.size > self._terms(deal.free).work_max_bytes:
            return self._refuse(key, Step.REJECT, now, "too-large", "this work is larger than the terms allow")
        self.ledger.change(key, now, work=letter.work, work_bytes=letter.size, work_ticket=letter.ticket)
        return self._begin(letter.deal, now)

    # --- the work -----------------------------------------------------------------------------------------------------
    def _begin(self, deal: bytes, now: Instant) -> list[Any]:
        """Fetch every task of a deal whose money is in sight."""
        held = self.ledger.deals[deal]
        if not held.free and held.channel not in self._ready:
            return []
        terms = self._terms(held.free)
        effects: list[Any] = []
        for key, unit in list(self.ledger.units_of(deal)):
            if unit.phase is Phase.ACCEPTED and unit.work is not None:
                self.ledger.move(key, Step.FUND, now, "funded", "nothing is to be paid" if held.free else "the money is seen")
                deadline = Instant(now + terms.fetch_s * SECOND)
                self.ledger.move(key, Step.TRANSMIT, now, "fetching", "the work is being fetched", deadline_us=deadline)
                effects.append(self._fetch(key))
        return effects

    def _fetch(self, key: bytes) -> Fetch:
        unit = self.ledger.units[key]
        return Fetch(
            unit=key,
            peer=peer_id_of(self.ledger.deal_of(key).other),
            content=unit.work or b"",
            size=unit.work_bytes,
            ticket=unit.work_ticket or b"",
            owner=owner_of(key),
        )

    def fetched(self, event: Fetched, now: Instant) -> list[Any]:
        """The work is here: compute it when a worker is free."""
        unit = self.ledger.units.get(event.unit)
        if unit is None or unit.phase is not Phase.TRANSMITTING or unit.work != event.content:
            return []
        self.ledger.move(event.unit, Step.WORK, now, "queued", "the work waits for a free worker", deadline_us=NEVER)
        begun = self._compute_next(now)
        if event.unit in self._computing:
            return begun
        deal = self.ledger.deal_of(event.unit)
        return [*begun, say(deal, Working(deal=deal.deal, unit=unit.unit, begun=False))]

    def fetch_failed(self, event: FetchFailed, now: Instant) -> list[Any]:
        """The work could not be had."""
        unit = self.ledger.units.get(event.unit)
        if unit is None or unit.phase is not Phase.TRANSMITTING:
            return []
        return self._refuse(event.unit, Step.REJECT, now, event.code, event.sentence)

    def _compute_next(self, now: Instant) -> list[Any]:
        effects: list[Any] = []
        for key in sorted(self.ledger.in_phase(Phase.WORKING), key=lambda one: (self.ledger.units[one].changed_us, one)):
            if key in self._computing or self.ledger.units[key].lock is not None:
                continue
            deal = self.ledger.deal_of(key)
            stall = self.stalls.get(deal.article)
            if stall is None:
                effects += self._refuse(key, Step.REJECT, now, "no-worker", "no worker for this article is running here")
                continue
            running = sum(1 for one in self._computing if self.ledger.deal_of(one).article == deal.article)
            if running >= stall.slots:
                continue
            self._computing.add(key)
            work = self.ledger.change(key, now, code="working", sentence="a worker computes it").work
            effects.append(
                Compute(
                    unit=key, worker=stall.worker, work=work or b"", time_s=self._terms(deal.free).work_s, owner=owner_of(key)
                )
            )
            effects.append(say(deal, Working(deal=deal.deal, unit=split_unit_key(key)[1], begun=True)))
        return effects

    def computed(self, event: Computed, now: Instant) -> list[Any]:
        """The result is in the store: encrypt it under a key of its own."""
        unit = self.ledger.units.get(event.unit)
        self._computing.discard(event.unit)
        if unit is None or unit.phase is not Phase.WORKING:
            return self._compute_next(now)
        key = result_key(self._key, event.unit, event.plain)
        self.ledger.change(event.unit, now, plain=event.plain, lock=lock_of(key), key=key)
        encrypt = Encrypt(unit=event.unit, plain=event.plain, key=key, owner=owner_of(event.unit))
        return [encrypt, *self._compute_next(now)]

    def compute_failed(self, event: ComputeFailed, now: Instant) -> list[Any]:
        """The worker gave no result."""
        self._computing.discard(event.unit)
        refused = (
            self._refuse(event.unit, Step.REJECT, now, event.code, event.sentence) if event.unit in self.ledger.units else []
        )
        return refused + self._compute_next(now)

    def encrypted(self, event: Encrypted, now: Instant) -> list[Any]:
        """The ciphertext is in the store: sign the offer."""
        unit = self.ledger.units.get(event.unit)
        if unit is None or unit.phase is not Phase.WORKING or unit.lock is None:
            return []
        deal = self.ledger.deal_of(event.unit)
        self.ledger.move(
            event.unit,
            Step.OFFER,
            now,
            "offered",
            "the encrypted result waits for the buyer's payment" if not deal.free else "the result waits for the buyer",
            cipher=event.cipher,
            cipher_bytes=event.size,
            cipher_ticket=ticket_for(self._key, event.cipher, event.unit),
            deadline_us=Instant(now + (self._terms(deal.free).fetch_s + self._terms(deal.free).reveal_s) * SECOND),
        )
        return self._say_offer(event.unit)

    def _say_offer(self, key: bytes) -> list[Any]:
        unit, deal = self.ledger.units[key], self.ledger.deal_of(key)
        if not (unit.work and unit.cipher and unit.plain and unit.lock and unit.cipher_ticket and unit.key):
            return []
        body = OfferBody(
            deal=deal.deal,
            unit=unit.unit,
            work=unit.work,
            cipher=unit.cipher,
            plain=unit.plain,
            lock=unit.lock,
            price_msat=deal.price_msat,
        )
        signature = self._key.sign(id_of(self._network.name, OFFER_PURPOSE, pack(body)))
        offer = Offer(body=body, signature=signature, size=unit.cipher_bytes, ticket=unit.cipher_ticket)
        effects: list[Any] = [Grant(content=unit.cipher, ticket=unit.cipher_ticket), say(deal, offer)]
        if deal.free:
            effects.append(say(deal, FreeKey(deal=deal.deal, unit=unit.unit, key=unit.key)))
        return effects

    # --- the money ----------------------------------------------------------------------------------------------------
    def locked(self, channel: bytes, ref: bytes, lock: bytes, amount_msat: int, now: Instant) -> list[Any]:
        """A payment for ``ref`` is locked to ``lock`` and safe: give the key. Anything else is not our unit's payment."""
        unit = self.ledger.units.get(ref)
        if unit is None or unit.key is None:
            return []
        deal = self.ledger.deal_of(ref)
        if deal.channel != channel or unit.lock != lock or amount_msat < deal.price_msat:
            return []
        reveal = RevealWanted(channel=channel, unit=ref, key=unit.key)
        if unit.phase is Phase.OFFERED:
            self.ledger.move(ref, Step.COMMIT, now, "committed", "the buyer's payment is locked to the key")
            self.ledger.move(ref, Step.REVEAL, now, "revealed", "the key was given for the payment", deadline_us=NEVER)
            return [reveal]
        return [reveal] if unit.phase in (Phase.COMMITTED, Phase.REVEALED, Phase.FINISHED) else []

    # --- peers and time -----------------------------------------------------------------------------------------------
    def peer_down(self, event: PeerDown, now: Instant) -> list[Any]:
        """Nothing to hurry: what is computed can still be paid when the buyer is back."""
        return []

    def peer_up(self, event: PeerUp, now: Instant) -> list[Any]:
        """Say again what the buyer may have missed."""
        effects: list[Any] = []
        for key in self.ledger.in_phase(Phase.OFFERED, Phase.TRANSMITTING):
            if peer_id_of(self.ledger.deal_of(key).other) == event.peer:
                if self.ledger.units[key].phase is Phase.OFFERED:
                    effects += self._say_offer(key)
                else:
                    effects.append(self._fetch(key))
        return effects

    def tick(self, now: Instant) -> list[Any]:
        """Let go of deals that were not funded, and of results that nobody pays for."""
        effects: list[Any] = []
        for key in self.ledger.late(now):
            unit = self.ledger.units[key]
            if unit.phase is Phase.ACCEPTED:
                effects += self._refuse(key, Step.MISS, now, "not-funded", "the money was not seen in time")
            elif unit.phase is Phase.OFFERED:
                effects += self._refuse(key, Step.TIME_OUT, now, "not-paid", "the buyer did not pay for the result in time")
            else:
                effects += self._refuse(key, Step.TIME_OUT, now, "timed-out", "the work could not be fetched in time")
        return effects

    def next_deadline(self) -> Instant | None:
        """When ``tick`` has something to do."""
        return self.ledger.next_deadline()

    def resume(self, now: Instant) -> list[Any]:
        """After a restart: fetch again (what the store has is not sent again), compute again, offer again."""
        effects: list[Any] = []
        for key in self.ledger.in_phase(Phase.TRANSMITTING, Phase.WORKING, Phase.OFFERED):
            unit = self.ledger.units[key]
            deal = self.ledger.deal_of(key)
            deadline = Instant(now + self._terms(deal.free).fetch_s * SECOND)
            if unit.phase is Phase.TRANSMITTING:
                self.ledger.change(key, now, deadline_us=deadline)
                effects.append(self._fetch(key))
            elif unit.phase is Phase.OFFERED:
                effects += self._say_offer(key)
            elif unit.plain and unit.key:
                effects.append(Encrypt(unit=key, plain=unit.plain, key=unit.key, owner=owner_of(key)))
        return effects + self._compute_next(now)

    # --- endings ------------------------------------------------------------------------------------------------------
    def _finish(self, key: bytes, now: Instant, sentence: str) -> list[Any]:
        if self.ledger.move(key, Step.FINISH, now, "finished", sentence) is None:
            return []
        return self._release(key)

    def _refuse(self, key: bytes, how: Step, now: Instant, code: str, sentence: str) -> list[Any]:
        """Leave by a side exit that the buyer has to hear of."""
        effects = self._leave(key, how, now, code, sentence)
        if not effects:
            return []
        return [say(self.ledger.deal_of(key), _refusal(self.ledger.units[key])), *effects]

    def _leave(self, key: bytes, how: Step, now: Instant, code: str, sentence: str) -> list[Any]:
        if self.ledger.move(key, how, now, code, sentence) is None:
            return []
        self._computing.discard(key)
        return [Stop(unit=key), *self._release(key), *self._compute_next(now)]

    def _release(self, key: bytes) -> list[Any]:
        unit = self.ledger.units[key]
        effects: list[Any] = [Unpin(owner=owner_of(key))]
        if unit.cipher_ticket:
            effects.insert(0, Revoke(ticket=unit.cipher_ticket))
        return effects


def _refusal(unit: Unit) -> WorkRefused:
    return WorkRefused(deal=unit.deal, unit=unit.unit, code=unit.code[:40], sentence=unit.sentence[:REASON_MAX_CHARS])


def owner_of(key: bytes) -> str:
    """The name under which a unit pins content in the store."""
    return f"{Role.SELLER}:{key.hex()}"
