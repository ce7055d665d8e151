"""Several results under one key: both halves of a trade against each other, with a channel in between that pays one at a time."""

import dataclasses
from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.core.batches import BATCH_PURPOSE, BATCH_TABLE, batch_key, batch_ref, make_batch, sealed
from peer.core.buying import Buying
from peer.core.deal import Deal, Phase, Role, unit_key
from peer.core.events import (
    Abandoned,
    BuyAsked,
    ChannelBound,
    Computed,
    Decrypt,
    Decrypted,
    Encrypt,
    Encrypted,
    Fetch,
    Fetched,
    PayWanted,
    PeerDown,
    PeerUp,
    Post,
    Reply,
    RevealWanted,
    SellAsked,
    Strike,
)
from peer.core.exposure import Allowance, Exposure
from peer.core.keys import lock_of
from peer.core.ledger import DEAL_TABLE, UNIT_TABLE
from peer.core.letters import DEAL, Batch, DealLetter, Gather, sort
from peer.core.selling import Selling
from peer.core.terms import escrow_terms, free_terms
from wire.canon import pack
from wire.envelope import id_of
from wire.errors import Ignore, Misbehaved
from wire.keys import SecretKey, verify
from wire.limits import BATCH_UNITS_MAX, BATCHES_UNPAID_MAX, EXPOSURE_STEP_SAT, GATHER_WAIT_S, UNITS_IN_FLIGHT_FIRST
from wire.moments import SECOND, Instant
from wire.network import REGTEST

BUYER, SELLER = SecretKey(b"\x01" * 32), SecretKey(b"\x02" * 32)
CHANNEL, DEAL_ID = b"h" * 32, b"d" * 32
PRICE = 1_000_000
START = Instant(1_000 * SECOND)


def terms(free: bool) -> Any:
    return free_terms() if free else escrow_terms(REGTEST)


class Trade:
    """A deal of ``units`` units. The road and the channel hold back what they are told to."""

    def __init__(self, units: int, *, known: int = 64) -> None:
        self.units, self.now = units, START
        self.rows: dict[str, dict[str, dict[bytes, bytes]]] = {
            side: {table: {} for table in (DEAL_TABLE, UNIT_TABLE, BATCH_TABLE)} for side in ("buyer", "seller")
        }
        self.trust = Exposure()
        self.trust.finished(SELLER.public, known)
        self.trust.finished(BUYER.public, known)
        self.buying = Buying(BUYER, REGTEST, terms, lambda number, now: True, self.trust)
        self.selling = Selling(SELLER, REGTEST, terms, lambda article: None, self.trust)
        self.todo: deque[tuple[str, Any]] = deque()
        self.held: list[RevealWanted] = []
        self.holds = False
        self.deaf = False
        self.payments: list[PayWanted] = []
        self.asked: list[Gather] = []
        self.told: list[Any] = []
        for number in range(units):
            ask = BuyAsked(
                request=number + 1, article="foobar", work=bytes([number]) * 32, work_bytes=9, bid_msat=PRICE, wait_us=60 * SECOND
            )
            self.buying.ask(ask, START)

    def deal(self, role: Role) -> Deal:
        other = SELLER if role is Role.BUYER else BUYER
        return Deal(
            deal=DEAL_ID,
            role=role,
            other=other.public,
            article="foobar",
            free=False,
            price_msat=PRICE,
            quantity=self.units,
            epoch=7,
            channel=None,
            agreed_us=START,
        )

    def begin(self) -> "Trade":
        """Matched, bound and funded; every unit is computed as soon as it may be."""
        sells = SellAsked(order=0, article="foobar", worker="w", ask_msat=PRICE, slots=64)
        self.selling.offer(sells, START)
        self.selling.agreed(self.deal(Role.SELLER), START)
        self.does("seller", self.selling.channel_ready(CHANNEL, START))
        self.buying.agreed(self.deal(Role.BUYER), START)
        self.does("buyer", self.buying.channel_bound(ChannelBound(deal=DEAL_ID, channel=CHANNEL, ready=True), START))
        return self.run()

    def does(self, side: str, effects: list[Any]) -> None:
        self.todo.extend((side, one) for one in effects)

    def run(self) -> "Trade":
        while self.todo:
            side, effect = self.todo.popleft()
            half: Any = self.buying if side == "buyer" else self.selling
            self._act(side, half, effect)
            for save in half.ledger.drain():
                table = self.rows[side][save.table]
                if save.value is None:
                    table.pop(save.key, None)
                else:
                    table[save.key] = save.value
        return self

    def _act(self, side: str, half: Any, effect: Any) -> None:
        match effect:
            case Post():
                letter: DealLetter = DEAL.unpack(sort(effect.letter)[1])
                if isinstance(letter, Gather):
                    self.asked.append(letter)
                    if self.deaf:
                        return
                other, to = ("seller", self.selling) if side == "buyer" else ("buyer", self.buying)
                peer = (BUYER if side == "buyer" else SELLER).peer_id
                try:
                    self.does(other, to.hear(peer, letter, self.now))
                except Ignore as ignored:
                    self.told.append(ignored)
            case Fetch():
                self.does(side, half.fetched(Fetched(unit=effect.unit, content=effect.content), self.now))
            case PayWanted():
                self.payments.append(effect)
                paid = self.selling.locked(effect.channel, effect.unit, effect.lock, effect.amount_msat, self.now)
                self.does("seller", paid)
            case RevealWanted():
                assert lock_of(effect.key) == next(one.lock for one in self.payments if one.unit == effect.unit)
                if self.holds:
                    self.held.append(effect)
                else:
                    self.does("buyer", self.buying.revealed(effect.unit, effect.key, self.now))
            case Decrypt():
                number = int.from_bytes(effect.unit[32:], "big")
                assert effect.key == self.selling.ledger.units[effect.unit].key
                self.does(side, half.decrypted(Decrypted(unit=effect.unit, plain=bytes([number, 1]) * 16), self.now))
            case Encrypt():
                cipher = bytes([int.from_bytes(effect.unit[32:], "big"), 2]) * 16
                self.does(side, half.encrypted(Encrypted(unit=effect.unit, cipher=cipher, size=99), self.now))
            case _ if type(effect).__name__ == "Compute":
                number = int.from_bytes(effect.unit[32:], "big")
                self.does(side, half.computed(Computed(unit=effect.unit, plain=bytes([number, 1]) * 16), self.now))
            case _:
                self.told.append(effect)

    def let_go(self) -> "Trade":
        """The keys that were held back arrive."""
        held, self.held = self.held, []
        for one in held:
            self.does("buyer", self.buying.revealed(one.unit, one.key, self.now))
        return self.run()

    def phases(self) -> list[Phase]:
        return [self.buying.ledger.units[unit_key(DEAL_ID, number)].phase for number in range(self.units)]

    def results(self) -> set[int]:
        return {one.request for one in self.told if isinstance(one, Reply) and one.result is not None}

    def restart(self) -> None:
        """Both sides come back with their rows, and the channel says again what it said last."""
        self.buying = Buying(BUYER, REGTEST, terms, lambda number, now: True, self.trust)
        self.selling = Selling(SELLER, REGTEST, terms, lambda article: None, self.trust)
        halves: tuple[tuple[str, Any], ...] = (("buyer", self.buying), ("seller", self.selling))
        for side, half in halves:
            rows = self.rows[side]
            half.ledger.load(dict(rows[DEAL_TABLE]), dict(rows[UNIT_TABLE]), dict(rows[BATCH_TABLE]))
            self.does(side, half.resume(self.now))


# --- the straight way --------------------------------------------------------------------------------------------


def test_what_waits_for_a_key_is_paid_under_one() -> None:
    trade = Trade(9)
    trade.holds = True
    trade.begin()
    assert len(trade.payments) == 1
    assert [len(one.units) for one in trade.asked] == [2]  # asked as soon as two wait, while the first payment is under way
    trade.holds = False
    trade.let_go()
    assert trade.phases() == [Phase.FINISHED] * 9
    assert trade.results() == set(range(1, 10))
    assert [len(one.units) or 1 for one in trade.payments] == [1, 2, 6]
    assert sum(one.amount_msat for one in trade.payments) == 9 * PRICE
    assert trade.buying.till.next_deadline() is None


def test_nothing_is_put_together_while_nothing_waits() -> None:
    trade = Trade(1).begin()
    assert trade.asked == []
    assert [one.units for one in trade.payments] == [()]
    assert trade.results() == {1}


def test_a_stranger_is_paid_one_at_a_time_and_trusted_with_more_by_and_by() -> None:
    trade = Trade(12, known=0)
    trade.holds = True
    trade.begin()
    while trade.held:
        trade.let_go()
    sizes = [len(one.units) or 1 for one in trade.payments]
    assert sizes[0] == 1
    done = 0
    for size in sizes:
        assert size <= 1 + done
        done += size
    assert done == 12
    assert max(sizes) > 1
    assert trade.results() == set(range(1, 13))


def test_a_batch_has_a_most() -> None:
    trade = Trade(BATCH_UNITS_MAX * 2 + 3)
    trade.holds = True
    trade.begin()
    while trade.held:
        trade.let_go()
    assert max(len(one.units) for one in trade.payments) == BATCH_UNITS_MAX
    assert trade.phases() == [Phase.FINISHED] * trade.units


# --- exposure ----------------------------------------------------------------------------------------------------


def test_a_seller_begins_only_so_much_unpaid_work_for_a_stranger() -> None:
    trade = Trade(12, known=0)
    trade.holds = True
    started = trade.begin().selling.ledger
    unpaid = started.in_phase(Phase.TRANSMITTING, Phase.WORKING, Phase.OFFERED)
    assert len(unpaid) == UNITS_IN_FLIGHT_FIRST + 1  # one of the first is paid, which is the first step of trust
    assert len(started.in_phase(Phase.FUNDED)) == 12 - len(unpaid) - 1


def test_value_is_bounded_and_one_unit_always_fits() -> None:
    few = Allowance(10, 5_000)
    assert few.fits([9_000, 1]) == 1
    assert few.fits([2_000, 3_000, 1]) == 2
    assert few.fits([1] * 20) == 10
    assert few.fits([]) == 0
    exposure = Exposure()
    account = SELLER.public
    assert exposure.batch(account).units == 1
    exposure.finished(account, 4)
    assert exposure.batch(account) == Allowance(5, 5 * EXPOSURE_STEP_SAT * 1_000)
    exposure.fault(account, START)
    assert exposure.batch(account) == Allowance(3, 3 * EXPOSURE_STEP_SAT * 1_000)
    assert exposure.in_flight(account).units == UNITS_IN_FLIGHT_FIRST + 2


def test_unpaid_work_makes_a_buyer_less_trusted() -> None:
    trade = Trade(6)
    trade.holds = True
    trade.begin()
    level = trade.trust.level(BUYER.public)
    late = trade.selling.next_deadline()
    assert late is not None
    trade.selling.tick(late)
    assert trade.trust.level(BUYER.public) == level // 2


# --- sellers who lie or are silent -------------------------------------------------------------------------------


def test_a_seller_who_does_not_answer_is_paid_singly() -> None:
    trade = Trade(6)
    trade.holds, trade.deaf = True, True
    trade.begin()
    trade.holds = False
    trade.let_go()
    assert len(trade.payments) == 1
    assert trade.buying.next_deadline() == START + GATHER_WAIT_S * SECOND
    trade.now = Instant(START + GATHER_WAIT_S * SECOND)
    trade.does("buyer", trade.buying.tick(trade.now))
    trade.run()
    assert trade.phases() == [Phase.FINISHED] * 6
    assert all(one.units == () for one in trade.payments)
    assert len(trade.asked) == 1


def test_a_batch_that_is_given_up_while_the_seller_thinks_leaves_nothing_stuck() -> None:
    trade = Trade(5)
    trade.holds, trade.deaf = True, True
    trade.begin()
    trade.holds = False
    trade.let_go()  # the key came before the batch did: nothing is under way now but the seller's answer
    assert len(trade.payments) == 1
    trade.deaf = False
    first = trade.buying.ledger.units[trade.asked[0].units[0]]
    trade.does("buyer", trade.buying.abandon(Abandoned(request=first.request), START))
    trade.run()
    assert trade.buying.next_deadline() == START
    trade.does("buyer", trade.buying.tick(START))
    trade.run()
    assert sorted(trade.phases()) == sorted([Phase.FINISHED] * 4 + [Phase.WITHDRAWN])
    assert len(trade.results()) == 4
    assert any(one.units for one in trade.payments)  # he had no time to answer, and is not paid singly for that


def test_a_seller_who_was_away_while_he_was_asked_is_asked_again() -> None:
    trade = Trade(5)
    trade.holds, trade.deaf = True, True
    trade.begin()
    trade.holds = False
    trade.let_go()
    trade.deaf = False
    trade.buying.peer_down(PeerDown(peer=SELLER.peer_id), START)
    trade.does("buyer", trade.buying.peer_up(PeerUp(peer=SELLER.peer_id), START))
    trade.run()
    trade.does("buyer", trade.buying.tick(START))
    trade.run()
    assert trade.phases() == [Phase.FINISHED] * 5
    assert len(trade.asked) > 1


def gathered() -> tuple[Trade, Batch]:
    """A trade in which the seller's answer has not arrived yet, and that answer."""
    trade = Trade(5)
    trade.holds, trade.deaf = True, True
    trade.begin()
    (post,) = trade.selling.hear(BUYER.peer_id, trade.asked[0], START)
    batch = DEAL.unpack(sort(post.letter)[1])
    assert isinstance(batch, Batch)
    return trade, batch


def signed(body: Any, key: SecretKey = SELLER) -> Batch:
    return Batch(body=body, signature=key.sign(id_of(REGTEST.name, BATCH_PURPOSE, pack(body))))


def test_a_batch_that_is_not_what_was_asked_for_is_refused_by_name() -> None:
    trade, right = gathered()
    body = right.body
    other = dataclasses.replace(body.units[0], unit=unit_key(DEAL_ID, 4))
    nowhere = dataclasses.replace(other, unit=DEAL_ID + b"\xff\xff")
    stranger = dataclasses.replace(other, unit=bytes(34))
    lies: list[tuple[str, Batch]] = [
        ("wrong-batch", signed(dataclasses.replace(body, amount_msat=2 * PRICE + 1))),
        ("wrong-batch", signed(dataclasses.replace(body, channel=bytes(32)))),
        ("wrong-signature", dataclasses.replace(right, signature=bytes(64))),
        ("wrong-signature", signed(body, BUYER)),
        ("wrong-signature", dataclasses.replace(right, body=dataclasses.replace(body, lock=bytes(32)))),
        ("late-batch", signed(dataclasses.replace(body, units=(other, *body.units[1:])))),
        ("late-batch", signed(dataclasses.replace(body, units=tuple(reversed(body.units))))),
        ("unknown-unit", signed(dataclasses.replace(body, units=(nowhere, other)))),
        ("unknown-deal", signed(dataclasses.replace(body, units=(stranger, other)))),
    ]
    for code, lie in lies:
        before = dict(trade.buying.ledger.units)
        with pytest.raises((Ignore, Misbehaved)) as refused:
            trade.buying.hear(SELLER.peer_id, lie, START)
        assert refused.value.code == code
        assert trade.buying.ledger.units == before
        assert trade.buying.ledger.batches == {}
    with pytest.raises(Ignore, match="not ours"):
        trade.buying.hear(BUYER.peer_id, right, START)
    trade.holds = False
    trade.does("buyer", trade.buying.hear(SELLER.peer_id, right, START))
    trade.let_go()
    assert trade.payments[1].units == tuple(one.unit for one in body.units)
    with pytest.raises(Ignore, match="nobody waits"):
        trade.buying.hear(SELLER.peer_id, right, START)


def test_a_seal_that_hides_something_else_is_a_proof_and_costs_one_batch() -> None:
    trade, right = gathered()
    bad = dataclasses.replace(right.body.units[0], seal=bytes(32))
    body = dataclasses.replace(right.body, units=(bad, *right.body.units[1:]))
    lie = signed(body)
    trade.does("buyer", trade.buying.hear(SELLER.peer_id, lie, START))
    trade.let_go()
    ref = batch_ref(REGTEST, body)
    assert trade.payments[-1].unit == ref
    parts = [(one.unit, trade.selling.ledger.units[one.unit].lock or b"") for one in body.units]
    trade.does("buyer", trade.buying.revealed(ref, batch_key(SELLER, CHANNEL, parts), START))
    trade.run()
    assert [trade.buying.ledger.units[one.unit].phase for one in body.units] == [Phase.RESULT_DISPUTED, Phase.FINISHED]
    assert any(isinstance(one, Strike) and one.code == "bad-batch" for one in trade.told)
    kept = trade.buying.ledger.batches[ref]
    assert verify(SELLER.public, ref, kept.signature)
    shown = batch_key(SELLER, CHANNEL, parts)
    assert lock_of(shown) == kept.body.lock
    assert lock_of(sealed(REGTEST, shown, bad.unit, kept.body.units[0].seal)) != trade.buying.ledger.units[bad.unit].lock


# --- buyers who lie ----------------------------------------------------------------------------------------------


def test_a_gather_that_makes_no_sense_is_refused_by_name() -> None:
    trade, batch = gathered()
    names = [one.unit for one in batch.body.units]
    paid = trade.payments[0].unit
    for code, channel, units in (
        ("wrong-gather", bytes(32), names),
        ("wrong-gather", CHANNEL, [names[0], names[0]]),
        ("late-gather", CHANNEL, [names[0], paid]),
        ("unknown-unit", CHANNEL, [names[0], DEAL_ID + b"\x00\x63"]),
        ("unknown-deal", CHANNEL, [names[0], bytes(34)]),
    ):
        held = dict(trade.selling.ledger.batches)
        with pytest.raises((Ignore, Misbehaved)) as refused:
            trade.selling.hear(BUYER.peer_id, Gather(channel=channel, units=tuple(units)), START)
        assert refused.value.code == code
        assert trade.selling.ledger.batches == held
    with pytest.raises(Misbehaved, match="only buyers"):
        trade.buying.hear(SELLER.peer_id, Gather(channel=CHANNEL, units=tuple(names)), START)
    with pytest.raises(Misbehaved, match="only sellers"):
        trade.selling.hear(BUYER.peer_id, batch, START)


def test_an_underpaid_or_misplaced_batch_gets_no_key() -> None:
    trade, batch = gathered()
    ref, body = batch_ref(REGTEST, batch.body), batch.body
    for channel, lock, amount_msat in (
        (CHANNEL, body.lock, body.amount_msat - 1),
        (CHANNEL, bytes(32), body.amount_msat),
        (bytes(32), body.lock, body.amount_msat),
    ):
        assert trade.selling.locked(channel, ref, lock, amount_msat, START) == []
    (reveal, *_) = trade.selling.locked(CHANNEL, ref, body.lock, body.amount_msat, START)
    assert lock_of(reveal.key) == body.lock


def test_a_seller_remembers_only_so_many_batches_that_nobody_paid() -> None:
    trade = Trade(8)
    trade.holds, trade.deaf = True, True
    trade.begin()
    names = [unit_key(DEAL_ID, number) for number in range(1, 8)]
    for at, first in enumerate(names):
        for second in names[at + 1 :]:
            trade.selling.hear(BUYER.peer_id, Gather(channel=CHANNEL, units=(first, second)), START)
    assert len(trade.selling.ledger.batches) == BATCHES_UNPAID_MAX
    for save in trade.selling.ledger.drain():
        trade.rows["seller"][save.table][save.key] = save.value or b""
    trade.rows["seller"][BATCH_TABLE] = {ref: row for ref, row in trade.rows["seller"][BATCH_TABLE].items() if row}
    trade.restart()
    trade.selling.hear(BUYER.peer_id, Gather(channel=CHANNEL, units=(names[2], names[1])), START)
    assert len(trade.selling.ledger.batches) == BATCHES_UNPAID_MAX


# --- kills and keys ----------------------------------------------------------------------------------------------


def test_a_kill_while_a_batch_is_under_way() -> None:
    trade = Trade(6)
    trade.holds = True
    trade.begin()
    trade.let_go()
    pay = trade.payments[-1]
    assert len(pay.units) > 1
    trade.run()
    trade.restart()
    assert {one for one in trade.phases() if one is Phase.COMMITTED} == {Phase.COMMITTED}
    trade.holds = False
    trade.does("seller", trade.selling.locked(pay.channel, pay.unit, pay.lock, pay.amount_msat, START))
    trade.run()
    for unit in pay.units:
        assert trade.buying.ledger.units[unit].phase is Phase.FINISHED
        assert trade.selling.ledger.units[unit].phase is Phase.FINISHED
    before = dict(trade.buying.ledger.units)
    trade.does("buyer", trade.buying.revealed(pay.unit, trade.selling.locked(*_again(pay))[0].key, START))
    trade.run()
    assert trade.buying.ledger.units == before


def _again(pay: PayWanted) -> tuple[bytes, bytes, bytes, int, Instant]:
    return pay.channel, pay.unit, pay.lock, pay.amount_msat, START


def test_a_batch_whose_payment_fails_is_bought_elsewhere() -> None:
    trade = Trade(6)
    trade.holds = True
    trade.begin()
    trade.let_go()
    pay = trade.payments[-1]
    trade.does("buyer", trade.buying.pay_failed(pay.unit, "closed", "the channel closed", START))
    trade.run()
    assert {trade.buying.ledger.units[unit].phase for unit in pay.units} == {Phase.REFUNDED}
    assert trade.buying.requests.wants() == {("foobar", PRICE): len(pay.units)}


@given(
    keys=st.lists(st.binary(min_size=32, max_size=32), min_size=2, max_size=BATCH_UNITS_MAX, unique=True),
    channel=st.binary(min_size=32, max_size=32),
)
def test_one_key_opens_all_and_no_key_opens_the_batch(keys: list[bytes], channel: bytes) -> None:
    units = [(unit_key(DEAL_ID, number), lock_of(key), key) for number, key in enumerate(keys)]
    body = make_batch(SELLER, REGTEST, channel, units, PRICE)
    secret = batch_key(SELLER, channel, [(unit, lock) for unit, lock, _ in units])
    assert lock_of(secret) == body.lock
    assert [sealed(REGTEST, secret, one.unit, one.seal) for one in body.units] == keys
    assert secret not in keys
    assert body == make_batch(SELLER, REGTEST, channel, units, PRICE)
    fewer = make_batch(SELLER, REGTEST, channel, units[1:] or units, PRICE)
    assert fewer.lock != body.lock
    pads = {bytes(a ^ b for a, b in zip(one.seal, key, strict=True)) for one, key in zip(body.units, keys, strict=True)}
    assert len(pads) == len(keys)
