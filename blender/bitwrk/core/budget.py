# SPDX-License-Identifier: GPL-3.0-or-later
"""Money of one frame: what was spent, what is promised, and the line that the two together never cross.

An order that the node may still fill counts with its whole bid. It stops counting when its connection is closed, and what it
has cost is read from the node's own list of trades. A result whose trade is not in the list yet counts with the bid. So whatever
happens at any moment, the sum is an upper bound of what will have been paid.
"""

from collections import Counter

PAID = ("finished", "result-disputed")
LOCKED = ("committed", "revealed")
_OWED = "still owed"


class Budget:
    """Amounts are millisatoshi. ``maximum`` bounds ``committed`` at all times; free work (a bid of 0) costs nothing."""

    def __init__(self, maximum: int, article: str) -> None:
        self.maximum = maximum
        self._article = article
        self._known: set = set()
        self._started = False
        self._open: dict = {}
        self._delivered: Counter = Counter()
        self._bids: dict = {}
        self._confirmed: Counter = Counter()
        self._paid = 0
        self._locked: list = []

    @property
    def reserved(self) -> int:
        """Bids of all orders in flight."""
        return sum(self._open.values())

    @property
    def spent(self) -> int:
        """What was paid, or is locked with a seller who owes the key, or was delivered and is not in the books yet."""
        waiting = sum(max(0, count - self._confirmed[result]) * self._bids[result] for result, count in self._delivered.items())
        # A locked payment belongs to an order in flight and is covered by its bid, unless there are more of them than orders.
        # Which ones are over is not known, so the dearest are taken.
        spare = sorted(self._locked, reverse=True)[: max(0, len(self._locked) - len(self._open))]
        return self._paid + waiting + sum(spare)

    @property
    def committed(self) -> int:
        """The most that all this can still come to."""
        return self.spent + self.reserved

    def affords(self, bid: int) -> bool:
        """Whether one more order may go out."""
        return self.committed + bid <= self.maximum

    def open(self, order: int, bid: int) -> bool:
        """Put an order in flight, if it is affordable."""
        if order in self._open:
            raise ValueError("this order is in flight already")
        if not self.affords(bid):
            return False
        self._open[order] = bid
        return True

    def close(self, order: int, result: str = "") -> None:
        """An order is no longer in flight. ``result`` names what it has brought, if anything."""
        bid = self._open.pop(order)
        if result and bid:
            self._delivered[result] += 1
            self._bids[result] = max(bid, self._bids.get(result, 0))

    def observe(self, trades: list) -> None:
        """Read the node's list of trades. What is in the first one was there before us."""
        ours = [line for line in trades if line.get("role") == "buyer" and line.get("article") == self._article]
        if not self._started:
            self._started = True
            self._known = {(line.get("deal"), line.get("unit")) for line in ours}
            return
        paid, locked, confirmed = 0, [], Counter()
        for line in ours:
            if (line.get("deal"), line.get("unit")) in self._known:
                continue
            price, phase = int(line.get("price_msat") or 0), line.get("phase")
            if phase in PAID or (phase in LOCKED and _OWED in str(line.get("reason"))):
                paid += price
            elif phase in LOCKED:
                locked.append(price)
            if phase == "finished":
                confirmed[line.get("result")] += 1
        self._paid, self._locked, self._confirmed = paid, locked, confirmed

    def overdrawn(self) -> list:
        """Orders to take back, the latest first, so that the line is not crossed; empty when all is well."""
        over, found = self.committed - self.maximum, []
        for order in sorted(self._open, reverse=True):
            if over <= 0:
                break
            if self._open[order]:
                found.append(order)
                over -= self._open[order]
        return found
