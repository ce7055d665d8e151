"""A dispute without wires: two parties with their channels, an arbiter, and a chain that says what the test wants."""

import dataclasses
from typing import Any

import pytest

from escrow.core.amounts import RULING_VBYTES, fee_sat
from escrow.core.contract import channel_id
from escrow.core.events import OutpointSeen, Submit, TipSeen, Unwatch, Watch
from escrow.core.events import Phase as ChannelPhase
from escrow.core.opening import restore
from escrow.core.ruling import complete_ruling, sign_ruling
from escrow.core.state import ChannelRow, Commitment
from escrow.core.state import Role as ChannelRole
from escrow.core.transaction import parse, read_outpoint
from peer.core.appeals import APPEAL_STEPS, APPEAL_TABLE, AppealPhase, Appeals, AppealStep, best
from peer.core.arbiter import CASE_STEPS, CASE_TABLE, CasePhase, CaseStep, Court
from peer.core.bundle import Bundle, ChannelPart
from peer.core.court import COURT, Appeal, Heard, Ruling, Summons, clip, proven_sat
from peer.core.events import AppealAsked, Post, Reply, RuleAsked
from peer.core.letters import sort
from tests.core.evidence import (
    ARBITER,
    BUYER,
    FUNDING,
    INSTANCE,
    PRICE_MSAT,
    SELLER,
    STRANGER,
    a_bundle,
    channel_part,
    channel_terms,
)
from wire.canon import pack
from wire.errors import Ignore, Misbehaved
from wire.keys import SecretKey
from wire.limits import APPEAL_BUNDLES_MAX, APPEALS_AT_ONCE_MAX, APPEALS_MAX, CASES_MAX, STATEMENT_MAX_BYTES
from wire.moments import SECOND, Instant
from wire.network import REGTEST
from wire.ports import OutInfo, TxInfo

TERMS = channel_terms(arbiter=ARBITER.public)
NAME = channel_id(REGTEST.name, TERMS)
PART, CONTRACT = channel_part(TERMS)
EARNED_SAT = PRICE_MSAT // 1_000
RULING, MARGIN = TERMS.ruling_height, REGTEST.margin_blocks
NOW = Instant(1_000 * SECOND)
FEE = fee_sat(RULING_VBYTES, 1_000)
EVIDENCE = a_bundle(arbiter=ARBITER.public)
BAD_BATCH = a_bundle(arbiter=ARBITER.public, together=3, given=b"\x77" * 32, number=None)


def tip(height: int) -> TipSeen:
    return TipSeen(height=height, feerate_sat_per_kvb=1_000)


def there(spent_by: TxInfo | None = None) -> OutpointSeen:
    info = OutInfo(value_sat=CONTRACT.funding.value_sat, script=CONTRACT.funding.script, height=100, spent_by=spent_by)
    return OutpointSeen(outpoint=FUNDING, info=info)


def a_channel(role: ChannelRole, revealed_msat: int = PRICE_MSAT) -> ChannelRow:
    last = Commitment(
        sequence=1,
        ref=b"unit",
        lock=EVIDENCE.offer.lock,
        paid_msat=PRICE_MSAT,
        amount_msat=PRICE_MSAT,
        signature=EVIDENCE.payment.signature if EVIDENCE.payment else b"",
        settled=None,
        key=EVIDENCE.key if revealed_msat else None,
    )
    return ChannelRow(
        role=role,
        phase=ChannelPhase.OPEN,
        terms=TERMS,
        open_signature=PART.open_signature,
        opened_signature=PART.opened_signature,
        funding=PART.funding,
        funding_raw=b"",
        paid_msat=PRICE_MSAT,
        revealed_msat=revealed_msat,
        last=last,
        queue=(),
        settled_msat=0,
        settled_signature=None,
        closing=False,
        close_raw=b"",
        end_raw=b"",
        end_feerate_sat_per_kvb=0,
        ending=None,
    )


class Party:
    """A party's appeals with one channel."""

    def __init__(self, key: SecretKey, role: ChannelRole, evidence: list[Bundle], revealed_msat: int = PRICE_MSAT) -> None:
        self.key = key
        self.evidence = evidence
        self.rows: dict[bytes, bytes] = {}
        self.channels = restore(key, REGTEST, {NAME: pack(a_channel(role, revealed_msat))})
        self.appeals = Appeals(key, lambda: self.channels, lambda name: self.evidence)

    def save(self) -> None:
        for row in self.appeals.drain():
            assert row.table == APPEAL_TABLE
            if row.value is None:
                self.rows.pop(row.key)
            else:
                self.rows[row.key] = row.value

    def restart(self) -> None:
        self.save()
        self.appeals = Appeals(self.key, lambda: self.channels, lambda name: self.evidence)
        self.appeals.load(self.rows)

    def stands(self) -> AppealPhase:
        return self.appeals.rows[NAME].phase


class World:
    """Buyer, seller and arbiter; letters go where they are addressed, except to whom the test calls absent."""

    def __init__(self, *, automatic: bool = False) -> None:
        self.buyer = Party(BUYER, ChannelRole.BUYER, [EVIDENCE])
        self.seller = Party(SELLER, ChannelRole.SELLER, [EVIDENCE])
        self.automatic = automatic
        self.court = self._court()
        self.absent: set[SecretKey] = set()
        self.kept: dict[bytes, bytes] = {}
        self.submitted: list[bytes] = []
        self.watched: list[Any] = []
        self.replies: list[Reply] = []
        self.do(self.court.tip_seen(tip(110)))

    def _court(self) -> Court:
        return Court(ARBITER, REGTEST, INSTANCE, serving=True, automatic=self.automatic)

    def restart(self) -> None:
        self.court = self._court()
        self.court.load(self.kept)
        self.watched.clear()
        self.do(self.court.resume())

    def do(self, effects: list[Any], sender: SecretKey = ARBITER) -> None:
        for row in self.court.drain():
            assert row.table == CASE_TABLE
            if row.value is None:
                self.kept.pop(row.key)
            else:
                self.kept[row.key] = row.value
        self.buyer.save()
        self.seller.save()
        for one in effects:
            if isinstance(one, Post):
                self.carry(one, sender)
            elif isinstance(one, Submit):
                self.submitted.append(one.raw)
            elif isinstance(one, Watch | Unwatch):
                self.watched.append(one)
            elif isinstance(one, Reply):
                self.replies.append(one)

    def carry(self, post: Post, sender: SecretKey) -> None:
        letter = COURT.unpack(sort(post.letter)[1])
        for party in (self.buyer, self.seller):
            if post.peer == party.key.peer_id and party.key not in self.absent:
                self.do(party.appeals.hear(sender.peer_id, letter), party.key)
        if post.peer == ARBITER.peer_id and ARBITER not in self.absent:
            self.do(self.court.hear(sender.peer_id, letter, NOW))

    def appeal(self, party: Party, to_seller_sat: int | None = None, statement: str = "") -> Reply:
        event = AppealAsked(request=1, channel=NAME, to_seller_sat=to_seller_sat, statement=statement)
        self.do(party.appeals.ask(event), party.key)
        return self.replies[-1]

    def rule(self, to_seller_sat: int, case: bytes = NAME) -> Reply:
        self.do(self.court.asked(RuleAsked(request=2, case=case, to_seller_sat=to_seller_sat, reason="as shown")))
        return self.replies[-1]

    def height(self, height: int) -> None:
        self.do(self.court.tip_seen(tip(height)))
        for party in (self.buyer, self.seller):
            self.do(party.appeals.tip_seen(tip(height)), party.key)

    def see(self, event: OutpointSeen) -> None:
        self.do(self.court.outpoint_seen(event))

    def stands(self) -> CasePhase:
        return self.court.cases[NAME].phase


@pytest.fixture
def world() -> World:
    return World()


def opened(world: World, party: Party, to_seller_sat: int | None = None) -> None:
    assert world.appeal(party, to_seller_sat).code == ""
    world.see(there())
    assert world.stands() is CasePhase.OPEN


# --- the straight way -----------------------------------------------------------------------------------------------


def test_a_dispute_from_appeal_to_end(world: World) -> None:
    opened(world, world.buyer, 0)
    assert (world.buyer.stands(), world.seller.stands()) == (AppealPhase.HEARD, AppealPhase.HEARD)
    (line,) = world.court.statement()
    assert (line["buyer_asks_sat"], line["seller_asks_sat"], line["seller_proves_sat"]) == (0, EARNED_SAT, EARNED_SAT)
    assert world.rule(EARNED_SAT).code == "too-early"
    world.height(RULING)
    assert world.rule(EARNED_SAT).code == ""
    assert world.stands() is CasePhase.RULED
    assert (world.buyer.stands(), world.seller.stands()) == (AppealPhase.RULED, AppealPhase.RULED)
    first, second = (parse(raw) for raw in world.submitted)
    assert first.txid == second.txid, "both complete the same transaction"
    assert [one.value_sat for one in first.outputs] == [EARNED_SAT, TERMS.capacity_sat - EARNED_SAT - FEE]
    world.see(there(TxInfo(raw=first.serialise(), height=None)))
    assert world.stands() is CasePhase.CLOSED
    assert "carried out" in world.court.cases[NAME].sentence


def test_the_summoned_party_answers_with_its_own_books(world: World) -> None:
    opened(world, world.seller, EARNED_SAT + 500)
    (line,) = world.court.statement()
    assert (line["seller_asks_sat"], line["buyer_asks_sat"], line["buyer_says"]) == (
        EARNED_SAT + 500,
        EARNED_SAT,
        "what our own books say",
    )


def test_absent_parties_hear_it_when_they_come_back(world: World) -> None:
    world.absent.add(SELLER)
    opened(world, world.buyer)
    world.height(RULING)
    world.absent.add(BUYER)
    world.rule(EARNED_SAT)
    assert world.submitted == []
    world.absent.clear()
    world.do(world.court.peer_up(SELLER.peer_id))
    world.do(world.court.peer_up(BUYER.peer_id))
    world.do(world.court.peer_up(STRANGER.peer_id))
    assert len(world.submitted) == 2


def test_a_seller_who_was_absent_is_summoned_when_he_is_back(world: World) -> None:
    world.absent.add(SELLER)
    opened(world, world.buyer)
    world.absent.clear()
    world.do(world.court.peer_up(SELLER.peer_id))
    assert world.court.cases[NAME].seller is not None


def test_an_appeal_that_was_lost_is_said_again(world: World) -> None:
    world.absent.add(ARBITER)
    assert world.appeal(world.buyer).code == ""
    assert world.buyer.stands() is AppealPhase.ASKED
    world.buyer.restart()
    world.absent.clear()
    world.do(world.buyer.appeals.tip_seen(tip(111)), BUYER)
    assert world.buyer.stands() is AppealPhase.HEARD
    world.do(world.buyer.appeals.tip_seen(tip(111)), BUYER)
    world.do(world.buyer.appeals.peer_up(ARBITER.peer_id), BUYER)
    world.do(world.buyer.appeals.peer_up(STRANGER.peer_id), BUYER)
    assert len(world.court.cases) == 1


def test_nothing_is_lost_by_a_restart(world: World) -> None:
    opened(world, world.buyer)
    world.height(RULING)
    world.restart()
    assert [type(one) for one in world.watched] == [Watch]
    world.height(RULING)
    world.see(there())
    world.rule(EARNED_SAT)
    ruling = world.court.cases[NAME].ruling
    world.restart()
    world.buyer.restart()
    before = len(world.submitted)
    world.height(RULING + 1)
    assert len(world.submitted) == before + 2, "a ruling is broadcast at every block until it is seen"
    assert world.court.cases[NAME].ruling == ruling
    world.do(world.buyer.appeals.closed(NAME))
    world.height(RULING + 2)
    assert world.buyer.stands() is AppealPhase.ENDED


# --- rulings --------------------------------------------------------------------------------------------------------


def test_there_is_one_ruling(world: World) -> None:
    opened(world, world.buyer)
    world.height(RULING)
    assert world.rule(EARNED_SAT).code == ""
    assert world.rule(EARNED_SAT).code == ""
    assert world.rule(EARNED_SAT + 1).code == "already-ruled"
    assert world.appeal(world.buyer).code == "already-ruled"


def test_what_cannot_be_ruled_is_refused_by_name(world: World) -> None:
    assert world.rule(0).code == "unknown-case"
    world.appeal(world.buyer)
    assert world.rule(0).code == "not-open"
    world.see(there())
    world.height(RULING)
    assert world.rule(TERMS.capacity_sat).code == "bad-ruling"
    assert world.court.cases[NAME].ruling is None


def test_a_party_completes_no_ruling_that_is_worse_than_its_own_papers(world: World) -> None:
    opened(world, world.buyer, 0)
    world.height(RULING)
    world.rule(EARNED_SAT - 1)
    assert (world.buyer.stands(), world.seller.stands()) == (AppealPhase.RULED, AppealPhase.DECLINED)
    world = World()
    opened(world, world.seller, 9_000)
    world.height(RULING)
    world.rule(9_000)
    assert (world.buyer.stands(), world.seller.stands()) == (AppealPhase.DECLINED, AppealPhase.RULED)


def test_a_seller_without_papers_takes_what_he_is_given(world: World) -> None:
    world.seller = Party(SELLER, ChannelRole.SELLER, [], revealed_msat=0)
    world.absent.add(BUYER)
    opened(world, world.seller, 5_000)
    world.height(RULING)
    world.rule(1_000)
    assert world.seller.stands() is AppealPhase.RULED


AUTOMATIC = [
    ("both ask for the same", EARNED_SAT, EARNED_SAT, [EVIDENCE], EARNED_SAT),
    ("less than the buyer signed", 0, EARNED_SAT - 7, [EVIDENCE], EARNED_SAT - 7),
    ("the buyer is silent", None, EARNED_SAT, [EVIDENCE], EARNED_SAT),
    ("more than the buyer signed", 0, EARNED_SAT + 1, [EVIDENCE], None),
    ("no evidence", 0, EARNED_SAT, [], None),
    ("a bad result", None, EARNED_SAT, [a_bundle(arbiter=ARBITER.public, promised=b"else", ciphertext=True)], None),
    ("a bad batch", None, EARNED_SAT, [BAD_BATCH], None),
    ("the seller is silent", 0, None, [], None),
]


def test_of_one_batch_the_bad_goes_with_an_appeal_first() -> None:
    """All units of a batch have one balance, and a letter has room for half of them."""
    batch = [a_bundle(one, arbiter=ARBITER.public, together=16, number=None) for one in range(15)]
    bad = a_bundle(15, arbiter=ARBITER.public, together=16, given=b"\x77" * 32, number=None)
    chosen = best([*batch, bad, EVIDENCE])
    assert chosen[0] == bad
    assert len(chosen) == APPEAL_BUNDLES_MAX
    assert EVIDENCE not in chosen


@pytest.mark.parametrize(("name", "buyer", "seller", "evidence", "given"), AUTOMATIC, ids=[one[0] for one in AUTOMATIC])
def test_only_signatures_rule_by_themselves(
    name: str, buyer: int | None, seller: int | None, evidence: list[Bundle], given: int | None
) -> None:
    for automatic in (True, False):
        world = World(automatic=automatic)
        world.seller.evidence = evidence
        if buyer is None:
            world.absent.add(BUYER)
        if seller is None:
            world.absent.add(SELLER)
        if buyer is not None:
            world.absent.add(SELLER)
            world.appeal(world.buyer, buyer)
            if seller is not None:
                world.absent.discard(SELLER)
        if seller is not None:
            world.appeal(world.seller, seller)
        world.see(there())
        world.height(RULING + MARGIN - 1)
        assert world.court.cases[NAME].ruling is None, "everybody could speak first"
        world.height(RULING + MARGIN)
        ruling = world.court.cases[NAME].ruling
        assert (None if ruling is None else ruling.to_seller_sat) == (given if automatic else None)


@pytest.mark.parametrize(
    "shown",
    [a_bundle(arbiter=ARBITER.public, promised=b"else", ciphertext=True), BAD_BATCH],
    ids=["a bad result", "a bad batch"],
)
def test_a_result_or_batch_that_the_buyer_shows_is_for_somebody_to_judge(shown: Bundle) -> None:
    world = World(automatic=True)
    world.buyer.evidence = [shown]
    opened(world, world.buyer, 0)
    world.height(RULING + MARGIN)
    assert world.court.cases[NAME].ruling is None


# --- the chain ------------------------------------------------------------------------------------------------------


def test_the_escrow_has_to_be_there_as_signed(world: World) -> None:
    world.appeal(world.buyer)
    world.see(OutpointSeen(outpoint=FUNDING, info=None))
    assert world.stands() is CasePhase.HEARD
    wrong = OutInfo(value_sat=1, script=CONTRACT.funding.script, height=100, spent_by=None)
    world.see(OutpointSeen(outpoint=FUNDING, info=wrong))
    assert world.stands() is CasePhase.REFUSED
    assert world.buyer.stands() is AppealPhase.REFUSED
    assert world.appeal(world.buyer).code == ""
    assert world.buyer.stands() is AppealPhase.REFUSED


def test_a_reorganisation_opens_a_case_again(world: World) -> None:
    opened(world, world.buyer)
    spender = TxInfo(raw=b"\x00", height=120)
    world.see(there(spender))
    assert world.stands() is CasePhase.CLOSED
    assert "cannot be read" in world.court.cases[NAME].sentence
    world.see(there())
    assert world.stands() is CasePhase.OPEN
    world.see(OutpointSeen(outpoint=FUNDING, info=None))
    assert world.stands() is CasePhase.HEARD
    world.see(there())
    world.height(RULING)
    world.rule(EARNED_SAT)
    world.see(there(TxInfo(raw=world.submitted[0], height=200)))
    world.see(there())
    assert world.stands() is CasePhase.RULED
    world.see(OutpointSeen(outpoint=read_outpoint(bytes(36)), info=None))


# --- lies -----------------------------------------------------------------------------------------------------------


def an_appeal(**changes: Any) -> Appeal:
    fields: dict[str, Any] = {"channel": PART, "to_seller_sat": 0, "statement": "", "bundles": (EVIDENCE,)}
    return Appeal(**{**fields, **changes})


def part_of(**changes: Any) -> ChannelPart:
    return channel_part(channel_terms(**changes))[0]


LIES = [
    ("a stranger's appeal", "not-a-party", STRANGER, an_appeal()),
    ("another arbiter", "not-the-arbiter", BUYER, an_appeal(channel=part_of(arbiter=STRANGER.public), bundles=())),
    ("no arbiter", "not-the-arbiter", BUYER, an_appeal(channel=part_of(), bundles=())),
    ("unsigned by the buyer", "wrong-open", BUYER, an_appeal(channel=dataclasses.replace(PART, open_signature=bytes(64)))),
    ("unsigned by the seller", "wrong-opened", BUYER, an_appeal(channel=dataclasses.replace(PART, opened_signature=bytes(64)))),
    ("evidence of another channel", "other-channel", BUYER, an_appeal(bundles=(a_bundle(),))),
    (
        "evidence that does not hold",
        "wrong-key",
        BUYER,
        an_appeal(bundles=(dataclasses.replace(EVIDENCE, key=b"\x77" * 32),)),
    ),
]


@pytest.mark.parametrize(("name", "code", "sender", "appeal"), LIES, ids=[one[0] for one in LIES])
def test_a_false_appeal_is_a_misdeed_and_makes_no_case(name: str, code: str, sender: SecretKey, appeal: Appeal) -> None:
    world = World()
    with pytest.raises(Misbehaved) as caught:
        world.court.hear(sender.peer_id, appeal, NOW)
    assert caught.value.code == code
    assert world.court.cases == {}
    assert world.court.drain() == ()


def test_a_second_escrow_for_one_channel_is_a_misdeed(world: World) -> None:
    world.appeal(world.buyer)
    other = dataclasses.replace(PART, funding=bytes(36))
    with pytest.raises(Misbehaved) as caught:
        world.court.hear(BUYER.peer_id, an_appeal(channel=other, bundles=()), NOW)
    assert caught.value.code == "other-funding"


def refused(party: Party, sender: SecretKey, letter: Any) -> str:
    with pytest.raises((Misbehaved, Ignore)) as caught:
        party.appeals.hear(sender.peer_id, letter)
    return caught.value.code


def a_ruling(to_seller_sat: int, signer: SecretKey = ARBITER) -> Ruling:
    to_buyer_sat = TERMS.capacity_sat - FEE - to_seller_sat
    right = sign_ruling(CONTRACT, FUNDING, to_seller_sat, to_buyer_sat, ARBITER)
    signature = right if signer is ARBITER else signer.sign_ecdsa(b"\x01" * 32)
    return Ruling(channel=NAME, to_seller_sat=to_seller_sat, to_buyer_sat=to_buyer_sat, signature=signature, reason="")


def test_false_rulings_are_misdeeds(world: World) -> None:
    party = world.buyer
    assert refused(party, STRANGER, a_ruling(0)) == "not-the-arbiter"
    assert refused(party, SELLER, Summons(channel=NAME, to_seller_sat=0, statement="")) == "not-the-arbiter"
    assert refused(party, ARBITER, a_ruling(0, STRANGER)) == "wrong-signature"
    assert refused(party, ARBITER, dataclasses.replace(a_ruling(0), to_seller_sat=294)) == "wrong-signature"
    assert refused(party, ARBITER, dataclasses.replace(a_ruling(0), channel=b"x" * 32)) == "unknown-channel"
    assert party.appeals.hear(ARBITER.peer_id, a_ruling(EARNED_SAT))
    assert refused(party, ARBITER, a_ruling(EARNED_SAT + 1)) == "second-ruling"
    assert party.stands() is AppealPhase.RULED
    whole = complete_ruling(
        CONTRACT, FUNDING, EARNED_SAT, TERMS.capacity_sat - FEE - EARNED_SAT, a_ruling(EARNED_SAT).signature, BUYER
    )
    assert party.appeals.rows[NAME].raw == whole.serialise()


def test_appeals_that_make_no_sense_are_refused(world: World) -> None:
    party = world.buyer
    event = AppealAsked(request=1, channel=b"x" * 32, to_seller_sat=None, statement="")
    world.do(party.appeals.ask(event), BUYER)
    assert world.replies[-1].code == "unknown-channel"
    assert world.appeal(party, TERMS.capacity_sat + 1).code == "bad-amount"
    assert party.appeals.rows == {}


# --- bounds and tables ------------------------------------------------------------------------------------------------


def test_a_court_has_room_for_so_many_cases_and_those_that_are_over_go_first() -> None:
    court = Court(ARBITER, REGTEST, INSTANCE, serving=True)
    court.tip_seen(tip(110))
    names = []
    for number in range(CASES_MAX):
        now = Instant(NOW + number * SECOND)
        part, contract = channel_part(
            channel_terms(arbiter=ARBITER.public, nonce=number.to_bytes(32, "big")), read_outpoint(number.to_bytes(36, "big"))
        )
        court.hear(BUYER.peer_id, an_appeal(channel=part, bundles=()), now)
        info = OutInfo(value_sat=contract.funding.value_sat, script=contract.funding.script, height=1, spent_by=None)
        court.outpoint_seen(OutpointSeen(outpoint=read_outpoint(part.funding), info=info))
        names.append((contract.channel, part, info))
    (full,) = court.hear(SELLER.peer_id, an_appeal(), NOW)
    letter = COURT.unpack(sort(full.letter)[1])
    assert isinstance(letter, Heard)
    assert (letter.refused, letter.code) == (True, "court-full")
    _, part, info = names[3]
    spent = dataclasses.replace(info, spent_by=TxInfo(raw=b"", height=1))
    court.outpoint_seen(OutpointSeen(outpoint=read_outpoint(part.funding), info=spent))
    effects = court.hear(SELLER.peer_id, an_appeal(), NOW)
    assert [one.outpoint for one in effects if isinstance(one, Unwatch)] == [read_outpoint(part.funding)]
    assert len(court.cases) == CASES_MAX
    assert names[3][0] not in court.cases


def test_an_account_is_listened_to_for_so_long(world: World) -> None:
    for _ in range(APPEALS_AT_ONCE_MAX):
        world.court.hear(BUYER.peer_id, an_appeal(), NOW)
    with pytest.raises(Ignore) as caught:
        world.court.hear(BUYER.peer_id, an_appeal(), NOW)
    assert caught.value.code == "appeal-budget"
    world.court.hear(SELLER.peer_id, an_appeal(), NOW)
    world.court.hear(BUYER.peer_id, an_appeal(), Instant(NOW + SECOND))


def test_a_node_that_is_no_arbiter_takes_no_appeals() -> None:
    with pytest.raises(Ignore):
        Court(ARBITER, REGTEST, INSTANCE).hear(BUYER.peer_id, an_appeal(), NOW)


def test_an_arbiter_on_another_chain_says_so() -> None:
    court = Court(ARBITER, REGTEST, b"\x08" * 32, serving=True)
    court.tip_seen(tip(110))
    (effect,) = court.hear(BUYER.peer_id, an_appeal(), NOW)
    assert COURT.unpack(sort(effect.letter)[1]).code == "other-chain"


def test_appeals_are_bounded(world: World) -> None:
    world.appeal(world.buyer)
    row = world.buyer.appeals.rows.pop(NAME)
    for number in range(APPEALS_MAX):
        world.buyer.appeals.rows[number.to_bytes(32, "big")] = row
    assert world.appeal(world.buyer).code == "appeals-full"
    ended = dataclasses.replace(row, phase=AppealPhase.ENDED)
    world.buyer.appeals.rows[(7).to_bytes(32, "big")] = ended
    world.buyer.rows[(7).to_bytes(32, "big")] = pack(ended)
    assert world.appeal(world.buyer).code == ""
    assert (7).to_bytes(32, "big") not in world.buyer.appeals.rows


def test_the_tables_have_no_dead_ends_but_the_ends() -> None:
    assert {phase for phase, row in CASE_STEPS.items() if not row} == {CasePhase.REFUSED}
    assert {phase for phase, row in APPEAL_STEPS.items() if not row} == {AppealPhase.ENDED}
    assert {to for row in CASE_STEPS.values() for to in row.values()} == set(CasePhase)
    assert {to for row in APPEAL_STEPS.values() for to in row.values()} == set(AppealPhase)
    assert {step for row in CASE_STEPS.values() for step in row} == set(CaseStep)
    assert {step for row in APPEAL_STEPS.values() for step in row} == set(AppealStep)


def test_statements_fit_their_letters() -> None:
    assert clip("a" * 1_000) == "a" * STATEMENT_MAX_BYTES
    assert len(clip("ä" * 1_000).encode()) <= STATEMENT_MAX_BYTES
    assert proven_sat((EVIDENCE,)) == EARNED_SAT
    assert proven_sat(()) == 0
