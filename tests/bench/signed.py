"""Signed orders to measure with, and the least that anybody must do with one: the bare loop."""

import dataclasses
import time
from pathlib import Path
from typing import Any, Final

import msgpack
from blake3 import blake3
from coincurve import PublicKeyXOnly

from orderbook.core.messages import Order, Side, life_of, read, seal_order
from orderbook.core.stamp import bits_needed
from peer.core.shop import Shop
from wire.digest import context, digest
from wire.keys import SecretKey
from wire.limits import ORDER_LIFE_MAX_EPOCHS
from wire.moments import Instant
from wire.network import REGTEST, SIGNET, Network

# The clock of public networks; minting with less work, because orders are made before the measurement. Checking costs the same.
NETWORK: Final[Network] = dataclasses.replace(REGTEST, clock=SIGNET.clock, stamp_bits=4)
ARTICLE: Final = "net.bitwrk/bench/1"
BOOK: Final = Shop(NETWORK, None).book(ARTICLE, free=True)
PER_OWNER: Final = 4


def key(number: int) -> SecretKey:
    """A key for one of the measured parties."""
    return SecretKey(blake3(number.to_bytes(4, "big")).digest())


def now() -> Instant:
    """The time that orders are made for."""
    return Instant(time.time_ns() // 1_000)


def sealed_orders(count: int, book: bytes = BOOK) -> list[bytes]:
    """Orders of many owners, four each, every other a buyer, that can be admitted for the next ten minutes."""
    epoch = NETWORK.clock.epoch(now()) + 1
    orders: list[bytes] = []
    while len(orders) < count:
        owner, side = key(len(orders)), Side.BUY if len(orders) % (2 * PER_OWNER) else Side.SELL
        orders += (
            seal_order(
                owner,
                NETWORK,
                Order(
                    network=NETWORK.name,
                    book=book,
                    side=side,
                    price_msat=0,
                    quantity=1,
                    first_epoch=epoch,
                    last_epoch=epoch + ORDER_LIFE_MAX_EPOCHS - 1,
                    owner=owner.public,
                    slot=slot,
                    sequence=len(orders),
                    salt=len(orders).to_bytes(16, "big"),
                ),
            )
            for slot in range(PER_OWNER)
        )
    return orders[:count]


def save(path: Path, orders: list[bytes]) -> None:
    """Keep orders for other processes."""
    path.write_bytes(msgpack.packb(orders))


def load(path: str, first: int, count: int) -> list[bytes]:
    """Orders that another process has kept."""
    found: list[bytes] = msgpack.unpackb(Path(path).read_bytes())[first : first + count]
    if len(found) != count:
        raise ValueError(f"there are only {first + len(found)} orders, not {first + count}")
    return found


_PACK: Final[Any] = msgpack.Packer(use_bin_type=True).pack
_ID: Final = blake3(derive_key_context=context(NETWORK.name, "order"))
_STAMP: Final = blake3(derive_key_context=context(NETWORK.name, "stamp"))
_OWNER: Final = [field.name for field in dataclasses.fields(Order)].index("owner")


def bare(orders: list[bytes]) -> None:
    """Unpack, encode again and compare, BLAKE3 id, stamp, key parse, BIP340 verify; nothing else, and nothing kept."""
    bits = bits_needed(NETWORK.stamp_bits, len(_body(orders[0])), ORDER_LIFE_MAX_EPOCHS)
    limit = 1 << (256 - bits)
    for raw in orders:
        envelope = msgpack.unpackb(raw)
        body, signature = envelope[1]
        fields = msgpack.unpackb(body)
        same = _PACK(envelope) == raw and _PACK(fields) == body
        named, stamped = _ID.copy(), _STAMP.copy()
        named.update(body)
        stamped.update(body)
        worked = int.from_bytes(stamped.digest(), "big") < limit
        if not (same and worked and PublicKeyXOnly(fields[_OWNER][1:]).verify(signature, named.digest())):
            raise ValueError("a good order failed")


def _body(raw: bytes) -> bytes:
    body: bytes = msgpack.unpackb(raw)[1][0]
    return body


def agree(raw: bytes) -> None:
    """Raise unless the bare loop and the product mean the same by an order's id, stamp and life."""
    heard = read(NETWORK, raw)
    if life_of(heard.body) != ORDER_LIFE_MAX_EPOCHS or heard.id != digest(context(NETWORK.name, "order"), _body(raw)):
        raise ValueError("the bare loop does other work than a node")
