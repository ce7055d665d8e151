# SPDX-License-Identifier: GPL-3.0-or-later
"""Buys a frame, tile by tile: orders go out from threads, results come back to whoever calls ``step``.

The caller's thread alone touches the frame and the budget. The others do one order each, and put what came of it into a queue.
"""

import queue
import threading
import time
from dataclasses import dataclass

from . import work
from .budget import Budget
from .frame import Frame, State
from .money import show_msat
from .node import NodeClient, NodeError, Purchase
from .openexr import BadImage

TRADES_EVERY_S = 0.5
OVERDRAWN_GRACE_S = 1.5  # less than an epoch; a tile that has just been paid counts twice for a moment
ORDER_MAX_S = 900.0
ENDING_S = 5.0


@dataclass(frozen=True)
class Order:
    """What to buy for every tile. ``price_msat`` 0 asks in the free book."""

    article: str
    picture: work.Picture
    scene: str
    price_msat: int
    wait_s: float
    at_once: int


@dataclass(frozen=True)
class Delivery:
    """A checked tile: its index, the bytes of its file, and what it says of its maker."""

    index: int
    data: bytes
    maker: dict


class Run:
    """One frame on the market. Call ``step`` until ``frame.over``, then ``close``."""

    def __init__(self, node: NodeClient, order: Order, frame: Frame, budget: Budget, clock=time.monotonic) -> None:
        self.frame = frame
        self.budget = budget
        self.makers: dict = {}
        self._node = node
        self._order = order
        self._clock = clock
        self._answers: queue.Queue = queue.Queue()
        self._purchases: dict = {}
        self._threads: list = []
        self._next_trades = 0.0
        self._over_since = None
        self._unsettled = 0
        self._price = f"msat {order.price_msat}" if order.price_msat else ""

    def start(self) -> None:
        """See that the node is there and what it has bought before. Raises ``NodeError``."""
        self._node.follow(self._order.article)
        self.budget.observe(self._node.listing("trades"))
        self._next_trades = self._clock() + TRADES_EVERY_S

    # --- the caller's thread ------------------------------------------------------------------------------------------
    def step(self, timeout: float) -> list:
        """Order what may be ordered, wait at most ``timeout`` seconds for news, and return what was delivered."""
        now = self._clock()
        if self._order.price_msat and now >= self._next_trades:
            self._look_at_trades(now)
        self._order_more(now)
        delivered = []
        try:
            answer = self._answers.get(timeout=timeout)
            while True:
                one = self._take(*answer)
                if one is not None:
                    delivered.append(one)
                answer = self._answers.get_nowait()
        except queue.Empty:
            pass
        if self.frame.over:
            self._hang_up(list(self._purchases))
        return delivered

    def _order_more(self, now: float) -> None:
        while len(self._purchases) < self._order.at_once:
            index = self.frame.next_waiting(now)
            if index is None:
                return
            if not self._affords(index):
                return
            self.frame.order(index)
            purchase = self._purchases[index] = Purchase()
            thread = threading.Thread(target=self._buy, args=(index, purchase), name="tile-%d" % index, daemon=True)
            self._threads.append(thread)
            thread.start()

    def _affords(self, index: int) -> bool:
        """Reserve the bid of one more order. With none in flight, what the node says now is the last word."""
        if self.budget.open(index, self._order.price_msat):
            return True
        if self._purchases:
            return False
        self._look_at_trades(self._clock())
        if self.budget.open(index, self._order.price_msat):
            return True
        self.frame.give_up(self._too_little())
        return False

    def _too_little(self) -> str:
        left = self.frame.count(State.WAITING)
        return (
            f"the maximum of {show_msat(self.budget.maximum)} is reached: {show_msat(self.budget.spent)} spent, "
            f"{left} tiles left at {show_msat(self._order.price_msat)} each"
        )

    def _take(self, index: int, purchase: Purchase, content: str, data: bytes, error):
        if self._purchases.get(index) is not purchase:
            return None
        del self._purchases[index]
        self._settle(index, content)
        if error is None:
            try:
                maker = work.check_result(self._order.picture, self.frame.entries[index].tile, data)
            except BadImage as bad:
                self.frame.fail(index, "bad-image", f"a seller's image cannot be used: {bad}", self._clock())
                return None
            if not self.frame.deliver(index):
                return None
            key = (maker["build"], maker["kernel"])
            self.makers[key] = self.makers.get(key, 0) + 1
            return Delivery(index, data, maker)
        if error.code == "cancelled":
            self.frame.take_back(index)
        else:
            self.frame.fail(index, error.code, error.sentence, self._clock())
        return None

    def _settle(self, index: int, content: str) -> None:
        """The order is over. One that brought nothing may have been paid all the same, so the node is asked first."""
        if not content and self._order.price_msat:
            try:
                self.budget.observe(self._node.listing("trades"))
            except NodeError:
                # Nobody can say now; the bid counts as spent until a trade with such a result is seen, which is never.
                self._unsettled += 1
                content = f"unknown {self._unsettled}"
        self.budget.close(index, content)

    def _look_at_trades(self, now: float) -> None:
        self._next_trades = now + TRADES_EVERY_S
        try:
            self.budget.observe(self._node.listing("trades"))
        except NodeError:
            return  # bids stand in for what cannot be seen
        over = self.budget.overdrawn()
        if not over:
            self._over_since = None
        elif self._over_since is None:
            self._over_since = now
        elif now - self._over_since >= OVERDRAWN_GRACE_S:
            self._hang_up(over)

    def _hang_up(self, orders: list) -> None:
        for index in orders:
            self._purchases[index].cancel()

    def cancel(self) -> None:
        """Take every order back; what is being paid at this moment is paid."""
        self.frame.cancel()
        self._hang_up(list(self._purchases))

    def close(self) -> None:
        """Hang up on everything and wait for the threads, a little."""
        self._hang_up(list(self._purchases))
        end = time.monotonic() + ENDING_S
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def words(self) -> str:
        """One line for the artist."""
        done, total = self.frame.count(State.DONE), len(self.frame.entries)
        money = ""
        if self._order.price_msat:
            money = f", {show_msat(self.budget.spent)} of {show_msat(self.budget.maximum)} spent"
        return f"Tile {done} of {total}, {len(self._purchases)} on the market{money}"

    # --- threads, one for each order ----------------------------------------------------------------------------------
    def _buy(self, index: int, purchase: Purchase) -> None:
        order, content, data, error = self._order, "", b"", None
        try:
            content = self._node.buy(
                order.article,
                work.head(order.picture),
                order.scene,
                work.tail(order.picture, self.frame.entries[index].tile),
                self._price,
                order.wait_s,
                purchase,
                order.wait_s + ORDER_MAX_S,
            )
            data = self._node.file(content)
        except NodeError as failed:
            error = failed
        except OSError as failed:
            error = NodeError("broken", f"the scene cannot be read: {failed.strerror}")
        self._answers.put((index, purchase, content, data, error))
