# SPDX-License-Identifier: GPL-3.0-or-later
"""The course of one frame: which tile waits, is on the market, is there, or was given up, and when it is tried again.

A tile is WAITING until an order for it goes out; then it is ORDERED until the order brings a result (DONE) or fails. A failed one
waits again, longer each time, until it has had its tries; then it is LOST and with it the frame, because a picture with a hole
is of no use to anybody. Some failures are nobody's bad luck but ours (no funds, a wrong token); they end the frame at once.
CANCELLED is the artist's own decision. No tile ever leaves DONE, LOST or CANCELLED.
"""

from dataclasses import dataclass
from enum import Enum

TRIES_MAX = 3
RETRY_FIRST_S = 1.0
HOPELESS = {
    "bad-amount",
    "bad-article",
    "bad-request",
    "bad-wait",
    "host-refused",
    "no-funds",
    "no-node",
    "not-found",
    "origin-refused",
    "token-missing",
    "token-wrong",
    "too-large",
}
"""Refusals that another try cannot change."""


class State(Enum):
    """Where a tile stands."""

    WAITING = "waiting"
    ORDERED = "ordered"
    DONE = "done"
    LOST = "lost"
    CANCELLED = "cancelled"


class Step(Enum):
    """What can happen to a tile."""

    ORDER = "order"
    DELIVER = "deliver"
    FAIL = "fail"
    TAKE_BACK = "take back"
    GIVE_UP = "give up"
    CANCEL = "cancel"


TRANSITIONS = {
    State.WAITING: {Step.ORDER: State.ORDERED, Step.GIVE_UP: State.LOST, Step.CANCEL: State.CANCELLED},
    State.ORDERED: {
        Step.DELIVER: State.DONE,
        Step.FAIL: State.WAITING,
        Step.TAKE_BACK: State.WAITING,
        Step.GIVE_UP: State.LOST,
        Step.CANCEL: State.CANCELLED,
    },
    State.DONE: {},
    State.LOST: {},
    State.CANCELLED: {},
}


@dataclass
class Entry:
    """One tile and its history."""

    tile: object
    state: State = State.WAITING
    tries: int = 0
    not_before: float = 0.0
    reason: str = ""


class Frame:
    """All tiles of a frame, by index. A step that the table does not know is ignored and says so by returning False."""

    def __init__(self, tiles: tuple, tries_max: int = TRIES_MAX) -> None:
        self.entries = [Entry(tile) for tile in tiles]
        self._tries_max = tries_max
        self.failure = ""

    def count(self, state: State) -> int:
        """How many tiles stand there."""
        return sum(entry.state is state for entry in self.entries)

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return not any(TRANSITIONS[entry.state] for entry in self.entries)

    def next_waiting(self, now: float):
        """The first tile that may be ordered now, or None."""
        for index, entry in enumerate(self.entries):
            if entry.state is State.WAITING and entry.not_before <= now:
                return index
        return None

    def _move(self, index: int, step: Step) -> bool:
        entry = self.entries[index]
        after = TRANSITIONS[entry.state].get(step)
        if after is None:
            return False
        entry.state = after
        return True

    def order(self, index: int) -> bool:
        """An order for the tile goes out."""
        if not self._move(index, Step.ORDER):
            return False
        self.entries[index].tries += 1
        return True

    def deliver(self, index: int) -> bool:
        """The tile is there."""
        return self._move(index, Step.DELIVER)

    def take_back(self, index: int) -> bool:
        """We closed its order ourselves; that is no failed try."""
        if not self._move(index, Step.TAKE_BACK):
            return False
        self.entries[index].tries -= 1
        return True

    def fail(self, index: int, code: str, sentence: str, now: float) -> bool:
        """The order brought nothing: try again later, or give up the frame."""
        entry = self.entries[index]
        if entry.state is not State.ORDERED:
            return False
        entry.reason = sentence
        if code in HOPELESS or entry.tries >= self._tries_max:
            self.give_up(sentence if code in HOPELESS else f"a tile failed {entry.tries} times: {sentence}")
            return True
        entry.not_before = now + RETRY_FIRST_S * 2 ** (entry.tries - 1)
        return self._move(index, Step.FAIL)

    def give_up(self, reason: str) -> None:
        """End the frame without a picture."""
        self.failure = self.failure or reason
        for index in range(len(self.entries)):
            self._move(index, Step.GIVE_UP)

    def cancel(self) -> None:
        """The artist wants no more."""
        for index in range(len(self.entries)):
            self._move(index, Step.CANCEL)
