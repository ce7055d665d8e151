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

# Books made on purpose. Orders are (owner, price, quantity, avoided owners); ids are drawn, but see ``_chosen``.
Row = tuple[str, int, int, str]
CHOSEN: list[tuple[str, list[Row], list[Row]]] = [
    ("price zero is an ordinary price", [("A", 0, 2, ""), ("B", 0, 3, "")], [("C", 0, 4, "")]),
    ("free book, tickets decide", [(owner, 0, 2, "") for owner in "ABCDEF"], [(owner, 0, 1, "") for owner in "GHIJK"]),
    ("odd sum rounds down", [("A", 8, 1, "")], [("B", 3, 1, "")]),
    ("two at the margin of which one loses", [("A", 9, 1, ""), ("B", 9, 1, "")], [("C", 4, 1, "")]),
    ("two at the margin that both fit", [("A", 9, 1, ""), ("B", 9, 1, ""), ("C", 7, 1, "")], [("D", 4, 2, "")]),
    ("alone at the margin and too large", [("A", 9, 5, "")], [("B", 4, 1, ""), ("C", 6, 1, "")]),
    ("one owner twice at the margin, ids decide", [("A", 9, 2, ""), ("A", 9, 2, ""), ("A", 9, 2, "")], [("B", 4, 3, "")]),
    ("second clearing at a price of its own", [("A", 10, 1, "")], [("A", 2, 1, ""), ("B", 6, 1, "")]),
    (
        "both second clearings",
        [("A", 20, 3, ""), ("B", 9, 2, ""), ("C", 8, 2, "")],
        [("A", 1, 3, ""), ("D", 10, 1, ""), ("E", 12, 2, "")],
    ),
    ("four further calls find him", [("A", 100, 1, "")], [*(("A", price, 1, "") for price in (1, 2, 3, 4)), ("B", 50, 1, "")]),
    ("a fifth there is not", [("A", 100, 1, "")], [*(("A", price, 1, "") for price in (1, 2, 3, 4, 5)), ("B", 50, 1, "")]),
    (
        "units after a second clearing begin where the first ended",
        [("A", 30, 5, "")],
        [("B", 1, 2, ""), ("A", 2, 1, ""), ("C", 9, 4, "")],
    ),
    ("a sell passed over is met later", [("A", 9, 2, "B"), ("C", 8, 3, "")], [("B", 1, 2, ""), ("D", 2, 2, ""), ("E", 3, 1, "")]),
    ("the seller avoids", [("A", 9, 2, ""), ("B", 8, 2, "")], [("C", 1, 3, "A"), ("D", 2, 2, "")]),
    ("eight avoided accounts", [("A", 9, 9, "BCDEFGHI"), ("J", 8, 4, "")], [(owner, 1, 1, "") for owner in "BCDEFGHIKL"]),
    ("nobody may trade with anybody", [("A", 9, 2, "CD"), ("B", 9, 1, "CD")], [("C", 1, 2, ""), ("D", 2, 3, "")]),
    (
        "the greatest price and quantities",
        [("A", 1 << 40, 65_536, ""), ("B", 1 << 40, 65_536, "")],
        [("C", (1 << 40) - 1, 65_536, ""), ("D", 0, 65_535, "")],
    ),
    (
        "greatest quantities with refusals",
        [("A", 1 << 40, 65_536, ""), ("B", 7, 65_536, "D")],
        [("A", 0, 65_536, ""), ("C", 6, 1, ""), ("D", 5, 65_536, "")],
    ),
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


def _drawn(number: int, name: str, buys: int, sells: int, spread: int, most: int, refusals: float) -> dict[str, Any]:
    dice = random.Random(number)
    owners = [b"\x02" + dice.randbytes(32) for _ in range(max(3, (buys + sells) // 2))]
    book = book_id("regtest", dice.randbytes(32), name, dice.randbytes(32))
    buying = [_entry(dice, Side.BUY, owners, spread, most, refusals) for _ in range(buys)]
    selling = [_entry(dice, Side.SELL, owners, spread, most, refusals) for _ in range(sells)]
    return _case(number, name, book, buying, selling)


def _chosen(number: int, name: str, buys: list[Row], sells: list[Row]) -> dict[str, Any]:
    """Every second id differs from others in its last bytes only: ids are compared to the end."""
    dice = random.Random(number)
    owners = {letter: b"\x03" + dice.randbytes(32) for letter in "ABCDEFGHIJKL"}
    book = book_id("regtest", dice.randbytes(32), name, dice.randbytes(32))

    def side(of: Side, rows: list[Row]) -> list[Entry]:
        return [
            Entry(
                id=dice.randbytes(32) if place % 2 else b"\x80" * 30 + bytes([of.value]) + dice.randbytes(1),
                owner=owners[owner],
                side=of,
                price_msat=price,
                quantity=quantity,
                avoid=tuple(sorted(account_hash_of(owners[one]) for one in avoid)),
            )
            for place, (owner, price, quantity, avoid) in enumerate(rows)
        ]

    return _case(number, name, book, side(Side.BUY, buys), side(Side.SELL, sells))


def _case(number: int, name: str, book: bytes, buying: list[Entry], selling: list[Entry]) -> dict[str, Any]:
    epoch = 880_000_000 + number
    seed = auction_seed("regtest", book, epoch)
    if len({one.id for one in (*buying, *selling)}) < len(buying) + len(selling):
        raise AssertionError("two orders drew one id")
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
    cases = [_drawn(number, *shape) for number, shape in enumerate(SHAPES)]
    cases += [_chosen(number, *shape) for number, shape in enumerate(CHOSEN, len(cases))]
    about = (
        "Orders are [id, owner, price_msat, quantity, [avoided account hashes]]; "
        "fills are [buy, sell, quantity, price_msat, buy_from, sell_from] in the order of the rules."
    )
    return json.dumps({"about": about, "auctions": cases}, indent=1) + "\n"


if __name__ == "__main__":
    (Path(__file__).parents[1] / "vectors" / "orderbook" / "auction.json").write_text(document())
