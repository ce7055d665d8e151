"""Agreeing with the other party on what the auction matched; ``agreement`` has the letters and the machine.

Safety rests on three habits, not on equal views. We sign only a fill that we computed ourselves, for an order that we
published in this run of the node, and each unit of it once, in one epoch. What we sign is journalled before it leaves. What we
sign is taken off what may be promised at once. Every letter may be lost, repeated or forged; none makes us break a habit.
"""

from dataclasses import replace
from typing import Final, assert_never

from orderbook.core.agreement import (
    DIFFERENT_VIEW,
    LETTERS,
    OPEN,
    Accept,
    Agreement,
    AgreementLetter,
    Confirm,
    Cue,
    Decline,
    Key,
    Phase,
    Propose,
    key_in,
    key_of,
)
from orderbook.core.auction import Fill
from orderbook.core.events import Agreed, Cleared, CompareBooks, DeskEffect, Letter, NoShow, PublishOrder
from orderbook.core.evidence import Witness
from orderbook.core.line import Line
from orderbook.core.messages import (
    ZERO_ROOT,
    Close,
    Match,
    Side,
    SignedMatch,
    read,
    seal_proof,
    sign_match,
    verify_match,
)
from orderbook.core.pen import Pen
from orderbook.core.reasons import SENTENCES, missed
from wire.effects import Blame, Count
from wire.errors import Ignore, Misbehaved, require
from wire.keys import PeerId, SecretKey, peer_id_of, verify
from wire.limits import AGREEMENTS_PER_EPOCH_MAX
from wire.moments import MILLISECOND, Instant, after
from wire.network import Network

_REPEATS_PER_EPOCH: Final = 8
_LETTER_MAX_BYTES: Final = 4_096
_HELD_PER_PEER_MAX: Final = 64


class Talks:
    """All agreements of the present epoch. Effects gather in ``out``, for the desk to take."""

    def __init__(self, key: SecretKey, network: Network, pen: Pen) -> None:
        self._key, self._network, self._clock, self._pen = key, network, network.clock, pen
        self._views: dict[bytes, Cleared] = {}
        self._agreements: dict[tuple[bytes, Key], Agreement] = {}
        self._held: dict[tuple[PeerId, bytes, Key], Propose] = {}
        self._compared: set[tuple[bytes, int, PeerId]] = set()
        self._witness = Witness()
        self.out: list[DeskEffect] = []

    def __len__(self) -> int:
        return len(self._agreements)

    # --- time -----------------------------------------------------------------------------------------------

    def next_deadline(self) -> Instant | None:
        """When ``due`` must be called at the latest."""
        moments = [one.repeat_at for one in self._agreements.values() if one.repeat_at is not None]
        moments += [after(self._clock.accept_by(one.epoch), 1) for one in self._agreements.values() if one.phase in OPEN]
        return min(moments, default=None)

    def due(self, now: Instant) -> None:
        """Say again what has not been answered, and give up what was not answered in time."""
        for place in sorted(self._agreements):
            agreement = self._agreements[place]
            if agreement.phase in OPEN and now > self._clock.accept_by(agreement.epoch):
                self._fall_silent(agreement)
            if agreement.repeat_at is not None and agreement.repeat_at <= now:
                self._say_again(agreement, now)

    def turn(self, epoch: int) -> None:
        """A new epoch: what belonged to earlier ones is over."""
        self._agreements = {place: one for place, one in self._agreements.items() if one.epoch >= epoch}
        self._held = {place: one for place, one in self._held.items() if one.match.epoch >= epoch}
        self._compared = {one for one in self._compared if one[1] >= epoch}
        self._views = {book: view for book, view in self._views.items() if view.epoch >= epoch}
        self._witness.forget(epoch)

    def busy(self) -> frozenset[int]:
        """The identities of lines with an open agreement."""
        return frozenset(id(self._line(one)) for one in self._agreements.values() if one.phase in OPEN)

    @property
    def proposing(self) -> bool:
        """Whether a proposal of ours waits for its answer."""
        return any(one.phase is Phase.PROPOSED for one in self._agreements.values())

    def _fall_silent(self, agreement: Agreement) -> None:
        code = {Phase.EXPECTED: "no-proposal", Phase.PROPOSED: "no-answer", Phase.ACCEPTED: "no-confirmation"}[agreement.phase]
        self._end(agreement, Cue.SILENCE, code)
        self.out.append(NoShow(peer=agreement.peer, code=code, sentence=SENTENCES[code]))

    def _end(self, agreement: Agreement, cue: Cue, code: str) -> None:
        """The agreement comes to nothing. What was promised for it may be promised again, by another order."""
        if agreement.phase is Phase.ACCEPTED:
            self._line(agreement).promised -= agreement.fill.quantity
        agreement.step(cue)
        agreement.repeat_at = None
        self._missed(self._line(agreement), agreement.epoch, code)

    def _say_again(self, agreement: Agreement, now: Instant) -> None:
        if agreement.phase is Phase.PROPOSED:
            self._send(agreement.peer, Propose(match=agreement.match))
        elif agreement.phase is Phase.ACCEPTED and agreement.signature is not None:
            self._send(agreement.peer, Accept(match=agreement.match, signature=agreement.signature))
        agreement.repeat_at = self._repeat_at(now) if agreement.phase in (Phase.PROPOSED, Phase.ACCEPTED) else None

    def _repeat_at(self, now: Instant) -> Instant:
        return after(now, self._clock.length_ms * MILLISECOND // _REPEATS_PER_EPOCH)

    def _line(self, agreement: Agreement) -> Line:
        return self._pen.orders[agreement.order_id].line

    def _missed(self, line: Line, epoch: int, code: str) -> None:
        self.out.append(missed(line, epoch, code, SENTENCES[code]))

    # --- the auction's result -------------------------------------------------------------------------------

    def cleared(self, view: Cleared, now: Instant) -> bool:
        """Begin what ``view`` matched of ours, and end what it no longer does. False when the view comes too late."""
        known = self._views.get(view.book)
        if view.epoch < self._clock.epoch(now) or (known is not None and known.epoch > view.epoch):
            self.out.append(Count(code="old-view"))
            return False
        self._views[view.book] = view
        fills = () if view.refusal else view.fills
        ours = {key_of(fill): fill for fill in fills if self._key.public in (fill.buy.owner, fill.sell.owner)}
        for place in sorted(self._agreements):
            agreement = self._agreements[place]
            if agreement.book == view.book and agreement.epoch == view.epoch and ours.get(place[1]) != agreement.fill:
                if agreement.phase in (Phase.EXPECTED, Phase.PROPOSED):
                    self._end(agreement, Cue.DROP, "view-changed")
                elif agreement.phase is Phase.REFUSED:
                    agreement.step(Cue.DROP)
        for fill in ours.values():
            self._matched(view, fill, now)
        here = (view.book, view.epoch)
        for held in sorted(place for place, one in self._held.items() if (one.match.book, one.match.epoch) == here):
            self._guarded(held[0], self._held.pop(held), now, held=True)
        return True

    def _matched(self, view: Cleared, fill: Fill, now: Instant) -> None:
        side = Side.BUY if fill.buy.owner == self._key.public else Side.SELL
        mine, theirs = (fill.buy, fill.sell) if side is Side.BUY else (fill.sell, fill.buy)
        place = (view.book, key_of(fill))
        before = self._agreements.get(place)
        if before is not None and before.phase is not Phase.REFUSED and before.phase is not Phase.DROPPED:
            return
        standing = self._pen.orders.get(mine.id)
        if standing is None:
            self.out += self._pen.disown(view.book, mine.id, self._clock.epoch(now))[1]
            return
        line = standing.line
        if now > self._last_signing(view.epoch, Side.SELL):
            self._missed(line, view.epoch, "late")
            return
        agreement = Agreement(
            book=view.book,
            epoch=view.epoch,
            side=side,
            fill=fill,
            peer=peer_id_of(theirs.owner),
            phase=Phase.PROPOSED if side is Side.BUY else Phase.EXPECTED,
            match=self._draft(view, fill),
        )
        if side is Side.BUY and not self._may_sign(agreement, proposed=self._proposed(line)):
            self._missed(line, view.epoch, "withdrawn")
            return
        self._agreements[place] = agreement
        if side is Side.BUY:
            self._send(agreement.peer, Propose(match=agreement.match))
            agreement.repeat_at = self._repeat_at(now)

    def _proposed(self, line: Line) -> int:
        """Units of ``line`` that open proposals of ours may still take."""
        return sum(
            one.fill.quantity for one in self._agreements.values() if one.phase is Phase.PROPOSED and self._line(one) is line
        )

    def _draft(self, view: Cleared, fill: Fill) -> Match:
        """The match as a buyer with our view proposes it."""
        return Match(
            network=self._network.name,
            book=view.book,
            epoch=view.epoch,
            buy=fill.buy.id,
            sell=fill.sell.id,
            quantity=fill.quantity,
            price_msat=fill.price_msat,
            buy_from=fill.buy_from,
            sell_from=fill.sell_from,
            accept_by_us=self._clock.accept_by(view.epoch),
            buyer_root=view.root,
            seller_root=ZERO_ROOT,
        )

    # --- letters --------------------------------------------------------------------------------------------

    def letter_in(self, peer: PeerId, payload: bytes, now: Instant) -> None:
        """A letter; whatever is wrong with it is counted, and blamed where somebody is to blame."""
        try:
            letter: AgreementLetter = LETTERS.unpack(payload, _LETTER_MAX_BYTES)
        except Misbehaved as error:
            self.out.append(Count(code=error.code))
            self.out.append(Blame(peer=peer, code=error.code, sentence=error.sentence, penalty=error.penalty))
        else:
            self._guarded(peer, letter, now, held=False)

    def _guarded(self, peer: PeerId, letter: AgreementLetter, now: Instant, *, held: bool) -> None:
        try:
            match letter:
                case Propose():
                    self._proposal(peer, letter, now, held=held)
                case Accept():
                    self._acceptance(peer, letter, now)
                case Confirm():
                    self._confirmation(peer, letter, now)
                case Decline():
                    self._refusal(peer, letter)
                case _:
                    assert_never(letter)
        except Misbehaved as error:
            self.out.append(Count(code=error.code))
            self.out.append(Blame(peer=peer, code=error.code, sentence=error.sentence, penalty=error.penalty))
        except Ignore as error:
            self.out.append(Count(code=error.code))

    def _proposal(self, peer: PeerId, letter: Propose, now: Instant, *, held: bool) -> None:
        match = letter.match
        if match.network != self._network.name:
            raise Ignore("wrong-network", "this proposal is for another network")
        if now > self._last_signing(match.epoch, Side.SELL):
            raise Ignore("late", "this proposal came after its epoch's time for signing")
        if match.epoch > self._clock.epoch(now) + 1:
            raise Ignore("early", "this proposal is for an epoch far ahead")
        view = self._views.get(match.book)
        computed = view is not None and view.epoch >= match.epoch
        if match.sell not in self._pen.orders:
            self._not_ours(peer, match, view, now)
            return
        if view is None or not computed:
            self._hold(peer, letter)
            return
        agreement = self._agreements.get((match.book, key_in(match)))
        if agreement is not None and agreement.peer == peer and agreement.phase is Phase.DROPPED and self._closed(agreement):
            self._decline(peer, match, "withdrawn", self._closed(agreement))
            return
        if agreement is None or agreement.phase is Phase.DROPPED or not self._same(agreement, match):
            self._disagree(peer, letter, view, held=held)
            return
        if agreement.peer != peer:
            raise Misbehaved("not-yours", "this proposal is for a match of somebody else", penalty=20)
        following = agreement.next_phase(Cue.PROPOSAL)
        if agreement.signature is None:
            if not self._may_sign(agreement, proposed=0):
                self._decline_closed(agreement, now)
                return
            signed = replace(match, seller_root=view.root)
            self._sign(agreement, signed)
            self._line(agreement).promised += signed.quantity
        require(agreement.signature is not None, "unsigned", "an accepted match has our signature")
        agreement.phase = following
        self._say_again(agreement, now)

    def _not_ours(self, peer: PeerId, match: Match, view: Cleared | None, now: Instant) -> None:
        """A proposal for an order that we did not publish in this run. If it is in our name, it is from before a restart."""
        if view is None or all(one.id != match.sell for one in view.sells if one.owner == self._key.public):
            raise Ignore("not-our-order", "this proposal is for an order that is not ours")
        close, effects = self._pen.disown(match.book, match.sell, self._clock.epoch(now))
        self.out += effects
        self._decline(peer, match, "withdrawn", close)

    def _hold(self, peer: PeerId, letter: Propose) -> None:
        """Keep a proposal until our own auction, or its second computation, has a say."""
        if sum(place[0] == peer for place in self._held) >= _HELD_PER_PEER_MAX:
            raise Ignore("proposals-full", "too many proposals of this peer wait for the auction")
        self._held[peer, letter.match.book, key_in(letter.match)] = letter

    def _same(self, agreement: Agreement, match: Match) -> bool:
        """Whether ``match`` is the fill that we computed ourselves; roots are information only."""
        ours = agreement.match
        return replace(match, buyer_root=ZERO_ROOT, seller_root=ZERO_ROOT) == replace(
            ours, buyer_root=ZERO_ROOT, seller_root=ZERO_ROOT
        )

    def _disagree(self, peer: PeerId, letter: Propose, view: Cleared, *, held: bool) -> None:
        """The buyer computed something else than we: compare books once, and answer with what comes of it."""
        match = letter.match
        if view.refusal:
            self._decline(peer, match, view.refusal, b"")
            return
        if self._compare(match.book, match.epoch, peer) or not (held or view.again):
            self._hold(peer, letter)
        self._decline(peer, match, DIFFERENT_VIEW, b"")

    def _compare(self, book: bytes, epoch: int, peer: PeerId) -> bool:
        """Ask for a comparison, once per epoch and peer; False when that has been done."""
        mark = (book, epoch, peer)
        if mark in self._compared or len(self._compared) >= AGREEMENTS_PER_EPOCH_MAX:
            return False
        self._compared.add(mark)
        self.out.append(CompareBooks(book=book, epoch=epoch, peer=peer))
        return True

    def _closed(self, agreement: Agreement) -> bytes:
        """Our close of the order, or nothing when it stands."""
        standing = self._pen.orders.get(agreement.order_id)
        return standing.close if standing is not None else b""

    def _decline_closed(self, agreement: Agreement, now: Instant) -> None:
        """We want less than this by now: the order is withdrawn, and the other party sees the close."""
        standing = self._pen.orders[agreement.order_id]
        close, effects = self._pen.close(standing, self._clock.epoch(now))
        self.out += effects
        self._decline(agreement.peer, agreement.match, "withdrawn", close)
        self._end(agreement, Cue.DROP, "withdrawn")

    def _decline(self, peer: PeerId, match: Match, code: str, close: bytes) -> None:
        self._send(
            peer,
            Decline(
                book=match.book,
                epoch=match.epoch,
                buy=match.buy,
                sell=match.sell,
                buy_from=match.buy_from,
                sell_from=match.sell_from,
                code=code,
                close=close,
            ),
        )

    def _acceptance(self, peer: PeerId, letter: Accept, now: Instant) -> None:
        match = letter.match
        agreement = self._ours(peer, match, Side.BUY)
        if not verify_match(agreement.fill.sell.owner, match, Side.SELL, letter.signature):
            raise Misbehaved("wrong-signature", "the seller's signature is not over this match", penalty=50)
        self._remember(agreement.fill.sell.owner, Side.SELL, match, letter.signature)
        following, agreed = agreement.next_phase(Cue.ACCEPTANCE), None
        if agreement.signature is None:
            if now > self._last_signing(match.epoch, Side.BUY):
                raise Ignore("late", "this acceptance came after the epoch's time for signing")
            if not self._may_sign(agreement, proposed=0):
                self._decline_closed(agreement, now)
                return
            self._sign(agreement, match)
            line = self._line(agreement)
            line.wanted -= match.quantity
            agreed = self._agreed(agreement, letter.signature, line)
        if agreement.match != match or agreement.signature is None:
            raise Misbehaved("second-acceptance", "this seller accepts one match twice, in different words", penalty=20)
        agreement.phase = following
        agreement.repeat_at = None
        self._send(peer, Confirm(match=agreement.match, signature=agreement.signature))
        if agreed is not None:
            self.out.append(agreed)  # after the confirmation, so that the seller knows the deal before he hears of it

    def _confirmation(self, peer: PeerId, letter: Confirm, now: Instant) -> None:
        match = letter.match
        agreement = self._ours(peer, match, Side.SELL)
        if not verify_match(agreement.fill.buy.owner, match, Side.BUY, letter.signature):
            raise Misbehaved("wrong-signature", "the buyer's signature is not over this match", penalty=50)
        self._remember(agreement.fill.buy.owner, Side.BUY, match, letter.signature)
        following = agreement.next_phase(Cue.CONFIRMATION)
        if agreement.match != match:
            raise Misbehaved("not-what-we-signed", "this confirms another match than the one we signed", penalty=20)
        if now > self._last_signing(match.epoch, Side.SELL):
            raise Ignore("late", "this confirmation came after the epoch's time for signing")
        if agreement.phase is Phase.ACCEPTED:
            line = self._line(agreement)
            line.promised -= match.quantity
            line.wanted = max(0, line.wanted - match.quantity)
            self.out.append(self._agreed(agreement, letter.signature, line))
        agreement.phase = following
        agreement.repeat_at = None

    def _refusal(self, peer: PeerId, letter: Decline) -> None:
        agreement = self._agreements.get((letter.book, key_in(letter)))
        if agreement is None or agreement.peer != peer or agreement.epoch != letter.epoch:
            raise Ignore("no-such-match", "this declines nothing of ours")
        agreement.next_phase(Cue.REFUSAL)
        self._pass_on(letter.close, agreement)
        if letter.code != DIFFERENT_VIEW and not letter.close:
            self.out.append(NoShow(peer=peer, code="refused", sentence=SENTENCES["refused"]))
        proposed = agreement.phase is Phase.PROPOSED  # what we have accepted is signed, and no other view unsigns it
        if proposed and letter.code == DIFFERENT_VIEW and self._compare(letter.book, letter.epoch, peer):
            agreement.step(Cue.REFUSAL)
            agreement.repeat_at = None
        else:
            self._end(agreement, Cue.REFUSAL, DIFFERENT_VIEW if letter.code == DIFFERENT_VIEW else "refused")

    def _pass_on(self, message: bytes, agreement: Agreement) -> None:
        """The counterparty's close of its order, if it is one: then it is news for the book."""
        if not message:
            return
        heard = read(self._network, message)
        theirs = agreement.theirs
        if not isinstance(heard.body, Close) or (heard.body.order, heard.body.owner) != (theirs.id, theirs.owner):
            raise Misbehaved("not-a-close", "what came with this refusal is not a close of the sender's order", penalty=20)
        if not all(verify(one.public, one.digest, one.signature) for one in heard.checks):
            raise Misbehaved("wrong-signature", "the close that came with this refusal is not signed by its owner", penalty=50)
        self.out.append(PublishOrder(message=message))

    def _ours(self, peer: PeerId, match: Match, side: Side) -> Agreement:
        agreement = self._agreements.get((match.book, key_in(match)))
        if agreement is None or agreement.side is not side or agreement.epoch != match.epoch:
            raise Ignore("no-such-match", "this is about no match of ours")
        if agreement.peer != peer:
            raise Misbehaved("not-yours", "this letter is about a match of somebody else", penalty=20)
        if not self._same(agreement, match):
            raise Ignore("different-match", "this is not the match that we compute now; one of us has changed its view meanwhile")
        return agreement

    # --- signing --------------------------------------------------------------------------------------------

    def _last_signing(self, epoch: int, side: Side) -> Instant:
        """The last moment at which ``side`` signs; the buyer's is earlier, so that his confirmation still arrives."""
        margin = self._clock.length_ms * MILLISECOND // 20 if side is Side.BUY else 0
        return Instant(self._clock.accept_by(epoch) - margin)

    def _may_sign(self, agreement: Agreement, *, proposed: int) -> bool:
        standing = self._pen.orders.get(agreement.order_id)
        if standing is None or standing.closed or not standing.may_sign(agreement.epoch, agreement.units):
            return False
        return standing.line.free - proposed >= agreement.fill.quantity

    def _sign(self, agreement: Agreement, match: Match) -> None:
        standing = self._pen.orders[agreement.order_id]
        require(standing.may_sign(match.epoch, agreement.units), "double-signing", "a unit of an order is signed away once")
        standing.sign(match.epoch, agreement.units)
        agreement.match = match
        agreement.signature = sign_match(self._key, match, agreement.side)
        self.out.append(self._pen.record(match, agreement.side, agreement.signature, agreement.theirs.owner))

    def _agreed(self, agreement: Agreement, theirs: bytes, line: Line) -> Agreed:
        ours = agreement.signature or b""
        buying = agreement.side is Side.BUY
        signed = SignedMatch(
            match=agreement.match,
            buyer=agreement.fill.buy.owner,
            seller=agreement.fill.sell.owner,
            buyer_signature=ours if buying else theirs,
            seller_signature=theirs if buying else ours,
        )
        return Agreed(match=signed, side=agreement.side, price_msat=line.price_msat)

    def _remember(self, signer: bytes, side: Side, match: Match, signature: bytes) -> None:
        proof = self._witness.add(signer, side, match, signature)
        if proof is not None:
            self.out.append(PublishOrder(message=seal_proof(self._network, proof)))
            raise Misbehaved("equivocation", "this party has signed one order away twice", penalty=100)

    def _send(self, peer: PeerId, letter: AgreementLetter) -> None:
        self.out.append(Letter(peer=peer, payload=LETTERS.pack(letter)))
