"""The seller's end of a channel: agrees, watches the escrow, takes commitments, gives keys, and closes in time.

A commitment is verified and saved before ``Locked`` is told, and a key is saved before it leaves; ``Locked`` is told only while
the escrow is confirmed, so no key is given for money that may vanish. At any moment the seller holds the best unlocked
state and the last locked one; he closes with whichever is worth more after fees, and a locked one only when he knows its
key, which the claim then shows to the buyer. Two margins before someone else may spend the escrow he serves no more, one
margin before it he closes alone.
"""

import dataclasses
from collections.abc import Iterable
from typing import ClassVar

from escrow.core.amounts import DUST_P2WPKH_SAT, enforced_from_sat
from escrow.core.channel import Step, Table
from escrow.core.events import CloseAsked, How, Locked, OutpointSeen, Phase, Ready, Reveal, Tick, TipSeen
from escrow.core.messages import AnyLetter, AskClose, Commit, Declined, Done, Funded, Key, Open, Opened
from escrow.core.sight import CHAIN_PHASES, SightedChannel
from escrow.core.spends import OverCapacity, Spend, claim, claim_fee_sat, complete, state
from escrow.core.state import Commitment
from escrow.core.transaction import Tx, outpoint_bytes, parse, sha256
from wire.effects import Count
from wire.errors import Ignore, Misbehaved, require
from wire.limits import CHANNEL_CLOSE_WAIT_S, CHANNEL_FUND_WAIT_S
from wire.money import MSAT_PER_SAT
from wire.ports import OutInfo, OutPoint

_SEEN = tuple(one for one in CHAIN_PHASES if one is not Phase.REFUNDING)
_LOOK = {OutpointSeen: Step("_on_outpoint", _SEEN), TipSeen: Step("_on_tip", _SEEN)}

SELLER_TABLE: Table = {
    Phase.AGREED: {
        Open: Step("_on_open_again"),
        Funded: Step("_on_funded", (Phase.FUNDED,)),
        AskClose: Step("_release", (Phase.CLOSED,)),
        CloseAsked: Step("_release", (Phase.CLOSED,)),
        TipSeen: Step("_on_tip"),
        Tick: Step("_on_tick", (Phase.CLOSED,)),
    },
    Phase.FUNDED: {
        Open: Step("_on_open_again"),
        Funded: Step("_on_funded"),
        Commit: Step("_on_commit"),
        Done: Step("_on_done"),
        AskClose: Step("_on_ask_close"),
        CloseAsked: Step("_on_close_asked"),
        Tick: Step("_on_tick", (Phase.CLOSED,)),
        **_LOOK,
    },
    Phase.OPEN: {
        Funded: Step("_on_funded"),
        Commit: Step("_on_commit"),
        Reveal: Step("_on_reveal"),
        Done: Step("_on_done", (Phase.CLOSING,)),
        AskClose: Step("_on_ask_close"),
        CloseAsked: Step("_on_close_asked"),
        Tick: Step("_on_tick", (Phase.CLOSING,)),
        **_LOOK,
    },
    Phase.CLOSING: {
        Commit: Step("_on_late_commit"),
        Reveal: Step("_on_reveal"),
        Done: Step("_on_done"),
        Tick: Step("_on_tick"),
        **_LOOK,
    },
    Phase.CLAIMING: {Commit: Step("_on_late_commit"), Tick: Step("_on_tick"), **_LOOK},
    Phase.CLOSED: {
        Funded: Step("_on_funded", (Phase.FUNDED,)),
        Commit: Step("_on_late_commit"),
        Tick: Step("_on_tick"),
        **_LOOK,
    },
    Phase.BURIED: {},
}


class SellerChannel(SightedChannel):
    """The seller's machine."""

    table: ClassVar[Table] = SELLER_TABLE
    _told_lock = 0
    _asked_close = False

    # --- opening -----------------------------------------------------------------------------------------------

    def _opened_letter(self) -> Opened:
        signature = self.row.opened_signature
        assert signature is not None
        return Opened(channel=self.channel, signature=signature)

    def _on_open_again(self, letter: Open) -> None:
        self._send(self._opened_letter())

    def _on_funded(self, letter: Funded) -> None:
        funding = OutPoint(letter.txid, letter.vout)
        if self.funding is not None and funding != self.funding:
            raise Misbehaved("other-funding", "the buyer names another funding than before")
        if self.phase is Phase.CLOSED:
            self._revive()
        elif self.funding is not None:
            raise Ignore("funded-again", "the funding is known")
        self._change(funding=outpoint_bytes(funding))
        self._enter(Phase.FUNDED, "the buyer says the escrow is funded; waiting to see it on the chain")
        self._wait(CHANNEL_FUND_WAIT_S)
        self._watch(funding, again=True)

    def _revive(self) -> None:
        """A buyer whose funding came late is served after all, so that his money does not wait for the refund."""
        ending = self.row.ending
        if ending is None or ending.how is not How.UNFUNDED or (self._height or 0) >= self.serves_until:
            raise Ignore("closed", "the channel is closed")
        self._change(ending=None)

    def _release(self, event: CloseAsked | AskClose) -> None:
        self._send(Declined(channel=self.channel, code="released", sentence=event.reason))
        self._end_without_money(How.UNFUNDED, "released before it was funded")

    # --- being paid --------------------------------------------------------------------------------------------

    def _on_commit(self, letter: Commit) -> None:
        last = self.row.last
        known = 0 if last is None else last.sequence
        if last is not None and letter.sequence == known:
            self._commit_again(letter, last)
            return
        if letter.sequence <= known:
            raise Ignore("stale-commit", "a commitment that was replaced long ago")
        if letter.sequence != known + 1:
            raise Misbehaved("skipped-commit", f"commitment {letter.sequence} came after {known}")
        if last is not None and last.key is None:
            raise Misbehaved("not-serial", "a new commitment before the key of the last one")
        if self._height is not None and self._height >= self.serves_until:
            raise Ignore("too-late", "the escrow is about to run out")
        self._check_state(letter)
        self._check_settled(letter)
        commitment = Commitment(
            sequence=letter.sequence,
            ref=letter.ref,
            lock=letter.lock,
            paid_msat=letter.paid_msat,
            amount_msat=letter.paid_msat - self.row.paid_msat,
            signature=letter.signature,
            settled=None,
            key=None,
        )
        row = self.row
        better = (row.settled_msat, row.settled_signature) if letter.settled is None else (row.revealed_msat, letter.settled)
        self._change(last=commitment, paid_msat=letter.paid_msat, settled_msat=better[0], settled_signature=better[1])
        self._tell_locked()

    def _commit_again(self, letter: Commit, last: Commitment) -> None:
        same = (letter.ref, letter.lock, letter.paid_msat) == (last.ref, last.lock, last.paid_msat)
        if not same:
            raise Misbehaved("conflicting-commit", "two commitments under one number", penalty=20)
        self._effects.append(Count(code="commit-again"))
        if last.key is not None:
            self._send(Key(channel=self.channel, sequence=last.sequence, key=last.key))
        else:
            self._tell_locked(again=True)

    def _on_late_commit(self, letter: Commit) -> None:
        """While closing nothing new is taken, but a key once given is given again."""
        last = self.row.last
        if last is None or last.sequence != letter.sequence or last.key is None:
            raise Ignore("closing", "the channel is closing")
        self._commit_again(letter, last)

    def _check_state(self, letter: Commit) -> None:
        if letter.paid_msat <= self.row.paid_msat:
            raise Misbehaved("stale-state", "the commitment pays no more than the last one", penalty=20)
        if letter.paid_msat > self.contract.usable_msat:
            raise Misbehaved("over-capacity", "the commitment pays more than the channel holds", penalty=20)
        paid_sat = letter.paid_msat // MSAT_PER_SAT
        if self.row.terms.credit_sat < paid_sat < enforced_from_sat(self.row.terms.feerate_sat_per_kvb):
            raise Misbehaved("below-dust", "the balance is too small to be enforced and exceeds the agreed credit")
        if not self._signer().is_signed(letter.paid_msat, letter.lock, letter.signature):
            raise Misbehaved("wrong-signature", "the commitment's signature is not by the buyer over this state", penalty=50)

    def _check_settled(self, letter: Commit) -> None:
        revealed = self.row.revealed_msat
        if revealed // MSAT_PER_SAT < DUST_P2WPKH_SAT:
            if letter.settled is not None:
                raise Misbehaved("needless-settlement", "an unlocked state that would pay nothing was signed")
            return
        if letter.settled is None:
            raise Misbehaved("no-settlement", "the unlocked state of what was revealed is not signed")
        if not self._signer().is_signed(revealed, None, letter.settled):
            raise Misbehaved("wrong-signature", "the unlocked state's signature is not by the buyer over it", penalty=50)

    def _tell_locked(self, *, again: bool = False) -> None:
        last = self.row.last
        if last is None or last.key is not None or not self._confirmed():
            return
        if again or self._told_lock != last.sequence:
            self._told_lock = last.sequence
            self._effects.append(Locked(channel=self.channel, ref=last.ref, lock=last.lock, amount_msat=last.amount_msat))

    def _on_reveal(self, event: Reveal) -> None:
        last = self.row.last
        if last is None or last.ref != event.ref or sha256(event.key) != last.lock or len(event.key) != 32:
            self._effects.append(Count(code="reveal-mismatch"))
        elif not self._confirmed():
            self._effects.append(Count(code="reveal-early"))
        else:
            if last.key is None:
                self._change(last=dataclasses.replace(last, key=event.key), revealed_msat=last.paid_msat)
            self._send(Key(channel=self.channel, sequence=last.sequence, key=event.key))
            if self.phase is Phase.CLOSING and not self.row.close_raw:
                self._close_alone()

    # --- closing -----------------------------------------------------------------------------------------------

    def _on_close_asked(self, event: CloseAsked) -> None:
        if not self.row.closing or not self._asked_close:
            self._ask_close(event.reason)

    def _ask_close(self, reason: str) -> None:
        self._asked_close = True
        self._change(closing=True)
        self._send(AskClose(channel=self.channel, reason=reason[:200]))
        if self.phase is Phase.OPEN:
            self._wait(CHANNEL_CLOSE_WAIT_S)
        self._tell_locked(again=True)

    def _on_ask_close(self, letter: AskClose) -> None:
        if not self.row.closing:
            self._change(closing=True)
            if self.phase is Phase.OPEN:
                self._wait(CHANNEL_CLOSE_WAIT_S)
        self._tell_locked(again=True)

    def _on_done(self, letter: Done) -> None:
        if self.row.close_raw:
            raise Ignore("done-again", "the close is on its way")
        if letter.paid_msat < self.row.revealed_msat:
            raise Misbehaved("short-done", "the final balance is less than what the given keys were paid with", penalty=20)
        try:
            signed = self._signer().is_signed(letter.paid_msat, None, letter.signature)
        except OverCapacity as error:
            raise Misbehaved(error.code, error.sentence, penalty=20) from None
        if not signed:
            raise Misbehaved("wrong-signature", "the final signature is not by the buyer over this balance", penalty=50)
        self._change(settled_msat=letter.paid_msat, settled_signature=letter.signature, closing=True)
        if self.phase is Phase.FUNDED:
            return
        self._close_alone()

    def _close_alone(self) -> None:
        """Close with the state that is worth most; without any, wait for the buyer or his refund."""
        self._change(closing=True)
        self._wait_until = None
        funding, last = self.funding, self.row.last
        assert funding is not None
        best_sat, best = -1, ""
        if self.row.settled_signature is not None:
            paid_sat = self.row.settled_msat // MSAT_PER_SAT
            best_sat, best = (paid_sat if paid_sat >= DUST_P2WPKH_SAT else 0), "settled"
        if last is not None and last.key is not None:
            worth_sat = last.paid_msat // MSAT_PER_SAT - claim_fee_sat(self.contract, self._rate(), with_parent=True)
            if worth_sat >= DUST_P2WPKH_SAT and worth_sat > best_sat:
                best = "conditional"
        if best == "settled" and self.row.settled_signature is not None:
            unsigned = state(self.contract, funding, self.row.settled_msat, None)
            self._publish(complete(self.contract, unsigned, self.row.settled_signature, self._coop))
        elif best == "conditional" and last is not None:
            unsigned = state(self.contract, funding, last.paid_msat, last.lock)
            self._publish(complete(self.contract, unsigned, last.signature, self._coop), last)
        else:
            self._enter(Phase.CLOSING, "closing, but there is no state to close with; the buyer closes or takes his refund")

    def _publish(self, close: Tx, locked: Commitment | None = None) -> None:
        self._change(close_raw=close.serialise())
        self._enter(Phase.CLOSING, "the close is on its way to the chain")
        self._submit(self.row.close_raw, "close")
        if locked is not None:
            self._claim(close, locked, with_parent=True)

    def _claim(self, close: Tx, locked: Commitment, *, with_parent: bool) -> None:
        """Claim at the going rate; again only when that has risen enough for nodes to replace the earlier claim."""
        rate = self._rate()
        if locked.key is None or (self.row.end_raw and 4 * rate < 5 * self.row.end_feerate_sat_per_kvb):
            return
        fee = claim_fee_sat(self.contract, rate, with_parent=with_parent)
        claiming = claim(self.contract, close, locked.lock, locked.key, self._key, fee)
        if claiming is not None:
            self._change(end_raw=claiming.serialise(), end_feerate_sat_per_kvb=rate)
            self._submit(self.row.end_raw, "claim")

    # --- the chain ---------------------------------------------------------------------------------------------

    def _locks(self) -> Iterable[bytes]:
        return () if self.row.last is None else (self.row.last.lock,)

    def _tell_ready(self) -> None:
        self._effects.append(Ready(channel=self.channel))

    def _while_absent(self) -> None:
        if self._wait_until is None:
            self._wait(CHANNEL_FUND_WAIT_S)

    def _while_unspent(self) -> None:
        height = self._height or 0
        self._tell_locked()
        if self.phase is not Phase.OPEN:
            return
        if height >= self._deadline - self.network.margin_blocks or self.row.settled_msat > self.row.revealed_msat:
            self._close_alone()
        elif height >= self.serves_until and not self._asked_close:
            self._ask_close("the escrow is about to run out")
        elif self.row.closing and self._wait_until is None:
            self._wait(CHANNEL_CLOSE_WAIT_S)

    def _while_claimable(self, spend: Spend, info: OutInfo) -> None:
        last = self.row.last
        if last is not None and spend.lock == last.lock:
            self._claim(spend.transaction, last, with_parent=info.height is None)

    # --- what is owed ------------------------------------------------------------------------------------------

    def _on_tick(self, _: Tick) -> None:
        if self._waited():
            if self.phase in (Phase.AGREED, Phase.FUNDED):
                self._end_without_money(How.UNFUNDED, "not funded in time; released")
            elif self.phase is Phase.OPEN and self.row.closing:
                self._close_alone()
        self._tick_resend()

    def _owed(self) -> list[AnyLetter]:
        if self.phase is Phase.AGREED:
            return [self._opened_letter()]
        if self.phase is Phase.OPEN and self._asked_close:
            return [AskClose(channel=self.channel, reason="please close")]
        return []

    def _missing(self) -> list[tuple[bytes, str]]:
        if self.phase not in (Phase.CLOSING, Phase.CLAIMING) or not self.row.close_raw:
            return []
        info = None if self.funding is None else self._seen.get(self.funding)
        missing = []
        if info is None or info.spent_by is None:
            missing.append((self.row.close_raw, "close"))
        if self.row.end_raw:
            taken = self._seen.get(parse(self.row.end_raw).inputs[0].outpoint)
            if taken is None or taken.spent_by is None:
                missing.append((self.row.end_raw, "claim"))
        return missing

    def _tell_again(self) -> None:
        super()._tell_again()
        last = self.row.last
        if self.phase in (Phase.AGREED, Phase.FUNDED):
            self._wait(CHANNEL_FUND_WAIT_S)
        elif self.phase is Phase.OPEN and self.row.closing:
            self._asked_close = True  # who asked is not kept; a kill may have swallowed our letter, and to ask twice harms nobody
            self._wait(CHANNEL_CLOSE_WAIT_S)
        self._tell_locked(again=True)
        if last is not None and last.key is not None and self.phase in (Phase.OPEN, Phase.CLOSING, Phase.CLAIMING):
            require(sha256(last.key) == last.lock, "wrong-key", "the stored key does not open its lock")
            self._send(Key(channel=self.channel, sequence=last.sequence, key=last.key))
