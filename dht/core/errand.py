"""An errand is one thing done again and again: announcing a key, or looking for one. This is its clock.

It waits until it is due, runs, and waits again: for its rest when it worked, for a growing pause when it did not. Somebody can
hurry it; then it runs soon, and if it is running already, soon after. An answer that never comes must not hold it for ever,
so a run that takes too long counts as failed, and a late answer is passed over.
"""

import enum
from dataclasses import dataclass
from typing import Final

from wire.moments import Instant, after


class State(enum.Enum):
    """What an errand is doing."""

    WAITING = "waiting"
    RUNNING = "running"


class Input(enum.Enum):
    """What can happen to an errand."""

    DUE = "due"
    DONE = "done"
    FAILED = "failed"
    HURRY = "hurry"


class Act(enum.Enum):
    """What is done on a transition."""

    START = "start"
    REST = "rest"
    BACK_OFF = "back off"
    SOON = "soon"
    SOON_AFTER = "soon after"
    NOTHING = "nothing"


TABLE: Final[dict[tuple[State, Input], tuple[State, Act]]] = {
    (State.WAITING, Input.DUE): (State.RUNNING, Act.START),
    (State.WAITING, Input.DONE): (State.WAITING, Act.NOTHING),
    (State.WAITING, Input.FAILED): (State.WAITING, Act.NOTHING),
    (State.WAITING, Input.HURRY): (State.WAITING, Act.SOON),
    (State.RUNNING, Input.DUE): (State.WAITING, Act.BACK_OFF),
    (State.RUNNING, Input.DONE): (State.WAITING, Act.REST),
    (State.RUNNING, Input.FAILED): (State.WAITING, Act.BACK_OFF),
    (State.RUNNING, Input.HURRY): (State.RUNNING, Act.SOON_AFTER),
}


@dataclass(slots=True, kw_only=True)
class Errand:
    """One errand. All durations in microseconds; ``due`` is when ``Input.DUE`` comes next."""

    due: Instant
    soon_us: int
    pause_first_us: int
    pause_max_us: int
    answer_us: int
    state: State = State.WAITING
    hurried: bool = False
    pause_us: int = 0

    def step(self, happened: Input, now: Instant, rest_us: int = 0) -> bool:
        """Take one transition. Whether the errand is to be started now. ``rest_us`` is how long to wait after success."""
        self.state, act = TABLE[self.state, happened]
        match act:
            case Act.START:
                self.due = after(now, self.answer_us)
            case Act.REST:
                self.pause_us = 0
                self._wait(now, rest_us)
            case Act.BACK_OFF:
                self.pause_us = min(2 * self.pause_us, self.pause_max_us) if self.pause_us else self.pause_first_us
                self._wait(now, self.pause_us)
            case Act.SOON:
                self.due = min(self.due, after(now, self.soon_us))
            case Act.SOON_AFTER:
                self.hurried = True
            case Act.NOTHING:
                pass
        return act is Act.START

    def _wait(self, now: Instant, wait_us: int) -> None:
        self.due = after(now, min(wait_us, self.soon_us) if self.hurried else wait_us)
        self.hurried = False
