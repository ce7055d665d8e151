"""Many signed and stamped orders of different owners, for the benches of the book."""

from typing import Final

from blake3 import blake3

from orderbook.core.messages import Order, Side, seal_order
from wire.keys import SecretKey
from wire.network import REGTEST

BOOK: Final = b"b" * 32


def key(number: int) -> SecretKey:
    """A key for one of the measured parties."""
    return SecretKey(blake3(number.to_bytes(4, "big")).digest())


def orders(count: int, epoch: int, *, book: bytes = BOOK, epochs: int = 3, owners: int = 1_250) -> list[bytes]:
    """``count`` orders of ``owners`` owners, eight slots each, first good in ``epochs`` epochs up to ``epoch``."""
    keys = [key(number) for number in range(owners)]
    return [
        seal_order(
            keys[number % owners],
            REGTEST,
            Order(
                network=REGTEST.name,
                book=book,
                side=Side.BUY if number % 2 else Side.SELL,
                price_msat=1_000_000 + number,
                quantity=1 + number % 5,
                first_epoch=epoch - number % epochs,
                last_epoch=epoch - number % epochs + 4,
                owner=keys[number % owners].public,
                slot=number // owners % 8,
                sequence=number,
                salt=number.to_bytes(16, "big"),
            ),
        )
        for number in range(count)
    ]
