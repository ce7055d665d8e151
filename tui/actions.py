"""What the owner can have done, as requests to the local API. Each returns one sentence for him, or raises the node's refusal.

Nothing is judged here: prices, limits and names are sent as they were entered, and what is wrong with them the node says.
"""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tui.link import Link
from tui.words import plural, short
from wire.errors import LocalFault, Refused


def _number(label: str, entered: str) -> int | None:
    """A whole number, or None for an empty field; the API takes numbers, not text, so this much is read here."""
    if not entered:
        return None
    if not entered.isascii() or not entered.isdigit() or len(entered) > 12:
        raise Refused("bad-number", f"{label}: {entered!r} is not a whole number")
    return int(entered)


def _seconds(label: str, entered: str) -> float | None:
    try:
        return float(entered) if entered else None
    except ValueError:
        raise Refused("bad-number", f"{label}: {entered!r} is not a number") from None


def _id_of(answer: Any) -> str:
    return str(answer.get("id", "")) if isinstance(answer, dict) else ""


def _without_none(**said: Any) -> dict[str, Any]:
    return {name: value for name, value in said.items() if value is not None}


async def buy(link: Link, article: str, file: str, price: str, wait: str) -> str:
    """Have the work in a file done."""
    wait_s = _seconds("Wait", wait)
    if not file:
        raise LocalFault("bad-file", "name the file that holds the work")
    stored = await link.store(Path(file).expanduser())
    order = _without_none(side="buy", article=article, price=price or None, work=_id_of(stored), wait=wait_s)
    answer = await link.ask("POST", "orders", body=order)
    return f"order {short(_id_of(answer))} placed for {article}"


async def sell(link: Link, worker: str, article: str, price: str, slots: str) -> str:
    """Sell the time of a worker."""
    order = _without_none(side="sell", article=article, worker=worker, price=price or None, slots=_number("Slots", slots))
    await link.ask("POST", "orders", body=order)
    return f"{worker} is on offer"


async def cancel(link: Link, orders: Sequence[str]) -> str:
    """Withdraw orders, or close a stall. Those that have found a partner meanwhile are passed over."""
    cancelled = 0
    for order in orders:
        try:
            await link.ask("DELETE", f"orders/{quote(order, safe='')}")
        except Refused as refused:
            if refused.code != "unknown-order" or len(orders) == 1:
                raise
        else:
            cancelled += 1
    return "the order is cancelled" if len(orders) == 1 else f"{plural(cancelled, 'order')} cancelled"


async def grant(link: Link, side: str, article: str, price: str, trades: str, minutes: str) -> str:
    """Grant a mandate."""
    mandate = {
        "side": side,
        "article": article,
        "price": price,
        "trades": _number("Trades", trades),
        "minutes": _number("Minutes", minutes),
    }
    await link.ask("POST", "mandates", body=mandate)
    return f"mandate granted to {side} {article}"


async def revoke(link: Link, mandate: str) -> str:
    """Take a mandate back."""
    await link.ask("DELETE", f"mandates/{quote(mandate, safe='')}")
    return "the mandate is revoked"


async def register(link: Link, name: str, article: str, pushurl: str) -> str:
    """Register a worker that listens at an address."""
    await link.ask("POST", "workers", body={"id": name, "article": article, "pushurl": pushurl})
    return f"worker {name} is registered"


async def unregister(link: Link, name: str) -> str:
    """Forget a worker."""
    await link.ask("DELETE", f"workers/{quote(name, safe='')}")
    return f"worker {name} is unregistered"


async def follow(link: Link, article: str) -> str:
    """Follow the books of an article."""
    await link.ask("POST", "books", params={"article": article})
    return f"following {article}"


async def close_channels(link: Link) -> str:
    """Have every channel closed on chain."""
    asked = await link.ask("POST", "channels/close", params={"reason": "asked by the owner"})
    number = len(asked) if isinstance(asked, list) else 0
    return f"{number} channels are closing" if number else "no channel is open"


async def save(link: Link, content: str, file: str) -> str:
    """Write the bytes of a result into a new file."""
    if not file:
        raise LocalFault("bad-file", "name the file to write")
    target = Path(file).expanduser()
    try:
        opened = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except OSError as error:
        raise LocalFault("bad-file", f"{file} cannot be written: {(error.strerror or 'unknown').lower()}") from None
    size = 0
    whole = False
    try:
        with os.fdopen(opened, "wb") as sink:
            async for piece in link.content(content):
                size += await asyncio.to_thread(sink.write, piece)
        whole = True
    except OSError as error:
        raise LocalFault("bad-file", f"{file} cannot be written: {(error.strerror or 'unknown').lower()}") from None
    finally:
        if not whole:
            target.unlink(missing_ok=True)  # made above, and half a result is worse than none
    return f"{size} bytes written to {file}"
