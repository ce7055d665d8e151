"""What local programs have asked to buy: waiting requests, folded into one standing order per book and price.

A request lives as long as the program that asked listens. It is *waiting* until a match gives it a unit, and waits again,
with one attempt fewer, when that unit comes to nothing.
"""

import dataclasses
from dataclasses import dataclass
from typing import Final

from wire.limits import JOBS_WAITING_MAX, UNIT_ATTEMPTS_MAX, UNITS_PER_DEAL_MAX
from wire.moments import Instant

BAD_WORK_MAX: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One unit somebody waits for. ``unit`` is the deal's unit that works on it, or None while it waits."""

    number: int
    article: str
    work: bytes
    work_bytes: int
    bid_msat: int | None
    wait_us: int
    expires: Instant
    unit: bytes | None
    attempts: int
    bad_work: int
    sentence: str
    once: bool = False


class Requests:
    """Requests by number, bounded."""

    def __init__(self) -> None:
        self._all: dict[int, Request] = {}
        self.version = 0

    def full(self) -> bool:
        """Whether no more can be taken."""
        return len(self._all) >= JOBS_WAITING_MAX

    def get(self, number: int) -> Request | None:
        """The request with this number, while somebody waits for it."""
        return self._all.get(number)

    def put(self, request: Request) -> None:
        """Keep a request."""
        self._all[request.number] = request
        self.version += 1

    def drop(self, number: int) -> Request | None:
        """Forget a request."""
        self.version += 1
        return self._all.pop(number, None)

    def waiting(self, article: str, free: bool, price_msat: int) -> list[Request]:
        """Requests that a match at this price can serve: the highest bids first, then the oldest."""
        fits = [
            one
            for one in self._all.values()
            if one.unit is None
            and one.article == article
            and (one.bid_msat is None) == free
            and (free or (one.bid_msat or 0) >= price_msat)
        ]
        return sorted(fits, key=lambda one: (-(one.bid_msat or 0), one.number))

    def wants(self) -> dict[tuple[str, int | None], int]:
        """Units wanted by (article, bid); a bid of None asks in the free book."""
        wanted: dict[tuple[str, int | None], int] = {}
        for one in self._all.values():
            if one.unit is None:
                line = (one.article, one.bid_msat)
                wanted[line] = min(UNITS_PER_DEAL_MAX, wanted.get(line, 0) + 1)
        return wanted

    def give(self, number: int, unit: bytes) -> None:
        """The request is worked on as ``unit``."""
        self.put(dataclasses.replace(self._all[number], unit=unit))

    def place_again(self, number: int, now: Instant, sentence: str, *, bad_work: bool) -> bool:
        """Let the request wait for another match. False when it has had all its attempts."""
        one = self._all[number]
        one = dataclasses.replace(
            one,
            unit=None,
            attempts=one.attempts + 1,
            bad_work=one.bad_work + bad_work,
            expires=Instant(now + one.wait_us),
            sentence=sentence,
        )
        self.put(one)
        return one.attempts < UNIT_ATTEMPTS_MAX and one.bad_work < BAD_WORK_MAX

    def remark(self, article: str, bid_msat: int | None, sentence: str) -> None:
        """Note why there was no match this epoch, for whoever asks and for the refusal if it comes to that."""
        for number, one in self._all.items():
            if one.unit is None and (one.article, one.bid_msat) == (article, bid_msat):
                self._all[number] = dataclasses.replace(one, sentence=sentence)

    def expired(self, now: Instant) -> list[Request]:
        """Waiting requests whose time is over, oldest first."""
        late = [one for one in self._all.values() if one.unit is None and one.expires <= now]
        return sorted(late, key=lambda one: one.number)

    def next_deadline(self) -> Instant | None:
        """When the next waiting request expires."""
        return min((one.expires for one in self._all.values() if one.unit is None), default=None)

    def all(self) -> list[Request]:
        """Every request, oldest first."""
        return [self._all[number] for number in sorted(self._all)]
