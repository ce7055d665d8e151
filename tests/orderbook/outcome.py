"""What the auction makes of some books, in a line each: ``python -m tests.orderbook.outcome``, to compare processes with."""

import random

from orderbook.core.auction import Entry
from orderbook.core.messages import Side, account_hash_of
from tests.orderbook.auctions import WAYS
from wire.digest import plain

COUNTS = (12, 200, 3_000)


def outcome() -> list[str]:
    """A digest of all fills, for each book and way."""
    lines = []
    for count in COUNTS:
        dice = random.Random(count)
        owners = [b"\x02" + dice.randbytes(32) for _ in range(count // 6)]
        entries = [
            Entry(
                id=dice.randbytes(32) if number % 3 else bytes(28) + number.to_bytes(4, "big"),
                owner=dice.choice(owners),
                side=Side(number % 2),
                price_msat=dice.randrange(100, 110) if dice.random() < 0.9 else dice.randrange(1 << 40),
                quantity=dice.choice([1, 2, 3, 65_536]),
                avoid=tuple(sorted({account_hash_of(dice.choice(owners)) for _ in range(8)})) if dice.random() < 0.1 else (),
            )
            for number in range(count)
        ]
        buys = [one for one in entries if one.side is Side.BUY]
        sells = [one for one in entries if one.side is Side.SELL]
        for way in WAYS.values():
            said = [(one.buy.id.hex(), one.sell.id.hex(), *one[2:]) for one in way(buys, sells, count)]
            lines.append(plain(repr(said).encode()).hex())
    return lines


if __name__ == "__main__":
    print("\n".join(outcome()))
