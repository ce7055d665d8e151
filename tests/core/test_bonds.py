"""Bonds in the core: locked, told, seen, counted; and what ends their counting."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escrow.core.bond import bond_output
from escrow.core.events import FundingWanted, OutpointSeen, Submit, TipSeen, Unwatch, Watch
from escrow.core.transaction import Tx, TxIn, outpoint_bytes, parse, read_outpoint
from peer.core.bonds import (
    BOND_STEPS,
    BOND_TABLE,
    BONDS,
    Announced,
    Bond,
    BondPhase,
    Bonds,
    BondStep,
    announcement_digest,
    extra_sat,
)
from peer.core.events import BondAsked, BondReleaseAsked, FundingBuilt, FundingFailed, Post, Reply
from peer.core.letters import sort
from tests.core.evidence import BUYER, INSTANCE, SELLER, STRANGER
from wire.errors import Ignore, Misbehaved
from wire.keys import SecretKey
from wire.limits import (
    BOND_BLOCKS_MAX,
    BOND_LEAST_SAT,
    BONDED_EXPOSURE_MAX_SAT,
    BONDS_KNOWN_MAX,
    BONDS_OWN_MAX,
    CHANNEL_CAPACITY_MAX_SAT,
)
from wire.network import REGTEST
from wire.ports import OutInfo, OutPoint, TxInfo

VALUE, HEIGHT = 1_000_000, 100
UNTIL = HEIGHT + BOND_BLOCKS_MAX


def tip(height: int = HEIGHT) -> TipSeen:
    return TipSeen(height=height, feerate_sat_per_kvb=1_000)


class Node:
    """Bonds of one account, its rows, and what is proven against whom."""

    def __init__(self, key: SecretKey) -> None:
        self.key = key
        self.proven: set[bytes] = set()
        self.rows: dict[bytes, bytes] = {}
        self.bonds = self._new()
        self.bonds.tip_seen(tip())

    def _new(self) -> Bonds:
        return Bonds(self.key, REGTEST, INSTANCE, lambda account: "proven" if account in self.proven else None)

    def restart(self) -> list[Any]:
        for row in self.bonds.drain():
            assert row.table == BOND_TABLE
            if row.value is None:
                self.rows.pop(row.key)
            else:
                self.rows[row.key] = row.value
        self.bonds = self._new()
        self.bonds.load(self.rows)
        return self.bonds.resume()

    def ask(self, value_sat: int = VALUE, blocks: int = BOND_BLOCKS_MAX, request: int = 1) -> list[Any]:
        return self.bonds.lock(BondAsked(request=request, value_sat=value_sat, blocks=blocks))

    def lock(self, request: int = 1) -> tuple[bytes, OutPoint]:
        wanted, reply = self.ask(request=request)
        assert isinstance(wanted, FundingWanted)
        assert isinstance(reply, Reply)
        raw = Tx(inputs=(TxIn(outpoint=OutPoint(bytes([request]) * 32, 0)),), outputs=(wanted.output,)).serialise()
        self.bonds.built(FundingBuilt(channel=wanted.channel, raw=raw, vout=0))
        return wanted.channel, OutPoint(parse(raw).txid, 0)

    def see(self, outpoint: OutPoint, account: SecretKey, *, until: int = UNTIL, **changes: Any) -> list[Any]:
        output = bond_output(REGTEST.name, account.public, VALUE, until)
        info = OutInfo(value_sat=VALUE, script=output.script, height=HEIGHT, spent_by=None)
        return self.bonds.outpoint_seen(OutpointSeen(outpoint=outpoint, info=dataclasses.replace(info, **changes)))

    def extra(self, account: SecretKey) -> int:
        return self.bonds.limit_sat(account.public) - CHANNEL_CAPACITY_MAX_SAT


def announced(key: SecretKey, number: int = 1, **changes: Any) -> Announced:
    fields: dict[str, Any] = {
        "instance": INSTANCE,
        "account": key.public,
        "value_sat": VALUE,
        "until_height": UNTIL,
        "outpoint": outpoint_bytes(OutPoint(number.to_bytes(32, "big"), 0)),
    }
    bond = Bond(**{**fields, **changes})
    return Announced(bond=bond, signature=key.sign(announcement_digest(REGTEST, bond)))


def code_of(effects: list[Any]) -> str:
    (reply,) = [one for one in effects if isinstance(one, Reply)]
    return reply.code


# --- our own ----------------------------------------------------------------------------------------------------------


def test_a_bond_from_lock_to_release() -> None:
    node = Node(SELLER)
    name, outpoint = node.lock()
    assert node.bonds.unsent()
    assert node.extra(SELLER) == 0, "what the chain has not shown counts for nothing"
    node.see(outpoint, SELLER)
    assert node.extra(SELLER) == VALUE
    early = node.bonds.free(BondReleaseAsked(request=2, bond=name))
    assert code_of(early) == "too-early"
    node.bonds.tip_seen(tip(UNTIL))
    assert node.extra(SELLER) == 0
    effects = node.bonds.free(BondReleaseAsked(request=2, bond=name))
    (submit,) = [one for one in effects if isinstance(one, Submit)]
    assert code_of(effects) == ""
    assert [one for one in node.bonds.tip_seen(tip(UNTIL + 1)) if isinstance(one, Submit)] == [submit]
    node.see(outpoint, SELLER, spent_by=TxInfo(raw=submit.raw, height=None))
    assert node.bonds.own[name].phase is BondPhase.RELEASED
    assert node.bonds.tip_seen(tip(UNTIL + 2)) == []
    node.see(outpoint, SELLER)
    assert [one for one in node.bonds.tip_seen(tip(UNTIL + 3)) if isinstance(one, Submit)] == [submit], "reorganised away"
    assert code_of(node.bonds.free(BondReleaseAsked(request=3, bond=name))) == "not-locked"


def test_a_restart_loses_no_bond() -> None:
    node = Node(SELLER)
    wanted, _ = node.ask()
    (again,) = node.restart()
    assert again == wanted
    node = Node(SELLER)
    name, outpoint = node.lock()
    assert node.restart() == [Watch(outpoint=outpoint)]
    effects = node.bonds.tip_seen(tip())
    assert [one.purpose for one in effects if isinstance(one, Submit)] == ["bond"], "broadcast until it is seen"
    node.see(outpoint, SELLER)
    assert node.bonds.tip_seen(tip(HEIGHT + 1)) == []
    assert list(node.bonds.own) == [name]
    raw = node.bonds.own[name].raw
    assert node.bonds.built(FundingBuilt(channel=name, raw=raw, vout=0)) == []


@pytest.mark.parametrize(
    ("value_sat", "blocks", "code"),
    [
        (BOND_LEAST_SAT - 1, 10, "bad-amount"),
        (BOND_LEAST_SAT, 0, "bad-blocks"),
        (BOND_LEAST_SAT, BOND_BLOCKS_MAX + 1, "bad-blocks"),
        (BOND_LEAST_SAT, 1, ""),
    ],
)
def test_what_cannot_be_locked_is_refused(value_sat: int, blocks: int, code: str) -> None:
    assert code_of(Node(SELLER).ask(value_sat, blocks)) == code


def test_a_wallet_that_cannot_pay_ends_it_and_makes_room() -> None:
    node = Node(SELLER)
    names = []
    for number in range(BONDS_OWN_MAX):
        wanted, _ = node.ask(request=number)
        names.append(wanted.channel)
    assert code_of(node.ask(request=99)) == "bonds-full"
    node.bonds.failed(FundingFailed(channel=names[2], code="no-funds", sentence="not enough"))
    assert node.bonds.own[names[2]].phase is BondPhase.FAILED
    assert code_of(node.ask(request=99)) == ""
    assert names[2] not in node.bonds.own
    assert code_of(node.bonds.free(BondReleaseAsked(request=1, bond=bytes(32)))) == "unknown-bond"
    assert len(node.bonds.statement()) == BONDS_OWN_MAX


def test_without_a_chain_nothing_is_locked() -> None:
    bonds = Bonds(SELLER, REGTEST, INSTANCE, lambda account: None)
    assert code_of(bonds.lock(BondAsked(request=1, value_sat=VALUE, blocks=1))) == "no-chain"


# --- those of others --------------------------------------------------------------------------------------------------


def test_an_account_tells_whom_it_meets_and_the_chain_decides() -> None:
    seller, buyer = Node(SELLER), Node(BUYER)
    _, outpoint = seller.lock()
    assert seller.bonds.peer_up(BUYER.peer_id) == [], "nothing is told before the chain shows it"
    seller.see(outpoint, SELLER)
    (post,) = seller.bonds.peer_up(BUYER.peer_id)
    assert isinstance(post, Post)
    letter = BONDS.unpack(sort(post.letter)[1])
    assert buyer.bonds.hear(SELLER.peer_id, letter) == [Watch(outpoint=outpoint)]
    assert buyer.extra(SELLER) == 0
    buyer.see(outpoint, SELLER)
    assert buyer.extra(SELLER) == VALUE == seller.extra(SELLER)
    assert buyer.extra(STRANGER) == 0
    (line,) = buyer.bonds.statement()
    assert (line["phase"], line["extra_sat"], line["bond"]) == ("seen", VALUE, None)
    buyer.proven.add(SELLER.public)
    assert buyer.extra(SELLER) == 0, "a proof of fraud ends it"
    buyer.proven.clear()
    assert buyer.bonds.tip_seen(tip(UNTIL)) == [Unwatch(outpoint=outpoint)]
    assert buyer.extra(SELLER) == 0


@pytest.mark.parametrize(
    "changes",
    [{"value_sat": VALUE - 1}, {"script": b"\x00\x14" + bytes(20)}, {"height": None}, {"spent_by": TxInfo(raw=b"", height=1)}],
    ids=["another value", "another script", "unconfirmed", "spent"],
)
def test_what_the_chain_does_not_show_counts_for_nothing(changes: dict[str, Any]) -> None:
    buyer = Node(BUYER)
    letter = announced(SELLER)
    buyer.bonds.hear(SELLER.peer_id, letter)
    outpoint = read_outpoint(letter.bond.outpoint)
    buyer.see(outpoint, SELLER)
    assert buyer.extra(SELLER) == VALUE
    buyer.see(outpoint, SELLER, **changes)
    assert buyer.extra(SELLER) == 0
    buyer.bonds.outpoint_seen(OutpointSeen(outpoint=outpoint, info=None))
    assert buyer.extra(SELLER) == 0


def test_somebody_elses_coins_are_nobodys_bond() -> None:
    """The same output cannot stand for two accounts: its script holds one account's key."""
    buyer = Node(BUYER)
    letter = announced(STRANGER)
    buyer.bonds.hear(STRANGER.peer_id, letter)
    buyer.see(read_outpoint(letter.bond.outpoint), SELLER)
    assert buyer.extra(STRANGER) == 0


def refused(node: Node, peer: SecretKey, letter: Announced) -> str:
    with pytest.raises((Misbehaved, Ignore)) as caught:
        node.bonds.hear(peer.peer_id, letter)
    return caught.value.code


def test_false_announcements_are_named() -> None:
    node, good = Node(BUYER), announced(SELLER)
    assert refused(node, STRANGER, good) == "not-his-bond"
    assert refused(node, SELLER, dataclasses.replace(good, signature=bytes(64))) == "wrong-signature"
    other = dataclasses.replace(good, bond=dataclasses.replace(good.bond, value_sat=VALUE + 1))
    assert refused(node, SELLER, other) == "wrong-signature"
    assert refused(node, SELLER, announced(SELLER, instance=bytes(32))) == "other-chain"
    node.bonds.hear(SELLER.peer_id, good)
    assert refused(node, SELLER, good) == "bond-again"
    for number in range(2, BONDS_OWN_MAX + 1):
        node.bonds.hear(SELLER.peer_id, announced(SELLER, number))
    assert refused(node, SELLER, announced(SELLER, BONDS_OWN_MAX + 1)) == "bond-again"


def test_so_many_bonds_of_others_are_known() -> None:
    node = Node(BUYER)
    for number in range(BONDS_KNOWN_MAX):
        key = SecretKey((1_000 + number).to_bytes(32, "big"))
        node.bonds.hear(key.peer_id, announced(key, 1_000 + number))
    effects = node.bonds.hear(SELLER.peer_id, announced(SELLER))
    first = OutPoint((1_000).to_bytes(32, "big"), 0)
    assert [one.outpoint for one in effects if isinstance(one, Unwatch)] == [first]
    assert not node.bonds.watches(first)
    assert node.bonds.watches(OutPoint((1).to_bytes(32, "big"), 0))


@given(st.integers(0, 1 << 50), st.integers(-10, 2 * BOND_BLOCKS_MAX), st.integers(0, 1 << 50))
def test_a_bond_counts_for_less_as_its_end_comes_and_never_for_more_than_it_is(value: int, remaining: int, other: int) -> None:
    assert 0 <= extra_sat(value, remaining) <= value
    assert extra_sat(value, remaining) <= extra_sat(value, remaining + 1)
    assert extra_sat(value, remaining) + extra_sat(other, remaining) <= extra_sat(value + other, remaining) <= value + other
    assert extra_sat(value, 0) == 0
    assert extra_sat(value, BOND_BLOCKS_MAX) == value


def test_no_bond_raises_a_channel_over_the_bound() -> None:
    buyer = Node(BUYER)
    letter = announced(SELLER, value_sat=BONDED_EXPOSURE_MAX_SAT * 10)
    buyer.bonds.hear(SELLER.peer_id, letter)
    buyer.see(read_outpoint(letter.bond.outpoint), SELLER, value_sat=BONDED_EXPOSURE_MAX_SAT * 10)
    assert buyer.bonds.limit_sat(SELLER.public) == BONDED_EXPOSURE_MAX_SAT


def test_the_table_has_no_dead_ends_but_the_ends() -> None:
    assert {phase for phase, row in BOND_STEPS.items() if not row} == {BondPhase.FAILED}
    assert {to for row in BOND_STEPS.values() for to in row.values()} == set(BondPhase) - {BondPhase.FUNDING}
    assert {step for row in BOND_STEPS.values() for step in row} == set(BondStep)
