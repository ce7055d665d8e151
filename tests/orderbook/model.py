"""A model checker: a few real desks, an adversary for a network, every order of events, every state once.

**The network is a soup.** Whatever was ever said may arrive at any time, any number of times, or never: loss, repetition,
delay and reordering in one. An adversary is a key without a desk: all that it could say about what it has seen is in the soup
from then on.

**A crash** may happen between any two events. What the desk asked to be kept is kept with the event (one transaction, as the
driver does it) and what it said may be lost, since nothing in the soup need arrive; a crash before the transaction is the event
not happening. A *relapse* is a crash after which an empty journal comes back.

**Views** are the real auction's over the real book of what was published, with or without an order of a stranger, so that
peers may differ; after every comparison that a desk asks for there may be another view, equal or not.

A desk depends on the others only through events, so each (desk, moment, event) is computed once and remembered by number; a
state of the whole is a few small integers, and sets of letters and of published messages are the bits of one.
"""

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import orderbook.core.agreement
import orderbook.core.pen
import orderbook.core.talks
from orderbook.core.agreement import LETTERS, Accept, Confirm, Decline, Propose
from orderbook.core.auction import auction_seed, clear
from orderbook.core.book import Book
from orderbook.core.desk import Desk
from orderbook.core.events import Agreed, Cleared, CompareBooks, Letter, LetterIn, PublishOrder, Tick, Want
from orderbook.core.messages import (
    EquivocationProof,
    Match,
    Order,
    Side,
    conflict,
    read,
    seal_order,
    sign_match,
    verify_match,
)
from orderbook.core.pen import SignedRow
from tests.orderbook.snapshot import fingerprint, twin
from tests.orderbook.world import BOOK, EPOCH, at, key
from wire.canon import unpack
from wire.effects import Blame, Save
from wire.keys import PeerId, SecretKey, peer_id_of
from wire.moments import MILLISECOND, Instant, after
from wire.network import REGTEST

PRICES = {Side.BUY: 340, Side.SELL: 260}
TICKS_MAX = 64
EARLY_MS, LATE_MS, OVER_MS = 610, 1_850, 1_960
"""In an epoch: views and letters; too late for a buyer to sign; too late for anybody, and new orders are written."""

State = tuple[int, int, int, tuple[int, ...], int]
"""Moment, letters in the soup, messages published, the peers, and views still allowed: all numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who takes part. An adversary has an order, but no desk. ``ahead_ms`` is by how much the clock is fast."""

    side: Side
    quantity: int
    adversary: bool = False
    ahead_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is explored. A ``stranger`` sells one unit at that price too, in some views only, and never answers: below the price
    of the sellers it takes a unit away, between the two prices it changes what all pay. Each peer crashes so often at most, and
    its owner takes back a unit so often; ``comparisons`` is how many may be outstanding.
    """

    name: str
    people: tuple[Person, ...]
    epochs: int = 2
    stranger: int | None = None
    crashes: int = 1
    relapses: int = 0
    comparisons: int = 1
    lessened: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A desk that is never changed, only replaced, and what has become of its owner's wishes."""

    number: int
    desk: Desk
    rows: dict[bytes, bytes]
    left: int
    starts: int = 0
    lessened: int = 0
    relapsed: bool = False
    computed: frozenset[tuple[Any, ...]] = frozenset()
    signed: frozenset[Match] = frozenset()
    agreed: frozenset[Match] = frozenset()


class Broken(AssertionError):
    """An invariant does not hold; the text has the way there."""


class Model:
    """One setting, explored."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.keys = [key(100 + number) for number in range(len(setting.people))]
        self.who = {one.peer_id: number for number, one in enumerate(self.keys)}
        self.moments = [at(EPOCH, OVER_MS)]
        for epoch in range(1, setting.epochs + 3):  # two more than are explored, for the calm at the end
            self.moments += [at(EPOCH + epoch, ms) for ms in (EARLY_MS, LATE_MS, OVER_MS)]
        self.explored_moments = 1 + 3 * setting.epochs
        self.letters: list[tuple[int, PeerId, bytes]] = []
        self.messages: list[tuple[bytes, int]] = []
        self.views: list[Cleared] = []
        self.peers: list[Peer] = []
        self.prints: list[Any] = []
        self._numbers: dict[Any, int] = {}
        self._moves: dict[Any, tuple[int, int, int, int]] = {}
        self._view_numbers: dict[Any, int] = {}
        self.stranger_bit = 0
        self.owners: dict[bytes, int] = {}
        self.parents: dict[State, tuple[State, str] | None] = {}
        self.proved = 0

    # --- numbers ----------------------------------------------------------------------------------------------

    def number(self, kind: list[Any], one: Any) -> int:
        """The place of ``one`` in ``kind``, where it is put if it is new."""
        name = (id(kind), one)
        found = self._numbers.get(name)
        if found is None:
            found = self._numbers[name] = len(kind)
            kind.append(one)
        return found

    def say(self, to: PeerId, sender: PeerId, payload: bytes) -> int:
        """A letter, and what an adversary makes of it, as bits of the soup."""
        place = self.who.get(to)
        if place is None:
            return 0
        if self.setting.people[place].adversary:
            return self.answers(place, sender, payload)
        return 1 << self.number(self.letters, (place, sender, payload))

    def answers(self, adversary: int, victim: PeerId, payload: bytes) -> int:
        """All that an adversary says to whoever sent it ``payload``: yes, no, and yes in other words."""
        letter, secret = LETTERS.unpack(payload), self.keys[adversary]
        said: list[Any] = []
        match letter:
            case Propose(match=asked):
                for root in (b"1" * 32, b"2" * 32):
                    mine = replace(asked, seller_root=root)
                    said.append(Accept(match=mine, signature=sign_match(secret, mine, Side.SELL)))
                said += [_declined(asked, "different-view"), _declined(asked, "withdrawn")]
            case Accept(match=taken):
                for mine in (taken, replace(taken, buyer_root=b"3" * 32)):
                    said.append(Confirm(match=mine, signature=sign_match(secret, mine, Side.BUY)))
                said += [_declined(taken, "different-view"), _declined(taken, "withdrawn")]
            case _:
                return 0
        soup = 0
        for one in said:
            soup |= self.say(victim, secret.peer_id, LETTERS.pack(one))
        return soup

    def overtures(self, view: Cleared) -> int:
        """What adversaries who buy propose to sellers when there is such a view: the fill, in two wordings, and half of it."""
        soup = 0
        for fill in view.fills:
            adversary, victim = self.who.get(peer_id_of(fill.buy.owner)), peer_id_of(fill.sell.owner)
            if adversary is None or not self.setting.people[adversary].adversary or victim not in self.who:
                continue
            asked = _match(view, fill)
            for one in (asked, replace(asked, buyer_root=b"4" * 32), replace(asked, quantity=1)):
                soup |= self.say(victim, self.keys[adversary].peer_id, LETTERS.pack(Propose(match=one)))
        return soup

    # --- views ------------------------------------------------------------------------------------------------

    def view(self, published: int, epoch: int, again: bool, with_stranger: bool) -> int:
        """The auction over what is published, as a number of ``views``."""
        chosen = published if with_stranger else published & ~self.stranger_bit
        name = (chosen, epoch, again)
        found = self._view_numbers.get(name)
        if found is None:
            book = Book(REGTEST.clock)
            for place in _bits(chosen):
                raw, known_epoch = self.messages[place]
                heard = read(REGTEST, raw)
                if not isinstance(heard.body, EquivocationProof):
                    book.admit(heard, Instant(at(known_epoch) - 1_000), asked=True)
            buys, sells = book.eligible(epoch, late=again)
            fills = clear(buys, sells, auction_seed(REGTEST.name, BOOK, epoch))
            view = Cleared(book=BOOK, epoch=epoch, root=book.root(epoch), fills=fills, buys=buys, sells=sells, again=again)
            found = self._view_numbers[name] = self.number(self.views, view)
        return found

    # --- one peer ---------------------------------------------------------------------------------------------

    def keep(self, peer: Peer) -> int:
        """The number of a peer; two that cannot be told apart from outside, now or ever, are one."""
        name = (
            "peer",
            peer.number,
            peer.left,
            peer.starts,
            peer.lessened,
            peer.relapsed,
            peer.computed,
            peer.signed,
            peer.agreed,
            frozenset(peer.rows.items()),
            fingerprint(peer.desk),
        )
        found = self._numbers.get(name)
        if found is None:
            self.check_peer(peer)
            found = self._numbers[name] = len(self.peers)
            self.peers.append(peer)
        return found

    def move(self, name: int, moment: int, kind: str, what: int = 0) -> tuple[int, int, int, int]:
        """What one event does to a peer: its next number, letters, messages, and comparisons asked for. Computed once."""
        memo = (name, moment, kind, what)
        found = self._moves.get(memo)
        if found is None:
            found = self._moves[memo] = self._move(self.peers[name], moment, kind, what)
        return found

    def _move(self, peer: Peer, moment: int, kind: str, what: int) -> tuple[int, int, int, int]:
        now, desk, rows = self.clock(peer.number, moment), twin(peer.desk), dict(peer.rows)
        left, starts, lessened, relapsed, computed = peer.left, peer.starts, peer.lessened, peer.relapsed, peer.computed
        effects: list[tuple[Instant, Any]] = []

        def tell(event: Any, when: Instant = now) -> None:
            effects.extend((when, one) for one in desk.handle(event, when))

        match kind:
            case "tick":
                for _ in range(TICKS_MAX):
                    due = desk.next_deadline()
                    if due is None or due >= now:
                        break
                    tell(Tick(), due)
                else:
                    raise Broken("I18: a deadline that never passes")
                tell(Tick())
            case "letter":
                _, sender, payload = self.letters[what]
                tell(LetterIn(peer=sender, payload=payload))
            case "view":
                view = self.views[what]
                computed |= {_fill(view.epoch, fill) for fill in view.fills}
                tell(view)
            case "less":
                left, lessened = max(0, left - 1), lessened + 1
                tell(self.want(peer.number, left))
            case "crash" | "relapse":
                starts += 1
                if kind == "relapse":
                    rows, left, relapsed = {}, self.setting.people[peer.number].quantity, True
                desk = Desk(self.keys[peer.number], REGTEST, rows, bytes([starts]))
                effects.extend((now, one) for one in desk.resume(now))
                tell(self.want(peer.number, left))
                tell(Tick())
            case _:
                raise AssertionError(kind)
        signed, agreed = peer.signed, peer.agreed
        for _, one in effects:
            if isinstance(one, Save):
                if one.value is None:
                    rows.pop(one.key, None)
                    continue
                rows[one.key] = one.value
                if one.key.startswith(b"signed/"):
                    signed |= {unpack(SignedRow, one.value).match}
            elif isinstance(one, Agreed):
                agreed |= {one.match.match}
                left = max(0, left - one.match.match.quantity)  # the deal is kept in the same transaction
        soup, published, comparisons = self.said(peer, effects, signed)
        following = Peer(
            number=peer.number,
            desk=desk,
            rows=rows,
            left=left,
            starts=starts,
            lessened=lessened,
            relapsed=relapsed,
            computed=computed,
            signed=signed,
            agreed=agreed,
        )
        self.check_deals(following, [one for _, one in effects if isinstance(one, Agreed)])
        return self.keep(following), soup, published, comparisons

    def said(self, peer: Peer, effects: Iterable[tuple[Instant, Any]], signed: frozenset[Match]) -> tuple[int, int, int]:
        """What leaves, as bits; nothing may leave unsaved, and nobody honest may be blamed."""
        soup = published = comparisons = 0
        me = self.keys[peer.number].peer_id
        for when, one in effects:
            match one:
                case Letter(peer=to, payload=payload):
                    letter = LETTERS.unpack(payload)
                    if isinstance(letter, Accept | Confirm) and letter.match not in signed:
                        raise Broken("a signature left that was not saved")
                    soup |= self.say(to, me, payload)
                case PublishOrder(message=message):
                    self.check_published(message, peer.number)
                    published |= 1 << self.number(self.messages, (message, self.known_epoch(peer.number, when)))
                case CompareBooks():
                    comparisons += 1
                case Blame(peer=whom, code=code):
                    place = self.who.get(PeerId(whom))
                    if place is not None and not self.setting.people[place].adversary:
                        raise Broken(f"{place}, who is honest, is blamed: {code}")
                case _:
                    pass
        return soup, published, comparisons

    def known_epoch(self, number: int, when: Instant) -> int:
        """From which epoch on others count what a peer publishes at ``when`` by its own clock."""
        truly = Instant(when - self.setting.people[number].ahead_ms * MILLISECOND)
        epoch = REGTEST.clock.epoch(truly)
        return epoch if truly <= REGTEST.clock.freeze(epoch) else epoch + 1

    def want(self, number: int, quantity: int) -> Want:
        side = self.setting.people[number].side
        return Want(book=BOOK, side=side, price_msat=PRICES[side], quantity=quantity)

    # --- invariants -------------------------------------------------------------------------------------------

    def check_peer(self, peer: Peer) -> None:
        """I11 and I12 for one owner over all its lives, and no unit promised twice."""
        person = self.setting.people[peer.number]
        signed = sorted(peer.signed, key=lambda one: (one.epoch, one.buy, one.sell, one.buy_from))
        for index, one in enumerate(signed):
            if _computed(one) not in peer.computed:
                raise Broken(f"I11: {peer.number} signed what it never computed")
            for other in signed[index + 1 :]:
                if conflict(one, other, person.side):
                    raise Broken(f"I12: {peer.number}, who is honest, signed one order away twice")
        if not peer.agreed <= peer.signed:
            raise Broken(f"{peer.number} has a deal that it did not sign")
        if not peer.relapsed and sum(one.quantity for one in peer.agreed) + peer.left > person.quantity:
            raise Broken(f"I18: {peer.number} has promised more than it wanted")

    def check_deals(self, peer: Peer, deals: Iterable[Agreed]) -> None:
        """A deal holds both signatures over what both computed."""
        for deal in deals:
            signed = deal.match
            good = verify_match(signed.buyer, signed.match, Side.BUY, signed.buyer_signature) and verify_match(
                signed.seller, signed.match, Side.SELL, signed.seller_signature
            )
            if not good or self.keys[peer.number].public not in (signed.buyer, signed.seller):
                raise Broken("a deal without both signatures")

    def check_published(self, message: bytes, number: int) -> None:
        """I12: whatever is called a proof here is one, and names an adversary."""
        heard = read(REGTEST, message)
        if isinstance(heard.body, Order):
            self.owners[heard.id] = number
        if isinstance(heard.body, EquivocationProof):
            place = self.who.get(peer_id_of(heard.body.signer))
            if place is None or not self.setting.people[place].adversary:
                raise Broken("I12: an honest owner is called an equivocator")
            matches = ((heard.body.first, heard.body.first_signature), (heard.body.second, heard.body.second_signature))
            if not all(verify_match(heard.body.signer, one, heard.body.side, signature) for one, signature in matches):
                raise Broken("I12: a proof that does not verify")
            self.proved += 1

    def check_whole(self, state: State) -> None:
        """I11 across peers, and at the end of an epoch nothing is left open."""
        moment, _, _, names, _ = state
        peers = [self.peers[name] for name in names if name >= 0]
        for one in peers:
            for match in one.agreed:
                for order in (match.buy, match.sell):
                    owner = self.owners.get(order)
                    if owner is not None and match not in self.peers[names[owner]].signed:
                        raise Broken("I11: a deal that a party to it did not sign")
        if moment and (moment % 3) == 0:
            for one in peers:
                pen, talks = one.desk._pen, one.desk._talks
                if talks.busy() or any(line.promised for line in pen.lines.values()):
                    raise Broken(f"I18: {one.number} still waits after the epoch's time for signing")

    # --- all of it --------------------------------------------------------------------------------------------

    def start(self) -> State:
        """Everybody's order is written, in the epoch before the first that is explored."""
        names, published = [], 0
        for number, person in enumerate(self.setting.people):
            if person.adversary:
                order = _order(self.keys[number], person.side, PRICES[person.side], person.quantity)
                published |= 1 << self.number(self.messages, (order, EPOCH + 1))
                names.append(-1)
                continue
            desk, now = Desk(self.keys[number], REGTEST, {}, b"\x00"), self.clock(number, 0)
            written = at(ms=OVER_MS)
            desk.handle(self.want(number, person.quantity), at(ms=1))
            effects = [(when, one) for when in (written, now) for one in desk.handle(Tick(), when)]
            rows = {one.key: one.value for _, one in effects if isinstance(one, Save) and one.value is not None}
            peer = Peer(number=number, desk=desk, rows=rows, left=person.quantity)
            _, messages, _ = self.said(peer, effects, frozenset())
            published |= messages
            names.append(self.keep(peer))
        if self.setting.stranger is not None:
            order = _order(key(99), Side.SELL, self.setting.stranger, 1)
            self.stranger_bit = 1 << self.number(self.messages, (order, EPOCH + 1))
            published |= self.stranger_bit
        return (0, 0, published, tuple(names), 0)

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        """Everything that can happen next. ``allowed`` packs four bits a peer: its first view given, comparisons outstanding."""
        moment, soup, published, names, allowed = state
        if moment + 1 < self.explored_moments:
            yield "time", self.later(state)
        epoch, phase = self.epoch_of(moment), (moment - 1) % 3
        for number, name in enumerate(names):
            if name < 0:
                continue
            peer = self.peers[name]
            if peer.starts < self.setting.crashes:
                yield f"crash {number}", self.after(state, number, "crash")
            if peer.lessened < self.setting.lessened:
                yield f"less {number}", self.after(state, number, "less")
            if peer.starts < self.setting.relapses:
                yield f"relapse {number}", self.after(state, number, "relapse")
            if moment == 0 or phase == 2:
                continue
            flags = allowed >> 4 * number & 15
            for again in (False, True):
                if (again and not (flags & 1 and flags >> 1)) or (not again and flags & 1):
                    continue
                used = flags | 1 if not again else flags - 2
                left = allowed & ~(15 << 4 * number) | used << 4 * number
                views = {self.view(published, epoch, again, some) for some in (False, self.stranger_bit != 0)}
                for view in views:
                    yield f"view {view} to {number}", self.after(state, number, "view", view, left)
        for letter in _bits(soup):
            number = self.letters[letter][0]
            yield f"letter {letter} to {number}", self.after(state, number, "letter", letter)

    def clock(self, number: int, moment: int) -> Instant:
        """The moment by a peer's own clock."""
        return after(self.moments[moment], self.setting.people[number].ahead_ms * MILLISECOND)

    def epoch_of(self, moment: int) -> int:
        return REGTEST.clock.epoch(self.moments[moment])

    def after(self, state: State, number: int, kind: str, what: int = 0, allowed: int | None = None) -> State:
        """The state after one event at one peer."""
        moment, soup, published, names, before = state
        following, letters, messages, comparisons = self.move(names[number], moment, kind, what)
        left = before if allowed is None else allowed
        if kind in ("crash", "relapse"):
            left &= ~(15 << 4 * number)
        elif comparisons:
            flags = left >> 4 * number & 15
            most = min(self.setting.comparisons, (flags >> 1) + comparisons)
            left = left & ~(15 << 4 * number) | ((flags & 1) | most << 1) << 4 * number
        soup |= letters
        if kind == "view":
            soup |= self.overtures(self.views[what])
        return (moment, soup, published | messages, (*names[:number], following, *names[number + 1 :]), left)

    def later(self, state: State) -> State:
        """The next moment, which everybody notices."""
        moment, soup, published, names, allowed = state
        changed = []
        for name in names:
            if name < 0:
                changed.append(name)
                continue
            following, letters, messages, _ = self.move(name, moment + 1, "tick")
            soup, published = soup | letters, published | messages
            changed.append(following)
        fresh = self.epoch_of(moment + 1) != self.epoch_of(moment)
        return (moment + 1, soup, published, tuple(changed), 0 if fresh else allowed)

    def explore(self, most: int) -> int:
        """Breadth first. How many states there are; raises ``Broken`` with the way to a bad one, or with over ``most``."""
        first = self.start()
        self.parents = {first: None}
        todo = deque([first])
        while todo:
            state = todo.popleft()
            try:
                self.check_whole(state)
                for action, following in self.steps(state):
                    if following not in self.parents:
                        self.parents[following] = (state, action)
                        todo.append(following)
            except Broken as broken:
                raise Broken(f"{broken}; after: {', '.join(self.way_to(state))}") from broken
            if len(self.parents) > most:
                raise Broken(f"more than {most} states")
        return len(self.parents)

    def way_to(self, state: State) -> list[str]:
        """The actions that lead to ``state``."""
        way: list[str] = []
        while (parent := self.parents[state]) is not None:
            state, action = parent
            way.append(action)
        return way[::-1]

    def calm(self, state: State) -> None:
        """I18: from ``state`` on everything arrives at once and views are equal. Within two epochs all that can be traded is."""
        start = state
        while True:
            moment, _, published, _, _ = state
            if moment and (moment - 1) % 3 == 0:
                view = self.view(published, self.epoch_of(moment), again=False, with_stranger=False)
                for number in range(len(self.keys)):
                    state = self.quiet(state, self.after(state, number, "view", view))
            if moment + 1 == len(self.moments):
                break
            state = self.quiet(state, self.later(state))
        peers = [self.peers[name] for name in state[3]]
        left = {side: sum(one.left for one in peers if self.setting.people[one.number].side is side) for side in Side}
        if min(left.values()):
            raise Broken(f"I18: {left} could still be traded, after a calm that followed {', '.join(self.way_to(start))}")

    def quiet(self, before: State, state: State) -> State:
        """Deliver what is new in the soup until nothing is."""
        known = before[1]
        while fresh := state[1] & ~known:
            known |= fresh
            for letter in _bits(fresh):
                state = self.after(state, self.letters[letter][0], "letter", letter)
        return state


def _bits(mask: int) -> Iterator[int]:
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def _order(secret: SecretKey, side: Side, price_msat: int, quantity: int) -> bytes:
    order = Order(
        network="regtest",
        book=BOOK,
        side=side,
        price_msat=price_msat,
        quantity=quantity,
        first_epoch=EPOCH + 1,
        last_epoch=EPOCH + 5,
        owner=secret.public,
        slot=0,
        sequence=1,
        salt=bytes(16),
    )
    return seal_order(secret, REGTEST, order)


def _fill(epoch: int, fill: Any) -> tuple[Any, ...]:
    return (epoch, fill.buy.id, fill.sell.id, fill.quantity, fill.price_msat, fill.buy_from, fill.sell_from)


def _computed(match: Match) -> tuple[Any, ...]:
    return (match.epoch, match.buy, match.sell, match.quantity, match.price_msat, match.buy_from, match.sell_from)


def _match(view: Cleared, fill: Any) -> Match:
    return Match(
        network="regtest",
        book=view.book,
        epoch=view.epoch,
        buy=fill.buy.id,
        sell=fill.sell.id,
        quantity=fill.quantity,
        price_msat=fill.price_msat,
        buy_from=fill.buy_from,
        sell_from=fill.sell_from,
        accept_by_us=REGTEST.clock.accept_by(view.epoch),
        buyer_root=view.root,
        seller_root=bytes(32),
    )


def _declined(match: Match, code: str) -> Decline:
    return Decline(
        book=match.book,
        epoch=match.epoch,
        buy=match.buy,
        sell=match.sell,
        buy_from=match.buy_from,
        sell_from=match.sell_from,
        code=code,
        close=b"",
    )


def remember(patch: Callable[[Any, str, Any], None]) -> None:
    """Let the desks remember what pure functions of theirs gave before: signatures and stamps are most of the work."""
    for module, name in (
        (orderbook.core.talks, "sign_match"),
        (orderbook.core.talks, "verify_match"),
        (orderbook.core.talks, "read"),
        (orderbook.core.pen, "seal_order"),
        (orderbook.core.pen, "seal_close"),
    ):
        original = getattr(module, name)
        patch(module, name, functools.cache(original))
