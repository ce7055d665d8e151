"""The buyer's end of a channel: offers it, funds it, pays through it, and gets back what is left.

Payments wait in a queue and are committed strictly one after the other: the next leaves when the key of the last one is known, by
letter or from the chain. A commitment is saved before it leaves. To close, the queue is paid out first, then ``Done`` gives the
seller the unlocked state. Whatever the seller does or does not do, from the refund height on the rest comes back by itself.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import ClassVar

from escrow.core.amounts import DUST_P2WPKH_SAT, LAPSE_VBYTES, enforced_from_sat, fee_sat
from escrow.core.channel import Step, Table
from escrow.core.events import (
    CloseAsked,
    FundingBuilt,
    FundingFailed,
    FundingWanted,
    How,
    OutpointSeen,
    Pay,
    Phase,
    Ready,
    Revealed,
    Tick,
    TipSeen,
)
from escrow.core.memo import note_of
from escrow.core.messages import AnyLetter, AskClose, Commit, Declined, Done, Funded, Key, Open, Opened, opened_digest
from escrow.core.sight import CHAIN_PHASES, SightedChannel
from escrow.core.spends import Spend, lapse, refund
from escrow.core.state import LOCK_TABLE, ChannelRow, Commitment, PastLock, Payment, lock_key
from escrow.core.transaction import outpoint_bytes, parse, sha256
from wire.canon import pack
from wire.effects import Count, Save
from wire.errors import Ignore, Misbehaved, require
from wire.keys import SecretKey, verify
from wire.limits import CHANNEL_ANSWER_WAIT_S, PAYMENT_REF_MAX_BYTES, PAYMENTS_PER_CHANNEL_MAX, PAYMENTS_WAITING_MAX
from wire.money import MSAT_PER_SAT
from wire.network import Network
from wire.ports import OutInfo, OutPoint

_LOOK = {OutpointSeen: Step("_on_outpoint", CHAIN_PHASES), TipSeen: Step("_on_tip", CHAIN_PHASES)}
_LATE = {Key: Step("_on_key"), AskClose: Step("_on_repeat"), CloseAsked: Step("_on_repeat"), Tick: Step("_on_tick")}

BUYER_TABLE: Table = {
    Phase.OFFERED: {
        Opened: Step("_on_opened", (Phase.FUNDING,)),
        Declined: Step("_on_declined", (Phase.CLOSED,)),
        AskClose: Step("_give_up", (Phase.CLOSED,)),
        CloseAsked: Step("_give_up", (Phase.CLOSED,)),
        Pay: Step("_on_pay"),
        TipSeen: Step("_on_tip"),
        Tick: Step("_on_tick", (Phase.CLOSED,)),
    },
    Phase.FUNDING: {
        FundingBuilt: Step("_on_built", (Phase.FUNDED,)),
        FundingFailed: Step("_on_funding_failed", (Phase.CLOSED,)),
        Declined: Step("_on_close_asked"),
        AskClose: Step("_on_close_asked"),
        CloseAsked: Step("_on_close_asked"),
        Pay: Step("_on_pay"),
        TipSeen: Step("_on_tip"),
        Tick: Step("_on_tick"),
    },
    Phase.FUNDED: {
        FundingFailed: Step("_on_funding_failed", (Phase.CLOSED,)),
        Declined: Step("_on_close_asked"),
        AskClose: Step("_on_close_asked"),
        CloseAsked: Step("_on_close_asked"),
        Key: Step("_on_key"),
        Pay: Step("_on_pay"),
        Tick: Step("_on_tick"),
        **_LOOK,
    },
    Phase.OPEN: {
        Key: Step("_on_key", (Phase.CLOSING,)),
        Declined: Step("_on_close_asked", (Phase.CLOSING,)),
        AskClose: Step("_on_close_asked", (Phase.CLOSING,)),
        CloseAsked: Step("_on_close_asked", (Phase.CLOSING,)),
        Pay: Step("_on_pay"),
        Tick: Step("_on_tick"),
        **_LOOK,
    },
    Phase.CLOSING: {**_LATE, **_LOOK},
    Phase.CLAIMING: {**_LATE, **_LOOK},
    Phase.REFUNDING: {**_LATE, **_LOOK},
    Phase.CLOSED: {FundingBuilt: Step("_on_built", (Phase.FUNDED,)), Tick: Step("_on_tick"), **_LOOK},
    Phase.BURIED: {},
}


class BuyerChannel(SightedChannel):
    """The buyer's machine. ``past`` are its rows of table ``channel_lock``."""

    table: ClassVar[Table] = BUYER_TABLE

    def __init__(self, key: SecretKey, network: Network, row: ChannelRow, past: Sequence[PastLock] = ()) -> None:
        super().__init__(key, network, row)
        self._past = {one.lock: one for one in sorted(past, key=lambda one: one.sequence)}

    @property
    def past_locks(self) -> tuple[PastLock, ...]:
        """Its rows of table ``channel_lock``."""
        return tuple(self._past.values())

    # --- opening -----------------------------------------------------------------------------------------------

    def _open_letter(self) -> Open:
        return Open(channel=self.channel, terms=self.row.terms, signature=self.row.open_signature)

    def _on_opened(self, letter: Opened) -> None:
        if not verify(self.row.terms.seller, opened_digest(self.network.name, self.channel), letter.signature):
            raise Misbehaved("wrong-signature", "the seller's signature under the terms is wrong", penalty=50)
        self._change(opened_signature=letter.signature)
        self._wait_until = None
        self._enter(Phase.FUNDING, "the seller agreed; the wallet builds the funding")
        self._effects.append(self._funding_wanted())

    def _funding_wanted(self) -> FundingWanted:
        note = note_of(self._key, self.network, self.row.terms)
        return FundingWanted(channel=self.channel, output=self.contract.funding, note=note)

    def _on_declined(self, letter: Declined) -> None:
        self._end_without_money(How.DECLINED, f"the seller declined: {letter.sentence}")

    def _give_up(self, _: AskClose | CloseAsked) -> None:
        self._end_without_money(How.DECLINED, "given up before the seller answered")

    def _on_built(self, event: FundingBuilt) -> None:
        if self.funding is not None:
            self._effects.append(Count(code="funding-built-twice"))
            return
        transaction = parse(event.raw)
        right = event.vout < len(transaction.outputs) and transaction.outputs[event.vout] == self.contract.funding
        require(right, "wrong-funding", "the wallet built a transaction without the output that was asked for")
        late = self.phase is Phase.CLOSED
        funding = OutPoint(transaction.txid, event.vout)
        self._change(funding=outpoint_bytes(funding), funding_raw=event.raw, ending=None, closing=self.row.closing or late)
        self._enter(Phase.FUNDED, "the funding is built; waiting to see it on the chain")
        self._send(self._funded_letter(funding))
        self._submit(event.raw, "funding")
        self._watch(funding)

    def _funded_letter(self, funding: OutPoint) -> Funded:
        return Funded(channel=self.channel, txid=funding.txid, vout=funding.vout)

    def _on_funding_failed(self, event: FundingFailed) -> None:
        self._send(AskClose(channel=self.channel, reason="the funding failed"))
        self._end_without_money(How.UNFUNDED, event.sentence)

    # --- paying ------------------------------------------------------------------------------------------------

    def _on_pay(self, event: Pay) -> None:
        known = self._past.get(event.lock)
        waiting = [one for one in self.row.queue if one.lock == event.lock or one.ref == event.ref]
        if known is not None or waiting:
            self._pay_again(event, known, waiting)
            return
        refusal = self._refusal(event)
        if refusal is not None:
            self._refuse_pay(event.ref, *refusal)
            return
        payment = Payment(ref=event.ref, lock=event.lock, amount_msat=event.amount_msat)
        if self._idle() and not self.row.queue:
            self._commit(payment)
        else:
            self._change(queue=(*self.row.queue, payment))
            self._advance()

    def _pay_again(self, event: Pay, known: PastLock | None, waiting: list[Payment]) -> None:
        same = Payment(ref=event.ref, lock=event.lock, amount_msat=event.amount_msat) in waiting
        if known is not None and known.ref == event.ref:
            if known.key is not None:
                self._effects.append(Revealed(channel=self.channel, ref=known.ref, key=known.key))
        elif not same:
            self._refuse_pay(event.ref, "lock-reused", "another payment has this lock or this name already")

    def _refusal(self, event: Pay) -> tuple[str, str] | None:
        """Why this payment cannot be made, or None."""
        if not (0 < len(event.ref) <= PAYMENT_REF_MAX_BYTES and len(event.lock) == 32 and event.amount_msat > 0):
            return "bad-payment", "a payment has a name, a lock of 32 bytes and an amount"
        if not self.usable:
            return "closing", "the channel is about to close"
        if len(self.row.queue) >= PAYMENTS_WAITING_MAX:
            return "queue-full", f"{PAYMENTS_WAITING_MAX} payments wait already"
        if len(self._past) + len(self.row.queue) >= PAYMENTS_PER_CHANNEL_MAX:
            return "too-many", "the channel has made all the payments it can"
        if event.amount_msat > self.free_msat:
            return "no-capacity", f"{event.amount_msat} msat are more than the {self.free_msat} that the channel still has"
        paid_sat = (self.contract.usable_msat - self.free_msat + event.amount_msat) // MSAT_PER_SAT
        least_sat = enforced_from_sat(self.row.terms.feerate_sat_per_kvb)
        if self.row.terms.credit_sat < paid_sat < least_sat:
            return "below-dust", f"a balance of {paid_sat} sat cannot be enforced and exceeds the agreed credit"
        return None

    def _idle(self) -> bool:
        """Whether the escrow is there and no key is owed for the last commitment."""
        last = self.row.last
        return self.phase is Phase.OPEN and (last is None or last.key is not None)

    def _advance(self) -> None:
        """Commit the next payment, or close when asked to and nothing waits."""
        if not self._idle():
            return
        if self._height is not None and self._height >= self.serves_until:
            self._change(closing=True)
            self._fail_queue("too-late", "the escrow is about to run out; nothing more is paid through it")
        if self.row.queue:
            self._commit(self.row.queue[0])
        elif self.row.closing:
            self._enter(Phase.CLOSING, "everything is paid; the seller may close")
            self._send(self._done_letter())

    def _commit(self, payment: Payment) -> None:
        states = self._signer()
        paid, revealed = self.row.paid_msat + payment.amount_msat, self.row.revealed_msat
        require(revealed == self.row.paid_msat, "not-serial", "a payment before the last one's key")
        signature = states.sign(self._coop, paid, payment.lock)
        enough = revealed // MSAT_PER_SAT >= DUST_P2WPKH_SAT
        settled = states.sign(self._coop, revealed, None) if enough else None
        commitment = Commitment(
            sequence=1 if self.row.last is None else self.row.last.sequence + 1,
            ref=payment.ref,
            lock=payment.lock,
            paid_msat=paid,
            amount_msat=payment.amount_msat,
            signature=signature,
            settled=settled,
            key=None,
        )
        queue = self.row.queue
        self._change(last=commitment, paid_msat=paid, queue=queue[1:] if queue[:1] == (payment,) else queue)
        self._remember(commitment)
        self._send(self._commit_letter(commitment))

    def _commit_letter(self, last: Commitment) -> Commit:
        return Commit(
            channel=self.channel,
            sequence=last.sequence,
            ref=last.ref,
            paid_msat=last.paid_msat,
            lock=last.lock,
            signature=last.signature,
            settled=last.settled,
        )

    def _remember(self, one: Commitment) -> None:
        past = PastLock(channel=self.channel, sequence=one.sequence, ref=one.ref, lock=one.lock, key=one.key)
        self._past[one.lock] = past
        self._effects.append(Save(table=LOCK_TABLE, key=lock_key(self.channel, one.sequence), value=pack(past)))

    def _on_key(self, letter: Key) -> None:
        last = self.row.last
        if last is None or letter.sequence > last.sequence:
            raise Misbehaved("early-key", "a key for a payment that was not made")
        if letter.sequence < last.sequence or last.key is not None:
            raise Ignore("late-key", "this key is known")
        if sha256(letter.key) != last.lock:
            raise Misbehaved("wrong-key", "the key does not open the lock that was paid for", penalty=50)
        self._learn(last.lock, letter.key)
        self._advance()

    def _learn(self, lock: bytes, key: bytes) -> None:
        last = self.row.last
        if last is None or last.lock != lock or last.key is not None:
            return
        known = dataclasses.replace(last, key=key)
        self._change(last=known, revealed_msat=last.paid_msat)
        self._remember(known)
        self._effects.append(self._revealed(last, key))

    def _revealed(self, last: Commitment, key: bytes) -> Revealed:
        return Revealed(
            channel=self.channel,
            ref=last.ref,
            key=key,
            paid_msat=last.paid_msat,
            signature=last.signature,
        )

    def _fail_queue(self, code: str, sentence: str) -> None:
        for one in self.row.queue:
            self._refuse_pay(one.ref, code, sentence)
        self._change(queue=())

    # --- closing -----------------------------------------------------------------------------------------------

    def _on_close_asked(self, event: CloseAsked | AskClose | Declined) -> None:
        first = not self.row.closing
        self._change(closing=True)
        self._advance()
        if first and self.phase is Phase.OPEN and isinstance(event, CloseAsked):
            self._send(AskClose(channel=self.channel, reason=event.reason[:200]))

    def _on_repeat(self, _: AskClose | CloseAsked) -> None:
        if self.phase is Phase.CLOSING and self._owed():
            self._resend()

    def _done_letter(self) -> Done:
        paid = self.row.paid_msat
        require(paid == self.row.revealed_msat, "not-serial", "a final balance before the last key")
        return Done(channel=self.channel, paid_msat=paid, signature=self._signer().sign(self._coop, paid, None))

    def _ended(self) -> None:
        self._fail_queue("closed", "the channel closed before this payment's turn")
        last = self.row.last
        if last is not None and last.key is None:
            self._refuse_pay(last.ref, "not-revealed", "the channel closed without this payment; its key was never given")

    # --- the chain ---------------------------------------------------------------------------------------------

    def _locks(self) -> Iterable[bytes]:
        return reversed(self._past)

    def _tell_ready(self) -> None:
        self._effects.append(Ready(channel=self.channel))

    def _while_absent(self) -> None:
        """Nothing at once: the funding is broadcast again with every new block and every repeat."""

    def _while_unspent(self) -> None:
        if self._height is not None and self._height >= self.row.terms.refund_height:
            self._take_refund()
        else:
            self._advance()

    def _take_refund(self) -> None:
        funding, rate = self.funding, self._rate()
        assert funding is not None
        if self.phase is not Phase.REFUNDING:
            self._change(closing=True)
            self._enter(Phase.REFUNDING, "the escrow ran out; taking back what is in it")
            self._fail_queue("closed", "the escrow ran out before this payment's turn")
            self._change(end_raw=b"")
        if not self.row.end_raw or 4 * rate >= 5 * self.row.end_feerate_sat_per_kvb:
            raw = refund(self.contract, funding, self._key, rate).serialise()
            self._change(end_raw=raw, end_feerate_sat_per_kvb=rate)
            self._submit(raw, "refund")

    def _raise_fee(self) -> None:
        self._take_refund()

    def _while_claimable(self, spend: Spend, info: OutInfo) -> None:
        if spend.lock is None or info.height is None or self._height is None:
            return
        if self._height + 1 < info.height + self.row.terms.claim_delay_blocks:
            return
        rate, source = self._rate(), OutPoint(spend.transaction.txid, 0)
        ours = bool(self.row.end_raw) and parse(self.row.end_raw).inputs[0].outpoint == source
        if ours and 4 * rate < 5 * self.row.end_feerate_sat_per_kvb:
            return
        # A small output is taken at the agreed rate when the going one would eat it.
        for feerate in (rate, self.row.terms.feerate_sat_per_kvb):
            if info.value_sat - fee_sat(LAPSE_VBYTES, feerate) >= DUST_P2WPKH_SAT:
                taking = lapse(self.contract, spend.transaction, spend.lock, self._key, feerate)
                assert taking is not None
                self._change(end_raw=taking.serialise(), end_feerate_sat_per_kvb=feerate)
                self._submit(self.row.end_raw, "lapse")
                return

    # --- what is owed ------------------------------------------------------------------------------------------

    def _on_tick(self, _: Tick) -> None:
        if self._waited() and self.phase is Phase.OFFERED:
            self._end_without_money(How.DECLINED, "the seller did not answer")
        self._tick_resend()

    def _owed(self) -> list[AnyLetter]:
        last, funding = self.row.last, self.funding
        if self.phase is Phase.OFFERED:
            return [self._open_letter()]
        owed: list[AnyLetter] = []
        if funding is None or self.phase not in (Phase.FUNDED, Phase.OPEN, Phase.CLOSING):
            return owed
        if last is None or (last.sequence == 1 and last.key is None):
            owed.append(self._funded_letter(funding))
        if last is not None and last.key is None:
            owed.append(self._commit_letter(last))
        elif self.phase is Phase.CLOSING:
            info = self._seen.get(funding)
            if info is None or info.spent_by is None:
                owed.append(self._done_letter())
        return owed

    def _missing(self) -> list[tuple[bytes, str]]:
        info = None if self.funding is None else self._seen.get(self.funding)
        unspent = info is None or info.spent_by is None
        if self.phase is Phase.FUNDED and info is None:
            return [(self.row.funding_raw, "funding")]
        if self.phase is Phase.REFUNDING and unspent and self.row.end_raw:
            return [(self.row.end_raw, "refund")]
        if self.phase is Phase.CLAIMING and self.row.end_raw:
            source = parse(self.row.end_raw).inputs[0].outpoint
            taken = self._seen.get(source)
            if source != self.funding and taken is not None and taken.spent_by is None:
                return [(self.row.end_raw, "lapse")]
        return []

    def _tell_again(self) -> None:
        super()._tell_again()
        last = self.row.last
        if self.phase is Phase.OFFERED:
            self._wait(CHANNEL_ANSWER_WAIT_S)
        if self.phase is Phase.FUNDING:
            self._effects.append(self._funding_wanted())
        if last is not None and last.key is not None:
            self._effects.append(self._revealed(last, last.key))

    def _bury(self) -> None:
        for one in self._past.values():
            self._effects.append(Save(table=LOCK_TABLE, key=lock_key(self.channel, one.sequence), value=None))
        self._past.clear()
        super()._bury()
