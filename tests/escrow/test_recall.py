"""A buyer without a disk and a seller who holds his signatures: the channel comes back and closes, and no lie gets through."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from escrow.core.contract import Branch, channel_id
from escrow.core.events import How, Phase, Reveal
from escrow.core.messages import Held, Letters, opened_digest, read_letter
from escrow.core.recall import held, take_back
from escrow.core.spends import complete, state
from escrow.core.state import CHANNEL_TABLE, LOCK_TABLE
from tests.escrow.pair import BUYER, INSTANCE, SELLER, Pair
from wire.canon import EncodingError
from wire.errors import Misbehaved
from wire.keys import SecretKey, peer_id_of

Make = Callable[..., Pair]
STRANGER = SecretKey(b"\x99" * 32)


def lose_disk(world: Pair) -> Held:
    """Everything of the buyer's is gone; what the seller tells."""
    world.buyer.channel = None
    world.buyer.rows = {CHANNEL_TABLE: {}, LOCK_TABLE: {}}
    world.buyer.watched.clear()
    world.buyer.told.clear()
    world.buyer.height = None
    told = held(world.seller.machine)
    assert told is not None
    again = Letters.unpack(Letters.pack(told))
    assert again == told
    return told


def hand_back(world: Pair, told: Held) -> Pair:
    world.buyer.channel, effects = take_back(BUYER, world.network, INSTANCE, told, SELLER.peer_id, world.now)
    world.perform(world.buyer, effects)
    return world.run()


@pytest.mark.parametrize("payments", [0, 1, 5])
def test_the_channel_comes_back_and_closes_with_the_right_balance(pair: Make, payments: int) -> None:
    world = pair().ready()
    for number in range(payments):
        world.pay(number)
    hand_back(world, lose_disk(world)).mine()
    end = world.check_end()
    assert (end.how, end.to_seller_sat) == (How.SETTLED, payments * 2_600_500 // 1_000)


def test_a_payment_whose_key_was_not_given_is_asked_for_again(pair: Make) -> None:
    """The key arrives after the loss: it is the same payment, and it is paid once."""
    world = pair().ready().pay(0)
    world.seller.reveals = False
    world.pay(1)
    told = lose_disk(world)
    assert told.last is not None
    assert (told.last.sequence, told.last.key) == (2, None)
    hand_back(world, told)
    assert world.buyer.machine.phase is Phase.OPEN
    assert world.buyer.machine.row.revealed_msat == 2_600_500
    world.give(world.seller, Reveal(ref=b"unit 1", key=world.key(1)))
    world.run().mine()
    end = world.check_end()
    assert (end.how, end.to_seller_sat) == (How.SETTLED, 5_201)


def test_a_locked_state_that_nobody_claims_lapses_to_the_buyer_again(pair: Make) -> None:
    """The lock came back with the channel, so the buyer can take what the key alone could not."""
    world = pair().ready().pay(0)
    world.seller.reveals = False
    world.pay(1)
    hand_back(world, lose_disk(world))
    world.seller.alive = False
    row = world.seller.machine.row
    coop = world.seller.machine.contract.secret(SELLER, Branch.COOPERATE)
    contract, last = world.seller.machine.contract, row.last
    locked = complete(contract, state(contract, world.seller.machine.funding, last.paid_msat, last.lock), last.signature, coop)
    world.chain.submit(locked.serialise())
    world.run().mine(world.network.claim_delay_blocks + 2)
    assert world.buyer.end.how is How.LAPSED
    assert world.buyer.end.to_seller_sat == 0


def test_what_is_over_or_unfunded_is_not_handed_back(pair: Make) -> None:
    world = pair()
    world.fund = False
    world.open().run()
    assert held(world.seller.machine) is None
    done = pair().ready().pay(0)
    done.close(done.buyer).mine()
    assert held(done.seller.machine) is None


def changed(told: Held, **fields: Any) -> Held:
    return dataclasses.replace(told, **fields)


def last_changed(told: Held, **fields: Any) -> Held:
    assert told.last is not None
    return dataclasses.replace(told, last=dataclasses.replace(told.last, **fields))


def resigned(world: Pair, told: Held, **fields: Any) -> Held:
    """Other terms, with the seller's true signature and one that is not the buyer's."""
    terms = dataclasses.replace(told.terms, **fields)
    name = channel_id(world.network.name, terms)
    opened = SELLER.sign(opened_digest(world.network.name, name))
    return changed(told, terms=terms, channel=name, opened=opened, signature=SELLER.sign(name))


LIES: dict[str, tuple[str, Callable[[Pair, Held], Held]]] = {
    "another channel's name": ("wrong-channel", lambda _, told: changed(told, channel=bytes(32))),
    "another capacity": ("never-mine", lambda world, told: resigned(world, told, capacity_sat=90_000)),
    "another chain": ("other-chain", lambda world, told: resigned(world, told, instance=bytes(32))),
    "another buyer": ("not-a-party", lambda world, told: resigned(world, told, buyer=STRANGER.public)),
    "another seller": ("not-a-party", lambda world, told: resigned(world, told, seller=STRANGER.public)),
    "unsigned by us": ("never-mine", lambda _, told: changed(told, signature=bytes(64))),
    "unsigned by him": ("wrong-signature", lambda _, told: changed(told, opened=bytes(64))),
    "another output": ("never-mine", lambda _, told: changed(told, vout=told.vout + 1)),
    "more paid": ("never-mine", lambda _, told: last_changed(told, paid_msat=9_000_000)),
    "more than there is": ("never-mine", lambda _, told: last_changed(told, paid_msat=1 << 50)),
    "more revealed": ("never-mine", lambda _, told: last_changed(told, amount_msat=0)),
    "less than nothing revealed": ("never-mine", lambda _, told: last_changed(told, amount_msat=1 << 50)),
    "no settled state where one is owed": ("never-mine", lambda _, told: last_changed(told, settled=None, key=None)),
    "another lock": ("never-mine", lambda _, told: last_changed(told, lock=bytes(32))),
    "a wrong key": ("wrong-key", lambda _, told: last_changed(told, key=bytes(32))),
}


@pytest.mark.parametrize("name", LIES)
def test_no_lie_gets_through(pair: Make, name: str) -> None:
    world = pair().ready().pay(0).pay(1)
    told = lose_disk(world)
    code, lie = LIES[name]
    with pytest.raises(Misbehaved) as caught:
        take_back(BUYER, world.network, INSTANCE, lie(world, told), SELLER.peer_id, world.now)
    assert caught.value.code == code
    take_back(BUYER, world.network, INSTANCE, told, SELLER.peer_id, world.now)


def test_somebody_else_cannot_hand_it_back(pair: Make) -> None:
    world = pair().ready().pay(0)
    told = lose_disk(world)
    with pytest.raises(Misbehaved) as caught:
        take_back(BUYER, world.network, INSTANCE, told, peer_id_of(STRANGER.public), world.now)
    assert caught.value.code == "not-a-party"


FREE = ("ref", "sequence", "amount_msat")
"""Names, and how much of the balance is new, to less than a satoshi: states are signed in whole ones."""


def test_no_byte_of_it_can_be_changed(pair: Make) -> None:
    """Whatever bit is flipped: it cannot be read, or is refused by name; or only a name changed, never an amount."""
    world = pair().ready().pay(0).pay(1)
    told = lose_disk(world)
    assert told.last is not None
    payload = Letters.pack(told)
    names = set()
    for place in range(len(payload)):
        bent = bytearray(payload)
        bent[place] ^= 1 << place % 8
        try:
            letter = read_letter(bytes(bent))
        except EncodingError as error:
            names.add(error.code)
            continue
        if not isinstance(letter, Held):
            continue
        try:
            channel, _ = take_back(BUYER, world.network, INSTANCE, letter, SELLER.peer_id, world.now)
        except Misbehaved as error:
            names.add(error.code)
            continue
        assert letter.last is not None
        assert last_changed(letter, **{one: getattr(told.last, one) for one in FREE}) == told
        assert abs(letter.last.amount_msat - told.last.amount_msat) < 1_000
        assert (channel.row.paid_msat, channel.row.revealed_msat) == (5_201_000, 5_201_000)
    assert {"never-mine", "wrong-signature", "wrong-channel", "not-a-party"} <= names
