"""Invariants of the agreement and of what is said in it, by number: I9, I11, I12, I13, I16, I18; and clocks that are wrong."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orderbook.core.agreement import LETTERS, Accept, Confirm, Decline, Propose
from orderbook.core.events import Agreed, CompareBooks, FrameIn, Letter, LetterIn, Publish, PublishOrder
from orderbook.core.evidence import Witness, proof_of
from orderbook.core.frames import FRAMES, Answer, Ask, Batch, BookRoot, Hello, Names, Pull, Pulled, Roots
from orderbook.core.messages import (
    GOSSIP,
    Close,
    EquivocationProof,
    Match,
    Order,
    SealedClose,
    SealedOrder,
    SealedProof,
    Side,
    account_hash_of,
    conflict,
    order_of,
    read,
    seal_close,
    seal_order,
    sign_match,
    units_of,
)
from orderbook.core.pen import SignedRow
from orderbook.core.stamp import mint
from tests.orderbook.encodings import ill_fitting, variants
from tests.orderbook.snapshot import fingerprint
from tests.orderbook.test_desk import Table, codes, kind, trade
from tests.orderbook.test_messages import match, order
from tests.orderbook.world import BOOK, EPOCH, Node, World, at, key
from wire.canon import EncodingError, pack, unpack
from wire.effects import Blame, Count, Save
from wire.errors import BitwrkError
from wire.keys import PeerId, verify
from wire.limits import FRAME_MAX_BYTES, ORDER_MAX_BYTES
from wire.moments import SECOND, Instant
from wire.network import MAIN, REGTEST, SIGNET

BUY, SELL = Side.BUY, Side.SELL
UNSTAMPED = replace(REGTEST, stamp_bits=-16)
"""The network, but nobody has to work for what he says."""
NAMES = {"malformed", "wrong-shape", "out-of-bounds", "not-canonical", "oversize", "unknown-kind", "wrong-network", "bad-stamp"}


# --- I9: what does not count is ignored, and counted by name -------------------------------------------------------


def after_hearing(message: bytes | None, *, before: Callable[[World], None] = lambda _: None) -> tuple[World, Node]:
    """Two who trade, and a third who brings one of them ``message`` before the freeze."""
    world = World(3)
    trade(world)
    world.run(at(EPOCH + 1, ms=300))
    hearer, bringer = world.list[0], world.list[2]
    before(world)
    hearer.counts.clear()
    if message is not None:
        frame = FRAMES.pack(Batch(messages=(message,)))
        world.market(hearer, FrameIn(peer=bringer.key.peer_id, frame=frame))
    world.run(at(EPOCH + 1, ms=1_990))
    return world, hearer


def tampered(raw: bytes) -> bytes:
    return raw[:-1] + bytes([raw[-1] ^ 1])


def ninth_slot() -> bytes:
    body = pack(order(9, side=BUY, price_msat=900_000, quantity=1))
    return mint("regtest", body.replace(key(9).public + b"\x00", key(9).public + b"\x08"), 8)


DEAR: dict[str, Any] = {"side": BUY, "price_msat": 900_000, "quantity": 1}  # it would win, if it counted
IGNORED: dict[str, tuple[bytes, str, bool]] = {
    "expired": (seal_order(key(9), REGTEST, order(9, **DEAR, first_epoch=EPOCH - 3, last_epoch=EPOCH)), "expired", False),
    "expired close": (
        seal_close(key(9), REGTEST, Close(network="regtest", book=BOOK, order=bytes(32), epoch=EPOCH - 60, owner=key(9).public)),
        "expired",
        False,
    ),
    "too early": (seal_order(key(9), REGTEST, order(9, **DEAR, first_epoch=EPOCH + 4, last_epoch=EPOCH + 5)), "early", False),
    "false signature": (tampered(seal_order(key(9), REGTEST, order(9, **DEAR))), "wrong-signature", True),
    "somebody else's signature": (seal_order(key(8), REGTEST, order(9, **DEAR)), "wrong-signature", True),
    "another network": (seal_order(key(9), SIGNET, order(9, network="signet", **DEAR)), "wrong-network", False),
    "real money": (seal_order(key(9), MAIN, order(9, network="main", **DEAR)), "wrong-network", False),
    "another book": (seal_order(key(9), REGTEST, order(9, book=b"?" * 32, **DEAR)), "unfollowed", False),
    "a ninth slot": (
        GOSSIP.pack(SealedOrder(body=ninth_slot(), signature=bytes(64))),
        "malformed",
        True,
    ),
}


@pytest.mark.parametrize("name", IGNORED)
def test_i09_what_does_not_count_changes_nothing_but_its_counter(name: str) -> None:
    message, code, blamed = IGNORED[name]
    plain, untouched = after_hearing(None)
    world, hearer = after_hearing(message)
    assert hearer.counts[code] == untouched.counts[code] + 1
    assert {one for one, count in hearer.counts.items() if count != untouched.counts[one]} == {code}
    assert [one.code for one in hearer.blames] == ([code] if blamed else [])
    assert [one.cleared for one in world.list] == [one.cleared for one in plain.list]
    assert [one.agreed for one in world.list] == [one.agreed for one in plain.list]
    assert [one.rows for one in world.list] == [one.rows for one in plain.list]
    assert hearer.agreed


def test_i09_a_cancelled_order_trades_no_more() -> None:
    for closed in (False, True):
        world = World(3)
        world.mesh()
        buyer, seller, _ = world.list
        raw = seal_order(key(9), REGTEST, order(9, side=SELL, price_msat=100, quantity=3))
        world.market(seller, Publish(message=raw))
        if closed:
            close = Close(network="regtest", book=BOOK, order=read(REGTEST, raw).id, epoch=EPOCH + 1, owner=key(9).public)
            world.market(seller, Publish(message=seal_close(key(9), REGTEST, close)))
        forged = Close(network="regtest", book=BOOK, order=read(REGTEST, raw).id, epoch=EPOCH + 1, owner=key(8).public)
        world.market(seller, Publish(message=seal_close(key(8), REGTEST, forged)))  # anybody's close of another's order is void
        world.want(buyer, BUY, 340_000, 3)
        world.run(at(EPOCH + 1, ms=700))
        assert bool(buyer.cleared[-1].fills) is not closed


# --- I11 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_i11_a_match_is_signed_by_both_only_if_both_computed_it(seed: int) -> None:
    """Orders at the last moment, each shown to one node only, and letters lost: roots differ, and no signature without a fill."""
    world = World(4, seed=seed)
    world.mesh()
    world.run(at(ms=200))
    dice = world.random
    for node in world.list:
        world.want(node, BUY if node.name % 2 else SELL, 300_000, 3)
    world.lose_letter = lambda *_: dice.random() < 0.15
    for epoch in range(1, 6):
        world.run(at(EPOCH + epoch, ms=590))
        world.lose_frame = lambda _, __, frame: isinstance(FRAMES.unpack(frame), Batch)
        for owner in (20, 21):
            raw = seal_order(
                key(owner),
                REGTEST,
                order(
                    owner,
                    side=dice.choice((BUY, SELL)),
                    price_msat=dice.choice((200_000, 300_000, 400_000)),
                    quantity=dice.randrange(1, 4),
                    first_epoch=EPOCH + epoch,
                    last_epoch=EPOCH + epoch,
                    sequence=epoch,
                ),
            )
            world.market(dice.choice(world.list), Publish(message=raw))
        world.run(at(EPOCH + epoch, ms=1_700))
        world.lose_frame = lambda *_: False
    world.run(at(EPOCH + 7))
    roots = [{node.cleared[place].root for node in world.list} for place in range(2, 5)]
    assert any(len(one) > 1 for one in roots)
    computed: dict[bytes, set[Any]] = {}
    for node in world.list:
        computed[node.key.public] = {_fact(view.epoch, fill) for view in node.cleared for fill in view.fills}
    agreed = [one.match for node in world.list for one in node.agreed]
    assert agreed
    for one in agreed:
        for party in (one.buyer, one.seller):
            assert _told(one.match) in computed[party]
    for node in world.list:
        for name in node.rows:
            assert name == b"sequence" or name.startswith(b"signed/")


def _fact(epoch: int, fill: Any) -> tuple[Any, ...]:
    return (epoch, fill.buy.id, fill.sell.id, fill.quantity, fill.price_msat, fill.buy_from, fill.sell_from)


def _told(one: Match) -> tuple[Any, ...]:
    return (one.epoch, one.buy, one.sell, one.quantity, one.price_msat, one.buy_from, one.sell_from)


# --- I12 ---------------------------------------------------------------------------------------------------------


def small_matches() -> list[Match]:
    """All matches of one sell order in two epochs, with two partners, two prices, and units 0 to 3."""
    return [
        match(epoch=EPOCH + epoch, buy=buy * 32, sell_from=start, buy_from=start, quantity=quantity, price_msat=price)
        for epoch in (0, 1)
        for buy in (b"b", b"c")
        for start in (0, 1, 2)
        for quantity in (1, 2)
        for price in (1, 2)
    ]


def test_i12_two_matches_of_one_order_that_clash_are_a_proof_for_anybody_and_others_are_none() -> None:
    secret, matches = key(7), small_matches()
    signed = {one: sign_match(secret, one, SELL) for one in matches}
    proofs = 0
    for one, other in itertools.combinations(matches, 2):
        clash = one.epoch != other.epoch or bool(set(units_of(one, SELL)) & set(units_of(other, SELL)))
        assert order_of(one, SELL) == order_of(other, SELL)
        assert conflict(one, other, SELL) == conflict(other, one, SELL) == clash
        body = pack(proof_of(secret.public, SELL, (one, signed[one]), (other, signed[other])))
        raw = GOSSIP.pack(SealedProof(body=body))  # a third party has nothing but these bytes
        if not clash:
            with pytest.raises(BitwrkError, match="do not contradict"):
                read(UNSTAMPED, raw)
            continue
        heard = read(UNSTAMPED, raw)
        proofs += 1
        assert heard.key_epoch == max(one.epoch, other.epoch)
        assert all(verify(check.public, check.digest, check.signature) for check in heard.checks)
        assert {check.public for check in heard.checks} == {secret.public}
        # of the other role, or signed by somebody else, it proves nothing
        assert not any(
            verify(check.public, check.digest, check.signature)
            for check in read(
                UNSTAMPED,
                GOSSIP.pack(SealedProof(body=body.replace(secret.public, key(8).public))),
            ).checks
        )
    assert proofs > 500


def test_i12_a_witness_finds_the_clash_whatever_comes_between() -> None:
    secret, matches = key(7), small_matches()
    for one, other in itertools.combinations(matches[::3], 2):
        witness = Witness()
        for seen in (one, match(sell=b"t" * 32), match(buy=b"q" * 32, sell=b"u" * 32), one):
            assert witness.add(secret.public, SELL, seen, sign_match(secret, seen, SELL)) is None
        proof = witness.add(secret.public, SELL, other, sign_match(secret, other, SELL))
        assert (proof is not None) == conflict(one, other, SELL)
        if proof is not None:
            assert {proof.first, proof.second} == {one, other}


# --- I13: whatever is said again changes nothing -------------------------------------------------------------------


def history(*, twice: bool) -> tuple[World, list[tuple[PeerId, PeerId, bytes]], list[tuple[PeerId, PeerId, bytes]]]:
    """Three nodes trade over three epochs; all that was sent, and whether it all arrives twice."""
    world, letters, frames = World(3, seed=5), list[Any](), list[Any]()
    world.delay_us = lambda: 3_000
    world.repeat = 1.0 if twice else 0.0

    def note(kept: list[Any]) -> Callable[[PeerId, PeerId, bytes], bool]:
        def noted(sender: PeerId, to: PeerId, payload: bytes) -> bool:
            kept.append((sender, to, payload))
            return False

        return noted

    world.lose_letter, world.lose_frame = note(letters), note(frames)
    world.mesh()
    world.run(at(ms=200))
    buyer, *sellers = world.list
    world.want(buyer, BUY, 340_000, 6)
    for seller in sellers:
        world.want(seller, SELL, 260_000, 2)
    world.run(at(EPOCH + 2, ms=200))
    world.want(sellers[0], SELL, 260_000, 2)
    world.run(at(EPOCH + 3, ms=1_990))
    return world, letters, frames


def test_i13_everything_twice_is_as_once() -> None:
    once, _, _ = history(twice=False)
    twice, _, _ = history(twice=True)
    for one, other in zip(once.list, twice.list, strict=True):
        assert one.agreed == other.agreed
        assert one.rows == other.rows
        assert one.cleared == other.cleared
        assert not other.blames
        assert not other.no_shows
    assert sum(len(one.agreed) for one in twice.list) == 6


def test_i13_every_letter_and_message_again_and_late_changes_nothing() -> None:
    world, letters, frames = history(twice=False)
    assert {kind(payload) for _, _, payload in letters} == {Propose, Accept, Confirm}
    now = Instant(world.now)
    before = {node.name: (fingerprint(node.desk), node.desk.statistics(), node.market.statistics()) for node in world.list}
    for sender, to, payload in letters:
        effects = world.nodes[to].desk.handle(LetterIn(peer=sender, payload=payload), now)
        assert {type(one) for one in effects} <= {Letter, type(effects[0])}
        for one in effects:
            assert not isinstance(one, Agreed | Save | PublishOrder | CompareBooks | Blame), one
            if isinstance(one, Letter):
                assert (to, one.peer, one.payload) in letters  # the same answer, byte for byte
    gossiped = Counter[str]()
    for sender, to, frame in frames:
        if isinstance(FRAMES.unpack(frame), Batch | Pulled):
            for heard in world.nodes[to].market.handle(FrameIn(peer=sender, frame=frame), now):
                assert isinstance(heard, Count)
                gossiped[heard.code] += 1
    assert set(gossiped) <= {"duplicate", "no-such-session", "not-asked", "stale-session"}
    assert gossiped["duplicate"] >= 4
    for node in world.list:
        assert before[node.name] == (fingerprint(node.desk), node.desk.statistics(), node.market.statistics())


def test_i13_what_was_said_in_one_place_means_nothing_in_another() -> None:
    """Letters of one network, epoch, peer or role, brought to another."""
    table = Table(SELL)
    fill = table.fill()
    table.do(table.view(fill))
    good = table.match(fill)
    (accept,) = table.said(table.hear(Propose(match=good)))
    confirm = Confirm(match=accept.match, signature=sign_match(table.them, accept.match, BUY))
    role = Confirm(match=accept.match, signature=sign_match(table.them, accept.match, SELL))
    elsewhere = replace(accept.match, network="signet")
    network = Confirm(match=accept.match, signature=sign_match(table.them, elsewhere, BUY))
    assert codes(table.hear(role)) == ["wrong-signature"]
    assert codes(table.hear(network)) == ["wrong-signature"]
    assert codes(table.hear(confirm, key(60).peer_id)) == ["not-yours"]
    assert codes(table.hear(replace(confirm, match=replace(accept.match, epoch=EPOCH + 2)))) == ["no-such-match"]
    assert codes(table.hear(replace(confirm, match=replace(accept.match, book=bytes(32))))) == ["no-such-match"]
    assert codes(table.hear(Accept(match=accept.match, signature=confirm.signature))) == ["no-such-match"]
    assert not [one for one in table.effects if isinstance(one, Agreed)]
    assert [type(one) for one in table.hear(confirm)] == [Agreed]


# --- I16: one accepted encoding ------------------------------------------------------------------------------------


def samples() -> dict[str, Any]:
    """One of every record that is sent, full and with awkward numbers."""
    one = match(epoch=EPOCH, price_msat=1 << 40, quantity=65_536, buy_from=1, sell_from=200, accept_by_us=1 << 60)
    clashing = replace(one, epoch=EPOCH + 1)
    avoid = tuple(sorted(account_hash_of(key(number).public) for number in (3, 4)))
    return {
        "order": order(avoid=avoid, price_msat=128, sequence=70_000),
        "close": Close(network="regtest", book=BOOK, order=b"o" * 32, epoch=EPOCH, owner=key(1).public),
        "proof": proof_of(key(1).public, SELL, (one, b"s" * 64), (clashing, b"t" * 64)),
        "propose": Propose(match=one),
        "accept": Accept(match=one, signature=b"s" * 64),
        "confirm": Confirm(match=one, signature=b"s" * 64),
        "decline": Decline(
            book=BOOK, epoch=EPOCH, buy=b"b" * 32, sell=b"s" * 32, buy_from=0, sell_from=1, code="withdrawn", close=b"c" * 40
        ),
        "hello": Hello(network="regtest", moment_us=Instant(EPOCH), books=(BOOK, bytes(32))),
        "batch": Batch(messages=(b"one", b"two" * 100)),
        "names": Names(
            batch=Batch(messages=(b"one",), moment_us=Instant(9), ages_ms=(4,)), has=(b"h" * 32,), wants=(b"w" * 32,) * 2
        ),
        "ask": Ask(book=BOOK, session=7, message=b"m" * 40),
        "answer": Answer(book=BOOK, session=300, message=b"m"),
        "pull": Pull(book=BOOK, session=7, ids=(b"i" * 32,)),
        "pulled": Pulled(book=BOOK, session=7, messages=(b"one",)),
        "roots": Roots(moment_us=Instant(5), epoch=EPOCH, roots=(BookRoot(book=BOOK, root=b"r" * 32),)),
    }


SEALED: dict[type, Callable[[bytes], Any]] = {
    Order: lambda body: SealedOrder(body=body, signature=bytes(64)),
    Close: lambda body: SealedClose(body=body, signature=bytes(64)),
    EquivocationProof: lambda body: SealedProof(body=body),
}


def opened(name: str, raw: bytes, most: int | None = None) -> Any:
    """Decode as the receiver of such a message does; raises the named error."""
    if name in ("order", "close", "proof"):
        return read(UNSTAMPED, raw)
    choice = LETTERS if name in ("propose", "accept", "confirm", "decline") else FRAMES
    return choice.unpack(raw, most or FRAME_MAX_BYTES)


def written(name: str, body: bytes | None = None) -> bytes:
    """The canonical bytes of a sample; of a gossiped one with another body."""
    one = samples()[name]
    if type(one) in SEALED:
        return GOSSIP.pack(SEALED[type(one)](pack(one) if body is None else body))
    choice = LETTERS if name in ("propose", "accept", "confirm", "decline") else FRAMES
    return choice.pack(one)


def plain(raw: bytes) -> Any:
    return msgpack.unpackb(raw, raw=False, strict_map_key=False)


def refused(name: str, raw: bytes) -> str:
    with pytest.raises(BitwrkError) as caught:
        opened(name, raw)
    assert caught.value.code in NAMES
    return caught.value.code


def opened_or_named(name: str, raw: bytes) -> Any:
    """What is decoded, or the name of the refusal."""
    try:
        return opened(name, raw)
    except BitwrkError as error:
        found = error.code
    assert found in NAMES
    return found


@pytest.mark.parametrize("name", samples())
def test_i16_no_other_encoding_of_the_same_is_accepted(name: str) -> None:
    """Each node of the message in every other form msgpack has; a different value is another message, never a second form."""
    raw, kind_of = written(name), type(samples()[name])
    accepted = opened(name, raw)
    tried = 0
    bodies: Iterator[bytes] = iter(())
    if kind_of in SEALED:
        bodies = (written(name, body) for body in variants(plain(pack(samples()[name]))) if len(body) <= 1_000)
    for other in itertools.chain(variants(plain(raw)), bodies):
        tried += 1
        found = opened_or_named(name, other)
        assert found != accepted
        if not isinstance(found, str):  # reversed fields of one type, a shorter list: something else was said
            assert name in ("batch", "names", "pulled", "hello", "roots", "order", "pull")
    assert tried > 30


@pytest.mark.parametrize("name", samples())
def test_i16_truncated_and_extended_everywhere(name: str) -> None:
    raw = written(name)
    for length in range(len(raw)):
        refused(name, raw[:length])
    for more in (b"\x00", b"\xc0", b"\x90", raw, bytes(200)):
        refused(name, raw + more)
        refused(name, more + raw)


def fields_of(name: str) -> list[tuple[str, bytes]]:
    """For every field of a sample, at any depth of records, messages with one ill-fitting value."""
    one = samples()[name]
    found = []
    for label, change in ill_fitting(type(one)):
        found.append((label, change(plain(pack(one)))))
    inner = plain(pack(one))
    for place, value in enumerate(inner):
        if isinstance(value, list) and len(value) == 12:  # a match inside
            for label, change in ill_fitting(Match):
                found.append((label, [*inner[:place], change(value), *inner[place + 1 :]]))
    tag = plain(written(name))[0]
    messages = []
    for label, fields in found:
        body = msgpack.packb(fields, use_bin_type=True)
        if type(one) in SEALED:
            envelope = [body] if tag == 3 else [body, bytes(64)]
            messages.append((label, msgpack.packb([tag, envelope], use_bin_type=True)))
        else:
            messages.append((label, msgpack.packb([tag, fields], use_bin_type=True)))
    return messages


@pytest.mark.parametrize("name", samples())
def test_i16_no_field_may_be_out_of_its_bounds_or_of_another_type(name: str) -> None:
    messages = fields_of(name)
    assert len({label.split("=")[0] for label, _ in messages}) >= len(plain(pack(samples()[name])))
    for label, raw in messages:
        assert refused(name, raw), label


@given(st.sampled_from(sorted(samples())), st.data())
@settings(max_examples=300, deadline=None)
def test_i16_a_changed_byte_is_refused_or_says_something_else(name: str, data: st.DataObject) -> None:
    raw = written(name)
    place, byte = data.draw(st.integers(0, len(raw) - 1)), data.draw(st.integers(0, 255))
    changed = raw[:place] + bytes([byte]) + raw[place + 1 :]
    if changed == raw:
        return
    assert opened_or_named(name, changed) != opened(name, raw)


@pytest.mark.parametrize("name", ["propose", "accept", "confirm", "decline"])
def test_i16_a_desk_names_every_such_letter_and_does_nothing(name: str) -> None:
    table = Table(SELL)
    table.do(table.view(table.fill()))
    letters = [*variants(plain(written(name))), *(raw for _, raw in fields_of(name))]
    before = fingerprint(table.desk)
    for raw in letters:
        effects = table.do(LetterIn(peer=table.them.peer_id, payload=raw))
        (code,) = codes(effects)
        assert [(one.peer, one.code) for one in effects if isinstance(one, Blame)] == [(table.them.peer_id, code)]
        assert len(effects) == 2
    assert fingerprint(table.desk) == before


def test_i16_sizes_have_their_bounds() -> None:
    assert refused("order", b"\x92\x01" + bytes(ORDER_MAX_BYTES)) == "oversize"
    table = Table(SELL)
    assert codes(table.do(LetterIn(peer=table.them.peer_id, payload=bytes(4_097)))) == ["oversize"]
    assert codes(table.do(LetterIn(peer=table.them.peer_id, payload=bytes(4_096)))) != ["oversize"]
    with pytest.raises(EncodingError):
        opened("batch", bytes(FRAME_MAX_BYTES + 1))


# --- I18: a crash after any step -------------------------------------------------------------------------------------


@pytest.mark.parametrize("victim", [0, 1], ids=["buyer", "seller"])
@pytest.mark.parametrize("kept", [False, True], ids=["before-the-save", "after-it"])
def test_i18_a_crash_after_any_step_ends_in_a_deal_or_lets_go(victim: int, *, kept: bool) -> None:
    """The n-th event of one desk kills it: with its rows kept or not, nothing of what it did leaves. For every n."""
    outcomes: Counter[tuple[int, int]] = Counter()
    for step in range(1, 200):
        world = Murderous(victim, step, kept=kept)
        world.mesh()
        world.run(at(ms=200))
        buyer, seller = world.list
        world.want(buyer, BUY, 340_000, 3)
        world.want(seller, SELL, 260_000, 3)
        world.run(at(EPOCH + 9))
        if world.left > 0:
            break
        bought, sold = ([one.match.match for one in each.agreed] for each in (buyer, seller))
        assert sum(one.quantity for one in bought) == 3
        assert set(sold) <= set(bought) or victim == 1
        for side, each in ((BUY, buyer), (SELL, seller)):
            assert not any(conflict(one, other, side) for one, other in itertools.combinations(signatures(each), 2))
            assert not any(one.code == "equivocation" for one in each.blames)
        outcomes[len(bought), len(sold)] += 1
    else:
        raise AssertionError("the desk has no last step")
    assert outcomes[1, 1] > 3


class Murderous(World):
    """Two nodes, one of which is killed by the n-th event at its desk: its rows may be kept, nothing that it did leaves."""

    def __init__(self, victim: int, step: int, *, kept: bool) -> None:
        super().__init__(2)
        self.victim, self.left, self.kept = self.list[victim], step, kept

    def desk(self, node: Node, event: Any) -> None:
        if node is self.victim:
            self.left -= 1
            if self.left == 0:
                self.kill(node, event)
                return
        super().desk(node, event)

    def kill(self, node: Node, event: Any) -> None:
        for one in node.desk.handle(event, self.local(node)) if self.kept else ():
            if isinstance(one, Save) and one.value is not None:
                node.rows[one.key] = one.value
            elif isinstance(one, Agreed):
                node.agreed.append(one)  # the deal is kept in the same transaction
        self.later(self.now, self.back)

    def back(self) -> None:
        node = self.victim
        self.restart(node)
        self.mesh()
        side, price = (BUY, 340_000) if node.name == 0 else (SELL, 260_000)
        self.want(node, side, price, 3 - sum(one.match.match.quantity for one in node.agreed))


def signatures(node: Node) -> list[Match]:
    return [unpack(SignedRow, value).match for name, value in node.rows.items() if name.startswith(b"signed/")]


def test_i18_a_confirmation_that_was_kept_but_not_sent_is_sent_after_the_restart() -> None:
    world = World(2)
    lost: list[bytes] = []

    def lose(_: PeerId, __: PeerId, payload: bytes) -> bool:
        if kind(payload) is Confirm and not lost:
            lost.append(payload)
            return True
        return False

    world.lose_letter = lose
    buyer, seller = trade(world)
    world.run(at(EPOCH + 1, ms=690))
    assert len(lost) == len(buyer.agreed) == 1
    assert not seller.agreed
    world.restart(buyer)
    world.run(at(EPOCH + 1, ms=790))
    assert [one.match for one in seller.agreed] == [one.match for one in buyer.agreed]
    late = at(EPOCH + 1, ms=1_901)
    again = type(buyer.desk)(buyer.key, REGTEST, buyer.rows, b"again")
    assert [type(one) for one in again.resume(Instant(late - 1_000))] == [Letter]
    assert not again.resume(late)


# --- clocks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [1, -1])
@pytest.mark.parametrize("seconds", [1, 5, 60, 3_600, 86_400])
def test_a_clock_that_is_wrong_stops_its_own_node_and_no_other(seconds: int, ahead: int) -> None:
    """Four nodes, one clock off: its node says so, writes and signs nothing; the others trade as if it were not there."""
    worlds = []
    for skewed in (False, True):
        world = World(4, seed=3)
        if skewed:
            world.list[3].skew_us = ahead * seconds * SECOND
        world.mesh()
        world.run(at(EPOCH + 2, ms=900))  # to find a clock fast takes three times told
        if skewed:
            world.want(world.list[3], BUY, 500_000, 3)  # it would outbid the other, if it counted
            world.want(world.list[3], SELL, 100_000, 3)
        world.want(world.list[0], BUY, 340_000, 3)
        world.want(world.list[1], SELL, 260_000, 3)
        world.run(at(EPOCH + 6, ms=1_990))
        worlds.append(world)
    plain_world, world = worlds
    wrong = world.list[3]
    assert wrong.market.skewed
    assert f"{seconds}.0 s {'ahead of' if ahead > 0 else 'behind'}" in wrong.judged[-1].sentence
    assert "does not trade" in wrong.judged[-1].sentence
    assert {one.refusal for one in wrong.cleared[2:]} == {"clock-skewed"}
    assert {one.code for one in wrong.missed} == {"clock-skewed"}
    assert {one.side for one in wrong.missed} == {BUY, SELL}
    assert not wrong.agreed
    assert not [name for name in wrong.rows if name.startswith(b"signed/")]
    for node, other in zip(world.list[:3], plain_world.list[:3], strict=True):
        assert not node.market.skewed
        assert {one.refusal for one in node.cleared} <= {"", "not-ready"}
        assert not node.blames
        assert [(one.epoch, one.fills) for one in node.cleared[2:]] == [(one.epoch, one.fills) for one in other.cleared[2:]]
        assert [_told(one.match.match) for one in node.agreed] == [_told(one.match.match) for one in other.agreed]
    assert world.list[0].agreed
