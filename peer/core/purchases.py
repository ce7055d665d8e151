"""What every step of a purchase leans on: the ledger, the letters that repeat what is owed, and the ways out.

The decisions are in ``peer.core.buying``; nothing here is called by anybody else.
"""

from collections.abc import Callable
from typing import Any, Final

from peer.core.deal import BEFORE_MONEY, Phase, Role, Step, Unit, split_unit_key, unit_key
from peer.core.events import Fetch, Grant, Reply, Revoke, Stop, Strike, Unpin
from peer.core.exposure import Exposure
from peer.core.ledger import Ledger, say
from peer.core.letters import DRAINING, Bind, DealLetter, Task, Withdraw
from peer.core.requests import Requests
from peer.core.terms import Terms
from peer.core.till import Till
from wire.keys import PeerId, SecretKey, peer_id_of
from wire.moments import SECOND, Instant
from wire.network import Network

REPEAT_FIRST_S: Final = 2
REPEAT_MAX_S: Final = 16
_UNANSWERED: Final = frozenset({Phase.ACCEPTED, Phase.FUNDED})


class Purchases:
    """Ledger, requests, till and the tools that move them. ``renew`` says whether a request whose seller failed may be placed
    again, ``exposure`` how much is risked with whom.
    """

    def __init__(
        self,
        key: SecretKey,
        network: Network,
        terms: Callable[[bool], Terms],
        renew: Callable[[int, Instant], bool],
        exposure: Exposure | None = None,
    ) -> None:
        self._key = key
        self._network = network
        self._terms = terms
        self._renew = renew
        self.ledger = Ledger()
        self.requests = Requests()
        self.till = Till()
        self._exposure = exposure or Exposure()
        self._away: set[PeerId] = set()
        self._repeats: dict[bytes, tuple[Instant, int]] = {}

    def _fund(self, deal: bytes, now: Instant) -> list[Any]:
        terms = self._terms(self.ledger.deals[deal].free)
        live = [key for key, unit in self.ledger.units_of(deal) if unit.phase is Phase.ACCEPTED]
        budget_s = terms.fetch_s + terms.work_s * max(1, len(live))
        for key in live:
            sentence = "the money is seen on the chain" if not self.ledger.deal_of(key).free else "nothing is to be paid"
            self.ledger.move(key, Step.FUND, now, "funded", sentence, deadline_us=self._deadline(key, now, budget_s))
        return []

    def _deadline(self, key: bytes, now: Instant, seconds: int) -> Instant:
        deal = self.ledger.deal_of(key)
        if peer_id_of(deal.other) in self._away:
            seconds = min(seconds, self._terms(deal.free).silence_s)
        return Instant(now + seconds * SECOND)

    def _tasks(self, deal: bytes, now: Instant) -> list[Any]:
        """Bind and every task that the seller may not have; said again until he answers, and after each reconnect."""
        self._repeats[deal] = (Instant(now + REPEAT_FIRST_S * SECOND), REPEAT_FIRST_S)
        return self._say_tasks(deal, BEFORE_MONEY)

    def _say_tasks(self, deal: bytes, phases: frozenset[Phase]) -> list[Any]:
        held = self.ledger.deals[deal]
        if not held.free and held.channel is None:
            return []
        effects: list[Any] = []
        letters: list[DealLetter] = []
        for _, unit in self.ledger.units_of(deal):
            if unit.phase in phases and unit.work and unit.work_ticket:
                effects.append(Grant(content=unit.work, ticket=unit.work_ticket))
                letters.append(Task(deal=deal, unit=unit.unit, work=unit.work, size=unit.work_bytes, ticket=unit.work_ticket))
        if letters:
            letters.insert(0, Bind(deal=deal, channel=held.channel))
        return effects + [say(held, letter) for letter in letters]

    def _repeat_tasks(self, now: Instant) -> list[Any]:
        """Say tasks again that no seller has answered yet, each time after a longer pause."""
        effects: list[Any] = []
        for deal in sorted(self._repeats):
            due, pause_s = self._repeats[deal]
            if due > now:
                continue
            again = self._say_tasks(deal, _UNANSWERED) if deal in self.ledger.deals else []
            if again:
                pause_s = min(2 * pause_s, REPEAT_MAX_S)
                self._repeats[deal] = (Instant(now + pause_s * SECOND), pause_s)
            else:
                del self._repeats[deal]
            effects += again
        return effects

    def _next_repeat(self) -> Instant | None:
        return min((due for due, _ in self._repeats.values()), default=None)

    def _seen_funded(self, key: bytes, now: Instant) -> None:
        """A seller at work has seen the funding before us; what he says costs nothing yet."""
        self.ledger.move(key, Step.FUND, now, "funded", "the seller has seen the funding")

    def _fetch(self, key: bytes, peer: PeerId) -> Fetch:
        unit = self.ledger.units[key]
        return Fetch(
            unit=key,
            peer=peer,
            content=unit.cipher or b"",
            size=unit.cipher_bytes,
            ticket=unit.cipher_ticket or b"",
            owner=owner_of(key),
        )

    def _with(self, peer: PeerId) -> list[bytes]:
        live = self.ledger.in_phase(*BEFORE_MONEY, Phase.COMMITTED)
        return [key for key in live if peer_id_of(self.ledger.deal_of(key).other) == peer]

    def _fail(self, key: bytes, how: Step, now: Instant, code: str, sentence: str) -> list[Any]:
        """The seller let this unit down: remember it, unless he is shutting down in good order, and look for another."""
        unit = self.ledger.units[key]
        effects = self._leave(key, how, now, code, sentence)
        if not effects:
            return []
        if code != DRAINING:
            effects.append(Strike(peer=peer_id_of(self.ledger.deal_of(key).other), code=code, sentence=sentence))
        return [*effects, *self._again(unit, now, sentence, bad_work=code == "bad-work")]

    def _again(self, unit: Unit, now: Instant, sentence: str, *, bad_work: bool = False, spent: bool = False) -> list[Any]:
        request = self.requests.get(unit.request)
        if request is None or request.unit != unit_key(unit.deal, unit.unit):
            return []
        if not self._renew(request.number, now):
            return self.refuse(request.number, "mandate-ended", f"no mandate allows another attempt; the last one: {sentence}")
        if spent and request.once:
            self.requests.drop(request.number)
            said = f"money is locked or spent for this work, and it was to be bought once only: {sentence}"
            return [Reply(request=request.number, result=None, code="spent", sentence=said)]
        if self.requests.place_again(request.number, now, sentence, bad_work=bad_work):
            return []
        self.requests.drop(request.number)
        code = "bad-work" if bad_work else "attempts"
        said = f"given up after {request.attempts + 1} attempts; the last one: {sentence}"
        return [Reply(request=request.number, result=None, code=code, sentence=said)]

    def refuse(self, number: int, code: str, sentence: str) -> list[Any]:
        """Give a request up and say why."""
        if self.requests.drop(number) is None:
            return []
        return [Reply(request=number, result=None, code=code, sentence=sentence)]

    def _leave(self, key: bytes, how: Step, now: Instant, code: str, sentence: str) -> list[Any]:
        """Leave a unit by a side exit, if the table has one from here, and tell the seller."""
        if self.ledger.move(key, how, now, code, sentence) is None:
            return []
        self.till.drop(key, now)
        deal, number = split_unit_key(key)
        held = self.ledger.deals[deal]
        return [
            Stop(unit=key),
            say(held, Withdraw(deal=deal, unit=number, code=code[:40])),
            *self._release(key),
        ]

    def _release(self, key: bytes) -> list[Any]:
        unit = self.ledger.units[key]
        effects: list[Any] = [Unpin(owner=owner_of(key))]
        if unit.work_ticket:
            effects.insert(0, Revoke(ticket=unit.work_ticket))
        return effects


def owner_of(key: bytes) -> str:
    """The name under which a unit pins content in the store."""
    return f"{Role.BUYER}:{key.hex()}"
