"""How results are paid for: one at a time while nothing waits, several under one key when the channel is busy.

Only COMMIT to KEY is serial in a channel. Results that come in meanwhile wait in the till, and the seller is asked (``Gather``)
to put them under one key; his signed answer (``Batch``) is paid with the next commitment, whose sum is theirs. How many at most,
and of what value, is what we risk with him: for until the key is shown we have locked money for all of them and hold none.
"""

from typing import Any

from peer.core.batches import BATCH_PURPOSE, HeldBatch, batch_ref
from peer.core.deal import Phase, Role, Step, split_unit_key
from peer.core.events import PayWanted
from peer.core.ledger import say
from peer.core.letters import Batch, Gather
from peer.core.purchases import Purchases
from wire.canon import pack
from wire.envelope import id_of
from wire.errors import Ignore, Misbehaved
from wire.keys import PeerId, peer_id_of, public_of, verify
from wire.limits import GATHER_WAIT_S
from wire.moments import SECOND, Instant


class Paying(Purchases):
    """The buyer's till in use; ``Buying`` says when."""

    def _queue(self, channel: bytes, key: bytes, now: Instant) -> list[Any]:
        """A result is here and is to be paid for when its turn comes."""
        until = self._deadline(key, now, self._terms(False).reveal_s)
        self.ledger.change(key, now, sentence="the encrypted result is here; its payment waits for its turn", deadline_us=until)
        self.till.wait(channel, key)
        return self._pay_next(channel, now)

    def _paid(self, keys: tuple[bytes, ...], now: Instant) -> list[Any]:
        """These payments are decided: the next may leave."""
        channels = {self.ledger.deal_of(key).channel for key in keys if key in self.ledger.units}
        for key in keys:
            self.till.drop(key, now)
        return [effect for one in sorted(one for one in channels if one is not None) for effect in self._pay_next(one, now)]

    def _pay_next(self, channel: bytes, now: Instant) -> list[Any]:
        """Pay for what waits, unless a key is still owed; see the head of this file."""
        drawer = self.till.drawer(channel)
        if not drawer.waiting:
            return []
        deal = self.ledger.deal_of(drawer.waiting[0])
        prices = [self.ledger.deal_of(key).price_msat for key in drawer.waiting]
        group = tuple(drawer.waiting[: self._exposure.batch(deal.other).fits(prices)])
        together = len(group) > 1 and not drawer.singly
        if not drawer.asked:
            drawer.until = None
        if together and not drawer.asked and drawer.offered is None:
            drawer.asked, drawer.until = group, Instant(now + GATHER_WAIT_S * SECOND)
            asks = [say(deal, Gather(channel=channel, units=group))]
        else:
            asks = []
        if drawer.paying or asks or drawer.asked:
            return asks
        if drawer.offered is not None:
            return self._pay_batch(channel, drawer.offered, now)
        key = drawer.waiting[0]
        unit = self.ledger.units[key]
        self._commit((key,), now)
        if unit.lock is None:
            raise Ignore("no-lock", "an offer without a lock")
        pay = PayWanted(channel=channel, unit=key, lock=unit.lock, amount_msat=self.ledger.deal_of(key).price_msat)
        return [pay, *self._pay_next(channel, now)]

    def _pay_batch(self, channel: bytes, held: HeldBatch, now: Instant) -> list[Any]:
        keys = tuple(one.unit for one in held.body.units)
        ref = batch_ref(self._network, held.body)
        self.till.drawer(channel).forget_batch()
        self.ledger.put_batch(ref, held)
        self._commit(keys, now)
        pay = PayWanted(channel=channel, unit=ref, lock=held.body.lock, amount_msat=held.body.amount_msat, units=keys)
        return [pay, *self._pay_next(channel, now)]

    def _commit(self, keys: tuple[bytes, ...], now: Instant) -> None:
        channel = self.ledger.deal_of(keys[0]).channel
        sentence = "the payment is signed, locked to the result's key"
        if len(keys) > 1:
            sentence = f"one payment for {len(keys)} results is signed, locked to one key"
        for key in keys:
            until = self._deadline(key, now, self._terms(False).reveal_s)
            self.ledger.move(key, Step.COMMIT, now, "committed", sentence, deadline_us=until)
        if channel is not None:
            self.till.pay(channel, keys)

    def _batched(self, peer: PeerId, letter: Batch, now: Instant) -> list[Any]:
        """The seller put what we named under one key. Raises ``Ignore`` or ``Misbehaved``."""
        body = letter.body
        keys = tuple(self.ledger.held_with(peer, *split_unit_key(one.unit)) for one in body.units)
        if any(self.ledger.deal_of(key).channel != body.channel for key in keys):
            raise Misbehaved("wrong-batch", "a batch of results that are paid through another channel", penalty=20)
        drawer = self.till.drawer(body.channel)
        if keys != drawer.asked or any(self.ledger.units[key].phase is not Phase.OFFERED for key in keys):
            raise Ignore("late-batch", "a batch that nobody waits for")
        if body.amount_msat != sum(self.ledger.deal_of(key).price_msat for key in keys):
            raise Misbehaved("wrong-batch", "a batch at another price than its units were offered for", penalty=20)
        if not verify(public_of(peer), id_of(self._network.name, BATCH_PURPOSE, pack(body)), letter.signature):
            raise Misbehaved("wrong-signature", "a batch that its seller did not sign", penalty=50)
        drawer.asked, drawer.until = (), None
        drawer.offered = HeldBatch(role=Role.BUYER, other=public_of(peer), body=body, signature=letter.signature)
        return self._pay_next(body.channel, now)

    def _gather_late(self, now: Instant) -> list[Any]:
        """Sellers who do not answer are paid singly, until they come back; where a batch was given up, go on with the others."""
        effects: list[Any] = []
        for channel in self.till.late(now):
            drawer = self.till.drawer(channel)
            drawer.singly = drawer.singly or bool(drawer.asked)
            drawer.forget_batch()
            effects += self._pay_next(channel, now)
        return effects

    def _ask_again(self, peer: PeerId, now: Instant) -> None:
        """The seller is back: he may put results under one key again."""
        for deal in self.ledger.deals.values():
            if deal.channel is not None and peer_id_of(deal.other) == peer:
                drawer = self.till.drawer(deal.channel)
                drawer.singly = False
                drawer.forget_batch(now)
