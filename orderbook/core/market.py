"""The market of one node: it gossips the books it follows, keeps them equal to its neighbours', and clears them every epoch.

New messages are pushed, each once to every neighbour that follows the book and has not shown it. Everything else is pulled: books
are reconciled when neighbours meet, shortly before every freeze, every few seconds with one neighbour by lot, and when roots or a
reconciliation show that they differ. At the freeze the auction runs over what is known; the result is a view, and safety never
depends on views being equal (see ``desk``).

We refuse to trade, and say so in ``Cleared.refusal``, while no neighbour's copy of the book has been compared in full (so a
node that has just come back and met nobody yet does not take its empty book for the market), and while our clock is off most
neighbours' by more than an eighth of an epoch.
"""

from typing import assert_never

from orderbook.core.arrivals import arrivals
from orderbook.core.auction import auction_seed
from orderbook.core.book import Book, Kept
from orderbook.core.bridge import Bridge
from orderbook.core.clockwatch import judge
from orderbook.core.craft import Craft
from orderbook.core.events import (
    BridgeIn,
    Check,
    Checked,
    Cleared,
    Compare,
    Follow,
    FrameIn,
    MarketEffect,
    MarketEvent,
    NeighbourDown,
    NeighbourUp,
    Publish,
    SendFrame,
    Shares,
    Tick,
    Unfollow,
)
from orderbook.core.frames import FRAMES, Answer, Ask, Batch, BookRoot, Frame, Hello, Names, Pull, Pulled, Roots
from orderbook.core.intake import NO_ROOM, Intake, Pending, since
from orderbook.core.messages import CheckItem, EquivocationProof, Heard
from orderbook.core.names import NameDesk
from orderbook.core.neighbour import Neighbour
from orderbook.core.pusher import Greeter, Pusher
from orderbook.core.reasons import CLOCK_SKEWED
from orderbook.core.reconciler import Reconciler
from orderbook.core.session import Session
from wire.effects import Blame, Count
from wire.errors import Ignore, Misbehaved
from wire.keys import PeerId, peer_id_of
from wire.limits import BOOKS_MAX, FRAME_MAX_BYTES, PEERS_MAX, PULLS_PER_TOKEN
from wire.moments import MILLISECOND, Instant, after
from wire.network import Network


class Market:
    """Gossip, books and auctions. Nothing of it is journalled: the network refills it."""

    def __init__(self, network: Network, me: PeerId, craft: Craft | None = None) -> None:
        self._network, self._clock, self._me = network, network.clock, me
        self._craft = craft or Craft()
        self._books: dict[bytes, Book] = {}
        self._intake = Intake(network, self._books, self._craft.read)
        self._neighbours: dict[PeerId, Neighbour] = {}
        self._roots: dict[bytes, tuple[int, bytes]] = {}
        checking = self._intake.__len__
        self._reconciler = Reconciler(network, me, self._books, self._neighbours, self._craft, checking)
        self._pusher = Pusher(self._neighbours, self._intake.named)
        self._names = NameDesk(self._intake.named, self._books, self._neighbours, self._pusher)
        self._greeter = Greeter(network.name, self._books, self._neighbours)
        self._next_epoch: int | None = None
        self._warmed = -1
        self._advance_at = Instant(0)
        self._out: list[MarketEffect] = []
        self._checks: list[CheckItem] = []
        self._since: list[Instant] = []
        self._duplicates = 0
        self.bridge = Bridge()
        self.skewed = False

    # --- what others ask ------------------------------------------------------------------------------------

    @property
    def books(self) -> tuple[bytes, ...]:
        """The books we follow, ascending."""
        return tuple(sorted(self._books))

    def ready(self, book: bytes) -> bool:
        """Whether our copy of ``book`` has been compared in full with that of a neighbour who is here now."""
        return any(book in one.reconciled for one in self._neighbours.values())

    def messages(self, book: bytes) -> tuple[Kept, ...] | None:
        """What our copy of ``book`` is made of, the latest key epoch first; None when we do not follow it."""
        kept = self._books.get(book)
        return None if kept is None else kept.messages()

    def statistics(self) -> dict[str, int]:
        """Sizes, for people and metrics."""
        return {
            "books": len(self._books),
            "messages": sum(len(book) for book in self._books.values()),
            "checking": len(self._intake),
            "neighbours": len(self._neighbours),
        }

    # --- the driver's three doors ---------------------------------------------------------------------------

    def handle(self, event: MarketEvent, now: Instant) -> tuple[MarketEffect, ...]:
        """Take one event; returns what is to be done. Never raises for anything a peer sent."""
        self._advance(now)
        match event:
            case FrameIn(peer=peer, frame=frame):
                self._frame_in(peer, frame, now)
            case Checked(good=good, bad=bad):
                self._checked(good, bad, now)
            case Publish(message=message):
                self._publish(message, now)
            case Tick():
                pass
            case NeighbourUp(peer=peer):
                self._up(peer, now)
            case NeighbourDown(peer=peer):
                self._down(peer)
            case Follow(book=book):
                self._follow(book, now)
            case Unfollow(book=book):
                self._unfollow(book, now)
            case Compare(book=book, epoch=epoch, peer=peer):
                self._out += self._reconciler.compare(peer, book, epoch, now)
            case BridgeIn():
                for raw in self.bridge.bring(event, now):
                    self._take(self.bridge, raw, now, None)
            case _:
                assert_never(event)
        self._finish_turn(now)
        out, self._out = tuple(self._out), []
        return out

    def _finish_turn(self, now: Instant) -> None:
        """What has become due. All but the last rest most of the time, and are asked before they are called."""
        if self._greeter.next_due is not None:
            self._out += self._greeter.greet(now)
        for part in (self._reconciler, self._names):
            due = part.next_due
            if due is not None and due <= now:
                self._out += part.due(now)
        if self.bridge.busy:
            self._out += self.bridge.leaving(now)
        self._flush(now)

    def resume(self, now: Instant) -> tuple[MarketEffect, ...]:
        """Nothing survives a restart here, so nothing is owed."""
        self._advance(now)
        return ()

    def next_deadline(self) -> Instant | None:
        """When ``Tick`` is due at the latest."""
        epochs = self._advance_at if self._next_epoch is not None and (self._books or self._neighbours) else None
        found: Instant | None = None
        gossip = self.bridge.flush_at(), self._pusher.next_due, self._names.next_due
        for moment in (*gossip, epochs, self._greeter.next_due, self._reconciler.next_due):
            if moment is not None and (found is None or moment < found):
                found = moment
        return found

    # --- epochs ---------------------------------------------------------------------------------------------

    def _warm_at(self, epoch: int) -> Instant:
        """Shortly before the freeze, when books are compared so that what got lost is still found in time."""
        return Instant(self._clock.freeze(epoch) - self._clock.freeze_ms * MILLISECOND // 3)

    def _advance(self, now: Instant) -> None:
        """Warm up before a freeze and clear after it; nothing is to be done before ``_advance_at``."""
        if now < self._advance_at:
            return
        self._pass(now)
        following = self._next_epoch or 0
        warm = self._warmed < following
        self._advance_at = self._warm_at(following) if warm else after(self._clock.freeze(following), 1)

    def _pass(self, now: Instant) -> None:
        epoch = self._clock.epoch(now)
        if self._next_epoch is None:
            self._next_epoch = epoch
        if self._warmed < epoch and self._warm_at(epoch) <= now <= self._clock.freeze(epoch):
            self._warmed = epoch
            self._reconciler.warm(now)
        if now <= self._clock.freeze(self._next_epoch):
            return
        due = epoch if now > self._clock.freeze(epoch) else epoch - 1
        if due > self._next_epoch:
            self._out.append(Count(code="epochs-slept", amount=due - self._next_epoch))
        self._next_epoch = due + 1
        for book in sorted(self._books):
            for raw in self._books[book].forget(due):
                self._intake.drop(raw)
            self._clear(book, due, now, again=False)
        self._tell_roots(due, now)

    def _clear(self, book: bytes, epoch: int, now: Instant, *, again: bool) -> None:
        if now > self._clock.accept_by(epoch):
            self._out.append(Count(code="epoch-missed"))
            return
        kept = self._books[book]
        buys, sells = kept.eligible(epoch, late=again)
        root = kept.root(epoch)
        if not again:
            self._roots[book] = (epoch, root)
            for neighbour in self._neighbours.values():
                self._compare_roots(neighbour, book, now)
        fills = self._craft.clear(buys, sells, auction_seed(self._network.name, book, epoch))
        self._out.append(
            Cleared(
                book=book,
                epoch=epoch,
                root=root,
                fills=fills,
                buys=buys,
                sells=sells,
                refusal=self._refusal(book),
                again=again,
            )
        )

    def _refusal(self, book: bytes) -> str:
        if self.skewed:
            return CLOCK_SKEWED
        if self.ready(book):
            return ""
        return "not-ready" if any(book in one.books for one in self._neighbours.values()) else "alone"

    def _tell_roots(self, epoch: int, now: Instant) -> None:
        """Each neighbour hears the roots that are not what he last heard, and what time we have."""
        for peer, neighbour in sorted(self._neighbours.items()):
            roots: list[BookRoot] = []
            for book in sorted(neighbour.books):
                of, root = self._roots.get(book, (-1, b""))
                if of == epoch and neighbour.told.get(book) != root:
                    neighbour.told[book] = root
                    roots.append(BookRoot(book=book, root=root))
            self._send(peer, Roots(moment_us=now, epoch=epoch, roots=tuple(roots)))

    def _compare_roots(self, neighbour: Neighbour, book: bytes, now: Instant) -> None:
        epoch, ours = self._roots.get(book, (-1, b""))
        theirs = neighbour.roots.get(book)
        if theirs is None or neighbour.roots_epoch != epoch:
            return
        self._out.append(Count(code="roots-equal" if theirs == ours else "roots-differ"))
        if theirs != ours:
            self._reconciler.hasten(neighbour, book, now)

    # --- neighbours -----------------------------------------------------------------------------------------

    def _up(self, peer: PeerId, now: Instant) -> None:
        if peer == self._me or (peer not in self._neighbours and len(self._neighbours) >= PEERS_MAX):
            self._out.append(Count(code="neighbour-refused"))
            return
        self._down(peer)
        self._neighbours[peer] = Neighbour(peer, now)
        ordered = sorted(self._neighbours.items())  # once here, so that nobody has to when messages pass
        self._neighbours.clear()
        self._neighbours.update(ordered)
        self._out.append(self._greeter.hello(peer, now))

    def _down(self, peer: PeerId) -> None:
        neighbour = self._neighbours.pop(peer, None)
        if neighbour is not None:
            self._reconciler.gone(neighbour)
            if neighbour.books & self._books.keys():
                self._out.append(Shares(peer=peer, books=()))

    def _follow(self, book: bytes, now: Instant) -> None:
        if book in self._books:
            return
        if len(self._books) >= BOOKS_MAX:
            self._out.append(Count(code="books-full"))
            return
        self._books[book] = self._craft.book(self._clock)
        self._greeter.changed(now)
        self._reconciler.follow(book, now)

    def _unfollow(self, book: bytes, now: Instant) -> None:
        left = self._books.pop(book, None)
        if left is None:
            return
        for raw in left.raws():
            self._intake.drop(raw)
        self._roots.pop(book, None)
        self._reconciler.leave(book)
        self._greeter.changed(now)

    # --- frames ---------------------------------------------------------------------------------------------

    def _frame_in(self, peer: PeerId, raw: bytes, now: Instant) -> None:
        neighbour = self._neighbours.get(peer)
        if neighbour is None:
            self._out.append(Count(code="not-a-neighbour"))
            return
        try:
            if not neighbour.spend(1 + len(raw) // FRAME_MAX_BYTES, now):
                raise Misbehaved("too-fast", "frames come faster than anyone needs to send them", penalty=1)
            frame: Frame = self._craft.unpack(raw, FRAME_MAX_BYTES)
            self._frame(neighbour, frame, now)
        except Misbehaved as error:
            code = "malformed" if error.code in ("wrong-shape", "out-of-bounds", "not-canonical") else error.code
            self._blame(peer, code, error)
        except Ignore as error:
            self._out.append(Count(code=error.code))

    def _blame(self, peer: PeerId, code: str, error: Misbehaved) -> None:
        self._out.append(Count(code=code))
        self._out.append(Blame(peer=peer, code=code, sentence=error.sentence, penalty=error.penalty))

    def _frame(self, neighbour: Neighbour, frame: Frame, now: Instant) -> None:
        if isinstance(frame, Hello):
            self._hello_in(neighbour, frame, now)
            return
        if not neighbour.greeted:
            raise Misbehaved("not-greeted", "the first frame of a neighbour is his HELLO")
        match frame:
            case Batch():
                self._batch(neighbour, frame, now)
            case Names():
                self._spend(neighbour, (len(frame.has) + len(frame.wants)) // PULLS_PER_TOKEN, now)
                self._batch(neighbour, frame.batch, now)
                self._out += self._names.heard(neighbour, frame, now)
            case Ask():
                self._book(frame.book)
                self._out += self._reconciler.asked(neighbour, frame, now)
            case Answer():
                session, effects = self._reconciler.answered(neighbour, frame, now)
                self._out += effects
                self._finish(neighbour, session, now)
            case Pull():
                self._spend(neighbour, len(frame.ids) // PULLS_PER_TOKEN, now)
                book = self._book(frame.book)
                found = (book.raw(name) for name in frame.ids)
                messages = tuple(raw for raw in found if raw is not None)
                self._send(neighbour.peer, Pulled(book=frame.book, session=frame.session, messages=messages))
            case Pulled():
                self._pulled_in(neighbour, frame, now)
            case Roots():
                self._roots_in(neighbour, frame, now)
            case _:
                assert_never(frame)

    def _spend(self, neighbour: Neighbour, tokens: int, now: Instant) -> None:
        if not neighbour.spend(tokens, now):
            raise Misbehaved("too-fast", "messages come faster than anyone needs to send them", penalty=1)

    def _batch(self, neighbour: Neighbour, batch: Batch, now: Instant) -> None:
        self._spend(neighbour, len(batch.messages), now)
        for raw, born in zip(batch.messages, neighbour.births(batch, now), strict=True):
            self._take(neighbour, raw, now, None, born)

    def _book(self, book: bytes) -> Book:
        kept = self._books.get(book)
        if kept is None:
            raise Ignore("unfollowed", "we do not follow this book")
        return kept

    def _hello_in(self, neighbour: Neighbour, hello: Hello, now: Instant) -> None:
        if hello.network != self._network.name:
            raise Ignore("wrong-network", f"this neighbour is on {hello.network!r}")
        neighbour.greeted = True
        neighbour.tells_time(hello.moment_us, now)
        books = frozenset(hello.books)
        for book in sorted(neighbour.books - books):
            self._reconciler.part(neighbour, book)
            neighbour.roots.pop(book, None)
        shared = sorted(book for book in books - neighbour.books if book in self._books)
        neighbour.books = books
        self._out.append(self._greeter.share(neighbour))
        for book in shared:
            self._reconciler.plan(neighbour, book, now)
        self._judge_clock()

    def _roots_in(self, neighbour: Neighbour, frame: Roots, now: Instant) -> None:
        neighbour.tells_time(frame.moment_us, now)
        self._judge_clock()
        neighbour.roots_epoch = frame.epoch
        neighbour.roots.update((one.book, one.root) for one in frame.roots if one.book in neighbour.books)
        for book in sorted(neighbour.roots):
            self._compare_roots(neighbour, book, now)

    def _judge_clock(self) -> None:
        verdict = judge([one.offset_us() for one in self._neighbours.values()], self._clock)
        if verdict.skewed != self.skewed:
            self.skewed = verdict.skewed
            self._out.append(verdict)

    # --- messages -------------------------------------------------------------------------------------------

    def _take(self, neighbour: Neighbour, raw: bytes, now: Instant, session: Session | None, born: Instant | None = None) -> None:
        """One gossiped message, pushed at us or pulled by ``session``; one that is bad does not stop those beside it."""
        known = self._intake.known(raw)
        if known is not None:
            neighbour.shows(known)
            self._duplicates += 1
            if session is not None:
                session.came(known)
                if known not in self._books[session.book]:
                    session.waits_for(known)  # another brought it, and it still waits for its signatures
            return
        asked = False
        try:
            heard = self._intake.read(raw)
            asked = session is not None and session.asks(heard.id)
            neighbour.shows(heard.id)
            if session is not None:
                session.came(heard.id)
            checks = self._intake.submit(heard, neighbour.peer, now, asked=asked, born=born)
        except Misbehaved as error:
            self._blame(neighbour.peer, error.code, error)
        except Ignore as error:
            self._out.append(Count(code=error.code))
            if session is not None and asked and error.code in NO_ROOM:
                session.whole = False
        else:
            self._checks += checks
            self._since += [now if session is not None else since(born, now)] * len(checks)
            if session is not None and asked:
                session.waits_for(heard.id)

    def _checked(self, good: tuple[bytes, ...], bad: tuple[bytes, ...], now: Instant) -> None:
        judged: list[Heard] = []
        admitted: list[Pending] = []
        for check_id in bad:
            for pending in self._intake.bad(check_id):
                error = Misbehaved("wrong-signature", "a message's signature is not its author's", penalty=50)
                self._blame(pending.source, error.code, error)
                judged.append(pending.heard)
        for pending in self._intake.good(good):
            judged.append(pending.heard)
            try:
                self._intake.admit(pending, now)
            except Ignore as error:
                self._out.append(Count(code=error.code))
            else:
                admitted.append(pending)
                self._admitted(pending.heard, now, pending.born, pulled=pending.asked)
        self._out += arrivals(admitted, self._clock, now)
        for book in self._reconciler.comparing():  # what waited for room may be asked for, what waited for these is done
            names = [one.id for one in judged if one.book == book]
            for neighbour, session in self._reconciler.sessions(book) if names else ():
                session.judged(names, now)
                self._out += self._reconciler.go_on(neighbour, session)
                self._finish(neighbour, session, now)

    def _publish(self, message: bytes, now: Instant) -> None:
        try:
            heard = self._intake.read(message)
            self._intake.own(heard, now)
        except (Ignore, Misbehaved) as error:
            self._out.append(Count(code=f"own-{error.code}"))
            return
        self._admitted(heard, now, now, pulled=False, own=True)

    def _admitted(self, heard: Heard, now: Instant, born: Instant | None, *, pulled: bool, own: bool = False) -> None:
        """Pass on what is new; what is old and was pulled, others pull too if they lack it."""
        if isinstance(heard.body, EquivocationProof):
            sentence = "this account has signed one order away twice; the proof is public"
            self._out.append(Blame(peer=peer_id_of(heard.body.signer), code="equivocation", sentence=sentence, penalty=100))
        if pulled and heard.key_epoch < self._clock.epoch(now):
            return
        self._pusher.push(heard, born, own=own)
        if self.bridge.is_open:
            self.bridge.offer(heard)

    # --- reconciliation -------------------------------------------------------------------------------------

    def _pulled_in(self, neighbour: Neighbour, frame: Pulled, now: Instant) -> None:
        session = self._reconciler.live(neighbour, frame.book, frame.session)
        if not session.awaits_messages:
            raise Ignore("stale-answer", "nothing is awaited that was asked for")
        for raw in frame.messages:
            self._take(neighbour, raw, now, session)
        self._out += self._reconciler.pulled(neighbour, session, now)
        self._out += self._reconciler.go_on(neighbour, session)
        self._finish(neighbour, session, now)

    def _finish(self, neighbour: Neighbour, session: Session, now: Instant) -> None:
        for epoch in self._reconciler.finished(neighbour, session, now):
            if epoch < (self._next_epoch or 0) and now <= self._clock.accept_by(epoch):
                self._clear(session.book, epoch, now, again=True)

    # --- out ------------------------------------------------------------------------------------------------

    def _send(self, peer: PeerId, frame: Frame) -> None:
        self._out.append(SendFrame(peer=peer, frame=FRAMES.pack(frame)))

    def _flush(self, now: Instant) -> None:
        if self._duplicates:
            self._out.append(Count(code="duplicate", amount=self._duplicates))
            self._duplicates = 0
        if self._checks:
            self._out.append(Check(items=tuple(self._checks), since=tuple(self._since)))
            self._checks, self._since = [], []
        self._out += self._pusher.spread()
        self._out += self._pusher.flush(now)
