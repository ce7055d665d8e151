"""What the figures are told of messages that others brought: how old each was when it was admitted, and whether in time."""

import functools
from collections.abc import Sequence

from orderbook.core.events import Admitted
from orderbook.core.intake import Pending
from wire.moments import Instant
from wire.network import EpochClock


def arrivals(admitted: Sequence[Pending], clock: EpochClock, now: Instant) -> list[Admitted]:
    """What was admitted at ``now``: one effect, or none. What was pulled because it is old tells no slack."""
    if not admitted:
        return []
    epoch, freeze = clock.epoch(now), functools.cache(clock.freeze)
    ages_us = tuple([max(0, now - one.born) for one in admitted if one.born is not None])
    timely = [one.heard.key_epoch for one in admitted if not one.asked or one.heard.key_epoch >= epoch]
    return [Admitted(ages_us=ages_us, slack_us=tuple([freeze(key_epoch) - now for key_epoch in timely]))]
