"""What the figures are told of messages that others brought: how old each was when it was admitted, and whether in time."""

import functools

from orderbook.core.events import Admitted
from orderbook.core.intake import Pending
from wire.moments import Instant
from wire.network import EpochClock


class Arrivals:
    """Collects while a batch is admitted; ``drain`` hands it on."""

    def __init__(self, clock: EpochClock) -> None:
        self._clock = clock
        self._noted: list[Pending] = []

    def note(self, pending: Pending) -> None:
        """A message has just been admitted."""
        self._noted.append(pending)

    def drain(self, now: Instant) -> list[Admitted]:
        """What was noted, all of it at ``now``: one effect, or none. What was pulled because it is old tells no slack."""
        if not self._noted:
            return []
        noted, self._noted = self._noted, []
        epoch, freeze = self._clock.epoch(now), functools.cache(self._clock.freeze)
        ages_us = tuple([max(0, now - one.born) for one in noted if one.born is not None])
        timely = [one.heard.key_epoch for one in noted if not one.asked or one.heard.key_epoch >= epoch]
        return [Admitted(ages_us=ages_us, slack_us=tuple([freeze(key_epoch) - now for key_epoch in timely]))]
