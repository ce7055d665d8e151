"""The measures. Each returns the seconds of its baseline and of the real thing, for the same number of operations."""

import os
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import trio
from blake3 import blake3

from cafs.shell.store import Store
from escrow.core.contract import contract_of
from escrow.core.opening import propose_terms
from escrow.core.spends import is_signed, sign_state
from orderbook.core.auction import Entry, clear
from orderbook.core.events import Check, Checked, Follow, FrameIn, NeighbourUp
from orderbook.core.frames import FRAMES, Batch, Hello
from orderbook.core.market import Market
from orderbook.core.messages import Order, Side, account_hash_of, read, seal_order
from peer.journal import open_journal
from wire.effects import Save
from wire.keys import SecretKey, verify
from wire.moments import Instant
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


def sealed_orders(now: Instant) -> list[bytes]:
    """Signed, stamped orders of different owners for the next epoch."""
    epoch = REGTEST.clock.epoch(now) + 1
    return [
        seal_order(
            key(number),
            REGTEST,
            Order(
                network=REGTEST.name,
                book=BOOK,
                side=Side.BUY if number % 2 else Side.SELL,
                price_msat=1_000_000 + number,
                quantity=1,
                first_epoch=epoch,
                last_epoch=epoch + 4,
                owner=key(number).public,
                slot=0,
                sequence=number,
                salt=number.to_bytes(16, "big"),
            ),
        )
        for number in range(ORDERS)
    ]


def intake() -> Pair:
    """Orders through the whole gossip machine, against decoding and verifying them in a bare loop."""
    now = Instant(time.time_ns() // 1_000)
    orders = sealed_orders(now)

    def bare() -> None:
        for raw in orders:
            for check in read(REGTEST, raw).checks:
                verify(check.public, check.digest, check.signature)

    market = Market(REGTEST, key(9_001).peer_id)
    peer = key(9_002).peer_id
    market.handle(Follow(book=BOOK), now)
    market.handle(NeighbourUp(peer=peer), now)
    hello = Hello(network=REGTEST.name, moment_us=now, books=(BOOK,))
    market.handle(FrameIn(peer=peer, frame=FRAMES.pack(hello)), now)

    def real() -> None:
        for first in range(0, ORDERS, 128):
            frame = FRAMES.pack(Batch(messages=tuple(orders[first : first + 128])))
            for effect in market.handle(FrameIn(peer=peer, frame=frame), now):
                if isinstance(effect, Check):
                    good = tuple(one.id for one in effect.items if verify(one.public, one.digest, one.signature))
                    market.handle(Checked(good=good), now)

    result = timed(bare), timed(real)
    if market.statistics()["messages"] != ORDERS:
        raise AssertionError(f"the market took {market.statistics()} of {ORDERS} orders")
    return result


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


MEASURES: Final = {
    "intake": (intake, ORDERS, 1.6),
    "auction": (auction, 10_000, 8.0),
    "channel": (channel, 500, 3.0),
    "store": (store, 32, 60.0),
    "journal": (journal, 2_048, 0.6),
}
"""Name, operations, and how many times its baseline a measure may cost."""
