"""The node's state as plain JSON values, for the local API, its events and its figures."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, assert_never

from orderbook.core.book import Kept
from orderbook.core.messages import Close, EquivocationProof, Order
from peer.api.service import Json
from peer.core.brain import Brain
from peer.core.deal import FINAL, Deal, Phase, Role, Unit
from peer.core.ledger import UNIT_TABLE
from peer.core.mandates import Mandate
from peer.node.feed import Feed
from peer.node.registry import Worker
from peer.workers.http import HttpWorker
from wire.account import account_of
from wire.effects import Save
from wire.errors import Refused
from wire.keys import PeerId, peer_id_of, public_of, show_peer
from wire.limits import API_BOOK_MESSAGES_MAX, COURIER_PEERS_MAX

_COUNTED: Final = (Phase.FINISHED, Phase.RESULT_DISPUTED)


@lru_cache(maxsize=COURIER_PEERS_MAX)
def _account(public: bytes) -> str:
    return account_of(public)


@lru_cache(maxsize=COURIER_PEERS_MAX)
def _peer(public: bytes) -> str:
    return show_peer(peer_id_of(public))


class Views:
    """Reads the brain and the workers; changes nothing but its own counts. Units that end are counted by role, phase and code."""

    def __init__(self, brain: Brain, workers: dict[str, Worker], feed: Feed) -> None:
        self._brain = brain
        self._workers = workers
        self._feed = feed
        self.ended: dict[tuple[str, str, str], int] = {}
        self.paid_msat = {Role.BUYER: 0, Role.SELLER: 0}

    # --- as it happens ------------------------------------------------------------------------------------------------
    def kept(self, rows: Sequence[Save]) -> None:
        """Rows are durable: tell what they mean for units."""
        for row in rows:
            if row.table != UNIT_TABLE or row.value is None:
                continue
            for ledger in (self._brain.buying.ledger, self._brain.selling.ledger):
                unit = ledger.units.get(row.key)
                if unit is not None:
                    deal = ledger.deal_of(row.key)
                    self._feed.publish("trade", **self.trade(deal, unit))
                    self._count(deal, unit)

    def _count(self, deal: Deal, unit: Unit) -> None:
        if unit.phase not in FINAL:
            return
        name = (deal.role.value, unit.phase.value, unit.code)
        self.ended[name] = self.ended.get(name, 0) + 1
        if unit.phase in _COUNTED:
            self.paid_msat[deal.role] += deal.price_msat

    # --- listings -----------------------------------------------------------------------------------------------------
    def orders(self) -> list[Json]:
        """Our wishes: requests of programs, oldest first, and stalls."""
        buys = [
            {
                "id": f"{one.number:x}",
                "side": "buy",
                "article": one.article,
                "price_msat": one.bid_msat,
                "free": one.bid_msat is None,
                "mandate": _hex(self._brain.mandates.mandate_of(one.number)),
                "work": one.work.hex(),
                "state": "waiting" if one.unit is None else "working",
                "waiting": one.unit is None,
                "attempts": one.attempts,
                "quantity": 1,
                "expires_us": one.expires,
                "reason": one.sentence,
            }
            for one in self._brain.buying.requests.all()
        ]
        offers = {stall.worker: (price, units) for stall, price, units in self._brain.selling.offers()}
        sells = []
        for stall in self._brain.selling.stalls.all():
            price, units = offers.get(stall.worker, (stall.ask_msat, 0))
            sells.append(
                {
                    "id": f"{stall.order:x}",
                    "side": "sell",
                    "article": stall.article,
                    "worker": stall.worker,
                    "price_msat": price,
                    "free": price == 0,
                    "mandated": stall.ask_msat is None,
                    "state": "open" if stall.open else "closed",
                    "slots": stall.slots,
                    "open": stall.open,
                    "quantity": units,
                    "reason": "" if price is not None else "no mandate allows it to sell; grant one",
                }
            )
        return [*buys, *sells]

    def trades(self) -> list[Json]:
        """Every unit we know of, newest first."""
        lines = [
            self.trade(ledger.deal_of(key), unit)
            for ledger in (self._brain.buying.ledger, self._brain.selling.ledger)
            for key, unit in ledger.units.items()
        ]
        return sorted(lines, key=lambda line: (-int(line["changed_us"]), str(line["deal"]), int(line["unit"])))

    @staticmethod
    def trade(deal: Deal, unit: Unit) -> Json:
        """One unit."""
        return {
            "deal": deal.deal.hex(),
            "unit": unit.unit,
            "order": _hex(unit.request or None),
            "role": deal.role.value,
            "account": _account(deal.other),
            "peer": _peer(deal.other),
            "article": deal.article,
            "free": deal.free,
            "price_msat": deal.price_msat,
            "epoch": deal.epoch,
            "phase": unit.phase.value,
            "code": unit.code,
            "reason": unit.sentence,
            "work": unit.work.hex() if unit.work else None,
            "result": unit.plain.hex() if unit.plain else None,
            "channel": deal.channel.hex() if deal.channel else None,
            "agreed_us": deal.agreed_us,
            "changed_us": unit.changed_us,
        }

    def mandates(self) -> list[Json]:
        """What may be traded without asking, oldest first."""
        return [self.mandate(one) for one in self._brain.mandates.all()]

    def mandate(self, one: Mandate) -> Json:
        """One mandate."""
        return {
            "id": _hex(one.mandate),
            "side": one.side.name.lower(),
            "article": one.article,
            "price_msat": one.price_msat,
            "trades_left": one.trades,
            "until_us": one.until_us,
            "granted_us": one.granted_us,
            "in_use": self._brain.mandates.used_by(one.mandate),
        }

    def channels(self) -> list[Json]:
        """Every channel, with the other party's account."""
        lines = self._brain.purse.statement()
        for line in lines:
            public = public_of(self._brain.purse.channels[bytes.fromhex(line["channel"])].peer)
            line["account"] = _account(public)
            line["peer"] = _peer(public)
        return lines

    def workers(self) -> list[Json]:
        """Our workers, those of the node and those that registered."""
        return [self.worker(name, worker) for name, worker in sorted(self._workers.items())]

    def worker(self, name: str, worker: Worker) -> Json:
        """One worker, by the name that orders use."""
        told = worker.statistics()
        registered = isinstance(worker, HttpWorker)
        return {
            "name": name,
            "kind": "registered" if registered else told.name,
            "article": told.article,
            "state": worker.state if isinstance(worker, HttpWorker) else ("working" if told.busy else "idle"),
            "pushurl": worker.url if isinstance(worker, HttpWorker) else None,
            "slots": told.slots,
            "busy": told.busy,
            "done": told.done,
            "failed": dict(told.failed),
            "last_words": told.last_words,
        }

    def books(self) -> list[Json]:
        """The books we take part in, with their latest auction."""
        return [{**line, "ready": self._brain.market.ready(bytes.fromhex(line["book"]))} for line in self._brain.shop.statement()]

    def book_messages(self, book: str) -> Json:
        """One book, message by message: what each is, and the first epoch that it counts for here."""
        try:
            kept = self._brain.market.messages(bytes.fromhex(book))
        except ValueError:
            kept = None
        if kept is None:
            raise Refused("unknown-book", "this node follows no such book; see /v1/books")
        return {
            "book": book.lower(),
            "messages": [_message(one) for one in kept[:API_BOOK_MESSAGES_MAX]],
            "more": max(0, len(kept) - API_BOOK_MESSAGES_MAX),
        }


def _message(kept: Kept) -> Json:
    heard = kept.heard
    line: Json = {"id": heard.id.hex(), "key_epoch": heard.key_epoch, "known_epoch": kept.known_epoch}
    match heard.body:
        case Order() as order:
            return {
                **line,
                "kind": "order",
                "account": _account(order.owner),
                "side": order.side.name.lower(),
                "slot": order.slot,
                "sequence": order.sequence,
                "price_msat": order.price_msat,
                "quantity": order.quantity,
                "last_epoch": order.last_epoch,
            }
        case Close() as close:
            return {**line, "kind": "close", "account": _account(close.owner), "order": close.order.hex()}
        case EquivocationProof() as proof:
            return {**line, "kind": "proof", "account": _account(proof.signer)}
        case _:
            assert_never(heard.body)


def peer_facts(peer: PeerId) -> Json:
    """A peer, for events."""
    public = public_of(peer)
    return {"peer": _peer(public), "account": _account(public)}


def _hex(number: int | None) -> str | None:
    return None if number is None else f"{number:x}"
