"""Own orders as rows: purchases that wait, what became of others, and stalls. Shown on several screens."""

from collections.abc import Iterable, Sequence

from tui.feed import Json
from tui.widgets.listing import Cell, Row
from tui.words import BAD, BUSY, FADED, GOOD, NOTHING, count, plural, price, text, whole

_ORDER_TONES = {"working": BUSY, "open": GOOD, "failed": BAD, "done": FADED, "cancelled": FADED, "closed": FADED}


def order_row(line: Json, key: str, units: int | None = None) -> Row:
    """One order of the owner: a purchase, what became of one, or a stall that sells. ``units`` of it are folded into the row."""
    buys = line.get("side") == "buy"
    state, reason, quantity = text(line, "state"), text(line, "reason"), whole(line, "quantity")
    if state == "working":  # what the node says of it then is why it waited before
        reason = "a seller was found"
    if not buys and not reason and state == "open":
        reason = f"{plural(quantity, 'unit')} on offer" if quantity else "no worker is free"
    tone = _ORDER_TONES.get(state, "")
    cost = asked(line)
    said = f"{state}: {reason}" if reason and state != "open" else reason or state
    return Row(
        key=key,
        cells=(
            text(line, "side"),
            text(line, "article"),
            cost,
            count((units or quantity) if buys else whole(line, "slots")),
            count(whole(line, "attempts")),
            Cell(said, FADED if state == "open" and not quantity else tone),
        ),
        tone=FADED if state in ("done", "cancelled", "failed") else "",
        article=text(line, "article"),
        facts=(
            ("State", said),
            ("Order", f"{text(line, 'side')} {text(line, 'article')}"),
            ("Highest price" if buys else "Price", cost),
            ("Worker", text(line, "worker")),
            ("Mandate", text(line, "mandate")),
            ("Work", text(line, "work")),
            ("Result", text(line, "result")),
            ("Id", text(line, "id") if units in (None, 1) else ""),
        ),
    )


def asked(line: Json) -> str:
    """The price of an order; a stall may have none until a mandate gives it one."""
    msat = whole(line, "price_msat")
    if line.get("mandated") is True:
        return NOTHING if msat is None else price(msat)
    return price(msat, free=msat is None)


def placed_key(line: Json) -> str:
    """What names the row of a purchase that waits: the market folds those of one article at one price into one order, and so
    does the screen.
    """
    return f"placed:{whole(line, 'price_msat')}:{text(line, 'article')}"


def waiting(orders: Iterable[Json]) -> dict[str, list[Json]]:
    """The purchases that have no partner yet, by the row they stand in."""
    rows: dict[str, list[Json]] = {}
    for line in orders:
        if line.get("side") == "buy" and line.get("state") == "waiting":
            rows.setdefault(placed_key(line), []).append(line)
    return rows


def order_rows(orders: Sequence[Json]) -> list[Row]:
    """Own orders: purchases that wait, folded, where the first of them stands; then each of the others."""
    folded = waiting(orders)
    rows = [order_row(lines[0], key, len(lines)) for key, lines in folded.items()]
    rest = [line for line in orders if placed_key(line) not in folded or line.get("state") != "waiting"]
    return [*rows, *(order_row(line, f"order:{text(line, 'id')}") for line in rest)]
