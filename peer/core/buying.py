"""The buyer's half of every trade: from a program's request to the result in its hands.

Participants: local programs (``BuyAsked``), the desk (agreed matches come in through ``agreed``), the purse (channels), the
seller (letters), and the driver that moves content. The table of ``peer.core.deal`` decides what may follow what.
"""

import dataclasses
from typing import Any

from peer.core.batches import sealed
from peer.core.deal import BEFORE_MONEY, Deal, Phase, Step, new_unit, unit_key
from peer.core.events import (
    Abandoned,
    BuyAsked,
    ChannelBound,
    ChannelFailed,
    ChannelWanted,
    Decrypt,
    Decrypted,
    Fetched,
    FetchFailed,
    Interest,
    PeerDown,
    PeerUp,
    Reply,
    Strike,
)
from peer.core.keys import lock_of, ticket_for
from peer.core.ledger import NEVER, say
from peer.core.letters import (
    OFFER_PURPOSE,
    Batch,
    DealLetter,
    FreeKey,
    Offer,
    SealedKey,
    Taken,
    Working,
    WorkRefused,
)
from peer.core.paying import Paying
from peer.core.purchases import owner_of
from peer.core.requests import Request
from peer.core.terms import check_article
from wire.canon import pack
from wire.envelope import id_of
from wire.errors import Ignore, Misbehaved, Refused
from wire.keys import PeerId, peer_id_of, verify
from wire.limits import CONTENT_MAX_BYTES
from wire.moments import SECOND, Instant

_GONE = "the seller has not been heard of for too long"


class Buying(Paying):
    """All our purchases. Methods return effects; ``ledger`` and ``requests`` are for the brain to read."""

    # --- requests -----------------------------------------------------------------------------------------------------
    def ask(self, event: BuyAsked, now: Instant) -> list[Any]:
        """Take a request, or refuse it at once."""
        try:
            check_article(event.article)
            if self.requests.full():
                raise Refused("inbox-full", "too many requests are waiting; ask again when some are done")
            if event.work_bytes > self._terms(event.bid_msat is None).work_max_bytes:
                raise Refused("too-large", f"this work has more than {CONTENT_MAX_BYTES} bytes")
        except Refused as refusal:
            return [Reply(request=event.request, result=None, code=refusal.code, sentence=refusal.sentence)]
        self.requests.put(
            Request(
                number=event.request,
                article=event.article,
                work=event.work,
                work_bytes=event.work_bytes,
                bid_msat=event.bid_msat,
                wait_us=event.wait_us,
                expires=Instant(now + event.wait_us),
                unit=None,
                attempts=0,
                bad_work=0,
                sentence="no auction has taken place yet",
                once=event.once,
            )
        )
        return [Interest(article=event.article)]

    def abandon(self, event: Abandoned, now: Instant) -> list[Any]:
        """Nobody waits for this any more; whatever costs nothing yet is withdrawn."""
        request = self.requests.drop(event.request)
        if request is None or request.unit is None:
            return []
        return self._leave(request.unit, Step.WITHDRAW, now, "abandoned", "the program that asked has hung up")

    # --- a match ------------------------------------------------------------------------------------------------------
    def agreed(self, deal: Deal, now: Instant) -> list[Any]:
        """Both sides signed: hand the waiting requests their units."""
        if deal.deal in self.ledger.deals:
            return []
        self.ledger.put_deal(deal)
        terms = self._terms(deal.free)
        waiting = self.requests.waiting(deal.article, deal.free, deal.price_msat)
        waiting, later = waiting[: deal.quantity], waiting[deal.quantity :]
        fund_by = Instant(now + terms.fund_s * SECOND)
        for number in range(deal.quantity):
            request = waiting[number] if number < len(waiting) else None
            unit = new_unit(deal.deal, number, request=request.number if request else 0, now=now, deadline_us=fund_by)
            self.ledger.put_unit(unit)
            if request:
                key = unit_key(deal.deal, number)
                self.requests.give(request.number, key)
                ticket = ticket_for(self._key, request.work, key)
                self.ledger.change(key, now, work=request.work, work_bytes=request.work_bytes, work_ticket=ticket)
        effects: list[Any] = []
        for number in range(len(waiting), deal.quantity):
            key = unit_key(deal.deal, number)
            effects += self._leave(key, Step.WITHDRAW, now, "not-needed", "the request was withdrawn before the match")
        if not waiting:
            return effects
        if deal.free:
            return effects + self._fund(deal.deal, now) + self._tasks(deal.deal, now)
        amount = deal.price_msat * len(waiting)
        return [
            *effects,
            ChannelWanted(
                deal=deal.deal,
                peer=peer_id_of(deal.other),
                amount_msat=amount,
                unit_msat=deal.price_msat,
                more_msat=deal.price_msat * len(later),
            ),
        ]

    def channel_bound(self, event: ChannelBound, now: Instant) -> list[Any]:
        """The purse has a channel for the deal: tell the seller, who starts once he sees the funding."""
        deal = self.ledger.deals.get(event.deal)
        if deal is None or self.ledger.is_over(event.deal):
            return []
        self.ledger.put_deal(dataclasses.replace(deal, channel=event.channel))
        if event.units is not None:
            return [*self._too_many(event.deal, event.units, now), *self._bound(event, now)]
        return self._bound(event, now)

    def _too_many(self, deal: bytes, units: int, now: Instant) -> list[Any]:
        """More money than we risk with this seller yet: what exceeds it is withdrawn and placed again; by then he is known."""
        effects: list[Any] = []
        live = [(key, unit) for key, unit in self.ledger.units_of(deal) if unit.phase is Phase.ACCEPTED]
        for key, unit in live[units:]:
            sentence = "more than we put into channels with this seller as yet"
            effects += [*self._leave(key, Step.WITHDRAW, now, "exposure", sentence), *self._again(unit, now, sentence)]
        return effects

    def _bound(self, event: ChannelBound, now: Instant) -> list[Any]:
        return self._tasks(event.deal, now) + (self._fund(event.deal, now) if event.ready else [])

    def channel_ready(self, channel: bytes, now: Instant) -> list[Any]:
        """The funding is seen."""
        effects: list[Any] = []
        for deal in [one.deal for one in self.ledger.deals.values() if one.channel == channel]:
            effects += self._fund(deal, now)
        return effects

    def channel_failed(self, event: ChannelFailed, now: Instant) -> list[Any]:
        """No money for this deal: its requests are refused, for another seller would not be paid either."""
        effects: list[Any] = []
        for key, unit in list(self.ledger.units_of(event.deal)):
            request = self.requests.drop(unit.request)
            effects += self._leave(key, Step.WITHDRAW, now, event.code, event.sentence)
            if request:
                effects.append(Reply(request=request.number, result=None, code=event.code, sentence=event.sentence))
        return effects

    def channel_closed(self, channel: bytes, now: Instant) -> list[Any]:
        """The channel is spent: units not yet paid through it must go elsewhere; locked ones are decided."""
        self.till.close(channel)
        effects: list[Any] = []
        for deal in [one.deal for one in self.ledger.deals.values() if one.channel == channel]:
            for key, unit in list(self.ledger.units_of(deal)):
                if unit.phase in BEFORE_MONEY:
                    sentence = "the payment channel was closed"
                    effects += self._leave(key, Step.TIME_OUT, now, "channel-closed", sentence)
                    effects += self._again(unit, now, sentence)
                elif unit.phase is Phase.COMMITTED:
                    effects += self._leave(key, Step.REFUND, now, "refunded", "the channel closed without this payment")
        return effects

    # --- letters from the seller ----------------------------------------------------------------------------------------
    def hear(self, peer: PeerId, letter: DealLetter, now: Instant) -> list[Any]:
        """One letter of a deal we are the buyer of. Raises ``Ignore`` or ``Misbehaved``."""
        match letter:
            case Working():
                key = self.ledger.held_with(peer, letter.deal, letter.unit)
                sentence = "a worker computes it" if letter.begun else "the work has arrived and waits for a worker"
                self._seen_funded(key, now)
                self.ledger.move(key, Step.WORK if letter.begun else Step.TRANSMIT, now, "working", sentence)
                return []
            case Offer():
                return self._offered(peer, letter, now)
            case FreeKey():
                key = self.ledger.held_with(peer, letter.deal, letter.unit)
                return self._free_key(key, letter.key, now)
            case WorkRefused():
                key = self.ledger.held_with(peer, letter.deal, letter.unit)
                return self._fail(key, Step.REJECT, now, letter.code, letter.sentence)
            case Batch():
                return self._batched(peer, letter, now)
            case _:
                raise Misbehaved("wrong-role", "a seller sent what only buyers send", penalty=20)

    def _offered(self, peer: PeerId, letter: Offer, now: Instant) -> list[Any]:
        body = letter.body
        key = self.ledger.held_with(peer, body.deal, body.unit)
        deal, unit = self.ledger.deal_of(key), self.ledger.units[key]
        if unit.phase is Phase.FINISHED or unit.phase is Phase.REVEALED:
            return [say(deal, Taken(deal=deal.deal, unit=unit.unit))]
        if unit.phase not in BEFORE_MONEY or unit.cipher is not None:
            raise Ignore("late-offer", "an offer for a unit that waits for none")
        if body.work != unit.work or body.price_msat != deal.price_msat:
            raise Misbehaved("wrong-offer", "an offer for other work or another price than agreed", penalty=20)
        if not verify(deal.other, id_of(self._network.name, OFFER_PURPOSE, pack(body)), letter.signature):
            raise Misbehaved("wrong-signature", "an offer that its seller did not sign", penalty=50)
        terms = self._terms(deal.free)
        self._seen_funded(key, now)
        self.ledger.move(
            key,
            Step.OFFER,
            now,
            "offered",
            "the encrypted result is being fetched",
            cipher=body.cipher,
            cipher_bytes=letter.size,
            cipher_ticket=letter.ticket,
            plain=body.plain,
            lock=body.lock,
            offer_signature=letter.signature,
            deadline_us=self._deadline(key, now, terms.fetch_s),
        )
        return [self._fetch(key, peer)]

    # --- content and money ------------------------------------------------------------------------------------------------
    def fetched(self, event: Fetched, now: Instant) -> list[Any]:
        """The ciphertext is here: its payment is locked to its key, at once or when its turn comes."""
        unit = self.ledger.units.get(event.unit)
        if unit is None or unit.phase is not Phase.OFFERED or unit.cipher != event.content or unit.lock is None:
            return []
        deal = self.ledger.deal_of(event.unit)
        if deal.free:
            self.ledger.move(event.unit, Step.COMMIT, now, "committed", "the encrypted result is here")
            return self._free_key(event.unit, unit.key, now) if unit.key else []
        if deal.channel is None:
            raise Ignore("no-channel", "a paid unit without a channel")
        return self._queue(deal.channel, event.unit, now)

    def fetch_failed(self, event: FetchFailed, now: Instant) -> list[Any]:
        """The ciphertext could not be had."""
        unit = self.ledger.units.get(event.unit)
        if unit is None or unit.phase is not Phase.OFFERED:
            return []
        deal = self.ledger.deal_of(event.unit)
        if deal.channel is not None and event.unit in self.till.drawer(deal.channel).waiting:
            return []  # it is here since an earlier fetch
        if peer_id_of(deal.other) in self._away:
            return []  # its deadline is near; when the seller comes back the fetch is begun again
        return self._fail(event.unit, Step.TIME_OUT, now, event.code, event.sentence)

    def _free_key(self, key: bytes, result: bytes, now: Instant) -> list[Any]:
        unit = self.ledger.units[key]
        if not self.ledger.deal_of(key).free or unit.lock is None or lock_of(result) != unit.lock:
            raise Misbehaved("wrong-key", "a key that does not open the lock of its offer", penalty=20)
        if unit.phase is Phase.OFFERED:
            self.ledger.change(key, now, key=result)
            return []
        return self.revealed(key, result, now)

    def revealed(self, ref: bytes, result: bytes, now: Instant) -> list[Any]:
        """The key of a result, or of a batch of them, is known, by letter or from the chain; the next payment may leave."""
        held = self.ledger.batches.get(ref)
        if held is None:
            effects = self._open_result(ref, result, now)
            keys: tuple[bytes, ...] = (ref,)
        else:
            keys = tuple(one.unit for one in held.body.units)
            effects = [effect for one in held.body.units for effect in self._unseal(one, result, now)]
        return [*effects, *self._paid(keys, now)]

    def _unseal(self, part: SealedKey, result: bytes, now: Instant) -> list[Any]:
        """One unit of a batch whose key is known. A seal that hides something else than the offered key is a proof."""
        unit = self.ledger.units[part.unit]
        key = sealed(self._network, result, part.unit, part.seal)
        if lock_of(key) == unit.lock:
            return self._open_result(part.unit, key, now)
        sentence = "the key of the batch does not open what the seller signed for; the signed batch, offer and key prove it"
        if self.ledger.move(part.unit, Step.REVEAL, now, "revealed", "the seller gave the batch's key") is None:
            return []
        self.ledger.move(part.unit, Step.DISPUTE, now, "bad-batch", sentence)
        strike = Strike(peer=peer_id_of(self.ledger.deal_of(part.unit).other), code="bad-batch", sentence=sentence)
        return [strike, *self._again(unit, now, sentence, spent=True)]

    def _open_result(self, key: bytes, result: bytes, now: Instant) -> list[Any]:
        unit = self.ledger.units.get(key)
        if unit is None or unit.cipher is None:
            return []
        sentence = "the seller gave the key"
        if self.ledger.move(key, Step.REVEAL, now, "revealed", sentence, key=result, deadline_us=NEVER) is None:
            return []
        return [Decrypt(unit=key, cipher=unit.cipher, key=result, owner=owner_of(key))]

    def pay_failed(self, ref: bytes, code: str, sentence: str, now: Instant) -> list[Any]:
        """Nothing was paid for this unit or batch, and nothing will be: the requests go elsewhere."""
        held = self.ledger.batches.get(ref)
        keys = (ref,) if held is None else tuple(one.unit for one in held.body.units)
        effects: list[Any] = []
        for key in keys:
            unit = self.ledger.units.get(key)
            if unit is not None and self.ledger.move(key, Step.REFUND, now, code, sentence) is not None:
                effects += [*self._release(key), *self._again(unit, now, sentence)]
        return [*effects, *self._paid(keys, now)]

    def decrypted(self, event: Decrypted, now: Instant) -> list[Any]:
        """The result is open: it is what the offer promised, or we hold a proof that it is not."""
        unit = self.ledger.units.get(event.unit)
        if unit is None or unit.phase is not Phase.REVEALED:
            return []
        deal = self.ledger.deal_of(event.unit)
        if event.plain is None or event.plain != unit.plain:
            sentence = "the key does not open what the seller signed for; the signed offer and the key prove it"
            self.ledger.move(event.unit, Step.DISPUTE, now, "bad-result", sentence)
            return [
                Strike(peer=peer_id_of(deal.other), code="bad-result", sentence=sentence),
                *self._again(unit, now, sentence, spent=True),
            ]
        self.ledger.move(event.unit, Step.FINISH, now, "finished", "the result is here")
        if not deal.free:
            self._exposure.finished(deal.other)
        effects: list[Any] = [say(deal, Taken(deal=deal.deal, unit=unit.unit)), *self._release(event.unit)]
        request = self.requests.drop(unit.request)
        if request:
            effects += self._stop_other(request, event.unit, now)
            effects.append(Reply(request=request.number, result=event.plain, code="", sentence=""))
        return effects

    def _stop_other(self, request: Request, done: bytes, now: Instant) -> list[Any]:
        """A unit that was given up came back after all: the one that replaced it is not needed."""
        if request.unit is None or request.unit == done:
            return []
        return self._leave(request.unit, Step.WITHDRAW, now, "not-needed", "another seller delivered first")

    # --- peers and time ---------------------------------------------------------------------------------------------------
    def peer_down(self, event: PeerDown, now: Instant) -> list[Any]:
        """Shorten the deadlines of what this seller still owes."""
        self._away.add(event.peer)
        for key in self._with(event.peer):
            unit = self.ledger.units[key]
            silence = Instant(now + self._terms(self.ledger.deal_of(key).free).silence_s * SECOND)
            if unit.deadline_us > silence:
                self.ledger.change(key, now, deadline_us=silence)
        return []

    def peer_up(self, event: PeerUp, now: Instant) -> list[Any]:
        """The seller is back: give him his time again and say what he may have missed."""
        self._away.discard(event.peer)
        self._ask_again(event.peer, now)
        effects: list[Any] = []
        for deal in sorted({key[:32] for key in self._with(event.peer)}):
            terms = self._terms(self.ledger.deals[deal].free)
            for key, unit in list(self.ledger.units_of(deal)):
                if unit.phase is Phase.OFFERED:
                    self.ledger.change(key, now, deadline_us=Instant(now + terms.fetch_s * SECOND))
                    effects.append(self._fetch(key, event.peer))
                elif unit.phase in BEFORE_MONEY:
                    budget_s = terms.fetch_s + terms.work_s * self.ledger.deals[deal].quantity
                    self.ledger.change(key, now, deadline_us=Instant(now + budget_s * SECOND))
            effects += self._tasks(deal, now)
        return effects

    def tick(self, now: Instant) -> list[Any]:
        """Let go of what has lasted too long."""
        effects = [*self._repeat_tasks(now), *self._gather_late(now)]
        for key in self.ledger.late(now):
            unit = self.ledger.units[key]
            if unit.phase is Phase.COMMITTED:
                # Locked money stays locked; only the person who waits is served elsewhere.
                self.ledger.change(key, now, deadline_us=NEVER, sentence="paid; the key is still owed")
                effects += self._again(unit, now, _GONE, spent=True)
            elif unit.phase is Phase.ACCEPTED:
                effects += self._fail(key, Step.MISS, now, "no-show", "the deal did not get under way in time")
            else:
                effects += self._fail(key, Step.TIME_OUT, now, "timed-out", _GONE)
        for request in self.requests.expired(now):
            self.requests.drop(request.number)
            sentence = f"no seller was found in time: {request.sentence}"
            effects.append(Reply(request=request.number, result=None, code="no-match", sentence=sentence))
        return effects

    def next_deadline(self) -> Instant | None:
        """When ``tick`` has something to do."""
        return min(
            (
                one
                for one in (
                    self.ledger.next_deadline(),
                    self.requests.next_deadline(),
                    self._next_repeat(),
                    self.till.next_deadline(),
                )
                if one is not None
            ),
            default=None,
        )

    def resume(self, now: Instant) -> list[Any]:
        """After a restart nobody waits for anything: withdraw what is free to withdraw, complete what is paid."""
        effects: list[Any] = []
        for key in self.ledger.in_phase(Phase.COMMITTED):
            channel = self.ledger.deal_of(key).channel
            if channel is not None:
                self.till.pay(channel, (key,))
        for key in self.ledger.in_phase(*BEFORE_MONEY):
            effects += self._leave(key, Step.WITHDRAW, now, "restarted", "this node was restarted")
        for key in self.ledger.in_phase(Phase.REVEALED):
            unit = self.ledger.units[key]
            if unit.cipher and unit.key:
                effects.append(Decrypt(unit=key, cipher=unit.cipher, key=unit.key, owner=owner_of(key)))
        return effects

    def reserved_msat(self, channel: bytes) -> int:
        """What deals bound to a channel may still ask of it."""
        total = 0
        for key in self.ledger.in_phase(*BEFORE_MONEY):
            deal = self.ledger.deal_of(key)
            if deal.channel == channel:
                total += deal.price_msat
        return total
