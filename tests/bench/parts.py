"""What other parts cost: an auction of middle size, a channel state, the store, the journal."""

import os
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import trio
from blake3 import blake3

from cafs.shell.store import Store
from escrow.core.contract import contract_of
from escrow.core.opening import propose_terms
from escrow.core.spends import is_signed, sign_state
from orderbook.core.auction import Entry, clear
from orderbook.core.messages import Side, account_hash_of
from peer.journal import open_journal
from wire.effects import Save
from wire.keys import SecretKey, verify
from wire.network import REGTEST
from wire.ports import OutPoint

ORDERS: Final = 1_024
BOOK: Final = b"b" * 32
Pair = tuple[float, float]


def key(number: int) -> SecretKey:
    """A key for one of the measured parties."""
    return SecretKey(blake3(number.to_bytes(4, "big")).digest())


def timed(work: Callable[[], object]) -> float:
    """Seconds that ``work`` takes on this processor."""
    began = time.process_time()
    work()
    return time.process_time() - began


def auction() -> Pair:
    """Clearing 10,000 orders, against sorting them twice."""
    entries = [
        Entry(
            id=blake3(number.to_bytes(4, "big")).digest(),
            owner=key(number % 64).public,
            side=Side.BUY if number % 2 else Side.SELL,
            price_msat=1_000_000 + (number * 7_919) % 1_000,
            quantity=1 + number % 5,
        )
        for number in range(10_000)
    ]
    buys = [one for one in entries if one.side is Side.BUY]
    sells = [one for one in entries if one.side is Side.SELL]
    for one in entries:
        account_hash_of(one.owner)

    def bare() -> None:
        for _ in range(2):
            sorted(buys, key=lambda one: (-one.price_msat, one.id))
            sorted(sells, key=lambda one: (one.price_msat, one.id))

    return timed(bare), timed(lambda: clear(buys, sells, 42))


def channel() -> Pair:
    """Signing and checking 500 channel states, against that many bare signatures and checks."""
    buyer, seller = key(1), key(2)
    terms = propose_terms(
        buyer, seller.public, REGTEST, bytes(32), height=100, feerate_sat_per_kvb=1_000, capacity_sat=1_000_000, counter=0
    )
    contract = contract_of(REGTEST.name, terms)
    funding = OutPoint(b"t" * 32, 0)
    digest = blake3(b"digest").digest()

    def bare() -> None:
        for _ in range(500):
            verify(buyer.public, digest, buyer.sign(digest))

    def real() -> None:
        for number in range(500):
            lock = blake3(number.to_bytes(4, "big")).digest()
            der = sign_state(contract, buyer, funding, 1_000_000 + 1_000 * number, lock)
            is_signed(contract, funding, 1_000_000 + 1_000 * number, lock, der)

    return timed(bare), timed(real)


def store() -> Pair:
    """Keeping 32 MiB, against hashing them once."""
    data = os.urandom(32 << 20)

    async def keep(folder: Path) -> None:
        async with Store(folder) as shelf:
            await shelf.put(data)

    began = time.monotonic()
    blake3(data).digest()
    middle = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        trio.run(keep, Path(folder) / "content")
    return middle - began, time.monotonic() - middle


def journal() -> Pair:
    """2,048 rows from 64 writers at once, against as many single transactions of plain SQLite with the same care."""

    async def write(path: Path) -> None:
        async with open_journal(path) as book, trio.open_nursery() as nursery:

            async def one(writer: int) -> None:
                for number in range(32):
                    row = writer.to_bytes(2, "big") + number.to_bytes(2, "big")
                    await book.commit([Save(table="bench", key=row, value=bytes(200))])

            for writer in range(64):
                nursery.start_soon(one, writer)

    with tempfile.TemporaryDirectory() as folder:
        plain = sqlite3.connect(Path(folder) / "plain.sqlite", isolation_level=None)
        plain.execute("pragma journal_mode = wal")
        plain.execute("pragma synchronous = full")
        plain.execute("create table rows (key blob primary key, value blob)")
        began = time.monotonic()
        for number in range(2_048):
            plain.execute("insert into rows values (?, ?)", (number.to_bytes(4, "big"), bytes(200)))
        middle = time.monotonic()
        plain.close()
        trio.run(write, Path(folder) / "journal.sqlite")
        return middle - began, time.monotonic() - middle


ROUNDS: Final = 3
MEASURES: Final = {
    "parts.auction_10k": (auction, 8.0, "clearing 10,000 orders with pairs", "sorting both sides twice"),
    "parts.channel_state": (channel, 3.0, "signing and checking a channel state", "one bare BIP340 signature and its check"),
    "parts.store_put": (store, 60.0, "keeping 32 MiB: chunks, hashes, disk", "hashing them once"),
    "parts.journal": (journal, 0.6, "2,048 rows from 64 writers", "as many single transactions of plain SQLite, as durable"),
}
"""Measure, how many times its baseline it may cost, what it is, what the baseline is."""


def figures() -> list[dict[str, Any]]:
    """One figure per part: seconds of the real thing by seconds of its baseline, the best of three rounds of each, by turns."""
    found = []
    for name, (measure, bound, what, baseline) in MEASURES.items():
        pairs = [measure() for _ in range(ROUNDS)]
        least, real = min(pair[0] for pair in pairs), min(pair[1] for pair in pairs)
        found.append(
            {
                "name": name,
                "value": real / max(least, 1e-9),
                "unit": "times the baseline's seconds",
                "baseline": f"{baseline}: {1_000 * least:.1f} ms",
                "higher_is_better": False,
                "bound": bound,
                "remark": f"{what}: {1_000 * real:.1f} ms, best of {ROUNDS}",
            }
        )
    return found
