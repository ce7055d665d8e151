"""Writes the golden vectors of the auction from the literal reference: ``python -m tests.orderbook.vectors_made``."""

import json
import random
from pathlib import Path
from typing import Any

from orderbook.core.auction import Entry, auction_seed
from orderbook.core.messages import Side, account_hash_of, book_id
from tests.orderbook import reference

SHAPES = [
    ("one pair", 1, 1, 4, 1, 0.0),
    ("small", 4, 4, 6, 3, 0.0),
    ("ties", 8, 8, 2, 3, 0.0),
    ("refusals", 8, 8, 4, 3, 0.5),
    ("one owner on both sides", 6, 6, 5, 2, 0.2),
    ("many units", 5, 5, 20, 60, 0.1),
    ("lopsided", 12, 2, 5, 4, 0.1),
    ("refusals and ties", 20, 20, 2, 4, 0.6),
    ("larger", 60, 60, 30, 12, 0.1),
]


def _entry(dice: random.Random, side: Side, owners: list[bytes], spread: int, most: int, refusals: float) -> Entry:
    avoid = {account_hash_of(dice.choice(owners)) for _ in range(3)} if dice.random() < refusals else set()
    return Entry(
        id=dice.randbytes(32),
        owner=dice.choice(owners),
        side=side,
        price_msat=20_000 + 500 * dice.randrange(spread),
        quantity=dice.randint(1, most),
        avoid=tuple(sorted(avoid)),
    )


def _case(number: int, name: str, buys: int, sells: int, spread: int, most: int, refusals: float) -> dict[str, Any]:
    dice = random.Random(number)
    owners = [b"\x02" + dice.randbytes(32) for _ in range(max(3, (buys + sells) // 2))]
    book = book_id("regtest", dice.randbytes(32), name, dice.randbytes(32))
    epoch = 880_000_000 + number
    seed = auction_seed("regtest", book, epoch)
    buying = [_entry(dice, Side.BUY, owners, spread, most, refusals) for _ in range(buys)]
    selling = [_entry(dice, Side.SELL, owners, spread, most, refusals) for _ in range(sells)]
    fills = reference.clear(buying, selling, seed)
    return {
        "name": name,
        "network": "regtest",
        "book": book.hex(),
        "epoch": epoch,
        "seed": str(seed),
        "buys": [_row(one) for one in buying],
        "sells": [_row(one) for one in selling],
        "fills": [[f.buy.id.hex(), f.sell.id.hex(), f.quantity, f.price_msat, f.buy_from, f.sell_from] for f in fills],
    }


def _row(one: Entry) -> list[Any]:
    return [one.id.hex(), one.owner.hex(), one.price_msat, one.quantity, [each.hex() for each in one.avoid]]


def document() -> str:
    """The whole file."""
    cases = [_case(number, *shape) for number, shape in enumerate(SHAPES)]
    about = (
        "Orders are [id, owner, price_msat, quantity, [avoided account hashes]]; "
        "fills are [buy, sell, quantity, price_msat, buy_from, sell_from] in the order of the rules."
    )
    return json.dumps({"about": about, "auctions": cases}, indent=1) + "\n"


if __name__ == "__main__":
    (Path(__file__).parents[1] / "vectors" / "orderbook" / "auction.json").write_text(document())
