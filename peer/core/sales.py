"""What every step of a sale leans on: ledger, stalls, the workers' turn, the letters that repeat an offer, the ways out.

The decisions are in ``peer.core.selling``; nothing here is called by anybody else.
"""

from collections.abc import Callable
from typing import Any

from peer.core.deal import Phase, Role, Step, Unit, split_unit_key
from peer.core.events import Compute, Fetch, Grant, Revoke, Stop, Unpin
from peer.core.exposure import Exposure
from peer.core.ledger import NEVER, Ledger, say
from peer.core.letters import OFFER_PURPOSE, FreeKey, Offer, OfferBody, Working, WorkRefused
from peer.core.mandates import Mandate
from peer.core.stalls import Stall, Stalls
from peer.core.terms import Terms
from wire.canon import pack
from wire.envelope import id_of
from wire.keys import SecretKey, peer_id_of
from wire.limits import REASON_MAX_CHARS, UNITS_PER_DEAL_MAX
from wire.moments import Instant
from wire.network import Network

Permit = Callable[[str], Mandate | None]


class Sales:
    """Ledger, stalls and the tools that move units. ``permit`` finds the mandate under which an article may be sold now,
    ``exposure`` says how much unpaid work is done for whom.
    """

    def __init__(
        self,
        key: SecretKey,
        network: Network,
        terms: Callable[[bool], Terms],
        permit: Permit,
        exposure: Exposure | None = None,
    ) -> None:
        self._key = key
        self._network = network
        self._terms = terms
        self._permit = permit
        self.ledger = Ledger()
        self.stalls = Stalls()
        self._exposure = exposure or Exposure()
        self.draining = False
        self._ready: set[bytes] = set()
        self._unpaid_batches: dict[bytes, list[bytes]] = {}
        self._computing: dict[bytes, str] = {}

    # --- what is on offer ---------------------------------------------------------------------------------------------
    def offers(self) -> list[tuple[Stall, int | None, int]]:
        """Every open stall with its price (None: no mandate allows it to sell) and the units it can take on now."""
        if self.draining:
            return []
        busy: dict[str, int] = {}
        for key in self.ledger.in_phase(Phase.ACCEPTED, Phase.FUNDED, Phase.TRANSMITTING, Phase.WORKING):
            article = self.ledger.deal_of(key).article
            busy[article] = busy.get(article, 0) + 1
        found: list[tuple[Stall, int | None, int]] = []
        for article in sorted({stall.article for stall in self.stalls.all()}):
            mandate = self._permit(article)
            left = mandate.trades if mandate else 0
            for stall, room in self.stalls.rooms(article, busy.get(article, 0)):
                if stall.ask_msat is not None:
                    found.append((stall, stall.ask_msat, room))
                    continue
                units = room if left is None else min(room, left)
                left = None if left is None else left - units
                found.append((stall, mandate.price_msat if mandate else None, units))
        return found

    def wants(self) -> dict[tuple[str, int], int]:
        """Units we can take on by (article, ask)."""
        wanted: dict[tuple[str, int], int] = {}
        for stall, ask_msat, units in self.offers():
            if ask_msat is not None:
                line = (stall.article, ask_msat)
                wanted[line] = min(UNITS_PER_DEAL_MAX, wanted.get(line, 0) + units)
        return wanted

    # --- the workers' turn --------------------------------------------------------------------------------------------
    def _fetch(self, key: bytes) -> Fetch:
        unit = self.ledger.units[key]
        return Fetch(
            unit=key,
            peer=peer_id_of(self.ledger.deal_of(key).other),
            content=unit.work or b"",
            size=unit.work_bytes,
            ticket=unit.work_ticket or b"",
            owner=owner_of(key),
        )

    def _compute_next(self, now: Instant) -> list[Any]:
        effects: list[Any] = []
        if self.draining:
            return effects
        for key in sorted(self.ledger.in_phase(Phase.WORKING), key=lambda one: (self.ledger.units[one].changed_us, one)):
            if key in self._computing or self.ledger.units[key].lock is not None:
                continue
            deal = self.ledger.deal_of(key)
            if not self.stalls.of(deal.article):
                effects += self._refuse(key, Step.REJECT, now, "no-worker", "no worker for this article is running here")
                continue
            stall = self.stalls.free(deal.article, self._computing.values())
            if stall is None:
                continue
            self._computing[key] = stall.worker
            work = self.ledger.change(key, now, code="working", sentence="a worker computes it", deadline_us=NEVER).work
            effects.append(
                Compute(
                    unit=key, worker=stall.worker, work=work or b"", time_s=self._terms(deal.free).work_s, owner=owner_of(key)
                )
            )
            effects.append(say(deal, Working(deal=deal.deal, unit=split_unit_key(key)[1], begun=True)))
        return effects

    # --- offers -------------------------------------------------------------------------------------------------------
    def _say_offer(self, key: bytes) -> list[Any]:
        unit, deal = self.ledger.units[key], self.ledger.deal_of(key)
        if not (unit.work and unit.cipher and unit.plain and unit.lock and unit.cipher_ticket and unit.key):
            return []
        body = OfferBody(
            deal=deal.deal,
            unit=unit.unit,
            work=unit.work,
            cipher=unit.cipher,
            plain=unit.plain,
            lock=unit.lock,
            price_msat=deal.price_msat,
        )
        signature = self._key.sign(id_of(self._network.name, OFFER_PURPOSE, pack(body)))
        offer = Offer(body=body, signature=signature, size=unit.cipher_bytes, ticket=unit.cipher_ticket)
        effects: list[Any] = [Grant(content=unit.cipher, ticket=unit.cipher_ticket), say(deal, offer)]
        if deal.free:
            effects.append(say(deal, FreeKey(deal=deal.deal, unit=unit.unit, key=unit.key)))
        return effects

    # --- endings ------------------------------------------------------------------------------------------------------
    def _finish(self, key: bytes, now: Instant, sentence: str) -> list[Any]:
        if self.ledger.move(key, Step.FINISH, now, "finished", sentence) is None:
            return []
        return self._release(key)

    def _refuse(self, key: bytes, how: Step, now: Instant, code: str, sentence: str) -> list[Any]:
        """Leave by a side exit that the buyer has to hear of."""
        effects = self._leave(key, how, now, code, sentence)
        if not effects:
            return []
        return [say(self.ledger.deal_of(key), refusal_of(self.ledger.units[key])), *effects]

    def _leave(self, key: bytes, how: Step, now: Instant, code: str, sentence: str) -> list[Any]:
        if self.ledger.move(key, how, now, code, sentence) is None:
            return []
        self._computing.pop(key, None)
        return [Stop(unit=key), *self._release(key), *self._compute_next(now)]

    def _release(self, key: bytes) -> list[Any]:
        unit = self.ledger.units[key]
        effects: list[Any] = [Unpin(owner=owner_of(key))]
        if unit.cipher_ticket:
            effects.insert(0, Revoke(ticket=unit.cipher_ticket))
        return effects


def refusal_of(unit: Unit) -> WorkRefused:
    """The letter that tells a buyer why a unit will not be delivered."""
    return WorkRefused(deal=unit.deal, unit=unit.unit, code=unit.code[:40], sentence=unit.sentence[:REASON_MAX_CHARS])


def owner_of(key: bytes) -> str:
    """The name under which a unit pins content in the store."""
    return f"{Role.SELLER}:{key.hex()}"
