"""Every letter and every field of it, told wrongly: refused by name, the row as it was, and nothing signed.

Each lie is told to a machine to which the true letter would have been welcome. The true letter is told afterwards: it still is.
"""

import dataclasses
from collections.abc import Callable
from itertools import count
from typing import Any, Final

import msgpack
import pytest

from escrow.core.contract import Branch, Terms, channel_id, contract_of
from escrow.core.events import Effect, Letter, LetterIn, Locked, OutpointSeen, Phase, Revealed, Submit
from escrow.core.messages import (
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
    opened_digest,
    read_letter,
)
from escrow.core.opening import answer_open, open_channel, propose_terms, restore
from escrow.core.signer import StateSigner
from escrow.core.spends import escrow_digest, state
from escrow.core.transaction import SEQUENCE_FINAL, Tx
from escrow.shell.regtest import Regtest
from tests.escrow.pair import BUYER, INSTANCE, SELLER, SHORT, Pair, Party, lock_of
from wire.effects import Blame, Count
from wire.keys import SecretKey
from wire.ports import OutInfo, OutPoint

Make = Callable[..., Pair]
ELSEWHERE: Final = OutPoint(b"\x01" * 32, 3)
STRANGER: Final = SecretKey(b"\x66" * 32)
PAID: Final = 2_600_500
_counter = count(90_000)


# --- worlds in which a letter is welcome -------------------------------------------------------------------------


def _offered(world: Pair) -> Party:
    world.lose = lambda to, payload: to is world.buyer
    world.open().run()
    return world.buyer


def _agreed(world: Pair) -> Party:
    world.fund = False
    world.open().run()
    return world.seller


def _paid_once(world: Pair) -> Party:
    world.ready().pay(0)
    return world.seller


def _key_owed(world: Pair) -> Party:
    _paid_once(world)
    world.seller.reveals = False
    world.pay(1)
    return world.buyer


def coop(world: Pair) -> SecretKey:
    return contract_of(world.network.name, world.terms).secret(BUYER, Branch.COOPERATE)


def signer(world: Pair) -> StateSigner:
    funding = world.buyer.machine.funding
    return StateSigner(world.buyer.machine.contract, funding)


def commit(world: Pair) -> Commit:
    """The right second commitment."""
    lock = lock_of(world.key(1))
    return Commit(
        channel=world.seller.machine.channel,
        sequence=2,
        ref=b"unit 1",
        paid_msat=2 * PAID,
        lock=lock,
        signature=signer(world).sign(coop(world), 2 * PAID, lock),
        settled=signer(world).sign(coop(world), PAID, None),
    )


def funded(world: Pair) -> Funded:
    return Funded(channel=world.seller.machine.channel, txid=b"\x09" * 32, vout=0)


def opened(world: Pair) -> Opened:
    channel = world.buyer.machine.channel
    return Opened(channel=channel, signature=SELLER.sign(opened_digest(world.network.name, channel)))


RIGHT: Final[dict[type, tuple[Callable[[Pair], Party], Callable[[Pair], Any]]]] = {
    Opened: (_offered, opened),
    Declined: (_offered, lambda world: Declined(channel=world.buyer.machine.channel, code="no", sentence="not today")),
    Funded: (_agreed, funded),
    Commit: (_paid_once, commit),
    Key: (_key_owed, lambda world: Key(channel=world.buyer.machine.channel, sequence=2, key=world.key(1))),
    Done: (
        _paid_once,
        lambda world: Done(
            channel=world.seller.machine.channel, paid_msat=PAID, signature=signer(world).sign(coop(world), PAID, None)
        ),
    ),
    AskClose: (_paid_once, lambda world: AskClose(channel=world.seller.machine.channel, reason="please")),
}


# --- signatures that lie -----------------------------------------------------------------------------------------


def _bent(world: Pair, paid: int, lock: bytes | None, bend: Callable[[Tx], Tx]) -> bytes:
    """The buyer's signature of a state that is not quite the agreed one."""
    contract = world.buyer.machine.contract
    return coop(world).sign_ecdsa(escrow_digest(contract, bend(state(contract, world.buyer.machine.funding, paid, lock))))


def _sequence(number: int) -> Callable[[Tx], Tx]:
    return lambda tx: dataclasses.replace(tx, inputs=(dataclasses.replace(tx.inputs[0], sequence=number),))


def forgeries(world: Pair, paid: int, lock: bytes | None) -> dict[str, bytes]:
    """Signatures that are right in themselves and wrong here."""
    right, secret = signer(world), coop(world)
    other = propose_terms(
        BUYER, SELLER.public, SHORT, INSTANCE, height=1, feerate_sat_per_kvb=1_000, capacity_sat=100_000, counter=7
    )
    elsewhere = contract_of(SHORT.name, other)
    public_net = contract_of("signet", world.terms)
    funding = right.funding
    return {
        "a stranger": right.sign(STRANGER, paid, lock),
        "the account key": right.sign(BUYER, paid, lock),
        "the seller himself": right.sign(world.seller.machine._coop, paid, lock),
        "another channel": StateSigner(elsewhere, funding).sign(elsewhere.secret(BUYER, Branch.COOPERATE), paid, lock),
        "another network": StateSigner(public_net, funding).sign(public_net.secret(BUYER, Branch.COOPERATE), paid, lock),
        "another funding": StateSigner(world.buyer.machine.contract, ELSEWHERE).sign(secret, paid, lock),
        "a satoshi less": right.sign(secret, paid - 1_000, lock),
        "another lock": right.sign(secret, paid, bytes(32)),
        "a lying nLockTime": _bent(world, paid, lock, lambda tx: dataclasses.replace(tx, lock_time=400_000)),
        "a lying nSequence": _bent(world, paid, lock, _sequence(144)),
        "a final nSequence": _bent(world, paid, lock, _sequence(SEQUENCE_FINAL)),
        "a version": _bent(world, paid, lock, lambda tx: dataclasses.replace(tx, version=1)),
        "another sighash": secret.sign_ecdsa(
            state(world.buyer.machine.contract, funding, paid, lock).digest(
                0, world.buyer.machine.contract.witness_script, world.terms.capacity_sat, 0x83
            )
        ),
        "no DER": bytes(70),
    }


# --- the lies ----------------------------------------------------------------------------------------------------

Lie = tuple[str, str, Any]
"""Field, the name of the refusal, and the value told (or what makes it of the world)."""


def lies_of(kind: type, world: Pair) -> list[Lie]:
    """What may be told wrongly about each field, well formed; ``others_of`` adds what is not."""
    away: Lie = ("channel", "other-channel", bytes(32))
    if kind is Opened:
        channel = world.buyer.machine.channel
        return [
            away,
            ("signature", "wrong-signature", bytes(64)),
            ("signature", "wrong-signature", BUYER.sign(opened_digest(SHORT.name, channel))),
            ("signature", "wrong-signature", SELLER.sign(opened_digest("signet", channel))),
            ("signature", "wrong-signature", SELLER.sign(opened_digest(SHORT.name, bytes(32)))),
            ("signature", "wrong-signature", SELLER.sign(channel)),
        ]
    if kind is Commit:
        lock = lock_of(world.key(1))
        return [
            away,
            ("sequence", "skipped-commit", 3),
            ("sequence", "conflicting-commit", 1),
            ("paid_msat", "stale-state", PAID),
            ("paid_msat", "stale-state", 0),
            ("paid_msat", "wrong-signature", 2 * PAID + 1_000),
            ("paid_msat", "wrong-signature", 2 * PAID - 1_000),
            ("paid_msat", "over-capacity", world.seller.machine.contract.usable_msat + 1),
            ("paid_msat", "over-capacity", (1 << 63) - 1),
            ("lock", "wrong-signature", lock_of(world.key(0))),
            ("settled", "no-settlement", None),
            *(("signature", "wrong-signature", der) for der in forgeries(world, 2 * PAID, lock).values()),
            *(
                ("settled", "wrong-signature", der)
                for name, der in forgeries(world, PAID, None).items()
                if name != "another lock"
            ),
            ("settled", "wrong-signature", signer(world).sign(coop(world), 2 * PAID, None)),
        ]
    if kind is Key:
        return [
            away,
            ("sequence", "late-key", 1),
            ("sequence", "early-key", 3),
            ("key", "wrong-key", bytes(32)),
            ("key", "wrong-key", world.key(0)),
        ]
    if kind is Done:
        return [
            away,
            ("paid_msat", "short-done", PAID - 1),
            ("paid_msat", "wrong-signature", PAID + 1_000),
            ("paid_msat", "over-capacity", world.seller.machine.contract.usable_msat + 1_000),
            *(("signature", "wrong-signature", der) for der in forgeries(world, PAID, None).values()),
        ]
    return [away]


NO_LIE: Final = {(Commit, "ref"), (Declined, "code"), (Declined, "sentence"), (AskClose, "reason")}
"""Names and words: anything well formed is true. A ``ref`` that changes under one number is a conflict, tested below."""
BY_THE_CHAIN: Final = {(Funded, "txid"), (Funded, "vout")}
"""The seller believes no letter about the funding; what the chain shows is tested below."""
BEFORE_A_MACHINE: Final = {Open, Recall, Held}
"""Letters that are read where there is no channel yet: lies of an offer are below, of a channel handed back in test_recall."""


def plain(letter: Any) -> list[Any]:
    """A letter as msgpack values, to be bent before it is packed."""
    value: list[Any] = msgpack.unpackb(Letters.pack(letter), raw=False)
    return value


def others_of(letter: Any) -> list[tuple[str, bytes]]:
    """Every field with another type, too short, too long, out of its range; and the letter as a whole misshapen."""
    tag, fields = plain(letter)
    names = [one.name for one in dataclasses.fields(letter)]
    found = []
    for at, name in enumerate(names):
        wrong: tuple[Any, ...] = (["x"], {}, 1.5, True, -1, 1 << 63, "x" * 300, b"", b"x" * 7, b"x" * 80, None)
        for bad in wrong:
            bent = [*fields[:at], bad, *fields[at + 1 :]]
            well_formed = (name == "settled" and bad is None) or (name == "ref" and bad == b"x" * 7)
            if bent[at] != fields[at] and not well_formed:
                found.append((name, msgpack.packb([tag, bent], use_bin_type=True)))
    packed = Letters.pack(letter)
    found += [("", packed + b"\x00"), ("", packed[:-1]), ("", b""), ("", msgpack.packb([99, fields])), ("", bytes(1_025))]
    found += [("", msgpack.packb([tag, fields[:-1]])), ("", msgpack.packb([tag, [*fields, 0]])), ("", b"\xc1" + packed)]
    return found


def tell(monkeypatch: pytest.MonkeyPatch, world: Pair, party: Party, payload: bytes, peer: bytes | None = None) -> Any:
    """Tell a copy of the party's machine; returns what it did, and fails when it signed or its row changed."""
    rows, locks = party.rows["channel"], party.rows["channel_lock"]
    machine: Any = restore(party.key, world.network, rows, locks.values())[party.machine.channel]
    machine.resume(world.now)
    machine._seen, machine._height = dict(party.machine._seen), party.machine._height
    before = machine.row
    signed: list[bytes] = []
    with monkeypatch.context() as patch:
        patch.setattr(SecretKey, "sign_ecdsa", lambda self, digest: signed.append(digest))
        patch.setattr(SecretKey, "sign", lambda self, digest, aux=b"": signed.append(digest))
        event = LetterIn(peer=peer or world.other(party).key.peer_id, payload=payload)
        effects = machine.handle(event, world.now)
    assert machine.row == before
    assert signed == []
    assert not [one for one in effects if isinstance(one, Letter | Submit | Locked | Revealed)]
    return effects


def welcome(world: Pair, party: Party, letter: Any) -> tuple[Effect, ...]:
    """The true letter changes the row."""
    before = party.machine.row
    effects: tuple[Effect, ...] = party.machine.handle(
        LetterIn(peer=world.other(party).key.peer_id, payload=Letters.pack(letter)), world.now
    )
    assert party.machine.row != before
    return effects


def test_every_field_of_every_letter_is_lied_about(pair: Make) -> None:
    for kind in RIGHT:
        world = pair()
        RIGHT[kind][0](world)
        lied = {field for field, _, _ in lies_of(kind, world)}
        for field in dataclasses.fields(kind):
            free = (kind, field.name) in NO_LIE | BY_THE_CHAIN
            assert (field.name in lied) != free, f"{kind.__name__}.{field.name}"
    assert set(RIGHT) | BEFORE_A_MACHINE == set(Letters.members.values())


@pytest.mark.parametrize("kind", RIGHT)
def test_lies_are_refused_by_name(pair: Make, monkeypatch: pytest.MonkeyPatch, kind: type) -> None:
    reach, make = RIGHT[kind]
    world = pair()
    party = reach(world)
    right = make(world)
    for field, code, value in lies_of(kind, world):
        lie = Letters.pack(dataclasses.replace(right, **{field: value}))
        effects = tell(monkeypatch, world, party, lie)
        assert effects[0] == Count(code=code), f"{field} = {value!r}"
        assert all(isinstance(one, Count | Blame) for one in effects)
    welcome(world, party, right)


@pytest.mark.parametrize("kind", RIGHT)
def test_misshapen_letters_are_refused_by_name(pair: Make, monkeypatch: pytest.MonkeyPatch, kind: type) -> None:
    reach, make = RIGHT[kind]
    world = pair()
    party = reach(world)
    right = make(world)
    names = {"wrong-shape", "out-of-bounds", "not-canonical", "malformed", "oversize", "unknown-kind"}
    for field, payload in others_of(right):
        effects = tell(monkeypatch, world, party, payload)
        assert effects[0].code in names, f"{field}: {effects[0].code}"
        assert [type(one) for one in effects] == [Count, Blame]
    welcome(world, party, right)


@pytest.mark.parametrize("kind", RIGHT)
def test_letters_of_strangers_and_to_the_wrong_side(pair: Make, monkeypatch: pytest.MonkeyPatch, kind: type) -> None:
    reach, make = RIGHT[kind]
    world = pair()
    party = reach(world)
    payload = Letters.pack(make(world))
    assert tell(monkeypatch, world, party, payload, STRANGER.peer_id)[0] == Count(code="not-a-party")
    assert tell(monkeypatch, world, party, payload, party.key.peer_id)[0] == Count(code="not-a-party")
    other = world.other(party)
    if kind is not AskClose and other.channel is not None:
        assert tell(monkeypatch, world, other, payload)[0].code.startswith("unexpected-")


@pytest.mark.parametrize("kind", RIGHT)
def test_a_letter_twice_changes_nothing_the_second_time(pair: Make, kind: type) -> None:
    reach, make = RIGHT[kind]
    world = pair()
    party = reach(world)
    letter = make(world)
    welcome(world, party, letter)
    row = party.machine.row
    event = LetterIn(peer=world.other(party).key.peer_id, payload=Letters.pack(letter))
    again = party.machine.handle(event, world.now)
    assert party.machine.row == row
    assert not [one for one in again if isinstance(one, Revealed | Submit)]


def test_another_name_under_the_same_number_is_a_conflict(pair: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    world = pair()
    party = _paid_once(world)
    letter = commit(world)
    welcome(world, party, letter)
    party.rows["channel"][party.machine.channel] = _packed(party)
    changes: list[dict[str, Any]] = [{"ref": b"unit 2"}, {"lock": bytes(32)}, {"paid_msat": 3 * PAID}]
    for change in changes:
        lie = Letters.pack(dataclasses.replace(letter, **change))
        assert tell(monkeypatch, world, party, lie)[0] == Count(code="conflicting-commit")


def _packed(party: Party) -> bytes:
    from wire.canon import pack

    return pack(party.machine.row)


# --- the funding, as the chain shows it --------------------------------------------------------------------------


def test_a_funding_that_the_chain_shows_otherwise(pair: Make) -> None:
    for value, script in ((99_999, None), (100_001, None), (100_000, b"\x00\x14" + bytes(20)), (0, b"")):
        world = pair()
        party = _agreed(world)
        world.letters.append((party, Letters.pack(funded(world))))
        world.blind = True
        world.run()
        assert party.machine.row.phase is Phase.FUNDED
        outpoint = OutPoint(b"\x09" * 32, 0)
        right = party.machine.contract.funding
        info = OutInfo(value, right.script if script is None else script, 5, None)
        party.machine.handle(OutpointSeen(outpoint=outpoint, info=None), world.now)
        effects = party.machine.handle(OutpointSeen(outpoint=outpoint, info=info), world.now)
        assert Count(code="wrong-funding") in effects
        assert party.machine.row.phase.value == "closed"
        assert not [one for one in effects if isinstance(one, Letter | Submit)]


def test_a_funding_is_named_once(pair: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    world = pair().ready()
    right: Any = Funded(
        channel=world.seller.machine.channel,
        txid=world.seller.machine.funding.txid,
        vout=world.seller.machine.funding.vout,
    )
    for code, field, value in (
        ("other-funding", "txid", bytes(32)),
        ("other-funding", "vout", 1),
        ("funded-again", "vout", right.vout),
    ):
        lie = Letters.pack(dataclasses.replace(right, **{field: value}))
        assert tell(monkeypatch, world, world.seller, lie)[0] == Count(code=code)


# --- offers ------------------------------------------------------------------------------------------------------


def signed(terms: Terms, network: str = SHORT.name) -> Open:
    """An offer that hangs together, whatever it says."""
    channel = channel_id(network, terms)
    return Open(channel=channel, terms=terms, signature=BUYER.sign(channel))


TERMS: Final[list[tuple[str, str, dict[str, Any]]]] = [
    ("instance", "declined-other-chain", {"instance": bytes(32)}),
    ("buyer", "not-the-buyer", {"buyer": STRANGER.public}),
    ("buyer", "not-the-buyer", {"buyer": bytes(33)}),
    ("seller", "not-the-seller", {"seller": STRANGER.public}),
    ("capacity_sat", "declined-capacity-high", {"capacity_sat": 2_000_001}),
    ("capacity_sat", "declined-capacity-low", {"capacity_sat": 9_000}),
    ("arbiter", "declined-arbiter", {"arbiter": STRANGER.public, "ruling_height": 10_000, "refund_height": 20_000}),
    ("arbiter", "same-party", {"arbiter": SELLER.public, "ruling_height": 10_000, "refund_height": 20_000}),
    ("arbiter", "bad-key", {"arbiter": b"\x02" + b"\xff" * 32, "ruling_height": 10_000, "refund_height": 20_000}),
    ("ruling_height", "bad-ruling", {"ruling_height": 7}),
    ("ruling_height", "bad-ruling", {"arbiter": STRANGER.public, "ruling_height": 0}),
    ("ruling_height", "bad-ruling", {"arbiter": STRANGER.public, "ruling_height": 20_000, "refund_height": 20_000}),
    ("refund_height", "declined-too-short", {"refund_height": 1}),
    ("claim_delay_blocks", "declined-claim-delay", {"claim_delay_blocks": 1}),
    ("feerate_sat_per_kvb", "declined-feerate", {"feerate_sat_per_kvb": 1_000_000}),
    ("credit_sat", "declined-credit", {"credit_sat": 1_000}),
]
ANY_WILL_DO: Final = {"version", "nonce"}
"""There is one version, and a nonce is any 32 bytes; both are covered by shape and by the signature."""


def ask(world: Pair, payload: bytes, monkeypatch: pytest.MonkeyPatch) -> tuple[Effect, ...]:
    signatures: list[bytes] = []
    policy = dataclasses.replace(world.policy, credit_max_sat=500)
    with monkeypatch.context() as patch:
        patch.setattr(SecretKey, "sign", lambda self, digest, aux=b"": signatures.append(digest))
        event = LetterIn(peer=BUYER.peer_id, payload=payload)
        machine, effects = answer_open(SELLER, world.network, policy, event, height=world.chain.height, now=world.now)
    assert machine is None
    assert signatures == []
    assert all(isinstance(one, Count | Blame | Letter) for one in effects)
    return effects


def test_every_field_of_an_offer(chain: Regtest, monkeypatch: pytest.MonkeyPatch) -> None:
    world = Pair(chain, next(_counter))
    assert {field for field, _, _ in TERMS} | ANY_WILL_DO == {one.name for one in dataclasses.fields(Terms)}
    for field, code, changes in TERMS:
        terms = dataclasses.replace(world.terms, **changes)
        effects = ask(world, Letters.pack(signed(terms)), monkeypatch)
        assert effects[0] == Count(code=code), field
        answers = [read_letter(one.payload) for one in effects if isinstance(one, Letter)]
        assert [type(one) for one in answers] == ([Declined] if code.startswith("declined-") else [])
    right = signed(world.terms)
    for code, lie in (
        ("wrong-channel", dataclasses.replace(right, channel=bytes(32))),
        ("wrong-channel", dataclasses.replace(right, terms=dataclasses.replace(world.terms, nonce=bytes(32)))),
        ("wrong-channel", signed(world.terms, "signet")),
        ("wrong-signature", dataclasses.replace(right, signature=bytes(64))),
        ("wrong-signature", dataclasses.replace(right, signature=SELLER.sign(right.channel))),
        ("wrong-signature", dataclasses.replace(right, signature=BUYER.sign(bytes(32)))),
    ):
        assert ask(world, Letters.pack(lie), monkeypatch)[0] == Count(code=code)
    for _, payload in others_of(right):
        assert isinstance(ask(world, payload, monkeypatch)[0], Count)
    event = LetterIn(peer=BUYER.peer_id, payload=Letters.pack(right))
    machine, _ = answer_open(SELLER, world.network, world.policy, event, height=chain.height, now=world.now)
    assert machine is not None


def test_the_true_offer_is_what_a_buyer_sends(pair: Make) -> None:
    world = pair()
    channel, effects = open_channel(BUYER, world.network, world.terms, world.now)
    sent = [read_letter(one.payload) for one in effects if isinstance(one, Letter)]
    assert sent == [signed(world.terms)]
    assert channel.channel == channel_id(SHORT.name, world.terms)
