"""The seller's half of every trade: from a signed match to the key that earns the money.

A unit's worker slot is taken while it is ACCEPTED to WORKING; from OFFERED on it costs only disk. What we offer to the market is
at most twice the free slots, so that data of the next unit moves while one computes.
"""

import dataclasses
from collections.abc import Collection
from typing import Any, Final

from peer.core.batches import BATCH_PURPOSE, HeldBatch, batch_key, batch_ref, make_batch
from peer.core.deal import BEFORE_MONEY, Deal, Phase, Role, Step, new_unit, split_unit_key
from peer.core.events import (
    Computed,
    ComputeFailed,
    DrainAsked,
    Encrypt,
    Encrypted,
    Fetched,
    FetchFailed,
    Interest,
    PeerDown,
    PeerUp,
    RevealWanted,
    SellAsked,
    SellStopped,
    SlotsChanged,
)
from peer.core.keys import lock_of, result_key, ticket_for
from peer.core.ledger import NEVER, say
from peer.core.letters import DRAINING, Batch, Bind, DealLetter, Gather, Taken, Task, Withdraw, Working
from peer.core.sales import Sales, owner_of, refusal_of
from peer.core.terms import check_article
from wire.canon import pack
from wire.envelope import id_of
from wire.errors import Ignore, Misbehaved, Refused
from wire.keys import PeerId, peer_id_of, public_of
from wire.limits import BATCHES_UNPAID_MAX
from wire.moments import SECOND, Instant

_UNPAID: Final = (Phase.TRANSMITTING, Phase.WORKING, Phase.OFFERED)
_UNDONE: Final = (Phase.ACCEPTED, Phase.FUNDED, Phase.TRANSMITTING, Phase.WORKING)
_DRAINING: Final = "the seller is shutting down and hands this unit back"
THANKS_S: Final = 5  # a buyer who has the key and says nothing for so long is not waited for


class Selling(Sales):
    """All our sales. Methods return effects; ``ledger`` and ``stalls`` are for the brain to read."""

    # --- what is on offer ---------------------------------------------------------------------------------------------
    def offer(self, event: SellAsked, now: Instant) -> list[Any]:
        """Open or change a stall. Raises ``Refused``."""
        check_article(event.article)
        if self.draining:
            raise Refused("shutting-down", "the node is shutting down")
        self.stalls.put(event)
        return [Interest(article=event.article), *self._compute_next(now)]

    def resize(self, event: SlotsChanged, now: Instant) -> list[Any]:
        """A worker can do more or fewer units at a time."""
        self.stalls.resize(event.worker, event.slots)
        return self._compute_next(now)

    def stop(self, event: SellStopped, now: Instant) -> list[Any]:
        """Close a stall; what was agreed is finished, if there is anybody to finish it."""
        self.stalls.close(event.worker, gone=event.gone)
        return self._compute_next(now)

    def drain(self, event: DrainAsked, now: Instant) -> list[Any]:
        """The node is about to stop: sell nothing more and hand back what no worker has begun."""
        self.draining = True
        for stall in self.stalls.all():
            self.stalls.close(stall.worker, gone=False)
        effects: list[Any] = []
        for key in self.ledger.in_phase(*_UNDONE):
            if self.ledger.units[key].lock is None and (event.all_of_it or key not in self._computing):
                effects += self._refuse(key, Step.REJECT, now, DRAINING, _DRAINING)
        return effects

    def unfinished(self, here: Collection[PeerId], now: Instant) -> int:
        """How many units it pays to wait for before stopping: those of buyers who are ``here``; others will wait for us."""
        count = 0
        for key in self.ledger.in_phase(*BEFORE_MONEY, Phase.COMMITTED, Phase.REVEALED):
            unit = self.ledger.units[key]
            stale = unit.phase is Phase.REVEALED and unit.changed_us + THANKS_S * SECOND < now
            count += not stale and peer_id_of(self.ledger.deal_of(key).other) in here
        return count

    # --- a match ------------------------------------------------------------------------------------------------------
    def agreed(self, deal: Deal, now: Instant) -> list[Any]:
        """Both sides signed: wait for the tasks and the money."""
        if deal.deal in self.ledger.deals:
            return []
        self.ledger.put_deal(deal)
        deadline = Instant(now + self._terms(deal.free).fund_s * SECOND)
        for number in range(deal.quantity):
            self.ledger.put_unit(new_unit(deal.deal, number, request=0, now=now, deadline_us=deadline))
        if not self.draining:
            return []
        keys = [key for key, _ in self.ledger.units_of(deal.deal)]
        return [effect for key in keys for effect in self._refuse(key, Step.REJECT, now, DRAINING, _DRAINING)]

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
        self._unpaid_batches.pop(channel, None)
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
            case Gather():
                return self._gather(peer, letter)
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
                return [say(deal, refusal_of(unit))]
            return []
        if letter.size > self._terms(deal.free).work_max_bytes:
            return self._refuse(key, Step.REJECT, now, "too-large", "this work is larger than the terms allow")
        self.ledger.change(key, now, work=letter.work, work_bytes=letter.size, work_ticket=letter.ticket)
        return self._begin(letter.deal, now)

    # --- the work -----------------------------------------------------------------------------------------------------
    def _begin(self, deal: bytes, now: Instant) -> list[Any]:
        """Fetch the tasks of a deal whose money is in sight: in a paid one as many as we do unpaid for this buyer at a time."""
        held = self.ledger.deals[deal]
        if not held.free and held.channel not in self._ready:
            return []
        terms = self._terms(held.free)
        patience = Instant(now + (terms.fetch_s + terms.work_s * (held.quantity + 1)) * SECOND)
        effects: list[Any] = []
        for key, unit in list(self.ledger.units_of(deal)):
            if unit.phase is Phase.ACCEPTED and unit.work is not None:
                sentence = "nothing is to be paid" if held.free else "the money is seen"
                self.ledger.move(key, Step.FUND, now, "funded", sentence, deadline_us=patience)
            if self.ledger.units[key].phase is Phase.FUNDED and (held.free or self._may_begin(held)):
                deadline = Instant(now + terms.fetch_s * SECOND)
                self.ledger.move(key, Step.TRANSMIT, now, "fetching", "the work is being fetched", deadline_us=deadline)
                effects.append(self._fetch(key))
        return effects

    def _may_begin(self, deal: Deal) -> bool:
        """Whether one unit more of unpaid work for this buyer stays within what we risk with him."""
        others = [self.ledger.deal_of(key) for key in self.ledger.in_phase(*_UNPAID)]
        prices = [one.price_msat for one in others if one.other == deal.other and not one.free]
        return self._exposure.in_flight(deal.other).fits([*prices, deal.price_msat]) > len(prices)

    def _begin_more(self, buyer: bytes, now: Instant) -> list[Any]:
        """A unit of this buyer is paid or over: another may begin."""
        if self.draining:
            return []
        waiting = {key[:32] for key in self.ledger.in_phase(Phase.FUNDED)}
        deals = sorted(one for one in waiting if self.ledger.deals[one].other == buyer)
        return [effect for one in deals for effect in self._begin(one, now)]

    def _leave(self, key: bytes, how: Step, now: Instant, code: str, sentence: str) -> list[Any]:
        effects = super()._leave(key, how, now, code, sentence)
        return [*effects, *self._begin_more(self.ledger.deal_of(key).other, now)] if effects else []

    def fetched(self, event: Fetched, now: Instant) -> list[Any]:
        """The work is here: compute it when a worker is free."""
        unit = self.ledger.units.get(event.unit)
        if unit is None or unit.phase is not Phase.TRANSMITTING or unit.work != event.content:
            return []
        late = Instant(now + 2 * self._terms(self.ledger.deal_of(event.unit).free).work_s * SECOND)
        self.ledger.move(event.unit, Step.WORK, now, "queued", "the work waits for a free worker", deadline_us=late)
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

    def computed(self, event: Computed, now: Instant) -> list[Any]:
        """The result is in the store: encrypt it under a key of its own."""
        unit = self.ledger.units.get(event.unit)
        self._computing.pop(event.unit, None)
        if unit is None or unit.phase is not Phase.WORKING:
            return self._compute_next(now)
        key = result_key(self._key, event.unit, event.plain)
        self.ledger.change(event.unit, now, plain=event.plain, lock=lock_of(key), key=key)
        encrypt = Encrypt(unit=event.unit, plain=event.plain, key=key, owner=owner_of(event.unit))
        return [encrypt, *self._compute_next(now)]

    def compute_failed(self, event: ComputeFailed, now: Instant) -> list[Any]:
        """The worker gave no result."""
        self._computing.pop(event.unit, None)
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

    # --- the money ----------------------------------------------------------------------------------------------------
    def locked(self, channel: bytes, ref: bytes, lock: bytes, amount_msat: int, now: Instant) -> list[Any]:
        """A payment for ``ref`` is locked to ``lock`` and safe: give the key. Anything else is not our unit's payment."""
        held = self.ledger.batches.get(ref)
        if held is not None:
            return self._batch_locked(channel, ref, held, (lock, amount_msat), now)
        unit = self.ledger.units.get(ref)
        if unit is None or unit.key is None:
            return []
        deal = self.ledger.deal_of(ref)
        if deal.channel != channel or unit.lock != lock or amount_msat < deal.price_msat:
            return []
        reveal = RevealWanted(channel=channel, unit=ref, key=unit.key)
        if unit.phase is Phase.OFFERED:
            self._sold(ref, now)
            return [reveal, *self._begin_more(deal.other, now)]
        return [reveal] if unit.phase in (Phase.COMMITTED, Phase.REVEALED, Phase.FINISHED) else []

    def _sold(self, key: bytes, now: Instant) -> None:
        self.ledger.move(key, Step.COMMIT, now, "committed", "the buyer's payment is locked to the key")
        self.ledger.move(key, Step.REVEAL, now, "revealed", "the key was given for the payment", deadline_us=NEVER)
        self._exposure.finished(self.ledger.deal_of(key).other)

    def _gather(self, peer: PeerId, letter: Gather) -> list[Any]:
        """Put results that wait for their payment under one key. Raises ``Ignore`` or ``Misbehaved``."""
        units, amount_msat = [], 0
        for name in letter.units:
            key = self.ledger.held_with(peer, *split_unit_key(name))
            unit, deal = self.ledger.units[key], self.ledger.deal_of(key)
            if deal.channel != letter.channel or deal.free:
                raise Misbehaved("wrong-gather", "results of another channel were to be put under one key", penalty=20)
            if unit.phase is not Phase.OFFERED or unit.lock is None or unit.key is None:
                raise Ignore("late-gather", "a result that does not wait for its payment was to be put under one key")
            units.append((key, unit.lock, unit.key))
            amount_msat += deal.price_msat
        if len({key for key, _, _ in units}) != len(units):
            raise Misbehaved("wrong-gather", "a result was named twice", penalty=20)
        body = make_batch(self._key, self._network, letter.channel, units, amount_msat)
        ref = batch_ref(self._network, body)
        signature = self._key.sign(id_of(self._network.name, BATCH_PURPOSE, pack(body)))
        self.ledger.put_batch(ref, HeldBatch(role=Role.SELLER, other=public_of(peer), body=body, signature=signature))
        unpaid = [one for one in self._unpaid_batches.pop(letter.channel, []) if one != ref]
        for old in unpaid[: max(0, len(unpaid) + 1 - BATCHES_UNPAID_MAX)]:
            self.ledger.drop_batch(old)
        self._unpaid_batches[letter.channel] = [*unpaid, ref][-BATCHES_UNPAID_MAX:]
        return [say(self.ledger.deal_of(units[0][0]), Batch(body=body, signature=signature))]

    def _batch_locked(self, channel: bytes, ref: bytes, held: HeldBatch, paid: tuple[bytes, int], now: Instant) -> list[Any]:
        """The sum of a batch is locked: its one key opens all."""
        body = held.body
        units = [self.ledger.units[one.unit] for one in body.units]
        if body.channel != channel or body.lock != paid[0] or paid[1] < body.amount_msat:
            return []
        unpaid = self._unpaid_batches.get(channel, [])
        self._unpaid_batches[channel] = [one for one in unpaid if one != ref]
        for one, unit in zip(body.units, units, strict=True):
            if unit.phase is Phase.OFFERED:
                self._sold(one.unit, now)
        named = [(one.unit, unit.lock or b"") for one, unit in zip(body.units, units, strict=True)]
        reveal = RevealWanted(channel=channel, unit=ref, key=batch_key(self._key, channel, named))
        return [reveal, *self._begin_more(held.other, now)]

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
            if unit.phase in (Phase.ACCEPTED, Phase.OFFERED) and not self.ledger.deal_of(key).free:
                self._exposure.fault(self.ledger.deal_of(key).other, now)
            if unit.phase is Phase.ACCEPTED:
                effects += self._refuse(key, Step.MISS, now, "not-funded", "the money was not seen in time")
            elif unit.phase is Phase.FUNDED:
                effects += self._refuse(key, Step.TIME_OUT, now, "no-turn", "its turn did not come in time")
            elif unit.phase is Phase.OFFERED:
                effects += self._refuse(key, Step.TIME_OUT, now, "not-paid", "the buyer did not pay for the result in time")
            elif unit.phase is Phase.WORKING:
                effects += self._refuse(key, Step.TIME_OUT, now, "no-worker", "no worker became free for it in time")
            else:
                effects += self._refuse(key, Step.TIME_OUT, now, "timed-out", "the work could not be fetched in time")
        return effects

    def next_deadline(self) -> Instant | None:
        """When ``tick`` has something to do."""
        return self.ledger.next_deadline()

    def resume(self, now: Instant) -> list[Any]:
        """After a restart: fetch again (what the store has is not sent again), compute again, offer again."""
        effects: list[Any] = []
        for ref, held in sorted(self.ledger.batches.items()):
            if any(self.ledger.units[one.unit].phase is Phase.OFFERED for one in held.body.units):
                self._unpaid_batches.setdefault(held.body.channel, []).append(ref)
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
