"""The node's brain: routes between its pure parts until quiet. It decides nothing itself.

Participants: ``Market`` and ``Desk`` (order book), ``Purse`` (escrow channels), ``Buying`` and ``Selling`` (units), ``Mandates``
(what the owner has allowed), ``Shop`` (our books), ``Standing``. One event comes in; whatever a part answers is either understood
by another part, and goes there, or is for the driver, and goes out. When all is quiet our wishes are compared with what the desk
was last told, and changed rows are added as ``Save``.
"""

import dataclasses
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from escrow.core import events as channel
from orderbook.core import events as book
from orderbook.core.desk import Desk
from orderbook.core.market import Market
from orderbook.core.messages import Side
from orderbook.core.tape import Tape
from peer.core import events as node
from peer.core.batches import BATCH_TABLE
from peer.core.buying import Buying
from peer.core.deal import Deal, Role
from peer.core.exposure import Exposure
from peer.core.justice import Justice
from peer.core.ledger import DEAL_TABLE, UNIT_TABLE
from peer.core.letters import DEAL, LETTER_MAX_BYTES, Batch, DealLetter, Gather, Lane, Offer, Receipt, address, sort
from peer.core.mandates import MANDATE_TABLE, Mandate, Mandates
from peer.core.match import match_id
from peer.core.purse import Purse
from peer.core.selling import Selling
from peer.core.shop import Shop
from peer.core.standing import Standing
from wire.canon import unpack
from wire.effects import Blame, Count, Save
from wire.errors import Ignore, Misbehaved, Refused, require
from wire.keys import PeerId, SecretKey, public_of
from wire.limits import AVOID_MAX, DEALS_OPEN_MAX
from wire.moments import Instant
from wire.network import Network

ROUNDS_MAX: Final = 100_000
FAULT_PENALTY: Final = 20  # a rule broken by accident costs less
DESK_TABLE: Final = "desk"
TABLES: Final = (DEAL_TABLE, UNIT_TABLE, BATCH_TABLE, DESK_TABLE, MANDATE_TABLE, *Purse.TABLES, *Justice.TABLES)

Rows = Mapping[str, Mapping[bytes, bytes]]

_GOSSIP: Final = frozenset({book.Tick, book.FrameIn, book.Checked, book.BridgeIn, book.Publish})
"""What only the market hears. When none of its answers is for another part, no part has anything new to say."""


class Brain:
    """One node. ``instance`` names the chain we settle on (None: free books only), ``rows`` are the journal's ``TABLES``, ``run``
    is drawn at random at every start (see ``Desk``); with a ``tape`` it remembers prices. Paid books name the first of
    ``arbiters``; all of them are accepted. ``court`` says whether we are an arbiter ourselves, ``automatic`` whether rulings that
    need no judgement are given without our operator.
    """

    def __init__(
        self,
        *,
        key: SecretKey,
        network: Network,
        instance: bytes | None,
        run: bytes,
        rows: Rows | None = None,
        tape: Tape | None = None,
        arbiters: tuple[bytes, ...] = (),
        court: bool = False,
        automatic: bool = False,
    ) -> None:
        kept = rows or {table: {} for table in TABLES}
        self.network = network
        self.shop = Shop(network, instance, tape, arbiters[0] if arbiters else None)
        self.market = Market(network, key.peer_id)
        self.desk = Desk(key, network, kept[DESK_TABLE], run)
        self.mandates = Mandates()
        self.exposure = Exposure()
        self.buying = Buying(key, network, self.shop.terms, self.mandates.renew, self.exposure)
        self.selling = Selling(key, network, self.shop.terms, self._permit, self.exposure)
        self.justice = Justice(
            key,
            network,
            instance,
            (self.buying.ledger, self.selling.ledger),
            lambda: self.purse.channels,
            serving=court,
            automatic=automatic,
        )
        self.purse = Purse(key, network, instance, self.exposure, arbiters, self.justice.bonds.limit_sat)
        self.standing = Standing()
        self._todo: deque[Any] = deque()
        self._basis: tuple[Any, ...] = ()
        self._others_due: Instant | None = None
        self._others_asked = False
        self._now = Instant(0)
        self._routes: dict[type, Callable[[Any, Instant], list[Any]]] = {
            **self._from_outside(),
            **self._between_parts(),
        }
        self._load(kept)

    def _load(self, rows: Rows) -> None:
        deals = rows[DEAL_TABLE]
        bought = {key: value for key, value in deals.items() if unpack(Deal, value).role is Role.BUYER}
        sold = {key: value for key, value in deals.items() if key not in bought}
        for ledger, held in ((self.buying.ledger, bought), (self.selling.ledger, sold)):
            ledger.load(held, dict(rows[UNIT_TABLE]), dict(rows[BATCH_TABLE]))
            for account, units in sorted(ledger.finished().items()):
                self.exposure.finished(account, units)
        self.purse.load({table: rows[table] for table in Purse.TABLES})
        self.mandates.load(dict(rows[MANDATE_TABLE]))
        self.justice.load(rows)

    # --- the driver's doors -------------------------------------------------------------------------------------------
    def handle(self, event: Any, now: Instant) -> tuple[Any, ...]:
        """Take one event; returns the effects for the driver."""
        if type(event) is node.Tick:
            due = self._due_beside_gossip()
            if due is None or due > now:
                event = book.Tick()  # the others would have nothing to say
        self._now = now
        if type(event) in _GOSSIP:
            effects = self.market.handle(event, now)
            if self._routes.keys().isdisjoint(map(type, effects)):
                return effects
            self._todo.extend(effects)
        else:
            self._todo.append(event)
        return self._until_quiet(now)

    def resume(self, now: Instant) -> tuple[Any, ...]:
        """After a restart: everything that our state still owes to anybody."""
        for effects in (
            self.market.resume(now),
            self.desk.resume(now),
            self.purse.resume(now),
            self.buying.resume(now),
            self.selling.resume(now),
            self.justice.resume(),
        ):
            self._todo.extend(effects)
        return self._until_quiet(now)

    def next_deadline(self) -> Instant | None:
        """When ``Tick`` is due."""
        gossip, others = self.market.next_deadline(), self._due_beside_gossip()
        return others if gossip is None else gossip if others is None else min(gossip, others)

    def _due_beside_gossip(self) -> Instant | None:
        """When the parts beside the market have something to do; asked again only when one of them has had a word."""
        if not self._others_asked:
            parts = (self.desk, self.purse, self.buying, self.selling, self.mandates)
            moments = (*(part.next_deadline() for part in parts), self.standing.next_change(self._now))
            self._others_due = min((one for one in moments if one is not None), default=None)
            self._others_asked = True
        return self._others_due

    # --- routing ------------------------------------------------------------------------------------------------------
    def _until_quiet(self, now: Instant) -> tuple[Any, ...]:
        """Everything that follows from what is to be done."""
        self._now = now
        out: list[Any] = []
        rounds = 0
        while self._todo:
            while self._todo:
                rounds += 1
                require(rounds < ROUNDS_MAX, "not-quiet", "the parts of the node answer each other without end")
                item = self._todo.popleft()
                route = self._routes.get(type(item))
                if route is None:
                    if self._still_watched(item):
                        continue
                    out.append(item)
                    if type(item) is node.Reply:
                        self.mandates.ended(item.request)
                else:
                    self._todo.extend(route(item, now))
            self._others_asked = False
            self._todo.extend(self._new_wants(now))
        out.extend(self.purse.fundings(now, talking=self.desk.proposing))
        for ledger in (self.buying.ledger, self.selling.ledger):
            ledger.forget_old()
            out.extend(ledger.drain())
        out.extend(self.mandates.drain())
        out.extend(self.justice.drain())
        return tuple(out)

    def _new_wants(self, now: Instant) -> list[Any]:
        """What has changed in our wishes; looked for only when something that they follow from has changed."""
        avoid = self._avoided(now)
        basis = (
            self.buying.requests.version,
            self.buying.ledger.version,
            self.selling.ledger.version,
            self.selling.stalls.version,
            self.selling.draining,
            self.mandates.version,
            avoid,
        )
        if basis == self._basis:
            return []
        self._basis = basis
        full = self.buying.ledger.open_deals + self.selling.ledger.open_deals >= DEALS_OPEN_MAX
        buys = {} if full else self.buying.requests.wants()
        wants = self.shop.wants(buys, {} if full else self.selling.wants(), avoid)
        return [*wants, *(self.shop.notice(want) for want in wants)]

    def _avoided(self, now: Instant) -> tuple[bytes, ...]:
        """Whom our orders avoid: those of whom we know ourselves, and in the room that is left those proven to be frauds."""
        ours = self.standing.avoided(now)
        others = [one for one in self.justice.proofs.avoided() if one not in ours]
        return tuple(sorted((*ours, *others[: AVOID_MAX - len(ours)])))

    def _permit(self, article: str) -> Mandate | None:
        """The mandate under which ``article`` may be sold now."""
        return self.mandates.best(Side.SELL, article, self._now)

    def _from_outside(self) -> dict[type, Callable[[Any, Instant], list[Any]]]:
        """What the driver tells."""
        return {
            node.Tick: self._tick,
            node.BuyAsked: self._buy_asked,
            node.Abandoned: self._abandoned,
            node.SellAsked: self._sell_asked,
            node.SellStopped: self.selling.stop,
            node.SlotsChanged: self.selling.resize,
            node.DrainAsked: self.selling.drain,
            node.MandateGranted: self.mandates.grant,
            node.MandateRevoked: self._revoked,
            node.Watched: lambda event, _: [node.Interest(article=event.article)],
            node.AppealAsked: lambda event, _: self.justice.appeals.ask(event),
            node.BondAsked: lambda event, _: self.justice.bonds.lock(event),
            node.BondReleaseAsked: lambda event, _: self.justice.bonds.free(event),
            node.RuleAsked: lambda event, _: self.justice.court.asked(event),
            node.CloseAsked: lambda event, now: self.purse.close_all(event.reason, now),
            node.RecallAsked: lambda event, now: self.purse.recall(event.peers, now),
            node.LetterArrived: self._letter,
            node.PeerUp: self._peer_up,
            node.PeerDown: lambda event, now: [*self.buying.peer_down(event, now), *self.selling.peer_down(event, now)],
            node.Fetched: lambda event, now: [*self.buying.fetched(event, now), *self.selling.fetched(event, now)],
            node.FetchFailed: lambda event, now: [*self.buying.fetch_failed(event, now), *self.selling.fetch_failed(event, now)],
            node.Computed: self.selling.computed,
            node.ComputeFailed: self.selling.compute_failed,
            node.Encrypted: self.selling.encrypted,
            node.Decrypted: self._decrypted,
            node.ReadBack: lambda event, _: self.justice.read_back(event),
            node.FundingBuilt: self._funding_built,
            node.FundingFailed: self._funding_failed,
            channel.OutpointSeen: lambda event, now: [
                *self.justice.outpoint_seen(event),
                *self.purse.outpoint_seen(event, now),
            ],
            channel.TipSeen: lambda event, now: [*self.justice.tip_seen(event), *self.purse.tip_seen(event, now)],
            book.NeighbourUp: self._neighbour_up,
            book.NeighbourDown: self._neighbour_down,
            book.Tick: self._to_market,
            book.FrameIn: self._to_market,
            book.Checked: self._to_market,
            book.BridgeIn: self._to_market,
        }

    def _between_parts(self) -> dict[type, Callable[[Any, Instant], list[Any]]]:
        """What one part says and another understands."""
        return {
            book.Follow: self._to_market,
            book.Want: lambda event, now: list(self.desk.handle(event, now)),
            book.Cleared: self._cleared,
            book.PublishOrder: lambda effect, now: self._to_market(book.Publish(message=effect.message), now),
            book.CompareBooks: lambda effect, now: self._to_market(
                book.Compare(book=effect.book, epoch=effect.epoch, peer=effect.peer), now
            ),
            book.Letter: lambda effect, _: [node.Post(peer=effect.peer, letter=address(Lane.DESK, effect.payload))],
            book.Agreed: self._agreed,
            book.Missed: self._missed,
            book.NoShow: self._no_show,
            channel.Letter: lambda effect, _: [node.Post(peer=effect.peer, letter=address(Lane.CHANNEL, effect.payload))],
            channel.FundingWanted: self.purse.gather,
            channel.Ready: lambda effect, now: [
                *self.buying.channel_ready(effect.channel, now),
                *self.selling.channel_ready(effect.channel, now),
            ],
            channel.Locked: lambda effect, now: self.selling.locked(
                effect.channel, effect.ref, effect.lock, effect.amount_msat, now
            ),
            channel.Revealed: self._revealed,
            channel.PayFailed: lambda effect, now: self.buying.pay_failed(effect.ref, effect.code, effect.sentence, now),
            channel.Closed: self._channel_closed,
            node.Interest: self._interest,
            node.ChannelWanted: self._channel_wanted,
            node.ChannelBound: self.buying.channel_bound,
            node.ChannelFailed: self.buying.channel_failed,
            node.PayWanted: self._pay,
            node.RevealWanted: self._reveal,
            node.Strike: self._strike,
            Blame: self._blame,
        }

    def _to_market(self, event: Any, now: Instant) -> list[Any]:
        return list(self.market.handle(event, now))

    # --- small translations -------------------------------------------------------------------------------------------
    def _tick(self, _: node.Tick, now: Instant) -> list[Any]:
        return [
            *self.market.handle(book.Tick(), now),
            *self.desk.handle(book.Tick(), now),
            *self.purse.tick(now),
            *self.buying.tick(now),
            *self.selling.tick(now),
            *self._no_more(self.mandates.expire(now), "expired"),
        ]

    def _buy_asked(self, event: node.BuyAsked, now: Instant) -> list[Any]:
        if event.bid_msat is not None and not self.shop.paid:
            sentence = "this node shares no chain with anybody, so it can only trade in free books"
            return [node.Reply(request=event.request, result=None, code="no-chain", sentence=sentence)]
        if event.mandated and self.shop.paid:
            mandate = self.mandates.take(event.article, event.request, now)
            event = dataclasses.replace(event, bid_msat=(mandate.price_msat or None) if mandate else None)
        return self.buying.ask(event, now)

    def _abandoned(self, event: node.Abandoned, now: Instant) -> list[Any]:
        effects = self.buying.abandon(event, now)
        self.mandates.ended(event.request)
        return effects

    def _sell_asked(self, event: node.SellAsked, now: Instant) -> list[Any]:
        try:
            effects = self.selling.offer(event, now)
        except Refused as refusal:
            return [node.Reply(request=event.order, result=None, code=refusal.code, sentence=refusal.sentence)]
        return [*effects, node.Reply(request=event.order, result=None, code="", sentence="")]

    def _revoked(self, event: node.MandateRevoked, _: Instant) -> list[Any]:
        answer, requests = self.mandates.revoke(event)
        return [*self._no_more(requests, "revoked"), answer]

    def _no_more(self, requests: list[int], why: str) -> list[Any]:
        """The mandate of these requests has ended: those that have no seller yet are given up."""
        held = [self.buying.requests.get(number) for number in requests]
        waiting = [one.number for one in held if one is not None and one.unit is None]
        sentence = f"the mandate that allowed this bid has {why}"
        return [effect for number in waiting for effect in self.buying.refuse(number, "mandate-ended", sentence)]

    def _pay(self, event: node.PayWanted, now: Instant) -> list[Any]:
        for unit in event.units or (event.unit,):
            self.mandates.paid(self.buying.ledger.units[unit].request)
        return self.purse.pay(event, now)

    def _interest(self, effect: node.Interest, _: Instant) -> list[Any]:
        follows = [*self.shop.open(effect.article, True), *self.shop.open(effect.article, False)]
        return [*follows, node.Seek(article=effect.article)] if follows else []

    def _letter(self, event: node.LetterArrived, now: Instant) -> list[Any]:
        try:
            lane, payload = sort(event.letter)
            match lane:
                case Lane.DESK:
                    return list(self.desk.handle(book.LetterIn(peer=event.peer, payload=payload), now))
                case Lane.CHANNEL:
                    return self.purse.letter(event.peer, payload, now)
                case Lane.DEAL:
                    letter = DEAL.unpack(payload, LETTER_MAX_BYTES)
                    return self._deal_letter(event.peer, letter, now)
                case Lane.COURT | Lane.PROOF | Lane.BOND:
                    return self.justice.letter(event.peer, lane, payload, now)
        except Misbehaved as error:
            blame = Blame(peer=event.peer, code=error.code, sentence=error.sentence, penalty=error.penalty)
            return [Count(code=error.code), blame]
        except Ignore as error:
            return [Count(code=error.code)]

    def _deal_letter(self, peer: PeerId, letter: DealLetter, now: Instant) -> list[Any]:
        if (said := self.justice.of_a_deal(peer, letter)) is not None:
            return said
        match letter:
            case Gather():
                deal = letter.units[0][:32]
            case Batch():
                deal = letter.body.units[0].unit[:32]
            case Offer() | Receipt():
                deal = letter.body.deal
            case _:
                deal = letter.deal
        side = self.buying if deal in self.buying.ledger.deals else self.selling
        return side.hear(peer, letter, now)

    def _peer_up(self, event: node.PeerUp, now: Instant) -> list[Any]:
        return [
            *self.purse.peer_up(event.peer, now),
            *self.buying.peer_up(event, now),
            *self.selling.peer_up(event, now),
            *self.justice.peer_up(event.peer),
        ]

    def _cleared(self, effect: book.Cleared, now: Instant) -> list[Any]:
        noted = self.shop.cleared(effect, now)
        return [*noted, *self.desk.handle(effect, now)]

    def _agreed(self, effect: book.Agreed, now: Instant) -> list[Any]:
        signed = effect.match
        shelf = self.shop.shelves[signed.match.book]
        buying = effect.side is Side.BUY
        self.shop.agreed(signed, effect.side, effect.price_msat)
        if not buying and any(one.ask_msat is None for one in self.selling.stalls.of(shelf.article)):
            self.mandates.sold(shelf.article, effect.price_msat, signed.match.quantity, now)
        name = match_id(self.network, signed)
        self.justice.logbook.agreed(name, shelf.article, self.shop.terms(shelf.free), signed)
        deal = Deal(
            deal=name,
            role=Role.BUYER if buying else Role.SELLER,
            other=signed.seller if buying else signed.buyer,
            article=shelf.article,
            free=shelf.free,
            price_msat=signed.match.price_msat,
            quantity=signed.match.quantity,
            epoch=signed.match.epoch,
            channel=None,
            agreed_us=now,
        )
        return self.buying.agreed(deal, now) if buying else self.selling.agreed(deal, now)

    def _missed(self, effect: book.Missed, _: Instant) -> list[Any]:
        shelf = self.shop.shelves.get(effect.book)
        if shelf is None:
            return []
        if effect.side is Side.BUY:
            bid = None if shelf.free else effect.price_msat
            self.buying.requests.remark(shelf.article, bid, effect.sentence)
        return [self.shop.missed(shelf, effect)]

    def _funding_built(self, event: node.FundingBuilt, now: Instant) -> list[Any]:
        bonds = self.justice.bonds
        return bonds.built(event) if event.channel in bonds.own else self.purse.funding_built(event, now)

    def _funding_failed(self, event: node.FundingFailed, now: Instant) -> list[Any]:
        bonds = self.justice.bonds
        return bonds.failed(event) if event.channel in bonds.own else self.purse.funding_failed(event, now)

    def _neighbour_up(self, event: book.NeighbourUp, now: Instant) -> list[Any]:
        return [*self._to_market(event, now), *self.justice.proofs.neighbour_up(event.peer, now)]

    def _neighbour_down(self, event: book.NeighbourDown, now: Instant) -> list[Any]:
        self.justice.proofs.neighbour_down(event.peer)
        return self._to_market(event, now)

    def _decrypted(self, event: node.Decrypted, now: Instant) -> list[Any]:
        return [*self.buying.decrypted(event, now), *self.justice.decrypted(event.unit, now)]

    def _revealed(self, effect: channel.Revealed, now: Instant) -> list[Any]:
        return [*self.buying.revealed(effect.ref, effect.key, now), *self.justice.revealed(effect)]

    def _reveal(self, effect: node.RevealWanted, now: Instant) -> list[Any]:
        effects = self.purse.reveal(effect, now)
        self.justice.gave(effect)
        return effects

    def _still_watched(self, item: Any) -> bool:
        """Whether this is word that nobody wants to know of an output any more, while somebody does."""
        if type(item) is not channel.Unwatch:
            return False
        channels = self.purse.channels.values()
        return self.justice.watches(item.outpoint) or any(item.outpoint in one.watched for one in channels)

    def _channel_wanted(self, effect: node.ChannelWanted, now: Instant) -> list[Any]:
        return self.purse.want(effect, self.buying.reserved_msat, now)

    def _channel_closed(self, effect: channel.Closed, now: Instant) -> list[Any]:
        return [
            *self.buying.channel_closed(effect.channel, now),
            *self.selling.channel_closed(effect.channel, now),
            *self.purse.closed(effect),
            *self.justice.appeals.closed(effect.channel),
        ]

    def _strike(self, effect: node.Strike, now: Instant) -> list[Any]:
        self.standing.strike(effect.peer, effect.sentence, now)
        self.exposure.fault(public_of(effect.peer), now)
        return [Count(code=f"strike-{effect.code}")]

    def _no_show(self, effect: book.NoShow, now: Instant) -> list[Any]:
        struck = self.standing.silent(effect.peer, effect.sentence, now)
        return [Count(code="strike-no-show" if struck else f"silent-{effect.code}")]

    def _blame(self, effect: Blame, now: Instant) -> list[Any]:
        if effect.penalty >= FAULT_PENALTY:
            self.exposure.fault(public_of(effect.peer), now)
        if self.standing.blame(effect.peer, effect.penalty, effect.sentence, now):  # type: ignore[arg-type]
            return [node.Banish(peer=effect.peer, sentence=effect.sentence)]
        return []


def saves_first(effects: tuple[Any, ...]) -> tuple[list[Save], list[Any]]:
    """The rows to commit, and the effects to perform after that."""
    return [one for one in effects if isinstance(one, Save)], [one for one in effects if not isinstance(one, Save)]
