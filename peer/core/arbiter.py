"""The arbiter's half of a dispute: cases, what stands in them, and the one ruling that each of them may get.

Theory of operation. A case is a channel whose terms name us. A party opens it with an appeal; the other party is told and may
appeal too. Nothing is decided before the chain has shown the escrow, unspent, and the ruling height has come: until then the
parties can settle without us, and afterwards, too. A ruling is one division of the money. It is kept before it is told, told to
both, told again to whoever asks, and never replaced by another: two rulings would be a choice for somebody else.

    heard     an appeal is here; the chain has not shown the escrow yet
    open      the escrow is there and whole; waits for the ruling height and for a ruling
    ruled     signed; one of the parties completes it
    closed    the escrow is spent, by our ruling or without it
    refused   there will be no ruling, and why

Rulings come from the operator. When ``automatic``, two kinds come by themselves, a margin of blocks after the ruling height so
that everybody could speak: both parties ask for the same, or the seller asks for no more than a balance that the buyer signed,
with the key that it was locked to. Everything else is somebody's word.
"""

import dataclasses
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final

from escrow.core.contract import Contract
from escrow.core.events import OutpointSeen, TipSeen, Unwatch, Watch
from escrow.core.ruling import BadRuling, divide, ruling_fee_sat, sign_ruling
from escrow.core.spends import SpendKind, classify
from escrow.core.transaction import BadTransaction, parse, read_outpoint
from peer.core.bundle import Bundle, ChannelPart, NotProven, contract_of_part, seal_lies
from peer.core.court import COURT, Appeal, Code, CourtLetter, Heard, Ruling, Statement, Summons, check_appeal, clip, proven_sat
from peer.core.events import Notice, Post, Reply, RuleAsked
from peer.core.letters import Lane, address
from wire.bucket import Bucket
from wire.canon import U32, U63, Size, pack, record, unpack
from wire.effects import Count, Save
from wire.errors import Ignore, Misbehaved, Refused, require
from wire.keys import PeerId, SecretKey, peer_id_of, public_of
from wire.limits import APPEAL_BUNDLES_MAX, APPEALS_AT_ONCE_MAX, CASES_MAX, COURIER_PEERS_MAX
from wire.moments import Instant
from wire.network import Network
from wire.ports import OutPoint, TxInfo

CASE_TABLE: Final = "case"


class CasePhase(StrEnum):
    """Where a case stands."""

    HEARD = "heard"
    OPEN = "open"
    RULED = "ruled"
    CLOSED = "closed"
    REFUSED = "refused"


class CaseStep(StrEnum):
    """What can happen to a case."""

    SEE = "see"
    RULE = "rule"
    SPEND = "spend"
    RETURN = "return"
    REFUSE = "refuse"


CASE_STEPS: Final[dict[CasePhase, dict[CaseStep, CasePhase]]] = {
    CasePhase.HEARD: {CaseStep.SEE: CasePhase.OPEN, CaseStep.SPEND: CasePhase.CLOSED, CaseStep.REFUSE: CasePhase.REFUSED},
    CasePhase.OPEN: {CaseStep.RULE: CasePhase.RULED, CaseStep.SPEND: CasePhase.CLOSED, CaseStep.RETURN: CasePhase.HEARD},
    CasePhase.RULED: {CaseStep.SPEND: CasePhase.CLOSED},
    CasePhase.CLOSED: {CaseStep.RETURN: CasePhase.HEARD, CaseStep.RULE: CasePhase.RULED},
    CasePhase.REFUSED: {},
}
"""CLOSED goes back by RETURN, or by RULE when there is a ruling, if a reorganisation takes the spending away."""


@record
class Plea:
    """What one party has said, last."""

    to_seller_sat: U63
    statement: Statement
    bundles: Annotated[tuple[Bundle, ...], Size(0, APPEAL_BUNDLES_MAX)]


@record
class Case:
    """One channel that we may rule on (table ``case``, key channel)."""

    channel: ChannelPart
    phase: CasePhase
    code: Code
    sentence: Statement
    opened_height: U32
    buyer: Plea | None
    seller: Plea | None
    ruling: Ruling | None


class Court:
    """All our cases. ``serving`` says whether we are an arbiter at all."""

    TABLES: ClassVar[tuple[str, ...]] = (CASE_TABLE,)

    def __init__(
        self, key: SecretKey, network: Network, instance: bytes | None, *, serving: bool = False, automatic: bool = False
    ) -> None:
        self._key = key
        self._network = network
        self._instance = instance
        self._serving = serving
        self._automatic = automatic
        self._tip: TipSeen | None = None
        self.cases: dict[bytes, Case] = {}
        self._budgets: dict[PeerId, Bucket] = {}
        self._contracts: dict[bytes, Contract] = {}
        self._watched: dict[OutPoint, bytes] = {}
        self._dirty: dict[bytes, bytes | None] = {}

    def load(self, rows: Mapping[bytes, bytes]) -> None:
        """Take over the rows that the journal kept."""
        self.cases = {key: unpack(Case, raw) for key, raw in sorted(rows.items())}
        self._contracts = {key: contract_of_part(self._network, case.channel) for key, case in self.cases.items()}

    def resume(self) -> list[Any]:
        """After a restart: look at every escrow again."""
        return [effect for name in self.cases for effect in self._watch(name)]

    # --- letters ------------------------------------------------------------------------------------------------------
    def hear(self, peer: PeerId, appeal: Appeal, now: Instant) -> list[Any]:
        """An appeal. Raises ``Misbehaved`` when it is not the appeal of a party, or its evidence does not hold."""
        if not self._serving:
            raise Ignore("no-arbiter", "an appeal came to a node that is no arbiter")
        if not self._budget(peer, now).spend(1, now):
            raise Ignore("appeal-budget", "an account appeals more often than we listen")
        try:
            contract = check_appeal(self._network, appeal)
        except NotProven as error:
            raise Misbehaved(error.code, error.sentence, penalty=20) from None
        terms, speaker = contract.terms, public_of(peer)
        if terms.arbiter != self._key.public:
            raise Misbehaved("not-the-arbiter", "an appeal about a channel with another arbiter")
        if speaker not in (terms.buyer, terms.seller):
            raise Misbehaved("not-a-party", "an appeal by somebody who has no part in the channel", penalty=50)
        name = contract.channel
        known = self.cases.get(name)
        if known is None:
            refusal = self._refusal(contract)
            if refusal is not None:
                return [self._say(peer, Heard(channel=name, refused=True, code=refusal[0], sentence=refusal[1]))]
            known = self._new_case(appeal.channel)
            self._contracts[name] = contract
            made_room = self._make_room()
            return [*made_room, *self._plead(name, known, speaker, appeal)]
        if known.channel.funding != appeal.channel.funding:
            raise Misbehaved("other-funding", "an appeal that names another escrow than the one before")
        return self._plead(name, known, speaker, appeal)

    def _budget(self, peer: PeerId, now: Instant) -> Bucket:
        """How often this account may appeal: checking evidence is work."""
        while len(self._budgets) >= COURIER_PEERS_MAX and peer not in self._budgets:
            del self._budgets[next(iter(self._budgets))]
        return self._budgets.setdefault(peer, Bucket(1, APPEALS_AT_ONCE_MAX, now))

    def _refusal(self, contract: Contract) -> tuple[str, str] | None:
        """Why no case is made of this, or None."""
        if self._tip is None or contract.terms.instance != self._instance:
            return "other-chain", "the arbiter does not see the chain that this channel is on"
        if len(self.cases) >= CASES_MAX and self._least_wanted() is None:
            return "court-full", "the arbiter has as many cases as he can take; ask again later"
        return None

    def _least_wanted(self) -> bytes | None:
        """The case that makes room: the oldest that is over, else the oldest that the chain has not confirmed."""
        for phases in ((CasePhase.CLOSED, CasePhase.REFUSED), (CasePhase.HEARD,)):
            for name, case in self.cases.items():
                if case.phase in phases:
                    return name
        return None

    def _make_room(self) -> list[Any]:
        name = self._least_wanted() if len(self.cases) >= CASES_MAX else None
        if name is None:
            return []
        outpoint = read_outpoint(self.cases[name].channel.funding)
        del self.cases[name], self._contracts[name]
        self._dirty[name] = None
        return [Unwatch(outpoint=outpoint)] if self._watched.pop(outpoint, None) else []

    def _new_case(self, channel: ChannelPart) -> Case:
        return Case(
            channel=channel,
            phase=CasePhase.HEARD,
            code="heard",
            sentence="the appeal is here; looking for the escrow on the chain",
            opened_height=0 if self._tip is None else self._tip.height,
            buyer=None,
            seller=None,
            ruling=None,
        )

    def _plead(self, name: bytes, case: Case, speaker: bytes, appeal: Appeal) -> list[Any]:
        if case.phase in (CasePhase.HEARD, CasePhase.OPEN):
            plea = Plea(to_seller_sat=appeal.to_seller_sat, statement=appeal.statement, bundles=appeal.bundles)
            by_buyer = speaker == case.channel.terms.buyer
            fresh = plea != (case.buyer if by_buyer else case.seller)
            case = dataclasses.replace(case, buyer=plea) if by_buyer else dataclasses.replace(case, seller=plea)
            if fresh:
                self._keep(name, case)
        effects = [*self._watch(name), *self._tell(name, peer_id_of(speaker))]
        other = case.channel.terms.seller if speaker == case.channel.terms.buyer else case.channel.terms.buyer
        silent = case.seller is None or case.buyer is None
        if silent and case.phase in (CasePhase.HEARD, CasePhase.OPEN):
            summons = Summons(channel=name, to_seller_sat=appeal.to_seller_sat, statement=appeal.statement)
            effects.append(self._say(peer_id_of(other), summons))
        return [*effects, *self._rule_alone(name)]

    def peer_up(self, peer: PeerId) -> list[Any]:
        """A party can be reached again: say how his cases stand, and that he is waited for."""
        effects: list[Any] = []
        for name, case in self.cases.items():
            terms = case.channel.terms
            if public_of(peer) not in (terms.buyer, terms.seller):
                continue
            ours, theirs = (case.buyer, case.seller) if public_of(peer) == terms.buyer else (case.seller, case.buyer)
            if case.phase in (CasePhase.HEARD, CasePhase.OPEN) and ours is None and theirs is not None:
                summons = Summons(channel=name, to_seller_sat=theirs.to_seller_sat, statement=theirs.statement)
                effects.append(self._say(peer, summons))
            else:
                effects += self._tell(name, peer)
        return effects

    def _tell(self, name: bytes, peer: PeerId) -> list[Any]:
        case = self.cases[name]
        if case.phase is CasePhase.RULED and case.ruling is not None:
            return [self._say(peer, case.ruling)]
        refused = case.phase is CasePhase.REFUSED
        return [self._say(peer, Heard(channel=name, refused=refused, code=case.code, sentence=case.sentence))]

    @staticmethod
    def _say(peer: PeerId, letter: CourtLetter) -> Post:
        return Post(peer=peer, letter=address(Lane.COURT, COURT.pack(letter)))

    # --- the chain ----------------------------------------------------------------------------------------------------
    def tip_seen(self, event: TipSeen) -> list[Any]:
        """A new best block: some cases may be due, some are over for good."""
        self._tip = event
        effects: list[Any] = []
        for name in list(self.cases):
            effects += self._rule_alone(name)
        return effects

    def outpoint_seen(self, event: OutpointSeen) -> list[Any]:
        """What the chain says about an escrow."""
        name = self._watched.get(event.outpoint)
        if name is None or name not in self.cases:
            return []
        case, contract, info = self.cases[name], self._contracts[name], event.info
        if info is None:
            return self._move(name, CaseStep.RETURN, "heard", "the escrow is not on the chain")
        if (info.value_sat, info.script) != (contract.funding.value_sat, contract.funding.script):
            return self._move(name, CaseStep.REFUSE, "wrong-escrow", "the output on the chain is not the escrow that both signed")
        if info.spent_by is not None:
            return self._move(
                name, CaseStep.SPEND, "closed", self._how(contract, read_outpoint(case.channel.funding), info.spent_by)
            )
        if case.phase is CasePhase.CLOSED:
            if case.ruling is not None:
                return self._move(name, CaseStep.RULE, "ruled", "the ruling waits for a party to complete it, again")
            self._move(name, CaseStep.RETURN, "heard", "what spent the escrow is not on the chain any more")
        height = contract.terms.ruling_height
        effects = self._move(name, CaseStep.SEE, "open", f"the escrow is there; a ruling is possible from block {height} on")
        return [*effects, *self._rule_alone(name)]

    def watches(self, outpoint: OutPoint) -> bool:
        """Whether a case is about this output."""
        return outpoint in self._watched

    @staticmethod
    def _how(contract: Contract, funding: OutPoint, spender: TxInfo) -> str:
        try:
            spend = classify(contract, parse(spender.raw), funding, ())
        except BadTransaction:
            return "the escrow was spent by a transaction that cannot be read"
        if spend.kind is not SpendKind.RULED:
            return "the escrow was spent without a ruling"
        return f"the ruling was carried out: {spend.to_seller_sat} sat to the seller, {spend.to_buyer_sat} sat to the buyer"

    def _watch(self, name: bytes) -> list[Any]:
        outpoint = read_outpoint(self.cases[name].channel.funding)
        if outpoint in self._watched:
            return []
        self._watched[outpoint] = name
        return [Watch(outpoint=outpoint)]

    # --- rulings ------------------------------------------------------------------------------------------------------
    def asked(self, event: RuleAsked) -> list[Any]:
        """The operator rules."""
        try:
            effects = self._rule(event.case, event.to_seller_sat, event.reason)
        except Refused as refusal:
            return [Reply(request=event.request, result=None, code=refusal.code, sentence=refusal.sentence)]
        return [*effects, Reply(request=event.request, result=None, code="", sentence="")]

    def _rule(self, name: bytes, to_seller_sat: int, reason: str) -> list[Any]:
        case = self.cases.get(name)
        if case is None:
            raise Refused("unknown-case", "there is no such case")
        if case.ruling is not None:
            if case.ruling.to_seller_sat == to_seller_sat:
                return []
            raise Refused("already-ruled", "this case has its ruling, and there is never a second one")
        if case.phase is not CasePhase.OPEN:
            raise Refused("not-open", f"there is nothing to rule on: {case.sentence}")
        terms, tip = case.channel.terms, self._tip
        if tip is None or tip.height < terms.ruling_height:
            raise Refused("too-early", f"until block {terms.ruling_height} the parties have time to settle without a ruling")
        contract, funding = self._contracts[name], read_outpoint(case.channel.funding)
        rate = min(tip.feerate_sat_per_kvb or 0, self._network.feerate_max_sat_per_kvb)
        to_seller, to_buyer = divide(contract, to_seller_sat, rate)
        signature = sign_ruling(contract, funding, to_seller, to_buyer, self._key)
        ruling = Ruling(channel=name, to_seller_sat=to_seller, to_buyer_sat=to_buyer, signature=signature, reason=clip(reason))
        self._keep(name, dataclasses.replace(case, ruling=ruling))
        effects = self._move(
            name, CaseStep.RULE, "ruled", clip(f"{to_seller} sat to the seller, {to_buyer} sat to the buyer: {reason}")
        )
        return [*effects, self._say(peer_id_of(terms.buyer), ruling), self._say(peer_id_of(terms.seller), ruling)]

    def _rule_alone(self, name: bytes) -> list[Any]:
        """A ruling that needs no judgement, if one is due."""
        case, tip = self.cases[name], self._tip
        if not self._automatic or case.phase is not CasePhase.OPEN or case.ruling is not None or tip is None:
            return []
        ready = max(case.channel.terms.ruling_height, case.opened_height) + self._network.margin_blocks
        found = self._objective(case)
        if found is None or tip.height < ready:
            return []
        try:
            return self._rule(name, *found)
        except BadRuling:
            return [Count(code="ruling-impossible")]

    def _objective(self, case: Case) -> tuple[int, str] | None:
        """What the seller gets by signatures alone, and why; None when somebody has to judge."""
        if case.seller is None:
            return None
        asked = case.seller.to_seller_sat
        if case.buyer is not None and case.buyer.to_seller_sat == asked:
            return asked, "both parties ask for the same"
        buyers = () if case.buyer is None else case.buyer.bundles
        if any(one.cipher is not None or seal_lies(one) for one in buyers):
            return None  # the buyer shows a result or a batch; whether it is bad, and what follows, is for somebody to judge
        if 0 < asked <= proven_sat(case.seller.bundles):
            return asked, "the buyer signed this balance, and the key it was locked to is here"
        return None

    # --- rows ---------------------------------------------------------------------------------------------------------
    def _move(self, name: bytes, step: CaseStep, code: str, sentence: str) -> list[Any]:
        case = self.cases[name]
        phase = CASE_STEPS[case.phase].get(step)
        if phase is None:
            return []
        require(phase is not CasePhase.RULED or case.ruling is not None, "no-ruling", "a case is ruled that has no ruling")
        self._keep(name, dataclasses.replace(case, phase=phase, code=code, sentence=sentence))
        facts = {"case": name.hex(), "phase": phase.value, "reason": sentence}
        told = [Notice(kind="case", facts=facts)]
        if phase in (CasePhase.OPEN, CasePhase.REFUSED):
            terms = self.cases[name].channel.terms
            pleas = ((terms.buyer, case.buyer), (terms.seller, case.seller))
            return [*told, *(effect for who, plea in pleas if plea is not None for effect in self._tell(name, peer_id_of(who)))]
        return list(told)

    def _keep(self, name: bytes, case: Case) -> None:
        self.cases[name] = case
        self._dirty[name] = pack(case)

    def drain(self) -> tuple[Save, ...]:
        """The rows that changed since the last call."""
        rows = tuple(Save(table=CASE_TABLE, key=key, value=value) for key, value in sorted(self._dirty.items()))
        self._dirty.clear()
        return rows

    # --- for people ---------------------------------------------------------------------------------------------------
    def statement(self) -> list[dict[str, Any]]:
        """Every case as plain values."""
        return [self._line(name, case) for name, case in self.cases.items()]

    def _line(self, name: bytes, case: Case) -> dict[str, Any]:
        terms, contract = case.channel.terms, self._contracts[name]
        rate = 0 if self._tip is None else self._tip.feerate_sat_per_kvb or 0
        line: dict[str, Any] = {
            "case": name.hex(),
            "phase": case.phase.value,
            "reason": case.sentence,
            "capacity_sat": terms.capacity_sat,
            "most_sat": terms.capacity_sat - ruling_fee_sat(contract, rate),
            "ready": case.phase is CasePhase.OPEN and self._tip is not None and self._tip.height >= terms.ruling_height,
            "from_height": terms.ruling_height,
            "until_height": terms.refund_height,
            "to_seller_sat": None if case.ruling is None else case.ruling.to_seller_sat,
            "to_buyer_sat": None if case.ruling is None else case.ruling.to_buyer_sat,
        }
        for role, plea in (("buyer", case.buyer), ("seller", case.seller)):
            line[f"{role}_asks_sat"] = None if plea is None else plea.to_seller_sat
            line[f"{role}_says"] = None if plea is None else plea.statement
            line[f"{role}_proves_sat"] = None if plea is None else proven_sat(plea.bundles)
            line[f"{role}_public"] = (terms.buyer if role == "buyer" else terms.seller).hex()
        return line
