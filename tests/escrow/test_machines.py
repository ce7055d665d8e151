"""Both machines: every pair of phase and event, every refusal by its name, a kill at every step, and money under random lives."""

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from escrow.core.buyer import BUYER_TABLE
from escrow.core.channel import Table
from escrow.core.events import (
    CloseAsked,
    Event,
    FundingBuilt,
    FundingFailed,
    How,
    LetterIn,
    Locked,
    OutpointSeen,
    Pay,
    PayFailed,
    Phase,
    Reveal,
    Revealed,
    Submit,
    Tick,
    TipSeen,
    Unwatch,
    Watch,
)
from escrow.core.messages import (
    AnyLetter,
    AskClose,
    Commit,
    Declined,
    Done,
    Funded,
    Held,
    Key,
    Letters,
    Open,
    Opened,
    Recall,
    read_letter,
)
from escrow.core.opening import answer_open, open_channel, restore
from escrow.core.seller import SELLER_TABLE
from escrow.core.spends import complete, sign_state, state
from escrow.core.state import ChannelRow, Role
from escrow.shell.regtest import Regtest
from tests.escrow.pair import BUYER, SELLER, Pair, Party, build_funding, lock_of
from wire.canon import pack, unpack
from wire.effects import Blame, Count
from wire.errors import InvariantBroken, Refused
from wire.keys import SecretKey
from wire.limits import CHANNEL_CLOSE_WAIT_S, PAYMENTS_WAITING_MAX
from wire.ports import OutInfo, OutPoint, TxInfo

Make = Callable[..., Pair]

TABLES: dict[Role, Table] = {Role.BUYER: BUYER_TABLE, Role.SELLER: SELLER_TABLE}
LETTERS = list(Letters.members.values())
LOCAL: list[type] = [FundingBuilt, FundingFailed, OutpointSeen, TipSeen, Pay, Reveal, CloseAsked, Tick]
PHASES = [(role, phase) for role in Role for phase in TABLES[role]]


# --- every phase can be reached ----------------------------------------------------------------------------------


def reach(pair: Make, role: Role, phase: Phase) -> tuple[Pair, Party]:
    world = pair()
    party = world.buyer if role is Role.BUYER else world.seller
    other = world.other(party)
    if phase is Phase.OFFERED:
        world.lose = lambda to, payload: to is world.seller
    world.fund = phase not in (Phase.FUNDING, Phase.AGREED)
    world.blind = phase is Phase.FUNDED
    world.open().run()
    if phase in (Phase.OFFERED, Phase.FUNDING, Phase.AGREED, Phase.FUNDED):
        return world, party
    world.mine()
    if phase is Phase.OPEN:
        world.seller.reveals = role is Role.BUYER
        return world.pay(0), party
    if phase is Phase.CLOSING:
        other.alive = False
        return world.close(party).wait(CHANNEL_CLOSE_WAIT_S), party
    world.pay(0)
    if phase is Phase.CLAIMING:
        last = world.seller.machine.row.last
        unsigned = state(world.seller.machine.contract, world.seller.machine.funding, last.paid_msat, last.lock)
        close = complete(world.seller.machine.contract, unsigned, last.signature, world.seller.machine._coop)
        other.alive = False
        world.chain.submit(close.serialise())
        return world.run(), party
    if phase is Phase.REFUNDING:
        other.alive = False
        return world.mine_to(world.terms.refund_height), party
    world.close(party).mine(1 if phase is Phase.CLOSED else world.network.margin_blocks + 1)
    return world, party


@pytest.mark.parametrize(("role", "phase"), PHASES)
def test_every_phase_is_reached_and_survives_the_journal(pair: Make, role: Role, phase: Phase) -> None:
    world, party = reach(pair, role, phase)
    assert party.machine.phase is phase
    raw = party.rows["channel"][party.machine.channel]
    assert unpack(ChannelRow, raw) == party.machine.row
    assert pack(party.machine.row) == raw
    again = restore(party.key, world.network, party.rows["channel"], party.rows["channel_lock"].values())
    assert again[party.machine.channel].row == party.machine.row
    assert type(again[party.machine.channel]) is type(party.machine)


# --- every pair --------------------------------------------------------------------------------------------------


def letter_of(kind: type, world: Pair, party: Party) -> AnyLetter:
    channel, key = party.machine.channel, world.key(0)
    signature, der = bytes(64), bytes(71)
    made: dict[type, AnyLetter] = {
        Open: Open(channel=channel, terms=world.terms, signature=signature),
        Opened: Opened(channel=channel, signature=signature),
        Declined: Declined(channel=channel, code="no", sentence="not today"),
        Funded: Funded(channel=channel, txid=bytes(32), vout=0),
        Commit: Commit(
            channel=channel, sequence=2, ref=b"r", paid_msat=9_000_000, lock=lock_of(key), signature=der, settled=None
        ),
        Key: Key(channel=channel, sequence=1, key=key),
        Done: Done(channel=channel, paid_msat=0, signature=der),
        AskClose: AskClose(channel=channel, reason="please"),
        Recall: Recall(channel=channel),
        Held: Held(channel=channel, terms=world.terms, signature=signature, opened=signature, txid=bytes(32), vout=0, last=None),
    }
    return made[kind]


def events_of(kind: type, world: Pair, party: Party) -> list[Event]:
    machine = party.machine
    funding = machine.funding or OutPoint(b"\x01" * 32, 0)
    right = machine.contract.funding
    made: dict[type, list[Event]] = {
        FundingBuilt: [FundingBuilt(raw=build_funding(world.chain, [right]), vout=0)],
        FundingFailed: [FundingFailed(code="no-funds", sentence="empty")],
        OutpointSeen: [
            OutpointSeen(outpoint=funding, info=None),
            OutpointSeen(outpoint=OutPoint(b"\x02" * 32, 1), info=None),
            OutpointSeen(outpoint=funding, info=OutInfo(right.value_sat, right.script, world.chain.height, None)),
            OutpointSeen(outpoint=funding, info=OutInfo(1, b"", None, None)),
            OutpointSeen(outpoint=funding, info=OutInfo(right.value_sat, right.script, 1, TxInfo(b"rubbish", 2))),
        ],
        TipSeen: [TipSeen(height=world.chain.height + 1), TipSeen(height=10**6, feerate_sat_per_kvb=9_000), TipSeen(height=0)],
        Pay: [world.offer(7), Pay(ref=b"", lock=b"", amount_msat=0), Pay(ref=b"x", lock=bytes(32), amount_msat=1 << 62)],
        Reveal: [Reveal(ref=b"unit 0", key=world.key(0)), Reveal(ref=b"nobody's", key=b"")],
        CloseAsked: [CloseAsked(reason="enough")],
        Tick: [Tick()],
    }
    if issubclass(kind, tuple(LETTERS)):
        payload = Letters.pack(letter_of(kind, world, party))
        return [LetterIn(peer=world.other(party).key.peer_id, payload=payload)]
    return made[kind]


@pytest.mark.parametrize("kind", [*LETTERS, *LOCAL])
@pytest.mark.parametrize(("role", "phase"), PHASES)
def test_every_pair_of_phase_and_event(pair: Make, role: Role, phase: Phase, kind: type) -> None:
    world, party = reach(pair, role, phase)
    for event in events_of(kind, world, party):
        rows, past = party.rows["channel"], party.rows["channel_lock"]
        machine: Any = restore(party.key, world.network, rows, past.values())[party.machine.channel]
        machine.resume(world.now)
        machine._seen, machine._height = dict(party.machine._seen), party.machine._height
        before = machine.row
        effects = machine.handle(event, world.now)
        step = TABLES[role][phase].get(kind)
        if step is None:
            assert machine.row == before
            expected = PayFailed if kind is Pay else Count
            assert [type(one) for one in effects] == [expected]
        else:
            assert machine.phase in (phase, *step.to)
            assert effects or machine.row == before
        deadline = machine.next_deadline()
        assert deadline is None or deadline > 0
        unpack(ChannelRow, pack(machine.row))


def test_tables_name_methods_that_exist_and_cover_what_the_peer_may_send() -> None:
    from escrow.core.buyer import BuyerChannel
    from escrow.core.seller import SellerChannel

    for machine, table in ((BuyerChannel, BUYER_TABLE), (SellerChannel, SELLER_TABLE)):
        for row in table.values():
            for step in row.values():
                assert callable(getattr(machine, step.method))
    assert {kind for row in BUYER_TABLE.values() for kind in row} >= {Opened, Declined, Key, AskClose}
    assert {kind for row in SELLER_TABLE.values() for kind in row} >= {Open, Funded, Commit, Done, AskClose}
    assert set(BUYER_TABLE) | set(SELLER_TABLE) == set(Phase)


# --- refusals by name --------------------------------------------------------------------------------------------


def commit(world: Pair, **changes: Any) -> bytes:
    """A right second commitment with some fields changed and, unless given, signed for what it then says."""
    buyer = world.buyer.machine
    fields: dict[str, Any] = {
        "channel": buyer.channel,
        "sequence": 2,
        "ref": b"unit 1",
        "paid_msat": 5_201_000,
        "lock": lock_of(world.key(1)),
        "settled": sign_state(buyer.contract, buyer._coop, buyer.funding, 2_600_500, None),
    }
    fields.update(changes)
    if "signature" not in fields:
        paid = min(fields["paid_msat"], buyer.contract.usable_msat)
        fields["signature"] = sign_state(buyer.contract, buyer._coop, buyer.funding, paid, fields["lock"])
    return Letters.pack(Commit(**fields))


REFUSALS: list[tuple[str, dict[str, Any], bool]] = [
    ("stale-commit", {"sequence": 0}, False),
    ("skipped-commit", {"sequence": 3}, True),
    ("conflicting-commit", {"sequence": 1}, True),
    ("stale-state", {"paid_msat": 2_600_500}, True),
    ("over-capacity", {"paid_msat": 100_000_000}, True),
    ("wrong-signature", {"signature": bytes(70)}, True),
    ("no-settlement", {"settled": None}, True),
    ("wrong-signature", {"settled": bytes(70)}, True),
]


@pytest.mark.parametrize(("code", "changes", "blamed"), REFUSALS)
def test_wrong_commitments_are_refused_by_name(pair: Make, code: str, changes: dict[str, Any], blamed: bool) -> None:
    world = pair().ready().pay(0)
    if changes.get("sequence") == 0:
        world.pay(1)
        changes = {"sequence": 1}
    before = world.seller.machine.row
    effects = world.seller.machine.handle(LetterIn(peer=BUYER.peer_id, payload=commit(world, **changes)), world.now)
    assert effects[0] == Count(code=code)
    assert [type(one) for one in effects[1:]] == ([Blame] if blamed else [])
    assert world.seller.machine.row == before
    if code != "stale-commit":
        world.letters.append((world.seller, commit(world)))
        world.seller.keys[lock_of(world.key(1))] = (b"unit 1", world.key(1))
        world.run()
        assert world.seller.machine.row.revealed_msat == 5_201_000


def test_an_inflated_balance_needs_the_buyers_signature(pair: Make) -> None:
    world = pair().ready().pay(0)
    honest = read_letter(commit(world))
    assert isinstance(honest, Commit)
    inflated = dataclasses.replace(honest, paid_msat=honest.paid_msat + 50_000_000)
    event = LetterIn(peer=BUYER.peer_id, payload=Letters.pack(inflated))
    assert Count(code="wrong-signature") in world.seller.machine.handle(event, world.now)


def test_payments_are_serial(pair: Make) -> None:
    world = pair().ready()
    world.seller.reveals = False
    world.pay(0)
    event = LetterIn(peer=BUYER.peer_id, payload=commit(world, settled=None))
    assert Count(code="not-serial") in world.seller.machine.handle(event, world.now)


def test_small_balances_need_credit(pair: Make) -> None:
    for credit, codes in ((0, ["below-dust"]), (1_000, [])):
        world = pair(credit_sat=credit).ready().pay(0, 200_000)
        assert [one.code for one in world.buyer.of(PayFailed)] == codes
        assert len(world.buyer.of(Revealed)) == (0 if codes else 1)
    world.pay(1)
    assert world.close(world.buyer).mine().check_end().to_seller_sat == 2_800
    strict = pair(credit_sat=0).ready()
    buyer = strict.buyer.machine
    signature = sign_state(buyer.contract, buyer._coop, buyer.funding, 200_000, bytes(32))
    small = Commit(
        channel=buyer.channel, sequence=1, ref=b"x", paid_msat=200_000, lock=bytes(32), signature=signature, settled=None
    )
    event = LetterIn(peer=BUYER.peer_id, payload=Letters.pack(small))
    assert Count(code="below-dust") in strict.seller.machine.handle(event, strict.now)
    with_settled = dataclasses.replace(small, paid_msat=900_000, settled=bytes(70))
    signature = sign_state(buyer.contract, buyer._coop, buyer.funding, 900_000, bytes(32))
    event = LetterIn(peer=BUYER.peer_id, payload=Letters.pack(dataclasses.replace(with_settled, signature=signature)))
    assert Count(code="needless-settlement") in strict.seller.machine.handle(event, strict.now)


@pytest.mark.parametrize(("code", "sequence", "flip"), [("early-key", 2, 0), ("wrong-key", 1, 1), ("late-key", 1, 0)])
def test_wrong_keys_are_refused_by_name(pair: Make, code: str, sequence: int, flip: int) -> None:
    world = pair().ready()
    world.seller.reveals = code == "late-key"
    world.pay(0)
    key = world.key(0)
    key = bytes([key[0] ^ flip]) + key[1:]
    letter = Key(channel=world.buyer.machine.channel, sequence=sequence, key=key)
    effects = world.buyer.machine.handle(LetterIn(peer=SELLER.peer_id, payload=Letters.pack(letter)), world.now)
    assert effects[0] == Count(code=code)
    assert not any(isinstance(one, Revealed) for one in effects)


@pytest.mark.parametrize(
    ("code", "paid_msat", "sign"),
    [("short-done", 2_600_000, True), ("over-capacity", 99_999_000, False), ("wrong-signature", 2_600_500, False)],
)
def test_wrong_final_balances_are_refused_by_name(pair: Make, code: str, paid_msat: int, sign: bool) -> None:
    world = pair().ready().pay(0)
    buyer = world.buyer.machine
    der = sign_state(buyer.contract, buyer._coop, buyer.funding, paid_msat, None) if sign else bytes(70)
    done = Done(channel=buyer.channel, paid_msat=paid_msat, signature=der)
    effects = world.seller.machine.handle(LetterIn(peer=BUYER.peer_id, payload=Letters.pack(done)), world.now)
    assert effects[0] == Count(code=code)
    assert world.seller.machine.row.close_raw == b""


def test_strangers_and_other_channels_are_refused(pair: Make) -> None:
    world = pair().ready()
    stranger = SecretKey(b"\x66" * 32)
    payload = Letters.pack(AskClose(channel=world.buyer.machine.channel, reason=""))
    effects = world.buyer.machine.handle(LetterIn(peer=stranger.peer_id, payload=payload), world.now)
    assert [one.peer for one in effects if isinstance(one, Blame)] == [stranger.peer_id]
    payload = Letters.pack(AskClose(channel=bytes(32), reason=""))
    effects = world.buyer.machine.handle(LetterIn(peer=SELLER.peer_id, payload=payload), world.now)
    assert effects == (Count(code="other-channel"),)


def test_offers_that_lie_are_refused_by_name(pair: Make) -> None:
    world = pair()
    channel, _ = open_channel(BUYER, world.network, world.terms, world.now)
    right = Open(channel=channel.channel, terms=world.terms, signature=channel.row.open_signature)
    stranger = SecretKey(b"\x66" * 32)
    same = dataclasses.replace(world.terms, arbiter=BUYER.public, ruling_height=1)
    lies: list[tuple[str, Open, SecretKey, SecretKey]] = [
        ("not-the-buyer", right, stranger, SELLER),
        ("not-the-seller", right, BUYER, stranger),
        ("wrong-channel", dataclasses.replace(right, channel=bytes(32)), BUYER, SELLER),
        ("wrong-signature", dataclasses.replace(right, signature=bytes(64)), BUYER, SELLER),
        ("same-party", _signed(world, same), BUYER, SELLER),
        ("bad-key", _signed(world, dataclasses.replace(world.terms, arbiter=bytes(33), ruling_height=1)), BUYER, SELLER),
        ("bad-ruling", _signed(world, dataclasses.replace(world.terms, ruling_height=5)), BUYER, SELLER),
        ("unknown-channel", AskClose(channel=bytes(32), reason=""), BUYER, SELLER),  # type: ignore[list-item]
    ]
    for code, letter, sender, receiver in lies:
        event = LetterIn(peer=sender.peer_id, payload=Letters.pack(letter))
        machine, effects = answer_open(receiver, world.network, world.policy, event, height=1, now=world.now)
        assert machine is None
        assert effects[0] == Count(code=code)


def _signed(world: Pair, terms: Any) -> Open:
    from escrow.core.contract import channel_id

    channel = channel_id(world.network.name, terms)
    return Open(channel=channel, terms=terms, signature=BUYER.sign(channel))


def test_what_a_buyer_may_not_ask(pair: Make) -> None:
    world = pair()
    with pytest.raises(Refused, match="only the buyer"):
        open_channel(SELLER, world.network, world.terms, world.now)
    with pytest.raises(Refused, match="eaten by fees"):
        open_channel(BUYER, world.network, dataclasses.replace(world.terms, capacity_sat=5_000), world.now)
    world.ready()
    for code, pay in (
        ("bad-payment", Pay(ref=b"", lock=bytes(32), amount_msat=1)),
        ("bad-payment", Pay(ref=b"x", lock=bytes(31), amount_msat=1)),
        ("bad-payment", Pay(ref=b"x", lock=bytes(32), amount_msat=0)),
        ("no-capacity", Pay(ref=b"x", lock=bytes(32), amount_msat=world.buyer.machine.free_msat + 1)),
        ("below-dust", Pay(ref=b"x", lock=bytes(32), amount_msat=300_000)),
    ):
        (failed,) = world.buyer.machine.handle(pay, world.now)
        assert (failed.code, failed.ref) == (code, pay.ref)
    with pytest.raises(InvariantBroken, match="FundingBuilt"):
        reach(pair, Role.BUYER, Phase.FUNDING)[1].machine.handle(FundingBuilt(raw=b"no", vout=0), world.now)
    raw = build_funding(world.chain, [])
    with pytest.raises(InvariantBroken, match="asked for"):
        reach(pair, Role.BUYER, Phase.FUNDING)[1].machine.handle(FundingBuilt(raw=raw, vout=0), world.now)


def test_the_queue_is_bounded_and_exactly_the_capacity_is_spent(pair: Make) -> None:
    world = pair().ready()
    world.seller.reveals = False
    for number in range(PAYMENTS_WAITING_MAX + 2):
        world.pay(number, 500_000)
    assert [one.code for one in world.buyer.of(PayFailed)] == ["queue-full"]
    assert world.buyer.machine.free_msat == world.buyer.machine.contract.usable_msat - 500_000 * (PAYMENTS_WAITING_MAX + 1)
    world = pair().ready()
    world.pay(0, world.buyer.machine.free_msat)
    assert world.buyer.machine.free_msat == 0
    world.pay(1, 1)
    assert [one.code for one in world.buyer.of(PayFailed)] == ["no-capacity"]
    end = world.close(world.buyer).mine().check_end()
    assert end.to_buyer_sat == 294
    assert end.to_seller_sat == world.buyer.machine.contract.usable_msat // 1_000


def test_a_payment_asked_for_twice_is_made_once(pair: Make) -> None:
    world = pair().ready().pay(0).pay(0).pay(1).pay(0)
    assert world.buyer.machine.row.paid_msat == 2 * 2_600_500
    assert [one.ref for one in world.buyer.of(Revealed)] == [b"unit 0", b"unit 0", b"unit 1", b"unit 0"]
    world.restart(world.buyer)
    world.run().pay(0)
    assert world.buyer.machine.row.paid_msat == 2 * 2_600_500
    world.give(world.buyer, Pay(ref=b"another", lock=lock_of(world.key(0)), amount_msat=2_600_500))
    assert world.buyer.of(PayFailed)[-1].code == "lock-reused"


def test_keys_are_repeated_and_locks_told_again(pair: Make) -> None:
    world = pair().ready()
    world.lose = lambda to, payload: isinstance(read_letter(payload), Key)
    world.pay(0)
    assert world.buyer.of(Revealed) == []
    world.lose = lambda to, payload: False
    world.wait(6)
    assert len(world.buyer.of(Revealed)) == 1
    assert world.seller.counts["commit-again"] == 1
    world.seller.reveals = False
    world.pay(1)
    told = len(world.seller.of(Locked))
    world.restart(world.seller)
    world.run()
    assert len(world.seller.of(Locked)) > told
    world.give(world.seller, Reveal(ref=b"unit 1", key=bytes(32)))
    assert world.seller.counts["reveal-mismatch"] == 1


def test_nothing_is_sent_before_it_is_saved(pair: Make) -> None:
    """A commitment is in the row that is saved with it, and so is a key; the driver commits saves first."""
    world = pair().ready()
    effects = world.buyer.machine.handle(world.offer(0), world.now)
    rows = [one for one in effects if type(one).__name__ == "Save"]
    assert {one.table for one in rows} == {"channel", "channel_lock"}
    saved = unpack(ChannelRow, next(one.value for one in rows if one.table == "channel"))
    sent = read_letter(next(one.payload for one in effects if type(one).__name__ == "Letter"))
    assert isinstance(sent, Commit)
    assert saved.last is not None
    assert (saved.last.signature, saved.paid_msat) == (sent.signature, sent.paid_msat)
    effects = world.seller.machine.handle(LetterIn(peer=BUYER.peer_id, payload=Letters.pack(sent)), world.now)
    assert [type(one).__name__ for one in effects] == ["Save", "Locked"]
    effects = world.seller.machine.handle(Reveal(ref=b"unit 0", key=world.key(0)), world.now)
    assert [type(one).__name__ for one in effects] == ["Save", "Letter"]
    kept = unpack(ChannelRow, effects[0].value).last
    assert kept is not None
    assert kept.key == world.key(0)


@given(payload=st.binary(max_size=300))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_bytes_from_the_peer_are_survived(pair: Make, payload: bytes) -> None:
    world = _kept(pair)
    for party in (world.buyer, world.seller):
        before = party.machine.row
        effects = party.machine.handle(LetterIn(peer=world.other(party).key.peer_id, payload=payload), world.now)
        assert isinstance(effects[0], Count)
        assert party.machine.row == before
    machine, effects = answer_open(
        SELLER, world.network, world.policy, LetterIn(peer=BUYER.peer_id, payload=payload), height=1, now=world.now
    )
    assert machine is None
    assert isinstance(effects[0], Count)


@given(place=st.integers(0, 10_000), value=st.integers(0, 255), which=st.integers(0, 7))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_changed_byte_in_a_letter_is_survived(pair: Make, place: int, value: int, which: int) -> None:
    world = _kept(pair)
    for party in (world.buyer, world.seller):
        payload = bytearray(Letters.pack(letter_of(LETTERS[which], world, party)))
        payload[place % len(payload)] = value
        machine: Any = restore(party.key, world.network, party.rows["channel"])[party.machine.channel]
        machine.resume(world.now)
        machine.handle(LetterIn(peer=world.other(party).key.peer_id, payload=bytes(payload)), world.now)


_worlds: dict[int, Pair] = {}


def _kept(pair: Make) -> Pair:
    """One open channel for many examples."""
    if 0 not in _worlds:
        _worlds[0] = pair().ready().pay(0)
    return _worlds[0]


@pytest.fixture(autouse=True, scope="module")
def _forget_worlds() -> Any:
    yield
    _worlds.clear()


# --- a kill at every step ----------------------------------------------------------------------------------------


def life(world: Pair) -> Pair:
    """A whole channel, whatever dies in between: what the deals still want is asked for again, as they do."""
    world.open().run()
    if world.buyer.channel is None:
        world.open().run()
    world.mine().wait(11)
    for number in range(3):
        world.pay(number)
    world.wait(11)
    for number in range(3):
        if b"unit %d" % number not in {one.ref for one in world.buyer.of(Revealed)}:
            world.pay(number)
    world.close(world.buyer).wait(11)
    if not world.buyer.machine.row.closing:
        world.close(world.buyer).wait(11)
    return world.mine()


@pytest.mark.parametrize("before_commit", [True, False])
@pytest.mark.parametrize("who", ["buyer", "seller"])
def test_a_kill_at_every_step(pair: Make, who: str, before_commit: bool) -> None:
    steps = getattr(life(pair()), who).handled
    assert steps > 15
    for step in range(1, steps + 1):
        world = pair()
        victim: Party = getattr(world, who)
        victim.crash_at, victim.crash_before_commit = step, before_commit
        life(world)
        assert victim.lives == 2
        revealed = {one.ref: one.key for one in world.buyer.of(Revealed)}
        assert revealed == {b"unit %d" % number: world.key(number) for number in range(3)}, step
        end = world.check_end()
        assert (end.how, end.to_seller_sat) == (How.SETTLED, 7_801), step
        assert world.buyer.of(PayFailed) == []


# --- random lives ------------------------------------------------------------------------------------------------


class Lives(RuleBasedStateMachine):
    """Two parties through anything that may happen; at the end the money is where it belongs."""

    chain: Regtest
    counter = 10_000

    @initialize(arbiter=st.booleans())
    def begin(self, arbiter: bool) -> None:
        Lives.counter += 1
        third = SecretKey(b"\x33" * 32).public if arbiter else None
        self.world = Pair(self.chain, Lives.counter, arbiter=third).open().run()
        self.units = 0
        self.amounts: dict[bytes, int] = {}
        self.absent = False

    @rule(amount_msat=st.one_of(st.integers(450_000, 30_000_000), st.integers(1, 500_000)))
    def pay(self, amount_msat: int) -> None:
        self.amounts[b"unit %d" % self.units] = amount_msat
        self.world.pay(self.units, amount_msat)
        self.units += 1

    @rule(amounts=st.lists(st.integers(450_000, 5_000_000), min_size=1, max_size=4))
    def trade(self, amounts: list[int]) -> None:
        """A good hour: everybody is there, and units are paid for one after the other."""
        world = self.world
        world.lose, world.seller.reveals = (lambda receiver, payload: False), True
        world.buyer.alive = world.seller.alive = True
        world.run().mine().wait(6)
        for amount_msat in amounts:
            self.pay(amount_msat)

    @rule(reveals=st.booleans())
    def set_reveals(self, reveals: bool) -> None:
        self.world.seller.reveals = reveals

    @rule(loses=st.sampled_from(["nothing", "all", "to buyer", "to seller"]))
    def set_road(self, loses: str) -> None:
        world = self.world
        to = {"to buyer": [world.buyer], "to seller": [world.seller], "all": [world.buyer, world.seller]}.get(loses, [])
        world.lose = lambda receiver, payload: receiver in to

    @rule(who=st.sampled_from(["buyer", "seller"]))
    def kill(self, who: str) -> None:
        party: Party = getattr(self.world, who)
        if party.channel is not None:
            self.world.restart(party)
            self.world.run()

    @rule(who=st.sampled_from(["buyer", "seller"]), alive=st.booleans())
    def sleep(self, who: str, alive: bool) -> None:
        party: Party = getattr(self.world, who)
        self.absent |= not alive and who == "seller"
        party.alive = alive
        self.world.run()

    @rule(blocks=st.integers(1, 12))
    def mine(self, blocks: int) -> None:
        self.world.mine(blocks)

    @rule(depth=st.integers(1, 3))
    def reorganise(self, depth: int) -> None:
        self.world.reorganise(depth)

    @rule()
    def lose_mempool(self) -> None:
        self.world.lose_mempool()

    @rule(seconds=st.integers(1, 40))
    def wait(self, seconds: int) -> None:
        self.world.wait(seconds)

    @rule(feerate=st.integers(1_000, 20_000))
    def fees(self, feerate: int) -> None:
        for party in (self.world.buyer, self.world.seller):
            if party.channel is not None:
                self.world.give(party, TipSeen(height=self.world.chain.height, feerate_sat_per_kvb=feerate))
        self.world.run()

    @precondition(lambda self: self.units > 2)
    @rule(who=st.sampled_from(["buyer", "seller"]))
    def close(self, who: str) -> None:
        self.world.close(getattr(self.world, who))

    @invariant()
    def bounds(self) -> None:
        if not hasattr(self, "world"):
            return
        for party in (self.world.buyer, self.world.seller):
            if party.channel is not None:
                row = party.machine.row
                assert 0 <= row.revealed_msat <= row.paid_msat <= party.machine.contract.usable_msat
                assert row.paid_msat + sum(one.amount_msat for one in row.queue) <= party.machine.contract.usable_msat
                assert not any("InvariantBroken" in code for code in party.counts)

    def teardown(self) -> None:
        world = getattr(self, "world", None)
        if world is None:
            return
        world.lose = lambda receiver, payload: False
        world.buyer.alive = world.seller.alive = True
        world.run().wait(60).mine_to(world.terms.refund_height + world.network.claim_delay_blocks + 1).wait(60).mine(8)
        buyer = world.buyer.machine
        assert buyer.phase is Phase.BURIED, (buyer.phase, world.seller.machine.phase)
        if world.buyer.end.txid is None:
            return
        end = world.check_end()
        known = {one.ref for one in world.buyer.of(Revealed)}
        bought = sum(self.amounts[ref] for ref in known)
        assert end.to_seller_sat * 1_000 <= bought, "money went for a key that the buyer does not have"
        assert bought <= buyer.row.paid_msat
        for one in world.buyer.of(Revealed):
            assert hashlib.sha256(one.key).digest() in world.seller.keys
        if not self.absent and end.how in (How.SETTLED, How.CLAIMED):
            lost = world.seller.machine.row.revealed_msat - 1_000 * end.to_seller_sat
            assert lost <= 1_000 * 8_000, "the seller lost more than a claim's fee at the highest rate"


def test_random_lives(chain: Regtest) -> None:
    Lives.chain = chain
    case = Lives.TestCase
    case.settings = settings(
        max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
    )
    case("runTest").runTest()


def test_effects_are_what_the_driver_knows() -> None:
    """A new effect has to be told to the drivers, so the list is here twice on purpose."""
    from typing import get_args

    from escrow.core.events import Effect

    names = {one.__name__ for one in get_args(Effect)}
    assert names == {
        "Save", "Count", "Blame", "Letter", "FundingWanted", "Submit", "Watch", "Unwatch", "Ready", "Locked", "Revealed",
        "PayFailed", "Closed", "PhaseChanged",
    }  # fmt: skip
    assert {Submit, Watch, Unwatch} <= set(get_args(Effect))
