"""Whether our clock agrees with our neighbours'. Epochs are wall-clock time, so a clock that is far off trades alone."""

from collections.abc import Sequence
from typing import Final

from orderbook.core.events import ClockJudged
from wire.moments import MILLISECOND, SECOND
from wire.network import EpochClock

_PART: Final = 8


def judge(offsets_us: Sequence[int | None], clock: EpochClock) -> ClockJudged:
    """Judge by each neighbour's offset (theirs less ours; None: not known yet).

    Skewed means that more than half of those known are off by more than an eighth of an epoch in one direction, so a
    minority cannot stop us.
    """
    known = sorted(one for one in offsets_us if one is not None)
    limit = clock.length_ms * MILLISECOND // _PART
    late = sum(one > limit for one in known)
    early = sum(one < -limit for one in known)
    middle = known[len(known) // 2] if known else 0
    if 2 * max(late, early) <= len(known):
        return ClockJudged(skewed=False, offset_us=middle, sentence="this machine's clock agrees with its neighbours'")
    word = "behind" if late else "ahead of"
    sentence = (
        f"this machine's clock is {abs(middle) / SECOND:.1f} s {word} its neighbours', so it does not trade; "
        "set the clock, for example with NTP"
    )
    return ClockJudged(skewed=True, offset_us=middle, sentence=sentence)
