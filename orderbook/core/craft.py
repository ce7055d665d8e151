"""The pure functions that a market works with, in one place, so that another set with the same results can stand in.

A node has no reason to choose: the defaults are the rules. A simulation of thousands of markets in one process hands in versions
that remember, because what one node has decoded, cleared or added up need not be computed again for the next.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from orderbook.core.auction import Entry, Fill, clear
from orderbook.core.book import Book
from orderbook.core.frames import FRAMES
from orderbook.core.messages import Heard, read
from orderbook.core.negentropy import Initiator, Vector, respond
from wire.network import EpochClock, Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Craft:
    """``book`` makes an empty book, ``read`` decodes a gossiped message, ``unpack`` a relay frame, ``clear`` is the auction;
    ``initiator`` and ``respond`` are the two sides of a reconciliation.
    """

    book: Callable[[EpochClock], Book] = Book
    read: Callable[[Network, bytes], Heard] = read
    unpack: Callable[[bytes, int], Any] = FRAMES.unpack
    clear: Callable[[Sequence[Entry], Sequence[Entry], int], tuple[Fill, ...]] = clear
    initiator: Callable[[Vector], Initiator] = Initiator
    respond: Callable[[Vector, bytes], bytes] = respond
