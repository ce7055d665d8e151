"""The checkers can fail: each is shown a product with one rule taken out, or a row that breaks its rule."""

import dataclasses
import hashlib

import pytest

from escrow.core.state import LOCK_TABLE, PastLock
from orderbook.core.auction import Fill, clear
from orderbook.core.line import Standing
from orderbook.core.talks import Talks
from peer.core.batches import BATCH_TABLE, HeldBatch
from peer.core.deal import Deal, Phase, Role, new_unit, unit_key
from peer.core.ledger import DEAL_TABLE, UNIT_TABLE
from peer.core.letters import BatchBody, SealedKey
from simulations.world import sharing
from simulations.world.chain import SimulatedChain
from simulations.world.checkers import Views
from simulations.world.host import Host
from simulations.world.ledgers import Ledgers
from simulations.world.plan import Plan, Trade
from simulations.world.run import Stage
from wire.canon import pack, unpack
from wire.effects import Save
from wire.errors import InvariantBroken
from wire.keys import SecretKey
from wire.ports import TxOut

BUSY = Plan(
    nodes=8, seconds=60, quiet_s=10, arrive_s=2, trade=Trade(buyers=0.4, jobs_per_minute=20, work_least_s=1, work_most_s=2)
)
HOST = Host(3, SecretKey(b"\x03" * 32), 0, honest=True)


def test_an_order_signed_away_twice_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the rule "one order, one epoch" and without new orders for spent ones, the run ends."""
    monkeypatch.setattr(Standing, "may_sign", lambda self, epoch, units: True)
    monkeypatch.setattr(Standing, "sign", lambda self, epoch, units: None)
    with pytest.raises(InvariantBroken) as broken:
        Stage(BUSY, 2).run()
    assert broken.value.code in ("double-signed", "overfilled", "signed-expired")


def test_a_price_beyond_the_limit_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def dear(*arguments: object) -> tuple[Fill, ...]:
        fills = clear(*arguments)  # type: ignore[arg-type]
        return tuple(one._replace(price_msat=one.buy.price_msat + 1) for one in fills)

    monkeypatch.setattr(sharing, "clear", dear)
    with pytest.raises(InvariantBroken) as broken:
        Stage(BUSY, 2).run()
    assert broken.value.code == "price"


def test_a_forgotten_confirmation_is_no_broken_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is allowed: the checkers fire for broken rules, not for bad luck."""
    monkeypatch.setattr(Talks, "_confirmation", lambda self, peer, letter, now: None)
    Stage(dataclasses.replace(BUSY, seconds=20), 2).run()


def lock(sequence: int, key: bytes | None = None) -> Save:
    row = PastLock(channel=b"\x01" * 32, sequence=sequence, ref=b"unit", lock=hashlib.sha256(b"k" * 32).digest(), key=key)
    return Save(table=LOCK_TABLE, key=b"row", value=pack(row))


def test_paying_a_unit_twice_is_seen() -> None:
    ledgers = Ledgers(lambda _: True)
    ledgers.row(HOST, lock(1))
    ledgers.row(HOST, lock(1, b"k" * 32))
    with pytest.raises(InvariantBroken) as broken:
        ledgers.row(HOST, lock(2))
    assert broken.value.code == "paid-twice"


def batched(ledgers: Ledgers, *, amount_msat: int = 4_000) -> HeldBatch:
    """Two units of a deal at 2,000 msat, put under one key named ``unit``, as a buyer keeps them."""
    deal = Deal(
        deal=b"\x05" * 32,
        role=Role.BUYER,
        other=HOST.key.public,
        article="foobar",
        free=False,
        price_msat=2_000,
        quantity=2,
        epoch=1,
        channel=b"\x01" * 32,
        agreed_us=1,
    )
    ledgers.row(HOST, Save(table=DEAL_TABLE, key=deal.deal, value=pack(deal)))
    units = tuple(SealedKey(unit=unit_key(deal.deal, number), seal=bytes(32)) for number in range(2))
    body = BatchBody(channel=b"\x01" * 32, lock=hashlib.sha256(b"k" * 32).digest(), amount_msat=amount_msat, units=units)
    return HeldBatch(role=Role.BUYER, other=HOST.key.public, body=body, signature=bytes(64))


@pytest.mark.parametrize("paid_first", [True, False])
def test_paying_a_unit_alone_and_in_a_batch_is_seen(paid_first: bool) -> None:
    ledgers = Ledgers(lambda _: True)
    batch = Save(table=BATCH_TABLE, key=b"unit", value=pack(batched(ledgers)))
    for row in (lock(1, b"k" * 32), batch) if paid_first else (batch, lock(1, b"k" * 32)):
        ledgers.row(HOST, row)
    alone = dataclasses.replace(unpack(PastLock, lock(2).value or b""), ref=unit_key(b"\x05" * 32, 1))
    with pytest.raises(InvariantBroken) as broken:
        ledgers.row(HOST, Save(table=LOCK_TABLE, key=b"other", value=pack(alone)))
    assert broken.value.code == "paid-twice"


def test_a_batch_that_costs_something_else_than_its_units_is_seen() -> None:
    ledgers = Ledgers(lambda _: True)
    with pytest.raises(InvariantBroken) as broken:
        ledgers.row(HOST, Save(table=BATCH_TABLE, key=b"unit", value=pack(batched(ledgers, amount_msat=4_001))))
    assert broken.value.code == "price"


def test_a_key_that_opens_nothing_is_seen() -> None:
    with pytest.raises(InvariantBroken) as broken:
        Ledgers(lambda _: True).row(HOST, lock(1, b"x" * 32))
    assert broken.value.code == "wrong-key"


def test_a_unit_that_leaves_its_table_is_seen() -> None:
    ledgers = Ledgers(lambda _: True)
    unit = new_unit(b"\x05" * 32, 0, request=1, now=1, deadline_us=2)
    key = unit_key(unit.deal, 0)
    ledgers.row(HOST, Save(table=UNIT_TABLE, key=key, value=pack(dataclasses.replace(unit, phase=Phase.FINISHED))))
    with pytest.raises(InvariantBroken) as broken:
        ledgers.row(HOST, Save(table=UNIT_TABLE, key=key, value=pack(unit)))
    assert broken.value.code == "phase"


def test_rows_of_adversaries_are_not_judged() -> None:
    villain = Host(4, HOST.key, 0, honest=False)
    ledgers = Ledgers(lambda _: True)
    for sequence in (1, 2):
        ledgers.row(villain, lock(sequence))


def test_books_that_stay_different_are_seen_but_not_across_islands() -> None:
    views = Views()
    other = Host(4, HOST.key, 0, honest=True)
    views.cleared(HOST, b"book", 7, b"root", (0, 0, 0, 0))
    views.cleared(other, b"book", 7, b"another", (0, 0, 0, 0))
    views.check_end(frozenset({3, 4}), {3: 3, 4: 4})
    assert views.divergence() == (1, 2)
    with pytest.raises(InvariantBroken) as broken:
        views.check_end(frozenset({3, 4}), {3: 3, 4: 3})
    assert broken.value.code == "books-differ"


def test_money_from_nowhere_is_seen() -> None:
    chain = SimulatedChain()
    chain.issue(1, TxOut(1_000, b"a"))
    chain.mine()
    chain.coins[next(iter(chain.coins))].output = TxOut(2_000, b"a")
    with pytest.raises(InvariantBroken) as broken:
        chain.mine()
    assert broken.value.code == "money-lost"
